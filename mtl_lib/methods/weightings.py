"""Further weightings of the tasks' gradients, and all of them by name.

A weighting takes the Gram matrix `[T, T]` of the gradients g_1, ..., g_T and gives one weight per
task; the step goes along g = sum_t weights[t] g_t. As in `mtl_lib/weighting.py` every weighting is
a sum, not a mean: where a method leaves the scale free the weights sum to T, where it has one of
its own that is said. Their cost does not depend on the number of parameters.

What remembers something has `state_dict` and `load_state_dict`, and what reads the losses `see`
(`loss_weightings.py`).

Solvers see unit vectors u_i = g_i / |g_i| and lengths apart, so that gradients of very different
lengths are no worse conditioned than their directions are. A gradient of zero divides nothing, and
where an inner product is not finite no weight is a number.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache, wraps
from typing import Any, Concatenate, ParamSpec

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from mtl_lib.errors import ConfigError
from mtl_lib.methods.loss_weightings import FAMO, DynamicWeightAverage, UncertaintyWeighting
from mtl_lib.trainer import Weighting
from mtl_lib.weighting import (
    cosines,
    float64,
    number_of_tasks,
    pcgrad_weights,
    random_orders,
    sum_weights,
)

Array = NDArray[np.float64]
Options = ParamSpec("Options")

_NO_DIRECTION = 1e-14  # eigenvalues below this share of the largest are rounding
_NO_LENGTH = 1e-7  # sums below this share of the longest gradient are rounding
_RIDGE = 1e-8  # on the cosines' diagonal: singular matrices get the limit of regular ones


def _of_finite(
    weights: Callable[Concatenate[Tensor, Options], Tensor],
) -> Callable[Concatenate[Tensor, Options], Tensor]:
    """A weighting of any Gram matrix from one of finite float64 numbers on the CPU."""

    @wraps(weights)
    def weighting(gram: Tensor, /, *args: Options.args, **kwargs: Options.kwargs) -> Tensor:
        tasks = number_of_tasks(gram)
        gram = float64(gram.detach()).cpu()
        if not gram.isfinite().all():
            return torch.full((tasks,), math.nan, dtype=torch.float64)
        return weights(gram, *args, **kwargs)

    return weighting


def _lengths(gram: Tensor) -> tuple[Array, Array]:
    """|g_i| and 1 / |g_i|, each `[T]`; the second is 0 for a gradient of zero."""
    lengths = gram.diagonal().sqrt().numpy()
    return lengths, np.divide(1.0, lengths, out=np.zeros_like(lengths), where=lengths > 0)


def _cosines(gram: Tensor) -> Array:
    """<u_i, u_j>, `[T, T]`; a gradient of zero is given a direction of its own."""
    between: Array = cosines(gram).numpy()
    np.fill_diagonal(between, 1.0)
    return between


def _directions(gram: Tensor) -> Array:
    """The u_i in T coordinates, as columns `[T, T]`: the square root of their cosines."""
    values, vectors = np.linalg.eigh(_cosines(gram))
    values[values < _NO_DIRECTION * values[-1]] = 0.0
    return np.sqrt(values)[:, None] * vectors.T


def _sum_to_tasks(weights: Array) -> Tensor:
    """The same ratios at the scale of a sum: sizes that add up to T; the plain sum for zeros."""
    size = np.abs(weights).sum()
    scaled = weights * (len(weights) / size) if size > 0 else np.ones_like(weights)
    return torch.from_numpy(scaled)


@_of_finite
def random_weights(gram: Tensor, generator: Generator | None = None) -> Tensor:
    """Random loss weighting (RLW; Lin et al., 2022), with normal numbers.

    softmax(z), z ~ N(0, 1), drawn anew in each step; they sum to T.
    """
    drawn = torch.randn(len(gram), generator=generator, dtype=torch.float64)
    return len(gram) * drawn.softmax(dim=0)


def static_weights(values: Sequence[float]) -> Weighting:
    """Fixed weights in the ratio of some values, one per task in their order; they sum to T.

    Raises:
        ConfigError: if a value is negative or not finite, or all are zero.
    """
    if not (all(0 <= value < math.inf for value in values) and sum(values) > 0):
        raise ConfigError(f"static weights {values}: give finite numbers from 0 up, not all zero")
    weights = _sum_to_tasks(np.array(values, dtype=np.float64))

    @_of_finite
    def weighting(gram: Tensor, generator: Generator | None = None) -> Tensor:
        return weights.clone()

    return weighting


@_of_finite
def mgda_weights(gram: Tensor, generator: Generator | None = None) -> Tensor:
    """Multiple-gradient descent (MGDA; Désidéri, 2012; Sener and Koltun, 2018, eq. 3).

    T times the point of least norm in the gradients' convex hull: min |sum_t a_t g_t|^2 over
    a >= 0, sum a = 1. No task's inner product with it is less than its squared norm. The weights
    sum to T. A task whose gradient is zero takes all weight: no step is known to help it.
    """
    lengths, _ = _lengths(gram)
    return _sum_to_tasks(_least_norm(_directions(gram) * lengths))


def _least_norm(columns: Array) -> Array:
    """a `[T]` >= 0 with sum 1 that has the least |columns @ a|.

    Non-negative least squares of [columns; 1'] a = [0; 1]: along every ray the best of them has
    the value n^2 / (1 + n^2), where n is the norm that the ray has on the simplex, so that the
    best ray is the one wanted. It is solved for columns of length 1, in units of the shortest, so
    that n is at most 1.
    """
    from scipy.optimize import nnls

    lengths = np.linalg.norm(columns, axis=0)
    shortest = lengths.min()
    if shortest == 0:
        return (lengths == 0) / np.count_nonzero(lengths == 0)
    system = np.vstack([columns / lengths, shortest / lengths])
    shares = nnls(system, np.eye(len(system))[-1])[0] / lengths
    return shares / shares.sum()


@_of_finite
def upgrad_weights(gram: Tensor, generator: Generator | None = None) -> Tensor:
    """Unconflicting projection of gradients (UPGrad; Quinton and Rey, 2024).

    Each g_i is projected on the dual cone {x: <x, g_j> >= 0 for all j}, which adds the
    combination sum_j v_j g_j, v >= 0, that leaves the least norm (their proposition 1). The paper
    takes the mean of the projections; here it is their sum.
    """
    from scipy.optimize import nnls

    directions, (lengths, inverse) = _directions(gram), _lengths(gram)
    weights = np.ones(len(gram))
    for own, length in zip(directions.T, lengths, strict=True):
        weights += length * nnls(directions, -own)[0] * inverse
    return torch.from_numpy(weights)


@_of_finite
def cagrad_weights(gram: Tensor, generator: Generator | None = None, c: float = 0.4) -> Tensor:
    """Conflict-averse gradient descent (CAGrad; Liu et al., 2021, Algorithm 1).

    With the mean gradient g_0, the d that has the largest min_i <g_i, d> under
    |d - g_0| <= c |g_0|. Its dual: d = g_0 + c |g_0| g_w / |g_w|, where w on the simplex has the
    least <g_w, g_0> + c |g_0| |g_w|, g_w = sum_t w_t g_t. The paper's d is a mean; the weights are
    those of T d, without the division by 1 + c^2 that the authors' code adds.

    With m = |g_w| / (c |g_0|) known, w is the point of least norm of the hull of g_i + m g_0; so
    it remains to find the m that reproduces itself. Where the hull holds zero, many d are best,
    and this gives the one nearest to g_0.

    Args:
        gram: inner products, `[T, T]`.
        generator: not used.
        c: how far from the mean, from 0 (the plain sum) to below 1.

    Raises:
        ConfigError: if c is not in [0, 1).
    """
    if not 0 <= c < 1:
        raise ConfigError(f"CAGrad with c = {c}: it must be at least 0 and below 1")
    from scipy.optimize import brentq

    lengths, _ = _lengths(gram)
    columns = _directions(gram) * (lengths / max(lengths.max(), np.finfo(float).tiny))
    mean = columns.mean(axis=1)
    radius = c * np.linalg.norm(mean)
    if radius < _NO_LENGTH:
        return sum_weights(gram)

    @cache
    def shares(square: float) -> Array:
        return _least_norm(columns + math.sqrt(square) * mean[:, None])

    def excess(square: float) -> float:
        combined = columns @ shares(square)
        return float(combined @ combined - square * radius**2)

    # |g_w| lies between the hull's least norm and the longest gradient, which is 1. While the
    # same w are above zero |g_w|^2 is linear in m^2: the root is sought in m^2, and found fast.
    least = np.linalg.norm(columns @ shares(0.0)) * (1 - 1e-6)
    shortest = lengths[lengths > _NO_DIRECTION * lengths.max()].min() / lengths.max()
    low, high = (max(least, 1e-5 * shortest) / radius) ** 2, (2 / radius) ** 2
    square = low
    if excess(low) > 0:
        square = brentq(excess, low, high, xtol=1e-12 * low, rtol=1e-12, maxiter=1000)
    return torch.from_numpy(1 + len(gram) * shares(square) / math.sqrt(square))


@_of_finite
def imtl_g_weights(gram: Tensor, generator: Generator | None = None) -> Tensor:
    """Impartial multi-task learning by gradients (IMTL-G; Liu et al., 2021).

    The combination with equal projections <g, u_i> on all directions, g = sum_t a_t g_t: of the
    cosines C and the lengths, C b = 1 and a_i = b_i / |g_i|. Weights may be negative. The paper
    has sum a = 1; here the sizes sum to T, which is T times the same where all are positive. The
    paper's scale is unbounded where they are not, and its step goes uphill where sum a < 0.
    """
    _, inverse = _lengths(gram)
    system = _cosines(gram) + _RIDGE * np.eye(len(gram))
    return _sum_to_tasks(np.linalg.solve(system, np.ones(len(gram))) * inverse)


@_of_finite
def aligned_weights(gram: Tensor, generator: Generator | None = None) -> Tensor:
    """Aligned-MTL (Senushkin et al., 2023, Algorithm 1), without preferences.

    The gradients' matrix is replaced by the nearest one whose principal components are equally
    long, as long as the shortest of them: with G = V diag(l) V', over the l that are not zero,
    weights = sqrt(min l) V diag(l)^(-1/2) V' 1. The paper weighs the tasks by 1 / T; here by 1.
    """
    values, vectors = np.linalg.eigh(gram.numpy())
    kept = values > _NO_DIRECTION * values[-1]
    if not kept.any():
        return sum_weights(gram)
    values, vectors = values[kept], vectors[:, kept]
    return torch.from_numpy(vectors @ (np.sqrt(values[0] / values) * vectors.sum(axis=0)))


@_of_finite
def nash_weights(gram: Tensor, generator: Generator | None = None) -> Tensor:
    """Nash-MTL (Navon et al., 2022, Algorithm 1): the bargaining solution, G a = 1 / a, a > 0.

    That is where a'Ga / 2 - sum log a is least; the function is convex and self-concordant, hence
    Newton steps divided by 1 + their decrement reach it from any start (Nesterov, 2004, section
    4.1.5). The paper linearises another form of it and solves a row of programs.

    The scale is the paper's own: |g|^2 = T, whatever the gradients' lengths, which is the plain sum
    for orthogonal gradients of length 1. Every task gains, <g, g_i> = 1 / a_i, unless zero is in
    the gradients' hull; there the a of C + 1e-8 I, C the cosines, are bounded.
    """
    tasks, (_, inverse), units = len(gram), _lengths(gram), _directions(gram)
    # A Gram matrix in float32 may have cosines below -1; those of the directions have not.
    system = units.T @ units + _RIDGE * np.eye(tasks)
    a = np.full(tasks, np.sqrt(tasks / system.sum()))  # the best multiple of ones
    for _ in range(200):
        slope = system @ a - 1 / a
        step = np.linalg.solve(system + np.diag(a**-2), slope)
        decrement = np.sqrt(max(slope @ step, 0.0))
        a -= step / (1 + decrement)
        if decrement < 1e-9:
            break
    return torch.from_numpy(a * inverse)


def project_conflicting(gradients: Tensor, generator: Generator | None = None) -> Tensor:
    """Gradient surgery as printed (Yu et al., 2020, Algorithm 1), on whole gradients.

    Each task's gradient meets the others in random order; where the two conflict (negative inner
    product), the part against the other's original gradient is taken out.

    Args:
        gradients: one row per task, `[T, P]`.
        generator: draws the order of the other tasks; torch's global one if None.

    Returns:
        The sum of the projected gradients, `[P]`.
    """
    projected = gradients.clone()  # [T, P]
    for i, others in enumerate(random_orders(len(gradients), generator)):
        for j in others:
            inner = projected[i] @ gradients[j]
            squared_norm = gradients[j] @ gradients[j]
            if inner < 0 and squared_norm > 0:
                projected[i] -= inner / squared_norm * gradients[j]
    return projected.sum(dim=0)


class GradVac:
    """Gradient vaccine (Wang et al., 2021, Algorithm 1), on all shared parameters at once.

    Like gradient surgery, but each pair has a target of its own for the cosine, the moving average
    of what it was: where phi = cos(g_i', g_j) is below the target r, g_i' takes
    |g_i'| (r sqrt(1 - phi^2) - phi sqrt(1 - r^2)) / (|g_j| sqrt(1 - r^2)) of g_j, which brings the
    cosine to r; then r becomes (1 - decay) r + decay phi. With targets of zero that is
    `pcgrad_weights`. The paper sums the changed gradients, and so does this.

    Row i of the coefficients C holds g_i' = sum_k C[i, k] g_k, from which all inner products
    follow.

    Args:
        tasks: T.
        decay: of the moving average; the paper's 0.01.
    """

    def __init__(self, tasks: int, decay: float = 0.01) -> None:
        self.decay = decay
        self.targets = torch.zeros(tasks, tasks, dtype=torch.float64)

    def __call__(self, gram: Tensor, generator: Generator | None = None) -> Tensor:
        """Weights `[T]`; moves the targets. `generator` draws the orders, as in PCGrad.

        Raises:
            ConfigError: if the Gram matrix is of another number of tasks.
        """
        if number_of_tasks(gram) != len(self.targets):
            raise ConfigError(
                f"a Gram matrix of {len(gram)} tasks: this weighting is for {len(self.targets)}; "
                "every step needs the same tasks, for it remembers each by its place"
            )
        return _vaccinated_weights(gram, generator, self.targets.numpy(), self.decay)

    def state_dict(self) -> dict[str, Any]:
        return {"targets": self.targets.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.targets = state["targets"].clone()


@_of_finite
def _vaccinated_weights(
    gram: Tensor, generator: Generator | None, targets: Array, decay: float
) -> Tensor:
    """The weights of `GradVac`; changes the targets `[T, T]` in place."""
    lengths, inverse = _lengths(gram)
    units = _cosines(gram)
    coefficients = np.diag(lengths)  # of the u_k, so that very short and long g_k do no harm
    for i, others in enumerate(random_orders(len(gram), generator)):
        row = coefficients[i]
        for j in others:
            length = math.sqrt(max(row @ units @ row, 0.0))
            if length == 0 or lengths[j] == 0:
                continue  # no direction, no cosine
            cosine, target = float(row @ units[j]) / length, float(targets[i, j])
            if cosine < target:
                # A target of 1 takes infinitely much of g_j.
                sine = max(math.sqrt(max(1 - target**2, 0.0)), 1e-4)
                row[j] += length * (target * math.sqrt(max(1 - cosine**2, 0.0)) / sine - cosine)
            targets[i, j] = (1 - decay) * target + decay * cosine
    return torch.from_numpy(coefficients.sum(axis=0) * inverse)


# Of each weighting a fresh one for T tasks.
WEIGHTINGS: dict[str, Callable[[int], Weighting]] = {
    "sum": lambda tasks: sum_weights,
    "random": lambda tasks: random_weights,
    "uncertainty": UncertaintyWeighting,
    "dwa": DynamicWeightAverage,
    "famo": FAMO,
    "mgda": lambda tasks: mgda_weights,
    "pcgrad": lambda tasks: pcgrad_weights,
    "gradvac": GradVac,
    "cagrad": lambda tasks: cagrad_weights,
    "imtl-g": lambda tasks: imtl_g_weights,
    "nash": lambda tasks: nash_weights,
    "aligned": lambda tasks: aligned_weights,
    "upgrad": lambda tasks: upgrad_weights,
}
