"""Which runs may be read: the gate on training, and the one on constant answers."""

from dataclasses import replace

from fake_runs import fake_run

from mtl_lib.study.floors import read_floors
from mtl_lib.study.gates import (
    counted,
    gate,
    gates_sentences,
    left_out_words,
    one_answer_tasks,
    readable,
    row_words,
    untrained_tasks,
)


def with_loss(loss, terms=None, constant=1.0, row="3.1"):
    """A run whose last epoch's training loss on similarity is given."""
    run = fake_run(row)
    last = {"loss": {"sentiment": 0.5, "similarity": loss}, "conflict": {}}
    first = {"loss": {"sentiment": 2.0, "similarity": 2.0}, "conflict": {}}
    history = [first, last | ({"terms": {"similarity": terms}} if terms else {})]
    losses = {"sentiment": 1.0, "similarity": constant}
    return replace(run, history=history, provenance=run.provenance | {"constant_loss": losses})


def test_five_percent_below_a_constant_answer_counts_as_trained():
    assert untrained_tasks(with_loss(0.95)) == []
    assert untrained_tasks(with_loss(0.951)) == ["similarity"]
    assert untrained_tasks(with_loss(2.0, constant=2.21)) == []


def test_penalties_do_not_count_as_loss():
    assert untrained_tasks(with_loss(1.4)) == ["similarity"]
    assert untrained_tasks(with_loss(1.4, terms=0.5)) == []


def test_a_frozen_encoder_is_a_control_and_has_no_gate():
    assert untrained_tasks(with_loss(2.0, row="frozen-1e-3")) == []


def test_a_run_from_before_there_was_a_gate_is_judged_by_the_stored_floors():
    run = with_loss(2.15)
    floors = read_floors("cs224n")
    corpus = {"name": "cs224n", "fingerprint": floors["fingerprint"], "files": {}, "notes": []}
    old = {k: v for k, v in run.provenance.items() if k != "constant_loss"} | {"corpus": corpus}
    assert untrained_tasks(replace(run, provenance=old)) == ["similarity"]
    other = old | {"corpus": corpus | {"fingerprint": "of other files"}}
    assert untrained_tasks(replace(run, provenance=other)) == []


def test_the_gate_says_why_a_score_may_not_be_read():
    assert gate(fake_run("3.1"), ["sentiment"]) == ""
    assert gate(fake_run("3.1", trained=False), ["sentiment"]) == "not trained on similarity"
    run = fake_run("3.1")
    run = replace(run, provenance=run.provenance | {"constant_predictions": ["paraphrase"]})
    assert one_answer_tasks(run) == ["paraphrase"]
    assert gate(run, ["paraphrase"]) == "one answer on paraphrase"
    assert gate(run, ["sentiment"]) == ""


def test_a_row_counts_the_runs_that_trained_or_all_where_none_did():
    trained, untrained = fake_run("3.1", 0), fake_run("3.1", 1, trained=False)
    assert counted([trained, untrained], "sentiment") == [trained]
    assert counted([untrained], "sentiment") == [untrained]


def test_the_sentences_name_whole_rows_and_single_seeds():
    runs = [fake_run("3.1", 0, trained=False), fake_run("3.1", 1, trained=False)]
    runs += [fake_run("3.2", 0, trained=False), fake_run("3.2", 1)]
    (sentence,) = gates_sentences(runs)
    assert sentence.startswith("Not trained (") and sentence.endswith("): rows 3.1, 3.2 (seed 0).")
    assert gates_sentences(runs, explain=False) == ["Not trained: rows 3.1, 3.2 (seed 0)."]
    assert gates_sentences([fake_run("3.1")]) == []


def test_a_row_is_said_to_be_held_back_in_whole_or_in_part():
    trained, untrained = fake_run("3.1", 0), fake_run("3.1", 1, trained=False)
    one = replace(trained, provenance=trained.provenance | {"constant_predictions": ["sentiment"]})
    assert row_words([trained], "sentiment") == ""
    assert row_words([untrained], "sentiment") == "not trained"
    assert row_words([one, untrained], "sentiment") == "1 of 2 not trained; 1 of 2 one answer"
    assert row_words([one, untrained], "similarity") == "1 of 2 not trained"


def test_of_each_row_the_runs_that_may_be_read_are_kept_or_all_where_there_is_none():
    good, other = fake_run("3.1", 0), fake_run("3.1", 1, trained=False)
    one = fake_run("3.1", 2)
    one = replace(one, provenance=one.provenance | {"constant_predictions": ["sentiment"]})
    held = fake_run("3.2", 0, trained=False)
    assert readable([good, other, one, held]) == [good, held]
    assert readable([other, one]) == [one]


def test_what_a_mean_leaves_out_is_said_and_where_none_trained_it_leaves_out_none():
    trained, not_trained = fake_run("4.6"), fake_run("4.6", 2, trained=False)
    assert left_out_words([trained, not_trained]) == "1 of 2 left out: not trained"
    assert left_out_words([not_trained]) == "not trained"
    assert left_out_words([trained]) == ""
