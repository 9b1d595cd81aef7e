"""The same promises from a folder and from a bucket; and what is said where there is neither."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from app.settings import ROOT, Settings
from app.storage import NO_PLACE, READ_ONLY, SWITCHED_OFF, NoStorage, Storage, StorageError, choose_storage, s3
from app.storage.local import NO_ROOM, LocalStorage
from app.storage.s3 import S3Storage
from tests.bucket import SECRET, Bucket, Buckets
from tests.services import miss

pytestmark = pytest.mark.anyio
CONTENT = bytes(range(256)) * 1000  # of several pieces


@pytest.fixture(params=["folder", "bucket"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "folder":
        return choose_storage(Settings(uploads=str(tmp_path / "some" / "uploads")))
    bucket: Bucket = request.getfixturevalue("bucket")
    return choose_storage(Settings(**bucket.settings()))


async def read(storage: Storage, key: UUID) -> bytes:
    async with aclosing(storage.read(key)) as pieces:
        return b"".join([piece async for piece in pieces])


async def test_what_is_saved_is_read_in_pieces_until_it_is_deleted(storage: Storage) -> None:
    key = uuid4()
    assert storage.fault is None
    assert not await storage.exists(key)
    await storage.save(key, CONTENT)
    assert await storage.exists(key)
    async with aclosing(storage.read(key)) as pieces:
        lengths = [len(piece) async for piece in pieces]
    assert len(lengths) > 1 and sum(lengths) == len(CONTENT)
    assert await read(storage, key) == CONTENT
    await storage.delete(key)
    assert not await storage.exists(key)


async def test_what_is_not_there_is_said_before_the_first_piece(storage: Storage) -> None:
    with pytest.raises(FileNotFoundError):
        await read(storage, uuid4())
    await storage.delete(uuid4())  # what is gone already is no fault


async def test_nothing_but_the_file_is_left_in_the_folder(tmp_path: Path) -> None:
    storage, key = LocalStorage(tmp_path / "uploads"), uuid4()
    await storage.save(key, CONTENT)
    assert [file.name for file in storage.folder.iterdir()] == [str(key)]
    assert storage.folder.stat().st_mode & 0o077 == 0


async def test_a_bucket_holds_files_in_its_folder(bucket: Bucket) -> None:
    key = uuid4()
    await choose_storage(Settings(**bucket.settings())).save(key, CONTENT)
    assert (bucket.folder / "files" / str(key)).read_bytes() == CONTENT


async def test_a_full_disk_keeps_no_half_of_a_file(tmp_path: Path) -> None:
    program = (
        "import asyncio, uuid; from pathlib import Path; from app.storage.local import LocalStorage\n"
        f"storage = LocalStorage(Path({str(tmp_path)!r}))\n"
        "try: asyncio.run(storage.save(uuid.uuid4(), bytes(2_000_000)))\n"
        "except Exception as error: print(type(error).__name__, error)\n"
        "print(list(storage.folder.iterdir()))"
    )
    assert await asyncio.to_thread(run_on_small_disk, tmp_path, "rw", program) == f"StorageError {NO_ROOM}\n[]\n"


def run_on_small_disk(folder: Path, mode: str, program: str) -> str:
    """Run Python where a folder is a disk of one megabyte, or one that is read-only."""
    if sys.platform != "linux" or os.geteuid():
        miss("A small disk can be mounted by root on Linux only")
    mount = f'mount -t tmpfs -o size=1m,{mode} none "{folder}" && exec "{sys.executable}" -c "$0"'
    command = ["unshare", "-m", "sh", "-c", mount, program]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout


# --- What is chosen ------------------------------------------------------------------------------------------------

PRODUCTION = {"environment": "production", "secret_key": "k3Jx9-vLq2Zr7_Tn5WbYc8Hd4Fs6GmPa1Ue0"}


def choose(**settings: str) -> Storage:
    return choose_storage(Settings(**settings))  # type: ignore[arg-type]


def test_development_has_a_folder_and_production_only_what_is_named(tmp_path: Path) -> None:
    chosen = choose(uploads="")
    assert isinstance(chosen, LocalStorage) and chosen.folder == ROOT / "uploads"
    assert not chosen.folder.exists()  # it is made with the first file
    assert choose(uploads="", **PRODUCTION).fault == NO_PLACE
    assert isinstance(choose(uploads=str(tmp_path), **PRODUCTION), LocalStorage)
    assert choose(uploads="off").fault == SWITCHED_OFF


async def test_without_a_place_nothing_is_kept_and_nothing_breaks() -> None:
    nothing = NoStorage(NO_PLACE)
    with pytest.raises(StorageError, match="UPLOADS"):
        await nothing.save(uuid4(), CONTENT)
    with pytest.raises(FileNotFoundError):
        await read(nothing, uuid4())
    assert not await nothing.exists(uuid4())


async def test_a_folder_that_cannot_be_written_to_is_no_place(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert choose(uploads=str(tmp_path / "file" / "uploads")).fault == READ_ONLY
    program = f"from app.storage import *; print(choose_storage(Settings(uploads='{tmp_path}/some/uploads')).fault)"
    assert await asyncio.to_thread(run_on_small_disk, tmp_path, "ro", program) == f"{READ_ONLY}\n"


def test_no_client_is_loaded_before_the_first_file(bucket: Bucket) -> None:
    program = (
        "import sys; from app.main import create_app; from app.settings import Settings;"
        f"app = create_app(Settings(**{bucket.settings()!r})); print({{'obstore', 'PIL'}} & set(sys.modules))"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout == "set()\n"


# --- A bucket that is not as it should be ----------------------------------------------------------------------------


async def fail(storage: Storage, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing gets through, one sentence for the person, and no secret anywhere."""
    key = uuid4()
    for attempt in (storage.save(key, CONTENT), read(storage, key), storage.exists(key), storage.delete(key)):
        with pytest.raises(StorageError, match="Nothing is lost"):
            await attempt
    assert caplog.records
    assert SECRET not in caplog.text


