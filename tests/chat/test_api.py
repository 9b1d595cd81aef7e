"""The JSON API, as a program uses it."""

import asyncio
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx2
import pytest
from sqlalchemy import update

from app.chat import answers
from app.chat.models import Conversation, Message
from app.llm.scripted import ScriptedModel
from tests.chat.reading import EVENTS, Event, read_events, wait_until_ended
from tests.conftest import MakeSite, Person, Site

pytestmark = pytest.mark.anyio
API = "/api/v1"
ABANDONED_AT = datetime(2020, 1, 1, tzinfo=UTC)


async def begin(person: Person, **body: Any) -> str:
    response = await person.post(f"{API}/conversations", json=body)
    assert response.status_code == 201
    return str(response.json()["id"])


async def read(person: Person, path: str, **options: Any) -> list[Event]:
    async with person.stream("GET", path, **options) as response:
        return [event async for event in read_events(response)]


async def test_a_question_is_answered_with_the_finished_answer(ada: Person) -> None:
    conversation = await begin(ada)
    response = await ada.post(f"{API}/conversations/{conversation}/messages", json={"content": "Who?"})
    assert response.status_code == 200
    answer = response.json()
    assert set(answer) == {"id", "role", "status", "text", "model", "error", "usage", "created_at"}
    assert (answer["role"], answer["status"], answer["text"]) == ("assistant", "done", "Hello Ada.")
    assert (await ada.get(f"{API}/messages/{answer['id']}")).json() == answer
    assert (await ada.get(f"{API}/conversations/{conversation}")).json()["title"] == "Who?"


async def test_the_events_of_an_answer(make_site: MakeSite) -> None:
    ada = await (await make_site(ScriptedModel("One, ", "two, ", "three.", delay=0.15))).person("ada")
    path = f"{API}/conversations/{await begin(ada)}/messages"
    async with ada.stream("POST", path, json={"content": "Count."}, headers=EVENTS) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        events = [event async for event in read_events(response)]
    names = [event.name for event in events]
    assert names[0] == "answer" and names[-1] == "end" and set(names[1:-1]) == {"piece"}
    pieces = [event for event in events if event.name == "piece"]
    assert len(pieces) > 1
    assert "".join(piece.data["text"] for piece in pieces) == "One, two, three."
    ids = [event.id for event in events]
    assert ids == sorted(set(ids))
    end = events[-1].data
    assert end["status"] == "done" and end["message"]["text"] == "One, two, three."
    assert end["message"]["id"] == events[0].data["id"]
    for event in events[:-1]:  # go on after each of them, by parameter and as browsers do
        missing = [later.data["text"] for later in pieces if later.id > event.id]
        for options in ({"params": {"after": event.id}}, {"headers": {"Last-Event-ID": str(event.id)}}):
            rest = await read(ada, f"{API}/messages/{end['message']['id']}/events", **options)
            assert "".join(e.data["text"] for e in rest if e.name == "piece") == "".join(missing)
            assert rest[-1] == events[-1]


async def test_every_cut_gives_the_same_text(ada: Person) -> None:
    path = f"{API}/conversations/{await begin(ada)}/messages"
    answer = (await ada.post(path, json={"content": "Hi"})).json()
    for cut in range(len(answer["text"]) + 1):
        rest = await read(ada, f"{API}/messages/{answer['id']}/events", params={"after": cut})
        assert answer["text"][:cut] + "".join(e.data["text"] for e in rest if e.name == "piece") == answer["text"]


@pytest.mark.parametrize("cursor", ["999999", "99999999999999999999"])
async def test_a_cursor_beyond_the_end_gets_the_end(ada: Person, cursor: str) -> None:
    answer = (await ada.post(f"{API}/conversations/{await begin(ada)}/messages", json={"content": "Hi"})).json()
    rest = await read(ada, f"{API}/messages/{answer['id']}/events", headers={"Last-Event-ID": cursor})
    assert [event.name for event in rest] == ["end"]


@pytest.mark.parametrize("cursor", ["x", "1e99", "-2", "1.5"])
async def test_a_cursor_of_events_that_is_none_is_refused(ada: Person, cursor: str) -> None:
    answer = (await ada.post(f"{API}/conversations/{await begin(ada)}/messages", json={"content": "Hi"})).json()
    path = f"{API}/messages/{answer['id']}/events"
    assert (await ada.get(path, params={"after": cursor})).status_code == 422
    assert (await ada.get(path, headers={"Last-Event-ID": cursor})).status_code == 422


