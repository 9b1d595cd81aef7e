"""Connections that say nothing, or say it so slowly that they could fill the server."""

import asyncio
import time
from contextlib import AsyncExitStack, closing
from urllib.parse import urlsplit

import httpx2
import pytest

from tests.faults.conftest import Client, StartWorker, Worker

pytestmark = pytest.mark.anyio

HEADERS_IN = 30  # seconds; a server that waits longer for headers can be filled by anybody
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connect(worker: Worker, stack: AsyncExitStack, sent: bytes) -> Connection:
    address = urlsplit(worker.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    stack.enter_context(closing(writer))
    writer.write(sent)
    return reader, writer


async def test_f29_idle_and_slow_connections_keep_nobody_out(ada_anywhere: Client, start_worker: StartWorker) -> None:
    worker = start_worker()
    client = await ada_anywhere.at(worker)
    assert (await client.get("/chat")).status_code == 200
    async with AsyncExitStack() as stack:
        idle = [await connect(worker, stack, b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n") for _ in range(200)]
        for reader, _ in idle:
            assert await reader.readuntil(b"\r\n\r\n")
        slow = [await connect(worker, stack, b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n") for _ in range(49)]
        slow.append(await connect(worker, stack, b""))
        dripping = asyncio.create_task(drip(slow))

        seconds = [await time_request(worker, ada_anywhere) for _ in range(60)]
        assert sorted(seconds)[int(0.95 * len(seconds))] < 1

        async with asyncio.timeout(HEADERS_IN):
            for reader, _ in [*idle, *slow]:
                await read_to_end(reader)
        dripping.cancel()
    assert (await client.get("/chat")).status_code == 200
    assert "Traceback" not in worker.log.read_text()


async def time_request(worker: Worker, ada: Client) -> float:
    """With a connection of its own, as somebody who comes anew."""
    headers = {"Authorization": f"Bearer {ada.token}"}
    async with httpx2.AsyncClient(base_url=worker.url, headers=headers, verify=False) as newcomer:
        began = time.monotonic()
        assert (await newcomer.get("/chat")).status_code == 200
        return time.monotonic() - began


async def drip(slow: list[Connection]) -> None:
    """One more header now and then, as slowloris does: a limit for silence alone would never be reached."""
    while True:
        for _, writer in slow[:-1]:
            writer.write(b"X-Slow: 1\r\n")
        await asyncio.sleep(0.5)


async def read_to_end(reader: asyncio.StreamReader) -> None:
    try:
        while await reader.read(65_536):
            pass
    except ConnectionError:
        pass
