"""Answers to the exercises of chapter 02b."""

import math
import random
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import BertConfig as PublicConfig
from transformers.models.bert.modeling_bert import BertLMPredictionHead
from wrong_answers.bank import Bank

from mtl_lib.methods import masked_lm

bank = Bank()
wrong, right, WRONG, RIGHT = bank.wrong, bank.right, bank.WRONG, bank.RIGHT

# mask_tokens


@right("mask_tokens")
def two_coins(ids, special, mask_id, vocabulary_size, generator):
    """As public code has it: the rest is halved by a coin."""
    inputs, labels = ids.clone(), ids.clone()
    chance = torch.full(ids.shape, 0.15)
    for i in special.tolist():
        chance[ids == i] = 0.0
    chosen = torch.bernoulli(chance, generator=generator).bool()
    labels[~chosen] = -100
    masks = torch.bernoulli(torch.full(ids.shape, 0.8), generator=generator).bool() & chosen
    inputs[masks] = mask_id
    half = torch.full(ids.shape, 0.5)
    swapped = torch.bernoulli(half, generator=generator).bool() & chosen & ~masks
    words = torch.randint(vocabulary_size, ids.shape, dtype=torch.long, generator=generator)
    inputs[swapped] = words[swapped]
    return inputs, labels


@right("mask_tokens")
def in_numpy(ids, special, mask_id, vocabulary_size, generator):
    seed = torch.randint(2**31, (), generator=generator).item()
    rng = np.random.default_rng(seed)
    old = ids.numpy()
    chosen = ~np.isin(old, special.numpy()) & (rng.random(old.shape) < 0.15)
    fate = rng.choice(3, size=old.shape, p=[0.8, 0.1, 0.1])
    drawn = rng.integers(vocabulary_size, size=old.shape)
    inputs = np.select([chosen & (fate == 0), chosen & (fate == 1)], [mask_id, drawn], old)
    return torch.from_numpy(inputs), torch.from_numpy(np.where(chosen, old, -100))


@right("mask_tokens")
def one_draw_for_both(ids, special, mask_id, vocabulary_size, generator):
    draws = torch.rand(ids.shape, generator=generator).masked_fill(torch.isin(ids, special), 1.0)
    inputs, swapped = ids.clone(), (draws >= 0.12) & (draws < 0.135)
    inputs[draws < 0.12] = mask_id
    count = int(swapped.sum())
    inputs[swapped] = torch.randint(vocabulary_size, (count,), generator=generator)
    return [inputs, torch.where(draws < 0.15, ids, -100)]


@right("mask_tokens")
def the_librarys(ids, special, mask_id, vocabulary_size, generator):
    words = torch.arange(special.max() + 1, vocabulary_size)
    vocabulary = masked_lm.Vocabulary(mask_id, special, words)
    return masked_lm.mask_tokens(ids, (ids != 0).long(), vocabulary, generator)


@right("mask_tokens")
def places_by_hand(ids, special, mask_id, vocabulary_size, generator):
    inputs = ids.flatten().clone()
    labels = torch.full_like(inputs, -100)
    keep = set(special.tolist())
    draws = torch.rand(len(inputs), 2, generator=generator).tolist()
    words = torch.randint(0, vocabulary_size, (len(inputs),), generator=generator).tolist()
    for place, word in enumerate(ids.flatten().tolist()):
        choose, fate = draws[place]
        if word in keep or choose >= 0.15:
            continue
        labels[place] = word
        if fate < 0.8:
            inputs[place] = mask_id
        elif fate < 0.9:
            inputs[place] = words[place]
    return inputs.view_as(ids), labels.view_as(ids)


def chosen_of(ids, special, generator, share=0.15):
    return (torch.rand(ids.shape, generator=generator) < share) & ~torch.isin(ids, special)


@wrong("mask_tokens", "Every token has a label")
def labels_everywhere(ids, special, mask_id, vocabulary_size, generator):
    inputs, _ = two_coins(ids, special, mask_id, vocabulary_size, generator)
    return inputs, ids.clone()


@wrong("mask_tokens", "have the label 0")
def zero_elsewhere(ids, special, mask_id, vocabulary_size, generator):
    inputs, labels = two_coins(ids, special, mask_id, vocabulary_size, generator)
    return inputs, labels.clamp(min=0)


@wrong("mask_tokens", "what the encoder reads")
def labels_from_inputs(ids, special, mask_id, vocabulary_size, generator):
    inputs, labels = two_coins(ids, special, mask_id, vocabulary_size, generator)
    return inputs, torch.where(labels == -100, labels, inputs)


@wrong("mask_tokens", "stay as they are have no label")
def changed_only(ids, special, mask_id, vocabulary_size, generator):
    inputs, labels = two_coins(ids, special, mask_id, vocabulary_size, generator)
    return inputs, torch.where(inputs == ids, -100, ids)


@wrong("mask_tokens", "Special tokens are chosen too")
def special_too(ids, special, mask_id, vocabulary_size, generator):
    return two_coins(ids, torch.tensor([], dtype=torch.long), mask_id, vocabulary_size, generator)


