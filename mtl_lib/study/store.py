"""Runs and where they are kept: one folder per run, JSON for words, NumPy for numbers.

A run is found again by its key: the hash of everything that decides its numbers. No sentence
is stored, only ids, labels and scores.

    3.2-seed0-KEY/         run.json, predictions.npz
    splits/HASH.npz        development ids and labels, equal for all runs of a corpus
    checkpoints/           runs under way (`checkpoint.py`)
    locks/                 who trains what; empty files
    damaged/               what was found not to be what had been written
"""

import hashlib
import io
import json
import os
import re
import shutil
import struct
import sys
import time
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from mtl_lib.errors import BusyError, RunError, explain
from mtl_lib.files import replacing, write_text
from mtl_lib.study.checkpoint import to_disk

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
        encoder: `encoder_hash`.
        version: the study version: raised when the training code changes its results.
    """
    words = json.dumps([config, corpus, encoder, version], sort_keys=True)
    return hashlib.sha256(words.encode()).hexdigest()[:16]


class RunStore:
    """A folder of runs that several processes may share; a run is there whole or not at all.

    Every run carries its SHA-256. One that does not have it is set aside in `damaged/` with a
    message: it is never read, and never removed.
    """

    def __init__(self, directory: str | Path):
        self.directory = Path(directory)

    def get(self, key: str) -> Run | None:
        """The whole run with this key, or None.

        Raises:
            RunError: if its files cannot be read, or a damaged one cannot be set aside.
        """
        folders = (path.parent for path in self.directory.glob(f"[!.]*-{key}/run.json"))
        return next(filter(None, map(self._whole, sorted(folders))), None)

    def put(self, run: Run) -> Path:
        """Store a finished run and return its folder; a whole run already there is left as it is.

        Raises:
            RunError: if it cannot be written; nothing is then left of it.
        """
        folder = self.directory / self.name(run.config, run.key)
        unfinished = self.directory / f".{folder.name}.{os.getpid()}.tmp"
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            splits = {task: self._put_split(run.ids[task], run.labels[task]) for task in run.ids}
            for left in self.directory.glob(f".{folder.name}.*.tmp"):  # by a killed process
                shutil.rmtree(left, ignore_errors=True)
            unfinished.mkdir()
            np.savez_compressed(unfinished / "predictions.npz", **run.predictions)
            record = {name: getattr(run, name) for name in FIELDS} | {"splits": splits}
            record["predictions_sha256"] = _sha256((unfinished / "predictions.npz").read_bytes())
            record["sha256"] = _seal(record)
            write_text(unfinished / "run.json", json.dumps(record, indent=1) + "\n")
            for path in unfinished.iterdir():
                to_disk(path)
            with self._moving():
                if self._whole(folder) is None:
                    unfinished.rename(folder)
        except OSError as error:
            raise RunError(f"{folder}: cannot be written: {explain(error)}") from error
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        return folder

    def runs(self, rows: Collection[str] | None = None) -> list[Run]:
        """All whole runs, by row and seed; of some rows only if these are given."""
        folders = [path.parent for path in self.directory.glob("[!.]*/run.json")]
        if rows is not None:  # a folder is called ROW-seedN-KEY: no other is read
            folders = [folder for folder in folders if _row_of(folder.name) in rows]
        runs = filter(None, map(self._whole, folders))
        return sorted(runs, key=lambda r: (_row_order(r.config["row"]), r.config["seed"], r.key))

    @staticmethod
    def name(config: dict, key: str) -> str:
        """The name of a run's folder: row, seed and key.

        Raises:
            RunError: if it would lead out of the store.
        """
        name = f"{config['row']}-seed{config['seed']}-{key}"
        if not re.fullmatch(r"\w[\w.+-]*", name):
            raise RunError(f"{name!r} cannot be a folder's name; give the row a plain one")
        return name

    def checkpoint_folder(self, config: dict, key: str) -> Path:
        """Where the run keeps its state while it trains."""
        return self.directory / "checkpoints" / self.name(config, key)

    @contextmanager
    def lock(self, key: str, wait: bool = True) -> Iterator[None]:
        """Hold the run with this key: one process trains it. The system frees what a killed
        process held.

        Raises:
            BusyError: if another process holds it and `wait` is False.
        """
        lock = self._file_lock(key)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            if not wait:
                raise BusyError(f"run {key}: another process trains it") from None
            print(f"run {key}: another process trains it; waiting for it", file=sys.stderr)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def busy(self, key: str) -> bool:
        """Whether a process trains the run with this key at this moment."""
        lock = self._file_lock(key)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return True
        lock.release()
        return False

    def _moving(self) -> FileLock:
        """Held while something of the store comes or goes; who holds it may hold it again."""
        return self._file_lock("moving", is_singleton=True)

    def _file_lock(self, name: str, is_singleton: bool = False) -> FileLock:
        folder = self.directory / "locks"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"{folder}: cannot be made: {explain(error)}") from error
        return FileLock(folder / f"{name}.lock", is_singleton=is_singleton)

    def _put_split(self, ids: list[str], labels: np.ndarray) -> str:
        digest = _split_digest(ids, labels)
        path = self.directory / "splits" / f"{digest}.npz"
        if not path.exists() or self._split(digest) is None:
            with self._moving(), replacing(path) as unfinished:
                with unfinished.open("wb") as file:  # NumPy would give a name an ending of its own
                    np.savez_compressed(file, ids=np.array(ids), labels=labels)
                to_disk(unfinished)
        return digest

    def _whole(self, folder: Path) -> Run | None:
        """The run in a folder, or None where there is none that is whole; a damaged one is set
        aside."""
        run, fault = self._judged(folder)
        if fault:
            with self._moving():  # another process may have put a whole one there meanwhile
                run, fault = self._judged(folder)
                if fault:
                    self._set_aside(folder, fault)
        return run

    def _judged(self, folder: Path) -> tuple[Run | None, str]:
        """The run in a folder if it is whole, and what is wrong with it if it is not."""
        try:
            return self._read(folder), ""
        except FileNotFoundError:
            # No folder: another process has just set it aside.
            return None, "a file is missing" if folder.exists() else ""
        except OSError as error:
            raise RunError(f"{folder}: cannot be read: {explain(error)}") from error
        except _Damaged as error:
            return None, str(error)

    def _read(self, folder: Path) -> Run | None:
        try:
            record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
            content = (folder / "predictions.npz").read_bytes()
            # Runs stored before runs had hashes are without.
            if (seal := record.pop("sha256", None)) and seal != _seal(record):
                raise _Damaged("run.json does not have its hash")
            if record.pop("predictions_sha256", _sha256(content)) != _sha256(content):
                raise _Damaged("predictions.npz does not have its hash")
            with np.load(io.BytesIO(content), allow_pickle=False) as file:
                predictions = {task: file[task] for task in file.files}
            splits = {task: self._split(digest) for task, digest in record.pop("splits").items()}
            if None in splits.values():
                print(f"{folder}: left out, its development labels are missing", file=sys.stderr)
                return None
            ids = {task: ids for task, (ids, _) in splits.items()}
            labels = {task: labels for task, (_, labels) in splits.items()}
            return Run(**record, predictions=predictions, labels=labels, ids=ids)
        except _FAULTS as error:
            raise _Damaged(f"{type(error).__name__}: {error}") from error

    def _split(self, digest: str) -> tuple[list[str], np.ndarray] | None:
        """Ids and labels, or None; a damaged file is set aside, and the next run writes it anew."""
        path = self.directory / "splits" / f"{digest}.npz"
        split, fault = _judged_split(path)
        if fault:
            with self._moving():  # another process may have written it anew meanwhile
                split, fault = _judged_split(path)
                if fault:
                    self._set_aside(path, fault)
        return split

    def _set_aside(self, path: Path, fault: str) -> None:
        aside = self.directory / "damaged" / f"{path.name}.{time.time_ns()}"
        try:
            aside.parent.mkdir(exist_ok=True)
            path.rename(aside)
        except FileNotFoundError:  # another process was faster
            return
        except OSError as error:
            raise RunError(
                f"{path}: damaged ({fault}) and cannot be set aside: {explain(error)}"
            ) from error
        print(f"{path}: damaged ({fault}); set aside as {aside}", file=sys.stderr)


class _Damaged(Exception):
    """Files that are not what was written."""


# What reading a file raises that holds something else than what was written.
_FAULTS = (
    AttributeError, EOFError, KeyError, MemoryError, OverflowError, RuntimeError, TypeError,
    ValueError, struct.error, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def _judged_split(path: Path) -> tuple[tuple[list[str], np.ndarray] | None, str]:
    """Ids and labels of a split's file if it is whole, and what is wrong with it if it is not."""
    try:
        with np.load(path, allow_pickle=False) as split:
            ids, labels = split["ids"].tolist(), split["labels"]
    except FileNotFoundError:
        return None, ""
    except _FAULTS as error:
        return None, f"{type(error).__name__}: {error}"
    if _split_digest(ids, labels) != path.stem:
        return None, "it does not have the hash that is its name"
    return (ids, labels), ""


def _split_digest(ids: list[str], labels: np.ndarray) -> str:
    return hashlib.sha256("\n".join(ids).encode() + labels.tobytes()).hexdigest()[:16]


def _seal(record: dict) -> str:
    """Hash of a record's content, whatever its layout in the file."""
    return _sha256(json.dumps(json.loads(json.dumps(record)), sort_keys=True).encode())


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _row_of(folder: str) -> str:
    return folder.rsplit("-seed", 1)[0]


def _row_order(row: str) -> tuple[int | str, ...]:
    """Sort "3.2" before "3.10", numbered rows before named ones."""
    parts = row.split(".")
    if all(part.isdigit() for part in parts):
        return (0, *map(int, parts))
    return (1, row)
