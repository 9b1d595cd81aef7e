"""Where the database stands, which migration the code needs, and the way there.

Where it stands is found without Alembic: importing that takes longer than most requests.
"""

import ast
import asyncio
import logging
import threading
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from app.settings import ROOT

if TYPE_CHECKING:
    from sqlalchemy import URL

    from app.database import Database

log = logging.getLogger(__name__)

FOLDER = ROOT / "migrations" / "versions"
PATIENCE_SECONDS = 5  # for a request that comes while migrations run
AGAIN_SECONDS = 5

Parents = dict[str, tuple[str, ...]]

# Alembic keeps what it works on in a module, so a process can only migrate one database after the other.
_one_at_a_time = threading.Lock()


class Standing(NamedTuple):
    """The migrations of the database and of the code, as they are written for people, and how they compare."""

    found: str | None
    needed: str | None
    is_behind: bool
    is_ahead: bool

    @property
    def is_current(self) -> bool:
        return not (self.is_behind or self.is_ahead)


async def read_standing(database: "Database") -> Standing:
    return compare(await read_revisions(database), read_parents())


async def read_revisions(database: "Database") -> list[str]:
    """Give the migrations that the database stands at: usually one, and none where there never was one."""
    from sqlalchemy import text

    async with database.session(reading=True) as session:
        connection = await session.connection()
        if not await connection.run_sync(lambda sync: sync.dialect.has_table(sync, "alembic_version")):
            return []
        return list((await connection.execute(text("SELECT version_num FROM alembic_version"))).scalars())


def compare(found: Iterable[str], parents: Parents) -> Standing:
    found, needed = set(found), find_heads(parents)
    is_ahead = not found <= parents.keys()  # newer code has been here
    return Standing(join(found), join(needed), is_behind=found != needed and not is_ahead, is_ahead=is_ahead)


def find_heads(parents: Parents) -> set[str]:
    return parents.keys() - {before for befores in parents.values() for before in befores}


def join(revisions: Iterable[str]) -> str | None:
    """Two branches of the code have two newest ones, until somebody merges them."""
    return ", ".join(sorted(revisions)) or None


def read_parents() -> Parents:
    """Give each migration's name, and the names of those before it, as the files say."""
    files = sorted(FOLDER.glob("*.py"))
    return dict(found for file in files if (found := read_migration(file, file.stat().st_mtime_ns)))


@lru_cache(maxsize=1000)
def read_migration(file: Path, changed_at: int) -> tuple[str, tuple[str, ...]] | None:
    values: dict[str, Any] = {}
    for line in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name):
            values[line.targets[0].id] = line.value
        elif isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and line.value:
            values[line.target.id] = line.value
    if "revision" not in values:
        return None
    before = ast.literal_eval(values["down_revision"])
    return ast.literal_eval(values["revision"]), (before,) if isinstance(before, str) else before or ()


def collect_ancestors(parents: Parents, names: Iterable[str]) -> Iterator[str]:
    for name in names:
        yield name
        yield from collect_ancestors(parents, parents.get(name, ()))


class MigrationError(Exception):
    """Migrations that could not be applied; the database is as it was. The sentence is for the log: it may hold SQL."""

    def __init__(self, sentence: str, *, may_pass: bool = False) -> None:
        super().__init__(sentence)
        self.may_pass = may_pass


class CatchUp:
    """MIGRATE_ON_START: brings the database up to date beside a server that answers health probes already."""

    def __init__(self, database: "Database") -> None:
        self.database = database
        self.has_failed = False
        self._is_done = asyncio.Event()

    async def run(self) -> None:
        while not await self._is_up_to_date():  # noqa: ASYNC110 (what it waits for is elsewhere)
            await asyncio.sleep(AGAIN_SECONDS)
        self._is_done.set()

    async def wait(self) -> bool:
        """Whether the database is up to date now, or shortly: who asks hardly notices a quick migration."""
        try:
            async with asyncio.timeout(0 if self.has_failed else PATIENCE_SECONDS):
                await self._is_done.wait()
        except TimeoutError:
            return False
        return True

    @property
    def is_done(self) -> bool:
        return self._is_done.is_set()

    async def _is_up_to_date(self) -> bool:
        """Migrate where that is needed. What has failed is not tried again, but somebody else may mend it."""
        try:
            prepare_file(self.database.url)
            is_behind = (await read_standing(self.database)).is_behind
            if is_behind and not self.has_failed:
                await upgrade(self.database)
        except MigrationError as error:
            log.error("%s%s", error, " Trying again" if error.may_pass else "", exc_info=error.__cause__)
            self.has_failed = not error.may_pass
            return False
        except Exception as error:  # whatever a driver raises
            log.warning("The database cannot be migrated yet: %s. Trying again", type(error).__name__)
            return False
        return not (is_behind and self.has_failed)


async def upgrade(database: "Database") -> None:
    """Bring the database to the newest migration, in a thread: it takes its time."""
    try:
        await asyncio.to_thread(run_migrations, database)
    except Exception as error:  # whatever the code of a migration may raise
        words = str(getattr(error, "orig", error)).strip().partition("\n")[0].rstrip(".")
        sentence = f"The migrations were not applied, and the database is as it was before: {words}."
        raise MigrationError(sentence, may_pass=may_pass(error)) from error


def run_migrations(database: "Database") -> None:
    from argparse import Namespace

    from alembic import command
    from alembic.config import Config

    attributes = {"url": database.url, "is_change": True}
    config = Config(ROOT / "alembic.ini", cmd_opts=Namespace(quiet=True), attributes=attributes)
    with _one_at_a_time:
        command.upgrade(config, "head")


def may_pass(error: Exception) -> bool:
    """Whether the same migration may work in a moment: the server was away, or somebody held a table."""
    import sqlite3

    from app.database import UNAVAILABLE

    if isinstance(getattr(error, "orig", None), sqlite3.Error):
        return "locked" in str(error)
    return isinstance(error, UNAVAILABLE)


def prepare_file(url: "URL") -> None:
    """A new SQLite file is for its owner's eyes; SQLite would make it readable for everybody."""
    if url.get_backend_name() != "sqlite":
        return
    path = Path(url.database or "")
    if not path.parent.is_dir():
        sentence = f"There is no folder {path.parent} for the database. Make it, or change DATABASE_URL."
        raise MigrationError(sentence, may_pass=True)
    try:
        path.touch(mode=0o600)
    except OSError as error:
        sentence = f"The database {path} cannot be written: {error.strerror}."
        raise MigrationError(sentence, may_pass=True) from error
