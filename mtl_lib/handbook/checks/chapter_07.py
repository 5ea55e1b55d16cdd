"""Exercises of chapter 07: norms, dropout, layers."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from mtl_lib.handbook.checks.framework import (
    Case,
    Detached,
    Exercise,
    Mistake,
    WrongKind,
    draw,
    tensor,
    with_gradient,
)
from mtl_lib.handbook.checks.precise import precisely, question
from mtl_lib.methods import regularizers


def _normal(*shape: int, seed: int) -> Tensor:
    return draw(*shape, seed=seed, dtype=torch.float64)


# lp_penalty

_MATRICES = [_normal(3, 4, seed=1), 2 * _normal(2, 3, seed=2)]
_LARGEST_NEGATIVE = [torch.tensor([[0.5, -4.0, 3.0], [1.0, 2.0, -0.25]]).double()]
_NAMES = {1: "p = 1", 2: "p = 2", math.inf: "p = infinity"}


def _ask_penalty(matrices: list[Tensor], p: float) -> Callable:
    """Value and gradients; a list of matrices cannot be handed to `with_gradient` as it is."""
    inputs = {f"matrix {number}": matrix for number, matrix in enumerate(matrices, start=1)}
    return precisely(lambda answer: with_gradient(lambda *w: answer(list(w), p), **inputs))


def _flat(weights: list[Tensor]) -> Tensor:
    return torch.cat([weight.flatten() for weight in weights])


def _by_p(one: Callable, two: Callable, largest: Callable) -> Callable:
    """A variant: what it does with all weights `[N]` for each of the three p."""
    return lambda weights, p: {1: one, 2: two, math.inf: largest}[p](_flat(weights))


def _l1(w: Tensor) -> Tensor:
    return w.abs().sum()


def _l2(w: Tensor) -> Tensor:
    return torch.linalg.vector_norm(w)


def _rooted(w: Tensor) -> Tensor:
    return (w**2).sum().sqrt()


def _largest(w: Tensor) -> Tensor:
    return w.abs().max()


def _per_matrix(weights: list[Tensor], p: float) -> Tensor:
    return sum(regularizers.lp_penalty([weight], p) for weight in weights)


def _operator_norms(weights: list[Tensor], p: float) -> Tensor:
    return sum(torch.linalg.matrix_norm(weight, p) for weight in weights)


def _detached(weights: list[Tensor], p: float) -> Tensor:
    return regularizers.lp_penalty(weights, p).detach()


def _with_either_root(wrong: Callable[[Callable], Callable], says: str) -> list[Mistake]:
    """A mistake besides which the root for p = 2 is the library's or written out."""
    return [Mistake(wrong(two), says) for two in (_l2, _rooted)]


