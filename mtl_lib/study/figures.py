"""Figures 2-9 of the paper, redrawn from stored runs: table, picture and caption of one origin.

Every figure holds its numbers as a table and a picture drawn from that table (`drawing.py`), and
its caption says which runs stand behind it. Columns follow the paper: paraphrase, sentiment,
similarity. Scores are those of the best epoch (our reading: the highest mean of the three
development metrics). Where a row has several seeds, its number is their mean, from three seeds on
with Student's 95 % interval; runs with one answer for every example are counted and never averaged,
and those that did not train stand only where their row has no other, with the word (`gates.py`). A
figure shows one study: given runs of several, the one that `choose_study` takes.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from mtl_lib.errors import RunError
from mtl_lib.paths import FIGURES
from mtl_lib.study.architecture import figure_2
from mtl_lib.study.drawing import Figure
from mtl_lib.study.label_figures import figure_5, figure_6, figure_7, figure_8
from mtl_lib.study.score_figures import figure_3, figure_4, figure_9
from mtl_lib.study.store import Run

log = logging.getLogger(__name__)

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
            for suffix in (".csv", ".png", "_table.png"):
                (Path(directory) / f"figure_{number}{suffix}").unlink(missing_ok=True)
    if not paths:
        raise RunError(f"{directory}: no figure can be drawn from {len(runs)} runs")
    return paths
