"""What pages of much data cost: long conversations, long messages, many conversations, on SQLite and PostgreSQL.

    uv run benchmarks/pages.py          less than a minute

The database is filled by bulk inserts, and read through a real `oppman.py runserver` by somebody who is signed in and
takes gzip, as browsers do. Each page is asked for first when nobody has seen its messages, then some times more: the
process keeps what it has drawn of shorter messages. What only the first page of a process pays was paid before.
The command fails where a page takes longer, or is larger, than we promise.
"""

import asyncio
import gzip
import json
import random
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID, uuid4

from servers import (
    EMAIL,
    ROOT,
    Server,
    ask,
    describe_machine,
    environment,
    laboratory,
    note,
    prepare_site,
    print_table,
    serve_app,
    sign_in,
)
from sqlalchemy import insert
from sqlmodel import select
from texts import WORDS, make_text

sys.path.insert(0, str(ROOT))
from app.auth.models import User
from app.chat.models import Conversation, Message
from app.database import Database, now
from app.settings import Settings
from tests.postgres import postgres_databases

SECONDS = 600  # after which something is broken
REPEATS = 7
CONVERSATIONS = 10_000
MESSAGES = 5_000
ROWS_AT_ONCE = 500
FIRST_BYTE_LIMIT, SIZE_LIMIT, LIST_LIMIT = 0.3, 500_000, 0.2  # what we promise: seconds, bytes before gzip, seconds


class Talk(NamedTuple):
    """A conversation: so many questions, and answers of a kind and a length."""

    title: str
    questions: int
    kind: str
    length: int
    last_length: int | None = None  # of the last answer


