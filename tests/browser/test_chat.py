"""The chat in a browser: streaming, stop, reload, cuts, keyboard, phone, and without JavaScript."""

import asyncio
import re
from typing import TYPE_CHECKING

import pytest

from app.llm.base import LLMError
from app.llm.scripted import ScriptedModel
from tests.browser.conftest import PHONE, OpenPage
from tests.conftest import MakeSite, Site
from tests.faults.gateway import keeping_back

if TYPE_CHECKING:
    from playwright.async_api import Locator, Page

pytestmark = pytest.mark.anyio

ANSWER = (
    "Here is a **retry helper**.\n\n## The idea\n\n1. Try.\n2. Wait.\n\n",
    "```python\nimport asyncio\n\nawait asyncio.sleep(1)\n```\n\n| Error | Retry? |\n| --- | --- |\n| 429 | yes |\n\n",
    "That is all.",
)


def expect(locator: "Locator | Page"):  # type: ignore[no-untyped-def]
    from playwright.async_api import expect

    return expect(locator)


async def send(page: "Page", text: str = "How do I retry?") -> None:
    await page.get_by_label("Message", exact=True).fill(text)
    await page.keyboard.press("Enter")


async def test_an_answer_streams_is_announced_and_stays(make_site: MakeSite, open_page: OpenPage) -> None:
    gates = [asyncio.Event(), asyncio.Event()]
    site: Site = await make_site(ScriptedModel(ANSWER[0], gates[0], ANSWER[1], gates[1], ANSWER[2]))
    page = await open_page(site, "ada")
    await page.goto("/chat")
    await send(page)
    reply = page.locator(".reply").last
    await expect(reply.get_by_role("heading", name="The idea")).to_be_visible()
    await expect(reply).to_have_attribute("aria-busy", "true")
    await expect(page.get_by_role("button", name="Stop the answer")).to_be_visible()
    await expect(page.locator("h1")).to_have_text("How do I retry?")
    await expect(page).to_have_url(re.compile(r"/chat/[0-9a-f-]{36}$"))
    gates[0].set()
    await expect(reply.locator("td").first).to_have_text("429")
    gates[1].set()
    await expect(reply.get_by_role("button", name="Copy answer")).to_be_visible()
    await expect(reply.locator(".kn").first).to_have_text("import")
    await expect(page.locator("[role=status]")).to_contain_text("Answer complete. Here is a")
    await expect(page.get_by_label("Message", exact=True)).to_be_focused()
    streamed = await reply.locator(".answer").inner_html()
    await page.reload()
    assert await page.locator(".reply .answer").last.inner_html() == streamed
    await expect(page.get_by_role("list", name="Recent").get_by_role("link", name="How do I retry?")).to_be_visible()


async def test_escape_stops_and_the_text_stays(make_site: MakeSite, open_page: OpenPage) -> None:
    site: Site = await make_site(ScriptedModel("Only this. ", asyncio.Event(), "Not that."))
    page = await open_page(site, "ada")
    await page.goto("/chat")
    await send(page)
    await page.locator(".answer", has_text="Only this.").wait_for()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("button", name="Send message")).to_be_visible()
    await expect(page.get_by_text("You stopped this answer.")).to_be_visible()
    await expect(page.locator(".answer", has_text="Only this.")).to_be_visible()


async def test_a_reload_in_mid_answer_goes_on(make_site: MakeSite, open_page: OpenPage) -> None:
    gate = asyncio.Event()
    site: Site = await make_site(ScriptedModel(ANSWER[0], gate, *ANSWER[1:]))
    page = await open_page(site, "ada")
    await page.goto("/chat")
    await send(page)
    await page.locator(".answer", has_text="retry helper").wait_for()
    await page.reload()
    await expect(page.locator(".answer", has_text="retry helper")).to_be_visible()
    gate.set()
    await expect(page.locator(".answer", has_text="That is all.")).to_be_visible()
    await expect(page.get_by_role("button", name="Copy answer")).to_be_visible()
    assert await page.locator(".answer", has_text="retry helper").count() == 1


