"""Many runs: those that are stored, and several at a time for those that are not."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Collection, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from pathlib import Path

import torch

from mtl_lib.data import Corpus
from mtl_lib.errors import BusyError, ConfigError, HandbookError, NumericalError, RunError
from mtl_lib.paths import BUILD, RESULTS
from mtl_lib.pretrained import encoder_hash
from mtl_lib.study.checkpoint import Stopped
from mtl_lib.study.config import STUDY_VERSION, ExperimentConfig
from mtl_lib.study.corpora import load_corpus
from mtl_lib.study.groups import STUDIES, choose_study
from mtl_lib.study.profiles import choose_rows, default_corpus, parse_seeds, profile_settings
from mtl_lib.study.rows import ALL_ROWS
from mtl_lib.study.run import run_experiment, summary
from mtl_lib.study.store import Run, RunStore, run_key


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

    Every argument but `rows` may be left empty for the profile's default; they are the
    parameters of the notebooks and of `make reproduce`.

    Args:
        rows: row ids, such as `FIGURE_3`.
        only: keep these of them, comma-separated: "3.1,3.2".
        profile: "stored" reads the best committed study; those of `PROFILES` train.
        data: a corpus folder, or "handbook".
        encoder: name or folder of an encoder.
        seeds: comma-separated: "0,1,2".
        max_steps: cap on the steps of a run.
        epochs: passes over the shortest training set.
        jobs: runs at a time, each in a process of its own.
        store: folder of the runs; build/runs/PROFILE by default.

    Returns:
        The runs, by row and seed.

    Raises:
        ConfigError: if a row, profile or seed does not exist.
    """
    chosen = choose_rows(rows, only)
    if profile == "stored":
        return stored_runs(chosen)
    settings = profile_settings(profile, encoder, max_steps, epochs)
    data = data or default_corpus(settings.corpus)
    store = RunStore(store or BUILD / "runs" / profile)
    configs = [
        settings.apply(ALL_ROWS[row], profile, seed)
        for row in chosen
        for seed in parse_seeds(seeds)
    ]
    if jobs < 0:
        raise ConfigError(f"jobs = {jobs}: give how many runs at a time, 0 for as the cores allow")
    jobs = jobs or max(1, (os.cpu_count() or 1) // settings.threads)
    keys = run_all(configs, data, store, jobs=jobs, threads=settings.threads, each=settings.seconds)
    return [store.get(key) for key in keys]


def stored_runs(rows: Iterable[str]) -> list[Run]:
    """The committed runs of some rows from one study: the most thorough that holds all of them,
    else the one that holds most.
    """
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
) -> list[str]:
    """Train what is not stored yet, several runs at a time, and return the keys of all.

    A finished run is stored at once, so that whatever stops the study repeats none of them.
    Rows whose task the corpus lacks (CFIMDB in the embedded corpora) are left out, with a word.

    Args:
        threads: CPU threads of each run.
        each: expected seconds of a run, for the estimate.
    """
    corpus = _corpus(data)
    missing = [c for c in configs if any(name not in corpus.splits for name in c.heads)]
    for config in missing:
        print(f"{config.row}: left out, corpus {corpus.name!r} has no {', '.join(config.heads)}")
    configs = [config for config in configs if config not in missing]
    hashes = {name: encoder_hash(name) for name in {config.encoder for config in configs}}
    keys = [
        run_key(c.as_dict(), corpus.fingerprint, hashes[c.encoder], STUDY_VERSION) for c in configs
    ]
    pending = [c for c, key in zip(configs, keys, strict=True) if store.get(key) is None]
    if pending:
        estimate = f", about {each * len(pending) / jobs / 60:.0f} minutes" if each else ""
        print(
            f"{len(configs)} runs on corpus {corpus.name!r}: {len(configs) - len(pending)} stored, "
            f"{len(pending)} to train, {jobs} at a time{estimate}",
            flush=True,
        )
        _train(pending, data, store, jobs, threads)
    return keys


def _train(configs: list, data: str, store: RunStore, jobs: int, threads: int) -> None:
    """Train in worker processes; after Ctrl-C or a fault the finished runs are stored, and of
    those under way the last state."""
    done, total, faults = 0, len(configs), []
    # Spawned, not forked: a forked child would inherit torch's thread pool in an unknown state.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(
        min(jobs, total), context, initializer=_start_worker, initargs=(threads,)
    )
    try:
        # What another process trains is left for the end: it may then be there.
        for wait in (False, True):
            futures = {pool.submit(_train_one, c, data, store, wait): c for c in configs}
            configs = []
            for future in as_completed(futures):
                try:
                    line = future.result()
                except NumericalError as fault:  # this run's alone: the others go on
                    faults.append(str(fault))
                    continue
                if line is None:
                    configs.append(futures[future])
                    continue
                done += 1
                print(f"[{done}/{total}] {line}", flush=True)
    except BrokenProcessPool as error:
        _stop(pool)
        raise RunError(
            f"a training process was killed, perhaps for want of memory; lower JOBS. {done} of "
            f"{total} runs are finished and stored in {store.directory}; the same command goes on "
            "from the last checkpoints"
        ) from error
    except KeyboardInterrupt:
        _stop(pool)
        print(f"\nStopped: {done} of {total} runs are finished and stored in {store.directory};")
        print("those under way are kept there as well. The same command goes on.", flush=True)
        raise
    except BaseException:
        _stop(pool)
        raise
    pool.shutdown()
    if faults:
        raise NumericalError("\n".join(faults))


def _start_worker(threads: int) -> None:
    torch.set_num_threads(threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    parent = multiprocessing.parent_process()

    def follow() -> None:
        parent.join()
        os._exit(1)  # a worker must not outlive a study that was killed

    threading.Thread(target=follow, daemon=True).start()


STOP_SECONDS = 60.0  # for the workers to save the state of their runs


def _stop(pool: ProcessPoolExecutor) -> None:
    """End the workers, which save the state of their runs first."""
    workers = list((pool._processes or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for worker in workers:
        worker.terminate()
    deadline = time.monotonic() + STOP_SECONDS
    for worker in workers:
        worker.join(max(0.0, deadline - time.monotonic()))
        worker.kill()


def _train_one(config: ExperimentConfig, data: str, store: RunStore, wait: bool) -> str | None:
    """One run in a worker process; returns the line that reports it, None where it is busy."""
    try:
        return summary(run_experiment(config, _corpus(data), store, wait=wait))
    except BusyError:
        return None
    except Stopped as stopped:
        print(stopped, file=sys.stderr, flush=True)
        os._exit(1)  # at once: the pool may have handed the next run to this process already
    except HandbookError as error:
        raise type(error)(f"row {config.row}, seed {config.seed}: {error}") from None


@lru_cache(maxsize=1)
def _corpus(data: str) -> Corpus:
    return load_corpus(data)
