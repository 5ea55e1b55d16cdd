"""The study as a queue: which runs, in which order, from which code, and what is done of them.

    mtl study run          goes through the runs, at low priority; stop and start it at will
    mtl study status       what is done, running, begun and left
    mtl study collect      copies finished runs into data/results/

The runs are computed by a checkout of one commit in build/study/code, made when the queue is
first started, so that later changes of the code do not change what it computes. Remove that folder
to go on with the present commit.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from mtl_lib.errors import ConfigError
from mtl_lib.paths import BUILD, FETCHED, RESULTS, ROOT
from mtl_lib.pretrained import encoder_hash
from mtl_lib.study.checkpoint import handling
from mtl_lib.study.config import STUDY_VERSION, ExperimentConfig
from mtl_lib.study.corpora import load_corpus
from mtl_lib.study.pool import run_all
from mtl_lib.study.profiles import (
    ALL_PROFILES,
    PROFILES,
    choose_rows,
    jobs_at_a_time,
    parse_seeds,
    profile_settings,
)
from mtl_lib.study.rows import ALL_ROWS, FIGURE_3, FIGURE_4, FORENSIC, FROZEN, SINGLE_TASK
from mtl_lib.study.store import RunStore, run_key

FOLDER = BUILD / "study"

# The rows that carry the story come first; then the figures, the hypotheses, and more seeds.
_KEY_ROWS = (*reversed(FROZEN), "3.1", "3.2", "3.10", "4.6")
_OTHER_ROWS = tuple(row for row in (FIGURE_3 | FIGURE_4) if row not in _KEY_ROWS)
_CONVERGED = tuple(row for row in PROFILES["converged"].rows if not ALL_ROWS[row].without)
_WITHOUT = tuple(row for row in PROFILES["converged"].rows if ALL_ROWS[row].without)


def _each(profile: str, rows: Iterable[str], *seeds: int) -> list[tuple[str, str, int]]:
    return [(profile, row, seed) for seed in seeds for row in rows]


# Profile, row and seed of each run of the study.
QUEUE = (
    *_each("paper", (*_KEY_ROWS, *_OTHER_ROWS, *FORENSIC), 0),
    *_each("paper", _KEY_ROWS, 1, 2),
    *_each("converged", _CONVERGED, 0),
    *_each("converged", _WITHOUT, 0),
    *_each("converged", _CONVERGED, 1, 2),
    *_each("paper", SINGLE_TASK, 0),
    *_each("paper", (*_OTHER_ROWS, *FORENSIC), 1, 2),
)


def queue(profile: str = "", rows: str = "", seeds: str = "") -> list[tuple[str, str, int]]:
    """The runs in their order: all of `QUEUE`, or a profile's rows with the seeds given.

    Args:
        profile: its rows, whether in `QUEUE` or not; empty for the whole queue.
        rows: keep these, comma-separated.
        seeds: these, comma-separated; without a profile, keep these.

    Raises:
        ConfigError: if there is no such profile, row or seed, or none of these runs.
    """
    if profile:
        profile_settings(profile)
        chosen = choose_rows(ALL_PROFILES[profile].rows, rows)
        found = _each(profile, chosen, *parse_seeds(seeds))
    else:
        kept = choose_rows(dict.fromkeys(row for _, row, _ in QUEUE), rows)
        numbers = parse_seeds(seeds) if seeds else {seed for *_, seed in QUEUE}
        found = [entry for entry in QUEUE if entry[1] in kept and entry[2] in numbers]
    if not found:
        of = f"profile {profile}" if profile else "the study"
        raise ConfigError(f"{of} has no run of rows {rows}, seeds {seeds or 'of its own'}")
    return found


class Study:
    """The runs of a queue on one corpus, and where they stand.

    Args:
        entries: profile, row and seed of each run, as `queue` gives them.
        data: a corpus folder, or "handbook".
        encoder: name or folder of an encoder; the profiles' if empty.
        folder: where runs under way and finished ones are kept.
        results: where those are committed, by profile.

    Raises:
        CorpusError: if there is no such corpus.
        ConfigError: if it lacks the tasks of every run.
    """

    def __init__(
        self,
        entries: list[tuple[str, str, int]],
        data: str,
        encoder: str = "",
        folder: Path = FOLDER,
        results: Path = RESULTS,
    ):
        self.data, self.store, self.results = data, RunStore(folder / "runs"), results
        corpus = load_corpus(data)
        self.configs: dict[str, ExperimentConfig] = {}  # by key
        for profile, row, seed in entries:
            config = profile_settings(profile, encoder).apply(ALL_ROWS[row], profile, seed)
            if all(name in corpus.splits for name in config.heads):
                sha = encoder_hash(config.encoder)
                key = run_key(config.as_dict(), corpus.fingerprint, sha, STUDY_VERSION)
                self.configs[key] = config
        if not self.configs:
            raise ConfigError(f"corpus {corpus.name!r} has no task of these runs")

    def done(self) -> dict[str, float]:
        """Keys of the finished runs, committed or not, and the seconds that each took."""
        found = {}
        for key, config in self.configs.items():
            run = RunStore(self.results / config.profile).get(key) or self.store.get(key)
            if run:
                found[key] = run.provenance["seconds"]
        return found

    def status(self) -> str:
        """One line a run that is under way, and one for all: done, running, begun, left, hours."""
        done = self.done()
        states = {key: "done" if key in done else self._state(key) for key in self.configs}
        lines = [
            f"{states[key]:<8} {config.profile} {config.row}, seed {config.seed}"
            for key, config in self.configs.items()
            if states[key] in ("running", "begun")
        ]
        count = Counter(states.values())
        hours = sum(self._expected(key, done) for key in states.keys() - done.keys()) / 3600
        words = [f"{count[state]} {state}" for state in ("done", "running", "begun", "left")]
        at_a_time = max(1, count["running"])
        words.append(f"about {hours / at_a_time:.1f} hours to go, {at_a_time} at a time")
        return "\n".join([*lines, f"{len(states)} runs: {', '.join(words)}"])

    def _state(self, key: str) -> str:
        """ "running", "begun" (a checkpoint is there) or "left"."""
        if self.store.busy(key):
            return "running"
        checkpoint = self.store.checkpoint_folder(self.configs[key].as_dict(), key)
        return "begun" if checkpoint.exists() else "left"

    def _expected(self, key: str, done: dict[str, float]) -> float:
        """Seconds that a run should take: as its row did with other seeds, else the profile's."""
        config = self.configs[key]
        like = [
            seconds
            for other, seconds in done.items()
            if (self.configs[other].profile, self.configs[other].row)
            == (config.profile, config.row)
        ]
        return sum(like) / len(like) if like else ALL_PROFILES[config.profile].seconds

    def run(self, jobs: int = 0) -> None:
        """Train what is not done, in order; a finished run is stored at once.

        Args:
            jobs: runs at a time, each on one core; 0 for as many as there are cores.

        Raises:
            ConfigError: if `jobs` is below 0.
        """
        jobs = jobs_at_a_time(jobs)
        print(self.status(), flush=True)
        done = self.done()
        left = [config for key, config in self.configs.items() if key not in done]
        run_all(left, self.data, self.store, jobs=jobs, threads=1)


