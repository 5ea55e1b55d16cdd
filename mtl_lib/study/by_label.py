"""Predictions label by label (paper, Figures 5 to 8), and what a constant answer is worth.

Shapes: N examples of a split, C outputs of the task's head, K true labels of the task.
"""

import numpy as np
import pandas as pd
from scipy import stats
from sklearn import metrics as sk
from torch import Tensor

from mtl_lib.evaluation import predicted_labels
from mtl_lib.tasks import SIMILARITY, Task


def is_constant(task: Task, logits: np.ndarray) -> bool:
    """Whether every example gets the same prediction: a task that has collapsed, or not begun."""
    return len(np.unique(predicted_labels(task, logits), axis=0)) == 1


def constant_loss(task: Task, labels: np.ndarray, class_weights: Tensor | None = None) -> float:
    """The mean loss of the best constant answer: what a model reaches that sees no input.

    The entropy of the labels' shares, in nats, or their variance for a score; with class weights
    `[C]`, the entropy of the weighted shares. Labels are `[N]`.
    """
    if task.kind == "score":
        return float(np.var(labels))
    counts = np.bincount(labels.astype(int), minlength=task.num_classes).astype(float)
    if class_weights is not None:
        counts *= class_weights.cpu().numpy()
    return float(stats.entropy(counts))


def round_scores(scores: np.ndarray, task: Task) -> np.ndarray:
    """Scores `[N]` to the task's labels 0 to `max_label`, half to even.

    Raises:
        ConfigError: if the task does not say how far its labels go.
    """
    return np.clip(np.rint(scores), 0, task.num_classes - 1).astype(int)


def round_similarity(scores: np.ndarray) -> np.ndarray:
    """Similarity scores `[N]` to classes 0-5: this reproduces the class shares of Figure 5."""
    return round_scores(scores, SIMILARITY)


def _classes(task: Task, logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    predicted = predicted_labels(task, logits)
    if task.kind == "score":
        return round_scores(labels, task), round_scores(predicted, task)
    return labels.astype(int), predicted.astype(int)


def per_class_report(task: Task, logits: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    """Accuracy by true label (paper, Figure 5).

    Returns:
        One row per label: `label`, `accuracy` (share of its examples predicted right, NaN where
        it has none), `share` (of all examples) and `count`.
    """
    matrix = confusion(task, logits, labels)  # [K, K]
    count = matrix.sum(axis=1)
    with np.errstate(invalid="ignore"):
        accuracy = np.where(count > 0, matrix.diagonal() / count, np.nan)
    return pd.DataFrame(
        {
            "label": np.arange(task.num_classes),
            "accuracy": accuracy,
            "share": count / max(count.sum(), 1),
            "count": count,
        }
    )


def confusion(task: Task, logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Confusion matrix `[K, K]`: true labels down, predicted labels across."""
    true, predicted = _classes(task, logits, labels)
    return sk.confusion_matrix(true, predicted, labels=np.arange(task.num_classes))
