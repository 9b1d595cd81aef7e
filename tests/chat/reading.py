"""How the chat's tests talk and read."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from uuid import UUID

import httpx2

from app.chat.markdown import Patch, join_patches
from tests.conftest import Person

EVENTS = {"Accept": "text/event-stream"}
JSON = {"Accept": "application/json"}


class Event(NamedTuple):
    id: int
    name: str
    data: Any


async def read_events(response: httpx2.Response) -> AsyncIterator[Event]:
    """Parse server-sent events as the standard says, as far as ours use it."""
    fields: dict[str, str] = {}
    async for line in response.aiter_lines():
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif "data" in fields:
            yield Event(int(fields.get("id", -1)), fields["event"], json.loads(fields["data"]))
            fields = {}


@asynccontextmanager
async def asking(
    person: Person, path: str, text: str = "Who is Ada?", **form: str
) -> AsyncIterator[AsyncIterator[Event]]:
    """Ask on a page, and read the answer as it comes."""
    async with person.stream("POST", path, data={"text": text, **form}, headers=EVENTS) as response:
        assert response.status_code == 200, await response.aread()
        yield read_events(response)


async def ask(person: Person, path: str = "/chat", text: str = "Who is Ada?", **form: str) -> list[Event]:
    async with asking(person, path, text, **form) as events:
        return [event async for event in events]


async def follow(person: Person, path: str, after: int | None = None) -> list[Event]:
    params = {} if after is None else {"after": after}
    async with person.stream("GET", path, params=params, headers=EVENTS) as response:
        assert response.status_code == 200
        return [event async for event in read_events(response)]


def html_of(events: list[Event]) -> str:
    """What the page shows of an answer in the end."""
    patches = [Patch(**event.data) for event in events if event.name == "patch"]
    return "".join(f"<div>{block}</div>" for block in join_patches(patches))


def text_of(events: list[Event]) -> str:
    """The answer as a program puts it together."""
    return "".join(event.data["text"] for event in events if event.name == "piece")


async def wait_until_ended(person: Person, message_id: str | UUID) -> dict[str, Any]:
    """Wait for the end of an answer without reading along."""
    async with asyncio.timeout(10):
        while True:
            message: dict[str, Any] = (await person.get(f"/api/v1/messages/{message_id}", headers=JSON)).json()
            if message["status"] != "running":
                return message
            await asyncio.sleep(0.02)
