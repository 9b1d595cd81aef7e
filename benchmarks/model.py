"""The model of the benchmarks: tests/model_server.py, with texts as people get them from models.

SCRIPT: text {"kind": "prose", "count": 4000, "rate": 500}        chunks of four characters, so many in a second
"""

import asyncio
import sys
import time

from texts import CHUNK_LENGTH, make_text

from tests.model_server import Connection, Json, ModelServer, make_chunk


class Model(ModelServer):
    async def play_text(self, connection: Connection, request: Json, options: Json) -> None:
        text = make_text(options["kind"], options["count"] * CHUNK_LENGTH)
        await connection.begin_stream()
        start = time.monotonic()
        for number in range(options["count"]):
            await asyncio.sleep(max(start + number / options["rate"] - time.monotonic(), 0))
            place = number * CHUNK_LENGTH
            await connection.send_event(make_chunk(request, {"content": text[place : place + CHUNK_LENGTH]}))
        await connection.send_event(make_chunk(request, {}, "stop"))
        await connection.send_data(b"data: [DONE]\n\n")
        await connection.end_stream()


async def main() -> None:
    server = await asyncio.start_server(Model().serve, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    # Whoever started this may be killed; the end of its pipe is what it leaves behind.
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)


if __name__ == "__main__":
    asyncio.run(main())
