"""What matters on a public host: Django's list, as far as it means something here, and ours."""

import os
from collections.abc import Iterator
from pathlib import Path

from app.database import read_url
from app.management.checks.database import demands_tls, goes_over_a_network
from app.management.checks.issues import Issue, count
from app.management.checks.machine import explain_loss, read_open_files
from app.management.checks.subject import Subject, reports
from app.management.console import how_to
from app.management.server import OPEN_FILES, wants_local_model
from app.settings import Settings, find_key_fault

YEAR = 31_536_000  # seconds


@reports("W010", tag="security")
def check_environment(subject: Subject) -> Iterator[Issue]:
    if not subject.settings.is_production:
        sentence = "ENVIRONMENT is development: cookies go over plain HTTP, too."
        yield Issue("W010", sentence, "Set ENVIRONMENT=production.")


@reports("W011", tag="security")
def check_secret_key(subject: Subject) -> Iterator[Issue]:
    if fault := find_key_fault(subject.settings.secret_key.get_secret_value()):
        yield Issue("W011", f"SECRET_KEY {fault}.", f"Type: {how_to('generate_secret_key')}")


@reports("W012", tag="security")
def check_hosts(subject: Subject) -> Iterator[Issue]:
    if not subject.settings.allowed_hosts or "*" in subject.settings.allowed_hosts:
        sentence = "The site answers to any name (ALLOWED_HOSTS)."
        yield Issue("W012", sentence, "Set ALLOWED_HOSTS to the names of the site.")


@reports("W013", "W014", tag="security")
def check_doors(subject: Subject) -> Iterator[Issue]:
    if subject.settings.allow_signup:
        sentence = "Anybody can make an account and spend the language model's budget (ALLOW_SIGNUP)."
        yield Issue("W013", sentence, "Set ALLOW_SIGNUP=false, unless that is meant.")
    if subject.settings.docs_are_shown:
        sentence = "Everybody can see the API's description at /docs."
        yield Issue("W014", sentence, "Set SHOW_DOCS=false, unless that is meant.")


@reports("W020", "I021", "I023", tag="security")
def check_hsts(subject: Subject) -> Iterator[Issue]:
    settings = subject.settings
    if not settings.hsts_seconds:
        sentence = "Browsers are not told to come by HTTPS alone (HSTS_SECONDS)."
        hint = f"Set HSTS_SECONDS=3600, and {YEAR}, a year, once all works: it cannot be taken back."
        yield Issue("W020", sentence, hint)
        return
    if not settings.hsts_include_subdomains:
        sentence = "What browsers are told about HTTPS is not for subdomains (HSTS_INCLUDE_SUBDOMAINS)."
        yield Issue("I021", sentence, "Set HSTS_INCLUDE_SUBDOMAINS=true where all of them speak HTTPS.")
    if not settings.hsts_preload:
        sentence = "Browsers do not know about HTTPS before the first visit (HSTS_PRELOAD)."
        yield Issue("I023", sentence, "Set HSTS_PRELOAD=true, and add a domain of your own at hstspreload.org.")


@reports("W022", tag="security")
def check_redirect(subject: Subject) -> Iterator[Issue]:
    is_done_by_proxy = subject.site is not None and not subject.site.fault and subject.site.plain in ("", "https")
    if not subject.settings.ssl_redirect and not is_done_by_proxy:
        sentence = "Who comes by plain HTTP is not sent to HTTPS (SSL_REDIRECT)."
        yield Issue("W022", sentence, "Set SSL_REDIRECT=true, unless the proxy does it; --url shows whether it does.")


@reports("W016", "W024", "W025", tag="security")
def check_people(subject: Subject) -> Iterator[Issue]:
    if subject.people is None:
        return
    if demo := subject.people.of_the_demo:
        sentence = f"{count(demo, 'account')} of quickstart with @example.com in the database."
        yield Issue("W016", sentence, "Delete them in /admin.")
    if subject.people.superusers:
        yield from check_tokens(subject.settings)


def check_tokens(settings: Settings) -> Iterator[Issue]:
    tokens = {"W024": ("SETUP_TOKEN", settings.setup_token), "W025": ("RECOVERY_TOKEN", settings.recovery_token)}
    for issue, (name, token) in tokens.items():
        if token.get_secret_value():
            sentence = f"{name} is still set, and there is a superuser."
            yield Issue(issue, sentence, f"Take {name} out of the environment.")


@reports("W019", tag="security")
def check_forwarded_headers(subject: Subject) -> Iterator[Issue]:
    if "*" in os.environ.get("FORWARDED_ALLOW_IPS", "").split(","):  # uvicorn reads it, from there alone
        sentence = "FORWARDED_ALLOW_IPS=* lets uvicorn believe what visitors write about their own address."
        yield Issue("W019", sentence, "Leave it out; TRUSTED_PROXY_HOPS says how many proxies are to be believed.")


@reports("W015", "W028", "I029", tag="models")
def check_model_answers(subject: Subject) -> Iterator[Issue]:
    settings, model = subject.settings, subject.model
    if settings.local_llm == "on" and wants_local_model(settings):
        sentence = "The small demo model answers (LOCAL_LLM), and it is unreliable on facts."
        yield Issue("W015", sentence, "Set OPENROUTER_API_KEY, or LLM_BASE_URL and LLM_MODEL.")
    if model and model.fault:
        yield Issue("W028", "The language model does not answer.", model.fault)
    elif model and model.names and not model.is_listed:
        yield Issue("I029", f"{model.name} is not among the models that its server lists.", "Check LLM_MODEL.")


@reports("W017", tag="database")
def check_encryption(subject: Subject) -> Iterator[Issue]:
    url = read_url(subject.settings.database_url.get_secret_value())
    if url.get_backend_name() == "postgresql" and goes_over_a_network(url) and not demands_tls(url):
        sentence = "What the database and the site say to each other need not be encrypted (sslmode in DATABASE_URL)."
        yield Issue("W017", sentence, "Add ?sslmode=require to DATABASE_URL, or verify-full with sslrootcert.")


@reports("W018", tag="database")
def check_disk(subject: Subject) -> Iterator[Issue]:
    url = read_url(subject.settings.database_url.get_secret_value())
    if url.get_backend_name() == "sqlite" and (reason := explain_loss(Path(url.database or "").parent)):
        sentence = f"The SQLite database lies in {reason}, so it is lost at the next start."
        yield Issue("W018", sentence, "Use PostgreSQL, or name a file on a disk that stays in DATABASE_URL.")


@reports("W026", tag="database")
def check_connections(subject: Subject) -> Iterator[Issue]:
    facts = subject.database
    wanted = subject.settings.database_pool_size * subject.workers
    if facts and facts.pooler != "transaction" and facts.connection_limit and wanted > facts.connection_limit:
        sentence = f"{wanted} connections may be wanted, and the database gives {facts.connection_limit}."
        yield Issue("W026", sentence, "Lower DATABASE_POOL_SIZE or the number of workers.")


@reports("W027", tag="server")
def check_open_files(subject: Subject) -> Iterator[Issue]:
    limit = read_open_files()
    if limit is not None and limit < OPEN_FILES:
        sentence = f"A process may have {limit} files open, and each answer needs two: {OPEN_FILES} are wanted."
        yield Issue("W027", sentence, "Raise it: LimitNOFILE= in systemd, --ulimit nofile= in Docker, or ulimit -n.")
