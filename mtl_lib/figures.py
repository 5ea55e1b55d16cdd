"""Figures 2-9 of the paper, redrawn from stored runs: table, picture and caption of one origin.

Every figure holds its numbers as a table and a picture drawn from that table, and its caption says
which runs stand behind it. Columns follow the paper: paraphrase, sentiment, similarity. Scores are
those of the best epoch (our reading: the highest mean of the three development metrics). Where a
row has several seeds, its number is their mean, and the range runs from lowest to highest.
"""

import io
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch, Patch, Rectangle

from mtl_lib.errors import RunError
from mtl_lib.evaluation import per_class_report
from mtl_lib.experiments import FROZEN, ExperimentConfig
from mtl_lib.model import Head, HeadConfig, MultitaskModel
from mtl_lib.paper import (
    BASELINE,
    FINAL_ROWS,
    PAPER_FIGURE_3,
    PAPER_FIGURE_4,
    PAPER_FIGURE_5,
    PAPER_SCORES,
    TASK_ORDER,
)
from mtl_lib.paths import FIGURES
from mtl_lib.results import Run
from mtl_lib.tasks import BY_NAME

log = logging.getLogger(__name__)

# Blue and orange stay apart for colour-blind readers; a baseline has the light shade of each.
OURS, OURS_LIGHT = "#0173B2", "#9CCBE8"
PAPER, PAPER_LIGHT = "#C26A00", "#F3C99A"
INK, FAINT, TINT = "#222222", "#6B6B6B", "#EAF3FA"
DPI = 120
# Matplotlib's own defaults, whatever the caller has set: the same picture everywhere.
plain = style.context("default")

SCORE_NAMES = {"accuracy": "accuracy", "pearson": "Pearson's r"}
LABEL_NAMES = {
    "paraphrase": ["different", "paraphrase"],
    "sentiment": ["negative", "somewhat\nnegative", "neutral", "somewhat\npositive", "positive"],
    "similarity": ["unrelated", "", "", "", "", "equivalent"],
}
ROUNDING = "Similarity, true and predicted, is rounded half to even and clipped to 0-5."
SPREAD = "Several seeds: mean, and from lowest to highest."


