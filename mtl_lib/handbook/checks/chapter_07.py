"""Exercises of chapter 07: norms, dropout, layers."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from mtl_lib.handbook.checks.framework import Case, Detached, Exercise, Mistake, draw, with_gradient
from mtl_lib.handbook.checks.precise import precisely, question
from mtl_lib.methods import regularizers


def _normal(*shape: int, seed: int) -> Tensor:
    return draw(*shape, seed=seed, dtype=torch.float64)


# lp_penalty

_MATRICES = [_normal(3, 4, seed=1), 2 * _normal(2, 3, seed=2)]
_LARGEST_NEGATIVE = [torch.tensor([[0.5, -4.0, 3.0], [1.0, 2.0, -0.25]]).double()]
_NAMES = {1: "p = 1", 2: "p = 2", math.inf: "p = infinity"}


def _ask_penalty(matrices: list[Tensor], p: float) -> Callable:
    """Value and gradients; a list of matrices cannot be handed to `with_gradient` as it is."""
    inputs = {f"matrix {number}": matrix for number, matrix in enumerate(matrices, start=1)}
    return precisely(lambda answer: with_gradient(lambda *w: answer(list(w), p), **inputs))


def _flat(weights: list[Tensor]) -> Tensor:
    return torch.cat([weight.flatten() for weight in weights])


def _by_p(one: Callable, two: Callable, largest: Callable) -> Callable:
    """A variant: what it does with all weights `[N]` for each of the three p."""
    return lambda weights, p: {1: one, 2: two, math.inf: largest}[p](_flat(weights))


def _l1(w: Tensor) -> Tensor:
    return w.abs().sum()


def _l2(w: Tensor) -> Tensor:
    return (w**2).sum().sqrt()


def _largest(w: Tensor) -> Tensor:
    return w.abs().max()


def _per_matrix(weights: list[Tensor], p: float) -> Tensor:
    return sum(regularizers.lp_penalty([weight], p) for weight in weights)


def _operator_norms(weights: list[Tensor], p: float) -> Tensor:
    return sum(torch.linalg.matrix_norm(weight, p) for weight in weights)


def _detached(weights: list[Tensor], p: float) -> Tensor:
    return regularizers.lp_penalty(weights, p).detach()


LP_PENALTY = Exercise(
    name="lp_penalty",
    chapter=7,
    title="three norms",
    section="Regularisation",
    difficulty=2,
    importance=4,
    minutes=10,
    task="""
Write `lp_penalty(weights, p)`: a list of weight matrices of any shapes, and p, which is 1, 2 or
`math.inf`, to a scalar tensor: $||w||_p$ of *all* entries of *all* matrices, taken as one vector.

