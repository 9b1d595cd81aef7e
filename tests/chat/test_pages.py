"""The chat as a browser uses it: by events with JavaScript, by forms without."""

import asyncio
import html
import sqlite3

import pytest

from app.auth.passwords import hashing_place
from app.chat.markdown import render
from app.llm.base import LLMError, Turn, Usage
from app.llm.scripted import ScriptedModel
from tests.chat.reading import EVENTS, JSON, ask, asking, follow, html_of, wait_until_ended
from tests.conftest import MakeSite, Person, Site

pytestmark = pytest.mark.anyio

LONG = "# Title\n\nSome **bold** words.\n\n```python\nprint(1)\n```\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n\nThe end."


async def test_a_question_is_answered_by_events_in_order(ada: Person) -> None:
    events = await ask(ada, text="Who was the first programmer?")
    assert events[0].name == "open"
    assert events[-1].name == "done"
    assert {event.name for event in events[1:-1]} == {"patch"}
    assert "Who was the first programmer?" in events[0].data["html"]
    assert events[0].data["title"] == "Who was the first programmer?"
    assert html_of(events) == "<div><p>Hello Ada.</p>\n</div>"
    assert events[-1].data["status"] == "done"
    assert [event.id for event in events] == sorted(event.id for event in events)


async def test_what_streamed_is_what_a_reload_shows(make_site: MakeSite) -> None:
    site: Site = await make_site(ScriptedModel(*LONG.splitlines(keepends=True), delay=0.001))
    ada = await site.person("ada")
    events = await ask(ada)
    page = await ada.get(events[0].data["url"])
    assert html_of(events) == render(LONG)
    assert html_of(events) in page.text


async def test_the_model_is_shown_the_turns_before(make_site: MakeSite) -> None:
    model = ScriptedModel("Fine.")
    ada = await (await make_site(model)).person("ada")
    opened = (await ask(ada, text="My name is Ada."))[0].data
    await ask(ada, opened["url"] + "/messages", text="What is my name?")
    assert [turn for turn in model.asked[1] if turn.role != "system"] == [
        Turn("user", "My name is Ada."),
        Turn("assistant", "Fine."),
        Turn("user", "What is my name?"),
    ]


async def test_the_model_is_told_first_what_the_site_tells_it(make_site: MakeSite) -> None:
    model = ScriptedModel("Arr.")
    ada = await (await make_site(model, llm_system_prompt="Talk like a pirate.")).person("ada")
    await ask(ada, text="Hi")
    assert model.asked == [(Turn("system", "Talk like a pirate."), Turn("user", "Hi"))]


async def test_odd_addresses_and_keys_are_refused(ada: Person) -> None:
    opened = (await ask(ada))[0].data
    for before in ("-1", "99999999999999999999", "x"):
        assert (await ada.get(opened["url"], params={"before": before})).status_code == 422
    form = {"text": "x", "client_key": "nul \x00"}
    assert (await ada.post("/chat", data=form, headers=EVENTS)).status_code == 422


@pytest.mark.parametrize("path", ["/chat/not-an-id", "/api/v1/messages/not-an-id", "/api/v1/conversations/1"])
async def test_an_id_that_cannot_be_one_is_not_there(ada: Person, path: str) -> None:
    assert (await ada.get(path)).status_code == 404


async def test_turns_that_do_not_fit_are_left_out_and_the_page_says_so(make_site: MakeSite) -> None:
    model = ScriptedModel("Fine.", context_tokens=300)
    ada = await (await make_site(model)).person("ada")
    opened = (await ask(ada, text="one " * 150))[0].data
    events = await ask(ada, opened["url"] + "/messages", text="two " * 150)
    assert [turn.text[:4] for turn in model.asked[1] if turn.role == "user"] == ["two "]
    assert "did not fit" in events[-1].data["html"]
    assert "did not fit" in (await ada.get(opened["url"])).text


