"""Faults that a user can mend: each message names the place, the value and the remedy.

The command line prints them as one line; everything else is a bug and keeps its traceback.
"""

import errno


class HandbookError(Exception):
    """Base of every expected fault."""


class CorpusError(HandbookError):
    """A corpus file is missing, unreadable or holds a value it must not hold."""


class EncoderError(HandbookError):
    """An encoder is missing, damaged or not the one asked for."""


class ConfigError(HandbookError):
    """A row, profile or parameter does not exist or has an impossible value."""


class RunError(HandbookError):
    """A stored run is missing or damaged, or a run cannot go on."""


class NumericalError(RunError):
    """A loss or a gradient is infinite or not a number."""


class BusyError(RunError):
    """Another process trains this run."""


_REMEDIES = {
    errno.ENOSPC: "free some space, or set MTL_BUILD to a folder on another disk",
    errno.EDQUOT: "free some of your quota, or set MTL_BUILD to a folder on another disk",
    errno.EFBIG: "raise the limit on file sizes (`ulimit -f`)",
    errno.EROFS: "choose a folder that can be written to; MTL_BUILD moves build/",
    errno.EACCES: "choose a folder that you may read and write; MTL_BUILD moves build/",
    errno.EPERM: "choose a folder that you may read and write; MTL_BUILD moves build/",
    errno.EMFILE: "raise the limit on open files (`ulimit -n`)",
}


def explain(error: Exception) -> str:
    """What the operating system refused, in words, and what to do about it."""
    number = getattr(error, "errno", None)
    words = getattr(error, "strerror", None) or str(error)
    for code, remedy in _REMEDIES.items():
        # safetensors passes the system's fault on as text: "... (os error 28)".
        if number == code or f"(os error {code})" in words:
            return f"{words}; {remedy}"
    return words
