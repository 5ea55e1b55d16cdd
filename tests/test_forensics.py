"""Hypotheses about the published rows: distances, verdicts, and the sums behind them."""

from dataclasses import replace

import numpy as np
import pytest
from fake_runs import fake_run

from mtl_lib.study.forensics import (
    HYPOTHESES,
    SST_COUNTS,
    apart,
    distance,
    hypotheses_markdown,
    hypotheses_table,
    nearest_epoch,
    published,
    trajectory,
)
from mtl_lib.study.paper import PAPER_FIGURE_3, PAPER_SCORES, PAPER_SIZES, TASK_ORDER
from mtl_lib.study.rows import ALL_ROWS
from mtl_lib.tasks import BY_NAME

PAPER = {"profile": "paper", "encoder": "minilm-l6", "corpus": "cs224n"}


def metrics_of(numbers):
    """Metrics with these six scores."""
    parts = np.reshape(numbers, (2, 3))
    return {
        split: {
            task: {BY_NAME[task].metric: value}
            for task, value in zip(TASK_ORDER, values, strict=True)
        }
        for split, values in zip(("train", "dev"), parts, strict=True)
    }


def run_of(row, seed, numbers, epochs=()):
    """A run with these six scores at its best epoch, and these after each epoch."""
    run = fake_run(row, seed, **PAPER)
    metrics = metrics_of(numbers)
    history = [
        {"epoch": n, **metrics_of(each), "loss": run.history[0]["loss"], "conflict": {}}
        for n, each in enumerate(epochs or [numbers], start=1)
    ]
    return replace(run, metrics={"best": metrics, "last": metrics}, history=history)


def line_of(table, by):
    return table[table["by"] == by].iloc[0]


def test_the_six_numbers_are_those_of_the_papers_table():
    assert published("3.1").tolist() == PAPER_FIGURE_3.loc["3.1"].iloc[1:].tolist()


def test_the_distance_is_a_root_mean_square_of_six_differences():
    assert distance(metrics_of(published("3.2")), "3.2") == 0
    shifted = published("3.2") + np.array([0.1, -0.1, 0, 0, 0.2, 0])
    assert distance(metrics_of(shifted), "3.2") == pytest.approx(np.sqrt(0.06 / 6))


def test_two_rows_are_apart_as_their_scores_are_printed_seed_by_seed():
    six = np.full(6, 0.5)
    runs = [run_of("3.2", seed, six) for seed in range(3)]
    runs += [run_of("3.6", 0, six + 0.0004), run_of("3.6", 2, six + [0, 0, 0.001, 0, 0, 0.0006])]
    assert apart(runs, "3.6", "3.2").tolist() == [[0] * 6, [0, 0, 0.001, 0, 0, 0.001]]
    assert apart(runs, "3.6", "4.4").shape == (0, 6)


def test_a_trajectory_has_a_line_an_epoch_from_one():
    run = run_of("3.2", 0, published("3.2"), [published("3.1"), published("3.2")])
    table = trajectory(run)
    assert table.index.tolist() == [1, 2] and list(table) == list(TASK_ORDER)
    assert table.loc[1].tolist() == PAPER_SCORES.loc["3.1"].filter(like="train_").tolist()
    assert trajectory(run, "dev").loc[2, "sentiment"] == PAPER_SCORES.loc["3.2", "dev_sentiment"]


def test_the_nearest_epoch_counts_from_one():
    run = run_of("3.2", 0, published("3.2"), [published("3.1"), published("3.8"), published("3.2")])
    assert nearest_epoch(run, "3.8") == (2, 0)


def test_there_are_six_hypotheses_or_more_of_rows_that_exist_and_each_can_be_refuted():
    table = hypotheses_table([])
    assert table["hypothesis"].nunique() >= 6
    assert {h.by for h in HYPOTHESES} | {h.rival for h in HYPOTHESES} <= set(ALL_ROWS)
    assert (table["refuted_by"].str.len() > 20).all()
    assert table.loc[table["by"] != "arithmetic", "verdict"].str.startswith("not run: ").all()


def test_a_run_that_is_the_published_row_is_nearer_than_the_row_at_its_word():
    near, far = published("3.1"), published("3.2")
    runs = [run_of("frozen-1e-3", seed, near + 0.001 * seed) for seed in range(3)]
    runs += [run_of("3.1", seed, far - 0.001 * seed) for seed in range(3)]
    line = line_of(hypotheses_table(runs), "frozen-1e-3")
    assert line["verdict"] == "nearer" and line["seeds"] == 3
    assert line["distance"] < 0.01 < 0.1 < line["rival"]
    assert line["low"] <= line["distance"] <= line["high"]


