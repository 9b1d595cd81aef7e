"""The first admin on a host without a shell, and an admin who lost the password (T55 in the list of attacks)."""

import asyncio
import re
from collections import Counter
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import text, update
from sqlmodel import col, select

from app.auth.models import AccessToken, SetupAttempt, SetupToken, User
from app.database import now
from app.settings import ROOT
from tests.conftest import PASSWORD, MakeSite, Person, Site, known_hash
from tests.management.conftest import Oppman, run_in  # noqa: F401 (a fixture)

pytestmark = pytest.mark.anyio

TOKEN = "k3Jx9-vLq2Zr7_Tn5WbYc8Hd4Fs6GmPa1Ue0"
OTHER_TOKEN = "m8Qw3_xRt5Lk1-Vb9NzHp2Jc7Gd4FsYa6Te0"
Captured = pytest.CaptureFixture[str]


async def set_up(site: Site, token: str = TOKEN, **form: str) -> httpx2.Response:
    visitor = await site.visitor()
    values = {"token": token, "email": "grace@example.org", "password": PASSWORD, "name": "Grace", **form}
    return await visitor.post("/setup", data=values)


async def recover(site: Site, token: str = TOKEN, **form: str) -> httpx2.Response:
    visitor = await site.visitor()
    return await visitor.post(
        "/recover", data={"token": token, "email": "grace@example.org", "password": "another horse 1843", **form}
    )


async def visit(site: Site, path: str = "/setup") -> httpx2.Response:
    return await (await site.visitor()).get(path)


async def list_admins(site: Site) -> list[str]:
    async with site.session() as session:
        return list(await session.exec(select(User.email).where(col(User.is_superuser))))


async def count_rows(site: Site, table: type[Any]) -> int:
    async with site.session() as session:
        return len((await session.exec(select(table))).all())


def read_token(log: str) -> str:
    (token,) = re.findall(r"^SETUP TOKEN (\S{43}) opens /setup until \d\d:\d\d UTC", log, re.MULTILINE)
    return str(token)


async def drop_tables(site: Site) -> None:
    """As a new database is."""
    async with site.app.state.database.engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            await connection.execute(text("DROP SCHEMA public CASCADE"))
            await connection.execute(text("CREATE SCHEMA public"))
            return
        newest_first = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY rowid DESC"
        for name in (await connection.execute(text(newest_first))).scalars():
            await connection.execute(text(f"DROP TABLE {name}"))


# --- The first admin ---------------------------------------------------------------------------------------------


async def test_t55_setup_token_opens_setup_once(make_site: MakeSite) -> None:
    site = await make_site(setup_token=TOKEN)
    page = await visit(site)
    assert page.status_code == 200 and "The value of SETUP_TOKEN" in page.text

    visitor = await site.visitor()
    form = {"token": f" {TOKEN} ", "email": " Grace@Example.org", "password": PASSWORD}
    made = await visitor.post("/setup", data=form)
    assert (made.status_code, made.headers["location"]) == (303, "/chat")
    assert (await visitor.get("/admin/")).status_code == 200

    assert await list_admins(site) == ["grace@example.org"]
    again = await set_up(site, email="mallory@example.org")
    assert again.status_code == 404
    assert await list_admins(site) == ["grace@example.org"]


async def test_t55_once_there_is_an_admin_the_page_is_like_any_that_is_not_there(
    make_site: MakeSite, capsys: Captured
) -> None:
    site = await make_site(setup_token=TOKEN, recovery_token="")
    await site.person("grace", is_superuser=True)
    nothing = await visit(site, "/nope")
    for response in [await visit(site), await set_up(site), await set_up(site, "wrong"), await visit(site, "/recover")]:
        assert (response.status_code, response.text) == (404, nothing.text)
        assert dict(response.headers) | {"date": ""} == dict(nothing.headers) | {"date": ""}
    assert await count_rows(site, SetupAttempt) == 0
    assert capsys.readouterr().err == ""


