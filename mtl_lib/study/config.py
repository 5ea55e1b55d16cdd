"""An experiment is data: everything that decides a run but the corpus.

Where the paper is silent, this is our reading of it:

    sentence vector     the pooler's output; a pair is [u; v], its sentences encoded apart
    epoch               one pass over the shortest training set; a step takes one batch of each task
    dropout             0.3 stands before the heads; the encoder keeps its own 0.1
    second layer        as wide as the encoder; in row 3.7 dropout 0.3 before each layer
    penalised weights   the similarity head's matrices, no biases
    Figure 4            rows without a rate: 1e-5; rate constant, no schedule
    reported epoch      the best mean of the three development metrics; the last is stored too
    frozen control      encoder and pooler in eval mode; heads at 1e-5 and at 1e-3
    AdamW               epsilon 1e-6 in the efficient form, as in the class's starter code
    SMART               strength 1, epsilon = sigma = 1e-5, eta 1e-3, one ascent step, no dropout
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import NoReturn

from mtl_lib.bert import SENTENCE_VECTORS
from mtl_lib.errors import ConfigError
from mtl_lib.methods.sampling import SAMPLERS
from mtl_lib.model import TOGETHER, HeadConfig
from mtl_lib.study.faulty_ports import FAULTS
from mtl_lib.study.weightings import STATIC, WEIGHTINGS
from mtl_lib.tasks import BY_NAME, TASKS

# Raised whenever the code changes what a run computes, so that no stale run is found again.
# Within a version, last bits and draws of dropout may differ between commits: noise, as of seeds.
STUDY_VERSION = 2


class Heads(dict[str, HeadConfig]):
    """Heads by task, never changed: rows share them."""

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("the heads of a configuration stay as they are; use dataclasses.replace")

    __setitem__ = __delitem__ = __ior__ = _refuse  # type: ignore[assignment]
    clear = pop = popitem = setdefault = update = _refuse  # type: ignore[assignment]

    def __reduce__(self) -> tuple:
        return Heads, (dict(self),)


def paper_heads(**heads: HeadConfig) -> dict[str, HeadConfig]:
    """The three tasks' heads; those not named are the paper's default."""
    return {task.name: heads.get(task.name, HeadConfig()) for task in TASKS}


SCHEDULES = ("constant", "linear")
# Parts of a profile's instrument that a row can leave out.
PARTS = ("sentence_vector", "head_lr", "label_mean_bias", "schedule", "clip")
# Fields that younger versions added; a run that leaves them at their defaults keeps its key.
_ADDED = (
    "same_task_every", "epoch_factor", "sentence_vector", "head_lr", "label_mean_bias", "schedule",
    "warmup", "clip", "without", "fault", "joint_epochs", "dev_sample", "steps", "sampler",
    "layer_decay", "average", "phrases",
)  # fmt: skip


@dataclass(frozen=True)
class Number:
    """What a number of a configuration may be: from `low` to below `high`, or to `high` itself."""

    low: float = 0
    high: float = math.inf
    whole: bool = False
    above: bool = False  # above `low`, not equal to it
    to_high: bool = False  # `high` as well
    may_lack: bool = False  # None

    def takes(self, value: object) -> bool:
        """Whether the value is such a number."""
        if value is None:
            return self.may_lack
        if isinstance(value, bool) or not isinstance(value, int if self.whole else int | float):
            return False
        high_enough = value > self.low if self.above else value >= self.low
        return high_enough and (value <= self.high if self.to_high else value < self.high)

    def __str__(self) -> str:
        end = f" and {'at most' if self.to_high else 'below'} {self.high}"
        end = " and finite" if self.high == math.inf else end
        what = "whole number" if self.whole else "number"
        return f"it must be a {what} {'above' if self.above else 'from'} {self.low:g}{end}"


_COUNT = Number(above=True, whole=True)
_NUMBERS = {
    "lr": Number(above=True),
    "batch_size": _COUNT,
    "epochs": _COUNT,
    "epoch_factor": _COUNT,
    "max_steps": replace(_COUNT, may_lack=True),
    "train_sample": replace(_COUNT, may_lack=True),
    "dev_sample": replace(_COUNT, may_lack=True),
    "max_length": Number(low=3, whole=True),  # [CLS], a token and [SEP]
    "same_task_every": Number(whole=True),
    "seed": Number(high=2**32, whole=True),
    "head_lr": Number(above=True, may_lack=True),
    "clip": Number(above=True, may_lack=True),
    "weight_decay": Number(),
    "smoothness": Number(),
    "penalty_strength": Number(),
    "warmup": Number(high=1),
    "steps": replace(_COUNT, may_lack=True),
    "layer_decay": Number(high=1, above=True, to_high=True),
    "average": Number(high=1),
    "phrases": Number(whole=True),
}
_CHOICES = {
    "weighting": tuple(WEIGHTINGS),
    "sentence_vector": SENTENCE_VECTORS,
    "schedule": SCHEDULES,
    "fault": ("", *FAULTS),
    "without": ("", *PARTS),
    "penalty": (None, 1, 2, math.inf),
    "sampler": ("all", *SAMPLERS),
}


@dataclass(frozen=True)
class ExperimentConfig:
    """Everything that decides a run but the corpus. Defaults: the baseline of Figure 3.

    Attributes:
        row: its id, "3.1" .. "4.10" or a name.
        name: the paper's words for the row.
        heads: head of each task; its keys are the tasks trained.
        weighting: "sum", "pcgrad" (gradient surgery), "pcgrad-fixed" (in a fixed order), or another
            of `weightings.WEIGHTINGS`.
        lr: learning rate, already multiplied by `lr_factor`.
        weight_decay: decoupled, AdamW's.
        batch_size: examples per task and step.
        penalty: p of the norm penalty on the similarity head, or None.
        penalty_strength: its factor (paper, section 4).
        smoothness: strength of SMART on sentiment; 0 is off.
        class_weights: weight the sentiment classes.
        frozen: train the heads alone.
        sentence_vector: what of the encoder a head sees, one of `bert.SENTENCE_VECTORS`.
        head_lr: learning rate of the heads; None: as `lr`.
        label_mean_bias: similarity's bias starts at the mean training label, not near 0.
        schedule, warmup: "constant", or "linear": up over the first `warmup` of all steps, then
            down to 0.
        clip: the gradient of all parameters is cut to this norm; None: never.
        without: the part of its profile's instrument that this row leaves out (`Profile`).
        fault: reproduce a fault of published code (`faulty_ports.FAULTS`); "": the method.
        steps: of an epoch, in place of a pass over the shortest training set; None: that pass.
        sampler: "all", or one of `methods.sampling.SAMPLERS`: which task a step takes a batch of.
        layer_decay: factor of the rate from a layer to the one below it.
        average: decay of the moving average of the weights that stands in the model at the end of
            training (`methods.averaging`); 0: none.
        phrases: sentiment also learns from the treebank's phrases of at least so many words, beside
            three copies of its sentences (`corpora.phrases`); 0: from the sentences alone.
        joint_epochs: an epoch is as long as with all three tasks, for a row that trains one.
        same_task_every: after every so many steps, compare the gradients of two batches of one
            task (`conflicts.ConflictLog`); 0: never.
        epochs, max_steps, max_length, train_sample, dev_sample: the protocol, set by the profile:
            passes, cap on the steps, tokens per sentence; training and development examples
            evaluated per task each epoch, None for all of them.
        epoch_factor: this row's epochs are as many times the profile's.
        bfloat16: the encoder's products in bfloat16, where the hardware is faster at them.
    """

    row: str
    name: str
    heads: Mapping[str, HeadConfig] = field(default_factory=paper_heads)
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
    steps: int | None = None
    sampler: str = "all"
    layer_decay: float = 1.0
    average: float = 0.0
    phrases: int = 0
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

    def __post_init__(self) -> None:
        object.__setattr__(self, "heads", Heads(self.heads))
        if unknown := set(self.heads) - set(BY_NAME):
            raise ConfigError(f"heads of unknown tasks {sorted(unknown)}: {list(BY_NAME)}")
        if not re.fullmatch(r"\w[\w.+-]*", self.row):
            raise ConfigError(f"row {self.row!r}: it names a folder; use letters, digits, . and -")
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise ConfigError(f"{name} {getattr(self, name)!r}: choose from {list(known)}")
        for name, number in _NUMBERS.items():
            if not number.takes(value := getattr(self, name)):
                raise ConfigError(f"{name} = {value}: {number}")
        self._check_parts()

    def _check_parts(self) -> None:
        """Refuse parts that do not go together."""
        if self.warmup and self.schedule == "constant":
            raise ConfigError(f"warmup = {self.warmup}: a constant schedule has none; use 'linear'")
        needed = {"similarity": self.penalty is not None}
        needed["sentiment"] = self.smoothness > 0 or self.class_weights or self.phrases > 0
        lacking = [name for name, needs in needed.items() if needs and name not in self.heads]
        if lacking:
            raise ConfigError(
                f"row {self.row}: its penalty, SMART, class weights or phrases need a head for "
                f"{lacking[0]}"
            )
        does_nothing = {
            "port-surgery": self.frozen or self.weighting != "pcgrad",
            "coupled-decay": not self.weight_decay,
            "port-smart": not self.smoothness,
        }
        if self.fault == "coupled-decay" and self.layer_decay < 1:
            raise ConfigError(f"row {self.row}: fault {self.fault!r} has one rate for all layers")
        if does_nothing.get(self.fault):
            raise ConfigError(f"row {self.row}: fault {self.fault!r} changes nothing in it")
        if self.sampler != "all" and self.weighting != "sum":
            raise ConfigError(
                f"row {self.row}: sampler {self.sampler!r} gives one task a step, so that "
                f"{self.weighting} has nothing to weigh; take 'sum'"
            )
        together = [n for n, head in self.heads.items() if head.features in TOGETHER]
        if self.frozen and together:
            raise ConfigError(
                f"row {self.row}: a frozen encoder remembers sentences, not the pairs of "
                f"{together[0]} read together"
            )
        if self.weighting in STATIC and len(self.heads) != 3:
            raise ConfigError(f"row {self.row}: {self.weighting} is for three tasks")
        if self.same_task_every and self.frozen:
            raise ConfigError(
                f"same_task_every = {self.same_task_every}: it must be 0 for a frozen encoder, "
                "which has no gradient"
            )

    def as_dict(self) -> dict:
        """The configuration as JSON gives it back: lists for tuples, "inf" for infinity."""
        words = asdict(self) | {"heads": {name: h.as_dict() for name, h in self.heads.items()}}
        if self.penalty is not None:
            words["penalty"] = str(self.penalty)  # JSON has no infinity
        for name in _ADDED:
            if words[name] == getattr(ExperimentConfig, name):
                del words[name]  # as in the runs from before there was one
        return json.loads(json.dumps(words))
