"""What one host demands (--platform), and what a public address shows (--url)."""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app.database import read_url
from app.management.checks.database import demands_tls
from app.management.checks.issues import Issue, count
from app.management.checks.machine import count_uncompiled, explain_loss, measure_environment
from app.management.checks.platforms import Demand, Platform
from app.management.checks.site import STRANGE_HOST, SiteFacts
from app.management.checks.subject import Subject, reports
from app.management.console import how_to
from app.settings import ROOT, Settings

MISSING = object()


@reports("E030", "E031", tag="platform")
def check_database_fits(subject: Subject) -> Iterator[Issue]:
    if not (platform := subject.platform):
        return
    url = read_url(subject.settings.database_url.get_secret_value())
    if url.get_backend_name() == "sqlite":
        yield from check_sqlite(platform, Path(url.database or ""))
    elif platform.needs_tls and not demands_tls(url):
        sentence = f"{platform.title}'s PostgreSQL takes encrypted connections only."
        yield Issue("E031", sentence, "Add ?sslmode=require to DATABASE_URL.")


def check_sqlite(platform: Platform, file: Path) -> Iterator[Issue]:
    if platform.sqlite == "nowhere":
        yield Issue("E030", f"{platform.title} has no disk that stays, so SQLite would be lost.", "Use PostgreSQL.")
    elif platform.sqlite == "on a volume" and (file.is_relative_to(ROOT) or explain_loss(file.parent)):
        sentence = f"On {platform.title} only a volume stays, and {file} is on none."
        yield Issue("E030", sentence, "Mount one, and name a file on it, such as sqlite:////data/db.sqlite3.")


@reports("W032", "E033", "W034", "W035", "W036", tag="platform")
def check_size(subject: Subject) -> Iterator[Issue]:
    platform, settings = subject.platform, subject.settings
    if not platform:
        return
    if platform.pool_limit and settings.database_pool_size > platform.pool_limit:
        sentence = f"{settings.database_pool_size} connections are too many for the database of {platform.title}."
        yield Issue("W032", sentence, f"Set DATABASE_POOL_SIZE={platform.pool_limit} or less.")
    size = measure_environment(settings)
    if platform.environment_limit and size > platform.environment_limit:
        sentence = f"The settings take {size} bytes, and {platform.title} has room for {platform.environment_limit}."
        yield Issue("E033", sentence, "Shorten LLM_SYSTEM_PROMPT, or leave out what is the default anyway.")
    if platform.is_read_only and (number := count_uncompiled()):
        sentence = f"{count(number, 'module')} not compiled, and on a read-only disk that is done at each start anew."
        yield Issue("W034", sentence, f"Let the build end with: {how_to('compileall')}")
    yield from check_proxies(platform, settings)
    if platform.worker_limit and subject.workers > platform.worker_limit:
        sentence = f"{subject.workers} workers are too many for the memory of {platform.title}'s small machines."
        yield Issue("W036", sentence, f"Start {count(platform.worker_limit, 'worker')}.")


def check_proxies(platform: Platform, settings: Settings) -> Iterator[Issue]:
    hops = settings.trusted_proxy_hops
    if platform.proxy_hops is not None and hops != platform.proxy_hops:
        sentence = f"TRUSTED_PROXY_HOPS is {hops}, and {platform.title} has {platform.proxy_hops} between."
        yield Issue("W035", sentence, f"Set TRUSTED_PROXY_HOPS={platform.proxy_hops}.")


@reports("W037", tag="platform")
def check_file(subject: Subject) -> Iterator[Issue]:
    if not subject.platform or not subject.platform.file:
        return
    path = ROOT / subject.platform.file
    try:
        document = (tomllib if path.suffix == ".toml" else json).loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        yield Issue("W037", f"{path.name} is not there, or cannot be read.", f"{subject.platform.title} goes by it.")
        return
    for demand in subject.platform.demands:
        if not meets(demand, find(document, demand.path)):
            sentence = f"{path.name} does not say {demand.path} = {json.dumps(demand.value)}: {demand.reason}."
            yield Issue("W037", sentence, f"Write it into {path.name}.")
    yield from check_mounts(subject, find(document, subject.platform.mounts))


