"""The claims table on synthetic runs, whose truth is known, and the README's copy of it."""

from dataclasses import replace

import numpy as np
import pytest
from fake_runs import fake_run, fake_study

from mtl_lib.evaluation import metrics
from mtl_lib.study.claims import CLAIMS, CONTROLS, FROZEN_ROWS, GAIN, NO_GAIN
from mtl_lib.study.config import STUDY_VERSION
from mtl_lib.study.paper import PAPER_SCORES, TASK_ORDER
from mtl_lib.study.queue import QUEUE
from mtl_lib.study.report import claims_markdown, seeds_to_go, write_section
from mtl_lib.study.rows import ALL_ROWS
from mtl_lib.study.uncertainty import Estimate, Evidence
from mtl_lib.study.verdicts import (
    FAILS,
    HOLDS,
    MEASURES,
    NOISE,
    UNTOLD,
    claims_table,
    comparisons,
    our_words,
    paper_value,
    verdict,
)
from mtl_lib.tasks import SENTIMENT

SURGERY = CLAIMS[0]


def claim_rows(claims=CLAIMS) -> list[str]:
    """The rows that some claims compare, each once."""
    return list(dict.fromkeys(row for claim in claims for row in claim.rows))


@pytest.fixture(scope="module")
def study():
    runs = fake_study(claim_rows([*CLAIMS, *CONTROLS]), (0, 1, 2), profile="paper")
    return [replace(run, history=10 * run.history) for run in runs]  # the paper's ten epochs


@pytest.fixture(scope="module")
def table(study):
    return claims_table(study)


@pytest.fixture(scope="module")
def markdown(study):
    return claims_markdown(study)


def estimate(low, high):
    return Estimate((low + high) / 2, low, high, 3, 0.1, 0.1, 0.1)


@pytest.mark.parametrize(
    ("low", "high", "expected", "words"),
    [
        (0.002, 0.03, GAIN, HOLDS),
        (-0.03, 0.005, GAIN, FAILS),
        (0.001, 0.009, GAIN, FAILS),  # a gain below one point counts as none
        (-0.01, 0.03, GAIN, NOISE),
        (-0.03, 0.005, NO_GAIN, HOLDS),
        (0.002, 0.03, NO_GAIN, FAILS),
        (-0.03, 0.03, NO_GAIN, NOISE),
        (0.001, 0.009, NO_GAIN, HOLDS),
        (float("nan"), float("nan"), GAIN, UNTOLD),
    ],
)
def test_the_rule(low, high, expected, words):
    assert verdict(estimate(low, high), expected) == words


def test_what_shows_a_gain_refutes_that_there_is_none():
    opposite = {HOLDS: FAILS, FAILS: HOLDS, NOISE: NOISE}
    ends = np.linspace(-0.03, 0.03, 13)
    for low, high in ((low, high) for low in ends for high in ends if low <= high):
        found = estimate(low, high)
        assert verdict(found, NO_GAIN) == opposite[verdict(found, GAIN)]


def test_there_are_at_least_twelve_claims_on_rows_that_exist():
    assert len(CLAIMS) >= 12
    assert set(claim_rows()) | set(claim_rows(CONTROLS)) <= set(ALL_ROWS)
    assert len({claim.words for claim in (*CLAIMS, *CONTROLS)}) == len(CLAIMS) + len(CONTROLS)
    for claim in (*CLAIMS, *CONTROLS):
        assert {c.measure for c in claim.comparisons} <= set(MEASURES)


def test_the_papers_numbers_are_differences_of_its_tables():
    (comparison,) = SURGERY.comparisons
    for task in TASK_ORDER:
        column = PAPER_SCORES[f"dev_{task}"]
        assert paper_value(comparison, task) == pytest.approx(column["3.2"] - column["3.1"])


def test_a_clear_gain_holds_and_a_clear_loss_does_not():
    for better, words in (("3.2", HOLDS), ("3.1", FAILS)):
        runs = [
            fake_run(row, seed, noise=0.6 if row == better else 3.0, size=600)
            for row in ("3.1", "3.2")
            for seed in range(3)
        ]
        assert claims_table(runs, [SURGERY])["verdict"].item() == words


def test_seeds_that_disagree_turn_a_gain_into_noise():
    noise = {("3.1", 0): 1.5, ("3.2", 0): 1.0, ("3.1", 1): 1.0, ("3.2", 1): 1.5}
    noise |= {("3.1", 2): 1.2, ("3.2", 2): 1.2}
    runs = [fake_run(row, seed, noise=value) for (row, seed), value in noise.items()]
    assert claims_table(runs, [SURGERY])["verdict"].item() == NOISE


