"""An experiment is data: the rows of the paper's Figures 3 and 4, the profiles, and the study.

What the paper states and what is our reading is told apart in `READINGS`.
"""

import json
import math
import multiprocessing
import os
import platform
import re
import resource
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache, partial
from importlib.metadata import version
from pathlib import Path

import torch

from mtl_lib.bert import SENTENCE_VECTORS
from mtl_lib.checkpoint import Checkpoint, Stopped, StopSignals
from mtl_lib.data import Corpus, TokenizedSplit, load_corpus, tokenize
from mtl_lib.errors import BusyError, ConfigError, HandbookError, NumericalError, RunError
from mtl_lib.evaluation import constant_loss, is_constant
from mtl_lib.faulty_ports import FAULTS, CoupledAdam, PortTrainer, port_smoothness_term
from mtl_lib.gates import gate
from mtl_lib.model import HeadConfig, MultitaskModel, has_fast_bfloat16
from mtl_lib.optim import FusedAdamW, linear_warmup
from mtl_lib.paths import BUILD, DATA, RESULTS
from mtl_lib.pretrained import ENCODERS, at_hand, encoder_hash, load_encoder
from mtl_lib.results import Run, RunStore, run_key
from mtl_lib.studies import STUDIES, choose_study
from mtl_lib.tasks import BY_NAME, TASKS
from mtl_lib.trainer import Trainer, class_weights, penalty_term, smoothness_term
from mtl_lib.weighting import WEIGHTINGS

# Raised whenever the code changes what a run computes, so that no stale run is found again.
# Within a version, last bits and draws of dropout may differ between commits: noise, as of seeds.
STUDY_VERSION = 2

READINGS = {
    "sentence vector": "the pooler's output; a pair is [u; v], its sentences encoded apart",
    "epoch": "one pass over the shortest training set; a step takes one batch of each task",
    "dropout": "0.3 stands before the heads; the encoder keeps its own 0.1",
    "second layer": "as wide as the encoder; in row 3.7 dropout 0.3 before each layer",
    "penalised weights": "the similarity head's matrices, no biases",
    "Figure 4": "rows without a rate: 1e-5; rate constant, no schedule",
    "reported epoch": "the best mean of the three development metrics; the last is stored too",
    "frozen control": "encoder and pooler in eval mode; heads at 1e-5 and at 1e-3",
    "AdamW": "epsilon 1e-6 in the efficient form, as in the class's starter code",
    "SMART": "strength 1, epsilon = sigma = 1e-5, eta 1e-3, one ascent step, no dropout",
}


def _heads(**heads: HeadConfig) -> dict[str, HeadConfig]:
    """The three tasks' heads; those not named are the paper's default."""
    return {task.name: heads.get(task.name, HeadConfig()) for task in TASKS}


SCHEDULES = ("constant", "linear")
# Parts of a profile's instrument that a row can leave out.
PARTS = ("sentence_vector", "head_lr", "label_mean_bias", "schedule", "clip")
# Fields that younger versions added; a run that leaves them at their defaults keeps its key.
_ADDED = (
    "same_task_every", "epoch_factor", "sentence_vector", "head_lr", "label_mean_bias", "schedule",
    "warmup", "clip", "without", "fault", "joint_epochs", "dev_sample",
)  # fmt: skip


