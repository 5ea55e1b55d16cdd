"""What each chapter found, in sentences whose numbers are recomputed from the committed runs.

A chapter closes with a Markdown cell, tagged `findings`, that holds `written(chapter)` to the
letter. A test compares the two, so when the runs change it fails, and the sentence is written anew.
`chapter_NN.py` holds the sentences of one chapter.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from mtl_lib.errors import RunError

TITLE = "## What we found, what the paper said"


@dataclass(frozen=True)
class Finding:
    """One or two plain sentences, and what they stand on.

    Attributes:
        text: Markdown, with the numbers as format fields: "gains {gain:.3f}".
        values: computes the fields, from committed runs, the paper's tables or arithmetic.
        holds: whether the sentence is true of the values, such as an interval that includes zero.
    """

    text: str
    values: Callable[[], Mapping[str, Any]] = field(default=dict)
    holds: Callable[[Mapping[str, Any]], bool] = field(default=lambda values: True)

    def sentence(self) -> str:
        """The text with its numbers.

        Raises:
            RunError: if it is not true of them.
        """
        values = self.values()
        if not self.holds(values):
            raise RunError(f"no longer true: {self.text!r} with {values}; write it anew")
        return self.text.format(**values)


def listed(words: Iterable[str]) -> str:
    """ "a, b and c"."""
    *first, last = words
    return " and ".join([*([", ".join(first)] if first else []), last])


def with_interval(value: float, low: float, high: float) -> str:
    """ "+0.012 [-0.003, +0.027]": a difference and its interval, with no -0.000."""
    return f"{value:+z.3f} [{low:+z.3f}, {high:+z.3f}]"


def written(chapter: str) -> str:
    """The findings of a chapter, such as "06", as Markdown.

    Raises:
        RunError: if one of them is no longer true.
    """
    findings: tuple[Finding, ...] = import_module(f"{__name__}.chapter_{chapter}").FINDINGS
    return "\n\n".join([TITLE, *(finding.sentence() for finding in findings)])
