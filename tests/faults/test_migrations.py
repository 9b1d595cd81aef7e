"""Migrations that meet, that fail and that are killed, and an app whose tables are older or newer than its code."""

import asyncio
import json
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from sqlalchemy import Engine, create_engine, inspect, text

from app.database import read_url
from app.settings import ROOT
from tests.chat.reading import JSON
from tests.conftest import Person, Site
from tests.faults.conftest import API, Client, StartWorker, Worker, begin
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
Start = Callable[..., "subprocess.Popen[str]"]


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

    def start(url: str = database_url) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "oppman.py", "migrate"],
            cwd=project,
            env=clean_environment(DATABASE_URL=url),
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
        values = "'00000000000000000000000000000001', 'bob@example.org', 'Bob', '', true, false, false, true, :now"
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


@pytest.mark.parametrize("is_new", [True, False], ids=["from-nothing", "from-the-last"])
def test_f32_many_that_migrate_at_once_do_each_once(
    write: Write, start_migrate: Start, engine: Engine, is_new: bool
) -> None:
    write(FIRST, "visit", CREATE + SLOWLY)
    write(SECOND, "more", INSERT.format(3) + SLOWLY)
    if is_new:
        drop_all(engine)
    all_of_them = [start_migrate() for _ in range(6)]
    ends = [(process.communicate(timeout=120), process.returncode) for process in all_of_them]
    assert [code for _, code in ends] == [0] * 6, ends
    out = "".join(out for (out, _), _ in ends)
    for name in ([f"{HEAD}_"] if is_new else []) + [f"{FIRST}_visit", f"{SECOND}_more"]:
        assert len(re.findall(rf"Applying {name}\w*\.\.\. OK\n", out)) == 1, out
    assert list_visits(engine) == [2, 3] and describe(engine)["version"] == SECOND


def drop_all(engine: Engine) -> None:
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("DROP SCHEMA public CASCADE"))
            connection.execute(text("CREATE SCHEMA public"))
    if engine.dialect.name == "sqlite":
        engine.dispose()
        for path in find_files(engine, "*"):
            path.unlink()


def find_files(engine: Engine, more: str) -> list[Path]:
    """The database's file, or those whose names go on after its name."""
    path = Path(str(engine.url.database))
    return sorted(path.parent.glob(f"{path.name}{more}"))


@pytest.mark.anyio
async def test_f32_who_chats_while_a_new_version_migrates_sees_no_error(
    write: Write, start_migrate: Start, engine: Engine, start_worker: StartWorker, ada_anywhere: Client
) -> None:
    """The old code serves on, and the migrations change the very tables that it uses."""
    add = 'op.add_column("{}", sa.Column("mood", sa.String(9)))'
    write(FIRST, "visit", CREATE + "\n    " + add.format("message") + SLOWLY)
    write(SECOND, "moods", add.format("conversation") + "\n    " + add.format("piece") + SLOWLY)
    worker, statuses, is_over = start_worker(), [], asyncio.Event()
    client = await ada_anywhere.at(worker)

    async def keep_asking() -> None:
        while not is_over.is_set():
            path = await begin(client)
            asked = await client.post(path, json={"content": "Hello"})
            listed = await client.get(path)
            statuses.append((asked.status_code, asked.json()["status"], len(listed.json()["items"])))

    async with asyncio.TaskGroup() as tasks:
        for _ in range(4):
            tasks.create_task(keep_asking())
        while len(statuses) < 4:  # noqa: ASYNC110 (they have begun)
            await asyncio.sleep(0.01)
        processes = [start_migrate() for _ in range(3)]
        ends = [await asyncio.to_thread(process.communicate, timeout=120) for process in processes]
        served = len(statuses)
        while len(statuses) < served + 8:  # noqa: ASYNC110 (these come after it)
            await asyncio.sleep(0.01)
        is_over.set()
    assert [process.returncode for process in processes] == [0, 0, 0], ends
    assert describe(engine)["version"] == SECOND
    assert set(statuses) == {(200, "done", 2)}, statuses
    assert "Traceback" not in worker.log.read_text()


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
    behind = f"stands at migration 0001, and this site&#39;s newer code needs {HEAD}. Its owner adds them with: python"
    assert behind in page.text and "Keep me</textarea>" in page.text
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


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("statement", "path", "form"),
    [
        ("ALTER TABLE conversation DROP COLUMN title", "/chat", {"text": "Hello"}),
        ("CREATE UNIQUE INDEX one_of_each_name ON person (name)", "/settings/profile", {"name": "Bob"}),
    ],
    ids=["a-column-less", "a-rule-more"],
)
async def test_f32_what_newer_tables_refuse_is_said_to_be_so(
    site: Site, ada: Person, bob: Person, statement: str, path: str, form: dict[str, str]
) -> None:
    await change(site, statement, "UPDATE alembic_version SET version_num = '0099'")
    page = await ada.post(path, data=form)
    assert page.status_code == 503 and page.headers["retry-after"] == "5"
    ahead = f"stands at migration 0099, and this site&#39;s older code knows only {HEAD}. Its owner deploys the newer"
    assert ahead in page.text


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


