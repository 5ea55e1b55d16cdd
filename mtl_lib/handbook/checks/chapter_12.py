"""Exercises of chapter 12: a model worth having, rung by rung.

Shapes: B pairs, H size of a sentence vector, L tokens of the longest pair, T tasks, S seeds, N
examples.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from mtl_lib import model
from mtl_lib.handbook.checks.framework import (
    Case,
    Exercise,
    Mistake,
    call,
    draw,
    tensor,
    with_gradient,
)
from mtl_lib.handbook.checks.precise import question

# word_cosine

Words = Sequence[str]
Idf = Mapping[str, float]


def word_cosine(first: Words, second: Words, idf: Idf) -> float:
    """Cosine of two bags of words, each word's count times its idf (Salton and Buckley, 1988).

    Words that `idf` does not hold are left out. A bag with nothing in it has the cosine 0.
    """
    return _word_score()(first, second, idf)


def _plain_counts(words: Words, idf: Idf) -> dict[str, float]:
    return {word: float(count) for word, count in Counter(words).items() if word in idf}


def _every_count(words: Words, idf: Idf) -> dict[str, float]:
    return {word: float(count) for word, count in Counter(words).items()}


def _weighed(words: Words, idf: Idf) -> dict[str, float]:
    return {word: count * idf[word] for word, count in _plain_counts(words, idf).items()}


def _present(words: Words, idf: Idf) -> dict[str, float]:
    return {word: idf[word] for word in words if word in idf}


def _unknown_as_one(words: Words, idf: Idf) -> dict[str, float]:
    return {word: count * idf.get(word, 1.0) for word, count in Counter(words).items()}


def _root_weighed(words: Words, idf: Idf) -> dict[str, float]:
    return {word: count * idf[word] ** 0.5 for word, count in _plain_counts(words, idf).items()}


def _length(bag: dict[str, float]) -> float:
    return math.sqrt(sum(value * value for value in bag.values()))


def _dot(u: dict[str, float], v: dict[str, float]) -> float:
    return sum(value * v[word] for word, value in u.items() if word in v)


def _word_score(
    bag: Callable = _weighed,
    size: Callable | None = None,
    other: Callable | None = None,
    sizes: Callable = lambda u, v: _length(u) * _length(v),
    empty: Callable[[], float] = lambda: 0.0,
) -> Callable:
    """The cosine with one part or another changed.

    Args:
        bag, other: weights of the words of the first, the second sentence.
        size: weights of the words by which the lengths are measured.
        sizes: what the inner product is divided by.
        empty: what is given where that is 0.
    """

    def score(first: Words, second: Words, idf: Idf) -> float:
        u, v = bag(first, idf), (other or bag)(second, idf)
        if size:
            below = sizes(size(first, idf), size(second, idf))
        else:
            below = sizes(u, v)
        return _dot(u, v) / below if below else empty()

    return score


def _of_common_words(first: Words, second: Words, idf: Idf) -> float:
    """The lengths measured over the words that stand in both sentences."""
    u, v = _weighed(first, idf), _weighed(second, idf)
    common = u.keys() & v.keys()
    below = math.prod(_length({word: bag[word] for word in common}) for bag in (u, v))
    return _dot(u, v) / below if below else 0.0


def _divides_by_zero() -> float:
    raise ZeroDivisionError


def _shared_of_all(first: Words, second: Words, idf: Idf) -> float:
    one, two = set(first), set(second)
    return len(one & two) / len(one | two) if one | two else 0.0


_IDF = {
    "the": 0.25, "was": 0.5, "who": 1.0, "film": 1.25, "directed": 2.0, "edited": 2.5,
    "silent": 3.0, "river": 3.5,
}  # fmt: skip

WORD_COSINE = Exercise(
    name="word_cosine",
    chapter=12,
    title="the floor: words alone",
    difficulty=2,
    importance=4,
    minutes=10,
    task="""
Write `word_cosine(first, second, idf)`: how alike two sentences are, by their words alone.

- `first`, `second`: lists of words, such as `["who", "directed", "the", "film"]`; a word may stand
  there more than once.
- `idf`: a dict from word to weight; rare words weigh more. Words that it does not hold are left
  out.
- A sentence is a bag: each of its words has the value *count times idf*. Return the cosine of the
  two bags, a number; 0.0 if there is nothing (left) in one of them.
""",
    hint="""
`collections.Counter` counts. Make the two bags first, as dicts; only words that stand in both enter
the inner product, but every word enters the length of its own bag.
""",
    reference=word_cosine,
    cases=(
        question(
            "two questions",
            ["who", "directed", "the", "silent", "film"],
            ["who", "edited", "the", "film"],
            _IDF,
        ),
        question(
            "words that stand there twice",
            ["the", "river", "the", "film", "the", "river"],
            ["the", "film", "was", "the", "river"],
            _IDF,
        ),
        question(
            "the same words in another order",
            ["the", "river", "was", "silent"],
            ["silent", "was", "the", "river"],
            _IDF,
        ),
        question("no word in common", ["who", "directed"], ["the", "silent", "river"], _IDF),
        question(
            "words without an idf",
            ["who", "filmed", "the", "dull", "film"],
            ["who", "filmed", "the", "long", "river"],
            _IDF,
        ),
        question("an empty sentence", [], ["the", "film"], _IDF),
        question("nothing left of the second", ["the", "film"], ["dull", "dull"], _IDF),
        question("one word each", ["film"], ["film"], _IDF),
    ),
    mistakes=(
        *(
            Mistake(
                _word_score(bag),
                "The idf is left out: `the` counts as much as `river`.",
            )
            for bag in (_plain_counts, _every_count)
        ),
        Mistake(
            _word_score(_present),
            "Each word counts once however often it stands there: multiply its idf by its count.",
        ),
        *(
            Mistake(
                _word_score(bag, size=size, other=other),
                "The idf enters the inner product once only: *both* bags are weighed before they "
                "are multiplied.",
            )
            for bag, size, other in (
                (_root_weighed, _weighed, None),
                (_root_weighed, None, None),
                (_weighed, None, _plain_counts),
                (_plain_counts, None, _weighed),
            )
        ),
        Mistake(
            _word_score(size=_plain_counts),
            "The lengths are those of the plain counts: the bags that are multiplied give the "
            "lengths too.",
        ),
        *(
            Mistake(
                _word_score(sizes=sizes),
                "The inner product is not divided by both lengths: longer sentences would look "
                "more alike.",
            )
            for sizes in (
                lambda u, v: 1.0,
                lambda u, v: _length(u),
                lambda u, v: _length(v),
            )
        ),
        Mistake(
            _word_score(sizes=lambda u, v: _length(u) ** 2 * _length(v) ** 2),
            "It divides by the squared lengths: a root is missing.",
        ),
        *(
            Mistake(
                _word_score(sizes=sizes),
                "It divides by the sums of the values; the length of a vector is the root of the "
                "sum of its squares.",
            )
            for sizes in (
                lambda u, v: sum(u.values()) * sum(v.values()),
                lambda u, v: sum(u.values()) + sum(v.values()),
            )
        ),
        *(
            Mistake(
                _word_score(empty=empty),
                "A bag with nothing in it has the length 0, and you divide by it: the cosine is 0 "
                "there.",
            )
            for empty in (lambda: math.nan, _divides_by_zero)
        ),
        Mistake(
            _of_common_words,
            "The lengths are those of the common words alone: every known word adds to the length "
            "of its own sentence, or two long ones with one word in common are all alike.",
        ),
        Mistake(
            _word_score(_unknown_as_one),
            "Words without an idf are counted with weight 1; leave them out.",
        ),
        Mistake(
            lambda first, second, idf: 1 - word_cosine(first, second, idf),
            "This is one minus the cosine, a distance: alike sentences shall have a high value.",
        ),
        Mistake(
            _shared_of_all,
            "This is the share of common words (Jaccard): neither counts nor idf enter it.",
        ),
    ),
    notes="""
