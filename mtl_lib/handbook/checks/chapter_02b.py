"""Exercises of chapter 02b: pretraining.

Shapes: B sentences, L tokens, H hidden size, V vocabulary size.

What is drawn at random is asked for in shares of many draws, so that an answer may draw in any
order; what may never happen is asked for exactly.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle, pairwise
from operator import eq
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from mtl_lib.bert import BertConfig, BertModel
from mtl_lib.handbook.checks.framework import (
    Case,
    Exercise,
    Mistake,
    WrongKind,
    call,
    draw,
    fill,
    tensor,
    with_gradient,
)
from mtl_lib.pretrained import SPECIAL_TOKENS, wordpiece_tokenizer

IGNORED = -100  # the label of a token that is not to be named

# Hiding words


def mask_tokens(
    ids: Tensor, special: Tensor, mask_id: int, vocabulary_size: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Choose 15 % of the words; of these make 80 % [MASK], 10 % a random word, and leave 10 %
    (Devlin et al., 2019, section 3.1).

    The library's own, `methods.masked_lm.mask_tokens`, chooses 15 % of every single sentence.

    Args:
        ids: `[B, L]`.
        special: ids that are never chosen, `[S]`.
        mask_id: the id of [MASK].
        vocabulary_size: random words have an id below it.
        generator: draws all of it.

    Returns:
        What is read, `[B, L]`, and the labels, `[B, L]`: the id that stood there where a word was
        chosen, -100 elsewhere.
    """
    chosen = ~torch.isin(ids, special) & (torch.rand(ids.shape, generator=generator) < 0.15)
    fate = torch.rand(ids.shape, generator=generator)
    words = torch.randint(vocabulary_size, ids.shape, generator=generator)
    inputs = torch.where(chosen & (fate < 0.8), mask_id, ids)
    inputs = torch.where(chosen & (fate >= 0.9), words, inputs)
    return inputs, ids.masked_fill(~chosen, IGNORED)


def _masked(
    ids: Tensor,
    special: Tensor,
    mask_id: int,
    vocabulary_size: int,
    generator: torch.Generator,
    *,
    chosen: Callable = lambda draws: draws < 0.15,
    masks: float = 0.8,
    words: float = 0.1,
    no_special: bool = True,
    by_column: bool = False,
    one_word: bool = False,
    masks_all: bool = False,
    words_all: bool = False,
    label: Callable = lambda ids, inputs, chosen: ids.masked_fill(~chosen, IGNORED),
) -> tuple[Tensor, Tensor]:
    """Masking with one thing or another changed."""
    places = chosen(torch.rand(ids.shape[1:] if by_column else ids.shape, generator=generator))
    places = places.expand(ids.shape)
    if no_special:
        places = places & ~torch.isin(ids, special)
    fate = torch.rand(ids.shape, generator=generator)
    shape = (1,) if one_word else ids.shape
    drawn = torch.randint(vocabulary_size, shape, generator=generator).expand(ids.shape)
    everywhere = torch.ones_like(places)
    inputs = torch.where((everywhere if masks_all else places) & (fate < masks), mask_id, ids)
    swapped = (everywhere if words_all else places) & (fate >= 1 - words)
    inputs = torch.where(swapped, drawn, inputs)
    return inputs, label(ids, inputs, places)


def _overwritten(ids, special, mask_id, vocabulary_size, generator):
    """The random words are a tenth of all that is chosen, masks among them."""
    inputs, labels = _masked(ids, special, mask_id, vocabulary_size, generator, words=0.0)
    swapped = (labels != IGNORED) & (torch.rand(ids.shape, generator=generator) < 0.1)
    words = torch.randint(vocabulary_size, ids.shape, generator=generator)
    return torch.where(swapped, words, inputs), labels


def _masks_overwritten(ids, special, mask_id, vocabulary_size, generator):
    """Masks below 0.8, then random words below 0.9 over them, by the same draw."""
    inputs, labels = _masked(ids, special, mask_id, vocabulary_size, generator, words=0.0)
    words = torch.randint(vocabulary_size, ids.shape, generator=generator)
    chosen = labels != IGNORED
    stays = chosen & (torch.rand(ids.shape, generator=generator) < 0.1)
    return torch.where(chosen & ~stays, words, ids), labels


def _own_words(ids, special, mask_id, vocabulary_size, generator):
    """The random words alone are drawn from elsewhere."""
    elsewhere = torch.randint(vocabulary_size, ids.shape, generator=torch.default_generator)
    inputs, labels = mask_tokens(ids, special, mask_id, vocabulary_size, generator)
    swapped = (labels != IGNORED) & (inputs != ids) & (inputs != mask_id)
    return torch.where(swapped, elsewhere, inputs), labels


def _own_generator(ids, special, mask_id, vocabulary_size, generator):
    return mask_tokens(ids, special, mask_id, vocabulary_size, torch.default_generator)


def _ordinary(B: int, L: int, V: int = 1000, seed: int = 0) -> Tensor:
    """Ids of ordinary words: 5 and above, since the first five are special."""
    return torch.randint(5, V, (B, L), generator=torch.Generator().manual_seed(seed))


def _sentences(B: int) -> Tensor:
    """[CLS], twenty words, [SEP] and two of [PAD] in every row: `[B, 24]`."""
    ids = _ordinary(B, 24, seed=1)
    ids[:, 0], ids[:, 21], ids[:, 22:] = 2, 3, 0
    return ids


SPECIAL, MASK = torch.arange(5), 4


def _mask_of(answer: Callable, ids: Tensor, seed: int = 9, V: int = 1000) -> tuple[Tensor, Tensor]:
    """What an answer makes of the ids. The seed is not that of torch's own generator, whose draws
    an answer may mix with the right ones."""
    generator = torch.Generator().manual_seed(seed)
    result = call(lambda ids: answer(ids, SPECIAL.clone(), MASK, V, generator), ids)
    if not isinstance(result, tuple | list) or len(result) != 2:
        raise WrongKind(f"got {type(result).__name__}, expected two tensors: inputs and labels")
    inputs, labels = result
    for name, given in (("inputs", inputs), ("labels", labels)):
        if not isinstance(given, Tensor):
            raise WrongKind(f"the {name} are of type {type(given).__name__}, expected a tensor")
        if given.dtype != ids.dtype:
            raise WrongKind(f"the {name} are {given.dtype}, expected {ids.dtype}, as `ids` are")
    if inputs.shape != ids.shape or labels.shape != ids.shape:
        shapes = tuple(inputs.shape), tuple(labels.shape)
        raise WrongKind(f"got inputs and labels of shapes {shapes}, expected {tuple(ids.shape)}")
    return inputs, labels


def _share(places: Tensor) -> float:
    return places.float().mean().item()


def _mask_shares(answer: Callable) -> dict[str, float]:
    """Shares over 200,000 words."""
    ids = _ordinary(100, 2000)
    inputs, labels = _mask_of(answer, ids)
    chosen = labels != IGNORED
    in_column = chosen.sum(dim=0)
    return {
        "share of the words that have a label": _share(chosen),
        "share of labels that are the word that stood there": _share((labels == ids)[chosen]),
        "share of the chosen that become [MASK]": _share((inputs == MASK)[chosen]),
        "share of the chosen that stay as they are": _share((inputs == ids)[chosen]),
        "share of the others that stay as they are": _share((inputs == ids)[~chosen]),
        "share of places alike in all sentences": _share(
            (in_column == 0) | (in_column == len(ids))
        ),
    }


