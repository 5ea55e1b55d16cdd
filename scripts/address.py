"""Write the repository's address wherever it stands; pyproject.toml holds it.

    make address REPOSITORY=https://github.com/OWNER/NAME

From `[project.urls] Repository` and the version come the README's badges, the citation, and in
every chapter the links that open it in the cloud and the first cell, which installs the handbook
there.
"""

import re
import sys
import tomllib
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
BADGES = ("<!-- badges -->\n", "\n<!-- /badges -->")
INSTALL = "install"  # tag of the first cell

CELL = """\
try:  # a machine without the handbook, such as Colab's: fetch it; the torch that is there stays
    import mtl_lib  # noqa: F401
except ModuleNotFoundError:
    HANDBOOK = "mtl-handbook[lessons] @ git+{repository}@{tag}"
    get_ipython().run_line_magic("pip", f"install -q '{{HANDBOOK}}'")  # noqa: F821
"""


PLAIN = re.compile(r"https://github\.com/([\w.-]+/[\w.-]+)")


def plain(repository: str) -> str:
    """The address without what git and browsers put at its end.

    Raises:
        SystemExit: if it is none of a repository on GitHub, for which the links are made.
    """
    address = repository.removesuffix("/").removesuffix(".git")
    if not PLAIN.fullmatch(address):
        sys.exit(f"{repository}: the address looks like https://github.com/OWNER/NAME")
    return address


def project() -> dict[str, str]:
    """Address, owner/name and tag of this release."""
    of = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    repository = plain(of["urls"]["Repository"])
    slug = repository.removeprefix("https://github.com/")
    return {"repository": repository, "slug": slug, "tag": f"v{of['version']}"}


def links(chapter: str, of: dict[str, str]) -> str:
    """Where a chapter opens, in Markdown."""
    notebook = f"notebooks/{chapter}.ipynb"
    colab = f"https://colab.research.google.com/github/{of['slug']}/blob/{of['tag']}/{notebook}"
    binder = f"https://mybinder.org/v2/gh/{of['slug']}/{of['tag']}?labpath=lessons/{chapter}.ipynb"
    return f"Open this chapter in [Binder]({binder}), by `make lab`, or solved in [Colab]({colab})."


def badges(of: dict[str, str]) -> str:
    """The README's badges: tests, Colab, Binder, Codespaces."""
    first = "notebooks/00_start_here.ipynb"
    colab = "https://colab.research.google.com"
    found = {
        f"tests]({of['repository']}/actions/workflows/ci.yml/badge.svg": (
            f"{of['repository']}/actions/workflows/ci.yml"
        ),
        f"Open in Colab]({colab}/assets/colab-badge.svg": (
            f"{colab}/github/{of['slug']}/blob/{of['tag']}/{first}"
        ),
        "Open in Binder](https://mybinder.org/badge_logo.svg": (
            f"https://mybinder.org/v2/gh/{of['slug']}/{of['tag']}?labpath=lessons/00_start_here.ipynb"
        ),
        "Open in Codespaces](https://github.com/codespaces/badge.svg": (
            f"https://codespaces.new/{of['slug']}"
        ),
    }
    return "\n".join(f"[![{image})]({target})" for image, target in found.items())


def with_badges(readme: str, of: dict[str, str]) -> str:
    before, rest = readme.split(BADGES[0])
    _, after = rest.split(BADGES[1])
    return f"{before}{BADGES[0]}{badges(of)}{BADGES[1]}{after}"


def with_address(citation: str, of: dict[str, str]) -> str:
    kept = re.sub(r"^repository-code: .*\n", "", citation, flags=re.M)
    return kept.replace("license: ", f'repository-code: "{of["repository"]}"\nlicense: ', 1)


def write_chapter(path: Path, of: dict[str, str]) -> None:
    """Put the links below a chapter's card, and the installing cell before its first code."""
    from mtl_lib.files import write_text  # the site's environment has no handbook

    notebook = nbformat.read(path, as_version=4)
    title = notebook.cells[0]
    kept = re.sub(r"\n*Open this chapter in \[.*", "", title.source)
    title.source = f"{kept}\n\n{links(path.stem, of)}"
    cells = [c for c in notebook.cells if INSTALL not in c.metadata.get("tags", [])]
    (before,) = [c for c in notebook.cells if c not in cells] or [None]
    first = next(n for n, cell in enumerate(cells) if cell.cell_type == "code")
    cell = nbformat.v4.new_code_cell(CELL.format(**of).rstrip(), id="install")
    cell.metadata["tags"] = [INSTALL]
    cell.execution_count = before and before.execution_count  # it prints nothing
    notebook.cells = [*cells[:first], cell, *cells[first:]]
    write_text(path, nbformat.writes(notebook) + "\n")


def main(arguments: list[str]) -> None:
    from mtl_lib.files import write_text

    if arguments:
        pyproject = ROOT / "pyproject.toml"
        text = pyproject.read_text(encoding="utf-8")
        given = f'Repository = "{plain(arguments[0])}"'
        write_text(pyproject, re.sub(r"^Repository = .*$", given, text, flags=re.M))
    of = project()
    readme, citation = ROOT / "README.md", ROOT / "CITATION.cff"
    write_text(readme, with_badges(readme.read_text(encoding="utf-8"), of))
    write_text(citation, with_address(citation.read_text(encoding="utf-8"), of))
    for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
        write_chapter(path, of)
    print(of["repository"], of["tag"])


if __name__ == "__main__":
    main(sys.argv[1:])
