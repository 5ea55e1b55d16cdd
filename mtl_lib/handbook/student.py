"""The student and the instructor version of the notebooks.

The notebooks in git are solved and executed; the other two are built from them, so that they cannot
drift. A cell tagged `exercise` marks what the reader writes as nbgrader does:

    def scores(queries, keys):
        ### BEGIN SOLUTION
        return queries @ keys.transpose(-1, -2)
        ### END SOLUTION

The student version has a stub in its place, neither outputs nor cells tagged `solution`, and folded
hints. A cell tagged `prefilled` as well gets no stub: what stands around the solution is an answer
to be mended. The instructor version has everything, and a note below every cell tagged `check`.
"""

import ast
import copy
import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

from mtl_lib.errors import ConfigError
from mtl_lib.handbook.checks import EXERCISES, Exercise
from mtl_lib.paths import BUILD, NOTEBOOKS

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
STUB = "raise NotImplementedError  # your code here"

_LIKE_A_MARKER = re.compile(r"#\s*(BEGIN|END)[\s_-]*SOLUTION", re.IGNORECASE)
_RECORD = ".built.json"  # what was built: a file that differs since holds somebody's work


def build_student(
    notebooks: str | Path = NOTEBOOKS, out: str | Path = BUILD / "student"
) -> list[Path]:
    """Write the student version of every notebook of a folder to `out`; returns the files.

    They need nothing beside them but the installed library.

    Raises:
        ConfigError: if a notebook is marked up wrongly (the message names notebook and cell), there
            is none, or `out` holds something that was not built: nobody's answers are overwritten.
    """
    return _build(notebooks, Path(out), student_notebook)


def build_instructor(
    notebooks: str | Path = NOTEBOOKS, out: str | Path = BUILD / "instructor"
) -> list[Path]:
    """Write the instructor version of every notebook of a folder to `out`; returns the files.

    Raises:
        ConfigError: as for `build_student`, and if a cell checks an exercise that does not exist.
    """
    return _build(notebooks, Path(out), instructor_notebook)


def student_notebook(notebook: NotebookNode, name: str) -> NotebookNode:
    """A copy with stubs in place of the solutions, without outputs and cells tagged `solution`.

    Args:
        notebook: solved.
        name: what error messages call it.

    Raises:
        ConfigError: if solutions are marked up wrongly.
    """
    notebook = copy.deepcopy(notebook)
    for number, cell in enumerate(notebook.cells, start=1):
        if cell.cell_type != "code" or "solution" in _tags(cell):
            continue
        try:
            stub = "" if "prefilled" in _tags(cell) else STUB
            source = without_solutions(cell.source, stub)
            if ("exercise" in _tags(cell)) != (source != cell.source):
                raise ValueError(f"the tag `exercise` and {BEGIN} .. {END} go together")
        except ValueError as fault:
            raise ConfigError(f"{name}, cell {number} ({cell.id}): {fault}") from None
        cell.update(source=source, outputs=[], execution_count=None)
        if "exercise" in _tags(cell):
            cell.metadata.pop("jupyter", None)  # `source_hidden`: a stub is there to be seen
    notebook.cells = [cell for cell in notebook.cells if "solution" not in _tags(cell)]
    return notebook


def without_solutions(source: str, stub: str = STUB) -> str:
    """A cell's source with a stub, indented alike, in place of each marked solution.

    Args:
        stub: one line; nothing at all if empty.

    Raises:
        ValueError: if a marker is nested, without its partner, misspelled or outside a function, or
            if what is left is not Python.
    """
    lines, begin = [], 0
    for number, line in enumerate(source.splitlines(), start=1):
        if line.strip() == BEGIN:
            if begin:
                raise ValueError(f"line {number}: {BEGIN}, but that of line {begin} is still open")
            if line == BEGIN:
                raise ValueError(f"line {number}: a stub outside a function would stop Run All")
            begin = number
            lines += [line.replace(BEGIN, stub)] if stub else []
        elif line.strip() == END:
            if not begin:
                raise ValueError(f"line {number}: {END} without {BEGIN}")
            begin = 0
        elif _LIKE_A_MARKER.search(line):
            raise ValueError(f"line {number}: {line.strip()!r}: write {BEGIN} or {END}, alone")
        elif not begin:
            lines.append(line)
    if begin:
        raise ValueError(f"line {begin}: {BEGIN} without {END}")
    if lines == source.splitlines():
        return source  # nothing marked
    try:
        ast.parse("\n".join(lines))
    except SyntaxError as error:
        raise ValueError(f"the stub is not Python: {error.msg}: {error.text!r}") from None
    return "\n".join(lines)