async def test_t55_a_token_is_told_to_the_log_at_the_first_visit_only(make_site: MakeSite, capsys: Captured) -> None:
    site, twin = await make_site(), await make_site()
    await visit(site, "/login")
    assert capsys.readouterr() == ("", "")

    pages = await asyncio.gather(*(visit(one) for one in [site, twin] * 5))
    token = read_token(capsys.readouterr().err)
    assert {page.status_code for page in pages} == {200}
    assert all("begins with SETUP TOKEN" in page.text and token not in page.text for page in pages)
    async with site.session() as session:
        stored = (await session.exec(select(SetupToken))).one()
    assert token not in stored.token and "token=" not in repr(stored)

    assert (await set_up(twin, token)).status_code == 303
    assert await count_rows(site, SetupToken) == 0
    assert (await visit(site)).status_code == 404
    assert capsys.readouterr().err == ""


async def test_t55_a_token_of_the_log_expires(make_site: MakeSite, capsys: Captured) -> None:
    site = await make_site()
    await visit(site)
    old = read_token(capsys.readouterr().err)
    async with site.session() as session:
        await session.exec(update(SetupToken).values(expires_at=now() - timedelta(seconds=1)))
        await session.commit()
    assert (await set_up(site, old)).status_code == 422

    assert await list_admins(site) == []
    new = read_token(capsys.readouterr().err)
    assert (await set_up(site, old)).status_code == 422
    assert (await set_up(site, new)).status_code == 303


async def test_t55_a_token_of_the_log_opens_nothing_where_one_is_set(make_site: MakeSite, capsys: Captured) -> None:
    await visit(await make_site())
    token = read_token(capsys.readouterr().err)
    site = await make_site(setup_token=TOKEN)
    assert (await set_up(site, token)).status_code == 422
    assert (await set_up(site)).status_code == 303


async def test_t55_a_token_is_no_use_after_a_restart_or_on_another_instance(
    make_site: MakeSite, capsys: Captured
) -> None:
    site, twin = await make_site(), await make_site()
    await visit(site)
    token = read_token(capsys.readouterr().err)
    assert (await set_up(site, token)).status_code == 303
    restarted = await make_site()
    for place in (site, twin, restarted, await make_site(setup_token=TOKEN)):
        assert (await set_up(place, token, email="mallory@example.org")).status_code == 404
        assert (await set_up(place, TOKEN, email="mallory@example.org")).status_code == 404
    assert await list_admins(site) == ["grace@example.org"]


async def test_t55_of_a_hundred_at_once_one_becomes_admin(make_site: MakeSite, monkeypatch: pytest.MonkeyPatch) -> None:
    # Hashing would let them through two at a time; without it all of them meet at the lock.
    monkeypatch.setattr("app.auth.service.hash_password", lambda password: known_hash())
    await known_hash()
    sites = [await make_site(setup_token=TOKEN), await make_site(setup_token=TOKEN)]
    ends = await asyncio.gather(*(set_up(sites[n % 2], email=f"grace{n}@example.org") for n in range(100)))
    statuses = Counter(end.status_code for end in ends)
    assert statuses[303] == 1 and statuses.keys() <= {303, 404, 503}  # 503: a slow machine ran out of connections
    assert await count_rows(sites[0], User) == 1


async def test_t55_after_five_wrong_tokens_everybody_waits(make_site: MakeSite) -> None:
    sites = [await make_site(setup_token=TOKEN), await make_site(setup_token=TOKEN, recovery_token=OTHER_TOKEN)]
    ends = await asyncio.gather(*(set_up(sites[n % 2], f"wrong{n}") for n in range(20)))
    assert Counter(end.status_code for end in ends) == {422: 5, 429: 15}

    for late in (await set_up(sites[0]), await recover(sites[1], OTHER_TOKEN)):
        assert late.status_code == 429
        assert 880 < int(late.headers["retry-after"]) <= 900
        assert "too many wrong tokens. Try again in 15 minutes." in late.text
    assert await list_admins(sites[0]) == []

    async with sites[0].session() as session:
        await session.exec(update(SetupAttempt).values(tried_at=now() - timedelta(minutes=15)))
        await session.commit()
    assert (await set_up(sites[0])).status_code == 303
    assert await count_rows(sites[0], SetupAttempt) == 0


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"password": "password123"}, "first that a stranger would try"),
        ({"password": "grace@example.org"}, "not your e-mail"),
        ({"email": "grace"}, "Write a whole e-mail address"),
        ({"email": "ada@example.org"}, "There is an account with this e-mail already."),
        ({"token": ""}, "This is not the token"),
        ({"token": "é\ud800"}, "This is not the token"),
    ],
)
async def test_t55_a_form_that_is_refused_keeps_the_door_as_it_is(
    make_site: MakeSite, form: dict[str, str], words: str
) -> None:
    site = await make_site(setup_token=TOKEN)
    await site.person("ada")
    body = {name: value.encode(errors="surrogatepass").decode("latin-1") for name, value in form.items()}
    refused = await set_up(site, **{"token": TOKEN, **body})
    assert refused.status_code == 422 and words in refused.text
    assert await list_admins(site) == []
    assert (await set_up(site)).status_code == 303


