"""A backup is whole, secret, and of one moment, and it comes back as a whole or not at all."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from app.database import read_url
from app.management import backup
from app.management.transfer import connect, has_pooler
from app.settings import ROOT
from tests.management.conftest import AddPerson, Oppman, clean_environment
from tests.management.test_move import read_all
from tests.postgres import find_binaries

WRITER = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("PRAGMA journal_mode=WAL")
number = 0
while True:  # two rows in each transaction: a backup that has one of them only is torn
    number += 1
    database.execute("BEGIN IMMEDIATE")
    database.execute("INSERT INTO pair VALUES (?)", [number])
    database.execute("INSERT INTO pair VALUES (?)", [number])
    database.execute("COMMIT")
    print(number, flush=True)
"""


@pytest.fixture
def filled(fill: Callable[..., None], database_url: str) -> str:
    fill()
    return database_url


@pytest.fixture
def saved(oppman: Oppman, filled: str, tmp_path: Path) -> Path:
    path = tmp_path / "saved"
    done = oppman("backup", str(path))
    assert done.code == 0, done.err
    return path


@pytest.fixture
def with_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """pg_dump and pg_restore as new as the tests' server."""
    monkeypatch.setenv("PATH", f"{find_binaries()}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.parametrize("flags", [[], ["--sqlite"]])
def test_a_backup_brings_everything_back(
    oppman: Oppman, filled: str, tmp_path: Path, add_person: AddPerson, flags: list[str]
) -> None:
    path, before = tmp_path / "saved", read_all(filled)
    assert oppman("backup", str(path), *flags).code == 0
    add_person("later@example.org", "Later")

    done = oppman("restore", str(path), "--replace", "--noinput")

    assert done.code == 0, done.err
    assert read_all(filled) == before
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in tmp_path.glob("saved*")] == ["saved"]


def test_pg_dump_saves_where_it_can(oppman: Oppman, filled: str, tmp_path: Path, with_programs: None) -> None:
    path, before = tmp_path / "saved", read_all(filled)
    assert oppman("backup", str(path)).code == 0
    assert path.read_bytes()[:5] == (b"SQLit" if behind_no_direct_postgres(filled) else b"PGDMP")
    assert oppman("flush", "--noinput").code == 0

    done = oppman("restore", str(path), "--replace", "--noinput")

    assert done.code == 0, done.err
    assert read_all(filled) == before


def behind_no_direct_postgres(url: str) -> bool:
    """SQLite, or a pooler, which the tests' own server has on a port that is not the server's."""
    if url.startswith("sqlite"):
        return True
    with connect(read_url(url), snapshot=True) as connection:
        return has_pooler(connection)


def test_a_backup_of_postgresql_can_move_in_with_sqlite(oppman: Oppman, filled: str, tmp_path: Path) -> None:
    path, home = tmp_path / "saved", f"sqlite:///{tmp_path / 'home.sqlite3'}"
    assert oppman("backup", str(path), "--sqlite").code == 0

    assert oppman("restore", str(path), DATABASE_URL=home).code == 0

    assert read_all(home) == read_all(filled)


def test_nothing_is_written_over(oppman: Oppman, saved: Path) -> None:
    before = saved.read_bytes()

    done = oppman("backup", str(saved))

    assert done.code == 1 and "is there already" in done.err and saved.read_bytes() == before


def test_a_backup_has_a_name_of_its_own(
    oppman: Oppman, filled: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup, "FOLDER", tmp_path / "backups")

    assert oppman("backup").code == 0

    (path,) = (tmp_path / "backups").iterdir()
    assert path.suffix in (".sqlite3", ".dump") and path.parent.stat().st_mode & 0o777 == 0o700


