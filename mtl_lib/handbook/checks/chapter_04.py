"""Exercises of chapter 04: sentiment, and how to tell a gain from noise."""

import copy
import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn import metrics as sk
from torch import Tensor, nn

from mtl_lib import evaluation
from mtl_lib.data import Batch, BatchStream, TokenizedSplit, sorted_batches
from mtl_lib.handbook.checks.framework import (
    Case,
    Detached,
    Exercise,
    Mistake,
    WrongKind,
    call,
    draw,
    with_gradient,
)
from mtl_lib.tasks import CFIMDB, SENTIMENT, Task


class ToyModel(nn.Module):
    """Sentiment from the mean of word vectors, small enough to train in a check.

    In training it drops every second number of the hidden vector: always the same ones, so that
    training and evaluation differ without chance. It notes how it was called.
    """

    def __init__(self, seed: int = 0, outputs: int = SENTIMENT.outputs) -> None:
        super().__init__()
        self.words = nn.Parameter(draw(9, 4, seed=seed + 1))
        self.head = nn.Parameter(draw(4, outputs, seed=seed + 2))
        self.calls: list[tuple[bool, bool]] = []  # (train mode, gradients recorded)

    def forward(self, batch: Batch) -> Tensor:
        self.calls.append((self.training, torch.is_grad_enabled()))
        mask = batch.attention_mask[:, :, None]  # [B, L, 1]
        hidden = (self.words[batch.input_ids] * mask).sum(1) / mask.sum(1)
        if self.training:
            hidden = hidden * torch.tensor([2.0, 0.0, 2.0, 0.0])
        return hidden @ self.head


# The loss


def class_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy: the mean of -log softmax at the right class, logits `[B, C]`, labels `[B]`."""
    return F.cross_entropy(logits, labels)


def _right(values: Tensor, labels: Tensor) -> Tensor:
    """Of each row the value at its label, `[B, C]` -> `[B]`."""
    return values.gather(1, labels[:, None])[:, 0]


def _loss_asks(size: int, classes: int, seed: int, scale: float = 1.0, shift: float = 0.0):
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (size,), generator=random)
    logits = scale * draw(size, classes, seed=seed) + shift
    return lambda answer: with_gradient(lambda z: answer(z, labels.clone()), z=logits)


def _largest_of(z: Tensor, dim: int | None) -> Tensor:
    return z.max() if dim is None else z.amax(dim=dim, keepdim=True)


def _shifted_loss(dim: int | None, back: bool = True) -> Callable:
    """The loss by hand, with the largest logit along `dim` taken away (None: of all)."""

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        shifted = logits - _largest_of(logits, dim)
        right = _right(shifted if back else logits, labels)
        return (shifted.exp().sum(dim=1).log() - right).mean()

    return loss


OVERFLOWS = "Large logits overflow: take away each row's largest one before `exp`."
ROUNDS_TO_0 = (
    "A probability that rounds to 0 has an infinite logarithm: use the logarithm of the softmax as "
    "one formula, not the logarithm of its result."
)

CLASS_LOSS = Exercise(
    name="class_loss",
    chapter=4,
    title="the loss of a classifier",
    difficulty=2,
    importance=4,
    minutes=8,
    task="""
Write `class_loss(logits, labels)`, the mean cross-entropy, by hand: without `cross_entropy` and
`nll_loss` of torch.

- `logits` `[B, C]`: any real numbers, also as large as 1,000; `labels` `[B]`: the right classes,
  int64.
- For each example, minus the logarithm of the probability of its right class; then the mean over
  the B examples. A scalar that gradients flow through.
- `exp(1000)` is infinite in float32. Take away each row's largest logit first: that changes no
  probability. Or let `torch.logsumexp` do it.
""",
    hint="""
The logarithm of the softmax is `z - logsumexp(z)`, row by row. `x[torch.arange(B), labels]` picks
one number from each row.
""",
    reference=class_loss,
    cases=(
        Case("six examples, five classes", _loss_asks(6, 5, 1)),
        Case("two classes", _loss_asks(4, 2, 2)),
        Case("one example", _loss_asks(1, 5, 3)),
        Case("logits of 1,000", _loss_asks(4, 5, 4, shift=1000.0), rtol=1e-3, atol=1e-4),
        Case("logits far apart", _loss_asks(5, 4, 5, scale=200.0), rtol=1e-3, atol=1e-4),
    ),
    mistakes=(
        Mistake(
            lambda logits, labels: (torch.logsumexp(logits, dim=1) - logits[:, labels]).mean(),
            "`logits[:, labels]` takes those columns out of *every* row, B times B numbers: each "
            "row has one right class of its own.",
        ),
        Mistake(
            lambda logits, labels: -_right(logits, labels).mean(),
            "This is `nll_loss` on the logits themselves: it takes logarithms of probabilities, so "
            "the log-softmax is missing, and the loss falls without end as the logits grow.",
        ),
        Mistake(
            lambda logits, labels: -_right(logits.softmax(dim=1), labels).mean(),
            "The logarithm is missing: this is minus the probability of the right class.",
        ),
        Mistake(
            lambda logits, labels: F.cross_entropy(logits.softmax(dim=1), labels),
            "The softmax is taken twice: the probabilities went where logits belong.",
        ),
        Mistake(
            lambda logits, labels: (
                -_right((logits.exp() / logits.exp().sum(dim=1, keepdim=True)).log(), labels).mean()
            ),
            OVERFLOWS,
        ),
        Mistake(
            lambda logits, labels: (
                -_right(logits.exp() / logits.exp().sum(dim=1, keepdim=True), labels).log().mean()
            ),
            OVERFLOWS,
        ),
        Mistake(
            lambda logits, labels: -_right(logits.softmax(dim=1).log(), labels).mean(),
            ROUNDS_TO_0,
        ),
        Mistake(
            lambda logits, labels: -_right(logits.softmax(dim=1), labels).log().mean(),
            ROUNDS_TO_0,
        ),
        Mistake(
            lambda logits, labels: F.cross_entropy(logits, labels, reduction="sum"),
            "This is the sum over the batch: the mean is asked for.",
        ),
        Mistake(
            lambda logits, labels: F.cross_entropy(logits, labels) / logits.shape[1],
            "The mean is taken over all B times C entries: there are B examples.",
        ),
        Mistake(
            lambda logits, labels: F.cross_entropy(logits, labels, reduction="none"),
            "These are the losses of single examples: their mean is asked for.",
        ),
        Mistake(
            lambda logits, labels: -F.cross_entropy(logits, labels),
            "The sign is wrong: training would make the right class less likely.",
        ),
        Mistake(
            lambda logits, labels: -_right(logits.log_softmax(dim=0), labels).mean(),
            "The softmax runs over the examples of the batch: it belongs to the classes of each.",
        ),
        Mistake(
            _shifted_loss(None),
            "It takes away the largest logit of the whole batch: in a row that lies far below it "
            "every `exp` is 0. Take away each row's own.",
        ),
        Mistake(
            _shifted_loss(1, back=False),
            "The largest logit is taken out of the sum and never put back: take it from the right "
            "class's logit too, or add it to the logarithm.",
        ),
        Mistake(
            lambda logits, labels: F.cross_entropy(logits, labels) / math.log(2),
            "The logarithm is that to base 2: the natural one is asked for.",
        ),
    ),
    notes="""
