"""One backward pass for all tasks gives what one backward pass per task gives."""

import pytest
import torch
import torch.nn.functional as F
from test_packed import encoder, ragged

from mtl_lib.bert import SENTENCE_VECTORS
from mtl_lib.fast import packed
from mtl_lib.fast.fused import FusedAdamW
from mtl_lib.fast.joint import JointGradients, _Embed, _gram
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


MODES = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
KINDS = pytest.mark.parametrize("kind", SENTENCE_VECTORS)
FROZEN = {
    "the pooler": lambda name: name.startswith("pooler"),
    "the top layer": lambda name: "layer.2." in name,
    "a layer in the middle": lambda name: "layer.1." in name,
    "the bottom": lambda name: name.startswith("embeddings") or "layer.0." in name,
    "all layers": lambda name: "layer." in name,
    "the embeddings": lambda name: name.startswith("embeddings"),
    "the words": lambda name: "word_embeddings" in name,
    "the positions": lambda name: "position_embeddings" in name,
    "the segments": lambda name: "token_type" in name,
    "the biases": lambda name: name.endswith("bias"),
    "the weights": lambda name: not name.endswith("bias"),
    "the LayerNorms": lambda name: "LayerNorm" in name,
    "the gains of the LayerNorms": lambda name: "LayerNorm.weight" in name,
    "one weight": lambda name: name == "encoder.layer.1.attention.self.key.weight",
    "all but one weight": lambda name: name != "encoder.layer.0.output.dense.weight",
    "all but the words": lambda name: "word_embeddings" not in name,
}


def freeze(model, frozen=lambda name: False):
    for name, p in model.named_parameters():
        p.requires_grad_(not frozen(name))


def by_autograd(model, batches, kind="pooler", penalties=()):
    """From torch alone, by task the trainable parameters' gradients by name; None: not reached."""
    pack = Pack.of(batches)
    vectors = torch.cat([model(*batch).sentence_vector(kind, batch[1]) for batch in batches])
    terms = losses(vectors, pack)
    for task, penalty in penalties:
        terms[task] = terms[task] + penalty(model)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    tasks = [
        torch.autograd.grad(loss, trained.values(), retain_graph=True, allow_unused=True)
        for loss in terms
    ]
    reached = [any(g is not None for g in of_tasks) for of_tasks in zip(*tasks, strict=True)]
    return [
        {
            name: (torch.zeros_like(p) if g is None else g) if reaches else None
            for (name, p), g, reaches in zip(trained.items(), task, reached, strict=True)
        }
        for task in tasks
    ]


def added(*passes):
    """The sum of several passes' `by_autograd`."""
    return [
        {name: None if g is None else sum(of[name] for of in task) for name, g in task[0].items()}
        for task in zip(*passes, strict=True)
    ]


def products(tasks):
    rows = torch.stack(
        [torch.cat([g.flatten() for g in task.values() if g is not None]) for task in tasks]
    )
    return rows.double() @ rows.double().T


def assert_holds(gradients, model, tasks, rtol=1e-9):
    """Gram matrix and combined gradients are those of `tasks`; what is frozen keeps None."""
    torch.testing.assert_close(gradients.gram(), products(tasks), rtol=rtol, atol=rtol)
    gradients.combine(WEIGHTS)
    for name, p in model.named_parameters():
        of_tasks = [task.get(name) for task in tasks]
        if of_tasks[0] is None:
            assert p.grad is None, name
        else:
            expected = sum(w * g for w, g in zip(WEIGHTS.double(), of_tasks, strict=True))
            assert (p.grad - expected).norm() <= rtol * (1 + expected.norm()), name


def backward(gradients, batches, kind="pooler"):
    pack = Pack.of(batches)
    sum(losses(gradients.vectors(pack, kind), pack)).backward()


OTHERS = [ragged([2, 6], 15), ragged([3, 3], 16), ragged([8], 17)]