A floor has to be honest: the usual slips (no idf, sets in place of counts) make it weaker, and the
network look better. 2 points.
""",
)

# pair_features


def pair_features(u: Tensor, v: Tensor) -> Tensor:
    """`model.pair_features` of two tensors `[B, H]`: [u; v; |u - v|; u * v], `[B, 4H]`."""
    return model.pair_features(torch.cat([u, v], dim=1), "compare")


def _parts(*parts: Callable[[Tensor, Tensor], Tensor], dim: int = 1) -> Callable:
    """A variant: these functions of u and v, joined."""
    return lambda u, v: torch.cat([part(u, v) for part in parts], dim=dim)


def _u(u: Tensor, v: Tensor) -> Tensor:
    return u


def _v(u: Tensor, v: Tensor) -> Tensor:
    return v


def _gap(u: Tensor, v: Tensor) -> Tensor:
    return (u - v).abs()


def _product(u: Tensor, v: Tensor) -> Tensor:
    return u * v


_ALL = (_u, _v, _gap, _product)


def _features_asks(size: int, width: int, seed: int) -> Callable:
    u, v = draw(size, width, seed=seed), draw(size, width, seed=seed + 1)
    return lambda answer: with_gradient(answer, u=u, v=v)


_SAME = draw(2, 3, seed=3)


def _equal_asks(answer: Callable) -> dict[str, Any]:
    """Of two equal sentences, where |u - v| has a corner: the value, and whether a step can use it.

    Any slope from -1 to 1 will do there; what is not a number ends the training.
    """
    found = with_gradient(answer, u=_SAME, v=_SAME)
    if "gradients" in found:  # detached
        return found
    value = found.pop("value")
    finite = all(bool(gradient.isfinite().all()) for gradient in found.values())
    return {"value": value, "the gradients are numbers": finite}


def _by_a_root(u: Tensor, v: Tensor) -> Tensor:
    return ((u - v) ** 2).sqrt()


PAIR_FEATURES = Exercise(
    name="pair_features",
    chapter=12,
    title="what a comparing head sees",
    section="Beyond the paper",
    difficulty=1,
    importance=5,
    minutes=5,
    task="""
Write `pair_features(u, v)`: the features from which a linear layer can compare two sentences.

- `u`, `v`: sentence vectors `[B, H]`, the first and the second sentence of B pairs.
- Return `[B, 4H]`: for each pair u, v, the size of their difference $|u - v|$ and their product
  $u * v$, number by number, one after the other in this order. Gradients flow back to u and v.
""",
    hint="""
Four blocks of width H side by side: which of the two dimensions grows?
""",
    reference=pair_features,
    cases=(
        Case("three pairs of width 4", _features_asks(3, 4, 1)),
        Case("one pair", _features_asks(1, 5, 4)),
        Case("as many pairs as numbers", _features_asks(4, 4, 7)),
        Case("width 1", _features_asks(3, 1, 9)),
        Case("two equal sentences", _equal_asks),
    ),
    mistakes=(
        *(
            Mistake(
                _parts(_u, _v, gap, _product),
                "The difference keeps its sign: without |..| the block is only u - v, which a "
                "linear layer could form from u and v itself.",
            )
            for gap in (lambda u, v: u - v, lambda u, v: v - u)
        ),
        Mistake(
            _parts(_u, _v, lambda u, v: (u - v) ** 2, _product),
            "The difference is squared; asked is its size, |u - v|.",
        ),
        *(
            Mistake(
                _parts(*parts),
                "The blocks stand in another order; asked is u, v, |u - v|, u * v. Weights that "
                "were trained with one order are useless with another.",
            )
            for parts in (
                (_u, _v, _product, _gap),
                (_v, _u, _gap, _product),
                (_gap, _product, _u, _v),
                (_product, _gap, _u, _v),
            )
        ),
        Mistake(
            _parts(*_ALL, dim=0),
            "The blocks lie below each other, `[4B, H]`: join them along the last dimension.",
        ),
        *(
            Mistake(
                lambda u, v, dim=dim: torch.stack([part(u, v) for part in _ALL], dim=dim),
                "The blocks are stacked, which adds a dimension: join them to `[B, 4H]`.",
            )
            for dim in (0, 1, 2)
        ),
        Mistake(
            lambda u, v: sum(part(u, v) for part in _ALL),
            "The four are added up: keep them apart, side by side.",
        ),
        Mistake(
            _parts(_u, _v),
            "This is [u; v], what an additive head sees: the two blocks that compare are missing.",
        ),
        Mistake(
            _parts(_gap, _product),
            "u and v themselves are missing: asked are all four blocks.",
        ),
        Mistake(
            _parts(_u, _v, _gap),
            "The product u * v is missing.",
        ),
        *(
            Mistake(
                _parts(_u, _v, _gap, lambda u, v, keep=keep: keep((u * v).sum(1, keepdim=True), u)),
                "The product is summed up to the inner product; keep it number by number.",
            )
            for keep in (lambda s, u: s, lambda s, u: s.expand_as(u))
        ),
        Mistake(
            _parts(_u, _v, lambda u, v: (u - v).norm(dim=1, keepdim=True), _product),
            "The difference is summed up to a distance; keep it number by number, `[B, H]`.",
        ),
        Mistake(
            _parts(_u, _v, lambda u, v: u.abs() - v.abs(), _product),
            "The size is taken before the difference: |u| - |v| is not |u - v|.",
        ),
        Mistake(
            _parts(_u, _v, _by_a_root, _product),
            "The root of a square has no gradient at 0: the first pair of equal sentences would "
            "turn all weights into NaN. Take the absolute value.",
        ),
    ),
    notes="""
Without the absolute value everything runs and has the right width, and one of the two blocks that
compare is gone. 1 point.
""",
)

# join_pair

Ids = list[int]


def join_pair(first: Ids, second: Ids, cls: int, sep: int) -> tuple[Ids, Ids]:
    """Token and segment ids of `[CLS] first [SEP] second [SEP]` (Devlin et al., 2019, figure 2)."""
    ids = [cls, *first, sep, *second, sep]
    return ids, [0] * (len(first) + 2) + [1] * (len(second) + 1)


def _joined(
    row: Callable[[Ids, Ids, int, int], Ids],
    zeros: Callable[[int, int, int], int] = lambda n, m, length: n + 2,
) -> Callable:
    """A variant: its row, and how many tokens have segment 0, from the lengths n, m, row."""

    def variant(first: Ids, second: Ids, cls: int, sep: int) -> tuple[Ids, Ids]:
        ids = row(first, second, cls, sep)
        count = zeros(len(first), len(second), len(ids))
        return ids, [0] * count + [1] * (len(ids) - count)

    return variant


def _row(a: Ids, b: Ids, cls: int, sep: int) -> Ids:
    return [cls, *a, sep, *b, sep]


def _segments(change: Callable[[Ids, int, int], Ids]) -> Callable:
    """A variant: the right row, and segments changed by `change(segments, n, m)`."""

    def variant(first: Ids, second: Ids, cls: int, sep: int) -> tuple[Ids, Ids]:
        ids, segments = join_pair(first, second, cls, sep)
        return ids, change(segments, len(first), len(second))

    return variant


def _pair_asks(first: Ids, second: Ids, cls: int, sep: int) -> Callable:
    def ask(answer: Callable) -> dict[str, Any]:
        result = call(answer, first, second, cls, sep)
        parts = result if isinstance(result, tuple | list) else [result]
        return {"value": result, "two lists": all(isinstance(part, list) for part in parts)}

    return ask


JOIN_PAIR = Exercise(
    name="join_pair",
    chapter=12,
    title="a pair in one row",
    section="Beyond the paper",
    difficulty=2,
    importance=5,
    minutes=10,
    task="""
Write `join_pair(first, second, cls, sep)`: two sentences as BERT reads a pair, in one row.

- `first`, `second`: lists of token ids, without special tokens; either may be empty. `cls`, `sep`:
  the ids of `[CLS]` and `[SEP]`.
- Return two lists of the same length. The first is the row `[CLS] first [SEP] second [SEP]`. The
  other has a segment id for each token of the row: 0 up to and including the first `[SEP]`, 1 from
  there on.
""",
    hint="""
