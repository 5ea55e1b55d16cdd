"""A fair bench of weightings: the same budget and the same rates for all, chosen and judged apart.

Kurin et al. (2022) and Xin et al. (2022) found that methods for multi-task gradients do no better
than fixed weights, once both are tuned alike. So here: every weighting is trained at each of the
same rates with the same seeds and steps; its rate, and of the fixed weights also the weights, is
chosen on one half of the development examples; what is reported are the scores on the other half,
and their difference to the best fixed weights with an interval over seeds and examples.

Shapes: N development examples of a task.
"""

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure as Picture

from mtl_lib.errors import RunError
from mtl_lib.evaluation import metrics
from mtl_lib.files import write_text
from mtl_lib.paths import RESULTS
from mtl_lib.study.drawing import FAINT, INK, OURS, plain
from mtl_lib.study.groups import corpus_notes, seeds_in_words
from mtl_lib.study.store import Run
from mtl_lib.study.uncertainty import AVERAGE, Evidence
from mtl_lib.study.weightings import STATIC
from mtl_lib.tasks import BY_NAME

FIXED = "fixed weights"
CHOSEN, REPORTED = 0, 1  # the halves


@dataclass(frozen=True)
class Bench:
    """What a bench found.

    Attributes:
        points: a line for each weighting, rate and seed: its scores on the reported half, by task
            and on average, and whether the rate was chosen.
        table: a line for each weighting: its rate, and for each task and the average its mean
            score, the difference to the best fixed weights, and that difference's 95 % interval.
        facts: profile, encoder, corpus, seeds, steps and notes of the runs.
    """

    points: pd.DataFrame
    table: pd.DataFrame
    facts: dict[str, Any]

    def save(self, name: str, folder: Path = RESULTS / "bench") -> list[Path]:
        """Write it to `NAME-points.csv`, `NAME-table.csv` and `NAME.json`."""
        texts = {
            f"{name}-points.csv": _csv(self.points),
            f"{name}-table.csv": _csv(self.table),
            f"{name}.json": json.dumps(self.facts, indent=2, ensure_ascii=False) + "\n",
        }
        for file, text in texts.items():
            write_text(folder / file, text)
        return [folder / file for file in texts]

    @classmethod
    def read(cls, name: str, folder: Path = RESULTS / "bench") -> "Bench":
        """What `save` wrote.

        Raises:
            RunError: if there is none of this name.
        """
        try:
            points, table = (pd.read_csv(folder / f"{name}-{n}.csv") for n in ("points", "table"))
            facts = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        except OSError as error:
            raise RunError(
                f"{folder}: no bench {name!r}; `mtl bench` runs one and stores it"
            ) from error
        return cls(points, table, facts)


def _csv(frame: pd.DataFrame) -> str:
    return frame.to_csv(index=False, float_format="%.6f", lineterminator="\n")


def half_of(task: str, ids: Sequence[str]) -> np.ndarray:
    """The half of each example, `[N]`: by a hash of task and id, the same for every run."""
    return np.array([zlib.crc32(f"{task} {key}".encode()) % 2 for key in ids])


def on_half(run: Run, half: int) -> Run:
    """The run as if its development sets held one half of their examples."""
    parts: dict[str, dict] = {"predictions": {}, "labels": {}, "ids": {}, "dev": {}}
    for name, ids in run.ids.items():
        kept = half_of(name, ids) == half
        parts["predictions"][name] = run.predictions[name][kept]
        parts["labels"][name] = run.labels[name][kept]
        parts["ids"][name] = [key for key, here in zip(ids, kept, strict=True) if here]
        scores = metrics(BY_NAME[name], parts["predictions"][name], parts["labels"][name])
        parts["dev"][name] = scores
    best = run.metrics["best"] | {"dev": parts.pop("dev")}
    return replace(run, metrics=run.metrics | {"best": best}, key=f"{run.key}-{half}", **parts)


def family(weighting: str) -> str:
    """What is tuned as one method: the plain sum and the grid of weights are fixed weights."""
    return FIXED if weighting in STATIC or weighting == "sum" else weighting


def compare(runs: Sequence[Run]) -> Bench:
    """The bench of some runs: of each weighting one or more rates, each with the same seeds.

    A run whose answer is undefined or the same for all examples counts with its score, a
    correlation that does not exist as 0: the rate is then not chosen.

    Raises:
        RunError: if there are none, no fixed weights among them, or no seed that all rows have.
    """
    if not any(family(run.config["weighting"]) == FIXED for run in runs):
        raise RunError("the bench compares with fixed weights: it needs runs of at least the sum")
    seeds = set.intersection(
        *(
            {r.config["seed"] for r in runs if r.config["row"] == row}
            for row in {run.config["row"] for run in runs}
        )
    )
    if not seeds:
        raise RunError("the bench compares seed by seed: its rows have no seed in common")
    runs = [run for run in runs if run.config["seed"] in seeds]
    halves = {
        half: Evidence([_defined(on_half(r, half)) for r in runs]) for half in (CHOSEN, REPORTED)
    }
    of_weighting: dict[str, list[str]] = {}
    for row, by_seed in halves[CHOSEN].runs.items():
        of_weighting.setdefault(next(iter(by_seed.values())).config["weighting"], []).append(row)

    def mean(row: str) -> float:
        return halves[CHOSEN].estimate({row: 1.0}).value

    chosen = {weighting: max(rows, key=mean) for weighting, rows in of_weighting.items()}
    fixed = max((row for w, row in chosen.items() if family(w) == FIXED), key=mean)
    tasks = [*runs[0].config["heads"], AVERAGE]
    lines = []
    for weighting, row in chosen.items():
        config = next(iter(halves[REPORTED].runs[row].values())).config
        line: dict[str, Any] = {
            "weighting": weighting,
            "family": family(weighting),
            "rate": config["lr"],
            "best fixed": row == fixed,
        }
        for task in tasks:
            line[task] = halves[REPORTED].estimate({row: 1.0}, task).value
            terms = {row: 1.0, fixed: -1.0} if row != fixed else {row: 0.0}
            gain = halves[REPORTED].estimate(terms, task)
            line |= {f"{task} gain": gain.value, f"{task} low": gain.low, f"{task} high": gain.high}
        lines.append(line)
    points = [
        {
            "weighting": run.config["weighting"],
            "rate": run.config["lr"],
            "seed": seed,
            "chosen": row in chosen.values(),
        }
        | {task: halves[REPORTED].estimate({row: 1.0}, task, seeds=[seed]).value for task in tasks}
        for row, by_seed in halves[REPORTED].runs.items()
        for seed, run in by_seed.items()
    ]
    table = pd.DataFrame(lines).sort_values(AVERAGE, ascending=False, ignore_index=True)
    return Bench(pd.DataFrame(points), table, _facts(runs))


