"""Every page, light and dark: accessible by axe's rules, nothing sticking out on a small phone, no errors."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from app.llm.scripted import ScriptedModel
from tests.browser.conftest import OpenPage
from tests.browser.test_chat import ANSWER, expect, send
from tests.conftest import MakeSite, Site
from tests.files.pictures import draw

if TYPE_CHECKING:
    from playwright.async_api import Page

pytestmark = pytest.mark.anyio

TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
PUBLIC = ["/", "/login", "/register", "/styleguide", "/nowhere"]
PRIVATE = ["/chat", "/chat/all", "/settings"]


async def check(page: "Page") -> None:
    from axe_playwright_python.async_playwright import Axe

    found = await Axe().run(page, options={"runOnly": {"type": "tag", "values": TAGS}})
    assert found.response["violations"] == [], found.generate_report()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_pages_are_accessible(make_site: MakeSite, open_page: OpenPage, scheme: str) -> None:
    site: Site = await make_site(ScriptedModel(*ANSWER), uploads="")  # with the form for a picture
    for name, paths in ((None, PUBLIC), ("ada", PRIVATE)):
        page = await open_page(site, name, color_scheme=scheme, expects=("404",))
        for path in paths:
            await page.goto(path)
            await check(page)
    await page.goto("/chat")
    await send(page)
    await page.get_by_role("button", name="Copy answer").wait_for()
    await check(page)


async def test_nothing_sticks_out_on_the_smallest_phone(make_site: MakeSite, open_page: OpenPage) -> None:
    site: Site = await make_site(
        ScriptedModel(*ANSWER, "\n\n" + "x" * 300 + "\n\n| " + "wide | " * 40 + "\n" + "| --- " * 40 + "|\n"),
        uploads="",
    )
    for name, paths in ((None, PUBLIC), ("ada", PRIVATE)):
        page = await open_page(site, name, viewport={"width": 320, "height": 640}, expects=("404",))
        for path in paths:
            await page.goto(path)
            assert await page.evaluate("document.documentElement.scrollWidth") <= 320, path
    await page.goto("/chat")
    await page.get_by_label("Message", exact=True).fill("y" * 200)
    await page.get_by_role("button", name="Send message").click()
    await page.get_by_role("button", name="Copy answer").wait_for()
    assert await page.evaluate("document.documentElement.scrollWidth") <= 320


async def test_a_picture_is_put_and_removed_without_a_script(
    make_site: MakeSite, open_page: OpenPage, tmp_path: Path
) -> None:
    site: Site = await make_site(uploads=str(tmp_path / "uploads"))
    page = await open_page(site, "ada", java_script_enabled=False, expects=("413", "422"))
    (tmp_path / "me.jpg").write_bytes(draw("JPEG"))
    (tmp_path / "film.jpg").write_bytes(draw("JPEG").ljust(40_000_000, b"\0"))
    await page.goto("/settings")
    for name, said in (("film.jpg", "larger than 10 MB"), ("me.jpg", "Your picture is saved.")):
        await page.get_by_label("New picture").set_input_files(tmp_path / name)
        await page.get_by_role("button", name="Save picture").click()
        await expect(page.locator("main")).to_contain_text(said)
    for image in await page.locator("img.avatar").all():
        await expect(image).to_have_js_property("naturalWidth", 256)
    await page.get_by_role("button", name="Remove picture").click()
    await expect(page.locator("img.avatar")).to_have_count(0)


async def test_the_first_tab_leads_to_the_content(site: Site, open_page: OpenPage) -> None:
    page = await open_page(site)
    await page.goto("/")
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to content")).to_be_focused()


async def test_the_theme_is_chosen_and_stays(site: Site, open_page: OpenPage) -> None:
    page = await open_page(site)
    await page.goto("/")
    await page.get_by_role("button", name="Colour theme").click()
    await page.get_by_role("button", name="Dark").click()
    await expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    await page.goto("/login")
    await expect(page.locator("html")).to_have_attribute("data-theme", "dark")


async def test_the_first_visit_of_the_chat_is_light_and_the_second_lighter(site: Site, open_page: OpenPage) -> None:
    page = await open_page(site, "ada")
    network = await page.context.new_cdp_session(page)
    await network.send("Network.enable")
    received: list[float] = []
    network.on("Network.loadingFinished", lambda event: received.append(event["encodedDataLength"]))
    await page.goto("/chat", wait_until="networkidle")
    first = sum(received)
    received.clear()
    await page.goto("/chat", wait_until="networkidle")
    assert first <= 70_000, first
    assert sum(received) <= 15_000, sum(received)


async def test_somebody_signs_up_chats_and_signs_out(site: Site, open_page: OpenPage) -> None:
    page = await open_page(site, expects=("422",))
    await page.goto("/register")
    await page.get_by_label("E-mail").fill("new@example.org")
    await page.get_by_label("Password", exact=True).fill("short")
    await page.get_by_role("button", name="Create account").click()
    await expect(page.get_by_text("Use at least 8 characters.")).to_be_visible()
    await page.get_by_label("Password", exact=True).fill("correct horse 1843")
    await page.get_by_role("button", name="Create account").click()
    await page.wait_for_url("/chat")  # with its scripts: before them, Enter would only begin a new line
    await send(page, "Who am I?")
    await page.get_by_role("button", name="Copy answer").wait_for()
    await page.get_by_role("button", name="Your account: ").click()
    await page.get_by_role("button", name="Sign out").click()
    await page.goto("/chat")
    await expect(page.get_by_role("heading", level=1)).to_contain_text("Sign in")
