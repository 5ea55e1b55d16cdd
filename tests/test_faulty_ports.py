"""The ports' faults, each beside the published code written out, and none of them in the method."""

import ast
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from small import small_model, small_splits
from test_trainer import NoStep

from mtl_lib.fast.packed import Pack, encode_packed
from mtl_lib.paths import ROOT
from mtl_lib.study import faulty_ports
from mtl_lib.study.faulty_ports import (
    CoupledAdam,
    PortTrainer,
    port_perturbation,
    port_smoothness_term,
    port_weights,
)
from mtl_lib.study.terms import smoothness_term
from mtl_lib.study.weightings import WEIGHTINGS
from mtl_lib.trainer import ENGINES

# Two tasks in conflict; each has a head of one number.
SHARED = torch.tensor([[1.0, 0.0], [-1.0, 0.5]], dtype=torch.float64)
HEADS = torch.tensor([3.0, 4.0], dtype=torch.float64)


def ported_surgery(gradients, generator):
    """The port's loop: every task's whole vector meets all of them, itself too, in random order."""
    projected = gradients.clone()
    for vector in projected:
        for j in torch.randperm(len(gradients), generator=generator):
            inner = vector @ gradients[j]
            if inner < 0:
                vector -= inner / gradients[j].norm() ** 2 * gradients[j]
    return projected


@pytest.mark.parametrize("seed", range(5))
def test_port_weights_are_the_loop_on_whole_gradients(seed):
    draw = torch.Generator().manual_seed(seed)
    shared = torch.randn(4, 6, generator=draw, dtype=torch.float64)
    heads = torch.rand(4, generator=draw, dtype=torch.float64)
    whole = torch.cat([shared, torch.diag(heads)], dim=1)
    expected = ported_surgery(whole, torch.Generator().manual_seed(seed)).sum(dim=0)
    found = port_weights(shared @ shared.T, heads**2, torch.Generator().manual_seed(seed)) @ whole
    assert (whole @ whole.T).min() < 0
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_the_ports_surgery_halves_the_shared_gradient_and_scales_the_heads():
    heads = {name: torch.nn.Linear(1, 1, bias=False).double() for name in "ab"}
    for head, gradient in zip(heads.values(), HEADS, strict=True):
        head.weight.grad = gradient.view(1, 1).clone()
    combined = []
    trainer = SimpleNamespace(
        model=SimpleNamespace(heads=heads),
        step_tasks=["a", "b"],
        generator=torch.Generator().manual_seed(0),
        gradients=SimpleNamespace(combine=lambda weights: combined.append(weights @ SHARED)),
    )
    PortTrainer._combine(trainer, SHARED @ SHARED.T)
    # g1 = (1, 0, 3, 0) and g2 = (-1, .5, 0, 4): <g1, g2> = -1, |g1|^2 = 10, |g2|^2 = 17.25
    first = [1 - 1 / 17.25, 0.5 / 17.25, 3, 4 / 17.25]
    second = [-1 + 1 / 10, 0.5, 3 / 10, 4]
    total = [a + b for a, b in zip(first, second, strict=True)]
    assert combined[0].tolist() == pytest.approx([total[0] / 2, total[1] / 2])
    assert combined[0].tolist() == pytest.approx([0.021, 0.264], abs=5e-4)
    scaled = [head.weight.grad.item() for head in heads.values()]
    assert scaled == pytest.approx(total[2:])
    assert scaled == pytest.approx([3.30, 4.23], abs=5e-3)


def port_trainer(model, splits, engine="plain"):
    return PortTrainer(
        model,
        splits,
        optimizer=NoStep(model),
        weighting=WEIGHTINGS["sum"](3),
        batch_size=4,
        seed=0,
        engine=engine,
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_a_step_of_the_port_is_the_published_algorithm_on_flattened_gradients(engine):
    splits, conflicts = small_splits(), 0
    model = small_model(dropout=0.0, dtype=torch.float64)
    reference = small_model(dropout=0.0, dtype=torch.float64)
    trainer, streams = port_trainer(model, splits, engine), port_trainer(reference, splits).streams
    generator = torch.Generator().manual_seed(0)
    shared = sum(p.numel() for p in reference.encoder.parameters())
    for _ in range(5):
        trainer.step()
        assert model.training
        rows = []
        for stream in streams.values():
            reference.zero_grad()
            batch = next(stream)
            batch.task.loss(reference(batch), batch.labels).backward()
            gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in
                         reference.parameters()]  # fmt: skip
            rows.append(torch.cat([g.flatten() for g in gradients]))
        whole = torch.stack(rows)
        conflicts += int((whole @ whole.T < 0).sum())
        projected = ported_surgery(whole, generator)
        expected = torch.cat([projected[:, :shared].mean(dim=0), projected[:, shared:].sum(dim=0)])
        found = torch.cat([p.grad.flatten() for p in model.parameters()])
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    assert conflicts