@pytest.mark.parametrize("seeds", [1, 2])
def test_one_or_two_seeds_tell_nothing(seeds):
    for low, high in ((0.01, 0.03), (-0.03, 0.03), (-0.03, 0.0)):
        assert verdict(Estimate(0.0, low, high, seeds, 0.1, 0.1, 0.1), GAIN) == UNTOLD
    table = claims_table(fake_study(["3.1", "3.2"], range(seeds)), [SURGERY])
    assert table["verdict"].item() == UNTOLD and table["reason"].item() == "Too few seeds."


def test_missing_rows_are_named():
    table = claims_table([fake_run("3.1"), fake_run("3.2")])
    final = table[table["rows"] == "4.6 - 3.1"].iloc[0]
    assert final["verdict"] == UNTOLD and final["reason"] == "Not run in `quick`: 4.6."
    assert final["seeds"] == 0


def test_a_run_that_gives_one_answer_is_named_with_the_claims_of_its_task():
    runs = fake_study(["3.1", "3.2"], (0, 1, 2))
    runs[-1].provenance["constant_predictions"] = ["sentiment"]
    said = "The same answer for every example: sentiment in row 3.2 (seed 2)."
    assert said in claims_table(runs, [SURGERY])["reason"].item()
    similarity = replace(
        SURGERY, comparisons=(replace(SURGERY.comparisons[0], tasks=("similarity",)),)
    )
    assert said not in claims_table(runs, [similarity])["reason"].item()


def test_rows_that_answer_the_same_cannot_judge_a_change():
    runs = fake_study(["3.8"], (0, 1, 2))
    runs += [replace(r, config=r.config | {"row": "3.9"}, key=f"x{r.key}") for r in runs]
    smart = next(claim for claim in CLAIMS if claim.rows == ("3.9", "3.8"))
    table = claims_table(runs, [smart])
    assert table["verdict"].item() == UNTOLD
    assert "Rows 3.9 and 3.8 give the same answers" in table["reason"].item()


def test_overfitting_that_is_not_there_cannot_shrink():
    claim = next(claim for claim in CLAIMS if claim.rows == ("3.2", "3.6"))
    assert {c.measure for c in claim.comparisons} == {"gap"}
    runs = fake_study(claim.rows, (0, 1, 2), size=600, noise=1.5)  # train is scored higher there
    assert "overfit" not in claims_table(runs, [claim])["reason"].item()
    for run in runs:
        run.metrics["best"]["train"] = run.metrics["best"]["dev"]
    table = claims_table(runs, [claim])
    assert table["verdict"].item() == UNTOLD
    assert "Row 3.2 is not seen to overfit on similarity" in table["reason"].item()


def test_every_claim_has_a_verdict(table):
    assert len(table) == len(CLAIMS)
    assert set(table["verdict"]) <= {HOLDS, FAILS, NOISE, UNTOLD}
    told = table[table["rows"] != ""]
    assert (told["seeds"] == 3).all()
    untold = told[told["verdict"] == UNTOLD]
    assert untold["reason"].str.contains("overfit|same answers").all() and len(untold) < 6


def test_a_shortened_study_with_other_rates_cannot_judge_what_compares_rates():
    runs = fake_study(claim_rows(), (0, 1, 2))  # quick: 30 times the paper's rates
    table = claims_table(runs)
    untold = table[table["verdict"] == UNTOLD]
    with_rates = table[table["reason"].str.contains("It compares rates, which are 30 times")]
    assert set(with_rates.index) <= set(untold.index)
    assert {"4.6 - 3.10", "4.6 - 3.1"} <= set(with_rates["rows"])
    assert not with_rates["rows"].str.contains("frozen").any()  # heads alone: rates of their own


def test_a_claim_that_nothing_here_can_test_cannot_be_told(table):
    table = table.set_index("claim")
    assert (
        table.loc[[claim.words for claim in CLAIMS if not claim.comparisons], "verdict"]
        .eq(UNTOLD)
        .all()
    )


def test_differences_carry_intervals_both_errors_and_a_named_test(study):
    lines = comparisons(study, [SURGERY])
    assert list(lines["task"]) == list(TASK_ORDER)
    assert (lines["low"] < lines["ours"]).all() and (lines["ours"] < lines["high"]).all()
    assert lines["test"].str.match(r"(McNemar|permutation) p = [^,]+, [^,]+, [^,]+$").all()
    assert np.isfinite(lines[["seed_error", "example_error"]]).all(axis=None)


