"""What a task is: its sentences, its head's width, its loss, its metric and its prediction.

Shapes: B examples in the batch, C outputs of the head.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from mtl_lib.errors import ConfigError

# Logits [B, C] and labels to a scalar, the mean over the batch.
Loss = Callable[..., Tensor]
# Predictions and labels, [N] each, to one number; higher is better.
Metric = Callable[[np.ndarray, np.ndarray], float]


def cross_entropy(logits: Tensor, labels: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Classes: logits `[B, C]` and class indices `[B]`; `class_weights` `[C]` give the weighted
    mean that `torch.nn.functional.cross_entropy` computes (paper, section 4)."""
    return F.cross_entropy(logits, labels, weight=class_weights)


def binary_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Yes or no: one logit, `[B, 1]`, and labels 0 or 1, `[B]`."""
    return F.binary_cross_entropy_with_logits(logits.squeeze(1), labels.to(logits.dtype))


def mean_squared_error(logits: Tensor, labels: Tensor) -> Tensor:
    """Scores: one output, `[B, 1]`, and labels `[B]`."""
    return F.mse_loss(logits.squeeze(1), labels.to(logits.dtype))


LOSSES: dict[str, Loss] = {
    loss.__name__: loss for loss in (cross_entropy, binary_cross_entropy, mean_squared_error)
}
_KINDS = dict(zip(LOSSES, ("classes", "binary", "score"), strict=True))


@dataclass(frozen=True)
class TaskLoss:
    """A task's loss, which refuses shapes that do not fit: broadcasting would hide them."""

    task: str
    outputs: int
    function: Loss

    def __call__(
        self, logits: Tensor, labels: Tensor, class_weights: Tensor | None = None
    ) -> Tensor:
        """Mean loss over the batch, a scalar: of logits `[B, C]`, labels `[B]` and, for a
        cross-entropy, weights `[C]` of the classes.

        Raises:
            ValueError: if the shapes do not fit, or the result is no scalar.
        """
        own = self.function not in LOSSES.values()
        if logits.shape != (len(labels), self.outputs) or not (own or labels.dim() == 1):
            raise ValueError(
                f"{self.task}: logits {tuple(logits.shape)} and labels {tuple(labels.shape)} "
                f"do not fit; expected [B, {self.outputs}] and [B]"
            )
        weights = () if class_weights is None else (class_weights.to(logits),)
        loss = self.function(logits, labels, *weights)
        if loss.dim():
            raise ValueError(f"{self.task}: its loss has shape {tuple(loss.shape)}; give the mean")
        return loss


METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "pearson", "spearman")


