"""A database that is away, locked or full: nothing that was confirmed is lost. Names as in the fault table."""

import asyncio
import html
import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import select

from app.chat import answers as writing
from app.chat import service
from app.chat.models import Message
from app.database import STATEMENT_SECONDS
from app.llm.scripted import ScriptedModel
from app.settings import ROOT
from tests.chat.reading import EVENTS, JSON, Event, read_events
from tests.conftest import MakeSite, Person, Site, migrate, migrated_databases
from tests.faults.conftest import API, begin, needs_posix
from tests.faults.killed_writer import WORDS
from tests.faults.proxy import Proxy, postgres_proxy
from tests.postgres import Control, Server

pytestmark = pytest.mark.anyio

TEXT = "Please keep\n<b>this</b> & that."


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A PostgreSQL of these tests alone, because they stop it."""
    with migrated_databases() as server:
        yield server


@pytest.fixture
def postgres_url(server: Server) -> str:
    return server.copy_template()


@pytest.fixture
def control(server: Server) -> Iterator[Control]:
    """Stops and starts that PostgreSQL."""
    assert server.control
    yield server.control
    if not server.control.is_running:
        server.control.start()


@pytest.fixture
async def proxy_and_url(postgres_url: str) -> AsyncIterator[tuple[Proxy, str]]:
    async with postgres_proxy(postgres_url) as both:
        yield both


async def list_messages(person: Person, path: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = (await person.get(path, headers=JSON)).json()["items"]
    return items


class Reading:
    """An answer that is read by a program, event after event; a reader that is cut off goes on where it was."""

    def __init__(self, person: Person, stack: AsyncExitStack) -> None:
        self.person = person
        self.stack = stack
        self.seen: list[Event] = []

    async def ask(self, path: str, text: str = "Who is Ada?") -> "Reading":
        return await self._open(self.person.stream("POST", path, json={"content": text}, headers=EVENTS))

    async def _open(self, stream: Any) -> "Reading":
        self.response = await self.stack.enter_async_context(stream)
        assert self.response.status_code == 200, await self.response.aread()
        self.events = read_events(self.response)
        return self

    async def read(self, count: int = 100_000) -> "Reading":
        """Read so many events, or up to the end."""
        async with asyncio.timeout(60):
            async for event in self.events:
                self.seen.append(event)
                count -= 1
                if not count:
                    break
        return self

    @property
    def id(self) -> str:
        message_id: str = self.seen[0].data["id"]
        return message_id

    @property
    def text(self) -> str:
        return "".join(event.data["text"] for event in self.seen if event.name == "piece")

    @property
    def end(self) -> dict[str, Any]:
        assert self.seen[-1].name == "end", self.seen[-1]
        message: dict[str, Any] = self.seen[-1].data["message"]
        return message


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def test_f16_a_database_that_is_away_keeps_the_typed_text(
    make_site: MakeSite, postgres_url: str, control: Control
) -> None:
    site: Site = await make_site(database_url=postgres_url)
    ada = await site.person("ada")
    path = await begin(ada.browser)
    form = {"text": TEXT, "client_key": "k"}
    page_path = path.removeprefix(API).replace("/conversations", "/chat")
    await asyncio.to_thread(control.stop)
    async with asyncio.timeout(3):
        page = await ada.post(page_path, data=form)
    assert page.status_code == 503 and page.headers["Retry-After"]
    assert f"readonly>\n{html.escape(TEXT)}</textarea>" in page.text
    assert "Traceback" not in page.text
    async with asyncio.timeout(3):
        refused = await ada.post(path, json={"content": TEXT, "client_key": "k"}, headers=JSON)
    assert refused.status_code == 503
    assert "Nothing is lost" in refused.json()["detail"]

    await asyncio.to_thread(control.start)
    assert await list_messages(ada, path) == []
    assert (await ada.post(page_path, data=form)).status_code == 303
    answer = (await ada.post(path, json={"content": TEXT, "client_key": "k"}, headers=JSON)).json()
    assert answer["status"] == "done"
    assert [message["text"] for message in await list_messages(ada, path)] == [TEXT, "Hello Ada."]


async def test_f17_an_answer_outlives_ten_seconds_without_a_database(
    make_site: MakeSite, postgres_url: str, control: Control, stack: AsyncExitStack
) -> None:
    words = [f"{number:03d} " for number in range(400)]
    site: Site = await make_site(ScriptedModel(*words, delay=0.03), database_url=postgres_url)
    ada = await site.person("ada")
    answer = await Reading(ada, stack).ask(await begin(ada.browser))
    await answer.read(3)
    await asyncio.to_thread(control.stop)
    await asyncio.sleep(10)
    await asyncio.to_thread(control.start)
    await answer.read()
    assert answer.end["status"] == "done"
    assert answer.text == answer.end["text"] == "".join(words)


async def test_f17_only_so_much_waits_for_the_database(
    make_site: MakeSite, postgres_url: str, control: Control, stack: AsyncExitStack
) -> None:
    gate, taken = asyncio.Event(), 0
    kilobyte = "x" * 1023 + " "

    class CountingModel(ScriptedModel):
        async def stream(self, turns: Any, pace: Any = None) -> Any:
            nonlocal taken
            async for item in super().stream(turns, pace):
                taken += 1
                yield item

    site: Site = await make_site(CountingModel("Hello ", gate, *[kilobyte] * 150), database_url=postgres_url)
    ada = await site.person("ada")
    answer = await Reading(ada, stack).ask(await begin(ada.browser))
    await answer.read(2)
    await asyncio.to_thread(control.stop)
    gate.set()
    async with asyncio.timeout(10):
        while taken < 66:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await asyncio.sleep(1)  # time in which all 150 would have been taken, if nothing held the model back
    assert taken == 66, "«Hello » and 65 kilobytes"
    await asyncio.to_thread(control.start)
    await answer.read()
    assert answer.end["status"] == "done"
    assert answer.text == answer.end["text"] == "Hello " + kilobyte * 150


async def test_f17_an_answer_that_could_not_be_saved_ends_with_what_was_shown(
    make_site: MakeSite,
    postgres_url: str,
    control: Control,
    stack: AsyncExitStack,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A worker that is busy with others must not keep an answer running that it has given up."""
    for module in (writing, service):
        monkeypatch.setattr(module, "LEASE_SECONDS", 3)
    monkeypatch.setattr(writing, "RENEWAL_SECONDS", 1)
    gates = {"short": asyncio.Event(), "long": asyncio.Event()}

    class TwoModels(ScriptedModel):
        async def stream(self, turns: Any, pace: Any = None) -> Any:
            name = next(turn.text for turn in turns if turn.role == "user")
            async for item in ScriptedModel("Hello ", gates[name], f"{name}.").stream(turns, pace):
                yield item

    site: Site = await make_site(TwoModels(), database_url=postgres_url)
    ada = await site.person("ada")
    short = await (await Reading(ada, stack).ask(await begin(ada.browser), "short")).read(2)
    long = await (await Reading(ada, stack).ask(await begin(ada.browser), "long")).read(2)
    await asyncio.to_thread(control.stop)
    gates["short"].set()
    async with asyncio.timeout(20):
        while "its lease will run out" not in caplog.text:  # noqa: ASYNC110 (the log is all there is to see)
            await asyncio.sleep(0.1)
    await asyncio.to_thread(control.start)

    await short.read()
    assert short.end["status"] == "interrupted" and short.text == short.end["text"] == "Hello "
    again = await ada.post(f"{API}/messages/{short.id}/continue", headers=JSON)
    assert (again.json()["status"], again.json()["text"]) == ("done", "Hello Hello short.")
    gates["long"].set()
    await long.read()
    assert long.end["status"] == "done" and long.text == long.end["text"] == "Hello long."


