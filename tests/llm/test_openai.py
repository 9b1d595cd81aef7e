import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from app.llm.base import Finish, LLMError, Turn, Usage
from app.llm.completion import Completion
from app.llm.openai import OpenAIModel, TimeLimits
from tests.llm.conftest import Answer, Ask
from tests.provider import Provider

pytestmark = pytest.mark.anyio

MakeModel = Callable[..., OpenAIModel]
CHUNK = 'data: {"choices":[{"delta":{"content":"%s"}}]}\n\n'
END = 'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
DONE = "data: [DONE]\n\n"


async def fail(ask: Ask, question: str, model: OpenAIModel | None = None, **options: object) -> LLMError:
    with pytest.raises(LLMError) as error:
        await ask(question, model, **options)
    assert "secret" not in error.value.message
    assert "sk-" not in error.value.message
    assert "http" not in error.value.message
    return error.value


async def test_an_answer_has_text_then_usage_then_its_end(ask: Ask) -> None:
    answer = await ask("Hi")
    assert answer.text == "Hello Ada."
    assert answer.usage == Usage(7, 3)
    assert answer.finish == Finish("stop")


async def test_the_whole_conversation_is_sent(provider: Provider, make_model: MakeModel) -> None:
    turns = [Turn("system", "Be brief."), Turn("user", "Hi"), Turn("assistant", "Hello"), Turn("user", "How are you?")]
    async with aclosing(make_model(max_tokens=77).stream(turns)) as stream:
        assert [item async for item in stream]
    entry = provider.read_log()["entries"][0]
    assert entry["request"]["messages"] == [{"role": role, "content": text} for role, text in turns]
    assert entry["request"]["model"] == provider.model_name
    assert entry["request"]["max_tokens"] == 77
    assert entry["headers"]["authorization"] == "Bearer sk-top-secret"


async def test_a_local_server_needs_no_key(ask: Ask, provider: Provider, make_model: MakeModel) -> None:
    assert (await ask("Hi", make_model(key=""))).text == "Hello Ada."
    assert "authorization" not in provider.read_log()["entries"][0]["headers"]


@pytest.mark.parametrize("path", ["/v1", "/v1/", "", "/v1/chat/completions"])
async def test_the_address_may_be_written_in_every_usual_way(
    ask: Ask, provider: Provider, make_model: MakeModel, path: str
) -> None:
    assert (await ask("Hi", make_model(provider.url + path))).text == "Hello Ada."


async def test_what_gathers_in_the_socket_comes_as_one_piece(ask: Ask) -> None:
    answer = await ask("answer", count=2000)
    assert answer.text == "".join(f"{number:03d} "[-4:] for number in range(2000))
    assert len(answer.pieces) < 400


async def test_a_connection_is_used_again(ask: Ask, provider: Provider, make_model: MakeModel) -> None:
    model = make_model()
    for _ in range(3):
        await ask("Hi", model)
    assert provider.read_log()["connections"] == 1


async def test_closing_the_stream_hangs_up(provider: Provider, make_model: MakeModel) -> None:
    async with aclosing(make_model().stream([Turn("user", "SCRIPT: gate")])) as stream:
        assert await anext(stream) == "Hello "
    log = await asyncio.to_thread(provider.read_log, until="hung_up")
    assert log["hung_up"] == 1


async def test_cancelling_the_reader_hangs_up(ask: Ask, provider: Provider) -> None:
    reading = asyncio.create_task(ask("SCRIPT: flood"))
    await asyncio.to_thread(provider.read_log, until="begun")
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    log = await asyncio.to_thread(provider.read_log, until="hung_up")
    assert log["hung_up"] == 1


async def test_text_comes_before_the_answer_is_complete(provider: Provider, make_model: MakeModel) -> None:
    async with aclosing(make_model().stream([Turn("user", "SCRIPT: gate")])) as stream:
        assert await anext(stream) == "Hello "
        provider.release()
        assert [item async for item in stream] == ["Ada.", Finish("stop")]


async def test_a_flood_waits_for_its_reader(make_model: MakeModel) -> None:
    """What nobody takes must wait outside, not in our memory."""
    async with aclosing(make_model().stream([Turn("user", "SCRIPT: flood")])) as stream:
        for _ in range(3):
            assert len(str(await anext(stream))) < 150_000
            await asyncio.sleep(0.2)


