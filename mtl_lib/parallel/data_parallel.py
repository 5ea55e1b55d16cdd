"""One run in several processes, with gradient surgery as exact as in one.

Every process draws the same batches and takes its share of each task's examples. What the shares
give is added up *before* anything is projected: the tasks' gradients, kept apart, in one all-reduce
of a buffer `[T, P]`, and of the word embeddings the rows of the step's words only. Gram matrix,
weights and step are then the same everywhere. Averaging what each process has projected on its own
would be another algorithm, since surgery is not linear in the gradients.

Shapes: T tasks, P shared parameters that are not word embeddings, U distinct words in a step, H
hidden size, N processes, B examples in a task's batch.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from mtl_lib.bert import BertModel
from mtl_lib.data import Batch, TokenizedSplit
from mtl_lib.errors import RunError
from mtl_lib.evaluation import predict
from mtl_lib.gradients import TaskGradients
from mtl_lib.model import MultitaskModel
from mtl_lib.trainer import BatchLoss, Terms, Trainer


class LostProcess(RunError):
    """Another process of the run is gone, so no step can be finished."""


class Processes:
    """The processes of a run, as `torch.distributed` knows them, and what they add up.

    Attributes:
        rank, size: which of how many this one is, from 0.
        sent: bytes of the buffers that this process put into all-reduces.
    """

    def __init__(self, group: Any = None) -> None:
        self.group = group
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        self.sent = 0

    def add_up(self, *buffers: Tensor) -> None:
        """Replace each buffer by its sum over the processes, in place, all of them at once.

        Raises:
            LostProcess: if one of the processes is gone.
        """
        filled = [buffer for buffer in buffers if buffer.numel()]
        self.sent += sum(buffer.numel() * buffer.element_size() for buffer in filled)
        with self._together():
            works = [dist.all_reduce(b, group=self.group, async_op=True) for b in filled]
            for work in works:
                work.wait()

    def gathered(self, value: Any) -> list[Any]:
        """The value of each process, in the order of their ranks.

        Raises:
            LostProcess: if one of the processes is gone.
        """
        values: list[Any] = [None] * self.size
        with self._together():
            dist.all_gather_object(values, value, group=self.group)
        return values

    def of_first(self, value: Any) -> Any:
        """The first process's value, in all of them.

        Raises:
            LostProcess: if one of the processes is gone.
        """
        values = [value]
        with self._together():
            dist.broadcast_object_list(values, src=0, group=self.group)
        return values[0]

    def share(self, count: int) -> Tensor:
        """Which of `count` examples are this process's: as many as any other's, or one fewer."""
        return torch.arange(count)[self.rank :: self.size]

    @contextmanager
    def _together(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            reason = (str(error).strip().splitlines() or ["no reason given"])[0][:120]
            raise LostProcess(
                f"process {self.rank} of {self.size}: another one is gone ({reason})"
            ) from error


class DataParallelEngine:
    """An engine (`trainer.Engine`) that shares each step's examples among the processes.

        trainer = Trainer(model, data, weighting=pcgrad_weights)
        processes = data_parallel(trainer)  # in each process, after init_process_group

    The numbers are those of one process at the same batches, up to rounding and dropout. A loss has
    to be a mean over examples (weighted by the classes where it is so), and so does a loss term
    that depends on them; no head may look across examples (BatchNorm). SMART draws its noise for
    the whole batch, but for pairs read together.
    """

    def __init__(self, trainer: Trainer, processes: Processes) -> None:
        self._trainer, self._processes = trainer, processes
        self._inner = trainer.make_engine()

    def backward(
        self, batches: Sequence[Sequence[Batch]], loss: BatchLoss, terms: Terms
    ) -> tuple[list[tuple[Tensor, Tensor]], Any]:
        shares = [[self._share(batch) for batch in of_task] for of_task in batches]
        parts = {
            id(share): self._part(share, batch)
            for of_task, of_shares in zip(batches, shares, strict=True)
            for batch, share in zip(of_task, of_shares, strict=True)
        }

        def part_of_loss(batch: Batch, vectors: Tensor) -> Tensor:
            return loss(batch, vectors) * parts[id(batch)][0]

        def part_of_terms(batch: Batch) -> Iterable[Tensor]:
            return (term * parts[id(batch)][1] for term in terms(batch))

        losses, gradients = self._inner.backward(shares, part_of_loss, part_of_terms)
        words = torch.cat([b.input_ids.flatten() for of_task in batches for b in of_task]).unique()
        return self._added_up(losses, gradients, words), gradients

    def _share(self, batch: Batch) -> Batch:
        """This process's examples of a batch; where it has none, the first one, to count nothing:
        every process has to reach the same parameters."""
        mine = self._processes.share(len(batch))
        return _examples(batch, mine if len(mine) else torch.tensor([0]))

    def _part(self, share: Batch, batch: Batch) -> tuple[float, float]:
        """How much the mean loss over a share weighs in that over its batch, and a term's mean."""
        if not len(self._processes.share(len(batch))):
            return 0.0, 0.0
        examples = len(share) / len(batch)
        weights = self._trainer.class_weights.get(batch.task.name)
        if weights is None or batch.labels is None or share.labels is None:
            return examples, examples
        weights = weights.cpu()
        own, all_of_them = weights[share.labels.cpu()].sum(), weights[batch.labels.cpu()].sum()
        return (own / all_of_them).item() if own else 0.0, examples

    def _added_up(
        self, losses: list[tuple[Tensor, Tensor]], gradients: Any, words: Tensor
    ) -> list[tuple[Tensor, Tensor]]:
        """Add up losses, the heads' gradients, and the shared ones; returns the losses."""
        model = self._trainer.model
        shared = set(model.shared_parameters())
        heads = [p for p in model.parameters() if p not in shared and p.grad is not None]
        plain = isinstance(gradients, TaskGradients)
        shared_ones = _PlainExchange(gradients, model) if plain else gradients
        values = torch.stack([torch.stack(pair) for pair in losses])  # [T, 2]
        strange = shared_ones.words_beyond(words)
        small = torch.cat(
            [values.flatten(), values.new_tensor([float(len(strange))])]
            + [p.grad.flatten().to(values) for p in heads]  # type: ignore[union-attr]
        )
        self._processes.add_up(small)
        sums, count, rest = small.split([values.numel(), 1, len(small) - values.numel() - 1])
        for parameter, piece in zip(heads, rest.split([p.numel() for p in heads]), strict=True):
            parameter.grad = piece.view_as(parameter).to(parameter)
        if count:  # a term read words that stand in no batch: all have to know them
            others = self._processes.gathered(strange.cpu())
            words = torch.cat([words.cpu(), *others]).unique()
        shared_ones.exchange(words, self._processes.add_up)
        return [(loss, whole) for loss, whole in sums.view(-1, 2)]