@pytest.mark.parametrize("cut", ["before", "after"])
async def test_f18_a_commit_that_nobody_confirmed_is_one_message(
    make_site: MakeSite, proxy_and_url: tuple[Proxy, str], cut: Any
) -> None:
    proxy, url = proxy_and_url
    model = ScriptedModel("Hello ", "Ada.")
    site: Site = await make_site(model, database_url=url)
    ada = await site.person("ada")
    path = await begin(ada.browser)
    question = {"content": "Who is Ada?", "client_key": "k"}
    proxy.cut_at_commit(cut, "INSERT INTO message")
    assert (await ada.post(path, json=question, headers=JSON)).status_code == 503
    assert proxy.has_cut.is_set()
    left = await list_messages(ada, path)
    assert [message["status"] for message in left] == ([] if cut == "before" else ["done", "running"])

    async with asyncio.timeout(5):
        replies = await asyncio.gather(*(ada.post(path, json=question, headers=JSON) for _ in range(5)))
    assert {(reply.status_code, reply.json()["status"], reply.json()["text"]) for reply in replies} == {
        (200, "done", "Hello Ada.")
    }
    assert [message["text"] for message in await list_messages(ada, path)] == ["Who is Ada?", "Hello Ada."]
    assert len(model.asked) == 1


async def test_f18_a_piece_whose_commit_nobody_confirmed_is_there_once(
    make_site: MakeSite, proxy_and_url: tuple[Proxy, str], stack: AsyncExitStack
) -> None:
    proxy, url = proxy_and_url
    words = [f"{number:03d} " for number in range(60)]
    site: Site = await make_site(ScriptedModel(*words, delay=0.03), database_url=url)
    ada = await site.person("ada")
    answer = await Reading(ada, stack).ask(await begin(ada.browser))
    for _ in range(3):
        await answer.read(1)
        proxy.cut_at_commit("after", "INSERT INTO piece")
        await proxy.has_cut.wait()
    proxy.cut_at_commit("after", "DELETE FROM piece")  # its end
    await answer.read()
    assert proxy.has_cut.is_set()
    assert answer.end["status"] == "done" and answer.text == answer.end["text"] == "".join(words)


