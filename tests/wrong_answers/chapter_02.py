"""Answers to the exercises of chapter 02."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from wrong_answers.bank import Bank

bank = Bank()
wrong, right, WRONG, RIGHT = bank.wrong, bank.right, bank.WRONG, bank.RIGHT

# layer_norm


@right("layer_norm")
def with_var(x, weight, bias, eps=1e-12):
    mu = x.mean(-1, keepdim=True)
    var = x.var(-1, unbiased=False, keepdim=True)
    return weight * (x - mu) / torch.sqrt(var + eps) + bias


@right("layer_norm")
def squares_by_hand(x, weight, bias, eps=1e-12):
    h = x.shape[-1]
    centred = x - x.sum(dim=-1)[..., None] / h
    return centred * torch.rsqrt((centred**2).sum(-1, keepdim=True) / h + eps) * weight + bias


@right("layer_norm")
def torchs_module(x, weight, bias, eps=1e-12):
    module = nn.LayerNorm(x.shape[-1], eps=eps, elementwise_affine=False)
    return module(x) * weight + bias


@right("layer_norm")
def vector_by_vector(x, weight, bias, eps=1e-12):
    rows = [(r - r.mean()) / (r.var(correction=0) + eps) ** 0.5 for r in x.reshape(-1, x.shape[-1])]
    return torch.stack(rows).reshape(x.shape) * weight + bias


@wrong("layer_norm", "outside the root")
def eps_outside(x, weight, bias, eps=1e-12):
    c = x - x.mean(-1, keepdim=True)
    return c / ((c**2).mean(-1, keepdim=True) ** 0.5 + eps) * weight + bias


@wrong("layer_norm", "H - 1")
def default_var(x, weight, bias, eps=1e-12):
    return (x - x.mean(-1, True)) / (x.var(-1, keepdim=True) + eps).sqrt() * weight + bias


@wrong("layer_norm", "Two things")
def default_std(x, weight, bias, eps=1e-12):
    return weight * (x - x.mean(-1, True)) / (x.std(-1, keepdim=True) + eps) + bias


@wrong("layer_norm", "epsilon is missing")
def std_as_it_comes(x, weight, bias, eps=1e-12):
    return (x - x.mean(-1, True)) / x.std(-1, keepdim=True) * weight + bias


@wrong("layer_norm", "expected 'torch.float64'")
def into_zeros(x, weight, bias, eps=1e-12):
    rows = torch.zeros(x.shape).view(-1, x.shape[-1])
    for n, row in enumerate(x.reshape(rows.shape)):
        rows[n] = (row - row.mean()) / (row.var(correction=0) + eps).sqrt() * weight + bias
    return rows.view(x.shape)


@wrong("layer_norm", "expected 'torch.float32'")
def left_in_double(x, weight, bias, eps=1e-12):
    return F.layer_norm(x.double(), weight.shape, weight.double(), bias.double(), eps)


@wrong("layer_norm", "Epsilon is missing")
def no_eps(x, weight, bias, eps=1e-12):
    c = x - x.mean(-1, True)
    return c / c.pow(2).mean(-1, True).sqrt() * weight + bias


@wrong("layer_norm", "by the variance")
def no_root(x, weight, bias, eps=1e-12):
    c = x - x.mean(-1, True)
    return c / (c.pow(2).mean(-1, True) + eps) * weight + bias


@wrong("layer_norm", "all numbers together")
def over_everything(x, weight, bias, eps=1e-12):
    return (x - x.mean()) / torch.sqrt(x.var(correction=0) + eps) * weight + bias


@wrong("layer_norm", "over the first dimension")
def like_batch_norm(x, weight, bias, eps=1e-12):
    c = x - x.mean(0)
    return c / (c.pow(2).mean(0) + eps).sqrt() * weight + bias


@wrong("layer_norm", "not used")
def no_weight(x, weight, bias, eps=1e-12):
    c = x - x.mean(-1, True)
    return c / (c.pow(2).mean(-1, True) + eps).sqrt()


@wrong("layer_norm", "RMSNorm")
def rms(x, weight, bias, eps=1e-12):
    return x / (x.pow(2).mean(-1, True) + eps).sqrt() * weight + bias


@wrong("layer_norm", "torch's 1e-5")
def torchs_default(x, weight, bias, eps=1e-5):
    return F.layer_norm(x, x.shape[-1:], weight, bias, eps)


@wrong("layer_norm", None)
def eps_ignored(x, weight, bias, eps=1e-12):
    return F.layer_norm(x, x.shape[-1:], weight, bias, 1e-5)


@wrong("layer_norm", None)
def weight_after_bias(x, weight, bias, eps=1e-12):
    c = x - x.mean(-1, True)
    return (c / (c.pow(2).mean(-1, True) + eps).sqrt() + bias) * weight


@wrong("layer_norm", None)
def last_two_dimensions(x, weight, bias, eps=1e-12):
    dims = tuple(range(max(0, x.dim() - 2), x.dim()))
    c = x - x.mean(dims, True)
    return c / (c.pow(2).mean(dims, True) + eps).sqrt() * weight + bias


@wrong("layer_norm", None)
def variance_without_gradient(x, weight, bias, eps=1e-12):
    var = x.var(-1, correction=0, keepdim=True).detach()
    return (x - x.mean(-1, True)) / (var + eps).sqrt() * weight + bias


@wrong("layer_norm", "RuntimeError")
def no_keepdim(x, weight, bias, eps=1e-12):
    return (x - x.mean(-1)) / (x.var(-1, correction=0) + eps).sqrt() * weight + bias


@wrong("layer_norm", "cannot be called")
def eps_not_taken(x, weight, bias):
    return F.layer_norm(x, x.shape[-1:], weight, bias, 1e-12)


@wrong("layer_norm", "changes its input `x`")
def centred_in_place(x, weight, bias, eps=1e-12):
    x -= x.mean(-1, keepdim=True)
    return x / (x.pow(2).mean(-1, True) + eps).sqrt() * weight + bias


@wrong("layer_norm", "detached")
def numpy_norm(x, weight, bias, eps=1e-12):
    x, weight, bias = x.numpy(), weight.numpy(), bias.numpy()
    c = x - x.mean(-1, keepdims=True)
    return torch.from_numpy(c / np.sqrt(x.var(-1, keepdims=True) + eps) * weight + bias)


# LayerNorm


@right("LayerNorm")
class WithParameters(nn.Module):
    def __init__(self, size, eps=1e-12):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size))
        self.eps = eps

    def forward(self, x):
        c = x - x.mean(-1, keepdim=True)
        return c / (c.square().mean(-1, keepdim=True) + self.eps).sqrt() * self.weight + self.bias


@right("LayerNorm")
class RegisteredInDouble(nn.Module):
    def __init__(self, size, eps=1e-12):
        super().__init__()
        self.size, self.eps = (size,), eps
        self.register_parameter("weight", nn.Parameter(torch.full((size,), 1.0)))
        self.register_parameter("bias", nn.Parameter(torch.zeros(size)))

    def forward(self, x):
        weight, bias = self.weight.double(), self.bias.double()
        return F.layer_norm(x.double(), self.size, weight, bias, self.eps).to(x.dtype)


@right("LayerNorm")
class Inherited(nn.LayerNorm):
    def __init__(self, size, eps=1e-12):
        super().__init__(size, eps)


class Norm(nn.Module):
    """LayerNorm to start from, right."""

    start, spread = 1.0, staticmethod(lambda var, eps: (var + eps) ** 0.5)

    def __init__(self, size, eps=1e-12):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size) * self.start)
        self.bias = nn.Parameter(torch.zeros(size))
        self.eps = eps

    def forward(self, x):
        c, var = x - x.mean(-1, True), x.var(-1, correction=0, keepdim=True)
        return c / self.spread(var, self.eps) * self.weight + self.bias


@wrong("LayerNorm", "plain tensors")
class AttributesOnly(nn.Module):
    def __init__(self, size, eps=1e-12):
        super().__init__()
        self.weight, self.bias, self.eps = torch.ones(size), torch.zeros(size), eps

    forward = Norm.forward
    spread = staticmethod(Norm.spread)


@wrong("LayerNorm", "are buffers")
class Buffered(nn.Module):
    def __init__(self, size, eps=1e-12):
        super().__init__()
        self.register_buffer("weight", torch.ones(size))
        self.register_buffer("bias", torch.zeros(size))
        self.eps = eps

    forward = Norm.forward
    spread = staticmethod(Norm.spread)


@wrong("LayerNorm", "frozen")
class NeverLearns(Norm):
    def __init__(self, size, eps=1e-12):
        super().__init__(size, eps)
        self.requires_grad_(False)


@wrong("LayerNorm", "eps does not belong there")
class EpsilonKept(Norm):
    def __init__(self, size, eps=1e-12):
        super().__init__(size, eps)
        del self.eps
        self.register_buffer("eps", torch.tensor(eps))


@wrong("LayerNorm", "starts at 0")
class StartsAtZero(Norm):
    start = 0.0


@wrong("LayerNorm", "starts with random numbers")
class StartsAtRandom(Norm):
    def __init__(self, size, eps=1e-12):
        super().__init__(size, eps)
        self.weight = nn.Parameter(torch.randn(size))


@wrong("LayerNorm", "argument `eps` is not used")
class OwnEpsilon(Norm):
    def __init__(self, size, eps=1e-12):
        super().__init__(size)


@wrong("LayerNorm", "torch's 1e-5 where none")
class DefaultEpsilon(Norm):
    def __init__(self, size, eps=1e-5):
        super().__init__(size, eps)


@wrong("LayerNorm", "always torch's 1e-5")
class TorchsModule(nn.Module):
    def __init__(self, size, eps=1e-12):
        super().__init__()
        inner = nn.LayerNorm(size)
        self.weight, self.bias = inner.weight, inner.bias

    def forward(self, x):
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias)


@wrong("LayerNorm", "outside the root")
class EpsilonOutside(Norm):
    spread = staticmethod(lambda var, eps: var**0.5 + eps)


@wrong("LayerNorm", "gamma does not belong")
class OtherNames(nn.Module):
    def __init__(self, size, eps=1e-12):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(size)), nn.Parameter(torch.zeros(size))
        self.gamma = nn.Parameter(torch.ones(size))

    def forward(self, x):
        return F.layer_norm(x, x.shape[-1:], self.weight, self.bias, 1e-12)


@wrong("LayerNorm", "inner.weight does not belong there")
class InsideAModule(Norm):
    def __init__(self, size, eps=1e-12):
        super().__init__(size, eps)
        self.inner = nn.LayerNorm(size, eps)


@wrong("LayerNorm", None)
class OneNumberOnly(Norm):
    def __init__(self, size, eps=1e-12):
        super().__init__(size, eps)
        self.weight, self.bias = nn.Parameter(torch.ones(1)), nn.Parameter(torch.zeros(1))


@wrong("LayerNorm", "extends nn.Module")
class NoModule:
    def __init__(self, size, eps=1e-12):
        self.weight, self.bias = torch.ones(size), torch.zeros(size)


@wrong("LayerNorm", "not done yet")
class Unwritten(nn.Module):
    def __init__(self, size, eps=1e-12):
        super().__init__()
        raise NotImplementedError


@wrong("LayerNorm", "changes its input `x`")
class InPlace(Norm):
    def forward(self, x):
        value = super().forward(x.clone())
        x.data -= x.data.mean(-1, keepdim=True)
        return value


# wordpiece


@right("wordpiece")
def ends_downwards(word, vocabulary, unknown="[UNK]"):
    pieces, start = [], 0
    while start < len(word):
        mark = "##" if start > 0 else ""
        for end in range(len(word), start, -1):
            if mark + word[start:end] in vocabulary:
                pieces += [mark + word[start:end]]
                start = end
                break
        else:
            return [unknown]
    return pieces


@right("wordpiece")
def recursive(word, vocabulary, unknown="[UNK]", mark=""):
    if not word:
        return []
    end = next((n for n in range(len(word), 0, -1) if mark + word[:n] in vocabulary), None)
    if end is None:
        return [unknown]
    rest = recursive(word[end:], vocabulary, unknown, "##")
    return [unknown] if rest == [unknown] else [mark + word[:end], *rest]


@right("wordpiece")
def longest_of_all_entries(word, vocabulary, unknown="[UNK]"):
    pieces, left = [], word
    while left:
        text = "##" + left if pieces else left
        # An entry without anything behind its mark would stand still.
        fits = [e for e in vocabulary if text.startswith(e) and e.startswith("##") == bool(pieces)]
        if not fits:
            return [unknown]
        pieces.append(max(fits, key=len))
        left = text[len(pieces[-1]) :]
    return pieces


def _mark(start):
    return "##" if start else ""


@wrong("wordpiece", "takes the shortest")
def shortest_first(word, vocabulary, unknown="[UNK]"):
    pieces, start = [], 0
    while start < len(word):
        for end in range(start + 1, len(word) + 1):
            if _mark(start) + word[start:end] in vocabulary:
                pieces.append(_mark(start) + word[start:end])
                start = end
                break
        else:
            return [unknown]
    return pieces


@wrong("wordpiece", "keeps the pieces before")
def pieces_then_unknown(word, vocabulary, unknown="[UNK]"):
    pieces, start = [], 0
    while start < len(word):
        end = len(word)
        while end > start and _mark(start) + word[start:end] not in vocabulary:
            end -= 1
        if end == start:
            return [*pieces, unknown]
        pieces.append(_mark(start) + word[start:end])
        start = end
    return pieces


@wrong("wordpiece", "becomes unknown alone")
def letter_unknown(word, vocabulary, unknown="[UNK]"):
    pieces, start = [], 0
    while start < len(word):
        end = len(word)
        while end > start and _mark(start) + word[start:end] not in vocabulary:
            end -= 1
        pieces.append(_mark(start) + word[start:end] if end > start else unknown)
        start = max(end, start + 1)
    return pieces


@wrong("wordpiece", "goes back")
def tries_everything(word, vocabulary, unknown="[UNK]"):
    def cuts(left, mark):
        if left == "":
            yield []
        for end in range(len(left), 0, -1):
            if mark + left[:end] in vocabulary:
                for others in cuts(left[end:], "##"):
                    yield [mark + left[:end], *others]

    return next(cuts(word, ""), [unknown])


@wrong("wordpiece", "The ## is missing")
def without_mark(word, vocabulary, unknown="[UNK]"):
    pieces = []
    while word:
        end = next((n for n in range(len(word), 0, -1) if word[:n] in vocabulary), 0)
        if not end:
            return [unknown]
        pieces, word = [*pieces, word[:end]], word[end:]
    return pieces


@wrong("wordpiece", "look them up with it")
def marked_afterwards(word, vocabulary, unknown="[UNK]"):
    pieces = without_mark(word, vocabulary, unknown)
    return [pieces[0], *("##" + piece for piece in pieces[1:])]


@wrong("wordpiece", "written without it")
def mark_taken_off(word, vocabulary, unknown="[UNK]"):
    return [piece.removeprefix("##") for piece in ends_downwards(word, vocabulary, unknown)]


@wrong("wordpiece", "argument `unknown` is not used")
def always_unk(word, vocabulary, unknown="[UNK]"):
    return ends_downwards(word, vocabulary)


@wrong("wordpiece", "return a list")
def unknown_as_text(word, vocabulary, unknown="[UNK]"):
    pieces = ends_downwards(word, vocabulary, unknown)
    return unknown if pieces == [unknown] else pieces


@wrong("wordpiece", "from the word's end")
def from_the_end(word, vocabulary, unknown="[UNK]"):
    pieces, end = [], len(word)
    while end:
        start = next((s for s in range(end) if _mark(s) + word[s:end] in vocabulary), None)
        if start is None:
            return [unknown]
        pieces.insert(0, _mark(start) + word[start:end])
        end = start
    return pieces


@wrong("wordpiece", None)
def whole_words_only(word, vocabulary, unknown="[UNK]"):
    return [word if word in vocabulary else unknown]


# Embeddings


class Embedded(nn.Module):
    """Embeddings to start from, right; what a wrong answer changes is a method of its own."""

    def __init__(self, config):
        super().__init__()
        size = config.hidden_size
        pad = config.pad_token_id
        self.word_embeddings = nn.Embedding(config.vocab_size, size, padding_idx=pad)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, size)
        self.LayerNorm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def words(self, ids):
        return self.word_embeddings(ids)

    def places(self, ids):
        return self.position_embeddings(torch.arange(ids.shape[1]))

    def kinds(self, ids, types):
        return self.token_type_embeddings(torch.zeros_like(ids) if types is None else types)

    def finish(self, words, places, kinds):
        return self.dropout(self.LayerNorm(words + places + kinds))

    def forward(self, input_ids, token_type_ids=None):
        words, places = self.words(input_ids), self.places(input_ids)
        return self.finish(words, places, self.kinds(input_ids, token_type_ids))


right("Embeddings")(Embedded)


@right("Embeddings")
class FirstRows(Embedded):
    def places(self, ids):
        return self.position_embeddings.weight[None, : ids.size(-1)]

    def finish(self, words, places, kinds):
        return F.dropout(self.LayerNorm(kinds + places + words), self.dropout.p, self.training)


@right("Embeddings")
class ExpandedPositions(Embedded):
    def places(self, ids):
        return self.position_embeddings(torch.arange(ids.shape[1]).expand_as(ids))

    def kinds(self, ids, types):
        types = ids * 0 if types is None else types
        return F.one_hot(types, 2).float() @ self.token_type_embeddings.weight


@right("Embeddings")
class PlacesKept(Embedded):
    def __init__(self, config):
        super().__init__(config)
        places = torch.arange(config.max_position_embeddings)
        self.register_buffer("position_ids", places, persistent=False)

    def places(self, ids):
        return self.position_embeddings(self.position_ids[: ids.shape[1]])


@wrong("Embeddings", "persistent=False")
class PlacesInTheCheckpoint(Embedded):
    def __init__(self, config):
        super().__init__(config)
        places = torch.arange(config.max_position_embeddings).expand((1, -1))
        self.register_buffer("position_ids", places)

    def places(self, ids):
        return self.position_embeddings(self.position_ids[:, : ids.shape[1]])


@wrong("Embeddings", "rate is that of attention")
class RateOfAttention(Embedded):
    def __init__(self, config):
        super().__init__(config)
        self.dropout = nn.Dropout(config.attention_probs_dropout_prob)


@wrong("Embeddings", "left at 0")
class FirstSegmentOnly(Embedded):
    def kinds(self, ids, types):
        return self.token_type_embeddings(torch.zeros_like(ids))


@wrong("Embeddings", "segments are missing from the sum")
class NoSegments(Embedded):
    def kinds(self, ids, types):
        return 0


@wrong("Embeddings", "Where no segments are given")
class SegmentsIfGiven(Embedded):
    def kinds(self, ids, types):
        return 0 if types is None else self.token_type_embeddings(types)


@wrong("Embeddings", "positions are missing")
class NoPositions(Embedded):
    def places(self, ids):
        return 0


@wrong("Embeddings", "added twice")
class PositionsTwice(Embedded):
    def finish(self, words, places, kinds):
        return super().finish(words + places, places, kinds)


@wrong("Embeddings", "square root of H")
class WordsTimesRoot(Embedded):
    def words(self, ids):
        return self.word_embeddings(ids) * self.word_embeddings.embedding_dim**0.5


@wrong("Embeddings", "position and LayerNorm a second time")
class FinishedThenAgain(Embedded):
    def finish(self, words, places, kinds):
        return self.dropout(self.LayerNorm(self.LayerNorm(words + places + kinds) + places))


@wrong("Embeddings", "LayerNorm is missing")
class PlainSum(Embedded):
    def finish(self, words, places, kinds):
        return self.dropout(words + places + kinds)


@wrong("Embeddings", "on the words alone")
class NormTooEarly(Embedded):
    def finish(self, words, places, kinds):
        return self.dropout(self.LayerNorm(words) + places + kinds)


@wrong("Embeddings", "on each of the three alone")
class NormOfEachPart(Embedded):
    def finish(self, words, places, kinds):
        return self.dropout(self.LayerNorm(words) + self.LayerNorm(places) + self.LayerNorm(kinds))


@wrong("Embeddings", "count from 1")
class PositionsFromOne(Embedded):
    def places(self, ids):
        return self.position_embeddings(torch.arange(1, ids.shape[1] + 1))


@wrong("Embeddings", "exchanged")
class SegmentsExchanged(Embedded):
    def kinds(self, ids, types):
        return super().kinds(ids, None if types is None else 1 - types)


@wrong("Embeddings", "not handed to LayerNorm")
class NormWithItsDefault(Embedded):
    def __init__(self, config):
        super().__init__(config)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=1e-12)


@wrong("Embeddings", "torch's 1e-5")
class TorchsNorm(Embedded):
    def __init__(self, config):
        super().__init__(config)
        self.LayerNorm = nn.LayerNorm(config.hidden_size)


@wrong("Embeddings", "never applied")
class NoDropout(Embedded):
    def finish(self, words, places, kinds):
        return self.LayerNorm(words + places + kinds)


@wrong("Embeddings", "before LayerNorm")
class DropoutOnSum(Embedded):
    def finish(self, words, places, kinds):
        return self.LayerNorm(self.dropout(words + places + kinds))


@wrong("Embeddings", "also acts in evaluation")
class AlwaysDrops(Embedded):
    def finish(self, words, places, kinds):
        return F.dropout(self.LayerNorm(words + places + kinds), self.dropout.p)


@wrong("Embeddings", "padding_idx is missing")
class PaddingTrained(Embedded):
    def __init__(self, config):
        super().__init__(config)
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)


@wrong("Embeddings", None)
class PositionOfTheRow(Embedded):
    def places(self, ids):
        return self.position_embeddings(torch.arange(len(ids)))[:, None]


@wrong("Embeddings", None)
class PaddingZeroed(Embedded):
    def words(self, ids):
        return self.word_embeddings(ids) * (ids != 0)[..., None]


@wrong("Embeddings", None)
class Averaged(Embedded):
    def finish(self, words, places, kinds):
        return self.dropout(self.LayerNorm((words + places + kinds) / 3 + 1e-3 * words))


@wrong("Embeddings", "RuntimeError")
class AllPositions(Embedded):
    def places(self, ids):
        return self.position_embeddings.weight


@wrong("Embeddings", "token_type_embeddings.weight is missing")
class OtherTableNames(Embedded):
    def __init__(self, config):
        super().__init__(config)
        self.segment_embeddings = self.token_type_embeddings
        del self.token_type_embeddings


@wrong("Embeddings", "expected '9 x 8'")
class TurnedTable(Embedded):
    def __init__(self, config):
        super().__init__(config)
        self.position_embeddings = nn.Embedding(config.hidden_size, config.max_position_embeddings)


@wrong("Embeddings", "missing 1 required positional argument")
class SegmentsRequired(Embedded):
    def forward(self, input_ids, token_type_ids):
        return super().forward(input_ids, token_type_ids)


# AddNorm, Attention, FeedForward, Layer, Encoder, Pooler, Bert


class Added(nn.Module):
    """Add and norm to start from, right."""

    def __init__(self, size, config):
        super().__init__()
        self.dense = nn.Linear(size, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, x, residual):
        return self.LayerNorm(residual + self.dropout(self.dense(x)))


right("AddNorm")(Added)


@right("AddNorm")
class AddedWithFunctions(Added):
    def forward(self, x, residual):
        new = F.linear(x, self.dense.weight, self.dense.bias)
        total = F.dropout(new, self.dropout.p, self.training).add(residual)
        norm = self.LayerNorm
        return F.layer_norm(total, total.shape[-1:], norm.weight, norm.bias, norm.eps)


@wrong("AddNorm", "falls on the sum")
class DropsTheSum(Added):
    def forward(self, x, residual):
        return self.LayerNorm(self.dropout(self.dense(x) + residual))


@wrong("AddNorm", "before the linear layer")
class DropsTheInput(Added):
    def forward(self, x, residual):
        return self.LayerNorm(self.dense(self.dropout(x)) + residual)


@wrong("AddNorm", "never applied")
class DropsNothing(Added):
    def forward(self, x, residual):
        return self.LayerNorm(self.dense(x) + residual)


@wrong("AddNorm", "residual is not added")
class AddsNothing(Added):
    def forward(self, x, residual):
        return self.LayerNorm(self.dropout(self.dense(x)))


@wrong("AddNorm", "on the new part alone")
class NormsTheNewPart(Added):
    def forward(self, x, residual):
        return residual + self.LayerNorm(self.dropout(self.dense(x)))


@wrong("AddNorm", "not handed to LayerNorm")
class IgnoresTheConfigsEpsilon(Added):
    def __init__(self, size, config):
        super().__init__(size, config)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=1e-12)


@wrong("AddNorm", "torch's 1e-5")
class TorchsEpsilon(Added):
    def __init__(self, size, config):
        super().__init__(size, config)
        self.LayerNorm = nn.LayerNorm(config.hidden_size)


@wrong("AddNorm", "rate is that of attention")
class AttentionsRate(Added):
    def __init__(self, size, config):
        super().__init__(size, config)
        self.dropout = nn.Dropout(config.attention_probs_dropout_prob)


@wrong("AddNorm", "also acts in evaluation")
class DropsAlways(Added):
    def forward(self, x, residual):
        return self.LayerNorm(residual + F.dropout(self.dense(x), self.dropout.p))


@wrong("AddNorm", "expected '8 x 5'")
class SquareOnly(Added):
    def __init__(self, size, config):
        super().__init__(config.hidden_size, config)


@wrong("AddNorm", None)
class FixedRate(Added):
    def __init__(self, size, config):
        super().__init__(size, config)
        self.dropout = nn.Dropout(0.1)


@wrong("AddNorm", None)
class ResidualTwice(Added):
    def forward(self, x, residual):
        return super().forward(x, 2 * residual)


class Looks(nn.Module):
    """Self-attention, right."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.query, self.key, self.value = (
            nn.Linear(config.hidden_size, config.hidden_size) for _ in range(3)
        )

    def forward(self, hidden, attention_mask):
        q, k, v = (
            f(hidden).unflatten(-1, (self.config.num_attention_heads, -1)).transpose(1, 2)
            for f in (self.query, self.key, self.value)
        )
        s = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        s = s.masked_fill(attention_mask[:, None, None] == 0, -1e9)
        return (s.softmax(-1) @ v).transpose(1, 2).flatten(2)


