"""Exercises of chapter 09: choosing."""

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mtl_lib.handbook.checks.framework import Case, Exercise, Mistake, call
from mtl_lib.handbook.checks.precise import precisely, question
from mtl_lib.methods import rates
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
        found = {f"at step {n}": call(answer, n, warmup, total) for n in range(last + 1)}
        return {at: value if value is None else float(value) for at, value in found.items()}

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
    reference=rates.linear_warmup,
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
            lambda step, *others: rates.linear_warmup(step, *others) if step else 0.0,
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
            lambda s, w, t: max(0.0, min(s / w if w else 1.0, (t - s) / t)),
            "It is the lower of two lines, but the second begins to fall at step 0; the fall "
            "begins at the end of the warm-up.",
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
        Mistake(
            lambda selecting, fresh: float(
                (selecting.max(axis=1) - fresh[:, selecting.argmax(axis=1)]).mean()
            ),
            "`fresh[:, winners]` takes every winner from *every* repeat, a table [R, R]; each "
            "winner is judged in its own repeat alone.",
        ),
    ),
    notes="Taking the maximum on both splits is the natural shortcut; with equally good models it "
    "gives 0 in the mean and so hides the whole effect. 3 points.",
)


# train_and_keep_best


def train_and_keep_best(
    model: nn.Module,
    optimizer: Any,
    take_step: Callable[[], Any],
    score: Callable[[], float],
    steps: int,
    warmup_steps: int,
    every: int,
) -> list[tuple[int, float]]:
    """Train under a schedule and leave the model with its best weights.

    Args:
        optimizer: its `lr` is the rate that the schedule's factor multiplies; as before afterwards.
        take_step: takes one step with the optimizer.
        score: the model's score on the development set; higher is better, NaN is never the best.
        steps, warmup_steps: as in `rates.linear_warmup`.
        every: steps between two scores; the last step is scored as well.

    Returns:
        Steps taken and score, of every time the model was scored.
    """
    rate, history = optimizer.lr, []
    best, weights = -math.inf, copy.deepcopy(model.state_dict())
    for step in range(1, steps + 1):
        optimizer.lr = rate * rates.linear_warmup(step - 1, warmup_steps, steps)
        take_step()
        if step % every and step < steps:
            continue
        found = score()
        history.append((step, found))
        if found > best:
            best, weights = found, copy.deepcopy(model.state_dict())
    model.load_state_dict(weights)
    optimizer.lr = rate
    return history


class _Notes:
    """A model of two weights, an optimizer that moves them, and what happened to them."""

    def __init__(self, scores: Sequence[float], rate: float) -> None:
        self.model = nn.Linear(1, 1)
        with torch.no_grad():
            self.model.weight.zero_()
            self.model.bias.fill_(1.0)
        self.scores, self.lr = scores, rate
        self.rates: list[float] = []
        self.asked: list[int] = []

    def take_step(self) -> list[float]:
        self.rates.append(float(self.lr))
        with torch.no_grad():
            self.model.weight += self.lr
            self.model.bias *= 0.5
        return [0.0]

    def score(self) -> float:
        self.asked.append(len(self.rates))
        return self.scores[min(len(self.asked), len(self.scores)) - 1]


def _ask_training(
    scores: Sequence[float], steps: int, warmup: int, every: int, rate: float = 0.5
) -> Callable:
    """Everything that can be seen of a training from outside."""

    def ask(answer: Callable) -> dict:
        notes = _Notes(scores, rate)
        history = answer(notes.model, notes, notes.take_step, notes.score, steps, warmup, every)
        return {
            "rate of each step": notes.rates,
            "scored after how many steps": notes.asked,
            "returned": history,
            "final weight": notes.model.weight,
            "final bias": notes.model.bias,
            "rate of the optimizer afterwards": notes.lr,
        }

    return precisely(ask)