LP_PENALTY = Exercise(
    name="lp_penalty",
    chapter=7,
    title="three norms",
    section="Regularisation",
    difficulty=2,
    importance=4,
    minutes=10,
    task="""
Write `lp_penalty(weights, p)`: a list of weight matrices of any shapes, and p, which is 1, 2 or
`math.inf`, to a scalar tensor: $||w||_p$ of *all* entries of *all* matrices, taken as one vector.

The norm itself, neither squared nor averaged, not multiplied by 0.05. The training loop calls
backward on it; where all weights are 0, the gradient for p = 2 is 0.
""",
    hint="What would the vector look like if all matrices were unrolled into it? The largest size "
    "may belong to a negative number.",
    reference=regularizers.lp_penalty,
    cases=(
        *(question(f"one matrix, {name}", _LARGEST_NEGATIVE, p) for p, name in _NAMES.items()),
        *(
            Case(f"two matrices and their gradients, {name}", _ask_penalty(_MATRICES, p))
            for p, name in _NAMES.items()
        ),
        *(
            Case(
                f"a long and a short matrix, {name}",
                _ask_penalty([_normal(1, 40, seed=3), _normal(2, 1, seed=4)], p),
            )
            for p, name in _NAMES.items()
        ),
        Case("all zero, p = 2", _ask_penalty([torch.zeros(2, 3).double()], 2)),
    ),
    mistakes=(
        *_with_either_root(
            lambda two: _by_p(_l1, two, lambda w: w.max()),
            "For p = infinity it takes the largest entry; the largest *size* may belong to a "
            "negative one.",
        ),
        *_with_either_root(
            lambda two: _by_p(_l1, two, lambda w: (w.abs() ** math.inf).sum() ** (1 / math.inf)),
            "For p = infinity the formula with roots and powers breaks down: 1 / infinity is 0, "
            "and any number to the power 0 is 1. What it tends to as p grows is the largest size.",
        ),
        *_with_either_root(
            lambda two: _by_p(lambda w: w.sum(), two, _largest),
            "For p = 1 it adds the entries with their signs, so that they cancel.",
        ),
        *_with_either_root(
            lambda two: _by_p(lambda w: w.sum(), two, lambda w: w.max()),
            "Signs are kept: a norm looks at sizes.",
        ),
        *(
            Mistake(
                _by_p(_l1, lambda w, share=share: share * (w**2).sum(), _largest),
                "For p = 2 it gives a squared norm, which pulls large weights harder still; the "
                "norm has a root.",
            )
            for share in (1, 0.5)
        ),
        *_with_either_root(
            lambda two: _by_p(lambda w: w.abs().mean(), lambda w: two(w / len(w) ** 0.5), _largest),
            "It takes means; a norm adds up.",
        ),
        *_with_either_root(
            lambda two: _by_p(lambda w: w.abs().mean(), two, _largest),
            "For p = 1 it takes the mean size; a norm adds up.",
        ),
        Mistake(
            _per_matrix,
            "It adds the norms of the single matrices; asked is one norm of all entries as one "
            "vector (for p = 1 the two agree).",
        ),
        Mistake(
            _operator_norms,
            "Given a matrix, that function computes an operator norm (a largest column sum, a "
            "largest singular value, a largest row sum); unroll the matrices into a vector first.",
        ),
        Mistake(
            lambda weights, p: regularizers.lp_penalty(weights[:1], p),
            "It looks at the first matrix only.",
        ),
        *_with_either_root(
            lambda two: lambda weights, p: two(_flat(weights)),
            "It gives the same for every p.",
        ),
        Mistake(
            _by_p(_l1, _rooted, _largest),
            "For p = 2 its gradient is NaN where all weights are 0: the slope of a root is "
            "infinite there. PyTorch's own norm of a vector gives 0.",
        ),
        Mistake(_detached, Detached.says),
        Mistake(
            lambda weights, p: 0.05 * regularizers.lp_penalty(weights, p),
            "The factor 0.05 is in it already; the loop multiplies by it.",
        ),
    ),
    notes="`torch.norm(matrix, p)` and `torch.linalg.norm(matrix, p)` differ for matrices: the "
    "second gives operator norms. The missing absolute value at infinity passes every test whose "
    "largest weight happens to be positive. 2 points.",
)


# sorted_weights_over_time

_RUN = _normal(5, 7, seed=5) * torch.linspace(1, 0.3, 5, dtype=torch.float64)[:, None]
_CROSSING = torch.tensor([[3.0, -1.0, 2.0], [1.0, -1.5, 0.5], [-0.2, -0.1, 0.4]]).double()


def sorted_weights_over_time(run: Tensor) -> Tensor:
    """Sizes |w|, the largest first, at every step on its own: `[S, N]` -> `[S, N]`."""
    return run.abs().sort(dim=1, descending=True).values


def _in_order_of(run: Tensor, step: int) -> Tensor:
    return run.abs()[:, run[step].abs().argsort(descending=True)]


SORTED_WEIGHTS = Exercise(
    name="sorted_weights_over_time",
    chapter=7,
    title="the waterline",
    difficulty=1,
    importance=3,
    minutes=5,
    task="""
Write `sorted_weights_over_time(run)`: `[S, N]`, the N weights after each of S steps, to `[S, N]`:
in each row the *sizes* of that step's weights, the largest first. Plotted, this is the picture of
sorted weights at each step; which weight a size belongs to is given up.
""",
    hint="Signs first, then order. Along which axis does a single step lie?",
    reference=sorted_weights_over_time,
    cases=(
        question("three weights that overtake each other", _CROSSING),
        question("five steps, seven weights", _RUN),
        question("one step", _RUN[:1]),
        question("one weight", _RUN[:, :1]),
        question("a zero weight", _RUN * torch.tensor([1, 0, 1, 1, 0, 1, 1])),
    ),
    mistakes=(
        Mistake(
            lambda run: run.abs().sort(dim=0, descending=True).values,
            "It sorts every weight's history; each step is to be sorted on its own.",
        ),
        Mistake(
            lambda run: run.sort(dim=1, descending=True).values,
            "Signs are kept: a large negative weight is a large weight.",
        ),
        Mistake(
            lambda run: run.gather(1, run.abs().argsort(dim=1, descending=True)),
            "The order is right, but the weights still have their signs; asked are sizes.",
        ),
        Mistake(
            lambda run: run.sort(dim=1, descending=True).values.abs(),
            "It sorts first and drops the signs afterwards; then the sizes are not in order.",
        ),
        Mistake(
            lambda run: run.abs().sort(dim=1).values,
            "The smallest come first; asked is the largest first.",
        ),
        Mistake(
            lambda run: _in_order_of(run, 0),
            "It puts every step into the first step's order; each step has its own.",
        ),
        Mistake(
            lambda run: _in_order_of(run, -1),
            "It puts every step into the last step's order; each step has its own.",
        ),
        Mistake(
            lambda run: run.abs().flatten().sort(descending=True).values.view_as(run),
            "It sorts all steps together; each step is to be sorted on its own.",
        ),
    ),
    notes="A warm-up; its use is the picture. Sorting by the first step shows single weights, "
    "not the waterline. 1 point.",
)


