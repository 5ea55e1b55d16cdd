"""What the published numbers may be made of: hypotheses, each a run or a sum, and how far they lie.

A hypothesis says that a published row is something else than what the paper says of it. A run of
ours stands for that, another for the row taken at its word; the nearer one explains the six
published numbers (training and development, three tasks) better. Nearer is no proof: our encoder
and one corpus file are not the paper's.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mtl_lib.study.contrasts import ROUNDING, best_study
from mtl_lib.study.paper import (
    BASELINE,
    PAPER_FIGURE_5,
    PAPER_SCORES,
    PAPER_SIZES,
    TASK_ORDER,
    decayed_share,
    positive_rate,
)
from mtl_lib.study.store import Run
from mtl_lib.study.uncertainty import ENOUGH_SEEDS, Evidence, seed_interval
from mtl_lib.tasks import BY_NAME

SPLITS = ("train", "dev")
NEARER, AS_NEAR, AWAY = "nearer", "as near", "further away"
OPEN, NOT_RUN = "open", "not run"
SHORT = "at its nearest epoch"
ARITHMETIC = "arithmetic"
STEPS = 7_550
"""Of the paper's ten epochs: 755 batches of the smallest training set each."""


@dataclass(frozen=True)
class Hypothesis:
    """What a published row may really be.

    Attributes:
        words: the hypothesis.
        row: the published row.
        by: our row that stands for it.
        refuted_by: what would speak against it.
        rival: our row as the paper describes it; by default of the same id.
        any_epoch: whether the published row may be any epoch of `by`: a shorter run. The rival may
            then be any of its own epochs, so that neither has more tries.
    """

    words: str
    row: str
    by: str
    refuted_by: str
    rival: str = ""
    any_epoch: bool = False

    def __post_init__(self):
        object.__setattr__(self, "rival", self.rival or self.row)


_NOT_NEARER = "three seeds of it that lie no nearer than the row at its word"
HYPOTHESES = (
    *(
        Hypothesis(
            "The baseline was trained with a frozen encoder, as the class's code does by default"
            f"{words}.",
            BASELINE,
            row,
            "a log with the encoder's gradient; " + _NOT_NEARER,
        )
        for row, words in (
            ("frozen-1e-3", ", its heads at rate 1e-3"),
            ("frozen-1e-5", ", at the stated rate 1e-5"),
        )
    ),
    Hypothesis(
        "The baseline is a short run.",
        BASELINE,
        BASELINE,
        "the published run's log of ten epochs; three seeds without an epoch near its scores",
        any_epoch=True,
    ),
    *(
        Hypothesis(
            f"Row {row} is a short run of surgery alone: its change did little.",
            row,
            "3.2",
            f"a log of ten epochs; three seeds of row {row} at its word of which an epoch lies "
            "nearer",
            any_epoch=True,
        )
        for row in ("3.4", "3.5", "3.7", "3.8", "4.2", "4.3")
    ),
    Hypothesis(
        "Surgery was that of the port which the paper names, faults included.",
        "3.2",
        "3.2-port",
        _NOT_NEARER,
    ),
    *(
        Hypothesis(
            "The decay went into Adam's gradient (L2), not beside it.",
            row,
            f"{row}-coupled",
            _NOT_NEARER + "; a log of both parts of the step",
        )
        for row in ("3.4", "4.2", "4.3")
    ),
    Hypothesis(
        "SMART was that of the port which the paper names: large random noise, dropout masks that "
        "differ.",
        "3.9",
        "3.9-port",
        _NOT_NEARER,
    ),
)


def scores(metrics: Mapping[str, Mapping]) -> np.ndarray:
    """Training and development scores of the three tasks, `[6]`, in the order of `published`."""
    return np.array(
        [metrics[split][task][BY_NAME[task].metric] for split in SPLITS for task in TASK_ORDER]
    )


def published(row: str) -> np.ndarray:
    """The six numbers that the paper prints of a row, `[6]`."""
    columns = [f"{split}_{task}" for split in SPLITS for task in TASK_ORDER]
    return PAPER_SCORES.loc[row, columns].to_numpy(dtype=float)


def apart(runs: Iterable[Run], row: str, other: str) -> np.ndarray:
    """The six scores of a row minus those of another, to three digits as printed, `[seeds, 6]`."""
    found: dict[str, dict[int, np.ndarray]] = {row: {}, other: {}}
    for run in runs:
        if run.config["row"] in found:
            found[run.config["row"]][run.config["seed"]] = scores(run.metrics["best"]).round(3)
    both = sorted(found[row].keys() & found[other].keys())
    pairs = [found[row][seed] - found[other][seed] for seed in both]
    return np.reshape(pairs, (-1, 6)).round(3)


