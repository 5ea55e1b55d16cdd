"""Runs on the machines of a Dask cluster: one that is there, or jobs of SLURM.

Every Dask worker hands its runs to a process of its own, the one that the study of a single machine
uses (`worker.py`). So the death of a Dask worker ends its run with the state saved where the disk
outlives it, and Dask gives the run to another worker. Machines that see the asker's disk store the
run there; the others send it back.
"""

import shutil
import threading
import time
from collections.abc import Callable
from itertools import count
from multiprocessing import current_process
from pathlib import Path

from dask import config as settings
from distributed import Client, KilledWorker
from distributed.client import Future

from mtl_lib.errors import ConfigError, RunError, explain
from mtl_lib.study.worker import Job, Outcome, Trained, Worker

POLL_SECONDS = 0.5
PATIENCE = 600.0  # seconds for a scheduler that is gone to come back

# Of a Dask worker: the process of each of its threads.
_of_thread = threading.local()
_workers: list[Worker] = []


class Cluster:
    """An executor of the study (`pool.Executor`) whose runs are a Dask cluster's tasks.

    Args:
        connect: gives a client of the cluster, or raises OSError while it is not there.
        close: ends the cluster, if it is the study's own.
    """

    def __init__(
        self, connect: Callable[[], Client], close: Callable[[], None] = lambda: None
    ) -> None:
        self._connect, self._close = connect, close
        self._number = count()
        self._running: dict[Future, Job] = {}
        try:
            self._client = connect()
        except OSError as error:
            raise ConfigError(f"no Dask scheduler answers: {explain(error)}") from error
        self._greet()

    def submit(self, job: Job) -> None:
        """Hand a run to the scheduler, behind those that it has."""
        self._sign = job.sign
        task = self._client.submit(train, job, pure=False, priority=-next(self._number))
        self._running[task] = job

    def finished(self) -> list[tuple[Job, Outcome]]:
        """What has ended since the last call.

        Raises:
            RunError: if the scheduler is gone and does not come back in ten minutes.
        """
        time.sleep(POLL_SECONDS)
        ended = []
        for task in [task for task in self._running if task.status == "finished"]:
            try:
                outcome = task.result()
            except Exception:  # the scheduler is gone, and what it knew
                break
            ended.append((self._running.pop(task), outcome))
        for task in [task for task in self._running if task.status == "error"]:
            job = self._running.pop(task)
            ended.append((job, _explained(task.exception(), job)))
        if self._client.status != "running" or any(t.status == "cancelled" for t in self._running):
            self._join_again()
        return ended

    def stop(self) -> None:
        """Let the runs under way save their state and end, on every machine."""
        try:
            self._client.cancel(list(self._running))
            self._client.run(stop_runs, self._sign)
            self._client.close()
        except (OSError, RuntimeError, ValueError):  # the scheduler is gone, and they with it
            self._client.close(timeout=1)
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
            except OSError as error:
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
    """The cluster whose scheduler is at this address, such as tcp://10.0.0.5:8786.

    Raises:
        ConfigError: if none answers there within ten seconds.
    """
    # A client reconnects by itself, but to a scheduler that has forgotten its runs.
    return Cluster(lambda: Client(address, timeout=10))


def slurm(jobs: int, threads: int) -> Cluster:
    """A cluster of this many SLURM jobs, each one Dask worker that trains one run at a time.

    Queue, memory, time and devices of a job are those of `~/.config/dask/jobqueue.yaml` (section
    `jobqueue: slurm:`); without them a job asks for 8 GB and for dask-jobqueue's half an hour.

    Raises:
        ConfigError: if there is no SLURM, or it takes no job.
    """
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
        cluster.scale(jobs=jobs)
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError(f"SLURM takes no job: {error}") from error
    return Cluster(lambda: Client(cluster), cluster.close)


def train(job: Job) -> Outcome:
    """Train a run in the process that this thread of a Dask worker keeps for it."""
    worker = getattr(_of_thread, "worker", None)
    if worker is None or not worker.process.is_alive():
        # Under its nanny a Dask worker is a daemon, which multiprocessing lets have no children.
        current_process()._config["daemon"] = False
        worker = _of_thread.worker = Worker()
        _workers.append(worker)
    name = f"row {job.config.row}, seed {job.config.seed}"
    print(f"{name}: begins", flush=True)
    worker.start(job)
    outcome = worker.outcome()
    finished = isinstance(outcome, Trained)
    end = ("finished" if outcome.anew else "was stored") if finished else "stopped"
    print(f"{name}: {end}", flush=True)
    return outcome


def stop_runs(sign: Path) -> None:
    """End this machine's processes that work, or have worked last, for the study of a sign."""
    for worker in _workers[:]:
        if worker.job.sign == sign:
            worker.stop()
            _workers.remove(worker)


def _explained(error: BaseException, job: Job) -> Exception:
    """What a user can do about a task that Dask gave up."""
    if isinstance(error, KilledWorker):
        return RunError(
            f"row {job.config.row}, seed {job.config.seed}: the workers that trained it died, one "
            "after another, perhaps for want of memory: start fewer on a machine; finished runs "
            "are stored, and the same command goes on"
        )
    return error
