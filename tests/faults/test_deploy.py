"""A new version takes over while people ask and read, and two workers take every other request."""

import asyncio
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import httpx2
import pytest

from tests.chat.reading import EVENTS, Event, html_of, read_events
from tests.faults.balancer import Balancer, balance
from tests.faults.conftest import API, Client, StartWorker, needs_posix, script

pytestmark = [pytest.mark.anyio, needs_posix]

PAUSE = 0.5  # of chat.js, after a cut


class Page:
    """What chat.js does, without a screen: it asks until the question is taken, and follows the answer to its end."""

    def __init__(self, client: httpx2.AsyncClient, text: str = "", follow: str | None = None) -> None:
        self.client = client
        self.form = {"text": text, "client_key": uuid4().hex}
        self.follow = follow
        self.events: list[Event] = []  # since it was last connected
        self.shown: list[str] = []  # by each connection
        self.has_words = asyncio.Event()

    @property
    def answer(self) -> str:
        return str(self.events[0].data["id"]).removeprefix("message-")

    @property
    def status(self) -> str | None:
        return self.events[-1].data.get("status") if self.events else None

    async def write(self) -> None:
        while not self.status:
            try:
                await self.listen()
            except httpx2.TransportError:
                await asyncio.sleep(PAUSE)

    async def listen(self) -> None:
        method, url, form = ("GET", self.follow, None) if self.follow else ("POST", "/chat", self.form)
        async with self.client.stream(method, url, data=form, headers=EVENTS) as response:
            assert response.status_code == 200
            async for event in read_events(response):
                self.receive(event)

    def receive(self, event: Event) -> None:
        if event.name == "open":
            self.events = []
            self.follow = event.data["follow"]
            self.shown.append("")
        self.events.append(event)
        self.shown[-1] = re.sub("<[^>]*>", "", html_of(self.events)).strip()
        if self.shown[-1]:
            self.has_words.set()


@asynccontextmanager
async def going_through(balancer: Balancer, ada: Client) -> AsyncIterator[httpx2.AsyncClient]:
    """A browser that connects anew for each request, so that each may come to another worker."""
    headers = {"Authorization": f"Bearer {ada.token}", "Connection": "close"}
    async with httpx2.AsyncClient(base_url=balancer.url, timeout=60, headers=headers, verify=False) as client:
        yield client


@pytest.mark.parametrize("overlap", [True, False], ids=["new-one-first", "old-one-first"])
async def test_f08_a_deploy_loses_no_message_and_cuts_once(
    ada_anywhere: Client, start_worker: StartWorker, *, overlap: bool
) -> None:
    old = start_worker()
    async with balance(old) as balancer, going_through(balancer, ada_anywhere) as client, asyncio.TaskGroup() as tasks:
        long_ones = [Page(client, script(count=5000, rate=50)["content"]) for _ in range(8)]
        questions: list[Page] = []
        is_over = asyncio.Event()

        async def keep_asking() -> None:
            while not is_over.is_set():
                questions.append(Page(client, f"Question {len(questions)}"))
                tasks.create_task(questions[-1].write())
                await asyncio.sleep(0.05)

        writing = [tasks.create_task(page.write()) for page in long_ones]
        async with asyncio.timeout(10):
            for page in long_ones:
                await page.has_words.wait()
        tasks.create_task(keep_asking())
        if overlap:
            new = await asyncio.to_thread(start_worker)
            balancer.lead_to(new)
        old.send(signal.SIGTERM)
        assert await asyncio.to_thread(old.process.wait, 25) == 0
        if not overlap:
            new = await asyncio.to_thread(start_worker)
            balancer.lead_to(new)
        await asyncio.wait(writing)
        asked = len(questions)
        while len(questions) < asked + 5:  # noqa: ASYNC110 (more are on their way)
            await asyncio.sleep(0.05)
        is_over.set()

    async with balance(new) as balancer, going_through(balancer, ada_anywhere) as client:
        for page in long_ones:
            assert page.status == "interrupted" and len(page.shown) == 2
            going_on = (await client.post(f"{API}/messages/{page.answer}/continue")).json()
            assert going_on["status"] == "done" and going_on["text"].endswith("Hello Ada.")
            assert page.shown[0] and all(going_on["text"].startswith(shown) for shown in page.shown)
        assert {page.status for page in questions} == {"done"}
        assert all(len(page.shown) <= 2 and page.shown[-1] == "Hello Ada." for page in questions)
        conversations = [item["id"] for item in await list_all(client, f"{API}/conversations")]
        assert len(conversations) == len(long_ones) + len(questions)
        found = [await list_all(client, f"{API}/conversations/{one}/messages") for one in conversations]
        assert all([message["role"] for message in messages] == ["user", "assistant"] for messages in found)
        assert {messages[0]["text"] for messages in found} >= {page.form["text"] for page in questions}
    assert "Traceback" not in old.log.read_text()


async def list_all(client: httpx2.AsyncClient, path: str) -> list[dict[str, str]]:
    found: list[dict[str, str]] = []
    params = {"limit": "100"}
    while True:
        page = (await client.get(path, params=params)).json()
        found += page["items"]
        if not page["next_cursor"]:
            return found
        params["cursor"] = page["next_cursor"]


@pytest.mark.parametrize("first", [0, 1])
async def test_f08_every_request_may_come_to_another_worker(
    ada_anywhere: Client, start_worker: StartWorker, first: int
) -> None:
    workers = [start_worker(), start_worker()]
    async with balance(*workers) as balancer, going_through(balancer, ada_anywhere) as client:
        for _ in range(first):
            await client.get("/healthz")
        page = Page(client, script(count=5000, rate=50)["content"])
        await glance(page)
        opened = page.events[0].data
        shown = page.shown[0]
        for _ in range(2):  # the second time each comes to the other one
            assert shown in (await client.get(opened["url"])).text
            page = Page(client, follow=opened["follow"])
            await glance(page)
            assert page.shown[0].startswith(shown)
            await client.get("/healthz")
        page = Page(client, follow=opened["follow"])
        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            tasks.create_task(page.write())
            await page.has_words.wait()
            assert (await client.post(opened["stop"])).status_code == 204
        stopped = (await client.get(f"{API}/messages/{page.answer}")).json()
        assert page.status == stopped["status"] == "stopped"
        assert page.shown == [stopped["text"].strip()]
        going_on = (await client.post(f"{API}/messages/{page.answer}/continue")).json()
        assert going_on["status"] == "done" and going_on["text"] == stopped["text"] + "Hello Ada."
        assert (await client.get(f"{API}/messages/{page.answer}")).json() == going_on


async def glance(page: Page) -> None:
    """Look until there are words, and close the page."""
    reading = asyncio.create_task(page.write())
    async with asyncio.timeout(10):
        await page.has_words.wait()
    reading.cancel()
    await asyncio.wait([reading])
