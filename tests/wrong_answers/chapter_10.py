"""Answers to the exercises of chapter 10, as people write them."""

import math
import statistics

import numpy as np
import pandas as pd
import torch
from scipy import stats
from sklearn.linear_model import LinearRegression
from sklearn.metrics import confusion_matrix, recall_score

WRONG, RIGHT = [], []


def wrong(exercise, text):
    return lambda answer: WRONG.append((exercise, answer, text)) or answer


def right(exercise):
    return lambda answer: RIGHT.append((exercise, answer)) or answer


# per_class_accuracy


def label(scores, num_classes):
    return np.clip(np.round(scores), 0, num_classes - 1).astype(int)


def accuracies(true, predicted, num_classes):
    result = np.full(num_classes, np.nan)
    for k in range(num_classes):
        if (true == k).any():
            result[k] = (predicted[true == k] == k).mean()
    return result


@wrong("per_class_accuracy", "which is precision")
def divided_by_columns(true, predicted, num_classes):
    t, p = label(true, num_classes), label(predicted, num_classes)
    matrix = confusion_matrix(t, p, labels=range(num_classes))
    return matrix.diagonal() / matrix.sum(axis=0)


@wrong("per_class_accuracy", "cuts the decimals off")
def truncated(true, predicted, num_classes):
    t, p = (np.clip(x, 0, num_classes - 1).astype(int) for x in (true, predicted))
    return accuracies(t, p, num_classes)


@wrong("per_class_accuracy", "read as whole numbers")
def labels_read_as_integers(true, predicted, num_classes):
    return accuracies(true.astype(int), label(predicted, num_classes), num_classes)


@wrong("per_class_accuracy", "cut off, not rounded")
def predictions_truncated(true, predicted, num_classes):
    p = np.clip(predicted.astype(int), 0, num_classes - 1)
    return accuracies(label(true, num_classes), p, num_classes)


@wrong("per_class_accuracy", "rounds halves up")
def half_up(true, predicted, num_classes):
    t, p = (
        np.array([min(max(math.floor(s + 0.5), 0), num_classes - 1) for s in x])
        for x in (true, predicted)
    )
    return accuracies(t, p, num_classes)


@wrong("per_class_accuracy", "cut to the range")
def out_of_range_is_wrong(true, predicted, num_classes):
    return accuracies(np.round(true), np.round(predicted), num_classes)


@wrong("per_class_accuracy", "gets 0, as if everything")
def zero_division(true, predicted, num_classes):
    t, p = label(true, num_classes), label(predicted, num_classes)
    return recall_score(t, p, labels=range(num_classes), average=None, zero_division=0)


@wrong("per_class_accuracy", "left out")
def only_labels_that_occur(true, predicted, num_classes):
    t, p = label(true, num_classes), label(predicted, num_classes)
    return [float((p[t == k] == k).mean()) for k in np.unique(t)]


@wrong("per_class_accuracy", "divides by all examples")
def share_of_all(true, predicted, num_classes):
    t, p = label(true, num_classes), label(predicted, num_classes)
    return [((t == k) & (p == k)).mean() for k in range(num_classes)]


@wrong("per_class_accuracy", "examples of other labels too")
def one_against_the_rest(true, predicted, num_classes):
    t, p = label(true, num_classes), label(predicted, num_classes)
    return [((t == k) == (p == k)).mean() for k in range(num_classes)]


@wrong("per_class_accuracy", "within one half")
def near_enough(true, predicted, num_classes):
    t = label(true, num_classes)
    close = abs(true - predicted) <= 0.5
    return [close[t == k].mean() if (t == k).any() else np.nan for k in range(num_classes)]


@wrong("per_class_accuracy", "true scores are not rounded")
def true_scores_as_they_are(true, predicted, num_classes):
    p = label(predicted, num_classes)
    with np.errstate(invalid="ignore"):
        counts = [(true == k).sum() for k in range(num_classes)]
        return [(p[true == k] == k).sum() / n if n else math.nan for k, n in enumerate(counts)]


@wrong("per_class_accuracy", "true scores are not rounded")
def compared_with_true_scores(true, predicted, num_classes):
    t, hit = label(true, num_classes), label(predicted, num_classes) == true
    return pd.Series(hit).groupby(t).mean().reindex(range(num_classes)).to_numpy()


@wrong("per_class_accuracy", "predicted scores are not rounded")
def predictions_not_rounded(true, predicted, num_classes):
    return accuracies(label(true, num_classes), predicted, num_classes)