def _examples(batch: Batch, indices: Tensor) -> Batch:
    """Some of a batch's examples, padded as they are."""
    rows = torch.cat([indices + len(batch) * n for n in range(batch.task.sentences)])
    return replace(
        batch,
        ids=[batch.ids[i] for i in indices.tolist()],
        input_ids=batch.input_ids[rows],
        attention_mask=batch.attention_mask[rows],
        labels=None if batch.labels is None else batch.labels[indices],
        rows=(rows, batch.input_ids.shape),
    )


class _PlainExchange:
    """What `JointGradients` can do, for the plain engine's gradients."""

    def __init__(self, gradients: TaskGradients, model: MultitaskModel) -> None:
        self._gradients = gradients
        embeddings = model.encoder.embeddings if isinstance(model.encoder, BertModel) else None
        self._table = embeddings.word_embeddings.weight if embeddings else None

    def words_beyond(self, words: Tensor) -> Tensor:
        reached = [
            gradient.any(dim=1)
            for parameter, of_tasks in self._gradients.by_parameter()
            for gradient in of_tasks
            if parameter is self._table and gradient is not None
        ]
        if not reached:
            return words[:0]
        found = torch.stack(reached).any(dim=0).nonzero().flatten()
        return found[~torch.isin(found, words.to(found))]

    def exchange(self, words: Tensor, add_up: Callable[..., None]) -> None:
        """In one buffer; of the word embeddings the rows of these words, `[U]`."""
        places = [
            (gradient, words.to(gradient.device) if parameter is self._table else slice(None))
            for parameter, of_tasks in self._gradients.by_parameter()
            for gradient in of_tasks
            if gradient is not None
        ]
        if not places:  # a frozen encoder
            return
        pieces = [gradient[rows] for gradient, rows in places]
        buffer = torch.cat([piece.flatten() for piece in pieces])
        add_up(buffer)
        sums = buffer.split([piece.numel() for piece in pieces])
        for (gradient, rows), piece, total in zip(places, pieces, sums, strict=True):
            gradient[rows] = total.view_as(piece)


def data_parallel(trainer: Trainer, processes: Processes | None = None) -> Processes:
    """Let a trainer share its steps and evaluations with those of the other processes.

    Each process makes the same trainer first: same data, seed and weights. Dropout then draws
    other numbers in each.

    Args:
        processes: all that `torch.distributed` knows if None.

    Returns:
        The processes, with the bytes they send.

    Raises:
        RunError: if there is no process group: `torch.distributed.init_process_group` makes it.
    """
    if not dist.is_initialized():
        raise RunError("no process group: start the program with torchrun, or make one first")
    processes = processes or Processes()
    trainer.engine = DataParallelEngine(trainer, processes)
    trainer.predict = _shared_predict(processes)
    torch.manual_seed(torch.initial_seed() + processes.rank)  # of dropout
    return processes


def _shared_predict(processes: Processes) -> Callable[..., np.ndarray]:
    """`evaluation.predict`, each process for its share of the examples."""

    def shared(model: MultitaskModel, split: TokenizedSplit, batch_size: int = 32) -> np.ndarray:
        mine = processes.share(len(split))
        rows = predict(model, split.take(mine), batch_size) if len(mine) else None
        parts = processes.gathered(rows)  # the first has one example at least
        logits = np.empty((len(split), split.task.outputs), parts[0].dtype)
        for rank, part in enumerate(parts):
            if part is not None:
                logits[rank :: processes.size] = part
        return logits

    return shared
