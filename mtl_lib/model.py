"""The multi-task model: one shared encoder, one small head per task (paper, section 4).

Shapes: B examples in the batch, n sentences per example (1 or 2), L tokens, H hidden size,
C outputs of a head.
"""

import json
import os
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from mtl_lib.bert import SENTENCE_VECTORS, BertConfig, BertModel
from mtl_lib.data import Batch
from mtl_lib.errors import ConfigError, EncoderError
from mtl_lib.fast.packed import Layers, Pack, packed_vectors
from mtl_lib.tasks import BY_NAME, Task

ACTIVATIONS = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU}
# What a head sees of a pair's sentence vectors u and v.
FEATURES = {"concat": "[u; v]", "compare": "[u; v; |u-v|; u*v]", "cosine": "cos(u, v)"}
_SENTENCE_VECTOR = "sentence_vector"  # its key in heads.json, beside those of the tasks


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

    def __post_init__(self):
        object.__setattr__(self, "dropout", tuple(self.dropout))  # JSON gives a list back
        if not self.dropout or not all(0 <= rate < 1 for rate in self.dropout):
            raise ConfigError(f"head dropout {self.dropout}: give one rate in [0, 1) per layer")
        if self.activation not in ACTIVATIONS:
            raise ConfigError(f"activation {self.activation!r}: choose from {list(ACTIVATIONS)}")
        if self.features not in FEATURES:
            raise ConfigError(f"features {self.features!r}: choose from {list(FEATURES)}")
        if self.features == "cosine" and self.dropout != (0.0,):
            raise ConfigError(
                f"a cosine is one number: its head takes dropout (0.0,), not {self.dropout}"
            )

    def as_dict(self) -> dict:
        """The head as JSON keeps it; without `features` where they are the paper's."""
        return {k: v for k, v in asdict(self).items() if (k, v) != ("features", "concat")}


class Head(nn.Module):
    """Maps the sentence vectors of one task's examples to its outputs.

    A pair is the concatenation [u; v] of its two sentence vectors. With a single linear layer
    the score is then additive, `w1.u + w2.v`: it cannot compare the two. Other `FEATURES` can:
    [u; v; |u-v|; u*v], or the cosine, whose score starts as `max_label * cos(u, v)`.

    Raises:
        ConfigError: if a task of single sentences is to compare, or a cosine is to give more than
            a score.
    """

    def __init__(self, task: Task, hidden_size: int, config: HeadConfig | None = None):
        super().__init__()
        self.task = task
        self.config = config or HeadConfig()
        features = self.config.features
        if (
            features != "concat"
            and task.sentences == 1
            or (features == "cosine" and task.kind != "score")
        ):
            raise ConfigError(f"{task.name}: no head of this task can use {FEATURES[features]}")
        whole = task.sentences * hidden_size
        inputs = {"concat": whole, "compare": 2 * whole, "cosine": 1}[features]
        widths = [inputs] + [hidden_size] * (len(self.config.dropout) - 1) + [task.outputs]
        self.dropouts = nn.ModuleList(nn.Dropout(rate) for rate in self.config.dropout)
        self.linears = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.activation = ACTIVATIONS[self.config.activation]()
        if features == "cosine":
            nn.init.constant_(self.linears[0].weight, task.max_label)
            nn.init.zeros_(self.linears[0].bias)

    def forward(self, vectors: Tensor) -> Tensor:
        """Sentence vectors `[B, n*H]` to logits `[B, C]`."""
        vectors = pair_features(vectors, self.config.features)
        for depth, (dropout, linear) in enumerate(zip(self.dropouts, self.linears, strict=True)):
            if depth > 0:
                vectors = self.activation(vectors)
            vectors = linear(dropout(vectors))
        return vectors

    def start_at_mean(self, labels: Tensor) -> None:
        """Start a score's last bias at the mean of its training labels `[N]`, in place of near 0.

        Otherwise the first epochs go into learning it. A class's logits, and a cosine, which is on
        the labels' scale from the start, stay as they are.
        """
        if self.task.kind == "score" and self.config.features != "cosine":
            nn.init.constant_(self.linears[-1].bias, labels.float().mean().item())

    def matrices(self) -> list[nn.Parameter]:
        """The weight matrices, without biases: what the penalties act on (our reading)."""
        return [linear.weight for linear in self.linears]


