"""What chapter 06 found: whether the tasks fight, and what surgery gained."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mtl_lib.handbook.findings import Finding, with_interval
from mtl_lib.handbook.findings import chapter_13 as bench
from mtl_lib.study.gates import untrained_tasks
from mtl_lib.study.paper import PAPER_FIGURE_3, TASK_ORDER
from mtl_lib.study.pool import committed_runs
from mtl_lib.study.store import Run
from mtl_lib.study.uncertainty import Evidence
from mtl_lib.tasks import BY_NAME


def _runs(profile: str, *rows: str) -> list[Run]:
    return [run for run in committed_runs(rows) if run.config["profile"] == profile]


def conflict_rates(run: Run) -> tuple[list[float], list[float]]:
    """Shares of steps in conflict, the mean over the epochs: for each pair of tasks, and for each
    task with another batch of its own."""
    of_pairs: dict[str, list[float]] = {}
    for entry in run.history:
        for pair, values in entry["conflict"].items():
            of_pairs.setdefault(pair, []).append(values["rate"])
    rates: tuple[list[float], list[float]] = ([], [])
    for pair, found in of_pairs.items():
        first, second = pair.split("-")
        rates[first == second].append(float(np.mean(found)))
    return rates


def _fight() -> Mapping[str, Any]:
    baselines = _runs("converged", "3.1")
    last = [pair for run in baselines for pair in run.history[-1]["conflict"].values()]
    control = _runs("laptop", "same-task")

    def with_itself(task: str) -> list[float]:
        pair = f"{task}-{task}"
        return [
            float(np.mean([e["conflict"][pair]["cosine"] for e in run.history])) for run in control
        ]

    of_one, of_other = with_itself("similarity"), with_itself("paraphrase")
    return {
        "low": min(pair["rate"] for pair in last),
        "high": max(pair["rate"] for pair in last),
        "cosine": max(abs(pair["cosine"]) for pair in last),
        "trained": not any(map(untrained_tasks, baselines)),
        "baselines": len(baselines),
        "one_low": min(of_one),
        "one_high": max(of_one),
        "other_low": min(of_other),
        "other_high": max(of_other),
        "seeds": len(control),
        "control_trained": not all(map(untrained_tasks, control)),
    }


def most_apart(evidence: Evidence, task: str) -> float:
    """How far rows 3.1 and 3.2 of one seed ever lie apart after the same epoch."""
    metric = BY_NAME[task].metric
    return max(
        abs(two["dev"][task][metric] - one["dev"][task][metric])
        for seed in evidence.seeds(["3.1", "3.2"])
        for one, two in zip(
            *(evidence.runs[row][seed].history for row in ("3.1", "3.2")), strict=True
        )
    )


def _gain() -> Mapping[str, Any]:
    runs, literal = _runs("converged", "3.1", "3.2"), Evidence(_runs("paper", "3.1", "3.2"))
    evidence, values = Evidence(runs), {}
    for task in TASK_ORDER:
        ours = evidence.estimate({"3.2": 1, "3.1": -1}, task)
        long = literal.estimate({"3.2": 1, "3.1": -1}, task)
        values[f"literal_{task}"] = with_interval(long.value, long.low, long.high)
        values[f"above_{task}"] = long.low > 0
        values[f"most_{task}"] = most_apart(literal, task)
        values[f"beyond_{task}"] = PAPER_FIGURE_3.loc["3.2", f"dev_{task}"] > (
            PAPER_FIGURE_3.loc["3.1", f"dev_{task}"] + long.high
        )
        paper = PAPER_FIGURE_3[f"dev_{task}"]
        values[task] = with_interval(ours.value, ours.low, ours.high)
        values[f"paper_{task}"] = paper["3.2"] - paper["3.1"]
        values[f"outside_{task}"] = values[f"paper_{task}"] > ours.one_more_run()[1]
        values[f"small_{task}"] = max(abs(ours.low), abs(ours.high)) < 0.01
    return values | {
        "seeds": len(evidence.seeds(["3.1", "3.2"])),
        "literal_seeds": len(literal.seeds(["3.1", "3.2"])),
        "trained": not any(map(untrained_tasks, [*runs, *_runs("paper", "3.1", "3.2")])),
    }


def _frozen() -> Mapping[str, Any]:
    runs = _runs("paper", "frozen-1e-3")
    values: dict[str, Any] = {"seeds": len(runs)}
    for task in TASK_ORDER:
        of_seeds = [run.metrics["best"]["train"][task][BY_NAME[task].metric] for run in runs]
        values[task] = float(np.mean(of_seeds))
        for row in ("3.1", "3.2"):
            values[f"{task}_{row.replace('.', '_')}"] = PAPER_FIGURE_3.loc[row, f"train_{task}"]
    return values


FINDINGS = (
    Finding(
        "**The batches of the tasks do not fight.** In our study `converged` the baseline "
        "(MiniLM on the paper's corpora with a substitute for Quora's training file, four "
        "epochs, {baselines} seeds) has two tasks that conflict at {low:.0%} to {high:.0%} of "
        "the last epoch's steps; their mean cosine is nowhere further from zero than "
        "{cosine:.3f}. The gradients of their batches, which are all that surgery sees, stand at a "
        "right angle on average, and a coin decides the sign. What their mean gradients do beneath "
        "that noise, only a control from trained runs could tell. Whether two batches of *the "
        "same* task agree more, {seeds} shorter runs that did not train cannot tell: those of "
        "similarity seem to (mean cosine {one_low:+.2f} to {one_high:+.2f}), but those of "
        "paraphrase seem to fight ({other_low:+.2f} to {other_high:+.2f}), which on average only "
        "chance can do.",
        _fight,
        lambda v: (
            v["trained"]
            and v["baselines"] == 3
            and v["cosine"] < 0.005
            and not v["control_trained"]
            and 10 * v["cosine"] < v["one_low"]
            and v["other_high"] < -5 * v["cosine"]
        ),
    ),
    Finding(
        "**So there is little for surgery to mend.** In the same study surgery minus plain sum "
        "is, over {seeds} seeds, with 95 % intervals over seeds and development examples: "
        "paraphrase {paraphrase}, sentiment {sentiment}, similarity {similarity}. No task gains a "
        "point. The paper reports {paper_paraphrase:+.3f}, {paper_sentiment:+.3f} and "
        "{paper_similarity:+.3f}, from one run of each row; the 95 % "
        "prediction interval of one more of ours, whatever their seeds, lies below all three. By "
        "the paper's own protocol, ten epochs and {literal_seeds} seeds, it is "
        "{literal_paraphrase} on paraphrase, {literal_sentiment} on sentiment and "
        "{literal_similarity} on similarity, each run at the epoch that is best in it: of these "
        "only paraphrase's lies above zero. After the same epoch the two rows of one seed are "
        "never further apart than {most_paraphrase:.3f}, {most_sentiment:.3f} and "
        "{most_similarity:.3f}. MiniLM has seen Quora's pairs in a training of its own. Our "
        "shorter studies missed their gate (chapter 05) and cannot tell.",
        _gain,
        lambda v: (
            v["trained"]
            and v["seeds"] == 3
            and v["literal_seeds"] == 3
            and all(v[f"outside_{task}"] and v[f"beyond_{task}"] for task in TASK_ORDER)
            and all(v[f"small_{task}"] for task in TASK_ORDER)
            and [task for task in TASK_ORDER if v[f"above_{task}"]] == ["paraphrase"]
            and all(2 * v[f"most_{task}"] < v[f"paper_{task}"] for task in TASK_ORDER)
        ),
    ),
    Finding(
        "**The bench says the same.** In the bench of chapter 13 surgery and the plain sum train "
        "from MiniLM with heads that compare, {steps} steps, seeds 0, 1, 2. On average over the "
        "tasks, on half of the development examples, surgery minus the sum is {surgery}, the "
        "interval over the seeds: on these examples a gain of half a point is not there.",
        bench._real,
        lambda v: -0.005 < v["surgery_low"] < 0 < v["surgery_high"] < 0.005,
    ),
    Finding(
        "**The paper's gain looks like another one.** From its baseline to surgery the accuracy "
        "on the sentiment *training* set goes from {sentiment_3_1:.3f} to {sentiment_3_2:.3f}. A "
        "baseline that cannot fit its own training set was hardly trained. Heads on a *frozen* "
        "encoder end not far from it: on the training sets of paraphrase, sentiment and similarity "
        "the paper's baseline has {paraphrase_3_1:.3f}, {sentiment_3_1:.3f}, {similarity_3_1:.3f}, "
        "our frozen runs (MiniLM, the mean of {seeds} seeds) {paraphrase:.3f}, {sentiment:.3f}, "
        "{similarity:.3f}. So the paper may have compared a frozen encoder with a trained one, or "
        "a short run with a long one (chapter 11). That is a guess, and nobody has proved it.",
        _frozen,
        lambda v: (
            v["seeds"] == 3 and all(abs(v[task] - v[f"{task}_3_1"]) < 0.07 for task in TASK_ORDER)
        ),
    ),
    Finding(
        "**What the paper ran is probably not the algorithm that it prints.** It integrates a port "
        "in which heads count in the norms and the shared parameters get a mean; its own code we "
        "have not seen. How much of its numbers comes from that, nobody knows: our row `3.2-port` "
        "has the port's two faults, and no run of it is among the stored ones yet.",
        lambda: {"runs": len(committed_runs(["3.2-port"]))},
        lambda v: v["runs"] == 0,
    ),
)
