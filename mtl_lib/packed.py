"""Sentence vectors without wasted work: the same numbers as `BertModel`, faster.

Padding costs as much as words do. Here the real tokens of all sentences lie in one long row, and
every linear layer, LayerNorm and GELU runs on that row; padding exists only inside the attention,
and little of it: sentences of like length attend together.
The heads read nothing but [CLS], so the last layer computes only that token of each sentence.

Shapes as in `bert.py`; besides, T batches (one per task), S sentences and N real tokens in all of
them together, in G groups of like length.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtl_lib.bert import (
    BertEmbeddings,
    BertLayer,
    BertModel,
    attention_scores,
    mask_scores,
)

# Cells of padded attention, length x length, that a group of its own has to save. On a CPU so many
# cost what one more call does (12 heads); on a GPU the call is all that costs.
_WORTH_A_GROUP = {"cpu": 8000}


@dataclass(frozen=True)
class Pack:
    """The real tokens of T batches, one after the other, and how their sentences attend.

    Sentences of like length, of whatever batch, form a group with a padded grid of its own; the
    cells of all grids, one group after the other, are numbered through.

    Attributes:
        words: distinct word ids, `[U]`.
        spelled: place in `words` of each token, `[N]`.
        positions: position of each token in its sentence, `[N]`.
        first: place in the row of each sentence's [CLS], `[S]`.
        tokens: how many of the N tokens belong to each batch, T numbers.
        sentences: how many of the S sentences belong to each batch, T numbers.
        order: the sentences by group, `[S]`.
        masks: attention mask of each group, G tensors `[S_g, L_g]`.
        cells: the cell of each token, `[N]`.
        widths: the length of the grid that each token stands in, `[N]`.
    """

    words: Tensor
    spelled: Tensor
    positions: Tensor
    first: Tensor
    tokens: list[int]
    sentences: list[int]
    order: Tensor
    masks: list[Tensor]
    cells: Tensor
    widths: Tensor

    @classmethod
    def of(
        cls, padded: Iterable[tuple[Tensor, Tensor]], device: torch.device | str = "cpu"
    ) -> "Pack":
        """Pack pairs of `input_ids` and `attention_mask`, each `[S_t, L_t]`, for a device.

        The padding stands at the end of each sentence, and every sentence has a token. The work is
        done on the host, which does not wait for the copies to the device.
        """
        device, padded = torch.device(device), [(ids.cpu(), mask.cpu()) for ids, mask in padded]
        lengths = torch.cat([mask.sum(dim=1) for _, mask in padded])  # [S]
        words, spelled = torch.cat([ids[mask > 0] for ids, mask in padded]).unique(
            return_inverse=True
        )
        first = lengths.cumsum(0) - lengths
        positions = torch.arange(len(spelled)) - first.repeat_interleave(lengths)
        masks, cells = [], 0
        corner, width = torch.empty_like(lengths), torch.empty_like(lengths)  # its first cell
        groups = _groups(lengths.tolist(), _WORTH_A_GROUP.get(device.type))
        for group in groups:
            longest = int(lengths[group].max())
            masks.append((torch.arange(longest) < lengths[group, None]).long())  # [S_g, L_g]
            corner[group] = cells + longest * torch.arange(len(group))
            width[group] = longest
            cells += masks[-1].numel()
        pack = cls(
            words=words,
            spelled=spelled,
            positions=positions,
            first=first,
            tokens=[int(mask.sum()) for _, mask in padded],
            sentences=[len(mask) for _, mask in padded],
            order=torch.cat(groups),
            masks=masks,
            cells=corner.repeat_interleave(lengths) + positions,
            widths=width.repeat_interleave(lengths),
        )

        def moved(value):
            if isinstance(value, Tensor):
                return value.to(device, non_blocking=True)
            return [moved(v) for v in value] if isinstance(value, list) else value

        return cls(**{field.name: moved(getattr(pack, field.name)) for field in fields(pack)})

    def cells_by_head(self, heads: int) -> Tensor:
        """The cells where every sentence has a row of its grid for each head, one after the other.

        Returns:
            The cell of each token's part for each head, `[N * A]`, token by token.
        """
        first = heads * (self.cells - self.positions) + self.positions  # [N]
        return (
            first[:, None] + self.widths[:, None] * torch.arange(heads, device=first.device)
        ).flatten()


def _groups(lengths: list[int], worth: int | None) -> list[Tensor]:
    """Sentences by groups of like length: the numbers of all, each once.

    A group is cut in two where that saves most of its padded cells, as long as it saves `worth`.
    """

    def cut(group: list[int]) -> list[list[int]]:
        longest = lengths[group[-1]]
        saved = [n * (longest**2 - lengths[i] ** 2) for n, i in enumerate(group, start=1)]
        if worth is None or max(saved) < worth:
            return [group]
        n = 1 + saved.index(max(saved))
        return cut(group[:n]) + cut(group[n:])

    rising = sorted(range(len(lengths)), key=lengths.__getitem__)
    return [torch.tensor(group) for group in cut(rising)]


class Layers:
    """How packed rows pass through the encoder's modules: as the modules themselves do it.

    `rows` says how many of the rows belong to each batch; who wants the gradients of each batch
    apart needs it (`joint.py`).
    """

    def embed(self, embeddings: BertEmbeddings, pack: Pack) -> Tensor:
        """Sum of word, position and segment embeddings of the tokens, `[N, H]`."""
        words = embeddings.word_embeddings(pack.words[pack.spelled])  # [N, H]
        places = embeddings.position_embeddings(pack.positions)  # [N, H]
        return words + places + embeddings.token_type_embeddings.weight[0]  # alone: segment 0

    def linear(self, module: nn.Linear, x: Tensor, rows: list[int]) -> Tensor:
        """`[R, in]` -> `[R, out]`."""
        return module(x)

    def norm(self, module: nn.LayerNorm, x: Tensor, rows: list[int]) -> Tensor:
        """`[R, H]` -> `[R, H]`."""
        return module(x)


def sentence_vectors(model: BertModel, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """The pooler's output of `model(input_ids, attention_mask)`, dropout included.

    Args:
        input_ids: word ids, `[S, L]`, the padding at the end of each sentence.
        attention_mask: `[S, L]`, 1 for a token, 0 for padding; every sentence has a token.

    Returns:
        One vector per sentence, `[S, H]`. Dropout draws other masks than the padded path.
    """
    return packed_vectors(model, Pack.of([(input_ids, attention_mask)], input_ids.device))


def packed_vectors(model: BertModel, pack: Pack, layers: Layers | None = None) -> Tensor:
    """The vectors `[S, H]` of all sentences of a pack; `layers` does the work with the weights."""
    layers = layers or Layers()
    embeddings = model.embeddings
    hidden = layers.embed(embeddings, pack)  # [N, H]
    hidden = layers.norm(embeddings.LayerNorm, hidden, pack.tokens)
    return encode_packed(model, _dropout(embeddings.dropout, hidden), pack, layers)


def encode_packed(
    model: BertModel, hidden: Tensor, pack: Pack, layers: Layers | None = None
) -> Tensor:
    """From finished embeddings of the tokens, `[N, H]`, to the sentences' vectors `[S, H]`."""
    layers = layers or Layers()
    *lower, last = model.encoder.layer
    cells = pack.cells_by_head(last.attention.self.heads)
    for layer in lower:
        hidden = _layer(layer, layers, hidden, pack, cells)  # [N, H]
    cls = _layer(last, layers, hidden, pack, cells, cls_only=True)  # [S, H]
    return torch.tanh(layers.linear(model.pooler.dense, cls, pack.sentences))  # [S, H]


