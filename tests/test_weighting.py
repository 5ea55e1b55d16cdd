"""Gradient surgery: golden values, properties, and the Gram form against the literal algorithm."""

import math
from functools import partial

import pytest
import torch

from mtl_lib.methods.weightings import project_conflicting
from mtl_lib.study.conflicts import conflict_rate
from mtl_lib.study.weightings import fixed_order_weights
from mtl_lib.weighting import (
    cosines,
    float64,
    pcgrad_weights,
    sum_weights,
)

WEIGHTINGS = {"sum": sum_weights, "pcgrad": pcgrad_weights, "pcgrad-fixed": fixed_order_weights}


def rows(*values):
    return torch.tensor(values, dtype=torch.float64)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def from_gram(gradients, generator=None):
    return pcgrad_weights(gradients @ gradients.T, generator) @ gradients


# Each test of the algorithm holds for the literal form and for the one from the Gram matrix.
both_forms = pytest.mark.parametrize(
    "surgery", [project_conflicting, from_gram], ids=["literal", "gram"]
)


def random_gradients(kind, tasks, generator):
    """A case of `kind`, `[T, P]`; strong conflict comes from taking the mean gradient out."""
    size = int(torch.randint(2, 40, (), generator=generator))
    gradients = torch.randn(tasks, size, generator=generator, dtype=torch.float64)
    if kind == "conflicting":
        gradients -= 1.2 * gradients.mean(dim=0)
    elif kind == "zero":
        gradients[int(torch.randint(tasks, (), generator=generator))] = 0
    elif kind == "antiparallel":
        gradients[1] = -3 * gradients[0]
    elif kind == "scales":
        gradients *= torch.logspace(0, -4, tasks, dtype=torch.float64)[:, None]
    elif kind == "parallel":
        gradients[-1] = 1e-4 * gradients[0]
    return gradients


