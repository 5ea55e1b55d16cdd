"""Sentence vectors without wasted work: the same numbers as `BertModel`, faster.

Padding costs as much as words do. Here the real tokens of all sentences lie in one long row, and
every linear layer, LayerNorm and GELU runs on that row; padding exists only inside the attention,
and little of it: sentences of like length attend together.
Where the sentence vector reads nothing but [CLS], the last layer computes only that token of each
sentence.

Shapes as in `bert.py`; besides, T batches (one per task), S sentences and N real tokens in all of
them together, in G groups of like length.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from mtl_lib.bert import SENTENCE_VECTORS, BertEmbeddings, BertLayer, BertModel

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
        segments: segment of each token, 0 or 1, `[N]`.
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
    segments: Tensor
    first: Tensor
    tokens: list[int]
    sentences: list[int]
    order: Tensor
    masks: list[Tensor]
    cells: Tensor
    widths: Tensor

    @classmethod
    def of(
        cls, padded: Iterable[tuple[Tensor | None, ...]], device: torch.device | str = "cpu"
    ) -> "Pack":
        """Pack `input_ids`, `attention_mask` and perhaps `token_type_ids`, each `[S_t, L_t]`, for a
        device; without the last, or where it is None, all segments are 0.

        The work is done on the host, which does not wait for the copies to the device.

        Raises:
            ValueError: unless the padding stands at the end of each sentence, and every sentence
                has a token.
        """
        device = torch.device(device)
        given = [[x.cpu() for x in of_batch if x is not None] for of_batch in padded]
        ids, masks_of = [of[0] for of in given], [of[1] for of in given]
        types = [of[2] if len(of) > 2 else torch.zeros_like(of[0]) for of in given]
        lengths = torch.cat([mask.sum(dim=1) for mask in masks_of])  # [S]
        rising = any((mask[:, 1:] > mask[:, :-1]).any() for mask in masks_of)
        if rising or not lengths.all():
            raise ValueError(
                "without padding, a sentence is one token or more, and then its padding; for other "
                'masks take the plain path (engine="plain")'
            )
        real, segments = (
            torch.cat([x[mask > 0] for x, mask in zip(of, masks_of, strict=True)])
            for of in (ids, types)
        )  # [N] each
        words, spelled = real.unique(return_inverse=True)
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
            segments=segments,
            first=first,
            tokens=[int(mask.sum()) for mask in masks_of],
            sentences=[len(mask) for mask in masks_of],
            order=torch.cat(groups),
            masks=masks,
            cells=corner.repeat_interleave(lengths) + positions,
            widths=width.repeat_interleave(lengths),
        )

        def moved(value: Any) -> Any:
            if isinstance(value, Tensor):
                return value.to(device, non_blocking=True)
            return [moved(v) for v in value] if isinstance(value, list) else value

        return cls(**{field.name: moved(getattr(pack, field.name)) for field in fields(pack)})

    def grids(self, heads: int) -> "Grids":
        """Where the parts of all tokens stand: a grid of its own for each head of a sentence."""
        first = heads * (self.cells - self.positions) + self.positions  # [N]
        head = torch.arange(heads, device=first.device)
        return Grids(
            cells=(first[:, None] + self.widths[:, None] * head).flatten(),
            heads=heads,
            lengths=[mask.shape[1] for mask in self.masks],
            sentences=[len(mask) for mask in self.masks],
        )

    def cls_grids(self, heads: int) -> "Grids":
        """Where the parts of the [CLS] tokens stand that attend alone: grids of length 1."""
        place = torch.empty_like(self.order)
        place[self.order] = torch.arange(len(place), device=place.device)
        head = torch.arange(heads, device=place.device)
        return Grids(
            cells=(heads * place[:, None] + head).flatten(),
            heads=heads,
            lengths=[1] * len(self.masks),
            sentences=[len(mask) for mask in self.masks],
        )


@dataclass(frozen=True)
class Grids:
    """Where the heads' parts of R rows `[R, A, D]` stand in C cells, one grid a head and sentence.

    Attributes:
        cells: the cell of each part, `[R * A]`.
        heads: how many there are, A.
        lengths: the length L_g of each group's grids, G numbers.
        sentences: how many sentences each group has, G numbers.
    """

    cells: Tensor
    heads: int
    lengths: list[int]
    sentences: list[int]

    @property
    def sizes(self) -> list[int]:
        """How many cells each group has, G numbers; C in all."""
        return [
            self.heads * n * length for n, length in zip(self.sentences, self.lengths, strict=True)
        ]

    def spread(self, rows: Tensor) -> Tensor:
        """Rows `[R, H]` to cells `[C, D]`, the others zero."""
        parts = rows.view(len(self.cells), -1)  # [R * A, D]
        return parts.new_zeros(sum(self.sizes), parts.shape[1]).index_copy_(0, self.cells, parts)

    def gather(self, cells: Tensor) -> Tensor:
        """Cells `[C, D]` to rows `[R, H]`."""
        return cells.index_select(0, self.cells).view(len(self.cells) // self.heads, -1)

    def groups(self, cells: Tensor) -> list[Tensor]:
        """Views of the groups' cells, `[C, D]` -> G tensors `[S_g * A, L_g, D]`."""
        pieces = zip(cells.split(self.sizes), self.lengths, strict=True)
        return [piece.view(-1, length, cells.shape[1]) for piece, length in pieces]


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
        return words + places + embeddings.token_type_embeddings(pack.segments)

    def linears(self, modules: Sequence[nn.Linear], x: Tensor, rows: list[int]) -> Sequence[Tensor]:
        """Several layers read the same rows, `[R, in]` -> for each of them `[R, out]`."""
        return [module(x) for module in modules]

    def linear(self, module: nn.Linear, x: Tensor, rows: list[int]) -> Tensor:
        """One layer, `[R, in]` -> `[R, out]`."""
        return self.linears([module], x, rows)[0]

    def norm(self, module: nn.LayerNorm, x: Tensor, rows: list[int]) -> Tensor:
        """`[R, H]` -> `[R, H]`."""
        return module(x)


