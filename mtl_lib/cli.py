"""The `mtl` command: everything the notebooks do, from a shell."""

import argparse
import io
import shlex
import signal
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import mtl_lib
from mtl_lib.errors import ConfigError, HandbookError, explain
from mtl_lib.paths import BUILD, CHECKOUT, FETCHED, RESULTS, ROOT
from mtl_lib.pretrained import ENCODERS, fetch_encoder
from mtl_lib.shipped.answers import add_questions, answer
from mtl_lib.study.checkpoint import handling
from mtl_lib.study.profiles import ALL_PROFILES, FURTHER, PROFILES
from mtl_lib.study.rows import ALL_ROWS
from mtl_lib.study.settings import Settings, add_flags, chosen

# A command imports in its own function what only it needs: pandas, matplotlib and Jupyter take
# seconds, and every training process imports this module anew.

EXAMPLES = """examples:
  mtl data check handbook                   what the embedded corpora hold
  mtl encoder fetch minilm-l6               a small pretrained encoder, 91 MB, verified
  mtl train 3.2 --max-steps 50              a short run of gradient surgery; its model is kept
  mtl predict build/models/quick-3.2-seed0  that model's predictions for the test sets
  mtl predict --text Superb                 what the finished model says to a text
  mtl sweep --rows 3.1,3.2 --seeds 0,1,2    six runs, several at a time; those stored are read
  mtl sweep --scheduler tcp://HOST:8786     the runs of a profile on a Dask cluster
  mtl bench                                 all weightings, at the same rates, and a table
  mtl final --data FOLDER                   the finished model, trained again: two hours
  mtl study status                          how far the study of the real corpora is
  mtl figures                               Figures 2-9 and the claims, from the stored runs
  mtl mine                                  which pieces you wrote, and where they are kept
  mtl student                               the notebooks without solutions, in build/student/
  mtl class FOLDER                          which mistakes a class made, from its reports
  mtl notebooks 05                          run a chapter again and store its outputs
  mtl reproduce                             every notebook and figure, from nothing
  mtl completion bash                       completion; use it by: eval "$(mtl completion bash)"
"""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status. Expected faults are one line on stderr."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may lack letters of a folder's name
            stream.reconfigure(errors="backslashreplace")
    options = _parser().parse_args(arguments)
    try:
        with handling(signal.default_int_handler, signal.SIGTERM):  # ends like Ctrl-C
            return options.run(options) or 0
    except ModuleNotFoundError as error:
        if (error.name or "mtl_lib").startswith("mtl_lib"):
            raise
        extra = "cluster" if error.name in ("dask", "dask_jobqueue", "distributed") else "handbook"
        print(f'mtl: {error.name} is missing: pip install "mtl-handbook[{extra}]"', file=sys.stderr)
        return 1
    except HandbookError as error:
        print("mtl:", *str(error).splitlines(), file=sys.stderr)
        return 1
    except OSError as error:  # a full disk, a folder without rights: nothing of ours is wrong
        path = error.filename2 or error.filename  # of a file in its place, which it should take
        print(f"mtl: {f'{path}: ' if path else ''}{explain(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        given = sys.argv[1:] if arguments is None else arguments
        again = shlex.join(["mtl", *(word for word in given if word != "--here")])
        print(f"mtl: {str(stop) or 'stopped'}; to go on: {again}", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mtl",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"mtl {mtl_lib.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    data = commands.add_parser("data", help="fetch or check corpora").add_subparsers(required=True)
    fetch = data.add_parser("fetch", help="download the original corpora, each file verified")
    fetch.add_argument("directory", nargs="?", default=str(FETCHED))
    fetch.set_defaults(run=_fetch_corpus)
    check = data.add_parser("check", help="say what a corpus folder holds")
    check.add_argument("directory")
    check.set_defaults(run=_check_corpus)

    encoder = commands.add_parser("encoder", help="fetch or further pretrain encoders")
    encoder = encoder.add_subparsers(required=True)
    fetch = encoder.add_parser("fetch", help="download an encoder and verify its hash")
    fetch.add_argument("name", choices=[name for name in ENCODERS if name != "tiny"])
    fetch.set_defaults(run=lambda options: print(fetch_encoder(options.name)))
    adapt = encoder.add_parser(
        "adapt", help="masked language modelling on a corpus's own sentences"
    )
    adapt.add_argument("name", help="name or folder of an encoder")
    adapt.add_argument("directory", help="folder of the new one, to be given as --encoder")
    adapt.add_argument("--steps", type=int, default=2000, help="of 32 sentences (default: 2000)")
    adapt.add_argument("--max-length", type=int, default=128, help="tokens (default: 128)")
    add_flags(adapt, "data", data="handbook")
    adapt.set_defaults(run=_adapt)

    train = commands.add_parser("train", help="train one row and keep its model")
    train.add_argument("row", help="a row id, such as 3.2")
    train.add_argument("--seed", type=int, default=0, help="random seed (default: 0)")
    train.add_argument(
        "--model", help="folder for the model (default: build/models/PROFILE-ROW-seedN)"
    )
    add_flags(train, "profile", "data", "encoder", "max_steps", "epochs")
    train.set_defaults(run=_train)

    sweep = commands.add_parser("sweep", help="train rows that are not stored yet")
    add_flags(sweep, "profile", "data", "encoder", "rows", "seeds", "max_steps", "epochs", "jobs")
    sweep.add_argument("--store", help="folder of the runs (default: build/runs/PROFILE)")
    machines = sweep.add_mutually_exclusive_group()
    machines.add_argument(
        "--scheduler", metavar="ADDRESS", help="train on a Dask cluster, such as tcp://HOST:8786"
    )
    machines.add_argument("--slurm", metavar="N", type=int, help="train in N jobs of SLURM")
    sweep.set_defaults(run=_sweep)

    bench = commands.add_parser("bench", help="compare the weightings of the tasks' gradients")
    add_flags(
        bench, "profile", "data", "encoder", "rows", "seeds", "jobs",
        profiles=("bench", "bench-real"), profile="bench", seeds="0,1,2,3,4",
    )  # fmt: skip
    bench.add_argument(
        "--out", default=str(BUILD / "bench"), help="folder of its tables (default: build/bench)"
    )
    bench.set_defaults(run=_bench)

    final = commands.add_parser("final", help="train the model that the handbook ships")
    add_flags(final, "data", "encoder", "max_steps")
    final.add_argument(
        "--out",
        default=str(BUILD / "final"),
        help="folder of models/ and predictions/ (default: build/final; to ship it: data)",
    )
    final.set_defaults(run=_final)

    study = commands.add_parser("study", help="the study of the real corpora, run by run")
    study.add_argument("what", choices=["run", "status", "collect"])
    add_flags(study, "profile", "data", "encoder", "rows", "seeds", "jobs", profile="")
    study.add_argument("--results", default=str(RESULTS), help="folder of the committed studies")
    study.add_argument("--here", action="store_true", help="by this code, not its own checkout's")
    study.set_defaults(run=_study)

    draw = commands.add_parser("figures", help="draw Figures 2-9 from stored runs")
    add_flags(draw, "profile", profiles=PROFILES, profile="stored")
    draw.set_defaults(run=_figures)

    submit = commands.add_parser(
        "predict", help="predictions of a model in the class's format, or of a text or of pairs"
    )
    submit.add_argument(
        "model",
        nargs="?",
        help="folder written by `mtl train` (of --text and --pairs: the shipped one by default)",
    )
    add_questions(submit)
    add_flags(submit, "data", data="handbook")
    submit.add_argument("--split", default="test", choices=["dev", "test"])
    submit.add_argument(
        "--out", help="folder (default: build/predictions); of --pairs, a file (default: printed)"
    )
    submit.set_defaults(run=_predict)

    student = commands.add_parser("student", help="build the student notebooks: build/student/")
    student.add_argument(
        "--instructor",
        action="store_true",
        help="the version with solutions, points and notes in their place: build/instructor/",
    )
    student.add_argument("--out", help="folder (default: build/student, build/instructor)")
    student.set_defaults(run=_student)

    mine = commands.add_parser("mine", help="which pieces of the handbook's library are yours")
    mine.set_defaults(run=_mine)

    group = commands.add_parser("class", help="sum up a class's reports (MTL_REPORT)")
    group.add_argument("folder", help="of the students' report files, NAME.json")
    group.add_argument("--out", default=str(BUILD / "class"), help="folder (default: build/class)")
    group.set_defaults(run=_class)

    whole = commands.add_parser("reproduce", help="run all notebooks: the figures of a profile")
    everything = ("profile", "data", "encoder", "rows", "seeds", "max_steps", "epochs", "jobs")
    add_flags(whole, *everything, profiles=PROFILES)
    whole.add_argument(
        "-p",
        dest="parameters",
        metavar="NAME=VALUE",
        type=_name_and_value,
        action="append",
        default=[],
        help="any other parameter that a notebook declares",
    )
    whole.set_defaults(run=_reproduce)

    completion = commands.add_parser(
        "completion", help='for a shell: eval "$(mtl completion bash)"'
    )
    completion.add_argument("shell", choices=["bash", "zsh", "tcsh"])
    completion.set_defaults(run=_completion)

    notebooks = commands.add_parser("notebooks", help="run the notebooks and store their outputs")
    notebooks.add_argument("names", nargs="*", metavar="NN", help="such as 05 (default: all)")
    notebooks.set_defaults(run=_notebooks)

    for name, command in commands.choices.items():
        lines = [line for line in EXAMPLES.splitlines() if line.split()[:2] == ["mtl", name]]
        command.epilog = "\n".join(["examples:", *lines])
        command.formatter_class = argparse.RawDescriptionHelpFormatter
    return parser


def _class(options: argparse.Namespace) -> None:
    from mtl_lib.handbook.classroom import sum_up

    table, paths = sum_up(options.folder, options.out)
    print(table.to_string(index=False))
    print(*paths, sep="\n")


def _completion(options: argparse.Namespace) -> None:
    from mtl_lib.handbook.shell import completion

    print(completion(_parser(), options.shell))


def _name_and_value(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def _fetch_corpus(options: argparse.Namespace) -> None:
    from mtl_lib.study.corpora import fetch_corpus

    fetch_corpus(options.directory)


def _check_corpus(options: argparse.Namespace) -> None:
    from mtl_lib.study.corpora import check_corpus

    print(check_corpus(options.directory))


def _adapt(options: argparse.Namespace) -> None:
    """Further pretraining on the training sentences; the new encoder is written when it is done."""
    from mtl_lib.methods.masked_lm import further_pretrain
    from mtl_lib.pretrained import load_encoder, save_encoder
    from mtl_lib.study.corpora import load_corpus, training_sentences

    sentences = training_sentences(load_corpus(options.data))
    encoder, tokenizer = load_encoder(options.name)
    # Where no folder can stand, nobody should learn it half an hour later.
    Path(options.directory).mkdir(parents=True, exist_ok=True)
    # Measured with minilm-l6 on a busy core: 0.86 s a step.
    print(f"{options.steps} steps: about {options.steps * 0.86 / 60:.0f} minutes", flush=True)
    losses = further_pretrain(
        encoder, tokenizer, sentences, steps=options.steps, max_length=options.max_length
    )
    save_encoder(options.directory, encoder, tokenizer)
    print(f"loss a masked token: {losses[0]:.2f} at first, {losses[-1]:.2f} at last")
    print(options.directory)


def _train(options: argparse.Namespace) -> None:
    import torch

    from mtl_lib.parallel.launch import launched
    from mtl_lib.study.corpora import load_corpus
    from mtl_lib.study.run import run_experiment, summary
    from mtl_lib.study.store import RunStore

    settings = replace(chosen(options), seeds=str(options.seed))
    (config,) = settings.configs([options.row])
    name = f"{settings.profile}-{options.row}-seed{options.seed}"
    model = Path(options.model or BUILD / "models" / name)
    torch.set_num_threads(settings.protocol().threads)
    with launched() as processes:
        run = run_experiment(
            config,
            load_corpus(settings.corpus()),
            RunStore(BUILD / "runs" / settings.profile),
            on_epoch=lambda entry: print(
                f"epoch {entry['epoch']}: step {entry['step']}", flush=True
            ),
            save_model=model,
            processes=processes,
        )
        if not (processes and processes.rank):
            print(summary(run))
            print(f"model: {model}")


def _sweep(options: argparse.Namespace) -> None:
    from mtl_lib.study.pool import trained_runs
    from mtl_lib.study.run import summary

    settings = chosen(options)
    rows = ALL_ROWS if settings.rows else ALL_PROFILES[settings.profile].rows
    for run in trained_runs(rows, settings, options.store, _executor(options, settings)):
        print(summary(run))


def _executor(options: argparse.Namespace, settings: Settings) -> Any:
    """What makes the cluster that was named; None for this machine."""
    if not options.scheduler and options.slurm is None:
        return None
    from mtl_lib.study import cluster

    if settings.jobs:
        raise ConfigError("--jobs is of this machine's runs; a cluster has as many as workers")
    if options.scheduler:
        return lambda: cluster.scheduler(options.scheduler)
    if options.slurm < 1:
        raise ConfigError(f"--slurm {options.slurm}: give 1 job or more")
    return lambda: cluster.slurm(options.slurm, settings.protocol().threads)


def _bench(options: argparse.Namespace) -> None:
    """Train what is not stored yet, compare, and write tables and picture to a folder."""
    from mtl_lib.files import replacing
    from mtl_lib.study import bench
    from mtl_lib.study.pool import trained_runs

    settings, folder = chosen(options), Path(options.out)
    configs = settings.configs(FURTHER[settings.profile].rows)
    if not any(bench.family(config.weighting) == bench.FIXED for config in configs):
        raise ConfigError(
            f"rows {settings.rows}: none of the bench's with fixed weights or the sum"
        )
    found = bench.compare(trained_runs(FURTHER[settings.profile].rows, settings))
    paths = found.save(settings.profile, folder)
    with replacing(folder / f"{settings.profile}.png") as picture:
        bench.draw(found).savefig(picture, format="png", dpi=120)
    shown = found.table.assign(rate=found.table["rate"].map("{:g}".format))
    print(shown.round(3).to_string(index=False))
    print(bench.verdict(found))
    print(*paths, folder / f"{settings.profile}.png", sep="\n")


def _final(options: argparse.Namespace) -> None:
    """Train it, unless that is done, and write it and its predictions as they are shipped."""
    import torch

    from mtl_lib.study.corpora import load_corpus
    from mtl_lib.study.final import ship, trained
    from mtl_lib.study.run import summary
    from mtl_lib.study.store import RunStore

    settings = replace(chosen(options), profile="final")
    (config,) = settings.configs(FURTHER["final"].rows)
    torch.set_num_threads(settings.protocol().threads)
    corpus, out = load_corpus(settings.corpus()), Path(options.out)
    minutes = FURTHER["final"].seconds / 60
    print(f"training: about {minutes:.0f} minutes, once; judging: about 6", flush=True)
    run, model = trained(config, corpus, RunStore(BUILD / "runs" / "final"), BUILD / "models")
    print(summary(run))
    print(*ship(model, run, corpus, out / "models" / "final", out / "predictions"), sep="\n")


def _study(options: argparse.Namespace) -> int:
    from mtl_lib.study import queue

    results = Path(options.results).resolve()
    if options.what == "collect":
        _in_a_clone()
        copied = queue.collect(results=results)
        print(*copied, f"{len(copied)} new runs in {results}", sep="\n")
        return 0
    settings = chosen(options)
    entries = queue.queue(settings.profile, settings.rows, settings.seeds)
    settings = replace(settings, data=queue.corpus_for(entries, settings.data))
    if not options.here:
        given = {name: value for name, value in asdict(settings).items() if value}
        arguments = [f"--{name}={value}" for name, value in (given | {"results": results}).items()]
        return queue.become(["study", options.what, "--here", *arguments], queue.fixed_code())
    study = queue.Study(entries, settings.data, settings.encoder, results=results)
    if options.what == "run":
        study.run(settings.jobs)
    else:
        print(study.status())
    return 0


def _figures(options: argparse.Namespace) -> None:
    """Figures 2-9: of the committed studies into figures/, of others into figures/PROFILE/.

    With the committed figures, the claims page and what the README shows are written anew.
    """
    from mtl_lib.handbook import front
    from mtl_lib.study import figures, pool
    from mtl_lib.study.report import claims_page, write_section
    from mtl_lib.study.store import RunStore

    runs = pool.committed_runs()
    if options.profile != "stored":
        runs = RunStore(BUILD / "runs" / options.profile).runs()
    folder = figures.folder(options.profile)
    for path in figures.save_all(runs, folder):
        print(path)
    if folder == ROOT / "figures":  # not where a test draws elsewhere
        print(front.save(folder))
        print(claims_page(runs, folder))
        print(write_section(ROOT / "README.md", "findings", front.findings()))


def _predict(options: argparse.Namespace) -> None:
    if options.text or options.pairs:
        if (options.data, options.split) != ("handbook", "test"):
            raise ConfigError("--data and --split name a corpus: leave out --text and --pairs")
        return answer(options)
    if not options.model:
        raise ConfigError("give a folder written by `mtl train`, or --text TEXT, or --pairs FILE")
    from mtl_lib.study.submission import write_predictions

    out = options.out or BUILD / "predictions"
    for path in write_predictions(options.model, options.data, options.split, out):
        print(path)


def _student(options: argparse.Namespace) -> None:
    from mtl_lib.handbook.student import build_instructor, build_student

    build = build_instructor if options.instructor else build_student
    paths = build(out=options.out) if options.out else build()
    print(f"{len(paths)} notebooks in {paths[0].parent}")


def _mine(options: argparse.Namespace) -> None:
    from mtl_lib.handbook import mine

    print(*mine.overview(), sep="\n")


def _reproduce(options: argparse.Namespace) -> None:
    from mtl_lib.handbook import reproduce

    reproduce.reproduce(chosen(options), parameters=dict(options.parameters))


def _notebooks(options: argparse.Namespace) -> None:
    from mtl_lib.handbook import reproduce

    _in_a_clone()
    reproduce.refresh(options.names)


def _in_a_clone() -> None:
    """Refuse to change the files of an installed package."""
    if not CHECKOUT:
        raise ConfigError("this changes the handbook's own files: run it in a clone of it")


if __name__ == "__main__":
    sys.exit(main())
