"""A class's reports, summed up."""

import json
import os
from types import SimpleNamespace
from unittest.mock import MagicMock

import pandas as pd
import pytest

from mtl_lib import cli
from mtl_lib.errors import ConfigError
from mtl_lib.handbook import classroom
from mtl_lib.handbook.checks import CHAPTERS
from mtl_lib.paths import ROOT

FIRST, SECOND = CHAPTERS["01"][0].name, CHAPTERS["03"][0].name
RIGHT = {"passed": True, "message": "Right.", "mistake": None}
NAMED = {"passed": False, "message": "It divides by H.", "mistake": "divides by H"}
OTHER = {"passed": False, "message": "It differs.", "mistake": None}


@pytest.fixture
def folder(tmp_path):
    reports = {
        "ada": {FIRST: NAMED, SECOND: RIGHT},
        "ben": {FIRST: NAMED, "an exercise of another release": RIGHT},
        "cid": {FIRST: RIGHT, SECOND: OTHER},
    }
    for name, report in reports.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(report), encoding="utf-8")
    return tmp_path


def test_it_counts_who_tried_who_passed_and_the_most_common_mistake(folder):
    table = classroom.by_exercise(classroom.read_reports(sorted(folder.glob("*.json"))))
    assert table.values.tolist() == [
        ["01", FIRST, 3, 1, "2 x divides by H"],
        ["03", SECOND, 2, 1, ""],
    ]


def test_the_picture_has_a_bar_for_each_exercise_that_not_all_have_passed(folder):
    (ax,) = classroom.draw(classroom.read_reports(folder.glob("*.json"))).axes
    named, other = ax.containers
    assert [label.get_text() for label in ax.get_yticklabels()] == [SECOND, FIRST]
    assert [bar.get_width() for bar in named] == [0, 2]
    assert [bar.get_width() for bar in other] == [1, 0]


def test_the_pictures_key_covers_no_bar_and_its_axis_counts_students(folder):
    picture = classroom.draw(classroom.read_reports(folder.glob("*.json")))
    picture.draw_without_rendering()
    (ax,) = picture.axes
    (key,) = picture.legends
    assert not key.get_window_extent().overlaps(ax.get_window_extent())
    assert ax.get_xlabel() == "students" and all(tick % 1 == 0 for tick in ax.get_xticks())


def test_the_command_writes_table_and_picture(folder, tmp_path, capsys):
    assert cli.main(["class", str(folder), "--out", str(tmp_path / "out")]) == 0
    assert len(pd.read_csv(tmp_path / "out" / "class.csv")) == 2
    assert (tmp_path / "out" / "class.png").stat().st_size > 1000
    assert "class.png" in capsys.readouterr().out


def test_each_report_may_lie_in_a_folder_of_the_students_own(folder, tmp_path):
    for report in list(folder.glob("*.json")):
        (folder / report.stem).mkdir()
        report.rename(folder / report.stem / report.name)
    table, _ = classroom.sum_up(folder, tmp_path / "out")
    assert table["tried"].tolist() == [3, 2]


def test_reports_of_one_name_in_folders_of_their_own_are_of_as_many_students(folder):
    for report in list(folder.glob("*.json")):
        (folder / report.stem).mkdir()
        report.rename(folder / report.stem / "report.json")
    answers = classroom.read_reports(sorted(folder.rglob("*.json")))
    assert answers["student"].nunique() == 3
    assert classroom.draw(answers).axes[0].get_title(loc="left").endswith("of 3 students")


@pytest.mark.parametrize(
    "other", [".ipynb_checkpoints/ada-checkpoint.json", "__MACOSX/._ada.json", ".trash/ada.json"]
)
def test_what_jupyter_and_a_mac_add_is_no_student(other, folder, tmp_path):
    (folder / other).parent.mkdir()
    (folder / other).write_text("no report")
    table, _ = classroom.sum_up(folder, tmp_path / "out")
    assert table["tried"].tolist() == [3, 2]


