"""Exercises of chapter 03: the AdamW step."""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mtl_lib import optim
from mtl_lib.handbook.checks.framework import Case, Exercise, Mistake, call, draw, tensor

# Bias correction


def bias_correct(m: float | Tensor, beta: float, t: int) -> float | Tensor:
    """Mean of t gradients from a running mean that began at 0 (Kingma and Ba, 2015, section 3).

    Args:
        m: running mean after t gradients, a number or a tensor.
        beta: its rate.
        t: gradients so far, from 1.
    """
    return m / (1 - beta**t)


def _bias_asks(m: float | Tensor, beta: float, t: int):
    return lambda answer: call(answer, m, beta, t)


BIAS_CORRECT = Exercise(
    name="bias_correct",
    chapter=3,
    title="bias correction",
    section="AdamW",
    difficulty=1,
    importance=3,
    minutes=5,
    task=r"""
Write `bias_correct(m, beta, t)`. A running mean $m_t = \beta m_{t-1} + (1 - \beta) g_t$ that
begins at $m_0 = 0$ is too small at first: if all gradients are $g$, then $m_t = (1 - \beta^t)\, g$.
Undo that.

- `m`: the running mean after `t` gradients, a number or a tensor of any shape; `beta`: from 0 to
  below 1; `t`: how many gradients there have been, a whole number from 1.
- Return the corrected mean, in the shape of `m`.
""",
    hint="After one gradient g the running mean is (1 - beta) g, and the corrected one is g.",
    reference=bias_correct,
    cases=(
        Case("after one gradient", _bias_asks(0.25, 0.9, 1)),
        Case("after three", _bias_asks(-0.7, 0.9, 3)),
        Case("slow mean, after two", _bias_asks(0.002, 0.999, 2)),
        Case("after a thousand", _bias_asks(1.5, 0.999, 1000)),
        Case("no memory, beta = 0", _bias_asks(1.5, 0.0, 4)),
        Case("a tensor", _bias_asks(draw(2, 3, seed=1), 0.8, 2)),
    ),
    mistakes=(
        Mistake(
            lambda m, beta, t: m / (1 - beta ** (t - 1)),
            "t is counted from 0: after the first gradient t is 1, and t = 0 would divide by zero.",
        ),
        Mistake(
            lambda m, beta, t: m / (1 - beta ** (t + 1)),
            "t is one too large: after the first gradient t is 1.",
        ),
        Mistake(
            lambda m, beta, t: m * (1 - beta**t),
            "The correction is inverted: the mean becomes even smaller.",
        ),
        Mistake(
            lambda m, beta, t: m / (1 - beta),
            "The power t is missing: that is right after the first gradient and never again.",
        ),
        Mistake(
            lambda m, beta, t: m / (1 - beta) ** t,
            "The power is taken of 1 - beta: it belongs to beta.",
        ),
        Mistake(
            lambda m, beta, t: m / (1 - beta * t),
            "beta is multiplied by t: it has to be raised to the power of t.",
        ),
        Mistake(
            lambda m, beta, t: m / beta**t,
            "It divides by beta to the power of t: what is missing is 1 less that power.",
        ),
        Mistake(
            lambda m, beta, t: m / 1 - beta**t,
            "The division ends at the 1: brackets are missing, and the power is taken off last.",
        ),
        Mistake(lambda m, beta, t: m, "Nothing is corrected."),
    ),
    notes="Counting t from 0 ends in a division by zero at the first step. 1 point.",
)

# The step


def adamw_step(
    p: Tensor,
    g: Tensor | None,
    state: dict,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-6,
    decay: float = 0.0,
) -> Tensor:
    """One AdamW step of one parameter in the textbook form, by `optim.AdamW`.

    Args:
        p: the parameter, left as it is.
        g: its gradient; None moves nothing.
        state: this parameter's own, empty before its first step.
        lr, betas, eps, decay: as in `optim.AdamW`.

    Returns:
        The new value.
    """
    parameter = p.detach().clone()
    parameter.grad = None if g is None else g.clone()
    options = dict(lr=lr, betas=betas, eps=eps, weight_decay=decay, form="textbook")
    optimizer = optim.AdamW([parameter], **options)
    optimizer.state[parameter] = state
    optimizer.step()
    return parameter


