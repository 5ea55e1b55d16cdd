"""Exercises of chapter 02: the whole encoder.

Shapes: B sentences, L tokens, H hidden size, V vocabulary size.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtl_lib import pretrained
from mtl_lib.bert import BertConfig, BertModel
from mtl_lib.handbook.checks.framework import (
    Case,
    Exercise,
    Mistake,
    call,
    draw,
    refusal,
    with_gradient,
)

# LayerNorm


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-12) -> Tensor:
    """Each vector of `[.., H]` to mean 0 and variance 1, then scaled and shifted (Ba et al., 2016).

    Args:
        x: `[.., H]`.
        weight, bias: `[H]`.
        eps: added to the variance, under the root.
    """
    return F.layer_norm(x, weight.shape, weight, bias, eps)


def _normalised(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float = 1e-12,
    *,
    dims: tuple = (-1,),
    correction: int = 0,
    spread: Callable = lambda variance, eps: (variance + eps).sqrt(),
) -> Tensor:
    """LayerNorm with one thing or another changed."""
    centred = x - x.mean(dim=dims, keepdim=True)
    variance = x.var(dim=dims, correction=correction, keepdim=True)
    return centred / spread(variance, eps) * weight + bias


def _norm_asks(x: Tensor, *eps: float):
    weight, bias = draw(x.shape[-1], seed=8), draw(x.shape[-1], seed=9)
    return lambda answer: call(answer, x, weight, bias, *eps)


LAYER_NORM = Exercise(
    name="layer_norm",
    chapter=2,
    title="LayerNorm",
    section="Embeddings",
    difficulty=2,
    importance=4,
    minutes=10,
    task=r"""
Write `layer_norm(x, weight, bias, eps=1e-12)`: every token's vector to mean 0 and variance 1, then
scaled and shifted,
$$\frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} \cdot \mathit{weight} + \mathit{bias}.$$

- `x`: `[.., H]`, any number of dimensions in front. $\mu$ and $\sigma^2$ are those of one vector,
  over its H numbers; $\sigma^2$ is the mean of the squared deviations, divided by H.
- `weight` and `bias`: `[H]`. Return `[.., H]`. Gradients flow back to all three.
- A vector whose numbers are all equal becomes `bias`, not NaN.

Write it out, please, without `nn.LayerNorm` and `F.layer_norm`: the check would not notice.
""",
    hint="""
`x.var` divides by H - 1 unless told otherwise: look for `correction` or `unbiased` in its
documentation. `keepdim=True` saves you the broadcasting.
""",
    reference=layer_norm,
    cases=(
        Case("two sentences", _norm_asks(3 * draw(2, 3, 8, seed=1) + 1)),
        Case("a large epsilon", _norm_asks(draw(2, 3, 8, seed=2), 0.5)),
        Case("as many tokens as numbers", _norm_asks(draw(2, 5, 5, seed=3), 0.1)),
        Case("one vector", _norm_asks(draw(6, seed=4), 0.1)),
        Case("one token", _norm_asks(draw(1, 1, 4, seed=5))),
        Case("small numbers, epsilon not given", _norm_asks(1e-3 * draw(2, 3, 8, seed=10))),
        Case("all numbers equal", _norm_asks(torch.full((2, 3, 8), 3.0))),
        Case(
            "gradients",
            lambda answer: with_gradient(
                lambda x, weight, bias: answer(x, weight, bias, 0.1),
                x=draw(2, 3, 4, seed=6),
                weight=draw(4, seed=7),
                bias=draw(4, seed=8),
            ),
        ),
    ),
    mistakes=(
        Mistake(
            lambda x, weight, bias, eps=1e-12: _normalised(
                x, weight, bias, eps, spread=lambda variance, eps: variance.sqrt() + eps
            ),
            "Epsilon stands outside the root: it is added to the variance, before the root.",
        ),
        Mistake(
            lambda x, weight, bias, eps=1e-12: _normalised(x, weight, bias, eps, correction=1),
            "The variance is divided by H - 1: here it is the plain mean over H.",
        ),
        Mistake(
            lambda x, weight, bias, eps=1e-12: _normalised(
                x,
                weight,
                bias,
                eps,
                correction=1,
                spread=lambda variance, eps: variance.sqrt() + eps,
            ),
            "Two things: the variance is divided by H - 1, and epsilon stands outside the root.",
        ),
        Mistake(
            lambda x, weight, bias, eps=1e-12: _normalised(
                x, weight, bias, eps, spread=lambda variance, eps: variance.sqrt()
            ),
            "Epsilon is missing: a vector of equal numbers divides zero by zero.",
        ),
        Mistake(
            lambda x, weight, bias, eps=1e-12: _normalised(
                x, weight, bias, eps, spread=lambda variance, eps: variance + eps
            ),
            "It divides by the variance, not by its root.",
        ),
        Mistake(
            lambda x, weight, bias, eps=1e-12: _normalised(
                x, weight, bias, eps, dims=tuple(range(x.dim()))
            ),
            "Mean and variance are those of all numbers together: each vector has its own.",
        ),
        Mistake(
            lambda x, weight, bias, eps=1e-12: _normalised(x, weight, bias, eps, dims=(-2,)),
            "Mean and variance are taken over the tokens: take them over each token's H numbers.",
        ),
        Mistake(
            lambda x, weight, bias, eps=1e-12: _normalised(x, weight, bias, eps, dims=(0,)),
            "Mean and variance are taken over the first dimension: take them over the last.",
        ),
        Mistake(
            lambda x, weight, bias, eps=1e-5: layer_norm(x, weight, bias, eps),
            "The epsilon is torch's 1e-5 where none is given: BERT's is 1e-12.",
        ),
        Mistake(
            lambda x, weight, bias, eps=1e-12: F.layer_norm(x, weight.shape, eps=eps),
            "Weight and bias are not used.",
        ),
        Mistake(
            lambda x, weight, bias, eps=1e-12: (
                x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight + bias
            ),
            "The mean is not taken away (that would be RMSNorm).",
        ),
    ),
    notes="""
