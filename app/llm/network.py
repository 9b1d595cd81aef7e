"""The network below the HTTP client: reads at a pace, and hands many small chunks of a body on as one.

A model sends each token as an HTTP chunk of its own, and the client takes longer for a chunk than we do for all else.
What has come together is therefore framed anew, as one chunk, before the client sees it.
Source: https://www.rfc-editor.org/rfc/rfc9112#section-7.1
"""

import re
from typing import Any

import httpcore2
import httpx2

from app.llm.base import Pace

CHUNKED = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked[ \t]*\r\n", re.IGNORECASE)
CHUNK = re.compile(rb"(?:\r\n)?([0-9a-fA-F]{1,8})[ \t]*(?:;[^\r\n]*)?\r\n")  # its first line, after the end of another
LONGEST_LINE = 1000  # bytes
LONGEST_HEAD = 100_000  # bytes of a response; the client refuses more


def merge_chunks(client: httpx2.AsyncClient) -> None:
    """Let a client, and the proxies that it goes by, use this network. It has no public setting for that."""
    for transport in (client._transport, *client._mounts.values()):
        if isinstance(transport, httpx2.AsyncHTTPTransport):
            transport._pool._network_backend = Network()


class Network(httpcore2.AnyIOBackend):
    async def connect_tcp(self, *args: Any, **options: Any) -> "Stream":
        return Stream(await super().connect_tcp(*args, **options))


class Stream(httpcore2.AsyncNetworkStream):
    """A connection. Each request begins with a write, and its response is read to the end before the next."""

    def __init__(self, inner: httpcore2.AsyncNetworkStream) -> None:
        self.inner = inner
        self.merger = Merger()
        self.pace: Pace | None = None
        self.was_full = False  # a read that was full has left something behind: whoever sends so much shall not wait

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 (of the interface)
        while True:
            if self.pace and not self.was_full:
                await self.pace()
            data = await self.inner.read(max_bytes, timeout)
            self.was_full = len(data) == max_bytes
            if not data or (data := self.merger.feed(data)):
                return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        self.merger = Merger()
        await self.inner.write(buffer, timeout)

    async def aclose(self) -> None:
        await self.inner.aclose()

    async def start_tls(self, *args: Any, **options: Any) -> "Stream":
        return Stream(await self.inner.start_tls(*args, **options))

    def get_extra_info(self, info: str) -> Any:
        return self.inner.get_extra_info(info)


class Merger:
    """One response, from its first byte to its last. What it cannot read it leaves for the client to complain about."""

    def __init__(self) -> None:
        self.rest = b""  # has come, but makes no sense yet
        self.left = 0  # bytes of the present chunk that have not come
        self.feed = self.read_head

    def read_head(self, data: bytes) -> bytes:
        head, end, body = (self.rest + data).partition(b"\r\n\r\n")
        if not end:
            self.rest = head
            self.feed = self.read_head if len(head) < LONGEST_HEAD else self.pass_on
            return data
        self.rest = b""
        if not head.startswith(b"HTTP/1.1 1"):  # which says only that the response will come
            self.feed = self.read_chunks if CHUNKED.search(head + b"\r\n") else self.pass_on
        return data[: len(data) - len(body)] + (self.feed(body) if body else b"")

    def read_chunks(self, data: bytes) -> bytes:
        buffer, at, parts = self.rest + data, 0, []
        while True:
            part = buffer[at : at + self.left]
            at += len(part)
            self.left -= len(part)
            parts.append(part)
            first_line = None if self.left else CHUNK.match(buffer, at)
            if not first_line or not (size := int(first_line[1], 16)):
                break
            self.left, at = size, first_line.end()
        self.rest, joined = buffer[at:], b"".join(parts)
        merged = b"%x\r\n%b\r\n" % (len(joined), joined) if joined else b""
        if first_line or len(self.rest) > LONGEST_LINE or b"\n" in self.rest[2:]:  # the last chunk, or none at all
            self.feed = self.pass_on
            return merged + self.rest.removeprefix(b"\r\n")
        return merged

    def pass_on(self, data: bytes) -> bytes:
        return data
