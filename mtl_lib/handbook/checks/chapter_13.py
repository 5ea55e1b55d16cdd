"""Exercises of chapter 13: a fair bench."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from mtl_lib.handbook.checks.framework import Case, Exercise, Mistake, call, draw, tensor
from mtl_lib.handbook.checks.precise import precisely, question


def _gram(*gradients: list[float]) -> Tensor:
    """Inner products of a few short gradients, float64."""
    rows = torch.tensor(gradients, dtype=torch.float64)
    return rows @ rows.T


def _random_gram(tasks: int, seed: int) -> Tensor:
    rows = draw(tasks, 5, seed=seed, dtype=torch.float64)
    return rows @ rows.T


# What is added to a denominator, or kept below it, to be safe from zeros.
_SMALL = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10, 1e-12)
_LENGTHS = (1e-2, 1e-4, 1e-6, 1e-8)


# min_norm_two


def min_norm_two(gram: Tensor) -> Tensor:
    """Weights `[2]` of the shortest vector between two gradients (Sener and Koltun, 2018, eq. 5).

    The multiple-gradient descent of Désidéri (2012) for two tasks; one half each where the
    gradients are equal.
    """
    return _min_norm(_share)(gram)


def _min_norm(share: Callable) -> Callable:
    """A variant: weights (a, 1 - a) with this a; one half each for equal gradients."""

    def variant(gram: Tensor) -> Tensor:
        g11, g12, g22 = gram[0, 0], gram[0, 1], gram[1, 1]
        if g11 + g22 - 2 * g12 == 0:
            return torch.full((2,), 0.5, dtype=gram.dtype)
        a = torch.as_tensor(share(g11, g12, g22), dtype=gram.dtype)
        return torch.stack([a, 1 - a])

    return variant


def _unclipped(g11: Tensor, g12: Tensor, g22: Tensor) -> Tensor:
    return (g22 - g12) / (g11 + g22 - 2 * g12)


def _share(g11: Tensor, g12: Tensor, g22: Tensor) -> Tensor:
    return _unclipped(g11, g12, g22).clamp(0, 1)


def _equal_ones(gram: Tensor, a: float) -> Tensor:
    """Right, but (a, 1 - a) where the gradients are equal."""
    if gram[0, 0] + gram[1, 1] - 2 * gram[0, 1] == 0:
        return torch.tensor([a, 1 - a], dtype=gram.dtype)
    return min_norm_two(gram)


def _with_epsilon(guard: Callable) -> Callable:
    def variant(gram: Tensor) -> Tensor:
        square = gram[0, 0] + gram[1, 1] - 2 * gram[0, 1]
        a = ((gram[1, 1] - gram[0, 1]) / guard(square)).clamp(0, 1)
        return torch.stack([a, 1 - a])

    return variant


def _threshold(small: float) -> Callable:
    def variant(gram: Tensor) -> Tensor:
        if gram[0, 0] + gram[1, 1] - 2 * gram[0, 1] < small:
            return torch.full((2,), 0.5, dtype=gram.dtype)
        return min_norm_two(gram)

    return variant


_MIN_NORM_EPSILON = (
    "A small number in the denominator changes the answer for short gradients; ask whether the "
    "difference is zero instead."
)
_MIN_NORM_GUARDS = (
    *(lambda square, small=small: square + small for small in (*_SMALL, 1e-15, 1e-16)),
    *(lambda square, small=small: square.clamp(min=small) for small in _SMALL),
)
_UNEQUAL = (
    "Equal gradients get unequal weights; where every weighting gives the same step, the task asks "
    "for one half each."
)
_MEETING = _gram([2.0, 0.0], [-1.0, 1.0])


def _ask_lengths(gram: Tensor) -> Callable:
    """The same two gradients at every length."""
    return lambda answer: [tensor(call(answer, length**2 * gram)) for length in _LENGTHS]


def _in_conflict_only(gram: Tensor) -> Tensor:
    """The mean where the two do not conflict."""
    if gram[0, 1] >= 0:
        return torch.full((2,), 0.5, dtype=gram.dtype)
    return min_norm_two(gram)


def _shorter_alone(gram: Tensor) -> Tensor:
    """All the weight on the shorter gradient; one half each where they are equal."""
    if gram[0, 0] + gram[1, 1] - 2 * gram[0, 1] == 0:
        return torch.full((2,), 0.5, dtype=gram.dtype)
    a = float(gram[0, 0] < gram[1, 1])
    return torch.tensor([a, 1 - a], dtype=gram.dtype)


def _clip_each(gram: Tensor) -> Tensor:
    """Each weight clipped from below alone: they no longer sum to 1."""
    return _min_norm(_unclipped)(gram).clamp(min=0)


MIN_NORM_TWO = Exercise(
    name="min_norm_two",
    chapter=13,
    title="the shortest mixture of two gradients",
    section="Weightings",
    difficulty=2,
    importance=4,
    minutes=10,
    task="""
Write `min_norm_two(gram)`: the Gram matrix `[2, 2]` of two tasks' gradients to the weights `[2]` of
multiple-gradient descent (MGDA).

