import math
import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small import small_corpus, small_encoder, small_tokenizer

from mtl_lib.bert import SENTENCE_VECTORS
from mtl_lib.errors import ConfigError, EncoderError, NumericalError, RunError
from mtl_lib.evaluation import metrics, predict
from mtl_lib.fast.fused import FusedAdamW
from mtl_lib.model import HeadConfig, MultitaskModel
from mtl_lib.paths import RESULTS
from mtl_lib.pretrained import save_encoder
from mtl_lib.study import build, pool, profiles
from mtl_lib.study import run as run_module
from mtl_lib.study.config import ExperimentConfig
from mtl_lib.study.corpora import load_corpus
from mtl_lib.study.faulty_ports import FAULTS
from mtl_lib.study.pool import run_all, study
from mtl_lib.study.profiles import (
    ALL_PROFILES,
    PROFILES,
    choose_rows,
    parse_seeds,
    profile_settings,
)
from mtl_lib.study.rows import (
    ALL_ROWS,
    ALONE,
    COMPARE,
    CONTROL,
    FIGURE_3,
    FIGURE_4,
    FORENSIC,
    FROZEN,
    ORDER,
    ROWS,
    SINGLE_TASK,
    WITHOUT,
)
from mtl_lib.study.run import run_experiment
from mtl_lib.study.store import RunStore, run_key
from mtl_lib.study.submission import load_model
from mtl_lib.tasks import BY_NAME


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("encoder")
    save_encoder(folder, small_encoder(), small_tokenizer())
    return str(folder)


@pytest.fixture
def config(encoder) -> ExperimentConfig:
    return replace(
        FIGURE_3["3.2"], encoder=encoder, lr=1e-3, epochs=2, max_length=16, train_sample=8
    )


def test_figure_3_and_4_have_ten_rows_each_and_the_frozen_control_two_rates():
    assert list(FIGURE_3) == [f"3.{n}" for n in range(1, 11)]
    assert list(FIGURE_4) == [f"4.{n}" for n in range(1, 11)]
    assert list(FROZEN) == ["frozen-1e-5", "frozen-1e-3"]
    assert len(ROWS) == 22


def test_the_defaults_are_those_of_the_paper():
    base = FIGURE_3["3.1"]
    assert (base.lr, base.batch_size, base.epochs, base.weight_decay) == (1e-5, 8, 10, 0.0)
    assert (base.weighting, base.penalty, base.frozen) == ("sum", None, False)
    assert set(base.heads.values()) == {HeadConfig((0.3,))}


def test_every_row_but_the_baseline_and_the_controls_uses_surgery():
    plain = [row for row, config in ROWS.items() if config.weighting == "sum"]
    assert plain == ["3.1", "frozen-1e-5", "frozen-1e-3"]


def changes(row: str, base: ExperimentConfig) -> dict:
    """The fields in which a row differs from another, but for its names."""
    config = ROWS[row].as_dict()
    return {k: v for k, v in config.items() if base.as_dict()[k] != v and k not in ("row", "name")}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("3.4", {"weight_decay": 0.05}),
        ("3.5", {"penalty": "1.0"}),
        ("3.6", {"penalty": "inf"}),
    ],
)
def test_a_row_of_figure_3_is_surgery_with_one_change(row, expected):
    assert changes(row, FIGURE_3["3.2"]) == expected


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("4.1", {"batch_size": 16}),
        ("4.2", {"weight_decay": 0.1}),
        ("4.3", {"weight_decay": 0.1, "lr": 5e-6}),
        ("4.4", {"weight_decay": 0.05, "lr": 5e-6}),
        ("4.5", {"lr": 5e-6}),
        ("4.6", {"lr": 5e-5}),
        ("4.7", {"lr": 3e-5}),
        ("4.8", {"lr": 6e-5}),
        ("4.9", {"lr": 5e-5, "class_weights": True}),
    ],
)
def test_a_row_of_figure_4_is_the_final_architecture_with_its_changes(row, expected):
    assert changes(row, FIGURE_3["3.10"]) == expected


