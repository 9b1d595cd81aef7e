"""What the database says about itself: its version, its limits, and what stands between it and us."""

import asyncio
import socket
import sqlite3
import ssl
import struct
import time
from pathlib import Path
from statistics import median
from typing import Any, Literal, NamedTuple

from sqlalchemy import text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import col, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.auth.models import User
from app.database import UNAVAILABLE, Database, read_url
from app.management.commands import CommandError
from app.management.session import run_with_session
from app.settings import Settings

SECONDS = 15  # for everything that is asked
ROUNDS = 3
SSL_REQUEST = struct.pack("!ii", 8, 80877103)  # https://www.postgresql.org/docs/current/protocol-message-formats.html
LIMITS = """
    SELECT least(current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int,
                 nullif(datconnlimit, -1), nullif(rolconnlimit, -1))
    FROM pg_database, pg_roles WHERE datname = current_database() AND rolname = current_user"""

Pooler = Literal["none", "session", "transaction"]


class DatabaseFacts(NamedTuple):
    driver: str
    server: str
    round_trip: float  # seconds
    tls: str = ""  # empty: not encrypted
    pooler: Pooler = "none"
    connection_limit: int | None = None  # those of the server that we may have


class People(NamedTuple):
    superusers: int
    of_the_demo: int


def inspect_database(settings: Settings) -> DatabaseFacts | None:
    """Connect and ask; None where nobody answers, which the check of the migrations has said."""
    url = read_url(settings.database_url.get_secret_value())
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
        return None  # connecting would make it
    try:
        return asyncio.run(ask(settings))
    except (*UNAVAILABLE, OSError, TimeoutError):
        return None


async def ask(settings: Settings) -> DatabaseFacts:
    # Two connections at once can tell a pooler; a pool of one would wait for itself.
    database = Database(settings.model_copy(update={"database_pool_size": 2}))
    try:
        async with asyncio.timeout(SECONDS), database.engine.connect() as connection:
            if connection.dialect.name == "sqlite":
                version = f"SQLite {sqlite3.sqlite_version}"
                return DatabaseFacts("aiosqlite", version, await measure_round_trip(connection))
            async with database.engine.connect() as other:
                return await ask_postgresql(connection, other)
    finally:
        await database.close()


async def measure_round_trip(connection: AsyncConnection) -> float:
    times = []
    for _ in range(5):
        begun = time.perf_counter()
        await connection.execute(text("SELECT 1"))
        times.append(time.perf_counter() - begun)
    await connection.rollback()
    return median(times)


async def ask_postgresql(connection: AsyncConnection, other: AsyncConnection) -> DatabaseFacts:
    import psycopg

    raw: Any = (await connection.get_raw_connection()).driver_connection
    version: str = (await connection.execute(text("SELECT version()"))).scalar_one()
    return DatabaseFacts(
        f"psycopg {psycopg.__version__} ({psycopg.pq.__impl__}, libpq {psycopg.pq.version() // 10_000})",
        version.partition(" on ")[0].partition(",")[0],
        await measure_round_trip(connection),
        await asyncio.to_thread(read_cipher, raw.info.host, raw.info.port) if raw.pgconn.ssl_in_use else "",
        await find_pooler(connection, other),
        await find_limit(connection),
    )


async def find_pooler(connection: AsyncConnection, other: AsyncConnection) -> Pooler:
    """A pooler that hands out a server's connection for one transaction gives itself away: the same one serves two of
    ours, or several serve one. Any other one does not know the number that the server calls its connection by.
    """
    mine, theirs = set(), set()
    for _ in range(ROUNDS):
        # Twice, then once: with turns that alternate, two connections that are handed out in turn would look like ours.
        mine |= {await read_number(connection), await read_number(connection)}
        theirs.add(await read_number(other))
    if len(mine) > 1 or len(theirs) > 1 or mine & theirs:
        return "transaction"
    raw: Any = (await connection.get_raw_connection()).driver_connection
    return "none" if mine == {raw.info.backend_pid} else "session"


async def read_number(connection: AsyncConnection) -> int:
    """Give the number of the server's process, from a transaction of its own."""
    number: int = (await connection.execute(text("SELECT pg_backend_pid()"))).scalar_one()
    await connection.rollback()
    return number


async def find_limit(connection: AsyncConnection) -> int | None:
    """Give how many connections this database and this role may have; None where the server does not say."""
    try:
        limit: int | None = (await connection.execute(text(LIMITS))).scalar()
    except DBAPIError:
        limit = None
    await connection.rollback()
    return limit


def read_cipher(host: str, port: int) -> str:
    """Shake hands once more, since the driver keeps to itself what it agreed on, and a server behind a pooler cannot
    know it. Whether the certificate is good is for the driver to judge (sslmode).
    """
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with socket.create_connection((host, port), timeout=5) as plain:
            plain.sendall(SSL_REQUEST)
            if plain.recv(1) != b"S":
                return "yes"
            with context.wrap_socket(plain, server_hostname=host) as secure:
                return f"{secure.version()}, {(secure.cipher() or ['?'])[0]}"
    except OSError:
        return "yes"


def count_people() -> People | None:
    """None where the tables are missing, which the check of the migrations has said."""

    async def count(session: AsyncSession) -> People:
        superusers = select(func.count()).select_from(User).where(col(User.is_superuser), col(User.is_active))
        demo = select(func.count()).select_from(User).where(col(User.email).endswith("@example.com"))
        return People((await session.exec(superusers)).one(), (await session.exec(demo)).one())

    try:
        return run_with_session(count)
    except CommandError:
        return None


def goes_over_a_network(url: URL) -> bool:
    """Whether others could listen: not on this machine, nor in a network of containers (`db`, `*.internal`)."""
    host = url.host or str(url.query.get("host", ""))
    if not host or host.startswith(("/", "127.")) or host in ("localhost", "::1"):
        return False
    return ("." in host or ":" in host) and not host.endswith((".internal", ".flycast", ".localhost"))


def demands_tls(url: URL) -> bool:
    return url.query.get("sslmode") in ("require", "verify-ca", "verify-full")
