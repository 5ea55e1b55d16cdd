"""Answers to the exercises of chapter 03."""

import math

import numpy as np
import torch
from wrong_answers.bank import Bank

bank = Bank()
wrong, right, WRONG, RIGHT = bank.wrong, bank.right, bank.WRONG, bank.RIGHT

# bias_correct


@right("bias_correct")
def by_formula(m, beta, t):
    return m / (1.0 - beta**t)


@right("bias_correct")
def in_numpy(m, beta, t):
    return np.asarray(m) / (1 - np.power(beta, t))


@right("bias_correct")
def by_the_sum_of_weights(m, beta, t):
    total = 0.0
    for k in range(t):
        total += (1 - beta) * beta**k
    return m / total


@right("bias_correct")
def in_torch(m, beta, t):
    return torch.as_tensor(m) / (1 - torch.tensor(beta, dtype=torch.float64) ** t)


@wrong("bias_correct", "counted from 0")
def from_0(m, beta, t):
    t = t - 1
    return m / (1 - beta**t)


@wrong("bias_correct", "one too large")
def one_more(m, beta, t):
    return m / (1 - beta * beta**t)


@wrong("bias_correct", "inverted")
def inverted(m, beta, t):
    return (1 - beta**t) * m


@wrong("bias_correct", "power t is missing")
def no_power(m, beta, t):
    return m / (1 - beta)


@wrong("bias_correct", "power is taken of 1 - beta")
def power_outside(m, beta, t):
    return m / (1 - beta) ** t


@wrong("bias_correct", "Nothing is corrected")
def untouched(m, beta, t):
    return m * 1


@wrong("bias_correct", "raised to the power")
def times_t(m, beta, t):
    return m / (1 - beta * t)


@wrong("bias_correct", "1 less that power")
def by_the_power(m, beta, t):
    return m / beta**t


@wrong("bias_correct", "brackets are missing")
def no_brackets(m, beta, t):
    return m / 1 - beta**t


@wrong("bias_correct", None)
def root(m, beta, t):
    return m / math.sqrt(1 - beta**t)


@wrong("bias_correct", None)
def xor(m, beta, t):
    return m / (1 - (int(beta) ^ t))


@wrong("bias_correct", "got a single number, expected shape (2, 3)")
def loses_the_tensor(m, beta, t):
    return np.mean(np.asarray(m)) / (1 - beta**t)


@wrong("bias_correct", "in your line `return float(m)")
def numbers_only(m, beta, t):
    return float(m) / (1 - beta**t)


@wrong("bias_correct", None)
def cut_off_at_100(m, beta, t):
    return m / (1 - beta**t) if t < 100 else m


@wrong("bias_correct", "changes its input `m`")
def in_place(m, beta, t):
    m /= 1 - beta**t
    return m


# adamw_step


@right("adamw_step")
def literal(p, g, state, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, decay=0.0):
    if g is None:
        return p
    state["t"] = state.get("t", 0) + 1
    state["m"] = betas[0] * state.get("m", 0) + (1 - betas[0]) * g
    state["v"] = betas[1] * state.get("v", 0) + (1 - betas[1]) * g * g
    m = state["m"] / (1 - betas[0] ** state["t"])
    v = state["v"] / (1 - betas[1] ** state["t"])
    return p * (1 - lr * decay) - lr * m / (v**0.5 + eps)


@right("adamw_step")
def torchs_own(p, g, state, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, decay=0.0):
    q = p.clone().requires_grad_()
    optimizer = torch.optim.AdamW([q], lr=lr, betas=betas, eps=eps, weight_decay=decay)
    if "inner" in state:
        optimizer.load_state_dict(state["inner"])
    q.grad = g
    optimizer.step()
    state["inner"] = optimizer.state_dict()
    return q.detach()


@right("adamw_step")
def from_the_history(p, g, state, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, decay=0.0):
    if g is None:
        return p.clone()
    seen = state.setdefault("seen", [])
    seen.append(g.numpy().copy())
    b1, b2 = betas
    t = len(seen)
    w1 = np.array([b1 ** (t - k) for k in range(1, t + 1)])
    w2 = np.array([b2 ** (t - k) for k in range(1, t + 1)])
    m = np.tensordot(w1 / w1.sum(), seen, 1)
    v = np.tensordot(w2 / w2.sum(), np.square(seen), 1)
    return p.numpy() - lr * decay * p.numpy() - lr * m / (np.sqrt(v) + eps)


