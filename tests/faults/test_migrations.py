"""Migrations that meet, that fail and that are killed, and an app whose tables are older or newer than its code."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from sqlalchemy import Engine, create_engine, inspect, text

from app.database import read_url
from app.settings import ROOT
from tests.chat.reading import JSON
from tests.conftest import Person, Site
from tests.faults.conftest import API, Worker
from tests.management.conftest import clean_environment

MIGRATION = """
import os, time
import sqlalchemy as sa
from alembic import op

revision = "{number}"
down_revision = "{before}"

def upgrade():
    {code}

def downgrade():
    op.drop_table("visit")
"""
CREATE = """op.create_table("visit", sa.Column("number", sa.Integer()))
    op.execute("INSERT INTO visit VALUES (2)")"""
INSERT = 'op.execute("INSERT INTO visit VALUES ({})")'
SLOWLY = "\n    time.sleep(0.3)"
WAIT = """
    open("inside", "w").close()
    while not os.path.exists("go"):
        time.sleep(0.01)"""
FAIL = """
    op.add_column("person", sa.Column("nickname", sa.String(9)))
    with op.batch_alter_table("person") as person:
        person.alter_column("name", existing_type=sa.String(80), type_=sa.String(8), nullable=True)
    op.execute("UPDATE person SET name = 'x'")
    op.drop_table("piece")
    """

HEAD = max(path.name[:4] for path in (ROOT / "migrations" / "versions").glob("*.py"))
FIRST, SECOND, THIRD, FOURTH = (f"{int(HEAD) + more:04d}" for more in range(1, 5))

Write = Callable[..., None]
Start = Callable[[], "subprocess.Popen[str]"]


@pytest.fixture
def write(project: Path) -> Write:
    """Writes the next migration: `write(FIRST, "visit", CREATE)`."""

    def write_migration(number: str, name: str, code: str) -> None:
        before = f"{int(number) - 1:04d}"
        path = project / "migrations" / "versions" / f"{number}_{name}.py"
        path.write_text(MIGRATION.format(number=number, before=before, code=code))

    return write_migration


@pytest.fixture
def start_migrate(project: Path, database_url: str) -> Iterator[Start]:
    """Starts `oppman.py migrate` in a process of its own."""
    started: list[subprocess.Popen[str]] = []

    def start() -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "oppman.py", "migrate"],
            cwd=project,
            env=clean_environment(DATABASE_URL=database_url),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    url = read_url(database_url)
    engine = create_engine(url.set(drivername="sqlite") if url.drivername.startswith("sqlite") else url)
    with engine.begin() as connection:
        columns = "id, email, name, hashed_password, is_active, is_staff, is_superuser, is_verified, created_at"
        values = "'00000000000000000000000000000001', 'ada@example.org', 'Ada', '', true, false, false, true, :now"
        now = "2026-01-01 00:00:00"
        connection.execute(text(f"INSERT INTO person ({columns}) VALUES ({values})"), {"now": now})
    yield engine
    engine.dispose()


def describe(engine: Engine) -> dict[str, Any]:
    """Everything that a migration may change: tables, columns, keys, the person's row, and the version."""
    found = inspect(engine)
    with engine.connect() as connection:
        rows = [tuple(row) for row in connection.execute(text("SELECT * FROM person"))]
        version = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
    tables = {
        name: (
            [(column["name"], str(column["type"]), column["nullable"]) for column in found.get_columns(name)],
            sorted(str(key) for key in found.get_foreign_keys(name)),
            sorted(str(index) for index in found.get_indexes(name)),
        )
        for name in found.get_table_names()
    }
    return {"tables": tables, "rows": rows, "version": version}


def list_visits(engine: Engine) -> list[int]:
    with engine.connect() as connection:
        return list(connection.execute(text("SELECT number FROM visit ORDER BY number")).scalars())


def wait_for(path: Path) -> None:
    until = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < until, f"{path} never came"
        time.sleep(0.02)


def read_ready(worker: Worker) -> tuple[int, dict[str, Any]]:
    try:
        with urlopen(f"{worker.url}/readyz", timeout=10) as response:
            return response.status, json.load(response)
    except HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_f32_two_that_migrate_at_once_do_it_once(write: Write, start_migrate: Start, engine: Engine) -> None:
    write(FIRST, "visit", CREATE + SLOWLY)
    for number, revision in ((3, SECOND), (4, THIRD), (5, FOURTH)):
        write(revision, "more", INSERT.format(number) + SLOWLY)
    both = [start_migrate(), start_migrate()]
    ends = [(process.communicate(timeout=60), process.returncode) for process in both]
    assert [code for _, code in ends] == [0, 0], ends
    assert list_visits(engine) == [2, 3, 4, 5]
    assert describe(engine)["version"] == FOURTH


