"""The weightings of the rows, by name, and a control of gradient surgery."""

from collections.abc import Callable

from torch import Generator, Tensor

from mtl_lib.weighting import (
    number_of_tasks,
    pcgrad_weights,
    projected_weights,
    sum_weights,
)


def fixed_order_weights(gram: Tensor, generator: Generator | None = None) -> Tensor:
    """Gradient surgery that meets the other tasks in their listed order, never in a random one.

    A control, not part of the paper: whatever it changes against `pcgrad_weights` is the effect of
    drawing the order. Arguments, result and errors are the same; `generator` is not used.
    """
    tasks = range(number_of_tasks(gram))
    return projected_weights(gram, [[j for j in tasks if j != i] for i in tasks])


WEIGHTINGS: dict[str, Callable[[Tensor, Generator | None], Tensor]] = {
    "sum": sum_weights,
    "pcgrad": pcgrad_weights,
    "pcgrad-fixed": fixed_order_weights,
}
