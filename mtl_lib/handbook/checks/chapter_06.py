"""Exercises of chapter 06: gradient surgery."""

import random
from collections.abc import Callable, Iterator
from functools import cache
from itertools import permutations, product
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mtl_lib import weighting
from mtl_lib.gradients import TaskGradients
from mtl_lib.handbook.checks.framework import (
    Case,
    Exercise,
    Mistake,
    call,
    difference,
    draw,
    tensor,
)
from mtl_lib.handbook.checks.precise import precisely, question
from mtl_lib.study import conflicts

Order = list[list[int]]
Backward = Callable[[list[Tensor], nn.Module], None]


def _normal(*shape: int, seed: int) -> Tensor:
    return draw(*shape, seed=seed, dtype=torch.float64)


def _of_right_kind(reference: Callable, *arguments: Any) -> Case:
    """Whether right values come as a tensor; of wrong ones the other cases tell."""

    def ask(answer: Callable) -> bool:
        result = call(answer, *arguments)
        return isinstance(result, Tensor) or bool(difference(result, reference(*arguments)))

    return Case("it is a tensor", precisely(ask))


def _no_tensor(reference: Callable, says: str) -> tuple[Mistake, ...]:
    """The right values in a list or an array: `says` tells who cannot go on with them."""
    return tuple(
        Mistake(
            lambda *arguments, to=to: to(reference(*arguments)),
            f"The values are right but no tensor, {says}",
        )
        for to in (Tensor.tolist, Tensor.numpy)
    )


# project


def project(g_i: Tensor, g_j: Tensor) -> Tensor:
    """One line of Algorithm 1 (Yu et al., 2020): `[P]`, `[P]` -> `[P]`."""
    inner = g_i @ g_j
    if inner >= 0:
        return g_i.clone()
    return g_i - inner / (g_j @ g_j) * g_j


_SMALL = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10)
# What is divided by in place of the squared length, to be safe from zeros that cannot occur.
_GUARDS = (
    *(lambda square, small=small: square + small for small in (*_SMALL, 1e-12, 1e-15, 1e-16)),
    *(lambda square, small=small: square.clamp(min=small) for small in (*_SMALL, 1e-12)),
    *(lambda square, small=small: (square.sqrt() + small) ** 2 for small in _SMALL),
)
_NO_EPSILON = (
    "A small number in the denominator changes the answer for short gradients; where there is a "
    "conflict the length cannot be zero."
)
_BY_OWN_LENGTH = "It divides by the squared length of g_i; the part along g_j is measured by g_j's."
_ALWAYS = "It projects always; gradients that agree are to be left alone."
_ZERO_BY_ZERO = (
    "Where g_j is zero it divides zero by zero; only in a conflict is there anything to divide."
)
_LENGTHS = (1e-2, 1e-4, 1e-6, 1e-8)


def _project(conflict: Callable, part: Callable) -> Callable:
    """A variant: `part` is subtracted from g_i where `conflict` holds."""

    def variant(g_i: Tensor, g_j: Tensor) -> Tensor:
        return g_i - part(g_i, g_j) if conflict(g_i @ g_j) else g_i.clone()

    return variant


def _guarded(guard: Callable) -> Callable:
    return _project(_negative, lambda i, j: (i @ j) / guard(j @ j) * j)


def _negative(inner: Tensor) -> bool:
    return bool(inner < 0)


def _parallel(g_i: Tensor, g_j: Tensor) -> Tensor:
    return (g_i @ g_j) / (g_j @ g_j) * g_j


def _always(g_i: Tensor, g_j: Tensor) -> Tensor:
    return g_i - _parallel(g_i, g_j) if g_j.any() else g_i.clone()


_WRONG_PROJECTIONS = (
    (lambda g_i, g_j: g_i - _parallel(g_i, g_j), _ALWAYS),
    (_always, _ALWAYS),
    (
        _project(lambda inner: inner > 0, _parallel),
        "It projects where the gradients agree and not where they conflict: look at the sign.",
    ),
    (_project(lambda inner: inner <= 0, _parallel), _ZERO_BY_ZERO),
    (
        _project(_negative, lambda i, j: (i @ j) * j),
        "It multiplies g_j by the inner product and divides by nothing, which is right only for a "
        "g_j of length 1.",
    ),
    (
        _project(_negative, lambda i, j: (i @ j) / (i @ i) * j),
        _BY_OWN_LENGTH,
    ),
    (
        _project(_negative, lambda i, j: (i @ j) / j.norm() * j),
        "It divides by the length of g_j, not by its square: try a g_j twice as long.",
    ),
    (
        _project(_negative, lambda i, j: (i @ j) / (i.norm() * j.norm()) * j),
        "It subtracts the cosine times g_j: how much of g_j lies in g_i depends on both lengths.",
    ),
    (
        _project(_negative, lambda i, j: i - _parallel(i, j)),
        "It returns the part along g_j, the one that should go, and drops the rest.",
    ),
    (
        _project(_negative, lambda i, j: -_parallel(i, j)),
        "It adds the conflicting part once more instead of taking it out.",
    ),
    *((_guarded(guard), _NO_EPSILON) for guard in _GUARDS),
)
_CONFLICT = torch.tensor([3.0, 1.0]).double(), torch.tensor([-1.0, 2.0]).double()
_RANDOM = _normal(7, seed=1), -2 * _normal(7, seed=1) + 3 * _normal(7, seed=2)


def _ask_short(answer: Callable) -> list[Tensor]:
    """A pair in conflict and one that agrees, at every length, in units of the length."""
    pairs = [(sign * s * _RANDOM[0], s * _RANDOM[1]) for s in _LENGTHS for sign in (1, -1)]
    return [tensor(call(answer, *pair)) / pair[1].norm() for pair in pairs]


PROJECT = Exercise(
    name="project",
    chapter=6,
    title="take out what points against the other",
    section="Surgery",
    difficulty=1,
    importance=5,
    minutes=5,
    task="""
Write `project(g_i, g_j)`: two tasks' gradients, `[P]` each, to one `[P]`.

If they conflict (negative inner product), return $g_i - \\frac{g_i \\cdot g_j}{||g_j||^2}\\, g_j$,
the part of $g_i$ at a right angle to $g_j$; otherwise return $g_i$ as it is. It must hold for
gradients of any length, $10^{-8}$ or 0 among them, with no small number added anywhere.
""",
    hint="One inner product decides; the same one is the numerator. Whose length is it that you "
    "divide by: that of the arrow which stays, or that of the one you project on?",
    reference=project,
    cases=(
        question("two gradients in conflict", -_CONFLICT[0], _CONFLICT[0] + _CONFLICT[1]),
        question("two that agree", _CONFLICT[0], _CONFLICT[0] + _CONFLICT[1]),
        question("seven numbers, in conflict", *_RANDOM),
        question("the same, roles exchanged", *reversed(_RANDOM)),
        question("a right angle", *(torch.tensor(g) for g in ([2.0, 0.0], [0.0, 3.0]))),
        Case("lengths from 1e-2 to 1e-8", precisely(_ask_short)),
        question("g_j is zero", _RANDOM[0], torch.zeros(7).double()),
        question("g_i is zero", torch.zeros(7).double(), _RANDOM[0]),
        question("opposite directions", _RANDOM[0], -3 * _RANDOM[0]),
        _of_right_kind(project, *_RANDOM),
    ),
    mistakes=(
        *_no_tensor(project, "and the next projection, or the sum, goes on computing with it."),
        Mistake(
            lambda g_i, g_j: g_i.clone(),
            "It returns g_i as it is, also where the two conflict.",
        ),
        *(
            Mistake(wrong, "The roles are exchanged: it takes the part along g_i out of g_j.")
            for wrong in (
                lambda g_i, g_j: project(g_j, g_i),
                lambda g_i, g_j: project(g_j, g_i) if g_i @ g_j < 0 else g_i.clone(),
            )
        ),
        *(
            Mistake(
                _project(_negative, part),
                "It subtracts a multiple of g_i, which changes only the length of g_i; what has to "
                "go is a multiple of g_j.",
            )
            for part in (
                lambda i, j: (i @ j) / (i @ i) * i,
                lambda i, j: (i @ j) / (j @ j) * i,
            )
        ),
        *(Mistake(wrong, says) for wrong, says in _WRONG_PROJECTIONS),
    ),
    notes="Students project always, or divide by the wrong length; both look right on two unit "
    "vectors in conflict. An epsilon in the denominator is the other favourite: it is not needed, "
    "since a negative inner product rules out a zero. 1 point.",
)


# pcgrad


def pcgrad(gradients: Tensor, order: Order) -> Tensor:
    """Algorithm 1 (Yu et al., 2020) with the order given: `[T, P]` -> `[P]`.

    `weightings.project_conflicting`, which draws the order itself, gives the same.
    """
    return _pcgrad(project)(gradients, order)


def _pcgrad(project: Callable) -> Callable:
    """Algorithm 1 with this projection."""
    return lambda gradients, order: _projected(gradients, order, project).sum(dim=0)