def sentence_vectors(
    model: BertModel, input_ids: Tensor, attention_mask: Tensor, kind: str = "pooler"
) -> Tensor:
    """`model(input_ids, attention_mask).sentence_vector(kind, attention_mask)`, dropout included.

    Args:
        input_ids: word ids, `[S, L]`, the padding at the end of each sentence.
        attention_mask: `[S, L]`, 1 for a token, 0 for padding; every sentence has a token.
        kind: one of `bert.SENTENCE_VECTORS`.

    Returns:
        One vector per sentence, `[S, H]`. Dropout draws other masks than the padded path.

    Raises:
        ValueError: if padding stands elsewhere, a sentence has no token, or there is no such kind.
    """
    pack = Pack.of([(input_ids, attention_mask)], input_ids.device)
    return packed_vectors(model, pack, kind=kind)


def packed_vectors(
    model: BertModel, pack: Pack, layers: Layers | None = None, kind: str = "pooler"
) -> Tensor:
    """The vectors `[S, H]`, or `[S, 2H]`, of all sentences of a pack; `layers` does the work with
    the weights.

    Raises:
        EncoderError: if one has more tokens than the encoder knows positions.
    """
    layers = layers or Layers()
    embeddings = model.embeddings
    embeddings.check_length(max(mask.shape[1] for mask in pack.masks))
    hidden = layers.embed(embeddings, pack)  # [N, H]
    hidden = layers.norm(embeddings.LayerNorm, hidden, pack.tokens)
    return encode_packed(model, _dropout(embeddings.dropout, hidden), pack, layers, kind)


def encode_packed(
    model: BertModel,
    hidden: Tensor,
    pack: Pack,
    layers: Layers | None = None,
    kind: str = "pooler",
) -> Tensor:
    """From finished embeddings of the tokens, `[N, H]`, to the sentences' vectors `[S, H]`.

    Raises:
        ValueError: if `kind` is none of `bert.SENTENCE_VECTORS`.
    """
    if kind not in SENTENCE_VECTORS:
        raise ValueError(f"sentence vector {kind!r}: choose from {SENTENCE_VECTORS}")
    layers = layers or Layers()
    stack: list[Any] = list(model.encoder.layer)
    *lower, last = stack
    grids = {n: pack.grids(n) for n in {layer.attention.self.heads for layer in stack}}
    for layer in lower:
        hidden = _layer(layer, layers, hidden, pack, grids[layer.attention.self.heads])  # [N, H]
    heads = last.attention.self.heads
    if "mean" in kind:
        hidden = _layer(last, layers, hidden, pack, grids[heads])  # [N, H]
        means = _means(hidden, pack)  # [S, H]
        return means if kind == "mean" else torch.cat([hidden[pack.first], means], dim=1)
    cls = _layer(last, layers, hidden, pack, grids[heads], pack.cls_grids(heads))  # [S, H]
    if kind == "cls":
        return cls
    return torch.tanh(layers.linear(model.pooler.dense, cls, pack.sentences))  # [S, H]


def _means(hidden: Tensor, pack: Pack) -> Tensor:
    """Mean over the tokens of each sentence, `[N, H]` -> `[S, H]`."""
    sentence = (pack.positions == 0).cumsum(0) - 1  # [N], the sentence of each token
    sums = hidden.new_zeros(len(pack.first), hidden.shape[1]).index_add(0, sentence, hidden)
    return sums / sentence.bincount()[:, None]


