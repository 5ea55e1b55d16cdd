"""Norm penalties and SMART: the ball, the adversary, the divergences and the gradients."""

import math
from dataclasses import replace

import pytest
import torch
from small import SMALL
from torch import nn

from mtl_lib.bert import BertModel
from mtl_lib.methods.regularizers import (
    SmoothnessRegularizer,
    clip_to_ball,
    divergence,
    lp_penalty,
    symmetric_kl,
)

B, L, H = 4, 6, 8
OUTPUTS = {"classes": 5, "binary": 1, "score": 1}
KINDS = list(OUTPUTS)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def network(kind, seed=0, dtype=torch.float64):
    """A smooth function from embeddings `[B, L, H]` to outputs `[B, C]`."""
    torch.manual_seed(seed)
    layers = nn.Sequential(
        nn.Flatten(), nn.Linear(L * H, 16), nn.Tanh(), nn.Linear(16, OUTPUTS[kind])
    )
    return layers.to(dtype)


def embeddings(rows=B, dtype=torch.float64):
    return torch.randn(rows, L, H, generator=seeded(1), dtype=dtype)


# Norm penalties

BY_HAND = {
    1: lambda w: w.abs().sum(),
    2: lambda w: w.square().sum().sqrt(),
    math.inf: lambda w: w.abs().max(),
}


@pytest.mark.parametrize("p", BY_HAND)
def test_penalty_is_the_norm_of_all_entries_as_one_vector(p):
    weights = [nn.Parameter(torch.randn(3, 4)), nn.Parameter(torch.randn(2, 5))]
    ours = lp_penalty(weights, p)
    ours.backward()
    vector = torch.cat([w.detach().flatten() for w in weights]).requires_grad_()
    expected = BY_HAND[p](vector)
    expected.backward()
    torch.testing.assert_close(ours, expected)
    torch.testing.assert_close(torch.cat([w.grad.flatten() for w in weights]), vector.grad)


def test_the_infinity_penalty_sees_large_negative_weights():
    assert lp_penalty([torch.tensor([1.0, -3.0])], math.inf).item() == 3.0


@pytest.mark.parametrize("p", BY_HAND)
def test_penalty_has_a_zero_gradient_at_zero_weights(p):
    weight = nn.Parameter(torch.zeros(3, 4))
    lp_penalty([weight], p).backward()
    assert torch.equal(weight.grad, torch.zeros(3, 4))


@pytest.mark.parametrize("p", [0, 3, -1, 1.5, math.nan])
def test_any_other_norm_is_refused(p):
    with pytest.raises(ValueError, match="choose 1, 2 or inf"):
        lp_penalty([torch.ones(2)], p)


# Divergences


def test_symmetric_kl_equals_both_divergences_of_torch():
    a, b = torch.randn(2, 7, 5, dtype=torch.float64)
    p, q = torch.distributions.Categorical(logits=a), torch.distributions.Categorical(logits=b)
    kl = torch.distributions.kl_divergence
    torch.testing.assert_close(symmetric_kl(a, b), (kl(p, q) + kl(q, p)).mean())


def test_binary_divergence_is_the_bernoulli_one_not_a_softmax_over_one_logit():
    a, b = torch.randn(2, 7, 1, dtype=torch.float64)
    p, q = torch.distributions.Bernoulli(logits=a), torch.distributions.Bernoulli(logits=b)
    kl = torch.distributions.kl_divergence
    expected = (kl(p, q) + kl(q, p)).mean()
    assert expected > 0
    torch.testing.assert_close(divergence(a, b, "binary"), expected)


def test_score_divergence_is_the_mean_squared_difference():
    a, b = torch.tensor([[1.0], [2.0]]), torch.tensor([[4.0], [2.0]])
    assert divergence(a, b, "score").item() == 4.5


