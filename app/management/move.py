"""Moves house: everything from one database into another, such as from a laptop's SQLite to a host's PostgreSQL."""

import os
from pathlib import Path

from sqlalchemy.engine import URL

from app.database import read_url
from app.management.commands import CommandError, argument, command
from app.management.console import console, how_to
from app.management.migrations import prepare_file
from app.management.transfer import Proof, connect, copy_all, find_filled, migrate_to, read_revision
from app.settings import load_settings

HELP = "a URL, or the name of a variable that holds one, such as DATABASE_URL"


@command(argument("source", metavar="FROM", help=HELP), argument("target", metavar="TO", help=HELP))
def movedb(source: str, target: str) -> None:
    """Copy everything FROM one database TO another, which must be empty. Stop the app meanwhile."""
    from_url, to_url = read_address(source), read_address(target)
    if from_url == to_url:
        raise CommandError("FROM and TO are the same database.")
    proofs = move(from_url, to_url)
    rows = sum(proof.rows for proof in proofs.values())
    console.say(f"Moved {rows:,} rows in {len(proofs)} tables; counts and checksums are the same on both sides.")


def read_address(given: str) -> URL:
    """Others on this machine see what is typed, so a URL with a password had better be in a variable."""
    if "://" in given:
        url = read_url(given)
        if url.password:
            console.warn("Others on this machine can see that password. Put the URL into a variable, and name that.")
        return url
    if given == "DATABASE_URL":
        return read_url(load_settings().database_url.get_secret_value())
    if not (raw := os.environ.get(given)):
        raise CommandError(f"{given!r} is no URL, and no variable of that name is set. {how_to('help movedb')}")
    return read_url(raw)


def move(from_url: URL, to_url: URL) -> dict[str, Proof]:
    if from_url.get_backend_name() == "sqlite" and not Path(str(from_url.database)).is_file():
        raise CommandError(f"There is no file {from_url.database}.")
    with connect(from_url, snapshot=True) as source:
        revision = read_revision(source, "FROM")
        prepare_file(to_url)
        migrate_to(to_url, revision, "TO")
        with connect(to_url) as target:
            if table := find_filled(target):
                raise CommandError(f"TO has rows already, in the table {table!r}, and must be empty.")
            return copy_all(source, target)
