"""The reader's own library: what passes is kept as written, and put together in one file."""

import itertools
import linecache
import math
import os
import subprocess
import sys

import nbformat
import pytest
import torch

from mtl_lib.handbook import mine
from mtl_lib.handbook import reproduce as handbook
from mtl_lib.handbook.checks import CHAPTERS, EXERCISES, check
from mtl_lib.handbook.mine import mine_folder

CELLS = itertools.count()


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MTL_MINE", str(tmp_path / "mine"))
    return tmp_path / "mine"


def run(source: str, names: dict | None = None) -> dict:
    """Run a cell as a kernel does, so that its source can be found; the notebook's names."""
    names = {"__name__": "__main__"} if names is None else names
    file = f"<cell {next(CELLS)}>"
    linecache.cache[file] = (len(source), None, source.splitlines(True), file)
    exec(compile(source, file, "exec"), names)
    return names


def keep(name: str, source: str, names: dict | None = None) -> str:
    """Keep the answer that a cell defines; the text of its file."""
    mine.keep(name, run(source, names)[name])
    return (mine_folder() / "answers" / f"{name}.py").read_text()


SCORES = """def scores(q, k):
    # my own words
    return q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
"""
GIVEN = torch.ones(1, 2, 3, 4), torch.ones(1, 2, 3, 4)


def test_an_answer_that_passes_is_kept_as_written(folder, capsys):
    check("scores", run(SCORES)["scores"])
    assert (folder / "answers" / "scores.py").read_text() == SCORES
    assert "# my own words" in (folder / "mine.py").read_text()
    assert mine.load().scores(*GIVEN).unique() == 2.0


def test_an_answer_that_fails_is_not_kept(folder):
    check("scores", run("def scores(q, k):\n    return q")["scores"])
    assert not folder.exists()


def test_a_solution_of_the_handbook_is_nobodys_answer(folder, capsys):
    marked = SCORES.replace("# my own words", "### BEGIN SOLUTION") + "    ### END SOLUTION\n"
    check("scores", run(marked)["scores"])
    assert "scores" in capsys.readouterr().out and not folder.exists()


def test_an_earlier_answer_is_put_aside_and_the_same_one_is_not_kept_twice(folder):
    for line in ("# first", "# first", "# second", "# third"):
        keep("scores", SCORES.replace("# my own words", line))
    assert "# third" in (folder / "answers" / "scores.py").read_text()
    earlier = [(folder / "earlier" / f"scores-{number}.py").read_text() for number in (1, 2)]
    assert "# first" in earlier[0] and "# second" in earlier[1]
    assert len(list((folder / "earlier").iterdir())) == 2


def test_a_file_that_is_no_text_any_more_is_put_aside_too(folder):
    keep("scores", SCORES)
    (folder / "answers" / "scores.py").write_bytes(b"# r\xe9sum\xe9\n")  # saved as Latin-1
    keep("scores", SCORES)
    assert (folder / "earlier" / "scores-1.py").read_bytes() == b"# r\xe9sum\xe9\n"
    assert (folder / "answers" / "scores.py").read_text() == SCORES


def test_a_library_saved_in_another_encoding_is_put_together_again(folder):
    keep("scores", SCORES)
    whole = (folder / "mine.py").read_bytes()
    (folder / "mine.py").write_bytes(whole + "# café\n".encode("cp1252"))
    keep("scores", SCORES)
    assert (folder / "mine.py").read_bytes() == whole


def test_an_answer_stays_where_it_is_until_the_next_is_written(folder, monkeypatch):
    keep("scores", SCORES)

    def full(path, text):
        raise OSError("No space left on device")

    monkeypatch.setattr(mine, "write_text", full)
    with pytest.raises(mine.NotKept, match="No space left"):
        keep("scores", SCORES.replace("# my own words", "# second"))
    assert (folder / "answers" / "scores.py").read_text() == SCORES


def test_imports_helpers_and_constants_come_along():
    names = run("import math\nimport torch.nn.functional as F\nfrom torch import Tensor, einsum")
    run("LIMIT, FAR, BOTH = 1e-3, float('-inf'), (1.0, float('inf'))", names)
    run("def square(x):\n    return x**2 + LIMIT", names)
    text = keep(
        "scores",
        "def scores(q: Tensor, k):\n"
        "    size = square(math.sqrt(q.shape[-1]))\n"
        "    return F.relu(einsum('bald,bamd->balm', q, k)) / size, FAR, BOTH, len(q)\n",
        names,
    )
    assert text.startswith(
        "from torch import Tensor\nfrom torch import einsum\nimport math\n"
        "import torch.nn.functional as F\n"
    )
    alone = {}
    exec(text, alone)
    value, far, both, length = alone["scores"](*GIVEN)
    assert value.unique() == pytest.approx(4 / (4 + 1e-3))
    assert (far, both, length) == (-math.inf, (1.0, math.inf), 1)