@pytest.mark.parametrize("frozen", FROZEN)
@KINDS
@MODES
def test_a_partly_frozen_encoder_counts_and_moves_its_trainable_part_only(frozen, kind, training):
    model = encoder().train(training)
    freeze(model, FROZEN[frozen])
    gradients = JointGradients(model, 3)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = FusedAdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    for batches in (make_batches(), OTHERS):
        backward(gradients, batches, kind)
        assert_holds(gradients, model, by_autograd(model, batches, kind))
        optimizer.step()
    for name, p in model.named_parameters():
        assert not FROZEN[frozen](name) or torch.equal(p, before[name])


def test_a_wholly_frozen_encoder_has_gradients_of_zero():
    model = encoder()
    freeze(model, lambda name: True)
    for shared in (None, []):
        gradients = JointGradients(model, 3, shared)
        assert not gradients.vectors(Pack.of(make_batches())).requires_grad
        assert torch.equal(gradients.gram(), torch.zeros(3, 3, dtype=torch.float64))
        gradients.combine(WEIGHTS)
        assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("frozen", FROZEN)
def test_freezing_and_unfreezing_midway_leaves_no_old_gradient(frozen):
    model, kind = encoder().train(), "mean"
    gradients = JointGradients(model, 3)
    for now in (lambda name: False, FROZEN[frozen], lambda name: False):
        freeze(model, now)  # and no zero_grad: the last gradients are still there
        backward(gradients, OTHERS, kind)
        assert_holds(gradients, model, by_autograd(model, OTHERS, kind))


def test_what_is_frozen_after_the_backward_pass_does_not_count():
    model = encoder().train()
    for frozen in FROZEN.values():
        gradients = JointGradients(model, 3)
        freeze(model)
        backward(gradients, make_batches())
        freeze(model, frozen)
        assert_holds(gradients, model, by_autograd(model, make_batches()))


@KINDS
@MODES
def test_two_backward_passes_before_one_combine_add_up(kind, training):
    model = encoder().train(training)
    gradients = JointGradients(model, 3)
    for _ in range(2):  # and the next step starts from nothing
        for batches in (make_batches(), OTHERS, OTHERS):
            backward(gradients, batches, kind)
        passes = [by_autograd(model, batches, kind) for batches in (make_batches(), OTHERS, OTHERS)]
        assert_holds(gradients, model, added(*passes))


@KINDS
def test_two_passes_forward_before_two_passes_back_add_up(kind):
    model = encoder().train()
    gradients = JointGradients(model, 3)
    packs = [Pack.of(make_batches()), Pack.of(OTHERS)]
    both = [sum(losses(gradients.vectors(pack, kind), pack)) for pack in packs]
    for loss in both[::-1]:
        loss.backward()
    passes = [by_autograd(model, batches, kind) for batches in (make_batches(), OTHERS)]
    assert_holds(gradients, model, added(*passes))


@pytest.mark.parametrize("shared", ["a layer in the middle", "the words"])
def test_one_backward_pass_a_task_through_a_kept_graph_adds_up(shared):
    model = encoder().train()
    names = [name for name, _ in model.named_parameters() if FROZEN[shared](name)]
    gradients = JointGradients(model, 3, [model.get_parameter(name) for name in names])
    pack = Pack.of(make_batches())
    for loss in losses(gradients.vectors(pack), pack):
        loss.backward(retain_graph=True)
    expected = by_autograd(model, make_batches())
    for name, p in model.named_parameters():
        if name not in names:
            torch.testing.assert_close(p.grad, sum(task[name] for task in expected))
    model.zero_grad()
    assert_holds(gradients, model, [{n: task[n] for n in names} for task in expected])


def test_a_look_without_gradients_between_the_passes_changes_nothing():
    model = encoder().train()
    gradients = JointGradients(model, 3)
    backward(gradients, make_batches())
    with torch.no_grad():
        gradients.vectors(Pack.of(OTHERS))
    assert_holds(gradients, model, by_autograd(model, make_batches()))


def decay(model):
    """Half the squares of all weights: its gradient is the weights."""
    return sum(p.square().sum() for p in model.parameters()) / 2


