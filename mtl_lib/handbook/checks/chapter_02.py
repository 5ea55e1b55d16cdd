"""Exercises of chapter 02: the whole encoder.

Shapes: B sentences, L tokens, H hidden size, I intermediate size, V vocabulary size.

Of a class the cases ask the names and shapes of its parameters first. Then every parameter gets
numbers that depend on its name alone, so that two modules with the same names hold the same.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from mtl_lib import bert, pretrained
from mtl_lib.bert import BertConfig, BertModel
from mtl_lib.handbook.checks.framework import (
    Case,
    Exercise,
    Mistake,
    WrongKind,
    call,
    draw,
    fill,
    refusal,
    tensor,
    with_gradient,
)

# Classes: how they are asked


def _module(answer: Callable, *sizes: Any) -> nn.Module:
    module = answer(*sizes)
    if not isinstance(module, nn.Module):
        raise WrongKind(f"got {type(module).__name__}, expected a class that extends nn.Module")
    return module


def _filled(answer: Callable, *sizes: Any, scale: float = 0.5) -> nn.Module:
    """A module whose parameters are filled with numbers that depend on their names alone."""
    module = _module(answer, *sizes)
    if not list(module.parameters()):
        raise WrongKind("the module knows of no parameters")
    return fill(module, scale)


def _parameters(*sizes: Any) -> Case:
    """Asks for names and shapes of all that a checkpoint holds."""

    def ask(answer: Callable) -> dict[str, str]:
        module = _module(answer, *sizes)
        saved = module.state_dict()
        buffers = {name: value for name, value in module.named_buffers() if name in saved}
        found = {}
        for name, value in {**dict(module.named_parameters()), **buffers}.items():
            kind = ", a buffer" if name in buffers else "" if value.requires_grad else ", frozen"
            found[name] = " x ".join(map(str, value.shape)) + kind
        return found

    return Case("names and shapes of the parameters", ask)


def _runs(
    *sizes: Any,
    training: bool = False,
    scale: float = 0.5,
    kind: torch.dtype = torch.float32,
    **inputs: Tensor,
):
    """What a filled module gives for these inputs, handed over by place."""

    def ask(answer: Callable) -> Any:
        module = _filled(answer, *sizes, scale=scale).to(kind).train(training)
        torch.default_generator.manual_seed(1)  # what is dropped does not depend on the start
        return call(lambda **given: module(*given.values()), **inputs)

    return ask


def _gradients(*sizes: Any, whole: Callable = lambda result: result, **inputs: Tensor):
    """The value in evaluation and the gradients of all parameters and of floating-point inputs."""

    def ask(answer: Callable) -> dict:
        module = _filled(answer, *sizes).eval()
        parameters = dict(module.named_parameters())
        leaves = parameters | {n: x for n, x in inputs.items() if x.is_floating_point()}

        def value(*given: Tensor) -> Tensor:
            named = dict(zip(leaves, given, strict=True))
            handed = tuple(named.get(name, x) for name, x in inputs.items())
            return whole(functional_call(module, {n: named[n] for n in parameters}, handed))

        return with_gradient(value, **leaves)

    return ask


def _variant(base: type, forward: Callable | None = None, change: Callable | None = None) -> type:
    """The right class with another `forward`, or with something changed once it is built."""

    class Wrong(base):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            if change:
                change(self)

    if forward:
        Wrong.forward = forward
    return Wrong


def _epsilon(path: str, value: float) -> Callable[[nn.Module], None]:
    """A change: the epsilon of the LayerNorm at this path."""
    return lambda module: setattr(module.get_submodule(path), "eps", value)


SMALL = BertConfig(
    vocab_size=11,
    hidden_size=8,
    num_hidden_layers=3,
    num_attention_heads=2,
    intermediate_size=12,
    max_position_embeddings=9,
    hidden_dropout_prob=0.5,
    attention_probs_dropout_prob=0.0,
)
LARGE_EPSILON = replace(SMALL, layer_norm_eps=0.3)
TWO_RATES = replace(SMALL, attention_probs_dropout_prob=0.25)  # dropout of attention differs
IDS = torch.tensor([[2, 7, 7, 3, 10], [2, 4, 3, 0, 0]])
TYPES = torch.tensor([[0, 0, 1, 1, 1], [0, 1, 0, 1, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
NO_PADDING = torch.ones_like(MASK)
HIDDEN = draw(2, 5, 8, seed=1)

# WordPiece


def wordpiece(word: str, vocabulary: set[str], unknown: str = "[UNK]") -> list[str]:
    """Cut a word greedily into the longest entries (Wu et al., 2016), as BERT's tokenizer does.

    Args:
        word: without spaces.
        vocabulary: entries; those inside a word begin with ##.
        unknown: stands for a word that cannot be cut.
    """
    pieces, rest = [], word
    while rest:
        marked = f"##{rest}" if pieces else rest
        shortest = len(marked) - len(rest)
        fits = (n for n in range(len(marked), shortest, -1) if marked[:n] in vocabulary)
        if not (length := next(fits, 0)):
            return [unknown]
        pieces.append(marked[:length])
        rest = marked[length:]
    return pieces


def _cut(
    word: str,
    vocabulary: set[str],
    unknown: str = "[UNK]",
    *,
    shortest: bool = False,
    first: str = "",
    inside: str = "##",
    shown: str = "##",
    give_up: str = "word",
) -> list[str]:
    """WordPiece with one thing or another changed."""
    pieces, start = [], 0
    while start < len(word):
        prefix = inside if start else first
        ends = range(len(word), start, -1)
        fits = [end for end in ends if prefix + word[start:end] in vocabulary]
        if not fits:
            if give_up == "word":
                return [unknown]
            pieces.append(unknown)
            if give_up == "rest":
                return pieces
            start += 1
            continue
        end = fits[-1] if shortest else fits[0]
        pieces.append((shown if start else first) + word[start:end])
        start = end
    return pieces


def _backtracking(word: str, vocabulary: set[str], unknown: str = "[UNK]") -> list[str]:
    """The first way to cut a word that goes through, long pieces first."""

    def rest(start: int) -> list[str] | None:
        if start == len(word):
            return []
        for end in range(len(word), start, -1):
            piece = ("##" if start else "") + word[start:end]
            if piece in vocabulary and (others := rest(end)) is not None:
                return [piece, *others]
        return None

    found = rest(0)
    return [unknown] if found is None else found


def _from_the_end(word: str, vocabulary: set[str], unknown: str = "[UNK]") -> list[str]:
    """Greedy as well, but from the word's end."""
    pieces, end = [], len(word)
    while end > 0:
        marked = ((start, ("##" if start else "") + word[start:end]) for start in range(end))
        found = next(((start, piece) for start, piece in marked if piece in vocabulary), None)
        if found is None:
            return [unknown]
        end = found[0]
        pieces.insert(0, found[1])
    return pieces


ENTRIES = frozenset(
    "[UNK] [CLS] film un want play ed ing ##want ##ed ##able ##ing ##in ##g pla ##ying ##s ##a ##b "
    "a ab ##bc".split()
)


def _words(*words: str, **more: str):
    return lambda answer: [call(answer, word, set(ENTRIES), **more) for word in words]