The row holds three special tokens. Which of them belong to segment 0? Count on your fingers for two
words and one word.
""",
    reference=join_pair,
    cases=(
        Case("two words and three", _pair_asks([11, 12], [13, 14, 15], 1, 2)),
        Case("four words and one", _pair_asks([21, 22, 23, 24], [25], 101, 102)),
        Case("the same sentence twice", _pair_asks([7, 8], [7, 8], 1, 2)),
        Case("the second is empty", _pair_asks([31, 32], [], 1, 2)),
        Case("the first is empty", _pair_asks([], [41, 42, 43], 101, 102)),
    ),
    mistakes=(
        *(
            Mistake(
                _joined(lambda a, b, cls, sep: [cls, *a, sep, cls, *b, sep], zeros),
                "The second sentence has a [CLS] of its own: a pair has one, at the start.",
            )
            for zeros in (lambda n, m, length: n + 2, lambda n, m, length: n + 3)
        ),
        *(
            Mistake(
                _joined(lambda a, b, cls, sep: [cls, *a, sep, *b], zeros),
                "The second [SEP], behind the second sentence, is missing.",
            )
            for zeros in (lambda n, m, length: n + 2, lambda n, m, length: n + 1)
        ),
        *(
            Mistake(
                _joined(lambda a, b, cls, sep: [cls, *a, *b, sep], zeros),
                "Nothing stands between the two sentences: the first [SEP] is missing.",
            )
            for zeros in (lambda n, m, length: n + 1, lambda n, m, length: n + 2)
        ),
        *(
            Mistake(
                _joined(lambda a, b, cls, sep: [cls, *a, sep, sep, *b, sep], zeros),
                "Two [SEP] stand between the sentences: BERT was pretrained with one.",
            )
            for zeros in (lambda n, m, length: n + 2, lambda n, m, length: n + 3)
        ),
        *(
            Mistake(
                _joined(lambda a, b, cls, sep: [*a, sep, *b, sep], zeros),
                "The [CLS] is missing, whose vector stands for the pair.",
            )
            for zeros in (lambda n, m, length: n + 1, lambda n, m, length: n)
        ),
        Mistake(
            _joined(_row, lambda n, m, length: n + 1),
            "The first [SEP] is in segment 1: it closes the first sentence and belongs to it.",
        ),
        Mistake(
            _joined(_row, lambda n, m, length: n),
            "Segment 1 starts too early: [CLS] and the first [SEP] count for segment 0 as well.",
        ),
        Mistake(
            _joined(_row, lambda n, m, length: length),
            "All segments are 0: the encoder is not told where the second sentence starts.",
        ),
        Mistake(
            _segments(lambda s, n, m: [1 - x for x in s]),
            "The segments are exchanged: the first sentence has 0.",
        ),
        Mistake(
            _segments(lambda s, n, m: [x + 1 for x in s]),
            "The segments are counted from 1: there are two, 0 and 1.",
        ),
        Mistake(
            _segments(lambda s, n, m: [*s[:-1], 0]),
            "The last [SEP] is in segment 0: it closes the second sentence and belongs to it.",
        ),
        Mistake(
            _segments(lambda s, n, m: [0] * n + [1] * m),
            "The special tokens have no segment: the two lists have to be equally long.",
        ),
        Mistake(
            lambda first, second, cls, sep: join_pair(second, first, cls, sep),
            "The second sentence stands first.",
        ),
        Mistake(
            lambda *given: tuple(map(tuple, join_pair(*given))),
            "The values are right but stand in no lists, and later cells join and search lists.",
        ),
    ),
    notes="""
A wrong segment of one [SEP] costs little and is never noticed; a second [CLS] costs more. 2 points.
""",
)

# join_batch

Pairs = list[tuple[Ids, Ids]]


def join_batch(pairs: Pairs, cls: int, sep: int, pad: int) -> dict[str, Tensor]:
    """`join_pair` of B pairs, padded behind: input_ids, attention_mask, token_type_ids `[B, L]`."""
    return _batched()(pairs, cls, sep, pad)


def _batched(
    mask: Callable[[Tensor, Tensor, int], Tensor] = lambda ids, real, pad: real,
    filled: Callable[[int], int] = lambda pad: pad,
    segment: Callable[[Ids, int], int] = lambda segments, pad: 0,
    length: Callable[[Iterable[int]], int] = max,
    left: bool = False,
    join: Callable = join_pair,
) -> Callable:
    """The batch with one part or another changed.

    Args:
        mask: from the padded ids, the right mask and the pad's id.
        filled, segment: what padding gets as id and as segment.
        length: of the rows, from those of all pairs; longer rows are cut.
        left: whether the padding stands in front.
        join: what makes a row of a pair.
    """

    def variant(pairs: Pairs, cls: int, sep: int, pad: int) -> dict[str, Tensor]:
        rows = [join(*pair, cls, sep) for pair in pairs]
        width = length([len(ids) for ids, _ in rows])

        def stretched(row: Ids, fill: int) -> Ids:
            padding = [fill] * (width - len(row))
            return padding + row if left else (row + padding)[:width]

        input_ids = torch.tensor([stretched(ids, filled(pad)) for ids, _ in rows])
        real = torch.tensor([stretched([1] * len(ids), 0) for ids, _ in rows])
        types = [stretched(segments, segment(segments, pad)) for _, segments in rows]
        return {
            "input_ids": input_ids,
            "attention_mask": mask(input_ids, real, pad),
            "token_type_ids": torch.tensor(types),
        }

    return variant


def _padded_apart(pairs: Pairs, cls: int, sep: int, pad: int) -> dict[str, Tensor]:
    """Each sentence padded to the longest of its side before the two are joined."""
    widths = [max(len(pair[side]) for pair in pairs) for side in (0, 1)]
    rows, masks, types = [], [], []
    for pair in pairs:
        (a, b), (n, m) = pair, widths
        behind = [pad] * (n - len(a)), [pad] * (m - len(b))
        rows.append([cls, *a, sep, *behind[0], *b, sep, *behind[1]])
        kept = [1] * (len(a) + 2), [1] * (len(b) + 1)
        masks.append(kept[0] + [0] * len(behind[0]) + kept[1] + [0] * len(behind[1]))
        types.append([0] * (n + 2) + [1] * (m + 1))
    return {
        "input_ids": torch.tensor(rows),
        "attention_mask": torch.tensor(masks),
        "token_type_ids": torch.tensor(types),
    }


def _batch_asks(pairs: Pairs, cls: int, sep: int, pad: int) -> Callable:
    def ask(answer: Callable) -> dict[str, Any]:
        result = call(answer, pairs, cls, sep, pad)
        if not isinstance(result, Mapping):
            return {"value": result}
        tensors = {name: tensor(value) for name, value in result.items()}
        whole = not any(value.is_floating_point() for value in tensors.values())
        real = all(isinstance(value, Tensor) for value in result.values())
        return {"value": tensors, "whole numbers": whole, "tensors": real}

    return ask


def _values(of: Callable[[Tensor], Any]) -> Callable:
    """A variant: the right batch with its values as something other than tensors."""
    return lambda *given: {name: of(value) for name, value in join_batch(*given).items()}


_MASK_NOT_PAD = (
    "The mask is read off the ids, so that a [PAD] which somebody wrote in a sentence is masked "
    "as well: lengths say what is real."
)

JOIN_BATCH = Exercise(
    name="join_batch",
    chapter=12,
    title="a batch of pairs",
    section="Beyond the paper",
    difficulty=3,
    importance=4,
    minutes=15,
    task="""
Write `join_batch(pairs, cls, sep, pad)`: B pairs as an encoder takes them.

- `pairs`: a list of `(first, second)`, token ids as in `join_pair`, which you may call.
- `pad`: the id of `[PAD]`. It may be any number, and a sentence may hold it too: tokenizers turn a
  `[PAD]` that somebody typed into this very id.
- Return a dict of three tensors `[B, L]` of whole numbers, L being the length of the longest row:
  `"input_ids"`, shorter rows padded behind; `"attention_mask"`, 1 for every token of a row, special
  tokens included, and 0 for padding; `"token_type_ids"`, the segments, 0 for padding.
""",
    hint="""
