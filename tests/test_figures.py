"""Figures 2-9, drawn from synthetic runs (`fake_runs`): nothing here was trained."""

import errno
import io
import struct
import textwrap
from dataclasses import replace

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from fake_runs import fake_run, fake_study
from scipy import stats
from small import small_encoder

from mtl_lib import cli
from mtl_lib.errors import RunError
from mtl_lib.model import HeadConfig, MultitaskModel
from mtl_lib.study import drawing, figures, pool
from mtl_lib.study.by_label import per_class_report
from mtl_lib.study.floors import floor_score, read_floors
from mtl_lib.study.groups import studies
from mtl_lib.study.paper import PAPER_FIGURE_5, PAPER_SCORES, TASK_ORDER
from mtl_lib.study.rows import BENCH, COMPARE, FIGURE_3, FIGURE_4
from mtl_lib.tasks import BY_NAME, Task

NOTE = "quora-train.csv is not the original file"


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch):
    monkeypatch.setattr(drawing, "DPI", 30)


@pytest.fixture(scope="module")
def study():
    return fake_study()


@pytest.fixture(scope="module")
def some_rows():
    """Four rows of a longer study, three seeds each, without row 4.6."""
    rows = ["frozen-1e-3", "3.1", "3.2", "3.10"]
    options = {"profile": "converged", "encoder": "minilm-l6", "corpus": "cs224n", "notes": (NOTE,)}
    return fake_study(rows, (0, 1, 2), steps=755, **options)


def texts(picture):
    """Every text of a picture, axes and figure."""
    return [t.get_text() for t in picture.findobj(matplotlib.text.Text) if t.get_text()]


# --- Figures 3 and 4


@pytest.mark.parametrize(("number", "prefix"), [(3, "3."), (4, "4.")])
def test_score_figures_hold_the_papers_numbers_beside_ours(study, number, prefix):
    table = figures.ALL[number](study).table.set_index("row")
    for run in study:
        row = run.config["row"]
        if not row.startswith(prefix):
            continue
        for split in ("train", "dev"):
            for task in TASK_ORDER:
                column = f"{split}_{task}"
                ours = run.metrics["best"][split][task][BY_NAME[task].metric]
                assert table.loc[row, f"{column}_ours"] == ours
                assert table.loc[row, f"{column}_paper"] == PAPER_SCORES.loc[row, column]


def test_figure_3_ends_with_the_frozen_control_without_published_numbers(study):
    table = figures.figure_3(study).table
    assert list(table["row"][-2:]) == ["frozen-1e-5", "frozen-1e-3"]
    assert table.filter(like="_paper").iloc[-2:].isna().all(axis=None)
    assert table.filter(like="_ours").notna().all(axis=None)


def test_rows_not_run_are_marked_in_the_tables_and_in_the_notes(some_rows):
    figure = figures.figure_3(some_rows)
    table = figure.table.set_index("row")
    assert table.loc["3.9", "seeds"] == ""
    assert table.loc["3.9"].filter(like="_ours").isna().all()
    assert texts(figure.as_table).count("not run") == 6 * 8  # scores times rows
    assert "Not run: 3.3, 3.4, 3.5, 3.6, 3.7, 3.8, 3.9, frozen-1e-5." in figure.notes


def test_rows_of_the_paper_that_are_not_run_stand_in_the_picture_in_grey(some_rows):
    figure = figures.figure_3(some_rows)
    labels = figure.picture.axes[0].get_yticklabels()
    grey = [label.get_text()[:3] for label in labels if label.get_color() == drawing.FAINT]
    assert grey == ["3.3", "3.4", "3.5", "3.6", "3.7", "3.8", "3.9"]  # the frozen rows are ours
    assert "Grey names: not run." in figure.caption


