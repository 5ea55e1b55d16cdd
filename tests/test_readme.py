"""The README's numbers are those of the stored runs, and its code runs."""

import re
import subprocess

import pytest

from mtl_lib import cli
from mtl_lib.handbook import front
from mtl_lib.handbook.checks import EXERCISES
from mtl_lib.model import MultitaskModel
from mtl_lib.paths import ROOT
from mtl_lib.study.pool import committed_runs
from mtl_lib.study.report import PAGE, claims_page

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_claims_page_is_that_of_the_stored_runs(tmp_path):
    """If it is not what this expects after new runs: `make figures` writes it."""
    page = claims_page(committed_runs(), tmp_path)
    assert page.read_bytes() == (ROOT / "figures" / PAGE).read_bytes()


def test_the_findings_are_those_of_the_stored_runs():
    section = README.split("<!-- findings -->\n")[1].split("\n<!-- /findings -->")[0]
    assert section == front.findings()


def test_the_picture_is_drawn_from_the_models_scores(tmp_path):
    picture = front.save(tmp_path)
    assert picture.read_bytes() == (ROOT / "figures" / front.PICTURE).read_bytes()


def test_it_is_read_in_a_minute():
    assert len(README.encode()) < 8000


def test_the_python_example_runs_and_saves_its_model(tmp_path, monkeypatch):
    """With the small encoder of the repository in place of one that would be downloaded."""
    monkeypatch.chdir(tmp_path)
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL).group(1)
    exec(code.replace('"minilm-l6"', '"tiny-pretrained"'), {})
    (folder,) = re.findall(r'model\.save\("(.*)"\)', code)
    assert list(MultitaskModel.load(tmp_path / folder).tasks) == ["multi-nli"]


def test_the_number_of_exercises_is_right():
    assert f"{len(EXERCISES)} exercises" in README


def test_the_hours_are_those_of_the_map():
    start = (ROOT / "notebooks" / "00_start_here.ipynb").read_text(encoding="utf-8")
    core, whole = re.search(
        r"core path takes about ([\d.]+) hours, the whole about ([\d.]+)", start
    ).groups()
    assert f"about {float(whole):g} hours" in README and f"{float(core):g} hours" in README


def test_the_pairs_example_is_a_file_that_the_command_reads(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    line = re.search(r"^printf .* > pairs\.csv$", README, re.MULTILINE).group(0)
    subprocess.run(line, shell=True, check=True)
    assert cli.main(["predict", "--pairs", "pairs.csv"]) == 0
    assert "bake bread" in capsys.readouterr().out


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)]+)\)", README))
def test_every_link_leads_somewhere(link):
    page, _, anchor = link.partition("#")
    assert page.startswith("https://") or (ROOT / page).exists()
    assert page or f"\n## {anchor.title()}\n" in README
