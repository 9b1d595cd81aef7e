"""More than usual: a storm of sign-ins, and many chats one after the other."""

import asyncio
import json
import time
from collections.abc import Coroutine
from statistics import quantiles
from urllib.parse import urlsplit

import httpx2
import pytest

from app.llm.scripted import ScriptedModel
from tests.chat.reading import EVENTS, ask, read_events
from tests.conftest import PASSWORD, MakeSite, Site
from tests.faults.conftest import API, Client, StartWorker, Worker, begin, script
from tests.faults.processes import count_files, count_threads, needs_linux, read_memory

pytestmark = [pytest.mark.anyio, needs_linux]

HTML = {"Accept": "text/html"}


async def test_f31_a_storm_of_sign_ins_holds_no_answer_up(ada_anywhere: Client, start_worker: StartWorker) -> None:
    """A loop that hashed passwords itself would leave gaps of more than a second; see benchmarks/storm.py."""
    worker = start_worker()
    client = await ada_anywhere.at(worker)
    page = await write_long_page(client)
    async with asyncio.TaskGroup() as tasks:
        streams = [Stream(await begin(client)) for _ in range(50)]
        reading = [tasks.create_task(stream.read(ada_anywhere, worker)) for stream in streams]
        for stream in streams:
            await stream.has_begun.wait()
        quiet = await watch(streams, asyncio.sleep(2))
        stormy = await watch(streams, storm(worker, client, page))
        for one in reading:
            one.cancel()
    assert stormy < quiet + 0.6


class Stream:
    """An answer of a hundred seconds, and the gaps between its pieces."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.last_at = 0.0
        self.gaps: list[float] = []
        self.has_begun = asyncio.Event()

    async def read(self, ada: Client, worker: Worker) -> None:
        client = await ada.at(worker)
        question = script(count=2000, rate=20)
        async with client.stream("POST", self.path, json=question, headers=EVENTS) as response:
            async for _ in read_events(response):
                now = time.monotonic()
                self.gaps.append(now - self.last_at)
                self.last_at = now
                self.has_begun.set()
        raise AssertionError("The answer was over before the storm was")


async def watch(streams: list[Stream], happening: Coroutine[None, None, None]) -> float:
    """Give the gap that nine of ten do not exceed while something happens: a busy machine makes some of them long."""
    for stream in streams:
        stream.gaps.clear()
    await happening
    return quantiles((gap for stream in streams for gap in stream.gaps), n=10)[8]


async def storm(worker: Worker, reader: httpx2.AsyncClient, page: str) -> None:
    """Three waves of eighty sign-ins at once, with right and wrong passwords, and with each a long page."""
    forms = [{"email": "ada@example.org", "password": password} for password in (PASSWORD, "not this one")]
    limits = httpx2.Limits(max_connections=None)
    async with httpx2.AsyncClient(
        base_url=worker.url, timeout=60, headers=HTML, limits=limits, verify=False
    ) as visitor:
        for _ in range(3):
            sign_ins = [visitor.post("/login", data=forms[number % 2]) for number in range(80)]
            *answers, shown = await asyncio.gather(*sign_ins, reader.get(page, headers=HTML))
            assert [answer.status_code for answer in answers] == [303, 422] * 40
            assert shown.status_code == 200


async def write_long_page(client: httpx2.AsyncClient) -> str:
    """Twenty answers of Markdown, which takes long to draw. Gives the address of their page."""
    path = await begin(client)
    text = "1. **A list** with `code`, [links](https://example.org) and *words*\n" * 100
    question = f"SCRIPT: answer {json.dumps({'pieces': [text]})}"
    for _ in range(20):
        assert (await client.post(path, json={"content": question})).json()["status"] == "done"
    return "/chat/" + path.split("/")[-2]


CHATS, WARM_UP = 400, 100


async def test_f36_many_chats_leave_nothing_behind(ada_anywhere: Client, start_worker: StartWorker) -> None:
    worker = start_worker()
    client = await ada_anywhere.at(worker)
    pid = worker.process.pid

    async def chat_often(count: int) -> None:
        for _ in range(count // 10):
            await asyncio.gather(*(chat(client) for _ in range(10)))

    await chat_often(WARM_UP)
    memory, files, threads = read_memory(pid), count_files(pid), count_threads(pid)
    await chat_often(CHATS - WARM_UP)
    assert read_memory(pid) - memory < 10  # MB: what 300 chats may leave, which is less than one answer in each
    assert count_files(pid) <= files + 2
    assert count_threads(pid) < threads + 20  # pools fill to their size, and that is all
    assert "Traceback" not in worker.log.read_text()


async def chat(client: httpx2.AsyncClient) -> None:
    """One question with an answer of 400 characters, and a look at the page."""
    path = await begin(client)
    assert (await client.post(path, json=script(count=100))).json()["status"] == "done"
    assert (await client.get(f"/chat/{path.split('/')[-2]}", headers=HTML)).status_code == 200


async def test_f36_readers_that_come_and_go_leave_nothing_behind(
    ada_anywhere: Client, start_worker: StartWorker
) -> None:
    """As many as an app dies of that keeps a descriptor of each."""
    worker = start_worker()
    client = await ada_anywhere.at(worker)
    path = await begin(client)
    async with client.stream("POST", path, json=script(count=20_000, rate=10), headers=EVENTS) as response:
        answer = (await anext(read_events(response))).data["id"]
    url = f"{worker.url}{API}/messages/{answer}/events"
    pid = worker.process.pid

    async def look_often(count: int) -> None:
        for _ in range(count // 10):
            await asyncio.gather(*(look(ada_anywhere, url) for _ in range(10)))

    files = count_files(pid)
    await look_often(100)
    memory, threads = read_memory(pid), count_threads(pid)
    await look_often(1500)
    assert read_memory(pid) - memory < 10
    assert count_threads(pid) < threads + 20  # pools fill to their size, and that is all
    async with asyncio.timeout(10):
        while count_files(pid) > files + 30:  # noqa: ASYNC110 (it notices the last ones in a moment; the pool has some)
            await asyncio.sleep(0.05)
    assert (await client.post(f"{API}/messages/{answer}/stop")).json()["status"] == "stopped"


async def look(ada: Client, url: str) -> None:
    """Read the first event of an answer, and be gone without a word, as a phone in a tunnel is."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    lines = [f"GET {address.path} HTTP/1.1", f"Host: {address.netloc}", f"Authorization: Bearer {ada.token}"]
    writer.write("\r\n".join([*lines, "Accept: text/event-stream", "", ""]).encode())
    assert (await reader.readline()).split()[1] == b"200"
    await reader.readuntil(b"event: answer")
    writer.transport.abort()


async def test_f36_no_task_outlives_its_answer(make_site: MakeSite) -> None:
    site: Site = await make_site(ScriptedModel("Hello ", "Ada."))
    ada = await site.person("ada")
    await ask(ada)
    async with asyncio.timeout(5):
        before = await count_tasks(site)
    for _ in range(20):
        await asyncio.gather(*(ask(ada) for _ in range(5)))
    async with asyncio.timeout(5):
        while await count_tasks(site) > before:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert site.app.state.answers.running == {}


async def count_tasks(site: Site) -> int:
    """Once nothing is written any more: then the helpers of the answers end, too."""
    while site.app.state.answers.tasks:  # noqa: ASYNC110 (they tell nobody)
        await asyncio.sleep(0.05)
    return len(asyncio.all_tasks())