# dropout


def dropout(x: Tensor, kept: Tensor, p: float, training: bool) -> Tensor:
    """Inverted dropout with the mask given, as in `torch.nn.functional.dropout`: shape of x."""
    return x * kept / (1 - p) if training else x.clone()


_X = _normal(3, 5, seed=6)
_KEPT = (draw(3, 5, seed=7) > -0.5).double()


def _ask_dropout(p: float, training: bool) -> Callable:
    def ask(answer: Callable) -> dict:
        return with_gradient(lambda x: answer(x, _KEPT.clone(), p, training), x=_X)

    return precisely(ask)


DROPOUT = Exercise(
    name="dropout",
    chapter=7,
    title="dropout, train and eval",
    section="Regularisation",
    difficulty=1,
    importance=3,
    minutes=5,
    task="""
Write `dropout(x, kept, p, training)`. `x` and `kept` have the same shape; `kept` has been drawn
already: 1.0 where an entry stays (probability $1 - p$), 0.0 where it is dropped. Return a tensor of
that shape.

In training (`training` is `True`) the expected value of every entry, over masks, has to be the
entry itself. In eval mode nothing happens. $0 \\le p < 1$.
""",
    hint="An entry 1 stays with probability 1 - p, and is 0 otherwise. What is its mean, and what "
    "makes that mean 1 again?",
    reference=dropout,
    cases=(
        question("training, p = 0.3", _X, _KEPT, 0.3, True),
        question("eval, p = 0.3", _X, _KEPT, 0.3, False),
        question("training, p = 0.5", _X, _KEPT, 0.5, True),
        question("training, p = 0, all kept", _X, torch.ones(3, 5).double(), 0.0, True),
        Case("gradient in training", _ask_dropout(0.25, True)),
        Case("gradient in eval", _ask_dropout(0.25, False)),
    ),
    mistakes=(
        Mistake(
            lambda x, kept, p, training: x * kept if training else x.clone(),
            "In training the entries that stay are too small: their mean over masks is (1 - p) x.",
        ),
        Mistake(
            lambda x, kept, p, training: x * kept if training else x * (1 - p),
            "That is the original dropout, which shrinks in eval mode; here eval mode leaves x "
            "alone, and training makes up for it.",
        ),
        Mistake(
            lambda x, kept, p, training: x * kept / (1 - p),
            "It drops in eval mode too: predictions would be random.",
        ),
        Mistake(
            lambda x, kept, p, training: x.clone() if training else x * kept / (1 - p),
            "It drops in eval mode and not in training.",
        ),
        Mistake(
            lambda x, kept, p, training: x * kept * (1 - p) if training else x.clone(),
            "It makes what stays smaller; the entries that stay have to make up for those dropped.",
        ),
        Mistake(
            lambda x, kept, p, training: x * (1 - kept) / (1 - p) if training else x.clone(),
            "It drops what `kept` says to keep.",
        ),
        Mistake(
            lambda x, kept, p, training: dropout(x, kept, 1 - p, training) if p else x * kept,
            "It divides by p, the share that goes; what stays is a share 1 - p.",
        ),
        Mistake(
            lambda x, kept, p, training: x * kept / p if training else x.clone(),
            "It divides by p, the share that goes; what stays is a share 1 - p.",
        ),
    ),
    notes="At p = 0.5 half of the mistakes cannot be seen, which is why the first case is 0.3. "
    "Dropping in eval mode is the one that costs hours. 1 point.",
)


# InvertedDropout


