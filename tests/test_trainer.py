import copy
from functools import partial
from itertools import chain

import numpy as np
import pytest
import torch
from small import small_encoder, small_model, small_splits

from mtl_lib import trainer as module
from mtl_lib.errors import ConfigError, NumericalError, RunError
from mtl_lib.evaluation import evaluate, predict
from mtl_lib.fast.fused import FusedAdamW
from mtl_lib.gradients import TaskGradients
from mtl_lib.model import HeadConfig, MultitaskModel
from mtl_lib.optim import AdamW, linear_warmup
from mtl_lib.study.checkpoint import Checkpoint
from mtl_lib.trainer import Trainer, class_weights, penalty_term, smoothness_term
from mtl_lib.weighting import WEIGHTINGS, pcgrad_weights, project_conflicting


def make_trainer(model, splits=None, weighting="sum", lr=1e-3, batch_size=4, **options) -> Trainer:
    parameters = [p for p in model.parameters() if p.requires_grad]
    return Trainer(
        model,
        splits or small_splits(),
        optimizer=options.pop("optimizer", None) or AdamW(parameters, lr=lr),
        weighting=WEIGHTINGS[weighting],
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


def test_the_plain_sum_is_the_gradient_of_the_summed_losses():
    splits = small_splits()
    model = small_model(dropout=0.0, dtype=torch.float64)
    trainer = make_trainer(model, splits, optimizer=NoStep(model))
    trainer.step()
    reference = small_model(dropout=0.0, dtype=torch.float64)
    sum(b.task.loss(reference(b), b.labels) for b in same_batches(splits)).backward()
    for ours, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-12)


def test_surgery_in_the_step_is_the_literal_algorithm_on_the_shared_parameters():
    splits = small_splits()
    model = small_model(dropout=0.0, dtype=torch.float64)
    make_trainer(model, splits, weighting="pcgrad", optimizer=NoStep(model)).step()
    reference = small_model(dropout=0.0, dtype=torch.float64)
    gradients = literal_gradients(reference, same_batches(splits))
    expected = project_conflicting(gradients, torch.Generator().manual_seed(0))
    torch.testing.assert_close(shared_gradient(model), expected, rtol=1e-9, atol=1e-12)


def test_surgery_leaves_the_heads_their_own_gradients():
    splits = small_splits()
    heads = []
    for weighting in ("sum", "pcgrad"):
        model = small_model(dropout=0.0, dtype=torch.float64)
        make_trainer(model, splits, weighting=weighting, optimizer=NoStep(model)).step()
        heads.append([p.grad for p in model.heads.parameters()])
    for plain, surgery in zip(*heads, strict=True):
        assert torch.equal(plain, surgery)


def test_the_gram_matrix_holds_the_inner_products_of_the_task_gradients():
    splits = small_splits()
    model = small_model(dropout=0.0, dtype=torch.float64)
    _, gram = make_trainer(model, splits, optimizer=NoStep(model)).step()
    rows = literal_gradients(small_model(dropout=0.0, dtype=torch.float64), same_batches(splits))
    torch.testing.assert_close(gram, rows @ rows.T, rtol=1e-9, atol=1e-12)


def test_gradients_are_zeroed_between_steps():
    model = small_model(dropout=0.0)
    trainer = make_trainer(model, optimizer=NoStep(model))
    trainer.step()
    first = shared_gradient(model)
    trainer.streams = make_trainer(model).streams  # the same batches once more
    trainer.step()
    torch.testing.assert_close(shared_gradient(model), first)


def test_training_runs_in_train_mode_and_lowers_the_loss():
    torch.manual_seed(0)
    model = small_model()
    trainer = make_trainer(model, lr=3e-3)
    losses = [sum(trainer.step()[0].values()) for _ in range(60)]
    assert model.training
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:10])


def test_an_epoch_is_one_pass_over_the_shortest_training_set():
    splits = small_splits(size=24)
    splits["similarity"] = splits["similarity"].take(range(9))
    trainer = make_trainer(small_model(), splits, batch_size=4)
    fit = trainer.fit(splits, splits, epochs=2)
    assert [entry["step"] for entry in fit.history] == [2, 4]