@dataclass(frozen=True)
class Figure:
    """One figure of the paper, redrawn.

    Attributes:
        number: its number in the paper.
        table: every number shown, and the profile, encoder and corpora behind them.
        picture: drawn from the table.
        caption: what is shown, and which runs stand behind it.
        alt: alternative text, written from the table.
    """

    number: int
    table: pd.DataFrame
    picture: Picture
    caption: str
    alt: str

    @plain
    def png(self) -> bytes:
        """The picture as PNG; the same runs give the same bytes (no date, no software name)."""
        buffer = io.BytesIO()
        metadata = {"Software": None, "Description": self.caption}
        self.picture.savefig(buffer, format="png", dpi=DPI, metadata=metadata)
        return buffer.getvalue()

    def save(self, directory: str | Path) -> list[Path]:
        """Write figure_N.csv and figure_N.png to a folder and return their paths."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        csv = self.table.to_csv(index=False, float_format="%.6f", lineterminator="\n")
        paths = []
        for suffix, content in ((".csv", csv.encode()), (".png", self.png())):
            path = directory / f"figure_{self.number}{suffix}"
            unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
            unfinished.write_bytes(content)
            os.replace(unfinished, path)
            paths.append(path)
        return paths

    def _ipython_display_(self) -> None:
        """In a notebook: the picture with its alternative text, and the caption below it."""
        from IPython.display import Image, Markdown, display

        display(Image(data=self.png(), alt=self.alt), Markdown(f"*{self.caption}*"))


# --- which runs stand behind a figure ----------------------------------------------------------


def studies(runs: Iterable[Run]) -> list[list[Run]]:
    """Groups of runs that may stand in one figure: same profile, encoder, corpora and protocol.

    Returns:
        The groups, best first: by profile (full, laptop, quick, others), then by the number of
        steps, then by the number of runs.
    """
    groups: dict[tuple, list[Run]] = {}
    for run in runs:
        groups.setdefault(_study(run), []).append(run)
    return sorted(groups.values(), key=_rank)


def _study(run: Run) -> tuple[str, ...]:
    config, corpus = run.config, run.provenance["corpus"]
    protocol = ("epochs", "max_steps", "max_length", "train_sample", "lr_factor")
    return (
        config["profile"],
        Path(config["encoder"]).name,
        corpus["name"],
        *(f"{name} {config[name]}" for name in protocol),
        corpus["fingerprint"],
        run.provenance["encoder"]["sha256"],
        f"version {run.provenance['study_version']}",
    )


def _rank(group: list[Run]) -> tuple:
    profiles = ["full", "laptop", "quick"]
    profile = group[0].config["profile"]
    place = profiles.index(profile) if profile in profiles else len(profiles)
    steps = max(run.provenance["steps"] for run in group)
    return (place, -steps, -len(group), _study(group[0]))


def _select(number: int, runs: Iterable[Run], rows: Sequence[str]) -> dict[str, list[Run]]:
    """The runs of the given rows, by row and in the rows' order; a row without a run is left out.

    Raises:
        RunError: if there is none, if they are of more than one study, or one is there twice.
    """
    fitting = [run for run in runs if run.config["row"] in rows]
    if not fitting:
        raise RunError(
            f"Figure {number}: no run of row {', '.join(rows)}; train one, for instance with "
            f"`make reproduce ROWS={rows[0]}`"
        )
    groups = studies(fitting)
    if len(groups) > 1:
        names = "; ".join(", ".join(_study(group[0])) for group in groups)
        raise RunError(
            f"Figure {number}: runs of {len(groups)} different studies ({names}); "
            "draw one of them, for instance studies(runs)[0]"
        )
    chosen = {row: [run for run in fitting if run.config["row"] == row] for row in rows}
    for row, row_runs in chosen.items():
        seeds = [run.config["seed"] for run in row_runs]
        if len(set(seeds)) < len(seeds):
            raise RunError(f"Figure {number}: row {row} has two runs of one seed; give one of them")
    return {row: row_runs for row, row_runs in chosen.items() if row_runs}


def _final_runs(number: int, runs: Sequence[Run]) -> tuple[str, list[Run]]:
    """The final model: row 4.6 where it was run, else row 3.10; its row id and its runs."""
    there = {run.config["row"] for run in runs}
    rows = [row for row in FINAL_ROWS if row in there][:1] or FINAL_ROWS
    return next(iter(_select(number, runs, rows).items()))


def _seeds(runs: Iterable[Run]) -> str:
    seeds = sorted({run.config["seed"] for run in runs})
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def _facts(runs: Sequence[Run]) -> tuple[list[str], list[str]]:
    """What was trained on what, and for how long, in words."""
    config, corpus = runs[0].config, runs[0].provenance["corpus"]
    encoder = Path(config["encoder"]).name
    steps = sorted({run.provenance["steps"] for run in runs})
    length = " to ".join(f"{number:,}" for number in dict.fromkeys((steps[0], steps[-1])))
    what = [
        f"profile {config['profile']}",
        f"encoder {encoder}" + (" (from random weights)" if encoder == "tiny" else ""),
        f"corpora {corpus['name']}",
    ]
    how_long = [
        f"{length} steps in {'at most ' if config['max_steps'] else ''}{config['epochs']} "
        f"epoch{'s' if config['epochs'] > 1 else ''}",
        _seeds(runs),
        f"learning rates × {config['lr_factor']:g}",
    ]
    return what, how_long


def _as_published(run: Run) -> bool:
    config = run.config
    return config["profile"] == "full" and not config["max_steps"] and config["lr_factor"] == 1


def _caption(number: int, title: str, runs: Sequence[Run], *words: str) -> str:
    """Title, what to know, and which runs stand behind the figure."""
    what, how_long = _facts(runs)
    sentences = [f"Figure {number}. {title}", *words, f"Runs: {'; '.join(what + how_long)}."]
    if not _as_published(runs[0]):
        sentences.append("A shortened study, not the paper's protocol.")
    notes = runs[0].provenance["corpus"]["notes"]
    return " ".join(sentences + [f"Corpora: {note.rstrip('.')}." for note in notes])


def _stamp(runs: Sequence[Run]) -> str:
    """The same inside the picture, so that it never passes for another study's; three lines."""
    what, how_long = _facts(runs)
    kind = "The paper's protocol" if _as_published(runs[0]) else "A shortened study"
    changed = runs[0].provenance["corpus"]["notes"]
    note = "Not all corpus files are the originals: see the caption." if changed else ""
    return f"{kind}: {' · '.join(what)}\n{' · '.join(how_long)}\n{note}"


