"""What chapter 02b found: what the encoders of the committed runs had read before."""

from collections.abc import Mapping
from typing import Any

from mtl_lib.handbook.findings import Finding
from mtl_lib.study.floors import floor_score, read_floors
from mtl_lib.study.pool import committed_runs
from mtl_lib.study.uncertainty import Evidence
from mtl_lib.tasks import SIMILARITY


def _encoders() -> Mapping[str, Any]:
    """Which encoders the committed runs start from, by their corpora."""
    found: dict[str, set[str]] = {}
    for run in committed_runs():
        found.setdefault(run.provenance["corpus"]["name"], set()).add(run.config["encoder"])
    return found


def _pooler() -> Mapping[str, Any]:
    """Similarity by the untouched encoder's cosines, and with its pooler's vectors as they come:
    heads alone are trained."""
    runs = [run for run in committed_runs(["frozen-1e-3"]) if run.config["profile"] == "paper"]
    estimate = Evidence(runs).estimate({"frozen-1e-3": 1}, SIMILARITY.name)
    floors = read_floors("cs224n")
    return {
        "cosine": floors["tasks"][SIMILARITY.name]["untouched minilm-l6"],
        "score": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "seeds": estimate.seeds,
        "epochs": {run.config["epochs"] for run in runs},
        "words": floor_score(floors, SIMILARITY.name, "additive"),
        "encoders": {run.config["encoder"] for run in runs},
    }


FINDINGS = (
    Finding(
        '**What the paper said.** It uses "a pre-trained minBERT model" and says no more about '
        'where its knowledge comes from. "[P]retraining the BERT model on more datasets" is one of '
        "its ideas for later."
    ),
    Finding(
        "**No run of ours starts where the class's project starts**, from bert-base-uncased. Every "
        "committed run on the real corpora starts from `minilm-l6`, every one on the embedded "
        "corpora from `tiny-pretrained`. Others trained `minilm-l6` on more than a billion pairs "
        "of texts, to bring together what belongs together, and pairs of Quora's questions were "
        "among them. So our scores for question pairs are not those of an encoder that never saw "
        "such pairs. Besides, their training file is a substitute for the class's own.",
        _encoders,
        lambda found: found == {"cs224n": {"minilm-l6"}, "handbook": {"tiny-pretrained"}},
    ),
    Finding(
        "**What pretraining is worth, our runs cannot tell.** Not one of them starts from random "
        "weights, so there is nothing to compare with.",
        _encoders,
        lambda found: "tiny" not in set().union(*found.values()),
    ),
    Finding(
        "**An encoder is good at what it was asked.** `minilm-l6` was asked for the cosine of two "
        "means of tokens: with nothing trained here, that has r = {cosine:.3f} on similarity. The "
        "paper's heads read the pooler, over [u; v], which cannot compare (chapter 05). On the "
        "frozen encoder they reach r = {score:.3f} (95 % interval {low:.3f} to {high:.3f}, "
        "{seeds} seeds of ten epochs); word counts, read by the same kind of head, {words:.3f}.",
        _pooler,
        lambda values: (
            values["high"] < values["words"] < values["cosine"] - 0.3
            and values["encoders"] == {"minilm-l6"}
            and values["epochs"] == {10}
        ),
    ),
)