def test_max_steps_stops_in_the_middle_of_an_epoch():
    splits = small_splits()
    fit = make_trainer(small_model(), splits).fit(splits, splits, epochs=5, max_steps=8)
    assert [entry["step"] for entry in fit.history] == [6, 8]


def test_the_best_epoch_is_kept_with_its_own_predictions_and_the_last_one_too():
    splits = small_splits()
    trainer = make_trainer(small_model(), splits, lr=3e-3)
    seen = []
    fit = trainer.fit(splits, splits, epochs=4, on_best=lambda: seen.append(trainer.steps))
    means = [np.mean([list(m.values())[0] for m in e["dev"].values()]) for e in fit.history]
    best = fit.history[int(np.argmax(means))]
    assert fit.best["dev"] == best["dev"]
    assert seen[-1] == best["step"]
    assert fit.last["dev"] == fit.history[-1]["dev"]
    assert {name: len(rows) for name, rows in fit.logits.items()} == {n: 24 for n in splits}


def test_the_history_tells_the_conflict_of_every_pair_of_tasks():
    splits = small_splits()
    fit = make_trainer(small_model(), splits).fit(splits, splits, epochs=1)
    conflict = fit.history[0]["conflict"]
    assert set(conflict) == {
        "sentiment-paraphrase", "sentiment-similarity", "paraphrase-similarity",
    }  # fmt: skip
    assert all(-1 <= c["cosine"] <= 1 and 0 <= c["rate"] <= 1 for c in conflict.values())


def test_two_batches_of_one_task_are_compared_at_the_same_parameters():
    splits, model = small_splits(), small_model(dropout=0.0, dtype=torch.float64)
    trainer = make_trainer(model, splits, same_task_every=2)
    found = trainer._same_task_cosines()
    draw = torch.Generator().manual_seed(0)
    for name, split in splits.items():
        order = torch.randperm(len(split), generator=draw)[:8]
        pair = [split.batch(order[:4]), split.batch(order[4:])]
        a, b = literal_gradients(model, pair)
        expected = (a @ b / (a.norm() * b.norm())).item()
        assert found[name] == pytest.approx(expected, abs=1e-9)


def test_comparing_batches_of_one_task_does_not_change_the_training():
    splits, weights, conflicts = small_splits(), [], []
    for every in (0, 2):
        torch.manual_seed(5)
        model = small_model(seed=5)
        trainer = make_trainer(model, splits, weighting="pcgrad", same_task_every=every)
        conflicts.append(trainer.fit(splits, splits, epochs=1).history[0]["conflict"])
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(*weights)
    assert set(conflicts[1]) - set(conflicts[0]) == {f"{name}-{name}" for name in splits}
    assert all(conflicts[1][pair] == values for pair, values in conflicts[0].items())


def test_a_training_set_smaller_than_two_batches_cannot_be_compared():
    with pytest.raises(ConfigError, match="24 training examples are less than two batches of 13"):
        make_trainer(small_model(), batch_size=13, same_task_every=1)


def test_the_same_seed_gives_the_same_bits():
    weights = []
    for _ in range(2):
        torch.manual_seed(5)
        model = small_model(seed=5)
        trainer = make_trainer(model, weighting="pcgrad")
        for _ in range(5):
            trainer.step()
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(*weights)


def test_a_frozen_encoder_does_not_move_while_the_heads_do():
    model = small_model()
    model.freeze()
    before = copy.deepcopy(model.state_dict())
    trainer = make_trainer(model)
    trainer.step()
    moved = {
        n.split(".")[0] for n, t in model.state_dict().items() if not torch.equal(t, before[n])
    }
    assert moved == {"heads"}


def test_a_frozen_encoder_encodes_every_sentence_once():
    model, splits = small_model(), small_splits()
    model.freeze()
    seen = []
    embed = model.encoder.embeddings.word_embeddings
    embed.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    trainer = make_trainer(model, splits, batch_size=4)
    trainer.fit(splits, splits, epochs=3)
    texts = {tuple(t.tolist()) for s in splits.values() for column in s.sentences for t in column}
    assert sum(seen) == sum(map(len, texts))


