"""Which runs stand behind a figure, and how a figure says so."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from mtl_lib.errors import RunError
from mtl_lib.study.drawing import Cell, in_words
from mtl_lib.study.floors import floor_kind, read_floors
from mtl_lib.study.gates import (
    NOT_TRAINED,
    ONE_ANSWER,
    counted,
    gate,
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
    studies,
)
from mtl_lib.study.paper import FINAL, FINAL_ROWS, TASK_ORDER
from mtl_lib.study.store import Run
from mtl_lib.study.uncertainty import sampling_error, seed_interval
from mtl_lib.tasks import BY_NAME

SEEDS = "Several seeds: their mean, and its 95 % interval over the seeds alone."


def select(number: int, runs: Iterable[Run], rows: Sequence[str]) -> dict[str, list[Run]]:
    """The runs of the given rows, by row and in the rows' order; a row without a run is left out.

    Raises:
        RunError: if there is none, or one is there twice.
    """
    fitting = choose_study(runs, rows)
    if not fitting:
        raise RunError(
            f"Figure {number}: no run of row {', '.join(rows)}; train one, for instance with "
            f"`mtl sweep --rows {rows[0]} --profile PROFILE`"
        )
    chosen = {row: [run for run in fitting if run.config["row"] == row] for row in rows}
    for row, row_runs in chosen.items():
        seeds = [run.config["seed"] for run in row_runs]
        if len(set(seeds)) < len(seeds):
            raise RunError(f"Figure {number}: row {row} has two runs of one seed; give one of them")
    return {row: row_runs for row, row_runs in chosen.items() if row_runs}


def with_final(number: int, runs: Sequence[Run], *others: str) -> dict[str, list[Run]]:
    """The final model beside other rows, from the most thorough study that has all of them: row 4.6
    where one has it, else row 3.10.

    Raises:
        RunError: if no study has all of them.
    """
    runs = list(runs)
    for final in FINAL_ROWS:
        rows = [*others, final]
        for group in studies(run for run in runs if run.config["row"] in rows):
            if not missing_rows(group, rows):
                return select(number, group, rows)
    there = choose_study(runs, [*others, *FINAL_ROWS])
    missing = missing_rows(there, others) or [" or ".join(FINAL_ROWS)]
    raise RunError(
        f"Figure {number}: no run of row {', '.join(missing)}; train one, for instance with "
        f"`mtl sweep --rows {','.join([*others, FINAL])} --profile PROFILE`"
    )


def notes(runs: Sequence[Run], *words: str, tasks: Sequence[str] = TASK_ORDER) -> str:
    """What to know of a figure's numbers, of the tasks it shows, and which runs stand behind it."""
    return " ".join([*words, provenance_line(runs, tasks)])


def stamp(runs: Sequence[Run]) -> str:
    """Which runs, inside the picture, so that it never passes for another study's; three lines."""
    what, how_long = facts(runs)
    last = [note.partition(" (")[0] for note in corpus_notes(runs)]
    held = Counter(word for run in runs for word, tasks in _held(run).items() if tasks)
    if held:
        names = {NOT_TRAINED: NOT_TRAINED, ONE_ANSWER: f"with {ONE_ANSWER}"}
        words = " and ".join(f"{number} {names[word]}" for word, number in sorted(held.items()))
        last.insert(0, f"Of these {len(runs)} runs: {words}")
    first = f"{kind_of_study(runs[0])}: {' · '.join(what)}"
    return f"{first}\n{' · '.join(how_long)}\n{'. '.join(last)}"


def _held(run: Run) -> dict[str, list[str]]:
    """The tasks of a run that a gate holds back, by its word."""
    return {NOT_TRAINED: untrained_tasks(run), ONE_ANSWER: one_answer_tasks(run)}


def sampling_words(run: Run) -> str:
    """How much the choice of development examples alone moves one run's scores."""
    defined = [
        t for t in TASK_ORDER if np.isfinite(run.metrics["best"]["dev"][t][BY_NAME[t].metric])
    ]
    errors = ", ".join(f"{task} ± {sampling_error(task, run):.3f}" for task in defined)
    return (
        "The development examples alone (95 %, bootstrap) move a score by: "
        f"{errors} (row {run.config['row']})."
    )


def signed(table: pd.DataFrame, runs: Sequence[Run], told: str) -> pd.DataFrame:
    """The table with profile, encoder, corpora and the figure's notes in its last columns: a CSV
    file travels alone. The notes stand in the first line only."""
    return table.assign(
        profile=runs[0].config["profile"],
        encoder=Path(runs[0].config["encoder"]).name,
        corpora=runs[0].provenance["corpus"]["name"],
        notes=[told, *[""] * (len(table) - 1)],
    )


def over_seeds(name: str, values: Sequence[float]) -> dict[str, float]:
    """Mean and its interval (`seed_interval`); an undefined value makes all three undefined."""
    parts = zip(("ours", "low", "high"), seed_interval(values), strict=True)
    return {f"{name}_{part}": value for part, value in parts}


def dots(runs: Iterable[Run]) -> pd.DataFrame:
    """A line for each run and task: row, seed, task, its development score, and whether a gate
    holds it back; a run whose score is undefined has none."""
    lines = [
        {
            "row": run.config["row"],
            "seed": run.config["seed"],
            "task": task,
            "score": run.metrics["best"]["dev"][task][BY_NAME[task].metric],
            "held": bool(gate(run, [task])),
        }
        for run in runs
        for task in TASK_ORDER
    ]
    table = pd.DataFrame(lines, columns=["row", "seed", "task", "score", "held"])
    return table[np.isfinite(table["score"])]


def scores(runs: Sequence[Run], split: str, task: str) -> list[float]:
    """Scores of the counted runs; a row of which none counts has one, undefined."""
    metric = BY_NAME[task].metric
    of_row = counted(runs, task)
    return [run.metrics["best"][split][task][metric] for run in of_row] or [float("nan")]


def cell(line: dict, name: str) -> Cell:
    ours, low, high = (line[f"{name}_{part}"] for part in ("ours", "low", "high"))
    spread = "" if np.isnan(low) else f"± {(high - low) / 2:.3f}"
    return in_words(line[f"{name}_paper"]), in_words(ours), spread


def floor_of(run: Run, task: str) -> dict:
    """What words alone reach on a task with heads of the run's kind; empty if not stored."""
    corpus = run.provenance["corpus"]
    floors = read_floors(corpus["name"], corpus["fingerprint"])
    return floors["tasks"][task][floor_kind(run.config["heads"][task])] if floors else {}
