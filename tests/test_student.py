"""The student and instructor versions, of small notebooks."""

import json
import re
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import (
    new_code_cell,
    new_markdown_cell,
    new_notebook,
    new_output,
    new_raw_cell,
)

from mtl_lib import cli
from mtl_lib.errors import ConfigError
from mtl_lib.files import write_text
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
        new_code_cell(
            "import torch\n\nfrom mtl_lib.handbook.checks import check", execution_count=1
        ),
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
        ("def f():\n    if True:\n" + BEGIN + "        pass\n" + END, "what is left is not Python"),
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
    del theirs.cells[2].metadata["nbgrader"]
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


def test_of_many_files_that_were_not_built_the_first_are_named(tmp_path):
    notebooks = folder_with(tmp_path / "notebooks", solved())
    (tmp_path / "data").mkdir()
    for number in range(10, 30):
        (tmp_path / "data" / f"{number}.csv").touch()
    with pytest.raises(ConfigError, match="14.csv and 15 more changed since"):
        build_student(notebooks, tmp_path / "data")
    with pytest.raises(ConfigError, match="10.csv: a file; name a folder"):
        build_student(notebooks, tmp_path / "data" / "10.csv")


def test_hidden_files_of_a_built_folder_stay(tmp_path):
    notebooks = folder_with(tmp_path / "notebooks", solved())
    out = tmp_path / "student"
    build_student(notebooks, out)
    (out / ".git").mkdir()
    hidden = [out / ".git" / "HEAD", out / ".gitignore", out / ".env"]
    for path in hidden:
        path.write_text("mine")
    build_student(notebooks, out)
    assert [path.read_text() for path in hidden] == ["mine"] * 3


def test_a_build_that_was_stopped_loses_nothing_and_the_next_one_goes_on(tmp_path, monkeypatch):
    notebooks = folder_with(tmp_path / "notebooks", solved(), solved())
    out = tmp_path / "student"
    paths = build_student(notebooks, out)
    before = [path.read_bytes() for path in paths]
    (out / ".env").write_text("mine")

    def full(path, text):
        if path.name.startswith("01"):
            raise OSError("No space left on device")
        write_text(path, text)

    with monkeypatch.context() as patch, pytest.raises(OSError):
        patch.setattr(student, "write_text", full)
        build_student(notebooks, out)
    build_student(notebooks, out)
    assert [path.read_bytes() for path in paths] == before
    assert (out / ".env").read_text() == "mine"


def test_jupyters_checkpoints_of_the_last_build_do_not_stay(tmp_path):
    notebooks = folder_with(tmp_path / "notebooks", solved())
    checkpoints = tmp_path / "student" / ".ipynb_checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / "00_small-checkpoint.ipynb").touch()
    build_student(notebooks, tmp_path / "student")
    assert not checkpoints.exists()


def test_the_working_directory_may_be_built_into(tmp_path, monkeypatch):
    notebooks = folder_with(tmp_path / "notebooks", solved())
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    for _ in range(2):
        build_student(notebooks, ".")
    assert [path.name for path in (tmp_path / "empty").glob("*.ipynb")] == ["00_small.ipynb"]


def test_a_folder_around_the_working_directory_is_refused(tmp_path, monkeypatch):
    notebooks = folder_with(tmp_path / "notebooks", solved())
    within = tmp_path / "around" / "within"
    within.mkdir(parents=True)
    monkeypatch.chdir(within)
    for out in ("..", within.parent):
        with pytest.raises(ConfigError, match="holds the working directory"):
            build_student(notebooks, out)


def test_an_empty_folder_of_notebooks_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="holds no notebook"):
        build_student(tmp_path, tmp_path / "out")


def test_the_command_builds_either_version(tmp_path, monkeypatch, capsys):
    notebooks = folder_with(tmp_path / "notebooks", solved())
    for name in ("student", "instructor"):
        build = getattr(student, f"build_{name}")
        out = tmp_path / name
        monkeypatch.setattr(student, f"build_{name}", lambda b=build, o=out: b(notebooks, o))
    assert cli.main(["student"]) == 0
    assert cli.main(["student", "--instructor"]) == 0
    assert capsys.readouterr().out == (
        f"1 notebooks in {tmp_path / 'student'}\n1 notebooks in {tmp_path / 'instructor'}\n"
    )
    assert STUB in (tmp_path / "student" / "00_small.ipynb").read_text()
    assert STUB not in (tmp_path / "instructor" / "00_small.ipynb").read_text()


# nbgrader's other markers, and what it has to know of the cells that carry any

TESTS = "### BEGIN HIDDEN TESTS\n", "### END HIDDEN TESTS"
SCHEME = "### BEGIN MARK SCHEME\n", "### END MARK SCHEME"


