import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mtl_lib.errors import BusyError, RunError
from mtl_lib.study.store import Run, RunStore, run_key


def make_run(row="3.1", seed=0, pearson=0.5, key=None) -> Run:
    config = {"row": row, "seed": seed, "profile": "quick"}
    score = {"similarity": {"pearson": pearson}}
    return Run(
        config=config,
        metrics={"best": {"train": score, "dev": score}, "last": {"train": score, "dev": score}},
        history=[{"epoch": 1, "step": 3, "loss": {"similarity": 1.0}}],
        predictions={"similarity": np.array([[1.5], [2.5]], np.float32)},
        labels={"similarity": np.array([1.0, 2.0], np.float32)},
        ids={"similarity": ["a", "b"]},
        provenance={"steps": 3},
        key=key or run_key(config, "corpus", "encoder", 1),
    )


def same(a: Run, b: Run) -> bool:
    return a.key == b.key and all(
        np.array_equal(getattr(a, part)[task], getattr(b, part)[task])
        for part in ("predictions", "labels", "ids")
        for task in a.ids
    )


def test_a_run_comes_back_as_it_was_stored(tmp_path):
    run, store = make_run(), RunStore(tmp_path)
    store.put(run)
    back = store.get(run.key)
    assert same(run, back)
    assert (back.config, back.metrics, back.history) == (run.config, run.metrics, run.history)


def test_a_stored_run_is_the_same_file_on_every_system(tmp_path):
    run = make_run()
    run = replace(run, provenance={"corpus": {"name": "Übung"}})
    content = (RunStore(tmp_path).put(run) / "run.json").read_bytes()
    assert content.isascii() and b"\r" not in content
    assert RunStore(tmp_path).get(run.key).provenance == run.provenance


def test_an_unknown_key_gives_nothing(tmp_path):
    assert RunStore(tmp_path / "never-made").get("0123456789abcdef") is None


def test_a_stored_run_is_not_overwritten(tmp_path):
    store = RunStore(tmp_path)
    store.put(make_run(pearson=0.5, key="k"))
    store.put(make_run(pearson=0.9, key="k"))
    assert store.get("k").metrics["best"]["dev"]["similarity"]["pearson"] == 0.5


def test_runs_are_sorted_by_row_as_numbers_then_by_seed(tmp_path):
    store = RunStore(tmp_path)
    for row, seed in [("frozen-1e-5", 0), ("3.10", 0), ("3.2", 1), ("3.2", 0)]:
        store.put(make_run(row, seed))
    found = [(run.config["row"], run.config["seed"]) for run in store.runs()]
    assert found == [("3.2", 0), ("3.2", 1), ("3.10", 0), ("frozen-1e-5", 0)]


def test_ids_and_labels_are_kept_once_for_all_runs(tmp_path):
    store = RunStore(tmp_path)
    store.put(make_run("3.1"))
    store.put(make_run("3.2"))
    assert len(list((tmp_path / "splits").glob("*.npz"))) == 1


def test_an_unfinished_run_is_not_read(tmp_path):
    (tmp_path / ".3.1-seed0-k.1.tmp").mkdir(parents=True)
    (tmp_path / ".3.1-seed0-k.1.tmp" / "run.json").write_text("{")
    assert RunStore(tmp_path).get("k") is None
    assert RunStore(tmp_path).runs() == []


def cut_in_half(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x55
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [cut_in_half, flip_a_byte, Path.unlink, Path.touch])
@pytest.mark.parametrize("name", ["run.json", "predictions.npz"])
def test_a_damaged_run_is_set_aside_with_a_message_and_can_be_stored_again(
    tmp_path, capsys, name, damage
):
    run, store = make_run(), RunStore(tmp_path)
    folder = store.put(run)
    whole = damage in (Path.touch,) or (name == "run.json" and damage is Path.unlink)
    damage(folder / name)
    assert (store.get(run.key) is not None) == (damage is Path.touch)
    if not whole:
        assert f"{folder}: damaged" in capsys.readouterr().err
        assert len(list((tmp_path / "damaged").iterdir())) == 1  # nothing is thrown away
        assert store.runs() == []
    store.put(run)
    assert same(store.get(run.key), run)


def test_a_changed_number_is_damage(tmp_path, capsys):
    run, store = make_run(pearson=0.5), RunStore(tmp_path)
    path = store.put(run) / "run.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"pearson": 0.5', '"pearson": 0.9'))
    assert store.get(run.key) is None
    assert "does not have its hash" in capsys.readouterr().err


def test_a_run_from_before_the_hashes_is_read(tmp_path):
    run, store = make_run(), RunStore(tmp_path)
    path = store.put(run) / "run.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    del record["sha256"], record["predictions_sha256"]
    path.write_text(json.dumps(record))
    assert same(store.get(run.key), run)


