"""What a model does wrong, from the provider's socket to the page: a sentence, the text that came, and a way on."""

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import httpx2
import pytest

from app.chat.answers import ANSWER_LENGTH, CUT
from tests.chat.reading import EVENTS, read_events
from tests.faults.conftest import API, Client, StartWorker, begin
from tests.faults.processes import needs_linux, read_memory
from tests.provider import Provider

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("how", ["cut", "reset"])
async def test_f11_an_answer_that_the_provider_cut_failed_and_goes_on(
    ada_anywhere: Client, start_worker: StartWorker, how: str
) -> None:
    client = await ada_anywhere.at(start_worker())
    failed = (await client.post(await begin(client), json={"content": f"SCRIPT: {how}"})).json()
    assert failed["status"] == "failed" and failed["text"] == "Hello "
    assert "ended the connection in the middle of the answer" in failed["error"]
    going_on = (await client.post(f"{API}/messages/{failed['id']}/continue")).json()
    assert going_on["status"] == "done" and going_on["text"] == "Hello Hello Ada." and going_on["error"] is None


@pytest.mark.parametrize(
    ("play", "limits", "text", "words"),
    [
        ("mute", {"LLM_FIRST_TOKEN_TIMEOUT": "0.3"}, "", "raise LLM_FIRST_TOKEN_TIMEOUT"),
        ("silent", {"LLM_FIRST_TOKEN_TIMEOUT": "0.3"}, "", "raise LLM_FIRST_TOKEN_TIMEOUT"),
        ("hang", {"LLM_TOKEN_TIMEOUT": "0.3"}, "Hello ", "raise LLM_TOKEN_TIMEOUT"),
    ],
)
async def test_f12_a_provider_that_hangs_is_given_up(
    ada_anywhere: Client,
    start_worker: StartWorker,
    provider: Provider,
    play: str,
    limits: dict[str, str],
    text: str,
    words: str,
) -> None:
    client = await ada_anywhere.at(start_worker(**limits))
    path = await begin(client)
    failed = (await client.post(path, json={"content": f"SCRIPT: {play}"})).json()
    assert failed["status"] == "failed" and failed["text"] == text
    assert words in failed["error"]
    assert (await asyncio.to_thread(provider.read_log, "hung_up"))["hung_up"] == 1
    assert (await client.post(path, json={"content": "And now?"})).json()["status"] == "done"


@needs_linux
async def test_f12_a_provider_that_never_accepts_is_given_up(
    ada_anywhere: Client, start_worker: StartWorker, deaf_address: str
) -> None:
    worker = start_worker(LLM_BASE_URL=f"{deaf_address}/v1", LLM_CONNECT_TIMEOUT="0.3")
    client = await ada_anywhere.at(worker)
    path = await begin(client)
    for _ in range(2):  # the second time shows that the first is over
        failed = (await client.post(path, json={"content": "Hello?"})).json()
        assert failed["status"] == "failed" and failed["text"] == ""
        assert "raise LLM_CONNECT_TIMEOUT" in failed["error"]


@pytest.fixture
def deaf_address() -> Iterator[str]:
    """Where connections wait for ever: the queue of those that nobody accepts is full. Elsewhere they are refused."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(8):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@needs_linux
async def test_f15_a_flood_is_cut_and_slows_nobody(
    ada_anywhere: Client, start_worker: StartWorker, provider: Provider
) -> None:
    worker = start_worker()
    client = await ada_anywhere.at(worker)
    path = await begin(client)
    assert (await client.post(path, json={"content": "Warm up"})).json()["status"] == "done"
    before = peak = read_memory(worker.process.pid)
    slowest = 0.0
    flood = asyncio.create_task(read_end(client, path, "SCRIPT: flood"))
    while not flood.done():
        began = time.monotonic()
        assert (await client.get("/healthz")).status_code == 200
        slowest = max(slowest, time.monotonic() - began)
        peak = max(peak, read_memory(worker.process.pid))
        await asyncio.sleep(0.02)
    end = await flood
    assert end["status"] == "done" and end["error"] == CUT["too_long"]
    assert ANSWER_LENGTH < len(end["text"]) < ANSWER_LENGTH + 100_000
    assert (await asyncio.to_thread(provider.read_log, "hung_up"))["hung_up"] == 1
    assert slowest < 1
    assert peak - before < 50
    assert (await client.post(path, json={"content": "And now?"})).json()["status"] == "done"


async def read_end(client: httpx2.AsyncClient, path: str, question: str) -> dict[str, str]:
    async with client.stream("POST", path, json={"content": question}, headers=EVENTS) as response:
        events = [event async for event in read_events(response)]
    message: dict[str, str] = events[-1].data["message"]
    return message
