"""Frozen, killed and told to end in the middle of everything: what was shown is there, and it goes on."""

import asyncio
import os
import random
import re
import time
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import httpx2
import pytest

from tests.chat.reading import EVENTS, Event, read_events
from tests.faults.conftest import API, begin, script
from tests.hosts.conftest import StartInstance, Visit, add_person
from tests.hosts.gateway import Gateway, open_gateway
from tests.hosts.instance import Instance
from tests.hosts.reading import NO_LIMIT, Reading, read_to_the_end, start_reading
from tests.provider import Provider

pytestmark = pytest.mark.anyio

ENDED = ("done", "interrupted")
POOLER_SECONDS = 60  # after which the pooler closes a connection that does nothing
LEASE_SECONDS = 20
SHUTDOWN_SECONDS = 10


async def test_l05_the_first_request_after_a_long_freeze_is_answered(
    instance: Instance, ada: httpx2.AsyncClient
) -> None:
    assert (await ada.get("/chat")).status_code == 200
    before = instance.cpu_seconds
    await asyncio.sleep(POOLER_SECONDS + 10)
    assert instance.cpu_seconds < before + 0.01  # it would look at its clock ten times a second
    assert (await ada.get("/chat")).status_code == 200
    assert instance.starts == 1


@pytest.mark.parametrize("seconds", [5, 60])
async def test_l06_an_answer_goes_on_after_a_freeze(instance: Instance, ada: httpx2.AsyncClient, seconds: int) -> None:
    """Nobody is there for a while, and the host takes the processor away; the model waits, or speaks to nobody."""
    reading = await start_reading(ada, count=200, rate=40)
    await asyncio.sleep(seconds)
    end = await read_to_the_end(ada, reading)
    assert end["status"] == "done" and len(end["text"]) == 800
    assert instance.starts == 1


async def test_l07_after_a_kill_the_next_request_shows_what_was_shown(
    instance: Instance, ada: httpx2.AsyncClient
) -> None:
    reading = await start_reading(ada, count=3000, rate=50)
    instance.kill()
    end = await read_to_the_end(ada, reading)
    assert end["status"] == "interrupted" and "stopped while" in end["error"]
    assert instance.starts == 2
    going_on = (await ada.post(f"{reading.path}/continue")).json()
    assert going_on["status"] == "done" and going_on["text"] == end["text"] + "Hello Ada."


async def test_answers_survive_freeze_and_kill_at_any_moment(make_instance: StartInstance, visit: Visit) -> None:
    """As pages do: a question that got no word is sent again with its key, and is one."""
    moments = random.Random(1843)
    instance = make_instance(cpu=100)
    async with open_gateway(instance) as gateway:
        ada = await visit(gateway.url)
        rounds = [Round(ada, await begin(ada)) for _ in range(16)]
        for number, one in enumerate(rounds):
            asking = asyncio.create_task(one.ask())
            await asyncio.sleep(moments.uniform(0, 0.6))
            instance.freeze()
            await asyncio.sleep(moments.uniform(0, 0.2))
            if number % 2:
                instance.kill()
            else:
                instance.thaw()
            await asking
            while not one.events:
                await one.ask()
        await asyncio.gather(*(one.check() for one in rounds))
        assert instance.starts > 4


class Round:
    def __init__(self, ada: httpx2.AsyncClient, path: str) -> None:
        self.ada = ada
        self.path = path
        self.question = script(count=60, rate=200) | {"client_key": uuid4().hex}
        self.events: list[Event] = []

    async def ask(self) -> None:
        with suppress(httpx2.TransportError):
            async with self.ada.stream("POST", self.path, json=self.question, headers=EVENTS) as response:
                async for event in read_events(response):
                    self.events.append(event)

    async def check(self) -> None:
        """One question, one answer, with one end and all that was shown."""
        reading = Reading(f"{API}/messages/{self.events[0].data['id']}", self.events)
        end = await read_to_the_end(self.ada, reading)
        assert end["status"] in ENDED
        messages = (await self.ada.get(self.path)).json()["items"]
        assert [message["role"] for message in messages] == ["user", "assistant"]
        assert messages[1] == end


