"""Exercise of chapter 00: two lines, to see a mistake named and mend it."""

import torch
from torch import Tensor

from mtl_lib.handbook.checks.framework import Case, Exercise, Mistake, call


def share_right(predicted: Tensor, labels: Tensor) -> float:
    """Share of the examples `[N]` whose predicted label is the true one, 0 to 1."""
    return (predicted == labels).double().mean().item()


def only_the_yes(predicted: Tensor, labels: Tensor) -> float:
    """The answer that chapter 00 begins with: a right "no" counts as wrong."""
    right = (predicted == 1) & (labels == 1)
    return right.double().mean().item()


def _asks(predicted: list[int], labels: list[int]):
    return lambda answer: call(answer, torch.tensor(predicted), torch.tensor(labels))


EXERCISES = (
    Exercise(
        name="share_right",
        chapter=0,
        title="the share of right answers",
        difficulty=1,
        importance=3,
        minutes=3,
        task="""
Write `share_right(predicted, labels)`. Both are tensors `[N]` of labels: 0 for no and 1 for yes, or
the classes 0 to 4. Return the share of the N examples whose predicted label is the true one: a
number from 0 to 1.

There is an answer in the cell already, and it is wrong. Run it, read what the check says, mend it.
""",
        hint="""
A question pair rightly called *different* is a right answer too. Which comparison is true for both
kinds?
""",
        reference=share_right,
        cases=(
            Case(
                "eight pairs, yes or no", _asks([1, 0, 1, 0, 0, 1, 0, 0], [1, 0, 0, 1, 0, 1, 0, 0])
            ),
            Case("five classes", _asks([4, 0, 2, 1, 3, 3, 2], [4, 1, 2, 1, 0, 4, 3])),
            Case("all right", _asks([2, 0, 3], [2, 0, 3])),
            Case("none right", _asks([0, 1, 0, 0], [1, 0, 1, 4])),
            Case("one example", _asks([3], [3])),
        ),
        mistakes=(
            Mistake(
                only_the_yes,
                "It counts the examples rightly called 1 and no others: one rightly called 0 is "
                "right too.",
            ),
            Mistake(
                lambda predicted, labels: (predicted == labels).double().sum().item(),
                "This is the number of right answers, not their share.",
            ),
            Mistake(
                lambda predicted, labels: 100 * (predicted == labels).double().mean().item(),
                "This is a percentage: a share lies between 0 and 1.",
            ),
            Mistake(
                lambda predicted, labels: (predicted != labels).double().mean().item(),
                "This is the share of the wrong answers.",
            ),
            Mistake(
                lambda predicted, labels: (
                    ((predicted == 1) & (labels == 1)).sum() / (labels == 1).sum()
                ).item(),
                "It looks only at the examples whose label is 1 (their share is called recall): "
                "count the others too.",
            ),
            Mistake(
                lambda predicted, labels: (
                    ((predicted == 1) & (labels == 1)).sum() / (predicted == 1).sum()
                ).item(),
                "It looks only at the examples predicted as 1 (their share is called precision): "
                "count the others too.",
            ),
        ),
        notes="""
The cell begins with the body of `only_the_yes`, so that everybody sees a mistake named once.
1 point.
""",
    ),
)