def test_the_table_tests_nothing_that_it_does_not_show(study, table, monkeypatch):
    monkeypatch.delattr(Evidence, "p_values")
    assert table.equals(claims_table(study))


def test_a_difference_that_was_not_run_has_no_test_and_no_numbers():
    lines = comparisons([fake_run("3.1")], [SURGERY])
    assert set(lines["test"]) == {""} and set(lines["seeds"]) == {0}
    assert lines[["ours", "low", "high", "seed_error", "example_error"]].isna().all(axis=None)


def test_the_table_is_the_same_each_time_and_in_any_order_of_the_runs(study, table):
    assert table.equals(claims_table(study[::-1]))


def test_runs_of_two_studies_are_not_mixed(study, table):
    longer = fake_study(["3.1"], profile="converged", encoder="minilm-l6", corpus="cs224n")
    assert claims_table([*longer, *study]).equals(table)


def test_substitute_corpus_and_encoder_are_said_where_the_number_is():
    note = "quora-train.csv is not the original file"
    options = {"profile": "paper", "encoder": "minilm-l6", "corpus": "cs224n", "notes": (note,)}
    reason = claims_table(fake_study(["3.1", "3.2"], **options), [SURGERY])["reason"].item()
    assert "Substitute Quora file." in reason and "trained on similarity before" in reason
    text = claims_markdown(fake_study(["3.1", "3.2"], **options))
    assert "43,086" in text and note in text


def test_what_the_paper_contradicts_itself_is_said(table):
    table = table.drop_duplicates("rows").set_index("rows")
    assert "The paper's own numbers say otherwise: 4.6 on similarity" in table.loc["4.6", "note"]


def test_markdown_has_a_line_for_every_claim_and_the_rule(markdown):
    text = markdown
    for claim in (*CLAIMS, *CONTROLS):
        assert claim.words in text
    assert "seeds 0, 1, 2" in text and "one in twenty" in text
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert all(len({line.count(" | ") for line in (t[0], *t[2:])}) == 1 for t in tables)