@pytest.mark.parametrize(
    ("question", "code", "words"),
    [
        ("SCRIPT: 401", "unauthorized", "LLM_API_KEY"),
        ("SCRIPT: 402", "no_credit", "credit"),
        ("SCRIPT: 403", "forbidden", "LLM_MODEL"),
        ("SCRIPT: 404", "no_such_address", "LLM_BASE_URL"),
        ("SCRIPT: 301", "refused", "LLM_BASE_URL"),
        ("SCRIPT: 400", "refused", "LLM_MODEL"),
        ("SCRIPT: 429", "rate_limited", "Try again in a moment"),
        ("SCRIPT: 500", "provider_error", "Try again"),
        ("SCRIPT: 503", "provider_error", "Try again"),
        ("SCRIPT: 529", "provider_error", "Try again"),
        ("SCRIPT: html", "no_such_address", "LLM_BASE_URL"),
        ("SCRIPT: empty", "unreadable", "LLM_BASE_URL"),
        ("SCRIPT: cut", "disconnected", "Ask again"),
        ("SCRIPT: reset", "disconnected", "Ask again"),
        ("SCRIPT: hangup", "unreachable", "network"),
    ],
)
async def test_each_failure_has_its_own_sentence(ask: Ask, question: str, code: str, words: str) -> None:
    error = await fail(ask, question)
    assert error.code == code
    assert words in error.message


@pytest.mark.parametrize(
    ("status", "message", "code"),
    [
        (404, "The model `gpt-9` does not exist or you do not have access to it.", "no_such_model"),
        (404, 'model "llama9" not found, try pulling it first', "no_such_model"),
        (404, "No endpoints found for gpt-9.", "no_such_model"),
        (400, "gpt-9 is not a valid model ID", "no_such_model"),
        (400, "API key not valid. Please pass a valid API key.", "unauthorized"),
        (400, "This model's maximum context length is 8192 tokens. However, you requested 9000.", "too_long"),
        (400, "request (3031 tokens) exceeds the available context size (1024 tokens)", "too_long"),
        (400, "Your organization must be verified to stream this model.", "forbidden"),
        (400, "Your credit balance is too low to access the API.", "no_credit"),
        (429, "You exceeded your current quota. insufficient_quota", "no_credit"),
        (429, "Rate limit reached for gpt-6-luna. Add a payment method to your billing page.", "rate_limited"),
        (503, "Loading model", "loading"),
    ],
)
async def test_the_providers_words_tell_what_a_status_does_not(ask: Ask, status: int, message: str, code: str) -> None:
    error = await fail(ask, str(status), body={"error": {"message": f"{message} sk-secret"}})
    assert error.code == code


@pytest.mark.parametrize(
    "body", ["<html>Bad gateway secret</html>", "", "secret", [], {"detail": "secret"}, {"error": "secret"}]
)
async def test_an_error_may_have_any_body(ask: Ask, body: object) -> None:
    assert (await fail(ask, "502", body=body)).code == "provider_error"


async def test_a_passing_failure_is_tried_three_times(ask: Ask, provider: Provider) -> None:
    assert (await ask("500", times=2)).text == "Hello Ada."
    assert provider.read_log()["requests"] == 3


async def test_after_three_times_it_is_told(ask: Ask, provider: Provider) -> None:
    await fail(ask, "SCRIPT: 500")
    assert provider.read_log()["requests"] == 3


@pytest.mark.parametrize("question", ["SCRIPT: 401", "SCRIPT: 400", "SCRIPT: cut", "SCRIPT: html"])
async def test_a_lasting_failure_is_asked_once(ask: Ask, provider: Provider, question: str) -> None:
    await fail(ask, question)
    assert provider.read_log()["requests"] == 1


async def test_a_short_retry_after_is_kept(ask: Ask) -> None:
    start = asyncio.get_running_loop().time()
    assert (await ask("429", times=1, headers={"Retry-After": "0.2"})).text == "Hello Ada."
    assert asyncio.get_running_loop().time() - start >= 0.2


async def test_a_long_retry_after_is_told_instead_of_kept(ask: Ask, provider: Provider) -> None:
    error = await fail(ask, "429", headers={"Retry-After": "30"})
    assert error.retry_after == 30
    assert "in 30 seconds" in error.message
    assert provider.read_log()["requests"] == 1


async def test_retry_after_may_be_a_date(ask: Ask) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    error = await fail(ask, "429", headers={"Retry-After": date})
    assert error.retry_after
    assert 3500 < error.retry_after <= 3600
    assert "in 60 minutes" in error.message


@pytest.mark.parametrize("value", ["soon", "", "nan", "inf", "-5", "Mon, 99 Foo"])
async def test_a_strange_retry_after_is_ignored(ask: Ask, value: str) -> None:
    assert (await fail(ask, "429", headers={"Retry-After": value})).retry_after in (None, 0)


