"""Exercises of chapter 11: reading a paper forensically.

Shapes: K labels, M printed numbers, S seeds, E epochs.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from mtl_lib.handbook.checks.framework import Case, Exercise, Mistake, refusal
from mtl_lib.handbook.checks.precise import precisely, question
from mtl_lib.study import paper

Numbers = np.ndarray


# possible_counts


def possible_counts(accuracy: float, size: int, digits: int = 3) -> list[int]:
    """The whole numbers of right answers, of `size`, that print as this accuracy, ascending.

    Within half a unit of the last digit, both ends included; counted in whole numbers, so that no
    rounding of floats decides an end.

    Source: Brown and Heathers (2017), The GRIM test.
    """
    units, scale = round(accuracy * 10**digits), 2 * 10**digits
    low = -((1 - 2 * units) * size // scale)  # rounded up
    high = (2 * units + 1) * size // scale
    return list(range(max(low, 0), min(high, size) + 1))


def _counts_by(fits: Callable[[int, float, int, int], bool]) -> Callable:
    """A variant: every k from 0 to `size` that fits."""

    def variant(accuracy: float, size: int, digits: int = 3) -> list[int]:
        return [k for k in range(size + 1) if fits(k, accuracy, size, digits)]

    return variant


def _one_count(accuracy: float, size: int, digits: int = 3) -> list[int]:
    return [round(accuracy * size)]


def _one_count_if_it_fits(accuracy: float, size: int, digits: int = 3) -> list[int]:
    k = round(accuracy * size)
    return [k] if k in possible_counts(accuracy, size, digits) else []


def _outward(accuracy: float, size: int, digits: int = 3) -> list[int]:
    half = 0.5 * 10**-digits
    low, high = math.floor((accuracy - half) * size), math.ceil((accuracy + half) * size)
    return list(range(max(low, 0), min(high, size) + 1))


def _not_cut(accuracy: float, size: int, digits: int = 3) -> list[int]:
    units, scale = round(accuracy * 10**digits), 2 * 10**digits
    low, high = -((1 - 2 * units) * size // scale), (2 * units + 1) * size // scale
    return list(range(low, high + 1))


def _without_the_last(accuracy: float, size: int, digits: int = 3) -> list[int]:
    half = 0.5 * 10**-digits
    low, high = math.ceil((accuracy - half) * size), math.floor((accuracy + half) * size)
    return list(range(max(low, 0), min(high, size)))


def _rounds_to_it(k: int, accuracy: float, size: int, digits: int) -> bool:
    return round(k / size, digits) == accuracy


def _numpy_rounds_to_it(k: int, accuracy: float, size: int, digits: int) -> bool:
    return np.round(k / size, digits) == accuracy


def _close_in_floats(k: int, accuracy: float, size: int, digits: int) -> bool:
    return abs(k / size - accuracy) <= 0.5 * 10**-digits


def _close_in_counts(k: int, accuracy: float, size: int, digits: int) -> bool:
    return abs(k - accuracy * size) <= 0.5 * 10**-digits * size


def _between_floats(k: int, accuracy: float, size: int, digits: int) -> bool:
    return accuracy - 0.5 * 10**-digits <= k / size <= accuracy + 0.5 * 10**-digits


def _from_ceil_to_floor(accuracy: float, size: int, digits: int = 3) -> list[int]:
    half = 0.5 * 10**-digits
    low, high = math.ceil((accuracy - half) * size), math.floor((accuracy + half) * size)
    return list(range(max(low, 0), min(high, size) + 1))


def _strictly_within(k: int, accuracy: float, size: int, digits: int) -> bool:
    return abs(2 * 10**digits * k - 2 * round(accuracy * 10**digits) * size) < size


def _cut_off(k: int, accuracy: float, size: int, digits: int) -> bool:
    return k * 10**digits // size == round(accuracy * 10**digits)


def _within_a_unit(k: int, accuracy: float, size: int, digits: int) -> bool:
    return abs(10**digits * k - round(accuracy * 10**digits) * size) <= size


def _truncated(k: int, accuracy: float, size: int, digits: int) -> bool:
    return abs(2 * 10**digits * k - 2 * int(accuracy * 10**digits) * size) <= size


_FLOATS = (
    "It leaves the ends to floats: 499 / 2000 is 0.2495, half a unit from 0.250, and the computed "
    "distance comes out a hair too large. Compare whole numbers, or leave a little room."
)

POSSIBLE_COUNTS = Exercise(
    name="possible_counts",
    chapter=11,
    title="which counts print as this accuracy?",
    difficulty=2,
    importance=4,
    minutes=10,
    task="""
Write `possible_counts(accuracy, size, digits=3)`: an accuracy as printed, a fraction rounded to
that many digits, and the number of examples, to the list of all whole numbers k of right answers
for which `k / size` may be printed so, ascending.

- k fits if `k / size` lies within half a unit of the last digit of `accuracy`, *both ends
  included*: nobody knows which way an end was rounded. At three digits half a unit is 0.0005.