async def test_an_answer_goes_on_when_the_page_is_closed(make_site: MakeSite) -> None:
    gate = asyncio.Event()
    ada = await (await make_site(ScriptedModel("Half. ", gate, "Whole."))).person("ada")
    async with asking(ada, "/chat") as events:
        opened = (await anext(events)).data
        await anext(events)
    gate.set()
    message = await wait_until_ended(ada, opened["id"].removeprefix("message-"))
    assert (message["status"], message["text"]) == ("done", "Half. Whole.")


async def test_a_reload_in_mid_answer_shows_what_there_is_and_goes_on(make_site: MakeSite) -> None:
    gate = asyncio.Event()
    ada = await (await make_site(ScriptedModel("First part. ", gate, "Second part."))).person("ada")
    async with asking(ada, "/chat") as events:
        opened = (await anext(events)).data
        await anext(events)
        page = (await ada.get(opened["url"])).text
        assert "First part." in page
        assert opened["follow"] in page
    reading = asyncio.create_task(follow(ada, opened["follow"]))
    gate.set()
    assert html_of(await reading) == render("First part. Second part.")


async def test_a_page_that_comes_back_gets_the_same_answer(make_site: MakeSite) -> None:
    pieces = [LONG[start : start + 7] for start in range(0, len(LONG), 7)]
    ada = await (await make_site(ScriptedModel(*pieces, delay=0.02))).person("ada")
    events = await ask(ada)
    assert len(events) > 5
    again = await follow(ada, events[0].data["follow"])
    assert html_of(again) == render(LONG)
    assert (again[0].name, again[-1]) == ("open", events[-1])


async def test_stop_ends_the_answer_and_keeps_what_was_written(make_site: MakeSite) -> None:
    model = ScriptedModel("Kept. ", asyncio.Event(), "Never.")
    ada = await (await make_site(model)).person("ada")
    async with asking(ada, "/chat") as events:
        opened = (await anext(events)).data
        await anext(events)
        for _ in range(2):  # twice does no harm
            assert (await ada.post(opened["stop"], headers=JSON)).status_code == 204
        rest = [event async for event in events]
    assert rest[-1].data["status"] == "stopped"
    assert model.closed_early == 1
    assert "Kept." in (await ada.get(opened["url"])).text


async def test_stop_before_the_first_token(make_site: MakeSite) -> None:
    ada = await (await make_site(ScriptedModel(asyncio.Event()))).person("ada")
    async with asking(ada, "/chat") as events:
        opened = (await anext(events)).data
        await ada.post(opened["stop"], headers=JSON)
        assert [event.data["status"] async for event in events] == ["stopped"]


async def test_a_new_answer_keeps_the_one_before(make_site: MakeSite) -> None:
    model = ScriptedModel("An answer.")
    ada = await (await make_site(model)).person("ada")
    opened = (await ask(ada, text="Once?"))[0].data
    old = opened["id"].removeprefix("message-")
    again = await ask(ada, f"{opened['url']}/messages/{old}/regenerate")
    assert again[0].data["replaces"] == opened["id"]
    assert "Once?" not in again[0].data["html"]
    page = (await ada.get(opened["url"])).text
    assert page.count("An answer.") == 2
    await ask(ada, opened["url"] + "/messages", text="Next?")
    assert [turn.role for turn in model.asked[2] if turn.role != "system"] == ["user", "assistant", "user"]


async def test_an_answer_is_found_in_its_own_conversation_only(ada: Person) -> None:
    first, second = [(await ask(ada, text=text))[0].data for text in ("One?", "Two?")]
    for what in ("regenerate", "stop"):
        path = f"{first['url']}/messages/{second['id'].removeprefix('message-')}/{what}"
        assert (await ada.post(path, headers=EVENTS)).status_code == 404
    assert (await ada.get(path.replace("/stop", "/events"), headers=EVENTS)).status_code == 404


async def test_only_the_last_answer_can_be_written_again(ada: Person) -> None:
    opened = (await ask(ada))[0].data
    await ask(ada, opened["url"] + "/messages", text="And then?")
    path = f"{opened['url']}/messages/{opened['id'].removeprefix('message-')}/regenerate"
    refused = await ada.post(path, headers=EVENTS)
    assert refused.status_code == 409
    assert "last answer" in refused.json()["detail"]


