"""Corpora in files: reading, quotes, validation, download."""

import csv
import http.client
import io
import multiprocessing
import os
import urllib.error
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from mtl_lib.data import PairExample, SentenceExample
from mtl_lib.errors import CorpusError
from mtl_lib.paths import ROOT
from mtl_lib.study import corpora
from mtl_lib.study.corpora import check_corpus, fetch_corpus, git_blob_id, load_corpus

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


def test_a_carriage_return_inside_a_sentence_stays(folder):
    corpus = load_corpus(folder(ids_sst_dev=SST + "0\tx1\tOne\rtwo\t2\r\n"))
    assert corpus.splits["sentiment"]["dev"][0].text == "One\rtwo"


# Quotes: a `csv` writer's, or text


def csv_file(header: str, rows: list[list], quoting: int = csv.QUOTE_MINIMAL) -> str:
    """What the standard library's writer makes of these rows."""
    file = io.StringIO()
    writer = csv.writer(file, delimiter="\t", quoting=quoting, lineterminator="\n")
    writer.writerows([header.strip("\n").split("\t"), *rows])
    return file.getvalue()


def texts(corpus, task="sentiment", split="dev") -> list[str]:
    return [example.sentences[0] for example in corpus.splits[task][split]]


WRITTEN = [
    'So good" , they said .',
    '"So good" , they said .',
    "Two\nlines .",
    "A\ttab .",
    "Plain .",
    '"',
    'It ends in "',
    '"Fine" , "dull" and "so"',
    "A blank line\n\nwithin .",
]


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
def test_whatever_a_csv_writer_writes_is_read_back(folder, quoting):
    rows = [[i, f"x{i}", text, i % 5] for i, text in enumerate(WRITTEN)]
    corpus = load_corpus(folder(ids_sst_dev=csv_file(SST, rows, quoting)))
    assert texts(corpus) == WRITTEN and corpus.skipped == []


def test_a_quoted_line_break_in_any_column_is_one_row(folder):
    rows = [["x1", "Why\nso ?", "Who ?"], ["x2", "Who ?", "Why\nso ?"], ["x3", "A ?", "B ?"]]
    text = csv_file("id\tsentence1\tsentence2\n", rows)
    corpus = load_corpus(folder(quora_test_student=text))
    examples = corpus.splits["paraphrase"]["test"]
    assert [[e.id, *e.sentences] for e in examples] == rows
    first = csv_file("sentence\tsentiment\tid\n", [["Two\nlines", 1, "x1"], ["One", 2, "x2"]])
    assert texts(load_corpus(folder(ids_sst_dev=first))) == ["Two\nlines", "One"]


@pytest.mark.parametrize(
    "text",
    [
        '"Extreme" is right .',
        '"Extreme"',
        '"Fine" , she said , "and dull"',
        '"Fine .',
        'Fine ."',
        'A 12" cut',
        '"" is empty',
        '""Fine""',
        '"',
        '""',
    ],
)
def test_quotes_of_a_text_are_not_lost(folder, text):
    rows = "".join(f"{i}\tx{i}\t{words}\t2\n" for i, words in enumerate(["A .", text, "B ."]))
    corpus = load_corpus(folder(ids_sst_dev=SST + rows))
    assert texts(corpus) == ["A .", text, "B ."] and corpus.skipped == []


@pytest.mark.parametrize("pattern", ['"{}', '{}"', '"{}"', '" {}', '"{} "'])
def test_rows_with_a_lone_quote_are_not_lost(folder, pattern):
    expected = [pattern.format(f"Film {i} .") if i % 5 < 2 else f"Film {i} ." for i in range(200)]
    rows = "".join(f"{i}\tx{i}\t{text}\t{i % 5}\n" for i, text in enumerate(expected))
    corpus = load_corpus(folder(ids_sst_train=SST + rows))
    assert texts(corpus, split="train") == expected and corpus.skipped == []


def test_two_lone_quotes_do_not_swallow_the_rows_between_them(folder):
    sentences = ['"A film', "said nobody .", 'Good ."', '"A', 'B"']
    rows = "".join(f"{i}\tx{i}\t{text}\t{i}\n" for i, text in enumerate(sentences))
    assert texts(load_corpus(folder(ids_sst_dev=SST + rows))) == sentences
    pair = load_corpus(folder(quora_test_student='id\tsentence1\tsentence2\nx1\t"Who ?\tSo ?"\n'))
    assert pair.splits["paraphrase"]["test"] == [PairExample("x1", '"Who ?', 'So ?"', None)]