Half of the answers divide by H - 1, torch's default. Epsilon outside the root cannot be seen at
1e-12: the cases ask with a large one. 2 points.
""",
)

# Embeddings

WORD = "embeddings.word_embeddings.weight"
POSITION = "embeddings.position_embeddings.weight"
TYPE = "embeddings.token_type_embeddings.weight"
NORM = "embeddings.LayerNorm"


def embed(state: dict[str, Tensor], ids: Tensor, types: Tensor) -> Tensor:
    """Word + position + segment, then LayerNorm: `bert.BertEmbeddings` in evaluation mode.

    Args:
        state: parameters by their public names.
        ids: word ids, `[B, L]`.
        types: 0 or 1 for the first or second segment, `[B, L]`.

    Returns:
        `[B, L, H]`.
    """
    return _norm(state, state[WORD][ids] + _positions(state, ids) + state[TYPE][types])


def _positions(state: dict[str, Tensor], ids: Tensor) -> Tensor:
    return state[POSITION][: ids.shape[1]]


def _norm(state: dict[str, Tensor], x: Tensor) -> Tensor:
    return layer_norm(x, state[f"{NORM}.weight"], state[f"{NORM}.bias"])


STATE = {
    WORD: draw(11, 6, seed=1),
    POSITION: draw(9, 6, seed=2),
    TYPE: draw(2, 6, seed=3),
    f"{NORM}.weight": draw(6, seed=4),
    f"{NORM}.bias": draw(6, seed=5),
    "pooler.dense.bias": draw(6, seed=6),  # a real state holds more than the embeddings
}
IDS = torch.tensor([[2, 7, 7, 3, 10], [2, 4, 3, 0, 0]])
TYPES = torch.tensor([[0, 0, 1, 1, 1], [0, 1, 0, 1, 0]])


def _embed_asks(ids: Tensor, types: Tensor, scale: float = 1.0):
    tables = {name: scale * STATE[name] for name in (WORD, POSITION, TYPE)}
    return lambda answer: call(answer, STATE | tables, ids, types)


def _with_tables(answer: Callable) -> dict:
    def of_tables(words: Tensor, positions: Tensor, segments: Tensor) -> Tensor:
        return answer(STATE | {WORD: words, POSITION: positions, TYPE: segments}, IDS, TYPES)

    return with_gradient(
        of_tables, words=STATE[WORD], positions=STATE[POSITION], segments=STATE[TYPE]
    )


EMBED = Exercise(
    name="embed",
    chapter=2,
    title="embeddings",
    difficulty=2,
    importance=4,
    minutes=10,
    task=f"""
