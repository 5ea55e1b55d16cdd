"""Corpora: reading, validation, download, tokenising, batches."""

import http.client
import io
import os
import urllib.error
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from mtl_lib.data import BatchStream, PairExample, SentenceExample, sorted_batches, tokenize
from mtl_lib.errors import CorpusError
from mtl_lib.handbook.tiny import build_vocabulary
from mtl_lib.paths import ROOT
from mtl_lib.pretrained import wordpiece_tokenizer
from mtl_lib.study import corpora
from mtl_lib.study.corpora import check_corpus, fetch_corpus, git_blob_id, load_corpus
from mtl_lib.tasks import PARAPHRASE, SENTIMENT, SIMILARITY

ORIGINAL_FILES = Path(os.environ.get("CS224N_DATA", ROOT.parent / "shared" / "data" / "cs224n"))

SST = "\tid\tsentence\tsentiment\n"
QUORA = "\tid\tsentence1\tsentence2\tis_duplicate\n"
STS = "\tid\tsentence1\tsentence2\tsimilarity\n"


@pytest.fixture
def folder(tmp_path):
    """A function that writes files and returns their folder."""

    def write(**files: str) -> Path:
        for name, text in files.items():
            path = tmp_path / f"{name.replace('_', '-')}.csv"
            path.write_bytes(text.encode())
        return tmp_path

    return write


# Reading


def test_columns_are_found_by_name_whatever_their_order(folder):
    corpus = load_corpus(folder(ids_sst_dev="sentiment\tsentence\tid\n4\tA fine film .\tx1\n"))
    assert corpus.splits["sentiment"]["dev"] == [SentenceExample("x1", "A fine film .", 4)]


def test_a_missing_file_is_a_missing_key(folder):
    corpus = load_corpus(folder(ids_sst_dev=SST + "0\tx1\tFine .\t3\n"))
    assert list(corpus.splits) == ["sentiment"]
    assert list(corpus.splits["sentiment"]) == ["dev"]


def test_similarity_labels_are_not_cut_to_integers(folder):
    corpus = load_corpus(folder(sts_dev=STS + "0\tx1\tA dog runs .\tA dog is running .\t4.6\n"))
    assert corpus.splits["similarity"]["dev"][0].label == 4.6


def test_a_class_written_with_a_decimal_point_is_an_integer(folder):
    corpus = load_corpus(folder(quora_dev=QUORA + "0\tx1\tWho ?\tWho is it ?\t1.0\n"))
    (example,) = corpus.splits["paraphrase"]["dev"]
    assert example == PairExample("x1", "Who ?", "Who is it ?", 1) and type(example.label) is int


def test_a_test_file_has_no_labels(folder):
    corpus = load_corpus(folder(ids_sst_test_student="0\t\tid\tsentence\n1\t0.0\tx1\tFine .\n"))
    assert corpus.splits["sentiment"]["test"] == [SentenceExample("x1", "Fine .", None)]


def test_quoted_fields_lose_their_quotes_and_other_quotes_stay(folder):
    text = SST + '0\tx1\t"""So good"" , they said ."\t4\n1\tx2\tThe `` new \'\' 12" cut\t1\n'
    first, second = load_corpus(folder(ids_sst_dev=text)).splits["sentiment"]["dev"]
    assert first.text == '"So good" , they said .'
    assert second.text == "The `` new '' 12\" cut"


def test_a_stray_quote_spoils_its_own_row_only(folder):
    text = QUORA + '0\tx1\t"Why ?\tWhy not ?\t0\n1\tx2\tWho ?\tWho is it ?\t1\n'
    corpus = load_corpus(folder(quora_dev=text))
    assert [example.id for example in corpus.splits["paraphrase"]["dev"]] == ["x2"]
    assert corpus.skipped == ["quora-dev.csv:2: 3 fields in place of 5; row skipped"]


def test_unusual_line_ends_inside_a_sentence_do_not_end_the_row(folder):
    corpus = load_corpus(folder(ids_sst_dev=SST + "0\tx1\tOne\u2028two\x85three\t2\r\n"))
    assert corpus.splits["sentiment"]["dev"][0].text == "One\u2028two\x85three"


