import json
from dataclasses import replace

import numpy as np
import pytest

from mtl_lib.errors import RunError
from mtl_lib.results import Run, RunStore, run_key


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


def test_runs_are_chosen_by_their_configuration(tmp_path):
    store = RunStore(tmp_path)
    store.put(make_run("3.1"))
    store.put(make_run("3.2"))
    assert [run.config["row"] for run in store.runs(row="3.2", profile="quick")] == ["3.2"]


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


def test_a_damaged_run_is_named_and_left_in_place(tmp_path):
    folder = RunStore(tmp_path).put(make_run())
    text = (folder / "run.json").read_text()
    (folder / "run.json").write_text(text[: len(text) // 2])
    with pytest.raises(RunError, match="damaged run"):
        RunStore(tmp_path).runs()
    assert folder.is_dir()


def test_a_run_without_its_predictions_is_damaged(tmp_path):
    run, store = make_run(), RunStore(tmp_path)
    (store.put(run) / "predictions.npz").unlink()
    with pytest.raises(RunError, match=r"predictions\.npz"):
        store.get(run.key)


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
    assert set(json.loads((folder / "run.json").read_text())) == {
        "config", "metrics", "history", "provenance", "key", "splits",
    }  # fmt: skip
