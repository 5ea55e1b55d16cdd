"""The reader's own library: every answer that passed a check, kept, and put together in one file.

    mine/answers/attend.py   one file for each exercise: the answer as it was written, and what it
                             needs of the cells around it (imports, helpers, constants)
    mine/earlier/            answers that a later one replaced: nothing is ever deleted
    mine/mine.py             all pieces in the order of the handbook, those still missing imported
                             from the library; put together again whenever an answer is kept

A piece is an exercise with a `section`: a part of BERT, the optimizer, the loop or surgery. Later
chapters use `load()`, so that a reader's layer runs the reader's attention. The folder is `mine/`
of the working copy; MTL_MINE names another.
"""

import __future__

import ast
import builtins
import contextlib
import inspect
import linecache
import math
import os
import re
import shutil
import symtable
import sys
import tempfile
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mtl_lib.errors import HandbookError
from mtl_lib.files import write_text
from mtl_lib.handbook.checks import CHAPTERS, EXERCISES
from mtl_lib.handbook.checks.framework import Exercise, functions_of
from mtl_lib.paths import WORK, folder

PIECES = [name for name, exercise in EXERCISES.items() if exercise.section]
_HEAD = '''"""My own library for multi-task learning with BERT.

{count}
The handbook put this file together from the answers in answers/, and does so again whenever a
check passes, so changes made here are lost: make them where the exercise is.
"""

from __future__ import annotations
'''


def mine_folder() -> Path:
    """Where the reader's answers are kept."""
    return folder("MTL_MINE", WORK / "mine")


class NotKept(HandbookError):
    """An answer cannot be used in later chapters; the message says why and what to do."""


# Keeping an answer

_PASSED: dict[str, Any] = {}  # in this kernel, by exercise, also what could not be kept


def keep(name: str, answer: Any) -> None:
    """Write an answer that passed to `answers/NAME.py`, and put `mine.py` together again; the
    handbook's own solutions, by their markers, are left out.

    Raises:
        NotKept: if the answer cannot stand on its own in a file.
    """
    _PASSED[name] = answer
    folder = mine_folder()
    text = _source_of(name, answer)
    if "### BEGIN SOLUTION" in text:  # a solved notebook was run: that is nobody's answer
        return
    kept = _kept(folder)
    _refuse_clashes(name, text, kept)
    path = folder / "answers" / f"{name}.py"
    try:
        if kept.get(name) != text:
            if path.exists():  # if only as what nobody can read
                _put_aside(path)
            write_text(path, text)
        _write_library(folder)
    except OSError as error:
        raise NotKept(
            f"{path} cannot be written ({error}); MTL_MINE names another folder"
        ) from None


def _put_aside(path: Path) -> None:
    """Copy an answer to `earlier/`; until the next one takes its place, it stays in its own."""
    earlier = path.parents[1] / "earlier"
    earlier.mkdir(parents=True, exist_ok=True)
    number = 1
    while (earlier / f"{path.stem}-{number}.py").exists():
        number += 1
    shutil.copy2(path, earlier / f"{path.stem}-{number}.py")


def _kept(folder: Path) -> dict[str, str]:
    """The answers of a folder by exercise, in the order of the handbook."""
    found = {}
    for name in EXERCISES:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            found[name] = (folder / "answers" / f"{name}.py").read_text(encoding="utf-8")
    return found


def _source_of(name: str, answer: Any) -> str:
    """The answer's definition with all it needs from its notebook, as the text of a file."""
    node, lines = _definition(answer, name)
    parts = _Parts(getattr(_function_of(answer), "__globals__", {}), name)
    parts.add(node, lines, own=name)
    bound = _bound_name(node)
    alias = [] if bound == name else [f"{name} = {bound}"]
    blocks = [*(["\n".join(sorted(parts.imports))] if parts.imports else []), *parts.sources]
    return "\n\n\n".join([*blocks, *alias]) + "\n"


def _function_of(answer: Any) -> Any:
    """A function whose code says where the answer was written: itself, or a method of a class."""
    functions = functions_of(inspect.unwrap(answer))
    return next((f for f in functions if hasattr(f, "__code__")), None)


