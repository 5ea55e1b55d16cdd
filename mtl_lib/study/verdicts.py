"""What stored runs say of the paper's claims: what stands, what does not, what cannot be told.

The rule of the verdicts is `RULE`; it is the same for all claims.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from mtl_lib.study.claims import CLAIMS, GAIN, NO_GAIN, Claim, Comparison
from mtl_lib.study.gates import gate, gates_sentences
from mtl_lib.study.groups import missing_rows, studies
from mtl_lib.study.paper import PAPER_FIGURE_5, PAPER_FINAL_DEV, PAPER_SCORES, TASK_ORDER
from mtl_lib.study.rows import ALL_ROWS
from mtl_lib.study.store import Run
from mtl_lib.study.uncertainty import (
    AVERAGE,
    COSINES,
    EARLIER,
    ENOUGH_SEEDS,
    OF_EPOCHS,
    Estimate,
    Evidence,
    by_label_measure,
)
from mtl_lib.tasks import PARAPHRASE, SIMILARITY

HOLDS, FAILS = "holds", "does not hold"
NOISE, UNTOLD = "within noise", "cannot be told here"
MARGIN = 0.01
"""A gain below one point counts as none."""
ALIKE = 0.999
"""Share of equal answers from which on two rows count as the same model."""

RULE = f"""\
Every claim is one or more differences between rows, paired by seed and by development example.

- **Which study tells it**: of those on the same corpora the one with most of its rows, of these
  the one with {ENOUGH_SEEDS} seeds that count for most of its differences, of these the longest.
- **Interval**: 95 %, in brackets, with the error of the seeds (spread over seeds, Student's t) and
  of the development set (bootstrap over examples); of a single seed the latter alone.
- **A difference**: an interval that ends below one point (+{MARGIN}; below zero for a cosine, and
  for a gain that the paper itself prints smaller than a point) shows that there is no gain worth
  the name, one that otherwise begins above zero shows a gain, any other is {NOISE}.
- **A claim** {HOLDS} if all its differences show what it says, {FAILS} if one of them shows the
  opposite, {UNTOLD} if one of them {UNTOLD}, and else is {NOISE}.
- **A difference {UNTOLD}** with fewer than {ENOUGH_SEEDS} seeds; between rows of different rates
  where a shortened study multiplies the paper's rates (the frozen control apart, whose heads have
  rates of their own); between rows that give the same answers ({ALIKE:.1%} of the labels;
  scores, of which no two are quite equal, are not asked), so that the change did nothing here; and
  where overfitting is said to shrink that is not there.
