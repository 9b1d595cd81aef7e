"""How many migrations wait, found without Alembic and SQLAlchemy: importing them would slow down every start."""

import ast
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from app.settings import ROOT, load_settings

WAIT_SECONDS = 3


def count_pending() -> int | None:
    """Count the migrations that are not applied; None where the database does not say."""
    parents = dict(read_parents(ROOT / "migrations" / "versions"))
    try:
        applied = set(collect_ancestors(parents, read_applied()))
    except Exception:  # whatever a driver raises: the server starts anyway, and /readyz says what is wrong
        return None
    return len(parents.keys() - applied)


def read_parents(folder: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Give each migration's name, and the names of those before it, as the files say."""
    for path in sorted(folder.glob("*.py")):
        values: dict[str, Any] = {}
        for line in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name):
                values[line.targets[0].id] = line.value
            elif isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and line.value:
                values[line.target.id] = line.value
        if "revision" in values:
            before = ast.literal_eval(values["down_revision"])
            yield ast.literal_eval(values["revision"]), (before,) if isinstance(before, str) else before or ()


def collect_ancestors(parents: dict[str, tuple[str, ...]], names: list[str]) -> Iterator[str]:
    for name in names:
        yield name
        yield from collect_ancestors(parents, list(parents.get(name, ())))


def read_applied() -> list[str]:
    """Ask the database where it stands, with the plain driver."""
    url = load_settings().database_url.get_secret_value().strip()
    query = "SELECT version_num FROM alembic_version"
    if url.startswith("sqlite"):
        return read_applied_in_file(ROOT / unquote(urlsplit(url).path[1:]), query)
    import psycopg

    address = url.replace(urlsplit(url).scheme, "postgresql", 1)
    with psycopg.connect(address, connect_timeout=WAIT_SECONDS, prepare_threshold=None) as connection:
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