def test_reports_may_lie_below_a_hidden_folder(folder, tmp_path):
    (tmp_path / ".class").mkdir()
    for report in list(folder.glob("*.json")):
        report.rename(tmp_path / ".class" / report.name)
    assert len(classroom.sum_up(tmp_path / ".class", tmp_path / "out")[0]) == 2


def test_a_report_saved_with_a_byte_order_mark_is_read(tmp_path):
    (tmp_path / "ada.json").write_text(json.dumps({FIRST: RIGHT}), encoding="utf-8-sig")
    assert classroom.read_reports([tmp_path / "ada.json"])["passed"].tolist() == [True]


def test_a_students_words_cannot_act_on_the_instructors_terminal(tmp_path, capsys):
    report = {FIRST: NAMED | {"mistake": "\x1b]0;owned\x07\n\x1b[2Jall passed"}}
    (tmp_path / "eve.json").write_text(json.dumps(report))
    assert cli.main(["class", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed and "\x07" not in printed and r"\x1b[2Jall passed" in printed


@pytest.mark.parametrize("mistake", [["a"], {"a": "b"}, 7, False])
def test_a_mistake_that_is_no_text_is_refused_by_file(mistake, tmp_path):
    (tmp_path / "eve.json").write_text(json.dumps({FIRST: NAMED | {"mistake": mistake}}))
    with pytest.raises(ConfigError, match=rf"eve\.json: no report .*mistake of {FIRST}"):
        classroom.sum_up(tmp_path, tmp_path / "out")


def test_a_file_that_is_no_report_is_named(folder):
    (folder / "dan.json").write_text("[1]", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"dan\.json: no report"):
        classroom.sum_up(folder, folder)


def test_reports_of_another_release_are_named(tmp_path):
    (tmp_path / "eve.json").write_text('{"an exercise of another release": {}}', encoding="utf-8")
    with pytest.raises(ConfigError, match="no exercise of this release"):
        classroom.sum_up(tmp_path, tmp_path)


def test_a_folder_without_reports_says_how_they_are_written(tmp_path):
    with pytest.raises(ConfigError, match="MTL_REPORT"):
        classroom.sum_up(tmp_path, tmp_path)


def test_a_folder_of_reports_that_is_none_is_named(tmp_path):
    with pytest.raises(ConfigError, match="nowhere: no such folder"):
        classroom.sum_up(tmp_path / "nowhere", tmp_path)


def test_the_class_server_gives_each_student_files_that_only_they_can_read(tmp_path, monkeypatch):
    """docs/jupyterhub_config.py, with a stand-in for JupyterHub and for root's right to give."""
    owners = {}
    monkeypatch.setattr(os, "chown", lambda path, *owner: owners.update({str(path): owner}))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MTL_REPORTS", str(tmp_path / "reports"))
    monkeypatch.setenv("MTL_HUB", str(tmp_path / "hub"))
    (tmp_path / "home").mkdir()
    handbook = tmp_path / "handbook"
    (handbook / "docs").mkdir(parents=True)
    (handbook / "build" / "student").mkdir(parents=True)
    (handbook / "build" / "student" / "00_start_here.ipynb").write_text("{}")
    source = (ROOT / "docs" / "jupyterhub_config.py").read_text(encoding="utf-8")
    c = MagicMock()
    c.Spawner.environment = {}
    names = {"__file__": str(handbook / "docs" / "jupyterhub_config.py"), "get_config": lambda: c}
    exec(compile(source, "jupyterhub_config.py", "exec"), names)
    student = SimpleNamespace(user=SimpleNamespace(name=""))  # whose home is ~
    c.Spawner.pre_spawn_hook(student)
    lesson = tmp_path / "home" / "handbook" / "00_start_here.ipynb"
    assert lesson.stat().st_mode & 0o777 == 0o600 and str(lesson) in owners
    lesson.write_text("mine")
    c.Spawner.pre_spawn_hook(student)  # the second time nothing is copied
    assert lesson.read_text() == "mine"
    assert (tmp_path / "reports").stat().st_mode & 0o777 == 0o711
    assert (tmp_path / "hub").stat().st_mode & 0o777 == 0o700
