"""Everything moves from SQLite to PostgreSQL and back, or nothing does."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlmodel import SQLModel

from app.database import read_url
from app.management import transfer
from app.management.transfer import connect
from app.settings import ROOT
from tests.management.conftest import Oppman, clean_environment
from tests.postgres import Server, postgres_databases


@pytest.fixture(scope="session")
def postgres(request: pytest.FixtureRequest) -> Iterator[Server]:
    """The server of `--database`, or a plain one where that says SQLite."""
    kind = request.config.getoption("--database")
    with postgres_databases("socket" if kind == "sqlite" else kind) as server:
        yield server


@pytest.fixture
def empty_postgres(postgres: Server) -> str:
    return postgres.copy_template()


@pytest.fixture
def laptop(tmp_path: Path, oppman: Oppman, fill: Callable[..., None]) -> str:
    """A SQLite database with people and their conversations."""
    url = f"sqlite:///{tmp_path / 'laptop.sqlite3'}"
    assert oppman("migrate", DATABASE_URL=url).code == 0
    fill(DATABASE_URL=url)
    return url


def read_all(url: str) -> dict[str, set[Any]]:
    """All rows of all tables, as Python compares them."""
    with connect(read_url(url), snapshot=True) as connection:
        tables = transfer.list_tables(connection)
        return {table.name: {row for rows in transfer.read(connection, table) for row in rows} for table in tables}


def test_everything_moves_to_postgresql_and_back(
    oppman: Oppman, laptop: str, empty_postgres: str, tmp_path: Path
) -> None:
    back = tmp_path / "back.sqlite3"

    there = oppman("movedb", laptop, "NEW_URL", NEW_URL=empty_postgres)
    home = oppman("movedb", "NEW_URL", f"sqlite:///{back}", NEW_URL=empty_postgres)

    assert (there.code, home.code) == (0, 0), there.err + home.err
    assert "counts and checksums are the same on both sides" in there.out
    assert read_all(laptop) == read_all(empty_postgres) == read_all(f"sqlite:///{back}")
    assert len(read_all(laptop)["message"]) == 4
    assert back.stat().st_mode & 0o777 == 0o600


def test_a_target_with_rows_is_left_alone(oppman: Oppman, laptop: str, empty_postgres: str) -> None:
    assert oppman("movedb", laptop, "NEW_URL", NEW_URL=empty_postgres).code == 0

    again = oppman("movedb", laptop, "NEW_URL", NEW_URL=empty_postgres)

    assert again.code == 1 and "TO has rows already" in again.err
    assert read_all(laptop) == read_all(empty_postgres)


def test_a_row_that_postgresql_cannot_hold_is_named(oppman: Oppman, laptop: str, empty_postgres: str) -> None:
    with closing(sqlite3.connect(read_url(laptop).database or "")) as database:
        (row,) = database.execute("SELECT id FROM message LIMIT 1").fetchone()
        database.execute("UPDATE message SET text = 'a' || char(0) || 'b' WHERE id = ?", [row])
        database.commit()

    done = oppman("movedb", laptop, "NEW_URL", NEW_URL=empty_postgres)

    assert done.code == 1 and "'message' cannot be stored" in done.err and "NUL" in done.err
    assert row in done.err.replace("-", "")
    assert all(rows == set() for rows in read_all(empty_postgres).values())


def test_a_row_that_points_nowhere_does_not_move(oppman: Oppman, laptop: str, tmp_path: Path) -> None:
    with closing(sqlite3.connect(read_url(laptop).database or "")) as database:
        database.execute("UPDATE conversation SET owner_id = '00000000000000000000000000000000'")
        database.commit()
    target = f"sqlite:///{tmp_path / 'target.sqlite3'}"

    done = oppman("movedb", laptop, target)

    assert done.code == 1 and "'conversation' points to one of 'person' that is not there" in done.err
    assert all(rows == set() for rows in read_all(target).values())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["sqlite:///gone.sqlite3", "sqlite:///new.sqlite3"], "There is no file"),
        (["NOWHERE", "sqlite:///new.sqlite3"], "'NOWHERE' is no URL"),
        (["DATABASE_URL", "DATABASE_URL"], "the same database"),
        (["sqlite:///README.md", "sqlite:///new.sqlite3"], "file is not a database"),
    ],
)
def test_what_cannot_move_is_told_in_a_sentence(oppman: Oppman, arguments: list[str], words: str) -> None:
    done = oppman("movedb", *arguments)

    assert done.code == 1 and words in done.err and "Traceback" not in done.err


def test_a_password_on_the_command_line_is_warned_of(oppman: Oppman, laptop: str) -> None:
    done = oppman("movedb", laptop, "postgresql://ada:secret@127.0.0.1:1/none")

    assert "Put the URL into a variable" in done.err and "secret" not in done.err + done.out


def test_older_tables_move_as_they_are(oppman: Oppman, tmp_path: Path, empty_postgres: str) -> None:
    old = f"sqlite:///{tmp_path / 'old.sqlite3'}"
    assert oppman("migrate", "0001", DATABASE_URL=old).code == 0

    assert oppman("movedb", old, "NEW_URL", NEW_URL=empty_postgres).code == 0

    assert (
        oppman("migrate", "--check", DATABASE_URL=empty_postgres).code
        == oppman("migrate", "--check", DATABASE_URL=old).code
    )


@pytest.fixture
def own_table(monkeypatch: pytest.MonkeyPatch) -> sa.Table:
    """A cloner's table, with what ours do not have. The models know it, and so do both databases."""
    metadata = sa.MetaData()
    table = sa.Table(
        "gadget",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("part_of", sa.ForeignKey("gadget.id")),
        sa.Column("price", sa.Numeric(10, 2)),
        sa.Column("facts", sa.JSON),
        sa.Column("photo", sa.LargeBinary),
        sa.Column("kind", sa.Enum("small", "large", name="gadget_kind")),
        sa.Column("made_on", sa.Date),
        sa.Column("seen_at", sa.DateTime(timezone=True)),
        sa.Column("weight", sa.Float),
        sa.Column("is_new", sa.Boolean),
        sa.Column("group", sa.String(20)),
    )
    monkeypatch.setattr(SQLModel.metadata, "tables", {**SQLModel.metadata.tables, "gadget": table})
    return table