- Floats must not decide an end: of 2,000 examples 499 and 501 both fit 0.250.
- Nobody has fewer than 0 right or more than `size`. Where nothing fits, return `[]`.
""",
    hint="Multiply the two limits by `size`: between which numbers does k lie? For the ends, count "
    "in half units: `round(accuracy * 10**digits)` is a whole number, and whole numbers compare "
    "exactly. (Or widen the limits by 1e-9.)",
    reference=possible_counts,
    cases=(
        question("0.516 of 1,101", 0.516, 1101),
        question("0.333 of 12", 0.333, 12),
        question("0.340 of 12", 0.34, 12),
        question("0.34 of 12, two digits", 0.34, 12, 2),
        question("0.728 of 20,212", 0.728, 20_212),
        question("0.250 of 2,000: both ends", 0.25, 2000),
        question("0.503 of 2,000: both ends", 0.503, 2000),
        question("0.545 of 6,000: both ends", 0.545, 6000),
        question("0.001 of 2,000: both ends", 0.001, 2000),
        question("0.000 of 5,000", 0.0, 5000),
        question("1.000 of 5,000", 1.0, 5000),
        question("0.7 of 33, one digit", 0.7, 33, 1),
        question("0.29 of 100, two digits", 0.29, 100, 2),
        question("0.5160 of 1,101, four digits", 0.516, 1101, 4),
    ),
    mistakes=(
        Mistake(
            _one_count,
            "It always gives one count, the nearest. Several may print the same, and where N is "
            "small none may: that is the whole test.",
        ),
        Mistake(
            _one_count_if_it_fits,
            "It gives the nearest count alone; with more than a thousand examples several print "
            "the same.",
        ),
        *(
            Mistake(
                _counts_by(wrong),
                "It trusts `round` with the ends. A fraction that lies half a unit away may have "
                "been printed either way, so both ends fit.",
            )
            for wrong in (_rounds_to_it, _numpy_rounds_to_it)
        ),
        Mistake(
            _counts_by(lambda k, accuracy, size, digits: abs(k / size - accuracy) <= 0.0005),
            "It always allows 0.0005, half a unit of three digits, and leaves the ends to floats; "
            "`digits` says how many were printed.",
        ),
        Mistake(
            lambda accuracy, size, digits=3: [
                k for k in possible_counts(accuracy, size, digits) if k < size
            ],
            "The count of all examples is missing: Python's `range(size)` ends before it.",
        ),
        Mistake(
            lambda accuracy, size, digits=3: [
                k for k in possible_counts(accuracy, size, digits) if k > 0
            ],
            "The count 0 is missing: none right is possible as well.",
        ),
        *(
            Mistake(wrong, _FLOATS)
            for wrong in (
                *map(_counts_by, (_close_in_floats, _close_in_counts, _between_floats)),
                _from_ceil_to_floor,
            )
        ),
        Mistake(
            _counts_by(_strictly_within),
            "It leaves out the ends: a fraction exactly half a unit away may have been rounded to "
            "this number too.",
        ),
        Mistake(
            _counts_by(_cut_off),
            "It takes the digits for cut off: 0.5159 would print as 0.515. They are rounded.",
        ),
        Mistake(
            _counts_by(_within_a_unit),
            "It allows a whole unit of the last digit; rounding moves a number by half of one.",
        ),
        Mistake(
            lambda accuracy, size, digits=3: possible_counts(accuracy, size),
            "It always takes three digits; `digits` says how many were printed.",
        ),
        Mistake(
            _counts_by(_truncated),
            "It makes whole numbers with `int`, which cuts off: 0.29 * 100 is a hair below 29. Use "
            "`round`.",
        ),
        Mistake(
            _not_cut,
            "It gives counts below 0 or above the number of examples.",
        ),
        Mistake(
            _outward,
            "It rounds the limits outwards, and so takes in counts that lie just beyond them.",
        ),
        Mistake(
            _without_the_last,
            "The last count is missing: Python's `range` ends before its end.",
        ),
        Mistake(
            lambda accuracy, size, digits=3: [
                k / size for k in possible_counts(accuracy, size, digits)
            ],
            "It gives fractions; asked are the counts k.",
        ),
    ),
    notes="The GRIM test for accuracies. The float trap is the lesson: `abs(k / n - a) <= 0.0005` "
    "drops ends at random. What it can show shrinks with N: beyond a thousand examples every "
    "three-digit accuracy is possible. 2 points.",
)


# overall_range


def overall_range(accuracy: Numbers, counts: Numbers, digits: int = 3) -> tuple[float, float]:
    """Lowest and highest overall accuracy that fit a column printed to `digits`.

    Args:
        accuracy: by true label, as printed, `[K]`.
        counts: how often each label occurs, `[K]`.
    """
    return _range_by()(accuracy, counts, digits)


def _range_by(units: float = 0.5, cut: str = "labels", weighted: bool = True) -> Callable:
    """A variant: how far a printed number may be off, and what is cut to 0 .. 1."""

    def variant(accuracy: Numbers, counts: Numbers, digits: int = 3) -> tuple[float, float]:
        ends = []
        for sign in (-1, 1):
            true = np.asarray(accuracy, float) + sign * units * 10**-digits
            if cut in ("labels", "lower" if sign < 0 else "upper"):
                true = true.clip(0, 1)
            end = float(np.average(true, weights=counts if weighted else None))
            ends.append(min(max(end, 0.0), 1.0) if cut == "overall" else end)
        return ends[0], ends[1]

    return variant


def _in_quadrature(accuracy: Numbers, counts: Numbers, digits: int = 3) -> tuple[float, float]:
    share = np.asarray(counts) / np.sum(counts)
    middle, half = float(np.dot(accuracy, share)), 0.5 * 10**-digits * math.hypot(*share)
    return middle - half, middle + half


def _whole_numbers(accuracy: Numbers, counts: Numbers, digits: int = 3) -> tuple[float, float]:
    """Of whole numbers of right answers; the continuous limits where there is none."""
    half, low, high = 0.5 * 10**-digits, 0.0, 0.0
    for a, n in zip(accuracy, counts, strict=True):
        found = possible_counts(float(a), int(n), digits)
        low += found[0] if found else max(a - half, 0) * n
        high += found[-1] if found else min(a + half, 1) * n
    return low / float(np.sum(counts)), high / float(np.sum(counts))


def _column(task: str, *counts: int) -> tuple[Numbers, Numbers]:
    lines = paper.PAPER_FIGURE_5[paper.PAPER_FIGURE_5["task"] == task]
    return lines["accuracy"].to_numpy(), np.array(counts)


_ACCURACY, _COUNTS = np.array([0.2, 0.9, 0.55, 0.7]), np.array([10, 45, 25, 20])

OVERALL_RANGE = Exercise(
    name="overall_range",
    chapter=11,
    title="how far can rounding move the total?",
    difficulty=1,
    importance=3,
    minutes=7,
    task="""
Write `overall_range(accuracy, counts, digits=3)`: `[K]` accuracies by true label as printed, `[K]`
counts of the labels, to a pair (lowest, highest): between which accuracies over all examples can
the table lie, if each of its numbers was rounded to that many digits?

- Every number may be off by half a unit of its last digit, all of them in the same direction.
- No accuracy lies below 0 or above 1: a printed 0.000 can only be too low.
- That right answers are whole numbers would narrow the range a little; leave that to
  `possible_counts`.