async def test_stop_gives_what_was_written(make_site: MakeSite) -> None:
    ada = await (await make_site(ScriptedModel("Kept.", asyncio.Event()))).person("ada")
    path = f"{API}/conversations/{await begin(ada)}/messages"
    async with ada.stream("POST", path, json={"content": "Go"}, headers=EVENTS) as response:
        events = read_events(response)
        answer = (await anext(events)).data["id"]
        await anext(events)
        for _ in range(2):
            stopped = (await ada.post(f"{API}/messages/{answer}/stop")).json()
            assert (stopped["status"], stopped["text"]) == ("stopped", "Kept.")
        assert (await anext(events)).data["status"] == "stopped"


async def test_a_stopped_answer_goes_on(make_site: MakeSite) -> None:
    model = ScriptedModel("Kept, ", asyncio.Event())
    ada = await (await make_site(model)).person("ada")
    path = f"{API}/conversations/{await begin(ada)}/messages"
    async with ada.stream("POST", path, json={"content": "Go"}, headers=EVENTS) as response:
        events = read_events(response)
        answer = (await anext(events)).data["id"]
        await anext(events)
        await ada.post(f"{API}/messages/{answer}/stop")
    model._pieces = ("and more.",)
    gone_on = (await ada.post(f"{API}/messages/{answer}/continue")).json()
    assert (gone_on["id"], gone_on["status"], gone_on["text"]) == (answer, "done", "Kept, and more.")
    rest = await read(ada, f"{API}/messages/{answer}/events", params={"after": len("Kept, ")})
    assert rest[0].data["text"] == "and more."
    assert (await ada.post(f"{API}/messages/{answer}/continue")).status_code == 409


async def test_an_answer_that_takes_too_long_is_cut_and_can_go_on(make_site: MakeSite) -> None:
    model = ScriptedModel("Some ", asyncio.Event())
    ada = await (await make_site(model, llm_answer_timeout=0.3)).person("ada")
    path = f"{API}/conversations/{await begin(ada)}/messages"
    answer = (await ada.post(path, json={"content": "Never stop"})).json()
    assert (answer["status"], answer["text"]) == ("done", "Some ")
    assert "LLM_ANSWER_TIMEOUT" in answer["error"] and model.closed_early == 1
    model._pieces = ("more.",)
    assert (await ada.post(f"{API}/messages/{answer['id']}/continue")).json()["text"] == "Some more."


async def test_a_full_process_says_so_before_anything_is_saved(
    make_site: MakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "ANSWERS_AT_ONCE", 1)
    ada = await (await make_site(ScriptedModel("Slow.", asyncio.Event()))).person("ada")
    first, second = [f"{API}/conversations/{await begin(ada)}/messages" for _ in range(2)]
    async with ada.stream("POST", first, json={"content": "Go"}, headers=EVENTS) as response:
        await anext(read_events(response))
        full = await ada.post(second, json={"content": "Me too"})
        assert (full.status_code, full.headers["retry-after"]) == (503, "5")
        assert (await ada.get(second)).json()["items"] == []
        page = await ada.post("/chat", data={"text": "My long question"})
        assert page.status_code == 503
        assert "Too many answers" in page.text and "My long question" in page.text


async def test_a_client_key_makes_repeats_harmless(ada: Person) -> None:
    path = f"{API}/conversations/{await begin(ada)}/messages"
    send = {"content": "Once", "client_key": "k"}
    replies = await asyncio.gather(*(ada.post(path, json=send) for _ in range(10)))
    assert {reply.status_code for reply in replies} == {200}
    assert len({reply.json()["id"] for reply in replies}) == 1
    assert len((await ada.get(path)).json()["items"]) == 2
    assert (await ada.post(path, json={"content": "Twice", "client_key": "k"})).status_code == 409


async def test_lists_come_in_pages(ada: Person) -> None:
    made = [await begin(ada, title=f"Number {number}") for number in range(5)]
    seen: list[str] = []
    params: dict[str, Any] = {"limit": 2}
    while params.get("cursor", "first"):
        page = (await ada.get(f"{API}/conversations", params=params)).json()
        seen += [item["id"] for item in page["items"]]
        params["cursor"] = page["next_cursor"]
    assert seen == made[::-1]


async def test_conversations_of_the_same_moment_are_all_listed(site: Site, ada: Person) -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, 678_901, UTC)
    async with site.session() as session:
        session.add_all(Conversation(owner_id=ada.user.id, title="Twin", updated_at=moment) for _ in range(5))
        await session.commit()
    seen: set[str] = set()
    params: dict[str, Any] = {"limit": 2}
    for _ in range(3):
        page = (await ada.get(f"{API}/conversations", params=params)).json()
        seen |= {item["id"] for item in page["items"]}
        params["cursor"] = page["next_cursor"]
    assert len(seen) == 5 and params["cursor"] is None