@dataclass(frozen=True)
class Task:
    """One supervised problem on sentences or sentence pairs (paper, sections 5.1 and 5.3).

        nli = Task("multi-nli", sentences=2, outputs=3, loss="cross_entropy", metric="accuracy")

    Attributes:
        name: of letters, digits, `_` and `-`.
        sentences: per example, 1 or 2.
        outputs: C, the width of the head.
        loss: a key of `LOSSES`, or a function from logits `[B, C]` and labels to a scalar. Labels
            of an own loss may have any shape `[B, ..]`: whole numbers arrive as int64, others as
            float32.
        metric: by which the best epoch is chosen: one of `METRICS`, or a function from predictions
            and labels (NumPy, `[N]`) to a number that is higher for better ones.
        prediction: a function from logits `[B, C]` to predictions `[B]`. By default the class,
            0 or 1, or the score itself; with an own loss the largest output where C > 1.
        max_label: labels run from 0 to this; of a score None, any number, unless it is given.
        title: the name as a heading.

    Raises:
        ConfigError: if a value is impossible, or none of those named here.
    """

    name: str
    sentences: int = 1
    outputs: int = 1
    loss: Any = "cross_entropy"  # a `Loss` or its name; then a `TaskLoss`
    metric: Metric | str = "accuracy"
    prediction: Callable[[Tensor], Tensor] | None = None
    max_label: int | None = None
    title: str = ""

    def __post_init__(self) -> None:
        def refuse(what: str) -> None:
            raise ConfigError(f"task {self.name!r}: {what}")

        if not (isinstance(self.name, str) and re.fullmatch(r"[A-Za-z0-9_-]+", self.name)):
            refuse("a name holds letters, digits, _ and - only")
        if hasattr(nn.ModuleDict(), self.name) or self.name == "file":
            refuse("the name is taken by torch or numpy; choose another")
        if type(self.sentences) is not int or self.sentences not in (1, 2):
            refuse(f"sentences is {self.sentences!r}; an example has 1 or 2")
        if type(self.outputs) is not int or self.outputs < 1:
            refuse(f"outputs is {self.outputs!r}; it must be a whole number above 0")
        if not callable(self.loss) and self.loss not in LOSSES:
            refuse(f"loss {self.loss!r}: choose from {list(LOSSES)}, or give a function")
        if not callable(self.metric) and self.metric not in METRICS:
            refuse(f"metric {self.metric!r}: choose from {list(METRICS)}, or give a function")
        if self.max_label is not None and (type(self.max_label) is not int or self.max_label < 1):
            refuse(f"max_label is {self.max_label!r}; labels run from 0 to a whole number")
        if self.kind == "classes" and self.outputs < 2:
            refuse(f"{self.outputs} output has a cross-entropy of 0; classes need 2 or more")
        if self.kind in ("binary", "score") and self.outputs != 1:
            refuse(f"outputs is {self.outputs}; {self.loss_name} takes one")
        score = self.kind in ("score", "own") and self.outputs == 1 and not self.prediction
        if score and self.metric in METRICS[:3]:
            refuse(
                f"{self.metric} compares classes, and one output is a score: choose from "
                f"{list(METRICS[3:])}, or give a `prediction`"
            )
        if self.kind in ("classes", "binary"):
            object.__setattr__(self, "max_label", max(self.outputs - 1, 1))
        object.__setattr__(self, "title", self.title or self.name.capitalize())
        loss = TaskLoss(self.name, self.outputs, self._function)
        object.__setattr__(self, "loss", loss)

    @property
    def loss_name(self) -> str:
        """The key of `LOSSES`, or "" for a loss of one's own."""
        return next((name for name, loss in LOSSES.items() if loss is self._function), "")

    @property
    def _function(self) -> Loss:
        loss = self.loss.function if isinstance(self.loss, TaskLoss) else self.loss
        return LOSSES[loss] if isinstance(loss, str) else loss

    @property
    def kind(self) -> str:
        """ "classes", "binary" or "score", as the loss says; "own" for a loss of one's own."""
        return _KINDS.get(self.loss_name, "own")

    @property
    def metric_name(self) -> str:
        """What the metric is called in results."""
        return getattr(self.metric, "__name__", str(self.metric))

    @property
    def num_classes(self) -> int:
        """Number of true labels in a per-class table; a score counts its rounded labels.

        Raises:
            ConfigError: if the task does not say how far its labels go.
        """
        if self.max_label is None:
            raise ConfigError(f"task {self.name!r}: a table by label needs its max_label")
        return self.max_label + 1

    def predict(self, logits: Tensor) -> Tensor:
        """Predictions `[B]` from head outputs `[B, C]`."""
        if self.prediction:
            return self.prediction(logits)
        if self.kind == "binary":
            return (logits.squeeze(1) > 0).long()
        return logits.argmax(dim=1) if self.outputs > 1 else logits.squeeze(1)

    def check_labels(self, labels: Tensor) -> None:
        """Refuse several labels an example, `[N, ..]`, that nothing of its own compares, by a
        ConfigError."""
        if labels.dim() > 1 and isinstance(self.metric, str) and not self.prediction:
            raise ConfigError(
                f"task {self.name!r}: {self.metric} compares one label an example, and these are "
                f"{[*labels.shape]}: give a `prediction` and a metric of its own"
            )

    def check_class_weights(self, weights: Tensor, labels: Tensor | None) -> None:
        """Refuse weights `[C]` with which a batch of the training labels `[N]` has no mean loss, by
        a ConfigError."""
        place = f"class_weights of {self.name!r}"
        if self.kind in ("binary", "score"):
            raise ConfigError(f"{place}: {self.loss_name} takes none")
        if weights.shape != (self.outputs,):
            raise ConfigError(f"{place}: one weight for each of its outputs")
        if self.kind == "classes" and not (weights.cpu()[labels] > 0).all():
            raise ConfigError(f"{place}: {weights.tolist()}; above 0 for each class that occurs")

    def as_dict(self) -> dict[str, Any]:
        """The task as JSON keeps it; functions of one's own are None."""
        names = ("name", "sentences", "outputs", "max_label", "title")
        return {name: getattr(self, name) for name in names} | {
            "loss": self.loss_name or None,
            "metric": self.metric if isinstance(self.metric, str) else None,
            "prediction": "own" if self.prediction else None,
        }

    @classmethod
    def from_dict(cls, words: dict[str, Any]) -> "Task":
        """Undo `as_dict`.

        Raises:
            ConfigError: if the task had functions of its own: no file holds these.
        """
        own = [name for name in ("loss", "metric") if words[name] is None]
        own += ["prediction"] if words["prediction"] else []
        if own:
            raise ConfigError(f"task {words['name']!r}: its {own[0]} is its own; give the task")
        return cls(**words)


SENTIMENT = Task("sentiment", outputs=5)
PARAPHRASE = Task("paraphrase", sentences=2, loss="binary_cross_entropy")
SIMILARITY = Task(
    "similarity", sentences=2, loss="mean_squared_error", metric="pearson", max_label=5
)
CFIMDB = Task("cfimdb", outputs=2, title="CFIMDB")

TASKS = (SENTIMENT, PARAPHRASE, SIMILARITY)
BY_NAME = {task.name: task for task in (*TASKS, CFIMDB)}
