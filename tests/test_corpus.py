"""The embedded corpora: the committed files, their grammar, and what they must not give away."""

import re
import runpy
from collections import Counter

import numpy as np
import pytest

from mtl_lib.errors import CorpusError
from mtl_lib.handbook import grammar as grammar
from mtl_lib.handbook.grammar import make_corpus, write_corpus
from mtl_lib.paths import DATA, ROOT
from mtl_lib.study.corpora import load_corpus

TAGS = {"negation", "contrast", "intensifier", "role-swap", "overlap-trap", "number", "plain"}
SMALL = {"sentiment": (60, 20, 20), "paraphrase": (60, 20, 20), "similarity": (60, 20, 20)}
PAIR_TASKS = ("paraphrase", "similarity")


@pytest.fixture(scope="module")
def corpus():
    return load_corpus("handbook")


@pytest.fixture(scope="module")
def measure():
    return runpy.run_path(str(ROOT / "scripts" / "measure_corpus.py"))


@pytest.fixture(scope="module")
def texts(corpus):
    """All different sentences of a split, by task and split."""
    return {
        (task, split): sorted({s for e in examples for s in e.sentences})
        for task, splits in corpus.splits.items()
        for split, examples in splits.items()
    }


def test_the_committed_files_are_what_the_generator_writes(tmp_path):
    paths = write_corpus(tmp_path)
    assert sorted(p.name for p in paths) == sorted(p.name for p in (DATA / "handbook").iterdir())
    for path in paths:
        assert path.read_bytes() == (DATA / "handbook" / path.name).read_bytes(), path.name


def test_the_reader_takes_every_row(corpus):
    assert not corpus.skipped
    for task, sizes in grammar.SIZES.items():
        splits = corpus.splits[task]
        assert tuple(len(splits[split]) for split in ("train", "dev", "test")) == sizes


@pytest.mark.parametrize("task", ["sentiment", "paraphrase"])
@pytest.mark.parametrize("split", ["train", "dev"])
def test_class_shares_are_the_papers(corpus, task, split):
    labels = [e.label for e in corpus.splits[task][split]]
    shares = np.bincount(labels) / len(labels)
    np.testing.assert_allclose(shares, grammar.SHARES[task], atol=1 / len(labels))


def test_similarity_is_a_mean_of_five_whole_ratings(corpus):
    scores = np.array([e.label for e in corpus.splits["similarity"]["train"]])
    np.testing.assert_allclose(scores * 5, np.rint(scores * 5), atol=1e-9)
    assert scores.min() >= 0 and scores.max() <= 5


@pytest.mark.parametrize("task", grammar.SIZES)
def test_no_row_of_one_split_is_in_another_in_either_order(corpus, task):
    rows = {
        name: {frozenset(e.sentences) for e in split} for name, split in corpus.splits[task].items()
    }
    for name, split in corpus.splits[task].items():
        assert len(rows[name]) == len(split)
    assert not rows["train"] & rows["dev"]
    assert not rows["train"] & rows["test"]
    assert not rows["dev"] & rows["test"]


def test_ids_are_there_and_differ(corpus):
    ids = [e.id for splits in corpus.splits.values() for split in splits.values() for e in split]
    assert all(ids)
    assert len(set(ids)) == len(ids)


def test_every_row_has_known_tags_and_plain_stands_alone(corpus):
    for splits in corpus.splits.values():
        for example in (e for split in splits.values() for e in split):
            assert example.tags and set(example.tags) <= TAGS
            assert "plain" not in example.tags or example.tags == ("plain",)


def test_every_tag_has_enough_development_rows_to_be_scored(corpus):
    counts = Counter(t for splits in corpus.splits.values() for e in splits["dev"] for t in e.tags)
    assert set(counts) == TAGS
    assert min(counts.values()) >= 50


# -------------------------------------------------------------------- what is held out


def template(frame: str) -> re.Pattern:
    """A pattern for a frame of REVIEWS or CONTRASTS."""
    pieces = (re.escape(piece) for piece in re.split(r"{\w+}", frame.removeprefix("* ")))
    return re.compile("^" + r"[\w ]+".join(pieces).replace(r"a\ ", r"an?\ ") + "$", re.IGNORECASE)


