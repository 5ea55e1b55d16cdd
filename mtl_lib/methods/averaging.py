"""Other weights than the last ones: those of the best epoch, and averages along training, which
often generalise better."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from mtl_lib.errors import ConfigError
from mtl_lib.model import MultitaskModel
from mtl_lib.trainer import Callback, Trainer


def _numbers_of(model: MultitaskModel) -> dict[str, Tensor]:
    """Parameters and buffers of a model, such as the running means of a head of one's own."""
    return dict(chain(model.named_parameters(), model.named_buffers()))


@torch.no_grad()
def _put(model: MultitaskModel, values: dict[str, Tensor]) -> None:
    """Give parameters and buffers of a model these values, all of them or none."""
    own = _numbers_of(model)
    for name, value in values.items():
        if name not in own or own[name].shape != value.shape:
            raise ConfigError(f"the model has no {name} {[*value.shape]}: give its own model")
    for name, value in values.items():
        own[name].copy_(value)


class BestEpoch(Callback):
    """Keeps the weights of the best epoch: those that `Fit.best` has the numbers of.

        best = BestEpoch()
        fit = Trainer(model, data, callbacks=[best]).fit(epochs=3)
        best.apply_to(model)

    Attributes:
        parameters: each parameter and buffer of the model as it then was, by name.
    """

    def __init__(self) -> None:
        self.parameters: dict[str, Tensor] = {}

    def after_best(self, trainer: Trainer) -> None:
        numbers = _numbers_of(trainer.model)
        self.parameters = {name: x.detach().clone() for name, x in numbers.items()}

    def apply_to(self, model: MultitaskModel) -> None:
        """Give the model the weights that it had after the best epoch.

        Raises:
            ConfigError: if no epoch has ended yet, or a weight is none of the model's.
        """
        if not self.parameters:
            raise ConfigError("no best epoch yet: none has ended")
        _put(model, self.parameters)

    def state_dict(self) -> dict[str, Any]:
        return dict(self.parameters)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.parameters = state


class WeightAverage(Callback):
    """An average of the trained parameters over the steps, kept beside them in float32.

        average = WeightAverage()
        Trainer(model, data, callbacks=[average]).fit(epochs=3)
        with average.applied(model):
            ...  # evaluate the average

    With a decay d, an exponential moving average, a <- d_n a + (1 - d_n) theta, where n weights
    are in it already and d_n = min(d, (1 + n) / (10 + n)), so that the first ones are soon
    forgotten. With d None, their uniform mean (Izmailov et al., 2018, Algorithm 1, at a constant
    rate and with every step's weights).

    Training goes on with the weights themselves, and an epoch's evaluation is theirs.

    Args:
        decay: d in [0, 1), or None for the uniform mean.
        start: the first step, counted from 1, whose weights take part.

    Raises:
        ConfigError: if an option lies outside its range.
    """

    def __init__(self, decay: float | None = 0.999, start: int = 1):
        if decay is not None and not 0 <= decay < 1:
            raise ConfigError(f"decay = {decay}: it must lie in [0, 1), or be None")
        if start < 1:
            raise ConfigError(f"start = {start}: steps are counted from 1")
        self.decay, self.start = decay, start
        self.count = 0  # the weights that are in the average
        self.values: dict[str, Tensor] = {}  # the average of each parameter, by name

    @torch.no_grad()
    def after_step(self, trainer: Trainer, gram: Tensor) -> None:
        if trainer.steps < self.start:
            return
        kept = self.count / (self.count + 1)
        if self.decay is not None and self.count:
            kept = min(self.decay, (1 + self.count) / (10 + self.count))
        for name, parameter in trainer.model.named_parameters():
            if not (parameter.requires_grad or name in self.values):  # one frozen since still moves
                continue
            value = parameter.detach().float()
            if name not in self.values:
                self.values[name] = value.clone()
            else:  # one that comes from a checkpoint may lie on another device
                self.values[name] = self.values[name].to(value.device).lerp_(value, 1 - kept)
        self.count += 1

    def apply_to(self, model: MultitaskModel) -> None:
        """Give the model's parameters their averages.

        Raises:
            ConfigError: if there is no average yet, or a parameter of it is none of the model's.
        """
        if not self.values:
            raise ConfigError(f"no average yet: it starts with step {self.start} of the training")
        _put(model, self.values)

    @contextmanager
    def applied(self, model: MultitaskModel) -> Iterator[None]:
        """The average in the model while a block runs; afterwards the weights from before it."""
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        try:
            self.apply_to(model)
            yield
        finally:
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    parameter.copy_(before[name])

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count, "values": self.values}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = state["count"]
        self.values = {name: value.clone() for name, value in state["values"].items()}