Among all mixtures $a\\, g_1 + (1 - a)\\, g_2$ with $0 \\le a \\le 1$ it takes the shortest. Return
$(a, 1 - a)$. If the two gradients are equal, so are all mixtures: return one half each. It must
hold for gradients of any length, $10^{-8}$ or 0 among them, with no small number added anywhere.
""",
    hint="Write the squared length of the mixture with the three numbers of the Gram matrix. It is "
    "a parabola in a: where is its lowest point, and what if that lies outside of 0 and 1?",
    reference=min_norm_two,
    cases=(
        question("two gradients in conflict", _MEETING),
        question("a right angle, lengths 3 and 1", _gram([3.0, 0.0], [0.0, 1.0])),
        question("they agree, the first is much longer", _gram([4.0, 0.0], [1.0, 1.0])),
        question("they agree, the second is much longer", _gram([1.0, 1.0], [4.0, 0.0])),
        question("they agree, equally long", _gram([2.0, 1.0], [1.0, 2.0])),
        question("five numbers each", _random_gram(2, seed=3)),
        question("opposite directions", _gram([1.0, 0.0], [-3.0, 0.0])),
        question("equal gradients", _gram([2.0, 1.0], [2.0, 1.0])),
        question("the first is zero", _gram([0.0, 0.0], [0.0, 3.0])),
        question("both are zero", torch.zeros(2, 2).double()),
        Case("lengths from 1e-2 to 1e-8", precisely(_ask_lengths(_MEETING))),
    ),
    mistakes=(
        Mistake(
            lambda gram: min_norm_two(gram).flip(0),
            "The weights are exchanged: the *shorter* gradient gets the larger one.",
        ),
        Mistake(
            _min_norm(_unclipped),
            "It is not clipped: where the lowest point of the parabola lies outside of 0 and 1, a "
            "weight is negative, and the step goes against a task.",
        ),
        *(
            Mistake(wrong, "It is clipped on one side only; a has to stay within 0 and 1.")
            for wrong in (
                _min_norm(lambda *g: _unclipped(*g).clamp(min=0)),
                _min_norm(lambda *g: _unclipped(*g).clamp(max=1)),
            )
        ),
        Mistake(
            _clip_each,
            "Each weight is clipped on its own, so that they no longer sum to 1: clip a, then take "
            "1 - a.",
        ),
        Mistake(
            _min_norm(lambda *g: _unclipped(*g).abs().clamp(max=1)),
            "It takes the size of a negative a; the nearest allowed one is 0.",
        ),
        Mistake(
            _min_norm(lambda g11, g12, g22: ((g12 - g22) / (g11 + g22 - 2 * g12)).clamp(0, 1)),
            "The sign of the numerator is wrong, so that the first task hardly ever counts.",
        ),
        Mistake(
            _min_norm(lambda g11, g12, g22: ((g22 - g12) / (g11 + g22 + 2 * g12)).clamp(0, 1)),
            "It divides by the squared length of the sum; it is the difference g1 - g2 that a "
            "walks along.",
        ),
        Mistake(
            _min_norm(lambda g11, g12, g22: ((g22 - g12) / (g11 + g22 - g12)).clamp(0, 1)),
            "The squared length of g1 - g2 holds the inner product twice.",
        ),
        Mistake(
            _min_norm(
                lambda g11, g12, g22: ((g22 - g12) / (g11 + g22 - 2 * g12).sqrt()).clamp(0, 1)
            ),
            "It divides by the length of g1 - g2, not by its square.",
        ),
        *(
            Mistake(
                wrong,
                "It leaves the inner product out, which is right only at a right angle: two "
                "gradients that agree need not be balanced.",
            )
            for wrong in (
                _min_norm(lambda g11, g12, g22: g22 / (g11 + g22)),
                lambda gram: (
                    torch.full((2,), 0.5).double()
                    if not gram.any()
                    else gram.diagonal().flip(0) / gram.trace()
                ),
            )
        ),
        Mistake(
            _min_norm(lambda g11, g12, g22: g22.sqrt() / (g11.sqrt() + g22.sqrt())),
            "It makes both gradients equally long; the shortest mixture needs their squares and "
            "their inner product.",
        ),
        Mistake(
            lambda gram: torch.full((2,), 0.5, dtype=gram.dtype),
            "It gives one half each whatever the gradients are: that is their mean.",
        ),
        Mistake(
            _in_conflict_only,
            "It waits for a conflict, as surgery does; the shortest mixture of two gradients that "
            "agree need not be their mean.",
        ),
        Mistake(
            _shorter_alone,
            "It takes the shorter gradient alone; between the two tips there may be a shorter "
            "mixture still.",
        ),
        Mistake(
            lambda gram: 2 * min_norm_two(gram),
            "The weights sum to 2; asked is a mixture, whose weights sum to 1.",
        ),
        Mistake(
            lambda gram: min_norm_two(gram)[0],
            "It returns a alone; asked are both weights.",
        ),
        Mistake(
            _with_epsilon(lambda square: square),
            "For equal gradients it divides zero by zero.",
        ),
        *(Mistake(lambda gram, a=a: _equal_ones(gram, a), _UNEQUAL) for a in (0.0, 1.0)),
        *(Mistake(_with_epsilon(guard), _MIN_NORM_EPSILON) for guard in _MIN_NORM_GUARDS),
        *(
            Mistake(
                _threshold(small),
                "It takes short gradients for equal ones: what is small depends on the unit. Ask "
                "whether the difference is zero.",
            )
            for small in _SMALL
        ),
    ),
    notes="Forgetting to clip is the usual fault: nothing fails, and the mixture takes the longer "
    "gradient with a negative weight. Many are surprised that the shorter gradient gets the larger "
    "weight. 2 points.",
)


# gradvac_two


def gradvac_two(gram: Tensor, target: float) -> Tensor:
    """Coefficients `[2]` of the changed g_1 (GradVac; Wang et al., 2021, equations 4 and 5)."""
    return _vaccine(_below, _exact)(gram, target)


def _vaccine(where: Callable, amount: Callable) -> Callable:
    """A variant: `amount` of g_2 is added where `where` holds; nothing for a gradient of zero."""

    def variant(gram: Tensor, target: float) -> Tensor:
        lengths = gram.diagonal().sqrt()
        added = torch.zeros((), dtype=gram.dtype)
        if lengths.min() > 0:
            cosine = (gram[0, 1] / lengths.prod()).clamp(-1, 1)
            if where(cosine, target):
                added = amount(cosine, target, *lengths)
        return torch.stack([torch.ones_like(added), added])

    return variant


def _below(cosine: Tensor, target: float) -> bool:
    return bool(cosine < target)


def _sine(cosine: Tensor | float) -> Tensor:
    return (1 - torch.as_tensor(cosine, dtype=torch.float64) ** 2).sqrt()


def _exact(cosine: Tensor, target: float, own: Tensor, other: Tensor) -> Tensor:
    return own * (target * _sine(cosine) - cosine * _sine(target)) / (other * _sine(target))


def _unlimited(gram: Tensor, target: float) -> Tensor:
    """Right, but with a zero gradient's cosine divided zero by zero."""
    lengths = gram.diagonal().sqrt()
    cosine = gram[0, 1] / lengths.prod()
    added = torch.where(cosine >= target, 0.0, _exact(cosine, target, *lengths))
    return torch.stack([torch.ones_like(added), added])


