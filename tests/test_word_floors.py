"""The floors: reproduced on the embedded corpora, and no sentence in what is stored."""

import json

import numpy as np
import pytest

from mtl_lib.data import Corpus, PairExample, SentenceExample
from mtl_lib.study import floors as floors_module
from mtl_lib.study.corpora import load_corpus
from mtl_lib.study.floors import (
    FLOORS,
    KINDS,
    METHODS,
    floor_kind,
    floor_logits,
    floor_score,
    floor_scores,
    floors_sentence,
    read_floors,
    untouched_scores,
    write_floors,
)

ALL_METHODS = {method for kinds in METHODS.values() for method in kinds.values()}


def test_the_stored_floors_of_the_embedded_corpora_are_reproduced():
    """If this fails because the corpora changed: `python scripts/measure_floors.py`."""
    now, stored = floor_scores(load_corpus("handbook")), read_floors("handbook")
    assert stored["fingerprint"] == now["fingerprint"]
    for task in METHODS:
        before, after = stored["tasks"][task], now["tasks"][task]
        assert before["constant_loss"] == pytest.approx(after["constant_loss"])
        for kind in KINDS:
            assert before[kind]["dev"] == pytest.approx(after[kind]["dev"], abs=0.005)


@pytest.mark.parametrize("path", sorted(FLOORS.glob("*.json")), ids=lambda path: path.stem)
def test_stored_floors_hold_numbers_and_no_sentence(path):
    floors = json.loads(path.read_text(encoding="utf-8"))
    assert set(floors) == {"corpus", "fingerprint", "notes", "tasks"}
    for task in floors["tasks"].values():
        for kind in KINDS:
            found = task.pop(kind)
            assert set(found) == {"method", "dev", "by_label"} and found["method"] in ALL_METHODS
            assert all(isinstance(v, float) for v in [*found["dev"].values(), *found["by_label"]])
        assert all(isinstance(value, int | float) for value in task.values())
    assert path.stat().st_size < 5000


def test_naive_bayes_tells_words_of_praise_from_words_of_blame():
    train = [
        SentenceExample(str(n), "awful" if n % 2 else "fine", 4 * (1 - n % 2)) for n in range(8)
    ]
    logits = floor_logits("sentiment", train, train)
    assert logits.shape == (8, 5)
    assert logits.argmax(axis=1).tolist() == [example.label for example in train]


def test_the_cosine_of_a_sentence_with_itself_is_the_highest_score():
    pairs = [PairExample("a", "one two", "one two", 5.0), PairExample("b", "one two", "three", 0.0)]
    assert floor_logits("similarity", pairs, pairs)[:, 0] == pytest.approx([5, 0])


def test_ridge_on_the_interaction_tells_equal_from_different_words():
    pairs = [
        PairExample(str(n), f"word{n} common", f"word{n if n % 2 else n + 1} common", n % 2)
        for n in range(40)
    ]
    logits = floor_logits("paraphrase", pairs, pairs)
    assert ((logits[:, 0] > 0) == np.array([p.label for p in pairs])).mean() > 0.9


def test_additive_words_cannot_tell_equal_from_different_words():
    rng = np.random.default_rng(0)
    words = rng.integers(0, 4, (400, 2))  # each word as often beside itself as beside others
    pairs = [PairExample(str(n), f"w{a}", f"w{b}", int(a == b)) for n, (a, b) in enumerate(words)]
    labels = np.array([p.label for p in pairs])
    right = {
        kind: ((floor_logits("paraphrase", pairs, pairs, kind)[:, 0] > 0) == labels).mean()
        for kind in KINDS
    }
    assert right["comparing"] == 1.0 and right["additive"] < 0.8


def test_a_head_has_the_floor_of_what_it_can_see():
    assert floor_kind({"dropout": [0.3]}) == "additive"
    for features in ("compare", "cosine"):
        assert floor_kind({"features": features, "dropout": [0.3]}) == "comparing"
    assert floor_kind({"dropout": [0.3, 0.3]}) == "comparing"  # a hidden layer


def test_the_floors_are_said_in_one_sentence_with_the_stored_numbers():
    floors = read_floors("handbook")
    sentence = floors_sentence(floors)
    assert f"{floor_score(floors, 'similarity', 'additive'):.3f}" in sentence
    assert sentence.count(".\n") == 0 and sentence.endswith(" / –.")


def test_floors_are_written_whole_and_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr(floors_module, "floor_scores", lambda corpus: read_floors("handbook"))
    path = write_floors(load_corpus("handbook"), tmp_path / "new")
    assert path.read_bytes() == (FLOORS / "handbook.json").read_bytes()
    assert [file.name for file in path.parent.iterdir()] == ["handbook.json"]
    assert read_floors("handbook", directory=path.parent) == read_floors("handbook")


def test_an_untouched_encoder_finds_equal_sentences_by_their_cosine():
    words = "the plot is good and dull music they play".split()
    pairs = {
        label: [
            PairExample(f"{a}{b}", f"{a} film", f"{b} film", label * (a == b))
            for a in words
            for b in words
        ]
        for label in (1, 5)
    }
    corpus = Corpus(
        "made up",
        {
            "paraphrase": {"train": pairs[1], "dev": pairs[1]},
            "similarity": {"train": pairs[5], "dev": pairs[5]},
        },
    )
    scores = untouched_scores(corpus, "tiny-pretrained")
    assert scores["paraphrase"] == 1.0
    assert 0.5 < scores["similarity"] < 1


def test_a_corpus_without_stored_floors_has_none():
    assert read_floors("nowhere") is None


def test_floors_of_other_files_are_none():
    assert read_floors("handbook", "of another corpus") is None
