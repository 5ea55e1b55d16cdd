"""The student and instructor versions, of small notebooks."""

import re
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from mtl_lib import cli
from mtl_lib.errors import ConfigError
from mtl_lib.handbook import student
from mtl_lib.handbook.checks import EXERCISES
from mtl_lib.handbook.student import (
    STUB,
    build_instructor,
    build_student,
    instructor_notebook,
    student_notebook,
    without_solutions,
)

SOLVED = """\
def clip_to_ball(delta, radius):
    # Each entry on its own.
    ### BEGIN SOLUTION
    low, high = -radius, radius
    return delta.clamp(low, high)
    ### END SOLUTION
"""
BEGIN, END = "    ### BEGIN SOLUTION\n", "    ### END SOLUTION\n"
HINT = "<details><summary>Hint</summary>Entry by entry.</details>"


def solved() -> NotebookNode:
    """A small notebook as a chapter is: an exercise, its hint, its check, its explanation."""
    printed = new_output("stream", name="stdout", text="passed\n")
    cells = [
        new_markdown_cell("# A chapter"),
        new_code_cell("import torch\n\nfrom mtl_lib.checks import check", execution_count=1),
        new_code_cell(SOLVED, execution_count=2, metadata={"tags": ["exercise"]}),
        new_markdown_cell(HINT),
        new_code_cell(
            'clip_to_ball = check("clip_to_ball", clip_to_ball)',
            execution_count=3,
            metadata={"tags": ["check"]},
            outputs=[printed],
        ),
        new_markdown_cell("Clamping is the projection.", metadata={"tags": ["solution"]}),
    ]
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
    return new_notebook(cells=cells)


def folder_with(path: Path, *notebooks: NotebookNode) -> Path:
    path.mkdir()
    for number, notebook in enumerate(notebooks):
        nbformat.write(notebook, path / f"{number:02}_small.ipynb")
    return path


def test_a_stub_stands_in_place_of_the_solution():
    assert student_notebook(solved(), "x").cells[2].source == (
        "def clip_to_ball(delta, radius):\n    # Each entry on its own.\n    " + STUB
    )


def test_several_solutions_in_one_cell_get_a_stub_each():
    two = (
        SOLVED
        + "\n\nclass Deep:\n    def method(self):\n"
        + ("        ### BEGIN SOLUTION\n        return 1\n        ### END SOLUTION\n\n    last = 2")
    )
    source = without_solutions(two)
    assert source.count(STUB) == 2
    assert "\n        " + STUB + "\n\n    last = 2" in source


def test_a_solution_within_given_code_leaves_the_rest():
    source = "def f(x):\n    a = 1\n" + BEGIN + "    a += x\n" + END + "    return a"
    assert without_solutions(source) == f"def f(x):\n    a = 1\n    {STUB}\n    return a"


def test_a_prefilled_answer_stays_and_gets_no_stub():
    notebook = solved()
    notebook.cells[2].metadata.tags = ["exercise", "prefilled"]
    notebook.cells[2].source = (
        "def f(x):\n    a = 1\n" + BEGIN + "    a = x\n" + END + "    return a"
    )
    assert student_notebook(notebook, "x").cells[2].source == "def f(x):\n    a = 1\n    return a"


def test_the_stub_says_that_it_is_not_implemented():
    names = {}
    exec(student_notebook(solved(), "x").cells[2].source, names)
    with pytest.raises(NotImplementedError):
        names["clip_to_ball"](1, 2)


def test_outputs_counts_and_explanations_are_gone_and_hints_stay():
    cells = student_notebook(solved(), "x").cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert [cell.id for cell in cells] == [f"cell-{number}" for number in range(5)]
    assert cells[3].source == HINT


def test_a_collapsed_solution_becomes_a_visible_stub():
    notebook = solved()
    notebook.cells[2].metadata.jupyter = {"source_hidden": True}
    assert "jupyter" not in student_notebook(notebook, "x").cells[2].metadata


def test_code_tagged_solution_is_removed():
    notebook = solved()
    notebook.cells.append(new_code_cell(SOLVED, metadata={"tags": ["solution"]}))
    assert len(student_notebook(notebook, "x").cells) == 5