async def test_an_answer_goes_on_from_its_last_word(make_site: MakeSite) -> None:
    """The model is shown what it said, and the answer stays one answer."""
    error = LLMError("The connection ended.", code="disconnected")
    model = ScriptedModel("Half of ", error=error)
    ada = await (await make_site(model)).person("ada")
    opened, *_, done = await ask(ada, text="Tell me all.")
    path = f"{opened.data['url']}/messages/{opened.data['id'].removeprefix('message-')}"
    assert f"{path}/continue" in done.data["html"]

    model._pieces, model._error = ("the ", "whole."), None
    again = await ask(ada, f"{path}/continue")
    assert again[0].data["id"] == opened.data["id"] and "Tell me all." not in again[0].data["html"]
    assert html_of(again) == render("Half of the whole.")
    assert again[-1].data["status"] == "done"
    assert [turn.text for turn in model.asked[1][1:-1]] == ["Tell me all.", "Half of "]
    assert "Go on exactly where you stopped" in model.asked[1][-1].text
    page = (await ada.get(opened.data["url"])).text
    assert "Half of the whole." in page and "Continue" not in page

    whole = await ada.post(f"{path}/continue", headers=EVENTS)
    assert (whole.status_code, "is whole" in whole.json()["detail"]) == (409, True)


async def test_an_answer_that_was_cut_can_go_on(make_site: MakeSite) -> None:
    ada = await (await make_site(ScriptedModel("Half of", finish="length"))).person("ada")
    done = (await ask(ada))[-1].data
    assert done["status"] == "done"
    assert "/continue" in done["html"] and "/regenerate" in done["html"]


async def test_only_the_last_answer_can_go_on(make_site: MakeSite) -> None:
    model = ScriptedModel("Half", finish="length")
    ada = await (await make_site(model)).person("ada")
    opened = (await ask(ada))[0].data
    await ask(ada, opened["url"] + "/messages", text="And then?")
    path = f"{opened['url']}/messages/{opened['id'].removeprefix('message-')}/continue"
    assert (await ada.post(path, headers=EVENTS)).status_code == 409


async def test_a_failing_model_leaves_a_sentence_and_the_question(make_site: MakeSite) -> None:
    error = LLMError("The key was refused. Check LLM_API_KEY.", code="unauthorized")
    ada = await (await make_site(ScriptedModel("Some ", error=error))).person("ada")
    events = await ask(ada, text="Will it work?")
    assert events[-1].data["status"] == "failed"
    assert "Check LLM_API_KEY." in events[-1].data["html"]
    page = (await ada.get(events[0].data["url"])).text
    assert "Will it work?" in page and "Some" in page and "Check LLM_API_KEY." in page


async def test_what_no_database_can_hold_is_replaced(make_site: MakeSite) -> None:
    ada = await (await make_site(ScriptedModel("nul \x00, half \ud83d."))).person("ada")
    events = await ask(ada)
    assert events[-1].data["status"] == "done"
    assert html_of(events) == render("nul \ufffd, half \ufffd.")


async def test_sign_ins_that_wait_keep_no_connection(make_site: MakeSite) -> None:
    """Hashing takes long. Forty people who wait for it stop neither the answer nor the pages."""
    site: Site = await make_site(database_pool_size=2)
    ada, visitor = await site.person("ada"), await site.visitor()
    form = {"email": "nobody@example.org", "password": "x"}
    async with hashing_place() as queue, hashing_place():
        storm = [asyncio.create_task(visitor.post("/login", data=form)) for _ in range(40)]
        async with asyncio.timeout(10):
            while queue.length < 2 + 40:  # noqa: ASYNC110 (the queue tells nobody)
                await asyncio.sleep(0.01)
        assert (await ask(ada))[-1].data["status"] == "done"
        assert (await ada.get("/chat")).status_code == 200
    assert {reply.status_code for reply in await asyncio.gather(*storm)} == {422}


