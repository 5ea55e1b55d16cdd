"""Which runs may be read: whether they trained, and whether they say more than one thing.

A run on the plateau of a constant answer differs from another by when it leaves it; a run that
answers the same for every example has the accuracy of a label. Numbers of such runs look like
scores and are none: they carry the word wherever they are shown, and no verdict is drawn from them.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache

from mtl_lib.study.floors import read_floors
from mtl_lib.study.store import Run

BELOW_CONSTANT = 0.05
"""Share by which a trained run's last training loss lies below that of a constant answer."""

NOT_TRAINED, ONE_ANSWER = "not trained", "one answer"


def untrained_tasks(run: Run) -> list[str]:
    """Tasks on which a fine-tuned run did not train; none for a frozen encoder, a control.

    A task trained if the mean training loss of the last epoch, the task's loss without penalties
    and smoothness, lies at least 5 % below the loss of the best constant answer. Where that is not
    known, of a corpus whose floors are not stored, nothing is said. Runs from before penalties were
    logged apart are held to the bar with them: row 3.5 may have trained and fail it.
    """
    if run.config["frozen"] or not run.history:
        return []
    corpus, last = run.provenance["corpus"], run.history[-1]
    constant = run.provenance.get("constant_loss") or _constant_losses(
        corpus["name"], corpus["fingerprint"]
    )
    return [
        task
        for task, loss in last["loss"].items()
        if task in constant
        and loss - last.get("terms", {}).get(task, 0.0) > (1 - BELOW_CONSTANT) * constant[task]
    ]


def one_answer_tasks(run: Run) -> list[str]:
    """Tasks on which the best epoch gives the same answer for every development example."""
    return run.provenance.get("constant_predictions", [])


def gate(run: Run, tasks: Iterable[str]) -> str:
    """What keeps a run's scores on these tasks from being read, in words; empty if nothing does.

    A run that did not train on one of its tasks did not train: the encoder is shared.
    """
    held = {
        NOT_TRAINED: untrained_tasks(run),
        ONE_ANSWER: [task for task in one_answer_tasks(run) if task in tasks],
    }
    return "; ".join(f"{word} on {', '.join(where)}" for word, where in held.items() if where)


def held_words(runs: Sequence[Run]) -> str:
    """How many runs of a row did not train: "not trained", "1 of 3 not trained" or ""."""
    number = sum(bool(untrained_tasks(run)) for run in runs)
    share = "" if number == len(runs) else f"{number} of {len(runs)} "
    return f"{share}{NOT_TRAINED}" if number else ""


def left_out_words(runs: Sequence[Run]) -> str:
    """How many runs of a row a mean leaves out: "1 of 3 left out: not trained"; where none trained
    it leaves out none, and they are "not trained"."""
    words = held_words(runs)
    return words if words == NOT_TRAINED else words.replace(NOT_TRAINED, f"left out: {NOT_TRAINED}")


def row_words(runs: Sequence[Run], task: str) -> str:
    """What holds a row's runs back on a task: "not trained; 1 of 3 one answer", or ""."""
    one = sum(task in one_answer_tasks(run) for run in runs)
    return "; ".join(
        filter(None, [held_words(runs), f"{one} of {len(runs)} {ONE_ANSWER}" * bool(one)])
    )


def counted(runs: Sequence[Run], task: str) -> list[Run]:
    """Of a row's runs those whose score on a task goes into its mean: the ones that trained, or all
    where none did, without those of one answer."""
    trained = [run for run in runs if not untrained_tasks(run)] or runs
    return [run for run in trained if task not in one_answer_tasks(run)]


def readable(runs: Iterable[Run]) -> list[Run]:
    """Of each row the runs that trained and answer more than one thing on every task; of a row that
    has none, those that at least trained, else all."""
    by_row: dict[str, list[Run]] = {}
    for run in runs:
        by_row.setdefault(run.config["row"], []).append(run)
    kept = []
    for of_row in by_row.values():
        trained = [run for run in of_row if not untrained_tasks(run)] or of_row
        kept += [run for run in trained if not one_answer_tasks(run)] or trained
    return kept


def gates_sentences(
    runs: Iterable[Run], tasks: Iterable[str] | None = None, explain: bool = True
) -> list[str]:
    """The runs that a gate holds back, in a sentence a gate; none where all may be read.

    Args:
        tasks: say of these only where one answer was given; all by default.
        explain: say what "not trained" means.
    """
    runs, held = list(runs), {}
    for run in runs:
        if untrained_tasks(run):
            held.setdefault("", []).append(run)
        for task in one_answer_tasks(run):
            if tasks is None or task in tasks:
                held.setdefault(task, []).append(run)
    untrained, meaning = held.pop("", []), f" ({MEANING})" if explain else ""
    one = "; ".join(f"{task} in {_rows(found, runs)}" for task, found in held.items())
    return [
        *([f"Not trained{meaning}: {_rows(untrained, runs)}."] if untrained else []),
        *([f"The same answer for every example: {one}."] if one else []),
    ]


MEANING = "the last training loss is less than 5 % below a constant answer's on some task"


def _rows(found: list[Run], runs: list[Run]) -> str:
    """Rows of which these are all runs, then others with their seeds: "rows 3.1, 3.7 (seed 2)"."""
    seeds: dict[str, list[int]] = {}
    for run in found:
        seeds.setdefault(run.config["row"], []).append(run.config["seed"])
    words = []
    for row, some in seeds.items():
        whole = len(some) == sum(run.config["row"] == row for run in runs)
        words.append(row if whole else f"{row} (seed {', '.join(map(str, some))})")
    return f"row{'s' if len(words) > 1 else ''} {', '.join(words)}"


@lru_cache
def _constant_losses(corpus: str, fingerprint: str) -> dict[str, float]:
    """By task the loss of a constant answer, for runs from before they held it themselves."""
    floors = read_floors(corpus, fingerprint)
    if not floors:
        return {}
    return {task: floor["constant_loss"] for task, floor in floors["tasks"].items()}