def _layer(
    layer: BertLayer,
    layers: Layers,
    hidden: Tensor,
    pack: Pack,
    grids: Grids,
    of_cls: Grids | None = None,
) -> Tensor:
    """One layer on all tokens `[N, H]`: their new vectors, or those of the S [CLS] tokens only."""
    attention, attended, widen, narrow = (
        layer.attention.self,
        layer.attention.output,
        layer.intermediate,
        layer.output,
    )
    asks, reads = [attention.query], [attention.key, attention.value]
    if of_cls is None:
        queries, rows = hidden, pack.tokens  # [Q, H], Q in all
        query, key, value = layers.linears(asks + reads, hidden, rows)  # [N, H] each
    else:
        queries, rows = hidden[pack.first], pack.sentences
        (query,) = layers.linears(asks, queries, rows)  # [S, H]
        key, value = layers.linears(reads, hidden, pack.tokens)  # [N, H] each
    context = _Attention.apply(
        query, key, value, pack.masks, of_cls or grids, grids, attention.dropout
    )  # [Q, H]
    new = _dropout(attended.dropout, layers.linear(attended.dense, context, rows))
    x = layers.norm(attended.LayerNorm, queries + new, rows)  # [Q, H]
    wide = F.gelu(layers.linear(widen.dense, x, rows))  # [Q, I]
    new = _dropout(narrow.dropout, layers.linear(narrow.dense, wide, rows))
    return layers.norm(narrow.LayerNorm, x + new, rows)  # [Q, H]


class _Attention(Function):
    """softmax(q k^T / sqrt(D)) v within the sentences, `[Q, H]` and twice `[N, H]` -> `[Q, H]`.

    Only here the tokens stand in padded grids, one group after the other. The backward pass is
    written out: it keeps to the grids and adds up in place, which autograd cannot know.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Any,
        key: Any,
        value: Any,
        masks: Any,
        of_queries: Any,
        of_keys: Any,
        dropout: Any,
    ) -> Any:
        q, k, v = of_queries.spread(query), of_keys.spread(key), of_keys.spread(value)  # [C, D]
        context, saved = torch.empty_like(q), []
        of_groups = zip(
            masks,
            *(of_queries.groups(x) for x in (q, context)),
            *(of_keys.groups(x) for x in (k, v)),
            strict=True,
        )
        for mask, q_g, context_g, k_g, v_g in of_groups:
            padding = torch.zeros(mask.shape, dtype=q.dtype, device=q.device)
            padding = padding.masked_fill_(mask == 0, -torch.inf).repeat_interleave(
                of_keys.heads, dim=0
            )  # [S_g * A, L_g]
            scores = torch.baddbmm(
                padding[:, None], q_g, k_g.transpose(1, 2), alpha=1 / math.sqrt(q.shape[1])
            )  # [S_g * A, L_g or 1, L_g]
            probabilities = scores.softmax(dim=2).to(q.dtype)
            kept = _kept(dropout, probabilities)
            dropped = probabilities if kept is None else probabilities * kept
            torch.bmm(dropped, v_g, out=context_g)
            saved += [q_g, k_g, v_g, probabilities, kept, dropped]
        ctx.save_for_backward(*saved)
        ctx.grids = of_queries, of_keys
        return of_queries.gather(context)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Any) -> Any:
        (of_queries, of_keys), saved = ctx.grids, ctx.saved_tensors
        d = of_queries.spread(dy.contiguous())  # [C, D]
        dq, dk = torch.empty_like(d), d.new_empty(sum(of_keys.sizes), d.shape[1])
        dv = torch.empty_like(dk)
        of_groups = zip(
            *(of_queries.groups(x) for x in (d, dq)),
            *(of_keys.groups(x) for x in (dk, dv)),
            *(saved[i::6] for i in range(6)),
            strict=True,
        )
        for d_g, dq_g, dk_g, dv_g, q, k, v, probabilities, kept, dropped in of_groups:
            torch.bmm(dropped.transpose(1, 2), d_g, out=dv_g)
            d_probabilities = d_g @ v.transpose(1, 2)  # [S_g * A, L_g or 1, L_g]
            if kept is not None:
                d_probabilities *= kept
            d_scores = torch._softmax_backward_data(
                d_probabilities, probabilities, 2, probabilities.dtype
            ).div_(math.sqrt(d.shape[1]))
            torch.bmm(d_scores, k, out=dq_g)
            torch.bmm(d_scores.transpose(1, 2), q, out=dk_g)
        return of_queries.gather(dq), of_keys.gather(dk), of_keys.gather(dv), *(None,) * 4


def _dropout(module: nn.Dropout, x: Tensor) -> Tensor:
    """`module(x)`, with masks of our own drawing."""
    kept = _kept(module, x)
    return x if kept is None else x * kept


def _kept(module: nn.Dropout, x: Tensor) -> Tensor | None:
    """What dropout multiplies x by, from 16 random bits an element; None where it does nothing.

    On a CPU torch's own draw takes 5 % of a step. The rate is rounded to a multiple of 2^-16, and
    what stays is scaled by the rounded rate.
    """
    if not module.training or module.p == 0:
        return None
    if module.p == 1:
        return torch.zeros_like(x)
    dropped = min(round(module.p * 2**16), 2**16 - 1)
    words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64, device=x.device)
    bits = words.random_(-(2**63), None).view(torch.int16)[: x.numel()].view(x.shape)
    kept = torch.ge(bits, dropped - 2**15, out=torch.empty_like(x))  # 0 or 1
    return kept.mul_(2**16 / (2**16 - dropped))