def distance(metrics: Mapping[str, Mapping], row: str) -> float:
    """Root mean square of the six differences between scores of ours and a published row."""
    return float(np.sqrt(np.mean((scores(metrics) - published(row)) ** 2)))


def trajectory(run: Run, split: str = "train") -> pd.DataFrame:
    """A run's scores after each epoch.

    Args:
        split: "train", a fixed sample, or "dev", whose Quora pairs are a fixed sample too.

    Returns:
        Index: the epoch, from 1; columns: the tasks in the paper's order.
    """
    lines = {
        entry["epoch"]: [entry[split][task][BY_NAME[task].metric] for task in TASK_ORDER]
        for entry in run.history
    }
    table = pd.DataFrame.from_dict(lines, orient="index", columns=list(TASK_ORDER))
    return table.rename_axis("epoch")


def nearest_epoch(run: Run, row: str) -> tuple[int, float]:
    """The epoch of a run, from 1, whose scores lie nearest to a published row, and how far; not
    one with an undefined score, if another has none."""
    found = {entry["epoch"]: distance(entry, row) for entry in run.history}
    epoch = min(found, key=lambda number: (np.isnan(found[number]), found[number]))
    return epoch, found[epoch]


def hypotheses_table(runs: Iterable[Run]) -> pd.DataFrame:
    """The hypotheses about the paper's rows, each with its distance and verdict.

    Args:
        runs: stored runs; the study of the paper's own protocol on the real corpora is asked.

    Returns:
        One line a hypothesis: hypothesis, row (published), by (our row, or "arithmetic"), distance
        (of the six numbers, root mean square, mean over the seeds; NaN for arithmetic), low, high
        (its 95 % interval over seeds, NaN with fewer than three), rival (distance of the row at its
        word), seeds (that both have), verdict, refuted_by. The verdict of runs is "nearer" or
        "further away" where the interval of the paired difference of both distances leaves out
        zero and what the rounding of the printed scores may add to it, else "open"; with fewer than
        three seeds it is "open" too, and says which way each points; "not run" names the row that
        is missing. A row against an earlier epoch of itself is no contest, since the nearest epoch
        cannot lose: there the verdict names the epoch.
    """
    evidence = best_study(runs, "paper")
    lines = [_by_runs(hypothesis, evidence) for hypothesis in HYPOTHESES]
    return pd.DataFrame([*lines, *(make() for make in _SUMS)])


def _by_runs(hypothesis: Hypothesis, evidence: Evidence) -> dict:
    line = {
        "hypothesis": hypothesis.words,
        "row": hypothesis.row,
        "by": f"{hypothesis.by}, {SHORT}" if hypothesis.any_epoch else hypothesis.by,
    }
    itself = hypothesis.by == hypothesis.rival

    def distances(row: str, any_epoch: bool) -> dict[int, float]:
        return {
            seed: nearest_epoch(run, hypothesis.row)[1]
            if any_epoch
            else distance(run.metrics["best"], hypothesis.row)
            for seed, run in evidence.runs.get(row, {}).items()
        }

    ours = distances(hypothesis.by, hypothesis.any_epoch)
    rival = distances(hypothesis.rival, hypothesis.any_epoch and not itself)
    both = sorted(set(ours) & set(rival))
    line["distance"], line["low"], line["high"] = _interval([ours[seed] for seed in both or ours])
    line["rival"] = float(np.mean([rival[seed] for seed in both or rival] or [np.nan]))
    line["seeds"] = len(both)
    line["verdict"] = _nearer([ours[seed] - rival[seed] for seed in both])
    if not both:
        missing = {hypothesis.by: ours, hypothesis.rival: rival}
        line["verdict"] += f": {', '.join(row for row, found in missing.items() if not found)}"
    if itself and both:
        runs = [evidence.runs[hypothesis.by][seed] for seed in both]
        epochs = sorted({nearest_epoch(run, hypothesis.row)[0] for run in runs})
        words = " or ".join(map(str, epochs))
        line["verdict"] = f"possible: nearest after epoch {words} of {len(runs[0].history)}"
    return line | {"refuted_by": hypothesis.refuted_by}


def _nearer(differences: Sequence[float]) -> str:
    if not differences:
        return NOT_RUN
    if np.isnan(differences).any():
        return f"{OPEN}: a score is undefined"
    if len(differences) < ENOUGH_SEEDS:
        pointing = Counter(_side(difference, difference) or AS_NEAR for difference in differences)
        words = ", ".join(
            f"{side} in {number} seed{'s' if number > 1 else ''}"
            for side, number in pointing.items()
        )
        return f"{OPEN}: {words}"
    _, low, high = _interval(differences)
    return _side(low, high) or OPEN


