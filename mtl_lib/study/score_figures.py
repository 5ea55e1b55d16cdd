"""Figures 3, 4 and 9: the scores of rows, dot by dot, and from the baseline to the final model."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from mtl_lib.study.charts import LINES, draw_scores, draw_slopes
from mtl_lib.study.drawing import (
    NOT_RUN,
    SCORE_NAMES,
    UNDEFINED,
    Cell,
    Figure,
    draw_table,
    in_words,
)
from mtl_lib.study.figure_runs import (
    SEEDS,
    cell,
    dots,
    floor_of,
    notes,
    over_seeds,
    sampling_words,
    scores,
    select,
    signed,
    stamp,
    with_final,
)
from mtl_lib.study.floors import floor_kind, floor_score, read_floors
from mtl_lib.study.gates import ONE_ANSWER, held_words, one_answer_tasks, untrained_tasks
from mtl_lib.study.groups import missing_rows, seeds_in_words, studies, study_of
from mtl_lib.study.paper import (
    BASELINE,
    FINAL_ROWS,
    PAPER_FIGURE_3,
    PAPER_FIGURE_4,
    PAPER_SCORES,
    TASK_ORDER,
)
from mtl_lib.study.rows import ALONE, FROZEN
from mtl_lib.study.store import Run
from mtl_lib.tasks import BY_NAME

SETS = {"train": "Training set", "dev": "Development set"}
COLUMNS = {f"{split}_{task}": task for split in SETS for task in TASK_ORDER}  # the task of each


def figure_3(runs: Sequence[Run]) -> Figure:
    """Figure 3 (section 5.4): training and development scores of ten architectures.

    Below the paper's rows stands the frozen control, which the paper does not have.

    Raises:
        RunError: if none of these rows was run.
    """
    names = PAPER_FIGURE_3["name"].to_dict() | {row: c.name for row, c in FROZEN.items()}
    return _score_figure(3, "Scores by architecture", names, "3.10", runs)


def figure_4(runs: Sequence[Run]) -> Figure:
    """Figure 4 (section 5.4): scores of the final architecture by hyperparameters.

    Raises:
        RunError: if none of these rows was run.
    """
    title = "Scores of the final architecture by hyperparameters"
    return _score_figure(4, title, PAPER_FIGURE_4["name"].to_dict(), "4.6", runs)


def _score_figure(
    number: int, title: str, names: dict[str, str], strong: str, runs: Sequence[Run]
) -> Figure:
    runs = list(runs)
    by_row = select(number, runs, list(names))
    used = [run for row_runs in by_row.values() for run in row_runs]
    records = [_score_line(row, name, by_row.get(row, [])) for row, name in names.items()]
    floors = [*_alone_lines(runs, used[0]), *_floor_lines(used[0])]
    words = ["Paraphrase and sentiment: accuracy; similarity: Pearson's r; ours at the best epoch."]
    if sample := used[0].config["train_sample"]:
        words.append(f"Training scores on a fixed sample of {sample:,} examples a task.")
    if len(used) > len(by_row):
        words.append(SEEDS)
    words.append(sampling_words(used[0]))
    words += _below_floors(records, by_row)
    missing = missing_rows(used, names)
    if missing:
        words.append(f"Not run: {', '.join(missing)}.")
    alt = "; ".join(
        f"{line['name']} "
        + ", ".join(
            f"{in_words(line[f'dev_{task}_ours'])} (paper {in_words(line[f'dev_{task}_paper'])})"
            for task in TASK_ORDER
        )
        for line in records
        if line["seeds"]
    )
    told = notes(used, *words)
    heading, seen = f"Figure {number}. {title}", f"development scores of {len(by_row)} rows"
    return Figure(
        number,
        signed(pd.DataFrame([*records, *floors]), used, told),
        draw_scores(
            heading,
            stamp(used),
            [(row, name) for row, name in names.items() if row in {*by_row, *PAPER_SCORES.index}],
            dots(used),
            {
                (row, task): PAPER_SCORES.loc[row, f"dev_{task}"]
                for row in PAPER_SCORES.index.intersection(list(names))
                for task in TASK_ORDER
            },
            {
                (name, task): next(
                    (line[f"dev_{task}_ours"] for line in floors if line["row"] == name), np.nan
                )
                for name in LINES
                for task in TASK_ORDER
            },
            next((line["name"] for line in floors if line["row"] == ALONE_ROW), ""),
            strong,
        ),
        f"{heading}: {seen}. A dot is one seed of ours, hollow where it did not train or gives one "
        "answer; a diamond is the paper's number. The lines need no joint training."
        + " Grey names: not run."
        * bool(missing),
        told,
        f"Dots of {len(names)} rows, {len(by_row)} of them run. Development scores for "
        f"paraphrase, sentiment, similarity: {alt}.",
        draw_table(
            heading,
            stamp(used),
            {split: ["Paraphrase", "Sentiment", "Similarity (r)"] for split in SETS.values()},
            [_score_cells(line) for line in [*records, *floors]],
            strong=strong,
            names=2.9,
        ),
    )


def _score_line(row: str, name: str, runs: Sequence[Run]) -> dict:
    line = {"row": row, "name": name, "seeds": " ".join(str(run.config["seed"]) for run in runs)}
    for split in SETS:
        for task in TASK_ORDER:
            column = f"{split}_{task}"
            line[f"{column}_paper"] = PAPER_SCORES[column].get(row, np.nan)
            line |= over_seeds(column, scores(runs, split, task))
    line["not_trained"] = " ".join(str(r.config["seed"]) for r in runs if untrained_tasks(r))
    line["gate"] = held_words(runs)
    for task in TASK_ORDER:
        found = [str(r.config["seed"]) for r in runs if task in one_answer_tasks(r)]
        line[f"{task}_one_answer"] = " ".join(found)
    return line


def _score_cells(line: dict) -> tuple[str, str, list[Cell]]:
    """Id, name and cells of a line of the table; the frozen control has no id of the paper's."""
    if line["row"] == ALONE_ROW or line["row"] in FLOOR_NAMES:
        blank = [cell(line, column) for column in COLUMNS]
        return "", line["name"], [("", "" if ours == "–" else ours, "") for _, ours, _ in blank]
    key = line["row"] if line["row"] in PAPER_SCORES.index else ""
    cells = []
    for column, task in COLUMNS.items():
        paper, ours, spread = cell(line, column)
        one = len(line[f"{task}_one_answer"].split())
        seeds = len(line["seeds"].split())
        if ours == "–":  # a correlation of constants is undefined
            ours = ONE_ANSWER if one and one == seeds else UNDEFINED if seeds else NOT_RUN
        elif one:
            spread = f"{one} of {seeds} {ONE_ANSWER}"
        cells.append((paper, ours, spread))
    gate = f" ({line['gate']})" if line["gate"] else ""
    return key, line["name"] + gate, cells


