"""Exercises of chapter 05: the multi-task baseline.

Shapes: B examples, C outputs of a head, T tasks, P shared parameters, H size of a sentence vector.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtl_lib.data import Batch
from mtl_lib.handbook.checks.framework import Case, Exercise, Mistake, call, draw, with_gradient
from mtl_lib.tasks import PARAPHRASE, SENTIMENT, SIMILARITY, Task

# Three losses


def multitask_loss(outputs: Tensor, batch: Batch) -> Tensor:
    """Mean loss of one task's batch (`Task.loss`): outputs `[B, C]`, labels `[B]`, a scalar."""
    return batch.task.loss(outputs, batch.labels)


LABELS = {
    SENTIMENT: torch.tensor([4, 0, 2, 2, 1, 3]),
    PARAPHRASE: torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0, 0.0]),
    SIMILARITY: torch.tensor([4.6, 0.0, 2.25, 5.0, 3.8, 1.4]),
}


def _loss_asks(
    task: Task, size: int, seed: int, scale: float = 2.0, given: list[float] | None = None
):
    """Value and gradient of one task's loss, with the labels given or those above."""
    outputs = scale * draw(size, task.outputs, seed=seed)

    def ask(answer: Callable) -> dict:
        mask = torch.ones(task.sentences * size, 3).long()
        labels = LABELS[task][:size].clone() if given is None else torch.tensor(given)
        batch = Batch(task, [f"e{n}" for n in range(size)], mask.clone(), mask, labels)
        return with_gradient(lambda outputs: answer(outputs, batch), outputs=outputs)

    return ask


def _loss(
    classes: Callable = lambda z, y: F.cross_entropy(z, y),
    binary: Callable = lambda z, y: F.binary_cross_entropy_with_logits(z.squeeze(1), y),
    score: Callable = lambda z, y: F.mse_loss(z.squeeze(1), y),
) -> Callable:
    """The three losses with one or another changed, each from outputs `[B, C]` and labels `[B]`."""

    def loss(outputs: Tensor, batch: Batch) -> Tensor:
        by_kind = {"classes": classes, "binary": binary, "score": score}
        return by_kind[batch.task.kind](outputs, batch.labels)

    return loss


def _all_of(change: Callable[[Callable, int], Callable]) -> Callable:
    """All three losses changed alike: `change(loss, batch size)`."""

    def loss(outputs: Tensor, batch: Batch) -> Tensor:
        return change(multitask_loss(outputs, batch), len(batch.labels))

    return loss


def _naive_classes(z: Tensor, y: Tensor) -> Tensor:
    return F.nll_loss(z.softmax(dim=1).log(), y)


def _naive_exp(z: Tensor, y: Tensor) -> Tensor:
    return (z.exp().sum(dim=1).log() - z[range(len(y)), y]).mean()


def _naive_binary(z: Tensor, y: Tensor) -> Tensor:
    return F.binary_cross_entropy(z.squeeze(1).sigmoid(), y)


def _naive_log(z: Tensor, y: Tensor) -> Tensor:
    p = z.squeeze(1).sigmoid()
    return -(y * p.log() + (1 - y) * (1 - p).log()).mean()


_OVERFLOW = (
    "It is right for small outputs only: exp, softmax or sigmoid first and the logarithm after it "
    "lose everything at outputs of 100. Take functions that accept the outputs as they are."
)

