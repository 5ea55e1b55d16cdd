"""What chapter 03 found about weight decay."""

from typing import Any

import torch

from mtl_lib.handbook.findings import Finding
from mtl_lib.pretrained import load_encoder
from mtl_lib.study.gates import untrained_tasks
from mtl_lib.study.paper import PAPER_SCORES, PAPER_SIZES, decayed_share, identical_rows
from mtl_lib.study.pool import committed_runs
from mtl_lib.study.uncertainty import Evidence

STEPS = 10 * int(PAPER_SIZES.loc["similarity", "train"] // 8)  # ten epochs, our reading
RATE, DECAY = 1e-5, 0.05


def _arithmetic() -> dict[str, Any]:
    without, with_decay = (PAPER_SCORES.loc[row, "train_sentiment"] for row in ("3.2", "3.4"))
    taken = decayed_share(RATE, DECAY, STEPS)
    return dict(taken=taken, steps=STEPS, without=without, with_decay=with_decay)


def _reach() -> dict[str, Any]:
    encoder, _ = load_encoder("tiny-pretrained")
    matrices = [p.detach().flatten() for p in encoder.parameters() if p.dim() == 2]
    typical = torch.cat(matrices).abs().median().item()
    same = ("4.4", "4.5") in identical_rows(PAPER_SCORES)
    return dict(reach=RATE * STEPS, steps=STEPS, typical=typical, same=same)


def _own_runs() -> dict[str, Any]:
    pool = committed_runs(("3.2", "3.4"))
    runs = [run for run in pool if run.config["profile"] == "quick" and not untrained_tasks(run)]
    gain = Evidence(runs).estimate({"3.4": 1, "3.2": -1}, "sentiment")
    config = runs[0].config
    return dict(
        value=gain.value,
        low=gain.low,
        high=gain.high,
        seeds=gain.seeds,
        encoder=config["encoder"],
    )


FINDINGS = (
    Finding(
        "**The decay is too weak to be the reason.** Decoupled and multiplied by the rate, as in "
        "PyTorch's AdamW, decay of 0.05 takes {taken:.2%} off a weight in {steps:,} steps at rate "
        "1e-5, ten epochs as we read the paper. The paper reports that with it the sentiment "
        "accuracy on the training set is {with_decay:.3f} and without it {without:.3f}. The first "
        "does not explain the second.",
        _arithmetic,
        lambda values: values["taken"] < 0.01 and values["without"] - values["with_decay"] > 0.3,
    ),
    Finding(
        "**Coupled decay would be strong enough.** It can move a weight by up to a whole rate "
        "in each step, by up to {reach:.4f} in {steps:,} steps; the median weight of our small "
        "encoder is {typical:.3f}. Whether the paper's `step()` couples it, nobody outside can "
        "tell. One row speaks against it: 4.4, with decay, has the same six scores as 4.5, "
        "without.",
        _reach,
        lambda values: values["reach"] > values["typical"] and values["same"],
    ),
    Finding(
        "**Our runs cannot see what decoupled decay does.** With decay 0.05 the sentiment "
        "accuracy on the development set changes by {value:+.3f} over the {seeds} seeds with which "
        "both rows trained (95 % interval {low:+.3f} to {high:+.3f}; `{encoder}`, embedded "
        "corpora): too few to tell.",
        _own_runs,
        lambda values: (
            values["low"] < 0 < values["high"]
            and abs(values["value"]) < 0.01 < values["high"]
            and values["seeds"] == 2
        ),
    ),
)