The norm itself, neither squared nor averaged, not multiplied by 0.05. The training loop calls
backward on it.
""",
    hint="What would the vector look like if all matrices were unrolled into it? The largest size "
    "may belong to a negative number.",
    reference=regularizers.lp_penalty,
    cases=(
        *(question(f"one matrix, {name}", _LARGEST_NEGATIVE, p) for p, name in _NAMES.items()),
        *(
            Case(f"two matrices and their gradients, {name}", _ask_penalty(_MATRICES, p))
            for p, name in _NAMES.items()
        ),
        *(
            Case(
                f"a long and a short matrix, {name}",
                _ask_penalty([_normal(1, 40, seed=3), _normal(2, 1, seed=4)], p),
            )
            for p, name in _NAMES.items()
        ),
        question("all zero, p = 2", [torch.zeros(2, 3).double()], 2),
    ),
    mistakes=(
        Mistake(
            _by_p(_l1, _l2, lambda w: w.max()),
            "For p = infinity it takes the largest entry; the largest *size* may belong to a "
            "negative one.",
        ),
        Mistake(
            _by_p(lambda w: w.sum(), _l2, _largest),
            "For p = 1 it adds the entries with their signs, so that they cancel.",
        ),
        Mistake(
            _by_p(lambda w: w.sum(), _l2, lambda w: w.max()),
            "Signs are kept: a norm looks at sizes.",
        ),
        *(
            Mistake(
                _by_p(_l1, lambda w, share=share: share * (w**2).sum(), _largest),
                "For p = 2 it gives a squared norm, which pulls large weights harder still; the "
                "norm has a root.",
            )
            for share in (1, 0.5)
        ),
        Mistake(
            _by_p(lambda w: w.abs().mean(), lambda w: (w**2).mean().sqrt(), _largest),
            "It takes means; a norm adds up.",
        ),
        Mistake(
            _by_p(lambda w: w.abs().mean(), _l2, _largest),
            "For p = 1 it takes the mean size; a norm adds up.",
        ),
        Mistake(
            _per_matrix,
            "It adds the norms of the single matrices; asked is one norm of all entries as one "
            "vector (for p = 1 the two agree).",
        ),
        Mistake(
            _operator_norms,
            "Given a matrix, that function computes an operator norm (a largest column sum, a "
            "largest singular value, a largest row sum); unroll the matrices into a vector first.",
        ),
        Mistake(
            lambda weights, p: regularizers.lp_penalty(weights[:1], p),
            "It looks at the first matrix only.",
        ),
        Mistake(
            lambda weights, p: regularizers.lp_penalty(weights, 2),
            "It gives the same for every p.",
        ),
        Mistake(_detached, Detached.says),
        Mistake(
            lambda weights, p: 0.05 * regularizers.lp_penalty(weights, p),
            "The factor 0.05 is in it already; the loop multiplies by it.",
        ),
    ),
    notes="`torch.norm(matrix, p)` and `torch.linalg.norm(matrix, p)` differ for matrices: the "
    "second gives operator norms. The missing absolute value at infinity passes every test whose "
    "largest weight happens to be positive. 2 points.",
)


# sorted_weights_over_time

_RUN = _normal(5, 7, seed=5) * torch.linspace(1, 0.3, 5, dtype=torch.float64)[:, None]
_CROSSING = torch.tensor([[3.0, -1.0, 2.0], [1.0, -1.5, 0.5], [-0.2, -0.1, 0.4]]).double()


def sorted_weights_over_time(run: Tensor) -> Tensor:
    """Sizes |w|, the largest first, at every step on its own: `[S, N]` -> `[S, N]`."""
    return run.abs().sort(dim=1, descending=True).values


def _in_order_of(run: Tensor, step: int) -> Tensor:
    return run.abs()[:, run[step].abs().argsort(descending=True)]


SORTED_WEIGHTS = Exercise(
    name="sorted_weights_over_time",
    chapter=7,
    title="the waterline",
    difficulty=1,
    importance=3,
    minutes=5,
    task="""
