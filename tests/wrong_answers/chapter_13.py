"""Answers to the exercises of chapter 13, as people write them."""

import math

import numpy as np
import torch
from wrong_answers.bank import Bank

bank = Bank()
wrong, right, WRONG, RIGHT = bank.wrong, bank.right, bank.WRONG, bank.RIGHT


# min_norm_two


def parabola(gram):
    """The lowest point of the squared length over a, not clipped; None for equal gradients."""
    square = gram[0][0] - 2 * gram[0][1] + gram[1][1]
    return None if square == 0 else float((gram[1][1] - gram[0][1]) / square)


@wrong("min_norm_two", "weights are exchanged")
def longer_first(gram):
    a = parabola(gram)
    a = 0.5 if a is None else min(max(a, 0.0), 1.0)
    return torch.tensor([1 - a, a])


@wrong("min_norm_two", "not clipped")
def the_line_not_the_segment(gram):
    a = parabola(gram)
    return [0.5, 0.5] if a is None else [a, 1 - a]


@wrong("min_norm_two", "one side only")
def not_below_zero(gram):
    a = parabola(gram)
    a = 0.5 if a is None else max(a, 0.0)
    return np.array([a, 1 - a])


@wrong("min_norm_two", "one side only")
def not_above_one(gram):
    a = parabola(gram)
    a = 0.5 if a is None else min(a, 1.0)
    return np.array([a, 1 - a])


@wrong("min_norm_two", "no longer sum to 1")
def relu_on_both(gram):
    a = parabola(gram)
    return torch.tensor([0.5, 0.5]) if a is None else torch.relu(torch.tensor([a, 1 - a]))


@wrong("min_norm_two", "divides zero by zero")
def equal_ones_forgotten(gram):
    a = (gram[1, 1] - gram[0, 1]) / (gram[0, 0] + gram[1, 1] - 2 * gram[0, 1])
    a = torch.clamp(a, min=0, max=1)
    return torch.stack([a, 1 - a])


@wrong("min_norm_two", "small number in the denominator")
def with_epsilon(gram):
    a = (gram[1, 1] - gram[0, 1]) / (gram[0, 0] + gram[1, 1] - 2 * gram[0, 1] + 1e-8)
    a = torch.clamp(a, min=0, max=1)
    return torch.stack([a, 1 - a])


@wrong("min_norm_two", "takes short gradients for equal ones")
def nearly_equal(gram):
    square = gram[0, 0] + gram[1, 1] - 2 * gram[0, 1]
    if square < 1e-10:
        return torch.tensor([0.5, 0.5])
    a = torch.clamp((gram[1, 1] - gram[0, 1]) / square, 0, 1)
    return torch.stack([a, 1 - a])


@wrong("min_norm_two", "Equal gradients get unequal weights")
def the_first_if_equal(gram):
    a = parabola(gram)
    a = 1.0 if a is None else min(max(a, 0.0), 1.0)
    return a, 1 - a


@wrong("min_norm_two", "leaves the inner product out")
def by_squares_alone(gram):
    total = gram[0, 0] + gram[1, 1]
    if total == 0:
        return torch.tensor([0.5, 0.5])
    return torch.stack([gram[1, 1], gram[0, 0]]) / total


@wrong("min_norm_two", "equally long")
def unit_gradients(gram):
    if parabola(gram) is None:
        return torch.tensor([0.5, 0.5])
    lengths = gram.diagonal().sqrt()
    return lengths.flip(0) / lengths.sum()


@wrong("min_norm_two", "whatever the gradients are")
def the_mean(gram):
    return torch.ones(2) / 2


@wrong("min_norm_two", "waits for a conflict")
def mean_without_conflict(gram):
    if gram[0, 1] < 0:
        a = parabola(gram)
        return torch.tensor([a, 1 - a])
    return torch.tensor([0.5, 0.5])


@wrong("min_norm_two", "shorter gradient alone")
def the_shorter(gram):
    if parabola(gram) is None:
        return [0.5, 0.5]
    return [1.0, 0.0] if gram[0, 0] < gram[1, 1] else [0.0, 1.0]