@dataclass(frozen=True)
class ExperimentConfig:
    """Everything that decides a run but the corpus. Defaults: the baseline of Figure 3.

    Attributes:
        row: its id, "3.1" .. "4.10" or a name.
        name: the paper's words for the row.
        heads: head of each task; its keys are the tasks trained.
        weighting: "sum", "pcgrad" (gradient surgery), or "pcgrad-fixed" (in a fixed order).
        lr: learning rate, already multiplied by `lr_factor`.
        weight_decay: decoupled, AdamW's.
        batch_size: examples per task and step.
        penalty: p of the norm penalty on the similarity head, or None.
        penalty_strength: its factor (paper, section 4).
        smoothness: strength of SMART on sentiment; 0 is off.
        class_weights: weight the sentiment classes.
        frozen: train the heads alone.
        sentence_vector: what of the encoder a head sees: "pooler", "mean" or "cls"
            (`bert.SENTENCE_VECTORS`).
        head_lr: learning rate of the heads; None: as `lr`.
        label_mean_bias: similarity's bias starts at the mean training label, not near 0.
        schedule, warmup: "constant", or "linear": up over the first `warmup` of all steps, then
            down to 0.
        clip: the gradient of all parameters is cut to this norm; None: never.
        without: the part of its profile's instrument that this row leaves out (`Profile`).
        fault: reproduce a fault of published code (`faulty_ports.FAULTS`); "": the method.
        joint_epochs: an epoch is as long as with all three tasks, for a row that trains one.
        same_task_every: after every so many steps, compare the gradients of two batches of one
            task (`Trainer`); 0: never.
        epochs, max_steps, max_length, train_sample, dev_sample: the protocol, set by the profile:
            passes, cap on the steps, tokens per sentence; training and development examples
            evaluated per task each epoch, None for all of them.
        epoch_factor: this row's epochs are as many times the profile's.
        bfloat16: the encoder's products in bfloat16, where the hardware is faster at them.
    """

    row: str
    name: str
    heads: Mapping[str, HeadConfig] = field(default_factory=_heads)
    weighting: str = "sum"
    lr: float = 1e-5
    weight_decay: float = 0.0
    batch_size: int = 8
    penalty: float | None = None
    penalty_strength: float = 0.05
    smoothness: float = 0.0
    class_weights: bool = False
    frozen: bool = False
    sentence_vector: str = "pooler"
    head_lr: float | None = None
    label_mean_bias: bool = False
    schedule: str = "constant"
    warmup: float = 0.0
    clip: float | None = None
    without: str = ""
    fault: str = ""
    joint_epochs: bool = False
    same_task_every: int = 0
    epoch_factor: int = 1
    seed: int = 0
    profile: str = "paper"
    encoder: str = "bert-base-uncased"
    lr_factor: float = 1.0
    epochs: int = 10
    max_steps: int | None = None
    max_length: int = 512
    train_sample: int | None = None
    dev_sample: int | None = None
    bfloat16: bool = False

    def __post_init__(self):
        if self.weighting not in WEIGHTINGS:
            raise ConfigError(f"weighting {self.weighting!r}: choose from {list(WEIGHTINGS)}")
        if unknown := set(self.heads) - set(BY_NAME):
            raise ConfigError(f"heads of unknown tasks {sorted(unknown)}: {list(BY_NAME)}")
        for name in ("lr", "batch_size", "epochs", "epoch_factor"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name} = {getattr(self, name)}: it must be above 0 and finite")
        for name, known in (
            ("sentence_vector", SENTENCE_VECTORS),
            ("schedule", SCHEDULES),
            ("fault", ("", *FAULTS)),
            ("without", ("", *PARTS)),
        ):
            if getattr(self, name) not in known:
                raise ConfigError(f"{name} {getattr(self, name)!r}: choose from {list(known)}")
        if not 0 <= self.warmup < 1:
            raise ConfigError(f"warmup = {self.warmup}: it is a share of all steps, 0 to below 1")
        if self.warmup and self.schedule == "constant":
            raise ConfigError(f"warmup = {self.warmup}: a constant schedule has none; use 'linear'")
        for name in ("weight_decay", "smoothness", "penalty_strength"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(
                    f"{name} = {getattr(self, name)}: it must be 0 or more and finite"
                )
        for name in ("max_steps", "train_sample", "dev_sample", "head_lr", "clip"):
            if getattr(self, name) is not None and not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name} = {getattr(self, name)}: it must be above 0 and finite")
        for name in ("batch_size", "epochs", "epoch_factor", "max_steps", "train_sample"):
            if (getattr(self, name) or 0) != int(getattr(self, name) or 0):
                raise ConfigError(f"{name} = {getattr(self, name)}: it must be a whole number")
        needed = {"similarity": self.penalty is not None}
        needed["sentiment"] = self.smoothness > 0 or self.class_weights
        if lacking := [
            name for name, is_needed in needed.items() if is_needed and name not in self.heads
        ]:
            raise ConfigError(
                f"row {self.row}: its penalty, SMART or class weights need a head for {lacking[0]}"
            )
        does_nothing = {
            "port-surgery": self.frozen or self.weighting != "pcgrad",
            "coupled-decay": not self.weight_decay,
            "port-smart": not self.smoothness,
        }
        if does_nothing.get(self.fault):
            raise ConfigError(f"row {self.row}: fault {self.fault!r} changes nothing in it")
        if self.same_task_every < 0 or (self.same_task_every and self.frozen):
            raise ConfigError(
                f"same_task_every = {self.same_task_every}: it must be 0 or more, and 0 for a "
                "frozen encoder, which has no gradient"
            )
        if self.max_length < 3:
            raise ConfigError(f"max_length = {self.max_length}: [CLS], a token and [SEP] need 3")
        if self.penalty not in (None, 1, 2, math.inf):
            raise ConfigError(f"penalty = {self.penalty}: choose 1, 2, inf or None")
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f"seed = {self.seed}: choose from 0 to {2**32 - 1}")
        if not re.fullmatch(r"\w[\w.+-]*", self.row):
            raise ConfigError(f"row {self.row!r}: it names a folder; use letters, digits, . and -")

    def as_dict(self) -> dict:
        """The configuration as JSON gives it back: lists for tuples, "inf" for infinity."""
        words = asdict(self) | {"heads": {name: h.as_dict() for name, h in self.heads.items()}}
        if self.penalty is not None:
            words["penalty"] = str(self.penalty)  # JSON has no infinity
        for name in _ADDED:
            if words[name] == getattr(ExperimentConfig, name):
                del words[name]  # as in the runs from before there was one
        return json.loads(json.dumps(words))


def _final(row: str, name: str, activation: str = "relu", **changes) -> ExperimentConfig:
    """The paper's final architecture (section 5.3) with one change of Figure 4."""
    heads = _heads(
        sentiment=HeadConfig((0.5,)), similarity=HeadConfig((0.5, 0.3), activation=activation)
    )
    return ExperimentConfig(
        row, name, heads=heads, weighting="pcgrad", penalty=float("inf"), **changes
    )


