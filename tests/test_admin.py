"""The admin panel: who gets in, what they see and change, and what is never shown."""

import csv
import io
import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from uuid import uuid4

import pytest
from fastapi.routing import Mount
from sqlalchemy import func
from sqlmodel import col, select
from starlette.routing import Route

from app.auth.models import AccessToken, User
from app.chat.models import Conversation, Message
from app.database import now
from app.settings import ROOT
from tests.conftest import PASSWORD, MakeSite, Person, Site

pytestmark = pytest.mark.anyio
NEW_PASSWORD = "battery staple 2071"
PAGES = (
    "/admin/", "/admin/user/list", "/admin/user/create", "/admin/user/details/{user}", "/admin/user/edit/{user}",
    "/admin/user/export/csv", "/admin/user/export/json", "/admin/conversation/list",
    "/admin/conversation/details/{conversation}", "/admin/conversation/export/csv", "/admin/message/list",
    "/admin/message/details/{message}", "/admin/message/export/json",
)  # fmt: skip


class Data:
    """Ada's conversation, which begins like a formula and is not harmless."""

    def __init__(self, owner: User) -> None:
        self.user = owner
        self.conversation = Conversation(owner_id=owner.id, title="=1+1 <script>alert(1)</script>")
        self.message = Message(conversation_id=self.conversation.id, position=0, role="user", text="Écris <b>ceci</b>")

    def fill(self, path: str) -> str:
        return path.format(user=self.user.id, conversation=self.conversation.id, message=self.message.id)


@pytest.fixture
async def data(site: Site, ada: Person) -> Data:
    data = Data(ada.user)
    async with site.session() as session:
        for thing in (data.conversation, data.message):
            session.add(thing)
            await session.flush()
        await session.commit()
    return data


@pytest.fixture
async def stan(site: Site) -> Person:
    """Stan is staff: he may look."""
    return await site.person("stan", is_staff=True)


async def read_user(site: Site, email: str) -> User | None:
    async with site.session() as session:
        return (await session.exec(select(User).where(User.email == email))).first()


async def set_rights(site: Site, person: Person, **rights: bool) -> None:
    async with site.session() as session:
        user = await session.get_one(User, person.user.id)
        for name, value in rights.items():
            setattr(user, name, value)
        await session.commit()


def edit_form(user: User, **changes: str) -> dict[str, str]:
    """What the browser sends for a person as they are, with changes; an empty value unticks a box."""
    form = {"email": user.email, "name": user.name, "new_password": "", "save": "Save"}
    form |= {right: "y" for right in ("is_active", "is_staff", "is_superuser") if getattr(user, right)}
    return {name: value for name, value in (form | changes).items() if value or name == "new_password"}


# --- Who gets in -------------------------------------------------------------------------------------------------


async def test_a_visitor_is_led_to_sign_in_and_back(site: Site, data: Data) -> None:
    visitor = await site.visitor()
    for here in map(data.fill, PAGES):
        response = await visitor.get(here + "?search=a%26b")
        assert response.status_code == 303
        assert response.headers["location"].endswith(f"/login?next={here}%3Fsearch%3Da%2526b")


async def test_bob_sees_nothing_of_it(data: Data, bob: Person) -> None:
    for path in PAGES:
        response = await bob.get(data.fill(path))
        assert response.status_code == 403, path
        assert "Not allowed" in response.text and "ada@example.org" not in response.text


async def test_staff_may_look_but_not_change_or_carry_away(data: Data, stan: Person) -> None:
    for path in PAGES:
        allowed = not any(word in path for word in ("create", "edit", "export"))
        assert (await stan.get(data.fill(path))).status_code == (200 if allowed else 403), path


async def test_staff_are_shown_no_button_that_would_be_refused(data: Data, stan: Person) -> None:
    for path in ("/admin/user/list", "/admin/user/details/{user}", "/admin/conversation/list"):
        page = (await stan.get(data.fill(path))).text
        assert not re.findall(r'href="[^"]*/(?:edit|create|export)/?|data-url="[^"]*delete', page)