@wrong("min_norm_two", "sum to 2")
def as_many_as_tasks(gram):
    a = parabola(gram)
    a = 0.5 if a is None else min(max(a, 0.0), 1.0)
    return [2 * a, 2 - 2 * a]


@wrong("min_norm_two", "returns a alone")
def one_number(gram):
    a = parabola(gram)
    return 0.5 if a is None else min(max(a, 0.0), 1.0)


@wrong("min_norm_two", "length of the sum")
def plus_for_minus(gram):
    if parabola(gram) is None:
        return [0.5, 0.5]
    a = (gram[1, 1] - gram[0, 1]) / (gram[0, 0] + gram[1, 1] + 2 * gram[0, 1])
    a = float(a.clamp(0, 1))
    return [a, 1 - a]


@wrong("min_norm_two", None)
def softmax_of_lengths(gram):
    return torch.softmax(-gram.diagonal(), dim=0)


@wrong("min_norm_two", None)
def coarse_grid(gram):
    grid = np.linspace(0, 1, 11)
    g = np.array(gram)
    squares = [np.array([a, 1 - a]) @ g @ np.array([a, 1 - a]) for a in grid]
    a = grid[int(np.argmin(squares))]
    return np.array([a, 1 - a])


@right("min_norm_two")
def by_cases(gram):
    (g11, g12), (_, g22) = gram.tolist()
    if g11 == g12 == g22:
        return [0.5, 0.5]
    if g12 >= g11:
        return [1.0, 0.0]
    if g12 >= g22:
        return [0.0, 1.0]
    return [(g22 - g12) / (g11 + g22 - 2 * g12), (g11 - g12) / (g11 + g22 - 2 * g12)]


@right("min_norm_two")
def numpy_with_clip(gram):
    g = np.asarray(gram)
    difference = np.array([1.0, -1.0])
    square = difference @ g @ difference
    if square == 0:
        return np.full(2, 0.5)
    a = np.clip(-(difference @ g)[1] / square, 0, 1)
    return np.array([a, 1 - a])


@right("min_norm_two")
def linear_system(gram):
    if (gram == gram[0, 0]).all():
        return torch.tensor([0.5, 0.5])
    weights = torch.linalg.lstsq(  # <g, g_1> = <g, g_2> and a sum of 1
        torch.stack([(gram[0] - gram[1]) / gram.abs().max(), torch.ones(2)]),
        torch.tensor([[0.0], [1.0]]),
    ).solution[:, 0]
    a = weights[0].clamp(0, 1)
    return torch.stack([a, 1 - a])


# gradvac_two


def angle_between(gram):
    return float(gram[0, 1]) / math.sqrt(float(gram[0, 0] * gram[1, 1]))


@wrong("gradvac_two", "changes nothing")
def left_alone(gram, target):
    return torch.tensor([1.0, 0.0])


@wrong("gradvac_two", "whatever the target")
def plain_surgery(gram, target):
    c = 0.0
    if gram[0, 1] < 0:
        c = -gram[0, 1] / gram[1, 1]
    return torch.tensor([1.0, c])


@wrong("gradvac_two", "the length of g_1, too")
def difference_of_cosines(gram, target):
    if gram[0, 0] == 0 or gram[1, 1] == 0:
        return [1.0, 0.0]
    phi = angle_between(gram)
    c = (target - phi) * math.sqrt(gram[0, 0] / gram[1, 1]) if phi < target else 0.0
    return [1.0, c]


def amount(phi, target):
    return (target * math.sqrt(1 - phi**2) - phi * math.sqrt(1 - target**2)) / math.sqrt(
        1 - target**2
    )


@wrong("gradvac_two", "changes g_1 always")
def always(gram, target):
    if gram[0, 0] == 0 or gram[1, 1] == 0:
        return [1.0, 0.0]
    return [1.0, amount(angle_between(gram), target) * math.sqrt(gram[0, 0] / gram[1, 1])]