def add_gadgets(url: str, table: sa.Table, *, rows: bool) -> None:
    first = {
        "id": 7,
        "part_of": 9,  # which comes later
        "price": Decimal("1.10"),
        "facts": {"b": [1, None], "a": "é"},
        "photo": b"\x00\xff\\",
        "kind": "large",
        "is_new": True,
        "weight": 0.1,
        "group": "a\tb\\N\n",
    }
    with connect(read_url(url)) as connection:
        table.metadata.create_all(connection)
        if rows:
            connection.execute(table.insert(), [first, dict.fromkeys(first) | {"id": 9}])
        connection.commit()


def test_tables_of_ones_own_move_with_their_numbers(
    oppman: Oppman, laptop: str, empty_postgres: str, own_table: sa.Table, tmp_path: Path
) -> None:
    home = f"sqlite:///{tmp_path / 'home.sqlite3'}"
    for url in (empty_postgres, home):
        assert oppman("migrate", DATABASE_URL=url).code == 0
        add_gadgets(url, own_table, rows=False)
    add_gadgets(laptop, own_table, rows=True)

    there = oppman("movedb", laptop, "NEW_URL", NEW_URL=empty_postgres)
    back = oppman("movedb", "NEW_URL", home, NEW_URL=empty_postgres)

    assert (there.code, back.code) == (0, 0), there.err + back.err
    assert read_all(laptop)["gadget"] == read_all(empty_postgres)["gadget"] == read_all(home)["gadget"]
    with connect(read_url(empty_postgres)) as connection:
        added = connection.execute(own_table.insert().values(group="next").returning(own_table.c.id)).scalar()
    assert added == 10


def test_a_move_takes_the_time_that_it_takes(empty_postgres: str) -> None:
    """A host may give each role little time."""
    with connect(read_url(empty_postgres)) as connection:
        name = connection.exec_driver_sql("SELECT current_database()").scalar()
        connection.exec_driver_sql(f"ALTER DATABASE {name} SET statement_timeout = '5s'")
        connection.commit()

    with connect(read_url(empty_postgres), snapshot=True) as connection:
        assert connection.exec_driver_sql("SHOW statement_timeout").scalar() == "0"


def test_a_table_that_no_migration_makes_is_not_lost_in_silence(
    oppman: Oppman, laptop: str, empty_postgres: str, own_table: sa.Table
) -> None:
    add_gadgets(laptop, own_table, rows=True)

    done = oppman("movedb", laptop, "NEW_URL", NEW_URL=empty_postgres)

    assert done.code == 1 and "make no table 'gadget'" in done.err


# A shell may have Control-C ignored for what it runs beside.
LISTENING = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from app.management import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGKILL])
def test_a_move_that_is_cut_off_leaves_the_target_empty_and_goes_again(
    oppman: Oppman, laptop: str, empty_postgres: str, signum: int
) -> None:
    """Held inside the transaction by a lock on a table that comes late, so it is cut when much has arrived."""
    assert oppman("migrate", DATABASE_URL=empty_postgres).code == 0
    command = [sys.executable, "-c", LISTENING, "movedb", laptop, "NEW_URL"]
    with connect(read_url(empty_postgres)) as lock:
        lock.exec_driver_sql("LOCK TABLE piece IN SHARE MODE")  # others may read, and nobody write
        process = subprocess.Popen(
            command, cwd=ROOT, env=clean_environment(NEW_URL=empty_postgres), stdout=subprocess.PIPE, text=True
        )
        assert process.stdout
        while "message:" not in (line := process.stdout.readline()):
            assert line, process.communicate()
        process.send_signal(signum)
        process.communicate()

    assert all(rows == set() for rows in read_all(empty_postgres).values())
    assert oppman("movedb", laptop, "NEW_URL", NEW_URL=empty_postgres).code == 0