class Half(nn.Module):
    """The first half of a layer to start from, right."""

    def __init__(self, config):
        super().__init__()
        self.self = Looks(config)
        self.output = Added(config.hidden_size, config)

    def forward(self, hidden, attention_mask):
        return self.output(self.self(hidden, attention_mask), hidden)


right("Attention")(Half)


@right("Attention")
class HalfByNames(Half):
    def forward(self, hidden, attention_mask):
        new = self.self(hidden=hidden, attention_mask=attention_mask)
        return self.output(residual=hidden.clone(), x=new)


@wrong("Attention", "mask does not reach")
class HalfWithoutMask(Half):
    def forward(self, hidden, attention_mask):
        return self.output(self.self(hidden, torch.ones_like(attention_mask)), hidden)


@wrong("Attention", "exchanged")
class HalfExchanged(Half):
    def forward(self, hidden, attention_mask):
        return self.output(hidden, self.self(hidden, attention_mask))


@wrong("Attention", "Add and norm is missing")
class HalfUnfinished(Half):
    def forward(self, hidden, attention_mask):
        return self.self(hidden, attention_mask)


@wrong("Attention", "second time")
class HalfAddsTwice(Half):
    def forward(self, hidden, attention_mask):
        return super().forward(hidden, attention_mask) + hidden