class Step:
    """An AdamW step with one thing or another changed; each part is a formula."""

    def __init__(
        self,
        gradient: Callable = lambda g, p, decay: g,
        means: Callable = lambda m, v, b1, b2, t: (m / (1 - b1**t), v / (1 - b2**t)),
        update: Callable = lambda m, v, eps, t, b2: m / (v.sqrt() + eps),
        new: Callable = lambda p, lr, decay, update: p - lr * decay * p - lr * update,
        decay_factor: Callable = lambda b1, b2, t: 1.0,
        count: Callable = lambda state: state.get("t", 0) + 1,
        skip: bool = True,
        without: Callable = lambda p, state, lr, decay: p.clone(),
        betas: Callable = lambda betas: betas,
        remembers: Sequence[str] = ("t", "m", "v"),
        square: Callable = lambda g: g**2,
        part: Callable = lambda beta: 1 - beta,
        stores_corrected: bool = False,
    ) -> None:
        self.gradient, self.means, self.update, self.new = gradient, means, update, new
        self.decay_factor, self.count = decay_factor, count
        self.skip, self.without = skip, without
        self.betas, self.remembers = betas, remembers
        self.square, self.part, self.stores_corrected = square, part, stores_corrected

    def __call__(self, p, g, state, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, decay=0.0):
        if g is None:
            if self.skip:
                return self.without(p, state, lr, decay)
            g = torch.zeros_like(p)
        b1, b2 = self.betas(betas)
        for forgotten in state.keys() - set(self.remembers):
            del state[forgotten]
        t = state["t"] = self.count(state)
        g = self.gradient(g, p, decay)
        state["m"] = b1 * state.get("m", torch.zeros_like(p)) + self.part(b1) * g
        state["v"] = b2 * state.get("v", torch.zeros_like(p)) + self.part(b2) * self.square(g)
        m, v = self.means(state["m"], state["v"], b1, b2, t)
        if self.stores_corrected:
            state["m"], state["v"] = m, v
        decay = decay * self.decay_factor(b1, b2, t)
        return self.new(p, lr, decay, self.update(m, v, eps, t, b2))


class SharedCount:
    """A step count for all parameters together."""

    def __init__(self) -> None:
        self.t = 0

    def __call__(self, state: dict) -> int:
        self.t += 1
        return self.t


def _counted(p, state, lr, decay):
    state["t"] = state.get("t", 0) + 1
    return p.clone()


def _no_correction(m, v, b1, b2, t):
    return m, v


def _steps(sizes: dict[str, tuple], count: int, seed: int, scale: float = 1.0, skip=(), **options):
    """Several parameters stepped in turn, each with a state of its own.

    Args:
        sizes: shape of each parameter by name.
        count: steps.
        scale: standard deviation of the gradients.
        skip: pairs (name, step) without a gradient.
    """
    start = {
        name: draw(*shape, seed=seed + n, dtype=torch.float64)
        for n, (name, shape) in enumerate(sizes.items())
    }

    def ask(answer: Callable) -> dict[str, Tensor]:
        values, states, paths = dict(start), {name: {} for name in sizes}, {n: [] for n in sizes}
        for step in range(count):
            for n, name in enumerate(sizes):
                g = scale * draw(
                    *sizes[name], seed=1000 + 100 * step + 10 * n + seed, dtype=torch.float64
                )
                if (name, step) in skip:
                    g = None

                def stepped(p: Tensor, g: Tensor | None, state=states[name]):  # noqa: B006
                    return answer(p, g, state, **options)

                values[name] = tensor(call(stepped, values[name], g)).detach().clone()
                paths[name].append(values[name])
        return {name: torch.stack(path) for name, path in paths.items()}

    return ask


PAIR = {"parameter one": (2, 3), "parameter two": (4,)}
TWINS = {"parameter one": (3,), "parameter two": (3,)}
SKIPPED = {("parameter one", 0), ("parameter two", 2), ("parameter two", 3)}
# Room for a step count in float32, none for a misplaced epsilon.
EXACT = dict(rtol=1e-5, atol=5e-6)
_SMALL = dict(scale=3e-6, eps=3e-6, lr=0.1)  # gradients as small as epsilon, not the default

