"""The `mtl` command: everything the notebooks do, from a shell."""

import argparse
import shlex
import signal
import sys
import threading
from pathlib import Path

import torch

from mtl_lib.errors import HandbookError, explain
from mtl_lib.handbook import reproduce
from mtl_lib.handbook.student import build_instructor, build_student
from mtl_lib.paths import BUILD, DATA, RESULTS, ROOT
from mtl_lib.pretrained import ENCODERS, fetch_encoder
from mtl_lib.study import figures, pool, profiles, queue, rows
from mtl_lib.study.claims import claims_markdown, write_section
from mtl_lib.study.corpora import check_corpus, fetch_corpus, load_corpus
from mtl_lib.study.run import run_experiment, summary
from mtl_lib.study.store import RunStore
from mtl_lib.study.submission import write_predictions


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status. Expected faults are one line on stderr."""
    options = _parser().parse_args(arguments)
    if threading.current_thread() is threading.main_thread():  # the only one that may
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like Ctrl-C
    try:
        options.run(options)
    except HandbookError as error:
        print("mtl:", *str(error).splitlines(), file=sys.stderr)
        return 1
    except OSError as error:  # a full disk, a folder without rights: nothing of ours is wrong
        place = f"{error.filename}: " if error.filename else ""
        print(f"mtl: {place}{explain(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        given = sys.argv[1:] if arguments is None else arguments
        again = shlex.join(["mtl", *(word for word in given if word != "--here")])
        print(f"mtl: {str(stop) or 'stopped'}; to go on: {again}", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mtl", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    data = commands.add_parser("data", help="fetch or check corpora").add_subparsers(required=True)
    fetch = data.add_parser("fetch", help="download the original corpora, each file verified")
    fetch.add_argument("directory", nargs="?", default=str(DATA / "cs224n"))
    fetch.set_defaults(run=lambda o: fetch_corpus(o.directory))
    check = data.add_parser("check", help="say what a corpus folder holds")
    check.add_argument("directory")
    check.set_defaults(run=lambda o: print(check_corpus(o.directory)))

    encoder = commands.add_parser("encoder", help="fetch pretrained encoders")
    encoder = encoder.add_subparsers(required=True)
    fetch = encoder.add_parser("fetch", help="download an encoder and verify its hash")
    fetch.add_argument("name", choices=[name for name in ENCODERS if name != "tiny"])
    fetch.set_defaults(run=lambda o: print(fetch_encoder(o.name)))

    train = commands.add_parser("train", help="train one row and keep its model")
    train.add_argument("row", help="a row id, such as 3.2")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument(
        "--model", help="folder for the model (default: build/models/PROFILE-ROW-seedN)"
    )
    _study_options(train)
    train.set_defaults(run=_train)

    sweep = commands.add_parser("sweep", help="train rows that are not stored yet")
    sweep.add_argument("--rows", default="", help="comma-separated ids (default: the profile's)")
    sweep.add_argument("--seeds", default="", help="comma-separated seeds (default: 0)")
    sweep.add_argument("--jobs", type=int, default=0, help="runs at a time (0: as the cores allow)")
    sweep.add_argument("--store", help="folder of the runs (default: build/runs/PROFILE)")
    _study_options(sweep)
    sweep.set_defaults(run=_sweep)

    study = commands.add_parser("study", help="the study of the real corpora, run by run")
    study.add_argument("what", choices=["run", "status", "collect"])
    study.add_argument("--profile", default="", choices=["", *profiles.PROFILES])
    study.add_argument("--rows", default="", help="keep these rows, comma-separated")
    study.add_argument("--seeds", default="", help="keep these seeds, comma-separated")
    study.add_argument("--data", default="", help="corpus folder (default: the profiles')")
    study.add_argument("--encoder", default="", help="encoder (default: the profiles')")
    study.add_argument("--jobs", type=int, default=0, help="runs at a time (0: one a core)")
    study.add_argument("--results", default=str(RESULTS), help="folder of the committed studies")
    study.add_argument("--here", action="store_true", help="by this code, not its own checkout's")
    study.set_defaults(run=_study)

    draw = commands.add_parser("figures", help="draw Figures 2-9 from stored runs")
    draw.add_argument("--profile", default="stored", choices=["stored", *profiles.PROFILES])
    draw.set_defaults(run=lambda o: draw_figures(o.profile))

    submit = commands.add_parser("predict", help="write predictions in the class's format")
    submit.add_argument("model", help="folder written by `mtl train`")
    submit.add_argument("--data", default="handbook", help="corpus folder (default: handbook)")
    submit.add_argument("--split", default="test", choices=["dev", "test"])
    submit.add_argument(
        "--out", default=str(BUILD / "predictions"), help="folder (default: build/predictions)"
    )
    submit.set_defaults(run=_predict)

    student = commands.add_parser("student", help="build the student notebooks: build/student/")
    student.add_argument(
        "--instructor",
        action="store_true",
        help="the version with solutions, points and notes in their place: build/instructor/",
    )
    student.set_defaults(run=_student)

    reproduce.add_reproduce_command(commands)
    return parser


def _study_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--profile", default="quick", choices=list(profiles.PROFILES))
    parser.add_argument("--data", default="", help="corpus folder (default: the profile's)")
    parser.add_argument("--encoder", default="", help="encoder (default: the profile's)")
    parser.add_argument(
        "--max-steps", type=int, default=0, help="cap on the steps of a run (0: the profile's)"
    )
    parser.add_argument(
        "--epochs", type=int, default=0, help="passes over the data (0: the profile's)"
    )


def _sweep(options: argparse.Namespace) -> None:
    profile = profiles.PROFILES[options.profile]
    runs = pool.study(
        rows.ALL_ROWS if options.rows else profile.rows,
        only=options.rows,
        profile=options.profile,
        data=options.data,
        encoder=options.encoder,
        seeds=options.seeds,
        max_steps=options.max_steps,
        epochs=options.epochs,
        jobs=options.jobs,
        store=options.store,
    )
    for run in runs:
        print(summary(run))


def _study(options: argparse.Namespace) -> None:
    if options.what == "collect":
        copied = queue.collect(results=Path(options.results))
        print(*copied, f"{len(copied)} new runs in {options.results}", sep="\n")
        return
    entries = queue.queue(options.profile, options.rows, options.seeds)
    data = queue.corpus_for(entries, options.data)
    if not options.here:
        chosen = {name: getattr(options, name) for name in ("profile", "rows", "seeds", "encoder")}
        chosen |= {"data": data, "jobs": options.jobs, "results": Path(options.results).resolve()}
        arguments = [f"--{name}={value}" for name, value in chosen.items() if value]
        queue.become(["study", options.what, "--here", *arguments], queue.fixed_code())
    study = queue.Study(entries, data, options.encoder, results=Path(options.results))
    if options.what == "run":
        study.run(options.jobs)
    else:
        print(study.status())


def _train(options: argparse.Namespace) -> None:
    profiles.choose_rows([options.row])
    profile = profiles.profile_settings(
        options.profile, options.encoder, options.max_steps, options.epochs
    )
    config = profile.apply(rows.ALL_ROWS[options.row], options.profile, options.seed)
    corpus = load_corpus(options.data or profiles.default_corpus(profile.corpus))
    name = f"{options.profile}-{options.row}-seed{options.seed}"
    model = Path(options.model or BUILD / "models" / name)
    torch.set_num_threads(profile.threads)
    run = run_experiment(
        config,
        corpus,
        RunStore(BUILD / "runs" / options.profile),
        on_epoch=lambda entry: print(f"epoch {entry['epoch']}: step {entry['step']}", flush=True),
        save_model=model,
    )
    print(summary(run))
    print(f"model: {model}")


def draw_figures(profile: str) -> None:
    """Figures 2-9: of the committed studies into figures/, of others into figures/PROFILE/.

    With the committed figures, what the README shows of the same runs is written anew.
    """
    runs = pool.committed_runs()
    if profile != "stored":
        runs = RunStore(BUILD / "runs" / profile).runs()
    for path in figures.save_all(runs, figures.folder(profile)):
        print(path)
    if figures.folder(profile) == ROOT / "figures":  # not where a test draws elsewhere
        write_section(ROOT / "README.md", "figure 3", figures.figure_3(runs).caption)
        print(write_section(ROOT / "README.md", "claims", claims_markdown(runs)))


def _student(options: argparse.Namespace) -> None:
    paths = build_instructor() if options.instructor else build_student()
    print(f"{len(paths)} notebooks in {paths[0].parent}")


def _predict(options: argparse.Namespace) -> None:
    for path in write_predictions(options.model, options.data, options.split, options.out):
        print(path)