def pair_features(vectors: Tensor, features: str) -> Tensor:
    """What a head sees of its sentence vectors `[B, n*H]`: `[B, n*H]`, `[B, 4*H]` or `[B, 1]`."""
    if features == "concat":
        return vectors
    u, v = vectors.chunk(2, dim=1)  # [B, H] each
    if features == "compare":
        return torch.cat([u, v, (u - v).abs(), u * v], dim=1)
    return F.cosine_similarity(u, v, dim=1)[:, None]


class MultitaskModel(nn.Module):
    """A shared `BertModel` and one `Head` per task.

    Args:
        encoder: the shared encoder.
        heads: a head's configuration for each task, by name.
        sentence_vector: what of the encoder the heads see, one of `bert.SENTENCE_VECTORS`; the
            pooler's output in the paper (our reading).

    Attributes:
        frozen: whether `freeze` was called.
        bfloat16: set it to run the encoder's matrix products in bfloat16 (autocast); weights,
            gradients, sums and heads stay as they are.

    Raises:
        ConfigError: if there is no such sentence vector.
    """

    def __init__(
        self, encoder: BertModel, heads: dict[str, HeadConfig], sentence_vector: str = "pooler"
    ):
        super().__init__()
        if sentence_vector not in SENTENCE_VECTORS:
            raise ConfigError(
                f"sentence_vector {sentence_vector!r}: choose from {SENTENCE_VECTORS}"
            )
        self.sentence_vector = sentence_vector
        self.encoder = encoder
        self.heads = nn.ModuleDict(
            {
                name: Head(BY_NAME[name], encoder.config.hidden_size, config)
                for name, config in heads.items()
            }
        )
        self.frozen = False
        self.bfloat16 = False
        self._memory: dict[bytes, Tensor] = {}

    def forward(self, batch: Batch) -> Tensor:
        """Logits `[B, C]` of the batch's task."""
        (vectors,) = self.vectors([batch])
        return self.classify(batch.task, vectors)

    def vectors(self, batches: list[Batch], layers: Layers | None = None) -> list[Tensor]:
        """Sentence vectors `[n*B, H]` of each batch, all encoded together.

        A frozen encoder encodes a sentence once and remembers its vector.

        Args:
            layers: forms the gradients of each batch apart (`joint.py`).
        """
        if self.frozen:
            return [self._remembered(batch) for batch in batches]
        padded = [(batch.input_ids, batch.attention_mask) for batch in batches]
        pack = Pack.of(padded, self.encoder.pooler.dense.weight.device)
        return self._encode(pack, layers).split(pack.sentences)

    def _encode(self, pack: Pack, layers: Layers | None = None) -> Tensor:
        weight = self.encoder.pooler.dense.weight
        with torch.autocast(weight.device.type, torch.bfloat16, enabled=self.bfloat16):
            vectors = packed_vectors(self.encoder, pack, layers, self.sentence_vector)  # [S, H]
        return vectors.to(weight.dtype)

    def _remembered(self, batch: Batch) -> Tensor:
        """Vectors `[n*B, H]` of a frozen encoder, by a sentence's token ids."""
        lengths = batch.attention_mask.sum(dim=1).tolist()
        rows = zip(batch.input_ids.cpu().numpy(), lengths, strict=True)
        keys = [row[:length].tobytes() for row, length in rows]
        if new := {key: i for i, key in enumerate(keys) if key not in self._memory}:
            rows = list(new.values())
            device = self.encoder.pooler.dense.weight.device
            pack = Pack.of([(batch.input_ids[rows], batch.attention_mask[rows])], device)
            with torch.no_grad():
                vectors = self._encode(pack)
            self._memory.update(zip(new, map(torch.clone, vectors), strict=True))
        return torch.stack([self._memory[key] for key in keys])

    def remembered(self) -> dict[str, Tensor]:
        """What a frozen encoder remembers: token ids of M sentences one after the other, their
        lengths `[M]` and vectors `[M, H]`; empty if nothing."""
        if not self._memory:
            return {}
        tokens = [torch.frombuffer(bytearray(key), dtype=torch.int64) for key in self._memory]
        lengths = torch.tensor([len(row) for row in tokens])
        vectors = torch.stack(list(self._memory.values()))
        return {"tokens": torch.cat(tokens), "lengths": lengths, "vectors": vectors}

    def remember(self, state: dict[str, Tensor]) -> None:
        """Undo `remembered`."""
        self._memory.clear()
        if state:
            rows = state["tokens"].split(state["lengths"].tolist())
            vectors = state["vectors"].to(self.encoder.pooler.dense.weight.device)
            keys = (row.numpy().tobytes() for row in rows)
            self._memory.update(zip(keys, map(torch.clone, vectors), strict=True))

    def classify(self, task: Task, vectors: Tensor) -> Tensor:
        """Logits `[B, C]` from sentence vectors `[n*B, H]`, all first sentences before all second.

        Raises:
            ConfigError: if the model has no head for the task.
        """
        if task.name not in self.heads:
            raise ConfigError(f"no head for task {task.name!r}: this model has {list(self.heads)}")
        return self.heads[task.name](torch.cat(vectors.chunk(task.sentences), dim=1))

    def shared_parameters(self) -> list[nn.Parameter]:
        """What the tasks share, and so what gradient surgery acts on: the encoder's parameters,
        without the pooler's where no head sees its output."""
        unused = (
            set() if self.sentence_vector == "pooler" else set(self.encoder.pooler.parameters())
        )
        return [p for p in self.encoder.parameters() if p.requires_grad and p not in unused]

    def freeze(self) -> None:
        """Train the heads alone: the encoder and its pooler stay as they are, in eval mode."""
        self.frozen = True
        self._memory.clear()
        self.encoder.requires_grad_(False)
        self.encoder.eval()

    def train(self, mode: bool = True) -> "MultitaskModel":
        super().train(mode)
        if self.frozen:
            self.encoder.eval()  # a frozen encoder gives the same vector every time
        return self

    def save(self, directory: str | Path, tokenizer: Tokenizer) -> None:
        """Write weights, configuration and tokenizer to a folder: safetensors and JSON only."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        heads = {name: head.config.as_dict() for name, head in self.heads.items()}
        heads |= {_SENTENCE_VECTOR: self.sentence_vector}
        state = {name: tensor.contiguous() for name, tensor in self.state_dict().items()}
        written, weights = directory / "model.safetensors.tmp", directory / "model.safetensors"
        save_file(state, written)
        weights.unlink(missing_ok=True)  # of another model: a folder with weights is whole
        self.encoder.config.to_json(directory / "config.json")
        (directory / "heads.json").write_text(json.dumps(heads, indent=2) + "\n")
        tokenizer.save(str(directory / "tokenizer.json"))
        os.replace(written, weights)


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether products in bfloat16 are faster than in float32: recent GPUs and server CPUs."""
    if device.type != "cpu":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def load_model(directory: str | Path) -> tuple[MultitaskModel, Tokenizer]:
    """Read a model that `MultitaskModel.save` wrote; returned in eval mode.

    Raises:
        EncoderError: if a file is missing or the weights do not fit the configuration.
    """
    directory = Path(directory)
    for name in ("config.json", "heads.json", "tokenizer.json", "model.safetensors"):
        if not (directory / name).is_file():
            raise EncoderError(f"{directory}: no {name}; give a folder written by `mtl train`")
    encoder = BertModel(BertConfig.from_json(directory / "config.json"))
    try:
        heads = json.loads((directory / "heads.json").read_text(encoding="utf-8"))
        vector = heads.pop(_SENTENCE_VECTOR, "pooler")
        configs = {name: HeadConfig(**head) for name, head in heads.items()}
        model = MultitaskModel(encoder, configs, vector)
    except (ValueError, TypeError, AttributeError, KeyError, ConfigError) as error:
        raise EncoderError(f"{directory}/heads.json: not the heads of a model: {error}") from error
    try:
        model.load_state_dict(load_file(directory / "model.safetensors"))
    except (RuntimeError, SafetensorError) as error:
        raise EncoderError(f"{directory}/model.safetensors does not fit: {error}") from error
    try:
        return model.eval(), Tokenizer.from_file(str(directory / "tokenizer.json"))
    except Exception as error:  # the tokenizers package raises nothing narrower
        raise EncoderError(f"{directory}/tokenizer.json: not a tokenizer ({error})") from error