def _signed(table: pd.DataFrame, runs: Sequence[Run]) -> pd.DataFrame:
    """The table with profile, encoder and corpora in every line: a CSV file travels alone."""
    return table.assign(
        profile=runs[0].config["profile"],
        encoder=Path(runs[0].config["encoder"]).name,
        corpora=runs[0].provenance["corpus"]["name"],
    )


def _over_seeds(name: str, values: Sequence[float]) -> dict[str, float]:
    """Mean, lowest and highest; one undefined value (NaN) makes all three undefined."""
    return {
        f"{name}_ours": float(np.mean(values)),
        f"{name}_min": float(np.min(values)),
        f"{name}_max": float(np.max(values)),
    }


def _scores(runs: Sequence[Run], split: str, task: str) -> list[float]:
    metric = BY_NAME[task].metric
    return [run.metrics["best"][split][task][metric] for run in runs]


def _number(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.3f}"


# --- tables: the paper's number beside ours ----------------------------------------------------

Cell = tuple[str, str, str]  # the paper's number, ours, and the range of ours over seeds
NOT_RUN, UNDEFINED = "not run", "undefined"


def _cell(line: dict, name: str) -> Cell:
    ours, low, high = (line[f"{name}_{part}"] for part in ("ours", "min", "max"))
    spread = f"{low:.3f} to {high:.3f}" if low < high else ""
    return _number(line[f"{name}_paper"]), _number(ours), spread


@plain
def _draw_table(
    title: str,
    stamp: str,
    groups: dict[str, list[str]],
    lines: list[tuple[str, str, list[Cell]]],
    strong: str = "",
    names: float = 0.0,
) -> Picture:
    """A table with two numbers in every cell; all sizes in inches, y runs down.

    Args:
        groups: titles of the groups of columns, and of the columns in each.
        lines: id, name, and a cell for each column.
        strong: id of the line set in bold.
        names: width of the names.
    """
    line_height, paper, both, gap, top = 0.36, 0.52, 1.3, 0.14, 1.3
    left, lefts, spans = 0.6 + names, [], []
    for columns in groups.values():
        left += gap
        lefts += [left + n * both for n in range(len(columns))]
        spans.append((left, left := left + len(columns) * both))
    right, bottom = left, top + line_height * len(lines)
    width, height = right + 0.15, bottom + 0.55
    picture = Picture(figsize=(width, height), facecolor="white")
    ax = picture.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    ax.axis("off")

    def write(x: float, y: float, words: str, **options) -> None:
        plain_text = {"size": 9, "color": INK, "va": "center", "ha": "center"}
        ax.text(x, y, words, **plain_text | options)

    def rule(y: float, start: float, end: float, width: float = 0.8) -> None:
        ax.plot([start, end], [y, y], color=FAINT, lw=width)

    write(0.12, 0.22, title, size=11.5, weight="bold", ha="left")
    write(0.12, bottom + 0.1, stamp, ha="left", va="top", size=8, color=FAINT)
    for group, (start, end) in zip(groups, spans, strict=True):
        write((start + end) / 2, 0.58, group, weight="bold", size=10)
        rule(0.7, start + 0.05, end - 0.05)
    columns = [column for group in groups.values() for column in group]
    for x, column in zip(lefts, columns, strict=True):
        ax.add_patch(Rectangle((x + paper, top), both - paper, bottom - top, color=TINT))
        write(x + both / 2, 0.86, column, size=9.5)
        write(x + paper / 2, 1.14, "paper", color=PAPER)
        write(x + (paper + both) / 2, 1.14, "ours", color=OURS, weight="bold")
    for n, (key, name, cells) in enumerate(lines):
        y = top + line_height * (n + 0.5)
        weight = "bold" if key == strong else "normal"
        rule(y - line_height / 2, 0.1, right, 0.25 if n else 0.8)
        write(0.12, y, key, ha="left", weight=weight)
        write(0.6, y, name, ha="left", weight=weight)
        for x, (published, ours, spread) in zip(lefts, cells, strict=True):
            middle = x + (paper + both) / 2
            write(x + paper / 2, y, published, color=PAPER)
            if ours in (NOT_RUN, UNDEFINED):
                write(middle, y, ours, size=8, style="italic", color=FAINT)
            else:
                write(middle, y - (0.06 if spread else 0), ours, weight=weight)
                write(middle, y + 0.09, spread, size=6.5, color=FAINT)
    rule(bottom, 0.1, right)
    return picture


