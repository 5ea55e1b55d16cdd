"""`pytest --nbval notebooks` executes the notebooks again and compares every stored text output.

They run as they were stored: with everything solved, and without widgets. Pictures are not
compared, and neither is what differs between two executions of the same code: HTML (generated ids;
the plain text beside it is compared), warnings on stderr, and whatever tests/sanitize.cfg replaces.
"""

import contextlib
import os
from pathlib import Path


def pytest_configure(config):
    config.option.nbval_current_env = True
    config.option.nbval_sanitize_with = str(Path(__file__).parent / "tests" / "sanitize.cfg")
    is_worker = hasattr(config, "workerinput")  # of pytest-xdist: it has what its parent set
    if config.getoption("nbval", False) and not is_worker:
        from mtl_lib.handbook import mine

        os.environ["MTL_STATIC"] = "1"
        folder = contextlib.ExitStack()
        config.add_cleanup(folder.close)
        folder.enter_context(mine.solved())


def pytest_collectstart(collector):
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += ("text/html", "image/svg+xml", "stderr")
