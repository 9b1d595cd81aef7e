"""A server that plays the provider, in a process of its own."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen
from uuid import uuid4

import pytest


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    script = Path(__file__).with_name("model_server.py")
    with subprocess.Popen([sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout and server.stdin
        yield server.stdout.readline().decode().strip()
        server.stdin.close()


class Provider:
    """What the server says about one model, whose name no other test uses."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.model_name = f"model-{uuid4().hex}"

    def read_log(self, until: str = "") -> dict[str, Any]:
        return self._get(f"log?model={self.model_name}" + (f"&until={until}" if until else ""))

    def release(self) -> None:
        self._get(f"release?model={self.model_name}")

    def _get(self, path: str) -> dict[str, Any]:
        with urlopen(f"{self.url}/{path}", timeout=10) as response:
            document: dict[str, Any] = json.load(response)
            return document


@pytest.fixture
def provider(server_url: str) -> Provider:
    return Provider(server_url)
