"""The GPU ticket: the study's queue on a GPU machine that is lent for minutes.

Such a machine has no network, gets the tracked files of this repository and a few more, and gives
back a few files. Three commands, in this order:

    python scripts/gpu_ticket.py prepare --data FOLDER    here: packs corpora and encoder
    python scripts/gpu_ticket.py run --minutes 9          there: measures a step, trains, packs
    python scripts/gpu_ticket.py unpack ARCHIVE           here: the finished runs into build/study

`mtl study collect` then commits the runs. What is packed is cut into parts, each as large as may
travel beside the tracked files at a time; `run` wants all of them in one folder. There, the
repository need not be installed: `PYTHONPATH=. python3 scripts/gpu_ticket.py run` will do.

The weights travel rounded to float16, half the size: `minilm-l6-fp16`, an encoder of its own, whose
runs stand beside those of `minilm-l6` and are never counted among them. `prepare --encoder
minilm-l6` sends the exact ones, in more parts. Checkpoints of runs that were stopped stay there:
they are ten times what comes back.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import zlib
from dataclasses import replace
from pathlib import Path
from typing import IO

STARTED = time.monotonic()  # before torch, whose import takes part of a lent machine's time

import torch  # noqa: E402

from mtl_lib.errors import ConfigError, HandbookError, RunError, explain  # noqa: E402
from mtl_lib.files import replacing, write_text  # noqa: E402
from mtl_lib.paths import BUILD, ROOT  # noqa: E402
from mtl_lib.pretrained import ENCODERS, fetch_encoder  # noqa: E402
from mtl_lib.study import pool  # noqa: E402
from mtl_lib.study import run as run_module  # noqa: E402
from mtl_lib.study.config import ExperimentConfig  # noqa: E402
from mtl_lib.study.corpora import load_corpus  # noqa: E402
from mtl_lib.study.pool import TimeUp, run_all  # noqa: E402
from mtl_lib.study.profiles import jobs_at_a_time  # noqa: E402
from mtl_lib.study.queue import FOLDER, Study, queue  # noqa: E402
from mtl_lib.study.settings import add_flags  # noqa: E402
from mtl_lib.study.store import Run, RunStore, run_key  # noqa: E402

TICKET = BUILD / "ticket"
ARCHIVE = "gpu-ticket.tar.gz"
MIB = 2**20
SLACK = 2 * MIB  # of what may travel, left free: the tracked files grow
RESERVE = 40.0  # seconds before the time is over at which the runs are stopped
PACK_SECONDS = 30.0  # between two archives, so that a machine taken away leaves one
STEP_SECONDS = 20.0  # of measuring, once the models stand
JOBS = 6  # runs at a time on a GPU: one alone leaves most of it idle


def prepare(data: str, folder: Path, encoder: str, limit: float) -> list[Path]:
    """Pack corpora and encoder into parts that fit beside the tracked files.

    Args:
        data: a corpus folder, or "handbook", which is tracked.
        folder: where the parts are written, in the place of those before.
        limit: MiB that may travel at a time, the tracked files among them.

    Raises:
        CorpusError, EncoderError: if there is no such corpus or encoder.
        ConfigError: if the tracked files leave no room.
    """
    room = int(limit * MIB) - _tracked_bytes() - SLACK
    if room < MIB:
        raise ConfigError(
            f"{ROOT}: its tracked files take {_tracked_bytes() / MIB:.1f} of --limit {limit:g} MiB;"
            " raise it if the machine takes more, or prepare in a checkout without data/results"
        )
    corpus = load_corpus(data)  # a damaged one is found out here
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("part-*-of-*"):
        old.unlink()
    with tempfile.TemporaryFile() as packed:
        with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=6) as archive:
            words = folder / "ticket.json"
            write_text(words, json.dumps({"corpus": corpus.name, "encoder": encoder}) + "\n")
            archive.add(words, words.name)
            words.unlink()
            for name in corpus.files if corpus.name != "handbook" else ():
                archive.add(Path(data).expanduser() / name, f"corpora/{corpus.name}/{name}")
            if ENCODERS[encoder].repository:  # the others are tracked
                whole = fetch_encoder(encoder)
                for name in ENCODERS[encoder].files:
                    archive.add(whole / name, f"encoders/{encoder}/{name}")
        count = -(-packed.tell() // room)
        packed.seek(0)
        parts = [folder / f"part-{number}-of-{count}" for number in range(1, count + 1)]
        for part in parts:
            with replacing(part) as unfinished:
                unfinished.write_bytes(packed.read(room))
    return parts


def _tracked_bytes() -> int:
    """Bytes of the files that travel by themselves: tracked ones, and new ones not ignored."""
    git = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(git, capture_output=True, check=False)
    if done.returncode:
        why = done.stderr.decode(errors="replace").strip()
        raise ConfigError(f"{ROOT}: no git checkout ({why}); prepare in one")
    paths = (ROOT / os.fsdecode(name) for name in set(done.stdout.split(b"\0")) if name)
    return sum(path.lstat().st_size for path in paths if path.is_file())


def open_ticket(folder: Path) -> tuple[str, str]:
    """Put the parts together in `folder/open` and use the encoder in them.

    Returns:
        The corpus, as `load_corpus` takes it, and the encoder's name.

    Raises:
        ConfigError: if a part is missing or damaged.
    """
    parts = list(folder.glob("part-*-of-*"))
    counts = {part.name.rpartition("-")[2] for part in parts}
    wanted = int(counts.pop()) if len(counts) == 1 else 0
    if not wanted or len(parts) != wanted:
        names = ", ".join(sorted(part.name for part in parts)) or "nothing"
        raise ConfigError(
            f"{folder}: holds {names}, not every part of one ticket; copy all that "
            "`gpu_ticket.py prepare` wrote there"
        )
    parts.sort(key=lambda part: int(part.name.split("-")[1]))
    opened = folder / "open"
    for name in ("corpora", "encoders"):
        shutil.rmtree(opened / name, ignore_errors=True)
    opened.mkdir(exist_ok=True)
    with tempfile.TemporaryFile() as packed:
        for part in parts:
            packed.write(part.read_bytes())
        packed.seek(0)
        _extract(packed, opened, f"{folder}/part-*", "run `gpu_ticket.py prepare` again")
    words = json.loads((opened / "ticket.json").read_text(encoding="utf-8"))
    if (opened / "encoders").is_dir():
        os.environ["MTL_CACHE"] = str(opened / "encoders")  # of the training processes too
    corpus = opened / "corpora" / words["corpus"]
    return str(corpus) if corpus.is_dir() else words["corpus"], words["encoder"]


def _extract(packed: IO[bytes], folder: Path, name: str, remedy: str) -> None:
    """Unpack a tar file; none of it outside of the folder, no links out of it, no devices."""
    try:
        with tarfile.open(fileobj=packed, mode="r:gz") as archive:
            archive.extractall(folder, filter="data")
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise ConfigError(f"{name}: cannot be unpacked ({explain(error)}); {remedy}") from error


def run(options: argparse.Namespace) -> None:
    """Measure a step, train what the time allows, and leave one archive of what is finished."""
    jobs = jobs_at_a_time(options.jobs or (JOBS if torch.cuda.is_available() else 0))
    seconds = 60 * options.minutes
    reserve = min(RESERVE, seconds / 4)
    pool.STOP_SECONDS = reserve / 2  # the rest is for the archive
    out, opened = options.out, options.folder / "open"
    data, encoder = open_ticket(options.folder)
    out.mkdir(parents=True, exist_ok=True)
    study = Study(queue(options.profile, options.rows, options.seeds), data, encoder, folder=opened)
    done = {} if options.max_steps else study.done()
    left = [config for key, config in study.configs.items() if key not in done]
    if options.max_steps:
        left = [replace(config, max_steps=options.max_steps) for config in left]
    print(f"{len(left)} runs left, encoder {encoder}, {run_module.hardware()}", flush=True)
    _measure_step(opened / "step.json", min(options.step_seconds, seconds / 4))
    ended = threading.Event()
    packing = threading.Thread(target=_keep_packed, args=(opened, out, ended))
    packing.start()
    try:
        remaining = STARTED + seconds - reserve - time.monotonic()
        train_in_time(left, data, study.store, jobs, remaining)
    finally:
        ended.set()
        packing.join()
        count = pack(opened, out)
        size = (out / ARCHIVE).stat().st_size / MIB
        print(f"{out / ARCHIVE}: {count} runs, {size:.1f} MiB", flush=True)
        print(f"{time.monotonic() - STARTED:.0f} of {seconds:.0f} seconds", flush=True)


def train_in_time(
    configs: list[ExperimentConfig], data: str, store: RunStore, jobs: int, seconds: float
) -> None:
    """Train in order, `jobs` at a time, until all is done or the time is over.

    Each finished run is stored at once. Those under way at the end are asked to stop and save
    their state, as by Ctrl-C.
    """

    try:
        until = time.monotonic() + max(0.1, seconds)
        run_all(configs, data, store, jobs=jobs, threads=1, until=until)
    except TimeUp:
        print("The time is over.", flush=True)


def pack(opened: Path, out: Path) -> int:
    """Write the archive, whole or not at all; returns how many finished runs it holds."""
    runs = sorted(path.parent for path in (opened / "runs").glob("[!.]*/run.json"))
    paths = [*runs, *sorted((opened / "runs" / "splits").glob("[!.]*.npz")), opened / "step.json"]
    with replacing(out / ARCHIVE) as unfinished, tarfile.open(unfinished, "w:gz") as archive:
        for path in filter(Path.exists, paths):
            archive.add(path, path.relative_to(opened).as_posix())
    return len(runs)


def _keep_packed(opened: Path, out: Path, ended: threading.Event) -> None:
    while not ended.wait(PACK_SECONDS):
        pack(opened, out)


def _measure_step(path: Path, seconds: float) -> None:
    """Time a step in a process of its own, whose memory is free again before the runs start."""
    path.unlink(missing_ok=True)
    if not seconds:
        return
    command = [sys.executable, __file__, "step", "--out", str(path)]
    try:
        subprocess.run(command, check=False, timeout=seconds)
    except subprocess.TimeoutExpired:
        print(f"step: not measured within {seconds:.0f} seconds", flush=True)


def step(path: Path) -> None:
    """One multi-task step with gradient surgery at BERT-base size, random weights, batch 8 x 3.

    As `benchmarks/step.py` measures ours, which cannot run without the packages it compares with.
    """
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from common import DEVICE, encoder_config, machine, random_splits, summary, timed

    from mtl_lib.bert import BertModel
    from mtl_lib.fast.fused import FusedAdamW
    from mtl_lib.model import HeadConfig, MultitaskModel
    from mtl_lib.tasks import TASKS
    from mtl_lib.trainer import Trainer
    from mtl_lib.weighting import pcgrad_weights

    cuda = DEVICE.type == "cuda"
    splits, candidates = random_splits(400), {}
    for precision in ("float32", "bfloat16") if cuda else ("float32",):
        torch.manual_seed(0)
        heads = {task.name: HeadConfig() for task in TASKS}
        model = MultitaskModel(BertModel(encoder_config("bert-base")), heads).to(DEVICE)
        model.low_precision = precision == "bfloat16"
        optimizer = FusedAdamW(model.parameters(), lr=1e-5)
        trainer = Trainer(
            model,
            splits,
            optimizer=optimizer,
            weighting=pcgrad_weights,
            batch_size=8,
            seed=0,
            engine="fast",
        )
        candidates[precision] = trainer.step
    for _ in range(10 if cuda else 1):  # to warm up
        for call in candidates.values():
            timed(call)
    times: dict[str, list[float]] = {name: [] for name in candidates}
    end = time.monotonic() + STEP_SECONDS
    while time.monotonic() < end:
        for name, call in candidates.items():
            times[name].append(timed(call))
    rows = summary(times)
    for row in rows:
        print(f"step, bert-base, batch 8 x 3, surgery: {row['method']} {row['median ms']} ms")
    words = {"machine": machine(), "rounds": len(times["float32"]), "tables": {}}
    words["tables"]["bert-base, batch 8 x 3, this library, surgery"] = rows
    if cuda:  # of both models together
        words["peak_memory_mb"] = torch.cuda.max_memory_allocated() // MIB
    write_text(path, json.dumps(words, indent=1) + "\n")


def unpack(archive: Path, store: RunStore) -> list[Run]:
    """Put the runs of an archive into a store; returns those that it did not have.

    Raises:
        ConfigError: if the archive cannot be read or reaches out of its folder.
        RunError: if a run in it is damaged, or is not what its key says; nothing is then stored.
    """
    remedy = "take the file that `gpu_ticket.py run` left, copied whole"
    with tempfile.TemporaryDirectory() as folder:
        try:
            with archive.open("rb") as packed:
                _extract(packed, Path(folder), str(archive), remedy)
        except OSError as error:
            raise ConfigError(f"{archive}: cannot be read ({explain(error)}); {remedy}") from error
        count = len(list(Path(folder, "runs").glob("[!.]*/run.json")))
        runs = RunStore(Path(folder, "runs")).runs()
        if len(runs) != count:
            raise RunError(f"{archive}: {count - len(runs)} of {count} runs are damaged; {remedy}")
        for one in runs:
            known = one.provenance
            parts = (known["corpus"]["fingerprint"], known["encoder"]["sha256"])
            if one.key != run_key(one.config, *parts, known["study_version"]):
                raise RunError(f"{archive}: run {one.key} is not what its key says; {remedy}")
        new = [one for one in runs if store.get(one.key) is None]
        for one in new:
            store.put(one)
        if (measured := Path(folder, "step.json")).is_file():
            write_text(store.directory.parent / "gpu_step.json", measured.read_text("utf-8"))
        return new


def main(arguments: list[str] | None = None) -> int:
    """One command; returns the exit status. Expected faults are one line on stderr."""
    options = _parser().parse_args(arguments)
    try:
        options.call(options)
    except HandbookError as error:
        print("gpu_ticket:", *str(error).splitlines(), file=sys.stderr)
        return 1
    except OSError as error:
        print(f"gpu_ticket: {error.filename}: {explain(error)}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="prepare|run|unpack")
    packing = commands.add_parser("prepare")
    packing.add_argument("--data", required=True, help="corpus folder, or handbook")
    packing.add_argument("--folder", type=Path, default=TICKET, help="an ignored one")
    packing.add_argument("--encoder", default="minilm-l6-fp16", choices=list(ENCODERS))
    packing.add_argument("--limit", type=float, default=64, help="MiB that travel at a time")
    packing.set_defaults(call=_prepare)

    running = commands.add_parser("run")
    running.add_argument("--minutes", type=_positive, required=True)
    running.add_argument("--folder", type=Path, default=TICKET, help="with all parts")
    running.add_argument("--out", type=Path, default=TICKET / "out", help="where the archive goes")
    add_flags(running, "profile", "rows", "seeds", "max_steps", "jobs", profile="")
    running.add_argument("--step-seconds", type=float, default=60, help="at most; 0: none")
    running.set_defaults(call=run)

    measuring = commands.add_parser("step")  # what `run` starts first
    measuring.add_argument("--out", type=Path, required=True)
    measuring.set_defaults(call=lambda o: step(o.out))

    receiving = commands.add_parser("unpack")
    receiving.add_argument("archive", type=Path)
    receiving.add_argument("--store", type=Path, default=FOLDER / "runs")
    receiving.set_defaults(call=_unpack)
    return parser


def _positive(words: str) -> float:
    if not 0 < (value := float(words)) < 1e6:
        raise argparse.ArgumentTypeError(f"{words}: give a number of minutes above 0")
    return value


def _prepare(options: argparse.Namespace) -> None:
    parts = prepare(options.data, options.folder, options.encoder, options.limit)
    print(
        f"{_tracked_bytes() / MIB:.1f} MiB are tracked and travel each time; beside them, in turn:"
    )
    for part in parts:
        print(f"{part}: {part.stat().st_size / MIB:.1f} MiB")


def _unpack(options: argparse.Namespace) -> None:
    new = unpack(options.archive, RunStore(options.store))
    for one in new:
        print(run_module.summary(one))
    print(f"{len(new)} new runs in {options.store}")


if __name__ == "__main__":
    sys.exit(main())
