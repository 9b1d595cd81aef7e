"""What a database URL means, and whether it leads anywhere: the first thing to try on a new host."""

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from app.database_url import DatabaseURL, DatabaseURLError, mask, read_database_url
from app.management.commands import CommandError, argument, command, flag
from app.management.console import console
from app.settings import load_settings

if TYPE_CHECKING:
    from psycopg import Connection

CONNECT_SECONDS = 10  # a database that sleeps may need some to wake up
MODES = {
    "disable": "no TLS",
    "allow": "TLS only where the server insists",
    "prefer": "TLS where the server offers it",
    "require": "TLS, whoever the server is",
    "verify-ca": "TLS, and an authority has signed the server",
    "verify-full": "TLS, and an authority has signed the server under this name",
}
# Of a host's name: what people stumble over.
HINTS = {
    "db.": (
        ".supabase.co",
        "has an IPv6 address only. Where that is not reached, take the address of Supabase's pooler",
    ),
    "": (".railway.internal", "is known inside Railway only. Elsewhere take DATABASE_PUBLIC_URL"),
    "dpg-": ("-a", "is known inside Render only. Elsewhere take the external address"),
}
# Words of the driver, the server or a pooler, and ours for them. The first that is found counts.
FAULTS = {
    "password authentication failed": "The password or the user is wrong",
    "SASL authentication failed": "The password or the user is wrong",
    "no password supplied": "The server wants a password, and the URL has none",
    "no such database": "There is no database of this name",
    "no such user": "The password or the user is wrong",
    "server does not support SSL": "The server speaks no TLS. Take sslmode=disable, if the way to it is safe",
    "SSL required": "The server wants TLS. Take sslmode=require",
    "no encryption": "The server wants TLS, or does not let this user in. Take sslmode=require",
    "channel binding": "A pooler in between cannot bind the channel. Take channel_binding=require away",
    "does not match host name": "The server's certificate is for another name. Take the name that its host prints",
    "certificate verify failed": "No authority known here has signed the server's certificate. Name the file of its "
    "authority with sslrootcert, or take sslmode=require",
    "Connection refused": "Nothing listens there. Check the host and the port, and whether the database runs",
    "Network is unreachable": "There is no way to this address. Where it is IPv6 only, take the pooler's",
    "resolve": "There is no host of this name here. Check how it is written",
    "could not translate host name": "There is no host of this name here. Check how it is written",
    "Name or service not known": "There is no host of this name here. Check how it is written",
    "timeout": "Nothing answered in time. Check the port, and whether the host lets this address in",
    "too many": "The server has no connection left. Close some, or lower DATABASE_POOL_SIZE",
    "remaining connection slots": "The server has no connection left. Close some, or lower DATABASE_POOL_SIZE",
    "unsupported startup parameter": "The pooler in between refuses a part of the URL. Take it away",
    "No such file or directory": "No server has opened this socket",
    "closed the connection unexpectedly": "The server hung up. Check the port: something else may listen there",
}


@command(
    argument("url", nargs="?", help="DATABASE_URL if left out; in quotes, for a shell changes some letters"),
    flag("--connect", help="connect, and say what answers"),
)
def dburl(url: str | None = None, *, connect: bool = False) -> None:
    """Say what Oppkit makes of a database URL, without its password."""
    raw = url or load_settings().database_url.get_secret_value()
    try:
        read = read_database_url(raw)
    except DatabaseURLError as error:
        raise CommandError(str(error)) from error
    show(describe(read))
    if connect:
        show(describe_server(read) if read.backend == "postgresql" else describe_file(read))


def show(rows: Iterator[tuple[str, str]]) -> None:
    for name, value in rows:
        print(f"{console.paint(f'{name:<11}', 'dim')} {value}")