Write `embed(state, ids, types)`: for every token the sum of its word's, its position's and its
segment's vector, then LayerNorm.

- `state`: the parameters by their public names. You need `{WORD}` `[V, H]`,
  `{POSITION}` `[P, H]`, `{TYPE}` `[2, H]`,
  `{NORM}.weight` and `{NORM}.bias` `[H]`.
- `ids`: word ids `[B, L]`; `types`: 0 or 1 for the first or second segment `[B, L]`. Positions
  count from 0; P may be larger than L.
- LayerNorm with an epsilon of 1e-12 (your `layer_norm` does it). No dropout: this is evaluation.
- Return `[B, L, H]`. Padding is a word like any other. Gradients flow back to the tables.
""",
    hint="""
Indexing a table `[V, H]` with ids `[B, L]` gives `[B, L, H]`. The positions are the same for all
sentences: the first L rows of their table.
""",
    reference=embed,
    cases=(
        Case("two sentences, two segments", _embed_asks(IDS, TYPES)),
        Case("one segment", _embed_asks(IDS, torch.zeros_like(IDS))),
        Case("one word, many times", _embed_asks(torch.full((1, 7), 5), torch.ones(1, 7).long())),
        Case("as many sentences as tokens", _embed_asks(IDS[:, :2], TYPES[:, :2])),
        Case(
            "every position",
            _embed_asks(torch.arange(9)[None] + 1, (torch.arange(9)[None] > 4).long()),
        ),
        Case(
            "one token", _embed_asks(torch.tensor([[4], [5], [6]]), torch.tensor([[1], [0], [1]]))
        ),
        Case("numbers as small as in a new encoder", _embed_asks(IDS, TYPES, scale=0.02)),
        Case("gradients of the tables", _with_tables),
    ),
    mistakes=(
        Mistake(
            lambda state, ids, types: embed(state, ids, torch.zeros_like(types)),
            "The types are left at 0: two sentences encoded together lose their segments.",
        ),
        Mistake(
            lambda state, ids, types: _norm(state, state[WORD][ids] + _positions(state, ids)),
            "The segments are missing from the sum.",
        ),
        Mistake(
            lambda state, ids, types: _norm(state, state[WORD][ids] + state[TYPE][types]),
            "The positions are missing: a sentence and its reversal would be the same words.",
        ),
        Mistake(
            lambda state, ids, types: _norm(
                state, state[WORD][ids] + 2 * _positions(state, ids) + state[TYPE][types]
            ),
            "The position is added twice.",
        ),
        Mistake(
            lambda state, ids, types: _norm(
                state, embed(state, ids, types) + _positions(state, ids) + state[TYPE][types]
            ),
            "Finished embeddings get position, segment and LayerNorm a second time.",
        ),
        Mistake(
            lambda state, ids, types: _norm(
                state, embed(state, ids, types) + _positions(state, ids)
            ),
            "Finished embeddings get the position and LayerNorm a second time.",
        ),
        Mistake(
            lambda state, ids, types: (
                state[WORD][ids] + _positions(state, ids) + state[TYPE][types]
            ),
            "LayerNorm is missing at the end.",
        ),
        Mistake(
            lambda state, ids, types: (
                _norm(state, state[WORD][ids]) + _positions(state, ids) + state[TYPE][types]
            ),
            "LayerNorm acts on the words alone: it comes after the sum of all three.",
        ),
        Mistake(
            lambda state, ids, types: _norm(
                state,
                state[WORD][ids] + state[POSITION][1 : ids.shape[1] + 1] + state[TYPE][types],
            ),
            "Positions count from 1: the first token has position 0.",
        ),
        Mistake(
            lambda state, ids, types: embed(state, ids, 1 - types),
            "The segments are exchanged: 0 is the first one.",
        ),
        Mistake(
            lambda state, ids, types: _normalised(
                state[WORD][ids] + _positions(state, ids) + state[TYPE][types], 1, 0
            ),
            "LayerNorm's own weight and bias are not used.",
        ),
        Mistake(
            lambda state, ids, types: F.layer_norm(
                state[WORD][ids] + _positions(state, ids) + state[TYPE][types],
                state[f"{NORM}.weight"].shape,
                state[f"{NORM}.weight"],
                state[f"{NORM}.bias"],
            ),
            "The epsilon is torch's 1e-5: BERT's is 1e-12.",
        ),
    ),
    notes="""