@wrong("mask_tokens", "only 80 %")
def all_masks(ids, special, mask_id, vocabulary_size, generator):
    chosen = chosen_of(ids, special, generator)
    return ids.masked_fill(chosen, mask_id), ids.masked_fill(~chosen, -100)


@wrong("mask_tokens", "2 % of the chosen")
def a_tenth_of_the_rest(ids, special, mask_id, vocabulary_size, generator):
    chosen = chosen_of(ids, special, generator)
    masks = chosen & (torch.rand(ids.shape, generator=generator) < 0.8)
    swapped = chosen & ~masks & (torch.rand(ids.shape, generator=generator) < 0.1)
    words = torch.randint(vocabulary_size, ids.shape, generator=generator)
    inputs = ids.masked_fill(masks, mask_id)
    return torch.where(swapped, words, inputs), ids.masked_fill(~chosen, -100)


@wrong("mask_tokens", "replaced by random words again")
def masks_overwritten(ids, special, mask_id, vocabulary_size, generator):
    chosen = chosen_of(ids, special, generator)
    inputs = ids.masked_fill(chosen & (torch.rand(ids.shape, generator=generator) < 0.8), mask_id)
    swapped = chosen & (torch.rand(ids.shape, generator=generator) < 0.1)
    words = torch.randint(vocabulary_size, ids.shape, generator=generator)
    return torch.where(swapped, words, inputs), ids.masked_fill(~chosen, -100)


@wrong("mask_tokens", "85 % are chosen")
def the_others(ids, special, mask_id, vocabulary_size, generator):
    chosen = ~torch.isin(ids, special) & (torch.rand(ids.shape, generator=generator) >= 0.15)
    fate = torch.rand(ids.shape, generator=generator)
    words = torch.randint(vocabulary_size, ids.shape, generator=generator)
    inputs = ids.masked_fill(chosen & (fate < 0.8), mask_id)
    return torch.where(chosen & (fate > 0.9), words, inputs), ids.masked_fill(~chosen, -100)


@wrong("mask_tokens", "not come from the generator")
def global_draws(ids, special, mask_id, vocabulary_size, generator):
    return two_coins(ids, special, mask_id, vocabulary_size, None)


@wrong("mask_tokens", "changes its input `ids`")
def in_place(ids, special, mask_id, vocabulary_size, generator):
    inputs, labels = two_coins(ids, special, mask_id, vocabulary_size, generator)
    ids.copy_(inputs)
    return ids, labels


@wrong("mask_tokens", None)
def a_fifth(ids, special, mask_id, vocabulary_size, generator):
    chosen = chosen_of(ids, special, generator, share=0.2)
    fate = torch.rand(ids.shape, generator=generator)
    words = torch.randint(vocabulary_size, ids.shape, generator=generator)
    inputs = ids.masked_fill(chosen & (fate < 0.8), mask_id)
    return torch.where(chosen & (fate > 0.9), words, inputs), ids.masked_fill(~chosen, -100)


@wrong("mask_tokens", None)
def one_fate_for_all(ids, special, mask_id, vocabulary_size, generator):
    chosen = chosen_of(ids, special, generator)
    inputs = ids.clone()
    inputs[chosen] = torch.randint(vocabulary_size, (chosen.sum(),), generator=generator)
    return inputs, ids.masked_fill(~chosen, -100)


@wrong("mask_tokens", "Inputs and labels are exchanged")
def labels_first(ids, special, mask_id, vocabulary_size, generator):
    inputs, labels = two_coins(ids, special, mask_id, vocabulary_size, generator)
    return labels, inputs


@wrong("mask_tokens", "Hardly a [MASK] is left")
def words_over_the_masks(ids, special, mask_id, vocabulary_size, generator):
    chosen = chosen_of(ids, special, generator)
    fate = torch.rand(ids.shape, generator=generator)
    words = torch.randint(vocabulary_size, ids.shape, generator=generator)
    inputs = ids.masked_fill(chosen & (fate < 0.8), mask_id)
    inputs = torch.where(chosen & (fate < 0.9), words, inputs)
    return inputs, ids.masked_fill(~chosen, -100)


@wrong("mask_tokens", "expected two tensors")
def inputs_only(ids, special, mask_id, vocabulary_size, generator):
    return two_coins(ids, special, mask_id, vocabulary_size, generator)[0]


@wrong("mask_tokens", "the inputs are of type ndarray, expected a tensor")
def arrays(ids, special, mask_id, vocabulary_size, generator):
    read, labels = two_coins(ids, special, mask_id, vocabulary_size, generator)
    return read.numpy(), labels.numpy()


@wrong("mask_tokens", "the labels are torch.float32, expected torch.int64")
def labels_are_floats(ids, special, mask_id, vocabulary_size, generator):
    read, labels = two_coins(ids, special, mask_id, vocabulary_size, generator)
    return read, labels.float()