def test_with_a_frozen_encoder_the_port_leaves_the_heads_their_gradients():
    splits = small_splits()
    model, reference = (small_model(dropout=0.0, dtype=torch.float64) for _ in "ab")
    model.freeze()
    trainer = port_trainer(model, splits)
    batches = [next(stream) for stream in port_trainer(reference, splits).streams.values()]
    trainer.step()
    sum(b.task.loss(reference(b), b.labels) for b in batches).backward()
    for ours, theirs in zip(model.heads.parameters(), reference.heads.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def two_parameters():
    draw = torch.Generator().manual_seed(3)
    shapes = [(3, 2), (4,)]
    return [torch.nn.Parameter(torch.randn(s, generator=draw, dtype=torch.float64)) for s in shapes]


def test_coupled_adam_is_torchs_adam_with_weight_decay():
    ours, theirs = two_parameters(), two_parameters()
    options = {"lr": 0.01, "betas": (0.9, 0.98), "eps": 1e-6, "weight_decay": 0.3}
    coupled = CoupledAdam(ours, form="textbook", **options)
    adam = torch.optim.Adam(theirs, **options)
    draw = torch.Generator().manual_seed(4)
    for _ in range(6):
        for mine, other in zip(ours, theirs, strict=True):
            mine.grad = torch.randn(mine.shape, generator=draw, dtype=torch.float64)
            other.grad = mine.grad.clone()
        coupled.step()
        adam.step()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)


def test_coupled_adam_leaves_the_gradients_as_they_were():
    parameters = two_parameters()
    optimizer = CoupledAdam(parameters, lr=0.01, weight_decay=0.3)
    gradients = [torch.ones_like(p) for p in parameters]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    optimizer.step()
    for parameter, gradient in zip(parameters, gradients, strict=True):
        assert parameter.grad is gradient and torch.equal(gradient, torch.ones_like(gradient))


def test_coupled_decay_moves_a_weight_by_the_learning_rate_whatever_its_strength():
    for decay in (0.001, 1.0):
        parameter = torch.nn.Parameter(torch.tensor([2.0, -0.5], dtype=torch.float64))
        parameter.grad = torch.zeros_like(parameter)
        CoupledAdam([parameter], lr=0.01, eps=1e-12, weight_decay=decay).step()
        assert parameter.tolist() == pytest.approx([1.99, -0.49], abs=1e-6)


def test_without_decay_coupled_adam_is_the_sound_optimizer():
    ours, theirs = two_parameters(), two_parameters()
    for parameters, kind in ((ours, CoupledAdam), (theirs, faulty_ports.FusedAdamW)):
        optimizer = kind(parameters, lr=0.01)
        for _ in range(3):
            for parameter in parameters:
                parameter.grad = parameter.detach().cos()
            optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def linear_head(hidden=6, classes=5):
    """A forward pass small enough to write out: the mean token's linear scores."""
    weight = torch.randn(hidden, classes, generator=torch.Generator().manual_seed(1)).double()
    return lambda embeddings: embeddings.mean(dim=1) @ weight


def test_the_ports_perturbation_is_its_published_formula():
    forward, draw = linear_head(), torch.Generator().manual_seed(2)
    x = torch.randn(3, 4, 6, generator=draw).double()
    found = port_perturbation(forward, x, forward(x), torch.Generator().manual_seed(7))
    delta = 1e-5 * torch.randn(x.shape, generator=torch.Generator().manual_seed(7)).double()
    delta.requires_grad_()
    p = forward(x).softmax(dim=1)
    log_q = forward(x + delta).log_softmax(dim=1)
    ((p * (p.log() - log_q)).sum() / 3).backward()
    moved = (delta + 1e-3 * delta.grad).detach()
    largest = moved.abs().max(dim=2, keepdim=True).values
    torch.testing.assert_close(found, moved / (largest + 1e-6))