WORDPIECE = Exercise(
    name="wordpiece",
    chapter=2,
    title="cut a word into pieces",
    section="Words",
    difficulty=2,
    importance=3,
    minutes=12,
    task="""
Write `wordpiece(word, vocabulary, unknown="[UNK]")`: cut one word into entries of the vocabulary.

- Take the longest entry that the word begins with, then the longest that the rest begins with, and
  so on to the end. Never go back to try a shorter one.
- Pieces after the first are written, and looked up, with `##` in front: *wanted* becomes
  `["want", "##ed"]`.
- If at some point no entry fits, not even one letter, the whole word is unknown: return
  `[unknown]`, and none of the pieces found so far.
- `word`: a text without spaces. `vocabulary`: a set of texts. Return a list of texts.
""",
    hint="""
Keep the place `start` up to which the word is cut. Try the ends from `len(word)` down to
`start + 1`; the first that is found is the longest. `"##" if start else ""` is the mark.
""",
    reference=wordpiece,
    cases=(
        Case("whole words", _words("film", "play")),
        Case("two and three pieces", _words("wanted", "unwanted", "unwantable", "plays")),
        Case("the longest entry first", _words("playing", "ab")),
        Case("unknown from the start", _words("zebra")),
        Case("unknown at the end", _words("wantz", "unwantedz")),
        Case("it never goes back", _words("abc", "unabc", "aba")),
        Case("an entry of another place", _words("eding", "filmwant", "wantplay")),
        Case("another word for the unknown", _words("wantz", "film", unknown="?")),
        Case("single letters", _words("abab", "a")),
    ),
    mistakes=(
        Mistake(
            lambda word, vocabulary, unknown="[UNK]": _cut(
                word, vocabulary, unknown, shortest=True
            ),
            "It takes the shortest entry that fits: take the longest.",
        ),
        Mistake(
            _from_the_end,
            "It cuts from the word's end: take the longest entry that the word begins with.",
        ),
        Mistake(
            _backtracking,
            "It goes back and tries shorter pieces: WordPiece is greedy and gives up instead.",
        ),
        Mistake(
            lambda word, vocabulary, unknown="[UNK]": _cut(
                word, vocabulary, unknown, give_up="rest"
            ),
            "A word that cannot be cut to its end keeps the pieces before: all of it is unknown.",
        ),
        Mistake(
            lambda word, vocabulary, unknown="[UNK]": _cut(
                word, vocabulary, unknown, give_up="letter"
            ),
            "A letter that fits nowhere becomes unknown alone: the whole word does.",
        ),
        Mistake(
            lambda word, vocabulary, unknown="[UNK]": _cut(
                word, vocabulary, unknown, inside="", shown=""
            ),
            "The ## is missing: pieces inside a word are looked up and written with it.",
        ),
        Mistake(
            lambda word, vocabulary, unknown="[UNK]": _cut(word, vocabulary, unknown, inside=""),
            "Pieces inside a word get their ## only once they are found: look them up with it.",
        ),
        Mistake(
            lambda word, vocabulary, unknown="[UNK]": _cut(word, vocabulary, unknown, shown=""),
            "Pieces inside a word are found with their ## and written without it.",
        ),
        Mistake(
            lambda word, vocabulary, unknown="[UNK]": _cut(word, vocabulary, unknown, first="##"),
            "The first piece is looked up with ##: only those after it have the mark.",
        ),
        Mistake(
            lambda word, vocabulary, unknown="[UNK]": (
                found if (found := _cut(word, vocabulary, unknown)) != [unknown] else unknown
            ),
            "For an unknown word it returns a text: return a list, with that text in it.",
        ),
        Mistake(
            lambda word, vocabulary, unknown="[UNK]": _cut(word, vocabulary),
            "The argument `unknown` is not used.",
        ),
    ),
    notes="""
The unknown word is the trap: most first answers return the pieces before the one that failed.
2 points.
""",
)

# LayerNorm


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-12) -> Tensor:
    """Each vector of `[.., H]` to mean 0 and variance 1, then scaled and shifted (Ba et al., 2016).

    Args:
        x: `[.., H]`.
        weight, bias: `[H]`.
        eps: added to the variance, under the root.
    """
    return F.layer_norm(x, weight.shape, weight, bias, eps)


def _normalised(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float = 1e-12,
    *,
    dims: tuple = (-1,),
    correction: int = 0,
    spread: Callable = lambda variance, eps: (variance + eps).sqrt(),
) -> Tensor:
    """LayerNorm with one thing or another changed."""
    centred = x - x.mean(dim=dims, keepdim=True)
    variance = x.var(dim=dims, correction=correction, keepdim=True)
    return centred / spread(variance, eps) * weight + bias


def _norm_asks(x: Tensor, *eps: float):
    weight, bias = draw(x.shape[-1], seed=8), draw(x.shape[-1], seed=9)
    return lambda answer: call(answer, x, weight, bias, *eps)


def _norm_kinds(answer: Callable) -> list[str]:
    """The kind of number that comes out where single and double precision go in."""
    given = [draw(2, 3, 4, seed=11, dtype=kind) for kind in (torch.float32, torch.float64)]
    return [str(tensor(call(answer, x, x[0, 0], x[0, 1])).dtype) for x in given]


LAYER_NORM = Exercise(
    name="layer_norm",
    chapter=2,
    title="LayerNorm",
    section="Embeddings",
    difficulty=2,
    importance=4,
    minutes=10,
    task=r"""
Write `layer_norm(x, weight, bias, eps=1e-12)`: every token's vector to mean 0 and variance 1, then
scaled and shifted,
$$\frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} \cdot \mathit{weight} + \mathit{bias}.$$

- `x`: `[.., H]`, any number of dimensions in front. $\mu$ and $\sigma^2$ are those of one vector,
  over its H numbers; $\sigma^2$ is the mean of the squared deviations, divided by H.
- `weight` and `bias`: `[H]`. Return `[.., H]`, of the same dtype as `x`. Gradients flow back to all
  three.
- A vector whose numbers are all equal becomes `bias`, not NaN.

Write it out, please, without `nn.LayerNorm` and `F.layer_norm`: the check would not notice.
""",
    hint="""
`x.var` divides by H - 1 unless told otherwise: look for `correction` or `unbiased` in its
documentation. `keepdim=True` saves you the broadcasting.
""",
    reference=layer_norm,
    cases=(
        Case("two sentences", _norm_asks(3 * draw(2, 3, 8, seed=1) + 1)),
        Case("a large epsilon", _norm_asks(draw(2, 3, 8, seed=2), 0.5)),
        Case("as many tokens as numbers", _norm_asks(draw(2, 5, 5, seed=3), 0.1)),
        Case("one vector", _norm_asks(draw(6, seed=4), 0.1)),
        Case("one token", _norm_asks(draw(1, 1, 4, seed=5))),
        Case("small numbers, epsilon not given", _norm_asks(1e-3 * draw(2, 3, 8, seed=10))),
        Case("all numbers equal", _norm_asks(torch.full((2, 3, 8), 3.0))),
        Case("single and double precision", _norm_kinds),
        Case(
            "gradients",
            lambda answer: with_gradient(
                lambda x, weight, bias: answer(x, weight, bias, 0.1),
                x=draw(2, 3, 4, seed=6),
                weight=draw(4, seed=7),
                bias=draw(4, seed=8),
            ),
        ),
    ),
    mistakes=(
        Mistake(
            lambda x, weight, bias, eps=1e-12: _normalised(
                x, weight, bias, eps, spread=lambda variance, eps: variance.sqrt() + eps
            ),
            "Epsilon stands outside the root: it is added to the variance, before the root.",
        ),
        Mistake(
            lambda x, weight, bias, eps=1e-12: _normalised(x, weight, bias, eps, correction=1),
            "The variance is divided by H - 1: here it is the plain mean over H.",
        ),
        Mistake(
            lambda x, weight, bias, eps=1e-12: _normalised(
                x,
                weight,
                bias,
                eps,
                correction=1,
                spread=lambda variance, eps: variance.sqrt() + eps,
            ),
            "Two things: the variance is divided by H - 1, and epsilon stands outside the root.",
        ),
        Mistake(
            lambda x, weight, bias, eps=1e-12: _normalised(
                x, weight, bias, eps, correction=1, spread=lambda variance, eps: variance.sqrt()
            ),
            "Two things: the variance is divided by H - 1, and epsilon is missing.",
        ),
        Mistake(
            lambda x, weight, bias, eps=1e-12: _normalised(
                x, weight, bias, eps, spread=lambda variance, eps: variance.sqrt()
            ),
            "Epsilon is missing: a vector of equal numbers divides zero by zero.",
        ),
        Mistake(
            lambda x, weight, bias, eps=1e-12: _normalised(
                x, weight, bias, eps, spread=lambda variance, eps: variance + eps
            ),
            "It divides by the variance, not by its root.",
        ),
        Mistake(
            lambda x, weight, bias, eps=1e-12: _normalised(
                x, weight, bias, eps, dims=tuple(range(x.dim()))
            ),
            "Mean and variance are those of all numbers together: each vector has its own.",
        ),
        Mistake(
            lambda x, weight, bias, eps=1e-12: _normalised(x, weight, bias, eps, dims=(-2,)),
            "Mean and variance are taken over the tokens: take them over each token's H numbers.",
        ),
        Mistake(
            lambda x, weight, bias, eps=1e-12: _normalised(x, weight, bias, eps, dims=(0,)),
            "Mean and variance are taken over the first dimension: take them over the last.",
        ),
        Mistake(
            lambda x, weight, bias, eps=1e-5: layer_norm(x, weight, bias, eps),
            "The epsilon is torch's 1e-5 where none is given: BERT's is 1e-12.",
        ),
        Mistake(
            lambda x, weight, bias, eps=1e-12: F.layer_norm(x, weight.shape, eps=eps),
            "Weight and bias are not used.",
        ),
        Mistake(
            lambda x, weight, bias, eps=1e-12: (
                x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight + bias
            ),
            "The mean is not taken away (that would be RMSNorm).",
        ),
    ),
    notes="""
Half of the answers divide by H - 1, torch's default. Epsilon outside the root cannot be seen at
1e-12: the cases ask with a large one. 2 points.
""",
)


class LayerNorm(nn.LayerNorm):
    """LayerNorm over vectors of `size` numbers, with BERT's epsilon where none is given."""

    def __init__(self, size: int, eps: float = 1e-12) -> None:
        super().__init__(size, eps=eps)


def _fresh_norm(answer: Callable) -> dict[str, Tensor]:
    """Weight and bias as they are at the start."""
    return {name: value.detach() for name, value in _module(answer, 5).named_parameters()}


