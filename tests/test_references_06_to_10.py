"""The references of the exercises of chapters 06 to 10 are the library's code, or equal to it or to
an independent source."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from sklearn.linear_model import LinearRegression
from sklearn.metrics import recall_score
from sklearn.utils.class_weight import compute_class_weight
from torch import nn
from torch.testing import assert_close
from wrong_answers import chapter_06, chapter_07, chapter_08

from mtl_lib import evaluation, weighting
from mtl_lib.gradients import TaskGradients
from mtl_lib.handbook.checks import EXERCISES
from mtl_lib.handbook.checks.framework import judge
from mtl_lib.methods import rates, regularizers, weightings
from mtl_lib.study import by_label, conflicts, paper, terms
from mtl_lib.tasks import SIMILARITY

SEEDS = range(20)


def reference(name):
    return EXERCISES[name].reference


def normal(*shape, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("conflict_rate", conflicts.conflict_rate),
        ("lp_penalty", regularizers.lp_penalty),
        ("clip_to_ball", regularizers.clip_to_ball),
        ("symmetric_kl", regularizers.symmetric_kl),
        ("divergence", regularizers.divergence),
        ("linear_warmup", rates.linear_warmup),
        ("overall_from_classes", paper.overall_from_classes),
    ],
)
def test_the_reference_is_the_library_s_own(name, function):
    assert reference(name) is function


@pytest.mark.parametrize("exercise", [e for e in EXERCISES.values() if e.chapter in (6, 7, 8)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_right_answers_pass_under_either_default_dtype(exercise, dtype):
    bank = {6: chapter_06, 7: chapter_07, 8: chapter_08}[exercise.chapter].RIGHT
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        for answer in [exercise.reference, *(a for name, a in bank if name == exercise.name)]:
            assert judge(exercise, answer).passed, answer
        assert torch.get_default_dtype() == dtype
    finally:
        torch.set_default_dtype(before)


# Chapter 06


def order_drawn(tasks, seed):
    """For each task the others, in the order that the library draws with this seed."""
    generator = torch.Generator().manual_seed(seed)
    order = []
    for i in range(tasks):
        others = [j for j in range(tasks) if j != i]
        order.append([others[k] for k in torch.randperm(tasks - 1, generator=generator)])
    return order


@pytest.mark.parametrize("seed", SEEDS)
def test_project_leaves_what_least_squares_cannot_explain(seed):
    g_i, g_j = normal(2, 6, seed=seed)
    share = np.linalg.lstsq(g_j[:, None].numpy(), g_i.numpy(), rcond=None)[0][0]
    expected = g_i - min(share, 0) * g_j
    assert_close(reference("project")(g_i, g_j), expected)


@pytest.mark.parametrize("tasks", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("seed", SEEDS)
def test_pcgrad_and_its_weights_are_the_library_s_under_the_drawn_order(tasks, seed):
    gradients = normal(tasks, 5, seed=seed)
    order = order_drawn(tasks, seed)
    drawn = [torch.Generator().manual_seed(seed) for _ in range(2)]
    literal = weightings.project_conflicting(gradients, drawn[0])
    assert_close(reference("pcgrad")(gradients, order), literal)
    gram = gradients @ gradients.T
    weights = reference("pcgrad_weights")(gram, order)
    assert_close(weights, weighting.pcgrad_weights(gram, drawn[1]))
    assert_close(weights @ gradients, literal)


def test_gram_matrix_is_that_of_task_gradients():
    shapes = [(3, 2), (4,), (2, 2, 2)]
    gradients = [
        [normal(*shape, seed=10 * t + k).float() for k, shape in enumerate(shapes)]
        for t in range(3)
    ]
    gradients[1][0] = gradients[2][1] = None
    parameters = [nn.Parameter(torch.zeros(shape)) for shape in shapes]
    collected = TaskGradients(parameters)
    for of_task in gradients:
        for parameter, gradient in zip(parameters, of_task, strict=True):
            parameter.grad = gradient
        collected.collect()
    assert_close(reference("gram_matrix")(gradients), collected.gram())


@pytest.mark.parametrize("seed", SEEDS)
def test_surgery_step_is_the_literal_algorithm_on_gradients_asked_for_one_by_one(seed):
    torch.manual_seed(seed)
    model = nn.Module()
    model.encoder = nn.Linear(4, 3).double()
    model.heads = nn.ModuleList(nn.Linear(3, 1).double() for _ in range(3))
    model.shared_parameters = lambda: list(model.encoder.parameters())
    inputs = normal(3, 5, 4, seed=seed)

    def losses():
        return [
            ((head(torch.tanh(model.encoder(x))) - (-1) ** t) ** 2).mean()
            for t, (head, x) in enumerate(zip(model.heads, inputs, strict=True))
        ]

    rows = [
        torch.cat([g.flatten() for g in torch.autograd.grad(loss, model.shared_parameters())])
        for loss in losses()
    ]
    heads = [
        torch.autograd.grad(loss, list(head.parameters()))
        for loss, head in zip(losses(), model.heads, strict=True)
    ]
    reference("surgery_step")(losses(), model, order_drawn(3, seed))
    drawn = torch.Generator().manual_seed(seed)
    expected = weightings.project_conflicting(torch.stack(rows), drawn)
    assert_close(torch.cat([p.grad.flatten() for p in model.shared_parameters()]), expected)
    for head, gradients in zip(model.heads, heads, strict=True):
        assert_close([p.grad for p in head.parameters()], list(gradients))


# Chapter 07


def test_sorted_weights_are_numpy_s():
    run = normal(6, 9, seed=1)
    expected = -np.sort(-np.abs(run.numpy()), axis=1)
    assert_close(reference("sorted_weights_over_time")(run), torch.from_numpy(expected))


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9])
def test_dropout_is_torch_s_for_the_same_mask(p):
    x = normal(40, 25, seed=2)
    torch.manual_seed(0)
    expected = F.dropout(x, p, training=True)
    kept = (expected != 0).double()
    assert_close(reference("dropout")(x, kept, p, True), expected)
    assert_close(reference("dropout")(x, kept, p, False), F.dropout(x, p, training=False))


# Chapter 08


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()

    def forward(self, x):
        return self.layers(self.dropout(x).mean(dim=1))


@pytest.mark.parametrize("step_size", [0.01, 0.2, 5.0])
@pytest.mark.parametrize("seed", range(5))
def test_the_smart_step_and_penalty_are_the_regularizer_s(seed, step_size):
    torch.manual_seed(seed)
    model, x = Net(), normal(6, 2, 4, seed=seed)
    regularizer = regularizers.SmoothnessRegularizer(0.05, 0.1, step_size)
    start = 0.05 * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
    start = start.to(x)

    model.eval()
    outputs = model(x)
    point = (x + start).requires_grad_()
    distance = regularizers.symmetric_kl(model(point), outputs.detach())
    (gradient,) = torch.autograd.grad(distance, point)
    moved = reference("smart_step")(point.detach(), x, gradient, step_size, 0.1)
    drawn = torch.Generator().manual_seed(seed)
    delta = regularizer.perturbation(model, x, outputs, "classes", drawn)
    assert_close(moved, x + delta)

    expected = regularizer(model, x, "classes", torch.Generator().manual_seed(seed))
    model.train()
    penalty = reference("smart_penalty")(model, x, start, step_size, 0.1)
    assert model.training
    assert_close(penalty, expected)
    assert_close(
        torch.autograd.grad(penalty, list(model.parameters())),
        torch.autograd.grad(expected, list(model.parameters())),
    )


def test_the_smart_penalty_is_larger_than_that_of_random_signs_of_the_same_size():
    torch.manual_seed(0)
    model, x = Net().eval(), normal(32, 10, 4, seed=0)
    radius = 0.01
    penalty = reference("smart_penalty")(model, x, radius * normal(*x.shape, seed=1), 1.0, radius)
    with torch.no_grad():
        random = [
            regularizers.symmetric_kl(model(x + radius * normal(*x.shape, seed=n).sign()), model(x))
            for n in range(20)
        ]
    assert penalty > 5 * max(random)


# Chapter 09


@pytest.mark.parametrize("seed", SEEDS)
def test_class_weights_are_scikit_learn_s_where_every_class_occurs(seed):
    draw = np.random.default_rng(seed)
    train = np.concatenate([np.arange(5), draw.integers(5, size=60)])
    labels = {"train": train, "dev": draw.integers(5, size=30)}
    weights = reference("class_weights")(labels, 5)
    expected = compute_class_weight("balanced", classes=np.arange(5), y=train)
    np.testing.assert_allclose(weights, expected, rtol=1e-6)
    np.testing.assert_array_equal(weights, terms.class_weights(train, 5))


@pytest.mark.parametrize("seed", SEEDS)
def test_selection_bias_is_what_a_loop_gives(seed):
    selecting, fresh = np.random.default_rng(seed).normal(size=(2, 40, 6))
    differences = []
    for here, there in zip(selecting, fresh, strict=True):
        winner = max(range(6), key=lambda model, here=here: here[model])
        differences.append(here[winner] - there[winner])
    assert reference("selection_bias")(selecting, fresh) == pytest.approx(sum(differences) / 40)


# Chapter 10


def scores(seed, size=200):
    draw = np.random.default_rng(seed)
    true = draw.integers(0, 26, size=size) / 5  # as raters' means are
    return true, 0.6 * true + 1 + draw.normal(size=size)


@pytest.mark.parametrize("seed", SEEDS)
def test_per_class_accuracy_is_the_library_s_and_scikit_learn_s_recall(seed):
    true, predicted = scores(seed)
    predicted = predicted.astype(np.float32)
    accuracy = reference("per_class_accuracy")(true, predicted, 6)
    report = by_label.per_class_report(SIMILARITY, predicted[:, None], true)
    np.testing.assert_array_equal(accuracy, report["accuracy"])
    labels = [by_label.round_similarity(x) for x in (true, predicted)]
    np.testing.assert_allclose(accuracy, recall_score(*labels, labels=range(6), average=None))


@pytest.mark.parametrize("seed", SEEDS)
def test_pearson_and_slope_are_those_of_scipy_and_scikit_learn(seed):
    true, predicted = scores(seed)
    line = LinearRegression().fit(predicted[:, None], true)
    assert reference("calibration_slope")(true, predicted) == pytest.approx(line.coef_[0])
    r = reference("pearson")(true, predicted)
    assert r == pytest.approx(stats.pearsonr(true, predicted).statistic)
    assert r == pytest.approx(np.corrcoef(true, predicted)[0, 1])


def test_pearson_is_the_library_s_also_where_there_is_none():
    true, predicted = scores(0)
    for of in (predicted, np.full(200, 2.5)):
        logits = of.astype(np.float32)[:, None]
        expected = evaluation.metrics(SIMILARITY, logits, true)["pearson"]
        assert reference("pearson")(true, of) == pytest.approx(expected, nan_ok=True)
