"""The notebooks as a whole: run them all under a profile, or run them again as they stand."""

import contextlib
import hashlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, fields
from pathlib import Path
from weakref import WeakSet

import nbformat
from tqdm import tqdm

from mtl_lib.errors import ConfigError, RunError
from mtl_lib.files import write_text
from mtl_lib.handbook import mine
from mtl_lib.handbook.lint import (
    KERNEL,
    clean_notebook,
    declared_parameters,
    notebook_faults,
    read_notebook,
)
from mtl_lib.handbook.parameters import in_type, refuse_unknown
from mtl_lib.paths import BUILD, DATA, FIGURES, NOTEBOOKS
from mtl_lib.pretrained import ENCODERS
from mtl_lib.study.corpora import load_corpus
from mtl_lib.study.pool import trained_runs
from mtl_lib.study.profiles import (
    PROFILES,
    choose_rows,
    default_corpus,
    jobs_at_a_time,
    parse_seeds,
)
from mtl_lib.study.rows import ALL_ROWS, ROWS, SINGLE_TASK
from mtl_lib.study.settings import Settings

Parameters = Mapping[str, str | int]


TRAINED = (*ROWS, *SINGLE_TASK)


def reproduce(
    settings: Settings,
    *,
    parameters: Parameters | None = None,
    notebooks: str | Path = NOTEBOOKS,
    out: str | Path = BUILD / "notebooks",
) -> None:
    """Train the rows, then run every notebook, so that it evaluates and draws them; several at a
    time, as the runs are.

    Executed copies go to `out`/PROFILE, figures to figures/PROFILE. A notebook that is executed
    already, with the same parameters, source, library and data, is left out: after a fault the
    same call goes on where it stopped.

    Args:
        settings: the profile and what differs from it. Relative folders are seen from the working
            directory.
        parameters: other parameters that a notebook declares, by name.
        notebooks: folder of the notebooks, `NN_name.ipynb`.
        out: folder of the executed copies.

    Raises:
        ConfigError: if no notebook declares a parameter, its value is impossible, or the corpus
            has the tasks of none of the rows.
        RunError: if a notebook fails. The message names it, the cell and the error; the copy,
            executed as far as it got, is kept as `NN_name.failed.ipynb`.
    """
    given = {name.upper(): value for name, value in asdict(settings).items() if value}
    wanted = _checked({**given, **(parameters or {})})
    plan = _plan(wanted, _sources(notebooks))
    runs = len(_trainable(wanted)) * len(parse_seeds(wanted.get("SEEDS", "")))
    settings = _settings(wanted)
    jobs = jobs_at_a_time(settings.jobs)
    out, figures = Path(out).resolve() / wanted["PROFILE"], FIGURES / wanted["PROFILE"]
    out.mkdir(parents=True, exist_ok=True)
    record = _Record(out / "executed.json")

    print(_announcement(wanted, len(plan), runs, record.seconds(plan, jobs)), flush=True)
    # All runs first, several at a time: one notebook after the other would leave cores idle.
    trained_runs(TRAINED, settings)
    executed = []
    with mine.solved(), _Watch(len(plan)) as watch:
        inputs = _fingerprint([*_inputs(wanted), *mine.mine_folder().glob("mine.py")])

        def one(source: Path) -> None:
            given = plan[source]
            watch.start(source.stem)
            fingerprint = _fingerprint([source], f"{inputs} {sorted(given.items())}")
            if record.holds(source, fingerprint, figures):
                watch.say(f"{source.stem:<32} executed already")
                return
            started, before = time.perf_counter(), _times(figures)
            _execute(source, out / source.name, given, watch)
            seconds = time.perf_counter() - started
            executed.append(source)
            drawn = [name for name, when in _times(figures).items() if before.get(name) != when]
            record.add(source, fingerprint, seconds, drawn)
            watch.say(f"{source.stem:<32} {_clock(seconds)}")

        _several(one, plan, jobs)
    if not executed:
        print("nothing has changed since; remove the executed notebooks to execute them again")
    print(f"executed notebooks: {out}/")
    if _times(figures):
        print(f"figures: {figures}/")


def refresh(names: Iterable[str] = (), notebooks: str | Path = NOTEBOOKS) -> None:
    """Run notebooks as they stand, in the profile `stored`, and store the outputs in the sources.

    Args:
        names: how their names begin, such as "05"; all if empty.
        notebooks: their folder.

    Raises:
        ConfigError: if there is no such notebook.
        RunError: if one fails, or may not be committed as it is. Its source is as it was.
    """
    sources, names = _sources(notebooks), tuple(names)
    for name in names:
        if not any(source.name.startswith(name) for source in sources):
            raise ConfigError(f"{name}: choose from {', '.join(source.stem for source in sources)}")
    out = BUILD / "notebooks" / "stored"
    out.mkdir(parents=True, exist_ok=True)
    with mine.solved():

        def one(source: Path) -> None:
            started = time.perf_counter()
            _store_outputs(source, out / source.name)
            print(f"{source.stem:<32} {_clock(time.perf_counter() - started)}", flush=True)

        chosen = [source for source in sources if not names or source.name.startswith(names)]
        _several(one, chosen, jobs_at_a_time(0))


