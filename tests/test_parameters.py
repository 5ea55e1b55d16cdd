"""The parameters of the notebooks, as papermill gives them."""

import nbformat
import papermill
import pytest
from click.testing import CliRunner
from nbformat.v4 import new_code_cell, new_notebook
from papermill.cli import papermill as command
from papermill.translators import PythonTranslator

from mtl_lib.errors import ConfigError
from mtl_lib.handbook.lint import clean_notebook, declared_parameters
from mtl_lib.handbook.parameters import PARAMETERS, check_parameters
from mtl_lib.paths import NOTEBOOKS

DECLARING = [path for path in sorted(NOTEBOOKS.glob("*.ipynb")) if declared_parameters(path)]


def given(**injected) -> dict:
    """A notebook's names after its parameters and papermill's cell were run, then checked."""
    source = PythonTranslator.codify(injected)
    names = {"In": ["", "...", source], **PARAMETERS}
    exec(source, names)
    check_parameters(names)
    return {name: names[name] for name in PARAMETERS}


@pytest.mark.parametrize("path", DECLARING, ids=lambda path: path.stem)
def test_a_notebook_that_declares_parameters_checks_them_before_it_uses_them(path):
    cells = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    declares = [c for c in cells if "parameters" in c.metadata.get("tags", ())]
    code = [c.source for c in cells[cells.index(declares[0]) :]]
    (checks,) = (number for number, source in enumerate(code) if "check_parameters(" in source)
    start, _, rest = code[checks].partition("check_parameters(globals())")
    assert rest
    before = [*code[1:checks], start]  # the first cell declares them
    assert not any(name in source.split() for name in PARAMETERS for source in before)


def test_what_is_not_given_stays_as_it_is_stored():
    assert given() == PARAMETERS


def test_a_seed_given_as_a_number_is_that_seed():
    assert given(SEEDS=1)["SEEDS"] == "1"
    assert given(SEEDS=0)["SEEDS"] == "0"
    assert given(SEEDS="0,1")["SEEDS"] == "0,1"


@pytest.mark.parametrize("name", ["MAX_STEPS", "EPOCHS", "JOBS"])
def test_a_number_given_as_text_is_that_number(name):
    assert given(**{name: "2"})[name] == 2
    assert given(**{name: 2})[name] == 2


def test_a_row_given_as_text_is_that_row():
    assert given(ROWS="3.10")["ROWS"] == "3.10"


@pytest.mark.parametrize("row", [3.3, 3.1, 3, [3.1, 3.2], None, True])
def test_a_row_given_as_a_number_is_refused_since_3_10_and_3_1_are_one_number(row):
    with pytest.raises(ConfigError, match=r"ROWS is no text: .*papermill `-r ROWS VALUE`"):
        given(ROWS=row)


@pytest.mark.parametrize("name", ["PROFILE", "DATA", "ENCODER", "SEEDS"])
def test_text_given_as_another_kind_is_refused_by_name(name):
    for value in (1.5, True, None, ["a"]):
        with pytest.raises(ConfigError, match=f"{name} is no text"):
            given(**{name: value})


@pytest.mark.parametrize("value", ["few", "2.0", "", "-1", -1, 2.0, float("nan"), True, None, [2]])
@pytest.mark.parametrize("name", ["MAX_STEPS", "EPOCHS", "JOBS"])
def test_steps_that_are_no_whole_number_are_refused_by_name(name, value):
    with pytest.raises(ConfigError, match=f"{name} is no whole number"):
        given(**{name: value})


@pytest.mark.parametrize(
    ("name", "meant"),
    [("SEED", "SEEDS"), ("PROFIL", "PROFILE"), ("rows", "ROWS"), ("MAXSTEPS", "MAX_STEPS")],
)
def test_a_misspelt_parameter_is_refused_and_the_right_name_suggested(name, meant):
    with pytest.raises(ConfigError, match=f"unknown parameter {name}: .*did you mean {meant}"):
        given(**{name: "1"})


def test_a_parameter_like_no_other_is_refused_with_the_names_that_there_are():
    with pytest.raises(ConfigError, match="unknown parameter colour: .* DATA, ENCODER, .*SEEDS$"):
        given(colour="red")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"PROFILE": "quik"}, "profile 'quik': choose from stored, quick"),
        ({"ROWS": "3.11"}, "unknown row 3.11"),
        ({"SEEDS": "one"}, "seeds 'one'"),
    ],
)
def test_a_value_that_there_is_not_is_refused_in_the_first_cell(values, message):
    with pytest.raises(ConfigError, match=message):
        given(**values)


def test_names_of_a_readers_own_are_no_parameters():
    names = {"In": ["", "SEED = 1", "# Parameters of the plot\nwidth = 3"], **PARAMETERS, "SEED": 1}
    check_parameters(names)
    assert names["SEEDS"] == ""


def test_a_cell_that_is_run_before_the_parameters_leaves_the_error_to_python():
    check_parameters(names := {"In": [""]})
    assert "PROFILE" not in names


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    parameters = "\n".join(f"{name} = {value!r}" for name, value in PARAMETERS.items())
    check = (
        "from mtl_lib.handbook.parameters import check_parameters\n"
        "check_parameters(globals())\nprint([SEEDS, ROWS, MAX_STEPS])"
    )
    cells = [new_code_cell(parameters, metadata={"tags": ["parameters"]}), new_code_cell(check)]
    path = tmp_path_factory.mktemp("papermill") / "small.ipynb"
    nbformat.write(clean_notebook(new_notebook(cells=cells)), path)
    return path


def typed(notebook, *words):
    out = notebook.with_name("out.ipynb")
    arguments = [str(notebook), str(out), "-k", "python3", "--no-progress-bar", *words]
    result = CliRunner().invoke(command, arguments)
    return result, nbformat.read(out, as_version=4)


def test_papermill_as_a_shell_types_it_works(notebook):
    result, out = typed(notebook, *"-p SEEDS 1 -r ROWS 3.10 -r MAX_STEPS 2".split())
    assert result.exit_code == 0, result.exception
    assert out.cells[-1].outputs[0].text == "['1', '3.10', 2]\n"


def test_papermill_with_a_misspelt_name_fails_in_the_first_cell(notebook):
    result, _ = typed(notebook, "-p", "SEED", "1")
    assert isinstance(result.exception, papermill.PapermillExecutionError)
    assert "did you mean SEEDS?" in result.exception.evalue