def collect(folder: Path = FOLDER, results: Path = RESULTS) -> list[Path]:
    """Copy finished runs into the committed studies, by profile; returns their new folders.

    Runs that were cut short (`max_steps`) are of no study and stay where they are.
    """
    copied = []
    for run in RunStore(folder / "runs").runs():
        study = RunStore(results / run.config["profile"])
        if not run.config["max_steps"] and study.get(run.key) is None:
            copied.append(study.put(run))
    return copied


def corpus_for(entries: list[tuple[str, str, int]], data: str = "") -> str:
    """The corpus of a queue, a folder as an absolute path: the one named, else its profiles'.

    Raises:
        ConfigError: if none is named and the profiles stand on different ones; if there is no such
            folder.
    """
    corpora = {ALL_PROFILES[profile].corpus for profile, *_ in entries}
    if not data and len(corpora) != 1:
        raise ConfigError(
            f"the profiles stand on {sorted(corpora)}: name a corpus (`--data`) or one of "
            "them (`--profile`)"
        )
    if "handbook" in (data, *corpora) and data in ("", "handbook"):
        return "handbook"
    folder = Path(data).expanduser() if data else FETCHED
    if not folder.is_dir():
        raise ConfigError(
            f"{folder}: no such folder; the study stands on the real corpora: get them with "
            "`mtl data fetch`, or name a folder by `--data`"
        )
    return str(folder.resolve())


def fixed_code(folder: Path = FOLDER) -> Path:
    """The queue's own checkout, made of the present commit where there is none.

    Raises:
        ConfigError: if this is no git checkout.
    """
    code = folder / "code"
    if code.is_dir():
        return code
    making = code.with_name("code.unfinished")  # whoever is killed here leaves no half of it
    shutil.rmtree(making, ignore_errors=True)
    add = ["add", "--detach", str(making), "HEAD"]
    for command in (["prune"], add, ["move", str(making), str(code)]):
        git = ["git", "-C", str(ROOT), "worktree", *command]
        done = subprocess.run(
            git, capture_output=True, encoding="utf-8", errors="replace", check=False
        )
        if done.returncode:
            raise ConfigError(
                f"{ROOT}: the study keeps its code apart in a checkout of its own, and git cannot "
                f"make one ({done.stderr.strip()}); clone the repository, then start it there"
            )
    return code


def become(arguments: list[str], code: Path) -> int:
    """Go on as `mtl` with these arguments, run by another checkout's code.

    Returns:
        Its exit status, where the system cannot replace a process and it runs beside this one.
    """
    environment = os.environ | {"PYTHONPATH": str(code), "MTL_BUILD": str(BUILD)}
    program = "import sys; from mtl_lib.cli import main; sys.exit(main())"
    # -P: else Python would look for the library in the working directory first.
    command = [sys.executable, "-P", "-c", program, *arguments]
    if hasattr(os, "nice"):  # behind everything else that the machine does
        os.nice(15)
    sys.stdout.flush()
    if sys.platform != "win32":
        os.execve(sys.executable, command, environment)
    with handling(signal.SIG_IGN, signal.SIGINT):  # Ctrl-C reaches both and is the other's
        return subprocess.run(command, env=environment, check=False).returncode
