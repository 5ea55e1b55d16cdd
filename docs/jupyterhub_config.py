"""JupyterHub for a class on one server: docs/teaching.md says how it is started.

Every student has a system account. The chapters are copied into ~/handbook when they first log in,
and never again: what they wrote there is theirs.
"""

import os
import shutil
from pathlib import Path

HANDBOOK = Path(__file__).resolve().parents[1]
REPORTS = Path(os.environ.get("MTL_REPORTS", "/srv/reports"))
STATE = Path(os.environ.get("MTL_HUB", "/var/lib/mtl-hub"))  # the hub's own: root's alone


def own(path, home):
    """What root has made for a student is the student's, and nobody else's to read."""
    os.chown(path, home.stat().st_uid, home.stat().st_gid)
    path.chmod(0o700 if path.is_dir() else 0o600)


def welcome(spawner):
    """Give a new student the notebooks without solutions, and a folder for their report."""
    home = Path(f"~{spawner.user.name}").expanduser()
    folder, report = home / "handbook", REPORTS / spawner.user.name
    if not folder.exists():
        shutil.copytree(HANDBOOK / "build" / "student", folder)
        for path in (folder, *folder.rglob("*")):
            own(path, home)
    if not report.exists():
        report.mkdir()
        own(report, home)


REPORTS.mkdir(exist_ok=True)
REPORTS.chmod(0o711)  # each finds their own folder, nobody lists the others'
STATE.mkdir(mode=0o700, exist_ok=True)

c = get_config()  # noqa: F821
c.JupyterHub.bind_url = "http://127.0.0.1:8000"
c.JupyterHub.db_url = f"sqlite:///{STATE}/jupyterhub.sqlite"
c.JupyterHub.cookie_secret_file = f"{STATE}/cookie_secret"
c.ConfigurableHTTPProxy.pid_file = f"{STATE}/proxy.pid"
c.Authenticator.allow_all = True
c.Spawner.pre_spawn_hook = welcome
c.Spawner.cmd = [str(HANDBOOK / ".venv" / "bin" / "jupyterhub-singleuser")]
c.Spawner.notebook_dir = "~/handbook"
c.Spawner.default_url = "/lab/tree/00_start_here.ipynb"


def in_home(folder):
    """A folder of each student's own: that of the handbook is nobody's to write to."""
    return lambda spawner: str(Path(f"~{spawner.user.name}").expanduser() / "handbook" / folder)


c.Spawner.environment = {
    "MTL_MINE": in_home("mine"),
    "MTL_BUILD": in_home("build"),
    "MTL_FIGURES": in_home("figures"),
    "MTL_CACHE": str(HANDBOOK / "build" / "encoders"),
    "MTL_REPORT": lambda spawner: f"{REPORTS}/{spawner.user.name}/{spawner.user.name}.json",
    "OMP_NUM_THREADS": "1",
    "JUPYTER_PREFER_ENV_PATH": "1",
}
