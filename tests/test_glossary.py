"""The glossary: in order, each term with its chapter, and every link to it meets a term."""

import re

import pytest

from mtl_lib.paths import NOTEBOOKS

TEXT = (NOTEBOOKS / "glossary.md").read_text(encoding="utf-8")
HEADINGS = re.findall(r"^## (.+)$", TEXT, re.MULTILINE)
CHAPTER = re.compile(r"\*Chapter \[(\d\d\w?)\]\((\d\d\w?_\w+\.ipynb)\)\.\*")
COMMITTED = sorted(NOTEBOOKS.glob("*.ipynb"))


def introduced() -> dict[str, str]:
    """Anchor -> number of the chapter that introduces the term."""
    entries = re.split(r"^## (.+)$", TEXT, flags=re.MULTILINE)[1:]
    found = {}
    for name, body in zip(entries[::2], entries[1::2], strict=True):
        chapter = CHAPTER.search(" ".join(body.split()))
        assert chapter, f"{name}: names no chapter"
        number, file = chapter.groups()
        assert file.startswith(number) and (NOTEBOOKS / file).is_file(), f"{name}: {file}"
        found[name.replace(" ", "-")] = number
    return found


def test_terms_are_in_alphabetical_order_and_each_stands_once():
    assert sorted(set(HEADINGS)) == HEADINGS


def test_headings_are_such_that_every_viewer_gives_them_the_same_anchor():
    assert all(re.fullmatch(r"[a-z0-9 -]+", heading) for heading in HEADINGS)


def test_every_term_names_the_chapter_that_introduces_it():
    assert introduced()


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_links_meet_a_term_that_this_or_an_earlier_chapter_introduces(path):
    chapters = introduced()
    for anchor in re.findall(r"glossary\.md#([\w,-]+)", path.read_text(encoding="utf-8")):
        assert anchor in chapters, f"no term {anchor}"
        first = chapters[anchor]
        assert first <= path.name.split("_")[0], f"{anchor}: introduced only in {first}"