def test_dropout_rows_change_the_heads_that_the_paper_names():
    def rates(row):
        return {name: head.dropout for name, head in ROWS[row].heads.items()}

    assert rates("3.3") == {"sentiment": (0.3,), "paraphrase": (0.3,), "similarity": (0.5,)}
    assert rates("3.8") == {"sentiment": (0.5,), "paraphrase": (0.3,), "similarity": (0.5,)}
    assert set(rates("3.7").values()) == {(0.3, 0.3)}


def test_smart_is_row_3_8_with_smoothness_on_sentiment():
    assert changes("3.9", FIGURE_3["3.8"]) == {"smoothness": 1.0}


def test_the_final_architecture_is_the_one_of_section_5_3():
    final = FIGURE_3["3.10"]
    assert final.heads["similarity"] == HeadConfig((0.5, 0.3), "relu")
    assert final.heads["sentiment"] == HeadConfig((0.5,))
    assert final.heads["paraphrase"] == HeadConfig((0.3,))
    assert math.isinf(final.penalty)
    assert FIGURE_4["4.10"].heads["similarity"].activation == "leaky_relu"


def test_single_task_rows_train_one_head_each():
    assert [list(c.heads) for c in SINGLE_TASK.values()] == [
        ["sentiment"], ["sentiment"], ["cfimdb"], ["cfimdb"],
    ]  # fmt: skip


@pytest.mark.parametrize("row", PROFILES["paper"].rows)
def test_the_paper_profile_leaves_the_protocol_as_printed(row):
    samples = {"train_sample": 1000, "dev_sample": 4000}  # what is evaluated in between
    found = PROFILES["paper"].apply(ALL_ROWS[row], "paper", 2)
    assert found == replace(ALL_ROWS[row], seed=2, bfloat16=True, **samples)


def test_the_other_profiles_need_larger_rates_for_fewer_epochs():
    for name in PROFILES.keys() - {"paper"}:
        assert PROFILES[name].lr_factor > 1 and PROFILES[name].epochs < 10


def test_every_row_of_a_figure_belongs_to_the_papers_profile():
    assert set(ROWS) | set(SINGLE_TASK) | set(FORENSIC) == set(PROFILES["paper"].rows)


def test_every_row_belongs_to_a_profile_and_every_profiles_rows_exist():
    of_profiles = [set(profile.rows) for profile in ALL_PROFILES.values()]
    assert set().union(*of_profiles) == set(ALL_ROWS)


def test_the_converged_profile_sets_its_instrument_on_every_row():
    settings = PROFILES["converged"]
    for row in set(settings.rows) - set(WITHOUT):
        config = settings.apply(ALL_ROWS[row], "converged")
        assert {name: getattr(config, name) for name in settings.instrument} == {
            "sentence_vector": "mean", "head_lr": 1e-3, "label_mean_bias": True,
            "schedule": "linear", "warmup": 0.1, "clip": 1.0,
        }  # fmt: skip


@pytest.mark.parametrize("row", WITHOUT)
def test_a_row_without_a_part_of_the_instrument_has_the_default_of_that_part_alone(row):
    part = WITHOUT[row].without
    whole = PROFILES["converged"].apply(FIGURE_3["3.2"], "converged")
    found = PROFILES["converged"].apply(WITHOUT[row], "converged")
    lacking = {part, "warmup"} if part == "schedule" else {part}  # warm-up is of the schedule
    default = {name: getattr(ExperimentConfig, name) for name in lacking}
    assert found == replace(whole, row=row, name=WITHOUT[row].name, without=part, **default)
    assert all(getattr(whole, name) != value for name, value in default.items())


def test_every_part_of_the_instrument_is_left_out_by_one_row():
    parts = [config.without for config in WITHOUT.values()]
    assert {*parts, "warmup"} == set(PROFILES["converged"].instrument)
    assert len(set(parts)) == len(parts)


@pytest.mark.parametrize("row", FORENSIC)
def test_a_forensic_row_is_a_row_of_the_paper_with_a_fault(row):
    base = ROWS[row.split("-")[0]]
    assert FORENSIC[row] == replace(
        base, row=row, name=FORENSIC[row].name, fault=FORENSIC[row].fault
    )
    assert FORENSIC[row].fault in FAULTS


def test_no_row_but_the_forensic_ones_has_a_fault():
    assert {row for row, config in ALL_ROWS.items() if config.fault} == set(FORENSIC)


