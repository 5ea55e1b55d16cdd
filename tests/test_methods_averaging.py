"""The best epoch's weights; averages against their formulas written out in float64."""

import numpy as np
import pytest
import torch
from small import small_data, small_encoder, small_model, small_splits
from torch import nn

from mtl_lib import trainer as trainer_module
from mtl_lib.errors import ConfigError
from mtl_lib.evaluation import evaluate
from mtl_lib.methods.averaging import BestEpoch, WeightAverage
from mtl_lib.model import HeadConfig, MultitaskModel
from mtl_lib.study.checkpoint import Checkpoint
from mtl_lib.study.resume import restore, state_of
from mtl_lib.tasks import SENTIMENT, SIMILARITY
from mtl_lib.trainer import Callback, Trainer


class Path(Callback):
    """The weights after each step, all in one vector of float64."""

    def __init__(self):
        self.weights = []

    def after_step(self, trainer, gram):
        self.weights.append(flat(trainer.model))


def flat(model):
    return torch.cat([p.detach().flatten().double() for p in model.parameters()]).numpy()


def trained(average, steps=12, data=None):
    path = Path()
    trainer = Trainer(
        small_model(),
        data or small_splits(),
        callbacks=[average, path],
        steps_per_epoch=4,
    )
    for group in trainer.optimizer.param_groups:
        group["lr"] = 1e-2
    trainer.fit(epochs=steps // 4)
    return trainer, path.weights


def averaged(average, model):
    with average.applied(model):
        return flat(model)


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.999])
def test_a_moving_average_is_that_of_the_formula(decay):
    average = WeightAverage(decay)
    trainer, weights = trained(average)
    expected = weights[0]
    for n, new in enumerate(weights[1:], start=1):
        d = min(decay, (1 + n) / (10 + n))
        expected = d * expected + (1 - d) * new
    np.testing.assert_allclose(averaged(average, trainer.model), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("start", [1, 5, 12])
def test_without_decay_it_is_the_mean_of_the_last_steps(start):
    average = WeightAverage(None, start)
    trainer, weights = trained(average)
    expected = np.mean(weights[start - 1 :], axis=0)
    np.testing.assert_allclose(averaged(average, trainer.model), expected, rtol=1e-5, atol=1e-6)


def test_the_weights_from_before_a_block_are_back_after_it_even_if_it_fails():
    average = WeightAverage()
    trainer, weights = trained(average)
    with pytest.raises(ZeroDivisionError), average.applied(trainer.model):
        assert not np.array_equal(flat(trainer.model), weights[-1])
        _ = 1 / 0
    assert np.array_equal(flat(trainer.model), weights[-1])


def test_training_and_its_evaluation_are_those_without_an_average():
    with_average, _ = trained(WeightAverage(), data=small_data())
    without, _ = trained(Callback(), data=small_data())
    assert np.array_equal(flat(with_average.model), flat(without.model))
    assert with_average.result.best == without.result.best


def test_apply_to_leaves_the_average_in_the_model():
    average = WeightAverage(None)
    trainer, weights = trained(average)
    average.apply_to(trainer.model)
    np.testing.assert_allclose(flat(trainer.model), np.mean(weights, axis=0), rtol=1e-5, atol=1e-6)


def test_frozen_parameters_have_no_average():
    average, model = WeightAverage(), small_model()
    model.freeze()
    Trainer(model, small_splits(), callbacks=[average]).fit(epochs=1, max_steps=2)
    assert set(average.values) == {n for n, _ in model.named_parameters() if n.startswith("heads.")}


def test_the_average_of_what_is_frozen_midway_goes_on_towards_it():
    average = WeightAverage(0.3)
    trainer, _ = trained(average)
    trainer.model.freeze()
    for _ in range(40):
        average.after_step(trainer, torch.zeros(3, 3))
    name, parameter = next(iter(trainer.model.encoder.named_parameters(prefix="encoder")))
    torch.testing.assert_close(average.values[name], parameter.detach(), rtol=0, atol=1e-7)


def test_the_average_is_held_in_float32():
    average = WeightAverage()
    model = small_model(dtype=torch.float64)
    Trainer(model, small_splits(), callbacks=[average]).fit(epochs=1, max_steps=2)
    assert {value.dtype for value in average.values.values()} == {torch.float32}


@pytest.mark.parametrize("decay", [0.9, None])
def test_a_training_that_goes_on_from_a_checkpoint_has_the_same_average(tmp_path, decay):
    def make():
        average = WeightAverage(decay, start=2)
        trainer = Trainer(small_model(), small_splits(), callbacks=[average], steps_per_epoch=8)
        return average, trainer

    whole, trainer = make()
    trainer.fit(epochs=1)

    class Stop(Callback):
        def after_step(self, trainer, gram):
            if trainer.steps == 4:
                Checkpoint(tmp_path).save(state_of(trainer))
                raise KeyboardInterrupt

    first, stopped = make()
    stopped.callbacks = [first, Stop()]
    with pytest.raises(KeyboardInterrupt):
        stopped.fit(epochs=1)
    second, continued = make()
    restore(continued, Checkpoint(tmp_path).load())
    continued.fit(epochs=1)
    assert second.count == whole.count == 7
    for name, value in whole.values.items():
        assert torch.equal(second.values[name], value)


@pytest.mark.parametrize(
    "options, message", [({"decay": 1.0}, "decay = 1.0"), ({"start": 0}, "start = 0")]
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        WeightAverage(**options)


def test_there_is_no_average_before_its_first_step():
    with pytest.raises(ConfigError, match="it starts with step 3"):
        WeightAverage(start=3).apply_to(small_model())


def test_the_average_of_another_model_is_refused_and_changes_nothing():
    average, model = WeightAverage(), small_model()
    trained(average)
    average.values["heads.other.weight"] = torch.zeros(2)
    before = flat(model)
    with pytest.raises(ConfigError, match="no heads.other.weight"):
        average.apply_to(model)
    assert np.array_equal(flat(model), before)


def test_the_best_epochs_weights_have_the_numbers_of_the_best_epoch(monkeypatch):
    monkeypatch.setattr(trainer_module, "headline", lambda scores: 0.0)  # the first epoch is best
    best, data = BestEpoch(), small_data()
    trainer, weights = trained(best, data=data)
    dev = {name: splits["dev"] for name, splits in data.items()}
    assert np.array_equal(flat(trainer.model), weights[-1])
    best.apply_to(trainer.model)
    assert np.array_equal(flat(trainer.model), weights[3])
    logits, scores = trainer.evaluate(dev)
    assert scores == trainer.result.best["dev"]
    assert all(np.array_equal(logits[name], trainer.result.logits[name]) for name in dev)


class Normed(nn.Module):
    """A head whose outputs depend on running means, which are no parameters."""

    def __init__(self):
        super().__init__()
        self.norm, self.linear = nn.BatchNorm1d(32), nn.Linear(32, 1)

    def forward(self, vectors):
        return self.linear(self.norm(vectors))


def test_the_best_epoch_keeps_what_a_head_remembers_beside_its_parameters(monkeypatch):
    monkeypatch.setattr(trainer_module, "headline", lambda scores: 0.0)  # the first epoch is best
    model, data = MultitaskModel(small_encoder(), {SIMILARITY: Normed()}), small_data()
    best = BestEpoch()
    fit = Trainer(model, {"similarity": data["similarity"]}, callbacks=[best]).fit(epochs=2)
    best.apply_to(model)
    assert evaluate(model, data["similarity"]["dev"]) == fit.best["dev"]["similarity"]


def test_the_best_epoch_of_another_model_is_refused():
    best, other = BestEpoch(), MultitaskModel(small_encoder(), {SENTIMENT: HeadConfig()})
    trained(best, steps=4)
    before = flat(other)
    with pytest.raises(ConfigError, match="the model has no heads.paraphrase"):
        best.apply_to(other)
    assert np.array_equal(flat(other), before)


def test_before_the_first_epoch_has_ended_there_is_no_best_one():
    with pytest.raises(ConfigError, match="no best epoch yet"):
        BestEpoch().apply_to(small_model())
