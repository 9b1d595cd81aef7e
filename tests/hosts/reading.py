"""How programs ask and read through the door of a host, and what they hold when it is shut in between."""

from typing import NamedTuple

import httpx2

from tests.chat.reading import EVENTS, Event, read_events
from tests.faults.conftest import API, begin, script

NO_LIMIT = httpx2.Timeout(90)


class Reading(NamedTuple):
    """What somebody has seen of an answer."""

    path: str
    events: list[Event]

    @property
    def text(self) -> str:
        return "".join(event.data["text"] for event in self.events if event.name == "piece")

    @property
    def end(self) -> dict[str, str] | None:
        last = self.events[-1] if self.events else None
        return last.data["message"] if last and last.name == "end" else None


async def start_reading(client: httpx2.AsyncClient, **options: int) -> Reading:
    """Ask, read the first words, and hang up."""
    reading = Reading("", [])
    async with client.stream("POST", await begin(client), json=script(**options), headers=EVENTS) as response:
        assert response.status_code == 200, await response.aread()
        async for event in read_events(response):
            reading.events.append(event)
            if len(reading.events) == 4:
                break
    return reading._replace(path=f"{API}/messages/{reading.events[0].data['id']}")


async def read_on(client: httpx2.AsyncClient, reading: Reading) -> None:
    """Go on where the reading stands, to the end of the answer or of the response."""
    after = {"after": reading.events[-1].id}
    async with client.stream(
        "GET", f"{reading.path}/events", params=after, headers=EVENTS, timeout=NO_LIMIT
    ) as response:
        assert response.status_code == 200
        async for event in read_events(response):
            reading.events.append(event)


async def read_to_the_end(client: httpx2.AsyncClient, reading: Reading) -> dict[str, str]:
    """Go on as often as somebody cuts the line."""
    while not reading.end:
        try:
            await read_on(client, reading)
        except httpx2.TransportError:
            continue
    assert reading.text == reading.end["text"]
    return reading.end