def _training(
    rate_of: Callable = lambda rate, step, warmup, steps, current: (
        rate * rates.linear_warmup(step - 1, warmup, steps)
    ),
    scored: Callable = lambda step, every, steps: step % every == 0 or step == steps,
    better: Callable = lambda found, best: found > best,
    start: float = -math.inf,
    after: bool = False,
    restore: bool = True,
    reset: bool = True,
    first: bool = False,
    stop: bool = False,
    back: bool = False,
) -> Callable:
    """A variant of the training."""

    def variant(model, optimizer, take_step, score, steps, warmup_steps, every):
        rate, history = optimizer.lr, []
        best, weights = start, copy.deepcopy(model.state_dict())
        for step in range(0 if first else 1, steps + 1):
            if step:
                if not after:
                    optimizer.lr = rate_of(rate, step, warmup_steps, steps, optimizer.lr)
                take_step()
                if after:
                    optimizer.lr = rate_of(rate, step, warmup_steps, steps, optimizer.lr)
            if not scored(step, every, steps):
                continue
            found = score()
            history.append((step, found))
            if better(found, best):
                best, weights = found, copy.deepcopy(model.state_dict())
            elif stop:
                break
            elif back:
                model.load_state_dict(weights)
        if restore:
            model.load_state_dict(weights)
        if reset:
            optimizer.lr = rate
        return history

    return variant


def _greatest_of_list(model, optimizer, take_step, score, steps, warmup_steps, every):
    """The best is where numpy's argmax says, for which NaN is the greatest."""
    kept = []

    def noted() -> float:
        found = score()
        kept.append((found, copy.deepcopy(model.state_dict())))
        return found

    history = train_and_keep_best(model, optimizer, take_step, noted, steps, warmup_steps, every)
    model.load_state_dict(kept[int(np.argmax([found for found, _ in kept]))][1])
    return history


def _last_twice(model, optimizer, take_step, score, steps, warmup_steps, every):
    """A multiple of `every` and the last step are asked apart, and so it is scored for both."""
    history = train_and_keep_best(model, optimizer, take_step, score, steps, warmup_steps, every)
    return [*history, (steps, score())] if steps % every == 0 else history


def _best_only(*arguments):
    history = train_and_keep_best(*arguments)
    return max(history, key=lambda entry: entry[1])


def _scores_only(*arguments):
    return [found for _, found in train_and_keep_best(*arguments)]


def _no_rate(rate, step, warmup, steps, current):
    return current


_SCORES = (0.3, 0.5, 0.45, 0.5, 0.4)

