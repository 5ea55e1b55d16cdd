"""Tests run with one thread, so that sums have the same last bits everywhere, and in build/test,
so that nobody's runs, notebooks or figures are touched. All of it has to be set before torch and
mtl_lib are imported."""

import os
from pathlib import Path

BUILD = Path(__file__).resolve().parents[1] / "build"
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("MTL_BUILD", str(BUILD / "test"))
os.environ.setdefault("MTL_FIGURES", str(BUILD / "test" / "figures"))
os.environ.setdefault("MTL_CACHE", str(BUILD / "encoders"))

import matplotlib  # noqa: E402

matplotlib.use("Agg")
