"""Servers as the files of the hosts start them."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx2
import pytest

from app.settings import ROOT
from tests.deploy.files import read_file
from tests.faults.conftest import ada_anywhere, start_worker  # noqa: F401 (fixtures for all)
from tests.management.conftest import clean_environment

SECONDS_TO_START = 40  # for a machine that has much else to do


def list_copied() -> list[str]:
    """What .dockerignore lets through is all that a host needs."""
    return [line.removeprefix("!") for line in read_file(".dockerignore") if line.startswith("!")]


def copy_project(folder: Path) -> Path:
    for name in list_copied():
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            folder.mkdir(exist_ok=True)
            shutil.copy(ROOT / name, folder)
    return folder


def find_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


@pytest.fixture
def disk() -> Iterator[Path]:
    """A folder that is not below /tmp: production keeps no database there."""
    with TemporaryDirectory(dir="/var/tmp") as folder:
        yield Path(folder)


class Program:
    """A command line in a process of its own, and what it wrote."""

    def __init__(self, command: str | list[str], log: Path, folder: Path, environment: Mapping[str, str]) -> None:
        self.log = log
        # The shell is replaced by the command, as on the hosts: it would keep their signals to itself.
        words = ["bash", "-c", f"exec {command}"] if isinstance(command, str) else command
        with log.open("w") as output:
            self.process = subprocess.Popen(
                words,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_for(self, url: str) -> None:
        until = time.monotonic() + SECONDS_TO_START
        while True:
            assert self.process.poll() is None and time.monotonic() < until, self.log.read_text()[-2000:]
            try:
                if httpx2.get(url, verify=False).status_code == 200:
                    return
            except httpx2.TransportError:
                pass
            time.sleep(0.1)

    def end(self) -> int:
        self.process.terminate()
        try:
            return self.process.wait(25)
        finally:
            self.kill()

    def kill(self) -> None:
        """With all that it has started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


Start = Callable[..., Program]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a command: `start("python oppman.py runserver", folder, PORT="8001")`, with the Python of the tests."""
    programs: list[Program] = []

    def start(command: str | list[str], folder: Path = tmp_path, **variables: str) -> Program:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = clean_environment(PYTHONUNBUFFERED="1", **variables) | {"PATH": path}
        programs.append(Program(command, tmp_path / f"program{len(programs)}.log", folder, environment))
        return programs[-1]

    yield start
    for program in programs:
        program.end()
