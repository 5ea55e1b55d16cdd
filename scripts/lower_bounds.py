"""Print the lowest release of everything that pyproject.toml asks for, as pip's constraints."""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
# What they find differs from release to release, and no test of the library uses them.
TOOLS = {"ruff", "mypy", "pdoc"}


def lower_bounds(text: str) -> list[str]:
    """`name==bound` for every requirement of a pyproject.toml that has a lower bound."""
    project = tomllib.loads(text)["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    return [
        f"{requirement.name}=={bound.version}"
        for requirement in map(Requirement, sum(groups, []))
        for bound in requirement.specifier
        if bound.operator == ">=" and requirement.name not in TOOLS
    ]


if __name__ == "__main__":
    print(*lower_bounds((ROOT / "pyproject.toml").read_text(encoding="utf-8")), sep="\n")
