"""Sign up, sign in, sign out, and a person's settings."""

import asyncio
from urllib.parse import unquote

import httpx2
import pytest
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher
from sqlalchemy import update
from sqlmodel import select

from app.auth import service
from app.auth.models import AccessToken, User
from app.auth.passwords import hash_password, hashing_place
from app.auth.redirects import read_next
from tests.conftest import PASSWORD, MakeSite, Person, Site

pytestmark = pytest.mark.anyio


async def sign_in(visitor: httpx2.AsyncClient, email: str, password: str = PASSWORD, **form: str) -> httpx2.Response:
    return await visitor.post("/login", data={"email": email, "password": password, **form})


async def test_somebody_signs_up_and_is_in(site: Site) -> None:
    visitor = await site.visitor()
    form = {"email": " New@Example.org ", "password": PASSWORD, "name": "New"}
    response = await visitor.post("/register", data=form)
    assert (response.status_code, response.headers["location"]) == (303, "/chat")
    assert (await visitor.get("/chat")).status_code == 200
    assert (await sign_in(await site.visitor(), "NEW@example.org")).status_code == 303


async def test_the_password_and_the_token_are_stored_as_hashes(site: Site) -> None:
    visitor = await site.visitor()
    await visitor.post("/register", data={"email": "new@example.org", "password": PASSWORD})
    async with site.session() as session:
        user = (await session.exec(select(User))).one()
        token = (await session.exec(select(AccessToken))).one()
    assert user.hashed_password.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert not (user.is_superuser or user.is_staff)
    assert token.token not in str(visitor.cookies) and len(token.token) == 64


@pytest.mark.parametrize(
    ("form", "field"),
    [
        ({"email": "ada", "password": PASSWORD}, "e-mail"),
        ({"email": "", "password": ""}, "e-mail"),
        ({"email": "a@b.c\x00d.org", "password": PASSWORD}, "e-mail"),
        ({"email": "new@example.org", "password": "short"}, "8 characters"),
        ({"email": "new@example.org", "password": "1234567890"}, "digits"),
        ({"email": "new@example.org", "password": "new@example.org"}, "not your e-mail"),
        ({"email": "new@example.org", "password": "password123"}, "stranger"),
        ({"email": "new@example.org", "password": PASSWORD, "name": "nul \x00"}, "cannot be read"),
        ({"email": "new@example.org", "password": PASSWORD, "name": "x" * 81}, "at most 80"),
        ({"email": "ADA@example.org", "password": PASSWORD}, "already"),
    ],
)
async def test_a_sign_up_that_cannot_be_is_explained(site: Site, ada: Person, form: dict[str, str], field: str) -> None:
    response = await (await site.visitor()).post("/register", data={"name": "Typed <name>", **form})
    assert response.status_code == 422
    assert field in response.text
    assert "name" in form or "Typed &lt;name&gt;" in response.text


async def test_rights_cannot_be_asked_for(site: Site) -> None:
    visitor = await site.visitor()
    rights = {"is_superuser": "true", "is_staff": "true", "is_verified": "true", "id": "1"}
    await visitor.post("/register", data={"email": "new@example.org", "password": PASSWORD, **rights})
    async with site.session() as session:
        user = (await session.exec(select(User))).one()
    assert not (user.is_superuser or user.is_staff or user.is_verified)


async def test_many_sign_ups_with_one_email_make_one_account(site: Site) -> None:
    visitors = [await site.visitor() for _ in range(6)]
    form = {"email": "new@example.org", "password": PASSWORD}
    replies = await asyncio.gather(*(visitor.post("/register", data=form) for visitor in visitors))
    assert sorted(reply.status_code for reply in replies) == [303, 422, 422, 422, 422, 422]


async def test_sign_up_can_be_switched_off(make_site: MakeSite) -> None:
    visitor = await (await make_site(allow_signup=False)).visitor()
    assert (await visitor.get("/register")).status_code == 404
    form = {"email": "new@example.org", "password": PASSWORD}
    assert (await visitor.post("/register", data=form)).status_code == 404
    assert "/register" not in (await visitor.get("/login")).text


