"""The multi-task loop: one batch of each task, one gradient per task, one combined step."""

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from mtl_lib.data import Batch, BatchStream, TokenizedSplit
from mtl_lib.errors import ConfigError, RunError
from mtl_lib.evaluation import headline, metrics, predict
from mtl_lib.joint import JointGradients
from mtl_lib.model import MultitaskModel
from mtl_lib.packed import Pack, encode_packed
from mtl_lib.regularizers import SmoothnessRegularizer, lp_penalty
from mtl_lib.weighting import cosines

# A term added to one task's loss: (model, batch) -> scalar.
LossTerm = Callable[[MultitaskModel, Batch], Tensor]
# From the Gram matrix of the task gradients [T, T] to one weight per task [T].
Weighting = Callable[[Tensor, torch.Generator | None], Tensor]


@dataclass
class Fit:
    """What training leaves behind: a history per epoch, and the numbers of two epochs.

    `best` is the epoch with the highest mean of the development metrics, `last` the final one;
    each holds `train` and `dev` metrics by task. `logits` are the best epoch's on the
    development sets, `[N, C]` by task.
    """

    history: list[dict] = field(default_factory=list)
    best: dict = field(default_factory=dict)
    last: dict = field(default_factory=dict)
    logits: dict[str, np.ndarray] = field(default_factory=dict)


class Trainer:
    """Trains a `MultitaskModel` on several tasks at once.

    A step takes one batch of each task, and an epoch is one pass over the shortest training set
    (our reading: the paper does not say). The gradients of the shared parameters are formed task
    by task (`joint.py`); `weighting` says how they are summed. The heads belong to one task each
    and take their own gradient as it is.

    Args:
        model: the model; its tasks are those of `train`.
        train: tokenised training split of each task, in the order of the Gram matrix.
        optimizer: steps all trainable parameters.
        weighting: Gram matrix `[T, T]` to task weights `[T]`: the plain sum or gradient surgery.
        batch_size: examples per task and step.
        seed: decides the order of the examples and of the projections.
        terms: extra loss terms by task: penalties, smoothness.
        class_weights: weights `[C]` of the cross-entropy by task.

    Raises:
        ConfigError: if a training set is smaller than one batch.
    """

    def __init__(
        self,
        model: MultitaskModel,
        train: dict[str, TokenizedSplit],
        *,
        optimizer: torch.optim.Optimizer,
        weighting: Weighting,
        batch_size: int,
        seed: int,
        terms: dict[str, list[LossTerm]] | None = None,
        class_weights: dict[str, Tensor] | None = None,
    ):
        shortest = min(train, key=lambda name: len(train[name]))
        self.steps_per_epoch = len(train[shortest]) // batch_size
        if self.steps_per_epoch == 0:
            raise ConfigError(
                f"{shortest}: {len(train[shortest])} training examples are less than one batch "
                f"of {batch_size}; lower the batch size"
            )
        self.model = model
        self.device = next(model.parameters()).device
        self.optimizer = optimizer
        self.weighting = weighting
        self.terms = terms or {}
        self.class_weights = class_weights or {}
        self.streams = {
            name: BatchStream(split, batch_size, seed=seed * 1000 + number)
            for number, (name, split) in enumerate(train.items())
        }
        self.generator = torch.Generator().manual_seed(seed)
        self.gradients = None if model.frozen else JointGradients(model.encoder, len(train))
        self.steps = 0

    def step(self) -> tuple[dict[str, float], Tensor]:
        """One optimizer step on one batch of each task.

        Returns:
            The loss of each task, and the Gram matrix `[T, T]` of the shared gradients (zero for
            a frozen encoder).

        Raises:
            RunError: if a loss is not finite, naming step, task and examples.
        """
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        batches = [next(stream) for stream in self.streams.values()]
        losses = self._backward(batches)  # [T]
        gram = torch.zeros(len(batches), len(batches), dtype=torch.float64)
        if self.gradients is not None:
            gram = self.gradients.gram()
            self.gradients.combine(self.weighting(gram, self.generator))
        values = losses.tolist()  # the one time in a step that the host waits for a GPU
        for batch, value in zip(batches, values, strict=True):
            if not np.isfinite(value):
                raise RunError(
                    f"step {self.steps + 1}: the {batch.task.name} loss is {value} on examples "
                    f"{', '.join(batch.ids)}; lower the learning rate"
                )
        self.optimizer.step()
        self.steps += 1
        return dict(zip(self.streams, values, strict=True)), gram.cpu()

    def _backward(self, batches: list[Batch]) -> Tensor:
        """Fill in the gradients; returns the loss of each task, its terms included, `[T]`."""
        vectors = self.model.vectors(batches, self.gradients)  # T tensors [n*B, H]
        losses = torch.stack(
            [self._loss(batch, v) for batch, v in zip(batches, vectors, strict=True)]
        )
        losses.sum().backward()
        losses = losses.detach()
        for task, batch in enumerate(batches):
            for term in self.terms.get(batch.task.name, []):
                value = term(self.model, batch.to(self.device))
                value.backward()  # a graph of its own, so that it reaches this task's gradient only
                if self.gradients is not None:
                    self.gradients.add(task)
                losses[task] += value.detach()
        return losses

    def _loss(self, batch: Batch, vectors: Tensor) -> Tensor:
        """The loss of one task from its sentence vectors `[n*B, H]`, without its terms."""
        task = batch.task
        logits = self.model.classify(task, vectors)
        return task.loss(logits, batch.labels.to(self.device), self.class_weights.get(task.name))

    def fit(
        self,
        dev: dict[str, TokenizedSplit],
        sample: dict[str, TokenizedSplit],
        *,
        epochs: int,
        max_steps: int | None = None,
        on_epoch: Callable[[dict], None] | None = None,
        on_best: Callable[[], None] | None = None,
    ) -> Fit:
        """Train for some epochs, evaluating after each.

        Args:
            dev: development split of each task.
            sample: the training examples on which training metrics are measured.
            epochs: passes over the shortest training set.
            max_steps: stop after this many steps, wherever that is.
            on_epoch: called with each epoch's history entry.
            on_best: called when an epoch is the best so far, the model as it then is.
        """
        total = min(epochs * self.steps_per_epoch, max_steps or sys.maxsize)
        fit, best = Fit(), -np.inf
        # disable=None: a bar where a person watches a terminal, none in a notebook or a log
        with tqdm(total=total, unit="step", disable=None, leave=False) as bar:
            while self.steps < total:
                entry = self._epoch(min(self.steps_per_epoch, total - self.steps), bar)
                entry["epoch"] = len(fit.history) + 1
                logits, entry["dev"] = self._evaluate(dev)
                _, entry["train"] = self._evaluate(sample)
                fit.history.append(entry)
                fit.last = {"train": entry["train"], "dev": entry["dev"]}
                if headline(entry["dev"]) > best:
                    best, fit.best, fit.logits = headline(entry["dev"]), fit.last, logits
                    if on_best:
                        on_best()
                if on_epoch:
                    on_epoch(entry)
        return fit

    def _epoch(self, steps: int, bar: tqdm) -> dict:
        """Train for some steps: mean losses and the conflict between the task gradients."""
        started = time.perf_counter()
        losses = defaultdict(float)
        pairs = list(combinations(enumerate(self.streams), 2))
        cosine, conflicts = defaultdict(float), defaultdict(float)
        for _ in range(steps):
            step_losses, gram = self.step()
            for name, loss in step_losses.items():
                losses[name] += loss / steps
            if not self.model.frozen:
                cos = cosines(gram)
                for (i, a), (j, b) in pairs:
                    cosine[f"{a}-{b}"] += cos[i, j].item() / steps
                    conflicts[f"{a}-{b}"] += (gram[i, j].item() < 0) / steps
            bar.update()
        return {
            "step": self.steps,
            "loss": dict(losses),
            "conflict": {p: {"cosine": cosine[p], "rate": conflicts[p]} for p in cosine},
            "seconds": time.perf_counter() - started,
        }

    def _evaluate(self, splits: dict[str, TokenizedSplit]) -> tuple[dict, dict]:
        logits = {name: predict(self.model, split) for name, split in splits.items()}
        scores = {
            name: metrics(split.task, logits[name], split.labels.numpy())
            for name, split in splits.items()
        }
        return logits, scores