Join all pairs first; then you know L, and how much padding each row needs. The three tensors need
three fillings: which?
""",
    reference=join_batch,
    cases=(
        Case(
            "three pairs",
            _batch_asks([([11, 12], [13]), ([14], [15, 16, 17, 18]), ([19], [20])], 1, 2, 0),
        ),
        Case(
            "[PAD] has the id 9",
            _batch_asks([([11, 0], [13, 14, 0]), ([15], [16]), ([17, 18, 19], [12])], 3, 4, 9),
        ),
        Case(
            "a sentence that holds [PAD]",
            _batch_asks([([11, 9, 12], [13]), ([14], [9])], 3, 4, 9),
        ),
        Case("one pair", _batch_asks([([11, 12], [13, 14])], 101, 102, 0)),
        Case("equally long rows", _batch_asks([([11], [12, 13]), ([14, 15], [16])], 1, 2, 0)),
        Case("an empty second sentence", _batch_asks([([11], []), ([12, 13], [14])], 1, 2, 5)),
    ),
    mistakes=(
        *(
            Mistake(
                _batched(mask=mask),
                "The mask asks for ids other than 0; [PAD] may have any id, and a word the id 0. "
                "Lengths say what is real.",
            )
            for mask in (lambda ids, real, pad: (ids != 0).long(), lambda ids, real, pad: ids != 0)
        ),
        *(
            Mistake(_batched(mask=mask), _MASK_NOT_PAD)
            for mask in (
                lambda ids, real, pad: (ids != pad).long(),
                lambda ids, real, pad: ids != pad,
            )
        ),
        *(
            Mistake(
                _batched(segment=segment),
                "The padding has segment 1: asked is 0.",
            )
            for segment in (lambda segments, pad: 1, lambda segments, pad: segments[-1])
        ),
        Mistake(
            _batched(segment=lambda segments, pad: pad),
            "The segments are padded with the id of [PAD]: only the input ids are. There are two "
            "segments, so an encoder would fail on the number 9.",
        ),
        *(
            Mistake(
                _batched(filled=lambda pad: 0, mask=mask),
                "The ids are padded with 0, whatever id [PAD] has.",
            )
            for mask in (lambda ids, real, pad: real, lambda ids, real, pad: (ids != 0).long())
        ),
        Mistake(
            _batched(left=True),
            "The padding stands in front: [CLS] has to be the first token of its row.",
        ),
        Mistake(
            _batched(mask=lambda ids, real, pad: 1 - real),
            "The mask is upside down: 1 is for what is real.",
        ),
        Mistake(
            _batched(mask=lambda ids, real, pad: torch.ones_like(real)),
            "The mask is 1 everywhere: padding would be read as words.",
        ),
        Mistake(
            _batched(
                mask=lambda ids, real, pad: real * (ids != ids[0, 0]),
            ),
            "The mask hides [CLS]: special tokens are read as well.",
        ),
        Mistake(
            _batched(length=min),
            "Rows are cut to the shortest: the others lose words.",
        ),
        Mistake(
            _batched(length=lambda lengths: max(lengths) + 1),
            "Every row is one longer than the longest needs.",
        ),
        Mistake(
            _batched(join=_segments(lambda s, n, m: [0] * len(s))),
            "All segments are 0: the encoder is not told where the second sentence starts.",
        ),
        Mistake(
            _batched(join=_joined(_row, lambda n, m, length: n + 1)),
            "The first [SEP] is in segment 1: it closes the first sentence and belongs to it.",
        ),
        Mistake(
            _batched(mask=lambda ids, real, pad: real.bool()),
            "The mask holds true and false; asked are the whole numbers 1 and 0.",
        ),
        *(
            Mistake(
                _values(of),
                "The values are right but no tensors, and an encoder takes nothing else.",
            )
            for of in (Tensor.tolist, Tensor.numpy)
        ),
        Mistake(
            _values(Tensor.float),
            "The values are floats: give `torch.zeros` and `torch.full` a dtype of whole numbers, "
            "for an encoder looks ids up.",
        ),
        Mistake(
            _padded_apart,
            "Each sentence is padded on its own before the two are joined, so padding lies between "
            "them: pad the joined row.",
        ),
    ),
    notes="""
Everybody writes `ids != pad`; it is right until a reader types `[PAD]`. Padding the segments with
the pad's id works as long as that is 0. 3 points.
""",
)

# sampling_probabilities


def sampling_probabilities(sizes: Sequence[int], power: float) -> Tensor:
    """Probability that a batch is of each task, in proportion to size^power: `[T]`."""
    weights = torch.tensor(sizes, dtype=torch.float64) ** power
    return weights / weights.sum()


def _probabilities(of: Callable[[Tensor, float], Tensor]) -> Callable:
    """A variant: from the sizes `[T]` and the power."""
    return lambda sizes, power: of(torch.tensor(sizes, dtype=torch.float64), power)


_REAL = [8544, 43086, 6040]

SAMPLING_PROBABILITIES = Exercise(
    name="sampling_probabilities",
    chapter=12,
    title="whose turn is it?",
    section="Beyond the paper",
    difficulty=1,
    importance=4,
    minutes=5,
    task="""
Write `sampling_probabilities(sizes, power)`: with what probability the next batch is of each task.

- `sizes`: a list, how many training examples each of T tasks has, each at least 1.
- `power`: from 0 (all tasks alike) to 1 (in proportion to the sizes); 0.5 is the square root.
- Return T probabilities in proportion to $N_i^{power}$, with sum 1.
""",
    hint="""
Power first, then divide by the sum. What do you get for `power=0`?
""",
    reference=sampling_probabilities,
    cases=(
        question("the real corpora, square root", _REAL, 0.5),
        question("power 1", _REAL, 1.0),
        question("power 0", _REAL, 0.0),
        question("power 0.2", [100, 10000], 0.2),
        question("four tasks, one of them with one example", [1, 16, 81, 4], 0.5),
        question("one task", [300], 0.7),
    ),
    mistakes=(
        Mistake(
            _probabilities(lambda n, power: n**power),
            "They do not add up to 1: divide by their sum.",
        ),
        Mistake(
            _probabilities(lambda n, power: (n / n.sum()) ** power),
            "The shares are raised to the power and not divided by their sum again.",
        ),
        Mistake(
            _probabilities(lambda n, power: n**power / n.sum()),
            "It divides by the sum of the sizes; the sum of the *powers* makes it 1.",
        ),
        Mistake(
            _probabilities(lambda n, power: n**power / (n**power).max()),
            "The largest task has 1: divide by the sum, not by the largest.",
        ),
        Mistake(
            _probabilities(lambda n, power: n / n.sum()),
            "The power has no effect: every task comes in proportion to its size.",
        ),
        Mistake(
            _probabilities(lambda n, power: n.sqrt() / n.sqrt().sum()),
            "It is always the square root, whatever `power` says.",
        ),
        Mistake(
            _probabilities(lambda n, power: torch.ones_like(n) / len(n)),
            "Every task has the same probability: that is power 0 only.",
        ),
        *(
            Mistake(
                _probabilities(of),
                "A softmax is no proportion: its exponential gives nearly everything to the "
                "largest task.",
            )
            for of in (
                lambda n, power: (n**power).softmax(dim=0),
                lambda n, power: (power * n).softmax(dim=0),
                lambda n, power: (n / n.sum() * power).softmax(dim=0),
            )
        ),
        Mistake(
            _probabilities(lambda n, power: n**-power / (n**-power).sum()),
            "It is upside down: the smallest task comes most often.",
        ),
        Mistake(
            _probabilities(lambda n, power: n ** (1 - power) / (n ** (1 - power)).sum()),
            "The power runs backwards: 0 makes all tasks alike, 1 follows the sizes.",
        ),
        Mistake(
            _probabilities(lambda n, power: n ** (power - 1) / (n ** (power - 1)).sum()),
            "This is how often each *example* is seen, beside those of other tasks; asked is the "
            "task of a batch.",
        ),
        Mistake(
            _probabilities(lambda n, power: power * n / n.sum() + (1 - power) / len(n)),
            "This mixes the two extremes by a straight line; asked is a power of the sizes.",
        ),
    ),
    notes="""
Normalising before the power and not after it is the usual slip. 1 point.
""",
)

# annealed_power


def annealed_power(epoch: int, epochs: int) -> float:
    """Power of the sizes by which an epoch samples, 1 to 0.2 (Stickland and Murray, 2019)."""
    return 1 - 0.8 * (epoch - 1) / max(1, epochs - 1)


def _powers(epochs: int) -> Case:
    def ask(answer: Callable) -> dict[str, float]:
        found = {n: call(answer, n, epochs) for n in range(1, epochs + 1)}
        return {f"in epoch {n}": float(power) for n, power in found.items()}

    return Case(f"{epochs} epochs" if epochs > 1 else "one epoch", ask)


ANNEALED_POWER = Exercise(
    name="annealed_power",
    chapter=12,
    title="from large to equal",
    section="Beyond the paper",
    difficulty=1,
    importance=2,
    minutes=5,
    task="""
