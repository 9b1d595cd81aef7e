"""What a killed test run leaves, the next one takes away."""

import subprocess
import sys
from pathlib import Path

from app.settings import ROOT
from tests.hosts.groups import Group

PROGRAM = """
import subprocess
from tests.hosts.groups import Group
group = Group()
sleeper = subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
for folder in group.folders:
    (folder / "cgroup.procs").write_text(str(sleeper.pid))
group.freeze()
print(group.folders[0])
"""


def test_frozen_processes_of_a_killed_run_are_removed() -> None:
    Group().remove()  # or it says what is missing here
    left = subprocess.run([sys.executable, "-W", "ignore", "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True)
    folder = Path(left.stdout.strip())
    assert folder.is_dir() and (folder / "cgroup.procs").read_text()
    Group().remove()
    assert not folder.exists()