# --- MIGRATE_ON_START ------------------------------------------------------------------------------------------------


StartNew = Callable[[], Worker]


@pytest.fixture
def start_new(project: Path, database_url: str, tmp_path: Path) -> Iterator[StartNew]:
    """Starts a server of the newer code, which migrates by itself."""
    workers: list[Worker] = []
    environment = {"DATABASE_URL": database_url, "LOCAL_LLM": "off", "MIGRATE_ON_START": "true"}

    def start() -> Worker:
        workers.append(Worker((), environment, tmp_path / f"new{len(workers)}.log", project))
        return workers[-1]

    yield start
    for worker in workers:
        worker.end()


def get(worker: Worker, path: str) -> tuple[int, str, str | None]:
    request = Request(worker.url + path, headers={"Accept": "text/html"})
    try:
        with urlopen(request, timeout=20) as response:
            return response.status, response.read().decode(), None
    except HTTPError as error:
        with error:
            return error.code, error.read().decode(), error.headers["retry-after"]


def wait_until_ready(worker: Worker) -> None:
    until = time.monotonic() + 60
    while read_ready(worker)[0] != 200:
        assert time.monotonic() < until, worker.log.read_text()
        time.sleep(0.05)


def test_f32_a_server_that_migrates_answers_probes_and_holds_pages_back(
    write: Write, start_new: StartNew, engine: Engine, project: Path
) -> None:
    write(FIRST, "visit", CREATE + WAIT)
    worker = start_new()
    assert get(worker, "/healthz")[0] == get(worker, "/kaithhealth")[0] == 200
    wait_for(project / "inside")
    assert read_ready(worker)[0] == 503 and get(worker, "/healthz")[0] == 200
    status, page, again = get(worker, "/login")
    assert (status, again) == (503, "5") and "is being brought up to date. Try again in a moment." in page
    (project / "go").touch()
    assert get(worker, "/login")[0] == 200, "it was waited for"
    assert read_ready(worker) == (200, {"status": "ready"}) and list_visits(engine) == [2]
    assert "Traceback" not in worker.log.read_text()


def test_f32_servers_that_start_at_once_migrate_once(write: Write, start_new: StartNew, engine: Engine) -> None:
    drop_all(engine)
    write(FIRST, "visit", CREATE + SLOWLY)
    workers = [start_new() for _ in range(3)]
    for worker in workers:
        wait_until_ready(worker)
        assert "ERROR" not in worker.log.read_text()
    assert list_visits(engine) == [2] and describe(engine)["version"] == FIRST
    for path in find_files(engine, "") if engine.dialect.name == "sqlite" else []:
        assert path.stat().st_mode & 0o077 == 0


