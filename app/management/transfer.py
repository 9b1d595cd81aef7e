"""Copies every row of one database into another, SQLite or PostgreSQL, either way, and proves that all have arrived.

Memory is bounded: rows go through in batches. Everything is one transaction on the other side, so whatever happens
meanwhile, the other side holds all of it in the end, or none.
"""

import json
import sqlite3
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple

import psycopg
from alembic import command
from sqlalchemy import (
    JSON,
    DateTime,
    LargeBinary,
    MetaData,
    NullPool,
    Table,
    TypeDecorator,
    create_engine,
    event,
    func,
    inspect,
    select,
    text,
)
from sqlalchemy.engine import URL, Connection, Dialect

from app.database import WAIT_SECONDS
from app.management.commands import CommandError
from app.management.console import console
from app.management.loading import set_sequence
from app.management.migrations import make_config, readable_errors
from app.management.session import readable_faults
from app.models import SQLModel
from app.schema import read_parents

BATCH = 2000  # rows
VERSIONS = "alembic_version"
# A host may set short ones for each role; a move takes as long as it takes, but waits for nobody.
LIMITS = (
    "SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL lock_timeout = '10s'"
)
HASH_BITS = 64

Row = tuple[Any, ...]
Convert = Callable[[Any], Any]


class Proof(NamedTuple):
    """How many rows, and the sum of their hashes. Equal values have equal hashes, whichever engine gave them."""

    rows: int = 0
    checksum: int = 0


class TransferError(CommandError):
    """Something in the way. The other side is as it was before, and the sentence ends with that."""

    def __init__(self, sentence: str) -> None:
        super().__init__(f"{sentence} Nothing was copied.")


@contextmanager
def connect(url: URL, *, snapshot: bool = False) -> Iterator[Connection]:
    """Open a plain connection, without time limits. A snapshot does not see what is written meanwhile."""
    is_sqlite = url.get_backend_name() == "sqlite"
    if is_sqlite:
        engine = create_engine(url.set(drivername="sqlite"), poolclass=NullPool, hide_parameters=True)
        event.listen(engine, "connect", lambda connection, _: setattr(connection, "isolation_level", None))
        event.listen(engine, "begin", lambda it: it.exec_driver_sql("BEGIN" if snapshot else "BEGIN IMMEDIATE"))
    else:
        from app.postgresql import connect_options

        engine = create_engine(
            url, connect_args=connect_options(WAIT_SECONDS), poolclass=NullPool, hide_parameters=True
        )
        event.listen(engine, "begin", lambda it: it.exec_driver_sql(LIMITS))
        if snapshot:
            engine = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    with readable_faults(), engine.connect() as connection:
        yield connection


def has_pooler(connection: Connection) -> bool:
    from app.postgresql import is_pooled

    return is_pooled(connection.connection.driver_connection)  # type: ignore[arg-type]


def read_revision(connection: Connection, name: str) -> str:
    """Give the migration that a database stands at, which must be one of this code."""
    found = []
    if inspect(connection).has_table(VERSIONS):
        found = list(connection.execute(text(f"SELECT version_num FROM {VERSIONS}")).scalars())  # noqa: S608
    if len(found) != 1:
        raise CommandError(f"{name} has no tables of this app. Check the address.")
    if found[0] not in read_parents():
        raise CommandError(f"{name} stands at migration {found[0]}, which this code does not have. Update this code.")
    return str(found[0])


def migrate_to(url: URL, revision: str, name: str) -> None:
    """Make the tables, as they were at that migration."""
    config = make_config()
    config.attributes["url"] = url
    with readable_errors():
        command.upgrade(config, revision)
    with connect(url, snapshot=True) as connection:
        if (found := read_revision(connection, name)) != revision:
            raise CommandError(f"{name} stands at migration {found}, and the rows belong to {revision}.")


def list_tables(connection: Connection) -> list[Table]:
    """Give the tables that are there, parents first; of what type a column is, the models know better."""
    found = MetaData()
    found.reflect(connection)
    for table in found.sorted_tables:
        known = SQLModel.metadata.tables.get(table.name)
        for column in table.columns if known is not None else ():
            if column.name in known.columns:  # type: ignore[union-attr]
                column.type = known.columns[column.name].type  # type: ignore[union-attr]
    return [table for table in found.sorted_tables if table.name != VERSIONS]


def find_filled(connection: Connection) -> str | None:
    """Name a table that has rows."""
    for table in list_tables(connection):
        if connection.execute(select(text("1")).select_from(table).limit(1)).first():
            return table.name
    return None


def copy_all(source: Connection, target: Connection) -> dict[str, Proof]:
    """Copy all tables, and commit when what arrived is proven to be what was sent."""
    tables, known = list_tables(source), {table.name: table for table in list_tables(target)}
    if strange := [table.name for table in tables if table.name not in known]:
        raise TransferError(f"The migrations make no table {strange[0]!r}, so it has no place to go.")
    proofs = {table.name: copy_table(source, target, table, known[table.name]) for table in tables}
    check_references(target)
    if target.dialect.name == "postgresql":
        for table in tables:
            set_sequence(target, known[table.name])
    target.commit()
    return proofs


