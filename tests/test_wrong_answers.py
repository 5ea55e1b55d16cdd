"""The bank of wrong and right answers, written without looking at the checks' own mistakes.

`tests/wrong_answers/chapter_NN.py` holds, for the exercises of one chapter,

    WRONG = [(exercise, function, text), ..]   `text` is part of the message it must get; None where
                                               only the first difference is right
    RIGHT = [(exercise, function), ..]         two or more different implementations per exercise

Functions may keep no state from one call to the next, unless that is the mistake.
"""

import copy
import importlib
from collections import Counter
from pathlib import Path

import pytest

from mtl_lib.handbook import checks
from mtl_lib.handbook.checks import EXERCISES
from mtl_lib.handbook.checks.framework import _outcomes, judge

CHAPTERS = sorted(p.stem for p in (Path(__file__).parent / "wrong_answers").glob("chapter_*.py"))
BANKS = {name: importlib.import_module(f"wrong_answers.{name}") for name in CHAPTERS}
WRONG = [answer for bank in BANKS.values() for answer in bank.WRONG]
RIGHT = [answer for bank in BANKS.values() for answer in bank.RIGHT]


def name_of(answer) -> str:
    return f"{answer[0]}-{getattr(answer[1], '__name__', type(answer[1]).__name__)}"


@pytest.mark.parametrize("name, answer, text", WRONG, ids=map(name_of, WRONG))
def test_a_wrong_answer_is_rejected_and_never_misnamed(name, answer, text):
    verdict = judge(EXERCISES[name], answer)
    assert not verdict.passed
    if text is None:
        assert verdict.mistake is None, "a mistake is named that this is not"
    else:
        assert text in verdict.message


@pytest.mark.parametrize("name, answer", RIGHT, ids=map(name_of, RIGHT))
def test_a_right_answer_is_accepted(name, answer):
    verdict = judge(EXERCISES[name], answer)
    assert verdict.passed, verdict.message


def test_the_bank_is_large_enough(capsys):
    wrong, right = Counter(n for n, *_ in WRONG), Counter(n for n, _ in RIGHT)
    named = sum(text is not None for *_, text in WRONG)
    with capsys.disabled():
        print(
            f"\n{len(EXERCISES)} exercises; a test for each of {len(WRONG)} wrong answers (all "
            f"rejected, {named} by name, none by another's) and {len(RIGHT)} right ones (accepted)"
        )
    assert len(WRONG) >= 80
    assert all(right[name] >= 2 for name in EXERCISES)
    assert all(wrong[name] >= 1 for name in EXERCISES)
    assert {*wrong, *right} <= EXERCISES.keys()


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=EXERCISES)
def test_an_exercise_tells_its_reference_and_its_mistakes_apart(exercise):
    assert judge(exercise, exercise.reference).passed
    assert all(outcome.error is None for outcome in _outcomes(exercise))
    assert len(exercise.mistakes) >= 2 or exercise.chapter == 0
    for mistake in exercise.mistakes:
        assert judge(exercise, copy.deepcopy(mistake.wrong)).mistake == mistake.says


def test_no_two_exercises_share_a_name_and_each_stands_in_its_chapter():
    assert sum(map(len, checks.CHAPTERS.values())) == len(EXERCISES)
    for number, exercises in checks.CHAPTERS.items():
        assert all(exercise.chapter == int(number[:2]) for exercise in exercises)
