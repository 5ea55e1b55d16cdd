"""The published numbers, as tables, and small checks of where they do not fit together.

Source: Aggarwal and Cruz, "Multi-task Learning using BERT" (CS224N default project). Every table
names its section. Accuracies and shares are fractions of 1; similarity is Pearson's r, except in
Figure 5, where it is the accuracy of scores rounded to 0-5. Row ids such as "3.2" (second row of
Figure 3) are ours.
"""

from collections.abc import Iterable, Sequence
from itertools import combinations

import numpy as np
import pandas as pd

TASK_ORDER = ("paraphrase", "sentiment", "similarity")
"""The paper's order of columns in every table."""

BASELINE = "3.1"
"""Plain sum of the three losses: "Baseline minBERT" (Figure 3)."""

FINAL, ARCHITECTURE = "4.6", "3.10"
"""The final model with the chosen rate 5e-5 (highlighted in Figure 4), and the same architecture
at the default rate 1e-5 (last row of Figure 3)."""

FINAL_ROWS = (FINAL, ARCHITECTURE)
"""The final model, and what stands for it where it was not run."""


def _score_table(rows: dict[str, tuple]) -> pd.DataFrame:
    scores = [f"{split}_{task}" for split in ("train", "dev") for task in TASK_ORDER]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["name", *scores])
    return table.rename_axis("row")


PAPER_FIGURE_3 = _score_table(
    {
        "3.1": ("Baseline minBERT", 0.663, 0.337, 0.274, 0.667, 0.347, 0.254),
        "3.2": ("gradient surgery", 0.756, 0.920, 0.966, 0.746, 0.494, 0.338),
        "3.3": ("gs + increased STS dropout", 0.755, 0.927, 0.961, 0.745, 0.495, 0.362),
        "3.4": ("gs + L2 regularization", 0.711, 0.449, 0.625, 0.704, 0.396, 0.326),
        "3.5": ("gs + L1 regularization", 0.689, 0.470, 0.434, 0.683, 0.423, 0.352),
        "3.6": ("gs + L∞ regularization", 0.753, 0.927, 0.963, 0.746, 0.496, 0.363),
        "3.7": ("gs + add one linear layer each", 0.703, 0.473, 0.718, 0.700, 0.401, 0.387),
        "3.8": ("gs + increase dropout (sts & sst)", 0.679, 0.438, 0.398, 0.678, 0.414, 0.338),
        "3.9": ("gs + dropout + SMART (on sst)", 0.750, 0.273, 0.959, 0.739, 0.258, 0.335),
        "3.10": ("final architecture", 0.723, 0.728, 0.873, 0.720, 0.513, 0.396),
    }
)
"""Figure 3, section 5.4: training and development scores by architecture. Index: row id; columns:
name, then train_ and dev_ followed by the task."""

PAPER_FIGURE_4 = _score_table(
    {
        "4.1": ("batch size = 16", 0.732, 0.776, 0.932, 0.728, 0.519, 0.353),
        "4.2": ("weight decay = 0.1", 0.700, 0.408, 0.545, 0.692, 0.365, 0.282),
        "4.3": ("wd = 0.1, lr = 5e-6", 0.678, 0.400, 0.438, 0.674, 0.381, 0.347),
        "4.4": ("wd = 0.05, lr = 5e-6", 0.730, 0.760, 0.934, 0.728, 0.513, 0.372),
        "4.5": ("lr = 5e-6", 0.730, 0.760, 0.934, 0.728, 0.513, 0.372),
        "4.6": ("lr = 5e-5", 0.735, 0.767, 0.826, 0.728, 0.516, 0.438),
        "4.7": ("lr = 3e-5", 0.750, 0.858, 0.923, 0.741, 0.490, 0.432),
        "4.8": ("lr = 6e-5", 0.749, 0.857, 0.908, 0.740, 0.485, 0.425),
        "4.9": ("lr = 5e-5, weighted loss", 0.753, 0.899, 0.921, 0.744, 0.477, 0.426),
        "4.10": ("lr = 5e-5, LeakyReLU", 0.759, 0.888, 0.939, 0.744, 0.492, 0.456),
    }
)
"""Figure 4, section 5.4: hyperparameters of the final architecture. Layout as `PAPER_FIGURE_3`."""

PAPER_SCORES = pd.concat([PAPER_FIGURE_3, PAPER_FIGURE_4])
"""Figures 3 and 4 in one table."""

PAPER_FIGURE_5 = pd.DataFrame(
    [
        ("paraphrase", 0, 0.721, 0.625),
        ("paraphrase", 1, 0.316, 0.375),
        ("sentiment", 0, 0.307, 0.127),
        ("sentiment", 1, 0.727, 0.262),
        ("sentiment", 2, 0.301, 0.208),
        ("sentiment", 3, 0.620, 0.253),
        ("sentiment", 4, 0.448, 0.150),
        ("similarity", 0, 0.139, 0.117),
        ("similarity", 1, 0.333, 0.118),
        ("similarity", 2, 0.448, 0.166),
        ("similarity", 3, 0.314, 0.243),
        ("similarity", 4, 0.189, 0.245),
        ("similarity", 5, 0.000, 0.111),
    ],
    columns=["task", "label", "accuracy", "share"],
)
"""Figure 5, section 5.4, drawn as Figures 6-8 in appendix B: the final model's development accuracy
by true label, and the share of development examples with that label."""

PAPER_TEST = pd.DataFrame(
    {"paraphrase": [0.718, 0.726], "sentiment": [0.518, 0.533], "similarity": [0.363, 0.427]},
    index=pd.Index(["3.10", "4.6"], name="row"),
)
"""Test leaderboard, section 5.4: the final architecture before and after choosing rate 5e-5."""