# --- Figures 3 and 4: scores by row ------------------------------------------------------------

SPLITS = {"train": "Training set", "dev": "Development set"}
SCORES = [f"{split}_{task}" for split in SPLITS for task in TASK_ORDER]


def figure_3(runs: Sequence[Run]) -> Figure:
    """Figure 3 (section 5.4): training and development scores of ten architectures.

    Below the paper's rows stands the frozen control, which the paper does not have.

    Raises:
        RunError: if none of these rows was run, or the runs are of more than one study.
    """
    names = PAPER_FIGURE_3["name"].to_dict() | {row: c.name for row, c in FROZEN.items()}
    return _score_figure(3, "Scores by architecture", names, "3.10", runs)


def figure_4(runs: Sequence[Run]) -> Figure:
    """Figure 4 (section 5.4): scores of the final architecture by hyperparameters.

    Raises:
        RunError: if none of these rows was run, or the runs are of more than one study.
    """
    title = "Scores of the final architecture by hyperparameters"
    return _score_figure(4, title, PAPER_FIGURE_4["name"].to_dict(), "4.6", runs)


def _score_figure(
    number: int, title: str, names: dict[str, str], strong: str, runs: Sequence[Run]
) -> Figure:
    by_row = _select(number, runs, list(names))
    used = [run for row_runs in by_row.values() for run in row_runs]
    records = [_score_line(row, name, by_row.get(row, [])) for row, name in names.items()]
    picture = _draw_table(
        f"Figure {number}. {title}",
        _stamp(used),
        {split: ["Paraphrase", "Sentiment", "Similarity (r)"] for split in SPLITS.values()},
        [_score_cells(line) for line in records],
        strong=strong,
        names=2.3,
    )
    words = ["Paraphrase and sentiment: accuracy; similarity: Pearson's r; ours at the best epoch."]
    if sample := used[0].config["train_sample"]:
        words.append(f"Training scores on a fixed sample of {sample:,} examples a task.")
    if len(used) > len(by_row):
        words.append(SPREAD)
    if missing := [row for row in names if row not in by_row]:
        words.append(f"Not run: {', '.join(missing)}.")
    alt = "; ".join(
        f"{line['name']} "
        + ", ".join(
            f"{_number(line[f'dev_{task}_ours'])} (paper {_number(line[f'dev_{task}_paper'])})"
            for task in TASK_ORDER
        )
        for line in records
        if line["seeds"]
    )
    return Figure(
        number,
        _signed(pd.DataFrame(records), used),
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
            line |= _over_seeds(column, _scores(runs, split, task) or [np.nan])
    return line


def _score_cells(line: dict) -> tuple[str, str, list[Cell]]:
    """Id, name and cells of a line of the table; the frozen control has no id of the paper's."""
    key = line["row"] if line["row"] in PAPER_SCORES.index else ""
    cells = [_cell(line, column) for column in SCORES]
    missing = UNDEFINED if line["seeds"] else NOT_RUN  # a correlation of constants is undefined
    return key, line["name"], [(a, missing if b == "–" else b, c) for a, b, c in cells]


# --- Figures 5 to 8: accuracy by true label ----------------------------------------------------


def _by_label(number: int, runs: Sequence[Run]) -> tuple[pd.DataFrame, list[Run], list[str]]:
    """Accuracy by true label of the final model, beside the paper's.

    Returns:
        One line per task, label and seed; the runs behind it; words for the caption.
    """
    row, used = _final_runs(number, runs)
    reports = [
        per_class_report(BY_NAME[task], run.predictions[task], run.labels[task]).assign(task=task)
        for task in TASK_ORDER
        for run in used
    ]
    published = PAPER_FIGURE_5.rename(columns=lambda c: f"{c}_paper" if c in PER_LABEL else c)
    words = [f"Ours: the final architecture, row {row}."]
    if row != FINAL_ROWS[0]:
        words = [f"Ours: row {row}, the final architecture before tuning; the paper's: row 4.6."]
    if len(used) > 1:
        words.append(SPREAD)
    return pd.concat(reports).merge(published, on=["task", "label"]), used, words


PER_LABEL = ("accuracy", "share")


def _label_table(by_label: pd.DataFrame) -> pd.DataFrame:
    """One line per task and label: accuracy over seeds, share and number of examples."""
    lines = []
    for (task, label), group in by_label.groupby(["task", "label"], sort=False):
        first = group.iloc[0]  # all seeds share one development set
        line = {"task": task, "label": label, "accuracy_paper": first["accuracy_paper"]}
        line |= _over_seeds("accuracy", group["accuracy"])
        line |= {"share_paper": first["share_paper"], "share_ours": first["share"]}
        lines.append(line | {"count": first["count"]})
    return pd.DataFrame(lines)


def _label_alt(table: pd.DataFrame) -> str:
    sentences = []
    for task, lines in table.groupby("task", sort=False):
        words = ", ".join(
            f"label {line['label']} {_number(line['accuracy_ours'])} on {line['share_ours']:.1%} "
            f"of values (paper {_number(line['accuracy_paper'])})"
            for line in lines.to_dict("records")
        )
        sentences.append(f"{BY_NAME[task].title}: {words}.")
    return " ".join(sentences)


def figure_5(runs: Sequence[Run]) -> Figure:
    """Figure 5 (section 5.4): development accuracy of the final model by true label, a table.

    Raises:
        RunError: if the final model was not run, or the runs are of more than one study.
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
    picture = _draw_table(
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
    if task == "similarity":
        words.append(ROUNDING)
    return Figure(
        number,
        _signed(table, used),
        _draw_labels(f"Figure {number}. {title}", _stamp(used), table, by_label),
        _caption(number, f"{title}; diamonds: the paper's.", used, *words),
        f"Bar chart of accuracy by true label. {_label_alt(table)}",
    )


@plain
def _draw_labels(title: str, stamp: str, table: pd.DataFrame, by_label: pd.DataFrame) -> Picture:
    picture, ax = _chart(title, stamp, bottom=0.31)
    sns.barplot(by_label, x="label", y="accuracy", color=OURS, width=0.6, **BARS, ax=ax)
    published = table["accuracy_paper"]
    ax.plot(range(len(table)), published, "D", color=PAPER, mec="white", ms=10, zorder=5)
    names = []
    for place, line in enumerate(table.to_dict("records")):
        names.append(
            f"{line['label']}\n{line['share_ours']:.1%}\n{LABEL_NAMES[line['task']][place]}"
        )
        top, mark = np.nan_to_num(line["accuracy_max"]), line["accuracy_paper"]
        if -0.03 < mark - top < 0.09:  # above the paper's diamond, where that is in the way
            top = mark + 0.02
        empty = np.isnan(line["accuracy_ours"])
        words = "no examples" if empty else _number(line["accuracy_ours"])
        ax.text(place, top + 0.015, words, ha="center", va="bottom", color=INK, zorder=6)
    ax.set_xticks(range(len(table)), names)
    ax.set(
        xlim=(-0.5, len(table) - 0.5),
        ylim=(0, 1.1),
        yticks=np.arange(0, 1.01, 0.2),
        ylabel="accuracy",
    )
    ax.set_xlabel("true label, and its share of the development set")
    marks = Line2D([], [], marker="D", color=PAPER, mec="white", ms=9, ls="", label="paper")
    _legend(picture, [Patch(color=OURS, label="ours"), marks])
    return picture


def _chart(title: str, stamp: str, bottom: float) -> tuple[Picture, Axes]:
    """An empty chart with title, stamp and grid; `bottom` is where its axis begins, from 0 to 1."""
    picture = Picture(figsize=(7.8, 4.8), facecolor="white")
    picture.text(0.015, 0.97, title, size=11.5, weight="bold", color=INK, va="top")
    picture.text(0.015, 0.095, stamp, size=8, color=FAINT, va="top")
    ax = picture.add_axes((0.085, bottom, 0.9, 0.85 - bottom), axisbelow=True)
    ax.grid(axis="y", color="#DDDDDD", lw=0.7)
    ax.tick_params(axis="x", length=0, pad=9)  # clear of a diamond at 0
    sns.despine(ax=ax)
    return picture, ax


def _legend(picture: Picture, handles: list) -> None:
    place = {"loc": "upper right", "bbox_to_anchor": (0.99, 0.93)}
    picture.legend(handles=handles, ncols=len(handles), frameon=False, **place)


def _lowest_to_highest(values: pd.Series) -> tuple[float, float]:
    return values.min(), values.max()


# Bars: the mean over seeds in the colour as given; lines from the lowest to the highest seed.
BARS = {
    "errorbar": _lowest_to_highest,
    "err_kws": {"color": INK, "linewidth": 1.3},
    "saturation": 1,
}


# --- Figure 9: from baseline to final ----------------------------------------------------------


def figure_9(runs: Sequence[Run]) -> Figure:
    """Figure 9 (appendix B): development scores of the baseline and of the final model, by task.

    The paper's numbers beside ours are those of the same two rows.

    Raises:
        RunError: if the baseline or the final model was not run, or the runs are of more than one
            study.
    """
    final, _ = _final_runs(9, runs)
    _select(9, runs, [BASELINE])
    by_row = _select(9, runs, [BASELINE, final])
    used = [run for row_runs in by_row.values() for run in row_runs]
    records, bars = [], []
    for task in TASK_ORDER:
        line = {"task": task, "metric": BY_NAME[task].metric}
        for name, row in (("baseline", BASELINE), ("final", final)):
            scores = _scores(by_row[row], "dev", task)
            published = PAPER_SCORES.loc[row, f"dev_{task}"]
            line |= {f"{name}_row": row, f"{name}_paper": published} | _over_seeds(name, scores)
            bars += [(task, f"paper, {name}", published)]
            bars += [(task, f"ours, {name}", score) for score in scores]
        for source in ("paper", "ours"):
            line[f"improvement_{source}"] = line[f"final_{source}"] - line[f"baseline_{source}"]
        records.append(line)
    words = [
        f"Baseline: row {BASELINE}, {_seeds(by_row[BASELINE])}; final: row {final}, "
        f"{_seeds(by_row[final])}; the paper's: the same rows."
    ]
    if final != FINAL_ROWS[0]:
        words.append(f"Row {FINAL_ROWS[0]}, which the paper's figure shows, was not run.")
    if len(used) > len(by_row):
        words.append(SPREAD)
    alt = "; ".join(
        f"{BY_NAME[line['task']].title}, {SCORE_NAMES[line['metric']]}: "
        + ", ".join(
            f"{source} {_number(line[f'baseline_{source}'])} to {_number(line[f'final_{source}'])}"
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
        _draw_improvement(f"Figure 9. {title}", _stamp(used), table, bars),
        _caption(9, f"{title}: development scores at the best epoch.", used, *words),
        f"Bar chart of development scores, baseline and final model. {alt}.",
    )


@plain
def _draw_improvement(title: str, stamp: str, table: pd.DataFrame, bars: pd.DataFrame) -> Picture:
    picture, ax = _chart(title, stamp, bottom=0.23)
    colours = {
        "paper, baseline": PAPER_LIGHT,
        "paper, final": PAPER,
        "ours, baseline": OURS_LIGHT,
        "ours, final": OURS,
    }
    options = {"hue": "model", "hue_order": list(colours), "palette": colours, "legend": False}
    sns.barplot(bars, x="task", y="score", gap=0.06, width=0.84, **options, **BARS, ax=ax)
    for place, line in enumerate(table.to_dict("records")):
        for source, centre in (("paper", place - 0.21), ("ours", place + 0.21)):
            for name, x in (("baseline", centre - 0.105), ("final", centre + 0.105)):
                colour = INK if name == "baseline" else "white"
                score = _number(line[f"{name}_{source}"])
                ax.text(x, 0.012, score, ha="center", va="bottom", size=8, color=colour)
            gain = line[f"improvement_{source}"]
            part = "max" if source == "ours" else "paper"
            top = np.nanmax([0.08, line[f"baseline_{part}"], line[f"final_{part}"]])
            words = UNDEFINED if np.isnan(gain) else f"{gain:+.3f}"
            style = {"ha": "center", "weight": "bold", "color": colours[f"{source}, final"]}
            ax.text(centre, top + 0.02, words, **style)
    names = [
        f"{BY_NAME[task].title}\n{SCORE_NAMES[metric]}"
        for task, metric in zip(table["task"], table["metric"], strict=True)
    ]
    ax.set_xticks(range(len(table)), names)
    lowest = np.nanmin([0, table["baseline_min"].min(), table["final_min"].min()])
    ax.set(ylim=(lowest * 1.1, 1.1), ylabel="score", xlabel="")
    ax.axhline(0, color=INK, lw=0.8)
    _legend(picture, [Patch(color=colour, label=name) for name, colour in colours.items()])
    return picture


# --- Figure 2: the architecture ----------------------------------------------------------------

LOSSES = {"classes": "cross-entropy", "binary": "binary cross-entropy", "score": "squared error"}
COMBINATIONS = {
    "pcgrad": "gradient surgery combines one gradient per task",
    "sum": "the gradients of the tasks are summed",
}
NORMS = {1.0: "L1", 2.0: "L2", float("inf"): "L∞"}
FILLS = {"dropout": "#F1F1F1", "linear": OURS_LIGHT, "activation": PAPER_LIGHT}

Stack = list[tuple[str, str]]  # kind and words of a head's modules, from its input to its output


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
    stacks = {name: _layers(heads[name], width) for name in sorted(heads, key=_place)}
    records = [
        {"task": name, "position": position, "kind": kind, "layer": words}
        for name, stack in stacks.items()
        for position, (kind, words) in enumerate(stack, start=1)
    ]
    alt = "; ".join(
        f"{BY_NAME[name].title}: {', '.join(words for _, words in stack)}, "
        f"{_loss(name, losses, ' ')}"
        for name, stack in stacks.items()
    )
    return Figure(
        2,
        pd.DataFrame(records),
        _draw_architecture(f"Figure 2. {title}", stacks, losses, encoder, combination),
        f"Figure 2. {title}, drawn from its own configuration; encoder {encoder}. H: the encoder's "
        "width; u, v: the pooler's outputs for the first and the second sentence.",
        f"Diagram of {len(stacks)} heads on one shared BERT encoder ({encoder}). {alt}.",
    )


def _place(name: str) -> int:
    return TASK_ORDER.index(name) if name in TASK_ORDER else len(TASK_ORDER)


def _final_config(runs: Sequence[Run]) -> ExperimentConfig:
    """The configuration of the final model's stored runs."""
    _, used = _final_runs(2, runs)
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


def _loss(name: str, extra: dict[str, str], separator: str) -> str:
    return separator.join([LOSSES[BY_NAME[name].kind], *([extra[name]] if name in extra else [])])


def _layers(head: Head, width: int) -> Stack:
    """The modules of a head in words; `width` is what its own widths are counted in."""
    layers = []
    for depth, (dropout, linear) in enumerate(zip(head.dropouts, head.linears, strict=True)):
        if depth > 0:
            layers.append(("activation", type(head.activation).__name__))
        inputs = linear.in_features // width
        outputs = linear.out_features if linear is head.linears[-1] else "H"
        layers.append(("dropout", f"dropout {dropout.p:g}"))
        layers.append(("linear", f"linear {inputs if inputs > 1 else ''}H → {outputs}"))
    return layers


@plain
def _draw_architecture(
    title: str, stacks: dict[str, Stack], losses: dict[str, str], encoder: str, combination: str
) -> Picture:
    """Boxes and arrows, sizes in inches: sentences below, losses on top."""
    column, step, tall = 2.7, 0.54, 0.36  # distance of the heads, of their layers; a layer's height
    first = 2.65  # height of the first layer's centre
    top = first + step * max(map(len, stacks.values())) + 0.15  # of the losses
    width, height = max(column * len(stacks), 5.4) + 0.3, top + 1.1
    picture = Picture(figsize=(width, height), facecolor="white")
    ax = picture.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height))
    ax.axis("off")

    def box(x: float, y: float, words: str, fill: str, wide: float = 2.1, tall: float = tall):
        corner, shape = (x - wide / 2, y - tall / 2), "round,pad=0,rounding_size=0.06"
        ax.add_patch(FancyBboxPatch(corner, wide, tall, shape, fc=fill, ec=INK, lw=0.9))
        ax.text(x, y, words, ha="center", va="center", size=9.5, color=INK, linespacing=1.4)

    def arrow(x: float, start: float, end: float, words: str = "") -> None:
        line = {"arrowstyle": "-|>", "color": INK, "shrinkA": 0, "shrinkB": 0}
        ax.annotate("", (x, end), (x, start), arrowprops=line)
        ax.text(x + 0.1, (start + end) / 2, words, va="center", size=9, color=FAINT)

    ax.text(0.15, height - 0.25, title, size=11.5, weight="bold", color=INK, va="center")
    words = f"BERT encoder and pooler, shared: {encoder}\n{combination}".strip()
    box(width / 2, 1.45, words, TINT, width - 0.6, 0.64)
    for n, (name, stack) in enumerate(stacks.items()):
        x, task = width / 2 + column * (n + 0.5 - len(stacks) / 2), BY_NAME[name]
        pair = task.sentences == 2
        box(x, 0.4, "two sentences, one by one" if pair else "one sentence", "white")
        arrow(x, 0.4 + tall / 2, 1.13)
        arrow(x, 1.77, first - tall / 2, "[u; v]" if pair else "u")
        for depth, (kind, layer) in enumerate(stack):
            y = first + step * depth
            box(x, y, layer, FILLS[kind])
            arrow(x, y + tall / 2, y + step - tall / 2 if depth + 1 < len(stack) else top - 0.25)
        box(x, top, _loss(name, losses, "\n"), "white", 2.5, 0.5)
        ax.text(x, top + 0.4, task.title, ha="center", va="center", size=10.5, weight="bold")
    return picture


