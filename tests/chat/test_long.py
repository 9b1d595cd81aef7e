"""Long conversations and long messages: pages stay small, nothing is lost between them, and a model gets what fits."""

import re
from collections.abc import Sequence
from uuid import UUID, uuid4

import pytest
from sqlalchemy import event, insert

from app.chat.models import BEGINNING_LENGTH, WHOLE_LENGTH, Conversation, Message
from app.chat.service import PAGE_LENGTH, PAGE_SIZE
from app.llm.scripted import ScriptedModel
from tests.chat.reading import JSON, ask
from tests.conftest import MakeSite, Person, Site

pytestmark = pytest.mark.anyio

OLDER = re.compile(r'class="[^"]*\bolder\b[^"]*" href="([^"]+)"')
NUMBER = re.compile(r"Number (\d+)\.")


async def seed(site: Site, person: Person, texts: Sequence[str]) -> str:
    """Make a conversation of questions and answers by turns, and give its address."""
    conversation = Conversation(owner_id=person.user.id, title="Long")
    question_id: UUID | None = None
    rows = []
    for position, text in enumerate(texts):
        message_id = uuid4()
        is_answer = position % 2 == 1
        row = {"id": message_id, "conversation_id": conversation.id, "position": position, "text": text}
        role = {"role": "assistant", "question_id": question_id} if is_answer else {"role": "user", "question_id": None}
        rows.append(row | role | {"status": "done", "sequence": len(text) if is_answer else 0})
        question_id = message_id
    async with site.session() as session:
        session.add(conversation)
        await session.flush()
        await (await session.connection()).execute(insert(Message), rows)
        await session.commit()
    return f"/chat/{conversation.id}"


async def read_back(person: Person, url: str) -> list[str]:
    """Follow «Earlier messages» from the newest page to the oldest."""
    pages = [(await person.get(url)).text]
    while older := OLDER.search(pages[-1]):
        pages.append((await person.get(older[1])).text)
    return pages


def numbers_on(page: str) -> list[int]:
    return [int(found) for found in NUMBER.findall(page)]


@pytest.mark.parametrize("length", [20, 3000, PAGE_SIZE // 2, PAGE_SIZE + 1], ids=str)
async def test_the_older_pages_lead_through_all_messages(site: Site, ada: Person, length: int) -> None:
    fitting = min(PAGE_LENGTH, max(PAGE_SIZE // length, 1))
    count = 2 * fitting + 1
    url = await seed(site, ada, [f"Number {n}. ".ljust(length, "x") for n in range(count)])
    pages = [numbers_on(page) for page in await read_back(ada, url)]
    assert [number for page in reversed(pages) for number in page] == list(range(count))
    assert [len(page) for page in pages] == [fitting, fitting, 1]


async def test_the_last_message_is_whole_however_long(site: Site, ada: Person) -> None:
    longest = "word " * (WHOLE_LENGTH // 5 - 1) + "ends"
    url = await seed(site, ada, ["Number 0.", "Number 1.", "Number 2.", longest])
    page = (await ada.get(url)).text
    assert f"{longest}</p>" in page and numbers_on(page) == []


@pytest.mark.parametrize("role", ["user", "assistant"])
async def test_a_message_longer_than_any_can_be_shows_its_beginning_and_where_all_of_it_is(
    site: Site, ada: Person, bob: Person, role: str
) -> None:
    megabyte = "word " * 200_000
    url = await seed(site, ada, [megabyte] if role == "user" else ["Number 0.", megabyte])
    page = (await ada.get(url)).text
    assert len(page) < 2 * BEGINNING_LENGTH and "too long for the page" in page
    path = re.search(r'<a href="([^"]+)">Read all of it', page)[1]  # type: ignore[index]
    whole = await ada.get(path)
    assert whole.text == megabyte
    assert whole.headers["content-type"].startswith("text/plain")
    assert (await bob.get(path)).status_code == 404


async def test_programs_get_all_messages_page_by_page(site: Site, ada: Person) -> None:
    texts = [f"Number {n}. ".ljust(150_000, "x") for n in range(10)]
    url = await seed(site, ada, texts)
    address, cursor = f"/api/v1/conversations/{url.removeprefix('/chat/')}/messages", ""
    found: list[str] = []
    while cursor is not None:
        page = (await ada.get(f"{address}?{cursor and f'cursor={cursor}'}", headers=JSON)).json()
        assert 0 < len(page["items"]) <= 3
        found = [item["text"] for item in page["items"]] + found
        cursor = page["next_cursor"]
    assert found == texts


async def test_f35_a_conversation_of_5000_messages_has_small_pages_and_the_model_gets_what_fits(
    make_site: MakeSite,
) -> None:
    model = ScriptedModel("Fine.", context_tokens=2000)
    site: Site = await make_site(model)
    ada = await site.person("ada")
    code = "```python\n" + 'def answer(depth: int) -> str:\n    return "word" * depth\n' * 40 + "```\n"
    texts = [f"Number {n}. {code if n % 2 else ''}" for n in range(5000)]
    url = await seed(site, ada, texts)
    for page in (await ada.get(url), await ada.get(url, params={"before": 2500})):
        assert len(page.content) < 500_000
        assert len(numbers_on(page.text)) > 10

    await ask(ada, url + "/messages", text="And now?")
    *earlier, question = [turn.text for turn in model.asked[0] if turn.role != "system"]
    assert question == "And now?" and earlier == texts[-len(earlier) :]
    assert 0 < len(earlier) < 10 and f"The oldest {5000 - len(earlier)} messages" in (await ada.get(url)).text


async def test_long_turns_are_read_only_as_far_as_they_can_fit(make_site: MakeSite) -> None:
    """Of ten megabytes the model gets nothing, and the app reads a part; the page counts all that was left out."""
    model = ScriptedModel("Fine.", context_tokens=500)
    site: Site = await make_site(model)
    ada = await site.person("ada")
    url = await seed(site, ada, [f"Number {n}. ".ljust(100_000, "x") for n in range(100)])
    loaded: list[Message] = []
    note_load = lambda message, context: loaded.append(message)  # noqa: E731 (to be taken off again)
    event.listen(Message, "load", note_load)
    done = (await ask(ada, url + "/messages", text="And now?"))[-1].data
    event.remove(Message, "load", note_load)
    assert [turn.text for turn in model.asked[0][1:]] == ["And now?"]
    assert "The oldest 100 messages" in done["html"]
    assert len(loaded) < 30


@pytest.mark.parametrize("context_tokens", [150, 300, 400])  # looking back ends before the replaced ones, amid, after
async def test_answers_that_others_replaced_do_not_count_as_left_out(make_site: MakeSite, context_tokens: int) -> None:
    model = ScriptedModel("Number 1. " * 100, context_tokens=context_tokens)
    ada = await (await make_site(model)).person("ada")
    opened = (await ask(ada, text="First?"))[0].data
    for _ in range(3):
        opened = (await ask(ada, f"{opened['url']}/messages/{opened['id'].removeprefix('message-')}/regenerate"))[
            0
        ].data
    for text in ("Second?", "Third?"):
        done = (await ask(ada, opened["url"] + "/messages", text=text))[-1].data
    assert [turn.text for turn in model.asked[-1][1:]] == ["Third?"]
    assert "The oldest 4 messages" in done["html"]