async def test_staff_cannot_change_by_request_either(site: Site, data: Data, stan: Person) -> None:
    assert (await stan.post(data.fill("/admin/user/edit/{user}"), data=edit_form(data.user))).status_code == 403
    assert (await stan.post("/admin/user/create", data={"email": "new@example.org"})).status_code == 403
    for path in ("/admin/user/delete?pks={user}", "/admin/conversation/delete?pks={conversation}"):
        assert (await stan.request("DELETE", data.fill(path))).status_code == 403
    assert await read_user(site, "ada@example.org")


@pytest.mark.parametrize(
    ("rights", "status"),
    [({"is_staff": False, "is_superuser": False}, 403), ({"is_active": False}, 303), ({"is_superuser": False}, 200)],
)
async def test_a_right_that_is_lost_counts_at_the_next_request(
    site: Site, grace: Person, rights: dict[str, bool], status: int
) -> None:
    assert (await grace.get("/admin/user/list")).status_code == 200
    await set_rights(site, grace, **rights)
    assert (await grace.get("/admin/user/list")).status_code == status
    assert (await grace.get("/admin/user/create")).status_code == max(status, 303 if status == 303 else 403)


async def test_signing_out_closes_the_panel(grace: Person) -> None:
    assert (await grace.get("/admin/")).status_code == 200
    token = grace.browser.cookies["session"]
    page = (await grace.get("/admin/")).text
    assert '<form method="post" action="/logout">' in page
    assert (await grace.post("/logout")).status_code == 303
    grace.browser.cookies.set("session", token)
    assert (await grace.get("/admin/")).status_code == 303


async def test_the_panel_has_no_door_of_its_own(site: Site, grace: Person) -> None:
    for path in ("/admin/login", "/admin/logout"):
        response = await grace.get(path)
        assert (response.status_code, response.headers["location"]) == (303, "/admin/")
    form = {"username": "grace@example.org", "password": PASSWORD}
    response = await (await site.visitor()).post("/admin/login", data=form)
    assert response.headers["location"] == "/login" and not response.cookies
    assert (await grace.get("/admin/")).status_code == 200


async def test_a_token_for_programs_opens_no_panel(site: Site, grace: Person) -> None:
    from app.auth import service

    async with site.session() as session:
        made = await service.create_token(session, grace.user.id, "api")
    token = made if isinstance(made, str) else made[0]
    visitor = await site.visitor(Authorization=f"Bearer {token}")
    visitor.cookies.set("session", token)
    assert (await visitor.get("/admin/")).status_code == 303


# --- Other sites, and methods ------------------------------------------------------------------------------------


async def test_every_route_that_changes_something_refuses_other_sites(site: Site, data: Data, grace: Person) -> None:
    panel = next(route for route in site.app.routes if isinstance(route, Mount) and route.path == "/admin")
    seen = []
    for route in panel.routes or []:
        for method in getattr(route, "methods", None) or []:
            assert isinstance(route, Route)
            path = "/admin" + re.sub(r"\{(\w+)(?::path)?\}", "user", route.path)
            if method in ("GET", "HEAD") and "/action/" not in path:
                continue
            for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}, {"Origin": "null"}):
                response = await grace.request(method, path, headers=headers)
                assert response.status_code == 403 and "another site" in response.text, (method, path)
            seen.append((method, route.name))
    assert {("DELETE", "delete"), ("POST", "create"), ("POST", "edit"), ("POST", "import")} <= set(seen)
    assert await read_user(site, "ada@example.org")


async def test_nothing_is_deleted_by_following_a_link(site: Site, data: Data, grace: Person) -> None:
    for path in ("/admin/user/delete?pks={user}", "/admin/conversation/delete?pks={conversation}"):
        assert (await grace.get(data.fill(path))).status_code == 405
    assert await read_user(site, "ada@example.org")


# --- People ------------------------------------------------------------------------------------------------------


