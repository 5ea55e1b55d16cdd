"""Eight contrasts that carry the story: two questions each.

Is there a gain, and does the paper's published difference lie where one more run of ours would?
Each is asked in the study of the paper's own protocol and in the one that trains better. All claims
of the paper stand in `claims.py`; these say what they hang on.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mtl_lib.study.claims import GAIN, NO_GAIN, ONE, PAIR, SCORE, Comparison
from mtl_lib.study.groups import studies
from mtl_lib.study.paper import BASELINE, TASK_ORDER
from mtl_lib.study.rows import ALL_ROWS
from mtl_lib.study.store import Run
from mtl_lib.study.uncertainty import Evidence
from mtl_lib.study.verdicts import (
    FAILS,
    HOLDS,
    NOISE,
    numbers,
    our_words,
    paper_value,
    untold,
    verdict,
)

OPEN = "open"
INSIDE, OUTSIDE, NOT_PRINTED = "inside", "outside", "not printed"
TOLD_BY = ("paper", "converged")
"""The studies that tell them."""
ROUNDING = 0.001
"""What a difference of two scores may be off that are printed with three digits."""


@dataclass(frozen=True)
class Contrast:
    """One change, and the differences of rows that show what it does.

    Attributes:
        words: what is changed.
        comparisons: row minus row, on the tasks that it is about.
    """

    words: str
    comparisons: tuple[Comparison, ...]


def _contrast(words: str, row: str, other: str, *tasks: str) -> Contrast:
    return Contrast(words, (Comparison({row: 1, other: -1}, tasks or TASK_ORDER),))


CONTRASTS = (
    _contrast("gradient surgery, against the plain sum", "3.2", BASELINE),
    _contrast("fine-tuning, against a frozen encoder", BASELINE, "frozen-1e-3"),
    Contrast(
        "three tasks together, against each alone",
        tuple(Comparison({BASELINE: 1, f"{task}-alone": -1}, (task,)) for task in TASK_ORDER),
    ),
    _contrast("heads that compare, against additive ones", "compare", BASELINE, PAIR, SCORE),
    _contrast("a second linear layer a head", "3.7", "3.2"),
    _contrast("more dropout", "3.8", "3.2", ONE, SCORE),
    Contrast(
        "a penalty on similarity",
        tuple(Comparison({row: 1, "3.2": -1}, (SCORE,)) for row in ("3.4", "3.5", "3.6")),
    ),
    _contrast("SMART, on top of more dropout", "3.9", "3.8", ONE),
)


def contrasts_table(runs: Iterable[Run]) -> pd.DataFrame:
    """Every difference of `CONTRASTS` in each of the studies, with its two answers.

    Args:
        runs: stored runs; of each profile the most thorough study on the real corpora is asked.

    Returns:
        One line a difference, task and study: contrast, rows, study, task, ours, low, high, seeds,
        run_low and run_high (where the printed difference of one more run of each row would lie,
        95 %, whatever their seeds), paper (the published difference, NaN where it has none), gain
        ("gain", "no gain" worth a point, or "open"), inside (whether the published difference,
        which is one run of each row, lies between run_low and run_high: "inside", "outside" or "not
        printed"), reason (why nothing can be told, else empty). Where there is a reason, neither
        question has an answer.
    """
    runs = list(runs)
    evidence = {profile: best_study(runs, profile) for profile in TOLD_BY}
    lines = []
    for contrast in CONTRASTS:
        for comparison in contrast.comparisons:
            for task in comparison.tasks:
                for profile in TOLD_BY:
                    line = {
                        "contrast": contrast.words,
                        "rows": comparison.words,
                        "study": profile,
                        "task": task,
                    }
                    lines.append(line | _answers(evidence[profile], comparison, task))
    return pd.DataFrame(lines)


def best_study(runs: Iterable[Run], profile: str) -> Evidence:
    """What a profile's most thorough study on the real corpora shows; nothing without one."""
    for group in studies(run for run in runs if run.config["profile"] == profile):
        if group[0].provenance["corpus"]["name"] == "cs224n":
            return Evidence(group)
    return Evidence([])


def _answers(evidence: Evidence, comparison: Comparison, task: str) -> dict:
    """Our number, the paper's, and the answers to both questions."""
    estimate, reason = untold(evidence, comparison, task)
    line = numbers(estimate) | {"paper": paper_value(comparison, task)}
    low, high = estimate.one_more_run() if estimate else (float("nan"), float("nan"))
    line["run_low"], line["run_high"] = low - ROUNDING, high + ROUNDING
    told = {"gain": "", "inside": "", "reason": reason}
    if estimate and not reason:
        told["gain"] = {HOLDS: GAIN, FAILS: NO_GAIN, NOISE: OPEN}[verdict(estimate, GAIN)]
        within = line["run_low"] <= line["paper"] <= line["run_high"]
        told["inside"] = INSIDE if within else OUTSIDE
        if np.isnan(line["paper"]):
            told["inside"] = NOT_PRINTED
    return line | told


def contrasts_markdown(runs: Iterable[Run]) -> str:
    """The contrasts as a Markdown table: a line a difference and task, a column a study."""
    table = contrasts_table(runs)
    lines = [
        f"| change (rows) | task | paper | {' | '.join(f'`{name}`' for name in TOLD_BY)} |",
        "|" + "---|" * (3 + len(TOLD_BY)),
    ]
    for (words, rows, task), group in table.groupby(["contrast", "rows", "task"], sort=False):
        cells = {line["study"]: _cell(line) for line in group.to_dict("records")}
        paper = group["paper"].iloc[0]
        published = "–" if np.isnan(paper) else f"{paper:+.3f}"
        names = " − ".join(ALL_ROWS[row].name for row in rows.split(" - "))
        columns = " | ".join(cells[name] for name in TOLD_BY)
        lines.append(f"| {words} ({rows}: {names}) | {task} | {published} | {columns} |")
    return "\n".join(lines)


def _cell(line: dict) -> str:
    if not line["seeds"]:
        return line["reason"]
    seeds = f"{line['seeds']} seed{'s' if line['seeds'] > 1 else ''}"
    interval = f"{our_words(line)}, {seeds}"
    if line["reason"]:
        return f"{interval}. Not told: {line['reason']}"
    paper = ""
    if line["inside"] != NOT_PRINTED:
        run = f"[{line['run_low']:+.3f}, {line['run_high']:+.3f}]"
        paper = f", the paper's lies {line['inside']} (one run: {run})"
    return f"{interval}: **{line['gain']}**{paper}"
