"""Saves the whole database in a file, while the app runs, and brings it back.

SQLite copies itself. PostgreSQL has pg_dump; where that is missing or cannot be used, the rows go into a SQLite file,
which either engine takes back.
"""

import os
import re
import shutil
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.engine import URL, make_url

from app.database import read_url
from app.management.commands import NOINPUT, CommandError, argument, command, confirm, flag
from app.management.console import console, how_to
from app.management.fixtures import empty_tables
from app.management.migrations import get_head, load_graph, prepare_file
from app.management.shell import describe_connection, write_variables
from app.management.transfer import (
    connect,
    copy_all,
    find_filled,
    has_pooler,
    list_tables,
    migrate_to,
    read_revision,
)
from app.settings import ROOT, load_settings

FOLDER = ROOT / "backups"
BUSY_SECONDS = 5
OF_THE_HOST = re.compile(r"\d+; \d+ \d+ (SCHEMA|ACL|COMMENT - SCHEMA) ")
SQLITE_MAGIC, DUMP_MAGIC = b"SQLite format 3\0", b"PGDMP"


@command(
    argument("file", nargs="?", help="a new file; one in backups/ with the time in its name if left out"),
    flag("--sqlite", help="save PostgreSQL as a SQLite file, too, which either engine takes back"),
)
def backup(file: str | None = None, *, sqlite: bool = False) -> None:
    """Save the whole database in a file that only its owner can read. The app may run meanwhile."""
    url = read_url(load_settings().database_url.get_secret_value())
    dump = None if sqlite or url.get_backend_name() == "sqlite" else find_pg_dump(url)
    path = Path(file) if file else name_file("dump" if dump else "sqlite3")
    with new_file(path) as part:
        if dump:
            run_program([*dump, "--format=custom", "--no-owner", "--no-privileges", "--file", str(part)], url)
        elif url.get_backend_name() == "sqlite":
            copy_sqlite(Path(str(url.database)), part)
        else:
            copy_rows(url, part)
    console.say(f"Saved in {path} ({path.stat().st_size / 1_000_000:,.1f} MB).")


def name_file(ending: str) -> Path:
    try:
        FOLDER.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise CommandError(f"{FOLDER} cannot be made: {error.strerror}. Name a file elsewhere.") from error
    return FOLDER / f"{datetime.now().astimezone():%Y-%m-%d-%H%M%S}.{ending}"


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Give a name to write under. The file has its own name only when it is whole; nothing is written over."""
    if path.exists():
        raise CommandError(f"{path} is there already. Name another file.")
    part = path.with_name(f"{path.name}.part")
    try:
        part.unlink(missing_ok=True)
        part.touch(mode=0o600)
        yield part
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.rename(path)
    except OSError as error:
        raise CommandError(f"{path} cannot be written: {error.strerror}.") from error
    finally:
        for leftover in path.parent.glob(f"{part.name}*"):
            leftover.unlink(missing_ok=True)


def copy_sqlite(source: Path, target: Path) -> None:
    """SQLite's online backup: writers go on, and the copy is of one moment."""
    if not source.is_file():
        raise CommandError(f"There is no file {source}. Check DATABASE_URL.")
    try:
        with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(target)) as new:
            old.backup(new, progress=wait_a_while())
            new.execute("PRAGMA journal_mode=DELETE")  # one file, without a log beside it
            check_whole(new, source)
    except sqlite3.Error as error:
        raise CommandError(f"{source} cannot be copied: {error}.") from error


def wait_a_while() -> Callable[[int, int, int], None]:
    """Let SQLite try again while others write, but not for ever, as it would."""
    end = time.monotonic() + BUSY_SECONDS

    def look(status: int, remaining: int, total: int) -> None:
        if status in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) and time.monotonic() > end:
            raise sqlite3.OperationalError("somebody is writing into it")

    return look


def check_whole(connection: sqlite3.Connection, path: Path) -> None:
    found = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if found != "ok":
        raise CommandError(f"{path} is damaged: {found}.")


def copy_rows(url: URL, target: Path) -> None:
    """One snapshot of PostgreSQL, in a SQLite file with the same tables, counted and compared."""
    into = make_url(f"sqlite:///{target}")
    with connect(url, snapshot=True) as source:
        migrate_to(into, read_revision(source, "The database"), str(target))
        with connect(into) as copy:
            copy_all(source, copy)


def find_pg_dump(url: URL) -> list[str] | None:
    """Find a pg_dump that is not older than the server, for the schema that is ours: a host has others of its own.

    It sets what outlives a transaction, so no pooler may be there.
    """
    with connect(url, snapshot=True) as connection:
        version = int(connection.execute(text("SHOW server_version_num")).scalar_one()) // 10_000
        schema = connection.execute(text("SELECT current_schema()")).scalar_one()
        if has_pooler(connection):
            return None
    program = shutil.which("pg_dump")
    told = re.search(r"(\d+)", run_program([program, "--version"])) if program else None
    return [str(program), f"--schema={schema}"] if told and int(told[1]) >= version else None


