"""The paper's claims, held against stored runs: what stands, what does not, what cannot be told.

A claim is data: the paper's words, the rows it compares, and what the numbers would have to show.
The rule of the verdicts is `RULE`; it is the same for all.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from mtl_lib.study.config import STUDY_VERSION
from mtl_lib.study.floors import KINDS, floor_score, read_floors
from mtl_lib.study.gates import ONE_ANSWER, counted, gate, gates_sentences, held_words
from mtl_lib.study.groups import by_corpora, missing_rows, provenance_line, studies
from mtl_lib.study.paper import PAPER_FIGURE_5, PAPER_FINAL_DEV, PAPER_SCORES, TASK_ORDER
from mtl_lib.study.profiles import PROFILES
from mtl_lib.study.queue import QUEUE
from mtl_lib.study.rows import ALL_ROWS
from mtl_lib.study.store import Run
from mtl_lib.study.uncertainty import (
    AVERAGE,
    COSINES,
    Estimate,
    Evidence,
    by_label_measure,
    seed_interval,
)
from mtl_lib.tasks import BY_NAME

HOLDS, FAILS = "holds", "does not hold"
NOISE, UNTOLD = "within noise", "cannot be told here"
MARGIN = 0.01
"""A gain below one point counts as none."""
ENOUGH_SEEDS = 3
ALIKE = 0.999
"""Share of equal answers from which on two rows count as the same model."""

RULE = (
    "Every claim is one or more differences between rows, paired by seed and by development "
    "example. One study tells a claim: of those on the same corpora the one with most of its "
    f"rows, of these one where they have {ENOUGH_SEEDS} seeds in common, of these the longest. The "
    "95 % intervals, in brackets, hold the error of the seeds (spread over seeds, Student's t) and "
    "of the development set (bootstrap over examples). An interval that ends below one point "
    f"(+{MARGIN}; for a cosine, below zero) shows that there is no gain worth the name, one that "
    f"otherwise begins above zero shows a gain, any other is {NOISE}. A claim {HOLDS} if all its "
    f"differences show what it says, {FAILS} if one of them shows the opposite, {UNTOLD} if one of "
    f"them {UNTOLD}, and else is {NOISE}. A difference {UNTOLD} with fewer than {ENOUGH_SEEDS} "
    "seeds; between rows of different rates where a shortened study multiplies the paper's rates "
    "(the frozen control apart, whose heads have rates of their own); between rows that give the "
    "same answers, so that the change did nothing here; and where overfitting is said to shrink "
    "that is not there. Seeds with a run that did not train (its last training loss lies less than "
    "5 % below a constant answer's on some task; the frozen control apart), or that gives the same "
    "answer for every example of the task, do not count. Overfitting is the score on a fixed "
    "sample of the training examples, the same for all rows and counted without an error, minus "
    "the development score. Cosines "
    "between gradients are means over the epochs; their intervals hold the error of the seeds "
    "only. The intervals are not corrected for their number: one in twenty misses by chance."
)

GAIN, NO_GAIN = "gain", "no gain"


@dataclass(frozen=True)
class Comparison:
    """One thing that a claim needs: a sum of rows' scores, each times its factor.

    Attributes:
        terms: factor by row: `{"3.2": 1, "3.1": -1}` is row 3.2 minus row 3.1.
        tasks: tasks for which it must be so; "average" is the mean of the three.
        expected: "gain" or "no gain".
        measure: see `Evidence.estimate`.
    """

    terms: Mapping[str, float]
    tasks: tuple[str, ...] = (AVERAGE,)
    expected: str = GAIN
    measure: str = "dev"

    @property
    def words(self) -> str:
        """The rows as a difference: "3.2 - 3.1"."""
        parts = []
        for row, factor in self.terms.items():
            sign = "-" if factor < 0 else "+" if parts else ""
            number = "" if abs(factor) == 1 else f"{abs(factor):g} x "
            parts.append(f"{sign} {number}{row}".strip())
        return " ".join(parts)


@dataclass(frozen=True)
class Claim:
    """A statement of the paper, or a control that it lacks.

    Attributes:
        words: the paper's, or a close paraphrase.
        source: section and figure.
        comparisons: what would make it hold; none: nothing here can.
        note: what does not fit together, or what the comparison cannot say.
    """

    words: str
    source: str
    comparisons: tuple[Comparison, ...] = ()
    note: str = ""
    rows: tuple[str, ...] = field(init=False)

    def __post_init__(self):
        rows = dict.fromkeys(row for c in self.comparisons for row in c.terms)
        object.__setattr__(self, "rows", tuple(rows))


def _over(row: str, other: str, *tasks: str, **options) -> Comparison:
    """A row's score minus another's."""
    return Comparison({row: 1, other: -1}, tasks or (AVERAGE,), **options)


PAIR, ONE, SCORE = "paraphrase", "sentiment", "similarity"
FINAL, ARCHITECTURE, BASELINE, FROZEN = "4.6", "3.10", "3.1", "frozen-1e-3"
FROZEN_ROWS = (FROZEN, "frozen-1e-5")

CLAIMS = (
    Claim(
        "Adding gradient surgery improves performance in all three tasks.",
        "5.4, Figure 3",
        (_over("3.2", BASELINE, *TASK_ORDER),),
        "The published baseline's training scores (.663, .337, .274) are those of a model that "
        "hardly trained; the surgery row reaches .756, .920, .966.",
    ),
    Claim(
        "The most significant improvement resulted from the addition of gradient surgery.",
        "6",
        (_over("3.2", BASELINE), Comparison({"3.2": 2, BASELINE: -1, ARCHITECTURE: -1})),
        "A gain on the average, and larger than what the final architecture adds (3.2 to 3.10).",
    ),
    Claim(
        "The baseline without gradient surgery was not able to train effectively for any task.",
        "6",
        tuple(_over(BASELINE, row, *TASK_ORDER, expected=NO_GAIN) for row in FROZEN_ROWS),
        "Our reading: no better than heads on a frozen encoder, which the paper lacks.",
    ),
    Claim(
        "Raising the similarity dropout to 0.5 reduces overfitting and increases the correlation.",
        "5.4, Figure 3",
        (_over("3.2", "3.3", SCORE, measure="gap"), _over("3.3", "3.2", SCORE)),
    ),
    Claim(
        "Increased dropout does appear to help sentiment and similarity in the final architecture.",
        "5.4",
        (),
        "No row isolates it there. Row 3.8 does on surgery alone (see the controls), and in the "
        "paper's Figure 3 it loses (sentiment .414 against .494).",
    ),
    Claim(
        "L2 and L1 regularization help to mitigate overfitting on similarity.",
        "5.4, Figure 3",
        (
            _over("3.2", "3.4", SCORE, measure="gap"),
            _over("3.2", "3.5", SCORE, measure="gap"),
        ),
        "Decay 0.05 at rate 1e-5 shrinks weights by 0.4 % in 7,550 steps: too little for the "
        "published fall of sentiment training accuracy from .920 to .449.",
    ),
    Claim(
        "L2 and L1 do worse than gradient surgery plus increased dropout.",
        "5.4, Figure 3",
        (_over("3.3", "3.4"), _over("3.3", "3.5")),
        "Published sentiment training scores near .45 (3.4, 3.5) look like a frozen encoder.",
    ),
    Claim(
        "None of the regularization efforts helped to significantly improve performance.",
        "5.4, Figure 3",
        tuple(_over(row, "3.2", expected=NO_GAIN) for row in ("3.4", "3.5", "3.6"))
        + (_over("3.9", "3.8", expected=NO_GAIN),),
        "On the average. The paper also has L-infinity improve similarity (next line).",
    ),
    Claim(
        "L-infinity regularization noticeably improves the similarity task.",
        "5.4, Figure 3",
        (_over("3.6", "3.2", SCORE),),
    ),
    Claim(
        "L-infinity regularization did not effectively reduce overfitting.",
        "5.4, Figure 3",
        (_over("3.2", "3.6", SCORE, expected=NO_GAIN, measure="gap"),),
    ),
    Claim(
        "SMART does not improve results for sentiment on top of more dropout.",
        "5.4 and 6, Figure 3",
        (_over("3.9", "3.8", ONE, expected=NO_GAIN),),
        "Published sentiment training accuracy .273: the term as run there kept the task from "
        "training, so the paper does not tell SMART from a fault in it. At our settings the term "
        "starts many orders of magnitude below the loss (chapter 08).",
    ),
    Claim(
        "A second linear layer ultimately only improves the score for similarity.",
        "5.4, Figure 3",
        (_over("3.7", "3.2", SCORE), _over("3.7", "3.2", PAIR, ONE, expected=NO_GAIN)),
        "One linear layer over [u; v] cannot compare two sentences; with a hidden layer it can, a "
        "little.",
    ),
    Claim(
        "The rate 5e-5 achieves a significantly higher similarity correlation than 1e-5.",
        "5.4, Figure 4",
        (_over(FINAL, ARCHITECTURE, SCORE),),
    ),
    Claim(
        "5e-5 is the best learning rate.",
        "5.4, Figure 4",
        tuple(_over(FINAL, row) for row in ("4.5", ARCHITECTURE, "4.7", "4.8")),
        "Against 5e-6, 1e-5, 3e-5 and 6e-5, on the average. Published rows 4.4 and 4.5 agree in "
        "all six numbers.",
    ),
    Claim(
        "Weight decay helps with overfitting but lowers overall performance.",
        "5.4 and 6, Figure 4",
        (_over(ARCHITECTURE, "4.2", ONE, SCORE, measure="gap"), _over(ARCHITECTURE, "4.2")),
        "Decay 0.1 at rate 1e-5 shrinks weights by less than 1 % in 7,550 steps.",
    ),
    Claim(
        "Batch size 16 does not improve the overall scores.",
        "5.4, Figure 4",
        (_over("4.1", ARCHITECTURE, expected=NO_GAIN),),
        "At equal epochs, so with half as many steps.",
    ),
    Claim(
        "Class weights do not significantly improve sentiment.",
        "5.4, Figure 4",
        (_over("4.9", FINAL, ONE, expected=NO_GAIN),),
    ),
    Claim(
        "The model performs slightly better with LeakyReLU on the development set.",
        "5.4, Figure 4",
        (_over("4.10", FINAL),),
        "On the average. In the paper similarity gains .018 and sentiment loses .024.",
    ),
    Claim(
        "On the test set, ReLU provides better results than LeakyReLU.",
        "5.4",
        (),
        "The test labels are not public, and the paper prints no test score for LeakyReLU.",
    ),
    Claim(
        "Classes with a higher number of observations have higher accuracies.",
        "6, Figure 5",
        (Comparison({FINAL: 1}, TASK_ORDER, measure="frequency"),),
        "Accuracy on the label with most examples, minus the mean of the others'. Figure 5's own "
        "similarity column has .448 at 16.6 % and .189 at 24.5 %; rank correlations over so few "
        "labels say next to nothing (chapter 10).",
    ),
    Claim(
        "The highest similarity class is never predicted.",
        "6, Figure 5",
        (Comparison({FINAL: 1}, (SCORE,), NO_GAIN, "top"),),
        "Share of the predictions that round to 5.",
    ),
    Claim(
        "Balanced accuracy is slightly lower than accuracy.",
        "5.4",
        (Comparison({FINAL: 1}, (PAIR, ONE), measure="balance"),),
        "Figure 5's paraphrase column implies accuracy .569 and balanced accuracy .519, not the "
        "published .728 and .688.",
    ),
    Claim(
        "There is significant improvement from the baseline to the final model.",
        "6, Figure 9",
        (_over(FINAL, BASELINE, *TASK_ORDER),),
        "The two differ in rate, heads, penalty and surgery at once.",
    ),
    Claim(
        "The final model is better than every row of Figure 3.",
        "5.3 and 5.4",
        tuple(_over(FINAL, row) for row in PAPER_SCORES.index if row.startswith("3.")),
        "On the average of the three tasks.",
    ),
    Claim(
        "Paraphrase detection performs best with fewer additions after gradient surgery.",
        "6",
        (_over("3.2", ARCHITECTURE, PAIR),),
        "Against the final architecture, at one rate.",
    ),
    Claim(
        "Model performance did not improve after 6-9 epochs.",
        "5.4",
        (),
        "The paper shows no curve, and the shortened studies have fewer epochs.",
    ),
)
"""The paper's Results (5.4) and Analysis (6), claim by claim."""