def a_draw_from_elsewhere(ids, special, mask_id, vocabulary_size, generators):
    of_places, of_fates, of_words = generators
    chosen = chosen_of(ids, special, of_places)
    fate = torch.rand(ids.shape, generator=of_fates)
    words = torch.randint(vocabulary_size, ids.shape, generator=of_words)
    inputs = ids.masked_fill(chosen & (fate < 0.8), mask_id)
    return torch.where(chosen & (fate > 0.9), words, inputs), ids.masked_fill(~chosen, -100)


@wrong("mask_tokens", "Not every draw comes from the generator")
def places_from_elsewhere(ids, special, mask_id, vocabulary_size, generator):
    draws = (None, generator, generator)
    return a_draw_from_elsewhere(ids, special, mask_id, vocabulary_size, draws)


@wrong("mask_tokens", "Not every draw comes from the generator")
def fates_from_elsewhere(ids, special, mask_id, vocabulary_size, generator):
    draws = (generator, None, generator)
    return a_draw_from_elsewhere(ids, special, mask_id, vocabulary_size, draws)


@wrong("mask_tokens", "Not every draw comes from the generator")
def words_from_elsewhere(ids, special, mask_id, vocabulary_size, generator):
    draws = (generator, generator, None)
    return a_draw_from_elsewhere(ids, special, mask_id, vocabulary_size, draws)


@wrong("mask_tokens", "90 % of the chosen become [MASK]")
def none_stays(ids, special, mask_id, vocabulary_size, generator):
    chosen = chosen_of(ids, special, generator)
    swapped = chosen & (torch.rand(ids.shape, generator=generator) > 0.9)
    words = torch.randint(vocabulary_size, ids.shape, generator=generator)
    inputs = ids.masked_fill(chosen, mask_id)
    return torch.where(swapped, words, inputs), ids.masked_fill(~chosen, -100)


def words_by(draw):
    """The right answer but for the random words, `draw(ids, V, generator)`."""

    def answer(ids, special, mask_id, vocabulary_size, generator):
        chosen = chosen_of(ids, special, generator)
        fate = torch.rand(ids.shape, generator=generator)
        inputs = ids.masked_fill(chosen & (fate < 0.8), mask_id)
        words = draw(ids, vocabulary_size, generator)
        return torch.where(chosen & (fate > 0.9), words, inputs), ids.masked_fill(~chosen, -100)

    return answer


def up_to(limit):
    return words_by(lambda ids, V, g: torch.randint(limit(V), ids.shape, generator=g))


def from_the_batch(ids, V, g):
    return ids.flatten()[torch.randint(ids.numel(), ids.shape, generator=g)]


TOO_FAR, TOO_NARROW = "from 0 to below V: got False", "any of the vocabulary: got False"
for number in (lambda V: V + 1, lambda V: 2 * V, lambda V: 30_000, lambda V: 40, lambda V: 1000):
    wrong("mask_tokens", TOO_FAR)(up_to(number))
for number in (lambda V: V // 2, lambda V: V - 1, lambda V: 12):
    wrong("mask_tokens", TOO_NARROW)(up_to(number))
wrong("mask_tokens", TOO_NARROW)(words_by(from_the_batch))


@wrong("mask_tokens", "One random word stands in all places")
def one_word_for_all(ids, special, mask_id, vocabulary_size, generator):
    chosen = chosen_of(ids, special, generator)
    fate = torch.rand(ids.shape, generator=generator)
    inputs = ids.masked_fill(chosen & (fate < 0.8), mask_id)
    inputs[chosen & (fate > 0.9)] = torch.randint(vocabulary_size, (), generator=generator)
    return inputs, ids.masked_fill(~chosen, -100)


@wrong("mask_tokens", "Only words that become [MASK] have a label")
def masks_alone_have_labels(ids, special, mask_id, vocabulary_size, generator):
    inputs, _ = two_coins(ids, special, mask_id, vocabulary_size, generator)
    return inputs, torch.where(inputs == mask_id, ids, -100)


# masked_word_loss


@right("masked_word_loss")
def with_a_mask(logits, labels):
    chosen = labels != -100
    if not chosen.any():
        return logits.sum() * 0.0
    return F.cross_entropy(logits[chosen], labels[chosen])


@right("masked_word_loss")
def by_log_softmax(logits, labels):
    chosen = (labels != -100).float()
    logs = logits.log_softmax(-1).gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return -(logs * chosen).sum() / max(chosen.sum().item(), 1.0)


@right("masked_word_loss")
def token_by_token(logits, labels):
    total, count = logits.new_zeros(()) + 0 * logits.sum(), 0
    for b in range(len(labels)):
        for place, word in enumerate(labels[b].tolist()):
            if word != -100:
                total = total + torch.logsumexp(logits[b, place], 0) - logits[b, place, word]
                count += 1
    return total / count if count else total


@right("masked_word_loss")
def nan_replaced(logits, labels):
    """The gradient of a mean over nothing is 0 and not NaN, in torch."""
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten()).nan_to_num()


@wrong("masked_word_loss", "cut off from `logits`")
def a_new_zero(logits, labels):
    return with_a_mask(logits, labels) if (labels != -100).any() else torch.tensor(0.0)


@wrong("masked_word_loss", "cut off from `logits`")
def a_plain_zero(logits, labels):
    return with_a_mask(logits, labels) if (labels != -100).any() else 0.0


