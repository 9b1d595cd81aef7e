"""A gateway as some hosts have one: it keeps each response back until it is whole."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit


@asynccontextmanager
async def keeping_back(url: str) -> AsyncIterator[str]:
    """Serve a site again, at the address that this gives."""
    address = urlsplit(url)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
            body = await reader.readexactly(int(length[1])) if length else b""
            site, upstream = await asyncio.open_connection(address.hostname, address.port)
            upstream.write(re.sub(rb"(?i)\r\nconnection: [^\r]*", b"", head[:-2]) + b"Connection: close\r\n\r\n" + body)
            whole, gone = asyncio.ensure_future(site.read()), asyncio.ensure_future(reader.read())
            await asyncio.wait({whole, gone}, return_when=asyncio.FIRST_COMPLETED)
            if whole.done():
                writer.write(whole.result())
            for waiting in (whole, gone):
                waiting.cancel()
            upstream.close()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # a browser opens connections that it does not need
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