@wrong("gradvac_two", "waits for a conflict")
def only_in_conflict(gram, target):
    if gram[0, 1] >= 0:
        return [1.0, 0.0]
    phi = angle_between(gram)
    if phi >= 0:
        return [1.0, 0.0]
    return [1.0, amount(phi, target) * math.sqrt(gram[0, 0] / gram[1, 1])]


@wrong("gradvac_two", "upside down")
def ratio_upside_down(gram, target):
    if gram[0, 0] == 0 or gram[1, 1] == 0 or angle_between(gram) >= target:
        return [1.0, 0.0]
    return [1.0, amount(angle_between(gram), target) * math.sqrt(gram[1, 1] / gram[0, 0])]


@wrong("gradvac_two", "forgets the lengths")
def cosines_alone(gram, target):
    if gram[0, 0] == 0 or gram[1, 1] == 0 or angle_between(gram) >= target:
        return [1.0, 0.0]
    return [1.0, amount(angle_between(gram), target)]


@wrong("gradvac_two", "square of the length of g_2")
def squared_length(gram, target):
    if gram[0, 0] == 0 or gram[1, 1] == 0 or angle_between(gram) >= target:
        return [1.0, 0.0]
    return [1.0, amount(angle_between(gram), target) * math.sqrt(gram[0, 0]) / gram[1, 1]]


@wrong("gradvac_two", "division by sqrt(1 - target^2) is missing")
def undivided(gram, target):
    if gram[0, 0] == 0 or gram[1, 1] == 0 or angle_between(gram) >= target:
        return [1.0, 0.0]
    phi = angle_between(gram)
    c = target * math.sqrt(1 - phi**2) - phi * math.sqrt(1 - target**2)
    return [1.0, c * math.sqrt(gram[0, 0] / gram[1, 1])]


@wrong("gradvac_two", "square roots over")
def roots_forgotten(gram, target):
    if gram[0, 0] == 0 or gram[1, 1] == 0 or angle_between(gram) >= target:
        return [1.0, 0.0]
    phi = angle_between(gram)
    c = (target * (1 - phi**2) - phi * (1 - target**2)) / (1 - target**2)
    return [1.0, c * math.sqrt(gram[0, 0] / gram[1, 1])]


@wrong("gradvac_two", "sign between the two terms")
def both_added(gram, target):
    if gram[0, 0] == 0 or gram[1, 1] == 0 or angle_between(gram) >= target:
        return [1.0, 0.0]
    phi = angle_between(gram)
    c = target * math.sqrt(1 - phi**2) / math.sqrt(1 - target**2) + phi
    return [1.0, c * math.sqrt(gram[0, 0] / gram[1, 1])]


@wrong("gradvac_two", "the cosine falls")
def subtracted(gram, target):
    if gram[0, 0] == 0 or gram[1, 1] == 0 or angle_between(gram) >= target:
        return [1.0, 0.0]
    return [1.0, -amount(angle_between(gram), target) * math.sqrt(gram[0, 0] / gram[1, 1])]


@wrong("gradvac_two", "holds the inner product against the target")
def inner_product_against_target(gram, target):
    if gram[0, 0] == 0 or gram[1, 1] == 0 or gram[0, 1] >= target:
        return [1.0, 0.0]
    return [1.0, amount(angle_between(gram), target) * math.sqrt(gram[0, 0] / gram[1, 1])]


@wrong("gradvac_two", "*squared* lengths")
def diagonal_for_lengths(gram, target):
    own, other = float(gram[0, 0]), float(gram[1, 1])
    if own == 0 or other == 0:
        return torch.tensor([1.0, 0.0])
    phi = gram[0, 1] / (own * other)
    if phi >= target:
        return torch.tensor([1.0, 0.0])
    root = (1 - target**2) ** 0.5
    return torch.tensor([1.0, own * (target * (1 - phi**2).sqrt() - phi * root) / (other * root)])