""",
    hint="Chapter 10's mean weighted by counts, twice: once with every number as low as it can be, "
    "once as high. Cut each number to 0 .. 1 before you take the mean.",
    reference=overall_range,
    cases=tuple(
        question(name, *arguments, rtol=0, atol=1e-6)  # float32 is good enough
        for name, arguments in {
            "four labels": (_ACCURACY, _COUNTS),
            "two digits": (_ACCURACY, _COUNTS, 2),
            "one digit": (np.array([0.2, 0.9, 0.6]), np.array([7, 21, 4]), 1),
            "Figure 5, paraphrase": _column("paraphrase", 12_627, 7_585),
            "Figure 5, similarity": _column("similarity", 100, 102, 143, 210, 212, 96),
            "a label never found, one always": (np.array([0.0, 1.0, 0.4]), np.array([30, 5, 65])),
            "nothing right, two labels": (np.zeros(2), np.array([3, 4]), 2),
            "one label": (np.array([0.25]), np.array([12])),
        }.items()
    ),
    mistakes=(
        Mistake(
            _range_by(units=1.0),
            "It moves every number by a whole unit of its last digit; rounding moves it by half.",
        ),
        Mistake(
            _range_by(units=0.0),
            "Both ends are the same: the printed numbers are taken for exact.",
        ),
        Mistake(
            _range_by(cut="none"),
            "Nothing is cut: a printed 0.000 would lie below 0, or a printed 1.000 above 1.",
        ),
        *(
            Mistake(
                _range_by(cut=cut),
                f"Only the {cut} end is cut to 0 .. 1. A printed 0.000 would lie below 0 at one, "
                "a printed 1.000 above 1 at the other: cut both.",
            )
            for cut in ("lower", "upper")
        ),
        Mistake(
            _range_by(cut="overall"),
            "It cuts the total alone; each label's accuracy has to stay between 0 and 1 by itself.",
        ),
        *(
            Mistake(
                wrong,
                "It is the range of the plain mean, the balanced accuracy; a frequent label counts "
                "for more.",
            )
            for wrong in (_range_by(weighted=False), _range_by(weighted=False, cut="none"))
        ),
        Mistake(
            _in_quadrature,
            "It adds the rounding errors as if they were chance, root of the sum of squares. "
            "Asked is what is possible at all: they may all go the same way.",
        ),
        Mistake(
            lambda accuracy, counts, digits=3: overall_range(accuracy, counts, digits)[::-1],
            "The two ends are exchanged: the lowest comes first.",
        ),
        Mistake(
            lambda accuracy, counts, digits=3: overall_range(accuracy, counts),
            "It always takes three digits; `digits` says how many were printed.",
        ),
        Mistake(
            _whole_numbers,
            "It narrows the range to whole numbers of right answers. That is sharper, and right "
            "where the counts are; asked is the range of rounding alone.",
        ),
    ),
    notes="What separates a discrepancy from rounding. The worst case, not a standard error: a "
    "table that lies outside cannot be saved by luck. 1 point.",
)


# tie_chance


def tie_chance(spreads: Numbers, unit: float = 0.001) -> float:
    """Chance that two independent runs differ by less than half a unit in all M numbers.

    Args:
        spreads: standard deviation of each number over seeds, of one run, `[M]`.
        unit: the last printed digit.
    """
    return _tie_by()(spreads, unit)


def _tie_by(
    factor: Callable[[Numbers], Numbers] = lambda spreads: math.sqrt(2) * spreads,
    reach: float = 0.5,
    together: Callable[[Numbers], float] = lambda chances: float(np.prod(chances)),
    sides: int = 2,
    still: float = 1.0,
) -> Callable:
    """A variant: the difference's standard deviation from one run's, how far from 0 it may lie in
    units, how the M chances become one, and the chance for a number that never moves."""

    def variant(spreads: Numbers, unit: float = 0.001) -> float:
        of_difference = factor(np.asarray(spreads, float))
        with np.errstate(divide="ignore", invalid="ignore"):
            z = reach * unit / of_difference
        chances = 2 * stats.norm.cdf(z) - 1 if sides == 2 else stats.norm.cdf(z)
        return together(np.where(of_difference > 0, chances, still))

    return variant


def _density_times_unit(spreads: Numbers, unit: float = 0.001) -> float:
    with np.errstate(divide="ignore"):
        return float(np.prod(unit / (2 * math.sqrt(math.pi) * np.asarray(spreads))))


_SPREADS = np.array([0.004, 0.012, 0.015, 0.003, 0.010, 0.012])

TIE_CHANCE = Exercise(
    name="tie_chance",
    chapter=11,
    title="how likely is a tie?",
    difficulty=2,
    importance=4,
    minutes=10,
    task="""
Write `tie_chance(spreads, unit=0.001)`: `[M]` standard deviations, how much each of M printed
numbers moves from seed to seed (of one run), to the chance that two independent runs agree in all
of them.

- Two runs agree in a number if they differ by less than half a unit of the last printed digit.
  (Nearly so: what counts is how both round. For spreads above a unit the chances are the same.)