class InvertedDropout(nn.Module):
    """Dropout as a layer, in the place of `nn.Dropout`: a new mask at every call in training.

    Args:
        p: share of the entries that are dropped, 0 <= p < 1.
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same shape."""
        kept = torch.empty_like(x).bernoulli_(1 - self.p)
        return dropout(x, kept, self.p, self.training)


class _Variant(InvertedDropout):
    """A wrong layer: what it does with x, the share that stays, and the mode."""

    def kept(self, x: Tensor) -> Tensor:
        return torch.empty_like(x).bernoulli_(1 - self.p)

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.kept(x), self.p, self.training)


class _OneMask(_Variant):
    """Drawn at the first call, and again only where the shape is another."""

    mask: Tensor | None = None

    def kept(self, x: Tensor) -> Tensor:
        if self.mask is None or self.mask.shape != x.shape:
            self.mask = super().kept(x).detach()
        return self.mask


class _KeepsP(_Variant):
    """p is the share that stays, in the mask and in the factor."""

    def forward(self, x: Tensor) -> Tensor:
        kept = torch.empty_like(x).bernoulli_(self.p)
        return (x * kept / self.p if self.p else x * kept) if self.training else x


class _KeepsPScaledByRest(_Variant):
    """p is the share that stays, in the mask only."""

    def kept(self, x: Tensor) -> Tensor:
        return torch.empty_like(x).bernoulli_(self.p)


class _AlwaysOn(_Variant):
    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.kept(x), self.p, True)


class _NotScaled(_Variant):
    def forward(self, x: Tensor) -> Tensor:
        return x * self.kept(x) if self.training else x


class _ShrinksInEval(_Variant):
    def forward(self, x: Tensor) -> Tensor:
        return x * self.kept(x) if self.training else x * (1 - self.p)


class _NeverOn(_Variant):
    def forward(self, x: Tensor) -> Tensor:
        return x.clone()


class _WholeRows(_Variant):
    """One decision for each row."""

    def kept(self, x: Tensor) -> Tensor:
        return super().kept(x[..., :1]).expand_as(x)


class _OneRowForAll(_Variant):
    """One mask for the last axis, the same for every row."""

    def kept(self, x: Tensor) -> Tensor:
        return super().kept(x.reshape(-1, x.shape[-1])[0]).expand_as(x)


class _OneForAll(_Variant):
    """The whole input, or nothing of it."""

    def kept(self, x: Tensor) -> Tensor:
        return super().kept(x.flatten()[:1]).expand(x.shape)


class _OwnFlag(_Variant):
    """A flag of its own, which `eval()` of the model around it does not reach."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)
        self.train_mode = True

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.kept(x), self.p, self.train_mode)


class _InPlace(_Variant):
    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(self.kept(x) / (1 - self.p)) if self.training else x


class _StillKeepsP(_OneMask):
    """The colleague's, without always being on."""

    def kept(self, x: Tensor) -> Tensor:
        if self.mask is None or self.mask.shape != x.shape:
            self.mask = (torch.rand_like(x) < self.p).to(x)
        return self.mask


class _StillOn(_OneMask):
    """The colleague's, with p the share that goes."""

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.kept(x), self.p, True)


class _StillBoth(_Variant):
    """The colleague's, with a new mask at each call."""

    def kept(self, x: Tensor) -> Tensor:
        return (torch.rand_like(x) < self.p).to(x)

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.kept(x), self.p, True)


class _Colleague(_StillKeepsP):
    """The layer of the bug hunt, with all its three faults."""

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.kept(x), self.p, True)


_INPUT = _normal(400, 400, seed=8).abs() + 1  # no entry is 0 by itself


def _layer_in_training(layer: type, p: float) -> dict:
    """What can be said of a layer's masks without knowing its random numbers."""
    torch.manual_seed(3)
    layer = layer(p)
    first, second = tensor(layer(_INPUT.clone())), tensor(layer(_INPUT.clone()))
    stays = first != 0
    factor = (first / _INPUT)[stays]
    share = stays.double().mean().item()
    return {
        "shape": list(first.shape),
        "share that stays": 1 - p if abs(share - (1 - p)) < 0.08 else round(share, 1),
        "smallest factor of what stays": factor.min() if len(factor) else torch.tensor(math.nan),
        "largest factor of what stays": factor.max() if len(factor) else torch.tensor(math.nan),
        "some row is dropped in part": bool((stays.any(dim=1) & ~stays.all(dim=1)).any()),
        "rows have different masks": bool((stays != stays[:1]).any()),
        "two calls have different masks": bool((stays != (second != 0)).any()),
    }