@wrong("per_class_accuracy", None)
def labels_from_one(true, predicted, num_classes):
    t, p = label(true, num_classes), label(predicted, num_classes)
    return accuracies(t - 1, p - 1, num_classes)


@wrong("per_class_accuracy", None)
def overall_for_each(true, predicted, num_classes):
    t, p = label(true, num_classes), label(predicted, num_classes)
    return np.full(num_classes, (t == p).mean())


@wrong("per_class_accuracy", None)
def whole_matrix(true, predicted, num_classes):
    t, p = label(true, num_classes), label(predicted, num_classes)
    return confusion_matrix(t, p, labels=range(num_classes), normalize="true")


@wrong("per_class_accuracy", None)
def clipped_before_and_halves_down(true, predicted, num_classes):
    t, p = (
        np.ceil(np.clip(x, 0, num_classes - 1) - 0.5).astype(int).clip(0) for x in (true, predicted)
    )
    return accuracies(t, p, num_classes)


@wrong("per_class_accuracy", "in place")
def rounds_in_place(true, predicted, num_classes):
    for scores in (true, predicted):
        np.rint(scores, out=scores)
        np.clip(scores, 0, num_classes - 1, out=scores)
    return accuracies(true, predicted, num_classes)


@wrong("per_class_accuracy", "cut to K;")
def one_label_too_many(true, predicted, num_classes):
    t, p = (np.clip(np.rint(x), 0, num_classes).astype(int) for x in (true, predicted))
    return accuracies(t, p, num_classes)


@wrong("per_class_accuracy", None)
def only_the_last_of_each_cell(true, predicted, num_classes):
    matrix = np.zeros((num_classes, num_classes))
    matrix[label(true, num_classes), label(predicted, num_classes)] += 1
    with np.errstate(invalid="ignore"):
        return matrix.diagonal() / matrix.sum(axis=1)


@right("per_class_accuracy")
def class_by_class(true, predicted, num_classes):
    return accuracies(label(true, num_classes), label(predicted, num_classes), num_classes)


@right("per_class_accuracy")
def with_round(true, predicted, num_classes):
    right_ones, count = [0] * num_classes, [0] * num_classes
    for t, p in zip(true, predicted, strict=True):
        t, p = (min(max(round(s), 0), num_classes - 1) for s in (float(t), float(p)))
        count[t] += 1
        right_ones[t] += t == p
    return [r / n if n else float("nan") for r, n in zip(right_ones, count, strict=True)]


@right("per_class_accuracy")
def with_pandas(true, predicted, num_classes):
    frame = pd.DataFrame({"true": true, "predicted": predicted}).round().clip(0, num_classes - 1)
    frame["right"] = frame["true"] == frame["predicted"]
    return frame.groupby("true")["right"].mean().reindex(range(num_classes)).to_numpy()


@right("per_class_accuracy")
def with_torch(true, predicted, num_classes):
    t, p = (torch.tensor(x).round().clamp(0, num_classes - 1).long() for x in (true, predicted))
    matrix = torch.zeros(num_classes, num_classes)
    matrix.index_put_((t, p), torch.tensor(1.0), accumulate=True)
    return matrix.diagonal() / matrix.sum(dim=1)


# overall_from_classes


@wrong("overall_from_classes", "plain mean")
def unweighted(accuracy, share):
    return np.mean(accuracy)


@wrong("overall_from_classes", "add up to 1")
def dot_product(accuracy, share):
    return sum(a * s for a, s in zip(accuracy, share, strict=True))


@wrong("overall_from_classes", "for percentages")
def shares_in_percent(accuracy, share):
    return float(np.dot(accuracy, share / 100))


@wrong("overall_from_classes", "divides by K")
def mean_of_products(accuracy, share):
    return np.mean(accuracy * share)


@wrong("overall_from_classes", "in percent; asked is a fraction")
def result_in_percent(accuracy, share):
    return 100 * np.average(accuracy, weights=share)


@wrong("overall_from_classes", "guesses the unit")
def percent_if_large(accuracy, share):
    if sum(share) > 2:
        share = share / 100
    return float(np.dot(accuracy, share))


@wrong("overall_from_classes", "sum of the accuracies")
def divided_by_accuracies(accuracy, share):
    return np.average(share, weights=accuracy)


@wrong("overall_from_classes", "mean of the products")
def mean_of_the_weighted(accuracy, share):
    return np.mean(accuracy * (share / np.sum(share)))


