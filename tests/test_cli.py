import argparse
import ast
import csv
import os
import subprocess
import sys
from dataclasses import asdict, fields, replace
from functools import partial

import pytest
from fake_runs import fake_study
from small import small_model, small_tokenizer
from test_runs import write_corpus

import mtl_lib
from mtl_lib import cli
from mtl_lib.paths import ROOT
from mtl_lib.study import figures, pool, profiles, queue
from mtl_lib.study import run as run_module
from mtl_lib.study.corpora import load_corpus
from mtl_lib.study.settings import Settings
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


def test_the_help_shows_examples_that_can_be_typed():
    lines = [line.split("  ")[1] for line in cli.EXAMPLES.splitlines()[1:]]
    assert len(lines) >= 5
    for line in lines:
        program, *arguments = line.split()
        assert program == "mtl" and callable(cli._parser().parse_args(arguments).run)
    assert cli.EXAMPLES.strip() in cli._parser().format_help()


def test_every_command_has_an_example_in_its_help(capsys):
    (commands,) = cli._parser()._subparsers._group_actions
    for name, command in commands.choices.items():
        assert f"  mtl {name}" in command.format_help(), name


def test_a_shell_can_complete_the_commands(capsys):
    assert cli.main(["completion", "bash"]) == 0
    written = capsys.readouterr().out
    assert "sweep" in written and "--scheduler" in written


def test_the_version_is_the_librarys(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"mtl {mtl_lib.__version__}\n"


def run_module_cli(*arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "mtl_lib.cli", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, env=os.environ | environment)


def test_python_m_runs_the_command_and_gives_its_status(tmp_path):
    assert run_module_cli("data", "check", write_corpus(tmp_path / "corpus")).returncode == 0
    missing = run_module_cli("data", "check", str(tmp_path / "nowhere"))
    assert missing.returncode == 1 and missing.stderr.startswith(b"mtl: ")
    assert run_module_cli().returncode == 2


FLAGS = ["--" + one.name.replace("_", "-") for one in fields(Settings)]


def test_every_flag_of_a_study_is_written_once():
    """In `Settings`; no parser of the library declares one again."""
    declared = [
        argument.value
        for path in sorted((ROOT / "mtl_lib").rglob("*.py"))
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and ast.unparse(call.func).endswith("add_argument")
        for argument in call.args
        if isinstance(argument, ast.Constant)
    ]
    assert "--seed" in declared and set(declared).isdisjoint(FLAGS)


def commands_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    (action,) = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    return action.choices


@pytest.mark.parametrize("flag", FLAGS)
def test_a_flag_means_the_same_in_every_command(flag):
    found = {
        (action.dest, action.type, action.help.partition(" (default")[0])
        for command in commands_of(cli._parser()).values()
        for action in command._actions
        if flag in action.option_strings
    }
    assert len(found) == 1


def test_every_setting_goes_from_the_command_to_the_study(monkeypatch):
    given = []
    monkeypatch.setattr(pool, "trained_runs", lambda *arguments: given.append(arguments) or [])
    values = Settings("paper", "corpora", "tiny", "3.2", "1,2", 3, 4, 5)
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in asdict(values).items()]
    assert cli.main(["sweep", *flags, "--store", "runs"]) == 0
    assert given == [(profiles.ALL_ROWS, values, "runs", None)]


def test_a_cluster_has_as_many_runs_at_a_time_as_workers(capsys):
    assert cli.main(["sweep", "--scheduler", "tcp://h:1", "--jobs", "2"]) == 1
    assert "--jobs is of this machine's runs" in capsys.readouterr().err


NO_UTF_8 = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C", "PYTHONIOENCODING": ""}


def test_a_terminal_without_utf_8_gets_escapes_and_no_traceback(tmp_path):
    folder = write_corpus(tmp_path / "Übung 一")
    for arguments in (("data", "check", folder), ("data", "check", f"{folder}/nothing")):
        done = run_module_cli(*arguments, **NO_UTF_8)
        assert b"Traceback" not in done.stderr
        assert b"bung" in done.stdout + done.stderr
        assert done.returncode == (b"nothing" in done.stderr)


def test_what_is_trained_under_one_locale_is_found_under_another(tmp_path):
    data, build = write_corpus(tmp_path / "Übung"), {"MTL_BUILD": str(tmp_path / "build")}
    arguments = ["train", "3.1", "--data", data, "--encoder", "tiny", "--max-steps", "1"]
    done = run_module_cli(*arguments, **NO_UTF_8, **build)
    assert done.returncode == 0, done.stderr
    assert not [path for path in (tmp_path / "build").rglob("*.tmp")]
    (run,) = RunStore(tmp_path / "build" / "runs" / "quick").runs()
    assert run.config["max_steps"] == 1


def test_an_expected_fault_is_one_line_and_a_status(capsys, tmp_path):
    assert cli.main(["data", "check", str(tmp_path / "nowhere")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("mtl: ")
    assert error.count("\n") == 1


def test_a_folder_in_the_place_of_a_file_is_named_as_the_user_knows_it(
    tmp_path, monkeypatch, capsys
):
    def put(options):
        (tmp_path / "unfinished").touch()
        os.replace(tmp_path / "unfinished", tmp_path)

    monkeypatch.setattr(cli, "_check_corpus", put)
    assert cli.main(["data", "check", "anything"]) == 1
    assert capsys.readouterr().err.startswith(f"mtl: {tmp_path}: ")


def test_an_encoder_that_can_be_written_nowhere_is_refused_before_it_is_trained(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert cli.main(["encoder", "adapt", "tiny", str(tmp_path / "file"), "--steps", "9999"]) == 1
    assert f"{tmp_path / 'file'}: " in capsys.readouterr().err


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
    arguments = ["predict", str(tmp_path / "model"), "--data", data, "--split", "dev"]
    assert cli.main([*arguments, "--out", str(tmp_path / "out")]) == 0
    first, *rows = (tmp_path / "out" / name).read_text(encoding="utf-8").splitlines()
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
    monkeypatch.setattr(pool, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(figures, "FIGURES", tmp_path / "figures")
    store = RunStore(tmp_path / "results" / "quick")
    for run in fake_study(["3.1", "3.10", "4.6"], (0,)):
        store.put(replace(run, key=f"{run.config['row']:0>16}"))
    assert cli.main(["figures"]) == 0
    assert (tmp_path / "figures" / "figure_3.png").is_file()
    with (tmp_path / "figures" / "figure_9.csv").open(encoding="utf-8") as file:
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

    monkeypatch.setattr(queue, "become", become)
    monkeypatch.setattr(queue, "fixed_code", lambda: tmp_path / "code")
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
    monkeypatch.setattr(queue, "Study", partial(queue.Study, folder=tmp_path / "study"))
    monkeypatch.setattr(queue, "collect", partial(queue.collect, tmp_path / "study"))
    monkeypatch.setattr(queue, "run_all", run_here)
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


def test_an_encoder_is_pretrained_further_on_a_corpus_and_read_again(tmp_path, capsys):
    from mtl_lib.pretrained import load_encoder

    assert (
        cli.main(["encoder", "adapt", "tiny-pretrained", str(tmp_path / "new"), "--steps", "2"])
        == 0
    )
    assert "loss a masked token" in capsys.readouterr().out
    before, after = (load_encoder(name)[0] for name in ("tiny-pretrained", tmp_path / "new"))
    moved = after.embeddings.word_embeddings.weight - before.embeddings.word_embeddings.weight
    assert moved.any()
