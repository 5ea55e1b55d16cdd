"""The exercises of the handbook, and `check`, which a notebook calls below each of them.

    scores = check("scores", scores)

prints one line and returns the reader's function if it passed, else the library's: Run All goes
through with every exercise still empty. An answer that passed is kept for later chapters
(`handbook/mine.py`). Exercises are formative.
"""

import difflib
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from mtl_lib.errors import ConfigError
from mtl_lib.files import write_text
from mtl_lib.handbook.checks.framework import Exercise, Verdict, judge

# Each chapter's exercises in their order, the chapters as their notebooks are named.
CHAPTERS: dict[str, tuple[Exercise, ...]] = {
    path.stem.removeprefix("chapter_"): import_module(f"{__name__}.{path.stem}").EXERCISES
    for path in sorted(Path(__file__).parent.glob("chapter_*.py"))
}
EXERCISES: dict[str, Exercise] = {
    exercise.name: exercise for exercises in CHAPTERS.values() for exercise in exercises
}


def check(name: str, answer: Any) -> Callable:
    """Check an answer, print one line about it, keep it, and return the function to go on with.

    If the environment variable MTL_REPORT names a file, the result is written there too, as JSON:
    `{exercise: {"passed": .., "message": .., "mistake": ..}}`.

    Returns:
        The answer if it passed, else the library's function.

    Raises:
        ConfigError: if there is no such exercise, or the report cannot be written. A wrong answer
            raises nothing.
    """
    exercise = _exercise_named(name)
    verdict = judge(exercise, answer)
    print(verdict.message)
    if verdict.passed:
        from mtl_lib.handbook import mine  # which builds on this module

        try:
            mine.keep(name, answer)
        except mine.NotKept as error:
            print(f"It is not kept for later chapters: {error}.")
    if os.environ.get("MTL_REPORT"):
        _write_report(Path(os.environ["MTL_REPORT"]), name, verdict)
    return answer if verdict.passed else exercise.reference


def show(name: str) -> str:
    """The exercise's card in Markdown: title, difficulty, importance, minutes, specification.

    Raises:
        ConfigError: if there is no such exercise.
    """
    return _exercise_named(name).card()


def _exercise_named(name: str) -> Exercise:
    if name not in EXERCISES:
        near = difflib.get_close_matches(str(name), EXERCISES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(EXERCISES)}"
        raise ConfigError(f"no exercise {name!r}; {hint}")
    return EXERCISES[name]


def _write_report(path: Path, name: str, verdict: Verdict) -> None:
    """Put one result into the report; the others, perhaps of another notebook, stay in it."""
    try:
        report = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        report |= {name: asdict(verdict)}
        write_text(path, json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(
            f"MTL_REPORT={path}: cannot be written ({error}); name a new file in a folder of yours"
        ) from error
