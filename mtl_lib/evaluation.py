"""How good the predictions are: the paper's metrics, on logits in file order.

Shapes: N examples of a split, C outputs of the task's head.
"""

import warnings
from collections.abc import Mapping

import numpy as np
import torch

from mtl_lib.data import TokenizedSplit, sorted_batches
from mtl_lib.model import MultitaskModel
from mtl_lib.tasks import METRICS, Task


def predict(model: MultitaskModel, split: TokenizedSplit, batch_size: int = 32) -> np.ndarray:
    """Logits `[N, C]`, float32, in the split's own order, in eval mode without gradients.

    Sentences of like length go through together; the order is restored afterwards.
    """
    was_training = model.training
    logits = np.empty((len(split), split.task.outputs), dtype=np.float32)
    model.eval()
    try:
        with torch.no_grad():  # what a module keeps in inference mode no training could use
            for indices, batch in sorted_batches(split, batch_size):
                logits[indices] = model(batch).float().cpu().numpy()
    finally:
        model.train(was_training)
    return logits


def evaluate(
    model: MultitaskModel, split: TokenizedSplit, batch_size: int = 32
) -> dict[str, float]:
    """`metrics` of a model on one split.

    Raises:
        ValueError: if the split has no labels.
    """
    if split.labels is None:
        raise ValueError(f"{split.task.name}: the split has no labels to compare with")
    return metrics(split.task, predict(model, split, batch_size), split.labels.numpy())


def predicted_labels(task: Task, logits: np.ndarray) -> np.ndarray:
    """Predictions `[N]` from logits `[N, C]`, as the task makes them: class, 0/1, or the score."""
    return task.predict(torch.from_numpy(logits)).numpy()


def metrics(task: Task, logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The task's metrics (paper, section 5.2), the one that it is judged by first.

    Classes: accuracy, balanced accuracy, macro-averaged F1. Scores: Pearson's and Spearman's
    correlation and the mean squared error. A correlation of constant predictions does not exist:
    it is reported as NaN. With a loss of one's own, the task's metric alone.

    Args:
        logits: `[N, C]`.
        labels: `[N]`.
    """
    predicted = predicted_labels(task, logits)
    if callable(task.metric):
        first = {task.metric_name: float(task.metric(predicted, labels))}
    else:
        first = {task.metric: _metric(task.metric, predicted, labels)}
    of_kind = {"score": (*METRICS[3:], "mse"), "own": ()}.get(task.kind, METRICS[:3])
    return first | {n: _metric(n, predicted, labels) for n in of_kind if n not in first}


def _metric(name: str, predicted: np.ndarray, labels: np.ndarray) -> float:
    # Here: scikit-learn and SciPy are slow to import, and training need not wait for them.
    from scipy import stats
    from sklearn import metrics as sk

    if name in ("pearson", "spearman", "mse"):
        predicted = predicted.astype(np.float64)
        if name == "mse":
            return float(np.mean((predicted - labels) ** 2))
        if np.ptp(predicted) == 0 or np.ptp(labels) == 0:
            return float("nan")
        correlation = stats.pearsonr if name == "pearson" else stats.spearmanr
        return float(correlation(labels, predicted)[0])
    with warnings.catch_warnings():
        # sklearn warns when a class is predicted that has no true example: that is allowed.
        warnings.simplefilter("ignore", UserWarning)
        if name == "macro_f1":
            return float(sk.f1_score(labels, predicted, average="macro"))
        score = sk.accuracy_score if name == "accuracy" else sk.balanced_accuracy_score
        return float(score(labels, predicted))


def headline(scores: Mapping[str, Mapping[str, float]]) -> float:
    """Mean of the tasks' first metrics, by which the best epoch is chosen (our reading).

    An undefined correlation counts as 0: a model that predicts a constant has learned nothing. An
    undefined metric of one's own counts as less than any other.

    Args:
        scores: by task what `metrics` returned.
    """
    first = [next(iter(of_task.items())) for of_task in scores.values()]
    undefined = {name: 0.0 for name in METRICS}
    return float(np.mean([undefined.get(n, -np.inf) if np.isnan(v) else v for n, v in first]))