@wrong("overall_from_classes", None)
def largest_share(accuracy, share):
    return accuracy[np.argmax(share)]


@wrong("overall_from_classes", None)
def harmonic(accuracy, share):
    return 1 / np.average(1 / accuracy, weights=share)


@wrong("overall_from_classes", None)
def divided_by_the_largest(accuracy, share):
    return np.dot(accuracy, share / share.max()) / len(share)


@wrong("overall_from_classes", None)
def rest_counts_as_wrong(accuracy, share):
    total = share.sum()
    whole = 1 if total < 2 else 100 if 90 < total < 110 else total
    return np.dot(accuracy, share) / whole


@right("overall_from_classes")
def weighted_sum(accuracy, share):
    return (accuracy * share).sum() / share.sum()


@right("overall_from_classes")
def loop(accuracy, share):
    right_ones = total = 0.0
    for a, s in zip(accuracy, share, strict=True):
        right_ones += a * s
        total += s
    return right_ones / total


@right("overall_from_classes")
def with_softmax_of_logs(accuracy, share):
    weights = torch.tensor(share).log().softmax(0)
    return weights @ torch.tensor(accuracy)


# pearson


@wrong("pearson", "gives 0, as if that were known")
def zero_for_constant(true, predicted):
    return float(np.nan_to_num(np.corrcoef(true, predicted)[0, 1]))


@wrong("pearson", "gives 0, as if that were known")
def guarded_with_zero(true, predicted):
    if true.std() == 0 or predicted.std() == 0:
        return 0.0
    return stats.pearsonr(true, predicted).statistic


@wrong("pearson", "does not subtract the means")
def cosine(true, predicted):
    return true @ predicted / (np.linalg.norm(true) * np.linalg.norm(predicted))


@wrong("pearson", "Spearman")
def ranks(true, predicted):
    return stats.spearmanr(true, predicted).statistic


@wrong("pearson", "covariance")
def covariance(true, predicted):
    return np.cov(true, predicted)[0, 1]


@wrong("pearson", "covariance")
def population_covariance(true, predicted):
    return np.mean((true - true.mean()) * (predicted - predicted.mean()))


@wrong("pearson", "N - 1 in one place")
def mixed_divisors(true, predicted):
    if np.ptp(true) == 0 or np.ptp(predicted) == 0:
        return math.nan
    return np.cov(true, predicted)[0, 1] / (true.std() * predicted.std())


@wrong("pearson", "N - 1 in one place")
def mixed_divisors_unguarded(true, predicted):
    return np.cov(true, predicted)[0, 1] / (np.std(true) * np.std(predicted))


@wrong("pearson", "sign is lost: predictions")
def size(true, predicted):
    return abs(np.corrcoef(true, predicted)[0, 1])


@wrong("pearson", "r squared")
def explained_variance(true, predicted):
    return np.corrcoef(true, predicted)[0, 1] ** 2


@wrong("pearson", "raises ZeroDivisionError")
def by_hand_without_a_guard(true, predicted):
    n = len(true)
    a, b = sum(true.tolist()) / n, sum(predicted.tolist()) / n
    top = sum((x - a) * (y - b) for x, y in zip(true.tolist(), predicted.tolist(), strict=True))
    left = sum((x - a) ** 2 for x in true.tolist())
    below = sum((y - b) ** 2 for y in predicted.tolist())
    return top / math.sqrt(left * below)


@wrong("pearson", "raises StatisticsError")
def statistics_module(true, predicted):
    return statistics.correlation(true.tolist(), predicted.tolist())


@wrong("pearson", "gives 0, as if that were known")
def with_an_epsilon(true, predicted):
    t, p = true - true.mean(), predicted - predicted.mean()
    return (t @ p) / (np.linalg.norm(t) * np.linalg.norm(p) + 1e-8)


@wrong("pearson", "stays below 1")
def mean_product_of_statistics_spreads(true, predicted):
    if true.std() == 0 or predicted.std() == 0:
        return math.nan
    products = (true - true.mean()) * (predicted - predicted.mean())
    return products.mean() / (statistics.stdev(true) * statistics.stdev(predicted))


@wrong("pearson", "by the number of pairs")
def sum_over_spreads(true, predicted):
    t, p = true - true.mean(), predicted - predicted.mean()
    with np.errstate(invalid="ignore"):
        return (t * p).sum() / (t.std() * p.std())


