"""Pictures with sliders: widgets in a live notebook, the first picture everywhere else."""

import sys

import nbformat
import pytest
from nbclient import NotebookClient

from mtl_lib.handbook.play import _control, _is_live, play

CELL = """
from mtl_lib.handbook.play import play

play(lambda angle, length, kind: print(angle, length, kind),
     angle=(0, 180, 60), length=(0.1, 3.0, 1.0), kind=("sum", "mean"))
"""


def outputs(monkeypatch, static: str) -> list:
    """What the cell leaves behind in a kernel of Jupyter."""
    monkeypatch.setenv("MTL_STATIC", static)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    NotebookClient(notebook, kernel_name="python3").execute()
    return notebook.cells[0].outputs


def test_the_picture_alone_is_drawn_where_nothing_is_live():
    drawn = []
    play(lambda **values: drawn.append(values), angle=(0, 180, 60), kind=("sum", "mean"))
    assert drawn == [{"angle": 60, "kind": "sum"}]


def test_stored_notebooks_hold_the_first_picture_and_no_widget(monkeypatch):
    [printed] = outputs(monkeypatch, static="1")
    assert printed.text == "60 1.0 sum\n"


def test_a_live_notebook_shows_widgets(monkeypatch):
    pytest.importorskip("ipywidgets")
    kinds = {kind for output in outputs(monkeypatch, static="") for kind in output.data}
    assert "application/vnd.jupyter.widget-view+json" in kinds


def test_without_ipywidgets_the_picture_is_drawn_alone(monkeypatch):
    monkeypatch.delenv("MTL_STATIC", raising=False)
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    assert not _is_live()


def test_a_slider_moves_in_whole_numbers_if_its_limits_are_whole():
    pytest.importorskip("ipywidgets")
    whole, real = _control("angle", (0, 180, 60)), _control("length_of_step", (0.0, 3.0, 1.0))
    assert (type(whole).__name__, whole.value) == ("IntSlider", 60)
    assert (type(real).__name__, real.value) == ("FloatSlider", 1.0)
    assert real.description == "length of step"
    assert not whole.continuous_update and not real.continuous_update
    assert _control("kind", ("sum", "mean")).value == "sum"