def test_f33_a_server_whose_migration_fails_says_so_until_it_is_mended(
    write: Write, start_new: StartNew, start_migrate: Start, engine: Engine
) -> None:
    before = describe(engine)
    write(FIRST, "bad", CREATE + '\n    raise RuntimeError("Ada said no")')
    worker = start_new()
    until = time.monotonic() + 60
    while (answer := get(worker, "/login"))[2] != "60":
        assert answer[0] == 503 and time.monotonic() < until
    assert "could not be brought up to date, and nothing in it has changed." in answer[1]
    assert "Ada said no" not in answer[1] and get(worker, "/healthz")[0] == 200 and read_ready(worker)[0] == 503
    log = worker.log.read_text()
    assert "app.schema: The migrations were not applied, and the database is as it was before: Ada said no.\n" in log
    assert describe(engine) == before

    write(FIRST, "bad", CREATE + "\n    # mended")
    assert start_migrate().wait(60) == 0
    wait_until_ready(worker)
    while get(worker, "/login")[0] != 200:
        assert time.monotonic() < until


# --- SQLite: what a migration has saved by itself is undone by a copy ------------------------------------------------


@pytest.fixture
def sqlite(engine: Engine) -> Engine:
    if engine.dialect.name != "sqlite":
        pytest.skip("This is about SQLite; PostgreSQL has transactions that hold")
    return engine


SAVES = [
    'op.execute("COMMIT")',
    "op.get_bind().connection.driver_connection.commit()",
    'op.get_bind().connection.driver_connection.executescript("UPDATE person SET email = NULL WHERE 1 = 0")',
]


@pytest.mark.parametrize("save", SAVES, ids=["sql", "driver", "script"])
def test_f33_what_a_failing_migration_has_saved_is_undone(
    write: Write, start_migrate: Start, sqlite: Engine, save: str
) -> None:
    before = describe(sqlite)
    write(FIRST, "bad", CREATE + "\n    " + FAIL.strip() + "\n    " + save + '\n    raise RuntimeError("Ada said no")')
    process = start_migrate()
    err = process.communicate(timeout=60)[1]
    assert process.returncode == 1 and "Ada said no" in err
    assert describe(sqlite) == before
    (copy,) = find_files(sqlite, ".before-*")
    assert f"so the database was put back. A copy stays in {copy}\n" in err
    assert copy.stat().st_mode & 0o077 == 0
    copied = create_engine(f"sqlite:///{copy}")
    assert describe(copied) == before
    copied.dispose()


def test_f33_no_copy_stays_where_nothing_is_wrong(write: Write, start_migrate: Start, sqlite: Engine) -> None:
    write(FIRST, "visit", CREATE + "\n    " + SAVES[0])
    assert start_migrate().wait(60) == 0
    write(SECOND, "bad", INSERT.format(3) + "\n    raise RuntimeError")
    assert start_migrate().wait(60) == 1
    assert list_visits(sqlite) == [2]
    assert find_files(sqlite, ".before-*") == []


def test_f33_without_room_for_a_copy_nothing_is_done(
    write: Write, start_migrate: Start, sqlite: Engine, small_disk: Path
) -> None:
    with sqlite.begin() as connection:
        connection.execute(text("CREATE TABLE big AS SELECT randomblob(5000000) AS bytes"))
    sqlite.dispose()
    path = small_disk / "db.sqlite3"
    with closing(sqlite3.connect(find_files(sqlite, "")[0])) as full, closing(sqlite3.connect(path)) as small:
        full.backup(small)
    write(FIRST, "visit", CREATE)
    process = start_migrate(f"sqlite:///{path}")
    err = process.communicate(timeout=60)[1]
    assert process.returncode == 1 and err.count("\n") == 1, err
    assert err.startswith("CommandError: Nothing was changed: a copy of the database") and str(small_disk) in err
    assert [found.name for found in small_disk.iterdir()] == ["db.sqlite3"]
    there = create_engine(f"sqlite:///{path}")
    assert describe(there)["version"] == HEAD
    there.dispose()