Write `annealed_power(epoch, epochs)`: the power by which the tasks of an epoch are drawn, by
Stickland and Murray (2019): with e the epoch, counted from 1, and E epochs in all

$$\\alpha_e = 1 - 0.8\\, \\frac{e - 1}{E - 1}$$

Return a number. A training of a single epoch samples by power 1.
""",
    hint="""
What is the power in the first and in the last epoch? And what does the formula divide by if there
is only one?
""",
    reference=annealed_power,
    cases=(_powers(5), _powers(10), _powers(2), _powers(1)),
    mistakes=(
        Mistake(
            lambda e, n: 1 - 0.8 * (e - 1) / n,
            "It divides by E: the last epoch does not reach 0.2. There are E - 1 steps between E "
            "epochs.",
        ),
        Mistake(
            lambda e, n: 1 - 0.8 * e / n,
            "Epochs are counted from 1 here: in the first one the power is 1.",
        ),
        *(
            Mistake(
                lambda e, n, below=below: 1 - 0.8 * e / below(n),
                "Epochs are counted from 1 here: in the first one the power is 1.",
            )
            for below in (lambda n: n - 1, lambda n: max(1, n - 1))
        ),
        Mistake(
            lambda e, n: 1 - 0.8 * (e - 1) / (n - 1),
            "A training of one epoch divides by zero: then the power is 1.",
        ),
        Mistake(
            lambda e, n: 0.2 + 0.8 * (e - 1) / max(1, n - 1),
            "It rises: the sizes matter most at the start, and less and less after it.",
        ),
        Mistake(
            lambda e, n: 1 - (e - 1) / max(1, n - 1),
            "It falls to 0: the factor 0.8 is missing.",
        ),
        Mistake(
            lambda e, n: 0.8 * (1 - (e - 1) / max(1, n - 1)),
            "It starts at 0.8 and falls to 0; it starts at 1 and falls by 0.8.",
        ),
        Mistake(
            lambda e, n: 1 - 0.2 * (e - 1) / max(1, n - 1),
            "It falls by 0.2, to 0.8; it falls *by* 0.8, to 0.2.",
        ),
        Mistake(
            lambda e, n: 1 - 0.8 * ((e - 1) // max(1, n - 1)),
            "Whole-number division: the power stays 1 until the last epoch.",
        ),
        Mistake(
            lambda e, n: 0.2 ** ((e - 1) / max(1, n - 1)),
            "It falls by a factor each epoch; the formula falls in a straight line.",
        ),
    ),
    notes="""
Off by one at either end, and the single epoch, which divides by zero. 1 point.
""",
)

# layer_rates


def layer_rates(lr: float, decay: float, layers: int) -> list[float]:
    """Learning rates of embeddings and layers, lowest first (Howard and Ruder, 2018)."""
    return [lr * decay ** (layers - layer) for layer in range(layers + 1)]


def _rates(of: Callable[[int, int, float], float], start: int = 0, end: int = 1) -> Callable:
    """A variant: the factor of each layer from (layer, layers, decay)."""
    return lambda lr, decay, layers: [
        lr * of(layer, layers, decay) for layer in range(start, layers + end)
    ]


LAYER_RATES = Exercise(
    name="layer_rates",
    chapter=12,
    title="a rate for each layer",
    section="Beyond the paper",
    difficulty=2,
    importance=3,
    minutes=5,
    task="""
Write `layer_rates(lr, decay, layers)`: the learning rates of an encoder's parts.

- `lr`: the rate of the last layer, the one below the heads. `decay`: from 0 to 1. `layers`: L.
- Return a list of L + 1 rates: of the embeddings, of layer 1, .., of layer L. Going down, from
  layer L towards the embeddings, each part has `decay` times the rate of the part above it.
""",
    hint="""
The last number of your list is `lr`. How often has the first number been multiplied by `decay`?
""",
    reference=layer_rates,
    cases=(
        question("six layers, decay 0.9", 3e-5, 0.9, 6, atol=1e-12),
        question("two layers, decay 0.5", 1.0, 0.5, 2),
        question("one layer", 2.0, 0.25, 1),
        question("no decay", 1e-3, 1.0, 3, atol=1e-12),
        question("twelve layers, decay 0.8", 2e-5, 0.8, 12, atol=1e-12),
    ),
    mistakes=(
        Mistake(
            _rates(lambda layer, n, d: d**layer),
            "The list runs from the top down: the embeddings, which come first, have the lowest "
            "rate.",
        ),
        Mistake(
            _rates(lambda layer, n, d: d ** (n - layer + 1)),
            "The last layer is multiplied by `decay` already: its rate is `lr` itself.",
        ),
        Mistake(
            _rates(lambda layer, n, d: d ** (n - layer), start=1),
            "The embeddings are missing: L + 1 rates are asked for.",
        ),
        Mistake(
            _rates(lambda layer, n, d: d ** (n + 1 - layer), end=2),
            "A rate for the heads has come in: asked are the embeddings and L layers.",
        ),
        Mistake(
            _rates(lambda layer, n, d: d ** (n - max(layer, 1))),
            "The embeddings have the rate of layer 1: theirs is `decay` times that.",
        ),
        Mistake(
            _rates(lambda layer, n, d: d ** (layer - n)),
            "The rates grow towards the embeddings: multiply by `decay`, do not divide.",
        ),
        Mistake(
            _rates(lambda layer, n, d: d if layer < n else 1.0),
            "Every part below the last layer has the same rate; the decay applies again at each "
            "layer.",
        ),
        Mistake(
            _rates(lambda layer, n, d: d * (n - layer) if layer < n else 1.0),
            "The decay is multiplied by the number of layers; it is raised to that power.",
        ),
        Mistake(
            _rates(lambda layer, n, d: 1 - (1 - d) * (n - layer)),
            "The rates fall in a straight line; each is `decay` *times* the one above it.",
        ),
        Mistake(
            _rates(lambda layer, n, d: d + (1 - d) * layer / n),
            "The rates rise in a straight line from `decay` times `lr`; each is `decay` *times* "
            "the one above it.",
        ),
        Mistake(
            _rates(lambda layer, n, d: 1.0),
            "All parts have the same rate.",
        ),
    ),
    notes="""
The order, and the embeddings, which many forget or give the rate of layer 1. ELECTRA's recipe
counts the heads in, so that its last layer has `decay` times the rate. 1 point.
""",
)

# update_average

Weights = dict[str, Tensor]


def update_average(average: Weights, weights: Weights, step: int, decay: float) -> Weights:
    """Exponential moving average of weights; its decay warms up, min(d, (1 + t) / (10 + t))."""
    return _average()(average, weights, step, decay)


def _warmed(step: int, decay: float) -> float:
    return min(decay, (1 + step) / (10 + step))


def _average(
    share: Callable[[int, float], float] = _warmed,
    mix: Callable[[Tensor, Tensor, float], Tensor] = lambda a, w, d: d * a + (1 - d) * w,
    whole: Callable[[Tensor, Tensor, float], Tensor] = lambda a, w, d: w.clone(),
    floating: Callable[[Tensor], Tensor] = lambda w: w.detach(),
) -> Callable:
    """The average with one part or another changed.

    Args:
        share: how much of the old average stays, from step and decay.
        mix: of average, weights and share.
        whole: what becomes of a tensor of whole numbers, from average, weights and share.
        floating: the weights before they are mixed.
    """

    def variant(average: Weights, weights: Weights, step: int, decay: float) -> Weights:
        d = share(step, decay)
        return {
            name: mix(average[name], floating(w), d)
            if w.is_floating_point()
            else whole(average[name], w, d)
            for name, w in weights.items()
        }

    return variant


def _state(seed: int, trained: bool = False) -> Weights:
    state = {"weight": draw(2, 3, seed=seed), "bias": draw(3, seed=seed + 1)}
    return {name: value.requires_grad_(trained) for name, value in state.items()}


def _average_asks(steps: Sequence[int], decay: float, trained: bool = False) -> Callable:
    """The average over these steps, each with other weights; whether a graph hangs on it."""

    def ask(answer: Callable) -> dict[str, Any]:
        average = _state(50)
        for number, step in enumerate(steps):
            average = call(answer, average, _state(60 + 2 * number, trained), step, decay)
        graph = any(value.requires_grad for value in average.values())
        return {**{name: v.detach() for name, v in average.items()}, "needs a gradient": graph}

    return ask


def _whole_asks(answer: Callable) -> dict[str, Any]:
    average = {"positions": torch.tensor([0, 1, 2]), "seen": torch.tensor(3)}
    weights = {"positions": torch.tensor([0, 1, 2]), "seen": torch.tensor(8)}
    result = call(answer, average, weights, 5, 0.9)
    return {**result, "of whole numbers": not any(v.is_floating_point() for v in result.values())}


def _moves_on(answer: Callable) -> dict[str, Any]:
    """The average, after the weights that it was formed from have been trained further."""
    average, weights = _state(70), _state(72)
    weights["seen"] = torch.tensor(8)
    result = answer({**average, "seen": torch.tensor(3)}, weights, 90, 0.0)
    for value in weights.values():
        value.data += 1
    return {name: value.detach().clone() for name, value in result.items()}


UPDATE_AVERAGE = Exercise(
    name="update_average",
    chapter=12,
    title="the average of a training",
    section="Beyond the paper",
    difficulty=3,
    importance=4,
    minutes=15,
    task="""
