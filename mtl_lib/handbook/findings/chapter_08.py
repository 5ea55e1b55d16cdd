"""What chapter 08 found: the size of SMART's term, and what the paper's SMART row looks like."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from mtl_lib.handbook.findings import Finding
from mtl_lib.study.gates import untrained_tasks
from mtl_lib.study.paper import PAPER_FIGURE_3, PAPER_FIGURE_5, PAPER_SIZES
from mtl_lib.study.pool import committed_runs
from mtl_lib.study.store import Run
from mtl_lib.study.uncertainty import Evidence


@cache
def _runs(profile: str) -> list[Run]:
    return [run for run in committed_runs(("3.8", "3.9")) if run.config["profile"] == profile]


def _near_constant() -> Mapping[str, Any]:
    """Row 3.9's sentiment beside the answer "3" for every sentence."""
    labels = PAPER_FIGURE_5[PAPER_FIGURE_5["task"] == "sentiment"].set_index("label")["share"]
    accuracy = PAPER_FIGURE_3.loc["3.9", "dev_sentiment"]
    sentences = PAPER_SIZES.loc["sentiment", "dev"]
    return {
        "train": PAPER_FIGURE_3.loc["3.9", "train_sentiment"],
        "dev": accuracy,
        "constant": labels[3],
        "sentences": sentences,
        "more": round(accuracy * sentences) - round(labels[3] * sentences),
    }


def _apart(profile: str) -> dict[int, float]:
    """Sentiment accuracy of row 3.9 minus that of row 3.8, for each seed that both have."""
    evidence = Evidence(_runs(profile))
    return {
        seed: evidence.estimate({"3.9": 1, "3.8": -1}, "sentiment", seeds=[seed]).value
        for seed in evidence.seeds(["3.8", "3.9"])
    }


def _too_small() -> Mapping[str, Any]:
    quick, laptop = _runs("quick"), _runs("laptop")
    small = np.abs(list(_apart("quick").values()))
    large = {seed: abs(value) for seed, value in _apart("laptop").items()}
    furthest = max(large, key=lambda seed: large[seed])
    pair = [run.provenance for run in laptop if run.config["seed"] == furthest]
    sentences = len(quick[0].labels["sentiment"])
    reached = [run.metrics["last"]["dev"]["sentiment"]["accuracy"] for run in quick]
    return {
        "seeds": len(small),
        "sentences": round(small.max() * sentences),
        "dev": sentences,
        "others": len(large),
        "most": large[furthest],
        "resumed": sum(made["resumes"] > 0 for made in pair),
        "bfloat16": {made["precision"] for made in pair} == {"bfloat16"},
        "low": min(reached),
        "high": max(reached),
        "only similarity": all(untrained_tasks(run) == ["similarity"] for run in quick),
        "no task": all(set(untrained_tasks(run)) == run.labels.keys() for run in laptop),
    }


def _short_runs() -> Mapping[str, Any]:
    runs = _runs("laptop")
    gain = Evidence(runs).estimate({"3.9": 1, "3.8": -1}, "sentiment")
    return {
        "runs": len(runs),
        "untrained": sum(bool(untrained_tasks(run)) for run in runs),
        "gain": gain.value,
        "low": gain.low,
        "high": gain.high,
    }


FINDINGS = (
    Finding(
        "**The paper's SMART row may show a broken term and not SMART.** Its sentiment accuracy is "
        "{train:.3f} in training and {dev:.3f} in development. Answering label 3 to everything "
        "scores {constant:.3f} on the paper's development shares, about {more} of {sentences:,} "
        "sentences less. So the head did not give one answer only, but perhaps nearly. The paper "
        "concludes that SMART does not help. A term that drowned the loss would look the same.",
        _near_constant,
        lambda v: 0 < v["more"] < 20,
    ),
    Finding(
        "**With the sizes that the original states SMART's term is too small to act.** On the "
        "embedded corpora (`tiny-pretrained`, {seeds} seeds) a run with it and a run without it, "
        "of the same seed, differ by {sentences} of {dev} development sentences at most. With "
        "`minilm-l6` on the public corpora and {others} seeds they come apart by up to {most:.3f}. "
        "Why is not known: one run of that pair was resumed, and the encoder trains in bfloat16. "
        "(The runs on the embedded corpora trained on sentiment, {low:.2f} to {high:.2f} in "
        "development, but not on similarity; the others on no task.)",
        _too_small,
        lambda v: (
            (v["sentences"] <= 2 and v["most"] < 0.05)
            and (v["resumed"] == 1 and v["bfloat16"])
            and (v["only similarity"] and v["no task"])
        ),
    ),
    Finding(
        "**Whether SMART helps, our short runs cannot tell.** All {untrained} runs of rows 3.8 and "
        "3.9 with `minilm-l6`, one epoch each, stayed close to a constant answer's loss. The "
        "difference on sentiment is {gain:+.3f} (95 % interval {low:+.3f} to {high:+.3f}). (Our "
        "Quora training file is a substitute, and the encoder has seen Quora's pairs before.)",
        _short_runs,
        lambda v: v["untrained"] == v["runs"] > 0 and v["low"] < 0 < v["high"],
    ),
)
