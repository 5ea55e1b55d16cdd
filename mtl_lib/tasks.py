"""What a task is: its labels, its loss, its metric and the width of its head.

Shapes: B examples in the batch, C outputs of the head (5, 1 or 2).
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Task:
    """One supervised problem on sentences or sentence pairs (paper, section 5.1).

    `kind` chooses the loss of section 5.3: "classes" (cross-entropy), "binary" (binary
    cross-entropy on one logit) or "score" (mean squared error).
    """

    name: str
    title: str
    kind: str
    sentences: int  # sentences per example: 1 or 2
    outputs: int  # C, the width of the head
    max_label: int  # labels run from 0 to this
    metric: str  # the headline metric: "accuracy" or "pearson"

    @property
    def num_classes(self) -> int:
        """Number of true labels in a per-class table; similarity counts its rounded scores."""
        return self.max_label + 1

    def loss(self, logits: Tensor, labels: Tensor, class_weights: Tensor | None = None) -> Tensor:
        """Mean loss over the batch.

        Args:
            logits: head outputs, `[B, C]`.
            labels: `[B]`; class indices, 0/1, or scores 0-5.
            class_weights: `[C]`, only for "classes": the weighted mean that
                `torch.nn.functional.cross_entropy` computes (paper, section 4).

        Returns:
            A scalar, independent of the batch size.

        Raises:
            ValueError: if the shapes do not fit, since broadcasting would hide it.
        """
        if logits.shape != (len(labels), self.outputs) or labels.dim() != 1:
            raise ValueError(
                f"{self.name}: logits {tuple(logits.shape)} and labels {tuple(labels.shape)} "
                f"do not fit; expected [B, {self.outputs}] and [B]"
            )
        if self.kind == "classes":
            return F.cross_entropy(logits, labels, weight=class_weights)
        if self.kind == "binary":
            return F.binary_cross_entropy_with_logits(logits.squeeze(1), labels.to(logits.dtype))
        return F.mse_loss(logits.squeeze(1), labels.to(logits.dtype))

    def predict(self, logits: Tensor) -> Tensor:
        """Predicted labels `[B]` from head outputs `[B, C]`: class, 0/1, or the score itself."""
        if self.kind == "classes":
            return logits.argmax(dim=1)
        if self.kind == "binary":
            return (logits.squeeze(1) > 0).long()
        return logits.squeeze(1)


SENTIMENT = Task("sentiment", "Sentiment", "classes", 1, 5, 4, "accuracy")
PARAPHRASE = Task("paraphrase", "Paraphrase", "binary", 2, 1, 1, "accuracy")
SIMILARITY = Task("similarity", "Similarity", "score", 2, 1, 5, "pearson")
CFIMDB = Task("cfimdb", "CFIMDB", "classes", 1, 2, 1, "accuracy")

TASKS = (SENTIMENT, PARAPHRASE, SIMILARITY)
BY_NAME = {task.name: task for task in (*TASKS, CFIMDB)}
