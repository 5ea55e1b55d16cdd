"""Figures 2-9 of the paper, redrawn from stored runs: table, picture and caption of one origin.

Every figure holds its numbers as a table and a picture drawn from that table (`drawing.py`), and
its caption says which runs stand behind it. Columns follow the paper: paraphrase, sentiment,
similarity. Scores are those of the best epoch (our reading: the highest mean of the three
development metrics). Where a row has several seeds, its number is their mean, with Student's 95 %
interval; runs with one answer for every example are counted and never averaged, and those that did
not train stand only where their row has no other, with the word (`gates.py`). A figure shows one
study: given runs of several, the most thorough one that holds all rows of the figure, else the one
that holds most of them.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from mtl_lib.errors import RunError
from mtl_lib.model import FEATURES, Head, HeadConfig, MultitaskModel
from mtl_lib.paths import FIGURES
from mtl_lib.study.by_label import per_class_report
from mtl_lib.study.config import ExperimentConfig
from mtl_lib.study.drawing import (
    NOT_RUN,
    SCORE_NAMES,
    UNDEFINED,
    Cell,
    Figure,
    Stack,
    draw_architecture,
    draw_improvement,
    draw_labels,
    draw_table,
    in_words,
)
from mtl_lib.study.floors import floor_kind, floor_score, read_floors
from mtl_lib.study.gates import (
    NOT_TRAINED,
    ONE_ANSWER,
    counted,
    held_words,
    one_answer_tasks,
    untrained_tasks,
)
from mtl_lib.study.groups import (
    choose_study,
    corpus_notes,
    facts,
    kind_of_study,
    missing_rows,
    provenance_line,
    seeds_in_words,
    study_of,
)
from mtl_lib.study.groups import studies as studies  # the notebooks take it from here
from mtl_lib.study.paper import (
    BASELINE,
    FINAL_ROWS,
    PAPER_FIGURE_3,
    PAPER_FIGURE_4,
    PAPER_FIGURE_5,
    PAPER_SCORES,
    TASK_ORDER,
)
from mtl_lib.study.rows import ALONE, FROZEN
from mtl_lib.study.store import Run
from mtl_lib.study.uncertainty import sampling_error, seed_interval
from mtl_lib.tasks import BY_NAME

log = logging.getLogger(__name__)

ROUNDING = "Similarity, true and predicted, is rounded half to even and clipped to 0-5."
SEEDS = "Several seeds: their mean, and the 95 % interval of that mean over the seeds alone."


# --- which runs stand behind a figure ----------------------------------------------------------


def _select(number: int, runs: Iterable[Run], rows: Sequence[str]) -> dict[str, list[Run]]:
    """The runs of the given rows, by row and in the rows' order; a row without a run is left out.

    Raises:
        RunError: if there is none, or one is there twice.
    """
    fitting = choose_study(runs, rows)
    if not fitting:
        raise RunError(
            f"Figure {number}: no run of row {', '.join(rows)}; train one, for instance with "
            f"`make reproduce ROWS={rows[0]}`"
        )
    chosen = {row: [run for run in fitting if run.config["row"] == row] for row in rows}
    for row, row_runs in chosen.items():
        seeds = [run.config["seed"] for run in row_runs]
        if len(set(seeds)) < len(seeds):
            raise RunError(f"Figure {number}: row {row} has two runs of one seed; give one of them")
    return {row: row_runs for row, row_runs in chosen.items() if row_runs}


def _with_final(number: int, runs: Sequence[Run], *others: str) -> dict[str, list[Run]]:
    """The final model beside other rows: row 4.6 where a study has it, else row 3.10.

    Raises:
        RunError: if no study has all of them.
    """
    runs = list(runs)
    for final in FINAL_ROWS:
        rows = [*others, final]
        if not missing_rows(choose_study(runs, rows), rows):
            return _select(number, runs, rows)
    there = choose_study(runs, [*others, *FINAL_ROWS])
    missing = missing_rows(there, others) or [" or ".join(FINAL_ROWS)]
    raise RunError(
        f"Figure {number}: no run of row {', '.join(missing)}; train one, for instance with "
        f"`make reproduce ROWS={','.join([*others, FINAL_ROWS[0]])}`"
    )


def _caption(
    number: int,
    title: str,
    runs: Sequence[Run],
    *words: str,
    tasks: Sequence[str] = TASK_ORDER,
) -> str:
    """Title, what to know of the tasks it shows, and which runs stand behind the figure."""
    return " ".join([f"Figure {number}. {title}", *words, provenance_line(runs, tasks)])


def _stamp(runs: Sequence[Run]) -> str:
    """The same inside the picture, so that it never passes for another study's; three lines."""
    what, how_long = facts(runs)
    note = "Not all corpus files are the originals: see the caption." if corpus_notes(runs) else ""
    held = {word for run in runs for word, tasks in _held(run).items() if tasks}
    if held:
        note = f"Of these runs some are {' or '.join(sorted(held))}: see the caption. {note}"
    return f"{kind_of_study(runs[0])}: {' · '.join(what)}\n{' · '.join(how_long)}\n{note}"


