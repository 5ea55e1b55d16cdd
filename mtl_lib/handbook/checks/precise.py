"""Cases asked in float64, inputs and defaults alike.

A notebook may have either default, and an answer may or may not name a dtype: with float64 for
both, `torch.eye(3) @ gram` and `gram.double()` work in either.
"""

from collections.abc import Callable
from typing import Any

import torch

from mtl_lib.handbook.checks.framework import Case, call


def precisely(ask: Callable[[Callable], Any]) -> Callable[[Callable], Any]:
    """The same question with float64 as torch's default."""

    def asked(answer: Callable) -> Any:
        default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        try:
            return ask(answer)
        finally:
            torch.set_default_dtype(default)

    return asked


def question(name: str, *arguments: Any, rtol: float = 1e-4, atol: float = 1e-6) -> Case:
    """A case that calls the answer with these arguments, asked in float64."""
    return Case(name, precisely(lambda answer: call(answer, *arguments)), rtol, atol)
