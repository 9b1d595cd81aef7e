"""The app as it is built for such a host, and one or more instances of it behind the host's door."""

import fcntl
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx2
import pytest
from pydantic import SecretStr

from app.auth import service
from app.auth.models import User
from app.database import Database
from app.settings import ROOT, Settings
from tests.browser.conftest import chromium, open_page  # noqa: F401 (fixtures)
from tests.conftest import known_hash, migrated_databases
from tests.hosts.gateway import Gateway, open_gateway
from tests.hosts.instance import Instance
from tests.postgres import Server
from tests.provider import Provider
from tests.services import miss

SECRET_KEY = "kJ2-v9Qx_4mTzR7wLpN0sYb8HcUe3DfGaVi6oXtM1qEW"
PARTS = ("app", "migrations", "templates", "static", "oppman.py", "alembic.ini", "pyproject.toml", ".env.example")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/hosts" in item.nodeid and "test_table" not in item.nodeid:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the build command leaves: the project, the libraries of requirements.txt and no others, and bytecode.

    All processes of a test run share it; the first one builds.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if base.name.startswith("popen-") else base) / "build"
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "is_complete").exists():
            make_build(folder)
            (folder / "is_complete").touch()
    return folder


def make_build(folder: Path) -> None:
    uv = shutil.which("uv")
    if uv is None:
        miss("uv is not on the path. Install it: pip install uv.")
    project, python = folder / "project", folder / "venv" / "bin" / "python"
    project.mkdir(parents=True)
    for part in PARTS:
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        copy(ROOT / part, project / part)
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder / "venv"], check=True)
    install = [uv, "pip", "install", "--quiet", "--python", str(python)]
    subprocess.run([*install, "--requirements", str(ROOT / "requirements.txt")], check=True)
    subprocess.run([python, "oppman.py", "compileall", "--verbosity", "0"], cwd=project, check=True)


@pytest.fixture(scope="session")
def pooled() -> Iterator[Server]:
    """PostgreSQL as the host offers it: over TLS alone, behind a pooler that lends connections by transaction."""
    with migrated_databases("pgbouncer") as server:
        yield server


@pytest.fixture
def database_url(pooled: Server) -> str:
    return pooled.copy_template()


StartInstance = Callable[..., Instance]


@pytest.fixture
def production(database_url: str, provider: Provider) -> dict[str, str]:
    """The environment that the guide asks for."""
    return {
        "ENVIRONMENT": "production",
        "SECRET_KEY": SECRET_KEY,
        "DATABASE_URL": database_url,
        "ALLOWED_HOSTS": "127.0.0.1",
        "TRUSTED_PROXY_HOPS": "1",
        "LLM_BASE_URL": f"{provider.url}/v1",
        "LLM_MODEL": provider.model_name,
    }


@pytest.fixture
def make_instance(build: Path, production: dict[str, str], tmp_path: Path) -> Iterator[StartInstance]:
    """Makes an instance that starts when it is asked for something: `make_instance(memory=256, cpu=14.1)`."""
    instances: list[Instance] = []

    def make(memory: int = 512, cpu: float = 28, **settings: str) -> Instance:
        log = tmp_path / f"instance{len(instances)}.log"
        instances.append(Instance(build, production | settings, log, memory=memory, cpu=cpu))
        return instances[-1]

    yield make
    for instance in instances:
        instance.close()


@pytest.fixture
def instance(make_instance: StartInstance) -> Instance:
    return make_instance()


@pytest.fixture
async def gateway(instance: Instance) -> AsyncIterator[Gateway]:
    async with open_gateway(instance) as gateway:
        yield gateway


Visit = Callable[[str], Awaitable[httpx2.AsyncClient]]


@pytest.fixture
async def token(database_url: str) -> str:
    """Ada's, for programs. Her account was made from a laptop."""
    return await add_person(database_url, "ada")


async def add_person(database_url: str, name: str, **rights: bool) -> str:
    database = Database(Settings(database_url=SecretStr(database_url), secret_key=SecretStr(SECRET_KEY)))
    async with database.session() as session:
        user = User(email=f"{name}@example.org", hashed_password=await known_hash())
        user.sqlmodel_update(rights)
        session.add(user)
        await session.commit()
        made, _ = await service.create_token(session, user.id, "api")
    await database.close()
    return made


@pytest.fixture
async def visit(token: str) -> AsyncIterator[Visit]:
    """Gives Ada's program, which talks to a site: `ada = await visit(gateway.url)`."""
    async with AsyncExitStack() as stack:

        async def make(url: str) -> httpx2.AsyncClient:
            headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
            client = httpx2.AsyncClient(base_url=url, timeout=30, headers=headers, verify=False)
            return await stack.enter_async_context(client)

        yield make


@pytest.fixture
async def ada(gateway: Gateway, visit: Visit) -> httpx2.AsyncClient:
    return await visit(gateway.url)
