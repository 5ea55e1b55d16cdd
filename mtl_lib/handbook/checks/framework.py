"""Exercises whose checks name the mistake, and only when it is that mistake.

An `Exercise` holds questions (`Case`) and the wrong algorithms that people write (`Mistake`). An
answer passes if it gives what the reference gives in every case. A mistake is named only if the
answer gives what that wrong algorithm gives in *every* case; otherwise the reader sees the first
difference: case, place, got and expected. Nothing is guessed.

Exercises are formative: they help to learn, and a pass is no proof, since an answer may call the
library or look up the expected values.

Helpers for writing cases: `draw` (seeded inputs), `fill` (known weights), `call` (asks on
copies and notices changed inputs), `with_gradient` (value and gradients), `tensor` (a result as a
tensor) and `refusal` (an error or none).
"""

import contextlib
import copy
import functools
import inspect
import io
import linecache
import random
import re
import traceback
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from numbers import Number
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mtl_lib.errors import HandbookError


@dataclass(frozen=True)
class Case:
    """One question put to the answer.

    Attributes:
        name: what is asked, shown to the reader: "two heads, padded sentence".
        ask: takes the answer and returns a tensor, array, number, text, bool, None, or a tuple,
            list or dict of those. It hands out copies, so that no answer can spoil the inputs;
            random numbers start from the same state each time.
        rtol, atol: what still counts as equal, as in `numpy.isclose`.
    """

    name: str
    ask: Callable[[Callable], Any]
    rtol: float = 1e-4
    atol: float = 1e-6


@dataclass(frozen=True)
class Mistake:
    """A wrong algorithm and what to say about it.

    Attributes:
        wrong: computes what people compute who make this mistake; same signature as the reference.
            If it is an object with a state, every check starts from a fresh copy of it.
        says: one sentence that names the mistake and points at the cause, without the code.
    """

    wrong: Callable
    says: str


@dataclass(frozen=True, eq=False)
class Exercise:
    """A function or a class for the reader to write.

    Attributes:
        name: the function's or the class's name.
        chapter: 0 to 13.
        title: a few words.
        difficulty, importance: from 1 to 5.
        minutes: how long it takes, an estimate.
        task: the specification: signature, shapes, units, edge cases (Markdown).
        hint: a push in the right direction (Markdown).
        reference: the right answer, which later cells use in place of a wrong one.
        cases: the questions, the plainest first.
        mistakes: the wrong algorithms known by name.
        notes: for instructors: what students get wrong, and what it is worth (Markdown).
        section: the part of the reader's own library (`handbook/mine.py`) that the answer becomes
            a piece of, such as "Attention"; empty if of none.
    """

    name: str
    chapter: int
    title: str
    difficulty: int
    importance: int
    minutes: int
    task: str
    hint: str
    reference: Callable
    cases: tuple[Case, ...]
    mistakes: tuple[Mistake, ...]
    notes: str
    section: str = ""

    def card(self) -> str:
        """The exercise as the reader meets it, in Markdown."""
        return (
            f"### Exercise: {self.title}\n\n"
            f"Difficulty {_dots(self.difficulty)} · Importance {_dots(self.importance)} · "
            f"about {self.minutes} minutes\n\n{self.task.strip()}\n"
        )


@dataclass(frozen=True)
class Verdict:
    """What a check found.

    Attributes:
        passed: whether every case was answered as the reference answers it.
        message: the line for the reader.
        mistake: the named mistake; None if the answer passed or only a difference can be shown.
    """

    passed: bool
    message: str
    mistake: str | None = None


def judge(exercise: Exercise, answer: Any) -> Verdict:
    """Put every case to the answer. Wrong answers never raise; random states are as before."""
    with _undisturbed():
        finding, mistake = _finding(exercise, answer)
    name = exercise.name
    if finding is None:
        count = len(exercise.cases)
        return Verdict(True, f"{name}: passed all {count} cases. Later cells use your {name}.")
    return Verdict(False, f"{name}: {finding} Later cells use the library's {name}.", mistake)


