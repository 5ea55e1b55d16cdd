"""The import floors of the library: whoever reads a module needs only what stands below it."""

import ast
from pathlib import Path

import pytest

from mtl_lib.paths import ROOT

# From the ground up; within a floor, a module may import only those named before it.
FLOORS = (
    ("paths", "errors", "tasks"),
    ("corpus", "data", "bert", "packed", "pretrained"),
    ("optim", "weighting", "gradients", "regularizers", "model", "paper", "results"),
    ("evaluation", "trainer"),
    ("experiments", "figures"),
    ("notebooks", "handbook", "checks", "cli"),
)
ORDER = [module for floor in FLOORS for module in floor]
MODULES = sorted(path for path in (ROOT / "mtl_lib").glob("*.py") if path.stem != "__init__")


def imported_modules(source: str) -> set[str]:
    """Modules of the library that a source imports, anywhere in it and in any form."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = "mtl_lib" if node.level else ""
            base = ".".join(part for part in (package, node.module) if part)
            names |= {f"{base}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("mtl_lib.")}


def violations(module: str, source: str) -> set[str]:
    allowed = ORDER[: ORDER.index(module)]
    return imported_modules(source) - set(allowed)


def test_every_module_stands_on_a_floor():
    assert {path.stem for path in MODULES} <= set(ORDER)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_module_imports_only_what_stands_below_it(path: Path):
    assert violations(path.stem, path.read_text()) == set()


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