@pytest.mark.parametrize("cursor", ["x", "1e999_" + "0" * 32, "5_x", "_", "\x00"])
async def test_a_cursor_that_is_none_is_refused(ada: Person, cursor: str) -> None:
    assert (await ada.get(f"{API}/conversations", params={"cursor": cursor})).status_code == 422
    assert (await ada.get("/chat/all", params={"before": cursor})).status_code == 422


async def test_messages_come_in_pages(ada: Person) -> None:
    path = f"{API}/conversations/{await begin(ada)}/messages"
    for number in range(3):
        await ada.post(path, json={"content": f"Number {number}"})
    last = (await ada.get(path, params={"limit": 4})).json()
    first = (await ada.get(path, params={"limit": 4, "cursor": last["next_cursor"]})).json()
    texts = [item["text"] for item in first["items"] + last["items"] if item["role"] == "user"]
    assert texts == ["Number 0", "Number 1", "Number 2"]
    assert first["next_cursor"] is None


async def test_conversations_are_renamed_and_deleted(ada: Person) -> None:
    path = f"{API}/conversations/{await begin(ada)}"
    assert (await ada.request("PATCH", path, json={"title": "Engines"})).json()["title"] == "Engines"
    assert (await ada.request("DELETE", path)).status_code == 204
    assert (await ada.get(path)).status_code == 404


@pytest.mark.parametrize(
    "body",
    [{}, {"content": ""}, {"content": "  "}, {"content": "x" * 32_001}, {"content": "x", "role": "system"}, [], None],
)
async def test_what_makes_no_sense_is_refused(ada: Person, body: object) -> None:
    path = f"{API}/conversations/{await begin(ada)}/messages"
    assert (await ada.post(path, json=body)).status_code == 422
    assert (await ada.get(path)).json()["items"] == []


async def test_lone_surrogates_and_nul_do_no_harm(ada: Person) -> None:
    path = f"{API}/conversations/{await begin(ada)}/messages"
    body = b'{"content": "half \\ud83d and nul \\u0000."}'
    response = await ada.post(path, content=body, headers={"Content-Type": "application/json"})
    assert response.status_code in (200, 422)


async def test_nobody_reads_what_is_anothers(ada: Person, bob: Person) -> None:
    conversation = f"{API}/conversations/{await begin(ada)}"
    message = f"{API}/messages/{(await ada.post(conversation + '/messages', json={'content': 'x'})).json()['id']}"
    calls = [
        ("GET", conversation),
        ("PATCH", conversation),
        ("DELETE", conversation),
        ("GET", conversation + "/messages"),
        ("POST", conversation + "/messages"),
        ("GET", message),
        ("GET", message + "/events"),
        ("POST", message + "/stop"),
        ("POST", message + "/continue"),
    ]
    for method, path in calls:
        body = {"title": "x"} if method == "PATCH" else {"content": "x"}
        options: dict[str, Any] = {"json": body} if method in ("PATCH", "POST") else {}
        assert (await bob.request(method, path, **options)).status_code == 404, (method, path)
    assert (await ada.get(message)).json()["status"] == "done"


async def test_without_signing_in_there_is_nothing(site: Site) -> None:
    stranger = await site.visitor()
    response = await stranger.get(f"{API}/conversations")
    assert response.status_code == 401
    assert response.json()["detail"].endswith(".")


async def test_a_token_opens_the_api(site: Site, ada: Person) -> None:
    from app.auth import service

    async with site.session() as session:
        token, _ = await service.create_token(session, ada.user.id, "api")
    await begin(ada, title="Mine")
    program = await site.visitor(Authorization=f"Bearer {token}")
    assert (await program.get(f"{API}/conversations")).json()["items"][0]["title"] == "Mine"
    wrong = await site.visitor(Authorization=f"Bearer {token[:-1]}")
    assert (await wrong.get(f"{API}/conversations")).status_code == 401


async def test_a_sessions_token_is_no_api_token(site: Site, ada: Person) -> None:
    program = await site.visitor(Authorization=f"Bearer {ada.browser.cookies['session']}")
    assert (await program.get(f"{API}/conversations")).status_code == 401


async def test_fifty_slow_answers_hold_no_database_connection(make_site: MakeSite) -> None:
    """With a pool of five connections, fifty answers wait for their next token, and pages still open at once."""
    gate = asyncio.Event()
    site: Site = await make_site(ScriptedModel("Some ", gate, "more."), database_pool_size=5)
    ada = await site.person("ada")
    paths = [f"{API}/conversations/{await begin(ada)}/messages" for _ in range(50)]

    async def read_one(path: str, started: asyncio.Semaphore) -> str:
        async with ada.stream("POST", path, json={"content": "Slowly"}, headers=EVENTS) as response:
            events = read_events(response)
            text = ""
            async for event in events:
                if event.name == "piece":
                    text += event.data["text"]
                    started.release()
            return text

    started = asyncio.Semaphore(0)
    ada.browser = httpx2.AsyncClient()  # unused from here on: the streams have connections of their own
    readers = [asyncio.create_task(read_one(path, started)) for path in paths]
    for _ in paths:
        await started.acquire()
    pool = site.app.state.database.engine.pool
    async with asyncio.timeout(5):
        while pool.checkedout():  # noqa: ASYNC110 (the last save may still be on its way)
            await asyncio.sleep(0.01)
    bob = await site.person("bob")
    assert (await bob.get("/chat")).status_code == 200
    gate.set()
    assert set(await asyncio.gather(*readers)) == {"Some more."}