ADAMW_STEP = Exercise(
    name="adamw_step",
    chapter=3,
    title="the AdamW step",
    section="AdamW",
    difficulty=4,
    importance=5,
    minutes=25,
    task=r"""
Write `adamw_step(p, g, state, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, decay=0.0)`, one step of one
parameter, in the textbook form (as in `torch.optim.AdamW`):

$$m_t = \beta_1 m_{t-1} + (1 - \beta_1)\, g, \qquad v_t = \beta_2 v_{t-1} + (1 - \beta_2)\, g^2$$
$$\theta_t = \theta_{t-1} - \eta \lambda\, \theta_{t-1}
  - \eta\, \frac{\hat m_t}{\sqrt{\hat v_t} + \epsilon}$$

with $\hat m$ and $\hat v$ the corrected means, $\eta$ = `lr` and $\lambda$ = `decay`.

- `p`: the parameter, a tensor of any shape; `g`: its gradient, of the same shape, or `None`.
- `state`: a dict of this parameter alone, empty before its first step; keep in it what you need,
  the step count too. The check has several parameters, each with a state of its own.
- Return the new value, and leave `p` and `g` as they are.
- Without a gradient (`None`) nothing moves: not the parameter, not the state.
""",
    hint="""
`state.get("t", 0)` is 0 before the first step. Your `bias_correct` does both corrections, each with
its own beta. The decay never meets m or v.
""",
    reference=adamw_step,
    cases=(
        Case("one step", _steps({"p": (4,)}, 1, 1, lr=0.1), **EXACT),
        Case("four steps", _steps({"p": (2, 3)}, 4, 2, lr=0.05), **EXACT),
        Case("four steps with decay", _steps({"p": (2, 3)}, 4, 3, lr=0.05, decay=0.5), **EXACT),
        Case("two parameters in turn", _steps(PAIR, 4, 4, lr=0.05, decay=0.1), **EXACT),
        Case(
            "other betas",
            _steps({"p": (3,)}, 5, 5, lr=0.02, betas=(0.5, 0.7), decay=0.2),
            **EXACT,
        ),
        Case("gradients as small as epsilon", _steps({"p": (5,)}, 3, 6, **_SMALL), **EXACT),
        Case(
            "a gradient of zero", _steps({"p": (3,)}, 3, 7, scale=0.0, decay=0.3, lr=0.1), **EXACT
        ),
        Case(
            "steps without a gradient",
            _steps(TWINS, 5, 8, lr=0.05, decay=0.4, skip=SKIPPED),
            **EXACT,
        ),
        Case("the defaults", _steps({"p": (3,)}, 2, 9, scale=3e-6), **EXACT),
    ),
    mistakes=(
        Mistake(
            Step(
                gradient=lambda g, p, decay: g + decay * p,
                new=lambda p, lr, decay, update: p - lr * update,
            ),
            "The decay is coupled: it went into the gradient, so the second moment divides it away "
            "again.",
        ),
        Mistake(
            Step(gradient=lambda g, p, decay: g + decay * p),
            "The decay acts twice: on the weight, and in the gradient, where it does not belong.",
        ),
        Mistake(
            Step(new=lambda p, lr, decay, update: p - decay * p - lr * update),
            "The decay is not multiplied by the rate.",
        ),
        Mistake(
            Step(decay_factor=lambda b1, b2, t: math.sqrt(1 - b2**t) / (1 - b1**t)),
            "The decay is multiplied by the bias-corrected rate: it takes the plain one.",
        ),
        Mistake(
            Step(new=lambda p, lr, decay, update: p - lr * update),
            "The decay is dropped.",
        ),
        Mistake(
            Step(new=lambda p, lr, decay, update: p + lr * decay * p - lr * update),
            "The decay has the wrong sign: weights grow.",
        ),
        Mistake(
            Step(new=lambda p, lr, decay, update: (p - lr * update) * (1 - lr * decay)),
            "The decay acts on the weight after the update: both start from the weight before it.",
        ),
        Mistake(
            Step(new=lambda p, lr, decay, update: p - lr * decay * p - update),
            "The update is not multiplied by the rate.",
        ),
        Mistake(
            Step(new=lambda p, lr, decay, update: p - lr * decay * p + lr * update),
            "The update has the wrong sign: it climbs.",
        ),
        Mistake(
            Step(means=_no_correction),
            "The bias correction is missing.",
        ),
        Mistake(
            Step(means=lambda m, v, b1, b2, t: (m * (1 - b1**t), v * (1 - b2**t))),
            "The bias correction is inverted: it multiplies where it should divide.",
        ),
        Mistake(
            Step(means=lambda m, v, b1, b2, t: (m / (1 - b1**t), v)),
            "Only the first moment is corrected.",
        ),
        Mistake(
            Step(means=lambda m, v, b1, b2, t: (m, v / (1 - b2**t))),
            "Only the second moment is corrected.",
        ),
        Mistake(
            Step(means=lambda m, v, b1, b2, t: (m / (1 - b1**t), v / (1 - b1**t))),
            "Both moments are corrected with the first beta.",
        ),
        Mistake(
            Step(stores_corrected=True),
            "The corrected means are stored, and the next step corrects them again: keep the "
            "running means as they are.",
        ),
        Mistake(
            Step(square=lambda g: g),
            "v is a mean of the gradients: it has to be one of their squares.",
        ),
        Mistake(
            Step(part=lambda beta: 1.0),
            "The new gradient counts in full: it enters m with 1 - beta1, and its square v with "
            "1 - beta2.",
        ),
        Mistake(
            Step(update=lambda m, v, eps, t, b2: m / (v + eps)),
            "The square root of the second moment is missing.",
        ),
        Mistake(
            Step(update=lambda m, v, eps, t, b2: m / (v + eps).sqrt()),
            "Epsilon stands inside the root: gradients as small as epsilon show it.",
        ),
        Mistake(
            Step(update=lambda m, v, eps, t, b2: m / (v.sqrt() + eps / math.sqrt(1 - b2**t))),
            "This is the efficient form, with epsilon beside the uncorrected root: the textbook "
            "form corrects v first.",
        ),
        Mistake(
            Step(update=lambda m, v, eps, t, b2: m / v.sqrt()),
            "Epsilon is missing in the denominator: a gradient of zero divides zero by zero.",
        ),
        Mistake(
            Step(update=lambda m, v, eps, t, b2: m / (v.sqrt() + 1e-6)),
            "Epsilon is built in: take the argument `eps`.",
        ),
        Mistake(
            Step(remembers=()),
            "Every step starts anew: neither m, v nor the count is stored in `state`.",
        ),
        Mistake(
            Step(remembers=("t",)),
            "m and v are never stored in `state`: each step knows its own gradient only.",
        ),
        Mistake(
            Step(betas=lambda betas: (betas[1], betas[0])),
            "The betas are exchanged: the first belongs to m, the second to v.",
        ),
        Mistake(
            Step(count=SharedCount()),
            "The step count is shared by all parameters: each has its own, in its state.",
        ),
        Mistake(
            Step(count=lambda state: 1),
            "The step count never moves on from 1.",
        ),
        Mistake(
            Step(count=lambda state: state.get("t", -1) + 1),
            "The step count begins at 0: it is 1 at the first step.",
        ),
        Mistake(
            Step(count=lambda state: state.get("t", 1) + 1),
            "The step count begins at 2: it is 1 at the first step.",
        ),
        Mistake(
            Step(skip=False),
            "A parameter without a gradient is treated as if its gradient were zero: it must not "
            "move, nor its count.",
        ),
        Mistake(
            Step(without=lambda p, state, lr, decay: p - lr * decay * p),
            "A parameter without a gradient still decays: it must not move.",
        ),
        Mistake(
            Step(without=_counted),
            "The step count moves on without a gradient: nothing of the state may.",
        ),
    ),
    notes="""
The cases are in float64, so that misplaced epsilons show. A count kept outside `state` passes any
test with one parameter. 5 points.
""",
)