def _projected(gradients: Tensor, order: Order, project: Callable = project) -> Tensor:
    """All tasks' projected gradients, `[T, P]`."""
    rows = []
    for g, others in zip(gradients, order, strict=True):
        for j in others:
            g = project(g, gradients[j])
        rows.append(g)
    return torch.stack(rows)


_TESTS_THE_ORIGINAL = (
    "It asks whether the *original* g_i conflicts with g_j; after the first projection that may be "
    "another question."
)
_USES_THE_ORIGINAL = (
    "It subtracts the parts of the original g_i one after the other; the second projection has to "
    "start from what the first has left."
)
_UNIT_GRADIENTS = "It makes the gradients equally long first; their lengths belong in the sum."
_COSINES = "It works on cosines; the lengths of the gradients decide how much of g_j is taken out."
_ONTO_THE_PROJECTED = (
    "It projects on gradients that were projected before; the other task's gradient is the "
    "original one."
)
_AFTER_SUMMING = (
    "It projects the sum; each task's gradient is to be projected on its own, then summed."
)
_FIRST_ONLY = "It projects on the first of the other tasks only."
_REVERSED = "It meets the other tasks in the reverse of the given order."
_BY_NUMBER = "It meets the other tasks by number; the order is given, and changes the answer."


def _tests_the_original(gradients: Tensor, order: Order) -> Tensor:
    rows = gradients.clone()
    for i, others in enumerate(order):
        for j in others:
            if gradients[i] @ gradients[j] < 0:
                rows[i] -= (rows[i] @ gradients[j]) / (gradients[j] @ gradients[j]) * gradients[j]
    return rows.sum(dim=0)


def _uses_the_original(gradients: Tensor, order: Order) -> Tensor:
    rows = gradients.clone()
    for i, others in enumerate(order):
        for j in others:
            if gradients[i] @ gradients[j] < 0:
                rows[i] -= _parallel(gradients[i], gradients[j])
    return rows.sum(dim=0)


def _onto_the_projected(gradients: Tensor, order: Order) -> Tensor:
    rows = gradients.clone()
    for i, others in enumerate(order):
        for j in others:
            rows[i] = project(rows[i], rows[j])
    return rows.sum(dim=0)


def _after_summing(gradients: Tensor, order: Order) -> Tensor:
    total = gradients.sum(dim=0)
    for others in order:
        for j in others:
            total = project(total, gradients[j])
    return total


def _until_no_conflict(gradients: Tensor, order: Order) -> Tensor:
    units = gradients / gradients.norm(dim=1, keepdim=True).clamp(min=1e-300)
    rows = gradients.clone()
    for i, others in enumerate(order):
        for _ in range(2000):
            if not others or (units[others] @ rows[i]).min() >= -1e-9 * gradients[i].norm():
                break
            for j in others:
                rows[i] = project(rows[i], gradients[j])
    return rows.sum(dim=0)


def _first_only(gradients: Tensor, order: Order) -> Tensor:
    return pcgrad(gradients, [others[:1] for others in order])


def _last_only(gradients: Tensor, order: Order) -> Tensor:
    return pcgrad(gradients, [others[-1:] for others in order])


def _one_conflict(which: int) -> Callable:
    """A variant: of the tasks in conflict with the original g_i it meets one."""

    def variant(gradients: Tensor, order: Order) -> Tensor:
        conflicts = [
            [j for j in others if gradients[i] @ gradients[j] < 0] for i, others in enumerate(order)
        ]
        return pcgrad(gradients, [found[which:][:1] for found in conflicts])

    return variant


def _divided_by_original(gradients: Tensor, order: Order) -> Tensor:
    rows = gradients.clone()
    for i, others in enumerate(order):
        for j in others:
            inner = rows[i] @ gradients[j]
            if inner < 0:
                rows[i] -= inner / (gradients[i] @ gradients[i]) * gradients[j]
    return rows.sum(dim=0)


def _in_index_order(gradients: Tensor, order: Order) -> Tensor:
    return pcgrad(gradients, [sorted(others) for others in order])


def _backwards(gradients: Tensor, order: Order) -> Tensor:
    return pcgrad(gradients, [others[::-1] for others in order])


def _unit_gradients(gradients: Tensor, order: Order) -> Tensor:
    norms = gradients.norm(dim=1, keepdim=True)
    return pcgrad(torch.where(norms > 0, gradients / norms, 0.0), order)


def _gradients(tasks: int, size: int, seed: int) -> Tensor:
    """Gradients of unequal length, most of them in conflict."""
    rows = _normal(tasks, size, seed=seed)
    rows -= 1.2 * rows.mean(dim=0)
    return rows * torch.linspace(0.5, 2, tasks, dtype=torch.float64)[:, None]


_THREE = _gradients(3, 4, seed=3)
_FOUR = _gradients(4, 6, seed=4)
_FORWARD, _OTHER = [[1, 2], [2, 0], [0, 1]], [[2, 1], [0, 2], [1, 0]]
_OF_FOUR = [[2, 3, 1], [3, 0, 2], [1, 0, 3], [0, 2, 1]]
_OTHER_OF_FOUR = [[1, 2, 3], [2, 3, 0], [3, 1, 0], [2, 1, 0]]
_WITH_ZERO = torch.cat([_THREE[:2], torch.zeros(1, 4, dtype=torch.float64)])
_AGREE = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).double()
_OPPOSE = torch.tensor([[1.0, 0.0], [-1.0, 0.5]]).double()
_TWO = [[1], [0]]


def _ask_short_rows(answer: Callable) -> list[Tensor]:
    """Three tasks, and three of which two agree, at every length, in units of the length."""
    triples = (_THREE, torch.cat([_THREE[:2], -_THREE[1:2] + 0.1 * _THREE[2:]]))
    return [tensor(call(answer, s * g, _FORWARD)) / s for s in _LENGTHS for g in triples]


PCGRAD = Exercise(
    name="pcgrad",
    chapter=6,
    title="gradient surgery on whole gradients",
    section="Surgery",
    difficulty=3,
    importance=5,
    minutes=15,
    task="""
Write `pcgrad(gradients, order)`: `[T, P]`, one task's gradient a row, to the step's gradient `[P]`.

`order[i]` lists the other tasks in the order in which task i meets them, such as
`[[1, 2], [2, 0], [0, 1]]`. Start from $g_i^{PC} = g_i$; for each $j$ in `order[i]`: where
$g_i^{PC} \\cdot g_j < 0$, take the part along $g_j$ out of $g_i^{PC}$. Here $g_j$ is always the
*original* gradient. Return the *sum* of all $g_i^{PC}$. One task alone is returned as it is; a
gradient may be zero.
""",
    hint="Two loops. Inside, exactly one thing changes from one j to the next, and exactly one "
    "thing must never change. Which is which?",
    reference=pcgrad,
    cases=(
        question("two tasks in conflict", _OPPOSE, _TWO),
        question("two tasks that agree", _AGREE, _TWO),
        question("three tasks", _THREE, _FORWARD),
        question("three tasks, another order", _THREE, _OTHER),
        question("three tasks, mixed order", _THREE[[1, 2, 0]], [[1, 2], [0, 2], [1, 0]]),
        question("four tasks", _FOUR, _OF_FOUR),
        question("four tasks, another order", _FOUR[[2, 0, 3, 1]], _OTHER_OF_FOUR),
        Case("lengths from 1e-2 to 1e-8", precisely(_ask_short_rows)),
        question("one gradient is zero", _WITH_ZERO, _FORWARD),
        question("one task", _THREE[:1], [[]]),
        _of_right_kind(pcgrad, _THREE, _FORWARD),
    ),
    mistakes=(
        *_no_tensor(pcgrad, "and a step takes nothing else."),
        Mistake(_tests_the_original, _TESTS_THE_ORIGINAL),
        Mistake(_uses_the_original, _USES_THE_ORIGINAL),
        Mistake(_onto_the_projected, _ONTO_THE_PROJECTED),
        Mistake(
            lambda gradients, order: pcgrad(gradients, order) / len(gradients),
            "That is the mean; surgery returns the sum, so that without conflict it is the plain "
            "sum of the gradients.",
        ),
        Mistake(
            lambda gradients, order: gradients.sum(dim=0),
            "That is the plain sum of the gradients: nothing has been projected.",
        ),
        Mistake(_after_summing, _AFTER_SUMMING),
        Mistake(
            _until_no_conflict,
            "It goes on until no conflict is left; Algorithm 1 meets each other task once, and "
            "does not promise that all conflict is gone.",
        ),
        *(Mistake(_pcgrad(wrong), says) for wrong, says in _WRONG_PROJECTIONS),
        Mistake(_first_only, _FIRST_ONLY),
        Mistake(
            _one_conflict(0), "It stops at a task's first conflict; every other task is to be met."
        ),
        *(
            Mistake(
                wrong,
                "It starts from the original g_i again for each other task, so that only the last "
                "projection is left.",
            )
            for wrong in (_last_only, _one_conflict(-1))
        ),
        Mistake(_divided_by_original, _BY_OWN_LENGTH),
        *(
            Mistake(
                lambda gradients, order, i=i: _projected(gradients, order)[i],
                "It returns one task's projected gradient; asked is the sum of all of them.",
            )
            for i in (0, -1)
        ),
        Mistake(_in_index_order, _BY_NUMBER),
        Mistake(_backwards, _REVERSED),
        Mistake(_unit_gradients, _UNIT_GRADIENTS),
    ),
    notes="The test on the original g_i is found in public code and differs in over half of all "
    "random triples; with two tasks nobody can see it. The mean is found there too. An answer that "
    "writes into `gradients` projects on projected gradients from the second task on. "
    "Worth discussing: the sum can still conflict with a task. 3 points.",
)