@right("adamw_step")
def in_place_moments(p, g, state, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, decay=0.0):
    new = p.clone()
    if g is not None:
        if not state:
            state.update(step=0, m=torch.zeros_like(p), v=torch.zeros_like(p))
        state["step"] += 1
        state["m"].lerp_(g, 1 - betas[0])
        state["v"].mul_(betas[1]).addcmul_(g, g, value=1 - betas[1])
        c1, c2 = (1 - b ** state["step"] for b in betas)
        new.mul_(1 - lr * decay)
        new.addcdiv_(state["m"], (state["v"].sqrt() / math.sqrt(c2)).add_(eps), value=-lr / c1)
    return new


@right("adamw_step")
def count_in_float32(p, g, state, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, decay=0.0):
    if g is None:
        return p
    if not state:
        state.update(t=torch.tensor(0.0), m=torch.zeros(p.shape), v=torch.zeros(p.shape))
    state["t"] += 1
    state["m"] = torch.lerp(state["m"].to(g), g, 1 - betas[0])
    state["v"] = state["v"] * betas[1] + (1 - betas[1]) * g.square()
    m, v = state["m"] / (1 - betas[0] ** state["t"]), state["v"] / (1 - betas[1] ** state["t"])
    return p - lr * (decay * p + m / (eps + v.sqrt()))


def _moments(g, state, betas):
    state["t"] = state.get("t", 0) + 1
    state["m"] = betas[0] * state.get("m", 0) + (1 - betas[0]) * g
    state["v"] = betas[1] * state.get("v", 0) + (1 - betas[1]) * g**2
    c1, c2 = 1 - betas[0] ** state["t"], 1 - betas[1] ** state["t"]
    return state["m"] / c1, state["v"] / c2


@wrong("adamw_step", "coupled")
def coupled(p, g, state, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, decay=0.0):
    if g is None:
        return p
    m, v = _moments(g + decay * p, state, betas)
    return p - lr * m / (v.sqrt() + eps)


@wrong("adamw_step", "decay acts twice")
def decays_twice(p, g, state, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, decay=0.0):
    return p if g is None else literal(p, g + decay * p, state, lr, betas, eps, decay)


@wrong("adamw_step", "mean of the gradients")
def no_square(p, g, state, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, decay=0.0):
    if g is None:
        return p
    m, _ = _moments(g, state, betas)
    state["n"] = betas[1] * state.get("n", 0) + (1 - betas[1]) * g
    v = state["n"] / (1 - betas[1] ** state["t"])
    return p - lr * decay * p - lr * m / (v.sqrt() + eps)


@wrong("adamw_step", "counts in full")
def sums_in_place_of_means(p, g, state, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, decay=0.0):
    if g is None:
        return p
    t = state["t"] = state.get("t", 0) + 1
    m = state["m"] = betas[0] * state.get("m", 0) + g
    v = state["v"] = betas[1] * state.get("v", 0) + g * g
    m, v = m / (1 - betas[0] ** t), v / (1 - betas[1] ** t)
    return p - lr * decay * p - lr * m / (v.sqrt() + eps)


@wrong("adamw_step", "not multiplied by the rate")
def decay_without_rate(p, g, state, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, decay=0.0):
    if g is None:
        return p
    m, v = _moments(g, state, betas)
    return (1 - decay) * p - lr * m / (v.sqrt() + eps)


@wrong("adamw_step", "decay is dropped")
def no_decay(p, g, state, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, decay=0.0):
    if g is None:
        return p
    m, v = _moments(g, state, betas)
    return p - lr * m / (v.sqrt() + eps)


@wrong("adamw_step", "after the update")
def decay_after(p, g, state, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, decay=0.0):
    if g is None:
        return p
    m, v = _moments(g, state, betas)
    p = p - lr * m / (v.sqrt() + eps)
    return p - lr * decay * p


@wrong("adamw_step", "bias-corrected rate")
def decay_times_corrected_rate(p, g, state, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, decay=0.0):
    if g is None:
        return p
    m, v = _moments(g, state, betas)
    rate = lr * math.sqrt(1 - betas[1] ** state["t"]) / (1 - betas[0] ** state["t"])
    return p - rate * decay * p - lr * m / (v.sqrt() + eps)


