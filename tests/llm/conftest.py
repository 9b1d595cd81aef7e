"""A server that plays the provider, in a process of its own, and models that talk to it."""

import json
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import urlopen
from uuid import uuid4

import pytest

from app.llm.base import Finish, LanguageModel, Turn, Usage
from app.llm.local_server import LocalServer, start_local_server
from app.llm.openai import OpenAIModel, TimeLimits
from app.settings import Settings

Script = Callable[..., str]


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    script = Path(__file__).parents[1] / "model_server.py"
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


@pytest.fixture
async def make_model(provider: Provider) -> AsyncGenerator[Callable[..., OpenAIModel], None]:
    models: list[OpenAIModel] = []

    def make(base_url: str = "", key: str = "sk-top-secret", **values: Any) -> OpenAIModel:
        values = {"limits": TimeLimits(2, 2, 2), "pauses": (0, 0)} | values
        model = OpenAIModel(base_url or f"{provider.url}/v1", provider.model_name, key, **values)
        models.append(model)
        return model

    yield make
    for model in models:
        await model.aclose()


class Answer(NamedTuple):
    pieces: list[str]
    usage: Usage | None
    finish: Finish | None

    @property
    def text(self) -> str:
        return "".join(self.pieces)


Ask = Callable[..., Any]


@pytest.fixture
def ask(make_model: Callable[..., OpenAIModel]) -> Ask:
    """Ask a question, by default of a fresh model, and collect the whole answer in `answer` while it comes."""

    async def ask_model(
        question: str, model: LanguageModel | None = None, answer: Answer | None = None, **options: Any
    ) -> Answer:
        pieces: list[str] = answer.pieces if answer else []
        usage: Usage | None = None
        finish: Finish | None = None
        question = f"SCRIPT: {question} {json.dumps(options)}" if options else question
        async with aclosing((model or make_model()).stream([Turn("user", question)])) as stream:
            async for item in stream:
                match item:
                    case str():
                        assert finish is None and item
                        pieces.append(item)
                    case Usage():
                        assert usage is None
                        usage = item
                    case Finish():
                        finish = item
        return Answer(pieces, usage, finish)

    return ask_model


@pytest.fixture
def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


@pytest.fixture(scope="session")
def local_server() -> Iterator[LocalServer]:
    pytest.importorskip("xllamacpp")
    with start_local_server(Settings(local_llm="on")) as server:
        assert server
        yield server