async def test_the_last_words_come_once_even_if_saving_them_takes_long(make_site: MakeSite) -> None:
    gate = asyncio.Event()
    site: Site = await make_site(ScriptedModel("First part. ", gate, "Last words."))
    if site.app.state.database.url.get_backend_name() != "sqlite":
        pytest.skip("Another process locks SQLite here")
    ada = await site.person("ada")
    async with asking(ada, "/chat") as events:
        opened = (await anext(events)).data
        await anext(events)
        await ada.get(opened["url"])
        writer = sqlite3.connect(site.app.state.database.url.database, isolation_level=None)
        writer.execute("BEGIN IMMEDIATE")
        gate.set()
        others = [asyncio.create_task(follow(ada, opened["follow"])) for _ in range(3)]
        await asyncio.sleep(0.3)  # time in which a wrong build shows what is not saved
        writer.execute("COMMIT")
        writer.close()
        for seen in await asyncio.gather(*others):
            assert html_of(seen) == render("First part. Last words.")


async def test_a_bug_in_a_model_shows_no_traceback(make_site: MakeSite) -> None:
    class Broken(ScriptedModel):
        async def stream(self, turns, pace=None):  # type: ignore[no-untyped-def]
            yield "Some "
            raise ZeroDivisionError("secret detail")

    ada = await (await make_site(Broken())).person("ada")
    events = await ask(ada)
    assert events[-1].data["status"] == "failed"
    assert "secret detail" not in str(events)


async def test_the_same_key_is_the_same_message(make_site: MakeSite) -> None:
    ada = await (await make_site(ScriptedModel("Once."))).person("ada")
    both = await asyncio.gather(*(ask(ada, client_key="k1") for _ in range(8)))
    assert len({events[0].data["id"] for events in both}) == 1
    assert all(html_of(events) == render("Once.") for events in both)
    url = both[0][0].data["url"]
    again = await asyncio.gather(*(ask(ada, url + "/messages", "More?", client_key="k2") for _ in range(8)))
    assert len({events[0].data["id"] for events in again}) == 1


async def test_the_same_key_gives_the_first_answer_after_another_one_was_written(ada: Person) -> None:
    opened = (await ask(ada, client_key="k1"))[0].data
    await ask(ada, f"{opened['url']}/messages/{opened['id'].removeprefix('message-')}/regenerate")
    assert (await ask(ada, client_key="k1"))[0].data["id"] == opened["id"]


async def test_an_answer_that_the_provider_cut_says_so(make_site: MakeSite) -> None:
    ada = await (await make_site(ScriptedModel("Half of", finish="content_filter"))).person("ada")
    assert "because of its rules" in html.unescape((await ask(ada))[-1].data["html"])


async def test_the_same_key_with_another_text_is_refused(ada: Person) -> None:
    opened = (await ask(ada, client_key="k1"))[0].data
    for path in ("/chat", opened["url"] + "/messages"):
        refused = await ada.post(path, data={"text": "Other", "client_key": "k1"}, headers=EVENTS)
        assert refused.status_code == 409


async def test_two_questions_at_once_are_not_mixed(make_site: MakeSite) -> None:
    gate = asyncio.Event()
    ada = await (await make_site(ScriptedModel(gate, "Fine."))).person("ada")
    async with asking(ada, "/chat") as events:
        opened = (await anext(events)).data
        refused = await ada.post(opened["url"] + "/messages", data={"text": "And?"}, headers=EVENTS)
        assert refused.status_code == 409
        assert "still being written" in refused.json()["detail"]
        gate.set()
        assert [event async for event in events][-1].data["status"] == "done"


async def test_without_javascript_a_form_leads_to_the_page(ada: Person) -> None:
    response = await ada.post("/chat", data={"text": "By form?", "client_key": "k"})
    assert response.status_code == 303
    page = (await ada.get(response.headers["location"])).text
    assert "By form?" in page