def _several(work: Callable[[Path], None], sources: Iterable[Path], jobs: int) -> None:
    """Do the work for each notebook, in its folder, so many at a time. After a fault, which is
    raised, none is begun, and those begun go on to their end; after Ctrl-C their kernels are
    killed."""
    sources = list(sources)
    # A kernel starts in the directory of this process, which all threads share.
    with contextlib.chdir(sources[0].parent), ThreadPoolExecutor(jobs) as pool:
        try:
            for done in as_completed([pool.submit(work, source) for source in sources]):
                done.result()
        except BaseException as fault:
            pool.shutdown(wait=False, cancel_futures=True)
            if not isinstance(fault, Exception):
                for manager in _KERNELS:
                    if manager.has_kernel:
                        manager.provisioner.process.kill()
            raise


_KERNELS = WeakSet()  # the managers of those that run


def _store_outputs(source: Path, executed: Path) -> None:
    _execute(source, executed)
    notebook = clean_notebook(read_notebook(executed))
    if faults := notebook_faults(notebook):
        raise RunError(f"{source.name}: {'; '.join(faults)}. Its outputs are not stored.")
    write_text(source, nbformat.writes(notebook) + "\n")


def _sources(notebooks: str | Path) -> list[Path]:
    found = sorted(Path(notebooks).resolve().glob("[0-9][0-9]*_*.ipynb"))
    if not found:
        raise ConfigError(f"{notebooks}: holds no notebook NN_name.ipynb")
    return found


def _checked(wanted: Parameters) -> Parameters:
    """Refuse now what a notebook would refuse after minutes, and make folders absolute."""
    wanted = dict(wanted)
    if wanted["PROFILE"] not in PROFILES:
        raise ConfigError(f"profile {wanted['PROFILE']!r}: choose from {', '.join(PROFILES)}")
    choose_rows(TRAINED, wanted.get("ROWS", ""))
    if others := set(_listed(wanted.get("ROWS", ""))) - set(TRAINED):
        names = ",".join(sorted(others))
        raise ConfigError(
            f"rows {names}: no notebook trains these; choose from {', '.join(TRAINED)}. "
            f"`mtl sweep --rows {names}` trains them"
        )
    parse_seeds(wanted.get("SEEDS", ""))
    # Notebooks run in their own folder, where a relative name would mean another one.
    for name, known in (("DATA", ["handbook"]), ("ENCODER", ENCODERS)):
        value = wanted.get(name)
        if value and value not in known:
            wanted[name] = str(Path(value).expanduser().resolve())
            if not os.path.isdir(wanted[name]):
                raise ConfigError(
                    f"{name.lower()} {value!r}: no such folder; or choose {', '.join(known)}"
                )
    return wanted


def _listed(rows: str) -> list[str]:
    return [row.strip() for row in rows.split(",") if row.strip()]


def _settings(wanted: Parameters) -> Settings:
    """The parameters that are settings of a study, each in the type of its field."""
    known = {one.name: type(one.default) for one in fields(Settings)}
    return Settings(**{n: of(wanted[n.upper()]) for n, of in known.items() if n.upper() in wanted})


def _trainable(wanted: Parameters) -> list[str]:
    """The rows that are wanted and whose tasks the corpus has."""
    profile = PROFILES[wanted["PROFILE"]]
    corpus = load_corpus(wanted.get("DATA") or default_corpus(profile.corpus))
    rows = choose_rows(TRAINED, wanted.get("ROWS", ""))
    lacking = {
        row: [task for task in ALL_ROWS[row].heads if task not in corpus.splits] for row in rows
    }
    if all(lacking.values()):
        tasks = sorted(set().union(*lacking.values()))
        raise ConfigError(
            f"rows {', '.join(rows)}: corpus {corpus.name!r} has no {', '.join(tasks)}; name a "
            "folder that has by `--data`, see `mtl data check`"
        )
    return [row for row in rows if not lacking[row]]


def _plan(wanted: Parameters, sources: list[Path]) -> dict[Path, Parameters]:
    """Which parameters each notebook is given, in the type of its stored value."""
    declared = {source: declared_parameters(source) for source in sources}
    refuse_unknown(wanted, {"PROFILE"}.union(*declared.values()))
    plan = {}
    for source, stored in declared.items():
        try:
            plan[source] = {n: in_type(n, wanted[n], stored[n]) for n in stored if n in wanted}
        except ConfigError as fault:
            raise ConfigError(f"{source.name}: {fault}") from None
    return plan


def _announcement(wanted: Parameters, notebooks: int, runs: int, last: float | None) -> str:
    estimate = "" if last is None else f"; the last time the notebooks took {_clock(last)}"
    values = ", ".join(f"{name}={value}" for name, value in wanted.items())
    return f"{notebooks} notebooks, {values}: {runs} runs{estimate}"


