"""Who reads a stream must still be signed in: a session that ends, here or in another process, ends its streams."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import SQLAlchemyError

from app.auth.service import list_valid_tokens
from app.database import Database

LOOK_SECONDS = 1.0

log = logging.getLogger(__name__)


class Watched:
    """The token by which a stream was opened, and whether it is still good."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.is_valid = True


class SessionWatch:
    """Looks once a second, with one query for the tokens of all streams that are open."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.streams: set[Watched] = set()
        self.looking: asyncio.Task[None] | None = None

    @contextmanager
    def follow(self, token: str) -> Iterator[Watched]:
        watched = Watched(token)
        self.streams.add(watched)
        if self.looking is None or self.looking.done():
            self.looking = asyncio.create_task(self._keep_looking())
        try:
            yield watched
        finally:
            self.streams.discard(watched)

    async def close(self) -> None:
        if self.looking:
            self.looking.cancel()
            await asyncio.wait([self.looking])

    async def _keep_looking(self) -> None:
        while self.streams:
            await asyncio.sleep(LOOK_SECONDS)
            streams = list(self.streams)
            try:
                async with self.database.session(reading=True) as session:
                    valid = await list_valid_tokens(session, {watched.token for watched in streams})
            except SQLAlchemyError as error:  # nobody is signed out because the database is away
                log.warning("Sessions could not be looked at (%s); trying again", type(error).__name__)
                continue
            for watched in streams:
                watched.is_valid = watched.token in valid
