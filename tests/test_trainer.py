"""The loop: losses, gradients and steps against plain torch, with either engine."""

import copy
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from small import small_data, small_model, small_splits

from mtl_lib import trainer as module
from mtl_lib.errors import ConfigError, NumericalError, RunError
from mtl_lib.evaluation import metrics, predict
from mtl_lib.fast.fused import FusedAdamW
from mtl_lib.gradients import TaskGradients
from mtl_lib.methods.rates import linear_warmup
from mtl_lib.methods.weightings import project_conflicting
from mtl_lib.optim import AdamW
from mtl_lib.study.weightings import WEIGHTINGS
from mtl_lib.trainer import ENGINES, Callback, Trainer
from mtl_lib.weighting import pcgrad_weights


@pytest.fixture(params=ENGINES)
def engine(request) -> str:
    return request.param


def make_trainer(model, data=None, weighting="sum", lr=1e-3, batch_size=4, **options) -> Trainer:
    parameters = [p for p in model.parameters() if p.requires_grad]
    return Trainer(
        model,
        data or small_data(),
        optimizer=options.pop("optimizer", None) or AdamW(parameters, lr=lr),
        weighting=WEIGHTINGS[weighting](3),
        batch_size=batch_size,
        seed=0,
        **options,
    )


class NoStep(torch.optim.SGD):
    """Leaves the parameters and their gradients as they are, for the test to look at."""

    def __init__(self, model):
        super().__init__(model.parameters(), lr=0.0)


def literal_gradients(model, batches):
    """One gradient of all shared parameters per task, by separate plain backward passes."""
    rows = []
    for batch in batches:
        model.zero_grad()
        batch.task.loss(model(batch), batch.labels).backward()
        rows.append(torch.cat([p.grad.flatten() for p in model.encoder.parameters()]))
    model.zero_grad()
    return torch.stack(rows)


def same_batches(splits, batch_size=4):
    streams = make_trainer(small_model(), splits, batch_size=batch_size).streams.values()
    return [next(stream) for stream in streams]


def shared_gradient(model):
    return torch.cat([p.grad.flatten() for p in model.encoder.parameters()])


def test_the_plain_sum_is_the_gradient_of_the_summed_losses(engine):
    splits = small_splits()
    model = small_model(dropout=0.0, dtype=torch.float64)
    trainer = make_trainer(model, splits, optimizer=NoStep(model), engine=engine)
    trainer.step()
    reference = small_model(dropout=0.0, dtype=torch.float64)
    sum(b.task.loss(reference(b), b.labels) for b in same_batches(splits)).backward()
    for ours, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-12)


def test_surgery_in_the_step_is_the_literal_algorithm_on_the_shared_parameters(engine):
    splits = small_splits()
    model = small_model(dropout=0.0, dtype=torch.float64)
    make_trainer(model, splits, weighting="pcgrad", optimizer=NoStep(model), engine=engine).step()
    reference = small_model(dropout=0.0, dtype=torch.float64)
    gradients = literal_gradients(reference, same_batches(splits))
    expected = project_conflicting(gradients, torch.Generator().manual_seed(0))
    torch.testing.assert_close(shared_gradient(model), expected, rtol=1e-9, atol=1e-12)


def test_surgery_leaves_the_heads_their_own_gradients(engine):
    splits = small_splits()
    heads = []
    for weighting in ("sum", "pcgrad"):
        model = small_model(dropout=0.0, dtype=torch.float64)
        make_trainer(model, splits, weighting, optimizer=NoStep(model), engine=engine).step()
        heads.append([p.grad for p in model.heads.parameters()])
    for plain, surgery in zip(*heads, strict=True):
        assert torch.equal(plain, surgery)


def test_the_gram_matrix_holds_the_inner_products_of_the_task_gradients(engine):
    splits = small_splits()
    model = small_model(dropout=0.0, dtype=torch.float64)
    _, gram = make_trainer(model, splits, optimizer=NoStep(model), engine=engine).step()
    rows = literal_gradients(small_model(dropout=0.0, dtype=torch.float64), same_batches(splits))
    torch.testing.assert_close(gram, rows @ rows.T, rtol=1e-9, atol=1e-12)