# The optimizer


class AdamW:
    """AdamW for many parameters in the textbook form, by `optim.AdamW`.

    Args:
        parameters: tensors; a generator will do.
        lr: the rate; the attribute may be set between steps.
        betas, eps, decay: as in `adamw_step`.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        decay: float = 0.0,
    ) -> None:
        self.lr = lr
        options = dict(betas=betas, eps=eps, weight_decay=decay, form="textbook")
        self._inner = optim.AdamW(parameters, lr, **options)

    def step(self) -> None:
        """Move every parameter that has a gradient."""
        self._inner.param_groups[0]["lr"] = self.lr
        self._inner.step()

    def zero_grad(self) -> None:
        """Forget all gradients: None, not zero."""
        self._inner.zero_grad()


class Optimizer:
    """AdamW for many parameters with one thing or another changed.

    Class attributes are what a mistake changes; `variant` makes such a class.
    """

    rule: Callable = Step()
    own_list = True  # of the parameters, not the generator itself
    passes = ("betas", "eps", "decay")  # options that reach the step
    late_rate = True  # `lr` as it is at the step, not as it was at the start
    clearing: float | None = None  # what zero_grad leaves; NaN leaves everything
    writes = True  # into the parameter
    no_grad = True

    def __init__(self, parameters, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, decay=0.0):
        self.parameters = list(parameters) if self.own_list else parameters
        self.lr = self.first_lr = lr
        self.options = dict(betas=betas, eps=eps, decay=decay)
        self.states: dict[Any, dict] = {}
        self.t = 0

    def key(self, place: int, p: Tensor) -> Any:
        """Which state is this parameter's."""
        return place

    def step(self) -> None:
        self.t += 1
        options = {name: self.options[name] for name in self.passes}
        rate = self.lr if self.late_rate else self.first_lr
        with torch.set_grad_enabled(not self.no_grad):
            for place, p in enumerate(self.parameters):
                state = self.states.setdefault(self.key(place, p), {})
                new = self.move(p, state, lr=rate, **options)
                if self.writes:
                    p.copy_(new)

    def move(self, p: Tensor, state: dict, **options) -> Tensor:
        return type(self).rule(p, p.grad, state, **options)

    def zero_grad(self) -> None:
        for p in self.parameters:
            if self.clearing is None:
                p.grad = None
            elif self.clearing == 0 and p.grad is not None:
                p.grad = torch.zeros_like(p)


