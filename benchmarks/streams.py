"""What many answers at once cost, and how late they come: the app on SQLite and on PostgreSQL, and the bare app.

    uv run benchmarks/streams.py                    about fifteen minutes
    uv run benchmarks/streams.py 100x50 300x20      so many streams, each of so many tokens a second

Every stream is a chat page of its own: a question is posted, and the answer read to its end. A token is a chunk of
four characters. Counted is the processor time of the app alone, while all streams run, and the delay of each frame:
from the moment when its oldest token left the model to the moment when the reader has it.
"""

import asyncio
import json
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

from servers import (
    FORM,
    ROOT,
    Server,
    ask,
    describe_machine,
    environment,
    laboratory,
    note,
    prepare_site,
    print_table,
    serve_app,
    serve_bare,
    serve_model,
    sign_in,
)
from texts import CHUNK_LENGTH

sys.path.insert(0, str(ROOT))
from tests.postgres import postgres_databases

KINDS = {"the bare app": "bare", "SQLite": "sqlite", "PostgreSQL": "postgresql"}
LOADS = ("50x50", "100x50", "200x50", "1000x20")
SECONDS_AT_FULL_LOAD = 10
SECONDS_TO_START = 8  # for each hundred of them: a start costs as much as some seconds of an answer
SECONDS = 1500  # after which something is broken
PROGRESS = re.compile(rb"id: (\d+)\nevent: patch\n")
DONE = re.compile(rb'"status":"(\w+)"')


class Load(NamedTuple):
    streams: int
    rate: int

    @classmethod
    def read(cls, words: str) -> "Load":
        streams, _, rate = words.partition("x")
        return cls(int(streams), int(rate))

    @property
    def chunks(self) -> int:
        """Of one answer: long enough for all of them to run at the same time for a while."""
        return round((SECONDS_AT_FULL_LOAD + 2 + self.streams * self.pause) * self.rate)

    @property
    def pause(self) -> float:
        """Between two starts, in seconds."""
        return SECONDS_TO_START / 100

    def write_question(self, number: int) -> str:
        options = {"kind": "markdown", "count": self.chunks, "rate": self.rate, "name": number}
        return f"SCRIPT: text {json.dumps(options)}"


class Reader(asyncio.Protocol):
    """Notes when how much of an answer was there. It must cost little: it runs beside what is measured."""

    def __init__(self, request: bytes, is_bare: bool) -> None:
        self.request = request
        self.is_bare = is_bare
        self.asked_at = 0.0
        self.frames: list[tuple[float, int]] = []  # when, and how many characters there were then
        self.length = 0
        self.rest = b""
        self.status = "cut off"
        self.size = 0
        self.is_over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.asked_at = time.monotonic()
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        self.size += len(data)
        if self.is_bare:
            length = self.length + CHUNK_LENGTH * data.count(b"data: ")
        else:
            seen = self.rest + data
            self.rest = seen[-64:]
            length = max((int(found[1]) for found in PROGRESS.finditer(seen)), default=0)
            if b"event: done" in seen and (found := DONE.search(seen, seen.index(b"event: done"))):
                self.status = found[1].decode()
        if length > self.length:
            self.length = length
            self.frames.append((now, length))

    def is_whole(self, length: int) -> bool:
        return self.length >= length if self.is_bare else (self.length, self.status) == (length, "done")

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.is_over.done():
            self.is_over.set_result(None)


class Sample(NamedTuple):
    at: float
    cpu: float
    memory: float  # MB


class Result(NamedTuple):
    cpu_share: float  # of one core
    cpu_per_token: float  # microseconds
    frames: float  # a second and stream
    first: list[float]  # seconds from the question to the first words
    delays: list[float]  # seconds, of every frame
    memory: float  # MB
    memory_per_stream: float  # KB
    whole: int  # answers that came to their end with all of their text


def main(folder: Path, loads: list[Load]) -> None:
    print(describe_machine())
    with serve_model(folder) as (model, llm):
        for load in loads:
            rows: dict[str, Result] = {}
            for name, kind in KINDS.items():
                with serve_kind(kind, folder, llm) as server:
                    note(f"{load.streams} x {load.rate}, {name}")
                    rows[name] = asyncio.run(measure(server, model, load, is_bare=kind == "bare"))
            show(load, rows)


@contextmanager
def serve_kind(kind: str, folder: Path, llm: dict[str, str]) -> Iterator[Server]:
    if kind == "bare":
        with serve_bare(folder, llm) as server:
            yield server
    elif kind == "sqlite":
        url = f"sqlite:///{folder / f'{time.monotonic_ns()}.sqlite3'}"
        with serve_site(environment(folder, DATABASE_URL=url, **llm)) as server:
            yield server
    else:
        with (
            postgres_databases() as postgres,
            serve_site(environment(folder, DATABASE_URL=postgres.template_url, **llm)) as server,
        ):
            yield server


