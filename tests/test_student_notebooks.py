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
def test_unfilled_it_runs_to_the_end_and_filled_every_check_passes(path, tmp_path, monkeypatch):
    """One execution for both: at each check, the cells since the exercise run as the student has
    them, then with the solutions, then again unfilled, and so on to the end of the notebook."""
    filled = nbformat.read(path, as_version=4)
    unfilled = student_notebook(filled, path.name)
    solutions = {cell.id: cell for cell in tagged(filled, "exercise")}
    report = tmp_path / "report.json"
    monkeypatch.setenv("MTL_REPORT", str(report))

    def passed(names: list[str]) -> set[bool]:
        written = json.loads(report.read_text())
        return {written[name]["passed"] for name in names}

    client = NotebookClient(
        unfilled, timeout=300, kernel_name="python3", resources={"metadata": {"path": NOTEBOOKS}}
    )
    with client.setup_kernel():
        waiting = []  # exercises since the last check
        for index, cell in enumerate(unfilled.cells):
            if cell.cell_type != "code":
                continue
            client.execute_cell(cell, index)
            if cell.id in solutions:
                waiting.append(cell)
            if "check" in cell.metadata.get("tags", []):
                names = checked_names(cell.source)
                assert passed(names) == {False}, names
                for version in ([solutions[c.id] for c in waiting], waiting):
                    for exercise in version:
                        client.execute_cell(exercise.copy(), index)
                    client.execute_cell(cell.copy(), index)
                    assert passed(names) == {version is not waiting}, names
                waiting = []
