"""The floors: reproduced on the embedded corpora, and no sentence in what is stored."""

import json

import numpy as np
import pytest

from mtl_lib.bag_of_words import FLOORS, METHODS, floor_logits, floor_scores, read_floors
from mtl_lib.data import PairExample, SentenceExample, load_corpus


def test_the_stored_floors_of_the_embedded_corpora_are_reproduced():
    """If this fails because the corpora changed: `python scripts/measure_floors.py`."""
    now, stored = floor_scores(load_corpus("handbook")), read_floors("handbook")
    assert stored["fingerprint"] == now["fingerprint"]
    for task in METHODS:
        assert stored["tasks"][task]["dev"] == pytest.approx(now["tasks"][task]["dev"], abs=0.005)


@pytest.mark.parametrize("path", sorted(FLOORS.glob("*.json")), ids=lambda path: path.stem)
def test_stored_floors_hold_numbers_and_no_sentence(path):
    floors = json.loads(path.read_text())
    assert set(floors) == {"corpus", "fingerprint", "notes", "tasks"}
    for task in floors["tasks"].values():
        assert all(
            isinstance(value, (int, float, dict)) for k, value in task.items() if k != "method"
        )
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


def test_a_corpus_without_stored_floors_has_none():
    assert read_floors("nowhere") is None