def test_unseen_review_frames_are_in_a_quarter_of_development_and_no_training_row(texts):
    frames = [f for f in (grammar.REVIEWS + grammar.CONTRASTS).split("\n") if f.startswith("* ")]
    patterns = [template(frame) for frame in frames]

    def share(split):
        rows = texts["sentiment", split]
        return sum(any(p.match(row) for p in patterns) for row in rows) / len(rows)

    assert share("train") == 0
    assert 0.2 < share("dev") < 0.35


@pytest.mark.parametrize(
    "words", ["which i found", "please say", "can you tell me", "give work to", "take ideas from"]
)
def test_unseen_question_wordings_are_in_development_only(texts, words):
    assert not any(words in text.lower() for text in texts["paraphrase", "train"])
    assert any(words in text.lower() for text in texts["paraphrase", "dev"])


def test_unseen_asides_of_statements_are_in_development_only(texts):
    assert not any("I found it" in text for text in texts["similarity", "train"])
    assert any("I found it" in text for text in texts["similarity", "dev"])


@pytest.mark.parametrize("tables", [grammar.TITLES, (grammar.FIRST, grammar.LAST)])
def test_films_and_people_of_development_are_not_in_training(texts, tables):
    names = re.compile(r"\b({})\s({})\b".format(*("|".join(table) for table in tables)))

    def found(split):
        return {
            match
            for task in ("sentiment", "paraphrase")
            for text in texts[task, split]
            for match in names.findall(text)
        }

    assert found("train") and found("dev")
    assert not found("train") & found("dev")


# ------------------------------------------------------------- what nobody may exploit


@pytest.mark.parametrize("task", grammar.SIZES)
def test_length_first_word_or_one_sentence_alone_say_no_more_than_the_majority(
    corpus, measure, task
):
    train, dev = corpus.splits[task]["train"][:6000], corpus.splits[task]["dev"]
    rows = dev + measure["new_rows"](task)  # the development rows alone leave .016 to luck
    floor = measure["majority"](train, rows)
    for name, features in measure["shortcuts"](len(train[0].sentences)).items():
        gain = measure["accuracy"](train, rows, features, measure["SHORTCUT"]) - floor
        assert gain < 0.02, name


@pytest.mark.parametrize("task", grammar.SIZES)
def test_the_cheap_rungs_of_the_ladder_climb_where_order_or_comparison_matters(
    corpus, measure, task
):
    train, dev = corpus.splits[task]["train"], corpus.splits[task]["dev"]
    scored, sides = task == "similarity", [0, 1] if task in PAIR_TASKS else [0]
    score = measure["correlation" if scored else "accuracy"]
    floor = 0.0 if scored else measure["majority"](train, dev)
    bag = score(train, dev, measure["bag_of_words"](sides))
    best = bag
    if not scored:  # a denial is two or three words in a row
        best = score(train, dev, measure["bag_of_words"](sides, 3 - (task in PAIR_TASKS)))
        assert best > bag + 0.04
    if task in PAIR_TASKS:
        best = score(train, dev, measure["compared_words"])
        assert best > bag + 0.08
    assert floor + 0.015 < bag
    assert best + 0.05 < measure["ceiling"](task, 20_000)


def test_the_two_people_of_a_role_swap_differ(corpus):
    names = re.compile(r"({}) ({})".format("|".join(grammar.FIRST), "|".join(grammar.LAST)))
    for split in corpus.splits["paraphrase"].values():
        for example in (e for e in split if "role-swap" in e.tags):
            assert all(len(set(names.findall(text))) == 2 for text in example.sentences)


# ----------------------------------------------------------------------- label noise


def test_the_ceilings_follow_from_the_flip_rates(measure):
    assert measure["ceiling"]("paraphrase", 50_000) == pytest.approx(0.95, abs=0.005)
    # Half of the flips of the outer classes have nowhere to go.
    outer = grammar.SHARES["sentiment"][0] + grammar.SHARES["sentiment"][4]
    expected = 1 - grammar.FLIPS["sentiment"] * (1 - outer / 2)
    assert measure["ceiling"]("sentiment", 50_000) == pytest.approx(expected, abs=0.005)
    assert 0.94 < measure["ceiling"]("similarity", 50_000) < 0.98