def test_a_profile_multiplies_every_rate_by_one_factor():
    for name, profile in PROFILES.items():
        ratios = {profile.apply(c, name).lr / c.lr for c in ALL_ROWS.values()}
        assert {round(ratio, 9) for ratio in ratios} == {profile.lr_factor}


def test_a_run_is_found_again_and_not_trained_twice(config, tmp_path):
    store, corpus = RunStore(tmp_path), small_corpus()
    first = run_experiment(config, corpus, store)
    entries = []
    again = run_experiment(config, corpus, store, on_epoch=entries.append)
    assert entries == []
    assert again.key == first.key
    assert again.metrics == first.metrics


def test_the_same_configuration_gives_the_same_numbers(config, tmp_path):
    runs = [run_experiment(config, small_corpus(), RunStore(tmp_path / n)) for n in "ab"]
    for task in runs[0].predictions:
        assert np.array_equal(runs[0].predictions[task], runs[1].predictions[task])


INSTRUMENT = [
    {"sentence_vector": "mean"},
    {"sentence_vector": "cls"},
    {"head_lr": 1e-2},
    {"label_mean_bias": True},
    {"schedule": "linear"},
    {"schedule": "linear", "warmup": 0.5},
    {"clip": 0.5},
    {"fault": "port-surgery"},
    {"fault": "coupled-decay", "weight_decay": 0.1},
]


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"weighting": "sum"}, {"lr": 2e-3}, *INSTRUMENT], ids=str
)
def test_a_changed_configuration_is_another_run(config, tmp_path, change):
    store = RunStore(tmp_path)
    first = run_experiment(config, small_corpus(), store)
    second = run_experiment(replace(config, **change), small_corpus(), store)
    assert first.key != second.key
    assert not np.array_equal(first.predictions["sentiment"], second.predictions["sentiment"])


def test_another_corpus_is_another_run(config, tmp_path):
    store = RunStore(tmp_path)
    keys = {run_experiment(config, small_corpus(seed=s), store).key for s in (0, 1)}
    assert len(keys) == 2


def test_stored_metrics_follow_from_the_stored_predictions(config, tmp_path):
    run = run_experiment(config, small_corpus(), RunStore(tmp_path))
    for name, logits in run.predictions.items():
        again = metrics(BY_NAME[name], logits, run.labels[name])
        assert again == pytest.approx(run.metrics["best"]["dev"][name], abs=1e-9, nan_ok=True)


def test_a_run_says_what_it_was(config, tmp_path):
    run = run_experiment(config, small_corpus(), RunStore(tmp_path))
    assert run.provenance["steps"] == 6
    assert {"corpus", "encoder", "hardware", "versions", "threads", "seconds"} <= set(
        run.provenance
    )
    assert run.config["heads"]["sentiment"] == {"dropout": [0.3], "activation": "relu"}


SHORT = {"lr": 1e-3, "epochs": 1, "max_length": 16, "max_steps": 1, "bfloat16": False}


@pytest.mark.parametrize(
    ("row", "profile"),
    [(row, "paper") for row in [*ROWS, *FORENSIC]]
    + [(row, "converged") for row in PROFILES["converged"].rows],
)
def test_every_row_trains(row, profile, encoder, tmp_path):
    config = replace(PROFILES[profile].apply(ALL_ROWS[row], profile), encoder=encoder, **SHORT)
    run = run_experiment(config, small_corpus(), RunStore(tmp_path))
    assert run.history[0]["step"] == 1
    assert all(np.isfinite(loss) for loss in run.history[0]["loss"].values())


def test_the_saved_model_gives_the_stored_predictions(config, tmp_path):
    corpus = small_corpus()
    run = run_experiment(config, corpus, RunStore(tmp_path / "runs"), save_model=tmp_path / "m")
    model, tokenizer = load_model(tmp_path / "m")
    dev = build.tokenized(corpus, "dev", config, tokenizer)
    for name, split in dev.items():
        np.testing.assert_allclose(predict(model, split), run.predictions[name], atol=1e-6)