# pcgrad_weights


def pcgrad_weights(gram: Tensor, order: Order) -> Tensor:
    """Algorithm 1 on the Gram matrix alone, the order given: `[T, T]` -> weights `[T]`.

    `weighting.pcgrad_weights`, which draws the order itself, gives the same.
    """
    return _coefficients(gram, order).sum(dim=0)


def _inner_now(gram: Tensor, inner: Tensor, i: int, j: int) -> Tensor:
    return inner


def _inner_before(gram: Tensor, inner: Tensor, i: int, j: int) -> Tensor:
    return gram[i, j]


def _part(gram: Tensor, inner: Tensor, i: int, j: int) -> Tensor:
    return inner / gram[j, j]


def _coefficients(
    gram: Tensor, order: Order, part: Callable = _part, tested: Callable = _inner_now
) -> Tensor:
    """Row i holds the projected gradient of task i as a combination of all: `[T, T]`.

    `part` of g_j is taken out where `tested` is negative; both get the Gram matrix, the inner
    product of the projected g_i with g_j, i and j.
    """
    coefficients = torch.eye(len(gram), dtype=gram.dtype)
    for i, others in enumerate(order):
        for j in others:
            pair = gram, coefficients[i] @ gram[:, j], i, j
            if tested(*pair) < 0:
                coefficients[i, j] -= part(*pair)
    return coefficients


def _weights(part: Callable = _part, tested: Callable = _inner_now) -> Callable:
    return lambda gram, order: _coefficients(gram, order, part, tested).sum(dim=0)


def _weights_in_order(reorder: Callable) -> Callable:
    return lambda gram, order: pcgrad_weights(gram, [reorder(others) for others in order])


def _ask_short_gram(answer: Callable) -> list[Tensor]:
    """Three tasks, and three of which two agree; the weights do not depend on the length."""
    triples = (_THREE, torch.cat([_THREE[:2], -_THREE[1:2] + 0.1 * _THREE[2:]]))
    return [tensor(call(answer, s**2 * _gram(g), _FORWARD)) for s in _LENGTHS for g in triples]


def _written_elsewhere(row: Callable, column: Callable) -> Callable:
    """A variant: a projection changes the coefficient in this row and column."""

    def variant(gram: Tensor, order: Order) -> Tensor:
        coefficients = torch.eye(len(gram), dtype=gram.dtype)
        for i, others in enumerate(order):
            for j in others:
                inner = coefficients[i] @ gram[:, j]
                if inner < 0:
                    coefficients[row(i, j), column(i, j)] -= inner / gram[j, j]
        return coefficients.sum(dim=0)

    return variant


def _untyped(weights: Callable) -> Callable:
    """The same with a new tensor of torch's default type, which no other type multiplies."""

    def variant(gram: Tensor, order: Order) -> Tensor:
        if gram.dtype != torch.get_default_dtype():
            raise RuntimeError("expected both to have the same dtype")
        return weights(gram, order)

    return variant


def _weights_onto_the_projected(gram: Tensor, order: Order) -> Tensor:
    rows = torch.eye(len(gram), dtype=gram.dtype)
    for i, others in enumerate(order):
        for j in others:
            inner = rows[i] @ gram @ rows[j]
            if inner < 0:
                rows[i] -= inner / (rows[j] @ gram @ rows[j]) * rows[j]
    return rows.sum(dim=0)


def _written_into_gram(gram: Tensor, order: Order, divided_by_original: bool = False) -> Tensor:
    now, weights = gram.clone(), torch.ones(len(gram), dtype=gram.dtype)
    for i, others in enumerate(order):
        for j in others:
            if now[i, j] < 0:
                share = now[i, j] / (gram if divided_by_original else now)[j, j]
                weights[j] -= share
                now[i] -= share * now[j]
    return weights


def _gram(gradients: Tensor) -> Tensor:
    return gradients @ gradients.T


_CROWD = _gradients(4, 2, seed=8)

_WRONG_WEIGHTS = (
    Mistake(
        lambda gram, order: torch.ones(len(gram)),
        "These are the weights of the plain sum: all are 1, as if nothing were projected.",
    ),
    Mistake(
        lambda gram, order: pcgrad_weights(gram, order) / len(gram),
        "These are the weights of the mean; surgery is a sum, so without conflict every "
        "weight is 1.",
    ),
    Mistake(
        lambda gram, order: pcgrad_weights(gram, order) / pcgrad_weights(gram, order).sum(),
        "The weights are scaled to add up to 1; surgery is a sum, so without conflict every "
        "weight is 1.",
    ),
    Mistake(
        lambda gram, order: pcgrad_weights(weighting.cosines(gram), order),
        _COSINES,
    ),
    Mistake(
        _weights(lambda gram, inner, i, j: gram[i, j] / gram[j, j], _inner_before),
        "It uses the inner products of the original gradients throughout; after a first "
        "projection the inner product with the next g_j is another one.",
    ),
    Mistake(_weights(tested=_inner_before), _TESTS_THE_ORIGINAL),
    Mistake(_weights_onto_the_projected, _ONTO_THE_PROJECTED),
    *(
        Mistake(
            lambda gram, order, divided=divided: _written_into_gram(gram, order, divided),
            "It writes a task's new inner products over the old ones, which the tasks after it "
            "still need: the other task's gradient is the original one.",
        )
        for divided in (False, True)
    ),
    *(
        Mistake(_weights(part, lambda *pair: -1), _ALWAYS)
        for part in (_part, lambda gram, inner, i, j: inner / gram[j, j].clamp(min=1e-300))
    ),
    Mistake(
        _weights(tested=lambda gram, inner, i, j: -inner),
        "It projects where the gradients agree and not where they conflict: look at the sign.",
    ),
    Mistake(_weights(tested=lambda gram, inner, i, j: -1 if inner <= 0 else 1), _ZERO_BY_ZERO),
    Mistake(
        _weights(lambda gram, inner, i, j: inner / gram[i, i]),
        _BY_OWN_LENGTH,
    ),
    Mistake(
        _weights(lambda gram, inner, i, j: inner / gram[j, j].sqrt()),
        "It divides by the length of g_j; the diagonal holds squared lengths, and they are "
        "what belongs there.",
    ),
    Mistake(
        _weights(lambda gram, inner, i, j: inner),
        "It divides by nothing, which is right only for a g_j of length 1.",
    ),
    Mistake(
        _weights(lambda gram, inner, i, j: -inner / gram[j, j]),
        "It adds the conflicting part once more instead of taking it out.",
    ),
    *(
        Mistake(
            _written_elsewhere(row, column),
            "It changes the wrong coefficient: what a projection subtracts from the gradient "
            "of task i is a multiple of g_j.",
        )
        for row, column in (
            (lambda i, j: i, lambda i, j: i),
            (lambda i, j: j, lambda i, j: i),
            (lambda i, j: j, lambda i, j: j),
        )
    ),
    Mistake(
        lambda gram, order: _coefficients(gram, order).sum(dim=1),
        "It adds up what each projected gradient is made of; a weight says how often one "
        "original gradient occurs in all of them: the other direction of the matrix.",
    ),
    Mistake(_weights_in_order(lambda others: others[:1]), _FIRST_ONLY),
    Mistake(_weights_in_order(sorted), _BY_NUMBER),
    Mistake(_weights_in_order(lambda others: others[::-1]), _REVERSED),
    *(
        Mistake(
            _weights(lambda gram, inner, i, j, guard=guard: inner / guard(gram[j, j])),
            _NO_EPSILON,
        )
        for guard in _GUARDS
    ),
)
_UNTYPED = (
    "A new tensor has torch's default type, float32, and the Gram matrix is float64: in a training "
    "step the two cannot be multiplied. Give the new one the matrix's type."
)

