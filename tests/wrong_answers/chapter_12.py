"""Answers to the exercises of chapter 12, as people write them."""

import itertools
import math
import re
from collections import Counter, defaultdict

import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats
from torch.nn.utils.rnn import pad_sequence
from wrong_answers.bank import Bank

bank = Bank()
wrong, right, WRONG, RIGHT = bank.wrong, bank.right, bank.WRONG, bank.RIGHT

# word_cosine


@right("word_cosine")
def with_numpy(first, second, idf):
    words = sorted(idf)
    u, v = (np.array([side.count(w) * idf[w] for w in words]) for side in (first, second))
    below = np.linalg.norm(u) * np.linalg.norm(v)
    return u @ v / below if below > 0 else 0.0


@right("word_cosine")
def in_plain_loops(first, second, idf):
    one, two = defaultdict(float), defaultdict(float)
    for word in first:
        one[word] += idf.get(word, 0)
    for word in second:
        two[word] += idf.get(word, 0)
    dot = sum(one[w] * two[w] for w in set(one) & set(two))
    squares = sum(x * x for x in one.values()), sum(x * x for x in two.values())
    return dot / math.sqrt(squares[0] * squares[1]) if all(squares) else 0.0


@right("word_cosine")
def with_torch(first, second, idf):
    places = {word: place for place, word in enumerate(idf)}
    bags = torch.zeros(2, len(idf))
    for bag, side in zip(bags, (first, second), strict=True):
        for word in side:
            if word in places:
                bag[places[word]] += idf[word]
    return F.cosine_similarity(bags[0], bags[1], dim=0)


@wrong("word_cosine", "idf is left out")
def counts_only(first, second, idf):
    a, b = Counter(first), Counter(second)
    below = math.sqrt(sum(x * x for x in a.values()) * sum(x * x for x in b.values()))
    return sum(a[w] * b[w] for w in a) / below if below else 0.0


@wrong("word_cosine", "idf is left out")
def known_counts_only(first, second, idf):
    return with_numpy(first, second, dict.fromkeys(idf, 1.0))


@wrong("word_cosine", "counts once")
def of_sets(first, second, idf):
    return with_numpy(list(set(first)), list(set(second)), idf)


@wrong("word_cosine", "once only")
def one_side_weighed(first, second, idf):
    words = sorted(idf)
    u = np.array([first.count(w) * idf[w] for w in words])
    v = np.array([second.count(w) for w in words])
    below = np.linalg.norm(u) * np.linalg.norm(v)
    return float(u @ v / below) if below else 0.0


@wrong("word_cosine", "once only")
def idf_in_the_dot_once(first, second, idf):
    a, b = Counter(first), Counter(second)
    dot = sum(a[w] * b[w] * idf[w] for w in a if w in b and w in idf)
    lengths = [math.sqrt(sum((c[w] * idf[w]) ** 2 for w in c if w in idf)) for c in (a, b)]
    return dot / (lengths[0] * lengths[1]) if all(lengths) else 0.0


@wrong("word_cosine", "plain counts")
def lengths_of_counts(first, second, idf):
    a, b = ({w: n for w, n in Counter(side).items() if w in idf} for side in (first, second))
    dot = sum(a[w] * idf[w] * b[w] * idf[w] for w in a if w in b)
    below = math.sqrt(sum(n * n for n in a.values())) * math.sqrt(sum(n * n for n in b.values()))
    return dot / below if below else 0.0


@wrong("word_cosine", "not divided by both lengths")
def inner_product(first, second, idf):
    a, b = Counter(first), Counter(second)
    return float(sum(a[w] * b[w] * idf.get(w, 0) ** 2 for w in a))


@wrong("word_cosine", "root is missing")
def squared_lengths(first, second, idf):
    u, v = (np.array([side.count(w) * idf[w] for w in idf]) for side in (first, second))
    below = (u @ u) * (v @ v)
    return u @ v / below if below else 0.0


@wrong("word_cosine", "length 0")
def nan_where_empty(first, second, idf):
    u, v = (np.array([side.count(w) * idf[w] for w in idf]) for side in (first, second))
    return u @ v / (np.linalg.norm(u) * np.linalg.norm(v))


@wrong("word_cosine", "length 0")
def fails_where_empty(first, second, idf):
    a, b = (
        {w: n * idf[w] for w, n in Counter(side).items() if w in idf} for side in (first, second)
    )
    dot = sum(a[w] * b[w] for w in a if w in b)
    return dot / (
        math.sqrt(sum(x**2 for x in a.values())) * math.sqrt(sum(x**2 for x in b.values()))
    )


@wrong("word_cosine", "weight 1")
def unknown_words_count_one(first, second, idf):
    more = dict.fromkeys([*first, *second], 1.0) | idf
    return with_numpy(first, second, more)


@wrong("word_cosine", "KeyError")
def unknown_words_fail(first, second, idf):
    return with_numpy(first, second, {w: idf[w] for w in {*first, *second}})


@wrong("word_cosine", "distance")
def distance(first, second, idf):
    return 1 - with_numpy(first, second, idf)


@wrong("word_cosine", "Jaccard")
def jaccard(first, second, idf):
    a, b = set(first), set(second)
    return len(a & b) / len(a | b) if a | b else 0.0


@wrong("word_cosine", None)
def weighed_jaccard(first, second, idf):
    a, b = set(first) & set(idf), set(second) & set(idf)
    below = sum(idf[w] for w in a | b)
    return sum(idf[w] for w in a & b) / below if below else 0.0


@wrong("word_cosine", None)
def position_by_position(first, second, idf):
    same = [w for w, x in zip(first, second, strict=False) if w == x]
    return with_numpy(same, second, idf)


@wrong("word_cosine", "of the common words alone")
def lengths_of_common_words(first, second, idf):
    common = {*first} & {*second} & {*idf}
    u, v = (np.array([side.count(w) * idf[w] for w in common]) for side in (first, second))
    below = np.linalg.norm(u) * np.linalg.norm(v)
    return u @ v / below if below else 0.0


# pair_features


