"""The least that a chat can do, to compare with: a raw ASGI app that passes each chunk on and saves nothing.

    python benchmarks/bare.py ADDRESS_OF_THE_MODEL

It has the same server, HTTP client and decoder as Oppkit, and no Markdown, database, sign-in, Stop or reload.
"""

import json
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import msgspec
import uvicorn


class Delta(msgspec.Struct):
    content: str = ""


class Choice(msgspec.Struct):
    delta: Delta


class Chunk(msgspec.Struct):
    choices: list[Choice]


decoder = msgspec.json.Decoder(Chunk)
limits = httpx2.Limits(max_connections=None)
client = httpx2.AsyncClient(base_url=sys.argv[1], timeout=60, limits=limits)


async def app(
    scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    question = (await receive())["body"].decode()
    body = {"model": "bare", "stream": True, "messages": [{"role": "user", "content": question}]}
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    async with client.stream("POST", "/v1/chat/completions", json=body) as response:
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                text = decoder.decode(line[6:]).choices[0].delta.content
                event = f"data: {json.dumps({'text': text})}\n\n".encode()
                await send({"type": "http.response.body", "body": event, "more_body": True})
    await send({"type": "http.response.body"})


if __name__ == "__main__":
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(2048)
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        options = {"http": "httptools", "loop": "asyncio", "lifespan": "off", "log_config": None}
        uvicorn.Server(uvicorn.Config(app, **options)).run([listener])  # type: ignore[arg-type]
