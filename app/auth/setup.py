"""The first admin of a site on a host without a shell, and the way back in for an admin who lost the password.

An admin can be born without being signed in only while there is none. Whoever asks brings a token: SETUP_TOKEN, or,
where that is empty, one that the log was told. Tries are counted, and what must happen once happens in a transaction
that only one process at a time can be in.
"""

import asyncio
import hmac
import logging
import secrets
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from hashlib import sha256
from typing import NamedTuple, NoReturn

from pydantic import SecretStr
from sqlalchemy import delete, func
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.auth.models import AccessToken, SetupAttempt, SetupToken, User
from app.auth.passwords import find_password_fault, hash_password
from app.auth.service import AccountError, draft_user, get_user_by_email, write_user
from app.database import Database, lacks_table, now
from app.schema import read_standing, upgrade

TOKEN_LIFETIME = timedelta(minutes=60)
TRIES = 5
TRY_SECONDS = 15 * 60
LOOK_SECONDS = 2
SETUP_LOCK = 7_061_955_242  # any number, the same in every process

log = logging.getLogger(__name__)


class ClosedError(Exception):
    """There is nothing to set up or to recover."""


class TriesError(Exception):
    """There were too many wrong tokens: how many seconds to wait."""

    def __init__(self, tries: list[datetime]) -> None:
        super().__init__("Too many wrong tokens.")
        self.seconds = max(1, TRY_SECONDS - int((now() - min(tries)).total_seconds()))


class Door:
    """What opens /setup and /recover. While there is no table for them, wrong tokens are counted here."""

    def __init__(self, database: Database, setup_token: SecretStr, recovery_token: SecretStr) -> None:
        self.database = database
        self.setup_hash = hash_secret(setup_token)
        self.recovery_hash = hash_secret(recovery_token)
        self.early_tries: list[datetime] = []
        self.turn = asyncio.Lock()
        self._has_admin = False

    async def wants_admin(self) -> bool:
        """Whether a page should point to /setup. Once there is an admin, nobody has to ask again."""
        if not self._has_admin:
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    self._has_admin = await has_admin(self.database)
            except (SQLAlchemyError, OSError):  # the page is of use without the hint
                return False
        return not self._has_admin


def hash_secret(token: SecretStr) -> str | None:
    """Long random tokens need no slow hash."""
    return hash_text(token.get_secret_value()) if token.get_secret_value() else None


def hash_text(token: str) -> str:
    return sha256(token.encode(errors="surrogatepass")).hexdigest()


async def has_admin(database: Database) -> bool:
    async with database.session(reading=True) as session:
        try:
            return await find_admin(session)
        except DBAPIError as error:
            if lacks_table(error):
                return False
            raise


async def find_admin(session: AsyncSession) -> bool:
    return (await session.exec(select(User.id).where(col(User.is_superuser)).limit(1))).first() is not None


class Opening(NamedTuple):
    """What the page says of the way in."""

    is_open: bool = True
    lacks_tables: bool = False
    expires_at: datetime | None = None  # of the token in the log


async def open_setup(door: Door) -> Opening:
    """Let the log know a token where none is set. One instance makes one for all, so it needs a table."""
    if await has_admin(door.database):
        raise ClosedError
    if await lacks_tables(door):
        return Opening(is_open=door.setup_hash is not None, lacks_tables=True)
    if door.setup_hash:
        return Opening()
    async with door.database.session() as session:
        async with alone(door, session):
            if await find_admin(session):
                raise ClosedError
            end = await get_token_end(session) or await make_token(session)
        return Opening(expires_at=end)


async def lacks_tables(door: Door) -> bool:
    return (await read_standing(door.database)).is_behind


@asynccontextmanager
async def alone(door: Door, session: AsyncSession) -> AsyncIterator[None]:
    """Nobody else, in any process, is in here until this transaction ends.

    Who waits in this process holds no connection, or a crowd at this door would leave none for the other pages.
    On SQLite a writing session is alone by itself.
    """
    async with door.turn:
        if session.get_bind().dialect.name == "postgresql":
            await session.exec(select(func.pg_advisory_xact_lock(SETUP_LOCK)))
        try:
            yield
            await session.commit()
        except BaseException:
            await session.rollback()
            raise


async def get_token_end(session: AsyncSession) -> datetime | None:
    return (await session.exec(select(SetupToken.expires_at).where(col(SetupToken.expires_at) > now()))).first()


