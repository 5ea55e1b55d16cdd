"""How sure a score is: what another seed and other development examples could have given.

Two errors stand behind every development score. Training with another seed gives another model;
another development set would have held other examples. Seeds give the first, a bootstrap over the
stored predictions the second. Both are paired: rows are compared seed by seed, and on the same
resampled examples, which cancels what the rows share.

Shapes: N development examples, R runs, B bootstrap draws, K true labels of a task.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
from scipy import stats

from mtl_lib.errors import RunError
from mtl_lib.evaluation import headline, predicted_labels
from mtl_lib.study.by_label import per_class_report, round_scores
from mtl_lib.study.conflicts import pair_name
from mtl_lib.study.store import Run
from mtl_lib.tasks import BY_NAME

CONFIDENCE = 0.95
DRAWS = 1000
ENOUGH_SEEDS = 3
"""With fewer nothing is told of seeds: Student's interval of two is thirteen errors to a side."""
AVERAGE = "average"  # of the three tasks' headline metrics, as the leaderboard has it
COSINES = ("opposition", "agreement")  # measures of gradients, not of predictions
OF_EPOCHS = (*COSINES, "late")  # measures of the history: what is known is how seeds scatter
EARLIER = 9
"""Epochs after which the paper's scores no longer improved, at the latest."""


@dataclass(frozen=True)
class Estimate:
    """A number with its interval.

    Attributes:
        value: mean over the seeds.
        low, high: the 95 % interval.
        seeds: how many; with 1 the interval knows the development examples only.
        seed_error: standard error of the mean over seeds; NaN with one seed.
        example_error: standard error that the choice of development examples brings.
        run_error: standard deviation of one such number over runs that share no seed; NaN with one
            seed.
    """

    value: float
    low: float
    high: float
    seeds: int
    seed_error: float
    example_error: float
    run_error: float

    def one_more_run(self) -> tuple[float, float]:
        """Where such a number lies in 95 % of cases or more if it comes from other seeds: the
        prediction interval.

        A published number is one run of each row: it scatters as runs do, not as their mean, and
        nobody knows whether its rows shared a seed, so what ours share does not count here. The
        error of the examples is in it, so that they may be others: with the same it is too wide,
        as it is where seeds agree by luck (`_variance_over_seeds`). NaN with one seed, which does
        not tell how seeds scatter.
        """
        half = _half_width(
            float(np.hypot(self.seed_error, self.run_error)), self.example_error, self.seeds
        )
        return self.value - half, self.value + half


def combine(
    values: Sequence[float], example_error: float, run_error: float | None = None
) -> Estimate:
    """The mean over seeds, with an interval that holds both errors.

    Student's interval over S seeds, s / sqrt(S) times t, and the bootstrap's over examples are two
    half-widths; that of both is the root of the sum of their squares (the method of Zou and Donner,
    2008, for the sum of two estimates). So three seeds give a wide interval where they disagree.
    (Resampling three seeds with replacement would not: such an interval holds the truth three
    times in four only.) What varies with seed and example at once counts in both, which makes it
    wider, and keeps seeds that agree by luck from looking sure.

    Args:
        values: one per seed.
        example_error: standard error by the choice of examples; 0 where it does not apply.
        run_error: see `Estimate`; that of the values by default.
    """
    values = np.asarray(values, dtype=float)
    seeds = len(values)
    spread = float(values.std(ddof=1)) if seeds > 1 else float("nan")
    seed_error = spread / np.sqrt(seeds)
    half = _half_width(seed_error if seeds > 1 else 0.0, example_error, seeds)
    value = float(values.mean())
    return Estimate(
        value,
        value - half,
        value + half,
        seeds,
        seed_error,
        float(example_error),
        spread if run_error is None else run_error,
    )


def _half_width(seed_error: float, example_error: float, seeds: int) -> float:
    """Half the 95 % interval of two errors, of which the first is known from so many seeds."""
    quantile = (1 + CONFIDENCE) / 2
    of_seeds = seed_error * stats.t.ppf(quantile, seeds - 1) if seed_error else seed_error
    return float(np.hypot(of_seeds, example_error * stats.norm.ppf(quantile)))


