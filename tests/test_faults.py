"""`make faults` at a small count: what is killed goes on, and ends with the same bits."""

import re
import subprocess
import sys

from mtl_lib.paths import ROOT


def test_killed_studies_end_with_the_numbers_of_an_undisturbed_one():
    command = [sys.executable, "scripts/faults.py", "--kills", "3", "--rows", "3.2,frozen-1e-3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    last = done.stdout.splitlines()[-1]
    assert re.fullmatch(
        r"faults: 6 kills, [1-9]\d* resumes, \d+ studies; 0 runs lost, 0 repeated, 0 different, "
        r"0 files corrupt",
        last,
    ), done.stdout + done.stderr
    assert done.returncode == 0
