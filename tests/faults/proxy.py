"""Stands between the app and PostgreSQL, and cuts the connection or falls silent where a test says so."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

from sqlalchemy.engine import URL, make_url

COMMIT = b"COMMIT\0"  # as the app sends it, and as PostgreSQL confirms it
Cut = Literal["before", "after"]


class Proxy:
    def __init__(self, url: URL) -> None:
        host = str(url.query.get("host") or url.host)
        self.target = host if host.startswith("/") else (host, url.port or 5432)
        self.cut: Cut | None = None
        self.marker = b""
        self.has_cut = asyncio.Event()
        self.freezing = b""
        self.thawed = asyncio.Event()
        self.thawed.set()
        self.links: set[Link] = set()

    def cut_at_commit(self, cut: Cut, marker: str) -> None:
        """Cut, once, in the transaction with these words in a statement: before its COMMIT, or after it unconfirmed."""
        self.cut, self.marker = cut, marker.encode()
        self.has_cut.clear()

    def freeze(self) -> None:
        """Take connections and what they say, and never answer, as a frozen server does."""
        self.thawed.clear()

    def freeze_at(self, marker: str) -> None:
        """Freeze when a statement with these words comes."""
        self.freezing = marker.encode()

    def thaw(self) -> None:
        self.freezing = b""
        self.thawed.set()

    def cut_all(self) -> int:
        """Cut every connection that there is at this moment, and say how many they were."""
        links = list(self.links)
        for link in links:
            link.close()
        return len(links)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if isinstance(self.target, str):
            upstream = await asyncio.open_unix_connection(f"{self.target}/.s.PGSQL.5432")
        else:
            upstream = await asyncio.open_connection(*self.target)
        link = Link(self, writer, upstream[1])
        self.links.add(link)
        await asyncio.gather(link.send(reader), link.receive(upstream[0]))
        self.links.discard(link)


class Link:
    """One connection of the app, and the one to PostgreSQL behind it."""

    def __init__(self, proxy: Proxy, app: asyncio.StreamWriter, postgres: asyncio.StreamWriter) -> None:
        self.proxy = proxy
        self.app = app
        self.postgres = postgres
        self.is_marked = False

    async def send(self, reader: asyncio.StreamReader) -> None:
        while data := await read(reader):
            if self.proxy.freezing and self.proxy.freezing in data:
                self.proxy.freeze()
            if self.proxy.cut and self.proxy.marker in data:
                self.is_marked = True
            if self.is_marked and self.proxy.cut == "before" and COMMIT in data:
                self.note_cut()
                break
            self.postgres.write(data)
        self.close()

    async def receive(self, reader: asyncio.StreamReader) -> None:
        while data := await read(reader):
            await self.proxy.thawed.wait()
            if self.is_marked and self.proxy.cut == "after" and COMMIT in data:
                self.note_cut()
                break
            self.app.write(data)
        self.close()

    def note_cut(self) -> None:
        self.proxy.cut = None
        self.proxy.has_cut.set()

    def close(self) -> None:
        self.app.transport.abort()
        self.postgres.transport.abort()


async def read(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(65_536)
    except ConnectionError:
        return b""


@asynccontextmanager
async def postgres_proxy(database_url: str) -> AsyncIterator[tuple[Proxy, str]]:
    """Give a proxy, and the URL of the database through it."""
    url = make_url(database_url)
    proxy = Proxy(url)
    async with await asyncio.start_server(proxy.serve, "127.0.0.1") as server:
        port = server.sockets[0].getsockname()[1]
        through = url.set(host="127.0.0.1", port=port).difference_update_query(["host"])
        yield proxy, through.render_as_string(hide_password=False)
        server.close()
        proxy.thaw()
        proxy.cut_all()
