"""What stands around every request: hosts, other sites' forms, headers, health."""

import asyncio
import html
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from app.headers import SECURITY_HEADERS
from app.main import ROUTERS
from app.middleware import ProxyHeaders, read_host_name
from app.pages.health import ALIVE_PATHS, HEALTH_PATHS, PIECES, STREAM_PATH
from tests.conftest import MakeSite, Person, Site, over_https, serve

pytestmark = pytest.mark.anyio
KEY = "k3Jx9-vLq2Zr7_Tn5WbYc8Hd4Fs6GmPa1Ue0"


@pytest.mark.parametrize(
    "path", ["/", "/login", "/nope", "/healthz", "/static/app.css", "/api/v1/conversations", "/chat"]
)
async def test_every_answer_has_the_security_headers(site: Site, path: str) -> None:
    response = await (await site.visitor()).get(path)
    for name, value in SECURITY_HEADERS.items():
        assert response.headers[name] == value or name == "Cache-Control"
    assert "'unsafe" not in response.headers["content-security-policy"]


async def test_a_failure_shows_a_page_without_its_reason(site: Site) -> None:
    async def break_down() -> None:
        raise RuntimeError("secret detail")

    site.app.get("/break")(break_down)
    response = await (await site.visitor()).get("/break")
    assert response.status_code == 500
    assert "secret detail" not in response.text and "Traceback" not in response.text
    assert "Something went wrong" in response.text
    assert response.headers["content-security-policy"] == SECURITY_HEADERS["Content-Security-Policy"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Referer": "https://evil.example/x"},
        {"Origin": "http://["},
        {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"},
    ],
)
@pytest.mark.parametrize(
    "path", ["/login", "/logout", "/chat", "/api/v1/conversations", "/theme", "/admin/user/create"]
)
async def test_another_sites_form_is_refused(ada: Person, path: str, headers: dict[str, str]) -> None:
    response = await ada.post(path, data={"text": "x"}, headers=headers)
    assert response.status_code == 403
    assert "another site" in response.text
    assert (await ada.get("/chat")).status_code == 200


@pytest.mark.parametrize("site_header", ["same-origin", "none"])
async def test_our_own_forms_pass(ada: Person, site_header: str) -> None:
    headers = {"Sec-Fetch-Site": site_header, "Origin": str(ada.browser.base_url).rstrip("/")}
    assert (await ada.post("/settings/profile", data={"name": "x"}, headers=headers)).status_code == 303


async def test_every_unsafe_route_refuses_another_site(site: Site) -> None:
    """The list is the app's own, so that a new route is in it."""
    stranger = await site.visitor(**{"Sec-Fetch-Site": "cross-site"})
    unsafe = [
        (method, route.path)
        for router in ROUTERS
        for route in router.routes
        if isinstance(route, APIRoute)
        for method in (route.methods or set()) - {"GET", "HEAD"}
    ]
    assert len(unsafe) > 15
    for method, path in unsafe:
        assert (await stranger.request(method, path)).status_code == 403, (method, path)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8000", 200),
        ("127.0.0.1", 200),
        ("[::1]:80", 200),
        ("192.168.1.7:8000", 200),
        ("app.localhost", 200),
        ("evil.example", 400),
        ("localhost.evil.example", 400),
        ("", 400),
        ("localhost/x", 400),
        ("a@localhost", 400),
        ("localhost:x", 400),
    ],
)
async def test_in_development_only_this_machine_is_answered_for(site: Site, host: str, status: int) -> None:
    visitor = await site.visitor()
    assert (await visitor.get("/login", headers={"Host": host})).status_code == status
    assert (await visitor.get("/healthz", headers={"Host": host})).status_code == 200


async def test_allowed_hosts_are_the_only_ones(make_site: MakeSite) -> None:
    visitor = await (await make_site(allowed_hosts="chat.example.org, .example.net")).visitor()
    for host, status in {
        "chat.example.org": 200,
        "CHAT.example.org:443": 200,
        "a.example.net": 200,
        "example.net": 200,
        "example.org": 400,
        "localhost": 400,
    }.items():
        assert (await visitor.get("/login", headers={"Host": host})).status_code == status, host
    assert read_host_name("EXAMPLE.org:8000") == "example.org"