def seed_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean over seeds and Student's 95 % interval; NaN for fewer than three (`ENOUGH_SEEDS`)."""
    if len(values) < ENOUGH_SEEDS:
        return float(np.mean(values)), float("nan"), float("nan")
    estimate = combine(values, 0.0)
    return estimate.value, estimate.low, estimate.high


@lru_cache(maxsize=8)
def resampled_counts(examples: int, draws: int, seed: tuple[int, ...]) -> np.ndarray:
    """How often each of N examples is drawn in a bootstrap sample of N: `[B, N]`, uint8."""
    generator = np.random.default_rng(seed)
    counts = np.empty((draws, examples), dtype=np.uint8)
    for draw in counts:
        sample = generator.integers(examples, size=examples, dtype=np.int32)
        draw[:] = np.bincount(sample, minlength=examples)
    return counts


def bootstrap_metric(
    task_name: str, runs: Sequence[Run], draws: int = DRAWS, seed: int = 0
) -> np.ndarray:
    """The headline metric of all runs on the same resampled development sets, `[B, R]`.

    Raises:
        RunError: if the runs were not evaluated on the same examples.
    """
    task, labels = BY_NAME[task_name], _labels(task_name, runs)
    stream = _stream(task_name, seed)
    predicted = np.stack([predicted_labels(task, run.predictions[task_name]) for run in runs], 1)
    if task.metric == "accuracy":
        sums = _resampled_sums((predicted == labels[:, None]).astype(float), draws, stream)
        return sums / len(labels)
    x = predicted.astype(float) - predicted.mean(axis=0)  # [N, R]
    y = (labels - labels.mean())[:, None]
    columns = np.hstack([x, x * x, x * y, y, y * y])
    sums = _resampled_sums(columns, draws, stream) / len(labels)  # [B, 3 R + 2]
    width = len(runs)
    mean_x, mean_xx, mean_xy = (sums[:, n * width : (n + 1) * width] for n in range(3))
    mean_y, mean_yy = sums[:, -2:-1], sums[:, -1:]
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = np.sqrt((mean_xx - mean_x**2) * (mean_yy - mean_y**2))
        return (mean_xy - mean_x * mean_y) / spread


def bootstrap_by_label(
    task_name: str, run: Run, draws: int = DRAWS
) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy by true label and the labels' shares on resampled development sets, `[B, K]` each.

    NaN where a resampled set holds no example of a label.
    """
    task, labels = BY_NAME[task_name], _labels(task_name, [run])
    predicted = predicted_labels(task, run.predictions[task_name])
    if task.kind == "score":
        labels, predicted = round_scores(labels, task), round_scores(predicted, task)
    is_label = (labels[:, None] == np.arange(task.num_classes)).astype(float)  # [N, K]
    right = is_label * (predicted == labels)[:, None]
    sums = _resampled_sums(np.hstack([right, is_label]), draws, _stream(task_name, 0))
    hits, counts = np.split(sums, 2, axis=1)
    with np.errstate(invalid="ignore"):
        return hits / counts, counts / len(labels)


def sampling_error(task_name: str, run: Run) -> float:
    """Half the width of the 95 % interval that the choice of examples gives one run's score."""
    low, high = np.nanpercentile(bootstrap_metric(task_name, [run]), [2.5, 97.5])
    return float(high - low) / 2


def mcnemar(right: np.ndarray, other: np.ndarray) -> float:
    """McNemar's exact test: p-value that two classifiers err equally often on the same examples.

    Of the examples that exactly one of them gets right, each has half under the null hypothesis:
    a two-sided binomial test (McNemar, 1947).

    Args:
        right, other: whether each model is right, `[N]`, bool.
    """
    first, second = int((right & ~other).sum()), int((other & ~right).sum())
    return float(stats.binomtest(first, first + second).pvalue) if first + second else 1.0