def _held(run: Run) -> dict[str, list[str]]:
    """The tasks of a run that a gate holds back, by its word."""
    return {NOT_TRAINED: untrained_tasks(run), ONE_ANSWER: one_answer_tasks(run)}


def _sampling_words(run: Run) -> str:
    """How much the choice of development examples alone moves one run's scores."""
    defined = [
        t for t in TASK_ORDER if np.isfinite(run.metrics["best"]["dev"][t][BY_NAME[t].metric])
    ]
    errors = ", ".join(f"{task} ± {sampling_error(task, run):.3f}" for task in defined)
    return (
        "The development examples alone (95 %, bootstrap) move a score by: "
        f"{errors} (row {run.config['row']})."
    )


def _signed(table: pd.DataFrame, runs: Sequence[Run]) -> pd.DataFrame:
    """The table with profile, encoder and corpora in every line: a CSV file travels alone."""
    return table.assign(
        profile=runs[0].config["profile"],
        encoder=Path(runs[0].config["encoder"]).name,
        corpora=runs[0].provenance["corpus"]["name"],
    )


def _over_seeds(name: str, values: Sequence[float]) -> dict[str, float]:
    """Mean and its interval, NaN with one seed; an undefined value makes all three undefined."""
    parts = zip(("ours", "low", "high"), seed_interval(values), strict=True)
    return {f"{name}_{part}": value for part, value in parts}


def _scores(runs: Sequence[Run], split: str, task: str) -> list[float]:
    """Scores of the counted runs; a row of which none counts has one, undefined."""
    metric = BY_NAME[task].metric
    of_row = counted(runs, task)
    return [run.metrics["best"][split][task][metric] for run in of_row] or [float("nan")]


def _cell(line: dict, name: str) -> Cell:
    ours, low, high = (line[f"{name}_{part}"] for part in ("ours", "low", "high"))
    spread = "" if np.isnan(low) else f"± {(high - low) / 2:.3f}"
    return in_words(line[f"{name}_paper"]), in_words(ours), spread


# --- Figures 3 and 4: scores by row ------------------------------------------------------------

SPLITS = {"train": "Training set", "dev": "Development set"}
SCORES = [f"{split}_{task}" for split in SPLITS for task in TASK_ORDER]


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
    by_row = _select(number, runs, list(names))
    used = [run for row_runs in by_row.values() for run in row_runs]
    records = [_score_line(row, name, by_row.get(row, [])) for row, name in names.items()]
    floors = [*_alone_lines(runs, used[0]), *_floor_lines(used[0])]
    picture = draw_table(
        f"Figure {number}. {title}",
        _stamp(used),
        {split: ["Paraphrase", "Sentiment", "Similarity (r)"] for split in SPLITS.values()},
        [_score_cells(line) for line in [*records, *floors]],
        strong=strong,
        names=2.9,
    )
    words = ["Paraphrase and sentiment: accuracy; similarity: Pearson's r; ours at the best epoch."]
    if sample := used[0].config["train_sample"]:
        words.append(f"Training scores on a fixed sample of {sample:,} examples a task.")
    if len(used) > len(by_row):
        words.append(SEEDS)
    words.append(_sampling_words(used[0]))
    words += _below_floors(records, by_row)
    if missing := missing_rows(used, names):
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
    return Figure(
        number,
        _signed(pd.DataFrame([*records, *floors]), used),
        picture,
        _caption(number, f"{title}: the paper's number beside ours.", used, *words),
        f"Table of {len(names)} rows, {len(by_row)} of them run. Development scores for "
        f"paraphrase, sentiment, similarity: {alt}.",
    )


def _score_line(row: str, name: str, runs: Sequence[Run]) -> dict:
    line = {"row": row, "name": name, "seeds": " ".join(str(run.config["seed"]) for run in runs)}
    for split in SPLITS:
        for task in TASK_ORDER:
            column = f"{split}_{task}"
            line[f"{column}_paper"] = PAPER_SCORES[column].get(row, np.nan)
            line |= _over_seeds(column, _scores(runs, split, task))
    line["not_trained"] = " ".join(str(r.config["seed"]) for r in runs if untrained_tasks(r))
    line["gate"] = held_words(runs)
    for task in TASK_ORDER:
        found = [str(r.config["seed"]) for r in runs if task in one_answer_tasks(r)]
        line[f"{task}_one_answer"] = " ".join(found)
    return line


