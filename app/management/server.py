"""Serves the app from the terminal: in development with reload, and with the small model beside it."""

import errno
import gc
import os
import re
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from app.management.commands import CommandError, argument, command, flag, pause_garbage_collection
from app.management.console import console, how_to
from app.management.logs import make_log_config
from app.management.pending import count_pending
from app.settings import ENV_FILE, ROOT, Settings, load_settings, refuse

if TYPE_CHECKING:
    from fastapi import FastAPI

DEFAULT_PORT = 8000
GARBAGE_THRESHOLDS = (
    20_000,
    50,
    100,
)  # Markdown makes many short-lived objects: looking for rings rarely saves a tenth
BACKLOG = 2048
OPEN_FILES = 4096
SEND_BUFFER_LENGTH = 65_536  # bytes that the system keeps for a slow reader; by itself it takes up to four million
HOST = r"[0-9]{1,3}(\.[0-9]{1,3}){3}|\[[0-9a-f:]+\]|(?=.*[a-z])[a-z0-9.-]+|0"
ADDRESS = re.compile(rf"((?P<host>{HOST}):)?(?P<port>[0-9]+)", re.IGNORECASE)

# How long open streams may go on when the server is to end. Hosts kill after ten seconds or later, and saving what
# there is of ten answers takes two of them where there is little processor.
GRACE_SECONDS = {"development": 1, "production": 4}


class Address(NamedTuple):
    host: str
    port: int

    @property
    def url(self) -> str:
        """An address that a browser on this machine can open: 0.0.0.0 is none."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.host)  # noqa: S104
        return f"http://{f'[{host}]' if ':' in host and host[0] != '[' else host}:{self.port}/"


@command(
    argument("addrport", nargs="?", help="8001, 0:8000 or 127.0.0.1:8000; PORT in the environment counts, too"),
    flag("--noreload", help="do not start again when the code changes"),
    argument(
        "--workers", type=int, default=1, help="processes that answer, on one PostgreSQL; more than one: no reload"
    ),
)
def runserver(addrport: str | None = None, *, noreload: bool = False, workers: int = 1) -> None:
    """Serve the app, with the small local model beside it where no other is set up. Control-C ends both."""
    if workers < 1:
        raise CommandError("--workers is the number of processes, 1 or more.")
    settings = load_settings()
    if settings.is_production:
        refuse_forgetful_disk(settings)
    listener = listen(read_address(addrport, settings.is_production), "runserver 8001")
    if not settings.is_production:  # there the port has to answer before anything waits for a database
        warn_of_migrations()
    serve(listener, settings, reloads=not (noreload or settings.is_production or workers > 1), workers=workers)


def refuse_forgetful_disk(settings: Settings) -> None:
    """A host that sleeps keeps nothing below /tmp and lets nobody write elsewhere: what people wrote would be lost."""
    url = settings.database_url.get_secret_value().strip()
    if not url.startswith("sqlite"):  # before anything heavy is imported
        return
    from app.database import read_url

    folder = Path(read_url(url).database or "").parent
    is_temporary = Path("/tmp").resolve() in (folder / "file").resolve().parents  # noqa: S108 (it is refused)
    if is_temporary or not os.access(folder, os.W_OK):
        reason = "is emptied at each start" if is_temporary else "cannot be written to"
        refuse(
            f"DATABASE_URL names a SQLite file in {folder}, which {reason}. Set it to a PostgreSQL URL like "
            "postgresql://user:password@host:5432/name, or to a file on a disk that stays."
        )


def read_address(addrport: str | None, is_production: bool = False) -> Address:
    """Read an address as Django does. On a host only PORT is known, and the whole network has to get in."""
    everywhere, here = "0.0.0.0", "127.0.0.1"  # noqa: S104
    text = addrport or os.environ.get("PORT") or str(DEFAULT_PORT)
    match = ADDRESS.fullmatch(text)
    if not match or int(match["port"]) > 65535:
        raise CommandError(f'"{text}" is not a valid port number or address:port pair.')
    host = match["host"] or (everywhere if is_production else here)
    return Address(everywhere if host == "0" else host.strip("[]"), int(match["port"]))


def listen(address: Address, example: str) -> socket.socket:
    """Take the port at once, so that a taken one is known before anything is done; early browsers wait in line."""
    try:
        family, *_, where = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
        return open_listener(family, where)
    except PermissionError:
        raise CommandError(f"You don't have permission to use port {address.port}. Try: {how_to(example)}") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise CommandError(f"Port {address.port} is already in use. Choose another: {how_to(example)}") from None
        raise CommandError(f"Nobody can listen at {address.host}:{address.port}: {error.strerror}.") from None


def open_listener(family: int, where: Any) -> socket.socket:
    listener = socket.socket(family)
    try:
        if os.name == "posix":  # elsewhere this would let two servers share the port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_LENGTH)  # its connections inherit it
        listener.bind(where)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def warn_of_migrations() -> None:
    if pending := count_pending():
        console.say(
            f"\nYou have {pending} unapplied migration(s). Your project may not work properly until you apply the "
            f"migrations.\nRun '{how_to('migrate')}' to apply them.\n"
        )


def serve(listener: socket.socket, settings: Settings, *, reloads: bool, workers: int = 1, greets: bool = True) -> None:
    """Serve until Control-C or SIGTERM, and leave nothing running behind."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that what was started here is ended here
    try:
        with run_local_model(settings) if wants_local_model(settings) else nullcontext():
            if greets:
                greet(listener)
            run_uvicorn(listener, settings, reloads, workers)
    except KeyboardInterrupt:
        pass
    listener.close()
    console.say()