def test_gradients_are_zeroed_between_steps(engine):
    model = small_model(dropout=0.0)
    trainer = make_trainer(model, optimizer=NoStep(model), engine=engine)
    trainer.step()
    first = shared_gradient(model)
    trainer.streams = make_trainer(model, engine=engine).streams  # the same batches once more
    trainer.step()
    torch.testing.assert_close(shared_gradient(model), first)


def test_training_runs_in_train_mode_and_lowers_the_loss(engine):
    torch.manual_seed(0)
    model = small_model()
    trainer = make_trainer(model, lr=3e-3, engine=engine)
    losses = [sum(trainer.step()[0].values()) for _ in range(60)]
    assert model.training
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:10])


def test_an_epoch_is_one_pass_over_the_shortest_training_set():
    splits = small_splits(size=24)
    splits["similarity"] = splits["similarity"].take(range(9))
    trainer = make_trainer(small_model(), splits, batch_size=4)
    fit = trainer.fit(epochs=2)
    assert [entry["step"] for entry in fit.history] == [2, 4]


def test_max_steps_stops_in_the_middle_of_an_epoch():
    splits = small_splits()
    fit = make_trainer(small_model(), splits).fit(epochs=5, max_steps=8)
    assert [entry["step"] for entry in fit.history] == [6, 8]


def test_an_epoch_that_was_cut_is_made_whole_by_the_next_fit():
    trainer = make_trainer(small_model(), steps_per_epoch=4)
    trainer.fit(epochs=1, max_steps=2)
    assert [entry["step"] for entry in trainer.fit(epochs=2).history] == [2, 4, 8]


class Seen(Callback):
    """Notes the steps at which something was the best, or an epoch ended."""

    def __init__(self):
        self.best, self.epochs, self.grams, self.model = [], [], [], None

    def after_step(self, trainer, gram):
        self.grams.append(gram)

    def after_best(self, trainer):
        self.best.append(trainer.steps)
        self.model = copy.deepcopy(trainer.model)

    def after_epoch(self, trainer, entry):
        self.epochs.append(entry["step"])
        entry["noted"] = len(self.epochs)


def test_the_best_epoch_is_kept_with_its_own_predictions_and_the_last_one_too():
    data, seen = small_data(), Seen()
    trainer = make_trainer(small_model(), data, lr=3e-3, callbacks=[seen])
    fit = trainer.fit(epochs=4)
    means = [np.mean([list(m.values())[0] for m in e["dev"].values()]) for e in fit.history]
    best = fit.history[int(np.argmax(means))]
    assert fit.best["dev"] == best["dev"]
    assert seen.best[-1] == best["step"]
    assert fit.last["dev"] == fit.history[-1]["dev"]
    for name, logits in fit.logits.items():
        dev = data[name]["dev"]
        assert metrics(dev.task, logits, dev.labels.numpy()) == fit.best["dev"][name]
        assert np.array_equal(logits, predict(seen.model, dev))


def test_a_callback_sees_every_step_and_epoch_and_may_add_to_the_history(engine):
    seen = Seen()
    fit = make_trainer(small_model(), engine=engine, callbacks=[seen]).fit(epochs=2)
    assert [gram.shape for gram in seen.grams] == 12 * [(3, 3)]
    assert seen.epochs == [6, 12]
    assert [entry["noted"] for entry in fit.history] == [1, 2]


def test_a_training_split_alone_is_data_enough():
    splits = small_splits()
    fit = make_trainer(small_model(), splits).fit(epochs=2)
    assert [entry["dev"] for entry in fit.history] == [{}, {}]
    assert set(fit.last["train"]) == set(splits)


def test_training_metrics_are_those_of_a_fixed_sample():
    data = small_data()
    trainer = make_trainer(small_model(), data)
    fit = trainer.fit(epochs=1, train_sample=8)
    for name, splits in data.items():
        sample = splits["train"].sample(8)
        assert len(sample) == 8
        assert fit.last["train"][name] == trainer.evaluate({name: sample})[1][name]