class OneCount(Optimizer):
    """The step count is that of the optimizer."""

    def move(self, p: Tensor, state: dict, **options) -> Tensor:
        state["t"] = self.t - 1
        return super().move(p, state, **options)


class Forgetful(Optimizer):
    """A new state in every step."""

    def key(self, place: int, p: Tensor) -> Any:
        return object()


class OneState(Optimizer):
    """One state for all."""

    def key(self, place: int, p: Tensor) -> Any:
        return "all"


class StateByShape(Optimizer):
    """One state for all parameters of a shape."""

    def key(self, place: int, p: Tensor) -> Any:
        return p.shape


def variant(base: type = Optimizer, **changes: Any) -> type:
    """A class of optimizers with other class attributes."""
    return type("Variant", (base,), changes)


FORBIDDEN = "autograd forbids it"


def _trains(sizes, count, seed, scale=1.0, skip=(), rates=(), generator=False, **options):
    """Several parameters in one optimizer; their gradients add up unless it clears them.

    Args:
        sizes: shape of each parameter by name.
        count: steps.
        scale: standard deviation of the gradients.
        skip: pairs (name, step) without a gradient.
        rates: to set before each step.
        generator: hand the parameters over as one.
    """

    def ask(answer: Callable) -> dict[str, Any]:
        parameters = [
            nn.Parameter(draw(*shape, seed=seed + n, dtype=torch.float64))
            for n, shape in enumerate(sizes.values())
        ]
        given = (p for p in parameters) if generator else list(parameters)
        optimizer, paths = answer(given, **options), {name: [] for name in sizes}
        for step in range(count):
            if rates:
                optimizer.lr = rates[step]
            optimizer.zero_grad()
            for n, (name, p) in enumerate(zip(sizes, parameters, strict=True)):
                draws = 2000 + 100 * step + 10 * n + seed
                g = scale * draw(*p.shape, seed=draws, dtype=torch.float64)
                if (name, step) not in skip:
                    p.grad = g if p.grad is None else p.grad + g
            try:
                optimizer.step()
            except RuntimeError as error:
                if "leaf Variable that requires grad" in str(error):
                    return {"step": FORBIDDEN}
                raise
            for name, p in zip(sizes, parameters, strict=True):
                paths[name].append(p.detach().clone())
        return {name: torch.stack(path) for name, path in paths.items()}

    return ask