@wrong("adamw_step", "bias correction is missing")
def uncorrected(p, g, state, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, decay=0.0):
    if g is None:
        return p
    _moments(g, state, betas)
    return p - lr * decay * p - lr * state["m"] / (state["v"].sqrt() + eps)


@wrong("adamw_step", "inverted")
def inverted_corrections(p, g, state, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, decay=0.0):
    if g is None:
        return p
    _moments(g, state, betas)
    m = state["m"] * (1 - betas[0] ** state["t"])
    v = state["v"] * (1 - betas[1] ** state["t"])
    return p - lr * decay * p - lr * m / (v.sqrt() + eps)


@wrong("adamw_step", "square root")
def no_square_root(p, g, state, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, decay=0.0):
    if g is None:
        return p
    m, v = _moments(g, state, betas)
    return p - lr * (decay * p + m / (v + eps))


@wrong("adamw_step", "inside the root")
def eps_inside(p, g, state, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, decay=0.0):
    if g is None:
        return p
    m, v = _moments(g, state, betas)
    return p - lr * (decay * p + m / torch.sqrt(v + eps))


@wrong("adamw_step", "efficient form")
def efficient(p, g, state, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, decay=0.0):
    if g is None:
        return p
    _moments(g, state, betas)
    rate = lr * math.sqrt(1 - betas[1] ** state["t"]) / (1 - betas[0] ** state["t"])
    return p - lr * decay * p - rate * state["m"] / (state["v"].sqrt() + eps)


@wrong("adamw_step", "Epsilon is missing")
def no_eps(p, g, state, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, decay=0.0):
    if g is None:
        return p
    m, v = _moments(g, state, betas)
    return p - lr * decay * p - lr * m / v.sqrt()


@wrong("adamw_step", "missing in the denominator")
def eps_after_the_quotient(p, g, state, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, decay=0.0):
    if g is None:
        return p
    m, v = _moments(g, state, betas)
    return p - lr * (decay * p + m / v.sqrt() + eps)


@wrong("adamw_step", "built in")
def eps_built_in(p, g, state, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, decay=0.0):
    return literal(p, g, state, lr, betas, 1e-6, decay)


@wrong("adamw_step", "Only the second moment")
def only_v_corrected(p, g, state, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, decay=0.0):
    if g is None:
        return p
    _, v = _moments(g, state, betas)
    return p - lr * (decay * p + state["m"] / (v.sqrt() + eps))


@wrong("adamw_step", "update is not multiplied")
def update_without_rate(p, g, state, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, decay=0.0):
    if g is None:
        return p
    m, v = _moments(g, state, betas)
    return (1 - lr * decay) * p - m / (v.sqrt() + eps)


@wrong("adamw_step", None)
def default_eps_1e_8(p, g, state, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, decay=0.0):
    return literal(p, g, state, lr, betas, eps, decay)


SEEN = {}


@wrong("adamw_step", None)
def states_by_shape(p, g, state, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, decay=0.0):
    return literal(p, g, SEEN.setdefault(p.shape, {}), lr, betas, eps, decay)


@wrong("adamw_step", None)
def eps_1e_8(p, g, state, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, decay=0.0):
    if g is None:
        return p
    m, v = _moments(g, state, betas)
    return p - lr * decay * p - lr * m / (v.sqrt() + 1e-8)


class GlobalCount:
    """A count kept outside of the states, as a global variable would be."""

    def __init__(self):
        self.t = 0

    def __deepcopy__(self, memo):
        return GlobalCount()

    def __call__(self, p, g, state, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, decay=0.0):
        if g is None:
            return p
        self.t += 1
        m = state["m"] = betas[0] * state.get("m", 0) + (1 - betas[0]) * g
        v = state["v"] = betas[1] * state.get("v", 0) + (1 - betas[1]) * g**2
        m, v = m / (1 - betas[0] ** self.t), v / (1 - betas[1] ** self.t)
        return p - lr * decay * p - lr * m / (v.sqrt() + eps)


WRONG.append(("adamw_step", GlobalCount(), "shared by all parameters"))


@wrong("adamw_step", "never moves on")
def frozen_count(p, g, state, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, decay=0.0):
    if g is None:
        return p
    t = 1
    m = state["m"] = betas[0] * state.get("m", 0) + (1 - betas[0]) * g
    v = state["v"] = betas[1] * state.get("v", 0) + (1 - betas[1]) * g**2
    m, v = m / (1 - betas[0] ** t), v / (1 - betas[1] ** t)
    return p - lr * decay * p - lr * m / (v.sqrt() + eps)


