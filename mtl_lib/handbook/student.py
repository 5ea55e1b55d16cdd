"""The student and the instructor version of the notebooks.

The notebooks in git are solved and executed; the other two are built from them, so that they cannot
drift. A cell tagged `exercise` marks what the reader writes as nbgrader does:

    def scores(queries, keys):
        ### BEGIN SOLUTION
        return queries @ keys.transpose(-1, -2)
        ### END SOLUTION

The student version has a stub in its place, neither outputs nor cells tagged `solution`, and folded
hints; what stands between the markers of HIDDEN TESTS or of a MARK SCHEME is gone as well. A cell
tagged `prefilled` gets no stub: what stands around the solution is an answer to be mended. The
instructor version has everything, a note below every cell tagged `check`, and what nbgrader has to
know of the cells that carry markers.
"""

import ast
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
from mtl_lib.files import write_text
from mtl_lib.handbook.checks import EXERCISES, Exercise
from mtl_lib.handbook.lint import clean_notebook, read_notebook
from mtl_lib.paths import BUILD, NOTEBOOKS

STUB = "raise NotImplementedError  # your code here"
TEXT_STUB = "YOUR ANSWER HERE"  # nbgrader's, in a Markdown cell
SHOWN = 5  # changed files that a message names

_MARKER = re.compile(r"\s*### (BEGIN|END) (SOLUTION|HIDDEN TESTS|MARK SCHEME)\s*")
_LIKE_A_MARKER = re.compile(
    r"#\s*(BEGIN|END)[\s_-]*(SOLUTION|HIDDEN[\s_-]*TEST|MARK[\s_-]*SCHEME)", re.IGNORECASE
)
_RECORD = ".built.json"  # what was built: a file that differs since holds somebody's work


def build_student(
    notebooks: str | Path = NOTEBOOKS, out: str | Path = BUILD / "student"
) -> list[Path]:
    """Write the student version of every notebook of a folder to `out`; returns the files.

    They need nothing beside them but the installed library. Hidden files in `out` stay.

    Raises:
        ConfigError: if a notebook is marked up wrongly (the message names notebook and cell), there
            is none, `out` holds something that was not built (nobody's answers are overwritten),
            or it is a folder around the working directory.
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
    notebook = clean_notebook(notebook)
    for number, cell in enumerate(notebook.cells, start=1):
        if "solution" in _tags(cell):
            continue
        code, marks = cell.cell_type == "code", _marks(cell.source)
        stub = "" if "prefilled" in _tags(cell) else STUB if code else TEXT_STUB
        try:
            cell.source = without_solutions(cell.source, stub, code)
            if ("exercise" in _tags(cell)) != ("SOLUTION" in marks):
                raise ValueError("the tag `exercise` and ### BEGIN SOLUTION .. END go together")
        except ValueError as fault:
            raise ConfigError(f"{name}, cell {number} ({cell.id}): {fault}") from None
        cell.metadata.pop("nbgrader", None)
        if code:
            cell.update(outputs=[], execution_count=None)
        for picture in list(cell.get("attachments", ())):
            if marks and f"attachment:{picture}" not in cell.source:
                del cell.attachments[picture]  # a part of the answer
        if "exercise" in _tags(cell):
            cell.metadata.pop("jupyter", None)  # `source_hidden`: a stub is there to be seen
    notebook.cells = [cell for cell in notebook.cells if "solution" not in _tags(cell)]
    return notebook


def without_solutions(source: str, stub: str = STUB, code: bool = True) -> str:
    """A cell's source without what nbgrader's markers enclose, each solution replaced by a stub.

    Args:
        stub: one line, indented as the solution; nothing at all if empty.
        code: whether the source is Python, in which a solution is part of a function.

    Raises:
        ValueError: if a marker is nested, without its partner or misspelled, if a solution is
            outside a function, or if what is left is not Python.
    """
    lines, begin, kind = [], 0, ""  # the open region's first line and kind
    for number, line in enumerate(source.splitlines(), start=1):
        marker = _MARKER.fullmatch(line)
        if not marker and _LIKE_A_MARKER.search(line):
            raise ValueError(
                f"line {number}: {line.strip()!r}: write the marker as ### BEGIN SOLUTION, alone"
            )
        if not marker:
            lines += [] if begin else [line]
        elif marker[1] == "END":
            if marker[2] != kind:
                raise ValueError(f"line {number}: {line.strip()} without ### BEGIN {marker[2]}")
            begin, kind = 0, ""
        elif begin:
            raise ValueError(
                f"line {number}: {line.strip()}, but that of line {begin} is still open"
            )
        else:
            begin, kind = number, marker[2]
            if kind == "SOLUTION":
                if code and not line[0].isspace():
                    raise ValueError(f"line {number}: a stub outside a function would stop Run All")
                lines += [line.replace(line.strip(), stub).rstrip()] if stub else []
    if begin:
        raise ValueError(f"line {begin}: ### BEGIN {kind} without ### END {kind}")
    if not _marks(source):
        return source
    left = "\n".join(lines)
    try:
        ast.parse(left if code else "")
    except SyntaxError as error:
        raise ValueError(f"what is left is not Python: {error.msg}: {error.text!r}") from None
    return left


def _marks(source: str) -> set[str]:
    """The kinds of regions that a cell's markers enclose."""
    found = map(_MARKER.fullmatch, source.splitlines())
    return {marker[2] for marker in found if marker}


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
    notebook, cells = clean_notebook(notebook), []
    for number, cell in enumerate(notebook.cells, start=1):
        cells.append(cell)
        if marks := _marks(cell.source):
            cell.metadata.setdefault("nbgrader", _for_nbgrader(cell, marks))
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
    notebook.cells = cells
    return notebook


