"""People's pictures: who may put one, who sees it, and what is left when it goes. In a folder and in a bucket."""

import asyncio
import re
import resource
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest
from sqlmodel import col, select

from app.auth.models import User
from app.auth.routes import PICTURE_LENGTH
from app.files.models import File
from app.storage import NO_PLACE, StorageError
from tests.bucket import Bucket
from tests.conftest import MakeSite, Person, Site
from tests.files.pictures import NO_PICTURES, SVG, TOO_LARGE, draw

pytestmark = pytest.mark.anyio
ADDRESS = re.compile(r'<img class="avatar[^"]*" src="(/pictures/[\w-]+)" alt="">')


@pytest.fixture(params=["folder", pytest.param("bucket", marks=pytest.mark.slow)])
async def site(request: pytest.FixtureRequest, make_site: MakeSite, tmp_path: Path) -> Site:
    if request.param == "folder":
        made: Site = await make_site(uploads=str(tmp_path / "uploads"))
    else:
        bucket: Bucket = request.getfixturevalue("bucket")
        made = await make_site(**bucket.settings())
    made.app.state.kept = tmp_path / "uploads" if request.param == "folder" else bucket.folder / "files"
    return made


def list_kept(site: Site) -> list[str]:
    folder: Path = site.app.state.kept
    return sorted(file.name for file in folder.iterdir()) if folder.exists() else []


async def put(person: Person, content: bytes, name: str = "me.png", kind: str = "image/png") -> httpx2.Response:
    return await person.post("/settings/picture", files={"picture": (name, content, kind)})


async def find_address(person: Person) -> str | None:
    found = ADDRESS.search((await person.get("/settings")).text)
    return found[1] if found else None


async def put_picture(person: Person) -> str:
    response = await put(person, draw("PNG"))
    assert response.status_code == 303, response.text
    address = await find_address(person)
    assert address
    return address


async def list_rows(site: Site) -> list[str]:
    async with site.session() as session:
        return sorted(str(found) for found in await session.exec(select(File.id)))


async def test_a_picture_is_shown_on_every_page_until_it_is_removed(site: Site, ada: Person) -> None:
    assert await find_address(ada) is None
    address = await put_picture(ada)
    for page in ("/settings", "/chat", "/"):
        assert f'src="{address}"' in (await ada.get(page)).text
    shown = await ada.get(address)
    assert shown.content[:4] == b"RIFF" and len(shown.content) == int(shown.headers["content-length"])
    assert (await ada.post("/settings/picture/remove")).headers["location"] == "/settings?saved=no-picture"
    assert await find_address(ada) is None
    assert (await ada.get(address)).status_code == 404
    assert (list_kept(site), await list_rows(site)) == ([], [])
    assert (await ada.post("/settings/picture/remove")).status_code == 303  # twice is no fault


async def test_a_picture_can_do_nothing_in_a_browser(site: Site, ada: Person) -> None:
    headers = (await ada.get(await put_picture(ada))).headers
    assert headers["content-type"] == "image/webp"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert headers["content-disposition"] == "attachment"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["cache-control"].startswith("private") and headers["vary"] == "Cookie"


async def test_a_picture_that_a_browser_has_is_not_sent_again(site: Site, ada: Person, bob: Person) -> None:
    address = await put_picture(ada)
    etag = (await ada.get(address)).headers["etag"]
    again = await ada.get(address, headers={"If-None-Match": etag})
    assert (again.status_code, again.content) == (304, b"")
    assert (await ada.get(address, headers={"If-None-Match": '"other"'})).status_code == 200
    assert (await bob.get(address, headers={"If-None-Match": etag})).status_code == 404


async def test_others_do_not_see_it_and_the_admin_does(site: Site, ada: Person, bob: Person, grace: Person) -> None:
    address = await put_picture(ada)
    await put_picture(bob)
    hidden = await bob.get(address)
    assert hidden.status_code == 404
    assert hidden.text == (await bob.get(f"/pictures/{uuid4()}")).text
    assert (await (await site.visitor()).get(address)).status_code == 303
    assert (await grace.get(address)).status_code == 200
    for page in ("/admin/user/list", f"/admin/user/details/{ada.user.id}"):
        assert f'src="{address}"' in (await grace.get(page)).text
    for wrong in ("/pictures/..%2f..%2fapp%2fmain.py", "/pictures/x", "/pictures/", "/pictures/%00"):
        assert (await ada.get(wrong)).status_code == 404


