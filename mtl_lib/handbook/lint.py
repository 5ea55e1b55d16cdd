"""What a notebook must be like to be committed, and how to make it so.

Sources are committed solved and executed, so their stored outputs are what readers see first and
what a new execution is compared with. That only means something if they were executed whole, in
order and as they stand.
"""

import ast
import copy
import re
from collections.abc import Iterable
from pathlib import Path

import nbformat
from nbformat import NotebookNode

KERNEL = "python3"

# What an execution leaves in the metadata: times, machine, and how a window was last looked at.
_TRACES = {"papermill", "execution", "ExecuteTime", "widgets", "collapsed", "scrolled", "trusted"}
_WIDGET = "application/vnd.jupyter.widget-view+json"
_MACHINE_PATH = re.compile(r"(?<![\w.~])/(?:home|root|Users|work|tmp|mnt|var/folders)/\w")


def clean_notebook(notebook: NotebookNode) -> NotebookNode:
    """A copy without the traces of its execution; outputs and execution counts stay.

    Times, papermill's record, widget state and versions go. Text that one stream printed in
    several pieces is joined, since the pieces depend on timing.
    """
    notebook = copy.deepcopy(notebook)
    for holder in (notebook, *notebook.cells):
        for name in _TRACES & holder.metadata.keys():
            del holder.metadata[name]
    notebook.metadata.kernelspec = nbformat.from_dict(
        {"display_name": "Python 3", "language": "python", "name": KERNEL}
    )
    notebook.metadata.language_info = nbformat.from_dict({"name": "python"})
    for cell in notebook.cells:
        if cell.metadata.get("tags") == []:
            del cell.metadata["tags"]
        if cell.cell_type == "code":
            cell.outputs = _joined(cell.outputs)
    return notebook


def _joined(outputs: list[NotebookNode]) -> list[NotebookNode]:
    joined: list[NotebookNode] = []
    for output in outputs:
        last = joined[-1] if joined else {}
        if output.output_type == "stream" and output.name == last.get("name"):
            last.text += output.text
        else:
            joined.append(output)
    return joined


def notebook_faults(notebook: NotebookNode | str | Path) -> list[str]:
    """What keeps a notebook from being committed, in words; empty if nothing does.

    Args:
        notebook: the notebook or its file.
    """
    if not isinstance(notebook, NotebookNode):
        notebook = nbformat.read(notebook, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    outputs = [output for cell in code for output in cell.outputs]
    tags = {tag for cell in notebook.cells for tag in cell.metadata.get("tags", ())}
    opt_outs = tags & {"nbval-skip", "nbval-ignore-output", "raises-exception"}
    opt_outs |= set(re.findall(r"# *(NBVAL_\w+)", "\n".join(cell.source for cell in code)))
    texts = (text for cell in notebook.cells for text in _texts(cell))
    path = next(filter(None, map(_MACHINE_PATH.search, texts)), None)
    counts = [cell.execution_count for cell in code]
    rules = {
        f"execution counts are not 1..{len(code)}: execute it top to bottom": (
            counts != list(range(1, len(code) + 1))
        ),
        "it holds an error output": any(o.output_type == "error" for o in outputs),
        "it holds output on stderr: mend what warns": any(
            o.get("name") == "stderr" for o in outputs
        ),
        "it holds injected parameters: execute it without any": "injected-parameters" in tags,
        "it holds a widget: print text or draw a picture": (
            "widgets" in notebook.metadata or any(_WIDGET in o.get("data", {}) for o in outputs)
        ),
        f"its kernel is not {KERNEL}": (
            notebook.metadata.get("kernelspec", {}).get("name") != KERNEL
        ),
        "it holds traces of its execution: `make notebooks` removes them": (
            clean_notebook(notebook) != notebook
        ),
        f"{', '.join(sorted(opt_outs))}: every stored output has to be compared": opt_outs,
        f"it holds a path of one machine: {path and path.string[path.start() :][:40]!r}": path,
    }
    return [fault for fault, broken in rules.items() if broken] + _parameter_faults(code)


def _texts(cell: NotebookNode) -> Iterable[str]:
    yield cell.source
    for output in cell.get("outputs", ()):
        yield output.get("text", "")
        yield from (text for kind, text in output.get("data", {}).items() if "text/" in kind)


def _parameter_faults(code: list[NotebookNode]) -> list[str]:
    tagged = [cell for cell in code if "parameters" in cell.metadata.get("tags", ())]
    if not tagged and any(re.search(r"\bPROFILE\b", cell.source) for cell in code):
        return ["it uses PROFILE without a cell tagged `parameters`"]
    if len(tagged) > 1:
        return ["it has more than one cell tagged `parameters`"]
    try:
        values = _assignments(tagged[0].source) if tagged else {}
    except (ValueError, SyntaxError):
        return ['its parameters cell may hold nothing but lines such as DATA = "" or JOBS = 0']
    if values.get("PROFILE", "stored") != "stored":
        return ['its PROFILE is not "stored": readers and tests run it as it stands']
    return []


def declared_parameters(path: str | Path) -> dict[str, str | int]:
    """The parameters of a notebook, from its cell tagged `parameters`, with their stored values."""
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code" and "parameters" in cell.metadata.get("tags", ()):
            return _assignments(cell.source)
    return {}


def _assignments(source: str) -> dict[str, str | int]:
    """Names and values. A derived value would go stale once a parameter is injected: ValueError."""
    values = {}
    for statement in ast.parse(source).body:
        match statement:
            case ast.Assign([ast.Name(name)], ast.Constant(str() | int() as value)):
                values[name] = value
            case _:
                raise ValueError(ast.unparse(statement))
    return values
