"""Data that leaves as a file and comes back, with Django's commands."""

import asyncio
import gzip
import io
import json
import os
import re
import shlex
import stat
import sys
import tracemalloc
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from sqlalchemy import text

from app.auth.models import AccessToken, User
from app.chat.models import Conversation, Message, Piece
from app.database import Database
from app.management import fixtures
from app.management.objects import Model, list_models, write_object
from app.models import SQLModel
from app.settings import ROOT, Settings
from tests.management.conftest import Oppman

ADA, TALK, QUESTION, ANSWER = (UUID(int=number) for number in (1, 2, 9, 4))  # the question comes after its answer
SOME_TIME = datetime(2026, 5, 1, 12, 30, 0, 123456, tzinfo=UTC)
AddRows = Callable[..., None]


@pytest.fixture
def add_rows(database_url: str) -> AddRows:
    def add(*rows: SQLModel) -> None:
        async def save(database: Database) -> None:
            async with database.session() as session:
                for row in rows:
                    session.add(row)
                    await session.flush()
                await session.commit()
            await database.close()

        asyncio.run(save(Database(Settings(database_url=SecretStr(database_url)))))

    return add


@pytest.fixture
def conversation(add_rows: AddRows) -> None:
    """Ada, a conversation of hers with a question and an answer that is being written, and her session."""
    message: dict[str, Any] = {"conversation_id": TALK, "created_at": SOME_TIME}
    add_rows(
        User(id=ADA, email="ada@example.org", name="Ada", hashed_password="hash", created_at=SOME_TIME),
        AccessToken(token="t" * 64, user_id=ADA, created_at=SOME_TIME, expires_at=SOME_TIME),
        Conversation(id=TALK, owner_id=ADA, title="Grüße 🙂", created_at=SOME_TIME, updated_at=SOME_TIME),
        Message(id=QUESTION, position=0, role="user", text="Why?\n\u2028'\"\\", **message),
        Message(id=ANSWER, position=1, role="assistant", status="running", question_id=QUESTION, **message),
        Piece(message_id=ANSWER, start=0, text="Because "),
        Piece(message_id=ANSWER, start=8, text="so."),
    )


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def user(**fields: Any) -> dict[str, Any]:
    pk = fields.pop("pk", str(ADA))
    return {"model": "auth.user", "pk": pk, "fields": {"email": "ada@example.org", "hashed_password": "x"} | fields}


def write(name: str, *objects: Any) -> str:
    Path(name).write_text(json.dumps(objects), encoding="utf-8")
    return name


def list_emails(oppman: Oppman) -> list[str]:
    return sorted(raw["fields"]["email"] for raw in json.loads(oppman("dumpdata", "auth.user").out))


# --- dumpdata ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("conversation")
def test_a_dump_has_djangos_form_and_parents_first(oppman: Oppman) -> None:
    dumped = oppman("dumpdata")
    objects = json.loads(dumped.out)
    assert (dumped.code, dumped.err) == (0, "")
    assert [raw["model"] for raw in objects] == [
        "auth.user", "auth.accesstoken", "chat.conversation", "chat.message", "chat.message",
        "chat.piece", "chat.piece",
    ]  # fmt: skip
    assert objects[0] == {
        "model": "auth.user",
        "pk": str(ADA),
        "fields": {
            "email": "ada@example.org", "name": "Ada", "hashed_password": "hash", "is_active": True, "is_staff": False,
            "is_superuser": False, "is_verified": False, "picture_id": None,
            "created_at": "2026-05-01T12:30:00.123456Z",
        },
    }  # fmt: skip
    assert [raw["pk"] for raw in objects[3:5]] == [str(ANSWER), str(QUESTION)]
    assert objects[6] == {"model": "chat.piece", "pk": [str(ANSWER), 8], "fields": {"text": "so."}}
    assert "Grüße 🙂" in dumped.out
    assert oppman("dumpdata").out == dumped.out


