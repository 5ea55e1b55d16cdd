"""The paper's claims, held against stored runs: what stands, what does not, what cannot be told.

A claim is data: the paper's words, the rows it compares, and what the numbers would have to show.
The rule of the verdicts is `RULE`; it is the same for all.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from mtl_lib.bag_of_words import read_floors
from mtl_lib.experiments import ALL_ROWS, PROFILES, ROWS, STUDY_VERSION
from mtl_lib.paper import (
    PAPER_FIGURE_5,
    PAPER_FINAL_DEV,
    PAPER_SCORES,
    TASK_ORDER,
    frequency_correlation,
)
from mtl_lib.results import Run
from mtl_lib.studies import choose_study, missing_rows, provenance_line, studies, study_of
from mtl_lib.tasks import BY_NAME
from mtl_lib.uncertainty import AVERAGE, COSINES, Estimate, Evidence, seed_interval

HOLDS, FAILS = "holds", "does not hold"
NOISE, UNTOLD = "within noise", "cannot be told here"
MARGIN = 0.01
"""A gain below one point counts as none."""

RULE = (
    "Every claim is one or more differences between rows, paired by seed and by development "
    "example. Their 95 % intervals hold the error of the seeds (spread over seeds, Student's t) "
    "and of the development set (bootstrap over examples); with one seed, of the examples only: "
    f"such a difference can be {NOISE}, or else {UNTOLD}. A difference said to be above zero "
    f"{HOLDS} if its interval lies above zero, {FAILS} if it lies below, and else is {NOISE}. "
    f"Something said to bring no gain {HOLDS} if the interval lies below one point (+{MARGIN}), "
    f"{FAILS} if it lies above zero, and else is {NOISE}. A claim {HOLDS} if all its differences "
    f"do, {FAILS} if one does not, {UNTOLD} if one of them {UNTOLD}, and else is {NOISE}. The "
    "intervals are not corrected for their number: one in twenty misses by chance. Cosines between "
    "gradients are means over the epochs; their intervals hold the error of the seeds only, and "
    "one seed has none. Overfitting is the training score minus the development score; training "
    "predictions are not stored, so the error of a training score counts in full, as if the rows "
    "had met different examples. Where a shortened study multiplies the paper's rates, rows of "
    f"different rates say nothing about the paper's: what compares them {UNTOLD}."
)

GAIN, NO_GAIN = "above zero", "no gain"


@dataclass(frozen=True)
class Comparison:
    """One thing that a claim needs: a sum of rows' scores, each times its factor.

    Attributes:
        terms: factor by row: `{"3.2": 1, "3.1": -1}` is row 3.2 minus row 3.1.
        tasks: tasks for which it must be so; "average" is the mean of the three.
        expected: "above zero" or "no gain".
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
        (_over("3.2", BASELINE), Comparison({"3.2": 2, BASELINE: -1, FINAL: -1})),
        "A gain on the average, and larger than that of all later changes together (3.2 to 4.6).",
    ),
    Claim(
        "The baseline without gradient surgery was not able to train effectively for any task.",
        "6",
        (_over(BASELINE, FROZEN, *TASK_ORDER, expected=NO_GAIN),),
        "Our reading: no better than heads on a frozen encoder, a row that the paper lacks.",
    ),
    Claim(
        "Raising the similarity dropout to 0.5 reduces overfitting and increases the correlation.",
        "5.4, Figure 3",
        (_over("3.2", "3.3", SCORE, measure="gap"), _over("3.3", "3.2", SCORE)),
    ),
    Claim(
        "Increased dropout appears to help sentiment and similarity.",
        "5.4",
        (_over("3.8", "3.2", ONE, SCORE),),
        "Said of the final architecture, where nothing isolates it; row 3.8 does, and in the "
        "paper's own Figure 3 it loses (sentiment .414 against .494).",
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
        "training, so the paper does not tell SMART from a fault in it.",
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
        (_over("4.10", FINAL, SCORE),),
        "In the paper similarity gains .018 and sentiment loses .024.",
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
        (Comparison({FINAL: 1}, (ONE, SCORE), measure="frequency"),),
        "Rank correlation of accuracy and share over 5 and 6 labels. Figure 5's own similarity "
        "column has .448 at 16.6 % and .189 at 24.5 %.",
    ),
    Claim(
        "The highest similarity class is never predicted.",
        "6, Figure 5",
        (Comparison({FINAL: 1}, (SCORE,), NO_GAIN, "top"),),
        "Accuracy on the pairs that are scored above 4.5.",
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
        (_over("3.2", FINAL, PAIR),),
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
    """Every single difference behind the claims, from one study.

    Args:
        runs: stored runs; of several studies, the most thorough with all rows of `CLAIMS` is
            taken, else the one with most of them.

    Returns:
        One line per difference: claim, rows, measure, task, expected, paper, ours, low, high,
        seeds, seed_error, example_error, test (name and p-value of each seed, for plain
        differences of two rows), verdict. Where rows are not run, the numbers are NaN.
    """
    used = _study(runs)
    evidence, multiplied = Evidence(used), any(run.config["lr_factor"] != 1 for run in used)
    lines = []
    for claim in claims:
        for comparison in claim.comparisons:
            for task in comparison.tasks:
                line = {
                    "claim": claim.words,
                    "rows": comparison.words,
                    "measure": comparison.measure,
                    "task": task,
                    "expected": comparison.expected,
                    "paper": paper_value(comparison, task),
                }
                estimate = None
                if evidence.seeds(comparison.terms):
                    estimate = evidence.estimate(comparison.terms, task, comparison.measure)
                line |= _result(evidence, comparison, task, estimate)
                if multiplied and _rates_differ(comparison):
                    line["verdict"] = UNTOLD
                lines.append(line)
    return pd.DataFrame(lines)


def claims_table(runs: Iterable[Run], claims: Sequence[Claim] = CLAIMS) -> pd.DataFrame:
    """The claims, one a line, with the paper's numbers, ours and a verdict by `RULE`.

    Args:
        runs: see `comparisons`; any number of seeds, rows may be missing.

    Returns:
        Columns: claim, source, rows, paper, ours, seeds, verdict, why. `ours` gives value and 95 %
        interval; `seeds` is the smallest number behind a number of the line, 0 for none.
    """
    used = _study(runs)
    details = comparisons(used, claims)
    lines = []
    for claim in claims:
        parts = details[details["claim"] == claim.words] if len(details) else details
        lines.append(
            {
                "claim": claim.words,
                "source": claim.source,
                "rows": "; ".join(dict.fromkeys(parts["rows"])) if claim.comparisons else "",
                "paper": _in_words(parts, _paper_words) if claim.comparisons else "",
                "ours": _in_words(parts, _our_words) if claim.comparisons else "",
                "seeds": int(parts["seeds"].min()) if claim.comparisons else 0,
                "verdict": _together(parts["verdict"]) if claim.comparisons else UNTOLD,
                "why": _why(claim, parts, used),
            }
        )
    return pd.DataFrame(lines)


def other_verdicts(runs: Iterable[Run], claims: Sequence[Claim] = CLAIMS) -> pd.DataFrame:
    """What other profiles' studies say of the same claims.

    Returns:
        A line for each claim and a column for each profile but that of `claims_table`: the verdict
        with its number of seeds, "holds (3)", or "–" where the claim's rows were not run.
    """
    runs = list(runs)
    columns = {}
    for group in _other_studies(runs, _study(runs)):
        table = claims_table(group, claims)
        told = table["verdict"] + " (" + table["seeds"].astype(str) + ")"
        run = (table["seeds"] > 0) | (table["verdict"] != UNTOLD)
        columns[group[0].config["profile"]] = told.where(run, "–")
    return pd.DataFrame(columns)


def paper_value(comparison: Comparison, task: str) -> float:
    """The same number from the published tables; NaN where they do not have it."""
    if comparison.measure in COSINES:
        return float("nan")
    if comparison.measure in ("frequency", "top"):
        labels = PAPER_FIGURE_5[PAPER_FIGURE_5["task"] == task]
        if comparison.measure == "top":
            return float(labels["accuracy"].iloc[-1])
        return frequency_correlation(labels["accuracy"].tolist(), labels["share"].tolist())
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


def verdict(estimate: Estimate, expected: str) -> str:
    """The verdict on one difference by `RULE`."""
    if np.isnan([estimate.low, estimate.high]).any():
        return UNTOLD
    if expected == NO_GAIN:
        found = HOLDS if estimate.high < MARGIN else FAILS if estimate.low > 0 else NOISE
    else:
        found = HOLDS if estimate.low > 0 else FAILS if estimate.high < 0 else NOISE
    return UNTOLD if found != NOISE and estimate.seeds == 1 else found


def _study(runs: Iterable[Run]) -> list[Run]:
    """All runs, of any row, of the study that has most rows of the paper's claims."""
    runs = _of_three_tasks(runs)
    chosen = choose_study(runs, claim_rows())
    return [run for run in runs if chosen and study_of(run) == study_of(chosen[0])]


def _of_three_tasks(runs: Iterable[Run]) -> list[Run]:
    return [run for run in runs if len(run.config["heads"]) == len(TASK_ORDER)]


def _result(
    evidence: Evidence, comparison: Comparison, task: str, estimate: Estimate | None
) -> dict:
    names = ("value", "low", "high", "seed_error", "example_error")
    numbers = {name: getattr(estimate, name) if estimate else float("nan") for name in names}
    test = ""
    plain = sorted(comparison.terms.values()) == [-1, 1] and comparison.measure == "dev"
    if estimate and plain and task != AVERAGE:
        row, other = sorted(comparison.terms, key=comparison.terms.get, reverse=True)
        name, values = evidence.p_values(row, other, task)
        test = f"{name} p = {', '.join(f'{value:.2g}' for value in values)}"
    return {
        "ours": numbers.pop("value"),
        **numbers,
        "seeds": estimate.seeds if estimate else 0,
        "test": test,
        "verdict": verdict(estimate, comparison.expected) if estimate else UNTOLD,
    }


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
    "frequency": "rank correlation, ",
    "top": "accuracy on label 5, ",
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
    return f"{line['ours']:+.3f} [{line['low']:+.3f}, {line['high']:+.3f}]"


def _why(claim: Claim, parts: pd.DataFrame, runs: Sequence[Run]) -> str:
    """What decides the verdict, and what to keep in mind."""
    sentences = []
    if missing := missing_rows(runs, claim.rows):
        sentences.append(f"Not run: {', '.join(missing)}.")
    elif len(parts) and not parts["seeds"].min():
        sentences.append("Its rows have no seed in common.")
    factor = max((run.config["lr_factor"] for run in runs), default=1)
    if factor != 1 and any(map(_rates_differ, claim.comparisons)):
        sentences.append(f"It compares rates, which are {factor:g} times the paper's here.")
    if len(parts) and (parts["seeds"] == 1).any():
        alone = dict.fromkeys(parts.loc[parts["seeds"] == 1, "rows"])
        sentences.append(f"One seed of {', '.join(alone)}.")
    decided = parts[parts["paper"].notna()] if len(parts) else parts
    against = [line for line in decided.to_dict("records") if not _paper_agrees(line)]
    if against:
        names = dict.fromkeys(f"{line['rows']} on {line['task']}" for line in against)
        sentences.append(f"The paper's own numbers say otherwise: {', '.join(names)}.")
    return " ".join([*sentences, *filter(None, [claim.note]), *_cautions(parts, runs)])


def _paper_agrees(line: dict) -> bool:
    if line["expected"] == NO_GAIN:
        return line["paper"] < MARGIN
    return line["paper"] > 0


def _cautions(parts: pd.DataFrame, runs: Sequence[Run]) -> list[str]:
    """What the corpora and the encoder mean for a comparison of these tasks."""
    if not len(parts) or not runs or not parts["seeds"].max():
        return []
    tasks, sentences = set(parts["task"]), []
    notes = runs[0].provenance["corpus"]["notes"]
    if tasks & {PAIR, AVERAGE} and any(note.startswith("quora-train") for note in notes):
        sentences.append("Paraphrase: both rows trained on the substitute Quora file.")
    encoder = Path(runs[0].config["encoder"]).name
    if tasks & {PAIR, SCORE, AVERAGE} and encoder in SIMILARITY_TRAINED:
        sentences.append("Pairs: the encoder had learned similarity, Quora's among it, before.")
    return sentences


SIMILARITY_TRAINED = ("minilm-l6",)
"""Encoders that were trained on sentence similarity before they came here."""

CAUTIONS = {
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
    """The README's section: which study, its key rows, the claims with their verdicts, the rule."""
    runs = list(runs)
    used = _study(runs)
    if not used:
        return "No study is stored yet: `mtl sweep` trains one.\n"
    table = claims_table(used)
    counts = table["verdict"].value_counts()
    plural = {HOLDS: "hold", FAILS: "do not hold", NOISE: NOISE, UNTOLD: UNTOLD}
    summary = ", ".join(f"{counts.get(v, 0)} {words}" for v, words in plural.items())
    parts = [
        *_study_markdown(used),
        f"Of the paper's {len(table)} claims: {summary}.",
        _markdown(table, other_verdicts(runs)),
        "Controls that the paper lacks:",
        _markdown(claims_table(used, CONTROLS), other_verdicts(runs, CONTROLS)),
        RULE,
    ]
    for group in _other_studies(runs, used):
        profile = group[0].config["profile"]
        parts += [f"The other study, in the column {profile}:", *_study_markdown(group)]
    return "\n\n".join(parts) + "\n"


def _study_markdown(runs: Sequence[Run]) -> list[str]:
    """What a study is, what to keep in mind about its numbers, and the scores of its key rows."""
    cautions = []
    if any(note.startswith("quora-train") for note in runs[0].provenance["corpus"]["notes"]):
        cautions.append(CAUTIONS["quora-train"])
    if Path(runs[0].config["encoder"]).name in SIMILARITY_TRAINED:
        cautions.append(CAUTIONS["encoder"])
    return [provenance_line(runs), *cautions, scores_markdown(runs), *seeds_to_go(runs)]


def seeds_to_go(runs: Sequence[Run]) -> list[str]:
    """Which runs the study still lacks, and the command that trains them; empty if none.

    Of its profile's rows, planned are five seeds of those on which most claims hang
    (`FIVE_SEEDS`), and three of the others of the paper's figures and of the controls. A study of
    an older version or of other settings than its profile's has no plan.
    """
    config = runs[0].config
    row, profile, seed = (config[name] for name in ("row", "profile", "seed"))
    as_planned = config == PROFILES[profile].apply(ALL_ROWS[row], profile, seed).as_dict()
    if not as_planned or runs[0].provenance["study_version"] != STUDY_VERSION:
        return []
    stored = {(run.config["row"], run.config["seed"]) for run in runs}
    missing: dict[tuple[int, ...], list[str]] = {}
    for row in dict.fromkeys((*ROWS, *claim_rows(CONTROLS))):
        if row not in PROFILES[profile].rows:
            continue
        planned = range(5 if row in FIVE_SEEDS else 3)
        if lacking := tuple(seed for seed in planned if (row, seed) not in stored):
            missing.setdefault(lacking, []).append(row)
    if not missing:
        return []
    parts = [
        f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))} of {', '.join(rows)}"
        for seeds, rows in missing.items()
    ]
    data = "" if runs[0].provenance["corpus"]["name"] == "handbook" else " DATA=FOLDER"
    command = f"make study PROFILE={profile}{data}"
    lacking = {seed for seeds in missing for seed in seeds}
    commands = [f"`{command} SEEDS=0,1,2`"] if lacking & {0, 1, 2} else []
    if lacking & {3, 4}:
        five = [row for row in FIVE_SEEDS if row in PROFILES[profile].rows]
        commands.append(f"`{command} SEEDS=3,4 ROWS={','.join(five)}`")
    return [
        f"Planned and not trained yet, for want of time: {'; '.join(parts)}. "
        f"{' and '.join(commands)} will train them."
    ]