def test_tags_are_kept(folder):
    text = (
        SST.replace("\n", "\ttags\n")
        + "0\tx1\tNot bad .\t3\tnegation;contrast\n1\tx2\tBad .\t0\t\n"
    )
    examples = load_corpus(folder(ids_sst_dev=text)).splits["sentiment"]["dev"]
    assert [example.tags for example in examples] == [("negation", "contrast"), ()]


def test_the_fingerprint_follows_every_byte(folder):
    before = load_corpus(folder(ids_sst_dev=SST + "0\tx1\tFine .\t3\n")).fingerprint
    again = load_corpus(folder(ids_sst_dev=SST + "0\tx1\tFine .\t3\n")).fingerprint
    after = load_corpus(folder(ids_sst_dev=SST + "0\tx1\tFine .\t2\n")).fingerprint
    assert before == again != after


# Malformed rows are reported, wrong values are errors


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ("0\tx9\tWho ?\t\t1", "sentence2 is missing"),
        ("0\tx9\tWho ?\tWho is it ?\t", "is_duplicate is missing"),
        ("0\t\tWho ?\tWho is it ?\t1", "id is missing"),
        ("0\tx9\tWho ?", "3 fields in place of 5"),
        ("0\tx9\tWho\t?\tWho is it ?\t1", "6 fields in place of 5"),
        ("0\tx9\tWho\r?\tWho is it ?\t1", "0 fields in place of 5"),
    ],
)
def test_a_malformed_row_is_skipped_and_reported(folder, row, fault):
    text = QUORA + "0\tx1\tWho ?\tWho is it ?\t1\n" + row + "\n1\tx2\tWhy ?\tWhy so ?\t0\n"
    corpus = load_corpus(folder(quora_dev=text))
    assert [example.id for example in corpus.splits["paraphrase"]["dev"]] == ["x1", "x2"]
    assert corpus.skipped == [f"quora-dev.csv:3: {fault}; row skipped"]


@pytest.mark.parametrize(
    ("name", "header", "row", "words"),
    [
        ("ids_sst_dev", SST, "0\tx1\tFine .\t5", ["'5'", "out of range", "0 to 4"]),
        ("ids_sst_dev", SST, "0\tx1\tFine .\tgood", ["'good'", "not a number"]),
        ("ids_sst_dev", SST, "0\tx1\tFine .\t2.5", ["'2.5'", "not a whole number"]),
        ("ids_sst_dev", SST, "0\tx1\tFine .\tnan", ["'nan'", "not a number"]),
        ("sts_dev", STS, "0\tx1\tA .\tB .\t-0.1", ["'-0.1'", "out of range", "0 to 5"]),
        ("quora_dev", QUORA, "0\tx1\tA ?\tB ?\t2.0", ["'2.0'", "out of range", "0 to 1"]),
    ],
)
def test_a_wrong_label_is_an_error_with_file_line_column_and_value(
    folder, name, header, row, words
):
    with pytest.raises(CorpusError) as error:
        load_corpus(folder(**{name: header + "\n" + row + "\n"}))
    place = f"{name.replace('_', '-')}.csv:3: column '{header.split()[-1]}'"
    assert all(word in str(error.value) for word in [place, *words, "correct it"])


def test_a_test_file_in_place_of_a_training_file_is_an_error(folder):
    with pytest.raises(CorpusError, match=r"sst-train.csv:1: column 'sentiment' .* test file\?"):
        load_corpus(folder(ids_sst_train="0\t\tid\tsentence\n1\t0.0\tx1\tFine .\n"))


def test_a_missing_sentence_column_is_an_error(folder):
    with pytest.raises(CorpusError, match=r"sts-dev.csv:1: column 'sentence2' is missing"):
        load_corpus(folder(sts_dev="\tid\tsentence1\tsimilarity\n0\tx1\tA .\t3\n"))


