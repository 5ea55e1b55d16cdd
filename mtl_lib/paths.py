"""Where things are kept: what is read lies below ROOT, what is written below BUILD and FIGURES."""

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def _is_checkout(folder: Path) -> bool:
    """Whether a folder is the project's own: its pyproject.toml lies there, under its name."""
    try:
        lines = (folder / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return False
    return 'name = "mtl-handbook"' in lines


def folder(variable: str, default: Path) -> Path:
    """The folder that a variable of the environment names, or the default."""
    return Path(os.environ.get(variable) or default).expanduser().resolve()


# An installed package carries what it reads, and writes below the working directory.
CHECKOUT = _is_checkout(_PACKAGE.parent)
ROOT = _PACKAGE.parent if CHECKOUT else _PACKAGE / "_handbook"
WORK = ROOT if CHECKOUT else Path.cwd()
DATA = ROOT / "data"
RESULTS = DATA / "results"
NOTEBOOKS = ROOT / "notebooks"
# MTL_FIGURES moves what is drawn elsewhere, so that a test leaves the committed figures alone.
FIGURES = folder("MTL_FIGURES", WORK / "figures")
# Working files (runs, executed notebooks, downloaded encoders); MTL_BUILD moves them elsewhere.
BUILD = folder("MTL_BUILD", WORK / "build")
# The corpora that `mtl data fetch` downloads.
FETCHED = DATA / "cs224n" if CHECKOUT else BUILD / "cs224n"
