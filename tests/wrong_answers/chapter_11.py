"""Answers to the exercises of chapter 11, as people write them."""

import math
import statistics
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import torch
from scipy import stats
from scipy.special import erf, ndtr
from wrong_answers.bank import Bank

bank = Bank()
wrong, right, WRONG, RIGHT = bank.wrong, bank.right, bank.WRONG, bank.RIGHT


# possible_counts


def fitting(accuracy, size, digits=3):
    """Every k that fits, with fractions."""
    printed = Fraction(str(accuracy))
    half = Fraction(1, 2 * 10**digits)
    return [k for k in range(size + 1) if abs(Fraction(k, size) - printed) <= half]


@wrong("possible_counts", "always gives one count")
def nearest_count(accuracy, size, digits=3):
    return [int(accuracy * size + 0.5)]


@wrong("possible_counts", "nearest count alone")
def nearest_count_if_it_prints_so(accuracy, size, digits=3):
    k = round(size * accuracy)
    return [k] if abs(k / size - accuracy) <= 0.5 / 10**digits + 1e-12 else []


@wrong("possible_counts", "trusts `round`")
def rounded_by_python(accuracy, size, digits=3):
    return [k for k in range(size + 1) if round(k / size, digits) == round(accuracy, digits)]


@wrong("possible_counts", "leaves the ends to floats")
def within_half_a_unit_in_floats(accuracy, size, digits=3):
    half = 0.5 / 10**digits
    counts = np.arange(size + 1)
    return counts[np.abs(counts / size - accuracy) <= half].tolist()


@wrong("possible_counts", "leaves the ends to floats")
def limits_times_size(accuracy, size, digits=3):
    half = 0.5 * 10**-digits
    low = max(0, math.ceil((accuracy - half) * size))
    high = min(size, math.floor((accuracy + half) * size))
    return list(range(low, high + 1))


@wrong("possible_counts", "leaves out the ends")
def ends_left_out(accuracy, size, digits=3):
    half, printed = Fraction(1, 2 * 10**digits), Fraction(str(accuracy))
    return [k for k in range(size + 1) if abs(Fraction(k, size) - printed) < half]