ALONE_ROW = "alone"


def _alone_lines(runs: Sequence[Run], like: Run) -> list[dict]:
    """What each task reaches alone (`rows.ALONE`), in a line: on the corpora and from the
    encoder of a run, in its study, else in another, which is then named; none where not run."""

    def same(run: Run, name: str) -> bool:
        return run.provenance[name] == like.provenance[name]

    found = [
        group
        for group in studies(run for run in runs if run.config["row"] in ALONE)
        if same(group[0], "corpus") and same(group[0], "encoder")
    ]
    if not found:
        return []
    study = study_of(like)
    group = next((group for group in found if study_of(group[0]) == study), found[0])
    profile = group[0].config["profile"]
    name = "each task alone" + ("" if study_of(group[0]) == study else f" (profile {profile})")
    line = {"row": ALONE_ROW, "name": name, "seeds": ""}
    for split in SETS:
        for task in TASK_ORDER:
            of_task = [run for run in group if run.config["row"] == f"{task}-alone"]
            line[f"{split}_{task}_paper"] = np.nan
            line |= over_seeds(f"{split}_{task}", scores(of_task, split, task))
    return [line]


FLOOR_NAMES = {row: name for row, (name, _) in LINES.items() if row != ALONE_ROW}


def _floor_lines(run: Run) -> list[dict]:
    """What words alone reach on the development sets of a run's corpora, and a constant answer;
    none where it is not stored."""
    corpus, lines = run.provenance["corpus"], []
    floors = read_floors(corpus["name"], corpus["fingerprint"])
    for row, name in FLOOR_NAMES.items() if floors else ():
        line = {"row": row, "name": name, "seeds": ""}
        line |= {
            f"{c}_{part}": np.nan for c in COLUMNS for part in ("paper", "ours", "low", "high")
        }
        for task in TASK_ORDER:
            if row == "constant":
                score = floors["tasks"][task].get("constant", np.nan)
            else:
                score = floor_score(floors, task, row.removeprefix("words-"))
            line[f"dev_{task}_ours"] = score
        lines.append(line)
    return lines