async def test_a_second_tab_follows(make_site: MakeSite, open_page: OpenPage) -> None:
    gate = asyncio.Event()
    site: Site = await make_site(ScriptedModel("First. ", gate, "Second."))
    page = await open_page(site, "ada")
    await page.goto("/chat")
    await send(page)
    await page.locator(".answer", has_text="First.").wait_for()
    other = await page.context.new_page()
    await other.goto(page.url)
    gate.set()
    for tab in (page, other):
        await expect(tab.locator(".reply .answer")).to_have_text(re.compile(r"First\. Second\.\s*"))
        await expect(tab.get_by_role("button", name="Copy answer")).to_be_visible()


async def test_a_tab_that_was_open_before_shows_what_another_one_asked(
    make_site: MakeSite, open_page: OpenPage
) -> None:
    gate = asyncio.Event()
    site: Site = await make_site(ScriptedModel("First. ", gate, "Second."))
    page = await open_page(site, "ada")
    await page.goto("/chat")
    gate.set()
    await send(page, "One?")
    await expect(page.get_by_role("button", name="Copy answer")).to_be_visible()
    other = await page.context.new_page()
    await other.goto(page.url)
    gate.clear()
    await send(page, "Two?")
    await other.locator(".question", has_text="Two?").wait_for()
    await expect(other.locator(".reply .answer").last).to_have_text("First.")
    gate.set()
    for tab in (page, other):
        await expect(tab.locator(".reply .answer").last).to_have_text("First. Second.")
        await expect(tab.get_by_role("button", name="Copy answer")).to_have_count(2)


async def test_a_cut_connection_mends_itself(make_site: MakeSite, open_page: OpenPage) -> None:
    gate = asyncio.Event()
    site: Site = await make_site(ScriptedModel("Before. ", gate, "After."))
    page = await open_page(site, "ada", expects=("ERR_INTERNET_DISCONNECTED", "ERR_FAILED", "net::"))
    await page.goto("/chat")
    await send(page)
    await page.locator(".answer", has_text="Before.").wait_for()
    await page.context.set_offline(True)
    gate.set()
    await page.context.set_offline(False)
    await expect(page.locator(".answer", has_text="After.")).to_be_visible(timeout=15_000)
    await expect(page.get_by_role("button", name="Copy answer")).to_be_visible()


@pytest.mark.slow
async def test_f37_a_gateway_that_keeps_streams_back_is_asked_again_and_again(
    make_site: MakeSite, open_page: OpenPage
) -> None:
    gate = asyncio.Event()
    site: Site = await make_site(ScriptedModel("First. ", gate, "Second."))
    async with keeping_back(site.url) as url:
        page = await open_page(site, "ada", base_url=url)
        await page.goto("/chat")
        await send(page)
        await expect(page.locator(".reply .answer")).to_have_text("First.", timeout=15_000)
        gate.set()
        await expect(page.locator(".reply .answer")).to_have_text("First. Second.")
        await expect(page.get_by_role("button", name="Copy answer")).to_be_visible()
        await expect(page.locator(".message")).to_have_count(2)
        await page.reload()
        await expect(page.locator(".message")).to_have_count(2)


async def test_a_failed_answer_can_be_tried_again(make_site: MakeSite, open_page: OpenPage) -> None:
    error = LLMError("The model took too long. Try again.", code="timeout")
    model = ScriptedModel("Some text. ", error=error)
    site: Site = await make_site(model)
    page = await open_page(site, "ada")
    await page.goto("/chat")
    await send(page)
    await expect(page.locator(".tools", has_text="The model took too long.")).to_be_visible()
    model._error = None
    await page.get_by_role("button", name="Try again").click()
    await expect(page.get_by_role("button", name="Copy answer")).to_be_visible()
    await expect(page.locator(".reply > .tools .alert")).to_have_count(0)
    await expect(page.get_by_text("Earlier answer")).to_be_visible()


async def test_a_stopped_answer_goes_on(make_site: MakeSite, open_page: OpenPage) -> None:
    model = ScriptedModel("First half, ", asyncio.Event())
    page = await open_page(await make_site(model), "ada")
    await page.goto("/chat")
    await send(page)
    await page.locator(".answer", has_text="First half,").wait_for()
    await page.keyboard.press("Escape")
    await page.get_by_role("button", name="Continue").wait_for()
    model._pieces = ("second half.",)
    await page.get_by_role("button", name="Continue").click()
    await expect(page.locator(".reply .answer")).to_have_text(re.compile(r"First half, second half\.\s*"))
    await expect(page.get_by_role("button", name="Copy answer")).to_be_visible()
    await expect(page.locator(".reply .alert")).to_have_count(0)