def test_remembered_vectors_give_the_same_logits():
    model = small_model()
    batch = small_splits()["paraphrase"].batch([0, 3, 5])
    expected = model.eval()(batch)
    model.freeze()
    torch.testing.assert_close(model(batch), expected)
    torch.testing.assert_close(model(batch), expected)


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


def test_twenty_steps_have_the_losses_of_the_teaching_path():
    model = small_model(dropout=0.0, dtype=torch.float64)
    fused = FusedAdamW(model.parameters(), lr=1e-2)
    trainer = make_trainer(model, weighting="pcgrad", optimizer=fused)
    losses = [loss for _ in range(20) for loss in trainer.step()[0].values()]
    assert losses == pytest.approx(teaching_losses(20), rel=1e-8)


def test_a_term_with_a_graph_of_its_own_reaches_the_gradient_of_its_task():
    splits = small_splits()
    model = small_model(dropout=0.0, dtype=torch.float64)

    def term(model, batch):
        return model.encoder(batch.input_ids, batch.attention_mask).pooler_output.square().sum()

    trainer = make_trainer(model, splits, terms={"paraphrase": [term]}, optimizer=NoStep(model))
    _, gram = trainer.step()
    rows = []
    for batch in same_batches(splits):
        model.zero_grad()
        loss = batch.task.loss(model(batch), batch.labels)
        (loss + (term(model, batch) if batch.task.name == "paraphrase" else 0)).backward()
        rows.append(shared_gradient(model))
    rows = torch.stack(rows)
    torch.testing.assert_close(gram, rows @ rows.T, rtol=1e-9, atol=1e-12)


def test_a_loss_that_is_not_finite_stops_with_step_task_and_examples():
    model = small_model()
    with torch.no_grad():
        model.heads["paraphrase"].linears[0].bias.fill_(float("nan"))
    with pytest.raises(RunError, match=r"step 1: the paraphrase loss is nan on examples p\d+"):
        make_trainer(model).step()


def test_a_training_set_smaller_than_a_batch_is_refused():
    with pytest.raises(ConfigError, match="24 training examples are less than one batch of 25"):
        make_trainer(small_model(), batch_size=25)


@pytest.mark.parametrize("p", [1.0, float("inf")])
def test_a_penalty_adds_its_share_of_the_norm_of_the_similarity_matrices(p):
    model = small_model(dropout=0.0)
    norm = torch.linalg.vector_norm(model.heads["similarity"].linears[0].weight.flatten(), ord=p)
    terms = {"similarity": [penalty_term("similarity", p, 0.05)]}
    plain, _ = make_trainer(model, optimizer=NoStep(model)).step()
    penalised, _ = make_trainer(model, terms=terms, optimizer=NoStep(model)).step()
    assert penalised["similarity"] - plain["similarity"] == pytest.approx(0.05 * norm.item(), 1e-4)
    assert penalised["sentiment"] == plain["sentiment"]


def test_a_penalty_gives_no_gradient_to_encoder_or_biases():
    model = small_model()
    penalty_term("similarity", 1.0, 0.05)(model, None).backward()
    reached = [name for name, p in model.named_parameters() if p.grad is not None]
    assert reached == ["heads.similarity.linears.0.weight"]


def test_smoothness_measures_the_perturbation_and_not_the_dropout():
    torch.manual_seed(0)
    model = small_model(dropout=0.5)
    model.train()
    batch = small_splits()["sentiment"].batch([0, 1, 2])
    value = smoothness_term(1.0, torch.Generator().manual_seed(0))(model, batch)
    assert 0 <= value.item() < 1e-6
    assert model.training


def test_smoothness_reaches_encoder_and_head():
    model = small_model()
    batch = small_splits()["sentiment"].batch([0, 1, 2])
    smoothness_term(1e6, torch.Generator().manual_seed(0))(model, batch).backward()
    reached = chain(model.encoder.encoder.parameters(), model.heads["sentiment"].parameters())
    assert all(p.grad is not None for p in reached)


