"""Sentence vectors without wasted work: the same numbers as `BertModel`, faster.

Padding costs as much as words do. Here the real tokens of all sentences lie in one long row, and
every linear layer, LayerNorm and GELU runs on that row; padding exists only inside the attention.
The heads read nothing but [CLS], so the last layer computes only that token of each sentence.

Shapes as in `bert.py`; besides, S sentences and N real tokens in all of them together.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from mtl_lib.bert import BertLayer, BertModel


def sentence_vectors(model: BertModel, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """The pooler's output of `model(input_ids, attention_mask)`, dropout included.

    Args:
        input_ids: word ids, `[S, L]`, the padding at the end of each sentence.
        attention_mask: `[S, L]`, 1 for a token, 0 for padding; every sentence has a token.

    Returns:
        One vector per sentence, `[S, H]`. Dropout draws other masks than the padded path.
    """
    mask = attention_mask.bool()  # [S, L]
    S, L = mask.shape
    tokens = mask.flatten().nonzero().squeeze(1)  # [N], places of the real tokens
    positions = tokens % L  # [N]
    first = (positions == 0).nonzero().squeeze(1)  # [S], the [CLS] tokens among the N

    embeddings = model.embeddings
    words = embeddings.word_embeddings(input_ids.flatten()[tokens])  # [N, H]
    places = embeddings.position_embeddings(positions)  # [N, H]
    segment = embeddings.token_type_embeddings.weight[0]  # [H]: a sentence alone is segment 0
    hidden = embeddings.dropout(embeddings.LayerNorm(words + places + segment))  # [N, H]

    *layers, last = model.encoder.layer
    for layer in layers:
        hidden = _layer(layer, hidden, hidden, mask, tokens, tokens, L)  # [N, H]
    sentences = torch.arange(S, device=tokens.device)
    cls = _layer(last, hidden[first], hidden, mask, tokens, sentences, 1)  # [S, H]
    return model.pooler(cls[:, None])  # [S, H]


def _layer(
    layer: BertLayer,
    queries: Tensor,
    hidden: Tensor,
    mask: Tensor,
    tokens: Tensor,
    rows: Tensor,
    per_sentence: int,
) -> Tensor:
    """One layer for some tokens `[Q, H]` that attend to all tokens `[N, H]`: `[Q, H]`.

    `rows` are the queries' places in a grid of `per_sentence` (L or 1) queries a sentence.
    """
    attention = layer.attention.self
    S, L = mask.shape
    context = F.scaled_dot_product_attention(
        _spread(attention.query(queries), rows, S, per_sentence, attention.heads),
        _spread(attention.key(hidden), tokens, S, L, attention.heads),
        _spread(attention.value(hidden), tokens, S, L, attention.heads),
        attn_mask=mask[:, None, None, :],
        dropout_p=attention.dropout.p if attention.training else 0.0,
    )  # [S, A, L or 1, D]
    context = context.transpose(1, 2).flatten(0, 1).flatten(1)[rows]  # [Q, H]
    attended = layer.attention.output(context, queries)  # [Q, H]
    return layer.output(layer.intermediate(attended), attended)  # [Q, H]


def _spread(x: Tensor, rows: Tensor, S: int, L: int, heads: int) -> Tensor:
    """Put packed rows in their places of the padded grid: `[Q, H]` -> `[S, A, L, D]`."""
    padded = x.new_zeros(S * L, x.shape[1]).index_copy(0, rows, x)  # [S * L, H]
    return padded.view(S, L, heads, -1).transpose(1, 2)
