"""One gradient per task for the shared parameters, kept apart until they are combined.

    gradients = TaskGradients(model.shared_parameters())
    for batch in batches:                       # one batch, one loss, one backward per task
        loss(batch).backward()
        gradients.collect()
    gradients.combine(pcgrad_weights(gradients.gram()))
    optimizer.step()

So the trainer's default engine does it. Each task has its own batch and graph: as many backward
passes, and no graph has to be kept. The heads' gradients stay: only shared parameters can conflict.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from mtl_lib.weighting import float64

_CHUNK = 2**14  # elements per inner product: in float64, T pieces of them stay in the cache


class TaskGradients:
    """Collects the shared parameters' gradients task by task (T tasks).

    Holds one copy of the gradients per task, taken over from `.grad` without copying.

    Args:
        parameters: the parameters all tasks share.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self._parameters = list(dict.fromkeys(parameters))  # each once
        self.clear()

    def clear(self) -> None:
        """Forget what was collected."""
        self._gradients: list[list[Tensor | None]] = []  # [task][parameter]

    def __len__(self) -> int:
        """Number of tasks collected."""
        return len(self._gradients)

    def collect(self) -> None:
        """Take the shared gradients of one task away, right after its `loss.backward()`.

        A parameter that is frozen or that the loss does not reach counts as zero.
        """
        gradients = [parameter.grad for parameter in self._parameters]
        self._gradients.append([None if g is None else g.to_dense() for g in gradients])
        for parameter in self._parameters:
            parameter.grad = None

    def gram(self) -> Tensor:
        """Inner products of the tasks' gradients over all shared parameters, `[T, T]`, float64.

        Summed over short pieces in float64: one float32 product over the 22 million numbers of a
        small BERT is off by up to 3e-3 in the cosine.
        """
        gram = torch.zeros(len(self), len(self), dtype=torch.float64)
        for _, of_tasks in self.by_parameter():
            reached = {t: g.flatten() for t, g in enumerate(of_tasks) if g is not None}
            pieces = [gradient.split(_CHUNK) for gradient in reached.values()]
            tasks = torch.tensor(list(reached), dtype=torch.long)
            for piece in zip(*pieces, strict=True):
                rows = float64(torch.stack(piece))
                gram[tasks[:, None], tasks] += (rows @ rows.T).cpu()
        return gram

    def combine(self, weights: Tensor) -> None:
        """Write sum_t weights[t] g_t into the shared parameters' `.grad`, then forget the g_t.

        Works in place on the first task's gradients; what is frozen or unreached keeps None.

        Args:
            weights: one per task in the order of `collect`, `[T]`.

        Raises:
            ValueError: if the number of weights is not the number of tasks.
        """
        if weights.shape != (len(self),):
            raise ValueError(
                f"weights have shape {tuple(weights.shape)}, but {len(self)} tasks were collected"
            )
        values = weights.tolist()
        for parameter, of_tasks in self.by_parameter():
            total = None
            for weight, gradient in zip(values, of_tasks, strict=True):
                if gradient is None:
                    continue
                if total is None:
                    total = gradient.mul_(weight)
                else:
                    total.add_(gradient, alpha=weight)
            parameter.grad = total
        self.clear()

    def by_parameter(self) -> list[tuple[nn.Parameter, tuple[Tensor | None, ...]]]:
        """Each parameter that is not frozen, with its T gradients."""
        pairs = zip(self._parameters, zip(*self._gradients, strict=True), strict=True)
        return [(parameter, of_tasks) for parameter, of_tasks in pairs if parameter.requires_grad]