With one segment only, types left at 0 pass unnoticed: so it is in much public code. 2 points.
""",
)

# Add and norm


def add_norm(
    x: Tensor, residual: Tensor, dense: Callable, dropout: Callable, norm: Callable
) -> Tensor:
    """LayerNorm(residual + dropout(dense(x))): `bert.AddNorm` with its three parts handed in.

    Args:
        x: what the sublayer gives, `[B, L, any]`.
        residual: what went into the sublayer, `[B, L, H]`.
        dense: `[B, L, any]` to `[B, L, H]`.
        dropout: on `[B, L, H]`; the identity in evaluation.
        norm: LayerNorm over H.
    """
    return norm(residual + dropout(dense(x)))


def drop_by_value(x: Tensor) -> Tensor:
    """Stands in for dropout in training: what is dropped depends on the numbers, not on chance."""
    return torch.where(x > 0.3, torch.zeros_like(x), 1.25 * x)


def _parts(width: int, hidden: int) -> tuple[Callable, Callable]:
    """A dense layer and a LayerNorm with weights of their own."""
    matrix, shift = draw(hidden, width, seed=31), draw(hidden, seed=32)
    weight, bias = draw(hidden, seed=33), draw(hidden, seed=34)
    return (
        lambda x: F.linear(x, matrix, shift),
        lambda x: F.layer_norm(x, (hidden,), weight, bias, 1e-12),
    )


def _add_asks(width: int, hidden: int, dropout: Callable, seed: int):
    dense, norm = _parts(width, hidden)
    x, residual = draw(2, 3, width, seed=seed), draw(2, 3, hidden, seed=seed + 1)
    return lambda answer: call(answer, x, residual, dense, dropout, norm)


def _add_gradients(answer: Callable) -> dict:
    dense, norm = _parts(4, 4)
    return with_gradient(
        lambda x, residual: answer(x, residual, dense, drop_by_value, norm),
        x=draw(2, 3, 4, seed=41),
        residual=draw(2, 3, 4, seed=42),
    )


def _same(x: Tensor) -> Tensor:
    return x


ADD_NORM = Exercise(
    name="add_norm",
    chapter=2,
    title="add and norm",
    section="Layer",
    difficulty=2,
    importance=5,
    minutes=8,
    task="""
Write `add_norm(x, residual, dense, dropout, norm)`, the end of both halves of a layer: the new part
goes through a linear layer and dropout, is added to the residual, and the sum is normalised.

- `x`: what attention or the feed-forward part gives, `[B, L, any]`.
- `residual`: what went into it, `[B, L, H]`.
- `dense` (`[B, L, any]` to `[B, L, H]`), `dropout` and `norm` are functions to call, each once. In
  training `dropout` drops something, in evaluation nothing: ask for no rate and no mode yourself.
- Return `[B, L, H]`. Gradients flow back to `x` and `residual`.
""",
    hint="""
"We apply dropout to the output of each sub-layer, before it is added to the sub-layer input and
normalized" (Vaswani et al., 2017, section 5.4).
""",
    reference=add_norm,
    cases=(
        Case("evaluation, wide to narrow", _add_asks(7, 4, _same, 1)),
        Case("training, wide to narrow", _add_asks(7, 4, drop_by_value, 3)),
        Case("training, equal widths", _add_asks(5, 5, drop_by_value, 5)),
        Case("evaluation, equal widths", _add_asks(5, 5, _same, 7)),
        Case("torch's dropout under a fixed seed", _add_asks(5, 5, nn.Dropout(0.5).train(), 9)),
        Case("gradients", _add_gradients),
    ),
    mistakes=(
        Mistake(
            lambda x, residual, dense, dropout, norm: norm(dropout(residual + dense(x))),
            "Dropout falls on the sum: the residual is to pass untouched.",
        ),
        Mistake(
            lambda x, residual, dense, dropout, norm: norm(residual + dense(dropout(x))),
            "Dropout comes before the linear layer: it belongs after it, before the sum.",
        ),
        Mistake(
            lambda x, residual, dense, dropout, norm: norm(dropout(residual) + dense(x)),
            "Dropout falls on the residual: it belongs on the new part.",
        ),
        Mistake(
            lambda x, residual, dense, dropout, norm: norm(dropout(residual) + dropout(dense(x))),
            "Dropout falls on both parts: the residual is to pass untouched.",
        ),
        Mistake(
            lambda x, residual, dense, dropout, norm: norm(residual + dense(x)),
            "Dropout is never applied: in evaluation nobody sees it, in training it is missing.",
        ),
        Mistake(
            lambda x, residual, dense, dropout, norm: dropout(norm(residual + dense(x))),
            "Dropout comes last: it belongs on the new part, before the sum.",
        ),
        Mistake(
            lambda x, residual, dense, dropout, norm: norm(dropout(dense(x))),
            "The residual is not added.",
        ),
        Mistake(
            lambda x, residual, dense, dropout, norm: residual + norm(dropout(dense(x))),
            "LayerNorm acts on the new part alone: it comes after the sum.",
        ),
        Mistake(
            lambda x, residual, dense, dropout, norm: norm(residual) + dropout(dense(x)),
            "LayerNorm acts on the residual alone: it comes after the sum.",
        ),
        Mistake(
            lambda x, residual, dense, dropout, norm: residual + dropout(dense(x)),
            "LayerNorm is missing at the end.",
        ),
    ),
    notes="""