@wrong("pearson", "by the number of pairs")
def sum_over_sample_spreads(true, predicted):
    t, p = true - true.mean(), predicted - predicted.mean()
    if not t.any() or not p.any():
        return math.nan
    return t @ p / (statistics.stdev(true) * statistics.stdev(predicted))


@wrong("pearson", None)
def whole_matrix_of_r(true, predicted):
    return np.corrcoef(true, predicted)


@wrong("pearson", None)
def guard_on_the_predictions_only(true, predicted):
    if predicted.std() == 0:
        return math.nan
    if true.std() == 0:
        return 1.0
    return np.corrcoef(true, predicted)[0, 1]


@wrong("pearson", "got None")
def none_for_constant(true, predicted):
    if np.ptp(true) * np.ptp(predicted) == 0:
        return None
    return np.corrcoef(true, predicted)[0, 1]


@wrong("pearson", None)
def concordance(true, predicted):
    top = 2 * np.cov(true, predicted, ddof=0)[0, 1]
    return top / (true.var() + predicted.var() + (true.mean() - predicted.mean()) ** 2)


@wrong("pearson", None)
def r_and_its_p_value(true, predicted):
    return stats.pearsonr(true, predicted)


@right("pearson")
def array_without_axes(true, predicted):
    t, p = true - true.mean(), predicted - predicted.mean()
    length = np.sqrt((t @ t) * (p @ p))
    with np.errstate(invalid="ignore"):
        return np.where(length == 0, np.nan, t @ p / length)


@right("pearson")
def corrcoef(true, predicted):
    return np.corrcoef(true, predicted)[0, 1]


@right("pearson")
def z_scores(true, predicted):
    def z(x):
        return (x - x.mean()) / x.std()

    return np.mean(z(true) * z(predicted))


@right("pearson")
def torch_corrcoef(true, predicted):
    return torch.corrcoef(torch.tensor(np.stack([true, predicted])))[1, 0]


@right("pearson")
def sums_of_products(true, predicted):
    n = len(true)
    if len(set(true)) == 1 or len(set(predicted)) == 1:
        return float("nan")
    top = n * (true * predicted).sum() - true.sum() * predicted.sum()
    left = n * (true**2).sum() - true.sum() ** 2
    below = n * (predicted**2).sum() - predicted.sum() ** 2
    return top / (left * below) ** 0.5


# calibration_slope


@wrong("calibration_slope", "backwards")
def predicted_on_true(true, predicted):
    return np.polyfit(true, predicted, 1)[0]


@wrong("calibration_slope", "backwards")
def predicted_on_true_guarded(true, predicted):
    if np.std(predicted) == 0:
        return np.nan
    return np.cov(true, predicted)[0, 1] / np.var(true, ddof=1)


@wrong("calibration_slope", "gives the correlation")
def the_correlation(true, predicted):
    return np.corrcoef(true, predicted)[0, 1]


@wrong("calibration_slope", "through the origin")
def through_the_origin(true, predicted):
    return np.linalg.lstsq(predicted[:, None], true, rcond=None)[0][0]


@wrong("calibration_slope", "variance by N")
def divisors_mixed(true, predicted):
    if np.ptp(predicted) == 0:
        return np.nan
    return np.cov(true, predicted)[0, 1] / np.var(predicted)


@wrong("calibration_slope", "gives 0, as if that were known")
def hides_the_constant(true, predicted):
    variance = predicted.var()
    if variance == 0:
        return 0.0
    return ((true - true.mean()) * (predicted - predicted.mean())).mean() / variance


@wrong("calibration_slope", "ratio of the spreads")
def ratio_of_spreads(true, predicted):
    return true.std() / predicted.std() if predicted.std() else np.nan


@wrong("calibration_slope", "intercept; `polyfit`")
def intercept(true, predicted):
    return np.polyfit(predicted, true, 1)[1] if np.ptp(predicted) else np.nan


@wrong("calibration_slope", "upside down")
def one_over_the_other(true, predicted):
    return 1 / np.polyfit(true, predicted, 1)[0] if np.ptp(predicted) else np.nan


@wrong("calibration_slope", "ratio of the spreads")
def ratio_unguarded(true, predicted):
    with np.errstate(divide="ignore"):
        return np.std(true) / np.std(predicted)


@wrong("calibration_slope", "ratio of the spreads")
def ratio_upside_down(true, predicted):
    return predicted.std() / true.std()