class _PlainTensors(nn.Module):
    """LayerNorm whose weight and bias are no parameters."""

    def __init__(self, size: int, eps: float = 1e-12) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = torch.ones(size), torch.zeros(size), eps

    def forward(self, x: Tensor) -> Tensor:
        return layer_norm(x, self.weight, self.bias, self.eps)


class _Buffers(nn.Module):
    """LayerNorm whose weight and bias are kept and not learned."""

    def __init__(self, size: int, eps: float = 1e-12) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(size))
        self.register_buffer("bias", torch.zeros(size))


def _set_weight(start: float) -> Callable[[nn.Module], None]:
    return lambda module: nn.init.constant_(module.weight, start)


def _with_norm(function: Callable) -> type:
    """The class with another function in its `forward`."""
    return _variant(LayerNorm, lambda self, x: function(x, self.weight, self.bias, self.eps))


LAYER_NORM_CLASS = Exercise(
    name="LayerNorm",
    chapter=2,
    title="LayerNorm as a module",
    section="Embeddings",
    difficulty=1,
    importance=4,
    minutes=6,
    task="""
Write the class `LayerNorm(size, eps=1e-12)`, an `nn.Module` that keeps weight and bias, and uses
your `layer_norm`.

- `weight` and `bias`: parameters `[size]`, ones and zeros at the start, so that the module begins
  as the plain normalisation.
- `forward(x)`: `[.., size]` -> `[.., size]`, with the epsilon that was given.
""",
    hint="""
`nn.Parameter(torch.ones(size))` is a tensor that belongs to the module: `.parameters()` lists it,
`state_dict()` holds it, an optimizer moves it. Keep `eps` as `self.eps`.
""",
    reference=LayerNorm,
    cases=(
        _parameters(6),
        Case("weight and bias at the start", _fresh_norm),
        Case("two sentences", _runs(8, x=3 * draw(2, 3, 8, seed=1) + 1)),
        Case("a large epsilon", _runs(8, 0.5, x=draw(2, 3, 8, seed=2))),
        Case("small numbers, epsilon not given", _runs(8, x=1e-3 * draw(2, 3, 8, seed=3))),
        Case("one vector", _runs(6, x=draw(6, seed=4))),
        Case("gradients", _gradients(4, 0.1, x=draw(2, 3, 4, seed=5))),
    ),
    mistakes=(
        Mistake(
            _PlainTensors,
            "weight and bias are plain tensors: only nn.Parameter makes them part of the module, "
            "so that optimizers and checkpoints find them.",
        ),
        Mistake(
            _Buffers,
            "weight and bias are buffers: a checkpoint holds them, but no optimizer moves them. "
            "nn.Parameter is for what is learned.",
        ),
        Mistake(
            _variant(LayerNorm, change=_set_weight(0.0)),
            "The weight starts at 0, so that all that goes in becomes the bias: it starts at 1.",
        ),
        Mistake(
            _variant(LayerNorm, change=lambda module: nn.init.normal_(module.weight)),
            "The weight starts with random numbers: it starts at 1.",
        ),
        Mistake(
            _variant(LayerNorm, change=lambda module: setattr(module, "eps", 1e-12)),
            "The argument `eps` is not used.",
        ),
        Mistake(
            _variant(LayerNorm, change=lambda module: setattr(module, "eps", 1e-5)),
            "The epsilon is always torch's 1e-5: it is the one given, and BERT's 1e-12 otherwise.",
        ),
        Mistake(
            type("Torchs", (nn.LayerNorm,), {}),
            "The epsilon is torch's 1e-5 where none is given: BERT's is 1e-12.",
        ),
        Mistake(
            _with_norm(
                lambda x, weight, bias, eps: _normalised(
                    x, weight, bias, eps, spread=lambda variance, eps: variance.sqrt() + eps
                )
            ),
            "Epsilon stands outside the root: it is added to the variance, before the root.",
        ),
        Mistake(
            _with_norm(
                lambda x, weight, bias, eps: _normalised(x, weight, bias, eps, correction=1)
            ),
            "The variance is divided by H - 1: here it is the plain mean over H.",
        ),
    ),
    notes="""
Plain tensors run and never learn: the optimizer does not see them. 1 point.
""",
)

# Embeddings

WORD = "embeddings.word_embeddings.weight"
POSITION = "embeddings.position_embeddings.weight"


def _embedded(
    self: bert.BertEmbeddings,
    ids: Tensor,
    types: Tensor | None = None,
    *,
    words: float = 1.0,
    positions: float = 1.0,
    segments: float = 1.0,
    first: int = 0,
    norm: Callable | None = None,
    drop: Callable | None = None,
) -> Tensor:
    """The embeddings with one thing or another changed; `norm` gets the three parts."""
    types = torch.zeros_like(ids) if types is None else types
    places = torch.arange(first, first + ids.shape[1])
    parts = (
        words * self.word_embeddings(ids),
        positions * self.position_embeddings(places),
        segments * self.token_type_embeddings(types),
    )
    total = norm(self, *parts) if norm else self.LayerNorm(parts[0] + parts[1] + parts[2])
    return drop(self, total) if drop else self.dropout(total)


def _embeddings(change: Callable | None = None, **changes: Any) -> type:
    return _variant(
        bert.BertEmbeddings,
        lambda self, ids, types=None: _embedded(self, ids, types, **changes),
        change,
    )


def _unpadded(module: nn.Module) -> None:
    module.word_embeddings.padding_idx = None


def _with_places(module: nn.Module) -> None:
    places = torch.arange(module.position_embeddings.num_embeddings)
    module.register_buffer("position_ids", places[None])


def _other_rate(module: nn.Module) -> None:
    module.dropout.p = TWO_RATES.attention_probs_dropout_prob


def _again(self: bert.BertEmbeddings, words: Tensor, places: Tensor, segments: Tensor) -> Tensor:
    return self.LayerNorm(self.LayerNorm(words + places + segments) + places)


def _all_again(self: bert.BertEmbeddings, *parts: Tensor) -> Tensor:
    return self.LayerNorm(self.LayerNorm(sum(parts)) + parts[1] + parts[2])


