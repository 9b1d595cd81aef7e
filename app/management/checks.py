"""Looks for mistakes before people meet them, in the form of Django's `check`."""

import stat
import sys
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

from sqlmodel import col, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.auth.models import User
from app.llm import NotConfigured, choose_model
from app.management.commands import CommandError, argument, command, flag
from app.management.console import console, how_to
from app.management.migrations import list_applied, list_migrations, load_graph
from app.management.server import has_provider, wants_local_model
from app.management.session import run_with_session
from app.settings import ENV_FILE, Settings, find_key_fault, load_settings


class Level(IntEnum):
    """Django's numbers."""

    DEBUG = 10
    INFO = 20
    WARNING = 30
    ERROR = 40
    CRITICAL = 50


class Issue(NamedTuple):
    level: Level
    id: str
    sentence: str
    hint: str

    def __str__(self) -> str:
        return f"?: ({self.id}) {self.sentence}\n\tHINT: {self.hint}"


@command(
    flag("--deploy", help="look at what matters on a public host, too"),
    argument(
        "--fail-level",
        type=str.upper,
        choices=[level.name for level in Level],
        default=Level.ERROR.name,
        help="end with 1 from this level on",
    ),
)
def check(*, deploy: bool = False, fail_level: str = "ERROR") -> None:
    """Look for mistakes in the settings and the database."""
    settings = load_settings()
    issues = [*check_database(), *check_settings(settings), *(check_deployment(settings) if deploy else ())]
    if not issues:
        console.say("System check identified no issues (0 silenced).")
        return
    is_failure = any(issue.level >= Level[fail_level] for issue in issues)
    print(("SystemCheckError: " if is_failure else "") + describe(issues), file=sys.stderr)
    if is_failure:
        raise SystemExit(1)


def describe(issues: list[Issue]) -> str:
    lines = ["System check identified some issues:", ""]
    for level in sorted(Level, reverse=True):
        if found := [str(issue) for issue in issues if issue.level is level]:
            lines += [f"{level.name}S:", *found, ""]
    return "\n".join([*lines, f"System check identified {count(len(issues), 'issue')} (0 silenced)."])


def count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def check_database() -> Iterator[Issue]:
    try:
        graph = load_graph()
        pending = [script for script in list_migrations(graph) if script.revision not in list_applied(graph)]
    except CommandError as error:
        yield Issue(Level.ERROR, "oppman.E001", str(error), "DATABASE_URL says where the database is.")
        return
    if pending:
        sentence = f"{count(len(pending), 'migration')} not applied."
        yield Issue(Level.WARNING, "oppman.W001", sentence, f"Type: {how_to('migrate')}")


def check_settings(settings: Settings) -> Iterator[Issue]:
    model = choose_model(settings)
    if isinstance(model, NotConfigured) and not wants_local_model(settings):
        yield Issue(
            Level.WARNING, "oppman.W002", "There is no language model, so nobody gets an answer.", model.sentence
        )
    if settings.llm_model and not has_provider(settings):
        sentence = "LLM_MODEL is not used: nothing says where to ask for it."
        yield Issue(Level.WARNING, "oppman.W004", sentence, "Set LLM_BASE_URL, OPENROUTER_API_KEY or OPENAI_API_KEY.")
    if ENV_FILE.exists() and stat.S_IMODE(ENV_FILE.stat().st_mode) & 0o077:
        sentence = ".env holds secrets, and others on this machine may read it."
        yield Issue(Level.WARNING, "oppman.W003", sentence, "Type: chmod 600 .env")


def check_deployment(settings: Settings) -> Iterator[Issue]:
    if not settings.is_production:
        sentence = "ENVIRONMENT is development: cookies go over plain HTTP, too."
        yield Issue(Level.WARNING, "oppman.W010", sentence, "Set ENVIRONMENT=production.")
    if fault := find_key_fault(settings.secret_key.get_secret_value()):
        hint = f"Type: {how_to('generate_secret_key')}"
        yield Issue(Level.WARNING, "oppman.W011", f"SECRET_KEY {fault}.", hint)
    if not settings.allowed_hosts or "*" in settings.allowed_hosts:
        hint = "Set ALLOWED_HOSTS to the names of the site."
        yield Issue(Level.WARNING, "oppman.W012", "The site answers to any name (ALLOWED_HOSTS).", hint)
    if settings.allow_signup:
        sentence = "Anybody can make an account and spend the language model's budget (ALLOW_SIGNUP)."
        yield Issue(Level.WARNING, "oppman.W013", sentence, "Set ALLOW_SIGNUP=false, unless that is meant.")
    if settings.docs_are_shown:
        hint = "Set SHOW_DOCS=false, unless that is meant."
        yield Issue(Level.WARNING, "oppman.W014", "Everybody can see the API's description at /docs.", hint)
    if settings.local_llm == "on" and wants_local_model(settings):
        hint = "Set OPENROUTER_API_KEY, or LLM_BASE_URL and LLM_MODEL."
        yield Issue(
            Level.WARNING,
            "oppman.W015",
            "The small demo model answers (LOCAL_LLM), and it is unreliable on facts.",
            hint,
        )
    yield from check_demo_people(settings)


def check_demo_people(settings: Settings) -> Iterator[Issue]:
    async def count_people(session: AsyncSession) -> int:
        demo = select(func.count()).select_from(User).where(col(User.email).endswith("@example.com"))
        return (await session.exec(demo)).one()

    try:
        found = run_with_session(count_people)
    except CommandError:
        return  # check_database has said it
    if found:
        sentence = f"{count(found, 'account')} of quickstart with @example.com in the database."
        yield Issue(Level.WARNING, "oppman.W016", sentence, "Delete them in /admin.")
