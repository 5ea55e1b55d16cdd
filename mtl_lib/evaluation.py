"""How good the predictions are: the paper's metrics, on logits in file order.

Shapes: N examples of a split, C outputs of the task's head, K true labels of the task.
"""

import warnings

import numpy as np
import pandas as pd
import torch
from scipy import stats
from sklearn import metrics as sk
from sklearn.exceptions import UndefinedMetricWarning
from torch import Tensor

from mtl_lib.data import TokenizedSplit, sorted_batches
from mtl_lib.model import MultitaskModel
from mtl_lib.tasks import BY_NAME, Task


def predict(model: MultitaskModel, split: TokenizedSplit, batch_size: int = 32) -> np.ndarray:
    """Logits `[N, C]`, float32, in the split's own order, in eval mode without gradients.

    Sentences of like length go through together; the order is restored afterwards.
    """
    was_training = model.training
    logits = np.empty((len(split), split.task.outputs), dtype=np.float32)
    model.eval()
    with torch.inference_mode():
        for indices, batch in sorted_batches(split, batch_size):
            logits[indices] = model(batch).cpu().numpy()
    model.train(was_training)
    return logits


def evaluate(model: MultitaskModel, split: TokenizedSplit, batch_size: int = 32) -> dict:
    """`metrics` of a model on one labelled split."""
    return metrics(split.task, predict(model, split, batch_size), split.labels.numpy())


def predicted_labels(task: Task, logits: np.ndarray) -> np.ndarray:
    """Predicted labels `[N]` from logits `[N, C]`: class, 0/1, or the score."""
    return task.predict(torch.from_numpy(logits)).numpy()


def is_constant(task: Task, logits: np.ndarray) -> bool:
    """Whether every example gets the same prediction: a task that has collapsed, or not begun."""
    return len(np.unique(predicted_labels(task, logits))) == 1


def metrics(task: Task, logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The task's metrics (paper, section 5.2), the headline metric first.

    Classes: accuracy, balanced accuracy, macro-averaged F1. Scores: Pearson's and Spearman's
    correlation and the mean squared error. A correlation of constant predictions does not exist:
    it is reported as NaN.

    Args:
        logits: `[N, C]`.
        labels: `[N]`.
    """
    predicted = predicted_labels(task, logits)
    if task.kind != "score":
        with warnings.catch_warnings():
            # sklearn warns when a class is predicted that has no true example: that is allowed.
            warnings.simplefilter("ignore", UndefinedMetricWarning)
            warnings.simplefilter("ignore", UserWarning)
            return {
                "accuracy": float(sk.accuracy_score(labels, predicted)),
                "balanced_accuracy": float(sk.balanced_accuracy_score(labels, predicted)),
                "macro_f1": float(sk.f1_score(labels, predicted, average="macro")),
            }
    predicted = predicted.astype(np.float64)
    constant = np.ptp(predicted) == 0 or np.ptp(labels) == 0
    return {
        "pearson": float("nan") if constant else float(stats.pearsonr(labels, predicted)[0]),
        "spearman": float("nan") if constant else float(stats.spearmanr(labels, predicted)[0]),
        "mse": float(np.mean((predicted - labels) ** 2)),
    }


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


def round_similarity(scores: np.ndarray) -> np.ndarray:
    """Scores `[N]` to classes 0-5, half to even: this reproduces the class shares of Figure 5."""
    return np.clip(np.rint(scores), 0, 5).astype(int)


def _classes(task: Task, logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    predicted = predicted_labels(task, logits)
    if task.kind == "score":
        return round_similarity(labels), round_similarity(predicted)
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


def headline(task_metrics: dict[str, dict[str, float]]) -> float:
    """Mean of the tasks' headline metrics, by which the best epoch is chosen (our reading).

    An undefined correlation counts as 0: a model that predicts a constant has learned nothing.
    """
    return float(
        np.mean([np.nan_to_num(m[BY_NAME[name].metric]) for name, m in task_metrics.items()])
    )
