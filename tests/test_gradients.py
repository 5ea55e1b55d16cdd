"""Gradients per task: only shared parameters are taken, kept apart, measured and combined."""

import numpy as np
import pytest
import torch
from torch import nn

from mtl_lib.gradients import TaskGradients
from mtl_lib.methods.weightings import project_conflicting
from mtl_lib.weighting import pcgrad_weights, sum_weights


def parameter(*values):
    return nn.Parameter(torch.tensor(values))


def collected(tasks, shapes=None):
    """TaskGradients that hold the given gradients: one list of tensors (or None) per task."""
    shapes = shapes or [gradient.shape for gradient in tasks[0]]
    shared = [nn.Parameter(torch.zeros(shape, dtype=torch.float64)) for shape in shapes]
    gradients = TaskGradients(shared)
    for task in tasks:
        for p, gradient in zip(shared, task, strict=True):
            p.grad = None if gradient is None else gradient.clone().to(p.dtype)
        gradients.collect()
    return gradients, shared


def random_tasks(tasks=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(5, 4), (7,), ()]
    return [
        [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
        for _ in range(tasks)
    ]


def flat(task):
    return torch.cat([gradient.flatten() for gradient in task])


def test_surgery_touches_shared_parameters_only():
    # Shared gradients (1, 0) and (-1, .5), head gradients 3 and 4: surgery over all of them
    # at once would change the heads' too.
    shared, heads = parameter(0.0, 0.0), [parameter(0.0), parameter(0.0)]
    gradients = TaskGradients([shared])
    for head, slope, own in zip(heads, ([1.0, 0.0], [-1.0, 0.5]), (3.0, 4.0), strict=True):
        (torch.tensor(slope) @ shared + own * head.sum()).backward()
        gradients.collect()
    gradients.combine(pcgrad_weights(gradients.gram()))
    torch.testing.assert_close(shared.grad, torch.tensor([0.2, 0.9]))
    assert [head.grad.item() for head in heads] == [3.0, 4.0]


def test_collect_takes_the_shared_gradients_away_and_leaves_the_heads():
    shared, head = parameter(1.0), parameter(1.0)
    gradients = TaskGradients([shared])
    (shared * head).sum().backward()
    gradients.collect()
    assert shared.grad is None
    assert head.grad.item() == 1.0
    assert len(gradients) == 1


def test_tasks_do_not_accumulate_into_each_other():
    shared = parameter(1.0)
    gradients = TaskGradients([shared])
    for slope in (2.0, 5.0):
        (slope * shared).sum().backward()
        gradients.collect()
    torch.testing.assert_close(
        gradients.gram(), torch.tensor([[4.0, 10.0], [10.0, 25.0]], dtype=torch.float64)
    )


def test_separate_backwards_leave_the_other_tasks_heads_without_gradient():
    # One backward per task over its own graph: none is kept, and none is filled with zeros.
    shared, heads = nn.Linear(4, 4), [nn.Linear(4, 1) for _ in range(3)]
    gradients = TaskGradients(shared.parameters())
    for i, head in enumerate(heads):
        loss = head(torch.tanh(shared(torch.randn(2, 4)))).square().mean()
        loss.backward()
        gradients.collect()
        reached = [other.weight.grad is not None for other in heads]
        assert reached == [k <= i for k in range(3)]
        with pytest.raises(RuntimeError, match="second time"):
            loss.backward()  # the graph is gone
    gradients.combine(sum_weights(gradients.gram()))
    assert all(p.grad is not None for p in shared.parameters())


def test_the_gram_matrix_takes_one_inner_product_over_all_parameters():
    tasks = random_tasks(4)
    vectors = torch.stack([flat(task) for task in tasks])
    gram = collected(tasks)[0].gram()
    assert gram.dtype == torch.float64
    torch.testing.assert_close(gram, vectors @ vectors.T, rtol=1e-12, atol=1e-12)


def test_surgery_is_not_done_tensor_by_tensor():
    # In the first tensor the tasks conflict, in the second they agree more strongly.
    tasks = [
        [torch.tensor([1.0]), torch.tensor([2.0])],
        [torch.tensor([-1.0]), torch.tensor([2.0])],
    ]
    gradients, shared = collected(tasks)
    gradients.combine(pcgrad_weights(gradients.gram()))
    assert [p.grad.item() for p in shared] == [0.0, 4.0]


def test_surgery_through_the_gram_matrix_equals_the_literal_algorithm():
    for seed in range(20):
        tasks = random_tasks(3, seed)
        gradients, shared = collected(tasks)
        gram = gradients.gram()
        gradients.combine(pcgrad_weights(gram, torch.Generator().manual_seed(seed)))
        expected = project_conflicting(
            torch.stack([flat(task) for task in tasks]), torch.Generator().manual_seed(seed)
        )
        torch.testing.assert_close(flat([p.grad for p in shared]), expected, rtol=1e-10, atol=1e-10)


def test_the_plain_sum_equals_the_gradient_of_the_summed_loss():
    torch.manual_seed(0)
    shared, heads = nn.Linear(4, 4), [nn.Linear(4, 1) for _ in range(3)]
    batches = [torch.randn(5, 4) for _ in heads]

    def losses():
        for batch, head in zip(batches, heads, strict=True):
            yield head(torch.tanh(shared(batch))).square().mean()

    expected = torch.autograd.grad(sum(losses()), list(shared.parameters()))
    gradients = TaskGradients(shared.parameters())
    for loss in losses():
        loss.backward()
        gradients.collect()
    gradients.combine(sum_weights(gradients.gram()))
    for p, gradient in zip(shared.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, gradient)


def test_a_missing_gradient_counts_as_zero_and_stays_missing_only_if_all_miss_it():
    one, two = torch.tensor([2.0]), torch.tensor([3.0])
    tasks = [[one, None, None], [two, two, None]]
    gradients, shared = collected(tasks, shapes=[(1,)] * 3)
    gram = gradients.gram()
    assert gram.tolist() == [[4.0, 6.0], [6.0, 18.0]]
    gradients.combine(torch.tensor([1.0, 10.0]))
    assert shared[0].grad.item() == 32.0
    assert shared[1].grad.item() == 30.0
    assert shared[2].grad is None


def test_combine_reuses_the_first_tasks_memory():
    shared = parameter(1.0, 2.0)
    gradients = TaskGradients([shared])
    shared.grad = first = torch.ones(2)
    gradients.collect()
    shared.grad = torch.ones(2)
    gradients.collect()
    gradients.combine(torch.tensor([1.0, 2.0]))
    assert shared.grad is first
    assert first.tolist() == [3.0, 3.0]


def test_after_combining_the_next_step_starts_empty():
    gradients, shared = collected(random_tasks(3))
    gradients.combine(torch.ones(3))
    assert len(gradients) == 0
    shared[0].grad = torch.ones_like(shared[0])
    gradients.collect()
    assert gradients.gram().shape == (1, 1)


def test_without_shared_parameters_the_gram_matrix_is_zero():
    gradients = TaskGradients([])  # as with a frozen encoder
    for _ in range(3):
        gradients.collect()
    assert torch.equal(gradients.gram(), torch.zeros(3, 3, dtype=torch.float64))
    gradients.combine(torch.ones(3))
    assert len(gradients) == 0


def test_a_wrong_number_of_weights_is_refused():
    gradients, _ = collected(random_tasks(3))
    with pytest.raises(ValueError, match="3 tasks"):
        gradients.combine(torch.ones(2))


def test_the_gram_matrix_stays_exact_over_millions_of_numbers():
    # Six million numbers in two tensors; one float32 sum over them is visibly off.
    generator = torch.Generator().manual_seed(0)
    shared = [nn.Parameter(torch.empty(n)) for n in (5_000_000, 1_000_003)]
    gradients = TaskGradients(shared)
    tasks = []
    for _ in range(2):
        for p in shared:
            p.grad = torch.rand(p.shape, generator=generator)
        tasks.append([p.grad.numpy() for p in shared])
        gradients.collect()
    exact = sum(
        np.dot(a.astype(np.float64), b.astype(np.float64)) for a, b in zip(*tasks, strict=True)
    )
    gram = gradients.gram()
    assert gram[0, 1].item() == pytest.approx(exact, rel=1e-12)
    running = np.cumsum(
        np.concatenate([a * b for a, b in zip(*tasks, strict=True)]), dtype=np.float32
    )[-1]
    assert abs(running / exact - 1) > 1e-5


def test_sparse_gradients_are_collected_as_dense_ones():
    table, dense = nn.Embedding(6, 2, sparse=True), nn.Embedding(6, 2)
    dense.load_state_dict(table.state_dict())
    found = []
    for embedding in (table, dense):
        gradients = TaskGradients(embedding.parameters())
        for words in ([1, 1, 4], [4, 5]):
            embedding(torch.tensor(words)).square().sum().backward()
            gradients.collect()
        gram = gradients.gram()
        gradients.combine(torch.tensor([2.0, -1.0]))
        found.append((gram, embedding.weight.grad))
    assert not found[0][1].is_sparse
    for of_sparse, of_dense in zip(*found, strict=True):
        torch.testing.assert_close(of_sparse, of_dense)


@pytest.mark.parametrize("when", ["before the backward pass", "after collect", "after gram"])
def test_a_frozen_parameter_neither_counts_nor_gets_a_gradient(when):
    moving, frozen = parameter(1.0, 2.0), parameter(3.0)
    frozen.grad = torch.tensor([7.0])  # of a step before it was frozen
    gradients = TaskGradients([moving, frozen])
    if when == "before the backward pass":
        frozen.requires_grad_(False)
    (moving.square().sum() * frozen).sum().backward()
    gradients.collect()
    if when == "after collect":
        frozen.requires_grad_(False)
    if when != "after gram":
        assert gradients.gram().item() == 36.0 + 144.0
    frozen.requires_grad_(False)
    gradients.combine(torch.ones(1))
    assert moving.grad.tolist() == [6.0, 12.0]
    assert frozen.grad is None


def test_a_step_that_was_not_finished_leaves_nothing_behind_once_cleared():
    gradients, shared = collected(random_tasks(2))
    gradients.clear()
    assert len(gradients) == 0
    shared[0].grad = torch.ones_like(shared[0])
    gradients.collect()
    assert gradients.gram().tolist() == [[20.0]]


def test_a_parameter_named_twice_counts_once():
    shared = parameter(3.0)
    gradients = TaskGradients([shared, shared])
    (2 * shared).sum().backward()
    gradients.collect()
    assert gradients.gram().item() == 4.0
    gradients.combine(torch.ones(1))
    assert shared.grad.item() == 2.0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_inner_products_of_half_precision_gradients_are_float64(dtype):
    generator = torch.Generator().manual_seed(0)
    shared = nn.Parameter(torch.zeros(20_000, dtype=dtype))
    gradients, rows = TaskGradients([shared]), []
    for _ in range(2):
        shared.grad = torch.randn(20_000, generator=generator).to(dtype)
        rows.append(shared.grad.double())
        gradients.collect()
    rows = torch.stack(rows)
    torch.testing.assert_close(gradients.gram(), rows @ rows.T, rtol=1e-12, atol=1e-9)
