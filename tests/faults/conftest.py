"""Several real servers on one database, in processes that can be killed and frozen. Their model is a process, too."""

import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from threading import Thread
from typing import Any

import httpx2
import pytest
from pydantic import SecretStr

from app.auth import service
from app.auth.models import User
from app.database import Database
from app.settings import ROOT, Settings
from tests.conftest import known_hash
from tests.management.conftest import clean_environment
from tests.provider import Provider
from tests.services import miss

API = "/api/v1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/faults" in item.nodeid and "test_table" not in item.nodeid:
            item.add_marker(pytest.mark.slow)


class Worker:
    """A server in its own process, and what it logged."""

    def __init__(self, flags: tuple[str, ...], environment: dict[str, str], log: Path, folder: Path = ROOT) -> None:
        self.log = log
        with log.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "oppman.py", "runserver", "--noreload", *flags, "127.0.0.1:0"],
                cwd=folder,
                env=clean_environment(PYTHONUNBUFFERED="1", **environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
                start_new_session=True,
            )
        assert self.process.stdout
        lines = iter(self.process.stdout.readline, "")
        self.url = next(found[1] for line in lines if (found := re.search(r"(http://127\.0\.0\.1:\d+)/", line)))
        # Each request is a line; once nobody reads them and the pipe is full, the worker would wait for ever.
        self.reader = Thread(target=self.process.stdout.read)
        self.reader.start()

    def send(self, signum: int) -> None:
        self.process.send_signal(signum)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.reader.join()
        if self.process.stdout:
            self.process.stdout.close()


StartWorker = Callable[..., Worker]


@pytest.fixture
def start_worker(database_url: str, provider: Provider, tmp_path: Path) -> Iterator[StartWorker]:
    """Starts one more worker on the test's database: `a, b = start_worker(), start_worker()`."""
    workers: list[Worker] = []
    llm = {"LLM_BASE_URL": f"{provider.url}/v1", "LLM_MODEL": provider.model_name, "LOCAL_LLM": "off"}

    def start(*flags: str, **environment: str) -> Worker:
        environment = {"DATABASE_URL": database_url, **llm, **environment}
        worker = Worker(flags, environment, tmp_path / f"worker{len(workers)}.log")
        workers.append(worker)
        return worker

    yield start
    for worker in workers:
        worker.end()


class Client:
    """Ada's program, which can talk to any worker."""

    def __init__(self, token: str, stack: AsyncExitStack) -> None:
        self.token = token
        self.stack = stack

    async def at(self, worker: Worker) -> httpx2.AsyncClient:
        headers = {"Authorization": f"Bearer {self.token}", "Accept": "application/json"}
        browser = httpx2.AsyncClient(base_url=worker.url, timeout=60, headers=headers, verify=False)
        return await self.stack.enter_async_context(browser)


@pytest.fixture
async def ada_anywhere(database_url: str) -> AsyncIterator[Client]:
    database = Database(Settings(database_url=SecretStr(database_url)))
    async with AsyncExitStack() as stack:
        async with database.session() as session:
            user = User(email="ada@example.org", hashed_password=await known_hash())
            session.add(user)
            await session.commit()
            token, _ = await service.create_token(session, user.id, "api")
        await database.close()
        yield Client(token, stack)


async def begin(client: httpx2.AsyncClient) -> str:
    """Begin a conversation, and give the path of its messages."""
    return f"{API}/conversations/{(await client.post(f'{API}/conversations')).json()['id']}/messages"


def script(**options: Any) -> dict[str, str]:
    """A question that tells the model what to say: chunks of four characters, so many, so many in a second."""
    return {"content": f"SCRIPT: answer {json.dumps(options)}"}


needs_posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of eight megabytes: SQLite writes four before it tidies its log up."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        miss("Only root can mount a small disk, on Linux.")
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if (mounted := subprocess.run(command, capture_output=True, text=True)).returncode:
        miss(f"No small disk can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)