def test_training_goes_on_where_it_stands():
    torch.manual_seed(0)
    whole = make_trainer(small_model())
    whole.fit(epochs=3)
    torch.manual_seed(0)
    parts = make_trainer(small_model())
    parts.fit(epochs=1)
    fit = parts.fit(epochs=3)
    assert [entry["step"] for entry in fit.history] == [6, 12, 18]
    for ours, theirs in zip(parts.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_the_same_seed_gives_the_same_bits(engine):
    weights = []
    for _ in range(2):
        torch.manual_seed(5)
        model = small_model(seed=5)
        trainer = make_trainer(model, weighting="pcgrad", engine=engine)
        for _ in range(5):
            trainer.step()
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(*weights)


def test_a_frozen_encoder_does_not_move_while_the_heads_do(engine):
    model = small_model()
    model.freeze()
    before = copy.deepcopy(model.state_dict())
    trainer = make_trainer(model, engine=engine)
    trainer.step()
    moved = {
        n.split(".")[0] for n, t in model.state_dict().items() if not torch.equal(t, before[n])
    }
    assert moved == {"heads"}


def teaching_losses(steps):
    """The losses of the padded path, one backward a task, the literal surgery and AdamW loop."""
    model = small_model(dropout=0.0, dtype=torch.float64)
    optimizer = AdamW(model.parameters(), lr=1e-2)
    streams = make_trainer(model).streams.values()
    generator = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        collected = TaskGradients(model.shared_parameters())
        for batch in map(next, streams):
            vectors = model.encoder(batch.input_ids, batch.attention_mask).pooler_output
            loss = batch.task.loss(model.classify(batch.task, vectors), batch.labels)
            losses.append(loss.item())
            loss.backward()
            collected.collect()
        collected.combine(pcgrad_weights(collected.gram(), generator))
        optimizer.step()
    return losses


def test_twenty_steps_have_the_losses_of_the_teaching_path(engine):
    model = small_model(dropout=0.0, dtype=torch.float64)
    fused = FusedAdamW(model.parameters(), lr=1e-2)
    trainer = make_trainer(model, weighting="pcgrad", optimizer=fused, engine=engine)
    losses = [loss for _ in range(20) for loss in trainer.step()[0].values()]
    assert losses == pytest.approx(teaching_losses(20), rel=1e-8)


def test_a_term_with_a_graph_of_its_own_reaches_the_gradient_of_its_task(engine):
    splits = small_splits()
    model = small_model(dropout=0.0, dtype=torch.float64)

    def term(model, batch):
        return model.encoder(batch.input_ids, batch.attention_mask).pooler_output.square().sum()

    trainer = make_trainer(
        model, splits, terms={"paraphrase": [term]}, optimizer=NoStep(model), engine=engine
    )
    _, gram = trainer.step()
    rows = []
    for batch in same_batches(splits):
        model.zero_grad()
        loss = batch.task.loss(model(batch), batch.labels)
        (loss + (term(model, batch) if batch.task.name == "paraphrase" else 0)).backward()
        rows.append(shared_gradient(model))
    rows = torch.stack(rows)
    torch.testing.assert_close(gram, rows @ rows.T, rtol=1e-9, atol=1e-12)


def test_a_loss_that_is_not_finite_stops_with_step_task_and_examples(engine):
    model = small_model()
    with torch.no_grad():
        model.heads["paraphrase"].linears[0].bias.fill_(float("nan"))
    with pytest.raises(RunError, match=r"step 1: the paraphrase loss is nan on examples p\d+"):
        make_trainer(model, engine=engine).step()


def test_a_training_set_smaller_than_a_batch_is_refused():
    with pytest.raises(ConfigError, match="24 training examples are less than one batch of 25"):
        make_trainer(small_model(), batch_size=25)


class RatesSeen(NoStep):
    """Notes the learning rate of each of its groups at every step."""

    def __init__(self, groups):
        torch.optim.SGD.__init__(self, groups, lr=0.1)
        self.seen = []

    def step(self, closure=None):
        self.seen.append([group["lr"] for group in self.param_groups])


def test_the_schedule_multiplies_the_rate_of_every_group():
    model = small_model()
    groups = [{"params": model.encoder.parameters()}, {"params": model.heads.parameters(), "lr": 3}]
    optimizer = RatesSeen(groups)
    schedule = partial(linear_warmup, warmup_steps=2, total_steps=6)
    trainer = make_trainer(model, optimizer=optimizer, schedule=schedule)
    for _ in range(6):
        trainer.step()
    factors = [0, 1 / 2, 1, 3 / 4, 1 / 2, 1 / 4]
    for (of_encoder, of_heads), factor in zip(optimizer.seen, factors, strict=True):
        assert of_encoder == pytest.approx(0.1 * factor)
        assert of_heads == pytest.approx(3 * factor)


def test_steps_past_the_end_of_a_schedule_are_told_of():
    schedule = partial(linear_warmup, warmup_steps=2, total_steps=4)
    trainer = make_trainer(small_model(), schedule=schedule, steps_per_epoch=4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer.fit(epochs=1)
    with pytest.warns(UserWarning, match="such a step moves nothing"):
        trainer.fit(epochs=2)


def test_without_a_schedule_every_group_keeps_its_rate():
    model = small_model()
    groups = [{"params": model.encoder.parameters()}, {"params": model.heads.parameters(), "lr": 3}]
    optimizer = RatesSeen(groups)
    trainer = make_trainer(model, optimizer=optimizer)
    for _ in range(3):
        trainer.step()
    assert optimizer.seen == [[0.1, 3]] * 3


def test_steps_with_a_rate_for_the_heads_and_a_schedule_are_those_of_torch(engine):
    """Against torch's AdamW, its clipping and its scheduler, on the summed losses."""
    splits, (ours, theirs) = small_splits(), (
        small_model(dropout=0.0, dtype=torch.float64) for _ in "ab"
    )  # fmt: skip
    schedule = partial(linear_warmup, warmup_steps=2, total_steps=6)
    options = {"lr": 1e-3, "weight_decay": 0.1, "eps": 1e-6}

    def groups(model):
        return [
            {"params": list(model.encoder.parameters())},
            {"params": list(model.heads.parameters()), "lr": 1e-2},
        ]

    optimizer = FusedAdamW(groups(ours), form="textbook", **options)
    trainer = make_trainer(
        ours, splits, optimizer=optimizer, schedule=schedule, clip=0.5, engine=engine
    )
    reference = torch.optim.AdamW(groups(theirs), **options)
    scheduler = torch.optim.lr_scheduler.LambdaLR(reference, schedule)
    streams = make_trainer(small_model(), splits).streams.values()
    for _ in range(6):
        trainer.step()
        assert ours.training
        reference.zero_grad()
        sum(b.task.loss(theirs(b), b.labels) for b in map(next, streams)).backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        reference.step()
        scheduler.step()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("weighting", ["sum", "pcgrad"])
@pytest.mark.parametrize("clip", [0.1, 1e6])
def test_clipping_is_torchs_on_the_combined_gradient_of_encoder_and_heads(weighting, clip, engine):
    splits = small_splits()
    model = small_model(dropout=0.0, dtype=torch.float64)
    make_trainer(model, splits, weighting, optimizer=NoStep(model), clip=clip, engine=engine).step()
    reference = small_model(dropout=0.0, dtype=torch.float64)
    rows = literal_gradients(reference, same_batches(splits))
    combined = rows.sum(dim=0)
    if weighting == "pcgrad":
        combined = project_conflicting(rows, torch.Generator().manual_seed(0))
    sum(b.task.loss(reference(b), b.labels) for b in same_batches(splits)).backward()
    start = 0
    for parameter in reference.encoder.parameters():
        stop = start + parameter.numel()
        parameter.grad = combined[start:stop].view_as(parameter).clone()
        start = stop
    norm = torch.nn.utils.clip_grad_norm_(reference.parameters(), clip)
    assert (norm > clip) == (clip == 0.1)
    for ours, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-12)


def test_the_gradients_of_a_frozen_encoders_heads_are_clipped_too():
    model = small_model()
    model.freeze()
    make_trainer(model, optimizer=NoStep(model), clip=0.01).step()
    gradients = torch.cat([p.grad.flatten() for p in model.heads.parameters()])
    assert gradients.norm().item() == pytest.approx(0.01, rel=1e-3)


def test_clipping_does_not_hide_a_gradient_that_is_not_finite(engine):
    model = small_model()
    with torch.no_grad():
        model.heads["paraphrase"].linears[0].bias.fill_(float("nan"))
    with pytest.raises(RunError, match="the paraphrase loss is nan"):
        make_trainer(model, clip=1.0, engine=engine).step()


def test_an_epoch_may_have_other_steps_than_a_pass_over_the_shortest_set():
    splits = small_splits()
    trainer = make_trainer(small_model(), splits, batch_size=4, steps_per_epoch=2)
    assert [e["step"] for e in trainer.fit(epochs=3).history] == [2, 4, 6]


def test_the_history_tells_how_much_of_a_loss_its_terms_are(engine):
    splits, model = small_splits(), small_model()
    norm = torch.linalg.vector_norm(model.heads["similarity"].linears[0].weight.flatten(), ord=1)
    terms = {
        "similarity": [
            lambda model, batch: 0.05 * model.heads["similarity"].linears[0].weight.abs().sum()
        ],
        "sentiment": [
            lambda model, batch: 2.0 * model.heads["sentiment"].linears[0].bias.exp().sum()
        ],
    }
    exps = 2 * model.heads["sentiment"].linears[0].bias.exp().sum().item()
    trainer = make_trainer(model, splits, terms=terms, optimizer=NoStep(model), engine=engine)
    (entry,) = trainer.fit(epochs=1).history
    assert entry["terms"]["similarity"] == pytest.approx(0.05 * norm.item(), rel=1e-5)
    assert entry["terms"]["sentiment"] == pytest.approx(exps, rel=1e-5)
    assert set(entry["terms"]) == set(terms)


def test_the_terms_of_the_history_are_the_mean_over_the_epochs_steps(engine):
    splits, model, values = small_splits(), small_model(), iter(range(100))

    def term(model, batch):
        return model.heads["sentiment"].linears[0].bias.sum() * 0 + next(values)

    trainer = make_trainer(
        model, splits, terms={"sentiment": [term]}, optimizer=NoStep(model), engine=engine
    )
    plain = small_model()
    losses = make_trainer(plain, splits, optimizer=NoStep(plain), engine=engine).fit(epochs=2)
    history = trainer.fit(epochs=2).history
    assert [entry["terms"]["sentiment"] for entry in history] == pytest.approx([2.5, 8.5])
    for entry, without in zip(history, losses.history, strict=True):
        rest = entry["loss"]["sentiment"] - entry["terms"]["sentiment"]
        assert rest == pytest.approx(without["loss"]["sentiment"], abs=0.1)  # other dropout masks


def test_a_step_under_an_autocast_of_ones_own_is_the_one_in_low_precision(engine):
    found = []
    for low in (True, False):
        model = small_model(dropout=0.0)
        model.low_precision = low
        trainer = make_trainer(model, weighting="pcgrad", engine=engine)
        with torch.autocast("cpu", torch.bfloat16, enabled=not low):
            found.append(trainer.step())
    (losses, gram), (around, gram_around) = found
    assert around == pytest.approx(losses, rel=1e-2)
    torch.testing.assert_close(gram_around, gram, rtol=1e-2, atol=1e-2)


def test_a_term_may_be_a_number(engine):
    terms = {"sentiment": [lambda model, batch: 0.0, lambda model, batch: 2]}
    trainer = make_trainer(small_model(), terms=terms, engine=engine, steps_per_epoch=1)
    assert trainer.fit(epochs=1).history[0]["terms"]["sentiment"] == pytest.approx(2, abs=1e-5)


def test_the_history_of_losses_without_terms_has_none():
    splits = small_splits()
    fit = make_trainer(small_model(), splits).fit(epochs=1)
    assert "terms" not in fit.history[0]


def test_a_weighting_without_numbers_is_named_and_no_step_is_taken(engine):
    model = small_model(dropout=0.0)
    trainer = make_trainer(model, engine=engine)
    trainer.weighting = lambda gram, generator: torch.tensor([1.0, float("nan"), 1.0]).double()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(NumericalError, match=r"step 1: the weighting gives \[1.0, nan, 1.0\]"):
        trainer.step()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_head_may_have_parameters_that_no_gradient_reaches(engine):
    model = small_model(dropout=0.0)
    model.heads["sentiment"].unused = torch.nn.Parameter(torch.ones(2))
    make_trainer(model, engine=engine).step()
    assert model.heads["sentiment"].unused.tolist() == [1.0, 1.0]


def test_an_evaluation_that_fails_leaves_no_trace(monkeypatch):
    trainer = make_trainer(small_model())

    def fail(model, split):
        assert trainer.evaluating
        raise RuntimeError("no memory")

    monkeypatch.setattr(module, "predict", fail)
    with pytest.raises(RuntimeError, match="no memory"):
        trainer.fit(epochs=1)
    assert not trainer.evaluating


def test_what_is_left_in_grad_by_something_else_is_no_tasks_gradient(engine):
    splits, model = small_splits(), small_model(dropout=0.0, dtype=torch.float64)
    trainer = make_trainer(model, splits, optimizer=NoStep(model), engine=engine)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    _, gram = trainer.step()
    rows = literal_gradients(small_model(dropout=0.0, dtype=torch.float64), same_batches(splits))
    torch.testing.assert_close(gram, rows @ rows.T, rtol=1e-9, atol=1e-12)


def test_gradients_outside_the_optimizer_do_not_pile_up(engine):
    model = small_model(dropout=0.0, dtype=torch.float64)
    optimizer = torch.optim.SGD(model.heads["sentiment"].parameters(), lr=0.0)
    trainer = make_trainer(model, optimizer=optimizer, engine=engine)
    _, first = trainer.step()
    trainer.streams = make_trainer(model).streams  # the same batches once more
    _, second = trainer.step()
    torch.testing.assert_close(first, second)


@pytest.mark.parametrize("factor", [float("nan"), float("inf"), -1.0])
def test_a_schedule_that_gives_no_rate_is_refused_before_the_step(factor):
    model = small_model()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ConfigError, match="step 1: the schedule gives the factor"):
        make_trainer(model, schedule=lambda step: factor).step()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_terms_and_class_weights_of_no_task_are_refused():
    with pytest.raises(ConfigError, match=r"terms of \['similarty'\]"):
        make_trainer(small_model(), terms={"similarty": []})
    with pytest.raises(ConfigError, match="class_weights of 'sentimant'"):
        make_trainer(small_model(), class_weights={"sentimant": torch.ones(5)})
    with pytest.raises(ConfigError, match="class_weights of 'sentiment'"):
        make_trainer(small_model(), class_weights={"sentiment": torch.ones(3)})


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("sentiment", [1.0, 0.0, 1.0, 1.0, 1.0], "above 0 for each class that occurs"),
        ("sentiment", [1.0, -1.0, 1.0, 1.0, 1.0], "above 0 for each class that occurs"),
        ("sentiment", [1.0, float("nan"), 1.0, 1.0, 1.0], "above 0 for each class that occurs"),
        ("paraphrase", [1.0], "binary_cross_entropy takes none"),
        ("similarity", [1.0], "mean_squared_error takes none"),
    ],
)
def test_class_weights_that_no_batch_can_be_averaged_by_are_refused(name, weights, message):
    with pytest.raises(ConfigError, match=f"class_weights of '{name}': .*{message}"):
        make_trainer(small_model(), class_weights={name: torch.tensor(weights)})


