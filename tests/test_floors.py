"""The storeys of the house: imports go down only, and the library stays small."""

import ast
from pathlib import Path

import pytest

from mtl_lib.paths import ROOT

HOUSE = ROOT / "mtl_lib"
# From the ground up: a module imports from its own storey and those below it.
STOREYS = (
    "library", "pretrained", "fast", "methods", "shipped", "parallel", "study", "handbook", "cli",
)  # fmt: skip
# Within the library, in the order in which it is read.
LIBRARY = (
    "paths", "files", "errors", "tasks", "data", "bert", "model", "optim", "weighting",
    "gradients", "evaluation", "trainer",
)  # fmt: skip
# The library reaches the fast engine where it is asked for, and there only; its front names all.
ALLOWED = {
    ("model", "fast"), ("trainer", "fast"), ("mtl_lib", "pretrained"), ("mtl_lib", "methods"),
    ("__main__", "cli"), ("__main__", "shipped"),
}  # fmt: skip
MODULES = sorted(HOUSE.rglob("*.py"))


def storey(module: str) -> str:
    """The storey of a dotted name such as `mtl_lib.study.run`."""
    first = module.split(".")[1] if "." in module else "library"
    return first if first in STOREYS else "library"


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_modules(source: str, package: str = "mtl_lib") -> set[str]:
    """Names below `mtl_lib` that a source imports, anywhere in it and in any form.

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
    return {name for name in names if name.startswith("mtl_lib.")}


def violations(module: str, source: str, package: str = "mtl_lib") -> set[str]:
    """What a module imports from above itself."""
    here, found = STOREYS.index(storey(module)), set()
    for name in imported_modules(source, package):
        if (
            STOREYS.index(storey(name)) > here
            and (module.split(".")[-1], storey(name)) not in ALLOWED
        ):
            found.add(name)
        own, other = module.split(".")[-1], name.split(".")[1]
        if here == 0 and own in LIBRARY and other in LIBRARY[LIBRARY.index(own) + 1 :]:
            found.add(name)
    return found


def code_lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_every_module_of_the_library_has_its_place_in_the_order_of_reading():
    library = {path.stem for path in HOUSE.glob("*.py")} - {"__init__", "__main__", "cli"}
    assert library == set(LIBRARY)


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_imports_go_down_only(path: Path):
    name = dotted(path)
    package = name if path.stem == "__init__" else name.rpartition(".")[0]
    assert violations(name, path.read_text(encoding="utf-8"), package) == set()


@pytest.mark.parametrize(
    "source",
    [
        "import mtl_lib.trainer",
        "from mtl_lib import trainer",
        "from mtl_lib.trainer import Trainer",
        "from .trainer import Trainer",
        "from . import trainer",
        "def late():\n    from mtl_lib.trainer import Trainer",
        "from mtl_lib.study.run import summary",
        "from mtl_lib.fast.joint import JointGradients",
    ],
)
def test_an_import_from_above_is_found_in_any_form(source):
    assert violations("mtl_lib.bert", source)


@pytest.mark.parametrize("source", ["from mtl_lib.cli import main", "from ..cli import main"])
def test_an_import_from_above_is_found_in_a_package(source):
    assert violations("mtl_lib.study.run", source, "mtl_lib.study")


def test_the_study_does_not_know_the_handbook():
    assert violations("mtl_lib.study.run", "from mtl_lib.handbook import lint")


def test_the_library_is_an_evenings_reading():
    lines = {path.stem: code_lines(path) for path in HOUSE.glob("*.py")}
    del lines["cli"], lines["__main__"]  # the top of the house
    print(*(f"{count:5} {name}" for name, count in lines.items()), sep="\n")
    print(f"{sum(lines.values()):5} in all")
    assert sum(lines.values()) <= 2600


def test_no_module_is_longer_than_a_sitting():
    long = {dotted(path): code_lines(path) for path in MODULES if code_lines(path) > 500}
    exempt = [name for name in long if ".checks." in name or name.endswith(".grammar")]
    assert not long.keys() - exempt