async def test_half_an_answer_is_kept_when_the_connection_breaks(ask: Ask) -> None:
    answer = Answer([], None, None)
    with pytest.raises(LLMError, match="middle of the answer"):
        await ask("SCRIPT: cut", answer=answer)
    assert answer.text == "Hello "


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (CHUNK % "Hello", "disconnected"),
        (CHUNK % "Hello" + 'data: {"choices":[{"del', "disconnected"),
        (CHUNK % "Hello" + "data: {broken}\n\n" + CHUNK % "!", "unreadable"),
        ("data: hello\n\n", "unreadable"),
        (": only a comment\n\n", "unreadable"),
        ("data: " + "x" * 1_100_000, "unreadable"),
        (END, "empty"),
        (DONE, "empty"),
        (END.replace("stop", "length") + DONE, "used_up"),
        (END.replace("stop", "content_filter") + DONE, "filtered"),
        (CHUNK % "Hello" + 'data: {"error":{"code":429,"message":"secret"}}\n\n', "rate_limited"),
        (
            CHUNK % "Hello" + 'data: {"error":{"code":"server_error","message":"secret"},"choices":[]}\n\n',
            "provider_error",
        ),
        (CHUNK % "Hello" + 'data: {"error":"secret"}\n\n', "provider_error"),
        (CHUNK % "Hello" + END.replace("stop", "error"), "provider_error"),
        ('{"error":{"code":402,"message":"Insufficient credits"}}', "no_credit"),
    ],
)
async def test_a_broken_stream_fails_cleanly(ask: Ask, body: str, code: str) -> None:
    assert (await fail(ask, "raw", body=body)).code == code


@pytest.mark.parametrize(
    "body",
    [
        CHUNK % "Hello" + END + DONE,
        CHUNK % "Hello" + DONE,
        CHUNK % "Hello" + END,
        CHUNK % "Hello" + DONE.strip(),
        (CHUNK % "Hello" + END + DONE).replace("\n", "\r\n"),
        (CHUNK % "Hello" + END + DONE).replace("data: ", "data:"),
        ": OPENROUTER PROCESSING\n\n" * 3 + CHUNK % "Hel" + ": ping\n\n" + CHUNK % "lo" + END + DONE,
        CHUNK % "Hello" + END + 'data: {"error":{"message":"too late to matter"}}\n\n',
        'data: {"choices":[{"delta":\ndata: {"content":"Hello"}}]}\n\n' + DONE,
        '{"choices":[{"message":{"content":"Hello"},"finish_reason":"stop"}]}',
    ],
)
async def test_every_dialect_of_a_stream_is_understood(ask: Ask, body: str) -> None:
    assert (await ask("raw", body=body, step=7)).text == "Hello"


async def test_a_character_may_be_cut_by_the_network(ask: Ask) -> None:
    assert (await ask("raw", body=CHUNK % "😀é漢" + DONE, step=1)).text == "😀é漢"


async def test_an_answer_that_was_cut_by_its_limit_says_so(ask: Ask) -> None:
    assert (await ask("answer", finish="length")).finish == Finish("length")


async def test_a_server_that_does_not_stream_is_understood(ask: Ask) -> None:
    assert await ask("SCRIPT: json") == Answer(["Hello Ada."], Usage(7, 3), Finish("stop"))


async def test_a_server_may_stay_connected_after_the_end(ask: Ask) -> None:
    assert (await ask("raw", body=CHUNK % "Hello" + DONE, end="hang")).text == "Hello"


@pytest.mark.parametrize(
    ("question", "limits", "setting"),
    [
        ("SCRIPT: mute", TimeLimits(2, 0.1, 20), "LLM_FIRST_TOKEN_TIMEOUT"),
        ("SCRIPT: silent", TimeLimits(2, 0.1, 20), "LLM_FIRST_TOKEN_TIMEOUT"),
        ("SCRIPT: hang", TimeLimits(2, 20, 0.1), "LLM_TOKEN_TIMEOUT"),
    ],
)
async def test_silence_has_a_limit_and_signs_of_life_do_not_count(
    ask: Ask, provider: Provider, make_model: MakeModel, question: str, limits: TimeLimits, setting: str
) -> None:
    error = await fail(ask, question, make_model(limits=limits))
    assert error.code == "timeout"
    assert setting in error.message
    log = await asyncio.to_thread(provider.read_log, until="hung_up")
    assert log["hung_up"] == 1


async def test_thinking_aloud_is_a_sign_of_life_but_no_text(ask: Ask, make_model: MakeModel) -> None:
    thought = 'data: {"choices":[{"delta":{"reasoning_content":"hm"}}]}\n\n'
    body = thought * 3 + CHUNK % "Hello" + DONE
    assert (await ask("raw", make_model(limits=TimeLimits(2, 2, 2)), body=body)).text == "Hello"
    model = make_model(limits=TimeLimits(2, 5, 0.1))
    assert "LLM_TOKEN_TIMEOUT" in (await fail(ask, "raw", model, body=thought, end="hang")).message


