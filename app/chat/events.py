"""Server-sent events, written lean: this runs for every frame of every answer.

An event carries an integer id and JSON, so no text of a model or a person can break out of its line.
Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from collections.abc import AsyncIterable
from typing import Any

import msgspec
from fastapi import Request
from starlette.responses import StreamingResponse

MEDIA_TYPE = "text/event-stream"
PING = b": ping\n\n"
# Proxies must neither keep nor gather nor recompress what streams.
HEADERS = {"Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no"}

_encoder = msgspec.json.Encoder()


def encode_event(name: str, id: int, data: Any) -> bytes:
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (id, name.encode(), _encoder.encode(data))


def stream_events(events: AsyncIterable[bytes]) -> StreamingResponse:
    return StreamingResponse(events, media_type=MEDIA_TYPE, headers=HEADERS)


def wants_events(request: Request) -> bool:
    return MEDIA_TYPE in request.headers.get("accept", "")
