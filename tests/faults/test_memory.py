"""A worker whose memory is too small: the kernel kills it, and its answers are like those of any dead worker."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import httpx2
import pytest

from tests.chat.reading import text_of
from tests.faults.conftest import API, Client, StartWorker, begin
from tests.faults.test_workers import LEASE_AND_MORE, follow, start_answer
from tests.services import miss

pytestmark = pytest.mark.anyio

V1 = Path("/sys/fs/cgroup/memory")
V2 = Path("/sys/fs/cgroup")
Limit = Callable[[int, int], None]


@pytest.fixture
def limit_memory() -> Iterator[Limit]:
    """Lets a process have so many bytes more than it has now; the kernel kills it at the next one."""
    folder = make_group()
    files = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.max", "memory.swap.max")

    def limit(pid: int, size: int) -> None:
        for name in files:
            if (folder / name).exists():
                (folder / name).write_text(str(size))
        (folder / "cgroup.procs").write_text(str(pid))

    yield limit
    folder.rmdir()


def make_group() -> Path:
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        miss("Only root can limit a process's memory, on Linux.")
    folder = (V1 if V1.is_dir() else V2) / f"oppkit-{uuid4().hex}"
    try:
        folder.mkdir()
    except OSError as error:
        miss(f"There is no control group for memory here: {error.strerror}.")
    if not any((folder / name).exists() for name in ("memory.limit_in_bytes", "memory.max")):
        folder.rmdir()
        miss("The control groups here do not count memory.")
    return folder


async def test_f10_a_worker_that_the_kernel_kills_leaves_what_was_shown(
    ada_anywhere: Client, limit_memory: Limit, start_worker: StartWorker
) -> None:
    first, second = start_worker(), start_worker()
    client = await ada_anywhere.at(second)
    finished = (await client.post(await begin(client), json={"content": "Who is Ada?"})).json()
    mine, shown = await start_answer(ada_anywhere, first, count=3000, rate=50)
    others, _ = await start_answer(ada_anywhere, second, count=600, rate=50)

    limit_memory(first.process.pid, 4_000_000)
    greedy = await ada_anywhere.at(first)
    with suppress(httpx2.TransportError):
        while first.process.poll() is None:
            await asyncio.gather(*(greedy.post(f"{API}/conversations", content=b" " * 900_000) for _ in range(20)))
    assert await asyncio.to_thread(first.process.wait, 10) == -signal.SIGKILL

    async with asyncio.timeout(LEASE_AND_MORE):
        events = await follow(ada_anywhere, second, mine, after=shown[-1].id)
    end = events[-1].data["message"]
    assert end["status"] == "interrupted" and end["text"] == text_of(shown) + text_of(events)
    assert (await client.get(f"{API}/messages/{finished['id']}")).json() == finished
    other = (await follow(ada_anywhere, second, others))[-1].data["message"]
    assert other["status"] == "done" and len(other["text"]) == 2400
