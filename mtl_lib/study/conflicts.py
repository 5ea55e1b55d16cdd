"""How often, and how far, the tasks' gradients pull apart: a log of each epoch's conflict."""

from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from mtl_lib.errors import ConfigError
from mtl_lib.trainer import Callback, Trainer
from mtl_lib.weighting import cosines, number_of_tasks


def pair_name(a: str, b: str) -> str:
    """What a pair of tasks is called in a history; never to be taken apart again.

    With a dash, as in all stored runs, where that is unambiguous.
    """
    return f"{a} / {b}" if "-" in a + b else f"{a}-{b}"


def conflict_rate(gram: Tensor) -> float:
    """Share of the unordered pairs of tasks whose gradients conflict; 0 for a single task.

    Not a number where an inner product is not finite.

    Raises:
        ValueError: if `gram` is not square.
    """
    tasks = number_of_tasks(gram)
    rows, columns = torch.triu_indices(tasks, tasks, offset=1)
    pairs = gram[rows, columns]  # [T (T - 1) / 2]
    return float(((pairs < 0) + 0 * pairs).mean()) if len(pairs) else 0.0


class ConflictLog(Callback):
    """Notes for every pair of tasks, over an epoch, the mean cosine between their shared gradients
    and the share of steps at which they conflicted: `entry["conflict"][pair]["cosine" | "rate"]`.

    Args:
        same_task_every: after every so many steps, note as well the cosine between the shared
            gradients of two batches of one task, for each task; 0: never. The scale for the
            cosines between tasks.
    """

    def __init__(self, same_task_every: int = 0):
        self.same_task_every = same_task_every
        self._steps = 0  # of this epoch
        self._sums: dict[str, list[float]] = {}  # by pair: sum of cosines, conflicts, how many

    def check(self, trainer: Trainer) -> None:
        """Refuse training sets in which two batches of one task cannot be compared.

        Raises:
            ConfigError: naming the task.
        """
        for name, stream in trainer.streams.items():
            if self.same_task_every and len(stream.split) < 2 * stream.batch_size:
                raise ConfigError(
                    f"{name}: {len(stream.split)} training examples are less than two batches of "
                    f"{stream.batch_size}; lower the batch size"
                )

    def after_step(self, trainer: Trainer, gram: Tensor) -> None:
        if trainer.model.frozen:
            return
        cos = cosines(gram)
        for (i, a), (j, b) in combinations(enumerate(trainer.step_tasks), 2):
            self._note(pair_name(a, b), cos[i, j].item())
        self._steps += 1
        if self.same_task_every and self._steps % self.same_task_every == 0:
            for name, cosine in same_task_cosines(trainer).items():
                self._note(pair_name(name, name), cosine)

    def after_epoch(self, trainer: Trainer, entry: dict[str, Any]) -> None:
        entry["conflict"] = {
            pair: {"cosine": cosine / count, "rate": conflicts / count}
            for pair, (cosine, conflicts, count) in self._sums.items()
        }
        self._sums, self._steps = {}, 0

    def _note(self, pair: str, cosine: float) -> None:
        sums = self._sums.setdefault(pair, [0.0, 0, 0])
        for place, value in enumerate((cosine, cosine < 0, 1)):
            sums[place] += value

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self._steps, "sums": self._sums}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._steps, self._sums = state["steps"], dict(state["sums"])


def same_task_cosines(trainer: Trainer) -> dict[str, float]:
    """By task, the cosine between the shared gradients of two batches without a common example.

    Drawn by step and seed alone, and dropout's generator is put back: training goes on as if
    nothing had happened.
    """
    draw = torch.Generator().manual_seed(trainer.seed * 10**6 + trainer.steps)
    engine, cosine = trainer.make_engine(), {}
    with torch.random.fork_rng([trainer.device] if trainer.device.type == "cuda" else []):
        for name, stream in trainer.streams.items():
            size = stream.batch_size
            examples = torch.randperm(len(stream.split), generator=draw)[: 2 * size]
            pair = [stream.split.batch(half) for half in examples.split(size)]
            _, gradients = engine.backward(
                [[half] for half in pair], trainer.loss, lambda batch: ()
            )
            cosine[name] = cosines(gradients.gram())[0, 1].item()
    return cosine