Write `update_average(average, weights, step, decay)`: the moving average of a model's weights, one
step further.

- `average`, `weights`: dicts from name to tensor, the average so far and the weights now.
- `step`: updates made so far, 0 at the first one, t below. `decay`: such as 0.999.
- With $d = \\min(\\text{decay}, (1 + t) / (10 + t))$ return a **new** dict: for each name
  $d \\cdot \\text{average} + (1 - d) \\cdot \\text{weights}$. A tensor of whole numbers (a count,
  positions) is no weight: copy it from `weights`.
- Training goes on in `weights`, in place. What you return must not change with them, and no
  gradient may flow through it.
""",
    hint="""
`torch.no_grad()`, or `detach`. At step 0 the share of the old average is 0.1: the early average
trusts the new weights. `is_floating_point()` tells a weight from a count, and `clone` makes a copy.
""",
    reference=update_average,
    cases=(
        Case("step 0", _average_asks([0], 0.999)),
        Case("step 20", _average_asks([20], 0.999)),
        Case("late: step 100,000", _average_asks([100_000], 0.999)),
        Case("step 50 with decay 0.5", _average_asks([50], 0.5)),
        Case("four updates in a row", _average_asks([0, 1, 2, 3], 0.9)),
        Case("weights in training", _average_asks([7], 0.99, trained=True)),
        Case("whole numbers", _whole_asks),
        Case("the weights move on", _moves_on),
    ),
    mistakes=(
        Mistake(
            _average(mix=lambda a, w, d: (1 - d) * a + d * w),
            "The shares are exchanged: the old average has d, the new weights 1 - d.",
        ),
        Mistake(
            _average(lambda t, d: d),
            "The warm-up is missing, or never smaller than `decay` (brackets: (1 + t) / (10 + t)): "
            "after a few steps the average would still be the random start.",
        ),
        Mistake(
            _average(lambda t, d: max(d, (1 + t) / (10 + t))),
            "It takes the larger of the two: the warm-up can only *lower* the decay.",
        ),
        Mistake(
            _average(lambda t, d: (1 + t) / (10 + t)),
            "`decay` has no effect: however late, the share of the old average would go on "
            "growing.",
        ),
        Mistake(
            _average(lambda t, d: min(d, (2 + t) / (11 + t))),
            "The warm-up is a step ahead: the first update has t = 0.",
        ),
        Mistake(
            _average(lambda t, d: min(d, t / (9 + t))),
            "The warm-up is a step behind: at t = 0 a tenth of the old average stays.",
        ),
        Mistake(
            _average(lambda t, d: d * (1 + t) / (10 + t)),
            "Decay and warm-up are multiplied; the smaller of the two counts.",
        ),
        Mistake(
            _average(lambda t, d: (1 + t) / (2 + t)),
            "This is the plain mean over all steps, in which the start counts as much as the end.",
        ),
        Mistake(
            _average(mix=lambda a, w, d: a + w * (1 - d)),
            "The old average is not shrunk: the two shares have to add up to 1.",
        ),
        Mistake(
            _average(mix=lambda a, w, d: d * a + w),
            "The new weights are not scaled: the two shares have to add up to 1.",
        ),
        *(
            Mistake(
                _average(whole=whole),
                "Whole numbers are averaged too; half a count means nothing. Copy them.",
            )
            for whole in (
                lambda a, w, d: d * a + (1 - d) * w,
                lambda a, w, d: (d * a + (1 - d) * w).to(w.dtype),
            )
        ),
        Mistake(
            _average(whole=lambda a, w, d: a.clone()),
            "Whole numbers stay as they were; copy them from the weights.",
        ),
        Mistake(
            _average(whole=lambda a, w, d: w),
            "A tensor of whole numbers is handed over without a copy: it changes with the weights.",
        ),
        *(
            Mistake(
                _average(whole=whole, floating=lambda w: w),
                "A gradient could flow through the average, and every step's graph hangs on it "
                "until the memory is full: detach, or compute under no_grad.",
            )
            for whole in (lambda a, w, d: w.clone(), lambda a, w, d: d * a + (1 - d) * w)
        ),
        Mistake(
            lambda average, weights, step, decay: {n: w.clone() for n, w in average.items()},
            "The average never moves.",
        ),
        Mistake(
            lambda average, weights, step, decay: {
                n: w.detach().clone() for n, w in weights.items()
            },
            "This is a copy of the weights now, no average.",
        ),
    ),
    notes="""
The shares are easy to exchange, and then the average is the last weights, which works nearly as
well and is never noticed. Keeping the graph fills the memory after some hundred steps. 3 points.
""",
)

# tree_phrases

Phrases = list[tuple[str, int]]


def tree_phrases(tree: str) -> Phrases:
    """Text and label of each node of a treebank's tree, in the order of the opening brackets."""
    labels: list[int | None] = []
    words: list[list[str]] = []
    inside: list[int] = []  # the nodes that are open, outermost first
    for token in re.findall(r"[()]|[^\s()]+", tree):
        if token == "(":
            inside.append(len(labels))
            labels.append(None)
            words.append([])
        elif token == ")":
            inside.pop()
        elif labels[inside[-1]] is None:
            labels[inside[-1]] = int(token)
        else:
            for node in inside:
                words[node].append(token)
    return [(" ".join(text), label) for text, label in zip(words, labels, strict=True)]


def _chosen(of: Callable[[Phrases], Any]) -> Callable:
    return lambda tree: of(tree_phrases(tree))


def _closing_order(tree: str) -> Phrases:
    """The nodes in the order of their closing brackets, the innermost first."""
    phrases, inside, closed, opened = tree_phrases(tree), [], [], 0
    for token in re.findall(r"[()]", tree):
        if token == "(":
            inside.append(opened)
            opened += 1
        else:
            closed.append(inside.pop())
    return [phrases[node] for node in closed]


def _own_words_only(tree: str) -> Phrases:
    """Phrases whose label is that of their last word's leaf, as a flat search finds it."""
    leaf = {text: label for text, label in tree_phrases(tree) if " " not in text}
    return [(text, leaf[text.split()[-1]]) for text, _ in tree_phrases(tree)]


def _read(tree: str, is_label: Callable, takers: Callable) -> Phrases:
    """A variant: which token sets the label of the innermost bracket, and who takes a word.

    Args:
        is_label: from the token and the label so far.
        takers: of the open brackets those that a word is added to.
    """
    nodes: list[tuple[list[str], list[int]]] = []
    inside: list[int] = []
    for token in re.findall(r"[()]|[^\s()]+", tree):
        if token == "(":
            inside.append(len(nodes))
            nodes.append(([], []))
        elif token == ")":
            inside.pop()
        elif is_label(token, nodes[inside[-1]][1]):
            nodes[inside[-1]][1][:] = [int(token)]
        else:
            for node in takers(inside):
                nodes[node][0].append(token)
    return [(" ".join(words), label[0]) for words, label in nodes]