ADAMW = Exercise(
    name="AdamW",
    chapter=3,
    title="an optimiser of your own",
    section="AdamW",
    difficulty=3,
    importance=5,
    minutes=20,
    task="""
Write the class `AdamW(parameters, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, decay=0.0)`. It holds the
parameters of a whole model and moves them with your `adamw_step`.

- `parameters`: anything to loop over **once**, such as `model.parameters()`, which is a generator.
  They are leaves of the graph that require gradients, of any shapes.
- `step()`: one AdamW step of each parameter `p` with the gradient `p.grad`. The new values stand in
  the same tensors, since the model holds these. A parameter whose `grad` is `None` does not move,
  and its count stands still.
- `zero_grad()`: sets every `grad` to `None`.
- `lr` is an attribute. Whoever sets it between two steps, as a schedule does, changes the rate of
  the next.

The check puts yours through a hundred steps in float64, and expects what `torch.optim.AdamW` gives.
""",
    hint="""
In `__init__`, make a list of the parameters, and an empty dict for each. In `step`,
`p.copy_(new)` writes into a parameter, inside `with torch.no_grad():`.
""",
    reference=AdamW,
    cases=(
        Case("one parameter", _trains({"p": (4,)}, 3, 1, lr=0.1), **EXACT),
        Case("two parameters and decay", _trains(PAIR, 4, 2, lr=0.05, decay=0.3), **EXACT),
        Case("two of one shape", _trains(TWINS, 4, 3, lr=0.05, betas=(0.6, 0.8)), **EXACT),
        Case(
            "steps without a gradient",
            _trains(TWINS, 6, 4, lr=0.05, decay=0.4, skip=SKIPPED),
            **EXACT,
        ),
        Case("a generator of parameters", _trains(PAIR, 3, 5, lr=0.05, generator=True), **EXACT),
        Case(
            "a rate set between steps",
            _trains(PAIR, 4, 6, lr=0.5, decay=0.2, rates=(0.01, 0.02, 0.02, 0.0)),
            **EXACT,
        ),
        Case("gradients as small as epsilon", _trains({"p": (5,)}, 3, 7, **_SMALL), **EXACT),
        Case("a hundred steps", _trains(PAIR, 100, 8, lr=0.01, decay=0.1), **EXACT),
        Case("the defaults", _trains({"p": (3,)}, 3, 9, scale=3e-6), **EXACT),
    ),
    mistakes=(
        Mistake(
            variant(own_list=False),
            "A generator of parameters is used up after one loop: keep them in a list.",
        ),
        Mistake(
            Forgetful,
            "Every step starts from an empty state: m, v and the count are never stored.",
        ),
        Mistake(
            OneState,
            "All parameters share one state: each needs its own m, v and count.",
        ),
        Mistake(
            StateByShape,
            "Parameters of one shape share a state: each needs its own m, v and count.",
        ),
        Mistake(
            OneCount,
            "There is one step count for all: a parameter that missed a step has taken fewer.",
        ),
        Mistake(
            variant(rule=Step(betas=lambda betas: (betas[1], betas[0]))),
            "The betas are exchanged: the first belongs to m, the second to v.",
        ),
        Mistake(
            variant(
                rule=Step(
                    gradient=lambda g, p, decay: g + decay * p,
                    new=lambda p, lr, decay, update: p - lr * update,
                )
            ),
            "The decay is coupled: it went into the gradient.",
        ),
        Mistake(
            variant(passes=("betas", "eps")),
            "The decay is dropped: it never reaches the step.",
        ),
        Mistake(
            variant(passes=("eps", "decay")),
            "The betas never reach the step: it takes its defaults.",
        ),
        Mistake(
            variant(passes=("betas", "decay")),
            "`eps` never reaches the step: it takes its default.",
        ),
        Mistake(
            variant(
                rule=Step(
                    new=lambda p, lr, decay, update: p - 1e-3 * decay * p - 1e-3 * update,
                )
            ),
            "`lr` never reaches the step: it takes its default.",
        ),
        Mistake(
            variant(late_rate=False),
            "`lr` is read once, at the start: a rate that is set between two steps does nothing.",
        ),
        Mistake(
            variant(rule=Step(skip=False)),
            "A parameter without a gradient is treated as if its gradient were zero: it must not "
            "move, nor its count.",
        ),
        Mistake(
            variant(rule=Step(without=lambda p, state, lr, decay: p - lr * decay * p)),
            "A parameter without a gradient still decays: it must not move.",
        ),
        Mistake(
            variant(clearing=0.0),
            "`zero_grad` leaves zeros: a zero is a gradient, and a parameter with one decays and "
            "drifts on. Set `grad` to None.",
        ),
        Mistake(
            variant(clearing=math.nan),
            "`zero_grad` leaves the gradients: the next ones are added to them.",
        ),
        Mistake(
            variant(writes=False),
            "The parameters never move: the new values have to be written into the tensors that "
            "the model holds.",
        ),
        Mistake(
            variant(no_grad=False),
            "The step itself is recorded by autograd, which forbids it: write into a parameter "
            "inside `torch.no_grad()`.",
        ),
    ),
    notes="""
Half of these mistakes pass a test with a single parameter. The generator and `lr` are what later
chapters rely on: chapter 04 hands over `model.parameters()`, chapter 09 sets the rate. 4 points.
""",
)