def test_a_file_without_a_usable_row_is_an_error(folder):
    with pytest.raises(CorpusError, match=r"ids-sst-dev.csv: no usable row \(1 malformed\)"):
        load_corpus(folder(ids_sst_dev=SST + "0\tx1\n"))


def test_bytes_that_are_not_utf8_are_an_error_with_the_line(tmp_path):
    (tmp_path / "ids-sst-dev.csv").write_bytes(SST.encode() + b"0\tx1\tCaf\xe9 .\t3\n")
    with pytest.raises(CorpusError, match=r"ids-sst-dev.csv:2: byte 0xe9 is not UTF-8"):
        load_corpus(tmp_path)


def test_a_missing_or_empty_folder_says_what_to_do(tmp_path):
    for directory in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(CorpusError, match=r"mtl data fetch .*DATA=handbook"):
            load_corpus(directory)


# Originals: checked and fetched by git blob id


def test_the_blob_id_is_what_git_prints():
    # `printf 'test content\n' | git hash-object --stdin`, from the git book
    assert git_blob_id(b"test content\n") == "d670460b4b4aece5915caf5c68d12f560a9fe3e4"


def test_a_substitute_among_originals_is_noted(folder, monkeypatch):
    dev, train = SST + "0\tx1\tFine .\t3\n", SST + "0\tx2\tBad .\t0\n"
    monkeypatch.setitem(corpora.ORIGINALS, "ids-sst-dev.csv", git_blob_id(dev.encode()))
    corpus = load_corpus(folder(ids_sst_dev=dev, ids_sst_train=train))
    expected = corpora.ORIGINALS["ids-sst-train.csv"]
    assert corpus.notes == [
        "ids-sst-train.csv is not the original file (1 rows; git blob "
        f"{git_blob_id(train.encode())}, expected {expected})"
    ]


def test_a_folder_of_own_files_gets_one_note(folder):
    corpus = load_corpus(
        folder(ids_sst_dev=SST + "0\tx1\tFine .\t3\n", sts_dev=STS + "\ta\tb\tc\t1")
    )
    assert corpus.notes == ["no file of this folder is an original file of the CS224N project"]


def test_a_folder_of_originals_is_said_to_be_one(folder, monkeypatch):
    dev = SST + "0\tx1\tFine .\t3\n"
    monkeypatch.setitem(corpora.ORIGINALS, "ids-sst-dev.csv", git_blob_id(dev.encode()))
    directory = folder(ids_sst_dev=dev)
    assert load_corpus(directory).notes == []
    assert "every file here is an original file" in check_corpus(directory)


def test_the_report_names_rows_malformed_rows_and_missing_files(folder):
    report = check_corpus(folder(ids_sst_dev=SST + "0\tx1\tFine .\t3\n1\tx2\tBad .\t\n"))
    assert "ids-sst-dev.csv" in report and "1 rows  1 skipped  3: 100.0%" in report
    assert "skipped: ids-sst-dev.csv:3: sentiment is missing" in report
    assert "quora-train.csv              missing" in report


class FakeServer:
    """Stands in for the network: answers every address with the file's name as content."""

    fault: Exception = urllib.error.URLError("timed out")

    def __init__(self, monkeypatch, wrong="", down="", scheme="https"):
        self.asked, self.wrong, self.down, self.scheme = [], wrong, down, scheme
        for name in corpora.ORIGINALS:
            monkeypatch.setitem(corpora.ORIGINALS, name, git_blob_id(name.encode()))
        monkeypatch.setattr(corpora.urllib.request, "urlopen", self.open)

    def open(self, url, timeout):
        assert url.startswith("https://") and timeout <= 60
        name = url.rsplit("/", 1)[1]
        self.asked.append(name)
        if name == self.down:
            raise self.fault
        response = io.BytesIO(b"something else" if name == self.wrong else name.encode())
        response.geturl = lambda: url.replace("https", self.scheme, 1)
        return response