@wrong("gradvac_two", "already has to be taken off")
def all_of_it_added(gram, target):
    if gram[0, 0] == 0 or gram[1, 1] == 0 or angle_between(gram) >= target:
        return [1.0, 0.0]
    across = math.sqrt(max(1 - angle_between(gram) ** 2, 0) * gram[0, 0] / gram[1, 1])
    return [1.0, across * target / math.sqrt(1 - target**2)]


@wrong("gradvac_two", "returns c alone")
def the_amount(gram, target):
    if gram[0, 0] == 0 or gram[1, 1] == 0 or angle_between(gram) >= target:
        return 0.0
    return amount(angle_between(gram), target) * math.sqrt(gram[0, 0] / gram[1, 1])


@wrong("gradvac_two", "divides zero by zero")
def zeros_forgotten(gram, target):
    norms = gram.diagonal().sqrt()
    phi = gram[0, 1] / norms[0] / norms[1]
    root = math.sqrt(1 - target**2)
    c = norms[0] * (target * (1 - phi**2).sqrt() - phi * root) / norms[1] / root
    return torch.stack([torch.ones(()), torch.where(phi >= target, torch.zeros(()), c)])


@wrong("gradvac_two", None)
def halfway(gram, target):
    if gram[0, 0] == 0 or gram[1, 1] == 0 or angle_between(gram) >= target:
        return [1.0, 0.0]
    return [1.0, amount(angle_between(gram), target) * math.sqrt(gram[0, 0] / gram[1, 1]) / 2]


@wrong("gradvac_two", None)
def clear_cases_only(gram, target):
    if gram[0, 0] < 1e-12 or gram[1, 1] < 1e-12 or angle_between(gram) >= target:
        return [1.0, 0.0]
    return [1.0, amount(angle_between(gram), target) * math.sqrt(gram[0, 0] / gram[1, 1])]


@right("gradvac_two")
def as_printed(gram, target):
    if gram[0, 0] == 0 or gram[1, 1] == 0:
        return torch.tensor([1.0, 0.0])
    norm_i, norm_j = gram[0, 0].sqrt(), gram[1, 1].sqrt()
    phi = gram[0, 1] / (norm_i * norm_j)
    if phi >= target:
        return torch.tensor([1.0, 0.0])
    target = torch.tensor(target)
    numerator = norm_i * (target * (1 - phi**2).sqrt() - phi * (1 - target**2).sqrt())
    return torch.stack([torch.ones(()), numerator / (norm_j * (1 - target**2).sqrt())])


@right("gradvac_two")
def by_cotangents(gram, target):
    own, other = math.sqrt(gram[0, 0]), math.sqrt(gram[1, 1])
    if own == 0 or other == 0:
        return 1.0, 0.0
    along = float(gram[0, 1]) / other  # of g_1, along g_2
    if along >= target * own:
        return 1.0, 0.0
    across = math.sqrt(max(own**2 - along**2, 0.0))
    return 1.0, (across * target / math.sqrt(1 - target**2) - along) / other


@right("gradvac_two")
def by_angles(gram, target):
    g = np.asarray(gram)
    if g[0, 0] == 0 or g[1, 1] == 0:
        return np.array([1.0, 0.0])
    phi, goal = np.arccos(np.clip(angle_between(gram), -1, 1)), np.arccos(target)
    c = np.sin(phi - goal) / np.sin(goal) * np.sqrt(g[0, 0] / g[1, 1])
    return np.array([1.0, c if phi > goal else 0.0])


# cagrad_value


@wrong("cagrad_value", "g_0 is the sum of the gradients")
def sum_for_mean(weights, gram, c):
    ones = torch.ones(len(gram))
    g_0, g_w = torch.sqrt(ones @ gram @ ones), torch.sqrt(weights @ gram @ weights)
    return weights @ gram @ ones + c * g_0 * g_w


@wrong("cagrad_value", "in one of the two terms")
def sum_in_the_first_term(weights, gram, c):
    g_w = torch.sqrt(weights @ gram @ weights)
    return (weights @ gram).sum() + c * torch.sqrt(gram.mean()) * g_w