@pytest.mark.usefixtures("conversation")
def test_a_dump_can_be_of_some_models_and_rows(oppman: Oppman) -> None:
    def labels(*arguments: str) -> set[str]:
        return {raw["model"] for raw in json.loads(oppman("dumpdata", *arguments).out)}

    assert labels("auth") == {"auth.user", "auth.accesstoken"}
    assert labels("auth.User", "chat.Piece") == {"auth.user", "chat.piece"}
    assert labels("-e", "auth.AccessToken", "-e", "chat", "--all") == {"auth.user"}
    (only,) = json.loads(oppman("dumpdata", "chat.message", "--pks", f"{QUESTION},{uuid4()}").out)
    assert only["pk"] == str(QUESTION)


@pytest.mark.usefixtures("conversation")
def test_a_dump_can_be_lines_or_indented(oppman: Oppman) -> None:
    objects = json.loads(oppman("dumpdata").out)
    lines = oppman("dumpdata", "--format", "jsonl").out
    assert [json.loads(line) for line in lines.split("\n")[:-1]] == objects
    indented = oppman("dumpdata", "--indent", "2").out
    assert indented.startswith('[\n{\n  "model": "auth.user",\n')
    assert json.loads(indented) == objects


def test_a_dump_of_nothing_is_an_empty_list(oppman: Oppman) -> None:
    assert oppman("dumpdata").out == oppman("dumpdata", "--indent", "2").out == "[]\n"
    assert oppman("dumpdata", "--format", "jsonl").out == ""


@pytest.mark.usefixtures("conversation")
def test_a_dump_in_a_file_is_for_its_owner_alone(oppman: Oppman, here: Path) -> None:
    (here / "all.json").write_text("old")
    for name in ("all.json", "all.jsonl.gz", os.devnull):
        assert oppman("dumpdata", "-o", name) == (0, "", "")
    assert stat.S_IMODE((here / "all.json").stat().st_mode) == 0o600
    assert json.loads((here / "all.json").read_text("utf-8"))[0]["pk"] == str(ADA)
    assert len(gzip.decompress((here / "all.jsonl.gz").read_bytes()).splitlines()) == 7
    assert sorted(path.name for path in here.iterdir()) == ["all.json", "all.jsonl.gz"]


def test_a_dump_that_fails_leaves_the_old_file(oppman: Oppman, here: Path) -> None:
    (here / "all.json").write_text("old")
    failed = oppman("dumpdata", "-o", "all.json", DATABASE_URL=f"sqlite:///{here}/empty.sqlite3")
    assert failed.code == 1
    assert failed.err.startswith("CommandError: The database has not the tables that are needed.")
    assert (here / "all.json").read_text() == "old"
    assert not list(here.glob(".all.json*"))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nope"], "No feature with label 'nope' has tables. There are: auth, chat, files."),
        (["auth.Nope"], "Unknown model: auth.Nope. There are: auth.user, "),
        (["-e", "nope"], "No feature with label 'nope'"),
        (["--pks", "1"], "You can only use --pks option with one model."),
        (["auth.user", "--pks", "1"], "--pks: field 'id': Input should be a valid UUID"),
        (["chat.piece", "--pks", "1"], "chat.piece has a primary key of several columns"),
        (["-o", "no/folder/all.json"], "no/folder/all.json cannot be written: No such file or directory."),
    ],
)
def test_a_dump_that_cannot_be_is_refused(oppman: Oppman, here: Path, arguments: list[str], sentence: str) -> None:
    refused = oppman("dumpdata", *arguments)
    assert (refused.code, refused.out) == (1, "")
    assert refused.err.startswith(f"CommandError: {sentence}")


