"""Label smoothing and R-Drop against their formulas written out."""

import numpy as np
import pytest
import torch
from scipy.special import expit, rel_entr, softmax
from small import small_model, small_splits

from mtl_lib.errors import ConfigError
from mtl_lib.methods.losses import label_smoothed_cross_entropy, r_drop_term
from mtl_lib.model import HeadConfig, MultitaskModel
from mtl_lib.tasks import Task
from mtl_lib.trainer import ENGINES, Trainer


def logits_and_labels(classes=5, size=7):
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(size, classes, generator=generator, dtype=torch.float64)
    return logits, torch.randint(classes, (size,), generator=generator)


@pytest.mark.parametrize("eps", [0.0, 0.1, 0.7])
def test_smoothed_labels_have_the_loss_of_the_formula(eps):
    logits, labels = logits_and_labels()
    target = np.full((7, 5), eps / 5)
    target[np.arange(7), labels] += 1 - eps
    expected = -(target * np.log(softmax(logits.numpy(), axis=1))).sum(axis=1).mean()
    loss = label_smoothed_cross_entropy(eps)(logits, labels)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_smoothed_labels_equal_torchs_with_weights_of_the_classes():
    logits, labels = logits_and_labels()
    weights = torch.tensor([1.0, 2.0, 0.5, 0.0, 3.0], dtype=torch.float64)
    peer = torch.nn.CrossEntropyLoss(weight=weights, label_smoothing=0.2)
    loss = label_smoothed_cross_entropy(0.2)(logits, labels, weights)
    assert loss.item() == pytest.approx(peer(logits, labels).item(), rel=1e-12)


def test_a_task_with_smoothed_labels_is_trained():
    task = Task("sentiment", outputs=5, loss=label_smoothed_cross_entropy(0.2), max_label=4)
    split = small_splits()["sentiment"]
    split.task = task
    model = MultitaskModel(small_model().encoder, {task: HeadConfig()})
    trainer = Trainer(model, {"sentiment": split})
    assert np.isfinite(trainer.step()[0]["sentiment"])


@pytest.mark.parametrize("eps", [-0.1, 1.0])
def test_a_share_outside_its_range_is_refused(eps):
    with pytest.raises(ConfigError, match=f"eps = {eps}"):
        label_smoothed_cross_entropy(eps)


def two_outputs(model, batch, seed):
    """The outputs of two passes as the term draws them."""
    torch.manual_seed(seed)
    with torch.no_grad():
        return [model(batch).double().numpy() for _ in range(2)]


def half_symmetric(p, q):
    return 0.5 * (rel_entr(p, q) + rel_entr(q, p)).sum(axis=1).mean()


def binary(logits):
    yes = expit(logits)
    return np.concatenate([yes, 1 - yes], axis=1)


FORMULAS = {
    "sentiment": lambda a, b: half_symmetric(softmax(a, axis=1), softmax(b, axis=1)),
    "paraphrase": lambda a, b: half_symmetric(binary(a), binary(b)),
    "similarity": lambda a, b: 0.5 * ((a - b) ** 2).mean(),
}


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("name", FORMULAS)
def test_r_drop_is_the_divergence_of_two_passes_with_their_own_dropout(name, fast):
    model, batch = small_model(dropout=0.3).train(), small_splits()[name].batch(range(6))
    model.fast = fast
    expected = FORMULAS[name](*two_outputs(model, batch, seed=5))
    torch.manual_seed(5)
    term = r_drop_term(4.0)(model, batch)
    assert expected > 0
    assert term.item() == pytest.approx(4 * expected, rel=1e-3)


def test_without_dropout_two_passes_agree():
    model, batch = small_model(dropout=0.0).train(), small_splits()["sentiment"].batch(range(6))
    assert r_drop_term()(model, batch).item() == pytest.approx(0, abs=1e-10)


def test_gradients_flow_through_both_passes():
    # d/dz of (z k1 - z k2)^2 / 2, with the masks k1, k2: z (k1 - k2)^2, of both passes together.
    class Scaled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.z = torch.nn.Parameter(torch.tensor(3.0))
            self.masks = iter([2.0, 0.5])

        def forward(self, batch):
            return (self.z * next(self.masks)).view(1, 1)

    model = Scaled()
    r_drop_term(1.0, "score")(model, None).backward()
    assert model.z.grad.item() == pytest.approx(3.0 * 1.5**2)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_trainer_adds_the_term_to_the_loss(engine):
    trainer = Trainer(
        small_model(), small_splits(), engine=engine, terms={"sentiment": [r_drop_term(2.0)]}
    )
    entry = trainer.fit(epochs=1, max_steps=2).history[0]
    assert entry["terms"]["sentiment"] > 0


def test_a_loss_of_ones_own_needs_the_kind_and_takes_it():
    task = Task("sentiment", outputs=5, loss=label_smoothed_cross_entropy(), max_label=4)
    batch = small_splits()["sentiment"].batch(range(6))
    batch.task = task
    model = MultitaskModel(small_model().encoder, {task: HeadConfig()}).train()
    with pytest.raises(ConfigError, match="give R-Drop its `kind`"):
        r_drop_term()(model, batch)
    assert r_drop_term(1.0, "classes")(model, batch) > 0


def test_a_negative_alpha_is_refused():
    with pytest.raises(ConfigError, match="alpha = -1"):
        r_drop_term(-1)