@wrong("masked_word_loss", "divides 0 by 0")
def plain(logits, labels):
    return F.cross_entropy(logits.transpose(1, 2), labels)


@wrong("masked_word_loss", "divides by all tokens")
def over_all(logits, labels):
    B, L, V = logits.shape
    return F.cross_entropy(logits.view(-1, V), labels.view(-1), reduction="sum") / (B * L)


@wrong("masked_word_loss", "It is the sum")
def total(logits, labels):
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")


@wrong("masked_word_loss", "as if word 0")
def clamped(logits, labels):
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten().clamp(0))


@wrong("masked_word_loss", "Word 0 is left out")
def positive_only(logits, labels):
    chosen = labels > 0
    return F.cross_entropy(logits[chosen], labels[chosen]) if chosen.any() else 0 * logits.sum()


@wrong("masked_word_loss", "Softmax comes twice")
def twice(logits, labels):
    return with_a_mask(F.softmax(logits, -1), labels)


@wrong("masked_word_loss", "mean of the sentences' means")
def per_sentence(logits, labels):
    rows = [with_a_mask(x, y) for x, y in zip(logits, labels, strict=True) if (y != -100).any()]
    return torch.stack(rows).mean() if rows else 0 * logits.sum()


@wrong("masked_word_loss", "infinite")
def small_chances(logits, labels):
    chosen = labels != -100
    if not chosen.any():
        return 0 * logits.sum()
    return F.nll_loss(logits[chosen].softmax(-1).log(), labels[chosen])


@wrong("masked_word_loss", "nll_loss")
def nll_of_logits(logits, labels):
    chosen = labels != -100
    return F.nll_loss(logits[chosen], labels[chosen], reduction="sum") / max(1, int(chosen.sum()))


@wrong("masked_word_loss", "sign is wrong")
def negative(logits, labels):
    return -by_log_softmax(logits, labels)


@wrong("masked_word_loss", None)
def in_bits(logits, labels):
    return with_a_mask(logits, labels) / math.log(2)


@wrong("masked_word_loss", "detached")
def a_number(logits, labels):
    return with_a_mask(logits, labels).item()


# MaskedWordHead


@right("MaskedWordHead")
class Plain(nn.Module):
    def __init__(self, config, words):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)
        self.decoder.weight = words
        self.decoder.bias.data.zero_()

    def forward(self, hidden):
        x = self.dense(hidden)
        x = 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))
        return self.decoder(self.LayerNorm(x))


@right("MaskedWordHead")
class Transformers(nn.Module):
    """The head of transformers' BertForMaskedLM."""

    def __init__(self, config, words):
        super().__init__()
        sizes = dict(hidden_size=config.hidden_size, vocab_size=config.vocab_size)
        theirs = BertLMPredictionHead(PublicConfig(**sizes, layer_norm_eps=config.layer_norm_eps))
        self.dense, self.LayerNorm = theirs.transform.dense, theirs.transform.LayerNorm
        self.decoder = theirs.decoder
        self.decoder.weight = words
        nn.init.zeros_(self.decoder.bias)
        self.whole = [theirs]  # in a list, so that no name is there twice

    def forward(self, hidden):
        return self.whole[0](hidden)


@right("MaskedWordHead")
class Written(nn.Module):
    class Norm(nn.Module):
        def __init__(self, size, eps):
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.ones(size)), nn.Parameter(torch.zeros(size))
            self.eps = eps

        def forward(self, x):
            c = x - x.mean(-1, keepdim=True)
            return c / ((c * c).mean(-1, keepdim=True) + self.eps) ** 0.5 * self.weight + self.bias

    def __init__(self, config, words):
        super().__init__()
        self.dense = nn.Linear(words.shape[1], words.shape[1])
        self.LayerNorm = self.Norm(words.shape[1], config.layer_norm_eps)
        self.decoder = nn.Module()
        self.decoder.weight, self.decoder.bias = words, nn.Parameter(torch.zeros(len(words)))

    def forward(self, hidden):
        x = self.LayerNorm(nn.GELU()(self.dense(hidden)))
        return x @ self.decoder.weight.T + self.decoder.bias


@right("MaskedWordHead")
class KeepsTheTable(Plain):
    """It has the table under a name of its own as well, and another name for the epsilon."""

    class Norm(nn.LayerNorm):
        def __init__(self, size, variance_epsilon):
            super().__init__(size, variance_epsilon)
            self.variance_epsilon = variance_epsilon
            del self.eps

        def forward(self, x):
            return F.layer_norm(x, x.shape[-1:], self.weight, self.bias, self.variance_epsilon)

    def __init__(self, config, words):
        nn.Module.__init__(self)
        self.words = words
        Plain.__init__(self, config, words)
        self.words = words
        self.LayerNorm = self.Norm(config.hidden_size, config.layer_norm_eps)


@wrong("MaskedWordHead", "a table of its own")
class Untied(Plain):
    def __init__(self, config, words):
        super().__init__(config, words)
        self.decoder = nn.Linear(*words.shape[::-1])
        nn.init.zeros_(self.decoder.bias)


