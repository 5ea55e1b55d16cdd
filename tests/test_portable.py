"""What only Unix has is not needed: the library stands in for its absence."""

import os
import subprocess
import sys

from test_runs import write_corpus

from mtl_lib.paths import ROOT

# Once with everything, for what other packages import; then the library again, without.
WITHOUT_UNIX = """
import importlib, os, pkgutil, signal, sys

def import_all():
    import mtl_lib
    names = [m.name for m in pkgutil.walk_packages(mtl_lib.__path__, "mtl_lib.")]
    for name in names:
        importlib.import_module(name)
    return names

import_all()
for name in [name for name in sys.modules if name.split(".")[0] == "mtl_lib"]:
    del sys.modules[name]
for name in ("resource", "fcntl", "pwd", "grp", "termios", "tty", "pty", "syslog"):
    sys.modules[name] = None
for module, names in {
    os: "nice fork forkpty execve killpg getpgid setpgrp setsid geteuid getuid uname wait waitpid "
    "sysconf getloadavg sched_getaffinity mkfifo statvfs O_NOFOLLOW WNOHANG",
    signal: "SIGKILL SIGALRM SIGHUP SIGCHLD SIGUSR1 SIGPIPE alarm setitimer pthread_sigmask pause",
}.items():
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)
print(len(import_all()))
"""


def without_unix(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_UNIX + code],
        cwd=ROOT, capture_output=True, text=True, env=os.environ | environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_module_is_imported_where_only_portable_things_are():
    modules = [path for path in (ROOT / "mtl_lib").rglob("*.py") if path.stem != "__init__"]
    assert int(without_unix("")) >= len(modules)


def test_a_run_is_trained_and_stored_where_only_portable_things_are(tmp_path):
    data = write_corpus(tmp_path / "corpus")
    arguments = ["train", "3.2", "--data", data, "--encoder", "tiny", "--max-steps", "1"]
    code = f"from mtl_lib.cli import main\nassert main({arguments!r}) == 0"
    assert "3.2 gradient surgery, seed 0" in without_unix(code, MTL_BUILD=str(tmp_path / "build"))
    assert len(list((tmp_path / "build" / "runs" / "quick").glob("3.2-*/run.json"))) == 1
