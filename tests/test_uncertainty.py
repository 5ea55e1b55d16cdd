"""Intervals and tests, against scipy, brute force and simulation."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from fake_runs import fake_run, fake_study
from scipy import stats

from mtl_lib.errors import RunError
from mtl_lib.evaluation import metrics, predicted_labels
from mtl_lib.study.by_label import per_class_report
from mtl_lib.study.conflicts import pair_name
from mtl_lib.study.paper import TASK_ORDER
from mtl_lib.study.uncertainty import (
    Evidence,
    bootstrap_by_label,
    bootstrap_metric,
    by_label_measure,
    combine,
    mcnemar,
    permutation_test,
    resampled_counts,
    sampling_error,
    seed_interval,
    task_cosines,
)
from mtl_lib.tasks import BY_NAME, Task

# --- seeds


def test_seeds_alone_give_students_interval():
    values = [0.41, 0.44, 0.40]
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert seed_interval(values) == pytest.approx((np.mean(values), expected.low, expected.high))


def test_one_seed_has_no_interval_of_its_own():
    mean, low, high = seed_interval([0.4])
    assert mean == 0.4 and np.isnan([low, high]).all()


def test_with_one_seed_the_interval_is_that_of_the_examples():
    estimate = combine([0.1], 0.02)
    assert estimate.low == pytest.approx(0.1 - 1.959964 * 0.02, abs=1e-6)
    assert np.isnan(estimate.seed_error)


def test_the_half_widths_of_both_errors_add_as_squares():
    estimate = combine([0.1, 0.12, 0.11], 0.03)
    of_seeds = stats.ttest_1samp([0.1, 0.12, 0.11], 0).confidence_interval(0.95)
    half = np.hypot((of_seeds.high - of_seeds.low) / 2, 1.959964 * 0.03)
    assert (estimate.low, estimate.high) == pytest.approx((0.11 - half, 0.11 + half), abs=1e-6)
    assert combine([0.1, 0.1, 0.1], 0.03).high == pytest.approx(0.1 + 1.959964 * 0.03, abs=1e-6)


@pytest.mark.parametrize("seeds", [2, 3])
@pytest.mark.parametrize("ratio", [0.5, 3])  # error of the mean over seeds, over the examples'
def test_the_interval_covers_whichever_error_is_the_larger(ratio, seeds):
    generator = np.random.default_rng(0)
    means = generator.normal(size=4000)  # of the development set, which moves all seeds together
    scatter = ratio * np.sqrt(seeds) * generator.normal(size=(4000, seeds))
    estimates = [combine(mean + own, 1.0) for mean, own in zip(means, scatter, strict=True)]
    assert np.mean([e.low < 0 < e.high for e in estimates]) > 0.94


def test_one_more_run_lies_in_students_prediction_interval():
    scores = [0.41, 0.43, 0.40]
    half = stats.t.ppf(0.975, 2) * np.std(scores, ddof=1) * np.sqrt(1 + 1 / 3)
    low, high = combine(scores, 0.0).one_more_run()
    assert (low, high) == pytest.approx((np.mean(scores) - half, np.mean(scores) + half))


@pytest.mark.parametrize("seeds", [3, 10])
def test_a_run_of_the_same_kind_lies_there_however_many_seeds_there_are(seeds):
    generator, inside = np.random.default_rng(0), 0
    for *scores, one_more in generator.normal(size=(2000, seeds + 1)):
        low, high = combine(scores, 0.0).one_more_run()
        inside += low <= one_more <= high
    assert inside / 2000 == pytest.approx(0.95, abs=0.02)


def test_a_difference_of_one_more_run_need_not_share_a_seed_as_ours_do():
    """Two rows that a seed moves together: their differences hardly scatter, those of runs with
    two seeds do."""
    generator, inside = np.random.default_rng(0), []
    for _ in range(2000):
        by_seed, other = generator.normal(size=3), generator.normal(size=2)
        small = 0.01 * generator.normal(size=3)
        estimate = combine(small, 0.0, run_error=np.sqrt(2) * by_seed.std(ddof=1))
        low, high = estimate.one_more_run()
        inside.append(low <= other[0] - other[1] <= high)
        assert estimate.high - estimate.low < (high - low) / 2
    assert np.mean(inside) == pytest.approx(0.95, abs=0.02)


def test_one_seed_does_not_tell_where_another_would_lie():
    assert np.isnan(combine([0.4], 0.01).one_more_run()).all()


def test_identical_rows_differ_by_zero_for_sure():
    estimate = combine([0.0, 0.0], 0.0)
    assert (estimate.low, estimate.high) == (0.0, 0.0)


def test_the_interval_covers_where_a_percentile_bootstrap_of_three_seeds_does_not():
    generator = np.random.default_rng(0)
    ours, percentile = [], []
    for _ in range(400):
        common = generator.normal(scale=0.5)  # the development set moves all seeds together
        values = common + generator.normal(scale=1.0, size=3)
        estimate = combine(values, 0.5)
        ours.append(estimate.low < 0 < estimate.high)
        means = [np.mean(draw) for draw in product(values - common, repeat=3)]
        low, high = np.percentile(means, [2.5, 97.5])
        percentile.append(low < 0 < high)
    assert np.mean(ours) > 0.93
    assert np.mean(percentile) < 0.85


# --- examples


def test_every_bootstrap_sample_has_as_many_examples_as_the_set():
    counts = resampled_counts(50, 20, (0, 0))
    assert counts.shape == (20, 50) and (counts.sum(axis=1) == 50).all()


@pytest.mark.parametrize("name", TASK_ORDER)
def test_a_resampled_metric_is_the_metric_of_the_resampled_examples(name):
    runs = [fake_run("3.1"), fake_run("3.2")]
    draws = bootstrap_metric(name, runs, draws=5, seed=3)
    counts = resampled_counts(200, 5, (3, list(BY_NAME).index(name)))
    task = BY_NAME[name]
    for draw, count in zip(draws, counts, strict=True):
        chosen = np.repeat(np.arange(200), count)
        for value, run in zip(draw, runs, strict=True):
            scores = metrics(task, run.predictions[name][chosen], run.labels[name][chosen])
            assert value == pytest.approx(scores[task.metric], abs=1e-9)


def test_resampled_accuracy_by_label_is_that_of_the_resampled_examples():
    run = fake_run("3.1")
    accuracy, share = bootstrap_by_label("sentiment", run, draws=3)
    counts = resampled_counts(200, 3, (0, list(BY_NAME).index("sentiment")))
    labels = run.labels["sentiment"]
    right = predicted_labels(BY_NAME["sentiment"], run.predictions["sentiment"]) == labels
    for label in range(5):
        weights = counts * (labels == label)
        assert accuracy[:, label] == pytest.approx((weights * right).sum(1) / weights.sum(1))
        assert share[:, label] == pytest.approx(weights.sum(1) / 200)


@pytest.fixture
def out_of_ten(monkeypatch):
    """A run of one task whose labels go from 0 to 10."""
    task = Task("relatedness", 2, loss="mean_squared_error", metric="pearson", max_label=10)
    monkeypatch.setitem(BY_NAME, task.name, task)
    generator = np.random.default_rng(2)
    labels = generator.uniform(0, 10, size=400).astype(np.float32)
    logits = (labels + generator.normal(size=400)).astype(np.float32)[:, None]
    run = fake_run("3.1", size=400)
    return replace(
        run,
        config=run.config | {"heads": {task.name: {}}},
        predictions={task.name: logits},
        labels={task.name: labels},
        ids={task.name: run.ids["similarity"]},
    )


def test_a_score_has_the_labels_of_its_task_not_0_to_5(out_of_ten):
    accuracy, share = bootstrap_by_label("relatedness", out_of_ten, draws=200)
    assert accuracy.shape == share.shape == (200, 11)
    rounded = np.rint(out_of_ten.labels["relatedness"])
    right = np.rint(out_of_ten.predictions["relatedness"][:, 0]).clip(0, 10) == rounded
    expected = [right[rounded == label].mean() for label in range(11)]
    assert accuracy.mean(axis=0) == pytest.approx(expected, abs=0.05)
    report = per_class_report(
        BY_NAME["relatedness"],
        out_of_ten.predictions["relatedness"],
        out_of_ten.labels["relatedness"],
    )
    assert report["accuracy"].to_numpy() == pytest.approx(expected)


def test_the_highest_label_is_that_of_the_task(out_of_ten):
    top = Evidence([out_of_ten]).estimate({"3.1": 1}, "relatedness", "top")
    expected = np.mean(out_of_ten.predictions["relatedness"] > 9.5)
    assert 0 < top.value == pytest.approx(expected)


def test_the_sampling_error_of_an_accuracy_is_the_binomial_one():
    run = fake_run("3.1", size=2000)
    accuracy = run.metrics["best"]["dev"]["paraphrase"]["accuracy"]
    expected = 1.96 * np.sqrt(accuracy * (1 - accuracy) / 2000)
    assert sampling_error("paraphrase", run) == pytest.approx(expected, rel=0.1)


def test_the_bootstrap_error_of_pearsons_r_is_that_of_fishers_transform():
    generator = np.random.default_rng(1)
    run = fake_run("3.1", size=2000)
    labels = generator.normal(size=2000)
    run.labels["similarity"] = labels
    run.predictions["similarity"] = (0.5 * labels + generator.normal(size=2000))[:, None]
    r = stats.pearsonr(labels, run.predictions["similarity"][:, 0])[0]
    expected = (1 - r**2) / np.sqrt(2000)
    run.predictions["similarity"] = run.predictions["similarity"].astype(np.float32)
    assert sampling_error("similarity", run) == pytest.approx(1.96 * expected, rel=0.1)


def test_runs_of_two_development_sets_are_not_compared():
    with pytest.raises(RunError, match="different development sets"):
        bootstrap_metric("sentiment", [fake_run("3.1"), fake_run("3.2", size=100)])


# --- differences of rows


def test_a_difference_is_paired_by_seed_and_by_example():
    runs = fake_study(["3.1", "3.2"], (0, 1, 2))
    evidence = Evidence(runs)
    estimate = evidence.estimate({"3.2": 1, "3.1": -1}, "sentiment")
    score = {
        (run.config["row"], run.config["seed"]): run.metrics["best"]["dev"]["sentiment"]["accuracy"]
        for run in runs
    }
    paired = [score["3.2", seed] - score["3.1", seed] for seed in range(3)]
    assert estimate.value == pytest.approx(np.mean(paired))
    assert estimate.seed_error == pytest.approx(stats.sem(paired))
    right = [
        predicted_labels(BY_NAME["sentiment"], run.predictions["sentiment"])
        == run.labels["sentiment"]
        for run in runs
    ]
    by_example = np.mean(right[3:], axis=0) - np.mean(right[:3], axis=0)
    assert estimate.example_error == pytest.approx(by_example.std() / np.sqrt(200), rel=0.1)


def test_runs_of_other_seeds_scatter_as_each_row_does():
    runs = fake_study(["3.1", "3.2"], (0, 1, 2))
    estimate = Evidence(runs).estimate({"3.2": 1, "3.1": -1}, "sentiment")
    scores = [run.metrics["best"]["dev"]["sentiment"]["accuracy"] for run in runs]
    apart = np.sqrt(np.var(scores[:3], ddof=1) + np.var(scores[3:], ddof=1))
    paired = np.std(np.subtract(scores[3:], scores[:3]), ddof=1)
    assert estimate.run_error >= max(apart, paired) * (1 - 1e-9)


def test_seeds_that_agree_by_luck_do_not_speak_for_all():
    """Three models, each right on as many examples, but on others."""
    runs = fake_study(["3.1"], (0, 1, 2))
    labels = runs[0].labels["paraphrase"]
    for number, run in enumerate(runs):
        wrong = np.roll(np.arange(200) < 60, 60 * number)
        answers = np.where(wrong, 1 - labels, labels).astype(int)
        run.predictions["paraphrase"] = np.float32(2 * answers - 1)[:, None]
        run.metrics["best"]["dev"]["paraphrase"]["accuracy"] = 0.7
    estimate = Evidence(runs).estimate({"3.1": 1}, "paraphrase")
    assert estimate.seed_error == pytest.approx(0, abs=1e-12)
    # two of them differ on 120 examples, each of which either may get right
    assert estimate.run_error == pytest.approx(np.sqrt(120 / 200**2 / 2), rel=0.1)


def test_only_seeds_that_all_rows_have_are_compared():
    runs = [*fake_study(["3.1"], (0, 1, 2)), *fake_study(["3.2"], (1, 2, 5))]
    assert Evidence(runs).seeds(["3.1", "3.2"]) == [1, 2]
    with pytest.raises(RunError, match="no seed in common"):
        Evidence([fake_run("3.1", 0), fake_run("3.2", 1)]).estimate({"3.1": 1, "3.2": -1})


def test_a_row_minus_itself_has_no_error():
    evidence = Evidence([fake_run("3.1")])
    estimate = evidence.estimate({"3.1": 0})
    assert (estimate.value, estimate.low, estimate.high) == (0, 0, 0)


def test_the_average_is_the_mean_of_the_three_tasks():
    evidence = Evidence(fake_study(["3.1", "3.2"], (0, 1)))
    terms = {"3.2": 1, "3.1": -1}
    parts = [evidence.estimate(terms, task) for task in TASK_ORDER]
    average = evidence.estimate(terms)
    assert average.value == pytest.approx(np.mean([part.value for part in parts]))
    expected = np.sqrt(sum(part.example_error**2 for part in parts)) / 3
    assert average.example_error == pytest.approx(expected, rel=0.1)


def test_a_gap_is_training_minus_development_on_a_given_training_sample():
    runs = fake_study(["3.1"], (0,))
    evidence = Evidence(runs)
    gap = evidence.estimate({"3.1": 1}, "sentiment", "gap")
    best = runs[0].metrics["best"]
    expected = best["train"]["sentiment"]["accuracy"] - best["dev"]["sentiment"]["accuracy"]
    assert gap.value == pytest.approx(expected)
    dev = evidence.estimate({"3.1": 1}, "sentiment")
    assert gap.example_error == pytest.approx(dev.example_error)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("seeds", [1, 3])
def test_of_a_seed_without_a_score_the_mean_and_its_interval_are_undefined(seeds):
    runs = fake_study(["3.1"], range(seeds))
    runs[0].predictions["similarity"][:] = 1.0
    runs[0].metrics["best"]["dev"]["similarity"]["pearson"] = float("nan")
    found = Evidence(runs).estimate({"3.1": 1}, "similarity")
    assert np.isnan([found.value, found.low, found.high, *found.one_more_run()]).all()


def with_predictions(values, seed=0):
    run = fake_run("3.1", seed)
    run.predictions["similarity"] = np.resize(values, 200).astype(np.float32)[:, None]
    return run


def test_a_label_that_is_never_predicted_still_has_an_upper_bound():
    evidence = Evidence([with_predictions([2.0, 4.4], seed) for seed in range(3)])
    top = evidence.estimate({"3.1": 1}, "similarity", "top")
    assert (top.value, top.low) == (0, 0)
    assert top.high == pytest.approx(stats.binomtest(0, 200).proportion_ci().high)
    evidence = Evidence([with_predictions([2.0, 4.6], seed) for seed in range(3)])
    assert evidence.estimate({"3.1": 1}, "similarity", "top").value == 0.5


def test_the_most_frequent_label_is_held_against_the_mean_of_the_others():
    accuracy = np.array([[0.2, 0.9, 0.4], [0.2, 0.9, np.nan]])
    share = np.array([[0.5, 0.3, 0.2], [0.3, 0.7, 0.0]])
    assert by_label_measure(accuracy, share, "frequency") == pytest.approx([0.2 - 0.65, 0.9 - 0.2])


def test_the_most_frequent_label_is_that_of_the_whole_set_whatever_is_drawn():
    """Two labels that are nearly as frequent: resampled sets take turns, the question does not."""
    run = fake_run("3.1")
    labels = np.repeat([0.0, 1.0, 2.0], [80, 79, 41])
    answers = np.where(labels == 1, 0, labels).astype(int)  # right but for label 1
    run.labels["sentiment"], run.ids["sentiment"] = labels, run.ids["sentiment"][:200]
    run.predictions["sentiment"] = np.eye(5, dtype=np.float32)[answers]
    estimate = Evidence([run]).estimate({"3.1": 1}, "sentiment", "frequency")
    assert estimate.value == pytest.approx(1 - 0.5)
    assert estimate.example_error == pytest.approx(0, abs=1e-9)


def test_answers_are_alike_example_by_example():
    runs = fake_study(["3.1", "3.2"], (0, 1))
    evidence = Evidence(runs)
    assert evidence.alike("3.1", "3.1", "sentiment", [0, 1]) == 1
    equal = [predicted_labels(BY_NAME["sentiment"], run.predictions["sentiment"]) for run in runs]
    expected = np.mean([equal[0] == equal[2], equal[1] == equal[3]])
    assert evidence.alike("3.1", "3.2", "sentiment", [0, 1]) == pytest.approx(expected)
    assert evidence.alike("3.1", "3.2", "sentiment", [1]) == np.mean(equal[1] == equal[3])
    assert np.isnan(evidence.alike("3.1", "3.2", "similarity", [0, 1]))
    least = min(evidence.alike("3.1", "3.2", t, [0, 1]) for t in ("sentiment", "paraphrase"))
    assert evidence.alike("3.1", "3.2", "average", [0, 1]) == least


def with_cosines(seed, others, same):
    conflict = {
        "sentiment-paraphrase": {"cosine": others, "rate": 0.5},
        "paraphrase-similarity": {"cosine": others + 0.2, "rate": 0.5},
        "sentiment-similarity": {"cosine": 9.0, "rate": 0.5},
        "paraphrase-paraphrase": {"cosine": same, "rate": 0.5},
    }
    return replace(fake_run("same-task", seed), history=[{"conflict": conflict}])


def test_cosines_between_gradients_are_means_over_pairs_with_the_task():
    evidence = Evidence([with_cosines(1, -0.3, 0.4), with_cosines(2, -0.3, 0.6)])
    opposition = evidence.estimate({"same-task": 1}, "paraphrase", "opposition")
    assert opposition.value == pytest.approx(0.2) and opposition.high == pytest.approx(0.2)
    agreement = evidence.estimate({"same-task": 1}, "paraphrase", "agreement")
    expected = stats.ttest_1samp([0.6, 0.8], 0).confidence_interval(0.95)
    assert (agreement.low, agreement.high) == pytest.approx((expected.low, expected.high))


def test_cosines_of_one_seed_have_no_interval():
    evidence = Evidence([with_cosines(1, -0.3, 0.4)])
    estimate = evidence.estimate({"same-task": 1}, "paraphrase", "agreement")
    assert estimate.value == pytest.approx(0.6) and np.isnan([estimate.low, estimate.high]).all()


def with_epochs(seed, *averages):
    """A run of row 4.6 whose three development scores are these after each epoch."""
    names = {"sentiment": "accuracy", "paraphrase": "accuracy", "similarity": "pearson"}
    history = [{"dev": {task: {names[task]: x} for task in names}} for x in averages]
    return replace(fake_run("4.6", seed), history=history)


def test_what_late_epochs_add_is_counted_over_the_best_of_the_first_nine():
    rising = [0.1 * n for n in range(1, 11)]
    evidence = Evidence([with_epochs(1, *rising), with_epochs(2, *rising[::-1])])
    late = evidence.estimate({"4.6": 1}, measure="late")
    expected = stats.ttest_1samp([0.1, 0.0], 0).confidence_interval(0.95)
    assert (late.low, late.high) == pytest.approx((expected.low, expected.high))
    shorter = Evidence([with_epochs(1, *rising[:9])])
    assert np.isnan(shorter.estimate({"4.6": 1}, measure="late").value)


def test_two_runs_of_one_seed_are_refused():
    with pytest.raises(RunError, match="two runs of seed 1"):
        Evidence([fake_run("3.1"), fake_run("3.1")])


# --- tests on predictions


def test_mcnemars_test_is_the_exact_binomial_one():
    right = np.array([True] * 9 + [False] * 2 + [True] * 20)
    other = np.array([False] * 9 + [True] * 2 + [True] * 20)
    assert mcnemar(right, other) == pytest.approx(2 * stats.binom.cdf(2, 11, 0.5))
    assert mcnemar(right, right) == 1.0


def test_the_permutation_test_agrees_with_all_swaps():
    generator = np.random.default_rng(0)
    y = generator.normal(size=10)
    a, b = y + generator.normal(size=10), generator.normal(size=10)
    za, zb = stats.zscore(a), stats.zscore(b)

    def difference(swap):
        return (
            stats.pearsonr(np.where(swap, zb, za), y)[0]
            - stats.pearsonr(np.where(swap, za, zb), y)[0]
        )

    observed = abs(difference(np.zeros(10, dtype=bool)))
    all_swaps = [abs(difference(np.array(s))) for s in product([False, True], repeat=10)]
    exact = np.mean([value >= observed - 1e-12 for value in all_swaps])
    assert permutation_test(a, b, y, draws=4000) == pytest.approx(exact, abs=1e-9)  # all 1,024
    assert permutation_test(a, b, y, draws=1000) == pytest.approx(exact, abs=0.03)


def test_the_permutation_test_of_a_constant_is_undefined():
    y = np.arange(10.0)
    assert np.isnan(permutation_test(np.ones(10), y, y))


def test_the_permutation_test_finds_no_difference_between_a_model_and_its_rescaled_self():
    y = np.random.default_rng(0).normal(size=30)
    a = y + 1
    assert permutation_test(a, 3 * a - 2, y) == 1.0


def test_the_test_of_two_rows_is_named_and_has_a_value_per_seed():
    evidence = Evidence(fake_study(["3.1", "3.2"], (0, 1)))
    name, values = evidence.p_values("3.2", "3.1", "paraphrase")
    assert name == "McNemar" and len(values) == 2
    assert evidence.p_values("3.2", "3.1", "similarity")[0] == "permutation"


def test_the_cosines_of_tasks_whose_names_hold_a_dash_are_told_apart():
    run = fake_run("3.1")
    heads = dict.fromkeys(["multi-nli", "nli", "multi"], {})
    cosines = {
        ("multi-nli", "nli"): 0.5,
        ("multi-nli", "multi"): 0.3,
        ("nli", "multi"): 0.1,
        ("nli", "nli"): 0.9,
    }
    conflict = {pair_name(*p): {"cosine": value, "rate": 0.0} for p, value in cosines.items()}
    run = replace(run, config=run.config | {"heads": heads}, history=[{"conflict": conflict}])
    assert task_cosines(run, "multi-nli") == pytest.approx((0.4, np.nan), nan_ok=True)
    assert task_cosines(run, "nli") == pytest.approx((0.3, 0.9))