CONTROLS = (
    Claim(
        "Fine-tuning gains more than surgery does on top of it.",
        "control",
        (Comparison({BASELINE: 2, FROZEN: -1, "3.2": -1}),),
        "The paper's gain from surgery may be the gain from fine-tuning.",
    ),
    Claim(
        "The final architecture improves on the baseline at the same rate.",
        "control",
        (_over(ARCHITECTURE, BASELINE, *TASK_ORDER),),
        "Heads, penalty and surgery still differ at once.",
    ),
    Claim(
        "More dropout helps sentiment and similarity, on top of surgery alone.",
        "control",
        (_over("3.8", "3.2", ONE, SCORE),),
    ),
    Claim(
        "Heads that can compare gain more than surgery, on both pair tasks.",
        "control",
        (_over("compare", "3.2", PAIR, SCORE),),
        "Rows compare and 3.2 each differ from the baseline in one thing.",
    ),
    Claim(
        "Surgery still gains where the heads can compare.",
        "control",
        (_over("compare-surgery", "compare"), _over("cosine-surgery", "cosine")),
    ),
    Claim(
        "A random order of the projections is better than a fixed one.",
        "control",
        (_over("3.2", "fixed-order"),),
    ),
    Claim(
        "The tasks' gradients are opposed: a task's mean cosine with the others lies below zero.",
        "control",
        (Comparison({BASELINE: 1}, TASK_ORDER, measure="opposition"),),
        "What surgery is made for. The numbers are minus the mean cosine.",
    ),
    Claim(
        "Two batches of one task agree more than batches of two tasks do.",
        "control",
        (Comparison({"same-task": 1}, TASK_ORDER, measure="agreement"),),
        "The scale for the line above: what batches of eight show of a common aim.",
    ),
    Claim(
        "Batch size 16 does not improve the overall scores at as many steps, either.",
        "control",
        (_over("equal-steps", ARCHITECTURE, expected=NO_GAIN),),
        "With twice the examples, at the rate of batch 8, and as the best of twice as many "
        "evaluations.",
    ),
)
"""What the paper does not compare, and what its claims hang on."""


