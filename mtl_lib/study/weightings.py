"""The weightings of the rows, by name, and a control of gradient surgery."""

from collections.abc import Callable, Sequence
from itertools import product

from torch import Generator, Tensor

from mtl_lib.methods import weightings
from mtl_lib.methods.weightings import static_weights
from mtl_lib.trainer import Weighting
from mtl_lib.weighting import number_of_tasks, projected_weights


def fixed_order_weights(gram: Tensor, generator: Generator | None = None) -> Tensor:
    """Gradient surgery that meets the other tasks in their listed order, never in a random one.

    A control, not part of the paper: whatever it changes against `pcgrad_weights` is the effect of
    drawing the order. Arguments, result and errors are the same; `generator` is not used.
    """
    tasks = range(number_of_tasks(gram))
    return projected_weights(gram, [[j for j in tasks if j != i] for i in tasks])


def _static(values: Sequence[float]) -> Callable[[int], Weighting]:
    return lambda tasks: static_weights(values)


# Fixed weights of three tasks: each as heavy as the lightest or four times that. The plain sum is
# the point where all are equal.
STATIC = {
    f"static-{'-'.join(map(str, values))}": _static(values)
    for values in product((4, 1), repeat=3)
    if len(set(values)) > 1
}
# Of each weighting a fresh one for T tasks.
WEIGHTINGS: dict[str, Callable[[int], Weighting]] = {
    **weightings.WEIGHTINGS,
    **STATIC,
    "pcgrad-fixed": lambda tasks: fixed_order_weights,
}
