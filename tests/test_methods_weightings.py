"""The further weightings: against formulas written out, other solvers, and other libraries."""

import importlib
import importlib.util
import math
import sys
import types
from functools import cache, partial

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from mtl_lib.errors import ConfigError
from mtl_lib.methods.loss_weightings import FAMO, DynamicWeightAverage, UncertaintyWeighting
from mtl_lib.methods.weightings import (
    WEIGHTINGS,
    GradVac,
    aligned_weights,
    cagrad_weights,
    imtl_g_weights,
    mgda_weights,
    nash_weights,
    project_conflicting,
    random_weights,
    static_weights,
    upgrad_weights,
)
from mtl_lib.weighting import pcgrad_weights, sum_weights

FROM_GRADIENTS = ["mgda", "pcgrad", "gradvac", "cagrad", "imtl-g", "nash", "aligned", "upgrad"]
FROM_LOSSES = ["uncertainty", "dwa", "famo"]
SUM_TO_TASKS = ["sum", "random", "uncertainty", "dwa", "famo", "mgda"]

each_weighting = pytest.mark.parametrize("name", WEIGHTINGS)
each_of_gradients = pytest.mark.parametrize("name", FROM_GRADIENTS)
numbers_of_tasks = pytest.mark.parametrize("tasks", range(2, 6))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def rows(*values):
    return torch.tensor(values, dtype=torch.float64)


def drawn(tasks, seed, conflict=True, size=20):
    """Gradients `[T, size]` of unlike lengths; most pairs of them conflict."""
    generator = seeded(1000 * tasks + seed)
    gradients = torch.randn(tasks, size, generator=generator, dtype=torch.float64)
    if conflict:
        gradients -= 0.8 * gradients.mean(dim=0)
    return gradients * torch.rand(tasks, 1, generator=generator, dtype=torch.float64).add(0.3)


def of_gram(gradients):
    return gradients @ gradients.T


def used(name, gradients, losses=None, seed=0):
    """Weights of a fresh weighting after two steps."""
    weighting = WEIGHTINGS[name](len(gradients))
    for step in range(2):
        if hasattr(weighting, "see"):
            weighting.see(torch.ones(len(gradients)) if losses is None else losses)
        weights = weighting(of_gram(gradients), seeded(seed + step))
    return weights


# What every weighting keeps to


@each_weighting
@numbers_of_tasks
def test_there_is_one_float64_weight_for_each_task(name, tasks):
    weights = used(name, drawn(tasks, 0))
    assert weights.shape == (tasks,)
    assert weights.dtype == torch.float64
    assert weights.isfinite().all()


@pytest.mark.parametrize("name", SUM_TO_TASKS)
@numbers_of_tasks
def test_weights_without_a_scale_of_their_own_sum_to_the_number_of_tasks(name, tasks):
    assert used(name, drawn(tasks, 1), rows(*range(1, tasks + 1))).sum() == pytest.approx(tasks)


@pytest.mark.parametrize("name", FROM_GRADIENTS + ["sum", "uncertainty", "dwa"])
@numbers_of_tasks
def test_orthogonal_gradients_of_length_one_are_summed(name, tasks):
    factor = 1.4 if name == "cagrad" else 1.0  # CAGrad goes on by c in the mean's direction
    weights = used(name, torch.eye(tasks, dtype=torch.float64))
    torch.testing.assert_close(weights, torch.full_like(weights, factor), rtol=1e-6, atol=0)