async def test_a_file_that_is_no_picture_any_more_is_not_shown(site: Site, ada: Person, grace: Person) -> None:
    """Pictures are what this address is for: other files of a person have rules of their own."""
    async with site.session() as session:
        file = File(owner_id=ada.user.id, content_type="text/html", size=0)
        session.add(file)
        await session.commit()
    for person in (ada, grace):
        assert (await person.get(f"/pictures/{file.id}")).status_code == 404


async def test_a_new_picture_takes_the_place_of_the_old(site: Site, ada: Person) -> None:
    first = await put_picture(ada)
    second = await put_picture(ada)
    assert first != second
    assert (await ada.get(first)).status_code == 404
    assert list_kept(site) == await list_rows(site) == [second.removeprefix("/pictures/")]


async def test_pictures_that_come_at_once_leave_one(site: Site, ada: Person) -> None:
    responses = await asyncio.gather(*(put(ada, draw("PNG")) for _ in range(5)))
    assert {response.status_code for response in responses} == {303}
    address = await find_address(ada)
    assert address
    assert list_kept(site) == await list_rows(site) == [address.removeprefix("/pictures/")]


async def test_who_is_deleted_leaves_no_file(site: Site, ada: Person, bob: Person, grace: Person) -> None:
    await put_picture(ada)
    kept = await put_picture(bob)
    assert (await grace.request("DELETE", f"/admin/user/delete?pks={ada.user.id}")).status_code == 200
    assert list_kept(site) == await list_rows(site) == [kept.removeprefix("/pictures/")]


async def test_a_file_whose_bytes_are_gone_is_404(site: Site, ada: Person) -> None:
    address = await put_picture(ada)
    (site.app.state.kept / address.removeprefix("/pictures/")).unlink()
    assert (await ada.get(address)).status_code == 404
    assert (await put(ada, draw("PNG"))).status_code == 303


# --- What is refused -----------------------------------------------------------------------------------------------

EVIL_NAMES = ("../../x.png", "..\\x", "CON", "a" * 300, "x\0.png", "/etc/passwd", "<script>.png", "me.svg", "me.php")


@pytest.fixture
async def local_site(make_site: MakeSite, tmp_path: Path) -> Site:
    made: Site = await make_site(uploads=str(tmp_path / "uploads"))
    made.app.state.kept = tmp_path / "uploads"
    return made


async def test_names_and_claimed_types_are_not_looked_at(local_site: Site) -> None:
    ada = await local_site.person("ada")
    for name in EVIL_NAMES:
        assert (await put(ada, draw("JPEG"), name, "text/html")).status_code == 303
        (kept,) = list_kept(local_site)
        assert str(UUID(kept)) == kept
        assert (await ada.get(f"/pictures/{kept}")).headers["content-type"] == "image/webp"


async def test_what_is_no_picture_leaves_the_old_one(local_site: Site) -> None:
    ada = await local_site.person("ada")
    address = await put_picture(ada)
    for content in (*NO_PICTURES.values(), *TOO_LARGE.values(), b""):
        response = await put(ada, content)
        assert response.status_code == 422
        assert 'id="picture-error"' in response.text and ADDRESS.search(response.text)
    assert (await put(ada, SVG, "me.svg", "image/svg+xml")).status_code == 422
    for form in ({}, {"picture": "text"}):
        assert "Choose a file first" in (await ada.post("/settings/picture", data=form)).text
    two = [("picture", ("a.png", draw("PNG"), "image/png"))] * 2
    assert (await ada.post("/settings/picture", files=two)).status_code == 400
    assert (await ada.post("/settings/picture", content=b"x", headers={"Content-Type": "multipart/form-data"})).is_error
    assert await find_address(ada) == address
    assert list_kept(local_site) == await list_rows(local_site) == [address.removeprefix("/pictures/")]


async def test_other_sites_and_strangers_put_nothing(local_site: Site) -> None:
    ada = await local_site.person("ada")
    picture = {"picture": ("me.png", draw("PNG"), "image/png")}
    evil = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    assert (await ada.post("/settings/picture", files=picture, headers=evil)).status_code == 403
    assert (await (await local_site.visitor()).post("/settings/picture", files=picture)).status_code == 303
    assert list_kept(local_site) == []


async def test_a_large_file_is_refused_on_the_page(local_site: Site) -> None:
    ada = await local_site.person("ada")
    largest = draw("PNG").ljust(PICTURE_LENGTH, b"\0")
    assert (await put(ada, largest)).status_code == 303
    response = await put(ada, largest + b"\0")
    assert response.status_code == 413
    assert "larger than 10 MB" in response.text and 'id="picture-error"' in response.text