def _by_inner_product(gram: Tensor, target: float) -> Tensor:
    """The inner product held against the target in place of the cosine."""
    lengths = gram.diagonal().sqrt()
    added = torch.zeros((), dtype=gram.dtype)
    if lengths.min() > 0 and gram[0, 1] < target:
        added = _exact((gram[0, 1] / lengths.prod()).clamp(-1, 1), target, *lengths)
    return torch.stack([torch.ones_like(added), added])


def _squares_for_lengths(gram: Tensor, target: float) -> Tensor:
    """The diagonal of the Gram matrix taken for the lengths."""
    squares = gram.diagonal()
    added = torch.zeros((), dtype=gram.dtype)
    if squares.min() > 0 and (cosine := gram[0, 1] / squares.prod()) < target:
        added = _exact(cosine, target, *squares)
    return torch.stack([torch.ones_like(added), added])


def _exchanged(gram: Tensor, target: float) -> Tensor:
    """The change of g_2 against g_1."""
    return gradvac_two(gram.flip(0, 1), target).flip(0)


_CONFLICTING = _gram([3.0, 1.0], [-1.0, 2.0])
_AGREEING = _gram([2.0, 1.0], [1.0, 3.0])  # cosine .71


def _ask_vaccine_lengths(answer: Callable) -> list[Tensor]:
    return [
        tensor(call(answer, length**2 * _CONFLICTING, target))
        for length in _LENGTHS
        for target in (0.0, 0.3)
    ]


GRADVAC_TWO = Exercise(
    name="gradvac_two",
    chapter=13,
    title="surgery with another aim",
    difficulty=4,
    importance=3,
    minutes=20,
    task="""
Write `gradvac_two(gram, target)`: the Gram matrix `[2, 2]` of $g_1$ and $g_2$ and a cosine between
-1 and 1 (both excluded), to coefficients `[2]`.

Where the cosine of the two lies below the target, add that multiple of $g_2$ to $g_1$ which makes
the cosine between the result and $g_2$ *equal* to the target. Return $(1, c)$ for
$g_1' = g_1 + c\\, g_2$. Where the cosine reaches the target already, and where a gradient is zero,
$g_1$ stays as it is: $(1, 0)$. It must hold for gradients of any length.
""",
    hint="Measure $g_1$ along $g_2$ and at a right angle to it. Adding a multiple of $g_2$ changes "
    "the first part only. With $\\phi$ the cosine, the second has the length "
    "$||g_1|| \\sqrt{1 - \\phi^2}$: how long does the first have to be, for the cosine to be the "
    "target?",
    reference=gradvac_two,
    cases=(
        question("in conflict, target 0.3", _CONFLICTING, 0.3),
        question("in conflict, target 0", _CONFLICTING, 0.0),
        question("roles exchanged, target 0.3", _CONFLICTING.flip(0, 1), 0.3),
        question("they agree, target 0.8", _AGREEING, 0.8),
        question("they agree, target 0.3", _AGREEING, 0.3),
        question("in conflict, target -0.5", _CONFLICTING, -0.5),
        question("a stronger conflict, target -0.5", _gram([3.0, 1.0], [-2.0, 1.0]), -0.5),
        question("a right angle, target 0.6", _gram([3.0, 0.0], [0.0, 0.5]), 0.6),
        question("opposite directions, target 0.3", _gram([1.0, 0.0], [-2.0, 0.0]), 0.3),
        question("g_1 is zero", _gram([0.0, 0.0], [1.0, 2.0]), 0.3),
        question("g_2 is zero", _gram([1.0, 2.0], [0.0, 0.0]), 0.3),
        Case("lengths from 1e-2 to 1e-8", precisely(_ask_vaccine_lengths)),
    ),
    mistakes=(
        Mistake(
            lambda gram, target: torch.tensor([1.0, 0.0]).double(),
            "It changes nothing, also where the cosine lies below the target.",
        ),
        Mistake(
            _vaccine(lambda cosine, target: True, _exact),
            "It changes g_1 always; where the cosine lies above the target, that *lowers* it.",
        ),
        Mistake(
            _vaccine(lambda cosine, target: cosine > target, _exact),
            "It changes g_1 where the cosine lies above the target and not where it lies below.",
        ),
        Mistake(
            _vaccine(lambda cosine, target: cosine < 0, _exact),
            "It waits for a conflict, as surgery does; asked is a cosine below the *target*.",
        ),
        Mistake(
            _vaccine(lambda cosine, target: cosine < max(0.0, target), _exact),
            "It changes every conflict, also one whose cosine lies above a negative target.",
        ),
        *(
            Mistake(
                _vaccine(where, lambda cosine, target, own, other: -cosine * own / other),
                "This is surgery: the cosine becomes 0, whatever the target.",
            )
            for where in (_below, lambda cosine, target: cosine < 0)
        ),
        Mistake(
            _vaccine(_below, lambda cosine, target, own, other: (target - cosine) * own / other),
            "It sets the inner product to what the target would need at the old length; but adding "
            "g_2 changes the length of g_1, too.",
        ),
        Mistake(
            _vaccine(
                _below,
                lambda cosine, target, own, other: _exact(cosine, target, other, own),
            ),
            "The ratio of the lengths is upside down: the shorter g_2 is, the more of it is "
            "needed.",
        ),
        Mistake(
            _vaccine(_below, lambda cosine, target, own, other: _exact(cosine, target, 1, 1)),
            "It forgets the lengths: the amount is right only for gradients of one length.",
        ),
        Mistake(
            _vaccine(
                _below, lambda cosine, target, own, other: _exact(cosine, target, own, other**2)
            ),
            "It divides by the square of the length of g_2; here the length itself is needed.",
        ),
        Mistake(
            _vaccine(_below, lambda cosine, target, own, other: _exact(cosine, target, own, 1)),
            "The length of g_2 is missing from the denominator.",
        ),
        Mistake(
            _vaccine(
                _below,
                lambda cosine, target, own, other: (
                    own / other * (target * _sine(cosine) - cosine * _sine(target))
                ),
            ),
            "The division by sqrt(1 - target^2) is missing.",
        ),
        Mistake(
            _vaccine(
                _below,
                lambda cosine, target, own, other: (
                    own / other * (target * _sine(cosine) - cosine * _sine(target)) / _sine(cosine)
                    if _sine(cosine) > 0
                    else torch.zeros(()).double()
                ),
            ),
            "It divides by the sine of the old angle; the target's belongs there.",
        ),
        Mistake(
            _vaccine(
                _below,
                lambda cosine, target, own, other: (
                    own / other * (target * _sine(target) - cosine * _sine(cosine)) / _sine(target)
                ),
            ),
            "The two square roots are exchanged: each cosine meets the *other* angle's.",
        ),
        Mistake(
            _vaccine(
                _below,
                lambda cosine, target, own, other: (
                    own
                    / other
                    * (target * _sine(cosine) ** 2 - cosine * _sine(target) ** 2)
                    / _sine(target) ** 2
                ),
            ),
            "The square roots over 1 minus a squared cosine are missing.",
        ),
        Mistake(
            _vaccine(
                _below,
                lambda cosine, target, own, other: (
                    own
                    * (target * _sine(cosine) + cosine * _sine(target))
                    / (other * _sine(target))
                ),
            ),
            "The sign between the two terms is wrong: what already lies along g_2 has to be taken "
            "off first.",
        ),
        Mistake(
            _vaccine(
                _below, lambda cosine, target, own, other: -_exact(cosine, target, own, other)
            ),
            "It subtracts where it has to add: the cosine falls.",
        ),
        Mistake(
            _by_inner_product,
            "It holds the inner product against the target; the target is a *cosine*.",
        ),
        Mistake(
            _squares_for_lengths,
            "The diagonal of the Gram matrix holds *squared* lengths: a root is missing.",
        ),
        Mistake(
            _vaccine(
                _below,
                lambda cosine, target, own, other: (
                    own / other * target * _sine(cosine) / _sine(target)
                ),
            ),
            "That is how long the part along g_2 has to become; what g_1 has there already has to "
            "be taken off.",
        ),
        Mistake(_exchanged, "The roles are exchanged: it changes g_2; asked is the change of g_1."),
        Mistake(
            lambda gram, target: gradvac_two(gram, target)[1],
            "It returns c alone; asked are both coefficients, (1, c).",
        ),
        Mistake(
            lambda gram, target: gradvac_two(gram, target).flip(0),
            "The coefficients stand in the wrong order: that of g_1, which is 1, comes first.",
        ),
        Mistake(
            _unlimited,
            "Where a gradient is zero it divides zero by zero; then g_1 stays as it is.",
        ),
    ),
    notes="Worth deriving on the board. The shortcut (target - cosine) is the popular wrong "
    "answer: it forgets that the changed gradient has another length. Target 0 gives surgery. "
    "3 points.",
)


