"""Exercises of chapter 01: attention.

Shapes: B sentences, L tokens, H hidden size, A heads, D = H / A.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from mtl_lib import bert
from mtl_lib.handbook.checks.framework import (
    Case,
    Exercise,
    Mistake,
    call,
    draw,
    tensor,
    with_gradient,
)

# Scores


def _divided_by(divisor: Callable[[Tensor], float]) -> Callable:
    """The scores divided by something else than the root of D."""
    return lambda q, k: q @ k.transpose(-2, -1) / divisor(q)


def _scores_asks(*shape: int, seed: int):
    q, k = draw(*shape, seed=seed), draw(*shape, seed=seed + 1)
    return lambda answer: call(answer, q, k)


SCORES = Exercise(
    name="scores",
    chapter=1,
    title="scores",
    section="Attention",
    difficulty=2,
    importance=5,
    minutes=8,
    task=r"""
Write `scores(q, k)`: how well each query matches each key, $q \cdot k / \sqrt{D}$.

- `q` and `k`: queries and keys, `[.., L, D]`. The dots stand for any number of dimensions, also
  none; a layer of BERT has `[B, A, L, D]`.
- Return the scores `[.., L, L]`, queries down, keys across. No softmax yet.
- Gradients flow back to `q` and `k`.
""",
    hint="""
A matrix product of `q` with `k` transposed in its last two dimensions. D is the last one: which
number is it in the code?
""",
    reference=bert.attention_scores,
    cases=(
        Case("5 tokens, D = 4", _scores_asks(5, 4, seed=1)),
        Case("two sentences, three heads", _scores_asks(2, 3, 5, 4, seed=3)),
        Case("three sentences, no heads", _scores_asks(3, 5, 4, seed=13)),
        Case("D = 1", _scores_asks(2, 3, 4, 1, seed=5)),
        Case("D = 64", _scores_asks(2, 2, 3, 64, seed=7)),
        Case("one token", _scores_asks(3, 2, 1, 8, seed=9)),
        Case(
            "gradients",
            lambda answer: with_gradient(
                answer, q=draw(2, 3, 4, 5, seed=11), k=draw(2, 3, 4, 5, seed=12)
            ),
        ),
    ),
    mistakes=(
        Mistake(
            _divided_by(lambda q: 1),
            "The division is missing: without a root, scores spread more the longer the vectors.",
        ),
        Mistake(
            _divided_by(lambda q: q.shape[-1]),
            "It divides by D itself, not by its square root.",
        ),
        Mistake(
            _divided_by(lambda q: math.sqrt(math.prod(q.shape[-3:-2]) * q.shape[-1])),
            "It takes the root of the hidden size of all heads: D is the size of one head.",
        ),
        Mistake(
            _divided_by(lambda q: math.sqrt(q.shape[-2])),
            "It takes the root of the number of tokens: D is the size of the vectors.",
        ),
        Mistake(
            _divided_by(lambda q: 1 / math.sqrt(q.shape[-1])),
            "It multiplies by the root: the scores grow with D where they should not.",
        ),
        Mistake(
            lambda q, k: bert.attention_scores(k, q),
            "Keys run down and queries across: it is the transpose of what is asked.",
        ),
        Mistake(
            lambda q, k: bert.attention_scores(q, k).softmax(dim=-1),
            "These are weights already: the softmax comes after the mask.",
        ),
        Mistake(
            lambda q, k: torch.cosine_similarity(q[..., :, None, :], k[..., None, :, :], dim=-1),
            "These are cosines: the lengths of the vectors count too.",
        ),
    ),
    notes="""
Usual: no root, or the root of the hidden size (768) in place of one head's (64). `k.T` works on the
toy of two dimensions and fails in a layer. 2 points.
""",
)

# Masks

MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]])  # [B, L]
PADDED = torch.tensor([[1, 1, 1, 0], [0, 0, 0, 0]])  # the second sentence is padding only


def _weights(scores: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Weights after the softmax, which is all that masked scores are for.

    A sentence of padding only has no right weights; they just have to be weights, not NaN.
    """
    weights, real = tensor(scores).softmax(dim=-1), mask.any(dim=1)
    return {"value": weights[real], "sums over the keys": weights[~real].sum(dim=-1)}


