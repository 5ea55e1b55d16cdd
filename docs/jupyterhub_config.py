"""JupyterHub for a class on one server: docs/teaching.md says how it is started.

Every student has a system account. The chapters are copied into ~/handbook when they first log in,
and never again: what they wrote there is theirs.
"""

import os
import shutil
from pathlib import Path

HANDBOOK = Path(__file__).resolve().parents[1]
REPORTS = os.environ.get("MTL_REPORTS", "/srv/reports")


def copy_chapters(spawner):
    """Give a new student the notebooks without solutions."""
    home = Path(f"~{spawner.user.name}").expanduser()
    folder = home / "handbook"
    if not folder.exists():
        shutil.copytree(HANDBOOK / "build" / "student", folder)
        owner = home.stat()
        for path in (folder, *folder.rglob("*")):
            os.chown(path, owner.st_uid, owner.st_gid)


c = get_config()  # noqa: F821
c.JupyterHub.bind_url = "http://127.0.0.1:8000"
c.Authenticator.allow_all = True
c.Spawner.pre_spawn_hook = copy_chapters
c.Spawner.cmd = [str(HANDBOOK / ".venv" / "bin" / "jupyterhub-singleuser")]
c.Spawner.notebook_dir = "~/handbook"
c.Spawner.default_url = "/lab/tree/00_start_here.ipynb"


def own(folder):
    """A folder of each student's own: that of the handbook is nobody's to write to."""
    return lambda spawner: str(Path(f"~{spawner.user.name}").expanduser() / "handbook" / folder)


c.Spawner.environment = {
    "MTL_MINE": own("mine"),
    "MTL_BUILD": own("build"),
    "MTL_FIGURES": own("figures"),
    "MTL_CACHE": str(HANDBOOK / "build" / "encoders"),
    "MTL_REPORT": lambda spawner: f"{REPORTS}/{spawner.user.name}.json",
    "OMP_NUM_THREADS": "1",
    "JUPYTER_PREFER_ENV_PATH": "1",
}
