"""What it costs to do without prepared statements, what a pooler costs, and what another driver would bring.

    uv run --with asyncpg benchmarks/pooler.py          about a minute on a quiet machine

The chat's own functions run on one PostgreSQL, four at a time: straight to it and through pgbouncer, over TLS both
times. Psycopg prepares nothing, as in the app, or what it has seen five times, which is its default; asyncpg prepares
everything, but not behind the pooler. They take turns, so that a busy minute is busy for all of them. Without asyncpg
its lines are left out: the project does not need it.
"""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple
from uuid import uuid4

from servers import ROOT, describe_machine, environment, laboratory, note, print_table, run
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import create_async_engine

sys.path.insert(0, str(ROOT))
import app.models  # noqa: F401 (foreign keys need every table)
from app.auth.models import User
from app.chat import service
from app.chat.running import RunningAnswer
from app.chat.store import AnswerStore
from app.database import Database, limit_statements, make_sessions, make_url
from app.database_url import read_database_url
from app.settings import Settings
from tests.postgres import postgres_databases

AT_ONCE = 4
ROUNDS = 5
TIMES = 40  # for each of the four, in each round
SECONDS = 900


class Way(NamedTuple):
    name: str
    url: str
    driver: str
    options: dict[str, Any]


class Rate(NamedTuple):
    per_second: float
    cpu: float  # microseconds of this process for each act


Act = Callable[[int], Awaitable[object]]


def list_ways(direct: str, pooled: str) -> Iterator[Way]:
    yield Way("psycopg, nothing prepared (the app)", direct, "psycopg", {"prepare_threshold": None})
    yield Way("psycopg, its default", direct, "psycopg", {"prepare_threshold": 5})
    yield Way("psycopg, nothing prepared, pooler (the app)", pooled, "psycopg", {"prepare_threshold": None})
    if find_spec("asyncpg"):
        yield Way("asyncpg, its default", direct, "asyncpg", {})
        off = {"statement_cache_size": 0, "prepared_statement_cache_size": 0}
        yield Way("asyncpg, made safe, pooler", pooled, "asyncpg", {**off, "prepared_statement_name_func": make_name})


def make_name() -> str:
    return f"__asyncpg_{uuid4()}__"


def open_database(way: Way) -> Database:
    """The app's database with the engine of another way."""
    database = Database(Settings(database_url=way.url))
    url = make_url(read_database_url(way.url)).set(drivername=f"postgresql+{way.driver}")
    if way.driver == "asyncpg":
        url = url.set(query={"ssl": "require"})
    pool = {"pool_size": AT_ONCE, "max_overflow": 0, "pool_pre_ping": True}
    database.engine = create_async_engine(url, hide_parameters=True, connect_args=way.options, **pool)
    event.listen(database.engine.sync_engine, "begin", limit_statements)
    database._writing = database._reading = make_sessions(database.engine, {})
    return database


async def prepare(database: Database) -> dict[str, Act]:
    """Give the chat's acts, for somebody with a few conversations."""
    owner = User(email=f"{uuid4()}@example.org", hashed_password="x")
    async with database.session() as session:
        session.add(owner)
        await session.commit()
        asked = [
            await service.ask(session, owner, None, "Who is Ada?", None, model="m", worker="w") for _ in range(AT_ONCE)
        ]
    store = AnswerStore(database, "w")
    running = [RunningAnswer(one) for one in asked]

    async def list_conversations(number: int) -> None:
        async with database.session() as session:
            await service.list_conversations(session, owner)

    async def show_conversation(number: int) -> None:
        async with database.session() as session:
            if found := await service.get_conversation(session, owner, asked[number].conversation.id):
                await service.list_messages(session, found)

    async def ask(number: int) -> None:
        async with database.session() as session:
            await service.ask(session, owner, None, "Who is Bob?", None, model="m", worker="other")

    async def save_piece(number: int) -> None:
        running[number].saving = "Hello Ada. " * 4
        assert await store.save_pieces([running[number]])
        running[number].length += len(running[number].saving)

    async def ask_one(number: int) -> None:
        async with database.engine.begin() as connection:
            await connection.execute(text("SELECT 1"))

    acts: list[Act] = [ask_one, list_conversations, show_conversation, ask, save_piece]
    return dict(zip(NAMES, acts, strict=True))


NAMES = ("SELECT 1", "list of conversations", "one conversation", "a question", "a piece of an answer")


async def count_per_second(act: Act) -> Rate:
    async def repeat(number: int) -> None:
        for _ in range(TIMES // AT_ONCE):
            await act(number)

    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(repeat(number) for number in range(AT_ONCE)))
    return Rate(TIMES / (time.perf_counter() - began), (time.process_time() - cpu) * 1e6 / TIMES)


async def measure(ways: list[Way]) -> dict[str, dict[str, list[Rate]]]:
    databases = {way.name: open_database(way) for way in ways}
    acts = {name: await prepare(database) for name, database in databases.items()}
    found: dict[str, dict[str, list[Rate]]] = {name: {act: [] for act in NAMES} for name in databases}
    for number in range(ROUNDS + 1):
        note(f"Round {number} of {ROUNDS}")
        for act in NAMES:
            for name in databases:
                rate = await count_per_second(acts[name][act])
                if number:  # the first one warms up
                    found[name][act].append(rate)
    for database in databases.values():
        await database.close()
    return found


def main(folder: Path) -> None:
    print(describe_machine())
    with postgres_databases("pgbouncer") as server:
        pooled = server.template_url
        run([sys.executable, "oppman.py", "migrate", "--verbosity", "0"], environment(folder, DATABASE_URL=pooled))
        found = asyncio.run(measure(list(list_ways(server.past_pooler(pooled), pooled))))
    base = next(iter(found.values()))
    for position, unit in enumerate(("acts a second", "µs of the app's processor time an act")):
        rows = [
            [
                name,
                *(
                    describe([rate[position] for rate in rates[act]], [rate[position] for rate in base[act]])
                    for act in NAMES
                ),
            ]
            for name, rates in found.items()
        ]
        print_table([f"{unit} (against the first line)", *NAMES], rows)


def describe(values: list[float], base: list[float]) -> str:
    """The median, and that of the ratios within each round."""
    ratio = median(value / other for value, other in zip(values, base, strict=True))
    return f"{median(values):.0f} ({ratio:.2f})"


if __name__ == "__main__":
    with laboratory(SECONDS) as folder:
        main(folder)
