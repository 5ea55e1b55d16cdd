"""The judge of the exercises: what passes, what is named, what is only shown."""

import json
import os
import random
import sys

import numpy as np
import pytest
import torch

from mtl_lib.errors import ConfigError
from mtl_lib.handbook import checks
from mtl_lib.handbook.checks.framework import (
    Case,
    Exercise,
    Mistake,
    call,
    difference,
    draw,
    judge,
    refusal,
    tensor,
    with_gradient,
)

X, Y = draw(3, 2, seed=1), draw(3, 2, seed=2)


def combine(x, y):
    """The toy exercise: x + 2 y."""
    return x + 2 * y


ADDED_ONCE = Mistake(lambda x, y: x + y, "The second one is added once.")
SUBTRACTED = Mistake(lambda x, y: x - 2 * y, "The second one is subtracted.")
CASES = (
    Case("two tensors", lambda answer: call(answer, X, Y)),
    Case("second one zero", lambda answer: call(answer, X, torch.zeros_like(Y))),
    Case("gradients", lambda answer: with_gradient(answer, x=X, y=Y)),
)
TOY = Exercise(
    "combine", 0, "Combine", 1, 2, 3, "`combine(x, y)`", "", combine, CASES,
    (ADDED_ONCE, SUBTRACTED), "",
)  # fmt: skip


def test_a_right_answer_passes():
    verdict = judge(TOY, lambda x, y: y + x + y)
    assert verdict.passed
    assert verdict.message == "combine: passed all 3 cases. Later cells use your combine."


def test_a_stub_is_not_done_yet():
    def stub(x, y):
        raise NotImplementedError

    message = judge(TOY, stub).message
    assert message == "combine: not done yet. Later cells use the library's combine."


@pytest.mark.parametrize("mistake", [ADDED_ONCE, SUBTRACTED])
def test_a_mistake_is_named(mistake):
    verdict = judge(TOY, lambda x, y: mistake.wrong(x, y) + 0)
    assert not verdict.passed
    assert verdict.mistake == mistake.says
    assert mistake.says in verdict.message


def test_a_mistake_is_named_only_if_every_case_agrees():
    verdict = judge(TOY, lambda x, y: x + y if y.any() else x + 1)
    assert verdict.mistake is None
    assert 'Case "two tensors": at [0, 0] got' in verdict.message


def test_a_mistake_that_gives_nothing_but_errors_is_never_named():
    def broken(x, y):
        raise ValueError

    toy = Exercise("combine", 0, "", 1, 1, 1, "", "", combine, CASES, (Mistake(broken, "no"),), "")
    assert judge(toy, lambda x, y: int("x")).mistake is None


def test_a_mistake_with_a_state_starts_afresh_in_every_check():
    class Growing:
        calls = 0

        def __call__(self, x, y):
            self.calls += 1
            return x + self.calls * y

    toy = Exercise(
        "combine", 0, "", 1, 1, 1, "", "", combine, CASES, (Mistake(Growing(), "It grows."),), ""
    )
    for _ in range(2):
        assert judge(toy, Growing()).mistake == "It grows."


def test_the_first_difference_shows_case_place_got_and_expected():
    def almost(x, y):
        result = x + 2 * y
        result[1, 0] = 7
        return result

    message = judge(TOY, almost).message
    expected = (X + 2 * Y)[1, 0].item()
    assert f'Case "two tensors": at [1, 0] got 7, expected {expected:.4g}.' in message


@pytest.mark.parametrize(
    "answer, words",
    [
        (None, "not a function but None"),
        (3, "not a function but a number"),
        (X, "not a function but a tensor of shape (3, 2)"),
        (lambda x, y: None, "got None (is a return missing?), expected a tensor of shape (3, 2)"),
        (lambda x, y: "text", "got a str, expected a tensor"),
        (lambda x, y: (x + 2 * y).T, "got shape (2, 3), expected shape (3, 2)"),
        (lambda x, y: (x + 2 * y).sum(), "got a single number, expected shape (3, 2)"),
        (lambda x: x, "cannot be called as the task says (TypeError"),
        (lambda x, y: x @ y, "raises RuntimeError: mat1 and mat2"),
        (lambda x, y: x + y + z, "raises NameError: name 'z' is not defined"),  # noqa: F821
        (lambda x, y: sys.exit(1), "raises SystemExit: 1"),
    ],
)
def test_other_faults_are_told(answer, words):
    verdict = judge(TOY, answer)
    assert not verdict.passed and verdict.mistake is None
    assert words in verdict.message
    assert "\n" not in verdict.message


def test_an_exception_shows_the_line_of_the_answer():
    def answer(x, y):
        return x + y.missing

    assert "in your line `return x + y.missing`" in judge(TOY, answer).message


