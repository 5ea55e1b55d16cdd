"""The wheel carries what the handbook reads beside its code; pyproject.toml says all else."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
# mtl_lib/paths.py looks for these at the repository's root, and where there is none in here.
INSIDE = Path("mtl_lib", "_handbook")
# Never data/cs224n: fetched sentences are not ours to hand on.
CARRIED = (
    "data/README.md", "data/handbook", "data/models", "data/results", "notebooks",
    "benchmarks/results", "constraints.txt", "pyproject.toml", "LICENSES.md",
)  # fmt: skip
WORKING_FILES = shutil.ignore_patterns("locks", "checkpoints", ".*", "__pycache__")


class BuildWithHandbook(build_py):
    """Copies the corpora, encoders, stored runs and notebooks in beside the modules."""

    def run(self) -> None:
        if self.editable_mode:  # a checkout reads its own
            return super().run()
        shutil.rmtree(self.build_lib, ignore_errors=True)  # an earlier build's modules
        super().run()
        for name in CARRIED:
            source, target = ROOT / name, Path(self.build_lib, INSIDE, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=WORKING_FILES)
            else:
                shutil.copy2(source, target)


setup(cmdclass={"build_py": BuildWithHandbook})
