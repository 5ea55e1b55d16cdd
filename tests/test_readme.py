"""The README's numbers are those of the stored runs, and its code runs."""

import re

import pytest

from mtl_lib.paths import ROOT
from mtl_lib.study.claims import claims_markdown
from mtl_lib.study.figures import figure_3
from mtl_lib.study.pool import committed_runs

README = (ROOT / "README.md").read_text()


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


def test_the_python_example_prints_what_it_says():
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL).group(1)
    printed = []
    exec(code, {"print": lambda value: printed.append(repr(value))})
    assert printed == [re.search(r"# (tensor\(.*\))", code).group(1)]


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)]+)\)", README))
def test_every_link_leads_somewhere(link):
    assert (ROOT / link).exists()