def test_a_class_that_does_not_occur_may_have_the_weight_0():
    splits = small_splits()
    splits["sentiment"] = splits["sentiment"].take(splits["sentiment"].labels != 1)
    weights = {"sentiment": torch.tensor([1.0, 0.0, 1.0, 1.0, 1.0])}
    make_trainer(small_model(), splits, class_weights=weights).step()


@pytest.mark.parametrize("size", [0, -3, 2.5])
def test_a_training_sample_is_a_number_of_examples(size):
    with pytest.raises(ConfigError, match="train_sample"):
        make_trainer(small_model()).fit(1, train_sample=size)


def two_engines_weights(**options) -> list[dict[str, torch.Tensor]]:
    """The parameters after three steps by each engine, in float64 and without dropout."""
    found = []
    for engine in ENGINES:
        model = small_model(dropout=0.0, dtype=torch.float64)
        trainer = make_trainer(model, engine=engine, **options)
        for _ in range(3):
            trainer.step()
        found.append(model.state_dict())
    return found


@pytest.mark.parametrize("weighting", ["sum", "pcgrad"])
def test_accumulated_batches_take_the_step_of_one_large_batch(weighting):
    several = two_engines_weights(weighting=weighting, batch_size=2, accumulate=3)
    whole = two_engines_weights(weighting=weighting, batch_size=6)
    for weights in [*several, whole[1]]:
        for name, value in whole[0].items():
            torch.testing.assert_close(weights[name], value, rtol=1e-6, atol=1e-9)


