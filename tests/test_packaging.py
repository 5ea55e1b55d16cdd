"""The wheel works in any folder and writes nowhere else; what it says of itself agrees."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import mtl_lib
from mtl_lib.paths import NOTEBOOKS, ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SOURCES = (
    "pyproject.toml", "setup.py", "MANIFEST.in", "constraints.txt", "README.md", "LICENSE",
    "LICENSES.md", "mtl_lib", "data", "notebooks", "benchmarks",
)  # fmt: skip

FOREIGN = (
    "data/cs224n/quora-train.csv", "data/results/quick/locks/a.lock",
    "notebooks/.ipynb_checkpoints/01.ipynb", "build/lib/mtl_lib/removed.py",
)  # fmt: skip


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy of the checkout, in which somebody has worked."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("cs224n"))
        else:
            shutil.copy(ROOT / name, source / name)
    for name in FOREIGN:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text("not for others\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "-w", out, source], check=True, capture_output=True)
    (built,) = out.glob("mtl_handbook-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The folder into which the wheel is unpacked, which is all that installing it does."""
    folder = tmp_path_factory.mktemp("site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def python(installed: Path, here: Path, *arguments: str, **variables: str):
    """This Python in a folder, with the installed package in place of the checkout's."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MTL_")}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=here, env=kept | {"PYTHONPATH": str(installed)} | variables,
        capture_output=True, text=True, encoding="utf-8",
    )  # fmt: skip


def files(folder: Path) -> dict[str, int]:
    """Names and times of change; not what Python compiles."""
    found = [path for path in folder.rglob("*") if path.suffix != ".pyc"]
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns for path in found if path.is_file()
    }


# What the wheel holds


def test_the_wheel_carries_what_the_handbook_reads(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    inside = {name.removeprefix("mtl_lib/_handbook/") for name in names}
    for folder in ("data/handbook", "data/models", "data/results", "notebooks"):
        wanted = {
            path.relative_to(ROOT).as_posix()
            for path in (ROOT / folder).rglob("*")
            if path.is_file() and not {"locks", "checkpoints"} & set(path.parts)
            and not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
        }  # fmt: skip
        assert wanted and wanted <= inside
    assert "mtl_lib/py.typed" in names
    assert {
        f"{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "mtl_lib").rglob("*.py")
    } <= names


def test_the_wheel_carries_nothing_that_is_not_for_others(wheel):
    archive = zipfile.ZipFile(wheel)
    for name in archive.namelist():
        assert archive.read(name) != b"not for others\n", name


# What it does


def test_paths_of_an_installed_package(installed, tmp_path):
    code = "from mtl_lib import paths as p; print(p.ROOT, p.DATA, p.BUILD, p.FIGURES, p.FETCHED)"
    root, data, build, figures, fetched = python(installed, tmp_path, "-c", code).stdout.split()
    assert root == str(installed / "mtl_lib" / "_handbook") and data == f"{root}/data"
    assert (build, figures) == (f"{tmp_path}/build", f"{tmp_path}/figures")
    assert fetched == f"{tmp_path}/build/cs224n"


def test_paths_of_a_checkout_are_its_own_from_any_folder(tmp_path):
    code = "from mtl_lib import paths as p; print(p.ROOT, p.BUILD, p.FIGURES, p.FETCHED)"
    found = python(ROOT, tmp_path, "-c", code).stdout.split()
    assert found == [str(ROOT / name) for name in (".", "build", "figures", "data/cs224n")]


def test_another_projects_pyproject_makes_no_checkout(installed, tmp_path):
    shutil.copytree(installed / "mtl_lib", tmp_path / "mtl_lib", ignore=lambda *_: ["_handbook"])
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "thesis"\n', encoding="utf-8")
    code = "from mtl_lib import paths; print(paths.CHECKOUT)"
    assert python(tmp_path, tmp_path, "-c", code).stdout == "False\n"


@pytest.mark.parametrize(
    ("given", "expected"),
    [("", "build"), ("there", "there"), ("~/there", "home/there"), ("../up", "../up")],
)
def test_mtl_build_says_where_an_installed_package_writes(installed, tmp_path, given, expected):
    code = "from mtl_lib.paths import BUILD; print(BUILD)"
    home = {"HOME": str(tmp_path / "home"), "USERPROFILE": str(tmp_path / "home")}
    done = python(installed, tmp_path, "-c", code, MTL_BUILD=given, **home)
    assert done.stdout.strip() == str((tmp_path / expected).resolve())


@pytest.mark.parametrize("module", ["mtl_lib", "mtl_lib.cli"])
def test_each_module_of_the_command_is_the_command(installed, tmp_path, module):
    done = python(installed, tmp_path, "-m", module, "--version")
    assert done.stdout == f"mtl {PROJECT['version']}\n", done.stderr
    assert python(installed, tmp_path, "-m", module, "nonsense").returncode == 2


def test_a_wheel_trains_predicts_and_reproduces_in_an_empty_folder(installed, tmp_path):
    before = files(installed)
    empty, notebooks = tmp_path / "empty", tmp_path / "notebooks"
    empty.mkdir()
    notebooks.mkdir()
    shutil.copy(NOTEBOOKS / "10_per_class_analysis.ipynb", notebooks)
    for arguments in (
        ["train", "3.1", "--profile", "quick", "--max-steps", "2"],
        ["predict", str(Path("build", "models", "quick-3.1-seed0"))],
    ):
        done = python(installed, empty, "-m", "mtl_lib", *arguments)
        assert done.returncode == 0, done.stderr
    one = (
        "from mtl_lib.handbook.reproduce import reproduce\n"
        "from mtl_lib.study.settings import Settings\n"
        "settings = Settings('quick', rows='3.1', max_steps=2, jobs=1)\n"
        f"reproduce(settings, notebooks={str(notebooks)!r})"
    )
    done = python(installed, empty, "-c", one)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in empty.iterdir()} <= {"build", "figures"}
    assert {path.name for path in (empty / "build").iterdir()} >= {"models", "predictions", "runs"}
    assert list((empty / "build" / "notebooks" / "quick").glob("10_*.ipynb"))
    assert files(installed) == before


# What it needs


HOUSE = """
import pandas as pd
from mtl_lib import Corpus, HeadConfig, MultitaskModel, Task, Trainer, load_encoder, pcgrad_weights
frame = pd.DataFrame({
    "sentence1": ["A dog runs.", "A man sleeps.", "Two girls sing.", "It rains."] * 14,
    "sentence2": ["An animal moves.", "A man dances.", "They like jazz.", "It is dry."] * 14,
    "label": [0, 2, 1, 2] * 14,
})
nli = Task("multi-nli", sentences=2, outputs=3, loss="cross_entropy", metric="accuracy")
corpus = Corpus.from_examples({nli: {"train": frame, "dev": frame}})     # lists or DataFrames
encoder, tokenizer = load_encoder("minilm-l6")                          # or any nn.Module
model = MultitaskModel(encoder, {nli: HeadConfig()})
trainer = Trainer(model, corpus.tokenized(tokenizer), weighting=pcgrad_weights)
trainer.fit(epochs=3)
model.save("build/models/nli")
from mtl_lib import predict
print(trainer.steps, predict(model, corpus.tokenized(tokenizer)["multi-nli"]["dev"]).tolist())
"""

AGAIN = """
from mtl_lib import Corpus, MultitaskModel, PairExample, predict
model = MultitaskModel.load("build/models/nli")
task = model.tasks["multi-nli"]
pairs = [("A dog runs.", "An animal moves."), ("A man sleeps.", "A man dances."),
         ("Two girls sing.", "They like jazz."), ("It rains.", "It is dry.")]
corpus = Corpus.from_examples({task: {"dev": [(a, b, None) for a, b in pairs]}})
print(task.outputs, predict(model, corpus.tokenized(model.tokenizer)["multi-nli"]["dev"]).tolist())
"""


def test_a_researchers_task_trains_saves_and_loads_in_a_new_process(installed, tmp_path):
    """By the installed package in an empty folder, with the small encoder that it carries."""
    first = python(installed, tmp_path, "-c", HOUSE.replace("minilm-l6", "tiny-pretrained"))
    assert first.returncode == 0, first.stderr
    steps, before = first.stdout.split(" ", 1)
    second = python(installed, tmp_path, "-c", AGAIN)
    assert second.returncode == 0, second.stderr
    outputs, after = second.stdout.split(" ", 1)
    assert (int(steps), int(outputs)) == (21, 3)
    for new, old in zip(json.loads(after), json.loads(before), strict=False):
        assert new == pytest.approx(old, abs=1e-5)
    assert [path.name for path in tmp_path.iterdir()] == ["build"]


def test_importing_the_library_imports_no_package_of_the_study(tmp_path):
    code = "import json, sys; from mtl_lib import *; print(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout)}
    slow = {"pandas", "sklearn", "scipy", "matplotlib", "seaborn", "IPython", "transformers"}
    assert not loaded & slow


# What it says of itself


def test_the_version_is_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## \[(\d[^]]*)\] - \d{4}-\d\d-\d\d$", changes, re.M)[1]
    assert mtl_lib.__version__ == PROJECT["version"] == citation["version"] == newest


def test_every_release_of_the_changelog_has_known_kinds_of_change():
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "\n## [Unreleased]\n" in changes
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.*)$", changes, re.M)) <= kinds


def test_the_fast_tests_exist():
    listed = (ROOT / "tests" / "fast.txt").read_text(encoding="utf-8").split()
    assert listed == sorted(set(listed))
    assert all((ROOT / name).is_file() for name in listed)


def test_the_workflow_tries_every_python_that_is_supported_on_three_systems():
    text = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    tried = set()
    for job in yaml.safe_load(text)["jobs"].values():
        matrix = job.get("strategy", {}).get("matrix", {})
        for system in matrix.get("os", [job["runs-on"]]):
            tried |= {(system.partition("-")[0], python) for python in matrix.get("python", [])}
    pythons, systems = ("3.11", "3.12", "3.13"), ("ubuntu", "macos", "windows")
    assert tried == {(system, python) for system in systems for python in pythons}
    assert PROJECT["requires-python"] == ">=3.11,<3.14"


def test_the_hooks_use_the_pinned_ruff():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    (repository,) = hooks["repos"]
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert f"ruff=={repository['rev'].removeprefix('v')}" in pins


def test_the_reference_shows_what_the_docstrings_say(tmp_path):
    command = [sys.executable, "-m", "pdoc", "--docformat", "google", "-o", tmp_path]
    subprocess.run([*command, "mtl_lib.tasks"], check=True, capture_output=True, cwd=ROOT)
    page = (tmp_path / "mtl_lib" / "tasks.html").read_text(encoding="utf-8")
    assert 'id="Task"' in page and "<h6" in page