@wrong("adamw_step", "begins at 0")
def count_from_0(p, g, state, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, decay=0.0):
    if g is None:
        return p
    t = state.get("t", 0)
    m = state["m"] = betas[0] * state.get("m", 0) + (1 - betas[0]) * g
    v = state["v"] = betas[1] * state.get("v", 0) + (1 - betas[1]) * g**2
    state["t"] = t + 1
    m, v = m / (1 - betas[0] ** t), v / (1 - betas[1] ** t)
    return p - lr * decay * p - lr * m / (v.sqrt() + eps)


@wrong("adamw_step", "begins at 2")
def count_from_2(p, g, state, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, decay=0.0):
    if g is None:
        return p
    _moments(g, state, betas)
    m = state["m"] / (1 - betas[0] ** (state["t"] + 1))
    v = state["v"] / (1 - betas[1] ** (state["t"] + 1))
    return p - lr * decay * p - lr * m / (v.sqrt() + eps)


@wrong("adamw_step", "as if its gradient were zero")
def none_is_zero(p, g, state, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, decay=0.0):
    g = torch.zeros_like(p) if g is None else g
    m, v = _moments(g, state, betas)
    return p - lr * decay * p - lr * m / (v.sqrt() + eps)


@wrong("adamw_step", "still decays")
def none_still_decays(p, g, state, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, decay=0.0):
    if g is None:
        return p - lr * decay * p
    m, v = _moments(g, state, betas)
    return p - lr * decay * p - lr * m / (v.sqrt() + eps)


@wrong("adamw_step", "moves on without a gradient")
def none_still_counts(p, g, state, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, decay=0.0):
    if g is None:
        state["t"] = state.get("t", 0) + 1
        return p
    m, v = _moments(g, state, betas)
    return p - lr * decay * p - lr * m / (v.sqrt() + eps)


@wrong("adamw_step", "TypeError")
def none_forgotten(p, g, state, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, decay=0.0):
    m, v = _moments(g, state, betas)
    return p - lr * decay * p - lr * m / (v.sqrt() + eps)


@wrong("adamw_step", "changes its input `p`")
def moves_p_in_place(p, g, state, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, decay=0.0):
    if g is None:
        return p
    m, v = _moments(g, state, betas)
    p.mul_(1 - lr * decay)
    return p.sub_(lr * m / (v.sqrt() + eps))


@wrong("adamw_step", "is a return missing?")
def moves_p_and_returns_nothing(p, g, state, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, decay=0.0):
    if g is not None:
        m, v = _moments(g, state, betas)
        p.sub_(lr * m / (v.sqrt() + eps))


@wrong("adamw_step", None)
def default_betas_built_in(p, g, state, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, decay=0.0):
    if g is None:
        return p
    m, v = _moments(g, state, (0.9, 0.999))
    return p - lr * decay * p - lr * m / (v.sqrt() + eps)


@wrong("adamw_step", None)
def torchs_defaults(p, g, state, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, decay=0.01):
    if g is None:
        return p
    m, v = _moments(g, state, betas)
    return p - lr * decay * p - lr * m / (v.sqrt() + eps)


@wrong("adamw_step", "wrong sign: it climbs")
def climbs(p, g, state, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, decay=0.0):
    if g is None:
        return p
    m, v = _moments(-g, state, betas)
    return p - lr * decay * p - lr * m / (v.sqrt() + eps)


@wrong("adamw_step", "betas are exchanged")
def betas_exchanged(p, g, state, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, decay=0.0):
    if g is None:
        return p
    m, v = _moments(g, state, betas[::-1])
    return p - lr * decay * p - lr * m / (v.sqrt() + eps)


@wrong("adamw_step", None)
def amsgrad(p, g, state, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, decay=0.0):
    if g is None:
        return p
    m, v = _moments(g, state, betas)
    v = state["max"] = torch.maximum(v, state.get("max", v))
    return p - lr * decay * p - lr * m / (v.sqrt() + eps)


@wrong("adamw_step", None)
def one_rate_per_tensor(p, g, state, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, decay=0.0):
    if g is None:
        return p
    m, v = _moments(g, state, betas)
    return p - lr * decay * p - lr * m / (v.mean().sqrt() + eps)


@wrong("adamw_step", "corrects them again")
def corrected_means_stored(p, g, state, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, decay=0.0):
    if g is None:
        return p
    m, v = _moments(g, state, betas)
    state["m"], state["v"] = m, v
    return p - lr * decay * p - lr * m / (v.sqrt() + eps)


