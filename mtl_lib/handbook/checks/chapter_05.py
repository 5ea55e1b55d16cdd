"""Exercises of chapter 05: the multi-task baseline.

Shapes: B examples, n sentences per example (1 or 2), L tokens, C outputs of a head, T tasks, P
shared parameters, H size of a sentence vector.
"""

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from mtl_lib.bert import BertConfig, BertModel
from mtl_lib.data import Batch, BatchStream, TokenizedSplit, sorted_batches
from mtl_lib.evaluation import metrics, predict
from mtl_lib.handbook.checks.framework import (
    Case,
    Exercise,
    Mistake,
    call,
    draw,
    tensor,
    with_gradient,
)
from mtl_lib.tasks import PARAPHRASE, SENTIMENT, SIMILARITY, TASKS, Task

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
            "A softmax comes before the cross-entropy, which contains one already: every loss lies "
            "between 0.905 and 1.905, however sure the model is.",
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

# One encoder, three heads


class Head(nn.Module):
    """Dropout and one linear layer from a task's sentence vectors to its outputs (section 4)."""

    def __init__(self, task: Task, hidden_size: int, dropout: float = 0.3) -> None:
        super().__init__()
        self.task = task
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(task.sentences * hidden_size, task.outputs)

    def forward(self, vectors: Tensor) -> Tensor:
        """`[n*B, H]`, all first sentences before all second, to `[B, C]`."""
        return self.linear(self.dropout(_side_by_side(self, vectors)))


def _side_by_side(head: Head, vectors: Tensor) -> Tensor:
    """u, or [u; v], of each example: `[n*B, H]` to `[B, n*H]`."""
    return torch.cat(vectors.chunk(head.task.sentences), dim=1)


def _fill(module: nn.Module, seed: int, scale: float = 1.0) -> None:
    """Known numbers in place of all parameters."""
    with torch.no_grad():
        for n, parameter in enumerate(module.parameters()):
            parameter.copy_(scale * draw(*parameter.shape, seed=seed + n))


def _head_asks(task: Task, size: int, seed: int):
    """Outputs of a head with known weights, in evaluation mode, and their gradient."""

    def ask(answer: Callable) -> dict:
        head = answer(task, 4)
        _fill(head, seed)
        vectors = draw(task.sentences * size, 4, seed=seed + 9)
        return with_gradient(head.eval(), vectors=vectors)

    return ask


def _rate_of(head: nn.Module) -> float:
    return getattr(getattr(head, "dropout", None), "p", float("nan"))


def _head_parameters(task: Task):
    def ask(answer: Callable) -> dict:
        head = answer(task, 3, 0.1)
        return {name: list(value.shape) for name, value in head.state_dict().items()} | {
            "`dropout` is an nn.Dropout": isinstance(getattr(head, "dropout", None), nn.Dropout),
            "its rate": _rate_of(head),
            "its rate if none is handed in": _rate_of(answer(task, 3)),
        }

    return ask


def _head_drops(task: Task, place: int, rate: float = 0.5):
    """What dropout does while training to the numbers at one place, seen through a linear layer
    that passes them on and adds 10."""

    def ask(answer: Callable) -> dict:
        head = answer(task, 1, rate).train()
        with torch.no_grad():
            head.linear.weight.zero_()
            head.linear.weight[:, place] = 1.0
            head.linear.bias.fill_(10.0)
        examples = 3000
        vectors = torch.arange(1.0, task.sentences * examples + 1)[:, None]
        seen = vectors[place * examples :][:examples, 0]
        out = tensor(head(vectors)).detach()[:, 0] - 10.0
        kept = out.abs() > 1e-3
        return {
            "share of the numbers that are dropped": round(1 - kept.double().mean().item(), 1),
            "factor of the others": (out / seen)[kept].mean(),
        }

    return ask


def _head_with(forward: Callable[[Head, Tensor], Tensor]) -> type:
    """The head with another forward pass."""
    return type("Head", (Head,), {"forward": forward})


class _FixedRateHead(Head):
    def __init__(self, task: Task, hidden_size: int, dropout: float = 0.3) -> None:
        super().__init__(task, hidden_size)


class _NumberHead(Head):
    """Keeps the rate in place of the module."""

    def __init__(self, task: Task, hidden_size: int, dropout: float = 0.3) -> None:
        super().__init__(task, hidden_size)
        del self.dropout
        self.dropout = dropout

    def forward(self, vectors: Tensor) -> Tensor:
        return self.linear(F.dropout(_side_by_side(self, vectors), self.dropout, self.training))


class _AddingHead(Head):
    def __init__(self, task: Task, hidden_size: int, dropout: float = 0.3) -> None:
        super().__init__(task, hidden_size, dropout)
        self.linear = nn.Linear(hidden_size, task.outputs)

    def forward(self, vectors: Tensor) -> Tensor:
        return self.linear(self.dropout(sum(vectors.chunk(self.task.sentences))))


class _AveragingHead(_AddingHead):
    def forward(self, vectors: Tensor) -> Tensor:
        return super().forward(vectors / self.task.sentences)


def _squashed(kinds: Sequence[str]) -> type:
    def forward(head: Head, vectors: Tensor) -> Tensor:
        out = Head.forward(head, vectors)
        if head.task.kind not in kinds:
            return out
        return out.softmax(dim=1) if head.task.kind == "classes" else out.sigmoid()

    return _head_with(forward)