def _random_words(answer: Callable) -> dict[str, bool]:
    """Of 20 words, of which the sentences hold 7: each is drawn about 75 times, if at all."""
    V, ids = 20, _ordinary(100, 1000, V=12)
    inputs, labels = _mask_of(answer, ids, V=V)
    drawn = inputs[(labels != IGNORED) & (inputs != ids) & (inputs != MASK)]
    ordinary = torch.arange(len(SPECIAL), V)  # an answer may leave out the special ones
    return {
        "random words differ from place to place": len(drawn.unique()) > 1,
        "random words have ids from 0 to below V": bool(((drawn >= 0) & (drawn < V)).all()),
        "random words may be any of the vocabulary": bool(torch.isin(ordinary, drawn).all()),
    }


def _label_share(answer: Callable) -> float:
    _, labels = _mask_of(answer, _ordinary(100, 2000))
    return _share(labels != IGNORED)


def _mask_special(answer: Callable) -> dict[str, float]:
    ids = _sentences(2000)
    inputs, labels = _mask_of(answer, ids)
    special = torch.isin(ids, SPECIAL)
    return {
        "share of special tokens with a label": _share((labels != IGNORED)[special]),
        "share of special tokens that stay as they are": _share((inputs == ids)[special]),
    }


def _mask_again(answer: Callable) -> dict[str, bool]:
    """Whether the generator that is handed in decides, and nothing else."""
    ids = _ordinary(4, 200)
    found = []
    for seed, elsewhere in ((0, 1), (0, 2), (3, 1)):
        torch.default_generator.manual_seed(elsewhere)
        inputs, labels = _mask_of(answer, ids, seed)
        found.append(torch.stack([inputs, labels]))
    return {
        "equal generators give the same masks": torch.equal(found[0], found[1]),
        "another generator gives others": not torch.equal(found[0], found[2]),
    }


_ROOM = dict(rtol=0.0, atol=0.025)  # for the luck of the draws

MASK_TOKENS = Exercise(
    name="mask_tokens",
    chapter=2,
    title="hide words",
    section="Pretraining",
    difficulty=3,
    importance=5,
    minutes=20,
    task="""
Write `mask_tokens(ids, special, mask_id, vocabulary_size, generator)`, which turns sentences into
questions and answers.

- `ids`: word ids `[B, L]`. `special`: a tensor with the ids of [PAD], [UNK], [CLS], [SEP] and
  [MASK]. `mask_id`: the id of [MASK].
- Every token that is not special is **chosen** with a chance of 15 %, each on its own.
- What happens to a chosen token is drawn as well: with 80 % it becomes `mask_id`, with 10 % a
  random word, a new one for each (any id from 0 to below `vocabulary_size`), with 10 % it stays as
  it is.
- Return two tensors `[B, L]` of the kind that `ids` is: the **inputs**, which the encoder will
  read, and the **labels**: the id that stood there where a token was chosen (also where it stayed),
  and -100 everywhere else.
- Draw everything from `generator`, a `torch.Generator`. Leave `ids` as they are.
""",
    hint="""
Draw one number from 0 to 1 for every token, `torch.rand(ids.shape, generator=generator)`, to
choose, and a second one to decide what happens: below 0.8, from 0.8 to 0.9, above. `torch.isin`
finds the special tokens, `torch.where` puts things in place. The labels come from `ids`, not from
the inputs.
""",
    reference=mask_tokens,
    cases=(
        Case("200,000 words", _mask_shares, **_ROOM),
        Case("the share of 200,000 words that have a label", _label_share, rtol=0.0, atol=0.006),
        Case("sentences with special tokens", _mask_special, **_ROOM),
        Case("a vocabulary of 20 words", _random_words),
        Case("the generator", _mask_again),
    ),
    mistakes=(
        Mistake(
            partial(_masked, label=lambda ids, inputs, chosen: ids),
            "Every token has a label: those that were not chosen get -100.",
        ),
        Mistake(
            partial(_masked, label=lambda ids, inputs, chosen: ids.masked_fill(~chosen, 0)),
            "Tokens that were not chosen have the label 0, which is a word: it has to be -100.",
        ),
        Mistake(
            partial(
                _masked, label=lambda ids, inputs, chosen: inputs.masked_fill(~chosen, IGNORED)
            ),
            "The labels are what the encoder reads: they have to be what stood there before.",
        ),
        Mistake(
            partial(
                _masked,
                label=lambda ids, inputs, chosen: ids.masked_fill(inputs == ids, IGNORED),
            ),
            "Chosen words that stay as they are have no label: they are to be named as well.",
        ),
        Mistake(
            partial(
                _masked, label=lambda ids, inputs, chosen: ids.masked_fill(inputs != MASK, IGNORED)
            ),
            "Only words that become [MASK] have a label: all that were chosen have one.",
        ),
        Mistake(partial(_masked, no_special=False), "Special tokens are chosen too."),
        Mistake(
            partial(_masked, masks=1.0, words=0.0),
            "Every chosen word becomes [MASK]: only 80 % of them do.",
        ),
        Mistake(
            partial(_masked, masks=0.9),
            "90 % of the chosen become [MASK] and none stays as it is: 80, 10 and 10 % it is.",
        ),
        Mistake(
            partial(_masked, words=0.2),
            "No chosen word stays as it is: 10 % of them do.",
        ),
        Mistake(
            partial(_masked, words=0.0),
            "No chosen word becomes a random one: 10 % of them do.",
        ),
        Mistake(
            partial(_masked, words=0.02),
            "Random words are 10 % of what the masks leave, so 2 % of the chosen: half of what is "
            "left makes 10 %.",
        ),
        Mistake(
            _overwritten,
            "Some masks are replaced by random words again: what happens to a word is one draw.",
        ),
        Mistake(
            partial(_masked, chosen=lambda draws: draws > 0.15),
            "85 % are chosen: the comparison is the wrong way round.",
        ),
        Mistake(
            partial(_masked, masks_all=True),
            "Masks fall on words that were not chosen.",
        ),
        Mistake(
            partial(_masked, words_all=True),
            "Random words stand in places that were not chosen.",
        ),
        Mistake(
            partial(_masked, by_column=True),
            "The same places are chosen in every sentence: draw a number for each token.",
        ),
        Mistake(
            partial(_masked, one_word=True),
            "One random word stands in all places: draw a new one for each.",
        ),
        Mistake(
            lambda *given: mask_tokens(*given)[::-1],
            "Inputs and labels are exchanged: first what is read, then what is to be named.",
        ),
        Mistake(
            _masks_overwritten,
            "Hardly a [MASK] is left: the random words go from 0.8 to 0.9, not from 0 to 0.9.",
        ),
        Mistake(
            _own_generator,
            "The draws do not come from the generator that is handed in.",
        ),
        Mistake(
            _own_words,
            "Not every draw comes from the generator that is handed in: each needs it.",
        ),
    ),
    notes="""
The second draw is where most go wrong: "10 % of what is left" and masks that are overwritten both
look right on one sentence. 4 points.
""",
)

# The loss


def masked_word_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy in nats of the words that were chosen; 0 if there is none.

    Args:
        logits: `[B, L, V]`.
        labels: the id that stood there, or -100, `[B, L]`.
    """
    total = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
    return total / (labels != IGNORED).sum().clamp(min=1)


def _each(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of every token `[B, L]`, 0 where there is no label, and where there is one."""
    given = labels != IGNORED
    losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    return losses.view(labels.shape), given


