"""The database: pragmas, migrations up and down, and no lazy surprises."""

import asyncio
from collections.abc import Iterator

import pytest
from alembic import command
from alembic.config import Config
from pydantic import SecretStr
from sqlalchemy import create_engine, inspect, text
from sqlmodel import SQLModel, select

from app.database import Database, database_time, read_url
from app.settings import ROOT, Settings, load_settings
from tests.conftest import Site
from tests.postgres import Server, postgres_databases

pytestmark = pytest.mark.anyio


@pytest.fixture
def alembic(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Config]:
    monkeypatch.setenv("DATABASE_URL", database_url)
    load_settings.cache_clear()
    yield Config(ROOT / "alembic.ini")
    load_settings.cache_clear()


def list_tables(database_url: str) -> set[str]:
    url = read_url(database_url)
    engine = create_engine(url.set(drivername="sqlite") if url.drivername.startswith("sqlite") else url)
    names = set(inspect(engine).get_table_names())
    engine.dispose()
    return names


def test_migrations_go_down_and_up_again_and_match_the_models(alembic: Config, database_url: str) -> None:
    assert list_tables(database_url) == {*SQLModel.metadata.tables, "alembic_version"}
    command.downgrade(alembic, "base")
    assert list_tables(database_url) == {"alembic_version"}
    command.upgrade(alembic, "head")
    command.check(alembic)


def test_models_have_no_lazy_relationships() -> None:
    for mapper in SQLModel._sa_registry.mappers:
        for relationship in mapper.relationships:
            assert relationship.lazy == "raise", relationship


async def test_each_connection_to_sqlite_is_prepared(site: Site) -> None:
    database: Database = site.app.state.database
    if database.url.get_backend_name() != "sqlite":
        pytest.skip("This is about SQLite")
    sessions = [database.session(reading=True) for _ in range(3)]
    for session in sessions:
        for pragma, value in {
            "journal_mode": "wal",
            "foreign_keys": 1,
            "busy_timeout": 10_000,
            "synchronous": 1,
        }.items():
            assert (await session.exec(text(f"PRAGMA {pragma}"))).scalar() == value  # type: ignore[call-overload]
    for session in sessions:
        await session.close()


async def test_writers_wait_for_each_other(database_url: str) -> None:
    """Reading a number and writing the next one, many at once, gives each number once."""
    database = Database(Settings(database_url=SecretStr(database_url)))
    lock = " FOR UPDATE" if database.url.get_backend_name() == "postgresql" else ""
    async with database.session() as session:
        await session.exec(text("CREATE TABLE counter (value integer)"))  # type: ignore[call-overload]
        await session.exec(text("INSERT INTO counter VALUES (0)"))  # type: ignore[call-overload]
        await session.commit()

    async def count_up() -> None:
        async with database.session() as session:
            value = (await session.exec(text("SELECT value FROM counter" + lock))).scalar()  # type: ignore[call-overload]
            await session.exec(text(f"UPDATE counter SET value = {value + 1}"))  # type: ignore[call-overload]
            await session.commit()

    await asyncio.gather(*(count_up() for _ in range(40)))
    async with database.session(reading=True) as session:
        assert (await session.exec(text("SELECT value FROM counter"))).scalar() == 40  # type: ignore[call-overload]
    await database.close()


async def test_the_databases_clock_counts_in_seconds(site: Site) -> None:
    async with site.session() as session:
        now, later = (await session.exec(select(database_time(), database_time(20)))).one()
        assert 19 < (later - now).total_seconds() < 21
        assert (await session.exec(select(database_time(-5) < database_time()))).one()


@pytest.fixture(scope="module")
def postgres(request: pytest.FixtureRequest) -> Iterator[Server]:
    if request.config.getoption("--database") != "sqlite":
        pytest.skip("The whole suite runs on PostgreSQL already")
    with postgres_databases() as server:
        yield server


def test_the_same_migrations_work_on_postgresql(postgres: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", postgres.template_url)
    load_settings.cache_clear()
    config = Config(ROOT / "alembic.ini")
    command.upgrade(config, "head")
    command.check(config)
    command.downgrade(config, "base")
    command.upgrade(config, "head")
    assert list_tables(postgres.template_url) == {*SQLModel.metadata.tables, "alembic_version"}
    load_settings.cache_clear()
