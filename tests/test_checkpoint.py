"""Going on from a checkpoint: the same bits as without a stop, wherever the stop came."""

import json
import os
import shutil
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from small import small_corpus, small_encoder, small_model, small_tokenizer

from mtl_lib.errors import NumericalError, RunError
from mtl_lib.pretrained import save_encoder
from mtl_lib.study import checkpoint as module
from mtl_lib.study import run as run_module
from mtl_lib.study.checkpoint import Checkpoint, Stopped, StopSignals, handling
from mtl_lib.study.rows import ROWS
from mtl_lib.study.run import _move_model, run_experiment
from mtl_lib.study.store import Run, RunStore
from mtl_lib.study.submission import load_model
from mtl_lib.trainer import Trainer


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("encoder")
    save_encoder(folder, small_encoder(), small_tokenizer())
    return str(folder)


@pytest.fixture(autouse=True)
def after_every_step(monkeypatch):
    monkeypatch.setattr(Checkpoint, "due", lambda self: True)


def config_of(row: str, encoder: str):
    """Two epochs: six steps, then the two that the cap leaves."""
    options = {"batch_size": 4, "epochs": 2, "max_steps": 8, "max_length": 16, "train_sample": 8}
    return replace(ROWS[row], encoder=encoder, lr=1e-3, **options)


