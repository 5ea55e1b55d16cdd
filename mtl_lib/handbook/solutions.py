"""The answers of the solved notebooks, kept as if a reader had written them."""

import ast
import linecache
import re
from collections.abc import Iterator
from typing import Any

from mtl_lib.errors import RunError
from mtl_lib.handbook import mine
from mtl_lib.handbook.checks import EXERCISES
from mtl_lib.handbook.lint import read_notebook
from mtl_lib.paths import NOTEBOOKS

_MARKER = re.compile(r"^\s*### (BEGIN|END) \w+.*\n", re.MULTILINE)


def solutions() -> Iterator[tuple[str, Any]]:
    """Each exercise's name with the solution of its notebook, in their order.

    Of a notebook only its imports and its exercises are run: a solution stands on its own, on
    other answers and on what its own cell defines.

    Raises:
        RunError: if a solution does not run so.
    """
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        names: dict[str, Any] = {"__name__": "__main__"}
        for cell in read_notebook(path).cells:
            if cell.cell_type != "code":
                continue
            exercise = "exercise" in cell.metadata.get("tags", ())
            tree = ast.parse(cell.source)
            if not exercise:
                tree.body = [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
                exec(compile(tree, f"<{path.name}>", "exec"), names)
                continue
            source = _MARKER.sub("", cell.source)
            file = f"<solution {path.stem} {cell.id}>"
            linecache.cache[file] = (len(source), None, source.splitlines(True), file)
            try:
                exec(compile(source, file, "exec"), names)
            except Exception as error:
                where, what = f"{path.name}, cell {cell.id}", f"{type(error).__name__}: {error}"
                raise RunError(f"{where}: its solution stops with {what}") from error
            for node in ast.parse(source).body:
                if (name := getattr(node, "name", None)) in EXERCISES:
                    yield name, names[name]


def write_solutions() -> None:
    """Keep every solution in the folder of the reader's answers."""
    for name, answer in solutions():
        mine.keep(name, answer)