def test_a_helper_named_as_one_of_pythons_comes_along():
    names = run("def sum(x):\n    return x.sum()")
    assert "def sum(x)" in keep("scores", "def scores(q, k):\n    return sum(q)", names)


def test_a_numpy_number_is_kept_as_pythons():
    names = run("import numpy as np\nROOT = np.sqrt(4.0)")
    assert "ROOT = 2.0" in keep("scores", "def scores(q, k):\n    return q / ROOT", names)


def test_a_name_that_one_method_binds_and_another_reads_comes_along():
    names = run("from math import sqrt")
    text = keep(
        "scores",
        "class scores:\n"
        "    def one(self, sqrt):\n        return sqrt\n"
        "    def two(self):\n        return sqrt(2)\n",
        names,
    )
    assert text.startswith("from math import sqrt\n")


@pytest.mark.parametrize(
    "source",
    [
        "scores = lambda q, k: q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5",
        "import torch\n\n@torch.no_grad()\n" + SCORES,
        "import functools\n\n@functools.cache\n" + SCORES,
        SCORES.replace("scores", "mine_at_last") + "\nscores = mine_at_last\n",
        "if True:\n    unused = 1\n" + SCORES,
    ],
    ids=["lambda", "decorated", "cached", "other name", "not alone in its cell"],
)
def test_it_may_be_written_in_other_ways(source):
    keep("scores", source)
    assert mine.load().scores(*GIVEN).unique() == 2.0


def test_a_class_is_kept_with_its_methods_and_its_base():
    names = run("from torch import nn")
    text = keep(
        "scores",
        "class scores(nn.Module):\n    def forward(self, q, k):\n        return q + k\n",
        names,
    )
    assert text.startswith("from torch import nn\n\n\nclass scores(nn.Module):\n")
    assert mine.load().scores()(*GIVEN).unique() == 2.0


REFUSED = {
    "nested": ("def make():\n" + "".join(f"    {line}\n" for line in SCORES.splitlines())
               + "    return scores\nscores = make()", "outermost level of a cell"),
    "in a branch": ("if True:\n    def scores(q, k):\n        return q", "outermost level"),
    "built in": ("scores = max", "not written out as a function or a class"),
    "a tensor outside": ("import torch\nW = torch.ones(2)\ndef scores(q, k):\n    return q @ W",
                         "scores uses W of another cell, Tensor: hand it in, or set it inside"),
    "nowhere": ("def scores(q, k):\n    return q @ nowhere", "uses nowhere, which no cell defines"),
}  # fmt: skip


@pytest.mark.parametrize("source, message", REFUSED.values(), ids=REFUSED)
def test_what_cannot_stand_alone_is_refused_with_the_reason(source, message, folder):
    with pytest.raises(mine.NotKept, match=message):
        keep("scores", source)
    assert not folder.exists()


def test_a_check_says_that_an_answer_is_not_kept_and_goes_on(capsys):
    source = "import torch\nHALF = torch.tensor(0.5)\n" + SCORES.replace("0.5", "HALF")
    answer = run(source)["scores"]
    assert check("scores", answer) is answer
    assert "It is not kept for later chapters: scores uses HALF" in capsys.readouterr().out


def test_helpers_of_one_name_that_differ_are_refused():
    keep("scores", "def half(x):\n    return x / 2\n\ndef scores(q, k):\n    return half(q)")
    with pytest.raises(mine.NotKept, match="its half is another one in your answer scores"):
        keep("project", "half = 0.5\n\ndef project(g, other):\n    return half * g")
    keep("project", "def half(x):\n    return x / 2\n\ndef project(g, other):\n    return half(g)")
    assert (mine_folder() / "mine.py").read_text().count("def half") == 1


MASKED = "def attend(q, k, v, mask, dropout):\n    return scores(q, k)"


@pytest.mark.parametrize(
    "source, name",
    [
        ("def project(x):\n    return x\n\ndef scores(q, k):\n    return project(q)", "project"),
        ("dropout = 0.1\n\ndef scores(q, k):\n    return q * dropout", "dropout"),
        ("share_right = 0.1\n\ndef scores(q, k):\n    return q * share_right", "share_right"),
        ("share_right = []\n\ndef scores(q, k):\n    return share_right", "share_right"),
        ("def share_right(x):\n    return x\n\ndef scores(q, k):\n    return share_right(q)",
         "share_right"),
        ("def fit(x):\n    return x\n\ndef half(x):\n    return fit(x)\n\n"
         "def scores(q, k):\n    return half(q)", "fit"),
    ],
    ids=["of a later one", "constant", "of an earlier one", "a list", "other function", "helper's"],
)  # fmt: skip
def test_a_helper_that_is_named_like_an_exercise_is_refused(source, name, folder):
    message = f"uses {name}, which is an exercise's name: check that one first, or give"
    with pytest.raises(mine.NotKept, match=message):
        keep("scores", source)
    assert not folder.exists()


