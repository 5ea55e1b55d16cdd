"""Where the handbook keeps things, seen from the repository's root."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "data"
RESULTS = DATA / "results"
FIGURES = ROOT / "figures"
NOTEBOOKS = ROOT / "notebooks"
# Working files (runs, executed notebooks, downloaded encoders); MTL_BUILD moves them elsewhere.
BUILD = Path(os.environ.get("MTL_BUILD", ROOT / "build")).resolve()
