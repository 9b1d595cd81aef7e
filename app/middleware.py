"""What stands around every request: what proxies say of it, the host check, the check of who sends forms, headers."""

import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import URL, Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import respond
from app.headers import SECURITY_HEADERS
from app.schema import CatchUp

MIGRATING = "The site's database is being brought up to date. Try again in a moment."
NOT_MIGRATED = (
    "The site's database could not be brought up to date, and nothing in it has changed. "
    "Its owner finds the reason in the log."
)
SAFE_METHODS = ("GET", "HEAD", "OPTIONS", "TRACE")


class ProxyHeaders:
    """Takes the visitor's address, the scheme and the host from trusted proxies, whose own addresses nobody knows.

    Each proxy adds at the right end, and what a client makes up stands at the left: so one counts from the right.
    """

    def __init__(self, app: ASGIApp, hops: int) -> None:
        self.app = app
        self.hops = hops

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(self.correct(scope) if scope["type"] == "http" else scope, receive, send)

    def correct(self, scope: Scope) -> Scope:
        told = {
            name: self.find(scope, name) for name in (b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host")
        }
        address, scheme, host = told.values()
        changes: Scope = {}
        if address and is_address(address):
            changes["client"] = (address, 0)
        if scheme in ("http", "https"):
            changes["scheme"] = scheme
        if host:
            others = [header for header in scope["headers"] if header[0] != b"host"]
            changes["headers"] = [(b"host", host.encode("latin-1")), *others]
        return {**scope, **changes}

    def find(self, scope: Scope, name: bytes) -> str:
        """Give what the outermost trusted proxy added; where fewer entries came than there are proxies, the first."""
        joined = b",".join(value for key, value in scope["headers"] if key == name).decode("latin-1")
        entries = [entry.strip() for entry in joined.split(",") if entry.strip()]
        return entries[-min(self.hops, len(entries))] if entries else ""


class SecurityHeaders:
    """Puts the headers on every answer that does not bring its own; the one about HTTPS counts over HTTPS only."""

    def __init__(self, app: ASGIApp, hsts: str = "") -> None:
        self.app = app
        self.secure_headers = SECURITY_HEADERS | ({"Strict-Transport-Security": hsts} if hsts else {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        more = self.secure_headers if scope.get("scheme") == "https" else SECURITY_HEADERS

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in more.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, send_with_headers if scope["type"] == "http" else send)


class HostCheck:
    """Refuses requests for names that are not ours. Health probes come by address, so they pass."""

    def __init__(self, app: ASGIApp, allowed: list[str], is_production: bool, exempt: frozenset[str]) -> None:
        self.app = app
        self.allowed = allowed
        self.is_production = is_production
        self.exempt = exempt

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (
            scope["type"] != "http"
            or scope["path"] in self.exempt
            or self.is_ours(Headers(scope=scope).get("host", ""))
        ):
            await self.app(scope, receive, send)
            return
        sentence = "This site does not go by that name. Its owner can add it to ALLOWED_HOSTS."
        await PlainTextResponse(sentence, 400)(scope, receive, send)

    def is_ours(self, host: str) -> bool:
        name = read_host_name(host)
        if name is None:
            return False
        if self.allowed:
            return any(
                name == ours or ours == "*" or (ours[0] == "." and f".{name}".endswith(ours)) for ours in self.allowed
            )
        return self.is_production or name == "localhost" or name.endswith(".localhost") or is_address(name)


class HttpsRedirect:
    """Sends who comes by plain HTTP to HTTPS. Stands behind the host check, so it leads to no other site."""

    def __init__(self, app: ASGIApp, exempt: frozenset[str]) -> None:
        self.app = app
        self.exempt = exempt

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["scheme"] == "https" or scope["path"] in self.exempt:
            await self.app(scope, receive, send)
            return
        url = URL(scope=scope).replace(scheme="https")
        # 308: a form is sent again as a form.
        await RedirectResponse(url.replace(port=None) if url.port == 80 else url, 308)(scope, receive, send)


def read_host_name(host: str) -> str | None:
    """Give the name in a Host header without its port, in lower case; None where it is malformed."""
    try:
        parts = urlsplit(f"//{host}")
        parts.port  # noqa: B018 (raises for a port that is none)
    except ValueError:
        return None
    return parts.hostname if parts.netloc == host and "@" not in host and not set(host) & set(" \t/\\?#") else None


def is_address(name: str) -> bool:
    """Whether the host is a bare IP address: a rebinding attack needs a name, so these are safe on a laptop."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class MigrationGate:
    """Holds requests back while MIGRATE_ON_START brings the database up to date. Health probes and styles pass."""

    def __init__(self, app: ASGIApp, catch_up: CatchUp, exempt: frozenset[str]) -> None:
        self.app = app
        self.catch_up = catch_up
        self.exempt = exempt

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        passes = scope["type"] != "http" or scope["path"] in self.exempt or scope["path"].startswith("/static/")
        if self.catch_up.is_done or passes or await self.catch_up.wait():
            await self.app(scope, receive, send)
            return
        sentence, seconds = (NOT_MIGRATED, "60") if self.catch_up.has_failed else (MIGRATING, "5")
        await respond(Request(scope), 503, sentence, {"Retry-After": seconds})(scope, receive, send)


class BodyLimit:
    """Reads no more of a request than it may have, whatever it says of its length; who reads on gets a 413 page.

    A route that takes more says so, after it has asked who is there: `request.state.body_length = ...`.
    """

    def __init__(self, app: ASGIApp, length: int) -> None:
        self.app = app
        self.length = length

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state["body_length"] = self.length
        claimed = Headers(scope=scope).get("content-length", "")
        expected, received = int(claimed) if claimed.isdecimal() else 0, 0

        async def receive_within_limit() -> Message:
            nonlocal received
            if expected > state["body_length"]:
                raise HTTPException(413)
            message = await receive()
            received += len(message.get("body", b""))
            if received > state["body_length"]:
                raise HTTPException(413)
            return message

        await self.app(scope, receive_within_limit, send)


class SameOrigin:
    """Refuses forms and scripts of other sites (CSRF), in the way of Go's CrossOriginProtection: no hidden field.

    Every browser says where an unsafe request comes from, in Sec-Fetch-Site, or in Origin where it is old. What says
    neither is no browser, so nobody's cookie is being abused. sqladmin's actions change things by GET, so they count.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and is_unsafe(scope) and not is_same_origin(scope):
            sentence = "This came from another site, so it was not done. Open the page here and try again."
            await respond(Request(scope), 403, sentence)(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def is_unsafe(scope: Scope) -> bool:
    path: str = scope["path"]
    return scope["method"] not in SAFE_METHODS or ("/admin/" in path and "/action/" in path)


def is_same_origin(scope: Scope) -> bool:
    headers = Headers(scope=scope)
    site = headers.get("sec-fetch-site")
    if site:
        return site in ("same-origin", "none")
    sender = headers.get("origin") or headers.get("referer")
    try:
        return sender is None or urlsplit(sender).netloc == headers.get("host")
    except ValueError:
        return False
