"""From the tasks' gradients to one: how much of each task's gradient goes into the step.

Shapes: T tasks, P shared parameters. The Gram matrix `[T, T]` holds the inner products
G[i, j] = <g_i, g_j>. It is all that surgery needs: every projected gradient is a linear
combination of the g_j, so T weights say the same as P numbers, at T^2 inner products' cost.

Every weighting returns a sum over tasks, not a mean, so that methods compare at one rate.
"""

import torch
from torch import Generator, Tensor


def float64(x: Tensor) -> Tensor:
    """x in float64. A Gram matrix needs it, so that it is summed on the CPU where the gradients'
    device has none (Apple's mps)."""
    return x.cpu().double() if x.device.type == "mps" else x.double()


def sum_weights(gram: Tensor, generator: Generator | None = None) -> Tensor:
    """The plain sum of the gradients: weights `[T]` of one, float64."""
    return torch.ones(number_of_tasks(gram), dtype=torch.float64)


def pcgrad_weights(gram: Tensor, generator: Generator | None = None) -> Tensor:
    """Gradient surgery (PCGrad; Yu et al., 2020, Algorithm 1), from the Gram matrix alone.

    Row i of C holds the projected gradient g_i^pc = sum_k C[i, k] g_k, hence
    <g_i^pc, g_j> = (C G)[i, j], and subtracting that share of g_j changes C[i, j] only.

    Args:
        gram: inner products, `[T, T]`.
        generator: draws the order of the other tasks; torch's global one if None.

    Returns:
        Weights `[T]`, float64, with sum_i g_i^pc = sum_k weights[k] g_k: what
        `methods.weightings.project_conflicting` computes under an equal generator.

    Raises:
        ValueError: if `gram` is not square.
    """
    return projected_weights(gram, random_orders(number_of_tasks(gram), generator))


def projected_weights(gram: Tensor, orders: list[list[int]]) -> Tensor:
    """Weights `[T]` of the sum of all projected gradients, float64.

    Args:
        gram: inner products, `[T, T]`.
        orders: for each task the others in the order in which it meets them.

    Where an inner product is not finite, no weight is a number.
    """
    gram = float64(gram.detach())
    # A gradient of zero has inner products of zero: any divisor will do.
    squared_norms = torch.where(gram.diagonal() > 0, gram.diagonal(), 1.0)  # [T]
    coefficients = torch.eye(len(gram), dtype=torch.float64, device=gram.device)  # [T, T]
    for i, others in enumerate(orders):
        for j in others:
            inner = coefficients[i] @ gram[:, j]
            coefficients[i, j] -= inner.clamp(max=0) / squared_norms[j]  # only where they conflict
    return coefficients.sum(dim=0) + (0 * gram).sum()


def random_orders(tasks: int, generator: Generator | None) -> list[list[int]]:
    """For each task the other tasks in a random order."""
    orders = []
    for i in range(tasks):
        others = [j for j in range(tasks) if j != i]
        order = torch.randperm(len(others), generator=generator).tolist()
        orders.append([others[k] for k in order])
    return orders


def cosines(gram: Tensor) -> Tensor:
    """Cosines between the tasks' gradients, `[T, T]` -> `[T, T]`; 0 where a gradient is zero.

    What is not a number stays so.

    Raises:
        ValueError: if `gram` is not square.
    """
    number_of_tasks(gram)
    norms = gram.diagonal().sqrt()  # [T]
    inverse = torch.where(norms == 0, torch.zeros_like(norms), 1 / norms)
    return inverse[:, None] * gram * inverse[None, :]


def number_of_tasks(gram: Tensor) -> int:
    """T of a Gram matrix `[T, T]`; another shape is a ValueError."""
    if gram.dim() != 2 or gram.shape[0] != gram.shape[1]:
        raise ValueError(f"a Gram matrix is square, [T, T]; this one is {tuple(gram.shape)}")
    return len(gram)