def _tree_asks(tree: str) -> Callable:
    def ask(answer: Callable) -> dict[str, Any]:
        found = call(answer, tree)
        pairs = found if isinstance(found, tuple | list) else []
        parts = [part for pair in pairs if isinstance(pair, tuple | list) for part in pair]
        floats = any(isinstance(part, float | np.floating) for part in parts)
        return {"value": found, "labels with a decimal point": floats}

    return ask


_SHORT = "(3 (2 It) (4 works))"
_MEDIUM = "(1 (2 (2 The) (2 plot)) (1 (2 is) (0 (2 not) (3 clever))))"
_LONG = (
    "(4 (2 (2 This) (2 (3 quiet) (2 film))) (3 (3 (2 has) (4 (2 a) (4 (3 warm) (2 heart)))) (2 .)))"
)

_NUMBER_FOR_LABEL = (
    "A word that is a number is taken for a label: only what follows an opening bracket is one."
)

TREE_PHRASES = Exercise(
    name="tree_phrases",
    chapter=12,
    title="one review, many examples",
    difficulty=3,
    importance=3,
    minutes=15,
    task="""
Write `tree_phrases(tree)`: the labelled phrases of a review in the treebank's notation.

- `tree`: a text such as `(3 (2 It) (4 works))`. Every bracket holds a label, 0 to 4, and then
  either one word or further brackets. A word never holds a bracket or a space; it may be a number.
- Return a list of `(text, label)`, one for each bracket in the order in which brackets *open*: the
  whole sentence first, as in `[("It works", 3), ("It", 2), ("works", 4)]`. Words are joined
  by one space; labels are whole numbers. A phrase that stands there twice is given twice.
""",
    hint="""
Cut the text into `(`, `)` and the rest: `re.findall(r"[()]|[^\\s()]+", tree)`. The first thing
after an opening bracket is its label. Keep a list of the brackets that are open; a word belongs to
every one of them.
""",
    reference=tree_phrases,
    cases=(
        Case("two words", _tree_asks(_SHORT)),
        Case("five words", _tree_asks(_MEDIUM)),
        Case("eight words", _tree_asks(_LONG)),
        Case("one word", _tree_asks("(2 fine)")),
        Case("a word that is a number", _tree_asks("(2 (2 2) (1 (2 sad) (2 0)))")),
        Case("the same phrase twice", _tree_asks("(3 (4 good) (3 (2 ,) (4 good)))")),
    ),
    mistakes=(
        Mistake(
            _closing_order,
            "The phrases come in the order in which brackets close; asked is that in which they "
            "open, the whole sentence first.",
        ),
        Mistake(
            lambda tree: _closing_order(tree)[::-1],
            "The closing order turned round is not the opening order: of two phrases side by side "
            "the right one comes first.",
        ),
        *(
            Mistake(
                lambda tree, takers=takers: _read(tree, lambda token, label: not label, takers),
                says,
            )
            for takers, says in (
                (
                    lambda inside: inside[-1:],
                    "A word goes to the innermost bracket alone; it belongs to every bracket that "
                    "is open.",
                ),
                (
                    lambda inside: inside[:1],
                    "A word goes to the outermost bracket alone; it belongs to every bracket that "
                    "is open.",
                ),
            )
        ),
        *(
            Mistake(
                _chosen(lambda phrases, key=key: sorted(phrases, key=key)),
                "The phrases are sorted by length; asked is the order in which brackets open.",
            )
            for key in (lambda p: -len(p[0].split()), lambda p: len(p[0].split()))
        ),
        Mistake(
            _chosen(lambda phrases: [p for p in phrases if " " not in p[0]]),
            "Only single words are there: every bracket is a phrase.",
        ),
        Mistake(
            _chosen(lambda phrases: [p for p in phrases if " " in p[0]]),
            "Single words are missing: they have a label too.",
        ),
        Mistake(
            _chosen(lambda phrases: phrases[:1]),
            "Only the whole sentence is there: every bracket is a phrase.",
        ),
        Mistake(
            _chosen(lambda phrases: phrases[1:]),
            "The whole sentence is missing.",
        ),
        Mistake(
            _chosen(lambda phrases: [p for p in phrases if p[1] != 2]),
            "Neutral phrases (label 2) are left out: that a phrase says nothing is a lesson too.",
        ),
        Mistake(
            _chosen(lambda phrases: list(dict.fromkeys(phrases))),
            "A phrase that stands there twice is given once.",
        ),
        Mistake(
            _chosen(lambda phrases: [(label, text) for text, label in phrases]),
            "The label stands before the text.",
        ),
        Mistake(
            _chosen(lambda phrases: [(text, str(label)) for text, label in phrases]),
            "The labels are text: make whole numbers of them.",
        ),
        Mistake(
            _chosen(lambda phrases: [(text, float(label)) for text, label in phrases]),
            "The labels are floats: make whole numbers of them.",
        ),
        Mistake(
            _chosen(lambda phrases: [(text, phrases[0][1]) for text, _ in phrases]),
            "Every phrase has the label of the whole sentence: each bracket has its own.",
        ),
        Mistake(
            _own_words_only,
            "A phrase has the label of its last word: each bracket has its own.",
        ),
        Mistake(
            _chosen(lambda phrases: [("".join(text.split()), label) for text, label in phrases]),
            "The words of a phrase are run together: join them by a space.",
        ),
        Mistake(
            _chosen(lambda phrases: [(re.sub(r" ?\b\d\b", "", t).strip(), n) for t, n in phrases]),
            _NUMBER_FOR_LABEL,
        ),
        Mistake(
            lambda tree: _read(tree, lambda token, label: token.isdigit(), lambda inside: inside),
            _NUMBER_FOR_LABEL,
        ),
    ),
    notes="""
A pattern without a stack finds the leaves and nothing else. What matters for the study comes after
it: only trees of *training* sentences, or the development set leaks phrase by phrase. 3 points.
""",
)

# paired_gain


def paired_gain(a: np.ndarray, b: np.ndarray) -> tuple[float, float, float]:
    """Gain of b over a on the same seeds and examples `[S, N]`, with its 95 % interval.

    `study.uncertainty.combine`, with the error over examples in closed form.
    """
    return _gain()(a, b)


def _over_seeds(d: np.ndarray, ddof: int = 1) -> float:
    seeds = d.mean(axis=1)
    return float(seeds.std(ddof=ddof) / math.sqrt(len(seeds))) if len(seeds) > 1 else 0.0


def _over_examples(d: np.ndarray, ddof: int = 1) -> float:
    examples = d.mean(axis=0)
    return float(examples.std(ddof=ddof) / math.sqrt(len(examples)))


def _half(of_seeds: float, of_examples: float, seeds: int) -> float:
    """Half the width of the interval, from the two errors."""
    return math.hypot(_student(seeds) * of_seeds, _NORMAL * of_examples)


def _student(seeds: int, quantile: float = 0.975) -> float:
    """Student's quantile at S - 1 degrees of freedom; one seed has no error that it could widen."""
    return float(stats.t.ppf(quantile, seeds - 1)) if seeds > 1 else 0.0


_NORMAL = float(stats.norm.ppf(0.975))


def _welch(of_seeds: float, of_examples: float, seeds: int, power: int) -> float:
    """One t for both errors, at Welch and Satterthwaite's degrees of freedom."""
    error = math.hypot(of_seeds, of_examples)
    freedom = (seeds - 1) * (error / of_seeds) ** power if of_seeds > 0 else math.inf
    return float(stats.t.ppf(0.975, freedom) * error) if error > 0 else 0.0


def _gain(
    of_seeds: Callable[[np.ndarray], float] = _over_seeds,
    of_examples: Callable[[np.ndarray], float] = _over_examples,
    half: Callable[[float, float, int], float] = _half,
) -> Callable:
    """The gain with one part of its interval or another changed."""

    def variant(a: np.ndarray, b: np.ndarray) -> tuple[float, float, float]:
        d = np.asarray(b, dtype=float) - np.asarray(a, dtype=float)  # [S, N]
        value = float(d.mean())
        wide = half(of_seeds(d), of_examples(d), len(d))
        return value, value - wide, value + wide

    return variant


