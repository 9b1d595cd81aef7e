"""A transaction pooler in Python, so that whoever runs the tests has one, and can see what goes over the wire.

It does what pgbouncer does in transaction mode: lends a connection to PostgreSQL until a transaction ends, the one that
was longest idle, and refuses parameters at the start that would belong to a session. PostgreSQL must trust it.
"""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from sqlalchemy.engine import URL, make_url

from tests.postgres import show

TLS_REQUEST, GSS_REQUEST, VERSION_3 = 80877103, 80877104, 196608
ALLOWED = {"user", "database", "client_encoding", "datestyle", "timezone", "standard_conforming_strings"}
ALLOWED |= {"application_name"}
Message = tuple[bytes, bytes]


def pack(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("!I", len(content) + 4) + content


async def read(reader: asyncio.StreamReader) -> Message:
    head = await reader.readexactly(5)
    return head[:1], await reader.readexactly(struct.unpack("!I", head[1:])[0] - 4)


class Backend:
    """A connection to PostgreSQL, and what it said about itself at the start."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.greeting = b""

    async def sign_in(self, user: str, database: str) -> None:
        content = struct.pack("!I", VERSION_3) + f"user\0{user}\0database\0{database}\0\0".encode()
        self.writer.write(pack(b"", content))
        kind = b""
        while kind != b"Z":
            kind, content = await read(self.reader)
            assert kind != b"E", content
            if kind == b"S":
                self.greeting += pack(kind, content)


class MiniBouncer:
    """Remembers what its clients said: the texts of their statements, and the names under which they prepared some."""

    def __init__(self, url: URL, size: int) -> None:
        self.url = url
        self.size = size
        self.idle: asyncio.Queue[Backend] = asyncio.Queue()
        self.backends: list[Backend] = []
        self.clients: set[asyncio.Task[None]] = set()
        self.statements: list[str] = []
        self.names: list[str] = []

    async def open(self) -> None:
        for _ in range(self.size):
            path = f"{self.url.query['host']}/.s.PGSQL.5432"
            backend = Backend(*await asyncio.open_unix_connection(path))
            await backend.sign_in(str(self.url.username), str(self.url.database))
            self.backends.append(backend)
            self.idle.put_nowait(backend)

    async def close(self) -> None:
        for task in self.clients:
            task.cancel()
        await asyncio.gather(*self.clients, return_exceptions=True)
        for backend in self.backends:
            backend.writer.close()
            with suppress(ConnectionError):
                await backend.writer.wait_closed()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self.clients.add(task)
        try:
            # Cancelled is who is still there in the end; streams would log it as an error.
            with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
                if await self.greet(reader, writer):
                    while await self.run_transaction(reader, writer):
                        pass
        finally:
            writer.close()
            self.clients.discard(task)

    async def greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer the first words of a client; False where they ask for what a pooler cannot give."""
        while True:
            length, code = struct.unpack("!II", await reader.readexactly(8))
            content = await reader.readexactly(length - 8)
            if code == VERSION_3:
                break
            writer.write(b"N")  # no TLS
        names = [word.decode().lower() for word in content.split(b"\0")[:-2:2]]
        if refused := next((name for name in names if name not in ALLOWED), None):
            writer.write(pack(b"E", f"SFATAL\0C08P01\0Munsupported startup parameter: {refused}\0\0".encode()))
            return False
        backend = await self.idle.get()
        self.idle.put_nowait(backend)
        key = pack(b"K", struct.pack("!II", 1, 1))
        writer.write(pack(b"R", struct.pack("!I", 0)) + backend.greeting + key + pack(b"Z", b"I"))
        return True

    async def run_transaction(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Lend a connection from the first message on, until PostgreSQL says that no transaction is open."""
        message = await read(reader)
        if message[0] == b"X":
            return False
        backend = await self.idle.get()
        state = b""
        while state != b"I":
            while True:
                self.note(message)
                backend.writer.write(pack(*message))
                if message[0] in b"QS":  # a query or a Sync: now PostgreSQL answers up to its Z
                    break
                message = await read(reader)
            state = await self.answer(backend, writer)
            if state != b"I":
                message = await read(reader)
        self.idle.put_nowait(backend)
        return True

    async def answer(self, backend: Backend, writer: asyncio.StreamWriter) -> bytes:
        kind = content = b""
        while kind != b"Z":
            kind, content = await read(backend.reader)
            writer.write(pack(kind, content))
        await writer.drain()
        return content

    def note(self, message: Message) -> None:
        kind, content = message
        if kind == b"Q":
            self.statements.append(content.partition(b"\0")[0].decode())
        if kind == b"P":
            name, text = content.split(b"\0")[:2]
            self.statements.append(text.decode())
            self.names += [name.decode()] if name else []


@asynccontextmanager
async def minibouncer(database_url: str, size: int = 2) -> AsyncIterator[tuple[MiniBouncer, str]]:
    """Give a pooler in front of a database, and the URL of the database behind it."""
    url = make_url(database_url)
    bouncer = MiniBouncer(url, size)
    await bouncer.open()
    async with await asyncio.start_server(bouncer.serve, "127.0.0.1") as server:
        port = server.sockets[0].getsockname()[1]
        yield bouncer, show(url.set(host="127.0.0.1", port=port, query={}))
        server.close()
        await bouncer.close()