@wrong("MaskedWordHead", "a table of its own")
class Copied(Plain):
    def __init__(self, config, words):
        super().__init__(config, words)
        self.decoder.weight = nn.Parameter(words.detach().clone())


@wrong("MaskedWordHead", "second parameter over the same numbers")
class SameData(Plain):
    def __init__(self, config, words):
        super().__init__(config, words)
        self.decoder = nn.Linear(*words.shape[::-1])
        self.decoder.weight.data = words.data
        nn.init.zeros_(self.decoder.bias)


@wrong("MaskedWordHead", "GELU is missing")
class NoBend(Plain):
    def forward(self, hidden):
        return self.decoder(self.LayerNorm(self.dense(hidden)))


@wrong("MaskedWordHead", "ReLU")
class Relu(Plain):
    def forward(self, hidden):
        return self.decoder(self.LayerNorm(F.relu(self.dense(hidden))))


@wrong("MaskedWordHead", "approximation by tanh")
class Tanh(Plain):
    def forward(self, hidden):
        return self.decoder(self.LayerNorm(F.gelu(self.dense(hidden), approximate="tanh")))


@wrong("MaskedWordHead", "LayerNorm comes before GELU")
class NormFirst(Plain):
    def forward(self, hidden):
        return self.decoder(F.gelu(self.LayerNorm(self.dense(hidden))))


@wrong("MaskedWordHead", "Softmax is part of the loss")
class Softmax(Plain):
    def forward(self, hidden):
        return super().forward(hidden).softmax(-1)


@wrong("MaskedWordHead", "torch's epsilon")
class Epsilon(Plain):
    def __init__(self, config, words):
        super().__init__(config, words)
        self.LayerNorm = nn.LayerNorm(config.hidden_size)


@wrong("MaskedWordHead", "does not start at 0")
class TorchsBias(Plain):
    def __init__(self, config, words):
        super().__init__(config, words)
        nn.init.constant_(self.decoder.bias, 0.1)


@wrong("MaskedWordHead", "decoder.bias is missing")
class NoBias(Plain):
    def __init__(self, config, words):
        super().__init__(config, words)
        self.decoder = nn.Linear(*words.shape[::-1], bias=False)
        self.decoder.weight = words


@wrong("MaskedWordHead", "LayerNorm is missing")
class NoNorm(Plain):
    def forward(self, hidden):
        return self.decoder(F.gelu(self.dense(hidden)))


# next_sentence_pairs


@right("next_sentence_pairs")
def by_comprehension(documents, generator):
    pairs = [(d, i) for d, doc in enumerate(documents) for i in range(len(doc) - 1)]
    is_next = (torch.rand(len(pairs), generator=generator) < 0.5).long()
    second = []
    for (d, i), keep in zip(pairs, is_next.tolist(), strict=True):
        others = [documents[n] for n in range(len(documents)) if n != d]
        pool = sum(map(list, others), [])
        draw = torch.randint(len(pool), (1,), generator=generator)
        second.append(documents[d][i + 1] if keep else pool[draw])
    return [documents[d][i] for d, i in pairs], second, is_next


@right("next_sentence_pairs")
def a_document_first(documents, generator):
    """As BERT's code: another document, then a place in it."""
    rng = random.Random(torch.randint(2**31, (), generator=generator).item())
    first, second, is_next = [], [], []
    for d, document in enumerate(documents):
        for i in range(len(document) - 1):
            first.append(document[i])
            if rng.random() < 0.5:
                second.append(document[i + 1])
                is_next.append(1)
                continue
            other = d
            while other == d:
                other = rng.randrange(len(documents))
            second.append(rng.choice(documents[other]))
            is_next.append(0)
    return first, second, is_next


@wrong("next_sentence_pairs", "may come from the same document")
def from_anywhere(documents, generator):
    every = [s for document in documents for s in document]
    first, second, is_next = [], [], []
    for document in documents:
        for i in range(len(document) - 1):
            keep = int(torch.rand((), generator=generator) < 0.5)
            draw = torch.randint(len(every), (), generator=generator)
            first.append(document[i])
            second.append(document[i + 1] if keep else every[draw])
            is_next.append(keep)
    return first, second, is_next


@wrong("next_sentence_pairs", "exchanged")
def zero_for_next(documents, generator):
    first, second, is_next = by_comprehension(documents, generator)
    return first, second, 1 - is_next


@wrong("next_sentence_pairs", "Every second sentence")
def never_random(documents, generator):
    first = [s for document in documents for s in document[:-1]]
    torch.rand((), generator=generator)
    second = [s for document in documents for s in document[1:]]
    return first, second, [1] * len(first)


@wrong("next_sentence_pairs", None)
def three_in_four(documents, generator):
    first, second, is_next = by_comprehension(documents, generator)
    true = [s for document in documents for s in document[1:]]
    draws = torch.rand(len(first), generator=generator) < 0.5
    second = [t if d else s for t, s, d in zip(true, second, draws.tolist(), strict=True)]
    return first, second, torch.where(draws, 1, is_next)


