"""The bench of weightings: a rate chosen on one half of the examples, judged on the other."""

from dataclasses import replace

import numpy as np
import pytest
from fake_runs import fake_run

from mtl_lib.errors import RunError
from mtl_lib.evaluation import metrics
from mtl_lib.methods.weightings import WEIGHTINGS
from mtl_lib.study import bench
from mtl_lib.study.bench import CHOSEN, FIXED, REPORTED, Bench, compare, half_of, on_half
from mtl_lib.study.profiles import FURTHER
from mtl_lib.study.rows import BENCH, BENCH_RATES
from mtl_lib.study.weightings import STATIC
from mtl_lib.tasks import TASKS

NOISES = {  # of a row's logits: less is better
    "bench-sum-x1": 1.4, "bench-sum-x3": 2.5, "bench-static-4-1-1-x1": 1.2,
    "bench-mgda-x1": 2.5, "bench-mgda-x3": 0.9, "bench-pcgrad-x1": 1.2,
}  # fmt: skip


def study(seeds=(0, 1, 2), **noises):
    return [
        fake_run(row, seed, profile="quick", noise=noise, size=600)
        for row, noise in (NOISES | noises).items()
        for seed in seeds
    ]


@pytest.fixture(scope="module")
def found() -> Bench:
    return compare(study())


def line(found: Bench, weighting: str):
    return found.table.set_index("weighting").loc[weighting]


def test_every_weighting_has_every_rate_in_the_bench_and_nothing_else_differs():
    assert len(BENCH) == (len(WEIGHTINGS) + len(STATIC)) * len(BENCH_RATES)
    base = BENCH["bench-sum-x1"]
    for config in BENCH.values():
        assert config == replace(
            base, row=config.row, name=config.name, weighting=config.weighting, lr=config.lr
        )
    rates = {
        c.weighting: [o.lr for o in BENCH.values() if o.weighting == c.weighting]
        for c in BENCH.values()
    }
    assert {tuple(r) for r in rates.values()} == {tuple(1e-5 * rate for rate in BENCH_RATES)}


def test_both_profiles_of_the_bench_train_its_rows():
    assert set(FURTHER["bench"].rows) == set(FURTHER["bench-real"].rows) == set(BENCH)


def test_an_example_is_in_the_same_half_for_every_run_and_the_halves_are_about_equal():
    ids = [f"x{n}" for n in range(2000)]
    halves = half_of("paraphrase", ids)
    assert np.array_equal(halves[::-1], half_of("paraphrase", ids[::-1]))
    assert abs(halves.mean() - 0.5) < 0.04


def test_the_two_halves_of_a_run_are_all_of_it_and_have_scores_of_their_own():
    run = fake_run("bench-sum-x1", size=300)
    parts = [on_half(run, half) for half in (CHOSEN, REPORTED)]
    for task in TASKS:
        assert sorted(parts[0].ids[task.name] + parts[1].ids[task.name]) == sorted(
            run.ids[task.name]
        )
        for part in parts:
            places = [run.ids[task.name].index(key) for key in part.ids[task.name]]
            logits, labels = run.predictions[task.name][places], run.labels[task.name][places]
            assert part.metrics["best"]["dev"][task.name] == metrics(task, logits, labels)


def test_the_rate_is_the_best_one_on_the_chosen_half(found):
    assert line(found, "sum")["rate"] == pytest.approx(BENCH["bench-sum-x1"].lr * 30)
    assert line(found, "mgda")["rate"] == pytest.approx(BENCH["bench-mgda-x3"].lr * 30)
    chosen = found.points[found.points["chosen"]]
    assert dict(chosen.groupby("weighting")["rate"].nunique()) == dict.fromkeys(
        ["mgda", "pcgrad", "static-4-1-1", "sum"], 1
    )