def check_mounts(subject: Subject, mounts: object) -> Iterator[Issue]:
    """SQLite's file has to lie on a volume that the host's own file mounts."""
    url = read_url(subject.settings.database_url.get_secret_value())
    if not subject.platform or not subject.platform.mounts or url.get_backend_name() != "sqlite":
        return
    volumes = [mounts] if isinstance(mounts, dict) else mounts if isinstance(mounts, list) else []
    if not any(Path(url.database or "").is_relative_to(volume.get("destination", "?")) for volume in volumes):
        sentence = f"{subject.platform.file} mounts no volume for {url.database}."
        yield Issue("W037", sentence, f"Write {subject.platform.mounts} with its destination into it.")


def find(document: Any, path: str) -> object:
    for name in path.split("."):
        document = document.get(name, MISSING) if isinstance(document, dict) else MISSING
    return document


def meets(demand: Demand, value: object) -> bool:
    if isinstance(demand.value, bool | str):
        return value == demand.value
    seconds = re.fullmatch(r"(\d+)s?", str(value))
    return bool(seconds) and int(seconds[1]) >= demand.value  # type: ignore[index]


@reports("E050", "E057", "W051", "W056", tag="site")
def check_site_answers(subject: Subject) -> Iterator[Issue]:
    if not (site := subject.site):
        return
    if site.fault:
        yield Issue("E050", site.fault, "Check the address and the certificate; nothing else was looked at.")
        return
    if (site.health, site.ready) != (200, 200):
        sentence = f"/healthz answers {site.health} and /readyz {site.ready}; both should answer 200."
        yield Issue("E057", sentence, "The log says why; /readyz needs the database and its migrations.")
    if site.plain == "http":
        sentence = "Pages are shown over plain HTTP."
        yield Issue("W051", sentence, "Set SSL_REDIRECT=true, or let the proxy send visitors to HTTPS.")
    if site.stream.status != 200:
        sentence = f"The probe for streams answers {site.stream.status}, so nothing is known about them."
        yield Issue("W056", sentence, "Deploy this version, or try again in a moment.")
    elif not site.stream.passes:
        sentence = f"The host holds streams back ({site.stream.first:.1f} s): answers appear when they are whole."
        yield Issue(
            "W056", sentence, "Switch the proxy's buffering off (docs/deploy.md), or live with it: none is lost."
        )


@reports("W052", "W053", "W054", "W055", "E059", tag="site")
def check_site_is_safe(subject: Subject) -> Iterator[Issue]:
    if not (site := subject.site) or site.fault:
        return
    believes = "Let the proxy send X-Forwarded-Proto, and set TRUSTED_PROXY_HOPS (docs/deploy.md)."
    if site.is_loop:
        yield Issue("E059", "HTTPS is sent to HTTPS for ever: the app does not see that it is there.", believes)
        return
    if site.wrong_headers:
        sentence = f"These security headers do not arrive as they were sent: {', '.join(site.wrong_headers)}."
        yield Issue("W052", sentence, "See what the proxy changes.")
    yield from check_https_is_kept(site, believes)
    if site.strange_host < 300:
        sentence = f"The site answers to a name that is not its own ({STRANGE_HOST})."
        yield Issue("W055", sentence, "Set ALLOWED_HOSTS there to the names of the site.")


def check_https_is_kept(site: SiteFacts, hint: str) -> Iterator[Issue]:
    if not site.hsts:
        sentence = "Browsers are not told to come by HTTPS alone (Strict-Transport-Security)."
        yield Issue("W053", sentence, "Set HSTS_SECONDS there.")
    if not site.has_secure_cookies:
        yield Issue("W054", "Cookies come without Secure: the app does not see that visitors use HTTPS.", hint)
