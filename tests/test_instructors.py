"""INSTRUCTORS.md says what the registry of exercises says."""

import re

import pytest

from mtl_lib.handbook.checks import CHAPTERS, EXERCISES
from mtl_lib.handbook.student import STUB
from mtl_lib.paths import ROOT

TEXT = (ROOT / "INSTRUCTORS.md").read_text(encoding="utf-8")
LINES = re.findall(r"^\| (\d+) \| ([\db, ]+) \| (\d+) \| (\d+) \|$", TEXT, re.MULTILINE)


def test_the_number_of_exercises_is_right():
    assert f"{len(EXERCISES)} exercises" in TEXT


@pytest.mark.parametrize(("week", "chapters", "count", "minutes"), LINES)
def test_a_week_has_the_exercises_of_its_chapters_and_their_minutes(week, chapters, count, minutes):
    expected = [e for chapter in chapters.split(", ") for e in CHAPTERS[chapter]]
    assert int(count) == len(expected)
    assert int(minutes) == sum(exercise.minutes for exercise in expected)


def test_there_are_four_weeks_and_ten_and_the_ten_have_every_exercise():
    assert [int(week) for week, *_ in LINES] == [1, 2, 3, 4, *range(1, 11)]
    chapters = ", ".join(chapters for _, chapters, *_ in LINES[4:]).split(", ")
    assert sorted(chapters) == sorted(CHAPTERS)


def test_the_stub_and_the_tags_told_to_nbgrader_are_those_of_the_student_version():
    (config,) = re.findall(r"```python\n(c = get_config.*?)```", TEXT, re.DOTALL)
    assert f'{{"python": "{STUB}"}}' in config
    assert '["solution", "instructor"]' in config