def _by_sentence(logits: Tensor, labels: Tensor) -> Tensor:
    losses, given = _each(logits, labels)
    has = given.any(dim=1)
    means = losses.sum(dim=1) / given.sum(dim=1).clamp(min=1)
    return means.sum() / has.sum().clamp(min=1)


def _softmax_first(logits: Tensor, labels: Tensor) -> Tensor:
    return masked_word_loss(logits.softmax(dim=-1), labels)


def _log_of_softmax(logits: Tensor, labels: Tensor) -> Tensor:
    given = labels != IGNORED
    chances = logits.softmax(dim=-1).gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    return -(chances.log().where(given, 0.0)).sum() / given.sum().clamp(min=1)


LOGITS = 2 * draw(3, 5, 7, seed=1)
LABELS = torch.tensor(
    [
        [IGNORED, 3, IGNORED, 0, IGNORED],
        [IGNORED, IGNORED, 6, IGNORED, IGNORED],
        [IGNORED] * 5,
    ]
)


def _loss_asks(logits: Tensor, labels: Tensor):
    return lambda answer: call(answer, logits, labels)


MASKED_WORD_LOSS = Exercise(
    name="masked_word_loss",
    chapter=2,
    title="the loss of the hidden words",
    section="Pretraining",
    difficulty=2,
    importance=4,
    minutes=8,
    task="""
Write `masked_word_loss(logits, labels)`: how surprised the model is by the words that were hidden.

- `logits`: for every token a number for each word of the vocabulary, `[B, L, V]`. `labels`: `[B,
  L]`, the id of the right word, or -100 where no word was chosen.
- Return the mean of $-\\log p$ over all chosen tokens of the batch together, a scalar in nats. $p$
  is the chance that softmax over the V numbers gives the right word. Gradients flow back to
  `logits`.
- If no token was chosen, return 0, and a gradient of 0 flows back. (In a small batch that happens,
  and `backward` must not fail there.)
""",
    hint="""
`F.cross_entropy` takes logits `[N, V]` and labels `[N]`, and leaves out the label -100 by itself.
Of nothing it takes the mean, which is 0/0: `reduction="sum"` and a division of your own help.
""",
    reference=masked_word_loss,
    cases=(
        Case("three sentences, three chosen words", _loss_asks(LOGITS, LABELS)),
        Case("one chosen word", _loss_asks(LOGITS[1:2], LABELS[1:2])),
        Case("every word chosen", _loss_asks(LOGITS, _ordinary(3, 5, V=7, seed=3) - 5)),
        Case("no word chosen", _loss_asks(LOGITS[2:], LABELS[2:])),
        Case("large numbers", _loss_asks(100 * LOGITS, LABELS)),
        Case(
            "gradients",
            lambda answer: with_gradient(
                lambda logits: tensor(answer(logits, LABELS.clone())), logits=LOGITS
            ),
        ),
        Case(
            "gradients with no word chosen",
            lambda answer: with_gradient(
                lambda logits: tensor(answer(logits, LABELS[2:].clone())), logits=LOGITS[2:]
            ),
        ),
    ),
    mistakes=(
        Mistake(
            lambda logits, labels: F.cross_entropy(logits.flatten(0, 1), labels.flatten()),
            "With no chosen word it divides 0 by 0: the loss of nothing is 0 here.",
        ),
        Mistake(
            lambda logits, labels: (
                masked_word_loss(logits, labels)
                if (labels != IGNORED).any()
                else logits.new_zeros(())
            ),
            "The 0 of a batch without a chosen word is a new number, cut off from `logits`, and "
            "`backward` fails on it: a sum over nothing is 0 and stays in the graph.",
        ),
        Mistake(
            lambda logits, labels: _each(logits, labels)[0].mean(),
            "It divides by all tokens: divide by those that were chosen.",
        ),
        Mistake(
            lambda logits, labels: _each(logits, labels)[0].sum(),
            "It is the sum: divide by the number of chosen tokens.",
        ),
        Mistake(
            lambda logits, labels: masked_word_loss(logits, labels.clamp(min=0)),
            "Tokens with the label -100 count as if word 0 were to be named.",
        ),
        Mistake(
            lambda logits, labels: masked_word_loss(logits, labels.masked_fill(labels < 1, -100)),
            "Word 0 is left out as well: only -100 marks what was not chosen.",
        ),
        Mistake(
            lambda logits, labels: (
                F.nll_loss(logits.flatten(0, 1), labels.flatten(), reduction="sum")
                / (labels != IGNORED).sum().clamp(min=1)
            ),
            "The logits are taken for logarithms of chances: `nll_loss` needs `log_softmax` before "
            "it, `cross_entropy` does both.",
        ),
        Mistake(
            lambda logits, labels: F.nll_loss(logits.flatten(0, 1), labels.flatten()),
            "The logits are taken for logarithms of chances: `nll_loss` needs `log_softmax` before "
            "it, `cross_entropy` does both.",
        ),
        Mistake(_softmax_first, "Softmax comes twice: cross-entropy has its own, inside."),
        Mistake(
            _by_sentence,
            "It is the mean of the sentences' means: all chosen tokens count alike.",
        ),
        Mistake(
            _log_of_softmax,
            "Softmax first and the logarithm afterwards lose small chances to 0, and the loss is "
            "infinite: log_softmax or cross_entropy do both at once.",
        ),
        Mistake(
            lambda logits, labels: -masked_word_loss(logits, labels),
            "The sign is wrong: a model that is sure of the right word has a loss near 0.",
        ),
    ),
    notes="""
The plain mean of `F.cross_entropy` is NaN for a batch without a label, and one such batch ruins a
whole training. 2 points.
""",
)

# The head


