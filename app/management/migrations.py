"""Alembic, by its public functions: where the migrations are, which are applied, and one step at a time."""

import argparse
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import alembic.util
from alembic import command
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import Script, ScriptDirectory
from sqlalchemy.engine import URL

from app import schema
from app.database import read_url
from app.management.commands import CommandError
from app.management.console import how_to
from app.management.session import readable_faults
from app.safety_copy import CopyError
from app.settings import ROOT, load_settings

FOLDER = ROOT / "migrations" / "versions"


def make_config(output: io.StringIO | None = None, **attributes: Any) -> Config:
    """Alembic's settings; SQL that it writes instead of running goes to `output`, attributes to migrations/env.py."""
    quiet = argparse.Namespace(quiet=True)
    return Config(ROOT / "alembic.ini", output_buffer=output, cmd_opts=quiet, attributes=attributes)


@contextmanager
def readable_errors() -> Iterator[None]:
    """What Alembic, the database and the disk complain about, in one line."""
    try:
        with readable_faults():
            yield
    except alembic.util.CommandError as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(f"{error.filename} cannot be written: {error.strerror}.") from error


def load_graph() -> ScriptDirectory:
    """Read all migrations; two with the same number, from two branches of the code, must not shadow each other."""
    with warnings.catch_warnings(), readable_errors():
        warnings.filterwarnings("error", message="Revision .* is present more than once")
        graph = ScriptDirectory.from_config(make_config())
        try:
            graph.get_heads()
        except UserWarning as warning:
            number = str(warning).split()[1]
            raise CommandError(
                f"Two migrations have the number {number}. Give the newer one the next number, in its file's name and "
                f"its `revision`, and let its `down_revision` be {number!r}."
            ) from warning
    return graph


def get_head(graph: ScriptDirectory) -> str | None:
    """Give the newest migration. Two newest ones come from two branches of the code."""
    heads = graph.get_heads()
    if len(heads) > 1:
        names = ", ".join(name_migration(graph, head) for head in heads)
        raise CommandError(
            f"Conflicting migrations detected; multiple leaf nodes in the migration graph: ({names}). "
            f"To fix them type: {how_to('makemigrations --merge')}"
        )
    return heads[0] if heads else None


def name_migration(graph: ScriptDirectory, revision: str) -> str:
    """Django's way to call one: 0001_start."""
    return Path(graph.get_revision(revision).path).stem


def list_migrations(graph: ScriptDirectory) -> list[Script]:
    """Give all of them, the first one first."""
    return list(graph.walk_revisions())[::-1]


def list_applied(graph: ScriptDirectory) -> set[str]:
    heads = read_heads()
    if unknown := set(heads) - {script.revision for script in graph.walk_revisions()}:
        raise CommandError(
            f"The database stands at migration {', '.join(sorted(unknown))}, which this code does not have. "
            "Newer code has been here: update this one."
        )
    return {script.revision for script in graph.iterate_revisions(heads or "base", "base")}


def read_heads() -> tuple[str, ...]:
    """Ask the database where it stands, without changing it."""
    found: list[str] = []

    def look(heads: Any, context: Any) -> list[Any]:
        found.extend([heads] if isinstance(heads, str) else heads)
        return []

    config = make_config()
    with (
        readable_errors(),
        EnvironmentContext(config, ScriptDirectory.from_config(config), fn=look, dont_mutate=True) as environment,
    ):
        environment.script.run_env()
    return tuple(found)


@contextmanager
def one_transaction(script: Script, done: str) -> Iterator[None]:
    """A migration is applied as a whole, or not at all: on both engines it is one transaction (migrations/env.py)."""
    try:
        yield
    except alembic.util.CommandError:
        raise
    except CopyError as error:
        raise CommandError(str(error)) from error
    except Exception as error:  # whatever its code may raise
        words = str(getattr(error, "orig", error)).strip().partition("\n")[0].rstrip(".")
        raise CommandError(
            f"{Path(script.path).stem} was not {done}, and the database is as it was before: "
            f"{type(error).__name__}: {words}. Mend it, and try again; --traceback shows the place."
        ) from error


def apply(script: Script) -> bool:
    """Apply a migration; False where another process did it while this one waited for its turn."""
    done: list[object] = []
    config = make_config(is_change=True, on_version_apply=lambda **step: done.append(step))
    with readable_errors(), one_transaction(script, "applied"):
        command.upgrade(config, script.revision)
    return bool(done)


def unapply(script: Script) -> bool:
    """Go back to before a migration; False where another process did."""
    before = script.down_revision or "base"
    if not isinstance(before, str):
        raise CommandError(f"{script.revision} joins two branches. Type: alembic downgrade")
    with readable_errors(), one_transaction(script, "taken back"):
        try:
            command.downgrade(make_config(is_change=True), before)
        except alembic.util.CommandError:  # there is no way from where the database stands now
            if script.revision in list_applied(load_graph()):
                raise
            return False
    return True


def mark(revision: str) -> None:
    with readable_errors():
        command.stamp(make_config(), revision)


def prepare_file(url: URL | None = None) -> None:
    """Without a URL it is the database of the settings."""
    try:
        schema.prepare_file(url or read_url(load_settings().database_url.get_secret_value()))
    except schema.MigrationError as error:
        raise CommandError(str(error)) from error
