import pytest
import torch
import torch.nn.functional as F

from mtl_lib.tasks import PARAPHRASE, SENTIMENT, SIMILARITY


def test_sentiment_loss_is_the_cross_entropy_of_raw_logits():
    logits, labels = torch.randn(6, 5), torch.tensor([0, 1, 2, 3, 4, 4])
    expected = -logits.log_softmax(1)[torch.arange(6), labels].mean()
    torch.testing.assert_close(SENTIMENT.loss(logits, labels), expected)


def test_class_weights_give_the_weighted_mean():
    logits, labels = torch.randn(4, 5), torch.tensor([0, 1, 1, 4])
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    losses = F.cross_entropy(logits, labels, reduction="none")
    expected = (weights[labels] * losses).sum() / weights[labels].sum()
    torch.testing.assert_close(SENTIMENT.loss(logits, labels, weights), expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64])
def test_class_weights_of_another_type_weigh_the_same(dtype):
    logits, labels, weights = torch.randn(4, 5), torch.tensor([0, 1, 1, 4]), torch.arange(1.0, 6)
    expected = SENTIMENT.loss(logits, labels, weights)
    assert torch.equal(SENTIMENT.loss(logits, labels, weights.to(dtype)), expected)


def test_paraphrase_loss_is_the_binary_cross_entropy_of_the_logit():
    logits, labels = torch.randn(6, 1), torch.tensor([0.0, 1, 0, 1, 1, 0])
    p = torch.sigmoid(logits[:, 0])
    expected = -(labels * p.log() + (1 - labels) * (1 - p).log()).mean()
    torch.testing.assert_close(PARAPHRASE.loss(logits, labels), expected)


def test_similarity_loss_compares_each_score_with_its_own_label():
    logits, labels = torch.tensor([[1.0], [4.0]]), torch.tensor([1.5, 2.0])
    assert SIMILARITY.loss(logits, labels).item() == pytest.approx((0.25 + 4.0) / 2)


@pytest.mark.parametrize("task", [SENTIMENT, PARAPHRASE, SIMILARITY])
def test_loss_does_not_depend_on_the_batch_size(task):
    logits, labels = torch.randn(8, task.outputs), torch.zeros(8).long()
    halves = [task.loss(logits[:4], labels[:4]), task.loss(logits[4:], labels[4:])]
    torch.testing.assert_close(task.loss(logits, labels), sum(halves) / 2)


@pytest.mark.parametrize("labels", [torch.zeros(8, 1), torch.zeros(7)])
def test_labels_of_another_shape_are_refused_instead_of_broadcast(labels):
    with pytest.raises(ValueError, match=r"expected \[B, 1\] and \[B\]"):
        SIMILARITY.loss(torch.zeros(8, 1), labels)


def test_predictions_are_class_decision_and_score():
    assert SENTIMENT.predict(torch.eye(5)).tolist() == [0, 1, 2, 3, 4]
    assert PARAPHRASE.predict(torch.tensor([[-0.1], [0.1]])).tolist() == [0, 1]
    assert SIMILARITY.predict(torch.tensor([[2.5], [6.0]])).tolist() == [2.5, 6.0]


def test_similarity_has_six_classes_after_rounding():
    assert (SENTIMENT.num_classes, PARAPHRASE.num_classes, SIMILARITY.num_classes) == (5, 2, 6)
