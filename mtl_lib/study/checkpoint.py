"""Stop anywhere, go on from there: the unfinished state of a run in one file, and signals heeded.

A checkpoint is a safetensors file with its JSON in the header, never a pickle. The last good one is
there until the next is complete.
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
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mtl_lib.errors import ConfigError, RunError, explain
from mtl_lib.files import replacing

FORMAT = "3"  # raised when the state changes its form: an older one is then set aside
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

    def save(self, state: dict[str, Any]) -> None:
        """Replace the last state by this one, once it is on the disk.

        Raises:
            RunError: if it cannot be written; the last state is then still there.
        """
        started = time.perf_counter()
        tensors: dict[str, Tensor] = {}
        words = json.dumps(_without_tensors(state, "", tensors))
        metadata = {"format": FORMAT, "state": words, "sha256": _digest(words, tensors)}
        try:
            with replacing(self.path) as unfinished:
                save_file(tensors, unfinished, metadata)
                to_disk(unfinished)
        except (OSError, SafetensorError) as error:
            raise RunError(
                f"{self.path}: cannot be written: {explain(error)}. The checkpoint before it is "
                "kept; the same command goes on from there"
            ) from error
        ended = time.perf_counter()
        self._next = ended + max(self._seconds, (ended - started) / self._share)

    def load(self) -> dict[str, Any] | None:
        """The last state, or None; a damaged one is set aside with a message."""
        for left in self.folder.glob(".*"):  # by a process that was killed while it wrote
            left.unlink(missing_ok=True)
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


def _without_tensors(
    state: dict[str, Any], path: str, tensors: dict[str, Tensor]
) -> dict[str, Any]:
    """The state without its tensors, which are collected by their path in it."""
    words: dict[str, Any] = {}
    for name, value in state.items():
        if isinstance(value, dict):
            words[name] = _without_tensors(value, f"{path}{name}/", tensors)
        elif isinstance(value, Tensor):
            tensors[path + name] = value.detach().cpu().contiguous()
        else:
            words[name] = value
    return words


def _with_tensors(words: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Any]:
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

    A second SIGTERM changes nothing: who ends a group of processes may send a worker one, and the
    study of that worker one more.

    Args:
        now: whether the state is whole at this moment, for a long time to come (an evaluation).
            `Stopped` is then raised where the program stands; otherwise `asked` is set, and who
            asks between two steps finds it.
    """

    def __init__(self, now: Callable[[], bool]):
        self.asked = False
        self._now = now
        self._handled = ExitStack()

    def __enter__(self) -> "StopSignals":
        self._handled.enter_context(handling(self._ask, signal.SIGINT, signal.SIGTERM))
        return self

    def __exit__(self, *_: object) -> None:
        self._handled.close()

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        if self.asked:
            return
        self.asked = True
        if self._now():
            raise Stopped


@contextmanager
def handling(
    handler: Callable[[int, FrameType | None], Any] | signal.Handlers, *numbers: signal.Signals
) -> Iterator[None]:
    """Handle signals so in a block; those that are ignored stay so.

    Only the main thread may do this: in another one nothing changes.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in numbers}
    # Who started the program may have had them ignored; None is a handler that is not Python's.
    before = {n: old for n, old in before.items() if old not in (signal.SIG_IGN, None)}
    try:
        for number in before:
            signal.signal(number, handler)
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def to_disk(path: Path) -> None:
    """Wait until a file's content is on the disk, so that a power cut finds it."""
    with path.open("rb+") as file:  # Windows flushes no file that is open for reading only
        os.fsync(file.fileno())