def _layer(
    layer: BertLayer,
    layers: Layers,
    hidden: Tensor,
    pack: Pack,
    cells: Tensor,
    cls_only: bool = False,
) -> Tensor:
    """One layer on all tokens `[N, H]`: their new vectors, or those of the S [CLS] tokens only."""
    attention, attended, widen, narrow = (
        layer.attention.self,
        layer.attention.output,
        layer.intermediate,
        layer.output,
    )
    queries = hidden[pack.first] if cls_only else hidden  # [Q, H]
    rows = pack.sentences if cls_only else pack.tokens  # Q in all
    query = layers.linear(attention.query, queries, rows)  # [Q, H]
    key = layers.linear(attention.key, hidden, pack.tokens)  # [N, H]
    value = layers.linear(attention.value, hidden, pack.tokens)  # [N, H]
    context = _attend(query, key, value, pack, cells, attention.dropout)  # [Q, H]
    new = _dropout(attended.dropout, layers.linear(attended.dense, context, rows))
    x = layers.norm(attended.LayerNorm, queries + new, rows)  # [Q, H]
    wide = F.gelu(layers.linear(widen.dense, x, rows))  # [Q, I]
    new = _dropout(narrow.dropout, layers.linear(narrow.dense, wide, rows))
    return layers.norm(narrow.LayerNorm, x + new, rows)  # [Q, H]


def _attend(
    query: Tensor, key: Tensor, value: Tensor, pack: Pack, cells: Tensor, dropout: nn.Dropout
) -> Tensor:
    """Attention within the sentences, for all N tokens or the S [CLS] tokens, `[Q, H]`.

    Only here the tokens stand in padded grids, one a group. Their parts go straight to the cells of
    their heads, `cells`, so that no tensor has to be turned around for the products.
    """
    (N, H), everywhere = key.shape, len(query) == len(key)
    A = len(cells) // N
    D = H // A
    sizes = [A * mask.numel() for mask in pack.masks]

    def in_cells(x: Tensor) -> Iterable[Tensor]:  # [N, H] -> G tensors [S_g * A * L_g, D]
        return x.new_zeros(sum(sizes), D).index_copy_(0, cells, x.view(-1, D)).split(sizes)

    def by_group(x: Tensor) -> Iterable[Tensor]:  # [S, H] -> G tensors [S_g, H]
        return x[pack.order].split([len(mask) for mask in pack.masks])

    queries = in_cells(query) if everywhere else by_group(query)
    contexts = []
    for mask, *of_group in zip(pack.masks, queries, in_cells(key), in_cells(value), strict=True):
        q, k, v = (x.view(len(mask), A, -1, D) for x in of_group)  # [S_g, A, L_g or 1, D]
        scores = mask_scores(attention_scores(q, k), mask)  # [S_g, A, L_g or 1, L_g]
        probabilities = _dropout(dropout, scores.softmax(dim=3))
        contexts.append((probabilities @ v).view(-1, D))
    context = torch.cat(contexts)
    if everywhere:
        return context.index_select(0, cells).view(N, H)
    return torch.empty_like(query).index_copy(0, pack.order, context.view(-1, H))


def _dropout(module: nn.Dropout, x: Tensor) -> Tensor:
    """`module(x)` from 16 random bits an element: on a CPU torch's own draw takes 5 % of a step.

    The rate is rounded to a multiple of 2^-16, and what stays is scaled by the rounded rate.
    """
    if not module.training or module.p == 0:
        return x
    dropped = min(round(module.p * 2**16), 2**16 - 1)
    words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64, device=x.device)
    bits = words.random_(-(2**63), None).view(torch.int16)[: x.numel()].view(x.shape)
    kept = torch.ge(bits, dropped - 2**15, out=torch.empty_like(x))  # 0 or 1
    return x * kept.mul_(2**16 / (2**16 - dropped))
