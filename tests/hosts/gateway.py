"""The door of such a host: wakes instances, says for whom it asks, and cuts what is too large or too long."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import cycle

from tests.hosts.instance import Instance

HEAD_LENGTH = 65_536
REPLACED = ("connection", "host", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-for")


class Gateway:
    """Each request comes to the next instance, over a connection of its own."""

    def __init__(self, *instances: Instance) -> None:
        self.instances = cycle(instances)
        self.url = ""
        self.body_length = 100 << 20
        self.response_length = 5 << 20
        self.request_seconds = 900.0
        self.keeps_back = False  # gives a response only once it is whole: the worst that gateways do
        self.cuts = 0
        self.tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self.tasks.add(task)
        # A browser opens connections that it does not need, and leaves others.
        with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            await self.answer(reader, writer)
            await writer.drain()
        await close(writer)
        self.tasks.discard(task)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
        headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        length = int(dict(headers).get("content-length", 0))
        if length > self.body_length:
            writer.write(b"HTTP/1.1 413 Payload Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        body = await reader.readexactly(length)
        async with next(self.instances).awake() as port:
            await self.pass_on(port, f"{first}\r\n{forward(headers)}\r\n".encode("latin-1") + body, reader, writer)

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def pass_on(
        self, port: int, request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Ask the instance, until it has said all, a limit is reached, or who asked has left."""
        answers, upstream = await asyncio.open_connection("127.0.0.1", port, limit=HEAD_LENGTH)
        upstream.write(request)
        try:
            await self.carry(answers, reader, writer)
        finally:
            await close(upstream)

    async def carry(
        self, answers: asyncio.StreamReader, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        copying = asyncio.ensure_future(self.copy(answers, writer))
        leaving = asyncio.ensure_future(reader.read())
        try:
            done, _ = await asyncio.wait(
                {copying, leaving}, timeout=self.request_seconds, return_when=asyncio.FIRST_COMPLETED
            )
            self.cuts += not done
        finally:
            for task in (copying, leaving):
                task.cancel()
            await asyncio.gather(copying, leaving, return_exceptions=True)

    async def copy(self, answers: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length, kept = 0, bytearray()
        while data := await answers.read(65_536):
            length += len(data)
            if length > self.response_length:
                writer.write(data[: self.response_length - length])
                self.cuts += 1
                return
            if self.keeps_back:
                kept += data
            else:
                writer.write(data)
                await writer.drain()
        writer.write(kept)


def forward(headers: list[tuple[str, str]]) -> str:
    """Say for whom this is asked. What the client has made up stays, on the left."""
    told = dict(headers)
    address = ", ".join(filter(None, (told.get("x-forwarded-for"), "203.0.113.7")))
    own = {
        "Host": told.get("host", ""),
        "X-Forwarded-Host": told.get("host", ""),
        "X-Forwarded-Proto": "https",
        "X-Forwarded-For": address,
        "Connection": "close",
    }
    kept = [(name, value) for name, value in headers if name not in REPLACED]
    return "".join(f"{name}: {value}\r\n" for name, value in (*own.items(), *kept))


@asynccontextmanager
async def open_gateway(*instances: Instance) -> AsyncIterator[Gateway]:
    gateway = Gateway(*instances)
    async with await asyncio.start_server(gateway.serve, "127.0.0.1", 0, limit=HEAD_LENGTH) as server:
        gateway.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield gateway
        finally:
            server.close()
            await gateway.close()


async def close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionError, asyncio.CancelledError):
        await writer.wait_closed()