async def test_grace_makes_a_person_who_can_sign_in(site: Site, grace: Person) -> None:
    form = {"email": " New@Example.org ", "name": "Zoë", "password": NEW_PASSWORD, "is_staff": "y", "save": "Save"}
    response = await grace.post("/admin/user/create", data=form)
    assert (response.status_code, response.headers["location"]) == (302, "/admin/user/list")
    user = await read_user(site, "new@example.org")
    assert user and user.hashed_password.startswith("$argon2id$")
    assert (user.name, user.is_active, user.is_staff, user.is_superuser) == ("Zoë", True, True, False)
    sign_in = {"email": "new@example.org", "password": NEW_PASSWORD}
    assert (await (await site.visitor()).post("/login", data=sign_in)).status_code == 303


FAULTS = (
    ({"email": "ADA@example.org"}, "There is an account with this e-mail already."),
    ({"email": "ada"}, "Write a whole e-mail address"),
    ({"email": ""}, "This field is required."),
    ({"password": "short"}, "Use at least 8 characters."),
    ({"password": "new@example.org"}, "Use a password that is not your e-mail."),
    ({"password": ""}, "This field is required."),
    ({"name": "x" * 81}, "Use at most 80 characters for the name."),
    ({"name": "a\0b"}, "Leave out of the name what cannot be read."),
)


async def test_a_form_with_a_fault_says_so(
    site: Site, ada: Person, grace: Person, caplog: pytest.LogCaptureFixture
) -> None:
    for changes, sentence in FAULTS:
        form = {"email": "new@example.org", "name": "New", "password": NEW_PASSWORD, "save": "Save"} | changes
        response = await grace.post("/admin/user/create", data=form)
        assert response.status_code == 400
        assert sentence in response.text
        assert NEW_PASSWORD not in response.text
    assert not caplog.records
    async with site.session() as session:
        assert (await session.exec(select(func.count()).select_from(User))).one() == 2


async def test_fields_that_the_form_does_not_have_are_ignored(site: Site, ada: Person, grace: Person) -> None:
    extra = {"hashed_password": "x", "id": str(uuid4()), "created_at": "2020-01-01", "is_verified": "y"}
    response = await grace.post(f"/admin/user/edit/{ada.user.id}", data=edit_form(ada.user) | extra)
    assert response.status_code == 302
    assert await read_user(site, "ada@example.org") == ada.user


async def test_a_new_password_works_and_ends_the_old_sessions(site: Site, ada: Person, grace: Person) -> None:
    form = edit_form(ada.user, new_password=NEW_PASSWORD)
    assert (await grace.post(f"/admin/user/edit/{ada.user.id}", data=form)).status_code == 302
    assert (await ada.get("/chat")).status_code == 303
    for password, status in ((NEW_PASSWORD, 303), (PASSWORD, 422)):
        form = {"email": "ada@example.org", "password": password}
        assert (await (await site.visitor()).post("/login", data=form)).status_code == status


async def test_an_edit_without_a_password_keeps_it_and_the_sessions(site: Site, ada: Person, grace: Person) -> None:
    form = edit_form(ada.user, name="Augusta Ada", email="ADA.K@example.org")
    assert (await grace.post(f"/admin/user/edit/{ada.user.id}", data=form)).status_code == 302
    user = await read_user(site, "ada.k@example.org")
    assert user and (user.name, user.hashed_password) == ("Augusta Ada", ada.user.hashed_password)
    assert (await ada.get("/chat")).status_code == 200


async def test_who_is_deactivated_is_out_for_good(site: Site, ada: Person, grace: Person) -> None:
    url = f"/admin/user/edit/{ada.user.id}"
    assert (await grace.post(url, data=edit_form(ada.user, is_active=""))).status_code == 302
    assert (await ada.get("/chat")).status_code == 303
    assert (await grace.post(url, data=edit_form(ada.user))).status_code == 302
    assert (await ada.get("/chat")).status_code == 303  # active again, but that session is over
    async with site.session() as session:
        tokens = select(AccessToken).where(col(AccessToken.user_id) == ada.user.id)
        assert not (await session.exec(tokens)).all()


