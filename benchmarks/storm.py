"""What a storm of sign-ins does to the answers that run: the gaps between their pieces, without it and in it.

    uv run benchmarks/storm.py                      a minute and a half
    uv run benchmarks/storm.py 50x20 100x20         so many streams, each of so many tokens a second

Every stream is read as programs read it, one event for each piece that was saved. The storm is twenty sign-ins a second
for ten seconds, with right and wrong passwords, which are hashed by the app; beside it a page of long Markdown is asked
for, once a second. A gap is the time between two events of one stream: a tenth of a second where nothing is late.
"""

import asyncio
import json
import re
import sys
import time
from collections.abc import Callable, Coroutine
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, TypeVar
from urllib.parse import urlencode

from servers import (
    EMAIL,
    FORM,
    PASSWORD,
    Server,
    ask,
    describe_machine,
    laboratory,
    note,
    print_table,
    serve_model,
    sign_in,
)
from streams import KINDS, Load, pick, serve_kind

API = "/api/v1/conversations"
LOADS = ("50x20",)
QUIET_SECONDS = 10
STORM_SECONDS = 10
SIGN_INS_A_SECOND = 20
SECONDS = 600  # after which something is broken


Listener = TypeVar("Listener", bound=asyncio.Protocol)


class Weather(NamedTuple):
    gaps: list[float]  # seconds, of all streams
    cpu_share: float  # of one core
    memory: float  # MB
    sign_ins: list["Reply"]


class Stream(asyncio.Protocol):
    """Notes when the pieces of one answer come."""

    def __init__(self, request: bytes) -> None:
        self.request = request
        self.pieces: list[float] = []
        self.is_over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        if b"event: piece" in data:
            self.pieces.append(time.monotonic())

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_over = True


class Reply(asyncio.Protocol):
    """One request: the status of its answer, and how long it took."""

    def __init__(self, request: bytes) -> None:
        self.request = request
        self.began = time.monotonic()
        self.status = 0
        self.seconds = 0.0
        self.is_over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        if not self.status:
            self.status = int(data.split(maxsplit=2)[1])
            self.seconds = time.monotonic() - self.began

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.is_over.done():
            self.is_over.set_result(None)


def main(folder: Path, loads: list[Load]) -> None:
    print(describe_machine())
    with serve_model(folder) as (_, llm):
        for load in loads:
            rows: dict[str, Weather] = {}
            for kind in ("SQLite", "PostgreSQL"):
                with serve_kind(KINDS[kind], folder, llm) as server:
                    note(f"{load.streams} x {load.rate}, {kind}")
                    cookie = sign_in(server)
                    page = write_long_page(server, cookie)
                    paths = [begin(server, cookie) for _ in range(load.streams)]
                    quiet, stormy = asyncio.run(measure(server, cookie, page, paths, load))
                    rows |= {f"{kind}, quiet": quiet, f"{kind}, in the storm": stormy}
            show(load, rows)


def write_long_page(server: Server, cookie: str) -> str:
    """A conversation of ten long answers. Gives the path of its page."""
    question = f"SCRIPT: text {json.dumps({'kind': 'markdown', 'count': 4000, 'rate': 20_000})}"
    headers = {"Content-Type": FORM, "Accept": "text/event-stream", "Cookie": cookie}
    path = ""
    for _ in range(10):
        url = f"{path}/messages" if path else "/chat"
        body = ask(server, "POST", url, urlencode({"text": question}).encode(), headers).body
        found = re.search(rb'"url":"[^"]*?(/chat/[^"]+)"', body)
        assert found and b'"status":"done"' in body
        path = found[1].decode()
    return path


def begin(server: Server, cookie: str) -> str:
    """Begin a conversation, and give the path of its messages."""
    body = ask(server, "POST", API, headers={"Cookie": cookie}).body
    return f"{API}/{json.loads(body)['id']}/messages"