@wrong("next_sentence_pairs", "take turns")
def every_second_one(documents, generator):
    first, second, _ = by_comprehension(documents, generator)
    true = [s for document in documents for s in document[1:]]
    pools = [
        sum((list(d) for d in documents if d is not document), [])
        for document in documents
        for _ in document[1:]
    ]
    marks = [1 - n % 2 for n in range(len(first))]
    drawn = [p[torch.randint(len(p), (), generator=generator).item()] for p in pools]
    second = [t if mark else d for t, d, mark in zip(true, drawn, marks, strict=True)]
    return first, second, marks


@wrong("next_sentence_pairs", "Only the first sentences")
def openings(documents, generator):
    first, second, is_next = by_comprehension(documents, generator)
    homes = [d for d, document in enumerate(documents) for _ in document[1:]]
    for place, (home, keep) in enumerate(zip(homes, is_next.tolist(), strict=True)):
        if not keep:
            draw = torch.randint(len(documents) - 1, (), generator=generator).item()
            second[place] = documents[draw + (draw >= home)][0]
    return first, second, is_next


@wrong("next_sentence_pairs", "stay within a document")
def over_the_ends(documents, generator):
    every = [s for document in documents for s in document]
    is_next = torch.rand(len(every) - 1, generator=generator) < 0.5
    draws = torch.randint(len(every), (len(every) - 1,), generator=generator).tolist()
    second = [
        t if keep else every[d]
        for t, keep, d in zip(every[1:], is_next.tolist(), draws, strict=True)
    ]
    return every[:-1], second, is_next.long()


def with_draws(documents, keep, place):
    first, second, is_next = [], [], []
    for number, document in enumerate(documents):
        others = sum((list(d) for n, d in enumerate(documents) if n != number), [])
        for one, two in zip(document, document[1:], strict=False):
            is_next.append(keep())
            first.append(one)
            second.append(two if is_next[-1] else others[place(len(others))])
    return first, second, is_next


@right("next_sentence_pairs")
def a_list_of_truths(documents, generator):
    return with_draws(
        documents,
        lambda: torch.randint(2, (), generator=generator).item() == 1,
        lambda count: torch.randint(count, (), generator=generator),
    )


@wrong("next_sentence_pairs", "Not every draw comes from the generator")
def places_by_python(documents, generator):
    coin = partial(torch.rand, (), generator=generator)
    return with_draws(documents, lambda: coin().item() < 0.5, random.randrange)


@wrong("next_sentence_pairs", "Not every draw comes from the generator")
def unseeded_coin(documents, generator):
    return with_draws(
        documents,
        lambda: torch.rand(()).item() < 0.5,
        lambda count: torch.randint(count, (), generator=generator),
    )


@wrong("next_sentence_pairs", None)
def never_the_last(documents, generator):
    return with_draws(
        documents,
        lambda: torch.rand((), generator=generator).item() < 0.5,
        lambda count: torch.randint(count - 1, (), generator=generator),
    )


@wrong("next_sentence_pairs", "not come from the generator")
def pythons_random(documents, generator):
    return by_comprehension(documents, None)


@wrong("next_sentence_pairs", "expected three")
def no_labels(documents, generator):
    return by_comprehension(documents, generator)[:2]


# predict_masked


@right("predict_masked")
def gap_by_gap(encoder, head, tokenizer, text, k=5):
    encoder.eval(), head.eval()
    coded = tokenizer.encode(text)
    ids, mask = torch.tensor(coded.ids)[None], torch.tensor(coded.attention_mask)[None]
    with torch.inference_mode():
        logits = head(encoder(ids, mask)[0])[0]
    found = []
    for place, token in enumerate(coded.tokens):
        if token == "[MASK]":
            chances = torch.softmax(logits[place], 0)
            order = chances.argsort(descending=True)[:k]
            found.append([(tokenizer.id_to_token(int(i)), float(chances[i])) for i in order])
    return found


@right("predict_masked")
def by_exp(encoder, head, tokenizer, text, k=5):
    for module in (encoder, head):
        module.train(False)
    ids = torch.tensor([tokenizer.encode(text).ids])
    gaps = torch.nonzero(ids[0] == tokenizer.token_to_id("[MASK]"))[:, 0]
    logs = head(encoder(ids, torch.ones_like(ids))[0].detach()).log_softmax(-1)[0, gaps]
    found = []
    for row in logs.detach():
        words = sorted(range(len(row)), key=lambda i, row=row: -row[i].item())[:k]
        found.append([[tokenizer.id_to_token(i), row[i].exp().item()] for i in words])
    return found


@wrong("predict_masked", "Dropout is at work")
@torch.no_grad()
def still_training(encoder, head, tokenizer, text, k=5):
    ids = torch.tensor([tokenizer.encode(text).ids])
    hidden = encoder(ids, torch.ones_like(ids))[0]
    values, words = head(hidden)[ids == tokenizer.token_to_id("[MASK]")].softmax(-1).topk(k)
    return [
        [(tokenizer.id_to_token(i), p) for i, p in zip(*of_one, strict=True)]
        for of_one in zip(words.tolist(), values.tolist(), strict=True)
    ]


