"""Files of a feature that somebody adds, with nothing but what docs/files.md says."""

from pathlib import Path

import httpx2
import pytest
from fastapi import Request, Response
from sqlmodel import select

from app.auth.dependencies import CurrentUser
from app.database import SessionDep
from app.files.models import File
from app.files.responses import send_file
from app.files.service import save_file
from app.files.uploads import open_upload
from tests.conftest import MakeSite, Person, Site

pytestmark = pytest.mark.anyio
LENGTH = 2_000_000


async def attach(request: Request, session: SessionDep, person: CurrentUser) -> Response:
    await session.commit()
    async with open_upload(request, "file", LENGTH) as upload:
        file = await save_file(session, request.app.state.storage, person.id, upload.read(), "text/plain")
    session.add(file)
    await session.commit()
    return Response(status_code=201)


async def show(request: Request, session: SessionDep, person: CurrentUser) -> Response:
    file = (await session.exec(select(File).where(File.owner_id == person.id))).one()
    return send_file(request, request.app.state.storage, file)


@pytest.fixture
async def site(make_site: MakeSite, tmp_path: Path) -> Site:
    made: Site = await make_site(uploads=str(tmp_path / "uploads"))
    for method, route in (("POST", attach), ("GET", show)):
        made.app.add_api_route("/letters", route, methods=[method], response_model=None)
    return made


async def put(person: Person, content: bytes) -> httpx2.Response:
    return await person.post("/letters", files={"file": ("letter.txt", content, "text/html")})


async def test_a_file_comes_back_as_it_was(ada: Person) -> None:
    content = b"<b>Dear Bob</b> " * 100_000  # of many pieces
    assert (await put(ada, content)).status_code == 201
    shown = await ada.get("/letters")
    assert shown.content == content
    assert shown.headers["content-type"].startswith("text/plain")
    assert shown.headers["content-security-policy"] == "default-src 'none'; sandbox"


async def test_what_is_wrong_with_an_upload_is_a_page(ada: Person) -> None:
    assert (await put(ada, bytes(LENGTH))).status_code == 201
    for length in (LENGTH + 1, 2 * LENGTH):
        too_large = await put(ada, bytes(length))
        assert too_large.status_code == 413 and "larger than 2 MB" in too_large.text
    empty = await put(ada, b"")
    assert empty.status_code == 422 and "Choose a file first." in empty.text


async def test_without_a_place_an_upload_is_a_sentence(make_site: MakeSite) -> None:
    site = await make_site(uploads="off")
    site.app.add_api_route("/letters", attach, methods=["POST"], response_model=None)
    refused = await put(await site.person("ada"), b"Dear Bob")
    assert refused.status_code == 503 and "This site takes no files." in refused.text