async def make_token(session: AsyncSession) -> datetime:
    token, end = secrets.token_urlsafe(32), now() + TOKEN_LIFETIME
    await session.exec(delete(SetupToken).where(col(SetupToken.expires_at).is_not(None)))
    session.add(SetupToken(token=hash_text(token), expires_at=end))
    await session.flush()
    # Not by logging: the line is to begin with these words, wherever the log goes.
    print(f"SETUP TOKEN {token} opens /setup until {end:%H:%M} UTC, and only there.", file=sys.stderr, flush=True)
    return end


async def make_first_admin(
    door: Door, session: AsyncSession, token: str, email: str, password: str, name: str = ""
) -> User:
    """Make the admin for who brings the token, and before that the tables, where the database lacks them."""
    is_early = await lacks_tables(door)
    if is_early:
        await check_early(door, token)
    else:
        async with alone(door, session):
            if await find_admin(session):
                raise ClosedError
            await check_token(session, token, await list_setup_hashes(door, session))
    user = await draft_user(email, password, name=name, is_staff=True, is_superuser=True)
    if is_early:
        await upgrade(door.database)
    async with alone(door, session):
        if await find_admin(session):
            raise ClosedError
        await write_user(session, user)
        await session.exec(delete(SetupToken).where(col(SetupToken.expires_at).is_not(None)))
        await session.exec(delete(SetupAttempt))
    log.warning("%s was made the first admin at /setup", user.email)
    return user


async def list_setup_hashes(door: Door, session: AsyncSession) -> list[str]:
    if door.setup_hash:
        return [door.setup_hash]
    return list(await session.exec(select(SetupToken.token).where(col(SetupToken.expires_at) > now())))


async def check_early(door: Door, token: str) -> None:
    """Check a token before there are tables. Each process counts for itself then."""
    if await has_admin(door.database):
        raise ClosedError
    start = now() - timedelta(seconds=TRY_SECONDS)
    door.early_tries = [tried_at for tried_at in door.early_tries if tried_at > start]
    if len(door.early_tries) >= TRIES:
        raise TriesError(door.early_tries)
    if not fits(token, [door.setup_hash or ""]):
        door.early_tries.append(now())
        refuse_token()


async def check_token(session: AsyncSession, token: str, hashes: list[str]) -> None:
    """Check a token. A wrong one is counted, and everybody waits when there were too many in 15 minutes."""
    start = now() - timedelta(seconds=TRY_SECONDS)
    await session.exec(delete(SetupAttempt).where(col(SetupAttempt.tried_at) <= start))
    tries = (await session.exec(select(SetupAttempt.tried_at))).all()
    if len(tries) >= TRIES:
        raise TriesError(list(tries))
    if not fits(token, hashes):
        session.add(SetupAttempt())
        await session.commit()
        refuse_token()


def fits(token: str, hashes: list[str]) -> bool:
    return any(hmac.compare_digest(hash_text(token.strip()), known) for known in hashes)


def refuse_token() -> NoReturn:
    log.warning("A wrong token came to /setup or /recover")
    raise AccountError("token", "This is not the token, or it has expired.")


async def open_recovery(door: Door) -> None:
    async with door.database.session(reading=True) as session:
        await require_unused(door, session)


async def require_unused(door: Door, session: AsyncSession) -> str:
    """Give what RECOVERY_TOKEN is stored as once it is used up."""
    if door.recovery_hash is None:
        raise ClosedError
    used = await session.get(SetupToken, door.recovery_hash)
    if used:
        raise ClosedError
    return door.recovery_hash


async def recover_admin(door: Door, session: AsyncSession, token: str, email: str, password: str) -> None:
    """Give one admin a new password, once for each RECOVERY_TOKEN, and end what the old one had opened."""
    async with alone(door, session):
        await check_token(session, token, [await require_unused(door, session)])
        user = await get_admin(session, email)
    if fault := find_password_fault(password, user.email):
        raise AccountError("password", fault)
    hashed = await hash_password(password)
    async with alone(door, session):
        session.add(SetupToken(token=await require_unused(door, session)))
        user = await get_admin(session, email)
        user.hashed_password = hashed
        session.add(user)
        await session.exec(delete(AccessToken).where(col(AccessToken.user_id) == user.id))
    log.warning("The password of %s was changed at /recover, and all their sessions and tokens have ended", user.email)


async def get_admin(session: AsyncSession, email: str) -> User:
    user = await get_user_by_email(session, email)
    if user is None or not (user.is_superuser and user.is_active):
        raise AccountError("email", "No admin has this e-mail.")
    return user