def test_a_run_that_lies_further_away_speaks_against_its_hypothesis():
    runs = [run_of("3.2-port", seed, published("3.1") + 0.001 * seed) for seed in range(3)]
    runs += [run_of("3.2", seed, published("3.2") - 0.001 * seed) for seed in range(3)]
    assert line_of(hypotheses_table(runs), "3.2-port")["verdict"] == "further away"


def test_seeds_that_disagree_leave_it_open():
    runs = [run_of("3.2-port", seed, published("3.2") + 0.1 * seed) for seed in range(3)]
    runs += [run_of("3.2", seed, published("3.2") + 0.1 * (2 - seed)) for seed in range(3)]
    assert line_of(hypotheses_table(runs), "3.2-port")["verdict"] == "open"


def test_one_seed_is_open_and_says_which_way_it_points():
    runs = [run_of("frozen-1e-3", 0, published("3.1")), run_of("3.1", 0, published("3.2"))]
    line = line_of(hypotheses_table(runs), "frozen-1e-3")
    assert line["verdict"] == "open: nearer in 1 seed" and np.isnan(line["low"])


def test_two_seeds_that_point_either_way_are_not_said_to_agree():
    runs = [run_of("3.2-port", seed, published("3.2") + 0.03 * (1 - seed)) for seed in range(2)]
    runs += [run_of("3.2", seed, published("3.2") + 0.02 * seed) for seed in range(2)]
    line = line_of(hypotheses_table(runs), "3.2-port")
    assert line["verdict"] == "open: further away in 1 seed, nearer in 1 seed"


def test_a_difference_that_rounding_may_make_is_on_no_side():
    """The paper prints three digits: two rows a ten-thousandth apart are as near."""
    for seeds, verdict in ((1, "open: as near in 1 seed"), (3, "open")):
        runs = [run_of("3.2-port", seed, published("3.2") + 0.0200) for seed in range(seeds)]
        runs += [run_of("3.2", seed, published("3.2") + 0.0201) for seed in range(seeds)]
        assert line_of(hypotheses_table(runs), "3.2-port")["verdict"] == verdict


def test_an_epoch_with_an_undefined_score_is_not_the_nearest():
    constant = np.where(np.arange(6) == 2, np.nan, published("3.8"))
    run = run_of("3.2", 0, published("3.2"), [constant, published("3.8"), published("3.2")])
    assert nearest_epoch(run, "3.8") == (2, 0)
    runs = [run_of("frozen-1e-3", 0, constant), run_of("3.1", 0, published("3.2"))]
    line = line_of(hypotheses_table(runs), "frozen-1e-3")
    assert line["verdict"] == "open: a score is undefined"


def test_a_short_run_is_judged_at_its_nearest_epoch():
    epochs = [published("3.1"), published("3.4"), published("3.2")]
    table = hypotheses_table([run_of("3.2", 0, published("3.2"), epochs)])
    line = table[(table["row"] == "3.4") & table["by"].str.contains("nearest epoch")].iloc[0]
    assert line["distance"] == 0 and line["verdict"] == "not run: 3.4"


def test_the_row_at_its_word_may_be_any_of_its_epochs_too():
    near, far = published("3.4"), published("3.2")
    runs = [run_of(row, 0, far, [near, far]) for row in ("3.2", "3.4")]
    table = hypotheses_table(runs)
    line = table[(table["row"] == "3.4") & table["by"].str.contains("nearest epoch")].iloc[0]
    assert line["distance"] == line["rival"] == 0


def test_a_row_against_its_own_earlier_epoch_is_no_contest():
    epochs = [published("3.4"), published("3.1"), published("3.2")]
    runs = [run_of("3.1", seed, published("3.2"), epochs) for seed in range(3)]
    table = hypotheses_table(runs)
    line = table[table["hypothesis"] == "The baseline is a short run."].iloc[0]
    assert line["distance"] == 0 < line["rival"]
    assert line["verdict"] == "possible: nearest after epoch 2 of 3"


def test_arithmetic_has_a_verdict_and_no_distance():
    sums = hypotheses_table([])
    sums = sums[sums["by"] == "arithmetic"]
    assert sums["distance"].isna().all() and (sums["verdict"].str.len() > 10).all()


def test_label_counts_add_up_to_the_published_sizes():
    for split, counts in SST_COUNTS.items():
        assert sum(counts) == PAPER_SIZES.loc["sentiment", split]


def test_row_3_9_is_near_to_one_answer_and_not_equal_to_it():
    table = hypotheses_table([])
    line = table[table["row"] == "3.9, sentiment"].iloc[0]
    assert line["verdict"].startswith("nearly: always 3 prints 0.272 and 0.253")


def test_a_hypothesis_is_a_line_of_the_page():
    page = hypotheses_markdown([])
    assert len(page.splitlines()) == 2 + len(hypotheses_table([]))
    assert all(line.count("|") == 8 for line in page.splitlines())
