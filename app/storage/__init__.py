"""Where uploaded files are kept: one protocol, and the only place that picks a back end.

What is kept has a random name and is opened by nobody but us: whoever serves it asks first who is asking.
"""

import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

from app.settings import ROOT, Settings

if TYPE_CHECKING:
    from app.storage.s3 import S3Storage

DEVELOPMENT_FOLDER = "uploads"

SWITCHED_OFF = "This site takes no files."
NO_PLACE = "This site has no place for files yet. Its owner names one in UPLOADS."
READ_ONLY = "This site cannot write to its folder for files. Its owner sets UPLOADS to another one, or to a bucket."


class StorageError(Exception):
    """Files cannot be kept or read at this moment: a sentence for the person. The log knows more."""

    status = 503


class Storage(Protocol):
    fault: str | None  # why nothing can be kept here, in a sentence; None where it can

    async def save(self, key: UUID, content: bytes) -> None:
        """Keep all of it or nothing."""

    def read(self, key: UUID) -> AsyncGenerator[bytes, None]:
        """Give a file piece by piece. Before the first one: FileNotFoundError where there is none."""

    async def delete(self, key: UUID) -> None:
        """Take a file away; one that is gone already is no fault."""

    async def exists(self, key: UUID) -> bool: ...


def choose_storage(settings: Settings) -> Storage:
    """Pick what UPLOADS names. A folder that cannot be written to stops no start: pages work, uploads say why."""
    from app.storage.local import LocalStorage

    place = settings.uploads or ("" if settings.is_production else DEVELOPMENT_FOLDER)
    if place.startswith("s3://"):
        return make_s3_storage(settings)
    if place in ("", "off"):
        return NoStorage(SWITCHED_OFF if place else NO_PLACE)
    folder = ROOT / place
    return LocalStorage(folder) if is_writable(folder) else NoStorage(READ_ONLY)


def make_s3_storage(settings: Settings) -> "S3Storage":
    from app.storage.s3 import S3Storage

    bucket, _, folder = settings.uploads.removeprefix("s3://").partition("/")
    return S3Storage(
        bucket,
        folder.strip("/"),
        endpoint=settings.s3_endpoint,
        region=settings.s3_region,
        access_key=settings.s3_access_key.get_secret_value(),
        secret_key=settings.s3_secret_key.get_secret_value(),
    )


def is_writable(folder: Path) -> bool:
    """Whether files could be put there. It is made with the first of them, so its nearest parent may have to do."""
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return place.is_dir() and os.access(place, os.W_OK | os.X_OK)


class NoStorage:
    """Stands in for a storage, so that pages work and an upload is told what is missing."""

    def __init__(self, fault: str) -> None:
        self.fault: str | None = fault
        self.sentence = fault

    async def save(self, key: UUID, content: bytes) -> None:
        raise StorageError(self.sentence)

    async def read(self, key: UUID) -> AsyncGenerator[bytes, None]:
        raise FileNotFoundError(key)
        yield b""  # makes this function a generator

    async def delete(self, key: UUID) -> None:
        raise StorageError(self.sentence)

    async def exists(self, key: UUID) -> bool:
        return False