def test_accumulated_batches_give_each_tasks_mean_loss(engine):
    model = small_model(dropout=0.0)
    trainer = make_trainer(model, engine=engine, batch_size=2, accumulate=2)
    streams = make_trainer(small_model(), batch_size=2).streams
    expected = {
        name: np.mean([float(trainer.loss(b, model.vectors(b))) for b in (next(s), next(s))])
        for name, s in streams.items()
    }
    losses, _ = trainer.step()
    assert losses == pytest.approx(expected, rel=1e-5)


def test_loss_terms_are_the_mean_over_the_accumulated_batches(engine):
    def term(model, batch):
        return len(batch) * model.heads["similarity"].linears[0].bias.sum()

    model = small_model(dropout=0.0)
    trainer = make_trainer(
        model, engine=engine, optimizer=NoStep(model), batch_size=2, accumulate=4,
        terms={"similarity": [term]},
    )  # fmt: skip
    without = small_model(dropout=0.0)
    bare = make_trainer(
        without, engine=engine, optimizer=NoStep(without), batch_size=2, accumulate=4
    )
    trainer.step()
    bare.step()
    ours, plain = (m.heads["similarity"].linears[0].bias.grad for m in (model, without))
    torch.testing.assert_close(ours - plain, torch.tensor([2.0]))