`nll_loss` on logits trains a little, then runs away: it has no lower bound. 2 points.
""",
)

# The classifier


class SentimentClassifier(nn.Module):
    """An encoder, dropout and one linear layer on its sentence vector (paper, section 4).

    Args:
        encoder: `encoder(input_ids, attention_mask)` gives `(tokens [B, L, H], sentence [B, H])`.
        hidden_size: H.
        classes: C, the width of the output.
        dropout: its rate, on the sentence vector.
    """

    def __init__(
        self, encoder: nn.Module, hidden_size: int, classes: int = 5, dropout: float = 0.3
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden_size, classes)

    def forward(self, batch: Batch) -> Tensor:
        """A batch of B sentences -> logits `[B, C]`."""
        _, sentence = self.encoder(batch.input_ids, batch.attention_mask)
        return self.head(self.dropout(sentence))


class ToyEncoder(nn.Module):
    """Tokens' vectors, and one of the sentence that is none of theirs, without dropout."""

    def __init__(self, size: int, seed: int) -> None:
        super().__init__()
        self.words = nn.Parameter(draw(9, size, seed=seed))

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids=None):
        """`[B, L]` and a mask -> `[B, L, H]` and `[B, H]`."""
        mask = attention_mask[:, :, None]
        tokens = self.words[input_ids]
        return tokens, torch.tanh(2 * (tokens * mask).sum(1) / mask.sum(1))


class Ones(nn.Module):
    """Every sentence vector is 1 throughout: what becomes of it shows the dropout."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids=None):
        """`[B, L]` and a mask -> `[B, L, H]` and `[B, H]`."""
        return torch.ones(*input_ids.shape, self.size), torch.ones(len(input_ids), self.size)


class Classifier(SentimentClassifier):
    """The classifier with one thing or another changed, as class attributes."""

    vector: Callable = lambda tokens, sentence: sentence
    after: Callable = lambda logits: logits
    masked, detached, on_logits, always, keeps = True, False, False, False, False
    rate: float | None = None
    width: int | None = None

    def __init__(self, encoder, hidden_size, classes=5, dropout=0.3):
        dropout = dropout if self.rate is None else self.rate
        dropout = 1 - dropout if self.keeps else dropout
        super().__init__(encoder, hidden_size, self.width or classes, dropout)

    def forward(self, batch):
        mask = batch.attention_mask if self.masked else torch.ones_like(batch.attention_mask)
        vector = type(self).vector(*self.encoder(batch.input_ids, mask))
        vector = vector.detach() if self.detached else vector
        if self.on_logits:
            return self.dropout(self.head(vector))
        dropped = F.dropout(vector, self.dropout.p) if self.always else self.dropout(vector)
        return type(self).after(self.head(dropped))


def _classifier(**changes: Any) -> type:
    return type("Variant", (Classifier,), changes)


def _built(answer: Callable, encoder: nn.Module, size: int, seed: int, **options) -> nn.Module:
    """The reader's model with a head of known weights."""
    model = answer(encoder, size, **options)
    weight, bias = _head_of(model)
    with torch.no_grad():
        weight.copy_(draw(*weight.shape, seed=seed))
        bias.copy_(draw(*bias.shape, seed=seed + 1))
    return model


def _head_of(model: nn.Module) -> tuple[Tensor, Tensor]:
    if getattr(model.head, "bias", True) is None:
        raise WrongKind("the head has no bias, which `nn.Linear` has unless told otherwise")
    return model.head.weight, model.head.bias


def _classifies(size: int, seed: int, sentences: int = 6, **options):
    def ask(answer: Callable) -> dict[str, Any]:
        model = _built(answer, ToyEncoder(size, seed), size, seed + 1, **options).eval()
        (batch,) = _batches((sentences,), seed)
        logits = model(batch)
        found = {"value": logits, "names": ", ".join(sorted(model.state_dict()))}
        if not isinstance(logits, Tensor) or not logits.requires_grad:
            return found | {"the encoder's gradient": Detached()}
        (logits * draw(*logits.shape, seed=seed + 2)).sum().backward()
        gradient = model.encoder.words.grad
        return found | {"the encoder's gradient": Detached() if gradient is None else gradient}

    return ask


def _drops(training: bool, **options):
    """What dropout leaves of vectors of ones; whichever random numbers it takes."""

    def ask(answer: Callable) -> dict[str, Any]:
        model = answer(Ones(5), 5, **options).train(training)
        weight, bias = _head_of(model)
        with torch.no_grad():
            weight.copy_(torch.eye(5))
            bias.fill_(0.25)
        ids = torch.ones(400, 2, dtype=torch.long)
        logits = model(Batch(SENTIMENT, ["x"] * 400, ids, ids, None)).detach()
        low, high = logits.min().item(), logits.max().item()
        share = (logits < (low + high) / 2).double().mean().item()
        return {"smallest logit": low, "largest logit": high, "share of small ones": share}

    return ask