MULTITASK_LOSS = Exercise(
    name="multitask_loss",
    chapter=5,
    title="three losses",
    section="Three tasks",
    difficulty=3,
    importance=5,
    minutes=15,
    task="""
Write `multitask_loss(outputs, batch)`: the mean loss over one task's batch.

- `outputs`: `[B, C]`, as they leave the head (logits). `batch.labels`: `[B]`.
- `batch.task.kind` says which loss:
  - `"classes"`: C = 5, labels are whole numbers 0 to 4: cross-entropy;
  - `"binary"`: C = 1, labels are 0.0 or 1.0: binary cross-entropy;
  - `"score"`: C = 1, labels are numbers from 0 to 5 such as 4.6: squared error.
- Return a scalar, the mean over the B examples. Value and gradient have to be right for outputs of
  100 and more too. Gradients flow back to `outputs`.
""",
    hint="""
For C = 1, `outputs` is `[B, 1]` and the labels are `[B]`: what does a difference of the two look
like? `torch.nn.functional` has losses that take logits.
""",
    reference=multitask_loss,
    cases=(
        Case("classes", _loss_asks(SENTIMENT, 6, 1)),
        Case("binary", _loss_asks(PARAPHRASE, 6, 2)),
        Case("score", _loss_asks(SIMILARITY, 6, 3)),
        Case("classes, as many examples as classes", _loss_asks(SENTIMENT, 5, 4)),
        Case("classes, one example", _loss_asks(SENTIMENT, 1, 5)),
        Case("binary, one example", _loss_asks(PARAPHRASE, 1, 6)),
        Case("score, one example", _loss_asks(SIMILARITY, 1, 7)),
        Case("binary, four examples", _loss_asks(PARAPHRASE, 4, 8)),
        Case("score, four examples", _loss_asks(SIMILARITY, 4, 9)),
        Case("score, labels from 0 to 1", _loss_asks(SIMILARITY, 3, 12, given=[0.0, 1.0, 0.0])),
        Case("classes, large outputs", _loss_asks(SENTIMENT, 6, 10, scale=200)),
        Case("binary, large outputs", _loss_asks(PARAPHRASE, 6, 11, scale=200)),
    ),
    mistakes=(
        Mistake(
            _loss(classes=lambda z, y: F.cross_entropy(z.softmax(dim=1), y)),
            "A softmax comes before the cross-entropy, which contains one already: the losses "
            "become nearly equal.",
        ),
        Mistake(
            _loss(
                binary=lambda z, y: F.binary_cross_entropy_with_logits(z.sigmoid().squeeze(1), y)
            ),
            "A sigmoid comes before a loss that contains one already.",
        ),
        Mistake(
            _loss(score=lambda z, y: ((z - y) ** 2).mean()),
            "[B, 1] minus [B] is [B, B]: every output is compared with every label.",
        ),
        Mistake(
            _loss(
                binary=lambda z, y: F.binary_cross_entropy_with_logits(
                    z.expand(len(y), len(y)), y.expand(len(y), len(y))
                ),
                score=lambda z, y: ((z - y) ** 2).mean(),
            ),
            "[B, 1] with [B] gives [B, B], in the binary loss as in the squared error: every "
            "output is compared with every label.",
        ),
        Mistake(
            _all_of(lambda loss, size: loss / size),
            "The mean is divided by the batch size again.",
        ),
        Mistake(
            _all_of(lambda loss, size: loss * size),
            "This is the sum over the examples: it would grow with the batch size.",
        ),
        Mistake(
            _loss(score=lambda z, y: F.mse_loss(z.squeeze(1), y.long().to(z.dtype))),
            "The scores are read as whole numbers: 4.6 becomes 4.",
        ),
        Mistake(
            _loss(score=lambda z, y: F.mse_loss(z.squeeze(1), y.round())),
            "The scores are rounded: 4.6 becomes 5.",
        ),
        Mistake(
            _loss(score=lambda z, y: F.l1_loss(z.squeeze(1), y)),
            "This is the absolute error: the squared error is asked for.",
        ),
        Mistake(
            _loss(score=lambda z, y: F.mse_loss(5 * z.squeeze(1).sigmoid(), y)),
            "A sigmoid bends the score: the output is the score itself.",
        ),
        Mistake(
            _loss(binary=lambda z, y: F.mse_loss(z.squeeze(1).sigmoid(), y)),
            "The binary loss is a squared error: cross-entropy is asked for.",
        ),
        Mistake(
            _loss(binary=lambda z, y: F.binary_cross_entropy(z.softmax(dim=1).squeeze(1), y)),
            "A softmax over one output is always 1: one output takes a sigmoid.",
        ),
        Mistake(
            _loss(classes=lambda z, y: -z.softmax(dim=1)[range(len(y)), y].mean()),
            "The logarithm is missing from the cross-entropy.",
        ),
        *(
            Mistake(_loss(**naive), _OVERFLOW)
            for naive in (
                {"classes": _naive_classes},
                {"classes": _naive_exp},
                {"binary": _naive_binary},
                {"binary": _naive_log},
                {"classes": _naive_classes, "binary": _naive_binary},
                {"classes": _naive_classes, "binary": _naive_log},
                {"classes": _naive_exp, "binary": _naive_binary},
                {"classes": _naive_exp, "binary": _naive_log},
            )
        ),
    ),
    notes="""
Both silent mistakes are here: the softmax before the cross-entropy, and [B, 1] against [B]. 3
points.
""",
)