TRAIN_AND_KEEP_BEST = Exercise(
    name="train_and_keep_best",
    chapter=9,
    title="a training that ends with its best weights",
    section="Training and evaluation",
    difficulty=4,
    importance=5,
    minutes=25,
    task="""
Your `train_tasks` of chapter 05 takes every step at one rate and ends with whatever the last step
left. Write `train_and_keep_best(model, optimizer, take_step, score, steps, warmup_steps, every)`:

- `take_step()` takes one step with the optimizer, such as your `joint_step` on the next batches.
  Call it `steps` times. Before each, set `optimizer.lr` to the rate that the optimizer came with
  times `linear_warmup` of the steps taken so far.
- After every `every` steps, and after the last one, call `score()` once: the model's score on the
  development set. Higher is better. A NaN is never the best.
- At the end the model has the weights it had at its best score, at the earliest of equal ones, and
  `optimizer.lr` is as it came.
- Return a list of `(steps taken, score)`, one for each time it was scored.

Weights are what `model.state_dict()` holds.
""",
    hint="`state_dict()` hands out the weights themselves, not a copy: what happens to them in the "
    "next step? `copy.deepcopy` helps. What is `nan > 0.5`?",
    reference=train_and_keep_best,
    cases=(
        Case("ten steps, scored every two", _ask_training(_SCORES, 10, 4, 2)),
        Case("the last step is no multiple", _ask_training((0.2, 0.6, 0.1, 0.7), 11, 3, 3)),
        Case("no warm-up, best at once", _ask_training((0.9, 0.5, 0.4), 6, 0, 2, rate=0.1)),
        Case("a NaN first", _ask_training((math.nan, 0.2, 0.1), 6, 2, 2)),
        Case("a NaN later", _ask_training((0.4, math.nan, 0.3, 0.1), 8, 2, 2)),
        Case("negative scores", _ask_training((-0.5, -0.2, -0.3), 9, 1, 3)),
        Case("scored at the end only", _ask_training((0.4,), 5, 1, 9)),
    ),
    mistakes=(
        Mistake(
            _training(restore=False),
            "The model ends with the weights of the last step; asked are those of the best score. "
            "If you do put weights back, they are no copy: `state_dict()` hands out the weights "
            "themselves, which every later step changes. Or they are another model's: "
            "`model = best` only gives the name to it.",
        ),
        Mistake(
            _training(
                rate_of=lambda rate, step, warmup, steps, current: (
                    current * rates.linear_warmup(step - 1, warmup, steps)
                )
            ),
            "The factors pile up: each step multiplies the rate that the step before has left. "
            "Multiply the rate that the optimizer came with.",
        ),
        Mistake(
            _training(
                rate_of=lambda rate, step, warmup, steps, current: (
                    rate * rates.linear_warmup(step, warmup, steps)
                )
            ),
            "The schedule is a step ahead: before the first step no step has been taken.",
        ),
        Mistake(
            _training(after=True),
            "The rate is set after the step, so the first step has the full rate, and the others "
            "are a step behind.",
        ),
        Mistake(
            _training(
                after=True,
                rate_of=lambda rate, step, warmup, steps, current: (
                    rate * rates.linear_warmup(step, warmup, steps)
                ),
            ),
            "The rate is set after the step: the first step has the full rate, whatever the "
            "warm-up.",
        ),
        Mistake(_training(rate_of=_no_rate), "The rate never changes: the schedule is missing."),
        Mistake(
            _training(
                rate_of=lambda rate, step, warmup, steps, current: rates.linear_warmup(
                    step - 1, warmup, steps
                )
            ),
            "The rate is the factor alone; multiply the rate that the optimizer came with by it.",
        ),
        Mistake(
            _training(back=True),
            "After a score that is no better it goes on from the best weights; put them back once, "
            "at the end.",
        ),
        Mistake(
            _last_twice,
            "The last step is scored twice where it is a multiple of `every`; asked is once.",
        ),
        Mistake(
            _training(reset=False),
            "The optimizer keeps the rate of the last step; afterwards it is to be as it came.",
        ),
        Mistake(
            _training(better=lambda found, best: found >= best),
            "Of equal scores the latest wins; asked is the earliest.",
        ),
        Mistake(
            _training(better=lambda found, best: not found <= best),
            "A NaN wins: no comparison with it is true, so ask whether the new score *is* higher.",
        ),
        Mistake(
            _training(better=lambda found, best: math.isinf(best) or found > best),
            "The first score is the best so far whatever it is, and a NaN in its place is never "
            "beaten: no comparison with a NaN is true.",
        ),
        Mistake(
            _training(start=math.nan),
            "The best starts at NaN, which no score beats: no comparison with a NaN is true.",
        ),
        Mistake(
            _training(start=0.0),
            "The best starts at 0, which no negative score beats; Pearson's r may be negative.",
        ),
        Mistake(
            _greatest_of_list,
            "A NaN wins: for `np.argmax` it is the greatest number of all.",
        ),
        Mistake(
            _training(better=lambda found, best: found < best or math.isinf(best)),
            "The lowest score wins; higher is better.",
        ),
        Mistake(
            _training(scored=lambda step, every, steps: step % every == 0),
            "The last step is not scored where it is no multiple of `every`.",
        ),
        Mistake(
            _training(scored=lambda step, every, steps: True),
            "It scores after every step; asked is every `every` steps.",
        ),
        Mistake(
            _training(scored=lambda step, every, steps: step % every == 1 or step == steps),
            "It scores a step after the multiples of `every`.",
        ),
        Mistake(
            _training(first=True),
            "It scores the model before the first step too; asked are scores after steps.",
        ),
        Mistake(
            _training(stop=True),
            "It stops at the first score that is no better; asked is to take all steps.",
        ),
        Mistake(_best_only, "It returns the best entry only; asked is the whole list."),
        Mistake(_scores_only, "It returns the scores alone; asked are pairs (steps taken, score)."),
    ),
    notes="Aliasing is the fault that teaches: without a copy of `state_dict()` the last weights "
    "come back, and no number in the log shows it. 5 points.",
)


# choose_and_report


def choose_and_report(dev: np.ndarray, test: np.ndarray) -> tuple[int, np.ndarray]:
    """The epoch with the best mean development score, and the test scores of that epoch.

    Args:
        dev, test: scores of each epoch and task, `[E, T]`; NaN counts as 0 in the choice.

    Returns:
        The epoch, the first of equals, and its test scores `[T]`.
    """
    epoch = int(np.nan_to_num(dev, nan=0.0).mean(axis=1).argmax())
    return epoch, test[epoch]


