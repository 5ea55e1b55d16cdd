"""The study as a queue: its order, where its runs stand, and the checkout that computes them."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small import small_encoder, small_tokenizer
from test_runs import write_corpus

from mtl_lib.errors import ConfigError, CorpusError
from mtl_lib.pretrained import save_encoder
from mtl_lib.study import queue as module
from mtl_lib.study.profiles import PROFILES
from mtl_lib.study.queue import QUEUE, Study, collect, corpus_for, fixed_code, queue
from mtl_lib.study.rows import ALL_ROWS, FIGURE_3, FIGURE_4, FORENSIC, FROZEN, SINGLE_TASK
from mtl_lib.study.store import Run, RunStore

KEY_ROWS = ["frozen-1e-3", "frozen-1e-5", "3.1", "3.2", "3.10", "4.6"]


def entries(profile, rows, *seeds):
    return [(profile, row, seed) for seed in seeds for row in rows]


def test_the_rows_that_carry_the_story_come_first_with_one_seed_then_the_figures():
    assert list(QUEUE[:6]) == entries("paper", KEY_ROWS, 0)
    others = [row for row in FIGURE_3 | FIGURE_4 if row not in KEY_ROWS]
    following = list(QUEUE[6 : 6 + len(others) + len(FORENSIC)])
    assert following == entries("paper", [*others, *FORENSIC], 0)


def test_more_seeds_of_the_key_rows_come_before_the_second_profile():
    positions = [i for i, entry in enumerate(QUEUE) if entry in entries("paper", KEY_ROWS, 1, 2)]
    assert len(positions) == 12
    assert max(positions) < min(i for i, (profile, *_) in enumerate(QUEUE) if profile != "paper")


def test_no_run_is_in_the_queue_twice():
    assert len(set(QUEUE)) == len(QUEUE)


@pytest.mark.parametrize("profile", ["paper", "converged"])
def test_the_queue_covers_every_row_of_its_profiles(profile):
    with_seed_0 = {row for of, row, seed in QUEUE if of == profile and seed == 0}
    assert with_seed_0 == set(PROFILES[profile].rows)


def test_the_figures_and_the_hypotheses_have_three_seeds():
    three = [*FIGURE_3, *FIGURE_4, *FROZEN, *FORENSIC]
    assert set(entries("paper", three, 0, 1, 2)) <= set(QUEUE)
    whole = [row for row in PROFILES["converged"].rows if not ALL_ROWS[row].without]
    assert set(entries("converged", whole, 0, 1, 2)) <= set(QUEUE)


def test_the_whole_queue_is_what_is_asked_for_without_words():
    assert queue() == list(QUEUE)


def test_rows_and_seeds_narrow_the_queue_in_its_order():
    assert queue(rows="4.6,3.1", seeds="0") == [
        ("paper", "3.1", 0), ("paper", "4.6", 0), ("converged", "3.1", 0),
    ]  # fmt: skip
    assert queue(seeds="2") == [entry for entry in QUEUE if entry[2] == 2]


def test_a_profile_gives_its_rows_with_the_seeds_asked_for_in_the_queue_or_not():
    assert queue("quick", "3.2,3.1", "7,8") == entries("quick", ["3.1", "3.2"], 7, 8)
    assert queue("converged") == entries("converged", PROFILES["converged"].rows, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"profile": "laptop"}, "profile 'laptop': choose from"),
        ({"rows": "3.11"}, r"unknown row 3\.11"),
        ({"profile": "paper", "rows": "3.11"}, r"unknown row 3\.11"),
        ({"seeds": "one"}, "seeds 'one'"),
        ({"rows": "3.3", "seeds": "7"}, "no run of .*3.3.*7"),
        ({"profile": "paper", "rows": "compare"}, "no run of .*compare"),
    ],
)
def test_a_queue_of_nothing_is_refused_with_what_was_asked_for(arguments, message):
    with pytest.raises(ConfigError, match=message):
        queue(**arguments)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("encoder")
    save_encoder(folder, small_encoder(), small_tokenizer())
    return str(folder)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def study(encoder, data, tmp_path) -> Study:
    """Two profiles, two rows, two seeds: eight runs, none of them done."""
    runs = [*entries("paper", ["3.1", "3.2"], 0, 1), *entries("converged", ["3.1", "3.2"], 0, 1)]
    return Study(runs, data, encoder, tmp_path / "study", tmp_path / "results")


def finished(study, key, seconds=3600.0) -> Run:
    """A run that says it is the one with this key."""
    return Run(
        config=study.configs[key].as_dict(),
        metrics={},
        history=[],
        predictions={"similarity": np.zeros((2, 1), np.float32)},
        labels={"similarity": np.zeros(2, np.float32)},
        ids={"similarity": ["a", "b"]},
        provenance={"seconds": seconds},
        key=key,
    )


def names(configs):
    return [(config.profile, config.row, config.seed) for config in configs]


def test_the_runs_of_a_study_are_in_the_order_of_its_queue(study):
    runs = [*entries("paper", ["3.1", "3.2"], 0, 1), *entries("converged", ["3.1", "3.2"], 0, 1)]
    assert names(study.configs.values()) == runs


def test_the_status_counts_what_is_done_running_begun_and_left(study):
    done, committed, running, begun, *_ = study.configs
    study.store.put(finished(study, done))
    RunStore(study.results / "paper").put(finished(study, committed))
    study.store.checkpoint_folder(study.configs[begun].as_dict(), begun).mkdir(parents=True)
    study.store.checkpoint_folder(study.configs[running].as_dict(), running).mkdir(parents=True)
    with study.store.lock(running):
        *lines, last = study.status().splitlines()
    assert [line.split(maxsplit=1) for line in lines] == [
        ["running", "paper 3.1, seed 1"],
        ["begun", "paper 3.2, seed 1"],
    ]
    assert last.startswith("8 runs: 2 done, 1 running, 1 begun, 4 left, ")
    assert study.status().endswith("1 at a time")


def test_what_is_left_should_take_as_long_as_other_seeds_of_its_row_took(study):
    seed_0 = next(iter(study.configs))
    study.store.put(finished(study, seed_0, seconds=7200.0))
    expected = 7200 + 2 * PROFILES["paper"].seconds + 4 * PROFILES["converged"].seconds
    assert f"about {expected / 3600:.1f} hours to go, 1 at a time" in study.status()


def test_two_runs_at_a_time_take_half_as_long(study):
    first, second, *_ = study.configs
    expected = 4 * PROFILES["paper"].seconds + 4 * PROFILES["converged"].seconds
    with study.store.lock(first), study.store.lock(second):
        assert f"about {expected / 3600 / 2:.1f} hours to go, 2 at a time" in study.status()


def test_finished_runs_are_collected_by_profile_and_once(study):
    paper, *_, converged = study.configs
    for key in (paper, converged):
        study.store.put(finished(study, key))
    where = study.store.directory.parent, study.results
    folders = collect(*where)
    assert {folder.parent for folder in folders} == {
        study.results / "paper", study.results / "converged",
    }  # fmt: skip
    assert RunStore(study.results / "paper").get(paper).config["row"] == "3.1"
    assert RunStore(study.results / "converged").get(converged).key == converged
    assert collect(*where) == []
    assert [run.key for run in study.store.runs()]  # a copy: the study keeps its own


def test_a_run_under_way_is_not_collected(study):
    key = next(iter(study.configs))
    study.store.checkpoint_folder(study.configs[key].as_dict(), key).mkdir(parents=True)
    assert collect(study.store.directory.parent, study.results) == []
    assert not study.results.exists()


def test_a_run_that_was_cut_short_is_not_collected(study):
    run = finished(study, next(iter(study.configs)))
    study.store.put(replace(run, config=run.config | {"max_steps": 5}))
    assert collect(study.store.directory.parent, study.results) == []


def test_what_is_committed_or_done_is_not_trained_again(study, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(module, "run_all", lambda *given, **options: asked.append((given, options)))
    done, committed, *left = study.configs
    study.store.put(finished(study, done))
    RunStore(study.results / "paper").put(finished(study, committed))
    study.run(jobs=1)
    ((configs, data, store), options) = asked[0]
    assert names(configs) == names(study.configs[key] for key in left)
    assert (data, store, options) == (study.data, study.store, {"jobs": 1, "threads": 1})
    assert "8 runs: 2 done" in capsys.readouterr().out


def test_a_run_of_another_profile_is_not_taken_for_a_committed_one(study):
    key = next(iter(study.configs))
    RunStore(study.results / "converged").put(finished(study, key))
    assert study.done() == {}


def test_as_many_runs_at_a_time_as_cores_unless_told_otherwise(study, monkeypatch):
    asked = []
    monkeypatch.setattr(module, "run_all", lambda *given, **options: asked.append(options["jobs"]))
    monkeypatch.setattr(module.os, "cpu_count", lambda: 7)
    study.run()
    study.run(jobs=3)
    assert asked == [7, 3]
    with pytest.raises(ConfigError, match="jobs = -1"):
        study.run(jobs=-1)


def test_rows_whose_task_the_corpus_lacks_are_no_part_of_the_study(encoder, data, tmp_path):
    runs = entries("paper", ["3.1", "cfimdb-frozen"], 0)
    study = Study(runs, data, encoder, tmp_path / "study", tmp_path / "results")
    assert names(study.configs.values()) == [("paper", "3.1", 0)]
    with pytest.raises(ConfigError, match="has no task of these runs"):
        Study(runs[1:], data, encoder, tmp_path / "study", tmp_path / "results")
    assert "cfimdb-frozen" in SINGLE_TASK


def test_a_corpus_that_does_not_exist_is_named(encoder, tmp_path):
    with pytest.raises(CorpusError, match="nowhere"):
        Study(entries("paper", ["3.1"], 0), str(tmp_path / "nowhere"), encoder, tmp_path, tmp_path)


def test_the_named_corpus_is_the_queues_as_an_absolute_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cs224n").mkdir()
    assert corpus_for(list(QUEUE), "cs224n") == str(tmp_path / "cs224n")
    assert corpus_for(list(QUEUE), "handbook") == "handbook"


def test_without_a_name_the_corpus_is_the_profiles(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FETCHED", tmp_path / "cs224n")
    (tmp_path / "cs224n").mkdir()
    assert corpus_for(entries("quick", ["3.1"], 0)) == "handbook"
    assert corpus_for(list(QUEUE)) == str(tmp_path / "cs224n")
    with pytest.raises(ConfigError, match="name a corpus .`--data`. or one of them .`--profile`"):
        corpus_for([*entries("quick", ["3.1"], 0), *QUEUE])


def test_without_the_real_corpora_the_study_says_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FETCHED", tmp_path / "cs224n")
    with pytest.raises(ConfigError, match="mtl data fetch.*by `--data`"):
        corpus_for(list(QUEUE))
    with pytest.raises(ConfigError, match="nowhere: no such folder"):
        corpus_for(list(QUEUE), "nowhere")


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", "-C", str(folder), *who, *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def clone(tmp_path, monkeypatch) -> Path:
    """A repository with one commit in place of this one."""
    folder = tmp_path / "clone"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "code.py").write_text("version = 1\n")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "one")
    monkeypatch.setattr(module, "ROOT", folder)
    return folder


def test_the_study_has_a_checkout_of_the_commit_at_which_it_was_started(clone, tmp_path):
    (clone / "code.py").write_text("version = 'not committed'\n")
    code = fixed_code(tmp_path / "study")
    assert code == tmp_path / "study" / "code"
    assert (code / "code.py").read_text(encoding="utf-8") == "version = 1\n"
    started = git(code, "rev-parse", "HEAD")
    git(clone, "commit", "-q", "-a", "-m", "two")
    assert fixed_code(tmp_path / "study") == code
    assert git(code, "rev-parse", "HEAD") == started != git(clone, "rev-parse", "HEAD")
    assert (code / "code.py").read_text(encoding="utf-8") == "version = 1\n"


def test_a_removed_checkout_is_made_anew_of_the_present_commit(clone, tmp_path):
    code = fixed_code(tmp_path / "study")
    (clone / "code.py").write_text("version = 2\n")
    git(clone, "commit", "-q", "-a", "-m", "two")
    for path in sorted(code.rglob("*"), reverse=True):
        path.unlink()
    code.rmdir()
    assert fixed_code(tmp_path / "study") == code
    assert (code / "code.py").read_text(encoding="utf-8") == "version = 2\n"


def test_where_there_is_no_git_checkout_the_study_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(ConfigError, match="git cannot make one"):
        fixed_code(tmp_path / "study")


def package(folder: Path, name: str) -> Path:
    """A library whose command says which one it is, with what it was started."""
    (folder / "mtl_lib").mkdir(parents=True)
    (folder / "mtl_lib" / "__init__.py").touch()
    (folder / "mtl_lib" / "cli.py").write_text(
        "import json, os, sys\n"
        "def main():\n"
        f"    print(json.dumps([{name!r}, sys.argv[1:], os.environ['MTL_BUILD']]))\n"
        "    return 3\n"
    )
    return folder


@pytest.mark.skipif(sys.platform == "win32", reason="a process cannot be replaced there")
def test_the_study_is_computed_by_its_checkout_even_from_within_another(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(module.os, "nice", lambda more: None, raising=False)
    monkeypatch.setattr(module.os, "execve", lambda *given: started.append(given) or sys.exit())
    code = package(tmp_path / "study" / "code", "fixed")
    with pytest.raises(SystemExit):
        module.become(["study", "run", "--here"], code)
    ((program, command, environment),) = started
    assert program == command[0] == sys.executable
    here = package(tmp_path / "here", "here")
    done = subprocess.run(command, env=environment, cwd=here, capture_output=True, text=True)
    assert done.returncode == 3, done.stderr
    build = os.fspath(module.BUILD)
    assert json.loads(done.stdout) == ["fixed", ["study", "run", "--here"], build]


def test_where_no_process_can_be_replaced_the_study_runs_in_another_and_gives_its_status(
    tmp_path, monkeypatch, capfd
):
    monkeypatch.setattr(module.sys, "platform", "win32")
    for name in ("nice", "execve"):
        monkeypatch.delattr(module.os, name, raising=False)
    code = package(tmp_path / "study" / "code", "fixed")
    assert module.become(["study", "status", "--here"], code) == 3
    assert json.loads(capfd.readouterr().out)[:2] == ["fixed", ["study", "status", "--here"]]
