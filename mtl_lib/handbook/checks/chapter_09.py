"""Exercises of chapter 09: choosing."""

from collections.abc import Callable

import numpy as np
from torch import Tensor

from mtl_lib import optim
from mtl_lib.handbook.checks.framework import Case, Exercise, Mistake, call
from mtl_lib.handbook.checks.precise import question
from mtl_lib.study import terms

# class_weights

Labels = dict[str, np.ndarray]


def class_weights(labels: Labels, num_classes: int) -> Tensor:
    """`terms.class_weights` of the training labels: `[K]`."""
    return terms.class_weights(labels["train"], num_classes)


def _counts(labels: np.ndarray, num_classes: int) -> np.ndarray:
    return np.bincount(labels, minlength=num_classes).astype(float)


def _weights(of: Callable[[np.ndarray, int], np.ndarray]) -> Callable:
    """A variant: weights `[K]` from the counts `[K]`, TC and K, and 0 for an empty class."""

    def variant(labels: Labels, num_classes: int) -> np.ndarray:
        counts = _counts(labels["train"], num_classes)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(counts > 0, of(counts, counts.sum(), num_classes), 0)

    return variant


def _of_development(labels: Labels, num_classes: int) -> Tensor:
    return terms.class_weights(labels["dev"], num_classes)


def _of_both(labels: Labels, num_classes: int) -> Tensor:
    return terms.class_weights(np.concatenate([labels["train"], labels["dev"]]), num_classes)


def _infinite(labels: Labels, num_classes: int) -> np.ndarray:
    counts = _counts(labels["train"], num_classes)
    with np.errstate(divide="ignore"):
        return counts.sum() / (num_classes * counts)


def _at_least_one(labels: Labels, num_classes: int) -> np.ndarray:
    counts = _counts(labels["train"], num_classes)
    return counts.sum() / (num_classes * np.maximum(counts, 1))


def _of_present_classes(labels: Labels, num_classes: int) -> np.ndarray:
    counts = _counts(labels["train"], num_classes)
    return _weights(lambda c, total, k: total / ((c > 0).sum() * c))(labels, len(counts))


def _only_present(labels: Labels, num_classes: int) -> np.ndarray:
    counts = _counts(labels["train"], num_classes)
    return counts.sum() / (num_classes * counts[counts > 0])


def _last_forgotten(empty: float) -> Callable:
    """A variant: counts as long as the largest label that occurs; `empty` for an empty class."""

    def variant(labels: Labels, num_classes: int) -> np.ndarray:
        counts = np.bincount(labels["train"])
        return np.where(counts > 0, counts.sum() / (num_classes * np.maximum(counts, 1)), empty)

    return variant


def _one_if_empty(labels: Labels, num_classes: int) -> np.ndarray:
    weights = class_weights(labels, num_classes).numpy()
    return np.where(weights > 0, weights, 1)


def _per_example(labels: Labels, num_classes: int) -> np.ndarray:
    return class_weights(labels, num_classes).numpy()[labels["train"]]


def _labels(train: list[int], dev: list[int]) -> Labels:
    """Labels in mixed order, with this many of each class."""
    draw = np.random.default_rng(9)
    return {
        split: draw.permutation(np.repeat(np.arange(len(counts)), counts))
        for split, counts in (("train", train), ("dev", dev))
    }


_FIVE = _labels([12, 40, 25, 3, 20], [9, 9, 14, 5, 3])