async def abandon_answers(site: Site) -> None:
    """As if the process that writes them had been killed, and their leases were over."""
    async with site.session() as session:
        await session.exec(update(Message).values(lease_until=ABANDONED_AT, worker="gone"))
        await session.commit()


async def test_an_abandoned_answer_is_over_for_everybody_who_looks(make_site: MakeSite) -> None:
    first: Site = await make_site(ScriptedModel("Saved.", asyncio.Event()))
    ada = await first.person("ada")
    path = f"{API}/conversations/{await begin(ada)}/messages"
    async with ada.stream("POST", path, json={"content": "Go"}, headers=EVENTS) as response:
        events = read_events(response)
        answer = (await anext(events)).data["id"]
        await anext(events)
    await abandon_answers(first)
    found = await wait_until_ended(ada, answer)
    assert (found["status"], found["text"]) == ("interrupted", "Saved.")


async def test_an_abandoned_answer_ended_with_its_lease(make_site: MakeSite) -> None:
    """Not when somebody came by, days later, and found it."""
    first: Site = await make_site(ScriptedModel("Saved.", asyncio.Event()))
    ada = await first.person("ada")
    path = f"{API}/conversations/{await begin(ada)}/messages"
    async with ada.stream("POST", path, json={"content": "Go"}, headers=EVENTS) as response:
        answer = (await anext(read_events(response))).data["id"]
    await abandon_answers(first)
    await wait_until_ended(ada, answer)
    async with first.session() as session:
        ended_at = (await session.get_one(Message, UUID(answer))).ended_at
    assert ended_at and ended_at.year == ABANDONED_AT.year


async def test_an_abandoned_answer_does_not_keep_the_next_question_out(make_site: MakeSite) -> None:
    first: Site = await make_site(ScriptedModel(asyncio.Event()))
    ada = await first.person("ada")
    path = f"{API}/conversations/{await begin(ada)}/messages"
    async with ada.stream("POST", path, json={"content": "Go"}, headers=EVENTS) as response:
        await anext(read_events(response))
    second: Site = await make_site(ScriptedModel("Fine."))
    await abandon_answers(second)
    ada.browser.base_url = httpx2.URL(second.url)
    assert (await ada.post(path, json={"content": "Again"})).json()["text"] == "Fine."


async def test_an_answer_whose_worker_is_gone_is_interrupted(make_site: MakeSite) -> None:
    """Another process wrote it, and stopped renewing its lease: a reader finds that out, and keeps the text."""
    first: Site = await make_site(ScriptedModel("Saved.", asyncio.Event()))
    ada = await first.person("ada")
    path = f"{API}/conversations/{await begin(ada)}/messages"
    async with ada.stream("POST", path, json={"content": "Go"}, headers=EVENTS) as response:
        events = read_events(response)
        answer = (await anext(events)).data["id"]
        await anext(events)
        await abandon_answers(first)
        ended = [event async for event in events][-1].data
    assert ended["status"] == "interrupted"
    assert ended["message"]["text"] == "Saved."
    assert "stopped" in ended["message"]["error"]
    assert (await wait_until_ended(ada, answer))["text"] == "Saved."


async def test_who_has_little_patience_gets_what_there_is_by_then(make_site: MakeSite) -> None:
    gates = [asyncio.Event(), asyncio.Event()]
    ada = await (await make_site(ScriptedModel("One, ", gates[0], "two, ", gates[1], "three."))).person("ada")
    path = f"{API}/conversations/{await begin(ada)}/messages"
    headers = EVENTS | {"Prefer": "wait=0"}
    async with ada.stream("POST", path, json={"content": "Count."}, headers=headers) as response:
        events = [event async for event in read_events(response)]
    answer = events[0].data["id"]
    asyncio.get_running_loop().call_later(0.5, gates[0].set)
    events = await read(ada, f"{API}/messages/{answer}/events", headers=EVENTS | {"Prefer": "respond-async, wait = 1"})
    assert "".join(event.data.get("text", "") for event in events) == "One, two, "
    assert {event.name for event in events} == {"answer", "piece"}
    gates[1].set()
    assert (await wait_until_ended(ada, answer))["text"] == "One, two, three."
