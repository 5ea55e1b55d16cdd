"""The committed notebooks, and the rules that they are held to."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from mtl_lib.handbook.lint import clean_notebook, declared_parameters, notebook_faults
from mtl_lib.handbook.parameters import PARAMETERS
from mtl_lib.paths import NOTEBOOKS

COMMITTED = sorted(NOTEBOOKS.glob("*.ipynb"))


def test_fifteen_notebooks_are_numbered_from_00_to_13_with_02b():
    numbers = sorted([*(f"{number:02}" for number in range(14)), "02b"])
    assert sorted(path.stem.partition("_")[0] for path in COMMITTED) == numbers
    assert COMMITTED[0].stem == "00_start_here"
    assert COMMITTED[-1].stem == "13_fair_bench"


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_a_committed_notebook_is_executed_and_clean(path):
    assert notebook_faults(path) == []


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_a_committed_notebook_declares_no_parameter_but_the_common_ones(path):
    assert declared_parameters(path).items() <= PARAMETERS.items()


def executed() -> nbformat.NotebookNode:
    """A small notebook as it should be: parameters, then a cell that prints."""
    parameters = new_code_cell(
        'PROFILE = "stored"\nJOBS = 0', execution_count=1, metadata={"tags": ["parameters"]}
    )
    printed = new_output("stream", name="stdout", text="stored\n")
    cells = [
        new_markdown_cell("# A title"),
        parameters,
        new_code_cell("print(PROFILE)", execution_count=2, outputs=[printed]),
    ]
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"  # random otherwise
    return clean_notebook(new_notebook(cells=cells))


def test_an_executed_notebook_has_no_fault():
    assert notebook_faults(executed()) == []


def unexecuted(notebook):
    for cell in notebook.cells[1:]:
        cell.execution_count, cell.outputs = None, []


def out_of_order(notebook):
    notebook.cells[1].execution_count = 3


def with_error(notebook):
    notebook.cells[2].outputs = [new_output("error", ename="ValueError", evalue="x")]


def with_stderr(notebook):
    notebook.cells[2].outputs = [new_output("stream", name="stderr", text="a warning\n")]


def injected(notebook):
    notebook.cells[1].metadata.tags = ["injected-parameters"]


def with_widget(notebook):
    data = {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "IntSlider()"}
    notebook.cells[2].outputs = [new_output("display_data", data=data)]


def with_widget_state(notebook):
    notebook.metadata.widgets = {"state": {}}


def other_kernel(notebook):
    notebook.metadata.kernelspec.name = "mtl-handbook"


def timed(notebook):
    notebook.cells[1].metadata.execution = {"iopub.status.busy": "2026-01-01T00:00:00Z"}


def other_profile(notebook):
    notebook.cells[1].source = 'PROFILE = "quick"'


def without_parameters(notebook):
    del notebook.cells[1].metadata["tags"]


def derived_parameter(notebook):
    notebook.cells[1].source += "\nTHREADS = JOBS * 2"


def union_parameter(notebook):
    notebook.cells[1].source += "\nLIMIT: int | None = None"


def two_parameter_cells(notebook):
    notebook.cells[2].metadata.tags = ["parameters"]


def with_path_in_text(notebook):
    notebook.cells[0].source += "\nSee /" + "home/me/corpus."


def with_path_in_output(notebook):
    notebook.cells[2].outputs[0].text = "PosixPath('/" + "home/me/corpus')"


def skipped(notebook):
    notebook.cells[2].metadata.tags = ["nbval-skip"]


def unchecked(notebook):
    notebook.cells[2].source = "# NBVAL_IGNORE_OUTPUT\n" + notebook.cells[2].source


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (unexecuted, "execution counts"),
        (out_of_order, "execution counts"),
        (with_error, "error output"),
        (with_stderr, "stderr"),
        (injected, "injected parameters"),
        (with_widget, "widget"),
        (with_widget_state, "widget"),
        (other_kernel, "kernel is not python3"),
        (timed, "traces"),
        (other_profile, 'PROFILE is not "stored"'),
        (without_parameters, "without a cell tagged `parameters`"),
        (derived_parameter, "nothing but lines such as"),
        (union_parameter, "nothing but lines such as"),
        (two_parameter_cells, "more than one cell"),
        (with_path_in_text, "path of one machine"),
        (with_path_in_output, "path of one machine"),
        (skipped, "nbval-skip"),
        (unchecked, "NBVAL_IGNORE_OUTPUT"),
    ],
)
def test_the_gate_names_the_fault(spoil, message):
    notebook = executed()
    spoil(notebook)
    assert any(message in fault for fault in notebook_faults(notebook))


def test_an_address_on_the_web_is_no_path_of_a_machine():
    notebook = executed()
    notebook.cells[0].source += "\nSee https://example.org/home/me, ~/mnt/x or ../tmp/x."
    assert notebook_faults(notebook) == []


def test_cleaning_removes_what_the_execution_left():
    notebook = executed()
    notebook.metadata.papermill = {"duration": 1.0}
    notebook.metadata.language_info.version = "3.11.2"
    notebook.cells[1].metadata |= {"papermill": {}, "execution": {}}
    notebook.cells[2].metadata.tags = []
    assert clean_notebook(notebook) == executed()


RECORDS = {
    "id": "Xy_z", "colab": {}, "colab_type": "code", "outputId": "b-1", "executionInfo": {},
    "vscode": {"languageId": "python"}, "ExecuteTime": {}, "collapsed": True, "cellView": "form",
    "jupyter": {"outputs_hidden": True}, "tags": [], "deletable": False,
}  # fmt: skip


def test_cleaning_removes_the_records_of_colab_and_vs_code():
    notebook = executed()
    notebook.metadata |= {"colab": {}, "accelerator": "GPU", "gpuClass": "x", "vscode": {}}
    notebook.metadata.orig_nbformat = 4
    notebook.metadata.language_info |= {"version": "3.11.2", "file_extension": ".py"}
    notebook.cells[0].metadata |= RECORDS
    notebook.cells[2].metadata |= RECORDS
    assert any("traces" in fault for fault in notebook_faults(notebook))
    assert clean_notebook(notebook) == executed()


def test_cleaning_removes_what_an_output_holds_for_one_editor_alone():
    notebook = executed()
    told = {"image/png": {"alt": "A line that rises."}}
    notebook.cells[2].outputs = [
        new_output("display_data", data={"image/png": "YQ==", "text/plain": "x"}, metadata=told)
    ]
    dirty = clean_notebook(notebook)
    dirty.cells[2].outputs[0].data["application/vnd.google.colaboratory.intrinsic+json"] = {}
    dirty.cells[2].outputs[0].metadata |= {"needs_background": "light", "tags": []}
    dirty.cells[2].outputs[0].metadata["image/png"].width = 300
    assert clean_notebook(dirty) == notebook


def test_cleaning_gives_cells_without_id_the_same_ids_each_time():
    notebook = executed()
    notebook.nbformat_minor = 4
    for cell in notebook.cells:
        del cell["id"]
    first, second = clean_notebook(notebook), clean_notebook(notebook)
    assert first == second
    assert first.nbformat_minor == 5
    assert len({cell.id for cell in first.cells}) == 3
    nbformat.validate(first)


def test_cleaning_joins_what_one_stream_printed_in_pieces():
    notebook = executed()
    pieces = [new_output("stream", name="stdout", text=text) for text in ("sto", "red\n")]
    notebook.cells[2].outputs = pieces
    assert clean_notebook(notebook) == executed()


def test_cleaning_keeps_outputs_counts_and_tags():
    notebook = executed()
    data = {"image/png": "iVBORw0KGgo=", "text/plain": "<Figure>"}
    notebook.cells[2].outputs.append(new_output("display_data", data=data))
    notebook.cells[2].metadata = {"tags": ["check"], "jupyter": {"source_hidden": True}}
    assert clean_notebook(notebook) == notebook


def test_cleaning_leaves_the_original_alone():
    notebook = executed()
    notebook.metadata.papermill = {}
    clean_notebook(notebook)
    assert "papermill" in notebook.metadata