CLASS_WEIGHTS = Exercise(
    name="class_weights",
    chapter=9,
    title="weights for rare classes",
    section="Training and evaluation",
    difficulty=2,
    importance=3,
    minutes=10,
    task="""
Write `class_weights(labels, num_classes)`: `labels["train"]` and `labels["dev"]` are integer arrays
with the labels 0 to K - 1 of each split, `num_classes` is K. Return `[K]`, each class's weight by
the paper's formula $W_i = TC / (K \\cdot C_i)$, where TC examples are in the set that the formula
speaks of, $C_i$ of them in class i. A class without examples gets the weight 0.
""",
    hint="Read the paper's sentence about the set once more. What is the mean weight over all "
    "examples of that set?",
    reference=class_weights,
    cases=(
        question("five classes", _FIVE, 5),
        question("three classes", _labels([5, 1, 2], [2, 2, 4]), 3),
        question("an empty class", _labels([4, 0, 6, 10], [3, 2, 1, 4]), 4),
        question("the last class is empty", _labels([4, 6, 10], [3, 2, 1, 4]), 5),
        question("balanced", _labels([7, 7], [1, 5]), 2),
    ),
    mistakes=(
        Mistake(
            _of_development,
            "These are the weights of the development set, which is there to judge, not to train.",
        ),
        Mistake(
            _of_both,
            "The development labels are counted too; they are there to judge, not to train.",
        ),
        Mistake(
            _weights(lambda c, total, k: k * c / total),
            "It is upside down: frequent classes get the large weights.",
        ),
        Mistake(
            _weights(lambda c, total, k: c / total),
            "These are the shares of the classes: frequent classes get the large weights.",
        ),
        Mistake(
            _weights(lambda c, total, k: total / c),
            "K is missing: the mean weight over the training examples would be K, not 1.",
        ),
        Mistake(
            _weights(lambda c, total, k: 1 / c),
            "It gives 1 / C_i; the factor TC / K keeps the mean weight over the examples at 1.",
        ),
        Mistake(
            _weights(lambda c, total, k: 1 / c / (1 / c[c > 0]).sum()),
            "The weights add up to 1; by the formula their mean over the training *examples* is 1.",
        ),
        Mistake(
            _weights(lambda c, total, k: k / c / (1 / c[c > 0]).sum()),
            "The weights add up to K; by the formula their mean over the training *examples* is 1.",
        ),
        Mistake(
            _weights(lambda c, total, k: (c > 0).sum() / c / (1 / c[c > 0]).sum()),
            "The mean weight over the classes is 1; by the formula that over the training "
            "*examples* is.",
        ),
        Mistake(
            _weights(lambda c, total, k: c.max() / c),
            "The most frequent class has the weight 1; by the formula the mean weight over the "
            "training *examples* is 1.",
        ),
        Mistake(
            _per_example,
            "It gives a weight for each example; asked is one for each class.",
        ),
        *(
            Mistake(
                _last_forgotten(empty),
                "Classes behind the last label that occurs are left out: count K of them "
                "(`minlength` of `np.bincount`).",
            )
            for empty in (0, np.inf)
        ),
        Mistake(_one_if_empty, "A class without examples gets the weight 1; asked is 0."),
        Mistake(
            _infinite,
            "A class without examples gets an infinite weight; one such class and every loss is "
            "NaN.",
        ),
        Mistake(
            _at_least_one,
            "A class without examples is counted as if it had one, and gets the largest weight.",
        ),
        Mistake(
            _of_present_classes,
            "It divides by the number of classes that occur; K counts all of them.",
        ),
        Mistake(
            _only_present,
            "Classes without examples are left out, so the weights no longer line up with labels.",
        ),
    ),
    notes="Counting the development labels in (or only them) is the leak this exercise is about; "
    "the paper's own shares are of both sets together. scikit-learn's `balanced` divides by the "
    "classes that occur. 2 points.",
)


# linear_warmup


def _schedule(before: Callable, after: Callable) -> Callable:
    """A variant: the factor before and from the end of the warm-up, from (s, w, t)."""

    def variant(step: int, warmup_steps: int, total_steps: int) -> float:
        part = before if step < warmup_steps else after
        return part(step, warmup_steps, total_steps)

    return variant


def _up(s: int, w: int, t: int) -> float:
    return s / w


def _down(s: int, w: int, t: int) -> float:
    return max(0.0, (t - s) / (t - w))


def _ask_schedule(warmup: int, total: int, last: int) -> Case:
    def ask(answer: Callable) -> dict[str, float]:
        steps = range(last + 1)
        return {f"at step {step}": float(call(answer, step, warmup, total)) for step in steps}

    return Case(f"warm-up {warmup}, total {total}, steps 0 to {last}", ask)