@pytest.mark.parametrize("lost", ["is_superuser", "is_active"])
async def test_grace_cannot_lock_herself_out(site: Site, grace: Person, lost: str) -> None:
    response = await grace.post(f"/admin/user/edit/{grace.user.id}", data=edit_form(grace.user, **{lost: ""}))
    assert response.status_code == 400
    assert "This is your own account" in response.text
    assert (await grace.get("/admin/user/create")).status_code == 200
    response = await grace.request("DELETE", f"/admin/user/delete?pks={grace.user.id}")
    assert response.status_code == 403
    assert await read_user(site, "grace@example.org") == grace.user


async def test_an_edit_to_an_e_mail_that_is_taken_is_refused(ada: Person, bob: Person, grace: Person) -> None:
    form = edit_form(ada.user, email="Bob@example.org")
    response = await grace.post(f"/admin/user/edit/{ada.user.id}", data=form)
    assert response.status_code == 400
    assert "There is an account with this e-mail already." in response.text
    assert "UNIQUE" not in response.text and "UPDATE" not in response.text


async def test_who_is_deleted_takes_everything_along(site: Site, data: Data, ada: Person, grace: Person) -> None:
    response = await grace.request("DELETE", data.fill("/admin/user/delete?pks={user}"))
    assert (response.status_code, response.text) == (200, "/admin/user/list")
    assert (await ada.get("/chat")).status_code == 303
    async with site.session() as session:
        for table in (Conversation, Message):
            assert not (await session.exec(select(table))).all()


# --- What is shown -----------------------------------------------------------------------------------------------


async def test_grace_sees_every_page_but_no_hash_no_token_and_no_other_host(
    site: Site, data: Data, ada: Person, grace: Person
) -> None:
    async with site.session() as session:
        tokens = (await session.exec(select(AccessToken.token))).all()
    for path in PAGES:
        response = await grace.get(data.fill(path))
        page = response.text
        assert response.status_code == 200, path
        assert "hashed_password" not in page and "argon2" not in page
        assert not any(token in page for token in tokens)
        assert not re.findall(r"https?://[^\s\"'<]+", page)
        if "/export/" not in path:
            assert "<script>alert" not in page
            assert not re.search(r"\son[a-z]+=|\sstyle=|<style|<script(?![^>]*src=)", page)


async def test_no_address_leads_to_tokens(data: Data, grace: Person) -> None:
    for identity in ("access-token", "access_token", "accesstoken", "piece", "alembic"):
        assert (await grace.get(f"/admin/{identity}/list")).status_code == 404


async def test_what_is_not_there_is_a_page_of_the_site(grace: Person) -> None:
    for path in (
        "nope/list", "nope", "user/details/7", f"user/details/{uuid4()}", "user/edit/nope", "user/export/xml",
        "conversation/details/1;2", "user/x/y/download/",
    ):  # fmt: skip
        response = await grace.get(f"/admin/{path}")
        assert response.status_code == 404, path
        assert 'href="/chat"' in response.text  # links of the site, not of a panel inside it


async def test_a_list_that_makes_no_sense_is_refused(grace: Person) -> None:
    for query in ("sortBy=hashed_password", "sortBy=nope", "pageSize=0", "page=x", "pageSize=-5"):
        assert (await grace.get(f"/admin/user/list?{query}")).status_code == 400, query


async def test_deleting_nothing_is_refused(grace: Person) -> None:
    assert (await grace.request("DELETE", "/admin/user/delete")).status_code == 400
    response = await grace.request("DELETE", f"/admin/user/delete?pks={uuid4()}")
    assert "error=" in response.text


async def test_pages_are_capped(site: Site, grace: Person) -> None:
    async with site.session() as session:
        session.add_all(User(email=f"p{number}@example.org", hashed_password="x") for number in range(150))
        await session.commit()
    page = (await grace.get("/admin/user/list?pageSize=1000000000")).text
    assert page.count("select-box") == 100
    assert (await grace.get(f"/admin/user/list?page={10**30}")).status_code == 302


