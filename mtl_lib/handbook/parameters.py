"""The parameters of the notebooks: what each may be, however it is given.

A notebook declares them in its cell tagged `parameters`, and `mtl reproduce`, papermill or a reader
gives them other values. papermill hands on what a shell types, so that a seed comes as a number and
a misspelt name is no fault; hence the line `check_parameters(globals())` of every such notebook.
"""

import ast
import difflib
from collections.abc import Collection, Iterable

from mtl_lib.errors import ConfigError
from mtl_lib.study.profiles import PROFILES, choose_rows, parse_seeds

# The values that a notebook is committed with.
PARAMETERS = {
    "PROFILE": "stored", "DATA": "", "ENCODER": "", "SEEDS": "", "ROWS": "",
    "MAX_STEPS": 0, "EPOCHS": 0, "JOBS": 0,
}  # fmt: skip


def check_parameters(names: dict) -> None:
    """Check a notebook's parameters and give each the type of its stored value, in place.

    Args:
        names: the notebook's names, `globals()`.

    Raises:
        ConfigError: if papermill was given a name that is no parameter, or a value is impossible.
    """
    refuse_unknown(_injected(names.get("In", ())), PARAMETERS)
    for name, stored in PARAMETERS.items():
        if name in names:
            names[name] = in_type(name, names[name], stored)
    profile = names.get("PROFILE", "stored")
    if profile not in ("stored", *PROFILES):
        raise ConfigError(f"profile {profile!r}: choose from {', '.join(['stored', *PROFILES])}")
    choose_rows((), names.get("ROWS", ""))
    parse_seeds(names.get("SEEDS", ""))


def in_type(name: str, value: object, stored: str | int) -> str | int:
    """A parameter's value in the type of its stored one: "2" is 2 steps, 1 is the seeds "1".

    Raises:
        ConfigError: if that may change what was meant: to a number 3.10 and 3.1 are one.
    """
    if isinstance(stored, int):
        try:
            number = int(value) if type(value) in (int, str) else -1
        except ValueError:
            number = -1
        if number < 0:
            raise ConfigError(f"{name} is no whole number: {value!r}; give 0, 1, 2 ...")
        return number
    if name == "SEEDS" and type(value) is int:
        return str(value)
    if not isinstance(value, str):
        raise ConfigError(
            f"{name} is no text: {value!r}. To a number, 3.10 and 3.1 are one: put it in quotes, "
            f"with papermill `-r {name} VALUE` in place of `-p`"
        )
    return value


def refuse_unknown(given: Iterable[str], known: Collection[str]) -> None:
    """Raise a ConfigError if a name that was given is none of the known ones."""
    unknown = sorted(set(given) - set(known))
    near = [match for n in unknown for match in difflib.get_close_matches(n.upper(), known, n=1)]
    if unknown:
        raise ConfigError(
            f"unknown parameter {', '.join(unknown)}: the notebooks declare "
            f"{', '.join(sorted(known))}" + (f"; did you mean {', '.join(near)}?" if near else "")
        )


def _injected(history: Iterable[str]) -> list[str]:
    """The names in the last cell of papermill's among those that were run."""
    cells = [source for source in history if source.startswith("# Parameters\n")]
    assignments = ast.parse(cells[-1]).body if cells else ()
    return [node.targets[0].id for node in assignments if isinstance(node, ast.Assign)]
