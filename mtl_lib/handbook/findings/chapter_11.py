"""What chapter 11 found: the final model beside word counts, the average, and the claims."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mtl_lib.handbook.findings import Finding
from mtl_lib.handbook.findings.chapter_10 import finals
from mtl_lib.study.claims import CLAIMS
from mtl_lib.study.floors import floor_score, read_floors
from mtl_lib.study.gates import counted, untrained_tasks
from mtl_lib.study.groups import by_corpora
from mtl_lib.study.paper import (
    BASELINE,
    FINAL_ROWS,
    PAPER_FIGURE_5,
    PAPER_SCORES,
    PAPER_TEST_AVERAGE,
    TASK_ORDER,
)
from mtl_lib.study.pool import committed_runs
from mtl_lib.study.verdicts import UNTOLD, claims_table
from mtl_lib.tasks import BY_NAME

FINAL = FINAL_ROWS[0]


def _beside_words() -> Mapping[str, Any]:
    """The final model's scores, ours and the paper's, and those of words alone."""
    floors, values = read_floors("cs224n"), {}
    for task in TASK_ORDER:
        runs, metric = counted(finals(), task), BY_NAME[task].metric
        values[task] = np.mean([run.metrics["best"]["dev"][task][metric] for run in runs])
        values[f"{task}_seeds"] = len(runs)
        values[f"{task}_paper"] = PAPER_SCORES.loc[FINAL, f"dev_{task}"]
        values[f"{task}_words"] = max(
            floor_score(floors, task, kind) for kind in ("additive", "comparing")
        )
    return values


def _average() -> Mapping[str, Any]:
    nothing = PAPER_FIGURE_5.groupby("task")["share"].max()
    floor = (nothing["paraphrase"] + nothing["sentiment"]) / 3  # r of a constant: nothing
    return {"floor": floor, "average": PAPER_TEST_AVERAGE, "share": floor / PAPER_TEST_AVERAGE}


def _claims() -> Mapping[str, Any]:
    runs = by_corpora(committed_runs())
    tables = {name: claims_table(runs[name]) for name in ("cs224n", "handbook")}
    told = {name: int((table["verdict"] != UNTOLD).sum()) for name, table in tables.items()}
    return told | {"claims": len(CLAIMS)}


def _baseline() -> Mapping[str, Any]:
    profile = finals()[0].config["profile"]
    runs = [run for run in committed_runs([BASELINE]) if run.config["profile"] == profile]
    return {"runs": len(runs), "untrained": sum(bool(untrained_tasks(run)) for run in runs)}


FINDINGS = (
    Finding(
        "**Counting words beats the final model on both pair tasks, ours and the paper's.** Words "
        "alone, without any network, reach {paraphrase_words:.3f} on paraphrase and "
        "r = {similarity_words:.3f} on similarity on the real corpora. The paper's final model "
        "reaches {paraphrase_paper:.3f} and r = {similarity_paper:.3f}, ours (`minilm-l6`, the "
        "mean of {paraphrase_seeds} short runs) {paraphrase:.3f} and r = {similarity:.3f}. On "
        "sentiment the models win: {sentiment_paper:.3f} in the paper and {sentiment:.3f} here, "
        "words {sentiment_words:.3f}. (`minilm-l6` has seen Quora's pairs in its own training; our "
        "Quora training file is a substitute.)",
        _beside_words,
        lambda v: (
            v["paraphrase_words"] > max(v["paraphrase"], v["paraphrase_paper"])
            and v["similarity_words"] > max(v["similarity"], v["similarity_paper"])
            and v["sentiment_words"] < min(v["sentiment"], v["sentiment_paper"])
        ),
    ),
    Finding(
        "**Half of the published average comes for nothing.** A model that always gives the most "
        "frequent label, and one score to every pair, averages {floor:.3f}. That is {share:.0%} of "
        "the paper's {average:.3f}.",
        _average,
        lambda v: 0.45 < v["share"] < 0.55,
    ),
    Finding(
        "**What the final model gains over the baseline, our short runs cannot tell.** Under the "
        "same protocol all {untrained} runs of the baseline stayed on the plateau of a constant "
        "answer on some task. A difference from a model that did not train says nothing about the "
        "change.",
        _baseline,
        lambda v: v["untrained"] == v["runs"] > 0,
    ),
    Finding(
        "**We can judge none of the paper's {claims} claims yet.** Not on the real corpora, and "
        "not on the embedded ones: too few runs trained, or a row that the claim needs is missing. "
        "We would rather print that than a verdict drawn from runs that failed.",
        _claims,
        lambda v: v["cs224n"] == v["handbook"] == 0,
    ),
)