async def find(person: Person, identity: str, search: str, **query: str) -> list[str]:
    response = await person.browser.get(f"/admin/{identity}/list", params={"search": search, **query})
    assert response.status_code == 200
    rows = re.findall(r"<tr>\s*<td>.*?</tr>", response.text, re.S)
    return [re.findall(r"<td>(?:<a[^>]*>)?([^<]*)", row)[1] for row in rows]


async def test_people_are_found_in_any_case_and_language(site: Site, ada: Person, bob: Person, grace: Person) -> None:
    async with site.session() as session:
        user = await session.get_one(User, ada.user.id)
        user.name = "Émile Müller 100% a_b"
        await session.commit()
    for search in ("ada@EXAMPLE", "émile", "ÉMILE", "É", "müller", "MÜLLER", "Émile Müller", "100%", "a_b"):
        assert await find(grace, "user", search) == ["ada@example.org"], search


async def test_a_search_is_only_text(bob: Person, grace: Person) -> None:
    for search in ("%", "_", "' OR 1=1 --", "x" * 5000, "😀", "\\", "nobody\0"):
        assert await find(grace, "user", search) == [], search


async def test_lists_are_sorted_by_their_columns(ada: Person, bob: Person, grace: Person) -> None:
    names = ["ada@example.org", "bob@example.org", "grace@example.org"]
    assert await find(grace, "user", "", sortBy="email", sort="asc") == names
    assert await find(grace, "user", "", sortBy="email", sort="desc") == names[::-1]
    assert await find(grace, "user", "") == names[::-1]  # the newest first


async def test_conversations_name_their_owner_and_are_found_by_them(data: Data, grace: Person) -> None:
    page = (await grace.get("/admin/conversation/list?search=ada@")).text
    assert f'<a href="/admin/user/details/{data.user.id}">ada@example.org</a>' in page
    assert len(await find(grace, "conversation", "bob@")) == 0
    details = (await grace.get(data.fill("/admin/conversation/details/{conversation}"))).text
    assert ">ada@example.org</a>" in details


async def test_messages_can_be_read_only(site: Site, data: Data, grace: Person) -> None:
    page = (await grace.get(data.fill("/admin/message/details/{message}"))).text
    assert "Écris &lt;b&gt;ceci&lt;/b&gt;" in page
    assert (await grace.get(data.fill("/admin/message/edit/{message}"))).status_code == 403
    assert (await grace.post("/admin/message/create")).status_code == 403
    assert (await grace.request("DELETE", data.fill("/admin/message/delete?pks={message}"))).status_code == 403


async def test_long_texts_are_shortened_in_the_list(site: Site, data: Data, grace: Person) -> None:
    async with site.session() as session:
        message = await session.get_one(Message, data.message.id)
        message.text = "long " * 5000
        await session.commit()
    assert len((await grace.get("/admin/message/list")).text) < 20_000


async def test_a_conversation_can_be_deleted(site: Site, data: Data, grace: Person) -> None:
    response = await grace.request("DELETE", data.fill("/admin/conversation/delete?pks={conversation}"))
    assert response.text == "/admin/conversation/list"
    async with site.session() as session:
        assert not (await session.exec(select(Message))).all()


# --- Exports -----------------------------------------------------------------------------------------------------


async def test_a_spreadsheet_runs_nothing_of_an_export(site: Site, data: Data, grace: Person) -> None:
    for start in ("=", "+", "-", "@", "\t", "\r"):
        async with site.session() as session:
            conversation = await session.get_one(Conversation, data.conversation.id)
            conversation.title = f"{start}cmd|'/c calc'!A1"
            await session.commit()
        response = await grace.get("/admin/conversation/export/csv")
        assert response.headers["content-disposition"].startswith("attachment")
        header, row = csv.reader(io.StringIO(response.text, newline=""))
        assert header == ["Id", "Title", "Owner", "Begun", "Last used"]
        assert row[1] == f"'{start}cmd|'/c calc'!A1"
        assert row[2] == str(data.user.id)