@wrong("cagrad_value", "divided by the number of tasks")
def mean_of_weighted(weights, gram, c):
    w = weights / len(weights)
    return (w @ gram).mean() + c * torch.sqrt(gram.mean()) * torch.sqrt(w @ gram @ w)


@wrong("cagrad_value", "lengths are squared")
def squares(weights, gram, c):
    return (weights @ gram).mean() + c * gram.mean() * (weights @ gram @ weights)


@wrong("cagrad_value", "length of g_0 is squared")
def square_of_the_mean(weights, gram, c):
    return (weights @ gram).mean() + c * gram.mean() * (weights @ gram @ weights).sqrt()


@wrong("cagrad_value", "its root is missing")
def phi_without_its_root(weights, gram, c):
    phi = c**2 * gram.mean()
    return (weights @ gram).mean() + phi * (weights @ gram @ weights).sqrt()


@wrong("cagrad_value", "length of g_0 is missing")
def radius_alone(weights, gram, c):
    return (weights @ gram).mean() + c * (weights @ gram @ weights).sqrt()


@wrong("cagrad_value", "second term has the wrong sign")
def minus(weights, gram, c):
    return (weights @ gram).mean() - c * (gram.mean() * (weights @ gram @ weights)).sqrt()


@wrong("cagrad_value", "second term is missing")
def inner_product_alone(weights, gram, c):
    return float((weights @ gram).mean())


@wrong("cagrad_value", "first term, the inner product, is missing")
def lengths_alone(weights, gram, c):
    return c * math.sqrt(gram.mean()) * math.sqrt(weights @ gram @ weights)


@wrong("cagrad_value", "rows of the Gram matrix for the gradients")
def rows_are_gradients(weights, gram, c):
    g_0, g_w = gram.mean(dim=0), weights @ gram
    return g_w @ g_0 + c * g_0.norm() * g_w.norm()


@wrong("cagrad_value", "weighted mean of the gradients' lengths")
def mean_of_lengths(weights, gram, c):
    lengths = gram.diagonal().sqrt()
    return weights @ gram.mean(dim=0) + c * gram.mean().sqrt() * (weights * lengths).sum()


@wrong("cagrad_value", "a number for each task")
def not_summed(weights, gram, c):
    second = c * (gram.mean() * (weights @ gram @ weights)).sqrt()
    return weights * gram.mean(dim=1) + second / len(gram)


@wrong("cagrad_value", None)
def diagonal_only(weights, gram, c):
    w_0 = torch.full_like(weights, 1 / len(weights))
    square = gram.diagonal()
    return (weights * w_0 * square).sum() + c * torch.sqrt(
        (w_0**2 * square).sum() * (weights**2 * square).sum()
    )


@wrong("cagrad_value", None)
def mean_of_two_tasks(weights, gram, c):
    w_0 = torch.full_like(weights, 0.5)
    return weights @ gram @ w_0 + c * torch.sqrt((w_0 @ gram @ w_0) * (weights @ gram @ weights))


@right("cagrad_value")
def by_einsum(weights, gram, c):
    mean = torch.full_like(weights, 1 / len(weights))
    inner = torch.einsum("i,ij,j->", weights, gram, mean)
    lengths = [torch.einsum("i,ij,j->", w, gram, w).sqrt() for w in (mean, weights)]
    return inner + c * lengths[0] * lengths[1]


@right("cagrad_value")
def by_means_of_the_matrix(weights, gram, c):
    return (weights @ gram.mean(1) + c * (gram.mean() * (weights @ gram @ weights)).sqrt()).item()


@right("cagrad_value")
def from_gradients_of_that_gram(weights, gram, c):
    values, vectors = np.linalg.eigh(np.asarray(gram))
    gradients = vectors * np.sqrt(values.clip(0))
    g_0, g_w = gradients.mean(0), np.asarray(weights) @ gradients
    return g_w @ g_0 + c * np.linalg.norm(g_0) * np.linalg.norm(g_w)


