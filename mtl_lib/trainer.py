"""The multi-task loop: one batch of each task, one gradient per task, one combined step."""

import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from mtl_lib.data import Batch, BatchStream, TokenizedSplit
from mtl_lib.errors import ConfigError, NumericalError
from mtl_lib.evaluation import headline, metrics, predict
from mtl_lib.fast.joint import JointGradients
from mtl_lib.fast.packed import Pack, encode_packed
from mtl_lib.model import MultitaskModel
from mtl_lib.regularizers import SmoothnessRegularizer, lp_penalty
from mtl_lib.weighting import cosines

# A term added to one task's loss: (model, batch) -> scalar.
LossTerm = Callable[[MultitaskModel, Batch], Tensor]
# From the steps taken so far to the factor of all learning rates.
Schedule = Callable[[int], float]
# From the Gram matrix of the task gradients [T, T] to one weight per task [T].
Weighting = Callable[[Tensor, torch.Generator | None], Tensor]


@dataclass
class Fit:
    """What training leaves behind: a history per epoch, and the numbers of two epochs.

    `best` is the epoch with the highest mean of the development metrics, `last` the final one;
    each holds `train` and `dev` metrics by task. `logits` are the best epoch's on the
    development sets, `[N, C]` by task. Where an epoch is judged by a sample of these
    (`Trainer.fit`), `best` and `last` are of the whole sets, the history of the sample.
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
        generators: those that the terms draw from, so that a checkpoint holds them.
        same_task_every: after every so many steps, note the cosine between the shared gradients
            of two batches of one task, for each task; 0: never. The scale for the cosines between
            tasks.
        steps_per_epoch: in place of one pass over the shortest training set.
        schedule: factor of all learning rates, from the steps taken so far; 1 if None.
        clip: largest norm of the combined gradient of all parameters, heads included; larger ones
            are scaled down to it (Pascanu et al., 2013, Algorithm 1). None: as it is.

    Raises:
        ConfigError: if a training set is smaller than one batch, or two where these are compared.
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
        generators: dict[str, torch.Generator] | None = None,
        same_task_every: int = 0,
        steps_per_epoch: int | None = None,
        schedule: Schedule | None = None,
        clip: float | None = None,
    ):
        shortest = min(train, key=lambda name: len(train[name]))
        self.steps_per_epoch = steps_per_epoch or len(train[shortest]) // batch_size
        needed = 2 * batch_size if same_task_every else batch_size
        if len(train[shortest]) < needed:
            raise ConfigError(
                f"{shortest}: {len(train[shortest])} training examples are less than "
                f"{'two batches' if same_task_every else 'one batch'} of {batch_size}; lower the "
                "batch size"
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
        self.generators = {"surgery": self.generator} | (generators or {})
        self.schedule = schedule
        self.clip = clip
        self._rates = [group["lr"] for group in optimizer.param_groups]
        self.gradients = None if model.frozen else self._joint_gradients(len(train))
        self.same_task_every = same_task_every
        self.seed = seed
        self.steps = 0
        self.result = Fit()  # of the epochs so far
        self.evaluating = False  # then a `state_dict` is whole; in a step it is not
        self._epoch: dict | None = None  # the sums of the epoch under way
        self._best: dict[str, Tensor] = {}  # the best epoch's parameters, where they are needed
        self._term_values: dict[str, Tensor | float] = {}  # of the last step, by task

    def step(self) -> tuple[dict[str, float], Tensor]:
        """One optimizer step on one batch of each task.

        Returns:
            The loss of each task, and the Gram matrix `[T, T]` of the shared gradients (zero for
            a frozen encoder).

        Raises:
            NumericalError: if a loss or a gradient is not finite, naming step, task and examples,
                or a weight; the parameters are then those of the step before.
        """
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        batches = [next(stream) for stream in self.streams.values()]
        losses = self._backward(batches)  # [T]
        gram = torch.zeros(len(batches), len(batches), dtype=torch.float64)
        weights = torch.ones(len(batches), dtype=torch.float64)
        if self.gradients is not None:
            gram = self.gradients.gram()
            weights = self._combine(gram)
        # The one time in a step that the host waits for a GPU.
        rows = losses.double(), self._gradient_sizes(gram), weights.to(losses.device)
        values, sizes, weights = torch.stack(rows).tolist()
        for batch, value, size in zip(batches, values, sizes, strict=True):
            if not np.isfinite([value, size]).all():
                fault = f"gradient (its loss is {value})" if np.isfinite(value) else "loss"
                raise NumericalError(
                    f"step {self.steps + 1}: the {batch.task.name} {fault} is "
                    f"{size if np.isfinite(value) else value} on examples "
                    f"{', '.join(batch.ids)}; lower the learning rate"
                )
        if not np.isfinite(weights).all():
            raise NumericalError(
                f"step {self.steps + 1}: the weighting gives {weights} for the tasks "
                f"{', '.join(self.streams)}; every weight must be finite"
            )
        if self.clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        if self.schedule:
            for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
                group["lr"] = rate * self.schedule(self.steps)
        self.optimizer.step()
        self.steps += 1
        return dict(zip(self.streams, values, strict=True)), gram.cpu()

    def _joint_gradients(self, tasks: int) -> JointGradients:
        return JointGradients(self.model.encoder, tasks, self.model.shared_parameters())

    def _combine(self, gram: Tensor) -> Tensor:
        """From the tasks' shared gradients to one, `.grad`; the heads keep their own.

        Returns the weights of the tasks, `[T]`.
        """
        weights = self.weighting(gram, self.generator)
        self.gradients.combine(weights)
        return weights

    def _gradient_sizes(self, gram: Tensor) -> Tensor:
        """Squared norm of each task's gradients, `[T]`, float64; not finite where one is not."""
        heads = [
            [p.grad for p in self.model.heads[name].parameters() if p.grad is not None]
            for name in self.streams
        ]
        sizes = [torch.stack([g.square().sum() for g in of_head]).sum() for of_head in heads]
        return torch.stack(sizes).double() + gram.diagonal().to(sizes[0].device)

    def _backward(self, batches: list[Batch]) -> Tensor:
        """Fill in the gradients; returns the loss of each task, its terms included, `[T]`."""
        vectors = self.model.vectors(batches, self.gradients)  # T tensors [n*B, H]
        losses = torch.stack(
            [self._loss(batch, v) for batch, v in zip(batches, vectors, strict=True)]
        )
        losses.sum().backward()
        losses = losses.detach()
        self._term_values = dict.fromkeys(self.terms, 0.0)
        for task, batch in enumerate(batches):
            for term in self.terms.get(batch.task.name, []):
                value = term(self.model, batch.to(self.device))
                value.backward()  # a graph of its own, so that it reaches this task's gradient only
                if self.gradients is not None:
                    self.gradients.add(task)
                losses[task] += value.detach()
                self._term_values[batch.task.name] += value.detach()
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
        dev_sample: dict[str, TokenizedSplit] | None = None,
        on_step: Callable[[], None] | None = None,
        on_epoch: Callable[[dict], None] | None = None,
        on_best: Callable[[], None] | None = None,
    ) -> Fit:
        """Train for some epochs, evaluating after each; go on where `load_state_dict` left off.

        Args:
            dev: development split of each task.
            sample: the training examples on which training metrics are measured.
            epochs: passes over the shortest training set.
            max_steps: stop after this many steps, wherever that is.
            dev_sample: development examples by which each epoch is judged, where all of them would
                take too long; the best and the last epoch are then evaluated on `dev` at the end.
            on_step: called after each step, when `state_dict` is whole.
            on_epoch: called with each epoch's history entry; `state_dict` is whole.
            on_best: called when an epoch is the best so far, the model as it then is.
        """
        total = min(epochs * self.steps_per_epoch, max_steps or sys.maxsize)
        result = self.result
        best = headline(result.best["dev"]) if result.best else -np.inf
        # disable=None: a bar where a person watches a terminal, none in a notebook or a log
        with tqdm(total=total, initial=self.steps, unit="step", disable=None, leave=False) as bar:
            while self.steps < total or self._epoch:
                if not self._epoch:
                    self._epoch = _new_epoch(min(self.steps_per_epoch, total - self.steps))
                while self._epoch["done"] < self._epoch["steps"]:
                    self._count_step()
                    bar.update()
                    if on_step:
                        on_step()
                logits, dev_metrics = self._evaluate(dev_sample or dev)
                _, train_metrics = self._evaluate(sample)
                entry = self._entry() | {"dev": dev_metrics, "train": train_metrics}
                self._epoch = None
                result.history.append(entry)
                result.last = {"train": entry["train"], "dev": entry["dev"]}
                if headline(entry["dev"]) > best:
                    best = headline(entry["dev"])
                    result.best, result.logits = result.last, logits
                    if dev_sample:
                        self._best = {n: p.detach().clone() for n, p in self._parameters()}
                    if on_best:
                        on_best()
                if on_epoch:
                    on_epoch(entry)
        return self._whole(result, dev) if dev_sample else result

    def _whole(self, result: Fit, dev: dict[str, TokenizedSplit]) -> Fit:
        """The result with the best and the last epoch evaluated on whole development sets."""
        logits, scores = self._evaluate(dev)
        whole = replace(result, last=result.last | {"dev": scores})
        judged = [headline(entry["dev"]) for entry in result.history]
        if judged.index(max(judged)) < len(judged) - 1:
            last = {name: p.detach().clone() for name, p in self._parameters()}
            self._set(self._best)
            try:
                logits, scores = self._evaluate(dev)
            finally:  # whoever stops here finds the parameters of the last step
                self._set(last)
        return replace(whole, best=result.best | {"dev": scores}, logits=logits)

    def _set(self, values: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self._parameters():
                parameter.copy_(values[name])

    def _count_step(self) -> None:
        """One step; its losses and conflicts go into the sums of the epoch."""
        started = time.perf_counter()
        epoch = self._epoch
        step_losses, gram = self.step()
        for name, loss in step_losses.items():
            epoch["loss"][name] = epoch["loss"].get(name, 0.0) + loss / epoch["steps"]
        for name, value in self._term_values.items():
            epoch["terms"][name] = epoch["terms"].get(name, 0.0) + float(value) / epoch["steps"]
        if not self.model.frozen:
            cos = cosines(gram)
            for (i, a), (j, b) in combinations(enumerate(self.streams), 2):
                sums = epoch["conflict"].setdefault(f"{a}-{b}", {"cosine": 0.0, "rate": 0.0})
                sums["cosine"] += cos[i, j].item() / epoch["steps"]
                sums["rate"] += (gram[i, j].item() < 0) / epoch["steps"]
        epoch["done"] += 1
        every = self.same_task_every
        if every and epoch["done"] % every == 0:
            for name, cosine in self._same_task_cosines().items():
                sums = epoch["conflict"].setdefault(f"{name}-{name}", {"cosine": 0.0, "rate": 0.0})
                sums["cosine"] += cosine / (epoch["steps"] // every)
                sums["rate"] += (cosine < 0) / (epoch["steps"] // every)
        epoch["seconds"] += time.perf_counter() - started

    def _same_task_cosines(self) -> dict[str, float]:
        """By task, the cosine between the shared gradients of two batches without a common example.

        Drawn by step and seed alone, and dropout's generator is put back: training goes on as if
        nothing had happened.
        """
        draw = torch.Generator().manual_seed(self.seed * 10**6 + self.steps)
        gradients, cosine = self._joint_gradients(2), {}
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            for name, stream in self.streams.items():
                size = stream.batch_size
                examples = torch.randperm(len(stream.split), generator=draw)[: 2 * size]
                pair = [stream.split.batch(half) for half in examples.split(size)]
                vectors = self.model.vectors(pair, gradients)
                sum(map(self._loss, pair, vectors)).backward()
                cosine[name] = cosines(gradients.gram())[0, 1].item()
        return cosine

    def _entry(self) -> dict:
        """The epoch under way as an entry of the history: mean losses, conflict, time.

        `loss` is with the tasks' terms; `terms` says how much of it they are.
        """
        sums = {name: self._epoch[name] for name in ("loss", "conflict", "seconds")}
        if self.terms:
            sums["terms"] = self._epoch["terms"]
        return {"step": self.steps} | sums | {"epoch": len(self.result.history) + 1}

    def state_dict(self) -> dict:
        """All that decides the rest of the run, as dicts, tensors and what JSON can hold.

        It is whole after a step and during an evaluation. What a frozen encoder remembers is part
        of it: the last bits of a vector depend on the batch in which it was computed.
        """
        result = self.result
        return {
            "steps": self.steps,
            "epoch": self._epoch,
            "history": result.history,
            "best": result.best,
            "last": result.last,
            "logits": {name: torch.from_numpy(rows) for name, rows in result.logits.items()},
            "parameters": dict(self._parameters()),
            "best_parameters": self._best,
            "optimizer": {
                name: self.optimizer.state[p]
                for name, p in self._parameters()
                if p in self.optimizer.state
            },
            "streams": {name: stream.state_dict() for name, stream in self.streams.items()},
            "generators": {name: g.get_state() for name, g in self.generators.items()},
            "dropout": _dropout_state(self.device),
            "memory": self.model.remembered(),
        }

    def load_state_dict(self, state: dict) -> None:
        """Stand where `state_dict` was taken, on the same data and with the same options."""
        self.steps, self._epoch = state["steps"], state["epoch"]
        logits = {name: rows.numpy() for name, rows in state["logits"].items()}
        self.result = Fit(state["history"], state["best"], state["last"], logits)
        self._set(state["parameters"])
        self._best = {name: p.to(self.device) for name, p in state["best_parameters"].items()}
        for name, parameter in self._parameters():
            if saved := state["optimizer"].get(name):
                self.optimizer.state[parameter] = {
                    key: value.to(self.device) if isinstance(value, Tensor) else value
                    for key, value in saved.items()
                }
        for name, stream in self.streams.items():
            stream.load_state_dict(state["streams"][name])
        for name, generator in self.generators.items():
            generator.set_state(state["generators"][name])
        torch.set_rng_state(state["dropout"]["cpu"])
        if self.device.type == "cuda" and "cuda" in state["dropout"]:  # else saved on a CPU
            torch.cuda.set_rng_state(state["dropout"]["cuda"], self.device)
        self.model.remember(state["memory"])

    def _parameters(self) -> Iterable[tuple[str, torch.nn.Parameter]]:
        return ((n, p) for n, p in self.model.named_parameters() if p.requires_grad)

    def _evaluate(self, splits: dict[str, TokenizedSplit]) -> tuple[dict, dict]:
        self.evaluating = True
        try:
            logits = {name: predict(self.model, split) for name, split in splits.items()}
        finally:
            self.evaluating = False
        scores = {
            name: metrics(split.task, logits[name], split.labels.numpy())
            for name, split in splits.items()
        }
        return logits, scores


def _new_epoch(steps: int) -> dict:
    return {"steps": steps, "done": 0, "loss": {}, "terms": {}, "conflict": {}, "seconds": 0.0}


def _dropout_state(device: torch.device) -> dict[str, Tensor]:
    """The global generators, from which dropout draws."""
    states = {"cpu": torch.get_rng_state()}
    return states | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def penalty_term(task_name: str, p: float, strength: float) -> LossTerm:
    """`strength * ||w||_p` of the task's head matrices, added to its loss (paper, section 4)."""
    return lambda model, batch: strength * lp_penalty(model.heads[task_name].matrices(), p)


def smoothness_term(strength: float, generator: torch.Generator) -> LossTerm:
    """SMART on a single-sentence or pair task (paper, appendix A).

    Both passes run without dropout, otherwise the term would measure the dropout masks.
    """
    regularizer = SmoothnessRegularizer()

    def term(model: MultitaskModel, batch: Batch) -> Tensor:
        pack = Pack.of([(batch.input_ids, batch.attention_mask)], batch.input_ids.device)

        def forward(embeddings: Tensor) -> Tensor:  # [n*B, L, H] -> [B, C]
            tokens = embeddings[batch.attention_mask > 0]  # [N, H]
            vectors = encode_packed(model.encoder, tokens, pack, kind=model.sentence_vector)
            return model.classify(batch.task, vectors)

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