def test_a_corpus_without_the_task_is_named(config, tmp_path):
    cfimdb = replace(config, heads={"cfimdb": HeadConfig()})
    with pytest.raises(ConfigError, match="train split of cfimdb"):
        run_experiment(cfimdb, small_corpus(), RunStore(tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weighting": "mgda2"}, "mgda2"),
        ({"lr": 0.0}, "lr = 0.0"),
        ({"batch_size": -8}, "batch_size = -8"),
        ({"heads": {"ner": HeadConfig()}}, "ner"),
        ({"heads": {"sentiment": HeadConfig()}, "penalty": 1.0}, "need a head for similarity"),
        ({"heads": {"similarity": HeadConfig()}, "smoothness": 1.0}, "need a head for sentiment"),
        ({"heads": {"similarity": HeadConfig()}, "class_weights": True}, "need a head for senti"),
        ({"sentence_vector": "max"}, "sentence_vector 'max': choose from .*'mean'"),
        ({"schedule": "cosine"}, "schedule 'cosine': choose from .*'linear'"),
        ({"fault": "port-adam"}, "fault 'port-adam': choose from .*'port-surgery'"),
        ({"without": "clipping"}, "without 'clipping': choose from .*'clip'"),
        (
            {"schedule": "linear", "warmup": 1.0},
            "warmup = 1.0: it must be a number from 0 and below 1",
        ),
        (
            {"schedule": "linear", "warmup": -0.1},
            "warmup = -0.1: it must be a number from 0 and below 1",
        ),
        (
            {"schedule": "linear", "warmup": math.nan},
            "warmup = nan: it must be a number from 0 and below 1",
        ),
        ({"warmup": 0.1}, "warmup = 0.1: a constant schedule has none"),
        ({"layer_decay": 1.1}, "layer_decay = 1.1: it must be a number above 0 and at most 1$"),
        ({"layer_decay": 0.0}, "layer_decay = 0.0"),
        ({"head_lr": 0.0}, "head_lr = 0.0"),
        ({"head_lr": math.inf}, "head_lr = inf"),
        ({"clip": 0.0}, "clip = 0.0"),
        ({"clip": -1.0}, "clip = -1.0"),
        ({"clip": math.nan}, "clip = nan"),
        ({"dev_sample": 0}, "dev_sample = 0"),
        ({"batch_size": 7.3}, "batch_size = 7.3: it must be a whole number"),
        ({"max_steps": 0.5}, "max_steps = 0.5: it must be a whole number"),
        ({"fault": "port-surgery"}, "fault 'port-surgery' changes nothing"),  # of a plain sum
        ({"fault": "coupled-decay"}, "fault 'coupled-decay' changes nothing"),  # no decay
        ({"fault": "port-smart"}, "fault 'port-smart' changes nothing"),  # no SMART
    ],
)
def test_an_impossible_value_is_refused_by_name(change, message):
    with pytest.raises(ConfigError, match=message):
        replace(FIGURE_3["3.1"], **change)


def test_unknown_rows_profiles_and_seeds_are_refused_by_name():
    with pytest.raises(ConfigError, match=r"unknown row 3\.11"):
        choose_rows(["3.1", "3.11"])
    with pytest.raises(ConfigError, match=r"unknown row 9"):
        choose_rows(FIGURE_3, "9")
    with pytest.raises(ConfigError, match="profile 'fast'"):
        study(["3.1"], profile="fast")
    with pytest.raises(ConfigError, match="whole numbers"):
        parse_seeds("1,x")


def test_a_seed_given_twice_counts_once():
    assert parse_seeds("2,0,2") == [2, 0]


def test_a_folders_encoder_has_one_name_however_it_is_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {
        profile_settings("quick", name).encoder for name in ("enc", "./enc", f"{tmp_path}/enc")
    }
    assert names == {str(tmp_path / "enc")}
    assert profile_settings("quick", "tiny").encoder == "tiny"


def test_rows_are_chosen_in_the_order_of_the_figure():
    assert choose_rows(FIGURE_3, "3.10, 3.2") == ["3.2", "3.10"]
    assert choose_rows(FIGURE_3) == list(FIGURE_3)


def test_the_stored_profile_reads_the_best_study_with_all_rows(tmp_path, monkeypatch, config):
    monkeypatch.setattr(pool, "RESULTS", tmp_path)
    corpus = small_corpus()
    for profile, row in [("quick", "3.1"), ("quick", "3.2"), ("paper", "3.2")]:
        changed = replace(config, profile=profile, row=row, max_steps=1)
        run_experiment(changed, corpus, RunStore(tmp_path / profile))
    assert [r.config["profile"] for r in study(["3.2"])] == ["paper"]
    assert [r.config["profile"] for r in study(["3.1"])] == ["quick"]
    # one row of a long study does not hide a complete short one
    assert [r.config["profile"] for r in study(["3.1", "3.2"])] == ["quick", "quick"]
    with pytest.raises(RunError, match=r"no stored run of rows 3\.5"):
        study(["3.5"])


