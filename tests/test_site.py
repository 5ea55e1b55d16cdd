"""The site's source, put together without the site's environment, is complete and leads nowhere."""

import json
import os
import re
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml

from mtl_lib.paths import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import build_site  # noqa: E402

MARKERS = re.compile(r"### (BEGIN|END)")
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)\s]+)\)")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    build_site.assemble(out)
    return out


def texts(folder: Path) -> list[Path]:
    """Its pages and notebooks, without Jupyter's copies of them."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix in (".md", ".ipynb") and ".ipynb_checkpoints" not in path.parts
    ]


def written(path: Path) -> str:
    """What a page says outside its code."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return re.sub(r"^```.*?^```|`[^`\n]*`", "", text, flags=re.M | re.S)
    cells = json.loads(text)["cells"]
    return "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")


def code(path: Path) -> list[dict]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", written(path), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_chapter_and_page_is_in_the_table_of_contents(source):
    front = (source / "index.md").read_text(encoding="utf-8")
    trees = "\n".join(re.findall(r"```\{toctree\}\n(.*?)```", front, re.S)).splitlines()
    for folder in ("notebooks", "docs"):
        for path in texts(ROOT / folder):
            name = path.relative_to(ROOT).with_suffix("").as_posix()
            assert name in trees, f"{path.name} is on no page"
    placed = {path.relative_to(source).with_suffix("").as_posix() for path in texts(source)}
    assert placed - {"index"} <= set(trees)


def test_every_relative_link_meets_a_page_and_its_heading(source):
    for path in texts(source):
        for link in LINK.findall(written(path)):
            name, _, anchor = unquote(link).partition("#")
            target = Path(os.path.normpath(path.parent / name)) if name else path
            assert target.is_file(), f"{path.name}: {link}"
            assert not anchor or anchor in anchors(target), f"{path.name}: {link}"


def test_a_link_that_leads_nowhere_is_named():
    with pytest.raises(FileNotFoundError, match="docs/study.md: the link to gone.md"):
        build_site.linked("[a](gone.md)", "docs/study.md", build_site.project(), set())


def test_a_link_to_a_file_that_is_no_page_goes_to_the_repository():
    of = build_site.project()
    text = build_site.linked("[a](../mtl_lib/bert.py)", "docs/study.md", of, set())
    assert text == f"[a]({of['repository']}/blob/main/mtl_lib/bert.py)"


def test_exercises_begin_with_a_stub_and_their_solution_is_folded(source):
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        given, shown = code(path), code(source / "notebooks" / path.name)
        exercises = [cell for cell in given if "exercise" in cell["metadata"].get("tags", ())]
        folded = {c["id"]: c for c in shown if c["id"].endswith("-solved")}
        assert len(folded) == len(exercises)
        assert all("hide-input" in cell["metadata"]["tags"] for cell in folded.values())
        assert not any(MARKERS.search("".join(cell["source"])) for cell in shown)
        for cell in shown:
            if "exercise" in cell["metadata"]["tags"]:
                prefilled = "prefilled" in cell["metadata"]["tags"]
                assert prefilled or build_site.STUB in cell["source"], cell["id"]


def test_folded_cells_stay_folded(source):
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        hidden = {c["id"] for c in code(path) if c["metadata"].get("jupyter")}
        shown = code(source / "notebooks" / path.name)
        folded = {c["id"] for c in shown if "hide-input" in c["metadata"]["tags"]}
        assert hidden <= folded


def test_the_stub_is_that_of_the_student_notebooks():
    student = (ROOT / "mtl_lib" / "handbook" / "student.py").read_text(encoding="utf-8")
    assert f'STUB = "{build_site.STUB}"' in student


def test_the_sites_environment_is_pinned():
    lines = (ROOT / "docs" / "site" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines if line[0] != "#")


def test_the_workflow_publishes_what_make_builds():
    text = (ROOT / ".github" / "workflows" / "site.yml").read_text(encoding="utf-8")
    steps = yaml.safe_load(text)["jobs"]["build"]["steps"]
    assert "make site PYTHON=python" in [step.get("run") for step in steps]
    (path,) = [step["with"]["path"] for step in steps if "path" in step.get("with", {})]
    assert path == (build_site.SITE / "html").relative_to(ROOT).as_posix()
