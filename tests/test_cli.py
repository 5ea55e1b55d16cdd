import csv
from dataclasses import replace
from functools import partial

import pytest
from fake_runs import fake_study
from small import small_model, small_tokenizer
from test_experiments import write_corpus

from mtl_lib import cli
from mtl_lib.study import profiles
from mtl_lib.study import run as run_module
from mtl_lib.study.corpora import load_corpus
from mtl_lib.study.store import RunStore


def test_no_command_and_help_explain_themselves(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([])
    assert stop.value.code == 2
    with pytest.raises(SystemExit) as stop:
        cli.main(["--help"])
    assert stop.value.code == 0
    listed = capsys.readouterr().out
    for command in ("data", "encoder", "train", "sweep", "study", "figures", "reproduce"):
        assert f"\n    {command}" in listed


def test_an_expected_fault_is_one_line_and_a_status(capsys, tmp_path):
    assert cli.main(["data", "check", str(tmp_path / "nowhere")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("mtl: ")
    assert error.count("\n") == 1


def test_data_check_reports_a_folder(capsys, tmp_path):
    assert cli.main(["data", "check", write_corpus(tmp_path / "corpus")]) == 0
    assert "ids-sst-train.csv" in capsys.readouterr().out


def test_an_unknown_row_is_refused_by_name(capsys):
    assert cli.main(["sweep", "--rows", "3.99"]) == 1
    assert "unknown row 3.99" in capsys.readouterr().err
    assert cli.main(["train", "9.9"]) == 1
    assert "unknown row 9.9" in capsys.readouterr().err


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """`mtl train 3.2` for two steps on the small corpus; gives the model's and the runs' folder."""
    monkeypatch.setattr(cli, "BUILD", tmp_path / "build")
    data, model = write_corpus(tmp_path / "corpus"), tmp_path / "model"
    arguments = ["train", "3.2", "--data", data, "--max-steps", "2", "--model", str(model)]
    assert cli.main(arguments) == 0
    return data, model, tmp_path / "build" / "runs" / "quick"


def test_train_keeps_the_model_and_stores_the_run(trained, capsys):
    _, model, runs = trained
    assert (model / "model.safetensors").is_file()
    assert [run.config["row"] for run in RunStore(runs).runs()] == ["3.2"]


def test_a_sweep_finds_what_train_has_stored(trained, capfd):
    data, _, runs = trained
    arguments = ["sweep", "--rows", "3.2", "--data", data, "--max-steps", "2", "--store", str(runs)]
    assert cli.main(arguments) == 0
    out = capfd.readouterr().out
    assert "to train" not in out
    assert "3.2 gradient surgery, seed 0" in out


@pytest.mark.parametrize(
    ("name", "header", "kind"),
    [
        ("sst-dev-output.csv", "id \t Predicted_Sentiment ", int),
        ("para-dev-output.csv", "id \t Predicted_Is_Paraphrase ", int),
        ("sts-dev-output.csv", "id \t Predicted_Similiary ", float),
    ],
)
def test_predictions_keep_the_class_format_and_the_order_of_the_ids(tmp_path, name, header, kind):
    small_model().save(tmp_path / "model", small_tokenizer())
    data = write_corpus(tmp_path / "corpus")
    cli.write_predictions(str(tmp_path / "model"), data, "dev", str(tmp_path / "out"))
    first, *rows = (tmp_path / "out" / name).read_text().splitlines()
    assert first == header
    task = {"sst": "sentiment", "para": "paraphrase", "sts": "similarity"}[name.split("-")[0]]
    ids = [example.id for example in load_corpus(data).splits[task]["dev"]]
    assert [row.split(" , ")[0] for row in rows] == ids
    assert all(kind(row.split(" , ")[1]) is not None for row in rows)


def test_a_split_that_the_corpus_lacks_is_refused(tmp_path, capsys):
    small_model().save(tmp_path / "model", small_tokenizer())
    data = write_corpus(tmp_path / "corpus")
    arguments = ["predict", str(tmp_path / "model"), "--data", data, "--out", str(tmp_path / "o")]
    assert cli.main(arguments) == 1
    assert "no test split" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_figures_are_drawn_from_the_committed_studies(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cli, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(cli.figures, "FIGURES", tmp_path / "figures")
    store = RunStore(tmp_path / "results" / "quick")
    for run in fake_study(["3.1", "3.10", "4.6"], (0,)):
        store.put(replace(run, key=f"{run.config['row']:0>16}"))
    assert cli.main(["figures"]) == 0
    assert (tmp_path / "figures" / "figure_3.png").is_file()
    with (tmp_path / "figures" / "figure_9.csv").open() as file:
        assert len(list(csv.DictReader(file))) > 0


def test_every_profile_has_a_place_in_the_commands():
    parser = cli._parser()
    for profile in profiles.PROFILES:
        for command in (["sweep"], ["study", "run"], ["figures"]):
            assert parser.parse_args([*command, "--profile", profile]).profile == profile


def test_an_epoch_more_or_less_is_asked_for_in_every_training_command():
    parser = cli._parser()
    for command in (["sweep"], ["train", "3.1"], ["reproduce"]):
        assert parser.parse_args([*command, "--epochs", "3"]).epochs == 3


def test_train_runs_as_many_epochs_as_asked(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cli, "BUILD", tmp_path / "build")
    arguments = ["train", "3.1", "--data", write_corpus(tmp_path / "corpus"), "--encoder", "tiny"]
    assert cli.main([*arguments, "--epochs", "1"]) == 0
    (run,) = RunStore(tmp_path / "build" / "runs" / "quick").runs()
    assert len(run.history) == 1
    assert "epoch 1: step 3" in capsys.readouterr().out


class HandedOn(Exception):
    """The command goes on in another process."""


def test_the_study_is_handed_to_its_own_checkout_with_absolute_folders(tmp_path, monkeypatch):
    def become(arguments, code):
        raise HandedOn(arguments, code)

    monkeypatch.setattr(cli.queue, "become", become)
    monkeypatch.setattr(cli.queue, "fixed_code", lambda: tmp_path / "code")
    monkeypatch.chdir(tmp_path)
    write_corpus(tmp_path / "corpus")
    options = ["--data", "corpus", "--results", "kept", "--rows", "3.1", "--jobs", "1"]
    with pytest.raises(HandedOn) as handed:
        cli.main(["study", "run", "--profile", "paper", *options])
    arguments, code = handed.value.args
    assert code == tmp_path / "code"
    assert arguments[:3] == ["study", "run", "--here"]
    assert set(arguments[3:]) == {
        "--profile=paper", "--rows=3.1", f"--data={tmp_path}/corpus", "--jobs=1",
        f"--results={tmp_path}/kept",
    }  # fmt: skip
    assert cli._parser().parse_args(arguments).here


def test_the_study_of_a_small_corpus_is_run_seen_and_collected(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(cli.queue, "Study", partial(cli.queue.Study, folder=tmp_path / "study"))
    monkeypatch.setattr(cli.queue, "collect", partial(cli.queue.collect, tmp_path / "study"))
    monkeypatch.setattr(cli.queue, "run_all", run_here)
    options = ["--here", "--profile", "quick", "--rows", "3.1", "--encoder", "tiny"]
    options += ["--data", write_corpus(tmp_path / "corpus"), "--results", str(tmp_path / "kept")]
    for what, said in (
        ("status", "1 runs: 0 done, 0 running, 0 begun, 1 left"),
        ("run", "1 runs: 0 done, 0 running, 0 begun, 1 left"),
        ("status", "1 runs: 1 done, 0 running, 0 begun, 0 left"),
        ("collect", f"{tmp_path}/kept/quick/3.1-seed0-"),
    ):
        assert cli.main(["study", what, *options]) == 0
        assert said in capfd.readouterr().out
    assert [run.config["row"] for run in RunStore(tmp_path / "kept" / "quick").runs()] == ["3.1"]


def run_here(configs, data, store, **options):
    for config in configs:
        run_module.run_experiment(config, load_corpus(data), store)
