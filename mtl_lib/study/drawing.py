"""How the figures look: what a figure is, its table, and the diagram of the heads.

Everything here draws what it is given; which runs, and what the numbers are, is said where the
figures are made: `architecture.py`, `score_figures.py`, `label_figures.py`. Their charts are in
`charts.py`.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import style
from matplotlib.figure import Figure as Picture
from matplotlib.patches import FancyBboxPatch, Rectangle

from mtl_lib.files import replacing
from mtl_lib.tasks import SIMILARITY, Task

# Blue and orange stay apart for colour-blind readers; areas have the light shade of each.
OURS, OURS_LIGHT = "#0173B2", "#9CCBE8"
PAPER, PAPER_LIGHT = "#A85A00", "#F3C99A"
INK, FAINT, TINT = "#222222", "#6B6B6B", "#EAF3FA"
DPI = 120
# Matplotlib's own defaults, whatever the caller has set: the same picture everywhere.
plain = style.context("default")

SCORE_NAMES = {"accuracy": "accuracy", "pearson": "Pearson's r"}
LABEL_NAMES = {
    "paraphrase": ["different", "paraphrase"],
    "sentiment": ["negative", "somewhat\nnegative", "neutral", "somewhat\npositive", "positive"],
    "similarity": ["unrelated", *[""] * (SIMILARITY.max_label - 1), "equivalent"],
}
NOT_RUN, UNDEFINED = "not run", "undefined"

Cell = tuple[str, str, str]  # the paper's number, ours, and its interval over seeds
Stack = list[tuple[str, str]]  # kind and words of a head's modules, from its input to its output
FILLS = {"dropout": "#F1F1F1", "linear": OURS_LIGHT, "activation": PAPER_LIGHT}


@dataclass(frozen=True)
class Figure:
    """One figure of the paper, redrawn.

    Attributes:
        number: its number in the paper.
        table: every number shown, and in its last columns the runs and notes behind them.
        picture: drawn from the table.
        caption: what to see, in three lines at most.
        notes: which runs stand behind it, and what to know of their numbers.
        alt: alternative text, written from the table.
        as_table: the same numbers as the table that the paper prints, where it prints one.
    """

    number: int
    table: pd.DataFrame
    picture: Picture
    caption: str
    notes: str
    alt: str
    as_table: Picture | None = None

    def png(self) -> bytes:
        """The picture as PNG; the same runs give the same bytes (no date, no software name)."""
        return _png(self.picture, self.caption)

    def save(self, directory: str | Path) -> list[Path]:
        """Write figure_N.csv, figure_N.png and, where there is one, figure_N_table.png to a folder;
        returns their paths."""
        csv = self.table.to_csv(index=False, float_format="%.6f", lineterminator="\n")
        contents = {".csv": csv.encode("utf-8"), ".png": self.png()}
        if self.as_table:
            contents["_table.png"] = _png(self.as_table, self.caption)
        paths = []
        for suffix, content in contents.items():
            paths.append(Path(directory) / f"figure_{self.number}{suffix}")
            with replacing(paths[-1]) as unfinished:
                unfinished.write_bytes(content)
        return paths

    def _ipython_display_(self) -> None:
        """In a notebook: the picture with its alternative text, the caption below it, then the
        table; which runs stand behind them is folded."""
        from IPython.display import Image, Markdown, display

        runs = f"<details><summary>Which runs</summary>\n\n{self.notes}\n\n</details>"
        display(Image(data=self.png(), alt=self.alt))
        display(Markdown(f"*{self.caption}*"))
        if self.as_table:
            alt = f"Figure {self.number} as a table of numbers, the paper's beside ours."
            display(Image(data=_png(self.as_table, self.caption), alt=alt))
        display(Markdown(runs))


@plain
def _png(picture: Picture, description: str) -> bytes:
    buffer = io.BytesIO()
    metadata = {"Software": None, "Description": description}
    picture.savefig(buffer, format="png", dpi=DPI, metadata=metadata)
    return buffer.getvalue()


def in_words(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.3f}"


# --- tables ------------------------------------------------------------------------------------


@plain
def draw_table(
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
            if ours and ours[-1] not in "0123456789%":  # words in place of a score
                write(middle, y, ours, size=8, style="italic", color=FAINT)
            else:
                write(middle, y - (0.06 if spread else 0), ours, weight=weight)
                small = 6.5 if spread.startswith("±") else 5.8
                write(middle, y + 0.09, spread, size=small, color=FAINT)
    rule(bottom, 0.1, right)
    return picture


# --- the architecture --------------------------------------------------------------------------


@plain
def draw_architecture(
    title: str,
    tasks: dict[str, Task],
    stacks: dict[str, Stack],
    inputs: dict[str, str],
    losses: dict[str, str],
    encoder: str,
    update: Sequence[str],
) -> Picture:
    """Boxes and arrows, sizes in inches: forward from the sentences up to the losses, black; and
    back on the right, from the losses down to the step on the shared encoder, dashed.

    Args:
        tasks: by name, from left to right.
        stacks: each head's modules, from its input to its output.
        inputs: what each head is given.
        losses: the loss of each head, in words.
        update: what becomes of the losses, from the top to the step; none: nothing is drawn.
    """
    column, step, tall = 2.7, 0.54, 0.36  # distance of the heads, of their layers; a layer's height
    first = 2.65  # height of the first layer's centre
    top = first + step * max(map(len, stacks.values())) + 0.15  # of the losses
    rail = top + 0.62  # of the way back
    heads, height = max(column * len(stacks), 5.4) + 0.3, top + 1.2
    back = {"color": PAPER, "ls": (0, (4, 2)), "lw": 1.3}
    width = heads + (2.9 if update else 0)
    picture = Picture(figsize=(width, height), facecolor="white")
    ax = picture.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height))
    ax.axis("off")

    def box(x: float, y: float, words: str, fill: str, wide: float = 2.1, tall: float = tall):
        corner, shape = (x - wide / 2, y - tall / 2), "round,pad=0,rounding_size=0.06"
        ax.add_patch(FancyBboxPatch(corner, wide, tall, shape, fc=fill, ec=INK, lw=0.9))
        ax.text(x, y, words, ha="center", va="center", size=9.5, color=INK, linespacing=1.4)

    def arrow(start: tuple[float, float], end: tuple[float, float], **look) -> None:
        line = {"arrowstyle": "-|>", "color": INK, "shrinkA": 0, "shrinkB": 0}
        ax.annotate("", end, start, arrowprops=line | look)

    ax.text(0.15, height - 0.25, title, size=11.5, weight="bold", color=INK, va="center")
    box(heads / 2, 1.45, f"BERT encoder and pooler, shared: {encoder}", TINT, heads - 0.6, 0.64)
    for n, (name, task) in enumerate(tasks.items()):
        x = heads / 2 + column * (n + 0.5 - len(tasks) / 2)
        pair = task.sentences == 2
        box(x, 0.4, "two sentences, one by one" if pair else "one sentence", "white")
        for aside in (-0.5, 0.5) if pair else (0,):  # the encoder runs twice for a pair
            arrow((x + aside, 0.4 + tall / 2), (x + aside, 1.13))
        arrow((x, 1.77), (x, first - tall / 2))
        between = (1.77 + first - tall / 2) / 2
        ax.text(x + 0.1, between, inputs[name], va="center", size=9, color=FAINT)
        for depth, (kind, layer) in enumerate(stacks[name]):
            y = first + step * depth
            box(x, y, layer, FILLS[kind])
            last = depth + 1 == len(stacks[name])
            arrow((x, y + tall / 2), (x, top - 0.25 if last else y + step - tall / 2))
        box(x, top, losses[name], "white", 2.5, 0.5)
        if update:  # the way back goes over the losses
            ax.plot([x + 1.1, x + 1.1], [top + 0.25, rail], **back)
        ax.text(x, top + 0.4, task.title, ha="center", va="center", size=10.5, weight="bold")
    heights = np.linspace(top, 1.45, max(2, len(update)))
    for n, words in enumerate(update):
        box(width - 1.35, heights[n], words, "white", 2.3, 0.5)
        start = (width - 1.35, heights[n - 1] - 0.25 if n else rail)
        arrow(start, (width - 1.35, heights[n] + 0.25), **back)
    if update:
        ax.plot([heads / 2 - column * (len(tasks) - 1) / 2 + 1.1, width - 1.35], [rail] * 2, **back)
        ax.text(width - 1.25, rail, "dashed: gradients", va="center", size=8.5, color=PAPER)
        arrow((width - 2.5, 1.45), (heads - 0.3, 1.45), **back)
    return picture
