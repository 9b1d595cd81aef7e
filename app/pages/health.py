"""What load balancers and hosts ask: is the process alive, and can it work?"""

import asyncio
import logging

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, PlainTextResponse

from app.schema import read_standing

log = logging.getLogger(__name__)
router = APIRouter(include_in_schema=False)

# The free host asks under each of the three spellings.
ALIVE_PATHS = ("/healthz", "/kaithhealth", "/kaithhealthcheck", "/kaithheathcheck")
HEALTH_PATHS = frozenset((*ALIVE_PATHS, "/readyz"))
READY_SECONDS = 2


async def show_alive(request: Request) -> PlainTextResponse:
    return PlainTextResponse("ok")


for path in ALIVE_PATHS:
    router.add_route(path, show_alive)  # answers HEAD, too, which some probes send


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