def copy_table(source: Connection, target: Connection, table: Table, into: Table) -> Proof:
    total = source.execute(select(func.count()).select_from(table)).scalar_one()
    began = time.monotonic()
    sent = Counter(table)
    with naming_the_row(table, sent), closing(read(source, table)) as batches:
        write(target, into, table.columns.keys(), show_progress(sent.count(batches), table.name, total))
    arrived = Counter(table)
    for _ in arrived.count(read(target, into)):
        pass
    if sent.proof != arrived.proof or sent.proof.rows != total:
        raise TransferError(f"The table {table.name!r} did not arrive as it was sent.")
    seconds = time.monotonic() - began
    rate = f", {total / seconds:,.0f} a second" if seconds > 1 else ""
    console.say(f"  {table.name}: {total:,} {'row' if total == 1 else 'rows'}{rate}")
    return sent.proof


class Counter:
    """Counts rows and sums their hashes while they pass, and remembers the last one."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.proof = Proof()
        self.last: Row = ()

    def count(self, batches: Iterator[list[Row]]) -> Iterator[Row]:
        for batch in batches:
            total = sum(map(hash, batch))
            self.proof = Proof(self.proof.rows + len(batch), (self.proof.checksum + total) % 2**HASH_BITS)
            for self.last in batch:
                yield self.last

    def name_last(self) -> str:
        named = zip(self.table.columns, self.last, strict=True)
        return " and ".join(f"{column.name} {value}" for column, value in named if column.primary_key)


def read(connection: Connection, table: Table) -> Generator[list[Row], None, None]:
    """Give the rows in batches, with every value in the one form that both engines' values can be compared in."""
    convert = [(index, to_plain(column.type)) for index, column in enumerate(table.columns)]
    changes = [(index, change) for index, change in convert if change]
    # yield_per keeps the rows in the database: on PostgreSQL it is a cursor, which lives as long as the transaction.
    with connection.execute(select(*table.columns).execution_options(yield_per=BATCH)) as result:
        for rows in result.partitions():
            lists = [list(row) for row in rows]
            for index, change in changes:
                for values in lists:
                    if values[index] is not None:
                        values[index] = change(values[index])
            yield [tuple(values) for values in lists]


def to_plain(kind: Any) -> Convert | None:
    if isinstance(kind, TypeDecorator):
        kind = kind.impl_instance
    if isinstance(kind, JSON):
        return lambda value: json.dumps(value, sort_keys=True)
    if isinstance(kind, LargeBinary):
        return bytes
    if isinstance(kind, DateTime) and kind.timezone:
        return in_utc
    return None


def in_utc(value: datetime) -> datetime:
    return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


def write(connection: Connection, table: Table, names: Sequence[str], rows: Iterator[Row]) -> None:
    quote = connection.dialect.identifier_preparer.quote
    into = f"{connection.dialect.identifier_preparer.format_table(table)} ({', '.join(map(quote, names))})"
    ready = for_driver(rows, [make_binder(table.columns[name].type, connection.dialect) for name in names])
    cursor: Any = connection.connection.cursor()
    try:
        if connection.dialect.name == "sqlite":
            marks = ", ".join("?" * len(names))
            cursor.executemany(f"INSERT INTO {into} VALUES ({marks})", ready)  # noqa: S608
        else:
            with cursor.copy(f"COPY {into} FROM STDIN") as copy:
                for row in ready:
                    copy.write_row(row)
    finally:
        cursor.close()


def make_binder(kind: Any, dialect: Dialect) -> Convert | None:
    """What SQLAlchemy does with a value of this type before the driver gets it."""
    plain = kind.impl_instance if isinstance(kind, TypeDecorator) else kind
    if isinstance(plain, JSON):
        return None  # it is text already
    binder: Convert | None = kind.dialect_impl(dialect).bind_processor(dialect)
    return binder


def for_driver(rows: Iterator[Row], binders: Sequence[Convert | None]) -> Iterator[Sequence[Any]]:
    changes = [(index, bind) for index, bind in enumerate(binders) if bind]
    if not changes:
        return rows
    return (bind_row(row, changes) for row in rows)


def bind_row(row: Row, changes: Sequence[tuple[int, Convert]]) -> list[Any]:
    values = list(row)
    for index, bind in changes:
        values[index] = bind(values[index])
    return values


@contextmanager
def naming_the_row(table: Table, sent: Counter) -> Iterator[None]:
    """Whoever has to mend a row that the other engine cannot hold must know which one it is."""
    try:
        yield
    except (psycopg.Error, sqlite3.Error, ValueError, OverflowError) as error:
        words = str(error).strip().partition("\n")[0]
        near = f", at or before the row with {sent.name_last()}" if sent.last else ""
        raise TransferError(f"{table.name!r} cannot be stored{near}: {words}.") from error


def check_references(connection: Connection) -> None:
    """PostgreSQL has looked already. SQLite does not look while it is filled."""
    if connection.dialect.name != "sqlite":
        return
    if wrong := connection.exec_driver_sql("PRAGMA foreign_key_check").first():
        raise TransferError(f"A row of {wrong[0]!r} points to one of {wrong[2]!r} that is not there.")


def show_progress(rows: Iterator[Row], name: str, total: int) -> Iterator[Row]:
    for done, row in enumerate(rows):
        if done % BATCH == 0:
            console.show_progress(name, done, total)
        yield row
    console.show_progress(name, total, total)
