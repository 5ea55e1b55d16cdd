"""Exercises of chapter 10: per-class analysis."""

from collections.abc import Callable

import numpy as np
from scipy import stats
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax, softmax

from mtl_lib.handbook.checks.framework import Exercise, Mistake
from mtl_lib.handbook.checks.precise import question
from mtl_lib.study import paper

Scores = np.ndarray


def _normal(size: int, seed: int) -> Scores:
    return np.random.default_rng(seed).normal(size=size)


# per_class_accuracy


def per_class_accuracy(true: Scores, predicted: Scores, num_classes: int) -> np.ndarray:
    """Accuracy by true label, `[K]`: `by_label.per_class_report` for scores."""
    return _per_class()(true, predicted, num_classes)


def _half_to_even(scores: Scores, num_classes: int) -> np.ndarray:
    return np.clip(np.rint(scores), 0, num_classes - 1).astype(int)


def _shares(counted: np.ndarray, of: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return counted / np.where(of > 0, of, np.nan)


def _per_class(
    true_label: Callable = _half_to_even,
    predicted_label: Callable = _half_to_even,
    axis: int = 1,
    empty: float = np.nan,
) -> Callable:
    """A variant: how either score becomes a label; axis 1 sums the rows (true labels)."""

    def variant(true: Scores, predicted: Scores, num_classes: int) -> np.ndarray:
        matrix = np.zeros((num_classes, num_classes))  # [K, K]: true down, predicted across
        rows = true_label(np.asarray(true, float), num_classes)
        columns = predicted_label(np.asarray(predicted, float), num_classes)
        known = (columns >= 0) & (columns < num_classes)
        np.add.at(matrix, (rows[known], columns[known]), 1)
        sums = matrix.sum(axis=axis)
        if axis == 1:
            sums = np.bincount(rows, minlength=num_classes)
        return np.nan_to_num(_shares(matrix.diagonal(), sums), nan=empty)

    return variant


def _truncated(scores: Scores, num_classes: int) -> np.ndarray:
    return np.clip(scores, 0, num_classes - 1).astype(int)


def _half_up(scores: Scores, num_classes: int) -> np.ndarray:
    return np.clip(np.floor(scores + 0.5), 0, num_classes - 1).astype(int)


def _upwards(scores: Scores, num_classes: int) -> np.ndarray:
    return np.clip(np.ceil(scores), 0, num_classes - 1).astype(int)


def _not_clipped(scores: Scores, num_classes: int) -> np.ndarray:
    return np.rint(scores).astype(int)


def _cut_to_k(scores: Scores, num_classes: int) -> np.ndarray:
    return np.clip(np.rint(scores), 0, num_classes).astype(int)


def _share_of_all(true: Scores, predicted: Scores, num_classes: int) -> np.ndarray:
    rows, columns = _half_to_even(true, num_classes), _half_to_even(predicted, num_classes)
    right = np.bincount(rows[rows == columns], minlength=num_classes)
    return right / len(rows)


def _near_enough(true: Scores, predicted: Scores, num_classes: int) -> np.ndarray:
    rows = _half_to_even(true, num_classes)
    right = np.bincount(rows[np.abs(true - predicted) <= 0.5], minlength=num_classes)
    return _shares(right, np.bincount(rows, minlength=num_classes))


def _whole_only(true: Scores, predicted: Scores, num_classes: int) -> np.ndarray:
    """Accuracy where the true score is a whole number."""
    whole = true == np.rint(true)
    return per_class_accuracy(true[whole], predicted[whole], num_classes)


def _never_the_same(true: Scores, predicted: Scores, num_classes: int) -> np.ndarray:
    rows = _half_to_even(true, num_classes)
    right = np.bincount(rows[true == _half_to_even(predicted, num_classes)], minlength=num_classes)
    return _shares(right, np.bincount(rows, minlength=num_classes))


def _not_rounded(true: Scores, predicted: Scores, num_classes: int) -> np.ndarray:
    """Right is a prediction that is the label itself, to the last decimal."""
    rows = _half_to_even(true, num_classes)
    right = np.bincount(rows[rows == predicted], minlength=num_classes)
    return _shares(right, np.bincount(rows, minlength=num_classes))


def _one_against_the_rest(true: Scores, predicted: Scores, num_classes: int) -> np.ndarray:
    rows, columns = _half_to_even(true, num_classes), _half_to_even(predicted, num_classes)
    return np.array([np.mean((rows == k) == (columns == k)) for k in range(num_classes)])


def _without_empty(true: Scores, predicted: Scores, num_classes: int) -> np.ndarray:
    accuracy = per_class_accuracy(true, predicted, num_classes)
    return accuracy[~np.isnan(accuracy)]


_TRUE = np.array([0.0, 0.5, 1.5, 1.0, 2.5, 2.2, 3.8, 3.5, 4.5, 4.6, 5.0, 3.0, 2.0, 0.4, 4.0, 5.0])
_GUESS = np.array([-0.7, 1.2, 2.5, 1.4, 1.9, 3.5, 4.4, 2.6, 3.6, 4.9, 5.8, 2.8, 0.6, 0.5, 4.5, 4.2])
_LABELS = np.array([0, 0, 1, 1, 1, 2]), np.array([0, 1, 1, 1, 2, 2])
_MANY = 2.5 + 1.4 * _normal(200, seed=1).clip(-1.7, 1.7)
_MANY_GUESSES = 0.8 * _MANY + 0.6 + 0.7 * _normal(200, seed=2)

PER_CLASS_ACCURACY = Exercise(
    name="per_class_accuracy",
    chapter=10,
    title="accuracy by true label",
    difficulty=2,
    importance=4,
    minutes=10,
    task="""
Write `per_class_accuracy(true, predicted, num_classes)`: two float arrays `[N]` with scores, and K,
to `[K]`: of the examples whose true label is k, the share whose predicted label is k too.

A score's label is the score rounded to the nearest whole number, *half to even* (2.5 becomes 2, 3.5
becomes 4), and cut to 0 .. K - 1; true and predicted scores alike. A label that no example has gets
NaN, which says "not known".
""",
    hint="Round both first. Then, for one label: which examples are asked about, and which of "
    "*those* are right? Try by hand what your rounding makes of 0.5, 1.5 and 2.5.",
    reference=per_class_accuracy,
    cases=(
        question("sixteen pairs, six labels", _TRUE, _GUESS, 6),
        question("whole labels, three classes", *(x.astype(float) for x in _LABELS), 3),
        question("200 pairs", _MANY, _MANY_GUESSES, 6),
        question("a label without examples", _TRUE[:5], _GUESS[:5], 6),
        question("never right", _TRUE, 2 + (5 - _TRUE) % 2, 6),
        question("one prediction for all", _TRUE, np.full(16, 2.5), 6),
        question("predictions out of range", _TRUE, _TRUE + 0.9 * np.sign(_TRUE - 2.5), 6),
    ),
    mistakes=(
        Mistake(
            _per_class(axis=0),
            "It divides by how often a label is *predicted*, which is precision; asked are the "
            "examples that truly have it.",
        ),
        Mistake(
            _per_class(_truncated, _truncated),
            "It cuts the decimals off: 4.6 becomes 4. Round to the nearest whole number.",
        ),
        Mistake(
            _per_class(_truncated, _half_to_even),
            "The true scores are read as whole numbers: 4.6 becomes 4. They are rounded like the "
            "predicted ones.",
        ),
        Mistake(
            _not_rounded,
            "The predicted scores are not rounded: hardly one is a label to the last decimal.",
        ),
        *(
            Mistake(
                wrong,
                "The true scores are not rounded: 4.6 belongs to label 5, and a prediction of 5 is "
                "right there.",
            )
            for wrong in (_whole_only, _never_the_same)
        ),
        Mistake(
            _per_class(_half_to_even, _truncated),
            "The predicted scores are cut off, not rounded: 4.6 becomes 4.",
        ),
        Mistake(
            _per_class(_half_up, _half_up),
            "It rounds halves up; half to even makes 2 of 2.5, and some true scores end in .5.",
        ),
        Mistake(_per_class(_upwards, _upwards), "It rounds up; asked is the nearest whole number."),
        Mistake(
            _per_class(predicted_label=_not_clipped),
            "Predictions below 0 or above K - 1 are counted as wrong; they are cut to the range.",
        ),
        Mistake(
            _per_class(predicted_label=_cut_to_k),
            "Predictions are cut to K; the last of K labels that begin at 0 is K - 1.",
        ),
        Mistake(
            _per_class(empty=0),
            "A label without examples gets 0, as if everything there were wrong; it is not known.",
        ),
        Mistake(
            _per_class(empty=1),
            "A label without examples gets 1, as if everything there were right; it is not known.",
        ),
        Mistake(
            _without_empty,
            "Labels without examples are left out, so that places and labels no longer agree.",
        ),
        Mistake(
            _share_of_all,
            "It divides by all examples; asked is a share of the examples with that true label.",
        ),
        Mistake(
            _near_enough,
            "It counts a prediction as right if it is within one half; asked is the same label.",
        ),
        Mistake(
            _one_against_the_rest,
            "It counts the examples of other labels too, as rightly not k; asked are only those "
            "whose true label is k.",
        ),
    ),
    notes="Dividing by columns is precision. `int(score + 0.5)` rounds halves up, and then the "
    "shares no longer match the paper's Figure 5. Reading STS labels as integers is found in "
    "public code. NaN for an empty label: 0 would pull down every mean of the table. 2 points.",
)


# overall_from_classes


def _plain_mean(accuracy: Scores, share: Scores) -> float:
    return float(np.mean(accuracy))


_FIGURE_5 = paper.PAPER_FIGURE_5[paper.PAPER_FIGURE_5["task"] == "paraphrase"]
_ACCURACY, _SHARE = np.array([0.2, 0.9, 0.55, 0.7]), np.array([0.1, 0.45, 0.25, 0.2])

OVERALL_FROM_CLASSES = Exercise(
    name="overall_from_classes",
    chapter=10,
    title="does the table add up?",
    difficulty=1,
    importance=4,
    minutes=5,
    task="""
Write `overall_from_classes(accuracy, share)`: `[K]` accuracies by true label, as fractions, and
`[K]` shares of the labels, to the accuracy over all examples, a fraction between 0 and 1.

Tables print shares as fractions, as percentages or as counts, and rounded, so that they add up to
nearly 1 or 100: all of these have to give the same answer.
""",
    hint="Of 100 examples, how many are right? Then make it independent of the unit of the shares.",
    reference=paper.overall_from_classes,
    cases=(
        question("shares as fractions", _ACCURACY, _SHARE),
        question("shares in percent", _ACCURACY, 100 * _SHARE),
        question("counts", _ACCURACY, np.array([7.0, 21.0, 4.0, 11.0])),
        question("rounded shares, adding up to 0.97", _ACCURACY, _SHARE - [0, 0, 0.01, 0.02]),
        question(
            "the paper's Figure 5, paraphrase",
            _FIGURE_5["accuracy"].to_numpy(),
            _FIGURE_5["share"].to_numpy(),
        ),
        question("one label", np.array([0.25]), np.array([1.0])),
        question("a label with share 0", _ACCURACY, np.array([0.5, 0.0, 0.5, 0.0])),
    ),
    mistakes=(
        Mistake(
            _plain_mean,
            "It is the plain mean, the balanced accuracy; a frequent label counts for more.",
        ),
        Mistake(
            lambda accuracy, share: float(accuracy @ share),
            "It takes the shares for fractions that add up to 1; in percent the result is a "
            "hundred times too large.",
        ),
        Mistake(
            lambda accuracy, share: float(accuracy @ share) / 100,
            "It takes the shares for percentages; fractions and counts give another answer.",
        ),
        *(
            Mistake(
                wrong,
                "It takes the mean of the products, which divides by K; the shares are the "
                "weights.",
            )
            for wrong in (
                lambda accuracy, share: float((accuracy * share).mean()),
                lambda accuracy, share: float((accuracy * share / share.sum()).mean()),
            )
        ),
        Mistake(
            lambda accuracy, share: float(accuracy @ share / accuracy.sum()),
            "It divides by the sum of the accuracies; the weights are the shares.",
        ),
        Mistake(
            lambda accuracy, share: float(accuracy @ share / (100 if share.sum() > 2 else 1)),
            "It guesses the unit and takes the sum of the shares for exact; counts, and shares "
            "that were rounded, need another divisor.",
        ),
        Mistake(
            lambda accuracy, share: float(100 * paper.overall_from_classes(accuracy, share)),
            "The result is in percent; asked is a fraction.",
        ),
    ),
    notes="One line, and the tool that shows that the paper's paraphrase column cannot belong to "
    "the accuracy printed beside it. 1 point.",
)


# pearson and calibration_slope


def pearson(true: Scores, predicted: Scores) -> float:
    """Pearson's r, NaN where either is constant: what `evaluation.metrics` reports."""
    if np.ptp(true) == 0 or np.ptp(predicted) == 0:
        return float("nan")
    return float(stats.pearsonr(true, predicted)[0])


def _unless_constant(
    of: Callable, otherwise: float = float("nan"), either: bool = True
) -> Callable:
    """A variant: `of(true, predicted)`, but `otherwise` for constant predictions (or either)."""

    def variant(true: Scores, predicted: Scores) -> float:
        constant = np.ptp(predicted) == 0 or (either and np.ptp(true) == 0)
        return otherwise if constant else float(of(true, predicted))

    return variant


def _covariance(true: Scores, predicted: Scores, ddof: int = 0) -> float:
    products = (true - true.mean()) * (predicted - predicted.mean())
    return float(products.sum() / (len(true) - ddof))


def _r_with_mixed_divisors(true: Scores, predicted: Scores) -> float:
    return _covariance(true, predicted, ddof=1) / (true.std() * predicted.std())


def _r_mixed_otherwise(true: Scores, predicted: Scores) -> float:
    return _covariance(true, predicted) / (true.std(ddof=1) * predicted.std(ddof=1))


def _products_over_spreads(ddof: int) -> Callable:
    """The sum of products, divided by the standard deviations alone."""

    def variant(true: Scores, predicted: Scores) -> float:
        spreads = true.std(ddof=ddof) * predicted.std(ddof=ddof)
        return _covariance(true, predicted) * len(true) / spreads

    return _unless_constant(variant)


def _cosine(true: Scores, predicted: Scores) -> float:
    return float(true @ predicted / np.sqrt((true @ true) * (predicted @ predicted)))


_Y = 2.6 + 1.3 * _normal(12, seed=3)
_P = 0.4 * _Y + 1.0 + 0.5 * _normal(12, seed=4)
_CONSTANT = np.full(12, 2.5)
_NEVER_HIDE = (
    "For constant predictions it gives 0, as if that were known; the value does not exist, and "
    "NaN says so."
)
_PAIRS = (
    question("twelve pairs", _Y, _P),
    question("the roles exchanged", _P, _Y),
    question("against the trend", _Y, 5 - 2 * _P),
    question("on a line", _Y, 0.5 * _Y + 2),
    question("three pairs", _Y[:3], _P[3:6]),
    question("constant predictions", _Y, _CONSTANT),
)

PEARSON = Exercise(
    name="pearson",
    chapter=10,
    title="Pearson's r, where there is one",
    difficulty=2,
    importance=3,
    minutes=10,
    task="""
Write `pearson(true, predicted)`: two float arrays `[N]` to Pearson's correlation coefficient, a
number from -1 to 1. Where one of them is constant there is none: return NaN, neither an error nor
a number.
""",
    hint="Both scores measured from their own mean; the numerator is a sum of products, the "
    "denominator makes a score's r with itself 1. When is the denominator 0?",
    reference=pearson,
    cases=(*_PAIRS, question("constant true scores", _CONSTANT, _P)),
    mistakes=(
        Mistake(_unless_constant(lambda t, p: stats.pearsonr(t, p)[0], 0.0), _NEVER_HIDE),
        Mistake(
            _unless_constant(_cosine, float("nan"), either=True),
            "It does not subtract the means: that is a cosine, near 1 for any two positive scores.",
        ),
        Mistake(
            _cosine,
            "It does not subtract the means: that is a cosine, near 1 for any two positive scores.",
        ),
        Mistake(
            _unless_constant(lambda t, p: stats.spearmanr(t, p)[0]),
            "It correlates ranks: that is Spearman's coefficient.",
        ),
        Mistake(
            _covariance,
            "That is the covariance; r is divided by both standard deviations.",
        ),
        Mistake(
            lambda true, predicted: _covariance(true, predicted, ddof=1),
            "That is the covariance; r is divided by both standard deviations.",
        ),
        *(
            Mistake(
                _products_over_spreads(ddof),
                "It divides a sum of products by standard deviations, which are roots of means: it "
                "is too large by the number of pairs, or by one less.",
            )
            for ddof in (0, 1)
        ),
        Mistake(
            _unless_constant(_r_with_mixed_divisors),
            "It divides by N - 1 in one place and by N in another; on a line it exceeds 1.",
        ),
        Mistake(
            _unless_constant(_r_mixed_otherwise),
            "It divides by N in one place and by N - 1 in another; on a line it stays below 1.",
        ),
        Mistake(
            _unless_constant(lambda t, p: stats.pearsonr(t, p)[0] ** 2),
            "That is r squared: the sign is lost.",
        ),
        Mistake(
            _unless_constant(lambda t, p: abs(stats.pearsonr(t, p)[0])),
            "The sign is lost: predictions against the trend are bad ones.",
        ),
        Mistake(
            _unless_constant(lambda t, p: np.polyfit(p, t, 1)[0]),
            "That is a slope; r does not change when the predictions are stretched.",
        ),
        Mistake(
            _unless_constant(lambda t, p: np.polyfit(t, p, 1)[0]),
            "That is a slope; r does not change when the predictions are stretched.",
        ),
    ),
    notes="A model that collapsed to one answer gives no correlation. Returning 0 hides it in a "
    "mean over tasks; an error stops the study after hours. `np.cov` divides by N - 1 and `np.std` "
    "by N: mixed, r can exceed 1. 2 points.",
)


def calibration_slope(true: Scores, predicted: Scores) -> float:
    """Slope of the least-squares line of true on predicted; NaN for constant predictions."""
    if np.ptp(predicted) == 0:
        return float("nan")
    return float(stats.linregress(predicted, true).slope)


def _slope(of: Callable, otherwise: float = float("nan")) -> Callable:
    return _unless_constant(of, otherwise, either=False)


def _backwards(true: Scores, predicted: Scores) -> float:
    return float(stats.linregress(true, predicted).slope)


def _spreads(true: Scores, predicted: Scores) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(true.std() / predicted.std())


def _spreads_exchanged(true: Scores, predicted: Scores) -> float:
    return float(predicted.std() / true.std())


def _least_norm(true: Scores, predicted: Scores) -> float:
    """`lstsq` takes the smallest of all lines that fit."""
    columns = np.stack([predicted, np.ones_like(predicted)], axis=1)
    return float(np.linalg.lstsq(columns, true, rcond=None)[0][0])


def _mixed_divisors(true: Scores, predicted: Scores) -> float:
    return _covariance(true, predicted, ddof=1) / predicted.var()


CALIBRATION_SLOPE = Exercise(
    name="calibration_slope",
    chapter=10,
    title="are the scores calibrated?",
    difficulty=2,
    importance=3,
    minutes=10,
    task="""
Write `calibration_slope(true, predicted)`: two float arrays `[N]` to the slope of the least-squares
line (with an intercept) that gives the mean *true* score at a given *predicted* score. Calibrated
scores have slope 1; below 1 the predictions lie too far apart.

For constant predictions there is no such line: return NaN, neither an error nor a number.
""",
    hint="Which of the two stands on the horizontal axis? The slope is a covariance divided by one "
    "variance: whose?",
    reference=calibration_slope,
    cases=(
        *_PAIRS,
        question("shrunken predictions", _Y, 2.6 + 0.25 * (_P - 2.6)),
        question("far from zero", _Y + 100, _P + 100),
    ),
    mistakes=(
        *(
            Mistake(
                wrong,
                "It regresses backwards, the predictions on the true scores, which answers another "
                "question.",
            )
            for wrong in (_backwards, _slope(_backwards))
        ),
        Mistake(
            pearson,
            "It gives the correlation, which does not see how far the predictions lie apart.",
        ),
        Mistake(_slope(lambda t, p: stats.linregress(p, t).slope, 0.0), _NEVER_HIDE),
        *(
            Mistake(
                wrong,
                "The line goes through the origin; with an intercept both are measured from their "
                "means.",
            )
            for wrong in (_slope(lambda t, p: t @ p / (p @ p)), lambda t, p: t @ p / (p @ p))
        ),
        Mistake(
            _slope(_mixed_divisors),
            "It divides the covariance by N - 1 and the variance by N: on a line with slope 1 it "
            "would not give 1.",
        ),
        *(
            Mistake(
                wrong,
                "It gives the ratio of the spreads, whether or not the two have to do with each "
                "other.",
            )
            for wrong in (
                _slope(_spreads),
                _spreads,
                _slope(_spreads_exchanged),
                _spreads_exchanged,
            )
        ),
        *(
            Mistake(
                wrong,
                "That is the covariance; the slope divides it by the variance of the predictions.",
            )
            for wrong in (
                _slope(_covariance),
                _covariance,
                _slope(lambda t, p: _covariance(t, p, ddof=1)),
                lambda true, predicted: _covariance(true, predicted, ddof=1),
            )
        ),
        Mistake(
            lambda true, predicted: float(np.polyfit(predicted, true, 1)[0]),
            "For constant predictions any slope fits, and `polyfit` picks one; NaN says that "
            "there is none.",
        ),
        Mistake(
            _least_norm,
            "For constant predictions any slope fits, and `lstsq` picks one; NaN says that "
            "there is none.",
        ),
        Mistake(
            _slope(lambda t, p: stats.linregress(p, t).intercept),
            "It gives the intercept; `polyfit` returns the slope first.",
        ),
        Mistake(
            _slope(lambda t, p: 1 / _backwards(t, p)),
            "It turns the other regression's slope upside down; that is this slope only if all "
            "points lie on a line.",
        ),
    ),
    notes="The two regressions answer two questions; students invert one to get the other. "
    "Shrinkage is not miscalibration: a slope of 1 goes with a small spread. 2 points.",
)


# fit_temperature


def _temperature_by(loss: Callable) -> Callable:
    """The temperature that makes `loss(scaled logits, labels)` least."""

    def fitted(logits: np.ndarray, labels: np.ndarray) -> float:
        bounds = tuple(np.log([0.05, 20]))
        of_log = lambda log_t: loss(logits / np.exp(log_t), labels)  # noqa: E731
        return float(np.exp(minimize_scalar(of_log, bounds=bounds, method="bounded").x))

    return fitted


def _cross_entropy(scaled: np.ndarray, labels: np.ndarray) -> float:
    return -log_softmax(scaled, axis=1)[np.arange(len(labels)), labels].mean()


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Temperature T with the least mean cross-entropy of softmax(logits / T), from 0.05 to 20.

    Args:
        logits: `[N, K]`.
        labels: from 0 to K - 1, `[N]`.

    Source: Guo et al. (2017), On calibration of modern neural networks.
    """
    return _temperature_by(_cross_entropy)(logits, labels)


def _softmax_twice(scaled: np.ndarray, labels: np.ndarray) -> float:
    return _cross_entropy(softmax(scaled, axis=1), labels)


def _squared_error(scaled: np.ndarray, labels: np.ndarray) -> float:
    return ((softmax(scaled, axis=1) - np.eye(scaled.shape[1])[labels]) ** 2).mean()


def _confidence_gap(scaled: np.ndarray, labels: np.ndarray) -> float:
    accuracy = (scaled.argmax(axis=1) == labels).mean()
    return abs(softmax(scaled, axis=1).max(axis=1).mean() - accuracy)


def _each_label_alone(scaled: np.ndarray, labels: np.ndarray) -> float:
    wanted = np.eye(scaled.shape[1])[labels]
    given = expit(scaled).clip(1e-12, 1 - 1e-12)
    return -(wanted * np.log(given) + (1 - wanted) * np.log(1 - given)).mean()


def _over_the_examples(scaled: np.ndarray, labels: np.ndarray) -> float:
    return -log_softmax(scaled, axis=0)[np.arange(len(labels)), labels].mean()


def _every_label_of_all(scaled: np.ndarray, labels: np.ndarray) -> float:
    return -log_softmax(scaled, axis=1)[:, labels].mean()


def _greatest(logits: np.ndarray, labels: np.ndarray) -> float:
    """A loss with one valley is greatest at one of the ends."""
    return max((0.05, 20.0), key=lambda t: _cross_entropy(logits / t, labels))


def _without_the_log(logits: np.ndarray, labels: np.ndarray) -> float:
    """It may have more than one hill, so the search is a grid."""
    rows, grid = np.arange(len(labels)), np.geomspace(0.05, 20, 400)
    means = [softmax(logits / t, axis=1)[rows, labels].mean() for t in grid]
    return float(grid[np.argmax(means)])


def _overflowing(logits: np.ndarray, labels: np.ndarray) -> float:
    """A grid, a softmax without care for large logits, and numpy's argmin, which takes a NaN."""
    grid = np.geomspace(0.05, 20, 400)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        losses = []
        for temperature in grid:
            powers = np.exp(logits / temperature)
            given = (powers / powers.sum(axis=1, keepdims=True))[np.arange(len(labels)), labels]
            losses.append(-np.log(given).mean())
    return float(grid[np.argmin(losses)])


def _answers(size: int, labels: int, scale: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn as often as softmax(logits / scale) says."""
    generator = np.random.default_rng(seed)
    honest = 1.5 * generator.normal(size=(size, labels))
    drawn = (honest + generator.gumbel(size=honest.shape)).argmax(axis=1)
    return scale * honest, drawn


_SURE, _DRAWN = _answers(400, 3, scale=2.5, seed=5)
_GUESSED = np.random.default_rng(6).integers(3, size=400)

FIT_TEMPERATURE = Exercise(
    name="fit_temperature",
    chapter=10,
    title="one temperature for all logits",
    difficulty=4,
    importance=3,
    minutes=25,
    task="""
Write `fit_temperature(logits, labels)`: logits `[N, K]` (a float64 array) and true labels `[N]`
(whole numbers from 0 to K - 1) to one number, the temperature T.

- T is the number between 0.05 and 20 for which the mean cross-entropy of `softmax(logits / T)` is
  least. Every logit of every example is divided by the same T.
- Come within one percent. How you search is up to you: a fine grid, Newton's method, an optimizer.
- Where the best T would lie outside 0.05 .. 20, return the nearer end.
- Logits may be as large as 20,000: no probability may overflow.
""",
    hint="Write the loss as a function of T alone first, and draw it: it has one valley, which "
    "is easiest to search over log T, because T is a factor. For large logits take a log-softmax "
    "that subtracts the largest logit. `scipy.optimize.minimize_scalar` takes bounds.",
    reference=fit_temperature,
    cases=tuple(
        question(name, *arguments, rtol=0.015)
        for name, arguments in {
            "too sure, three labels": (_SURE, _DRAWN),
            "too modest, five labels": _answers(500, 5, scale=0.4, seed=7),
            "two labels": _answers(300, 2, scale=1.3, seed=8),
            "labels of unlike frequency": (_SURE + [2.0, 0.0, -1.0], _DRAWN),
            "large logits": (_SURE + 20_000.0, _DRAWN),
            "every answer right": (_SURE, _SURE.argmax(axis=1)),
            "answers that know nothing": (4 * _SURE, _GUESSED),
        }.items()
    ),
    mistakes=(
        Mistake(
            lambda logits, labels: 1 / fit_temperature(logits, labels),
            "It gives the factor that the logits are multiplied by; they are divided by T.",
        ),
        Mistake(
            lambda logits, labels: float(np.log(fit_temperature(logits, labels))),
            "It gives log T: you search over the logarithm, and have to come back with exp.",
        ),
        Mistake(
            _temperature_by(_softmax_twice),
            "The softmax is taken twice: cross-entropy takes logits, and has a softmax of its own.",
        ),
        Mistake(
            _temperature_by(_over_the_examples),
            "The softmax runs over the examples (axis 0); the K logits of one example share it.",
        ),
        Mistake(
            _temperature_by(_every_label_of_all),
            "Each example is asked for the labels of all others too: `[:, labels]` takes whole "
            "columns. Pair each row with its own label.",
        ),
        Mistake(
            _greatest,
            "The sign is lost: it makes the cross-entropy greatest.",
        ),
        Mistake(
            _without_the_log,
            "It makes the mean probability of the true label greatest: the logarithm is missing.",
        ),
        Mistake(
            _temperature_by(_squared_error),
            "It makes the squared error of the probabilities least; asked is the cross-entropy.",
        ),
        Mistake(
            _temperature_by(_confidence_gap),
            "It makes the mean of the largest probability equal to the accuracy. One number can "
            "agree while every answer is off; asked is the least cross-entropy.",
        ),
        Mistake(
            _temperature_by(_each_label_alone),
            "It asks each label alone, with a sigmoid; the K labels share one softmax.",
        ),
        Mistake(
            lambda logits, labels: 0.05,
            "It is always the lower end. If accuracy decides, every T is as good: which logit is "
            "largest never changes. Let the cross-entropy decide.",
        ),
        Mistake(
            _overflowing,
            "exp overflows for large logits, the loss becomes NaN, and `argmin` takes the NaN. "
            "Subtract each example's largest logit first (a log-softmax does).",
        ),
    ),
    notes="Dividing by T cannot change which label is largest, so accuracy stays as it is: only "
    "the probabilities change. Students search T on a linear grid (too coarse near 0.05) or "
    "overflow in exp. Fit it on other examples than those it is judged on. 3 points.",
)


EXERCISES = (
    PER_CLASS_ACCURACY,
    OVERALL_FROM_CLASSES,
    PEARSON,
    CALIBRATION_SLOPE,
    FIT_TEMPERATURE,
)
