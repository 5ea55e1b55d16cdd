"""The pictures of the figures that are no tables: dots by seed, slopes, and bars by label.

Everything here draws what it is given. A mark keeps its meaning: a blue dot is one run of ours, an
orange diamond the paper's number, a black line a floor that needs no network. Dots are hollow where
a gate keeps the run from being read. Shapes differ, so that the pictures can be read in grey.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure as Picture
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from mtl_lib.study.drawing import (
    FAINT,
    INK,
    LABEL_NAMES,
    OURS,
    OURS_LIGHT,
    PAPER,
    SCORE_NAMES,
    in_words,
    plain,
)
from mtl_lib.tasks import BY_NAME

WORDS = {"color": INK, "lw": 1.1, "ls": (0, (4, 2)), "zorder": 4}  # a floor, as a dashed line
# The lines of `draw_scores`, by the row of its table that holds them.
LINES = {
    "alone": ("", {"color": OURS, "lw": 1.6, "ls": "-"}),  # named by the caller: any study's
    "words-comparing": (
        "words alone, compared",
        {"color": INK, "lw": 1.1, "ls": (0, (6, 1.5, 1, 1.5))},
    ),
    "words-additive": (
        "words alone, as additive heads see them",
        {"color": INK, "lw": 1.1, "ls": (0, (4, 2))},
    ),
    "constant": ("the most frequent label", {"color": INK, "lw": 1.1, "ls": (0, (1, 1.5))}),
}
DIAMOND = {"color": PAPER, "mec": "white", "ms": 9.5, "marker": "D", "ls": "", "zorder": 5}
LINK = {"color": "#9A9A9A", "lw": 1.2, "zorder": 3}
DOT = {"color": OURS, "ms": 6, "marker": "o", "ls": "", "zorder": 6}


@plain
def draw_scores(
    title: str,
    stamp: str,
    rows: Sequence[tuple[str, str]],
    dots: pd.DataFrame,
    published: Mapping[tuple[str, str], float],
    lines: Mapping[tuple[str, str], float],
    alone: str,
    strong: str,
) -> Picture:
    """Scores of rows: a panel a task, a dot a seed, the paper's diamond, floors as lines.

    Args:
        rows: id and name of each, from the top; in grey where it has no dot.
        dots: row, task, score, and whether it is `held` back by a gate.
        published: the paper's score by row and task.
        lines: the score of each of `LINES` by name and task; NaN where there is none.
        alone: what the line of the tasks alone is called, which may be another study's.
        strong: id of the row set in bold.
    """
    tasks = list(dict.fromkeys(task for _, task in lines))
    left, panel, gap, above, below, line = 2.75, 2.45, 0.22, 1.35, 1.05, 0.3
    width = left + len(tasks) * (panel + gap) + 0.1
    height = above + below + line * len(rows)
    picture = Picture(figsize=(width, height), facecolor="white")
    picture.text(0.12 / width, 1 - 0.2 / height, title, size=11.5, weight="bold", va="top")
    picture.text(0.12 / width, 0.5 / height, stamp, size=8, color=FAINT, va="top")
    size = panel / width, line * len(rows) / height
    shown = set()
    for n, task in enumerate(tasks):
        ax = picture.add_axes(((left + n * (panel + gap)) / width, below / height, *size))
        one_floor = lines["words-comparing", task] == lines["words-additive", task]
        for name, (_, look) in LINES.items():
            if np.isfinite(lines[name, task]) and not (one_floor and name == "words-comparing"):
                shown.add(name)
                ax.axvline(lines[name, task], zorder=2, **look)
        of_task = dots[dots["task"] == task]
        for place, (row, _) in enumerate(rows):
            ax.axhline(place, color="#E4E4E4", lw=0.8, zorder=1)
            of_row = of_task[of_task["row"] == row]
            value = published.get((row, task), np.nan)
            ours = of_row["score"].to_numpy()
            read = ours[~of_row["held"].to_numpy(dtype=bool)]
            if np.isfinite(value) and len(read):
                ax.plot([value, read.mean()], [place, place], **LINK)
                shown.add("link")
            ax.plot(value, place, **DIAMOND)
            lower = place + 0.2 * np.isfinite(value)  # dots hide no diamond
            for score, held in zip(ours, of_row["held"], strict=True):
                ax.plot(score, lower, **DOT | _fill(held))
        ax.set(ylim=(len(rows) - 0.4, -0.6), yticks=[])
        ax.set_title(BY_NAME[task].title, size=10, weight="bold")
        both = " (both floors of words are equal)" if one_floor else ""
        ax.set_xlabel(SCORE_NAMES[BY_NAME[task].metric] + both, size=9)
        ax.tick_params(axis="x", labelsize=8.5)
        sns.despine(ax=ax, left=True)
        if not n:
            names = [f"{row}  {name}" if row[:1].isdigit() else name for row, name in rows]
            ax.set_yticks(range(len(rows)), names, size=9)
            ax.tick_params(axis="y", length=0)
            for label, (row, _) in zip(ax.get_yticklabels(), rows, strict=True):
                label.set_weight("bold" if row == strong else "normal")
                label.set_color("black" if row in set(dots["row"]) else FAINT)
    handles = [_mark("paper", **DIAMOND), _mark("ours, a dot a seed", **DOT)]
    if "link" in shown:
        handles.append(_mark("from the paper to our mean", **LINK))
    if dots["held"].any():
        handles.append(_mark("not to be read: not trained, or one answer", **DOT | _fill(True)))
    labels = {name: label for name, (label, _) in LINES.items()} | {"alone": alone}
    handles += [
        Line2D([], [], label=labels[name], **LINES[name][1]) for name in LINES if name in shown
    ]
    _legend(picture, handles, 0.995, 1 - 0.42 / height, ncols=3 if len(handles) > 4 else 4)
    return picture


@plain
def draw_slopes(title: str, stamp: str, table: pd.DataFrame, seeds: pd.DataFrame) -> Picture:
    """From the baseline to the final model: a panel a task, the paper's line and one of each seed.

    Args:
        table: a line a task: the paper's and our scores of both models, those of words alone with
            heads of their kind, and the gains.
        seeds: task, seed, baseline, final, and whether either is `held` back by a gate.
    """
    picture = Picture(figsize=(8.6, 4.5), facecolor="white")
    picture.text(0.015, 0.97, title, size=11.5, weight="bold", color=INK, va="top")
    picture.text(0.015, 0.1, stamp, size=8, color=FAINT, va="top")
    columns, floors = (
        [f"{name}_{what}" for name in ("baseline", "final")] for what in ("paper", "words")
    )
    reach = 0.0
    spans = {}
    for line in table.to_dict("records"):
        of_task = seeds[seeds["task"] == line["task"]]
        values = [*of_task["baseline"], *of_task["final"], *map(line.get, [*columns, *floors])]
        values = [value for value in values if np.isfinite(value)]
        spans[line["task"]] = (max(values) + min(values)) / 2
        reach = max(reach, max(values) - min(values))
    for n, line in enumerate(table.to_dict("records")):
        task = line["task"]
        ax = picture.add_axes((0.075 + n * 0.312, 0.22, 0.275, 0.5))
        for x, floor in enumerate(floors):
            if np.isfinite(line[floor]):
                ax.plot([x - 0.2, x + 0.2], [line[floor]] * 2, **WORDS)
        ax.plot([0, 1], [line[name] for name in columns], **DIAMOND | {"ls": "-", "lw": 2})
        of_task = seeds[seeds["task"] == task]
        for one in of_task.to_dict("records"):
            ends = [one["baseline"], one["final"]]
            hollow = one["baseline_held"] or one["final_held"]
            ax.plot([0, 1], ends, color=OURS, lw=1.2, ls=":" if hollow else "-", zorder=4)
            for x, end, held in zip(
                (0, 1), ends, (one["baseline_held"], one["final_held"]), strict=True
            ):
                ax.plot(x, end, **DOT | _fill(held))
        ax.set_xticks([0, 1], ["baseline", "final"], size=9.5)
        ax.set(xlim=(-0.25, 1.25))
        ax.set_ylim(spans[task] - 0.6 * reach, spans[task] + 0.6 * reach)
        ax.tick_params(axis="y", labelsize=8.5)
        ax.grid(axis="y", color="#E4E4E4", lw=0.7)
        ax.set_axisbelow(True)
        sns.despine(ax=ax)
        metric = SCORE_NAMES[line["metric"]]
        ax.set_title(f"{BY_NAME[task].title}, {metric}", size=10, weight="bold", pad=22)
        gains = {"ours": OURS, "paper": PAPER}
        for x, (source, colour) in zip((0.74, 0.02), gains.items(), strict=True):
            gain = line[f"improvement_{source}"]
            words = "–" if np.isnan(gain) else f"{gain:+.3f}"
            place = {"transform": ax.transAxes, "size": 9, "color": colour, "va": "bottom"}
            ax.text(x - 0.2 * (source == "ours"), 1.03, f"{source} {words}", **place)
    handles = [_mark("paper", **DIAMOND), _mark("ours, a line a seed", **DOT)]
    if seeds[["baseline_held", "final_held"]].any(axis=None):
        handles.append(_mark("not to be read: not trained, or one answer", **DOT | _fill(True)))
    _legend(picture, handles + _words_handle(table[floors]), 0.99, 0.92)
    return picture


@plain
def draw_shares(title: str, stamp: str, table: pd.DataFrame, held: str) -> Picture:
    """Accuracy of each label, from the rarest to the most frequent: a panel a task.

    Args:
        table: a line a task and label: share and accuracy, the paper's and the mean of ours.
        held: what the legend adds to the name of ours.
    """
    tasks = list(dict.fromkeys(table["task"]))
    picture = Picture(figsize=(8.6, 4.3), facecolor="white")
    picture.text(0.015, 0.97, title, size=11.5, weight="bold", color=INK, va="top")
    picture.text(0.015, 0.1, stamp, size=8, color=FAINT, va="top")
    for n, task in enumerate(tasks):
        ax = picture.add_axes((0.075 + n * 0.312, 0.25, 0.275, 0.52))
        of_task = table[table["task"] == task].sort_values("share_ours")
        places = np.arange(len(of_task))
        for source, look, aside in (("paper", DIAMOND, -0.1), ("ours", DOT, 0.1)):
            of_source = look | {"lw": 1, "ls": "-" if source == "ours" else ":", "clip_on": False}
            ax.plot(places + aside, of_task[f"accuracy_{source}"], **of_source)
        names = [
            f"{line['label']}\n{line['share_ours']:.0%}" for line in of_task.to_dict("records")
        ]
        ax.set_xticks(places, names)
        ax.set(ylim=(-0.02, 1.02), xlim=(-0.5, len(of_task) - 0.5))
        ax.set_title(BY_NAME[task].title, size=10, weight="bold")
        ax.set_xlabel("label and its share, rare to frequent", size=9)
        ax.tick_params(labelsize=8.5)
        ax.grid(axis="y", color="#E4E4E4", lw=0.7)
        ax.set_axisbelow(True)
        if n:
            ax.set_yticklabels([])
        else:
            ax.set_ylabel("accuracy", size=9)
        sns.despine(ax=ax)
    ours = f"ours, the mean of the seeds {f'({held})' if held else ''}".strip()
    handles = [_mark("paper", **DIAMOND), _mark(ours, **DOT | _fill(False))]
    _legend(picture, handles, 0.99, 0.95)
    return picture


@plain
def draw_labels(
    title: str, stamp: str, table: pd.DataFrame, by_label: pd.DataFrame, held: str
) -> Picture:
    """Accuracy by label: a dot a seed over a pale bar of their mean, the paper's diamond beside.

    Args:
        table: a line a label: share and accuracy, the paper's and ours, and that of words alone.
        by_label: label, accuracy, and whether it is `held` back by a gate, of each run.
        held: what the legend adds to the name of ours.
    """
    picture = Picture(figsize=(7.8, 4.8), facecolor="white")
    picture.text(0.015, 0.97, title, size=11.5, weight="bold", color=INK, va="top")
    picture.text(0.015, 0.095, stamp, size=8, color=FAINT, va="top")
    ax = picture.add_axes((0.085, 0.31, 0.9, 0.54), axisbelow=True)
    ax.grid(axis="y", color="#E4E4E4", lw=0.7)
    ax.tick_params(axis="x", length=0, pad=9)  # clear of a diamond at 0
    sns.despine(ax=ax)
    names = []
    for place, line in enumerate(table.to_dict("records")):
        name = LABEL_NAMES[line["task"]][place]
        names.append(f"{line['label']}\n{line['share_ours']:.1%}\n{name}")
        ax.hlines(line["words"], place - 0.4, place + 0.4, **WORDS)
        ax.plot(place - 0.27, line["accuracy_paper"], clip_on=False, **DIAMOND)
        ours = line["accuracy_ours"]
        if np.isnan(ours):
            ax.text(place, 0.012, "no examples", ha="center", va="bottom", size=8, color=INK)
            continue
        ax.bar(place, ours, width=0.3, color=OURS_LIGHT, zorder=2)
        of_label = by_label[by_label["label"] == line["label"]]
        for accuracy, gate in zip(of_label["accuracy"], of_label["held"], strict=True):
            ax.plot(place, accuracy, clip_on=False, **DOT | _fill(gate))
        behind = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}  # clear of the floor
        words = {"size": 8.5, "color": OURS, "zorder": 6, "bbox": behind}
        ax.text(place + 0.18, max(ours, 0.03), in_words(ours), va="center", **words)
    ax.set_xticks(range(len(table)), names)
    ax.set(xlim=(-0.5, len(table) - 0.5), ylim=(0, 1.03), yticks=np.arange(0, 1.01, 0.2))
    ax.set(ylabel="accuracy", xlabel="true label, and its share of the development set")
    ours = f"ours, a dot a seed\n{held}".strip()
    handles = [_mark("paper", **DIAMOND), _mark(ours, **DOT)]
    handles.append(Patch(color=OURS_LIGHT, label="their mean"))
    _legend(picture, handles + _words_handle(table[["words"]]), 0.99, 0.93)
    return picture


def _mark(label: str, **look) -> Line2D:
    return Line2D([], [], label=label, **look)


def _fill(held: bool) -> dict[str, str]:
    """Hollow where a gate holds a run back."""
    return {"mfc": "white", "mec": OURS} if held else {"mec": "white"}


def _words_handle(floors: pd.DataFrame) -> list[Line2D]:
    """The floors' entry in a legend, where there are any."""
    return [] if floors.isna().all(axis=None) else [Line2D([], [], label="words alone", **WORDS)]


def _legend(picture: Picture, handles: list, x: float, y: float, ncols: int = 0) -> None:
    place = {"loc": "upper right", "bbox_to_anchor": (x, y)}
    look = {"frameon": False, "fontsize": 8.5, "columnspacing": 1.4, "handletextpad": 0.5}
    picture.legend(handles=handles, ncols=ncols or len(handles), **look, **place)
