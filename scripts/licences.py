"""Write LICENSES.md: the licence of every package that constraints.txt pins, from its metadata."""

import importlib.metadata
import re

from mtl_lib.files import write_text
from mtl_lib.paths import ROOT

HEAD = """# Licences of others

The handbook's own code and embedded corpora are under the MIT licence (LICENSE). The finished model
in `data/models/final` is all-MiniLM-L6-v2 (Apache-2.0), trained further; licence and card lie
beside it. Other encoders (Apache-2.0) and real corpora are downloaded, not shipped; the terms of
the corpora stand in README.md. Below are the packages that
`make setup` installs, with the licence that each names in its metadata. Written by
`python scripts/licences.py`; packages of other systems are listed where they are installed.

| package | release | licence |
| --- | --- | --- |
"""


def licence(metadata) -> str:
    """What a package says of its licence, in one short line."""
    classified = [
        line.rpartition(" :: ")[2]
        for line in metadata.get_all("Classifier", [])
        if line.startswith("License ::")
    ]
    named = (metadata.get("License") or "").strip().splitlines()[:1]
    words = metadata.get("License-Expression") or ", ".join(classified) or "".join(named)
    return (words or "see the package").replace("|", "/")[:80]


def main() -> None:
    lines = []
    for name in re.findall(
        r"^([\w.-]+)==", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.M
    ):
        try:
            metadata = importlib.metadata.metadata(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        release = metadata["Version"].partition("+")[0]
        lines.append(f"| {name} | {release} | {licence(metadata)} |\n")
    write_text(ROOT / "LICENSES.md", HEAD + "".join(lines))


if __name__ == "__main__":
    main()
