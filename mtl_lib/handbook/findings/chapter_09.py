"""What chapter 09 found: what decay costs where runs train, and how sure a winner is."""

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from scipy import integrate, stats

from mtl_lib.handbook.findings import Finding, listed, with_interval
from mtl_lib.study.forensics import apart
from mtl_lib.study.gates import untrained_tasks
from mtl_lib.study.paper import (
    ARCHITECTURE,
    FINAL,
    PAPER_FIGURE_4,
    PAPER_SCORES,
    PAPER_SIZES,
    TASK_ORDER,
    decayed_share,
)
from mtl_lib.study.pool import committed_runs
from mtl_lib.study.rows import FIGURE_4
from mtl_lib.study.store import Run
from mtl_lib.study.uncertainty import Evidence
from mtl_lib.tasks import BY_NAME

STUDY = "laptop-rates"


@cache
def _runs() -> list[Run]:
    rows = [ARCHITECTURE, *FIGURE_4]
    return [run for run in committed_runs(rows) if run.config["profile"] == STUDY]


@cache
def _literal_runs() -> list[Run]:
    rows = (ARCHITECTURE, *FIGURE_4)
    return [run for run in committed_runs(rows) if run.config["profile"] == "paper"]


def _averages() -> Mapping[str, float]:
    """The paper's three-task development average of every row."""
    averages = PAPER_SCORES[[f"dev_{task}" for task in TASK_ORDER]].mean(axis=1)
    return {str(row): float(average) for row, average in averages.items()}


def _decay() -> Mapping[str, Any]:
    """Row 4.2, decay 0.1, against the same architecture without it, by the paper's protocol."""
    runs = [run for run in _literal_runs() if run.config["row"] in ("4.2", ARCHITECTURE)]
    evidence, paper, row = Evidence(runs), _averages(), FIGURE_4["4.2"]
    differences = apart(runs, "4.2", ARCHITECTURE)
    return {
        "off": decayed_share(row.lr, row.weight_decay, evidence.runs["4.2"][0].provenance["steps"]),
        "paper": paper["4.2"] - paper[ARCHITECTURE],
        "ours": evidence.estimate({"4.2": 1, ARCHITECTURE: -1}).value,
        "seeds": len(differences),
        "trained": not any(map(untrained_tasks, runs)),
        "most": np.abs(differences).max(),
    }


def _largest_of(models: int) -> float:
    """Expected largest of independent standard normal numbers."""

    def density(x: float) -> float:
        return x * models * stats.norm.pdf(x) * stats.norm.cdf(x) ** (models - 1)

    return float(integrate.quad(density, -8, 8)[0])


def _winner() -> Mapping[str, Any]:
    sentences = int(PAPER_SIZES.loc["sentiment", "dev"])
    averages = sorted(_averages().values(), reverse=True)
    errors = []
    for task in TASK_ORDER:
        middle, size = PAPER_FIGURE_4[f"dev_{task}"].median(), PAPER_SIZES.loc[task, "dev"]
        accuracy = BY_NAME[task].metric == "accuracy"
        variance = middle * (1 - middle) if accuracy else (1 - middle**2) ** 2
        errors.append(math.sqrt(variance / size))
    error = math.hypot(*errors) / 3
    return {
        "sentences": sentences,
        "bias": _largest_of(20) * math.sqrt(0.25 / sentences),
        "bias_alike": _largest_of(20) * math.sqrt(0.25 / sentences * (1 - 0.9)),
        "lead": averages[0] - averages[1],
        "spread": averages[0] - averages[4],
        "apart": error * math.sqrt(2),
        "alike": error * math.sqrt(2 * (1 - 0.9)),
    }


def _rate() -> Mapping[str, Any]:
    """Row 4.6 against row 3.10, the same architecture, by the paper's own protocol."""
    rows = (FINAL, ARCHITECTURE)
    runs = [run for run in _literal_runs() if run.config["row"] in rows]
    evidence, change = Evidence(runs), {FINAL: 1, ARCHITECTURE: -1}
    gain, whole = evidence.estimate(change, "similarity"), evidence.estimate(change)
    seeds = evidence.seeds(rows)
    each = [evidence.estimate(change, "similarity", seeds=[seed]).value for seed in seeds]
    scores = PAPER_SCORES["dev_similarity"]
    return {
        "rate_seeds": len(seeds),
        "rate_trained": not any(map(untrained_tasks, runs)),
        "rate_paper": scores[FINAL] - scores[ARCHITECTURE],
        "rate_gain": with_interval(gain.value, gain.low, gain.high),
        "rate_average": with_interval(whole.value, whole.low, whole.high),
        "rate_open": gain.low < 0 < gain.high and whole.low < 0 < whole.high,
        "rate_each": listed(f"{value:+.3f}" for value in each),
        "rate_least": min(each),
    }


def _identical() -> Mapping[str, Any]:
    """On how many of the six scores rows 4.4 and 4.5 of one seed agree to three digits."""
    agree = (apart(_runs(), "4.4", "4.5") == 0).sum(axis=1)
    return {"pairs": len(agree), "least": min(agree), "most": max(agree)}


