"""The three descriptions of the environment agree: pyproject.toml says what, constraints.txt which
release, environment.yml how conda makes the same; and make offers it under the names it lists."""

import ast
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib

import nbformat
import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mtl_lib.paths import ROOT
from mtl_lib.study.profiles import PROFILES

sys.path.insert(0, str(ROOT / "scripts"))
from lower_bounds import lower_bounds  # noqa: E402

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
NAME = PROJECT["project"]["name"]


def requirements(extra: str = "") -> list[Requirement]:
    """What the project or one of its extras asks for, and the extras on which that one stands."""
    group = PROJECT["project"]
    texts = group["optional-dependencies"][extra] if extra else group["dependencies"]
    found = list(map(Requirement, texts))
    below = [requirements(name) for one in found if one.name == NAME for name in sorted(one.extras)]
    return sum(below, [one for one in found if one.name != NAME])


EVERYTHING = [*requirements(), *requirements("test")]
CONSTRAINTS = [
    Requirement(line)
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]
PINNED = {canonicalize_name(pin.name): str(pin.specifier) for pin in CONSTRAINTS}


def test_every_constraint_is_one_exact_release():
    assert all(re.fullmatch(r"==[\w.]+", pin) for pin in PINNED.values())
    assert len(PINNED) == len(CONSTRAINTS)


def test_torch_is_pinned_for_every_wheel_index():
    assert PINNED["torch"] == "==2.13.0"


@pytest.mark.parametrize("requirement", EVERYTHING, ids=str)
def test_every_dependency_has_a_lower_bound_that_the_pinned_release_keeps(requirement):
    assert [bound.operator for bound in requirement.specifier] == [">="]
    pin = PINNED[canonicalize_name(requirement.name)].removeprefix("==")
    assert requirement.specifier.contains(pin)


def test_the_lower_bounds_become_exact_constraints():
    text = """
        [project]
        dependencies = ["torch>=2.7", "plain"]
        [project.optional-dependencies]
        study = ["pandas>=2.2.2,<4"]
        test = ["mtl-handbook[study]", "ruff>=0.9"]
    """
    assert lower_bounds(text) == ["torch==2.7", "pandas==2.2.2"]


def test_the_build_uses_the_pinned_setuptools():
    assert PROJECT["build-system"]["requires"] == [f"setuptools{PINNED['setuptools']}"]


def test_every_installed_package_is_pinned_at_its_release():
    def walk(requirement, found):
        name = canonicalize_name(requirement.name)
        # torch names the CUDA packages that its wheel was built with.
        if name in found or name.startswith(("nvidia-", "cuda-")):
            return found
        distribution = importlib.metadata.distribution(name)
        found[name] = distribution.version.partition("+")[0]
        for needed in map(Requirement, distribution.requires or []):
            for extra in requirement.extras or {""}:
                if not needed.marker or needed.marker.evaluate({"extra": extra}):
                    walk(needed, found)
        return found

    installed = {}
    for requirement in EVERYTHING:
        walk(requirement, installed)
    assert {name: f"=={version}" for name, version in installed.items()}.items() <= PINNED.items()


@pytest.mark.parametrize("system", ["Darwin", "Windows"])
def test_what_other_systems_need_besides_is_pinned_too(system):
    elsewhere = {
        "Darwin": {"sys_platform": "darwin", "os_name": "posix"},
        "Windows": {"sys_platform": "win32", "os_name": "nt"},
    }[system] | {"platform_system": system, "extra": ""}
    environment = default_environment() | elsewhere
    needed = {
        canonicalize_name(requirement.name)
        for name in PINNED.keys() & {d.name.lower() for d in importlib.metadata.distributions()}
        for requirement in map(Requirement, importlib.metadata.requires(name) or [])
        if not requirement.marker or requirement.marker.evaluate(environment)
    }
    assert {name for name in needed if not name.startswith(("nvidia-", "cuda-"))} <= PINNED.keys()


def third_party_imports(paths) -> set[str]:
    names = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.add(node.module.split(".")[0])
    folders = [ROOT / name for name in ("tests", "scripts", "benchmarks")]
    local = {"mtl_lib", *(path.stem for folder in folders for path in folder.iterdir())}
    return names - local - set(sys.stdlib_module_names)


@pytest.mark.parametrize(
    ("files", "extra"),
    [
        ("mtl_lib/*.py", ""),
        ("mtl_lib/pretrained/*.py", ""),
        ("mtl_lib/fast/*.py", ""),
        ("mtl_lib/study/**/[!c]*.py", "study"),
        ("mtl_lib/study/c[!l]*.py", "study"),
        ("mtl_lib/study/cluster.py", "cluster"),
        ("mtl_lib/handbook/**/*.py", "handbook"),
        ("tests/*.py", "test"),
        ("scripts/*.py", "test"),
    ],
)
def test_every_imported_package_is_a_declared_dependency(files, extra):
    allowed = [*requirements(), *(requirements(extra) if extra else [])]
    declared = {canonicalize_name(requirement.name) for requirement in allowed}
    packages = importlib.metadata.packages_distributions()
    for module in third_party_imports(list(ROOT.glob(files))):
        assert {canonicalize_name(name) for name in packages[module]} & declared, module


