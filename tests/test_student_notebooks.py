"""The student and instructor versions of the handbook's own notebooks.

Student notebooks run to their end unfilled, pass every check once filled with the solutions, and
hold no solution.
"""

import json
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

from mtl_lib.handbook.checks import EXERCISES
from mtl_lib.handbook.student import checked_names, instructor_notebook, student_notebook
from mtl_lib.paths import NOTEBOOKS

COMMITTED = sorted(NOTEBOOKS.glob("*.ipynb"))


def tagged(notebook: NotebookNode, tag: str) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


def has_exercises(path: Path) -> bool:
    return bool(tagged(nbformat.read(path, as_version=4), "exercise"))


WITH_EXERCISES = [path for path in COMMITTED if has_exercises(path)]


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_both_versions_of_every_notebook_can_be_built(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(student_notebook(notebook, path.name))
    nbformat.validate(instructor_notebook(notebook, path.name))


def squeezed(text: str) -> str:
    return re.sub(r"\s+", "", text)


@pytest.mark.parametrize("path", WITH_EXERCISES, ids=lambda path: path.stem)
def test_no_solution_is_left_in_the_student_version(path):
    notebook = nbformat.read(path, as_version=4)
    left = squeezed("\n".join(c.source for c in student_notebook(notebook, path.name).cells))
    for cell in tagged(notebook, "exercise"):
        for solution in re.findall(r"### BEGIN SOLUTION\n(.*?)### END SOLUTION", cell.source, re.S):
            assert squeezed(solution) not in left
            code = [line.split("#")[0].strip() for line in solution.splitlines()]
            for line in code:
                assert len(line) < 30 or squeezed(line) not in left, line
    for cell in tagged(notebook, "solution"):
        assert squeezed(cell.source) not in left


@pytest.mark.parametrize("path", WITH_EXERCISES, ids=lambda path: path.stem)
def test_every_exercise_is_followed_by_its_check(path):
    exercises, checks = [], []
    for cell in nbformat.read(path, as_version=4).cells:
        if "exercise" in cell.metadata.get("tags", []):
            exercises += re.findall(r"^(?:def|class) (\w+)", cell.source, re.MULTILINE)
        if "check" in cell.metadata.get("tags", []):
            checks += checked_names(cell.source)
            assert set(checks) <= set(exercises), "a check stands before its exercise"
    assert checks
    assert set(checks) <= set(EXERCISES)


@pytest.mark.parametrize("path", WITH_EXERCISES, ids=lambda path: path.stem)
def test_it_runs_to_the_end_and_each_check_passes_once_filled(path, tmp_path, monkeypatch):
    """Two students in one execution. At each check the cells since the last one run as the student
    has them, then with the solutions. One exercise in two stays filled, the others are emptied
    again, so that the rest runs with the student's answers beside the library's."""
    filled = nbformat.read(path, as_version=4)
    unfilled = student_notebook(filled, path.name)
    solutions = {cell.id: cell for cell in tagged(filled, "exercise")}
    for cell in solutions.values():  # a reader's answer has no markers
        cell.source = re.sub(r"^\s*### (BEGIN|END) \w+.*\n?", "", cell.source, flags=re.M)
    report, answers = tmp_path / "report.json", tmp_path / "mine" / "answers"
    monkeypatch.setenv("MTL_REPORT", str(report))
    monkeypatch.setenv("MTL_MINE", str(answers.parent))

    client = NotebookClient(
        unfilled, timeout=300, kernel_name="python3", resources={"metadata": {"path": NOTEBOOKS}}
    )

    def passed(exercises: list[NotebookNode], check: NotebookNode, index: int) -> set[bool]:
        for cell in (*exercises, check):
            client.execute_cell(cell.copy(), index)
        written = json.loads(report.read_text())
        return {written[name]["passed"] for name in checked_names(check.source)}

    with client.setup_kernel():
        waiting, checks = [], 0  # exercises since the last check
        for index, cell in enumerate(unfilled.cells):
            if cell.cell_type != "code":
                continue
            if "check" not in cell.metadata.get("tags", []):
                client.execute_cell(cell, index)
                waiting += [cell] if cell.id in solutions else []
                continue
            names = checked_names(cell.source)
            right = [solutions[exercise.id] for exercise in waiting]
            assert passed([], cell, index) == {False}, names
            assert passed(right, cell, index) == {True}, names
            kept = [answers / f"{name}.py" for name in names]
            assert all(file.exists() for file in kept), names
            if checks % 2:
                assert passed(waiting, cell, index) == {False}, names
                for file in kept:
                    file.unlink()
            waiting, checks = [], checks + 1