@right("pair_features")
def by_where(u, v):
    return torch.cat([u, v, torch.where(u > v, u - v, v - u), u * v], dim=1)


@wrong("pair_features", "no gradient at 0")
def root_of_a_square(u, v):
    return torch.cat([u, v, torch.sqrt((u - v).square()), u * v], dim=1)


@right("pair_features")
def plain_cat(u, v):
    return torch.cat([u, v, torch.abs(u - v), torch.mul(u, v)], dim=-1)


@right("pair_features")
def hstacked(u, v):
    return torch.hstack((u, v, torch.maximum(u, v) - torch.minimum(u, v), v * u))


@right("pair_features")
def stacked_and_flattened(u, v):
    return torch.stack([u, v, (v - u).abs(), u * v], dim=1).flatten(start_dim=1)


@wrong("pair_features", "keeps its sign")
def signed(u, v):
    return torch.cat([u, v, u - v, u * v], 1)


@wrong("pair_features", "keeps its sign")
def signed_backwards(u, v):
    return torch.cat([u, v, v - u, u * v], 1)


@wrong("pair_features", "another order")
def product_first(u, v):
    return torch.cat([u, v, u * v, (u - v).abs()], 1)


@wrong("pair_features", "another order")
def v_first(u, v):
    return torch.cat([v, u, (v - u).abs(), v * u], 1)


@wrong("pair_features", "squared")
def squared(u, v):
    return torch.cat([u, v, (u - v).pow(2), u * v], 1)


@wrong("pair_features", "below each other")
def default_dimension(u, v):
    return torch.cat([u, v, (u - v).abs(), u * v])


@wrong("pair_features", "stacked")
def stacked(u, v):
    return torch.stack([u, v, (u - v).abs(), u * v])


@wrong("pair_features", "added up")
def summed_up(u, v):
    return u + v + (u - v).abs() + u * v


@wrong("pair_features", "additive head")
def only_two(u, v):
    return torch.cat([u, v], dim=1)


@wrong("pair_features", "themselves are missing")
def only_compared(u, v):
    return torch.cat([(u - v).abs(), u * v], dim=1)


@wrong("pair_features", "product u * v is missing")
def as_sentence_bert(u, v):
    return torch.cat([u, v, (u - v).abs()], dim=1)


@wrong("pair_features", "inner product")
def with_inner_product(u, v):
    return torch.cat([u, v, (u - v).abs(), (u * v).sum(dim=1, keepdim=True)], dim=1)


@wrong("pair_features", "|u| - |v|")
def sizes_before(u, v):
    return torch.cat([u, v, u.abs() - v.abs(), u * v], dim=1)


@wrong("pair_features", "detached")
def detached(u, v):
    return torch.cat([u, v, (u - v).abs(), u * v], dim=1).detach()


@wrong("pair_features", "detached")
def by_way_of_numpy(u, v):
    a, b = u.numpy(), v.numpy()
    return torch.from_numpy(np.hstack([a, b, np.abs(a - b), a * b]))


@wrong("pair_features", None)
def difference_detached(u, v):
    return torch.cat([u, v, (u - v.detach()).abs(), u * v], dim=1)


@wrong("pair_features", None)
def of_unit_vectors(u, v):
    return plain_cat(F.normalize(u, dim=1), F.normalize(v, dim=1))


# join_pair


@right("join_pair")
def step_by_step(first, second, cls, sep):
    ids, segments = [cls], [0]
    for segment, words in enumerate((first, second)):
        for token in (*words, sep):
            ids.append(token)
            segments.append(segment)
    return ids, segments


@wrong("join_pair", "in no lists")
def as_tensors(first, second, cls, sep):
    ids = torch.tensor([cls] + first + [sep] + second + [sep])
    segments = (torch.arange(len(ids)) >= len(first) + 2).long()
    return ids, segments


@right("join_pair")
def counted_in_numpy(first, second, cls, sep):
    ids = np.array([cls, *first, sep, *second, sep])
    return ids.tolist(), np.repeat([0, 1], [len(first) + 2, len(second) + 1]).tolist()


@wrong("join_pair", "[CLS] of its own")
def two_cls(first, second, cls, sep):
    a, b = [cls, *first, sep], [cls, *second, sep]
    return a + b, [0] * len(a) + [1] * len(b)


@wrong("join_pair", "second [SEP], behind")
def no_last_sep(first, second, cls, sep):
    return [cls, *first, sep, *second], [0] * (len(first) + 2) + [1] * len(second)


@wrong("join_pair", "first [SEP] is missing")
def no_middle_sep(first, second, cls, sep):
    return [cls, *first, *second, sep], [0] * (len(first) + 1) + [1] * (len(second) + 1)


@wrong("join_pair", "Two [SEP]")
def as_roberta(first, second, cls, sep):
    return [cls, *first, sep, sep, *second, sep], [0] * (len(first) + 2) + [1] * (len(second) + 2)


@wrong("join_pair", "[CLS] is missing")
def without_cls(first, second, cls, sep):
    return [*first, sep, *second, sep], [0] * (len(first) + 1) + [1] * (len(second) + 1)


@wrong("join_pair", "first [SEP] is in segment 1")
def sep_in_one(first, second, cls, sep):
    return [cls, *first, sep, *second, sep], [0] * (len(first) + 1) + [1] * (len(second) + 2)


@wrong("join_pair", "starts too early")
def specials_forgotten(first, second, cls, sep):
    ids = [cls, *first, sep, *second, sep]
    return ids, [0] * len(first) + [1] * (len(ids) - len(first))


@wrong("join_pair", "All segments are 0")
def one_segment(first, second, cls, sep):
    ids = [cls, *first, sep, *second, sep]
    return ids, [0 for _ in ids]


@wrong("join_pair", "exchanged")
def exchanged(first, second, cls, sep):
    ids, segments = step_by_step(first, second, cls, sep)
    return ids, [int(s == 0) for s in segments]


@wrong("join_pair", "counted from 1")
def from_one(first, second, cls, sep):
    ids, segments = step_by_step(first, second, cls, sep)
    return ids, [s + 1 for s in segments]