@wrong("adamw_step", None)
def sign_step(p, g, state, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, decay=0.0):
    return p if g is None else p - lr * decay * p - lr * g.sign()


@wrong("adamw_step", "nor the count is stored")
def nothing_stored(p, g, state, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, decay=0.0):
    return p if g is None else literal(p, g, {}, lr, betas, eps, decay)


@wrong("adamw_step", "m and v are never stored")
def moments_never_stored(p, g, state, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, decay=0.0):
    if g is None:
        return p
    t = state["t"] = state.get("t", 0) + 1
    m, v = state.get("m", 0), state.get("v", 0)
    m = betas[0] * m + (1 - betas[0]) * g
    v = betas[1] * v + (1 - betas[1]) * g**2
    m, v = m / (1 - betas[0] ** t), v / (1 - betas[1] ** t)
    return p - lr * decay * p - lr * m / (v.sqrt() + eps)


# AdamW


@right("AdamW")
class Torchs(torch.optim.AdamW):
    def __init__(self, parameters, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, decay=0.0):
        super().__init__(parameters, lr, betas, eps, weight_decay=decay)

    def step(self):
        self.param_groups[0]["lr"] = self.lr
        super().step()

    @property
    def lr(self):
        return self.param_groups[0]["lr"]

    @lr.setter
    def lr(self, value):
        self.param_groups[0]["lr"] = value


@right("AdamW")
class ByFunction:
    def __init__(self, parameters, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, decay=0.0):
        self.pairs = [(p, {}) for p in parameters]
        self.lr, self.rest = lr, (betas, eps, decay)

    def step(self):
        for p, state in self.pairs:
            p.data = literal(p.data, p.grad, state, self.lr, *self.rest)

    def zero_grad(self):
        for p, _ in self.pairs:
            p.grad = None


@right("AdamW")
class StatesByParameter:
    def __init__(self, parameters, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, decay=0.0):
        self.parameters, self.states = tuple(parameters), {}
        self.lr, self.betas, self.eps, self.decay = lr, betas, eps, decay

    @torch.no_grad()
    def step(self):
        for p in self.parameters:
            if p.grad is None:
                continue
            if p not in self.states:
                self.states[p] = [0, torch.zeros_like(p), torch.zeros_like(p)]
            self.states[p][0] += 1
            t, m, v = self.states[p]
            m.mul_(self.betas[0]).add_(p.grad, alpha=1 - self.betas[0])
            v.mul_(self.betas[1]).addcmul_(p.grad, p.grad, value=1 - self.betas[1])
            m, v = m / (1 - self.betas[0] ** t), v / (1 - self.betas[1] ** t)
            p -= self.lr * self.decay * p + self.lr * m / (v.sqrt() + self.eps)

    def zero_grad(self):
        for p in self.parameters:
            del p.grad


@right("AdamW")
class FlatInFloat64:
    def __init__(self, parameters, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, decay=0.0):
        self.all = [*parameters]
        self.lr, self.betas, self.eps, self.decay = lr, betas, eps, decay
        self.t = np.zeros(len(self.all), dtype=int)
        self.m = [np.zeros(tuple(p.shape)) for p in self.all]
        self.v = [np.zeros(tuple(p.shape)) for p in self.all]

    def step(self):
        for n, p in enumerate(self.all):
            if p.grad is not None:
                g, (b1, b2) = p.grad.double().numpy(), self.betas
                self.t[n] += 1
                self.m[n] = b1 * self.m[n] + (1 - b1) * g
                self.v[n] = b2 * self.v[n] + (1 - b2) * g * g
                m, v = self.m[n] / (1 - b1 ** self.t[n]), self.v[n] / (1 - b2 ** self.t[n])
                new = p.detach().double().numpy() * (1 - self.lr * self.decay)
                new = new - self.lr * m / (np.sqrt(v) + self.eps)
                with torch.no_grad():
                    p[...] = torch.from_numpy(new)

    def zero_grad(self, set_to_none=True):
        for p in self.all:
            p.grad = None


@wrong("AdamW", "used up after one loop")
class Exhausted(ByFunction):
    def __init__(self, parameters, **options):
        super().__init__((), **options)
        self.parameters = parameters
        self.states = {}

    def step(self):
        for n, p in enumerate(self.parameters):
            state = self.states.setdefault(n, {})
            p.data = literal(p.data, p.grad, state, self.lr, *self.rest)

    def zero_grad(self):
        for p in self.parameters:
            p.grad = None