TALKS = {
    "long": Talk("5,000 messages", MESSAGES // 2, "markdown", 1200),
    "code": Talk("50 messages, 25 of them code", 25, "code", 20_000),
    "data": Talk("50 messages, 25 of them JSON", 25, "data", 20_000),
    "answer": Talk("the longest answer that can be", 1, "markdown", 200_000),
    "megabyte": Talk("a message of 1 MB after 5,000", MESSAGES // 2, "markdown", 1200, 1_000_000),
    "warm": Talk("only to warm up", 1, "markdown", 1200),
}


class Page(NamedTuple):
    name: str
    path: str
    limit: float
    limit_size: int = SIZE_LIMIT


class Cost(NamedTuple):
    first_byte: float
    seconds: float
    cpu: float


def main(folder: Path) -> None:
    print(describe_machine())
    failures = []
    for engine in ("SQLite", "PostgreSQL"):
        with make_database(engine, folder) as url:
            env = environment(folder, DATABASE_URL=url)
            prepare_site(env)
            note(f"{engine}: filling the database")
            start = time.monotonic()
            ids = asyncio.run(fill(url))
            note(f"{engine}: {time.monotonic() - start:.0f} s")
            with serve_app(env, "--noreload") as server:
                failures += measure(engine, server, ids)
    if failures:
        sys.exit("\n".join(failures))


@contextmanager
def make_database(engine: str, folder: Path) -> Iterator[str]:
    if engine == "SQLite":
        yield f"sqlite:///{folder / 'pages.sqlite3'}"
    else:
        with postgres_databases() as postgres:
            yield postgres.template_url


async def fill(url: str) -> dict[str, UUID]:
    """Insert all that is read, and give the ids of the conversations that have messages."""
    database = Database(Settings(database_url=url))
    async with database.session(reading=True) as session:
        owner_id = (await session.exec(select(User.id).where(User.email == EMAIL))).one()
    times = (now() - timedelta(minutes=number) for number in range(100_000))
    chance = random.Random(1)
    titles = (" ".join(chance.choices(WORDS, k=4)).capitalize() for _ in range(CONVERSATIONS))
    conversations = [make_conversation(owner_id, talk.title, next(times)) for talk in TALKS.values()]
    ids = {name: one["id"] for name, one in zip(TALKS, conversations, strict=True)}
    conversations += [make_conversation(owner_id, title, next(times)) for title in titles]
    async with database.engine.begin() as connection:
        await connection.execute(insert(Conversation), conversations)
        for name, talk in TALKS.items():
            rows = list(make_messages(ids[name], talk))
            for first in range(0, len(rows), ROWS_AT_ONCE):
                await connection.execute(insert(Message), rows[first : first + ROWS_AT_ONCE])
    async with database.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        await connection.exec_driver_sql("ANALYZE")
    await database.close()
    return ids


def make_conversation(owner_id: UUID, title: str, when: Any) -> dict[str, Any]:
    return {"id": uuid4(), "owner_id": owner_id, "title": title, "created_at": when, "updated_at": when}


def make_messages(conversation_id: UUID, talk: Talk) -> Iterator[dict[str, Any]]:
    for number in range(talk.questions):
        question_id, is_last = uuid4(), number == talk.questions - 1
        shared = {"conversation_id": conversation_id, "created_at": now(), "status": "done"}
        asked = {"text": f"What does bend {number} tell of the floods before it?", "question_id": None}
        answer = make_text(talk.kind, (is_last and talk.last_length) or talk.length, number)
        question = {"id": question_id, "role": "user", "position": 2 * number, "sequence": 0, **asked}
        yield shared | question | {"model": None, "ended_at": None, "left_out_count": 0}
        said = {"text": answer, "question_id": question_id, "sequence": len(answer), "model": "seeded"}
        yield (
            shared
            | {"id": uuid4(), "role": "assistant", "position": 2 * number + 1}
            | said
            | {
                "ended_at": now(),
                "left_out_count": 0,
            }
        )


def list_pages(ids: dict[str, UUID], middle: str, middle_of_api: str) -> list[Page]:
    talks = {name: f"/chat/{talk_id}" for name, talk_id in ids.items()}
    api = "/api/v1/conversations"
    return [
        Page("an empty chat, and the latest conversations", "/chat", LIST_LIMIT),
        Page("5,000 messages: the newest page", talks["long"], FIRST_BYTE_LIMIT),
        Page("5,000 messages: a page in the middle", f"{talks['long']}?before=2500", FIRST_BYTE_LIMIT),
        Page("a message of 1 MB after 4,999 others", talks["megabyte"], FIRST_BYTE_LIMIT),
        Page("25 answers of 20,000 characters of code", talks["code"], FIRST_BYTE_LIMIT),
        Page("25 answers of 20,000 characters of JSON", talks["data"], FIRST_BYTE_LIMIT),
        Page("an answer of 200,000 characters", talks["answer"], 1),
        Page("10,000 conversations: the first page", "/chat/all", LIST_LIMIT),
        Page("10,000 conversations: a page in the middle", f"/chat/all?before={middle}", LIST_LIMIT),
        Page("10,000 conversations: a search that finds many", "/chat/all?q=clay", LIST_LIMIT),
        Page("10,000 conversations: a search that finds nothing", "/chat/all?q=nowhere", LIST_LIMIT),
        Page("API: conversations", f"{api}?limit=100", LIST_LIMIT),
        Page("API: conversations in the middle", f"{api}?limit=100&cursor={middle_of_api}", LIST_LIMIT),
        Page("API: messages", f"{api}/{ids['long']}/messages?limit=100", FIRST_BYTE_LIMIT),
        Page("API: messages of 20,000 characters", f"{api}/{ids['code']}/messages?limit=100", FIRST_BYTE_LIMIT, 2**20),
    ]


def measure(engine: str, server: Server, ids: dict[str, UUID]) -> list[str]:
    headers = {"Cookie": sign_in(server), "Accept": "text/html", "Accept-Encoding": "gzip"}
    for path in (f"/chat/{ids['warm']}", "/chat/all", "/api/v1/conversations"):
        ask(server, "GET", path, headers=headers)
    middle = find_middle(server, headers)
    rows: list[Sequence[object]] = []
    failures = []
    for page in list_pages(ids, middle, middle):
        first, again, size, sent = read(server, page, headers)
        figures = [f"{1000 * first.first_byte:.0f}", f"{1000 * again.first_byte:.0f}", f"{1000 * again.seconds:.0f}"]
        figures += [f"{1000 * first.cpu:.0f}", f"{1000 * again.cpu:.0f}", f"{size / 1000:.0f}", f"{sent / 1000:.0f}"]
        rows.append([page.name, *figures])
        # There is only one first time, and what else the machine does delays it: there the processor's time counts.
        seconds = max(first.cpu, again.first_byte)
        if seconds > page.limit or size > page.limit_size:
            failures.append(f"{engine}, {page.name}: {seconds:.2f} s, {size:,} bytes")
    headings = ["first byte ms, drawn anew", "again", "whole ms", "CPU ms, drawn anew", "again", "KB", "KB sent"]
    print_table([engine, *headings], rows)
    return failures


def find_middle(server: Server, headers: dict[str, str]) -> str:
    """Follow the API's cursor to the middle of the conversations."""
    cursor = ""
    for _ in range(CONVERSATIONS // 2 // 100):
        response = ask(server, "GET", f"/api/v1/conversations?limit=100{cursor}", headers={"Cookie": headers["Cookie"]})
        cursor = f"&cursor={json.loads(response.body)['next_cursor']}"
    return cursor.removeprefix("&cursor=")


def read(server: Server, page: Page, headers: dict[str, str]) -> tuple[Cost, Cost, int, int]:
    """Ask for a page; give its costs the first time, the lowest of the others, and its bytes unpacked and sent."""
    costs = []
    for _ in range(1 + REPEATS):
        response = ask(server, "GET", page.path, headers=headers)
        if response.status != 200:
            sys.exit(f"{page.path} answered {response.status}.")
        costs.append(Cost(response.first_byte, response.seconds, response.cpu[-1][1]))
    is_packed = re.search(r"(?im)^content-encoding: gzip", response.headers)
    body = gzip.decompress(response.body) if is_packed else response.body
    again = Cost(*(min(values) for values in zip(*costs[1:], strict=True)))
    return costs[0], again, len(body), len(response.received)


if __name__ == "__main__":
    with laboratory(SECONDS) as place:
        main(place)