- **Seeds that do not count**: those with a run that did not train (its last training loss lies
  less than 5 % below a constant answer's on some task; the frozen control apart), or that gives
  the same answer for every example of the task. So where a change makes training fail, what is
  told is of the runs that did not.
- **Overfitting** is the score on a fixed sample of the training examples, the same for all rows
  and counted without an error, minus the development score. **Cosines** between gradients are
  means over the epochs; their intervals, and those of epochs, hold the error of the seeds only.

The intervals are not corrected for their number: one in twenty misses by chance, and a claim of
several differences is said not to hold too often, and to hold too seldom."""


def comparisons(runs: Iterable[Run], claims: Sequence[Claim] = CLAIMS) -> pd.DataFrame:
    """Every single difference behind the claims; those of one claim come from one study.

    Args:
        runs: stored runs on the same corpora (`by_corpora`); `RULE` says which study tells a claim.

    Returns:
        One line per difference: claim, study (its profile, "" without runs), rows, measure, task,
        expected, paper, ours, low, high, seed_error, example_error, seeds, readable (how many of
        its seeds no gate holds back), reason (why it cannot be told, if so), verdict, test (name
        and p-value of each seed, for plain differences of two rows: of these trained models, not of
        the methods). Where rows are not run, the numbers are NaN.
    """
    told_by = _told_by(runs, claims)
    tests = [
        _test(evidence, comparison, task)
        for claim, (_, evidence) in zip(claims, told_by, strict=True)
        for comparison in claim.comparisons
        for task in comparison.tasks
    ]
    return _differences(claims, told_by).assign(test=tests)


def _differences(
    claims: Sequence[Claim], told_by: Sequence[tuple[list[Run], Evidence]]
) -> pd.DataFrame:
    lines = []
    for claim, (used, evidence) in zip(claims, told_by, strict=True):
        factor = max((run.config["lr_factor"] for run in used), default=1)
        for comparison in claim.comparisons:
            for task in comparison.tasks:
                line = {
                    "claim": claim.words,
                    "study": used[0].config["profile"] if used else "",
                    "rows": comparison.words,
                    "measure": comparison.measure,
                    "task": task,
                    "expected": comparison.expected,
                    "paper": paper_value(comparison, task),
                }
                estimate, line["reason"] = untold(evidence, comparison, task, factor)
                line |= numbers(estimate)
                seeds = evidence.seeds(comparison.terms) and _readable(evidence, comparison, task)
                line["readable"] = len(seeds)
                line["verdict"] = UNTOLD
                if not line["reason"]:
                    margin = _margin(comparison, line["paper"])
                    line["verdict"] = verdict(estimate, comparison.expected, margin)
                lines.append(line)
    return pd.DataFrame(lines)


def claims_table(runs: Iterable[Run], claims: Sequence[Claim] = CLAIMS) -> pd.DataFrame:
    """The claims, one a line, with the paper's numbers, ours and a verdict by `RULE`.

    Args:
        runs: see `comparisons`; any number of seeds, rows may be missing.

    Returns:
        Columns: claim, source, rows, study, numbers (of each difference its name, the paper's
        number and ours with its 95 % interval, in words), seeds, readable, verdict, reason (what to
        know of this study's numbers), note (what to know of the claim). `seeds` is the smallest
        number behind a difference that has the claim's verdict, 0 for none, and `readable` the
        smallest number of them that no gate holds back.
    """
    told_by = _told_by(runs, claims)
    details = _differences(claims, told_by)
    lines = []
    for claim, (used, _) in zip(claims, told_by, strict=True):
        parts = details[details["claim"] == claim.words] if len(details) else details
        found = _together(parts["verdict"]) if claim.comparisons else UNTOLD
        deciding = parts[parts["verdict"] == found] if claim.comparisons else parts
        lines.append(
            {
                "claim": claim.words,
                "source": claim.source,
                "rows": "; ".join(dict.fromkeys(parts["rows"])) if claim.comparisons else "",
                "study": parts["study"].iloc[0] if claim.comparisons else "",
                "numbers": _in_words(parts) if claim.comparisons else (),
                "seeds": int(deciding["seeds"].min()) if claim.comparisons else 0,
                "readable": int(deciding["readable"].min()) if claim.comparisons else 0,
                "verdict": found,
                "reason": _reasons(claim, parts, used),
                "note": _note(claim, parts),
            }
        )
    return pd.DataFrame(lines)


def paper_value(comparison: Comparison, task: str) -> float:
    """The same number from the published tables; NaN where they do not have it."""
    if comparison.measure in OF_EPOCHS:
        return float("nan")
    if comparison.measure == "top":
        return 0.0  # "never predicted"
    if comparison.measure == "frequency":
        labels = PAPER_FIGURE_5[PAPER_FIGURE_5["task"] == task]
        columns = (labels[[name]].to_numpy().T for name in ("accuracy", "share"))
        return float(by_label_measure(*columns, "frequency")[0])
    if comparison.measure == "balance":
        return float(
            PAPER_FINAL_DEV.loc[task, "accuracy"] - PAPER_FINAL_DEV.loc[task, "balanced_accuracy"]
        )
    if not set(comparison.terms) <= set(PAPER_SCORES.index):
        return float("nan")
    tasks = TASK_ORDER if task == AVERAGE else (task,)
    scores = {"dev": 0.0, "train": 0.0}
    for row, factor in comparison.terms.items():
        for split in scores:
            published = [PAPER_SCORES.loc[row, f"{split}_{name}"] for name in tasks]
            scores[split] += factor * float(np.mean(published))
    return scores["train"] - scores["dev"] if comparison.measure == "gap" else scores["dev"]


def _margin(comparison: Comparison, paper: float) -> float:
    """Below which a gain counts as none: nothing is asked of it that the paper does not print."""
    small = comparison.expected == GAIN and 0 < paper < MARGIN
    return 0.0 if small or comparison.measure in COSINES else MARGIN


def verdict(estimate: Estimate, expected: str, margin: float = MARGIN) -> str:
    """The verdict on one difference by `RULE`, as far as its numbers decide."""
    if estimate.seeds < ENOUGH_SEEDS or np.isnan([estimate.low, estimate.high]).any():
        return UNTOLD
    if estimate.high < margin:
        return HOLDS if expected == NO_GAIN else FAILS
    if estimate.low > 0:
        return HOLDS if expected == GAIN else FAILS
    return NOISE


def _told_by(runs: Iterable[Run], claims: Iterable[Claim]) -> list[tuple[list[Run], Evidence]]:
    """For each claim the study that tells it, by `RULE`: its runs, none if there is no study."""
    groups = [(group, Evidence(group)) for group in studies(of_three_tasks(runs))]

    def strength(claim: Claim, group: tuple[list[Run], Evidence]) -> tuple[int, int]:
        evidence = group[1]
        counted = [
            len(_readable(evidence, comparison, task)) >= ENOUGH_SEEDS
            for comparison in claim.comparisons
            for task in comparison.tasks
        ]
        return sum(row in evidence.rows for row in claim.rows), sum(counted)

    # `max` takes the first of equals, and the groups begin with the most thorough.
    return [
        max(groups, key=partial(strength, claim), default=([], Evidence([]))) for claim in claims
    ]


def of_three_tasks(runs: Iterable[Run]) -> list[Run]:
    return [run for run in runs if len(run.config["heads"]) == len(TASK_ORDER)]


def untold(
    evidence: Evidence, comparison: Comparison, task: str, factor: float = 1.0
) -> tuple[Estimate | None, str]:
    """The estimate of a difference, of the seeds that may be read, and why nothing can be told.

    Args:
        factor: what the study multiplies the paper's rates by.

    Returns:
        None where its rows have no run in common; where no seed may be read, the numbers of all,
        from which nothing is told. The reason is empty where something is.
    """
    estimate, seeds = None, _readable(evidence, comparison, task)
    if evidence.seeds(comparison.terms):
        estimate = evidence.estimate(comparison.terms, task, comparison.measure, seeds or None)
    return estimate, _reason(evidence, comparison, task, estimate, factor)


def numbers(estimate: Estimate | None) -> dict[str, float]:
    """An estimate as cells of a line; without one no number."""
    if not estimate:
        names = ("ours", "low", "high", "seed_error", "example_error")
        return dict.fromkeys(names, float("nan")) | {"seeds": 0}
    return {
        "ours": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "seed_error": estimate.seed_error,
        "example_error": estimate.example_error,
        "seeds": estimate.seeds,
    }


def _test(evidence: Evidence, comparison: Comparison, task: str) -> str:
    """The paired test of a plain difference, by seed; empty where it is none, or not run."""
    pair = _pair(comparison)
    if not pair or task == AVERAGE or not evidence.seeds(pair):
        return ""
    name, values = evidence.p_values(*pair, task)
    return f"{name} p = {', '.join(f'{value:.2g}' for value in values)}"


def _readable(evidence: Evidence, comparison: Comparison, task: str) -> list[int]:
    """The common seeds of the rows whose runs no gate holds back on this task."""
    tasks = TASK_ORDER if task == AVERAGE else (task,)
    return [
        seed
        for seed in evidence.seeds(comparison.terms)
        if not any(gate(evidence.runs[row][seed], tasks) for row in comparison.terms)
    ]


def _pair(comparison: Comparison) -> tuple[str, str] | None:
    """The two rows of a plain difference of development scores, the better one said first."""
    if comparison.measure != "dev" or sorted(comparison.terms.values()) != [-1, 1]:
        return None
    return tuple(sorted(comparison.terms, key=comparison.terms.get, reverse=True))


def _reason(
    evidence: Evidence, comparison: Comparison, task: str, estimate: Estimate | None, factor: float
) -> str:
    """Why `RULE` lets nothing be told from a difference, in words; empty where it does."""
    if missing := [row for row in comparison.terms if row not in evidence.rows]:
        return f"Not run: {', '.join(missing)}."
    if not estimate:
        return "Its rows have no seed in common."
    if len(readable := _readable(evidence, comparison, task)) < ENOUGH_SEEDS:
        runs = [run for row in comparison.terms for run in evidence.runs[row].values()]
        if sentences := gates_sentences(runs, TASK_ORDER if task == AVERAGE else (task,), False):
            return " ".join(sentences)
    if factor != 1 and _rates_differ(comparison):
        return f"It compares rates, which are {factor:g} times the paper's here."
    if comparison.measure == "late" and np.isnan(estimate.value):
        return f"Its runs have no more than {EARLIER} epochs."
    if np.isnan(estimate.value):
        return "A seed gives one answer only, which correlates with nothing."
    if estimate.seeds < ENOUGH_SEEDS:
        return "Too few seeds."
    if (pair := _pair(comparison)) and evidence.alike(*pair, task, readable) > ALIKE:
        return f"Rows {' and '.join(pair)} give the same answers: the change did nothing here."
    if comparison.measure == "gap":
        row = max(comparison.terms, key=comparison.terms.get)
        gap = evidence.estimate({row: 1}, task, "gap", readable)
        if gap.low <= 0:
            return f"Row {row} is not seen to overfit on {task} here (gap {gap.value:+.3f})."
    return ""


def _rates_differ(comparison: Comparison) -> bool:
    """Whether it compares fine-tuned rows of different learning rates."""
    return len({ALL_ROWS[row].lr for row in comparison.terms if not ALL_ROWS[row].frozen}) > 1


def _together(verdicts: Iterable[str]) -> str:
    """All must hold; one that does not decides; then what is missing, then what is noise."""
    found = set(verdicts)
    return next(v for v in (FAILS, UNTOLD, NOISE, HOLDS) if v in found)


MEASURES = {
    "dev": "",
    "gap": "overfitting, ",
    "frequency": "most frequent label minus the others, ",
    "top": "share of predictions of 5, ",
    "balance": "accuracy minus balanced accuracy, ",
    "late": f"best epoch minus the best of the first {EARLIER}, ",
    "opposition": "minus the cosine, ",
    "agreement": "cosine above that with other tasks, ",
}


def _in_words(parts: pd.DataFrame) -> tuple[tuple[str, str, str], ...]:
    """Each difference of a claim: its name, the paper's number, ours."""
    return tuple(
        (
            f"{line['rows']}, {MEASURES[line['measure']]}{line['task']}",
            _paper_words(line),
            our_words(line),
        )
        for line in parts.to_dict("records")
    )


def _paper_words(line: dict) -> str:
    return "–" if np.isnan(line["paper"]) else f"{line['paper']:+.3f}"


def our_words(line: dict) -> str:
    """Our number of a difference with its interval, as a page shows them."""
    if not line["seeds"]:
        return "–"
    if np.isnan(line["ours"]):
        return "undefined"
    value = f"{line['ours']:+z.3f}"  # no -0.000
    if np.isnan(line["low"]):
        return value
    ends = (line["low"], line["high"])
    # On which side of zero, and of what counts as no gain?
    near = any(0 < abs(end - edge) < 0.0005 for end in ends for edge in (0, MARGIN))
    digits = 4 if near else 3
    return f"{value} [{', '.join(f'{end:+z.{digits}f}' for end in ends)}]"


def _reasons(claim: Claim, parts: pd.DataFrame, runs: Sequence[Run]) -> str:
    """Why something cannot be told from this study, and what to keep in mind of its numbers."""
    if not claim.comparisons:
        return ""
    if missing := missing_rows(runs, claim.rows):
        where = f" in `{runs[0].config['profile']}`" if runs else ""
        return f"Not run{where}: {', '.join(missing)}."
    # What a gate holds back is said once for the claim, with the cautions.
    gated = ("Not trained", "The same answer")
    reasons = dict.fromkeys(r for r in parts["reason"] if r and not r.startswith(gated))
    return " ".join([*reasons, *_cautions(claim, parts, runs)])


def _note(claim: Claim, parts: pd.DataFrame) -> str:
    """What to keep in mind of a claim, whatever the study."""
    sentences = []
    told = parts[parts["paper"].notna()] if len(parts) else parts
    if against := [line for line in told.to_dict("records") if not _paper_agrees(line)]:
        names = dict.fromkeys(f"{line['rows']} on {line['task']}" for line in against)
        sentences.append(f"The paper's own numbers say otherwise: {', '.join(names)}.")
    return " ".join([*sentences, *filter(None, [claim.note])])


def _paper_agrees(line: dict) -> bool:
    if line["expected"] == GAIN:
        return line["paper"] > 0
    return line["paper"] < MARGIN or line["measure"] == "gap"  # "not effectively": a little may be


def _cautions(claim: Claim, parts: pd.DataFrame, runs: Sequence[Run]) -> list[str]:
    """What the corpora, the encoder and collapsed runs mean for a comparison of these tasks."""
    if not len(parts) or not runs or not parts["seeds"].max():
        return []
    tasks, sentences = set(parts["task"]), []
    notes = runs[0].provenance["corpus"]["notes"]
    if tasks & {PARAPHRASE.name, AVERAGE} and any(note.startswith("quora-train") for note in notes):
        sentences.append("Substitute Quora file.")
    encoder = Path(runs[0].config["encoder"]).name
    if tasks & {PARAPHRASE.name, SIMILARITY.name, AVERAGE} and encoder in SIMILARITY_TRAINED:
        sentences.append("Encoder trained on similarity before.")
    compared = [run for run in runs if run.config["row"] in claim.rows]
    return sentences + gates_sentences(compared, TASK_ORDER if AVERAGE in tasks else tasks, False)


SIMILARITY_TRAINED = ("minilm-l6", "minilm-l6-fp16")
"""Encoders that were trained on sentence similarity before they came here."""