def _other_studies(runs: Sequence[Run], used: Sequence[Run]) -> list[list[Run]]:
    """The best study of every profile but the one used, if a key row is among its rows."""
    found = {used[0].config["profile"]: used} if used else {}
    for group in studies(_of_three_tasks(runs)):
        if any(run.config["row"] in KEY_ROWS for run in group):
            found.setdefault(group[0].config["profile"], group)
    return list(found.values())[1:]


FIVE_SEEDS = (BASELINE, "3.2", ARCHITECTURE, FROZEN)
KEY_ROWS = (BASELINE, "3.2", ARCHITECTURE, FINAL, FROZEN, "frozen-1e-5")


def scores_markdown(runs: Sequence[Run], rows: Sequence[str] = KEY_ROWS) -> str:
    """Development scores of some rows as a Markdown table: mean over seeds, the paper's beside.

    With several seeds, ± is half of Student's 95 % interval of the mean over seeds. Below the
    rows stands what a bag of words reaches on the same corpora, where that is stored.
    """
    head = "| development set, the paper in brackets | paraphrase | sentiment | similarity (r) |"
    lines = [f"{head} seeds |", "|---|---|---|---|---|"]
    for row in rows:
        there = [run for run in runs if run.config["row"] == row]
        if not there:
            continue
        cells = []
        for task in TASK_ORDER:
            scores = [run.metrics["best"]["dev"][task][BY_NAME[task].metric] for run in there]
            mean, low, high = seed_interval(scores)
            half = "" if np.isnan(low) else f" ± {(high - low) / 2:.3f}"
            paper = ""
            if row in PAPER_SCORES.index:
                paper = f" ({PAPER_SCORES.loc[row, f'dev_{task}']:.3f})"
            cells.append(f"{mean:.3f}{half}{paper}")
        name = there[0].config["name"]
        name = f"{row} {name}" if row in PAPER_SCORES.index else name
        lines.append(f"| {name} | {' | '.join(cells)} | {len(there)} |")
    corpus = runs[0].provenance["corpus"]
    floors = read_floors(corpus["name"])
    if floors and floors["fingerprint"] == corpus["fingerprint"]:
        scores = [floors["tasks"][task]["dev"][BY_NAME[task].metric] for task in TASK_ORDER]
        cells = " | ".join(f"{score:.3f}" for score in scores)
        lines.append(f"| words alone (TF-IDF, naive Bayes), no network | {cells} | |")
    return "\n".join(lines)


def _markdown(table: pd.DataFrame, others: pd.DataFrame) -> str:
    """The claims as a Markdown table; the other studies' verdicts, with their seeds, beside."""
    head = ["claim (section; rows)", "paper", "ours [95 %]", "seeds", "verdict", *others, "why"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for number, line in enumerate(table.to_dict("records")):
        where = "; ".join(filter(None, [line["source"], line["rows"]]))
        claim = f"{line['claim']} ({where})"
        cells = [claim, line["paper"], line["ours"], line["seeds"], f"**{line['verdict']}**"]
        cells += [*(others[profile][number] for profile in others), line["why"]]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


START, END = "<!-- claims -->", "<!-- /claims -->"


def write_claims(readme: str | Path, runs: Iterable[Run]) -> Path:
    """Put `claims_markdown` between the markers of a Markdown file; the rest stays as it is.

    Raises:
        ValueError: if the markers are not there.
    """
    path = Path(readme)
    text = path.read_text()
    before, found, rest = text.partition(START)
    _, closed, after = rest.partition(END)
    if not (found and closed):
        raise ValueError(f"{path}: no {START} .. {END}")
    path.write_text(f"{before}{START}\n{claims_markdown(runs)}{END}{after}")
    return path
