"""Workers that die, freeze and take turns: what was shown is there, with one end. Names as in the fault table."""

import asyncio
import signal
from itertools import cycle

import pytest

from tests.chat.reading import EVENTS, Event, read_events, text_of
from tests.faults.conftest import API, Client, StartWorker, Worker, begin, needs_posix, script
from tests.management.conftest import list_group
from tests.provider import Provider

pytestmark = [pytest.mark.anyio, needs_posix]

LEASE_AND_MORE = 20 + 15


async def start_answer(ada: Client, worker: Worker, **options: int) -> tuple[str, list[Event]]:
    """Ask, read the first pieces, and hang up. Gives the answer's id and what was shown of it."""
    client = await ada.at(worker)
    shown: list[Event] = []
    async with client.stream("POST", await begin(client), json=script(**options), headers=EVENTS) as response:
        async for event in read_events(response):
            shown.append(event)
            if len(shown) == 4:
                break
    return shown[0].data["id"], shown


async def follow(ada: Client, worker: Worker, answer: str, after: int = -1) -> list[Event]:
    client = await ada.at(worker)
    path = f"{API}/messages/{answer}/events"
    async with client.stream("GET", path, params={"after": after}, headers=EVENTS) as response:
        assert response.status_code == 200
        return [event async for event in read_events(response)]


async def test_f01_a_reader_that_leaves_ends_nothing(ada_anywhere: Client, start_worker: StartWorker) -> None:
    worker = start_worker()
    answer, shown = await start_answer(ada_anywhere, worker, count=100, rate=100)
    events = await follow(ada_anywhere, worker, answer)
    assert events[-1].data["status"] == "done"
    assert text_of(events) == events[-1].data["message"]["text"]
    assert len(text_of(events)) == 400 and text_of(events).startswith(text_of(shown))


async def test_f05_readers_on_all_workers_see_the_same(ada_anywhere: Client, start_worker: StartWorker) -> None:
    workers = [start_worker(), start_worker()]
    answer, shown = await start_answer(ada_anywhere, workers[0], count=150, rate=100)
    cursors = [-1, -1, shown[-1].id, 3]
    seen = await asyncio.gather(
        *(follow(ada_anywhere, worker, answer, after) for worker, after in zip(cycle(workers), cursors, strict=False))
    )
    whole = seen[0][-1].data["message"]["text"]
    assert len(whole) == 600
    for after, events in zip(cursors, seen, strict=True):
        assert text_of(events) == whole[max(after, 0) :]
        assert events[-1].data["status"] == "done"


async def test_f06_a_killed_worker_leaves_what_was_shown(ada_anywhere: Client, start_worker: StartWorker) -> None:
    first, second = start_worker(), start_worker()
    answer, shown = await start_answer(ada_anywhere, first, count=3000, rate=50)
    first.send(signal.SIGKILL)
    async with asyncio.timeout(LEASE_AND_MORE):
        events = await follow(ada_anywhere, second, answer, after=shown[-1].id)
    end = events[-1].data
    assert end["status"] == "interrupted" and "stopped while" in end["message"]["error"]
    assert end["message"]["text"] == text_of(shown) + text_of(events)

    client = await ada_anywhere.at(second)
    going_on = (await client.post(f"{API}/messages/{answer}/continue")).json()
    assert going_on["status"] == "done"
    assert going_on["text"] == end["message"]["text"] + "Hello Ada."


async def test_f07_a_worker_that_is_told_to_end_saves_fifty_answers(
    ada_anywhere: Client, start_worker: StartWorker
) -> None:
    first, second = start_worker(), start_worker()
    asked = await asyncio.gather(*(start_answer(ada_anywhere, first, count=3000, rate=20) for _ in range(50)))
    first.send(signal.SIGTERM)
    async with asyncio.timeout(25):
        assert await asyncio.to_thread(first.process.wait) == 0
    assert "Traceback" not in first.log.read_text()
    for answer, shown in asked:
        end = (await follow(ada_anywhere, second, answer))[-1].data
        assert end["status"] == "interrupted"
        assert end["message"]["text"].startswith(text_of(shown))


async def test_f09_a_frozen_worker_cannot_write_over_the_end(ada_anywhere: Client, start_worker: StartWorker) -> None:
    first, second = start_worker(), start_worker()
    answer, shown = await start_answer(ada_anywhere, first, count=3000, rate=50)
    first.send(signal.SIGSTOP)
    async with asyncio.timeout(LEASE_AND_MORE):
        end = (await follow(ada_anywhere, second, answer))[-1].data["message"]
    assert end["status"] == "interrupted" and end["text"].startswith(text_of(shown))

    first.send(signal.SIGCONT)
    thawed = await ada_anywhere.at(first)
    assert (await thawed.get("/healthz")).status_code == 200
    await asyncio.sleep(1)  # time in which a zombie would write: it saves ten times a second
    for worker in (first, second):
        client = await ada_anywhere.at(worker)
        assert (await client.get(f"{API}/messages/{answer}")).json() == end


async def test_f24_f26_two_workers_are_one(ada_anywhere: Client, start_worker: StartWorker) -> None:
    """As behind a load balancer: each request comes to the other one."""
    clients = cycle([await ada_anywhere.at(start_worker()) for _ in range(2)])
    path = await begin(next(clients))
    send = {"content": "Once", "client_key": "k"}
    replies = await asyncio.gather(*(next(clients).post(path, json=send) for _ in range(20)))
    assert {reply.status_code for reply in replies} == {200}
    assert len({reply.json()["id"] for reply in replies}) == 1
    assert (await next(clients).post(path, json={"content": "Twice", "client_key": "k"})).status_code == 409

    questions = [script(count=30, rate=100) for _ in range(4)]
    replies = await asyncio.gather(*(next(clients).post(path, json=question) for question in questions))
    assert sorted({reply.status_code for reply in replies}) == [200, 409]
    roles = [message["role"] for message in (await next(clients).get(path)).json()["items"]]
    assert roles == ["user", "assistant"] * (len(roles) // 2)


async def test_f27_stop_from_another_worker_hangs_up_on_the_model(
    ada_anywhere: Client, start_worker: StartWorker, provider: Provider
) -> None:
    first, second = start_worker(), start_worker()
    answer, shown = await start_answer(ada_anywhere, first, count=3000, rate=50)
    client = await ada_anywhere.at(second)
    async with asyncio.timeout(2):
        stopped = (await client.post(f"{API}/messages/{answer}/stop")).json()
        log = await asyncio.to_thread(provider.read_log, "hung_up")
    assert stopped["status"] == "stopped" and stopped["text"].startswith(text_of(shown))
    assert log["hung_up"] == 1
    assert (await client.post(f"{API}/messages/{answer}/stop")).json() == stopped


async def test_workers_of_one_command_answer_and_end_together(ada_anywhere: Client, start_worker: StartWorker) -> None:
    both = start_worker("--workers", "2")
    asked = await asyncio.gather(*(start_answer(ada_anywhere, both, count=3000, rate=20) for _ in range(8)))
    assert len([args for args in list_group(both.process) if "spawn_main" in args]) == 2
    both.send(signal.SIGTERM)
    async with asyncio.timeout(25):
        assert await asyncio.to_thread(both.process.wait) == 0
        while list_group(both.process):  # noqa: ASYNC110 (the helper of multiprocessing ends a moment later)
            await asyncio.sleep(0.05)
    assert "Traceback" not in both.log.read_text()
    later = start_worker()
    for answer, shown in asked:
        end = (await follow(ada_anywhere, later, answer))[-1].data["message"]
        assert end["status"] == "interrupted" and end["text"].startswith(text_of(shown))
