import copy
from itertools import chain

import numpy as np
import pytest
import torch
from small import small_model, small_splits

from mtl_lib.errors import ConfigError, RunError
from mtl_lib.gradients import TaskGradients
from mtl_lib.optim import AdamW, FusedAdamW
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
