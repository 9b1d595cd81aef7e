"""From a fresh clone to a chat that answers."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.management.conftest import Oppman, clean_environment, list_group

PASSWORD = re.compile(r"(\S+@example\.com) +password (\S+)\n")


def test_quickstart_sets_up_once_and_then_keeps(run_in: Oppman, oppman: Oppman, project: Path, at_home: Path) -> None:
    first = run_in("quickstart", "--no-serve", "--noinput")
    assert first.code == 0, first.err
    assert first.err == ""
    assert PASSWORD.findall(first.out)[0][0] == "grace@example.com"
    env = (project / ".env").read_text()
    assert re.search(r"^SECRET_KEY=\S{64}$", env, re.MULTILINE)
    assert (project / ".env").stat().st_mode & 0o777 == 0o600
    assert (project / "db.sqlite3").stat().st_mode & 0o777 == 0o600

    second = oppman("quickstart", "--no-serve", DATABASE_URL=f"sqlite:///{project}/db.sqlite3")
    assert second.code == 0
    assert not PASSWORD.search(second.out)
    for kept in (r"\.env", "Database +db.sqlite3,", "Admin +grace@example.com"):
        assert re.search(rf"^  {kept} +kept$", second.out, re.MULTILINE)
    assert "changepassword EMAIL" in second.out
    assert (project / ".env").read_text() == env
    assert sorted(path.name for path in project.glob(".env*")) == [".env", ".env.example"]


def test_a_taken_port_is_said_before_anything_is_done(oppman: Oppman, at_home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = oppman("quickstart", "--port", str(port))
    assert done.code == 1
    assert done.err.startswith(f"CommandError: Port {port} is already in use. Choose another: ")
    assert "quickstart --port" in done.err
    assert list(at_home.iterdir()) == []


@pytest.mark.parametrize("port", ["99999", "-1"])
def test_a_port_that_is_none_is_refused_before_anything_is_done(oppman: Oppman, at_home: Path, port: str) -> None:
    assert "is not a valid port number" in oppman("quickstart", f"--port={port}").err
    assert "is not a valid port number" in oppman("quickstart", PORT="abc").err
    assert list(at_home.iterdir()) == []


def test_quickstart_makes_nobody_in_production(oppman: Oppman, at_home: Path) -> None:
    (at_home / ".env").touch()
    key = "kJ2-v9Qx_4mTzR7wLpN0sYb8HcUe3DfGaVi6oXtM1qEW"
    database = {"DATABASE_URL": f"sqlite:///{at_home}/db.sqlite3"}
    done = oppman("quickstart", "--no-serve", ENVIRONMENT="production", SECRET_KEY=key, **database)
    assert "ENVIRONMENT is production" in done.err
    assert done.code == 1
    assert not (at_home / "db.sqlite3").exists()


@pytest.fixture
def served(project: Path) -> Iterator[tuple[str, "subprocess.Popen[str]", Path]]:
    """A quickstart that serves; its address, its process, and what it wrote."""
    log = project / "log.txt"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "oppman.py", "quickstart", "--port", "0"],
            cwd=project,
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            text=True,
            start_new_session=True,
        )
        try:
            yield wait_for_address(log, process), process, log
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_for_address(log: Path, process: "subprocess.Popen[str]") -> str:
    for _ in range(600):
        if found := re.search(r"Open +(http://127\.0\.0\.1:\d+)/", log.read_text()):
            return found[1]
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)
    raise AssertionError(log.read_text())


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_a_person_signs_in_and_the_small_model_answers(served: tuple[str, "subprocess.Popen[str]", Path]) -> None:
    url, process, log = served
    email, password = PASSWORD.findall(log.read_text())[0]
    with httpx2.Client(base_url=url, timeout=60) as browser:
        signed_in = browser.post("/login", data={"email": email, "password": password})
        assert signed_in.headers["location"] == "/chat"
        chat = browser.post("/api/v1/conversations", json={}).json()
        answer = browser.post(f"/api/v1/conversations/{chat['id']}/messages", json={"content": "Say hello."}).json()
    assert answer["status"] == "done", json.dumps(answer)
    assert answer["text"]
    assert "small demo model" in answer["model"]

    assert len(list_group(process)) >= 3, "the reloader, the app and the model"
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0
    until = time.monotonic() + 10
    while list_group(process) and time.monotonic() < until:
        time.sleep(0.05)  # the helper of multiprocessing ends a moment later
    assert list_group(process) == []
    assert "Traceback" not in log.read_text()