def _definition(answer: Any, name: str) -> tuple[ast.stmt, list[str]]:
    """The outermost statement of a cell or file that defines an answer, and all its lines."""
    code = getattr(_function_of(answer), "__code__", None)
    if code is None:
        raise NotKept(f"{name} is not written out as a function or a class")
    lines = linecache.getlines(code.co_filename)
    wanted = {name, getattr(answer, "__name__", name)}
    try:
        statements = ast.parse("".join(lines)).body
    except SyntaxError:  # a cell with commands of IPython
        statements = _without_commands(lines)
    for node in reversed(statements):
        inside = _first_line(node) <= code.co_firstlineno <= (node.end_lineno or 0)
        if _bound_name(node) in wanted and inside:
            return node, lines
    raise NotKept(f"{name} is not written at the outermost level of a cell")


def _without_commands(lines: list[str]) -> list[ast.stmt]:
    plain = ["\n" if re.match(r"\s*[%!]", line) else line for line in lines]
    try:
        return ast.parse("".join(plain)).body
    except SyntaxError:
        return []


def _first_line(node: ast.stmt) -> int:
    """With its decorators."""
    return min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])


def _text_of(node: ast.stmt, lines: list[str]) -> str:
    return "\n".join(lines[_first_line(node) - 1 : node.end_lineno])


def _bound_name(node: ast.stmt) -> str | None:
    match node:
        case ast.FunctionDef() | ast.ClassDef():
            return node.name
        case ast.Assign(targets=[ast.Name(id=name)]):
            return name
    return None


class _Parts:
    """What a definition needs of the notebook: imports, constants and helpers, each once."""

    def __init__(self, names: Mapping[str, Any], exercise: str):
        self.names, self.imports, self.sources, self.done = names, set(), [], set()
        self.exercise = exercise

    def add(self, node: ast.stmt, lines: list[str], own: str) -> None:
        """A definition, behind all that it needs."""
        bound = _bound_name(node)
        self.done |= {own, bound}
        for name in sorted(_free_names(node) - self.done):
            self.done.add(name)
            pythons = hasattr(builtins, name) and name not in self.names
            if name in EXERCISES:
                self._lend(name, own)
            elif not pythons:
                self._need(name, own)
        self.sources.append(_text_of(node, "".join(lines).splitlines()))

    def _lend(self, name: str, own: str) -> None:
        """An earlier exercise's name has its piece in `mine.py`; nothing else may be called so."""
        reference, order = EXERCISES[name].reference, list(EXERCISES)
        value = self.names.get(name, reference)
        given = value is reference or value is _PASSED.get(name)
        given |= getattr(value, "__module__", None) == "mine"  # of `load`
        if not given or order.index(name) > order.index(self.exercise):
            raise NotKept(
                f"{own} uses {name}, which is an exercise's name: check that one first, or give "
                "yours another"
            )

    def _need(self, name: str, own: str) -> None:
        if name not in self.names:
            raise NotKept(f"{own} uses {name}, which no cell defines")
        value = self.names[name]
        if isinstance(value, types.ModuleType):
            last = value.__name__.rpartition(".")[2]
            line = f"import {value.__name__}" + (f" as {name}" if value.__name__ != name else "")
            if "." in value.__name__ and last == name:
                line = f"from {value.__name__.rpartition('.')[0]} import {name}"
            self.imports.add(line)
        elif line := _import_of(name, value):
            self.imports.add(line)
        elif _is_plain(value := value.item() if isinstance(value, np.generic) else value):
            self.sources.append(f"{name} = {_literal(value)}")
        elif isinstance(value, type) or inspect.isroutine(inspect.unwrap(value)):
            self.add(*_definition(value, name), own=name)
        else:
            raise NotKept(
                f"{own} uses {name} of another cell, {type(value).__name__}: hand it in, or set it "
                "inside"
            )