def instructor_notebook(notebook: NotebookNode, name: str) -> NotebookNode:
    """A copy with everything, and a note on the exercise below every cell tagged `check`.

    Args:
        notebook: solved.
        name: what error messages call it.

    Raises:
        ConfigError: if solutions are marked up wrongly, or a cell tagged `check` does not check an
            exercise.
    """
    student_notebook(notebook, name)  # for its complaints
    cells = []
    for number, cell in enumerate(notebook.cells, start=1):
        cells.append(copy.deepcopy(cell))
        if cell.cell_type != "code" or "check" not in _tags(cell):
            continue
        names = checked_names(cell.source)
        if not names or not set(names) <= set(EXERCISES):
            raise ConfigError(
                f"{name}, cell {number} ({cell.id}): a cell tagged `check` checks an exercise of "
                f"mtl_lib.handbook.checks, this one {', '.join(names) or 'none'}"
            )
        text = "\n\n".join(instructor_note(EXERCISES[checked]) for checked in names)
        note = new_markdown_cell(text, metadata={"tags": ["instructor"]})
        note.id = f"note-{cell.id}"[:64]  # random otherwise
        cells.append(note)
    notebook = copy.deepcopy(notebook)
    notebook.cells = cells
    return notebook


def checked_names(source: str) -> list[str]:
    """The exercises that a cell checks: the first arguments of its calls of `check`."""
    names = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(ast.Name("check"), [ast.Constant(str(name)), *_]):
                names.append(name)
    return names


def instructor_note(exercise: Exercise) -> str:
    """What an instructor wants to know about an exercise, as Markdown."""
    named = "\n".join(dict.fromkeys(f"- {mistake.says}" for mistake in exercise.mistakes))
    return (
        f"> **For instructors: `{exercise.name}`**, difficulty {exercise.difficulty}, importance "
        f"{exercise.importance} (of 5), about {exercise.minutes} minutes.\n\n"
        f"{exercise.notes.strip()}\n\n"
        f"<details><summary>Mistakes that the check names</summary>\n\n{named}\n\n</details>"
    )


def _tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def _build(
    notebooks: str | Path, out: Path, version: Callable[[NotebookNode, str], NotebookNode]
) -> list[Path]:
    sources = sorted(Path(notebooks).glob("*.ipynb"))
    if not sources:
        raise ConfigError(f"{notebooks}: holds no notebook")
    texts = {}
    for source in sources:
        notebook = version(nbformat.read(source, as_version=4), source.name)
        texts[source.name] = nbformat.writes(notebook) + "\n"
    pages = {page.name: page.read_text("utf-8") for page in Path(notebooks).glob("*.md")}
    if changed := _changed(out):
        raise ConfigError(
            f"{out}: {', '.join(changed)} changed since it was built or was not built; "
            "move the folder away first, it may hold somebody's work"
        )
    new, old = (out.with_name(f".{out.name}.{word}") for word in ("new", "old"))
    for left_over in (new, old):
        shutil.rmtree(left_over, ignore_errors=True)
    new.mkdir(parents=True)
    for name, text in (texts | pages).items():  # the glossary, which chapters link to
        (new / name).write_text(text, encoding="utf-8")
    (new / _RECORD).write_text(json.dumps(_digests(new), indent=1))
    if out.exists():
        out.rename(old)
    new.rename(out)
    shutil.rmtree(old, ignore_errors=True)
    return [out / name for name in texts]


def _changed(folder: Path) -> list[str]:
    """Files of a built folder that are not as they were built; hidden files do not count."""
    if not folder.exists():
        return []
    try:
        built = json.loads((folder / _RECORD).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        built = {}
    return sorted(name for name, digest in _digests(folder).items() if built.get(name) != digest)


def _digests(folder: Path) -> dict[str, str]:
    """sha256 of a folder's files by relative name; what begins with a dot is left out."""
    files = {path.relative_to(folder): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {
        str(name): hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in files.items()
        if not any(part.startswith(".") for part in name.parts)
    }
