"""Masked language modelling: the paper's masks, transformers' head, and a loss that falls."""

import math
import random

import pytest
import torch
import transformers
from small import small_tokenizer

from mtl_lib.bert import BertConfig, BertModel
from mtl_lib.errors import ConfigError, NumericalError
from mtl_lib.methods.masked_lm import (
    IGNORED,
    MaskedLanguageModel,
    Vocabulary,
    further_pretrain,
    mask_tokens,
)
from mtl_lib.pretrained import SPECIAL_TOKENS, wordpiece_tokenizer

PAIRS = {"red": "apple", "green": "frog", "blue": "ocean", "white": "snow", "black": "coal"}
TOKENIZER = wordpiece_tokenizer([*SPECIAL_TOKENS, "the", "is", *PAIRS, *PAIRS.values()])
SIZES = dict(
    vocab_size=TOKENIZER.get_vocab_size(),
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=64,
    max_position_embeddings=32,
)


def encoder(seed=0, **options):
    torch.manual_seed(seed)
    return BertModel(BertConfig(**SIZES, **options))


def sentences(number=200):
    rng = random.Random(0)
    return [f"the {thing} is {colour}" for colour, thing in rng.choices([*PAIRS.items()], k=number)]


def masked(size, length, seed=0):
    """A large batch of one long sentence of ordinary words, masked."""
    vocabulary = Vocabulary.of(TOKENIZER)
    ids = torch.full((size, length), TOKENIZER.token_to_id("apple"))
    generator = torch.Generator().manual_seed(seed)
    return ids, *mask_tokens(ids, torch.ones_like(ids), vocabulary, generator)


def test_fifteen_percent_of_each_sentences_tokens_are_chosen():
    _, _, labels = masked(50, 200)
    assert (labels != IGNORED).sum(dim=1).tolist() == [30] * 50


def test_a_short_sentence_has_one_chosen_token():
    _, _, labels = masked(50, 2)
    assert (labels != IGNORED).sum(dim=1).tolist() == [1] * 50


def test_of_the_chosen_80_percent_are_masked_10_random_and_10_as_they_were():
    ids, read, labels = masked(500, 200)
    chosen = read[labels != IGNORED]  # 15,000
    words = len(Vocabulary.of(TOKENIZER).words)
    masks = (chosen == TOKENIZER.token_to_id("[MASK]")).float().mean().item()
    same = (chosen == ids[0, 0]).float().mean().item()
    assert masks == pytest.approx(0.8, abs=0.015)
    assert same == pytest.approx(0.1 + 0.1 / words, abs=0.015)  # a random word may be the same


def test_random_words_are_never_special_tokens():
    _, read, _ = masked(500, 200)
    special = {TOKENIZER.token_to_id(token) for token in SPECIAL_TOKENS}
    assert set(read.unique().tolist()) & special == {TOKENIZER.token_to_id("[MASK]")}
    assert len(read.unique()) == len(Vocabulary.of(TOKENIZER).words) + 1


def test_labels_are_the_words_that_stood_there_and_all_else_is_as_it_was():
    ids, read, labels = masked(50, 200)
    chosen = labels != IGNORED
    assert torch.equal(labels[chosen], ids[chosen])
    assert torch.equal(read[~chosen], ids[~chosen])


def test_special_tokens_and_padding_are_never_chosen():
    encoded = TOKENIZER.encode("the apple is zebra").ids  # zebra is [UNK]
    ids = torch.tensor([encoded + [0, 0]] * 300)
    attention_mask = torch.tensor([[1] * len(encoded) + [0, 0]] * 300)
    vocabulary = Vocabulary.of(TOKENIZER)
    _, labels = mask_tokens(ids, attention_mask, vocabulary, torch.Generator().manual_seed(0))
    chosen = (labels != IGNORED).any(dim=0).tolist()
    assert chosen == [False, True, True, True, False, False, False, False]


def test_a_sentence_without_words_has_no_chosen_token():
    ids = torch.tensor([TOKENIZER.encode("").ids])
    _, labels = mask_tokens(ids, torch.ones_like(ids), Vocabulary.of(TOKENIZER))
    assert (labels == IGNORED).all()


def test_equal_generators_give_equal_masks():
    assert torch.equal(masked(5, 50, seed=1)[1], masked(5, 50, seed=1)[1])
    assert not torch.equal(masked(5, 50, seed=1)[1], masked(5, 50, seed=2)[1])


def test_a_tokenizer_without_mask_is_refused():
    with pytest.raises(ConfigError, match=r"no \[MASK\]"):
        Vocabulary.of(small_tokenizer())