# One gradient per task


class TinyMultitask(nn.Module):
    """A shared part of two tensors and a scale, and one head per task."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.encoder = nn.ParameterDict(
            {
                "weight": nn.Parameter(draw(3, 4, seed=seed)),
                "bias": nn.Parameter(draw(3, seed=seed + 1)),
                "scale": nn.Parameter(draw(1, seed=seed + 2)),
            }
        )
        self.heads = nn.ParameterDict(
            {
                name: nn.Parameter(draw(3, seed=seed + 3 + n))
                for n, name in enumerate(("sentiment", "paraphrase", "similarity"))
            }
        )

    def shared_parameters(self) -> list[nn.Parameter]:
        return list(self.encoder.values())

    def loss(self, name: str, x: Tensor) -> Tensor:
        """A loss of one task; the paraphrase task does not use the scale."""
        hidden = torch.tanh(x @ self.encoder["weight"].T + self.encoder["bias"])
        if name != "paraphrase":
            hidden = hidden * self.encoder["scale"]
        return (hidden @ self.heads[name]).square().mean()


def task_gradients(model: nn.Module, losses: list[Tensor]) -> Tensor:
    """One row per task: the gradient of its loss for the shared parameters, `[T, P]`.

    The same rows as `gradients.TaskGradients` collects. A parameter that a loss does not reach has
    the gradient zero.
    """
    shared = model.shared_parameters()
    return torch.stack([_row(loss, shared) for loss in losses])


def _row(loss: Tensor, parameters: list[Tensor]) -> Tensor:
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    pairs = zip(parameters, found, strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for p, g in pairs])


def _gradients_ask(names: tuple[str, ...], seed: int):
    def ask(answer: Callable) -> dict:
        model = TinyMultitask(seed)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        losses = [model.loss(name, draw(5, 4, seed=seed + n)) for n, name in enumerate(names)]
        rows = answer(model, losses)
        changed = [
            name for name, value in model.state_dict().items() if (value != before[name]).any()
        ]
        return {"value": rows, "parameters moved": changed}

    return ask


THREE = ("sentiment", "paraphrase", "similarity")

TASK_GRADIENTS = Exercise(
    name="task_gradients",
    chapter=5,
    title="one gradient per task",
    section="Three tasks",
    difficulty=3,
    importance=5,
    minutes=15,
    task="""
Write `task_gradients(model, losses)`: the gradients of T losses for what the tasks share, kept
apart.

- `model.shared_parameters()`: a list of tensors, P numbers in all. The heads are not among them.
- `losses`: a list of T scalars, each from its own batch and so with its own graph.
- Return `[T, P]`: row t is the gradient of loss t, the tensors flattened and joined in the order of
  the list. A tensor that a loss does not reach has the gradient zero.
- No `.grad` is set when it begins; what you leave in `.grad` does not matter. No parameter may
  change.
""",
    hint="""
`torch.autograd.grad` returns gradients without adding them to `.grad`; look at `allow_unused`. Or
`backward`, and clear `.grad` between the tasks.
""",
    reference=task_gradients,
    cases=(
        Case("three tasks", _gradients_ask(THREE, 1)),
        Case("two tasks", _gradients_ask(THREE[:2], 2)),
        Case("one task", _gradients_ask(THREE[:1], 3)),
        Case("another order", _gradients_ask(THREE[::-1], 4)),
        Case("two batches of one task", _gradients_ask((THREE[2], THREE[2], THREE[1]), 5)),
        Case("a tensor that no loss reaches", _gradients_ask(THREE[1:2], 6)),
    ),
    mistakes=(
        Mistake(
            lambda model, losses: torch.stack(
                [_row(loss, list(model.parameters())) for loss in losses]
            ),
            "The heads are included: they belong to one task each, only shared parameters can "
            "conflict.",
        ),
        Mistake(
            lambda model, losses: task_gradients(model, losses).cumsum(dim=0),
            "The rows accumulate over the tasks: backward adds to what .grad held before.",
        ),
        Mistake(
            lambda model, losses: task_gradients(model, losses).sum(dim=0),
            "The gradients are summed: keep them apart, one row per task.",
        ),
        Mistake(
            lambda model, losses: task_gradients(model, losses).sum(dim=0).repeat(len(losses), 1),
            "Every row is the gradient of the summed loss: each task has its own.",
        ),
        Mistake(
            lambda model, losses: F.normalize(task_gradients(model, losses), dim=1),
            "The rows are scaled to length 1: lengths matter.",
        ),
        Mistake(
            lambda model, losses: task_gradients(model, losses) / len(losses),
            "The rows are divided by the number of tasks.",
        ),
        Mistake(
            lambda model, losses: task_gradients(model, losses).T,
            "Tasks run across: return one row per task, [T, P].",
        ),
        Mistake(
            lambda model, losses: torch.stack(
                [_row(loss, model.shared_parameters()[::-1]) for loss in losses]
            ),
            "The tensors are joined in another order than that of the list.",
        ),
    ),
    notes="""