def _reported(
    choose: Callable[[np.ndarray, np.ndarray], Any] | None = None,
    scores: Callable[[np.ndarray, np.ndarray, Any], Any] = lambda dev, test, epoch: test[epoch],
) -> Callable:
    """A variant: another choice of the epoch, or other scores of it."""

    def variant(dev: np.ndarray, test: np.ndarray) -> tuple[Any, Any]:
        epoch = choose(dev, test) if choose else choose_and_report(dev, test)[0]
        return epoch, scores(dev, test, epoch)

    return variant


def _zeros(scores: np.ndarray) -> np.ndarray:
    return np.nan_to_num(scores, nan=0.0)


def _each_its_own(dev: np.ndarray, test: np.ndarray) -> np.ndarray:
    return _zeros(dev).argmax(axis=0)


def _of_each(dev: np.ndarray, test: np.ndarray, epochs: np.ndarray) -> np.ndarray:
    return test[epochs, np.arange(test.shape[1])]


def _better_of_two(dev: np.ndarray, test: np.ndarray, epoch: Any) -> np.ndarray:
    return np.maximum(test[epoch], test[-1])


def colleague(dev: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The report of the bug hunt, with its three faults."""
    epochs = dev.argmax(axis=0)
    scores = test[epochs, np.arange(dev.shape[1])]
    return epochs, np.maximum(scores, test[-1])


_DRAWN = np.random.default_rng(11).normal([0.72, 0.48, 0.38], 0.03, size=(2, 7, 3)).round(3)
_WITH_NAN = _DRAWN.copy()
_WITH_NAN[0, 0, 2] = math.nan  # a constant answer in the first epoch
_WITH_NAN[0, 0, :2] = 0.8, 0.6
_POOR_NAN, _GOOD_NAN = _DRAWN.copy(), _DRAWN.copy()
_POOR_NAN[0, 3] = 0.3, 0.2, math.nan
_GOOD_NAN[0, 5] = 0.99, 0.98, math.nan
_NAN_CHOSEN = _GOOD_NAN.copy()
_NAN_CHOSEN[1, 5, 2] = math.nan
_EQUAL = np.array([[0.5, 0.5], [0.75, 0.5], [0.5, 0.75], [0.25, 0.5]])
_NEGATIVE = _DRAWN[::-1, :, 2:] - 0.6
_SURE = [(_DRAWN[n], _DRAWN[1 - n]) for n in (0, 1)]

_OWN_EPOCHS = (
    "Every task has an epoch of its own: these are scores of {} models, and no single model has "
    "them all."
)

CHOOSE_AND_REPORT = Exercise(
    name="choose_and_report",
    chapter=9,
    title="bug hunt: a report that flatters",
    difficulty=2,
    importance=5,
    minutes=10,
    task="""
The function above reports what a run of E epochs has reached. Three faults are in it, and no error
is raised. Find them, then write `choose_and_report(dev, test)`:

- `dev` and `test` are arrays `[E, T]`: development and test scores of T tasks after each epoch.
- Choose *one* epoch, that with the highest mean of its T development scores, the first of equals.
  A score that is NaN counts as 0.
- Return `(epoch, scores)`: its number, from 0, and its T test scores `[T]`, as they are.
""",
    hint="Which epochs does `argmax` look at, and what does it do with a NaN? Whose scores are in "
    "the array that is returned: of how many models? Which array may the choice see?",
    reference=choose_and_report,
    cases=(
        question("seven epochs, three tasks", *_SURE[0], atol=1e-9),
        question("seven other epochs", *_SURE[1], atol=1e-9),
        question("a constant answer: its Pearson's r is NaN", *_WITH_NAN, atol=1e-9),
        question("a NaN in a poor epoch", *_POOR_NAN, atol=1e-9),
        question("best even with a 0 for its NaN", *_GOOD_NAN, atol=1e-9),
        question("a NaN among the scores to report", *_NAN_CHOSEN, atol=1e-9),
        question("equal averages", _EQUAL, _EQUAL[::-1].copy(), atol=1e-9),
        question("one task", _DRAWN[0, :, 1:2], _DRAWN[1, :, 1:2], atol=1e-9),
        question("one epoch", _DRAWN[0, :1], _DRAWN[1, :1], atol=1e-9),
        question("negative correlations", *_NEGATIVE, atol=1e-9),
    ),
    mistakes=(
        Mistake(
            colleague,
            "All three faults are in it still: whose epoch it is, what a NaN does, and what the "
            "test scores may decide.",
        ),
        Mistake(_reported(_each_its_own, _of_each), _OWN_EPOCHS.format("up to T")),
        Mistake(
            _reported(lambda dev, test: dev.argmax(axis=0), _of_each),
            _OWN_EPOCHS.format("up to T") + " And a NaN wins: `argmax` takes it for the greatest.",
        ),
        Mistake(
            _reported(_each_its_own, lambda *of: np.maximum(_of_each(*of), of[1][-1])),
            _OWN_EPOCHS.format("up to T") + " And the test set still chooses between two of them.",
        ),
        Mistake(
            _reported(lambda dev, test: int(dev.mean(axis=1).argmax()), _better_of_two),
            "Two faults are left: a NaN wins, which here counts as 0, and where the last epoch is "
            "better on the test set, it reports that one.",
        ),
        Mistake(
            _reported(lambda dev, test: int(dev.mean(axis=1).argmax())),
            "A NaN wins: `argmax` takes it for the greatest number of all. Here it counts as 0.",
        ),
        Mistake(
            _reported(lambda dev, test: int(np.nanmean(dev, axis=1).argmax())),
            "A NaN is left out of the mean, so that epoch is judged by its other tasks alone. A "
            "constant answer counts as 0.",
        ),
        Mistake(
            _reported(lambda dev, test: int(np.nanargmax(dev.mean(axis=1)))),
            "An epoch with a NaN is not in the race at all; the NaN counts as 0, and the others "
            "may still win.",
        ),
        Mistake(
            _reported(scores=_better_of_two),
            "Where the last epoch is better on the test set, it reports that one: the test set has "
            "chosen.",
        ),
        Mistake(
            _reported(lambda dev, test: int(_zeros(test).mean(axis=1).argmax())),
            "The test set chooses the epoch. Then it is a second development set, and its scores "
            "flatter.",
        ),
        Mistake(
            _reported(lambda dev, test: int(_zeros(dev + test).mean(axis=1).argmax())),
            "The test scores have a part in the choice; only the development scores may.",
        ),
        Mistake(
            _reported(scores=lambda dev, test, epoch: dev[epoch]),
            "It reports the development scores, which have just made the choice and so flatter.",
        ),
        Mistake(
            _reported(lambda dev, test: len(dev) - 1),
            "It always takes the last epoch.",
        ),
        Mistake(
            _reported(
                lambda dev, test: len(dev) - 1 - int(_zeros(dev)[::-1].mean(axis=1).argmax())
            ),
            "Of equal averages it takes the last; asked is the first.",
        ),
        Mistake(
            _reported(lambda dev, test: int(_zeros(dev).max(axis=1).argmax())),
            "It chooses by one score of an epoch; asked is the mean of the T scores.",
        ),
        Mistake(
            _reported(lambda dev, test: int(_zeros(dev).mean(axis=0).argmax())),
            "It averages over the epochs, and so picks a task; asked is the mean over the tasks.",
        ),
        Mistake(
            _reported(lambda dev, test: int(_zeros(dev).mean(axis=1).clip(min=0).argmax())),
            "The best starts at 0, which no negative average beats; Pearson's r may be negative.",
        ),
        Mistake(
            _reported(scores=lambda dev, test, epoch: test[-1]),
            "It reports the last epoch's scores, whichever epoch it has chosen.",
        ),
        Mistake(
            _reported(scores=lambda dev, test, epoch: test[epoch].mean()),
            "It reports one average; asked are the T scores of that epoch.",
        ),
        Mistake(
            _reported(scores=lambda dev, test, epoch: _zeros(test)[epoch]),
            "A NaN is reported as 0. For the choice it counts as 0; the report gives what was "
            "measured, and a NaN says that there was nothing to measure.",
        ),
        Mistake(
            _reported(scores=lambda dev, test, epoch: test.max(axis=0)),
            "It reports the best test score of each task over all epochs: no model has them.",
        ),
    ),
    notes="The three faults are the usual ones of leaderboards: a checkpoint per task, a NaN that "
    "wins, the better of two on the test set. 3 points.",
)


EXERCISES = (
    CLASS_WEIGHTS,
    LINEAR_WARMUP,
    SELECTION_BIAS,
    TRAIN_AND_KEEP_BEST,
    CHOOSE_AND_REPORT,
)
