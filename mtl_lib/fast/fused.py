"""AdamW in one fused kernel: the same numbers, several times faster."""

import math
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from mtl_lib.optim import AdamW, _start, _update


class FusedAdamW(AdamW):
    """`AdamW`, with all of a step's arithmetic in one of torch's fused kernels.

    Same options and result, several times faster: each number is read and written once. The
    efficient form is the textbook form with another epsilon, eps / sqrt(1 - b2^t).

    Raises:
        ValueError: if `correct_bias` is False: the fused kernel always corrects.
    """

    def _check_options(self, options: dict[str, Any]) -> None:
        super()._check_options(options)
        if not options["correct_bias"]:
            raise ValueError("correct_bias is False; FusedAdamW always corrects, use AdamW")

    def _step_group(self, group: dict[str, Any]) -> None:
        by_step = defaultdict(list)  # a parameter without gradient keeps its own step count
        for parameter in group["params"]:
            if parameter.grad is not None:
                state = self.state[parameter]
                if not state:
                    _start(state, parameter)
                tensors = parameter, parameter.grad, state["exp_avg"], state["exp_avg_sq"]
                if all(tensor.is_contiguous() for tensor in tensors):
                    by_step[state["step"]].append(parameter)
                else:  # the kernel takes their memory for parallel, whatever the strides
                    _update(parameter, parameter.grad, state, group)
        for taken, parameters in by_step.items():
            self._fused_step(parameters, taken, group)

    def _fused_step(self, parameters: list[Tensor], taken: int, options: dict[str, Any]) -> None:
        """One step of parameters that have `taken` steps behind them."""
        states = [self.state[parameter] for parameter in parameters]
        beta1, beta2 = options["betas"]
        eps = options["eps"]
        if options["form"] == "efficient":
            eps /= math.sqrt(1 - beta2 ** (taken + 1))
        device = parameters[0].device
        adamw(
            parameters,
            [p.grad for p in parameters if p.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            max_exp_avg_sqs=[],
            state_steps=[torch.tensor(float(taken), device=device) for _ in parameters],
            fused=True,
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=options["lr"],
            weight_decay=options["weight_decay"],
            eps=eps,
            maximize=False,
        )
        for state in states:
            state["step"] = taken + 1
