"""The README's numbers are those of the stored runs, and its code runs."""

import re

import pandas as pd
import pytest

from mtl_lib.handbook.checks import EXERCISES
from mtl_lib.model import MultitaskModel
from mtl_lib.paths import ROOT
from mtl_lib.study.figures import figure_3
from mtl_lib.study.pool import committed_runs
from mtl_lib.study.report import claims_markdown

README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def runs():
    return committed_runs()


def section(name: str) -> str:
    """If a section is not what a test expects after new runs: `make figures` writes it."""
    return README.split(f"<!-- {name} -->\n")[1].split(f"\n<!-- /{name} -->")[0]


def test_the_claims_are_those_of_the_stored_runs(runs):
    assert section("claims") == claims_markdown(runs).strip()


def test_the_caption_is_that_of_the_picture(runs):
    assert section("figure 3") == figure_3(runs).caption


def test_the_python_example_runs_and_saves_its_model(tmp_path, monkeypatch):
    """With the small encoder of the repository in place of one that would be downloaded."""
    monkeypatch.chdir(tmp_path)
    words = ["A dog runs.", "A cat sleeps.", "It is dry."] * 4
    frame = pd.DataFrame({"premise": words, "hypothesis": words[::-1], "label": [0, 1, 2] * 4})
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL).group(1)
    exec(code.replace('"minilm-l6"', '"tiny-pretrained"'), {"frame": frame})
    (folder,) = re.findall(r'model\.save\("(.*)"\)', code)
    assert list(MultitaskModel.load(tmp_path / folder).tasks) == ["multi-nli"]


def test_the_number_of_exercises_is_right():
    assert f"{len(EXERCISES)} exercises" in README


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)]+)\)", README))
def test_every_link_leads_somewhere(link):
    assert (ROOT / link).exists()