def test_several_seeds_give_their_mean_and_students_interval(some_rows):
    figure = figures.figure_3(some_rows)
    line = figure.table.set_index("row").loc["3.2"]
    scores = [
        run.metrics["best"]["dev"]["similarity"]["pearson"]
        for run in some_rows
        if run.config["row"] == "3.2"
    ]
    assert line["seeds"] == "0 1 2"
    assert line["dev_similarity_ours"] == pytest.approx(np.mean(scores))
    half = stats.t.ppf(0.975, 2) * stats.sem(scores)
    assert line["dev_similarity_high"] - line["dev_similarity_ours"] == pytest.approx(half)
    assert line["dev_similarity_ours"] - line["dev_similarity_low"] == pytest.approx(half)
    assert f"± {half:.3f}" in texts(figure.as_table)
    assert "Several seeds" in figure.notes


def test_one_seed_has_no_interval_and_the_notes_name_the_sampling_error(study):
    figure = figures.figure_3(study)
    assert figure.table.filter(regex="_(low|high)$").isna().all(axis=None)
    assert not any("±" in words for words in texts(figure.as_table))
    assert "Several seeds" not in figure.notes
    assert "The development examples alone" in figure.notes and "sentiment ± 0.0" in figure.notes


def test_an_undefined_score_has_no_dot_and_no_sampling_error():
    runs = fake_study(["3.1", "4.6"], (0, 1, 2))
    for run in runs:
        if run.config["seed"] == 0:
            run.metrics["best"]["dev"]["similarity"]["pearson"] = float("nan")
    figure = figures.figure_9(runs)
    assert [len(marks(ax, "o")) for ax in figure.picture.axes] == [6, 6, 4]  # two ends a seed
    assert "similarity ±" not in figure.notes and "nan" not in figure.notes


def test_undefined_correlation_is_shown_and_not_hidden():
    run = fake_run("3.1")
    run.metrics["best"]["dev"]["similarity"]["pearson"] = float("nan")
    figure = figures.figure_3([run, fake_run("3.1", seed=2)])
    assert "undefined" in texts(figure.as_table)
    assert np.isnan(figure.table.loc[0, "dev_similarity_ours"])


# --- Figures 5 to 8


def test_figure_5_agrees_with_the_per_class_report(study):
    table = figures.figure_5(study).table
    run = next(run for run in study if run.config["row"] == "4.6")
    for task in TASK_ORDER:
        expected = per_class_report(BY_NAME[task], run.predictions[task], run.labels[task])
        ours = table[table["task"] == task].reset_index(drop=True)
        assert ours["accuracy_ours"].equals(expected["accuracy"])
        assert ours["share_ours"].equals(expected["share"])
        published = PAPER_FIGURE_5[PAPER_FIGURE_5["task"] == task].reset_index(drop=True)
        assert ours["accuracy_paper"].equals(published["accuracy"].rename("accuracy_paper"))


def test_final_model_is_row_4_6_and_else_row_3_10(study, some_rows):
    assert "row 4.6." in figures.figure_5(study).notes
    assert "Ours: row 3.10" in figures.figure_5(some_rows).notes


@pytest.mark.parametrize(
    ("number", "task"), [(6, "paraphrase"), (7, "sentiment"), (8, "similarity")]
)
def test_bars_dots_and_diamonds_are_as_high_as_the_table_says(some_rows, number, task):
    figure = figures.ALL[number](some_rows)
    assert set(figure.table["task"]) == {task}
    (ax,) = figure.picture.axes
    heights = [bars[0].get_height() for bars in ax.containers]
    assert np.allclose(heights, figure.table["accuracy_ours"])
    seeds = np.reshape([dot.get_ydata()[0] for dot in marks(ax, "o")], (len(heights), -1))
    assert np.allclose(seeds.mean(axis=1), heights)
    diamonds = [mark.get_ydata()[0] for mark in marks(ax, "D")]
    assert np.allclose(diamonds, figure.table["accuracy_paper"])


def test_a_label_without_examples_says_so():
    run = fake_run("4.6")
    labels = run.labels | {"sentiment": np.maximum(run.labels["sentiment"], 1)}
    figure = figures.figure_7([replace(run, labels=labels)])
    assert "no examples" in texts(figure.picture)
    assert len(figure.png()) > 1000


# --- Figure 9


