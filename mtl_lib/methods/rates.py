"""Learning rates: by layer, for heads, over the steps; and optimisers beside AdamW."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from mtl_lib.bert import BertModel
from mtl_lib.errors import ConfigError
from mtl_lib.fast.fused import FusedAdamW
from mtl_lib.model import MultitaskModel

Groups = list[dict[str, Any]]


def parameter_groups(
    model: MultitaskModel,
    lr: float,
    head_lr: float | None = None,
    layer_decay: float = 1.0,
    weight_decay: float = 0.0,
) -> Groups:
    """The trained parameters of a model in groups for an optimiser, each parameter once.

    Lower layers, which hold what all language shares, learn more slowly (Howard and Ruder, 2018,
    section 3.2: discriminative fine-tuning; here by a constant factor a layer, as in Clark et al.,
    2020): of L layers, layer l has lr * layer_decay ** (L - 1 - l), the embeddings have
    lr * layer_decay ** L, and the pooler has lr. Biases and the parameters of LayerNorm, all that
    is no matrix, are not decayed (Devlin et al., 2019, in their code).

    Args:
        lr: learning rate of the last layer, and of an encoder of one's own.
        head_lr: that of the heads; `lr` if None.
        layer_decay: factor from a layer to the one below it, in (0, 1].
        weight_decay: of the matrices.

    Raises:
        ConfigError: if `layer_decay` lies outside (0, 1], or is below 1 where the encoder is no
            `BertModel`, whose layers are not known.
    """
    if not 0 < layer_decay <= 1:
        raise ConfigError(f"layer_decay = {layer_decay}: it must lie in (0, 1]")
    encoder, layers = model.encoder, 0
    if isinstance(encoder, BertModel):
        layers = len(encoder.encoder.layer)  # of which some may have been taken away
    elif layer_decay < 1:
        raise ConfigError(
            f"layer_decay = {layer_decay}: the layers of {type(encoder).__name__} are not known; "
            "take 1.0"
        )
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            rate = lr * layer_decay ** _layers_above(name, layers)
            if name.startswith("heads.") and head_lr is not None:
                rate = head_lr
            decay = weight_decay if parameter.dim() > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]


def _layers_above(name: str, layers: int) -> int:
    """How many of a `BertModel`'s layers stand above a parameter of a model."""
    if name.startswith("encoder.embeddings."):
        return layers
    layer = re.match(r"encoder\.encoder\.layer\.(\d+)\.", name)
    return layers - 1 - int(layer[1]) if layer else 0


def linear_warmup(step: int, warmup_steps: int, total_steps: int) -> float:
    """Factor of the learning rate: up from 0 over the warm-up, then down to 0, both linearly
    (Devlin et al., 2019, appendix A.2).

    Args:
        step: optimiser steps taken so far (steps, not epochs), 0 before the first one.
        warmup_steps: steps until the factor is 1; 0 starts at 1.
        total_steps: steps until the factor is back at 0.

    Raises:
        ValueError: unless 0 <= step and 0 <= warmup_steps < total_steps.
    """
    if step < 0 or not 0 <= warmup_steps < total_steps:
        given = f"step {step}, warmup_steps {warmup_steps}, total_steps {total_steps}"
        raise ValueError(f"{given}: needed are 0 <= step and 0 <= warmup_steps < total_steps")
    if step < warmup_steps:
        return step / warmup_steps
    return max(0.0, (total_steps - step) / (total_steps - warmup_steps))


# Optimisers of such groups (the paper's future work, section 7). A rate suits one of them only: at
# the first step a number moves by lr with AdamW and Adagrad, by 3.2 lr with RMSprop, and by 1.9 lr
# times its gradient with SGD. In torch's three, weight decay is added to the gradient.
OPTIMIZERS: dict[str, Callable[[Groups], torch.optim.Optimizer]] = {
    "adamw": FusedAdamW,
    "adagrad": torch.optim.Adagrad,
    "rmsprop": partial(torch.optim.RMSprop, alpha=0.9),
    "sgd": partial(torch.optim.SGD, momentum=0.9, nesterov=True),
}
