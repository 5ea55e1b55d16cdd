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

from mtl_lib import experiments
from mtl_lib.data import load_corpus
from mtl_lib.errors import ConfigError, EncoderError, NumericalError, RunError
from mtl_lib.evaluation import metrics, predict
from mtl_lib.experiments import (
    ALL_ROWS,
    COMPARE,
    CONTROL,
    FIGURE_3,
    FIGURE_4,
    FROZEN,
    ORDER,
    PROFILES,
    ROWS,
    SINGLE_TASK,
    ExperimentConfig,
    choose_rows,
    parse_seeds,
    profile_settings,
    run_all,
    run_experiment,
    study,
)
from mtl_lib.model import HeadConfig, load_model
from mtl_lib.paths import RESULTS
from mtl_lib.pretrained import save_encoder
from mtl_lib.results import RunStore
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


def test_only_the_full_profile_leaves_the_papers_protocol_as_it_is():
    full = PROFILES["full"].apply(FIGURE_3["3.1"], "full")
    assert full == replace(FIGURE_3["3.1"], bfloat16=True)
    for name in PROFILES.keys() - {"full"}:
        assert PROFILES[name].lr_factor > 1


def test_every_row_of_a_figure_belongs_to_one_laptop_study():
    longer, shorter = PROFILES["laptop-rates"].rows, PROFILES["laptop"].rows
    assert set(FIGURE_3) <= set(shorter) and set(FIGURE_4) <= set(longer)
    assert set(shorter) | set(longer) == set(ALL_ROWS)


def test_a_profile_multiplies_every_rate_by_one_factor():
    quick = [PROFILES["quick"].apply(c, "quick") for c in ALL_ROWS.values()]
    ratios = {c.lr / row.lr for c, row in zip(quick, ALL_ROWS.values(), strict=True)}
    assert {round(ratio, 9) for ratio in ratios} == {PROFILES["quick"].lr_factor}


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


@pytest.mark.parametrize("change", [{"seed": 1}, {"weighting": "sum"}, {"lr": 2e-3}])
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


@pytest.mark.parametrize("row", list(ROWS))
def test_every_row_trains(row, encoder, tmp_path):
    config = replace(ROWS[row], encoder=encoder, lr=1e-3, epochs=1, max_length=16, max_steps=1)
    run = run_experiment(config, small_corpus(), RunStore(tmp_path))
    assert run.history[0]["step"] == 1
    assert all(np.isfinite(loss) for loss in run.history[0]["loss"].values())


def test_the_saved_model_gives_the_stored_predictions(config, tmp_path):
    corpus = small_corpus()
    run = run_experiment(config, corpus, RunStore(tmp_path / "runs"), save_model=tmp_path / "m")
    model, tokenizer = load_model(tmp_path / "m")
    dev = experiments.tokenized(corpus, "dev", config, tokenizer)
    for name, split in dev.items():
        np.testing.assert_allclose(predict(model, split), run.predictions[name], atol=1e-6)


def test_a_corpus_without_the_task_is_named(config, tmp_path):
    cfimdb = replace(config, heads={"cfimdb": HeadConfig()})
    with pytest.raises(ConfigError, match="train split of cfimdb"):
        run_experiment(cfimdb, small_corpus(), RunStore(tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weighting": "mgda"}, "mgda"),
        ({"lr": 0.0}, "lr = 0.0"),
        ({"batch_size": -8}, "batch_size = -8"),
        ({"heads": {"ner": HeadConfig()}}, "ner"),
        ({"heads": {"sentiment": HeadConfig()}, "penalty": 1.0}, "need a head for similarity"),
        ({"heads": {"similarity": HeadConfig()}, "smoothness": 1.0}, "need a head for sentiment"),
        ({"heads": {"similarity": HeadConfig()}, "class_weights": True}, "need a head for senti"),
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
    monkeypatch.setattr(experiments, "RESULTS", tmp_path)
    corpus = small_corpus()
    for profile, row in [("quick", "3.1"), ("quick", "3.2"), ("laptop", "3.2")]:
        changed = replace(config, profile=profile, row=row, max_steps=1)
        run_experiment(changed, corpus, RunStore(tmp_path / profile))
    assert [r.config["profile"] for r in study(["3.2"])] == ["laptop"]
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

    monkeypatch.setattr(experiments.os, "replace", stops)
    with pytest.raises(OSError, match="no space"):
        run_experiment(config, small_corpus(), RunStore(tmp_path / "b"), save_model=tmp_path / "m")
    with pytest.raises(EncoderError, match=r"no model\.safetensors"):
        load_model(tmp_path / "m")


def test_worker_processes_give_the_same_numbers_as_one(config, tmp_path):
    data = write_corpus(tmp_path / "corpus")
    torch.set_num_threads(1)
    key = run_all([config], data, RunStore(tmp_path / "pool"))[0]
    alone = run_experiment(config, experiments.load_corpus(data), RunStore(tmp_path / "alone"))
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


def test_twice_the_batch_with_as_many_steps_needs_two_passes(tmp_path):
    config = CONTROL["equal-steps"].as_dict()
    changed = {k for k, v in config.items() if v != ROWS["4.1"].as_dict().get(k)}
    assert changed == {"row", "name", "epoch_factor"}
    corpus = load_corpus("handbook")
    for row, epochs in (("4.1", 1), ("equal-steps", 2)):
        config = replace(
            PROFILES["quick"].apply(ALL_ROWS[row], "quick"),
            epochs=1,
            encoder="tiny",
            batch_size=1200,
        )
        run = run_experiment(config, corpus, RunStore(tmp_path))
        assert len(run.history) == epochs and run.provenance["steps"] == 2 * epochs


def test_the_control_of_the_cosines_is_row_3_1():
    changed = {
        k for k, v in CONTROL["same-task"].as_dict().items() if v != ROWS["3.1"].as_dict().get(k)
    }
    assert changed == {"row", "name", "same_task_every"}


def test_a_frozen_encoder_has_no_cosines_to_compare():
    with pytest.raises(ConfigError, match="0 for a frozen encoder"):
        replace(ROWS["frozen-1e-3"], same_task_every=5)


def test_the_heads_features_leave_the_keys_of_the_papers_rows_as_they_were():
    stored = RunStore(RESULTS / "laptop").runs() + RunStore(RESULTS / "quick").runs()
    for run in stored:
        now = PROFILES[run.config["profile"]].apply(ALL_ROWS[run.config["row"]], "quick").as_dict()
        assert now["heads"] == run.config["heads"]


def test_a_run_keeps_few_bfloat16_kernels_for_the_memory_they_take(tmp_path, monkeypatch):
    monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", raising=False)
    config = replace(PROFILES["quick"].apply(FIGURE_3["3.1"], "quick"), max_steps=1)
    run_experiment(config, load_corpus("handbook"), RunStore(tmp_path))
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "128"