# cagrad_value


def cagrad_value(weights: Tensor, gram: Tensor, c: float) -> Tensor:
    """What CAGrad's weights make as small as possible (Liu et al., 2021, Algorithm 1): a number."""
    return _dual(_first_term, _second_term)(weights, gram, c)


def _dual(first: Callable, second: Callable) -> Callable:
    """A variant: the sum of two terms of <g_w, g_0>, |g_0|, |g_w| and c."""

    def variant(weights: Tensor, gram: Tensor, c: float) -> Tensor:
        tasks = len(gram)
        mean = torch.full((tasks,), 1 / tasks, dtype=gram.dtype)
        return _terms(weights, mean, gram, c, first, second)

    return variant


def _terms(
    weights: Tensor, mean: Tensor, gram: Tensor, c: float, first: Callable, second: Callable
) -> Tensor:
    inner = weights @ gram @ mean
    g_0, g_w = ((w @ gram @ w).clamp(min=0).sqrt() for w in (mean, weights))
    return first(inner) + second(c, g_0, g_w)


def _first_term(inner: Tensor) -> Tensor:
    return inner


def _second_term(c: float, g_0: Tensor, g_w: Tensor) -> Tensor:
    return c * g_0 * g_w


def _of_sums(weights: Tensor, gram: Tensor, c: float) -> Tensor:
    ones = torch.ones(len(gram), dtype=gram.dtype)
    return _terms(weights, ones, gram, c, _first_term, _second_term)


def _norms(weights: Tensor, gram: Tensor) -> Tensor:
    mean = torch.full((len(gram),), 1 / len(gram), dtype=gram.dtype)
    return torch.stack([(w @ gram @ w).clamp(min=0).sqrt() for w in (mean, weights)])


def _averaged_twice(weights: Tensor, gram: Tensor, c: float) -> Tensor:
    return cagrad_value(weights / len(gram), gram, c)


def _with_small(number: float) -> Callable:
    """A variant: a small number under both roots."""

    def variant(weights: Tensor, gram: Tensor, c: float) -> Tensor:
        g_0, g_w = (_norms(weights, gram) ** 2 + number).sqrt()
        return weights @ gram.mean(dim=1) + c * g_0 * g_w

    return variant


def _rows_as_gradients(weights: Tensor, gram: Tensor, c: float) -> Tensor:
    return cagrad_value(weights, gram @ gram.T, c)


_THREE = _random_gram(3, seed=5)
_PART = torch.tensor([0.2, 0.5, 0.3]).double()
_TWO = _gram([3.0, 1.0], [-1.0, 2.0])

