"""From a fresh clone to a served chat, in one command. What is there already is kept."""

import os
import secrets
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from app.management import COMMANDS
from app.management.commands import NOINPUT, CommandError, argument, command, flag
from app.management.console import console, how_to
from app.management.project import ROOT, make_secret_key
from app.management.server import DEFAULT_PORT, Address, listen, read_address, serve, wants_local_model

if TYPE_CHECKING:
    from sqlmodel.ext.asyncio.session import AsyncSession

    from app.settings import Settings

ADMIN = ("grace@example.com", "Grace")


@command(
    argument("--host", default="127.0.0.1", help="where to listen; 0.0.0.0 lets in the whole network"),
    argument("--port", type=int, default=None, help=f"{DEFAULT_PORT} if left out"),
    flag("--no-serve", help="end when everything is set up"),
    NOINPUT,
)
def quickstart(
    *, host: str = "127.0.0.1", port: int | None = None, no_serve: bool = False, noinput: bool = False
) -> None:
    """Set everything up on this machine, and serve: .env, database, an admin, and people to try it as."""
    address = read_address(None if port is None else str(port))._replace(host=host)
    listener = None if no_serve else listen(address, "quickstart --port 8001")
    console.say(f"\n{console.paint('Oppkit', 'bold')}\n")
    tell(".env", write_env())
    settings = read_settings()
    tell("Database", migrate_database(settings))
    has_new = make_people()
    tell(
        "Passwords",
        f"{'shown only now' if has_new else 'not shown again'}; a new one: {how_to('changepassword EMAIL')}",
    )
    tell("Model", describe_model(settings))
    if listener is None:
        tell("Next", how_to("runserver"))
        console.say()
        return
    host, port = listener.getsockname()[:2]
    tell("Open", f"{console.paint(Address(host, port).url, 'bold')}  (Control-C ends it)\n")
    serve(listener, settings, reloads=True, greets=False)


def tell(label: str, text: str) -> None:
    console.say(f"  {console.paint(f'{label:<10}', 'dim')}  {text}")


def write_env() -> str:
    """Write .env from .env.example with a key of its own, readable for its owner only; one that exists is kept.

    It appears whole or not at all, and never in the place of another: a link fails where the name is taken.
    """
    path = ROOT / ".env"
    if path.exists():
        return "kept"
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    text = text.replace("\nSECRET_KEY=\n", f"\nSECRET_KEY={make_secret_key()}\n", 1)
    draft = path.with_name(f".env.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        os.link(draft, path)
    except FileExistsError:
        return "kept"
    except OSError as error:
        raise CommandError(f"{path} cannot be written: {error.strerror}.") from error
    finally:
        draft.unlink(missing_ok=True)
    return "written, with a SECRET_KEY of its own"


def read_settings() -> "Settings":
    from app.settings import load_settings

    settings = load_settings()
    if settings.is_production:
        raise CommandError(
            f"quickstart shows the passwords it makes, and ENVIRONMENT is production. Type instead: "
            f"{how_to('migrate')}, {how_to('createsuperuser')} and {how_to('runserver')}"
        )
    return settings


def migrate_database(settings: "Settings") -> str:
    from app.database import read_url
    from app.management.migrations import apply, list_applied, list_migrations, load_graph, prepare_file

    prepare_file()
    url = read_url(settings.database_url.get_secret_value())
    place = Path(url.database or "").name if url.get_backend_name() == "sqlite" else f"{url.database} on {url.host}"
    graph = load_graph()
    applied = list_applied(graph)
    pending = [script for script in list_migrations(graph) if script.revision not in applied]
    if not pending:
        return f"{place}, kept"
    for script in pending:
        apply(script)
    return f"{place}, {len(pending)} {'migration' if len(pending) == 1 else 'migrations'} applied"


def make_people() -> bool:
    """Make the admin and, where the demo is still there, its people; say whether there are new passwords to note."""
    from app.management.session import run_with_session

    is_new = run_with_session(make_admin)
    if "demo" in COMMANDS:
        # An import statement would name what may be deleted.
        demo_is_new: bool = import_module("app.management.demo").tell_demo()
        is_new = is_new or demo_is_new
    return is_new


async def make_admin(session: "AsyncSession") -> bool:
    from sqlmodel import col, select

    from app.auth.models import User
    from app.auth.service import get_user_by_email
    from app.management.users import create_superuser, make_password

    email, name = ADMIN
    known = (await session.exec(select(User).where(col(User.is_superuser)).limit(1))).first()
    if known:
        tell("Admin", describe_account(known.email, None))
    elif await get_user_by_email(session, email):
        tell("Admin", f"none: {email} is no admin. Make one: {how_to('createsuperuser')}")
    else:
        password = make_password()
        await create_superuser(session, email, password, name)
        tell("Admin", describe_account(email, password))
        return True
    return False


def describe_account(email: str, password: str | None) -> str:
    return f"{email:<20} password {console.paint(password, 'bold')}" if password else f"{email:<20} kept"


def describe_model(settings: "Settings") -> str:
    from app.llm import choose_model

    if wants_local_model(settings):
        return "a small demo model on this machine; for a better one set OPENROUTER_API_KEY in .env"
    return choose_model(settings).label
