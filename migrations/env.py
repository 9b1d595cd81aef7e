"""Runs migrations, on SQLite in batches and on PostgreSQL in one transaction, with the URL of the settings."""

from contextlib import nullcontext
from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, text
from sqlmodel.sql.sqltypes import AutoString

from app.database import WAIT_SECONDS, UTCDateTime, read_url
from app.models import SQLModel
from app.safety_copy import safety_copy
from app.settings import load_settings

MIGRATION_LOCK = 7_061_955_241  # any number, the same in every process
LOCK_SECONDS = 10


def render_item(kind: str, value: Any, autogen_context: AutogenContext) -> str | Literal[False]:
    """Migrations speak plain SQLAlchemy, so that they still run when our own types have moved."""
    if kind == "type" and isinstance(value, AutoString):
        return f"sa.String(length={value.length})" if value.length else "sa.String()"
    if kind == "type" and isinstance(value, UTCDateTime):
        return "sa.DateTime(timezone=True)"
    return False


def find_url() -> URL:
    """A running app says which database is meant; the command line means the one of the settings."""
    given: URL | None = context.config.attributes.get("url")
    return given or read_url(load_settings().database_url.get_secret_value())


def make_engine() -> Engine:
    """An engine of its own: with foreign keys on, rebuilding a table on SQLite would delete its children's rows."""
    url = find_url()
    if url.get_backend_name() == "sqlite":
        return create_engine(url.set(drivername="sqlite"), poolclass=NullPool, hide_parameters=True)
    from app.postgresql import connect_options

    return create_engine(url, connect_args=connect_options(WAIT_SECONDS), poolclass=NullPool, hide_parameters=True)


def take_turns(connection: Connection) -> None:
    """Two processes that migrate at once must follow each other. The lock ends with the transaction."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA busy_timeout=60000")
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        # A change of a table waits for those who use it, and all others wait behind it: rather fail, and try again.
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")


def configure(**options: Any) -> None:
    context.configure(
        target_metadata=SQLModel.metadata,
        render_item=render_item,
        render_as_batch=True,
        compare_type=True,
        **options,
    )


def run_offline() -> None:
    url = find_url()
    dialect = {"sqlite": "sqlite", "postgresql": "postgresql"}[url.get_backend_name()]
    configure(dialect_name=dialect, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()


def run_online() -> None:
    given = context.config.attributes
    with make_engine().connect() as connection:
        take_turns(connection)
        # Which migrations are to be run is found after this, so who waited for a turn finds nothing left to do.
        configure(connection=connection, on_version_apply=given.get("on_version_apply"))
        needs_copy = given.get("is_change") and connection.dialect.name == "sqlite"
        with safety_copy(connection) if needs_copy else nullcontext(), context.begin_transaction():
            context.run_migrations()
        connection.commit()


if context.is_offline_mode():
    run_offline()
else:
    run_online()