With backward, people forget that .grad adds up; with autograd.grad, that a tensor may be unused.
3 points.
""",
)

# What a linear head cannot do


def is_additive(score: Callable[[Tensor, Tensor], Tensor], vectors: Tensor) -> bool:
    """Whether s(a, b) + s(c, d) = s(a, d) + s(c, b) for all sentence vectors, to 1e-4.

    Equivalent: the table of all scores is its row means plus its column means less its mean.

    Args:
        score: two `[B, H]` to `[B]`.
        vectors: `[N, H]`.
    """
    table = _table(score, vectors)
    rows, columns = table.mean(dim=1, keepdim=True), table.mean(dim=0, keepdim=True)
    return torch.allclose(table, rows + columns - table.mean(), rtol=1e-4, atol=1e-4)


def _table(score: Callable, vectors: Tensor) -> Tensor:
    """Scores of all pairs, `[N, N]`, float64."""
    n = len(vectors)
    u, v = vectors.repeat_interleave(n, dim=0), vectors.repeat(n, 1)
    with torch.no_grad():
        return score(u, v).view(n, n).double()


def _all_fours(score: Callable, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """s(a, b) + s(c, d) and s(a, d) + s(c, b) of all fours, `[N, N, N, N]` each."""
    table = _table(score, vectors)
    left = table[:, :, None, None] + table
    return left, table[:, None, None, :] + table.T[None, :, :, None]


def _close(left: Tensor, right: Tensor) -> bool:
    return torch.allclose(left, right, rtol=1e-4, atol=1e-4)


VECTORS = draw(12, 6, seed=1)
# What switches a score on, below: never the first half, never the second, or both by turns.
VECTORS[:, 0] = VECTORS[:, 0].abs() * torch.tensor(6 * [-1.0] + 6 * [1.0])
VECTORS[:, 1] = VECTORS[:, 1].abs() * torch.tensor(6 * [1.0] + 6 * [-1.0])
VECTORS[:, 2] = VECTORS[:, 2].abs() * torch.tensor(6 * [1.0, -1.0])
_W1, _W2 = draw(6, seed=2), draw(6, seed=3)
_A = draw(6, 6, seed=4)


def _additive_asks(score: Callable[[Tensor, Tensor], Tensor]):
    def ask(answer: Callable) -> bool:
        return call(answer, score, VECTORS)

    return ask


def _linear(u: Tensor, v: Tensor) -> Tensor:
    return u @ _W1 + v @ _W2 + 50.0 - 49.3  # in this order, so that rounding shows, at 1e-5


def _switched(number: int) -> Callable:
    """A linear score with an extra where this number is above 0 in both vectors."""
    return lambda u, v: _linear(u, v) + 2.0 * ((u[:, number] > 0) & (v[:, number] > 0))


def _bent(u: Tensor, v: Tensor) -> Tensor:
    return torch.sin(u @ _W1) + (v @ _W2) ** 2 + 5.0  # near 0 rounding would be relatively large


def _like_exchanged(u: Tensor, v: Tensor) -> Tensor:
    return torch.tanh(u @ _W1) + torch.tanh(v @ _W1) + 5.0


def _opposite(u: Tensor, v: Tensor) -> Tensor:
    return ((u @ (_A - _A.T)) * v).sum(dim=1)


def _hidden_layer(u: Tensor, v: Tensor) -> Tensor:
    return torch.relu(u @ _A + v @ _A.T).sum(dim=1)


IS_ADDITIVE = Exercise(
    name="is_additive",
    chapter=5,
    title="can this head compare?",
    difficulty=3,
    importance=5,
    minutes=12,
    task="""
