"""The AdamW step against torch's, and against the papers' formulas written out in float64."""

import copy
import math
import pickle
from functools import partial

import pytest
import torch
import transformers

from mtl_lib.fast.fused import FusedAdamW
from mtl_lib.methods.rates import linear_warmup
from mtl_lib.optim import AdamW

SHAPES = [(4, 3), (7,), (2, 2, 2), ()]


def parameters(seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype))
        for shape in SHAPES
    ]


def gradients(steps, seed=1, scale=1.0):
    """For each step a gradient per parameter, spread over several orders of magnitude."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        yield [
            scale * 10.0**-k * torch.randn(shape, generator=generator, dtype=torch.float64)
            for k, shape in enumerate(SHAPES)
        ]


def literal_efficient(theta, steps, lr, beta1, beta2, eps, decay, correct_bias=True):
    """Kingma and Ba's efficient order (end of section 2) with decoupled decay, scalar by scalar."""
    m = v = 0.0
    for t, g in enumerate(steps, start=1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        rate = lr * math.sqrt(1 - beta2**t) / (1 - beta1**t) if correct_bias else lr
        theta = theta - rate * m / (math.sqrt(v) + eps) - lr * decay * theta
    return theta


def test_textbook_form_equals_torch_over_1000_steps():
    ours, theirs = parameters(), parameters()
    options = dict(lr=3e-3, betas=(0.8, 0.99), eps=1e-6, weight_decay=0.05)
    optimizer = AdamW(ours, **options, form="textbook")
    peer = torch.optim.AdamW(theirs, **options)
    for step in gradients(1000):
        for p, q, gradient in zip(ours, theirs, step, strict=True):
            p.grad, q.grad = gradient.clone(), gradient.clone()
        optimizer.step()
        peer.step()
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("correct_bias", [True, False])
def test_efficient_form_equals_the_formula_written_out(correct_bias):
    # Gradients near 1e-5 and epsilon 1e-6: here the place of epsilon shows.
    ours = parameters()
    start = [p.detach().clone().flatten() for p in ours]
    steps = list(gradients(200, scale=1e-5))
    optimizer = AdamW(ours, lr=3e-3, eps=1e-6, weight_decay=0.05, correct_bias=correct_bias)
    for step in steps:
        for p, gradient in zip(ours, step, strict=True):
            p.grad = gradient.clone()
        optimizer.step()
    for k, p in enumerate(ours):
        for entry, value in enumerate(p.detach().flatten().tolist()):
            column = [step[k].flatten()[entry].item() for step in steps]
            expected = literal_efficient(
                start[k][entry].item(), column, 3e-3, 0.9, 0.999, 1e-6, 0.05, correct_bias
            )
            assert value == pytest.approx(expected, rel=1e-12, abs=1e-12)


def one_step(form, gradient, **options):
    parameter = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    parameter.grad = torch.tensor([gradient], dtype=torch.float64)
    AdamW([parameter], form=form, **options).step()
    return 1.0 - parameter.item()


def test_the_two_forms_part_where_the_gradient_is_as_small_as_epsilon():
    textbook = one_step("textbook", 1e-5, lr=1e-3)
    efficient = one_step("efficient", 1e-5, lr=1e-3)
    assert textbook == pytest.approx(1e-3 / (1 + 0.1))  # eps / |g| = 0.1
    assert efficient == pytest.approx(1e-3 / (1 + 0.1 / math.sqrt(1 - 0.999)))
    assert textbook > 3 * efficient


@pytest.mark.parametrize("form", ["efficient", "textbook"])
def test_the_fused_step_equals_the_plain_one(form):
    """Tiny gradients show the place of epsilon; a gradient missing now and then, the counts."""
    plain, fused = parameters(), parameters()
    options = dict(lr=3e-3, eps=1e-6, weight_decay=0.05, form=form)
    optimizers = AdamW(plain, **options), FusedAdamW(fused, **options)
    for number, step in enumerate(gradients(200, scale=1e-5)):
        for k, gradient in enumerate(step):
            plain[k].grad = None if k == 1 and number % 3 else gradient.clone()
            fused[k].grad = None if k == 1 and number % 3 else gradient.clone()
        for optimizer in optimizers:
            optimizer.step()
    for p, q in zip(plain, fused, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-14)


def test_a_fused_optimizer_goes_on_from_its_stored_state():
    ours, restored = parameters(), parameters()
    first, second = FusedAdamW(ours), FusedAdamW(restored)
    for number, step in enumerate(gradients(6)):
        for p, gradient in zip(ours, step, strict=True):
            p.grad = gradient.clone()
        first.step()
        if number == 3:
            second.load_state_dict(copy.deepcopy(first.state_dict()))
            for p, q in zip(ours, restored, strict=True):
                q.data.copy_(p.data)
        if number > 3:
            for p, gradient in zip(restored, step, strict=True):
                p.grad = gradient.clone()
            second.step()
    for p, q in zip(ours, restored, strict=True):
        assert torch.equal(p, q)


def test_the_fused_step_cannot_leave_out_the_bias_correction():
    with pytest.raises(ValueError, match="correct_bias is False; FusedAdamW always corrects"):
        FusedAdamW(parameters(), correct_bias=False)


def test_the_fused_step_evaluates_a_closure():
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = FusedAdamW([parameter])

    def closure():
        optimizer.zero_grad()
        loss = parameter.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 2.0
    assert (parameter < 1).all()


@pytest.mark.parametrize("form", ["efficient", "textbook"])
def test_the_first_step_is_one_learning_rate_long(form):
    assert one_step(form, 3.0, lr=0.01, eps=1e-12) == pytest.approx(0.01)


@pytest.mark.parametrize("form", ["efficient", "textbook"])
def test_without_bias_correction_the_first_step_divides_the_raw_averages(form):
    moved = one_step(form, 3.0, lr=0.01, eps=0.1, correct_bias=False)
    assert moved == pytest.approx(0.01 * 0.1 * 3 / (math.sqrt(0.001 * 9) + 0.1))


@pytest.mark.parametrize("form", ["efficient", "textbook"])
def test_decay_is_decoupled_and_shrinks_by_rate_times_decay_alone(form):
    # With a zero gradient coupled decay would go through m and v; decoupled decay just shrinks.
    parameter = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    optimizer = AdamW([parameter], lr=0.1, weight_decay=0.5, form=form)
    for _ in range(10):
        parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    torch.testing.assert_close(parameter.detach(), torch.full((3,), 0.95**10).double())


def test_decay_acts_on_the_weights_before_the_update():
    assert one_step("textbook", 1.0, lr=0.1, eps=0.0, weight_decay=0.5) == pytest.approx(
        0.1 + 0.1 * 0.5 * 1.0
    )


def test_a_parameter_without_gradient_neither_moves_nor_counts():
    moving, still = parameters()[:2]
    before = still.detach().clone()
    optimizer = AdamW([moving, still], weight_decay=0.5)
    for _ in range(3):
        moving.grad = torch.ones_like(moving)
        optimizer.step()
    assert torch.equal(still, before)
    assert still not in optimizer.state or not optimizer.state[still]


def test_each_parameter_counts_its_own_steps():
    # The late one takes its first step as if it were alone.
    early, late = parameters()[:2]
    alone = torch.nn.Parameter(late.detach().clone())
    optimizer = AdamW([early, late])
    for step in range(5):
        early.grad = torch.ones_like(early)
        late.grad = torch.full_like(late, 0.3) if step == 4 else None
        optimizer.step()
    alone.grad = torch.full_like(alone, 0.3)
    AdamW([alone]).step()
    assert torch.equal(late, alone)
    assert [optimizer.state[p]["step"] for p in (early, late)] == [5, 1]


def test_a_group_may_have_its_own_options():
    fast, slow = parameters()[:2]
    starts = [p.detach().clone() for p in (fast, slow)]
    optimizer = AdamW([{"params": [fast]}, {"params": [slow], "lr": 1e-4}], lr=1e-2, eps=1e-12)
    for p in (fast, slow):
        p.grad = torch.ones_like(p)
    optimizer.step()
    torch.testing.assert_close(starts[0] - fast, torch.full_like(fast, 1e-2))
    torch.testing.assert_close(starts[1] - slow, torch.full_like(slow, 1e-4))


def test_a_run_goes_on_from_its_state_as_if_never_stopped(tmp_path):
    whole, halves = parameters(dtype=torch.float32), parameters(dtype=torch.float32)
    steps = [[g.float() for g in step] for step in gradients(20)]

    def run(weights, optimizer, some):
        for step in some:
            for p, gradient in zip(weights, step, strict=True):
                p.grad = gradient.clone()
            optimizer.step()

    run(whole, AdamW(whole, weight_decay=0.1), steps)
    first = AdamW(halves, weight_decay=0.1)
    run(halves, first, steps[:9])
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second = AdamW(halves, lr=99.0)  # the options come from the state as well
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    run(halves, second, steps[9:])
    for p, q in zip(whole, halves, strict=True):
        assert torch.equal(p, q)


def test_a_step_leaves_the_gradient_alone():
    parameter = parameters()[0]
    parameter.grad = torch.ones_like(parameter)
    AdamW([parameter], weight_decay=0.5).step()
    assert torch.equal(parameter.grad, torch.ones_like(parameter))


def test_a_closure_is_evaluated_with_gradients_and_its_loss_returned():
    parameter = torch.nn.Parameter(torch.tensor([2.0]))
    optimizer = AdamW([parameter], lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = parameter.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 4.0
    assert parameter.item() == pytest.approx(1.9, abs=1e-4)


def test_a_scheduler_of_torch_can_drive_it():
    parameter = parameters()[0]
    optimizer = AdamW([parameter], lr=0.1)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5)
    assert optimizer.param_groups[0]["lr"] == 0.05


def test_it_can_be_copied():
    optimizer = AdamW(parameters(), form="textbook")
    assert copy.deepcopy(optimizer).param_groups[0]["form"] == "textbook"


def moved(weights, optimizers, steps):
    """Step several optimizers, each with parameters of its own, by the same gradients."""
    for step in steps:
        for own, optimizer in zip(weights, optimizers, strict=True):
            for p, gradient in zip(own, step, strict=True):
                p.grad = gradient.to(p.dtype, copy=True)
            optimizer.step()


TORCHS = [
    (torch.optim.AdamW, dict(lr=3e-3, betas=(0.8, 0.99), eps=1e-7, weight_decay=0.05)),
    (torch.optim.AdamW, dict(lr=torch.tensor(3e-3, dtype=torch.float64))),
    (torch.optim.AdamW, dict(fused=True)),
    (torch.optim.AdamW, dict(foreach=True)),
    (torch.optim.Adam, dict(lr=3e-3)),  # without decay the two are one
]


@pytest.mark.parametrize("ours", [AdamW, FusedAdamW])
@pytest.mark.parametrize(("theirs", "options"), TORCHS)
def test_a_state_of_torch_goes_on_as_torch_does(ours, theirs, options):
    """Options, means and step counts are taken over; torch's form is the textbook one."""
    first, second = parameters(), parameters()
    peer, optimizer = theirs(first, **options), ours(second, lr=99.0, eps=1.0)
    steps = list(gradients(40, scale=1e-5))
    moved([first], [peer], steps[:7])
    optimizer.load_state_dict(peer.state_dict())
    for p, q in zip(first, second, strict=True):
        q.data.copy_(p.data)
    moved([first, second], [peer, optimizer], steps[7:])
    for p, q in zip(first, second, strict=True):
        torch.testing.assert_close(q, p, rtol=1e-10, atol=1e-10)
    assert {type(state["step"]) for state in optimizer.state.values()} == {int}


def test_a_state_of_torch_before_its_first_step_gives_its_options():
    optimizer = AdamW(parameters())
    optimizer.load_state_dict(torch.optim.AdamW(parameters(), lr=0.5, eps=0.25).state_dict())
    (group,) = optimizer.param_groups
    assert (group["lr"], group["eps"], group["weight_decay"]) == (0.5, 0.25, 0.01)
    assert (group["form"], group["correct_bias"]) == ("textbook", True)


@pytest.mark.parametrize("ours", [AdamW, FusedAdamW])
@pytest.mark.parametrize(
    ("peer", "named"),
    [
        (partial(torch.optim.AdamW, amsgrad=True), "amsgrad"),
        (partial(torch.optim.AdamW, maximize=True), "maximize"),
        (partial(torch.optim.Adam, weight_decay=0.1), "decoupled_weight_decay=False"),
        (partial(torch.optim.SGD, momentum=0.9), "momentum"),
        (partial(torch.optim.NAdam), "momentum_decay"),
        (partial(torch.optim.RAdam), "betas"),
        (partial(torch.optim.Adamax), "betas"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.func.__name__,
)
def test_a_state_that_would_go_on_differently_is_refused_by_name(ours, peer, named):
    theirs, weights = parameters(), parameters()
    other, optimizer = peer(theirs), ours(weights, lr=0.5)
    moved([theirs, weights], [other, optimizer], gradients(2))
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(ValueError, match=named):
        optimizer.load_state_dict(other.state_dict())
    after = optimizer.state_dict()  # nothing was taken over
    assert after["param_groups"] == before["param_groups"]
    assert torch.equal(after["state"][0]["exp_avg"], before["state"][0]["exp_avg"])


def test_an_impossible_option_of_a_stored_state_is_refused():
    stored = AdamW(parameters()).state_dict()
    stored["param_groups"][0]["lr"] = -1.0
    with pytest.raises(ValueError, match=r"lr is -1\.0"):
        AdamW(parameters()).load_state_dict(stored)


def test_the_fused_step_refuses_a_stored_state_without_bias_correction():
    stored = AdamW(parameters(), correct_bias=False).state_dict()
    with pytest.raises(ValueError, match="correct_bias is False"):
        FusedAdamW(parameters()).load_state_dict(stored)


@pytest.mark.parametrize("optimizer_class", [AdamW, FusedAdamW])
def test_a_loaded_state_is_a_copy(optimizer_class):
    """Two optimizers that go on from one state do not write into each other's means."""
    first, second = parameters(), parameters()
    one, two = optimizer_class(first), optimizer_class(second)
    steps = list(gradients(9))
    moved([first], [one], steps[:4])
    two.load_state_dict(one.state_dict())
    for p, q in zip(first, second, strict=True):
        q.data.copy_(p.data)
    moved([first, second], [one, two], steps[4:])
    for p, q in zip(first, second, strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
@pytest.mark.parametrize("optimizer_class", [AdamW, FusedAdamW])
def test_a_copied_or_pickled_optimizer_goes_on_bit_for_bit(optimizer_class, copied):
    weights = parameters()
    optimizer = optimizer_class(weights, lr=3e-3, weight_decay=0.1, form="textbook")
    steps = list(gradients(9))
    moved([weights], [optimizer], steps[:4])
    twins, twin = copied((weights, optimizer))
    moved([weights, twins], [optimizer, twin], steps[4:])
    for p, q in zip(weights, twins, strict=True):
        assert torch.equal(p, q)


def embedding_step(optimizer_class):
    """A dense parameter, then an embedding whose gradient is sparse."""
    dense = torch.nn.Parameter(torch.ones(2))
    table = torch.nn.Embedding(7, 3, sparse=True)
    (dense.sum() * table(torch.tensor([1, 4])).sum()).backward()
    return dense, optimizer_class([{"params": [dense]}, {"params": table.parameters()}])


@pytest.mark.parametrize("optimizer_class", [AdamW, FusedAdamW])
def test_a_sparse_gradient_is_refused_before_anything_moves(optimizer_class):
    dense, optimizer = embedding_step(optimizer_class)
    with pytest.raises(ValueError, match=r"\(7, 3\) .*sparse.*nn\.Embedding\(sparse=False\)"):
        optimizer.step()
    assert torch.equal(dense, torch.ones(2))
    assert not optimizer.state


@pytest.mark.parametrize("optimizer_class", [AdamW, FusedAdamW])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.complex64])
def test_parameters_of_another_precision_are_refused_by_name(optimizer_class, dtype):
    with pytest.raises(ValueError, match=rf"\(2, 5\) is {dtype}"):
        optimizer_class([torch.nn.Parameter(torch.ones(2, 5, dtype=dtype))])


@pytest.mark.parametrize("optimizer_class", [AdamW, FusedAdamW])
def test_a_model_halved_after_the_optimizer_was_built_is_refused_at_the_step(optimizer_class):
    model = torch.nn.Linear(2, 2)
    optimizer = optimizer_class(model.parameters())
    model.half()
    model.weight.grad = torch.ones_like(model.weight)
    with pytest.raises(ValueError, match=r"\(2, 2\) is torch\.float16"):
        optimizer.step()


@pytest.mark.parametrize("optimizer_class", [AdamW, FusedAdamW])
def test_an_empty_group_and_an_empty_parameter_take_a_step(optimizer_class):
    empty, moving = torch.nn.Parameter(torch.zeros(0, 3)), torch.nn.Parameter(torch.ones(()))
    empty.grad, moving.grad = torch.zeros(0, 3), torch.ones(())
    optimizer = optimizer_class([{"params": []}, {"params": [empty, moving]}], lr=0.1, eps=1e-12)
    optimizer.step()
    assert moving.item() == pytest.approx(0.9)
    assert empty.shape == (0, 3)


@pytest.mark.parametrize("turned", ["parameter", "gradient", "both"])
def test_the_fused_step_equals_the_plain_one_whatever_the_strides(turned):
    """The kernel reads memory in order: a transposed gradient would move the wrong weights."""
    weights = []
    for optimizer_class in (AdamW, FusedAdamW):
        generator = torch.Generator().manual_seed(0)
        values, gradient = (torch.randn(3, 4, generator=generator) for _ in range(2))
        p = torch.nn.Parameter(values.t() if turned != "gradient" else values.t().contiguous())
        optimizer = optimizer_class([p], lr=0.1)
        for _ in range(3):
            p.grad = gradient.t() if turned != "parameter" else gradient.t().contiguous()
            optimizer.step()
        weights.append(p.detach())
    torch.testing.assert_close(*weights)


BAD_OPTIONS = [
    {"lr": -1.0},
    {"lr": math.nan},
    {"lr": math.inf},
    {"betas": (1.0, 0.999)},
    {"betas": (0.9, -0.1)},
    {"betas": (0.9,)},
    {"eps": -1e-8},
    {"weight_decay": -0.1},
    {"form": "fast"},
]


@pytest.mark.parametrize("option", BAD_OPTIONS, ids=str)
def test_an_impossible_option_is_refused_by_name(option):
    with pytest.raises(ValueError, match=next(iter(option))):
        AdamW(parameters(), **option)


def test_an_impossible_option_of_a_group_is_refused_too():
    with pytest.raises(ValueError, match="lr"):
        AdamW([{"params": parameters(), "lr": -1.0}])


@pytest.mark.parametrize(("warmup", "total"), [(10, 100), (0, 50), (1, 2)])
def test_linear_warmup_equals_transformers(warmup, total):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    peer = transformers.get_linear_schedule_with_warmup(optimizer, warmup, total)
    for step in range(total + 5):
        assert linear_warmup(step, warmup, total) == pytest.approx(peer.get_last_lr()[0])
        optimizer.step()
        peer.step()


@pytest.mark.parametrize("arguments", [(-1, 0, 10), (0, -1, 10), (0, 10, 10), (0, 0, 0)])
def test_an_impossible_schedule_is_refused(arguments):
    with pytest.raises(ValueError, match="warmup_steps"):
        linear_warmup(*arguments)
