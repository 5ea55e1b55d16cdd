"""What chapter 04 found about the luck in a score."""

from math import hypot, sqrt
from typing import Any

from mtl_lib.handbook.findings import Finding
from mtl_lib.study.paper import PAPER_FIGURE_3, PAPER_SIZES
from mtl_lib.study.pool import committed_runs
from mtl_lib.study.uncertainty import Estimate, Evidence


def _half(score: float, task: str) -> float:
    """Half the 95 % interval of an accuracy on a task's development set."""
    return 1.96 * sqrt(score * (1 - score) / PAPER_SIZES.loc[task, "dev"])


def _widths() -> dict[str, Any]:
    return dict(
        reviews=PAPER_SIZES.loc["sentiment", "dev"],
        sentiment=_half(0.5, "sentiment"),
        pairs=PAPER_SIZES.loc["paraphrase", "dev"],
        paraphrase=_half(0.5, "paraphrase"),
    )


def _paper_gain() -> dict[str, Any]:
    one, other = (PAPER_FIGURE_3.loc[row, "dev_sentiment"] for row in ("3.2", "3.10"))
    half = hypot(_half(one, "sentiment"), _half(other, "sentiment"))
    gain = other - one
    return dict(one=one, other=other, low=gain - half, high=gain + half)


def _gain(corpus: str, task: str) -> Estimate:
    rows = f"{corpus}-finetuned", f"{corpus}-frozen"
    runs = [run for run in committed_runs(rows) if run.config["profile"] == "laptop"]
    return Evidence(runs).estimate({rows[0]: 1, rows[1]: -1}, task)


def _fine_tuning() -> dict[str, Any]:
    sst, cfimdb = _gain("sst", "sentiment"), _gain("cfimdb", "cfimdb")
    more = cfimdb.value - sst.value
    half = hypot(*(gain.high - gain.value for gain in (sst, cfimdb)))
    return dict(
        sst=sst,
        cfimdb=cfimdb,
        seeds={sst.seeds, cfimdb.seeds},
        more=more,
        low=more - half,
        high=more + half,
    )


FINDINGS = (
    Finding(
        "**The development set sets the grain.** On {reviews:,} reviews an accuracy near one half "
        "is known to ± {sentiment:.3f}, on {pairs:,} question pairs to ± {paraphrase:.3f}. "
        "Whoever compares third digits on the reviews compares luck.",
        _widths,
        lambda values: values["sentiment"] > 0.02 and values["paraphrase"] < 0.01,
    ),
    Finding(
        "**The paper's {one:.3f} and {other:.3f} alone cannot be told apart.** From the two "
        "numbers the gain lies between {low:+.3f} and {high:+.3f}. The predictions that could "
        "narrow this were not published, nor was a second seed.",
        _paper_gain,
        lambda values: values["low"] < 0 < values["high"],
    ),
    Finding(
        "**A fine-tuned encoder beats a frozen one by far, in one pair of runs for each corpus.** "
        "On SST it gains {sst.value:+.3f} ({sst.low:+.3f} to {sst.high:+.3f}), on CFIMDB "
        "{cfimdb.value:+.3f} ({cfimdb.low:+.3f} to {cfimdb.high:+.3f}), with the encoder "
        "`minilm-l6` after one epoch. The intervals hold the luck of the reviews only: there is "
        "one seed of each. Which corpus gains more, these runs cannot tell (CFIMDB's gain less "
        "SST's: {more:+.3f}, {low:+.3f} to {high:+.3f}). Both read the pooled vector, for which "
        "this encoder was not trained; how much of the gain comes from that, they cannot tell "
        "either. The paper gives no numbers for this part.",
        _fine_tuning,
        lambda values: (
            values["seeds"] == {1}
            and min(values["sst"].low, values["cfimdb"].low) > 0.05
            and values["low"] < 0 < values["high"]
        ),
    ),
)
