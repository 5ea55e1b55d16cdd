"""What every chapter owes its reader: its exercises, pictures told in words, a self-test."""

import re

import nbformat
import pytest

from mtl_lib.handbook.checks import CHAPTERS, EXERCISES
from mtl_lib.paths import NOTEBOOKS

PATHS = sorted(NOTEBOOKS.glob("*.ipynb"))


def read(path):
    return nbformat.read(path, as_version=4)


def chapter_of(path) -> str:
    return path.stem.partition("_")[0]


def checked(notebook) -> list[str]:
    """Names of the exercises that a notebook checks, in order."""
    return [
        name
        for cell in notebook.cells
        if "check" in cell.metadata.get("tags", ())
        for name in re.findall(r'check\("(\w+)"', cell.source)
    ]


def test_there_are_enough_exercises():
    assert len(EXERCISES) >= 50
    assert all(len(CHAPTERS[chapter]) >= 2 for chapter in CHAPTERS.keys() - {"00"})


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_chapter_holds_its_exercises(path):
    expected = {exercise.name for exercise in CHAPTERS.get(chapter_of(path), ())}
    assert set(checked(read(path))) == expected


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_an_exercise_reads_as_in_the_registry(path):
    notebook = read(path)
    texts = [cell.source.strip() for cell in notebook.cells if cell.cell_type == "markdown"]
    for name in set(checked(notebook)):
        card = EXERCISES[name].card().strip()
        assert any(card in text for text in texts), f"{name}: {card}"


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_an_exercise_has_a_folded_hint(path):
    notebook = read(path)
    folded = "\n".join(
        cell.source
        for cell in notebook.cells
        if cell.cell_type == "markdown" and "<details>" in cell.source
    )
    for name in set(checked(notebook)):
        assert EXERCISES[name].hint.strip() in folded, name


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_every_picture_is_told_in_words(path):
    for number, cell in enumerate(read(path).cells):
        kinds = {kind for output in cell.get("outputs", ()) for kind in output.get("data", {})}
        if "image/png" in kinds:
            alternative = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
            assert len(alternative) > 30, f"cell {number}: {cell.source[:80]}"


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_chapter_ends_with_a_self_test_whose_answers_are_folded(path):
    texts = [cell.source for cell in read(path).cells if cell.cell_type == "markdown"]
    start = max(
        i for i, text in enumerate(texts) if re.search(r"^#+ .*self-test", text, re.I | re.M)
    )
    assert "\n".join(texts[start:]).count("<details>") >= 4


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_links_to_other_chapters_lead_somewhere(path):
    texts = (cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    links = {link for text in texts for link in re.findall(r"\]\(([\w./-]+\.(?:ipynb|md))", text)}
    assert all((NOTEBOOKS / link).exists() for link in links)