def seldom(model):
    """A term of three words, two of which no sentence has, and of the second segment."""
    embeddings = model.embeddings
    words = embeddings.word_embeddings(torch.tensor([48, 49, 3]))
    return (words * embeddings.token_type_embeddings.weight[1]).square().sum()


@pytest.mark.parametrize("term", [decay, seldom])
@MODES
def test_a_loss_term_over_all_weights_arrives_whole(term, training):
    """Not only the rows of the step's words; before or after the joint pass."""
    model = encoder().train(training)
    model.embeddings.word_embeddings.weight.data[0] = 1.0  # a term trains the padding word, too
    batches = [(ids.clone(), mask) for ids, mask in OTHERS]
    batches[1][0][0, 1] = 0
    gradients = JointGradients(model, 3)
    both = [(task, lambda model, task=task: (task + 1) * term(model)) for task in (0, 2)]
    for penalties in (both, [], both[1:]):
        for first in (True, False):
            if first:
                backward(gradients, batches)
            model.zero_grad()
            for task, penalty in penalties:
                penalty(model).backward()
                gradients.add(task)
                assert all(p.grad is None for p in model.parameters())
            if not first:
                backward(gradients, batches)
            assert_holds(gradients, model, by_autograd(model, batches, penalties=penalties))


def test_a_loss_term_alone_is_a_gradient():
    model = encoder().train()
    gradients = JointGradients(model, 3)
    decay(model).backward()
    gradients.add(1)
    zeros = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    weights = {name: p.detach() for name, p in model.named_parameters()}
    assert_holds(gradients, model, [zeros, weights, zeros])


def test_a_loss_term_with_sparse_gradients_is_added():
    model = encoder().train()
    gradients = JointGradients(model, 3)
    words = torch.tensor([48, 49, 48])
    F.embedding(
        words, model.embeddings.word_embeddings.weight, sparse=True
    ).square().sum().backward()
    gradients.add(1)
    gradients.combine(torch.ones(3))
    table = model.embeddings.word_embeddings.weight
    expected = torch.zeros_like(table)
    expected[48], expected[49] = 4 * table[48].detach(), 2 * table[49].detach()
    torch.testing.assert_close(table.grad, expected)


def test_what_a_pass_does_not_reach_counts_as_zero_not_as_in_the_last_step():
    model = encoder().train()
    gradients = JointGradients(model, 3)
    for kind in ("pooler", "cls", "pooler", "mean"):
        backward(gradients, OTHERS, kind)
        expected = by_autograd(model, OTHERS, kind)
        assert (expected[0]["pooler.dense.weight"] is None) == (kind != "pooler")
        assert_holds(gradients, model, expected)


def test_a_task_without_a_loss_in_this_step_has_the_gradient_zero():
    model = encoder().train()
    gradients = JointGradients(model, 3)
    backward(gradients, make_batches())
    gradients.combine(WEIGHTS)
    model.zero_grad()
    pack = Pack.of(make_batches())
    losses(gradients.vectors(pack), pack)[1].backward()
    expected = by_autograd(model, make_batches())
    for task in (0, 2):
        expected[task] = {name: torch.zeros_like(g) for name, g in expected[task].items()}
    assert_holds(gradients, model, expected)


@pytest.mark.parametrize("where", ["forward", "within backward", "backward", "gram", "a term"])
def test_an_exception_before_combine_leaves_nothing_behind_once_cleared(where, monkeypatch):
    model = encoder().train()
    gradients = JointGradients(model, 3)
    pack = Pack.of(make_batches())
    loss = sum(losses(gradients.vectors(pack), pack))
    if where == "within backward":
        with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
            patch.setattr(_Embed, "backward", lambda *_: 1 / 0)  # all the layers are done by then
            loss.backward()
        assert gradients.gram().any()
    elif where != "forward":
        loss.backward()
    if where == "gram":
        gradients.gram()
    if where == "a term":
        decay(model).backward()
        gradients.add(0)
    gradients.clear()
    backward(gradients, OTHERS)
    assert_holds(gradients, model, by_autograd(model, OTHERS))


