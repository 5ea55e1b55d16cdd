"""The model in NumPy alone, for answers: importing torch takes longer than giving them.

What `bert.py` and `model.py` compute, under the same names, without dropout and without gradients.
Shapes: S sequences in a batch, N examples, k sequences that a head sees of each; the other letters
are those of `bert.py`.
"""

import json
import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy import ndarray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from mtl_lib.errors import EncoderError

EMBEDDINGS = "encoder.embeddings"
WORDS = f"{EMBEDDINGS}.word_embeddings.weight"
SCALE = ".scale"  # behind the name of a matrix in 8 bits (methods/quantized.py)
BATCH_TOKENS = 1024  # padding included: few enough for the processor's cache
ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
}

Example = tuple[Sequence[int], ...]  # the token ids, [CLS] to [SEP], of its one or two sentences


class Reading(NamedTuple):
    """A sequence to encode: token ids; from place `second` on they are the second segment."""

    ids: tuple[int, ...]
    second: int


class NumpyModel:
    """Encoder and heads of a folder that `save_quantized` or `MultitaskModel.save` wrote.

    Attributes:
        heads: the configuration of each task's head, as `HeadConfig.as_dict` gives it.
        sentences: of each task, 1 or 2 per example.
        vocabulary, positions: the token ids and the tokens of a sequence that the encoder knows.

    Raises:
        EncoderError: if a file is missing or damaged, or the files do not fit each other.
    """

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        for name in ("config.json", "heads.json", "model.safetensors"):
            if not (folder / name).is_file():
                raise EncoderError(f"{folder}: no {name}; give a folder that `mtl train` wrote")
        try:
            self.config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            words = json.loads((folder / "heads.json").read_text(encoding="utf-8"))
            stored: dict[str, ndarray] = load_file(folder / "model.safetensors")
            # The largest matrix, of which a sentence needs a few rows, stays in 8 bits.
            self.words = {name: stored.pop(name) for name in list(stored) if WORDS in name}
            self.weights = {n: dequantized(stored, n) for n in stored if not n.endswith(SCALE)}
            self.heads: dict[str, dict[str, Any]] = words["heads"]
            if own := [task for task, head in self.heads.items() if head is None]:
                raise EncoderError(f"{folder}: the head of {own[0]} is one's own, not for NumPy")
            self.sentences = {task["name"]: task["sentences"] for task in words["tasks"]}
            self.sentence_vector: str = words["sentence_vector"]
            self.vocabulary = len(self.words[WORDS])
            self.positions = len(self.weights[f"{EMBEDDINGS}.position_embeddings.weight"])
            # The shortest of texts goes through every layer and head once: whether all fits.
            self.logits({task: [([0, 0],) * n] for task, n in self.sentences.items()})
        except (SafetensorError, ValueError, TypeError, LookupError, AttributeError) as error:
            raise EncoderError(
                f"{folder}: a file is damaged, or not of the same model ({error!r}); "
                "train or save the model again"
            ) from error

    def logits(self, examples: Mapping[str, Sequence[Example]]) -> dict[str, ndarray]:
        """Outputs `[N, C]` of each task's head; what two of them read alike is encoded once.

        Args:
            examples: by task, one or more.

        Raises:
            EncoderError: if a text, or a pair read together, has more tokens than `positions`.
        """
        read = {task: [self.readings(task, one) for one in many] for task, many in examples.items()}
        # Longest first: batches of like length have little padding.
        distinct = sorted(
            {one for many in read.values() for some in many for one in some},
            key=lambda one: (len(one.ids), one),
            reverse=True,
        )
        vectors = np.concatenate([self.vectors(batch) for batch in batches(distinct)])
        place = {one: i for i, one in enumerate(distinct)}
        return {
            task: self.classify(task, vectors[[[place[one] for one in some] for some in many]])
            for task, many in read.items()
        }

    def readings(self, task: str, example: Example) -> list[Reading]:
        """The k sequences that a head is given: the sentences u (and v), the pair p, or p, u, v."""
        features = self.heads[task].get("features", "concat")
        apart = [Reading(tuple(ids), len(ids)) for ids in example]
        if features not in ("together", "all"):
            return apart
        first, second = apart  # [CLS] first [SEP] second [SEP]
        pair = Reading(first.ids + second.ids[1:], len(first.ids))
        return [pair] if features == "together" else [pair, *apart]

    def vectors(self, readings: Sequence[Reading]) -> ndarray:
        """Sentence vectors `[S, H]`, or `[S, 2H]`, of one batch."""
        ((hidden, _),) = deque(self.run(readings), maxlen=1)  # of the last layer
        first, kind = hidden[:, 0], self.sentence_vector
        if kind == "pooler":
            return np.tanh(self.linear(first, "encoder.pooler.dense"))
        if kind == "cls":
            return first
        if kind not in ("mean", "cls+mean"):
            raise ValueError(f"sentence vector {kind!r}")
        tokens = padded(readings)[1][:, :, None]  # [S, L, 1]
        mean = (hidden * tokens).sum(axis=1) / tokens.sum(axis=1, dtype=np.float32)
        return mean if kind == "mean" else np.concatenate([first, mean], axis=1)

    def attention(self, reading: Reading) -> ndarray:
        """Attention of every layer and head, queries by keys: `[layers, A, L, L]`."""
        return np.concatenate([probabilities for _, probabilities in self.run([reading])])

    def run(self, readings: Sequence[Reading]) -> Iterator[tuple[ndarray, ndarray]]:
        """Layer by layer, tokens' vectors `[S, L, H]` and attention `[S, A, L, L]` of a batch."""
        ids, mask, segments = padded(readings)  # [S, L] each
        if ids.shape[1] > self.positions:
            raise EncoderError(
                f"a text, or a pair read together, has {ids.shape[1]} tokens, but the encoder "
                f"knows {self.positions} positions; shorten it"
            )
        words = dequantized(self.words, WORDS, ids)  # [S, L, H]
        places = self.weights[f"{EMBEDDINGS}.position_embeddings.weight"][: ids.shape[1]]
        types = self.weights[f"{EMBEDDINGS}.token_type_embeddings.weight"][segments]
        hidden = self.norm(words + places + types, f"{EMBEDDINGS}.LayerNorm")
        for number in range(self.config["num_hidden_layers"]):
            layer = f"encoder.encoder.layer.{number}"
            context, probabilities = self.attend(hidden, mask, f"{layer}.attention.self")
            attended = self.linear(context, f"{layer}.attention.output.dense")
            hidden = self.norm(hidden + attended, f"{layer}.attention.output.LayerNorm")
            wide = gelu(self.linear(hidden, f"{layer}.intermediate.dense"))  # [S, L, I]
            narrow = self.linear(wide, f"{layer}.output.dense")
            hidden = self.norm(hidden + narrow, f"{layer}.output.LayerNorm")
            yield hidden, probabilities

    def attend(self, hidden: ndarray, mask: ndarray, name: str) -> tuple[ndarray, ndarray]:
        """softmax(q k^T / sqrt(D)) v, `[S, L, H]`, and its softmax over the keys."""
        S, L, H = hidden.shape
        query, key, value = (
            self.linear(hidden, f"{name}.{part}")
            .reshape(S, L, self.config["num_attention_heads"], -1)
            .swapaxes(1, 2)  # [S, A, L, D]
            for part in ("query", "key", "value")
        )
        scores = query @ key.swapaxes(2, 3) / math.sqrt(query.shape[-1])  # [S, A, L, L]
        scores = np.where(mask[:, None, None, :], scores, -np.inf)
        exponentials = np.exp(scores - scores.max(axis=-1, keepdims=True))
        probabilities = exponentials / exponentials.sum(axis=-1, keepdims=True)
        return (probabilities @ value).swapaxes(1, 2).reshape(S, L, H), probabilities

    def linear(self, x: ndarray, name: str) -> ndarray:
        """x W^T + b, `[.., in]` -> `[.., out]`."""
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        rows = x.reshape(-1, x.shape[-1])  # one product, not one per sequence
        return (rows @ weight.T + bias).reshape(*x.shape[:-1], -1)

    def norm(self, x: ndarray, name: str) -> ndarray:
        """LayerNorm over the last axis."""
        centred = x - x.mean(axis=-1, keepdims=True)
        variance = (centred * centred).mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt(variance + self.config["layer_norm_eps"])
        return scaled * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def classify(self, task: str, vectors: ndarray) -> ndarray:
        """A head on sentence vectors `[N, k, H]`: `[N, C]`."""
        head = self.heads[task]
        x = pair_features(vectors, head.get("features", "concat"))
        for depth in range(len(head["dropout"])):
            if depth > 0:
                x = ACTIVATIONS[head["activation"]](x)
            x = self.linear(x, f"heads.{task}.linears.{depth}")
        return x


