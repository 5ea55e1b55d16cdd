"""Where the handbook keeps things, seen from the repository's root."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "data"
RESULTS = DATA / "results"
NOTEBOOKS = ROOT / "notebooks"
# MTL_FIGURES moves what is drawn elsewhere, so that a test leaves the committed figures alone.
FIGURES = Path(os.environ.get("MTL_FIGURES", ROOT / "figures")).resolve()
# Working files (runs, executed notebooks, downloaded encoders); MTL_BUILD moves them elsewhere.
BUILD = Path(os.environ.get("MTL_BUILD", ROOT / "build")).resolve()