def _surgery(row: str, name: str, **changes) -> ExperimentConfig:
    return ExperimentConfig(row, name, weighting="pcgrad", **changes)


_MORE_DROPOUT = _heads(sentiment=HeadConfig((0.5,)), similarity=HeadConfig((0.5,)))


def _by_row(*configs: ExperimentConfig) -> dict[str, ExperimentConfig]:
    return {config.row: config for config in configs}


FIGURE_3 = _by_row(
    ExperimentConfig("3.1", "Baseline minBERT"),
    _surgery("3.2", "gradient surgery"),
    _surgery("3.3", "gs + increased STS dropout", heads=_heads(similarity=HeadConfig((0.5,)))),
    _surgery("3.4", "gs + l2 regularization", weight_decay=0.05),
    _surgery("3.5", "gs + l1 regularization", penalty=1.0),
    _surgery("3.6", "gs + l-inf regularization", penalty=float("inf")),
    _surgery(
        "3.7",
        "gs + add one linear layer each",
        heads={task.name: HeadConfig((0.3, 0.3)) for task in TASKS},
    ),
    _surgery("3.8", "gs + increase dropout (sts & sst)", heads=_MORE_DROPOUT),
    _surgery("3.9", "gs + dropout + SMART (on sst)", heads=_MORE_DROPOUT, smoothness=1.0),
    _final("3.10", "final architecture"),
)

FIGURE_4 = _by_row(
    _final("4.1", "batch size = 16", batch_size=16),
    _final("4.2", "weight decay = 0.1", weight_decay=0.1),
    _final("4.3", "wd = 0.1, lr = 5e-6", weight_decay=0.1, lr=5e-6),
    _final("4.4", "wd = 0.05, lr = 5e-6", weight_decay=0.05, lr=5e-6),
    _final("4.5", "lr = 5e-6", lr=5e-6),
    _final("4.6", "lr = 5e-5", lr=5e-5),
    _final("4.7", "lr = 3e-5", lr=3e-5),
    _final("4.8", "lr = 6e-5", lr=6e-5),
    _final("4.9", "lr = 5e-5, weighted loss", lr=5e-5, class_weights=True),
    _final("4.10", "lr = 5e-5, LeakyReLU", lr=5e-5, activation="leaky_relu"),
)

# The control that the paper lacks: what the heads alone can do. One row, at two rates.
FROZEN = _by_row(
    ExperimentConfig("frozen-1e-5", "frozen encoder, lr = 1e-5", frozen=True),
    ExperimentConfig("frozen-1e-3", "frozen encoder, lr = 1e-3", frozen=True, lr=1e-3),
)

# The paper's first part: sentiment alone, on two corpora, encoder frozen and fine-tuned.
SINGLE_TASK = _by_row(
    *(
        ExperimentConfig(
            f"{corpus}-{'frozen' if frozen else 'finetuned'}",
            f"{title} alone, {'frozen' if frozen else 'fine-tuned'}",
            heads={task: HeadConfig()},
            frozen=frozen,
            lr=1e-3 if frozen else 1e-5,
        )
        for corpus, title, task in (("sst", "SST", "sentiment"), ("cfimdb", "CFIMDB", "cfimdb"))
        for frozen in (True, False)
    )
)

ROWS = FIGURE_3 | FIGURE_4 | FROZEN

# Heads that can compare a pair, each beside surgery; else as rows 3.1 and 3.2 (chapter 12).
_COMPARING = _heads(
    paraphrase=HeadConfig(features="compare"), similarity=HeadConfig(features="compare")
)
_COSINE = _heads(
    paraphrase=HeadConfig(features="compare"), similarity=HeadConfig((0.0,), features="cosine")
)
COMPARE = _by_row(
    ExperimentConfig("compare", "comparing heads", heads=_COMPARING),
    _surgery("compare-surgery", "comparing heads, gs", heads=_COMPARING),
    ExperimentConfig("cosine", "cosine for similarity", heads=_COSINE),
    _surgery("cosine-surgery", "cosine for similarity, gs", heads=_COSINE),
)

# Row 3.2 with the projections in a fixed order: what drawing the order does.
ORDER = _by_row(
    ExperimentConfig("fixed-order", "gradient surgery, fixed order", weighting="pcgrad-fixed")
)

# Beside the cosines between tasks (row 3.1) those between two batches of one task; and row 4.1 with
# as many steps as the rows of batch 8.
CONTROL = _by_row(
    ExperimentConfig("same-task", "baseline, two batches a task", same_task_every=15),
    _final("equal-steps", "batch size = 16, equal steps", batch_size=16, epoch_factor=2),
)

# The baseline with one of its three tasks: as many batches of the task, no other.
ALONE = _by_row(
    *(
        ExperimentConfig(
            f"{task.name}-alone",
            f"{task.name} alone",
            heads={task.name: HeadConfig()},
            joint_epochs=True,
        )
        for task in TASKS
    )
)

# Row 3.2 in the profile `converged`, its instrument lacking one part.
WITHOUT = _by_row(
    *(
        _surgery(f"without-{name}", f"gs, instrument without {words}", without=part)
        for part, name, words in (
            ("sentence_vector", "mean", "mean pooling"),
            ("head_lr", "head-rate", "a rate for the heads"),
            ("label_mean_bias", "label-mean", "the label mean"),
            ("schedule", "schedule", "warm-up and decay"),
            ("clip", "clipping", "clipping"),
        )
    )
)

