"""Asks any server that speaks chat completions: OpenRouter, OpenAI, Ollama, vLLM, llama.cpp and others."""

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

from app.llm.base import Finish, LLMError, Pace, Turn, Usage
from app.llm.problems import Provider, name_provider

if TYPE_CHECKING:
    from app.llm.completion import Completion
    from app.llm.endpoint import Endpoint
    from app.settings import Settings

PAUSES = (0.25, 1.0)  # seconds before the second and the third attempt
LONGEST_PAUSE = 5.0  # a provider that asks for more patience than this gets its error shown instead
PASSING = ("unreachable", "rate_limited", "provider_error", "loading")
SECONDS_FOR_USAGE = 2.0  # how long the count of tokens may follow after the end of an answer
SECONDS_AFTER_DONE = 0.1  # a body that is read to its end leaves a connection that can be used again


class TimeLimits(NamedTuple):
    """In seconds: LLM_CONNECT_TIMEOUT, LLM_FIRST_TOKEN_TIMEOUT and LLM_TOKEN_TIMEOUT."""

    connect: float = 5
    first_token: float = 60
    token: float = 30

    @classmethod
    def from_settings(cls, settings: "Settings") -> "TimeLimits":
        return cls(settings.llm_connect_timeout, settings.llm_first_token_timeout, settings.llm_token_timeout)


class OpenAIModel:
    def __init__(
        self,
        base_url: str,
        name: str,
        api_key: str = "",
        *,
        provider: Provider | None = None,
        label: str = "",
        context_tokens: int = 8000,
        max_tokens: int = 2000,
        limits: TimeLimits | None = None,
        pauses: Sequence[float] = PAUSES,
        **options: object,
    ) -> None:
        self.name = name
        self.label = label or name
        self.context_tokens = context_tokens
        self._base_url = base_url
        self._api_key = api_key
        self._provider = provider or name_provider(base_url, name, "LLM_API_KEY")
        self._limits = limits or TimeLimits()
        self._pauses = pauses
        self._options = {limit_name(base_url): max_tokens, "stream_options": {"include_usage": True}, **options}
        self._endpoint: Endpoint | None = None
        self._opening = asyncio.Lock()

    async def stream(
        self, turns: Sequence[Turn], pace: Pace | None = None
    ) -> AsyncGenerator[str | Usage | Finish, None]:
        """A task beside this one reads the network, so that a piece is all that has gathered, not one token."""
        endpoint = await self._open_endpoint()
        from app.llm.completion import Completion

        completion = Completion(pace)
        async with run_beside(self._receive(endpoint, turns, completion), completion.wake) as receiving:
            while not receiving.done() and not completion.finish_reason:
                await self._wait_for_news(completion)
                if text := completion.take_text():
                    yield text
            if completion.finish_reason:
                await asyncio.wait([receiving], timeout=SECONDS_AFTER_DONE if completion.is_done else SECONDS_FOR_USAGE)
            if text := completion.take_text():
                yield text
            if not completion.finish_reason:
                receiving.result()
        if not completion.has_text:
            raise self._provider.make_error(completion.explain_silence())
        if completion.usage:
            yield completion.usage
        yield Finish(completion.finish_reason or "stop")

    async def _wait_for_news(self, completion: "Completion") -> None:
        if completion.has_begun:
            limit, setting = self._limits.token, "LLM_TOKEN_TIMEOUT"
        else:
            limit, setting = self._limits.first_token, "LLM_FIRST_TOKEN_TIMEOUT"
        try:
            await completion.wait_for_news(limit)
        except TimeoutError:
            raise self._provider.make_error("timeout", limit_setting=setting) from None

    async def _receive(self, endpoint: "Endpoint", turns: Sequence[Turn], completion: "Completion") -> None:
        """Ask, and ask again when something passing went wrong before the model had begun."""
        pauses = iter(self._pauses)
        while True:
            try:
                return await endpoint.ask(turns, completion)
            except LLMError as error:
                pause = max(next(pauses, math.inf), error.retry_after or 0)
                if error.code not in PASSING or completion.has_begun or pause > LONGEST_PAUSE:
                    raise
            await asyncio.sleep(pause)

    async def _open_endpoint(self) -> "Endpoint":
        """Load the HTTP client only for the first question, and in a thread: it takes a third of a second."""
        async with self._opening:
            if self._endpoint is None:
                self._endpoint = await asyncio.to_thread(self._make_endpoint)
        return self._endpoint

    def _make_endpoint(self) -> "Endpoint":
        from app.llm.endpoint import Endpoint

        try:
            return Endpoint(self._base_url, self._api_key, self._provider, self._options, self._limits.connect)
        except ValueError:  # an address that nobody can read
            raise self._provider.make_error("unreachable") from None

    async def list_models(self) -> list[str]:
        """Ask for the names of the models there; none where the server lists none. What fails is an LLMError."""
        return await (await self._open_endpoint()).list_models()

    async def aclose(self) -> None:
        if self._endpoint:
            await self._endpoint.aclose()
            self._endpoint = None


def limit_name(base_url: str) -> str:
    """OpenAI's own models have a new name for this option; the rest of the world keeps the old one."""
    return "max_completion_tokens" if "//api.openai.com" in base_url else "max_tokens"


@asynccontextmanager
async def run_beside(
    work: Coroutine[None, None, None], when_over: Callable[[], None]
) -> AsyncIterator[asyncio.Task[None]]:
    """Run something next to the block, and never longer than the block."""
    task = asyncio.create_task(work)
    task.add_done_callback(lambda _: when_over())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