- Take the numbers to be normally distributed and independent of each other.
- A number that never moves (spread 0) always agrees.
""",
    hint="A difference of two independent runs is normal around 0. What is its standard deviation, "
    "if one run has s? Then the chance to lie between two limits, both sides of 0, and for all M "
    "numbers at once.",
    reference=tie_chance,
    cases=tuple(
        question(name, *arguments, rtol=1e-4, atol=0)
        for name, arguments in {
            "one number": (np.array([0.01]),),
            "six numbers": (_SPREADS,),
            "six numbers, printed to two digits": (_SPREADS, 0.01),
            "as wide as a unit": (np.array([0.001, 0.001]),),
            "narrow": (np.array([0.0002, 0.0001]),),
            "one that never moves": (np.array([0.0, 0.02]),),
            "none moves": (np.zeros(3),),
        }.items()
    ),
    mistakes=(
        Mistake(
            _tie_by(lambda spreads: spreads),
            "It takes one run's spread for that of the difference. Both runs move, so the "
            "difference moves more.",
        ),
        Mistake(
            _tie_by(lambda spreads: 2 * spreads),
            "It adds the two standard deviations. Variances add: the difference has sqrt(2) times "
            "the spread.",
        ),
        Mistake(
            _tie_by(lambda spreads: math.sqrt(2) * spreads**2),
            "It takes the variance for the standard deviation: of the sum of variances take the "
            "root.",
        ),
        Mistake(
            _tie_by(reach=1.0),
            "It lets two runs differ by a whole unit, or, which comes to the same, it divides the "
            "spread by sqrt(2). Asked is less than half a unit, and a difference moves more than "
            "one run.",
        ),
        Mistake(
            _tie_by(sides=1),
            "It counts one side alone, all differences below the limit; the chance for two wide "
            "numbers cannot be near one half.",
        ),
        Mistake(
            _tie_by(together=lambda chances: float(np.mean(chances))),
            "It takes the mean over the numbers; to agree in all of them is rarer than in one.",
        ),
        Mistake(
            _tie_by(together=lambda chances: float(np.sum(chances))),
            "It adds the chances, which is the expected number of agreements; that all agree has "
            "the product.",
        ),
        Mistake(
            _tie_by(together=lambda chances: float(np.min(chances))),
            "It takes the smallest chance alone; the others have to agree as well.",
        ),
        Mistake(
            _tie_by(together=lambda chances: float(1 - np.prod(1 - chances))),
            "It is the chance that at least one number agrees; asked is all of them.",
        ),
        Mistake(
            _tie_by(together=lambda chances: float(1 - np.prod(chances))),
            "It is the chance that the runs differ somewhere; asked is that they agree everywhere.",
        ),
        Mistake(
            _density_times_unit,
            "It takes height times width of the bell for the area. That is close where the spread "
            "is wide; where it is narrow the chance exceeds 1.",
        ),
        Mistake(
            _tie_by(still=float("nan")),
            "A spread of 0 gives NaN: a number that never moves agrees always, with chance 1.",
        ),
        Mistake(
            _tie_by(still=0.0),
            "A spread of 0 gives the chance 0; a number that never moves agrees always.",
        ),
        Mistake(
            lambda spreads, unit=0.001: tie_chance(spreads),
            "It always takes 0.001; `unit` is the last digit that was printed.",
        ),
    ),
    notes="sqrt(2) is what is forgotten. Independence of the six numbers is generous: accuracies "
    "of one model move together, and of three factors each three remain. Even then the chance is "
    "tiny. 2 points.",
)


# constant_answer

Counts = Mapping[str, Sequence[int]]
Printed = Mapping[str, float]


def constant_answer(counts: Counts, published: Printed, digits: int = 3) -> int | None:
    """The label whose constant answer prints these accuracies on all splits; None if there is none.

    Args:
        counts: by split how often each label occurs, `[K]`.
        published: by split the printed accuracy.
    """
    return _constant_by()(counts, published, digits)


def _prints(k: int, size: int, accuracy: float, digits: int) -> bool:
    return k in possible_counts(accuracy, size, digits)


def _constant_by(
    fits: Callable[[int, int, float, int], bool] = _prints,
    on: Callable[[list[bool]], bool] = all,
    labels: Callable[[Counts], Sequence[int]] = lambda counts: range(
        len(next(iter(counts.values())))
    ),
    found: Callable[[int], Any] = lambda label: label,
    none: Any = None,
) -> Callable:
    """A variant: when a label fits a split, on how many splits, which labels are asked."""

    def variant(counts: Counts, published: Printed, digits: int = 3) -> Any:
        for label in labels(counts):
            of_splits = [
                fits(int(counts[split][label]), int(np.sum(counts[split])), accuracy, digits)
                for split, accuracy in published.items()
            ]
            if on(of_splits):
                return found(label)
        return none

    return variant


def _most_frequent(counts: Counts) -> Sequence[int]:
    return [int(np.argmax(next(iter(counts.values()))))]


def _nearest_label(counts: Counts, published: Printed, digits: int = 3) -> int:
    shares = {split: np.asarray(n) / np.sum(n) for split, n in counts.items()}
    off = sum(np.abs(shares[split] - accuracy) for split, accuracy in published.items())
    return int(np.argmin(off))


def _pooled(counts: Counts, published: Printed, digits: int = 3) -> int | None:
    """Compares every printed accuracy with the label's share in all splits together."""
    whole = np.sum([np.asarray(counts[split]) for split in published], axis=0)
    return constant_answer({split: whole for split in published}, published, digits)


def _split_by_split(counts: Counts, published: Printed, digits: int = 3) -> int | None:
    """The first label that fits each split, if it is the same on all."""
    found = {
        constant_answer({split: counts[split]}, {split: accuracy}, digits)
        for split, accuracy in published.items()
    }
    return found.pop() if len(found) == 1 else None


_TRAIN, _DEV = [1092, 2218, 1624, 2322, 1288], [139, 289, 229, 279, 165]
_SENTIMENT = {"train": _TRAIN, "dev": _DEV}
_SMALL = {"train": [40, 25, 35], "dev": [12, 6, 2], "test": [10, 15, 25]}

