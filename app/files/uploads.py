"""Reads one uploaded file of a form. What is beyond its limit is never read, so it fills no memory and no disk."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import BinaryIO

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

FRAME_LENGTH = 10_000  # bytes of a form around its file


class UploadError(Exception):
    """A form without the file that it is for: a sentence for the person."""

    status = 422


class UploadTooLargeError(UploadError):
    status = 413


@asynccontextmanager
async def open_upload(request: Request, field: str, length: int) -> AsyncIterator[BinaryIO]:
    """Read the form and give its file, of at most so many bytes. Above a megabyte it waits in the temporary folder.

    Ask who is there before, and commit: what arrives slowly must hold no connection, nor the writer's place.
    """
    request.state.body_length = length + FRAME_LENGTH
    too_large = f"That file is larger than {length // 1_000_000} MB. Choose a smaller one."
    try:
        form = await request.form(max_files=1, max_fields=10)
    except HTTPException as error:
        if error.status_code != 413:
            raise
        raise UploadTooLargeError(too_large) from None
    try:
        upload = form.get(field)
        if not isinstance(upload, UploadFile) or not upload.size:
            raise UploadError("Choose a file first.")
        if upload.size > length:
            raise UploadTooLargeError(too_large)
        yield upload.file
    finally:
        await form.close()