KINDS = ["random", "conflicting", "zero", "antiparallel", "scales", "parallel"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tasks", range(2, 9))
def test_weights_from_the_gram_matrix_equal_the_literal_algorithm(kind, tasks):
    generator = seeded(tasks)
    for seed in range(10):
        gradients = random_gradients(kind, tasks, generator)
        literal = project_conflicting(gradients, seeded(seed))
        difference = from_gram(gradients, seeded(seed)) - literal
        assert difference.norm() <= 1e-10 * gradients.norm()


@both_forms
def test_agreeing_gradients_are_summed_not_averaged(surgery):
    assert torch.equal(surgery(rows([1, 0], [0, 1])), rows(1, 1))


@both_forms
def test_two_conflicting_gradients_give_the_value_worked_out_by_hand(surgery):
    # (1, 0) - (-1 / 1.25) (-1, .5) = (.2, .4);  (-1, .5) - (-1) (1, 0) = (0, .5)
    torch.testing.assert_close(surgery(rows([1, 0], [-1, 0.5])), rows(0.2, 0.9))


@both_forms
def test_a_single_task_keeps_its_gradient(surgery):
    # Against itself nothing is projected, whatever the sign.
    assert torch.equal(surgery(rows([-2, 3])), rows(-2, 3))


@both_forms
def test_the_sum_of_two_projected_gradients_conflicts_with_neither(surgery):
    for seed in range(50):
        gradients = random_gradients("conflicting", 2, seeded(seed))
        assert (gradients @ surgery(gradients) >= -1e-12).all()


def algorithm_1(gradients, orders, test_the_original=False):
    """Algorithm 1 in numpy with given orders; or with its test on the unprojected g_i."""
    gradients, total = gradients.numpy(), 0
    for gradient, others in zip(gradients, orders, strict=True):
        projected = gradient
        for other in gradients[others]:
            if (gradient if test_the_original else projected) @ other < 0:
                projected = projected - projected @ other / (other @ other) * other
        total = total + projected
    return torch.from_numpy(total)


@both_forms
def test_conflict_is_judged_on_the_gradient_projected_so_far(surgery):
    differ = 0
    for seed in range(50):
        gradients = torch.randn(3, 3, generator=seeded(seed), dtype=torch.float64)
        gradients -= 1.2 * gradients.mean(dim=0)
        generator = seeded(seed)
        draws = [torch.randperm(2, generator=generator).tolist() for _ in range(3)]
        others = [[1, 2], [0, 2], [0, 1]]
        orders = [[rest[k] for k in draw] for rest, draw in zip(others, draws, strict=True)]
        result = surgery(gradients, seeded(seed))
        torch.testing.assert_close(result, algorithm_1(gradients, orders), rtol=1e-9, atol=1e-9)
        wrong = algorithm_1(gradients, orders, test_the_original=True)
        differ += bool((result - wrong).norm() > 0.01 * result.norm())
    assert differ > 10  # the cases tell the two apart


@both_forms
def test_equal_generators_give_equal_results_and_the_order_matters(surgery):
    gradients = random_gradients("conflicting", 3, seeded(4))
    results = [surgery(gradients, seeded(seed)) for seed in range(20)]
    assert torch.equal(results[3], surgery(gradients, seeded(3)))
    assert any((result - results[0]).norm() > 0.05 * results[0].norm() for result in results)


@both_forms
def test_without_a_generator_the_global_seed_decides(surgery):
    gradients = random_gradients("conflicting", 4, seeded(4))
    torch.manual_seed(7)
    first = surgery(gradients)
    torch.manual_seed(7)
    assert torch.equal(first, surgery(gradients))


@both_forms
@pytest.mark.parametrize("scale", [1, 1e-2, 1e-4, 1e-8])
def test_scaling_all_gradients_scales_the_result(surgery, scale):
    gradients = random_gradients("conflicting", 3, seeded(2))
    scaled = surgery(scale * gradients, seeded()) / scale
    torch.testing.assert_close(scaled, surgery(gradients, seeded()), rtol=1e-10, atol=1e-12)


@both_forms
def test_scaling_one_gradient_leaves_the_others_projections_alone(surgery):
    # What is taken out of g_0 is its component against g_1's direction, whatever g_1's length.
    def projected_g0(scale):
        gradients = rows([1, 0], [-1, 0.5]) * rows(1, scale)[:, None]
        own = gradients[1] - min(0.0, (gradients[1] @ gradients[0]).item()) * gradients[0]
        return surgery(gradients) - own

    torch.testing.assert_close(projected_g0(1e-4), projected_g0(1.0), rtol=1e-10, atol=1e-12)


@both_forms
def test_a_zero_gradient_changes_nothing_and_divides_nothing(surgery):
    gradients = rows([1, 0], [-1, 0.5], [0, 0])
    torch.testing.assert_close(surgery(gradients), rows(0.2, 0.9))
    assert torch.equal(surgery(torch.zeros(3, 4, dtype=torch.float64)), rows(0, 0, 0, 0))


@both_forms
def test_a_gradient_too_small_to_square_is_left_out_not_divided_by(surgery):
    assert torch.equal(surgery(rows([1, 0], [-1e-200, 0])), rows(1, 0))


@both_forms
def test_opposite_gradients_cancel(surgery):
    assert surgery(rows([1, 2], [-3, -6])).norm() < 1e-14


@both_forms
def test_surgery_does_not_promise_peace_among_three_tasks(surgery):
    # Guards the handbook's claims: of triples in space with every cosine below -0.3, the sum of
    # the projected gradients still conflicts with some task in more than 80 %.
    triples = torch.randn(20_000, 3, 3, generator=seeded(), dtype=torch.float64)
    directions = torch.nn.functional.normalize(triples, dim=2)
    pairs = (directions @ directions.mT)[:, [0, 0, 1], [1, 2, 2]]
    triples = triples[(pairs < -0.3).all(dim=1)][:100]
    conflicts = [bool((g @ surgery(g, seeded()) < -1e-12).any()) for g in triples]
    assert len(conflicts) == 100
    assert sum(conflicts) > 80


def test_the_inputs_stay_as_they_were():
    gradients = rows([1, 0], [-1, 0.5])
    gram = gradients @ gradients.T
    project_conflicting(gradients), pcgrad_weights(gram)
    assert torch.equal(gradients, rows([1, 0], [-1, 0.5]))
    assert torch.equal(gram, gradients @ gradients.T)


@pytest.mark.parametrize("weighting", WEIGHTINGS.values(), ids=WEIGHTINGS.keys())
def test_weightings_return_one_float64_weight_per_task(weighting):
    weights = weighting(torch.eye(3), seeded())
    assert weights.dtype == torch.float64
    assert torch.equal(weights, rows(1, 1, 1))  # no conflict: every weighting is the plain sum


def test_sum_weights_ignore_conflicts():
    assert torch.equal(sum_weights(rows([1, -1], [-1, 1])), rows(1, 1))


def test_cosines_are_the_normalised_inner_products_and_zero_for_a_zero_gradient():
    gradients = rows([3, 0], [-1, 1], [0, 0])
    half = math.sqrt(0.5)
    torch.testing.assert_close(
        cosines(gradients @ gradients.T), rows([1, -half, 0], [-half, 1, 0], [0, 0, 0])
    )


def test_conflict_rate_counts_each_unordered_pair_once_and_no_diagonal():
    assert conflict_rate(rows([1, -1, 2], [-1, 1, 0], [2, 0, 4])) == pytest.approx(1 / 3)


def test_conflict_rate_of_a_single_task_is_zero():
    assert conflict_rate(rows([1])) == 0.0


@pytest.mark.parametrize(
    "function",
    [partial(weighting, generator=None) for weighting in WEIGHTINGS.values()]
    + [cosines, conflict_rate],
)
@pytest.mark.parametrize("shape", [(3,), (2, 3)])
def test_a_matrix_that_is_not_square_is_refused(function, shape):
    with pytest.raises(ValueError, match="square"):
        function(torch.ones(shape))


def test_a_fixed_order_is_one_of_the_random_orders_and_draws_nothing():
    generator = seeded()
    gradients = random_gradients("conflicting", 3, generator)
    gram = gradients @ gradients.T
    drawn = {tuple(pcgrad_weights(gram, seeded(n)).tolist()) for n in range(200)}
    before = torch.random.get_rng_state()
    assert tuple(fixed_order_weights(gram).tolist()) in drawn
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("weighting", [pcgrad_weights, fixed_order_weights])
@pytest.mark.parametrize("fault", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [(0, 0), (2, 2), (0, 1), (1, 2)])
def test_an_inner_product_that_is_not_finite_leaves_no_weight_a_number(weighting, fault, place):
    for tasks in (1, 3):
        gram = torch.eye(tasks, dtype=torch.float64) + 0.5
        i, j = (min(k, tasks - 1) for k in place)
        gram[i, j] = gram[j, i] = fault
        assert weighting(gram, seeded()).isnan().all()


def test_inner_products_near_the_largest_number_have_weights():
    assert torch.equal(pcgrad_weights(1e308 * (torch.eye(3).double() + 0.5)), rows(1, 1, 1))


def test_cosines_and_conflicts_of_what_is_not_a_number_are_none():
    gram = rows([math.nan, 1, math.nan], [1, 1, -1], [math.nan, -1, 1])
    assert cosines(gram)[0].isnan().all()
    assert cosines(gram)[1, 2].item() == -1.0
    assert math.isnan(conflict_rate(gram))


class WithoutFloat64:
    """Stands for a tensor on a device that has no float64."""

    device = torch.device("mps")

    def double(self):
        raise TypeError("Cannot convert a MPS Tensor to float64")

    def cpu(self):
        return torch.tensor([0.5, 0.25])


def test_inner_products_are_summed_on_the_cpu_where_a_device_has_no_float64():
    assert torch.equal(float64(WithoutFloat64()), rows(0.5, 0.25))
    assert torch.equal(float64(torch.tensor([0.5, 0.25])), rows(0.5, 0.25))