async def test_t55_the_token_is_nowhere_but_in_the_form(make_site: MakeSite, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    site = await make_site(setup_token=TOKEN, recovery_token=OTHER_TOKEN)
    visitor = await site.visitor()
    form = {"email": "grace@example.org", "password": "short"}
    pages = [
        await visitor.get("/setup"),
        await visitor.get("/recover"),
        await visitor.post("/setup", data={**form, "token": TOKEN}),
        await visitor.post("/setup", data={**form, "token": "wrong-guess-1843"}),
        await visitor.post("/recover", data={**form, "token": OTHER_TOKEN}),
    ]
    for page in pages:
        assert page.headers["cache-control"] == "no-store" and page.headers["referrer-policy"] == "no-referrer"
        assert '<form class="stack" method="post" action="/' in page.text and 'type="password" value=""' in page.text
    pages.append(await visitor.post("/setup", data={**form, "token": TOKEN, "password": PASSWORD}))
    seen = "".join(page.text + str(page.headers) for page in pages)
    assert '"POST /setup HTTP/1.1" 303' in caplog.text
    for secret in (TOKEN, OTHER_TOKEN, "wrong-guess-1843", PASSWORD):
        assert secret not in seen and secret not in caplog.text
    assert "grace@example.org was made the first admin at /setup" in caplog.text


async def test_t55_another_sites_form_sets_nothing_up(make_site: MakeSite) -> None:
    site = await make_site(setup_token=TOKEN)
    stranger = await site.visitor(**{"Sec-Fetch-Site": "cross-site"})
    form = {"token": TOKEN, "email": "mallory@example.org", "password": PASSWORD}
    assert (await stranger.post("/setup", data=form)).status_code == 403
    assert (await stranger.get("/setup", params=form)).status_code == 200
    assert await list_admins(site) == []


async def test_the_sign_in_page_points_to_setup_while_there_is_no_admin(make_site: MakeSite) -> None:
    site = await make_site()
    assert 'href="/setup"' in (await visit(site, "/login")).text
    await site.person("grace", is_superuser=True)
    assert "/setup" not in (await visit(site, "/login")).text


async def test_t55_an_admin_made_from_a_laptop_signs_in_on_the_server(
    make_site: MakeSite,
    database_url: str,
    run_in: Oppman,  # noqa: F811
) -> None:
    """The laptop needs the server's DATABASE_URL, and nothing else that is secret."""
    person = {"OPPMAN_SUPERUSER_EMAIL": "grace@example.org", "OPPMAN_SUPERUSER_PASSWORD": PASSWORD}
    made = await asyncio.to_thread(run_in, "createsuperuser", "--noinput", DATABASE_URL=database_url, **person)
    assert made == (0, "Superuser created successfully.\n", "")
    site = await make_site(environment="production", secret_key=OTHER_TOKEN, setup_token=TOKEN)
    form = {"email": "grace@example.org", "password": PASSWORD}
    assert (await (await site.visitor()).post("/login", data=form)).status_code == 303
    assert (await set_up(site, email="mallory@example.org")).status_code == 404


# --- A database without tables -----------------------------------------------------------------------------------


async def test_t55_setup_makes_the_tables_for_who_has_the_token(make_site: MakeSite) -> None:
    site = await make_site(setup_token=TOKEN)
    await drop_tables(site)
    assert 'href="/setup"' in (await visit(site, "/login")).text
    assert "The database lacks tables. They are made first" in (await visit(site)).text

    assert (await set_up(site, "wrong")).status_code == 422
    assert (await set_up(site, password="short")).status_code == 422
    assert (await visit(site, "/readyz")).json()["found"] is None

    made = await asyncio.gather(*(set_up(site, email=f"grace{n}@example.org") for n in range(5)))
    assert Counter(end.status_code for end in made) == {303: 1, 404: 4}
    assert (await visit(site, "/readyz")).status_code == 200
    assert len(await list_admins(site)) == 1


async def test_t55_wrong_tokens_are_counted_before_there_are_tables(make_site: MakeSite) -> None:
    site = await make_site(setup_token=TOKEN)
    await drop_tables(site)
    assert [(await set_up(site, "wrong")).status_code for _ in range(6)] == [422] * 5 + [429]
    late = await set_up(site)
    assert late.status_code == 429 and 880 < int(late.headers["retry-after"]) <= 900


async def test_t55_without_tables_only_setup_token_opens_setup(make_site: MakeSite, capsys: Captured) -> None:
    site = await make_site()
    await drop_tables(site)
    page = await visit(site)
    assert "Set SETUP_TOKEN" in page.text and "<form class" not in page.text
    assert (await set_up(site, "")).status_code == 422
    assert (await visit(site, "/readyz")).json()["found"] is None
    assert capsys.readouterr().err == ""


async def test_t55_older_tables_are_brought_up_to_date_and_keep_what_they_hold(make_site: MakeSite) -> None:
    site = await make_site(setup_token=TOKEN)
    await site.person("ada")
    config = Config(ROOT / "alembic.ini", attributes={"url": site.app.state.database.url})
    await asyncio.to_thread(command.downgrade, config, "0001")
    assert (await set_up(site)).status_code == 303
    assert (await visit(site, "/readyz")).status_code == 200
    async with site.session() as session:
        assert set(await session.exec(select(User.email))) == {"ada@example.org", "grace@example.org"}


# --- A lost password ---------------------------------------------------------------------------------------------


async def test_t55_recovery_token_gives_one_admin_a_new_password_once(
    make_site: MakeSite, caplog: pytest.LogCaptureFixture
) -> None:
    site, twin = await make_site(recovery_token=TOKEN), await make_site(recovery_token=TOKEN)
    grace: Person = await site.person("grace", is_superuser=True)
    ada: Person = await site.person("ada")
    assert "A new password for an admin" in (await visit(twin, "/recover")).text

    done = await recover(twin)
    assert (done.status_code, done.headers["location"]) == (303, "/login")
    assert "The password of grace@example.org was changed at /recover" in caplog.text
    assert (await grace.get("/settings")).status_code == 303, "who had the old password is out"
    assert (await ada.get("/settings")).status_code == 200
    form = {"email": "grace@example.org", "password": "another horse 1843"}
    assert (await (await site.visitor()).post("/login", data=form)).status_code == 303
    assert (await (await site.visitor()).post("/login", data=form | {"password": PASSWORD})).status_code == 422

    for place in (site, twin, await make_site(recovery_token=TOKEN)):
        assert (await visit(place, "/recover")).status_code == 404
        assert (await recover(place, password="a third horse 1843")).status_code == 404
    assert (await recover(await make_site(recovery_token=OTHER_TOKEN), OTHER_TOKEN)).status_code == 303


async def test_t55_of_many_recoveries_at_once_one_works(make_site: MakeSite) -> None:
    sites = [await make_site(recovery_token=TOKEN), await make_site(recovery_token=TOKEN)]
    await sites[0].person("grace", is_superuser=True)
    ends = await asyncio.gather(*(recover(sites[n % 2], password=f"another horse {n}") for n in range(20)))
    assert Counter(end.status_code for end in ends) == {303: 1, 404: 19}


@pytest.mark.parametrize("rights", [{}, {"is_staff": True}, {"is_superuser": True, "is_active": False}])
async def test_t55_recovery_is_for_admins_only(make_site: MakeSite, rights: dict[str, bool]) -> None:
    site = await make_site(recovery_token=TOKEN)
    await site.person("grace", **rights)
    for email in ("grace@example.org", "nobody@example.org"):
        refused = await recover(site, email=email)
        assert refused.status_code == 422 and "No admin has this e-mail." in refused.text
    assert await count_rows(site, AccessToken) == 1 and await count_rows(site, SetupToken) == 0


async def test_t55_a_refused_recovery_leaves_the_token_good(make_site: MakeSite) -> None:
    site = await make_site(recovery_token=TOKEN)
    grace: Person = await site.person("grace", is_superuser=True)
    assert (await recover(site, "wrong")).status_code == 422
    assert (await recover(site, password="short")).status_code == 422
    assert (await grace.get("/settings")).status_code == 200
    assert (await recover(site)).status_code == 303
