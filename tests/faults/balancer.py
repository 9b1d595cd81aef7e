"""Stands before the workers as a host's load balancer does: each new connection goes to the next one of them."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import cycle
from urllib.parse import urlsplit

from tests.faults.conftest import Worker


class Balancer:
    url = ""
    turns: Iterator[Worker]

    def lead_to(self, *workers: Worker) -> None:
        """From now on. What is connected stays where it is."""
        self.turns = cycle(workers)

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address = urlsplit(next(self.turns).url)
        try:
            answers, requests = await asyncio.open_connection(address.hostname, address.port)
        except OSError:  # nobody listens there any more, or not yet
            writer.close()
            return
        await asyncio.gather(pass_on(reader, requests), pass_on(answers, writer))


async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


@asynccontextmanager
async def balance(*workers: Worker) -> AsyncIterator[Balancer]:
    balancer = Balancer()
    balancer.lead_to(*workers)
    async with await asyncio.start_server(balancer.carry, "127.0.0.1", 0) as server:
        balancer.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield balancer