def _masks(name: str, s: Tensor, mask: Tensor) -> Case:
    # Not tighter: a score to which 10,000 was added has lost its third decimal.
    return Case(name, lambda answer: _weights(call(answer, s, mask), mask), 2e-3, 1e-5)


def _fill(s: Tensor, hidden: Tensor, value: float | None = None) -> Tensor:
    return s.masked_fill(hidden, torch.finfo(s.dtype).min if value is None else value)


def _keys(mask: Tensor) -> Tensor:
    return mask[:, None, None, :] == 0


def _queries(mask: Tensor) -> Tensor:
    return mask[:, None, :, None] == 0


MASK_SCORES = Exercise(
    name="mask_scores",
    chapter=1,
    title="mask the padding",
    section="Attention",
    difficulty=2,
    importance=5,
    minutes=10,
    task="""
Write `mask_scores(s, mask)`: give padding such low scores that the softmax makes its weight 0.

- `s`: scores `[B, A, L, L]`, queries down, keys across.
- `mask`: `[B, L]`, whole numbers, 1 for a token and 0 for padding. It hides **keys**; queries at
  padding tokens may go on asking.
- Return the masked scores, `[B, A, L, L]`, still before the softmax. The check looks at
  `mask_scores(s, mask).softmax(dim=-1)`, so any number that is low enough will do.
- A sentence of padding only must not become NaN. Leave `s` itself as it is. Gradients flow back
  to it.
""",
    hint="""
Bring the mask to a shape that broadcasts over heads and queries, `[B, 1, 1, L]`. `torch.finfo`
knows the lowest finite number of a type.
""",
    reference=bert.mask_scores,
    cases=(
        _masks("three sentences, two padded", draw(3, 2, 5, 5, seed=1), MASK),
        _masks("all scores below zero", -3 - draw(3, 2, 5, 5, seed=2).abs(), MASK),
        _masks("scores from -300 to 300", 100 * draw(3, 2, 5, 5, seed=3), MASK),
        _masks("as many sentences as tokens", draw(5, 2, 5, 5, seed=4), MASK[[0, 1, 2, 1, 1]]),
        _masks("as many heads as sentences", draw(3, 3, 5, 5, seed=5), MASK),
        _masks("nothing padded", draw(2, 3, 4, 4, seed=6), torch.ones(2, 4).long()),
        _masks("padding at the front", draw(3, 1, 5, 5, seed=7), MASK.flip(1)),
        _masks("a sentence of padding only", draw(2, 3, 4, 4, seed=8), PADDED),
        Case(
            "gradients",
            lambda answer: with_gradient(
                lambda s: tensor(answer(s, MASK.clone())).softmax(dim=-1),
                s=draw(3, 2, 5, 5, seed=9),
            ),
        ),
    ),
    mistakes=(
        Mistake(
            lambda s, mask: s.softmax(dim=-1) * mask[:, None, None, :],
            "The mask comes after a softmax: the remaining weights no longer sum to 1.",
        ),
        Mistake(
            lambda s, mask: _fill(s, ~_keys(mask)),
            "The sign is flipped: it hides the tokens and shows the padding.",
        ),
        Mistake(
            lambda s, mask: s - 10000.0 * mask[:, None, None, :],
            "The sign is flipped: it hides the tokens and shows the padding.",
        ),
        Mistake(
            lambda s, mask: _fill(s, _queries(mask)),
            "It hides queries (rows): the mask is about keys, the last dimension.",
        ),
        Mistake(
            lambda s, mask: _fill(s, _queries(mask) | _keys(mask)),
            "It hides the queries at padding tokens too: only keys are to be hidden.",
        ),
        Mistake(
            lambda s, mask: s * mask[:, None, None, :],
            "Padding gets the score 0, or nearly. That is not low: the softmax gives it a weight.",
        ),
        Mistake(
            lambda s, mask: _fill(s, _keys(mask), -math.inf),
            "With minus infinity a sentence of padding only becomes NaN: take a finite number.",
        ),
        Mistake(
            lambda s, mask: s + mask[:, None, None, :],
            "It adds the mask itself to the scores: padding has to lose far more than 1.",
        ),
        Mistake(
            lambda s, mask: _fill(s, _keys(mask)).softmax(dim=-1),
            "These are weights already, and the softmax after them is a second one: return scores.",
        ),
        Mistake(lambda s, mask: s, "Nothing is masked: padding keeps its weight."),
    ),
    notes="""
Any fill that is low enough passes (-1e4, -1e9, the lowest finite number): the check compares
weights. Minus infinity is the instructive one: right everywhere but on a row of padding. 2 points.
""",
)

