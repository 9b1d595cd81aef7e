"""People's pictures: what the app does with them, and who may see them."""

from typing import BinaryIO
from uuid import UUID

from sqlalchemy.orm.exc import StaleDataError
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.auth.models import User
from app.files import images
from app.files.models import File
from app.files.service import delete_bytes, delete_row, save_file
from app.storage import Storage


async def set_picture(session: AsyncSession, storage: Storage, user: User, upload: BinaryIO) -> None:
    """Take a new picture. Whatever fails on the way, the old one stays."""
    content = await images.make_square(upload)
    file = await save_file(session, storage, user.id, content, images.CONTENT_TYPE)
    await change_picture(session, storage, user, file)


async def remove_picture(session: AsyncSession, storage: Storage, user: User) -> None:
    await change_picture(session, storage, user, None)


async def change_picture(session: AsyncSession, storage: Storage, user: User, file: File | None) -> None:
    """Two who change it at once do it one after the other, and no file is left over."""
    fresh = select(User).where(User.id == user.id).with_for_update().execution_options(populate_existing=True)
    if (await session.exec(fresh)).first() is None:
        raise StaleDataError("The account is gone")
    old, user.picture_id = user.picture_id, file.id if file else None
    session.add_all([user, file] if file else [user])
    if old:
        await delete_row(session, user.id, old)
    await session.commit()
    await delete_bytes(storage, [old] if old else [])


async def get_picture(session: AsyncSession, viewer: User, picture_id: UUID) -> File | None:
    """Find a picture that may be seen: one's own, and everybody's for who may see the admin panel."""
    shown = select(File).join(User, col(User.id) == File.owner_id)
    shown = shown.where(File.id == picture_id, User.picture_id == picture_id)
    if not (viewer.is_staff or viewer.is_superuser):
        shown = shown.where(User.id == viewer.id)
    return (await session.exec(shown)).first()