def wants_local_model(settings: Settings) -> bool:
    """The small model answers where nothing else is set up; in production only where it was asked for."""
    if has_provider(settings) or settings.local_llm_url:
        return False
    return settings.local_llm == "on" or (settings.local_llm == "auto" and not settings.is_production)


def has_provider(settings: Settings) -> bool:
    ways = (settings.llm_base_url, settings.openrouter_api_key, settings.openai_api_key, settings.llm_api_key)
    return any(ways)


@contextmanager
def run_local_model(settings: Settings) -> Iterator[None]:
    """Run the model in its own process, which outlives every reload; the app finds it by its environment."""
    from app.llm.local_server import start_local_server

    with start_local_server(settings, console.warn) as server:
        os.environ.update(server.environment if server else {"LOCAL_LLM": "off"})
        load_settings.cache_clear()
        yield


def greet(listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    console.say(f"Starting the server at {console.paint(Address(host, port).url, 'bold')}\nQuit with Control-C.")


def allow_open_files() -> None:
    """Each answer needs two. What systems allow a program by itself is often a thousand, or a quarter of that."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def run_uvicorn(listener: socket.socket, settings: Settings, reloads: bool, workers: int) -> None:
    import uvicorn

    allow_open_files()
    config = uvicorn.Config(
        "app.management.server:load_app",
        factory=True,
        http="app.management.protocol:Protocol",
        loop="asyncio",
        ws="none",
        lifespan="on",
        server_header=False,
        proxy_headers=False,  # app/middleware.py reads them; uvicorn would believe what a client makes up
        log_config=make_log_config(),
        timeout_graceful_shutdown=GRACE_SECONDS[settings.environment],
        reload=reloads,
        reload_dirs=[str(ROOT / "app")] if reloads else None,
        reload_delay=0.5,
        workers=workers,
    )
    server = uvicorn.Server(config)
    if reloads:
        make_reloader(config, server, listener).run()
    elif workers > 1:
        from uvicorn.supervisors import Multiprocess

        Multiprocess(config, [listener]).run()
    else:
        server.run([listener])


def load_app() -> "FastAPI":
    """Import the app where it is served. What the import made stays, so the garbage collector may forget about it."""
    with pause_garbage_collection():
        from app.main import app

        gc.freeze()
        gc.set_threshold(*GARBAGE_THRESHOLDS)
    return app


def make_reloader(config: Any, server: Any, listener: socket.socket) -> Any:
    from uvicorn.supervisors.statreload import StatReload

    class Reloader(StatReload):
        """Watches the code, and .env: its values are read at the start. Templates need no new start."""

        def iter_py_files(self) -> Iterator[Path]:
            for folder, _, names in os.walk(ROOT / "app"):
                yield from (Path(folder, name) for name in names if name.endswith(".py"))
            yield ENV_FILE

    return Reloader(config, server.run, [listener])
