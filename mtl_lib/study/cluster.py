"""Runs on the machines of a Dask cluster: one that is there, or jobs of SLURM.

Every Dask worker hands its runs to a process of its own, the one that the study of a single machine
uses (`worker.py`). So the death of a Dask worker ends its run with the state saved where the disk
outlives it, and Dask gives the run to another worker. Machines that see the asker's disk store the
run there; the others send it back.
"""

import logging
import shutil
import signal
import threading
import time
from asyncio import CancelledError
from collections import Counter
from collections.abc import Callable
from itertools import count
from multiprocessing import current_process
from typing import Any

from dask import config as settings
from distributed import Client, KilledWorker
from distributed.client import Future

from mtl_lib.errors import ConfigError, RunError, explain
from mtl_lib.study.checkpoint import handling
from mtl_lib.study.worker import Job, Outcome, Trained, Worker

POLL_SECONDS = 0.5
ANSWER_SECONDS = 10
PATIENCE = 600.0  # seconds for a scheduler that is gone to come back
VAIN_TRIES = 3  # of a run whose workers die before it has got any further

# What a scheduler's address or its absence can raise.
_UNREACHABLE = (AssertionError, OSError, RuntimeError, TypeError, ValueError)

# Of a Dask worker: the process of each of its threads, and the studies that have ended.
_of_thread = threading.local()
_workers: list[Worker] = []
_ended: set[str] = set()


class Cluster:
    """An executor of the study (`pool.Executor`) whose runs are a Dask cluster's tasks.

    Args:
        connect: gives a client of the cluster, or raises OSError while it is not there.
        keep: of a cluster of the study's own: sees to it that it has workers for so many runs.
        close: of such a cluster: ends it.

    Raises:
        ConfigError: if no scheduler answers.
    """

    def __init__(
        self,
        connect: Callable[[], Client],
        keep: Callable[[int], Any] = lambda runs: None,
        close: Callable[[], Any] = lambda: None,
    ) -> None:
        logging.getLogger("distributed").setLevel(logging.CRITICAL)  # else tracebacks of its own
        self._connect, self._keep, self._close = connect, keep, close
        self._number = count()
        self._running: dict[Future, Job] = {}
        self._since: dict[str, float] = {}  # when a run was handed over, by key
        self._vain: Counter[str] = Counter()
        self._sign = ""
        try:
            self._client = connect()
        except _UNREACHABLE as error:
            raise ConfigError(
                f"no Dask scheduler answers ({explain(error)}); its address looks like "
                "tcp://HOST:8786"
            ) from error
        self._greet()

    def submit(self, job: Job) -> None:
        """Hand a run to the scheduler, behind those that it has."""
        self._sign = job.sign
        self._since[job.key] = time.time()
        task = self._client.submit(train, job, pure=False, priority=-next(self._number))
        self._running[task] = job

    def finished(self) -> list[tuple[Job, Outcome]]:
        """What has ended since the last call.

        Raises:
            RunError: if the scheduler is gone and does not come back in ten minutes.
        """
        time.sleep(POLL_SECONDS)
        ended: list[tuple[Job, Outcome]] = []
        for task, job in list(self._running.items()):
            if task.status not in ("finished", "error"):
                continue
            try:
                outcome = task.result()
            except (CancelledError, OSError):  # the scheduler is gone, and what it knew
                continue
            except KilledWorker:
                del self._running[task]
                if self._try_again(job):
                    continue
                outcome = _given_up(job)
            except Exception as error:
                outcome = error
            self._running.pop(task, None)
            ended.append((job, outcome))
        if self._client.status != "running" or any(t.status == "cancelled" for t in self._running):
            self._join_again()
        self._keep(len(self._running))
        return ended

    def _try_again(self, job: Job) -> bool:
        """Hand a run over once more whose workers have died, as jobs do whose time is up, unless
        that is all that happens to it."""
        state = job.store.checkpoint_folder(job.config.as_dict(), job.key)
        saved = state.stat().st_mtime if state.exists() else 0.0  # a new state is moved into it
        self._vain[job.key] += saved < self._since[job.key]
        if self._vain[job.key] >= VAIN_TRIES:
            return False
        self.submit(job)
        return True

    def stop(self) -> None:
        """Let the runs under way save their state and end, on every machine."""
        try:
            self._client.cancel(list(self._running))
            self._client.run(stop_runs, self._sign)
            self._client.close()
        except _UNREACHABLE:  # the scheduler is gone, and they with it
            self._client.close(timeout=1)
        finally:
            self._close()

    def _greet(self) -> None:
        workers = len(self._client.scheduler_info(n_workers=-1)["workers"])
        address = self._client.scheduler.address
        print(f"cluster {address}: {workers} workers; dashboard {self._client.dashboard_link}")
        if not workers:
            print(f"waiting for one: `dask worker {address} --nthreads 1`, or a job's turn")

    def _join_again(self) -> None:
        """Hand the runs that are not finished to the scheduler that comes in place of a lost one.

        A machine's worker ends with its scheduler and saves its runs' states; started again, it
        goes on from them.
        """
        print("The scheduler is gone: waiting for it to be started again, ten minutes.", flush=True)
        self._client.close(timeout=1)
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self._client = self._connect()
                break
            except _UNREACHABLE as error:
                if time.monotonic() > deadline:
                    raise RunError(
                        f"the Dask scheduler did not come back: {explain(error)}; finished runs "
                        "are stored, and the same command goes on"
                    ) from error
                time.sleep(POLL_SECONDS)
        self._greet()
        jobs, self._running = list(self._running.values()), {}
        for job in jobs:
            self.submit(job)


