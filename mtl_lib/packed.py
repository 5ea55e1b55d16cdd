"""Sentence vectors without wasted work: the same numbers as `BertModel`, faster.

Padding costs as much as words do. Here the real tokens of all sentences lie in one long row, and
every linear layer, LayerNorm and GELU runs on that row; padding exists only inside the attention.
The heads read nothing but [CLS], so the last layer computes only that token of each sentence.

Shapes as in `bert.py`; besides, T batches (one per task), S sentences and N real tokens in all of
them together.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtl_lib.bert import (
    BertEmbeddings,
    BertLayer,
    BertModel,
    attention_scores,
    mask_scores,
    merge_heads,
    split_heads,
)


@dataclass(frozen=True)
class Pack:
    """The real tokens of T batches, one after the other.

    Attributes:
        words: distinct word ids, `[U]`.
        spelled: place in `words` of each token, `[N]`.
        positions: position of each token in its sentence, `[N]`.
        first: place in the row of each sentence's [CLS], `[S]`.
        tokens: how many of the N tokens belong to each batch, T numbers.
        sentences: how many of the S sentences belong to each batch, T numbers.
        masks: attention mask of each batch, T tensors `[S_t, L_t]`.
        places: where a batch's tokens lie in its padded grid, T tensors `[N_t]`.
    """

    words: Tensor
    spelled: Tensor
    positions: Tensor
    first: Tensor
    tokens: list[int]
    sentences: list[int]
    masks: list[Tensor]
    places: list[Tensor]

    @classmethod
    def of(cls, padded: Iterable[tuple[Tensor, Tensor]]) -> "Pack":
        """Pack pairs of `input_ids` and `attention_mask`, each `[S_t, L_t]`.

        The padding stands at the end of each sentence, and every sentence has a token.
        """
        ids, positions, masks, places = [], [], [], []
        for input_ids, mask in padded:
            place = mask.flatten().nonzero().squeeze(1)  # [N_t]
            ids.append(input_ids.flatten()[place])
            positions.append(place % mask.shape[1])
            masks.append(mask)
            places.append(place)
        words, spelled = torch.cat(ids).unique(return_inverse=True)
        position = torch.cat(positions)
        return cls(
            words=words,
            spelled=spelled,
            positions=position,
            first=(position == 0).nonzero().squeeze(1),
            tokens=[len(place) for place in places],
            sentences=[len(mask) for mask in masks],
            masks=masks,
            places=places,
        )

    def to(self, device: torch.device | str) -> "Pack":
        """The same pack with its tensors on `device`; the host does not wait for the copies."""
        move = {name: getattr(self, name) for name in ("words", "spelled", "positions", "first")}
        return Pack(
            **{name: tensor.to(device, non_blocking=True) for name, tensor in move.items()},
            tokens=self.tokens,
            sentences=self.sentences,
            masks=[mask.to(device, non_blocking=True) for mask in self.masks],
            places=[place.to(device, non_blocking=True) for place in self.places],
        )


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
    return packed_vectors(model, Pack.of([(input_ids, attention_mask)]))


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
    for layer in lower:
        hidden = _layer(layer, layers, hidden, pack)  # [N, H]
    cls = _layer(last, layers, hidden, pack, cls_only=True)  # [S, H]
    return torch.tanh(layers.linear(model.pooler.dense, cls, pack.sentences))  # [S, H]


def _layer(
    layer: BertLayer, layers: Layers, hidden: Tensor, pack: Pack, cls_only: bool = False
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
    context = torch.cat(
        [
            _attend(*of_batch, mask, place, attention.heads, attention.dropout)
            for *of_batch, mask, place in zip(
                query.split(rows),
                key.split(pack.tokens),
                value.split(pack.tokens),
                pack.masks,
                pack.places,
                strict=True,
            )
        ]
    )  # [Q, H]
    new = _dropout(attended.dropout, layers.linear(attended.dense, context, rows))
    x = layers.norm(attended.LayerNorm, queries + new, rows)  # [Q, H]
    wide = F.gelu(layers.linear(widen.dense, x, rows))  # [Q, I]
    new = _dropout(narrow.dropout, layers.linear(narrow.dense, wide, rows))
    return layers.norm(narrow.LayerNorm, x + new, rows)  # [Q, H]


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor,
    place: Tensor,
    heads: int,
    dropout: nn.Dropout,
) -> Tensor:
    """Attention within the sentences of one batch, for all tokens or the S [CLS] tokens, `[Q, H]`.

    Only here the tokens go back to their padded grid `[S, L]`.
    """
    S, L = mask.shape
    everywhere = len(query) == len(key)
    grid = place if everywhere else torch.arange(S, device=place.device)
    query = split_heads(_pad(query, grid, S, L if everywhere else 1), heads)  # [S, A, L or 1, D]
    key = split_heads(_pad(key, place, S, L), heads)  # [S, A, L, D]
    value = split_heads(_pad(value, place, S, L), heads)  # [S, A, L, D]
    scores = attention_scores(query, key)  # [S, A, L or 1, L]
    probabilities = _dropout(dropout, mask_scores(scores, mask).softmax(dim=3))
    return merge_heads(probabilities @ value).flatten(0, 1)[grid]  # [Q, H]


def _dropout(module: nn.Dropout, x: Tensor) -> Tensor:
    """`module(x)` from 16 random bits an element: on a CPU torch's own draw takes 5 % of a step.

    The rate is rounded to a multiple of 2^-16, and what stays is scaled by the rounded rate.
    """
    if not module.training or module.p == 0:
        return x
    dropped = min(round(module.p * 2**16), 2**16 - 1)
    words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64, device=x.device)
    bits = words.random_(-(2**63), None).view(torch.int16)[: x.numel()].view(x.shape)
    kept = (bits >= dropped - 2**15).to(x.dtype)
    return x * kept.mul_(2**16 / (2**16 - dropped))


def _pad(x: Tensor, place: Tensor, S: int, L: int) -> Tensor:
    """Put rows in their places of the padded grid: `[Q, H]` -> `[S, L, H]`."""
    return x.new_zeros(S * L, x.shape[1]).index_copy(0, place, x).view(S, L, -1)
