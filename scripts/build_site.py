"""Build the handbook's site in build/site/html, from its pages and its notebooks as stored.

`make site` calls it in an environment of its own. It puts the source together in build/site/source,
laid out as the repository is, and calls Sphinx with docs/site/conf.py. Nothing is executed.
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from address import project  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "build" / "site"

# The table of contents: files, or what Sphinx writes. A page stands where it is named first.
CONTENTS = {
    "The course": ["notebooks/[0-9]*.ipynb", "notebooks/glossary.md"],
    "Results": ["figures/claims.md", "docs/study.md", "data/README.md"],
    "The library": ["docs/library.md", "data/models/final/README.md", "api/mtl_lib/index"],
    "Using it": ["docs/setup.md", "docs/machines.md", "docs/*.md", "INSTRUCTORS.md"],
    "The project": ["CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"],
}
TITLES = {"api/mtl_lib/index": "Reference of mtl_lib"}  # in the contents, beside the pages' own
FRONT = "README.md"  # becomes index.md
SOLUTION = re.compile(r"^( *)### BEGIN SOLUTION\n(.*?)^ *### END SOLUTION(?:\n|\Z)", re.M | re.S)
STUB = "raise NotImplementedError  # your code here"
LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)\s#]+)")
PICTURES = (".png", ".svg")


def contents() -> dict[str, list[str]]:
    """Caption -> the pages below it, with their suffix; a generated page has none."""
    found: dict[str, list[str]] = {}
    for caption, patterns in CONTENTS.items():
        found[caption] = []
        for pattern in patterns:
            files = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob(pattern))
            placed = sum(found.values(), [])
            found[caption] += [name for name in files or [pattern] if name not in placed]
    return found


def pages() -> list[str]:
    """The files that become pages."""
    return [FRONT, *(name for names in contents().values() for name in names if "." in name)]


def linked(text: str, page: str, of: dict[str, str], pictures: set[str]) -> str:
    """Markdown whose links meet pages of the site, or else files at the repository's address.

    `pictures` takes up the pictures that it shows.

    Raises:
        FileNotFoundError: if a link leads nowhere.
    """

    def target(found: re.Match) -> str:
        path = ROOT / page
        file = Path(os.path.normpath(path.parent / found[1]))
        if not file.is_relative_to(ROOT) or not file.exists():
            raise FileNotFoundError(f"{page}: the link to {found[1]} leads nowhere")
        name = file.relative_to(ROOT).as_posix()
        if name == FRONT:
            return os.path.relpath(ROOT / "index.md", path.parent)
        if name in known:
            return found[1]
        if file.suffix in PICTURES:
            pictures.add(name)
            return found[1]
        return f"{of['repository']}/{'tree' if file.is_dir() else 'blob'}/main/{name}"

    known = set(pages())
    # Alternative texts in one line: MyST would join the words at the break.
    text = re.sub(r"(?<=!\[)[^\]]+", lambda found: " ".join(found[0].split()), text)
    fenced = re.split(r"(^```.*?^```)", text, flags=re.M | re.S)  # code is every second part
    return "".join(LINK.sub(target, part) if n % 2 == 0 else part for n, part in enumerate(fenced))


def entry(name: str) -> str:
    """A page's line in the table of contents."""
    place = name.rsplit(".", 1)[0]
    return f"{TITLES[name]} <{place}>" if name in TITLES else place


def in_summaries(text: str) -> str:
    """Markdown with the formulas of its summaries, which are HTML, as MathJax finds them."""

    def summary(found: re.Match) -> str:
        return re.sub(r"\$([^$]+)\$", r'<span class="math">\\(\1\\)</span>', found[0])

    return re.sub(r"<summary>.*?</summary>", summary, text, flags=re.S)


def front(text: str) -> str:
    """The README with the table of contents; its badges come from other hosts."""
    text = re.sub(r"<!-- badges -->.*?<!-- /badges -->", "", text, flags=re.S)
    trees = [
        f"```{{toctree}}\n:hidden:\n:caption: {caption}\n\n"
        + "".join(f"{entry(name)}\n" for name in names)
        + "```\n"
        for caption, names in contents().items()
    ]
    return "\n".join([text, *trees])


def notebook(text: str, page: str, of: dict[str, str], pictures: set[str]) -> str:
    """A chapter for the site: stubs where the reader writes, solutions and drawing code folded."""
    book = json.loads(text)
    cells, solution = [], None
    for cell in book["cells"]:
        tags = cell["metadata"].setdefault("tags", [])
        cell["source"] = "".join(cell["source"])
        if "install" in tags:  # for Colab
            continue
        if cell["cell_type"] == "markdown":
            cell["source"] = in_summaries(linked(cell["source"], page, of, pictures))
        else:
            prepare(cell, page, of, pictures)
        if solution and ("exercise" in tags or "solution" in tags or is_heading(cell)):
            cells.append(solution)
            solution = None
        if "exercise" in tags and cell["cell_type"] == "code":
            cell, solution = in_two(cell)
        cells.append(cell)
    book["cells"] = [*cells, *([solution] if solution else [])]
    book["metadata"].setdefault("language_info", {})["pygments_lexer"] = "python"
    return json.dumps(book, ensure_ascii=False, indent=1)