def same(a: Run, b: Run) -> bool:
    def words(run):
        history = [{k: v for k, v in entry.items() if k != "seconds"} for entry in run.history]
        return json.dumps([run.metrics, history])

    return words(a) == words(b) and all(
        np.array_equal(a.predictions[task], b.predictions[task]) for task in a.predictions
    )


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the library catches it."""


def killed_after(calls: int, monkeypatch, owner, name) -> None:
    """From now on, the given call of a function is the last thing that a process does."""
    original, count = getattr(owner, name), iter(range(1, 10**6))

    def call(*arguments, **options):
        if next(count) > calls:
            raise Killed
        return original(*arguments, **options)

    monkeypatch.setattr(owner, name, call)


# Baseline, surgery with weight decay, SMART with its own generator, two layers and a penalty,
# a frozen encoder that remembers vectors.
@pytest.mark.parametrize("row", ["3.1", "3.4", "3.9", "3.10", "frozen-1e-3"])
def test_a_run_killed_before_any_step_ends_with_the_same_bits(row, encoder, tmp_path):
    config, corpus = config_of(row, encoder), small_corpus()
    expected = run_experiment(config, corpus, RunStore(tmp_path / "whole"))
    for steps in (0, 5, 6, 7):
        store = RunStore(tmp_path / f"killed-{steps}")
        with pytest.MonkeyPatch.context() as patch:
            killed_after(steps, patch, Trainer, "step")
            with pytest.raises(Killed):
                run_experiment(config, corpus, store)
        torch.manual_seed(99)  # a new process stands elsewhere
        run = run_experiment(config, corpus, store)
        assert same(run, expected)
        assert run.provenance["resumes"] == (steps > 0)


@pytest.mark.parametrize("evaluations", [0, 1, 2, 3])
def test_a_run_killed_in_an_evaluation_ends_with_the_same_bits(
    evaluations, encoder, tmp_path, monkeypatch
):
    config, corpus = config_of("frozen-1e-3", encoder), small_corpus()
    expected = run_experiment(config, corpus, RunStore(tmp_path / "whole"))
    with pytest.MonkeyPatch.context() as patch:
        killed_after(evaluations, patch, Trainer, "evaluate")
        with pytest.raises(Killed):
            run_experiment(config, corpus, RunStore(tmp_path / "killed"))
    assert same(run_experiment(config, corpus, RunStore(tmp_path / "killed")), expected)


def test_every_step_may_be_the_last_one_of_a_process(encoder, tmp_path):
    config, corpus = config_of("3.9", encoder), small_corpus()
    expected = run_experiment(config, corpus, RunStore(tmp_path / "whole"))
    store = RunStore(tmp_path / "killed")
    for _ in range(8):
        with pytest.MonkeyPatch.context() as patch:
            killed_after(1, patch, Trainer, "step")
            try:
                run = run_experiment(config, corpus, store)
            except Killed:
                continue
    assert same(run, expected)
    assert run.provenance["resumes"] == 7


def test_a_finished_run_leaves_no_checkpoint(encoder, tmp_path):
    run_experiment(config_of("3.1", encoder), small_corpus(), RunStore(tmp_path))
    assert not list((tmp_path / "checkpoints").iterdir())


def test_a_checkpoint_left_by_a_process_killed_too_late_is_removed(encoder, tmp_path, monkeypatch):
    config, corpus, store = config_of("3.1", encoder), small_corpus(), RunStore(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        killed_after(0, patch, Checkpoint, "remove")
        with pytest.raises(Killed):
            run_experiment(config, corpus, store)
    assert list((tmp_path / "checkpoints").iterdir())
    run_experiment(config, corpus, store)
    assert not list((tmp_path / "checkpoints").iterdir())


def test_the_best_model_is_that_of_the_uninterrupted_run(encoder, tmp_path):
    config, corpus = config_of("3.2", encoder), small_corpus()
    run_experiment(config, corpus, RunStore(tmp_path / "a"), save_model=tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch:
        killed_after(7, patch, Trainer, "step")  # after the first epoch, which may be the best
        with pytest.raises(Killed):
            run_experiment(config, corpus, RunStore(tmp_path / "b"), save_model=tmp_path / "model")
    assert not (tmp_path / "model").exists()  # whole or not at all
    run_experiment(config, corpus, RunStore(tmp_path / "b"), save_model=tmp_path / "model")
    whole, again = (load_model(tmp_path / name)[0].state_dict() for name in ("whole", "model"))
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_a_finished_model_that_cannot_be_copied_leaves_the_one_that_was_there(
    tmp_path, monkeypatch
):
    small_model(seed=0).save(tmp_path / "new")
    small_model(seed=1).save(tmp_path / "old")
    before = {path.name: path.read_bytes() for path in (tmp_path / "old").iterdir()}
    copy = shutil.copyfile

    def full(source, target):
        if source.name == "heads.json":
            raise OSError("no space left on device")
        copy(source, target)

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(OSError, match="no space"):
        _move_model(tmp_path / "new", tmp_path / "old")
    assert {path.name: path.read_bytes() for path in (tmp_path / "old").iterdir()} == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["step", "evaluate"])
def test_a_signal_saves_the_state_and_the_same_call_goes_on(
    number, moment, encoder, tmp_path, monkeypatch
):
    config, corpus = config_of("3.9", encoder), small_corpus()
    expected = run_experiment(config, corpus, RunStore(tmp_path / "whole"))
    monkeypatch.setattr(Checkpoint, "due", lambda self: False)
    before = signal.getsignal(number)
    name = "step" if moment == "step" else "predict"
    owner = Trainer if moment == "step" else __import__("mtl_lib.trainer").trainer
    original, calls = getattr(owner, name), iter(range(100))

    def interrupted(*arguments):
        if next(calls) == 1:
            signal.raise_signal(number)
        return original(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, interrupted)
        with pytest.raises(Stopped, match=r"row 3\.9, seed 0: stopped after step (2|6), kept in"):
            run_experiment(config, corpus, RunStore(tmp_path / "stopped"))
    assert signal.getsignal(number) is before
    run = run_experiment(config, corpus, RunStore(tmp_path / "stopped"))
    assert same(run, expected) and run.provenance["resumes"] == 1


def test_a_second_sigterm_does_not_cut_the_saving_short():
    with StopSignals(now=lambda: False) as signals:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert signals.asked


def test_a_second_ctrl_c_ends_at_once():
    with StopSignals(now=lambda: False) as signals:
        signal.raise_signal(signal.SIGINT)
        assert signals.asked
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


# The file


STATE = {
    "steps": 3,
    "deep": {"floats": [0.1, float("nan")], "numbers": torch.arange(4.0)},
    "nothing": {},
    "none": None,
    "empty": torch.empty(0, 2),
    "bits": torch.tensor([1, 255], dtype=torch.uint8),
}


def test_a_state_comes_back_as_it_was(tmp_path):
    Checkpoint(tmp_path / "run").save(STATE)
    back = Checkpoint(tmp_path / "run").load()
    assert back.keys() == STATE.keys()
    assert all(repr(back[name]) == repr(STATE[name]) for name in STATE)
    assert os.listdir(tmp_path / "run") == ["state.safetensors"]


def test_without_a_checkpoint_there_is_no_state(tmp_path):
    assert Checkpoint(tmp_path / "run").load() is None
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("place", range(0, 100, 5))
def test_a_damaged_checkpoint_is_set_aside_and_never_read(tmp_path, capsys, place):
    checkpoint = Checkpoint(tmp_path)
    checkpoint.save(STATE)
    content = bytearray(checkpoint.path.read_bytes())
    content[len(content) * place // 100] ^= 0x55
    checkpoint.path.write_bytes(content)
    assert checkpoint.load() is None
    assert "damaged" in capsys.readouterr().err
    assert [name.split("-")[0] for name in os.listdir(tmp_path)] == ["damaged"]


@pytest.mark.parametrize("content", [b"", b"\x80\x04K\x01.", b"\xff" * 64, b"PK\x03\x04"])
def test_another_file_in_its_place_is_set_aside(tmp_path, content):
    checkpoint = Checkpoint(tmp_path)
    checkpoint.path.write_bytes(content)
    assert checkpoint.load() is None
    assert not checkpoint.path.exists()


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(tmp_path, monkeypatch):
    checkpoint = Checkpoint(tmp_path)
    checkpoint.save(STATE)

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "save_file", full)
    with pytest.raises(RunError, match="No space left on device; free some space"):
        checkpoint.save(STATE | {"steps": 4})
    assert checkpoint.load()["steps"] == 3
    assert os.listdir(tmp_path) == ["state.safetensors"]


def test_what_a_process_killed_while_it_wrote_has_left_takes_no_room(tmp_path):
    checkpoint = Checkpoint(tmp_path)
    checkpoint.save(STATE)
    for name in (".state.safetensors.4711.tmp", ".tmpYJwMeE"):  # ours, and safetensors' own
        (tmp_path / name).write_bytes(b"half of it")
    assert Checkpoint(tmp_path).load()["steps"] == 3
    assert os.listdir(tmp_path) == ["state.safetensors"]


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="no signal to ignore")
def test_a_signal_that_is_ignored_stays_so():
    """As under `nohup`; and a handler comes back after the block."""
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        with handling(signal.default_int_handler, signal.SIGUSR1, signal.SIGTERM):
            assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_writing_takes_a_small_share_of_the_time(tmp_path, monkeypatch):
    clock = iter([0.0, 100.0, 102.0, 250.0, 303.0])
    monkeypatch.undo()  # of what makes each step's due
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(clock))
    checkpoint = Checkpoint(tmp_path)
    checkpoint.save(STATE)  # from 100 to 102: the next one after 200 seconds more
    assert not checkpoint.due()
    assert checkpoint.due()


# Numerical faults


def test_a_nan_loss_names_the_last_good_checkpoint(encoder, tmp_path, monkeypatch):
    original = Trainer.step

    def spoiled(self):
        if self.steps == 3:
            with torch.no_grad():
                self.model.heads["similarity"].linears[0].bias.fill_(float("nan"))
        return original(self)

    monkeypatch.setattr(Trainer, "step", spoiled)
    words = r"step 4: the similarity loss is nan on examples t\d+, .*Last good checkpoint: .*state"
    with pytest.raises(NumericalError, match=words):
        run_experiment(config_of("3.1", encoder), small_corpus(), RunStore(tmp_path))
    state = Checkpoint(next((tmp_path / "checkpoints").iterdir())).load()
    assert state["steps"] == 3
    assert not RunStore(tmp_path).runs()


@pytest.mark.parametrize("fault", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
def test_out_of_memory_says_what_to_lower(encoder, tmp_path, monkeypatch, fault):
    def greedy(self):
        raise fault

    monkeypatch.setattr(Trainer, "step", greedy)
    with pytest.raises(RunError, match="out of memory .* batch size 4 .*`--jobs`"):
        run_experiment(config_of("3.1", encoder), small_corpus(), RunStore(tmp_path))


def test_a_collapsed_task_is_said_in_the_run_and_in_its_line(encoder, tmp_path, monkeypatch):
    original = Trainer.evaluate

    def collapsed(self, splits):
        logits, scores = original(self, splits)
        logits["sentiment"][:] = logits["sentiment"][0]
        return logits, scores

    monkeypatch.setattr(Trainer, "evaluate", collapsed)
    run = run_experiment(config_of("3.1", encoder), small_corpus(), RunStore(tmp_path))
    assert "sentiment" in run.provenance["constant_predictions"]
    assert "one answer on sentiment" in run_module.summary(run)