async def test_f19_connections_that_were_cut_while_idle_are_not_noticed(
    make_site: MakeSite, proxy_and_url: tuple[Proxy, str]
) -> None:
    proxy, url = proxy_and_url
    site: Site = await make_site(database_url=url)
    ada = await site.person("ada")
    path = await begin(ada.browser)
    for at_once in (True, False):
        await asyncio.gather(*(ada.get(path, headers=JSON) for _ in range(20)))
        assert proxy.cut_all() == 5, "the whole pool"
        asking = [ada.post(f"{API}/conversations", headers=JSON) for _ in range(10)]
        replies = await asyncio.gather(*asking) if at_once else [await one for one in asking]
        assert [reply.status_code for reply in replies] == [201] * 10


async def test_f20_streams_hold_no_connection_and_requests_wait_five_seconds(
    make_site: MakeSite, postgres_url: str, stack: AsyncExitStack
) -> None:
    gate = asyncio.Event()
    site: Site = await make_site(ScriptedModel("Hello ", gate, "Ada."), database_url=postgres_url, database_pool_size=2)
    ada = await site.person("ada")
    running = [await (await Reading(ada, stack).ask(await begin(ada.browser))).read(2) for _ in range(10)]
    async with asyncio.timeout(2):
        assert (await ada.get("/chat")).status_code == 200, "ten streams leave both connections to others"

    loop = asyncio.get_running_loop()
    async with site.session() as one, site.session() as other:
        await one.connection()
        await other.connection()
        gate.set()
        began = loop.time()
        refused = await asyncio.gather(ada.get("/chat"), ada.post("/chat", data={"text": TEXT}))
        waited = loop.time() - began
    assert [response.status_code for response in refused] == [503, 503]
    assert html.escape(TEXT) in refused[1].text
    assert 4 < waited < 7
    for answer in running:
        await answer.read()
        assert answer.end["status"] == "done" and answer.text == answer.end["text"] == "Hello Ada."