def claim_rows(claims: Iterable[Claim] = CLAIMS) -> list[str]:
    """The rows that some claims compare, each once."""
    return list(dict.fromkeys(row for claim in claims for row in claim.rows))


def comparisons(runs: Iterable[Run], claims: Sequence[Claim] = CLAIMS) -> pd.DataFrame:
    """Every single difference behind the claims; those of one claim come from one study.

    Args:
        runs: stored runs on the same corpora (`by_corpora`); `RULE` says which study tells a claim.

    Returns:
        One line per difference: claim, study (its profile, "" without runs), rows, measure, task,
        expected, paper, ours, low, high, seeds, seed_error, example_error, test (name and p-value
        of each seed, for plain differences of two rows: of these trained models, not of the
        methods), reason (why it cannot be told, if so), verdict. Where rows are not run, the
        numbers are NaN.
    """
    return _differences(claims, _told_by(runs, claims))


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
                estimate, seeds = None, _readable(evidence, comparison, task)
                if evidence.seeds(comparison.terms):  # none readable: numbers, but no verdict
                    terms, measure = comparison.terms, comparison.measure
                    estimate = evidence.estimate(terms, task, measure, seeds or None)
                line |= _result(evidence, comparison, task, estimate)
                line["reason"] = _reason(evidence, comparison, task, estimate, factor)
                margin = 0.0 if comparison.measure in COSINES else MARGIN
                told = not line["reason"]
                line["verdict"] = verdict(estimate, comparison.expected, margin) if told else UNTOLD
                lines.append(line)
    return pd.DataFrame(lines)


