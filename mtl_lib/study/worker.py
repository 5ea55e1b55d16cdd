"""A process that trains one run after another, and how the study speaks with it.

The two hold the ends of a pipe. When one of them is no more, the system closes its end, and the
other one notices: a worker never outlives its study, and no result is waited for in vain.
"""

import multiprocessing
import signal
import sys
import threading
import traceback
from contextlib import suppress
from functools import lru_cache
from multiprocessing.connection import Connection
from queue import SimpleQueue

import torch

from mtl_lib.data import Corpus
from mtl_lib.errors import BusyError, HandbookError, RunError
from mtl_lib.study.checkpoint import handling
from mtl_lib.study.config import ExperimentConfig
from mtl_lib.study.corpora import load_corpus
from mtl_lib.study.run import run_experiment, summary
from mtl_lib.study.store import RunStore

Job = tuple[ExperimentConfig, bool]  # and whether to wait for another process that trains it


class Worker:
    """A process that trains what it is given; it stays for the corpus that it has tokenised.

    To close `pipe` is to end it: it saves the state of the run under way first.

    Args:
        data: the corpus, as `load_corpus` takes it.
        store: where its runs go.
        threads: CPU threads of a run.
    """

    def __init__(self, data: str, store: RunStore, threads: int):
        # Spawned, not forked: a fork would inherit torch's thread pool in an unknown state.
        context = multiprocessing.get_context("spawn")
        self.pipe, end = context.Pipe()
        self.process = context.Process(target=_work, args=(end, data, store, threads), daemon=True)
        with handling(signal.SIG_IGN, signal.SIGINT):  # inherited: Ctrl-C is the study's to handle
            self.process.start()
        end.close()

    def start(self, task: Job) -> None:
        """Begin with a run."""
        self.config = task[0]
        with suppress(OSError):  # killed meanwhile: `outcome` says so
            self.pipe.send(task)

    def outcome(self) -> str | None:
        """Wait for the end of the run: its line, or None where another process trains it.

        Raises:
            RunError: if the process was killed; else what the run has raised.
        """
        try:
            outcome = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode
            killed = "perhaps for want of memory: run fewer at a time (`--jobs`)"
            raise RunError(
                f"row {self.config.row}, seed {self.config.seed}: its process ended with exit code "
                f"{code}, {killed if code else 'stopped by another one'}; finished runs are "
                "stored, and the same command goes on from the last checkpoints"
            ) from None
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


def _work(pipe: Connection, data: str, store: RunStore, threads: int) -> None:
    """Train what comes through the pipe until its other end is closed."""
    tasks: SimpleQueue[Job | None] = SimpleQueue()
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        torch.set_num_threads(threads)
        threading.Thread(target=_receive, args=(pipe, tasks), daemon=True).start()
        while task := tasks.get():
            outcome = _outcome(data, store, *task)
            with suppress(OSError):  # nobody waits for it any more
                pipe.send(outcome)
    except KeyboardInterrupt as stopped:
        if str(stopped):
            print(stopped, file=sys.stderr, flush=True)


def _receive(pipe: Connection, tasks: SimpleQueue[Job | None]) -> None:
    """Hand on what comes through the pipe; once it is closed, end this process as by SIGTERM."""
    with suppress(EOFError, OSError):
        while True:
            tasks.put(pipe.recv())
    signal.raise_signal(signal.SIGTERM)  # heeded by the main thread, where it trains
    tasks.put(None)  # and where it waits


def _outcome(
    data: str, store: RunStore, config: ExperimentConfig, wait: bool
) -> str | Exception | None:
    try:
        return summary(run_experiment(config, _corpus(data), store, wait=wait))
    except BusyError:
        return None
    except HandbookError as error:
        return type(error)(f"row {config.row}, seed {config.seed}: {error}")
    except Exception as error:
        error.add_note(traceback.format_exc())  # a traceback does not go through a pipe
        return error


@lru_cache(maxsize=1)
def _corpus(data: str) -> Corpus:
    return load_corpus(data)