def test_the_head_has_the_loss_of_transformers():
    theirs = transformers.BertForMaskedLM(transformers.BertConfig(**SIZES)).eval().double()
    torch.nn.init.normal_(theirs.cls.predictions.bias)
    ours = MaskedLanguageModel(encoder()).eval().double()
    state = {n.removeprefix("bert."): t for n, t in theirs.state_dict().items() if "bert." in n}
    ours.encoder.load_state_dict(state | ours.encoder.pooler.state_dict(prefix="pooler."))
    head = theirs.cls.predictions
    ours.dense.load_state_dict(head.transform.dense.state_dict())
    ours.LayerNorm.load_state_dict(head.transform.LayerNorm.state_dict())
    ours.bias.data.copy_(head.bias)
    encoded = [TOKENIZER.encode(text).ids for text in ("the apple is red", "snow is white")]
    ids = torch.tensor([row + [0] * (6 - len(row)) for row in encoded])
    attention_mask = torch.tensor([[1] * len(row) + [0] * (6 - len(row)) for row in encoded])
    read, labels = mask_tokens(
        ids, attention_mask, Vocabulary.of(TOKENIZER), torch.Generator().manual_seed(0)
    )
    expected = theirs(input_ids=read, attention_mask=attention_mask, labels=labels).loss
    torch.testing.assert_close(
        ours(read, attention_mask, labels).double(), expected, rtol=1e-6, atol=0
    )


def test_the_decoder_is_the_table_of_words():
    model = MaskedLanguageModel(encoder())
    names = {name for name, _ in model.named_parameters() if not name.startswith("encoder.")}
    assert names == {"dense.weight", "dense.bias", "LayerNorm.weight", "LayerNorm.bias", "bias"}


def test_the_loss_falls_from_that_of_a_guess():
    losses = further_pretrain(encoder(), TOKENIZER, sentences(), steps=200, lr=3e-3)
    assert len(losses) == 2
    assert losses[0] < math.log(TOKENIZER.get_vocab_size()) + 0.5
    assert losses[-1] < 0.7 * losses[0]


def test_what_is_left_of_a_hundred_steps_is_reported_as_well():
    losses = further_pretrain(encoder(), TOKENIZER, sentences(), steps=101, batch_size=2)
    assert len(losses) == 2


def test_an_encoder_is_left_in_eval_mode_with_the_pooler_it_had():
    model = encoder()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    further_pretrain(model, TOKENIZER, sentences(), steps=2)
    assert not any(module.training for module in model.modules())
    after = model.state_dict()
    same = {name for name, tensor in before.items() if torch.equal(after[name], tensor)}
    assert same == {"pooler.dense.weight", "pooler.dense.bias"}


def test_equal_seeds_give_equal_encoders_whatever_the_global_generator_is():
    states = []
    for number in (1, 2):
        model = encoder()
        torch.manual_seed(number)
        further_pretrain(model, TOKENIZER, sentences(), steps=3, seed=7)
        states.append(model.state_dict())
        following = torch.rand(())
        torch.manual_seed(number)
        assert torch.equal(following, torch.rand(()))
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


@pytest.mark.parametrize(
    "texts, options", [([], {}), (["snow"], {"steps": 0}), (["snow"], {"batch_size": 0})]
)
def test_nothing_to_learn_from_is_refused(texts, options):
    with pytest.raises(ConfigError, match="each must be above 0"):
        further_pretrain(encoder(), TOKENIZER, texts, **{"steps": 1} | options)


def test_a_frozen_encoder_is_refused():
    with pytest.raises(ConfigError, match="the encoder is frozen"):
        further_pretrain(encoder().requires_grad_(False), TOKENIZER, ["snow"], steps=1)


@pytest.mark.parametrize("length", [0, 2])
def test_a_length_without_room_for_a_word_is_refused(length):
    with pytest.raises(ConfigError, match=f"max_length = {length}: a sentence needs 3"):
        further_pretrain(encoder(), TOKENIZER, ["snow"], steps=1, max_length=length)


def test_texts_without_a_known_word_are_left_out():
    texts, states = ["the apple is red", "snow is white"], []
    for given in (texts, ["zebra", texts[0], " ", "zebra zebra", texts[1]]):
        model = encoder()
        losses = further_pretrain(model, TOKENIZER, given, steps=3, batch_size=1)
        assert math.isfinite(losses[0])
        states.append(model.state_dict())
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    with pytest.raises(ConfigError, match="1 sentences without a word that the tokenizer knows"):
        further_pretrain(encoder(), TOKENIZER, ["zebra"], steps=1)


def test_a_loss_that_is_not_finite_is_refused():
    model = encoder()
    torch.nn.init.constant_(model.encoder.layer[0].output.LayerNorm.weight, math.inf)
    with pytest.raises(NumericalError, match="step 1: the loss is nan"):
        further_pretrain(model, TOKENIZER, sentences(), steps=1)
