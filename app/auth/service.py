"""What the app does with people: accounts are born and changed here, and tokens made and ended."""

import hmac
import re
import secrets
from datetime import timedelta
from uuid import UUID

from sqlalchemy import delete, func
from sqlalchemy.exc import IntegrityError
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.auth.models import EMAIL_LENGTH, NAME_LENGTH, AccessToken, TokenKind, User
from app.auth.passwords import check_password, find_password_fault, hash_password
from app.database import now
from app.files.service import delete_bytes, list_files
from app.storage import Storage

SESSION_LIFETIME = timedelta(days=14)
API_TOKEN_LIFETIME = timedelta(days=365)
EMAIL = re.compile(r"[^@\s,;<>()\[\]\\\"]+@[^@\s,;<>()\[\]\\\"]+\.[^@\s,;<>()\[\]\\\".]{2,}")


class AccountError(Exception):
    """An account that cannot be made or changed so: the field at fault, and a sentence for the person."""

    def __init__(self, field: str, sentence: str) -> None:
        super().__init__(sentence)
        self.field = field


def read_email(raw: str) -> str:
    """Give the one spelling under which an e-mail is kept."""
    email = raw.strip().lower()
    if not EMAIL.fullmatch(email) or len(email) > EMAIL_LENGTH or not email.isprintable():
        raise AccountError("email", "Write a whole e-mail address, like ada@example.org.")
    return email


def read_name(raw: str) -> str:
    name = raw.strip()
    if not name.isprintable():
        raise AccountError("name", "Leave out of the name what cannot be read.")
    if len(name) > NAME_LENGTH:
        raise AccountError("name", f"Use at most {NAME_LENGTH} characters for the name.")
    return name


async def create_user(
    session: AsyncSession,
    email: str,
    password: str,
    *,
    name: str = "",
    is_staff: bool = False,
    is_superuser: bool = False,
) -> User:
    user = await draft_user(email, password, name=name, is_staff=is_staff, is_superuser=is_superuser)
    await write_user(session, user)
    await session.commit()
    return user


async def draft_user(email: str, password: str, *, name: str, is_staff: bool, is_superuser: bool) -> User:
    """Make an account that only has to be written: hashing waits its turn, and must keep no connection."""
    email = read_email(email)
    if fault := find_password_fault(password, email):
        raise AccountError("password", fault)
    user = User(email=email, name=read_name(name), is_staff=is_staff, is_superuser=is_superuser, hashed_password="")
    user.hashed_password = await hash_password(password)
    return user


async def write_user(session: AsyncSession, user: User) -> None:
    session.add(user)
    try:
        await session.flush()
    except IntegrityError:
        await session.rollback()
        raise AccountError("email", "There is an account with this e-mail already.") from None


async def get_user_by_email(session: AsyncSession, email: str) -> User | None:
    try:
        known = select(User).where(User.email == read_email(email))
    except AccountError:
        return None
    return (await session.exec(known)).first()


async def confirm_sign_in(session: AsyncSession, user: User, checked: str, better_hash: str | None) -> User | None:
    """Let somebody in whose password fitted `checked`, unless it was changed while we looked.

    The account stays as it is until the caller has saved the new session: who changes the password ends it, too.
    """
    same = select(User).where(User.id == user.id, User.hashed_password == checked, col(User.is_active))
    fresh = same.with_for_update().execution_options(populate_existing=True)
    found = (await session.exec(fresh)).first()
    if found and better_hash:
        found.hashed_password = better_hash
    return found


async def rename_user(session: AsyncSession, user: User, name: str) -> None:
    user.name = read_name(name)
    session.add(user)
    await session.commit()


async def knows_password(session: AsyncSession, user: User, password: str) -> bool:
    await session.commit()  # no connection is kept while we hash
    fits, _ = await check_password(password, user.hashed_password)
    return fits


async def set_password(session: AsyncSession, user: User, password: str) -> None:
    """Change the password and end every session and token: whoever knew the old one is out."""
    await session.commit()  # no connection is kept while we hash
    if fault := find_password_fault(password, user.email):
        raise AccountError("new_password", fault)
    hashed = await hash_password(password)
    user.hashed_password = hashed
    session.add(user)
    await session.exec(delete(AccessToken).where(col(AccessToken.user_id) == user.id))
    await session.commit()


