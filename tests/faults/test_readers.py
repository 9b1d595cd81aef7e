"""Readers that are slow, that are gone, or that have no right to read any more. Names as in the fault table."""

import asyncio
import json
import os
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest
from sqlalchemy import func
from sqlmodel import select

from app.auth import service as people
from app.chat.models import Message
from app.llm.scripted import ScriptedModel
from app.management import protocol
from app.storage import NoStorage
from tests.chat.reading import JSON, asking, follow, text_of, wait_until_ended
from tests.conftest import MakeSite, Person, Site
from tests.faults.conftest import API, begin
from tests.faults.processes import needs_linux, read_memory

pytestmark = pytest.mark.anyio

LONG = "".join(f"{number:07d}: 漢字仮名交じり文\n" for number in range(10_000))  # 180,000 characters, 340,000 bytes
LITTLE = 20  # MB for fifty readers


async def ask(ada: Person, asked: str = "All of it") -> str:
    """Ask, and give the path of the answer, which has ended."""
    path = await begin(ada.browser)
    return f"{API}/messages/{(await ada.post(path, json={'content': asked}, headers=JSON)).json()['id']}"


class LazyReader:
    """A raw connection with a tiny window, which takes only what it is told to take."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection

    @classmethod
    async def open(cls, site: Site, person: Person, path: str) -> "LazyReader":
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.setblocking(False)
        host, port = site.url.removeprefix("http://").split(":")
        loop = asyncio.get_running_loop()
        await loop.sock_connect(connection, (host, int(port)))
        cookie = person.browser.cookies["session"]
        lines = (
            f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nAccept: text/event-stream\r\nCookie: session={cookie}\r\n"
        )
        await loop.sock_sendall(connection, f"{lines}\r\n".encode())
        return cls(connection)

    async def take(self, count: int) -> bytes:
        """Empty at the end; an error where the server has hung up."""
        return await asyncio.get_running_loop().sock_recv(self.connection, count)


@asynccontextmanager
async def lazy_readers(site: Site, person: Person, path: str, count: int) -> AsyncIterator[list[LazyReader]]:
    readers = [await LazyReader.open(site, person, path) for _ in range(count)]
    yield readers
    for reader in readers:
        reader.connection.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 (what is waited for is seen from outside)
            await asyncio.sleep(0.02)


def parse_pieces(received: bytes) -> list[tuple[int, str]]:
    """Give the id and the text of each piece that came whole."""
    found = re.findall(rb"id: (\d+)\nevent: piece\ndata: (.*)\n\n", received)
    return [(int(sequence), json.loads(data)["text"]) for sequence, data in found]


@needs_linux
async def test_f28_readers_that_never_read_cost_little_and_are_dropped(
    make_site: MakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "READER_SECONDS", 2.0)
    site: Site = await make_site(ScriptedModel(LONG))
    ada = await site.person("ada")
    path = await ask(ada) + "/events"
    await follow(ada, path)
    before = read_memory(os.getpid())
    async with lazy_readers(site, ada, path, 50) as readers:
        streams = site.app.state.session_watch.streams
        await until(lambda: len(streams) == 50)
        events = await follow(ada, path)
        assert text_of(events) == LONG  # others go on as ever
        assert read_memory(os.getpid()) - before < LITTLE
        await until(lambda: not streams)

        received = b""
        with suppress(ConnectionResetError):
            while data := await readers[0].take(65_536):
                received += data
    pieces = parse_pieces(received)
    assert 0 < pieces[-1][0] < len(LONG)
    rest = await follow(ada, path, after=pieces[-1][0])
    assert "".join(text for _, text in pieces) + text_of(rest) == LONG


async def test_f28_a_reader_who_takes_drops_is_dropped(make_site: MakeSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "READER_SECONDS", 1.0)
    site: Site = await make_site(ScriptedModel(LONG))
    ada = await site.person("ada")
    path = await ask(ada) + "/events"
    streams = site.app.state.session_watch.streams
    async with lazy_readers(site, ada, path, 1) as [reader]:
        await until(lambda: len(streams) == 1)
        async with asyncio.timeout(10):
            while streams:
                await reader.take(1)
                await asyncio.sleep(0.05)


async def test_f38_who_signs_out_reads_no_further_and_the_answer_goes_on(make_site: MakeSite) -> None:
    gate = asyncio.Event()
    site: Site = await make_site(ScriptedModel("First. ", gate, "Second."))
    ada = await site.person("ada")
    async with asking(ada, "/chat") as events:
        opened = (await anext(events)).data
        await ada.post("/logout")
        async with asyncio.timeout(10):
            names = [event.name async for event in events]
    assert names == ["patch", "closed"]
    gate.set()
    async with site.session() as session:
        token, _ = await people.create_token(session, ada.user.id, "session")
    ada.browser.cookies.set("session", token)
    assert (await wait_until_ended(ada, opened["id"].removeprefix("message-")))["text"] == "First. Second."


async def test_f38_of_a_deleted_account_nothing_comes_back(make_site: MakeSite) -> None:
    gate = asyncio.Event()
    site: Site = await make_site(ScriptedModel("First. ", gate, "Second."))
    ada, grace = await site.person("ada"), await site.person("grace", is_staff=True, is_superuser=True)
    async with asking(ada, "/chat") as events:
        await anext(events)
        async with site.session() as session:
            await people.delete_user(session, NoStorage(""), grace.user, ada.user)
        async with asyncio.timeout(10):
            last = [event async for event in events][-1]
    assert (last.name, last.data) == ("closed", {"reason": "signed_out"}) or last.data["status"] == "deleted"
    gate.set()
    await until(lambda: not site.app.state.answers.running)
    async with site.session() as session:
        assert (await session.exec(select(func.count()).select_from(Message))).one() == 0