def dequantized(stored: Mapping[str, ndarray], name: str, rows: Any = ...) -> ndarray:
    """A tensor in float32, or those rows of a matrix: q * s, where it has scales (8 bits)."""
    tensor = stored[name][rows].astype(np.float32, copy=False)
    return tensor * stored[name + SCALE][rows][..., None] if name + SCALE in stored else tensor


def batches(readings: Sequence[Reading]) -> Iterator[Sequence[Reading]]:
    """Cut sequences, longest first, into batches of `BATCH_TOKENS`, or of one longer sequence."""
    start = 0
    while start < len(readings):
        size = max(1, BATCH_TOKENS // len(readings[start].ids))
        yield readings[start : start + size]
        start += size


def padded(readings: Sequence[Reading]) -> tuple[ndarray, ndarray, ndarray]:
    """Token ids, 0 where padded, the mask that is true on tokens, and segments: `[S, L]` each."""
    lengths = np.array([[len(one.ids)] for one in readings])  # [S, 1]
    columns = np.arange(lengths.max())  # [L]
    ids = np.zeros((len(readings), len(columns)), dtype=np.int64)
    mask = columns < lengths
    ids[mask] = [token for one in readings for token in one.ids]
    segments = columns >= np.array([[one.second] for one in readings])
    return ids, mask, segments.astype(np.int64)


def pair_features(vectors: ndarray, features: str) -> ndarray:
    """What a head sees, one of `model.FEATURES`, of `[N, k, H]`."""
    if features in ("concat", "together"):
        return vectors.reshape(len(vectors), -1)
    *pair, u, v = vectors.swapaxes(0, 1)  # [N, H] each
    if features == "cosine":
        lengths = [np.maximum(np.linalg.norm(x, axis=1), 1e-8) for x in (u, v)]
        return ((u * v).sum(axis=1) / (lengths[0] * lengths[1]))[:, None]
    return np.concatenate([*pair, u, v, np.abs(u - v), u * v], axis=1)


def gelu(x: ndarray) -> ndarray:
    """The exact GELU, x (1 + erf(x / sqrt 2)) / 2 = max(x, 0) - |x| erfc(|x| / sqrt 2) / 2.

    SciPy's erf takes as long to import as all else here; this one, by Abramowitz and Stegun (1964),
    formula 7.1.26, errs by 1.5e-7 at most.
    """
    size = np.abs(x)
    t = 1 / (1 + 0.3275911 / math.sqrt(2) * size)
    series = 1.421413741 + t * (-1.453152027 + t * 1.061405429)
    series = t * (0.254829592 + t * (-0.284496736 + t * series))
    return np.maximum(x, 0) - size / 2 * (series * np.exp(-size * size / 2))