CONSTANT_ANSWER = Exercise(
    name="constant_answer",
    chapter=11,
    title="is it one answer for all?",
    difficulty=2,
    importance=3,
    minutes=8,
    task="""
Write `constant_answer(counts, published, digits=3)`: a dict from split to `[K]` label counts, and a
dict from split to a printed accuracy, to the label that a model may have given every example: the
one whose constant answer is printed so on *all* splits of `published`. If there is none, `None`.

What "is printed so" means you have written above: `possible_counts`, both ends included. Labels are
numbered from 0; if several fit, return the lowest.
""",
    hint="A model that always answers k has as many right answers as there are examples with label "
    "k. Is that count among the possible ones, on this split, and on that? Mind that label 0 is a "
    "good answer, and not the same as none.",
    reference=constant_answer,
    cases=tuple(
        question(name, *arguments)
        for name, arguments in {
            "always 3": (_SENTIMENT, {"train": 0.272, "dev": 0.253}),
            "always 1": (_SENTIMENT, {"train": 0.26, "dev": 0.262}),
            "the first label": (_SMALL, {"train": 0.4, "dev": 0.6}),
            "a rare label": (_SMALL, {"train": 0.35, "dev": 0.1, "test": 0.5}),
            "train fits one label, dev another": (_SENTIMENT, {"train": 0.272, "dev": 0.262}),
            "nothing near": (_SENTIMENT, {"train": 0.92, "dev": 0.494}),
            "near, and not it": (_SENTIMENT, {"train": 0.273, "dev": 0.258}),
            "two digits": (_SENTIMENT, {"train": 0.27, "dev": 0.25}, 2),
            "one split alone": (_SENTIMENT, {"dev": 0.208}),
            "two labels fit": ({"train": [30, 35, 35]}, {"train": 0.35}),
            "at the end of the unit": ({"dev": [501, 1499]}, {"dev": 0.25}),
            "two fit train, one of them dev": (
                {"train": [30, 30, 40], "dev": [4, 3, 3]},
                {"train": 0.3, "dev": 0.3},
            ),
        }.items()
    ),
    mistakes=(
        Mistake(
            _constant_by(on=any),
            "A label is returned that fits one split and not the others; all have to fit.",
        ),
        *(
            Mistake(
                wrong,
                "It asks the most frequent training label alone; a model can get stuck on any.",
            )
            for wrong in (
                _constant_by(labels=_most_frequent),
                _constant_by(labels=lambda counts: _most_frequent({"": counts.get("train", _DEV)})),
            )
        ),
        Mistake(
            _constant_by(labels=lambda counts: [0]),
            "It gives up at the first label that does not fit: `return None` belongs behind the "
            "loop.",
        ),
        Mistake(
            _constant_by(on=lambda of_splits: of_splits[0]),
            "It looks at the first split alone; all have to fit.",
        ),
        Mistake(
            _nearest_label,
            "It returns the nearest label even where its accuracies do not print so; then there is "
            "none, and near is another statement.",
        ),
        Mistake(
            _constant_by(found=lambda label: label or None),
            "Label 0 is lost: 0 counts as false, so `label or None` is None.",
        ),
        Mistake(
            _constant_by(none=-1),
            "Where no label fits it returns -1; asked is None.",
        ),
        Mistake(
            _constant_by(found=lambda label: label + 1),
            "It counts the labels from 1; they begin at 0.",
        ),
        *(
            Mistake(
                _constant_by(wrong),
                "It leaves the ends to `round` or to floats; a share that lies half a unit away "
                "may have been printed either way.",
            )
            for wrong in (
                lambda k, size, accuracy, digits: round(k / size, digits) == accuracy,
                lambda k, size, accuracy, digits: abs(k / size - accuracy) <= 0.5 * 10**-digits,
                lambda k, size, accuracy, digits: abs(k / size - accuracy) < 0.5 * 10**-digits,
            )
        ),
        Mistake(
            _constant_by(lambda k, size, accuracy, digits: _prints(k, size, accuracy, 3)),
            "It always takes three digits; `digits` says how many were printed.",
        ),
        Mistake(
            _constant_by(
                lambda k, size, accuracy, digits: abs(k / size - accuracy) <= 0.01,
            ),
            "It lets a label fit that is off by a point; a constant answer prints its share to "
            "the last digit.",
        ),
        Mistake(
            _split_by_split,
            "It looks for a label on each split by itself and compares the first ones that fit. "
            "Several may fit one split: ask of each label whether it fits all.",
        ),
        Mistake(
            _pooled,
            "It takes a label's share in all splits together; each split has shares of its own.",
        ),
    ),
    notes="Near is not equal: row 3.9's sentiment is seven training sentences away from one "
    "answer. A check with a tolerance of a point would have called it constant. `or None` loses "
    "label 0. 2 points.",
)


# prediction_interval


def prediction_interval(scores: Sequence[float] | Numbers) -> tuple[float, float]:
    """95 % interval for the score of one further run, from those of S seeds.

    mean +- t(.975, S - 1) * s * sqrt(1 + 1 / S), s with S - 1 below.

    Raises:
        ValueError: below two seeds, which have no spread.
    """
    if len(scores) < 2:
        raise ValueError(f"{len(scores)} seed(s): two at least are needed for a spread")
    return _interval_by()(scores)


def _interval_by(
    widen: Callable[[int], float] = lambda seeds: math.sqrt(1 + 1 / seeds),
    quantile: Callable[[int], float] = lambda seeds: float(stats.t.ppf(0.975, seeds - 1)),
    ddof: int = 1,
    refuse: bool = True,
) -> Callable:
    """A variant: the factor of the spread, the quantile, and what the spread divides by."""

    def variant(scores: Sequence[float] | Numbers) -> tuple[float, float]:
        seeds = len(scores)
        if refuse and seeds < 2:
            raise ValueError("two seeds at least")
        with np.errstate(divide="ignore", invalid="ignore"):
            half = quantile(seeds) * np.std(scores, ddof=ddof) * widen(seeds)
        return float(np.mean(scores) - half), float(np.mean(scores) + half)

    return variant


def _by_the_variance(scores: Sequence[float] | Numbers) -> tuple[float, float]:
    low, high = prediction_interval(scores)
    middle, half = (low + high) / 2, (high - low) / 2 * float(np.std(scores, ddof=1))
    return middle - half, middle + half


def _of_the_mean(seeds: int) -> float:
    return 1 / math.sqrt(seeds)


def _normal(seeds: int) -> float:
    return 1.96


def _one_sided(seeds: int) -> float:
    return float(stats.t.ppf(0.95, seeds - 1))


def _refused(scores: list[float]) -> Case:
    """One seed: an error, or what is returned."""

    def ask(answer: Callable) -> Any:
        return refusal(lambda: answer(np.array(scores)))

    return Case(f"{len(scores)} seed: refused", precisely(ask))