@wrong("calibration_slope", "divides it by the variance of the predictions")
def covariance_alone(true, predicted):
    return np.cov(true, predicted)[0, 1]


@wrong("calibration_slope", "divides it by the variance of the predictions")
def mean_product_guarded(true, predicted):
    if predicted.std() == 0:
        return np.nan
    return np.mean((true - true.mean()) * (predicted - predicted.mean()))


@wrong("calibration_slope", "`lstsq` picks one")
def lstsq_unguarded(true, predicted):
    design = np.column_stack([np.ones(len(true)), predicted])
    return np.linalg.lstsq(design, true, rcond=None)[0][1]


@wrong("calibration_slope", "`polyfit` picks one")
def polyfit_unguarded(true, predicted):
    return np.polyfit(predicted, true, 1)[0]


@wrong("calibration_slope", "raises ValueError")
def linregress_unguarded(true, predicted):
    return stats.linregress(predicted, true).slope


@wrong("calibration_slope", None)
def rank_slope(true, predicted):
    if np.ptp(predicted) == 0:
        return np.nan
    return stats.linregress(stats.rankdata(predicted), stats.rankdata(true)).slope


@wrong("calibration_slope", None)
def robust(true, predicted):
    if np.ptp(predicted) == 0:
        return np.nan
    return stats.theilslopes(true, predicted).slope


@wrong("calibration_slope", None)
def shrunken(true, predicted):
    t, p = true - true.mean(), predicted - predicted.mean()
    return t @ p / (p @ p + 1e-3) if np.ptp(predicted) else np.nan


@wrong("calibration_slope", None)
def both_coefficients(true, predicted):
    return np.polyfit(predicted, true, 1) if np.ptp(predicted) else np.nan


@right("calibration_slope")
def covariance_over_variance(true, predicted):
    matrix = np.cov(true, predicted)
    return matrix[0, 1] / matrix[1, 1]


@right("calibration_slope")
def scikit_learn(true, predicted):
    if len(np.unique(predicted)) == 1:
        return float("nan")
    return LinearRegression().fit(predicted.reshape(-1, 1), true).coef_[0]


@right("calibration_slope")
def r_times_spreads(true, predicted):
    return np.corrcoef(true, predicted)[0, 1] * true.std() / predicted.std()


@right("calibration_slope")
def normal_equations(true, predicted):
    if predicted.min() == predicted.max():
        return torch.tensor(torch.nan)
    design = torch.stack([torch.ones(len(true)), torch.tensor(predicted)], dim=1)
    return torch.linalg.solve(design.T @ design, design.T @ torch.tensor(true))[1]


# fit_temperature


def best_of(loss, logits, labels, grid=None):
    """The temperature of a fine grid with the least loss(probabilities, labels)."""
    grid = np.geomspace(0.05, 20, 1500) if grid is None else grid
    z = logits - logits.max(axis=1, keepdims=True)
    losses = []
    for t in grid:
        e = np.exp(z / t)
        losses.append(loss(e / e.sum(axis=1, keepdims=True), labels))
    return grid[int(np.argmin(losses))]


def log_loss(p, labels):
    return -np.log(p[np.arange(len(labels)), labels] + 1e-300).mean()


@wrong("fit_temperature", "multiplied by; they are divided")
def factor_of_the_logits(logits, labels):
    return 1 / best_of(log_loss, logits, labels)


@wrong("fit_temperature", "gives log T")
def still_a_logarithm(logits, labels):
    return math.log(best_of(log_loss, logits, labels))


@wrong("fit_temperature", "squared error of the probabilities")
def brier(logits, labels):
    def loss(p, y):
        p = p.copy()
        p[np.arange(len(y)), y] -= 1
        return (p**2).sum()

    return best_of(loss, logits, labels)


@wrong("fit_temperature", "mean of the largest probability")
def confidence_as_accuracy(logits, labels):
    accuracy = np.mean(logits.argmax(1) == labels)
    low, high = 0.05, 20.0
    for _ in range(60):  # the hotter, the less sure
        t = (low * high) ** 0.5
        sure = torch.tensor(logits / t).softmax(1).max(1).values.mean().item()
        low, high = (t, high) if sure > accuracy else (low, t)
    return t


@wrong("fit_temperature", "taken twice")
def softmax_then_cross_entropy(logits, labels):
    y = torch.tensor(labels)
    grid = np.geomspace(0.05, 20, 1500)
    losses = [
        torch.nn.functional.cross_entropy(torch.tensor(logits / t).softmax(1), y) for t in grid
    ]
    return grid[int(np.argmin(losses))]


