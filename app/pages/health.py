"""What load balancers and hosts ask: is the process alive, can it work, and does a stream get through?"""

import asyncio
import logging
from collections.abc import AsyncIterator

from fastapi import APIRouter, Depends, HTTPException, Request
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse

from app.headers import MEDIA_TYPE, STREAM_HEADERS
from app.schema import read_standing

log = logging.getLogger(__name__)
router = APIRouter(include_in_schema=False)

# The free host asks under each of the three spellings.
ALIVE_PATHS = ("/healthz", "/kaithhealth", "/kaithhealthcheck", "/kaithheathcheck")
HEALTH_PATHS = frozenset((*ALIVE_PATHS, "/readyz"))
READY_SECONDS = 2

STREAM_PATH = "/healthz/stream"
PIECES = 5
PAUSE_SECONDS = 0.2
STREAM_SECONDS = (PIECES - 1) * PAUSE_SECONDS
places = asyncio.Semaphore(4)  # at once: whoever asks for more has something else in mind


async def show_alive(request: Request) -> PlainTextResponse:
    return PlainTextResponse("ok")


for path in ALIVE_PATHS:
    router.add_route(path, show_alive)  # answers HEAD, too, which some probes send


async def take_place() -> AsyncIterator[None]:
    if places.locked():
        raise HTTPException(503, "Too many probes at once. Try again in a moment.", {"Retry-After": "1"})
    async with places:
        yield


@router.get(STREAM_PATH, dependencies=[Depends(take_place)])
async def probe_stream() -> StreamingResponse:
    """Send a few pieces as an answer is sent. `oppman.py check --url` times them: some hosts hold back what streams."""
    return StreamingResponse(send_pieces(), media_type=MEDIA_TYPE, headers=STREAM_HEADERS)


async def send_pieces() -> AsyncIterator[bytes]:
    for number in range(PIECES):
        await asyncio.sleep(PAUSE_SECONDS if number else 0)
        yield b"data: %d\n\n" % number


@router.api_route("/readyz", methods=["GET", "HEAD"])
async def show_ready(request: Request) -> JSONResponse:
    """Ready is who reaches the database and finds its tables as the code needs them."""
    try:
        async with asyncio.timeout(READY_SECONDS):
            standing = await read_standing(request.app.state.database)
    except Exception as error:
        log.warning("Not ready: %s", type(error).__name__)
        return JSONResponse({"status": "unavailable", "reason": "the database does not answer"}, 503)
    found, needed = standing.found, standing.needed
    if not standing.is_current:
        log.warning("Not ready: the database stands at migration %s, and the code needs %s", found, needed)
        return JSONResponse({"status": "unavailable", "reason": "migrations", "found": found, "needed": needed}, 503)
    return JSONResponse({"status": "ready"})