def perturbation_of(model, seed=0):
    """The perturbation of a model's embeddings `[B, L, H]`, and the noise from which it started."""
    batch = small_splits()["sentiment"].batch([0, 1, 2, 3])
    embeddings = model.encoder.embed(batch.input_ids)

    def forward(x):
        tokens = x[batch.attention_mask > 0]
        pack = Pack.of([(batch.input_ids, batch.attention_mask)])
        return model.classify(batch.task, encode_packed(model.encoder, tokens, pack))

    outputs = forward(embeddings)
    generator = torch.Generator().manual_seed(seed)
    delta = port_perturbation(forward, embeddings, outputs, generator)
    return delta, torch.randn(delta.shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("training", [True, False])
def test_the_ports_perturbation_is_next_to_1_in_every_token(training):
    delta, _ = perturbation_of(small_model(dropout=0.1).train(training))
    largest = delta.abs().amax(dim=2)
    assert largest.min() > 0.85 and largest.max() < 1
    assert not delta.requires_grad


def test_the_ports_perturbation_is_its_noise_and_no_adversary():
    delta, noise = perturbation_of(small_model(dropout=0.0).train())
    assert F.cosine_similarity(delta, noise, dim=2).min() > 0.999


def test_the_ports_term_is_the_summed_divergence_of_two_passes(monkeypatch):
    monkeypatch.setattr(faulty_ports, "port_perturbation", lambda f, x, y, g: torch.ones_like(x))
    model = small_model(dropout=0.0, dtype=torch.float64).train()
    batch = small_splits()["sentiment"].batch([0, 1, 2])
    found = port_smoothness_term(0.7, torch.Generator())(model, batch)
    x = model.encoder.embed(batch.input_ids)
    tokens = batch.attention_mask > 0
    pack = Pack.of([(batch.input_ids, batch.attention_mask)])

    def scores(embeddings):
        vectors = encode_packed(model.encoder, embeddings[tokens], pack)
        return model.classify(batch.task, vectors).log_softmax(dim=1)

    log_a, log_b = scores(x + 1), scores(x)
    p_a, p_b = log_a.exp().detach(), log_b.exp().detach()
    literal = (p_b * (p_b.log() - log_a)).sum() + (p_a * (p_a.log() - log_b)).sum()
    assert found.item() == pytest.approx(0.7 * literal.item(), rel=1e-9)
    parameters = [p for n, p in model.named_parameters() if "heads.sent" in n or "query" in n]
    ours = torch.autograd.grad(found, parameters)
    theirs = torch.autograd.grad(0.7 * literal, parameters)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-7, atol=1e-10)


def test_the_ports_term_measures_dropout_where_nothing_is_perturbed(monkeypatch):
    monkeypatch.setattr(faulty_ports, "port_perturbation", lambda f, x, y, g: torch.zeros_like(x))
    torch.manual_seed(0)
    batch = small_splits()["sentiment"].batch([0, 1, 2])
    term = port_smoothness_term(1.0, torch.Generator())
    with_dropout, without = (small_model(dropout=p, dtype=torch.float64) for p in (0.5, 0.0))
    assert term(with_dropout.train(), batch).item() > 1e-4
    assert term(without.train(), batch).item() == pytest.approx(0, abs=1e-12)


def test_the_ports_term_is_far_larger_than_the_methods():
    batch = small_splits()["sentiment"].batch([0, 1, 2])
    values = []
    for term in (port_smoothness_term, smoothness_term):
        torch.manual_seed(0)
        model = small_model().train()
        values.append(term(1.0, torch.Generator().manual_seed(0))(model, batch).item())
        assert model.training
    assert values[0] > 1000 * max(values[1], 0)


def test_no_module_but_the_building_of_runs_uses_a_faulty_port():
    users = set()
    for path in (ROOT / "mtl_lib").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", "") or ""}
                if any(name.split(".")[-1] == "faulty_ports" for name in names):
                    users.add(path.stem)
    assert users == {"build", "config"}