# dominated


@wrong("cagrad_value", "A small number under a root")
def as_the_authors_write_it(weights, gram, c):
    g_0, g_w = (gram.mean() + 1e-8).sqrt(), (weights @ gram @ weights + 1e-8).sqrt()
    return weights @ gram.mean(dim=1) + c * g_0 * g_w


@wrong("dominated", "asks for better in every task")
def better_everywhere(points):
    return [any((other > mine).all() for other in points) for mine in points]


@wrong("dominated", "dominated, by itself")
def as_good_everywhere(points):
    return [any((other >= mine).all() for other in points) for mine in points]


@wrong("dominated", "both are lost")
def as_good_but_another(points):
    n = len(points)
    return np.array(
        [any((points[j] >= points[i]).all() for j in range(n) if j != i) for i in range(n)]
    )


@wrong("dominated", "as soon as others are better here or there")
def better_somewhere(points):
    return [any((other > mine).any() for other in points) for mine in points]


@wrong("dominated", "as soon as others are better here or there")
def below_the_best_of_all(points):
    return (points < points.max(axis=0)).any(axis=1)


@wrong("dominated", "lower scores count as better, or the two sides")
def as_if_losses(points):
    return [
        any((other <= mine).all() and (other < mine).any() for other in points) for mine in points
    ]


@wrong("dominated", "True and False are exchanged")
def the_front(points):
    return [
        not any((other >= mine).all() and (other > mine).any() for other in points)
        for mine in points
    ]


@wrong("dominated", "lower scores count as better, or the two sides")
def rows_that_dominate(points):
    better = (points[:, None] >= points[None]).all(2) & (points[:, None] > points[None]).any(2)
    return better.any(1)


@wrong("dominated", "A small lead counts as none")
def with_allclose(points):
    return [
        any((other >= mine).all() and not np.allclose(other, mine) for other in points)
        for mine in points
    ]


@wrong("dominated", "numbers of the dominated rows")
def their_numbers(points):
    return [
        i
        for i, mine in enumerate(points)
        if any((other >= mine).all() and (other > mine).any() for other in points)
    ]


@wrong("dominated", "compares means")
def by_the_mean(points):
    means = points.mean(axis=1)
    return means < means.max()


@wrong("dominated", "best in some task")
def best_in_none(points):
    return np.array([not (mine == points.max(axis=0)).any() for mine in points])


@wrong("dominated", "met by *different* rows")
def conditions_apart(points):
    found = []
    for i, mine in enumerate(points):
        others = [other for j, other in enumerate(points) if j != i]
        as_good = any((other >= mine).all() for other in others)
        found.append(as_good and any((other > mine).any() for other in others))
    return found


@wrong("dominated", "marked by 1 and 0")
def ones_and_zeros(points):
    return [
        int(any((other >= mine).all() and (other > mine).any() for other in points))
        for mine in points
    ]


@wrong("dominated", "rows above only")
def against_those_before(points):
    return [
        any((other >= mine).all() and (other > mine).any() for other in points[:i])
        for i, mine in enumerate(points)
    ]


@wrong("dominated", None)
def against_the_next(points):
    return [
        i + 1 < len(points)
        and bool((points[i + 1] >= points[i]).all() and (points[i + 1] > points[i]).any())
        for i in range(len(points))
    ]


@wrong("dominated", None)
def two_tasks_only(points):
    points = points[:, :2]
    return [
        any((other >= mine).all() and (other > mine).any() for other in points) for mine in points
    ]


@right("dominated")
def by_broadcasting(points):
    others, mine = points[None], points[:, None]
    return ((others >= mine).all(2) & (others > mine).any(2)).any(1)


@right("dominated")
def plain_loops(points):
    found = []
    for mine in points.tolist():
        lost = False
        for other in points.tolist():
            pairs = list(zip(other, mine, strict=True))
            lost = lost or (all(a >= b for a, b in pairs) and any(a > b for a, b in pairs))
        found.append(lost)
    return found


