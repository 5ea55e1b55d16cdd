"""Figures 5 to 8: the final model's accuracy by true label."""

from collections.abc import Sequence

import pandas as pd

from mtl_lib.study.by_label import per_class_report
from mtl_lib.study.charts import draw_labels, draw_shares
from mtl_lib.study.drawing import Cell, Figure, draw_table, in_words
from mtl_lib.study.figure_runs import (
    SEEDS,
    cell,
    floor_of,
    notes,
    over_seeds,
    signed,
    stamp,
    with_final,
)
from mtl_lib.study.gates import counted, gate, left_out_words
from mtl_lib.study.paper import FINAL_ROWS, PAPER_FIGURE_5, TASK_ORDER
from mtl_lib.study.store import Run
from mtl_lib.tasks import BY_NAME, SIMILARITY

ROUNDING = (
    "Similarity, true and predicted, is rounded half to even and clipped to "
    f"0-{SIMILARITY.max_label}."
)


def _by_label(number: int, runs: Sequence[Run]) -> tuple[pd.DataFrame, list[Run], list[str]]:
    """Accuracy by true label of the final model, beside the paper's.

    Returns:
        One line per task, label and seed; the runs behind it; words for the caption.
    """
    row, used = next(iter(with_final(number, runs).items()))
    reports = [
        per_class_report(BY_NAME[task], run.predictions[task], run.labels[task]).assign(
            task=task, held=bool(gate(run, [task]))
        )
        for task in TASK_ORDER
        for run in counted(used, task) or used
    ]
    published = PAPER_FIGURE_5.rename(columns=lambda c: f"{c}_paper" if c in PER_LABEL else c)
    words = [f"Ours: the final architecture, row {row}."]
    if row != FINAL_ROWS[0]:
        words = [f"Ours: row {row}, the final architecture before tuning; the paper's: row 4.6."]
    if len(used) > 1:
        words.append(SEEDS)
    by_label = pd.concat(reports).merge(published, on=["task", "label"])
    floors = [
        {"task": task, "label": label, "words": accuracy}
        for task in TASK_ORDER
        for label, accuracy in enumerate(floor_of(used[0], task).get("by_label", ()))
    ]
    floors = pd.DataFrame(floors, columns=["task", "label", "words"])
    return by_label.merge(floors, on=["task", "label"], how="left"), used, words


PER_LABEL = ("accuracy", "share")


def _label_table(by_label: pd.DataFrame) -> pd.DataFrame:
    """One line per task and label: accuracy over seeds, share and number of examples."""
    lines = []
    for (task, label), group in by_label.groupby(["task", "label"], sort=False):
        first = group.iloc[0]  # all seeds share one development set
        line = {"task": task, "label": label, "accuracy_paper": first["accuracy_paper"]}
        line |= over_seeds("accuracy", group["accuracy"])
        line |= {"share_paper": first["share_paper"], "share_ours": first["share"]}
        line["words"] = first["words"]
        lines.append(line | {"count": first["count"]})
    return pd.DataFrame(lines)


def _label_alt(table: pd.DataFrame) -> str:
    sentences = []
    for task, lines in table.groupby("task", sort=False):
        words = ", ".join(
            f"label {line['label']} {in_words(line['accuracy_ours'])} on {line['share_ours']:.1%} "
            f"of values (paper {in_words(line['accuracy_paper'])})"
            for line in lines.to_dict("records")
        )
        sentences.append(f"{BY_NAME[task].title}: {words}.")
    return " ".join(sentences)


def figure_5(runs: Sequence[Run]) -> Figure:
    """Figure 5 (section 5.4): development accuracy of the final model by true label, a table.

    Raises:
        RunError: if the final model was not run.
    """
    by_label, used, words = _by_label(5, runs)
    table = _label_table(by_label)
    lines = {(line["task"], line["label"]): line for line in table.to_dict("records")}

    def cells(task: str, label: int) -> list[Cell]:
        if (task, label) not in lines:
            return [("×", "×", "")] * 2
        line = lines[task, label]
        shares = f"{line['share_paper']:.1%}", f"{line['share_ours']:.1%}", ""
        return [cell(line, "accuracy"), shares]

    heading = "Figure 5. Accuracy by true label, and how frequent the label is"
    told = notes(used, *words, ROUNDING)
    return Figure(
        5,
        signed(table, used, told),
        draw_shares(heading, stamp(used), table, left_out_words(used)),
        f"{heading}: development sets; labels from rare to frequent, ours the mean of the "
        "seeds that count. Did frequent labels do better, the lines would rise.",
        told,
        f"Accuracy by true label against the label's share. {_label_alt(table)}",
        draw_table(
            heading,
            stamp(used),
            {BY_NAME[task].title: ["Accuracy", "Share of values"] for task in TASK_ORDER},
            [
                (str(label), "", [cell for task in TASK_ORDER for cell in cells(task, label)])
                for label in sorted(set(table["label"]))
            ],
        ),
    )


def figure_6(runs: Sequence[Run]) -> Figure:
    """Figure 6 (appendix B): Figure 5's paraphrase columns as a bar chart; errors as there."""
    return _label_figure(6, "paraphrase", runs)


def figure_7(runs: Sequence[Run]) -> Figure:
    """Figure 7 (appendix B): Figure 5's sentiment columns as a bar chart; errors as there."""
    return _label_figure(7, "sentiment", runs)


def figure_8(runs: Sequence[Run]) -> Figure:
    """Figure 8 (appendix B): Figure 5's similarity columns as a bar chart; errors as there."""
    return _label_figure(8, "similarity", runs)


def _label_figure(number: int, task: str, runs: Sequence[Run]) -> Figure:
    by_label, used, words = _by_label(number, runs)
    by_label = by_label[by_label["task"] == task]
    table = _label_table(by_label)
    heading = f"Figure {number}. {BY_NAME[task].title}: accuracy by true label"
    if task == SIMILARITY.name:
        words.append(ROUNDING)
    told = notes(used, *words, tasks=[task])
    return Figure(
        number,
        signed(table, used, told),
        draw_labels(heading, stamp(used), table, by_label, left_out_words(used)),
        f"{heading}, development set: a dot is one seed of ours, the bar their mean, a diamond the "
        "paper's number; dashes are words alone, without a network.",
        told,
        f"Chart of accuracy by true label. {_label_alt(table)}",
    )