@contextmanager
def serve_site(env: dict[str, str]) -> Iterator[Server]:
    prepare_site(env)
    with serve_app(env, "--noreload") as server:
        yield server


async def measure(server: Server, model: Server, load: Load, *, is_bare: bool) -> Result:
    cookie = "" if is_bare else sign_in(server)
    await read_all(server, cookie, Load(2, 50), is_bare)  # what only the first questions pay is not the subject
    samples = [take_sample(server)]
    sampling = asyncio.create_task(keep_sampling(server, samples))
    readers = await read_all(server, cookie, load, is_bare)
    sampling.cancel()
    starts = json.loads(ask(model, "GET", "/starts").body)
    begins = [starts[str(number)] for number in range(load.streams)]
    begin, end = max(begins) + 0.5, min(begins) + load.chunks / load.rate - 0.2
    inside = [sample for sample in samples if begin < sample.at < end]
    if len(inside) < 5:
        sys.exit("So many streams never ran at the same time: the first had ended before the last had begun.")
    seconds, cpu = inside[-1].at - inside[0].at, inside[-1].cpu - inside[0].cpu
    memory = max(sample.memory for sample in inside)
    return Result(
        cpu_share=cpu / seconds,
        cpu_per_token=1_000_000 * cpu / seconds / load.streams / load.rate,
        frames=sum(begin < at < end for reader in readers for at, _ in reader.frames) / (end - begin) / load.streams,
        first=[reader.frames[0][0] - reader.asked_at for reader in readers if reader.frames],
        delays=[
            delay
            for number, reader in enumerate(readers)
            for delay in list_delays(reader, starts[str(number)], load.rate)
        ],
        memory=memory,
        memory_per_stream=1000 * (memory - samples[0].memory) / load.streams,
        whole=sum(reader.is_whole(load.chunks * CHUNK_LENGTH) for reader in readers),
    )


async def read_all(server: Server, cookie: str, load: Load, is_bare: bool) -> list[Reader]:
    loop = asyncio.get_running_loop()
    readers = []
    start = time.monotonic()
    for number in range(load.streams):
        await asyncio.sleep(start + number * load.pause - time.monotonic())
        request = write_request(server, cookie, load.write_question(number), is_bare)
        _, reader = await loop.create_connection(partial(Reader, request, is_bare), "127.0.0.1", server.port)
        readers.append(reader)
    await asyncio.gather(*(reader.is_over for reader in readers))
    return readers


def write_request(server: Server, cookie: str, question: str, is_bare: bool) -> bytes:
    body = (question if is_bare else urlencode({"text": question})).encode()
    headers = {
        "Host": f"127.0.0.1:{server.port}",
        "Connection": "close",
        "Content-Length": len(body),
        "Content-Type": FORM,
        "Accept": "text/event-stream",
        "Cookie": cookie,
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST {'/' if is_bare else '/chat'} HTTP/1.1\r\n{lines}\r\n".encode() + body


async def keep_sampling(server: Server, samples: list[Sample]) -> None:
    while True:
        await asyncio.sleep(0.1)
        samples.append(take_sample(server))


def take_sample(server: Server) -> Sample:
    return Sample(time.monotonic(), server.cpu, server.memory)


def list_delays(reader: Reader, start: float, rate: int) -> Iterator[float]:
    """Of each frame: how long its oldest token had been on its way."""
    before = 0
    for at, length in reader.frames:
        yield at - (start + before // CHUNK_LENGTH / rate)
        before = length


def show(load: Load, results: dict[str, Result]) -> None:
    bare = results["the bare app"]
    rows = [
        [
            name,
            f"{100 * one.cpu_share:.0f} %",
            f"{one.cpu_per_token:.0f}",
            f"{one.cpu_per_token / bare.cpu_per_token:.2f}",
            f"{one.frames:.1f}",
            *(f"{1000 * pick(one.first, share):.0f}" for share in (0.5, 0.95)),
            *(f"{1000 * pick(one.delays, share):.0f}" for share in (0.5, 0.95, 0.99, 1)),
            f"{one.memory:.0f}",
            f"{one.memory_per_stream:.0f}",
            f"{one.whole} of {load.streams}",
        ]
        for name, one in results.items()
    ]
    headings = ["of a core", "µs a token", "/ bare", "frames / s", "first words p50 ms", "p95", "delay p50 ms", "p95"]
    headings += ["p99", "worst", "RSS MB", "KB a stream", "whole"]
    print_table([f"{load.streams} streams of {load.rate} tokens a second", *headings], rows)


def pick(values: list[float], share: float) -> float:
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]


if __name__ == "__main__":
    with laboratory(SECONDS) as place:
        main(place, [Load.read(words) for words in sys.argv[1:] or LOADS])
