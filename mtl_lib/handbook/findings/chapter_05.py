"""What chapter 05 found: additive heads, the paper's baseline, and what our runs can tell of it."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from mtl_lib.handbook.findings import Finding, with_interval
from mtl_lib.study.contrasts import best_study
from mtl_lib.study.floors import floor_score, read_floors
from mtl_lib.study.gates import untrained_tasks
from mtl_lib.study.paper import BASELINE, PAPER_FIGURE_3, PAPER_SCORES, TASK_ORDER
from mtl_lib.study.pool import committed_runs
from mtl_lib.study.rows import ALONE, FIGURE_3, FIGURE_4
from mtl_lib.study.store import Run
from mtl_lib.study.uncertainty import Estimate, Evidence
from mtl_lib.tasks import BY_NAME

FROZEN = "frozen-1e-3"
SHORT, LONG = "laptop", "paper"  # the studies that are read
CORPUS = "cs224n"


@cache
def _runs(profile: str, row: str) -> list[Run]:
    return [run for run in committed_runs([row]) if run.config["profile"] == profile]


def _best_of_paper(task: str, layers: int) -> float:
    """The paper's best development score with so many linear layers in the task's head."""
    rows = [
        row
        for row, config in (FIGURE_3 | FIGURE_4).items()
        if len(config.heads[task].dropout) == layers
    ]
    return PAPER_SCORES.loc[rows, f"dev_{task}"].max()


def _words_and_paper() -> Mapping[str, Any]:
    floors = read_floors(CORPUS)
    return {
        f"{kind}_{task}": floor_score(floors, task, kind)
        for kind in ("additive", "comparing")
        for task in ("paraphrase", "similarity")
    } | {
        "paper_paraphrase": _best_of_paper("paraphrase", 1),
        "paper_similarity": _best_of_paper("similarity", 1),
        "paper_hidden": _best_of_paper("similarity", 2),
    }


def _lead(run: Run, task: str) -> float:
    """The training minus the development score of a run's best epoch."""
    train, dev = (run.metrics["best"][part][task] for part in ("train", "dev"))
    metric = BY_NAME[task].metric
    return train[metric] - dev[metric]


def _gaps() -> Mapping[str, Any]:
    """Largest lead of the training over the development score, of the paper's first two rows, and
    the least lead on similarity of our baselines that trained and of the frozen encoder's long
    runs."""

    def largest(row: str) -> float:
        scores = PAPER_FIGURE_3.loc[row]
        return max(scores[f"train_{task}"] - scores[f"dev_{task}"] for task in TASK_ORDER)

    trained = [
        run
        for run in committed_runs([BASELINE])
        if run.provenance["corpus"]["name"] == CORPUS and not untrained_tasks(run)
    ]
    return {
        "baseline": largest("3.1"),
        "surgery": largest("3.2"),
        "trained": min(_lead(run, "similarity") for run in trained),
        "frozen": min(_lead(run, "similarity") for run in _runs(LONG, FROZEN)),
    }


def _short_runs() -> Mapping[str, Any]:
    runs = _runs(SHORT, BASELINE)
    return {
        "runs": len(runs),
        "untrained": sum(bool(untrained_tasks(run)) for run in runs),
        "epochs": {len(run.history) for run in runs},
    }


def fine_tuned_and_frozen() -> tuple[Evidence, dict[str, Estimate]]:
    """The baseline's long runs, the frozen encoder's, and the difference by task."""
    evidence = Evidence([*_runs(LONG, BASELINE), *_runs(LONG, FROZEN)])
    return evidence, {t: evidence.estimate({BASELINE: 1, FROZEN: -1}, t) for t in TASK_ORDER}


def _fine_tuning() -> Mapping[str, Any]:
    evidence, differences = fine_tuned_and_frozen()
    tuned = list(evidence.runs[BASELINE].values())
    values: dict[str, Any] = {
        "epochs": tuned[0].config["epochs"],
        "held": any(map(untrained_tasks, tuned)),
        "seeds": evidence.seeds((BASELINE, FROZEN)),
        "surest": min(e.low for e in differences.values()),
    }
    for task, e in differences.items():
        values[task], values[f"{task}_interval"] = e.value, f"{e.low:.2f} to {e.high:.2f}"
    return values


