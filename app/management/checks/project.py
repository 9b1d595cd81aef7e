"""What is looked at each time: the settings, the database, the files."""

from collections.abc import Iterator

from app.llm import NotConfigured, choose_model
from app.management.checks.issues import Issue, count
from app.management.checks.machine import has_readable_secrets
from app.management.checks.subject import Subject, reports
from app.management.commands import CommandError
from app.management.console import how_to
from app.management.migrations import list_applied, list_migrations, load_graph
from app.management.server import has_provider, wants_local_model
from app.storage import choose_storage


@reports("E001", "W001", tag="database", deploy=False)
def check_migrations(subject: Subject) -> Iterator[Issue]:
    try:
        pending = list_pending()
    except CommandError as error:
        yield Issue("E001", str(error), "DATABASE_URL says where the database is.")
        return
    if pending:
        yield Issue("W001", f"{count(len(pending), 'migration')} not applied.", f"Type: {how_to('migrate')}")


def list_pending() -> list[str]:
    graph = load_graph()
    applied = list_applied(graph)
    return [script.revision for script in list_migrations(graph) if script.revision not in applied]


@reports("W002", "W004", tag="models", deploy=False)
def check_model(subject: Subject) -> Iterator[Issue]:
    settings = subject.settings
    model = choose_model(settings)
    if isinstance(model, NotConfigured) and not wants_local_model(settings):
        yield Issue("W002", "There is no language model, so nobody gets an answer.", model.sentence)
    if settings.llm_model and not has_provider(settings):
        sentence = "LLM_MODEL is not used: nothing says where to ask for it."
        yield Issue("W004", sentence, "Set LLM_BASE_URL, OPENROUTER_API_KEY or OPENAI_API_KEY.")


@reports("W003", tag="files", deploy=False)
def check_env_file(subject: Subject) -> Iterator[Issue]:
    if has_readable_secrets():
        yield Issue("W003", ".env holds secrets, and others on this machine may read it.", "Type: chmod 600 .env")


@reports("W005", tag="files", deploy=False)
def check_storage(subject: Subject) -> Iterator[Issue]:
    if (fault := choose_storage(subject.settings).fault) and subject.settings.uploads != "off":
        yield Issue("W005", fault, "Set UPLOADS to a folder that stays, or to a bucket; or to off.")
