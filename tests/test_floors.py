"""The import floors of the library: whoever reads a module needs only what stands below it."""

import ast
from pathlib import Path

import pytest

from mtl_lib.paths import ROOT

# From the ground up; within a floor, a module may import only those named before it.
FLOORS = (
    ("paths", "errors", "tasks"),
    ("corpus", "data", "examples", "bert", "packed", "joint", "pretrained"),
    ("optim", "weighting", "gradients", "regularizers", "model", "paper", "results"),
    ("evaluation", "bag_of_words", "gates", "studies", "uncertainty", "checkpoint", "trainer"),
    ("faulty_ports", "experiments", "queue", "claims", "drawing", "figures"),
    ("notebooks", "handbook", "checks", "student", "cli"),
)
ORDER = [module for floor in FLOORS for module in floor]
LIBRARY = ROOT / "mtl_lib"
# A folder of modules counts as one: whoever reads it reads what its files import.
PACKAGES = [path.parent for path in LIBRARY.glob("*/__init__.py")]
MODULES = sorted([*PACKAGES, *(p for p in LIBRARY.glob("*.py") if p.stem != "__init__")])


def sources(path: Path) -> list[str]:
    """The source texts of a module, which may be a folder."""
    return [file.read_text() for file in (sorted(path.glob("*.py")) if path.is_dir() else [path])]


def imported_modules(source: str, package: str = "mtl_lib") -> set[str]:
    """Modules of the library that a source imports, anywhere in it and in any form.

    Args:
        package: what a single dot in `from . import ..` stands for.
    """
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            dots = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*(dots if node.level else []), *filter(None, [node.module])])
            names |= {f"{base}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("mtl_lib.")}


def violations(module: str, source: str, package: str = "mtl_lib") -> set[str]:
    allowed = ORDER[: ORDER.index(module)]
    itself = {module} if package != "mtl_lib" else set()
    return imported_modules(source, package) - set(allowed) - itself


def test_every_module_stands_on_a_floor():
    assert {path.stem for path in MODULES} <= set(ORDER)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_module_imports_only_what_stands_below_it(path: Path):
    package = f"mtl_lib.{path.stem}" if path.is_dir() else "mtl_lib"
    for source in sources(path):
        assert violations(path.stem, source, package) == set()


@pytest.mark.parametrize(
    "source",
    [
        "import mtl_lib.trainer",
        "from mtl_lib import trainer",
        "from mtl_lib.trainer import Trainer",
        "from .trainer import Trainer",
        "from . import trainer",
        "def late():\n    from mtl_lib.trainer import Trainer",
    ],
)
def test_an_import_from_above_is_found_in_any_form(source):
    assert violations("bert", source) == {"trainer"}


@pytest.mark.parametrize("source", ["from mtl_lib.cli import main", "from ..cli import main"])
def test_an_import_from_above_is_found_in_a_package(source):
    assert violations("checks", source, "mtl_lib.checks") == {"cli"}


@pytest.mark.parametrize(
    "source", ["from . import framework", "from mtl_lib.checks.framework import judge"]
)
def test_a_package_may_import_its_own_modules(source):
    assert violations("checks", source, "mtl_lib.checks") == set()