def test_addresses_and_long_messages_are_shortened():
    def answer(x, y):
        raise ValueError(f"{object()} {'long ' * 60}\nand a hidden second line")

    message = judge(TOY, answer).message
    assert "object object>" in message and "0x" not in message
    assert len(message) < 350 and "\n" not in message


def test_an_unfinished_branch_is_no_stub():
    def answer(x, y):
        if not y.any():
            raise NotImplementedError
        return x + 2 * y

    message = judge(TOY, answer).message
    assert 'Case "second one zero": raises NotImplementedError' in message


def test_changed_inputs_are_named_and_harmless():
    before = X.clone()

    def answer(x, y):
        x += 2 * y
        return x

    verdict = judge(TOY, answer)
    assert "changes its input `x` in place" in verdict.mistake
    assert torch.equal(X, before)


@pytest.mark.parametrize(
    "answer",
    [
        lambda x, y: (x + 2 * y).detach(),
        lambda x, y: x.numpy() + 2 * y.numpy(),
        lambda x, y: torch.tensor((x + 2 * y).tolist()),
        torch.no_grad()(combine),
    ],
)
def test_a_detached_result_is_named(answer):
    assert "detached from the graph" in judge(TOY, answer).mistake


def test_a_list_of_attached_tensors_is_not_called_detached():
    verdict = judge(TOY, lambda x, y: [row for row in x + 2 * y])
    assert verdict.mistake is None
    assert 'Case "gradients": got a list, expected a tensor.' in verdict.message


def test_a_result_detached_from_one_input_shows_that_gradient():
    verdict = judge(TOY, lambda x, y: x + 2 * y.detach())
    assert verdict.mistake is None
    assert 'Case "gradients": gradient of y: at [0, 0] got 0, expected 1.683' in verdict.message


def test_nothing_global_is_left_changed(capsys):
    def answer(x, y):
        print("hello")
        torch.manual_seed(3)
        np.random.seed(3)
        random.seed(3)
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        return x

    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    first = random.random(), np.random.rand(), torch.rand(1).item()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    judge(TOY, answer)
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == first
    assert torch.is_grad_enabled() and torch.get_default_dtype() == torch.float32
    assert capsys.readouterr().out == ""


def test_a_readers_default_dtype_changes_nothing():
    torch.set_default_dtype(torch.float64)
    try:
        assert judge(TOY, lambda x, y: x + torch.tensor(2.0) * y).passed
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_random_answers_start_from_the_same_state_in_every_case():
    noisy = Exercise(
        "noise", 0, "", 1, 1, 1, "", "", lambda n: torch.rand(n),
        (Case("three", lambda answer: answer(3)), Case("three again", lambda answer: answer(3))),
        (), "",
    )  # fmt: skip
    assert judge(noisy, lambda n: torch.rand(n)).passed


@pytest.mark.parametrize(
    "got, expected",
    [
        (np.float32(0.5), 0.5),
        (torch.tensor(0.5), 0.5),
        (np.array(0.5), 0.5),
        (1, 1.0),
        ([[1, 2.0]], torch.tensor([[1.0, 2.0]])),
        (np.ones(3), torch.ones(3)),
        ([torch.tensor(1.0), 2], np.array([1.0, 2.0])),
        (torch.ones(3), np.ones(3)),
        (torch.ones(3, requires_grad=True), torch.ones(3)),
        (torch.ones(2, dtype=torch.int64), torch.ones(2)),
        (np.array([1.0, 2.0]), (1.0, 2.0)),
        ([1.0, 2.0], (1.0, 2.0)),
        (range(2), (0, 1)),
        (range(2), torch.tensor([0, 1])),
        (np.True_, True),
        (torch.tensor(False), False),
        (True, np.True_),
        (np.array(True), True),
        (float("nan"), float("nan")),
        ({"b": 2, "a": 1}, {"a": 1, "b": 2}),
        ("an error", "an error"),
        (None, None),
    ],
)
def test_the_same_value_in_another_form_is_equal(got, expected):
    assert difference(got, expected) is None