EMBEDDINGS = Exercise(
    name="Embeddings",
    chapter=2,
    title="embeddings",
    section="Embeddings",
    difficulty=3,
    importance=4,
    minutes=15,
    task="""
Write the class `Embeddings(config)`: for every token the sum of its word's, its position's and its
segment's vector, then LayerNorm, then dropout.

- `word_embeddings`, `position_embeddings`, `token_type_embeddings`: three `nn.Embedding` with
  `config.vocab_size`, `config.max_position_embeddings` and `config.type_vocab_size` rows of
  `config.hidden_size` numbers. The first one gets `padding_idx=config.pad_token_id`: nobody reads
  the vector of [PAD], and so it stays as it is.
- `LayerNorm`: your class, with the epsilon `config.layer_norm_eps`.
- `dropout`: `nn.Dropout(config.hidden_dropout_prob)`.
- `forward(input_ids, token_type_ids=None)`: word ids `[B, L]` and 0 or 1 for the first or second
  segment `[B, L]` -> `[B, L, H]`. Without segments every token belongs to the first, 0. Positions
  count from 0.
""",
    hint="""
An `nn.Embedding` is called with ids: `[B, L]` in, `[B, L, H]` out. The positions are the same for
all sentences: `torch.arange(L, device=input_ids.device)` gives vectors `[L, H]`, which broadcast.
`torch.zeros_like(input_ids)` stands for segments that are not given.
""",
    reference=bert.BertEmbeddings,
    cases=(
        _parameters(SMALL),
        Case("two sentences, two segments", _runs(SMALL, input_ids=IDS, token_type_ids=TYPES)),
        Case("segments not given", _runs(SMALL, input_ids=IDS)),
        Case(
            "as many sentences as tokens",
            _runs(SMALL, input_ids=IDS[:, :2], token_type_ids=TYPES[:, :2]),
        ),
        Case(
            "every position",
            _runs(
                SMALL,
                input_ids=torch.arange(9)[None] + 1,
                token_type_ids=(torch.arange(9)[None] > 4).long(),
            ),
        ),
        Case(
            "numbers as small as in a new encoder",
            _runs(SMALL, input_ids=IDS, token_type_ids=TYPES, scale=0.01),
        ),
        Case(
            "another epsilon in the config",
            _runs(LARGE_EPSILON, input_ids=IDS, token_type_ids=TYPES),
        ),
        Case("training", _runs(TWO_RATES, training=True, input_ids=IDS, token_type_ids=TYPES)),
        Case("gradients", _gradients(SMALL, input_ids=IDS, token_type_ids=TYPES)),
    ),
    mistakes=(
        Mistake(
            _variant(bert.BertEmbeddings, lambda self, ids, types=None: _embedded(self, ids, None)),
            "The segments are left at 0: two sentences encoded together lose their segments.",
        ),
        Mistake(_embeddings(segments=0.0), "The segments are missing from the sum."),
        Mistake(
            _variant(
                bert.BertEmbeddings,
                lambda self, ids, types=None: _embedded(
                    self, ids, types, segments=0.0 if types is None else 1.0
                ),
            ),
            "Where no segments are given none are added: row 0 of their table belongs to the sum.",
        ),
        Mistake(
            _embeddings(positions=0.0),
            "The positions are missing: a sentence and its reversal would be the same words.",
        ),
        Mistake(_embeddings(positions=2.0), "The position is added twice."),
        Mistake(
            _embeddings(words=math.sqrt(SMALL.hidden_size)),
            "The words are multiplied by the square root of H: the first transformer did that, "
            "BERT adds them as they are.",
        ),
        Mistake(
            _embeddings(norm=_all_again),
            "Finished embeddings get position, segment and LayerNorm a second time.",
        ),
        Mistake(
            _embeddings(norm=_again),
            "Finished embeddings get the position and LayerNorm a second time.",
        ),
        Mistake(
            _embeddings(norm=lambda self, *parts: sum(parts)), "LayerNorm is missing at the end."
        ),
        Mistake(
            _embeddings(norm=lambda self, words, *parts: self.LayerNorm(words) + sum(parts)),
            "LayerNorm acts on the words alone: it comes after the sum of all three.",
        ),
        Mistake(
            _embeddings(norm=lambda self, *parts: sum(map(self.LayerNorm, parts))),
            "LayerNorm acts on each of the three alone: it comes once, after their sum.",
        ),
        Mistake(_embeddings(first=1), "Positions count from 1: the first token has position 0."),
        Mistake(
            _variant(
                bert.BertEmbeddings,
                lambda self, ids, types=None: _embedded(
                    self, ids, None if types is None else 1 - types
                ),
            ),
            "The segments are exchanged: 0 is the first one.",
        ),
        Mistake(
            _embeddings(_epsilon("LayerNorm", 1e-12)),
            "The config's epsilon is not handed to LayerNorm.",
        ),
        Mistake(
            _embeddings(_epsilon("LayerNorm", 1e-5)),
            "The epsilon is torch's 1e-5: take the config's, BERT's is 1e-12.",
        ),
        Mistake(
            _embeddings(drop=lambda self, x: x),
            "Dropout is never applied: in evaluation nobody sees it, in training it is missing.",
        ),
        Mistake(
            _embeddings(
                norm=lambda self, *parts: self.LayerNorm(self.dropout(sum(parts))),
                drop=lambda self, x: x,
            ),
            "Dropout comes before LayerNorm: it comes last.",
        ),
        Mistake(
            _embeddings(drop=lambda self, x: F.dropout(x, self.dropout.p)),
            "Dropout also acts in evaluation: nn.Dropout knows which mode it is in.",
        ),
        Mistake(
            _embeddings(_unpadded),
            "padding_idx is missing: the vector of [PAD] would be trained.",
        ),
        Mistake(
            _embeddings(_other_rate),
            "The dropout rate is that of attention: here it is config.hidden_dropout_prob.",
        ),
        Mistake(
            _embeddings(_with_places),
            "position_ids is a buffer that checkpoints would hold, and public weights need not "
            "have it: make it with persistent=False, or in forward.",
        ),
    ),
    notes="""
With one segment only, types left at 0 pass unnoticed: so it is in much public code. 3 points.
""",
)

# Add and norm


def add_norm(
    x: Tensor, residual: Tensor, dense: Callable, dropout: Callable, norm: Callable
) -> Tensor:
    """LayerNorm(residual + dropout(dense(x))): `bert.AddNorm` with its three parts handed in.

    Args:
        x: what the sublayer gives, `[B, L, any]`.
        residual: what went into the sublayer, `[B, L, H]`.
        dense: `[B, L, any]` to `[B, L, H]`.
        dropout: on `[B, L, H]`; the identity in evaluation.
        norm: LayerNorm over H.
    """
    return norm(residual + dropout(dense(x)))


def drop_by_value(x: Tensor) -> Tensor:
    """Stands in for dropout in training: what is dropped depends on the numbers, not on chance."""
    return torch.where(x > 0.3, torch.zeros_like(x), 1.25 * x)


def _parts(width: int, hidden: int) -> tuple[Callable, Callable]:
    """A dense layer and a LayerNorm with weights of their own."""
    matrix, shift = draw(hidden, width, seed=31), draw(hidden, seed=32)
    weight, bias = draw(hidden, seed=33), draw(hidden, seed=34)
    return (
        lambda x: F.linear(x, matrix, shift),
        lambda x: F.layer_norm(x, (hidden,), weight, bias, 1e-12),
    )


def _add_asks(width: int, hidden: int, dropout: Callable, seed: int):
    dense, norm = _parts(width, hidden)
    x, residual = draw(2, 3, width, seed=seed), draw(2, 3, hidden, seed=seed + 1)
    return lambda answer: call(answer, x, residual, dense, dropout, norm)


def _add_gradients(answer: Callable) -> dict:
    dense, norm = _parts(4, 4)
    return with_gradient(
        lambda x, residual: answer(x, residual, dense, drop_by_value, norm),
        x=draw(2, 3, 4, seed=41),
        residual=draw(2, 3, 4, seed=42),
    )


def _same(x: Tensor) -> Tensor:
    return x


ADD_NORM = Exercise(
    name="add_norm",
    chapter=2,
    title="add and norm",
    section="Layer",
    difficulty=2,
    importance=5,
    minutes=8,
    task="""
Write `add_norm(x, residual, dense, dropout, norm)`, the end of both halves of a layer: the new part
goes through a linear layer and dropout, is added to the residual, and the sum is normalised.

- `x`: what attention or the feed-forward part gives, `[B, L, any]`.
- `residual`: what went into it, `[B, L, H]`.
- `dense` (`[B, L, any]` to `[B, L, H]`), `dropout` and `norm` are functions to call, each once. In
  training `dropout` drops something, in evaluation nothing: ask for no rate and no mode yourself.
- Return `[B, L, H]`. Gradients flow back to `x` and `residual`.
""",
    hint="""
"We apply dropout to the output of each sub-layer, before it is added to the sub-layer input and
normalized" (Vaswani et al., 2017, section 5.4).
""",
    reference=add_norm,
    cases=(
        Case("evaluation, wide to narrow", _add_asks(7, 4, _same, 1)),
        Case("training, wide to narrow", _add_asks(7, 4, drop_by_value, 3)),
        Case("training, equal widths", _add_asks(5, 5, drop_by_value, 5)),
        Case("evaluation, equal widths", _add_asks(5, 5, _same, 7)),
        Case("torch's dropout under a fixed seed", _add_asks(5, 5, nn.Dropout(0.5).train(), 9)),
        Case("gradients", _add_gradients),
    ),
    mistakes=(
        Mistake(
            lambda x, residual, dense, dropout, norm: norm(dropout(residual + dense(x))),
            "Dropout falls on the sum: the residual is to pass untouched.",
        ),
        Mistake(
            lambda x, residual, dense, dropout, norm: norm(residual + dense(dropout(x))),
            "Dropout comes before the linear layer: it belongs after it, before the sum.",
        ),
        Mistake(
            lambda x, residual, dense, dropout, norm: norm(dropout(residual) + dense(x)),
            "Dropout falls on the residual: it belongs on the new part.",
        ),
        Mistake(
            lambda x, residual, dense, dropout, norm: norm(dropout(residual) + dropout(dense(x))),
            "Dropout falls on both parts: the residual is to pass untouched.",
        ),
        Mistake(
            lambda x, residual, dense, dropout, norm: norm(residual + dense(x)),
            "Dropout is never applied: in evaluation nobody sees it, in training it is missing.",
        ),
        Mistake(
            lambda x, residual, dense, dropout, norm: dropout(norm(residual + dense(x))),
            "Dropout comes last: it belongs on the new part, before the sum.",
        ),
        Mistake(
            lambda x, residual, dense, dropout, norm: norm(dropout(dense(x))),
            "The residual is not added.",
        ),
        Mistake(
            lambda x, residual, dense, dropout, norm: residual + norm(dropout(dense(x))),
            "LayerNorm acts on the new part alone: it comes after the sum.",
        ),
        Mistake(
            lambda x, residual, dense, dropout, norm: norm(residual) + dropout(dense(x)),
            "LayerNorm acts on the residual alone: it comes after the sum.",
        ),
        Mistake(
            lambda x, residual, dense, dropout, norm: residual + dropout(dense(x)),
            "LayerNorm is missing at the end.",
        ),
    ),
    notes="""
All places of dropout look alike in evaluation, which is how most tests are run. 2 points.
""",
)


def _added(forward: Callable) -> type:
    return _variant(bert.AddNorm, forward)