def test_class_weights_follow_the_papers_formula_and_leave_an_empty_class_at_zero():
    weights = class_weights([0, 0, 0, 1, 2, 2, 4, 4, 4, 4], 5)
    expected = [10 / (5 * 3), 10 / (5 * 1), 10 / (5 * 2), 0.0, 10 / (5 * 4)]
    assert weights.tolist() == pytest.approx(expected)


def test_a_state_saved_on_a_cpu_goes_on_where_there_is_a_gpu():
    trainer = make_trainer(small_model())
    state = trainer.state_dict()
    assert "cuda" not in state["dropout"]
    trainer.device = torch.device("cuda")  # stands for one: no generator of its was saved
    trainer.load_state_dict(state)


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


def test_without_a_schedule_every_group_keeps_its_rate():
    model = small_model()
    groups = [{"params": model.encoder.parameters()}, {"params": model.heads.parameters(), "lr": 3}]
    optimizer = RatesSeen(groups)
    trainer = make_trainer(model, optimizer=optimizer)
    for _ in range(3):
        trainer.step()
    assert optimizer.seen == [[0.1, 3]] * 3


def test_steps_with_a_rate_for_the_heads_and_a_schedule_are_those_of_torch():
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
    trainer = make_trainer(ours, splits, optimizer=optimizer, schedule=schedule, clip=0.5)
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
def test_clipping_is_torchs_on_the_combined_gradient_of_encoder_and_heads(weighting, clip):
    splits = small_splits()
    model = small_model(dropout=0.0, dtype=torch.float64)
    make_trainer(model, splits, weighting, optimizer=NoStep(model), clip=clip).step()
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


def test_clipping_does_not_hide_a_gradient_that_is_not_finite():
    model = small_model()
    with torch.no_grad():
        model.heads["paraphrase"].linears[0].bias.fill_(float("nan"))
    with pytest.raises(RunError, match="the paraphrase loss is nan"):
        make_trainer(model, clip=1.0).step()


def test_an_epoch_may_have_other_steps_than_a_pass_over_the_shortest_set():
    splits = small_splits()
    trainer = make_trainer(small_model(), splits, batch_size=4, steps_per_epoch=2)
    assert [e["step"] for e in trainer.fit(splits, splits, epochs=3).history] == [2, 4, 6]


def test_the_history_tells_how_much_of_a_loss_its_terms_are():
    splits, model = small_splits(), small_model()
    norm = torch.linalg.vector_norm(model.heads["similarity"].linears[0].weight.flatten(), ord=1)
    terms = {
        "similarity": [penalty_term("similarity", 1.0, 0.05)],
        "sentiment": [
            lambda model, batch: 2.0 * model.heads["sentiment"].linears[0].bias.exp().sum()
        ],
    }
    exps = 2 * model.heads["sentiment"].linears[0].bias.exp().sum().item()
    trainer = make_trainer(model, splits, terms=terms, optimizer=NoStep(model))
    (entry,) = trainer.fit(splits, splits, epochs=1).history
    assert entry["terms"]["similarity"] == pytest.approx(0.05 * norm.item(), rel=1e-5)
    assert entry["terms"]["sentiment"] == pytest.approx(exps, rel=1e-5)
    assert set(entry["terms"]) == set(terms)


def test_the_terms_of_the_history_are_the_mean_over_the_epochs_steps():
    splits, model, values = small_splits(), small_model(), iter(range(100))

    def term(model, batch):
        return model.heads["sentiment"].linears[0].bias.sum() * 0 + next(values)

    trainer = make_trainer(model, splits, terms={"sentiment": [term]}, optimizer=NoStep(model))
    plain = small_model()
    losses = make_trainer(plain, splits, optimizer=NoStep(plain)).fit(splits, splits, epochs=2)
    history = trainer.fit(splits, splits, epochs=2).history
    assert [entry["terms"]["sentiment"] for entry in history] == pytest.approx([2.5, 8.5])
    for entry, without in zip(history, losses.history, strict=True):
        rest = entry["loss"]["sentiment"] - entry["terms"]["sentiment"]
        assert rest == pytest.approx(without["loss"]["sentiment"], abs=0.1)  # other dropout masks


