"""A full disk, a folder without rights, no network: one clear error, and what was there stays."""

import ast
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
from small import small_corpus, small_encoder, small_model, small_tokenizer
from test_runs import write_corpus
from test_store import make_run

from mtl_lib import cli
from mtl_lib.errors import RunError
from mtl_lib.paths import ROOT
from mtl_lib.pretrained import load_encoder, save_encoder
from mtl_lib.study.checkpoint import Checkpoint
from mtl_lib.study.rows import FIGURE_3
from mtl_lib.study.run import run_experiment
from mtl_lib.study.store import RunStore

resource = pytest.importorskip("resource", reason="limits on file sizes are Unix's")


@pytest.fixture
def no_large_files():
    """A disk that takes no file above a kilobyte, as a full one takes none."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_run_that_the_disk_does_not_take_leaves_nothing(tmp_path, no_large_files):
    store, run = RunStore(tmp_path), make_run()
    run = replace(run, provenance={"notes": "x" * 2000})
    with pytest.raises(RunError, match="cannot be written: File too large; raise the limit"):
        store.put(run)
    assert store.get(run.key) is None
    assert not [name for name in files(tmp_path) if "run.json" in name or "tmp" in name]


def test_a_run_without_room_for_its_checkpoint_stops_and_goes_on_with_room(tmp_path, monkeypatch):
    save_encoder(tmp_path / "encoder", small_encoder(), small_tokenizer())
    config = replace(
        FIGURE_3["3.2"], encoder=str(tmp_path / "encoder"), epochs=2, max_length=16, train_sample=8
    )
    store, corpus = RunStore(tmp_path / "runs"), small_corpus()
    monkeypatch.setattr(Checkpoint, "due", lambda self: True)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(RunError, match=r"state\.safetensors: cannot be written: .*too large"):
            run_experiment(config, corpus, store)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not [name for name in files(tmp_path / "runs") if not name.endswith(".lock")]
    assert run_experiment(config, corpus, store).provenance["steps"] == 6


def test_a_full_disk_is_one_line_of_the_command(tmp_path, capsys):
    small_model().save(tmp_path / "model", small_tokenizer())
    data = write_corpus(tmp_path / "corpus")
    arguments = ["predict", str(tmp_path / "model"), "--data", data, "--split", "dev"]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        status = cli.main([*arguments, "--out", str(tmp_path / "out")])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    error = capsys.readouterr().err
    assert status == 1 and "File too large; raise the limit on file sizes" in error
    assert error.count("\n") == 1
    assert not list((tmp_path / "out").glob("*.csv"))


# Root may write everywhere; without this capability it is held to the rights of a folder.
AS_A_USER = ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override"]


@pytest.fixture
def read_only(tmp_path):
    """A store with one run, in a folder that may be read only, and who runs commands there."""
    if os.geteuid() == 0 and not shutil.which("setpriv"):
        pytest.skip("root, and no setpriv to give up its rights")
    store = tmp_path / "runs"
    RunStore(store).put(make_run(key="k"))
    shutil.rmtree(store / "locks")
    for path in [*store.rglob("*"), store]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield store, AS_A_USER if os.geteuid() == 0 else []
    for path in [store, *store.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)


READ_ONLY = """
import sys
sys.path.insert(0, "tests")
from test_store import make_run
from mtl_lib.errors import RunError
from mtl_lib.study.store import RunStore
store = RunStore(sys.argv[1])
print(store.get("k").key, len(store.runs()))
try:
    store.put(make_run("3.2"))
except RunError as error:
    print(error)