PREDICTION_INTERVAL = Exercise(
    name="prediction_interval",
    chapter=11,
    title="where would one more run land?",
    difficulty=2,
    importance=5,
    minutes=10,
    task="""
Write `prediction_interval(scores)`: the scores `[S]` of S seeds, to a pair (low, high): the 95 %
interval for the score of *one further run*, by Student's t:

$$\\bar x \\pm t_{.975,\\, S-1} \\cdot s \\cdot \\sqrt{1 + 1/S}$$

Here $\\bar x$ is the mean of the scores and s their standard deviation, with S - 1 below. Equal
scores give an interval without width. Below two seeds there is no spread: raise a `ValueError`.
""",
    hint="`scipy.stats.t.ppf` gives the quantile. Two things are uncertain: where the mean lies "
    "(the 1/S) and how far one run falls from it (the 1). An interval of the mean has the first "
    "alone.",
    reference=prediction_interval,
    cases=(
        *(
            question(name, np.array(scores), rtol=1e-3)
            for name, scores in {
                "three seeds": [0.41, 0.43, 0.40],
                "two seeds": [0.71, 0.74],
                "five seeds": [0.3, 0.35, 0.32, 0.41, 0.38],
                "twenty seeds": (0.5 + 0.02 * np.sin(np.arange(20.0))).tolist(),
                "three equal seeds": [0.25, 0.25, 0.25],
            }.items()
        ),
        _refused([0.4]),
    ),
    mistakes=(
        Mistake(
            _interval_by(_of_the_mean),
            "That is the interval of the mean. One run falls around it with its whole spread, "
            "however many seeds you have.",
        ),
        Mistake(
            _interval_by(_of_the_mean, refuse=False),
            "That is the interval of the mean, and one seed is not refused. One run falls around "
            "the mean with its whole spread, however many seeds you have.",
        ),
        Mistake(
            _interval_by(_of_the_mean, _normal),
            "That is the interval of the mean, and 1.96 in place of Student's t: asked is where "
            "one further run lands.",
        ),
        Mistake(
            _interval_by(lambda seeds: 1.0),
            "It takes the mean for known: of S seeds it is uncertain too, which is the 1/S below "
            "the root.",
        ),
        *(
            Mistake(
                wrong,
                "It takes 1.96, as if the spread were known. Three seeds hardly know theirs, and "
                "t is 4.3 there.",
            )
            for wrong in (_interval_by(quantile=_normal), _interval_by(lambda seeds: 1.0, _normal))
        ),
        Mistake(
            _interval_by(ddof=0),
            "The spread divides by S; with S - 1 it is right on average (`ddof=1`).",
        ),
        Mistake(
            _interval_by(quantile=_one_sided),
            "It takes the 95 % quantile, which leaves five percent on either side; two sides of "
            "2.5 % need the quantile .975.",
        ),
        Mistake(
            _interval_by(quantile=lambda seeds: float(stats.t.ppf(0.975, seeds))),
            "It has S degrees of freedom; one went into the mean, so S - 1.",
        ),
        Mistake(
            lambda scores: (float(np.min(scores)), float(np.max(scores))),
            "It gives the range of the seeds, which a further run leaves two times in S + 1.",
        ),
        Mistake(
            _interval_by(ddof=0, refuse=False),
            "The standard deviation divides by S, and one seed is not refused; divide by S - 1 "
            "(`ddof=1`), and raise a ValueError below two seeds.",
        ),
        Mistake(
            _interval_by(quantile=_normal, refuse=False),
            "It takes 1.96, as if the spread were known, and one seed is not refused.",
        ),
        Mistake(
            _by_the_variance,
            "It takes the variance for s: s is its root.",
        ),
        Mistake(
            _interval_by(refuse=False),
            "One seed gives NaN, and a NaN compares with everything as false; asked is a "
            "ValueError.",
        ),
    ),
    notes="The published number is one run, so the interval of our mean is the wrong yardstick: it "
    "shrinks to nothing with many seeds, and then every single run lies outside. 2 points.",
)


# nearest_epoch


def nearest_epoch(trajectory: Numbers, published: Numbers) -> tuple[int, float]:
    """The epoch, from 1, whose scores lie nearest to the printed ones, and how far they lie.

    Args:
        trajectory: scores after each epoch, `[E, M]`; an epoch with a NaN cannot be nearest.
        published: the printed ones, `[M]`.

    Returns:
        The epoch, and the root mean square distance over the M scores.
    """
    return _nearest_by()(trajectory, published)


def _root_mean_square(off: Numbers) -> Numbers:
    return np.sqrt((off**2).mean(axis=1))


def _nearest_by(
    distance: Callable[[Numbers], Numbers] = _root_mean_square,
    choose: Callable[[Numbers], Any] = np.nanargmin,
    first: int = 1,
) -> Callable:
    """A variant: how the M differences become one distance, which is chosen, how it is counted."""

    def variant(trajectory: Numbers, published: Numbers) -> tuple[int, float]:
        far = distance(np.asarray(trajectory, float) - np.asarray(published, float))
        epoch = int(choose(far))
        return epoch + first, float(far[epoch])

    return variant


def _last_of_the_nearest(far: Numbers) -> int:
    return int(np.flatnonzero(far == np.nanmin(far))[-1])


def _argmin_with_nanmin(trajectory: Numbers, published: Numbers) -> tuple[int, float]:
    far = _root_mean_square(np.asarray(trajectory, float) - np.asarray(published, float))
    return int(np.argmin(far)) + 1, float(np.nanmin(far))


def _without_gaps(trajectory: Numbers, published: Numbers) -> tuple[int, float]:
    """Counts the epochs without a NaN alone."""
    kept = np.asarray(trajectory, float)
    return nearest_epoch(kept[np.isfinite(kept).all(axis=1)], published)


def _zero_for_none(trajectory: Numbers, published: Numbers) -> tuple[int, float]:
    return nearest_epoch(np.nan_to_num(np.asarray(trajectory, float)), published)


def _score_by_score(trajectory: Numbers, published: Numbers) -> tuple[int, float]:
    """Each score from the epoch where it fits best."""
    off = np.abs(np.asarray(trajectory) - published)
    epoch, far = nearest_epoch(trajectory, published)
    return epoch, float(np.sqrt((np.nanmin(off, axis=0) ** 2).mean()))


_PATH = np.array(
    [[0.62, 0.33, 0.35], [0.63, 0.28, 0.47], [0.70, 0.41, 0.53], [0.71, 0.48, 0.63],
     [0.72, 0.51, 0.71], [0.73, 0.52, 0.76]]
)  # fmt: skip
_COLLAPSED = _PATH.copy()
_COLLAPSED[1, 2] = np.nan
_GAP = np.array([[0.6, 0.3, np.nan], [0.7, 0.4, 0.5]])
_NEAR_ZERO = np.array([[0.7, 0.4, np.nan], [0.6, 0.3, 0.2]])
_BACK = np.vstack([_PATH[:4], _PATH[2:3]])  # returns to where it was