def _as_seen(out: Tensor, x: Tensor) -> Tensor | str:
    """What came out, or that entries were dropped: which ones, the random numbers say."""
    return "some entries are dropped" if bool((tensor(out) == 0).any()) else out


def _layer_in_a_model(layer: type) -> dict:
    """Inside a model, whose mode it has to follow."""
    torch.manual_seed(4)
    model = nn.Sequential(layer(0.25), nn.Identity())
    x, given = _INPUT[:4].clone(), _INPUT[:4].clone()
    before = _as_seen(model.eval()(x.clone()), x)
    model.train()
    random = bool((tensor(model(given)) != x).any())
    model.eval()
    return {
        "eval mode": before,
        "changes something in train mode": random,
        "its input stays as it is": bool((given == x).all()),
        "eval mode once more": _as_seen(model(x.clone()), x),
        "weights to learn": len(list(model.parameters())),
    }


def _layer_with_gradient(layer: type) -> dict:
    torch.manual_seed(5)
    layer = layer(0.5)
    x = _INPUT[:3].clone().requires_grad_()
    out = layer(x)
    if not isinstance(out, Tensor) or not out.requires_grad:
        raise Detached
    (gradient,) = torch.autograd.grad(out.sum(), x)
    return {"gradient minus output / input": gradient - (out / x).detach()}


def _layer_without_loss(layer: type) -> Tensor:
    layer = layer(0.0)
    return tensor(layer(_INPUT[:2, :5].clone()))


INVERTED_DROPOUT = Exercise(
    name="InvertedDropout",
    chapter=7,
    title="bug hunt: a colleague's dropout layer",
    section="Regularisation",
    difficulty=2,
    importance=3,
    minutes=10,
    task="""
The class above runs, has the right shape, and has three faults. Find them, then write
`InvertedDropout(p)`, an `nn.Module` that stands where `nn.Dropout(p)` stands:

- `forward(x)`: a tensor of any shape to the same shape. In training each entry is dropped with
  probability p, on its own, and what stays makes up for it; in eval mode nothing happens.
- Each call draws new random numbers.
- `model.train()` and `model.eval()` of the model around it reach this layer too.

Your `dropout` is there to be called. $0 \\le p < 1$.
""",
    hint="`nn.Module` keeps the mode in `self.training`. `torch.empty_like(x).bernoulli_(q)` draws "
    "1 with probability q. When are the random numbers drawn, and what is q?",
    reference=InvertedDropout,
    cases=(
        Case("in training, p = 0.3", precisely(lambda layer: _layer_in_training(layer, 0.3))),
        Case("in training, p = 0.5", precisely(lambda layer: _layer_in_training(layer, 0.5))),
        Case("in training, p = 0.9", precisely(lambda layer: _layer_in_training(layer, 0.9))),
        Case("inside a model, train and eval", precisely(_layer_in_a_model)),
        Case("gradient in training", precisely(_layer_with_gradient)),
        Case("p = 0", precisely(_layer_without_loss)),
    ),
    mistakes=(
        Mistake(
            _Colleague,
            "All three faults are in it still: when the mask is drawn, what p means, and which "
            "mode the model is in.",
        ),
        Mistake(
            _StillKeepsP,
            "Two of the three faults are in it still: the mask is drawn once and kept, and p is "
            "the share that stays.",
        ),
        Mistake(
            _StillOn,
            "Two of the three faults are in it still: the mask is drawn once and kept, and eval "
            "mode drops as well.",
        ),
        Mistake(
            _StillBoth,
            "Two of the three faults are in it still: p is the share that stays, and eval mode "
            "drops as well.",
        ),
        Mistake(
            _InPlace,
            "It writes into its input, which the layer before still needs for its gradient.",
        ),
        Mistake(
            _OneMask,
            "The mask is drawn once and kept: the same entries are dropped at every call, and the "
            "others never learn to do without them.",
        ),
        *(
            Mistake(
                wrong,
                "It keeps a share p and drops the rest; p is the share that goes. (At p = 0.5 "
                "nobody sees it.)",
            )
            for wrong in (_KeepsP, _KeepsPScaledByRest)
        ),
        *(
            Mistake(
                wrong,
                "It drops in eval mode too: every prediction would be random. The mode is in "
                "`self.training`.",
            )
            for wrong in (_AlwaysOn, _OwnFlag)
        ),
        Mistake(
            _NotScaled,
            "What stays is not made larger, so the mean over masks is (1 - p) x, and eval mode "
            "sees inputs that training never saw.",
        ),
        Mistake(
            _ShrinksInEval,
            "That is the original dropout, which shrinks in eval mode; here eval mode leaves x "
            "alone, and training makes up for it.",
        ),
        Mistake(_NeverOn, "Nothing is ever dropped."),
        Mistake(
            _WholeRows,
            "It drops whole rows; each entry is dropped on its own.",
        ),
        Mistake(
            _OneRowForAll,
            "Every row has the same mask; each entry is dropped on its own.",
        ),
        Mistake(_OneForAll, "It drops the whole input or nothing; each entry is dropped alone."),
    ),
    notes="Three faults that survive a test at p = 0.5 with one call in train mode. A mask kept "
    "from the first call is the one that looks like good engineering. 2 points.",
)