def _defined(run: Run) -> Run:
    """A run whose undefined correlations are 0: one answer for all has learned nothing."""
    dev = {
        task: {name: 0.0 if np.isnan(value) else value for name, value in scores.items()}
        for task, scores in run.metrics["best"]["dev"].items()
    }
    return replace(run, metrics=run.metrics | {"best": run.metrics["best"] | {"dev": dev}})


def _facts(runs: Sequence[Run]) -> dict[str, Any]:
    config, provenance = runs[0].config, runs[0].provenance
    return {
        "profile": config["profile"],
        "encoder": Path(config["encoder"]).name,
        "corpus": provenance["corpus"]["name"],
        "fingerprint": provenance["corpus"]["fingerprint"],
        "notes": corpus_notes(runs),
        "runs": len(runs),
        "seeds": seeds_in_words(runs),
        "steps": provenance["steps"],
        "hardware": provenance.get("hardware", ""),
    }


def verdict(bench: Bench, task: str = AVERAGE) -> str:
    """Whether any weighting beats the best fixed weights on a task, in a sentence.

    The intervals are not corrected for their number, which the sentence says.
    """
    table, fixed = bench.table, bench.table[bench.table["best fixed"]].iloc[0]
    others = table[table["family"] != FIXED]
    better = others[others[f"{task} low"] > 0]
    worse = others[others[f"{task} high"] < 0]
    names = ", ".join(better["weighting"]) or "none"
    return (
        f"On {task}, of {len(others)} methods {names} beat{'s' * (len(better) < 2)} the best fixed "
        f"weights ({fixed['weighting']}, {fixed[task]:.3f}) with an interval above zero, and "
        f"{len(worse)} lie below with theirs; the intervals are 95 % each, not corrected for their "
        "number."
    )


@plain
def draw(bench: Bench) -> Picture:
    """The trade-offs: each chosen weighting a point a seed, each pair of tasks a panel; the fixed
    weights' means at their chosen rates are joined where none of them is better on both tasks."""
    points = bench.points[bench.points["chosen"]]
    names = list(dict.fromkeys(bench.table["weighting"]))
    others = [name for name in names if family(name) != FIXED]
    colours = dict(zip(others, sns.color_palette("husl", len(others)), strict=True))
    shapes = dict(zip(others, "ov^<>PXDdph*"[: len(others)], strict=True))  # told apart in grey
    tasks = [c for c in bench.points.columns if c in BY_NAME]
    pairs = [(a, b) for i, a in enumerate(tasks) for b in tasks[i + 1 :]]
    picture = Picture(
        figsize=(4.4 * len(pairs) + 1.8, 4.6), facecolor="white", layout="constrained"
    )
    for ax, (a, b) in zip(picture.subplots(1, len(pairs), squeeze=False)[0], pairs, strict=True):
        for name in names:
            own, fixed = points[points["weighting"] == name], family(name) == FIXED
            look = {"color": FAINT, "marker": "s"} if fixed else {"color": colours[name]}
            look.setdefault("marker", shapes.get(name))
            ax.scatter(own[a], own[b], s=22, alpha=0.8, lw=0, **look)
            large = {"s": 80, "edgecolor": INK, "lw": 0.8, "zorder": 3}
            label = None if fixed else name
            ax.scatter(own[a].mean(), own[b].mean(), label=label, **large, **look)
        means = (
            points[[family(n) == FIXED for n in points["weighting"]]]
            .groupby("weighting")[[a, b]]
            .mean()
        )
        front = means[
            [not ((means > row).all(axis=1)).any() for _, row in means.iterrows()]
        ].sort_values(a)
        ax.plot(front[a], front[b], color=INK, lw=1.5, label="front of fixed weights")
        for name, mean in (means if ax.get_subplotspec().is_first_col() else front).iterrows():
            words = str(name).removeprefix("static-")
            ax.annotate(words, tuple(mean), (6, 4), textcoords="offset points", size=7, zorder=4)
        ax.set(xlabel=f"{a} ({BY_NAME[a].metric})", ylabel=f"{b} ({BY_NAME[b].metric})")
        ax.spines[["top", "right"]].set_visible(False)
    handles, labels = picture.axes[0].get_legend_handles_labels()
    picture.legend(handles, labels, loc="outside right upper", fontsize=8, frameon=False)
    picture.axes[0].set_title(
        "small: a seed; large: the mean; squares: fixed weights, named here",
        fontsize=9,
        loc="left",
        color=OURS,
    )
    return picture