def _for_nbgrader(cell: NotebookNode, marks: set[str]) -> NotebookNode:
    """Metadata of format 3: an answer that a person grades, tests, or a task with its scheme.

    An answer is worth the points of the exercises that it defines, everything else 1.
    """
    defined = set(re.findall(r"^(?:def|class) (\w+)", cell.source, re.MULTILINE))
    points = (
        re.search(r"(\d+)\s+points?\.\s*$", EXERCISES[n].notes) for n in defined & set(EXERCISES)
    )
    task = marks == {"MARK SCHEME"}
    return nbformat.from_dict(
        {
            "schema_version": 3,
            "grade_id": cell.id,
            "grade": not task,
            "solution": "SOLUTION" in marks,
            "locked": "SOLUTION" not in marks,
            "task": task,
            "points": sum(int(found[1]) for found in points if found) or 1,
        }
    )


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
        notebook = version(read_notebook(source), source.name)
        texts[source.name] = nbformat.writes(notebook) + "\n"
    pages = {page.name: page.read_text(encoding="utf-8") for page in Path(notebooks).glob("*.md")}
    if out.is_file():
        raise ConfigError(f"{out}: a file; name a folder that there is not yet")
    if out.resolve() in Path.cwd().parents:
        raise ConfigError(f"{out}: holds the working directory; name a folder of its own")
    if changed := _changed(out):
        more = f" and {len(changed) - SHOWN:,} more" if len(changed) > SHOWN else ""
        raise ConfigError(
            f"{out}: {', '.join(changed[:SHOWN])}{more} changed since it was built or was not "
            "built; move the folder away first, it may hold somebody's work"
        )
    # File by file, so that hidden ones, such as .git, are not touched. If this is stopped, all that
    # is missing can be built again, by the same command.
    for name in _digests(out):
        (out / name).unlink()
    shutil.rmtree(out / ".ipynb_checkpoints", ignore_errors=True)  # of the notebooks from before
    files = dict(sorted((texts | pages).items()))  # the glossary, which chapters link to
    digests = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in files.items()}
    write_text(out / _RECORD, json.dumps(digests, indent=1))
    for name, text in files.items():
        write_text(out / name, text)
    return [out / name for name in texts]


def _changed(folder: Path) -> list[str]:
    """Files of a built folder that are not as they were built; hidden files do not count."""
    if not folder.exists():
        return []
    try:
        built = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        built = {}
    return sorted(name for name, digest in _digests(folder).items() if built.get(name) != digest)


def _digests(folder: Path) -> dict[str, str]:
    """sha256 of a folder's files by relative name; what begins with a dot is left out."""
    files = {path.relative_to(folder): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {
        name.as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in files.items()
        if not any(part.startswith(".") for part in name.parts)
    }
