"""Examples by id, as plain text."""

import io

import pytest

from mtl_lib.data import Corpus, PairExample, SentenceExample
from mtl_lib.errors import CorpusError
from mtl_lib.handbook.show import show_examples
from mtl_lib.study import profiles


def corpus() -> Corpus:
    splits = {
        "sentiment": {
            "dev": [SentenceExample("a1", "A fine <b>film</b>.", 3, ("plain",))],
            "test": [SentenceExample("a2", "A dull\x1b[31m film.", None)],
        },
        "similarity": {
            "dev": [PairExample("b1", "One.", "Two.", 4.6), PairExample("a1", "", "", 0)]
        },
    }
    return Corpus("small", splits, files={})


def test_examples_come_in_the_order_asked_with_label_and_tags(capsys):
    show_examples(["b1", "a1"], corpus())
    assert capsys.readouterr().out.splitlines() == [
        "b1  similarity, dev; true label 4.6",
        "    One.",
        "    Two.",
        "a1  sentiment, dev; true label 3; plain",
        "    A fine <b>film</b>.",
        "a1  similarity, dev; true label 0",
        "    ",
        "    ",
    ]


def test_control_characters_are_spelled_out_and_a_missing_label_is_said(capsys):
    show_examples("a2", corpus())
    assert capsys.readouterr().out == (
        "a2  sentiment, test; true label unknown\n    A dull\\x1b[31m film.\n"
    )


def test_a_label_of_any_kind_is_shown(capsys):
    example = SentenceExample("a1", "Fine.", [0.25, 0.75])
    show_examples("a1", Corpus("small", {"sentiment": {"dev": [example]}}, files={}))
    assert "; true label [0.25, 0.75]\n" in capsys.readouterr().out


def test_a_line_break_in_a_sentence_is_spelled_out(capsys):
    example = PairExample("b1", "One\ntwo.", "", None)
    show_examples("b1", Corpus("small", {"paraphrase": {"test": [example]}}, files={}))
    assert capsys.readouterr().out.splitlines()[1:] == ["    One\\ntwo.", "    "]


def test_letters_that_the_terminal_lacks_are_spelled_out(monkeypatch):
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="latin-1", newline="\n")
    monkeypatch.setattr("sys.stdout", terminal)
    example = SentenceExample("é1", "A café, 10 €.", 3)
    show_examples("é1", Corpus("small", {"sentiment": {"dev": [example]}}, files={}))
    terminal.flush()
    shown = "é1  sentiment, dev; true label 3\n    A café, 10 \\u20ac.\n"
    assert terminal.buffer.getvalue().decode("latin-1") == shown


def test_an_unknown_id_is_said_and_the_others_are_shown(capsys):
    show_examples(["zz", "b1"], corpus())
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "zz  not in corpus 'small'"
    assert len(lines) == 4


def test_without_real_corpora_the_embedded_ones_are_read(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(profiles, "FETCHED", tmp_path / "cs224n")
    show_examples("no such id")
    assert capsys.readouterr().out == "no such id  not in corpus 'handbook'\n"


def test_the_real_corpora_come_first_where_they_are(monkeypatch, tmp_path):
    (tmp_path / "cs224n").mkdir()
    monkeypatch.setattr(profiles, "FETCHED", tmp_path / "cs224n")
    with pytest.raises(CorpusError, match="cs224n"):
        show_examples("a1")