@wrong("join_pair", "last [SEP] is in segment 0")
def special_tokens_in_zero(first, second, cls, sep):
    ids = [cls, *first, sep, *second, sep]
    return ids, [0] * (len(first) + 2) + [1] * len(second) + [0]


@wrong("join_pair", "equally long")
def words_only(first, second, cls, sep):
    return [cls, *first, sep, *second, sep], [0] * len(first) + [1] * len(second)


@wrong("join_pair", "`first` in place")
def appends_to_the_input(first, second, cls, sep):
    first.append(sep)
    ids = [cls, *first, *second, sep]
    return ids, [0] * (len(first) + 1) + [1] * (len(second) + 1)


@wrong("join_pair", None)
def cls_has_its_own_segment(first, second, cls, sep):
    ids, segments = step_by_step(first, second, cls, sep)
    return ids, [0, *[s + 1 for s in segments[1:]]]


@wrong("join_pair", None)
def segments_only_where_words_differ(first, second, cls, sep):
    ids, segments = step_by_step(first, second, cls, sep)
    return ids, [0 if token in first else s for token, s in zip(ids, segments, strict=True)]


@wrong("join_pair", "got 8 values, expected 2")
def ids_only(first, second, cls, sep):
    return [cls, *first, sep, *second, sep]


# join_batch


@right("join_batch")
def in_lists(pairs, cls, sep, pad):
    rows = [step_by_step(a, b, cls, sep) for a, b in pairs]
    longest = max(len(ids) for ids, _ in rows)
    ids, mask, types = [], [], []
    for row, segments in rows:
        missing = longest - len(row)
        ids.append(row + [pad] * missing)
        mask.append([1] * len(row) + [0] * missing)
        types.append(segments + [0] * missing)
    batch = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    return {name: torch.tensor(value) for name, value in batch.items()}


@right("join_batch")
def with_pad_sequence(pairs, cls, sep, pad):
    rows = [as_tensors(a, b, cls, sep) for a, b in pairs]
    ids = pad_sequence([row for row, _ in rows], batch_first=True, padding_value=pad)
    lengths = torch.tensor([len(row) for row, _ in rows])
    return {
        "input_ids": ids,
        "attention_mask": (torch.arange(ids.shape[1]) < lengths[:, None]).long(),
        "token_type_ids": pad_sequence([types for _, types in rows], batch_first=True),
    }


@right("join_batch")
def filled_in(pairs, cls, sep, pad):
    size = len(pairs), max(len(a) + len(b) + 3 for a, b in pairs)
    ids = torch.full(size, pad)
    mask, types = torch.zeros(size, dtype=torch.int64), torch.zeros(size, dtype=torch.int32)
    for n, (a, b) in enumerate(pairs):
        length, start = len(a) + len(b) + 3, len(a) + 2
        ids[n, :length] = torch.tensor([cls, *a, sep, *b, sep])
        mask[n, :length] = 1
        types[n, start:length] = 1
    return {"token_type_ids": types, "input_ids": ids, "attention_mask": mask}


def _changed(pairs, cls, sep, pad, **changes):
    batch = filled_in(pairs, cls, sep, pad)
    return batch | {name: change(batch) for name, change in changes.items()}


@wrong("join_batch", "other than 0")
def mask_from_not_zero(pairs, cls, sep, pad):
    return _changed(
        pairs, cls, sep, pad, attention_mask=lambda batch: (batch["input_ids"] != 0).long()
    )


@wrong("join_batch", "somebody wrote")
def mask_from_not_pad(pairs, cls, sep, pad):
    return _changed(
        pairs, cls, sep, pad, attention_mask=lambda batch: (batch["input_ids"] != pad).long()
    )


@wrong("join_batch", "somebody wrote")
def mask_from_not_pad_as_bools(pairs, cls, sep, pad):
    return _changed(pairs, cls, sep, pad, attention_mask=lambda batch: batch["input_ids"] != pad)


@wrong("join_batch", "padding has segment 1")
def padding_in_segment_one(pairs, cls, sep, pad):
    return _changed(
        pairs,
        cls,
        sep,
        pad,
        token_type_ids=lambda batch: batch["token_type_ids"] + 1 - batch["attention_mask"],
    )


@wrong("join_batch", "two segments, so an encoder would fail")
def segments_padded_with_pad(pairs, cls, sep, pad):
    rows = [as_tensors(a, b, cls, sep) for a, b in pairs]
    types = pad_sequence([types for _, types in rows], batch_first=True, padding_value=pad)
    return _changed(pairs, cls, sep, pad, token_type_ids=lambda batch: types)


@wrong("join_batch", "padded with 0, whatever")
def ids_padded_with_zero(pairs, cls, sep, pad):
    rows = [as_tensors(a, b, cls, sep)[0] for a, b in pairs]
    return _changed(
        pairs, cls, sep, pad, input_ids=lambda batch: pad_sequence(rows, batch_first=True)
    )


@wrong("join_batch", "in front")
def padded_in_front(pairs, cls, sep, pad):
    batch = in_lists(pairs, cls, sep, pad)
    lengths = batch["attention_mask"].sum(dim=1).tolist()
    width = batch["input_ids"].shape[1]
    return {
        name: torch.stack([row.roll(width - n) for row, n in zip(value, lengths, strict=True)])
        for name, value in batch.items()
    }


@wrong("join_batch", "upside down")
def mask_of_padding(pairs, cls, sep, pad):
    return _changed(pairs, cls, sep, pad, attention_mask=lambda batch: 1 - batch["attention_mask"])


@wrong("join_batch", "1 everywhere")
def mask_of_ones(pairs, cls, sep, pad):
    return _changed(
        pairs, cls, sep, pad, attention_mask=lambda batch: torch.ones_like(batch["input_ids"])
    )


@wrong("join_batch", "cut to the shortest")
def cut_to_the_shortest(pairs, cls, sep, pad):
    width = min(len(a) + len(b) + 3 for a, b in pairs)
    return {name: value[:, :width] for name, value in filled_in(pairs, cls, sep, pad).items()}


