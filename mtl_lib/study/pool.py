"""Many runs: those that are stored, and several at a time for those that are not."""

import math
import time
import uuid
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import connection
from pathlib import Path
from typing import Protocol

from mtl_lib.errors import NumericalError, RunError
from mtl_lib.files import write_text
from mtl_lib.paths import BUILD, RESULTS
from mtl_lib.pretrained import encoder_hash
from mtl_lib.study.config import STUDY_VERSION, ExperimentConfig
from mtl_lib.study.corpora import load_corpus
from mtl_lib.study.groups import STUDIES, choose_study
from mtl_lib.study.profiles import choose_rows, jobs_at_a_time
from mtl_lib.study.settings import Settings
from mtl_lib.study.store import Run, RunStore, run_key
from mtl_lib.study.worker import Job, Outcome, Trained, Worker


def study(
    rows: Iterable[str],
    *,
    only: str = "",
    profile: str = "stored",
    data: str = "",
    encoder: str = "",
    seeds: str = "",
    max_steps: int = 0,
    epochs: int = 0,
    jobs: int = 0,
    store: str | Path | None = None,
) -> list[Run]:
    """The runs of some rows: read where they are stored, trained where they are not.

    What a notebook calls with its parameters; any but `rows` may be left empty.

    Args:
        rows: row ids, such as `FIGURE_3`.
        only: keep these of them, comma-separated: "3.1,3.2".
        profile: "stored" reads the best committed study; those of `PROFILES` train.
        data, encoder, seeds, max_steps, epochs, jobs: as in `Settings`.
        store: folder of the runs; build/runs/PROFILE by default.

    Returns:
        The runs, by row and seed.

    Raises:
        ConfigError: if a row, profile or seed does not exist.
    """
    if profile == "stored":
        return stored_runs(choose_rows(rows, only))
    settings = Settings(profile, data, encoder, only, seeds, max_steps, epochs, jobs)
    return trained_runs(rows, settings, store)


def trained_runs(
    rows: Iterable[str],
    settings: Settings,
    store: str | Path | None = None,
    executor: Callable[[], "Executor"] | None = None,
) -> list[Run]:
    """The runs of some rows under these settings, trained where they are not stored yet.

    Args:
        rows: row ids.
        settings: profile, corpus, seeds, and what differs from the profile.
        store: folder of the runs; build/runs/PROFILE by default.
        executor: as `run_all` takes it.

    Raises:
        ConfigError: if a row, the profile or a seed does not exist.
    """
    protocol = settings.protocol()
    runs = RunStore(store or BUILD / "runs" / settings.profile)
    keys = run_all(
        settings.configs(rows),
        settings.corpus(),
        runs,
        jobs=jobs_at_a_time(settings.jobs, protocol.threads),
        threads=protocol.threads,
        each=protocol.seconds,
        executor=executor,
    )
    return [run for key in keys if (run := runs.get(key))]


def stored_runs(rows: Iterable[str]) -> list[Run]:
    """The committed runs of some rows from one study (`choose_study`)."""
    rows = list(rows)
    if runs := choose_study(committed_runs(rows), rows):
        return runs
    raise RunError(
        f"{RESULTS}: no stored run of rows {', '.join(rows)}; train them with "
        f"`mtl sweep --profile quick`"
    )


def committed_runs(rows: Collection[str] | None = None) -> list[Run]:
    """The runs of the studies in data/results, of some rows only if these are given."""
    return [run for name in STUDIES for run in RunStore(RESULTS / name).runs(rows)]


def run_all(
    configs: list[ExperimentConfig],
    data: str,
    store: RunStore,
    *,
    jobs: int = 1,
    threads: int = 1,
    each: float = 0.0,
    until: float = math.inf,
    executor: Callable[[], "Executor"] | None = None,
) -> list[str]:
    """Train what is not stored yet, several runs at a time, and return the keys of all.

    A finished run is stored at once, so that whatever stops the study repeats none of them.
    Rows whose task the corpus lacks (CFIMDB in the embedded corpora) are left out, with a word.

    Args:
        threads: CPU threads of each run.
        each: expected seconds of a run, for the estimate.
        until: the `time.monotonic()` at which the runs are stopped, as by Ctrl-C.
        executor: makes what trains them; processes of this machine by default.

    Raises:
        TimeUp: if that time came before the end.
    """
    corpus = load_corpus(data)
    missing = [c for c in configs if any(name not in corpus.splits for name in c.heads)]
    for config in missing:
        print(f"{config.row}: left out, corpus {corpus.name!r} has no {', '.join(config.heads)}")
    configs = [config for config in configs if config not in missing]
    hashes = {name: encoder_hash(name) for name in {config.encoder for config in configs}}
    keys = [
        run_key(c.as_dict(), corpus.fingerprint, hashes[c.encoder], STUDY_VERSION) for c in configs
    ]
    pending = [(c, key) for c, key in zip(configs, keys, strict=True) if store.get(key) is None]
    if pending:
        pace = f", {jobs} at a time" if executor is None else ""
        if each and executor is None:
            pace += f", about {each * len(pending) / jobs / 60:.0f} minutes"
        print(
            f"{len(configs)} runs on corpus {corpus.name!r}: {len(configs) - len(pending)} stored, "
            f"{len(pending)} to train{pace}",
            flush=True,
        )
        with _sign(store) as sign:
            data = data if data == "handbook" else str(Path(data).resolve())
            waiting = [Job(config, key, data, sign, threads) for config, key in pending]
            make = executor or (lambda: LocalProcesses(min(jobs, len(waiting))))
            _train(waiting, make(), store, until)
    return keys