async def test_a_refused_message_stays_in_the_box(site: Site, open_page: OpenPage) -> None:
    page = await open_page(site, "ada", expects=("422",))
    await page.goto("/chat")
    await page.get_by_label("Message", exact=True).fill("x" * 32_001)
    await page.get_by_role("button", name="Send message").click()
    await expect(page.get_by_role("alert")).to_contain_text("at most 32,000")
    assert len(await page.get_by_label("Message", exact=True).input_value()) == 32_001


async def test_shift_enter_starts_a_line(site: Site, open_page: OpenPage) -> None:
    page = await open_page(site, "ada")
    await page.goto("/chat")
    await page.get_by_label("Message", exact=True).fill("one")
    await page.keyboard.press("Shift+Enter")
    await page.keyboard.type("two")
    await expect(page.get_by_label("Message", exact=True)).to_have_value("one\ntwo")


async def test_conversations_are_renamed_and_deleted_after_a_question(site: Site, open_page: OpenPage) -> None:
    page = await open_page(site, "ada")
    await page.goto("/chat")
    await send(page, "A first title")
    await page.get_by_role("button", name="Copy answer").wait_for()
    await page.get_by_role("button", name=re.compile("^Rename or delete")).click()
    await page.locator(":popover-open").get_by_role("button", name="Rename").click()
    await page.get_by_role("dialog").get_by_label("Title").fill("Another title")
    await page.get_by_role("button", name="Save title").click()
    await expect(page.locator("h1")).to_have_text("Another title")
    await page.get_by_role("button", name=re.compile("^Rename or delete")).click()
    await page.locator(":popover-open").get_by_role("button", name="Delete").click()
    dialog = page.get_by_role("dialog")
    await expect(dialog).to_be_visible()
    await dialog.get_by_role("button", name=re.compile("Delete")).click()
    await expect(page).to_have_url(re.compile("/chat$"))
    await expect(page.get_by_text("Another title")).to_have_count(0)


async def test_without_javascript_the_page_reloads_itself(make_site: MakeSite, open_page: OpenPage) -> None:
    gate = asyncio.Event()
    site: Site = await make_site(ScriptedModel("Before. ", gate, "After."))
    page = await open_page(site, "ada", java_script_enabled=False)
    await page.goto("/chat")
    await page.get_by_label("Message", exact=True).fill("No script?")
    await page.get_by_role("button", name="Send message").click()
    await expect(page.locator(".answer", has_text="Before.")).to_be_visible()
    await expect(page.get_by_role("button", name="Stop the answer")).to_be_visible()
    gate.set()
    await expect(page.locator(".answer", has_text="After.")).to_be_visible(timeout=10_000)
    await expect(page.get_by_role("button", name="Write this answer again")).to_be_visible()


async def test_on_a_phone_the_list_opens_as_a_drawer(site: Site, open_page: OpenPage) -> None:
    page = await open_page(site, "ada", **PHONE)
    await page.goto("/chat")
    await page.get_by_label("Message", exact=True).fill("On the phone")
    await page.get_by_role("button", name="Send message").tap()
    await page.get_by_role("button", name="Copy answer").wait_for()
    link = page.get_by_role("link", name="On the phone")
    await expect(link).to_be_hidden()
    await page.get_by_role("button", name="Open conversations").tap()
    await expect(link).to_be_visible()


async def test_a_hostile_answer_runs_nothing(make_site: MakeSite, open_page: OpenPage) -> None:
    hostile = (
        "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>",
        "\n\n[click](javascript:window.hacked=1) ![p](https://evil.example/p.png)\n\n",
        "```<img src=x onerror=alert(1)>\n</code><script>window.hacked = 1</script>\n```\n",
    )
    site: Site = await make_site(ScriptedModel(*(char for part in hostile for char in part), delay=0.001))
    page = await open_page(site, "ada")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await page.goto("/chat")
    await send(page)
    await page.get_by_role("button", name="Copy answer").wait_for()
    await page.reload()
    await page.get_by_role("button", name="Copy answer").wait_for()
    assert await page.evaluate("window.hacked") is None
    assert not [url for url in asked if not url.startswith(site.url)]
    assert await page.locator(".answer :is(script, img, iframe)").count() == 0
