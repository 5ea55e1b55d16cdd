"""The multi-task loop: one batch of each task, one gradient per task, one combined step.

The default engine reads as it runs: `BertModel.forward`, one backward pass a task, `TaskGradients`.
`engine="fast"` (`fast/engine.py`) gives the same numbers in one pass.
"""

import sys
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from mtl_lib.bert import BertModel
from mtl_lib.data import Batch, BatchStream, TokenizedSplit
from mtl_lib.errors import ConfigError, NumericalError
from mtl_lib.evaluation import headline, metrics, predict
from mtl_lib.gradients import TaskGradients
from mtl_lib.model import MultitaskModel, vectors_read
from mtl_lib.optim import AdamW
from mtl_lib.weighting import sum_weights

# A term added to one task's loss: (model, batch) -> scalar.
LossTerm = Callable[[MultitaskModel, Batch], Tensor]
# From the steps taken so far to the factor of all learning rates.
Schedule = Callable[[int], float]
# From the Gram matrix of the task gradients [T, T] to one weight per task [T]. If it has a method
# `see`, that is given the tasks' losses [T] before.
Weighting = Callable[[Tensor, torch.Generator | None], Tensor]
# From the steps taken so far to the names of the tasks of the next one, each once.
Sampler = Callable[[int], Sequence[str]]
ENGINES = ("plain", "fast")
_ALIKE = ("kind", "sentences", "outputs", "name")  # in which data and model have to agree
_ONLY = "the fast engine knows BertModel as it is built only, no part of it a head's too"


@dataclass
class Fit:
    """What training leaves behind: a history per epoch, and the numbers of two epochs.

    `best` is the epoch with the highest mean of the development metrics (`BestEpoch` keeps its
    weights), `last` the final one; each holds `train` and `dev` metrics by task. `logits` are the
    best epoch's on the development sets, `[N, C]` by task.
    """

    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] = field(default_factory=dict)
    last: dict[str, Any] = field(default_factory=dict)
    logits: dict[str, np.ndarray] = field(default_factory=dict)


class Callback:
    """Looks on while a `Trainer` trains; a subclass overrides what it needs.

    `state_dict` and `load_state_dict` carry what it remembers through a checkpoint
    (`study/resume.py`).
    """

    def after_step(self, trainer: "Trainer", gram: Tensor) -> None:
        """After each step; `gram` is the Gram matrix `[T, T]` of the shared gradients."""

    def after_epoch(self, trainer: "Trainer", entry: dict[str, Any]) -> None:
        """After each epoch, with its entry of the history, which may be added to."""

    def after_best(self, trainer: "Trainer") -> None:
        """When an epoch is the best so far, the model as it then is; before `after_epoch`."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


# Of a batch and its sentence vectors [n*B, H] the task's loss, and of a batch its further terms.
BatchLoss = Callable[[Batch, Tensor], Tensor]
Terms = Callable[[Batch], Iterable[Tensor]]


class Engine(Protocol):
    """Fills in the gradients of a step, those of the shared parameters task by task."""

    def backward(
        self, batches: Sequence[Sequence[Batch]], loss: BatchLoss, terms: Terms
    ) -> tuple[list[tuple[Tensor, Tensor]], Any]:
        """From each task's batches, as many of each, to its mean loss, and that with its terms; and
        to the shared gradients, to be asked for their `gram()` and to `combine(weights)`. The
        heads' gradients stand in `.grad`."""
        ...


class PlainEngine:
    """One forward and one backward pass a batch, as `bert.py` and `gradients.py` have them."""

    def __init__(self, model: MultitaskModel) -> None:
        self._model = model

    def backward(
        self, batches: Sequence[Sequence[Batch]], loss: BatchLoss, terms: Terms
    ) -> tuple[list[tuple[Tensor, Tensor]], TaskGradients]:
        losses, gradients = [], TaskGradients(self._model.shared_parameters())
        for parameter in self._model.shared_parameters():
            parameter.grad = None  # what is left of something else is no task's
        for of_task in batches:
            of_losses, of_wholes = [], []
            for batch in of_task:  # their gradients add up in `.grad`
                plain = loss(batch, self._model.vectors(batch)) / len(of_task)
                whole = sum((term / len(of_task) for term in terms(batch)), start=plain)
                whole.backward()
                of_losses.append(plain.detach())
                of_wholes.append(whole.detach())
            gradients.collect()
            losses.append((torch.stack(of_losses).sum(), torch.stack(of_wholes).sum()))
        return losses, gradients