def test_the_solved_notebook_is_left_alone():
    notebook, again = solved(), solved()
    student_notebook(notebook, "x")
    instructor_notebook(notebook, "x")
    assert notebook == again


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "def f():\n" + BEGIN + "    pass\n",
            "line 2: ### BEGIN SOLUTION without ### END SOLUTION",
        ),
        ("def f():\n    pass\n" + END, "line 3: ### END SOLUTION without"),
        ("def f():\n" + END + "    pass\n" + BEGIN, "line 2: ### END SOLUTION without"),
        ("def f():\n" + BEGIN + BEGIN + "    pass\n" + END + END, "that of line 2 is still open"),
        ("def f():\n" + BEGIN + "    pass\n" + END + END, "line 5: ### END SOLUTION without"),
        ("def f():\n    return 1\n", "go together"),
        ("def f():\n" + BEGIN.lower() + "    pass\n" + END.lower(), "alone"),
        ("def f():\n    ## BEGIN SOLUTION\n    pass\n" + END, "alone"),
        ("def f():\n    #BEGIN SOLUTION\n    pass\n", "alone"),
        ("def f():\n    x = 1  ### BEGIN SOLUTION\n    pass\n" + END, "alone"),
        ("### BEGIN SOLUTION\nx = 1\n### END SOLUTION", "outside a function"),
        ("def f():\n    if True:\n" + BEGIN + "        pass\n" + END, "the stub is not Python"),
    ],
)
def test_a_fault_in_the_markers_is_refused_by_notebook_and_cell(source, message, tmp_path):
    notebook = solved()
    notebook.cells[2].source = source
    notebooks = folder_with(tmp_path / "notebooks", notebook)
    for build in (build_student, build_instructor):
        with pytest.raises(ConfigError) as refused:
            build(notebooks, tmp_path / "out")
        assert str(refused.value).startswith("00_small.ipynb, cell 3 (cell-2): ")
        assert message in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_a_solution_in_a_cell_that_is_no_exercise_is_refused():
    notebook = solved()
    del notebook.cells[2].metadata["tags"]
    with pytest.raises(ConfigError, match="tag `exercise`"):
        student_notebook(notebook, "x")


@pytest.mark.parametrize(
    ("source", "message"),
    [("print(1)", "this one none"), ('f = check("no_such_exercise", f)', "no_such_exercise")],
)
def test_a_check_of_no_exercise_is_refused(source, message):
    notebook = solved()
    notebook.cells[4].source = source
    with pytest.raises(ConfigError, match=message):
        instructor_notebook(notebook, "x")


def test_the_instructor_has_everything_and_a_note_below_the_check():
    ours, theirs = solved(), instructor_notebook(solved(), "x")
    note = theirs.cells.pop(5)
    assert theirs.cells == ours.cells
    exercise = EXERCISES["clip_to_ball"]
    assert note.cell_type == "markdown"
    assert note.metadata.tags == ["instructor"]
    assert exercise.notes.strip() in note.source
    assert all(mistake.says in note.source for mistake in exercise.mistakes)


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=EXERCISES)
def test_the_notes_of_every_exercise_end_with_its_points(exercise):
    assert re.search(r"\s[1-5]\s+points?\.$", exercise.notes.strip())


def test_a_folder_is_built_whole_and_again(tmp_path):
    notebooks = folder_with(tmp_path / "notebooks", solved(), solved())
    out = tmp_path / "build" / "student"
    for _ in range(2):
        paths = build_student(notebooks, out)
        assert [path.name for path in paths] == ["00_small.ipynb", "01_small.ipynb"]
        for path in paths:
            nbformat.validate(nbformat.read(path, as_version=4))
    (notebooks / "01_small.ipynb").unlink()
    build_student(notebooks, out)
    assert [path.name for path in out.glob("*.ipynb")] == ["00_small.ipynb"]
    assert [path.name for path in out.parent.iterdir()] == ["student"]


def test_two_builds_are_equal_byte_by_byte(tmp_path):
    notebooks = folder_with(tmp_path / "notebooks", solved())
    for build in (build_student, build_instructor):
        (first,), (second,) = (build(notebooks, tmp_path / f"{build.__name__}{n}") for n in (1, 2))
        assert first.read_bytes() == second.read_bytes()


def test_answers_in_a_built_folder_are_not_overwritten(tmp_path):
    notebooks = folder_with(tmp_path / "notebooks", solved())
    (path,) = build_student(notebooks, tmp_path / "student")
    answered = path.read_text().replace(STUB, "return delta")
    path.write_text(answered)
    with pytest.raises(ConfigError, match="00_small.ipynb changed since it was built"):
        build_student(notebooks, tmp_path / "student")
    assert path.read_text() == answered


def test_a_folder_that_was_not_built_is_not_replaced(tmp_path):
    notebooks = folder_with(tmp_path / "notebooks", solved())
    other = folder_with(tmp_path / "student", solved())
    with pytest.raises(ConfigError, match="move the folder away"):
        build_student(notebooks, other)


def test_an_empty_folder_of_notebooks_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="holds no notebook"):
        build_student(tmp_path, tmp_path / "out")


def test_the_command_builds_either_version(tmp_path, monkeypatch, capsys):
    notebooks = folder_with(tmp_path / "notebooks", solved())
    for name in ("student", "instructor"):
        build = getattr(student, f"build_{name}")
        out = tmp_path / name
        monkeypatch.setattr(cli, f"build_{name}", lambda b=build, o=out: b(notebooks, o))
    assert cli.main(["student"]) == 0
    assert cli.main(["student", "--instructor"]) == 0
    assert capsys.readouterr().out == (
        f"1 notebooks in {tmp_path / 'student'}\n1 notebooks in {tmp_path / 'instructor'}\n"
    )
    assert STUB in (tmp_path / "student" / "00_small.ipynb").read_text()
    assert STUB not in (tmp_path / "instructor" / "00_small.ipynb").read_text()
