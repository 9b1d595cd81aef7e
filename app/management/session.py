"""A session on the database for commands, and the database's faults in words."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from sqlalchemy.exc import DBAPIError
from sqlmodel.ext.asyncio.session import AsyncSession

import app.models  # noqa: F401 (foreign keys need every table)
from app.database import Database, lacks_table
from app.management.commands import CommandError
from app.management.console import how_to
from app.settings import load_settings

Result = TypeVar("Result")


def run_with_session(work: Callable[[AsyncSession], Awaitable[Result]]) -> Result:
    """Run something asynchronous with a session, from a command that is not."""

    async def run() -> Result:
        database = Database(load_settings())
        try:
            async with database.session() as session:
                return await work(session)
        finally:
            await database.close()

    with readable_faults():
        return asyncio.run(run())


@contextmanager
def readable_faults() -> Iterator[None]:
    """A database that is away or has no tables yet is for the person to mend, so they get a sentence."""
    try:
        yield
    except DBAPIError as error:
        raise CommandError(describe_fault(error)) from error


def describe_fault(error: DBAPIError) -> str:
    words = str(error.orig).strip().partition("\n")[0]
    if lacks_table(error):
        return f"The database has not the tables that are needed. Type: {how_to('migrate')}"
    return f"The database does not answer: {words.rstrip('.')}. Check DATABASE_URL."
