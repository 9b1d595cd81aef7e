"""Models that talk to a scripted provider."""

import json
import socket
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from typing import Any, NamedTuple

import pytest

from app.llm.base import Finish, LanguageModel, Turn, Usage
from app.llm.local_server import LocalServer, start_local_server
from app.llm.openai import OpenAIModel, TimeLimits
from app.settings import Settings
from tests.provider import Provider

Script = Callable[..., str]


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