def logits_at(encoder, head, tokenizer, text, shift=0):
    encoder.eval()
    head.eval()
    ids = torch.tensor([tokenizer.encode(text).ids])
    places = (ids[0] == tokenizer.token_to_id("[MASK]")).nonzero()[:, 0] + shift
    return head(encoder(ids, torch.ones_like(ids))[0]).detach()[0, places]


def named(tokenizer, values, words):
    return [
        [(tokenizer.id_to_token(i), p) for i, p in zip(*of_one, strict=True)]
        for of_one in zip(words.tolist(), values.tolist(), strict=True)
    ]


@wrong("predict_masked", "softmax is missing")
def logits_only(encoder, head, tokenizer, text, k=5):
    return named(tokenizer, *logits_at(encoder, head, tokenizer, text).topk(k))


@wrong("predict_masked", "over the k best alone")
def sure(encoder, head, tokenizer, text, k=5):
    values, words = logits_at(encoder, head, tokenizer, text).topk(k)
    return named(tokenizer, values.softmax(-1), words)


@wrong("predict_masked", "too early")
def without_cls(encoder, head, tokenizer, text, k=5):
    return named(tokenizer, *logits_at(encoder, head, tokenizer, text, -1).softmax(-1).topk(k))


@wrong("predict_masked", "These are ids")
def ids_only(encoder, head, tokenizer, text, k=5):
    values, words = logits_at(encoder, head, tokenizer, text).softmax(-1).topk(k)
    return [
        list(zip(*of_one, strict=True))
        for of_one in zip(words.tolist(), values.tolist(), strict=True)
    ]


@wrong("predict_masked", "Only the first gap")
def first_gap(encoder, head, tokenizer, text, k=5):
    return gap_by_gap(encoder, head, tokenizer, text, k)[:1]


@wrong("predict_masked", "counted in words between blanks")
def by_blanks(encoder, head, tokenizer, text, k=5):
    encoder.eval()
    head.eval()
    places = [n + 1 for n, word in enumerate(text.split()) if word == "[MASK]"]
    ids = torch.tensor([tokenizer.encode(text).ids])
    logits = head(encoder(ids, torch.ones_like(ids))[0]).detach()[0, places]
    return named(tokenizer, *logits.softmax(-1).topk(k))


@wrong("predict_masked", "stand in one list")
def one_list(encoder, head, tokenizer, text, k=5):
    return [pair for gap in gap_by_gap(encoder, head, tokenizer, text, k) for pair in gap]


@wrong("predict_masked", "keep the graph")
def with_graph(encoder, head, tokenizer, text, k=5):
    encoder.eval()
    head.eval()
    ids = torch.tensor([tokenizer.encode(text).ids])
    found = []
    for place in (ids[0] == tokenizer.token_to_id("[MASK]")).nonzero()[:, 0]:
        best = head(encoder(ids, torch.ones_like(ids))[0])[0, place].softmax(-1).topk(k)
        names = map(tokenizer.id_to_token, best.indices.tolist())
        found.append(list(zip(names, best.values, strict=True)))
    return found


@wrong("predict_masked", None)
def over_the_gaps(encoder, head, tokenizer, text, k=5):
    return named(tokenizer, *logits_at(encoder, head, tokenizer, text).softmax(0).topk(k))


# pretrain_step


@right("pretrain_step")
def chosen_only(encoder, head, inputs, attention_mask, labels, optimizer):
    optimizer.zero_grad()
    chosen = labels != -100
    logits = head(encoder(inputs, attention_mask)[0][chosen])
    loss = F.cross_entropy(logits, labels[chosen], reduction="sum") / max(1, int(chosen.sum()))
    loss.backward()
    optimizer.step()
    return float(loss)


@right("pretrain_step")
def zero_at_the_end(encoder, head, inputs, attention_mask, labels, optimizer):
    for parameter in [*encoder.parameters(), *head.parameters()]:
        parameter.grad = None
    hidden = encoder(inputs, attention_mask=attention_mask)[0]
    loss = with_a_mask(head(hidden), labels)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.detach().item()


@wrong("pretrain_step", "zero_grad is missing")
def adds_up(encoder, head, inputs, attention_mask, labels, optimizer):
    loss = with_a_mask(head(encoder(inputs, attention_mask)[0]), labels)
    loss.backward()
    optimizer.step()
    return loss.item()


@wrong("pretrain_step", "has to come before backward")
def zero_last(encoder, head, inputs, attention_mask, labels, optimizer):
    loss = with_a_mask(head(encoder(inputs, attention_mask)[0]), labels)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


@wrong("pretrain_step", "Nothing is learned")
def no_step(encoder, head, inputs, attention_mask, labels, optimizer):
    optimizer.zero_grad()
    loss = with_a_mask(head(encoder(inputs, attention_mask)[0]), labels)
    loss.backward()
    return loss.item()


@wrong("pretrain_step", "Nothing is learned")
def zero_between(encoder, head, inputs, attention_mask, labels, optimizer):
    loss = with_a_mask(head(encoder(inputs, attention_mask)[0]), labels)
    loss.backward()
    optimizer.zero_grad()
    optimizer.step()
    return loss.item()