# penalised

Backward = Callable[[list[Tensor], nn.Module], None]


def penalised(backward: Backward, task: str, p: float, strength: float) -> Backward:
    """A backward for `joint_step` that adds `strength * ||w||_p` of one head to its task's loss.

    Args:
        backward: takes the losses, one for each of `model.heads` in their order, and the model,
            and fills the parameters' `.grad`.
        task: name of the task.
        p, strength: as in `lp_penalty`, and its factor.
    """

    def with_penalty(losses: list[Tensor], model: nn.Module) -> None:
        matrices = [weight for weight in model.heads[task].parameters() if weight.dim() == 2]
        place = list(model.heads).index(task)
        changed = list(losses)
        changed[place] = losses[place] + strength * regularizers.lp_penalty(matrices, p)
        return backward(changed, model)

    return with_penalty


class _Joint(nn.Module):
    """A shared layer and three heads, that of similarity with two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(5, 4)
        self.heads = nn.ModuleDict(
            {
                "sentiment": nn.Sequential(nn.Dropout(0.0), nn.Linear(4, 5)),
                "paraphrase": nn.Linear(4, 1),
                "similarity": nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1)),
            }
        )

    def losses(self) -> list[Tensor]:
        vectors = self.encoder(_normal(6, 5, seed=9))
        return [(head(vectors) ** 2).mean() for head in self.heads.values()]


def _sum(losses: list[Tensor], model: nn.Module) -> None:
    torch.stack(list(losses)).sum().backward()


def _weighted(losses: list[Tensor], model: nn.Module) -> None:
    """A backward that is no plain sum: like surgery, it writes `.grad` anew."""
    total = sum(weight * loss for weight, loss in zip((0.5, 2.0, 3.0), losses, strict=True))
    parameters = list(model.parameters())
    for parameter, gradient in zip(
        parameters, torch.autograd.grad(total, parameters, allow_unused=True), strict=True
    ):
        parameter.grad = gradient


def _ask_joint(
    backward: Backward, task: str, p: float, strength: float, steps: int = 1
) -> Callable:
    """What reaches the backward, all gradients behind it, and the caller's list afterwards."""

    def ask(answer: Callable) -> dict:
        torch.manual_seed(6)
        model, reached = _Joint(), []

        def watched(losses: list[Tensor], model: nn.Module) -> None:
            reached.append([loss.item() for loss in losses])
            backward(losses, model)

        mine = answer(watched, task, p, strength)
        if not callable(mine):
            what = "nothing (is a return missing?)" if mine is None else type(mine).__name__
            raise WrongKind(f"it returns {what}, expected a function (losses, model)")
        for _ in range(steps):
            losses = model.losses()
            given, before = list(losses), [loss.item() for loss in losses]
            model.zero_grad()
            mine(losses, model)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter -= 0 if parameter.grad is None else 0.1 * parameter.grad
        same = len(losses) == len(given) and all(a is b for a, b in zip(losses, given, strict=True))
        return {
            "losses that reach `backward`": reached,
            **{
                f"gradient of {name}": torch.zeros_like(w) if w.grad is None else w.grad
                for name, w in model.named_parameters()
            },
            "the caller's list holds the same losses": same,
            "they have the same values": [loss.item() for loss in given] == before,
        }

    return precisely(ask)


def _penalty_variant(change: Callable) -> Callable:
    """A wrong `penalised`; `change(losses, place, model, task, penalty)` gives the new losses.

    `penalty(weights)` is strength * ||w||_p.
    """

    def variant(backward: Backward, task: str, p: float, strength: float) -> Backward:
        def penalty(weights) -> Tensor:
            return strength * regularizers.lp_penalty(list(weights), p)

        def with_penalty(losses: list[Tensor], model: nn.Module) -> None:
            place = list(model.heads).index(task)
            backward(change(losses, place, model, task, penalty), model)

        return with_penalty

    return variant


