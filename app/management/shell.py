"""A Python shell that knows the app, and the database's own client."""

import ast
import asyncio
import code
import inspect
import os
import shutil
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Coroutine
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

from sqlalchemy.engine import URL

from app import models
from app.database import Database, read_url
from app.management.commands import CommandError, argument, command
from app.management.console import console, is_interactive
from app.settings import load_settings

SOURCE = "<shell>"
BANNER = "{count} objects imported: {names}\n`await` works here: (await session.exec(select(User))).all()"


@command(argument("-c", "--command", help="run this instead of asking, and end"))
def shell(command: str | None = None) -> None:
    """A Python shell with the models, an open database session and top-level await. It runs what is piped in, too."""
    if command is None and not is_interactive():
        command = sys.stdin.read() if sys.stdin else ""
    asyncio.run(run_shell(command))


async def run_shell(source: str | None) -> None:
    database = Database(load_settings())
    try:
        async with database.session() as session:
            namespace = make_namespace() | {"session": session, "database": database}
            if source is None:
                await interact(namespace)
            else:
                await run_source(source, namespace)
    finally:
        await database.close()


def make_namespace() -> dict[str, Any]:
    """What a shell is opened for: the tables, and the words to ask for their rows."""
    from sqlmodel import col, func, select

    tables = {name: getattr(models, name) for name in models.__all__ if name != "SQLModel"}
    return tables | {"select": select, "col": col, "func": func, "settings": load_settings(), "__name__": "__console__"}


async def run_source(source: str, namespace: dict[str, Any]) -> None:
    try:
        await run_code(compile(source, SOURCE, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), namespace)
    except Exception as error:
        print(describe_error(error, SOURCE), end="", file=sys.stderr)
        raise SystemExit(1) from None


def describe_error(error: BaseException, filename: str) -> str:
    """Begin the traceback where the person's own lines begin, not at ours."""
    frames = error.__traceback__
    while frames and frames.tb_frame.f_code.co_filename != filename:
        frames = frames.tb_next
    return "".join(traceback.format_exception(error.with_traceback(frames)))


async def run_code(compiled: CodeType, namespace: dict[str, Any]) -> None:
    result = FunctionType(compiled, namespace)()
    if inspect.iscoroutine(result):
        await result


class AsyncConsole(code.InteractiveConsole):
    """Reads in a thread of its own and runs in the loop's, like `python -m asyncio`."""

    def __init__(self, namespace: dict[str, Any], loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(namespace)
        self.loop = loop
        self.running: Future[None] | None = None
        self.compile.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT

    def runcode(self, code: CodeType) -> None:
        work: Coroutine[Any, Any, None] = run_code(code, self.locals)
        self.running = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            self.running.result()
        except CancelledError:
            self.write("KeyboardInterrupt\n")
        except SystemExit:
            raise
        except BaseException as error:
            self.write(describe_error(error, self.filename))

    def interrupt(self) -> None:
        """Control-C stops what runs; at the prompt it does nothing, as there Control-D ends the shell."""
        if self.running and not self.running.done():
            self.running.cancel()


async def interact(namespace: dict[str, Any]) -> None:
    with suppress(ImportError):  # not every Python has it
        import readline  # noqa: F401 (arrows and history)
    names = sorted(name for name in namespace if not name.startswith("__"))
    banner = console.paint(BANNER.format(count=len(names), names=", ".join(names)), "dim")
    loop = asyncio.get_running_loop()
    shell = AsyncConsole(namespace, loop)
    ended = asyncio.Event()

    def read() -> None:
        with suppress(SystemExit):
            shell.interact(banner, exitmsg="")
        loop.call_soon_threadsafe(ended.set)

    with suppress(NotImplementedError):  # Windows: there Control-C ends the shell
        loop.add_signal_handler(signal.SIGINT, shell.interrupt)
    threading.Thread(target=read, daemon=True).start()
    await ended.wait()


@command(argument("arguments", nargs="*", help="for the client, after --"))
def dbshell(arguments: list[str]) -> None:
    """Open the database's own client, sqlite3 or psql, with the settings of the app."""
    url = read_url(load_settings().database_url.get_secret_value())
    environment = dict(os.environ)
    if url.get_backend_name() == "sqlite":
        program = ["sqlite3", str(url.database)]
        if shutil.which("sqlite3") is None and sys.version_info >= (3, 12):
            program = [sys.executable, "-m", "sqlite3", str(url.database)]
    else:
        program = ["psql", *describe_connection(url)]
        environment |= write_variables(url)
    if shutil.which(program[0]) is None:
        raise CommandError(f"You appear not to have the {Path(program[0]).name!r} program installed or on your path.")
    raise SystemExit(subprocess.call([*program, *arguments], env=environment))  # noqa: S603


def describe_connection(url: URL) -> list[str]:
    """Name a PostgreSQL to its own programs: psql, pg_dump and pg_restore take the same flags."""
    _, keywords = url.get_dialect()().create_connect_args(url)
    named = [("-h", "host"), ("-p", "port"), ("-U", "user"), ("-d", "dbname")]
    return [str(part) for flag, name in named if keywords.get(name) for part in (flag, keywords[name])]


def write_variables(url: URL) -> dict[str, str]:
    """Tell the programs the rest, such as PGSSLMODE. An argument with the password could be seen by everybody here."""
    rest = {f"PG{name.replace('_', '').upper()}": str(value) for name, value in url.query.items()}
    return rest | {"PGPASSWORD": url.password or ""}
