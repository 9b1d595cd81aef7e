"""Chunks that come together reach the client as one, and nothing else changes."""

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.llm.network import Merger

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


class Client:
    """What an HTTP client reads: written in C, and not ours."""

    def __init__(self) -> None:
        self.body = b""
        self.is_over = False
        self.parser = httptools.HttpResponseParser(self)

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.is_over = True


def feed(raw: bytes, cuts: list[int]) -> list[bytes]:
    """Give the pieces that the client sees of a response that comes in pieces."""
    merger, seen, last = Merger(), [], 0
    for cut in [*sorted(min(cut, len(raw)) for cut in cuts), len(raw)]:
        if cut > last:
            seen.append(merger.feed(raw[last:cut]))
        last = cut
    return seen


def chunk(data: bytes, extension: bytes = b"") -> bytes:
    return b"%x%b\r\n%b\r\n" % (len(data), extension, data)


CUTS = st.lists(st.integers(0, 400), max_size=20)
PARTS = st.lists(st.binary(min_size=1, max_size=20) | st.sampled_from([b"\r\n", b"5\r\n", b"0\r\n\r\n"]), max_size=12)


@given(
    PARTS, CUTS, st.sampled_from([b"0\r\n\r\n", b"0\r\nX-Trailer: 1\r\n\r\n"]), st.sampled_from([b"", b";a=b", b" "])
)
@settings(max_examples=150, deadline=None)
def test_the_body_is_the_same_wherever_it_is_cut(
    parts: list[bytes], cuts: list[int], end: bytes, extension: bytes
) -> None:
    client = Client()
    for piece in feed(HEAD + b"".join(chunk(part, extension) for part in parts) + end, cuts):
        client.parser.feed_data(piece)
    assert client.body == b"".join(parts) and client.is_over


def test_what_comes_together_is_one_chunk() -> None:
    raw = HEAD + b"".join(chunk(word) for word in (b"one ", b"two ", b"three"))
    assert feed(raw, []) == [HEAD + chunk(b"one two three")]


def test_half_a_chunk_is_handed_on_at_once() -> None:
    seen = feed(HEAD + chunk(b"one ") + chunk(b"two ")[:5], [len(HEAD)])
    assert seen == [HEAD, chunk(b"one tw")]


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n5\r\nhello\r\n00",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        HEAD + b"not a chunk\r\n",
        HEAD + b"fffffffff\r\nhello",
        HEAD + b"-5\r\nhello\r\n",
        HEAD + b"5\n" + b"hello\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 30_000,
        b"\x16\x03\x01 no HTTP at all",
    ],
)
def test_what_is_not_chunked_or_wrong_is_left_to_the_client(raw: bytes) -> None:
    for cuts in ([], list(range(1, len(raw), max(len(raw) // 50, 1)))):
        assert b"".join(feed(raw, cuts)) == raw


def test_a_response_that_is_only_announced_comes_before_the_real_one() -> None:
    raw = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + HEAD + chunk(b"a") + chunk(b"b")
    assert b"".join(feed(raw, [])).endswith(HEAD + chunk(b"ab"))