# Hypotheses about what the paper ran: rows of Figures 3 and 4 with a fault of the published code
# that it integrates. None of them is the method.
FORENSIC = _by_row(
    replace(FIGURE_3["3.2"], row="3.2-port", name="gs as in the port", fault="port-surgery"),
    replace(FIGURE_3["3.4"], row="3.4-coupled", name="gs + coupled l2", fault="coupled-decay"),
    replace(FIGURE_4["4.2"], row="4.2-coupled", name="coupled wd = 0.1", fault="coupled-decay"),
    replace(
        FIGURE_4["4.3"], row="4.3-coupled", name="coupled wd = 0.1, lr = 5e-6",
        fault="coupled-decay",
    ),
    replace(FIGURE_3["3.9"], row="3.9-port", name="SMART as in the port", fault="port-smart"),
)  # fmt: skip

_ROWS_OF_QUICK = ROWS | SINGLE_TASK | COMPARE | ORDER | CONTROL
ALL_ROWS = _ROWS_OF_QUICK | ALONE | WITHOUT | FORENSIC


@dataclass(frozen=True)
class Profile:
    """How much of the paper's protocol is run, on what, and what is changed in it.

    Attributes:
        encoder: name of an encoder.
        corpus: "handbook", or "cs224n" for the real corpora in data/cs224n where present.
        epochs, max_steps, max_length, train_sample, dev_sample, bfloat16: see `ExperimentConfig`.
        lr_factor: multiplies every row's rate: shorter training needs larger steps.
        instrument: other fields of `ExperimentConfig` that the profile sets; a row's `without`
            names one that stays at its default.
        threads: CPU threads of one run; fixed, since it decides the last bits.
        seconds: measured time of a run on 2 cores, for the estimate before a study.
        rows: what its study consists of.
    """

    encoder: str
    corpus: str
    epochs: int
    lr_factor: float = 1.0
    max_steps: int | None = None
    max_length: int = 512
    train_sample: int | None = None
    dev_sample: int | None = None
    bfloat16: bool = False
    instrument: Mapping[str, object] = field(default_factory=dict)
    threads: int = 2
    seconds: float = 0.0
    rows: tuple[str, ...] = tuple(ALL_ROWS)

    def apply(self, config: ExperimentConfig, name: str, seed: int = 0) -> ExperimentConfig:
        """The row under this profile."""
        kept = {key: value for key, value in self.instrument.items() if key != config.without}
        if kept.get("schedule") is None:
            kept.pop("warmup", None)  # a part of the schedule
        return replace(
            config,
            **kept,
            profile=name,
            seed=seed,
            encoder=self.encoder,
            lr=config.lr * self.lr_factor,
            lr_factor=self.lr_factor,
            epochs=self.epochs,
            max_steps=self.max_steps,
            max_length=self.max_length,
            train_sample=self.train_sample,
            dev_sample=self.dev_sample,
            bfloat16=self.bfloat16,
        )


# Enough for the paper's ten epochs on the real corpora in an hour of one core.
_REAL = Profile(
    "bert-base-uncased", "cs224n", epochs=10, train_sample=1000, dev_sample=4000, bfloat16=True,
    threads=1,
)  # fmt: skip
PROFILES = {
    "quick": Profile(
        "tiny-pretrained", "handbook", epochs=2, lr_factor=30, max_length=64, train_sample=800,
        threads=1, seconds=32, rows=tuple(_ROWS_OF_QUICK),
    ),
    # The protocol as printed: rates, batch size, epochs, pooler, no schedule.
    "paper": replace(_REAL, seconds=3600, rows=tuple(ROWS | SINGLE_TASK | FORENSIC)),
    # The same rows where training is not the bottleneck. The rate's mean over the schedule is 1e-5.
    "converged": replace(
        _REAL, epochs=4, lr_factor=2, seconds=1500,
        instrument={
            "sentence_vector": "mean", "head_lr": 1e-3, "label_mean_bias": True,
            "schedule": "linear", "warmup": 0.1, "clip": 1.0,
        },
        rows=(
            "3.1", "3.2", "3.6", "3.7", "3.8", "3.9", "3.10", *ALONE, "compare", "compare-surgery",
            *WITHOUT,
        ),
    ),
}  # fmt: skip


def profile_settings(name: str, encoder: str = "", max_steps: int = 0, epochs: int = 0) -> Profile:
    """A profile that trains, with another encoder, epochs or cap on the steps where given.

    A pretrained encoder of the profile's that was never fetched gives way to `minilm-l6`.

    Raises:
        ConfigError: if there is no such profile.
    """
    if name not in PROFILES:
        raise ConfigError(f"profile {name!r}: choose from {['stored', *PROFILES]}")
    if encoder and encoder not in ENCODERS:  # one folder, one name in the runs' keys
        encoder = str(Path(encoder).expanduser().resolve())
    if (
        not encoder
        and PROFILES[name].encoder == "bert-base-uncased"
        and not at_hand("bert-base-uncased")
    ):
        encoder = "minilm-l6"
    changes = {"encoder": encoder, "max_steps": max_steps, "epochs": epochs}
    return replace(PROFILES[name], **{key: value for key, value in changes.items() if value})