async def test_wrong_keys_open_nothing(bucket: Bucket, caplog: pytest.LogCaptureFixture) -> None:
    await fail(choose_storage(Settings(**bucket.settings(s3_secret_key="another"))), caplog)
    await fail(choose_storage(Settings(**bucket.settings(s3_access_key="SOMEBODY"))), caplog)
    assert bucket.list_files() == []


async def test_a_missing_bucket_keeps_nothing(buckets: Buckets, caplog: pytest.LogCaptureFixture) -> None:
    missing = Bucket(buckets.endpoint, buckets.folder / "missing")
    with pytest.raises(StorageError):
        await choose_storage(Settings(**missing.settings())).save(uuid4(), CONTENT)
    assert "The bucket missing is not there" in caplog.text


async def test_keys_of_the_environment_are_not_mixed_in(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts that run on Amazon put theirs there."""
    for name in ("AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_SKIP_SIGNATURE"):
        monkeypatch.setenv(name, "true")
    await choose_storage(Settings(**bucket.settings())).save(uuid4(), CONTENT)
    assert len(bucket.list_files()) == 1


@asynccontextmanager
async def server(answer: bytes | None) -> AsyncIterator[str]:
    """A server that says the same to everybody, or nothing for ever."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        links.append(writer)
        await reader.readuntil(b"\r\n\r\n")
        if answer is not None:
            writer.write(answer)
            writer.close()

    links: list[asyncio.StreamWriter] = []

    async with await asyncio.start_server(serve, "127.0.0.1") as listening:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        for link in links:
            link.close()
        await asyncio.gather(*(link.wait_closed() for link in links), return_exceptions=True)


async def test_a_bucket_that_is_away_is_one_sentence(bucket: Bucket, caplog: pytest.LogCaptureFixture) -> None:
    async with server(b"") as gone:
        pass
    await fail(choose_storage(Settings(**bucket.settings(s3_endpoint=gone))), caplog)
    async with server(b"HTTP/1.1 500 Broken\r\nContent-Length: 0\r\n\r\n") as broken:
        await fail(choose_storage(Settings(**bucket.settings(s3_endpoint=broken))), caplog)
    async with server(b"") as silent:
        await fail(choose_storage(Settings(**bucket.settings(s3_endpoint=silent))), caplog)


async def test_a_bucket_that_says_nothing_is_given_up(
    bucket: Bucket, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "SECONDS", 0.3)
    async with server(None) as hanging:
        storage = choose_storage(Settings(**bucket.settings(s3_endpoint=hanging)))
        assert isinstance(storage, S3Storage)
        async with asyncio.timeout(10):
            await fail(storage, caplog)


async def test_a_file_that_is_cut_is_no_whole_file(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    head = (
        b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nETag: "x"\r\nLast-Modified: Wed, 25 Nov 2026 10:00:00 GMT\r\n\r\n'
    )
    async with server(head + b"half") as cutting:
        with pytest.raises(StorageError):
            await read(choose_storage(Settings(**bucket.settings(s3_endpoint=cutting))), uuid4())