@right("dominated")
def unequal_and_as_good(points):
    points = torch.as_tensor(points)
    as_good = (points[None] >= points[:, None]).all(dim=2)
    equal = (points[None] == points[:, None]).all(dim=2)
    return (as_good & ~equal).any(dim=1)


# choose_rate


def choice(best, score):
    return lambda scores, choosing: {
        name: (
            int(best(table, choosing)),
            float(score(table[int(best(table, choosing))], choosing)),
        )
        for name, table in scores.items()
    }


@wrong("choose_rate", "chooses on the seeds that it reports")
def best_on_reported(scores, choosing):
    chosen = {}
    for name, table in scores.items():
        means = table[:, choosing:].mean(1)
        chosen[name] = (int(means.argmax()), float(means.max()))
    return chosen


@wrong("choose_rate", "chooses and reports on all seeds")
def nothing_held_out(scores, choosing):
    means = {name: table.mean(axis=1) for name, table in scores.items()}
    return {name: (mean.argmax(), mean.max()) for name, mean in means.items()}


@wrong("choose_rate", "reports the seeds that have chosen")
def score_of_the_choice(scores, choosing):
    means = {name: table[:, :choosing].mean(axis=1) for name, table in scores.items()}
    return {name: (int(mean.argmax()), float(mean.max())) for name, mean in means.items()}


@wrong("choose_rate", "take part in the choice")
def all_choose(scores, choosing):
    return choice(lambda t, c: t.mean(1).argmax(), lambda row, c: row[c:].mean())(scores, choosing)


@wrong("choose_rate", "in the reported score as well")
def all_report(scores, choosing):
    return choice(lambda t, c: t[:, :c].mean(1).argmax(), lambda row, c: row.mean())(
        scores, choosing
    )


@wrong("choose_rate", "best for it")
def best_rate_of_each_seed(scores, choosing):
    return {
        name: (
            int(table[:, :choosing].mean(axis=1).argmax()),
            float(table[:, choosing:].max(axis=0).mean()),
        )
        for name, table in scores.items()
    }


@wrong("choose_rate", "One rate is chosen for all methods")
def one_rate_for_all(scores, choosing):
    together = np.stack([table[:, :choosing].mean(axis=1) for table in scores.values()])
    rate = int(together.mean(axis=0).argmax())
    return {name: (rate, float(table[rate, choosing:].mean())) for name, table in scores.items()}


@wrong("choose_rate", "halves are exchanged")
def last_seeds_choose(scores, choosing):
    return choice(lambda t, c: t[:, c:].mean(1).argmax(), lambda row, c: row[:c].mean())(
        scores, choosing
    )


@wrong("choose_rate", "best single run")
def luckiest_run(scores, choosing):
    return choice(lambda t, c: t[:, :c].max(1).argmax(), lambda row, c: row[c:].mean())(
        scores, choosing
    )


@wrong("choose_rate", "lowest mean")
def as_if_losses_chosen(scores, choosing):
    return choice(lambda t, c: t[:, :c].mean(1).argmin(), lambda row, c: row[c:].mean())(
        scores, choosing
    )


@wrong("choose_rate", "best of the reporting seeds; asked is their mean")
def best_reporting_seed(scores, choosing):
    return choice(lambda t, c: t[:, :c].mean(1).argmax(), lambda row, c: row[c:].max())(
        scores, choosing
    )


@wrong("choose_rate", "rate's number is missing")
def scores_alone(scores, choosing):
    right_one = choice(lambda t, c: t[:, :c].mean(1).argmax(), lambda row, c: row[c:].mean())
    return {name: score for name, (_, score) in right_one(scores, choosing).items()}


@wrong("choose_rate", None)
def worst_run_decides(scores, choosing):
    return choice(lambda t, c: t[:, :c].min(1).argmax(), lambda row, c: row[c:].mean())(
        scores, choosing
    )