NEAREST_EPOCH = Exercise(
    name="nearest_epoch",
    chapter=11,
    title="at which epoch does our run pass there?",
    difficulty=1,
    importance=4,
    minutes=7,
    task="""
Write `nearest_epoch(trajectory, published)`: our scores after each epoch `[E, M]` and the
printed ones `[M]`, to a pair: the number of the epoch that lies nearest, *counted from 1*, and its
distance, the root of the mean over the M scores of the squared differences.

An epoch with a score that does not exist (NaN: a constant answer has no correlation) cannot be
nearest. Of equals, the first.
""",
    hint="A distance for each epoch first, `[E]`; the mean runs over the scores, not over the "
    "epochs. NumPy has a variant of `argmin` for NaN.",
    reference=nearest_epoch,
    cases=(
        question("near the third epoch", _PATH, np.array([0.700, 0.408, 0.545])),
        question("near the last", _PATH, np.array([0.756, 0.920, 0.966])),
        question("near the first", _PATH, np.array([0.60, 0.30, 0.20])),
        question("one score far off", _PATH, np.array([0.70, 0.41, 0.90])),
        question("above in one score, below in another", _PATH, np.array([0.63, 0.49, 0.47])),
        question("a score that does not exist", _COLLAPSED, np.array([0.63, 0.27, 0.45])),
        question("a gap before the nearest", _GAP, np.array([0.7, 0.4, 0.5])),
        question("near 0 in what is missing", _NEAR_ZERO, np.array([0.7, 0.4, 0.02])),
        question("an epoch come back", _BACK, np.array([0.69, 0.40, 0.52])),
        question("one score alone", _PATH[:, :1], np.array([0.705])),
    ),
    mistakes=(
        Mistake(_nearest_by(first=0), "It counts the epochs from 0; the first one is 1."),
        Mistake(
            _nearest_by(lambda off: np.sqrt((off**2).sum(axis=1))),
            "It takes the root of the sum; with the mean a distance over six scores compares with "
            "one over three.",
        ),
        Mistake(
            _nearest_by(lambda off: (off**2).mean(axis=1)),
            "The root is missing: a squared difference is not on the scale of the scores.",
        ),
        Mistake(
            _nearest_by(lambda off: np.abs(off).mean(axis=1)),
            "It takes the mean of the absolute differences; asked is the root of the mean square.",
        ),
        Mistake(
            _nearest_by(lambda off: np.abs(off).max(axis=1)),
            "It takes the largest difference alone; asked is the root of the mean square.",
        ),
        Mistake(
            _nearest_by(lambda off: np.abs(off.mean(axis=1))),
            "It compares the means of the scores: what lies too high in one and too low in "
            "another cancels.",
        ),
        Mistake(
            _nearest_by(lambda off: np.sqrt(np.nanmean(off**2, axis=1))),
            "A NaN is left out of the mean, so that an epoch wins by a score that it does not "
            "have.",
        ),
        *(
            Mistake(
                wrong,
                "`argmin` picks the NaN: an epoch with a score that does not exist cannot be "
                "nearest.",
            )
            for wrong in (
                _nearest_by(choose=np.argmin),
                _nearest_by(choose=np.argmin, first=0),
                _argmin_with_nanmin,
            )
        ),
        Mistake(
            _without_gaps,
            "Epochs with a NaN are left out before the count, so that later ones get too small a "
            "number.",
        ),
        Mistake(
            _zero_for_none,
            "A score that does not exist is taken for 0, which may lie near a printed one.",
        ),
        Mistake(
            _nearest_by(choose=np.nanargmax),
            "It returns the epoch that lies farthest.",
        ),
        Mistake(
            _nearest_by(choose=_last_of_the_nearest),
            "Of equally near epochs it takes the last; asked is the first.",
        ),
        Mistake(
            _nearest_by(choose=lambda far: len(far) - 1),
            "It always takes the last epoch.",
        ),
        Mistake(
            _score_by_score,
            "The distance takes each score from the epoch that suits it best; all have to come "
            "from the same one.",
        ),
    ),
    notes="Root mean square, so that distances over three and over six numbers compare. A nearest "
    "epoch always exists: it is the distance that says whether it means anything. 1 point.",
)


# two_answers


Interval = tuple[float, float]


def two_answers(
    mean: Interval, run: Interval, published: float, margin: float = 0.01
) -> tuple[str, str]:
    """What our runs say of a difference: is there a gain, and is it the published one?

    Args:
        mean: the ends of the interval of our mean.
        run: the ends of the interval for one further run.
        published: the paper's difference, of one run; NaN where it prints none.
        margin: a gain below it counts as none.

    Returns:
        "gain", "no gain" or "open"; "inside", "outside" or "not printed".
    """
    return _answers_by()(mean, run, published, margin)


def _gain(low: float, high: float, margin: float) -> str:
    if high < margin:
        return "no gain"
    return "gain" if low > 0 else "open"


def _place(low: float, high: float, published: float) -> str:
    if math.isnan(published):
        return "not printed"
    return "inside" if low <= published <= high else "outside"


def _answers_by(
    gain: Callable[[float, float, float], str] = _gain,
    place: Callable[[float, float, float], str] = _place,
    intervals: Callable[[Interval, Interval], tuple[Interval, Interval]] = lambda *both: both,
) -> Callable:
    """A variant: how either question is answered, and from which interval."""

    def variant(
        mean: Interval, run: Interval, published: float, margin: float = 0.01
    ) -> tuple[str, str]:
        of_gain, of_place = intervals(mean, run)
        return gain(*of_gain, margin), place(*of_place, published)

    return variant


def _above_zero_first(low: float, high: float, margin: float) -> str:
    return "gain" if low > 0 else "no gain" if high < margin else "open"


def _zero_inside_is_none(low: float, high: float, margin: float) -> str:
    return "gain" if low > 0 else "no gain"


def _below_zero(low: float, high: float, margin: float) -> str:
    return "gain" if low > 0 and high >= margin else "no gain" if high < 0 else "open"


def _wholly_above_the_margin(low: float, high: float, margin: float) -> str:
    return "gain" if low >= margin else "no gain" if high < margin else "open"


def _by_the_middle(low: float, high: float, margin: float) -> str:
    return "gain" if (low + high) / 2 >= margin else "no gain"


def _none_by_the_middle(low: float, high: float, margin: float) -> str:
    return "no gain" if (low + high) / 2 < margin else "gain" if low > 0 else "open"


def _up_to_zero(low: float, high: float, margin: float) -> str:
    return "no gain" if high <= 0 else "gain" if low > 0 else "open"


def _up_to_the_margin(low: float, high: float, margin: float) -> str:
    return "no gain" if high <= margin else "gain" if low > 0 else "open"


def _from_zero_on(low: float, high: float, margin: float) -> str:
    return "no gain" if high < margin else "gain" if low >= 0 else "open"


def _nan_is_outside(low: float, high: float, published: float) -> str:
    return "inside" if low <= published <= high else "outside"


def _nan_is_inside(low: float, high: float, published: float) -> str:
    return "outside" if published < low or published > high else "inside"


def _ends_outside(low: float, high: float, published: float) -> str:
    if math.isnan(published):
        return "not printed"
    return "inside" if low < published < high else "outside"