def _score_cells(line: dict) -> tuple[str, str, list[Cell]]:
    """Id, name and cells of a line of the table; the frozen control has no id of the paper's."""
    if line["row"] == ALONE_ROW or line["row"] in FLOOR_NAMES:
        blank = [_cell(line, column) for column in SCORES]
        return "", line["name"], [("", "" if ours == "–" else ours, "") for _, ours, _ in blank]
    key = line["row"] if line["row"] in PAPER_SCORES.index else ""
    cells = []
    for column in SCORES:
        paper, ours, spread = _cell(line, column)
        one = len(line[f"{column.split('_')[1]}_one_answer"].split())
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
    """What each task reaches alone (`rows_module.ALONE`), in a line: on the corpora and from the
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
    for split in SPLITS:
        for task in TASK_ORDER:
            of_task = [run for run in group if run.config["row"] == f"{task}-alone"]
            line[f"{split}_{task}_paper"] = np.nan
            line |= _over_seeds(f"{split}_{task}", _scores(of_task, split, task))
    return [line]


FLOOR_NAMES = {
    "words-comparing": "words alone, compared",
    "words-additive": "words alone, as additive heads see them",
    "constant": "the most frequent label",
}


def _floor_lines(run: Run) -> list[dict]:
    """What words alone reach on the development sets of a run's corpora, and a constant answer;
    none where it is not stored."""
    corpus, lines = run.provenance["corpus"], []
    floors = read_floors(corpus["name"], corpus["fingerprint"])
    for row, name in FLOOR_NAMES.items() if floors else ():
        line = {"row": row, "name": name, "seeds": ""}
        line |= {f"{c}_{part}": np.nan for c in SCORES for part in ("paper", "ours", "low", "high")}
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


# --- Figures 5 to 8: accuracy by true label ----------------------------------------------------


def _by_label(number: int, runs: Sequence[Run]) -> tuple[pd.DataFrame, list[Run], list[str]]:
    """Accuracy by true label of the final model, beside the paper's.

    Returns:
        One line per task, label and seed; the runs behind it; words for the caption.
    """
    row, used = next(iter(_with_final(number, runs).items()))
    reports = [
        per_class_report(BY_NAME[task], run.predictions[task], run.labels[task]).assign(task=task)
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
        for label, accuracy in enumerate(_floor_of(used[0], task).get("by_label", ()))
    ]
    floors = pd.DataFrame(floors, columns=["task", "label", "words"])
    return by_label.merge(floors, on=["task", "label"], how="left"), used, words


def _floor_of(run: Run, task: str) -> dict:
    """What words alone reach on a task with heads of the run's kind; empty if not stored."""
    corpus = run.provenance["corpus"]
    floors = read_floors(corpus["name"], corpus["fingerprint"])
    return floors["tasks"][task][floor_kind(run.config["heads"][task])] if floors else {}


PER_LABEL = ("accuracy", "share")