@wrong("AdamW", "starts from an empty state")
class StateMadeInStep(ByFunction):
    def step(self):
        self.pairs = [(p, {}) for p, _ in self.pairs]
        super().step()


@wrong("AdamW", "share one state")
class TheSameDict(ByFunction):
    def __init__(self, parameters, **options):
        super().__init__(parameters, **options)
        states = [{}] * len(self.pairs)
        self.pairs = [(p, state) for (p, _), state in zip(self.pairs, states, strict=True)]


@wrong("AdamW", "of one shape share a state")
class ByShape(ByFunction):
    def __init__(self, parameters, **options):
        super().__init__(parameters, **options)
        states = {}
        self.pairs = [(p, states.setdefault(p.shape, {})) for p, _ in self.pairs]


@wrong("AdamW", "one step count for all")
class CountsCalls(ByFunction):
    calls = 0

    def step(self):
        for _, state in self.pairs:
            state["t"] = self.calls
        self.calls += 1
        super().step()


@wrong("AdamW", "betas are exchanged")
class Exchanged(ByFunction):
    def __init__(self, parameters, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, decay=0.0):
        super().__init__(parameters, lr, (betas[1], betas[0]), eps, decay)


@wrong("AdamW", "decay is coupled")
class Coupled(ByFunction):
    def step(self):
        betas, eps, decay = self.rest
        for p, state in self.pairs:
            g = None if p.grad is None else p.grad + decay * p.data
            p.data = literal(p.data, g, state, self.lr, betas, eps, 0.0)


@wrong("AdamW", "decay is dropped")
class NoDecay(ByFunction):
    def __init__(self, parameters, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, decay=0.0):
        super().__init__(parameters, lr, betas, eps)


@wrong("AdamW", "`eps` never reaches")
class EpsForgotten(ByFunction):
    def step(self):
        betas, _, decay = self.rest
        for p, state in self.pairs:
            p.data = literal(p.data, p.grad, state, self.lr, betas, decay=decay)


@wrong("AdamW", "`lr` never reaches")
class RateForgotten(ByFunction):
    def step(self):
        betas, eps, decay = self.rest
        for p, state in self.pairs:
            p.data = literal(p.data, p.grad, state, betas=betas, eps=eps, decay=decay)


@wrong("AdamW", "`lr` is read once")
class RateFixed(ByFunction):
    def __init__(self, parameters, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, decay=0.0):
        super().__init__(parameters, lr, betas, eps, decay)
        self.first = lr

    def step(self):
        self.lr = self.first
        super().step()


@wrong("AdamW", "as if its gradient were zero")
class NoneIsZero(ByFunction):
    def step(self):
        for p, _ in self.pairs:
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
        super().step()


@wrong("AdamW", "leaves zeros")
class FillsZeros(ByFunction):
    def zero_grad(self):
        for p, _ in self.pairs:
            if p.grad is not None:
                p.grad.zero_()


@wrong("AdamW", "leaves the gradients")
class ZeroGradForgotten(ByFunction):
    def zero_grad(self):
        pass


@wrong("AdamW", "never move")
class BindsANewName(ByFunction):
    def step(self):
        for p, state in self.pairs:
            p = literal(p.data, p.grad, state, self.lr, *self.rest)


@wrong("AdamW", "inside `torch.no_grad()`")
class RecordsTheStep(ByFunction):
    def step(self):
        for p, state in self.pairs:
            p.copy_(literal(p, p.grad, state, self.lr, *self.rest))


@wrong("AdamW", None)
class OneCountForEachMove(ByFunction):
    moves = 0

    def step(self):
        for p, state in self.pairs:
            state["t"] = self.moves
            self.moves += p.grad is not None
            p.data = literal(p.data, p.grad, state, self.lr, *self.rest)


@wrong("AdamW", None)
class OtherEpsilon(ByFunction):
    def __init__(self, parameters, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, decay=0.0):
        super().__init__(parameters, lr, betas, eps, decay)


@wrong("AdamW", "AttributeError")
class NoZeroGrad:
    def __init__(self, parameters, **options):
        self.inner = ByFunction(parameters, **options)

    def step(self):
        self.inner.step()


# FoundAdamW

