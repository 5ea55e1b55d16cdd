"""A study on a Dask cluster of this machine's processes: whatever ends, no finished run is lost."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from test_pool import config, data  # noqa: F401

from mtl_lib.errors import ConfigError
from mtl_lib.study import pool, worker
from mtl_lib.study.pool import run_all
from mtl_lib.study.store import RunStore
from mtl_lib.study.worker import Trained

pytest.importorskip("distributed", reason="the engines of a cluster are an extra")
from dask import config as dask_config  # noqa: E402

from mtl_lib.study import cluster  # noqa: E402
from mtl_lib.study.checkpoint import handling  # noqa: E402

with handling(signal.default_int_handler, signal.SIGINT, signal.SIGTERM):
    import dask_jobqueue  # noqa: E402, F401 - the main thread has to import it

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no groups of processes")

ENVIRONMENT = {"MTL_CHECKPOINT_SECONDS": "0", "OMP_NUM_THREADS": "1"}


def dask(*arguments: str, log: Path, **environment: str) -> subprocess.Popen:
    """A process of Dask's, in a group of its own."""
    with log.open("a") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "distributed.cli." + arguments[0], *arguments[1:]],
            stdout=file, stderr=file, start_new_session=True, cwd=log.parent,
            env=os.environ | ENVIRONMENT | environment,
        )  # fmt: skip


def end(process: subprocess.Popen, number: int = signal.SIGKILL) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
    process.wait(30)


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


@contextmanager
def machines(folder: Path, workers: int, *options: str) -> Iterator[tuple[str, list, ExitStack]]:
    """A scheduler and workers, each a process started apart: address, processes, what ends them."""
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    with ExitStack() as stack:
        processes = [start_scheduler(folder, port, stack)]
        for number in range(workers):
            processes.append(start_worker(folder, address, number, stack, *options))
        yield address, processes, stack


def start_scheduler(folder: Path, port: int, stack: ExitStack) -> subprocess.Popen:
    arguments = ("--host", "127.0.0.1", "--port", str(port), "--no-dashboard")
    process = dask("dask_scheduler", *arguments, log=folder / "scheduler.log")
    stack.callback(end, process)
    return process


def start_worker(
    folder: Path, address: str, number: int, stack: ExitStack, *options: str
) -> subprocess.Popen:
    process = dask(
        "dask_worker", address, "--nthreads", "1", "--no-dashboard", *options,
        log=folder / f"worker{number}.log", MTL_BUILD=str(folder / f"machine{number}"),
    )  # fmt: skip
    stack.callback(end, process)
    return process


def said(folder: Path, end: str) -> Counter[str]:
    """How often the workers' logs say of a run that it came to this end."""
    lines = "".join(log.read_text() for log in folder.glob("worker*.log")).splitlines()
    return Counter(line.removesuffix(end) for line in lines if line.endswith(end))


