"""Weightings that read the tasks' losses, not their gradients.

Before each step's weights are asked for, `see` takes the losses `[T]` of that step:

    weighting = FAMO(tasks=3)
    weighting.see(losses)
    weights = weighting(gram)

Until losses were seen the weights are one; thereafter they sum to T. Each is a weight of the
task's shared gradient, g = sum_t weights[t] g_t; a head's gradient stays as it is, which an
optimizer such as Adam does not tell from a constant factor.
"""

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Generator, Tensor

from mtl_lib.errors import ConfigError
from mtl_lib.weighting import float64, number_of_tasks

_LEAST_LOSS = 1e-8  # a loss is divided by, and its logarithm taken, from here up


class LossWeighting(ABC):
    """Weights from the losses seen.

    Args:
        tasks: T.
    """

    def __init__(self, tasks: int) -> None:
        self.weights = torch.ones(tasks, dtype=torch.float64)

    def see(self, losses: Tensor) -> None:
        """Take in the losses `[T]` of a step, and move to its weights.

        Losses that are not all finite leave no weight a number and change nothing else.

        Raises:
            ConfigError: if there is not one loss for each task.
        """
        if losses.shape != self.weights.shape:
            raise ConfigError(
                f"losses of shape {tuple(losses.shape)}: this weighting is for "
                f"{len(self.weights)} tasks; every step needs the same ones, for it remembers each "
                "by its place"
            )
        losses = float64(losses.detach()).cpu()
        if losses.isfinite().all():
            self.weights = self._of(losses)
        else:
            self.weights = torch.full_like(self.weights, math.nan)

    def __call__(self, gram: Tensor, generator: Generator | None = None) -> Tensor:
        """Weights `[T]`, float64; no number where an inner product is not finite."""
        number_of_tasks(gram)
        return self.weights + (0 * float64(gram.detach())).sum().cpu()

    @abstractmethod
    def _of(self, losses: Tensor) -> Tensor:
        """The weights `[T]` of a step with these losses, and what is kept for the next."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]: ...

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class _Learned(LossWeighting):
    """T numbers moved by an Adam of their own, along slopes worked out by hand."""

    def __init__(self, tasks: int, rate: float, decay: float = 0.0) -> None:
        super().__init__(tasks)
        self.rate, self.decay = rate, decay
        self.learned = torch.zeros(tasks, dtype=torch.float64)
        self._steps = 0
        # Moments of the slope; each of its own, or a checkpoint would find them sharing memory.
        self._first, self._second = torch.zeros_like(self.learned), torch.zeros_like(self.learned)

    def _move(self, slope: Tensor) -> None:
        """A step of Adam (Kingma and Ba, 2015, Algorithm 1), the decay in the slope."""
        slope = slope + self.decay * self.learned
        self._steps += 1
        self._first = 0.9 * self._first + 0.1 * slope
        self._second = 0.999 * self._second + 0.001 * slope**2
        first = self._first / (1 - 0.9**self._steps)
        second = self._second / (1 - 0.999**self._steps)
        self.learned = self.learned - self.rate * first / (second.sqrt() + 1e-8)

    def state_dict(self) -> dict[str, Any]:
        return {
            "learned": self.learned,
            "steps": self._steps,
            "first": self._first,
            "second": self._second,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.learned, self._steps = state["learned"], state["steps"]
        self._first, self._second = state["first"], state["second"]


class UncertaintyWeighting(_Learned):
    """Weights by the uncertainty of the tasks (Kendall et al., 2018, eq. 7).

    Each task has a variance sigma^2 that is trained along with the model, on
    sum_t L_t / (2 sigma_t^2) + log sigma_t. With s = log sigma^2 its slope in s_t is
    (1 - exp(-s_t) L_t) / 2, so that exp(-s_t), the task's weight, nears 1 / L_t. The weights are
    those before the step of s, at the scale where they sum to T.

    Args:
        tasks: T.
        rate: learning rate of the s, by Adam.
    """

    def __init__(self, tasks: int, rate: float = 0.01) -> None:
        super().__init__(tasks, rate)

    def _of(self, losses: Tensor) -> Tensor:
        weights = len(losses) * (-self.learned).softmax(dim=0)
        self._move((1 - (-self.learned).exp() * losses) / 2)
        return weights


class FAMO(_Learned):
    """Fast adaptive multi-task optimization (FAMO; Liu et al., 2023, Algorithm 1).

    With z = softmax(w) of the logits w, the weight of a task is z_t / L_t, at the scale where they
    sum to T: every task's loss falls by the same share. The logits then follow how the losses
    moved: their slope is J(z)' (log L - log L'), with J the softmax's derivative, plus decay * w,
    so that tasks that fell more lose weight. L' are the losses after the step. The paper takes
    them on the same batch by a second forward pass; here they are those of the next step's batch,
    which cost nothing and add the noise of the batches. The logits move by Adam, as in the
    authors' code.

    Args:
        tasks: T.
        rate: learning rate of the logits; the paper's 0.025.
        decay: weight decay of the logits.
    """

    def __init__(self, tasks: int, rate: float = 0.025, decay: float = 0.01) -> None:
        super().__init__(tasks, rate, decay)
        self._last: Tensor | None = None  # the losses of the step before

    def _of(self, losses: Tensor) -> Tensor:
        losses = losses.clamp(min=_LEAST_LOSS)
        if self._last is not None:
            shares = self.learned.softmax(dim=0)
            fall = self._last.log() - losses.log()
            self._move(shares * (fall - shares @ fall))
        self._last = losses
        weights = self.learned.softmax(dim=0) / losses
        return len(losses) * weights / weights.sum()

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"last": self._last}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._last = state["last"]


class DynamicWeightAverage(LossWeighting):
    """Dynamic weight average (DWA; Liu et al., 2019, eq. 7).

    A task whose loss falls more slowly gets more weight: T softmax(r / temperature), where r_t is
    its mean loss in the last period by that in the one before; one in the first two periods. The
    paper's period is an epoch.

    Args:
        tasks: T.
        period: steps whose losses are averaged.
        temperature: the paper's 2; high ones make the weights even.

    Raises:
        ConfigError: if the period is not a whole number above 0.
    """

    def __init__(self, tasks: int, period: int = 100, temperature: float = 2.0) -> None:
        super().__init__(tasks)
        if type(period) is not int or period < 1:
            raise ConfigError(f"period = {period!r}: it must be a whole number above 0")
        self.period, self.temperature = period, temperature
        self._seen = self.weights.new_zeros(0, tasks)  # losses of the period under way
        self._means = self.weights.new_zeros(0, tasks)  # of the last two periods, the older first

    def _of(self, losses: Tensor) -> Tensor:
        if len(self._seen) == self.period:
            self._means = torch.cat([self._means, self._seen.mean(dim=0, keepdim=True)])[-2:]
            self._seen = self._seen[:0]
        self._seen = torch.cat([self._seen, losses[None]])
        if len(self._means) < 2:
            return torch.ones_like(losses)
        before, last = self._means.clamp(min=_LEAST_LOSS)
        return len(losses) * (last / before / self.temperature).softmax(dim=0)

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self._seen, "means": self._means}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._seen, self._means = state["seen"], state["means"]