def _same_sign(low: float, high: float, published: float) -> str:
    if math.isnan(published):
        return "not printed"
    return "inside" if (low + high) * published > 0 else "outside"


def _near_the_middle(low: float, high: float, published: float) -> str:
    if math.isnan(published):
        return "not printed"
    return "inside" if abs(published - (low + high) / 2) <= 0.01 else "outside"


def _answers(name: str, *given: Any) -> Case:
    """Without `call`, to which a NaN looks like a changed input."""
    return Case(name, precisely(lambda answer: answer(*given)))


TWO_ANSWERS = Exercise(
    name="two_answers",
    chapter=11,
    title="two questions, two answers",
    difficulty=1,
    importance=5,
    minutes=8,
    task="""
Write `two_answers(mean, run, published, margin=0.01)`, to a pair of words. `mean` is the 95 %
interval (low, high) of our mean difference, `run` the one for a single further run, and `published`
the paper's difference, which is one run's (NaN if it prints none).

1. Is there a gain? `"no gain"` if the mean's interval ends below the margin: whatever there is, is
   too small to count. Else `"gain"` if it begins above 0. Else `"open"`.
2. Does the paper's difference fit ours? `"inside"` if it lies where one more run of ours would,
   both ends included, `"outside"` if not, `"not printed"` for NaN.
""",
    hint="Draw the cases on a line with two marks, 0 and the margin. An interval between the two "
    "marks is above 0, and still no gain worth the name: which question comes first?",
    reference=two_answers,
    cases=tuple(
        _answers(name, *numbers)
        for name, numbers in {
            "a gain, the paper's too": ((0.012, 0.04), (-0.002, 0.054), 0.03),
            "a gain, the paper's is larger": ((0.012, 0.04), (-0.002, 0.054), 0.147),
            "a gain, the paper's as large as one run's": ((0.012, 0.04), (-0.002, 0.054), 0.05),
            "around zero, its middle below the margin": ((-0.02, 0.03), (-0.045, 0.055), 0.04),
            "around zero, wide": ((-0.03, 0.05), (-0.07, 0.09), 0.04),
            "around zero, narrow": ((-0.004, 0.006), (-0.009, 0.011), 0.103),
            "a loss": ((-0.05, -0.02), (-0.065, -0.005), 0.01),
            "above zero, below the margin": ((0.001, 0.008), (-0.0025, 0.0115), 0.004),
            "above zero, beyond the margin": ((0.004, 0.03), (-0.009, 0.043), -0.02),
            "ends at the margin": ((-0.01, 0.01), (-0.02, 0.02), 0.02),
            "begins at zero": ((0.0, 0.04), (-0.02, 0.06), -0.02),
            "no number in the paper": ((0.02, 0.05), (0.005, 0.065), math.nan),
            "another margin": ((0.005, 0.03), (-0.0075, 0.0425), 0.05, 0.05),
            "no margin": ((-0.02, -0.001), (-0.0295, 0.0085), -0.02, 0.0),
        }.items()
    ),
    mistakes=(
        Mistake(
            _answers_by(_above_zero_first),
            "An interval above 0 that ends below the margin is called a gain. It is real, and too "
            "small to count: ask for the margin first.",
        ),
        Mistake(
            _answers_by(_zero_inside_is_none),
            "An interval that holds 0 is called no gain. That the runs cannot tell is not that "
            "there is nothing: it may reach far beyond the margin.",
        ),
        *(
            Mistake(
                _answers_by(wrong),
                "No gain is said only where the interval ends below 0; it has to end below the "
                "margin.",
            )
            for wrong in (_below_zero, _up_to_zero)
        ),
        Mistake(
            _answers_by(_wholly_above_the_margin),
            "A gain is said only where the whole interval lies above the margin; asked is that it "
            "begins above 0.",
        ),
        *(
            Mistake(
                _answers_by(wrong),
                "The middle of the interval decides, as if it were known exactly; its ends do.",
            )
            for wrong in (_by_the_middle, _none_by_the_middle)
        ),
        Mistake(
            _answers_by(_up_to_the_margin),
            "An interval that ends at the margin is called no gain; it has to end below.",
        ),
        Mistake(
            _answers_by(_from_zero_on),
            "An interval that begins at 0 is called a gain; it has to begin above.",
        ),
        Mistake(
            _answers_by(intervals=lambda mean, run: (mean, mean)),
            "The paper's difference is held against the interval of our mean. It is one run's, and "
            "falls around the mean as a run of ours does: that is `run`.",
        ),
        Mistake(
            _answers_by(intervals=lambda mean, run: (run, run)),
            "The gain is asked of the interval for one run; whether there is one, our mean says.",
        ),
        Mistake(
            _answers_by(intervals=lambda mean, run: (run, mean)),
            "The two intervals are exchanged: the gain is asked of our mean, the paper's number of "
            "one further run.",
        ),
        *(
            Mistake(
                _answers_by(place=wrong),
                "Where the paper prints no number there is nothing to compare: NaN is "
                '"not printed". (No comparison with a NaN is true.)',
            )
            for wrong in (_nan_is_outside, _nan_is_inside)
        ),
        Mistake(
            _answers_by(place=_ends_outside),
            "A published difference at an end of the interval is called outside; both ends belong "
            "to it.",
        ),
        Mistake(
            _answers_by(place=_same_sign),
            "It asks whether both differences have the same sign. A published +.147 has the sign "
            "of our +.03, and still does not fit.",
        ),
        Mistake(
            _answers_by(place=_near_the_middle),
            "It asks whether the two numbers are close; the width of the interval says how close "
            "they have to be.",
        ),
        Mistake(
            lambda mean, run, published, margin=0.01: two_answers(mean, run, published),
            "It always takes 0.01; `margin` may be another.",
        ),
        Mistake(
            lambda mean, run, published, margin=0.01: two_answers(mean, run, published, margin)[
                ::-1
            ],
            "The two answers are exchanged: the gain comes first.",
        ),
    ),
    notes="Two questions that are usually mixed up: a gain that is there need not be the published "
    "one, and a published one can fit an interval that shows nothing. 'Not shown' is not 'none'. "
    "2 points.",
)


EXERCISES = (
    POSSIBLE_COUNTS,
    OVERALL_RANGE,
    TIE_CHANCE,
    CONSTANT_ANSWER,
    PREDICTION_INTERVAL,
    NEAREST_EPOCH,
    TWO_ANSWERS,
)