@pytest.mark.parametrize("damage", [cut_in_half, flip_a_byte, Path.unlink])
def test_damaged_labels_come_back_with_the_next_run_and_serve_all(tmp_path, capsys, damage):
    first, second = make_run("3.1"), make_run("3.2")
    store = RunStore(tmp_path)
    store.put(first), store.put(second)
    (split,) = (tmp_path / "splits").glob("*.npz")
    damage(split)
    assert store.runs() == []
    assert "development labels are missing" in capsys.readouterr().err
    store.put(first)
    assert [run.key for run in store.runs()] == [first.key, second.key]


def test_a_row_that_leads_out_of_the_store_is_refused(tmp_path):
    with pytest.raises(RunError, match="cannot be a folder's name"):
        RunStore(tmp_path / "runs").put(make_run("../3.1"))
    assert not list(tmp_path.glob("**/run.json"))


def test_a_run_is_locked_for_one_process_at_a_time(tmp_path):
    store = RunStore(tmp_path)
    with store.lock("k"):
        with store.lock("other", wait=False):
            pass
        with pytest.raises(BusyError, match="another process trains it"):
            with store.lock("k", wait=False):
                pass
    with store.lock("k", wait=False):
        pass


def test_a_run_is_busy_while_a_process_trains_it_and_no_longer(tmp_path):
    store, reader = RunStore(tmp_path), RunStore(tmp_path)
    assert not reader.busy("k")
    with store.lock("k"):
        assert reader.busy("k")
        assert not reader.busy("other")
    assert not reader.busy("k")


def test_to_ask_whether_a_run_is_busy_leaves_it_free(tmp_path):
    store = RunStore(tmp_path)
    assert not store.busy("k")
    with store.lock("k", wait=False):
        pass


def test_a_run_that_another_process_trains_is_busy_until_that_process_is_killed(tmp_path):
    held = "import sys, time; from filelock import FileLock; "
    held += (
        "lock = FileLock(sys.argv[1]); lock.acquire(); print('held', flush=True); time.sleep(99)"
    )
    store = RunStore(tmp_path)
    assert not store.busy("k")
    command = [sys.executable, "-c", held, str(tmp_path / "locks" / "k.lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        assert store.busy("k")
        process.kill()
    assert not store.busy("k")


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"lr": 2e-5}, {"row": "3.2"}],
)
def test_the_key_changes_with_the_configuration(change):
    config = {"row": "3.1", "seed": 0, "lr": 1e-5}
    assert run_key(config, "c", "e", 1) != run_key(config | change, "c", "e", 1)


def test_the_key_changes_with_corpus_encoder_and_version():
    keys = {
        run_key({}, *rest) for rest in [("c", "e", 1), ("d", "e", 1), ("c", "f", 1), ("c", "e", 2)]
    }
    assert len(keys) == 4


def test_a_run_holds_no_sentence(tmp_path):
    folder = RunStore(tmp_path).put(replace(make_run(), key="k"))
    assert set(json.loads((folder / "run.json").read_text(encoding="utf-8"))) == {
        "config", "metrics", "history", "provenance", "key", "splits",
        "sha256", "predictions_sha256",
    }  # fmt: skip


@pytest.mark.parametrize("part", ["run", "split"])
def test_what_another_process_has_mended_meanwhile_is_not_set_aside(tmp_path, monkeypatch, part):
    store, run = RunStore(tmp_path), make_run()
    folder = store.put(run)
    path = folder / "run.json" if part == "run" else next((tmp_path / "splits").glob("*.npz"))
    whole = path.read_bytes()
    path.write_bytes(b"damaged")
    moving = RunStore._moving

    def mended_first(self):
        path.write_bytes(whole)  # by a process that held the lock before
        return moving(self)

    monkeypatch.setattr(RunStore, "_moving", mended_first)
    assert same(store.get(run.key), run)
    assert not (tmp_path / "damaged").exists()


def test_the_runs_of_some_rows_are_found_without_reading_the_others(tmp_path, monkeypatch):
    store = RunStore(tmp_path)
    for row in ("3.1", "3.10", "sst-seed"):
        store.put(make_run(row))
    read, whole = [], RunStore._read
    monkeypatch.setattr(
        RunStore, "_read", lambda self, folder: read.append(folder.name) or whole(self, folder)
    )
    assert [run.config["row"] for run in store.runs(["3.1", "sst-seed"])] == ["3.1", "sst-seed"]
    assert sorted(name.rsplit("-", 1)[0] for name in read) == ["3.1-seed0", "sst-seed-seed0"]
