"""The README's numbers are those of the stored runs, and its code runs."""

import re

import pytest

from mtl_lib.claims import END, START, claims_markdown
from mtl_lib.experiments import PROFILES
from mtl_lib.paths import RESULTS, ROOT
from mtl_lib.results import RunStore

README = (ROOT / "README.md").read_text()


def test_the_claims_are_those_of_the_stored_runs():
    """If this fails after new runs or floors were stored: `make figures` writes the section."""
    runs = [run for profile in PROFILES for run in RunStore(RESULTS / profile).runs()]
    section = README.split(START)[1].split(END)[0]
    assert section.strip() == claims_markdown(runs).strip()


def test_the_python_example_prints_what_it_says():
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL).group(1)
    printed = []
    exec(code, {"print": lambda value: printed.append(repr(value))})
    assert printed == [re.search(r"# (tensor\(.*\))", code).group(1)]


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)]+)\)", README))
def test_every_link_leads_somewhere(link):
    assert (ROOT / link).exists()