def permutation_test(
    scores: np.ndarray, other: np.ndarray, labels: np.ndarray, draws: int = DRAWS
) -> float:
    """p-value that two models' scores correlate equally well with the labels (Pearson's r).

    Approximate randomisation (Noreen, 1989): under the null hypothesis an example's two scores,
    each model's standardised, may be swapped. Two-sided, over random swaps; over all of them
    where these are no more than the draws. NaN where a model gives one score only.

    Args:
        scores, other: the models' scores `[N]`.
        labels: `[N]`.
    """
    if np.ptp(scores) == 0 or np.ptp(other) == 0:
        return float("nan")
    a, b, y = (stats.zscore(np.asarray(values, dtype=float)) for values in (scores, other, labels))

    def difference(mixed: np.ndarray, rest: np.ndarray, axis: int) -> np.ndarray:
        """Between the correlations of two mixtures of the scores, `[B, N]` each: `[B]`."""
        r = [(x * y).mean(axis=axis) / x.std(axis=axis) for x in (mixed, rest)]
        return np.abs(r[0] - r[1]).round(12)  # equal but for rounding is equal

    found = stats.permutation_test(
        (a, b),
        difference,
        permutation_type="samples",
        alternative="greater",
        n_resamples=draws,
        batch=500,
        rng=np.random.default_rng(0),
    )
    return float(found.pvalue)


