"""A server that speaks OpenAI's chat completions and says what it is told to, for tests and benchmarks.

    python tests/model_server.py --port 0          prints its address on the first line

What happens is chosen by the last message, or else by the name of the model:

    SCRIPT: answer {"pieces": ["Hello ", "Ada."], "finish": "stop"}
    SCRIPT: answer {"count": 4000, "rate": 500}         chunks of four characters, so many in a second (0: at once)
    SCRIPT: 401                                         any status; {"body": ..., "headers": ..., "times": ...}
    SCRIPT: raw {"body": "data: ..."}                   these bytes; "latin1" for any byte, "step": bytes per write
    SCRIPT: cut | reset | hang | silent | mute | flood | html | empty | json | gate

Anything else is answered with «Hello Ada.». `times` lets only the first so many requests of a model name fail.
GET /log shows what was asked and whether the client hung up; GET /log?model=NAME only that of one model;
GET /release?model=NAME lets a `gate` go on. GET /v1/models lists two models, and /401/v1/models answers that status.
"""

import argparse
import asyncio
import contextlib
import json
import os
import socket
import stat
import struct
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Coroutine
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlsplit

Json = dict[str, Any]
MODELS = ("wise", "small:latest")
CONTENT_TYPE = "text/event-stream; charset=utf-8"


class HungUpError(Exception):
    """The client has closed its end."""