def _free_names(node: ast.stmt) -> set[str]:
    """Names that a definition reads and does not bind itself."""
    scopes = [symtable.symtable(ast.unparse(node), "answer", "exec")]
    names = set()
    for scope in scopes:  # which grows by the scopes inside
        scopes += scope.get_children()
        names |= {name.get_name() for name in scope.get_symbols() if name.is_global()}
    return names - {_bound_name(node)}


def _import_of(name: str, value: Any) -> str | None:
    """The line that imports a value under a name; None if it is none of a module's."""
    module = getattr(value, "__module__", None)
    if not module or module in ("__main__", "builtins", "mine"):
        return None
    public = [module.split(".")[0], "torch.nn.functional", "collections.abc", "typing"]
    for place in dict.fromkeys([*public, module]):
        found = sys.modules.get(place)
        for attribute in dict.fromkeys([getattr(value, "__name__", name), name]):
            if getattr(found, attribute, None) is value:
                alias = "" if attribute == name else f" as {name}"
                return f"from {place} import {attribute}{alias}"
    return None


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return type(value) in (type(None), bool, int, float, str)


def _literal(value: Any) -> str:
    """A plain value as Python reads it again."""
    if isinstance(value, tuple):
        return f"({''.join(f'{_literal(part)}, ' for part in value).rstrip()})"
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    return repr(value)


def _statements(text: str) -> list[ast.stmt]:
    """The statements of an answer's file; none if it was edited and is no Python now."""
    try:
        return ast.parse(text).body
    except (SyntaxError, ValueError):
        return []


def _top_level(text: str) -> dict[str, str]:
    """What a file binds at its outermost level, each with its source."""
    lines, found = text.splitlines(), {}
    for node in _statements(text):
        source = _text_of(node, lines)
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                found[alias.asname or alias.name] = source
        elif bound := _bound_name(node):
            found[bound] = source
    return found


def _refuse_clashes(name: str, text: str, kept: Mapping[str, str]) -> None:
    mine = _top_level(text)
    for other, other_text in kept.items():
        theirs = _top_level(other_text) if other != name else {}
        for bound in mine.keys() & theirs.keys():
            if mine[bound] != theirs[bound]:
                raise NotKept(
                    f"its {bound} is another one in your answer {other}: give one of the two "
                    "another name"
                )


# Putting them together


@dataclass(frozen=True)
class _Piece:
    """A part of the library: its source, and whether it is the reader's."""

    exercise: Exercise
    source: str
    own: bool


def _import_line(exercise: Exercise) -> str:
    """The line that brings the library's own in the place of an answer."""
    reference = exercise.reference
    name = reference.__name__
    alias = "" if name == exercise.name else f" as {exercise.name}"
    return f"from {reference.__module__} import {name}{alias}"


def _pieces(folder: Path) -> list[_Piece]:
    """All pieces, and the answers that the reader's pieces call besides, in their order."""
    kept, wanted = _kept(folder), set(PIECES)
    waiting = [name for name in PIECES if name in kept]
    while waiting:
        for node in _statements(kept[waiting.pop()]):
            called = _free_names(node) & (EXERCISES.keys() - wanted)
            wanted |= called
            waiting += [name for name in called if name in kept]
    pieces = []
    for name, exercise in EXERCISES.items():
        if name in wanted:
            source = kept.get(name, _import_line(exercise) + "\n")
            pieces.append(_Piece(exercise, source, own=name in kept))
    return pieces


def _library(pieces: list[_Piece]) -> str:
    """The text of `mine.py`."""
    own = [piece.exercise.name for piece in pieces if piece.own and piece.exercise.section]
    count = f"{len(own)} of {len(PIECES)} pieces are mine; the library lends the others."
    imports: dict[str, None] = {}
    done: set[str] = set()
    body: list[str] = []
    section = None
    for piece in pieces:
        title = piece.exercise.section or section
        if title != section:
            body.append(f"# {'-' * 20} {title}")
            section = title
        statements = _statements(piece.source) if piece.own else []
        if not statements:
            line = _import_line(piece.exercise)
            body.append(f"{line}  # the library's, until mine passes")
        lines = piece.source.splitlines()
        for node in statements:
            source = _text_of(node, lines)
            if isinstance(node, ast.Import | ast.ImportFrom):
                imports[source] = None
            elif source not in done:
                done.add(source)
                body.append(source)
    head = _HEAD.format(count=count) + "".join(f"\n{line}" for line in sorted(imports))
    return head + "\n\n\n" + "\n\n\n".join(body) + "\n"