def write_corpus(folder: Path) -> str:
    """The small corpus as files, for what loads it by path."""
    folder.mkdir(exist_ok=True)
    files = {"sentiment": "ids-sst", "paraphrase": "quora", "similarity": "sts"}
    columns = {"sentiment": "sentiment", "paraphrase": "is_duplicate", "similarity": "similarity"}
    for task, splits in small_corpus().splits.items():
        pair = task != "sentiment"
        texts = ["sentence1", "sentence2"] if pair else ["sentence"]
        for split, examples in splits.items():
            lines = ["\t".join(["id", *texts, columns[task]])]
            for e in examples:
                words = [e.first, e.second] if pair else [e.text]
                lines.append("\t".join([e.id, *words, str(e.label)]))
            (folder / f"{files[task]}-{split}.csv").write_text("\n".join(lines) + "\n")
    return str(folder)


def test_a_study_trains_in_processes_and_a_second_call_trains_nothing(config, tmp_path, capfd):
    data, store = write_corpus(tmp_path / "corpus"), RunStore(tmp_path / "runs")
    configs = [replace(config, seed=seed, max_steps=2) for seed in (0, 1)]
    keys = run_all(configs, data, store, jobs=2)
    assert "2 to train" in capfd.readouterr().out
    assert run_all(configs, data, store, jobs=2) == keys
    assert capfd.readouterr().out == ""
    assert [store.get(key).config["seed"] for key in keys] == [0, 1]


def test_a_run_that_diverges_does_not_keep_the_others_from_being_trained(config, tmp_path, capfd):
    store, data = RunStore(tmp_path / "runs"), write_corpus(tmp_path / "corpus")
    diverging = replace(config, row="wild", lr=1e30)
    with pytest.raises(NumericalError, match="row wild, seed"):
        run_all([diverging, config], data, store)
    assert [run.config["row"] for run in store.runs()] == [config.row]


def test_a_model_half_moved_over_another_has_no_weights(config, tmp_path, monkeypatch):
    run_experiment(config, small_corpus(), RunStore(tmp_path / "a"), save_model=tmp_path / "m")
    replaced = os.replace

    def stops(source, target):
        if Path(target) == tmp_path / "m" / "heads.json":
            raise OSError("no space left on device")
        replaced(source, target)

    monkeypatch.setattr(run_module.os, "replace", stops)
    with pytest.raises(OSError, match="no space"):
        run_experiment(config, small_corpus(), RunStore(tmp_path / "b"), save_model=tmp_path / "m")
    with pytest.raises(EncoderError, match=r"no model\.safetensors"):
        load_model(tmp_path / "m")


def test_worker_processes_give_the_same_numbers_as_one(config, tmp_path):
    data = write_corpus(tmp_path / "corpus")
    torch.set_num_threads(1)
    key = run_all([config], data, RunStore(tmp_path / "pool"))[0]
    alone = run_experiment(config, pool.load_corpus(data), RunStore(tmp_path / "alone"))
    pooled = RunStore(tmp_path / "pool").get(key)
    for task in alone.predictions:
        assert np.array_equal(alone.predictions[task], pooled.predictions[task])


def test_rows_whose_task_the_corpus_lacks_are_left_out_with_a_word(config, tmp_path, capsys):
    cfimdb = replace(config, row="cfimdb-frozen", heads={"cfimdb": HeadConfig()})
    data = write_corpus(tmp_path / "corpus")
    assert run_all([cfimdb], data, RunStore(tmp_path / "runs")) == []
    assert "cfimdb-frozen: left out" in capsys.readouterr().out


