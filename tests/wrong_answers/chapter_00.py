"""Answers to the exercise of chapter 00."""

import numpy as np
from sklearn.metrics import accuracy_score
from wrong_answers.bank import Bank

bank = Bank()
wrong, right, WRONG, RIGHT = bank.wrong, bank.right, bank.WRONG, bank.RIGHT


@right("share_right")
def compared(predicted, labels):
    return (predicted == labels).float().mean()


@right("share_right")
def counted(predicted, labels):
    n = 0
    for p, y in zip(predicted.tolist(), labels.tolist(), strict=True):
        if p == y:
            n += 1
    return n / len(labels)


@right("share_right")
def in_numpy(predicted, labels):
    return np.mean(np.asarray(predicted) == np.asarray(labels))


@right("share_right")
def by_sklearn(predicted, labels):
    return accuracy_score(labels, predicted)


@right("share_right")
def one_minus_the_wrong_ones(predicted, labels):
    return 1 - (predicted != labels).sum() / predicted.numel()


@wrong("share_right", "rightly called 1 and no others")
def prefilled(predicted, labels):
    right = (predicted == 1) & (labels == 1)
    return right.float().mean()


@wrong("share_right", "rightly called 1 and no others")
def product_of_ones(predicted, labels):
    n = 0
    for p, y in zip(predicted, labels, strict=True):
        if p == 1 and y == 1:
            n += 1
    return n / len(predicted)


@wrong("share_right", "not their share")
def number_right(predicted, labels):
    return sum(int(p == y) for p, y in zip(predicted, labels, strict=True))


@wrong("share_right", "percentage")
def percent(predicted, labels):
    return 100 * (predicted == labels).sum().item() / len(labels)


@wrong("share_right", "share of the wrong answers")
def error_rate(predicted, labels):
    return (predicted != labels).float().mean()


@wrong("share_right", None)
def works_for_0_and_1_only(predicted, labels):
    return 1 - (predicted - labels).abs().float().mean()


@wrong("share_right", None)
def product(predicted, labels):
    return (predicted * labels).float().mean()


@wrong("share_right", None)
def truth_values(predicted, labels):
    return (predicted.bool() == labels.bool()).float().mean()


@wrong("share_right", None)
def divided_by_eight(predicted, labels):
    return (predicted == labels).sum() / 8


@wrong("share_right", "expected a number")
def all_of_them(predicted, labels):
    return bool((predicted == labels).all())


@wrong("share_right", "expected a single number")
def no_mean(predicted, labels):
    return (predicted == labels).float()


@wrong("share_right", "is a return missing?")
def no_return(predicted, labels):
    (predicted == labels).float().mean()


@wrong("share_right", "RuntimeError")
def mean_of_bools(predicted, labels):
    return (predicted == labels).mean()


@wrong("share_right", None)
def whole_division(predicted, labels):
    return (predicted == labels).sum().item() // len(labels)