class Evidence:
    """The scores of one study's runs, each with both its errors; rows are named by their ids.

    Args:
        runs: the runs of one study, one per row and seed.

    Raises:
        RunError: if two are of one row and seed.
    """

    def __init__(self, runs: Iterable[Run]):
        self.runs: dict[str, dict[int, Run]] = {}
        for run in runs:
            by_seed = self.runs.setdefault(run.config["row"], {})
            if run.config["seed"] in by_seed:
                raise RunError(f"row {run.config['row']}: two runs of seed {run.config['seed']}")
            by_seed[run.config["seed"]] = run
        self._draws: dict[str, dict[str, np.ndarray]] = {}
        self._by_label: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]] = {}

    @cached_property
    def rows(self) -> list[str]:
        """The rows that were run."""
        return list(self.runs)

    def seeds(self, rows: Iterable[str]) -> list[int]:
        """The seeds that all of these rows have."""
        return sorted(set.intersection(*(set(self.runs.get(row, {})) for row in rows)))

    def estimate(
        self,
        terms: Mapping[str, float],
        task: str = AVERAGE,
        measure: str = "dev",
        seeds: Sequence[int] | None = None,
    ) -> Estimate:
        """A sum of rows' scores, each times its factor: `{"3.2": 1, "3.1": -1}` is a difference.

        Args:
            terms: factor of each row.
            task: a task, or "average" of the three.
            measure: "dev", the task's metric on the development set; "gap", training minus
                development, where the training sample counts as given, without an error;
                "balance", accuracy minus balanced accuracy; "frequency", accuracy on the most
                frequent label minus the mean of the others'; "top", share of predictions of the
                highest label; "opposition", minus the mean cosine of the task's gradient with the
                others'; "agreement", how much higher its cosine with another batch of its own is.
                The two cosines are means over the epochs. "late" is how far the best epoch of all
                lies above the best of the first nine, on the average of the tasks; NaN of a shorter
                run. The intervals of these three know the seeds only, and are NaN with one seed.
            seeds: of these only; by default all that the rows have in common.

        Raises:
            RunError: if the rows have no seed in common.
        """
        seeds = self.seeds(terms) if seeds is None else list(seeds)
        if not seeds:
            raise RunError(f"rows {', '.join(terms)} have no seed in common")
        tasks = _tasks(self.runs[next(iter(terms))][seeds[0]]) if task == AVERAGE else [task]
        values, draws, other_seeds = np.zeros(len(seeds)), np.zeros(DRAWS), 0.0
        for row, factor in terms.items():
            runs = [self.runs[row][seed] for seed in seeds]
            of_row, resampled = np.zeros(len(seeds)), np.zeros((len(seeds), DRAWS))
            for name in tasks:
                share = factor / len(tasks)
                of_row += share * np.array([_value(run, name, measure) for run in runs])
                resampled += share * np.array([self._resampled(run, name, measure) for run in runs])
            values += of_row
            draws += resampled.mean(axis=0)
            other_seeds += _variance_over_seeds(of_row, resampled)
        spread = values.std(ddof=1) if len(seeds) > 1 else np.nan
        unknown = np.isnan(values).any() or (measure in OF_EPOCHS and len(seeds) == 1)
        error = float("nan") if unknown else float(np.nanstd(draws))
        estimate = combine(values, error, max(spread, float(np.sqrt(other_seeds))))
        if measure == "top" and not values.any():  # none among N: no bootstrap draws one either
            size = len(runs[0].labels[task])
            return replace(estimate, high=1 - ((1 - CONFIDENCE) / 2) ** (1 / size))
        return estimate

    def alike(self, row: str, other: str, task: str, seeds: Sequence[int]) -> float:
        """Share of the examples on which two rows answer the same, over some seeds; NaN for a
        score, where no two answers are quite the same. On average: of the task where they differ
        most, scores apart."""
        if task == AVERAGE:
            tasks = _tasks(next(iter(self.runs[row].values())))
            return float(np.nanmin([self.alike(row, other, name, seeds) for name in tasks]))
        if BY_NAME[task].kind == "score":
            return float("nan")
        same = [
            predicted_labels(BY_NAME[task], self.runs[row][seed].predictions[task])
            == predicted_labels(BY_NAME[task], self.runs[other][seed].predictions[task])
            for seed in seeds
        ]
        return float(np.mean(same))

    def p_values(self, row: str, other: str, task: str) -> tuple[str, list[float]]:
        """The paired test of two rows on one task, seed by seed: its name and p-values."""
        pairs = [
            (self.runs[row][seed], self.runs[other][seed]) for seed in self.seeds((row, other))
        ]
        kind = BY_NAME[task]
        values = []
        for pair in pairs:
            a, b = (predicted_labels(kind, run.predictions[task]) for run in pair)
            labels = _labels(task, pair)
            if kind.metric == "accuracy":
                values.append(mcnemar(a == labels, b == labels))
            else:
                values.append(permutation_test(a, b, labels))
        return ("McNemar" if kind.metric == "accuracy" else "permutation"), values

    def _resampled(self, run: Run, task: str, measure: str) -> np.ndarray:
        """The measure on resampled development sets, `[B]`; training scores are not resampled."""
        if measure in ("dev", "gap"):
            sign = 1 if measure == "dev" else -1
            return sign * self._metric_draws(task)[run.key]
        if measure in OF_EPOCHS:
            return np.zeros(DRAWS)
        if measure == "top":
            top = _is_top(run, task)[:, None].astype(float)  # [N, 1]
            return _resampled_sums(top, DRAWS, _stream(task, 0))[:, 0] / len(top)
        if (task, run.key) not in self._by_label:
            self._by_label[task, run.key] = bootstrap_by_label(task, run)
        accuracy, share = self._by_label[task, run.key]
        if measure == "frequency":  # of the label that is it in the whole set, whatever is drawn
            share = np.broadcast_to(_by_label(run, task)[1], share.shape)
        return by_label_measure(accuracy, share, measure)

    def _metric_draws(self, task: str) -> dict[str, np.ndarray]:
        """All runs of a task, resampled together: one pass, and paired by construction. Where a
        resampled score is undefined, of one answer for all, it is what the run's own counts as."""
        if task not in self._draws:
            runs = [r for by_seed in self.runs.values() for r in by_seed.values()]
            runs = [run for run in runs if task in run.predictions]
            self._draws[task] = {
                run.key: np.where(np.isnan(column), _value(run, task, "dev"), column)
                for run, column in zip(runs, bootstrap_metric(task, runs).T, strict=True)
            }
        return self._draws[task]


def _variance_over_seeds(values: np.ndarray, resampled: np.ndarray) -> float:
    """Variance of a row's score over seeds, NaN with one seed or where a score is undefined.

    It is at least what runs of two seeds scatter by the examples on which they differ, or three
    seeds that agree by luck would speak for all.

    Args:
        values: one a seed, `[S]`.
        resampled: the same on resampled development sets, `[S, B]`.
    """
    if len(values) < 2 or np.isnan(values).any():
        return float("nan")
    own = resampled - resampled.mean(axis=0)  # what a seed has of its own
    by_example = np.nanvar(own, axis=1).sum() / (len(values) - 1)
    return max(float(values.var(ddof=1)), float(by_example))