@pytest.mark.parametrize("kind", KINDS)
def test_divergence_is_symmetric_and_never_negative(kind):
    for dtype in (torch.float32, torch.float64):
        for distance in (0, 1e-7, 1e-5, 1e-2, 1, 100):
            a = 3 * torch.randn(50, OUTPUTS[kind], generator=seeded(), dtype=dtype)
            b = a + distance * torch.randn(50, OUTPUTS[kind], generator=seeded(1), dtype=dtype)
            value = divergence(a, b, kind)
            assert value >= 0
            assert value.isfinite()
            torch.testing.assert_close(value, divergence(b, a, kind))


@pytest.mark.parametrize("kind", KINDS)
def test_divergence_sends_gradients_through_both_sides(kind):
    a, b = torch.randn(2, 3, OUTPUTS[kind], dtype=torch.float64)
    a.requires_grad_(), b.requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y: divergence(x, y, kind), (a, b))
    for gradient in torch.autograd.grad(divergence(a, b, kind), (a, b)):
        assert gradient.abs().max() > 1e-3


@pytest.mark.parametrize(
    ("kind", "a", "b"),
    [
        ("classes", (4, 1), (4, 1)),  # a softmax over one logit is always 1
        ("binary", (4, 2), (4, 2)),
        ("binary", (4,), (4,)),
        ("score", (4,), (4, 1)),  # would broadcast to (4, 4)
        ("score", (4, 1), (1, 1)),
        ("classes", (4, 5), (5,)),
    ],
)
def test_outputs_whose_shapes_do_not_fit_are_refused(kind, a, b):
    with pytest.raises(ValueError, match=kind):
        divergence(torch.ones(a), torch.ones(b), kind)


def test_an_unknown_loss_is_refused():
    with pytest.raises(ValueError, match="mse"):
        divergence(torch.ones(2, 1), torch.ones(2, 1), "mse")


# SMART


def test_clipping_acts_on_the_perturbation_entry_by_entry():
    delta = torch.tensor([0.5, -3.0, 2.0])
    assert clip_to_ball(delta, 1.0).tolist() == [0.5, -1.0, 1.0]


def test_the_perturbation_equals_the_papers_step_written_out():
    forward, x = network("score"), embeddings()
    settings = dict(noise=0.1, radius=0.3, step_size=0.25, steps=3)
    found = SmoothnessRegularizer(**settings).perturbation(
        forward, x, forward(x), "score", seeded(7)
    )
    noise = 0.1 * torch.randn(x.shape, generator=seeded(7)).double()
    for row in range(B):  # each sentence alone: the batch must not matter
        delta = noise[row : row + 1].clone()
        for _ in range(3):
            delta.requires_grad_()
            distance = (forward(x[row : row + 1] + delta) - forward(x[row : row + 1])).square()
            (gradient,) = torch.autograd.grad(distance.sum(), delta)
            moved = delta.detach() + 0.25 * gradient / gradient.abs().max()
            delta = moved.minimum(torch.tensor(0.3)).maximum(torch.tensor(-0.3))
        torch.testing.assert_close(found[row : row + 1], delta)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("noise", [1e-5, 1.0])
