"""The ladder of chapter 12: what each rung gains over the one below it, on the real corpora."""

from collections.abc import Sequence

import pandas as pd

from mtl_lib.paths import RESULTS
from mtl_lib.study.floors import floor_score, read_floors
from mtl_lib.study.rows import LADDER
from mtl_lib.study.store import Run, RunStore
from mtl_lib.study.uncertainty import AVERAGE, Evidence

WORDS = "words that compare"


def ladder_runs() -> list[Run]:
    """The committed runs of the ladder."""
    return RunStore(RESULTS / "ladder").runs()


def rungs(runs: Sequence[Run]) -> pd.DataFrame:
    """A line for each rung and task, words first: its mean score, over how many seeds, and the gain
    over the rung below with its 95 % interval.

    The first trained rung is compared with nothing: words have no seeds. A rung that no run has is
    left out, and the next one is compared with the rung below it.
    """
    evidence = Evidence(runs)
    corpus = runs[0].provenance["corpus"]
    floors = read_floors(corpus["name"], corpus["fingerprint"])
    tasks = list(runs[0].config["heads"])
    lines = []
    if floors:
        scores = [floor_score(floors, task, "comparing") for task in tasks]
        for task, score in zip(
            [*tasks, AVERAGE], [*scores, sum(scores) / len(scores)], strict=True
        ):
            lines.append({"rung": WORDS, "task": task, "score": score, "seeds": 0})
    below = ""
    for row in (row for row in LADDER if row in evidence.runs):
        for task in [*tasks, AVERAGE]:
            line = {"rung": LADDER[row].name, "task": task}
            score = evidence.estimate({row: 1}, task)
            line |= {"score": score.value, "seeds": score.seeds}
            if below and evidence.seeds([row, below]):
                gain = evidence.estimate({row: 1, below: -1}, task)
                line |= {"gain": gain.value, "low": gain.low, "high": gain.high}
            lines.append(line)
        below = row
    return pd.DataFrame(lines)
