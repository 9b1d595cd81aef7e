"""The model of the benchmarks: tests/model_server.py, with texts as people get them from models.

SCRIPT: text {"kind": "prose", "count": 4000, "rate": 500}        chunks of four characters, so many in a second

`GET /starts` tells when each stream began that its options give a name, by the machine's monotonic clock.

One task writes for all streams and the bytes are made beforehand, so that a thousand streams cost this process
little: it shares the machine with what is measured.
"""

import asyncio
import heapq
import sys
import time
from functools import cache
from itertools import count

from texts import CHUNK_LENGTH, make_text

from tests.model_server import Connection, Json, ModelServer, make_chunk

TICK_SECONDS = 0.002


class Model(ModelServer):
    def __init__(self) -> None:
        super().__init__()
        self.due: list[tuple[float, int, Stream]] = []
        self.numbers = count()
        self.metronome: asyncio.Task[None] | None = None
        self.starts: Json = {}

    async def answer(self, connection: Connection, method: str, target: str, headers: Json, body: bytes) -> None:
        if target == "/starts":
            await connection.send_json(self.starts)
            connection.close()
        else:
            await super().answer(connection, method, target, headers, body)

    async def play_text(self, connection: Connection, request: Json, options: Json) -> None:
        await connection.begin_stream()
        stream = Stream(connection, make_chunks(options["kind"], options["count"]), options["rate"])
        self.starts[str(options.get("name"))] = stream.start
        heapq.heappush(self.due, (stream.start, next(self.numbers), stream))
        if self.metronome is None:
            self.metronome = asyncio.create_task(self.beat())
        await stream.is_over.wait()
        await connection.end_stream()

    async def beat(self) -> None:
        while True:
            now = time.monotonic()
            while self.due and self.due[0][0] <= now:
                _, number, stream = heapq.heappop(self.due)
                if next_due := stream.write(now):
                    heapq.heappush(self.due, (next_due, number, stream))
            await asyncio.sleep(TICK_SECONDS)


class Stream:
    def __init__(self, connection: Connection, chunks: list[bytes], rate: float) -> None:
        self.connection = connection
        self.chunks = chunks
        self.rate = rate
        self.start = time.monotonic()
        self.written = 0
        self.is_over = asyncio.Event()

    def write(self, now: float) -> float | None:
        """Write what is due, each chunk in a write of its own; say when the next one is, None at the end."""
        until = min(int((now - self.start) * self.rate) + 1, len(self.chunks))
        for chunk in self.chunks[self.written : until]:
            self.connection.writer.write(chunk)
        self.written = until
        if until < len(self.chunks):
            return max(self.start + until / self.rate, now + TICK_SECONDS / 2)  # floats may round down to now
        self.is_over.set()
        return None


@cache
def make_chunks(kind: str, count: int) -> list[bytes]:
    text = make_text(kind, count * CHUNK_LENGTH)
    request = {"model": "scripted"}
    deltas = [{"content": text[place : place + CHUNK_LENGTH]} for place in range(0, len(text), CHUNK_LENGTH)]
    events = [Connection.encode_event(make_chunk(request, delta)) for delta in deltas]
    end = Connection.encode_event(make_chunk(request, {}, "stop")) + Connection.encode_data(b"data: [DONE]\n\n")
    return [*events, end]


async def main() -> None:
    server = await asyncio.start_server(Model().serve, "127.0.0.1", 0, backlog=2048)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    # Whoever started this may be killed; the end of its pipe is what it leaves behind.
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)


if __name__ == "__main__":
    asyncio.run(main())