PCGRAD_WEIGHTS = Exercise(
    name="pcgrad_weights",
    chapter=6,
    title="gradient surgery from the Gram matrix",
    section="Surgery",
    difficulty=4,
    importance=4,
    minutes=20,
    task="""
Write `pcgrad_weights(gram, order)`: the Gram matrix `[T, T]`, `gram[i, j]` $= g_i \\cdot g_j$, and
the order as in `pcgrad`, to weights `[T]`.

With these weights, $\\sum_k w_k\\, g_k$ is what `pcgrad(gradients, order)` returns. The gradients
themselves are not given, and not needed. A gradient may be zero; one task alone has the weight 1.
The matrix is float64 while torch's default type is float32: new tensors need its type.
""",
    hint="Write each projected gradient as a combination of the original ones, one row of "
    "coefficients a task, at first the identity matrix. Its inner product with g_j is then a row "
    "times a column. Which single coefficient does a projection change?",
    reference=pcgrad_weights,
    cases=(
        question("two tasks in conflict", _gram(_OPPOSE), _TWO),
        question("two tasks that agree", _gram(_AGREE), _TWO),
        question("three tasks", _gram(_THREE), _FORWARD),
        question("three tasks, another order", _gram(_THREE), _OTHER),
        question("four tasks", _gram(_FOUR), _OF_FOUR),
        question("four tasks, two numbers each", _gram(_CROWD), _OF_FOUR),
        Case("lengths from 1e-2 to 1e-8", precisely(_ask_short_gram)),
        question("one gradient is zero", _gram(_WITH_ZERO), _FORWARD),
        question("one task", _gram(_THREE[:1]), [[]]),
        Case(
            "three tasks, torch's default type float32",
            lambda answer: call(answer, _gram(_THREE), _FORWARD),
        ),
        _of_right_kind(pcgrad_weights, _gram(_THREE), _FORWARD),
    ),
    mistakes=(
        *_no_tensor(pcgrad_weights, "and the weighted sum of gradients goes on computing with it."),
        Mistake(_untyped(pcgrad_weights), _UNTYPED),
        *_WRONG_WEIGHTS,
        *(Mistake(_untyped(mistake.wrong), mistake.says) for mistake in _WRONG_WEIGHTS),
    ),
    notes="Normalising the Gram matrix to cosines feels natural and is wrong as soon as lengths "
    "differ. Summing the coefficients along the wrong axis gives plausible weights. A student who "
    "is stuck should do two tasks by hand first: w_1 = 1 - cos * |g_2| / |g_1|. 4 points.",
)


# gram_matrix


def gram_matrix(gradients: list[list[Tensor | None]]) -> Tensor:
    """Inner products over all parameters, `[T, T]` in float64: what `TaskGradients.gram` gives."""
    return _gram(_vectors(gradients))


def _vectors(gradients: list[list[Tensor | None]], dtype: torch.dtype = torch.float64) -> Tensor:
    """All parameters' gradients of a task in one row, None as zero: `[T, P]`."""
    rows = []
    for of_task in gradients:
        row = []
        for k, gradient in enumerate(of_task):
            others = [task[k] for task in gradients if task[k] is not None]
            if others:
                row.append(
                    (torch.zeros_like(others[0]) if gradient is None else gradient).flatten()
                )
        rows.append(torch.cat(row).to(dtype))
    return torch.stack(rows)


def _gram_in_float32(gradients: list[list[Tensor | None]]) -> Tensor:
    return _gram(_vectors(gradients, torch.float32)).double()


def _gram_of_common(gradients: list[list[Tensor | None]]) -> Tensor:
    common = [
        k for k, of in enumerate(zip(*gradients, strict=True)) if all(g is not None for g in of)
    ]
    return _gram(_vectors([[of_task[k] for k in common] for of_task in gradients]))