# Heads


def _split_asks(x: Tensor, heads: int):
    return lambda answer: call(answer, x, heads)


def _stripes(x: Tensor, heads: int) -> Tensor:
    B, L, H = x.shape
    return x.reshape(B, L, H // heads, heads).permute(0, 3, 1, 2)


TOY = torch.tensor([[[10.0 * token + feature for feature in range(4)] for token in (1, 2, 3)]])

SPLIT_HEADS = Exercise(
    name="split_heads",
    chapter=1,
    title="split into heads",
    section="Attention",
    difficulty=2,
    importance=4,
    minutes=8,
    task="""
Write `split_heads(x, heads)`: cut every token's vector into A = `heads` pieces of equal length, and
move the heads in front of the tokens.

- `x`: `[B, L, H]`; `heads` divides H. The first piece is the first D = H / A numbers, and so on.
- Return `[B, A, L, D]`.
- Gradients flow back to `x`.
""",
    hint="""
Two steps: first cut the last dimension, without moving anything; then exchange two dimensions.
Asking for the final shape at once runs, and mixes tokens.
""",
    reference=bert.split_heads,
    cases=(
        Case("3 tokens, two heads", _split_asks(TOY, 2)),
        Case("two sentences, three heads", _split_asks(draw(2, 5, 12, seed=1), 3)),
        Case("as many heads as tokens", _split_asks(draw(2, 3, 12, seed=2), 3)),
        Case("as many heads as sentences", _split_asks(draw(3, 4, 6, seed=3), 3)),
        Case("one head", _split_asks(draw(2, 4, 6, seed=4), 1)),
        Case("heads of size 1", _split_asks(draw(2, 4, 6, seed=5), 6)),
        Case(
            "gradients",
            lambda answer: with_gradient(lambda x: answer(x, 2), x=draw(2, 3, 8, seed=6)),
        ),
    ),
    mistakes=(
        Mistake(
            lambda x, heads: x.reshape(len(x), heads, x.shape[1], -1),
            "The shape is right but tokens are mixed: cut the vectors first, then move the heads.",
        ),
        Mistake(
            _stripes,
            "Every head takes each A-th number (stripes): a head is a piece of neighbours.",
        ),
        Mistake(
            lambda x, heads: x.reshape(heads, len(x), x.shape[1], -1).transpose(0, 1),
            "It mixes the sentences of the batch: the first dimension must stay the first.",
        ),
        Mistake(
            lambda x, heads: x.transpose(0, 1).reshape(len(x), heads, x.shape[1], -1),
            "It mixes the sentences of the batch: the first dimension must stay the first.",
        ),
        Mistake(
            lambda x, heads: x.reshape(*x.shape[:2], heads, -1),
            "The vectors are cut, but the heads still stand behind the tokens.",
        ),
        Mistake(
            lambda x, heads: bert.split_heads(x, heads).transpose(2, 3),
            "Tokens and features of each head are exchanged: return [B, A, L, D].",
        ),
        Mistake(
            lambda x, heads: bert.split_heads(x, heads).transpose(0, 1),
            "The heads come before the sentences: return [B, A, L, D].",
        ),
    ),
    notes="""
`x.view(B, A, L, D)` is the classic: right shape, wrong numbers, and a model that trains, worse.
2 points.
""",
)

# The whole of it


def _attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor,
    *,
    at_scores: Callable = lambda scores: scores,
    weigh: Callable = lambda scores: scores.softmax(dim=-1),
    at_weights: Callable = lambda weights: weights,
    scale: bool = True,
    lowest: float | None = None,
) -> Tensor:
    """Attention with one thing or another changed."""
    scores = q @ k.transpose(-2, -1)
    scores = at_scores(scores / math.sqrt(q.shape[-1]) if scale else scores)
    return at_weights(weigh(_fill(scores, _keys(mask), lowest))) @ v


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, dropout: Callable) -> Tensor:
    """softmax(q k^T / sqrt(D)) v with padding masked and dropout on the weights (`bert.py`).

    Args:
        q, k, v: `[B, A, L, D]`.
        mask: `[B, L]`, 1 for a token, 0 for padding.
        dropout: applied to the weights `[B, A, L, L]`; the identity in evaluation.

    Returns:
        `[B, A, L, D]`.
    """
    scores = bert.mask_scores(bert.attention_scores(q, k), mask)
    return dropout(scores.softmax(dim=-1)) @ v