class Trainer:
    """Trains a `MultitaskModel` on several tasks at once.

        trainer = Trainer(model, corpus.tokenized(tokenizer), weighting=pcgrad_weights)
        trainer.fit(epochs=3)

    A step takes one batch of each task (or of those that `sampler` names: fewer examples), and an
    epoch has the steps of one pass over the shortest training set (our reading: the paper does not
    say). The gradients of the shared parameters are formed task by task; `weighting` says how they
    are summed. The heads belong to one task each and take their own gradient as it is.

    Args:
        model: with a head for each task of the data; trained on the device where it lies.
        data: of each task its tokenised splits, "train" and, to be evaluated on, "dev"; or its
            training split alone. Their order is that of the Gram matrix.
        optimizer: steps all trainable parameters; by default `AdamW` at a rate of 2e-5.
        weighting: Gram matrix `[T, T]` to task weights `[T]`: the plain sum or gradient surgery.
        batch_size: examples per task and step.
        accumulate: batches per task and step; the step takes the mean of their gradients, in the
            memory of one.
        sampler: the tasks of a step, from the steps taken so far; all of them if None
            (`methods/sampling.py`).
        seed: decides the order of the examples and of the projections.
        engine: "plain", or "fast" for a `BertModel` as it is built (`fit` refuses a later change);
            others the plain engine trains, with a warning. Attribute `make_engine` makes another.
        terms: extra loss terms by task: penalties, smoothness.
        class_weights: weights `[C]` of the cross-entropy by task; above 0 where a class occurs.
        generators: those that the terms draw from, so that a checkpoint holds them.
        steps_per_epoch: in place of those of one pass over the shortest training set.
        schedule: factor of all learning rates, from the steps taken so far; 1 if None.
        clip: largest norm of the combined gradient of all parameters, heads included; larger ones
            are scaled down to it (Pascanu et al., 2013, Algorithm 1). None: as it is.
        callbacks: see `Callback`.

    Raises:
        ConfigError: if a task has no head, no training split, no labels or the data of another, its
            training set is smaller than a batch, or a sentence longer than the encoder's positions.
    """

    def __init__(
        self,
        model: MultitaskModel,
        data: Mapping[str, Mapping[str, TokenizedSplit] | TokenizedSplit],
        *,
        optimizer: torch.optim.Optimizer | None = None,
        weighting: Weighting = sum_weights,
        batch_size: int = 8,
        accumulate: int = 1,
        sampler: Sampler | None = None,
        seed: int = 0,
        engine: str = "plain",
        terms: dict[str, list[LossTerm]] | None = None,
        class_weights: dict[str, Tensor] | None = None,
        generators: dict[str, torch.Generator] | None = None,
        steps_per_epoch: int | None = None,
        schedule: Schedule | None = None,
        clip: float | None = None,
        callbacks: Sequence[Callback] = (),
    ):
        self.data: dict[str, Mapping[str, TokenizedSplit]] = {
            name: {"train": splits} if isinstance(splits, TokenizedSplit) else splits
            for name, splits in data.items()
        }
        _check_count("batch_size", batch_size)
        _check_count("accumulate", accumulate)
        _check(model, self.data, batch_size * accumulate)
        for name, weights in (class_weights or {}).items():
            if name not in data:
                raise ConfigError(f"class_weights of {name!r}: no such task in {list(data)}")
            model.tasks[name].check_class_weights(weights, self.data[name]["train"].labels)
        if unknown := set(terms or {}) - set(data):
            raise ConfigError(f"terms of {sorted(unknown)}: no such task in {list(data)}")
        if not callable(weighting):
            raise ConfigError(f"weighting {weighting!r}: give a function, such as pcgrad_weights")
        if engine not in ENGINES:
            raise ConfigError(f"engine {engine!r}: choose from {list(ENGINES)}")
        train = {name: splits["train"] for name, splits in self.data.items()}
        shortest = min(map(len, train.values())) // (batch_size * accumulate)
        self.steps_per_epoch = shortest if steps_per_epoch is None else steps_per_epoch
        _check_count("steps_per_epoch", self.steps_per_epoch)
        if clip is not None and not clip > 0:
            raise ConfigError(f"clip = {clip!r}: it must be above 0, or None")
        self.model = model
        model.tokenizer = getattr(data, "tokenizer", model.tokenizer)
        self.device = next(model.parameters()).device
        self.optimizer = optimizer or AdamW(self.trainable().values(), lr=2e-5)
        self.weighting = weighting
        self.terms = terms or {}
        self.class_weights = {n: w.to(self.device) for n, w in (class_weights or {}).items()}
        self.streams = {
            name: BatchStream(split, batch_size, seed=seed * 1000 + number)
            for number, (name, split) in enumerate(train.items())
        }
        self.accumulate = accumulate
        self.sampler = sampler
        self.generator = torch.Generator().manual_seed(seed)
        self.generators = {"surgery": self.generator} | (generators or {})
        self.schedule = schedule
        self.clip = clip
        groups = self.optimizer.param_groups
        self._rates = [group.setdefault("initial_lr", group["lr"]) for group in groups]
        self.callbacks = callbacks
        self.seed = seed
        self.steps = 0
        self.step_tasks: list[str] = []  # of the last step, in the order of its Gram matrix
        self.result = Fit()  # of the epochs so far
        self.evaluating = False  # parameters and streams then stand still
        self.epoch: dict[str, Any] = {}  # the sums of the one under way
        self._term_values: dict[str, float] = {}  # of the last step, by task
        self._fast, self.make_engine = _engine_maker(model, engine)
        model.fast = self._fast
        self.engine: Engine = self.make_engine()
        self.predict: Callable[..., np.ndarray] | None = None  # evaluates in the place of `predict`
        self.gradients: Any = None  # of the step under way

    def step(self) -> tuple[dict[str, float], Tensor]:
        """One optimizer step on a batch, or `accumulate` batches, of each of its tasks.

        Returns:
            The loss of each task, its terms included, and the Gram matrix `[T, T]` of the shared
            gradients (zero for a frozen encoder).

        Raises:
            NumericalError: if a loss, a gradient or a weight is not finite, naming step, task and
                examples; the parameters are then those of the step before.
        """
        self.model.train()
        self.model.fast = self._fast  # another trainer may have the model as well
        self.model.zero_grad(set_to_none=True)  # also what the optimizer does not step
        names = self.step_tasks = self._tasks_of_step()
        rounds = range(self.accumulate)
        batches = [[next(self.streams[name]) for _ in rounds] for name in names]
        losses, self.gradients = self.engine.backward(batches, self.loss, self.terms_of)
        gram = self.gradients.gram()
        rows = [torch.stack(of_tasks) for of_tasks in zip(*losses, strict=True)]
        if see := getattr(self.weighting, "see", None):
            see(rows[0])
        weights = self._combine(gram)
        rows += [self._gradient_sizes(gram), weights]
        # All that the step looks at in one transfer: for each the host would wait for a GPU.
        numbers = torch.stack([row.to(gram.device).double() for row in rows]).tolist()
        self._refuse_non_finite(batches, numbers)
        plain, whole, *_ = numbers
        self._term_values = {
            name: value - loss
            for name, value, loss in zip(names, whole, plain, strict=True)
            if name in self.terms
        }
        if self.clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        if self.schedule:
            factor = self.schedule(self.steps)
            if not 0 <= factor < np.inf:
                raise ConfigError(f"step {self.steps + 1}: the schedule gives the factor {factor}")
            if self.steps and not factor:  # at the first one a warm-up does
                warnings.warn("the schedule gives 0: such a step moves nothing", stacklevel=2)
            for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
                group["lr"] = rate * factor
        self.optimizer.step()
        self.steps += 1
        return dict(zip(names, whole, strict=True)), gram.cpu()

    def _tasks_of_step(self) -> list[str]:
        """Names of the tasks that take part in the next step."""
        names = list(self.streams if self.sampler is None else self.sampler(self.steps))
        if not names or len(set(names)) < len(names) or set(names) - set(self.streams):
            raise ConfigError(f"the sampler gives {names}: some of {list(self.streams)}, each once")
        return names

    def loss(self, batch: Batch, vectors: Tensor) -> Tensor:
        """The loss of one task from its sentence vectors `[n*B, H]`, without its terms: a scalar.

        Raises:
            ConfigError: if the batch has no labels.
        """
        task = batch.task
        if batch.labels is None:
            raise ConfigError(f"{task.name}: no loss without labels")
        logits = self.model.classify(task, vectors)
        return task.loss(logits, batch.labels.to(self.device), self.class_weights.get(task.name))

    def terms_of(self, batch: Batch) -> Iterable[Tensor]:
        """The values of the further loss terms of a batch's task, scalars."""
        for term in self.terms.get(batch.task.name, []):
            yield torch.as_tensor(term(self.model, batch.to(self.device)))

    def _combine(self, gram: Tensor) -> Tensor:
        """From the tasks' shared gradients to one, `.grad`; the heads keep their own.

        Returns the weights of the tasks, `[T]`.
        """
        weights = torch.ones(len(gram), dtype=torch.float64)
        if any(p.requires_grad for p in self.model.shared_parameters()):
            weights = torch.as_tensor(self.weighting(gram, self.generator)).detach()
            if weights.shape != (len(gram),):
                raise ConfigError(
                    f"the weighting gives {tuple(weights.shape)}; one weight for each of the "
                    f"{len(gram)} tasks is needed"
                )
        self.gradients.combine(weights)
        return weights

    def _gradient_sizes(self, gram: Tensor) -> Tensor:
        """Squared norm of each task's gradients, `[T]`, not finite where one of them is not."""
        sizes = gram.diagonal().clone()
        for number, name in enumerate(self.step_tasks):
            for parameter in self.model.heads[name].parameters():
                if parameter.grad is not None:
                    sizes[number] += parameter.grad.square().sum().to(sizes.device)
        return sizes

    def _refuse_non_finite(self, batches: list[list[Batch]], numbers: list[list[float]]) -> None:
        _, losses, sizes, weights = numbers
        for of_task, value, size in zip(batches, losses, sizes, strict=True):
            if not np.isfinite([value, size]).all():
                fault = f"gradient (its loss is {value})" if np.isfinite(value) else "loss"
                found = size if np.isfinite(value) else value
                ids = ", ".join(key for batch in of_task for key in batch.ids)
                raise NumericalError(
                    f"step {self.steps + 1}: the {of_task[0].task.name} {fault} is {found} on "
                    f"examples {ids}; lower the learning rate"
                )
        if not np.isfinite(weights).all():
            raise NumericalError(
                f"step {self.steps + 1}: the weighting gives {weights} for the tasks "
                f"{', '.join(self.step_tasks)}; every weight must be finite"
            )

    def fit(
        self, epochs: int, *, max_steps: int | None = None, train_sample: int | None = 1000
    ) -> Fit:
        """Train for some epochs, evaluating after each; go on where it stands.

        Args:
            epochs: how many in all, `steps_per_epoch` steps each, those already made among them.
            max_steps: stop after this many steps, wherever that is.
            train_sample: training examples, per task, on which training metrics are measured; all
                if None.
        """
        if self._fast:
            from mtl_lib.fast import knows

            if not knows(self.model):  # as it is now
                raise ConfigError(f"{_ONLY}: the model was changed; make the trainer anew")
        _check_count("epochs", epochs)
        for name, value in {"max_steps": max_steps, "train_sample": train_sample}.items():
            if value is not None:
                _check_count(name, value)
        total = min(epochs * self.steps_per_epoch, max_steps or sys.maxsize)
        # disable=None: a bar where a person watches a terminal, none in a notebook or a log
        with tqdm(total=total, initial=self.steps, unit="step", disable=None, leave=False) as bar:
            while self.steps < total or self.epoch:
                if not self.epoch:
                    rest = self.steps_per_epoch - self.steps % self.steps_per_epoch  # of a cut one
                    steps = min(rest, total - self.steps)
                    self.epoch = {"steps": steps, "done": 0, "seconds": 0.0}
                    self.epoch |= {"loss": {}, "terms": {}, "seen": {}}  # seen: in how many steps
                while self.epoch["done"] < self.epoch["steps"]:
                    self._count_step()
                    bar.update()
                self._end_epoch(train_sample)
        return self.result

    def _count_step(self) -> None:
        """One step; its losses go into the sums of the epoch."""
        started = time.perf_counter()
        epoch = self.epoch
        losses, gram = self.step()
        of_step: dict[str, Mapping[str, float]] = {"loss": losses, "terms": self._term_values}
        for what, values in (of_step | {"seen": dict.fromkeys(losses, 1)}).items():
            for name, value in values.items():
                epoch[what][name] = epoch[what].get(name, 0) + value
        epoch["done"] += 1
        epoch["seconds"] += time.perf_counter() - started
        for callback in self.callbacks:
            callback.after_step(self, gram)

    def _end_epoch(self, train_sample: int | None) -> None:
        """Evaluate, and enter the epoch in the history."""
        dev = {name: splits["dev"] for name, splits in self.data.items() if "dev" in splits}
        seen = {name: splits["train"].sample(train_sample) for name, splits in self.data.items()}
        logits, dev_metrics = self.evaluate(dev)
        _, train_metrics = self.evaluate(seen)
        result, sums = self.result, self.epoch
        losses, terms = (
            {name: value / sums["seen"][name] for name, value in sums[what].items()}
            for what in ("loss", "terms")
        )
        entry = {"step": self.steps, "loss": losses, "seconds": sums["seconds"]}
        if self.terms:
            entry["terms"] = terms  # how much of `loss` they are
        entry |= {"epoch": len(result.history) + 1, "dev": dev_metrics, "train": train_metrics}
        self.epoch = {}
        result.history.append(entry)
        result.last = {"train": train_metrics, "dev": dev_metrics}
        if not (result.best and dev) or headline(dev_metrics) > headline(result.best["dev"]):
            result.best, result.logits = result.last, logits
            for callback in self.callbacks:
                callback.after_best(self)
        for callback in self.callbacks:
            callback.after_epoch(self, entry)

    def trainable(self) -> dict[str, torch.nn.Parameter]:
        """The parameters that are trained, by name."""
        return {n: p for n, p in self.model.named_parameters() if p.requires_grad}

    def evaluate(
        self, splits: Mapping[str, TokenizedSplit]
    ) -> tuple[dict[str, np.ndarray], dict[str, dict[str, float]]]:
        """Logits `[N, C]` and `metrics` of some labelled splits, by task."""
        self.evaluating, self.model.fast = True, self._fast
        try:
            logits = {name: (self.predict or predict)(self.model, s) for name, s in splits.items()}
        finally:
            self.evaluating = False
        scores = {
            name: metrics(split.task, logits[name], np.asarray(split.labels))
            for name, split in splits.items()
        }
        return logits, scores