@wrong("Attention", "turned round")
class HalfTurnedMask(Half):
    def forward(self, hidden, attention_mask):
        return super().forward(hidden, 1 - attention_mask)


@wrong("Attention", "new part once more")
class HalfOwnResidual(Half):
    def forward(self, hidden, attention_mask):
        new = self.self(hidden, attention_mask)
        return self.output(new, new)


@wrong("Attention", "self.query.weight is missing")
class HalfOtherNames(Half):
    def __init__(self, config):
        super().__init__(config)
        self.attention = self.self
        del self.self


@wrong("Attention", None)
class HalfResidualDetached(Half):
    def forward(self, hidden, attention_mask):
        return self.output(self.self(hidden, attention_mask), hidden.detach())


class Wide(nn.Module):
    """The wide part to start from, right."""

    def __init__(self, config):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)

    def forward(self, hidden):
        return nn.GELU()(self.dense(hidden))


right("FeedForward")(Wide)


@right("FeedForward")
class WideByHand(Wide):
    def forward(self, hidden):
        x = self.dense(hidden)
        return x * 0.5 * (1 + torch.erf(x / 2**0.5))


@wrong("FeedForward", "ReLU")
class WideReLU(Wide):
    def forward(self, hidden):
        return self.dense(hidden).clamp(min=0)


