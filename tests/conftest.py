"""What all tests share: a fresh database, a real server with a scripted model, and the people.

Ada owns things, Bob must not see them, and Grace is the admin. `--database` chooses the engine.
"""

import os
import shutil
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn
from alembic import command
from alembic.config import Config
from fastapi import FastAPI
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.types import ASGIApp, Receive, Scope, Send

# Many tests start processes: they compile what they import once, not each time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# Settings come from here alone: a developer's .env must not change a test.
os.environ |= {"ENVIRONMENT": "development", "DATABASE_URL": "sqlite:///tests/never.sqlite3", "LOCAL_LLM": "off"}
os.environ["UPLOADS"] = "off"  # nothing is written into the project's folder

from app.auth import service as people
from app.auth.models import User
from app.auth.passwords import hash_password
from app.llm.scripted import ScriptedModel
from app.main import create_app
from app.management.protocol import Protocol
from app.management.server import open_listener
from app.settings import ROOT, Settings, load_settings
from tests.bucket import bucket, buckets  # noqa: F401 (fixtures for all)
from tests.postgres import Server, postgres_databases
from tests.provider import provider, server_url  # noqa: F401 (fixtures for all)

Settings.model_config["env_file"] = None
PASSWORD = "correct horse 1843"


def pytest_addoption(parser: pytest.Parser) -> None:
    words = (
        "sqlite (default), postgresql or pgbouncer (servers of our own), or the URL of one where databases may be made"
    )
    parser.addoption("--database", default=os.environ.get("TEST_DATABASE_URL", "sqlite"), help=words)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def only_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network is off: a test that leaves the machine fails."""
    connect = socket.socket.connect

    def connect_here(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"A test wanted to reach {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_here)


def migrate(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("DATABASE_URL", url)
        load_settings.cache_clear()
        command.upgrade(Config(ROOT / "alembic.ini"), "head")
    load_settings.cache_clear()


@contextmanager
def migrated_databases(kind: str = "socket") -> Iterator[Server]:
    """A PostgreSQL whose databases have all tables."""
    with postgres_databases(kind) as server, pytest.MonkeyPatch.context() as patch:
        migrate(server.template_url, patch)
        yield server


@pytest.fixture(scope="session")
def new_database(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], str]]:
    """Gives URLs of fresh databases with all tables: copies of one that was migrated once."""
    kind: str = request.config.getoption("--database")
    with pytest.MonkeyPatch.context() as patch:
        if kind == "sqlite":
            folder = tmp_path_factory.mktemp("databases")
            template = folder / "template.sqlite3"
            migrate(f"sqlite:///{template}", patch)
            count = iter(range(100_000))

            def copy() -> str:
                fresh = folder / f"{next(count)}.sqlite3"
                shutil.copy(template, fresh)
                return f"sqlite:///{fresh}"

            yield copy
        else:
            with migrated_databases(kind) as server:
                yield server.copy_template


@pytest.fixture
def database_url(new_database: Callable[[], str]) -> str:
    return new_database()


class Site:
    """A running server, and the people who use it."""

    def __init__(self, app: FastAPI, url: str, stack: AsyncExitStack) -> None:
        self.app = app
        self.url = url
        self._stack = stack

    async def visitor(self, **headers: str) -> httpx2.AsyncClient:
        """Somebody who is not signed in, with a browser of their own."""
        # Loading certificates takes longer than most tests, and there is no TLS here.
        headers = {"Accept": "text/html", **headers}
        browser = httpx2.AsyncClient(base_url=self.url, timeout=20, headers=headers, verify=False)
        return await self._stack.enter_async_context(browser)

    async def person(self, name: str, **rights: bool) -> "Person":
        """Somebody with an account, signed in."""
        async with self.session() as session:
            user = User(email=f"{name}@example.org", name=name.title(), hashed_password=await known_hash())
            user.sqlmodel_update(rights)
            session.add(user)
            await session.commit()
            token, _ = await people.create_token(session, user.id, "session")
        browser = await self.visitor()
        browser.cookies.set("session", token)
        return Person(user, browser)

    def session(self) -> AsyncSession:
        session: AsyncSession = self.app.state.database.session()
        return session


class Person:
    def __init__(self, user: User, browser: httpx2.AsyncClient) -> None:
        self.user = user
        self.browser = browser
        self.get, self.post = browser.get, browser.post
        self.stream, self.request = browser.stream, browser.request


_hashes: dict[str, str] = {}


async def known_hash() -> str:
    """Hashing is slow on purpose, so everybody in the tests has the one password PASSWORD."""
    if PASSWORD not in _hashes:
        _hashes[PASSWORD] = await hash_password(PASSWORD)
    return _hashes[PASSWORD]


@asynccontextmanager
async def serve(app: Any) -> AsyncIterator[Site]:
    """Serve an app over real HTTP, in this event loop, so that tests can hold its model back."""
    with open_listener(socket.AF_INET, ("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(app, http=Protocol, log_config=None, proxy_headers=False, timeout_graceful_shutdown=1)
        config.load()
        # Its start and its end without its main loop, which looks only ten times a second whether it is over.
        server = uvicorn.Server(config)
        server.lifespan = config.lifespan_class(config)
        await server.startup([listener])
        await server.on_tick(0)
        async with AsyncExitStack() as stack:
            yield Site(app, f"http://127.0.0.1:{listener.getsockname()[1]}", stack)
        await server.shutdown([listener])


def over_https(app: ASGIApp) -> ASGIApp:
    """What a proxy in front tells the server, which the app then finds in the scope."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "scheme": "https"} if scope["type"] == "http" else scope, receive, send)

    return call


MakeSite = Callable[..., Any]


@pytest.fixture
async def make_site(database_url: str) -> AsyncIterator[MakeSite]:
    """Starts servers on the test's database: `await make_site(model=..., allow_signup=False)`."""
    async with AsyncExitStack() as stack:

        async def make(model: object = None, **settings: Any) -> Site:
            values = {"database_url": database_url, **settings}
            app = create_app(Settings(**values), model=model or ScriptedModel("Hello ", "Ada."))  # type: ignore[arg-type]
            return await stack.enter_async_context(serve(app))

        yield make


@pytest.fixture
async def site(make_site: MakeSite) -> Site:
    made: Site = await make_site()
    return made


@pytest.fixture
async def ada(site: Site) -> Person:
    return await site.person("ada")


@pytest.fixture
async def bob(site: Site) -> Person:
    return await site.person("bob")


@pytest.fixture
async def grace(site: Site) -> Person:
    return await site.person("grace", is_staff=True, is_superuser=True)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project without anybody's data, for commands that write into it."""
    for name in ("app", "migrations", "templates", "static"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("oppman.py", "alembic.ini", "pyproject.toml", ".env.example"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path