def _by_tensor(
    gradients: list[list[Tensor | None]], of_two: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """A variant: `of_two` tasks' gradients tensor by tensor, added up: `[T, T]`."""
    total = torch.zeros(len(gradients), len(gradients), dtype=torch.float64)
    for i, j, a, b in _pairs(gradients):
        total[i, j] += of_two(a, b)
    return total


def _of_last_parameter(gradients: list[list[Tensor | None]]) -> Tensor:
    last = torch.zeros(len(gradients), len(gradients), dtype=torch.float64)
    for i, j, a, b in _pairs(gradients):
        last[i, j] = a @ b
    return last


def _pairs(
    gradients: list[list[Tensor | None]],
) -> Iterator[tuple[int, int, Tensor, Tensor]]:
    """Tasks i and j and their gradients, flat, in float64, for each parameter that both reach."""
    for (i, one), (j, other) in product(enumerate(gradients), repeat=2):
        for a, b in zip(one, other, strict=True):
            if a is not None and b is not None:
                yield i, j, a.flatten().double(), b.flatten().double()


def _with_diagonal(gradients: list[list[Tensor | None]], change: Callable) -> Tensor:
    gram = gram_matrix(gradients)
    return gram - gram.diag().diag() + change(gram.diag()).diag()


_NESTED = [
    [draw(3, 2, seed=5), draw(4, seed=6), draw(2, 2, 2, seed=7)],
    [2 * draw(3, 2, seed=8), -draw(4, seed=9), draw(2, 2, 2, seed=10)],
    [draw(3, 2, seed=11) - 1, draw(4, seed=12), -3 * draw(2, 2, 2, seed=13)],
]
_UNREACHED = [[a, None, b] for a, _, b in _NESTED]
_PARTLY = [_NESTED[0], [None, *_NESTED[1][1:]], [_NESTED[2][0], None, _NESTED[2][2]]]
_TINY = [[1e-25 * gradient for gradient in of_task] for of_task in _NESTED]


def _ask_tiny(answer: Callable) -> Tensor:
    return tensor(call(answer, _TINY)).double() * 1e50


GRAM_MATRIX = Exercise(
    name="gram_matrix",
    chapter=6,
    title="inner products over all shared parameters",
    section="Surgery",
    difficulty=2,
    importance=3,
    minutes=10,
    task="""
Write `gram_matrix(gradients)`: `gradients[t][k]` is task t's gradient for shared parameter k, a
float32 tensor of that parameter's shape, or `None` where the task does not reach it (that counts as
zero). Return `[T, T]` with $G_{ij} = g_i \\cdot g_j$.

All parameters of a task together are *one* vector. Compute and return it in float64: over
millions of numbers an inner product in float32 loses digits, and squares of short gradients vanish.
""",
    hint="Inner products add up: over the entries of a tensor, and over tensors. The diagonal is "
    "the squared length.",
    reference=gram_matrix,
    cases=(
        Case("three tasks, three parameters", lambda answer: call(answer, _NESTED)),
        Case("two tasks", lambda answer: call(answer, _NESTED[1:])),
        Case("a task that misses a parameter", lambda answer: call(answer, _PARTLY)),
        Case("a parameter that no task reaches", lambda answer: call(answer, _UNREACHED)),
        Case("gradients near 1e-25, in units of 1e-50", _ask_tiny),
        Case("the same where torch's default is float64", precisely(_ask_tiny)),
        Case("one task", lambda answer: call(answer, _NESTED[:1])),
        _of_right_kind(gram_matrix, _NESTED),
    ),
    mistakes=(
        *_no_tensor(gram_matrix, "and `pcgrad_weights` goes on computing with it."),
        Mistake(
            _gram_in_float32,
            "It computes in float32, in the products or where they are added up: squares of small "
            "gradients vanish there and long sums lose digits. Change the type before the "
            "products, and keep it.",
        ),
        Mistake(
            lambda gradients: gram_matrix(gradients).to(torch.get_default_dtype()),
            "The products may be float64, but the matrix that takes them up has torch's default "
            "type, which is float32 unless somebody has changed it: name its type.",
        ),
        Mistake(
            _gram_of_common,
            "It leaves out every parameter that some task does not reach; a missing gradient is "
            "zero, but the other tasks' gradients still count.",
        ),
        Mistake(
            lambda gradients: weighting.cosines(gram_matrix(gradients)),
            "These are cosines; surgery needs the lengths too.",
        ),
        Mistake(
            lambda gradients: _by_tensor(gradients, lambda a, b: a @ b / (a.norm() * b.norm())),
            "It adds cosines of single tensors; the inner product is over all parameters as one "
            "vector, where long tensors count for more.",
        ),
        *(
            Mistake(wrong, "It takes roots; the diagonal holds squared lengths.")
            for wrong in (
                lambda gradients: gram_matrix(gradients).sqrt(),
                lambda gradients: _with_diagonal(gradients, torch.Tensor.sqrt),
            )
        ),
        Mistake(
            lambda gradients: _by_tensor(gradients, lambda a, b: (a * b).mean()),
            "It takes the mean over a tensor's entries; an inner product is their sum.",
        ),
        Mistake(
            lambda gradients: _by_tensor(gradients, lambda a, b: a.norm() * b.norm()),
            "It multiplies lengths, as if all gradients pointed the same way.",
        ),
        Mistake(
            _of_last_parameter,
            "Only the last parameter that both tasks reach counts: inner products over tensors "
            "add up.",
        ),
        *(
            Mistake(
                lambda gradients, half=half: half(gram_matrix(gradients)),
                "Half of the matrix is zero; two tasks' inner product stands on both sides of the "
                "diagonal.",
            )
            for half in (torch.triu, torch.tril)
        ),
        Mistake(
            lambda gradients: _with_diagonal(gradients, torch.zeros_like),
            "The diagonal is zero; there each task meets itself, which gives its squared length.",
        ),
    ),
    notes="Surgery per tensor (one inner product each) is a different algorithm and differs by a "
    "quarter in a typical step. `None` is what students forget; float32 is what nobody sees. "
    "2 points.",
)


# conflict_rate

_SIGNS = torch.tensor(
    [
        [4.0, -1.0, 2.0, 0.0],
        [-1.0, 3.0, -2.0, 1.0],
        [2.0, -2.0, 5.0, -1.0],
        [0.0, 1.0, -1.0, 2.0],
    ]
).double()
_ONE_PAIR = torch.meshgrid(*[torch.tensor([0, 1, 3])] * 2, indexing="ij")


def _per_pair(gram: Tensor, counted: Tensor, pairs: float) -> float:
    return float(counted.sum()) / pairs if len(gram) > 1 else 0.0


CONFLICT_RATE = Exercise(
    name="conflict_rate",
    chapter=6,
    title="how many pairs of tasks conflict",
    difficulty=1,
    importance=3,
    minutes=5,
    task="""
Write `conflict_rate(gram)`: the Gram matrix `[T, T]` to the share, from 0 to 1, of the pairs of
different tasks that conflict (negative inner product). A right angle is no conflict. One task alone
has no pairs: return 0.
""",
    hint="How many pairs are there among T tasks? The matrix shows each of them twice, and each "
    "task with itself once.",
    reference=conflicts.conflict_rate,
    cases=(
        question("four tasks", _SIGNS),
        question("three tasks", _SIGNS[:3, :3]),
        question("three tasks, all in conflict", _gram(torch.eye(3).double() * 3 - 1)),
        question("two tasks in conflict", _SIGNS[:2, :2]),
        question("two tasks that agree", _SIGNS[::2, ::2]),
        question("two tasks at a right angle", _SIGNS[::3, ::3]),
        question("three tasks, one pair in conflict", _SIGNS[_ONE_PAIR]),
        question("short gradients in conflict", 1e-12 * _SIGNS),
        question("six tasks", _gram(_gradients(6, 3, seed=14))),
        question("one task", _SIGNS[:1, :1]),
    ),
    mistakes=(
        Mistake(
            lambda gram: float((gram < 0).double().mean()),
            "It counts each task with itself: the diagonal is not among the pairs.",
        ),
        Mistake(
            lambda gram: float((gram.triu() < 0).sum()) / (len(gram) * (len(gram) + 1) / 2),
            "It counts each task with itself: the diagonal is not among the pairs.",
        ),
        Mistake(
            lambda gram: _per_pair(gram, gram < 0, len(gram) * (len(gram) - 1) / 2),
            "It counts every conflict twice, as (i, j) and as (j, i), but every pair once.",
        ),
        *(
            Mistake(
                wrong,
                "It counts every conflict twice, as (i, j) and as (j, i), but every pair once. "
                "(And one task alone has no pairs: that would divide by 0.)",
            )
            for wrong in (
                lambda gram: int((gram < 0).sum()) / (len(gram) * (len(gram) - 1) / 2),
                lambda gram: (gram < 0).sum() / (len(gram) * (len(gram) - 1) / 2),
            )
        ),
        Mistake(
            lambda gram: _per_pair(gram, gram.triu() < 0, len(gram) * (len(gram) - 1)),
            "It counts every conflict once, but every pair twice.",
        ),
        Mistake(
            lambda gram: float((gram.triu() < 0).double().mean()),
            "It counts every conflict once, but divides by all T * T entries of the matrix.",
        ),
        Mistake(
            lambda gram: _per_pair(gram, gram <= 0, len(gram) * (len(gram) - 1)),
            "It counts a right angle as a conflict.",
        ),
        Mistake(
            lambda gram: float((gram < 0).any(dim=1).double().mean()),
            "It gives the share of tasks that conflict with any other; asked is the share of "
            "pairs.",
        ),
        Mistake(
            lambda gram: float((gram < 0).any()),
            "It says whether any two tasks conflict; asked is the share of pairs that do.",
        ),
        Mistake(
            lambda gram: float((gram.triu() < 0).sum()),
            "It gives the number of conflicts; asked is their share of the pairs.",
        ),
        Mistake(
            lambda gram: 1 - conflicts.conflict_rate(gram) if len(gram) > 1 else 0.0,
            "It counts the pairs that do not conflict.",
        ),
        Mistake(
            lambda gram: conflicts.conflict_rate(-gram),
            "It counts the pairs that agree, with a positive inner product.",
        ),
    ),
    notes="Harmless, but the number goes into every conflict log; counted with the diagonal it can "
    "never reach 1. One task: most divide by zero. 1 point.",
)


# surgery_step


class _Toy(nn.Module):
    """Shared weight [3, 2] and shift [4], and a head [2] for each task."""

    def __init__(self, tasks: int, seed: int):
        super().__init__()
        self.encoder = nn.ParameterDict(
            {
                "weight": nn.Parameter(_normal(3, 2, seed=seed)),
                "shift": nn.Parameter(_normal(4, seed=seed + 1)),
            }
        )
        self.heads = nn.ParameterList(
            nn.Parameter(_normal(2, seed=seed + 2 + t)) for t in range(tasks)
        )

    def shared_parameters(self) -> list[nn.Parameter]:
        return list(self.encoder.values())


def _ask_step(
    seed: int, order: Order, reach: list[bool], dtype: torch.dtype = torch.float64
) -> Callable[[Callable], dict]:
    """Losses of a toy model, one graph a task; what each `.grad` holds afterwards.

    Args:
        reach: for each task, whether its loss uses the shift.
    """

    def ask(answer: Callable) -> dict:
        model, losses, walks = _Toy(len(order), seed).to(dtype), [], [0] * len(order)
        for t, head in enumerate(model.heads):
            inputs = draw(5, 3, seed=seed + 100 + t, dtype=dtype) * (1 + t)  # [B, 3]
            vectors = inputs @ model.encoder["weight"]  # [B, 2]
            vectors.register_hook(lambda gradient, t=t: _count(walks, t))
            if reach[t]:
                vectors = vectors * torch.tanh(model.encoder["shift"].sum() + t)
            target = (-1) ** t * draw(5, seed=seed + 200, dtype=dtype)
            losses.append(((vectors @ head - target) ** 2).mean())
        answer(losses, model, [list(others) for others in order])
        names = {f"shared {name}": p for name, p in model.encoder.items()}
        names |= {f"head {t}": head for t, head in enumerate(model.heads)}
        found = {
            f"gradient of {name}": torch.zeros_like(p) if p.grad is None else p.grad
            for name, p in names.items()
        }
        return found | {"no task's graph walked for another task": max(walks) <= 2}

    return precisely(ask) if dtype == torch.float64 else ask


def _count(walks: list[int], task: int) -> None:
    walks[task] += 1


def _ask_by_hand(answer: Callable) -> dict:
    """Shared gradients (1, 0) and (-1, .5), head gradients 3 and 4."""
    model = nn.Module()
    model.shared = nn.Parameter(torch.tensor([0.5, -2.0], dtype=torch.float64))
    model.heads = nn.ParameterList(nn.Parameter(torch.ones((), dtype=torch.float64)) for _ in "12")
    model.shared_parameters = lambda: [model.shared]
    losses = [model.shared @ g + (3 + t) * model.heads[t] for t, g in enumerate(_OPPOSE)]
    answer(losses, model, [[1], [0]])
    parameters = {"shared": model.shared, "head 0": model.heads[0], "head 1": model.heads[1]}
    return {
        f"gradient of {name}": torch.zeros_like(p) if p.grad is None else p.grad
        for name, p in parameters.items()
    }


def surgery_step(losses: list[Tensor], model: nn.Module, order: Order) -> None:
    """One backward pass a task, surgery on the shared parameters, heads left alone."""
    gradients = TaskGradients(model.shared_parameters())
    for loss in losses:
        loss.backward()
        gradients.collect()
    gradients.combine(pcgrad_weights(gradients.gram(), order))


def _step(
    losses: list[Tensor],
    parameters: list[nn.Parameter],
    combine: Callable[[Tensor], Tensor],
    zero_between: bool = True,
) -> None:
    """Backward per task over `parameters` as one vector, `combine` `[T, P]` -> `[P]`."""
    rows = []
    for loss in losses:
        loss.backward()
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters]
        rows.append(torch.cat([g.flatten() for g in gradients]))
        if zero_between:
            for p in parameters:
                p.grad = None
    total = combine(torch.stack(rows))
    sizes = [p.numel() for p in parameters]
    for p, part in zip(parameters, total.split(sizes), strict=True):
        p.grad = part.view_as(p).clone()


def _with_heads(losses, model, order):
    _step(losses, list(model.parameters()), lambda rows: pcgrad(rows, order))


