"""Exercises of chapter 01: attention.

Shapes: B sentences, L tokens, H hidden size, A heads, D = H / A.
"""

import itertools
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtl_lib import bert
from mtl_lib.handbook.checks.framework import (
    Case,
    Exercise,
    Mistake,
    WrongKind,
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
            _divided_by(lambda q: 2 * q.shape[-1]),
            "It divides by 2 D: `** 1/2` is a power of 1 and then a half; write `** 0.5`.",
        ),
        Mistake(
            _divided_by(lambda q: q.shape[-1] / 2),
            "It divides by half of D: `** 1/2` is a power of 1 and then a half; write `** 0.5`.",
        ),
        Mistake(
            _divided_by(lambda q: 2),
            "It divides by 2 whatever D is: read D off the vectors.",
        ),
        Mistake(
            _divided_by(lambda q: 8),
            "It divides by 8 whatever D is: read D off the vectors.",
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
            lambda q, k: q @ k.permute(*reversed(range(k.dim()))) / math.sqrt(q.shape[-1]),
            "It works for two dimensions only (`.T` turns round all of them): exchange the last "
            "two, since sentences and heads may stand in front.",
        ),
        Mistake(
            lambda q, k: q @ k.transpose(1, 2) / math.sqrt(q.shape[-1]),
            "It exchanges dimensions 1 and 2: count from the end, since any number of dimensions "
            "may stand in front.",
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
            lambda s, mask: _fill(s, _keys(mask), torch.finfo(s.dtype).max),
            "Padding gets the highest score and so all of the weight: is a minus missing?",
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
            lambda s, mask: _fill(s, _keys(mask), -100.0),
            "-100 is not low enough: a query whose scores all lie near it looks at padding again.",
        ),
        Mistake(
            lambda s, mask: s - 100.0 * (1 - mask[:, None, None, :]),
            "-100 is not low enough: a query whose scores all lie near it looks at padding again.",
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
weights. -100 is told apart by scores down to -300. Minus infinity is the instructive one: right
everywhere but on a row of padding. 2 points.
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
            lambda x, heads: x.transpose(1, 2).reshape(len(x), heads, x.shape[1], -1),
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
            lambda q, k, v, mask, dropout: _attention(q, k, v, mask, at_weights=F.dropout),
            "It drops with a dropout of its own, in evaluation too: call the `dropout` that is "
            "handed in.",
        ),
        Mistake(
            lambda q, k, v, mask, dropout: _attention(q, k, v, mask, at_weights=nn.Dropout(0.1)),
            "It drops with a dropout of its own, in evaluation too: call the `dropout` that is "
            "handed in.",
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
            lambda q, k, v, mask, dropout: _attention(
                q, k, v, mask, weigh=lambda s: s, at_weights=dropout
            ),
            "There is no softmax: scores are no weights yet.",
        ),
        Mistake(
            lambda q, k, v, mask, dropout: _attention(
                q / math.sqrt(q.shape[-1]), k, v, mask, at_weights=dropout
            ),
            "The scores are divided by the root of D twice: `scores` does it already.",
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

# The layer

CONFIG = bert.BertConfig(
    vocab_size=11,
    hidden_size=12,
    num_hidden_layers=1,
    num_attention_heads=3,
    intermediate_size=8,
    attention_probs_dropout_prob=0.4,
)
PARAMETERS = {name: p.shape for name, p in bert.BertSelfAttention(CONFIG).named_parameters()}


class _DropByValue(nn.Module):
    """Stands in for a layer's dropout: `drop_by_value` in training, nothing in evaluation.

    What stays grows, as it does under dropout, so that to drop twice is seen.
    """

    def forward(self, x: Tensor) -> Tensor:
        return 1.5 * drop_by_value(x) if self.training else x


def _layer(answer: Callable, heads: int = 3) -> nn.Module:
    """A layer of the answer's, with known weights, in evaluation."""
    layer = answer(bert.BertConfig(**{**vars(CONFIG), "num_attention_heads": heads}))
    if not isinstance(layer, nn.Module):
        raise WrongKind("it does not make an nn.Module")
    known = {n: draw(*shape, seed=i) / 2 for i, (n, shape) in enumerate(PARAMETERS.items())}
    try:
        layer.load_state_dict(known)
    except RuntimeError:
        found = ", ".join(f"{n} {list(p.shape)}" for n, p in layer.named_parameters())
        raise WrongKind(
            f"its parameters are {found or 'none'}, expected weight and bias of query, key and "
            "value, each an nn.Linear"
        ) from None
    return layer.eval()


def _shapes(answer: Callable) -> dict[str, list[int]]:
    layer = answer(CONFIG)
    if not isinstance(layer, nn.Module):
        raise WrongKind("it does not make an nn.Module")
    return {name: list(p.shape) for name, p in layer.named_parameters()}


def _rates(answer: Callable) -> list[float]:
    return [module.p for module in _layer(answer).modules() if isinstance(module, nn.Dropout)]


def _layer_asks(shape: tuple, mask: Tensor, seed: int, heads: int = 3, training: bool = False):
    hidden = draw(*shape, seed=seed)

    def ask(answer: Callable) -> Tensor:
        layer = _layer(answer, heads)
        if training:
            dropouts = [n for n, m in layer.named_children() if isinstance(m, nn.Dropout)]
            if not dropouts:
                raise WrongKind("it has no nn.Dropout, which would know training from evaluation")
            for name in dropouts:
                setattr(layer, name, _DropByValue())
            layer.train()
        return call(layer, hidden, mask)

    return ask


def _with(
    attention: Callable = attend,
    split: Callable = bert.split_heads,
    merge: Callable = bert.merge_heads,
    rate: str = "attention_probs_dropout_prob",
    bias: bool = True,
    values: bool = True,
    maps: tuple[str, str, str] = ("query", "key", "value"),
    residual: bool = False,
) -> Callable[[bert.BertConfig], nn.Module]:
    """The layer with one thing or another changed."""

    class Changed(nn.Module):
        def __init__(self, config: bert.BertConfig) -> None:
            super().__init__()
            H = config.hidden_size
            self.heads = config.num_attention_heads
            self.query, self.key, self.value = (nn.Linear(H, H, bias=bias) for _ in range(3))
            self.dropout = nn.Dropout(getattr(config, rate))

        def forward(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
            q, k, v = (getattr(self, name)(hidden) for name in maps)
            parts = (split(x, self.heads) for x in (q, k, v if values else hidden))
            result = merge(attention(*parts, attention_mask, self.dropout))
            return hidden + result if residual else result

    return Changed


def _root_of_hidden(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, dropout: Callable) -> Tensor:
    return attend(q / math.sqrt(q.shape[1]), k, v, mask, dropout)


SELF_ATTENTION = Exercise(
    name="SelfAttention",
    chapter=1,
    title="the layer that you will keep",
    section="Attention",
    difficulty=3,
    importance=5,
    minutes=20,
    task="""
Write the module `SelfAttention(config)`, a `torch.nn.Module`: all of this chapter in one piece.

- `config` is a `BertConfig`. You need its `hidden_size` (H), `num_attention_heads` (A) and
  `attention_probs_dropout_prob`.
- `__init__` makes `self.query`, `self.key` and `self.value`, each an `nn.Linear` from H to H with a
  bias, and `self.dropout`, an `nn.Dropout`. Keep these names: the weights of a real BERT will be
  loaded into your layer by name.
- `forward(hidden, attention_mask)` takes `[B, L, H]` and `[B, L]` and returns `[B, L, H]`: three
  linear maps, cut into heads, attend, heads put side by side again. No $W_O$ and nothing after it:
  they are chapter 02's.

You may use your `split_heads` and `attend`. The check asks in training, too.
""",
    hint="""
`merge_heads`, shown with the exercise on heads, is the way back. Hand `self.dropout` itself to
`attend`: as a part of the module it knows whether the module is in training.
""",
    reference=bert.BertSelfAttention,
    cases=(
        Case("parameters", _shapes),
        Case("one sentence", _layer_asks((1, 5, 12), torch.ones(1, 5).long(), seed=31)),
        Case("padded sentences", _layer_asks((3, 5, 12), MASK, seed=32)),
        Case("one head", _layer_asks((3, 5, 12), MASK, seed=33, heads=1)),
        Case("as many heads as sentences", _layer_asks((4, 5, 12), MASK[[0, 1, 2, 1]], 34, 4)),
        Case("training, padded sentences", _layer_asks((3, 5, 12), MASK, 35, training=True)),
        Case("the rate of its dropout", _rates),
        Case(
            "gradients",
            lambda answer: with_gradient(
                lambda hidden: _layer(answer)(hidden, MASK.clone()), hidden=draw(3, 5, 12, seed=36)
            ),
        ),
    ),
    mistakes=(
        Mistake(
            _with(lambda q, k, v, mask, dropout: attend(q, k, v, mask, _same)),
            "Its dropout is never used: in training nothing is dropped.",
        ),
        Mistake(
            _with(lambda q, k, v, mask, dropout: dropout(attend(q, k, v, mask, _same))),
            "Dropout falls on the result: it belongs on the weights, inside the attention.",
        ),
        Mistake(
            _with(rate="hidden_dropout_prob"),
            "Its rate is hidden_dropout_prob (0.1 where nobody sets it): the weights have one of "
            "their own, attention_probs_dropout_prob.",
        ),
        Mistake(
            _with(
                lambda q, k, v, mask, dropout: attend(q, k, v, mask, _same),
                rate="hidden_dropout_prob",
            ),
            "Its dropout is never used, and has the wrong rate.",
        ),
        Mistake(
            _with(lambda q, k, v, mask, dropout: attend(q, k, dropout(v), mask, _same)),
            "Dropout falls on the values: it belongs on the weights, inside the attention.",
        ),
        Mistake(
            _with(lambda q, k, v, mask, dropout: attend(q, k, v, mask, nn.Dropout(0.1))),
            "It drops in evaluation too: hand `self.dropout` to the attention, which knows whether "
            "the module is in training.",
        ),
        Mistake(
            _with(lambda q, k, v, mask, dropout: attend(q, k, v, torch.ones_like(mask), dropout)),
            "The mask is not used: padding takes part.",
        ),
        Mistake(
            _with(split=lambda x, heads: bert.split_heads(x, 1)),
            "It attends with one head over all H numbers: cut query, key and value first.",
        ),
        Mistake(
            _with(split=lambda x, heads: x.reshape(len(x), heads, x.shape[1], -1)),
            "Tokens are mixed where the heads are cut: cut the vectors first, then move the heads.",
        ),
        Mistake(
            _with(merge=lambda x: x.reshape(len(x), x.shape[2], -1)),
            "Tokens are mixed where the heads are put together: move the heads back first.",
        ),
        Mistake(
            _with(merge=_same),
            "The heads are still apart: return [B, L, H], one vector for each token.",
        ),
        Mistake(
            _with(lambda q, k, v, mask, dropout: attend(k, q, v, mask, dropout)),
            "Queries and keys are exchanged: the map `query` makes what asks.",
        ),
        Mistake(
            _with(maps=("query", "value", "key")),
            "Keys and values are exchanged: the map `key` makes what is compared with the query.",
        ),
        *(
            Mistake(
                _with(maps=maps),
                "One map is used more than once: query, key and value have a map each.",
            )
            for maps in (
                ("query", "query", "value"),
                ("query", "key", "key"),
                ("query", "query", "query"),
            )
        ),
        Mistake(
            _with(values=False),
            "The values are the hidden vectors themselves: the map `value` is not used.",
        ),
        Mistake(
            _with(_root_of_hidden),
            "It divides by the root of H: each head has only D = H / A numbers.",
        ),
        Mistake(
            _with(residual=True),
            "It adds the input to the result: that comes behind W_O, in chapter 02.",
        ),
        Mistake(
            _with(bias=False),
            "Its linear maps have no bias, so a real BERT's do not fit.",
        ),
    ),
    notes="""
The chapter's integration, and the first module of the reader's BERT. Most often wrong: the merge
without its transpose (right with one head), and the rate of the wrong dropout, which shows in
training only. 4 points.
""",
)

# A program to mend

SYMPTOMS = {
    "root": "With several heads its weights are too even: what are the scores divided by?",
    "mask": "A word's vector changes when the padding behind it changes: what is hidden?",
    "merge": "With several heads a word's vector holds numbers of other words: follow one word to "
    "the end.",
}
LEFT = {1: "One bug is left.", 2: "Two bugs are left.", 3: "All three bugs are still there."}


def mended_attention(
    hidden: Tensor, mask: Tensor, W_q: Tensor, W_k: Tensor, W_v: Tensor, heads: int
) -> Tensor:
    """Multi-head self-attention with plain matrices, without dropout.

    Args:
        hidden: `[B, L, H]`.
        mask: `[B, L]`, 1 for a token, 0 for padding.
        W_q, W_k, W_v: `[H, H]`, which the vectors are multiplied by: `hidden @ W_q`.
        heads: A, which divides H.

    Returns:
        `[B, L, H]`.
    """
    return _program(hidden, mask, W_q, W_k, W_v, heads, bugs=())


def _program(
    hidden: Tensor,
    mask: Tensor,
    W_q: Tensor,
    W_k: Tensor,
    W_v: Tensor,
    heads: int,
    bugs: tuple[str, ...],
) -> Tensor:
    q, k, v = (bert.split_heads(hidden @ W, heads) for W in (W_q, W_k, W_v))
    D = hidden.shape[-1] if "root" in bugs else q.shape[-1]
    unseen = _queries(mask) if "mask" in bugs else _keys(mask)
    context = _fill(q @ k.transpose(-2, -1) / math.sqrt(D), unseen).softmax(dim=-1) @ v
    return context.reshape(hidden.shape) if "merge" in bugs else bert.merge_heads(context)


def _with_bugs(bugs: tuple[str, ...]) -> Mistake:
    said = " ".join([LEFT[len(bugs)], *(SYMPTOMS[bug] for bug in bugs)])
    return Mistake(lambda *given: _program(*given, bugs=bugs), said)


def _program_asks(shape: tuple, mask: Tensor, heads: int, seed: int):
    hidden = draw(*shape, seed=seed)
    matrices = [draw(shape[-1], shape[-1], seed=seed + part) / 2 for part in (1, 2, 3)]

    def ask(answer: Callable) -> Tensor:
        result = tensor(call(answer, hidden, mask, *matrices, heads))
        return result[mask.bool()] if result.shape == shape else result  # words, not padding

    return ask


MENDED_ATTENTION = Exercise(
    name="mended_attention",
    chapter=1,
    title="a bug hunt",
    difficulty=4,
    importance=4,
    minutes=15,
    task="""
The program below computes attention, runs, and returns the right shape. It has **three bugs**. Mend
`mended_attention(hidden, mask, W_q, W_k, W_v, heads)`.

- `hidden`: `[B, L, H]`; `mask`: `[B, L]`, 1 for a token and 0 for padding; `W_q`, `W_k`, `W_v`:
  `[H, H]`, used as `hidden @ W_q`; `heads`: A, which divides H.
- Return `[B, L, H]`, as `SelfAttention` does in evaluation. Rows of padding may hold anything.

Do not read it line by line at first. Feed it inputs whose answer you know. The check tells how many
bugs are left, and by which symptom each shows.
""",
    hint="""
Three experiments. Change the vector of a padding token: may any word's vector change? Set `W_q` and
`W_k` to zero and `W_v` to the identity: every word should get the mean of all words, with one head
and with two. And with `heads = 2`: by which number should the scores of one head be divided?
""",
    reference=mended_attention,
    cases=(
        Case("one head, no padding", _program_asks((2, 5, 6), torch.ones(2, 5).long(), 1, 40)),
        Case("one head, padding", _program_asks((3, 5, 6), MASK, 1, 44)),
        Case("two heads, no padding", _program_asks((2, 5, 6), torch.ones(2, 5).long(), 2, 48)),
        Case("two heads, padding", _program_asks((3, 5, 6), MASK, 2, 52)),
        Case("three heads, one sentence", _program_asks((1, 4, 12), MASK[:1, :4], 3, 56)),
        Case("as many heads as tokens", _program_asks((3, 5, 10), MASK, 5, 60)),
    ),
    mistakes=tuple(
        _with_bugs(bugs) for count in (3, 2, 1) for bugs in itertools.combinations(SYMPTOMS, count)
    ),
    notes="""
With one head and no padding the program is right, which is how such bugs survive. Worth asking:
with which experiment was each of them found? 3 points.
""",
)

# What breaks


class Question(NamedTuple):
    """Something that is broken, and what may come of it."""

    broken: str
    options: tuple[str, str, str]  # a, b and c
    right: str
    wrong: dict[str, str]  # what to say to whoever chose that


QUESTIONS = {
    "no root": Question(
        r"The scores are not divided by $\sqrt{D}$. D is 64, and queries and keys are random "
        "numbers of mean 0 and variance 1.",
        (
            "The weights even out: every key gets about the same.",
            "One key gets most, and the softmax loses most of its slope.",
            "Nothing: the softmax undoes a factor that all scores share.",
        ),
        "b",
        {
            "a": "that happens if the scores are divided by too much. Here they are too large: "
            "what does a softmax make of large differences?",
            "c": "a softmax undoes a number that is added to all scores, not a factor.",
        },
    ),
    "no mask": Question(
        "A short sentence stands beside a long one in a batch, filled up with vectors of zeros, "
        "and the mask is forgotten.",
        (
            "NaN.",
            "Nothing: zeros hand over nothing.",
            "The short sentence gets other vectors, and they depend on how long the other one is.",
        ),
        "c",
        {
            "a": "NaN comes from minus infinity in a row of padding only. Here all scores are "
            "ordinary numbers.",
            "b": "a key of zeros has the score 0, and the exponential of 0 is 1: each padding "
            "token takes its share of the weights from the words.",
        },
    ),
    "one head": Question(
        "A layer is built with one head in place of twelve. H stays as it is.",
        (
            "It has a twelfth of the parameters.",
            "It has as many parameters, but each word has one set of weights in place of twelve.",
            "Nothing: the heads are put side by side in the end anyway.",
        ),
        "b",
        {
            "a": "count them: W_q, W_k and W_v are [H, H] for any number of heads. Heads cut what "
            "these give.",
            "c": "before they are put side by side, each head has a softmax of its own.",
        },
    ),
    "one matrix": Question(
        "$W_q$ and $W_k$ are one and the same matrix.",
        (
            "The score of *good* with *not* is always that of *not* with *good*.",
            "Every word looks at itself alone.",
            "Nothing: the product of two matrices is one matrix anyway.",
        ),
        "a",
        {
            "b": "its score with itself is its squared length, yet a longer key can score higher, "
            "and a softmax leaves the others something too.",
            "c": "one matrix, but which? The product of a matrix with its own transpose is "
            "symmetric, and then so is something else.",
        },
    ),
    "shuffled": Question(
        "The words of a sentence are shuffled before the layer.",
        (
            "Every word gets the vector it had before, at its new place.",
            "Words at the front get more attention.",
            "Every word gets another vector, since it has other neighbours.",
        ),
        "a",
        {
            "b": "nothing in the formula knows where a word stands.",
            "c": "a word meets all words of its sentence, near or far: what can its neighbours "
            "change?",
        },
    ),
}


def what_breaks() -> dict[str, str]:
    """What happens if attention is broken: a letter for each of `QUESTIONS`."""
    return {name: question.right for name, question in QUESTIONS.items()}


def _chosen(name: str) -> Callable:
    def ask(answer: Callable) -> str:
        choices = answer()
        if not isinstance(choices, Mapping) or name not in choices:
            raise WrongKind(f'the answer holds no choice for "{name}"')
        choice = str(choices[name]).strip().lower()
        if choice not in ("a", "b", "c"):
            raise WrongKind(f"the choice is {choices[name]!r}: choose a, b or c")
        return choice

    return ask


def _wrong_choices() -> tuple[Mistake, ...]:
    """Every set of choices that is not right, with what to say of its first wrong one."""
    mistakes = []
    for letters in itertools.product("abc", repeat=len(QUESTIONS)):
        choices = dict(zip(QUESTIONS, letters, strict=True))
        wrong = [name for name, letter in choices.items() if letter != QUESTIONS[name].right]
        if wrong:
            said = QUESTIONS[wrong[0]].wrong[choices[wrong[0]]]
            mistakes.append(Mistake(lambda choices=choices: choices, f'"{wrong[0]}": {said}'))
    return tuple(mistakes)


def _listed(name: str, question: Question) -> str:
    options = "\n".join(
        f"  - *{letter}* {option}" for letter, option in zip("abc", question.options, strict=True)
    )
    return f"- **{name}.** {question.broken}\n{options}"


WHAT_BREAKS = Exercise(
    name="what_breaks",
    chapter=1,
    title="break it, and say what happens",
    difficulty=3,
    importance=4,
    minutes=10,
    task="""
Five ways to break attention. What happens? Choose before you try: `what_breaks()` returns a `dict`
from each name to a letter, `{"no root": "a", ..}`.

"""
    + "\n".join(_listed(name, question) for name, question in QUESTIONS.items())
    + "\n\nThe check explains your first wrong choice. Then the cell below breaks all five.\n",
    hint="""
Take the smallest example for each: two words, two numbers. For *one matrix*, write down both
scores.
""",
    reference=what_breaks,
    cases=tuple(Case(name, _chosen(name)) for name in QUESTIONS),
    mistakes=_wrong_choices(),
    notes="""
Good for pairs of students: choose alone, agree on one answer, then break it. For *one head*, let
them count: twelve heads cost no more parameters than one. 2 points.
""",
)

EXERCISES = (
    SCORES,
    MASK_SCORES,
    SPLIT_HEADS,
    ATTEND,
    SELF_ATTENTION,
    MENDED_ATTENTION,
    WHAT_BREAKS,
)
