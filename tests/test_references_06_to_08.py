"""The parts of a training step that chapters 06 to 08 ask for, against independent sources: the
literal algorithm in numpy and float64, torch's layer, derivatives by hand, and transformers."""

import itertools
import math

import numpy as np
import pytest
import torch
import transformers
from scipy import stats
from torch import nn
from torch.testing import assert_close

from mtl_lib.bert import BertConfig, BertModel
from mtl_lib.handbook.checks import EXERCISES
from mtl_lib.handbook.checks.chapter_05 import MultitaskModel
from mtl_lib.tasks import PARAPHRASE, SENTIMENT

ALL_ORDERS = list(
    itertools.product(*(itertools.permutations({0, 1, 2} - {task}) for task in range(3)))
)


def reference(name):
    return EXERCISES[name].reference


def normal(*shape, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def literal_surgery(rows: np.ndarray, order) -> np.ndarray:
    """Algorithm 1 of Yu et al. (2020), line by line."""
    total = np.zeros(rows.shape[1])
    for i, others in enumerate(order):
        g = rows[i].copy()
        for j in others:
            inner = g @ rows[j]
            if inner < 0:
                g = g - inner / (rows[j] @ rows[j]) * rows[j]
        total += g
    return total


# Chapter 06


class Straight(nn.Module):
    """Three losses that are linear in what the tasks share, so that the gradients are known."""

    def __init__(self, rows: torch.Tensor):
        super().__init__()
        self.rows = rows  # [3, 5], the gradients: the first tensor has 2 of the numbers
        self.parts = nn.ParameterList([normal(2, seed=50), normal(3, seed=51)])
        self.heads = nn.ParameterList(normal(1, seed=60 + task) for task in range(3))

    def shared_parameters(self):
        return list(self.parts)

    def losses(self):
        shared = torch.cat(list(self.parts))
        return [
            row @ shared + (task + 2) * head.sum()
            for task, (row, head) in enumerate(zip(self.rows, self.heads, strict=True))
        ]

    def shared_gradient(self):
        return torch.cat([part.grad for part in self.parts]).numpy()


def fights(count):
    """Triples of gradients `[3, 5]` of which every two conflict."""
    found, seed = [], 0
    while len(found) < count:
        rows = normal(3, 5, seed=seed)
        rows = rows - 0.9 * rows.mean(dim=0)  # nearly zero in sum: each goes against the others
        if ((rows @ rows.T)[[0, 0, 1], [1, 2, 2]] < 0).all():
            found.append(rows)
        seed += 1
    return found


FIGHTS = fights(6)


def which_order(model) -> int:
    """Number of the order whose literal result stands in `.grad`."""
    found = model.shared_gradient()
    results = [literal_surgery(model.rows.numpy(), order) for order in ALL_ORDERS]
    distances = [np.abs(found - result).max() for result in results]
    assert min(distances) < 1e-10
    assert sorted(distances)[1] > 1e-6, "two orders cannot be told apart"
    return int(np.argmin(distances))


def drawn_orders(backward, model, steps):
    numbers = []
    for _ in range(steps):
        model.zero_grad()
        backward(model.losses(), model)
        numbers.append(which_order(model))
        heads = [head.grad.item() for head in model.heads]
        assert heads == [2, 3, 4]
    return numbers


def test_surgery_is_the_literal_algorithm_with_every_order_equally_often():
    model = Straight(FIGHTS[0])
    numbers = drawn_orders(reference("surgery")(7), model, 400)
    counts = np.bincount(numbers, minlength=len(ALL_ORDERS))
    assert stats.chisquare(counts).pvalue > 0.001


def test_surgery_of_equal_seed_takes_equal_steps_whatever_else_is_drawn():
    model = Straight(FIGHTS[0])
    first = drawn_orders(reference("surgery")(3), model, 30)
    torch.manual_seed(99)
    state = torch.get_rng_state()
    assert drawn_orders(reference("surgery")(3), model, 30) == first
    assert torch.equal(torch.get_rng_state(), state)
    assert drawn_orders(reference("surgery")(4), model, 30) != first


@pytest.mark.parametrize("name", ["mended_port", "surgery_step"])
@pytest.mark.parametrize("rows", FIGHTS)
def test_a_step_of_surgery_is_the_literal_algorithm_in_every_order(name, rows):
    for order in ALL_ORDERS:
        model = Straight(rows)
        reference(name)(model.losses(), model, [list(others) for others in order])
        expected = literal_surgery(model.rows.numpy(), order)
        np.testing.assert_allclose(model.shared_gradient(), expected, rtol=1e-9, atol=1e-12)
        assert [head.grad.item() for head in model.heads] == [2, 3, 4]


# Chapter 07


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("shape", [(7,), (40, 25), (3, 4, 5, 6)])
def test_inverted_dropout_is_torchs_layer_under_one_seed(p, shape):
    x = normal(*shape, seed=2).requires_grad_()
    ours, theirs = (nn.Sequential(layer(p)) for layer in (reference("InvertedDropout"), nn.Dropout))
    for mode in (True, False, True):
        seen = []
        for model in (ours.train(mode), theirs.train(mode)):
            torch.manual_seed(0)
            out = torch.stack([model(x), model(x)])  # two calls: two masks in training
            seen.append((out, torch.autograd.grad(out.square().sum(), x)[0]))
        assert_close(seen[0], seen[1])


def norm_by_hand(w: torch.Tensor, p: float) -> torch.Tensor:
    """The derivative of ||w||_p, from the definition."""
    if p == 1:
        return w.sign()
    if p == 2:
        return w / (w * w).sum().sqrt()
    return w.sign() * (w.abs() == w.abs().max())


class TwoHeads(nn.Module):
    """Heads with one and with two layers over a shared one, in float64."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.encoder = nn.Linear(4, 3)
        two = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 1))
        self.heads = nn.ModuleDict({"score": nn.Linear(3, 1), "deep": two})
        self.double()

    def losses(self):
        vectors = self.encoder(normal(6, 4, seed=1))
        return [head(vectors).square().mean() for head in self.heads.values()]


@pytest.mark.parametrize("task", ["score", "deep"])
@pytest.mark.parametrize("p", [1, 2, math.inf])
@pytest.mark.parametrize("seed", range(3))
def test_penalised_adds_the_norms_derivative_by_hand_to_one_heads_matrices(task, p, seed):
    model, strength = TwoHeads(seed), 0.3
    names = [name for name, _ in model.named_parameters()]
    plain = torch.autograd.grad(sum(model.losses()), list(model.parameters()))
    expected = dict(zip(names, plain, strict=True))
    matrices = {
        name: weight.detach()
        for name, weight in model.named_parameters()
        if name.startswith(f"heads.{task}.") and name.endswith("weight")
    }
    whole = norm_by_hand(torch.cat([w.flatten() for w in matrices.values()]), p)
    parts = whole.split([w.numel() for w in matrices.values()])
    for (name, weight), part in zip(matrices.items(), parts, strict=True):
        expected[name] = expected[name] + strength * part.view_as(weight)

    given = model.losses()
    before = [loss.item() for loss in given]

    def weighted(losses, model):  # not a plain sum: what comes in has to reach it
        (2 * losses[0] + losses[1]).backward()

    def total(losses, model):
        sum(losses).backward()

    reference("penalised")(total, task, p, strength)(given, model)
    assert [loss.item() for loss in given] == before
    for name, parameter in model.named_parameters():
        assert_close(parameter.grad, expected[name])

    model.zero_grad()
    reference("penalised")(weighted, "score", p, strength)(model.losses(), model)
    twice = model.heads["score"].weight.grad.clone()
    model.zero_grad()
    weighted(model.losses(), model)
    added = twice - model.heads["score"].weight.grad
    weight = model.heads["score"].weight.detach()
    assert_close(added, 2 * strength * norm_by_hand(weight, p))


# Chapter 08


@pytest.mark.parametrize("task", [SENTIMENT, PARAPHRASE])
def test_after_embeddings_is_transformers_from_its_embeddings_on(task):
    config = BertConfig(
        vocab_size=30,
        hidden_size=12,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=20,
        max_position_embeddings=16,
        initializer_range=0.4,
    )
    torch.manual_seed(0)
    model = MultitaskModel(BertModel(config), 12, (SENTIMENT, PARAPHRASE)).eval()
    theirs = transformers.BertModel(transformers.BertConfig(**vars(config))).eval()
    theirs.load_state_dict(model.encoder.state_dict())
    ids = torch.randint(1, 30, (task.sentences * 4, 7), generator=torch.Generator().manual_seed(1))
    mask = (torch.arange(7) < torch.tensor([[7], [3], [5], [7]]).repeat(task.sentences, 1)).long()
    linear = model.heads[task.name].linear
    with torch.no_grad():
        x = theirs.embeddings(ids)
        for moved in (x, x + 0.3 * normal(*x.shape, seed=2).float()):
            hook = theirs.embeddings.register_forward_hook(lambda *_, moved=moved: moved)
            vectors = theirs(ids, mask).pooler_output
            hook.remove()
            expected = linear(torch.cat(vectors.split(4), dim=1))
            found = reference("AfterEmbeddings")(model, task, mask)(moved)
            assert_close(found, expected, rtol=1e-4, atol=1e-5)
            assert found.shape == (4, task.outputs)
