"""Several runs at a time: whatever ends one of the processes, nothing finished is lost."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from small import small_encoder, small_tokenizer
from test_runs import write_corpus

from mtl_lib.errors import RunError
from mtl_lib.pretrained import encoder_hash, save_encoder
from mtl_lib.study import pool
from mtl_lib.study.config import STUDY_VERSION, ExperimentConfig
from mtl_lib.study.corpora import load_corpus
from mtl_lib.study.pool import run_all
from mtl_lib.study.rows import FIGURE_3
from mtl_lib.study.store import RunStore, run_key
from mtl_lib.study.worker import Job


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> ExperimentConfig:
    folder = tmp_path_factory.mktemp("encoder")
    save_encoder(folder, small_encoder(), small_tokenizer())
    options = {"lr": 1e-3, "epochs": 1, "max_steps": 1, "max_length": 16, "train_sample": 8}
    return replace(FIGURE_3["3.1"], encoder=str(folder), **options)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


def test_a_killed_worker_is_told_in_one_line_with_the_remedy(config, data, tmp_path, monkeypatch):
    class Killed(pool.Worker):
        def start(self, task):
            super().start(task)
            self.process.kill()

    monkeypatch.setattr(pool, "Worker", Killed)
    with pytest.raises(RunError, match=r"row 3\.1, seed 0: .* exit code .*`--jobs`") as fault:
        run_all([config], data, RunStore(tmp_path))
    assert str(fault.value).count("\n") == 0


def test_a_run_that_another_process_trains_is_left_for_the_end(config, data, tmp_path):
    store, other = RunStore(tmp_path), replace(config, seed=1)
    sha, corpus = encoder_hash(config.encoder), load_corpus(data)
    key, other_key = (
        run_key(c.as_dict(), corpus.fingerprint, sha, STUDY_VERSION) for c in (config, other)
    )
    found: list[str] = []
    with store.lock(key):
        study = threading.Thread(target=lambda: found.extend(run_all([config, other], data, store)))
        study.start()
        deadline = time.monotonic() + 120
        while store.get(other_key) is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert store.get(other_key) and store.get(key) is None
    study.join(120)
    assert found == [key, other_key] and store.get(key)


def test_a_fault_of_the_program_comes_with_the_workers_traceback(config, data, tmp_path):
    broken = replace(config)
    object.__setattr__(broken, "heads", {**config.heads, "sentiment": "no head"})
    processes = pool.LocalProcesses(1)
    processes.submit(Job(broken, "", data, str(tmp_path / "locks" / "sign"), threads=1))
    while not (ended := processes.finished()):
        pass
    processes.stop()
    ((_, fault),) = ended
    assert isinstance(fault, AttributeError) and "worker.py" in fault.__notes__[0]


def sweep(config: ExperimentConfig, data: str, runs: Path) -> subprocess.Popen[str]:
    """`mtl sweep`, as a terminal runs it: Ctrl-C goes to the whole group."""
    return subprocess.Popen(
        [sys.executable, "-m", "mtl_lib.cli", "sweep", "--rows=3.2", "--seeds=0,1", "--jobs=2",
         f"--data={data}", f"--encoder={config.encoder}", f"--store={runs}", "--epochs=3000"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env=os.environ | {"MTL_CHECKPOINT_SECONDS": "0"},
    )  # fmt: skip


@pytest.mark.skipif(sys.platform == "win32", reason="no groups of processes")
@pytest.mark.parametrize(
    ("number", "moment"),
    [
        (signal.SIGINT, "while they start"),
        (signal.SIGINT, "while they train"),
        (signal.SIGTERM, "while they train"),
    ],
)
def test_a_group_that_is_stopped_at_any_moment_ends_without_a_traceback(
    number, moment, config, data, tmp_path
):
    process = sweep(config, data, tmp_path)
    assert "2 to train" in process.stdout.readline()
    deadline = time.monotonic() + 120
    states = [] if moment == "while they train" else [None, None]
    while len(states) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
        states = list(tmp_path.glob("checkpoints/*/state.safetensors"))
    if moment == "while they start":
        time.sleep(0.5)
    os.killpg(process.pid, number)
    out, error = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "0 of 2 runs are finished" in out
    assert "Traceback" not in error, error
    assert "to go on: mtl sweep --rows=3.2" in error
    if moment == "while they train":
        assert error.count("stopped after step") == 2
        assert len(list(tmp_path.glob("checkpoints/*/state.safetensors"))) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="no groups of processes")
def test_workers_of_a_killed_study_save_their_state_and_end(config, data, tmp_path):
    process = sweep(config, data, tmp_path)
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob("checkpoints/*/state.safetensors"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    _, error = process.communicate(timeout=120)  # ends when no worker holds the pipe any more
    assert error.count("stopped after step") == 2
    with pytest.raises(ProcessLookupError):
        while time.monotonic() < deadline:
            os.killpg(process.pid, 0)
            time.sleep(0.05)