# The bug hunt


class FoundAdamW:
    """AdamW with none, some or all of the three faults that are planted in chapter 03."""

    faults: frozenset[str] = frozenset()

    def __init__(self, parameters, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, decay=0.0):
        self.parameters = list(parameters)
        self.lr, self.betas, self.eps, self.decay = lr, betas, eps, decay
        self.keep = 1 - lr * decay
        self.states: list[dict] = [{} for _ in self.parameters]

    def step(self) -> None:
        """Move every parameter that has a gradient."""
        b1, b2 = self.betas
        for p, state in zip(self.parameters, self.states, strict=True):
            g = p.grad
            if g is None or ("zero" in self.faults and not g.any()):
                continue
            t = state["t"] = state.get("t", 0) + 1
            m = state["m"] = b1 * state.get("m", 0.0) + (1 - b1) * g
            v = state["v"] = b2 * state.get("v", 0.0) + (1 - b2) * g**2
            m, v = m / (1 - b1**t), v / (1 - b2**t)
            if self.faults & {"in place", "in place m"}:
                state["m"] = m
            if self.faults & {"in place", "in place v"}:
                state["v"] = v
            keep = self.keep if "rate" in self.faults else 1 - self.lr * self.decay
            p.data = keep * p.data - self.lr * m / (v.sqrt() + self.eps)

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for p in self.parameters:
            p.grad = None


FAULTS = {
    "in place": "the second step is wrong, whatever the gradients",
    "zero": "it goes wrong after a gradient of zeros",
    "rate": "it goes wrong once `lr` is set anew",
}


def _left(faults: tuple[str, ...]) -> Mistake:
    number = ("One of the three faults is", "Two of the three faults are", "All three faults are")
    shows = "; ".join(FAULTS[fault] for fault in faults)
    return Mistake(
        variant(FoundAdamW, faults=frozenset(faults)),
        f"{number[len(faults) - 1]} still there: {shows}.",
    )


def _half(half: str, others: tuple[str, ...]) -> Mistake:
    return Mistake(
        variant(FoundAdamW, faults=frozenset((half, *others))),
        "A fault is half mended: of the two means, one is kept and one is still spoilt.",
    )


def _zeros(parameters: Sequence[Tensor], step: int) -> list[Tensor]:
    """Gradients of which the second parameter's are all zero in every other step."""
    found = [draw(*p.shape, seed=50 + 9 * step + n).double() for n, p in enumerate(parameters)]
    return [found[0], found[1] * (step % 2)]


def _drawn(parameters: Sequence[Tensor], step: int) -> list[Tensor]:
    return [draw(*p.shape, seed=80 + 9 * step + n).double() for n, p in enumerate(parameters)]


def _hunts(gradients: Callable, count: int, rates: Sequence[float] = (), skip=(), **options):
    def ask(answer: Callable) -> dict[str, Tensor]:
        shapes = ((2, 3), (4,))
        parameters = [
            nn.Parameter(draw(*s, seed=n, dtype=torch.float64)) for n, s in enumerate(shapes)
        ]
        optimizer, paths = answer(iter(parameters), **options), [[], []]
        for step in range(count):
            if rates:
                optimizer.lr = rates[step]
            optimizer.zero_grad()
            for place, g in enumerate(gradients(parameters, step)):
                parameters[place].grad = None if (place, step) in skip else g
            optimizer.step()
            for path, p in zip(paths, parameters, strict=True):
                path.append(p.detach().clone())
        return {f"parameter {n + 1}": torch.stack(path) for n, path in enumerate(paths)}

    return ask


