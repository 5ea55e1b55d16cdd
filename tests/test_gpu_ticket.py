"""The study on a lent GPU machine: what is packed, when it stops, what comes back."""

import importlib.util
import io
import json
import shutil
import sys
import tarfile
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small import small_corpus
from test_runs import write_corpus

from mtl_lib.errors import ConfigError, EncoderError, RunError
from mtl_lib.paths import ROOT
from mtl_lib.pretrained import ENCODERS, encoder_hash, fetch_encoder, load_encoder
from mtl_lib.study.profiles import PROFILES
from mtl_lib.study.queue import Study
from mtl_lib.study.rows import ALL_ROWS
from mtl_lib.study.run import run_experiment
from mtl_lib.study.store import RunStore


@pytest.fixture(scope="module")
def ticket():
    spec = importlib.util.spec_from_file_location("gpu_ticket", ROOT / "scripts" / "gpu_ticket.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_ticket"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["gpu_ticket"]


def tiny_config(row: str = "frozen-1e-3"):
    config = PROFILES["quick"].apply(ALL_ROWS[row], "quick")
    return replace(config, max_steps=1, epochs=1)


@pytest.fixture(scope="module")
def opened(tmp_path_factory) -> Path:
    """A folder as `run` leaves it: one finished run, and the measured step."""
    folder = tmp_path_factory.mktemp("opened")
    run_experiment(tiny_config(), small_corpus(), RunStore(folder / "runs"))
    (folder / "runs" / "checkpoints" / "3.1-seed0-0").mkdir(parents=True)
    (folder / "step.json").write_text("{}", encoding="utf-8")
    return folder


@pytest.fixture
def archive(ticket, opened, tmp_path) -> Path:
    ticket.pack(opened, tmp_path)
    return tmp_path / ticket.ARCHIVE


def write_tar(path: Path, name: str, content: bytes = b"x") -> Path:
    with tarfile.open(path, "w:gz") as tar:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return path


# prepare


def test_a_prepared_corpus_is_found_again(ticket, tmp_path, monkeypatch):
    monkeypatch.setattr(ticket, "_tracked_bytes", lambda: 0)
    data = write_corpus(tmp_path / "real")
    ticket.prepare(data, tmp_path / "ticket", "tiny-pretrained", 64)
    corpus, encoder = ticket.open_ticket(tmp_path / "ticket")
    assert encoder == "tiny-pretrained"
    assert ticket.load_corpus(corpus).fingerprint == ticket.load_corpus(data).fingerprint
    assert ticket.load_corpus(corpus).name == "real"


def test_what_does_not_fit_is_cut_into_parts(ticket, tmp_path, monkeypatch):
    monkeypatch.setattr(ticket, "_tracked_bytes", lambda: 0)
    monkeypatch.setattr(ticket, "MIB", 50)  # as if all were larger
    monkeypatch.setattr(ticket, "SLACK", 0)
    data = write_corpus(tmp_path / "real")
    parts = ticket.prepare(data, tmp_path / "ticket", "tiny-pretrained", 4)
    assert len(parts) > 9  # in the order of their numbers, not of their names
    assert max(part.stat().st_size for part in parts) == 4 * 50
    corpus, _ = ticket.open_ticket(tmp_path / "ticket")
    assert ticket.load_corpus(corpus).fingerprint == ticket.load_corpus(data).fingerprint


def test_tracked_files_that_leave_no_room_are_named(ticket, tmp_path, monkeypatch):
    monkeypatch.setattr(ticket, "_tracked_bytes", lambda: 30 * 2**20)
    with pytest.raises(ConfigError, match="take 30.0 of --limit 31 MiB; raise it"):
        ticket.prepare("handbook", tmp_path, "tiny-pretrained", 31)


def test_a_missing_part_is_named(ticket, tmp_path):
    (tmp_path / "part-1-of-2").write_bytes(b"x")
    with pytest.raises(ConfigError, match="holds part-1-of-2, not every part"):
        ticket.open_ticket(tmp_path)


def test_a_damaged_part_is_refused(ticket, tmp_path):
    (tmp_path / "part-1-of-1").write_bytes(b"x")
    with pytest.raises(ConfigError, match="part-.*cannot be unpacked.*prepare` again"):
        ticket.open_ticket(tmp_path)


# run


def test_runs_stop_in_time(ticket, tmp_path):
    """A run of minutes; its process is still starting, or at work, when the time is over."""
    store = RunStore(tmp_path)
    config = replace(tiny_config("3.2"), max_steps=None, epochs=1000)
    ticket.train_in_time([config], "handbook", store, jobs=1, seconds=2)
    assert store.runs() == []


def test_a_run_is_stopped_when_its_time_is_over(ticket, tmp_path, capsys):
    long = replace(tiny_config(), max_steps=None, epochs=1000)
    ticket.train_in_time([long], "handbook", RunStore(tmp_path), jobs=1, seconds=0.1)
    assert RunStore(tmp_path).runs() == []
    assert "The time is over." in capsys.readouterr().out


def test_a_time_that_is_over_before_the_start_ends_at_once(ticket, tmp_path):
    ticket.train_in_time([tiny_config()], "handbook", RunStore(tmp_path), jobs=1, seconds=-1)
    assert RunStore(tmp_path).runs() == []


def test_a_ticket_on_this_machine_from_end_to_end(ticket, tmp_path, capfd):
    """prepare, run, unpack: the run is stored under its key."""
    folder, out = tmp_path / "ticket", tmp_path / "out"
    ticket.prepare(write_corpus(tmp_path / "real"), folder, "tiny-pretrained", 1000)
    command = ["run", "--minutes=600", "--jobs=1", f"--folder={folder}", f"--out={out}"]
    command += ["--profile=quick", "--rows=frozen-1e-3", "--max-steps=1", "--step-seconds=0"]
    assert ticket.main(command) == 0
    assert "[1/1] frozen-1e-3" in capfd.readouterr().out
    (run,) = ticket.unpack(out / ticket.ARCHIVE, RunStore(tmp_path / "store"))
    assert run.config["encoder"] == "tiny-pretrained"
    assert run.provenance["corpus"]["name"] == "real"
    assert [path.name for path in out.iterdir()] == [ticket.ARCHIVE]


def test_a_negative_number_of_jobs_is_refused(ticket, tmp_path, capsys):
    command = ["run", "--minutes=1", "--jobs=-1", f"--folder={tmp_path}", f"--out={tmp_path}"]
    assert ticket.main(command) == 1
    assert "jobs = -1: give how many runs at a time" in capsys.readouterr().err


def test_runs_that_are_done_are_left_out(ticket, tmp_path, monkeypatch):
    """Those of the committed studies are not trained again; nothing is left to do then."""
    ticket.prepare("handbook", tmp_path, "tiny-pretrained", 1000)
    monkeypatch.setattr(Study, "done", lambda study: dict.fromkeys(study.configs, 1.0))
    trained = []
    monkeypatch.setattr(ticket, "train_in_time", lambda configs, *_: trained.append(configs))
    options = Namespace(minutes=1, folder=tmp_path, out=tmp_path / "out", profile="quick")
    options.rows, options.seeds, options.max_steps, options.step_seconds = "3.1", "", 0, 0
    options.jobs = 1
    ticket.run(options)
    assert trained == [[]]


# unpack


def test_an_archive_holds_finished_runs_and_no_checkpoints(ticket, archive):
    with tarfile.open(archive) as tar:
        names = tar.getnames()
    assert "step.json" in names
    assert [name for name in names if name.endswith("run.json")]
    assert [name for name in names if name.startswith("runs/splits/")]
    assert not [name for name in names if "checkpoint" in name or "lock" in name]


def test_an_archive_s_runs_are_stored_once(ticket, opened, archive, tmp_path):
    store = RunStore(tmp_path / "study" / "runs")
    (new,) = ticket.unpack(archive, store)
    (stored,) = store.runs()
    (sent,) = RunStore(opened / "runs").runs()
    assert stored.key == new.key == sent.key
    assert stored.metrics == sent.metrics
    assert all((stored.predictions[n] == sent.predictions[n]).all() for n in sent.predictions)
    assert (tmp_path / "study" / "gpu_step.json").read_text(encoding="utf-8") == "{}"
    assert ticket.unpack(archive, store) == []


@pytest.mark.parametrize("name", ["../outside", "runs/../../outside"])
def test_unpack_refuses_a_path_outside(ticket, tmp_path, name):
    path = write_tar(tmp_path / "a.tar.gz", name)
    with pytest.raises(ConfigError, match="a.tar.gz: cannot be unpacked .*outside"):
        ticket.unpack(path, RunStore(tmp_path / "store"))
    assert not list(tmp_path.rglob("outside"))


def test_unpack_refuses_a_truncated_archive(ticket, archive, tmp_path):
    archive.write_bytes(archive.read_bytes()[:-200])
    with pytest.raises(ConfigError, match="cannot be unpacked.*copied whole"):
        ticket.unpack(archive, RunStore(tmp_path / "store"))


def test_unpack_of_no_archive_is_one_line(ticket, tmp_path, capsys):
    assert ticket.main(["unpack", str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_unpack_refuses_a_run_with_another_key(ticket, opened, tmp_path):
    """Its seal holds, its key is not the hash of its configuration: nothing is stored."""
    (run,) = RunStore(opened / "runs").runs()
    other = tmp_path / "other"
    RunStore(other / "runs").put(replace(run, key="0" * 16))
    ticket.pack(other, tmp_path)
    with pytest.raises(RunError, match="run 0000.* is not what its key says"):
        ticket.unpack(tmp_path / ticket.ARCHIVE, RunStore(tmp_path / "store"))
    assert RunStore(tmp_path / "store").runs() == []


def test_unpack_refuses_a_changed_run(ticket, opened, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(opened, other)
    (path,) = (other / "runs").glob("*/run.json")
    record = json.loads(path.read_text(encoding="utf-8"))
    record["metrics"]["best"]["dev"] = {}
    path.write_text(json.dumps(record), encoding="utf-8")
    ticket.pack(other, tmp_path)
    with pytest.raises(RunError, match="1 of 1 runs are damaged"):
        ticket.unpack(tmp_path / ticket.ARCHIVE, RunStore(tmp_path / "store"))


# The encoder that travels


def test_the_rounded_encoder_is_another_one():
    assert encoder_hash("minilm-l6-fp16") != encoder_hash("minilm-l6")
    assert {n: s for n, s in ENCODERS["minilm-l6"].files.items() if n != "model.safetensors"} == {
        n: s for n, s in ENCODERS["minilm-l6-fp16"].files.items() if n != "model.safetensors"
    }


def test_the_rounded_encoder_is_near_the_original():
    try:
        fetch_encoder("minilm-l6")
    except EncoderError as error:
        if "SHA-256" in str(error):
            raise
        pytest.skip(str(error))
    exact, _ = load_encoder("minilm-l6")
    rounded, tokenizer = load_encoder("minilm-l6-fp16")
    assert all(p.dtype == torch.float32 for p in rounded.parameters())
    ids = torch.tensor([tokenizer.encode("A sentence of some words.").ids])
    mask = torch.ones_like(ids)
    with torch.no_grad():
        a, b = (model(ids, mask).pooler_output for model in (exact, rounded))
    assert 0 < (a - b).abs().max() < 0.01