def _value(run: Run, task: str, measure: str) -> float:
    """A measure of one run, from its stored metrics or, by label, from its predictions."""
    best, metric = run.metrics["best"], BY_NAME[task].metric
    if measure == "dev":
        return best["dev"][task][metric]
    if measure == "gap":
        return best["train"][task][metric] - best["dev"][task][metric]
    if measure in COSINES:
        others, same = task_cosines(run, task)
        return -others if measure == "opposition" else same - others
    if measure == "late":
        by_epoch = [headline(entry["dev"]) for entry in run.history]
        enough = len(by_epoch) > EARLIER
        return max(by_epoch) - max(by_epoch[:EARLIER]) if enough else float("nan")
    if measure == "top":
        return float(_is_top(run, task).mean())
    return float(by_label_measure(*_by_label(run, task), measure)[0])


def _by_label(run: Run, task: str) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy by true label and the labels' shares, `[1, K]` each."""
    report = per_class_report(BY_NAME[task], run.predictions[task], run.labels[task])
    return report[["accuracy"]].to_numpy().T, report[["share"]].to_numpy().T


def task_cosines(run: Run, task: str) -> tuple[float, float]:
    """Mean cosine of a task's shared gradient with the other tasks', and with that of another
    batch of its own: the mean over the epochs; NaN where it was not noted."""
    others, same, names = [], [], _tasks(run)
    pairs = {pair_name(a, b): (a, b) for a in names for b in names}
    for entry in run.history:
        for pair, values in entry["conflict"].items():
            first, second = pairs[pair]
            if task in (first, second):
                (same if first == second else others).append(values["cosine"])
    return tuple(float(np.mean(found)) if found else float("nan") for found in (others, same))


def by_label_measure(accuracy: np.ndarray, share: np.ndarray, measure: str) -> np.ndarray:
    """A measure `[B]` of accuracies and shares by label, `[B, K]` each: see `Evidence.estimate`.

    Args:
        accuracy, share: fractions; a label without examples has accuracy NaN and is left out.
        measure: "balance" or "frequency".

    Raises:
        ValueError: if the measure is another.
    """
    if measure == "balance":
        return np.nansum(accuracy * share, axis=1) - np.nanmean(accuracy, axis=1)
    if measure == "frequency":
        most = np.arange(share.shape[1]) == share.argmax(axis=1)[:, None]  # [B, K]
        rest = np.nanmean(np.where(most, np.nan, accuracy), axis=1)
        return accuracy[most] - rest
    raise ValueError(
        f"measure {measure!r}: choose dev, gap, balance, frequency, top, {', '.join(OF_EPOCHS)}"
    )


def _is_top(run: Run, task: str) -> np.ndarray:
    """Whether a prediction is, rounded, the highest label, `[N]`."""
    predicted = predicted_labels(BY_NAME[task], run.predictions[task])
    return round_scores(predicted, BY_NAME[task]) == BY_NAME[task].max_label


def _labels(task: str, runs: Sequence[Run]) -> np.ndarray:
    first = runs[0]
    for run in runs[1:]:
        if run.ids[task] != first.ids[task]:
            raise RunError(
                f"{task}: rows {first.config['row']} and {run.config['row']} were evaluated on "
                "different development sets; compare runs of one study"
            )
    return first.labels[task].astype(float)


def _tasks(run: Run) -> list[str]:
    return list(run.config["heads"])


def _stream(task: str, seed: int) -> tuple[int, int]:
    """A seed per task: the tasks' development sets are drawn apart."""
    return seed, list(BY_NAME).index(task)


def _resampled_sums(columns: np.ndarray, draws: int, stream: tuple[int, int]) -> np.ndarray:
    """Sums of columns `[N, M]` over bootstrap samples of their rows: `[B, M]`."""
    counts = resampled_counts(len(columns), draws, stream)
    parts = np.array_split(counts, max(1, draws // 50))  # a part at a time as floats
    return np.vstack([part.astype(float) @ columns for part in parts])