"""


def test_a_read_only_store_is_read_and_refuses_to_be_written(read_only):
    store, as_a_user = read_only
    before = files(store)
    done = subprocess.run(
        [*as_a_user, sys.executable, "-c", READ_ONLY, store],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first == "k 1"
    assert re.search("Permission denied; choose a folder that you may read and write", second)
    assert files(store) == before


# No network


@pytest.fixture
def no_sockets(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("a connection was opened")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_training_and_reading_open_no_connection(tmp_path, no_sockets):
    save_encoder(tmp_path / "encoder", small_encoder(), small_tokenizer())
    config = replace(
        FIGURE_3["3.2"], encoder=str(tmp_path / "encoder"), epochs=1, max_length=16, max_steps=1
    )
    run_experiment(config, small_corpus(), RunStore(tmp_path / "runs"))
    assert cli.main(["data", "check", "handbook"]) == 0
    load_encoder("tiny")
    load_encoder("tiny-pretrained")


def test_the_library_holds_no_address_but_those_of_its_downloads():
    """No telemetry: every address in the sources is one that a download names, a citation, or the
    example of a Dask scheduler's."""
    addresses = set()
    for path in (ROOT / "mtl_lib").rglob("*.py"):
        addresses |= set(re.findall(r"[a-z]+://[\w.-]+", path.read_text(encoding="utf-8")))
    assert {a for a in addresses if not a.startswith("https://")} <= {"tcp://HOST"}


def test_a_fetch_without_network_is_one_line_and_leaves_nothing(tmp_path, capsys, monkeypatch):
    def refuse(*arguments, **options):
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert cli.main(["data", "fetch", str(tmp_path / "cs224n")]) == 1
    error = capsys.readouterr().err
    assert "Network is unreachable" in error and "--data handbook" in error
    assert error.count("\n") == 1
    assert not files(tmp_path)


# Safe to open


def code_cells() -> list[tuple[str, str]]:
    """Every code cell of the handbook: (notebook's name, source)."""
    return [
        (path.name, cell.source)
        for path in sorted((ROOT / "notebooks").glob("*.ipynb"))
        for cell in nbformat.read(path, as_version=4).cells
        if cell.cell_type == "code"
    ]


def test_what_a_notebook_shows_as_html_is_escaped():
    for name, source in code_cells():
        assert "escape=False" not in source, name
        by_pandas = re.sub(r"\bHTML\(\w+\.to_html\(", "", source)  # it escapes what it holds
        if re.search(r"\bHTML\(|_repr_html_|to_html", by_pandas):
            assert "html.escape(" in source, name


RUNNING = {"eval", "exec", "os.system", "pickle.load", "pickle.loads", "torch.load", "joblib.load"}
# Programs by design: the reader's own answers, and the solutions of the handbook's notebooks.
PROGRAMS = {"mine.py": {"exec"}, "solutions.py": {"exec"}}


def test_nothing_in_the_library_can_run_what_it_reads():
    for path in (ROOT / "mtl_lib").rglob("*.py"):
        calls = [
            n
            for n in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(n, ast.Call)
        ]
        running = {ast.unparse(call.func) for call in calls} & RUNNING
        assert running == PROGRAMS.get(path.name, set()), path.name


# A command that is asked to stop


def test_sigterm_ends_a_study_with_the_command_that_goes_on(tmp_path):
    data = write_corpus(tmp_path / "corpus")
    arguments = ["sweep", "--rows", "3.2", "--data", data, "--store", str(tmp_path / "runs")]
    code = "import sys; from mtl_lib.cli import main; sys.exit(main(sys.argv[1:]))"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments, "--encoder", "tiny"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"MTL_CHECKPOINT_SECONDS": "0"},
    )  # fmt: skip
    deadline = time.monotonic() + 120
    checkpoints = tmp_path / "runs" / "checkpoints"
    while not list(checkpoints.glob("*/state.safetensors")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    out, error = process.communicate(timeout=120)
    if process.returncode == 0:
        pytest.skip("the run was finished before the signal")
    assert process.returncode == 130
    assert "0 of 1 runs are finished" in out
    assert "row 3.2, seed 0: stopped after step" in error
    assert f"to go on: mtl sweep --rows 3.2 --data {data}" in error
    assert list(checkpoints.glob("*/state.safetensors"))