SENTIMENT_CLASSIFIER = Exercise(
    name="SentimentClassifier",
    chapter=4,
    title="a classifier on top of BERT",
    section="Training and evaluation",
    difficulty=2,
    importance=5,
    minutes=12,
    task="""
Write the module `SentimentClassifier(encoder, hidden_size, classes=5, dropout=0.3)`.

- `encoder(input_ids, attention_mask)` gives two things, as your `Bert` does: the tokens' vectors
  `[B, L, H]` and the pooled vector of the sentence `[B, H]`.
- Keep three modules, by these names: `encoder`, `dropout` (its rate is the argument) and `head`, a
  linear layer from H to the number of classes.
- `forward(batch)`: the pooled vector of `batch.input_ids` and `batch.attention_mask`, dropout on
  it, then the head. Return the logits `[B, C]`; the loss will do the softmax.
""",
    hint="""
`nn.Module` needs `super().__init__()` before anything is set. `nn.Dropout` switches itself off in
evaluation mode, if it is a module of the model.
""",
    reference=SentimentClassifier,
    cases=(
        Case("in evaluation mode", _classifies(4, 1)),
        Case("three classes", _classifies(6, 2, classes=3)),
        Case("one sentence", _classifies(4, 3, sentences=1)),
        Case("dropout in train mode", _drops(True), rtol=0, atol=0.05),
        Case("much dropout", _drops(True, dropout=0.8), rtol=0, atol=0.05),
        Case("no dropout in evaluation mode", _drops(False, dropout=0.5), rtol=0, atol=1e-5),
    ),
    mistakes=(
        Mistake(
            _classifier(vector=lambda tokens, sentence: tokens[:, 0]),
            "It reads the vector of [CLS] as the last layer left it: the pooled vector is the "
            "second thing that the encoder gives.",
        ),
        Mistake(
            _classifier(vector=lambda tokens, sentence: tokens.mean(dim=1)),
            "It reads the mean of the tokens' vectors: the pooled vector is the second thing that "
            "the encoder gives.",
        ),
        Mistake(
            _classifier(masked=False),
            "The attention mask is forgotten: the encoder reads padding as words.",
        ),
        Mistake(
            _classifier(after=lambda logits: logits.softmax(dim=1)),
            "It returns probabilities: the loss takes logits and does the softmax itself.",
        ),
        Mistake(
            _classifier(after=lambda logits: logits.log_softmax(dim=1)),
            "It returns logarithms of probabilities: logits are asked for.",
        ),
        Mistake(
            _classifier(after=torch.relu),
            "There is a ReLU on the logits: a negative one becomes 0.",
        ),
        Mistake(
            _classifier(on_logits=True),
            "The dropout acts on the logits, those of whole classes become 0: it belongs to the "
            "pooled vector, before the head.",
        ),
        Mistake(
            _classifier(rate=0.0),
            "Nothing is dropped in train mode.",
        ),
        Mistake(
            _classifier(rate=0.3),
            "The rate of the dropout is always 0.3: it is an argument.",
        ),
        Mistake(
            _classifier(keeps=True),
            "The dropout's rate is what it keeps: it is the share that is dropped.",
        ),
        Mistake(
            _classifier(always=True),
            "Dropout is on in evaluation mode too: use `nn.Dropout`, or hand `self.training` to "
            "the function.",
        ),
        Mistake(
            _classifier(detached=True),
            "No gradient reaches the encoder, so it can never be fine-tuned.",
        ),
        Mistake(
            _classifier(width=5),
            "There are always five classes: their number is an argument.",
        ),
    ),
    notes="""
The train-mode cases do not depend on how dropout draws its numbers. 3 points.
""",
)

# The training loop


def train_epoch(
    model: nn.Module, batches: Iterable[Batch], optimizer: torch.optim.Optimizer
) -> list[float]:
    """One pass of training; the loss of each batch, as in `trainer.Trainer` with a single task."""
    model.train()
    losses = []
    for batch in batches:
        optimizer.zero_grad()
        loss = batch.task.loss(model(batch), batch.labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


MARGIN = Task("margin", outputs=SENTIMENT.outputs, loss=F.multi_margin_loss)
"""A task of five classes whose loss is another than sentiment's."""


def _batches(sizes: tuple[int, ...], seed: int, task: Task = SENTIMENT) -> Iterator[Batch]:
    """Batches once, not a list: an epoch may be taken from an endless stream."""
    random = torch.Generator().manual_seed(seed)
    for number, size in enumerate(sizes):
        lengths = torch.randint(2, 6, (size, 1), generator=random)
        ids = torch.randint(1, 9, (size, 5), generator=random)
        mask = (torch.arange(5) < lengths).long()
        labels = torch.randint(0, 5, (size,), generator=random)
        names = [f"{number}-{n}" for n in range(size)]
        yield Batch(task, names, ids * mask, mask, labels)


def _trains(
    sizes: tuple[int, ...],
    seed: int,
    optimizer: Callable,
    begin_in_train: bool = False,
    task: Task = SENTIMENT,
):
    def ask(answer: Callable) -> dict:
        model = ToyModel(seed).train(begin_in_train)
        losses = answer(model, _batches(sizes, seed, task), optimizer(model.parameters()))
        tensors = losses if isinstance(losses, list | tuple) else [losses]
        graphs = any(isinstance(loss, Tensor) and loss.requires_grad for loss in tensors)
        if isinstance(losses, list):
            losses = [loss.item() if isinstance(loss, Tensor) else loss for loss in losses]
        return {
            "value": losses,
            "numbers or graphs": "tensors with their graphs" if graphs else "numbers",
            "parameters afterwards": torch.cat([p.detach().flatten() for p in model.parameters()]),
        }

    return ask


def _sgd(parameters: Iterable) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.3)


def _momentum(parameters: Iterable) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)


def _adam(parameters: Iterable) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=0.05)