right("FoundAdamW")(Torchs)
right("FoundAdamW")(StatesByParameter)


class Found(ByFunction):
    """As it stands in the chapter; what is mended is named."""

    mended = ()

    def __init__(self, parameters, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, decay=0.0):
        super().__init__(parameters, lr, betas, eps, decay)
        self.keep = 1 - lr * decay

    @torch.no_grad()
    def step(self):
        (b1, b2), eps, decay = self.rest
        for p, state in self.pairs:
            g = p.grad
            if g is None or (not g.any() and "zero" not in self.mended):
                continue
            if not state:
                state.update(t=0, m=torch.zeros_like(p), v=torch.zeros_like(p))
            state["t"] += 1
            m = state["m"].mul_(b1).add_((1 - b1) * g)
            v = state["v"].mul_(b2).add_((1 - b2) * g**2)
            if "in place" in self.mended:
                m, v = m.clone(), v.clone()
            if "m in place" in self.mended:
                m = m.clone()
            m /= 1 - b1 ** state["t"]
            v /= 1 - b2 ** state["t"]
            keep = 1 - self.lr * decay if "rate" in self.mended else self.keep
            p.copy_(keep * p - self.lr * m / (v.sqrt() + eps))


wrong("FoundAdamW", "All three faults")(Found)


@wrong("FoundAdamW", "One of the three faults is still there: it goes wrong once `lr` is set anew.")
class OnlyTheRateLeft(Found):
    mended = ("zero", "in place")


@wrong(
    "FoundAdamW", "One of the three faults is still there: it goes wrong after a gradient of zeros"
)
class OnlyTheZeroLeft(Found):
    mended = ("rate", "in place")


@wrong("FoundAdamW", "Two of the three faults")
class TwoLeft(Found):
    mended = ("rate",)


@wrong("FoundAdamW", "half mended")
class OneMeanLeft(Found):
    mended = ("rate", "zero", "m in place")


@wrong("FoundAdamW", "half mended")
class OneMeanFirst(Found):
    mended = ("m in place",)


@wrong("FoundAdamW", None)
class MendedTooMuch(Found):
    mended = ("rate", "zero", "in place")

    def step(self):
        for p, _ in self.pairs:
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
        super().step()


# decay_shrinkage


@right("decay_shrinkage")
def step_after_step(lr, decay, steps):
    weight = 1.0
    for _ in range(steps):
        weight -= lr * decay * weight
    return weight


@right("decay_shrinkage")
def through_logarithms(lr, decay, steps):
    return math.exp(steps * math.log1p(-lr * decay))


@right("decay_shrinkage")
def in_float32(lr, decay, steps):
    return torch.tensor(1 - lr * decay, dtype=torch.float32).pow(steps)


@right("decay_shrinkage")
def numpy_power(lr, decay, steps):
    return np.power(np.float64(1) - lr * decay, steps)


@wrong("decay_shrinkage", "rate is forgotten")
def no_rate(lr, decay, steps):
    return (1 - decay) ** steps


@wrong("decay_shrinkage", "steps are ignored")
def one_step(lr, decay, steps):
    return 1 - decay * lr


@wrong("decay_shrinkage", "same amount")
def straight_down(lr, decay, steps):
    return 1 - steps * decay * lr


@wrong("decay_shrinkage", "what is lost")
def lost(lr, decay, steps):
    return 1 - (1 - lr * decay) ** steps


@wrong("decay_shrinkage", "what each step takes away")
def taken(lr, decay, steps):
    return (lr * decay) ** steps


@wrong("decay_shrinkage", "nearly right")
def exponential(lr, decay, steps):
    return np.exp(-lr * decay * steps)


@wrong("decay_shrinkage", "weight grows")
def grows(lr, decay, steps):
    return (1 + lr * decay) ** steps


@wrong("decay_shrinkage", None)
def off_by_one(lr, decay, steps):
    return (1 - lr * decay) ** (steps - 1)


@wrong("decay_shrinkage", None)
def never(lr, decay, steps):
    return 1.0


@wrong("decay_shrinkage", None)
def rate_minus_decay(lr, decay, steps):
    return (1 - lr - decay) ** steps


@wrong("decay_shrinkage", None)
def percent(lr, decay, steps):
    return 100 * (1 - lr * decay) ** steps


@wrong("decay_shrinkage", None)
def clipped(lr, decay, steps):
    return max(0.0, 1 - steps * decay * lr)