ADD_NORM_CLASS = Exercise(
    name="AddNorm",
    chapter=2,
    title="add and norm as a module",
    section="Layer",
    difficulty=1,
    importance=4,
    minutes=6,
    task="""
Write the class `AddNorm(size, config)`: your `add_norm` with the three parts it needs.

- `dense`: `nn.Linear` from `size` to `config.hidden_size` numbers.
- `dropout`: `nn.Dropout(config.hidden_dropout_prob)`.
- `LayerNorm`: your class, over `config.hidden_size` numbers, with `config.layer_norm_eps`.
- `forward(x, residual)`: `[B, L, size]` and `[B, L, H]` -> `[B, L, H]`.
""",
    hint="""
`forward` is one line: hand `self.dense`, `self.dropout` and `self.LayerNorm` to `add_norm`.
""",
    reference=bert.AddNorm,
    cases=(
        _parameters(5, SMALL),
        Case(
            "evaluation, wide to narrow",
            _runs(12, SMALL, x=draw(2, 5, 12, seed=2), residual=HIDDEN),
        ),
        Case("evaluation, equal widths", _runs(8, SMALL, x=draw(2, 5, 8, seed=3), residual=HIDDEN)),
        Case(
            "training, wide to narrow",
            _runs(12, TWO_RATES, training=True, x=draw(2, 5, 12, seed=4), residual=HIDDEN),
        ),
        Case(
            "training, equal widths",
            _runs(8, TWO_RATES, training=True, x=draw(2, 5, 8, seed=5), residual=HIDDEN),
        ),
        Case(
            "another epsilon in the config",
            _runs(8, LARGE_EPSILON, x=draw(2, 5, 8, seed=6), residual=HIDDEN),
        ),
        Case(
            "small numbers",
            _runs(8, SMALL, x=HIDDEN, residual=1e-3 * HIDDEN, scale=1e-3),
        ),
        Case("gradients", _gradients(12, SMALL, x=draw(2, 5, 12, seed=2), residual=HIDDEN)),
    ),
    mistakes=(
        Mistake(
            _added(
                lambda self, x, residual: self.LayerNorm(self.dropout(residual + self.dense(x)))
            ),
            "Dropout falls on the sum: the residual is to pass untouched.",
        ),
        Mistake(
            _added(
                lambda self, x, residual: self.LayerNorm(residual + self.dense(self.dropout(x)))
            ),
            "Dropout comes before the linear layer: it belongs after it, before the sum.",
        ),
        Mistake(
            _added(
                lambda self, x, residual: self.LayerNorm(self.dropout(residual) + self.dense(x))
            ),
            "Dropout falls on the residual: it belongs on the new part.",
        ),
        Mistake(
            _added(lambda self, x, residual: self.LayerNorm(residual + self.dense(x))),
            "Dropout is never applied: in evaluation nobody sees it, in training it is missing.",
        ),
        Mistake(
            _added(
                lambda self, x, residual: self.dropout(self.LayerNorm(residual + self.dense(x)))
            ),
            "Dropout comes last: it belongs on the new part, before the sum.",
        ),
        Mistake(
            _added(lambda self, x, residual: self.LayerNorm(self.dropout(self.dense(x)))),
            "The residual is not added.",
        ),
        Mistake(
            _added(
                lambda self, x, residual: residual + self.LayerNorm(self.dropout(self.dense(x)))
            ),
            "LayerNorm acts on the new part alone: it comes after the sum.",
        ),
        Mistake(
            _added(lambda self, x, residual: residual + self.dropout(self.dense(x))),
            "LayerNorm is missing at the end.",
        ),
        Mistake(
            _variant(bert.AddNorm, change=_epsilon("LayerNorm", 1e-12)),
            "The config's epsilon is not handed to LayerNorm.",
        ),
        Mistake(
            _variant(bert.AddNorm, change=_epsilon("LayerNorm", 1e-5)),
            "The epsilon is torch's 1e-5: take the config's, BERT's is 1e-12.",
        ),
        Mistake(
            _variant(bert.AddNorm, change=_other_rate),
            "The dropout rate is that of attention: here it is config.hidden_dropout_prob.",
        ),
        Mistake(
            _added(
                lambda self, x, residual: self.LayerNorm(
                    residual + F.dropout(self.dense(x), self.dropout.p)
                )
            ),
            "Dropout also acts in evaluation: nn.Dropout knows which mode it is in.",
        ),
    ),
    notes="""
Whoever wrote `add_norm` needs three lines for the parts and one for the rest. 1 point.
""",
)

# The two halves of a layer


def _attention(forward: Callable) -> type:
    return _variant(bert.BertAttention, forward)


ATTENTION = Exercise(
    name="Attention",
    chapter=2,
    title="the first half of a layer",
    section="Layer",
    difficulty=2,
    importance=4,
    minutes=6,
    task="""
Write the class `Attention(config)`: self-attention, then add and norm.

- `self`: your `SelfAttention(config)` of chapter 01. (The name is that of the public checkpoints.)
- `output`: your `AddNorm`, from H numbers to H.
- `forward(hidden, attention_mask)`: `[B, L, H]` and the mask `[B, L]`, 1 for a token and 0 for
  padding -> `[B, L, H]`. The residual is what went into attention.
""",
    hint="""
In a method `self.self` is the attribute named self of the module. First what the tokens gather from
each other, then `self.output` with two arguments: the new part, the residual.
""",
    reference=bert.BertAttention,
    cases=(
        _parameters(SMALL),
        Case("without padding", _runs(SMALL, hidden=HIDDEN, attention_mask=NO_PADDING)),
        Case("with padding", _runs(SMALL, hidden=HIDDEN, attention_mask=MASK)),
        Case("training", _runs(SMALL, training=True, hidden=HIDDEN, attention_mask=MASK)),
        Case("gradients", _gradients(SMALL, hidden=HIDDEN, attention_mask=MASK)),
    ),
    mistakes=(
        Mistake(
            _attention(
                lambda self, hidden, mask: self.output(
                    self.self(hidden, torch.ones_like(mask)), hidden
                )
            ),
            "The mask does not reach attention: padding is looked at.",
        ),
        Mistake(
            _attention(lambda self, hidden, mask: self.output(hidden, self.self(hidden, mask))),
            "The new part and the residual are exchanged: the linear layer works on the new part.",
        ),
        Mistake(
            _attention(
                lambda self, hidden, mask: self.output(
                    self.self(hidden, mask), self.self(hidden, mask)
                )
            ),
            "The residual is the new part once more: it is what went into attention.",
        ),
        Mistake(
            _attention(lambda self, hidden, mask: self.self(hidden, mask)),
            "Add and norm is missing: what attention gives comes back as it is.",
        ),
        Mistake(
            _attention(
                lambda self, hidden, mask: hidden + self.output(self.self(hidden, mask), hidden)
            ),
            "The residual is added a second time, after LayerNorm: `output` has added it already.",
        ),
        Mistake(
            _attention(
                lambda self, hidden, mask: self.output(hidden + self.self(hidden, mask), hidden)
            ),
            "The residual is added before `output`, which adds it itself: hand it the new part "
            "alone.",
        ),
        Mistake(
            _attention(lambda self, hidden, mask: self.output(self.self(hidden, 1 - mask), hidden)),
            "The mask is turned round: 1 stands for a token, 0 for padding.",
        ),
    ),
    notes="""
A wiring exercise: two arguments of the same shape, and an order that nothing checks. 1 point.
""",
)


def _widened(forward: Callable) -> type:
    return _variant(bert.BertIntermediate, forward)


FEED_FORWARD = Exercise(
    name="FeedForward",
    chapter=2,
    title="the wide part",
    section="Layer",
    difficulty=1,
    importance=3,
    minutes=4,
    task="""
Write the class `FeedForward(config)`: the widening of the feed-forward part, which BERT calls
intermediate.

- `dense`: `nn.Linear` from `config.hidden_size` to `config.intermediate_size` numbers.
- `forward(hidden)`: `[B, L, H]` -> `[B, L, I]`: the linear layer, then the exact GELU.

The way back to H numbers is the `dense` of the add and norm that follows.
""",
    hint="""
`F.gelu` is exact unless it is asked to approximate.
""",
    reference=bert.BertIntermediate,
    cases=(
        _parameters(SMALL),
        Case("two sentences", _runs(SMALL, hidden=HIDDEN)),
        Case("large numbers", _runs(SMALL, hidden=10 * HIDDEN)),
        Case("training", _runs(SMALL, training=True, hidden=HIDDEN)),
        Case("gradients", _gradients(SMALL, hidden=HIDDEN)),
    ),
    mistakes=(
        Mistake(
            _widened(lambda self, hidden: F.relu(self.dense(hidden))),
            "That is ReLU: BERT's activation is GELU.",
        ),
        Mistake(
            _widened(lambda self, hidden: F.gelu(self.dense(hidden), approximate="tanh")),
            "That is the approximation of GELU by tanh: here it is the exact one.",
        ),
        Mistake(
            _widened(lambda self, hidden: self.dense(hidden)),
            "The activation is missing: two linear layers in a row are one linear layer.",
        ),
        Mistake(
            _widened(lambda self, hidden: self.dense(F.gelu(hidden))),
            "GELU comes before the linear layer: it comes after it.",
        ),
        Mistake(
            _widened(lambda self, hidden: torch.tanh(self.dense(hidden))),
            "That is tanh: BERT's activation is GELU.",
        ),
        Mistake(
            _widened(
                lambda self, hidden: F.dropout(F.gelu(self.dense(hidden)), 0.5, self.training)
            ),
            "Dropout does not belong here: it comes in add and norm, after the way back.",
        ),
    ),
    notes="""
The approximation by tanh differs in the fourth digit and adds up over the layers. 1 point.
""",
)


