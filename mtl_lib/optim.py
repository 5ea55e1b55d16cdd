"""The AdamW step."""

import copy
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class AdamW(torch.optim.Optimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019, Algorithm 2).

    For a parameter theta with gradient g at its own step t (eta: `lr`, lambda: `weight_decay`):

        m = b1 m + (1 - b1) g                 running mean of the gradient
        v = b2 v + (1 - b2) g^2               running mean of its square
        theta = theta - eta lambda theta - update

    where the update, by `form`, is

        "textbook"    eta m^ / (sqrt(v^) + eps),  m^ = m / (1 - b1^t),  v^ = v / (1 - b2^t)
                      (Kingma and Ba, 2015, Algorithm 1; `torch.optim.AdamW`)
        "efficient"   eta_t m / (sqrt(v) + eps),  eta_t = eta sqrt(1 - b2^t) / (1 - b1^t)
                      (the same paper, end of section 2)

    "efficient" behaves as "textbook" with an eps of eps / sqrt(1 - b2^t), 32 times as large at the
    first step, which matters once gradients are as small as eps. A parameter without a gradient
    does not move and its step count stands still.

    Args:
        params: parameters, or groups of them with options of their own.
        lr: learning rate eta.
        betas: b1 and b2.
        eps: keeps the division finite.
        weight_decay: lambda; times `lr` as in torch (the paper: times its schedule's factor alone).
        correct_bias: False leaves out the division by 1 - b^t in either form.
        form: "efficient" or "textbook".

    Raises:
        ValueError: if an option lies outside its range or a parameter is not float32 or float64.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        correct_bias: bool = True,
        form: str = "efficient",
    ) -> None:
        options = dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
        super().__init__(params, options | dict(correct_bias=correct_bias, form=form))

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters; its options, defaults filled in, are checked here."""
        self._check_options(self.defaults | param_group)
        super().add_param_group(param_group)
        _check_parameters(self.param_groups[-1:], gradients=False)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a stored state, ours or that of a `torch.optim.AdamW` (form "textbook")."""
        state_dict = copy.deepcopy(state_dict)
        for group in state_dict["param_groups"]:
            if "form" not in group:
                _translate(group)
            self._check_options(group)
        for state in filter(None, state_dict["state"].values()):
            state["step"] = int(state["step"])  # torch's is a tensor
        super().load_state_dict(state_dict)

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]
        """Move what has a gradient by one step; `closure` forms it anew and returns the loss."""
        with torch.enable_grad():
            loss = closure() if closure is not None else None
        _check_parameters(self.param_groups)
        for group in self.param_groups:
            self._step_group(group)
        return loss

    def _step_group(self, group: dict[str, Any]) -> None:
        for parameter in group["params"]:
            if parameter.grad is not None:
                _update(parameter, parameter.grad, self.state[parameter], group)

    def _check_options(self, options: dict[str, Any]) -> None:
        for name in ("lr", "eps", "weight_decay"):
            if not 0 <= options[name] < math.inf:
                raise ValueError(f"{name} is {options[name]}; it must be finite and at least 0")
        if len(options["betas"]) != 2 or not all(0 <= beta < 1 for beta in options["betas"]):
            raise ValueError(f"betas is {options['betas']}; two numbers in [0, 1) are needed")
        if options["form"] not in ("efficient", "textbook"):
            raise ValueError(f"form is {options['form']!r}; choose 'efficient' or 'textbook'")


def _update(
    parameter: Tensor, gradient: Tensor, state: dict[str, Any], options: dict[str, Any]
) -> None:
    """One AdamW step of one parameter, in place; `state` is its own step count, m and v."""
    if not state:
        _start(state, parameter)
    state["step"] += 1
    m, v, t = state["exp_avg"], state["exp_avg_sq"], state["step"]
    lr, eps, (beta1, beta2) = options["lr"], options["eps"], options["betas"]
    corrects = options["correct_bias"]
    correction1, correction2 = (1 - beta1**t, 1 - beta2**t) if corrects else (1.0, 1.0)
    m.lerp_(gradient, 1 - beta1)
    v.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    # Algorithm 2: decay and update both start from the weights before the step.
    parameter.mul_(1 - lr * options["weight_decay"])
    if options["form"] == "textbook":
        denominator = v.sqrt().div_(math.sqrt(correction2)).add_(eps)
        parameter.addcdiv_(m, denominator, value=-lr / correction1)
    else:
        denominator = v.sqrt().add_(eps)
        parameter.addcdiv_(m, denominator, value=-lr * math.sqrt(correction2) / correction1)


def _start(state: dict[str, Any], p: Tensor) -> None:
    state.update(step=0, exp_avg=torch.zeros_like(p), exp_avg_sq=torch.zeros_like(p))


def _check_parameters(groups: list[dict[str, Any]], gradients: bool = True) -> None:
    for p in (p for group in groups for p in group["params"]):
        name = f"a parameter of shape {tuple(p.shape)}"
        if p.requires_grad and p.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"{name} is {p.dtype}; keep it in float32, compute by torch.autocast")
        if gradients and p.grad is not None and p.grad.layout != torch.strided:
            raise ValueError(f"{name} has a sparse gradient; use nn.Embedding(sparse=False)")


def _translate(group: dict[str, Any]) -> None:
    """Make options of `torch.optim.AdamW`, or of its Adam without decay, ours, in place."""
    unknown = [name for name in ("amsgrad", "maximize") if group.get(name)]
    if group.get("weight_decay") and not group.get("decoupled_weight_decay", True):
        unknown.append("decoupled_weight_decay=False")
    if unknown or "amsgrad" not in group:  # which SGD, RAdam and others do not have
        raise ValueError(f"AdamW cannot go on from a state with {unknown or sorted(group)}")
    group.update(lr=float(group["lr"]), correct_bias=True, form="textbook")