@pytest.mark.parametrize("steps", [1, 3])
def test_the_perturbation_stays_in_the_ball(kind, noise, steps):
    forward, x = network(kind), embeddings()
    regularizer = SmoothnessRegularizer(noise=noise, radius=1e-3, steps=steps)
    delta = regularizer.perturbation(forward, x, forward(x), kind, seeded())
    assert 0 < delta.abs().max() <= 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_the_adversary_does_more_than_random_signs_of_the_same_size(kind):
    forward, x = network(kind), embeddings()
    with torch.no_grad():
        outputs = forward(x)
    delta = SmoothnessRegularizer().perturbation(forward, x, outputs, kind, seeded())
    adversarial = divergence(outputs, forward(x + delta), kind)
    for seed in range(20):
        signs = torch.randn(x.shape, generator=seeded(100 + seed), dtype=x.dtype).sign()
        random = signs * delta.abs()  # the same size in every entry, so in every norm
        assert adversarial > divergence(outputs, forward(x + random), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_perturbation_the_divergence_is_zero(kind):
    forward, x = network(kind, dtype=torch.float32), embeddings(dtype=torch.float32)
    assert divergence(forward(x), forward(x + 0), kind).item() == 0.0


def test_the_default_penalty_is_tiny_so_it_does_not_measure_dropout():
    config = replace(SMALL, vocab_size=50, hidden_size=H, initializer_range=0.3)
    torch.manual_seed(0)
    model, head = BertModel(config), nn.Linear(H, 5)
    ids, mask = torch.randint(1, 50, (B, L)), torch.ones(B, L)

    def penalty():
        def forward(x):
            return head(model.run_layers(x, mask).pooler_output)

        return SmoothnessRegularizer()(forward, model.embed(ids), generator=seeded()).item()

    model.eval()
    assert 0 < penalty() < 1e-6
    model.train()  # what the caller must not do: each pass draws masks of its own
    assert penalty() > 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_the_penalty_does_not_depend_on_the_batch_size(kind):
    # The same sentences twice, with the same noise twice: the same mean.
    forward, x = network(kind), embeddings()
    noise = torch.randn(x.shape, generator=seeded())

    class Repeat(SmoothnessRegularizer):
        def __call__(self, rows):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(torch, "randn", lambda *_, **__: noise.repeat(rows // B, 1, 1))
                return super().__call__(forward, x.repeat(rows // B, 1, 1), kind)

    regularizer = Repeat(radius=1e-2)
    torch.testing.assert_close(regularizer(B), regularizer(2 * B))


@pytest.mark.parametrize("kind", KINDS)
def test_the_penalty_trains_through_both_passes(kind):
    forward, x = network(kind), embeddings().requires_grad_()
    regularizer = SmoothnessRegularizer(radius=1e-2)
    regularizer(forward, x, kind, seeded()).backward()
    delta = regularizer.perturbation(forward, x, forward(x), kind, seeded())
    inputs = [x, *forward.parameters()]
    expected = torch.autograd.grad(divergence(forward(x), forward(x + delta), kind), inputs)
    for tensor, gradient in zip(inputs, expected, strict=True):
        torch.testing.assert_close(tensor.grad, gradient)
    assert any(gradient.abs().max() > 0 for gradient in expected)


def test_the_search_leaves_no_gradient_behind():
    forward, x = network("classes"), embeddings().requires_grad_()
    SmoothnessRegularizer().perturbation(forward, x, forward(x))
    assert x.grad is None
    assert all(p.grad is None for p in forward.parameters())


def test_equal_generators_give_equal_penalties():
    forward, x = network("classes"), embeddings()
    regularizer = SmoothnessRegularizer()
    assert regularizer(forward, x, generator=seeded(3)) == regularizer(
        forward, x, generator=seeded(3)
    )


def test_a_constant_output_gives_zero_not_nan():
    value = SmoothnessRegularizer()(lambda x: 0 * x.sum(dim=(1, 2))[:, None], embeddings(), "score")
    assert value.item() == 0.0


def test_training_with_the_penalty_makes_the_function_smoother():
    forward, x = network("score"), embeddings()
    regularizer = SmoothnessRegularizer(noise=0.1, radius=0.1, step_size=1.0)
    optimizer = torch.optim.Adam(forward.parameters(), lr=0.01)
    history = []
    for _ in range(20):
        optimizer.zero_grad()
        penalty = regularizer(forward, x, "score", seeded())
        penalty.backward()
        optimizer.step()
        history.append(penalty.item())
    assert history[-1] < 0.5 * history[0]


@pytest.mark.parametrize("setting", ["noise", "radius", "step_size", "steps"])
def test_a_setting_that_is_not_positive_is_refused(setting):
    with pytest.raises(ValueError, match=f"{setting} 0"):
        SmoothnessRegularizer(**{setting: 0})
