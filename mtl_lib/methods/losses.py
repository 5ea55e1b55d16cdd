"""Losses that regularise: softer labels, and two dropout masks that have to agree.

Shapes: B examples in the batch, C outputs of the head.
"""

from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from torch import Tensor

from mtl_lib.data import Batch
from mtl_lib.errors import ConfigError
from mtl_lib.methods.regularizers import divergence
from mtl_lib.model import MultitaskModel
from mtl_lib.trainer import LossTerm


def label_smoothed_cross_entropy(eps: float = 0.1) -> Callable[..., Tensor]:
    """A `Task` loss: cross-entropy with the label's class at 1 - eps, and eps spread evenly over
    all C classes (Szegedy et al., 2016, section 7).

        Task("sentiment", outputs=5, loss=label_smoothed_cross_entropy(0.1), max_label=4)

    Args:
        eps: 0 is the cross-entropy itself.

    Returns:
        A function from logits `[B, C]`, class indices `[B]` and, if given, weights `[C]` of the
        classes to a scalar in nats. It is a loss of one's own: a saved model is loaded with its
        task given.

    Raises:
        ConfigError: unless 0 <= eps < 1.
    """
    if not 0 <= eps < 1:
        raise ConfigError(f"eps = {eps}: the share that is spread lies in [0, 1)")
    return partial(F.cross_entropy, label_smoothing=eps)


def r_drop_term(alpha: float = 1.0, kind: str | None = None) -> LossTerm:
    """R-Drop: alpha times how far two passes with different dropout lie apart, to be added to a
    task's loss (Liang et al., 2021, section 2).

    For classes (KL(P||Q) + KL(Q||P)) / 2 of the two outputs, for a score half their squared
    difference. The paper sums the task's loss over both passes, where a trainer takes it of one
    pass: its alpha is twice ours. The two passes are further ones: a step takes about three times
    as long for a task with this term.

    Args:
        kind: how outputs are compared, see `regularizers.divergence`; by default by the task's
            kind. To be given for a loss of one's own.

    Raises:
        ConfigError: if alpha is below 0.
    """
    if not alpha >= 0:
        raise ConfigError(f"alpha = {alpha}: it must be at least 0")

    def term(model: MultitaskModel, batch: Batch) -> Tensor:
        of_task = kind or batch.task.kind
        if of_task == "own":
            raise ConfigError(f"{batch.task.name} has a loss of its own: give R-Drop its `kind`")
        return alpha / 2 * divergence(model(batch), model(batch), of_task)

    return term