def describe(url: DatabaseURL) -> Iterator[tuple[str, str]]:
    yield "url", mask(url)
    if url.backend == "sqlite":
        yield "driver", "SQLite, with aiosqlite"
        yield "file", str(url.database)
        return
    yield "driver", "PostgreSQL, with psycopg 3 and without prepared statements"
    yield "host", url.host or "the socket of this machine"
    yield "port", url.port or "5432"
    yield "database", url.database or f"{url.user or 'the user'!s} (named like the user)"
    yield "user", url.user or "whoever runs the program"
    yield "password", "given" if url.password else "none"
    mode = url.options.get("sslmode", "prefer")
    yield "sslmode", f"{mode}: {MODES[mode]}"
    for name, value in url.options.items():
        if name != "sslmode":
            yield name, value
    for note in (*url.notes, *list_hints(url)):
        yield "note", note


def list_hints(url: DatabaseURL) -> Iterator[str]:
    host = url.host or ""
    for start, (end, hint) in HINTS.items():
        if host.startswith(start) and host.endswith(end):
            yield f"{host} {hint}"


def describe_file(url: DatabaseURL) -> Iterator[tuple[str, str]]:
    import sqlite3
    from contextlib import closing
    from pathlib import Path

    if not Path(str(url.database)).is_file():
        raise CommandError(f"There is no file {url.database} yet. Type: oppman.py migrate")
    try:
        with closing(sqlite3.connect(f"{Path(str(url.database)).as_uri()}?mode=ro", uri=True)) as connection:
            tables = connection.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table'").fetchone()[0]
    except sqlite3.Error as error:
        raise CommandError(f"{url.database} cannot be read: {error}.") from error
    yield "server", f"SQLite {sqlite3.sqlite_version}, {tables} tables"


def describe_server(url: DatabaseURL) -> Iterator[tuple[str, str]]:
    import psycopg

    from app.postgresql import is_pooled

    began = time.perf_counter()
    try:
        options = {"prepare_threshold": None, "connect_timeout": CONNECT_SECONDS}
        with psycopg.connect(**url.keywords | options, autocommit=True) as connection:
            seconds = time.perf_counter() - began
            yield "server", f"PostgreSQL {ask(connection, 'SHOW server_version')}"
            pooled = is_pooled(connection)
            yield "TLS", describe_tls(connection, pooled)
            yield "pooler", "one is in between" if pooled else "none that can be told"
            yield "connecting", f"{seconds * 1000:.0f} ms"
            yield "a question", f"{measure(lambda: ask(connection, 'SELECT 1')) * 1000:.1f} ms (median of 9)"
    except psycopg.Error as error:
        raise CommandError(explain(error, url)) from error


def ask(connection: "Connection", question: str) -> str:
    row = connection.execute(question.encode()).fetchone()
    return str(row[0]) if row else ""


def describe_tls(connection: "Connection", pooled: bool) -> str:
    if not connection.pgconn.ssl_in_use:
        return "none"
    # The server sees the pooler's connection, not ours.
    version = "" if pooled else ask(connection, "SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
    return version or "yes, as far as the pooler"


def measure(act: Callable[[], object]) -> float:
    """Give the median of nine times."""
    times = []
    for _ in range(9):
        began = time.perf_counter()
        act()
        times.append(time.perf_counter() - began)
    return sorted(times)[4]


def explain(error: Exception, url: DatabaseURL) -> str:
    """Put what a database says that lets nobody in into a sentence on what to do."""
    words = str(error)
    if "does not exist" in words:
        what = "database" if "database" in words.partition("does not exist")[0].rpartition("FATAL")[2] else "user"
        return f"There is no {what} of this name on the server ({mask(url)})."
    found = next((ours for theirs, ours in FAULTS.items() if theirs in words), None)
    hints = "".join(f" {hint}." for hint in list_hints(url))
    if found:
        return f"{found} ({mask(url)}).{hints}"
    last = words.strip().splitlines()[-1] if words.strip() else type(error).__name__
    return f"The database does not let us in ({mask(url)}): {last.rstrip('.')}.{hints}"