@wrong("fit_temperature", "each label alone")
def one_sigmoid_a_label(logits, labels):
    wanted = torch.nn.functional.one_hot(torch.tensor(labels), logits.shape[1]).double()
    loss = torch.nn.functional.binary_cross_entropy_with_logits
    grid = np.geomspace(0.05, 20, 1500)
    return grid[int(np.argmin([loss(torch.tensor(logits / t), wanted) for t in grid]))]


@wrong("fit_temperature", None)
def coarse_grid(logits, labels):
    return best_of(log_loss, logits, labels, grid=np.linspace(0.05, 20, 41))


@wrong("fit_temperature", "Let the cross-entropy decide")
def largest_accuracy(logits, labels):
    return best_of(lambda p, y: -np.mean(p.argmax(1) == y), logits, labels)


@wrong("fit_temperature", None)
def overflows(logits, labels):
    with np.errstate(all="ignore"):
        grid = np.geomspace(0.05, 20, 1500)
        e = [np.exp(logits / t) for t in grid]
        losses = [log_loss(x / x.sum(axis=1, keepdims=True), labels) for x in e]
        return grid[int(np.nanargmin(losses))] if np.isfinite(losses).any() else np.nan


@wrong("fit_temperature", None)
def too_few_steps(logits, labels):
    log_t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    z, y = torch.tensor(logits), torch.tensor(labels)
    for _ in range(10):
        loss = torch.nn.functional.cross_entropy(z / log_t.exp(), y)
        (slope,) = torch.autograd.grad(loss, log_t)
        log_t = (log_t - 0.1 * slope).detach().requires_grad_()
    return log_t.exp().item()


@wrong("fit_temperature", "over the examples")
def softmax_down_the_columns(logits, labels):
    grid = np.geomspace(0.05, 20, 1500)
    rows = np.arange(len(labels))
    z = torch.tensor(logits)
    return grid[np.argmin([-(z / t).log_softmax(0).numpy()[rows, labels].mean() for t in grid])]


@wrong("fit_temperature", "takes whole columns")
def whole_columns(logits, labels):
    def loss(p, y):
        return -np.log(p[:, y] + 1e-300).mean()

    return best_of(loss, logits, labels, np.geomspace(0.05, 20, 700))


@wrong("fit_temperature", "sign is lost")
def log_likelihood_made_least(logits, labels):
    return best_of(lambda p, y: -log_loss(p, y), logits, labels)


@wrong("fit_temperature", "logarithm is missing")
def mean_probability(logits, labels):
    return best_of(lambda p, y: -p[np.arange(len(y)), y].mean(), logits, labels)


@right("fit_temperature")
def fine_grid(logits, labels):
    return best_of(log_loss, logits, labels)


@right("fit_temperature")
def golden_section_in_torch(logits, labels):
    z, y = torch.tensor(logits), torch.tensor(labels)

    def loss(log_t):
        return torch.nn.functional.cross_entropy(z / math.exp(log_t), y).item()

    low, high = math.log(0.05), math.log(20)
    for _ in range(60):
        a, b = low + (high - low) * 0.382, low + (high - low) * 0.618
        low, high = (low, b) if loss(a) < loss(b) else (a, high)
    return torch.tensor(math.exp((low + high) / 2))


@right("fit_temperature")
def bisection_of_the_slope(logits, labels):
    """The slope in 1/T is a mean of (expected - true logit), which falls as T rises."""
    rows = np.arange(len(labels))
    low, high = 0.05, 20.0
    for _ in range(60):
        t = (low * high) ** 0.5
        e = np.exp((logits - logits.max(axis=1, keepdims=True)) / t)
        p = e / e.sum(axis=1, keepdims=True)
        slope = ((p * logits).sum(axis=1) - logits[rows, labels]).mean()
        low, high = (t, high) if slope > 0 else (low, t)
    return t


@wrong("fit_temperature", "exp overflows")
def plain_softmax_on_a_grid(logits, labels):
    def loss(t):
        e = np.exp(logits / t)
        p = e / e.sum(axis=1)[:, None]
        return -np.mean(np.log(p[range(len(labels)), labels]))

    with np.errstate(all="ignore"):
        grid = np.exp(np.linspace(np.log(0.05), np.log(20), 600))
        return grid[np.argmin([loss(t) for t in grid])]
