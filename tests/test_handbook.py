"""Running all notebooks: tiny ones in a temporary folder, most of them without a kernel."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import ipykernel.kernelspec
import nbformat
import papermill
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from mtl_lib import cli
from mtl_lib.errors import ConfigError, RunError
from mtl_lib.handbook import mine
from mtl_lib.handbook import reproduce as handbook
from mtl_lib.study import rows as rows_module
from mtl_lib.study.settings import Settings

PARAMETERS = (
    'PROFILE = "stored"\nDATA = ""\nENCODER = ""\nROWS = ""\nCOLOUR = ""\n'
    "MAX_STEPS = 0\nEPOCHS = 0\nJOBS = 0"
)


def write_notebook(path, *sources, parameters=PARAMETERS):
    cells = [new_code_cell(source) for source in sources]
    if parameters:
        cells.insert(0, new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    nbformat.write(new_notebook(cells=cells), path)
    return path


@pytest.fixture
def notebooks(tmp_path, monkeypatch):
    """A folder with two notebooks, and folders of their own for figures and executed copies."""
    monkeypatch.setattr(handbook, "FIGURES", tmp_path / "figures")
    monkeypatch.setattr(handbook, "BUILD", tmp_path / "build")
    monkeypatch.setattr(handbook, "_inputs", lambda wanted: [])
    monkeypatch.setattr(handbook, "trained_runs", lambda rows, settings: [])  # nothing is trained
    monkeypatch.setattr(handbook, "jobs_at_a_time", lambda jobs, threads=1: jobs or 1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(mine, "solved", contextlib.nullcontext)  # test_mine.py has it
    folder = tmp_path / "notebooks"
    folder.mkdir()
    write_notebook(folder / "00_first.ipynb", "print(PROFILE, MAX_STEPS)")
    write_notebook(folder / "01_second.ipynb", "print('second')", parameters="")
    return folder


@pytest.fixture
def executions(monkeypatch, tmp_path):
    """What papermill is asked to execute, as (name, parameters); it draws a figure at once."""
    asked = []

    def execute(source, target, parameters, **options):
        assert Path.cwd() == source.parent
        asked.append((source.stem, parameters))
        figures = tmp_path / "figures" / "quick"
        figures.mkdir(parents=True, exist_ok=True)
        (figures / f"{source.stem}.png").write_bytes(os.urandom(8))
        target.write_bytes(source.read_bytes())

    monkeypatch.setattr(papermill, "execute_notebook", execute)
    return asked


def reproduce(folder, profile="quick", **arguments):
    parameters = arguments.pop("parameters", None)
    handbook.reproduce(
        Settings(profile, **arguments),
        parameters=parameters,
        notebooks=folder,
        out=folder.parent / "out",
    )


def names(executions):
    return [name for name, _ in executions]


def test_notebooks_run_with_the_parameters_they_declare(notebooks, executions):
    reproduce(notebooks, max_steps=2, epochs=1, rows="3.1,3.2")
    given = {"PROFILE": "quick", "MAX_STEPS": 2, "EPOCHS": 1, "ROWS": "3.1,3.2"}
    assert executions == [("00_first", given), ("01_second", {})]


def test_all_runs_are_trained_before_the_first_notebook(notebooks, executions, monkeypatch):
    asked = []

    def trained_runs(rows, settings):
        assert not executions
        asked.append((list(rows), settings))

    monkeypatch.setattr(handbook, "trained_runs", trained_runs)
    reproduce(notebooks, rows="3.1,3.2", max_steps=5, epochs=1)
    (rows, settings), *others = asked
    assert not others
    assert rows == [*rows_module.ROWS, *rows_module.SINGLE_TASK]
    assert settings == Settings("quick", rows="3.1,3.2", max_steps=5, epochs=1)


def test_jobs_may_be_given_as_a_setting_or_as_a_parameter(notebooks, executions, monkeypatch):
    asked = []
    monkeypatch.setattr(handbook, "jobs_at_a_time", lambda jobs: asked.append(jobs) or 1)
    reproduce(notebooks, jobs=3)
    reproduce(notebooks, parameters={"JOBS": "3"})
    assert asked == [3, 3]


def test_a_figure_that_is_being_written_counts_for_none(tmp_path):
    (tmp_path / "figure_3.png").touch()
    (tmp_path / ".figure_3.png.7.tmp").touch()  # by another notebook, as `files.replacing` does
    assert list(handbook._times(tmp_path)) == ["figure_3.png"]


def test_the_last_lines_name_the_places_of_copies_and_figures(notebooks, executions, capsys):
    reproduce(notebooks)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("2 notebooks, PROFILE=quick: 24 runs")
    assert lines[1].split() == ["00_first", "0:00"]
    assert lines[-2] == f"executed notebooks: {notebooks.parent}/out/quick/"
    assert lines[-1] == f"figures: {notebooks.parent}/figures/quick/"


def test_a_second_call_executes_nothing(notebooks, executions, capsys):
    reproduce(notebooks)
    reproduce(notebooks)
    assert names(executions) == ["00_first", "01_second"]
    assert "nothing has changed since" in capsys.readouterr().out


def test_the_second_announcement_says_how_long_it_took(notebooks, executions, capsys):
    reproduce(notebooks)
    reproduce(notebooks)
    assert "the last time the notebooks took 0:00" in capsys.readouterr().out


def test_a_changed_notebook_is_executed_again(notebooks, executions):
    reproduce(notebooks)
    write_notebook(notebooks / "01_second.ipynb", "print('another')", parameters="")
    reproduce(notebooks)
    assert names(executions) == ["00_first", "01_second", "01_second"]


def test_other_parameters_execute_the_notebooks_that_declare_them(notebooks, executions):
    reproduce(notebooks)
    reproduce(notebooks, max_steps=3)
    assert names(executions) == ["00_first", "01_second", "00_first"]


def test_a_missing_figure_is_drawn_again(notebooks, executions):
    reproduce(notebooks)
    (notebooks.parent / "figures" / "quick" / "01_second.png").unlink()
    reproduce(notebooks)
    assert names(executions) == ["00_first", "01_second", "01_second"]


def test_a_missing_copy_is_executed_again(notebooks, executions):
    reproduce(notebooks)
    (notebooks.parent / "out" / "quick" / "00_first.ipynb").unlink()
    reproduce(notebooks)
    assert names(executions) == ["00_first", "01_second", "00_first"]


def test_a_changed_corpus_executes_everything_again(notebooks, executions, monkeypatch):
    corpus = notebooks.parent / "corpus.csv"
    monkeypatch.setattr(handbook, "_inputs", lambda wanted: [corpus])
    corpus.write_text("one")
    reproduce(notebooks)
    corpus.write_text("two")
    reproduce(notebooks)
    assert names(executions) == ["00_first", "01_second"] * 2


def test_a_damaged_record_is_as_good_as_none(notebooks, executions):
    reproduce(notebooks)
    (notebooks.parent / "out" / "quick" / "executed.json").write_text("{")
    reproduce(notebooks)
    assert names(executions) == ["00_first", "01_second"] * 2


def test_the_inputs_are_the_library_the_data_and_the_given_folders(tmp_path):
    (tmp_path / "quora-dev.csv").touch()
    found = {path.name for path in handbook._inputs({"DATA": str(tmp_path), "ENCODER": "tiny"})}
    assert {"bert.py", "chapter_01.py", "quora-dev.csv"} <= found


def test_a_relative_corpus_folder_means_the_callers(notebooks, executions):
    (notebooks.parent / "corpora").mkdir()
    header, row = "id\tsentence\tsentiment\n", "a1\tA quiet street\t2\n"
    (notebooks.parent / "corpora" / "ids-sst-dev.csv").write_text("\t" + header + "0\t" + row)
    reproduce(notebooks, data="corpora", encoder="tiny", rows="sst-frozen")
    assert executions[0][1]["DATA"] == str(notebooks.parent / "corpora")
    assert executions[0][1]["ENCODER"] == "tiny"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"parameters": {"COLOR": "red"}}, "unknown parameter COLOR: .* COLOUR, DATA"),
        ({"seeds": "0,1"}, "unknown parameter SEEDS"),
        ({"profile": "stored"}, "profile 'stored': choose from quick"),
        ({"rows": "9.9"}, "unknown row 9.9"),
        (
            {"rows": "compare"},
            "rows compare: no notebook trains these; choose from 3.1.*mtl sweep --rows compare",
        ),
        ({"rows": "3.1,compare,cosine"}, "rows compare,cosine: no notebook trains these"),
        (
            {"rows": "cfimdb-frozen"},
            "rows cfimdb-frozen: corpus 'handbook' has no cfimdb; .*--data",
        ),
        ({"seeds": "one"}, "seeds 'one'"),
        ({"data": "nowhere"}, "data 'nowhere': no such folder; or choose handbook"),
        ({"encoder": "nowhere"}, "encoder 'nowhere': no such folder; or choose tiny"),
        ({"parameters": {"MAX_STEPS": "few"}}, "00_first.ipynb: .* whole number: .*'few'"),
        ({"max_steps": -1}, "MAX_STEPS is no whole number: -1"),
        ({"parameters": {"ROW": "3.1"}}, "unknown parameter ROW: .*did you mean ROWS"),
    ],
)
def test_an_impossible_parameter_is_refused_before_anything_runs(
    notebooks, executions, arguments, message
):
    with pytest.raises(ConfigError, match=message):
        reproduce(notebooks, **arguments)
    assert executions == []


def test_a_folder_without_notebooks_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="holds no notebook"):
        handbook.reproduce(Settings(), notebooks=tmp_path, out=tmp_path)


def test_a_failure_names_notebook_cell_and_error_and_the_next_call_goes_on(notebooks, tmp_path):
    fault = "raise ValueError('first line\\nlast line')"
    write_notebook(notebooks / "01_second.ipynb", "print('before')", fault, parameters="")
    with pytest.raises(RunError) as error:
        reproduce(notebooks)
    copies = tmp_path / "out" / "quick"
    assert "01_second.ipynb, cell [2]: ValueError: last line" in str(error.value)
    assert str(copies / "01_second.failed.ipynb") in str(error.value)
    assert not (copies / "01_second.ipynb").exists()
    assert "before" in (copies / "01_second.failed.ipynb").read_text()
    first = (copies / "00_first.ipynb").stat().st_mtime_ns
    injected = nbformat.read(copies / "00_first.ipynb", as_version=4)
    assert injected.cells[-1].outputs[0].text == "quick 0\n"

    write_notebook(notebooks / "01_second.ipynb", "print('mended')", parameters="")
    reproduce(notebooks)
    assert (copies / "00_first.ipynb").stat().st_mtime_ns == first
    assert sorted(path.name for path in copies.glob("*.ipynb")) == [
        "00_first.ipynb",
        "01_second.ipynb",
    ]


def test_notebooks_run_several_at_a_time(notebooks, tmp_path):
    meet = (
        "from pathlib import Path; import time\n"
        "me, other = Path('{0}'), Path('{1}')\n"
        "me.touch()\n"
        "while not other.exists(): time.sleep(0.1)"  # for ever, were the other not there
    )
    write_notebook(notebooks / "00_first.ipynb", meet.format("a", "b"))
    write_notebook(notebooks / "01_second.ipynb", meet.format("b", "a"), parameters="")
    reproduce(notebooks, jobs=2)
    assert len(list((tmp_path / "out" / "quick").glob("*.ipynb"))) == 2


def test_after_a_fault_those_begun_go_on_to_their_end_and_none_is_begun(notebooks, tmp_path):
    write_notebook(notebooks / "00_first.ipynb", "raise ValueError")
    slow = "import time; time.sleep(2)"
    write_notebook(notebooks / "01_second.ipynb", slow, parameters="")
    write_notebook(notebooks / "02_third.ipynb", slow, parameters="")
    write_notebook(notebooks / "03_fourth.ipynb", slow, parameters="")
    with pytest.raises(RunError, match="00_first.ipynb"):
        reproduce(notebooks, jobs=2)
    copies = {path.name for path in (tmp_path / "out" / "quick").glob("*.ipynb")}
    assert {"00_first.failed.ipynb", "01_second.ipynb"} <= copies
    assert "03_fourth.ipynb" not in copies


def test_ctrl_c_ends_the_kernels_and_the_next_call_goes_on(notebooks, tmp_path):
    program = (
        "import contextlib, signal; from mtl_lib.handbook import mine, reproduce\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # as in a terminal
        "reproduce.trained_runs = lambda rows, settings: []\n"
        "reproduce._inputs = lambda wanted: []\n"
        "mine.solved = contextlib.nullcontext\n"
        "from mtl_lib.study.settings import Settings\n"
        "reproduce.reproduce(Settings('quick', jobs=2), notebooks='notebooks', out='out')"
    )
    pids = [tmp_path / "first", tmp_path / "second"]
    for name, pid in zip(("00_first", "01_second"), pids, strict=True):
        source = f"import os, time; open('{pid}', 'w').write(str(os.getpid())); time.sleep(600)"
        write_notebook(notebooks / f"{name}.ipynb", source)
    going = subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 120
        while not all(pid.exists() and pid.read_text() for pid in pids):
            assert time.monotonic() < deadline and going.poll() is None
            time.sleep(0.1)
        going.send_signal(signal.SIGINT)
        assert b"KeyboardInterrupt" in going.communicate(timeout=60)[1]
    finally:
        going.kill()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid.read_text()), 0)


def test_a_killed_kernel_is_named_too(notebooks):
    write_notebook(notebooks / "00_first.ipynb", "1", "import os; os._exit(1)", parameters="")
    with pytest.raises(RunError, match=r"00_first.ipynb, cell \[2\]: its kernel died"):
        reproduce(notebooks)


def test_a_kernel_that_dies_while_starting_is_named_and_leaves_its_notebook_as_failed(
    notebooks, tmp_path, monkeypatch
):
    spec = ipykernel.kernelspec.get_kernel_dict() | {"argv": [sys.executable, "-c", "1 / 0"]}
    monkeypatch.setattr(ipykernel.kernelspec, "get_kernel_dict", lambda: spec)
    with pytest.raises(RunError, match="00_first.ipynb, its kernel has not started: Kernel died"):
        handbook._execute(notebooks / "00_first.ipynb", tmp_path / "executed.ipynb")
    left = [path.name for path in tmp_path.glob("executed*")]
    assert left == ["executed.failed.ipynb"]


def test_refresh_stores_the_outputs_in_the_source(notebooks):
    path = write_notebook(notebooks / "00_first.ipynb", "print(PROFILE)")
    other = (notebooks / "01_second.ipynb").read_bytes()
    handbook.refresh(["00"], notebooks)
    stored = nbformat.read(path, as_version=4)
    assert [cell.execution_count for cell in stored.cells] == [1, 2]
    assert stored.cells[1].outputs[0].text == "stored\n"
    assert "papermill" not in path.read_text()
    assert (notebooks / "01_second.ipynb").read_bytes() == other


def test_refresh_leaves_a_source_alone_that_may_not_be_committed(notebooks):
    warns = "import sys; print('warning', file=sys.stderr)"
    path = write_notebook(notebooks / "00_first.ipynb", warns)
    before = path.read_bytes()
    with pytest.raises(RunError, match="00_first.ipynb: it holds output on stderr"):
        handbook.refresh(["00"], notebooks)
    assert path.read_bytes() == before


def test_refresh_refuses_a_notebook_that_does_not_exist(notebooks):
    with pytest.raises(ConfigError, match="07: choose from 00_first, 01_second"):
        handbook.refresh(["07"], notebooks)


def test_a_person_watching_sees_the_last_line_printed(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with handbook._Watch(13) as watch:
        watch.start("05_many_tasks")
        watch.write("earlier\n[3/21] 3.3 trained\n")
        watch.flush()
        watch.say("05_many_tasks 0:12")
    captured = capsys.readouterr()
    assert "0/13 05_many_tasks" in captured.err
    assert "[3/21] 3.3 trained" in captured.err
    assert captured.out == "05_many_tasks 0:12\n"


def test_nothing_but_lines_where_nobody_watches(capsys):
    with handbook._Watch(13) as watch:
        watch.start("05_many_tasks")
        watch.write("a line\n")
        watch.say("05_many_tasks 0:12")
    assert capsys.readouterr() == ("05_many_tasks 0:12\n", "")


def test_the_command_hands_its_options_on(monkeypatch):
    given = []
    monkeypatch.setattr(
        handbook, "reproduce", lambda settings, parameters: given.append((settings, parameters))
    )
    assert cli.main(["reproduce", "--profile", "paper", "--epochs", "1", "-p", "K=a=b"]) == 0
    assert given == [(Settings("paper", epochs=1), {"K": "a=b"})]


def test_the_command_refuses_a_parameter_without_value(capsys):
    with pytest.raises(SystemExit):
        cli.main(["reproduce", "-p", "K"])
    assert "'K' is not NAME=VALUE" in capsys.readouterr().err


def test_the_record_is_written_whole(tmp_path):
    record = handbook._Record(tmp_path / "executed.json")
    record.add(tmp_path / "00_first.ipynb", "abc", 1.26, ["figure_3.png"])
    assert json.loads((tmp_path / "executed.json").read_text()) == {
        "00_first.ipynb": {"fingerprint": "abc", "seconds": 1.3, "figures": ["figure_3.png"]}
    }
    assert [path.name for path in tmp_path.iterdir()] == ["executed.json"]


def announced(notebooks, capsys, **arguments) -> str:
    write_notebook(notebooks / "00_first.ipynb", parameters=PARAMETERS + '\nSEEDS = ""')
    reproduce(notebooks, **arguments)
    return capsys.readouterr().out.splitlines()[0]


def test_a_row_of_chapter_04_alone_is_announced_as_a_run(notebooks, executions, capsys):
    line = announced(notebooks, capsys, rows="sst-frozen")
    assert line.endswith("ROWS=sst-frozen: 1 runs")


@pytest.mark.parametrize(
    ("arguments", "runs"),
    [
        ({}, 24),  # 22 of Figures 3 and 4 with the frozen ones, two of sentiment alone
        ({"rows": "3.1"}, 1),
        ({"rows": "3.1,3.1, 3.2"}, 2),
        ({"rows": "sst-frozen,sst-finetuned"}, 2),
        ({"rows": "sst-frozen,cfimdb-frozen"}, 1),  # the embedded corpora have no CFIMDB
        ({"rows": "frozen-1e-5,4.10", "seeds": "0,1,2"}, 6),
    ],
)
def test_the_announcement_counts_the_runs_that_are_trained(
    notebooks, executions, capsys, arguments, runs
):
    assert announced(notebooks, capsys, **arguments).endswith(f": {runs} runs")


def test_no_time_is_announced_for_runs_shorter_than_the_profiles(notebooks, executions, capsys):
    assert announced(notebooks, capsys, max_steps=2, epochs=1).endswith("EPOCHS=1: 24 runs")


def printed(notebooks, source: str) -> str:
    """What a notebook of one cell prints."""
    executed = notebooks.parent / "executed.ipynb"
    handbook._execute(write_notebook(notebooks / "02_third.ipynb", source, parameters=""), executed)
    return nbformat.read(executed, as_version=4).cells[0].outputs[0].text.strip()


def test_a_notebook_runs_in_this_interpreter_whatever_kernel_jupyter_would_find(
    notebooks, tmp_path, monkeypatch
):
    other = tmp_path / "jupyter" / "kernels" / "python3"
    other.mkdir(parents=True)
    spec = {"argv": ["no-such-python", "{connection_file}"], "display_name": "x", "language": "x"}
    (other / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    assert printed(notebooks, "import sys; print(sys.executable)") == sys.executable


def test_a_notebook_writes_where_its_caller_does_not_in_its_own_folder(notebooks, tmp_path):
    source = "from mtl_lib.paths import BUILD, FIGURES; print(BUILD, FIGURES)"
    assert printed(notebooks, source) == f"{tmp_path / 'build'} {tmp_path / 'figures'}"


def test_no_message_speaks_of_make(notebooks, executions, capsys):
    for arguments in ({"rows": "compare"}, {"data": "nowhere"}, {"rows": "cfimdb-frozen"}):
        with pytest.raises(ConfigError) as refused:
            reproduce(notebooks, **arguments)
        assert not re.search(r"\bmake\b|\b(ROWS|DATA)=", str(refused.value))
    reproduce(notebooks)
    reproduce(notebooks)
    assert not re.search(r"\bmake\b", capsys.readouterr().out)


def test_a_parameters_cell_that_derives_a_value_is_refused_by_file(notebooks, executions):
    write_notebook(notebooks / "00_first.ipynb", parameters="JOBS = 2 * 3")
    with pytest.raises(ConfigError, match="00_first.ipynb: its parameters cell may hold"):
        reproduce(notebooks)
