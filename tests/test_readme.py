"""The README's numbers are those of the stored runs, and its code runs."""

import re

import pytest

from mtl_lib.paper import PAPER_SCORES, TASK_ORDER
from mtl_lib.paths import RESULTS, ROOT
from mtl_lib.results import Run, RunStore
from mtl_lib.tasks import BY_NAME

README = (ROOT / "README.md").read_text()


def table_line(run: Run) -> str:
    """A run as a line of the README's table: development scores, the paper's in brackets."""
    cells = []
    for task in TASK_ORDER:
        scores = run.metrics["best"]["dev"].get(task)
        ours = f"{scores[BY_NAME[task].metric]:.3f}" if scores else "-"
        published = run.config["row"] in PAPER_SCORES.index
        paper = f" ({PAPER_SCORES.loc[run.config['row'], f'dev_{task}']:.3f})" if published else ""
        cells.append(ours + paper)
    minutes = run.provenance["seconds"] / 60
    memory = run.provenance["peak_memory_mb"] / 1024
    name = f"{run.config['row']} {run.config['name']}" if published else run.config["name"]
    return f"| {name} | {' | '.join(cells)} | {minutes:.0f} min | {memory:.1f} GB |"


@pytest.mark.parametrize(
    "run", RunStore(RESULTS / "laptop").runs(profile="laptop"), ids=lambda run: run.config["row"]
)
def test_every_stored_laptop_run_of_the_three_tasks_is_in_the_table(run):
    if len(run.config["heads"]) == 3:
        assert table_line(run) in README


def test_the_table_has_no_other_line():
    runs = [r for r in RunStore(RESULTS / "laptop").runs() if len(r.config["heads"]) == 3]
    lines = re.findall(r"\d\.\d{3}[^|]*\| \d+ min \| \d\.\d GB \|", README)
    assert len(lines) == len(runs) > 0


def test_the_python_example_prints_what_it_says():
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL).group(1)
    printed = []
    exec(code, {"print": lambda value: printed.append(repr(value))})
    assert printed == [re.search(r"# (tensor\(.*\))", code).group(1)]


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)]+)\)", README))
def test_every_link_leads_somewhere(link):
    assert (ROOT / link).exists()


def test_sentiment_alone_is_ahead_of_every_row_of_the_table():
    runs = RunStore(RESULTS / "laptop").runs()
    accuracy = {
        run.config["row"]: run.metrics["best"]["dev"]["sentiment"]["accuracy"]
        for run in runs
        if "sentiment" in run.config["heads"]
    }
    assert max(accuracy, key=accuracy.get) == "sst-finetuned"