def claims_table(runs: Iterable[Run], claims: Sequence[Claim] = CLAIMS) -> pd.DataFrame:
    """The claims, one a line, with the paper's numbers, ours and a verdict by `RULE`.

    Args:
        runs: see `comparisons`; any number of seeds, rows may be missing.

    Returns:
        Columns: claim, source, rows, paper, ours, study, seeds, verdict, reason (what to know of
        this study's numbers), note (what to know of the claim). `ours` gives value and 95 %
        interval; `seeds` is the smallest number behind a number of the line, 0 for none.
    """
    told_by = _told_by(runs, claims)
    details = _differences(claims, told_by)
    lines = []
    for claim, (used, _) in zip(claims, told_by, strict=True):
        parts = details[details["claim"] == claim.words] if len(details) else details
        lines.append(
            {
                "claim": claim.words,
                "source": claim.source,
                "rows": "; ".join(dict.fromkeys(parts["rows"])) if claim.comparisons else "",
                "paper": _in_words(parts, _paper_words) if claim.comparisons else "",
                "ours": _in_words(parts, _our_words) if claim.comparisons else "",
                "study": parts["study"].iloc[0] if claim.comparisons else "",
                "seeds": int(parts["seeds"].min()) if claim.comparisons else 0,
                "verdict": _together(parts["verdict"]) if claim.comparisons else UNTOLD,
                "reason": _reasons(claim, parts, used),
                "note": _note(claim, parts),
            }
        )
    return pd.DataFrame(lines)