def test_figure_9_is_the_difference_of_final_model_and_baseline(some_rows):
    table = figures.figure_9(some_rows).table.set_index("task")
    published = PAPER_SCORES["dev_sentiment"]
    gain = table.loc["sentiment", "improvement_paper"]
    assert gain == pytest.approx(published["3.10"] - published["3.1"])
    scores = {
        row: np.mean(
            [
                run.metrics["best"]["dev"]["sentiment"]["accuracy"]
                for run in some_rows
                if run.config["row"] == row
            ]
        )
        for row in ("3.1", "3.10")
    }
    gain = table.loc["sentiment", "improvement_ours"]
    assert gain == pytest.approx(scores["3.10"] - scores["3.1"])


def test_figure_9_gains_are_of_seeds_with_which_both_models_trained():
    runs = [fake_run(row, seed) for row in ("3.1", "4.6") for seed in (0, 1)]
    runs[3] = fake_run("4.6", 1, trained=False)
    line = figures.figure_9(runs).table.set_index("task").loc["sentiment"]
    one = [run.metrics["best"]["dev"]["sentiment"]["accuracy"] for run in (runs[0], runs[2])]
    assert line["improvement_ours"] == pytest.approx(one[1] - one[0])
    assert line["improvement_seeds"] == 1
    none = [fake_run("3.1", 0, trained=False), fake_run("4.6", 0)]
    assert figures.figure_9(none).table["improvement_ours"].isna().all()


def test_figure_9_slopes_go_from_the_baseline_to_the_final_model(study):
    figure = figures.figure_9(study)
    line = figure.table.iloc[0]  # paraphrase
    ax = figure.picture.axes[0]
    (paper,) = marks(ax, "D")
    assert np.allclose(paper.get_ydata(), line[["baseline_paper", "final_paper"]].astype(float))
    ours = [dot.get_ydata()[0] for dot in marks(ax, "o")]
    assert np.allclose(ours, line[["baseline_ours", "final_ours"]].astype(float))


def test_figure_9_has_the_same_scale_in_all_panels(some_rows):
    heights = [np.ptp(ax.get_ylim()) for ax in figures.figure_9(some_rows).picture.axes]
    assert np.allclose(heights, heights[0])


def test_figure_9_shows_a_negative_correlation():
    run = fake_run("3.1")
    run.metrics["best"]["dev"]["similarity"]["pearson"] = -0.2
    figure = figures.figure_9([run, fake_run("4.6")])
    assert figure.picture.axes[2].get_ylim()[0] < -0.2


def test_figure_9_without_a_baseline_names_the_row():
    with pytest.raises(RunError, match=r"Figure 9: no run of row 3\.1"):
        figures.figure_9([fake_run("4.6")])


# --- Figure 2


def test_figure_2_reads_the_heads_from_the_configuration():
    table = figures.figure_2(FIGURE_4["4.10"]).table
    layers = table.groupby("task")["layer"].apply(list)
    assert layers["paraphrase"] == ["dropout 0.3", "linear 2H → 1"]
    assert layers["sentiment"] == ["dropout 0.5", "linear H → 5"]
    assert layers["similarity"] == [
        "dropout 0.5",
        "linear 2H → H",
        "LeakyReLU",
        "dropout 0.3",
        "linear H → 1",
    ]


def model(heads):
    torch.manual_seed(0)
    return MultitaskModel(small_encoder(), heads)


def test_figure_2_reads_the_heads_from_a_models_own_modules():
    heads = {"similarity": HeadConfig((0.4, 0.2)), "paraphrase": HeadConfig((0.1,))}
    figure = figures.figure_2(model(heads))
    assert list(figure.table["layer"]) == [
        "dropout 0.1",
        "linear 2H → 1",
        "dropout 0.4",
        "linear 2H → H",
        "ReLU",
        "dropout 0.2",
        "linear H → 1",
    ]
    assert any("2 layers, H = 16" in words for words in texts(figure.picture))


def test_figure_2_draws_the_final_model_of_stored_runs(study):
    figure = figures.figure_2(study)
    assert figure.table.equals(figures.figure_2(FIGURE_4["4.6"]).table)
    assert any("0.05 × L∞" in words for words in texts(figure.picture))
    assert any("gradient surgery" in words for words in texts(figure.picture))