async def update_user(
    session: AsyncSession,
    editor: User,
    user: User,
    *,
    email: str,
    name: str,
    is_active: bool,
    is_staff: bool,
    is_superuser: bool,
    new_password: str = "",
) -> None:
    """Change anybody's account, as a superuser may. A new password or a closed account ends every session and token."""
    if editor.id == user.id and not (is_active and is_superuser):
        raise AccountError("is_superuser", "This is your own account: only another superuser can take that away.")
    email = read_email(email)
    await session.commit()  # no connection is kept while we hash
    if new_password:
        if fault := find_password_fault(new_password, email):
            raise AccountError("new_password", fault)
        user.hashed_password = await hash_password(new_password)
    user.email, user.name = email, read_name(name)
    user.is_active, user.is_staff, user.is_superuser = is_active, is_staff, is_superuser
    await write_user(session, user)
    if new_password or not is_active:
        await session.exec(delete(AccessToken).where(col(AccessToken.user_id) == user.id))
    await session.commit()


async def delete_user(session: AsyncSession, storage: Storage, editor: User, user: User) -> None:
    """Take somebody away, and all that is theirs."""
    if editor.id == user.id:
        raise AccountError("email", "This is your own account: only another superuser can delete it.")
    theirs = await list_files(session, [user.id])
    await session.delete(user)
    await session.commit()
    await delete_bytes(storage, theirs)


async def create_token(session: AsyncSession, user_id: UUID, kind: TokenKind) -> tuple[str, AccessToken]:
    """Make a token: its text, which is stored nowhere, and its row. Expired ones of this person go."""
    token = secrets.token_urlsafe(32)
    lifetime = API_TOKEN_LIFETIME if kind == "api" else SESSION_LIFETIME
    mine = delete(AccessToken).where(col(AccessToken.user_id) == user_id)
    await session.exec(mine.where(col(AccessToken.expires_at) < now()))
    stored = AccessToken(token=hash_token(session, token), kind=kind, user_id=user_id, expires_at=now() + lifetime)
    session.add(stored)
    await session.commit()
    return token, stored


async def get_token(session: AsyncSession, token: str, kind: TokenKind) -> AccessToken | None:
    """Find a token that is still good."""
    known = select(AccessToken).where(AccessToken.token == hash_token(session, token), AccessToken.kind == kind)
    return (await session.exec(known.where(AccessToken.expires_at > now()))).first()


async def get_token_owner(session: AsyncSession, token: str, kind: TokenKind) -> User | None:
    """Find whose token it is, if it is still good."""
    known = select(User).join(AccessToken).where(AccessToken.token == hash_token(session, token))
    return (await session.exec(known.where(AccessToken.kind == kind, AccessToken.expires_at > now()))).first()


async def list_valid_tokens(session: AsyncSession, tokens: set[str]) -> set[str]:
    """Of many tokens, of any kind, give those that still open something."""
    hashed = {hash_token(session, token): token for token in tokens}
    known = (
        select(AccessToken.token).join(User).where(col(AccessToken.token).in_(hashed), AccessToken.expires_at > now())
    )
    return {hashed[found] for found in await session.exec(known.where(col(User.is_active)))}


async def count_sessions(session: AsyncSession, user: User) -> int:
    mine = select(func.count()).where(col(AccessToken.user_id) == user.id, col(AccessToken.kind) == "session")
    return (await session.exec(mine.where(col(AccessToken.expires_at) > now()))).one()


async def end_other_sessions(session: AsyncSession, user: User, token: str) -> None:
    """Sign the person out everywhere but in the browser that asks. API tokens stay."""
    mine = delete(AccessToken).where(col(AccessToken.user_id) == user.id, col(AccessToken.kind) == "session")
    await session.exec(mine.where(col(AccessToken.token) != hash_token(session, token)))
    await session.commit()


async def delete_session(session: AsyncSession, token: str) -> None:
    """End a browser's session. A program's token is none, and stays."""
    known = delete(AccessToken).where(col(AccessToken.token) == hash_token(session, token))
    await session.exec(known.where(col(AccessToken.kind) == "session"))
    await session.commit()


def hash_token(session: AsyncSession, token: str) -> str:
    """Tokens are long and random, so one fast hash makes a stolen table useless.

    It is made with SECRET_KEY: who can only write to the table makes no token that opens anything.
    """
    return hmac.new(session.info["secret_key"], token.encode(), "sha256").hexdigest()