def drop_by_value(x: Tensor) -> Tensor:
    """Stands in for dropout in training: what is dropped depends on the numbers, not on chance.

    So it does not matter in which order or shape an answer stores them, but it does matter which
    numbers it gets.
    """
    return torch.where(x > 0.2, torch.zeros_like(x), x)


def _attend_asks(shape: tuple, mask: Tensor, dropout: Callable, seed: int):
    q, k, v = (draw(*shape, seed=seed + part) for part in range(3))
    real = mask.any(dim=1)

    def ask(answer: Callable) -> dict:
        result = tensor(call(answer, q, k, v, mask, dropout))
        if result.shape != shape:
            return {"value": result, "finite": True}
        return {"value": result[real], "finite": bool(result.isfinite().all())}

    return ask


def _same(x: Tensor) -> Tensor:
    return x


ATTEND = Exercise(
    name="attend",
    chapter=1,
    title="the whole of attention",
    section="Attention",
    difficulty=3,
    importance=4,
    minutes=12,
    task=r"""
Write `attend(q, k, v, mask, dropout)`, attention as a layer does it:
$\mathrm{softmax}(q k^\top / \sqrt{D})\, v$, with padding masked and dropout on the weights.

- `q`, `k`, `v`: `[B, A, L, D]`; `mask`: `[B, L]`, 1 for a token and 0 for padding.
- `dropout`: a function to call once, on the weights of all tokens. The layer hands it in: it drops
  something in training and nothing in evaluation, so ask for no rate and no mode yourself.
- Return the new vectors `[B, A, L, D]`. No NaN, not even for a sentence of padding only.
- Gradients flow back to `q`, `k` and `v`.

You may use your `scores` and `mask_scores`.
""",
    hint="""
Four steps in this order: scores, mask, softmax over the keys, dropout. Then a matrix product with
the values.
""",
    reference=attend,
    cases=(
        Case("evaluation, padded sentences", _attend_asks((3, 2, 5, 4), MASK, _same, 1)),
        Case("training, padded sentences", _attend_asks((3, 2, 5, 4), MASK, drop_by_value, 4)),
        Case("training, large scores", _attend_asks((3, 2, 5, 64), MASK, drop_by_value, 7)),
        Case("D as large as L", _attend_asks((3, 2, 5, 5), MASK, drop_by_value, 10)),
        Case("as many heads as tokens", _attend_asks((3, 5, 5, 2), MASK, drop_by_value, 13)),
        Case("one token", _attend_asks((2, 2, 1, 4), torch.ones(2, 1).long(), _same, 16)),
        Case("a sentence of padding only", _attend_asks((2, 3, 4, 6), PADDED, drop_by_value, 19)),
        Case(
            "gradients",
            lambda answer: with_gradient(
                lambda q, k, v: answer(q, k, v, MASK.clone(), drop_by_value),
                q=draw(3, 2, 5, 4, seed=21),
                k=draw(3, 2, 5, 4, seed=22),
                v=draw(3, 2, 5, 4, seed=23),
            ),
        ),
        Case(
            "torch's dropout under a fixed seed",
            lambda answer: call(
                answer,
                draw(3, 2, 5, 4, seed=24),
                draw(3, 2, 5, 4, seed=25),
                draw(3, 2, 5, 4, seed=26),
                MASK,
                torch.nn.Dropout(0.4).train(),
            ),
        ),
    ),
    mistakes=(
        Mistake(
            lambda q, k, v, mask, dropout: _attention(q, k, v, mask),
            "Dropout is never applied: in evaluation nobody sees it, in training it is missing.",
        ),
        Mistake(
            lambda q, k, v, mask, dropout: _attention(q, k, v, mask, at_scores=dropout),
            "Dropout falls on the scores, before the softmax: a dropped score of 0 still gets a "
            "weight.",
        ),
        Mistake(
            lambda q, k, v, mask, dropout: (
                dropout(bert.mask_scores(bert.attention_scores(q, k), mask)).softmax(dim=-1) @ v
            ),
            "Dropout falls on the scores, before the softmax: a dropped score of 0 still gets a "
            "weight.",
        ),
        Mistake(
            lambda q, k, v, mask, dropout: dropout(_attention(q, k, v, mask)),
            "Dropout falls on the result: it belongs on the weights.",
        ),
        Mistake(
            lambda q, k, v, mask, dropout: _attention(q, k, dropout(v), mask),
            "Dropout falls on the values: it belongs on the weights.",
        ),
        Mistake(
            lambda q, k, v, mask, dropout: _attention(
                q, k, v, mask, weigh=lambda s: s.softmax(dim=-2), at_weights=dropout
            ),
            "The softmax runs over the queries: each query's weights have to sum to 1 over the "
            "keys.",
        ),
        Mistake(
            lambda q, k, v, mask, dropout: _attention(
                q, k, v, mask, weigh=lambda s: s.softmax(dim=1), at_weights=dropout
            ),
            "The softmax runs over the heads: each query's weights have to sum to 1 over the keys.",
        ),
        Mistake(
            lambda q, k, v, mask, dropout: (
                dropout(bert.attention_scores(q, k).softmax(dim=-1) * mask[:, None, None, :]) @ v
            ),
            "The mask comes after the softmax: the remaining weights no longer sum to 1.",
        ),
        Mistake(
            lambda q, k, v, mask, dropout: dropout(bert.attention_scores(q, k).softmax(dim=-1)) @ v,
            "Nothing is masked: padding keeps its weight.",
        ),
        Mistake(
            lambda q, k, v, mask, dropout: _attention(q, k, v, 1 - mask, at_weights=dropout),
            "The mask's sign is flipped: it hides the tokens and shows the padding.",
        ),
        Mistake(
            lambda q, k, v, mask, dropout: _attention(
                q, k, v, mask, at_weights=dropout, scale=False
            ),
            "The scores are not divided by the root of D.",
        ),
        Mistake(
            lambda q, k, v, mask, dropout: _attention(
                q, k, v, mask, at_weights=dropout, lowest=-math.inf
            ),
            "With minus infinity a sentence of padding only becomes NaN: take a finite number.",
        ),
    ),
    notes="""
In evaluation all misplaced dropouts give the right numbers, so the cases ask in training too, with
a stand-in that drops by value. 3 points.
""",
)

EXERCISES = (SCORES, MASK_SCORES, SPLIT_HEADS, ATTEND)
