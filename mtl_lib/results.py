"""Runs and where they are kept: one folder per run, JSON for words, NumPy for numbers.

A run is found again by its key: the hash of everything that decides its numbers. No sentence
is stored, only ids, labels and scores.
"""

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mtl_lib.errors import RunError

FIELDS = ("config", "metrics", "history", "provenance", "key")


@dataclass(frozen=True)
class Run:
    """One training run, finished.

    Attributes:
        config: the `ExperimentConfig` as a dict (row, seed, profile, encoder, ...).
        metrics: `metrics["best" | "last"]["train" | "dev"][task][metric]`.
        history: one dict per epoch: losses, metrics, gradient conflict, seconds.
        predictions: development logits of the best epoch by task, `[N, C]`, in file order.
        labels: development labels by task, `[N]`.
        ids: development ids by task.
        provenance: corpus, encoder, versions, hardware, time: what the run was.
        key: see `run_key`.
    """

    config: dict
    metrics: dict
    history: list[dict]
    predictions: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]
    ids: dict[str, list[str]]
    provenance: dict
    key: str


def run_key(config: dict, corpus: str, encoder: str, version: int) -> str:
    """Hash of what decides a run's numbers.

    Args:
        config: the experiment as a dict, seed included.
        corpus: `Corpus.fingerprint`.
        encoder: hash of the encoder's weights.
        version: the study version: raised when the training code changes its results.
    """
    words = json.dumps([config, corpus, encoder, version], sort_keys=True)
    return hashlib.sha256(words.encode()).hexdigest()[:16]


class RunStore:
    """A folder of runs; a run is there whole or not at all.

    The development ids and labels, equal for all runs of a corpus, are kept once in `splits/`.
    """

    def __init__(self, directory: str | Path):
        self.directory = Path(directory)

    def get(self, key: str) -> Run | None:
        """The run with this key, or None.

        Raises:
            RunError: if its files are damaged.
        """
        found = sorted(self.directory.glob(f"*-{key}/run.json"))
        return self._read(found[0].parent) if found else None

    def put(self, run: Run) -> Path:
        """Store a finished run and return its folder; a run already there is left as it is."""
        name = f"{run.config['row']}-seed{run.config['seed']}-{run.key}"
        folder = self.directory / name
        if folder.exists():
            return folder
        unfinished = self.directory / f".{name}.{os.getpid()}.tmp"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        splits = {task: self._put_split(run.ids[task], run.labels[task]) for task in run.ids}
        record = {name: getattr(run, name) for name in FIELDS} | {"splits": splits}
        (unfinished / "run.json").write_text(json.dumps(record, indent=1) + "\n")
        np.savez_compressed(unfinished / "predictions.npz", **run.predictions)
        try:
            unfinished.rename(folder)
        except OSError:  # another process stored the same run first
            shutil.rmtree(unfinished)
        return folder

    def runs(self, **match) -> list[Run]:
        """All runs whose configuration has these values, by row and seed.

        `store.runs(row="3.2", profile="quick")` gives every seed of that row.
        """
        runs = [self._read(path.parent) for path in self.directory.glob("[!.]*/run.json")]
        chosen = [r for r in runs if all(r.config[k] == v for k, v in match.items())]
        return sorted(chosen, key=lambda r: (_row_order(r.config["row"]), r.config["seed"], r.key))

    def _put_split(self, ids: list[str], labels: np.ndarray) -> str:
        digest = hashlib.sha256("\n".join(ids).encode() + labels.tobytes()).hexdigest()[:16]
        path = self.directory / "splits" / f"{digest}.npz"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_name(f".{digest}.{os.getpid()}.tmp.npz")
            np.savez_compressed(unfinished, ids=np.array(ids), labels=labels)
            os.replace(unfinished, path)
        return digest

    def _read(self, folder: Path) -> Run:
        try:
            record = json.loads((folder / "run.json").read_text())
            splits = record.pop("splits")
            ids, labels = {}, {}
            for task, digest in splits.items():
                with np.load(self.directory / "splits" / f"{digest}.npz") as split:
                    ids[task], labels[task] = split["ids"].tolist(), split["labels"]
            with np.load(folder / "predictions.npz") as file:
                predictions = {task: file[task] for task in file.files}
            return Run(**record, predictions=predictions, labels=labels, ids=ids)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"{folder}: damaged run ({error}); move the folder away and run again"
            ) from error


def _row_order(row: str) -> tuple:
    """Sort "3.2" before "3.10", numbered rows before named ones."""
    parts = row.split(".")
    if all(part.isdigit() for part in parts):
        return (0, *map(int, parts))
    return (1, row)