def test_figure_2_shows_no_penalty_and_no_surgery_where_there_is_none():
    words = " ".join(texts(figures.figure_2(FIGURE_3["3.1"]).picture))
    assert "norm" not in words and "surgery" not in words


def test_figure_2_draws_tasks_of_ones_own():
    entailment = Task("multi-nli", 2, outputs=3, title="Entailment")
    stars = Task("stars", loss=torch.nn.functional.huber_loss, metric="pearson")
    figure = figures.figure_2(model({entailment: HeadConfig(), stars: HeadConfig()}))
    assert list(figure.table["layer"]) == [
        "dropout 0.3",
        "linear 2H → 3",
        "dropout 0.3",
        "linear H → 1",
    ]
    words = texts(figure.picture)
    assert {"Entailment", "Stars", "cross-entropy", "a loss of its own", "one sentence"} <= set(
        words
    )


# --- what stands behind a figure


def test_a_caption_names_a_task_that_gives_one_answer_for_every_example(study):
    assert "The same answer" not in figures.figure_3(study).notes
    row, *others = study
    collapsed = replace(row, provenance=row.provenance | {"constant_predictions": ["paraphrase"]})
    words = "The same answer for every example: paraphrase in row 3.1."
    assert words in figures.figure_3([collapsed, *others]).notes


def marks(ax, marker):
    """The marks of a shape in a panel."""
    return [line for line in ax.lines if line.get_marker() == marker]


def spoiled(run, *tasks):
    return replace(run, provenance=run.provenance | {"constant_predictions": list(tasks)})


def test_one_answer_is_counted_and_never_averaged_into_a_score():
    runs = fake_study(["3.1"], (0, 1, 2))
    figure = figures.figure_3([*runs[:2], spoiled(runs[2], "sentiment")])
    line = figure.table.set_index("row").loc["3.1"]
    fewer = figures.figure_3(runs[:2]).table.set_index("row").loc["3.1"]
    assert line["dev_sentiment_ours"] == fewer["dev_sentiment_ours"]
    assert line["dev_similarity_ours"] != fewer["dev_similarity_ours"]
    assert line["sentiment_one_answer"] == "2" and line["similarity_one_answer"] == ""
    assert "1 of 3 one answer" in texts(figure.as_table)


def test_a_row_of_one_answer_only_shows_the_word_in_place_of_a_score():
    figure = figures.figure_3([spoiled(fake_run("3.1"), "paraphrase")])
    assert np.isnan(figure.table.set_index("row").loc["3.1", "dev_paraphrase_ours"])
    assert texts(figure.as_table).count("one answer") == 2  # training and development


def test_a_run_that_did_not_train_carries_the_word_and_gives_way_to_those_that_did():
    alone = figures.figure_3([fake_run("3.1", 0, trained=False)])
    assert "Baseline minBERT (not trained)" in texts(alone.as_table)
    assert "Not trained" in alone.notes and "not trained" in " ".join(texts(alone.picture))
    both = figures.figure_3([fake_run("3.1", 0, trained=False), fake_run("3.1", 1)])
    other = figures.figure_3([fake_run("3.1", 1)])
    assert "Baseline minBERT (1 of 2 not trained)" in texts(both.as_table)
    column = [figure.table.set_index("row")["dev_similarity_ours"] for figure in (both, other)]
    assert column[0]["3.1"] == column[1]["3.1"]


def real_run(row, **options):
    """A run on corpora whose floors are stored."""
    run = fake_run(row, profile="paper", encoder="minilm-l6", corpus="cs224n", **options)
    floors = read_floors("cs224n")
    corpus = run.provenance["corpus"] | {"fingerprint": floors["fingerprint"]}
    return replace(run, provenance=run.provenance | {"corpus": corpus}), floors


@pytest.mark.parametrize(("number", "row"), [(3, "3.1"), (4, "4.6")])
def test_score_figures_end_with_the_floors(number, row):
    run, floors = real_run(row)
    table = figures.ALL[number]([run]).table.set_index("row")
    assert table.loc["words-comparing", "dev_similarity_ours"] == pytest.approx(0.6756, abs=1e-4)
    constant = floors["tasks"]["paraphrase"]["constant"]
    assert table.loc["constant", "dev_paraphrase_ours"] == constant
    assert np.isnan(table.loc["constant", "dev_similarity_ours"])