def _check(
    model: MultitaskModel, data: dict[str, Mapping[str, TokenizedSplit]], batch_size: int
) -> None:
    """Refuse before training what would fail during it; `batch_size`: a task's examples a step."""
    if not data:
        raise ConfigError("no task to train: `data` is empty")
    positions = sys.maxsize
    if isinstance(model.encoder, BertModel):
        positions = model.encoder.config.max_position_embeddings
    for name, splits in data.items():
        if name not in model.heads:
            raise ConfigError(f"no head for task {name!r}: this model has {list(model.heads)}")
        if "train" not in splits:
            raise ConfigError(f'{name}: no split "train" among {list(splits)}')
        for part in [name for name in ("train", "dev") if name in splits]:
            split, task = splits[part], model.tasks[name]
            if split.labels is None:
                raise ConfigError(f"{name}: the {part} split has no labels")
            split.task.check_labels(split.labels)
            if unlike := [n for n in _ALIKE if getattr(split.task, n) != getattr(task, n)]:
                raise ConfigError(f"{name}: the {part} split's task has other {unlike[0]}: {task}")
            what, longest, known = "sentence", int(split.lengths.max()), positions
            if vectors_read(model.heads[name]):
                rows = zip(*split.sentences, strict=True)
                what, longest = "pair", max(sum(map(len, row)) for row in rows) - split.has_cls
                known = (positions + split.has_cls) // 2  # of each: a pair has one [CLS]
            if longest > positions:
                raise ConfigError(
                    f"{name}: a {part} {what} has {longest} tokens, but the encoder knows "
                    f"{positions} positions; tokenise with max_length={known} or less"
                )
        if (size := len(splits["train"])) < batch_size:
            raise ConfigError(
                f"{name}: {size} training examples are less than one batch of {batch_size}; lower "
                "the batch size"
            )


def _check_count(name: str, value: object) -> None:
    if type(value) is not int or value < 1:
        raise ConfigError(f"{name} = {value!r}: it must be a whole number above 0")


def _engine_maker(model: MultitaskModel, engine: str) -> tuple[bool, Callable[[], Engine]]:
    if engine == "plain":
        return False, lambda: PlainEngine(model)
    from mtl_lib.fast import knows  # only where it is asked for
    from mtl_lib.fast.engine import FastEngine

    if not (fast := knows(model)):
        said = f"{type(model.encoder).__name__} is trained by the plain one"
        warnings.warn(f"{_ONLY}; {said}", stacklevel=3)
    return fast, lambda: FastEngine(model) if fast and not model.frozen else PlainEngine(model)