def test_f32_nobody_is_ready_while_a_migration_runs(
    write: Write, start_migrate: Start, engine: Engine, project: Path, database_url: str, tmp_path: Path
) -> None:
    write(FIRST, "visit", CREATE + WAIT)
    worker = Worker((), {"DATABASE_URL": database_url, "LOCAL_LLM": "off"}, tmp_path / "log", project)
    try:
        behind = {"status": "unavailable", "reason": "migrations", "found": HEAD, "needed": FIRST}
        assert read_ready(worker) == (503, behind)
        assert f"stands at migration {HEAD}, and the code needs {FIRST}" in worker.log.read_text()
        first = start_migrate()
        wait_for(project / "inside")
        assert read_ready(worker) == (503, behind)
        second = start_migrate()
        with pytest.raises(subprocess.TimeoutExpired):  # it waits for its turn
            second.wait(3)
        (project / "go").touch()
        ends = [(process.communicate(timeout=60), process.returncode) for process in (first, second)]
        assert [code for _, code in ends] == [0, 0], ends
        assert f"Applying {FIRST}_visit... OK" in ends[0][0][0] and ends[1][0][0] == "No migrations to apply.\n"
        assert list_visits(engine) == [2]
        assert read_ready(worker) == (200, {"status": "ready"})
    finally:
        worker.end()


async def change(site: Site, *statements: str) -> None:
    async with site.session() as session:
        for statement in statements:
            await session.exec(text(statement))  # type: ignore[call-overload]
        await session.commit()


@pytest.mark.anyio
async def test_f32_tables_behind_the_code_refuse_in_one_sentence(
    site: Site, ada: Person, caplog: pytest.LogCaptureFixture
) -> None:
    begun = (await ada.post(f"{API}/conversations", headers=JSON)).json()
    await change(
        site, "ALTER TABLE message DROP COLUMN left_out_count", "UPDATE alembic_version SET version_num = '0001'"
    )
    ready = await ada.get("/readyz")
    assert ready.status_code == 503
    assert f"stands at migration 0001, and the code needs {HEAD}" in caplog.text

    page = await ada.post(f"/chat/{begun['id']}/messages", data={"text": "Keep me"})
    assert page.status_code == 503
    assert "Its owner adds them with: python oppman.py migrate" in page.text and "Keep me</textarea>" in page.text
    asked = await ada.post(f"{API}/conversations/{begun['id']}/messages", json={"content": "?"}, headers=JSON)
    assert asked.status_code == 503 and "oppman.py migrate" in asked.json()["detail"]
    async with site.session() as session:
        assert (await session.exec(text("SELECT count(*) FROM message"))).scalar() == 0  # type: ignore[call-overload]


@pytest.mark.anyio
async def test_f32_tables_ahead_of_the_code_are_used_as_they_are(
    site: Site, ada: Person, caplog: pytest.LogCaptureFixture
) -> None:
    """As an old process sees them while a new one is deployed. A load balancer sends it nothing more."""
    await change(
        site,
        "ALTER TABLE message ADD COLUMN mood VARCHAR(9)",
        "CREATE TABLE visit (number INTEGER)",
        "UPDATE alembic_version SET version_num = '0099'",
    )
    ready = await ada.get("/readyz")
    assert (ready.status_code, ready.json()["found"], ready.json()["needed"]) == (503, "0099", HEAD)
    assert f"stands at migration 0099, and the code needs {HEAD}" in caplog.text
    begun = (await ada.post(f"{API}/conversations", headers=JSON)).json()
    path = f"{API}/conversations/{begun['id']}/messages"
    assert (await ada.post(path, json={"content": "Hello"}, headers=JSON)).json()["status"] == "done"


def test_f32_a_database_ahead_of_the_code_is_not_migrated(start_migrate: Start, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0099'"))
    before = describe(engine)
    process = start_migrate()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1 and err.count("\n") == 1 and "0099" in err, (out, err)
    assert describe(engine) == before


@pytest.mark.parametrize("fault", ['raise RuntimeError("Ada said no")', 'op.execute("SELECT 1 FROM nowhere")'])
def test_f33_a_migration_that_fails_leaves_nothing(
    write: Write, start_migrate: Start, engine: Engine, fault: str
) -> None:
    write(FIRST, "visit", CREATE)
    process = start_migrate()
    assert process.wait(60) == 0
    before = describe(engine)
    write(SECOND, "bad", FAIL.lstrip() + INSERT.format(3) + "\n    " + fault)
    write(THIRD, "never", INSERT.format(4))

    process = start_migrate()
    err = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert err.startswith(f"CommandError: {SECOND}_bad was not applied, and the database is as it was before: ")
    assert err.count("\n") == 1 and ("Ada said no" in err or "nowhere" in err)
    assert describe(engine) == before and list_visits(engine) == [2]

    write(SECOND, "bad", INSERT.format(3) + "\n    # mended")
    process = start_migrate()
    assert process.wait(60) == 0
    assert list_visits(engine) == [2, 3, 4]


def test_f33_a_migration_that_is_killed_leaves_nothing(
    write: Write, start_migrate: Start, engine: Engine, project: Path
) -> None:
    before = describe(engine)
    write(FIRST, "visit", CREATE + FAIL + WAIT.lstrip())
    process = start_migrate()
    wait_for(project / "inside")
    process.kill()
    process.wait()
    assert describe(engine) == before
    write(FIRST, "visit", CREATE)
    process = start_migrate()
    assert process.wait(60) == 0
    assert list_visits(engine) == [2]