def run_program(command: list[str], url: URL | None = None) -> str:
    """Run one of PostgreSQL's own programs. The password is not among the arguments, which everybody can see."""
    environment = dict(os.environ)
    if url:
        command, environment = [*command, *describe_connection(url)], environment | write_variables(url)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        words = (done.stderr.strip() or "it did not say why").splitlines()[0]
        raise CommandError(f"{Path(command[0]).name} failed: {words}")
    return done.stdout


@command(
    argument("file", help="what `backup` has written"),
    flag("--replace", help="delete what the database holds now"),
    NOINPUT,
)
def restore(file: str, *, replace: bool = False, noinput: bool = False) -> None:
    """Bring the database back from a backup, as a whole or not at all. Stop the app first."""
    path = Path(file)
    url = read_url(load_settings().database_url.get_secret_value())
    is_dump = read_kind(path) == DUMP_MAGIC
    if is_dump and url.get_backend_name() == "sqlite":
        raise CommandError(f"{path} is PostgreSQL's own. Restore it there, and then type: {how_to('movedb FROM TO')}")
    held = find_held(url)
    if held and not replace:
        raise CommandError(f"The database has rows already, in the table {held!r}. --replace deletes them first.")
    if held:
        confirm(f"Replace everything in the database by what is in {path}", noinput)
    if is_dump:
        restore_dump(path, url)
    elif url.get_backend_name() == "sqlite":
        restore_sqlite(path, url)
    else:
        restore_rows(path, url)
    console.say(f"Restored from {path}. If it comes from older code, type: {how_to('migrate')}")


def read_kind(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            begin = file.read(len(SQLITE_MAGIC))
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}.") from error
    for magic in (SQLITE_MAGIC, DUMP_MAGIC):
        if begin.startswith(magic):
            return magic
    raise CommandError(f"{path} is no backup: oppman.py backup writes files that begin otherwise.")


def find_held(url: URL) -> str | None:
    if url.get_backend_name() == "sqlite" and not Path(str(url.database)).is_file():
        return None
    with connect(url, snapshot=True) as connection:
        return find_filled(connection)


def restore_dump(path: Path, url: URL) -> None:
    with connect(url, snapshot=True) as connection:
        if has_pooler(connection):
            raise CommandError(f"{path} cannot go through a pooler. Use the direct address of the database.")
    program = shutil.which("pg_restore")
    if program is None:
        raise CommandError("You appear not to have the 'pg_restore' program installed or on your path.")
    flags = ["--clean", "--if-exists", "--no-owner", "--single-transaction"]
    with tempfile.NamedTemporaryFile("w", suffix=".list") as contents:
        # The schema itself stays, with the rights to it: it is the host's.
        kept = [
            line for line in run_program([program, "--list", str(path)]).splitlines() if not OF_THE_HOST.match(line)
        ]
        contents.write("\n".join(kept))
        contents.flush()
        run_program([program, *flags, f"--use-list={contents.name}", str(path)], url)


def restore_sqlite(path: Path, url: URL) -> None:
    """Write into the file that is there, in one transaction: whoever has it open goes on with what was restored."""
    check_backup(path)
    prepare_file(url)
    try:
        with closing(open_backup(path)) as saved, closing(sqlite3.connect(str(url.database))) as live:
            saved.backup(live, progress=wait_a_while())
            live.execute("PRAGMA journal_mode=WAL")
    except sqlite3.Error as error:
        raise CommandError(f"{url.database} cannot be written: {error}. Stop the app first.") from error


def check_backup(path: Path) -> None:
    """A damaged file must be found before anything is replaced."""
    try:
        with closing(open_backup(path)) as saved:
            check_whole(saved, path)
    except sqlite3.Error as error:
        raise CommandError(f"{path} is damaged: {error}.") from error
    with connect(make_url(f"sqlite:///{path}"), snapshot=True) as connection:
        read_revision(connection, str(path))


def open_backup(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)


def restore_rows(path: Path, url: URL) -> None:
    """A SQLite file into PostgreSQL. A copy of the file is brought to the newest migration first."""
    check_backup(path)
    head = get_head(load_graph()) or "base"
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "restore.sqlite3"
        from_url = make_url(f"sqlite:///{copy}")
        prepare_file(from_url)
        copy_sqlite(path, copy)
        migrate_to(from_url, head, str(path))
        migrate_to(url, head, "The database")
        with connect(from_url, snapshot=True) as source, connect(url) as target:
            empty_tables(target, list_tables(target))
            copy_all(source, target)