def is_heading(cell: dict) -> bool:
    return cell["cell_type"] == "markdown" and cell["source"].startswith("#")


def prepare(cell: dict, page: str, of: dict[str, str], pictures: set[str]) -> None:
    """Folds what JupyterLab folds, in the words of myst-nb; mends the links of outputs."""
    if cell["metadata"].get("jupyter", {}).get("source_hidden"):
        cell["metadata"]["tags"].append("hide-input")
    for output in cell["outputs"]:
        if "text/markdown" in output.get("data", {}):
            shown = "".join(output["data"]["text/markdown"])
            output["data"]["text/markdown"] = linked(shown, page, of, pictures)


def in_two(cell: dict) -> tuple[dict, dict]:
    """An exercise's cell: what the reader starts from, and the folded solution."""
    stub = "" if "prefilled" in cell["metadata"]["tags"] else f"{STUB}\n"
    solved = {**cell, "id": f"{cell['id']}-solved"[:64], "metadata": {"tags": ["hide-input"]}}
    solved["metadata"]["mystnb"] = {
        "code_prompt_show": "A solution",
        "code_prompt_hide": "Hide the solution",
    }
    solved["source"] = SOLUTION.sub(lambda found: found[2], cell["source"])
    first = SOLUTION.sub(lambda found: stub and found[1] + stub, cell["source"]).rstrip("\n")
    return {**cell, "source": first, "outputs": []}, solved


def assemble(out: Path) -> None:
    """Write the source of the site to `out`, anew."""
    shutil.rmtree(out, ignore_errors=True)
    of, pictures = project(), set()
    for name in pages():
        text = (ROOT / name).read_text(encoding="utf-8")
        target = out / ("index.md" if name == FRONT else name)
        target.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".ipynb"):
            text = notebook(text, name, of, pictures)
        else:
            text = linked(text, name, of, pictures)
            text = front(text) if name == FRONT else text
        target.write_text(text, encoding="utf-8")
    for name in pictures:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, out / name)


# What Sphinx and myst-nb write, and what a screen reader needs.
MENDED = {
    '<p class="caption" role="heading">': '<p class="caption" role="heading" aria-level="2">',
    '<summary aria-label="Toggle hidden content">': "<summary>",
    '<aside class="sidebar-drawer">': '<aside class="sidebar-drawer" aria-label="All pages">',
    '<aside class="toc-drawer': '<aside aria-label="This page" class="toc-drawer',
}
NO_HEADS = re.compile(
    r'<thead>\s*<tr[^>]*>(?:\s*<th class="head"><p></p></th>)+\s*</tr>\s*</thead>\s*'
)


def mend(html: Path) -> None:
    """Names and levels for the parts of every page, and no heads of tables that say nothing."""
    for path in html.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        for given, mended in MENDED.items():
            text = text.replace(given, mended)
        path.write_text(NO_HEADS.sub("", text), encoding="utf-8")


def add_mathjax(out: Path) -> None:
    """Beside the pages: the one script of MathJax that is used, and its fonts; 1.6 of 24 MB."""
    package = importlib.util.find_spec("sphinx-mathjax-offline")
    source, target = Path(package.origin).parent / "static" / "mathjax", out / "_static" / "mathjax"
    target.mkdir()
    shutil.copy(source / "tex-chtml-full.js", target)
    fonts = Path("output", "chtml", "fonts")
    shutil.copytree(source / fonts, target / fonts)


def main() -> None:
    begun = time.monotonic()
    source, html = SITE / "source", SITE / "html"
    assemble(source)
    shutil.rmtree(html, ignore_errors=True)
    of = project()
    facts = {"version": of["tag"].removeprefix("v"), "repository": of["repository"]}
    environment = os.environ | {
        "MTL_SITE_ROOT": str(ROOT),
        "MTL_SITE_FACTS": json.dumps(facts),
    }
    command = [
        sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-j", "auto",
        "-c", str(ROOT / "docs" / "site"), "-d", str(SITE / "doctrees"), str(source), str(html),
    ]  # fmt: skip
    subprocess.run(command, check=True, env=environment)
    add_mathjax(html)
    mend(html)
    files = [path for path in html.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files) / 1e6
    number = sum(path.suffix == ".html" for path in files)
    seconds = time.monotonic() - begun
    print(f"{html.relative_to(ROOT)}: {number} pages, {size:.0f} MB, in {seconds:.0f} s")


if __name__ == "__main__":
    main()
