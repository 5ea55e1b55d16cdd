"""The fast engine: all tasks in one forward and one backward pass, without padding."""

from collections.abc import Sequence
from typing import Any

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
        self._gradients: Any = None  # made at the first step, when the number of tasks is known

    def backward(
        self, batches: Sequence[Batch], loss: BatchLoss, terms: Terms
    ) -> tuple[list[tuple[Tensor, Tensor]], JointGradients]:
        model = self._model
        if self._gradients is None:
            shared = model.shared_parameters()
            self._gradients = JointGradients(model.encoder, len(batches), shared)
        gradients = self._gradients
        gradients.clear()  # of a step that was not finished
        weight = model.encoder.pooler.dense.weight
        padded = [(batch.input_ids, batch.attention_mask) for batch in batches]
        pack = Pack.of(padded, weight.device)
        with torch.autocast(weight.device.type, torch.bfloat16, enabled=model.low_precision):
            vectors = gradients.vectors(pack, model.sentence_vector)  # [S, H]
        of_batches = vectors.to(weight.dtype).split(pack.sentences)  # T tensors [n*B, H]
        plain = [loss(batch, v) for batch, v in zip(batches, of_batches, strict=True)]
        torch.stack(plain).sum().backward()
        losses = []
        for task, (batch, value) in enumerate(zip(batches, plain, strict=True)):
            whole = value.detach()
            for term in terms(batch):
                if term.requires_grad:  # a graph of its own: it reaches this task's gradient only
                    term.backward()
                    gradients.add(task)
                whole = whole + term.detach()
            losses.append((value.detach(), whole))
        return losses, gradients