# --- all of them -------------------------------------------------------------------------------

_DRAWN = (figure_2, figure_3, figure_4, figure_5, figure_6, figure_7, figure_8, figure_9)
ALL: dict[int, Callable[[Sequence[Run]], Figure]] = dict(enumerate(_DRAWN, start=2))


def folder(profile: str) -> Path:
    """Where a profile's figures go: figures/ for the committed study, else figures/PROFILE/."""
    return FIGURES if profile == "stored" else FIGURES / profile


def save_all(runs: Iterable[Run], directory: str | Path) -> list[Path]:
    """Draw every figure from the best study that can draw it, and write them to a folder.

    A figure that no study can draw is left out, with a word in the log, and a file of it from an
    earlier call is removed: it would show other runs.

    Returns:
        The paths of what was written.

    Raises:
        RunError: if not a single figure can be drawn.
    """
    groups, paths = studies(runs), []
    for number, draw in ALL.items():
        try:
            paths += _first_drawn(draw, groups).save(directory)
        except RunError as error:
            log.warning("left out: %s", error)
            for suffix in (".csv", ".png"):
                (Path(directory) / f"figure_{number}{suffix}").unlink(missing_ok=True)
    if not paths:
        raise RunError(f"{directory}: no figure can be drawn from {sum(map(len, groups))} runs")
    return paths


def _first_drawn(draw: Callable[[Sequence[Run]], Figure], groups: list[list[Run]]) -> Figure:
    for group in groups[:-1]:
        try:
            return draw(group)
        except RunError:
            continue  # the next best study may hold what this one lacks
    return draw(groups[-1] if groups else [])