def test_the_history_of_losses_without_terms_has_none():
    splits = small_splits()
    fit = make_trainer(small_model(), splits).fit(splits, splits, epochs=1)
    assert "terms" not in fit.history[0]


@pytest.fixture(params=["the first epoch is best", "the last epoch is best"])
def best_epoch(request, monkeypatch):
    """The index of the best of the three epochs below: the judge likes what it saw first, or last.

    It remembers what it saw: a training that goes on is judged as the one without a stop.
    """
    sign, seen = (-1 if "first" in request.param else 1), {}
    monkeypatch.setattr(
        module, "headline", lambda scores: sign * seen.setdefault(repr(scores), len(seen))
    )
    return 0 if sign < 0 else 2


def instrument(splits) -> Trainer:
    """A trainer with every option of the instrument on, and with terms that draw numbers."""
    torch.manual_seed(5)
    heads = {name: HeadConfig((0.1,)) for name in splits}
    heads |= {"similarity": HeadConfig((0.5, 0.3), features="compare")}
    model = MultitaskModel(small_encoder(5), heads, "mean")
    noise = torch.Generator().manual_seed(5)
    groups = [
        {"params": model.shared_parameters()},
        {"params": list(model.heads.parameters()), "lr": 1e-2},
    ]
    return make_trainer(
        model,
        splits,
        "pcgrad",
        batch_size=6,
        optimizer=FusedAdamW(groups, lr=2e-3, weight_decay=0.1),
        terms={
            "similarity": [penalty_term("similarity", float("inf"), 0.05)],
            "sentiment": [smoothness_term(1.0, noise)],
        },
        generators={"smoothness": noise},
        schedule=partial(linear_warmup, warmup_steps=2, total_steps=13),
        clip=1.0,
    )


def few(splits, size=8):
    return {name: split.take(range(size)) for name, split in splits.items()}