def run_experiment(
    config: ExperimentConfig,
    corpus: Corpus,
    store: RunStore,
    on_epoch: Callable[[dict], None] | None = None,
    save_model: str | Path | None = None,
    wait: bool = True,
) -> Run:
    """Train one configuration and store the run, or return it where it is stored already.

    An unfinished run goes on from its last checkpoint in the store, to the same bits on a CPU with
    the same number of threads.

    Args:
        on_epoch: called with each epoch's history entry while it trains.
        save_model: folder for the best epoch's model; a stored run is then trained again.
        wait: for another process that trains this run, and take its result.

    Raises:
        ConfigError: if the corpus lacks a training or development set of one of the tasks.
        NumericalError: if a loss or a gradient becomes infinite or NaN.
        RunError: if the memory does not suffice, or the store cannot be written to.
        BusyError: if another process trains the run and `wait` is False.
        Stopped: after Ctrl-C or SIGTERM, the state saved.
    """
    encoder_sha = encoder_hash(config.encoder)
    key = run_key(config.as_dict(), corpus.fingerprint, encoder_sha, STUDY_VERSION)
    folder = store.checkpoint_folder(config.as_dict(), key)
    if save_model:  # apart: this one keeps the best epoch's model as well
        folder = folder.with_name(f"{folder.name}-model")
    checkpoint = Checkpoint(folder)
    if not save_model and (run := store.get(key)):
        checkpoint.remove()  # a process may have been killed after it had stored the run
        return run
    with store.lock(key, wait):
        if not save_model and (run := store.get(key)):  # trained by another process meanwhile
            return run
        try:
            run = _train_run(
                config, corpus, encoder_sha, key, checkpoint, on_epoch, bool(save_model)
            )
        except NumericalError as error:
            kept = checkpoint.path if checkpoint.path.exists() else "none yet"
            raise NumericalError(f"{error}. Last good checkpoint: {kept}") from None
        except (MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
            raise RunError(
                f"row {config.row}: out of memory with encoder {config.encoder}, batch size "
                f"{config.batch_size} and sentences of up to {config.max_length} tokens; lower "
                "JOBS (runs at a time) or choose a smaller ENCODER"
            ) from error
        if save_model:
            _move_model(folder / "model", Path(save_model))
        store.put(run)
        checkpoint.remove()
        return run


def _train_run(
    config: ExperimentConfig,
    corpus: Corpus,
    encoder_sha: str,
    key: str,
    checkpoint: Checkpoint,
    on_epoch: Callable[[dict], None] | None,
    save_model: bool,
) -> Run:
    """Train from the checkpoint, or from the start, to the end."""
    started = time.perf_counter()
    torch.manual_seed(config.seed)
    encoder, tokenizer = load_encoder(config.encoder)
    train = tokenized(corpus, "train", config, tokenizer)
    dev = tokenized(corpus, "dev", config, tokenizer)
    model = MultitaskModel(encoder, dict(config.heads), config.sentence_vector)
    if config.label_mean_bias:
        for name, split in train.items():
            model.heads[name].start_at_mean(split.labels)
    if config.frozen:
        model.freeze()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)
    model.bfloat16 = config.bfloat16 and has_fast_bfloat16(device)
    # Every number of tokens makes new bfloat16 kernels: a step needs some hundred, a thousand kept
    # take 1 GB.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")
    noise = torch.Generator().manual_seed(config.seed)
    epoch = _joint_epoch(config, corpus)
    kind = PortTrainer if config.fault == "port-surgery" else Trainer
    trainer = kind(
        model,
        train,
        optimizer=_optimizer(config, model),
        weighting=WEIGHTINGS[config.weighting],
        batch_size=config.batch_size,
        seed=config.seed,
        terms=_loss_terms(config, noise),
        class_weights=_class_weights(config, train, device),
        generators={"smoothness": noise},
        same_task_every=config.same_task_every,
        steps_per_epoch=epoch,
        clip=config.clip,
    )
    epochs = config.epochs * config.epoch_factor
    if config.schedule == "linear":
        total = min(epochs * trainer.steps_per_epoch, config.max_steps or sys.maxsize)
        trainer.schedule = partial(
            linear_warmup, warmup_steps=int(config.warmup * total), total_steps=total
        )
    before = {"seconds": 0.0, "resumes": 0}
    if state := checkpoint.load():
        before = {"seconds": state["seconds"], "resumes": state["resumes"] + 1}
        trainer.load_state_dict(state)

    def seconds() -> float:
        return before["seconds"] + time.perf_counter() - started

    def save() -> None:
        checkpoint.save(trainer.state_dict() | before | {"seconds": seconds()})

    def after_step() -> None:
        if signals.asked:
            raise Stopped
        if checkpoint.due():
            save()

    def after_epoch(entry: dict) -> None:
        save()
        if on_epoch:
            on_epoch(entry)

    with StopSignals(now=lambda: trainer.evaluating) as signals:
        try:
            fit = trainer.fit(
                dev,
                {name: _sample(split, config.train_sample) for name, split in train.items()},
                epochs=epochs,
                max_steps=config.max_steps,
                dev_sample={name: _sample(split, config.dev_sample) for name, split in dev.items()}
                if config.dev_sample
                else None,
                on_step=after_step,
                on_epoch=after_epoch,
                on_best=(lambda: model.save(checkpoint.folder / "model", tokenizer))
                if save_model
                else None,
            )
        except Stopped:
            save()
            raise Stopped(
                f"row {config.row}, seed {config.seed}: stopped after step {trainer.steps}, "
                f"kept in {checkpoint.folder}"
            ) from None
    return Run(
        config=config.as_dict(),
        metrics={"best": fit.best, "last": fit.last},
        history=fit.history,
        predictions=fit.logits,
        labels={name: split.labels.numpy() for name, split in dev.items()},
        ids={name: split.ids for name, split in dev.items()},
        provenance={
            "study_version": STUDY_VERSION,
            "corpus": {
                "name": corpus.name,
                "fingerprint": corpus.fingerprint,
                "files": corpus.files,
                "skipped_rows": len(corpus.skipped),
                "notes": corpus.notes,
            },
            "encoder": {"name": config.encoder, "sha256": encoder_sha},
            "steps": trainer.steps,
            "constant_loss": _constant_losses(train, trainer.class_weights),
            # Tasks whose best epoch predicts the same for every development example.
            "constant_predictions": [
                name for name, logits in fit.logits.items() if is_constant(BY_NAME[name], logits)
            ],
            "parameters": sum(p.numel() for p in model.parameters()),
            "seconds": round(seconds(), 1),
            "resumes": before["resumes"],
            "peak_memory_mb": peak_memory() // 2**20,  # of the process, with its earlier runs
            "threads": torch.get_num_threads(),
            "precision": "bfloat16" if model.bfloat16 else "float32",
            "hardware": hardware(),
            "versions": {"python": platform.python_version()}
            | {name: version(name) for name in ("torch", "numpy", "tokenizers")},
        },
        key=key,
    )