# Helpers for writing cases


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Standard normal numbers of this shape, the same ones for the same seed."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def fill(module: nn.Module, scale: float = 0.5) -> nn.Module:
    """The module with parameters that are normal numbers times `scale`, by their names alone."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(scale * draw(*parameter.shape, seed=zlib.crc32(name.encode())))
    return module


def call(answer: Callable, *arguments: Any, **keywords: Any) -> Any:
    """What the answer returns for copies of the arguments; that it changed one is noted."""
    given = copy.deepcopy((arguments, keywords))
    result = answer(*given[0], **given[1])
    for place, (before, after) in enumerate(zip(arguments, given[0], strict=True)):
        _note_change(place, before, after)
    for name, before in keywords.items():
        _note_change(name, before, given[1][name])
    return result


def with_gradient(function: Callable, **inputs: Tensor) -> dict[str, Any]:
    """Value of `function(*inputs)` and the gradient of a fixed weighted sum of it for each input.

    Returns:
        "value" and, for each name, "gradient of NAME". An answer that cuts the graph gives
        `Detached` in their place.
    """
    leaves = {name: value.detach().clone().requires_grad_() for name, value in inputs.items()}
    given = [leaf.clone() for leaf in leaves.values()]  # a copy, which may be written to
    try:
        value = function(*given)
    except RuntimeError as error:
        if "numpy() on Tensor that requires grad" in str(error):
            raise Detached from None
        raise
    for place, (leaf, copied) in enumerate(zip(leaves.values(), given, strict=True)):
        _note_change(place, leaf, copied)
    if isinstance(value, tuple | list) and any(map(_attached, value)):
        raise WrongKind(f"{_got(value)}, expected a tensor")
    if not _attached(value):
        return {"value": value, "gradients": Detached()}
    weights = torch.arange(1, value.numel() + 1, dtype=value.dtype).sin().view(value.shape)
    found = torch.autograd.grad((value * weights).sum(), list(leaves.values()), allow_unused=True)
    gradients = {
        f"gradient of {name}": torch.zeros_like(leaf) if gradient is None else gradient
        for (name, leaf), gradient in zip(leaves.items(), found, strict=True)
    }
    return {"value": value.detach(), **gradients}


def _attached(value: Any) -> bool:
    """Whether a value is a tensor that gradients flow back through."""
    return isinstance(value, Tensor) and value.requires_grad


def tensor(result: Any) -> Tensor:
    """A result as a tensor, for a case that goes on computing with it.

    Raises:
        WrongKind: if it is nothing like a tensor.
    """
    if isinstance(result, Tensor):
        return result
    array = _array(result)
    if array is None:
        raise WrongKind(f"{_got(result)}, expected a tensor")
    return torch.from_numpy(np.array(array))


def refusal(function: Callable[[], Any]) -> str:
    """Whether a call that ought to be refused is: "an error" or "no error".

    Only errors that are raised on purpose count, not a misspelt name or a wrong call.
    """
    try:
        function()
    except NotImplementedError:
        raise
    except (ValueError, RuntimeError, KeyError, AssertionError, HandbookError):
        return "an error"
    return "no error"


class WrongKind(Exception):
    """A result is of a kind that the case cannot go on with."""


class Detached(Exception):
    """The result does not depend on the inputs as far as autograd can see."""

    says = (
        "Its result is detached from the graph, so no gradient can flow back through it: "
        "stay with differentiable torch operations, without numpy, detach, item or no_grad."
    )


# Judging


@dataclass(frozen=True)
class _Outcome:
    """What one case gave: a value, or an exception."""

    value: Any = None
    error: BaseException | None = None
    changed: tuple[int | str, ...] = ()


def _finding(exercise: Exercise, answer: Any) -> tuple[str | None, str | None]:
    """What is wrong with the answer (None: nothing), and the mistake if it can be named."""
    if not callable(answer):
        return f"not a function but {_kind(answer)}.", None
    expected, got = _outcomes(exercise), []
    for case in exercise.cases:
        got.append(_ask(case, answer))
        if len(got) == 1 and isinstance(got[0].error, NotImplementedError):
            return "not done yet.", None
    wrong = [
        (case, mine, unlike)
        for case, mine, right in zip(exercise.cases, got, expected, strict=True)
        if (unlike := _outcome_difference(mine, right, case)) is not None
    ]
    if not wrong:
        changed = [place for mine in got for place in mine.changed]
        if not changed:
            return None, None
        says = (
            f"It gives the right values but changes its input {_argument(answer, changed[0])} "
            "in place, which whoever called it still needs: work on a copy."
        )
        return f"not yet. {says}", says
    for number, mistake in enumerate(exercise.mistakes):
        if _alike(got, _outcomes(exercise, number), exercise.cases):
            return f"not yet. {mistake.says}", mistake.says
    case, mine, unlike = wrong[0]
    if isinstance(mine.error, Detached) or isinstance(unlike, _DetachedDifference):
        return f"not yet. {Detached.says}", Detached.says
    if mine.error is not None:
        unlike = _raised(mine.error, answer)
    return f'not yet. Case "{case.name}": {unlike}.', None


@functools.cache
def _outcomes(exercise: Exercise, mistake: int | None = None) -> list[_Outcome]:
    """What the reference, or a wrong algorithm, gives in every case."""
    wrong = exercise.reference if mistake is None else exercise.mistakes[mistake].wrong
    wrong = copy.deepcopy(wrong)  # a state begins afresh; functions stay what they are
    return [_ask(case, wrong) for case in exercise.cases]


def _alike(got: list[_Outcome], wrong: list[_Outcome], cases: tuple[Case, ...]) -> bool:
    """Whether the answer gave what the wrong algorithm gives, in every case."""
    if all(outcome.error is not None for outcome in wrong):
        return False  # errors alone say nothing about the algorithm
    triples = zip(got, wrong, cases, strict=True)
    return all(_outcome_difference(mine, its, case) is None for mine, its, case in triples)


def _ask(case: Case, answer: Callable) -> _Outcome:
    random.seed(0)
    np.random.seed(0)
    torch.default_generator.manual_seed(0)  # the one whose state is put back
    _CHANGED.clear()
    try:
        value = case.ask(answer)
    except (Exception, SystemExit) as error:
        return _Outcome(error=error)
    return _Outcome(value, changed=tuple(_CHANGED))


def _outcome_difference(mine: _Outcome, other: _Outcome, case: Case) -> str | None:
    if mine.error is not None or other.error is not None:
        return None if type(mine.error) is type(other.error) else "an exception"
    return difference(mine.value, other.value, case.rtol, case.atol)


class _DetachedDifference(str):
    """The difference is that the answer's result is detached."""