def _alive(group: int) -> bool:
    """Whether any process of the group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def _study_in_a_process(configs, data, store):
    os.setpgrp()
    run_all(configs, data, store, jobs=1)


def test_a_killed_study_goes_on_without_repeating_a_finished_run(config, tmp_path):
    data, store = write_corpus(tmp_path / "corpus"), RunStore(tmp_path / "runs")
    configs = [replace(config, seed=seed, max_steps=40, epochs=20) for seed in range(3)]
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_study_in_a_process, args=(configs, data, store))
    process.start()
    deadline = time.monotonic() + 300
    while not store.runs() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    while _alive(process.pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _alive(process.pid), "the workers outlived the study"
    finished = {run.key: run.provenance["seconds"] for run in store.runs()}
    assert finished
    run_all(configs, data, store, jobs=1)
    after = {run.key: run.provenance["seconds"] for run in store.runs()}
    assert len(after) == 3
    assert {key: after[key] for key in finished} == finished


def test_comparing_rows_are_rows_3_1_and_3_2_with_other_heads():
    for row, base in [("compare", "3.1"), ("cosine", "3.1"), ("compare-surgery", "3.2")]:
        changed = {k for k, v in COMPARE[row].as_dict().items() if v != ROWS[base].as_dict()[k]}
        assert changed == {"row", "name", "heads"}
    assert COMPARE["cosine"].heads["similarity"].features == "cosine"


def test_the_fixed_order_is_row_3_2_with_another_weighting():
    changed = {
        k for k, v in ORDER["fixed-order"].as_dict().items() if v != ROWS["3.2"].as_dict()[k]
    }
    assert changed == {"row", "name", "weighting"}


def test_twice_the_batch_with_as_many_steps_needs_two_passes(encoder, tmp_path):
    config = CONTROL["equal-steps"].as_dict()
    changed = {k for k, v in config.items() if v != ROWS["4.1"].as_dict().get(k)}
    assert changed == {"row", "name", "epoch_factor"}
    changes = SHORT | {"max_steps": None, "encoder": encoder, "batch_size": 12}
    for row, epochs in (("4.1", 1), ("equal-steps", 2)):
        config = replace(PROFILES["quick"].apply(ALL_ROWS[row], "quick"), **changes)
        run = run_experiment(config, small_corpus(), RunStore(tmp_path))
        assert len(run.history) == epochs and run.provenance["steps"] == 2 * epochs


def test_the_control_of_the_cosines_is_row_3_1():
    changed = {
        k for k, v in CONTROL["same-task"].as_dict().items() if v != ROWS["3.1"].as_dict().get(k)
    }
    assert changed == {"row", "name", "same_task_every"}


def test_a_frozen_encoder_has_no_cosines_to_compare():
    with pytest.raises(ConfigError, match="0 for a frozen encoder"):
        replace(ROWS["frozen-1e-3"], same_task_every=5)


def test_the_keys_of_the_stored_quick_runs_are_as_they_were():
    stored = RunStore(RESULTS / "quick").runs()
    assert stored
    for run in stored:
        row, seed = run.config["row"], run.config["seed"]
        words = PROFILES["quick"].apply(ALL_ROWS[row], "quick", seed).as_dict()
        assert words == run.config
        corpus, encoder = run.provenance["corpus"], run.provenance["encoder"]
        version = run.provenance["study_version"]
        assert run_key(words, corpus["fingerprint"], encoder["sha256"], version) == run.key


def test_the_rows_of_the_papers_protocol_have_no_trace_of_the_instrument():
    added = {"sentence_vector", "head_lr", "label_mean_bias", "schedule", "warmup", "clip"}
    added |= {"without", "fault", "joint_epochs"}
    for row in ROWS:
        assert not added & PROFILES["paper"].apply(ROWS[row], "paper").as_dict().keys()
    whole = PROFILES["converged"].apply(ROWS["3.2"], "converged").as_dict()
    assert added & whole.keys() == set(PROFILES["converged"].instrument)


def uneven_corpus(**sizes):
    """The small corpus with fewer training examples of some tasks, or without a task."""
    corpus = small_corpus()
    corpus.files["sizes"] = str(sizes)  # it has a fingerprint of its own
    for task, size in sizes.items():
        corpus.splits[task]["train"] = corpus.splits[task]["train"][:size]
        if not size:
            del corpus.splits[task]
    return corpus


@pytest.mark.parametrize("row", ALONE)
def test_a_row_with_one_task_has_as_many_steps_an_epoch_as_three_tasks_together(
    row, encoder, tmp_path
):
    corpus, steps = uneven_corpus(similarity=10), []
    for name in ("3.1", row):
        short = SHORT | {"epochs": 2, "max_steps": None, "batch_size": 4, "encoder": encoder}
        config = replace(PROFILES["converged"].apply(ALL_ROWS[name], "converged"), **short)
        run = run_experiment(config, corpus, RunStore(tmp_path))
        steps.append([entry["step"] for entry in run.history])
    assert steps == [[2, 4], [2, 4]]
    assert list(run.config["heads"]) == [row.removesuffix("-alone")]


def test_without_joint_epochs_one_task_goes_once_through_its_own_examples(config, tmp_path):
    alone = replace(config, heads={"sentiment": HeadConfig()}, batch_size=4, epochs=1)
    run = run_experiment(alone, uneven_corpus(similarity=10), RunStore(tmp_path))
    assert run.provenance["steps"] == 6


def test_epochs_of_three_tasks_need_a_corpus_with_all_three(encoder, tmp_path):
    config = replace(ALONE["sentiment-alone"], encoder=encoder, **SHORT)
    with pytest.raises(ConfigError, match="sentiment-alone needs the train split of similarity"):
        run_experiment(config, uneven_corpus(similarity=0), RunStore(tmp_path))


@pytest.mark.parametrize("kind", SENTENCE_VECTORS)
@pytest.mark.parametrize("frozen", [True, False])
def test_the_heads_have_a_rate_of_their_own_and_no_used_parameter_is_left_out(kind, frozen):
    model = MultitaskModel(small_encoder(), dict(FIGURE_3["3.1"].heads), kind)
    if frozen:
        model.freeze()
    config = replace(FIGURE_3["3.4"], head_lr=1e-3, sentence_vector=kind, frozen=frozen)
    rates = {
        p: (group["lr"], group["weight_decay"])
        for group in build._optimizer(config, model).param_groups
        for p in group["params"]
    }
    shared = [] if frozen else model.shared_parameters()
    expected = dict.fromkeys(shared, (1e-5, 0.05))
    assert rates == expected | dict.fromkeys(model.heads.parameters(), (1e-3, 0.05))


def test_without_a_rate_for_the_heads_all_parameters_have_the_rows():
    model = MultitaskModel(small_encoder(), dict(FIGURE_3["3.1"].heads))
    (group,) = build._optimizer(FIGURE_3["3.1"], model).param_groups
    assert group["lr"] == 1e-5
    assert set(group["params"]) == set(model.parameters())


def rates_of(config, tmp_path, monkeypatch) -> list[float]:
    """The encoder's learning rate at each step of a run."""
    seen, step = [], FusedAdamW.step

    def noted(self, closure=None):
        seen.append(self.param_groups[0]["lr"])
        return step(self, closure)

    monkeypatch.setattr(FusedAdamW, "step", noted)
    run_experiment(config, small_corpus(), RunStore(tmp_path))
    return seen