@wrong("choose_rate", None)
def two_always_choose(scores, choosing):
    return choice(lambda t, c: t[:, :2].mean(1).argmax(), lambda row, c: row[2:].mean())(
        scores, choosing
    )


@right("choose_rate")
def with_split(scores, choosing):
    chosen = {}
    for name, table in scores.items():
        first, second = np.split(np.asarray(table), [choosing], axis=1)
        rate = np.argmax(first.sum(axis=1))
        chosen[name] = (rate, second.mean(axis=1)[rate])
    return chosen


@right("choose_rate")
def with_python_alone(scores, choosing):
    def mean(numbers):
        return math.fsum(numbers) / len(numbers)

    chosen = {}
    for name, table in scores.items():
        rows = table.tolist()
        rate = max(range(len(rows)), key=lambda r: mean(rows[r][:choosing]))
        chosen[name] = [rate, mean(rows[rate][choosing:])]
    return chosen


# relative_improvement


@wrong("relative_improvement", "sign is not turned")
def sign_forgotten(scores, base, lower):
    return ((scores - base) / base).mean()


@wrong("relative_improvement", "Every task has the minus")
def power_before_minus(scores, base, lower):
    return np.mean(-(1 ** lower.astype(int)) * (scores - base) / base)


@wrong("relative_improvement", "wrong tasks")
def sign_the_wrong_way(scores, base, lower):
    return np.mean(np.where(lower, 1, -1) * (scores - base) / base)


@wrong("relative_improvement", "share of the *baseline's*")
def own_share(scores, base, lower):
    return np.mean((-1.0) ** lower.astype(int) * (scores - base) / scores)


@wrong("relative_improvement", "counts alike on every scale")
def in_points(scores, base, lower):
    return np.mean(np.where(lower, base - scores, scores - base))


@wrong("relative_improvement", "losses count as gains")
def sizes(scores, base, lower):
    return np.mean(abs(scores - base) / base)


@wrong("relative_improvement", "per cent")
def per_cent(scores, base, lower):
    return 100 * np.mean(np.where(lower, base - scores, scores - base) / base)


@wrong("relative_improvement", "sum over tasks")
def summed(scores, base, lower):
    return sum(
        (b - s if down else s - b) / b for s, b, down in zip(scores, base, lower, strict=True)
    )


@wrong("relative_improvement", "averages first")
def ratio_of_means(scores, base, lower):
    return np.where(lower, base - scores, scores - base).mean() / base.mean()


@wrong("relative_improvement", "upside down")
def ratios(scores, base, lower):
    return np.mean(np.where(lower, base / scores, scores / base)) - 1


@wrong("relative_improvement", "too large by 1")
def one_is_equal(scores, base, lower):
    return np.mean(1 + np.where(lower, base - scores, scores - base) / base)


@wrong("relative_improvement", "a number for each task")
def not_averaged(scores, base, lower):
    return np.where(lower, base - scores, scores - base) / base


@wrong("relative_improvement", "worst task's change")
def the_worst(scores, base, lower):
    return min(np.where(lower, base - scores, scores - base) / base)


@wrong("relative_improvement", None)
def geometric(scores, base, lower):
    ratio = np.where(lower, base / scores, scores / base)
    return np.exp(np.log(ratio).mean()) - 1


@wrong("relative_improvement", None)
def errors_left_out(scores, base, lower):
    change = ((scores - base) / base)[~lower]
    return change.mean() if len(change) else 0.0


@right("relative_improvement")
def with_a_loop(scores, base, lower):
    total = 0.0
    for score, of_base, down in zip(scores, base, lower, strict=True):
        change = (score - of_base) / of_base
        total += -change if down else change
    return total / len(scores)


@right("relative_improvement")
def with_powers(scores, base, lower):
    return float(np.average((-1.0) ** np.asarray(lower) * (scores / base - 1)))


@wrong("relative_improvement", "changes its input")
def in_place(scores, base, lower):
    scores -= base
    scores /= base
    scores[lower] *= -1
    return scores.mean()
