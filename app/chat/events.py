"""Server-sent events, written lean: this runs for every frame of every answer.

An event carries an integer id and JSON, so no text of a model or a person can break out of its line.
Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import msgspec
from fastapi import Request
from starlette.responses import StreamingResponse

from app.auth.watch import SessionWatch
from app.headers import MEDIA_TYPE, STREAM_HEADERS

PING = b": ping\n\n"
SIGNED_OUT = b'event: closed\ndata: {"reason":"signed_out"}\n\n'

WAIT = re.compile(r"\bwait *= *([0-9]{1,9})")
LONGEST_PATIENCE = 60.0

_encoder = msgspec.json.Encoder()


def encode_event(name: str, id: int, data: Any) -> bytes:
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (id, name.encode(), _encoder.encode(data))


def stream_events(request: Request, events: AsyncGenerator[bytes, None]) -> StreamingResponse:
    return StreamingResponse(while_signed_in(request, events), media_type=MEDIA_TYPE, headers=STREAM_HEADERS)


async def while_signed_in(request: Request, events: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
    watch: SessionWatch = request.app.state.session_watch
    async with aclosing(events):
        with watch.follow(request.state.token) as watched:
            async for event in events:
                if not watched.is_valid:
                    yield SIGNED_OUT
                    return
                yield event


def wants_events(request: Request) -> bool:
    return MEDIA_TYPE in request.headers.get("accept", "")


def read_patience(request: Request) -> float | None:
    """Give the seconds after which the reader wants what there is by then; None for one who waits for the end.

    Behind a proxy that keeps a stream back until its end, each of several requests brings a part. Where a host lets
    the app run only while it is asked for something, they should wait a while: the answer is written meanwhile.
    Source: https://www.rfc-editor.org/rfc/rfc7240#section-4.3
    """
    wait = WAIT.search(request.headers.get("prefer", ""))
    return min(float(wait[1]), LONGEST_PATIENCE) if wait else None