async def test_nobody_listens_at_the_address(ask: Ask, make_model: MakeModel, free_port: int) -> None:
    error = await fail(ask, "Hi", make_model(f"http://127.0.0.1:{free_port}/v1"))
    assert error.code == "unreachable"
    assert "LLM_BASE_URL" in error.message


@pytest.mark.parametrize(
    "address",
    ["http://", "ftp://example.org", "http://ada:secret@127.0.0.1:1/v1", "http://[", "http://a b", "nonsense"],
)
async def test_an_address_that_cannot_work_is_an_error_like_others(
    ask: Ask, make_model: MakeModel, address: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert (await fail(ask, "Hi", make_model(address))).code == "unreachable"
    assert "secret" not in caplog.text


async def test_a_password_in_the_address_is_used_and_never_logged(
    ask: Ask, provider: Provider, make_model: MakeModel, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert (await ask("Hi", make_model(provider.url.replace("//", "//ada:secret@"), key=""))).text == "Hello Ada."
    assert provider.read_log()["entries"][0]["headers"]["authorization"].startswith("Basic ")
    assert "secret" not in caplog.text


@pytest.mark.parametrize("key", ["sk-\u200bsecret", "sk-secret\nLLM_MODEL=x", "clé"])
async def test_a_key_that_was_copied_badly_is_never_sent(
    ask: Ask, provider: Provider, make_model: MakeModel, key: str
) -> None:
    assert (await fail(ask, "Hi", make_model(key=key))).code == "unauthorized"
    assert provider.read_log()["requests"] == 0


async def test_a_server_that_knows_no_stream_options_is_asked_without(
    ask: Ask, provider: Provider, make_model: MakeModel
) -> None:
    model = make_model()
    for _ in range(2):
        message = "Unrecognized request argument supplied: stream_options"
        assert (await ask("answer", model, refuses=["stream_options"], message=message)).text == "Hello Ada."
    assert provider.read_log()["requests"] == 3


async def test_a_model_that_wants_max_completion_tokens_gets_them(
    ask: Ask, provider: Provider, make_model: MakeModel
) -> None:
    model = make_model(max_tokens=99)
    message = "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead."
    for _ in range(2):
        assert (await ask("answer", model, refuses=["max_tokens"], message=message)).text == "Hello Ada."
    requests = [entry["request"] for entry in provider.read_log()["entries"]]
    assert [request.get("max_completion_tokens") for request in requests] == [None, 99, 99]


async def test_many_answers_run_side_by_side(ask: Ask, make_model: MakeModel) -> None:
    model = make_model()
    answers = await asyncio.gather(*(ask("answer", model, count=20) for _ in range(120)))
    assert len({answer.text for answer in answers}) == 1


async def test_a_closed_model_can_be_asked_again(ask: Ask, make_model: MakeModel) -> None:
    model = make_model()
    await ask("Hi", model)
    await model.aclose()
    assert (await ask("Hi", model)).text == "Hello Ada."


async def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    assert (await ask("Hi")).text == "Hello Ada."


async def test_time_in_which_the_process_was_frozen_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.llm.completion.STEP_SECONDS", 0.05)
    completion = Completion()
    waiting = asyncio.create_task(completion.wait_for_news(0.3))
    await asyncio.sleep(0)
    time.sleep(0.6)  # noqa: ASYNC251 (as if frozen)
    asyncio.get_running_loop().call_later(0.1, completion.wake)
    await waiting
    with pytest.raises(TimeoutError):
        await completion.wait_for_news(0.1)


async def test_the_models_of_a_server_are_listed(provider: Provider, make_model: MakeModel) -> None:
    assert await make_model().list_models() == ["wise", "small:latest"]
    assert await make_model(f"{provider.url}/404/v1").list_models() == []


@pytest.mark.parametrize(("status", "code"), [(200, "no_such_address"), (401, "unauthorized"), (500, "provider_error")])
async def test_a_server_that_does_not_list_its_models_is_explained(
    provider: Provider, make_model: MakeModel, status: int, code: str
) -> None:
    with pytest.raises(LLMError) as error:
        await make_model(f"{provider.url}/{status}/v1").list_models()
    assert error.value.code == code
    assert "secret" not in error.value.message
    with pytest.raises(LLMError, match="cannot be reached"):
        await make_model("http://127.0.0.1:1/v1").list_models()