def _loop(
    mode: bool = True,
    clear: bool = True,
    step: bool = True,
    scaled: bool = False,
    after: bool = False,
    last: int = 0,
    graphs: bool = False,
    own_loss: bool = True,
) -> Callable:
    """The loop with one thing or another changed; `last` batches are not trained on."""

    def loop(model, batches, optimizer):
        model.train(mode)
        losses, batches = [], list(batches)
        for batch in batches[: len(batches) - last]:
            if clear:
                optimizer.zero_grad()
            loss_of = batch.task.loss if own_loss else F.cross_entropy
            loss = loss_of(model(batch), batch.labels)
            (loss / len(batch) if scaled else loss).backward()
            if step:
                optimizer.step()
            if after:
                loss = batch.task.loss(model(batch), batch.labels)
            losses.append(loss if graphs else loss.item() / (len(batch) if scaled else 1))
        return losses

    return loop


def _summed(model, batches, optimizer):
    model.train()
    losses = [batch.task.loss(model(batch), batch.labels) for batch in batches]
    optimizer.zero_grad()
    sum(losses).backward()
    optimizer.step()
    return [loss.item() for loss in losses]


def _mean_of(losses_of: Callable) -> Callable:
    def mean(model, batches, optimizer):
        losses = losses_of(model, batches, optimizer)
        return sum(losses) / len(losses)

    return mean


TRAIN_EPOCH = Exercise(
    name="train_epoch",
    chapter=4,
    title="the training loop",
    section="Training and evaluation",
    difficulty=2,
    importance=5,
    minutes=12,
    task="""
Write `train_epoch(model, batches, optimizer)`: one optimizer step on each batch.

- `model(batch)` gives the outputs `[B, C]`; `batch.task.loss(outputs, batch.labels)` gives the mean
  loss, a scalar. The model may come in evaluation mode; train in train mode.
- `batches`: anything to loop over once, perhaps a generator without a length.
- `optimizer`: has the model's parameters already.
- Return the losses before each step, a list of numbers.
""",
    hint="""
Five lines in the loop: clear the gradients, predict, measure the loss, go back, step. `backward`
adds to `.grad`; what does that mean for the next batch?
""",
    reference=train_epoch,
    cases=(
        Case("three batches", _trains((4, 4, 4), 1, _sgd)),
        Case("batches of unequal size", _trains((5, 2, 3, 1), 2, _sgd)),
        Case("with momentum", _trains((4, 3, 4), 3, _momentum)),
        Case("with AdamW", _trains((3, 4, 3, 4), 4, _adam)),
        Case("one batch", _trains((6,), 5, _sgd)),
        Case("a model in train mode already", _trains((3, 3), 6, _sgd, begin_in_train=True)),
        Case("a task with another loss", _trains((4, 4), 7, _sgd, task=MARGIN)),
    ),
    mistakes=(
        Mistake(
            _loop(clear=False),
            "The gradients are never cleared: backward adds to those of all batches before.",
        ),
        Mistake(
            _loop(mode=False),
            "The model is in evaluation mode, so nothing is dropped: training needs train mode.",
        ),
        Mistake(
            lambda model, batches, optimizer: _loop(mode=model.training)(model, batches, optimizer),
            "The mode is left as it was: a model in evaluation mode is trained without dropout.",
        ),
        Mistake(
            _loop(step=False),
            "The parameters never move: the step is missing, or its gradients are cleared or not "
            "yet there when it comes.",
        ),
        Mistake(
            _loop(scaled=True),
            "The mean loss is divided by the batch size again: it is a mean already.",
        ),
        Mistake(_loop(last=1), "The last batch is left out."),
        Mistake(
            _summed,
            "There is one step for all batches together: take one for each.",
        ),
        Mistake(
            _mean_of(_loop()),
            "It returns the mean of the losses: a list with each of them is asked for.",
        ),
        Mistake(
            _loop(graphs=True),
            "The losses are tensors that hold on to their graphs, one for each batch, until memory "
            "runs out: append numbers.",
        ),
        Mistake(
            _loop(after=True),
            "The losses are measured after each step: those before it are asked for.",
        ),
        Mistake(
            _loop(own_loss=False),
            "The loss is the cross-entropy, whatever the task: take `batch.task.loss`, since other "
            "tasks have other losses.",
        ),
    ),
    notes="""
Clearing after the step, in place of before, is right too and passes. 2 points.
""",
)

# Prediction in order


def _split(lengths: tuple[int, ...], seed: int, task: Task = SENTIMENT) -> TokenizedSplit:
    random = torch.Generator().manual_seed(seed)
    tokens = [torch.randint(1, 9, (length,), generator=random) for length in lengths]
    names = [f"r{n}" for n in range(len(lengths))]
    return TokenizedSplit(task, names, torch.zeros(len(lengths)).long(), [tokens])


def _predicts(
    lengths: tuple[int, ...], batch_size: int, seed: int, training: bool, task: Task = SENTIMENT
):
    def ask(answer: Callable) -> dict:
        model = ToyModel(seed, task.outputs).train(training)
        logits = answer(model, _split(lengths, seed, task), batch_size)
        return {
            "value": logits,
            "in train mode afterwards": model.training,
            "gradients recorded": any(recorded for _, recorded in model.calls),
        }

    return ask


def predict_in_order(model, split, batch_size: int) -> Tensor:
    """The model's outputs [N, C] for a split, in the order of the split (the library's)."""
    return torch.from_numpy(evaluation.predict(model, split, batch_size))


def _predict(
    model,
    split,
    batch_size,
    *,
    mode: bool | None = False,
    restore: bool = True,
    place: str = "put",
    after: bool | None = None,
    width: int | None = None,
) -> Tensor:
    """Prediction with one thing or another changed."""
    before = model.training
    if mode is not None:
        model.train(mode)
    order, parts = [], []
    with torch.no_grad():
        for indices, batch in sorted_batches(split, batch_size):
            order.append(indices)
            parts.append(model(batch))
    if restore:
        model.train(before if after is None else after)
    order, logits = torch.cat(order), torch.cat(parts)
    if width is not None:
        rows = torch.empty(len(split), width)
        rows[order] = logits
        return rows
    if place == "put":
        return logits[order.argsort()]
    return logits[order] if place == "take" else logits


