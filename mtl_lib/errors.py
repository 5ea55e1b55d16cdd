"""Faults that a user can mend: each message names the place, the value and the remedy.

The command line prints them as one line; everything else is a bug and keeps its traceback.
"""

import errno
from pathlib import Path

from mtl_lib import paths


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


_RIGHTS = "choose a folder that you may read and write"
# What to do, and what is added where a variable moves the folder.
_REMEDIES = {
    (errno.ENOSPC, errno.EDQUOT): ("free some space", ", or set {} to a folder on another disk"),
    (errno.EROFS, errno.EACCES, errno.EPERM): (_RIGHTS, ": {} names it"),
    (errno.EFBIG,): ("raise the limit on file sizes (`ulimit -f`)", ""),
    (errno.EMFILE,): ("raise the limit on open files (`ulimit -n`)", ""),
}


def explain(error: Exception) -> str:
    """What the system refused of the file that the error names, and the remedy."""
    number = getattr(error, "errno", None)
    words = getattr(error, "strerror", None) or str(error)
    for codes, (remedy, move) in _REMEDIES.items():
        # safetensors passes the system's fault on as text: "... (os error 28)".
        if number in codes or any(f"(os error {code})" in words for code in codes):
            variable = _moved_by(getattr(error, "filename", None))
            return f"{words}; {remedy}{move.format(variable) if variable else ''}"
    return words


def _moved_by(path: object) -> str:
    """The variable that moves a file's folder; both where the file is not known, "" if none."""
    folders = {"MTL_FIGURES": paths.FIGURES, "MTL_BUILD": paths.BUILD}
    if not isinstance(path, str | Path):
        return " or ".join(folders)
    place = Path(path).resolve()
    within = [name for name, folder in folders.items() if place.is_relative_to(folder)]
    return " or ".join(within[:1] or [n for n, f in folders.items() if f.is_relative_to(place)])
