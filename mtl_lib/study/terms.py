"""What the paper adds to the losses: norms, smoothness, weights of the classes."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from mtl_lib.data import Batch
from mtl_lib.methods.regularizers import SmoothnessRegularizer, encode_embedded, lp_penalty
from mtl_lib.model import MultitaskModel
from mtl_lib.trainer import LossTerm


def penalty_term(task_name: str, p: float, strength: float) -> LossTerm:
    """`strength * ||w||_p` of the task's head matrices, added to its loss (paper, section 4).

    A head of one's own gives its matrices by a method `matrices`, as `model.Head` does.
    """
    return lambda model, batch: strength * lp_penalty(model.heads[task_name].matrices(), p)


def smoothness_term(strength: float, generator: torch.Generator) -> LossTerm:
    """SMART on a single-sentence or pair task (paper, appendix A).

    Both passes run without dropout, otherwise the term would measure the dropout masks.
    """
    regularizer = SmoothnessRegularizer()

    def term(model: MultitaskModel, batch: Batch) -> Tensor:
        batch = model.arranged(batch)

        def forward(embeddings: Tensor) -> Tensor:  # [n*B, L, H] -> [B, C]
            vectors = encode_embedded(model, embeddings, batch.attention_mask)
            return model.classify(batch.task, vectors)

        model.eval()
        embeddings = model.encoder.embed(batch.input_ids, batch.token_type_ids)
        value = regularizer(forward, embeddings, batch.task.kind, generator, rows=batch.rows)
        model.train()
        return strength * value

    return term


def class_weights(labels: Iterable[int], num_classes: int) -> Tensor:
    """`W_i = TC / (K * C_i)` from the training labels (paper, section 4); 0 for an empty class.

    Args:
        labels: training labels, TC of them, C_i in class i.
        num_classes: K.

    Returns:
        Weights `[K]`, float32.
    """
    counts = np.bincount(np.asarray(labels, dtype=int), minlength=num_classes)
    weights = np.zeros(num_classes)
    weights[counts > 0] = counts.sum() / (num_classes * counts[counts > 0])
    return torch.tensor(weights, dtype=torch.float32)