@pytest.mark.parametrize(
    "got, expected, words",
    [
        (1, True, "got a number, expected True"),
        (True, 1.0, "got True or False, expected a number"),
        (torch.tensor([0.5]), 0.5, "got shape (1,), expected a single number"),
        (float("nan"), 0.0, "got nan, expected 0"),
        (0.0, float("nan"), "got 0, expected nan"),
        (float("inf"), float("-inf"), "got inf, expected -inf"),
        ("no error", "an error", "got 'no error', expected 'an error'"),
        (torch.tensor(1j), True, "expected True"),
        (np.array(None, dtype=object), 1.0, "expected a number"),
        ((1.0,), (1.0, 2.0), "got 1 values, expected 2"),
        ((1.0, 3.0), (1.0, 2.0), "value 2: got 3, expected 2"),
        ({"a": 1}, {"a": 1, "b": 2}, "b is missing (found: a)"),
        ({"a": 1, "c": 3}, {"a": 1}, "c does not belong there"),
        ({"a": [1, 2]}, {"a": [1, 4]}, "a, value 2: got 2, expected 4"),
        ([[1, 2], [3]], torch.ones(2, 2), "got a list, expected a tensor of shape (2, 2)"),
        (torch.ones(2, dtype=torch.complex64), torch.ones(2), "got a complex tensor of shape (2,)"),
        (np.array([1j]), torch.ones(1), "got a complex array of shape (1,), expected a tensor"),
        (torch.eye(2).to_sparse(), torch.eye(2), "got a sparse tensor of shape (2, 2), expected a"),
        (1j, 1.0, "got a complex number, expected a number"),
        (np.complex64(1j), 1.0, "got a complex number, expected a number"),
        (1.00021, 1.0, "got 1.00021, expected 1"),
        (1.0003, 1.0, "got 1.0003, expected 1"),
    ],
)
def test_a_difference_is_described(got, expected, words):
    assert words in difference(got, expected)


def test_tensor_reads_arrays_and_lists_and_refuses_the_rest():
    assert torch.equal(tensor([[1.0, 2.0]]), torch.tensor([[1.0, 2.0]], dtype=torch.float64))
    toy = Exercise(
        "combine", 0, "", 1, 1, 1, "", "", combine,
        (Case("sum", lambda answer: tensor(answer(X, Y)).sum()),), (), "",
    )  # fmt: skip
    assert judge(toy, lambda x, y: (x + 2 * y).tolist()).passed
    assert (
        "got None (is a return missing?), expected a tensor"
        in judge(toy, lambda x, y: None).message
    )


def test_refusal_counts_only_errors_raised_on_purpose():
    def fail(error):
        raise error

    assert refusal(lambda: fail(ValueError())) == "an error"
    assert refusal(lambda: fail(ConfigError())) == "an error"
    assert refusal(lambda: None) == "no error"
    for accident in (NameError, TypeError, NotImplementedError):
        with pytest.raises(accident):
            refusal(lambda accident=accident: fail(accident()))


@pytest.fixture
def with_toy(monkeypatch):
    monkeypatch.setitem(checks.EXERCISES, "combine", TOY)
    monkeypatch.delenv("MTL_REPORT", raising=False)


def test_check_returns_the_answer_that_passed_else_the_library(with_toy, capsys):
    def mine(x, y):
        return x + y + y

    assert checks.check("combine", mine) is mine
    assert checks.check("combine", ADDED_ONCE.wrong) is combine
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 3
    assert printed[1].startswith("It is not kept for later chapters: combine is not written at")
    assert printed[2].endswith("Later cells use the library's combine.")


def test_check_writes_the_report_and_keeps_what_others_wrote(with_toy, tmp_path, monkeypatch):
    path = tmp_path / "reports" / "mine.json"
    path.parent.mkdir()
    path.write_text('{"other": {"passed": true, "message": "", "mistake": null}}')
    monkeypatch.setenv("MTL_REPORT", str(path))
    checks.check("combine", ADDED_ONCE.wrong)
    report = json.loads(path.read_text())
    assert report["other"]["passed"]
    assert report["combine"]["passed"] is False
    assert report["combine"]["mistake"] == ADDED_ONCE.says
    assert report["combine"]["message"].startswith("combine: not yet.")
    assert os.listdir(path.parent) == ["mine.json"]


def test_a_check_leaves_newer_results_of_other_exercises_in_the_report(
    with_toy, tmp_path, monkeypatch
):
    path = tmp_path / "report.json"
    monkeypatch.setenv("MTL_REPORT", str(path))
    checks.check("combine", ADDED_ONCE.wrong)
    newer = json.loads(path.read_text())["combine"] | {"passed": True}  # of another kernel
    path.write_text(json.dumps({"combine": newer}))
    checks.check("scores", None)
    report = json.loads(path.read_text())
    assert report["combine"]["passed"] and not report["scores"]["passed"]


def test_an_unwritable_report_is_an_expected_fault(with_toy, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no JSON")
    monkeypatch.setenv("MTL_REPORT", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match="MTL_REPORT"):
        checks.check("combine", combine)


def test_an_unknown_exercise_is_an_expected_fault_with_a_suggestion(with_toy):
    with pytest.raises(ConfigError, match="did you mean 'combine'"):
        checks.check("combin", combine)


def test_show_gives_the_card(with_toy):
    card = checks.show("combine")
    assert card.startswith("### Exercise: Combine\n\nDifficulty ●○○○○ · Importance ●●○○○")
    assert "about 3 minutes" in card and "`combine(x, y)`" in card