@wrong("FeedForward", "approximation of GELU")
class WideAlmost(Wide):
    def forward(self, hidden):
        x = self.dense(hidden)
        return 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)))


@wrong("FeedForward", "activation is missing")
class WideLinear(Wide):
    def forward(self, hidden):
        return self.dense(hidden)


@wrong("FeedForward", "before the linear layer")
class WideEarly(Wide):
    def forward(self, hidden):
        return self.dense(F.gelu(hidden))


@wrong("FeedForward", "Dropout does not belong")
class WideDrops(Wide):
    def forward(self, hidden):
        return F.dropout(super().forward(hidden), 0.5, self.training)


@wrong("FeedForward", None)
class WideTwice(Wide):
    def forward(self, hidden):
        return F.gelu(super().forward(hidden))


@wrong("FeedForward", "expected '12 x 8'")
class WideFourTimes(Wide):
    def __init__(self, config):
        super().__init__(config)
        self.dense = nn.Linear(config.hidden_size, 4 * config.hidden_size)


@wrong("FeedForward", "wide.weight does not belong there")
class WideAndBack(Wide):
    def __init__(self, config):
        super().__init__(config)
        self.wide = nn.Linear(config.intermediate_size, config.hidden_size)


class Both(nn.Module):
    """A layer to start from, right."""

    def __init__(self, config):
        super().__init__()
        self.attention = Half(config)
        self.intermediate = Wide(config)
        self.output = Added(config.intermediate_size, config)

    def forward(self, hidden, attention_mask):
        attended = self.attention(hidden, attention_mask)
        return self.output(self.intermediate(attended), attended)