PAPER_TEST_AVERAGE = 0.562
"""Abstract: "The three-task average performance is 0.562 on the test set"."""

PAPER_FINAL_DEV = pd.DataFrame(
    {
        "accuracy": [0.728, 0.516],
        "balanced_accuracy": [0.688, 0.48],
        "macro_f1": [0.694, 0.485],
    },
    index=pd.Index(["paraphrase", "sentiment"], name="task"),
)
"""Section 5.4: further development metrics "for our final architecture"; section 5.2 says that F1
is macro-averaged. The accuracies are those of row 4.6."""

PAPER_SHARES = pd.DataFrame(
    [
        ("paraphrase", 0, 0.63),
        ("paraphrase", 1, 0.37),
        ("sentiment", 0, 0.13),
        ("sentiment", 1, 0.26),
        ("sentiment", 2, 0.19),
        ("sentiment", 3, 0.27),
        ("sentiment", 4, 0.15),
        ("similarity", 0, 0.12),
        ("similarity", 1, 0.145),
        ("similarity", 2, 0.17),
        ("similarity", 3, 0.225),
        ("similarity", 4, 0.24),
        ("similarity", 5, 0.10),
    ],
    columns=["task", "label", "share"],
)
"""Section 5.1: label shares in the training and development sets together."""

PAPER_SIZES = pd.DataFrame(
    {"train": [141_506, 8_544, 6_041, 1_701], "dev": [20_215, 1_101, 864, 245]},
    index=pd.Index([*TASK_ORDER, "cfimdb"], name="task"),
)
"""Section 5.1: examples per split, as printed. The public files hold one row less in some splits
(similarity 6,040 / 863, paraphrase 20,214) and 1,707 CFIMDB training reviews."""


def overall_from_classes(accuracy: Sequence[float], share: Sequence[float]) -> float:
    """Accuracy over all examples implied by accuracies by true label: the mean weighted by share.

    Figure 5's sentiment column gives back .516; its paraphrase column gives .569, not .728.
    """
    return float(np.average(accuracy, weights=share))


def balanced_from_classes(accuracy: Sequence[float]) -> float:
    """Balanced accuracy: the plain mean of the accuracies by true label.

    Figure 5's sentiment column gives back .48; its paraphrase column gives .519, not .688.
    """
    return float(np.mean(accuracy))


def recalls_from_overall(accuracy: float, balanced: float, positive: float) -> tuple[float, float]:
    """Accuracies of label 0 and label 1 that give this accuracy and this balanced accuracy.

    Two equations, two unknowns: (1 - p) r0 + p r1 = accuracy and (r0 + r1) / 2 = balanced, where
    p = `positive` is the share of label 1. From the published .728, .688 and 37.5 %: .848 and .528.

    Raises:
        ValueError: at p = 0.5, where accuracy and balanced accuracy are the same number.
    """
    if positive == 0.5:
        raise ValueError("at equal shares, accuracy and balanced accuracy say the same thing")
    recall_1 = (accuracy - 2 * (1 - positive) * balanced) / (2 * positive - 1)
    return 2 * balanced - recall_1, recall_1


def positive_rate(recalls: tuple[float, float], positive: float) -> float:
    """Share of examples predicted 1, from the accuracies of labels 0 and 1 and the share of 1.

    Figure 5's paraphrase column and the published accuracies both need the rate .293, where labels
    in another order than the predictions would show .707 and .293. Our reading, not proved: the
    column (.721, .316) counts the right predictions against labels that are mostly misaligned.
    """
    return (1 - recalls[0]) * (1 - positive) + recalls[1] * positive


def macro_f1_from_recalls(recalls: tuple[float, float], positive: float) -> float:
    """Macro-averaged F1 of a two-class model from its accuracies of labels 0 and 1.

    Uses F1 = 2 TP / (true + predicted) for each label. The accuracies that follow from .728 and
    .688 give the published .694: those three numbers do fit together, and Figure 5 does not.
    """
    true = np.array([1 - positive, positive])
    predicted_1 = positive_rate(recalls, positive)
    predicted = np.array([1 - predicted_1, predicted_1])
    return float(np.mean(2 * np.array(recalls) * true / (true + predicted)))


def frequency_correlation(accuracy: Sequence[float], share: Sequence[float]) -> float:
    """Spearman's rank correlation between a label's accuracy and its share.

    Section 6 says "classes with a higher number of observations have higher accuracies". In
    Figure 5: .70 over the five sentiment labels, .49 over the six similarity labels, where the
    second most frequent label has .314 and one with two thirds of its share .448.
    """
    return float(pd.Series(accuracy).corr(pd.Series(share), method="spearman"))


def identical_rows(table: pd.DataFrame) -> list[tuple[str, str]]:
    """Pairs of row ids whose published scores all agree: 4.4 and 4.5 in Figure 4."""
    scores = table.drop(columns="name")
    return [
        (a, b) for a, b in combinations(table.index, 2) if (scores.loc[a] == scores.loc[b]).all()
    ]


def decayed_share(rate: float, decay: float, steps: int) -> float:
    """Share of a weight's size that decoupled decay takes away: 1 - (1 - rate * decay)^steps.

    Row 3.4's decay of 0.05 at rate 1e-5 takes 0.4 % in 7,550 steps (ten epochs of 755), too little
    to bring the sentiment training accuracy from .920 to .449.
    """
    return 1 - (1 - rate * decay) ** steps


def three_task_average(scores: Iterable[float]) -> float:
    """The leaderboard's number: the plain mean of two accuracies and one correlation."""
    return float(np.mean(list(scores)))
