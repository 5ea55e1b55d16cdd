"""Stop anywhere, go on to the same bits; judged by a sample, reported on whole sets."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
from small import small_encoder, small_model, small_splits
from test_trainer import make_trainer

from mtl_lib import trainer as trainer_module
from mtl_lib.evaluation import evaluate, predict
from mtl_lib.fast.fused import FusedAdamW
from mtl_lib.methods.averaging import BestEpoch
from mtl_lib.methods.rates import linear_warmup
from mtl_lib.model import HeadConfig, MultitaskModel
from mtl_lib.study import run as run_module
from mtl_lib.study.checkpoint import Checkpoint
from mtl_lib.study.conflicts import ConflictLog
from mtl_lib.study.resume import restore, state_of
from mtl_lib.study.run import _whole
from mtl_lib.study.terms import penalty_term, smoothness_term
from mtl_lib.trainer import ENGINES, Callback, Trainer


@pytest.fixture(params=["the first epoch is best", "the last epoch is best"])
def best_epoch(request, monkeypatch):
    """The index of the best of the three epochs below: the judge likes what was evaluated
    first, or last.

    It remembers what it saw: a training that goes on is judged as the one without a stop.
    """
    sign, seen, evaluate_all = (-1 if "first" in request.param else 1), {}, Trainer.evaluate

    def noted(self, splits):
        logits, scores = evaluate_all(self, splits)
        seen.setdefault(repr(scores), len(seen))
        return logits, scores

    monkeypatch.setattr(Trainer, "evaluate", noted)
    for module in (trainer_module, run_module):
        monkeypatch.setattr(module, "headline", lambda scores: sign * seen[repr(scores)])
    return 0 if sign < 0 else 2


class Interrupted(Exception):
    pass


class Watch(Callback):
    """Keeps the model of each epoch; at a step, saves the state and then ends everything."""

    def __init__(self, checkpoint=None, step=None):
        self.checkpoint, self.step, self.models = checkpoint, step, []

    def after_step(self, trainer, gram):
        if trainer.steps == self.step:
            self.checkpoint.save(state_of(trainer))
            raise Interrupted

    def after_epoch(self, trainer, entry):
        self.models.append(copy.deepcopy(trainer.model))


@pytest.fixture
def train():
    return small_splits()


@pytest.fixture
def dev():
    return small_splits(seed=1)


def few(splits, size=8):
    return {name: split.take(range(size)) for name, split in splits.items()}


def instrument(train, dev, watch=None, engine="fast") -> Trainer:
    """A trainer with every option of the instrument on, and with terms that draw numbers."""
    torch.manual_seed(5)
    heads = {name: HeadConfig((0.1,)) for name in train}
    heads |= {"similarity": HeadConfig((0.5, 0.3), features="compare")}
    model = MultitaskModel(small_encoder(5), heads, "mean")
    noise = torch.Generator().manual_seed(5)
    groups = [
        {"params": model.shared_parameters()},
        {"params": list(model.heads.parameters()), "lr": 1e-2},
    ]
    return make_trainer(
        model,
        {name: {"train": train[name], "dev": dev[name]} for name in train},
        "pcgrad",
        batch_size=6,
        optimizer=FusedAdamW(groups, lr=2e-3, weight_decay=0.1),
        engine=engine,
        terms={
            "similarity": [penalty_term("similarity", float("inf"), 0.05)],
            "sentiment": [smoothness_term(1.0, noise)],
        },
        generators={"smoothness": noise},
        schedule=partial(linear_warmup, warmup_steps=2, total_steps=13),
        clip=1.0,
        callbacks=[BestEpoch(), ConflictLog(same_task_every=2), watch or Watch()],
    )


def fit_of(trainer, dev):
    """Three epochs of four steps, judged by a sample; best and last on the whole sets."""
    fit = trainer.fit(epochs=3, train_sample=8)
    return _whole(trainer, fit, dev, trainer.callbacks[0])


def same_fit(a, b) -> bool:
    def words(fit):
        history = [{k: v for k, v in entry.items() if k != "seconds"} for entry in fit.history]
        return repr([history, fit.best, fit.last])

    return words(a) == words(b) and all(np.array_equal(a.logits[n], b.logits[n]) for n in a.logits)


def same_parameters(a, b) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_epochs_are_judged_by_the_sample_but_best_and_last_are_of_the_whole_sets(
    best_epoch, train, dev
):
    watch = Watch()
    fit = fit_of(instrument(train, few(dev), watch), dev)
    for entry, model in zip(fit.history, watch.models, strict=True):
        assert entry["dev"] == {n: evaluate(model, split) for n, split in few(dev).items()}
    best = watch.models[best_epoch]
    assert fit.best["dev"] == {n: evaluate(best, split) for n, split in dev.items()}
    assert fit.best["train"] == {n: evaluate(best, s.sample(8)) for n, s in train.items()}
    assert fit.last["dev"] == {n: evaluate(watch.models[-1], split) for n, split in dev.items()}
    last = watch.models[-1]
    assert fit.last["train"] == {n: evaluate(last, s.sample(8)) for n, s in train.items()}
    for name, split in dev.items():
        assert np.array_equal(fit.logits[name], predict(best, split))


def test_a_sample_of_the_whole_sets_gives_the_numbers_without_one(best_epoch, train, dev):
    plain = instrument(train, dev).fit(epochs=3, train_sample=8)
    assert same_fit(plain, fit_of(instrument(train, dev), dev))


def test_the_model_is_that_of_the_last_step_after_the_best_one_was_evaluated(
    best_epoch, train, dev
):
    watch = Watch()
    trainer = instrument(train, few(dev), watch)
    fit_of(trainer, dev)
    assert same_parameters(trainer.model, watch.models[-1])


def resumed(train, dev, checkpoint, engine="fast") -> Trainer:
    trainer = instrument(train, few(dev), engine=engine)
    torch.manual_seed(99)  # a new process stands elsewhere
    restore(trainer, checkpoint.load())
    return trainer


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("step", [1, 4, 6, 12])
def test_a_stopped_training_with_all_options_goes_on_to_the_same_bits(
    step, engine, best_epoch, train, dev, tmp_path
):
    whole = instrument(train, few(dev), engine=engine)
    expected, checkpoint = fit_of(whole, dev), Checkpoint(tmp_path)
    with pytest.raises(Interrupted):
        fit_of(instrument(train, few(dev), Watch(checkpoint, step), engine), dev)
    trainer = resumed(train, dev, checkpoint, engine)
    assert same_fit(fit_of(trainer, dev), expected)
    assert same_parameters(trainer.model, whole.model)


@pytest.mark.parametrize("evaluation", range(1, 7))
def test_a_stop_in_the_final_evaluation_leaves_the_last_steps_parameters_and_goes_on(
    evaluation, best_epoch, train, dev, tmp_path, monkeypatch
):
    expected = fit_of(instrument(train, few(dev)), dev)
    watch, sets = Watch(), iter(range(1, 100))
    trainer = instrument(train, few(dev), watch)

    def interrupted(model, split):
        if len(split) == len(dev["sentiment"]) and next(sets) == evaluation:
            raise Interrupted
        return predict(model, split)

    monkeypatch.setattr(trainer_module, "predict", interrupted)
    if best_epoch == 2 and evaluation > 3:  # the last epoch is evaluated once, not twice
        fit_of(trainer, dev)
        return
    with pytest.raises(Interrupted):
        fit_of(trainer, dev)
    assert same_parameters(trainer.model, watch.models[-1])
    checkpoint = Checkpoint(tmp_path)
    checkpoint.save(state_of(trainer))
    monkeypatch.setattr(trainer_module, "predict", predict)
    assert same_fit(fit_of(resumed(train, dev, checkpoint), dev), expected)


def test_a_state_saved_on_a_cpu_goes_on_where_there_is_a_gpu():
    trainer = make_trainer(small_model())
    state = state_of(trainer)
    assert "cuda" not in state["dropout"]
    trainer.device = torch.device("cuda")  # stands for one: no generator of its was saved
    restore(trainer, state)