def parameters_of(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def fit_of(trainer, splits, dev, **options):
    """Three epochs of four steps, judged by a sample."""
    return trainer.fit(dev, few(splits), epochs=3, dev_sample=few(dev), **options)


def same_fit(a, b) -> bool:
    def words(fit):
        history = [{k: v for k, v in entry.items() if k != "seconds"} for entry in fit.history]
        return repr([history, fit.best, fit.last])

    return words(a) == words(b) and all(np.array_equal(a.logits[n], b.logits[n]) for n in a.logits)


def test_epochs_are_judged_by_the_sample_but_best_and_last_are_of_the_whole_sets(best_epoch):
    splits, dev = small_splits(), small_splits(seed=1)
    trainer, seen = instrument(splits), []
    fit = fit_of(
        trainer, splits, dev, on_epoch=lambda entry: seen.append(copy.deepcopy(trainer.model))
    )
    for entry, model in zip(fit.history, seen, strict=True):
        assert entry["dev"] == {n: evaluate(model, split) for n, split in few(dev).items()}
    assert fit.best["dev"] == {n: evaluate(seen[best_epoch], split) for n, split in dev.items()}
    assert fit.best["train"] == fit.history[best_epoch]["train"]
    assert fit.last["dev"] == {n: evaluate(seen[-1], split) for n, split in dev.items()}
    assert fit.last["train"] == fit.history[-1]["train"]
    for name, split in dev.items():
        assert np.array_equal(fit.logits[name], predict(seen[best_epoch], split))


def test_a_sample_of_the_whole_sets_gives_the_numbers_without_one(best_epoch):
    splits, dev = small_splits(), small_splits(seed=1)
    plain = instrument(splits).fit(dev, few(splits), epochs=3)
    sampled = instrument(splits).fit(dev, few(splits), epochs=3, dev_sample=dev)
    assert same_fit(plain, sampled)


def test_the_model_is_that_of_the_last_step_after_the_best_one_was_evaluated(best_epoch):
    splits, dev = small_splits(), small_splits(seed=1)
    trainer, last = instrument(splits), {}
    fit_of(trainer, splits, dev, on_epoch=lambda entry: last.update(parameters_of(trainer.model)))
    found = parameters_of(trainer.model)
    assert all(torch.equal(found[name], value) for name, value in last.items())


class Interrupted(Exception):
    pass


def saving(trainer, checkpoint, step):
    """An `on_step` that keeps the state after a step and then ends everything."""

    def on_step():
        if trainer.steps == step:
            checkpoint.save(trainer.state_dict())
            raise Interrupted

    return on_step


def resumed(splits, checkpoint) -> Trainer:
    trainer = instrument(splits)
    torch.manual_seed(99)  # a new process stands elsewhere
    trainer.load_state_dict(checkpoint.load())
    return trainer


@pytest.mark.parametrize("step", [1, 4, 6, 12])
def test_a_stopped_training_with_all_options_goes_on_to_the_same_bits(step, best_epoch, tmp_path):
    splits, dev = small_splits(), small_splits(seed=1)
    whole = instrument(splits)
    expected = fit_of(whole, splits, dev)
    stopped, checkpoint = instrument(splits), Checkpoint(tmp_path)
    with pytest.raises(Interrupted):
        fit_of(stopped, splits, dev, on_step=saving(stopped, checkpoint, step))
    trainer = resumed(splits, checkpoint)
    assert same_fit(fit_of(trainer, splits, dev), expected)
    for mine, other in zip(trainer.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(mine, other)


@pytest.mark.parametrize("evaluation", range(1, 7))
def test_a_stop_in_the_final_evaluation_leaves_the_last_steps_parameters_and_goes_on(
    evaluation, best_epoch, tmp_path, monkeypatch
):
    splits, dev = small_splits(), small_splits(seed=1)
    expected = fit_of(instrument(splits), splits, dev)
    trainer, last, sets = instrument(splits), {}, iter(range(1, 100))

    def interrupted(model, split):
        if len(split) == len(dev["sentiment"]) and next(sets) == evaluation:
            raise Interrupted
        return predict(model, split)

    monkeypatch.setattr(module, "predict", interrupted)
    if best_epoch == 2 and evaluation > 3:  # the last epoch is evaluated once, not twice
        fit_of(trainer, splits, dev)
        return
    with pytest.raises(Interrupted):
        fit_of(
            trainer, splits, dev, on_epoch=lambda entry: last.update(parameters_of(trainer.model))
        )
    found = parameters_of(trainer.model)
    assert all(torch.equal(found[name], value) for name, value in last.items())
    checkpoint = Checkpoint(tmp_path)
    checkpoint.save(trainer.state_dict())
    monkeypatch.setattr(module, "predict", predict)
    assert same_fit(fit_of(resumed(splits, checkpoint), splits, dev), expected)


def test_a_weighting_without_numbers_is_named_and_no_step_is_taken():
    model = small_model(dropout=0.0)
    trainer = make_trainer(model)
    trainer.weighting = lambda gram, generator: torch.tensor([1.0, float("nan"), 1.0]).double()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(NumericalError, match=r"step 1: the weighting gives \[1.0, nan, 1.0\]"):
        trainer.step()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_head_may_have_parameters_that_no_gradient_reaches():
    model = small_model(dropout=0.0)
    model.heads["sentiment"].unused = torch.nn.Parameter(torch.ones(2))
    make_trainer(model).step()
    assert model.heads["sentiment"].unused.tolist() == [1.0, 1.0]


def test_an_evaluation_that_fails_leaves_no_trace(monkeypatch):
    trainer = make_trainer(small_model())

    def fail(model, split):
        assert trainer.evaluating
        raise RuntimeError("no memory")

    monkeypatch.setattr(module, "predict", fail)
    with pytest.raises(RuntimeError, match="no memory"):
        trainer.fit(small_splits(split="dev"), small_splits(), epochs=1)
    assert not trainer.evaluating