def test_the_reported_half_plays_no_part_in_the_choice():
    runs = study()
    spoiled = []
    for run in runs:
        if run.config["row"] != "bench-mgda-x3":
            spoiled.append(run)
            continue
        logits = {}
        for task, rows in run.predictions.items():
            reported = half_of(task, run.ids[task]) == REPORTED
            logits[task] = np.where(reported[:, None], -rows, rows)
        spoiled.append(replace(run, predictions=logits))
    after = compare(spoiled)
    assert line(after, "mgda")["rate"] == line(compare(runs), "mgda")["rate"]
    assert line(after, "mgda")["average"] < 0.5


def test_the_gain_is_the_difference_to_the_best_fixed_weights(found):
    best = line(found, "static-4-1-1")
    assert best["best fixed"] and best["family"] == FIXED
    assert best["average gain"] == best["average low"] == best["average high"] == 0
    for name in ("mgda", "pcgrad", "sum"):
        for task in ("sentiment", "paraphrase", "similarity", "average"):
            own = line(found, name)
            assert own[f"{task} gain"] == pytest.approx(own[task] - best[task], abs=1e-9)
            assert own[f"{task} low"] < own[f"{task} gain"] < own[f"{task} high"]


def test_a_method_that_is_better_by_far_is_named_and_one_alike_is_not(found):
    words = bench.verdict(found)
    assert "of 2 methods mgda beats" in words
    assert "static-4-1-1" in words and "not corrected" in words


def test_without_a_better_method_the_verdict_says_none():
    found = compare(study(**{"bench-mgda-x3": 2.5}))
    assert "of 2 methods none beats" in bench.verdict(found)


def test_one_answer_for_every_example_counts_as_a_correlation_of_zero():
    runs = study()
    for run in runs:
        if run.config["weighting"] == "pcgrad":
            run.predictions["similarity"][:] = 1.0
    assert line(compare(runs), "pcgrad")["similarity"] == 0


@pytest.mark.filterwarnings("error")
def test_one_answer_of_one_seed_leaves_the_gain_an_interval():
    runs = study()
    for run in runs:
        if run.config["weighting"] == "pcgrad" and run.config["seed"] == 0:
            run.predictions["similarity"][:] = 1.0
    own = line(compare(runs), "pcgrad")
    assert own["similarity low"] < own["similarity gain"] < own["similarity high"]


def test_only_seeds_that_every_row_has_are_compared():
    runs = [r for r in study() if (r.config["row"], r.config["seed"]) != ("bench-pcgrad-x1", 1)]
    assert set(compare(runs).points["seed"]) == {0, 2}


def test_rows_without_a_seed_in_common_are_refused():
    runs = [r for r in study() if r.config["row"] != "bench-sum-x1" or r.config["seed"] == 0]
    with pytest.raises(RunError, match="no seed in common"):
        compare([r for r in runs if r.config["row"] != "bench-sum-x3" or r.config["seed"] == 1])


def test_a_bench_needs_fixed_weights():
    with pytest.raises(RunError, match="fixed weights"):
        compare([run for run in study() if run.config["weighting"] in ("mgda", "pcgrad")])


def test_a_stored_bench_is_read_as_it_was(found, tmp_path):
    found.save("small", tmp_path)
    again = Bench.read("small", tmp_path)
    assert again.facts == found.facts
    for frame, other in ((again.table, found.table), (again.points, found.points)):
        assert list(frame.columns) == list(other.columns)
        numbers = frame.select_dtypes("number").columns
        np.testing.assert_allclose(frame[numbers], other[numbers], atol=1e-6)


def test_a_bench_that_is_not_there_is_named(tmp_path):
    with pytest.raises(RunError, match="mtl bench"):
        Bench.read("nowhere", tmp_path)


def test_the_picture_has_a_panel_for_each_pair_of_tasks_and_a_point_a_seed(found):
    axes = bench.draw(found).axes
    assert [(ax.get_xlabel(), ax.get_ylabel()) for ax in axes] == [
        ("sentiment (accuracy)", "paraphrase (accuracy)"),
        ("sentiment (accuracy)", "similarity (pearson)"),
        ("paraphrase (accuracy)", "similarity (pearson)"),
    ]
    points = sum(len(c.get_offsets()) for c in axes[0].collections)
    assert points == 4 * (3 + 1)  # four weightings: three seeds and their mean