def _per_tensor(losses, model, order):
    shared = model.shared_parameters()
    sizes = [p.numel() for p in shared]

    def combine(rows: Tensor) -> Tensor:
        return torch.cat([pcgrad(part, order) for part in rows.split(sizes, dim=1)])

    _step(losses, shared, combine)


def _accumulated(losses, model, order):
    _step(losses, model.shared_parameters(), lambda rows: pcgrad(rows, order), zero_between=False)


def _plain_sum(losses, model, order):
    sum(losses).backward()


def _mean_of_projected(losses, model, order):
    _step(losses, model.shared_parameters(), lambda rows: pcgrad(rows, order) / len(rows))


def _heads_forgotten(losses, model, order):
    surgery_step(losses, model, order)
    shared = {id(p) for p in model.shared_parameters()}
    for p in model.parameters():
        if id(p) not in shared:
            p.grad = None


def _earlier_heads_cleared(losses, model, order):
    surgery_step(losses, model, order)
    shared = {id(p) for p in model.shared_parameters()}
    heads = [p for p in model.parameters() if id(p) not in shared]
    for p in heads[:-1]:
        p.grad = None


def _weighted_losses(losses, model, order):
    shared = model.shared_parameters()
    gradients = [
        torch.autograd.grad(loss, shared, retain_graph=True, allow_unused=True) for loss in losses
    ]
    weights = pcgrad_weights(gram_matrix(gradients), order)
    sum(weight * loss for weight, loss in zip(weights, losses, strict=True)).backward()


def _mean_loss(losses, model, order):
    (sum(losses) / len(losses)).backward()


def _over_shared(surgery: Callable) -> Callable:
    def variant(losses, model, order):
        _step(losses, model.shared_parameters(), lambda rows: surgery(rows, order))

    return variant


def _cosine_weights(gradients: Tensor, order: Order) -> Tensor:
    return pcgrad_weights(weighting.cosines(_gram(gradients)), order).to(gradients) @ gradients


def _two_types(losses, model, order):
    if model.shared_parameters()[0].dtype != torch.float64:
        raise RuntimeError("expected both to have the same dtype")
    surgery_step(losses, model, order)


def _not_written_back(losses, model, order):
    _step(losses, model.shared_parameters(), lambda rows: 0 * rows[0])


def _only_last(losses, model, order):
    _step(losses, model.shared_parameters(), lambda rows: rows[-1])


def _reached_by_all(losses: list[Tensor], parameters: list[nn.Parameter]) -> list[bool]:
    found = [
        torch.autograd.grad(x, parameters, retain_graph=True, allow_unused=True) for x in losses
    ]
    return [all(g is not None for g in of_tasks) for of_tasks in zip(*found, strict=True)]


def _port(heads_in: bool, mean: Callable | None, heads_scaled: bool = True) -> Callable:
    """What Tseng's port (2020) does, or a part of it.

    Args:
        heads_in: whether all parameters of the model are one vector, heads included.
        mean: says which parameters get the mean over the tasks; all others get the sum.
        heads_scaled: whether the projections change the heads' gradients too.
    """

    def variant(losses: list[Tensor], model: nn.Module, order: Order) -> None:
        shared = list(model.shared_parameters())
        others = [p for p in model.parameters() if all(p is not q for q in shared)]
        parameters = [*shared, *others] if heads_in else shared
        averaged = mean(losses, parameters, shared) if mean else [False] * len(parameters)
        own: dict[nn.Parameter, Tensor | None] = {}

        def combine(rows: Tensor) -> Tensor:
            own.update((p, rows[:, at : at + p.numel()].sum(dim=0)) for p, at in places)
            projected = _projected(rows, order)
            divided = torch.cat(
                [
                    torch.full((p.numel(),), len(rows) if of_all else 1.0, dtype=rows.dtype)
                    for p, of_all in zip(parameters, averaged, strict=True)
                ]
            )
            return projected.sum(dim=0) / divided

        places, at = [], 0
        for p in parameters:
            places.append((p, at))
            at += p.numel()
        _step(losses, parameters, combine)
        if heads_in and not heads_scaled:
            for p in others:
                p.grad = own[p].view_as(p).clone()

    return variant


def _reached(losses: list[Tensor], parameters: list, shared: list) -> list[bool]:
    return _reached_by_all(losses, parameters)


def _shared_ones(losses: list[Tensor], parameters: list, shared: list) -> list[bool]:
    return [any(p is q for q in shared) for p in parameters]


_HEADS_IN = (
    "The heads count in the norms: all parameters were made one vector, so too little of a "
    "conflict is taken out."
)
_HEADS_IN_AND_MEAN = (
    "Heads in and mean, as in the most used port (Tseng, 2020): all parameters are one vector, so "
    "the heads count in the norms and too little of a conflict is taken out, and the shared "
    "parameters get the mean over the tasks, where surgery is a sum."
)


def _through_one_tensor(losses, model, order):
    together = torch.stack(losses)
    gradients = TaskGradients(model.shared_parameters())
    for t in range(len(losses)):
        together[t].backward(retain_graph=True)
        gradients.collect()
    gradients.combine(pcgrad_weights(gradients.gram(), order))


SURGERY_STEP = Exercise(
    name="surgery_step",
    chapter=6,
    title="surgery in a training step",
    section="Surgery",
    difficulty=4,
    importance=5,
    minutes=20,
    task="""
Write `surgery_step(losses, model, order)`, the backward part of a training step. `losses`: one
scalar a task, each from its own batch and so with its own graph; `model.shared_parameters()`: the
encoder's; every other parameter belongs to one head; `order` as in `pcgrad`. Every `.grad` is
`None` at the start. Nothing is returned. Afterwards

- each shared parameter's `.grad` is its part of what `pcgrad` gives for the tasks' gradients, each
  *over all shared parameters as one vector*;
- each head parameter's `.grad` is what its own loss's backward pass leaves there.

A task may not reach some shared parameter. No task's graph is to be walked for another task.
""",
    hint="After one loss's backward, the shared `.grad` belong to that task alone: take them away "
    "before the next. `pcgrad_weights` needs no more than their inner products, and the heads need "
    "nothing done at all.",
    reference=surgery_step,
    cases=(
        Case("two tasks by hand", precisely(_ask_by_hand)),
        Case("three tasks", _ask_step(20, _FORWARD, [True] * 3)),
        Case("three tasks, another order", _ask_step(30, _OTHER, [True] * 3)),
        Case(
            "three tasks, one does not reach a parameter",
            _ask_step(40, _FORWARD, [True, False, True]),
        ),
        Case("a parameter that no task reaches", _ask_step(50, _TWO, [False, False])),
        Case("one task", _ask_step(60, [[]], [True])),
        Case(
            "three tasks in float32, as in a training",
            _ask_step(20, _FORWARD, [True] * 3, torch.float32),
            rtol=1e-3,
            atol=1e-4,
        ),
    ),
    mistakes=(
        Mistake(
            _with_heads,
            "The heads take part in the surgery; only shared parameters can be in conflict, "
            "and a head's gradient is its own task's.",
        ),
        *(Mistake(_port(True, mean), _HEADS_IN_AND_MEAN) for mean in (_reached, _shared_ones)),
        *(
            Mistake(
                _port(True, mean, heads_scaled=False),
                f"{_HEADS_IN} And the shared parameters get the mean over the tasks.",
            )
            for mean in (_reached, _shared_ones)
        ),
        Mistake(_port(True, None, heads_scaled=False), _HEADS_IN),
        Mistake(
            _port(False, _reached),
            "It takes the mean where every task reaches a parameter; surgery is a sum everywhere.",
        ),
        Mistake(
            _per_tensor,
            "It projects tensor by tensor; whether two tasks conflict is one question about all "
            "shared parameters together.",
        ),
        Mistake(
            _accumulated,
            "The gradients of earlier tasks are still in `.grad` when the next one is taken: "
            "backward adds.",
        ),
        Mistake(
            _plain_sum,
            "That is the plain sum of the gradients: nothing has been projected.",
        ),
        Mistake(
            _mean_loss,
            "That is the gradient of the mean loss: nothing has been projected, and the heads' "
            "gradients are too small.",
        ),
        Mistake(
            _mean_of_projected,
            "It takes the mean for the shared parameters; surgery is a sum, or the rates of "
            "shared parameters and heads no longer compare.",
        ),
        Mistake(
            _heads_forgotten,
            "The heads end up without gradients and would never be trained.",
        ),
        Mistake(
            _earlier_heads_cleared,
            "Only the last task's head keeps its gradient: what is cleared between two tasks is "
            "the shared parameters' `.grad`.",
        ),
        Mistake(
            _weighted_losses,
            "The weights multiply the losses, and with them the heads' gradients; surgery is for "
            "the shared parameters only.",
        ),
        *(
            Mistake(_over_shared(wrong), says)
            for wrong, says in (
                (_tests_the_original, _TESTS_THE_ORIGINAL),
                (_onto_the_projected, _ONTO_THE_PROJECTED),
                (_uses_the_original, _USES_THE_ORIGINAL),
                (_pcgrad(_always), _ALWAYS),
                (_unit_gradients, _UNIT_GRADIENTS),
                (_cosine_weights, _COSINES),
                (_after_summing, _AFTER_SUMMING),
                (_in_index_order, _BY_NUMBER),
                (_backwards, _REVERSED),
            )
        ),
        Mistake(
            _over_shared(lambda rows, order: len(rows) * rows.sum(dim=0)),
            "What was kept of each task is the very tensor in `.grad`, into which every later "
            "backward adds: in the end all tasks have the same gradient, the sum.",
        ),
        *(
            Mistake(
                _over_shared(lambda rows, order, left=left: pcgrad(rows, order) + left(rows)),
                "The result is added to what the backward passes have left in `.grad`; it is to "
                "take its place.",
            )
            for left in (lambda rows: rows[-1], lambda rows: rows.sum(dim=0))
        ),
        Mistake(
            _not_written_back,
            "The shared parameters' `.grad` are None or zero afterwards: nothing was written back, "
            "or what was kept of each task was cleared together with `.grad`.",
        ),
        Mistake(_only_last, "The shared parameters' `.grad` hold the last task's gradient only."),
        Mistake(
            _two_types,
            "The Gram matrix and its weights are float64, the gradients of a training float32: "
            "change the type of the one before the two are multiplied, and give `.grad` the "
            "parameter's.",
        ),
        Mistake(
            _through_one_tensor,
            "The values are right, but the losses were put in one tensor: each backward then "
            "sends zeros through every other task's graph, T times the work.",
        ),
    ),
    notes="The most used public port runs the surgery over the heads too and takes the mean: on "
    "the first case it gives (.042, .529) and heads 3.30 and 4.23 in place of (.2, .9), 3 and 4. "
    "`retain_graph` is a sign that the losses were joined first. 4 points.",
)