right("Layer")(Both)


@right("Layer")
class BothOneName(Both):
    def forward(self, x, mask):
        x = self.attention(x, mask)
        return self.output(residual=x, x=self.intermediate(x))


@wrong("Layer", "residual of the second half")
class BothOldResidual(Both):
    def forward(self, hidden, attention_mask):
        attended = self.attention(hidden, attention_mask)
        return self.output(self.intermediate(attended), hidden)


@wrong("Layer", "works on the layer's input")
class BothOldInput(Both):
    def forward(self, hidden, attention_mask):
        attended = self.attention(hidden, attention_mask)
        return self.output(self.intermediate(hidden), attended)


@wrong("Layer", "mask does not reach")
class BothWithoutMask(Both):
    def forward(self, hidden, attention_mask):
        return super().forward(hidden, torch.ones_like(attention_mask))


@wrong("Layer", "Attention is never called")
class BothWithoutAttention(Both):
    def forward(self, hidden, attention_mask):
        return self.output(self.intermediate(hidden), hidden)


@wrong("Layer", "feed-forward half is missing")
class BothUnfinished(Both):
    def forward(self, hidden, attention_mask):
        return self.attention(hidden, attention_mask)


@wrong("Layer", "added once more")
class BothAddsTwice(Both):
    def forward(self, hidden, attention_mask):
        return super().forward(hidden, attention_mask) + hidden


@wrong("Layer", "twice, one after the other")
class BothAttendTwice(Both):
    def forward(self, hidden, attention_mask):
        return super().forward(self.attention(hidden, attention_mask), attention_mask)


@wrong("Layer", None)
class BothFeedTwice(Both):
    def forward(self, hidden, attention_mask):
        x = super().forward(hidden, attention_mask)
        return self.output(self.intermediate(x), x)


@wrong("Layer", "is missing")
class BothOneAddNorm(Both):
    def __init__(self, config):
        super().__init__(config)
        del self.output
        self.finish = self.attention.output


class Stacked(nn.Module):
    """The stack of layers to start from, right."""

    def __init__(self, config):
        super().__init__()
        self.layer = nn.ModuleList([Both(config) for _ in range(config.num_hidden_layers)])

    def forward(self, hidden, attention_mask):
        for layer in self.layer:
            hidden = layer(hidden, attention_mask)
        return hidden