def test_what_each_task_reaches_alone_stands_below_the_rows_with_its_study():
    rows, options = ["similarity-alone", "sentiment-alone"], {"encoder": "e", "corpus": "c"}
    alone = fake_study(rows, profile="converged", **options)
    same = figures.figure_3([*fake_study(["3.1"], profile="converged", **options), *alone])
    line = same.table.set_index("row").loc["alone"]
    assert line["name"] == "each task alone"
    scores = alone[0].metrics["best"]["dev"]["similarity"]
    assert line["dev_similarity_ours"] == scores["pearson"]
    assert np.isnan(line["dev_paraphrase_ours"])  # not run
    other = figures.figure_3([*fake_study(["3.1"], profile="paper", **options), *alone])
    for drawn in (other.as_table, other.picture):
        assert "each task alone (profile converged)" in texts(drawn)
    apart = fake_study(["3.1"], profile="paper", encoder="e", corpus="another")
    assert "alone" not in set(figures.figure_3([*apart, *alone]).table["row"])


def test_a_row_below_the_floor_that_its_heads_can_reach_is_said_to_be_so():
    weak, _ = real_run("3.1", noise=50.0)
    strong, _ = real_run("3.2", noise=0.1)
    assert "Below what words alone reach" in figures.figure_3([weak]).notes
    assert "Below what words alone reach" not in figures.figure_3([strong]).notes


def test_charts_hold_the_floors_by_label_and_by_task():
    final, floors = real_run("4.6")
    baseline, _ = real_run("3.1")
    by_label = floors["tasks"]["sentiment"]["additive"]["by_label"]
    assert figures.figure_7([final]).table["words"].tolist() == pytest.approx(by_label)
    table = figures.figure_9([baseline, final]).table.set_index("task")
    for end, kind in {"baseline": "additive", "final": "comparing"}.items():  # as its head compares
        assert table.loc["similarity", f"{end}_words"] == floor_score(floors, "similarity", kind)


def test_a_figure_of_one_task_does_not_name_the_collapse_of_another(study):
    final = next(run for run in study if run.config["row"] == "4.6")
    collapsed = replace(
        final, provenance=final.provenance | {"constant_predictions": ["sentiment"]}
    )
    runs = [run for run in study if run is not final] + [collapsed]
    assert "The same answer for every example: sentiment" in figures.figure_7(runs).notes
    assert "The same answer" not in figures.figure_8(runs).notes


def test_notes_and_pictures_name_what_stands_behind_them(some_rows):
    for number in (3, 5, 6, 7, 8, 9):
        figure = figures.ALL[number](some_rows)
        stamp = " ".join(texts(figure.picture))
        for fact in (
            "profile converged",
            "encoder minilm-l6",
            "corpora cs224n",
            "755 steps in 4 epochs",
            "seeds 0, 1, 2",
            "learning rates × 2",
            "sentence vector: mean",
            "heads at 0.001",
            "gradients clipped at 1.0",
        ):
            assert fact in figure.notes and fact in stamp
        assert NOTE in figure.notes and NOTE.partition(" (")[0] in stamp
        kind = "Another protocol than the paper's"
        assert kind in figure.notes and kind in stamp
        assert figure.caption.startswith(f"Figure {number}.")


@pytest.mark.parametrize("number", figures.ALL)
def test_a_caption_has_three_lines_at_most(study, number):
    figure = figures.ALL[number](study)
    assert len(textwrap.wrap(figure.caption, 100)) <= 3


@pytest.mark.parametrize("number", [3, 4])
def test_score_figures_have_a_dot_a_seed_and_a_diamond_a_row(study, number):
    figure = figures.ALL[number](study)
    lines = figure.table[figure.table["seeds"] != ""].set_index("row")
    for ax, task in zip(figure.picture.axes, TASK_ORDER, strict=True):
        assert len(marks(ax, "D")) == len(lines)
        dots = {round(mark.get_ydata()[0]): mark.get_xdata()[0] for mark in marks(ax, "o")}
        ours = [dots[place] for place in range(len(lines))]
        assert np.allclose(ours, lines[f"dev_{task}_ours"])