def test_a_linear_schedule_goes_up_over_its_share_of_all_steps_and_down_to_the_end(
    config, tmp_path, monkeypatch
):
    config = replace(config, batch_size=4, schedule="linear", warmup=0.5, lr=0.01)
    found = rates_of(replace(config, max_steps=8), tmp_path, monkeypatch)  # of 12
    factors = [0, 1 / 4, 1 / 2, 3 / 4, 1, 3 / 4, 1 / 2, 1 / 4]
    assert found == pytest.approx([0.01 * factor for factor in factors])


def test_the_schedule_of_a_row_with_twice_the_epochs_ends_with_its_last_step(
    config, tmp_path, monkeypatch
):
    config = replace(config, schedule="linear", lr=0.01, epochs=1, epoch_factor=2)
    found = rates_of(config, tmp_path, monkeypatch)
    assert found == pytest.approx([0.01 * left / 6 for left in (6, 5, 4, 3, 2, 1)])


def test_the_mean_label_is_where_similarity_starts(config, tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(
        run_module.Trainer, "fit", lambda self, *a, **o: started.append(self.model) or 1 / 0
    )
    for biased in (False, True):
        with pytest.raises(ZeroDivisionError):
            run_experiment(
                replace(config, label_mean_bias=biased), small_corpus(), RunStore(tmp_path)
            )
    labels = [example.label for example in small_corpus().splits["similarity"]["train"]]
    plain, shifted = ({n: p for n, p in m.named_parameters()} for m in started)
    assert shifted["heads.similarity.linears.0.bias"].item() == pytest.approx(np.mean(labels))
    moved = {name for name in plain if not torch.equal(plain[name], shifted[name])}
    assert moved == {"heads.similarity.linears.0.bias"}


def test_a_run_judged_by_a_sample_stores_the_predictions_of_the_whole_sets(config, tmp_path):
    corpus = small_corpus()
    run = run_experiment(replace(config, dev_sample=8), corpus, RunStore(tmp_path / "a"))
    for name, logits in run.predictions.items():
        assert len(logits) == len(run.labels[name]) == len(corpus.splits[name]["dev"])
        again = metrics(BY_NAME[name], logits, run.labels[name])
        assert again == pytest.approx(run.metrics["best"]["dev"][name], abs=1e-9, nan_ok=True)
    whole = run_experiment(config, corpus, RunStore(tmp_path / "b"))
    assert run.metrics["last"]["dev"] == whole.metrics["last"]["dev"]
    assert run.history[-1]["dev"] != whole.history[-1]["dev"]


def test_a_run_stopped_with_every_option_on_goes_on_to_the_same_bits(config, tmp_path, monkeypatch):
    monkeypatch.setattr(run_module.Checkpoint, "due", lambda self: True)
    options = {"schedule": "linear", "warmup": 0.2, "head_lr": 1e-2, "clip": 1.0, "dev_sample": 8}
    options |= {"sentence_vector": "mean", "label_mean_bias": True, "batch_size": 6}
    config = replace(config, **options)
    expected = run_experiment(config, small_corpus(), RunStore(tmp_path / "whole"))
    step = run_module.Trainer.step

    def stops(self):
        if self.steps == 6:
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr(run_module.Trainer, "step", stops)
    store = RunStore(tmp_path / "stopped")
    with pytest.raises(KeyboardInterrupt):
        run_experiment(config, small_corpus(), store)
    monkeypatch.setattr(run_module.Trainer, "step", step)
    run = run_experiment(config, small_corpus(), store)
    assert run.provenance["resumes"] == 1
    assert repr(run.metrics) == repr(expected.metrics)
    assert all(
        np.array_equal(run.predictions[name], expected.predictions[name])
        for name in expected.predictions
    )


def test_a_run_says_what_a_constant_answer_would_lose(config, tmp_path):
    weighted = replace(config, class_weights=True)
    losses = run_experiment(weighted, small_corpus(), RunStore(tmp_path)).provenance[
        "constant_loss"
    ]
    labels = {
        name: np.array([example.label for example in splits["train"]])
        for name, splits in small_corpus().splits.items()
    }
    classes = len(set(labels["sentiment"]))  # the weights make those that occur equally common
    share = labels["paraphrase"].mean()
    entropy = -share * math.log(share) - (1 - share) * math.log(1 - share)
    assert losses == pytest.approx(
        {
            "sentiment": math.log(classes),
            "paraphrase": entropy,
            "similarity": labels["similarity"].var(),
        },
        abs=1e-6,
    )


def test_a_pretrained_encoder_that_was_never_fetched_gives_way_to_a_smaller_one(monkeypatch):
    monkeypatch.setattr(profiles, "at_hand", lambda name: False)
    assert profile_settings("paper").encoder == "minilm-l6"
    assert profile_settings("paper", "bert-base-uncased").encoder == "bert-base-uncased"
    assert profile_settings("quick").encoder == "tiny-pretrained"
    monkeypatch.setattr(profiles, "at_hand", lambda name: True)
    assert profile_settings("paper").encoder == "bert-base-uncased"


def test_epochs_of_a_study_are_counted_anew_where_they_are_given():
    assert profile_settings("converged", epochs=1).epochs == 1
    assert profile_settings("converged").epochs == PROFILES["converged"].epochs


def test_a_run_keeps_few_bfloat16_kernels_for_the_memory_they_take(tmp_path, monkeypatch):
    monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", raising=False)
    config = replace(PROFILES["quick"].apply(FIGURE_3["3.1"], "quick"), max_steps=1)
    run_experiment(config, load_corpus("handbook"), RunStore(tmp_path))
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "128"