CAGRAD_VALUE = Exercise(
    name="cagrad_value",
    chapter=13,
    title="what CAGrad minimises",
    difficulty=3,
    importance=3,
    minutes=15,
    task="""
Write `cagrad_value(weights, gram, c)`: weights `[T]` that sum to 1, the Gram matrix `[T, T]` and
the radius $c \\ge 0$, to one number.

With $g_0$ the *mean* of the gradients and $g_w = \\sum_i w_i\\, g_i$, return

$$g_w \\cdot g_0 + c\\, ||g_0||\\, ||g_w||.$$

The gradients themselves are not given, and not needed; add no small number under a root. Before you
write: which weights give the plain mean, and what is the value there?
""",
    hint="The mean is a mixture too: which weights has it? The inner product of two mixtures is a "
    "row of weights times the Gram matrix times a column of weights.",
    reference=cagrad_value,
    cases=(
        question("two tasks", torch.tensor([0.7, 0.3]).double(), _TWO, 0.5),
        question("three tasks", _PART, _THREE, 0.4),
        question("three tasks, a wide radius", _PART, _THREE, 2.0),
        question("c is 0", _PART, _THREE, 0.0),
        question("all the weight on one task", torch.tensor([0.0, 0.0, 1.0]).double(), _THREE, 0.4),
        question("one task", torch.ones(1).double(), torch.tensor([[4.0]]).double(), 0.5),
        question(
            "opposite gradients, the mixture is zero",
            torch.tensor([0.75, 0.25]).double(),
            _gram([1.0, 0.0], [-3.0, 0.0]),
            0.5,
        ),
    ),
    mistakes=(
        Mistake(_of_sums, "g_0 is the sum of the gradients; asked is their mean."),
        *(
            Mistake(
                _with_small(number),
                "A small number under a root is no part of the formula: where a mixture is zero, "
                "so is its length. (`clamp(min=0)` is enough against rounding.)",
            )
            for number in (1e-6, 1e-8, 1e-10)
        ),
        *(
            Mistake(wrong, "g_0 is the sum in one of the two terms; it is the mean in both.")
            for wrong in (
                lambda w, gram, c: w @ gram.sum(dim=1) + c * _norms(w, gram).prod(),
                lambda w, gram, c: w @ gram.mean(dim=1) + len(gram) * c * _norms(w, gram).prod(),
            )
        ),
        Mistake(
            _averaged_twice,
            "g_w is divided by the number of tasks; the weights sum to 1 already.",
        ),
        Mistake(
            _dual(_first_term, lambda c, g_0, g_w: c * g_0**2 * g_w**2),
            "The lengths are squared: g @ g is the square of a length.",
        ),
        Mistake(
            _dual(_first_term, lambda c, g_0, g_w: c * g_0 * g_w**2),
            "The length of g_w is squared.",
        ),
        Mistake(
            _dual(_first_term, lambda c, g_0, g_w: c * g_0**2 * g_w),
            "The length of g_0 is squared.",
        ),
        Mistake(
            _dual(_first_term, lambda c, g_0, g_w: c**2 * g_0**2 * g_w),
            "The second term holds (c |g_0|)^2; its root is missing.",
        ),
        Mistake(
            _dual(_first_term, lambda c, g_0, g_w: c**2 * g_0 * g_w),
            "It squares c.",
        ),
        Mistake(
            _dual(_first_term, lambda c, g_0, g_w: c**0.5 * g_0 * g_w),
            "It takes the root of c.",
        ),
        Mistake(
            _dual(_first_term, lambda c, g_0, g_w: c * g_w),
            "The length of g_0 is missing from the second term: the radius is a share of it.",
        ),
        Mistake(
            _dual(_first_term, lambda c, g_0, g_w: c * g_0),
            "The length of g_w is missing from the second term.",
        ),
        Mistake(
            _dual(_first_term, lambda c, g_0, g_w: -c * g_0 * g_w),
            "The second term has the wrong sign: it would reward long mixtures.",
        ),
        Mistake(
            _dual(_first_term, lambda c, g_0, g_w: 0 * g_w),
            "The second term is missing.",
        ),
        Mistake(
            _dual(lambda inner: 0 * inner, _second_term),
            "The first term, the inner product, is missing.",
        ),
        Mistake(
            _dual(lambda inner: -inner, _second_term),
            "The first term has the wrong sign.",
        ),
        Mistake(
            lambda weights, gram, c: (
                weights @ gram.mean(dim=1)
                + c * gram.mean().clamp(min=0).sqrt() * (weights @ gram.diagonal().sqrt())
            ),
            "The length of g_w is taken as the weighted mean of the gradients' lengths; a mixture "
            "of arrows that point apart is shorter.",
        ),
        Mistake(
            _rows_as_gradients,
            "It takes the rows of the Gram matrix for the gradients: a squared length is "
            "w @ G @ w, with one G between.",
        ),
        Mistake(
            lambda weights, gram, c: (
                weights * gram.mean(dim=1) + c * _norms(weights, gram).prod() / len(gram)
            ),
            "It gives a number for each task; asked is their sum.",
        ),
    ),
    notes="The paper writes the second factor as the root of phi = c^2 |g_0|^2, which invites "
    "squares in the wrong places. The sum in place of the mean is the usual fault. 2 points.",
)


# dominated


def dominated(points: np.ndarray) -> np.ndarray:
    """Which rows another row dominates: `[n, T]` scores, higher is better, to `[n]` of bool."""
    return _beaten(lambda mine, others: (others >= mine).all(1) & (others > mine).any(1))(points)


def _beaten(by: Callable) -> Callable:
    """A variant: whether any of all points does this to each."""

    def variant(points: np.ndarray) -> np.ndarray:
        points = np.asarray(points)
        return np.array([bool(by(mine, points).any()) for mine in points])

    return variant