class ModelServer:
    def __init__(self) -> None:
        self.log: list[Json] = []
        self.asked: Counter[str] = Counter()
        self.gates: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.changed = asyncio.Condition()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(reader, writer)
        try:
            while request := await connection.read_request():
                await self.answer(connection, *request)
        except (HungUpError, ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            connection.close()

    async def answer(self, connection: "Connection", method: str, target: str, headers: Json, body: bytes) -> None:
        query = {name: values[-1] for name, values in parse_qs(urlsplit(target).query).items()}
        match method, urlsplit(target).path:
            case "GET", "/log":
                await connection.send_json(await self.read_log(query))
            case "GET", "/release":
                self.gates[query["model"]].set()
                await connection.send_json({})
            case "GET", path if path.endswith("/v1/models"):
                status = path.split("/")[1]
                if status != "v1":
                    await connection.send_status(int(status), {"body": "<html>"} if status == "200" else {})
                else:
                    names = [{"id": name, "object": "model"} for name in MODELS]
                    await connection.send_json({"object": "list", "data": names})
            case "POST", path if path.endswith("/chat/completions"):
                await self.complete(connection, headers, json.loads(body))
            case _:
                await connection.send_json({"detail": "Not Found"}, status=404)

    async def read_log(self, query: Json) -> Json:
        """With `until=hung_up` the answer waits until that has happened, so that no test has to guess a time."""

        def find() -> list[Json]:
            return [entry for entry in self.log if query.get("model") in (None, entry["model"])]

        if "until" in query:
            async with self.changed:
                has_happened = self.changed.wait_for(lambda: any(entry[query["until"]] for entry in find()))
                await asyncio.wait_for(has_happened, 5)
        entries = find()
        return {
            "requests": len(entries),
            "hung_up": sum(entry["hung_up"] for entry in entries),
            "finished": sum(entry["finished"] for entry in entries),
            "connections": len({entry["connection"] for entry in entries}),
            "entries": entries,
        }

    async def complete(self, connection: "Connection", headers: Json, request: Json) -> None:
        entry = {
            "model": request["model"],
            "request": request,
            "headers": headers,
            "connection": connection.number,
            "begun": False,
            "hung_up": False,
            "finished": False,
        }
        self.log.append(entry)
        self.asked[request["model"]] += 1
        await self.note(entry, "begun")
        try:
            await connection.run_until_hung_up(self.play(connection, request))
            await self.note(entry, "finished")
        except (HungUpError, ConnectionError):
            await self.note(entry, "hung_up")
            raise

    async def note(self, entry: Json, what: str) -> None:
        async with self.changed:
            entry[what] = True
            self.changed.notify_all()

    async def play(self, connection: "Connection", request: Json) -> None:
        name, options = read_script(request)
        if self.asked[request["model"]] > options.get("times", 1_000_000):
            name, options = "answer", {}
        if refused := set(options.get("refuses", ())) & set(request):
            word = refused.pop()
            await connection.send_json({"error": {"message": options["message"], "param": word}}, status=400)
        elif name.isdecimal():
            await connection.send_status(int(name), options)
        else:
            await getattr(self, f"play_{name}")(connection, request, options)

    async def play_answer(self, connection: "Connection", request: Json, options: Json) -> None:
        await connection.begin_stream()
        await connection.send_event(make_chunk(request, {"role": "assistant", "content": ""}))
        if "count" in options:
            await send_at_rate(connection, request, options["count"], options.get("rate", 0))
        else:
            for piece in options.get("pieces", ["Hello ", "Ada."]):
                await connection.send_event(make_chunk(request, {"content": piece}))
        await connection.send_event(make_chunk(request, {}, options.get("finish", "stop")))
        if request.get("stream_options", {}).get("include_usage"):
            usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
            await connection.send_event(make_chunk(request, None) | {"choices": [], "usage": usage})
        await connection.send_data(b"data: [DONE]\n\n")
        await connection.end_stream()

    async def play_raw(self, connection: "Connection", request: Json, options: Json) -> None:
        """Exactly these bytes. `step` cuts them into writes of so many bytes, `end` says how the connection ends."""
        body = options["body"].encode("latin1" if options.get("latin1") else "utf-8", "surrogatepass")
        body *= options.get("repeat", 1)
        step = options.get("step") or len(body) or 1
        await connection.begin_stream()
        for start in range(0, len(body), step):
            await connection.send_data(body[start : start + step])
        match options.get("end"):
            case "cut":
                connection.close()
            case "reset":
                connection.reset()
            case "hang":
                await connection.hang()
            case _:
                await connection.end_stream()

    async def play_cut(self, connection: "Connection", request: Json, options: Json) -> None:
        await self.begin_answer(connection, request)
        connection.close()

    async def play_reset(self, connection: "Connection", request: Json, options: Json) -> None:
        await self.begin_answer(connection, request)
        connection.reset()

    async def play_hang(self, connection: "Connection", request: Json, options: Json) -> None:
        """Half an answer, and then signs of life but no word."""
        await self.begin_answer(connection, request)
        await keep_alive(connection)

    async def play_silent(self, connection: "Connection", request: Json, options: Json) -> None:
        """An answer begins, but only the connection is kept alive."""
        await connection.begin_stream()
        await connection.send_event(make_chunk(request, {"role": "assistant", "content": ""}))
        await keep_alive(connection)

    async def play_mute(self, connection: "Connection", request: Json, options: Json) -> None:
        """Not even a status."""
        await connection.hang()

    async def play_hangup(self, connection: "Connection", request: Json, options: Json) -> None:
        """The connection ends before there was a status."""
        connection.close()

    async def play_flood(self, connection: "Connection", request: Json, options: Json) -> None:
        await connection.begin_stream()
        line = f"data: {json.dumps(make_chunk(request, {'content': 'more '}))}\n\n".encode()
        while True:
            await connection.send_data(line)

    async def play_html(self, connection: "Connection", request: Json, options: Json) -> None:
        await connection.send(200, "text/html", b"<!doctype html><title>Welcome</title><p>secret-key-in-page")

    async def play_empty(self, connection: "Connection", request: Json, options: Json) -> None:
        await connection.send(200, CONTENT_TYPE, b"")

    async def play_json(self, connection: "Connection", request: Json, options: Json) -> None:
        """A server that does not stream."""
        choice = {"index": 0, "message": {"role": "assistant", "content": "Hello Ada."}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 7, "completion_tokens": 3}
        await connection.send_json({"object": "chat.completion", "choices": [choice], "usage": usage})

    async def play_gate(self, connection: "Connection", request: Json, options: Json) -> None:
        """Half an answer, and the rest when the test asks for it."""
        await self.begin_answer(connection, request)
        await self.gates[request["model"]].wait()
        await connection.send_event(make_chunk(request, {"content": "Ada."}, "stop"))
        await connection.send_data(b"data: [DONE]\n\n")
        await connection.end_stream()

    async def begin_answer(self, connection: "Connection", request: Json) -> None:
        await connection.begin_stream()
        await connection.send_event(make_chunk(request, {"role": "assistant", "content": "Hello "}))


class Connection:
    """One TCP connection, with HTTP/1.1 as far as a test needs it."""

    count = 0

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        Connection.count += 1
        self.number = Connection.count
        self.reader = reader
        self.writer = writer
        self.watch: asyncio.Task[bytes] | None = None

    async def read_request(self) -> tuple[str, str, Json, bytes] | None:
        first = await self.watch if self.watch else await self.reader.read(1)
        self.watch = None
        if not first:
            return None
        head = (first + await self.reader.readuntil(b"\r\n\r\n")).decode("latin1").split("\r\n")
        method, target, _ = head[0].split(" ", 2)
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        return method, target, headers, await self.reader.readexactly(int(headers.get("content-length", 0)))

    async def run_until_hung_up(self, play: Coroutine[None, None, None]) -> None:
        playing = asyncio.ensure_future(play)
        self.watch = asyncio.create_task(self.reader.read(1))
        await asyncio.wait([playing, self.watch], return_when=asyncio.FIRST_COMPLETED)
        if playing.done():
            return playing.result()
        playing.cancel()
        await asyncio.gather(playing, return_exceptions=True)
        raise HungUpError

    async def begin_stream(self) -> None:
        self.writer.write(
            f"HTTP/1.1 200 OK\r\nContent-Type: {CONTENT_TYPE}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        )
        await self.writer.drain()

    async def send_event(self, chunk: Json) -> None:
        self.writer.write(self.encode_event(chunk))
        await self.writer.drain()

    async def send_data(self, data: bytes) -> None:
        if data:
            self.writer.write(self.encode_data(data))
            await self.writer.drain()

    @classmethod
    def encode_event(cls, chunk: Json) -> bytes:
        return cls.encode_data(f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n".encode())

    @staticmethod
    def encode_data(data: bytes) -> bytes:
        """One chunk of a body whose length nobody knows beforehand."""
        return b"%x\r\n%b\r\n" % (len(data), data)

    async def end_stream(self) -> None:
        self.writer.write(b"0\r\n\r\n")
        await self.writer.drain()

    async def send(self, status: int, content_type: str, body: bytes, headers: Json | None = None) -> None:
        lines = {"Content-Type": content_type, "Content-Length": len(body), **(headers or {})}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self.writer.write(f"HTTP/1.1 {status} {reason(status)}\r\n{head}\r\n".encode() + body)
        await self.writer.drain()

    async def send_json(self, document: object, status: int = 200) -> None:
        await self.send(status, "application/json", json.dumps(document).encode())

    async def send_status(self, status: int, options: Json) -> None:
        body = options.get("body", {"error": {"message": "secret words of the provider, sk-secret"}})
        content_type = "text/html" if isinstance(body, str) else "application/json"
        content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        await self.send(status, content_type, content, options.get("headers"))

    async def hang(self) -> None:
        await asyncio.Event().wait()

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        """RST instead of FIN: what a crashed server or a firewall does."""
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


def read_script(request: Json) -> tuple[str, Json]:
    for text in (request["messages"][-1]["content"], request["model"]):
        if text.startswith("SCRIPT:"):
            name, _, options = text.removeprefix("SCRIPT:").strip().partition(" ")
            return name, json.loads(options) if options else {}
    return "answer", {}


def make_chunk(request: Json, delta: Json | None, finish: str | None = None) -> Json:
    """As OpenAI's servers write it, with all the fields that nobody reads."""
    return {
        "id": "chatcmpl-CTdpFx9Zc3r1KyvGQAuB4mEVJqQkd",
        "object": "chat.completion.chunk",
        "created": 1762905600,
        "model": request["model"],
        "service_tier": "default",
        "system_fingerprint": "fp_44709d6fcb",
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}],
        "usage": None,
    }


async def send_at_rate(connection: Connection, request: Json, count: int, rate: float) -> None:
    start = time.monotonic()
    for number in range(count):
        if rate and (early := start + number / rate - time.monotonic()) > 0:
            await asyncio.sleep(early)
        await connection.send_event(make_chunk(request, {"content": f"{number:03d} "[-4:]}))


async def keep_alive(connection: Connection) -> None:
    while True:
        await connection.send_data(b": keep-alive\n\n")
        await asyncio.sleep(0.01)


def reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


async def main(port: int) -> None:
    server = await asyncio.start_server(ModelServer().serve, "127.0.0.1", port)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    if stat.S_ISFIFO(os.fstat(sys.stdin.fileno()).st_mode):
        # Whoever started this server may be killed; the end of its pipe is what it leaves behind.
        asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read).add_done_callback(
            lambda _: server.close()
        )
    await server.serve_forever()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--port", type=int, default=0)
    with contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError):
        asyncio.run(main(arguments.parse_args().port))