class MaskedWordHead(nn.Module):
    """BERT's prediction head: dense, GELU, LayerNorm, and a decoder whose matrix is the table of
    the words (Devlin et al., 2019, in their code; Press and Wolf, 2017)."""

    def __init__(self, config: BertConfig, words: nn.Parameter) -> None:
        super().__init__()
        H = config.hidden_size
        self.dense = nn.Linear(H, H)
        self.LayerNorm = nn.LayerNorm(H, eps=config.layer_norm_eps)
        self.decoder = nn.Linear(H, config.vocab_size)
        self.decoder.weight = words
        nn.init.zeros_(self.decoder.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """`[.., H]` -> `[.., V]`."""
        return self.decoder(self.LayerNorm(F.gelu(self.dense(hidden))))


CONFIG = BertConfig(
    vocab_size=11,
    hidden_size=8,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=12,
    max_position_embeddings=9,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)
HIDDEN = draw(2, 3, 8, seed=21)


def _table() -> nn.Parameter:
    return nn.Parameter(draw(CONFIG.vocab_size, CONFIG.hidden_size, seed=22))


def _head(answer: Callable, words: nn.Parameter, filled: bool = True) -> nn.Module:
    head = answer(CONFIG, words)
    if not isinstance(head, nn.Module):
        raise WrongKind(f"got {type(head).__name__}, expected a class that extends nn.Module")
    if filled:
        fill(head)
        with torch.no_grad():  # whatever name the head has for it
            words.copy_(draw(*words.shape, seed=25))
    return head


def _head_names(answer: Callable) -> dict[str, str]:
    """Shapes by name. The table may be kept under a second name, beside the decoder's."""
    words = _table()
    named = _head(answer, words, filled=False).named_parameters(remove_duplicate=False)
    return {
        name: " x ".join(map(str, parameter.shape))
        for name, parameter in named
        if parameter is not words or name == "decoder.weight"
    }


def _head_gives(hidden: Tensor, scale: float = 1.0):
    return lambda answer: call(_head(answer, _table()), scale * hidden)


def _head_epsilon(answer: Callable) -> Tensor:
    """What comes out where LayerNorm reads numbers that hardly differ."""
    head = _head(answer, _table())
    with torch.no_grad():
        head.dense.weight.zero_()
        head.dense.bias.copy_(1e-3 * draw(CONFIG.hidden_size, seed=24))
    return call(head, HIDDEN[:1, :1]).detach()


def _head_ties(answer: Callable) -> dict[str, bool]:
    words = _table()
    head = _head(answer, words, filled=False)
    before = head(HIDDEN).detach().clone()
    with torch.no_grad():
        words.mul_(2.0).add_(1.0)
    same = any(parameter is words for parameter in head.parameters())
    return {
        "the table of the words is a parameter of the head": same,
        "what the head gives follows the table": not torch.allclose(before, head(HIDDEN)),
    }


def _head_start(answer: Callable) -> float:
    """The largest bias of a new head's decoder, without a sign."""
    bias = dict(_head(answer, _table(), filled=False).named_parameters()).get("decoder.bias")
    if bias is None:
        raise WrongKind("there is no parameter decoder.bias")
    return bias.detach().abs().max().item()


def _head_gradients(answer: Callable) -> dict[str, Tensor]:
    words, hidden = _table(), HIDDEN.clone().requires_grad_()
    given = _head(answer, words)(hidden)
    (given * torch.arange(given.numel()).view(given.shape).sin()).sum().backward()
    found = {"hidden": hidden.grad, "the table of the words": words.grad}
    return {f"gradient of {n}": torch.zeros(1) if g is None else g for n, g in found.items()}


def _variant(forward: Callable | None = None, change: Callable | None = None) -> type:
    """The right head with another `forward`, or with something changed once it is built."""

    class Wrong(MaskedWordHead):
        def __init__(self, config: BertConfig, words: nn.Parameter) -> None:
            super().__init__(config, words)
            if change:
                change(self, config)

    if forward:
        Wrong.forward = forward
    return Wrong


def _own_table(head: nn.Module, config: BertConfig) -> None:
    own = torch.empty_like(head.decoder.weight)
    head.decoder.weight = nn.Parameter(nn.init.normal_(own, std=config.initializer_range))


def _copied_table(head: nn.Module, config: BertConfig) -> None:
    head.decoder.weight = nn.Parameter(head.decoder.weight.detach())  # the same numbers, alone


def _torchs_epsilon(head: nn.Module, config: BertConfig) -> None:
    head.LayerNorm.eps = 1e-5


def _torchs_bias(head: nn.Module, config: BertConfig) -> None:
    nn.init.constant_(head.decoder.bias, 0.1)


MASKED_WORD_HEAD = Exercise(
    name="MaskedWordHead",
    chapter=2,
    title="the head that names words",
    section="Pretraining",
    difficulty=3,
    importance=4,
    minutes=15,
    task="""
Write the class `MaskedWordHead(config, words)`: from a token's vector to a number for each word of
the vocabulary, as in the public BERT.

- `config`: a `BertConfig`; you need `hidden_size` (H), `vocab_size` (V) and `layer_norm_eps`.
  `words`: the encoder's table of words, a parameter `[V, H]`.
- `dense`: `nn.Linear` from H numbers to H. `LayerNorm`: over H numbers, with the config's epsilon.
- `decoder`: `nn.Linear` from H numbers to V. Its weight is **the table itself**, not a copy, so
  that encoder and head learn one table together. Its bias starts at 0.
- `forward(hidden)`: `[.., H]` -> `[.., V]`: dense, GELU (the exact one), LayerNorm, decoder. No
  softmax.
""",
    hint="""
A parameter is shared by assignment: `self.decoder.weight = words`. `nn.Linear(H, V)` has its weight
in the shape `[V, H]`, which is the table's. Your own `LayerNorm` of chapter 02 and `nn.LayerNorm`
do the same here.
""",
    reference=MaskedWordHead,
    cases=(
        Case("names and shapes of the parameters", _head_names),
        Case("two sentences", _head_gives(HIDDEN)),
        Case("one table", _head_ties),
        Case("single vectors", _head_gives(draw(4, 8, seed=23), scale=3.0)),
        Case("small numbers, where epsilon counts", _head_epsilon),
        Case("the decoder's bias at the start", _head_start),
        Case("gradients", _head_gradients, atol=1e-5),
    ),
    mistakes=(
        Mistake(
            _variant(change=_own_table),
            "The decoder has a table of its own: it has to be the encoder's, which `words` is.",
        ),
        Mistake(
            _variant(change=_copied_table),
            "The decoder's weight is a second parameter over the same numbers: the optimiser takes "
            "it for another one. Assign `words` itself.",
        ),
        Mistake(
            _variant(lambda self, hidden: self.decoder(self.LayerNorm(self.dense(hidden)))),
            "GELU is missing.",
        ),
        Mistake(
            _variant(lambda self, hidden: self.decoder(self.LayerNorm(self.dense(hidden).relu()))),
            "It bends with ReLU: BERT has GELU.",
        ),
        Mistake(
            _variant(
                lambda self, hidden: self.decoder(
                    self.LayerNorm(F.gelu(self.dense(hidden), approximate="tanh"))
                )
            ),
            "GELU is the approximation by tanh: BERT has the exact one.",
        ),
        Mistake(
            _variant(lambda self, hidden: self.decoder(F.gelu(self.dense(hidden)))),
            "LayerNorm is missing.",
        ),
        Mistake(
            _variant(lambda self, hidden: self.decoder(F.gelu(self.LayerNorm(self.dense(hidden))))),
            "LayerNorm comes before GELU: it comes after it.",
        ),
        Mistake(
            _variant(lambda self, hidden: self.decoder(hidden)),
            "Only the decoder is used: dense, GELU and LayerNorm come before it.",
        ),
        Mistake(
            _variant(
                lambda self, hidden: F.linear(
                    self.LayerNorm(F.gelu(self.dense(hidden))), self.decoder.weight
                )
            ),
            "The decoder's bias is not used.",
        ),
        Mistake(
            _variant(lambda self, hidden: MaskedWordHead.forward(self, hidden).softmax(dim=-1)),
            "Softmax is part of the loss: the head gives the plain numbers.",
        ),
        Mistake(
            _variant(change=_torchs_epsilon), "LayerNorm has torch's epsilon: take the config's."
        ),
        Mistake(_variant(change=_torchs_bias), "The decoder's bias does not start at 0."),
    ),
    notes="""
A copy of the table passes every test of a forward pass; it shows only after a step. 3 points.
""",
)

# Two sentences


def next_sentence_pairs(
    documents: Sequence[Sequence[str]], generator: torch.Generator
) -> tuple[list[str], list[str], Tensor]:
    """Pairs for next-sentence prediction (Devlin et al., 2019, section 3.1, task 2).

    Args:
        documents: sentences in their order, for each document; two documents or more.
        generator: draws all of it.

    Returns:
        The first sentences, the second ones, and 1 where the second is the next one, 0 where it is
        a random one of another document, `[N]`: N neighbours in all documents together.
    """
    first, second, is_next = [], [], []
    for number, sentences in enumerate(documents):
        others = [s for n, of_one in enumerate(documents) if n != number for s in of_one]
        for sentence, following in pairwise(sentences):
            keep = torch.rand((), generator=generator).item() < 0.5
            place = torch.randint(len(others), (), generator=generator).item()
            first.append(sentence)
            second.append(following if keep else others[place])
            is_next.append(int(keep))
    return first, second, torch.tensor(is_next)


def _paired(
    documents: Sequence[Sequence[str]],
    generator: torch.Generator,
    *,
    keep: Callable = lambda draw: draw < 0.5,
    from_all: bool = False,
    from_own: bool = False,
    first_only: bool = False,
    one_draw: bool = False,
) -> tuple[list[str], list[str], Tensor]:
    """Pairs with one thing or another changed."""
    first, second, is_next = [], [], []
    draw = torch.rand((), generator=generator).item()
    for number, sentences in enumerate(documents):
        sources = [
            of_one[: 1 if first_only else None]
            for n, of_one in enumerate(documents)
            if from_all or (n == number) == from_own
        ]
        pool = [sentence for source in sources for sentence in source]
        for sentence, following in pairwise(sentences):
            draw = draw if one_draw else torch.rand((), generator=generator).item()
            place = torch.randint(len(pool), (), generator=generator).item()
            kept = keep(draw)
            first.append(sentence)
            second.append(following if kept else pool[place])
            is_next.append(int(kept))
    return first, second, torch.tensor(is_next)


def _exchanged(documents, generator):
    first, second, is_next = next_sentence_pairs(documents, generator)
    return first, second, 1 - is_next


def _across(documents, generator):
    """Neighbours over the ends of documents as well."""
    joined = [sentence for document in documents for sentence in document]
    last = next_sentence_pairs([joined, *documents], generator)
    count = len(joined) - 1
    return last[0][:count], last[1][:count], last[2][:count]


def _backwards(documents, generator):
    """The two neighbours exchanged in place of a random sentence (Lan et al., 2020)."""
    first, second, is_next = [], [], []
    for sentences in documents:
        for pair in pairwise(sentences):
            kept = torch.rand((), generator=generator).item() < 0.5
            one, two = pair if kept else pair[::-1]
            first.append(one)
            second.append(two)
            is_next.append(int(kept))
    return first, second, torch.tensor(is_next)


def _alternating(documents, generator):
    """Every second pair is a random one, and nothing is drawn for it."""
    marks = cycle((0.0, 1.0))
    return _paired(documents, generator, keep=lambda draw: next(marks) < 0.5)


def _own_places(documents, generator):
    """The random sentences alone are drawn from elsewhere."""
    first, second, is_next = next_sentence_pairs(documents, generator)
    homes = [n for n, document in enumerate(documents) for _ in pairwise(document)]
    for place, home in enumerate(homes):
        others = [s for n, of_one in enumerate(documents) if n != home for s in of_one]
        drawn = torch.randint(len(others), (), generator=torch.default_generator).item()
        if not is_next[place]:
            second[place] = others[drawn]
    return first, second, is_next


def _unseeded(documents, generator):
    return next_sentence_pairs(documents, torch.default_generator)


def _documents(*lengths: int) -> list[list[str]]:
    """Sentences "document-place", none twice."""
    return [[f"{n}-{place}" for place in range(length)] for n, length in enumerate(lengths)]


def _pairs_of(answer: Callable, documents: list[list[str]], seed: int = 0) -> tuple:
    generator = torch.Generator().manual_seed(seed)
    result = call(lambda documents: answer(documents, generator), documents)
    if not isinstance(result, tuple | list) or len(result) != 3:
        raise WrongKind(f"got {type(result).__name__}, expected three: first, second, is_next")
    first, second, is_next = list(result[0]), list(result[1]), tensor(result[2]).long().tolist()
    if not len(first) == len(second) == len(is_next):
        sizes = len(first), len(second), len(is_next)
        raise WrongKind(f"got {sizes} first, second and is_next, expected as many of each")
    return first, second, is_next


def _pair_shares(*lengths: int, seeds: int = 1):
    """Which first sentences there are, and what holds of all pairs of some draws."""
    documents = _documents(*lengths)
    following = {one: two for document in documents for one, two in pairwise(document)}

    def ask(answer: Callable) -> dict[str, Any]:
        found = [_pairs_of(answer, documents, seed) for seed in range(seeds)]
        first, second, is_next = (sum(parts, []) for parts in zip(*found, strict=True))
        pairs = list(zip(first, second, is_next, strict=True))
        drawn = [two for _, two, mark in pairs if mark == 0]
        strange = [two for one, two, mark in pairs if mark == 0 and _document(one, two)]
        shares = {
            "first sentences": " ".join(found[0][0][:12]),
            "pairs": len(first),
            "share of pairs marked 1": sum(is_next) / len(is_next),
            "share of pairs marked as the one before": sum(map(eq, is_next[1:], is_next))
            / (len(is_next) - 1),
            "every pair marked 1 is of neighbours": all(
                following.get(one) == two for one, two, mark in pairs if mark == 1
            ),
            "every pair marked 0 is of two documents": not strange,
            "a pair marked 0 is ever of two documents": len(strange) < len(drawn) or not drawn,
        }
        if seeds > 1:
            shares["different random sentences"] = len({*drawn})
        if len({*lengths}) == 1:  # else it depends on whether a document is drawn first
            opening = sum(two.endswith("-0") for two in drawn) / max(1, len(drawn))
            shares["share of the random sentences that open a document"] = opening
        return shares

    return ask


def _document(one: str, two: str) -> bool:
    """Whether both sentences are of one document."""
    return one.split("-")[0] == two.split("-")[0]


def _pair_again(answer: Callable) -> dict[str, bool]:
    documents, found = _documents(9, 9, 9), []
    for seed, elsewhere in ((0, 1), (0, 2), (3, 1)):
        torch.default_generator.manual_seed(elsewhere)
        found.append(_pairs_of(answer, documents, seed))
    return {
        "equal generators give the same pairs": found[0] == found[1],
        "another generator gives others": found[0] != found[2],
    }


NEXT_SENTENCE_PAIRS = Exercise(
    name="next_sentence_pairs",
    chapter=2,
    title="pairs of sentences",
    section="Pretraining",
    difficulty=2,
    importance=3,
    minutes=15,
    task="""
Write `next_sentence_pairs(documents, generator)`, which makes questions of the second kind: does
the second sentence follow the first?

- `documents`: a list of documents, two or more; each is a list of sentences (strings) in their
  order.
- For every two neighbours within a document there is one pair, documents and sentences in their
  order. Its first sentence is the first of the two. With a chance of one half, drawn for each pair,
  its second sentence is the one that really follows. Otherwise it is a random sentence, any place,
  of **another** document.
- Return `(first, second, is_next)`: two lists of strings, and a list or tensor with 1 where the
  second sentence really follows and 0 where it does not.
- A document of one sentence gives no pair, but its sentence may be drawn. Draw everything from
  `generator`, with `torch.rand` and `torch.randint`.
""",
    hint="""
`zip(sentences, sentences[1:])` gives the neighbours. For a document, collect the sentences of all
others in one list first, and draw a place in that list:
`torch.randint(len(others), (), generator=generator).item()`.
""",
    reference=next_sentence_pairs,
    cases=(
        Case("two documents", _pair_shares(5, 5, seeds=200), rtol=0.0, atol=0.1),
        Case(
            "three documents, one of a single sentence",
            _pair_shares(4, 1, 5, seeds=200),
            rtol=0.0,
            atol=0.1,
        ),
        Case("forty documents", _pair_shares(*[51] * 40), rtol=0.0, atol=0.1),
        Case("the generator", _pair_again),
    ),
    mistakes=(
        Mistake(
            partial(_paired, from_all=True),
            "The random sentence may come from the same document, even be the one that follows: "
            "take it from another.",
        ),
        Mistake(
            partial(_paired, from_own=True),
            "The random sentence comes from the same document: take it from another.",
        ),
        Mistake(
            _exchanged,
            "0 and 1 are exchanged: here 1 says that the second sentence follows. (transformers "
            "has it the other way round.)",
        ),
        Mistake(
            _across,
            "The last sentence of a document and the first of the next one are taken for "
            "neighbours: stay within a document.",
        ),
        Mistake(
            _backwards,
            "In place of a random sentence the two neighbours are exchanged: that is another task, "
            "sentence order (ALBERT's).",
        ),
        Mistake(
            partial(_paired, first_only=True),
            "Only the first sentences of documents are drawn: take one from any place.",
        ),
        Mistake(
            partial(_paired, keep=lambda draw: True),
            "Every second sentence is the one that follows: half of them are random ones.",
        ),
        Mistake(
            partial(_paired, keep=lambda draw: False),
            "No second sentence is the one that follows: half of them are.",
        ),
        Mistake(_alternating, "The two kinds take turns: draw for each pair anew."),
        Mistake(_unseeded, "The draws do not come from the generator that is handed in."),
        Mistake(
            _own_places,
            "Not every draw comes from the generator that is handed in: each needs it.",
        ),
    ),
    notes="""
The paper says "a random sentence from the corpus", its code takes another document. Whoever draws
from all documents has some pairs that are marked wrongly. 2 points.
""",
)

# Naming the hidden words


def predict_masked(
    encoder: nn.Module, head: nn.Module, tokenizer: Tokenizer, text: str, k: int = 5
) -> list[list[tuple[str, float]]]:
    """The k likeliest words for every [MASK] of a text, best first, with their chances.

    Args:
        encoder: (ids, attention mask), `[1, L]` each -> the tokens' vectors `[1, L, H]`, first of
            all it returns; left in evaluation mode, as the head is.
        head: `[.., H]` -> `[.., V]`.
    """
    encoder.eval()
    head.eval()
    ids = torch.tensor([tokenizer.encode(text).ids])  # [1, L]
    with torch.no_grad():
        hidden = encoder(ids, torch.ones_like(ids))[0]  # [1, L, H]
        chances = head(hidden[ids == tokenizer.token_to_id("[MASK]")]).softmax(dim=-1)  # [M, V]
    best = chances.topk(k, dim=-1)
    return [
        [(tokenizer.id_to_token(i), p) for i, p in zip(words, of_each, strict=True)]
        for words, of_each in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def _predicted(
    encoder: nn.Module,
    head: nn.Module,
    tokenizer: Tokenizer,
    text: str,
    k: int = 5,
    *,
    shift: int = 0,
    training: bool = False,
    chances: Callable = lambda logits, k: logits.softmax(dim=-1).topk(k, dim=-1),
    name: Callable = lambda tokenizer, word: tokenizer.id_to_token(word),
    places: Callable = lambda places: places,
) -> list[list[tuple[str, float]]]:
    """The prediction with one thing or another changed."""
    if not training:
        encoder.eval()
        head.eval()
    ids = torch.tensor([tokenizer.encode(text).ids])
    found = places((ids[0] == tokenizer.token_to_id("[MASK]")).nonzero()[:, 0] + shift)
    with torch.no_grad():
        best = chances(head(encoder(ids, torch.ones_like(ids))[0][0][found]), k)
    return [
        [(name(tokenizer, i), p) for i, p in zip(words, of_each, strict=True)]
        for words, of_each in zip(best[1].tolist(), best[0].tolist(), strict=True)
    ]


WORDS = "the a cat dog bird sees hears old small garden tree sun in on".split()
TOKENIZER = wordpiece_tokenizer([*SPECIAL_TOKENS, *WORDS])


def _small_model(dropout: float = 0.0) -> tuple[BertModel, MaskedWordHead]:
    """A small encoder with its head, filled with numbers; it knows the words of `TOKENIZER`."""
    config = BertConfig(
        vocab_size=TOKENIZER.get_vocab_size(),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=12,
        max_position_embeddings=16,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=0.0,
    )
    encoder = fill(BertModel(config))
    head = fill(MaskedWordHead(config, encoder.embeddings.word_embeddings.weight))
    return encoder, head


def _predicts(text: str, *k: int, training: bool = False):
    def ask(answer: Callable) -> Any:
        encoder, head = _small_model(dropout=0.5)
        encoder.train(training)
        head.train(training)
        found = answer(encoder, head, TOKENIZER, text, *k)
        if not isinstance(found, tuple | list):
            raise WrongKind(f"got {type(found).__name__}, expected a list")
        if _keeps_graph(found):
            raise WrongKind("the chances keep the graph: ask the model under torch.no_grad()")
        return found

    return ask


def _keeps_graph(found: Any) -> bool:
    if isinstance(found, Tensor):
        return found.requires_grad
    return isinstance(found, tuple | list) and any(map(_keeps_graph, found))


def _by_blanks(encoder, head, tokenizer, text, k=5):
    """Gaps are counted in the words between blanks."""
    places = [n for n, word in enumerate(text.split(), start=1) if word == "[MASK]"]
    return _predicted(
        encoder, head, tokenizer, text, k, places=lambda _: torch.tensor(places, dtype=torch.long)
    )


TWO_GAPS = "the [MASK] sees a small [MASK]"

PREDICT_MASKED = Exercise(
    name="predict_masked",
    chapter=2,
    title="name the hidden words",
    section="Pretraining",
    difficulty=3,
    importance=4,
    minutes=15,
    task="""
Write `predict_masked(encoder, head, tokenizer, text, k=5)`: which words would the model put in the
gaps?

- `encoder`: a BERT like yours; `encoder(ids, attention_mask)[0]` is `[1, L, H]`. `head`: your
  `MaskedWordHead`. `tokenizer`: `tokenizer.encode(text).ids` is a list of L ids, with [CLS] and
  [SEP]; `tokenizer.token_to_id("[MASK]")` is the id of a gap; `tokenizer.id_to_token(i)` is the
  word with id i.
- `text`: a sentence with any number of `[MASK]` in it.
- Predict without dropout: put encoder and head into evaluation mode, and keep no graph.
- Return a list with an entry for every gap, in their order. An entry is a list of the k likeliest
  words, the likeliest first, each as `(word, chance)`: a string and a number. The chances of all V
  words together are 1.
""",
    hint="""
`ids == tokenizer.token_to_id("[MASK]")` picks the gaps' vectors out of `[1, L, H]`: `hidden[that]`
is `[M, H]` for M gaps. Softmax over all V numbers comes before `topk`, which gives values and
indices.
""",
    reference=predict_masked,
    cases=(
        Case("one gap", _predicts("the old [MASK] hears the bird")),
        Case("two gaps", _predicts(TWO_GAPS, 3)),
        Case("a model in training mode", _predicts(TWO_GAPS, 2, training=True)),
        Case("the whole vocabulary", _predicts("[MASK]", len(WORDS) + 5)),
        Case("no gap", _predicts("the cat sees a dog")),
        Case("commas", _predicts("the small, old [MASK] sees a [MASK], a dog", 2)),
    ),
    mistakes=(
        Mistake(
            partial(_predicted, training=True),
            "Dropout is at work: put encoder and head into evaluation mode.",
        ),
        Mistake(
            partial(_predicted, chances=lambda logits, k: logits.topk(k, dim=-1)),
            "These are logits, not chances: softmax is missing.",
        ),
        Mistake(
            partial(
                _predicted,
                chances=lambda logits, k: (
                    (best := logits.topk(k, dim=-1)).values.softmax(dim=-1),
                    best.indices,
                ),
            ),
            "Softmax runs over the k best alone: it runs over the whole vocabulary, then the best "
            "are taken.",
        ),
        Mistake(
            partial(
                _predicted,
                chances=lambda logits, k: logits.softmax(dim=-1).topk(k, dim=-1, largest=False),
            ),
            "These are the unlikeliest words.",
        ),
        Mistake(
            partial(
                _predicted,
                chances=lambda logits, k: logits.log_softmax(dim=-1).topk(k, dim=-1),
            ),
            "These are logarithms of chances.",
        ),
        Mistake(
            partial(_predicted, shift=-1),
            "It looks one token too early: [CLS] has a place of its own, the first.",
        ),
        Mistake(
            partial(_predicted, shift=1),
            "It looks one token too late.",
        ),
        Mistake(
            partial(_predicted, name=lambda tokenizer, word: word),
            "These are ids: `id_to_token` has the words.",
        ),
        Mistake(
            partial(_predicted, places=lambda places: places[:1]),
            "Only the first gap is filled: each has an entry.",
        ),
        Mistake(
            lambda *given: sum(predict_masked(*given), []),
            "The words of all gaps stand in one list: each gap has an entry, a list of its own.",
        ),
        Mistake(
            _by_blanks,
            "The places are counted in words between blanks: count tokens. A comma is one too.",
        ),
    ),
    notes="Softmax over the k best is the mistake that looks best: sure of everything. 3 points.",
)

# A step


def pretrain_step(
    encoder: nn.Module,
    head: nn.Module,
    inputs: Tensor,
    attention_mask: Tensor,
    labels: Tensor,
    optimizer: torch.optim.Optimizer,
) -> float:
    """One step of masked language modelling; returns the loss before it.

    Args:
        encoder: (ids, attention mask) -> the tokens' vectors `[B, L, H]`, first of all it returns.
        head: `[B, L, H]` -> `[B, L, V]`.
        inputs: what is read, `[B, L]`.
        attention_mask: 1 for a token, 0 for padding, `[B, L]`.
        labels: the id that stood there, or -100, `[B, L]`.
        optimizer: of the parameters of both.
    """
    loss = masked_word_loss(head(encoder(inputs, attention_mask)[0]), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def _step(
    encoder,
    head,
    inputs,
    attention_mask,
    labels,
    optimizer,
    *,
    zero: bool = True,
    after: bool = False,
    with_mask: bool = True,
    restored: bool = False,
    loss_of: Callable = masked_word_loss,
    gives: Callable = lambda loss: loss.item(),
):
    """A step with one thing or another changed."""
    if restored:
        inputs = torch.where(labels == IGNORED, inputs, labels)
    mask = attention_mask if with_mask else torch.ones_like(attention_mask)
    loss = loss_of(head(encoder(inputs, mask)[0]), labels)
    if zero:
        optimizer.zero_grad()
    loss.backward()
    if after:
        optimizer.zero_grad()
    optimizer.step()
    return gives(loss)


def _zero_last(encoder, head, inputs, attention_mask, labels, optimizer):
    loss = masked_word_loss(head(encoder(inputs, attention_mask)[0]), labels)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def _loss_afterwards(encoder, head, inputs, attention_mask, labels, optimizer):
    _step(encoder, head, inputs, attention_mask, labels, optimizer)
    with torch.no_grad():
        return masked_word_loss(head(encoder(inputs, attention_mask)[0]), labels).item()


def _batches(count: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Padded sentences of six and four words, masked: inputs, attention mask, labels, `[2, 8]`."""
    found = []
    for seed in range(count):
        ids = _ordinary(2, 8, V=TOKENIZER.get_vocab_size(), seed=40 + seed)
        ids[:, 0], ids[0, 7], ids[1, 5], ids[1, 6:] = 2, 3, 3, 0
        mask = torch.ones(2, 8, dtype=torch.long)
        mask[1, 6:] = 0
        labels = torch.full((2, 8), IGNORED)
        for row, place in ((0, 2), (0, 5), (1, 1 + seed % 3)):
            labels[row, place] = ids[row, place]
            ids[row, place] = MASK
        found.append((ids, mask, labels))
    return found


def _steps(count: int, hide: bool = True):
    """Losses of some steps of SGD, and what they made of the parameters."""

    def ask(answer: Callable) -> dict[str, Any]:
        encoder, head = _small_model()
        parameters = {
            f"{part}.{name}": parameter
            for part, module in (("encoder", encoder), ("head", head))
            for name, parameter in module.named_parameters()
            if "pooler" not in name and name != "decoder.weight"  # no gradient; the table again
        }
        for parameter in parameters.values():
            parameter.grad = torch.full_like(parameter, 0.1)  # of an earlier step
        optimizer = torch.optim.SGD(parameters.values(), lr=0.2)
        losses = []
        for inputs, mask, labels in _batches(count):
            if not hide:
                labels = torch.full_like(labels, IGNORED)
            losses.append(
                call(
                    lambda *given, parts=(encoder, head): answer(*parts, *given, optimizer),
                    inputs,
                    mask,
                    labels,
                )
            )
        return {
            "losses": losses,
            "a loss is a plain number": all(isinstance(loss, float) for loss in losses),
            **{name: parameter.detach().clone() for name, parameter in parameters.items()},
        }

    return ask


PRETRAIN_STEP = Exercise(
    name="pretrain_step",
    chapter=2,
    title="a step of pretraining",
    section="Pretraining",
    difficulty=3,
    importance=5,
    minutes=12,
    task="""
Write `pretrain_step(encoder, head, inputs, attention_mask, labels, optimizer)`: one step in which
encoder and head learn to name the hidden words.

- `encoder` and `head`: your `Bert` and your `MaskedWordHead`, or others like them: `encoder(inputs,
  attention_mask)[0]` is `[B, L, H]`, and `head` makes `[B, L, V]` of it.
- `inputs` and `labels`, `[B, L]`: what `mask_tokens` gives. `attention_mask`: `[B, L]`, 1 for a
  token, 0 for padding.
- `optimizer`: an optimiser of torch for the parameters of both, with `zero_grad()` and `step()`.
  There may be gradients of an earlier step; they must not count.
- The loss is your `masked_word_loss`. Return it as a plain number: what it was before the step.
""",
    hint="""
Five calls: forward through both, the loss, `zero_grad`, `backward`, `step`. `loss.item()` is the
plain number.
""",
    reference=pretrain_step,
    cases=(
        Case("one step", _steps(1), atol=1e-5),
        Case("three steps", _steps(3), atol=1e-4),
        Case("no hidden word", _steps(1, hide=False), atol=1e-5),
    ),
    mistakes=(
        Mistake(
            partial(_step, zero=False),
            "Gradients of earlier steps add up: zero_grad is missing.",
        ),
        Mistake(
            _zero_last,
            "Gradients from before the first step count in it: zero_grad comes after the step and "
            "has to come before backward.",
        ),
        Mistake(
            partial(_step, after=True),
            "Nothing is learned: backward and then step have to be called, with no zero_grad "
            "between them.",
        ),
        Mistake(
            partial(_step, with_mask=False),
            "The attention mask does not reach the encoder: words look at padding.",
        ),
        Mistake(
            partial(_step, restored=True),
            "The encoder reads the words that are to be named: give it `inputs` as they are.",
        ),
        Mistake(
            _loss_afterwards,
            "It returns the loss after the step, computed anew: return the one that it learned "
            "from.",
        ),
        Mistake(
            partial(_step, gives=lambda loss: loss),
            "It returns a tensor, and with it the whole graph: loss.item() is the number.",
        ),
        Mistake(
            partial(_step, loss_of=lambda logits, labels: _each(logits, labels)[0].mean()),
            "The loss is divided by all tokens: divide by those that were chosen.",
        ),
        Mistake(
            partial(_step, loss_of=lambda logits, labels: _each(logits, labels)[0].sum()),
            "The loss is a sum: it is the mean over the chosen tokens.",
        ),
    ),
    notes="The integration: with it the chapter's own BERT learns. 3 points.",
)

# The bug hunt


def masked_accuracy(
    encoder: nn.Module, head: nn.Module, batches: Sequence[tuple[Tensor, ...]]
) -> float:
    """Share of all hidden words that are named right.

    Args:
        encoder, head: as in `pretrain_step`; left in evaluation mode.
        batches: (ids, inputs, attention mask, labels), `[B, L]` each.
    """
    encoder.eval()
    head.eval()
    right = chosen = 0
    with torch.no_grad():
        for _, inputs, attention_mask, labels in batches:
            guesses = head(encoder(inputs, attention_mask)[0]).argmax(dim=-1)  # [B, L]
            right += (guesses == labels).sum().item()  # never where a label is -100
            chosen += (labels != IGNORED).sum().item()
    return right / chosen


def _accuracy(
    encoder,
    head,
    batches,
    *,
    leak=False,
    all_tokens=False,
    by_batch=False,
    as_it_is=False,
    masks_only=False,
) -> float:
    """The accuracy with some of the three faults of the chapter's own version, or with one more."""
    if not as_it_is:
        encoder.eval()
        head.eval()
    rights, counts = [], []
    with torch.no_grad():
        for ids, inputs, attention_mask, labels in batches:
            guesses = head(encoder(ids if leak else inputs, attention_mask)[0]).argmax(dim=-1)
            labels = labels.masked_fill(inputs != MASK, IGNORED) if masks_only else labels
            rights.append((guesses == labels).sum().item())
            counts.append(labels.numel() if all_tokens else (labels != IGNORED).sum().item())
    if by_batch:
        return sum(r / c for r, c in zip(rights, counts, strict=True)) / len(rights)
    return sum(rights) / sum(counts)


class _Echo(nn.Module):
    """An encoder whose vectors are the ids themselves, so that a head can do as it is told; in
    training mode every third one is lost."""

    def forward(self, ids: Tensor, attention_mask: Tensor) -> tuple[Tensor]:
        if self.training:
            ids = ids.masked_fill(torch.arange(ids.shape[1]) % 3 == 0, MASK)
        return (ids[..., None].float(),)


class _Told(nn.Module):
    """A head that names the word it reads, or the one above it where the id can be divided."""

    def __init__(self, divisor: int, V: int = 40) -> None:
        super().__init__()
        self.divisor, self.V = divisor, V

    def forward(self, hidden: Tensor) -> Tensor:
        ids = hidden[..., 0].long()
        named = torch.where(ids % self.divisor == 0, (ids + 1) % self.V, ids)
        return F.one_hot(named, self.V).float()


def _accuracy_asks(seed: int, sizes: tuple, divisor: int, mask: int = MASK):
    """Batches of some sizes in which some words are hidden, others as they were."""
    generator = torch.Generator().manual_seed(seed)
    batches = []
    for B, L, hidden in sizes:
        ids = torch.randint(5, 40, (B, L), generator=generator)
        chosen = torch.zeros(B * L, dtype=torch.bool)
        chosen[torch.randperm(B * L, generator=generator)[:hidden]] = True
        chosen = chosen.view(B, L)
        masked = chosen & (torch.rand(B, L, generator=generator) < 0.5)
        inputs = torch.where(masked, mask, ids)
        labels = ids.masked_fill(~chosen, IGNORED)
        batches.append((ids, inputs, torch.ones_like(ids), labels))

    def ask(answer: Callable) -> Any:
        return call(lambda batches: answer(_Echo(), _Told(divisor), batches), batches)

    return ask


MASKED_ACCURACY = Exercise(
    name="masked_accuracy",
    chapter=2,
    title="three faults in nine lines",
    difficulty=3,
    importance=4,
    minutes=15,
    task="""
The cell above holds `suspicious_accuracy`, which runs and prints numbers that look right. It has
three faults. Write `masked_accuracy(encoder, head, batches)`, which has none.

- `batches`: a list; each entry is `(ids, inputs, attention_mask, labels)`, four tensors `[B, L]`.
  `ids` are the sentences as they were written; `inputs` and `labels` are what `mask_tokens` made of
  them. The batches differ in size and in how many words are hidden in them.
- Return the share of all words with a label, those of all batches together, for which the model's
  likeliest word is the right one: a number from 0 to 1. All of them count, also those that were
  exchanged or left as they are. There is at least one.
- The model may come from its training: it is asked in evaluation mode.
""",
    hint="""
Ask of every line: what does the model see here? Which tokens are counted? Does a hidden word weigh
the same in a batch with few of them?
""",
    reference=masked_accuracy,
    cases=(
        Case("one batch", _accuracy_asks(1, ((4, 10, 11),), divisor=3)),
        Case("three batches", _accuracy_asks(2, ((4, 10, 9), (4, 6, 2), (1, 9, 4)), divisor=3)),
        Case("every word hidden", _accuracy_asks(3, ((2, 5, 10), (1, 4, 4)), divisor=4)),
        Case("a model that only repeats", _accuracy_asks(4, ((3, 8, 7), (2, 4, 3)), divisor=99)),
    ),
    mistakes=tuple(
        Mistake(
            partial(_accuracy, leak=leak, all_tokens=all_tokens, by_batch=by_batch),
            f"{count} of the three faults {'is' if count == 1 else 'are'} left: "
            + "; ".join(
                word
                for there, word in (
                    (leak, "the model reads the sentence without gaps"),
                    (all_tokens, "tokens that were not hidden count too"),
                    (by_batch, "a small batch weighs as much as a large one"),
                )
                if there
            )
            + ".",
        )
        for leak, all_tokens, by_batch in (
            (True, False, False),
            (False, True, False),
            (False, False, True),
            (True, True, False),
            (True, False, True),
            (False, True, True),
            (True, True, True),
        )
        for count in [leak + all_tokens + by_batch]
    )
    + (
        Mistake(
            partial(_accuracy, as_it_is=True),
            "The model is asked as it comes, in training mode, with dropout on: call `eval()` on "
            "encoder and head.",
        ),
        Mistake(
            partial(_accuracy, masks_only=True),
            "Only words that read [MASK] count: every word with a label does.",
        ),
    ),
    notes="""
Two of the faults hide each other: the leak makes the number too large, counting all tokens far too
small. 3 points.
""",
)

EXERCISES = (
    MASK_TOKENS,
    MASKED_WORD_LOSS,
    MASKED_WORD_HEAD,
    NEXT_SENTENCE_PAIRS,
    PREDICT_MASKED,
    PRETRAIN_STEP,
    MASKED_ACCURACY,
)
