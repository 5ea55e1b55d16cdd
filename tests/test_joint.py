"""One backward pass for all tasks gives what one backward pass per task gives."""

import pytest
import torch
from test_packed import encoder, ragged

from mtl_lib.bert import SENTENCE_VECTORS
from mtl_lib.fast import packed
from mtl_lib.fast.joint import JointGradients, _gram
from mtl_lib.fast.packed import Pack
from mtl_lib.gradients import TaskGradients

LENGTHS = ([3, 9, 17, 1, 5], [4, 4, 12, 7], [20, 2])
WEIGHTS = torch.tensor([0.3, -0.5, 2.0])
PRECISIONS = [(torch.float32, 1e-5), (torch.float64, 1e-9)]


def make_batches(count=3):
    return [ragged(LENGTHS[i % 3], seed=i) for i in range(count)]


def losses(vectors, pack):
    """One loss per batch, of different sizes."""
    generator = torch.Generator().manual_seed(7)
    targets = torch.randn(vectors.shape, generator=generator, dtype=torch.float64).to(vectors)
    squares = (vectors - targets).square().split(pack.sentences)
    return [10**t * square.sum() for t, square in enumerate(squares)]


def shared(model, kind="pooler"):
    """The parameters that a sentence vector depends on."""
    unused = [] if kind == "pooler" else ["pooler.dense.weight", "pooler.dense.bias"]
    return [p for name, p in model.named_parameters() if name not in unused]


def teaching(model, batches, kind="pooler"):
    """The padded encoder and one backward pass per task."""
    collected = TaskGradients(shared(model, kind))
    pack = Pack.of(batches)
    vectors = torch.cat([model(*batch).sentence_vector(kind, batch[1]) for batch in batches])
    for loss in losses(vectors, pack):
        loss.backward(retain_graph=True)  # the test's shortcut: one forward pass for all
        collected.collect()
    return collected


def joint(model, batches, kind="pooler"):
    gradients = JointGradients(model, len(batches), shared(model, kind))
    pack = Pack.of(batches)
    sum(losses(gradients.vectors(pack, kind), pack)).backward()
    return gradients


def flat_gradient(model):
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("worth", [1, 8000])  # with a group for each length, and with one group
@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("kind", SENTENCE_VECTORS)
def test_every_task_has_the_gradient_of_the_teaching_path(
    dtype, tolerance, worth, kind, monkeypatch
):
    monkeypatch.setitem(packed._WORTH_A_GROUP, "cpu", worth)
    model = encoder(dtype).train()
    for task in torch.eye(3):
        teaching(model, make_batches(), kind).combine(task)
        expected = flat_gradient(model)
        joint(model, make_batches(), kind).combine(task)
        assert (flat_gradient(model) - expected).norm() <= tolerance * expected.norm()


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_the_gram_matrix_is_that_of_the_teaching_path(dtype, tolerance):
    model = encoder(dtype).train()
    expected = teaching(model, make_batches()).gram()
    norms = expected.diagonal().sqrt()
    error = (joint(model, make_batches()).gram() - expected) / norms[:, None] / norms
    assert error.abs().max() <= tolerance


def test_a_second_step_starts_from_nothing():
    model = encoder(torch.float64).train()
    gradients = JointGradients(model, 3)
    for batches in (make_batches(), [ragged([2], 5), ragged([3, 3], 6), ragged([8], 7)]):
        model.zero_grad()
        teaching(model, batches).combine(WEIGHTS)
        expected = flat_gradient(model)
        model.zero_grad()
        pack = Pack.of(batches)
        sum(losses(gradients.vectors(pack), pack)).backward()
        gradients.combine(WEIGHTS)
        torch.testing.assert_close(flat_gradient(model), expected, rtol=1e-9, atol=1e-12)


def test_the_padding_word_is_not_trained_even_where_a_text_spells_it_out():
    model = encoder(torch.float64).train()
    ids, mask = ragged([5, 7])
    ids[0, 2] = 0
    joint(model, [(ids, mask)]).combine(torch.ones(1))
    gradient = model.embeddings.word_embeddings.weight.grad
    assert gradient[0].abs().sum() == 0
    assert gradient[ids[0, 1]].abs().sum() > 0


def test_any_number_of_tasks_goes_through_at_once():
    model = encoder(torch.float64).train()
    batches = make_batches(8)
    expected = teaching(model, batches).gram()
    torch.testing.assert_close(joint(model, batches).gram(), expected, rtol=1e-9, atol=1e-9)


def test_the_inner_products_of_long_gradients_are_accurate():
    """Where one float32 product over all elements is not."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(3, 5_000_000, generator=generator) + 0.5
    exact = rows.double() @ rows.double().T
    norms = exact.diagonal().sqrt()
    assert ((_gram(rows) - exact) / norms[:, None] / norms).abs().max() < 1e-7


def test_bfloat16_products_keep_the_direction_of_the_gradients():
    """The arithmetic of the GPU path, here on a CPU."""
    model = encoder(torch.float32).train()
    teaching(model, make_batches()).combine(WEIGHTS)
    expected = flat_gradient(model)
    pack, gradients = Pack.of(make_batches()), JointGradients(model, 3)
    with torch.autocast("cpu", torch.bfloat16):
        vectors = gradients.vectors(pack)
    sum(losses(vectors.float(), pack)).backward()
    gradients.combine(WEIGHTS)
    assert flat_gradient(model).dtype == torch.float32
    assert torch.cosine_similarity(flat_gradient(model), expected, dim=0) > 0.999


def test_weights_for_another_number_of_tasks_are_refused():
    gradients = joint(encoder(), make_batches())
    with pytest.raises(ValueError, match=r"weights \(2,\) for 3 tasks"):
        gradients.combine(torch.ones(2))