@pytest.mark.parametrize("freeze", ["while idle", "in mid-statement"])
async def test_f16_a_database_that_is_frozen_is_given_up(
    make_site: MakeSite, proxy_and_url: tuple[Proxy, str], freeze: str
) -> None:
    """It takes connections and never answers: no limit of the server's own can help."""
    proxy, url = proxy_and_url
    site: Site = await make_site(database_url=url)
    ada = await site.person("ada")
    path = await begin(ada.browser)
    question = {"content": TEXT, "client_key": "k"}
    if freeze == "while idle":
        proxy.freeze()
    else:
        proxy.freeze_at("INSERT INTO message")
    ada.browser.timeout = 60
    async with asyncio.timeout(STATEMENT_SECONDS + 6):
        refused = await ada.post(path, json=question, headers=JSON)
    assert refused.status_code == 503 and refused.headers["Retry-After"]
    proxy.thaw()
    async with asyncio.timeout(5):
        again = await ada.post(path, json=question, headers=JSON)
    assert again.json()["text"] == "Hello Ada."
    assert [message["text"] for message in await list_messages(ada, path)] == [TEXT, "Hello Ada."]


@pytest.fixture(scope="module")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sqlite") / "template.sqlite3"
    with pytest.MonkeyPatch.context() as patch:
        migrate(f"sqlite:///{path}", patch)
    return path


@pytest.fixture
def sqlite_path(sqlite_template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(sqlite_template, tmp_path / "db.sqlite3"))


@contextmanager
def locked_by_another(path: Path) -> Iterator[None]:
    """Another process is in the middle of writing."""
    code = """if True:
        import sqlite3, sys
        connection = sqlite3.connect(sys.argv[1], isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        print("locked", flush=True)
        sys.stdin.read()"""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code, path], stdin=pipe, stdout=pipe, text=True) as other:
        assert other.stdin and other.stdout
        assert other.stdout.readline() == "locked\n"
        yield
        other.stdin.close()