def test_only_what_stands_between_the_markers_is_written(tmp_path):
    readme = tmp_path / "README.md"
    text = "before: L∞\n<!-- claims -->\n{}\n<!-- /claims -->\nafter\n"
    readme.write_bytes(text.format("another table").encode("utf-8"))
    write_section(readme, "claims", "a table, ± 0.1\n")
    assert readme.read_bytes() == text.format("a table, ± 0.1").encode("utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


def test_a_file_without_markers_is_refused(tmp_path):
    (tmp_path / "README.md").write_text("nothing here", encoding="utf-8")
    with pytest.raises(ValueError, match="README.md: no <!-- claims -->"):
        write_section(tmp_path / "README.md", "claims", "a table")


def test_without_runs_the_section_says_how_to_get_some():
    assert "mtl sweep" in claims_markdown([])


SHORTER = {"profile": "converged", "encoder": "minilm-l6", "corpus": "cs224n"}
LONGER = SHORTER | {"profile": "paper"}


@pytest.mark.parametrize(
    ("other", "told_by"),
    [
        (fake_study(["3.1"], (0, 1, 2), **LONGER), "converged"),  # it lacks a row
        (fake_study(["3.1", "3.2"], (0, 1), **LONGER), "converged"),  # it lacks a seed
        (fake_study(["3.1", "3.2"], (0, 1, 2), **LONGER), "paper"),
    ],
)
def test_a_claim_is_told_by_the_most_rows_then_enough_seeds_then_the_longest(other, told_by):
    runs = [*fake_study(["3.1", "3.2"], range(5), **SHORTER), *other]
    table = claims_table(runs, [SURGERY])
    assert table["study"].item() == told_by
    chosen = [run for run in runs if run.config["profile"] == told_by]
    assert table.equals(claims_table(chosen, [SURGERY]))


@pytest.mark.parametrize(
    ("longer", "shorter", "told_by"),
    [
        ((True, True, False), (True, True, True), "converged"),  # two seeds tell nothing
        ((True,), (False, False, False), "paper"),
        ((True, True, True), (True, True, True), "paper"),
    ],
)
def test_a_study_tells_a_claim_by_the_seeds_that_trained(longer, shorter, told_by):
    runs = [
        fake_run(row, seed, trained=trained, **options)
        for options, seeds in ((LONGER, longer), (SHORTER, shorter))
        for seed, trained in enumerate(seeds)
        for row in ("3.1", "3.2")
    ]
    assert claims_table(runs, [SURGERY])["study"].item() == told_by


def test_seeds_that_rows_do_not_share_do_not_count():
    apart = [*fake_study(["3.1"], (0, 1, 2), **LONGER), *fake_study(["3.2"], (3, 4, 5), **LONGER)]
    table = claims_table([*apart, *fake_study(["3.1", "3.2"], (0, 1, 2), **SHORTER)], [SURGERY])
    assert table["study"].item() == "converged"


def test_an_interval_that_ends_near_a_point_shows_on_which_side():
    line = {"seeds": 3, "ours": 0.006, "low": 0.001}
    assert our_words(line | {"high": 0.0098}) == "+0.006 [+0.0010, +0.0098]"
    assert our_words(line | {"high": 0.0118}) == "+0.006 [+0.001, +0.012]"


def test_a_difference_that_rounds_to_nothing_has_no_sign_of_its_own():
    line = {"seeds": 3, "ours": -0.0002, "low": -0.013, "high": 0.013}
    assert our_words(line) == "+0.000 [-0.013, +0.013]"


def test_a_cosine_has_no_margin():
    assert verdict(Estimate(0.0, -0.002, 0.004, 5, 0.0, 0.0, 0.0), GAIN) == FAILS
    assert verdict(Estimate(0.0, -0.002, 0.004, 5, 0.0, 0.0, 0.0), GAIN, margin=0.0) == NOISE


def with_right_answers(run, row, more):
    """The same run under another row's name, right on some more sentences."""
    wrong = np.flatnonzero(run.predictions["sentiment"].argmax(1) != run.labels["sentiment"])[:more]
    logits = run.predictions["sentiment"].copy()
    logits[wrong] = np.eye(5, dtype=np.float32)[run.labels["sentiment"][wrong].astype(int)]
    best = {split: dict(scores) for split, scores in run.metrics["best"].items()}
    best["dev"]["sentiment"] = metrics(SENTIMENT, logits, run.labels["sentiment"])
    return replace(
        run,
        config=run.config | {"row": row},
        predictions=run.predictions | {"sentiment": logits},
        metrics={"best": best, "last": best},
        key=f"{row}-{run.config['seed']}",
    )


def test_a_gain_that_the_paper_prints_below_a_point_has_no_margin():
    """Row 4.10 gains .003 on the average in the paper, and a tenth of a point here."""
    finals = fake_study(["4.6"], (0, 1, 2), size=2000)
    runs = [*finals, *(with_right_answers(run, "4.10", 10) for run in finals)]
    (claim,) = [c for c in CLAIMS if [part.terms for part in c.comparisons] == [LEAKY]]
    line = comparisons(runs, [claim]).iloc[0]
    assert 0 < line["paper"] < 0.01 and 0 < line["low"] < line["high"] < 0.01
    assert line["verdict"] == HOLDS


LEAKY = {"4.10": 1, "4.6": -1}


def test_claims_of_one_table_may_be_told_by_different_studies():
    runs = [*fake_study(["3.1", "3.2"], **SHORTER), *fake_study(["4.6", "4.9"], **LONGER)]
    table = claims_table(runs).drop_duplicates("rows").set_index("rows")
    assert table.loc["3.2 - 3.1", "study"] == "converged"
    assert table.loc["4.9 - 4.6", "study"] == "paper"


def test_other_corpora_have_a_column_of_their_own(study, table):
    rows, seeds = ("3.1", "frozen-1e-3", "3.8", "3.9"), (0, 1, 2)
    other = fake_study(rows, seeds, **SHORTER)
    text = claims_markdown([*study, *other])
    assert "| embedded corpora | real corpora |" in text
    assert "profile converged" in text.split("The study `converged`:")[1]
    theirs = claims_table(other)
    by_claim = {line["claim"]: line for line in theirs.to_dict("records")}
    for ours in table.to_dict("records"):
        both = (ours, by_claim[ours["claim"]])
        cells = next(t for t in text.splitlines() if f"| {ours['claim']}" in t).split(" | ")
        numbers = text.split(f". {ours['claim']}**")[1].split("\n\n**")[0]
        for cell, line in zip(cells[2:4], both, strict=True):
            assert cell.startswith(f"**{line['verdict']}**") and line["reason"] in numbers
            if line["seeds"]:
                assert f"(`{line['study']}`, {line['seeds']} seeds)" in cell
        for mine, its in zip(*(line["numbers"] for line in both), strict=True):
            assert f"| {' | '.join([*mine, its[-1]])} |" in numbers


@pytest.mark.parametrize("profile", ["paper", "converged"])
def test_the_runs_that_a_study_still_lacks_are_named_with_the_command(profile):
    planned = [(row, seed) for name, row, seed in QUEUE if name == profile]
    options = {"profile": profile, "encoder": "minilm-l6", "corpus": "cs224n"}
    older = [fake_run(row, seed, **options) for row, seed in planned]
    assert seeds_to_go(older[1:]) == []  # of another version: nothing would be found again
    runs = [replace(r, provenance=r.provenance | {"study_version": STUDY_VERSION}) for r in older]
    assert seeds_to_go(runs) == []
    (text,) = seeds_to_go(runs[1:])
    row, seed = planned[0]
    assert f"seed {seed} of {row}." in text and "`mtl study run --data FOLDER`" in text


def test_a_study_of_a_former_profile_has_no_plan():
    runs = fake_study(["3.1"], **SHORTER)
    assert seeds_to_go([replace(r, config=r.config | {"profile": "former"}) for r in runs]) == []


def test_seeds_that_did_not_train_do_not_count_and_are_named():
    trained = fake_study(["3.1", "3.2"], range(4), **LONGER)
    spoiled = [*trained[:-1], fake_run("3.2", 3, trained=False, **LONGER)]
    line = comparisons(spoiled, [SURGERY]).iloc[0]
    fewer = comparisons([r for r in trained if r.config["seed"] < 3], [SURGERY]).iloc[0]
    assert (line["seeds"], line["ours"]) == (3, fewer["ours"])
    assert "Not trained: row 3.2 (seed 3)." in claims_table(spoiled, [SURGERY])["reason"].item()


def test_no_verdict_is_drawn_where_too_few_seeds_trained():
    runs = [*fake_study(["3.1"], range(3), **LONGER)]
    runs += [fake_run("3.2", seed, trained=seed > 0, **LONGER) for seed in range(3)]
    table = claims_table(runs, [SURGERY])
    assert table["verdict"].item() == UNTOLD
    assert "Not trained: row 3.2 (seed 0)." in table["reason"].item()


def test_of_late_epochs_nothing_is_told_by_a_short_study():
    (claim,) = (c for c in CLAIMS if any(x.measure == "late" for x in c.comparisons))
    line = claims_table(fake_study(["4.6"], range(3), **SHORTER), [claim]).iloc[0]
    assert line["verdict"] == UNTOLD and "no more than 9 epochs" in line["reason"]


def test_a_run_of_one_answer_tells_nothing_of_its_task():
    runs = fake_study(["3.1", "3.2"], range(3), **LONGER)
    spoiled = replace(
        runs[-1], provenance=runs[-1].provenance | {"constant_predictions": ["sentiment"]}
    )
    lines = comparisons([*runs[:-1], spoiled], [SURGERY]).set_index("task")
    assert lines.loc["sentiment", "verdict"] == UNTOLD
    assert "The same answer for every example: sentiment" in lines.loc["sentiment", "reason"]
    assert lines.loc["similarity", "seeds"] == 3 and not lines.loc["similarity", "reason"]


def test_a_verdict_stands_on_the_seeds_of_the_differences_that_decide_it():
    """Fine-tuning beats a frozen encoder, whatever its other rate does on one task."""
    (claim,) = (c for c in CLAIMS if set(c.rows) == {"3.1", *FROZEN_ROWS})
    runs = [fake_run("3.1", seed, noise=0.5, size=600, **LONGER) for seed in range(3)]
    for row in FROZEN_ROWS:
        runs += [fake_run(row, seed, noise=5.0, size=600, **LONGER) for seed in range(3)]
    one = {"constant_predictions": ["paraphrase"]}
    runs = [
        replace(run, provenance=run.provenance | one) if run.config["row"] == "frozen-1e-5" else run
        for run in runs
    ]
    line = claims_table(runs, [claim]).iloc[0]
    assert line["verdict"] == FAILS and line["seeds"] == line["readable"] == 3
    assert "The same answer for every example: paraphrase in row frozen-1e-5." in line["reason"]
    assert "**does not hold** (`paper`, 3 seeds)" in claims_markdown(runs)