def _out_of_memory(error: Exception) -> bool:
    words = ("can't allocate memory", "not enough memory")  # of torch's allocator on the CPU
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        word in str(error) for word in words
    )


def _move_model(source: Path, target: Path) -> None:
    """Put a finished model in its place, its weights last: a folder with weights is whole."""
    target.mkdir(parents=True, exist_ok=True)
    paths = sorted(source.iterdir(), key=lambda path: path.suffix == ".safetensors")
    for path in paths:
        shutil.copyfile(path, target / f"{path.name}.tmp")  # not a rename: the disk may be another
    (target / paths[-1].name).unlink(missing_ok=True)  # the weights of another model
    for path in paths:
        os.replace(target / f"{path.name}.tmp", target / path.name)


def tokenized(
    corpus: Corpus, split: str, config: ExperimentConfig, tokenizer
) -> dict[str, TokenizedSplit]:
    """One split of each of the configuration's tasks, tokenised once per process.

    Raises:
        ConfigError: if the corpus has no such split of a task.
    """
    for name in config.heads:
        _check_split(corpus, name, split, config)
    cache_key = (corpus.fingerprint, tokenizer.to_str(), config.max_length)
    if cache_key not in _TOKENIZED:
        _TOKENIZED.clear()  # one corpus at a time in memory
    cache = _TOKENIZED.setdefault(cache_key, {})
    for name in config.heads:
        if (name, split) not in cache:
            examples = corpus.splits[name][split]
            cache[name, split] = tokenize(examples, BY_NAME[name], tokenizer, config.max_length)
    return {name: cache[name, split] for name in config.heads}


def _check_split(corpus: Corpus, task: str, split: str, config: ExperimentConfig) -> None:
    if split not in corpus.splits.get(task, {}):
        raise ConfigError(
            f"row {config.row} needs the {split} split of {task}: corpus {corpus.name!r} has none"
        )


_TOKENIZED: dict[tuple, dict[tuple[str, str], TokenizedSplit]] = {}


def _sample(split: TokenizedSplit, size: int | None) -> TokenizedSplit:
    """The fixed sample on which training metrics are measured: the same for every run."""
    if size is None or size >= len(split):
        return split
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))
    return split.take(order[:size])


def _joint_epoch(config: ExperimentConfig, corpus: Corpus) -> int | None:
    """Steps of an epoch of all three tasks together, where the row asks for them."""
    if not config.joint_epochs:
        return None
    for task in TASKS:
        _check_split(corpus, task.name, "train", config)
    return min(len(corpus.splits[task.name]["train"]) for task in TASKS) // config.batch_size


def _optimizer(config: ExperimentConfig, model: MultitaskModel) -> FusedAdamW:
    """AdamW on all trainable parameters; the heads in a group of their own if they have a rate."""
    groups = [{"params": [p for p in model.parameters() if p.requires_grad]}]
    if config.head_lr:
        groups = [{"params": model.shared_parameters()}] if not config.frozen else []
        groups.append({"params": list(model.heads.parameters()), "lr": config.head_lr})
    kind = CoupledAdam if config.fault == "coupled-decay" else FusedAdamW
    return kind(groups, lr=config.lr, weight_decay=config.weight_decay)