@contextmanager
def _sign(store: RunStore) -> Iterator[str]:
    """A file by which other machines know this one's disk, while a study runs."""
    sign = store.directory.resolve() / "locks" / f"{uuid.uuid4()}.sign"
    write_text(sign, "")
    try:
        yield str(sign)
    finally:
        sign.unlink(missing_ok=True)


class TimeUp(KeyboardInterrupt):
    """The time that was given is over; heeded where Ctrl-C is."""


class Executor(Protocol):
    """What trains runs for a study: processes of this machine, or a cluster (`cluster.py`)."""

    def submit(self, job: Job) -> None:
        """Take a run, behind those that wait."""

    def finished(self) -> list[tuple[Job, Outcome]]:
        """What has ended since the last call; returns within seconds."""

    def stop(self) -> None:
        """End the runs under way; they save their state first."""


class LocalProcesses:
    """An executor of processes on this machine.

    Args:
        jobs: runs at a time.
    """

    def __init__(self, jobs: int) -> None:
        self._idle = [Worker() for _ in range(jobs)]
        self._busy: list[Worker] = []
        self._waiting: deque[Job] = deque()

    def submit(self, job: Job) -> None:
        self._waiting.append(job)

    def finished(self) -> list[tuple[Job, Outcome]]:
        while self._waiting and self._idle:
            self._busy.append(self._idle.pop())
            self._busy[-1].start(self._waiting.popleft())
        # Not without end: a signal that comes meanwhile is heeded on every system.
        ready = connection.wait([worker.pipe for worker in self._busy], timeout=1.0)
        ended = [worker for worker in self._busy if worker.pipe in ready]
        self._busy = [worker for worker in self._busy if worker not in ended]
        self._idle += ended
        return [(worker.job, worker.outcome()) for worker in ended]

    def stop(self) -> None:
        workers = self._idle + self._busy
        for worker in workers:
            worker.stop()
        deadline = time.monotonic() + STOP_SECONDS
        for worker in workers:
            worker.process.join(max(0.0, deadline - time.monotonic()))
            worker.process.kill()


STOP_SECONDS = 60.0  # for the workers to save the state of their runs


def _train(jobs: list[Job], executor: Executor, store: RunStore, until: float) -> None:
    """Train them. After Ctrl-C or a fault the finished runs are stored, and of those under way the
    last state."""
    left, done, faults = len(jobs), 0, list[str]()
    started = time.monotonic()
    try:
        for job in jobs:
            executor.submit(job)
        while left:
            broken = None
            for job, outcome in executor.finished():
                if outcome is None:  # for the end: what another process trains may then be there
                    executor.submit(replace(job, wait=True))
                    continue
                left -= 1
                if isinstance(outcome, Trained):
                    if outcome.run:
                        store.put(outcome.run)
                    done += 1
                    more = (time.monotonic() - started) / done * left / 60
                    # The first to end say little: others are nearly done as well.
                    rest = f"; about {more:.0f} min to go" if done > 2 and more >= 1 else ""
                    print(f"[{done}/{len(jobs)}] {outcome.line}{rest}", flush=True)
                elif isinstance(outcome, NumericalError):  # this run's alone: the others go on
                    faults.append(str(outcome))
                else:
                    broken = broken or outcome
            if broken:  # once what else has ended is stored
                raise broken
            if time.monotonic() >= until:
                raise TimeUp
    except KeyboardInterrupt:
        print(f"\nStopping: {done} of {len(jobs)} runs are finished and stored in ", end="")
        print(f"{store.directory};\nthose under way are saved there. The same command goes on.")
        raise
    finally:
        executor.stop()
    if faults:
        raise NumericalError("\n".join(faults))
