"""A bucket that is away, slow, or breaks off: what was kept stays, and everybody gets one sentence."""

import asyncio
import random
from collections.abc import AsyncIterator
from io import BytesIO
from typing import NamedTuple

import httpx2
import pytest
from PIL import Image

from app.storage import s3
from tests.bucket import Bucket
from tests.conftest import MakeSite, Person, Site
from tests.files.pictures import draw

pytestmark = pytest.mark.anyio
FAR = 10**9  # bytes


class Gate:
    """Stands between the app and the bucket, and lets so many bytes of each connection through."""

    def __init__(self, endpoint: str) -> None:
        self.bucket = httpx2.URL(endpoint)
        self.up = self.down = FAR
        self.is_stuck = False
        self.writers: set[asyncio.StreamWriter] = set()
        self.links: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self.links.add(task)
        self.writers.add(writer)
        if self.is_stuck:
            return
        answers, questions = await asyncio.open_connection(self.bucket.host, self.bucket.port)
        await asyncio.gather(self.pass_on(reader, questions, "up"), self.pass_on(answers, writer, "down"))

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: str) -> None:
        passed = 0
        try:
            while passed < getattr(self, way) and (data := await reader.read(4096)):
                writer.write(data[: getattr(self, way) - passed])
                await writer.drain()
                passed += len(data)
        except ConnectionError:
            pass
        writer.close()

    def close(self) -> None:
        """Connections that the client keeps go, too: the next request meets what is set now."""
        for writer in self.writers:
            writer.transport.abort()
        self.writers.clear()


@pytest.fixture
async def gate(bucket: Bucket) -> AsyncIterator[Gate]:
    gate = Gate(bucket.endpoint)
    async with await asyncio.start_server(gate.serve, "127.0.0.1") as server:
        bucket.endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield gate
        gate.close()
        await asyncio.gather(*gate.links)


@pytest.fixture
async def site(gate: Gate, bucket: Bucket, make_site: MakeSite) -> Site:
    made: Site = await make_site(**bucket.settings())
    return made


class Shown(NamedTuple):
    address: str
    content: bytes


def make_noise() -> bytes:
    """A picture that stays large when it is drawn anew."""
    file = BytesIO()
    Image.frombytes("RGB", (256, 256), random.Random(1).randbytes(256 * 256 * 3)).save(file, "PNG")
    return file.getvalue()


async def put(person: Person, content: bytes) -> httpx2.Response:
    return await person.post("/settings/picture", files={"picture": ("me.png", content, "image/png")})


async def put_noise(site: Site, person: Person) -> Shown:
    assert (await put(person, make_noise())).status_code == 303
    address = (await person.get("/settings")).text.partition('src="/pictures/')[2].partition('"')[0]
    response = await person.get(f"/pictures/{address}")
    assert response.status_code == 200 and len(response.content) > 40_000
    return Shown(f"/pictures/{address}", response.content)


async def check_nothing_is_lost(person: Person, shown: Shown, bucket: Bucket) -> None:
    assert bucket.list_files() == [shown.address.removeprefix("/pictures/")]
    assert f'src="{shown.address}"' in (await person.get("/settings")).text
    assert (await person.get(shown.address)).content == shown.content


async def test_f34_a_bucket_that_is_away_loses_no_picture(gate: Gate, site: Site, ada: Person, bucket: Bucket) -> None:
    shown = await put_noise(site, ada)
    gate.up = 0
    gate.close()
    refused = await put(ada, draw("PNG"))
    assert refused.status_code == 503
    assert "Nothing is lost" in refused.text and f'src="{shown.address}"' in refused.text
    picture = await ada.get(shown.address)
    assert picture.status_code == 503 and "Nothing is lost" in picture.text
    for page in ("/", "/chat", "/settings"):
        assert (await ada.get(page)).status_code == 200
    gate.up = FAR
    await check_nothing_is_lost(ada, shown, bucket)
    assert (await put(ada, draw("PNG"))).status_code == 303


async def test_f34_a_picture_is_removed_even_so(gate: Gate, site: Site, ada: Person, bucket: Bucket) -> None:
    shown = await put_noise(site, ada)
    gate.up = 0
    gate.close()
    assert (await ada.post("/settings/picture/remove")).status_code == 303
    assert "/pictures/" not in (await ada.get("/settings")).text
    assert (await ada.get(shown.address)).status_code == 404
    assert len(bucket.list_files()) == 1  # bytes that nobody can ask for any more


async def test_f34_an_upload_that_breaks_off_keeps_the_old_picture(
    gate: Gate, site: Site, ada: Person, bucket: Bucket
) -> None:
    shown = await put_noise(site, ada)
    gate.up = 20_000
    gate.close()
    assert (await put(ada, make_noise())).status_code == 503
    gate.up = FAR
    await check_nothing_is_lost(ada, shown, bucket)


@pytest.mark.parametrize("passing", [2_000, 12_000])
async def test_f34_half_a_picture_is_not_taken_for_a_whole_one(
    gate: Gate, site: Site, ada: Person, bucket: Bucket, passing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client goes on where it was cut, three times at the most."""
    shown = await put_noise(site, ada)
    monkeypatch.setattr(s3, "PIECE_LENGTH", 8_000)
    gate.down = passing
    gate.close()
    if 3 * passing < s3.PIECE_LENGTH:
        assert (await ada.get(shown.address)).status_code == 503
    else:  # the answer has begun, so it can only be cut
        with pytest.raises(httpx2.RemoteProtocolError):
            await ada.get(shown.address)
    gate.down = FAR
    await check_nothing_is_lost(ada, shown, bucket)


async def test_f34_a_bucket_that_says_nothing_holds_nobody_up(
    gate: Gate, site: Site, ada: Person, bob: Person, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = await put_noise(site, ada)
    monkeypatch.setattr(s3, "SECONDS", 2)
    gate.is_stuck = True
    gate.close()
    waiting = asyncio.create_task(put(ada, draw("PNG")))
    while not gate.writers:  # noqa: ASYNC110 (the gate tells nobody)
        await asyncio.sleep(0.01)
    for _ in range(10):  # more than there are connections to the database
        assert (await bob.post("/settings/profile", data={"name": "Bob"})).status_code == 303
    assert not waiting.done()
    async with asyncio.timeout(10):
        assert (await waiting).status_code == 503
    gate.is_stuck = False
    gate.close()
    await check_nothing_is_lost(ada, shown, bucket)