def _matrices(module: nn.Module) -> list[Tensor]:
    return [weight for weight in module.parameters() if weight.dim() == 2]


def _plus(losses: list[Tensor], place: int, extra: Tensor) -> list[Tensor]:
    return [loss + extra if i == place else loss for i, loss in enumerate(losses)]


def _around_backward(backward: Backward, task: str, p: float, strength: float) -> Backward:
    """The penalty has a backward of its own, behind the given one."""

    def with_penalty(losses: list[Tensor], model: nn.Module) -> None:
        backward(losses, model)
        (strength * regularizers.lp_penalty(_matrices(model.heads[task]), p)).backward()

    return with_penalty


def _before_backward(backward: Backward, task: str, p: float, strength: float) -> Backward:
    def with_penalty(losses: list[Tensor], model: nn.Module) -> None:
        (strength * regularizers.lp_penalty(_matrices(model.heads[task]), p)).backward()
        backward(losses, model)

    return with_penalty


def _backward_forgotten(backward: Backward, task: str, p: float, strength: float) -> Backward:
    return penalised(_sum, task, p, strength)


def _never_called(backward: Backward, task: str, p: float, strength: float) -> Backward:
    return lambda losses, model: None


def _factor_forgotten(backward: Backward, task: str, p: float, strength: float) -> Backward:
    return penalised(backward, task, p, 1.0)


def _fixed_factor(backward: Backward, task: str, p: float, strength: float) -> Backward:
    return penalised(backward, task, p, 0.05)


def _in_the_list(losses, place, model, task, penalty):
    losses[place] = losses[place] + penalty(_matrices(model.heads[task]))
    return losses


def _in_the_tensor(losses, place, model, task, penalty):
    losses[place] += penalty(_matrices(model.heads[task]))
    return losses


_CALLERS_LIST = (
    "It writes the penalised loss into the caller's list: the loop would note it as the task's "
    "loss. Make a list of your own."
)