@pytest.mark.usefixtures("conversation")
def test_a_dump_holds_only_a_few_rows_in_memory(oppman: Oppman, add_rows: AddRows) -> None:
    long = "A long answer. " * 2_000
    add_rows(
        *(
            Message(conversation_id=TALK, position=number, role="user", text=long, created_at=SOME_TIME)
            for number in range(2, 1_002)
        )
    )
    oppman("dumpdata", "-o", os.devnull)
    tracemalloc.start()
    try:
        assert oppman("dumpdata", "-o", os.devnull).code == 0
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000 * len(long) / 2


@pytest.mark.usefixtures("conversation")
def test_a_dump_does_not_see_what_is_written_meanwhile(
    oppman: Oppman, add_rows: AddRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_slowly(model: Model, row: Sequence[Any]) -> dict[str, Any]:
        if model.label == "auth.user":
            bob = User(email="bob@example.org", hashed_password="x")
            talk = Conversation(owner_id=bob.id, title="New")
            writer = Thread(target=add_rows, args=(bob, talk))
            writer.start()
            writer.join()
        return write_object(model, row)

    before = oppman("dumpdata").out
    with monkeypatch.context() as patch:
        patch.setattr(fixtures, "write_object", write_slowly)
        assert oppman("dumpdata").out == before
    assert len(json.loads(oppman("dumpdata").out)) == 9


# --- loaddata ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("conversation")
@pytest.mark.parametrize("name", ["all.json", "all.jsonl", "all.json.gz", "all.jsonl.gz"])
def test_what_was_dumped_can_be_loaded(oppman: Oppman, here: Path, name: str) -> None:
    before = oppman("dumpdata").out
    oppman("dumpdata", "-o", name)
    oppman("flush", "--noinput")
    assert oppman("dumpdata").out == "[]\n"
    loaded = oppman("loaddata", name)
    assert (loaded.code, loaded.out) == (0, "Installed 7 object(s) from 1 fixture(s)\n")
    assert oppman("loaddata", name).code == 0
    assert oppman("dumpdata").out == before


@pytest.mark.usefixtures("conversation")
def test_the_order_in_a_file_is_free(oppman: Oppman, here: Path) -> None:
    before = oppman("dumpdata").out
    name = write("backwards.json", *reversed(json.loads(before)))
    oppman("flush", "--noinput")
    assert oppman("loaddata", name).code == 0
    assert oppman("dumpdata").out == before


@pytest.mark.usefixtures("conversation")
def test_rows_that_point_at_each_other_can_be_loaded(oppman: Oppman, here: Path) -> None:
    objects = json.loads(oppman("dumpdata").out)
    question = next(raw for raw in objects if raw["pk"] == str(QUESTION))
    question["fields"]["question_id"] = str(ANSWER)
    oppman("flush", "--noinput")
    assert oppman("loaddata", write("ring.json", *objects)).code == 0
    assert json.loads(oppman("dumpdata").out) == objects


def test_loading_updates_what_is_there_and_fills_in_defaults(oppman: Oppman, here: Path) -> None:
    oppman("loaddata", write("one.json", user(name="Ada", is_staff=True, created_at="2026-05-01T12:00:00")))
    (first,) = json.loads(oppman("dumpdata").out)
    assert first["fields"]["created_at"] == "2026-05-01T12:00:00Z"
    oppman("loaddata", write("two.json", user(name="Nobody"), user(email="countess@example.org")))
    (second,) = json.loads(oppman("dumpdata").out)
    assert (second["fields"]["email"], second["fields"]["name"]) == ("countess@example.org", "")
    assert second["fields"]["is_staff"] is False


def test_a_key_that_is_left_out_is_made(oppman: Oppman, here: Path) -> None:
    assert oppman("loaddata", write("one.json", user(pk=None))).code == 0
    assert UUID(json.loads(oppman("dumpdata").out)[0]["pk"])


def test_several_fixtures_and_standard_input_are_loaded_together(
    oppman: Oppman, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("one.json", user())
    lines = json.dumps(user(pk=str(TALK), email="bob@example.org")).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
    assert oppman("loaddata", "-").err == "CommandError: --format must be specified when reading from stdin.\n"
    loaded = oppman("loaddata", "one", "-", "--format", "jsonl")
    assert loaded.code == 1  # a format that is given counts for all
    write("one.jsonl", user())
    assert oppman("loaddata", "one").err.startswith("CommandError: Multiple fixtures named 'one'")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\n" + json.dumps(user()).encode())))
    Path("two.jsonl").write_bytes(lines)
    assert oppman("loaddata", "two.jsonl", "-", "--format", "jsonl").out == "Installed 2 object(s) from 2 fixture(s)\n"
    assert list_emails(oppman) == ["ada@example.org", "bob@example.org"]


def test_a_fixture_of_a_feature_is_found_by_its_name(
    oppman: Oppman, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = here / "app" / "auth" / "fixtures"
    folder.mkdir(parents=True)
    write(str(folder / "people.json"), user())
    monkeypatch.setattr(fixtures, "ROOT", here)
    assert oppman("loaddata", "people").out == "Installed 1 object(s) from 1 fixture(s)\n"


def test_some_of_a_fixture_can_be_left_out(oppman: Oppman, here: Path) -> None:
    old = {"model": "shop.product", "pk": 1, "fields": {}}
    token = {"model": "auth.accesstoken", "pk": "t", "fields": {"user_id": str(ADA), "expires_at": "2030-01-01T00:00Z"}}
    name = write("old.json", user(shoe_size=38), old, token)
    assert oppman("loaddata", name).code == 1
    loaded = oppman("loaddata", name, "-i", "-e", "auth.AccessToken")
    assert loaded.out == "Installed 1 object(s) (of 3) from 1 fixture(s)\n"


ZOE = user(pk=str(TALK), email="zoe@example.org")


@pytest.mark.parametrize(
    ("objects", "sentence"),
    [
        ([ZOE, user(shoe_size=38)], "object 2: auth.user has no field 'shoe_size'. Nothing was loaded."),
        ([ZOE, {"model": "auth.nope", "fields": {}}], "object 2: there is no model 'auth.nope'. "),
        ([ZOE, 7], "object 2: it names no model. "),
        ([ZOE, {"model": "auth.user", "pk": 1}], "object 2: it has no «fields» in braces. "),
        ([ZOE, user(pk="7")], "object 2: field 'id': Input should be a valid UUID"),
        ([ZOE, user(is_staff="perhaps")], "object 2: field 'is_staff': Input should be a valid boolean"),
        ([ZOE, user(name=5)], "object 2: field 'name': Input should be a valid string"),
        ([ZOE, user(name=None)], "object 2: field 'name' may not be null. "),
        ([ZOE, user(name="\ud800")], "object 2: Could not load auth.user: "),
        ([ZOE, user(created_at="today")], "object 2: field 'created_at': Input should be a valid datetime"),
        ([ZOE, user(email="zoe@example.org")], "object 2: Could not load auth.user: "),
        ([ZOE, {"model": "auth.user", "pk": str(ADA), "fields": {}}], "object 2: Could not load auth.user: "),
        ([ZOE, {"model": "chat.piece", "pk": 1, "fields": {}}], "object 2: the pk of chat.piece is a list of 2. "),
        (
            [{"model": "chat.piece", "pk": [str(ADA), 2**70], "fields": {"text": ""}}],
            "object 1: Could not load chat.piece: ",
        ),
        (
            [{"model": "chat.conversation", "pk": str(ADA), "fields": {"title": "Lost", "owner_id": str(ADA)}}],
            "object 1: Could not load chat.conversation: ",
        ),
        (
            [{"model": "chat.message", "pk": str(ADA), "fields": {"role": "king"}}],
            "object 1: field 'role': Input should be 'user' or 'assistant'. ",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(
    oppman: Oppman, here: Path, objects: list[Any], sentence: str
) -> None:
    refused = oppman("loaddata", write("bad.json", *objects))
    assert (refused.code, refused.out) == (1, "")
    assert refused.err.startswith(f"CommandError: Problem installing fixture 'bad.json', {sentence}")
    assert refused.err.endswith(" Nothing was loaded.\n")
    assert refused.err.count("\n") == 1
    assert "zoe@example.org" not in refused.err
    assert list_emails(oppman) == []


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("bad.json", b'[{"model": ]', "Problem installing fixture 'bad.json': it is not JSON: Expecting value: line 1"),
        ("bad.json", b"{}", "Problem installing fixture 'bad.json': it is not a list of objects."),
        ("bad.json", b"\xff\xfe\xfa", "Problem installing fixture 'bad.json': it is not JSON: "),
        ("bad.json", b"[" * 100_000, "Problem installing fixture 'bad.json': it is not JSON: "),
        ("bad.jsonl", b"\n{", "Problem installing fixture 'bad.jsonl', line 2: it is not JSON: "),
        ("bad.json.gz", b"[]", "Problem installing fixture 'bad.json.gz': it cannot be read: Not a gzipped file"),
        (
            "bad.json.gz",
            gzip.compress(b"[]", mtime=0)[:-9],
            "Problem installing fixture 'bad.json.gz': it cannot be read: ",
        ),
        ("bad.xml", b"", "Problem installing fixture 'bad.xml': name its format with --format json or jsonl."),
    ],
)
def test_a_file_that_is_broken_is_refused(oppman: Oppman, here: Path, name: str, content: bytes, sentence: str) -> None:
    Path(name).write_bytes(content)
    refused = oppman("loaddata", name)
    assert refused.code == 1
    assert refused.err.startswith(f"CommandError: {sentence}")
    assert refused.err.count("\n") == 1


def test_a_fixture_that_is_not_there_is_refused(oppman: Oppman, here: Path) -> None:
    assert oppman("loaddata", "nope") == (1, "", "CommandError: No fixture named 'nope' found.\n")


@given(name=st.text(max_size=80), body=st.text(), moment=st.datetimes(timezones=st.just(UTC)), number=st.integers())
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
def test_any_value_comes_back_or_is_refused(
    oppman: Oppman, here: Path, name: str, body: str, moment: datetime, number: int
) -> None:
    oppman("flush", "--noinput")
    message = {"role": "user", "text": body, "conversation_id": str(TALK), "position": number}
    objects = [
        user(name=name, created_at=moment.isoformat()),
        {"model": "chat.conversation", "pk": str(TALK), "fields": {"title": name, "owner_id": str(ADA)}},
        {"model": "chat.message", "pk": str(QUESTION), "fields": message},
    ]
    loaded = oppman("loaddata", write("any.json", *objects))
    first = json.loads(oppman("dumpdata").out)
    if loaded.code:
        assert loaded.err.endswith("Nothing was loaded.\n")
        assert "\0" in name + body or abs(number) >= 2**31
        assert first == []
        return
    assert (first[0]["fields"]["name"], first[2]["fields"]["text"]) == (name, body)
    assert datetime.fromisoformat(first[0]["fields"]["created_at"]) == moment
    assert first[2]["fields"]["position"] == number
    oppman("dumpdata", "-o", "again.jsonl")
    oppman("flush", "--noinput")
    oppman("loaddata", "again")
    assert json.loads(oppman("dumpdata").out) == first


# --- flush -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("conversation")
def test_flush_empties_the_tables_and_keeps_them(oppman: Oppman) -> None:
    assert oppman("flush", "--noinput").out == f"Emptied {len(list_models())} tables.\n"
    assert oppman("dumpdata").out == "[]\n"
    assert oppman("migrate").out == "No migrations to apply.\n"


@pytest.mark.usefixtures("conversation")
def test_flush_asks_first(oppman: Oppman, monkeypatch: pytest.MonkeyPatch) -> None:
    assert oppman("flush").err.startswith("CommandError: There is no terminal to ask at.")
    monkeypatch.setattr(fixtures, "is_interactive", lambda: True)
    monkeypatch.setattr("builtins.input", lambda prompt: "y")
    asked = oppman("flush")
    assert "IRREVERSIBLY DESTROY" in asked.out and asked.out.endswith("Flush cancelled.\n")
    assert list_emails(oppman) == ["ada@example.org"]
    monkeypatch.setattr("builtins.input", lambda prompt: "yes")
    assert oppman("flush").out.endswith(f"Emptied {len(list_models())} tables.\n")
    assert list_emails(oppman) == []


@pytest.mark.usefixtures("conversation")
def test_flush_empties_all_or_nothing(oppman: Oppman, database_url: str) -> None:
    async def keep_a_person() -> None:
        database = Database(Settings(database_url=SecretStr(database_url)))
        async with database.engine.begin() as connection:
            kind = "CHAR(32)" if connection.dialect.name == "sqlite" else "UUID"
            await connection.execute(text(f"CREATE TABLE badge (owner {kind} REFERENCES person (id))"))
            await connection.execute(text("INSERT INTO badge SELECT id FROM person"))
        await database.close()

    asyncio.run(keep_a_person())
    refused = oppman("flush", "--noinput")
    assert refused.code == 1
    assert refused.err.endswith(". Nothing was deleted.\n")
    assert len(json.loads(oppman("dumpdata").out)) == 7


# --- A cloner's own tables ---------------------------------------------------------------------------------------

SHOP = '''
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any

from sqlalchemy import JSON, Column, Computed, DateTime, ForeignKey, Integer, Table
from sqlmodel import Field, SQLModel


class Size(Enum):
    SMALL = "s"
    LARGE = "l"


class Product(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    parent_id: int | None = Field(default=None, foreign_key="product.id")
    maker_id: int | None = Field(default=None, foreign_key="maker.id")
    facts: dict[str, Any] | None = Field(default_factory=dict, sa_type=JSON)
    price: Decimal = Field(max_digits=10, decimal_places=2)
    picture: bytes
    size: Size
    since: date
    opens: time
    sold_at: datetime
    closed_at: datetime = Field(sa_type=DateTime)
    lasts: timedelta
    weight: float
    twice: int | None = Field(default=None, sa_column=Column(Integer, Computed("id * 2", persisted=True)))


class Maker(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    best_id: int | None = Field(default=None, foreign_key="product.id")  # the two tables point at each other


Table("sold_with", SQLModel.metadata,
      Column("one", ForeignKey("product.id"), primary_key=True),
      Column("other", ForeignKey("product.id"), primary_key=True))
'''  # fmt: skip
VALUES = {
    "facts": {"emoji": "🙂", "list": [1, 2.5, None, True]}, "price": "12.50", "picture": "AP9/", "size": "l",
    "since": "2026-02-28", "opens": "08:30:00", "sold_at": "2026-05-01T12:30:00.123456Z",
    "closed_at": "2026-05-01T12:30:00", "lasts": "P1DT30M", "weight": 0.1,
}  # fmt: skip
PRODUCTS: list[dict[str, Any]] = [
    {"model": "shop.maker", "pk": 3, "fields": {"best_id": 7}},
    {"model": "shop.product", "pk": 5, "fields": {"parent_id": 9, "maker_id": 3, **VALUES}},
    {"model": "shop.product", "pk": 7, "fields": {"parent_id": 7, "maker_id": 3, **VALUES, "facts": None}},
    {"model": "shop.product", "pk": 9, "fields": {"parent_id": None, "maker_id": 3, **VALUES}},
    {"model": "table.sold_with", "pk": [5, 9], "fields": {}},
]
STEPS = r"""
import asyncio, sys, warnings
warnings.filterwarnings("ignore", ".*support Decimal objects natively")
from app.database import Database
from app.management import main
from app.models import SQLModel
from app.settings import load_settings

async def create():
    database = Database(load_settings())
    async with database.engine.begin() as connection:
        await connection.run_sync(SQLModel.metadata.create_all)
    await database.close()

asyncio.run(create())
for line in sys.argv[1:]:
    code = main(line.split())
    if code:
        sys.exit(code)
"""


@pytest.fixture
def shop(project: Path, run_in: Oppman, database_url: str) -> Oppman:
    """A copy of the project with tables of somebody's own. Runs commands in it, one after the other."""
    (project / "app" / "shop").mkdir()
    (project / "app" / "shop" / "models.py").write_text(SHOP, encoding="utf-8")
    with (project / "app" / "models.py").open("a") as models:
        models.write("\nfrom app.shop.models import Product  # noqa\n")
    (project / "shop.json").write_text(json.dumps(PRODUCTS), encoding="utf-8")
    return lambda *lines: run_in("-c", STEPS, *lines, DATABASE_URL=database_url)


def test_tables_of_ones_own_come_back_with_all_their_types(shop: Oppman, project: Path) -> None:
    done = shop(
        "loaddata shop.json", "loaddata -v0 shop", "dumpdata shop table -o out.jsonl", "flush --noinput",
        "loaddata out.jsonl", "dumpdata -o out.json",
    )  # fmt: skip
    assert (done.code, done.err) == (0, "")
    assert f"Emptied {len(list_models()) + 3} tables." in done.out
    lines = [json.loads(line) for line in (project / "out.jsonl").read_text("utf-8").splitlines()]
    assert lines == json.loads((project / "out.json").read_text("utf-8"))
    assert sorted(lines, key=lambda raw: (raw["model"], str(raw["pk"]))) == PRODUCTS


def test_numbers_go_on_after_those_that_were_loaded(shop: Oppman, project: Path) -> None:
    new = {**PRODUCTS[3], "pk": None}
    (project / "new.json").write_text(json.dumps([new]), encoding="utf-8")
    done = shop("loaddata shop", "loaddata new", "dumpdata shop.product -o out.json")
    assert (done.code, done.err) == (0, "")
    assert [raw["pk"] for raw in json.loads((project / "out.json").read_text("utf-8"))] == [5, 7, 9, 10]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"picture": "?"}, "field 'picture': Input should be bytes in Base64"),
        ({"size": "m"}, "field 'size': Input should be 's' or 'l'"),
        ({"price": "cheap"}, "field 'price': Input should be a valid decimal"),
        ({"twice": 4}, "shop.product has no field 'twice'"),
        ({"parent_id": 8}, "Could not load shop.product: "),
    ],
)
def test_what_does_not_fit_ones_own_tables_is_refused(
    shop: Oppman, project: Path, fields: dict[str, Any], sentence: str
) -> None:
    bad = {**PRODUCTS[3], "fields": {**PRODUCTS[3]["fields"], **fields}}
    (project / "bad.json").write_text(json.dumps([{**PRODUCTS[0], "fields": {}}, bad]), encoding="utf-8")
    refused = shop("loaddata bad.json")
    assert refused.code == 1
    assert f"'bad.json', object 2: {sentence}" in refused.err
    assert refused.err.count("\n") == 1


# --- The words beside it -----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("conversation")
def test_the_commands_of_the_page_work(oppman: Oppman, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = (
        (ROOT / "docs" / "data.md").read_text(encoding="utf-8").partition("## Fixtures\n")[2].partition("\n## ")[0]
    )
    (here / "app" / "auth" / "fixtures").mkdir(parents=True)
    (here / "app" / "chat" / "fixtures").mkdir(parents=True)
    monkeypatch.setattr(fixtures, "ROOT", here)
    before = oppman("dumpdata").out
    lines = "".join(re.findall(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)).splitlines()
    assert len(lines) > 4
    for line in lines:
        assert line.startswith("uv run oppman.py ")
        done = oppman(*shlex.split(line, comments=True)[3:])
        assert (done.code, done.err) == (0, ""), line
    assert oppman("dumpdata").out == before