Write `is_additive(score, vectors)`: whether, for all sentences a, b, c and d,
s(a, b) + s(c, d) = s(a, d) + s(c, b).

- `score(u, v)`: takes two batches of sentence vectors `[B, H]` and gives one score per pair, `[B]`.
- `vectors`: N sentence vectors, `[N, H]`. Take a, b, c and d from them, each in any place: all
  fours or, since there may be many, a few hundred random ones.
- Equal means to 1e-4. Return True or False.
""",
    hint="""
`torch.randint(len(vectors), (4, 500))` draws 500 fours; index `vectors` with each row. Or think of
the table of all scores: what do its rows have in common if the score is additive?
""",
    reference=is_additive,
    cases=(
        Case("a linear head over [u; v]", _additive_asks(_linear)),
        Case("the product u * v, summed", _additive_asks(lambda u, v: (u * v).sum(dim=1))),
        Case("f(u) + g(v), f and g bent", _additive_asks(_bent)),
        Case("f(u) + f(v)", _additive_asks(_like_exchanged)),
        Case("distance of u and v", _additive_asks(lambda u, v: (u - v).norm(dim=1))),
        Case("a score that changes sign when u and v change places", _additive_asks(_opposite)),
        Case("linear, with an extra for some pairs", _additive_asks(_switched(0))),
        Case("linear, with an extra for other pairs", _additive_asks(_switched(1))),
        Case("linear, with an extra for every second vector", _additive_asks(_switched(2))),
        Case("a hidden layer", _additive_asks(_hidden_layer)),
        Case("a score of u alone", _additive_asks(lambda u, v: torch.exp(u[:, 1]) + 0 * v[:, 0])),
        Case(
            "nearly additive",
            _additive_asks(lambda u, v: _linear(u, v) + 0.05 * torch.sin(3 * u[:, 0] * v[:, 1])),
        ),
        Case(
            "nearly additive, but for a thousandth",
            _additive_asks(lambda u, v: _linear(u, v) + 0.001 * torch.sin(3 * u[:, 0] * v[:, 1])),
        ),
        Case("always the same", _additive_asks(lambda u, v: 0 * u[:, 0] + 1.5)),
    ),
    mistakes=(
        Mistake(
            lambda score, vectors: _close(
                score(vectors[:1], vectors[1:2]) + score(vectors[2:3], vectors[3:4]),
                score(vectors[:1], vectors[3:4]) + score(vectors[2:3], vectors[1:2]),
            ),
            "It tries one four of sentences: a score may be additive there and not elsewhere.",
        ),
        Mistake(
            lambda score, vectors: _close(
                (table := _table(score, vectors)).diagonal()[:, None] + table.diagonal(),
                table + table.T,
            ),
            "It tries pairs in which both sentences are the same (a = b, c = d): that is too few.",
        ),
        Mistake(
            lambda score, vectors: _close(table := _table(score, vectors), table.T),
            "It tests whether the two sentences may be exchanged, which is something else.",
        ),
        Mistake(
            lambda score, vectors: _close(
                score(2 * vectors, 2 * vectors.flip(0)), 2 * score(vectors, vectors.flip(0))
            ),
            "It tests whether the score is linear: an additive score may bend, each sentence by "
            "itself.",
        ),
        Mistake(
            lambda score, vectors: _close(
                (table := _table(score, vectors))[:, :, None, None] + table,
                table[:, None, :, None] + table[None, :, None, :],
            ),
            "A first sentence is put in second place: only the second sentences change partners.",
        ),
        *(
            Mistake(
                lambda score, vectors, close=close: close(*_all_fours(score, vectors)),
                "Rounding alone makes it say False: compare to 1e-4, as an absolute difference.",
            )
            for close in (torch.equal, torch.allclose)  # exactly, or with the defaults
        ),
        Mistake(
            lambda score, vectors: not is_additive(score, vectors),
            "True and False are exchanged.",
        ),
    ),
    notes="""
Which fours are tried decides. The score that changes sign when u and v change places looks
additive on equal pairs. 3 points.
""",
)

EXERCISES = (MULTITASK_LOSS, TASK_GRADIENTS, IS_ADDITIVE)
