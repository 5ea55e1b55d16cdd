"""Exercises of chapter 03: the AdamW step."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from mtl_lib.handbook.checks.framework import Case, Exercise, Mistake, call, draw, tensor
from mtl_lib.optim import AdamW

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
        lr, betas, eps, decay: as in `AdamW`.

    Returns:
        The new value.
    """
    parameter = p.detach().clone()
    parameter.grad = None if g is None else g.clone()
    options = dict(lr=lr, betas=betas, eps=eps, weight_decay=decay, form="textbook")
    optimizer = AdamW([parameter], **options)
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
    ) -> None:
        self.gradient, self.means, self.update, self.new = gradient, means, update, new
        self.decay_factor, self.count = decay_factor, count
        self.skip, self.without = skip, without

    def __call__(self, p, g, state, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, decay=0.0):
        if g is None:
            if self.skip:
                return self.without(p, state, lr, decay)
            g = torch.zeros_like(p)
        b1, b2 = betas
        t = state["t"] = self.count(state)
        g = self.gradient(g, p, decay)
        state["m"] = b1 * state.get("m", torch.zeros_like(p)) + (1 - b1) * g
        state["v"] = b2 * state.get("v", torch.zeros_like(p)) + (1 - b2) * g**2
        m, v = self.means(state["m"], state["v"], b1, b2, t)
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
_SMALL = dict(scale=3e-6, eps=1e-6, lr=0.1)  # gradients as small as epsilon

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
            Step(means=lambda m, v, b1, b2, t: (m / (1 - b1**t), v / (1 - b1**t))),
            "Both moments are corrected with the first beta.",
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
            "Epsilon is missing: a gradient of zero divides zero by zero.",
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

EXERCISES = (BIAS_CORRECT, ADAMW_STEP, DECAY_SHRINKAGE)