def paper_value(comparison: Comparison, task: str) -> float:
    """The same number from the published tables; NaN where they do not have it."""
    if comparison.measure in COSINES:
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
    groups = [(group, Evidence(group)) for group in studies(_of_three_tasks(runs))]

    def strength(claim: Claim, group: tuple[list[Run], Evidence]) -> tuple[int, int]:
        evidence = group[1]
        there = [row for row in claim.rows if row in evidence.rows]
        return len(there), min(ENOUGH_SEEDS, len(evidence.seeds(there))) if there else 0

    # `max` takes the first of equals, and the groups begin with the most thorough.
    return [
        max(groups, key=partial(strength, claim), default=([], Evidence([]))) for claim in claims
    ]


def _of_three_tasks(runs: Iterable[Run]) -> list[Run]:
    return [run for run in runs if len(run.config["heads"]) == len(TASK_ORDER)]


def _result(
    evidence: Evidence, comparison: Comparison, task: str, estimate: Estimate | None
) -> dict:
    names = ("value", "low", "high", "seed_error", "example_error")
    numbers = {name: getattr(estimate, name) if estimate else float("nan") for name in names}
    test = ""
    if estimate and (pair := _pair(comparison)) and task != AVERAGE:
        name, values = evidence.p_values(*pair, task)
        test = f"{name} p = {', '.join(f'{value:.2g}' for value in values)}"
    return {
        "ours": numbers.pop("value"),
        **numbers,
        "seeds": estimate.seeds if estimate else 0,
        "test": test,
    }


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
        held = [run for run in runs if run.config["seed"] not in readable]
        if sentences := gates_sentences(held, TASK_ORDER if task == AVERAGE else (task,), False):
            return " ".join(sentences)
    if factor != 1 and _rates_differ(comparison):
        return f"It compares rates, which are {factor:g} times the paper's here."
    if np.isnan(estimate.value):
        return "A seed gives one answer only, which correlates with nothing."
    if estimate.seeds < ENOUGH_SEEDS:
        return "Too few seeds."
    if (pair := _pair(comparison)) and evidence.alike(*pair, task) > ALIKE:
        return f"Rows {' and '.join(pair)} give the same answers: the change did nothing here."
    if comparison.measure == "gap":
        row = max(comparison.terms, key=comparison.terms.get)
        gap = evidence.estimate({row: 1}, task, "gap")
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
    "opposition": "minus the cosine, ",
    "agreement": "cosine above that with other tasks, ",
}


def _in_words(parts: pd.DataFrame, words) -> str:
    """The numbers of a claim; the rows are named where it compares more than one pair."""
    several = parts["rows"].nunique() > 1
    texts = []
    for line in parts.to_dict("records"):
        name = MEASURES[line["measure"]] + line["task"]
        texts.append(f"{line['rows'] + ', ' if several else ''}{name} {words(line)}")
    return "; ".join(texts)


def _paper_words(line: dict) -> str:
    return "–" if np.isnan(line["paper"]) else f"{line['paper']:+.3f}"


def _our_words(line: dict) -> str:
    if not line["seeds"]:
        return "–"
    if np.isnan(line["ours"]):
        return "undefined"
    if np.isnan(line["low"]):
        return f"{line['ours']:+.3f}"
    ends = (line["low"], line["high"])
    digits = 4 if any(0 < abs(end) < 0.0005 for end in ends) else 3  # on which side of zero?
    return f"{line['ours']:+.3f} [{', '.join(f'{end:+.{digits}f}' for end in ends)}]"


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
    if tasks & {PAIR, AVERAGE} and any(note.startswith("quora-train") for note in notes):
        sentences.append("Substitute Quora file.")
    encoder = Path(runs[0].config["encoder"]).name
    if tasks & {PAIR, SCORE, AVERAGE} and encoder in SIMILARITY_TRAINED:
        sentences.append("Encoder trained on similarity before.")
    compared = [run for run in runs if run.config["row"] in claim.rows]
    return sentences + gates_sentences(compared, TASK_ORDER if AVERAGE in tasks else tasks, False)