async def measure(server: Server, cookie: str, page: str, paths: list[str], load: Load) -> tuple[Weather, Weather]:
    headers = {"Accept": "text/event-stream", "Content-Type": "application/json", "Cookie": cookie}
    streams = []
    for number, path in enumerate(paths):
        body = json.dumps({"content": write_question(load, number)})
        streams.append(await send(Stream, server, "POST", path, headers, body))
        await asyncio.sleep(load.pause)
    await asyncio.sleep(1)
    quiet = await watch(server, streams, asyncio.sleep(QUIET_SECONDS, []))
    stormy = await watch(server, streams, storm(server, cookie, page))
    if any(stream.is_over for stream in streams):
        sys.exit("An answer was over before the storm was.")
    return quiet, stormy


def write_question(load: Load, number: int) -> str:
    """For an answer that lasts as long as all that is measured, and a little more."""
    seconds = load.streams * load.pause + QUIET_SECONDS + STORM_SECONDS + 20
    options = {"kind": "prose", "count": round(seconds * load.rate), "rate": load.rate, "name": number}
    return f"SCRIPT: text {json.dumps(options)}"


async def watch(server: Server, streams: list[Stream], weather: Coroutine[None, None, list[Reply]]) -> Weather:
    for stream in streams:
        del stream.pieces[:-1]
    began, cpu = time.monotonic(), server.cpu
    sign_ins = await weather
    return Weather(
        gaps=[after - before for stream in streams for before, after in pairwise(stream.pieces)],
        cpu_share=(server.cpu - cpu) / (time.monotonic() - began),
        memory=server.memory,
        sign_ins=sign_ins,
    )


async def storm(server: Server, cookie: str, page: str) -> list[Reply]:
    sign_ins: list[Reply] = []
    pages: list[Reply] = []
    start = time.monotonic()
    for number in range(SIGN_INS_A_SECOND * STORM_SECONDS):
        await asyncio.sleep(start + number / SIGN_INS_A_SECOND - time.monotonic())
        if number % SIGN_INS_A_SECOND == 0:
            pages.append(await send(Reply, server, "GET", page, {"Accept": "text/html", "Cookie": cookie}))
        form = urlencode({"email": EMAIL, "password": PASSWORD if number % 2 else "not this one"})
        sign_ins.append(
            await send(Reply, server, "POST", "/login", {"Accept": "text/html", "Content-Type": FORM}, form)
        )
    await asyncio.gather(*(reply.is_over for reply in [*sign_ins, *pages]))
    assert {reply.status for reply in pages} == {200}
    return sign_ins


async def send(
    kind: Callable[[bytes], Listener], server: Server, method: str, path: str, headers: dict[str, str], body: str = ""
) -> Listener:
    fixed = {"Host": f"127.0.0.1:{server.port}", "Connection": "close", "Content-Length": str(len(body))}
    lines = "".join(f"{name}: {value}\r\n" for name, value in (fixed | headers).items())
    request = f"{method} {path} HTTP/1.1\r\n{lines}\r\n{body}".encode()
    loop = asyncio.get_running_loop()
    _, listener = await loop.create_connection(partial(kind, request), "127.0.0.1", server.port)
    return listener


def show(load: Load, weathers: dict[str, Weather]) -> None:
    rows = [
        [
            name,
            *(f"{1000 * pick(one.gaps, share):.0f}" for share in (0.5, 0.95, 0.99, 1)),
            f"{100 * one.cpu_share:.0f} %",
            f"{one.memory:.0f}",
            *describe_sign_ins(one.sign_ins),
        ]
        for name, one in weathers.items()
    ]
    headings = [
        "gap p50 ms",
        "p95",
        "p99",
        "worst",
        "of a core",
        "RSS MB",
        "sign-ins answered a second",
        "p50 ms",
        "p95",
    ]
    print_table([f"{load.streams} streams of {load.rate} tokens a second", *headings], rows)


def describe_sign_ins(sign_ins: list[Reply]) -> list[str]:
    if not sign_ins:
        return ["", "", ""]
    answered = [reply for reply in sign_ins if reply.status in (303, 422)]
    seconds = max(reply.began + reply.seconds for reply in sign_ins) - sign_ins[0].began
    times = [f"{1000 * pick([reply.seconds for reply in sign_ins], share):.0f}" for share in (0.5, 0.95)]
    return [f"{len(answered) / seconds:.1f}", *times]


if __name__ == "__main__":
    with laboratory(SECONDS) as place:
        main(place, [Load.read(words) for words in sys.argv[1:] or LOADS])