@wrong("join_batch", "All segments are 0")
def segments_of_zeros(pairs, cls, sep, pad):
    return _changed(
        pairs, cls, sep, pad, token_type_ids=lambda batch: torch.zeros_like(batch["input_ids"])
    )


@wrong("join_batch", "true and false")
def mask_of_bools(pairs, cls, sep, pad):
    return _changed(pairs, cls, sep, pad, attention_mask=lambda batch: batch["attention_mask"] > 0)


@wrong("join_batch", "padding lies between")
def padded_one_by_one(pairs, cls, sep, pad):
    first, second = (
        pad_sequence([torch.tensor(pair[side]).long() for pair in pairs], True, pad)
        for side in (0, 1)
    )
    lengths = torch.tensor([[len(a), len(b)] for a, b in pairs])
    real = [
        (torch.arange(side.shape[1]) < lengths[:, n : n + 1]).long()
        for n, side in enumerate((first, second))
    ]
    one = torch.ones(len(pairs), 1).long()
    # The [SEP] of a sentence stands right behind its last word, the padding after it.
    ids = [torch.cat([cls * one, first, pad * one], 1), torch.cat([second, pad * one], 1)]
    masks = [torch.cat([one, real[0], 0 * one], 1), torch.cat([real[1], 0 * one], 1)]
    for n, (row, mask) in enumerate(zip(ids, masks, strict=True)):
        places = lengths[:, n] + (n == 0)
        row[torch.arange(len(pairs)), places] = sep
        mask[torch.arange(len(pairs)), places] = 1
    types = [torch.zeros_like(ids[0]), torch.ones_like(ids[1])]
    return {
        "input_ids": torch.cat(ids, 1),
        "attention_mask": torch.cat(masks, 1),
        "token_type_ids": torch.cat(types, 1),
    }


@wrong("join_batch", "are floats")
def of_floats(pairs, cls, sep, pad):
    return {name: value.float() for name, value in in_lists(pairs, cls, sep, pad).items()}


@wrong("join_batch", None)
def always_ten_long(pairs, cls, sep, pad):
    batch = in_lists(pairs, cls, sep, pad)
    return {
        name: F.pad(value, (0, 10 - value.shape[1]), value=pad if name == "input_ids" else 0)
        for name, value in batch.items()
    }


@wrong("join_batch", "no tensors")
def of_lists(pairs, cls, sep, pad):
    return {name: value.tolist() for name, value in in_lists(pairs, cls, sep, pad).items()}


@wrong("join_batch", "no tensors")
def of_arrays(pairs, cls, sep, pad):
    return {name: np.array(value) for name, value in of_lists(pairs, cls, sep, pad).items()}


@wrong("join_batch", "token_type_ids is missing")
def two_of_three(pairs, cls, sep, pad):
    batch = in_lists(pairs, cls, sep, pad)
    del batch["token_type_ids"]
    return batch


@wrong("join_batch", "attention_mask: got true and false, expected numbers")
def mask_of_bools_without_cls(pairs, cls, sep, pad):
    return _changed(pairs, cls, sep, pad, attention_mask=lambda batch: batch["input_ids"] > cls)


@wrong("join_batch", "expected a dict with input_ids, attention_mask, token_type_ids.")
def as_a_tuple(pairs, cls, sep, pad):
    return tuple(in_lists(pairs, cls, sep, pad).values())


# sampling_probabilities


@right("sampling_probabilities")
def in_numpy(sizes, power):
    weights = np.array(sizes, dtype=float) ** power
    return weights / weights.sum()


@right("sampling_probabilities")
def list_of_floats(sizes, power):
    total = sum(n**power for n in sizes)
    return [n**power / total for n in sizes]


@right("sampling_probabilities")
def softmax_of_logs(sizes, power):
    return torch.softmax(power * torch.tensor(sizes).log(), dim=0)


@wrong("sampling_probabilities", "do not add up to 1")
def powers(sizes, power):
    return [n**power for n in sizes]


@wrong("sampling_probabilities", "not divided by their sum again")
def shares_to_the_power(sizes, power):
    shares = torch.tensor(sizes) / sum(sizes)
    return shares**power


@wrong("sampling_probabilities", "sum of the sizes")
def over_all_examples(sizes, power):
    return [n**power / sum(sizes) for n in sizes]


@wrong("sampling_probabilities", "largest task has 1")
def over_the_largest(sizes, power):
    return [(n / max(sizes)) ** power for n in sizes]


@wrong("sampling_probabilities", "power has no effect")
def proportional(sizes, power):
    return torch.tensor(sizes) / sum(sizes)


@wrong("sampling_probabilities", "always the square root")
def always_root(sizes, power):
    roots = np.sqrt(sizes)
    return roots / roots.sum()


@wrong("sampling_probabilities", "power 0 only")
def uniform(sizes, power):
    return np.full(len(sizes), 1 / len(sizes))


@wrong("sampling_probabilities", "no proportion")
def softmax_of_powers(sizes, power):
    return torch.softmax(torch.tensor(sizes).double() ** power, dim=0)


@wrong("sampling_probabilities", "upside down")
def inverse(sizes, power):
    weights = 1 / np.array(sizes, dtype=float) ** power
    return weights / weights.sum()


@wrong("sampling_probabilities", "runs backwards")
def backwards(sizes, power):
    return in_numpy(sizes, 1 - power)


@wrong("sampling_probabilities", "straight line")
def mixture(sizes, power):
    shares = np.array(sizes) / sum(sizes)
    return power * shares + (1 - power) / len(sizes)


@wrong("sampling_probabilities", None)
def reciprocal_power(sizes, power):
    return in_numpy(sizes, 1 / power) if power else in_numpy(sizes, 1.0)


@wrong("sampling_probabilities", None)
def whole_roots(sizes, power):
    weights = np.array([int(n**power) for n in sizes])
    return weights / weights.sum()


@wrong("sampling_probabilities", None)
def logarithms(sizes, power):
    return in_numpy(np.log1p(sizes), 1.0)


