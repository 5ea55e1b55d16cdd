"""The fast engine: all tasks in one forward and one backward pass, without padding."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mtl_lib.data import Batch
from mtl_lib.fast.joint import JointGradients
from mtl_lib.fast.packed import Pack
from mtl_lib.model import MultitaskModel
from mtl_lib.trainer import BatchLoss, Terms


class FastEngine:
    """A `trainer.Engine` whose numbers are those of `trainer.PlainEngine`.

    Args:
        model: with a `BertModel` as encoder.
    """

    def __init__(self, model: MultitaskModel) -> None:
        self._model = model
        self._gradients: dict[int, JointGradients] = {}  # by the number of tasks in a step

    def backward(
        self, batches: Sequence[Sequence[Batch]], loss: BatchLoss, terms: Terms
    ) -> tuple[list[tuple[Tensor, Tensor]], JointGradients]:
        model, tasks = self._model, len(batches)
        if tasks not in self._gradients:
            shared = model.shared_parameters()
            self._gradients[tasks] = JointGradients(model.encoder, tasks, shared)
        gradients = self._gradients[tasks]
        gradients.clear()  # of a step that was not finished
        rounds = list(zip(*batches, strict=True))  # a batch of each task; their gradients add up
        parts = [self._round(gradients, part, loss, terms, len(rounds)) for part in rounds]
        losses = [
            torch.stack([torch.stack(pair) for pair in of]).sum(dim=0)
            for of in zip(*parts, strict=True)
        ]
        return [(plain, whole) for plain, whole in losses], gradients

    def _round(
        self,
        gradients: JointGradients,
        batches: Sequence[Batch],
        loss: BatchLoss,
        terms: Terms,
        rounds: int,
    ) -> list[tuple[Tensor, Tensor]]:
        """One backward pass of one batch of each task; its losses are divided by `rounds`."""
        model = self._model
        weight = model.encoder.pooler.dense.weight
        read = [model.arranged(batch) for batch in batches]
        padded = [(b.input_ids, b.attention_mask, b.token_type_ids) for b in read]
        pack = Pack.of(padded, weight.device)
        with model.precision():
            vectors = gradients.vectors(pack, model.sentence_vector)  # [S, H]
        of_batches = vectors.to(weight.dtype).split(pack.sentences)  # T tensors [n*B, H]
        plain = [loss(batch, v) / rounds for batch, v in zip(batches, of_batches, strict=True)]
        torch.stack(plain).sum().backward()
        losses = []
        for task, (batch, value) in enumerate(zip(batches, plain, strict=True)):
            whole = value.detach()
            for term in terms(batch):
                if term.requires_grad:  # a graph of its own: it reaches this task's gradient only
                    (term / rounds).backward()
                    gradients.add(task)
                whole = whole + term.detach() / rounds
            losses.append((value.detach(), whole))
        return losses
