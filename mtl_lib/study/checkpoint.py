"""Stop anywhere, go on from there: the unfinished state of a run in one file, and signals heeded.

A checkpoint is a safetensors file with its JSON in the header, never a pickle. It is written under
another name and then renamed, so that the last good one is there until the next is complete.
"""

import hashlib
import json
import math
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mtl_lib.errors import ConfigError, RunError, explain

FORMAT = "2"  # raised when the state changes its form: an older one is then set aside
SECONDS = 60.0  # between two checkpoints of a run, unless MTL_CHECKPOINT_SECONDS says otherwise
SHARE = 0.01  # of the time, at most, spent on writing: large models are saved less often


class Checkpoint:
    """The last good state of one unfinished run.

    A state is a dict of dicts whose leaves are tensors and what JSON can hold.

    Args:
        folder: one per run; `state.safetensors` in it, and whatever else the run keeps meanwhile.

    Raises:
        ConfigError: if MTL_CHECKPOINT_SECONDS is no number of seconds.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.path = folder / "state.safetensors"
        given = os.environ.get("MTL_CHECKPOINT_SECONDS", SECONDS)
        self._share = SHARE if given == SECONDS else math.inf  # who asks for seconds gets them
        try:
            self._seconds = float(given)
        except ValueError:
            self._seconds = -1.0
        if not self._seconds >= 0:
            raise ConfigError(
                f"MTL_CHECKPOINT_SECONDS={given}: give a number of seconds, 0 or more"
            )
        self._next = time.perf_counter() + self._seconds

    def due(self) -> bool:
        """Whether it is time for the next one."""
        return time.perf_counter() >= self._next

    def save(self, state: dict) -> None:
        """Replace the last state by this one, once it is on the disk.

        Raises:
            RunError: if it cannot be written; the last state is then still there.
        """
        started = time.perf_counter()
        tensors: dict[str, Tensor] = {}
        words = json.dumps(_without_tensors(state, "", tensors))
        metadata = {"format": FORMAT, "state": words, "sha256": _digest(words, tensors)}
        unfinished = self.path.with_suffix(".tmp")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            save_file(tensors, unfinished, metadata)
            with unfinished.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(unfinished, self.path)
        except (OSError, SafetensorError) as error:
            unfinished.unlink(missing_ok=True)
            raise RunError(
                f"{self.path}: cannot be written: {explain(error)}. The checkpoint before it is "
                "kept; the same command goes on from there"
            ) from error
        ended = time.perf_counter()
        self._next = ended + max(self._seconds, (ended - started) / self._share)

    def load(self) -> dict | None:
        """The last state, or None; a damaged one is set aside with a message."""
        if not self.path.exists():
            return None
        try:
            with safe_open(self.path, framework="pt") as file:
                metadata = file.metadata() or {}
                # Copies: a view of the file would stand at another alignment than a new tensor.
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}
            whole = _digest(metadata.get("state", ""), tensors) == metadata.get("sha256")
            if whole and metadata.get("format") == FORMAT:
                return _with_tensors(json.loads(metadata["state"]), tensors)
            reason = "its content does not have its hash" if not whole else "another format"
        except (SafetensorError, ValueError) as error:
            reason = str(error)
        aside = self.path.with_name(f"damaged-{time.time_ns()}.safetensors")
        self.path.rename(aside)
        print(f"{self.path}: damaged ({reason}); set aside as {aside.name}", file=sys.stderr)
        return None

    def remove(self) -> None:
        """The run is finished and stored elsewhere."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _without_tensors(state: dict, path: str, tensors: dict[str, Tensor]) -> dict:
    """The state without its tensors, which are collected by their path in it."""
    words = {}
    for name, value in state.items():
        if isinstance(value, dict):
            words[name] = _without_tensors(value, f"{path}{name}/", tensors)
        elif isinstance(value, Tensor):
            tensors[path + name] = value.detach().cpu().contiguous()
        else:
            words[name] = value
    return words


def _with_tensors(words: dict, tensors: dict[str, Tensor]) -> dict:
    """Undo `_without_tensors`."""
    for name, tensor in tensors.items():
        *folders, last = name.split("/")
        inner = words
        for folder in folders:
            inner = inner[folder]
        inner[last] = tensor
    return words


def _digest(words: str, tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(words.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


class Stopped(KeyboardInterrupt):
    """Training was asked to stop; its state is in a checkpoint."""


class StopSignals:
    """Ctrl-C and SIGTERM, held back to where the state is whole; a second Ctrl-C ends at once.

    A second SIGTERM changes nothing: a pool of processes sends one more when its first worker ends.

    Args:
        now: whether the state is whole at this moment, for a long time to come (an evaluation).
            `Stopped` is then raised where the program stands; otherwise `asked` is set, and who
            asks between two steps finds it.
    """

    def __init__(self, now: Callable[[], bool]):
        self.asked = False
        self._now = now
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():  # the only one that may
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number, frame) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        if self.asked:
            return
        self.asked = True
        if self._now():
            raise Stopped