# surgery


def surgery(seed: int) -> Backward:
    """Gradient surgery for `joint_step`: at every step each task meets the others in a new order.

    The orders come from a generator of its own, so that a run can be repeated.
    """
    generator = torch.Generator().manual_seed(seed)

    def backward(losses: list[Tensor], model: nn.Module) -> None:
        surgery_step(losses, model, _random_order(len(losses), _torch_shuffle(generator)))

    return backward


Shuffle = Callable[[list[int]], list[int]]


def _random_order(tasks: int, shuffled: Shuffle) -> Order:
    return [shuffled([j for j in range(tasks) if j != i]) for i in range(tasks)]


def _torch_shuffle(generator: torch.Generator | None) -> Shuffle:
    def shuffled(others: list[int]) -> list[int]:
        return [others[k] for k in torch.randperm(len(others), generator=generator).tolist()]

    return shuffled


# Three tasks any two of which conflict; every order gives another result.
_FIGHT = _gradients(3, 4, seed=3)
# Four of which every order gives another result too.
_FOUR_FIGHT = _gradients(4, 5, seed=9)
# Projected on both others, the first gradient is at odds with itself.
_SELF_DOUBT = torch.tensor([[1.0, 0.0, 0.1], [-1.0, 0.2, 0.0], [-1.0, -0.2, 0.0]]).double()


def _all_orders(tasks: int) -> list[Order]:
    others = [[j for j in range(tasks) if j != i] for i in range(tasks)]
    return [list(map(list, order)) for order in product(*map(permutations, others))]


@cache
def _kinds(tasks: int, which: str) -> dict[str, Tensor]:
    """What a step may be: the results `[K, P]` of each kind, over all orders."""
    gradients = _toy_gradients(which)[:tasks]
    right = torch.stack([pcgrad(gradients, order) for order in _all_orders(tasks)])
    if tasks > 3:  # of the others there would be hundreds of thousands
        return {"surgery": right}
    everyone = list(permutations(range(tasks)))
    with_itself = [pcgrad(gradients, order) for order in product(everyone, repeat=tasks)]
    pairs = [list(product([j for j in range(tasks) if j != i], repeat=2)) for i in range(tasks)]
    repeated = [pcgrad(gradients, order) for order in product(*pairs)] if tasks > 1 else []
    return {
        "surgery": right,
        "the plain sum": gradients.sum(dim=0)[None],
        "surgery, but the mean": right / tasks,
        "surgery in which a task meets itself": torch.stack(with_itself),
        "surgery in which some task is not met": torch.stack([*repeated, right[0]]),
    }


def _toy_gradients(which: str) -> Tensor:
    return {"fight": _FIGHT, "four": _FOUR_FIGHT, "self-doubt": _SELF_DOUBT}[which]


def _step_of(backward: Callable, tasks: int = 3, which: str = "fight") -> tuple[str, int]:
    """What kind of step a toy model's `.grad` are afterwards, and which order it had."""
    gradients, model = _toy_gradients(which)[:tasks], nn.Module()
    model.shared = nn.Parameter(torch.zeros_like(gradients[0]))
    model.heads = nn.ParameterList(nn.Parameter(torch.ones_like(g[0])) for g in gradients)
    model.shared_parameters = lambda: [model.shared]
    losses = [model.shared @ g + (3 + t) * model.heads[t] for t, g in enumerate(gradients)]
    backward(losses, model)
    if model.shared.grad is None:
        return "no gradient", -1
    heads = [0.0 if head.grad is None else head.grad.item() for head in model.heads]
    if not np.allclose(heads, np.arange(3, 3 + tasks)):
        return "changed heads", -1
    for kind, results in _kinds(tasks, which).items():
        near = torch.isclose(results, model.shared.grad.to(results), rtol=1e-4, atol=1e-6)
        if near.all(dim=1).any():
            return kind, int(near.all(dim=1).long().argmax())
    return "none that we know", -1


def _steps(answer: Callable, seed: int, number: int) -> list[tuple[str, int]]:
    backward = answer(seed)
    return [_step_of(backward) for _ in range(number)]


def _wrong_kinds(steps: list[tuple[str, int]]) -> str:
    """The kinds that are not surgery, or "surgery"."""
    return ", ".join(sorted({kind for kind, _ in steps} - {"surgery"})) or "surgery"


def _ask_orders(answer: Callable) -> dict:
    steps = _steps(answer, 0, 90)
    kind, orders = _wrong_kinds(steps), len(set(steps))
    return {"a step": kind, "different orders in 90 steps": orders if kind == "surgery" else None}


def _ask_numbers_of_tasks(answer: Callable) -> dict:
    backward = answer(1)
    steps = {tasks: [_step_of(backward, tasks) for _ in range(4)] for tasks in (3, 2, 1)}
    return {f"a step of {tasks} tasks": _wrong_kinds(found) for tasks, found in steps.items()}


