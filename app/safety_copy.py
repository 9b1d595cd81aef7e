"""A copy of a SQLite database, kept for as long as a migration runs.

SQLite takes back all that a migration did, unless the migration ends the transaction itself (COMMIT, `executescript`).
Then half of it would stay: the copy is put back, and is kept so that somebody can look.
"""

import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection

log = logging.getLogger(__name__)


class CopyError(Exception):
    """The copy cannot be made, so nothing is done."""


@contextmanager
def safety_copy(connection: Connection) -> Iterator[None]:
    """Undo all that happens in here where it fails. The connection has the writer's place already."""
    writer = connection.connection.driver_connection
    assert isinstance(writer, sqlite3.Connection)
    copy = make_copy(Path(connection.engine.url.database or ""))
    ends: list[str] = []
    writer.set_trace_callback(lambda sql: ends.append(sql) if is_end(sql) else None)
    try:
        yield
    except BaseException:
        connection.rollback()
        if ends and copy:
            put_back(copy, writer)
        elif copy:
            copy.unlink()
        raise
    finally:
        writer.set_trace_callback(None)
    if copy:
        copy.unlink()


def is_end(statement: str) -> bool:
    return statement.lstrip().upper().startswith(("COMMIT", "END"))


def make_copy(database: Path) -> Path | None:
    """Copy the database for its owner's eyes; an empty one needs none. A full disk leaves nothing behind."""
    copy = database.with_name(f"{database.name}.before-{datetime.now(UTC):%Y%m%d-%H%M%S-%f}")
    try:
        with closing(sqlite3.connect(database, timeout=60)) as source:
            if not source.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                return None
            os.close(os.open(copy, os.O_CREAT | os.O_EXCL, 0o600))
            with closing(sqlite3.connect(copy)) as target:
                target.execute("PRAGMA journal_mode=OFF")  # a copy that breaks off is thrown away
                source.backup(target)
    except (OSError, sqlite3.Error) as error:
        copy.unlink(missing_ok=True)
        raise CopyError(
            f"Nothing was changed: a copy of the database, which migrating needs, cannot be made in {database.parent} "
            f"({getattr(error, 'strerror', None) or error}). Make room there for {database.name} a second time."
        ) from error
    return copy


def put_back(copy: Path, writer: sqlite3.Connection) -> None:
    """Who has the database open meanwhile goes on with what is put back."""
    try:
        with closing(sqlite3.connect(copy)) as source:
            source.backup(writer)
    except sqlite3.Error as error:
        log.error("The database holds half of a migration (%s). As it was before, it is in %s", error, copy)
    else:
        log.warning("The migration had saved a part by itself, so the database was put back. A copy stays in %s", copy)