def scheduler(address: str) -> Cluster:
    """The cluster whose scheduler is at this address, such as tcp://HOST:8786.

    Raises:
        ConfigError: if none answers there.
    """
    # A client reconnects by itself, but to a scheduler that has forgotten its runs.
    return Cluster(lambda: Client(address, timeout=ANSWER_SECONDS))


def slurm(jobs: int, threads: int) -> Cluster:
    """A cluster of at most this many SLURM jobs, each one Dask worker that trains a run at a time.

    Queue, memory, time and devices of a job are those of `~/.config/dask/jobqueue.yaml` (section
    `jobqueue: slurm:`); without them a job asks for 8 GB and for dask-jobqueue's half an hour. A
    job that has ended is replaced while there are runs for it.

    Raises:
        ConfigError: if there is no SLURM, or it takes no job.
    """
    # To import it takes Ctrl-C away from the program (`runner.py` in 0.9): give it back.
    with handling(signal.default_int_handler, signal.SIGINT, signal.SIGTERM):
        from dask_jobqueue import SLURMCluster

    if shutil.which("sbatch") is None:
        raise ConfigError(
            "--slurm: no sbatch here; run it on a machine from which SLURM takes jobs, or name a "
            "scheduler: --scheduler tcp://HOST:8786"
        )
    asked = settings.get("jobqueue.slurm", {})
    try:
        cluster = SLURMCluster(
            cores=1,
            job_cpu=asked.get("job-cpu") or threads,
            processes=1,
            memory=asked.get("memory") or "8GB",
        )
    except _UNREACHABLE as error:
        raise ConfigError(f"SLURM takes no job: {error}") from error

    def keep(runs: int) -> None:
        wanted = min(jobs, runs)
        if len(cluster.workers) < wanted:  # never fewer: that would end a job with its run
            cluster.scale(jobs=max(wanted, len(cluster.worker_spec)))

    return Cluster(lambda: Client(cluster), keep, cluster.close)


def train(job: Job) -> Outcome:
    """Train a run in the process that this thread of a Dask worker keeps for it."""
    name = f"row {job.config.row}, seed {job.config.seed}"
    print(f"{name}: begins", flush=True)
    worker = getattr(_of_thread, "worker", None)
    if worker is None or worker.stopping or not worker.process.is_alive():
        # Under its nanny a Dask worker is a daemon, which multiprocessing lets have no children.
        current_process()._config["daemon"] = False
        worker = _of_thread.worker = Worker()
    worker.start(job)
    if worker not in _workers:
        _workers.append(worker)
    if job.sign in _ended:  # stopped in this very moment
        worker.stop()
    outcome = worker.outcome()
    finished = isinstance(outcome, Trained)
    end = ("finished" if outcome.anew else "was stored") if finished else "stopped"
    print(f"{name}: {end}", flush=True)
    return outcome


def stop_runs(sign: str) -> None:
    """End this machine's processes that work, or have worked last, for the study of a sign."""
    _ended.add(sign)
    for worker in _workers[:]:
        if worker.job.sign == sign:
            worker.stop()
            _workers.remove(worker)


def _given_up(job: Job) -> RunError:
    return RunError(
        f"row {job.config.row}, seed {job.config.seed}: the workers that trained it died, one "
        "after another, before it got any further, perhaps for want of memory: start fewer on a "
        "machine; finished runs are stored, and the same command goes on"
    )