def test_a_step_trains_the_tasks_that_the_sampler_names(engine):
    turns = [["similarity"], ["sentiment", "paraphrase"]]
    model = small_model()
    trainer = make_trainer(model, engine=engine, sampler=lambda step: turns[step % 2])
    before = {name: copy.deepcopy(head.state_dict()) for name, head in model.heads.items()}
    losses, gram = trainer.step()
    assert list(losses) == ["similarity"]
    assert gram.shape == (1, 1)
    moved = {
        name: any(not torch.equal(v, before[name][key]) for key, v in head.state_dict().items())
        for name, head in model.heads.items()
    }
    assert moved == {"sentiment": False, "paraphrase": False, "similarity": True}
    losses, gram = trainer.step()
    assert list(losses) == ["sentiment", "paraphrase"]
    assert gram.shape == (2, 2)


def test_both_engines_take_the_same_steps_of_a_sampler():
    turns = [["similarity"], ["sentiment", "paraphrase"], ["paraphrase"]]
    plain, fast = two_engines_weights(sampler=turns.__getitem__, weighting="pcgrad")
    for name, value in plain.items():
        torch.testing.assert_close(fast[name], value, rtol=1e-6, atol=1e-9)


def test_the_history_has_a_tasks_mean_loss_over_the_steps_it_took_part_in(engine):
    turns = [["similarity"], ["sentiment"], ["sentiment"], ["paraphrase"]]
    seen: dict[str, list[float]] = {}

    class Watch(Callback):
        def after_step(self, trainer, gram):
            for name, value in trainer.epoch["loss"].items():
                seen.setdefault(name, []).append(value)

    trainer = make_trainer(
        small_model(), engine=engine, sampler=lambda step: turns[step], callbacks=[Watch()],
        steps_per_epoch=4,
    )  # fmt: skip
    history = trainer.fit(1).history
    sums = {name: values[-1] for name, values in seen.items()}
    expected = {name: total / (2 if name == "sentiment" else 1) for name, total in sums.items()}
    assert history[0]["loss"] == pytest.approx(expected)