def test_a_dot_is_hollow_where_the_run_did_not_train_or_gives_one_answer():
    runs = [fake_run("3.1", 0, trained=False), spoiled(fake_run("3.2"), "sentiment")]
    axes = figures.figure_3([*runs, fake_run("3.3")]).picture.axes
    hollow = [[mark.get_markerfacecolor() == "white" for mark in marks(ax, "o")] for ax in axes]
    assert hollow == [[True, False, False], [True, True, False], [True, False, False]]


def test_figure_5_sets_accuracy_by_label_from_the_rarest_to_the_most_frequent(study):
    figure = figures.figure_5(study)
    for ax, (task, lines) in zip(
        figure.picture.axes, figure.table.groupby("task", sort=False), strict=True
    ):
        lines = lines.sort_values("share_ours")
        for marker, source in (("o", "ours"), ("D", "paper")):
            (drawn,) = marks(ax, marker)
            expected = lines[f"accuracy_{source}"].astype(float)
            assert np.allclose(drawn.get_ydata().astype(float), expected, equal_nan=True), task
        names = [name.get_text().split()[0] for name in ax.get_xticklabels()]
        assert names == lines["label"].astype(str).tolist()


def test_only_the_papers_protocol_is_called_so():
    full = fake_study(["4.6"], profile="paper", encoder="bert-base-uncased", steps=7550)
    words = " ".join(texts(figures.figure_5(full).picture))
    assert "The paper's protocol" in words and "shortened" not in words
    config = full[0].config | {"max_steps": 100}
    capped = figures.figure_5([replace(full[0], config=config)])
    assert "A shortened study" in " ".join(texts(capped.picture))


def test_alternative_text_holds_the_numbers_shown(study):
    figure = figures.figure_6(study)
    for value in figure.table["accuracy_ours"]:
        assert f"{value:.3f}" in figure.alt


def test_a_folder_as_encoder_is_named_without_its_path(study):
    run = fake_run("4.6", encoder="/home/reader/my-encoder")
    assert "encoder my-encoder" in figures.figure_5([run]).notes


@pytest.mark.parametrize("number", [2, 3, 4, 5, 6, 7, 8, 9])
def test_no_fitting_run_names_the_rows_and_the_remedy(number):
    with pytest.raises(RunError, match=rf"Figure {number}: no run of row .*`mtl sweep --rows \d"):
        figures.ALL[number]([])


def test_a_figure_shows_one_study(study, some_rows):
    for number, shown in ((3, some_rows), (9, study)):  # Figure 9 needs all of its rows
        both = figures.ALL[number]([*some_rows, *study]).table
        assert both.equals(figures.ALL[number](shown).table)
    longer = fake_study(["3.1", "4.6"], profile="paper")
    assert set(figures.figure_9([*study, *longer]).table["profile"]) == {"paper"}


def test_one_seed_twice_is_an_error(study):
    with pytest.raises(RunError, match="two runs of one seed"):
        figures.figure_4([fake_run("4.1"), fake_run("4.1")])


def test_studies_are_ordered_by_profile_then_steps(study, some_rows):
    short = fake_study(["3.1"], steps=5)
    short = [replace(run, config=run.config | {"max_steps": 5}) for run in short]
    groups = studies([*short, *study, *some_rows])
    assert [group[0].provenance["steps"] for group in groups] == [755, 60, 5]


# --- files


def png_chunks(data):
    """Names of the chunks of a PNG file."""
    stream, names = io.BytesIO(data[8:]), []
    while header := stream.read(8):
        length, name = struct.unpack(">I4s", header)
        names.append((name.decode(), stream.read(length)))
        stream.read(4)
    return names


def test_png_bytes_are_the_same_under_other_settings_and_hold_no_date(study):
    first = figures.figure_6(study).png()
    with matplotlib.rc_context({"font.size": 20, "savefig.dpi": 30, "axes.facecolor": "red"}):
        assert figures.figure_6(study).png() == first
    text = [content for name, content in png_chunks(first) if name in ("tEXt", "iTXt", "zTXt")]
    assert len(text) == 1 and text[0].startswith(b"Description")
    assert "tIME" not in [name for name, _ in png_chunks(first)]


