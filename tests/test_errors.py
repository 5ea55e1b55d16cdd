"""What a refusal of the operating system is told to the reader."""

import errno
import os

import pytest

from mtl_lib import paths
from mtl_lib.errors import explain


def refused(code, path=None):
    return OSError(code, os.strerror(code), *([str(path)] if path else []))


@pytest.fixture(autouse=True)
def folders(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "BUILD", tmp_path / "work" / "build")
    monkeypatch.setattr(paths, "FIGURES", tmp_path / "work" / "figures")
    return tmp_path


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC])
@pytest.mark.parametrize(
    ("place", "variable", "other"),
    [
        ("work/figures/.figure_3.png.1.tmp", "MTL_FIGURES", "MTL_BUILD"),
        ("work/figures", "MTL_FIGURES", "MTL_BUILD"),
        ("work/build/runs/quick", "MTL_BUILD", "MTL_FIGURES"),
    ],
)
def test_the_variable_that_moves_the_folder_is_named(folders, code, place, variable, other):
    said = explain(refused(code, folders / place))
    assert said.startswith(os.strerror(code)) and variable in said and other not in said


def test_figures_within_the_working_files_are_moved_by_their_own_variable(folders, monkeypatch):
    monkeypatch.setattr(paths, "FIGURES", paths.BUILD / "figures")
    said = explain(refused(errno.EACCES, paths.FIGURES / "figure_2.csv"))
    assert "MTL_FIGURES" in said and "MTL_BUILD" not in said


def test_a_folder_above_that_cannot_be_made_names_what_lies_below(folders):
    said = explain(refused(errno.EACCES, folders / "work"))
    assert "MTL_FIGURES or MTL_BUILD" in said


def test_a_file_that_no_variable_moves_names_none(folders):
    said = explain(refused(errno.EACCES, folders / "corpus" / "dev.csv"))
    assert said == "Permission denied; choose a folder that you may read and write"


def test_where_the_file_is_not_known_both_are_named():
    for error in (refused(errno.ENOSPC), RuntimeError("I/O error (os error 28)")):
        said = explain(error)
        assert "; free some space, or set MTL_FIGURES or MTL_BUILD to a folder" in said


def test_limits_are_no_matter_of_folders(folders):
    said = explain(refused(errno.EFBIG, paths.BUILD / "x"))
    assert said == "File too large; raise the limit on file sizes (`ulimit -f`)"


def test_other_faults_are_said_in_the_systems_words():
    assert explain(refused(errno.ENOENT, "x")) == os.strerror(errno.ENOENT)
    assert explain(ValueError("a word")) == "a word"
