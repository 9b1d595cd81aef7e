"""A real Chromium. Any console error, failed script or breach of the content security policy fails the test."""

import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import Site
from tests.services import miss

if TYPE_CHECKING:
    from playwright.async_api import Browser, BrowserContext, Page

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}

OpenPage = Callable[..., Awaitable["Page"]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/browser" in item.nodeid:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
async def chromium() -> AsyncIterator["Browser"]:
    playwright = pytest.importorskip("playwright.async_api", reason="Browser tests: uv run --group browser pytest")
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        miss("Browser tests need Chromium: apt-get install chromium, or set CHROMIUM to its path")
    # Root in a container cannot use Chromium's sandbox.
    options = ["--no-sandbox"] if os.geteuid() == 0 else []
    async with playwright.async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=path, args=options)
        yield browser
        await browser.close()


@pytest.fixture
async def open_page(chromium: "Browser") -> AsyncIterator[OpenPage]:
    """Opens a window: `await open_page(site, "ada", **PHONE)`, signed in where a name is given."""
    problems: list[str] = []
    contexts: list[BrowserContext] = []

    async def open_page(
        site: Site, name: str | None = None, *, expects: tuple[str, ...] = (), **options: Any
    ) -> "Page":
        context = await chromium.new_context(
            **{"base_url": site.url, "viewport": {"width": 1280, "height": 800}, "reduced_motion": "reduce", **options}
        )
        contexts.append(context)
        if name:
            person = await site.person(name, is_staff=name == "grace", is_superuser=name == "grace")
            cookie = {"name": "session", "value": person.browser.cookies["session"], "url": site.url}
            await context.add_cookies([cookie])  # type: ignore[list-item]

        def note(text: str) -> None:
            if not any(expected in text for expected in expects):
                problems.append(text)

        page = await context.new_page()
        page.on("console", lambda message: note(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: note(str(error)))
        return page

    yield open_page
    for context in contexts:
        await context.close()
    assert not problems