async def test_people_can_be_exported_without_their_hashes(ada: Person, grace: Person) -> None:
    rows = json.loads((await grace.get("/admin/user/export/json")).text)
    assert {row["email"] for row in rows} == {"ada@example.org", "grace@example.org"}
    assert set(rows[0]) == {"id", "email", "name", "is_active", "is_staff", "is_superuser", "created_at"}


async def test_an_export_is_capped(site: Site, data: Data, grace: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    from app.chat.admin import MessageView

    assert MessageView.export_max_rows == 1_000
    monkeypatch.setattr(MessageView, "export_max_rows", 2)
    async with site.session() as session:
        for position in range(1, 5):
            written = now() + timedelta(minutes=position)
            message = Message(conversation_id=data.conversation.id, position=position, role="user", created_at=written)
            message.text = f"Number {position}"
            session.add(message)
        await session.commit()
    rows = json.loads((await grace.get("/admin/message/export/json")).text)
    assert [row["text"] for row in rows] == ["Number 4", "Number 3"]  # the newest ones


# --- When things go wrong, and what it costs ---------------------------------------------------------------------


@pytest.fixture
def quiet() -> Iterator[None]:
    logger = logging.getLogger("sqladmin.application")
    logger.disabled = True
    yield
    logger.disabled = False


@pytest.mark.usefixtures("quiet")
async def test_an_error_of_the_database_is_not_shown(
    ada: Person, grace: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    from app.auth import service

    async def fail(*args: object, **values: object) -> None:
        raise RuntimeError("SELECT secret FROM person -- [parameters: ('x',)]")

    monkeypatch.setattr(service, "update_user", fail)
    response = await grace.post(f"/admin/user/edit/{ada.user.id}", data=edit_form(ada.user))
    assert response.status_code == 400
    assert "That did not work" in response.text
    assert "SELECT" not in response.text and "parameters" not in response.text


async def test_reading_does_not_wait_for_a_writer(site: Site, ada: Person, grace: Person) -> None:
    async with site.session() as session:
        user = await session.get_one(User, ada.user.id)
        user.name = "Not yet"
        session.add(user)
        await session.flush()
        assert (await grace.get("/admin/user/list")).elapsed < timedelta(seconds=5)


async def test_the_packages_files_are_kept_by_browsers(site: Site, grace: Person) -> None:
    page = (await grace.get("/admin/")).text
    visitor = await site.visitor(**{"Accept-Encoding": "identity"})
    for path in re.findall(r'(?:href|src)="(/admin/statics/[^"]+)"', page):
        response = await visitor.get(path)
        assert response.status_code == 200
        assert response.headers["cache-control"] == "public, max-age=3600"


async def test_the_chosen_theme_reaches_the_panel(grace: Person) -> None:
    grace.browser.cookies.set("theme", "dark")
    assert '<meta name="color-scheme" content="dark">' in (await grace.get("/admin/")).text
    grace.browser.cookies.set("theme", '"><script>')
    assert '<meta name="color-scheme" content="light dark">' in (await grace.get("/admin/")).text


async def test_in_production_the_panel_takes_the_secure_cookie_only(make_site: MakeSite) -> None:
    secret = "k3Jx9-vLq2Zr7_Tn5WbYc8Hd4Fs6GmPa1Ue0"
    site = await make_site(environment="production", secret_key=secret)
    grace = await site.person("grace", is_superuser=True)
    assert (await grace.get("/admin/")).status_code == 303
    grace.browser.headers["Cookie"] = f"__Host-session={grace.browser.cookies['session']}"
    assert (await grace.get("/admin/")).status_code == 200


def test_starting_the_app_does_not_load_the_panel() -> None:
    code = "import sys, app.main; sys.exit('sqladmin' in sys.modules or 'wtforms' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