@each_of_gradients
@pytest.mark.parametrize("scale", [1e-8, 1e-3, 1e5])
def test_scaling_all_gradients_scales_the_combined_one_but_for_nashs_fixed_norm(name, scale):
    for tasks in range(2, 6):
        gradients = drawn(tasks, 2)
        one, scaled = used(name, gradients), used(name, scale * gradients)
        expected = one / scale if name == "nash" else one
        torch.testing.assert_close(scaled, expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", ["mgda", "cagrad", "imtl-g", "nash", "aligned", "upgrad"])
@numbers_of_tasks
def test_the_order_of_the_tasks_does_not_matter(name, tasks):
    for seed in range(5):
        gradients = drawn(tasks, seed)
        order = torch.randperm(tasks, generator=seeded(seed))
        torch.testing.assert_close(
            used(name, gradients[order]), used(name, gradients)[order], rtol=1e-6, atol=1e-8
        )


@pytest.mark.parametrize("name", ["mgda", "nash", "upgrad"])
@numbers_of_tasks
def test_the_combined_gradient_conflicts_with_no_task_where_that_is_promised(name, tasks):
    conflicts = 0
    for seed in range(30):
        gradients = drawn(tasks, seed)
        conflicts += int((gradients @ gradients.sum(dim=0) < 0).any())
        combined = used(name, gradients) @ gradients
        assert (gradients @ combined >= -1e-7 * gradients.norm(dim=1) * combined.norm()).all()
    assert conflicts or tasks > 2  # the plain sum does


@pytest.mark.parametrize(
    "name", sorted(WEIGHTINGS.keys() - {"sum"})
)  # which reads no inner product
def test_an_inner_product_that_is_not_finite_leaves_no_weight_a_number(name):
    for fault in (math.nan, math.inf, -math.inf):
        for i, j in ((0, 0), (1, 2)):
            gram = torch.eye(3, dtype=torch.float64)
            gram[i, j] = gram[j, i] = fault
            weighting = WEIGHTINGS[name](3)
            assert weighting(gram, seeded()).isnan().all()
            assert weighting(torch.eye(3), seeded()).isfinite().all()  # and no memory of it


@each_weighting
def test_a_matrix_that_is_not_square_is_refused(name):
    with pytest.raises(ValueError, match="square"):
        WEIGHTINGS[name](3)(torch.ones(2, 3), None)


@each_weighting
def test_a_single_task_keeps_its_direction(name):
    assert used(name, rows([3, 4])) > 0


def degenerate(kind, tasks):
    gradients = drawn(tasks, 3)
    match kind:
        case "all zero":
            return 0 * gradients
        case "one zero":
            gradients[0] = 0
        case "identical":
            gradients[:] = gradients[0].clone()
        case "two opposed":
            gradients[1] = -2 * gradients[0]
        case "all opposed":
            gradients[:] = gradients[0] * (-1.0) ** torch.arange(tasks)[:, None]
        case "in a plane":
            gradients = drawn(tasks, 3, size=2)
        case "balanced":  # zero lies within their hull
            gradients -= gradients.mean(dim=0)
        case "lengths":
            gradients *= torch.logspace(0, -6, tasks, dtype=torch.float64)[:, None]
        case "far apart":
            gradients *= torch.logspace(100, -100, tasks, dtype=torch.float64)[:, None]
        case "tiny":
            gradients *= 1e-150
        case "huge":
            gradients *= 1e150
    return gradients


DEGENERATE = [
    "all zero",
    "one zero",
    "identical",
    "two opposed",
    "all opposed",
    "in a plane",
    "balanced",
    "lengths",
    "far apart",
    "tiny",
    "huge",
]


@each_of_gradients
@pytest.mark.parametrize("kind", DEGENERATE)
def test_degenerate_gradients_combine_to_one_no_longer_than_all_together(name, kind):
    for tasks in (2, 3, 5, 8):
        gradients = degenerate(kind, tasks)
        weights = used(name, gradients)
        assert weights.isfinite().all()
        combined, together = weights @ gradients, gradients.norm(dim=1).sum()
        if name == "nash":
            assert combined.norm() <= math.sqrt(tasks) + 1e-5
        elif name == "cagrad":
            assert combined.norm() <= 1.4 * together * (1 + 1e-9)
        elif name == "imtl-g":  # sizes sum to T
            assert combined.norm() <= tasks * together * (1 + 1e-9)
        else:
            assert combined.norm() <= together * (1 + 1e-9)


@pytest.mark.parametrize("name", ["mgda", "cagrad", "imtl-g", "nash", "upgrad"])
@pytest.mark.parametrize("tasks", [2, 4, 8])
def test_opposed_gradients_of_equal_length_cancel(name, tasks):
    gradients = degenerate("all opposed", tasks)
    combined = used(name, gradients) @ gradients
    bound = 1e-3 if name == "nash" else 1e-6  # whose weights grow without bound
    assert combined.norm() <= bound * gradients[0].norm()


@pytest.mark.parametrize("name", ["mgda", "nash", "upgrad"])
@pytest.mark.parametrize("kind", ["identical", "in a plane", "two opposed", "lengths", "one zero"])
def test_degenerate_gradients_keep_the_promise_of_no_conflict(name, kind):
    for tasks in (2, 3, 5, 8):
        gradients = degenerate(kind, tasks)
        weighting = (
            partial(cagrad_weights, c=0.999) if name == "cagrad" else WEIGHTINGS[name](tasks)
        )
        combined = weighting(of_gram(gradients), None) @ gradients
        slack = 1e-4 * gradients.norm(dim=1) * gradients.norm(dim=1).max()
        assert (gradients @ combined >= -slack).all()


# Each against its formula or another solver


def simplex(tasks, steps):
    """All points of the simplex whose coordinates are multiples of 1 / steps."""
    grid = np.indices((steps + 1,) * (tasks - 1)).reshape(tasks - 1, -1)
    last = steps - grid.sum(axis=0)
    return torch.from_numpy(np.vstack([grid, last])[:, last >= 0].T / steps)


@numbers_of_tasks
def test_mgda_is_the_shortest_point_of_the_hull(tasks):
    for seed in range(20):
        gradients = drawn(tasks, seed, conflict=seed % 2)
        weights = mgda_weights(of_gram(gradients)) / tasks
        assert (weights >= 0).all()
        point = weights @ gradients
        # The condition of optimality of a projection on a convex set.
        assert (gradients @ point >= point @ point - 1e-9).all()


def test_mgda_is_no_longer_than_any_point_of_a_fine_grid():
    points = simplex(3, 200)
    for seed in range(10):
        gradients = drawn(3, seed)
        norms = (points @ gradients).norm(dim=1)
        found = (mgda_weights(of_gram(gradients)) / 3 @ gradients).norm()
        assert norms.min() * 0.999 - 0.01 <= found <= norms.min() + 1e-12


@pytest.mark.parametrize(("cosine", "length"), [(0.3, 0.7), (-0.9, 0.2), (0.9, 0.1), (0.0, 1e-6)])
def test_mgda_of_two_tasks_is_the_clipped_closed_form(cosine, length):
    # Sener and Koltun (2018), section 3.2
    first, second = rows(1, 0), length * rows(cosine, math.sqrt(1 - cosine**2))
    share = (second - first) @ second / ((second - first) @ (second - first))
    share = share.clamp(0, 1)
    gram = of_gram(torch.stack([first, second]))
    torch.testing.assert_close(mgda_weights(gram), 2 * torch.stack([share, 1 - share]))


def test_mgda_gives_all_weight_to_a_task_without_a_gradient():
    assert torch.equal(mgda_weights(of_gram(rows([1, 2], [0, 0], [3, 1]))), rows(0, 3, 0))


@numbers_of_tasks
def test_upgrad_is_the_sum_of_the_projections_that_another_solver_finds(tasks):
    for seed in range(4):
        gradients = drawn(tasks, seed, size=6)
        expected = sum(projection_on_dual_cone(own, gradients) for own in gradients.numpy())
        combined = upgrad_weights(of_gram(gradients)) @ gradients
        torch.testing.assert_close(combined, torch.from_numpy(expected), rtol=1e-5, atol=1e-6)


def projection_on_dual_cone(own, gradients):
    """The x nearest to `own` with <x, g_j> >= 0 for all j, by sequential quadratic programs."""
    gradients = gradients.numpy()
    return minimize(
        lambda x: 0.5 * (x - own) @ (x - own),
        own,
        jac=lambda x: x - own,
        method="SLSQP",
        constraints={
            "type": "ineq",
            "fun": lambda x: gradients @ x,
            "jac": lambda x: gradients,
        },
        options={"ftol": 1e-14},
    ).x


def test_upgrad_of_two_tasks_is_gradient_surgery():
    for seed in range(20):
        gram = of_gram(drawn(2, seed))
        torch.testing.assert_close(upgrad_weights(gram), pcgrad_weights(gram))


@numbers_of_tasks
@pytest.mark.parametrize("c", [0.1, 0.4, 0.9])
def test_cagrad_is_as_good_as_its_dual_allows(tasks, c):
    # Equal values of a point of the problem and one of its dual prove that both are best.
    for seed in range(10):
        gradients = drawn(tasks, seed, conflict=seed % 2)
        mean = gradients.mean(dim=0)
        radius = c * mean.norm()
        weights = cagrad_weights(of_gram(gradients), c=c) / tasks
        best = weights @ gradients
        assert (best - mean).norm() <= radius * (1 + 1e-9)
        shares = weights - 1 / tasks
        shares = shares / shares.sum()
        assert (shares >= 0).all()
        of_shares = shares @ gradients
        bound = of_shares @ mean + radius * of_shares.norm()
        assert (gradients @ best).min() == pytest.approx(bound.item(), rel=1e-8)


def test_cagrad_reaches_the_least_dual_value_of_a_fine_grid():
    points = simplex(3, 200)
    for seed in range(10):
        gradients = drawn(3, seed)
        mean = gradients.mean(dim=0)
        on_grid = points @ gradients
        bounds = on_grid @ mean + 0.4 * mean.norm() * on_grid.norm(dim=1)
        best = cagrad_weights(of_gram(gradients)) / 3 @ gradients
        assert (gradients @ best).min() == pytest.approx(bounds.min().item(), abs=1e-3)


def test_cagrad_without_radius_is_the_plain_sum():
    assert torch.equal(cagrad_weights(of_gram(drawn(3, 0)), c=0.0), torch.ones(3).double())


def test_cagrad_takes_the_conflict_free_point_nearest_to_the_mean_where_many_are_best():
    gradients = rows([2, 0, 0], [-1, 0, 0], [0, 1, 0])  # zero lies between the first two
    torch.testing.assert_close(
        cagrad_weights(of_gram(gradients), c=0.9) @ gradients, rows(0, 1, 0), rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("c", [-0.1, 1.0, math.nan])
def test_cagrad_names_a_radius_that_is_out_of_range(c):
    with pytest.raises(ConfigError, match=f"c = {c}"):
        cagrad_weights(torch.eye(3), c=c)


@numbers_of_tasks
def test_imtl_g_projects_equally_on_all_directions_as_the_papers_closed_form_does(tasks):
    for seed in range(10):
        gradients = drawn(tasks, seed)
        weights = imtl_g_weights(of_gram(gradients))
        assert weights.abs().sum() == pytest.approx(tasks)
        directions = gradients / gradients.norm(dim=1, keepdim=True)
        projections = directions @ (weights @ gradients)
        assert (projections > 0).all()
        torch.testing.assert_close(projections, projections[0].expand(tasks), rtol=1e-5, atol=1e-7)
        # Liu et al. (2021), IMTL-G: (a_2, ..., a_T) = g_1 U' (D U')^-1, a_1 = 1 - the others
        unlike, unlike_directions = gradients[0] - gradients[1:], directions[0] - directions[1:]
        others = gradients[0] @ unlike_directions.T @ (unlike @ unlike_directions.T).inverse()
        expected = torch.cat([1 - others.sum()[None], others])
        torch.testing.assert_close(weights / weights.sum(), expected, rtol=1e-5, atol=1e-6)


def test_imtl_g_of_two_tasks_weighs_by_the_inverse_lengths():
    weights = imtl_g_weights(of_gram(rows([3, 4], [-2, 0])))
    torch.testing.assert_close(weights, rows(4 / 7, 10 / 7))


def test_imtl_g_leaves_a_task_without_a_gradient_out():
    torch.testing.assert_close(imtl_g_weights(of_gram(rows([1, 0], [0, 0], [0, 2]))), rows(2, 0, 1))


@numbers_of_tasks
def test_aligned_gradients_have_equal_singular_values_the_least_of_the_originals(tasks):
    for seed in range(10):
        gradients = drawn(tasks, seed)
        left, values, right = torch.linalg.svd(gradients, full_matrices=False)
        aligned = values.min() * left @ right
        torch.testing.assert_close(
            aligned_weights(of_gram(gradients)) @ gradients, aligned.sum(dim=0)
        )


def test_alignment_clips_to_the_least_singular_value_that_is_not_zero():
    first, second = rows(1, 0, 0), rows(0, 2, 0)
    gradients = torch.stack([first, first, second])  # singular values sqrt(2), 2, 0
    torch.testing.assert_close(
        aligned_weights(of_gram(gradients)) @ gradients, 2 * first + math.sqrt(2) * rows(0, 1, 0)
    )


@numbers_of_tasks
def test_nash_solves_the_bargaining_equation(tasks):
    for seed in range(10):
        gradients = drawn(tasks, seed)
        weights = nash_weights(of_gram(gradients))
        assert (weights > 0).all()
        torch.testing.assert_close(of_gram(gradients) @ weights, 1 / weights, rtol=1e-5, atol=1e-6)
        assert (weights @ gradients).norm() == pytest.approx(math.sqrt(tasks), rel=1e-6)


@pytest.mark.parametrize("cosine", [0.9, 0.0, -0.5, -0.999])
def test_nash_of_two_tasks_is_the_closed_form(cosine):
    gradients = rows([2, 0], [cosine / 3, math.sqrt(1 - cosine**2) / 3])
    expected = rows(0.5, 3) / math.sqrt(1 + cosine)
    torch.testing.assert_close(nash_weights(of_gram(gradients)), expected, rtol=1e-4, atol=0)


@numbers_of_tasks
def test_nash_maximises_the_product_of_the_gains_over_the_ball(tasks):
    # Navon et al. (2022), section 3: of all d of length 1 the one with the largest sum of
    # log <g_i, d>
    for seed in range(3):
        gradients = drawn(tasks, seed, size=6)
        best = nash_weights(of_gram(gradients)) @ gradients
        best = best / best.norm()
        value = (gradients @ best).log().sum()
        near = best + 0.03 * torch.randn(1000, 6, generator=seeded(seed), dtype=torch.float64)
        gains = near / near.norm(dim=1, keepdim=True) @ gradients.T
        gains = gains[(gains > 0).all(dim=1)]
        assert len(gains) > 20
        assert (gains.log().sum(dim=1) <= value + 1e-9).all()


def test_random_weights_are_the_softmax_of_the_generators_normals():
    normals = torch.randn(4, generator=seeded(5), dtype=torch.float64)
    expected = 4 * normals.exp() / normals.exp().sum()
    torch.testing.assert_close(random_weights(torch.eye(4), seeded(5)), expected)


def test_static_weights_keep_their_ratio_whatever_the_gradients():
    weighting = static_weights((1.0, 2.0, 1.0))
    for seed in range(3):
        torch.testing.assert_close(weighting(of_gram(drawn(3, seed)), None), rows(0.75, 1.5, 0.75))


@pytest.mark.parametrize("values", [(1.0, -1.0), (0.0, 0.0), (math.nan, 1.0), (math.inf, 1.0), ()])
def test_static_weights_that_weigh_nothing_are_refused(values):
    with pytest.raises(ConfigError, match="static weights"):
        static_weights(values)


# What has a memory, against loops written out


def literal_gradvac(steps, decay, seed):
    """Algorithm 1 of Wang et al. (2021) on whole gradients; the combined gradient of each step."""
    tasks = len(steps[0])
    targets, combined = np.zeros((tasks, tasks)), []
    for number, gradients in enumerate(steps):
        generator = seeded(seed + number)
        gradients, total = gradients.numpy(), 0
        orders = [torch.randperm(tasks - 1, generator=generator).tolist() for _ in range(tasks)]
        for i, order in enumerate(orders):
            changed = gradients[i]
            for j in np.delete(np.arange(tasks), i)[order]:
                other, target = gradients[j], targets[i, j]
                lengths = np.linalg.norm(changed), np.linalg.norm(other)
                phi = changed @ other / lengths[0] / lengths[1]
                if phi < target:
                    rise = target * np.sqrt(1 - phi**2) - phi * np.sqrt(1 - target**2)
                    changed = changed + other * (
                        lengths[0] * rise / (lengths[1] * np.sqrt(1 - target**2))
                    )
                targets[i, j] = (1 - decay) * target + decay * phi
            total = total + changed
        combined.append(torch.from_numpy(total))
    return combined, torch.from_numpy(targets)


@numbers_of_tasks
def test_gradvac_follows_the_literal_algorithm_step_by_step(tasks):
    steps = [drawn(tasks, seed, conflict=seed % 2) for seed in range(12)]
    steps = [gradients + 0.3 for gradients in steps]  # cosines above and below zero
    weighting = GradVac(tasks, decay=0.3)
    expected, targets = literal_gradvac(steps, 0.3, seed=7)
    for number, (gradients, combined) in enumerate(zip(steps, expected, strict=True)):
        weights = weighting(of_gram(gradients), seeded(7 + number))
        torch.testing.assert_close(weights @ gradients, combined, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(weighting.targets, targets)
    assert (targets.abs() > 0.01).any()


def test_gradvac_with_targets_of_zero_is_gradient_surgery():
    weighting = GradVac(4, decay=0.0)
    for seed in range(10):
        gradients = drawn(4, seed)
        torch.testing.assert_close(
            weighting(of_gram(gradients), seeded(seed)) @ gradients,
            project_conflicting(gradients, seeded(seed)),
        )


def test_gradvac_brings_a_pair_to_its_target():
    weighting = GradVac(2)
    weighting.load_state_dict({"targets": rows([0, 0.5], [-1, 0])})  # the second asks for nothing
    gradients = rows([1, 0], [-0.6, 0.8])
    changed = weighting(of_gram(gradients)) @ gradients - gradients[1]
    assert changed @ gradients[1] / changed.norm() == pytest.approx(0.5)


def test_gradvac_stays_finite_after_its_targets_have_reached_one():
    weighting = GradVac(2, decay=1.0)
    weighting(of_gram(rows([1, 2], [1, 2])))
    assert weighting(of_gram(rows([1, 0], [0, 1]))).isfinite().all()


def adam(slopes, rate, decay=0.0):
    """Kingma and Ba (2015), Algorithm 1, with weight decay in the slope: a point per step.

    `slopes` are functions of the point.
    """
    point, first, second = 0.0, 0.0, 0.0
    for number, slope in enumerate(slopes, start=1):
        gradient = slope(point) + decay * point
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        point = point - rate * (first / (1 - 0.9**number)) / (
            np.sqrt(second / (1 - 0.999**number)) + 1e-8
        )
        yield point


def loss_curve(tasks=3, steps=40, seed=0):
    """Losses `[steps, T]` that fall at unlike rates, with noise."""
    falls = torch.logspace(-1, -3, tasks, dtype=torch.float64)
    curve = (-falls * torch.arange(steps, dtype=torch.float64)[:, None]).exp()
    return curve * (1 + 0.2 * torch.rand(steps, tasks, generator=seeded(seed), dtype=torch.float64))


def weights_along(weighting, curve):
    weights = []
    for losses in curve:
        weighting.see(losses)
        weights.append(weighting(torch.eye(len(losses)), None))
    return torch.stack(weights)


def test_uncertainty_weights_follow_the_loss_of_kendall_et_al():
    curve = loss_curve().numpy()

    def slope(losses):
        def of(point):
            s = torch.as_tensor(point + np.zeros(3)).requires_grad_()
            sigma = (s / 2).exp()
            (torch.from_numpy(losses) / (2 * sigma**2) + sigma.log()).sum().backward()
            return s.grad.numpy()

        return of

    points = np.array([np.zeros(3), *adam(map(slope, curve), rate=0.05)])[:-1]
    expected = 3 * np.exp(-points) / np.exp(-points).sum(axis=1, keepdims=True)
    weights = weights_along(UncertaintyWeighting(3, rate=0.05), torch.from_numpy(curve))
    torch.testing.assert_close(weights, torch.from_numpy(expected))


def test_uncertainty_weights_settle_at_the_inverse_losses():
    weighting = UncertaintyWeighting(3)
    weights = weights_along(weighting, rows([0.5, 1, 2]).expand(1000, 3))[-1]
    torch.testing.assert_close(weights, 3 * rows(2, 1, 0.5) / 3.5, rtol=1e-3, atol=0)


def test_famo_follows_its_algorithm_step_by_step():
    curve = loss_curve().numpy()

    def shares(point):
        exponentials = np.exp(point + np.zeros(3))
        return exponentials / exponentials.sum()

    def slope(before, after):
        def of(point):
            z = shares(point)
            jacobian = np.diag(z) - np.outer(z, z)
            return jacobian.T @ (np.log(before) - np.log(after))

        return of

    slopes = [slope(*pair) for pair in zip(curve[:-1], curve[1:], strict=True)]
    points = [np.zeros(3), *adam(slopes, rate=0.025, decay=0.01)]
    expected = [shares(point) / losses for point, losses in zip(points, curve, strict=True)]
    expected = np.array([3 * weights / weights.sum() for weights in expected])
    weights = weights_along(FAMO(3), torch.from_numpy(curve))
    torch.testing.assert_close(weights, torch.from_numpy(expected))


def test_famo_gives_more_weight_to_the_task_that_falls_behind():
    weighting = FAMO(2)
    curve = torch.stack([rows(1, 1) * rows(0.95, 1.0) ** step for step in range(100)])
    weights = weights_along(weighting, curve)
    shares = weights * curve  # the part that is not the loss's size
    assert shares[-1, 1] > 1.5 * shares[-1, 0]


def test_dynamic_weights_follow_the_mean_losses_of_the_last_two_periods():
    curve = loss_curve(steps=35)
    weights = weights_along(DynamicWeightAverage(3, period=10, temperature=2.0), curve)
    means = curve[:30].view(3, 10, 3).mean(dim=1)
    expected = [torch.ones(3).double()] * 20
    for before, last, steps in ((means[0], means[1], 10), (means[1], means[2], 5)):
        exponentials = (last / before / 2).exp()
        expected += [3 * exponentials / exponentials.sum()] * steps
    torch.testing.assert_close(weights, torch.stack(expected))


@pytest.mark.parametrize("period", [0, -1, 2.5, True])
def test_a_period_that_is_no_count_of_steps_is_refused(period):
    with pytest.raises(ConfigError, match=f"period = {period}"):
        DynamicWeightAverage(3, period=period)


SMALL = {
    "uncertainty": UncertaintyWeighting,
    "dwa": partial(DynamicWeightAverage, period=4),
    "famo": FAMO,
}


@pytest.mark.parametrize("name", FROM_LOSSES)
@pytest.mark.parametrize("stop", [1, 7, 20])
def test_a_weighting_by_losses_goes_on_from_its_state_as_if_never_stopped(name, stop, tmp_path):
    curve = loss_curve()
    whole = weights_along(SMALL[name](3), curve)
    stopped, resumed = SMALL[name](3), SMALL[name](3)
    weights_along(stopped, curve[:stop])
    torch.save(stopped.state_dict(), tmp_path / "state.pt")
    weights_along(stopped, curve[:5])  # what it does later does not reach the state
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert torch.equal(weights_along(resumed, curve[stop:]), whole[stop:])


@pytest.mark.parametrize("name", FROM_LOSSES)
def test_a_state_does_not_change_with_the_weighting_that_gave_it(name):
    curve = loss_curve()
    weighting = SMALL[name](3)
    weights_along(weighting, curve[:15])
    state = weighting.state_dict()
    following = weights_along(weighting, curve[15:])
    resumed = SMALL[name](3)
    resumed.load_state_dict(state)
    assert torch.equal(weights_along(resumed, curve[15:]), following)


def test_gradvac_goes_on_from_its_state_as_if_never_stopped():
    steps = [drawn(3, seed) for seed in range(10)]
    whole = GradVac(3)
    for seed, gradients in enumerate(steps[:5]):
        whole(of_gram(gradients), seeded(seed))
    resumed = GradVac(3)
    resumed.load_state_dict(whole.state_dict())
    for seed, gradients in enumerate(steps[5:]):
        gram = of_gram(gradients)
        assert torch.equal(resumed(gram, seeded(seed)), whole(gram, seeded(seed)))


@pytest.mark.parametrize("name", FROM_LOSSES)
def test_losses_that_are_not_finite_leave_no_weight_a_number_and_are_not_remembered(name):
    curve = loss_curve()
    clean, hit = SMALL[name](3), SMALL[name](3)
    weights_along(clean, curve[:15]), weights_along(hit, curve[:15])
    for fault in (math.nan, math.inf):
        hit.see(rows(1, fault, 1))
        assert hit(torch.eye(3), None).isnan().all()
    assert torch.equal(weights_along(hit, curve[15:]), weights_along(clean, curve[15:]))


@pytest.mark.parametrize("name", FROM_LOSSES)
def test_losses_of_zero_have_finite_weights(name):
    assert weights_along(SMALL[name](3), torch.zeros(20, 3)).isfinite().all()


@pytest.mark.parametrize("name", FROM_LOSSES)
def test_losses_of_another_number_of_tasks_are_refused(name):
    with pytest.raises(ConfigError, match="for 3 tasks"):
        SMALL[name](3).see(torch.ones(2))


@each_weighting
def test_each_call_of_the_table_gives_one_without_a_past(name):
    first = used(name, drawn(3, 0), rows(1, 2, 3))
    assert torch.equal(used(name, drawn(3, 0), rows(1, 2, 3)), first)


def test_the_table_has_the_plain_sum_and_gradient_surgery_of_the_library():
    assert WEIGHTINGS["sum"](3) is sum_weights
    assert WEIGHTINGS["pcgrad"](3) is pcgrad_weights


# Other libraries; each is skipped where it, or what it needs for a method, is not installed


def torchjd(name, *needs, **options):
    """TorchJD's aggregator of that name: gradients `[T, P]` to the combined one."""
    for package in ("torchjd", *needs):
        pytest.importorskip(package)
    return getattr(importlib.import_module("torchjd.aggregation"), name)(**options)


@pytest.mark.parametrize("tasks", [2, 3, 5])
class TestTorchJD:
    def compare(self, aggregator, weighting, factor=1.0, tolerance=1e-6):
        """Combined gradients of ours by `factor` times theirs, relative to the sum's length."""
        for seed in range(10):
            gradients = drawn(self.tasks, seed, conflict=seed % 2)
            torch.manual_seed(seed)
            theirs = factor * aggregator(gradients)
            torch.manual_seed(seed)
            ours = weighting(of_gram(gradients), None) @ gradients
            assert (ours - theirs).norm() <= tolerance * gradients.norm()

    @pytest.fixture(autouse=True)
    def _tasks(self, tasks):
        self.tasks = tasks

    def test_mgda(self):
        # Their Frank-Wolfe steps near the point slowly.
        mgda = torchjd("MGDA", epsilon=1e-9, max_iters=300)
        self.compare(mgda, mgda_weights, self.tasks, 3e-2)

    def test_upgrad(self):
        upgrad = torchjd("UPGrad", "qpsolvers", "quadprog")
        upgrad.projector.reg_eps = 1e-12  # by default the Gram matrix is changed by 1e-4
        self.compare(upgrad, upgrad_weights, self.tasks, 1e-5)

    def test_cagrad(self):
        cagrad = torchjd("CAGrad", "cvxpy", "clarabel", c=0.4)
        self.compare(cagrad, cagrad_weights, self.tasks, 1e-4)

    def test_imtl_g(self):
        imtl = torchjd("IMTLG")
        for seed in range(10):
            gradients = drawn(self.tasks, seed)
            weights = imtl_g_weights(of_gram(gradients))
            torch.testing.assert_close(
                weights @ gradients / weights.sum(), imtl(gradients), rtol=1e-5, atol=1e-6
            )

    def test_nash(self):
        for seed in range(3):
            gradients = drawn(self.tasks, seed)
            nash = torchjd("NashMTL", "cvxpy", "ecos", n_tasks=self.tasks, optim_niter=100)
            theirs = nash(gradients)
            ours = nash_weights(of_gram(gradients)) @ gradients
            assert torch.cosine_similarity(ours, theirs, dim=0) > 1 - 1e-5

    def test_aligned(self):
        self.compare(torchjd("AlignedMTL"), aligned_weights, self.tasks)

    def test_pcgrad(self):
        if self.tasks > 2:
            pytest.skip("draws its orders in another way")
        self.compare(torchjd("PCGrad"), pcgrad_weights)

    def test_gradvac(self):
        self.compare(torchjd("GradVac", beta=0.1), GradVac(self.tasks, decay=0.1))

    def test_random(self):
        self.compare(torchjd("Random"), random_weights, self.tasks)


@cache
def libmtl_package():
    """Lets parts of LibMTL be imported without its `__init__`, which wants an old torchvision."""
    found = importlib.util.find_spec("LibMTL")
    if found is None:
        pytest.skip("could not import 'LibMTL'")
    sys.modules["LibMTL"] = package = types.ModuleType("LibMTL")
    package.__path__ = found.submodule_search_locations


def libmtl(name, tasks, gradients=None):
    """LibMTL's weighting of that name, given the gradients it would collect from a network."""
    libmtl_package()
    weighting = getattr(importlib.import_module(f"LibMTL.weighting.{name}"), name)()
    weighting.task_num, weighting.device, weighting.rep_grad = tasks, torch.device("cpu"), False
    weighting.init_param()
    weighting._compute_grad_dim = lambda: None
    weighting._compute_grad = lambda losses, mode: gradients
    weighting._reset_grad = lambda combined: setattr(weighting, "combined", combined)
    return weighting


class TestLibMTL:
    def compare(self, name, weighting, factor=1.0, tolerance=1e-5, tasks=3, **options):
        for seed in range(10):
            gradients = drawn(tasks, seed, conflict=seed % 2).float()
            theirs = libmtl(name, tasks, gradients)
            theirs.backward(torch.ones(tasks), **options)
            ours = weighting(of_gram(gradients.double()), None).float() @ gradients
            assert (ours - factor * theirs.combined).norm() <= tolerance * gradients.norm()

    def test_mgda(self):
        self.compare("MGDA", mgda_weights, factor=3, tolerance=1e-2, mgda_gn="none")

    def test_cagrad(self):
        self.compare("CAGrad", cagrad_weights, 3, 1e-3, calpha=0.4, rescale=0)

    def test_imtl_g(self):
        def at_its_scale(gram, generator):
            weights = imtl_g_weights(gram)
            return weights / weights.sum()

        self.compare("IMTL", at_its_scale)

    def test_pcgrad_of_two_tasks(self):
        self.compare("PCGrad", pcgrad_weights, tasks=2)

    def test_first_step_of_gradvac_of_two_tasks(self):
        # Later its targets move only where they were missed, unlike in the paper's Algorithm 1.
        self.compare("GradVac", lambda gram, _: GradVac(2)(gram), tasks=2, beta=0.5)

    def test_dynamic_weight_average(self):
        means = loss_curve(steps=5)
        theirs = libmtl("DWA", 3)
        theirs.train_loss_buffer, theirs.epoch = means.numpy().T, 4
        expected = theirs.backward(torch.ones(3, requires_grad=True), T=2.0)
        ours = weights_along(DynamicWeightAverage(3, period=1), means)[-1]
        torch.testing.assert_close(ours.float(), torch.from_numpy(expected))

    def test_uncertainty(self):
        theirs, ours = libmtl("UW", 3), UncertaintyWeighting(3, rate=0.05)
        theirs.loss_scale.data.zero_()
        optimizer = torch.optim.Adam([theirs.loss_scale], lr=0.05)
        for losses in loss_curve(steps=20):
            optimizer.zero_grad()
            expected = torch.from_numpy(theirs.backward(losses.float()))
            optimizer.step()
            ours.see(losses)
            torch.testing.assert_close(ours.weights.float(), 3 * expected / expected.sum())


def test_targets_of_other_tasks_are_never_moved():
    with pytest.raises(ConfigError, match="for 3"):
        GradVac(3)(torch.eye(2, dtype=torch.float64), torch.Generator())


def test_nash_is_finite_where_rounding_puts_a_cosine_below_minus_one():
    gram = torch.tensor([[1.0, -1.0000001], [-1.0000001, 1.0]])
    assert nash_weights(gram).isfinite().all()