def check_integrity(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        found: str = connection.execute("PRAGMA integrity_check").fetchone()[0]
        return found


async def test_f21_a_locked_file_is_waited_for(make_site: MakeSite, sqlite_path: Path, stack: AsyncExitStack) -> None:
    gate = asyncio.Event()
    site: Site = await make_site(ScriptedModel("Hello ", gate, "Ada."), database_url=f"sqlite:///{sqlite_path}")
    ada = await site.person("ada")
    path = await begin(ada.browser)
    running = await (await Reading(ada, stack).ask(await begin(ada.browser))).read(2)
    with locked_by_another(sqlite_path):
        gate.set()
        sending = asyncio.create_task(ada.post(path, json={"content": TEXT}, headers=JSON))
        done, _ = await asyncio.wait([sending], timeout=4)
        assert not done
        async with asyncio.timeout(2):
            assert (await ada.get("/chat")).status_code == 200, "readers wait for nobody"
    assert (await sending).json()["text"] == "Hello Ada."
    await running.read()
    assert running.end["status"] == "done" and running.text == running.end["text"] == "Hello Ada."


async def test_f21_a_file_that_stays_locked_refuses_and_loses_nothing(
    make_site: MakeSite, sqlite_path: Path, stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.database.BUSY_MILLISECONDS", 1000)
    gate = asyncio.Event()
    site: Site = await make_site(ScriptedModel("Hello ", gate, "Ada."), database_url=f"sqlite:///{sqlite_path}")
    ada = await site.person("ada")
    path = await begin(ada.browser)
    running = await (await Reading(ada, stack).ask(await begin(ada.browser))).read(2)
    question = {"content": TEXT, "client_key": "k"}
    with locked_by_another(sqlite_path):
        gate.set()
        async with asyncio.timeout(5):
            assert (await ada.post(path, json=question, headers=JSON)).status_code == 503
            page = await ada.post("/chat", data={"text": TEXT})
        assert page.status_code == 503 and html.escape(TEXT) in page.text
    await running.read()
    assert running.end["status"] == "done" and running.text == running.end["text"] == "Hello Ada."
    assert await list_messages(ada, path) == []
    assert (await ada.post(path, json=question, headers=JSON)).json()["text"] == "Hello Ada."
    assert check_integrity(sqlite_path) == "ok"


def fill_up(path: Path) -> None:
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(b"x" * 4096):
            pass


async def test_f22_a_full_disk_refuses_and_loses_nothing(
    make_site: MakeSite,
    sqlite_template: Path,
    small_disk: Path,
    stack: AsyncExitStack,
    caplog: pytest.LogCaptureFixture,
) -> None:
    gate = asyncio.Event()
    story = [f"{number:03d} " * 250 for number in range(60)]

    class StoryTeller(ScriptedModel):
        async def stream(self, turns: Any, pace: Any = None) -> Any:
            is_story = turns[-1].text == "A story"
            model = ScriptedModel("Once ", gate, *story) if is_story else ScriptedModel("Hello ", "Ada.")
            async for item in model.stream(turns, pace):
                yield item

    path = Path(shutil.copy(sqlite_template, small_disk / "db.sqlite3"))
    site: Site = await make_site(StoryTeller(), database_url=f"sqlite:///{path}")
    ada = await site.person("ada")
    running = await (await Reading(ada, stack).ask(await begin(ada.browser), "A story")).read(2)

    fill_up(small_disk / "filler")
    confirmed = []
    for number in range(200):
        sent = await ada.post("/chat", data={"text": f"{number} " * 1000, "client_key": f"k{number}"})
        if sent.status_code != 303:
            break
        confirmed.append(sent.headers["Location"])
    assert sent.status_code == 507
    assert "is full" in sent.text and f"{number} {number} " in sent.text
    gate.set()
    async with asyncio.timeout(10):
        while "could not be saved" not in caplog.text:  # noqa: ASYNC110 (the log is all there is to see)
            await asyncio.sleep(0.05)
    for shown in ["/chat", *confirmed]:
        assert (await ada.get(shown)).status_code == 200, "reading goes on"

    (small_disk / "filler").unlink()
    await running.read()
    assert running.end["status"] == "done" and running.text == running.end["text"] == "Once " + "".join(story)
    again = await ada.post("/chat", data={"text": f"{number} " * 1000, "client_key": f"k{number}"})
    for number, location in enumerate([*confirmed, again.headers["Location"]]):
        messages = await list_messages(ada, API + location.replace("/chat", "/conversations") + "/messages")
        assert messages[0]["text"] == (f"{number} " * 1000).strip()
    assert check_integrity(path) == "ok"


@needs_posix
async def test_f23_two_hundred_kills_lose_nothing_that_was_confirmed(make_site: MakeSite, sqlite_path: Path) -> None:
    site: Site = await make_site(database_url=f"sqlite:///{sqlite_path}")
    await site.person("ada")
    command = [sys.executable, "-m", "tests.faults.killed_writer", str(sqlite_path), "200"]
    done = await asyncio.to_thread(subprocess.run, command, stdout=subprocess.PIPE, cwd=ROOT, text=True, check=True)
    asked, shown = json.loads(done.stdout)
    assert len(asked) >= 200
    async with site.session() as session:
        questions = {str(row.id): row.text for row in await session.exec(select(Message).where(Message.role == "user"))}
        answers = (await session.exec(select(Message).where(Message.role == "assistant"))).all()
        texts = {str(row.question_id): row.text for row in await service.fill_in_running(session, list(answers))}
    assert asked.items() <= questions.items()
    for question_id, length in shown.items():
        assert len(texts[question_id]) >= length
        assert "".join(WORDS).startswith(texts[question_id])
    assert check_integrity(sqlite_path) == "ok"