All places of dropout look alike in evaluation, which is how most tests are run. 2 points.
""",
)

# Public weights

CONFIG = BertConfig(
    vocab_size=7,
    hidden_size=4,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=6,
    max_position_embeddings=5,
)


def load_public(model: BertModel, public: dict[str, Tensor]) -> None:
    """Load a public checkpoint, all of it or an error (`pretrained.read_public_state`)."""
    pretrained.read_public_state(model, public)


def _public() -> dict[str, Tensor]:
    """A checkpoint in plain names, with numbers that no model starts from."""
    own = BertModel(CONFIG).state_dict()
    return {name: draw(*value.shape, seed=n) for n, (name, value) in enumerate(own.items())}


def _old_names(public: dict[str, Tensor]) -> dict[str, Tensor]:
    def old(name: str) -> str:
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma")
        return name.replace("LayerNorm.bias", "LayerNorm.beta")

    return {old(name): value for name, value in public.items()}


def _prefixed(public: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"bert.{name}": value for name, value in public.items()}


def _with_heads(public: dict[str, Tensor]) -> dict[str, Tensor]:
    heads = {
        "cls.predictions.bias": torch.ones(7),
        "cls.predictions.transform.LayerNorm.gamma": torch.ones(4),
        "cls.seq_relationship.weight": torch.ones(2, 4),
    }
    return heads | _prefixed(public) | {"bert.embeddings.position_ids": torch.arange(5)[None]}


def _loads(change: Callable[[dict], dict]):
    """The parameters after loading a checkpoint that is complete."""

    def ask(answer: Callable) -> dict[str, Tensor]:
        model = BertModel(CONFIG)
        answer(model, change(_public()))
        return dict(model.state_dict())

    return ask


def _refuses(change: Callable[[dict], dict]):
    """Whether a checkpoint that is not right is refused, and what was loaded if not."""

    def ask(answer: Callable) -> dict:
        model = BertModel(CONFIG)
        given = refusal(lambda: answer(model, change(_public())))
        loaded = None if given == "an error" else dict(model.state_dict())
        return {"value": given, "parameters": loaded}

    return ask


def _without(part: str):
    return lambda public: {name: value for name, value in public.items() if part not in name}


def _renamed(
    public: dict[str, Tensor], prefix: bool = True, norms: bool = True, heads: bool = True
) -> dict[str, Tensor]:
    """The tensors under this library's names; what is False is left as it is."""
    state = {}
    for name, value in public.items():
        name = name.removeprefix("bert.") if prefix else name
        if norms:
            name = name.replace("LayerNorm.gamma", "LayerNorm.weight")
            name = name.replace("LayerNorm.beta", "LayerNorm.bias")
        if not heads or not (name.startswith("cls.") or name.endswith("position_ids")):
            state[name] = value
    return state


def _fitting(model: BertModel, public: dict[str, Tensor], any_shape: bool = True) -> dict:
    """The tensors that the model has by that name, and where asked also by that shape."""
    own = model.state_dict()
    return {
        name: value
        for name, value in _renamed(public).items()
        if name in own and (any_shape or own[name].shape == value.shape)
    }