def difference(got: Any, expected: Any, rtol: float = 1e-4, atol: float = 1e-6) -> str | None:
    """Say where a result first differs from the expected one; None if it is the same.

    The expected value decides what is compared: for a number also a tensor without dimensions
    passes, for a tensor also an array or a list, for a tuple also a list or a range, float32 for
    float64.
    NaN equals NaN only.
    """
    return _difference(got, expected, rtol, atol, where="")


def _difference(got: Any, expected: Any, rtol: float, atol: float, where: str) -> str | None:
    at = f"{where}: " if where else ""
    if expected is None or isinstance(expected, str | bool | np.bool_):
        value = got
        if isinstance(got, Tensor | np.ndarray | np.generic) and got.ndim == 0:
            value = got.item()
        if type(value) is type(expected) and value == expected:
            return None
        if isinstance(expected, np.bool_) and value is bool(expected):
            return None
        shown = repr(value) if isinstance(value, str | bool) else None
        return f"{at}{f'got {shown}' if shown else _got(value)}, expected {expected!r}"
    if isinstance(expected, Mapping):
        if not isinstance(got, Mapping):
            return f"{at}{_got(got)}, expected a dict with {_names(expected)}"
        if isinstance(got.get("gradients"), Detached) and "gradients" not in expected:
            unlike = _difference(got.get("value"), expected.get("value"), rtol, atol, where)
            return unlike or _DetachedDifference("detached")
        for key in expected:
            if key not in got:
                return f"{at}{key} is missing (found: {_names(got) or 'nothing'})"
            place = "" if key == "value" else f"{where}, {key}".lstrip(", ")
            unlike = _difference(got[key], expected[key], rtol, atol, place)
            if unlike:
                return unlike
        extra = [key for key in got if key not in expected]
        return f"{at}{extra[0]} does not belong there" if extra else None
    if isinstance(expected, tuple | list):
        if isinstance(got, Tensor | np.ndarray) and got.ndim > 0:
            got = list(got)
        if not isinstance(got, tuple | list | range):
            return f"{at}{_got(got)}, expected {len(expected)} values"
        if len(got) != len(expected):
            return f"{at}got {len(got)} values, expected {len(expected)}"
        for place, (one, other) in enumerate(zip(got, expected, strict=True)):
            unlike = _difference(one, other, rtol, atol, f"{where}, value {place + 1}".lstrip(", "))
            if unlike:
                return unlike
        return None
    if isinstance(expected, Detached):
        return None if isinstance(got, Detached) else f"{at}{_got(got)}, expected no gradient"
    return _array_difference(got, expected, rtol, atol, at)