def _write_library(folder: Path) -> None:
    path = folder / "mine.py"
    text = _library(_pieces(folder))
    # Bytes: an editor may have saved it in another encoding.
    if not path.is_file() or path.read_bytes() != text.encode():
        write_text(path, text)


def load(chapter: str = "") -> types.ModuleType:
    """All pieces as one module: `load().Bert`, the reader's where it passed, else the library's.

    An answer that does not fit the others, such as one that was edited by hand, gives way to the
    library's, with a line that says so.

    Args:
        chapter: such as "05": print one line on the pieces that came before it.
    """
    folder = mine_folder()
    pieces = _pieces(folder)
    module = types.ModuleType("mine", "The reader's pieces, and the library's for the others.")
    path = folder / "mine.py"
    module.__file__ = str(path)
    sys.modules["mine"] = module
    for piece in pieces:
        name = piece.exercise.name
        try:
            _run(piece.source, folder / "answers" / f"{name}.py", module)
            if not hasattr(module, name):
                raise NameError(f"it defines no {name}")
        except Exception as error:  # whatever a reader's file does
            print(f"{name}: yours cannot be used here ({type(error).__name__}: {error}).")
            _run(_import_line(piece.exercise), path, module)
    if chapter:
        print(_words(chapter, before=True))
    return module


def _run(source: str, path: Path, module: types.ModuleType) -> None:
    # Annotations stay unread, as in the file itself.
    flags = __future__.annotations.compiler_flag
    exec(compile(source, str(path), "exec", flags=flags, dont_inherit=True), vars(module))


def meter(chapter: str) -> None:
    """Print how many of the pieces up to a chapter, such as "05", are the reader's own."""
    print(_words(chapter, before=False))


def _words(chapter: str, before: bool) -> str:
    upto = [
        exercise.name
        for number, exercises in CHAPTERS.items()
        for exercise in exercises
        if exercise.section and (number < chapter or not before and number == chapter)
    ]
    if not upto:
        return "The pieces of your own library begin with this chapter."
    kept = _kept(mine_folder())
    missing = [name for name in upto if name not in kept]
    when = "before this chapter" if before else "so far"
    line = f"{len(upto) - len(missing)} of the {len(upto)} pieces {when} are yours"
    if not before:
        line += f", of {len(PIECES)} in the whole handbook"
    if missing:
        shown = ", ".join(missing[:8]) + (", .." if len(missing) > 8 else "")
        line += f"; the library lends {shown}"
    return f"{line}. All of them together: mine/mine.py"


def overview() -> Iterator[str]:
    """A line for each piece, its section and whose it is, and one that says where they are."""
    folder = mine_folder()
    kept = _kept(folder)
    for name in PIECES:
        whose = "yours" if name in kept else "the library's"
        yield f"{EXERCISES[name].section:<24} {name:<24} {whose}"
    yours = sum(name in kept for name in PIECES)
    yield f"{yours} of {len(PIECES)} are yours: {folder / 'mine.py'}"


# A folder with everything solved, for those who run the handbook's own notebooks


@contextlib.contextmanager
def solved() -> Iterator[None]:
    """MTL_MINE is a new folder that holds the answers of the solved notebooks.

    So the handbook's own runs of its chapters train what a reader who solved everything has, say
    the same in every run, and leave the reader's folder alone.
    """
    from mtl_lib.handbook.solutions import write_solutions

    before = os.environ.get("MTL_MINE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MTL_MINE"] = folder
        try:
            write_solutions()
            yield
        finally:
            if before is None:
                del os.environ["MTL_MINE"]
            else:
                os.environ["MTL_MINE"] = before