def _load_transposed(model: BertModel, public: dict[str, Tensor]) -> None:
    square = {
        name: value.T if value.dim() == 2 and len(set(value.shape)) == 1 else value
        for name, value in _renamed(public).items()
    }
    model.load_state_dict(square)


LOAD_PUBLIC = Exercise(
    name="load_public",
    chapter=2,
    title="public weights, every tensor or an error",
    section="Public weights",
    difficulty=3,
    importance=4,
    minutes=15,
    task="""
Write `load_public(model, public)`: load the tensors of a public checkpoint into `model` (a
`BertModel`); return nothing.

- `public`: a dict from names to tensors. Names are the model's own (those of `model.state_dict()`),
  except that all may begin with `bert.`, and that `LayerNorm.weight` and `LayerNorm.bias` may be
  called `LayerNorm.gamma` and `LayerNorm.beta`.
- Names that begin with `cls.` (heads of the pretraining) and `embeddings.position_ids` have no
  place in an encoder: leave them out.
- Anything else that does not fit is an error: a tensor that is missing, left over or of another
  shape. Raise it, or let `load_state_dict` raise it.
""",
    hint="""
Build a new dict with the names changed, then `model.load_state_dict`. Linear layers of public BERT
checkpoints for torch are stored as torch stores them.
""",
    reference=load_public,
    cases=(
        Case("the model's own names", _loads(lambda public: public)),
        Case("names with bert.", _loads(_prefixed)),
        Case("gamma and beta", _loads(_old_names)),
        Case("all of it, with pretraining heads", _loads(lambda p: _with_heads(_old_names(p)))),
        Case("a tensor is missing", _refuses(_without("key.bias"))),
        Case("a LayerNorm is missing", _refuses(_without("output.LayerNorm"))),
        Case("a tensor is left over", _refuses(lambda p: p | {"encoder.layer.1.bias": p[WORD]})),
        Case("a misspelt tensor", _refuses(lambda p: _without(WORD)(p) | {WORD[:-3]: p[WORD]})),
        Case("a tensor of another shape", _refuses(lambda p: p | {POSITION: p[WORD]})),
        Case("nothing at all", _refuses(lambda public: {})),
    ),
    mistakes=(
        Mistake(
            lambda model, public: model.load_state_dict(_renamed(public), strict=False) and None,
            "It is not strict: missing and left-over tensors pass without a word.",
        ),
        Mistake(
            lambda model, public: model.load_state_dict(public, strict=False) and None,
            "It is not strict, so tensors under other names are silently not loaded.",
        ),
        Mistake(
            lambda model, public: (
                model.load_state_dict(_renamed(public, norms=False), strict=False) and None
            ),
            "It is not strict, so gamma and beta are silently not loaded.",
        ),
        Mistake(
            lambda model, public: model.load_state_dict(_fitting(model, public)) and None,
            "Whatever has no place in the model is left out without a word: only cls. and "
            "position_ids may be.",
        ),
        Mistake(
            lambda model, public: (
                model.load_state_dict(model.state_dict() | _renamed(public)) and None
            ),
            "A missing tensor keeps its random start without a word: it has to be an error.",
        ),
        Mistake(
            lambda model, public: (
                model.load_state_dict(model.state_dict() | _fitting(model, public, False)) and None
            ),
            "It takes what fits in name and shape and keeps the random start of the rest, without "
            "a word: all of that has to be an error.",
        ),
        Mistake(
            _load_transposed,
            "Square matrices are transposed: torch's public checkpoints are stored as torch has "
            "them.",
        ),
        Mistake(
            lambda model, public: model.load_state_dict(_renamed(public, prefix=False)) and None,
            "Names that begin with bert. are not understood.",
        ),
        Mistake(
            lambda model, public: model.load_state_dict(_renamed(public, norms=False)) and None,
            "gamma and beta are not understood: they are LayerNorm's weight and bias.",
        ),
        Mistake(
            lambda model, public: model.load_state_dict(_renamed(public, heads=False)) and None,
            "The heads of the pretraining (cls.) or position_ids are not left out.",
        ),
    ),
    notes="""
`strict=False` makes every error message go away, and with old names leaves all LayerNorms at their
start. The check loads checkpoints that must be refused. 3 points.
""",
)

EXERCISES = (LAYER_NORM, EMBED, ADD_NORM, LOAD_PUBLIC)