# annealed_power


@right("annealed_power")
def with_if(epoch, epochs):
    if epochs == 1:
        return 1.0
    return 1 - 0.8 * (epoch - 1) / (epochs - 1)


@right("annealed_power")
def with_linspace(epoch, epochs):
    return float(np.linspace(1.0, 0.2, epochs)[epoch - 1])


@right("annealed_power")
def as_a_mixture(epoch, epochs):
    done = (epoch - 1) / (epochs - 1) if epochs > 1 else 0
    return (1 - done) * 1.0 + done * 0.2


@wrong("annealed_power", "divides by E")
def over_e(epoch, epochs):
    return 1 - 0.8 * (epoch - 1) / epochs


@wrong("annealed_power", "counted from 1")
def from_zero(epoch, epochs):
    return 1 - 0.8 * epoch / epochs


@wrong("annealed_power", "divides by zero")
def one_epoch_forgotten(epoch, epochs):
    return 1 - 0.8 * (epoch - 1) / (epochs - 1)


@wrong("annealed_power", "It rises")
def rising(epoch, epochs):
    return 0.2 + 0.8 * (epoch - 1) / max(epochs - 1, 1)


@wrong("annealed_power", "0.8 is missing")
def down_to_zero(epoch, epochs):
    return 1 - (epoch - 1) / max(epochs - 1, 1)


@wrong("annealed_power", "starts at 0.8")
def eight_tenths(epoch, epochs):
    return 0.8 * (1 - (epoch - 1) / max(epochs - 1, 1))


@wrong("annealed_power", "to 0.8")
def two_tenths(epoch, epochs):
    return 1 - 0.2 * (epoch - 1) / max(epochs - 1, 1)