async def test_l11_the_other_instance_shows_it_and_lets_it_go_on(make_instance: StartInstance, visit: Visit) -> None:
    """Each request comes to the other one. The first is frozen meanwhile: the second waits for its lease to run out."""
    first, second = make_instance(), make_instance()
    async with open_gateway(first, second) as gateway:
        ada = await visit(gateway.url)
        assert (await ada.get("/healthz")).status_code == 200
        reading = await start_reading(ada, count=600, rate=50)  # the second request, on the second instance
        begun = len(reading.text)
        seen = await asyncio.gather(*(read_to_the_end(ada, reading._replace(events=[*reading.events])) for _ in "ab"))
        assert begun and seen[0] == seen[1]
        assert seen[0]["status"] == "interrupted" or len(seen[0]["text"]) == 2_400
        for _ in range(2):
            assert (await ada.get(reading.path)).json() == seen[0]
        assert (first.starts, second.starts) == (1, 1)


async def test_l19_what_others_have_survives_a_request_that_takes_all_memory(
    instance: Instance, gateway: Gateway, ada: httpx2.AsyncClient, database_url: str
) -> None:
    finished = (await ada.post(await begin(ada), json={"content": "Who is Ada?"})).json()
    headers = {"Authorization": f"Bearer {await add_person(database_url, 'bob')}"}
    async with httpx2.AsyncClient(base_url=gateway.url, timeout=30, headers=headers) as bob:
        reading = await start_reading(bob, count=3000, rate=50)
        instance.freezes = False
        instance.thaw()
        instance.group.limit_cpu(100)
        instance.group.limit_memory(read_own_memory(instance.pid) + 4_000_000)
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{instance.port}", timeout=30) as greedy:
            assert instance.process
            while instance.process.poll() is None:
                bodies = (greedy.post("/login", content=b"a=" + b" " * 900_000) for _ in range(40))
                await asyncio.gather(*bodies, return_exceptions=True)
        instance.group.limit_memory(512 << 20)
        assert (await read_to_the_end(bob, reading))["status"] == "interrupted"
    assert (await ada.get(f"{API}/messages/{finished['id']}")).json() == finished
    assert instance.starts == 2


def read_own_memory(pid: int) -> int:
    """Bytes that no file could give back."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(size) for size in re.findall(r"Anonymous: +(\d+) kB", rollup)) * 1024


async def test_l20_ten_answers_are_saved_within_ten_seconds_of_the_end(
    instance: Instance, ada: httpx2.AsyncClient, provider: Provider
) -> None:
    await ada.get("/healthz")
    questions = [Reading("", []) for _ in range(10)]
    begun = asyncio.Semaphore(0)

    async def ask(reading: Reading) -> None:
        with suppress(httpx2.TransportError):
            async with ada.stream(
                "POST", await begin(ada), json=script(count=3000, rate=20), headers=EVENTS, timeout=NO_LIMIT
            ) as response:
                async for event in read_events(response):
                    reading.events.append(event)
                    if len(reading.events) == 4:
                        begun.release()

    asking = [asyncio.create_task(ask(reading)) for reading in questions]
    async with asyncio.timeout(20):
        for _ in questions:
            await begun.acquire()
    begin_of_end = time.monotonic()
    assert await instance.end() == os.EX_OK
    assert time.monotonic() - begin_of_end <= SHUTDOWN_SECONDS
    assert "Traceback" not in instance.log.read_text()
    await asyncio.gather(*asking)
    for reading in questions:
        answer = (await ada.get(f"{API}/messages/{reading.events[0].data['id']}")).json()
        assert answer["status"] == "interrupted" and answer["text"].startswith(reading.text)