def _loss_terms(config: ExperimentConfig, noise: torch.Generator) -> dict:
    terms = {}
    if config.penalty is not None:
        terms["similarity"] = [penalty_term("similarity", config.penalty, config.penalty_strength)]
    if config.smoothness:
        term = port_smoothness_term if config.fault == "port-smart" else smoothness_term
        terms["sentiment"] = [term(config.smoothness, noise)]
    return terms


def _constant_losses(train: dict[str, TokenizedSplit], weights: dict) -> dict[str, float]:
    """Of each task the mean training loss of the best constant answer, class weights included."""
    return {
        name: constant_loss(split.task, split.labels.numpy(), weights.get(name))
        for name, split in train.items()
    }


def _class_weights(config: ExperimentConfig, train: dict, device: torch.device) -> dict:
    if not config.class_weights:
        return {}
    split = train["sentiment"]
    return {"sentiment": class_weights(split.labels, split.task.num_classes).to(device)}


def peak_memory() -> int:
    """The most memory that this process ever held, in bytes."""
    kept = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kept if sys.platform == "darwin" else kept * 1024  # Linux counts in KiB


def hardware() -> str:
    """The machine in words: processor architecture, cores, GPU."""
    words = f"{platform.machine()}, {os.cpu_count()} cores"
    return f"{words}, {torch.cuda.get_device_name()}" if torch.cuda.is_available() else words


def study(
    rows: Iterable[str],
    *,
    only: str = "",
    profile: str = "stored",
    data: str = "",
    encoder: str = "",
    seeds: str = "",
    max_steps: int = 0,
    epochs: int = 0,
    jobs: int = 0,
    store: str | Path | None = None,
) -> list[Run]:
    """The runs of some rows: read where they are stored, trained where they are not.

    Every argument but `rows` may be left empty for the profile's default; they are the
    parameters of the notebooks and of `make reproduce`.

    Args:
        rows: row ids, such as `FIGURE_3`.
        only: keep these of them, comma-separated: "3.1,3.2".
        profile: "stored" reads the best committed study; those of `PROFILES` train.
        data: a corpus folder, or "handbook".
        encoder: name or folder of an encoder.
        seeds: comma-separated: "0,1,2".
        max_steps: cap on the steps of a run.
        epochs: passes over the shortest training set.
        jobs: runs at a time, each in a process of its own.
        store: folder of the runs; build/runs/PROFILE by default.

    Returns:
        The runs, by row and seed.

    Raises:
        ConfigError: if a row, profile or seed does not exist.
    """
    chosen = choose_rows(rows, only)
    if profile == "stored":
        return stored_runs(chosen)
    settings = profile_settings(profile, encoder, max_steps, epochs)
    data = data or default_corpus(settings.corpus)
    store = RunStore(store or BUILD / "runs" / profile)
    configs = [
        settings.apply(ALL_ROWS[row], profile, seed)
        for row in chosen
        for seed in parse_seeds(seeds)
    ]
    if jobs < 0:
        raise ConfigError(f"jobs = {jobs}: give how many runs at a time, 0 for as the cores allow")
    jobs = jobs or max(1, (os.cpu_count() or 1) // settings.threads)
    keys = run_all(configs, data, store, jobs=jobs, threads=settings.threads, each=settings.seconds)
    return [store.get(key) for key in keys]


def choose_rows(rows: Iterable[str], only: str = "") -> list[str]:
    """Row ids that exist, in their order; `only` keeps some, comma-separated.

    Raises:
        ConfigError: naming the ids that do not exist.
    """
    rows = list(rows)
    wanted = [row.strip() for row in only.split(",") if row.strip()]
    if unknown := [row for row in [*rows, *wanted] if row not in ALL_ROWS]:
        raise ConfigError(f"unknown row {', '.join(unknown)}: choose from {', '.join(ALL_ROWS)}")
    return [row for row in rows if row in wanted] if wanted else rows


def parse_seeds(seeds: str) -> list[int]:
    """ "0,1,2" to [0, 1, 2]; empty is [0].

    Raises:
        ConfigError: if one is no whole number.
    """
    try:
        return list(dict.fromkeys(map(int, seeds.split(",")))) if seeds else [0]
    except ValueError:
        raise ConfigError(f"seeds {seeds!r}: give whole numbers, such as 0,1,2") from None


def default_corpus(name: str) -> str:
    """The profile's corpus: the real one in data/cs224n where present, else the embedded one."""
    real = DATA / "cs224n"
    return str(real) if name == "cs224n" and real.is_dir() else "handbook"


def stored_runs(rows: Iterable[str]) -> list[Run]:
    """The committed runs of some rows from one study: the most thorough that holds all of them,
    else the one that holds most.
    """
    rows = list(rows)
    if runs := choose_study(committed_runs(rows), rows):
        return runs
    raise RunError(
        f"{RESULTS}: no stored run of rows {', '.join(rows)}; train them with "
        f"`mtl sweep --profile quick`"
    )


def committed_runs(rows: Collection[str] | None = None) -> list[Run]:
    """The runs of the studies in data/results, of some rows only if these are given."""
    return [run for name in STUDIES for run in RunStore(RESULTS / name).runs(rows)]


def run_all(
    configs: list[ExperimentConfig],
    data: str,
    store: RunStore,
    *,
    jobs: int = 1,
    threads: int = 1,
    each: float = 0.0,
) -> list[str]:
    """Train what is not stored yet, several runs at a time, and return the keys of all.

    A finished run is stored at once, so that whatever stops the study repeats none of them.
    Rows whose task the corpus lacks (CFIMDB in the embedded corpora) are left out, with a word.

    Args:
        threads: CPU threads of each run.
        each: expected seconds of a run, for the estimate.
    """
    corpus = _corpus(data)
    missing = [c for c in configs if any(name not in corpus.splits for name in c.heads)]
    for config in missing:
        print(f"{config.row}: left out, corpus {corpus.name!r} has no {', '.join(config.heads)}")
    configs = [config for config in configs if config not in missing]
    hashes = {name: encoder_hash(name) for name in {config.encoder for config in configs}}
    keys = [
        run_key(c.as_dict(), corpus.fingerprint, hashes[c.encoder], STUDY_VERSION) for c in configs
    ]
    pending = [c for c, key in zip(configs, keys, strict=True) if store.get(key) is None]
    if pending:
        estimate = f", about {each * len(pending) / jobs / 60:.0f} minutes" if each else ""
        print(
            f"{len(configs)} runs on corpus {corpus.name!r}: {len(configs) - len(pending)} stored, "
            f"{len(pending)} to train, {jobs} at a time{estimate}",
            flush=True,
        )
        _train(pending, data, store, jobs, threads)
    return keys


def _train(configs: list, data: str, store: RunStore, jobs: int, threads: int) -> None:
    """Train in worker processes; after Ctrl-C or a fault the finished runs are stored, and of
    those under way the last state."""
    done, total, faults = 0, len(configs), []
    # Spawned, not forked: a forked child would inherit torch's thread pool in an unknown state.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(
        min(jobs, total), context, initializer=_start_worker, initargs=(threads,)
    )
    try:
        # What another process trains is left for the end: it may then be there.
        for wait in (False, True):
            futures = {pool.submit(_train_one, c, data, store, wait): c for c in configs}
            configs = []
            for future in as_completed(futures):
                try:
                    line = future.result()
                except NumericalError as fault:  # this run's alone: the others go on
                    faults.append(str(fault))
                    continue
                if line is None:
                    configs.append(futures[future])
                    continue
                done += 1
                print(f"[{done}/{total}] {line}", flush=True)
    except BrokenProcessPool as error:
        _stop(pool)
        raise RunError(
            f"a training process was killed, perhaps for want of memory; lower JOBS. {done} of "
            f"{total} runs are finished and stored in {store.directory}; the same command goes on "
            "from the last checkpoints"
        ) from error
    except KeyboardInterrupt:
        _stop(pool)
        print(f"\nStopped: {done} of {total} runs are finished and stored in {store.directory};")
        print("those under way are kept there as well. The same command goes on.", flush=True)
        raise
    except BaseException:
        _stop(pool)
        raise
    pool.shutdown()
    if faults:
        raise NumericalError("\n".join(faults))


