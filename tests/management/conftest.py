"""Commands as somebody types them: in this process on a database of their own, or in one of theirs."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import pytest
from pydantic import SecretStr

from app.auth.models import User
from app.database import Database
from app.management import main, quickstart
from app.management.console import console
from app.settings import Settings, load_settings
from tests.conftest import known_hash


class Result(NamedTuple):
    code: int
    out: str
    err: str


Oppman = Callable[..., Result]
AddPerson = Callable[[str, str], None]


@pytest.fixture
def oppman(database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Oppman]:
    """Runs a command here: `oppman("migrate", "zero", OPPMAN_PASSWORD="...")`."""

    def run(*arguments: str, **environment: str) -> Result:
        with monkeypatch.context() as patch:
            patch.delenv("PORT", raising=False)
            for name, value in {"DATABASE_URL": database_url, **environment}.items():
                patch.setenv(name, value)
            load_settings.cache_clear()
            capsys.readouterr()
            try:
                code = main(arguments)
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else int(bool(end.code))
        return Result(code, *capsys.readouterr())

    yield run
    load_settings.cache_clear()
    console.set_up()


@pytest.fixture
def add_person(database_url: str) -> AddPerson:
    """Gives somebody an account in the commands' database: `add_person("ada@example.org", "Ada")`."""

    async def add(email: str, name: str) -> None:
        database = Database(Settings(database_url=SecretStr(database_url)))
        async with database.session() as session:
            session.add(User(email=email, name=name, hashed_password=await known_hash()))
            await session.commit()
        await database.close()

    return lambda email, name: asyncio.run(add(email, name))


@pytest.fixture
def fill(oppman: Oppman, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., None]:
    """Gives Ada and Bob a row in every table that is theirs: `fill()`, or `fill(DATABASE_URL=...)`."""
    file = tmp_path_factory.mktemp("fixtures") / "some.json"
    file.write_text(json.dumps(list(make_objects())), encoding="utf-8")

    def load(**environment: str) -> None:
        done = oppman("loaddata", str(file), **environment)
        assert done.code == 0, done.err

    return load


def make_objects() -> Iterator[dict[str, object]]:
    def describe(model: str, pk: object, **fields: object) -> dict[str, object]:
        return {"model": model, "pk": pk, "fields": fields}

    for number, name in enumerate(("ada", "bob")):
        person, conversation, question, answer = (str(UUID(int=10 * number + step)) for step in range(1, 5))
        yield describe("auth.user", person, email=f"{name}@example.org", name=name.title(), hashed_password="x")
        yield describe("auth.accesstoken", name * 20, user_id=person, expires_at="2099-01-02T03:04:05.678901+02:00")
        yield describe("files.file", person, owner_id=person, content_type="image/webp", size=8)
        yield describe("chat.conversation", conversation, owner_id=person, title="Sand 👩‍👩‍👧 مرحبا")
        text = '\t"Clay" \\N \\.\n\r\n'  # what COPY writes in other words
        inside = {"conversation_id": conversation, "text": text}
        yield describe("chat.message", answer, position=1, role="assistant", question_id=question, **inside)
        yield describe("chat.message", question, position=0, role="user", **inside)
        yield describe("chat.piece", [answer, 0], text="Hello")


def clean_environment(**more: str) -> dict[str, str]:
    """What a fresh terminal has: no settings of ours, and none of the tests'."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "SYSTEMROOT", "TMPDIR") if name in os.environ}
    return kept | {"PYTHONWARNINGS": "error", **more}


def list_group(process: "subprocess.Popen[str]") -> list[str]:
    """What of the process group is still alive."""
    command = ["ps", "-ww", "-eo", "pgid,stat,args"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = [line.split(maxsplit=2) for line in listed.splitlines()[1:]]
    return [args for group, state, args in rows if group == str(process.pid) and not state.startswith("Z")]


@pytest.fixture
def at_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder that quickstart takes for the project's when it runs in this process."""
    monkeypatch.setattr(quickstart, "ROOT", tmp_path)
    return tmp_path


@pytest.fixture
def run_in(project: Path) -> Oppman:
    """Runs a command in a process of its own, in a copy of the project; or Python, with -c first."""

    def run(*arguments: str, **environment: str) -> Result:
        script = [] if arguments[:1] == ("-c",) else ["oppman.py"]
        done = subprocess.run(
            [sys.executable, *script, *arguments],
            cwd=project,
            env=clean_environment(**environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    return run
