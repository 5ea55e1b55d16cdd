"""The multi-task model: one shared encoder, one small head per task (paper, section 4).

Shapes: B examples in the batch, n sentences per example (1 or 2), S sentences, L tokens, H hidden
size, C outputs of a head.
"""

import inspect
import json
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_model as load_weights
from safetensors.torch import save_model as save_weights
from tokenizers import Tokenizer
from torch import Tensor, nn

from mtl_lib.bert import SENTENCE_VECTORS, BertConfig, BertModel
from mtl_lib.data import Batch
from mtl_lib.errors import ConfigError, EncoderError
from mtl_lib.files import replacing, write_text
from mtl_lib.tasks import BY_NAME, Task

ACTIVATIONS = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU}
# What a head sees of a pair: sentence vectors u and v, or p, that of both read as one sequence.
FEATURES = {
    "concat": "[u; v]",
    "compare": "[u; v; |u-v|; u*v]",
    "cosine": "cos(u, v)",
    "together": "p",
    "all": "[p; u; v; |u-v|; u*v]",
}
# Heads that read a pair as one sequence, and how many vectors they are given: p; or p, u and v.
TOGETHER = {"together": 1, "all": 3}
FORMAT = 2  # of heads.json; the first had the heads alone, and built-in tasks


@dataclass(frozen=True)
class HeadConfig:
    """A head as data: one linear layer per dropout rate, each behind its dropout.

    `(0.3,)` is the paper's default; `(0.5, 0.3)` is dropout 0.5, linear, activation, dropout
    0.3, linear: the similarity head of its final architecture (section 5.3). `features`, a key of
    `FEATURES`, is beyond the paper: what of a pair the first layer sees.
    """

    dropout: tuple[float, ...] = (0.3,)
    activation: str = "relu"
    features: str = "concat"

    def __post_init__(self) -> None:
        rates = self.dropout if isinstance(self.dropout, tuple | list) else ()
        if not rates or not all(0 <= rate < 1 for rate in rates):
            raise ConfigError(f"head dropout {self.dropout}: give one rate in [0, 1) per layer")
        object.__setattr__(self, "dropout", tuple(rates))  # JSON gives a list back
        if self.activation not in ACTIVATIONS:
            raise ConfigError(f"activation {self.activation!r}: choose from {list(ACTIVATIONS)}")
        if self.features not in FEATURES:
            raise ConfigError(f"features {self.features!r}: choose from {list(FEATURES)}")
        if self.features == "cosine" and self.dropout != (0.0,):
            raise ConfigError(
                f"a cosine is one number: its head takes dropout (0.0,), not {self.dropout}"
            )

    def as_dict(self) -> dict[str, Any]:
        """The head as JSON keeps it; without `features` where they are the paper's."""
        return {k: v for k, v in asdict(self).items() if (k, v) != ("features", "concat")}


class Head(nn.Module):
    """Maps the sentence vectors of one task's examples to its outputs.

    A pair is the concatenation [u; v] of its two sentence vectors. With a single linear layer
    the score is then additive, `w1.u + w2.v`: it cannot compare the two. Other `FEATURES` can:
    [u; v; |u-v|; u*v], or the cosine, whose score starts as `max_label * cos(u, v)`. With
    "together" every layer of the encoder can compare: it reads the pair as one sequence.

    Raises:
        ConfigError: if a task of single sentences is to compare, or a cosine is to give more than
            a score.
    """

    linears: Any

    def __init__(self, task: Task, hidden_size: int, config: HeadConfig | None = None):
        super().__init__()
        self.task = task
        self.config = config or HeadConfig()
        features = self.config.features
        lacks = task.sentences == 1 or (features == "cosine" and task.kind != "score")
        if lacks and features != "concat":
            raise ConfigError(f"{task.name}: no head of this task can use {FEATURES[features]}")
        self.features = features
        vectors = {"concat": task.sentences, "compare": 4, "together": 1, "all": 5}.get(features, 0)
        inputs = vectors * hidden_size or 1  # a cosine is one number
        widths = [inputs] + [hidden_size] * (len(self.config.dropout) - 1) + [task.outputs]
        self.dropouts = nn.ModuleList(nn.Dropout(rate) for rate in self.config.dropout)
        self.linears = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.activation = ACTIVATIONS[self.config.activation]()
        if features == "cosine":
            nn.init.constant_(self.linears[0].weight, task.num_classes - 1)
            nn.init.zeros_(self.linears[0].bias)

    def forward(self, vectors: Tensor) -> Tensor:
        """Sentence vectors `[B, n*H]` (`[B, H]` together, `[B, 3*H]` all) to logits `[B, C]`."""
        vectors = pair_features(vectors, self.config.features)
        for depth, (dropout, linear) in enumerate(zip(self.dropouts, self.linears, strict=True)):
            if depth > 0:
                vectors = self.activation(vectors)
            vectors = linear(dropout(vectors))
        return vectors

    def matrices(self) -> list[nn.Parameter]:
        """The weight matrices, without biases: what the penalties act on (our reading)."""
        return [linear.weight for linear in self.linears]


