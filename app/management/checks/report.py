"""What --deploy found, as a table: not what is wrong, but what is there."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from app.database import read_url
from app.management.checks.database import DatabaseFacts
from app.management.checks.issues import count
from app.management.checks.machine import is_writable, measure_environment, read_open_files
from app.management.checks.model import ModelFacts
from app.management.checks.project import list_pending
from app.management.checks.site import Address, SiteFacts
from app.management.checks.subject import Subject
from app.management.commands import CommandError
from app.management.server import wants_local_model
from app.settings import ROOT

POOLERS = {
    "none": "none",
    "session": "yes; it keeps a connection for each of ours (session mode, or a proxy)",
    "transaction": "yes; it hands out connections for one transaction",
}
Line = tuple[str, str]


def write_report(subject: Subject) -> str:
    lines = [*describe_database(subject), *describe_model(subject), *describe_machine(subject)]
    if subject.address and subject.site:
        lines += describe_site(subject.address, subject.site)
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:<{width}}  {words}" for name, words in lines)


def describe_database(subject: Subject) -> Iterator[Line]:
    if facts := subject.database:
        yield "Database", f"{facts.server}, by {facts.driver}, {facts.round_trip * 1000:.1f} ms away"
        if facts.server.startswith("SQLite"):
            yield "", str(read_url(subject.settings.database_url.get_secret_value()).database)
        else:
            yield from describe_connection(subject, facts)
    else:
        yield "Database", "does not answer"
    yield "Migrations", describe_migrations()


def describe_connection(subject: Subject, facts: DatabaseFacts) -> Iterator[Line]:
    yield "TLS", facts.tls or "none"
    yield "Pooler", POOLERS[facts.pooler]
    wanted = subject.settings.database_pool_size * subject.workers
    given = f" of {facts.connection_limit}" if facts.connection_limit and facts.pooler != "transaction" else ""
    yield "Connections", f"{wanted}{given} at the most"


def describe_migrations() -> str:
    try:
        pending = list_pending()
    except CommandError:
        return "unknown"
    return f"{', '.join(pending)} not applied" if pending else "all applied"


def describe_model(subject: Subject) -> Iterator[Line]:
    if facts := subject.model:
        yield "Model", facts.fault or describe_answer(facts)
    else:
        yield "Model", "the small one, which runserver starts" if wants_local_model(subject.settings) else "none"


def describe_answer(facts: ModelFacts) -> str:
    listed = "which it lists" if facts.is_listed else "which it does not list" if facts.names else "and lists none"
    return f"answered in {facts.seconds:.1f} s; {facts.name}, {listed}"


def describe_machine(subject: Subject) -> Iterator[Line]:
    folders = {"project": ROOT, tempfile.gettempdir(): Path(tempfile.gettempdir())}
    url = read_url(subject.settings.database_url.get_secret_value())
    if url.get_backend_name() == "sqlite" and url.database:
        folders["SQLite's folder"] = Path(url.database).parent
    can = {name: "writable" if is_writable(folder) else "read-only" for name, folder in folders.items()}
    yield "Disk", ", ".join(f"{name} {word}" for name, word in can.items())
    yield "Open files", str(read_open_files() or "no limit")
    yield "Settings", f"{count(measure_environment(subject.settings), 'byte')} in the environment or .env"


def describe_site(address: Address, site: SiteFacts) -> Iterator[Line]:
    if site.fault:
        yield "Site", site.fault
        return
    yield "Site", f"{address} answers {site.page}; /healthz {site.health}, /readyz {site.ready}"
    yield "HTTPS", site.tls or "none"
    leads = {"": "nobody answers", "https": "leads to HTTPS", "http": "shows pages"}
    yield "Plain HTTP", leads.get(site.plain, f"leads to {site.plain}:")
    yield "HSTS", site.hsts or "none"
    yield "Streams", describe_stream(site)


def describe_stream(site: SiteFacts) -> str:
    if site.stream.status != 200:
        return f"unknown: the probe answers {site.stream.status}"
    if site.stream.passes:
        return f"pass: the first piece came after {site.stream.first:.2f} s"
    return f"are held back {site.stream.first:.1f} s"
