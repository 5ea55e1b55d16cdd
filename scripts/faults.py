"""Kill a study again and again, start it again, and count what was lost: `make faults`.

Two parts. One process trains a few rows and is killed (SIGKILL) at random moments; then two
processes share one store, and either of them is killed. Whatever happened, metrics, history and
predictions must be those of a study that nobody disturbed, bit for bit.
"""

import argparse
import json
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from multiprocessing import Process
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"  # before torch: threads decide the last bits
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # which cannot be used again after a fork
os.environ["MTL_CHECKPOINT_SECONDS"] = "0.1"

import torch  # noqa: E402

from mtl_lib.data import Corpus  # noqa: E402
from mtl_lib.study import run as run_module  # noqa: E402
from mtl_lib.study.checkpoint import Checkpoint  # noqa: E402
from mtl_lib.study.config import ExperimentConfig  # noqa: E402
from mtl_lib.study.corpora import load_corpus  # noqa: E402
from mtl_lib.study.profiles import PROFILES  # noqa: E402
from mtl_lib.study.rows import ROWS  # noqa: E402
from mtl_lib.study.run import run_experiment  # noqa: E402
from mtl_lib.study.store import Run, RunStore  # noqa: E402

# Plain sum, surgery, SMART with a generator of its own, a frozen encoder that remembers vectors.
STUDY = ("3.1", "3.2", "3.9", "frozen-1e-3")


class Counting(RunStore):
    """Notes every run that it stores: a second line with the same key is a run trained twice."""

    def put(self, run: Run) -> Path:
        folder = super().put(run)
        with (self.directory / "stored.log").open("a", encoding="utf-8") as log:
            log.write(f"{run.key}\n")
        return folder


class Noting(Checkpoint):
    """Notes every time that a run goes on from its checkpoint."""

    def load(self) -> dict[str, Any] | None:
        state = super().load()
        if state:
            with (self.folder.parents[1] / "resumed.log").open("a", encoding="utf-8") as log:
                log.write(f"{self.folder.name}, step {state['steps']}\n")
        return state


def small_study(rows: tuple[str, ...]) -> tuple[Corpus, list[ExperimentConfig]]:
    """Some rows of the quick profile with few examples and few steps.

    One step is trained here, so that a forked process has imported and tokenised everything.
    """
    whole = load_corpus("handbook")
    splits = {
        task: {"train": splits["train"][:160], "dev": splits["dev"][:40]}
        for task, splits in whole.splits.items()
    }
    corpus = replace(whole, splits=splits)
    quick = replace(PROFILES["quick"], encoder="tiny", max_steps=30, train_sample=40)
    configs = [quick.apply(ROWS[row], "quick") for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        run_experiment(replace(configs[0], max_steps=1), corpus, RunStore(folder))
    return corpus, configs


def start(corpus: Corpus, configs: list[ExperimentConfig], folder: Path) -> Process:
    """A process of its own that trains what is not stored yet."""
    sys.stdout.flush()
    process = Process(target=train, args=(corpus, configs, folder))
    process.start()
    return process


def train(corpus: Corpus, configs: list[ExperimentConfig], folder: Path) -> None:
    """Train what is not stored yet, without a word."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    torch.set_num_threads(1)
    vars(run_module)["Checkpoint"] = Noting
    for config in configs:
        run_experiment(config, corpus, Counting(folder))


def study_until(
    processes: int,
    corpus: Corpus,
    configs: list[ExperimentConfig],
    folder: Path,
    kills: int,
    longest: float,
) -> int:
    """Run a study to its end, killing up to `kills` processes on the way; returns how many."""
    running = [start(corpus, configs, folder) for _ in range(processes)]
    killed = 0
    seen: dict[Path, int] = {}
    while running:
        victim = running[-1]
        if killed < kills:
            time.sleep(random.uniform(0.0, longest))
            victim = random.choice(running)
            victim.kill()
        victim.join()
        running.remove(victim)
        now = finished(folder)
        for path, inode in seen.items():
            if now.get(path) != inode:
                raise SystemExit(f"{path}: a finished run was lost or written again")
        seen = now
        status = victim.exitcode or 0
        if status < 0:  # the number of the signal
            killed += 1
            running.append(start(corpus, configs, folder))
        elif status:
            raise SystemExit(f"a study failed with status {status}: see {folder}")
    return killed


def finished(folder: Path) -> dict[Path, int]:
    """The stored runs, each with the file that holds it: a new one would have another number."""
    return {path: path.stat().st_ino for path in folder.glob("[!.]*/run.json")}


def numbers(run: Run) -> str:
    """Every number of a run but its times."""
    history = [{k: v for k, v in entry.items() if k != "seconds"} for entry in run.history]
    predictions = {task: logits.tolist() for task, logits in run.predictions.items()}
    return json.dumps([run.config, run.metrics, history, predictions], sort_keys=True)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=50, help="in each of the two parts")
    parser.add_argument("--rows", default=",".join(STUDY))
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args(arguments)
    random.seed(options.seed)
    if sys.platform == "linux":  # elsewhere a fork is not safe, or there is none
        multiprocessing.set_start_method("fork")
    corpus, configs = small_study(tuple(options.rows.split(",")))
    root = Path(tempfile.mkdtemp(prefix="mtl-faults-"))

    started = time.perf_counter()
    study_until(1, corpus, configs, root / "whole", kills=0, longest=0.0)
    seconds = time.perf_counter() - started
    expected = {run.key: numbers(run) for run in RunStore(root / "whole").runs()}
    print(f"undisturbed: {len(expected)} runs in {seconds:.1f} s", flush=True)

    kills = resumes = lost = different = repeated = corrupt = rounds = 0
    for processes in (1, 2):
        left = options.kills
        while left > 0:
            rounds += 1
            folder = root / f"round-{rounds}"
            killed = study_until(processes, corpus, configs, folder, left, longest=seconds / 4)
            left, kills = left - killed, kills + killed
            runs = RunStore(folder).runs()
            found = {run.key: numbers(run) for run in runs}
            stored = (folder / "stored.log").read_text(encoding="utf-8").split()
            if (log := folder / "resumed.log").exists():
                resumes += len(log.read_text(encoding="utf-8").splitlines())
            lost += len(expected.keys() - found.keys())
            different += sum(found[key] != expected[key] for key in found.keys() & expected.keys())
            repeated += len(stored) - len(set(stored)) + len(runs) - len(found)
            corrupt += len(list(folder.glob("damaged/*")))
            corrupt += len(list(folder.glob("checkpoints/*/damaged*")))
        print(
            f"{processes} process{'es' * (processes > 1)}: killed {kills} times so far", flush=True
        )
    failed = lost + repeated + different + corrupt > 0
    if failed:
        print(f"kept to look at: {root}")
    else:
        shutil.rmtree(root)
    print(
        f"faults: {kills} kills, {resumes} resumes, {rounds} studies; {lost} runs lost, {repeated} "
        f"repeated, {different} different, {corrupt} files corrupt"
    )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