@pytest.mark.parametrize(
    ("hops", "sent", "seen"),
    [
        (
            0,
            {"X-Forwarded-For": "9.9.9.9", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "x.example"},
            "http 127.0.0.1",
        ),
        (1, {"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Proto": "https"}, "https 203.0.113.7 here"),
        (1, {"X-Forwarded-For": "9.9.9.9, 203.0.113.7"}, "http 203.0.113.7 here"),
        (2, {"X-Forwarded-For": "9.9.9.9,203.0.113.7 ,10.0.0.1"}, "http 203.0.113.7 here"),
        (2, {"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Proto": "https"}, "https 203.0.113.7 here"),
        (
            1,
            {"X-Forwarded-For": "9.9.9.9, 2001:db8::7", "X-Forwarded-Host": "localhost:1"},
            "http 2001:db8::7 localhost:1",
        ),
        (1, {"X-Forwarded-Host": "evil.localhost, ours.localhost"}, "http 127.0.0.1 ours.localhost"),
        (1, {"X-Forwarded-Proto": "https, http"}, "http 127.0.0.1 here"),
        (
            1,
            {"X-Forwarded-For": "unknown", "X-Forwarded-Proto": "gopher", "X-Forwarded-Host": ","},
            "http 127.0.0.1 here",
        ),
        (1, {"X-Forwarded-For": ", ,", "X-Forwarded-Proto": ","}, "http 127.0.0.1 here"),
    ],
)
async def test_proxies_are_believed_from_the_right(
    make_site: MakeSite, hops: int, sent: dict[str, str], seen: str
) -> None:
    site: Site = await make_site(trusted_proxy_hops=hops)

    async def tell(request: Request) -> PlainTextResponse:
        assert request.client
        return PlainTextResponse(f"{request.url.scheme} {request.client.host} {request.headers['host']}")

    site.app.router.routes.insert(0, Route("/tell", tell))
    answer = (await (await site.visitor()).get("/tell", headers=sent)).text
    assert answer.startswith(seen.replace("here", site.url.removeprefix("http://")))


async def test_a_host_that_a_proxy_names_is_checked_like_any(make_site: MakeSite) -> None:
    visitor = await (await make_site(trusted_proxy_hops=1, allowed_hosts="chat.example.org")).visitor()
    for host, status in {"chat.example.org": 200, "evil.example": 400, "a b": 400, "chat.example.org/x": 400}.items():
        assert (await visitor.get("/login", headers={"X-Forwarded-Host": host})).status_code == status, host


def test_a_forged_line_of_its_own_counts_as_the_first() -> None:
    """Some proxies add a second line instead of a comma."""
    find = ProxyHeaders(None, hops=1).find  # type: ignore[arg-type]
    headers = [(b"x-forwarded-for", b"9.9.9.9"), (b"x-forwarded-for", b"203.0.113.7")]
    assert find({"headers": headers}, b"x-forwarded-for") == "203.0.113.7"


async def test_health_needs_nothing(make_site: MakeSite) -> None:
    site: Site = await make_site(environment="production", secret_key=KEY, allowed_hosts="example.org")
    visitor = await site.visitor(Host="10.0.0.1")
    for path in ALIVE_PATHS:
        response = await visitor.get(path)
        assert (response.status_code, response.text) == (200, "ok")
        assert (await visitor.request("HEAD", path)).status_code == 200
    assert (await visitor.get("/readyz")).json() == {"status": "ready"}


async def test_browsers_are_told_to_stay_with_https_over_https_only(make_site: MakeSite) -> None:
    site: Site = await make_site(hsts_seconds=3600, hsts_include_subdomains=True, hsts_preload=True)
    assert "strict-transport-security" not in (await (await site.visitor()).get("/login")).headers
    async with serve(over_https(site.app)) as secure:
        response = await (await secure.visitor()).get("/login")
    assert response.headers["strict-transport-security"] == "max-age=3600; includeSubDomains; preload"
    async with serve(over_https((await make_site()).app)) as secure:
        assert "strict-transport-security" not in (await (await secure.visitor()).get("/login")).headers


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("example.org", "https://example.org/chat/all?q=a%20b&x=%2F"),
        ("example.org:80", "https://example.org/chat/all?q=a%20b&x=%2F"),
        ("example.org:8443", "https://example.org:8443/chat/all?q=a%20b&x=%2F"),
    ],
)
async def test_plain_http_is_sent_to_https(make_site: MakeSite, host: str, address: str) -> None:
    site: Site = await make_site(ssl_redirect=True, allowed_hosts="example.org")
    visitor = await site.visitor(Host=host)
    for method in ("GET", "POST"):
        response = await visitor.request(method, "/chat/all?q=a%20b&x=%2F")
        assert (response.status_code, response.headers["location"]) == (308, address)
    assert (await visitor.get("/login", headers={"Host": "evil.example"})).status_code == 400
    for path in HEALTH_PATHS:
        assert (await visitor.get(path)).status_code == 200
    async with serve(over_https(site.app)) as secure:
        assert (await (await secure.visitor(Host=host)).get("/login")).status_code == 200


