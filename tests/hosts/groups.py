"""Control groups of Linux, version 1 or 2: what a host gives an instance of memory and processor, and its freezer."""

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from tests.services import miss

ROOT = Path("/sys/fs/cgroup")
KINDS = ("memory", "cpu", "freezer")  # folders of their own in version 1
PERIOD = 100_000  # microseconds


class Group:
    """Processes that share a limit, and stand still and die together."""

    def __init__(self) -> None:
        if sys.platform != "linux" or os.geteuid() != 0:
            miss("Only root can limit and freeze processes, on Linux.")
        roots = [ROOT] if (ROOT / "cgroup.controllers").exists() else [ROOT / kind for kind in KINDS]
        name = f"oppkit-host-{os.getpid()}-{uuid4().hex}"
        self.folders = [root / name for root in roots]
        remove_orphans(roots)
        try:
            for folder in self.folders:
                folder.mkdir()
            with suppress(OSError):  # version 2 has them on already, or cannot; the next line says it
                (ROOT / "cgroup.subtree_control").write_text("+memory +cpu")
            self.freeze(False)
            self.limit_memory(512 << 20)
        except (OSError, StopIteration) as error:
            self.remove()
            miss(f"There are no control groups for memory, processor and freezing here: {error}.")

    def limit_memory(self, size: int) -> None:
        """Let all of them have so many bytes, and none on a disk."""
        with suppress(StopIteration):  # not every kernel counts what is swapped out
            self._write(("memory.memsw.limit_in_bytes",), -1)
        self._write(("memory.limit_in_bytes", "memory.max"), size)
        with suppress(StopIteration):
            self._write(("memory.memsw.limit_in_bytes",), size)
        with suppress(StopIteration):
            self._write(("memory.swap.max",), 0)

    def limit_cpu(self, percent: float) -> None:
        """Let all of them have so much of one core."""
        quota = int(percent * PERIOD / 100)
        self._write(("cpu.cfs_quota_us", "cpu.max"), quota, f"{quota} {PERIOD}")

    def freeze(self, is_frozen: bool = True) -> None:
        self._write(("freezer.state", "cgroup.freeze"), "FROZEN" if is_frozen else "THAWED", int(is_frozen))

    def kill(self, signum: int = signal.SIGKILL) -> None:
        self.freeze(False)
        for pid in self.list_pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signum)

    def list_pids(self) -> list[int]:
        files = [folder / "cgroup.procs" for folder in self.folders if folder.exists()]
        return [int(pid) for pid in files[0].read_text().split()]

    def remove(self) -> None:
        """Leave nothing behind. What was killed is gone only a moment later."""
        for folder in filter(Path.exists, self.folders):
            while (folder / "cgroup.procs").read_text():
                self.kill()
            folder.rmdir()

    def _write(self, names: Sequence[str], value: object, value_of_2: object = None) -> None:
        """Write into the file of version 1, or else that of version 2; StopIteration without either."""
        file = next(folder / name for name in names for folder in self.folders if (folder / name).exists())
        is_2 = value_of_2 is not None and file.name == names[-1]
        file.write_text(str(value_of_2 if is_2 else value))


def remove_orphans(roots: Sequence[Path]) -> None:
    """Remove what a test run left that was killed itself, perhaps with frozen processes in it."""
    for name in {folder.name for root in roots for folder in root.glob("oppkit-host-*")}:
        if not Path("/proc", name.split("-")[2]).exists():
            orphan = Group.__new__(Group)
            orphan.folders = [root / name for root in roots]
            with suppress(OSError, StopIteration):  # another process may be faster
                orphan.remove()