def _recorded(model, split, batch_size, evaluation_mode=True):
    before, logits = model.training, [None] * len(split)
    if evaluation_mode:
        model.eval()
    for indices, batch in sorted_batches(split, batch_size):
        for index, row in zip(indices.tolist(), model(batch), strict=True):
            logits[index] = row
    model.train(before)
    return torch.stack(logits)


PREDICT_IN_ORDER = Exercise(
    name="predict_in_order",
    chapter=4,
    title="predictions in the order of the file",
    section="Training and evaluation",
    difficulty=2,
    importance=4,
    minutes=12,
    task="""
Write `predict_in_order(model, split, batch_size)`: the model's outputs for every example of a
split.

- `sorted_batches(split, batch_size)` from `mtl_lib.data` gives `(indices, batch)`, longest
  sentences first, which saves padding. `indices` `[B]` says which examples of the split the batch
  holds; the last batch may be smaller.
- Return the outputs `[N, C]` **in the split's own order**: row n belongs to `split.ids[n]`.
- Predict in evaluation mode and without recording gradients, and leave the model in the mode in
  which it came.
""",
    hint="""
`logits[indices] = model(batch)` puts each row where it belongs. `model.training` tells the mode.
""",
    reference=predict_in_order,
    cases=(
        Case("seven sentences", _predicts((3, 5, 2, 7, 4, 6, 1), 3, 1, True)),
        Case("equal lengths", _predicts((4, 4, 4, 4), 2, 2, False)),
        Case("one batch", _predicts((2, 6, 3, 8, 5), 16, 3, True)),
        Case("one at a time", _predicts((5, 1, 3, 4), 1, 4, False)),
        Case("already sorted", _predicts((6, 5, 3, 2, 1), 2, 5, True)),
        Case("a task of two classes", _predicts((2, 4, 3), 2, 6, False, task=CFIMDB)),
    ),
    mistakes=(
        Mistake(
            lambda model, split, batch_size: _predict(model, split, batch_size, place="none"),
            "The rows stand in the order of length: put each where its example stands.",
        ),
        Mistake(
            lambda model, split, batch_size: _predict(model, split, batch_size, place="take"),
            "The order is undone the wrong way round: `indices` says where each row goes, not "
            "where it comes from.",
        ),
        Mistake(
            lambda model, split, batch_size: _predict(model, split, batch_size, mode=True),
            "It predicts in train mode, with dropout: the outputs would be random.",
        ),
        Mistake(
            lambda model, split, batch_size: _predict(model, split, batch_size, mode=None),
            "The mode is left as it was: a model in train mode predicts with dropout.",
        ),
        Mistake(
            lambda model, split, batch_size: _predict(model, split, batch_size, restore=False),
            "The model stays in evaluation mode: whoever goes on training it would not notice.",
        ),
        Mistake(
            _recorded,
            "Gradients are recorded, which costs memory for nothing.",
        ),
        Mistake(
            lambda model, split, batch_size: _recorded(model, split, batch_size, False),
            "Two things are missing around the loop: evaluation mode, and that no gradients are "
            "recorded.",
        ),
        Mistake(
            lambda model, split, batch_size: _predict(model, split, batch_size, after=True),
            "The model is always left in train mode: it may have come in evaluation mode.",
        ),
        Mistake(
            lambda model, split, batch_size: _predict(
                model, split, batch_size, width=SENTIMENT.outputs
            ),
            "There are always five columns: other tasks have other outputs, "
            "`split.task.outputs` of them.",
        ),
    ),
    notes="""
Predictions in another order than the ids give an accuracy near chance and no error. 2 points.
""",
)

# Training with an eye on the development set