def test_an_earlier_exercises_function_is_used_whosever_it_is(folder):
    keep("attend", MASKED, {"scores": EXERCISES["scores"].reference})  # the library's
    names: dict = {}
    keep("scores", SCORES, names)
    keep("attend", MASKED, names)  # one's own of this notebook
    keep("attend", MASKED, {"scores": mine.load().scores})  # one's own of a chapter before
    assert (folder / "answers" / "attend.py").read_text() == MASKED + "\n"


def test_pieces_call_each_other_and_the_library_lends_what_is_missing():
    keep("scores", "def scores(q, k):\n    return q.new_zeros(1)")
    keep("attend", "def attend(q, k, v, mask, dropout):\n    return scores(q, k), mask_scores")
    value, lent = mine.load().attend(*GIVEN, None, None, None)
    assert value == 0.0
    assert lent is EXERCISES["mask_scores"].reference


def test_an_answer_that_a_piece_calls_comes_along_though_it_is_no_piece():
    other = next(name for name, exercise in EXERCISES.items() if not exercise.section)
    keep("scores", f"def scores(q, k):\n    return {other}")
    assert getattr(mine.load(), other) is EXERCISES[other].reference
    keep(other, f"def {other}():\n    return 7")
    assert mine.load().scores(None, None)() == 7


@pytest.mark.parametrize(
    "edited, reason",
    [
        ("def scores(q, k:\n", "SyntaxError"),
        ("def scores(q, k):\n    return q\n\n1 / 0\n", "ZeroDivisionError: division by zero"),
        ("def score(q, k):\n    return q\n", "NameError: it defines no scores"),
        ("", "NameError: it defines no scores"),
    ],
)
def test_an_edited_answer_that_is_broken_gives_way_to_the_library(edited, reason, folder, capsys):
    keep("scores", SCORES)
    (folder / "answers" / "scores.py").write_text(edited)
    assert mine.load().scores is EXERCISES["scores"].reference
    assert f"scores: yours cannot be used here ({reason}" in capsys.readouterr().out
    keep("project", "def project(g, other):\n    return g")  # goes on to be kept


def test_the_file_runs_by_itself_in_a_new_python(folder):
    keep("scores", SCORES)
    command = "import mine, torch; print(mine.scores(torch.ones(2, 4), torch.ones(2, 4)).sum())"
    run = subprocess.run(
        [sys.executable, "-c", command], cwd=folder, capture_output=True, text=True, check=True
    )
    assert run.stdout == "tensor(8.)\n"


def test_a_folder_that_cannot_be_written_is_named(folder):
    folder.write_text("a file, no folder")
    with pytest.raises(mine.NotKept, match="MTL_MINE names another folder"):
        keep("scores", SCORES)


def test_the_meter_counts_the_pieces_so_far(capsys):
    pieces = [e.name for e in CHAPTERS["01"] if e.section]
    keep("scores", SCORES)
    mine.meter("01")
    lent = ", ".join(name for name in pieces if name != "scores")
    assert capsys.readouterr().out == (
        f"1 of the {len(pieces)} pieces so far are yours, of {len(mine.PIECES)} in the whole "
        f"handbook; the library lends {lent}. All of them together: mine/mine.py\n"
    )
    mine.load("02")
    assert f"1 of the {len(pieces)} pieces before this chapter are" in capsys.readouterr().out
    mine.load("01")
    assert capsys.readouterr().out.startswith("The pieces of your own library begin with")


def test_every_piece_can_be_imported_from_the_library():
    for name in mine.PIECES:
        assert getattr(mine.load(), name) is EXERCISES[name].reference


def test_solved_fills_a_folder_of_its_own(folder, capsys):
    with mine.solved():
        assert mine_folder() != folder
        mine.meter("13")
        assert f"{len(mine.PIECES)} of the {len(mine.PIECES)} pieces" in capsys.readouterr().out
        module = mine.load()
        assert capsys.readouterr().out == ""
        assert all(getattr(module, name).__module__ == "mine" for name in mine.PIECES)
    assert mine_folder() == folder
    assert not folder.exists()


def test_the_handbook_runs_its_notebooks_solved_and_without_widgets(tmp_path, folder, monkeypatch):
    monkeypatch.delenv("MTL_STATIC", raising=False)
    source = (
        "import os\nfrom mtl_lib.handbook.mine import mine_folder\n"
        "print(os.environ['MTL_STATIC'], len(list(mine_folder().glob('answers/*.py'))))"
    )
    path = tmp_path / "00_first.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)]), path)
    handbook.refresh(notebooks=tmp_path)
    assert nbformat.read(path, 4).cells[0].outputs[0].text == f"1 {len(EXERCISES)}\n"
    assert os.environ["MTL_MINE"] == str(folder) and not folder.exists()
