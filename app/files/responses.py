"""Sends a stored file to who may have it. Whether they may, the route asks before."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from app.files.models import File
from app.storage import Storage

# Alone in a tab it would be a download, and could run nothing if it were not.
HEADERS = {
    "Cache-Control": "private, max-age=3600",
    "Content-Disposition": "attachment",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Vary": "Cookie",
}


def send_file(request: Request, storage: Storage, file: File) -> Response:
    """A file never changes, so its id says which version it is."""
    headers = {**HEADERS, "ETag": f'"{file.id}"'}
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    return StoredFile(storage, file, headers)


class StoredFile(Response):
    """Opens the file when the answer begins, so that one that is missing or out of reach is still an ordinary error."""

    def __init__(self, storage: Storage, file: File, headers: dict[str, str]) -> None:
        super().__init__(headers={**headers, "Content-Length": str(file.size)}, media_type=file.content_type)
        self.pieces = storage.read(file.id)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self.pieces) as pieces:
            try:
                first = await anext(pieces, b"")
            except FileNotFoundError:
                raise HTTPException(404) from None
            stream = StreamingResponse(begin_with(first, pieces), headers=dict(self.headers))
            await stream(scope, receive, send)


async def begin_with(first: bytes, pieces: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
    yield first
    async for piece in pieces:
        yield piece
