"""What Linux tells of a process."""

import os
import sys
from pathlib import Path

import pytest

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: /proc, and how it queues connections")


def read_memory(pid: int) -> float:
    """Resident, in MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1_000_000


def count_files(pid: int) -> int:
    """Sockets count, too."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def count_threads(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))