def _below_floors(records: list[dict], by_row: dict[str, list[Run]]) -> list[str]:
    """The rows whose development score lies below what words alone reach with heads of their kind,
    in a sentence; none where there is no such row or no floor stored."""
    below: dict[tuple[str, str], list[str]] = {}
    for line in records:
        if not (runs := by_row.get(line["row"])):
            continue
        corpus = runs[0].provenance["corpus"]
        if not (floors := read_floors(corpus["name"], corpus["fingerprint"])):
            return []
        for task in TASK_ORDER:
            kind = floor_kind(runs[0].config["heads"][task])
            if line[f"dev_{task}_ours"] < floor_score(floors, task, kind):
                below.setdefault((task, kind), []).append(line["row"])
    if not below:
        return []
    places = "; ".join(
        f"{task} ({kind}) {', '.join(rows) if len(rows) < len(by_row) else 'all rows'}"
        for (task, kind), rows in below.items()
    )
    return [f"Below what words alone reach with heads of the same kind: {places}."]


def figure_9(runs: Sequence[Run]) -> Figure:
    """Figure 9 (appendix B): development scores of the baseline and of the final model, by task.

    The paper's numbers beside ours are those of the same two rows.

    Raises:
        RunError: if no study has both the baseline and the final model.
    """
    by_row = with_final(9, runs, BASELINE)
    final = next(row for row in by_row if row != BASELINE)
    used = [run for row_runs in by_row.values() for run in row_runs]
    told = dots(used)
    parts = {
        name: told[told["row"] == row].set_index(["task", "seed"])[["score", "held"]]
        for name, row in (("baseline", BASELINE), ("final", final))
    }
    seeds = pd.concat(parts, axis=1, join="inner").set_axis(
        ["baseline", "baseline_held", "final", "final_held"], axis=1
    )
    seeds = seeds.reset_index()
    records = []
    for task in TASK_ORDER:
        line = {"task": task, "metric": BY_NAME[task].metric}
        for name, row in (("baseline", BASELINE), ("final", final)):
            line |= {f"{name}_row": row, f"{name}_paper": PAPER_SCORES.loc[row, f"dev_{task}"]}
            line |= over_seeds(name, scores(by_row[row], "dev", task))
            floor = floor_of(by_row[row][0], task)
            line[f"{name}_words"] = floor["dev"][BY_NAME[task].metric] if floor else np.nan
        line["improvement_paper"] = line["final_paper"] - line["baseline_paper"]
        both = seeds[(seeds["task"] == task) & ~seeds["baseline_held"] & ~seeds["final_held"]]
        line["improvement_ours"] = (both["final"] - both["baseline"]).mean()
        line["improvement_seeds"] = len(both)
        records.append(line)
    words = [
        f"Baseline: row {BASELINE}, {seeds_in_words(by_row[BASELINE])}; final: row {final}, "
        f"{seeds_in_words(by_row[final])}; the paper's: the same rows.",
        "Ours: the mean of the seeds that count, at the best epoch; the gain that of seeds with "
        "which both trained.",
        sampling_words(by_row[final][0]),
    ]
    if final != FINAL_ROWS[0]:
        words.append(f"Row {FINAL_ROWS[0]}, which the paper's figure shows, was not run.")
    alt = "; ".join(
        f"{BY_NAME[line['task']].title}, {SCORE_NAMES[line['metric']]}: "
        + ", ".join(
            " ".join([source, in_words(line["baseline_" + source])])
            + f" to {in_words(line['final_' + source])}"
            for source in ("ours", "paper")
        )
        for line in records
    )
    heading = "Figure 9. From the baseline to the final model"
    table, all_notes = pd.DataFrame(records), notes(used, *words)
    return Figure(
        9,
        signed(table, used, all_notes),
        draw_slopes(heading, stamp(used), table, seeds),
        f"{heading}: development scores at the best epoch, a line a seed. Above: the "
        "gains, ours of seeds with which both trained. Dashes: words alone, with heads as there.",
        all_notes,
        f"Slopes of development scores from the baseline to the final model. {alt}.",
    )