def _label_table(by_label: pd.DataFrame) -> pd.DataFrame:
    """One line per task and label: accuracy over seeds, share and number of examples."""
    lines = []
    for (task, label), group in by_label.groupby(["task", "label"], sort=False):
        first = group.iloc[0]  # all seeds share one development set
        line = {"task": task, "label": label, "accuracy_paper": first["accuracy_paper"]}
        line |= _over_seeds("accuracy", group["accuracy"])
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
        return [_cell(line, "accuracy"), shares]

    title = "Development accuracy by true label"
    picture = draw_table(
        f"Figure 5. {title}",
        _stamp(used),
        {BY_NAME[task].title: ["Accuracy", "Share of values"] for task in TASK_ORDER},
        [
            (str(label), "", [cell for task in TASK_ORDER for cell in cells(task, label)])
            for label in sorted(set(table["label"]))
        ],
    )
    return Figure(
        5,
        _signed(table, used),
        picture,
        _caption(5, f"{title}: the paper's number beside ours.", used, *words, ROUNDING),
        f"Table of accuracy by true label. {_label_alt(table)}",
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
    title = f"{BY_NAME[task].title}: development accuracy by true label"
    marks = "bars and numbers: ours; diamonds: the paper's; dashes: words alone, no network"
    if task == "similarity":
        words.append(ROUNDING)
    return Figure(
        number,
        _signed(table, used),
        draw_labels(f"Figure {number}. {title}", _stamp(used), table, by_label, held_words(used)),
        _caption(number, f"{title}; {marks}.", used, *words, tasks=[task]),
        f"Bar chart of accuracy by true label. {_label_alt(table)}",
    )


# --- Figure 9: from baseline to final ----------------------------------------------------------


def figure_9(runs: Sequence[Run]) -> Figure:
    """Figure 9 (appendix B): development scores of the baseline and of the final model, by task.

    The paper's numbers beside ours are those of the same two rows.

    Raises:
        RunError: if no study has both the baseline and the final model.
    """
    by_row = _with_final(9, runs, BASELINE)
    final = next(row for row in by_row if row != BASELINE)
    used = [run for row_runs in by_row.values() for run in row_runs]
    records, bars = [], []
    for task in TASK_ORDER:
        line = {"task": task, "metric": BY_NAME[task].metric}
        for name, row in (("baseline", BASELINE), ("final", final)):
            scores = _scores(by_row[row], "dev", task)
            published = PAPER_SCORES.loc[row, f"dev_{task}"]
            line |= {f"{name}_row": row, f"{name}_paper": published} | _over_seeds(name, scores)
            bars += [(task, f"paper, {name}", published)]
            if np.isfinite(scores).all():  # else the mean is undefined, and has no bar
                bars += [(task, f"ours, {name}", score) for score in scores]
        floor = _floor_of(by_row[final][0], task)
        line["words"] = floor["dev"][BY_NAME[task].metric] if floor else np.nan
        for source in ("paper", "ours"):
            line[f"improvement_{source}"] = line[f"final_{source}"] - line[f"baseline_{source}"]
        records.append(line)
    words = [
        f"Baseline: row {BASELINE}, {seeds_in_words(by_row[BASELINE])}; final: row {final}, "
        f"{seeds_in_words(by_row[final])}; the paper's: the same rows.",
        _sampling_words(by_row[final][0]),
    ]
    if final != FINAL_ROWS[0]:
        words.append(f"Row {FINAL_ROWS[0]}, which the paper's figure shows, was not run.")
    if len(used) > len(by_row):
        words.append(SEEDS)
    alt = "; ".join(
        f"{BY_NAME[line['task']].title}, {SCORE_NAMES[line['metric']]}: "
        + ", ".join(
            " ".join([source, in_words(line["baseline_" + source])])
            + f" to {in_words(line['final_' + source])}"
            for source in ("ours", "paper")
        )
        for line in records
    )
    title = "Improvement from the baseline to the final model"
    table = pd.DataFrame(records)
    bars = pd.DataFrame(bars, columns=["task", "model", "score"])
    return Figure(
        9,
        _signed(table, used),
        draw_improvement(
            f"Figure 9. {title}",
            _stamp(used),
            table,
            bars,
            {
                f"ours, {name}": held_words(by_row[row])
                for name, row in (("baseline", BASELINE), ("final", final))
            },
        ),
        _caption(
            9,
            f"{title}: development scores at the best epoch; dashes: words alone, no network.",
            used,
            *words,
        ),
        f"Bar chart of development scores, baseline and final model. {alt}.",
    )


# --- Figure 2: the architecture ----------------------------------------------------------------

LOSSES = {"classes": "cross-entropy", "binary": "binary cross-entropy", "score": "squared error"}
COMBINATIONS = {
    "pcgrad": "gradient surgery combines one gradient per task",
    "pcgrad-fixed": "gradient surgery, in a fixed order, combines one gradient per task",
    "sum": "the gradients of the tasks are summed",
}
NORMS = {1.0: "L1", 2.0: "L2", float("inf"): "L∞"}


def figure_2(source: MultitaskModel | ExperimentConfig | Sequence[Run]) -> Figure:
    """Figure 2 (section 5.3): the architecture, from the shared encoder up to the heads.

    Dropout rates, layers and activations are read from the heads' own modules, everything about
    losses from the configuration; a model alone does not know its penalty, so it shows none.

    Args:
        source: a model, a configuration, or runs, of which the final model is drawn.

    Raises:
        RunError: if runs are passed and none is of the final model.
    """
    if isinstance(source, MultitaskModel):
        settings = source.encoder.config
        heads, width = dict(source.heads.items()), settings.hidden_size
        encoder = f"{settings.num_hidden_layers} layers, H = {width}"
        losses, combination, title = {}, "", "The architecture of a model"
    else:
        config = source if isinstance(source, ExperimentConfig) else _final_config(source)
        width = 1  # counts the heads' widths in units of H
        heads = {name: Head(BY_NAME[name], width, head) for name, head in config.heads.items()}
        encoder = Path(config.encoder).name
        combination = "frozen" if config.frozen else COMBINATIONS[config.weighting]
        losses, title = _extra_losses(config), f"The architecture of row {config.row}"
        if config.row in FINAL_ROWS:
            title = f"The final architecture (row {config.row})"
    losses = {name: _loss(name, losses) for name in heads}
    inputs = {name: _input(head) for name, head in heads.items()}
    stacks = {name: _layers(heads[name], width) for name in sorted(heads, key=_place)}
    records = [
        {"task": name, "position": position, "kind": kind, "layer": words}
        for name, stack in stacks.items()
        for position, (kind, words) in enumerate(stack, start=1)
    ]
    alt = "; ".join(
        f"{BY_NAME[name].title}: {', '.join(words for _, words in stack)}, "
        f"{losses[name].replace(chr(10), ' ')}"
        for name, stack in stacks.items()
    )
    return Figure(
        2,
        pd.DataFrame(records),
        draw_architecture(f"Figure 2. {title}", stacks, inputs, losses, encoder, combination),
        f"Figure 2. {title}, drawn from its own configuration; encoder {encoder}. H: the encoder's "
        "width; u, v: the pooler's outputs for the first and the second sentence.",
        f"Diagram of {len(stacks)} heads on one shared BERT encoder ({encoder}). {alt}.",
    )


def _place(name: str) -> int:
    return TASK_ORDER.index(name) if name in TASK_ORDER else len(TASK_ORDER)


def _final_config(runs: Sequence[Run]) -> ExperimentConfig:
    """The configuration of the final model's stored runs."""
    (used,) = _with_final(2, runs).values()
    stored = used[0].config
    heads = {name: HeadConfig(**head) for name, head in stored["heads"].items()}
    penalty = None if stored["penalty"] is None else float(stored["penalty"])
    return ExperimentConfig(**stored | {"heads": heads, "penalty": penalty})


def _extra_losses(config: ExperimentConfig) -> dict[str, str]:
    """What a configuration adds to the losses of its tasks, in words."""
    words = {}
    if config.penalty is not None:
        norm = NORMS.get(config.penalty, f"L{config.penalty:g}")
        words["similarity"] = f"+ {config.penalty_strength:g} × {norm} norm of its weights"
    if config.smoothness:
        words["sentiment"] = f"+ {config.smoothness:g} × SMART"
    elif config.class_weights:
        words["sentiment"] = "weighted by class"
    return words


def _loss(name: str, extra: dict[str, str]) -> str:
    return "\n".join([LOSSES[BY_NAME[name].kind], *([extra[name]] if name in extra else [])])


def _input(head: Head) -> str:
    return FEATURES[head.config.features] if head.task.sentences == 2 else "u"


def _layers(head: Head, width: int) -> Stack:
    """The modules of a head in words; `width` is what its own widths are counted in."""
    layers = []
    for depth, (dropout, linear) in enumerate(zip(head.dropouts, head.linears, strict=True)):
        if depth > 0:
            layers.append(("activation", type(head.activation).__name__))
        times = linear.in_features // width
        inputs = "1" if head.config.features == "cosine" else f"{times if times > 1 else ''}H"
        outputs = linear.out_features if linear is head.linears[-1] else "H"
        layers.append(("dropout", f"dropout {dropout.p:g}"))
        layers.append(("linear", f"linear {inputs} → {outputs}"))
    return layers


# --- all of them -------------------------------------------------------------------------------

_DRAWN = (figure_2, figure_3, figure_4, figure_5, figure_6, figure_7, figure_8, figure_9)
ALL: dict[int, Callable[[Sequence[Run]], Figure]] = dict(enumerate(_DRAWN, start=2))


def folder(profile: str) -> Path:
    """Where a profile's figures go: figures/ for the committed study, else figures/PROFILE/."""
    return FIGURES if profile == "stored" else FIGURES / profile


def save_all(runs: Iterable[Run], directory: str | Path) -> list[Path]:
    """Draw every figure, each from one study, and write them to a folder.

    A figure that no study can draw is left out, with a word in the log, and a file of it from an
    earlier call is removed: it would show other runs.

    Returns:
        The paths of what was written.

    Raises:
        RunError: if not a single figure can be drawn.
    """
    runs, paths = list(runs), []
    for number, draw in ALL.items():
        try:
            paths += draw(runs).save(directory)
        except RunError as error:
            log.warning("left out: %s", error)
            for suffix in (".csv", ".png"):
                (Path(directory) / f"figure_{number}{suffix}").unlink(missing_ok=True)
    if not paths:
        raise RunError(f"{directory}: no figure can be drawn from {len(runs)} runs")
    return paths
