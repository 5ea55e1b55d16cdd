"""The eight contrasts on made-up runs, whose truth is known."""

from dataclasses import replace

import numpy as np
import pytest
from fake_runs import fake_run, fake_study

from mtl_lib.study.contrasts import CONTRASTS, TOLD_BY, contrasts_markdown, contrasts_table
from mtl_lib.study.paper import PAPER_SCORES
from mtl_lib.study.rows import ALL_ROWS
from mtl_lib.study.uncertainty import Evidence

PAPER = {"profile": "paper", "encoder": "minilm-l6", "corpus": "cs224n"}


def line_of(table, rows, task, study="paper"):
    found = table[(table["rows"] == rows) & (table["task"] == task) & (table["study"] == study)]
    assert len(found) == 1
    return found.iloc[0]


def surgery(better, seeds=(0, 1, 2), **options):
    """Rows 3.1 and 3.2, the second `better` or not, with many examples."""
    noise = {"3.1": 2.0, "3.2": 0.8 if better else 2.0}
    return [
        fake_run(row, seed, noise=noise[row], size=2000, **PAPER, **options)
        for row in noise
        for seed in seeds
    ]


def test_there_are_eight_contrasts_of_rows_that_exist():
    assert len(CONTRASTS) == 8
    rows = {row for c in CONTRASTS for part in c.comparisons for row in part.terms}
    assert rows <= set(ALL_ROWS)


def test_each_difference_has_a_line_a_study():
    table = contrasts_table([])
    assert set(table["study"]) == set(TOLD_BY)
    assert not table.duplicated(["rows", "task", "study"]).any()
    assert (table["seeds"] == 0).all() and table["reason"].str.startswith("Not run").all()


def test_a_gain_is_a_gain_and_an_open_one_is_open():
    assert line_of(contrasts_table(surgery(True)), "3.2 - 3.1", "sentiment")["gain"] == "gain"
    same = line_of(contrasts_table(surgery(False)), "3.2 - 3.1", "similarity")
    assert same["gain"] in ("open", "no gain")


def test_the_numbers_are_those_of_the_evidence():
    runs = surgery(True)
    line = line_of(contrasts_table(runs), "3.2 - 3.1", "paraphrase")
    estimate = Evidence(runs).estimate({"3.2": 1, "3.1": -1}, "paraphrase")
    assert (line["ours"], line["low"], line["high"]) == (
        estimate.value,
        estimate.low,
        estimate.high,
    )


def test_the_published_difference_is_inside_or_outside_of_where_one_more_run_would_lie():
    table = contrasts_table(surgery(True))
    for task in ("paraphrase", "sentiment", "similarity"):
        line = line_of(table, "3.2 - 3.1", task)
        column = PAPER_SCORES[f"dev_{task}"]
        assert line["paper"] == pytest.approx(column["3.2"] - column["3.1"])
        within = line["run_low"] <= line["paper"] <= line["run_high"]
        assert line["inside"] == ("inside" if within else "outside")


def test_one_more_run_is_any_of_its_row_and_its_scores_are_printed_with_three_digits():
    runs = surgery(True)
    line = line_of(contrasts_table(runs), "3.2 - 3.1", "sentiment")
    low, high = Evidence(runs).estimate({"3.2": 1, "3.1": -1}, "sentiment").one_more_run()
    assert line["run_low"] == pytest.approx(low - 0.001)
    assert line["run_high"] == pytest.approx(high + 0.001)


def test_a_difference_that_the_paper_does_not_print_is_neither():
    runs = fake_study(["3.1", "frozen-1e-3"], (0, 1, 2), **PAPER)
    line = line_of(contrasts_table(runs), "3.1 - frozen-1e-3", "sentiment")
    assert np.isnan(line["paper"]) and line["inside"] == "not printed" and line["gain"]


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_fewer_than_three_seeds_have_numbers_and_no_answer(seeds):
    line = line_of(contrasts_table(surgery(True, seeds)), "3.2 - 3.1", "sentiment")
    assert line["seeds"] == len(seeds) and line["reason"] == "Too few seeds."
    assert line["gain"] == line["inside"] == ""


def test_runs_that_did_not_train_answer_nothing():
    runs = [run for run in surgery(True) if run.config["row"] == "3.2"]
    runs += [run for run in surgery(True, trained=False) if run.config["row"] == "3.1"]
    line = line_of(contrasts_table(runs), "3.2 - 3.1", "sentiment")
    assert line["reason"].startswith("Not trained") and line["gain"] == line["inside"] == ""


def test_a_row_of_which_one_seed_did_not_train_is_named_with_that_seed():
    runs = [run for run in surgery(True) if run.config["row"] == "3.1"]
    runs += [fake_run("3.2", seed, trained=seed > 0, **PAPER, size=2000) for seed in range(3)]
    line = line_of(contrasts_table(runs), "3.2 - 3.1", "sentiment")
    assert line["seeds"] == 2 and line["reason"] == "Not trained: row 3.2 (seed 0)."


def test_a_number_that_is_undefined_is_said_to_be_so():
    """Row 3.2 gives every pair the same score, which correlates with nothing."""
    runs = []
    for run in surgery(True):
        if run.config["row"] == "3.2":
            best = run.metrics["best"]
            dev = best["dev"] | {"similarity": {"pearson": float("nan")}}
            run = replace(
                run,
                metrics=run.metrics | {"best": best | {"dev": dev}},
                predictions=run.predictions | {"similarity": np.ones((2000, 1), np.float32)},
                provenance=run.provenance | {"constant_predictions": ["similarity"]},
            )
        runs.append(run)
    page = contrasts_markdown(runs)
    row = next(line for line in page.splitlines() if "3.2 - 3.1" in line and "similarity" in line)
    assert "undefined, 3 seeds. Not told: The same answer" in row and "nan" not in page


def test_single_tasks_are_compared_each_on_its_own():
    runs = fake_study(["3.1", "sentiment-alone"], (0, 1, 2), **PAPER)
    runs = [
        replace(run, config=run.config | {"heads": {"sentiment": {}}})
        if run.config["row"] == "sentiment-alone"
        else run
        for run in runs
    ]
    table = contrasts_table(runs)
    assert line_of(table, "3.1 - sentiment-alone", "sentiment")["seeds"] == 3
    assert line_of(table, "3.1 - similarity-alone", "similarity")["seeds"] == 0


def test_other_corpora_are_not_asked():
    runs = fake_study(["3.1", "3.2"], (0, 1, 2), profile="paper")  # on the embedded corpora
    assert (contrasts_table(runs)["seeds"] == 0).all()


def test_the_page_says_both_answers_or_why_there_is_none():
    page = contrasts_markdown(surgery(True))
    row = next(line for line in page.splitlines() if "3.2 - 3.1" in line and "sentiment" in line)
    assert "**gain**, the paper's lies " in row and row.endswith("Not run: 3.2, 3.1. |")
    assert "(one run: [" in row
    assert "+0.147" in row