def together_and_alone() -> dict[str, Estimate]:
    """The baseline minus a model of its own, on each task, where training comes to an end."""
    evidence = best_study(committed_runs([BASELINE, *ALONE]), "converged")
    return {
        task: evidence.estimate({BASELINE: 1, f"{task}-alone": -1}, task) for task in TASK_ORDER
    }


def _together() -> Mapping[str, Any]:
    found = together_and_alone()
    values = {task: with_interval(e.value, e.low, e.high) for task, e in found.items()}
    return values | {
        "seeds": min(e.seeds for e in found.values()),
        "below": {task for task, e in found.items() if e.high < 0},
        "above": {task for task, e in found.items() if e.low > 0},
        "loss": max(-e.value for e in found.values()),
    }


FINDINGS = (
    Finding(
        "**A linear head over [u; v] cannot compare.** That is proved, for any encoder. What "
        "comparing is worth, words alone show on the real corpora: a bag of words reaches "
        "{additive_paraphrase:.3f} on paraphrase and r = {additive_similarity:.3f} on similarity "
        "if it sees a pair as such a head does, and {comparing_paraphrase:.3f} and "
        "r = {comparing_similarity:.3f} if it may compare. The paper's best rows with such heads "
        "reach {paper_paraphrase:.3f} and r = {paper_similarity:.3f}; with a hidden layer "
        "similarity reaches r = {paper_hidden:.3f}. (Our Quora training file is a substitute for "
        "the class's. That the paper reads pairs apart is our reading.)",
        _words_and_paper,
        lambda v: (
            v["comparing_paraphrase"] > v["paper_paraphrase"] > v["additive_paraphrase"]
            and v["comparing_similarity"] > v["paper_hidden"]
            and v["paper_hidden"] > v["paper_similarity"] > v["additive_similarity"]
        ),
    ),
    Finding(
        "**The paper's baseline looks hardly trained.** Its training scores lead its development "
        "scores by {baseline:.3f} at most. With gradient surgery, in the same ten epochs, the lead "
        "is {surgery:.3f}. On similarity our baselines that passed the gate lead by {trained:.3f} "
        "or more, and heads on a frozen encoder (rate 1e-3) by {frozen:.3f} or more. So a part of "
        "what the paper puts down to surgery may be plain fine-tuning. The paper does not say "
        "enough to decide it.",
        _gaps,
        lambda v: v["baseline"] < 0.05 < 0.1 < min(v["trained"], v["frozen"]) < 0.5 < v["surgery"],
    ),
    Finding(
        "**Our short runs cannot tell.** The baseline trained for one epoch from {runs} seeds "
        "(`minilm-l6`, the real corpora), and none of the {untrained} passed the gate, which asks "
        "for the mean loss of the last epoch: here that includes the start. Nothing follows from "
        "them, about the baseline or about fine-tuning.",
        _short_runs,
        lambda v: v["untrained"] == v["runs"] > 1 and v["epochs"] == {1},
    ),
    Finding(
        "**Fine-tuning pays on all three tasks.** After {epochs} epochs by the paper's protocol "
        "the baseline lies above the frozen encoder (heads at rate 1e-3): by {sentiment:.3f} on "
        "sentiment ({sentiment_interval}), {paraphrase:.3f} on paraphrase ({paraphrase_interval}) "
        "and {similarity:.3f} on similarity ({similarity_interval}). The 95 % intervals know three "
        "seeds and the choice of development examples. (`minilm-l6` has seen Quora's pairs in its "
        "own training, which never used the pooler that the frozen heads read; our Quora training "
        "file is a substitute.)",
        _fine_tuning,
        lambda v: not v["held"] and v["seeds"] == [0, 1, 2] and v["surest"] > 0,
    ),
    Finding(
        "**The shared encoder costs paraphrase a point, and helps nowhere that we can see.** In "
        "study `converged` the baseline on all three tasks, minus a model of its own for each "
        "task after as many batches of it, stands at {paraphrase} on paraphrase, {sentiment} on "
        "sentiment and {similarity} on similarity ({seeds} seeds, 95 % over seeds and examples, "
        "each interval by itself). One encoder does the work of three, and the price is small; a "
        "gain for another task could hide in these intervals.",
        _together,
        lambda v: (
            v["seeds"] == 3
            and v["below"] == {"paraphrase"}
            and not v["above"]
            and v["loss"] < 0.015
        ),
    ),
)