def _layer(forward: Callable) -> type:
    return _variant(bert.BertLayer, forward)


def _first_half_twice(self: bert.BertLayer, hidden: Tensor, mask: Tensor) -> Tensor:
    attended = self.attention(self.attention(hidden, mask), mask)
    return self.output(self.intermediate(attended), attended)


LAYER = Exercise(
    name="Layer",
    chapter=2,
    title="a layer",
    section="Layer",
    difficulty=2,
    importance=5,
    minutes=8,
    task="""
Write the class `Layer(config)`: both halves.

- `attention`: your `Attention(config)`.
- `intermediate`: your `FeedForward(config)`.
- `output`: your `AddNorm`, from `config.intermediate_size` numbers back to H.
- `forward(hidden, attention_mask)`: `[B, L, H]` and the mask `[B, L]` -> `[B, L, H]`. The residual
  of the second half is what went into the second half.
""",
    hint="""
Give the result of the first half a name: it is needed twice.
""",
    reference=bert.BertLayer,
    cases=(
        _parameters(SMALL),
        Case("without padding", _runs(SMALL, hidden=HIDDEN, attention_mask=NO_PADDING)),
        Case("with padding", _runs(SMALL, hidden=HIDDEN, attention_mask=MASK)),
        Case("training", _runs(SMALL, training=True, hidden=HIDDEN, attention_mask=MASK)),
        Case("gradients", _gradients(SMALL, hidden=HIDDEN, attention_mask=MASK)),
    ),
    mistakes=(
        Mistake(
            _layer(
                lambda self, hidden, mask: self.output(
                    self.intermediate(self.attention(hidden, mask)), hidden
                )
            ),
            "The residual of the second half is the layer's input: it is what attention's half "
            "gives.",
        ),
        Mistake(
            _layer(
                lambda self, hidden, mask: self.output(
                    self.intermediate(hidden), self.attention(hidden, mask)
                )
            ),
            "The feed-forward part works on the layer's input: it works on what attention's half "
            "gives.",
        ),
        Mistake(
            _layer(
                lambda self, hidden, mask: bert.BertLayer.forward(
                    self, hidden, torch.ones_like(mask)
                )
            ),
            "The mask does not reach attention: padding is looked at.",
        ),
        Mistake(
            _layer(lambda self, hidden, mask: self.output(self.intermediate(hidden), hidden)),
            "Attention is never called: no token learns of another.",
        ),
        Mistake(
            _layer(lambda self, hidden, mask: self.attention(hidden, mask)),
            "The feed-forward half is missing.",
        ),
        Mistake(
            _layer(lambda self, hidden, mask: hidden + bert.BertLayer.forward(self, hidden, mask)),
            "The layer's input is added once more at the end: both halves have added theirs.",
        ),
        Mistake(
            _layer(
                lambda self, hidden, mask: self.output(
                    self.intermediate(self.attention(hidden, mask)),
                    hidden + self.attention(hidden, mask),
                )
            ),
            "The layer's input is added to the second residual: the first half has added it "
            "already.",
        ),
        Mistake(_layer(_first_half_twice), "Attention is called twice, one after the other."),
    ),
    notes="""
The residual of the second half is the classic slip: the shapes fit and the model trains. 2 points.
""",
)

# A bug hunt

FAULTS = {
    "scale": "the scores of attention",
    "mask": "the mask",
    "gelu": "the feed-forward part",
    "residual": "the last sum",
}


def run_layer(layer: bert.BertLayer, hidden: Tensor, attention_mask: Tensor, heads: int) -> Tensor:
    """What a layer gives in evaluation: `[B, L, H]` and a mask `[B, L]` -> `[B, L, H]`."""
    return _run_layer(layer, hidden, attention_mask, heads, faults=())