@wrong("possible_counts", "cut off")
def truncated(accuracy, size, digits=3):
    wanted = round(accuracy * 10**digits)
    return [k for k in range(size + 1) if 10**digits * k // size == wanted]


@wrong("possible_counts", "whole unit")
def a_whole_unit(accuracy, size, digits=3):
    unit, printed = Fraction(1, 10**digits), Fraction(str(accuracy))
    return [k for k in range(size + 1) if abs(Fraction(k, size) - printed) <= unit]


@wrong("possible_counts", "always takes three digits")
def three_digits(accuracy, size, digits=3):
    return fitting(accuracy, size)


@wrong("possible_counts", "below 0 or above")
def no_bounds(accuracy, size, digits=3):
    half, printed = Fraction(1, 2 * 10**digits), Fraction(str(accuracy))
    low, high = math.ceil((printed - half) * size), math.floor((printed + half) * size)
    return [*range(low, high + 1)]


@wrong("possible_counts", "asked are the counts")
def fractions_of_them(accuracy, size, digits=3):
    return [k / size for k in fitting(accuracy, size, digits)]


@wrong("possible_counts", None)
def upper_end_open(accuracy, size, digits=3):  # as half up rounds
    low = Fraction(str(accuracy)) - Fraction(1, 2 * 10**digits)
    high = low + Fraction(1, 10**digits)
    return [k for k in range(size + 1) if low <= Fraction(k, size) < high]


@wrong("possible_counts", None)
def descending(accuracy, size, digits=3):
    return fitting(accuracy, size, digits)[::-1]


@wrong("possible_counts", None)
def none_for_nothing(accuracy, size, digits=3):
    return fitting(accuracy, size, digits) or None


@wrong("possible_counts", None)
def how_many(accuracy, size, digits=3):
    return len(fitting(accuracy, size, digits))


@wrong("possible_counts", None)
def first_and_last(accuracy, size, digits=3):
    found = fitting(accuracy, size, digits)
    return [found[0], found[-1]] if found else []


@wrong("possible_counts", "count 0 is missing")
def from_one_on(accuracy, size, digits=3):
    return [k for k in fitting(accuracy, size, digits) if k > 0]


@right("possible_counts")
def with_fractions(accuracy, size, digits=3):
    return fitting(accuracy, size, digits)


@right("possible_counts")
def with_decimals(accuracy, size, digits=3):
    printed, half = Decimal(f"{accuracy:.{digits}f}"), Decimal(5).scaleb(-digits - 1)
    return [k for k in range(size + 1) if abs(k - printed * size) <= half * size]


@right("possible_counts")
def with_a_little_room(accuracy, size, digits=3):
    counts = np.arange(size + 1)
    return counts[np.abs(counts / size - accuracy) <= 0.5 * 10**-digits + 1e-9]


# overall_range


def range_of(accuracy, weights, half):
    low, high = np.clip(accuracy - half, 0, 1), np.clip(accuracy + half, 0, 1)
    return np.dot(low, weights) / np.sum(weights), np.dot(high, weights) / np.sum(weights)


@wrong("overall_range", "whole unit")
def by_whole_units(accuracy, counts, digits=3):
    return range_of(accuracy, counts, 10.0**-digits)


@wrong("overall_range", "taken for exact")
def the_middle_twice(accuracy, counts, digits=3):
    middle = np.average(accuracy, weights=counts)
    return middle, middle


@wrong("overall_range", "Nothing is cut")
def middle_and_half_a_unit(accuracy, counts, digits=3):
    middle = np.average(accuracy, weights=counts)
    return middle - 0.5 * 10**-digits, middle + 0.5 * 10**-digits


@wrong("overall_range", "cuts the total alone")
def total_cut(accuracy, counts, digits=3):
    middle, half = np.average(accuracy, weights=counts), 0.5 * 10**-digits
    return max(0, middle - half), min(1, middle + half)


@wrong("overall_range", "plain mean")
def unweighted(accuracy, counts, digits=3):
    half = 0.5 * 10**-digits
    return (accuracy - half).clip(0, 1).mean(), (accuracy + half).clip(0, 1).mean()


@wrong("overall_range", "as if they were chance")
def error_propagated(accuracy, counts, digits=3):
    share = counts / counts.sum()
    error = np.sqrt(np.sum((share * 0.5 / 10**digits) ** 2))
    return accuracy @ share - error, accuracy @ share + error


@wrong("overall_range", "lowest comes first")
def highest_first(accuracy, counts, digits=3):
    low, high = range_of(accuracy, counts, 0.5 * 10**-digits)
    return high, low


@wrong("overall_range", "always takes three digits")
def always_three(accuracy, counts, digits=3):
    return range_of(accuracy, counts, 0.0005)


@wrong("overall_range", "whole numbers of right answers")
def grim_by_label(accuracy, counts, digits=3):
    sums, half = np.zeros(2), 0.5 * 10**-digits
    for a, n in zip(accuracy, counts, strict=True):
        found = fitting(a, int(n), digits)
        sums += (found[0], found[-1]) if found else (max(a - half, 0) * n, min(a + half, 1) * n)
    return tuple(sums / counts.sum())


@wrong("overall_range", None)
def lowest_and_highest_label(accuracy, counts, digits=3):
    return accuracy.min(), accuracy.max()


@wrong("overall_range", None)
def counts_right(accuracy, counts, digits=3):
    low, high = range_of(accuracy, counts, 0.5 * 10**-digits)
    return low * counts.sum(), high * counts.sum()


@wrong("overall_range", None)
def rounded_again(accuracy, counts, digits=3):
    return tuple(round(end, digits) for end in range_of(accuracy, counts, 0.5 * 10**-digits))


@right("overall_range")
def clipped_and_weighed(accuracy, counts, digits=3):
    return range_of(accuracy, counts, 0.5 * 10**-digits)


@right("overall_range")
def in_a_loop(accuracy, counts, digits=3):
    half, low, high = 0.5 / 10**digits, 0.0, 0.0
    for a, n in zip(accuracy, counts, strict=True):
        low += max(a - half, 0.0) * n
        high += min(a + half, 1.0) * n
    return [low / sum(counts), high / sum(counts)]


@right("overall_range")
def with_torch(accuracy, counts, digits=3):
    printed, weights = torch.tensor(accuracy), torch.tensor(counts, dtype=torch.float64)
    ends = torch.stack([printed - 0.5 * 10**-digits, printed + 0.5 * 10**-digits]).clamp(0, 1)
    return ends @ weights / weights.sum()


# tie_chance


def agreeing(spreads, limit):
    """Chance that a normal number of each spread lies between -limit and limit."""
    with np.errstate(divide="ignore"):
        return erf(limit / (np.asarray(spreads) * math.sqrt(2)))


@wrong("tie_chance", "takes one run's spread")
def spread_of_one_run(spreads, unit=0.001):
    return np.prod(agreeing(spreads, unit / 2))


@wrong("tie_chance", "Variances add")
def spreads_added(spreads, unit=0.001):
    return np.prod(agreeing(spreads + spreads, unit / 2))


@wrong("tie_chance", "a whole unit")
def within_a_whole_unit(spreads, unit=0.001):
    return np.prod(agreeing(math.sqrt(2) * spreads, unit))


@wrong("tie_chance", "divides the spread by sqrt(2)")
def divided_by_the_root(spreads, unit=0.001):
    return np.prod(agreeing(spreads / 2**0.5, unit / 2))


@wrong("tie_chance", "one side alone")
def one_tail(spreads, unit=0.001):
    with np.errstate(divide="ignore"):
        return np.prod(ndtr(unit / 2 / (spreads * np.sqrt(2))))


@wrong("tie_chance", "mean over the numbers")
def mean_of_the_chances(spreads, unit=0.001):
    return np.mean(agreeing(math.sqrt(2) * spreads, unit / 2))


@wrong("tie_chance", "adds the chances")
def sum_of_the_chances(spreads, unit=0.001):
    return sum(agreeing(math.sqrt(2) * spreads, unit / 2))


@wrong("tie_chance", "smallest chance alone")
def rarest(spreads, unit=0.001):
    return min(agreeing(math.sqrt(2) * spreads, unit / 2))


@wrong("tie_chance", "at least one")
def any_of_them(spreads, unit=0.001):
    return 1 - np.prod(1 - agreeing(math.sqrt(2) * spreads, unit / 2))


@wrong("tie_chance", "differ somewhere")
def chance_of_a_difference(spreads, unit=0.001):
    return 1 - np.prod(agreeing(math.sqrt(2) * spreads, unit / 2))


@wrong("tie_chance", "height times width")
def density_at_zero(spreads, unit=0.001):
    with np.errstate(divide="ignore"):
        return np.prod(unit / np.sqrt(2 * np.pi) / (np.sqrt(2) * spreads))


@wrong("tie_chance", "A spread of 0 gives NaN")
def not_known_for_zero(spreads, unit=0.001):
    return np.prod(2 * stats.norm.cdf(unit / 2, scale=np.sqrt(2) * spreads) - 1)


@wrong("tie_chance", "A spread of 0 gives the chance 0")
def zero_for_zero(spreads, unit=0.001):
    chances = agreeing(math.sqrt(2) * spreads, unit / 2)
    return np.prod(np.where(spreads == 0, 0, chances))


@wrong("tie_chance", "always takes 0.001")
def three_digits_always(spreads, unit=0.001):
    return np.prod(agreeing(math.sqrt(2) * spreads, 0.0005))


@wrong("tie_chance", None)
def logarithm(spreads, unit=0.001):
    return np.log(agreeing(math.sqrt(2) * spreads, unit / 2)).sum()


@wrong("tie_chance", "variance for the standard deviation")
def from_variances(spreads, unit=0.001):
    return np.prod(agreeing(math.sqrt(2) * spreads**2, unit / 2))


@wrong("tie_chance", None)
def by_the_mean_spread(spreads, unit=0.001):
    return agreeing(math.sqrt(2) * spreads.mean(), unit / 2) ** len(spreads)


@right("tie_chance")
def with_erf(spreads, unit=0.001):
    return np.prod(agreeing(math.sqrt(2) * spreads, unit / 2))


@right("tie_chance")
def number_by_number(spreads, unit=0.001):
    chance = 1.0
    for spread in spreads:
        if spread > 0:
            law = statistics.NormalDist(0, math.sqrt(spread**2 + spread**2))
            chance *= law.cdf(unit / 2) - law.cdf(-unit / 2)
    return chance


@right("tie_chance")
def two_tails_taken_off(spreads, unit=0.001):
    moving = spreads[spreads > 0]
    return float((1 - 2 * stats.norm.sf(unit / (2 * np.sqrt(2) * moving))).prod())


# constant_answer


def fits(count, size, accuracy, digits):
    return abs(Fraction(count, size) - Fraction(str(accuracy))) <= Fraction(1, 2 * 10**digits)


def label_by_label(counts, published, digits, on=all, fits=fits):
    labels = range(len(next(iter(counts.values()))))
    return [
        k
        for k in labels
        if on(fits(counts[s][k], sum(counts[s]), a, digits) for s, a in published.items())
    ]


@wrong("constant_answer", "fits one split and not the others")
def on_any_split(counts, published, digits=3):
    return next(iter(label_by_label(counts, published, digits, on=any)), None)


@wrong("constant_answer", "most frequent training label")
def majority_only(counts, published, digits=3):
    k = int(np.argmax(list(counts.values())[0]))
    return k if k in label_by_label(counts, published, digits) else None


@wrong("constant_answer", "first split alone")
def the_first_split(counts, published, digits=3):
    split, accuracy = next(iter(published.items()))
    return next(iter(label_by_label(counts, {split: accuracy}, digits)), None)


@wrong("constant_answer", "nearest label")
def the_nearest(counts, published, digits=3):
    off = [
        sum(abs(counts[s][k] / sum(counts[s]) - a) for s, a in published.items())
        for k in range(len(next(iter(counts.values()))))
    ]
    return off.index(min(off))


@wrong("constant_answer", "Label 0 is lost")
def zero_is_false(counts, published, digits=3):
    return next(iter(label_by_label(counts, published, digits)), None) or None


@wrong("constant_answer", "returns -1")
def minus_one(counts, published, digits=3):
    return next(iter(label_by_label(counts, published, digits)), -1)


@wrong("constant_answer", "from 1; they begin at 0")
def counted_from_one(counts, published, digits=3):
    return next((k + 1 for k in label_by_label(counts, published, digits)), None)


@wrong("constant_answer", "leaves the ends")
def compares_rounded(counts, published, digits=3):
    def same(count, size, accuracy, digits):
        return round(count / size, digits) == accuracy

    return next(iter(label_by_label(counts, published, digits, fits=same)), None)


@wrong("constant_answer", "leaves the ends")
def close_in_floats(counts, published, digits=3):
    def close(count, size, accuracy, digits):
        return abs(count / size - accuracy) <= 0.5 * 10**-digits

    return next(iter(label_by_label(counts, published, digits, fits=close)), None)


@wrong("constant_answer", "always takes three digits")
def to_three_digits(counts, published, digits=3):
    return next(iter(label_by_label(counts, published, 3)), None)


@wrong("constant_answer", "off by a point")
def within_a_point(counts, published, digits=3):
    def close(count, size, accuracy, digits):
        return abs(count / size - accuracy) < 0.01

    return next(iter(label_by_label(counts, published, digits, fits=close)), None)


@wrong("constant_answer", "all splits together")
def splits_pooled(counts, published, digits=3):
    whole = [sum(column) for column in zip(*(counts[s] for s in published), strict=True)]
    together = {split: whole for split in published}
    return next(iter(label_by_label(together, published, digits)), None)


@wrong("constant_answer", None)
def the_last_that_fits(counts, published, digits=3):
    found = label_by_label(counts, published, digits)
    return found[-1] if found else None


@wrong("constant_answer", None)
def all_that_fit(counts, published, digits=3):
    return label_by_label(counts, published, digits)


@wrong("constant_answer", None)
def yes_or_no(counts, published, digits=3):
    return bool(label_by_label(counts, published, digits))


@wrong("constant_answer", None)
def as_text(counts, published, digits=3):
    return next(map(str, label_by_label(counts, published, digits)), None)


@right("constant_answer")
def first_that_fits(counts, published, digits=3):
    found = label_by_label(counts, published, digits)
    return found[0] if found else None


@right("constant_answer")
def sets_of_labels(counts, published, digits=3):
    labels = None
    for split, accuracy in published.items():
        share = np.array(counts[split]) / sum(counts[split])
        found = set(np.flatnonzero(np.abs(share - accuracy) <= 0.5 * 10**-digits + 1e-9).tolist())
        labels = found if labels is None else labels & found
    return min(labels, default=None)


@right("constant_answer")
def with_possible_counts(counts, published, digits=3):
    for k in range(len(list(counts.values())[0])):
        asked = ((counts[s], a) for s, a in published.items())
        if all(n[k] in fitting(a, sum(n), digits) for n, a in asked):
            return k
    return None


# prediction_interval


def interval(scores, half):
    return np.mean(scores) - half, np.mean(scores) + half


def two_at_least(scores):
    if len(scores) < 2:
        raise ValueError("two seeds at least")
    return len(scores)


@wrong("prediction_interval", "interval of the mean")
def of_the_mean(scores):
    n = two_at_least(scores)
    return interval(scores, stats.t.ppf(0.975, n - 1) * stats.sem(scores))


@wrong("prediction_interval", "one seed is not refused")
def of_the_mean_by_scipy(scores):
    n = len(scores)
    half = stats.t.ppf(0.975, n - 1) * np.std(scores, ddof=1) / math.sqrt(n)
    return interval(scores, half)


@wrong("prediction_interval", "1.96 in place of Student's t")
def textbook_interval(scores):
    n = two_at_least(scores)
    return interval(scores, 1.96 * np.std(scores, ddof=1) / math.sqrt(n))


@wrong("prediction_interval", "takes the mean for known")
def without_the_mean(scores):
    n = two_at_least(scores)
    return interval(scores, stats.t.ppf(0.975, n - 1) * np.std(scores, ddof=1))


@wrong("prediction_interval", "as if the spread were known")
def normal_quantile(scores):
    n = two_at_least(scores)
    return interval(scores, stats.norm.ppf(0.975) * np.std(scores, ddof=1) * math.sqrt(1 + 1 / n))


@wrong("prediction_interval", "as if the spread were known")
def two_sigma(scores):
    two_at_least(scores)
    return interval(scores, 1.96 * statistics.stdev(scores))


@wrong("prediction_interval", "divides by S")
def population_spread(scores):
    n = two_at_least(scores)
    return interval(scores, stats.t.ppf(0.975, n - 1) * np.std(scores) * math.sqrt(1 + 1 / n))


@wrong("prediction_interval", "five percent on either side")
def one_sided(scores):
    n = two_at_least(scores)
    half = stats.t.ppf(0.95, n - 1) * np.std(scores, ddof=1) * math.sqrt(1 + 1 / n)
    return interval(scores, half)


@wrong("prediction_interval", "S degrees of freedom")
def one_degree_too_many(scores):
    n = two_at_least(scores)
    half = stats.t.ppf(0.975, n) * np.std(scores, ddof=1) * math.sqrt(1 + 1 / n)
    return interval(scores, half)


@wrong("prediction_interval", "range of the seeds")
def range_of_the_seeds(scores):
    return min(scores), max(scores)


@wrong("prediction_interval", "One seed gives NaN")
def never_refuses(scores):
    n = len(scores)
    with np.errstate(all="ignore"):
        half = stats.t.ppf(0.975, n - 1) * np.std(scores, ddof=1) * math.sqrt(1 + 1 / n)
    return interval(scores, half)


@wrong("prediction_interval", None)
def percentiles(scores):
    two_at_least(scores)
    return np.percentile(scores, 2.5), np.percentile(scores, 97.5)


@wrong("prediction_interval", None)
def root_forgotten(scores):
    n = two_at_least(scores)
    return interval(scores, stats.t.ppf(0.975, n - 1) * np.std(scores, ddof=1) * (1 + 1 / n))


@wrong("prediction_interval", None)
def median_in_the_middle(scores):
    n = two_at_least(scores)
    half = stats.t.ppf(0.975, n - 1) * np.std(scores, ddof=1) * math.sqrt(1 + 1 / n)
    return np.median(scores) - half, np.median(scores) + half


@wrong("prediction_interval", None)
def middle_and_half_width(scores):
    n = two_at_least(scores)
    half = stats.t.ppf(0.975, n - 1) * np.std(scores, ddof=1) * math.sqrt(1 + 1 / n)
    return np.mean(scores), half


@right("prediction_interval")
def with_scipy_s_interval(scores):
    if len(scores) < 2:
        raise ValueError("no spread")
    n = len(scores)
    scale = np.std(scores, ddof=1) * np.sqrt(1 + 1 / n)
    return (
        stats.t.interval(0.95, n - 1, loc=np.mean(scores), scale=scale)
        if scale
        else (
            np.mean(scores),
            np.mean(scores),
        )
    )


@right("prediction_interval")
def with_the_statistics_module(scores):
    scores = [float(score) for score in scores]
    n, middle = len(scores), statistics.fmean(scores)
    spread = statistics.stdev(scores)  # raises a ValueError itself for one
    half = -stats.t.isf(0.975, n - 1) * spread * ((n + 1) / n) ** 0.5
    return [middle - half, middle + half]


@right("prediction_interval")
def with_both_variances(scores):
    n = two_at_least(scores)
    variance = np.var(scores, ddof=1)
    half = stats.t.ppf(0.975, df=n - 1) * np.sqrt(variance + variance / n)
    return torch.tensor(interval(scores, half))


# nearest_epoch


@wrong("nearest_epoch", "epochs from 0")
def from_zero(trajectory, published):
    far = np.sqrt(((trajectory - published) ** 2).mean(axis=1))
    return int(np.nanargmin(far)), np.nanmin(far)


@wrong("nearest_epoch", "root of the sum")
def euclidean(trajectory, published):
    far = np.linalg.norm(trajectory - published, axis=1)
    return int(np.nanargmin(far)) + 1, np.nanmin(far)


@wrong("nearest_epoch", "The root is missing")
def mean_square(trajectory, published):
    far = ((trajectory - published) ** 2).mean(axis=1)
    return int(np.nanargmin(far)) + 1, np.nanmin(far)


@wrong("nearest_epoch", "absolute differences")
def mean_absolute(trajectory, published):
    far = np.abs(trajectory - published).mean(axis=1)
    return int(np.nanargmin(far)) + 1, np.nanmin(far)


@wrong("nearest_epoch", "largest difference alone")
def largest_difference(trajectory, published):
    far = np.abs(trajectory - published).max(axis=1)
    return int(np.nanargmin(far)) + 1, np.nanmin(far)


@wrong("nearest_epoch", "cancels")
def of_the_means(trajectory, published):
    far = np.abs(trajectory.mean(axis=1) - published.mean())
    return int(np.nanargmin(far)) + 1, np.nanmin(far)


@wrong("nearest_epoch", "left out of the mean")
def pandas_skips_the_nan(trajectory, published):
    far = ((pd.DataFrame(trajectory) - published) ** 2).mean(axis=1) ** 0.5
    return int(far.idxmin()) + 1, far.min()


@wrong("nearest_epoch", "picks the NaN")
def argmin(trajectory, published):
    far = np.sqrt(np.mean((trajectory - published) ** 2, axis=1))
    epoch = np.argmin(far)
    return epoch + 1, far[epoch]


@wrong("nearest_epoch", "lies farthest")
def argmax(trajectory, published):
    far = np.sqrt(np.mean((trajectory - published) ** 2, axis=1))
    return np.nanargmax(far) + 1, np.nanmax(far)


@wrong("nearest_epoch", "takes the last; asked is the first")
def last_of_equals(trajectory, published):
    best, least = None, math.inf
    for epoch, scores in enumerate(trajectory, start=1):
        far = math.sqrt(np.mean((scores - published) ** 2))
        if far <= least:
            best, least = epoch, far
    return best, least


@wrong("nearest_epoch", "always takes the last epoch")
def the_last(trajectory, published):
    return len(trajectory), float(np.sqrt(np.mean((trajectory[-1] - published) ** 2)))


@wrong("nearest_epoch", None)
def mean_over_the_epochs(trajectory, published):
    far = np.sqrt(((trajectory - published) ** 2).mean(axis=0))
    return int(np.nanargmin(far)) + 1, np.nanmin(far)


@wrong("nearest_epoch", None)
def first_score_alone(trajectory, published):
    far = np.abs(trajectory[:, 0] - published[0])
    return int(np.argmin(far)) + 1, far.min()


@wrong("nearest_epoch", None)
def nan_as_zero(trajectory, published):
    far = np.sqrt((np.nan_to_num(trajectory - published) ** 2).mean(axis=1))
    return int(np.argmin(far)) + 1, far.min()


@wrong("nearest_epoch", None)
def epoch_alone(trajectory, published):
    far = np.sqrt(((trajectory - published) ** 2).mean(axis=1))
    return int(np.nanargmin(far)) + 1


@wrong("nearest_epoch", "in place")
def works_in_the_given_array(trajectory, published):
    trajectory -= published
    far = np.sqrt((trajectory**2).mean(axis=1))
    return int(np.nanargmin(far)) + 1, np.nanmin(far)


@right("nearest_epoch")
def nanargmin(trajectory, published):
    far = np.sqrt(((trajectory - published) ** 2).mean(axis=1))
    return np.nanargmin(far) + 1, np.nanmin(far)


@right("nearest_epoch")
def a_loop_over_epochs(trajectory, published):
    best, least = 0, math.inf
    for epoch, scores in enumerate(trajectory.tolist(), start=1):
        squares = [(a - b) ** 2 for a, b in zip(scores, published.tolist(), strict=True)]
        far = math.sqrt(sum(squares) / len(squares))
        if far < least:  # never so for a NaN
            best, least = epoch, far
    return best, least


@right("nearest_epoch")
def with_norms(trajectory, published):
    off = torch.tensor(trajectory) - torch.tensor(published)
    far = off.norm(dim=1) / math.sqrt(off.shape[1])
    far = far.nan_to_num(nan=math.inf)
    return far.argmin() + 1, far.min()


# two_answers


def gain_of(mean, margin):
    low, high = mean
    return "no gain" if high < margin else "gain" if low > 0 else "open"


def place_of(run, published):
    low, high = run
    if published != published:
        return "not printed"
    return "inside" if low <= published <= high else "outside"


@wrong("two_answers", "ask for the margin first")
def zero_first(mean, run, published, margin=0.01):
    low, high = mean
    if low > 0:
        gain = "gain"
    elif high < margin:
        gain = "no gain"
    else:
        gain = "open"
    return gain, place_of(run, published)


@wrong("two_answers", "not that there is nothing")
def significant_or_nothing(mean, run, published, margin=0.01):
    low, high = mean
    return "gain" if low > 0 else "no gain", place_of(run, published)


@wrong("two_answers", "ends below 0")
def no_gain_is_a_loss(mean, run, published, margin=0.01):
    low, high = mean
    gain = "no gain" if high < 0 else "gain" if low > 0 and high >= margin else "open"
    return gain, place_of(run, published)


@wrong("two_answers", "lies above the margin")
def wholly_above(mean, run, published, margin=0.01):
    low, high = mean
    gain = "no gain" if high < margin else "gain" if low >= margin else "open"
    return gain, place_of(run, published)


@wrong("two_answers", "The middle of the interval decides")
def by_the_point(mean, run, published, margin=0.01):
    low, high = mean
    gain = "gain" if (high + low) / 2 >= margin else "no gain"
    return gain, place_of(run, published)


@wrong("two_answers", "it has to end below")
def at_the_margin(mean, run, published, margin=0.01):
    low, high = mean
    gain = "no gain" if high <= margin else "gain" if low > 0 else "open"
    return gain, place_of(run, published)


@wrong("two_answers", "begin above")
def zero_is_a_gain(mean, run, published, margin=0.01):
    low, high = mean
    gain = "no gain" if high < margin else "gain" if low >= 0 else "open"
    return gain, place_of(run, published)


@wrong("two_answers", "nothing to compare")
def nan_outside(mean, run, published, margin=0.01):
    low, high = run
    return gain_of(mean, margin), "inside" if low <= published <= high else "outside"


@wrong("two_answers", "nothing to compare")
def nan_inside(mean, run, published, margin=0.01):
    low, high = run
    place = "outside" if published > high or published < low else "inside"
    return gain_of(mean, margin), place


@wrong("two_answers", "both ends belong")
def open_interval(mean, run, published, margin=0.01):
    low, high = run
    place = "not printed" if np.isnan(published) else "outside"
    if low < published < high:
        place = "inside"
    return gain_of(mean, margin), place


@wrong("two_answers", "the same sign")
def points_the_same_way(mean, run, published, margin=0.01):
    low, high = run
    if math.isnan(published):
        return gain_of(mean, margin), "not printed"
    same = np.sign(published) == np.sign(low + high) and published != 0
    return gain_of(mean, margin), "inside" if same else "outside"


@wrong("two_answers", "how close they have to be")
def within_a_point_of_ours(mean, run, published, margin=0.01):
    low, high = run
    if math.isnan(published):
        return gain_of(mean, margin), "not printed"
    near = abs((low + high) / 2 - published) <= 0.01
    return gain_of(mean, margin), "inside" if near else "outside"


@wrong("two_answers", "`margin` may be another")
def a_point_always(mean, run, published, margin=0.01):
    return gain_of(mean, 0.01), place_of(run, published)


@wrong("two_answers", "held against the interval of our mean")
def one_interval_for_both(mean, run, published, margin=0.01):
    return gain_of(mean, margin), place_of(mean, published)


@wrong("two_answers", "whether there is one, our mean says")
def one_run_for_both(mean, run, published, margin=0.01):
    return gain_of(run, margin), place_of(run, published)


@wrong("two_answers", "The two intervals are exchanged")
def each_from_the_other(mean, run, published, margin=0.01):
    return gain_of(run, margin), place_of(mean, published)


@wrong("two_answers", "The two answers are exchanged")
def the_paper_first(mean, run, published, margin=0.01):
    return place_of(run, published), gain_of(mean, margin)


@wrong("two_answers", None)
def true_and_false(mean, run, published, margin=0.01):
    low, high = mean
    return low > 0, low <= published <= high


@wrong("two_answers", None)
def one_word(mean, run, published, margin=0.01):
    return f"{gain_of(mean, margin)}, {place_of(run, published)}"


@wrong("two_answers", None)
def none_for_nan(mean, run, published, margin=0.01):
    place = place_of(run, published)
    return gain_of(mean, margin), None if place == "not printed" else place


@right("two_answers")
def margin_first(mean, run, published, margin=0.01):
    return gain_of(mean, margin), place_of(run, published)


@right("two_answers")
def a_ladder_of_ifs(mean, run, published, margin=0.01):
    low, high = mean
    gain = "open"
    if low > 0 and high >= margin:
        gain = "gain"
    if high < margin:
        gain = "no gain"
    place = "outside"
    if np.isnan(published):
        place = "not printed"
    elif published >= run[0] and published <= run[1]:
        place = "inside"
    return [gain, place]


@right("two_answers")
def with_select(mean, run, published, margin=0.01):
    low, high = mean
    gain = np.select([high < margin, low > 0], ["no gain", "gain"], "open").item()
    inside = pd.Interval(*run, closed="both")
    place = "not printed" if pd.isna(published) else "outside"
    return gain, "inside" if not pd.isna(published) and published in inside else place


@wrong("two_answers", "The middle of the interval decides")
def none_where_the_middle_is_small(mean, run, published, margin=0.01):
    low, high = mean
    gain = "no gain" if sum(mean) / 2 < margin else "gain" if low > 0 else "open"
    return gain, place_of(run, published)


@wrong("two_answers", "ends below 0")
def no_margin_at_all(mean, run, published, margin=0.01):
    low, high = mean
    return "gain" if low > 0 else "no gain" if high <= 0 else "open", place_of(run, published)


@wrong("nearest_epoch", "left out before the count")
def drop_what_is_missing(trajectory, published):
    kept = [line for line in trajectory if not np.isnan(line).any()]
    far = [np.sqrt(np.mean((line - published) ** 2)) for line in kept]
    return far.index(min(far)) + 1, min(far)


@wrong("nearest_epoch", "taken for 0")
def missing_is_zero(trajectory, published):
    far = np.sqrt(((np.nan_to_num(trajectory) - published) ** 2).mean(axis=1))
    return int(far.argmin()) + 1, float(far.min())


@wrong("constant_answer", "on each split by itself")
def one_label_a_split(counts, published, digits=3):
    labels = set()
    for split, accuracy in published.items():
        of_split, half = counts[split], 0.5 * 10**-digits + 1e-9
        shares = np.array(of_split) / sum(of_split)
        fits = np.flatnonzero(abs(shares - accuracy) <= half)
        labels.add(int(fits[0]) if len(fits) else None)
    return labels.pop() if len(labels) == 1 else None


@wrong("possible_counts", "which cuts off")
def whole_numbers_by_int(accuracy, size, digits=3):
    units = int(accuracy * 10**digits)
    return [k for k in range(size + 1) if abs(2 * k * 10**digits - 2 * units * size) <= size]