Write `sorted_weights_over_time(run)`: `[S, N]`, the N weights after each of S steps, to `[S, N]`:
in each row the *sizes* of that step's weights, the largest first. Plotted, this is the picture of
sorted weights at each step; which weight a size belongs to is given up.
""",
    hint="Signs first, then order. Along which axis does a single step lie?",
    reference=sorted_weights_over_time,
    cases=(
        question("three weights that overtake each other", _CROSSING),
        question("five steps, seven weights", _RUN),
        question("one step", _RUN[:1]),
        question("one weight", _RUN[:, :1]),
        question("a zero weight", _RUN * torch.tensor([1, 0, 1, 1, 0, 1, 1])),
    ),
    mistakes=(
        Mistake(
            lambda run: run.abs().sort(dim=0, descending=True).values,
            "It sorts every weight's history; each step is to be sorted on its own.",
        ),
        Mistake(
            lambda run: run.sort(dim=1, descending=True).values,
            "Signs are kept: a large negative weight is a large weight.",
        ),
        Mistake(
            lambda run: run.gather(1, run.abs().argsort(dim=1, descending=True)),
            "The order is right, but the weights still have their signs; asked are sizes.",
        ),
        Mistake(
            lambda run: run.sort(dim=1, descending=True).values.abs(),
            "It sorts first and drops the signs afterwards; then the sizes are not in order.",
        ),
        Mistake(
            lambda run: run.abs().sort(dim=1).values,
            "The smallest come first; asked is the largest first.",
        ),
        Mistake(
            lambda run: _in_order_of(run, 0),
            "It puts every step into the first step's order; each step has its own.",
        ),
        Mistake(
            lambda run: _in_order_of(run, -1),
            "It puts every step into the last step's order; each step has its own.",
        ),
        Mistake(
            lambda run: run.abs().flatten().sort(descending=True).values.view_as(run),
            "It sorts all steps together; each step is to be sorted on its own.",
        ),
    ),
    notes="A warm-up; its use is the picture. Sorting by the first step shows single weights, "
    "not the waterline. 1 point.",
)


# dropout


def dropout(x: Tensor, kept: Tensor, p: float, training: bool) -> Tensor:
    """Inverted dropout with the mask given, as in `torch.nn.functional.dropout`: shape of x."""
    return x * kept / (1 - p) if training else x.clone()


_X = _normal(3, 5, seed=6)
_KEPT = (draw(3, 5, seed=7) > -0.5).double()


def _ask_dropout(p: float, training: bool) -> Callable:
    def ask(answer: Callable) -> dict:
        return with_gradient(lambda x: answer(x, _KEPT.clone(), p, training), x=_X)

    return precisely(ask)


DROPOUT = Exercise(
    name="dropout",
    chapter=7,
    title="dropout, train and eval",
    section="Regularisation",
    difficulty=1,
    importance=3,
    minutes=5,
    task="""
Write `dropout(x, kept, p, training)`. `x` and `kept` have the same shape; `kept` has been drawn
already: 1.0 where an entry stays (probability $1 - p$), 0.0 where it is dropped. Return a tensor of
that shape.

In training (`training` is `True`) the expected value of every entry, over masks, has to be the
entry itself. In eval mode nothing happens. $0 \\le p < 1$.
""",
    hint="An entry 1 stays with probability 1 - p, and is 0 otherwise. What is its mean, and what "
    "makes that mean 1 again?",
    reference=dropout,
    cases=(
        question("training, p = 0.3", _X, _KEPT, 0.3, True),
        question("eval, p = 0.3", _X, _KEPT, 0.3, False),
        question("training, p = 0.5", _X, _KEPT, 0.5, True),
        question("training, p = 0, all kept", _X, torch.ones(3, 5).double(), 0.0, True),
        Case("gradient in training", _ask_dropout(0.25, True)),
        Case("gradient in eval", _ask_dropout(0.25, False)),
    ),
    mistakes=(
        Mistake(
            lambda x, kept, p, training: x * kept if training else x.clone(),
            "In training the entries that stay are too small: their mean over masks is (1 - p) x.",
        ),
        Mistake(
            lambda x, kept, p, training: x * kept if training else x * (1 - p),
            "That is the original dropout, which shrinks in eval mode; here eval mode leaves x "
            "alone, and training makes up for it.",
        ),
        Mistake(
            lambda x, kept, p, training: x * kept / (1 - p),
            "It drops in eval mode too: predictions would be random.",
        ),
        Mistake(
            lambda x, kept, p, training: x.clone() if training else x * kept / (1 - p),
            "It drops in eval mode and not in training.",
        ),
        Mistake(
            lambda x, kept, p, training: x * kept * (1 - p) if training else x.clone(),
            "It makes what stays smaller; the entries that stay have to make up for those dropped.",
        ),
        Mistake(
            lambda x, kept, p, training: x * (1 - kept) / (1 - p) if training else x.clone(),
            "It drops what `kept` says to keep.",
        ),
        Mistake(
            lambda x, kept, p, training: dropout(x, kept, 1 - p, training) if p else x * kept,
            "It divides by p, the share that goes; what stays is a share 1 - p.",
        ),
    ),
    notes="At p = 0.5 half of the mistakes cannot be seen, which is why the first case is 0.3. "
    "Dropping in eval mode is the one that costs hours. 1 point.",
)


EXERCISES = (LP_PENALTY, SORTED_WEIGHTS, DROPOUT)