def vectors_read(head: nn.Module) -> int:
    """How many vectors of a pair a head is given that reads it as one sequence, `TOGETHER`; 0 for
    one that is given those of the sentences."""
    features = getattr(head, "features", "concat")
    return TOGETHER.get(features, 0) if isinstance(features, str) else 0


def pair_features(vectors: Tensor, features: str) -> Tensor:
    """What a head sees, one of `FEATURES`, of u and v, `[B, 2*H]`, or of p, u and v, `[B, 3*H]`."""
    if features in ("concat", "together"):
        return vectors
    *pair, u, v = vectors.chunk(TOGETHER.get(features, 2), dim=1)  # [B, H] each
    if features == "cosine":
        return F.cosine_similarity(u, v, dim=1)[:, None]
    return torch.cat([*pair, u, v, (u - v).abs(), u * v], dim=1)


class MultitaskModel(nn.Module):
    """A shared encoder and one head per task.

    Args:
        encoder: a `BertModel`, or a module of one's own with `encode(input_ids, attention_mask)`,
            both `[S, L]`, that returns sentence vectors `[S, H]`, and with `hidden_size`, H (or a
            `config` that has it, as transformers' models do). Where a head reads pairs together,
            `encode` is given `token_type_ids` as well.
        heads: for each task, or the name of a built-in one, its `HeadConfig`, or a module of one's
            own from sentence vectors `[B, n*H]` (of a pair [u; v]) to outputs `[B, C]`. With an
            attribute `features`, "together" or "all", it is given the vectors that `Head` is. Of a
            `HeadConfig` a head is made in the encoder's type, where the encoder lies.
        sentence_vector: what of a `BertModel` the heads see, one of `bert.SENTENCE_VECTORS`; the
            pooler's output in the paper (our reading).

    Attributes:
        tasks: the task of each head, by name.
        frozen: whether no parameter of the encoder is trained, as after `freeze`.
        fast: encode without padding (`fast/packed.py`): the same numbers, but `BertModel.forward`
            is then not what runs. The trainer's engine sets it.
        low_precision: set it to run the encoder's matrix products in bfloat16 (autocast); weights,
            gradients, sums and heads stay as they are.
        tokenizer: saved with the model where it is given; the trainer gives its data's.

    Raises:
        ConfigError: for an unknown sentence vector or task, two of one name, or what cannot encode.
    """

    encoder: Any
    heads: Any

    def __init__(
        self, encoder: nn.Module, heads: Mapping[Any, Any], sentence_vector: str = "pooler"
    ):
        super().__init__()
        if sentence_vector not in SENTENCE_VECTORS:
            raise ConfigError(
                f"sentence_vector {sentence_vector!r}: choose from {SENTENCE_VECTORS}"
            )
        size = getattr(encoder, "hidden_size", None)
        size = size or getattr(getattr(encoder, "config", None), "hidden_size", None)
        encodes = isinstance(encoder, BertModel) or callable(getattr(encoder, "encode", None))
        if not size or not encodes:
            raise ConfigError(
                f"{type(encoder).__name__} is no encoder: it needs encode(input_ids, "
                "attention_mask), which returns sentence vectors [S, H], and hidden_size, H"
            )
        self.sentence_vector = sentence_vector
        self.encoder = encoder
        self.tasks = {task.name: task for task in map(_task_of, heads)}
        if len(self.tasks) < len(heads):
            raise ConfigError(f"two tasks have one name: {[_task_of(task).name for task in heads]}")
        if isinstance(encoder, BertModel) and sentence_vector == "cls+mean":
            size *= 2
        like = next(encoder.parameters(), torch.empty(0))
        built = (
            head if isinstance(head, nn.Module) else Head(_task_of(task), size, head).to(like)
            for task, head in heads.items()
        )
        self.heads = nn.ModuleDict(dict(zip(self.tasks, built, strict=True)))
        for name, head in self.heads.items():
            if vectors_read(head):
                _check_together(self.tasks[name], encoder)
        self.fast = self.low_precision = False
        self.tokenizer: Tokenizer | None = None

    @property
    def _like(self) -> Tensor:
        """A parameter that stands for device and type of all."""
        return next(self.parameters())

    def forward(self, batch: Batch) -> Tensor:
        """Logits `[B, C]` of the batch's task."""
        return self.classify(batch.task, self.vectors(batch))

    def vectors(self, batch: Batch) -> Tensor:
        """Sentence vectors `[n*B, H]`, all first sentences before all second; of a pair read
        together p `[B, H]`, with "all" p, u and v, one below the other, `[3*B, H]`."""
        batch = self.arranged(batch)
        return self.encode(batch.input_ids, batch.attention_mask, batch.token_type_ids)

    def arranged(self, batch: Batch) -> Batch:
        """The batch as its head reads it: pairs apart, or together (`Batch.together`)."""
        read = vectors_read(self._head(batch.task))
        return batch.together(apart=read == TOGETHER["all"]) if read else batch

    def encode(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Sentence vectors `[S, H]` of padded sentences, and perhaps their segments, `[S, L]`."""
        like = self._like
        ids, mask = input_ids.to(like.device), attention_mask.to(like.device)
        types = () if token_type_ids is None else (token_type_ids.to(like.device),)  # of pairs
        with self.precision():
            if not isinstance(self.encoder, BertModel):
                vectors = self.encoder.encode(ids, mask, *types)
            elif self.fast:
                from mtl_lib.fast.packed import Pack, packed_vectors  # only where it is asked for

                pack = Pack.of([(ids, mask, *types)], like.device)
                vectors = packed_vectors(self.encoder, pack, kind=self.sentence_vector)
            else:
                output = self.encoder(ids, mask, *types)
                vectors = output.sentence_vector(self.sentence_vector, mask)
        return vectors.to(like.dtype)

    def precision(self) -> AbstractContextManager[Any]:
        """Autocast to bfloat16 where `low_precision` is set; else what is around stays."""
        if self.low_precision:
            return torch.autocast(self._like.device.type, torch.bfloat16)
        return nullcontext()

    def classify(self, task: Task, vectors: Tensor) -> Tensor:
        """Logits `[B, C]` from what `vectors` gives.

        Raises:
            ConfigError: if the model has no head for the task, or its outputs do not fit.
        """
        head = self._head(task)
        each = vectors_read(head) or task.sentences
        logits: Tensor = head(torch.cat(vectors.chunk(each), dim=1))
        if logits.shape != (len(vectors) // each, task.outputs):
            raise ConfigError(f"{task.name}: head gives {[*logits.shape]}, not [B, {task.outputs}]")
        return logits

    def _head(self, task: Task) -> nn.Module:
        if task.name not in self.heads:
            raise ConfigError(f"no head for task {task.name!r}: this model has {list(self.heads)}")
        head: nn.Module = self.heads[task.name]
        return head

    def shared_parameters(self) -> list[nn.Parameter]:
        """What the tasks share, and so what gradient surgery acts on, where it is not frozen: the
        encoder's parameters, without a `BertModel`'s pooler where no head sees its output."""
        unused: Iterable[nn.Parameter] = ()
        if isinstance(self.encoder, BertModel) and self.sentence_vector != "pooler":
            unused = set(self.encoder.pooler.parameters())
        return [p for p in self.encoder.parameters() if p not in unused]

    @property
    def frozen(self) -> bool:
        return not any(parameter.requires_grad for parameter in self.encoder.parameters())

    def freeze(self) -> None:
        """Train the heads alone: the encoder stays as it is, in eval mode, until a part of it is
        to be trained again (`encoder.requires_grad_(True)`)."""
        self.encoder.requires_grad_(False)
        self.encoder.eval()

    def train(self, mode: bool = True) -> "MultitaskModel":
        super().train(mode)
        if self.frozen:
            self.encoder.eval()  # a frozen encoder gives the same vector every time
        return self

    def save(self, directory: str | Path, tokenizer: Tokenizer | None = None) -> None:
        """Write the model and its tasks to a folder: safetensors and JSON only. `load` has to be
        given what is of one's own: subclasses, too, and an encoder or head with exchanged parts.

        Args:
            tokenizer: kept beside it, with its length of cut; `self.tokenizer` by default.
        """
        from mtl_lib.fast import as_built  # only where it is asked for

        directory, tokenizer = Path(directory), tokenizer or self.tokenizer
        words = {
            "format": FORMAT,
            "sentence_vector": self.sentence_vector,
            "tasks": [task.as_dict() for task in self.tasks.values()],
            "heads": {
                name: head.config.as_dict() if as_built(head) else None
                for name, head in self.heads.items()
            },
        }
        texts = {"heads.json": json.dumps(words, indent=2) + "\n"}
        if as_built(self.encoder):  # but for layers that were taken away
            sizes = replace(self.encoder.config, num_hidden_layers=len(self.encoder.encoder.layer))
            texts["config.json"] = json.dumps(asdict(sizes), indent=2) + "\n"
        if tokenizer:  # transformers' fast ones wrap one
            plain = getattr(tokenizer, "backend_tokenizer", tokenizer)
            texts["tokenizer.json"] = plain.to_str(pretty=True)
        weights = directory / "model.safetensors"
        with ExitStack() as files:  # the weights last: a folder with weights is whole
            save_weights(self, str(files.enter_context(replacing(weights))))
            for name, text in texts.items():
                write_text(files.enter_context(replacing(directory / name)), text)
            for name in (weights.name, "config.json", "tokenizer.json", "tokenizer_config.json"):
                (directory / name).unlink(missing_ok=True)  # of another model

    @classmethod
    def load(
        cls,
        directory: str | Path,
        *,
        encoder: nn.Module | None = None,
        heads: Mapping[str, nn.Module] | None = None,
        tasks: Iterable[Task] = (),
    ) -> "MultitaskModel":
        """Read a model that `save` wrote; returned in eval mode.

        Args:
            encoder: of one's own, for the weights to be loaded into.
            heads: those of one's own, by task.
            tasks: those with functions of one's own: loss, metric or prediction.

        Raises:
            EncoderError: if a file is missing, the weights do not fit, or a part of one's own is
                not given, or given for a task that the model has not.
        """
        directory, heads = Path(directory), dict(heads or {})
        for name in ("heads.json", "model.safetensors"):
            if not (directory / name).is_file():
                raise EncoderError(f"{directory}: no {name}; give a folder written by `save`")
        config = directory / "config.json"
        if encoder is None and not config.is_file():
            raise EncoderError(f"{config}: not there: the encoder was none of ours; give `encoder`")
        try:
            if encoder is None:
                sizes = json.loads(config.read_text(encoding="utf-8"))
                encoder = BertModel(BertConfig(**sizes))
        except (ValueError, TypeError, EncoderError) as error:
            raise EncoderError(f"{config}: not a model's encoder: {error}") from error
        try:
            words = json.loads((directory / "heads.json").read_text(encoding="utf-8"))
            if "heads" not in words:  # the first format
                vector = words.pop("sentence_vector", "pooler")
                known = [BY_NAME[name].as_dict() for name in words]
                words = {"sentence_vector": vector, "tasks": known, "heads": words}
            own = {task.name: task for task in tasks}
            found = [own.get(t["name"]) or Task.from_dict(t) for t in words["tasks"]]
            names = {task.name for task in found}
            if unknown := (heads.keys() | own.keys()) - names:
                raise EncoderError(f"{directory}: no task {min(unknown)!r} among {sorted(names)}")
            kept = {t: heads.get(t.name) or _head_config(words["heads"], t.name) for t in found}
            model = cls(encoder, kept, words["sentence_vector"])
        except (ValueError, TypeError, AttributeError, KeyError, ConfigError) as error:
            raise EncoderError(f"{directory}/heads.json: not a model's heads: {error}") from error
        try:
            load_weights(model, str(directory / "model.safetensors"))
        except (RuntimeError, SafetensorError) as error:
            said = f"does not fit: {error}"
            if ".weight.scale" in str(error):
                said = "is stored in 8 bits: use `mtl_lib.methods.quantized.load_quantized`"
            raise EncoderError(f"{directory}/model.safetensors {said}") from error
        if (path := directory / "tokenizer.json").is_file():
            try:
                model.tokenizer = Tokenizer.from_file(str(path))
            except Exception as error:  # the tokenizers package raises nothing narrower
                raise EncoderError(f"{path}: not a tokenizer ({error})") from error
        return model.eval()


def _task_of(task: Task | str) -> Task:
    if isinstance(task, Task):
        return task
    if task not in BY_NAME:
        raise ConfigError(f"heads of task {task!r}: give the `Task` itself, or {list(BY_NAME)}")
    return BY_NAME[task]


def _check_together(task: Task, encoder: Any) -> None:
    """Refuse pairs read together where there are none, or no segments to tell them apart."""
    lacks = "" if task.sentences == 2 else "its examples are single sentences"
    if isinstance(encoder, BertModel):
        segments = encoder.config.type_vocab_size
        lacks = lacks or ("" if segments > 1 else "the encoder knows one segment only")
    else:
        try:
            inspect.signature(encoder.encode).bind(None, None, None)
        except TypeError:
            lacks = lacks or "encode takes no token_type_ids"
    if lacks:
        raise ConfigError(f"{task.name}: its head reads pairs together, but {lacks}")


def _head_config(heads: dict[str, Any], task: str) -> HeadConfig:
    if heads[task] is None:
        raise ConfigError(f"the head of {task} is none of ours; give it in `heads`")
    return HeadConfig(**heads[task])
