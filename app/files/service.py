"""Files come and go in an order that loses none: bytes before their row, and the row gone before the bytes.

Who is killed in between leaves bytes that nobody names, never a row without its bytes.
"""

import logging
from collections.abc import Iterable
from uuid import UUID

from sqlalchemy import delete
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.files.models import File
from app.storage import Storage, StorageError

log = logging.getLogger(__name__)


async def save_file(session: AsyncSession, storage: Storage, owner_id: UUID, content: bytes, content_type: str) -> File:
    """Keep the bytes and give their row, which the caller saves together with what names it."""
    file = File(owner_id=owner_id, content_type=content_type, size=len(content))
    await session.commit()  # no connection is kept while the bytes travel
    await storage.save(file.id, content)
    return file


async def list_files(session: AsyncSession, owner_ids: Iterable[UUID]) -> list[UUID]:
    """Give the ids of all files of these people."""
    theirs = select(File.id).where(col(File.owner_id).in_(owner_ids))
    return list((await session.exec(theirs)).all())


async def delete_row(session: AsyncSession, owner_id: UUID, file_id: UUID) -> None:
    await session.exec(delete(File).where(col(File.owner_id) == owner_id, col(File.id) == file_id))


async def delete_bytes(storage: Storage, file_ids: Iterable[UUID]) -> None:
    """Take away bytes whose rows are gone. Where that fails they stay, unseen: the person's wish is done."""
    for file_id in file_ids:
        try:
            await storage.delete(file_id)
        except StorageError:
            log.warning("The bytes of file %s are left over in the storage", file_id)
