"""People from the terminal: accounts, passwords and tokens. A password is never an argument: others can see those."""

import getpass
import os
import secrets

from sqlalchemy import delete
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.auth.models import AccessToken, User
from app.auth.passwords import find_password_fault
from app.auth.service import AccountError, create_token, create_user, get_user_by_email, read_email, set_password
from app.database import now
from app.management.commands import NOINPUT, CommandError, argument, command, flag
from app.management.console import console, how_to, is_interactive
from app.management.session import run_with_session

LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"  # without those that look alike
ATTEMPTS = 3


def make_password() -> str:
    """Twelve random characters (59 bits), in groups that can be read and typed: h4dk-9xwn-q2fb."""
    return "-".join("".join(secrets.choice(LETTERS) for _ in range(4)) for _ in range(3))


@command(
    argument("--email", help="or OPPMAN_SUPERUSER_EMAIL, or DJANGO_SUPERUSER_EMAIL"),
    argument("--name", help="or OPPMAN_SUPERUSER_NAME, or DJANGO_SUPERUSER_NAME"),
    flag("--exist-ok", help="end well where this admin exists already, and change nothing"),
    NOINPUT,
)
def createsuperuser(
    email: str | None = None, name: str | None = None, *, exist_ok: bool = False, noinput: bool = False
) -> None:
    """Make an account that may do everything. --noinput takes the password from OPPMAN_SUPERUSER_PASSWORD."""
    email = email or read_variable("EMAIL")
    name = name or read_variable("NAME") or ""
    if noinput and not email:
        raise CommandError("You must use --email with --noinput.")
    if not noinput and not is_interactive():
        console.say(
            "Superuser creation skipped due to not running in a TTY. "
            f"You can type {how_to('createsuperuser --noinput')} with OPPMAN_SUPERUSER_EMAIL and "
            "OPPMAN_SUPERUSER_PASSWORD in the environment to create one."
        )
        return
    email = check_email(email) if email else ask_email()
    known = run_with_session(lambda session: get_user_by_email(session, email))
    if known is not None:
        refuse_known(known, exist_ok)
        return
    password = read_variable("PASSWORD") if noinput else ask_password(email)
    if not password:
        raise CommandError("Put the password into OPPMAN_SUPERUSER_PASSWORD.")
    run_with_session(lambda session: create_superuser(session, email, password, name))
    console.say("Superuser created successfully.")


def read_variable(name: str) -> str | None:
    return os.environ.get(f"OPPMAN_SUPERUSER_{name}") or os.environ.get(f"DJANGO_SUPERUSER_{name}")


def refuse_known(known: User, exist_ok: bool) -> None:
    if not exist_ok:
        raise CommandError("That e-mail is already taken.")
    if not known.is_superuser:
        raise CommandError(f"{known.email} exists, but is no superuser, and this command makes nobody one.")
    console.say(f"{known.email} exists already; nothing was changed.")


async def create_superuser(session: AsyncSession, email: str, password: str, name: str = "") -> User:
    try:
        return await create_user(session, email, password, name=name, is_staff=True, is_superuser=True)
    except AccountError as error:
        raise CommandError(str(error)) from error


def check_email(raw: str) -> str:
    try:
        return read_email(raw)
    except AccountError as error:
        raise CommandError(str(error)) from error


def ask_email() -> str:
    while True:
        try:
            return read_email(input("E-mail address: "))
        except AccountError as error:
            console.warn(f"Error: {error}")


def ask_password(email: str) -> str:
    """Ask twice, and again where the answers differ or anybody could guess them."""
    for _ in range(ATTEMPTS):
        password = getpass.getpass("Password: ")
        if getpass.getpass("Password (again): ") != password:
            console.warn("Error: Your passwords didn't match.")
        elif fault := find_password_fault(password, email):
            console.warn(f"Error: {fault}")
        else:
            return password
    raise CommandError(f"Aborting after {ATTEMPTS} attempts.")


@command(argument("email", nargs="?", help="whose; the only superuser if left out"), NOINPUT)
def changepassword(email: str | None = None, *, noinput: bool = False) -> None:
    """Give somebody a new password. Their sessions and API tokens end. --noinput takes it from OPPMAN_PASSWORD."""
    user = run_with_session(lambda session: find_user(session, email))
    if not noinput and not is_interactive():
        raise CommandError("There is no terminal to ask at. Use --noinput, with the password in OPPMAN_PASSWORD.")
    if not noinput:
        console.say(f"Changing password for user '{user.email}'")
    password = os.environ.get("OPPMAN_PASSWORD") if noinput else ask_password(user.email)
    if not password:
        raise CommandError("Put the new password into OPPMAN_PASSWORD.")

    async def change(session: AsyncSession) -> None:
        try:
            await set_password(session, user, password)
        except AccountError as error:
            raise CommandError(str(error)) from error

    run_with_session(change)
    console.say(f"Password changed successfully for user '{user.email}'. Their sessions and API tokens have ended.")


async def find_user(session: AsyncSession, email: str | None) -> User:
    if email is None:
        superusers = (await session.exec(select(User).where(col(User.is_superuser)).limit(2))).all()
        if len(superusers) != 1:
            raise CommandError(f"Say whose: {how_to('changepassword EMAIL')}")
        return superusers[0]
    user = await get_user_by_email(session, email)
    if user is None:
        raise CommandError(f"user '{email}' does not exist")
    return user


@command(argument("email", help="whose"))
def createtoken(email: str) -> None:
    """Print a token for the JSON API, on standard output and nothing else. It is good for a year."""

    async def create(session: AsyncSession) -> str:
        user = await find_user(session, email)
        token, _ = await create_token(session, user.id, "api")
        return token

    token = run_with_session(create)
    console.warn(f"A token for {email}, shown only now. Use it like this: Authorization: Bearer TOKEN")
    print(token)


@command()
def clearsessions() -> None:
    """Delete sessions and API tokens that have expired."""

    async def clear(session: AsyncSession) -> int:
        expired = await session.exec(delete(AccessToken).where(col(AccessToken.expires_at) < now()))
        await session.commit()
        return expired.rowcount

    count = run_with_session(clear)
    console.say(f"Deleted {count} expired {'session' if count == 1 else 'sessions'}.")