async def test_the_probe_for_streams_comes_in_pieces(site: Site) -> None:
    visitor = await site.visitor(**{"Accept-Encoding": "gzip"})
    async with visitor.stream("GET", STREAM_PATH) as response:
        pieces = [piece async for piece in response.aiter_raw()]
    assert pieces == [f"data: {number}\n\n".encode() for number in range(PIECES)]
    assert response.headers["cache-control"] == "no-store, no-transform"
    assert response.headers["x-accel-buffering"] == "no"


async def test_the_probe_is_no_lever(site: Site) -> None:
    visitor = await site.visitor()
    answers = await asyncio.gather(*(visitor.get(STREAM_PATH) for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [200] * 4 + [503] * 16
    assert (await visitor.get(STREAM_PATH)).status_code == 200


async def test_the_cookie_of_the_theme_is_sent_over_https_only_once_it_came_there(site: Site) -> None:
    visitor = await site.visitor()
    assert "secure" not in (await visitor.post("/theme", data={"theme": "dark"})).headers["set-cookie"].lower()
    async with serve(over_https(site.app)) as secure:
        cookie = (await (await secure.visitor()).post("/theme", data={"theme": "dark"})).headers["set-cookie"]
    assert {"Secure", "HttpOnly", "SameSite=lax"} <= set(cookie.split("; "))


async def test_a_database_behind_the_code_is_not_ready(site: Site) -> None:
    from sqlalchemy import text

    async with site.session() as session:
        await session.exec(text("UPDATE alembic_version SET version_num = 'older'"))  # type: ignore[call-overload]
        await session.commit()
    response = await (await site.visitor()).get("/readyz")
    assert response.status_code == 503
    assert response.json()["found"] == "older"


async def test_missing_tables_are_a_sentence(site: Site, ada: Person) -> None:
    from sqlalchemy import text

    async with site.session() as session:
        for table in ("piece", "message", "conversation"):
            await session.exec(text(f"DROP TABLE {table}"))  # type: ignore[call-overload]
        await session.commit()
    response = await ada.get("/chat")
    assert response.status_code == 503
    assert "python oppman.py migrate" in html.unescape(response.text)


async def test_an_error_page_keeps_what_was_typed(ada: Person) -> None:
    gone = f"/chat/{uuid4()}/messages"
    page = (await ada.post(gone, data={"text": "Keep <b>me</b>"})).text
    assert "Keep &lt;b&gt;me&lt;/b&gt;</textarea>" in page
    assert "<textarea" not in (await ada.post(gone)).text


async def test_readiness_waits_for_no_writer(site: Site) -> None:
    visitor = await site.visitor()
    async with site.session() as writer:
        await writer.connection()
        async with asyncio.timeout(2):
            assert (await visitor.get("/readyz")).status_code == 200


async def test_a_body_that_is_too_large_is_not_read(ada: Person) -> None:
    page = await ada.post("/chat", data={"text": "x" * 1_100_000})
    assert page.status_code == 413 and "Send less." in page.text and "<nav" in page.text
    problem = await ada.post("/api/v1/conversations", content=b" " * 1_100_000)
    assert problem.status_code == 413 and "Send less." in problem.json()["detail"]


async def test_a_body_that_does_not_say_its_length_is_limited_as_well(ada: Person) -> None:
    async def write() -> AsyncIterator[bytes]:
        for _ in range(11):
            yield b" " * 100_000

    assert (await ada.post("/api/v1/conversations", content=write())).status_code == 413


async def test_static_files_are_kept_for_ever_under_their_hash(site: Site) -> None:
    visitor = await site.visitor()
    page = (await visitor.get("/login")).text
    path = next(part for part in page.split('"') if part.startswith("/static/app.") and part.endswith(".css"))
    response = await visitor.get(path)
    assert "immutable" in response.headers["cache-control"]
    assert response.headers["content-encoding"] == "gzip"
    assert (await visitor.get("/static/app.css")).headers["cache-control"] == "no-cache"
    for bad in (
        "/static/../app/settings.py",
        "/static/%2e%2e/.env.example",
        "/static/",
        "/static/none.css",
        "/static/%2e/app.css",
        "/static//app.css",
        "/static/fonts/%2e%2e/app.css",
        "/static/%00",
    ):
        assert (await visitor.get(bad)).status_code == 404, bad


async def test_the_theme_is_remembered_without_javascript(site: Site) -> None:
    visitor = await site.visitor()
    response = await visitor.post("/theme", data={"theme": "dark", "next": "/login"})
    assert response.headers["location"] == "/login"
    assert 'data-theme="dark"' in (await visitor.get("/login")).text
    await visitor.post("/theme", data={"theme": "auto"})
    assert "data-theme=" not in (await visitor.get("/login")).text.split("<head")[0]
