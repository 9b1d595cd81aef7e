"""What load balancers and hosts ask: is the process alive, and can it work?"""

import asyncio
import logging
from collections.abc import Iterable

from fastapi import APIRouter, Request
from sqlalchemy import text
from starlette.responses import JSONResponse, PlainTextResponse

from app.database import Database
from app.settings import ROOT

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
            found = await read_revisions(request.app.state.database)
    except Exception as error:
        log.warning("Not ready: %s", type(error).__name__)
        return JSONResponse({"status": "unavailable", "reason": "the database does not answer"}, 503)
    needed = await asyncio.to_thread(find_heads)
    if found != needed:
        log.warning("Not ready: the database stands at migration %s, and the code needs %s", found, needed)
        return JSONResponse({"status": "unavailable", "reason": "migrations", "found": found, "needed": needed}, 503)
    return JSONResponse({"status": "ready"})


async def read_revisions(database: Database) -> str | None:
    """Give the migration that the database stands at; None where there never was one."""
    async with database.session(reading=True) as session:
        connection = await session.connection()
        if not await connection.run_sync(lambda sync: sync.dialect.has_table(sync, "alembic_version")):
            return None
        return join((await connection.execute(text("SELECT version_num FROM alembic_version"))).scalars())


def find_heads() -> str | None:
    """Give the newest migration in the project. Alembic is slow to import: somebody has to ask, and a thread waits."""
    from alembic.script import ScriptDirectory

    return join(ScriptDirectory(str(ROOT / "migrations")).get_heads())


def join(revisions: Iterable[str]) -> str | None:
    """Usually there is one. Two branches of the code have two, until somebody merges them."""
    return ", ".join(sorted(revisions)) or None
