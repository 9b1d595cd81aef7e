"""Behind a pooler: what breaks there by default, and that nothing of ours does it."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from app.database import Database
from app.llm.scripted import ScriptedModel
from app.management import main
from app.settings import Settings, load_settings
from tests.chat.reading import EVENTS, JSON
from tests.conftest import PASSWORD, MakeSite, Site, migrated_databases
from tests.minibouncer import MiniBouncer, minibouncer
from tests.postgres import Server

pytestmark = pytest.mark.anyio

PREPARING = [{}, {"prepare_threshold": 0}]  # psycopg's default, and what looks like «never»
OF_A_SESSION = re.compile(
    r"^\s*(LISTEN|NOTIFY|UNLISTEN|PREPARE|EXECUTE|DISCARD|LOAD|CREATE\s+(LOCAL\s+|GLOBAL\s+)?TEMP|SET\s+(?!LOCAL\b)|RESET)"
    r"|WITH\s+HOLD|pg_(try_)?advisory_lock|set_config\([^)]*false",
    re.IGNORECASE,
)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with migrated_databases() as server:
        yield server


@pytest.fixture
async def pooled(server: Server) -> AsyncIterator[tuple[MiniBouncer, str]]:
    async with minibouncer(server.copy_template()) as both:
        yield both


async def ask_in_turns(url: str, **options: Any) -> tuple[list[int], list[int]]:
    """Two clients ask each its own question six times, by turns, and then the first one twice in a row."""
    async with (
        await psycopg.AsyncConnection.connect(url, **options) as ada,
        await psycopg.AsyncConnection.connect(url, **options) as bob,
    ):

        async def ask(client: psycopg.AsyncConnection[Any], question: Any) -> int:
            row = await (await client.execute(question, (7,))).fetchone()
            await client.commit()
            assert row
            return int(row[0])

        answers: tuple[list[int], list[int]] = [], []
        for _ in range(6):
            answers[0].append(await ask(ada, "SELECT %s::int + 1"))
            answers[1].append(await ask(bob, "SELECT %s::int * 1000"))
        answers[0].extend([await ask(ada, "SELECT %s::int + 1") for _ in range(2)])
        return answers


async def test_by_default_somebody_gets_the_rows_of_another(pooled: tuple[MiniBouncer, str]) -> None:
    """Both call their prepared statement _pg3_0, each on another connection. Then the pooler swaps these."""
    bouncer, url = pooled
    adas, bobs = await ask_in_turns(url)
    assert bouncer.names == ["_pg3_0", "_pg3_0"]
    assert bobs == [7000] * 6
    assert adas == [8] * 7 + [7000], "no error: the answer to Bob's question"


@pytest.mark.parametrize("options", PREPARING)
async def test_by_default_statements_are_there_already_or_not_at_all(
    pooled: tuple[MiniBouncer, str], options: dict[str, Any]
) -> None:
    _, url = pooled
    faults = set()

    async def hammer(number: int) -> None:
        async with await psycopg.AsyncConnection.connect(url, autocommit=True, **options) as client:
            for _ in range(20):
                try:
                    await client.execute(f"SELECT {number} + %s::int".encode(), (number,))
                except psycopg.Error as error:
                    faults.add(type(error).__name__)

    await asyncio.gather(*(hammer(number) for number in range(6)))
    assert faults & {"DuplicatePreparedStatement", "InvalidSqlStatementName"}


async def test_without_prepared_statements_everybody_gets_their_own(pooled: tuple[MiniBouncer, str]) -> None:
    bouncer, url = pooled
    assert await ask_in_turns(url, prepare_threshold=None) == ([8] * 8, [7000] * 6)
    assert bouncer.names == []


async def test_options_do_not_pass_a_pooler(pooled: tuple[MiniBouncer, str]) -> None:
    with pytest.raises(psycopg.OperationalError, match="unsupported startup parameter: options"):
        await psycopg.AsyncConnection.connect(pooled[1], options="-c statement_timeout=5s")


async def test_nothing_of_ours_prepares_or_leaves_anything_in_a_session(
    make_site: MakeSite, pooled: tuple[MiniBouncer, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bouncer, url = pooled
    # An answer that takes its time is saved in pieces, too.
    site: Site = await make_site(ScriptedModel("Hello ", "Ada.", delay=0.05), database_url=url)
    await use_everything(site)
    monkeypatch.setenv("DATABASE_URL", url)
    load_settings.cache_clear()
    for command in (["migrate", "zero"], ["migrate"], ["showmigrations"], ["clearsessions"], ["check"]):
        assert await asyncio.to_thread(main, command) == 0
    load_settings.cache_clear()

    written = "\n".join(bouncer.statements)
    for words in ("INSERT INTO message", "INSERT INTO piece", "CREATE TABLE person", "pg_advisory_xact_lock"):
        assert words in written, "else this test saw too little"
    assert bouncer.names == []
    assert [statement for statement in bouncer.statements if OF_A_SESSION.search(statement)] == []
    assert "SET LOCAL statement_timeout" in written


async def use_everything(site: Site) -> None:
    """What people do all day, often enough that a driver would begin to prepare it."""
    visitor = await site.visitor()
    ada, grace = await site.person("ada"), await site.person("grace", is_staff=True, is_superuser=True)
    form = {"email": "ada@example.org", "password": PASSWORD}
    assert (await visitor.post("/login", data=form)).status_code == 303
    for number in range(6):
        made = await ada.post("/api/v1/conversations", headers=JSON)
        path = f"/api/v1/conversations/{made.json()['id']}"
        answer = await ada.post(f"{path}/messages", json={"content": f"Who is Ada? {number}"}, headers=EVENTS)
        assert "event: end" in answer.text
        page = path.removeprefix("/api/v1").replace("conversations", "chat")
        for address in ("/chat", page, "/chat/all?q=Ada", "/readyz", "/settings", f"{path}/messages"):
            assert (await ada.get(address)).status_code == 200, address
        assert (await ada.post(f"{page}/rename", data={"title": "Ada"})).status_code == 303
        assert (await grace.get("/admin/user/list")).status_code == 200
        assert (await ada.post(f"{page}/delete")).status_code == 303


async def test_a_server_that_falls_silent_is_hung_up_on(database_url: str) -> None:
    """Over TLS, too, where the suite runs with it. A timer of ours ends it: the server's own would be later."""
    database = Database(Settings(database_url=SecretStr(database_url)))
    if database.url.get_backend_name() == "sqlite":
        pytest.skip("This is about PostgreSQL")
    async with database.session() as session:
        connection = await (await session.connection()).get_raw_connection()
        assert connection.driver_connection
        connection.driver_connection.patience = 0.2
        with pytest.raises(OperationalError):
            await session.exec(text("SELECT pg_sleep(10)"))  # type: ignore[call-overload]
    async with database.session() as session:
        assert (await session.exec(text("SELECT 1"))).scalar() == 1  # type: ignore[call-overload]
    await database.close()
