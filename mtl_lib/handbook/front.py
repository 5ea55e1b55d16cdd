"""What the README shows of the committed runs: a picture, and three findings."""

import io
import json
from pathlib import Path

from matplotlib.figure import Figure as Picture

from mtl_lib.files import replacing
from mtl_lib.handbook.findings.front import FINDINGS
from mtl_lib.shipped.answers import FINAL
from mtl_lib.study.drawing import DPI, FAINT, INK, OURS, PAPER, SCORE_NAMES, plain
from mtl_lib.study.floors import floor_score, read_floors
from mtl_lib.study.paper import PAPER_SCORES
from mtl_lib.tasks import PARAPHRASE, SENTIMENT, SIMILARITY

PICTURE = "one_model.png"
STAMP = (
    "Development sets. Our quora-train.csv is not the original file, and the encoder, "
    "all-MiniLM-L6-v2, has seen Quora's pairs before."
)
ASKED = {
    SENTIMENT: "sentiment: how kind is a review?",
    PARAPHRASE: "paraphrase: do two questions ask the same?",
    SIMILARITY: "similarity: how close are two statements?",
}


def findings() -> str:
    """The three findings as Markdown.

    Raises:
        RunError: if one of them is no longer true.
    """
    return "\n".join(finding.sentence() for finding in FINDINGS)


@plain
def draw() -> Picture:
    """The finished model's development scores beside the paper's best, words and a constant."""
    scores = json.loads((FINAL / "scores.json").read_text(encoding="utf-8"))["tasks"]
    floors = read_floors("cs224n")
    picture = Picture(figsize=(8.6, 3.5), facecolor="white", layout="constrained")
    for ax, (task, title) in zip(picture.subplots(3, 1), ASKED.items(), strict=True):
        ours = scores[task.name]
        constant = floors["tasks"][task.name]["constant"] if task.kind != "score" else 0.0
        words = floor_score(floors, task.name, "comparing")
        paper = PAPER_SCORES[f"dev_{task.name}"].max()
        ax.axhline(0, color=FAINT, lw=0.6, zorder=0)
        ax.plot(constant, 0, "|", ms=14, mew=2, color=FAINT, label="always one answer")
        ax.plot(words, 0, "s", ms=7, color=INK, label="counting words")
        ax.plot(paper, 0.5, "D", ms=7, color=PAPER, label="the paper's best row on each task")
        ax.plot([ours["low"], ours["high"]], [0, 0], color=OURS, lw=4, alpha=0.45)
        name = "the model you end with, and 95 % over examples"
        ax.plot(ours["shipped"], 0, "o", ms=9, color=OURS, label=name)
        ax.set(xlim=(-0.03, 1), ylim=(-1, 1), yticks=[])
        ax.set_title(f"{title}  ({SCORE_NAMES[task.metric]})", size=10, loc="left", color=INK)
        ax.spines[["left", "right", "top"]].set_visible(False)
    picture.supxlabel(STAMP, x=0.005, ha="left", size=8, color=FAINT)
    handles, names = ax.get_legend_handles_labels()
    picture.legend(handles, names, loc="outside upper center", ncols=2, frameon=False, fontsize=9)
    return picture


def save(directory: str | Path) -> Path:
    """Write the picture to a folder; the same scores give the same bytes."""
    buffer = io.BytesIO()
    draw().savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    path = Path(directory) / PICTURE
    with replacing(path) as unfinished:
        unfinished.write_bytes(buffer.getvalue())
    return path