def _by_another(points: np.ndarray) -> np.ndarray:
    """At least as good everywhere counts, but not against itself."""
    points = np.asarray(points)
    return np.array(
        [bool((np.delete(points, i, axis=0) >= mine).all(1).any()) for i, mine in enumerate(points)]
    )


def _by_different_rows(points: np.ndarray) -> np.ndarray:
    """As good everywhere by one other row, better somewhere by any."""
    points = np.asarray(points)
    return _by_another(points) & (points < points.max(axis=0)).any(axis=1)


def _by_earlier(points: np.ndarray) -> np.ndarray:
    return np.array([bool(dominated(points[: i + 1])[i]) for i in range(len(points))])


_TABLE = np.array(
    [
        [0.70, 0.50, 0.40],
        [0.60, 0.55, 0.35],
        [0.65, 0.45, 0.40],
        [0.72, 0.40, 0.30],
        [0.60, 0.55, 0.35],
        [0.70, 0.50, 0.38],
    ]
)
_PLANE = np.array(
    [[1.0, 5.0], [2.0, 4.0], [2.0, 3.0], [4.0, 2.0], [3.0, 2.0], [3.5, 1.0], [5.0, 0]]
)

DOMINATED = Exercise(
    name="dominated",
    chapter=13,
    title="who can be left out",
    difficulty=2,
    importance=4,
    minutes=10,
    task="""
Write `dominated(points)`: scores `[n, T]`, a method a row, a task a column, higher is better, to
`[n]` of True and False.

A row is dominated if some other row is at least as good in *every* task and better in *at least
one*. Two equal rows do not dominate each other.
""",
    hint="Two conditions have to hold for the *same* other row. Which of them does a row fail when "
    "it is held against itself, or against its equal?",
    reference=dominated,
    cases=(
        question("seven methods, two tasks", _PLANE),
        question("six methods, three tasks", _TABLE),
        question("equal rows", np.array([[1.0, 2.0], [1.0, 2.0], [0.0, 2.0]])),
        question("a tie in one task", np.array([[1.0, 2.0], [1.0, 3.0]])),
        question("one method", np.array([[0.5, 0.2]])),
        question("one task", np.array([[1.0], [3.0], [2.0], [3.0]])),
        question("a trade-off, nobody", np.array([[1.0, 3.0], [2.0, 2.0], [3.0, 1.0]])),
        question("negative scores", _PLANE - 10),
        question("the rows in reverse", _TABLE[::-1].copy()),
        question("a lead of a millionth", np.array([[0.7, 0.5], [0.7 + 1e-6, 0.5]])),
    ),
    mistakes=(
        Mistake(
            _beaten(lambda mine, others: (others > mine).all(1)),
            "It asks for better in every task; at least as good in all and better in one is "
            "enough.",
        ),
        Mistake(
            _beaten(lambda mine, others: (others >= mine).all(1)),
            "Every row is dominated, by itself: equal rows do not dominate each other.",
        ),
        Mistake(
            _by_another,
            "Equal rows dominate each other and both are lost; one task has to be *better*.",
        ),
        Mistake(
            _beaten(lambda mine, others: (others > mine).any(1)),
            "A row goes as soon as others are better here or there; one and the same row has to be "
            "at least as good in *every* task.",
        ),
        Mistake(
            _beaten(
                lambda mine, others: (
                    (others >= mine).all(1) & ~np.isclose(others, mine, rtol=1e-5).all(1)
                )
            ),
            "A small lead counts as none: two rows are equal only where all their scores are.",
        ),
        Mistake(
            lambda points: dominated(-np.asarray(points)),
            "These are the rows that dominate another one: lower scores count as better, or the "
            "two sides of the comparison are exchanged.",
        ),
        Mistake(
            lambda points: ~dominated(points),
            "True and False are exchanged: these are the rows that are *not* dominated.",
        ),
        Mistake(
            lambda points: np.flatnonzero(dominated(points)),
            "It gives the numbers of the dominated rows; asked is True or False for each row.",
        ),
        Mistake(
            lambda points: np.asarray(points)[~dominated(points)],
            "It gives the rows that are left; asked is True or False for each row.",
        ),
        Mistake(
            _beaten(lambda mine, others: others.mean(1) > mine.mean()),
            "It compares means; a row with a lower mean may be the best in some task.",
        ),
        Mistake(
            lambda points: (points < points.max(axis=0)).all(1),
            "It keeps only rows that are best in some task; a good compromise is best in none, and "
            "need not be dominated.",
        ),
        Mistake(
            _by_different_rows,
            "The two conditions are met by *different* rows; it has to be one row that is as good "
            "everywhere and better somewhere.",
        ),
        Mistake(
            lambda points: dominated(points).astype(int),
            "The rows are the right ones, but marked by 1 and 0; asked is True and False.",
        ),
        Mistake(
            _by_earlier,
            "It looks at the rows above only; a row further down may dominate as well.",
        ),
    ),
    notes="Ties are the point: with `>` throughout nobody is dominated who ties once, with `>=` "
    "equal methods remove each other. 1 point.",
)


# choose_rate

Scores = dict[str, np.ndarray]
Choice = dict[str, tuple[int, float]]


def choose_rate(scores: Scores, choosing: int) -> Choice:
    """Each method's best rate on the first seeds, and its mean score on the others."""
    return _choice(_by_mean, _on_others)(scores, choosing)


def _choice(choose: Callable, report: Callable) -> Callable:
    """A variant: `choose` gives the rate's number, `report` the score of that rate."""

    def variant(scores: Scores, choosing: int) -> Choice:
        chosen = {name: int(choose(table, choosing)) for name, table in scores.items()}
        return {name: (rate, float(report(scores[name][rate], choosing)))
                for name, rate in chosen.items()}  # fmt: skip

    return variant


def _by_mean(table: np.ndarray, choosing: int) -> int:
    return table[:, :choosing].mean(axis=1).argmax()


def _by_best_run(table: np.ndarray, choosing: int) -> int:
    return table[:, :choosing].max(axis=1).argmax()