def with_cell(cell: NotebookNode) -> NotebookNode:
    notebook = solved()
    cell.id = "added"
    notebook.cells.append(cell)
    return notebook


def both(cell: NotebookNode) -> list[NotebookNode]:
    """The cell in the student's and in the instructor's version."""
    built = [version(with_cell(cell), "x") for version in (student_notebook, instructor_notebook)]
    return [next(c for c in notebook.cells if c.id == "added") for notebook in built]


@pytest.mark.parametrize("tags", [[], ["check"]])
def test_hidden_tests_are_gone_for_students_and_stay_for_instructors(tags):
    seen = 'clip_to_ball = check("clip_to_ball", clip_to_ball)'
    source = f"{seen}\n{TESTS[0]}assert clip_to_ball(3, 1) == 1\n{TESTS[1]}\nprint(1)"
    theirs, ours = both(new_code_cell(source, metadata={"tags": tags}))
    assert theirs.source == f"{seen}\nprint(1)"
    assert ours.source == source


def test_hidden_tests_in_a_function_or_beside_a_solution_are_gone_too():
    source = SOLVED + "\n" + TESTS[0] + "assert clip_to_ball\n" + TESTS[1]
    left = without_solutions(source)
    assert STUB in left
    assert "assert" not in left and "HIDDEN" not in left
    within = f"def f():\n    a = 1\n    {TESTS[0]}    assert a\n    {TESTS[1]}\n    return a"
    assert without_solutions(within) == "def f():\n    a = 1\n    return a"


@pytest.mark.parametrize("kind", [new_markdown_cell, new_code_cell])
@pytest.mark.parametrize(
    ("source", "message"),
    [
        (TESTS[0] + "1", "line 1: ### BEGIN HIDDEN TESTS without ### END HIDDEN TESTS"),
        ("1\n" + TESTS[1], "line 2: ### END HIDDEN TESTS without ### BEGIN HIDDEN TESTS"),
        (TESTS[0] * 2 + TESTS[1], "line 2: ### BEGIN HIDDEN TESTS, but that of line 1 is still"),
        (TESTS[0] + SCHEME[1], "line 2: ### END MARK SCHEME without ### BEGIN MARK SCHEME"),
        (SCHEME[0] + TESTS[0], "line 2: ### BEGIN HIDDEN TESTS, but that of line 1 is still"),
        ("# begin hidden test\n1", "line 1: '# begin hidden test': write the marker"),
        ("#### END MARK-SCHEME", "write the marker"),
    ],
)
def test_a_fault_in_hidden_tests_is_named(kind, source, message):
    with pytest.raises(ConfigError) as refused:
        student_notebook(with_cell(kind(source)), "x.ipynb")
    assert str(refused.value).startswith("x.ipynb, cell 7 (added): ")
    assert message in str(refused.value)


def test_a_solution_in_markdown_becomes_a_place_for_the_answer():
    source = (
        "Why does it clamp?\n\n### BEGIN SOLUTION\nThe nearest point is\nthat.\n### END SOLUTION"
    )
    theirs, ours = both(new_markdown_cell(source, metadata={"tags": ["exercise"]}))
    assert theirs.source == "Why does it clamp?\n\nYOUR ANSWER HERE"
    assert ours.source == source


def test_a_solution_in_markdown_or_raw_text_that_is_no_exercise_is_refused():
    source = "### BEGIN SOLUTION\nBecause.\n### END SOLUTION"
    for kind in (new_markdown_cell, new_raw_cell):
        with pytest.raises(ConfigError, match=r"cell 7 \(added\): the tag `exercise`"):
            student_notebook(with_cell(kind(source)), "x")


def test_a_picture_of_a_solution_in_markdown_goes_with_it():
    source = "![](attachment:a.png)\n### BEGIN SOLUTION\n![](attachment:b.png)\n### END SOLUTION"
    cell = new_markdown_cell(source, metadata={"tags": ["exercise"]})
    cell.attachments = {"a.png": {"image/png": "YQ=="}, "b.png": {"image/png": "Yg=="}}
    theirs, ours = both(cell)
    assert list(theirs.attachments) == ["a.png"]
    assert list(ours.attachments) == ["a.png", "b.png"]


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (new_code_cell(SOLVED, metadata={"tags": ["exercise"]}), (True, True, False, False)),
        (new_code_cell("".join(TESTS)), (True, False, True, False)),
        (
            new_markdown_cell(
                "### BEGIN SOLUTION\nYes.\n### END SOLUTION", metadata={"tags": ["exercise"]}
            ),
            (True, True, False, False),
        ),
        (new_markdown_cell("".join(SCHEME)), (False, False, True, True)),
    ],
    ids=["answer", "tests", "written answer", "task"],
)
def test_a_cell_with_markers_carries_nbgraders_metadata_for_instructors_alone(cell, expected):
    theirs, ours = both(cell)
    about = ours.metadata.nbgrader
    assert (about.grade, about.solution, about.locked, about.task) == expected
    assert (about.schema_version, about.grade_id) == (3, "added")
    assert about.points > 0
    assert "nbgrader" not in theirs.metadata