def penalty_term(task_name: str, p: float, strength: float) -> LossTerm:
    """`strength * ||w||_p` of the task's head matrices, added to its loss (paper, section 4)."""
    return lambda model, batch: strength * lp_penalty(model.heads[task_name].matrices(), p)


def smoothness_term(strength: float, generator: torch.Generator) -> LossTerm:
    """SMART on a single-sentence or pair task (paper, appendix A).

    Both passes run without dropout, otherwise the term would measure the dropout masks.
    """
    regularizer = SmoothnessRegularizer()

    def term(model: MultitaskModel, batch: Batch) -> Tensor:
        pack = Pack.of([(batch.input_ids, batch.attention_mask)])
        (places,) = pack.places  # of the real tokens among all

        def forward(embeddings: Tensor) -> Tensor:  # [n*B, L, H] -> [B, C]
            tokens = embeddings.flatten(0, 1)[places]  # [N, H]
            return model.classify(batch.task, encode_packed(model.encoder, tokens, pack))

        model.eval()
        embeddings = model.encoder.embed(batch.input_ids)
        value = regularizer(forward, embeddings, loss=batch.task.kind, generator=generator)
        model.train()
        return strength * value

    return term


def class_weights(labels: Iterable[int], num_classes: int) -> Tensor:
    """`W_i = TC / (K * C_i)` from the training labels (paper, section 4); 0 for an empty class.

    Args:
        labels: training labels, TC of them, C_i in class i.
        num_classes: K.

    Returns:
        Weights `[K]`, float32.
    """
    counts = np.bincount(np.asarray(labels, dtype=int), minlength=num_classes)
    weights = np.zeros(num_classes)
    weights[counts > 0] = counts.sum() / (num_classes * counts[counts > 0])
    return torch.tensor(weights, dtype=torch.float32)