def test_every_package_that_a_notebook_imports_comes_with_the_handbook():
    declared = {one.name for one in [*requirements(), *requirements("handbook")]}
    packages = importlib.metadata.packages_distributions()
    for path in ROOT.glob("notebooks/*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        source = "".join(
            line for c in cells if c["cell_type"] == "code" for line in [*c["source"], "\n"]
        )
        for module in set(re.findall(r"^\s*(?:import|from) (\w+)", source, re.M)):
            if module not in {"mtl_lib", *sys.stdlib_module_names}:
                assert {canonicalize_name(name) for name in packages[module]} & declared, module


def test_conda_makes_the_same_environment():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    *conda, pip = environment["dependencies"]
    assert conda == ["python=3.11", "pip"]
    assert pip == {"pip": ["-c constraints.txt", "-e .[test]"]}
    oldest = conda[0].removeprefix("python=")
    assert PROJECT["project"]["requires-python"].startswith(f">={oldest},")


def make(*arguments, conda=None):
    if not shutil.which("make"):
        pytest.skip("make is not installed")
    # Neither the make and the conda environment that the tests run in, nor their variables.
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    if conda:
        kept |= {"CONDA_PREFIX": str(conda), "CONDA_DEFAULT_ENV": conda.name}
    return subprocess.run(["make", *arguments], cwd=ROOT, env=kept, capture_output=True, text=True)


def test_make_help_lists_every_target_with_its_time():
    listing = make("help").stdout
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", "")
    for target in re.search(r"^\.PHONY: (.*)$", makefile, re.M)[1].split():
        assert re.search(rf"^  {target} +(\d+ (s|min) )? *\w", listing, re.M), target


def test_make_refuses_a_mistyped_variable():
    result = make("help", "PROFIL=paper")
    assert result.returncode == 2
    assert "unknown variable PROFIL" in result.stderr


GIVEN = {"PROFILE": "paper", "DATA": "a b", "ENCODER": "c", "SEEDS": "0,1", "ROWS": "3.1,3.2"}
GIVEN |= {"JOBS": "1"}
LENGTH = {"MAX_STEPS": "2", "EPOCHS": "1"}


def options(values):
    return [f'--{name.lower().replace("_", "-")} "{value}"' for name, value in values.items()]


def test_make_hands_every_parameter_on():
    given = GIVEN | LENGTH
    commands = make("-n", "reproduce", *(f"{name}={value}" for name, value in given.items())).stdout
    assert all(option in commands for option in options(given))


@pytest.mark.parametrize(
    ("target", "command"),
    [("study", "run"), ("study-status", "status")],
)
def test_make_goes_through_the_study_of_the_given_runs(target, command):
    commands = make("-n", target, *(f"{name}={value}" for name, value in GIVEN.items())).stdout
    (line,) = [line for line in commands.splitlines() if f'/mtl" study {command} ' in line]
    assert all(option in line for option in options(GIVEN))
    assert '/mtl" figures' not in commands


def test_make_lab_opens_lessons_whose_exercises_are_empty():
    commands = make("-n", "lab").stdout
    assert 'test -d lessons || ".venv/bin/mtl" student --out lessons' in commands
    assert "--LabApp.default_url=/lab/tree/lessons/00_start_here.ipynb" in commands
    assert f'--ServerApp.root_dir="{ROOT}"' in commands  # so that links to other folders open


def test_make_collects_the_finished_runs_and_draws_the_figures():
    commands = make("-n", "study-collect").stdout
    assert commands.index('/mtl" study collect') < commands.index('/mtl" figures')


def test_make_offers_every_profile():
    listing = make("help").stdout
    assert f"PROFILE={'|'.join(PROFILES)} " in listing


def test_make_installs_into_the_active_conda_environment(tmp_path):
    commands = make("-n", "setup", conda=tmp_path / "course").stdout
    assert f'"{tmp_path}/course/bin/python" -m pip' in commands
    assert "venv" not in commands


def test_make_leaves_condas_own_environment_alone(tmp_path):
    commands = make("-n", "-W", "pyproject.toml", "setup", conda=tmp_path / "base").stdout
    assert str(tmp_path) not in commands
    assert '".venv/bin/python" -m pip' in commands


def test_make_names_the_pythons_that_it_can_use(tmp_path):
    result = make("setup", conda=tmp_path / "empty")
    assert result.returncode == 2
    assert "has no Python 3.11, 3.12 or 3.13" in result.stdout


def test_ci_runs_the_command_of_the_readme():
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    for command, page in (("make test", "README.md"), ("make test-browser", "docs/setup.md")):
        assert command in lines
        assert command in (ROOT / page).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "given", ["https://gitlab.com/a/b", "github.com/a/b", "https://github.com/a"]
)
def test_an_address_that_is_none_of_github_is_refused(given, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    import address

    with pytest.raises(SystemExit, match="looks like https://github.com/OWNER/NAME"):
        address.plain(given)
    assert address.plain("https://github.com/a/b.git") == "https://github.com/a/b"


def test_badges_citation_and_first_cells_have_the_address_of_pyproject(monkeypatch, tmp_path):
    """If not: `make address` writes them."""
    monkeypatch.syspath_prepend(ROOT / "scripts")
    import address

    of = address.project()
    assert of["repository"] in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert address.with_badges(readme, of) == readme
    for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
        copy = tmp_path / path.name
        copy.write_bytes(path.read_bytes())
        address.write_chapter(copy, of)
        before, after = (nbformat.read(one, as_version=4) for one in (path, copy))
        assert [cell.source for cell in before.cells] == [cell.source for cell in after.cells]
        first = next(cell for cell in before.cells if cell.cell_type == "code")
        assert len(first.source.splitlines()) <= 5 and "HANDBOOK" in first.source
