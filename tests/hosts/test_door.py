"""What the door of such a host does to requests and answers: it keeps them back, cuts them, and speaks for others."""

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx2
import pytest

from tests.browser.conftest import OpenPage
from tests.browser.test_chat import expect, send
from tests.conftest import PASSWORD
from tests.hosts.conftest import add_person
from tests.hosts.gateway import Gateway
from tests.hosts.reading import read_to_the_end, start_reading

if TYPE_CHECKING:
    from playwright.async_api import Page

pytestmark = pytest.mark.anyio

WORDS = 400  # of four characters, 40 a second: longer than a page waits for a sign of life
QUESTION = f'SCRIPT: answer {{"count": {WORDS}, "rate": 40}}'
WHOLE = "".join(f"{number:03d} " for number in range(WORDS)).strip()


async def sign_in(page: "Page") -> None:
    await page.goto("/login")
    await page.get_by_label("E-mail").fill("ada@example.org")
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Sign in").click()
    await page.wait_for_url(re.compile("/chat"))


async def check_that_all_of_it_comes(open_page: OpenPage, gateway: Gateway, longest: int = 5 << 20) -> None:
    """In a real browser: the whole answer, once, and nothing that still turns."""
    page = await open_page(gateway, expects=("Failed to load resource", "net::ERR"))
    await sign_in(page)
    gateway.response_length = longest
    await send(page, QUESTION)
    await expect(page.get_by_role("button", name="Copy answer")).to_be_visible(timeout=60_000)
    await expect(page.locator(".reply .answer")).to_have_text(WHOLE)
    await expect(page.get_by_role("button", name="Stop the answer")).to_be_hidden()
    await expect(page.locator("[aria-busy=true]")).to_have_count(0)
    await expect(page.locator("[data-chat-problem]")).to_be_hidden()
    gateway.response_length = 5 << 20
    await page.reload()
    await expect(page.locator(".reply .answer")).to_have_text(WHOLE)
    await expect(page.locator(".message")).to_have_count(2)


@pytest.mark.usefixtures("token")
async def test_l08_a_door_that_keeps_streams_back_ends_with_the_whole_answer(
    gateway: Gateway, open_page: OpenPage
) -> None:
    gateway.keeps_back = True
    await check_that_all_of_it_comes(open_page, gateway)


async def test_l09_a_response_that_is_cut_goes_on(
    gateway: Gateway, ada: httpx2.AsyncClient, open_page: OpenPage
) -> None:
    reading = await start_reading(ada, count=WORDS, rate=40)
    gateway.response_length = 3_000
    end = await read_to_the_end(ada, reading)
    assert end["status"] == "done" and end["text"].strip() == WHOLE
    assert gateway.cuts > 1
    gateway.response_length, gateway.cuts = 5 << 20, 0
    await check_that_all_of_it_comes(open_page, gateway, longest=8_000)
    assert gateway.cuts


async def test_l10_a_request_that_lasts_too_long_goes_on(
    gateway: Gateway, ada: httpx2.AsyncClient, open_page: OpenPage
) -> None:
    gateway.request_seconds = 5
    reading = await start_reading(ada, count=WORDS, rate=40)
    end = await read_to_the_end(ada, reading)
    assert end["status"] == "done" and end["text"].strip() == WHOLE
    await check_that_all_of_it_comes(open_page, gateway)
    assert gateway.cuts >= 2


async def test_l13_a_body_that_is_too_large_gets_our_own_page(gateway: Gateway, ada: httpx2.AsyncClient) -> None:
    page = await ada.post("/chat", data={"text": "x" * 6_000_000}, headers={"Accept": "text/html"})
    assert page.status_code == 413
    assert "That is more than this site takes. Send less." in page.text and "<nav" in page.text
    assert (await ada.get("/chat")).status_code == 200


@pytest.mark.usefixtures("token")
async def test_l14_addresses_say_https_and_cookies_are_secure(gateway: Gateway, database_url: str) -> None:
    await add_person(database_url, "grace", is_staff=True, is_superuser=True)
    host = urlsplit(gateway.url).netloc
    async with httpx2.AsyncClient(base_url=gateway.url, timeout=30, headers={"Accept": "text/html"}) as grace:
        moved = await grace.get("/login/")
        assert moved.headers["location"] == f"https://{host}/login"
        signed_in = await grace.post("/login", data={"email": "grace@example.org", "password": PASSWORD})
        cookie = signed_in.headers["set-cookie"]
        assert cookie.startswith("__Host-session=") and "; Secure" in cookie and "HttpOnly" in cookie
        grace.headers["Cookie"] = cookie.split(";")[0]
        for path in ("/", "/chat", "/settings", "/admin", "/admin/", "/admin/user/list"):
            response = await grace.get(path)
            assert "http://" not in response.headers.get("location", "")
            assert f"http://{host}" not in response.text
