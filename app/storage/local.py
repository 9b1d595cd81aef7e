"""Files in a folder on this machine's disk. Threads do the work: a disk can be slow."""

import asyncio
import errno
import logging
import os
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

from app.storage import StorageError

log = logging.getLogger(__name__)

PIECE_LENGTH = 64 * 1024
NO_ROOM = "There is no room left for files. Nothing is lost: try again when the site's owner has made some."
AWAY = "Files cannot be kept or read at this moment. Nothing is lost: try again in a moment."


class LocalStorage:
    fault: str | None = None

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def save(self, key: UUID, content: bytes) -> None:
        with speak_plainly():
            await asyncio.to_thread(write_whole, self.folder / str(key), content)

    async def read(self, key: UUID) -> AsyncGenerator[bytes, None]:
        with speak_plainly():
            file = await asyncio.to_thread((self.folder / str(key)).open, "rb")
            with file:
                while piece := await asyncio.to_thread(file.read, PIECE_LENGTH):
                    yield piece

    async def delete(self, key: UUID) -> None:
        with speak_plainly():
            await asyncio.to_thread((self.folder / str(key)).unlink, missing_ok=True)

    async def exists(self, key: UUID) -> bool:
        return await asyncio.to_thread((self.folder / str(key)).exists)


def write_whole(path: Path, content: bytes) -> None:
    """Write beside the place and move there: who is killed in between leaves no half of a file."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    half = path.with_suffix(".half")
    try:
        with half.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        half.replace(path)
    except OSError:
        half.unlink(missing_ok=True)
        raise


@contextmanager
def speak_plainly() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        log.error("The folder for files does not do as it should: %s", error)
        raise StorageError(NO_ROOM if error.errno in (errno.ENOSPC, errno.EDQUOT) else AWAY) from error