def _array_difference(got: Any, expected: Any, rtol: float, atol: float, at: str) -> str | None:
    right, mine = _array(expected), _array(got)
    if right is None:
        raise TypeError(f"a case cannot expect {_kind(expected)}")
    if mine is None or (mine.dtype == bool) != (right.dtype == bool):
        if mine is not None and mine.ndim and mine.shape == right.shape:
            kinds = ("numbers", "true and false")
            return f"{at}got {kinds[mine.dtype == bool]}, expected {kinds[right.dtype == bool]}"
        return f"{at}{_got(got)}, expected {_kind(expected)}"
    if mine.shape != right.shape:
        return f"{at}got {_shape(mine)}, expected {_shape(right)}"
    mine, right = mine.astype(np.float64), right.astype(np.float64)
    same = np.isclose(mine, right, rtol=rtol, atol=atol, equal_nan=True)
    if same.all():
        return None
    place = tuple(int(i) for i in np.argwhere(~same)[0])
    index = f"at [{', '.join(map(str, place))}] " if place else ""
    one, other = _digits(mine[place], right[place])
    return f"{at}{index}got {one}, expected {other}"


# Every input that the answer under check has changed: its place or keyword.
_CHANGED: list[int | str] = []


def _note_change(place: int | str, before: Any, after: Any) -> None:
    if not _unchanged(before, after):
        _CHANGED.append(place)


def _unchanged(before: Any, after: Any) -> bool:
    if type(before) is not type(after):
        return False
    if isinstance(before, Tensor | np.ndarray):
        if before.shape != after.shape or before.dtype != after.dtype:
            return False
        one, other = _array(before), _array(after)
        return np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
    if isinstance(before, Mapping):
        return before.keys() == after.keys() and all(
            _unchanged(value, after[key]) for key, value in before.items()
        )
    if isinstance(before, tuple | list):
        return len(before) == len(after) and all(map(_unchanged, before, after))
    if isinstance(before, str | Number):
        return before == after
    return True  # modules, functions and the like have to be looked at by the case itself


def _argument(answer: Callable, place: int | str) -> str:
    """An input as the reader calls it."""
    if isinstance(place, int):
        try:
            place = list(inspect.signature(answer).parameters)[place]
        except (TypeError, ValueError, IndexError):  # built in, or taken as *arguments
            return f"number {place + 1}"
    return f"`{place}`"


