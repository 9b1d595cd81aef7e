"""One instance of the app on a host that sleeps: little memory, a piece of a core, a disk that nobody can write to.

It is started by the start command, frozen whenever no request is there, and killed without a word. Only `/tmp` can be
written to, and it is empty after each start.
"""

import asyncio
import os
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from tests.hosts.groups import Group
from tests.postgres import find_port

COMMAND = "python oppman.py runserver"
PROBE = "/kaithhealth"
ENVIRONMENT_LENGTH = 3072  # bytes of names and values; the host takes no more
DEADLINE = 10.0  # seconds until the probe must have been answered
TEMPORARY_MB = 64

# Everything is there, and read-only. What was built stands at /mnt, because /tmp is covered by an empty one.
SANDBOX = """
set -e
build=$1; command=$2; shift 2
for group in "$@"; do echo $$ > "$group/cgroup.procs"; done
mount --make-rprivate /
mount --bind "$build" /mnt
for place in $(awk '$5 !~ "^/(proc|sys|dev)(/|$)" {print $5}' /proc/self/mountinfo | sort -u); do
    mount -o remount,bind,ro "$place" 2>/dev/null || test "$place" != /
done
mount -t tmpfs -o size=TEMPORARY_MBm,mode=1777 tmpfs /tmp
mount -t tmpfs -o ro,size=64k tmpfs /dev/shm
cd /mnt/project
exec bash -c "$command"
""".replace("TEMPORARY_MB", str(TEMPORARY_MB))


class StartError(Exception):
    """The start command ended, or did not answer in time: the host gives up."""


class Instance:
    def __init__(
        self, build: Path, settings: Mapping[str, str], log: Path, *, memory: int = 512, cpu: float = 28
    ) -> None:
        self.build = build
        self.log = log
        self.command = COMMAND
        self.port = find_port()
        if (size := measure(settings)) > ENVIRONMENT_LENGTH:
            raise StartError(f"The environment has {size} bytes, and {ENVIRONMENT_LENGTH} are allowed.")
        self.environment = {"PATH": f"/mnt/venv/bin:{os.defpath}", "HOME": "/root", "PORT": str(self.port), **settings}
        self.group = Group()
        self.group.limit_memory(memory << 20)
        self.group.limit_cpu(cpu)
        self.process: subprocess.Popen[bytes] | None = None
        self.start_seconds = 0.0
        self.starts = 0
        self.requests = 0  # that are being answered
        self.freezes = True
        self.waking = asyncio.Lock()

    @property
    def pid(self) -> int:
        assert self.process
        return self.process.pid

    @property
    def cpu_seconds(self) -> float:
        """Processor time of the app and all its threads; the number is as in clock_getcpuclockid(3), of Linux."""
        return time.clock_gettime((~self.pid << 3) | 2)

    @asynccontextmanager
    async def awake(self) -> AsyncIterator[int]:
        """Give the port of the instance, which runs as long as somebody asks it for something."""
        self.requests += 1
        try:
            async with self.waking:
                if self.process is None or self.process.poll() is not None:
                    await asyncio.to_thread(self.start)
                self.thaw()
            yield self.port
        finally:
            self.requests -= 1
            if not self.requests and self.freezes and self.process:
                self.freeze()

    def start(self) -> None:
        """A cold start, until the host's probe has its answer."""
        begin = time.monotonic()
        command = ["unshare", "--mount", "bash", "-c", SANDBOX, "sandbox", str(self.build), self.command]
        with self.log.open("a") as output:
            self.process = subprocess.Popen(
                [*command, *map(str, self.group.folders)],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.starts += 1
        while not self.is_alive():
            if self.process.poll() is not None:
                raise StartError(self.log.read_text())
            if time.monotonic() > begin + DEADLINE:
                raise StartError(f"Nobody answered the probe within {DEADLINE} seconds.")
            time.sleep(0.05)
        self.start_seconds = time.monotonic() - begin

    def is_alive(self) -> bool:
        request = f"GET {PROBE} HTTP/1.1\r\nHost: 10.0.0.1\r\nConnection: close\r\n\r\n".encode()
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
                connection.sendall(request)
                return b" 200 " in connection.recv(65_536)
        except OSError:
            return False

    def freeze(self) -> None:
        self.group.freeze()

    def thaw(self) -> None:
        self.group.freeze(False)

    def kill(self) -> None:
        """Nobody asks it, nobody tells it."""
        self.group.kill()
        if self.process:
            self.process.wait(10)
        self.process = None

    async def end(self) -> int:
        """As the host does before a new version: SIGTERM, and a while to comply. Gives the exit code."""
        assert self.process
        process, self.freezes = self.process, False
        self.group.kill(signal.SIGTERM)
        return await asyncio.to_thread(process.wait, 30)

    def close(self) -> None:
        self.kill()
        self.group.remove()


def measure(settings: Mapping[str, str]) -> int:
    """Count the bytes of an environment."""
    return sum(len(f"{name}={value}".encode()) for name, value in settings.items())