def test_plain_sentiment_disagrees_with_its_word_as_often_as_labels_flip(corpus):
    """In a plain review the opinion word names the label, but for the flips."""
    value = {word: shade + 2 for shade, words in grammar.SHADES.items() for word in words}
    rows = [e for e in corpus.splits["sentiment"]["train"] if e.tags == ("plain",)]
    word = re.compile(rf"\b({'|'.join(value)})\b")
    differs = [value[word.findall(e.text)[0]] != e.label for e in rows]
    outer = grammar.SHARES["sentiment"][0] + grammar.SHARES["sentiment"][4]
    assert np.mean(differs) == pytest.approx(0.08 * (1 - outer / 2), abs=0.025)


def test_swapped_roles_disagree_with_their_labels_as_often_as_labels_flip(corpus):
    """In a role swap the order of the names and the voice decide the label."""
    passive = re.compile(r"inspired by|taught by|hired by")
    rows = [e for e in corpus.splits["paraphrase"]["train"] if "role-swap" in e.tags]
    names = re.compile(r"({}) ({})".format("|".join(grammar.FIRST), "|".join(grammar.LAST)))

    def agent_first(text):
        people = names.findall(text)
        return people[::-1] if passive.search(text) else people

    differs = [(agent_first(e.first) == agent_first(e.second)) != e.label for e in rows]
    assert np.mean(differs) == pytest.approx(grammar.FLIPS["paraphrase"], abs=0.025)


# ------------------------------------------------------------------------- the options


def test_another_seed_gives_other_rows():
    assert make_corpus(seed=1, sizes=SMALL) == make_corpus(seed=1, sizes=SMALL)
    one, two = make_corpus(seed=1, sizes=SMALL), make_corpus(seed=2, sizes=SMALL)
    assert all(one[name] != two[name] for name in one)


def test_conflict_changes_the_pair_tasks_and_leaves_sentiment_alone():
    none, full = make_corpus(conflict=0, sizes=SMALL), make_corpus(conflict=1, sizes=SMALL)
    for name in none:
        assert (none[name] == full[name]) == name.startswith("ids-sst")


def test_without_conflict_words_lean_as_their_shade_and_with_it_half_of_them_do_not():
    words = [(value, word) for value in (-2, -1, 1, 2) for word in grammar.SHADES[value]]

    def against(conflict):
        return np.mean([grammar.leans_kind(w, conflict) != (value > 0) for value, w in words])

    assert against(0) == 0
    assert 0 < against(grammar.CONFLICT) < against(1)
    assert against(1) == pytest.approx(0.5, abs=0.15)


def test_sizes_are_respected_and_tasks_left_out_are_not_made():
    made = make_corpus(sizes={"similarity": (30, 7, 3)})
    assert {name: len(rows) for name, rows in made.items()} == {
        "sts-train.csv": 30,
        "sts-dev.csv": 7,
        "sts-test-student.csv": 3,
    }
    assert "similarity" not in made["sts-test-student.csv"][0]


@pytest.mark.parametrize("options", [{"conflict": 1.5}, {"sizes": {"nothing": (1, 1, 1)}}])
def test_impossible_options_are_refused(options):
    with pytest.raises(CorpusError):
        make_corpus(**options)


# ------------------------------------------------------------------------- the grammar


def test_sentences_are_well_formed(texts):
    wrong = re.compile(
        r"^[^A-Z]|[^.?]$|\s\s|\s[,.?]|[{}|*;_]|,[,.?]|\ban? an?\b"
        r"|\b[Aa] [aeiouAEIOU]|\b[Aa]n [^aeiouAEIOU]"
    )
    assert not [text for rows in texts.values() for text in rows if wrong.search(text)]


def test_questions_end_as_questions_and_statements_as_statements(texts):
    for (task, _), rows in texts.items():
        if task == "paraphrase":
            orders = ("Tell me", "Please say")
            assert all(r.endswith("." if r.startswith(orders) else "?") for r in rows)
        else:
            assert all(r.endswith(".") for r in rows)