SIMILARITY_TRAINED = ("minilm-l6", "minilm-l6-fp16")
"""Encoders that were trained on sentence similarity before they came here."""

CAUTIONS = {
    "handbook": (
        "The embedded corpora are sentences made by a grammar, and `tiny-pretrained` is two layers "
        "that have read nothing else: no level here compares with the paper's. The differences "
        "show what a change does where everything else is known."
    ),
    "quora-train": (
        "`quora-train.csv` is not the original file (141,506 pairs) but a substitute of 43,086 "
        "labelled pairs, none of them in the development file. Differences between rows of this "
        "study meet the same file on both sides; levels of paraphrase accuracy do not compare with "
        "the paper's."
    ),
    "encoder": (
        "`minilm-l6` was trained on sentence similarity before, Quora's pairs among it: levels on "
        "paraphrase and similarity do not compare with those of the paper's BERT. Both rows of a "
        "difference start from it, and a change may do less, or more, than it would from BERT."
    ),
}


def claims_markdown(runs: Iterable[Run]) -> str:
    """The README's section: the rule, the claims with a verdict by corpora, and the studies."""
    runs = list(runs)
    by_name = by_corpora(_of_three_tasks(runs))
    if not by_name:
        return "No study is stored yet: `mtl sweep` trains one.\n"
    claims, controls = (
        {
            CORPORA.get(name, f"corpora {name}"): claims_table(of, asked)
            for name, of in by_name.items()
        }
        for asked in (CLAIMS, CONTROLS)
    )
    plural = {HOLDS: "hold", FAILS: "do not hold", NOISE: NOISE, UNTOLD: UNTOLD}
    counts = []
    for corpora, table in claims.items():
        verdicts = table["verdict"].value_counts()
        told = ", ".join(f"{verdicts.get(v, 0)} {words}" for v, words in plural.items())
        counts.append(f"on the {corpora} {told}")
    parts = [
        RULE,
        f"Of the paper's {len(CLAIMS)} claims, {'; '.join(counts)}. The studies are described "
        "below the tables.",
        _markdown(claims),
        "Controls that the paper lacks:",
        _markdown(controls),
    ]
    for group in _described(runs):
        parts += [f"The study `{group[0].config['profile']}`:", *_study_markdown(group)]
    return "\n\n".join(parts) + "\n"


def _study_markdown(runs: Sequence[Run]) -> list[str]:
    """What a study is, what to keep in mind about its numbers, and the scores of its key rows."""
    corpus = runs[0].provenance["corpus"]
    cautions = [CAUTIONS["handbook"]] if corpus["name"] == "handbook" else []
    if any(note.startswith("quora-train") for note in corpus["notes"]):
        cautions.append(CAUTIONS["quora-train"])
    if Path(runs[0].config["encoder"]).name in SIMILARITY_TRAINED:
        cautions.append(CAUTIONS["encoder"])
    return [provenance_line(runs), *cautions, scores_markdown(runs), *seeds_to_go(runs)]


def seeds_to_go(runs: Sequence[Run]) -> list[str]:
    """Which runs of its plan (`queue.QUEUE`) a study still lacks, and the command that trains them.

    Empty if none. A study of an older version, or of other settings than its profile's, has no
    plan.
    """
    config = runs[0].config
    row, profile, seed = (config[name] for name in ("row", "profile", "seed"))
    if profile not in PROFILES:  # of a former profile: others take its place
        return []
    settings = replace(PROFILES[profile], encoder=config["encoder"])
    as_planned = config == settings.apply(ALL_ROWS[row], profile, seed).as_dict()
    if not as_planned or runs[0].provenance["study_version"] != STUDY_VERSION:
        return []
    stored = {(run.config["row"], run.config["seed"]) for run in runs}
    lacking: dict[str, list[int]] = {}
    for planned, row, seed in QUEUE:
        if planned == profile and (row, seed) not in stored:
            lacking.setdefault(row, []).append(seed)
    if not lacking:
        return []
    by_seeds: dict[tuple[int, ...], list[str]] = {}
    for row, seeds in lacking.items():
        by_seeds.setdefault(tuple(seeds), []).append(row)
    parts = [
        f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))} of {', '.join(rows)}"
        for seeds, rows in by_seeds.items()
    ]
    return [
        f"Planned and not trained yet: {'; '.join(parts)}. `make study DATA=FOLDER` goes on with "
        "them."
    ]