class Talk:
    """A request by hand, whose body says one thing of its length and is another."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, *pieces: bytes) -> int:
        """Send until the server has had enough, and give how many bytes that were."""
        sent = 0
        try:
            for piece in pieces:
                self.writer.write(piece)
                await self.writer.drain()
                sent += len(piece)
        except ConnectionError:
            pass
        return sent

    async def read_status(self) -> int:
        async with asyncio.timeout(10):
            return int((await self.reader.readuntil(b"\r\n")).split()[1])


FRAME = b'--x\r\nContent-Disposition: form-data; name="picture"; filename="me.png"\r\n\r\n'


@pytest.fixture
async def ada_and_talk(local_site: Site) -> AsyncIterator[tuple[Person, Any]]:
    ada = await local_site.person("ada")
    url = httpx2.URL(local_site.url)
    writers = []

    async def talk(*headers: str) -> Talk:
        reader, writer = await asyncio.open_connection(url.host, url.port)
        writers.append(writer)
        cookie = f"Cookie: session={ada.browser.cookies['session']}"
        lines = ("POST /settings/picture HTTP/1.1", f"Host: {url.host}", "Accept: text/html", cookie, *headers)
        writer.write("".join(f"{line}\r\n" for line in lines).encode() + b"\r\n")
        return Talk(reader, writer)

    yield ada, talk
    for writer in writers:
        writer.close()
    await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)


MULTIPART = "Content-Type: multipart/form-data; boundary=x"


async def test_a_claimed_length_is_enough_to_refuse(ada_and_talk: tuple[Person, Any]) -> None:
    """The answer comes before a byte of the body."""
    _, talk = ada_and_talk
    assert await (await talk(MULTIPART, "Content-Length: 900000000")).read_status() == 413


async def test_a_body_without_a_length_is_refused_before_its_end(ada_and_talk: tuple[Person, Any]) -> None:
    _, talk = ada_and_talk
    endless = await talk(MULTIPART, "Transfer-Encoding: chunked")
    chunk = b"10000\r\n" + bytes(0x10000) + b"\r\n"
    frame = b"%x\r\n%s\r\n" % (len(FRAME), FRAME)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sending = asyncio.create_task(endless.send(frame, *[chunk] * 1000))  # 65 MB
    assert await endless.read_status() == 413
    assert not sending.done()
    await sending
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 20_000  # KB


async def test_a_picture_that_arrives_slowly_keeps_nobody_waiting(ada_and_talk: tuple[Person, Any]) -> None:
    """On SQLite only one may write at a time, and this is not their time."""
    ada, talk = ada_and_talk
    slow = await talk(MULTIPART, "Content-Length: 100000")
    await slow.send(FRAME + draw("PNG"))
    async with asyncio.timeout(5):
        assert (await ada.post("/settings/profile", data={"name": "Ada King"})).status_code == 303


# --- Nowhere to put it -----------------------------------------------------------------------------------------------


async def test_a_site_without_a_place_says_so_and_works(make_site: MakeSite) -> None:
    key = "k3Jx9-vLq2Zr7_Tn5WbYc8Hd4Fs6GmPa1Ue0"
    site = await make_site(uploads="", environment="production", secret_key=key)
    ada = await site.person("ada")
    ada.browser.headers["Cookie"] = f"__Host-session={ada.browser.cookies['session']}"
    page = await ada.get("/settings")
    assert NO_PLACE in page.text
    assert 'type="file"' not in page.text
    refused = await put(ada, draw("PNG"))
    assert refused.status_code == 409 and NO_PLACE in refused.text


async def test_a_change_that_fails_leaves_the_old_picture(local_site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody knows whether a commit that was cut came through, so the new bytes stay, too."""
    ada = await local_site.person("ada")
    address = await put_picture(ada)

    async def fail(*arguments: object) -> None:
        raise StorageError("The database is away.")

    with monkeypatch.context() as patch:
        patch.setattr("app.auth.pictures.change_picture", fail)
        assert (await put(ada, draw("PNG"))).status_code == 503
    assert (await ada.get(address)).status_code == 200
    assert len(list_kept(local_site)) == 2
    async with local_site.session() as session:
        (user,) = await session.exec(select(User).where(col(User.picture_id).is_not(None)))
        assert f"/pictures/{user.picture_id}" == address
