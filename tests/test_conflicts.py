"""The log of each epoch's conflict, and the scale for it: two batches of one task."""

from itertools import combinations

import pytest
import torch
from small import small_model, small_splits
from test_trainer import engine, literal_gradients, make_trainer  # noqa: F401

from mtl_lib.errors import ConfigError
from mtl_lib.study.conflicts import ConflictLog, pair_name, same_task_cosines
from mtl_lib.trainer import Callback


def test_the_history_tells_the_conflict_of_every_pair_of_tasks():
    fit = make_trainer(small_model(), callbacks=[ConflictLog()]).fit(epochs=1)
    conflict = fit.history[0]["conflict"]
    assert set(conflict) == {
        "sentiment-paraphrase", "sentiment-similarity", "paraphrase-similarity",
    }  # fmt: skip
    assert all(-1 <= c["cosine"] <= 1 and 0 <= c["rate"] <= 1 for c in conflict.values())


def test_the_noted_conflict_is_the_mean_over_the_steps_of_the_epoch(engine):  # noqa: F811
    grams = []

    class Keep(Callback):
        def after_step(self, trainer, gram):
            grams.append(gram)

    trainer = make_trainer(small_model(), engine=engine, callbacks=[ConflictLog(), Keep()])
    history = trainer.fit(epochs=2).history
    for entry, of_epoch in zip(history, (grams[:6], grams[6:]), strict=True):
        cos = torch.stack([g / (g.diagonal()[:, None] * g.diagonal()).sqrt() for g in of_epoch])
        names = list(trainer.streams)
        for (i, a), (j, b) in combinations(enumerate(names), 2):
            found = entry["conflict"][f"{a}-{b}"]
            assert found["cosine"] == pytest.approx(cos[:, i, j].mean().item())
            assert found["rate"] == pytest.approx((cos[:, i, j] < 0).double().mean().item())


def test_the_pairs_of_a_task_with_a_dash_in_its_name_are_told_apart():
    names = ("a-b", "c", "a", "b-c")
    pairs = {pair_name(a, b) for a, b in combinations(names, 2)}
    assert len(pairs) == 6
    assert pair_name("sentiment", "similarity") == "sentiment-similarity"


def test_a_frozen_encoder_has_no_conflict_to_note():
    model = small_model()
    model.freeze()
    trainer = make_trainer(model, callbacks=[ConflictLog()])
    assert trainer.fit(epochs=1).history[0]["conflict"] == {}


def test_two_batches_of_one_task_are_compared_at_the_same_parameters(engine):  # noqa: F811
    splits, model = small_splits(), small_model(dropout=0.0, dtype=torch.float64)
    trainer = make_trainer(model, splits, engine=engine)
    found = same_task_cosines(trainer)
    model.fast = False  # written out with the encoder of bert.py
    draw = torch.Generator().manual_seed(0)
    for name, split in splits.items():
        order = torch.randperm(len(split), generator=draw)[:8]
        pair = [split.batch(order[:4]), split.batch(order[4:])]
        a, b = literal_gradients(model, pair)
        expected = (a @ b / (a.norm() * b.norm())).item()
        assert found[name] == pytest.approx(expected, abs=1e-9)


def test_comparing_batches_of_one_task_does_not_change_the_training(engine):  # noqa: F811
    splits, weights, conflicts = small_splits(), [], []
    for every in (0, 2):
        torch.manual_seed(5)
        model = small_model(seed=5)
        options = {"engine": engine, "callbacks": [ConflictLog(same_task_every=every)]}
        trainer = make_trainer(model, splits, weighting="pcgrad", **options)
        conflicts.append(trainer.fit(epochs=1).history[0]["conflict"])
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(*weights)
    assert set(conflicts[1]) - set(conflicts[0]) == {f"{name}-{name}" for name in splits}
    assert all(conflicts[1][pair] == values for pair, values in conflicts[0].items())


def test_a_training_set_smaller_than_two_batches_cannot_be_compared():
    with pytest.raises(ConfigError, match="24 training examples are less than two batches of 13"):
        ConflictLog(same_task_every=1).check(make_trainer(small_model(), batch_size=13))
