"""How many migrations wait, found without Alembic and SQLAlchemy: importing them would slow down every start."""

from contextlib import closing
from pathlib import Path

from app.database_url import read_database_url
from app.schema import collect_ancestors, read_parents
from app.settings import load_settings

WAIT_SECONDS = 3


def count_pending() -> int | None:
    """Count the migrations that are not applied; None where the database does not say."""
    parents = read_parents()
    try:
        applied = set(collect_ancestors(parents, read_applied()))
    except Exception:  # whatever a driver raises: the server starts anyway, and /readyz says what is wrong
        return None
    return len(parents.keys() - applied)


def read_applied() -> list[str]:
    """Ask the database where it stands, with the plain driver."""
    url = read_database_url(load_settings().database_url.get_secret_value())
    query = "SELECT version_num FROM alembic_version"
    if url.backend == "sqlite":
        return read_applied_in_file(Path(str(url.database)), query)
    import psycopg

    with psycopg.connect(**url.keywords, connect_timeout=WAIT_SECONDS, prepare_threshold=None) as connection:
        try:
            return [row[0] for row in connection.execute(query).fetchall()]
        except psycopg.errors.UndefinedTable:
            return []


def read_applied_in_file(path: Path, query: str) -> list[str]:
    import sqlite3

    if not path.is_file():
        return []
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=WAIT_SECONDS)) as connection:
        try:
            return [row[0] for row in connection.execute(query)]
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return []
            raise
