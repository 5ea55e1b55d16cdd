"""Faults that a user can mend: each message names the place, the value and the remedy.

The command line prints them as one line; everything else is a bug and keeps its traceback.
"""


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