def test_rows_are_not_replaced_unasked(oppman: Oppman, filled: str, saved: Path) -> None:
    before = read_all(filled)

    refused = oppman("restore", str(saved), "--noinput")
    unasked = oppman("restore", str(saved), "--replace")

    assert refused.code == 1 and "has rows already" in refused.err
    assert unasked.code == 1 and "--noinput" in unasked.err
    assert read_all(filled) == before


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:9000]), "damaged"),
        (lambda path: path.write_bytes(b"PK" + path.read_bytes()), "is no backup"),
        (lambda path: path.write_bytes(b""), "is no backup"),
        (lambda path: path.unlink(), "cannot be read"),
        (lambda path: put_ahead(path), "Update this code"),
    ],
)
def test_a_damaged_backup_changes_nothing(
    oppman: Oppman, filled: str, tmp_path: Path, damage: Callable[[Path], None], words: str
) -> None:
    path, before = tmp_path / "saved", read_all(filled)
    assert oppman("backup", str(path), "--sqlite").code == 0
    damage(path)

    done = oppman("restore", str(path), "--replace", "--noinput")

    assert done.code == 1 and words in done.err and "Traceback" not in done.err
    assert read_all(filled) == before


def put_ahead(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
        database.commit()


def test_a_backup_that_cannot_be_written_leaves_nothing(oppman: Oppman, filled: str, tmp_path: Path) -> None:
    done = oppman("backup", str(tmp_path / "no" / "folder"))

    assert done.code == 1 and "cannot be written" in done.err


def test_a_backup_is_of_one_moment_while_others_write(oppman: Oppman, tmp_path: Path) -> None:
    live = tmp_path / "live.sqlite3"
    assert oppman("migrate", DATABASE_URL=f"sqlite:///{live}").code == 0
    with closing(sqlite3.connect(live)) as database:
        database.execute("CREATE TABLE pair (number INTEGER)")
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, live], cwd=ROOT, env=clean_environment(), stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout
    try:
        for number in range(5):
            writer.stdout.readline()
            assert oppman("backup", str(tmp_path / f"{number}"), DATABASE_URL=f"sqlite:///{live}").code == 0
    finally:
        writer.kill()
        writer.communicate()

    for number in range(5):
        with closing(sqlite3.connect(tmp_path / f"{number}")) as database:
            rows, numbers = database.execute("SELECT count(*), count(DISTINCT number) FROM pair").fetchone()
            assert rows == 2 * numbers > 0


def test_who_has_the_database_open_goes_on_with_what_was_restored(
    oppman: Oppman, fill: Callable[..., None], tmp_path: Path
) -> None:
    live, saved = tmp_path / "live.sqlite3", tmp_path / "saved"
    url = f"sqlite:///{live}"
    assert oppman("migrate", DATABASE_URL=url).code == 0
    fill(DATABASE_URL=url)
    assert oppman("backup", str(saved), DATABASE_URL=url).code == 0
    with closing(sqlite3.connect(live)) as database:
        (people,) = database.execute("SELECT count(*) FROM person").fetchone()
        database.execute("DELETE FROM person")
        database.commit()

        assert oppman("restore", str(saved), "--noinput", "--replace", DATABASE_URL=url).code == 0

        assert database.execute("SELECT count(*) FROM person").fetchone() == (people,)
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_restore_does_not_wait_for_ever_for_somebody_who_writes(
    oppman: Oppman, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup, "BUSY_SECONDS", 0.3)
    live, saved = tmp_path / "live.sqlite3", tmp_path / "saved"
    url = f"sqlite:///{live}"
    assert oppman("migrate", DATABASE_URL=url).code == oppman("backup", str(saved), DATABASE_URL=url).code == 0
    with closing(sqlite3.connect(live, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")

        done = oppman("restore", str(saved), DATABASE_URL=url)

    assert done.code == 1 and "Stop the app first" in done.err


def test_a_folder_that_cannot_be_made_is_told(oppman: Oppman, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(backup, "FOLDER", tmp_path / "file" / "backups")

    done = oppman("backup")

    assert done.code == 1 and "cannot be made" in done.err