def _ask_four(answer: Callable) -> dict:
    """Whether the first of four tasks meets the others in more than three of the six orders."""
    backward = answer(3)
    steps = [_step_of(backward, 4, "four") for _ in range(30)]
    kind, of_others = _wrong_kinds(steps), len(_all_orders(4)) // 6
    many = len({place // of_others for _, place in steps}) > 3
    return {"a step": kind, "many orders for one task": many if kind == "surgery" else None}


def _ask_itself(answer: Callable) -> str:
    backward = answer(2)
    return _wrong_kinds([_step_of(backward, which="self-doubt") for _ in range(30)])


def _ask_seeds(answer: Callable) -> dict:
    found = [_steps(answer, seed, 12) for seed in (0, 0, 1, 2, 3, 4, 5)]
    return {
        "equal seeds give equal steps": found[0] == found[1],
        "other seeds give other steps": any(found[0] != other for other in found[2:]),
    }


def _ask_apart(answer: Callable) -> bool:
    """Two of one seed in turn, and other random numbers drawn between their steps."""
    alone, first, second = _steps(answer, 6, 20), answer(6), answer(6)
    found: list[list] = [[], []]
    for _ in range(20):
        for backward, steps in ((first, found[0]), (second, found[1])):
            steps.append(_step_of(backward))
            torch.rand(1), random.random(), np.random.rand()
    return found == [alone, alone]


def _ask_global(answer: Callable) -> str:
    def states() -> dict[str, str]:
        return {
            "torch": str(torch.get_rng_state().tolist()),
            "random": str(random.getstate()),
            "numpy": str(np.random.get_state()[1:3]),
        }

    before = states()
    _steps(answer, 7, 3)
    return ", ".join(name for name, state in states().items() if state != before[name]) or "none"


def _surgery_with(begin: Callable[[int], Shuffle], order: Callable = _random_order) -> Callable:
    """A variant: `begin` is called once with the seed, `order` in every step."""

    def variant(seed: int) -> Backward:
        shuffled = begin(seed)
        return lambda losses, model: surgery_step(losses, model, order(len(losses), shuffled))

    return variant


def _own_generator(seed: int) -> Shuffle:
    return _torch_shuffle(torch.Generator().manual_seed(seed))


def _python_shuffle(seed: int | None) -> Shuffle:
    if seed is not None:
        random.seed(seed)
    return lambda others: random.sample(others, len(others))


def _numpy_shuffle(seed: int | None) -> Shuffle:
    if seed is not None:
        np.random.seed(seed)
    return lambda others: np.random.permutation(others).astype(int).tolist()


def _torch_global(seed: int | None) -> Shuffle:
    if seed is not None:
        torch.manual_seed(seed)
    return _torch_shuffle(None)


_GLOBAL = (_torch_global, _python_shuffle, _numpy_shuffle)


def _each_step_anew(begin: Callable[[int], Shuffle]) -> Callable:
    return lambda seed: (
        lambda losses, model: surgery_step(losses, model, _random_order(len(losses), begin(seed)))
    )


_ONE = torch.Generator()


def _one_generator(seed: int) -> Shuffle:
    return _torch_shuffle(_ONE.manual_seed(seed))


def _one_permutation(tasks: int, shuffled: Shuffle) -> Order:
    everyone = shuffled(list(range(tasks)))
    return [[j for j in everyone if j != i] for i in range(tasks)]


def _one_shuffle(tasks: int, shuffled: Shuffle) -> Order:
    places = shuffled(list(range(tasks - 1)))
    others = [[j for j in range(tasks) if j != i] for i in range(tasks)]
    return [[of[k] for k in places] for of in others]


def _rotated(tasks: int, shuffled: Shuffle) -> Order:
    others = [[j for j in range(tasks) if j != i] for i in range(tasks)]
    begins = [shuffled(list(range(tasks - 1)))[:1] for _ in others]
    return [of[k:] + of[:k] for of, at in zip(others, begins, strict=True) for k in at or [0]]


def _own_task_too(tasks: int, shuffled: Shuffle) -> Order:
    return [shuffled(list(range(tasks))) for _ in range(tasks)]


def _with_replacement(tasks: int, shuffled: Shuffle) -> Order:
    others = [[j for j in range(tasks) if j != i] for i in range(tasks)]
    return [[shuffled(of)[0] for _ in of] for of in others]


def _of_the_result(change: Callable[[Tensor, int], Tensor]) -> Callable:
    """A variant: what surgery leaves in the shared parameters is changed."""

    def variant(seed: int) -> Backward:
        right = surgery(seed)

        def backward(losses: list[Tensor], model: nn.Module) -> None:
            right(losses, model)
            for parameter in model.shared_parameters():
                parameter.grad = change(parameter.grad, len(losses))

        return backward

    return variant


SURGERY = Exercise(
    name="surgery",
    chapter=6,
    title="surgery for your training loop",
    section="Surgery",
    difficulty=3,
    importance=5,
    minutes=15,
    task="""
Write `surgery(seed)`. It returns a function `backward(losses, model)`, which your `joint_step` of
chapter 05 can call in place of `sum_of_losses`: it does the backward part of *one* step with your
`surgery_step`.

- For each task it draws the order in which that task meets all the others, itself left out: a
  random permutation, every one equally likely, each task's apart from the other tasks', and **all
  of them anew in every step**.
- The orders come from a random generator that belongs to this `backward` alone: two of equal seed
  take equal steps, whatever else draws random numbers meanwhile, and no global generator (torch's,
  Python's, NumPy's) is used or seeded.

The number of tasks is that of `losses`. `backward` returns nothing.
""",
    hint="A function inside a function remembers what stands around it. What has to be made once, "
    "when `surgery` is called, and what in every step? `torch.Generator().manual_seed(seed)` is a "
    "generator of your own, and `torch.randperm` takes one.",
    reference=surgery,
    cases=(
        Case("three tasks, 90 steps", precisely(_ask_orders)),
        Case("three tasks, then two, then one", precisely(_ask_numbers_of_tasks)),
        Case("four tasks, 30 steps", precisely(_ask_four)),
        Case("a task that would conflict with itself once projected", precisely(_ask_itself)),
        Case("seeds", precisely(_ask_seeds)),
        Case("two of one seed in turn, and others draw meanwhile", precisely(_ask_apart)),
        Case("global generators that were used", precisely(_ask_global)),
    ),
    mistakes=(
        Mistake(
            _each_step_anew(_own_generator),
            "Every step has the same order. Either it was drawn once, before the first step, or "
            "the generator is made anew with its seed in every step and so draws the same again.",
        ),
        *(
            Mistake(
                _each_step_anew(begin),
                "The global generator is seeded in every step: each step draws the same order, and "
                "so does everything else that draws, such as dropout.",
            )
            for begin in _GLOBAL
        ),
        Mistake(
            _surgery_with(_own_generator, lambda tasks, shuffled: _all_orders(tasks)[0]),
            "Nothing is drawn: the tasks meet in one fixed order, whatever the seed.",
        ),
        *(
            Mistake(
                _surgery_with(lambda seed, begin=begin: begin(None)),
                "The order comes from the global generator: the seed has no say, and whatever else "
                "draws, such as dropout, changes the steps.",
            )
            for begin in _GLOBAL
        ),
        *(
            Mistake(
                _surgery_with(begin),
                "It seeds the global generator, which everything else draws from too: make a "
                "generator of your own.",
            )
            for begin in _GLOBAL
        ),
        Mistake(
            _surgery_with(_one_generator),
            "All that `surgery` returns share one generator: two runs side by side draw from each "
            "other. Make it inside `surgery`.",
        ),
        Mistake(
            _surgery_with(_own_generator, _own_task_too),
            "A task is among those that it meets itself. Mostly that changes nothing, but a "
            "projected gradient can point against its own original: leave the task out.",
        ),
        *(
            Mistake(
                _surgery_with(_own_generator, order),
                "One permutation serves all tasks: their orders then depend on each other, and "
                "some combinations never come. Draw for each task apart.",
            )
            for order in (_one_permutation, _one_shuffle)
        ),
        Mistake(
            _surgery_with(_own_generator, _rotated),
            "With more than three tasks some orders never come: a random beginning, and then on "
            "by number, is no random permutation.",
        ),
        Mistake(
            _surgery_with(lambda seed: _torch_shuffle(torch.Generator())),
            "The seed has no say: a new generator begins with the same state every time, until it "
            "is given the seed.",
        ),
        Mistake(
            _surgery_with(_own_generator, _with_replacement),
            "Some task is not met: the others were drawn with replacement, or not all of them.",
        ),
        Mistake(
            _of_the_result(lambda gradient, tasks: gradient / tasks),
            "It takes the mean for the shared parameters; surgery is a sum.",
        ),
        Mistake(
            lambda seed: lambda losses, model: sum(losses).backward(),
            "That is the plain sum of the gradients: nothing has been projected.",
        ),
    ),
    notes="A closure with a state is new to many: the generator made inside `backward` is the most "
    "frequent fault, and a run with it looks healthy. Worth asking: why does dropout make the "
    "global generator a bad choice? 3 points.",
)


# mended_port


MENDED_PORT = Exercise(
    name="mended_port",
    chapter=6,
    title="mend the port",
    difficulty=3,
    importance=4,
    minutes=10,
    task="""
`mended_port(losses, model, order)` below ought to do what your `surgery_step` does. It is condensed
from the port that the paper integrates, runs without an error, and computes something else. Find
the two lines that make the difference, and mend them: afterwards every `.grad` is as specified for
`surgery_step`. Leave the rest as it is.
""",
    hint="Follow one head's gradient through the function, and ask of each long vector whose "
    "numbers are in it. Then try the toy above, shared gradients (1, 0) and (-1, 0.5), with the "
    "heads left out: what is still half as long as it ought to be?",
    reference=surgery_step,
    cases=SURGERY_STEP.cases,
    mistakes=(
        *(
            Mistake(
                _port(True, mean),
                "Both faults are still there: the heads count in the norms, and the shared "
                "parameters get the mean.",
            )
            for mean in (_reached, _shared_ones)
        ),
        Mistake(
            _with_heads,
            "It is a sum now, but the heads still take part: they count in the norms, and a head "
            "is scaled by a conflict that it has no part in.",
        ),
        *(
            Mistake(wrong, "The heads are out, but the shared parameters still get the mean.")
            for wrong in (_port(False, _reached), _mean_of_projected)
        ),
        Mistake(_port(True, None, heads_scaled=False), _HEADS_IN),
        Mistake(
            _heads_forgotten,
            "The heads end up without gradients: what is cleared between two tasks is the shared "
            "parameters' `.grad`, no more.",
        ),
        Mistake(_earlier_heads_cleared, "Only the last task's head keeps its gradient."),
        Mistake(
            _accumulated,
            "The gradients of earlier tasks are still in `.grad` when the next one is taken.",
        ),
    ),
    notes="The port is Tseng's (2020), named in section 4 of the paper. Worth asking: which of the "
    "two faults does AdamW forgive? (The mean: a constant factor cancels, but not between shared "
    "parameters and heads under decay and epsilon.) 3 points.",
)


EXERCISES = (
    PROJECT,
    PCGRAD,
    PCGRAD_WEIGHTS,
    GRAM_MATRIX,
    CONFLICT_RATE,
    SURGERY_STEP,
    SURGERY,
    MENDED_PORT,
)
