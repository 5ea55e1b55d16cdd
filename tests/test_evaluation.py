import numpy as np
import pytest
import torch
from scipy import optimize, stats
from small import small_model, small_splits

from mtl_lib.evaluation import evaluate, headline, metrics, predict
from mtl_lib.study.by_label import confusion, constant_loss, per_class_report, round_similarity
from mtl_lib.study.terms import class_weights
from mtl_lib.tasks import PARAPHRASE, SENTIMENT, SIMILARITY


def one_hot(predicted, classes=5):
    return np.eye(classes, dtype=np.float32)[predicted]


def test_balanced_accuracy_averages_the_recall_of_the_true_classes():
    labels, predicted = np.array([0, 0, 0, 1]), np.array([0, 0, 4, 1])
    scores = metrics(SENTIMENT, one_hot(predicted), labels)
    assert scores["accuracy"] == pytest.approx(3 / 4)
    assert scores["balanced_accuracy"] == pytest.approx((2 / 3 + 1) / 2)


def test_pearson_agrees_with_the_literal_formula():
    rng = np.random.default_rng(0)
    labels, scores = rng.uniform(0, 5, 50), rng.normal(size=(50, 1)).astype(np.float32)
    x, y = labels - labels.mean(), scores[:, 0].astype(float) - scores.mean(dtype=float)
    expected = (x @ y) / np.sqrt((x @ x) * (y @ y))
    assert metrics(SIMILARITY, scores, labels)["pearson"] == pytest.approx(expected, abs=1e-9)
    assert metrics(SIMILARITY, scores, labels)["spearman"] == pytest.approx(
        stats.spearmanr(labels, scores[:, 0])[0], abs=1e-9
    )


def test_the_correlation_of_constant_predictions_is_reported_as_nan():
    scores = metrics(SIMILARITY, np.full((4, 1), 2.5, np.float32), np.array([0.0, 1, 2, 3]))
    assert np.isnan(scores["pearson"])
    assert scores["mse"] == pytest.approx(np.mean((2.5 - np.arange(4)) ** 2))


def test_similarity_is_rounded_half_to_even_and_kept_between_0_and_5():
    assert round_similarity(np.array([0.5, 1.5, 2.5, -3, 5.7])).tolist() == [0, 2, 2, 0, 5]


def test_per_class_accuracy_divides_by_the_true_class():
    labels, predicted = np.array([0, 0, 1, 1, 1, 3]), np.array([0, 1, 1, 1, 0, 4])
    report = per_class_report(SENTIMENT, one_hot(predicted), labels)
    assert report["accuracy"].tolist()[:2] == pytest.approx([1 / 2, 2 / 3])
    assert report["accuracy"][3] == 0
    assert np.isnan(report["accuracy"][2])
    assert report["share"].sum() == pytest.approx(1)
    assert report["count"].tolist() == [2, 3, 0, 1, 0]


def test_class_accuracies_weighted_by_share_give_the_accuracy():
    rng = np.random.default_rng(1)
    labels, logits = rng.integers(0, 2, 200), rng.normal(size=(200, 1)).astype(np.float32)
    report = per_class_report(PARAPHRASE, logits, labels)
    total = (report["accuracy"] * report["share"]).sum()
    assert total == pytest.approx(metrics(PARAPHRASE, logits, labels)["accuracy"], abs=1e-12)


def test_the_confusion_matrix_has_true_labels_down():
    matrix = confusion(SIMILARITY, np.array([[4.2], [4.4]], np.float32), np.array([5.0, 4.0]))
    assert matrix.shape == (6, 6)
    assert (matrix[5, 4], matrix[4, 4], matrix.sum()) == (1, 1, 2)


def test_predictions_come_back_in_file_order_whatever_the_batch_size():
    model, split = small_model(), small_splits(size=23)["similarity"]
    one_by_one = np.concatenate(
        [predict(model, split.take([i]), batch_size=1) for i in range(len(split))]
    )
    np.testing.assert_allclose(predict(model, split, batch_size=4), one_by_one, atol=1e-5)


def test_evaluation_is_without_dropout_and_leaves_the_mode_as_it_was():
    model, split = small_model(dropout=0.5), small_splits()["sentiment"]
    model.train()
    assert np.array_equal(predict(model, split), predict(model, split))
    assert model.training
    assert all(p.grad is None for p in model.parameters())


def test_evaluate_is_metrics_of_the_predictions():
    model, split = small_model(), small_splits()["paraphrase"]
    expected = metrics(PARAPHRASE, predict(model, split), split.labels.numpy())
    assert evaluate(model, split) == expected


def test_the_headline_mean_counts_an_undefined_correlation_as_zero():
    scores = {"sentiment": {"accuracy": 0.5}, "similarity": {"pearson": float("nan")}}
    assert headline(scores) == pytest.approx(0.25)


def test_logits_are_float32_whatever_the_model_computes_in():
    assert (
        predict(small_model(dtype=torch.float64), small_splits()["sentiment"]).dtype == np.float32
    )


@pytest.mark.parametrize("weights", [None, [0.5, 2.0, 3.0, 1.0, 4.0]])
def test_the_best_constant_loss_of_classes_is_what_a_descent_finds(weights):
    labels = np.array([0, 0, 0, 1, 1, 3, 4, 4, 4, 4])  # nobody is of class 2
    weights = None if weights is None else torch.tensor(weights, dtype=torch.float64)

    def loss(logits):
        every = torch.from_numpy(logits).expand(len(labels), 5)
        return SENTIMENT.loss(every, torch.from_numpy(labels), weights).item()

    expected = optimize.minimize(loss, np.zeros(5)).fun
    assert constant_loss(SENTIMENT, labels, weights) == pytest.approx(expected, abs=1e-4)


def test_with_the_papers_class_weights_the_best_constant_loss_is_that_of_even_shares():
    labels = np.array([0, 0, 0, 1, 2, 3, 4, 4])
    weights = class_weights(labels, 5)
    assert constant_loss(SENTIMENT, labels, weights) == pytest.approx(np.log(5), abs=1e-6)


def test_the_best_constant_loss_of_a_binary_task_is_the_entropy_of_its_share():
    labels = np.array([1, 0, 0, 0, 1, 0], np.float32)
    logit = np.log((2 / 6) / (4 / 6))
    every = torch.full((6, 1), logit, dtype=torch.float64)
    expected = PARAPHRASE.loss(every, torch.from_numpy(labels)).item()
    assert constant_loss(PARAPHRASE, labels) == pytest.approx(expected, abs=1e-9)


def test_the_best_constant_loss_of_a_score_is_that_of_the_mean_label():
    labels = np.random.default_rng(0).uniform(0, 5, 40).astype(np.float32)
    grid = np.linspace(0, 5, 5001)
    losses = ((labels[:, None].astype(float) - grid) ** 2).mean(axis=0)
    assert constant_loss(SIMILARITY, labels) == pytest.approx(losses.min(), abs=1e-5)


def test_labels_that_are_all_the_same_need_no_loss():
    assert constant_loss(SENTIMENT, np.full(4, 2)) == 0
    assert constant_loss(PARAPHRASE, np.zeros(4, np.float32)) == 0
    assert constant_loss(SIMILARITY, np.full(4, 2.5)) == 0
