"""The database: its URL, the engine, a session for each request, and the database's own clock."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Depends, Request
from sqlalchemy import Connection, DateTime, Dialect, Insert, MetaData, TypeDecorator, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlmodel import SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from app.database_url import DatabaseURL, DatabaseURLError, read_database_url
from app.settings import Settings, refuse

STATEMENT_SECONDS = 15  # a statement that takes longer is cancelled (PostgreSQL)
WAIT_SECONDS = 5  # for a connection from the pool, or to the server
SEARCH_LENGTH = 100  # characters of a search that are looked for
BUSY_MILLISECONDS = 10_000  # how long SQLite waits for another writer

UNAVAILABLE = (OperationalError, InterfaceError, PoolTimeoutError)  # errors of a database that may answer later

# Names for constraints, so that a migration can drop what another one made, on both engines.
SQLModel.metadata.naming_convention = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_N_label)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
).naming_convention


class Database:
    """An engine and its sessions. Reading sessions do not take SQLite's one place for a writer."""

    def __init__(self, settings: Settings) -> None:
        self.url = read_url(settings.database_url.get_secret_value())
        self.engine = create_engine(self.url, settings.database_pool_size)
        info = {"secret_key": settings.secret_key.get_secret_value().encode()}
        self._writing = make_sessions(self.engine, info)
        self._reading = make_sessions(self.engine.execution_options(sqlite_begin="BEGIN"), info)

    def session(self, *, reading: bool = False) -> AsyncSession:
        return self._reading() if reading else self._writing()

    async def close(self) -> None:
        await self.engine.dispose()


def insert_new(target: AsyncSession | AsyncConnection, table: type[SQLModel]) -> Insert:
    """An INSERT that leaves out rows that are there already: what may have been saved can be sent again."""
    bind = target if isinstance(target, AsyncConnection) else target.get_bind()
    dialect = sqlite if bind.dialect.name == "sqlite" else postgresql
    insert: Insert = dialect.insert(table).on_conflict_do_nothing()
    return insert


def make_sessions(engine: AsyncEngine, info: dict[str, Any]) -> async_sessionmaker[AsyncSession]:
    return async_sessionmaker(engine, class_=AsyncSession, expire_on_commit=False, info=info)


def read_url(raw: str) -> URL:
    """Turn a database URL as hosts print it into one for our drivers; what cannot work ends the program."""
    try:
        read = read_database_url(raw)
    except DatabaseURLError as error:
        refuse(str(error))
    return make_url(read)


def make_url(read: DatabaseURL) -> URL:
    """Everything but names and password goes where SQLAlchemy hands it to the driver as it is."""
    if read.backend == "sqlite":
        return URL.create("sqlite+aiosqlite", database=read.database, query=read.options)
    host, port, query = read.host, read.port, dict(read.options)
    if host and (host.startswith("/") or "," in host):
        query |= {"host": host} | ({"port": port} if port else {})
        host = port = None
    number = int(port) if port else None
    return URL.create("postgresql+psycopg", read.user, read.password, host, number, read.database, query)


def create_engine(url: URL, pool_size: int) -> AsyncEngine:
    options: dict[str, Any] = {"pool_size": pool_size, "max_overflow": 0, "pool_timeout": WAIT_SECONDS}
    if url.get_backend_name() == "postgresql":
        from app.postgresql import PatientConnection, connect_options, limit_patience

        connect = connect_options(WAIT_SECONDS) | {"async_creator_fn": PatientConnection.connect}
        options |= {"pool_pre_ping": True, "pool_recycle": 300, "connect_args": connect}
    # Values stay out of error messages: they hold what people wrote.
    engine = create_async_engine(url, hide_parameters=True, **options)
    if url.get_backend_name() == "sqlite":
        event.listen(engine.sync_engine, "connect", prepare_sqlite)
        event.listen(engine.sync_engine, "begin", begin_sqlite)
    else:
        event.listen(engine.sync_engine, "begin", limit_statements)
        limit_patience(engine.sync_engine, idle=WAIT_SECONDS, busy=STATEMENT_SECONDS + 2)
    return engine


def prepare_sqlite(connection: Any, record: object) -> None:
    """SQLite forgets these at each connection. Transactions are begun by us, not by the driver."""
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute(f"PRAGMA busy_timeout={BUSY_MILLISECONDS}")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def begin_sqlite(connection: Connection) -> None:
    """Writers queue for their turn at once; a reader that turns writer later would fail instead of waiting."""
    connection.exec_driver_sql(connection.get_execution_options().get("sqlite_begin", "BEGIN IMMEDIATE"))


def limit_statements(connection: Connection) -> None:
    """LOCAL: a pooler would hand a session's setting to other clients."""
    connection.exec_driver_sql(f"SET LOCAL statement_timeout = '{STATEMENT_SECONDS}s'")


def now() -> datetime:
    return datetime.now(UTC)


def lacks_table(error: DBAPIError) -> bool:
    """Whether a table or a column is missing: the database stands at an older migration than the code."""
    words = str(error.orig)
    if "does not exist" in words:  # PostgreSQL
        return "relation" in words or "column" in words
    return any(fault in words for fault in ("no such table", "no such column", "has no column named"))


def is_full(error: DBAPIError) -> bool:
    """Whether the database's disk has no room left. Reading still works."""
    words = str(error.orig)
    return "database or disk is full" in words or "No space left on device" in words


class UTCDateTime(TypeDecorator[datetime]):
    """A point in time that comes back with its zone from SQLite, too, which forgets it."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value and (value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC))


class database_time(FunctionElement[datetime]):  # noqa: N801 (reads as the SQL function that it is)
    """The database's clock, some seconds from now. Leases use it: several machines never agree on their own."""

    type = UTCDateTime()
    inherit_cache = False

    def __init__(self, seconds: int = 0) -> None:
        super().__init__()
        self.seconds = seconds


@compiles(database_time, "sqlite")
def compile_time_for_sqlite(element: database_time, compiler: SQLCompiler, **kwargs: Any) -> str:
    return f"strftime('%Y-%m-%d %H:%M:%f000', 'now', '{element.seconds:+d} seconds')"


@compiles(database_time)
def compile_time(element: database_time, compiler: SQLCompiler, **kwargs: Any) -> str:
    return f"(clock_timestamp() + interval '{element.seconds:d} seconds')"


def spell(term: str) -> set[str]:
    """SQLite knows small and capital letters in English only, so other words are tried in each way of writing them."""
    term = term.strip().replace("\0", "")[:SEARCH_LENGTH]
    return {term} if term.isascii() else {term, term.lower(), term.upper(), term.title()}


async def open_session(request: Request) -> AsyncIterator[AsyncSession]:
    """A session for one request. It is closed before the answer goes out, so a stream holds no connection."""
    reading = request.method in ("GET", "HEAD", "OPTIONS")
    async with request.app.state.database.session(reading=reading) as session:
        yield session


SessionDep = Annotated[AsyncSession, Depends(open_session, scope="function")]