@pytest.mark.parametrize("text", ["", "  \n ", "x" * 32_001])
async def test_a_text_that_cannot_be_sent_is_kept_with_a_sentence(ada: Person, text: str) -> None:
    by_form = await ada.post("/chat", data={"text": text})
    assert by_form.status_code == 422
    assert text.strip() in by_form.text
    by_script = await ada.post("/chat", data={"text": text}, headers=EVENTS)
    assert by_script.status_code == 422
    assert by_script.json()["detail"].endswith(".")
    assert (await ada.get("/api/v1/conversations")).json()["items"] == []


async def test_odd_characters_are_stored_and_shown(ada: Person) -> None:
    events = await ask(ada, text="NUL \x00 in, <b>tags</b> & 🙂")
    page = (await ada.get(events[0].data["url"])).text
    assert "&lt;b&gt;tags&lt;/b&gt; &amp; 🙂" in page


async def test_conversations_can_be_renamed_and_deleted(ada: Person) -> None:
    url = (await ask(ada))[0].data["url"]
    assert (await ada.post(url + "/rename", data={"title": "  Countess \n of  Lovelace "})).status_code == 303
    assert "Countess of Lovelace" in (await ada.get("/chat")).text
    assert (await ada.post(url + "/rename", data={"title": " "})).status_code == 422
    assert (await ada.post(url + "/delete")).status_code == 303
    assert (await ada.get(url)).status_code == 404
    assert "Countess" not in (await ada.get("/chat")).text


async def test_conversations_are_found_by_their_title(ada: Person) -> None:
    for text in ("Sorting lists in Python", "100% of the Bernoulli numbers"):
        await ask(ada, text=text)
    found = (await ada.get("/chat/all", params={"q": "python"})).text
    assert "Sorting lists" in found and "Bernoulli numbers" not in found.split("<main")[1]
    assert "Sorting lists" not in (await ada.get("/chat/all", params={"q": "100%"})).text.split("<main")[1]


async def test_a_search_takes_small_letters_for_capitals_in_every_language(ada: Person) -> None:
    await ask(ada, text="Ärger mit Ölfarbe")
    assert "Ärger mit" in (await ada.get("/chat/all", params={"q": "ärger"})).text.split("<main")[1]


async def test_another_persons_conversation_is_not_there(ada: Person, bob: Person) -> None:
    opened = (await ask(ada))[0].data
    answer = f"{opened['url']}/messages/{opened['id'].removeprefix('message-')}"
    for path in (opened["url"], opened["follow"]):
        assert (await bob.get(path)).status_code == 404
    for path in ("/messages", "/rename", "/delete"):
        assert (await bob.post(opened["url"] + path, data={"text": "x", "title": "x"})).status_code == 404
    for path in ("/stop", "/regenerate"):
        assert (await bob.post(answer + path)).status_code == 404
    assert (await ada.get(opened["url"])).status_code == 200


async def test_deleting_a_conversation_ends_its_running_answer(make_site: MakeSite) -> None:
    ada = await (await make_site(ScriptedModel("Some ", asyncio.Event()))).person("ada")
    async with asking(ada, "/chat") as events:
        opened = (await anext(events)).data
        await ada.post(opened["url"] + "/delete")
        done = [event async for event in events][-1].data
    assert done["status"] == "deleted" and "was deleted in another window" in done["html"]
    assert (await ada.get(opened["url"])).status_code == 404


async def test_long_conversations_are_shown_a_page_at_a_time(site: Site, ada: Person) -> None:
    url = (await ask(ada, text="Number 0"))[0].data["url"]
    for number in range(1, 30):
        await ask(ada, url + "/messages", text=f"Number {number}.")
    page = (await ada.get(url)).text
    assert "Number 29." in page and "Number 5." in page and "Number 4." not in page
    older = (await ada.get(url, params={"before": 10})).text
    assert "Number 4." in older and "Number 5." not in older


async def test_what_a_model_counted_is_kept(make_site: MakeSite) -> None:
    ada = await (await make_site(ScriptedModel("Counted.", Usage(12, 3)))).person("ada")
    opened = (await ask(ada))[0].data
    message = await wait_until_ended(ada, opened["id"].removeprefix("message-"))
    assert message["usage"] == {"prompt_tokens": 12, "completion_tokens": 3}
