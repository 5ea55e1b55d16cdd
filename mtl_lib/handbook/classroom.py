"""A class's reports (MTL_REPORT), summed up: what passed, and which mistakes were made."""

import json
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure as Picture

from mtl_lib.errors import ConfigError, explain
from mtl_lib.files import replacing
from mtl_lib.handbook.checks import CHAPTERS, EXERCISES
from mtl_lib.handbook.show import _plain
from mtl_lib.study.drawing import DPI, INK, OURS, PAPER, PAPER_LIGHT, plain

TABLE, PICTURE = "class.csv", "class.png"
SHOWN = 20  # mistakes in the picture


def read_reports(paths: Iterable[Path]) -> pd.DataFrame:
    """One line an exercise and student: chapter, exercise, student, passed, mistake (or "").

    A student is a file, whatever its name: in folders of their own all may have the same one.
    Exercises that this release does not know are left out. What a student may have written into a
    mistake cannot act on a terminal.

    Args:
        paths: the students' report files.

    Raises:
        ConfigError: if a file is no report; it names the file. If no exercise of this release is
            in any of them.
    """
    chapters = {one.name: chapter for chapter, found in CHAPTERS.items() for one in found}
    lines = []
    for path in paths:
        try:
            report = json.loads(path.read_text(encoding="utf-8-sig"))
            for name, verdict in report.items():
                if name in EXERCISES:
                    line = {"chapter": chapters[name], "exercise": name, "student": str(path)}
                    mistake = verdict["mistake"]
                    if not isinstance(mistake, str | None):
                        raise TypeError(f"mistake of {name}: {type(mistake).__name__}, not text")
                    line |= {"passed": bool(verdict["passed"]), "mistake": _plain(mistake or "")}
                    lines.append(line)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {explain(error)}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"{path}: no report of checks ({type(error).__name__}: {error}); ask the student "
                "to set MTL_REPORT to a new file and to run the checks again"
            ) from error
    if not lines:
        raise ConfigError("no exercise of this release in these reports; install the class's one")
    columns = ["chapter", "exercise", "student", "passed", "mistake"]
    return pd.DataFrame(lines, columns=columns).sort_values(columns[:3], ignore_index=True)


def by_exercise(answers: pd.DataFrame) -> pd.DataFrame:
    """One line an exercise, in the handbook's order: how many tried, passed, and the mistake that
    most of the others ended with."""
    lines = []
    for (chapter, exercise), of in answers.groupby(["chapter", "exercise"], sort=False):
        mistakes = of.loc[~of["passed"] & of["mistake"].ne(""), "mistake"].value_counts()
        common = f"{mistakes.iloc[0]} x {mistakes.index[0]}" if len(mistakes) else ""
        line = {"chapter": chapter, "exercise": exercise, "tried": len(of)}
        lines.append(line | {"passed": int(of["passed"].sum()), "most common mistake": common})
    order = list(EXERCISES)
    return pd.DataFrame(
        sorted(lines, key=lambda line: order.index(line["exercise"])),
        columns=["chapter", "exercise", "tried", "passed", "most common mistake"],
    )


@plain
def draw(answers: pd.DataFrame) -> Picture:
    """Of each exercise that not all have passed: how many ended with a mistake that has a name, and
    how many with another one."""
    wrong = answers[~answers["passed"]]
    counts = wrong.groupby(["exercise", wrong["mistake"].ne("")]).size().unstack(fill_value=0)
    counts = counts.reindex(columns=[True, False], fill_value=0)
    counts = counts.loc[counts.sum(axis=1).sort_values(ascending=False).index[:SHOWN]][::-1]
    picture = Picture(figsize=(8, 1.8 + 0.3 * len(counts)), layout="constrained")
    ax = picture.subplots()
    ax.barh(counts.index, counts[True], color=PAPER, label="a mistake that has a name")
    ax.barh(counts.index, counts[False], left=counts[True], color=PAPER_LIGHT, label="another one")
    students = answers["student"].nunique()
    ax.axvline(students, color=OURS, lw=1)
    ax.set_xlim(0, students * 1.02)
    ax.set_xlabel("students")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set_title(f"Not passed yet, of {students} students", loc="left", color=INK)
    picture.legend(frameon=False, loc="outside lower right", ncols=2)
    return picture


def _handed_in(path: Path) -> bool:
    return not any(part.startswith(".") or part == "__MACOSX" for part in path.parts)


def sum_up(folder: str | Path, out: str | Path) -> tuple[pd.DataFrame, list[Path]]:
    """Read every report of a folder, or of folders in it, and write a table and a picture to
    another one. Hidden files, such as Jupyter's checkpoints, and what a Mac adds to an archive are
    no reports.

    Returns:
        The table, `by_exercise`, and the two paths.

    Raises:
        ConfigError: if there is no such folder or no report in it, or a file is none.
    """
    place = Path(folder).expanduser()
    if not place.is_dir():
        raise ConfigError(f"{folder}: no such folder; give the one that holds the class's reports")
    paths = sorted(path for path in place.rglob("*.json") if _handed_in(path.relative_to(place)))
    if not paths:
        raise ConfigError(
            f"{folder}: no report (*.json) there; students write one by setting "
            "MTL_REPORT=NAME.json before they start Jupyter"
        )
    answers, out = read_reports(paths), Path(out)
    table = by_exercise(answers)
    with replacing(out / TABLE) as unfinished:
        table.to_csv(unfinished, index=False, lineterminator="\n")
    with replacing(out / PICTURE) as unfinished:
        draw(answers).savefig(unfinished, format="png", dpi=DPI)
    return table, [out / TABLE, out / PICTURE]