LINEAR_WARMUP = Exercise(
    name="linear_warmup",
    chapter=9,
    title="up, then down",
    section="Training and evaluation",
    difficulty=1,
    importance=2,
    minutes=5,
    task="""
Write `linear_warmup(step, warmup_steps, total_steps)`: three whole numbers to the factor of the
learning rate. `step` counts optimizer steps taken so far, 0 before the first. The factor rises
linearly from 0 to 1, which it reaches at `warmup_steps`, falls linearly to 0, which it reaches at
`total_steps`, and stays 0. `warmup_steps` may be 0: then the factor starts at 1. `warmup_steps` is
below `total_steps`.
""",
    hint="Two straight lines. Write down where each begins and ends; how many steps lie between?",
    reference=optim.linear_warmup,
    cases=(
        _ask_schedule(4, 10, 13),
        _ask_schedule(1, 6, 8),
        _ask_schedule(0, 5, 7),
        _ask_schedule(9, 10, 11),
    ),
    mistakes=(
        Mistake(
            _schedule(lambda s, w, t: s // w, _down),
            "It is stuck at 0 during the warm-up: whole-number division.",
        ),
        Mistake(
            _schedule(_up, lambda s, w, t: max(0, (t - s) // (t - w))),
            "It falls to 0 right after the warm-up: whole-number division.",
        ),
        Mistake(
            _schedule(lambda s, w, t: s // w, lambda s, w, t: max(0, (t - s) // (t - w))),
            "It is 1 at the end of the warm-up and 0 elsewhere: whole-number division.",
        ),
        Mistake(
            lambda step, *others: optim.linear_warmup(step, *others) if step else 0.0,
            "It starts at 0 also without a warm-up; then the factor starts at 1.",
        ),
        Mistake(
            lambda step, warmup_steps, total_steps: 0.0,
            "It is stuck at 0: nothing would ever be learned.",
        ),
        Mistake(
            _schedule(lambda s, w, t: (s + 1) / w, _down),
            "The warm-up is a step ahead: before the first step the factor is 0.",
        ),
        *(
            Mistake(
                _schedule(_up, fall),
                "After the warm-up it jumps: the fall begins at 1, and has total - warm-up steps.",
            )
            for fall in (lambda s, w, t: max(0.0, (t - s) / t), lambda s, w, t: (t - s) / t)
        ),
        Mistake(
            _schedule(lambda s, w, t: s / w * (t - s) / t, lambda s, w, t: max(0.0, (t - s) / t)),
            "It multiplies the rise with a fall that has begun at step 0; the fall begins at the "
            "end of the warm-up.",
        ),
        Mistake(
            _schedule(_up, lambda s, w, t: (t - s) / (t - w)),
            "Beyond the last step the factor is negative: the optimizer would climb.",
        ),
        Mistake(
            _schedule(_up, lambda s, w, t: 1.0),
            "It never falls.",
        ),
        Mistake(
            _schedule(_up, lambda s, w, t: max(0.0, 1 - (s - w) / t)),
            "It falls too slowly: total - warm-up steps are left for it.",
        ),
        Mistake(
            _schedule(lambda s, w, t: 1 - s / w, lambda s, w, t: min(1.0, (s - w) / (t - w))),
            "It falls first and rises then.",
        ),
        Mistake(
            lambda step, warmup_steps, total_steps: max(0.0, (total_steps - step) / total_steps),
            "There is no warm-up: it falls from the first step on.",
        ),
    ),
    notes="Off by one at either end is the usual fault; without a warm-up many divide by zero. "
    "Steps, not epochs: with a factor per epoch the first epoch runs at rate 0. 1 point.",
)


# selection_bias

_AXES = "It averages before the maximum: in each repeat a winner is picked by that repeat's scores."


def selection_bias(selecting: np.ndarray, fresh: np.ndarray) -> float:
    """Mean over repeats of the winner's score where it won, minus its score elsewhere."""
    return float(_differences(np.asarray(selecting), np.asarray(fresh)).mean())


def _differences(selecting: np.ndarray, fresh: np.ndarray) -> np.ndarray:
    winners = selecting.argmax(axis=1)  # [R]
    repeats = np.arange(len(winners))
    return selecting[repeats, winners] - fresh[repeats, winners]


def _overall_winner(selecting: np.ndarray, fresh: np.ndarray) -> float:
    winner = selecting.mean(axis=0).argmax()
    return float((selecting[:, winner] - fresh[:, winner]).mean())


_RANDOM = np.random.default_rng(10)
_SKILL = np.array([0.50, 0.52, 0.47, 0.51])
_SELECTING, _FRESH = (_SKILL + 0.02 * _RANDOM.normal(size=(30, 4)) for _ in range(2))

SELECTION_BIAS = Exercise(
    name="selection_bias",
    chapter=9,
    title="the winner's bias",
    difficulty=2,
    importance=4,
    minutes=10,
    task="""
Write `selection_bias(selecting, fresh)`: two arrays `[R, M]` with the scores of M models in R
repeats of an experiment, on the split that selects and on one that took no part in it. In each
repeat the model with the best selecting score wins. Return a number: by how much, on average over
the repeats, the winner's selecting score exceeds *its own* score on the fresh split.
""",
    hint="In each repeat you need to know *who* won, not only with what score.",
    reference=selection_bias,
    cases=(
        question("thirty repeats, four models", _SELECTING, _FRESH, atol=1e-9),
        question("the first five repeats", _SELECTING[:5], _FRESH[:5], atol=1e-9),
        question("two models", _SELECTING[:, 2:], _FRESH[:, 2:], atol=1e-9),
        question("one repeat", _SELECTING[7:8], _FRESH[7:8], atol=1e-9),
        question("one model", _SELECTING[:, :1], _FRESH[:, :1], atol=1e-9),
        question("negative scores", _SELECTING - 1, _FRESH - 1, atol=1e-9),
    ),
    mistakes=(
        Mistake(
            lambda selecting, fresh: float((selecting.max(axis=1) - fresh.max(axis=1)).mean()),
            "It lets the fresh split pick a winner of its own; the one judged is the one selected.",
        ),
        Mistake(
            lambda selecting, fresh: -selection_bias(fresh, selecting),
            "The winner is picked on the fresh split; it is the selecting scores that pick it.",
        ),
        Mistake(
            _differences,
            "It gives a number for each repeat; asked is their mean.",
        ),
        Mistake(
            lambda selecting, fresh: float(np.median(_differences(selecting, fresh))),
            "It takes the median over the repeats; asked is the average.",
        ),
        Mistake(
            lambda selecting, fresh: float(selecting.max() - fresh.flat[selecting.argmax()]),
            "It looks at one repeat only, that with the highest score of all; each repeat has a "
            "winner.",
        ),
        Mistake(
            lambda selecting, fresh: 0.0,
            "It is always 0, as if the winner were judged on the split that selected it.",
        ),
        Mistake(_overall_winner, _AXES),
        Mistake(
            lambda selecting, fresh: float(selecting.mean(axis=0).max() - fresh.mean(axis=0).max()),
            _AXES,
        ),
        Mistake(
            lambda selecting, fresh: float((selecting.max(axis=1) - selecting.mean(axis=1)).mean()),
            "It compares the winner with the other models on the selecting split; asked is the "
            "same model on fresh data.",
        ),
        Mistake(
            lambda selecting, fresh: float((selecting.max(axis=1) - fresh.mean(axis=1)).mean()),
            "It compares the winner with the mean of all models on the fresh split; asked is the "
            "same model.",
        ),
        Mistake(
            lambda selecting, fresh: -selection_bias(selecting, fresh),
            "The sign is wrong: a winner looks better where it won.",
        ),
        Mistake(
            lambda selecting, fresh: float((selecting - fresh).mean()),
            "It averages over all models; nobody has been selected.",
        ),
        Mistake(
            lambda selecting, fresh: float((selecting - fresh).max(axis=1).mean()),
            "It picks the model with the largest *difference*; the one with the best selecting "
            "score wins.",
        ),
        Mistake(
            lambda selecting, fresh: float(
                np.abs(
                    selecting.max(axis=1)
                    - np.take_along_axis(fresh, selecting.argmax(axis=1)[:, None], axis=1)[:, 0]
                ).mean()
            ),
            "It averages sizes of differences; where the winner does better on fresh data, the "
            "difference counts as negative.",
        ),
        Mistake(
            lambda selecting, fresh: float(
                (
                    selecting.max(axis=0) - fresh[selecting.argmax(axis=0), range(fresh.shape[1])]
                ).mean()
            ),
            "It looks for the best repeat of each model; asked is the best model of each repeat.",
        ),
    ),
    notes="Taking the maximum on both splits is the natural shortcut; with equally good models it "
    "gives 0 in the mean and so hides the whole effect. 3 points.",
)


EXERCISES = (CLASS_WEIGHTS, LINEAR_WARMUP, SELECTION_BIAS)
