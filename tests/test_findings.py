"""What the chapters say they found is what the committed runs say now."""

import nbformat
import pytest

from mtl_lib.errors import RunError
from mtl_lib.handbook.findings import TITLE, Finding, written
from mtl_lib.paths import NOTEBOOKS

PATHS = {path.name.split("_")[0]: path for path in sorted(NOTEBOOKS.glob("*.ipynb"))}
CHAPTERS = [number for number in PATHS if number != "00"]  # which finds nothing yet


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_closes_with_its_findings_as_the_runs_have_them_now(chapter):
    cells = [
        cell.source
        for cell in nbformat.read(PATHS[chapter], as_version=4).cells
        if "findings" in cell.metadata.get("tags", ())
    ]
    assert cells == [written(chapter)], "write the sentences anew, and paste `written(chapter)`"
    assert cells[0].startswith(TITLE)


def test_a_finding_has_its_numbers_from_its_values():
    finding = Finding("It gains {gain:.2f}.", lambda: {"gain": 0.123})
    assert finding.sentence() == "It gains 0.12."


def test_a_finding_that_is_no_longer_true_is_refused_with_its_numbers():
    finding = Finding("It gains {gain:.2f}.", lambda: {"gain": -0.1}, lambda v: v["gain"] > 0)
    with pytest.raises(RunError, match=r"no longer true: 'It gains.*-0.1.*write it anew"):
        finding.sentence()
