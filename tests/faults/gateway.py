"""Gateways as hosts have them: one keeps each response back until it is whole, one speaks TLS."""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
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


@asynccontextmanager
async def over_tls(url: str, folder: Path) -> AsyncIterator[str]:
    """Serve a site again over TLS, with the certificate in a folder, and pass on what comes as it comes."""
    address = urlsplit(url)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        site, upstream = await asyncio.open_connection(address.hostname, address.port)
        there, back = asyncio.create_task(copy(reader, upstream)), asyncio.create_task(copy(site, writer))
        await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
        for task in (there, back):
            task.cancel()
        for end in (writer, upstream):
            end.close()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.crt", folder / "server.key")
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield f"https://localhost:{server.sockets[0].getsockname()[1]}"


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
