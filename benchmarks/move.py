"""Moving house: rows a second and memory, from SQLite to PostgreSQL and back.

    uv run benchmarks/move.py [MESSAGES]

A tenth of the messages is moved as well: memory must not grow with them.
"""

import os
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from servers import ROOT, describe_machine, environment, laboratory, note, prepare_site, print_table

sys.path.insert(0, str(ROOT))
from tests.postgres import postgres_databases

SECONDS = 1800
MESSAGES = 1_000_000
PER_CONVERSATION = 100
TEXT = "An answer of some two hundred characters, as people get them: a sentence, another one, and «quotes», é and 😀. "


class Move(NamedTuple):
    seconds: float
    cpu: float
    memory: float  # the highest, resident, in MB


def main(folder: Path, messages: int) -> None:
    print(describe_machine())
    rows = []
    with postgres_databases() as server:
        for count in (messages // 10, messages):
            laptop, host = f"sqlite:///{make_database(folder, count)}", server.copy_template()
            home = f"sqlite:///{folder / f'home{count}.sqlite3'}"
            for name, source, target in (("there", laptop, host), ("back", host, home)):
                note(f"{count:,} messages, {name}")
                done = move(folder, source, target)
                figures = (count / done.seconds, done.seconds, done.cpu, done.memory)
                rows.append([f"{count:,} messages, {name}", *(f"{figure:,.0f}" for figure in figures)])
    headings = ["SQLite to PostgreSQL and back", "messages a second", "seconds", "CPU s of movedb", "highest RSS MB"]
    print_table(headings, rows)


def make_database(folder: Path, count: int) -> Path:
    path = folder / f"messages{count}.sqlite3"
    prepare_site(environment(folder, DATABASE_URL=f"sqlite:///{path}"))
    with closing(sqlite3.connect(path)) as database:
        (owner,) = database.execute("SELECT id FROM person").fetchone()
        conversations = [(UUID(int=number).hex, owner, f"Talk {number}") for number in range(count // PER_CONVERSATION)]
        columns = "(id, owner_id, title, created_at, updated_at)"
        now = "2026-01-01 00:00:00.000000"
        database.executemany(f"INSERT INTO conversation {columns} VALUES (?, ?, ?, '{now}', '{now}')", conversations)
        columns = "(id, conversation_id, position, role, status, text, created_at, left_out_count, sequence)"
        database.executemany(
            f"INSERT INTO message {columns} VALUES (?, ?, ?, ?, 'done', ?, ?, 0, 0)", write_messages(count)
        )
        database.commit()
    return path


def write_messages(count: int) -> Iterator[tuple[object, ...]]:
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    for number in range(count):
        conversation, position = divmod(number, PER_CONVERSATION)
        role = "assistant" if position % 2 else "user"
        written_at = f"{begin + timedelta(seconds=number):%Y-%m-%d %H:%M:%S.%f}"
        yield UUID(int=number + 2**64).hex, UUID(int=conversation).hex, position, role, TEXT * 2, written_at


def move(folder: Path, source: str, target: str) -> Move:
    arguments = [sys.executable, "oppman.py", "movedb", "-v", "0", "FROM_URL", "TO_URL"]
    env = environment(folder, FROM_URL=source, TO_URL=target)
    os.chdir(ROOT)
    begin = time.monotonic()
    process = os.spawnve(os.P_NOWAIT, sys.executable, arguments, env)
    _, status, usage = os.wait4(process, 0)
    if status:
        sys.exit("It failed.")
    return Move(time.monotonic() - begin, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000)


if __name__ == "__main__":
    with laboratory(SECONDS) as place:
        main(place, int(sys.argv[1]) if sys.argv[1:] else MESSAGES)