@pytest.mark.parametrize(
    ("email", "password"), [("ada@example.org", "wrong"), ("no@example.org", PASSWORD), ("", ""), ("a\x00", "b\x00")]
)
async def test_a_wrong_sign_in_says_the_same_in_all_cases(site: Site, ada: Person, email: str, password: str) -> None:
    response = await sign_in(await site.visitor(), email, password)
    assert response.status_code == 422
    assert "do not match" in response.text


async def test_a_disabled_account_cannot_sign_in_and_is_out_at_once(site: Site, ada: Person) -> None:
    async with site.session() as session:
        user = await session.get(User, ada.user.id)
        assert user
        user.is_active = False
        session.add(user)
        await session.commit()
    assert (await ada.get("/chat")).status_code == 303
    assert (await sign_in(await site.visitor(), "ada@example.org")).status_code == 422


async def test_signing_in_makes_a_new_session_and_signing_out_ends_it(site: Site, ada: Person) -> None:
    visitor = await site.visitor()
    visitor.cookies.set("session", "planted")
    await sign_in(visitor, "ada@example.org")
    token = next(cookie.value for cookie in visitor.cookies.jar if cookie.value not in ("planted", None))
    thief = await site.visitor(Cookie=f"session={token}")
    assert (await thief.get("/chat")).status_code == 200
    response = await thief.post("/logout")
    assert response.status_code == 303
    assert 'session=""' in response.headers["set-cookie"]
    assert (await thief.get("/chat")).status_code == 303
    assert (await (await site.visitor()).get("/logout")).status_code == 405


async def test_signing_in_again_ends_the_session_before(site: Site, ada: Person) -> None:
    old = ada.browser.cookies["session"]
    await sign_in(ada.browser, "ada@example.org")
    assert (await (await site.visitor(Cookie=f"session={old}")).get("/chat")).status_code == 303


async def test_signing_out_with_a_programs_token_keeps_it(site: Site, ada: Person) -> None:
    async with site.session() as session:
        token, _ = await service.create_token(session, ada.user.id, "api")
    program = await site.visitor(Authorization=f"Bearer {token}")
    await program.post("/logout")
    assert (await program.get("/chat")).status_code == 200


async def test_the_cookie_is_kept_from_scripts_and_other_sites(make_site: MakeSite) -> None:
    key = "k3Jx9-vLq2Zr7_Tn5WbYc8Hd4Fs6GmPa1Ue0"
    live: Site = await make_site(environment="production", secret_key=key)
    await live.person("ada")
    cookie = (await sign_in(await live.visitor(), "ada@example.org")).headers["set-cookie"]
    assert cookie.startswith("__Host-session=")
    assert all(flag in cookie for flag in ("HttpOnly", "Secure", "SameSite=lax", "Path=/"))
    assert "Domain" not in cookie


async def test_who_is_not_signed_in_comes_back_after_signing_in(site: Site, ada: Person) -> None:
    visitor = await site.visitor()
    response = await visitor.get("/settings?saved=profile")
    assert response.headers["location"] == "/login?next=/settings%3Fsaved%3Dprofile"
    response = await sign_in(visitor, "ada@example.org", next="/settings")
    assert response.headers["location"] == "/settings"


BAD = [
    "//evil.example",
    "https://evil.example",
    "http:evil.example",
    "/\\evil.example",
    "\\\\evil.example",
    "/\t/evil.example",
    "javascript:alert(1)",
    "evil.example",
    "",
    " /chat",
    "///evil.example",
    "/\n/evil.example",
    "/\u2028/x",
    "https:///evil.example",
]


@pytest.mark.parametrize("bad", BAD)
async def test_next_never_leaves_the_site(site: Site, ada: Person, bad: str) -> None:
    assert read_next(bad) == "/chat"
    response = await sign_in(await site.visitor(), "ada@example.org", next=bad)
    assert response.headers["location"] == "/chat"


@pytest.mark.parametrize("good", ["/", "/chat/1?x=y#z", "/a//b", "/%5cx", "/ä", "/日本"])
async def test_next_leads_on_inside_the_site(site: Site, ada: Person, good: str) -> None:
    assert read_next(good) == good
    response = await sign_in(await site.visitor(), "ada@example.org", next=good)
    assert unquote(response.headers["location"]) == unquote(good)


