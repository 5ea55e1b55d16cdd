"""BERT from scratch, to be read from top to bottom (Devlin et al., 2019; Vaswani et al., 2017).

Letters used for shapes here and everywhere else in the library:

    B  sentences in the batch        A  attention heads
    L  tokens per sentence, padded   D  size of one head, H / A
    H  hidden size                   I  intermediate size of the feed-forward layer
    V  vocabulary size

This is the code that the trainer's default engine runs: an edit here changes the training.
Parameters keep the names of the public checkpoints, for instance
`encoder.layer.0.attention.self.query.weight`, so that those load without a translation.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtl_lib.errors import EncoderError

SIZES = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
)  # fmt: skip
ONLY = "is built here; wrap any other as an encoder of your own (see MultitaskModel)"


@dataclass(frozen=True)
class BertConfig:
    """Sizes and rates of an encoder, under the names of the public `config.json`.

    The defaults are those of bert-base-uncased.

    Raises:
        EncoderError: if a value is impossible or asks for something this file does not build.
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int = 0

    def __post_init__(self) -> None:
        for name in (*SIZES, "max_position_embeddings", "type_vocab_size"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise EncoderError(f"{name} is {value!r}; it must be a whole number above 0")
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
            if not 0 <= getattr(self, name) < 1:
                raise EncoderError(f"{name} is {getattr(self, name)}; it must lie in [0, 1)")
        epsilon = self.layer_norm_eps
        if not (isinstance(epsilon, float) and 0 < epsilon < 1):
            raise EncoderError(f"layer_norm_eps is {epsilon!r}; it must be a number in (0, 1)")
        if self.hidden_size % self.num_attention_heads:
            raise EncoderError(
                f"hidden_size {self.hidden_size} does not divide into "
                f"num_attention_heads {self.num_attention_heads}; choose a multiple"
            )
        if self.hidden_act != "gelu":
            raise EncoderError(f"hidden_act is {self.hidden_act!r}; only 'gelu' {ONLY}")
        if self.pad_token_id not in range(self.vocab_size):
            raise EncoderError(f"pad_token_id {self.pad_token_id} is no row of the vocabulary")


# What can stand for a whole sentence: the pooler's output (the paper's), the mean of its tokens'
# vectors, [CLS] and [SEP] included (Reimers and Gurevych, 2019), the vector of [CLS] as it is, or
# both of these side by side, twice as wide.
SENTENCE_VECTORS = ("pooler", "mean", "cls", "cls+mean")


class BertOutput(NamedTuple):
    """What the encoder returns: one vector per token, and one per sentence."""

    last_hidden_state: Tensor  # [B, L, H]
    pooler_output: Tensor  # [B, H]

    def sentence_vector(self, kind: str, attention_mask: Tensor) -> Tensor:
        """One of `SENTENCE_VECTORS`, padding left out: a mask `[B, L]` -> `[B, H]`, or `[B, 2H]`.

        Raises:
            ValueError: if there is no such kind.
        """
        if kind == "pooler":
            return self.pooler_output
        if kind == "cls":
            return self.last_hidden_state[:, 0]
        if kind not in SENTENCE_VECTORS:
            raise ValueError(f"sentence vector {kind!r}: choose from {SENTENCE_VECTORS}")
        tokens = attention_mask[:, :, None].to(self.last_hidden_state.dtype)  # [B, L, 1]
        mean = (self.last_hidden_state * tokens).sum(dim=1) / tokens.sum(dim=1)
        return mean if kind == "mean" else torch.cat([self.last_hidden_state[:, 0], mean], dim=1)


class BertEmbeddings(nn.Module):
    """Word + position + segment, then LayerNorm and dropout (Devlin et al., figure 2)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        H = config.hidden_size
        self.word_embeddings = nn.Embedding(config.vocab_size, H, padding_idx=config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, H)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, H)
        self.LayerNorm = nn.LayerNorm(H, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """`[B, L]` word ids, and 0 or 1 per token for the first or second segment -> `[B, L, H]`.

        Raises:
            EncoderError: if L exceeds the number of positions the encoder knows.
        """
        length = self.check_length(input_ids.shape[1])
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(input_ids)
        words = self.word_embeddings(input_ids)  # [B, L, H]
        places = torch.arange(length, device=input_ids.device)  # [L]
        positions = self.position_embeddings(places)  # [L, H]
        segments = self.token_type_embeddings(token_type_ids)  # [B, L, H]
        return self.dropout(self.LayerNorm(words + positions + segments))

    def check_length(self, length: int) -> int:
        """A length of L tokens, refused by an EncoderError if there are fewer positions."""
        positions = self.position_embeddings.num_embeddings
        if length > positions:
            raise EncoderError(
                f"a sentence, or a pair read together, has {length} tokens, but the encoder knows "
                f"{positions} positions; tokenise with a smaller max_length"
            )
        return length


def split_heads(x: Tensor, heads: int) -> Tensor:
    """Cut every token's vector into `heads` pieces: `[B, L, H]` -> `[B, A, L, D]`.

    The heads move in front of the tokens, so that each head attends on its own.
    """
    B, L, H = x.shape
    return x.view(B, L, heads, H // heads).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """Undo `split_heads`: `[B, A, L, D]` -> `[B, L, H]`."""
    return x.transpose(1, 2).flatten(start_dim=2)


def attention_scores(query: Tensor, key: Tensor) -> Tensor:
    """How well each query matches each key: q . k / sqrt(D), two `[B, A, L, D]` -> `[B, A, L, L]`.

    Without the root the scores' spread grows with D and the softmax saturates
    (Vaswani et al., section 3.2.1).
    """
    return query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])


def mask_scores(scores: Tensor, attention_mask: Tensor) -> Tensor:
    """Give padding tokens the lowest finite score, so that the softmax makes their weight 0.

    Args:
        scores: `[B, A, L, L]`, queries by keys.
        attention_mask: `[B, L]`, 1 for a token, 0 for padding; it hides keys, not queries.

    The lowest score is finite: over minus infinity a sentence of padding only would give NaN.
    """
    padding = attention_mask[:, None, None, :] == 0  # [B, 1, 1, L]
    return scores.masked_fill(padding, torch.finfo(scores.dtype).min)


class BertSelfAttention(nn.Module):
    """Multi-head self-attention, softmax(q k^T / sqrt(D)) v (Vaswani et al., equation 1)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = nn.Dropout(config.attention_probs_dropout_prob)

    def forward(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """`[B, L, H]` and a mask `[B, L]` -> `[B, L, H]`."""
        query = split_heads(self.query(hidden), self.heads)  # [B, A, L, D]
        key = split_heads(self.key(hidden), self.heads)  # [B, A, L, D]
        value = split_heads(self.value(hidden), self.heads)  # [B, A, L, D]
        scores = mask_scores(attention_scores(query, key), attention_mask)  # [B, A, L, L]
        probabilities = scores.softmax(dim=-1)  # over the keys: each query's row sums to 1
        context = self.dropout(probabilities) @ value  # [B, A, L, D]
        return merge_heads(context)  # [B, L, H]


class AddNorm(nn.Module):
    """LayerNorm(residual + dropout(dense(x))): the end of both halves of a layer.

    Dropout acts on the new part only; the residual passes untouched (Vaswani et al., section 5.4).
    """

    def __init__(self, size: int, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(size, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        """`[B, L, size]` and the residual `[B, L, H]` -> `[B, L, H]`."""
        return self.LayerNorm(residual + self.dropout(self.dense(x)))


class BertAttention(nn.Module):
    """First half of a layer: tokens look at each other, then add and norm."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.self = BertSelfAttention(config)
        self.output = AddNorm(config.hidden_size, config)

    def forward(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """`[B, L, H]` and a mask `[B, L]` -> `[B, L, H]`."""
        return self.output(self.self(hidden, attention_mask), hidden)


class BertIntermediate(nn.Module):
    """The widening of the feed-forward part, with the exact GELU (Hendrycks and Gimpel, 2016)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """`[B, L, H]` -> `[B, L, I]`."""
        return F.gelu(self.dense(hidden))


class BertLayer(nn.Module):
    """Attention, then the same feed-forward network on every token (Devlin et al., section 3)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.attention = BertAttention(config)
        self.intermediate = BertIntermediate(config)
        self.output = AddNorm(config.intermediate_size, config)

    def forward(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """`[B, L, H]` and a mask `[B, L]` -> `[B, L, H]`."""
        attended = self.attention(hidden, attention_mask)  # [B, L, H]
        return self.output(self.intermediate(attended), attended)  # [B, L, I] -> [B, L, H]


class BertEncoder(nn.Module):
    """The stack of layers."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(BertLayer(config) for _ in range(config.num_hidden_layers))

    def forward(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """`[B, L, H]` and a mask `[B, L]` -> `[B, L, H]`."""
        for layer in self.layer:
            hidden = layer(hidden, attention_mask)
        return hidden


class BertPooler(nn.Module):
    """The sentence vector: a linear layer and tanh on the first token, [CLS]."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """`[B, L, H]` -> `[B, H]`."""
        return torch.tanh(self.dense(hidden[:, 0]))


class BertModel(nn.Module):
    """The whole encoder: `pooler(encoder(embeddings(ids)))`.

    `embed` and `run_layers` are the two halves of `forward`, for those who step in between.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = BertEmbeddings(config)
        self.encoder = BertEncoder(config)
        self.pooler = BertPooler(config)
        self.apply(self._initialise)

    def _initialise(self, module: nn.Module) -> None:
        """Weights from N(0, initializer_range), biases 0, the padding word's row 0."""
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            nn.init.zeros_(module.weight[module.padding_idx])

    def embed(self, input_ids: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Finished embeddings, positions and LayerNorm included: `[B, L]` -> `[B, L, H]`."""
        return self.embeddings(input_ids, token_type_ids)

    def run_layers(self, embeddings: Tensor, attention_mask: Tensor) -> BertOutput:
        """Run the layers and the pooler on what `embed` returned; nothing is added again.

        Args:
            embeddings: `[B, L, H]`.
            attention_mask: `[B, L]`, 1 for a token, 0 for padding.

        Raises:
            ValueError: if the mask does not have one entry per token, since broadcasting would
                hide it.
        """
        if attention_mask.shape != embeddings.shape[:2]:
            raise ValueError(
                f"attention_mask is {tuple(attention_mask.shape)}, "
                f"but the embeddings need {tuple(embeddings.shape[:2])}"
            )
        hidden = self.encoder(embeddings, attention_mask)  # [B, L, H]
        return BertOutput(hidden, self.pooler(hidden))  # [B, L, H], [B, H]

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> BertOutput:
        """Encode a batch of padded sentences.

        Args:
            input_ids: word ids, `[B, L]`.
            attention_mask: `[B, L]`, 1 for a token, 0 for padding.
            token_type_ids: `[B, L]`, 0 or 1 for the first or second segment; None means all 0.

        Returns:
            `BertOutput` with `[B, L, H]` and `[B, H]`; rows at padding tokens carry no meaning.

        Raises:
            EncoderError: if L exceeds `max_position_embeddings`.
            ValueError: if the mask's shape is not `[B, L]`.
        """
        return self.run_layers(self.embed(input_ids, token_type_ids), attention_mask)
