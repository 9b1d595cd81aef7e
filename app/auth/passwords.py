"""Argon2id, in threads and a few at a time: a storm of sign-ins must not stop the answers or eat the memory."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from pwdlib import PasswordHash
from pwdlib.exceptions import UnknownHashError
from pwdlib.hashers.argon2 import Argon2Hasher

PASSWORD_MIN_LENGTH = 8
PASSWORD_MAX_LENGTH = 256
HASHES_AT_ONCE = 2
QUEUE_LENGTH = 100  # about two seconds of work


class BusyError(Exception):
    """So many passwords wait to be checked that one more would wait too long."""


# OWASP's password storage cheat sheet: 19 MiB, two passes, one lane.
_hasher = PasswordHash([Argon2Hasher(memory_cost=19_456, time_cost=2, parallelism=1)])


@dataclass
class Queue:
    places: asyncio.Semaphore
    length: int = 0  # with those who have a place


_queues: WeakKeyDictionary[asyncio.AbstractEventLoop, Queue] = WeakKeyDictionary()


async def hash_password(password: str) -> str:
    async with hashing_place():
        return await asyncio.to_thread(_hasher.hash, password)


async def check_password(password: str, hashed: str) -> tuple[bool, str | None]:
    """Say whether the password fits, and give a new hash where the old one was made with weaker settings."""
    async with hashing_place():
        try:
            return await asyncio.to_thread(_hasher.verify_and_update, password, hashed)
        except UnknownHashError:
            return False, None


@asynccontextmanager
async def hashing_place() -> AsyncIterator[Queue]:
    """Wait for one of the few places where a hash may be made."""
    queue = _queues.setdefault(asyncio.get_running_loop(), Queue(asyncio.Semaphore(HASHES_AT_ONCE)))
    if queue.length >= QUEUE_LENGTH:
        raise BusyError
    queue.length += 1
    try:
        async with queue.places:
            yield queue
    finally:
        queue.length -= 1


def find_password_fault(password: str, email: str) -> str | None:
    """Say in a sentence what is wrong with a new password; None for an acceptable one."""
    if len(password) < PASSWORD_MIN_LENGTH:
        return f"Use at least {PASSWORD_MIN_LENGTH} characters."
    if len(password) > PASSWORD_MAX_LENGTH:
        return f"Use at most {PASSWORD_MAX_LENGTH} characters."
    if password.isdecimal():
        return "Use more than digits."
    if len(set(password)) < 4:
        return "Use more different characters."
    if email and password.lower() in (email.lower(), email.lower().partition("@")[0]):
        return "Use a password that is not your e-mail."
    if password.lower() in COMMON_PASSWORDS:
        return "This password is among the first that a stranger would try. Use another."
    return None


# The few that are tried first.
COMMON_PASSWORDS = frozenset(
    [
        "password",
        "password1",
        "password123",
        "passw0rd",
        "p@ssw0rd",
        "12345678",
        "123456789",
        "1234567890",
        "qwertyui",
        "qwerty123",
        "qwertyuiop",
        "1q2w3e4r",
        "1qaz2wsx",
        "iloveyou",
        "sunshine",
        "princess",
        "football",
        "baseball",
        "superman",
        "trustno1",
        "letmein1",
        "welcome1",
        "admin123",
        "changeme",
        "secret123",
        "abcd1234",
        "abc12345",
        "monkey123",
        "dragon123",
        "master123",
    ]
)