@wrong("annealed_power", "Whole-number")
def whole_number(epoch, epochs):
    return 1 - 0.8 * ((epoch - 1) // max(epochs - 1, 1))


@wrong("annealed_power", "by a factor")
def geometric(epoch, epochs):
    return 0.2 ** ((epoch - 1) / max(epochs - 1, 1))


@wrong("annealed_power", None)
def half_way_only(epoch, epochs):
    return max(0.2, 1 - 0.8 * 2 * (epoch - 1) / max(epochs - 1, 1))


@wrong("annealed_power", None)
def cosine_shaped(epoch, epochs):
    done = (epoch - 1) / max(epochs - 1, 1)
    return 0.6 + 0.4 * math.cos(math.pi * done)


@wrong("annealed_power", None)
def last_epoch_clipped(epoch, epochs):
    return 1 - 0.8 * (epoch - 1) / (epochs - 1) if epoch < epochs else 0.0


# layer_rates


@right("layer_rates")
def from_the_top(lr, decay, layers):
    rates = [lr]
    for _ in range(layers):
        rates.insert(0, rates[0] * decay)
    return rates


@right("layer_rates")
def by_numpy(lr, decay, layers):
    return lr * decay ** np.arange(layers, -1, -1)


@right("layer_rates")
def accumulated(lr, decay, layers):
    factors = itertools.accumulate([1.0] + [decay] * layers, lambda a, b: a * b)
    return torch.tensor([lr * f for f in factors], dtype=torch.float64).flip(0)


@wrong("layer_rates", "from the top down")
def top_first(lr, decay, layers):
    return [lr * decay**n for n in range(layers + 1)]


@wrong("layer_rates", "last layer is multiplied")
def one_too_often(lr, decay, layers):
    return [lr * decay ** (n + 1) for n in reversed(range(layers + 1))]


@wrong("layer_rates", "embeddings are missing")
def layers_only(lr, decay, layers):
    return [lr * decay ** (layers - n) for n in range(1, layers + 1)]


@wrong("layer_rates", "for the heads")
def with_heads(lr, decay, layers):
    return [lr * decay ** (layers + 1 - n) for n in range(layers + 2)]


@wrong("layer_rates", "rate of layer 1")
def embeddings_as_layer_one(lr, decay, layers):
    rates = layers_only(lr, decay, layers)
    return [rates[0], *rates]


@wrong("layer_rates", "grow towards")
def divided(lr, decay, layers):
    return [lr / decay ** (layers - n) for n in range(layers + 1)]


@wrong("layer_rates", "applies again")
def once_below_the_top(lr, decay, layers):
    return [lr * decay] * layers + [lr]


@wrong("layer_rates", "straight line; each")
def straight(lr, decay, layers):
    return [lr * (1 - (1 - decay) * (layers - n)) for n in range(layers + 1)]


@wrong("layer_rates", "All parts have the same")
def the_same(lr, decay, layers):
    return [lr] * (layers + 1)


@wrong("layer_rates", None)
def squared_decay(lr, decay, layers):
    return [lr * decay ** (2 * (layers - n)) for n in range(layers + 1)]


@wrong("layer_rates", None)
def rate_forgotten(lr, decay, layers):
    return [decay ** (layers - n) for n in range(layers + 1)]


@wrong("layer_rates", None)
def embeddings_frozen(lr, decay, layers):
    return [0.0, *layers_only(lr, decay, layers)]


# update_average


@right("update_average")
def under_no_grad(average, weights, step, decay):
    d = min(decay, (1 + step) / (10 + step))
    with torch.no_grad():
        return {
            name: torch.lerp(w, average[name], d) if w.is_floating_point() else w.clone()
            for name, w in weights.items()
        }


@right("update_average")
def in_place_on_a_copy(average, weights, step, decay):
    d = decay
    if d > (1 + step) / (10 + step):
        d = (1 + step) / (10 + step)
    result = {}
    for name in average:
        new = weights[name].detach()
        if new.dtype.is_floating_point:
            result[name] = average[name].clone().mul_(d).add_(new, alpha=1 - d)
        else:
            result[name] = new.clone()
    return result


@right("update_average")
def step_towards(average, weights, step, decay):
    share = max(1 - decay, 9 / (10 + step))
    return {
        name: a + share * (weights[name].data - a)
        if torch.is_floating_point(a)
        else torch.clone(weights[name])
        for name, a in average.items()
    }


def _ema(average, weights, d, whole=torch.clone):
    return {
        name: d * average[name] + (1 - d) * w.detach() if w.is_floating_point() else whole(w)
        for name, w in weights.items()
    }


@wrong("update_average", "exchanged")
def shares_exchanged(average, weights, step, decay):
    d = min(decay, (1 + step) / (10 + step))
    return _ema(average, weights, 1 - d)


@wrong("update_average", "warm-up is missing")
def constant_decay(average, weights, step, decay):
    return _ema(average, weights, decay)


@wrong("update_average", "brackets")
def brackets_forgotten(average, weights, step, decay):
    return _ema(average, weights, min(decay, 1 + step / 10 + step))


@wrong("update_average", "larger of the two")
def larger(average, weights, step, decay):
    return _ema(average, weights, max(decay, (1 + step) / (10 + step)))


@wrong("update_average", "no effect")
def decay_unused(average, weights, step, decay):
    return _ema(average, weights, (1 + step) / (10 + step))


@wrong("update_average", "step ahead")
def counted_from_one(average, weights, step, decay):
    step += 1
    return _ema(average, weights, min(decay, (1 + step) / (10 + step)))


@wrong("update_average", "multiplied")
def multiplied(average, weights, step, decay):
    return _ema(average, weights, decay * (1 + step) / (10 + step))


@wrong("update_average", "plain mean")
def plain_mean(average, weights, step, decay):
    return _ema(average, weights, 1 - 1 / (step + 2))


@wrong("update_average", "not shrunk")
def grows(average, weights, step, decay):
    d = min(decay, (1 + step) / (10 + step))
    return {
        name: average[name] + (1 - d) * w.detach() if w.is_floating_point() else w.clone()
        for name, w in weights.items()
    }


@wrong("update_average", "half a count")
def counts_averaged(average, weights, step, decay):
    d = min(decay, (1 + step) / (10 + step))
    return {name: d * average[name] + (1 - d) * w.detach() for name, w in weights.items()}


@wrong("update_average", "without a copy")
def counts_shared(average, weights, step, decay):
    d = min(decay, (1 + step) / (10 + step))
    return _ema(average, weights, d, whole=lambda w: w)


@wrong("update_average", "until the memory is full")
def keeps_the_graph(average, weights, step, decay):
    d = min(decay, (1 + step) / (10 + step))
    return {
        name: d * average[name] + (1 - d) * w if w.is_floating_point() else w.clone()
        for name, w in weights.items()
    }


@wrong("update_average", "until the memory is full")
def keeps_the_graph_and_averages_counts(average, weights, step, decay):
    d = min(decay, (1 + step) / (10 + step))
    return {name: d * average[name] + (1 - d) * w for name, w in weights.items()}


@wrong("update_average", "never moves")
def stays(average, weights, step, decay):
    return {name: value.clone() for name, value in average.items()}


@wrong("update_average", "copy of the weights")
def last_weights(average, weights, step, decay):
    return {name: value.detach().clone() for name, value in weights.items()}


@wrong("update_average", "`average` in place")
def changes_the_old_average(average, weights, step, decay):
    d = min(decay, (1 + step) / (10 + step))
    for name, w in weights.items():
        if w.is_floating_point():
            average[name].mul_(d).add_(w.detach(), alpha=1 - d)
        else:
            average[name] = w.clone()
    return average


@wrong("update_average", None)
def alias_of_the_weights(average, weights, step, decay):
    d = min(decay, (1 + step) / (10 + step))
    return _ema(average, weights, d) if d else {name: w.data for name, w in weights.items()}


@wrong("update_average", None)
def ten_forgotten(average, weights, step, decay):
    return _ema(average, weights, min(decay, step / (1 + step)))


@wrong("update_average", None)
def weight_only(average, weights, step, decay):
    d = min(decay, (1 + step) / (10 + step))
    return {**average, **_ema(average, {k: w for k, w in weights.items() if w.dim() > 1}, d)}


# tree_phrases


def _parse(text):
    """The tree as nested lists: [label, child or word, ..]."""
    stack = [[]]
    for token in text.replace("(", " ( ").replace(")", " ) ").split():
        if token == "(":
            stack.append([])
        elif token == ")":
            node = stack.pop()
            stack[-1].append(node)
        else:
            stack[-1].append(token)
    return stack[0][0]


def _words(node):
    if isinstance(node, str):
        return [node]
    return [word for child in node[1:] for word in _words(child)]


def _nodes(node):
    yield node
    for child in node[1:]:
        if not isinstance(child, str):
            yield from _nodes(child)


@right("tree_phrases")
def recursive(tree):
    return [(" ".join(_words(node)), int(node[0])) for node in _nodes(_parse(tree))]


def _opened(tree, is_label=lambda token, label: label is None, takers=lambda open_: open_):
    nodes, open_ = [], []
    for token in tree.replace("(", " ( ").replace(")", " ) ").split():
        if token == "(":
            nodes.append({"label": None, "words": []})
            open_.append(nodes[-1])
        elif token == ")":
            open_.pop()
        elif is_label(token, open_[-1]["label"]):
            open_[-1]["label"] = int(token)
        else:
            for node in takers(open_):
                node["words"].append(token)
    return [(" ".join(node["words"]), node["label"]) for node in nodes]


@right("tree_phrases")
def by_digits_and_state(tree):
    return _opened(tree, lambda token, label: label is None and token.isdigit())


@wrong("tree_phrases", "taken for a label")
def every_number_is_a_label(tree):
    return _opened(tree, lambda token, label: token.isdigit())


@wrong("tree_phrases", "innermost bracket alone")
def words_of_the_innermost(tree):
    return _opened(tree, takers=lambda open_: open_[-1:])


@wrong("tree_phrases", "turned round is not the opening order")
def closing_turned_round(tree):
    found, open_ = [], []
    for token in re.findall(r"[()]|[^\s()]+", tree):
        if token == "(":
            open_.append([])
        elif token == ")":
            label, *words = open_.pop()
            found.insert(0, (" ".join(words), int(label)))
            if open_:
                open_[-1].extend(words)
        else:
            open_[-1].append(token)
    return found


@right("tree_phrases")
def by_matching_brackets(tree):
    phrases = []
    for start, character in enumerate(tree):
        if character == "(":
            depth, end = 1, start + 1
            while depth:
                depth += {"(": 1, ")": -1}.get(tree[end], 0)
                end += 1
            words = re.findall(r"\(\d ([^\s()]+)\)", tree[start:end])
            phrases.append([" ".join(words), int(tree[start + 1])])
    return phrases


@right("tree_phrases")
def char_by_char(tree):
    result, open_nodes = [], []
    for token in re.findall(r"\(\d|\)|[^\s()]+", tree):
        if token.startswith("("):
            result.append(([], int(token[1])))
            open_nodes.append(result[-1])
        elif token == ")":
            open_nodes.pop()
        else:
            for words, _ in open_nodes:
                words.append(token)
    return tuple((" ".join(words), label) for words, label in result)


@wrong("tree_phrases", "brackets close")
def children_first(tree):
    def walk(node):
        for child in node[1:]:
            if not isinstance(child, str):
                yield from walk(child)
        yield " ".join(_words(node)), int(node[0])

    return list(walk(_parse(tree)))


@wrong("tree_phrases", "sorted by length")
def longest_first(tree):
    return sorted(recursive(tree), key=lambda phrase: len(phrase[0].split()), reverse=True)


@wrong("tree_phrases", "Only single words")
def leaves_by_pattern(tree):
    return [(word, int(label)) for label, word in re.findall(r"\((\d) ([^\s()]+)\)", tree)]


@wrong("tree_phrases", "Single words are missing")
def inner_nodes(tree):
    return [phrase for phrase in recursive(tree) if len(phrase[0].split()) > 1]


@wrong("tree_phrases", "Only the whole sentence")
def sentence_only(tree):
    words = re.findall(r" ([^\s()]+)\)", tree)
    return [(" ".join(words), int(tree[1]))]


@wrong("tree_phrases", "whole sentence is missing")
def below_the_root(tree):
    return recursive(tree)[1:]


@wrong("tree_phrases", "Neutral phrases")
def without_neutral(tree):
    return [(text, label) for text, label in recursive(tree) if label != 2]


@wrong("tree_phrases", "given once")
def as_a_dict(tree):
    return list(dict(recursive(tree)).items())


@wrong("tree_phrases", "before the text")
def label_first(tree):
    return [(label, text) for text, label in recursive(tree)]


@wrong("tree_phrases", "labels are text")
def labels_as_text(tree):
    return [(" ".join(_words(node)), node[0]) for node in _nodes(_parse(tree))]


@wrong("tree_phrases", "labels are floats")
def labels_as_floats(tree):
    return [(" ".join(_words(node)), float(node[0])) for node in _nodes(_parse(tree))]


@wrong("tree_phrases", "label of the whole sentence")
def label_of_the_root(tree):
    return [(text, int(tree[1])) for text, _ in recursive(tree)]


@wrong("tree_phrases", "run together")
def glued(tree):
    return [("".join(_words(node)), int(node[0])) for node in _nodes(_parse(tree))]


@wrong("tree_phrases", "taken for a label")
def digits_are_labels(tree):
    return [
        (" ".join(w for w in _words(node) if not w.isdigit()), int(node[0]))
        for node in _nodes(_parse(tree))
    ]


@wrong("tree_phrases", None)
def labels_from_minus_two(tree):
    return [(text, label - 2) for text, label in recursive(tree)]


@wrong("tree_phrases", None)
def level_by_level(tree):
    level, result = [_parse(tree)], []
    while level:
        result += [(" ".join(_words(node)), int(node[0])) for node in level]
        level = [child for node in level for child in node[1:] if not isinstance(child, str)]
    return result


@wrong("tree_phrases", None)
def lower_cased(tree):
    return [(text.lower(), label) for text, label in recursive(tree)]


# paired_gain


@right("paired_gain")
def by_the_recipe(a, b):
    d = b.astype(float) - a
    seeds, examples = d.shape
    e_seeds = 0.0 if seeds == 1 else d.mean(1).std(ddof=1) / seeds**0.5
    e_examples = d.mean(0).std(ddof=1) / examples**0.5
    t = stats.t.ppf(0.975, seeds - 1) if seeds > 1 else 0.0
    reach = ((t * e_seeds) ** 2 + (1.96 * e_examples) ** 2) ** 0.5
    return d.mean(), d.mean() - reach, d.mean() + reach


@right("paired_gain")
def by_variances(a, b):
    d = np.subtract(b, a, dtype=float)
    square = stats.norm.ppf(0.975) ** 2 * np.var(d.mean(axis=0), ddof=1) / d.shape[1]
    if len(d) > 1:
        square += stats.t.ppf(0.975, len(d) - 1) ** 2 * np.var(d.mean(axis=1), ddof=1) / len(d)
    return [float(d.mean() + sign * math.sqrt(square)) for sign in (0, -1, 1)]


@right("paired_gain")
def by_scipys_intervals(a, b):
    d = b.astype(float) - a
    known = stats.norm.interval(0.95, scale=stats.sem(d.mean(axis=0)))[1]
    few = stats.t.interval(0.95, len(d) - 1, scale=stats.sem(d.mean(1)))[1] if len(d) > 1 else 0
    half = np.hypot(0 if np.isnan(few) else few, 0 if np.isnan(known) else known)
    return d.mean(), d.mean() - half, d.mean() + half


@right("paired_gain")
def in_torch(a, b):
    d = torch.tensor(b).double() - torch.tensor(a).double()
    t = float(stats.t.ppf(0.975, len(d) - 1)) if len(d) > 1 else 0.0
    s = d.mean(1).var() / len(d) if len(d) > 1 else torch.tensor(0.0).double()
    n = d.mean(0).var() / d.shape[1]
    half = (t**2 * s + 1.96**2 * n).sqrt()
    return torch.stack([d.mean(), d.mean() - half, d.mean() + half])


def _interval(a, b, half):
    d = b.astype(float) - a.astype(float)
    seeds = d.mean(axis=1).std(ddof=1) / math.sqrt(len(d)) if len(d) > 1 else 0.0
    examples = d.mean(axis=0).std(ddof=1) / math.sqrt(d.shape[1])
    wide = half(seeds, examples, len(d))
    return d.mean(), d.mean() - wide, d.mean() + wide


def _half(s, e, seeds):
    t = stats.t.ppf(0.975, seeds - 1) if seeds > 1 else 0.0
    return math.hypot(t * s, stats.norm.ppf(0.975) * e)


@wrong("paired_gain", "sign is flipped")
def a_minus_b(a, b):
    return by_the_recipe(b, a)


@wrong("paired_gain", "subtract first")
def unpaired(a, b):
    errors = []
    for axis in (1, 0):
        means = [x.astype(float).mean(axis=axis) for x in (a, b)]
        variances = [np.var(m, ddof=1) / len(m) if len(m) > 1 else 0.0 for m in means]
        errors.append(math.sqrt(sum(variances)))
    half = _half(*errors, len(a))
    gain = b.mean() - a.mean()
    return gain, gain - half, gain + half


@wrong("paired_gain", "examples only")
def examples_only(a, b):
    return _interval(a, b, lambda s, e, n: stats.norm.ppf(0.975) * e)


@wrong("paired_gain", "seeds only")
def seeds_only(a, b):
    return _interval(a, b, lambda s, e, n: stats.t.ppf(0.975, n - 1) * s if n > 1 else 0.0)


@wrong("paired_gain", "1.96 (or 2)")
def always_normal(a, b):
    return _interval(a, b, lambda s, e, n: 1.96 * math.sqrt(s * s + e * e))


@wrong("paired_gain", "one error to either side")
def one_error(a, b):
    return _interval(a, b, lambda s, e, n: math.hypot(s, e))


@wrong("paired_gain", "t widens both")
def students_t_for_both(a, b):
    def half(s, e, n):
        return stats.t.ppf(0.975, n - 1 if n > 1 else np.inf) * math.hypot(s, e)

    return _interval(a, b, half)


@wrong("paired_gain", "t and 1.96 are exchanged")
def t_for_the_examples(a, b):
    t = stats.t.ppf(0.975, len(a) - 1) if len(a) > 1 else 0.0
    return _interval(a, b, lambda s, e, n: math.hypot(1.96 * s, t * e))


@wrong("paired_gain", "has S degrees of freedom")
def freedom_of_all_seeds(a, b):
    t = stats.t.ppf(0.975, len(a))
    return _interval(a, b, lambda s, e, n: math.hypot(t * s, 1.96 * e))


@wrong("paired_gain", "Welch and Satterthwaite")
def welch_and_satterthwaite(a, b):
    def half(s, e, n):
        error = math.hypot(s, e)
        return stats.t.ppf(0.975, (n - 1) * (error / s) ** 4 if s else np.inf) * error

    return _interval(a, b, half)


@wrong("paired_gain", "Welch and Satterthwaite")
def freedom_squared(a, b):
    def half(s, e, n):
        error = math.hypot(s, e)
        return stats.t.ppf(0.975, (n - 1) * (error / s) ** 2 if s else np.inf) * error

    return _interval(a, b, half)


@wrong("paired_gain", "90 % interval")
def ninety_per_cent(a, b):
    t = stats.t.ppf(0.95, len(a) - 1) if len(a) > 1 else 0.0
    return _interval(a, b, lambda s, e, n: math.hypot(t * s, 1.96 * e))


@wrong("paired_gain", "half-widths are added")
def half_widths_added(a, b):
    t = stats.t.ppf(0.975, len(a) - 1) if len(a) > 1 else 0.0
    return _interval(a, b, lambda s, e, n: t * s + 1.96 * e)


@wrong("paired_gain", "ddof=1")
def numpys_default(a, b):
    d = b.astype(float) - a
    s, e = d.mean(1).std() / len(d) ** 0.5, d.mean(0).std() / d.shape[1] ** 0.5
    half = _half(s, e, len(d))
    return d.mean(), d.mean() - half, d.mean() + half


@wrong("paired_gain", "root of the number is missing")
def not_of_the_mean(a, b):
    d = b.astype(float) - a
    s = d.mean(1).std(ddof=1) if len(d) > 1 else 0.0
    half = _half(s, d.mean(0).std(ddof=1), len(d))
    return d.mean(), d.mean() - half, d.mean() + half


@wrong("paired_gain", "all were independent")
def all_independent(a, b):
    d = (b.astype(float) - a).ravel()
    half = stats.norm.ppf(0.975) * d.std(ddof=1) / len(d) ** 0.5
    return d.mean(), d.mean() - half, d.mean() + half


@wrong("paired_gain", "exchanged")
def high_before_low(a, b):
    gain, low, high = by_the_recipe(a, b)
    return gain, high, low


@wrong("paired_gain", "raises TypeError")
def bools_subtracted(a, b):
    d = b - a
    return d.mean(), d.min(), d.max()


@wrong("paired_gain", None)
def clipped_at_zero(a, b):
    gain, low, high = by_the_recipe(a, b)
    return gain, max(low, 0.0), high


@wrong("paired_gain", "got nan")
def nan_with_one_seed(a, b):
    d = b.astype(float) - a
    s = d.mean(1).std(ddof=1) / len(d) ** 0.5
    e = d.mean(0).std(ddof=1) / d.shape[1] ** 0.5
    half = np.hypot(stats.t.ppf(0.975, len(d) - 1) * s, 1.96 * e)
    return d.mean(), d.mean() - half, d.mean() + half


@wrong("paired_gain", None)
def bootstrap_over_examples(a, b):
    d = (b.astype(float) - a).mean(axis=0)
    chosen = np.random.default_rng(0).integers(len(d), size=(500, len(d)))
    low, high = np.quantile(d[chosen].mean(axis=1), [0.025, 0.975])
    return d.mean(), low, high
