"""`pytest --nbval notebooks` executes the notebooks again and compares every stored text output.

Pictures are not compared, and neither is what differs between two executions of the same code:
HTML (generated ids; the plain text beside it is compared), warnings on stderr, and whatever
tests/sanitize.cfg replaces.
"""

from pathlib import Path


def pytest_configure(config):
    config.option.nbval_current_env = True
    config.option.nbval_sanitize_with = str(Path(__file__).parent / "tests" / "sanitize.cfg")


def pytest_collectstart(collector):
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += ("text/html", "image/svg+xml", "stderr")
