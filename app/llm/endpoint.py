"""The HTTP side of a chat completion: one POST, its body read into a Completion, its failures into LLMErrors."""

import logging
import re
import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from urllib.parse import urlsplit

import httpx2
import msgspec

from app.llm.base import LLMError, Turn
from app.llm.chunks import make_storable
from app.llm.completion import Completion, ReportedError
from app.llm.network import Stream, merge_chunks
from app.llm.problems import Problem, Provider, read_problem, read_report
from app.llm.sse import UnreadableBodyError, choose_parser

HEADERS = {"Content-Type": "application/json", "Accept": "text/event-stream", "Accept-Encoding": "identity"}
LONGEST_ERROR = 64_000  # bytes
LONGEST_LIST = 5_000_000

log = logging.getLogger(__name__)
logging.getLogger("httpx2").setLevel(logging.WARNING)  # below that it logs whole addresses, passwords included


class ModelName(msgspec.Struct):
    id: str


class ModelList(msgspec.Struct):
    data: list[ModelName]


class Endpoint:
    """Keeps its connections open between questions, so it belongs to one event loop."""

    def __init__(
        self, base_url: str, api_key: str, provider: Provider, options: dict[str, object], connect_limit: float
    ) -> None:
        self._url = complete_address(base_url)
        self._api_key = api_key.strip()
        self._provider = provider
        self._options = options
        is_here = is_this_machine(base_url)
        self._client = httpx2.AsyncClient(
            timeout=httpx2.Timeout(None, connect=connect_limit),  # the model watches over all other times
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=20),
            trust_env=not is_here,  # a proxy would not find our own localhost
            verify=trust_nobody() if is_here and base_url.startswith("http:") else True,
        )
        merge_chunks(self._client)

    async def ask(self, turns: Sequence[Turn], completion: Completion) -> None:
        has_answered = False
        try:
            async with self._send(turns) as response:
                has_answered = True
                await read_answer(response, completion)
        except httpx2.ConnectTimeout:
            raise self._provider.make_error("timeout", limit_setting="LLM_CONNECT_TIMEOUT") from None
        except (httpx2.HTTPError, httpx2.InvalidURL):
            raise self._provider.make_error("disconnected" if has_answered else "unreachable") from None
        except ReportedError as error:
            raise self._explain(read_report(error.report)) from None
        except UnreadableBodyError as error:
            code = "no_such_address" if error.is_web_page else "unreadable"
            raise self._provider.make_error(code) from None
        if not completion.finish_reason:
            raise self._provider.make_error("disconnected" if completion.has_begun else "unreadable")

    @asynccontextmanager
    async def _send(self, turns: Sequence[Turn]) -> AsyncIterator[httpx2.Response]:
        """Yield a response that promises an answer. A server that objects to an option is asked without it."""
        while True:
            options = self._options
            async with self._post(write_question(self._provider.model, turns, options)) as response:
                if response.status_code == 200:
                    yield response
                    return
                problem = read_problem(response.status_code, response.headers, await read_start(response))
            if (better := leave_out_offence(options, problem)) == options:
                raise self._explain(problem)
            self._options = better

    def _post(self, content: bytes) -> AbstractAsyncContextManager[httpx2.Response]:
        return self._client.stream("POST", self._url, content=content, headers=HEADERS | self._authorise())

    def _authorise(self) -> dict[str, str]:
        if not self._api_key.isascii() or not self._api_key.isprintable():
            raise self._provider.make_error("unauthorized")
        return {"Authorization": f"Bearer {self._api_key}"} if self._api_key else {}

    async def list_models(self) -> list[str]:
        """Give the names of the models there: a question that costs nothing. Some servers list none."""
        url = self._url.replace("/chat/completions", "/models")
        try:
            async with self._client.stream("GET", url, headers=self._authorise()) as response:
                body = await read_start(response, LONGEST_LIST)
        except (httpx2.HTTPError, httpx2.InvalidURL):
            raise self._provider.make_error("unreachable") from None
        if response.status_code in (404, 405):
            return []
        if response.status_code != 200:
            raise self._explain(read_problem(response.status_code, response.headers, body))
        try:
            return [model.id for model in msgspec.json.decode(body, type=ModelList).data]
        except msgspec.DecodeError:
            raise self._provider.make_error("no_such_address") from None

    def _explain(self, problem: Problem) -> LLMError:
        log.warning("%s: %s (status %d)", self._provider.name, problem.code, problem.status)
        return self._provider.make_error(problem.code, problem.retry_after)

    async def aclose(self) -> None:
        await self._client.aclose()


def complete_address(base_url: str) -> str:
    """People write the base, as their provider's documentation has it, or the whole address."""
    address = urlsplit(base_url)
    path = address.path.rstrip("/").removesuffix("/chat/completions") + "/chat/completions"
    return address._replace(path=path, fragment="").geturl()


def is_this_machine(base_url: str) -> bool:
    host = urlsplit(base_url).hostname or ""
    return host in ("localhost", "::1") or host.endswith(".localhost") or host.startswith("127.")


def trust_nobody() -> ssl.SSLContext:
    """Where no TLS will be spoken there is no need to spend a tenth of a second on loading certificates."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def write_question(model: str, turns: Sequence[Turn], options: dict[str, object]) -> bytes:
    messages = [{"role": turn.role, "content": make_storable(turn.text)} for turn in turns]
    return msgspec.json.encode({"model": model, "messages": messages, "stream": True, **options})


def leave_out_offence(options: dict[str, object], problem: Problem) -> dict[str, object]:
    """Old servers know no stream_options, and OpenAI's newer models call max_tokens by another name."""
    if problem.status not in (400, 422):
        return options
    if "stream_options" in options and "stream_options" in problem.words:
        return {name: value for name, value in options.items() if name != "stream_options"}
    if "max_tokens" in options and re.search("unsupported.*max_completion_tokens", problem.words):
        return {"max_completion_tokens" if name == "max_tokens" else name: options[name] for name in options}
    return options


async def read_start(response: httpx2.Response, length: int = LONGEST_ERROR) -> bytes:
    """An error needs no more than its beginning."""
    body = b""
    async for data in response.aiter_bytes():
        body += data
        if len(body) > length:
            break
    return body


async def read_answer(response: httpx2.Response, completion: Completion) -> None:
    parser = None
    is_compressed = "content-encoding" in response.headers
    with reading_at_pace(response, completion):
        async for data in response.aiter_bytes() if is_compressed else response.aiter_raw():
            parser = parser or choose_parser(data)
            for event in parser.feed(data):
                completion.add(event)
            await completion.wait_for_room()
    if parser:
        with suppress(UnreadableBodyError):  # half an event: the connection was cut where it looks like an end
            for event in parser.finish():
                completion.add(event)


@contextmanager
def reading_at_pace(response: httpx2.Response, completion: Completion) -> Iterator[None]:
    """Let words gather in the socket until the pace: waking up for each costs more than reading ten at once."""
    stream: Stream = response.extensions["network_stream"]

    async def wait_for_pace() -> None:
        if completion.pace and completion.has_text and not completion.finish_reason:
            await completion.pace()

    stream.pace = wait_for_pace
    try:
        yield
    finally:
        stream.pace = None  # the connection will be used again