def until(what, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def assert_same(first: RunStore, second: RunStore, runs: int) -> None:
    """The same runs, to the bit."""
    pairs = list(zip(first.runs(), second.runs(), strict=True))
    assert len(pairs) == runs
    for a, b in pairs:
        assert (a.key, a.metrics) == (b.key, b.metrics)
        for task in a.predictions:
            np.testing.assert_array_equal(a.predictions[task], b.predictions[task])


def test_killed_late_and_restarted_processes_lose_no_run_and_repeat_none(config, data, tmp_path):  # noqa: F811
    twelve = [replace(config, seed=seed, epochs=20, max_steps=None) for seed in range(12)]
    run_all(twelve, data, RunStore(tmp_path / "local"), jobs=2)
    store = RunStore(tmp_path / "runs")
    states = lambda: list(store.directory.glob("checkpoints/*/state.safetensors"))  # noqa: E731
    stored = lambda: len(list(store.directory.glob("*/run.json")))  # noqa: E731
    with machines(tmp_path, 2) as (address, (scheduler, first, second), stack):
        study = Thread(
            target=run_all, args=(twelve, data, store),
            kwargs={"executor": lambda: cluster.scheduler(address)},
        )  # fmt: skip
        study.start()
        until(lambda: stored() >= 1 and states())
        end(first)  # SIGKILL, to the Dask worker, its nanny and their runs, in the midst of one
        start_worker(tmp_path, address, 2, stack)  # late
        until(lambda: stored() >= 4 and states())
        end(scheduler)
        second.wait(60)  # a worker ends with its scheduler
        start_scheduler(tmp_path, int(address.rsplit(":")[-1]), stack)
        for number in (0, 1, 2):
            start_worker(tmp_path, address, number, stack)
        study.join(300)
        assert not study.is_alive()
    assert_same(store, RunStore(tmp_path / "local"), 12)
    finished, found = said(tmp_path, ": finished"), said(tmp_path, ": was stored")
    assert set(finished.values()) == {1}
    # A worker killed between storing a run and saying so leaves it to another one to find.
    assert len(finished | found) == 12


def test_a_run_comes_back_from_a_machine_with_another_disk(config, data, tmp_path):  # noqa: F811
    class Apart(cluster.Cluster):
        def submit(self, job):
            super().submit(replace(job, sign=f"{job.sign}-unseen"))

    store = RunStore(tmp_path / "runs")
    with machines(tmp_path, 1, "--no-nanny") as (address, *_):
        run_all([config], data, store, executor=lambda: Apart(cluster.scheduler(address)._connect))
    kept = RunStore(tmp_path / "machine0" / "runs" / "elsewhere")
    assert_same(store, kept, 1)


def test_ctrl_c_saves_the_states_on_the_other_machines(config, data, tmp_path):  # noqa: F811
    with machines(tmp_path, 2) as (address, *_):
        process = subprocess.Popen(
            [sys.executable, "-m", "mtl_lib.cli", "sweep", "--rows=3.2", "--seeds=0,1,2",
             f"--scheduler={address}", f"--data={data}", f"--encoder={config.encoder}",
             f"--store={tmp_path / 'runs'}", "--epochs=3000"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        states = lambda: list(tmp_path.glob("runs/checkpoints/*/state.safetensors"))  # noqa: E731
        until(lambda: len(states()) == 2)
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=60)
        logs = lambda: "".join(log.read_text() for log in tmp_path.glob("worker*.log"))  # noqa: E731
        until(lambda: logs().count("stopped after step") == 2)
    assert process.returncode == 130
    assert "0 of 3 runs are finished" in out and address in out
    assert "Traceback" not in error, error


SBATCH = """#!/bin/sh
job=$(mktemp) && cp "$1" "$job"
setsid sh "$job" > "$job.log" 2>&1 &
echo $! > "$(dirname "$0")/$!.id"
echo "Submitted batch job $!"
"""
SCANCEL = """#!/bin/sh
for job in "$@"; do kill -- "-$job"; done
"""


def test_a_slurm_job_that_ends_is_replaced_and_its_run_goes_on(config, data, tmp_path, monkeypatch):  # noqa: F811
    """SLURM's two commands, played by a shell."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("MTL_CHECKPOINT_SECONDS", "0")
    dask_config.set({"distributed.deploy.lost-worker-timeout": "1s"})
    store = RunStore(tmp_path / "runs")
    long = replace(config, epochs=60, max_steps=None)
    study = Thread(
        target=run_all, args=([long], data, store),
        kwargs={"executor": lambda: cluster.slurm(1, threads=1)},
    )  # fmt: skip
    study.start()
    until(lambda: list(store.directory.glob("checkpoints/*/state.safetensors")))
    job = int(next(programs.glob("*.id")).read_text())
    os.killpg(job, signal.SIGKILL)  # its time is up
    study.join(300)
    assert not study.is_alive() and len(store.runs()) == 1
    assert len(list(programs.glob("*.id"))) == 2


def test_slurm_leaves_ctrl_c_as_it_is(tmp_path):
    program = (
        "import signal, sys; from mtl_lib.study import cluster; import shutil; "
        "shutil.which = lambda name: name; before = signal.getsignal(signal.SIGINT); "
        "cluster.slurm(1, threads=1); assert signal.getsignal(signal.SIGINT) is before"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_slurm_that_is_not_there_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="sbatch"):
        cluster.slurm(1, threads=1)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:PORT", "localhost", "http://localhost:PORT"])
def test_a_scheduler_that_does_not_answer_is_named(address, monkeypatch):
    monkeypatch.setattr(cluster, "ANSWER_SECONDS", 1)
    with pytest.raises(ConfigError, match="no Dask scheduler answers .*tcp://HOST:8786"):
        cluster.scheduler(address.replace("PORT", str(free_port())))


def test_a_worker_that_was_told_to_end_takes_no_other_run(config, data, tmp_path, monkeypatch):  # noqa: F811
    """One study's end is not another one's."""
    jobs = []
    for name in ("one", "two"):
        store = RunStore(tmp_path / name)

        class Here(pool.LocalProcesses):
            def submit(self, job):
                jobs.append(job)
                self._waiting.append(job)

        run_all([config], data, store, executor=lambda: Here(1))
    (tmp_path / "one" / "locks").mkdir(exist_ok=True)
    assert isinstance(cluster.train(jobs[0]), Trained)
    cluster.stop_runs(jobs[0].sign)
    assert isinstance(cluster.train(jobs[1]), Trained)
    cluster.stop_runs(jobs[1].sign)


class Strange(Exception):
    """One that does not come out of a pipe as it went in."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def test_an_exception_that_cannot_be_sent_comes_in_words():
    sent = worker._sendable(Strange(1, 2))
    assert isinstance(sent, RuntimeError) and "Strange: 1 and 2" in str(sent)


def test_without_the_extra_the_message_says_what_to_install(tmp_path):
    program = (
        "import sys; sys.modules['distributed'] = None; from mtl_lib.cli import main; "
        "sys.exit(main(['sweep', '--rows=3.1', '--max-steps=1', '--scheduler=tcp://h:1', "
        f"'--store={tmp_path}']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert 'distributed is missing: pip install "mtl-handbook[cluster]"' in done.stderr