def _raised(error: BaseException, answer: Callable) -> str:
    """An exception in the reader's words: kind, message, and the line of the answer."""
    if isinstance(error, WrongKind):
        return str(error)
    lines = re.sub(r" at 0x[0-9a-f]+", "", str(error)).strip().splitlines()
    if len(lines) > 1 and lines[0].endswith(":"):  # load_state_dict goes on in the next line
        lines[0] += f" {lines[1].strip()}"
    words = f"{type(error).__name__}: {_short(lines[0], 160)}" if lines else type(error).__name__
    line = _line_of(answer, error)
    if line is not None:
        return f"raises {words}" + (f", in your line `{_short(line, 80)}`" if line else "")
    if isinstance(error, TypeError) and "argument" in str(error):
        return f"cannot be called as the task says ({words})"
    return f"raises {words}"


def _line_of(answer: Callable, error: BaseException) -> str | None:
    """The answer's own line that raised; None if its code was not reached."""
    codes = {getattr(function, "__code__", None) for function in functions_of(answer)}
    inside, own = False, None
    for frame, number in traceback.walk_tb(error.__traceback__):
        inside |= frame.f_code in codes
        if inside and frame.f_code.co_filename in {code.co_filename for code in codes if code}:
            own = linecache.getline(frame.f_code.co_filename, number).strip()
    return own


def functions_of(answer: Any) -> list[Callable]:
    """The functions an answer consists of: itself, the methods of a class, or of an object's."""
    if inspect.isroutine(answer):
        return [inspect.unwrap(answer)]
    owner = answer if isinstance(answer, type) else type(answer)
    return [inspect.unwrap(value) for value in vars(owner).values() if inspect.isroutine(value)]


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Nothing printed, and every global state as before, whatever an answer does to it."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    grad, dtype = torch.is_grad_enabled(), torch.get_default_dtype()
    quiet = io.StringIO()
    try:
        with (
            contextlib.redirect_stdout(quiet),
            contextlib.redirect_stderr(quiet),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            torch.set_grad_enabled(True)
            torch.set_default_dtype(torch.float32)
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        torch.set_grad_enabled(grad)
        torch.set_default_dtype(dtype)


# Words


def _array(value: Any) -> np.ndarray | None:
    """Numbers, tensors, arrays and nested lists of them as an array; None for anything else."""
    try:
        if isinstance(value, Tensor):
            value = value.detach().cpu()
            value = (value.double() if value.is_floating_point() else value).numpy()
        elif isinstance(value, tuple | list):
            value = [_array(part) for part in value]
        array = np.asarray(value)
    except Exception:  # whatever an answer's object does when it is read as numbers
        return None
    return array if array.dtype.kind in "biuf" else None


def _kind(value: Any) -> str:
    if value is None:
        return "None"
    if isinstance(value, Tensor | np.ndarray):
        name = "tensor" if isinstance(value, Tensor) else "array"
        if isinstance(value, Tensor) and value.layout != torch.strided:
            name = f"sparse {name}"
        if "complex" in str(value.dtype):
            name = f"complex {name}"
        return f"{'an' if name[0] in 'ae' else 'a'} {name} of shape {tuple(value.shape)}"
    if isinstance(value, bool | np.bool_):
        return "True or False"
    if isinstance(value, Number):
        return "a complex number" if isinstance(value, complex | np.complexfloating) else "a number"
    if isinstance(value, nn.Module):
        return f"a module ({type(value).__name__})"
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def _shape(array: np.ndarray) -> str:
    return f"shape {array.shape}" if array.ndim else "a single number"


def _got(value: Any) -> str:
    return f"got {_kind(value)}" + (" (is a return missing?)" if value is None else "")


def _digits(got: float, expected: float) -> tuple[str, str]:
    """Both numbers with four digits, or six where four would not tell them apart."""
    for digits in (4, 6):
        shown = f"{got:.{digits}g}", f"{expected:.{digits}g}"
        if shown[0] != shown[1]:
            return shown
    return f"{got:.6g} (off by {got - expected:.1g})", shown[1]


def _names(mapping: Mapping) -> str:
    return ", ".join(map(str, mapping))


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 2] + ".."


def _dots(value: int) -> str:
    return "●" * value + "○" * (5 - value)