PENALISED = Exercise(
    name="penalised",
    chapter=7,
    title="a penalty in your own training loop",
    section="Regularisation",
    difficulty=4,
    importance=4,
    minutes=20,
    task="""
Your `joint_step(model, batches, optimizer, backward)` of chapter 05 computes one loss for each task
and hands them to `backward(losses, model)`, which fills every parameter's `.grad`. So a penalty
needs no new loop, only another `backward`.

Write `penalised(backward, task, p, strength)`. It returns a *function*
`with_penalty(losses, model)` that stands where a backward stands:

- To the loss of `task` it adds `strength` times $||w||_p$ of that task's head: of all weight
  *matrices* of `model.heads[task]` as one vector, without biases. (A matrix has two dimensions.)
- It hands the list with that one loss changed to `backward`, which does the rest: perhaps a sum,
  perhaps surgery. `losses` stand in the order of `model.heads`.
- The list that the caller gave stays as it is, since `joint_step` notes the losses from it.

`lp_penalty` is yours to call.
""",
    hint="A function can define another one and return it; the inner one sees `backward`, `task`, "
    "`p` and `strength`. `list(model.heads)` has the tasks' names in order. What does "
    "`losses[i] += penalty` do to the list, and to the tensor in it?",
    reference=penalised,
    cases=(
        Case("similarity, p = 2", _ask_joint(_sum, "similarity", 2, 0.5)),
        Case("similarity, p = 1", _ask_joint(_sum, "similarity", 1, 0.05)),
        Case("similarity, p = infinity", _ask_joint(_sum, "similarity", math.inf, 0.3)),
        Case("the first task", _ask_joint(_sum, "sentiment", 2, 0.2)),
        Case(
            "a backward that weighs the losses and writes `.grad` anew",
            _ask_joint(_weighted, "similarity", 1, 0.1),
        ),
        Case("two steps", _ask_joint(_weighted, "paraphrase", 2, 0.2, steps=2)),
    ),
    mistakes=(
        Mistake(
            _penalty_variant(
                lambda losses, place, model, task, penalty: _plus(
                    losses, place, penalty(model.heads[task].parameters())
                )
            ),
            "The biases are penalised too; the penalty acts on the matrices.",
        ),
        Mistake(
            _penalty_variant(
                lambda losses, place, model, task, penalty: _plus(
                    losses, place, penalty(_matrices(model))
                )
            ),
            "It penalises every matrix of the model, encoder included; asked is one head.",
        ),
        Mistake(
            _penalty_variant(
                lambda losses, place, model, task, penalty: _plus(
                    losses, place, penalty(model.parameters())
                )
            ),
            "It penalises every weight of the model; asked are the matrices of one head.",
        ),
        Mistake(
            _penalty_variant(
                lambda losses, place, model, task, penalty: _plus(
                    losses, place, penalty(_matrices(model.heads))
                )
            ),
            "It penalises the heads of all tasks; asked is that of one.",
        ),
        Mistake(
            _penalty_variant(
                lambda losses, place, model, task, penalty: _plus(
                    losses, place, penalty(_matrices(model.encoder))
                )
            ),
            "It penalises the encoder, which all tasks share; asked is one task's head.",
        ),
        Mistake(
            _penalty_variant(
                lambda losses, place, model, task, penalty: _plus(
                    losses, place, sum(penalty([w]) for w in _matrices(model.heads[task]))
                )
            ),
            "It adds up the norms of the single matrices; asked is one norm of all of them.",
        ),
        Mistake(
            _penalty_variant(
                lambda losses, place, model, task, penalty: _plus(
                    losses, place, penalty(_matrices(model.heads[task])[:1])
                )
            ),
            "It penalises the head's first matrix only; a head may have two layers.",
        ),
        Mistake(
            _penalty_variant(
                lambda losses, place, model, task, penalty: [
                    loss + penalty(_matrices(model.heads[task])) for loss in losses
                ]
            ),
            "The penalty is in every task's loss, so it counts three times; it belongs to one.",
        ),
        Mistake(
            _penalty_variant(
                lambda losses, place, model, task, penalty: _plus(
                    losses, place, penalty(_matrices(model.heads[task])).item()
                )
            ),
            "The penalty is added as a plain number: the loss is larger, and no gradient comes "
            "from it.",
        ),
        Mistake(
            _penalty_variant(
                lambda losses, place, model, task, penalty: [
                    penalty(_matrices(model.heads[task])) if i == place else loss
                    for i, loss in enumerate(losses)
                ]
            ),
            "The penalty replaces the task's loss; it is added to it.",
        ),
        Mistake(
            _penalty_variant(
                lambda losses, place, model, task, penalty: [
                    *losses[:-1],
                    losses[-1] + penalty(_matrices(model.heads[task])),
                ]
            ),
            "It always changes the last loss; which one is the task's, `model.heads` says.",
        ),
        Mistake(
            _penalty_variant(
                lambda losses, place, model, task, penalty: [
                    losses[0] + penalty(_matrices(model.heads[task])),
                    *losses[1:],
                ]
            ),
            "It always changes the first loss; which one is the task's, `model.heads` says.",
        ),
        Mistake(
            _penalty_variant(lambda losses, place, model, task, penalty: list(losses)),
            "Nothing is penalised: the losses reach `backward` as they came.",
        ),
        Mistake(
            _around_backward,
            "The penalty has a backward of its own, behind the given one, which so never sees it: "
            "it neither weighs it nor projects it.",
        ),
        Mistake(
            _before_backward,
            "The penalty has a backward of its own, before the given one, which may write `.grad` "
            "anew.",
        ),
        Mistake(
            _backward_forgotten,
            "It sums the losses itself; the backward that it was given has to do the rest.",
        ),
        Mistake(
            _never_called,
            "`backward` is never called, so no parameter has a gradient: hand it the changed list.",
        ),
        Mistake(_factor_forgotten, "The factor `strength` is missing."),
        Mistake(_fixed_factor, "It uses 0.05 whatever `strength` says."),
        Mistake(_penalty_variant(_in_the_list), _CALLERS_LIST),
        Mistake(
            _penalty_variant(_in_the_tensor),
            "`+=` writes into the caller's loss itself: the loop would note it with the penalty. "
            "Add with `+`, in a list of your own.",
        ),
        Mistake(
            lambda backward, task, p, strength: penalised(backward, task, p, -strength),
            "The sign is wrong: the penalty is subtracted, and the weights are driven away from "
            "zero.",
        ),
    ),
    notes="The first function of the handbook that returns a function: show a decorator-like toy "
    "first if needed. `losses[i] += penalty` is the trap: in place, on the tensor. A penalty with "
    "its own `backward` passes with a sum and fails with surgery, which overwrites `.grad`. "
    "5 points.",
)


EXERCISES = (LP_PENALTY, SORTED_WEIGHTS, DROPOUT, INVERTED_DROPOUT, PENALISED)