def _race() -> Mapping[str, Any]:
    """Of the rows that trained, which the best one cannot be told from; and what was left out."""
    trained = [run for run in _runs() if not untrained_tasks(run)]
    evidence = Evidence(trained)
    means = {row: evidence.estimate({row: 1}).value for row in evidence.rows}
    best = max(means, key=lambda row: means[row])
    behind = {row: evidence.estimate({row: 1, best: -1}) for row in means if row != best}
    several = [e for e in behind.values() if e.seeds > 1]
    seeds = {run.config["seed"] for run in _runs()}
    early = [replace(run, history=run.history[:1]) for run in _runs()]
    return {
        "best": best,
        "rate": FIGURE_4[best].lr,
        "factor": _runs()[0].config["lr_factor"],
        "others": len(behind),
        "several": len(several),
        "close": sum(e.high >= 0 for e in several),
        "of": {e.seeds for e in several},
        "single": listed(row for row, e in behind.items() if e.seeds == 1),
        "seeds": len(seeds),
        "whole": [row for row in means if len(evidence.seeds([row])) == len(seeds)],
        "runs": len(early),
        "early": sum(not untrained_tasks(run) for run in early),
        "epochs": {len(run.history) for run in _runs()},
    }


FINDINGS = (
    Finding(
        "**A decay of 0.1 costs the paper a lot, and us nothing that we can see.** In the "
        "paper the row with that decay stands at {paper:+.3f} against the same architecture "
        "without it, in the three-task average; it names no seeds. Ours, by its own protocol and "
        "with one seed for both rows (`minilm-l6`, public corpora, a substitute for Quora's "
        "training file), stands at {ours:+z.3f}, and none of the six scores moves by more than "
        "{most:.3f}. But our decay is decoupled: at this rate it takes {off:.2%} off a weight in "
        "ten epochs. A coupled one could explain the paper's drop. The paper's words, "
        '"integrated into AdamW with weight decay", sound decoupled; only its code could tell.',
        _decay,
        lambda v: (
            v["paper"] < -0.05
            and abs(v["ours"]) < 0.01
            and v["seeds"] == 1
            and v["trained"]
            and v["most"] < 0.01
            and v["off"] < 0.01
        ),
    ),
    Finding(
        "**The paper's race has no sure winner.** Its five best rows of twenty lie within "
        "{spread:.3f} of each other in the three-task average, the first two within {lead:.3f}. "
        "The standard error of such a lead is about {apart:.3f} if two models err apart, and "
        "{alike:.3f} if their errors are correlated 0.9, seeds not counted. The best of twenty "
        "equally good models, each scored on {sentences:,} sentences, looks {bias:.3f} better "
        "than it is if they err apart, and {bias_alike:.3f} if their errors are correlated 0.9.",
        _winner,
        lambda v: v["lead"] < v["alike"] < v["spread"] < 1.96 * v["apart"],
    ),
    Finding(
        "**Of ours no winner can be named.** {best} (rate {rate:g} in the paper) comes first. Of "
        "the {others} other rows that trained, {several} have 2 seeds, and an interval that "
        "reaches it; {single} has one, which tells nothing of seeds. Runs that did not train are "
        "left out, which flatters their rows: only {best} trained with all {seeds} seeds. And the "
        "study is short. After the first of two epochs none of these {runs} runs had trained on "
        "all tasks, so the order may show who starts soonest, at {factor:g} times the paper's "
        "rates, rather than who ends best. (`minilm-l6` has seen Quora's pairs in its own "
        "training, and our Quora training file is a substitute.)",
        _race,
        lambda v: (
            v["close"] == v["several"] == v["others"] - 1
            and v["of"] == {2}
            and v["whole"] == [v["best"]]
            and v["early"] == 0
            and v["epochs"] == {2}
        ),
    ),
    Finding(
        "**What the paper chose its rate for is within noise here, though each seed points its "
        "way.** One pair of its race has {rate_seeds} seeds of each row by its own protocol: row "
        "4.6, rate 5e-5, against row 3.10, 1e-5, the same architecture; all of them trained. On "
        "similarity the higher rate stands at {rate_gain}; seed by seed {rate_each}. The paper "
        'prints {rate_paper:+.3f}, "significantly higher". In the three-task average it is '
        "{rate_average}. (Encoder and file as above.)",
        _rate,
        lambda v: (
            v["rate_seeds"] == 3 and v["rate_trained"] and v["rate_open"] and v["rate_least"] > 0
        ),
    ),
    Finding(
        "**Two rows of the paper agree in all six numbers.** Rows 4.4 and 4.5 differ in their "
        "decay. Our {pairs} pairs of these runs, which did not even train, agree in {least} to "
        "{most} of six numbers to three digits. So a decay that acts is likely to change a digit. "
        "Perhaps it never reached the optimizer, perhaps a row was copied: the table cannot tell.",
        _identical,
        lambda v: v["most"] < 6,
    ),
)
