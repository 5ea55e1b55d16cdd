"""A process that trains one run after another, and how the study speaks with it.

The two hold the ends of a pipe. When one of them is no more, the system closes its end, and the
other one notices: a worker never outlives its study, and no result is waited for in vain.
"""

import copy
import multiprocessing
import platform
import signal
import sys
import threading
import traceback
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue

import torch

from mtl_lib.data import Corpus
from mtl_lib.errors import BusyError, HandbookError, RunError
from mtl_lib.paths import BUILD
from mtl_lib.pretrained import encoder_hash
from mtl_lib.study.checkpoint import handling
from mtl_lib.study.config import STUDY_VERSION, ExperimentConfig
from mtl_lib.study.corpora import load_corpus
from mtl_lib.study.run import run_experiment, summary
from mtl_lib.study.store import Run, RunStore, run_key

# Where a machine keeps the runs of those whose disk it does not see.
ELSEWHERE = BUILD / "runs" / "elsewhere"


@dataclass(frozen=True)
class Job:
    """A run to train, as it is handed to a process of this machine or of another one.

    Attributes:
        config: the run.
        key: as who asks for it has found it; another machine's corpus may be another one.
        data: the corpus, as `load_corpus` takes it.
        sign: path of a file beside the asker's runs. Who sees it has the same disk, and stores the
            run there; else the run is sent back.
        threads: CPU threads.
        wait: for another process that trains it.
    """

    config: ExperimentConfig
    key: str
    data: str
    sign: str
    threads: int
    wait: bool = False

    @property
    def store(self) -> RunStore:
        """Where this machine keeps the run."""
        sign = Path(self.sign)
        return RunStore(sign.parent.parent if sign.exists() else ELSEWHERE)


@dataclass(frozen=True)
class Trained:
    """A finished run.

    Attributes:
        line: what there is to say of it.
        run: the run itself, unless it stands in the asker's store.
        anew: whether it was trained now; it may have been stored already.
    """

    line: str
    run: Run | None
    anew: bool


# None: another process trains it.
Outcome = Trained | Exception | None


class Worker:
    """A process that trains what it is given; it stays for the corpus that it has tokenised."""

    job: Job | None = None
    stopping = False  # told to end: it takes no other run

    def __init__(self) -> None:
        # Spawned, not forked: a fork would inherit torch's thread pool in an unknown state.
        context = multiprocessing.get_context("spawn")
        self.pipe, end = context.Pipe()
        self.process = context.Process(target=_work, args=(end,), daemon=True)
        with handling(signal.SIG_IGN, signal.SIGINT):  # inherited: Ctrl-C is the study's to handle
            self.process.start()
        end.close()

    def start(self, job: Job) -> None:
        """Begin with a run."""
        self.job = job
        with suppress(OSError):  # killed meanwhile: `outcome` says so
            self.pipe.send(job)

    def outcome(self) -> Outcome:
        """Wait for the end of the run; if the process was killed, a `RunError`."""
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode
            killed = "perhaps for want of memory: run fewer at a time (`--jobs`)"
            return RunError(
                f"row {self.job.config.row}, seed {self.job.config.seed}: its process ended with "
                f"exit code {code}, {killed if code else 'stopped by another one'}; finished runs "
                "are stored, and the same command goes on from the last checkpoints"
            )

    def stop(self) -> None:
        """Ask the process to save the state of its run and to end."""
        self.stopping = True
        with suppress(OSError):
            self.pipe.send(None)


def _work(pipe: Connection) -> None:
    """Train what comes through the pipe until its other end is closed."""
    jobs: SimpleQueue[Job | None] = SimpleQueue()
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        threading.Thread(target=_receive, args=(pipe, jobs), daemon=True).start()
        while job := jobs.get():
            outcome = _outcome(job)
            with suppress(OSError):  # nobody waits for it any more
                pipe.send(outcome)
    except KeyboardInterrupt as stopped:
        if str(stopped):
            print(stopped, file=sys.stderr, flush=True)


def _receive(pipe: Connection, jobs: SimpleQueue[Job | None]) -> None:
    """Hand on what comes through the pipe; at its end, stop this process as by SIGTERM."""
    with suppress(EOFError, OSError):
        while job := pipe.recv():
            jobs.put(job)
    signal.raise_signal(signal.SIGTERM)  # heeded by the main thread, where it trains
    jobs.put(None)  # and where it waits


def _outcome(job: Job) -> Outcome:
    torch.set_num_threads(job.threads)
    store, config = job.store, job.config
    here = store.directory != ELSEWHERE
    try:
        corpus = _corpus(job.data)
        sha = encoder_hash(config.encoder)
        if run_key(config.as_dict(), corpus.fingerprint, sha, STUDY_VERSION) != job.key:
            raise RunError(
                f"corpus {job.data}, encoder {config.encoder} or the library differ from the "
                "asker's; install the same release and copy the same files"
            )
        anew = store.get(job.key) is None
        run = run_experiment(config, corpus, store, wait=job.wait)
        return Trained(summary(run), None if here else run, anew)
    except BusyError:
        return None
    except HandbookError as error:
        place = "" if here else f"{platform.node()}: "
        return type(error)(f"{place}row {config.row}, seed {config.seed}: {error}")
    except Exception as error:
        return _sendable(error)


def _sendable(error: Exception) -> Exception:
    """The exception with its traceback in words, which does not go through a pipe; where it does
    not either, an error of its words."""
    try:
        copy.copy(error)  # made again as at the pipe's other end
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}").with_traceback(error.__traceback__)
    error.add_note("".join(traceback.format_exception(error)))
    return error


@lru_cache(maxsize=1)
def _corpus(data: str) -> Corpus:
    return load_corpus(data)