def test_a_stray_quote_in_a_file_of_a_csv_writer_changes_no_other_row(folder):
    text = csv_file(SST, [[0, "x0", 'A "fine" film', 3], [1, "x1", "Two\nlines", 1]])
    text += '2\tx2\t"Extreme" is right\t0\n3\tx3\t"Alone\t4\n' + '4\tx4\t"So ""dull"" ."\t0\n'
    corpus = load_corpus(folder(ids_sst_dev=text))
    expected = ['A "fine" film', "Two\nlines", '"Extreme" is right', '"Alone', 'So "dull" .']
    assert texts(corpus) == expected and corpus.skipped == []


def test_a_row_after_a_quoted_line_break_is_named_by_its_own_line(folder):
    text = csv_file(SST, [[0, "x0", "One\ntwo\nthree", 3]]) + "1\tx1\tFine .\n"
    corpus = load_corpus(folder(ids_sst_dev=text))
    assert corpus.skipped == ["ids-sst-dev.csv:5: 3 fields in place of 4; row skipped"]


# Malformed rows are reported, wrong values are errors


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ("0\tx9\tWho ?\t\t1", "sentence2 is missing"),
        ("0\tx9\tWho ?\tWho is it ?\t", "is_duplicate is missing"),
        ("0\t\tWho ?\tWho is it ?\t1", "id is missing"),
        ("0\tx9\tWho ?", "3 fields in place of 5"),
        ('0\t"x\n9"\tA "?\tB ?\t1', "a line break is in the id"),
        ("0\tx9\tWho\t?\tWho is it ?\t1", "6 fields in place of 5"),
        ("0\tx9\tWho\0?\tWho is it ?\t1", "a NUL character is in it"),
    ],
)
def test_a_malformed_row_is_skipped_and_reported(folder, row, fault):
    text = QUORA + "0\tx1\tWho ?\tWho is it ?\t1\n" + row + "\n1\tx2\tWhy ?\tWhy so ?\t0\n"
    corpus = load_corpus(folder(quora_dev=text))
    assert [example.id for example in corpus.splits["paraphrase"]["dev"]] == ["x1", "x2"]
    assert corpus.skipped == [f"quora-dev.csv:3: {fault}; row skipped"]


def test_rows_left_out_are_said_where_a_corpus_is_read(folder, capsys):
    rows = "".join(f"{i}\tx{i}\tFine .\t{'' if i < 5 else 2}\n" for i in range(9))
    directory = folder(ids_sst_train=SST + rows)
    corpus = load_corpus(directory)
    out, err = capsys.readouterr()
    assert out == "" and len(corpus.skipped) == 5
    first, *lines = err.splitlines()
    assert first == (
        f"{directory}: 5 malformed rows skipped; `mtl data check {directory}` shows all"
    )
    assert [line.strip() for line in lines] == corpus.skipped[:3]
    assert lines[0] == "  ids-sst-train.csv:2: sentiment is missing; row skipped"


def test_a_worker_process_does_not_repeat_what_its_parent_has_said(folder, capfd):
    directory = folder(ids_sst_train=SST + "0\tx1\tFine .\t3\n1\tx2\tBad .\t\n")
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        corpus = pool.submit(load_corpus, directory).result()
    assert len(corpus.skipped) == 1
    assert capfd.readouterr().err == ""
    load_corpus(directory)
    assert "1 malformed row skipped" in capfd.readouterr().err


def test_reading_a_sound_corpus_says_nothing(capsys):
    load_corpus("handbook")
    assert capsys.readouterr() == ("", "")


def test_the_check_says_each_row_once(folder, capsys):
    report = check_corpus(folder(ids_sst_dev=SST + "0\tx1\tFine .\t3\n1\tx2\tBad .\t\n"))
    assert report.count("sentiment is missing") == 1
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("row", ["x2\tWho ?\t", "x2\t\tWho ?", "x2\t\t", "x2\t \t"])
def test_a_test_row_with_an_empty_sentence_is_kept(folder, row):
    text = f"id\tsentence1\tsentence2\nx1\tA ?\tB ?\n{row}\nx3\tC ?\tD ?\n"
    corpus = load_corpus(folder(quora_test_student=text))
    _, first, second = map(str.strip, row.split("\t"))
    assert corpus.splits["paraphrase"]["test"][1] == PairExample("x2", first, second, None)
    assert corpus.skipped == []


def test_without_labels_every_row_with_an_id_is_read(folder):
    text = SST + "0\tx1\tFine .\t3\n1\tx2\tBad .\t\n2\tx3\t\t9\n3\tx4\tDull .\n"
    corpus = load_corpus(folder(ids_sst_dev=text), labels=False)
    expected = [("x1", "Fine ."), ("x2", "Bad ."), ("x3", "")]
    assert corpus.splits["sentiment"]["dev"] == [SentenceExample(*e, None) for e in expected]
    assert corpus.skipped == ["ids-sst-dev.csv:5: 3 fields in place of 4; row skipped"]


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
        with pytest.raises(
            CorpusError, match=r'mtl data fetch .*load_corpus."handbook".*--data handbook'
        ):
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