def _by_all(table: np.ndarray, choosing: int) -> int:
    return table.mean(axis=1).argmax()


def _by_reported(table: np.ndarray, choosing: int) -> int:
    return table[:, choosing:].mean(axis=1).argmax()


def _on_others(row: np.ndarray, choosing: int) -> float:
    return row[choosing:].mean()


def _on_all(row: np.ndarray, choosing: int) -> float:
    return row.mean()


def _on_choosing(row: np.ndarray, choosing: int) -> float:
    return row[:choosing].mean()


def _one_for_all(of: Callable) -> Callable:
    """A variant: one rate for all methods, the best of what `of` makes of all methods' means.

    Where one has fewer rates than another this raises an error, as it does for readers.
    """

    def variant(scores: Scores, choosing: int) -> Choice:
        rate = int(of([table[:, :choosing].mean(axis=1) for table in scores.values()]).argmax())
        return {
            name: (rate, float(_on_others(table[rate], choosing))) for name, table in scores.items()
        }

    return variant


def _report(of: Callable) -> Callable:
    """A variant: the rate is chosen rightly, the score computed from the whole table."""

    def variant(scores: Scores, choosing: int) -> Choice:
        return {
            name: (rate, float(of(scores[name], choosing, rate)))
            for name, (rate, _) in choose_rate(scores, choosing).items()
        }

    return variant


def _bench(rates: int, seeds: int, seed: int) -> Scores:
    random = np.random.default_rng(seed)
    level = {"sum": 0.6, "surgery": 0.62, "mgda": 0.55}
    return {
        name: (base + 0.05 * random.normal(size=(rates, seeds))).round(3)
        for name, base in level.items()
    }


_SCORES = _bench(4, 5, seed=4)

CHOOSE_RATE = Exercise(
    name="choose_rate",
    chapter=13,
    title="a rate for each, and a score that nobody chose",
    difficulty=2,
    importance=5,
    minutes=15,
    task="""
Write `choose_rate(scores, choosing)`: `scores[method]` is an array `[R, S]`, the scores of R
learning rates with S seeds, higher is better. The first `choosing` seeds choose, the others report.

Each method takes the rate with the highest *mean* over its choosing seeds; of equal ones the first.
Return a dict: for each method the pair of the rate's number, from 0, and its mean over the
reporting seeds. R may differ from method to method.
""",
    hint="Cut each table in two before you do anything else. Which half may `argmax` see, and "
    "which half may stand in the result?",
    reference=choose_rate,
    cases=(
        question("three methods, four rates, five seeds", _SCORES, 2),
        question("three choose, two report", _SCORES, 3),
        question("one chooses", _SCORES, 1),
        question("two rates, three seeds", _bench(2, 3, seed=8), 1),
        question("negative scores", {name: s - 1 for name, s in _bench(3, 6, seed=9).items()}, 3),
        question(
            "equal rates, the first",
            {"sum": np.array([[0.5, 0.5, 0.1], [0.5, 0.5, 0.9], [0.4, 0.4, 0.95]])},
            2,
        ),
        question(
            "one method with fewer rates",
            {"sum": _bench(5, 4, seed=2)["sum"], "mgda": _bench(2, 4, seed=6)["mgda"]},
            2,
        ),
    ),
    mistakes=(
        Mistake(
            _choice(_by_reported, _on_others),
            "It chooses on the seeds that it reports: the winner's luck is in the score.",
        ),
        Mistake(
            _choice(_by_reported, _on_choosing),
            "The two halves are exchanged: the first seeds choose, the others report.",
        ),
        Mistake(
            _choice(_by_all, _on_others),
            "The reporting seeds take part in the choice.",
        ),
        Mistake(
            _choice(_by_all, _on_all),
            "It chooses and reports on all seeds: the winner's luck is in the score.",
        ),
        Mistake(
            _choice(_by_mean, _on_all),
            "The choosing seeds are in the reported score as well.",
        ),
        Mistake(
            _choice(_by_mean, _on_choosing),
            "It reports the seeds that have chosen: the winner's luck is in the score.",
        ),
        Mistake(
            _report(lambda table, choosing, rate: table[:, choosing:].max(axis=0).mean()),
            "Every reporting seed gets the rate that is best for it; the rate was to be chosen "
            "before.",
        ),
        Mistake(
            _report(lambda table, choosing, rate: table[:, choosing:].mean(axis=1).max()),
            "It reports the best rate of the reporting seeds, not the one that was chosen.",
        ),
        Mistake(
            _choice(_by_mean, lambda row, choosing: row[choosing:].max()),
            "It reports the best of the reporting seeds; asked is their mean.",
        ),
        Mistake(
            _choice(_by_mean, lambda row, choosing: np.median(row[choosing:])),
            "It reports the median of the reporting seeds; asked is their mean.",
        ),
        Mistake(
            _choice(_by_mean, lambda row, choosing: row[choosing]),
            "It reports one seed; asked is the mean over all that have not chosen.",
        ),
        *(
            Mistake(
                _one_for_all(of),
                "One rate is chosen for all methods; each is to have its own best, or whoever "
                "likes that rate wins.",
            )
            for of in (
                lambda means: np.mean(means, axis=0),
                lambda means: np.max(means, axis=0),
                lambda means: means[0],
            )
        ),
        Mistake(
            _choice(_by_best_run, _on_others),
            "The rate with the best single run wins; asked is the best mean over the choosing "
            "seeds.",
        ),
        Mistake(
            _choice(lambda table, choosing: table[:, 0].argmax(), _on_others),
            "Only the first seed chooses.",
        ),
        Mistake(
            _choice(
                lambda table, choosing: np.median(table[:, :choosing], axis=1).argmax(), _on_others
            ),
            "It chooses by the median over the choosing seeds; asked is their mean.",
        ),
        Mistake(
            _choice(lambda table, choosing: table[:, :choosing].mean(axis=1).argmin(), _on_others),
            "It takes the rate with the lowest mean; higher is better.",
        ),
        Mistake(
            _choice(
                lambda table, choosing: (
                    len(table) - 1 - table[::-1, :choosing].mean(axis=1).argmax()
                ),
                _on_others,
            ),
            "Of equal rates it takes the last; asked is the first.",
        ),
        Mistake(
            lambda scores, choosing: {
                name: score for name, (_, score) in choose_rate(scores, choosing).items()
            },
            "The rate's number is missing: a pair for each method.",
        ),
        Mistake(
            lambda scores, choosing: {
                name: (score, rate) for name, (rate, score) in choose_rate(scores, choosing).items()
            },
            "The pair stands the wrong way round: the rate's number first, then the score.",
        ),
        Mistake(
            lambda scores, choosing: {
                name: (rate + 1, score)
                for name, (rate, score) in choose_rate(scores, choosing).items()
            },
            "It counts the rates from 1; asked is from 0.",
        ),
    ),
    notes="Choosing on all seeds looks harmless, since the same is done to every method. It is "
    "not: who has more rates or noisier runs gains more by it. 3 points.",
)