def _run_layer(
    layer: bert.BertLayer, hidden: Tensor, mask: Tensor, heads: int, faults: tuple[str, ...]
) -> Tensor:
    B, L, H = hidden.shape
    part, first, second = layer.attention.self, layer.attention.output, layer.output
    query, key, value = (
        bert.split_heads(linear(hidden), heads) for linear in (part.query, part.key, part.value)
    )
    scores = query @ key.transpose(-1, -2) / math.sqrt(H if "scale" in faults else H // heads)
    hidden_from = mask[:, None, :, None] if "mask" in faults else mask[:, None, None, :]
    scores = scores.masked_fill(hidden_from == 0, torch.finfo(scores.dtype).min)
    context = bert.merge_heads(scores.softmax(dim=-1) @ value)
    attended = first.LayerNorm(hidden + first.dense(context))
    wide = F.gelu(
        layer.intermediate.dense(attended), approximate="tanh" if "gelu" in faults else "none"
    )
    residual = hidden if "residual" in faults else attended
    return second.LayerNorm(residual + second.dense(wide))


def _hunted(mask: Tensor, heads: int, seed: int):
    """The layer's result for real tokens, in double precision: a small fault shows as well."""

    def ask(answer: Callable) -> Tensor:
        config = replace(SMALL, num_attention_heads=heads)
        layer = _filled(bert.BertLayer, config).double().eval()
        hidden = draw(2, 5, 8, seed=seed, dtype=torch.float64)
        given = call(lambda hidden, mask: answer(layer, hidden, mask, heads), hidden, mask)
        if not isinstance(given, Tensor) or given.shape != hidden.shape:
            return given
        return given * mask[..., None]

    return ask


def _left(faults: tuple[str, ...]) -> Mistake:
    count = {1: "One fault is", 2: "Two faults are", 3: "Three faults are", 4: "All four are"}
    return Mistake(
        lambda layer, hidden, mask, heads: _run_layer(layer, hidden, mask, heads, faults),
        f"{count[len(faults)]} left. On the data's way through the layer, the next to meet is in "
        f"{FAULTS[faults[0]]}.",
    )


RUN_LAYER = Exercise(
    name="run_layer",
    chapter=2,
    title="a bug hunt",
    difficulty=4,
    importance=4,
    minutes=15,
    task="""
Somebody wrote `run_layer(layer, hidden, attention_mask, heads)`: in one function, and from the
layer's own parts, what a layer of BERT computes in evaluation. It runs, the shape is right, and
**four** things are wrong with it. Find and mend them.

- `layer`: a layer with the names you know; `hidden`: `[B, L, H]`; `attention_mask`: `[B, L]`, 1 for
  a token; `heads`: the number of heads.
- Return `[B, L, H]`, what `layer(hidden, attention_mask)` gives in evaluation. Do not call that in
  the function: it is there to compare with.
- The check says how many are left, and where to look next.
""",
    hint="""
Say the shape of every line aloud. Which dimension of the scores belongs to the keys? How many
numbers does one head compare? Then ask of every sum what it adds. The smallest fault changes only
the fourth digit.
""",
    reference=run_layer,
    cases=(
        Case("without padding", _hunted(NO_PADDING, 2, 1), rtol=1e-7, atol=1e-9),
        Case("with padding", _hunted(MASK, 2, 2), rtol=1e-7, atol=1e-9),
        Case("four heads", _hunted(MASK, 4, 3), rtol=1e-7, atol=1e-9),
    ),
    mistakes=tuple(
        _left(faults) for count in (4, 3, 2, 1) for faults in combinations(FAULTS, count)
    ),
    notes="""
The mask is found by those who test with padding, the scale by those who know D from H, the residual
by those who read, the approximation of GELU by those who compare more than three digits. 4 points.
""",
)

# The whole encoder


def _encoder(forward: Callable) -> type:
    return _variant(bert.BertEncoder, forward)


class _PlainList(nn.Module):
    """Layers that the module does not know of."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.layer = [bert.BertLayer(config) for _ in range(config.num_hidden_layers)]

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        for layer in self.layer:
            hidden = layer(hidden, mask)
        return hidden


class _OneLayer(nn.Module):
    """The same layer every time."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList([bert.BertLayer(config)] * config.num_hidden_layers)

    forward = bert.BertEncoder.forward


def _each_alone(self: bert.BertEncoder, hidden: Tensor, mask: Tensor) -> Tensor:
    for layer in self.layer:
        result = layer(hidden, mask)
    return result


def _from_the_top(self: bert.BertEncoder, hidden: Tensor, mask: Tensor) -> Tensor:
    for layer in reversed(self.layer):
        hidden = layer(hidden, mask)
    return hidden


ENCODER = Exercise(
    name="Encoder",
    chapter=2,
    title="the stack of layers",
    section="Encoder",
    difficulty=2,
    importance=4,
    minutes=6,
    task="""
Write the class `Encoder(config)`: layer upon layer.

- `layer`: an `nn.ModuleList` of `config.num_hidden_layers` of your `Layer(config)`, each with
  parameters of its own.
- `forward(hidden, attention_mask)`: `[B, L, H]` and the mask `[B, L]` -> `[B, L, H]`, what the last
  layer gives. Each layer gets what the one before it gave.
""",
    hint="""
`nn.ModuleList(Layer(config) for _ in range(..))`. A plain list would hold the layers too, but the
module would not know of them.
""",
    reference=bert.BertEncoder,
    cases=(
        _parameters(SMALL),
        Case("without padding", _runs(SMALL, hidden=HIDDEN, attention_mask=NO_PADDING)),
        Case("with padding", _runs(SMALL, hidden=HIDDEN, attention_mask=MASK)),
        Case(
            "one layer",
            _runs(replace(SMALL, num_hidden_layers=1), hidden=HIDDEN, attention_mask=MASK),
        ),
        Case("training", _runs(SMALL, training=True, hidden=HIDDEN, attention_mask=MASK)),
        Case("gradients", _gradients(SMALL, hidden=HIDDEN, attention_mask=MASK)),
    ),
    mistakes=(
        Mistake(
            _PlainList,
            "The layers stand in a plain list, so the module knows none of their parameters: no "
            "optimizer moves them, no checkpoint holds them. nn.ModuleList makes them known.",
        ),
        Mistake(
            _OneLayer,
            "One layer stands in the list several times: all of them share their parameters. Build "
            "a new one each time.",
        ),
        Mistake(
            _encoder(_each_alone),
            "Every layer gets the encoder's input: each gets what the one before it gave.",
        ),
        Mistake(_encoder(_from_the_top), "The layers run from the last to the first."),
        Mistake(
            _encoder(lambda self, hidden, mask: self.layer[0](hidden, mask)),
            "It returns after the first layer.",
        ),
        Mistake(
            _encoder(
                lambda self, hidden, mask: bert.BertEncoder.forward(
                    self, hidden, torch.ones_like(mask)
                )
            ),
            "The mask does not reach the layers: padding is looked at.",
        ),
    ),
    notes="""
`[Layer(config)] * n` is one layer n times: it trains, with a fraction of the parameters. 1 point.
""",
)


def _pooler(forward: Callable) -> type:
    return _variant(bert.BertPooler, forward)


POOLER = Exercise(
    name="Pooler",
    chapter=2,
    title="the pooler",
    section="Encoder",
    difficulty=1,
    importance=4,
    minutes=4,
    task="""
Write the class `Pooler(config)`: the sentence's vector.

- `dense`: `nn.Linear` from H numbers to H.
- `forward(hidden)`: `[B, L, H]` -> `[B, H]`: the vector of the first token, [CLS], through the
  linear layer and tanh.
""",
    hint="""
`hidden[:, 0]` is `[B, H]`: of every sentence the first token.
""",
    reference=bert.BertPooler,
    cases=(
        _parameters(SMALL),
        Case("two sentences", _runs(SMALL, hidden=HIDDEN)),
        Case("one token", _runs(SMALL, hidden=draw(3, 1, 8, seed=2))),
        Case("one sentence", _runs(SMALL, hidden=draw(1, 4, 8, seed=4))),
        Case("as many tokens as sentences", _runs(SMALL, hidden=draw(3, 3, 8, seed=3))),
        Case("training", _runs(SMALL, training=True, hidden=HIDDEN)),
        Case("gradients", _gradients(SMALL, hidden=HIDDEN)),
    ),
    mistakes=(
        Mistake(
            _pooler(lambda self, hidden: torch.tanh(self.dense(hidden.mean(dim=1)))),
            "It takes the mean of all tokens: take the first one, [CLS].",
        ),
        Mistake(
            _pooler(lambda self, hidden: torch.tanh(self.dense(hidden[:, -1]))),
            "It takes the last token: take the first one, [CLS].",
        ),
        Mistake(
            _pooler(lambda self, hidden: torch.tanh(self.dense(hidden[0]))),
            "It takes the first sentence: take the first token of every sentence.",
        ),
        Mistake(_pooler(lambda self, hidden: self.dense(hidden[:, 0])), "tanh is missing."),
        Mistake(
            _pooler(lambda self, hidden: self.dense(torch.tanh(hidden[:, 0]))),
            "tanh comes before the linear layer: it comes after it.",
        ),
        Mistake(
            _pooler(lambda self, hidden: torch.tanh(hidden[:, 0])),
            "The linear layer is not used.",
        ),
        Mistake(
            _pooler(lambda self, hidden: torch.tanh(self.dense(hidden))),
            "It gives a vector for every token: take the first one, [CLS].",
        ),
        Mistake(
            _pooler(lambda self, hidden: torch.tanh(self.dense(hidden[:, :1])).squeeze()),
            "Of a single sentence the batch dimension is lost: `squeeze` without a place takes "
            "away every dimension of size 1.",
        ),
    ),
    notes="""
`hidden[0]` in place of `hidden[:, 0]` has the right shape where B equals L. 1 point.
""",
)


def _pair_of(result: Any) -> Tensor:
    """Both results of the encoder in one tensor, for the gradients of both."""
    if not isinstance(result, tuple | list) or len(result) != 2:
        raise WrongKind(f"got {type(result).__name__}, expected two tensors")
    return torch.cat([part.flatten() for part in result])


def _start(answer: Callable) -> dict[str, Tensor]:
    """How large the numbers of each parameter are at the start: their root mean square."""
    config = BertConfig(
        vocab_size=200,
        hidden_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=96,
        max_position_embeddings=64,
        initializer_range=0.3,
    )
    named = _module(answer, config).named_parameters()
    return {name: value.detach().square().mean().sqrt() for name, value in named}


def _bert(forward: Callable) -> type:
    return _variant(BertModel, forward)


def _started(initialise: Callable[[BertModel, nn.Module], None]) -> type:
    return type("Wrong", (BertModel,), {"_initialise": initialise})


def _fixed_spread(self: BertModel, module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)


def _all_drawn(self: BertModel, module: nn.Module) -> None:
    for parameter in module.parameters(recurse=False):
        nn.init.normal_(parameter, std=self.config.initializer_range)


def _pooled_early(
    self: BertModel, ids: Tensor, mask: Tensor, types: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    embeddings = self.embeddings(ids, types)
    return self.encoder(embeddings, mask), self.pooler(embeddings)


def _bert_runs(*inputs: Tensor, training: bool = False, kind: torch.dtype = torch.float32):
    names = ("input_ids", "attention_mask", "token_type_ids")
    return _runs(SMALL, training=training, kind=kind, **dict(zip(names, inputs, strict=False)))


BERT = Exercise(
    name="Bert",
    chapter=2,
    title="BERT",
    section="Encoder",
    difficulty=3,
    importance=5,
    minutes=12,
    task="""
Write the class `Bert(config)`: the whole encoder.

- `config`: the configuration itself, which others will ask for. `embeddings`: your `Embeddings`.
  `encoder`: your `Encoder`. `pooler`: your `Pooler`.
- A new one starts with small random weights. Once everything is built, call `initialise`, which
  stands in the cell, with the model and the config's `initializer_range`.
- `forward(input_ids, attention_mask, token_type_ids=None)`: each `[B, L]`. It returns two things:
  what the last layer gives, `[B, L, H]`, and the sentences' vectors, `[B, H]`.
""",
    hint="""
`forward` has three calls, one for each part, and `return hidden, pooled`. The segments go to the
embeddings, the mask to the encoder.
""",
    reference=BertModel,
    cases=(
        _parameters(SMALL),
        Case("one segment, no padding", _bert_runs(IDS, NO_PADDING)),
        Case("padding", _bert_runs(IDS, MASK)),
        Case("padding and two segments", _bert_runs(IDS, MASK, TYPES)),
        Case("training", _bert_runs(IDS, MASK, TYPES, training=True)),
        Case("double precision", _bert_runs(IDS, MASK, TYPES, kind=torch.float64)),
        Case("numbers at the start", _start, rtol=0.25, atol=1e-3),
        Case("its config", lambda answer: answer(SMALL).config.hidden_size),
        Case(
            "gradients",
            _gradients(
                SMALL, whole=_pair_of, input_ids=IDS, attention_mask=MASK, token_type_ids=TYPES
            ),
            atol=1e-5,
        ),
    ),
    mistakes=(
        Mistake(
            _bert(lambda self, ids, mask, types=None: BertModel.forward(self, ids, mask)),
            "The segments do not reach the embeddings.",
        ),
        Mistake(
            _bert(
                lambda self, ids, mask, types=None: BertModel.forward(
                    self, ids, torch.ones_like(mask), types
                )
            ),
            "The mask does not reach the encoder: padding is looked at.",
        ),
        Mistake(_bert(_pooled_early), "The pooler works on the embeddings: it comes last."),
        Mistake(
            _bert(lambda self, *inputs: BertModel.forward(self, *inputs)[::-1]),
            "The two results are exchanged: the tokens' vectors first, then the sentences'.",
        ),
        Mistake(
            _bert(lambda self, *inputs: BertModel.forward(self, *inputs)[1]),
            "Only the sentences' vectors are returned: the tokens' come first.",
        ),
        Mistake(
            _bert(lambda self, *inputs: BertModel.forward(self, *inputs)[0]),
            "Only the tokens' vectors are returned: the sentences' belong there too.",
        ),
        Mistake(
            _started(lambda self, module: None),
            "The weights keep torch's own start: call initialise once everything is built.",
        ),
        Mistake(
            _started(_fixed_spread),
            "The weights always start with the spread 0.02: it is the config's.",
        ),
        Mistake(
            _started(_all_drawn),
            "All parameters are drawn at random: biases start at 0, LayerNorm's weights at 1.",
        ),
    ),
    notes="""
The integration: whoever comes here has an encoder that loads public weights. 4 points.
""",
)

# Public weights

CONFIG = BertConfig(
    vocab_size=7,
    hidden_size=4,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=6,
    max_position_embeddings=5,
)


def load_public(model: BertModel, public: dict[str, Tensor]) -> None:
    """Load a public checkpoint, all of it or an error (`pretrained.read_public_state`)."""
    pretrained.read_public_state(model, public)


def _public() -> dict[str, Tensor]:
    """A checkpoint in plain names, with numbers that no model starts from."""
    own = BertModel(CONFIG).state_dict()
    return {name: draw(*value.shape, seed=n) for n, (name, value) in enumerate(own.items())}


def _old_names(public: dict[str, Tensor]) -> dict[str, Tensor]:
    def old(name: str) -> str:
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma")
        return name.replace("LayerNorm.bias", "LayerNorm.beta")

    return {old(name): value for name, value in public.items()}


def _prefixed(public: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"bert.{name}": value for name, value in public.items()}


def _with_heads(public: dict[str, Tensor]) -> dict[str, Tensor]:
    heads = {
        "cls.predictions.bias": torch.ones(7),
        "cls.predictions.transform.LayerNorm.gamma": torch.ones(4),
        "cls.seq_relationship.weight": torch.ones(2, 4),
    }
    return heads | _prefixed(public) | {"bert.embeddings.position_ids": torch.arange(5)[None]}


def _hand_over(answer: Callable, model: BertModel, public: dict[str, Tensor]) -> None:
    """Ask for a checkpoint to be loaded; that it was changed is noted."""
    call(lambda public: answer(model, public), public=public)


def _loads(change: Callable[[dict], dict]):
    """The parameters after loading a checkpoint that is complete."""

    def ask(answer: Callable) -> dict[str, Tensor]:
        model = BertModel(CONFIG)
        _hand_over(answer, model, change(_public()))
        return dict(model.state_dict())

    return ask


def _refuses(change: Callable[[dict], dict]):
    """Whether a checkpoint that is not right is refused, and what was loaded if not."""

    def ask(answer: Callable) -> dict:
        model = BertModel(CONFIG)
        given = refusal(lambda: _hand_over(answer, model, change(_public())))
        loaded = None if given == "an error" else dict(model.state_dict())
        return {"value": given, "parameters": loaded}

    return ask


def _without(part: str):
    return lambda public: {name: value for name, value in public.items() if part not in name}


def _renamed(
    public: dict[str, Tensor], prefix: bool = True, norms: bool = True, heads: bool = True
) -> dict[str, Tensor]:
    """The tensors under this library's names; what is False is left as it is."""
    state = {}
    for name, value in public.items():
        name = name.removeprefix("bert.") if prefix else name
        if norms:
            name = name.replace("LayerNorm.gamma", "LayerNorm.weight")
            name = name.replace("LayerNorm.beta", "LayerNorm.bias")
        if not heads or not (name.startswith("cls.") or name.endswith("position_ids")):
            state[name] = value
    return state


def _fitting(model: BertModel, public: dict[str, Tensor], any_shape: bool = True) -> dict:
    """The tensors that the model has by that name, and where asked also by that shape."""
    own = model.state_dict()
    return {
        name: value
        for name, value in _renamed(public).items()
        if name in own and (any_shape or own[name].shape == value.shape)
    }


def _load_transposed(model: BertModel, public: dict[str, Tensor]) -> None:
    square = {
        name: value.T if value.dim() == 2 and len(set(value.shape)) == 1 else value
        for name, value in _renamed(public).items()
    }
    model.load_state_dict(square)


LOAD_PUBLIC = Exercise(
    name="load_public",
    chapter=2,
    title="public weights, every tensor or an error",
    section="Public weights",
    difficulty=3,
    importance=4,
    minutes=15,
    task="""
Write `load_public(model, public)`: load the tensors of a public checkpoint into `model` (a
`BertModel`); return nothing.

- `public`: a dict from names to tensors. Names are the model's own (those of `model.state_dict()`),
  except that all may begin with `bert.`, and that `LayerNorm.weight` and `LayerNorm.bias` may be
  called `LayerNorm.gamma` and `LayerNorm.beta`.
- Names that begin with `cls.` (heads of the pretraining) and `embeddings.position_ids` have no
  place in an encoder: leave them out.
- Anything else that does not fit is an error: a tensor that is missing, left over or of another
  shape. Raise it, or let `load_state_dict` raise it.
""",
    hint="""
Build a new dict with the names changed, then `model.load_state_dict`. Linear layers of public BERT
checkpoints for torch are stored as torch stores them.
""",
    reference=load_public,
    cases=(
        Case("the model's own names", _loads(lambda public: public)),
        Case("names with bert.", _loads(_prefixed)),
        Case("gamma and beta", _loads(_old_names)),
        Case("all of it, with pretraining heads", _loads(lambda p: _with_heads(_old_names(p)))),
        Case("a tensor is missing", _refuses(_without("key.bias"))),
        Case("a LayerNorm is missing", _refuses(_without("output.LayerNorm"))),
        Case("a tensor is left over", _refuses(lambda p: p | {"encoder.layer.1.bias": p[WORD]})),
        Case("a misspelt tensor", _refuses(lambda p: _without(WORD)(p) | {WORD[:-3]: p[WORD]})),
        Case("a tensor of another shape", _refuses(lambda p: p | {POSITION: p[WORD]})),
        Case("nothing at all", _refuses(lambda public: {})),
    ),
    mistakes=(
        Mistake(
            lambda model, public: model.load_state_dict(_renamed(public), strict=False) and None,
            "It is not strict: missing and left-over tensors pass without a word.",
        ),
        Mistake(
            lambda model, public: model.load_state_dict(public, strict=False) and None,
            "It is not strict, so tensors under other names are silently not loaded.",
        ),
        Mistake(
            lambda model, public: (
                model.load_state_dict(_renamed(public, norms=False), strict=False) and None
            ),
            "It is not strict, so gamma and beta are silently not loaded.",
        ),
        Mistake(
            lambda model, public: model.load_state_dict(_fitting(model, public)) and None,
            "Whatever has no place in the model is left out without a word: only cls. and "
            "position_ids may be.",
        ),
        Mistake(
            lambda model, public: (
                model.load_state_dict(model.state_dict() | _renamed(public)) and None
            ),
            "A missing tensor keeps its random start without a word: it has to be an error.",
        ),
        Mistake(
            lambda model, public: (
                model.load_state_dict(model.state_dict() | _fitting(model, public, False)) and None
            ),
            "It takes what fits in name and shape and keeps the random start of the rest, without "
            "a word: all of that has to be an error.",
        ),
        Mistake(
            _load_transposed,
            "Square matrices are transposed: torch's public checkpoints are stored as torch has "
            "them.",
        ),
        Mistake(
            lambda model, public: (
                model.load_state_dict({n.lstrip("bert."): t for n, t in _renamed(public).items()})
                and None
            ),
            "`lstrip` takes away letters, not a word in front: *embeddings* loses its e. "
            "`removeprefix` is for words.",
        ),
        Mistake(
            lambda model, public: model.load_state_dict(_renamed(public, prefix=False)) and None,
            "Names that begin with bert. are not understood.",
        ),
        Mistake(
            lambda model, public: model.load_state_dict(_renamed(public, norms=False)) and None,
            "gamma and beta are not understood: they are LayerNorm's weight and bias.",
        ),
        Mistake(
            lambda model, public: model.load_state_dict(_renamed(public, heads=False)) and None,
            "The heads of the pretraining (cls.) or position_ids are not left out.",
        ),
    ),
    notes="""
`strict=False` makes every error message go away, and with old names leaves all LayerNorms at their
start. The check loads checkpoints that must be refused. 3 points.
""",
)

EXERCISES = (
    WORDPIECE,
    LAYER_NORM,
    LAYER_NORM_CLASS,
    EMBEDDINGS,
    ADD_NORM,
    ADD_NORM_CLASS,
    ATTENTION,
    FEED_FORWARD,
    LAYER,
    RUN_LAYER,
    ENCODER,
    POOLER,
    BERT,
    LOAD_PUBLIC,
)