HEAD = Exercise(
    name="Head",
    chapter=5,
    title="a head",
    section="Three tasks",
    difficulty=2,
    importance=5,
    minutes=12,
    task="""
Write the class `Head(task, hidden_size, dropout=0.3)`, an `nn.Module`: dropout, then one linear
layer. Each task gets one.

- `task.sentences` is n, 1 or 2; `task.outputs` is C, 5 for sentiment and 1 for the pairs.
- Attributes: `dropout`, an `nn.Dropout`, and `linear`, an `nn.Linear` from n·H numbers to C, where
  H is `hidden_size`.
- `forward(vectors)`: the vectors of n·B sentences, `[n*B, H]`, **all first sentences before all
  second ones**. Put the two vectors of a pair side by side, $[u; v]$, first sentence first; drop;
  then the linear layer. Return the outputs `[B, C]` as they are (logits).
""",
    hint="""
For a pair, rows 0 to B - 1 are u and rows B to 2B - 1 are v. `vectors.chunk(n)` cuts along the
rows, `torch.cat(.., dim=1)` glues along the columns. Would `vectors.view(B, 2 * H)` do the same?
Try it on a few numbers.
""",
    reference=Head,
    cases=(
        Case("one sentence", _head_asks(SENTIMENT, 3, 1)),
        Case("pairs", _head_asks(PARAPHRASE, 3, 2)),
        Case("pairs with a score", _head_asks(SIMILARITY, 4, 3)),
        Case("one pair", _head_asks(SIMILARITY, 1, 4)),
        Case("parameters, one sentence", _head_parameters(SENTIMENT)),
        Case("parameters, pairs", _head_parameters(PARAPHRASE)),
        Case("training at a dropout of 0.5, one sentence", _head_drops(SENTIMENT, 0)),
        Case("training at a dropout of 0.5, first of a pair", _head_drops(SIMILARITY, 0)),
        Case("training at a dropout of 0.5, second of a pair", _head_drops(SIMILARITY, 1)),
        Case("training at a dropout of 0.2, one sentence", _head_drops(SENTIMENT, 0, 0.2)),
    ),
    mistakes=(
        Mistake(
            _head_with(lambda h, v: h.linear(h.dropout(v.reshape(len(v) // h.task.sentences, -1)))),
            "It takes rows 0 and 1 for a pair, then rows 2 and 3: all first sentences come before "
            "all second ones, so the batch has to be cut into halves.",
        ),
        Mistake(
            _head_with(
                lambda h, v: h.linear(h.dropout(torch.cat(v.chunk(h.task.sentences)[::-1], dim=1)))
            ),
            "The second sentence comes first, [v; u]: the paper's pair is [u; v].",
        ),
        Mistake(
            _head_with(lambda h, v: h.linear(_side_by_side(h, v))),
            "The dropout is made and never used.",
        ),
        Mistake(
            _head_with(lambda h, v: h.linear(F.dropout(_side_by_side(h, v), h.dropout.p))),
            "It drops in evaluation mode too: the module `dropout` knows the mode, the function "
            "has to be told.",
        ),
        Mistake(
            _head_with(lambda h, v: h.dropout(h.linear(_side_by_side(h, v)))),
            "Dropout comes after the linear layer, so it sets outputs to 0: drop what goes in.",
        ),
        Mistake(_FixedRateHead, "The rate of the dropout is always 0.3: `dropout` is handed in."),
        Mistake(
            _NumberHead,
            "The attribute `dropout` is the rate: make it an nn.Dropout at that rate, which others "
            "can read and set.",
        ),
        *(
            Mistake(
                wrong,
                "The two vectors of a pair are added up: put them side by side, [u; v], 2 H "
                "numbers.",
            )
            for wrong in (_AddingHead, _AveragingHead)
        ),
        *(
            Mistake(
                _squashed(kinds),
                "The outputs go through a softmax or a sigmoid: the loss takes them as they are.",
            )
            for kinds in (("classes", "binary"), ("classes",), ("binary",))
        ),
        Mistake(
            _head_with(lambda h, v: Head.forward(h, v).squeeze(-1)),
            "One output becomes [B]: keep [B, 1], so that every task has [B, C].",
        ),
    ),
    notes="""
`view(B, 2 * H)` runs, has the right shape and pairs the wrong sentences: ask who tried it. 2
points.
""",
)


class MultitaskModel(nn.Module):
    """A shared encoder and one head for each task (paper, section 4; hard parameter sharing).

    Args:
        encoder: from token ids and mask `[S, L]` to the last hidden state `[S, L, H]` and sentence
            vectors `[S, H]`.
    """

    def __init__(
        self, encoder: nn.Module, hidden_size: int, tasks: Iterable[Task], dropout: float = 0.3
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.heads = nn.ModuleDict({task.name: Head(task, hidden_size, dropout) for task in tasks})

    def forward(self, batch: Batch) -> Tensor:
        """Outputs `[B, C]` of the batch's task."""
        return self.heads[batch.task.name](self._vectors(batch))

    def _vectors(self, batch: Batch) -> Tensor:
        """Sentence vectors `[n*B, H]`."""
        _, vectors = self.encoder(batch.input_ids, batch.attention_mask)
        return vectors

    def shared_parameters(self) -> list[nn.Parameter]:
        """What all tasks share: the encoder's parameters."""
        return list(self.encoder.parameters())


SMALL = BertConfig(
    vocab_size=11,
    hidden_size=4,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=6,
    max_position_embeddings=12,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)
OWN = Task("weather", outputs=3)


def _small_encoder() -> BertModel:
    encoder = BertModel(SMALL)
    _fill(encoder, seed=50, scale=0.7)
    return encoder


def _small_model(
    answer: Callable, tasks: Sequence[Task] = TASKS, dropout: float = 0.0
) -> nn.Module:
    """A model over an encoder and heads with known weights."""
    model = answer(_small_encoder(), SMALL.hidden_size, tasks, dropout)
    for n, task in enumerate(tasks):
        _fill(model.heads[task.name], seed=100 + 10 * n, scale=0.5)
    return model


def _small_split(task: Task, size: int, seed: int) -> TokenizedSplit:
    """Examples of random words and lengths."""
    generator = torch.Generator().manual_seed(seed)

    def sentence() -> Tensor:
        length = int(torch.randint(2, 9, (), generator=generator))
        return torch.randint(1, SMALL.vocab_size, (length,), generator=generator)

    sentences = [[sentence() for _ in range(size)] for _ in range(task.sentences)]
    whole = torch.randint(task.num_classes, (size,), generator=generator)
    labels = whole if task.kind == "classes" else whole.float()
    if task.kind == "score":
        labels = (labels + torch.rand(size, generator=generator)).clamp(max=5.0)
    return TokenizedSplit(task, [f"{seed}-{n}" for n in range(size)], labels, sentences)


def _small_batches(tasks: Sequence[Task] = TASKS, size: int = 3, seed: int = 1) -> list[Batch]:
    return [_small_split(task, size, seed + n).batch(range(size)) for n, task in enumerate(tasks)]


def _model_asks(task: Task, tasks: Sequence[Task] = TASKS, size: int = 3):
    """Outputs in evaluation mode."""

    def ask(answer: Callable) -> Tensor:
        model = _small_model(answer, tasks).eval()
        [batch] = _small_batches([task], size)
        return tensor(model(batch)).detach()

    return ask


def _model_parameters(answer: Callable) -> dict:
    model = _small_model(answer)
    own = [name for name in model.state_dict() if not name.startswith("encoder.")]
    return {
        "parameters beside the encoder's": sorted(own),
        "numbers in all": sum(p.numel() for p in model.parameters()),
    }


def _model_shares(answer: Callable) -> dict:
    encoder = _small_encoder()
    model = answer(encoder, SMALL.hidden_size, TASKS, 0.0)
    shared = model.shared_parameters()
    given = {id(p) for p in encoder.parameters()}
    found = {id(p) for p in shared}
    return {
        "a list": isinstance(shared, list | tuple),
        "numbers shared": sum(p.numel() for p in model.shared_parameters()),
        "they are the given encoder's": found == given,
    }


def _model_follows(answer: Callable) -> list[Tensor]:
    """Outputs of all tasks after a change of the encoder that was handed in."""
    encoder = _small_encoder()
    model = answer(encoder, SMALL.hidden_size, TASKS, 0.0)
    for n, task in enumerate(TASKS):
        _fill(model.heads[task.name], seed=100 + 10 * n, scale=0.5)
    with torch.no_grad():
        encoder.pooler.dense.bias.add_(0.5)
    return [tensor(model.eval()(batch)).detach() for batch in _small_batches()]


def _model_learns(answer: Callable) -> dict:
    """Gradients of the outputs' sum, for the encoder and for the heads."""
    model = _small_model(answer).eval()
    for batch in _small_batches():
        out = tensor(model(batch))
        if out.requires_grad:
            out.sum().backward()

    def norm(parameters: Iterable[Tensor]) -> float:
        found = [p.grad.square().sum() for p in parameters if p.grad is not None]
        return float(sum(found))

    return {
        "squared gradient of the encoder": norm(model.encoder.parameters()),
        "squared gradient of the heads": norm(
            p for task in TASKS for p in model.heads[task.name].parameters()
        ),
    }


def _dropped_share(model: nn.Module) -> float:
    """How much of one number of the sentence vectors is dropped while training, of 3,000 times."""
    [one] = _small_batches([SENTIMENT], size=1)
    rows = (part.repeat(3000, 1) for part in (one.input_ids, one.attention_mask))
    weight, bias = model.heads[SENTIMENT.name].parameters()
    with torch.no_grad():
        weight.zero_()
        weight[:, 0] = 1.0
        bias.fill_(10.0)
        out = tensor(model.train()(Batch(SENTIMENT, 3000 * one.ids, *rows, one.labels)))
    return round(((out[:, 0] - 10.0).abs() < 1e-3).double().mean().item(), 1)


def _model_drops(dropout: float):
    """Whether the heads drop while training, and only then."""

    def ask(answer: Callable) -> dict:
        model = _small_model(answer, dropout=dropout)
        found = {}
        for mode in (True, False):
            model.train(mode)
            pairs = [(model(batch), model(batch)) for batch in _small_batches(size=20)]
            same = all(torch.allclose(tensor(a), tensor(b)) for a, b in pairs)
            words = "training" if mode else "evaluation"
            found[f"the same outputs twice in {words}"] = same
            found[f"in {words} mode at the end"] = model.training is mode
        return found | {"share of the numbers that are dropped": _dropped_share(model)}

    return ask


def _model_with(**methods: Callable) -> type:
    """The model with other methods."""
    return type("MultitaskModel", (MultitaskModel,), methods)


def _model_reads(vectors: Callable[[MultitaskModel, Batch], Tensor]) -> type:
    """The model with other sentence vectors."""
    return _model_with(_vectors=vectors)


class _PlainDictModel(MultitaskModel):
    def __init__(self, encoder: nn.Module, *rest: Any) -> None:
        super().__init__(encoder, *rest)
        heads = dict(self.heads.items())
        del self.heads
        self.heads = heads


class _EncoderPerTask(MultitaskModel):
    """Beside the given encoder a copy for each task."""

    def __init__(self, encoder: nn.Module, hidden_size: int, tasks: Iterable[Task], *rest: Any):
        super().__init__(encoder, hidden_size, tasks, *rest)
        self.encoders = nn.ModuleDict({name: copy.deepcopy(encoder) for name in self.heads})

    def _vectors(self, batch: Batch) -> Tensor:
        return self.encoders[batch.task.name](batch.input_ids, batch.attention_mask)[1]


class _EncodersOnly(MultitaskModel):
    """A copy for each task in place of the given encoder."""

    def __init__(self, encoder: nn.Module, *rest: Any) -> None:
        super().__init__(encoder, *rest)
        self.encoder = nn.ModuleDict({name: copy.deepcopy(encoder) for name in self.heads})

    def _vectors(self, batch: Batch) -> Tensor:
        return self.encoder[batch.task.name](batch.input_ids, batch.attention_mask)[1]


class _CopiedEncoder(MultitaskModel):
    def __init__(self, encoder: nn.Module, *rest: Any) -> None:
        super().__init__(copy.deepcopy(encoder), *rest)


class _OwnRate(MultitaskModel):
    def __init__(
        self, encoder: nn.Module, hidden_size: int, tasks: Iterable[Task], dropout: float = 0.3
    ) -> None:
        super().__init__(encoder, hidden_size, tasks)


class _DropsTwice(MultitaskModel):
    def __init__(
        self, encoder: nn.Module, hidden_size: int, tasks: Iterable[Task], dropout: float = 0.3
    ) -> None:
        super().__init__(encoder, hidden_size, tasks, dropout)
        self.dropout = nn.Dropout(dropout)

    def _vectors(self, batch: Batch) -> Tensor:
        return self.dropout(super()._vectors(batch))


def _frozen_vectors(model: MultitaskModel, batch: Batch) -> Tensor:
    return MultitaskModel._vectors(model, batch).detach()


def _always_first(model: MultitaskModel, batch: Batch) -> Tensor:
    return next(iter(model.heads.values()))(model._vectors(batch))


def _evaluating_forward(model: MultitaskModel, batch: Batch) -> Tensor:
    return MultitaskModel.forward(model.eval(), batch)


def _hidden(model: MultitaskModel, batch: Batch) -> Tensor:
    return model.encoder(batch.input_ids, batch.attention_mask)[0]


MULTITASK_MODEL = Exercise(
    name="MultitaskModel",
    chapter=5,
    title="one encoder, a head for each task",
    section="Three tasks",
    difficulty=3,
    importance=5,
    minutes=15,
    task="""
Write the class `MultitaskModel(encoder, hidden_size, tasks, dropout=0.3)`, an `nn.Module`.

- `encoder`: a BERT such as yours. `encoder(input_ids, attention_mask)` returns a pair: the last
  hidden state `[S, L, H]` and the sentence vectors `[S, H]`. There is **one** encoder, and it is
  the one that is handed in.
- `tasks`: the tasks, each with a `name`. Each gets a `Head` of its own at the rate `dropout`.
- Attributes: `encoder`, and `heads`, from which `heads[task.name]` takes a head. PyTorch has to
  know all of them: `parameters()`, `train()` and `eval()` must reach the heads too.
- `forward(batch)`: outputs `[B, C]` of the batch's task. `batch.input_ids` and
  `batch.attention_mask` are `[n*B, L]`, with all first sentences before all second ones; the head
  of `batch.task` gets the sentence vectors.
- `shared_parameters()`: the encoder's parameters as a list.
""",
    hint="""
`nn.ModuleDict` is a dict that PyTorch looks into. Of the pair that the encoder returns you need the
second part. Nothing has to be done for pairs here: their sentences go through the encoder as rows,
and your `Head` puts them side by side.
""",
    reference=MultitaskModel,
    cases=(
        Case("sentiment", _model_asks(SENTIMENT)),
        Case("paraphrase", _model_asks(PARAPHRASE)),
        Case("similarity", _model_asks(SIMILARITY)),
        Case("one example", _model_asks(SIMILARITY, size=1)),
        Case("two tasks, one of them unknown", _model_asks(OWN, (SIMILARITY, OWN))),
        Case("what PyTorch knows of it", _model_parameters),
        Case("what the tasks share", _model_shares),
        Case("the encoder that was handed in changes", _model_follows),
        Case("gradients", _model_learns),
        Case("dropout", _model_drops(0.3)),
        Case("no dropout", _model_drops(0.0)),
    ),
    mistakes=(
        Mistake(
            _PlainDictModel,
            "The heads are in a plain dict, which PyTorch does not look into: no optimizer would "
            "train them, and eval() does not reach them.",
        ),
        *(
            Mistake(
                wrong,
                "Every task has a copy of the encoder, so the tasks share nothing: one encoder "
                "serves all of them.",
            )
            for wrong in (_EncoderPerTask, _EncodersOnly)
        ),
        Mistake(_CopiedEncoder, "The encoder is copied: use the one that is handed in."),
        Mistake(
            _model_reads(lambda model, batch: _hidden(model, batch)[:, 0]),
            "It takes the vector of [CLS] as it leaves the last layer: the sentence vector is the "
            "second part of what the encoder returns, behind the pooler.",
        ),
        Mistake(
            _model_reads(lambda model, batch: _hidden(model, batch)[:, -1]),
            "It takes the vector at the last place, which is padding in all but the longest "
            "sentence: take the second part of what the encoder returns.",
        ),
        Mistake(
            _model_reads(lambda model, batch: _hidden(model, batch).mean(dim=1)),
            "It takes the mean over all places, padding among them: take the second part of what "
            "the encoder returns.",
        ),
        Mistake(
            _model_reads(
                lambda model, batch: model.encoder(
                    batch.input_ids, torch.ones_like(batch.attention_mask)
                )[1]
            ),
            "The attention mask does not reach the encoder: words attend to padding.",
        ),
        Mistake(
            _model_with(forward=_always_first),
            "Every batch goes through the head of the first task: `batch.task` says which.",
        ),
        Mistake(
            _model_with(shared_parameters=lambda model: list(model.parameters())),
            "The heads count as shared: each belongs to one task.",
        ),
        Mistake(
            _model_with(shared_parameters=lambda model: model.encoder.parameters()),
            "It returns a generator, which is empty after one pass: make a list of it.",
        ),
        Mistake(_OwnRate, "The rate of the dropout does not reach the heads."),
        Mistake(_DropsTwice, "The sentence vectors are dropped twice: the heads do it already."),
        Mistake(
            _model_reads(_frozen_vectors),
            "No gradient reaches the encoder: only the heads would learn.",
        ),
        Mistake(
            _model_with(forward=_evaluating_forward),
            "`forward` switches to evaluation mode: the mode is for whoever trains to choose.",
        ),
    ),
    notes="""
The plain dict is the classic: everything runs, the loss falls a little through the encoder, and the
heads never move. 3 points.
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
                "scale": nn.Parameter(draw(3, seed=seed + 2)),
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


def _accumulated_as_found(model, losses: list[Tensor]) -> Tensor:
    rows = []
    for loss in losses:
        loss.backward()
        rows.append(torch.cat([p.grad.flatten() for p in model.shared_parameters()]))
    return torch.stack(rows)


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
            _accumulated_as_found,
            "The rows accumulate over the tasks: backward adds to what .grad held before. (And a "
            "tensor that no loss has reached yet has no .grad: it counts as zero.)",
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

# The joint step and the loop


def sum_of_losses(losses: list[Tensor], model: nn.Module) -> None:
    """Fill `.grad` with the gradient of the summed losses: the paper's baseline (section 4)."""
    sum(losses).backward()


# Fills `.grad` from the losses of a step.
Backward = Callable[[list[Tensor], nn.Module], None]


def joint_step(model: nn.Module, batches: list[Batch], optimizer: Any, backward: Backward) -> list:
    """One optimizer step on a batch of each task; the losses before it, a list of numbers."""
    model.train()
    optimizer.zero_grad()
    losses = _losses(model, batches)
    backward(losses, model)
    optimizer.step()
    return [loss.item() for loss in losses]


def _losses(model: nn.Module, batches: list[Batch]) -> list[Tensor]:
    return [multitask_loss(model(batch), batch) for batch in batches]


class _Watched(MultitaskModel):
    """Notes the mode of every forward pass."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.modes: list[bool] = []

    def forward(self, batch: Batch) -> Tensor:
        self.modes.append(self.training)
        return super().forward(batch)


class _Descent:
    """Plain gradient descent; at each step notes how often `backward` had been called."""

    def __init__(self, parameters: Iterable[nn.Parameter], calls: Sequence = ()) -> None:
        self.parameters, self.calls, self.notes = list(parameters), calls, []

    def zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    def step(self) -> None:
        self.notes.append(len(self.calls))
        with torch.no_grad():
            for parameter in self.parameters:
                if parameter.grad is not None:
                    parameter -= 0.02 * parameter.grad


def _first_counts_double(losses: list[Tensor], model: nn.Module) -> None:
    (losses[0] + sum(losses)).backward()


def _flat(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def _step_asks(
    tasks: Sequence[Task] = TASKS,
    steps: int = 1,
    left: bool = False,
    backward: Backward = sum_of_losses,
):
    """Losses and weights after some steps, from whatever the answer does.

    Args:
        left: whether there are gradients of something else before the first step.
    """

    def ask(answer: Callable) -> dict:
        model = _small_model(_Watched, tasks).eval()
        calls: list[int] = []
        optimizer = _Descent(model.parameters(), calls)
        if left:
            for parameter in model.parameters():
                parameter.grad = torch.ones_like(parameter)

        def noted(losses: list[Tensor], given: nn.Module) -> None:
            calls.append(len(losses))
            backward(losses, given)

        found = []
        for n in range(steps):
            losses = answer(model, _small_batches(tasks, seed=20 * n), optimizer, noted)
            found.append(losses)
        of_steps = [
            list(losses) if isinstance(losses, list | tuple) else losses for losses in found
        ]
        graphs = [
            isinstance(loss, Tensor) and loss.requires_grad
            for losses in of_steps
            for loss in (losses if isinstance(losses, list) else [losses])
        ]
        return {
            "losses": of_steps,
            "weights": _flat(model),
            "all passes in train mode": all(model.modes),
            "losses that each call of backward is given": calls,
            "calls of backward before each step of the optimizer": optimizer.notes,
            "losses that hold their graph": sum(graphs),
        }

    return ask


def _step_with(order: Callable) -> Callable:
    """`order(model, batches, optimizer, backward, losses)` after the usual beginning: train mode,
    gradients cleared, losses formed."""

    def step(model: nn.Module, batches: list[Batch], optimizer: Any, backward: Backward) -> list:
        model.train()
        optimizer.zero_grad()
        losses = _losses(model, batches)
        order(model, batches, optimizer, backward, losses)
        return [loss.item() for loss in losses]

    return step


def _never_cleared(model, batches, optimizer, backward):
    model.train()
    losses = _losses(model, batches)
    backward(losses, model)
    optimizer.step()
    return [loss.item() for loss in losses]


def _cleared_at_the_end(model, batches, optimizer, backward):
    losses = _never_cleared(model, batches, optimizer, backward)
    optimizer.zero_grad()
    return losses


def _step_per_task(model, batches, optimizer, backward):
    model.train()
    found = []
    for batch in batches:
        optimizer.zero_grad()
        losses = _losses(model, [batch])
        backward(losses, model)
        optimizer.step()
        found.append(losses[0].item())
    return found


def _backward_per_task(model, batches, optimizer, backward):
    model.train()
    optimizer.zero_grad()
    losses = _losses(model, batches)
    for loss in losses:
        backward([loss], model)
    optimizer.step()
    return [loss.item() for loss in losses]


def _mode_as_it_comes(model, batches, optimizer, backward):
    optimizer.zero_grad()
    losses = _losses(model, batches)
    backward(losses, model)
    optimizer.step()
    return [loss.item() for loss in losses]


def _evaluating(model, batches, optimizer, backward):
    model.eval()
    return _mode_as_it_comes(model, batches, optimizer, backward)


def _with_graphs(model, batches, optimizer, backward):
    model.train()
    optimizer.zero_grad()
    losses = _losses(model, batches)
    backward(losses, model)
    optimizer.step()
    return losses


def _losses_afterwards(model, batches, optimizer, backward):
    joint_step(model, batches, optimizer, backward)
    with torch.no_grad():
        return [loss.item() for loss in _losses(model, batches)]


def _clears_late(model, batches, optimizer, backward, losses):
    backward(losses, model)
    optimizer.zero_grad()
    optimizer.step()


def _steps_early(model, batches, optimizer, backward, losses):
    optimizer.step()
    backward(losses, model)


def _sums_itself(model, batches, optimizer, backward, losses):
    sum(losses).backward()
    optimizer.step()


JOINT_STEP = Exercise(
    name="joint_step",
    chapter=5,
    title="one joint step",
    section="Three tasks",
    difficulty=3,
    importance=5,
    minutes=15,
    task="""
Write `joint_step(model, batches, optimizer, backward)`: one step of the optimizer on one batch of
each task.

- `model(batch)` gives outputs; your `multitask_loss` gives each task's loss. The model may come in
  evaluation mode; train in train mode.
- `batches`: a list, one batch for each task; any number of tasks.
- `backward(losses, model)` takes **all** losses of the step at once and fills `.grad`. It decides
  how the tasks are combined: `sum_of_losses` adds the losses up, and in chapter 06 you hand in
  gradient surgery.
- `optimizer` has `zero_grad()` and `step()`: one step for all tasks together. What stood in `.grad`
  before must not count.
- Return the losses before the step, a list of numbers in the order of the batches.
""",
    hint="""
Five things: train mode, clear, losses, `backward`, step. Where can `zero_grad` stand so that
nothing old counts and nothing new is lost?
""",
    reference=joint_step,
    cases=(
        Case("three tasks", _step_asks()),
        Case("three steps", _step_asks(steps=3)),
        Case("gradients left from before", _step_asks(left=True)),
        Case("two tasks in another order", _step_asks((SIMILARITY, SENTIMENT))),
        Case("one task", _step_asks((PARAPHRASE,))),
        Case(
            "a backward that counts the first task twice", _step_asks(backward=_first_counts_double)
        ),
    ),
    mistakes=(
        Mistake(
            _never_cleared,
            "The gradients are never cleared: each step drags those of all earlier steps along.",
        ),
        Mistake(
            _cleared_at_the_end,
            "It clears after the step, so what stood in .grad before the first step counts: clear "
            "before `backward`.",
        ),
        Mistake(
            _step_with(_clears_late),
            "It clears the gradients between `backward` and the step: nothing is left to step on.",
        ),
        Mistake(
            _step_per_task,
            "The optimizer steps once for each task: one step serves all tasks together, or they "
            "can never be weighed against each other.",
        ),
        Mistake(
            _backward_per_task,
            "`backward` is called once for each task: it needs all losses at once, or it cannot "
            "combine them.",
        ),
        Mistake(
            _step_with(lambda m, b, o, backward, losses: (backward(losses[-1:], m), o.step())),
            "Only the last task's loss goes backward: the others never learn.",
        ),
        Mistake(
            _step_with(lambda m, b, o, backward, losses: (backward(losses[:1], m), o.step())),
            "Only the first task's loss goes backward: the others never learn.",
        ),
        Mistake(
            _step_with(
                lambda m, b, o, backward, losses: (
                    backward([loss / len(losses) for loss in losses], m),
                    o.step(),
                )
            ),
            "The losses are divided by the number of tasks: the paper takes the sum.",
        ),
        Mistake(
            _step_with(_sums_itself),
            "It sums the losses itself and does not call `backward`: in the next chapter surgery "
            "could never happen.",
        ),
        *(
            Mistake(
                wrong, "It trains in evaluation mode: dropout is off. Who switches to train mode?"
            )
            for wrong in (_mode_as_it_comes, _evaluating)
        ),
        Mistake(
            _with_graphs,
            "The losses that it returns hold their graphs, and with them the memory of every step: "
            "return numbers.",
        ),
        Mistake(
            _losses_afterwards,
            "The losses are measured after the step: return those from before, which you have.",
        ),
        Mistake(
            _step_with(lambda m, b, o, backward, losses: backward(losses, m)),
            "The optimizer never steps.",
        ),
        Mistake(
            _step_with(_steps_early),
            "The optimizer steps before `backward` has filled in the gradients.",
        ),
        Mistake(
            lambda *arguments: sum(joint_step(*arguments)),
            "It returns the sum of the losses: keep them apart, one number for each task.",
        ),
    ),
    notes="""
An optimizer step for each task is what many public loops do; it looks like joint training and
cannot be combined with surgery. 3 points.
""",
)


def evaluate(model: nn.Module, splits: Mapping[str, Mapping[str, TokenizedSplit]]) -> dict:
    """Each task's own metric on its development set: accuracy, or Pearson's r for scores."""
    return {name: _score(model, of_task["dev"]) for name, of_task in splits.items()}


def _score(model: nn.Module, split: TokenizedSplit) -> float:
    found = metrics(split.task, predict(model, split), split.labels.numpy())
    return found[split.task.metric]


class _Lookup(nn.Module):
    """Outputs that depend on the words alone; other ones in train mode.

    Args:
        constant: the output that every example gets; None: by its words.
    """

    def __init__(self, constant: float | None = None) -> None:
        super().__init__()
        self.constant = constant
        self.weight = nn.Parameter(torch.tensor(1.0))
        self.notes: list[tuple[bool, bool]] = []

    def forward(self, batch: Batch) -> Tensor:
        self.notes.append((self.training, torch.is_grad_enabled()))
        task = batch.task
        if self.constant is not None:
            return self.constant * self.weight * torch.ones(len(batch), task.outputs)
        places = torch.arange(1, batch.input_ids.shape[1] + 1)
        words = (batch.input_ids * batch.attention_mask * places).sum(dim=1).float()  # [n*B]
        parts = torch.stack(words.chunk(task.sentences)).sum(dim=0)  # [B]
        sign = -1.0 if self.training else 1.0
        columns = [torch.sin(parts * (1 + n)) for n in range(task.outputs)]
        return sign * 2.0 * self.weight * torch.stack(columns, dim=1)


def _scored_splits(tasks: Sequence[Task], sizes: Sequence[int], seed: int = 1) -> dict:
    """A training and a development set each; half of the labels are what `_Lookup` says."""
    splits = {}
    for n, (task, size) in enumerate(zip(tasks, sizes, strict=True)):
        splits[task.name] = {}
        for part, shift in (("train", 0), ("dev", 100)):
            split = _small_split(task, size, seed + n + shift)
            with torch.no_grad():
                said = task.predict(_Lookup().eval()(split.batch(range(size))))
            half = torch.arange(size) % 2 == 0
            if task.kind == "score":
                said = said + 2.5
            split.labels = torch.where(half, said.to(split.labels.dtype), split.labels)
            splits[task.name][part] = split
    return splits


def _repeated(split: TokenizedSplit, times: int) -> TokenizedSplit:
    """Its examples several times over: many of them, quickly made."""
    ids = [f"{i}-{n}" for n in range(times) for i in split.ids]
    sentences = [column * times for column in split.sentences]
    return TokenizedSplit(split.task, ids, split.labels.repeat(times), sentences)


def _evaluate_asks(
    tasks: Sequence[Task] = TASKS,
    sizes: Sequence[int] = (23, 37, 41),
    training: bool = False,
    constant: float | None = None,
    times: int = 1,
):
    def ask(answer: Callable) -> dict:
        model = _Lookup(constant).train(training)
        splits = _scored_splits(tasks, sizes)
        for of_task in splits.values():
            of_task["dev"] = _repeated(of_task["dev"], times)
        scores = answer(model, splits)
        return {
            "scores": scores,
            "predicts in train mode": any(mode for mode, _ in model.notes),
            "records gradients": any(grad for _, grad in model.notes),
            "the mode it came in is kept": model.training is training,
        }

    return ask


def _evaluate_with(
    score: Callable[[Task, Tensor, np.ndarray], float] | None = None,
    logits: Callable[[nn.Module, TokenizedSplit], np.ndarray] = predict,
    part: str = "dev",
) -> Callable:
    """`evaluate` with another score of logits `[N, C]` and labels `[N]`, or other logits."""

    def wrong(model: nn.Module, splits: Mapping) -> dict:
        scores = {}
        for name, of_task in splits.items():
            split, found = of_task[part], logits(model, of_task[part])
            task, labels = split.task, split.labels.numpy()
            scores[name] = (
                score(task, torch.from_numpy(np.asarray(found)), labels)
                if score
                else metrics(task, np.asarray(found), labels)[task.metric]
            )
        return scores

    return wrong


def _pearson(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.corrcoef(np.asarray(x, dtype=float), y)[0, 1])


def _rounded_pearson(x: Tensor, y: np.ndarray) -> float:
    """r in float32, one number after the other: the mean of equal numbers may be another one."""
    parts = [np.asarray(values, dtype=np.float32) for values in (x, y)]
    dx, dy = (part - np.cumsum(part)[-1] / np.float32(len(part)) for part in parts)
    return float((dx * dy).sum() / np.sqrt((dx * dx).sum() * (dy * dy).sum()))


def _right_score(task: Task, out: Tensor, labels: np.ndarray) -> float:
    return metrics(task, out.numpy(), labels)[task.metric]


def _changed_for(kind: str, score: Callable[[Tensor, np.ndarray], float]) -> Callable:
    """The right score, except for tasks of one kind."""
    return _evaluate_with(
        lambda task, out, labels: (
            score(out, labels) if task.kind == kind else _right_score(task, out, labels)
        )
    )


def _batchwise(model: nn.Module, split: TokenizedSplit) -> np.ndarray:
    """Logits in whatever mode the model is, in the order of length."""
    with torch.no_grad():
        return torch.cat([model(batch) for _, batch in sorted_batches(split, 8)]).numpy()


def _order_lost(model: nn.Module, split: TokenizedSplit) -> np.ndarray:
    was = model.training
    found = _batchwise(model.eval(), split)
    model.train(was)
    return found


def _as_it_comes(model: nn.Module, split: TokenizedSplit, grad: bool = False) -> np.ndarray:
    with torch.set_grad_enabled(grad):
        return model(split.batch(range(len(split)))).detach().numpy()


def _in_train_mode(model: nn.Module, split: TokenizedSplit) -> np.ndarray:
    was = model.training
    found = _as_it_comes(model.train(), split)
    model.train(was)
    return found


def _with_records(model: nn.Module, split: TokenizedSplit) -> np.ndarray:
    was = model.training
    found = _as_it_comes(model.eval(), split, grad=True)
    model.train(was)
    return found


def _left_in_eval(model: nn.Module, split: TokenizedSplit) -> np.ndarray:
    return _as_it_comes(model.eval(), split)


def _left_in_train(model: nn.Module, split: TokenizedSplit) -> np.ndarray:
    found = _as_it_comes(model.eval(), split)
    model.train()
    return found


def _averaged(batch_size: int, by_length: bool) -> Callable:
    """The mean of the batches' own scores, the last and smaller one like the others."""

    def wrong(model: nn.Module, splits: Mapping) -> dict:
        scores = {}
        for name, of_task in splits.items():
            split = of_task["dev"]
            out, labels = torch.from_numpy(predict(model, split)), split.labels.numpy()
            lengths = -split.lengths if by_length else torch.zeros(len(split))
            batches = torch.argsort(lengths, stable=True).split(batch_size)
            scores[name] = np.mean([_quick_score(split.task, out[b], labels[b]) for b in batches])
        return scores

    return wrong


def _quick_score(task: Task, out: Tensor, labels: np.ndarray) -> float:
    """`_right_score` without the other metrics, which take long for hundreds of batches."""
    if task.kind != "score":
        return float(np.mean(task.predict(out).numpy() == labels))
    return math.nan if np.ptp(out.numpy()) == 0 else _pearson(out[:, 0], labels)


def _ranks(x: np.ndarray) -> np.ndarray:
    return np.argsort(np.argsort(x))


EVALUATE = Exercise(
    name="evaluate",
    chapter=5,
    title="each task by its own measure",
    section="Three tasks",
    difficulty=3,
    importance=5,
    minutes=18,
    task="""
Write `evaluate(model, splits)`: a dict from each task's name to its score on the development set.

- `splits[name]["dev"]` is a tokenised split, with its `task` and its `labels` `[N]`; leave
  `splits[name]["train"]` alone. `model(batch)` gives outputs `[B, C]`.
- `task.kind` says how to score:
  - `"classes"`: accuracy, the share of examples whose largest output is the label;
  - `"binary"`: accuracy; one output (a logit), above 0 means yes;
  - `"score"`: Pearson's r between outputs and labels, both as they are. For outputs that are all
    the same it does not exist: NaN.
- All examples count alike, in evaluation mode and without recording gradients; the model is left in
  the mode in which it came.
- Return numbers.
""",
    hint="""
Your `predict_in_order(model, split, batch_size)` of chapter 04 does half of it: the order of the
file, evaluation mode, no gradients. `torch.corrcoef(torch.stack([x, y]))[0, 1]` is Pearson's r.
What does it say if every output is 0.1?
""",
    reference=evaluate,
    cases=(
        Case("three tasks", _evaluate_asks()),
        Case("a model in train mode", _evaluate_asks(training=True)),
        Case("one task", _evaluate_asks((SIMILARITY,), (29,))),
        Case("classes of an own task", _evaluate_asks((OWN, PARAPHRASE), (31, 26))),
        Case("693 examples each", _evaluate_asks(sizes=(77, 77, 77), times=9)),
        Case("always the same outputs", _evaluate_asks(constant=2.0)),
        Case("always the same outputs, 0.1", _evaluate_asks(constant=0.1)),
    ),
    mistakes=(
        Mistake(
            _changed_for("classes", lambda out, y: _pearson(out.argmax(dim=1), y)),
            "Pearson's r is computed on classes: classes have names, not sizes. Take the accuracy.",
        ),
        Mistake(
            _evaluate_with(lambda task, out, y: _pearson(task.predict(out), y)),
            "Pearson's r is computed for every task: the first two are judged by accuracy.",
        ),
        *(
            Mistake(
                _changed_for("score", wrong),
                "Scores are judged by accuracy: 4.6 is hardly ever hit. Take Pearson's r.",
            )
            for wrong in (
                lambda out, y: float(np.mean(out[:, 0].numpy() == y)),
                lambda out, y: float(np.mean(np.round(out[:, 0].numpy()) == np.round(y))),
            )
        ),
        Mistake(
            _changed_for("score", lambda out, y: float(np.mean((out[:, 0].numpy() - y) ** 2))),
            "Scores are judged by the squared error, where less is better: take Pearson's r.",
        ),
        Mistake(
            _changed_for("score", lambda out, y: _pearson(out[:, 0], y) ** 2),
            "This is r squared: a negative correlation would look like a good one.",
        ),
        Mistake(
            _changed_for("score", lambda out, y: _pearson(_ranks(out[:, 0].numpy()), _ranks(y))),
            "This correlates ranks, which is Spearman's coefficient: Pearson's takes the values.",
        ),
        Mistake(
            _changed_for("score", lambda out, y: _pearson(out[:, 0].round(), y)),
            "The outputs are rounded before the correlation: it takes them as they are.",
        ),
        Mistake(
            _changed_for("score", lambda out, y: _pearson(out[:, 0], np.round(y))),
            "The labels are rounded before the correlation: it takes them as they are.",
        ),
        *(
            Mistake(
                _changed_for("score", wrong),
                "A correlation with a constant does not exist: say NaN, so that nobody takes it "
                "for 0.",
            )
            for wrong in (
                lambda out, y: float(np.nan_to_num(_pearson(out[:, 0], y))),
                # By a standard deviation of 0, which rounding may miss for 0.1:
                lambda out, y: 0.0 if (out == 2.0).all() else _pearson(out[:, 0], y),
            )
        ),
        Mistake(
            _changed_for("score", lambda out, y: _rounded_pearson(out[:, 0], y)),
            "For outputs that are all 0.1 it says 0.0000 in place of NaN: their mean in float32 is "
            "not quite 0.1. Ask first whether all outputs are the same.",
        ),
        Mistake(
            _changed_for("binary", lambda out, y: float(np.mean((out[:, 0] > 0.5).numpy() == y))),
            "The output is compared with 0.5, as if it were a probability: it is a logit, and one "
            "half is 0.",
        ),
        Mistake(
            _changed_for("binary", lambda out, y: float(np.mean(out.argmax(dim=1).numpy() == y))),
            "argmax over one output is always 0: one output is compared with 0.",
        ),
        Mistake(
            _evaluate_with(logits=_order_lost),
            "The predictions come in the order of length and the labels in that of the file.",
        ),
        Mistake(
            _evaluate_with(logits=_in_train_mode),
            "It predicts in train mode: dropout makes every score a matter of luck.",
        ),
        Mistake(
            _evaluate_with(logits=_as_it_comes),
            "It predicts in the mode in which the model comes: switch to evaluation mode.",
        ),
        Mistake(
            _evaluate_with(logits=_with_records),
            "Gradients are recorded: that takes memory for every example and is never used.",
        ),
        Mistake(
            _evaluate_with(logits=_left_in_eval),
            "The model stays in evaluation mode: whoever trains on would train without dropout.",
        ),
        Mistake(
            _evaluate_with(logits=_left_in_train),
            "The model ends in train mode, also where it came in evaluation mode.",
        ),
        Mistake(_evaluate_with(part="train"), "It scores the training set: take the one for it."),
        *(
            Mistake(
                _averaged(batch_size, by_length),
                "The scores of single batches are averaged: the last batch is smaller, and r of "
                "parts is not r of the whole. Score all examples together.",
            )
            for batch_size in (8, 16, 32, 64, 128, 256)
            for by_length in (False, True)
        ),
        Mistake(
            _evaluate_with(
                lambda task, out, y: (
                    _right_score(task, out, y) * (100 if task.metric == "accuracy" else 1)
                )
            ),
            "The accuracies are percentages: a share lies between 0 and 1.",
        ),
    ),
    notes="""
One metric for all tasks is the common slip; comparing a logit with 0.5 the expensive one: it looks
like a cautious model. 3 points.
""",
)


def train_tasks(
    model: nn.Module,
    splits: Mapping[str, Mapping[str, TokenizedSplit]],
    optimizer: Any,
    steps: int,
    batch_size: int = 8,
    seed: int = 0,
    backward: Backward = sum_of_losses,
) -> list[list[float]]:
    """Joint steps on batches from the training sets; the losses `[steps, T]`.

    The streams' seeds are those of `mtl_lib.trainer.Trainer`.
    """
    streams = [
        BatchStream(of_task["train"], batch_size, seed=1000 * seed + n)
        for n, of_task in enumerate(splits.values())
    ]
    return [
        joint_step(model, [next(stream) for stream in streams], optimizer, backward)
        for _ in range(steps)
    ]


def _train_asks(
    tasks: Sequence[Task] = TASKS,
    sizes: Sequence[int] = (9, 16, 11),
    steps: int = 5,
    **options: Any,
):
    """Losses and weights after training a small model."""

    def ask(answer: Callable) -> dict:
        model = _small_model(MultitaskModel, tasks)
        optimizer = _Descent(model.parameters())
        splits = {
            task.name: {"train": _small_split(task, size, n), "dev": _small_split(task, size, 40)}
            for n, (task, size) in enumerate(zip(tasks, sizes, strict=True))
        }
        losses = answer(model, splits, optimizer, steps, **options)
        return {"losses": losses, "weights": _flat(model)}

    return ask


def _train_with(
    batches: Callable[[Sequence[TokenizedSplit], int, int, int], Iterable[list[Batch]]],
    part: str = "train",
    step: Callable = joint_step,
) -> Callable:
    """`train_tasks` on other batches, a list for each step: of splits, steps, batch size, seed."""

    def train(model, splits, optimizer, steps, batch_size=8, seed=0, backward=sum_of_losses):
        chosen = [of_task[part] for of_task in splits.values()]
        return [
            step(model, of_step, optimizer, backward)
            for of_step in batches(chosen, steps, batch_size, seed)
        ]

    return train


def _streamed(
    seed_of: Callable[[int, int], int] = lambda seed, n: 1000 * seed + n, size: int | None = None
) -> Callable:
    def batches(splits, steps, batch_size, seed):
        streams = [
            BatchStream(split, size or batch_size, seed_of(seed, n))
            for n, split in enumerate(splits)
        ]
        return [[next(stream) for stream in streams] for _ in range(steps)]

    return batches


def _restarted(splits, steps, batch_size, seed):
    return [_streamed()(splits, 1, batch_size, seed)[0] for _ in range(steps)]


def _unshuffled(splits, steps, batch_size, seed):
    return [
        [
            split.batch([(step * batch_size + k) % len(split) for k in range(batch_size)])
            for split in splits
        ]
        for step in range(steps)
    ]


def _by_turns(splits, steps, batch_size, seed):
    of_steps = _streamed()(splits, steps, batch_size, seed)
    return [[of_step[n % len(splits)]] for n, of_step in enumerate(of_steps)]


def _one_epoch(splits, steps, batch_size, seed):
    shortest = min(len(split) // batch_size for split in splits)
    return _streamed()(splits, min(steps, shortest), batch_size, seed)


def _summing_step(model, batches, optimizer, backward):
    return joint_step(model, batches, optimizer, sum_of_losses)


TRAIN_TASKS = Exercise(
    name="train_tasks",
    chapter=5,
    title="the multi-task loop",
    section="Three tasks",
    difficulty=3,
    importance=5,
    minutes=15,
    task="""
Write `train_tasks(model, splits, optimizer, steps, batch_size=8, seed=0, backward=sum_of_losses)`:
the loop around your `joint_step`.

- `splits[name]["train"]` is the training set of a task; the order of the dict is the order of the
  tasks.
- Each task has **one endless stream** of batches for the whole training:
  `BatchStream(split, batch_size, seed)` of `mtl_lib.data`, from which `next(stream)` takes a batch.
  The stream of task number n (0, 1, ..) gets the seed `1000 * seed + n`.
- Every step takes the next batch of **every** task and makes one joint step with `backward`.
- Return the losses of every step, a list of lists: `steps` times one number for each task.
""",
    hint="""
Make the streams first, in a list; `enumerate(splits.values())` counts the tasks. Then one line for
each step. What happens if the streams are made inside the loop?
""",
    reference=train_tasks,
    cases=(
        Case("five steps of eight examples", _train_asks()),
        Case("another seed", _train_asks(seed=2)),
        Case("batches of three", _train_asks(batch_size=3)),
        Case("two tasks, corpora of equal size", _train_asks(TASKS[1:], (12, 12), batch_size=4)),
        Case("one step", _train_asks(steps=1)),
        Case(
            "a backward that counts the first task twice",
            _train_asks(backward=_first_counts_double),
        ),
    ),
    mistakes=(
        Mistake(
            _train_with(_restarted),
            "Every step sees the same first batches: the streams are made anew in every step, or "
            "`next` is called once, before the loop.",
        ),
        Mistake(
            _train_with(_streamed(lambda seed, n: 1000 * seed)),
            "All streams have the same seed: of corpora of equal size they take the same places in "
            "every step, so the tasks' batches are not independent.",
        ),
        Mistake(
            _train_with(_streamed(lambda seed, n: seed)),
            "All streams have the same seed: of corpora of equal size they take the same places in "
            "every step, so the tasks' batches are not independent.",
        ),
        Mistake(
            _train_with(_streamed(lambda seed, n: n)),
            "`seed` is not used: two trainings with other seeds would see the same batches.",
        ),
        Mistake(
            _train_with(_streamed(lambda seed, n: seed + n)),
            "The streams' seeds are `seed + n`, so that neighbouring seeds share streams: it is "
            "`1000 * seed + n`.",
        ),
        Mistake(
            _train_with(_streamed(size=8)), "The batches always hold 8 examples: see `batch_size`."
        ),
        Mistake(_train_with(_streamed(), part="dev"), "It trains on the development set."),
        Mistake(
            _train_with(_unshuffled),
            "The examples come in the order of the file: take them from a `BatchStream`.",
        ),
        Mistake(
            _train_with(_by_turns),
            "The tasks take turns, one in each step: every step takes a batch of every task.",
        ),
        Mistake(
            _train_with(_one_epoch),
            "It ends when the shortest corpus has been seen once: streams have no end, `steps` "
            "says how many.",
        ),
        Mistake(
            _train_with(_streamed(), step=_summing_step),
            "`backward` does not reach the step: it always sums.",
        ),
        Mistake(
            lambda *arguments, **options: [sum(row) for row in train_tasks(*arguments, **options)],
            "The losses of a step are summed: keep them apart, one number for each task.",
        ),
        Mistake(
            lambda *arguments, **options: list(
                map(list, zip(*train_tasks(*arguments, **options), strict=True))
            ),
            "The lists run the other way: one list for each step, not one for each task.",
        ),
    ),
    notes="""
Streams made inside the loop train on one batch for ever: the loss falls beautifully. 3 points.
""",
)

# Bugs in a pair's batch


def pair_batch(
    first: list[list[int]], second: list[list[int]], labels: list[float]
) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids and mask `[2B, L]`, all first sentences before all second, and labels `[B]`."""
    return _pair_batch(first, second, labels)


_PAIR_BUGS = {
    "rows": "each second sentence stands right below its first, but a head cuts the batch into "
    "halves",
    "mask": "the second sentences are masked by the lengths of the first",
    "labels": "the labels lose what stands behind the point, 4.6 becomes 4",
}


def _pair_batch(
    first: list, second: list, labels: list, bugs: Sequence[str] = (), of_rows: bool = True
) -> tuple:
    """A batch with some of the bugs; the mask by the lengths of its rows, or of all first
    sentences before all second ones whatever the rows are."""
    ordered = rows = [*first, *second]
    if "rows" in bugs:
        rows = [row for pair in zip(first, second, strict=True) for row in pair]
    lengths = [len(row) for row in (rows if of_rows else ordered)]
    if "mask" in bugs:
        lengths = 2 * [len(row) for row in first]
    ids = pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
    mask = (torch.arange(ids.shape[1]) < torch.tensor(lengths)[:, None]).long()
    values = torch.tensor(labels)
    return ids, mask, values.long() if "labels" in bugs else values


def _pair_asks(first: list[list[int]], second: list[list[int]], labels: list[float]):
    def ask(answer: Callable) -> dict:
        ids, mask, values = call(answer, first, second, labels)
        return {"ids": ids, "mask": tensor(mask).long(), "labels": values}

    return ask


def _left(bugs: Sequence[str]) -> str:
    told = "; ".join(_PAIR_BUGS[bug] for bug in bugs)
    if len(bugs) == len(_PAIR_BUGS):
        return f"All three bugs are there: {told}."
    return f"{'One bug is' if len(bugs) == 1 else 'Two bugs are'} left: {told}."


PAIR_BATCH = Exercise(
    name="pair_batch",
    chapter=5,
    title="a bug hunt",
    difficulty=2,
    importance=4,
    minutes=10,
    task="""
A colleague batches pairs with the function below. It raises no error, the loss falls a little, and
similarity stays near r = 0. It has **three bugs**. Mend it.

- `first`, `second`: the token ids of B first and B second sentences, lists of different lengths.
  `labels`: B scores from 0 to 5.
- Return `(input_ids, attention_mask, labels)`: ids and mask `[2B, L]`, **all first sentences before
  all second ones**, padded with 0 to the longest of them all; the mask is 1 on a sentence's own
  tokens and 0 on padding; the labels `[B]` as the numbers they are.
""",
    hint="""
Print what comes out for two pairs of different lengths. Look at three things: which rows belong
together, what the mask of a long second sentence says, and what has become of the label 4.6.
""",
    reference=pair_batch,
    cases=(
        Case(
            "two pairs",
            _pair_asks([[2, 5, 3], [2, 7, 8, 3]], [[2, 9, 5, 6, 3], [2, 3]], [4.6, 0.0]),
        ),
        Case(
            "three pairs, the second sentences are longer",
            _pair_asks(
                [[2, 3], [2, 4, 3], [2, 3]],
                [[2, 4, 4, 3], [2, 5, 5, 5, 3], [2, 6, 3]],
                [2.25, 5.0, 3.8],
            ),
        ),
        Case("one pair", _pair_asks([[2, 4, 3]], [[2, 5, 6, 3]], [1.4])),
        Case(
            "a text that holds the id 0",
            _pair_asks([[2, 0, 3], [2, 4, 3]], [[2, 4, 5, 3], [2, 0, 0, 3]], [0.5, 3.0]),
        ),
    ),
    mistakes=(
        *(
            Mistake(
                lambda *given, bugs=bugs: _pair_batch(*given, bugs=bugs),
                _left(bugs),
            )
            for count in (3, 2, 1)
            for bugs in combinations(_PAIR_BUGS, count)
        ),
        *(
            Mistake(
                lambda *given, bugs=bugs: _pair_batch(*given, bugs=bugs, of_rows=False),
                _left(bugs),
            )
            for bugs in (("rows",), ("rows", "labels"))
        ),
        Mistake(
            lambda *given: ((found := _pair_batch(*given))[0], (found[0] != 0).long(), found[2]),
            "The mask takes every 0 for padding, but a text may hold the id 0: go by the lengths.",
        ),
    ),
    notes="""
All three happen in public code, and none of them raises an error. The check says how many are left.
1 point.
""",
)

EXERCISES = (
    MULTITASK_LOSS,
    HEAD,
    MULTITASK_MODEL,
    TASK_GRADIENTS,
    JOINT_STEP,
    IS_ADDITIVE,
    EVALUATE,
    TRAIN_TASKS,
    PAIR_BATCH,
)
