"""Synthetic runs for the tests of figures: random logits and labels, no model behind them."""

import zlib
from dataclasses import replace

import numpy as np

from mtl_lib.evaluation import metrics
from mtl_lib.study.profiles import PROFILES
from mtl_lib.study.rows import ALL_ROWS, ROWS
from mtl_lib.study.store import Run
from mtl_lib.tasks import TASKS, Task


def fake_run(
    row: str,
    seed: int = 1,
    *,
    profile: str = "quick",
    encoder: str = "tiny",
    corpus: str = "handbook",
    notes: tuple[str, ...] = (),
    steps: int = 60,
    noise: float | None = None,
    size: int = 200,
    trained: bool = True,
) -> Run:
    """A `Run` of the given row whose metrics follow from its made-up logits.

    `noise` spoils the logits: 0 predicts every label, large values are chance. By default it
    differs a little from row to row and seed to seed. One that is not `trained` ends with the loss
    of a constant answer on similarity.
    """
    generator = np.random.default_rng(zlib.crc32(f"{row} {seed}".encode()))
    if noise is None:
        noise = generator.uniform(0.8, 2.5)
    best: dict[str, dict] = {"train": {}, "dev": {}}
    labels, logits, ids = {}, {}, {}
    for task in TASKS:
        truth = _labels(task, np.random.default_rng(0), size)  # one development set for all runs
        logits[task.name] = _logits(task, truth, noise, generator)
        labels[task.name] = truth
        ids[task.name] = [f"{task.name}-{n}" for n in range(size)]
        best["dev"][task.name] = metrics(task, logits[task.name], truth)
        easier = _logits(task, truth, noise / 2, generator)
        best["train"][task.name] = metrics(task, easier, truth)
    config = replace(PROFILES[profile].apply(ALL_ROWS[row], profile, seed), encoder=encoder)
    provenance = {
        "corpus": {"name": corpus, "fingerprint": corpus, "files": {}, "notes": list(notes)},
        "encoder": {"name": encoder, "sha256": encoder},
        "steps": steps,
        "constant_loss": dict.fromkeys(labels, 1.0),
        "study_version": 1,
    }
    losses = {name: 0.5 if trained or name != "similarity" else 1.0 for name in labels}
    return Run(
        config=config.as_dict(),
        metrics={"best": best, "last": best},
        history=[{"epoch": 1, **best, "loss": losses, "conflict": {}}],
        predictions=logits,
        labels=labels,
        ids=ids,
        provenance=provenance,
        key=f"{row}-{seed}-{profile}",
    )


def fake_study(rows=ROWS, seeds=(1,), **options) -> list[Run]:
    """One synthetic run per row and seed."""
    return [fake_run(row, seed, **options) for row in rows for seed in seeds]


def _labels(task: Task, generator: np.random.Generator, size: int) -> np.ndarray:
    if task.kind == "score":
        return generator.uniform(0, 5, size).astype(np.float32)
    labels = generator.integers(0, task.num_classes, size)
    return labels.astype(np.float32 if task.kind == "binary" else np.int64)


def _logits(task: Task, labels: np.ndarray, noise: float, generator) -> np.ndarray:
    if task.kind == "classes":
        clean = np.eye(task.outputs)[labels]
    else:
        clean = (labels if task.kind == "score" else labels - 0.5)[:, None]
    return (clean + noise * generator.normal(size=clean.shape)).astype(np.float32)