FOUND_ADAMW = Exercise(
    name="FoundAdamW",
    chapter=3,
    title="three faults in a found optimiser (harder)",
    difficulty=4,
    importance=3,
    minutes=20,
    task="""
The cell below holds `FoundAdamW`, written by somebody else: the same interface as your `AdamW`, all
in one class. It runs, it trains, and its first step is right. Yet it has **three faults**. Find and
mend them; the other lines may stay.

No error will help you. Ask of every line: which input would show that it is wrong? Two optimisers
side by side on a toy, yours and this one, answer faster than reading. Try many steps, a gradient of
zeros, a rate that changes. The check tells how many faults are left.
""",
    hint="""
`/=` on a tensor writes into that tensor. A number that `__init__` computed does not follow what is
set later. And what is `torch.zeros(3).any()`?
""",
    reference=FoundAdamW,
    cases=(
        Case("the first step", _hunts(_drawn, 1, lr=0.1, decay=0.2), **EXACT),
        Case("five steps", _hunts(_drawn, 5, lr=0.05), **EXACT),
        Case("a gradient of zeros", _hunts(_zeros, 4, lr=0.05, decay=0.3), **EXACT),
        Case(
            "a rate set between steps",
            _hunts(_drawn, 3, rates=(0.1, 0.05, 0.01), lr=0.3, decay=0.4),
            **EXACT,
        ),
        Case("no gradient", _hunts(_drawn, 4, skip={(1, 0), (0, 2)}, lr=0.05, decay=0.3), **EXACT),
    ),
    mistakes=tuple(
        _left(faults) for size in (3, 2, 1) for faults in itertools.combinations(FAULTS, size)
    )
    + tuple(
        _half(half, others)
        for half in ("in place m", "in place v")
        for others in ((), ("zero",), ("rate",), ("zero", "rate"))
    ),
    notes="""
All three faults were seen in public code, and none of them shows in a first step. In class: let
pairs write the toy that shows a fault before they look for the line. 4 points.
""",
)

# What decay can do


def decay_shrinkage(lr: float, decay: float, steps: int) -> float:
    """Factor left of a weight without gradients: (1 - lr * decay)^steps."""
    return (1 - lr * decay) ** steps


def _decay_asks(lr: float, decay: float, steps: int):
    return lambda answer: call(answer, lr, decay, steps)


DECAY_SHRINKAGE = Exercise(
    name="decay_shrinkage",
    chapter=3,
    title="what decay can do",
    difficulty=1,
    importance=3,
    minutes=5,
    task="""
Write `decay_shrinkage(lr, decay, steps)`: what is left of a weight after `steps` steps of AdamW in
which its gradient is zero, as a fraction of what it was. 1 means that nothing happened.
""",
    hint="One step takes away lr * decay of the weight. What does the next one start from?",
    reference=decay_shrinkage,
    cases=(
        Case("one step", _decay_asks(0.1, 0.5, 1)),
        Case("forty steps", _decay_asks(0.1, 0.5, 40)),
        Case("no decay", _decay_asks(0.1, 0.0, 40)),
        Case("no step", _decay_asks(0.1, 0.5, 0)),
        Case("an epoch of the paper", _decay_asks(1e-5, 0.05, 755), rtol=5e-5),
        Case("ten thousand steps", _decay_asks(1e-3, 0.1, 10_000), rtol=1e-3),
    ),
    mistakes=(
        Mistake(
            lambda lr, decay, steps: (1 - decay) ** steps,
            "The rate is forgotten: decoupled decay is still multiplied by it.",
        ),
        Mistake(
            lambda lr, decay, steps: 1 - lr * decay,
            "The steps are ignored: this is one step.",
        ),
        Mistake(
            lambda lr, decay, steps: 1 - lr * decay * steps,
            "Every step takes the same amount: each has to take its share of what is left.",
        ),
        Mistake(
            lambda lr, decay, steps: (lr * decay) ** steps,
            "It multiplies what each step takes away: multiply what each step leaves.",
        ),
        Mistake(
            lambda lr, decay, steps: 1 - (1 - lr * decay) ** steps,
            "This is what is lost: what is left is asked for.",
        ),
        Mistake(
            lambda lr, decay, steps: (1 + lr * decay) ** steps,
            "The sign is wrong: the weight grows.",
        ),
        Mistake(
            lambda lr, decay, steps: math.exp(-lr * decay * steps),
            "The exponential is only nearly right, for a small lr * decay.",
        ),
    ),
    notes="The answer to why decay 0.05 does nothing at a rate of 1e-5. 1 point.",
)

EXERCISES = (BIAS_CORRECT, ADAMW_STEP, ADAMW, FOUND_ADAMW, DECAY_SHRINKAGE)