@wrong("pretrain_step", "look at padding")
def no_mask(encoder, head, inputs, attention_mask, labels, optimizer):
    return chosen_only(encoder, head, inputs, torch.ones_like(inputs), labels, optimizer)


@wrong("pretrain_step", "the words that are to be named")
def leak(encoder, head, inputs, attention_mask, labels, optimizer):
    read = torch.where(labels >= 0, labels, inputs)
    return chosen_only(encoder, head, read, attention_mask, labels, optimizer)


@wrong("pretrain_step", "loss.item()")
def a_tensor(encoder, head, inputs, attention_mask, labels, optimizer):
    optimizer.zero_grad()
    loss = with_a_mask(head(encoder(inputs, attention_mask)[0]), labels)
    loss.backward()
    optimizer.step()
    return loss


@wrong("pretrain_step", "divided by all tokens")
def diluted(encoder, head, inputs, attention_mask, labels, optimizer):
    optimizer.zero_grad()
    loss = over_all(head(encoder(inputs, attention_mask)[0]), labels)
    loss.backward()
    optimizer.step()
    return loss.item()


@wrong("pretrain_step", "after the step")
def after_the_step(encoder, head, inputs, attention_mask, labels, optimizer):
    chosen_only(encoder, head, inputs, attention_mask, labels, optimizer)
    with torch.no_grad():
        return with_a_mask(head(encoder(inputs, attention_mask)[0]), labels).item()


@wrong("pretrain_step", None)
def nan_without_words(encoder, head, inputs, attention_mask, labels, optimizer):
    optimizer.zero_grad()
    loss = plain(head(encoder(inputs, attention_mask)[0]), labels)
    loss.backward()
    optimizer.step()
    return loss.item()


# masked_accuracy


@right("masked_accuracy")
def joined(encoder, head, batches):
    encoder.eval(), head.eval()
    hits = []
    for _, inputs, mask, labels in batches:
        chosen = labels != -100
        with torch.no_grad():
            hits.append(head(encoder(inputs, mask)[0])[chosen].argmax(-1) == labels[chosen])
    return torch.cat(hits).float().mean().item()


@right("masked_accuracy")
def weighted(encoder, head, batches):
    encoder.eval(), head.eval()
    shares, weights = [], []
    for batch in batches:
        hidden, labels = encoder(batch[1], batch[2])[0], batch[3]
        guesses = head(hidden).max(dim=-1).indices
        weights.append(int((labels >= 0).sum()))
        shares.append((guesses[labels >= 0] == labels[labels >= 0]).double().sum() / weights[-1])
    return float(np.average(shares, weights=weights))


@wrong("masked_accuracy", "3 of the three faults")
def as_it_was(encoder, head, batches):
    encoder.eval(), head.eval()
    shares = []
    for ids, _inputs, mask, labels in batches:
        guesses = head(encoder(ids, mask)[0]).argmax(-1)
        shares.append((guesses == labels).float().mean().item())
    return sum(shares) / len(shares)


@wrong("masked_accuracy", "reads the sentence without gaps.")
def reads_the_answer(encoder, head, batches):
    encoder.eval(), head.eval()
    return joined(encoder, head, [(ids, ids, mask, labels) for ids, _, mask, labels in batches])


@wrong("masked_accuracy", "tokens that were not hidden count too.")
def counts_all(encoder, head, batches):
    encoder.eval(), head.eval()
    right = total = 0
    for _, inputs, mask, labels in batches:
        right += int((head(encoder(inputs, mask)[0]).argmax(-1) == labels).sum())
        total += labels.numel()
    return right / total


@wrong("masked_accuracy", "a small batch weighs as much as a large one.")
def by_batches(encoder, head, batches):
    encoder.eval(), head.eval()
    return float(np.mean([joined(encoder, head, [batch]) for batch in batches]))


@wrong("masked_accuracy", "Only words that read [MASK] count")
def masks_only(encoder, head, batches):
    encoder.eval(), head.eval()
    right = total = 0
    for ids, inputs, mask, labels in batches:
        masked = (labels != -100) & (inputs != ids)
        right += int((head(encoder(inputs, mask)[0]).argmax(-1) == labels)[masked].sum())
        total += int(masked.sum())
    return right / total


@wrong("masked_accuracy", None)
def counts_repeats(encoder, head, batches):
    encoder.eval(), head.eval()
    right = total = 0
    for ids, inputs, mask, labels in batches:
        right += int((head(encoder(inputs, mask)[0]).argmax(-1) == ids).sum())
        total += labels.numel()
    return right / total


@wrong("masked_accuracy", "in training mode")
def as_it_comes(encoder, head, batches):
    right = chosen = 0
    for _, inputs, attention_mask, labels in batches:
        guesses = head(encoder(inputs, attention_mask)[0]).argmax(-1)
        keep = labels >= 0
        right += int((guesses[keep] == labels[keep]).sum())
        chosen += int(keep.sum())
    return right / chosen