def _execute(source: Path, target: Path, parameters: Parameters | None = None, watch=None) -> None:
    """Run one notebook in the working directory; `target` appears once it has run to its end."""
    import papermill  # takes seconds to import, and most commands do without
    from nbclient.exceptions import DeadKernelError

    unfinished = target.with_name(f"{target.stem}.running.ipynb")
    failed = target.with_name(f"{target.stem}.failed.ipynb")
    try:
        papermill.execute_notebook(
            source,
            unfinished,
            parameters=dict(parameters or {}),
            kernel_name=KERNEL,
            kernel_manager_class=_kernel_manager(),
            language="python",
            progress_bar=False,
            stdout_file=watch,
            extra_arguments=["--log-level=CRITICAL"],  # what matters is in the notebook
        )
    except papermill.PapermillExecutionError as error:
        message = [line.strip() for line in error.evalue.splitlines() if line.strip()]
        fault = f"cell [{error.exec_count}]: {': '.join([error.ename, *message[-1:]])}"
    except DeadKernelError:
        fault = f"cell [{_cells_started(unfinished)}]: its kernel died, perhaps for want of memory"
    except RuntimeError as error:  # jupyter_client's
        fault = f"its kernel has not started: {str(error).rstrip('.')}"
    else:
        failed.unlink(missing_ok=True)
        os.replace(unfinished, target)
        return
    os.replace(unfinished, failed)
    raise RunError(
        f"{source.name}, {fault}. See {failed}. "
        "Finished runs are stored; the same command goes on from here."
    )


def _kernel_manager() -> type:
    """Starts this very interpreter, whatever kernel of the same name Jupyter would find first.

    A notebook runs in its own folder and still draws and writes where this process does. What is
    stored holds no widgets.
    """
    from ipykernel.kernelspec import get_kernel_dict
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    class ThisPython(AsyncKernelManager):
        kernel_spec = KernelSpec(
            **get_kernel_dict(),
            env={"MTL_BUILD": str(BUILD), "MTL_FIGURES": str(FIGURES), "MTL_STATIC": "1"},
        )

        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            _KERNELS.add(self)

    return ThisPython


def _cells_started(path: Path) -> int:
    cells = nbformat.read(path, as_version=4).cells
    return sum(c.cell_type == "code" and bool(c.metadata.papermill.start_time) for c in cells)


class _Record:
    """Which notebooks of a profile are executed: from what, how long it took, what was drawn."""

    def __init__(self, path: Path):
        self.path, self.lock = path, threading.Lock()
        try:
            self.entries = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            self.entries = {}

    def holds(self, source: Path, fingerprint: str, figures: Path) -> bool:
        entry = self.entries.get(source.name, {"fingerprint": None, "figures": []})
        files = [self.path.with_name(source.name), *(figures / name for name in entry["figures"])]
        return entry["fingerprint"] == fingerprint and all(file.exists() for file in files)

    def add(self, source: Path, fingerprint: str, seconds: float, figures: list[str]) -> None:
        entry = {"fingerprint": fingerprint, "seconds": round(seconds, 1), "figures": figures}
        with self.lock:
            self.entries[source.name] = entry
            write_text(self.path, json.dumps(self.entries, indent=1))

    def seconds(self, sources: Iterable[Path], jobs: int) -> float | None:
        """How long all of them took the last time, so many at a time; None if one was never
        executed."""
        entries = [self.entries.get(source.name) for source in sources]
        return None if None in entries else sum(entry["seconds"] for entry in entries) / jobs


class _Watch:
    """A line on stderr, where a person watches, with the last that the notebook printed.

    papermill copies a notebook's standard output to it, as to a file.
    """

    def __init__(self, total: int):
        self.line = tqdm(
            total=total,
            disable=not sys.stderr.isatty(),
            leave=False,
            dynamic_ncols=True,
            bar_format="{n_fmt}/{total_fmt} {desc} {elapsed}{postfix}",
        )
        self.ended = threading.Event()

    def __enter__(self):
        threading.Thread(target=self._tick, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.line.close()

    def _tick(self) -> None:
        while not self.ended.wait(1.0):
            self.line.refresh()

    def start(self, name: str) -> None:
        self.line.set_postfix_str("", refresh=False)
        self.line.set_description_str(name)

    def say(self, text: str) -> None:
        with self.line.external_write_mode():
            print(text, flush=True)
        self.line.update()

    def write(self, text: str) -> None:
        if lines := text.strip().splitlines():
            self.line.set_postfix_str(lines[-1][:60])

    def flush(self) -> None:
        pass


def _inputs(wanted: Parameters) -> list[Path]:
    """The files that an executed notebook depends on, its own source apart."""
    folders = [Path(wanted[name]) for name in ("DATA", "ENCODER") if name in wanted]
    folders = [DATA, *(folder for folder in folders if folder.is_absolute())]
    files = [file for folder in folders for file in sorted(folder.rglob("*")) if file.is_file()]
    return [*sorted(Path(__file__).parents[1].rglob("*.py")), *files]


def _fingerprint(files: Iterable[Path], start: str = "") -> str:
    digest = hashlib.sha256(start.encode())
    for path in files:
        with path.open("rb") as file:
            digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _times(folder: Path) -> dict[str, int]:
    """When each file of a folder was written; hidden ones are about to take another's place."""
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("[!.]*")}


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