def _side(low: float, high: float) -> str:
    """On which side of zero a difference of two distances lies; "" where it holds zero or may be
    rounding: printed scores are up to half a thousandth off, and move either distance by as much.
    """
    return NEARER if high < -ROUNDING else AWAY if low > ROUNDING else ""


def _interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and Student's 95 % interval over seeds; NaN where too few values give none."""
    return seed_interval(values) if len(values) else (float("nan"),) * 3


def _sum(words: str, row: str, verdict: str, refuted_by: str) -> dict:
    numbers = dict.fromkeys(("distance", "low", "high", "rival"), np.nan) | {"seeds": 0}
    return {
        "hypothesis": words,
        "row": row,
        "by": ARITHMETIC,
        **numbers,
        "verdict": verdict,
        "refuted_by": refuted_by,
    }


SST_COUNTS = {"train": (1092, 2218, 1624, 2322, 1288), "dev": (139, 289, 229, 279, 165)}
"""Examples by label of the treebank's two files, as the class gives them."""


def _one_answer() -> dict:
    """Row 3.9 against a model that always gives the same label."""
    printed = PAPER_SCORES.loc["3.9", ["train_sentiment", "dev_sentiment"]].to_numpy(dtype=float)
    shares = np.array([np.array(SST_COUNTS[split]) / sum(SST_COUNTS[split]) for split in SPLITS])
    apart = np.sqrt(np.mean((shares - printed[:, None]) ** 2, axis=0))
    label = int(apart.argmin())
    strict = (np.round(shares[:, label], 3) == printed).all()
    return _sum(
        "Row 3.9 gives every sentence the same label.",
        "3.9, sentiment",
        f"{'fits' if strict else 'nearly'}: always {label} prints "
        f"{shares[0, label]:.3f} and {shares[1, label]:.3f}, the paper {printed[0]} and "
        f"{printed[1]}",
        "an accuracy that is no label's share, as here: some sentences got another label; how "
        "many, a confusion matrix would say",
    )


def _other_order() -> dict:
    """Figure 5's paraphrase column against labels in a random order."""
    column = PAPER_FIGURE_5[PAPER_FIGURE_5["task"] == "paraphrase"].set_index("label")
    recalls, positive = tuple(column["accuracy"]), column["share"][1]
    rate = positive_rate(recalls, positive)
    counts = PAPER_SIZES.loc["paraphrase", "dev"] * np.array([1 - positive, positive])
    error = np.sqrt(np.sum(rate * (1 - rate) / counts)) / 2
    apart = float(np.mean(recalls)) - 0.5
    return _sum(
        "Figure 5's paraphrase column was counted mostly against labels in another order.",
        "Figure 5",
        f"fits: balanced accuracy {0.5 + apart:.4f}, near one half, though {apart / error:.1f} "
        "standard errors above a random order",
        f"the predictions, matched by id, that still give {recalls[0]} and {recalls[1]}",
    )


def _decay() -> dict:
    """What a decay beside the step can take of the weights in row 3.4."""
    share = decayed_share(1e-5, 0.05, STEPS)
    return _sum(
        "Decay 0.05 beside the step brings sentiment's training accuracy from .920 to .449.",
        "3.4",
        f"no: it takes {share:.1%} of a weight in {STEPS:,} steps",
        "three seeds of row 3.4 at its word whose training accuracy stays where row 3.2's is",
    )


def _twice() -> dict:
    """Rows 4.4 and 4.5, equal in all six numbers."""
    equal = int((published("4.4") == published("4.5")).sum())
    return _sum(
        "Rows 4.4 and 4.5 are one run, printed twice.",
        "4.4, 4.5",
        f"fits: {equal} of six numbers agree; or a decay of 0.05 at rate 5e-6 changes nothing",
        "two logs with other losses (two runs of ours that differ in this decay alone and print "
        "the same six numbers would take its support away)",
    )


_SUMS: tuple[Callable[[], dict], ...] = (_one_answer, _other_order, _decay, _twice)


def hypotheses_markdown(runs: Iterable[Run]) -> str:
    """The hypotheses as a Markdown table."""
    head = ["hypothesis", "published row", "ours", "distance", "the row at its word", "verdict"]
    head.append("what would refute it")
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for line in hypotheses_table(runs).to_dict("records"):
        apart = "–" if np.isnan(line["distance"]) else f"{line['distance']:.3f}"
        if not np.isnan(line["low"]):
            apart += f" [{line['low']:.3f}, {line['high']:.3f}]"
        rival = "–" if np.isnan(line["rival"]) else f"{line['rival']:.3f}"
        cells = [line["hypothesis"], line["row"], line["by"], apart, rival]
        lines.append(f"| {' | '.join([*cells, line['verdict'], line['refuted_by']])} |")
    return "\n".join(lines)