def test_save_writes_table_and_picture(study, tmp_path):
    figure = figures.figure_5(study)
    paths = figure.save(tmp_path / "new")
    names = ["figure_5.csv", "figure_5.png", "figure_5_table.png"]
    assert [path.name for path in paths] == names
    assert sorted(tmp_path.joinpath("new").iterdir()) == paths
    table = pd.read_csv(paths[0])
    assert np.allclose(table["accuracy_ours"], figure.table["accuracy_ours"], atol=1e-6)
    assert set(table["profile"]) == {"quick"} and set(table["encoder"]) == {"tiny"}
    assert table["notes"][0] == figure.notes and table["notes"][1:].isna().all()
    assert b"\r" not in paths[0].read_bytes()


def test_save_all_takes_each_figure_from_the_study_that_suits_it(study, some_rows, tmp_path):
    paths = figures.save_all([*study, *some_rows], tmp_path)
    assert len(paths) == 2 * len(figures.ALL) + 3  # Figures 3 to 5 are tables too
    profile = {n: pd.read_csv(tmp_path / f"figure_{n}.csv")["profile"][0] for n in range(3, 10)}
    assert profile == dict.fromkeys(range(4, 10), "quick") | {3: "converged"}
    longer = fake_study(["4.6"], profile="converged", encoder="minilm-l6", corpus="cs224n")
    figures.save_all([*study, *some_rows, *longer], tmp_path)
    profile = {n: pd.read_csv(tmp_path / f"figure_{n}.csv")["profile"][0] for n in range(3, 10)}
    assert profile == dict.fromkeys(range(3, 10), "converged")


def test_save_all_leaves_out_what_was_not_run_and_removes_its_old_files(
    some_rows, tmp_path, caplog
):
    for name in ("figure_4.png", "figure_4_table.png"):
        (tmp_path / name).write_bytes(b"of another study")
    paths = figures.save_all(some_rows, tmp_path)
    assert not any(path.name.startswith("figure_4") for path in tmp_path.iterdir())
    assert len(paths) == 2 * (len(figures.ALL) - 1) + 2
    assert "Figure 4: no run of row 4.1" in caplog.text


def test_a_read_only_folder_of_figures_is_told_which_variable_moves_it(study, monkeypatch, capsys):
    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(drawing, "replacing", refuse)
    monkeypatch.setattr(pool, "committed_runs", lambda: study)
    assert cli.main(["figures"]) == 1
    error = capsys.readouterr().err
    assert "figure_2.csv: Permission denied" in error and "MTL_FIGURES names it" in error
    assert "MTL_BUILD" not in error and error.count("\n") == 1


def test_save_all_without_any_run_is_an_error(tmp_path):
    with pytest.raises(RunError, match="no figure can be drawn"):
        figures.save_all([], tmp_path)


def test_in_a_notebook_the_picture_comes_with_alternative_text_caption_and_folded_runs(study):
    display = pytest.importorskip("IPython.display")
    shown = []
    figure = figures.figure_5(study)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(display, "display", lambda *things: shown.extend(things))
        figure._ipython_display_()
    picture, caption, table, runs = shown
    assert picture.data == figure.png() and picture.alt == figure.alt
    assert figure.caption in caption.data and table.alt
    assert figure.notes in runs.data and "<details>" in runs.data


def test_figure_2_names_a_weighting_that_has_no_words_of_its_own():
    words = " ".join(texts(figures.figure_2(BENCH["bench-mgda-x1"]).picture))
    assert "mgda: weights [3]\nof the gradients" in words and "surgery" not in words


def test_figure_2_says_what_a_comparing_head_sees():
    figure = figures.figure_2(COMPARE["cosine"])
    layers = figure.table.groupby("task")["layer"].apply(list)
    assert layers["paraphrase"] == ["dropout 0.3", "linear 4H → 1"]
    assert layers["similarity"] == ["dropout 0", "linear 1 → 1"]
    assert {"[u; v; |u-v|; u*v]", "cos(u, v)", "u"} <= set(texts(figure.picture))