def _described(runs: Iterable[Run]) -> list[list[Run]]:
    """The best study of every profile, if a key row is among its rows."""
    found: dict[str, list[Run]] = {}
    for group in studies(_of_three_tasks(runs)):
        if any(run.config["row"] in KEY_ROWS for run in group):
            found.setdefault(group[0].config["profile"], group)
    return list(found.values())


CORPORA = {"handbook": "embedded corpora", "cs224n": "real corpora"}
KEY_ROWS = (BASELINE, "3.2", ARCHITECTURE, FINAL, *FROZEN_ROWS)


def scores_markdown(runs: Sequence[Run], rows: Sequence[str] = KEY_ROWS) -> str:
    """Development scores of some rows as a Markdown table: mean over seeds, the paper's beside.

    Below the rows stands what a bag of words reaches on the same corpora, where that is stored.
    """
    head = "| development set, the paper in brackets | paraphrase | sentiment | similarity (r) |"
    lines = [f"{head} seeds |", "|---|---|---|---|---|"]
    for row in rows:
        there = [run for run in runs if run.config["row"] == row]
        if not there:
            continue
        cells = []
        for task in TASK_ORDER:
            metric, of_row = BY_NAME[task].metric, counted(there, task)
            scores = [run.metrics["best"]["dev"][task][metric] for run in of_row]
            mean, low, high = seed_interval(scores or [np.nan])
            half = "" if np.isnan(low) else f" ± {(high - low) / 2:.3f}"
            paper = ""
            if row in PAPER_SCORES.index:
                paper = f" ({PAPER_SCORES.loc[row, f'dev_{task}']:.3f})"
            cells.append(f"{mean:.3f}{half}{paper}" if of_row else f"{ONE_ANSWER}{paper}")
        name = there[0].config["name"]
        name = f"{row} {name}" if row in PAPER_SCORES.index else name
        if held := held_words(there):
            name += f" ({held})"
        lines.append(f"| {name} | {' | '.join(cells)} | {len(there)} |")
    corpus = runs[0].provenance["corpus"]
    floors = read_floors(corpus["name"], corpus["fingerprint"])
    for kind in KINDS if floors else ():
        cells = " | ".join(f"{floor_score(floors, task, kind):.3f}" for task in TASK_ORDER)
        lines.append(f"| words alone, no network: {kind} | {cells} | |")
    if any("±" in line for line in lines):
        lines.append("\n±: half of Student's 95 % interval of the mean over seeds, examples apart.")
    return "\n".join(lines)


def _markdown(tables: Mapping[str, pd.DataFrame]) -> str:
    """The claims as a Markdown table; each set of corpora has a column for verdicts and numbers."""
    head = ["claim (section; rows)", "paper", *tables, "to keep in mind"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for same_claim in zip(*(t.to_dict("records") for t in tables.values()), strict=True):
        line = same_claim[0]
        where = "; ".join(filter(None, [line["source"], line["rows"]]))
        cells = [f"{line['claim']} ({where})", line["paper"]]
        cells += [_verdict_cell(on_corpora) for on_corpora in same_claim]
        lines.append(f"| {' | '.join([*cells, line['note']])} |")
    return "\n".join(lines)


def _verdict_cell(line: Mapping) -> str:
    if not line["seeds"]:
        return f"**{line['verdict']}**" + (f": {line['reason']}" if line["reason"] else "")
    seeds = f"{line['seeds']} seed{'s' if line['seeds'] > 1 else ''}"
    reason = f". {line['reason']}" if line["reason"] else ""
    return f"**{line['verdict']}** (`{line['study']}`, {seeds}): {line['ours']}{reason}"


def write_section(path: str | Path, name: str, text: str) -> Path:
    """Put a text between `<!-- name -->` and `<!-- /name -->` of a file; the rest stays as it is.

    Raises:
        ValueError: if the markers are not there.
    """
    path = Path(path)
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, found, rest = path.read_text(encoding="utf-8").partition(start)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"{path}: no {start} .. {end}")
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(f"{before}{start}\n{text.strip()}\n{end}{after}", encoding="utf-8")
    os.replace(unfinished, path)
    return path
