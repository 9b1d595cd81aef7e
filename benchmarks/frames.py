"""Serves the app with frames of a chosen length, and counts what it writes; benchmarks/writes.py starts it.

    python benchmarks/frames.py SECONDS FILE

The file holds four numbers: rows inserted, updated and deleted, and transactions that changed something.
"""

import mmap
import sys
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, event

from app.chat import answers
from app.management import main

KINDS = ("INSERT", "UPDATE", "DELETE")
LENGTH = 8 * (len(KINDS) + 1)


def count_writes(path: Path) -> None:
    path.write_bytes(bytes(LENGTH))
    with path.open("r+b") as file:
        counts = memoryview(mmap.mmap(file.fileno(), LENGTH)).cast("Q")

    def count_rows(connection: Connection, cursor: Any, statement: str, *args: Any) -> None:
        kind = statement.lstrip()[:6].upper()
        if kind in KINDS and cursor.rowcount > 0:
            counts[KINDS.index(kind)] += cursor.rowcount
            connection.info["has_written"] = True

    def count_commit(connection: Connection) -> None:
        counts[len(KINDS)] += connection.info.pop("has_written", False)

    event.listen(Engine, "after_cursor_execute", count_rows)
    event.listen(Engine, "commit", count_commit)


def keep_log(connection: Any, record: object) -> None:
    """SQLite moves its log into the database now and then, and begins it anew: here it only grows, to be measured."""
    if "sqlite" in type(connection).__module__:
        cursor = connection.cursor()
        cursor.execute("PRAGMA wal_autocheckpoint=0")
        cursor.close()


if __name__ == "__main__":
    answers.FRAME_SECONDS = float(sys.argv[1])
    count_writes(Path(sys.argv[2]))
    event.listen(Engine, "connect", keep_log)
    sys.exit(main(["runserver", "--noreload", "127.0.0.1:0"]))