def test_a_step_without_a_backward_pass_has_gradients_of_zero():
    model = encoder().train()
    gradients = JointGradients(model, 3)
    backward(gradients, OTHERS)
    gradients.combine(WEIGHTS)
    assert torch.equal(gradients.gram(), torch.zeros(3, 3, dtype=torch.float64))
    gradients.combine(WEIGHTS)
    assert all(p.grad is None for p in model.parameters())


def test_noise_added_to_a_step_s_gradient_does_not_stay_for_the_next():
    model = encoder().train()
    gradients = JointGradients(model, 3)
    backward(gradients, make_batches())
    gradients.combine(WEIGHTS)
    for p in model.parameters():
        p.grad.add_(torch.randn_like(p))
    backward(gradients, OTHERS)
    assert_holds(gradients, model, by_autograd(model, OTHERS))


@pytest.mark.parametrize("shared", FROZEN)
def test_a_parameter_that_is_not_shared_has_the_plain_gradient(shared):
    """As heads have theirs: summed over the tasks, left out of surgery."""
    model = encoder().train()
    names = [name for name, _ in model.named_parameters() if FROZEN[shared](name)]
    gradients = JointGradients(model, 3, [model.get_parameter(n) for n in names])
    expected = by_autograd(model, OTHERS)
    backward(gradients, OTHERS)
    for name, p in model.named_parameters():
        if name not in names:
            plain = sum(task[name] for task in expected)
            torch.testing.assert_close(p.grad, plain, rtol=1e-9, atol=1e-9)
    model.zero_grad()
    assert_holds(gradients, model, [{n: task[n] for n in names} for task in expected])


def test_a_layer_that_stands_twice_has_the_sum_of_both():
    model = encoder().train()
    model.encoder.layer[2] = model.encoder.layer[0]
    gradients = JointGradients(model, 3)
    for batches in (make_batches(), OTHERS):
        backward(gradients, batches)
        assert_holds(gradients, model, by_autograd(model, batches))


def test_a_shared_parameter_named_twice_counts_once():
    model = encoder().train()
    gradients = JointGradients(model, 3, [*model.parameters(), *model.parameters()])
    backward(gradients, OTHERS)
    assert_holds(gradients, model, by_autograd(model, OTHERS))


def test_a_shared_parameter_of_another_module_is_refused():
    model = encoder()
    head = torch.nn.Linear(32, 5)
    with pytest.raises(ValueError, match=r"\(5,\), \(5, 32\).* none of the encoder's"):
        JointGradients(model, 3, [*model.parameters(), *head.parameters()])


def test_a_pack_of_another_number_of_batches_is_refused():
    with pytest.raises(ValueError, match="2 batches for 3 tasks"):
        JointGradients(encoder(), 3).vectors(Pack.of(make_batches(2)))


@KINDS
@pytest.mark.parametrize("frozen", ["the pooler", "the top layer", "the bottom", "the biases"])
def test_bfloat16_products_of_a_partly_frozen_encoder_add_up_too(frozen, kind):
    model = encoder(torch.float32).train()
    freeze(model, FROZEN[frozen])
    gradients, pack = JointGradients(model, 3), Pack.of(OTHERS)
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            vectors = gradients.vectors(pack, kind)
        sum(losses(vectors.float(), pack)).backward()
    exact = by_autograd(model, OTHERS, kind)
    expected = products(added(exact, exact)).double()
    norms = expected.diagonal().sqrt()
    assert ((gradients.gram() - expected) / norms[:, None] / norms).abs().max() < 0.03
    gradients.combine(WEIGHTS)
    for name, p in model.named_parameters():
        assert (p.grad is None) == (exact[0].get(name) is None)


def test_the_inner_products_of_a_bfloat16_encoder_are_summed_in_more_than_bfloat16():
    rows = torch.randn(3, 20_000, generator=torch.Generator().manual_seed(0)).bfloat16()
    exact = rows.double() @ rows.double().T
    torch.testing.assert_close(_gram(rows), exact, rtol=1e-5, atol=1e-2)
