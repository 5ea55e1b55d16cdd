"""What a notebook must be like to be committed, and how to make it so.

Sources are committed solved and executed, so their stored outputs are what readers see first and
what a new execution is compared with. That only means something if they were executed whole, in
order and as they stand.
"""

import ast
import copy
import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from mtl_lib.errors import ConfigError

KERNEL = "python3"

_KEPT = ("tags", "mystnb", "nbgrader")  # of a cell's metadata, beside jupyter.source_hidden
_WIDGET = "application/vnd.jupyter.widget-view+json"
_MACHINE_PATH = re.compile(r"(?<![\w.~])/(?:home|root|Users|work|tmp|mnt|var/folders)/\w")


def read_notebook(path: str | Path) -> NotebookNode:
    """A notebook as its file holds it, written by whatever program.

    Raises:
        ConfigError: if the file is no notebook of format 4.
    """
    try:
        # `nbformat.read` would give random ids to cells that have none.
        notebook = nbformat.reader.reads(Path(path).read_text(encoding="utf-8"))
        if notebook.nbformat != 4:
            raise ValueError("save it again with JupyterLab")
        nbformat.validate(clean_notebook(notebook))
    except (ValueError, LookupError, TypeError, AttributeError, nbformat.ValidationError) as error:
        reason = (str(error).splitlines() or [""])[0][:200]
        raise ConfigError(f"{path}: no notebook of format 4: {reason}") from None
    return notebook


def clean_notebook(notebook: NotebookNode) -> NotebookNode:
    """A copy without the records of the programs that ran or saved it; outputs and counts stay.

    Of the metadata only that stays which the handbook uses. Text that one stream printed in several
    pieces is joined, since the pieces depend on timing. A cell without an id of its own gets one,
    the same in every copy.
    """
    notebook = copy.deepcopy(notebook)
    notebook.nbformat_minor = max(5, notebook.nbformat_minor)  # cells have ids since 4.5
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": KERNEL},
            "language_info": {"name": "python"},
        }
    )
    ids: set[str] = set()
    for number, cell in enumerate(notebook.cells, start=1):
        if cell.get("id") in {None, *ids}:
            cell.id = hashlib.sha256(f"{number} {cell.source}".encode()).hexdigest()[:8]
        ids.add(cell.id)
        kept = {name: cell.metadata[name] for name in _KEPT if cell.metadata.get(name)}
        if cell.metadata.get("jupyter", {}).get("source_hidden"):
            kept["jupyter"] = {"source_hidden": True}
        cell.metadata = nbformat.from_dict(kept)
        if cell.cell_type == "code":
            cell.outputs = _joined(cell.outputs)
            for output in cell.outputs:
                _clean_output(output)
    return notebook


def _clean_output(output: NotebookNode) -> None:
    """Leave out what one editor alone reads, and of the metadata all but alternative texts."""
    if "data" in output:
        for kind in list(output.data):
            if kind.startswith("application/vnd.") and kind != _WIDGET:
                del output.data[kind]
    if "metadata" in output:
        told = {
            kind: {"alt": about["alt"]}
            for kind, about in output.metadata.items()
            if isinstance(about, dict) and "alt" in about
        }
        output.metadata = nbformat.from_dict(told)


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
        notebook = read_notebook(notebook)
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
        "it holds traces of the programs that ran or saved it: `mtl notebooks` removes them": (
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
    """The parameters of a notebook, from its cell tagged `parameters`, with their stored values.

    Raises:
        ConfigError: if that cell holds anything else.
    """
    for cell in read_notebook(path).cells:
        if cell.cell_type == "code" and "parameters" in cell.metadata.get("tags", ()):
            try:
                return _assignments(cell.source)
            except (ValueError, SyntaxError) as fault:
                raise ConfigError(
                    f'{path}: its parameters cell may hold lines such as DATA = "" or JOBS = 0: '
                    f"{fault}"
                ) from None
    return {}


def _assignments(source: str) -> dict[str, str | int]:
    """Names and values. A derived value would go stale once a parameter is injected: ValueError."""
    values = {}
    for statement in ast.parse(source).body:
        match statement:
            case ast.Assign([ast.Name(name)], ast.Constant(str() | int() as value)) if (
                not isinstance(value, bool)
            ):
                values[name] = value
            case _:
                raise ValueError(ast.unparse(statement))
    return values