def test_an_answer_is_worth_the_points_of_its_exercise():
    (points,) = re.findall(r"(\d) points?\.$", EXERCISES["clip_to_ball"].notes.strip())
    assert instructor_notebook(solved(), "x").cells[2].metadata.nbgrader.points == int(points)


def test_what_an_instructor_has_set_in_nbgrader_stays():
    notebook = solved()
    notebook.cells[2].metadata.nbgrader = {"grade_id": "mine", "points": 7}
    about = instructor_notebook(notebook, "x").cells[2].metadata.nbgrader
    assert about == {"grade_id": "mine", "points": 7}
    assert "nbgrader" not in student_notebook(notebook, "x").cells[2].metadata


# Notebooks that another program saved


def saved_by_colab() -> dict:
    """The small notebook as Colab or VS Code saves it: format 4.0, no ids, records of its own."""
    notebook = json.loads(nbformat.writes(solved()))
    notebook["nbformat_minor"] = 0
    notebook["metadata"] = {
        "colab": {"provenance": []}, "accelerator": "GPU", "gpuClass": "standard",
        "vscode": {"interpreter": {"hash": "a"}}, "orig_nbformat": 4, "widgets": {},
        "kernelspec": {"name": "python3", "display_name": "venv"},
        "language_info": {"name": "python", "version": "3.10.12"},
    }  # fmt: skip
    for cell in notebook["cells"]:
        del cell["id"]
        cell["metadata"] |= {
            "id": "Xy_z", "colab_type": "code", "executionInfo": {"user": {}}, "cellView": "form",
            "vscode": {"languageId": "python"}, "colab": {"base_uri": "x"}, "outputId": "b-1",
        }  # fmt: skip
    return notebook


@pytest.mark.parametrize("minor", [0, 4, 5])
@pytest.mark.parametrize("version", ["student", "instructor"])
def test_a_notebook_without_cell_ids_is_built_with_ids_and_without_records(
    version, minor, tmp_path
):
    notebooks = tmp_path / "notebooks"
    notebooks.mkdir()
    text = json.dumps(saved_by_colab() | {"nbformat_minor": minor})
    (notebooks / "00_small.ipynb").write_text(text, encoding="utf-8")
    build = getattr(student, f"build_{version}")
    (first,), (second,) = (build(notebooks, tmp_path / name) for name in ("one", "two"))
    assert first.read_bytes() == second.read_bytes()
    built = nbformat.read(first, as_version=4)
    nbformat.validate(built)
    assert (built.nbformat, built.nbformat_minor) == (4, 5)
    assert len({cell.id for cell in built.cells}) == len(built.cells) >= 5
    assert set(built.metadata) == {"kernelspec", "language_info"}
    assert built.metadata.language_info == {"name": "python"}
    assert {name for cell in built.cells for name in cell.metadata} <= {"tags", "nbgrader"}


def test_a_fault_in_a_notebook_without_ids_is_named_all_the_same():
    notebook = nbformat.reader.reads(json.dumps(saved_by_colab()))
    notebook.cells[2].source = "def f():\n    ### BEGIN SOLUTION"
    for version in (student_notebook, instructor_notebook):
        with pytest.raises(ConfigError, match=r"^x.ipynb, cell 3 \(\w+\): line 2"):
            version(notebook, "x.ipynb")


def test_two_cells_of_one_id_get_two():
    notebook = solved()
    notebook.cells[3].id = "cell-0"
    ids = [cell.id for cell in student_notebook(notebook, "x").cells]
    assert len(set(ids)) == len(ids)
    assert ids[0] == "cell-0"


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"nbformat": 3, "nbformat_minor": 0, "metadata": {}, "worksheets": []}',
     '{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [{}]}',
     '{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": 7}'],
)  # fmt: skip
def test_a_file_that_is_no_notebook_is_refused_by_name(text, tmp_path):
    (tmp_path / "00_small.ipynb").write_text(text)
    for build in (build_student, build_instructor):
        with pytest.raises(ConfigError, match="00_small.ipynb: no notebook of format 4"):
            build(tmp_path, tmp_path / "out")