def _start_worker(threads: int) -> None:
    torch.set_num_threads(threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    parent = multiprocessing.parent_process()

    def follow() -> None:
        parent.join()
        os._exit(1)  # a worker must not outlive a study that was killed

    threading.Thread(target=follow, daemon=True).start()


STOP_SECONDS = 60.0  # for the workers to save the state of their runs


def _stop(pool: ProcessPoolExecutor) -> None:
    """End the workers, which save the state of their runs first."""
    workers = list((pool._processes or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for worker in workers:
        worker.terminate()
    deadline = time.monotonic() + STOP_SECONDS
    for worker in workers:
        worker.join(max(0.0, deadline - time.monotonic()))
        worker.kill()


def _train_one(config: ExperimentConfig, data: str, store: RunStore, wait: bool) -> str | None:
    """One run in a worker process; returns the line that reports it, None where it is busy."""
    try:
        return summary(run_experiment(config, _corpus(data), store, wait=wait))
    except BusyError:
        return None
    except Stopped as stopped:
        print(stopped, file=sys.stderr, flush=True)
        os._exit(1)  # at once: the pool may have handed the next run to this process already
    except HandbookError as error:
        raise type(error)(f"row {config.row}, seed {config.seed}: {error}") from None


@lru_cache(maxsize=1)
def _corpus(data: str) -> Corpus:
    return load_corpus(data)


def summary(run: Run) -> str:
    """A run in one line: row, seed, development metrics of its best epoch, time."""
    scores = ", ".join(
        f"{name} {values[BY_NAME[name].metric]:.3f}"
        for name, values in run.metrics["best"]["dev"].items()
    )
    config = run.config
    held = gate(run, run.config["heads"])
    warning = f"; {held}" if held else ""
    return (
        f"{config['row']} {config['name']}, seed {config['seed']}: dev {scores} "
        f"({run.provenance['steps']} steps, {run.provenance['seconds']:.0f} s){warning}"
    )
