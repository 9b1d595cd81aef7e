"""What answers cost the database, and how that and their delay depend on the length of a frame.

    uv run benchmarks/writes.py          about five minutes

Whatever arrives within a frame is saved and shown together. Answers of headings, lists, code and tables come at 50
tokens of four characters a second, one alone and twenty at once, each to a chat page. Counted is all that the app
writes for them, from the question to the last row: rows, transactions that change something, and bytes of the
database's log (WAL), in which everything is written first. A delay is that of the oldest token of a frame, from the
model to the reader.
"""

import asyncio
import json
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import psycopg
from servers import (
    FORM,
    ROOT,
    Server,
    ask,
    describe_machine,
    environment,
    laboratory,
    note,
    prepare_site,
    print_table,
    serve,
    serve_model,
    sign_in,
)
from streams import Load, list_delays, pick, read_all

sys.path.insert(0, str(ROOT))
from tests.postgres import postgres_databases

FRAMES = (0.05, 0.1, 0.25, 1.0)
USED = 0.1  # the one that the app has: the others are compared with it
LOADS = (Load(1, 50), Load(20, 50))
ENGINES = ("SQLite", "PostgreSQL")
SECONDS = 900  # after which something is broken


class Counts(NamedTuple):
    inserted: int
    updated: int
    deleted: int
    transactions: int
    log: int  # bytes
    cpu: float

    def __sub__(self, before: "Counts") -> "Counts":
        return Counts(*(now - then for now, then in zip(self, before, strict=True)))  # type: ignore[arg-type]


class Result(NamedTuple):
    counts: Counts
    thousands: float  # of tokens
    delays: list[float]


def main(folder: Path) -> None:
    print(describe_machine())
    with serve_model(folder) as (model, llm):
        for engine in ENGINES:
            with prepare(engine, folder, llm) as (env, measure_log):
                for load in LOADS:
                    results = {}
                    for frame in FRAMES:
                        note(f"{engine}, {load.streams} at once, frames of {frame} s")
                        counts = folder / "counts"
                        with serve(["benchmarks/frames.py", str(frame), str(counts)], env) as server:
                            results[frame] = measure(server, model, load, partial(count, server, counts, measure_log))
                    show(engine, load, results)


@contextmanager
def prepare(engine: str, folder: Path, llm: dict[str, str]) -> Iterator[tuple[dict[str, str], Callable[[], int]]]:
    if engine == "SQLite":
        path = folder / "writes.sqlite3"
        env = environment(folder, DATABASE_URL=f"sqlite:///{path}", **llm)
        prepare_site(env)
        yield env, lambda: path.with_name(f"{path.name}-wal").stat().st_size
    else:
        with postgres_databases() as postgres:
            env = environment(folder, DATABASE_URL=postgres.template_url, **llm)
            prepare_site(env)
            yield env, partial(measure_postgres_log, postgres.template_url)


def measure_postgres_log(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT pg_current_wal_insert_lsn() - '0/0'").fetchone()
        assert row
        return int(row[0])


def count(server: Server, counts: Path, measure_log: Callable[[], int]) -> Counts:
    inserted, updated, deleted, transactions = struct.unpack("4Q", counts.read_bytes())
    return Counts(inserted, updated, deleted, transactions, measure_log(), server.cpu)


def measure(server: Server, model: Server, load: Load, take: Callable[[], Counts]) -> Result:
    cookie = sign_in(server)
    form = {"Cookie": cookie, "Content-Type": FORM, "Accept": "text/event-stream"}
    ask(server, "POST", "/chat", b"text=Hello", form)  # what only the first question pays is not the subject
    before = take()
    readers = asyncio.run(read_all(server, cookie, load, is_bare=False))
    written = take() - before
    if not all(reader.status == "done" for reader in readers):
        sys.exit("An answer did not end well.")
    starts = json.loads(ask(model, "GET", "/starts").body)
    delays = [
        delay for number, reader in enumerate(readers) for delay in list_delays(reader, starts[str(number)], load.rate)
    ]
    return Result(written, load.streams * load.chunks / 1000, delays)


def show(engine: str, load: Load, results: dict[float, Result]) -> None:
    used = results[USED].counts
    rows = []
    for frame, (counts, thousands, delays) in results.items():
        changed = [f"{value / thousands:.0f}" for value in counts[:4]]
        ratio = counts.log / used.log
        figures = [f"{counts.log / thousands / 1000:.0f}", f"{ratio:.2f}", f"{1000 * counts.cpu / thousands:.0f}"]
        rows.append([f"{frame} s", *changed, *figures, *(f"{1000 * pick(delays, share):.0f}" for share in (0.5, 0.95))])
    headings = ["inserted", "updated", "deleted", "transactions", "KB of log", f"/ {USED} s", "CPU ms"]
    answers = "one answer" if load.streams == 1 else f"{load.streams} answers at once"
    what = f"{engine}, {answers}: for 1,000 tokens, in frames of"
    print_table([what, *headings, "delay p50 ms", "p95"], rows)


if __name__ == "__main__":
    with laboratory(SECONDS) as place:
        main(place)