async def test_a_name_is_changed(ada: Person) -> None:
    assert (await ada.post("/settings/profile", data={"name": "Ada <King>"})).status_code == 303
    assert "Ada &lt;King&gt;" in (await ada.get("/settings")).text


async def test_a_changed_password_ends_all_other_sessions(site: Site, ada: Person) -> None:
    elsewhere = await site.visitor()
    await sign_in(elsewhere, "ada@example.org")
    new = {"current_password": PASSWORD, "new_password": "another horse 1852"}
    wrong = await ada.post("/settings/password", data={**new, "current_password": "nope"})
    assert wrong.status_code == 422 and "not your current password" in wrong.text
    weak = await ada.post("/settings/password", data={**new, "new_password": "short"})
    assert weak.status_code == 422 and "8 characters" in weak.text
    assert (await elsewhere.get("/chat")).status_code == 200
    changed = await ada.post("/settings/password", data=new)
    assert changed.status_code == 303
    assert (await elsewhere.get("/chat")).status_code == 303
    cookie = changed.headers["set-cookie"].partition(";")[0]
    assert (await (await site.visitor(Cookie=cookie)).get("/chat")).status_code == 200
    assert (await sign_in(await site.visitor(), "ada@example.org")).status_code == 422
    assert (await sign_in(await site.visitor(), "ada@example.org", "another horse 1852")).status_code == 303


async def test_signing_out_everywhere_else_keeps_this_browser(site: Site, ada: Person) -> None:
    elsewhere = await site.visitor()
    await sign_in(elsewhere, "ada@example.org")
    assert (await ada.post("/settings/sessions")).status_code == 303
    assert (await ada.get("/chat")).status_code == 200
    assert (await elsewhere.get("/chat")).status_code == 303


async def test_passwords_are_hashed_beside_the_event_loop(site: Site) -> None:
    """While passwords are hashed the loop goes on turning."""
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count_turns())
    await asyncio.gather(*(hash_password(PASSWORD) for _ in range(4)))
    counting.cancel()
    assert turns > 20


async def test_a_new_secret_key_signs_everybody_out(make_site: MakeSite) -> None:
    """Who can write to the table of tokens, but does not know the key, cannot make one either."""
    first: Site = await make_site(secret_key="k3Jx9-vLq2Zr7_Tn5WbYc8Hd4Fs6GmPa1Ue0")
    ada = await first.person("ada")
    assert (await ada.get("/settings")).status_code == 200
    second: Site = await make_site(secret_key="9xQ2-v9Qx_4mTzR7wLpN0sYb8HcUe3DfGaVi")
    ada.browser.base_url = httpx2.URL(second.url)
    assert (await ada.get("/settings")).status_code == 303


async def test_a_password_that_is_changed_during_a_sign_in_does_not_let_in(site: Site, ada: Person) -> None:
    visitor = await site.visitor()
    async with hashing_place() as queue, hashing_place():
        signing_in = asyncio.create_task(sign_in(visitor, "ada@example.org"))
        async with asyncio.timeout(10):
            while queue.length < 3:  # noqa: ASYNC110 (the queue tells nobody)
                await asyncio.sleep(0.01)
        async with site.session() as session:
            await session.exec(update(User).values(hashed_password="another"))
            await session.commit()
    assert (await signing_in).status_code == 422
    async with site.session() as session:
        assert (await session.exec(select(User))).one().hashed_password == "another"


async def test_a_weaker_hash_is_renewed_at_the_next_sign_in(site: Site, ada: Person) -> None:
    weaker = PasswordHash([Argon2Hasher(memory_cost=8192, time_cost=1)]).hash(PASSWORD)
    async with site.session() as session:
        await session.exec(update(User).values(hashed_password=weaker))
        await session.commit()
    assert (await sign_in(await site.visitor(), "ada@example.org")).status_code == 303
    async with site.session() as session:
        assert "$m=19456,t=2,p=1$" in (await session.exec(select(User))).one().hashed_password
