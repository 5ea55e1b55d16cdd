"""More references of the exercises of chapters 08 to 10, each against an independent source."""

import copy
import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import brentq
from scipy.special import softmax
from torch import nn
from torch.distributions import Categorical, kl_divergence
from torch.testing import assert_close

from mtl_lib.handbook.checks import EXERCISES
from mtl_lib.handbook.checks.chapter_08 import _own_batch as own_batch
from mtl_lib.handbook.checks.chapter_08 import _own_model as own_model
from mtl_lib.tasks import PARAPHRASE, SENTIMENT

SEEDS = range(10)


def reference(name):
    return EXERCISES[name].reference


def logits_of_moved_embeddings(model, batch, change):
    """What the whole model says where a hook adds a change to its embeddings."""
    handle = model.encoder.embeddings.register_forward_hook(lambda *call: call[2] + change)
    try:
        return model(batch)
    finally:
        handle.remove()


def both_divergences(a, b):
    p, q = Categorical(logits=a), Categorical(logits=b)
    return (kl_divergence(p, q) + kl_divergence(q, p)).mean()


def gradients(value, model):
    """The gradient of every weight; 0 where there is none."""
    found = torch.autograd.grad(value, list(model.parameters()), allow_unused=True)
    return [
        torch.zeros_like(p) if g is None else g
        for p, g in zip(model.parameters(), found, strict=True)
    ]


@pytest.mark.parametrize("task", [SENTIMENT, PARAPHRASE], ids=lambda task: task.name)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_model_after_its_embeddings_is_the_model_with_a_hook_on_them(seed, task):
    model, batch = own_model(seed).double().eval(), own_batch(task, seed)
    x = model.encoder.embeddings(batch.input_ids)
    change = 0.1 * torch.randn(x.shape, dtype=x.dtype)
    rest = reference("AfterEmbeddings")(model, task, batch.attention_mask)
    assert_close(rest(x + change), logits_of_moved_embeddings(model, batch, change))


@pytest.mark.parametrize("step_size", [0.01, 0.3])  # inside the ball, and clipped
@pytest.mark.parametrize("seed", SEEDS)
def test_the_smart_term_and_its_gradients_are_those_of_a_hook_and_torch_s_divergences(
    seed, step_size
):
    radius = 0.1
    model, batch = own_model(seed).double().eval(), own_batch(SENTIMENT, seed)
    shape = model.encoder.embeddings(batch.input_ids).shape
    start = (0.02 * torch.randn(shape, dtype=torch.float64)).requires_grad_()

    at_x = model(batch)
    climbed = both_divergences(at_x.detach(), logits_of_moved_embeddings(model, batch, start))
    (uphill,) = torch.autograd.grad(climbed, start)
    change = start.detach().clone()
    for sentence, g in zip(change, uphill, strict=True):
        sentence += step_size * g / g.abs().max()
    change = torch.minimum(torch.maximum(change, torch.tensor(-radius)), torch.tensor(radius))
    expected = both_divergences(at_x, logits_of_moved_embeddings(model, batch, change))

    wanted = gradients(expected, model)
    model.train()
    term = reference("smart_term")(model, batch, start.detach(), step_size, radius)
    assert_close(term, expected)
    assert model.training
    for found, want in zip(gradients(term, model), wanted, strict=True):
        assert_close(found, want)


class Descent:
    """Gradient descent of one's own, with the `lr` that the exercise speaks of."""

    def __init__(self, parameters, lr):
        self.parameters, self.lr = list(parameters), lr

    @torch.no_grad()
    def step(self):
        for parameter in self.parameters:
            parameter -= self.lr * parameter.grad


@pytest.mark.parametrize("unknown", [(), (0,), (1, 3)])  # evaluations that give NaN
@pytest.mark.parametrize(("steps", "warmup", "every"), [(20, 5, 4), (23, 0, 5), (7, 6, 10)])
def test_a_training_ends_where_torch_s_own_sgd_and_schedule_were_best(
    steps, warmup, every, unknown
):
    torch.manual_seed(3)
    inputs, targets = torch.randn(2, 12, 4, dtype=torch.float64), torch.randn(2, 12, 1).double()
    first = nn.Linear(4, 1).double()
    loss = nn.MSELoss()

    def score(model, number):
        return math.nan if number in unknown else -loss(model(inputs[1]), targets[1]).item()

    # torch's: all weights that were scored, and pandas to say which are best.
    model = copy.deepcopy(first)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    factor = np.interp(range(steps + 1), [0, warmup, steps], [0, 1, 0])
    factor[warmup] = 1  # without a warm-up two points stand at 0
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: factor[step])
    kept = {}
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        loss(model(inputs[0]), targets[0]).backward()
        optimizer.step()
        schedule.step()
        if step % every == 0 or step == steps:
            kept[step] = score(model, len(kept)), copy.deepcopy(model)
    scores = pd.Series({step: found for step, (found, _) in kept.items()})
    wanted = first if scores.isna().all() else kept[scores.idxmax()][1]

    own, asked = copy.deepcopy(first), []
    descent = Descent(own.parameters(), lr=0.3)

    def take_step():
        own.zero_grad()
        loss(own(inputs[0]), targets[0]).backward()
        descent.step()

    def own_score():
        asked.append(score(own, len(asked)))
        return asked[-1]

    train = reference("train_and_keep_best")
    history = train(own, descent, take_step, own_score, steps, warmup, every)
    assert [step for step, _ in history] == list(scores.index)
    np.testing.assert_allclose([found for _, found in history], scores, rtol=1e-10)
    for found, want in zip(own.parameters(), wanted.parameters(), strict=True):
        assert_close(found, want)
    assert descent.lr == 0.3


@pytest.mark.parametrize("seed", SEEDS)
def test_the_epoch_reported_is_pandas_s_first_best_mean(seed):
    draw = np.random.default_rng(seed)
    dev, test = draw.normal(0.5, 0.2, size=(2, 8, 3)).round(1)  # rounded: some are equal
    dev[draw.random(dev.shape) < 0.2] = np.nan
    test[draw.random(test.shape) < 0.2] = np.nan
    expected = pd.DataFrame(dev).fillna(0).sum(axis=1).round(6).idxmax()
    epoch, scores = reference("choose_and_report")(dev, test)
    averages = np.nan_to_num(dev).mean(axis=1)
    assert averages[epoch] == pytest.approx(averages[expected])
    np.testing.assert_array_equal(scores, test[epoch])


@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("seed", SEEDS)
def test_at_the_fitted_temperature_the_expected_logit_is_the_observed_one(seed, scale):
    """In place of a search: at the least cross-entropy its derivative by 1 / T is 0."""
    draw = np.random.default_rng(seed)
    honest = draw.normal(size=(300, 4))
    labels = (honest + draw.gumbel(size=honest.shape)).argmax(axis=1)
    logits = scale * honest
    observed = logits[np.arange(len(labels)), labels].mean()

    def surplus(coldness):
        return (softmax(coldness * logits, axis=1) * logits).sum(axis=1).mean() - observed

    expected = 1 / brentq(surplus, 1 / 20, 1 / 0.05)
    assert reference("fit_temperature")(logits, labels) == pytest.approx(expected, rel=1e-3)


def test_a_temperature_beyond_the_ends_is_the_nearer_end():
    logits = np.random.default_rng(1).normal(size=(100, 3))
    sure, opposite = logits.argmax(axis=1), logits.argmin(axis=1)
    assert reference("fit_temperature")(logits, sure) == pytest.approx(0.05, rel=0.01)
    assert reference("fit_temperature")(logits, opposite) == pytest.approx(20, rel=0.01)