def test_fetch_writes_every_original_file(tmp_path, monkeypatch):
    FakeServer(monkeypatch)
    fetch_corpus(tmp_path / "new")
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == sorted(corpora.ORIGINALS)
    assert (tmp_path / "new" / "sts-dev.csv").read_text() == "sts-dev.csv"


def test_fetch_rejects_a_file_with_another_blob_id(tmp_path, monkeypatch):
    FakeServer(monkeypatch, wrong="ids-sst-train.csv")
    with pytest.raises(CorpusError, match=r"ids-sst-train.csv: git blob .* nothing was written"):
        fetch_corpus(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_fetch_goes_on_after_an_interruption(tmp_path, monkeypatch):
    server = FakeServer(monkeypatch, down="quora-train.csv")
    with pytest.raises(CorpusError, match=r"quora-train.csv: .*timed out.* run the command again"):
        fetch_corpus(tmp_path)
    finished = {path.name for path in tmp_path.iterdir()}
    server.down, server.asked = "", []
    fetch_corpus(tmp_path)
    assert finished and set(server.asked) == set(corpora.ORIGINALS) - finished


@pytest.mark.parametrize(
    "fault", [http.client.IncompleteRead(b"half"), http.client.BadStatusLine("nonsense")]
)
def test_a_broken_transfer_is_named_with_the_file(tmp_path, monkeypatch, fault):
    FakeServer(monkeypatch, down="quora-train.csv").fault = fault
    with pytest.raises(CorpusError, match=r"quora-train.csv: .* run the command again"):
        fetch_corpus(tmp_path)


def test_a_folder_that_is_only_called_handbook_is_not_the_embedded_corpora(folder):
    directory = folder(ids_sst_dev=SST + "0\tx1\tFine .\t3\n")
    mine = directory.rename(directory.with_name("handbook"))
    corpus = load_corpus(mine)
    assert corpus.name == f"{mine.parent.name}-handbook" and corpus.notes


def test_fetch_never_overwrites_a_file_that_is_not_the_original(tmp_path, monkeypatch):
    server = FakeServer(monkeypatch)
    (tmp_path / "quora-train.csv").write_text("mine")
    with pytest.raises(CorpusError, match=r"quora-train.csv: exists and is not the original"):
        fetch_corpus(tmp_path)
    assert (tmp_path / "quora-train.csv").read_text() == "mine" and server.asked == []


def test_fetch_refuses_a_redirection_away_from_https(tmp_path, monkeypatch):
    FakeServer(monkeypatch, scheme="http")
    with pytest.raises(CorpusError, match="not https"):
        fetch_corpus(tmp_path)


def test_fetch_refuses_a_file_beyond_the_size_limit(tmp_path, monkeypatch):
    FakeServer(monkeypatch)
    monkeypatch.setattr(corpora, "DOWNLOAD_LIMIT", 5)
    with pytest.raises(CorpusError, match="larger than 5 bytes"):
        fetch_corpus(tmp_path)


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
    monkeypatch.setattr(corpora, "TOKENIZE_CHUNK", 2)
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


# The real corpora, where a reader has them: counts only


@pytest.mark.skipif(not ORIGINAL_FILES.is_dir(), reason="the CS224N files are not here")
def test_the_original_files_give_the_published_counts():
    corpus = load_corpus(ORIGINAL_FILES)
    counts = {
        name: {s: len(e) for s, e in splits.items()} for name, splits in corpus.splits.items()
    }
    assert counts["sentiment"] == {"train": 8544, "dev": 1101, "test": 2210}
    assert counts["cfimdb"] == {"train": 1707, "dev": 245, "test": 488}
    assert counts["similarity"] == {"train": 6040, "dev": 863, "test": 1725}
    assert counts["paraphrase"]["dev"] == 20214 - 2
    malformed = [message for message in corpus.skipped if message.startswith("quora-dev.csv")]
    assert malformed == [
        "quora-dev.csv:2577: is_duplicate is missing; row skipped",
        "quora-dev.csv:14222: sentence2 is missing; row skipped",
    ]
    assert all(note.startswith("quora-train.csv is not the original") for note in corpus.notes)