def _unpaired_gain(a: np.ndarray, b: np.ndarray) -> tuple[float, float, float]:
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    errors = [math.hypot(of(a), of(b)) for of in (_over_seeds, _over_examples)]
    value, wide = float(b.mean() - a.mean()), _half(*errors, len(a))
    return value, value - wide, value + wide


def _answers(seeds: int, examples: int, seed: int, spread: float = 0.1) -> tuple:
    """Whether two models are right, `[S, N]` each: examples differ in difficulty, seeds in luck."""
    random = np.random.default_rng(seed)
    ease = random.uniform(0.2, 1.0, examples)  # [N]
    luck = random.normal(0, spread, (2, seeds, 1))
    chance = random.uniform(size=(2, seeds, examples))
    right = chance < ease + luck + np.array([0.0, 0.08])[:, None, None]
    return right[0], right[1]


def _gain_case(name: str, pair: tuple) -> Case:
    return Case(name, lambda answer: call(answer, *pair), atol=1e-5)  # 1.96 is as good


_THREE_SEEDS = _answers(3, 60, 1)
_SAME_GAIN = (
    np.tile([True, False, False, True, False], (3, 4)),
    np.tile([True, True, False, True, True], (3, 4)),
)

PAIRED_GAIN = Exercise(
    name="paired_gain",
    chapter=12,
    title="did the rung help?",
    difficulty=3,
    importance=5,
    minutes=12,
    task="""
Write `paired_gain(a, b)`: what rung b gains over rung a, and how sure that is.

- `a`, `b`: bool arrays `[S, N]`, whether the model of each of S seeds is right on each of N
  examples; the same seeds and the same examples in both.
- D = b - a, number by number, and the gain is its mean.
- Error over seeds: average D over the examples, which leaves S numbers; their standard deviation
  (with S - 1) over $\\sqrt{S}$. With one seed it is 0. Error over examples: average D over the
  seeds, which leaves N numbers; their standard deviation (with N - 1) over $\\sqrt{N}$.
- Each error alone would make an interval of a half-width: $t \\cdot e_{seeds}$, where t is
  Student's 97.5 % quantile at S - 1 degrees of freedom (`scipy.stats.t.ppf(0.975, S - 1)`), and
  $1.96 \\cdot e_{examples}$. The 95 % interval is the gain ± the root of the sum of their squares.
- Return `(gain, low, high)`, three numbers. If both errors are 0, low and high are the gain.
""",
    hint="""
Subtract first: whatever the two models share is then gone. numpy cannot subtract bools; make them
numbers. `D.mean(axis=1)` has one number a seed. `stats.t.ppf(0.975, 0)` is not a number, and 0
times it is none either: with one seed leave that half-width out.
""",
    reference=paired_gain,
    cases=(
        _gain_case("three seeds, 60 examples", _THREE_SEEDS),
        _gain_case("five seeds, 200 examples", _answers(5, 200, 2, spread=0.02)),
        _gain_case("two seeds that disagree", _answers(2, 40, 3, spread=0.3)),
        _gain_case("one seed", _answers(1, 50, 4)),
        _gain_case("three seeds with the same gain", _SAME_GAIN),
        _gain_case("equal answers", (_THREE_SEEDS[0], _THREE_SEEDS[0])),
        _gain_case("b worse than a", _THREE_SEEDS[::-1]),
    ),
    mistakes=(
        Mistake(
            lambda a, b: paired_gain(b, a),
            "The sign is flipped: the gain of b over a is b - a.",
        ),
        Mistake(
            _unpaired_gain,
            "The two rungs are treated as if other seeds and examples stood behind each: subtract "
            "first, then average.",
        ),
        Mistake(
            _gain(of_seeds=lambda d: 0.0),
            "It knows the examples only: another seed would give another gain.",
        ),
        Mistake(
            _gain(of_examples=lambda d: 0.0),
            "It knows the seeds only: other examples would give another gain.",
        ),
        *(
            Mistake(
                _gain(
                    half=lambda s, e, n, critical=critical: critical * math.hypot(s, e),
                ),
                "It takes 1.96 (or 2) errors whatever the seeds: so few of them know their own "
                "error badly, and Student's t makes up for it.",
            )
            for critical in (1.96, 2.0, float(stats.norm.ppf(0.975)))
        ),
        Mistake(
            _gain(half=lambda s, e, n: math.hypot(s, e)),
            "This is one error to either side; a 95 % interval is t errors wide.",
        ),
        *(
            Mistake(
                _gain(
                    half=lambda s, e, n, single=single: (_student(n) or single) * math.hypot(s, e)
                ),
                "Student's t widens both errors, as if the examples were as few as the seeds: "
                "their error is known well, and 1.96 of it do.",
            )
            for single in (_NORMAL, 0.0)  # with one seed
        ),
        Mistake(
            _gain(half=lambda s, e, n: math.hypot(_NORMAL * s, _student(n) * e)),
            "t and 1.96 are exchanged: the seeds are few and take t.",
        ),
        Mistake(
            _gain(
                half=lambda s, e, n: math.hypot(
                    s * (float(stats.t.ppf(0.975, n)) if n > 1 else 0.0), _NORMAL * e
                )
            ),
            "It has S degrees of freedom; one went into the mean, so S - 1.",
        ),
        *(
            Mistake(
                _gain(half=lambda s, e, n, power=power: _welch(s, e, n, power)),
                "It takes one t for both errors, at degrees of freedom after Welch and "
                "Satterthwaite: with a few seeds that scatter, that interval holds the truth too "
                "seldom. Give each error its own half-width, then add their squares.",
            )
            for power in (4, 2)
        ),
        *(
            Mistake(
                _gain(half=lambda s, e, n, z=z: math.hypot(_student(n, 0.95) * s, z * e)),
                "The 95 % quantile of Student's t leaves a 90 % interval: 2.5 % on either side.",
            )
            for z in (_NORMAL, float(stats.norm.ppf(0.95)))
        ),
        Mistake(
            _gain(half=lambda s, e, n: _student(n) * s + _NORMAL * e),
            "The two half-widths are added; those of independent errors add as squares.",
        ),
        Mistake(
            _gain(lambda d: _over_seeds(d, ddof=0), lambda d: _over_examples(d, ddof=0)),
            "The standard deviations divide by S and by N: with three seeds that makes a "
            "difference. Divide by S - 1 and N - 1 (`ddof=1`).",
        ),
        *(
            Mistake(
                _gain(of_seeds, of_examples),
                "The root of the number is missing: these are standard deviations of single seeds "
                "or examples, asked is the error of their *mean*.",
            )
            for of_seeds, of_examples in (
                (
                    lambda d: _over_seeds(d) * math.sqrt(len(d)),
                    lambda d: _over_examples(d) * math.sqrt(d.shape[1]),
                ),
                (lambda d: _over_seeds(d) * math.sqrt(len(d)), _over_examples),
                (_over_seeds, lambda d: _over_examples(d) * math.sqrt(d.shape[1])),
            )
        ),
        *(
            Mistake(
                _gain(
                    lambda d: 0.0,
                    lambda d, ddof=ddof: float(d.std(ddof=ddof) / math.sqrt(d.size)),
                ),
                "It counts S x N answers as if all were independent: the same example comes back "
                "with every seed.",
            )
            for ddof in (0, 1)
        ),
        Mistake(
            lambda a, b: (lambda g, low, high: (g, high, low))(*paired_gain(a, b)),
            "Low and high are exchanged.",
        ),
        Mistake(
            lambda a, b: (lambda g, low, high: (g, low - g, high - g))(*paired_gain(a, b)),
            "The interval lies around 0: add the gain.",
        ),
    ),
    notes="""
Seeds alone with 1.96 is what papers report, and it holds the truth in four cases of five. That
half-widths add as squares is Zou and Donner's (2008); give it away. 4 points.
""",
)

EXERCISES = (
    WORD_COSINE,
    PAIR_FEATURES,
    JOIN_PAIR,
    JOIN_BATCH,
    SAMPLING_PROBABILITIES,
    ANNEALED_POWER,
    LAYER_RATES,
    UPDATE_AVERAGE,
    TREE_PHRASES,
    PAIRED_GAIN,
)
