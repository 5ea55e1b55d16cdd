"""Tokenising and batches."""

from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from mtl_lib import data
from mtl_lib.data import BatchStream, PairExample, SentenceExample, sorted_batches, tokenize
from mtl_lib.handbook.tiny import build_vocabulary
from mtl_lib.pretrained import wordpiece_tokenizer
from mtl_lib.tasks import PARAPHRASE, SENTIMENT, SIMILARITY

# Tokenising

SENTENCES = [
    "a dog runs",
    "the dog",
    "a cat and a dog and a bird run in the sun",
    "cats",
    "the sun",
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return wordpiece_tokenizer(build_vocabulary(SENTENCES, 60))


@pytest.fixture(scope="module")
def split(tokenizer):
    examples = [SentenceExample(f"s{i}", text, i % 5) for i, text in enumerate(SENTENCES)]
    return tokenize(examples, SENTIMENT, tokenizer, 32)


@pytest.fixture(scope="module")
def pairs(tokenizer):
    examples = [
        PairExample("p0", "a dog", "the dog runs in the sun", 4.5),
        PairExample("p1", "cats run and run and run", "a cat", 0.0),
        PairExample("p2", "the sun", "the sun", 5.0),
    ]
    return tokenize(examples, SIMILARITY, tokenizer, 32)


def test_a_sentence_is_its_word_pieces_between_cls_and_sep(split, tokenizer):
    tokens = [tokenizer.id_to_token(i) for i in split.sentences[0][0]]
    assert tokens == ["[CLS]", "a", "dog", "runs", "[SEP]"]


def test_truncation_keeps_cls_and_sep_as_the_tokenizer_itself_does(tokenizer):
    cut = Tokenizer.from_str(tokenizer.to_str())
    cut.enable_truncation(6)
    examples = [SentenceExample("s", text, 0) for text in SENTENCES]
    split = tokenize(examples, SENTIMENT, tokenizer, 6)
    ours = [tokens.tolist() for tokens in split.sentences[0]]
    assert ours == [cut.encode(text).ids for text in SENTENCES]


def test_settings_of_the_tokenizer_have_no_effect_and_stay(split, tokenizer):
    padded = Tokenizer.from_str(tokenizer.to_str())
    padded.enable_padding(length=20)
    padded.enable_truncation(4)
    examples = [SentenceExample("s", text, 0) for text in SENTENCES]
    again = tokenize(examples, SENTIMENT, padded, 32)
    assert all(map(torch.equal, again.sentences[0], split.sentences[0]))
    assert padded.padding["length"] == 20 and padded.truncation["max_length"] == 4


def test_more_sentences_than_a_chunk_keep_their_order(split, tokenizer, monkeypatch):
    monkeypatch.setattr(data, "TOKENIZE_CHUNK", 2)
    examples = [SentenceExample("s", text, 0) for text in SENTENCES]
    again = tokenize(examples, SENTIMENT, tokenizer, 32)
    assert all(map(torch.equal, again.sentences[0], split.sentences[0]))


def test_label_types_follow_the_task(split, pairs, tokenizer):
    binary = tokenize([PairExample("p", "a", "b", 1)], PARAPHRASE, tokenizer, 8)
    unlabelled = tokenize([SentenceExample("s", "a", None)], SENTIMENT, tokenizer, 8)
    assert split.labels.dtype == torch.int64
    assert pairs.labels.dtype == binary.labels.dtype == torch.float32
    assert pairs.labels.tolist() == [4.5, 0.0, 5.0]
    assert unlabelled.labels is None and unlabelled.batch([0]).labels is None


def test_labels_that_are_partly_missing_are_refused(tokenizer):
    examples = [SentenceExample("a", "a dog", 1), SentenceExample("b", "a cat", None)]
    with pytest.raises(ValueError, match="some examples have labels"):
        tokenize(examples, SENTIMENT, tokenizer, 8)


def test_no_examples_or_no_room_are_refused(tokenizer):
    with pytest.raises(ValueError, match="0 examples"):
        tokenize([], SENTIMENT, tokenizer, 8)
    with pytest.raises(ValueError, match="max_length 2"):
        tokenize([SentenceExample("a", "a dog", 1)], SENTIMENT, tokenizer, 2)


# Batches


def test_a_batch_is_padded_to_its_longest_sentence(split):
    batch = split.batch([0, 3])
    assert batch.input_ids.shape == batch.attention_mask.shape
    assert batch.input_ids.shape[1] == max(len(split.sentences[0][i]) for i in (0, 3))
    for row, mask, i in zip(batch.input_ids, batch.attention_mask, (0, 3), strict=True):
        assert torch.equal(row[mask.bool()], split.sentences[0][i])
        assert not row[~mask.bool()].any()


def test_the_first_sentences_of_all_pairs_come_before_the_second(pairs):
    batch = pairs.batch([2, 0])
    rows = [
        row[mask.bool()] for row, mask in zip(batch.input_ids, batch.attention_mask, strict=True)
    ]
    first, second = pairs.sentences
    assert all(map(torch.equal, rows, [first[2], first[0], second[2], second[0]]))
    assert batch.ids == ["p2", "p0"] and batch.labels.tolist() == [5.0, 4.5] and len(batch) == 2


def test_a_padding_token_spelled_out_in_the_text_is_attended_to(tokenizer):
    split = tokenize([SentenceExample("s", "a [PAD] dog", 0)], SENTIMENT, tokenizer, 8)
    batch = split.batch([0])
    assert (batch.input_ids == 0).sum() == 1 and batch.attention_mask.all()


def test_a_batch_moves_to_a_device_whole(pairs, tokenizer):
    batch = pairs.batch([0]).to("meta")
    tensors = (batch.input_ids, batch.attention_mask, batch.labels)
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    unlabelled = tokenize([SentenceExample("s", "a", None)], SENTIMENT, tokenizer, 8)
    assert unlabelled.batch([0]).to("cpu").labels is None


def test_lengths_are_those_of_the_longer_sentence(pairs):
    longest = [max(len(a), len(b)) for a, b in zip(*pairs.sentences, strict=True)]
    assert pairs.lengths.tolist() == longest


def test_taking_examples_gives_a_smaller_split_in_the_order_asked(pairs):
    taken = pairs.take(torch.tensor([2, 0]))
    assert len(taken) == 2 and taken.ids == ["p2", "p0"] and taken.labels.tolist() == [5.0, 4.5]
    assert torch.equal(taken.batch([1]).input_ids, pairs.batch([0]).input_ids)
    assert taken.lengths.tolist() == pairs.lengths[[2, 0]].tolist()


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_booleans_take_the_examples_where_they_are_true(pairs, kind):
    mask = kind([True, False, True])
    assert pairs.take(mask).ids == pairs.batch(mask).ids == ["p0", "p2"]
    assert pairs.take(pairs.labels > 0).ids == ["p0", "p2"]


@pytest.mark.parametrize("mask", [[True], [True] * 4, [[True, False, True]]])
def test_booleans_of_another_number_are_refused(pairs, mask):
    with pytest.raises(ValueError, match=r"a mask \[.*\] for a split of 3 examples"):
        pairs.take(mask)


def test_a_text_without_a_token_is_an_empty_row_of_ids(tokenizer):
    bare = Tokenizer(tokenizer.model)  # puts nothing before or behind a sentence
    (ids,) = tokenize([SentenceExample("s", "", 0)], SENTIMENT, bare).sentences[0]
    assert ids.dtype == torch.int64 and len(ids) == 0


def test_every_pass_of_a_stream_serves_each_example_once(split):
    served = [i for batch in islice(BatchStream(split, 2, seed=3), 10) for i in batch.ids]
    assert all(len(set(served[start : start + 5])) == 5 for start in range(0, 20, 5))


def test_passes_come_in_different_orders(split):
    served = [i for batch in islice(BatchStream(split, 5, seed=0), 6) for i in batch.ids]
    assert len({tuple(served[start : start + 5]) for start in range(0, 30, 5)}) > 1


def test_a_stream_gives_full_batches_even_from_a_smaller_split(split):
    batch = next(BatchStream(split, 12, seed=0))
    assert len(batch) == 12 and set(Counter(batch.ids).values()) == {2, 3}


def test_equal_seeds_give_equal_streams_whatever_the_global_generator(split):
    torch.manual_seed(1)
    first = [batch.ids for batch in islice(BatchStream(split, 2, seed=7), 6)]
    torch.manual_seed(2)
    assert [batch.ids for batch in islice(BatchStream(split, 2, seed=7), 6)] == first
    assert [batch.ids for batch in islice(BatchStream(split, 2, seed=8), 6)] != first


@pytest.mark.parametrize("steps", [0, 1, 3, 5, 8])
def test_a_stream_continues_from_its_state(split, steps, tmp_path):
    stream = BatchStream(split, 2, seed=5)
    for _ in range(steps):
        next(stream)
    torch.save(stream.state_dict(), tmp_path / "state")
    expected = [batch.ids for batch in islice(stream, 9)]
    resumed = BatchStream(split, 2, seed=99)
    resumed.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    assert [batch.ids for batch in islice(resumed, 9)] == expected


def test_the_state_of_another_split_is_refused(split, pairs):
    with pytest.raises(ValueError, match="3 examples, split of 5"):
        BatchStream(split, 2, 0).load_state_dict(BatchStream(pairs, 2, 0).state_dict())


def test_sorted_batches_restore_the_file_order_through_their_indices(split):
    labels, longest = torch.full((len(split),), -1), []
    for indices, batch in sorted_batches(split, 2):
        labels[indices] = batch.labels
        longest.append(batch.input_ids.shape[1])
    assert torch.equal(labels, split.labels)
    assert longest == sorted(longest, reverse=True)