# relative_improvement


def relative_improvement(scores: np.ndarray, base: np.ndarray, lower: np.ndarray) -> float:
    """Delta_m (Maninis et al., 2019, equation 4): the mean signed relative change, a fraction."""
    return float(_changes(scores, base, lower).mean())


def _changes(scores: np.ndarray, base: np.ndarray, lower: np.ndarray) -> np.ndarray:
    return np.where(lower, -1, 1) * (np.asarray(scores) - base) / base  # [T]


def _improvement(change: Callable, over: Callable = np.mean) -> Callable:
    """A variant: `over` of the tasks' changes, each from score, base and its sign."""

    def variant(scores: np.ndarray, base: np.ndarray, lower: np.ndarray) -> float:
        return float(over(change(scores, base, np.where(lower, -1, 1))))

    return variant


_MEASURES = (
    np.array([0.50, 0.62, 0.90]),
    np.array([0.48, 0.65, 1.00]),
    np.array([False, False, True]),
)
_HIGHER = np.array([False, False, False])

RELATIVE_IMPROVEMENT = Exercise(
    name="relative_improvement",
    chapter=13,
    title="one number for all tasks",
    difficulty=1,
    importance=3,
    minutes=5,
    task="""
Write `relative_improvement(scores, base, lower)`: a method's measures `[T]`, the baseline's `[T]`,
all positive, and for each task whether lower is better (`[T]` of True and False, as for an error).

Return $\\Delta_m$, the mean over tasks of $\\pm (M_t - B_t) / B_t$, with a minus where lower is
better: a fraction, 0.02 for two per cent.
""",
    hint="A task after the other: the change, as a share of the baseline, with the sign that makes "
    "better positive. The mean comes last.",
    reference=relative_improvement,
    cases=(
        question("three tasks, one an error", *_MEASURES),
        question("higher is better in all", *_MEASURES[:2], _HIGHER),
        question("lower is better in all", *_MEASURES[:2], ~_HIGHER),
        question("large differences", np.array([2.0, 0.3]), np.array([0.5, 3.0]), _HIGHER[:2]),
        question("no change", _MEASURES[1].copy(), *_MEASURES[1:]),
        question("one task", np.array([0.3]), np.array([0.4]), np.array([True])),
    ),
    mistakes=(
        Mistake(
            _improvement(lambda m, b, sign: (m - b) / b),
            "The sign is not turned where lower is better: a smaller error counts as a loss.",
        ),
        Mistake(
            _improvement(lambda m, b, sign: -(m - b) / b),
            "Every task has the minus. (`-1 ** lower` is `-(1 ** lower)`: write brackets.)",
        ),
        Mistake(
            _improvement(lambda m, b, sign: -sign * (m - b) / b),
            "The sign is turned in the wrong tasks: it is the tasks where lower is better.",
        ),
        Mistake(
            _improvement(lambda m, b, sign: sign * (m - b) / m),
            "It divides by the method's own score; the change is a share of the *baseline's*.",
        ),
        Mistake(
            _improvement(lambda m, b, sign: sign * (m - b)),
            "It does not divide by the baseline: a point counts alike on every scale.",
        ),
        Mistake(
            _improvement(lambda m, b, sign: np.abs(m - b) / b),
            "It takes the size of each change, so that losses count as gains.",
        ),
        Mistake(
            _improvement(lambda m, b, sign: 100 * sign * (m - b) / b),
            "It gives per cent; asked is a fraction.",
        ),
        Mistake(
            _improvement(lambda m, b, sign: sign * (m - b) / b, np.sum),
            "It gives the sum over tasks; asked is the mean.",
        ),
        Mistake(
            _improvement(lambda m, b, sign: sign * (m - b) / b, np.median),
            "It gives the median over tasks; asked is the mean.",
        ),
        Mistake(
            _improvement(lambda m, b, sign: sign * (m - b) / b, np.min),
            "It gives the worst task's change; asked is the mean.",
        ),
        Mistake(
            _improvement(lambda m, b, sign: (sign * (m - b)).sum() / b.sum()),
            "It averages first and divides then; the tasks with large numbers drown the others.",
        ),
        Mistake(
            _improvement(lambda m, b, sign: (m / b) ** sign - 1),
            "Where lower is better it turns the ratio upside down; asked is the change as a share "
            "of the baseline, with a minus.",
        ),
        Mistake(
            _improvement(lambda m, b, sign: 1 + sign * (m - b) / b),
            "It is too large by 1: equal to the baseline is 0.",
        ),
        Mistake(
            _changes,
            "It gives a number for each task; asked is their mean.",
        ),
    ),
    notes="Easy to write, easy to be misled by: one number can be positive while a task collapses. "
    "Ask for the worst task's change beside it. 1 point.",
)


EXERCISES = (
    MIN_NORM_TWO,
    GRADVAC_TWO,
    CAGRAD_VALUE,
    DOMINATED,
    CHOOSE_RATE,
    RELATIVE_IMPROVEMENT,
)