right("Encoder")(Stacked)


@right("Encoder")
class StackedByNumber(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.layer = nn.ModuleList()
        for _ in range(config.num_hidden_layers):
            self.layer.append(Both(config))

    def forward(self, x, mask):
        stages = [x]
        for n in range(len(self.layer)):
            stages.append(self.layer[n](stages[-1], mask))
        return stages[-1]


@wrong("Encoder", "plain list")
class StackedInAList(Stacked):
    def __init__(self, config):
        nn.Module.__init__(self)
        self.layer = [Both(config) for _ in range(config.num_hidden_layers)]


@wrong("Encoder", "One layer stands in the list")
class StackedCopies(Stacked):
    def __init__(self, config):
        nn.Module.__init__(self)
        layer = Both(config)
        self.layer = nn.ModuleList([layer for _ in range(config.num_hidden_layers)])


@wrong("Encoder", "gets the encoder's input")
class StackedSideBySide(Stacked):
    def forward(self, hidden, attention_mask):
        return [layer(hidden, attention_mask) for layer in self.layer][-1]


@wrong("Encoder", "from the last to the first")
class StackedUpsideDown(Stacked):
    def forward(self, hidden, attention_mask):
        for layer in list(self.layer)[::-1]:
            hidden = layer(hidden, attention_mask)
        return hidden


@wrong("Encoder", "after the first layer")
class StackedReturnsEarly(Stacked):
    def forward(self, hidden, attention_mask):
        for layer in self.layer:
            hidden = layer(hidden, attention_mask)
            return hidden


@wrong("Encoder", "mask does not reach")
class StackedWithoutMask(Stacked):
    def forward(self, hidden, attention_mask):
        return super().forward(hidden, attention_mask.new_ones(attention_mask.shape))


@wrong("Encoder", None)
class StackedAllStages(Stacked):
    def forward(self, hidden, attention_mask):
        stages = [hidden]
        for layer in self.layer:
            stages.append(layer(stages[-1], attention_mask))
        return stages


@wrong("Encoder", None)
class StackedSum(Stacked):
    def forward(self, hidden, attention_mask):
        for layer in self.layer:
            hidden = hidden + layer(hidden, attention_mask)
        return hidden


@wrong("Encoder", "layers.0")
class StackedOtherName(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.layer = nn.ModuleList([Both(config) for _ in range(config.num_hidden_layers)])
        self.layers = nn.ModuleList([Both(config)])


class First(nn.Module):
    """The pooler to start from, right."""

    def __init__(self, config):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden):
        return self.dense(hidden[:, 0]).tanh()


right("Pooler")(First)


@right("Pooler")
class AllThenFirst(First):
    def forward(self, hidden):
        return torch.tanh(self.dense(hidden))[:, 0, :]


@right("Pooler")
class SqueezesTheToken(First):
    def forward(self, hidden):
        return self.dense(hidden[:, :1]).tanh().squeeze(1)


@wrong("Pooler", "batch dimension is lost")
class SqueezesEverything(First):
    def forward(self, hidden):
        return self.dense(hidden[:, :1]).tanh().squeeze()


@wrong("Pooler", "mean of all tokens")
class PoolsMean(First):
    def forward(self, hidden):
        return self.dense(hidden.mean(1)).tanh()


@wrong("Pooler", "last token")
class PoolsLast(First):
    def forward(self, hidden):
        return self.dense(hidden[:, -1]).tanh()


@wrong("Pooler", "first sentence")
class PoolsFirstSentence(First):
    def forward(self, hidden):
        return self.dense(hidden[0]).tanh()


@wrong("Pooler", "tanh is missing")
class PoolsLinearly(First):
    def forward(self, hidden):
        return self.dense(hidden[:, 0])


@wrong("Pooler", "before the linear layer")
class PoolsTooEarly(First):
    def forward(self, hidden):
        return self.dense(hidden[:, 0].tanh())


@wrong("Pooler", "linear layer is not used")
class PoolsWithoutLinear(First):
    def forward(self, hidden):
        return hidden[:, 0].tanh()


@wrong("Pooler", "a vector for every token")
class PoolsEverything(First):
    def forward(self, hidden):
        return self.dense(hidden).tanh()


@wrong("Pooler", None)
class PoolsWithGelu(First):
    def forward(self, hidden):
        return F.gelu(self.dense(hidden[:, 0]))


@wrong("Pooler", None)
class PoolsMaximum(First):
    def forward(self, hidden):
        return self.dense(hidden.amax(dim=1)).tanh()


class Whole(nn.Module):
    """BERT to start from, right."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embeddings = Embedded(config)
        self.encoder = Stacked(config)
        self.pooler = First(config)
        self.apply(self.start)

    def start(self, module):
        if isinstance(module, nn.Linear | nn.Embedding):
            module.weight.data.normal_(0.0, self.config.initializer_range)
        if isinstance(module, nn.Linear):
            module.bias.data.zero_()

    def forward(self, input_ids, attention_mask, token_type_ids=None):
        hidden = self.encoder(self.embeddings(input_ids, token_type_ids), attention_mask)
        return hidden, self.pooler(hidden)


right("Bert")(Whole)


@right("Bert")
class WholeInSteps(Whole):
    def start(self, module):
        for name, parameter in module.named_parameters(recurse=False):
            if isinstance(module, nn.LayerNorm):
                continue
            value = torch.randn_like(parameter) * self.config.initializer_range
            parameter.data = torch.zeros_like(value) if name == "bias" else value

    def forward(self, input_ids, attention_mask, token_type_ids=None):
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(input_ids)
        x = self.embeddings(input_ids, token_type_ids)
        for layer in self.encoder.layer:
            x = layer(x, attention_mask)
        return [x, self.pooler(x)]


@wrong("Bert", "segments do not reach")
class WholeWithoutSegments(Whole):
    def forward(self, input_ids, attention_mask, token_type_ids=None):
        return super().forward(input_ids, attention_mask)


@wrong("Bert", "mask does not reach")
class WholeWithoutMask(Whole):
    def forward(self, input_ids, attention_mask, token_type_ids=None):
        return super().forward(input_ids, torch.ones_like(input_ids), token_type_ids)


@wrong("Bert", "pooler works on the embeddings")
class WholePoolsEarly(Whole):
    def forward(self, input_ids, attention_mask, token_type_ids=None):
        x = self.embeddings(input_ids, token_type_ids)
        return self.encoder(x, attention_mask), self.pooler(x)


@wrong("Bert", "exchanged")
class WholeExchanged(Whole):
    def forward(self, *inputs):
        hidden, pooled = super().forward(*inputs)
        return pooled, hidden


@wrong("Bert", "Only the sentences' vectors")
class WholePooledOnly(Whole):
    def forward(self, *inputs):
        return super().forward(*inputs)[1]


@wrong("Bert", "Only the tokens' vectors")
class WholeHiddenOnly(Whole):
    def forward(self, *inputs):
        return super().forward(*inputs)[0]


@wrong("Bert", "keep torch's own start")
class WholeUnstarted(Whole):
    def start(self, module):
        pass


@wrong("Bert", "always start with the spread 0.02")
class WholeFixedSpread(Whole):
    def start(self, module):
        if isinstance(module, nn.Linear | nn.Embedding):
            module.weight.data.normal_(0.0, 0.02)
        if isinstance(module, nn.Linear):
            module.bias.data.zero_()


@wrong("Bert", "All parameters are drawn")
class WholeAllDrawn(Whole):
    def start(self, module):
        for parameter in module.parameters(recurse=False):
            parameter.data.normal_(0.0, self.config.initializer_range)


@wrong("Bert", "Float and Double")
class WholeInSinglePrecision(Whole):
    def forward(self, input_ids, attention_mask, token_type_ids=None):
        embedded = self.embeddings(input_ids, token_type_ids).float()
        hidden = self.encoder(embedded, attention_mask)
        return hidden, self.pooler(hidden)


@wrong("Bert", None)
class WholeBiasesLeft(Whole):
    def start(self, module):
        if isinstance(module, nn.Linear | nn.Embedding):
            module.weight.data.normal_(0.0, self.config.initializer_range)


@wrong("Bert", "no attribute 'config'")
class WholeWithoutConfig(Whole):
    def __init__(self, config):
        super().__init__(config)
        del self.config


@wrong("Bert", None)
class WholeEmbedsTwice(Whole):
    def forward(self, input_ids, attention_mask, token_type_ids=None):
        x = self.embeddings(input_ids, token_type_ids)
        x = self.embeddings.LayerNorm(x + self.embeddings.places(input_ids))
        x = self.encoder(x, attention_mask)
        return x, self.pooler(x)


# run_layer


@right("run_layer")
def calls_the_parts(layer, hidden, attention_mask, heads):
    attended = layer.attention(hidden, attention_mask)
    return layer.output(layer.intermediate(attended), attended)


@right("run_layer")
def with_torchs_attention(layer, hidden, attention_mask, heads):
    return _by_hand(layer, hidden, attention_mask, heads)


def _by_hand(layer, hidden, mask, heads, scale=None, queries=False, gelu="none", old=False):
    part = layer.attention.self
    q, k, v = (
        f(hidden).unflatten(-1, (heads, -1)).transpose(1, 2)
        for f in (part.query, part.key, part.value)
    )
    s = torch.einsum("bhqd,bhkd->bhqk", q, k) / (scale or q.shape[-1]) ** 0.5
    s = s + (mask[:, None, :, None] if queries else mask[:, None, None]).sub(1) * 1e9
    x = torch.einsum("bhqk,bhkd->bqhd", s.softmax(-1), v).flatten(2)
    x = layer.attention.output.LayerNorm(layer.attention.output.dense(x) + hidden)
    wide = F.gelu(layer.intermediate.dense(x), approximate=gelu)
    return layer.output.LayerNorm(layer.output.dense(wide) + (hidden if old else x))


@wrong("run_layer", "All four are left")
def as_it_was_found(layer, hidden, attention_mask, heads):
    return _by_hand(layer, hidden, attention_mask, heads, hidden.shape[-1], True, "tanh", True)


@wrong(
    "run_layer",
    "Two faults are left. On the data's way through the layer, the next to meet is in the mask",
)
def scale_and_residual_mended(layer, hidden, attention_mask, heads):
    return _by_hand(layer, hidden, attention_mask, heads, None, True, "tanh")


@wrong(
    "run_layer",
    "One fault is left. On the data's way through the layer, the next to meet is in the feed",
)
def gelu_left(layer, hidden, attention_mask, heads):
    return _by_hand(layer, hidden, attention_mask, heads, gelu="tanh")


@wrong(
    "run_layer",
    "One fault is left. On the data's way through the layer, the next to meet is in the last",
)
def residual_left(layer, hidden, attention_mask, heads):
    return _by_hand(layer, hidden, attention_mask, heads, old=True)


@wrong("run_layer", None)
def worse_than_before(layer, hidden, attention_mask, heads):
    return _by_hand(layer, hidden, attention_mask, heads, scale=1)


@wrong("run_layer", None)
def gives_its_input(layer, hidden, attention_mask, heads):
    return hidden


# add_norm


@right("add_norm")
def step_by_step(x, residual, dense, dropout, norm):
    new = dense(x)
    new = dropout(new)
    return norm(new + residual)


@right("add_norm")
def flattened(x, residual, dense, dropout, norm):
    new = dropout(dense(x.reshape(-1, x.shape[-1])))
    return norm(residual.reshape(new.shape) + new).view(residual.shape)


@right("add_norm")
def with_torch_add(x, residual, dense, dropout, norm):
    return norm(torch.add(input=residual, other=dropout(dense(x)), alpha=1))


@wrong("add_norm", "Dropout falls on the sum")
def dropout_on_sum(x, residual, dense, dropout, norm):
    return norm(dropout(dense(x) + residual))


@wrong("add_norm", "before the linear layer")
def dropout_on_input(x, residual, dense, dropout, norm):
    return norm(dense(dropout(x)) + residual)


@wrong("add_norm", "on the residual")
def dropout_on_residual(x, residual, dense, dropout, norm):
    dropped = dropout(residual)
    return norm(dropped + dense(x))


@wrong("add_norm", "never applied")
def no_dropout(x, residual, dense, dropout, norm):
    return norm(dense(x).add(residual))


@wrong("add_norm", "comes last")
def dropout_last(x, residual, dense, dropout, norm):
    return dropout(norm(dense(x) + residual))


@wrong("add_norm", "The residual is not added")
def no_residual(x, residual, dense, dropout, norm):
    return norm(dropout(dense(x)))


@wrong("add_norm", "on the new part alone")
def norm_before_sum(x, residual, dense, dropout, norm):
    return norm(dropout(dense(x))) + residual


@wrong("add_norm", "LayerNorm is missing")
def no_norm(x, residual, dense, dropout, norm):
    return dropout(dense(x)) + residual


@wrong("add_norm", None)
def pre_norm(x, residual, dense, dropout, norm):
    if x.shape != residual.shape:
        return norm(residual + dropout(dense(x)))
    return residual + dropout(dense(norm(x)))


@wrong("add_norm", None)
def residual_twice(x, residual, dense, dropout, norm):
    return norm(2 * residual + dropout(dense(x)))


@wrong("add_norm", None)
def own_dropout(x, residual, dense, dropout, norm):
    return norm(residual + F.dropout(dense(x), 0.1))


@wrong("add_norm", None)
def own_norm(x, residual, dense, dropout, norm):
    y = residual + dropout(dense(x))
    return F.layer_norm(y, y.shape[-1:])


@wrong("add_norm", "RuntimeError")
def no_dense(x, residual, dense, dropout, norm):
    return norm(residual + dropout(x))


@wrong("add_norm", "changes its input `residual`")
def adds_in_place(x, residual, dense, dropout, norm):
    residual += dropout(dense(x))
    return norm(residual)


@wrong("add_norm", None)
def residual_detached(x, residual, dense, dropout, norm):
    return norm(residual.detach() + dropout(dense(x)))


@wrong("add_norm", None)
def roles_exchanged_where_they_fit(x, residual, dense, dropout, norm):
    if x.shape == residual.shape:
        x, residual = residual, x
    return norm(residual + dropout(dense(x)))


# load_public


def _own_name(name):
    name = name[5:] if name.startswith("bert.") else name
    return name.replace(".gamma", ".weight").replace(".beta", ".bias")


@right("load_public")
def through_load_state_dict(model, public):
    state = {_own_name(n): t for n, t in public.items()}
    for n in [n for n in state if n.startswith("cls.") or n == "embeddings.position_ids"]:
        del state[n]
    model.load_state_dict(state)


@right("load_public")
def copies_and_compares_names(model, public):
    own = dict(model.named_parameters())
    todo = set(own)
    for name, value in public.items():
        name = _own_name(name)
        if name.startswith("cls") or "position_ids" in name:
            continue
        if name not in own or own[name].shape != value.shape:
            raise ValueError(f"cannot place {name}")
        with torch.no_grad():
            own[name].copy_(value)
        todo.discard(name)
    if todo:
        raise KeyError(f"missing: {todo}")


@right("load_public")
def lenient_then_asserts(model, public):
    state = {_own_name(n): t for n, t in public.items() if not n.startswith("cls.")}
    state.pop("embeddings.position_ids", None)
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not missing and not unexpected, (missing, unexpected)
    return model


@wrong("load_public", "changes its input `public`")
def renames_in_place(model, public):
    for name in list(public):
        tensor = public.pop(name)
        if not (name.startswith("cls.") or name.endswith("position_ids")):
            public[_own_name(name)] = tensor
    model.load_state_dict(public)


@wrong("load_public", "It is not strict: missing")
def renamed_but_lenient(model, public):
    state = {_own_name(n): t for n, t in public.items()}
    model.load_state_dict(state, strict=False)


@wrong("load_public", "under other names are silently")
def lenient(model, public):
    model.load_state_dict(public, strict=False)


@wrong("load_public", "gamma and beta are silently")
def lenient_without_gamma(model, public):
    model.load_state_dict({n.removeprefix("bert."): t for n, t in public.items()}, strict=False)


@wrong("load_public", "no place in the model is left out")
def drops_the_unknown(model, public):
    own = model.state_dict()
    model.load_state_dict({_own_name(n): t for n, t in public.items() if _own_name(n) in own})


@wrong("load_public", "keeps its random start")
def update_own(model, public):
    state = model.state_dict()
    for name, value in public.items():
        if not name.startswith("cls.") and "position_ids" not in name:
            state[_own_name(name)] = value
    model.load_state_dict(state)


@wrong("load_public", "fits in name and shape")
def copies_what_fits(model, public):
    own = model.state_dict()
    for name, value in public.items():
        name = _own_name(name)
        if name in own and own[name].shape == value.shape:
            own[name].copy_(value)


@wrong("load_public", "transposed")
def transposed(model, public):
    state = {}
    for name, value in public.items():
        name = _own_name(name)
        if name.startswith("cls.") or name.endswith("position_ids"):
            continue
        if value.ndim == 2 and value.shape[0] == value.shape[1]:
            value = value.t().contiguous()
        state[name] = value
    model.load_state_dict(state)


@wrong("load_public", "begin with bert.")
def no_prefix(model, public):
    drop = "cls.", "embeddings.position_ids", "bert.embeddings.position_ids"
    state = {
        n.replace("gamma", "weight").replace("beta", "bias"): t
        for n, t in public.items()
        if not n.startswith(drop)
    }
    model.load_state_dict(state)


@wrong("load_public", "gamma and beta are not understood")
def no_gamma(model, public):
    state = {n.removeprefix("bert."): t for n, t in public.items() if not n.startswith("cls.")}
    state.pop("embeddings.position_ids", None)
    model.load_state_dict(state)


@wrong("load_public", "takes away letters")
def stripped_letters(model, public):
    state = {
        _own_name(n).lstrip("bert."): t
        for n, t in public.items()
        if not n.startswith(("cls.", "embeddings.position_ids", "bert.embeddings.position_ids"))
    }
    model.load_state_dict(state)


@wrong("load_public", "not left out")
def heads_kept(model, public):
    model.load_state_dict({_own_name(n): t for n, t in public.items()})


@wrong("load_public", None)
def nothing_loaded(model, public):
    pass


@wrong("load_public", "fits in name and shape")  # torch copies what fits, then raises
def errors_swallowed(model, public):
    try:
        state = {_own_name(n): t for n, t in public.items() if not n.startswith("cls.")}
        state.pop("embeddings.position_ids", None)
        model.load_state_dict(state)
    except RuntimeError:
        print("could not load")


@wrong("load_public", None)
def gamma_for_beta(model, public):
    state = {}
    for name, value in public.items():
        name = name.removeprefix("bert.").replace("gamma", "bias").replace("beta", "weight")
        if not name.startswith("cls.") and "position_ids" not in name:
            state[name] = value
    model.load_state_dict(state)


@wrong("load_public", None)
def by_order(model, public):
    values = [t for n, t in public.items() if "cls" not in n and "position_ids" not in n]
    with torch.no_grad():
        for p, value in zip(model.parameters(), values, strict=False):
            p.copy_(value)


@wrong("load_public", None)
def refuses_everything(model, public):
    raise ValueError("no")


@wrong("load_public", None)
def without_the_pooler(model, public):
    state = {_own_name(n): t for n, t in public.items() if "pooler" not in n and "cls." not in n}
    state.pop("embeddings.position_ids", None)
    own = {n: t for n, t in model.state_dict().items() if "pooler" in n}
    model.load_state_dict(state | own)


@wrong("load_public", None)
def as_half_precision(model, public):
    state = {_own_name(n): t.half().float() for n, t in public.items() if "cls." not in n}
    state.pop("embeddings.position_ids", None)
    model.load_state_dict(state)