def fit(
    model: nn.Module,
    train: TokenizedSplit,
    dev: TokenizedSplit,
    optimizer: Any,
    epochs: int,
    batch_size: int,
    seed: int = 0,
) -> list[float]:
    """Train for some epochs; the model ends as it was after the best one.

    Returns:
        The accuracy on `dev` after each epoch.
    """
    batches, labels, scores = BatchStream(train, batch_size, seed), dev.labels, []
    best: dict[str, Tensor] = {}
    for _ in range(epochs):
        train_epoch(model, islice(batches, len(train) // batch_size), optimizer)
        predicted = torch.from_numpy(evaluation.predict(model, dev, batch_size)).argmax(dim=1)
        score = (predicted == labels).double().mean().item()
        if score > max(scores, default=-1.0):
            best = copy.deepcopy(model.state_dict())
        scores.append(score)
    model.load_state_dict(best)
    return scores


def _fitting(
    keep: str = "best",
    ties: bool = False,
    stream: str = "one",
    more: int = 0,
    partial: bool = False,
    back: bool = False,
    judged: str = "dev",
    returns: str = "all",
    mode: bool = False,
    first: bool = False,
) -> Callable:
    """`fit` with one thing or another changed."""

    def accuracy(model, split, batch_size):
        outputs = _predict(model, split, batch_size, mode=mode)
        return (outputs.argmax(dim=1) == split.labels).double().mean().item()

    def fitted(model, train, dev, optimizer, epochs, batch_size, seed=0):
        batches, scores, judged_by = BatchStream(train, batch_size, seed), [], []
        best = copy.deepcopy(model.state_dict())
        for epoch in range(epochs):
            if stream == "anew":
                batches = BatchStream(train, batch_size, seed)
            if stream == "other":
                batches = BatchStream(train, batch_size, seed + epoch)
            before = accuracy(model, dev, batch_size) if first else None
            number = len(train) // batch_size + more
            number += partial and len(train) % batch_size > 0
            losses = train_epoch(model, islice(batches, number), optimizer)
            score = before if first else accuracy(model, dev, batch_size)
            by = {
                "dev": score,
                "train": accuracy(model, train, batch_size),
                "loss": -sum(losses),
                "worst": -score,
            }[judged]
            bar = max(judged_by, default=-math.inf)
            if keep == "previous":
                bar = judged_by[-1] if judged_by else -math.inf
            if by > bar or (ties and by == bar) or keep == "last":
                best = copy.deepcopy(model.state_dict())
            scores.append(score)
            judged_by.append(by)
            if back:
                model.load_state_dict(best)
        model.load_state_dict(best)
        return {"all": scores, "best": max(scores), "running": np.maximum.accumulate(scores)}[
            returns
        ]

    return fitted


def _fits(sizes: tuple[int, int], epochs: int, batch_size: int, seed: int, optimizer: Callable):
    def ask(answer: Callable) -> dict[str, Any]:
        model, random = ToyModel(seed), torch.Generator().manual_seed(seed)
        splits = []
        for size in sizes:
            lengths = torch.randint(2, 7, (size,), generator=random).tolist()
            split = _split(tuple(lengths), seed + size)
            split.labels = torch.randint(0, 3, (size,), generator=random)
            splits.append(split)
        scores = answer(
            model, *splits, optimizer(model.parameters()), epochs, batch_size, seed=seed
        )
        left = torch.cat([p.detach().flatten() for p in model.parameters()])
        return {"value": scores, "parameters afterwards": left}

    return ask


FIT = Exercise(
    name="fit",
    chapter=4,
    title="train, and keep the best epoch (harder)",
    difficulty=4,
    importance=4,
    minutes=25,
    task="""
Write `fit(model, train, dev, optimizer, epochs, batch_size, seed=0)`: a whole training, from your
own parts.

- `train`, `dev`: tokenised splits with `labels` `[N]`. Take **one** `BatchStream(train, batch_size,
  seed)` for the whole training. An epoch is `len(train) // batch_size` of its batches; `islice` of
  `itertools` takes that many. Your `train_epoch` trains on them.
- After each epoch, predict `dev` with your `predict_in_order` (the same batch size) and take the
  accuracy: how often the largest logit is that of the true class.
- In the end the model has the parameters it had **after its best epoch**, the earliest of equals.
- Return the accuracies on `dev`, one number for each epoch.
""",
    hint="""
`model.state_dict()` holds the model's own tensors, which go on changing: `copy.deepcopy` keeps them
as they are. `model.load_state_dict` puts them back.
""",
    reference=fit,
    cases=(
        Case("five epochs", _fits((12, 9), 5, 4, 21, _sgd)),
        Case("a number that does not divide", _fits((14, 7), 6, 4, 83, _sgd)),
        Case("with AdamW", _fits((10, 8), 6, 3, 12, _adam)),
        Case("equal epochs", _fits((9, 3), 7, 3, 23, _momentum)),
        Case("one epoch", _fits((8, 6), 1, 4, 5, _sgd)),
    ),
    mistakes=(
        Mistake(
            _fitting(keep="last"),
            "The model is left as the last epoch made it: load the best parameters back, and keep "
            "a copy of them, since `state_dict` holds the model's own tensors.",
        ),
        Mistake(
            _fitting(ties=True),
            "Of two equal epochs it keeps the later one: the earlier is asked for.",
        ),
        Mistake(
            _fitting(keep="previous"),
            "It keeps every epoch that beats the one before it: compare with the best so far.",
        ),
        Mistake(
            _fitting(judged="train"),
            "The best epoch is chosen by the accuracy on the training set, which only says how "
            "much was learned by heart.",
        ),
        Mistake(
            _fitting(judged="loss"),
            "The best epoch is chosen by the training loss: the development set decides.",
        ),
        Mistake(_fitting(judged="worst"), "It keeps the worst epoch."),
        Mistake(
            _fitting(stream="anew"),
            "The stream begins anew in every epoch, so each has the same batches.",
        ),
        Mistake(
            _fitting(stream="other"),
            "Every epoch has a stream with a seed of its own: take one stream for all.",
        ),
        Mistake(
            _fitting(more=1),
            "Every epoch takes one batch too many.",
        ),
        Mistake(
            _fitting(partial=True),
            "Where the batch size does not divide the examples, an epoch takes a batch too many: "
            "round down.",
        ),
        Mistake(
            _fitting(back=True),
            "It goes back to the best parameters after every epoch, so the next one starts from "
            "them: load them once, when all epochs are over.",
        ),
        Mistake(
            _fitting(mode=True),
            "The development set is predicted in train mode, with dropout.",
        ),
        Mistake(
            _fitting(first=True),
            "The accuracy is taken before each epoch's training: after it is asked for.",
        ),
        Mistake(
            _fitting(returns="best"),
            "It returns the best accuracy only: one for each epoch is asked for.",
        ),
        Mistake(
            _fitting(returns="running"),
            "It returns the best accuracy so far: that of each epoch is asked for.",
        ),
    ),
    notes="""
`best = model.state_dict()` without a copy is the classic: it costs no error and keeps the last
epoch. Ask what choosing by the development score does to that score (chapter 09). 4 points.
""",
)

# Balanced accuracy


def balanced_accuracy(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Mean over the true classes of the share of each predicted right (scikit-learn's)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a class that is only predicted is allowed
        return float(sk.balanced_accuracy_score(labels, predicted))


def _recalls(labels: np.ndarray, predicted: np.ndarray, classes: Iterable) -> list[float]:
    """Share right of each class, NaN for a class without examples."""
    found = [predicted[labels == c] == c for c in classes]
    return [float(right.mean()) if len(right) else math.nan for right in found]


def _balanced_asks(labels: list[int], predicted: list[int]):
    return lambda answer: call(answer, np.array(labels), np.array(predicted))


PRECISION = (
    "It takes the share of the predictions of a class that are right (precision): asked is the "
    "share of its examples."
)
COUNTS_AS_0 = "A class without examples counts as 0: it has no share, so leave it out."
FIVE = "It always divides by five classes: count only those with true examples."

BALANCED_ACCURACY = Exercise(
    name="balanced_accuracy",
    chapter=4,
    title="balanced accuracy",
    difficulty=2,
    importance=4,
    minutes=10,
    task="""
Write `balanced_accuracy(labels, predicted)`: for each class the share of its examples predicted
right, then the plain mean over the classes.

- Both are numpy arrays `[N]` of whole numbers; `labels` holds the true classes.
- Only classes with true examples count. One that is only predicted has no share of its own.
- Return a number from 0 to 1.
""",
    hint="`np.unique` gives the classes. Of which of the two arrays?",
    reference=balanced_accuracy,
    cases=(
        Case(
            "five classes",
            _balanced_asks([0, 1, 1, 1, 1, 2, 2, 2, 3, 3, 4], [0, 1, 1, 2, 1, 2, 0, 1, 3, 4, 4]),
        ),
        Case("always the same answer", _balanced_asks([0, 1, 1, 1, 1, 2], [1, 1, 1, 1, 1, 1])),
        Case("a class without examples", _balanced_asks([0, 0, 0, 2, 4, 4], [0, 0, 2, 2, 4, 0])),
        Case("a class that is only predicted", _balanced_asks([0, 0, 1, 1, 1], [0, 2, 1, 3, 1])),
        Case("one class", _balanced_asks([3, 3, 3, 3], [3, 3, 0, 3])),
        Case("all right", _balanced_asks([1, 0, 4, 1], [1, 0, 4, 1])),
        Case("all wrong", _balanced_asks([1, 0, 1], [0, 1, 4])),
        Case("classes above four", _balanced_asks([7, 7, 7, 2, 9, 9], [7, 2, 7, 2, 9, 7])),
    ),
    mistakes=(
        Mistake(
            lambda labels, predicted: float(np.mean(labels == predicted)),
            "This is plain accuracy: a large class outvotes the small ones.",
        ),
        *(
            Mistake(
                wrong,
                "It goes over the classes that are predicted, so a class that the model never says "
                "is forgotten: go by the true ones.",
            )
            for wrong in (
                lambda labels, predicted: float(
                    np.mean(_recalls(labels, predicted, np.unique(predicted)))
                ),
                lambda labels, predicted: float(
                    np.nanmean(_recalls(labels, predicted, np.unique(predicted)))
                ),
            )
        ),
        Mistake(
            lambda labels, predicted: float(
                np.mean(_recalls(predicted, labels, np.unique(labels)))
            ),
            PRECISION,
        ),
        Mistake(
            lambda labels, predicted: float(
                np.nanmean(_recalls(predicted, labels, np.unique(labels)))
            ),
            PRECISION,
        ),
        Mistake(
            lambda labels, predicted: float(
                np.nan_to_num(_recalls(predicted, labels, np.unique(labels))).mean()
            ),
            PRECISION,
        ),
        Mistake(
            lambda labels, predicted: float(
                np.mean(_recalls(predicted, labels, np.unique(predicted)))
            ),
            "It averages over the predicted classes, what share of each is right (precision): go "
            "by the true ones.",
        ),
        Mistake(
            lambda labels, predicted: float(
                np.nansum(_recalls(labels, predicted, range(labels.max() + 1))) / (labels.max() + 1)
            ),
            COUNTS_AS_0,
        ),
        Mistake(
            lambda labels, predicted: float(
                np.nan_to_num(
                    _recalls(labels, predicted, range(max(labels.max(), predicted.max()) + 1))
                ).mean()
            ),
            COUNTS_AS_0,
        ),
        Mistake(
            lambda labels, predicted: float(np.nansum(_recalls(labels, predicted, range(5))) / 5),
            FIVE,
        ),
        Mistake(
            lambda labels, predicted: float(
                np.sum(_recalls(labels, predicted, np.unique(labels))) / 5
            ),
            FIVE,
        ),
        Mistake(
            lambda labels, predicted: float(np.nanmean(_recalls(labels, predicted, range(5)))),
            "It knows the classes 0 to 4 only: take those that the labels hold.",
        ),
        Mistake(
            lambda labels, predicted: float(
                np.nan_to_num(_recalls(labels, predicted, np.union1d(labels, predicted))).mean()
            ),
            "A class that is only predicted counts as 0: it has no true examples, so leave it out.",
        ),
        Mistake(
            lambda labels, predicted: float(
                np.mean(_recalls(labels, predicted, range(labels.max() + 1)))
            ),
            "A class without examples makes the mean NaN: leave it out.",
        ),
        Mistake(
            lambda labels, predicted: float(np.mean(_recalls(labels, predicted, range(5)))),
            "A class without examples makes the mean NaN: leave it out.",
        ),
        Mistake(
            lambda labels, predicted: float(
                np.mean(_recalls(labels, predicted, np.union1d(labels, predicted)))
            ),
            "A class that is only predicted makes the mean NaN: go by the true classes.",
        ),
        Mistake(
            lambda labels, predicted: float(
                sk.f1_score(labels, predicted, average="macro", zero_division=0)
            ),
            "This is the macro-averaged F1 score.",
        ),
    ),
    notes="""
The cases without examples of a class decide. 2 points.
""",
)

# The paired bootstrap


def paired_bootstrap(a: np.ndarray, b: np.ndarray, draws: int = 2000) -> tuple[float, float]:
    """95 % interval of mean(b) - mean(a), two models on the same examples (Efron, 1979).

    Args:
        a, b: right or wrong, bool `[N]`.
        draws: resamples, each of N examples with replacement.

    Returns:
        The 2.5 % and 97.5 % quantiles of the resampled differences.
    """
    return _quantiles(a, b, draws, 0.025, 0.975)


def _resampled(values: np.ndarray, draws: int, seed: int = 0) -> np.ndarray:
    """Means of resamples, `[draws]`."""
    chosen = np.random.default_rng(seed).integers(len(values), size=(draws, len(values)))
    return values.astype(float)[chosen].mean(axis=1)


def _quantiles(a, b, draws: int, low: float, high: float) -> tuple[float, float]:
    differences = _resampled(b.astype(float) - a, draws)
    return tuple(float(q) for q in np.quantile(differences, [low, high]))


def _unpaired(a, b, draws: int = 2000):
    differences = _resampled(b, draws, seed=1) - _resampled(a, draws, seed=2)
    return tuple(float(q) for q in np.quantile(differences, [0.025, 0.975]))


def _spread(a, b, draws: int = 2000, times: float = 1.0):
    differences = _resampled(b.astype(float) - a, draws)
    middle, half = differences.mean(), times * differences.std()
    return float(middle - half), float(middle + half)


def _centred(a, b, draws: int = 2000):
    low, high = _quantiles(a, b, draws, 0.025, 0.975)
    gain = float(b.mean() - a.mean())
    return low - gain, high - gain


def _flipped(a, b, draws: int = 2000):
    low, high = _quantiles(a, b, draws, 0.025, 0.975)
    return -high, -low


def _of_examples(a, b, draws: int = 2000):
    return tuple(float(q) for q in np.quantile(b.astype(float) - a, [0.025, 0.975]))


def _bootstrap_asks(both: int, gained: int, lost: int, neither: int):
    """Examples that both models get right, only b, only a, neither.

    The numbers are chosen so that the quantiles are certain: at 10,000 draws, chance moves none of
    them to the next multiple of 1 / N, whatever the generator.
    """
    counts = [both, gained, lost, neither]
    a = np.repeat([True, False, True, False], counts)
    b = np.repeat([True, True, False, False], counts)
    order = np.random.default_rng(both).permutation(len(a))
    return lambda answer: call(answer, a[order], b[order], draws=10_000)


def _last_decides(answer: Callable) -> Any:
    """Of 80 examples b gets the last one right, a none: drawn 0 to 3 times, the quantiles."""
    a = np.zeros(80, dtype=bool)
    return call(answer, a, np.arange(80) == 79, draws=10_000)


def _without_last(a, b, draws: int = 2000):
    chosen = np.random.default_rng(0).integers(len(a) - 1, size=(draws, len(a)))
    means = (b.astype(float) - a)[chosen].mean(axis=1)
    return tuple(float(q) for q in np.quantile(means, [0.025, 0.975]))


PAIRED_BOOTSTRAP = Exercise(
    name="paired_bootstrap",
    chapter=4,
    title="the paired bootstrap",
    difficulty=3,
    importance=5,
    minutes=15,
    task="""
Write `paired_bootstrap(a, b, draws=2000)`: a 95 % interval for the gain of model b over model a,
measured on the same N examples.

- `a` and `b`: bool arrays `[N]`, whether each example was predicted right.
- Draw N examples with replacement, `draws` times; each time take mean(b) - mean(a) **on the same
  drawn examples**. The interval runs from the 2.5 % to the 97.5 % quantile of these differences.
- Return `(low, high)`. Which random numbers you take does not matter: the check asks for 10,000
  draws of examples chosen so that they cannot change the answer.
""",
    hint="""
The difference of each example first, then resample the differences. numpy cannot subtract bools:
make them numbers.
""",
    reference=paired_bootstrap,
    cases=(
        # Scores are multiples of 1 / N: a fifth of one leaves room for rounding, not for luck.
        Case("46 examples, b gains 11, loses 3", _bootstrap_asks(22, 11, 3, 10), atol=0.2 / 46),
        Case("28 examples, b gains 4, loses 5", _bootstrap_asks(14, 4, 5, 5), atol=0.2 / 28),
        Case("75 examples, b gains 9, loses none", _bootstrap_asks(63, 9, 0, 3), atol=0.2 / 75),
        Case("equal models", _bootstrap_asks(12, 0, 0, 9), atol=1e-9),
        Case("b always right, a never", _bootstrap_asks(0, 7, 0, 0), atol=1e-9),
        Case("only the last example differs", _last_decides, atol=0.2 / 80),
    ),
    mistakes=(
        Mistake(
            _unpaired,
            "The two models are resampled apart: draw the examples once, and compare both on them.",
        ),
        Mistake(
            _spread,
            "This is the mean plus and minus one standard deviation of the resamples: a 95 % "
            "interval takes their quantiles.",
        ),
        Mistake(
            lambda a, b, draws=2000: _spread(a, b, draws, times=1.96),
            "This is the normal approximation: take the quantiles of the resamples.",
        ),
        Mistake(
            lambda a, b, draws=2000: _quantiles(a, b, draws, 0.05, 0.95),
            "The quantiles 5 % and 95 % leave a 90 % interval.",
        ),
        Mistake(
            lambda a, b, draws=2000: _quantiles(a, b, draws, 0.0, 1.0),
            "It runs from the smallest to the largest difference: take the quantiles.",
        ),
        Mistake(_flipped, "The sign is flipped: the gain of b over a is mean(b) - mean(a)."),
        Mistake(
            lambda a, b, draws=2000: _quantiles(a, b, draws, 0.025, 0.975)[::-1],
            "Low and high are exchanged.",
        ),
        Mistake(
            _centred,
            "The gain itself is taken away, so the interval lies around 0.",
        ),
        Mistake(
            _of_examples,
            "These are quantiles of single examples: resample, and take the mean of each resample.",
        ),
        Mistake(
            lambda a, b, draws=2000: (float(np.mean(b) - np.mean(a)),) * 2,
            "Every resample has the same mean: drawn without replacement, it holds all N examples "
            "in another order. Draw with replacement.",
        ),
        Mistake(
            lambda a, b, draws=2000: tuple(
                float(q) for q in np.quantile(_resampled(b, draws), [0.025, 0.975])
            ),
            "This is the interval of model b alone: the difference to a is asked for.",
        ),
        Mistake(
            _without_last,
            "The last example is never drawn: numpy's upper end is not drawn itself, so give N.",
        ),
    ),
    notes="""
Unpaired intervals are right for two development sets, and too wide for one. 3 points.
""",
)

EXERCISES = (
    CLASS_LOSS,
    SENTIMENT_CLASSIFIER,
    TRAIN_EPOCH,
    PREDICT_IN_ORDER,
    FIT,
    BALANCED_ACCURACY,
    PAIRED_BOOTSTRAP,
)
