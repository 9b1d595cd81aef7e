"""What a public address answers: its certificate, its redirects, its headers, and whether streams get through.

Only Python's own HTTP client: the other one is for language models.
"""

import http.client
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple
from urllib.parse import urlencode, urlsplit

from app.headers import SECURITY_HEADERS
from app.management.commands import CommandError
from app.pages.health import STREAM_PATH, STREAM_SECONDS

SECONDS = 10  # for each step of each request
HTTP_PORT = 80
PAGE = "/login"
STRANGE_HOST = "strange.invalid"  # nobody can have it: RFC 2606
EVENTS = "text/event-stream"
REDIRECTS = (301, 302, 303, 307, 308)

# What a proxy may change without harm.
CHECKED_HEADERS = {name: value for name, value in SECURITY_HEADERS.items() if name != "Cache-Control"}


class Stream(NamedTuple):
    """When a probe of several pieces arrived, in seconds after it was asked for."""

    status: int
    first: float = 0
    last: float = 0

    @property
    def passes(self) -> bool:
        return self.last - self.first > STREAM_SECONDS / 2


class SiteFacts(NamedTuple):
    fault: str = ""
    tls: str = ""
    health: int = 0
    ready: int = 0
    page: int = 0
    plain: str = ""  # where plain HTTP leads; empty where nobody answers it
    is_loop: bool = False
    wrong_headers: tuple[str, ...] = ()
    hsts: str = ""
    has_secure_cookies: bool = False
    strange_host: int = 0
    stream: Stream = Stream(0)


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage

    @property
    def location(self) -> str:
        return self.headers.get("Location", "")


class Address(NamedTuple):
    scheme: str
    host: str
    port: int | None

    def __str__(self) -> str:
        """Without a name and a password that may stand in what was typed."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + (f":{self.port}" if self.port else "")

    @property
    def is_secure(self) -> bool:
        return self.scheme == "https"


def read_address(url: str) -> Address:
    try:
        parts = urlsplit(url if "://" in url else f"https://{url}")
        address = Address(parts.scheme, parts.hostname or "", parts.port)
    except ValueError:
        address = Address("", "", None)
    if address.scheme not in ("http", "https") or not address.host:
        raise CommandError(f"{url!r} is no address of a site. Write it like https://chat.example.org")
    return address


def inspect_site(address: Address) -> SiteFacts:
    try:
        return ask(address)
    except ssl.SSLCertVerificationError as error:
        return SiteFacts(fault=f"The certificate of {address.host} is not valid: {error.verify_message}.")
    except (OSError, http.client.HTTPException) as error:
        words = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return SiteFacts(fault=f"{address} does not answer: {words}.")


def ask(address: Address) -> SiteFacts:
    tls = read_certificate(address) if address.is_secure else ""
    page = fetch(address, PAGE)
    leads_to_https = page.status in REDIRECTS and page.location.startswith("https:")
    if leads_to_https and not address.is_secure:
        return SiteFacts(fault=f"{address} leads to HTTPS, so look there: --url {address._replace(scheme='https')}")
    return SiteFacts(
        tls=tls,
        health=fetch(address, "/healthz").status,
        ready=fetch(address, "/readyz").status,
        page=page.status,
        plain=follow_plain_http(address) if address.is_secure else address.scheme,
        is_loop=leads_to_https and page.location.endswith(PAGE),
        wrong_headers=tuple(name for name, value in CHECKED_HEADERS.items() if page.headers.get(name) != value),
        hsts=page.headers.get("Strict-Transport-Security", ""),
        has_secure_cookies=has_secure_cookies(address),
        strange_host=fetch(address, PAGE, host=STRANGE_HOST).status,
        stream=time_stream(address),
    )


def read_certificate(address: Address) -> str:
    """Shake hands, and say how; a certificate that a browser would refuse is refused here."""
    context = ssl.create_default_context()
    with (
        socket.create_connection((address.host, address.port or 443), timeout=SECONDS) as plain,
        context.wrap_socket(plain, server_hostname=address.host) as secure,
    ):
        certificate = secure.getpeercert() or {}
        return f"{secure.version()}, certificate valid until {certificate.get('notAfter', '?')}"


@contextmanager
def connect(address: Address) -> Iterator[http.client.HTTPConnection]:
    make = http.client.HTTPSConnection if address.is_secure else http.client.HTTPConnection
    connection = make(address.host, address.port, timeout=SECONDS)
    try:
        yield connection
    finally:
        connection.close()


def fetch(address: Address, path: str, host: str = "", form: dict[str, str] | None = None) -> Answer:
    headers = {"Accept": "text/html", "User-Agent": "oppman.py check"} | ({"Host": host} if host else {})
    body = None
    if form is not None:
        body, headers["Content-Type"] = urlencode(form), "application/x-www-form-urlencoded"
    with connect(address) as connection:
        connection.request("GET" if form is None else "POST", path, body, headers)
        response = connection.getresponse()
        return Answer(response.status, response.headers)


def follow_plain_http(address: Address) -> str:
    try:
        answer = fetch(Address("http", address.host, HTTP_PORT), PAGE)
    except (OSError, http.client.HTTPException):
        return ""
    return urlsplit(answer.location).scheme if answer.status in REDIRECTS else "http"


def has_secure_cookies(address: Address) -> bool:
    """Choose a theme: that is the one cookie that somebody gets who is not signed in."""
    cookies = fetch(address, "/theme", form={"theme": "dark"}).headers.get_all("Set-Cookie", [])
    return bool(cookies) and all("; secure" in cookie.lower() for cookie in cookies)


def time_stream(address: Address) -> Stream:
    """Read the probe as a browser reads an answer, compression and all, and note when something comes."""
    with connect(address) as connection:
        begun = time.monotonic()
        connection.request("GET", STREAM_PATH, headers={"Accept": EVENTS, "Accept-Encoding": "gzip"})
        response = connection.getresponse()
        arrivals = []
        while response.read1(65_536):
            arrivals.append(time.monotonic() - begun)
    if response.status != 200 or EVENTS not in response.headers.get("Content-Type", ""):
        return Stream(response.status if response.status != 200 else 404)
    return Stream(200, arrivals[0], arrivals[-1]) if arrivals else Stream(502)