@pytest.mark.parametrize("names", [[], ["sentiment", "sentiment"], ["sentimant"]])
def test_a_sampler_that_names_no_task_or_one_twice_is_refused(names):
    with pytest.raises(ConfigError, match="the sampler gives"):
        make_trainer(small_model(), sampler=lambda step: names).step()


def test_a_weighting_may_see_the_losses_of_the_step(engine):
    class ByLoss:
        def see(self, losses):
            self.losses = losses

        def __call__(self, gram, generator):
            return self.losses / self.losses.sum()

    weighting = ByLoss()
    model = small_model(dropout=0.0)
    trainer = Trainer(model, small_data(), weighting=weighting, batch_size=4, engine=engine)
    losses, _ = trainer.step()
    assert weighting.losses.tolist() == pytest.approx(list(losses.values()))
    assert not weighting.losses.requires_grad


def test_an_epoch_of_accumulated_batches_is_still_one_pass():
    data = small_data()
    shortest = min(len(splits["train"]) for splits in data.values())
    trainer = make_trainer(small_model(), data, batch_size=3, accumulate=4)
    assert trainer.steps_per_epoch == shortest // 12
    with pytest.raises(ConfigError, match="less than one batch of"):
        make_trainer(small_model(), data, batch_size=shortest, accumulate=2)
