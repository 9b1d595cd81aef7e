import json

import pytest

from app.llm.chunks import make_storable, read_chunk
from app.llm.completion import Completion
from app.llm.sse import UnreadableBodyError


def say(text: str) -> bytes:
    return json.dumps({"choices": [{"delta": {"content": text}}]}).encode()


def read_text(*events: bytes) -> str:
    completion = Completion()
    pieces = []
    for event in events:
        completion.add(event)
        pieces.append(completion.take_text())
    return "".join(pieces) + completion.take_text()


@pytest.mark.parametrize("text", ["Hello", "é", "😀", "漢字", "\n\t", "\u2028", '"\\/'])
def test_text_arrives_as_it_was_sent(text: str) -> None:
    assert read_text(say(text)) == text


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (rb'{"choices":[{"delta":{"content":"a\u0000b"}}]}', "a\ufffdb"),
        (b'{"choices":[{"delta":{"content":"a\x00b"}}]}', "a\ufffdb"),
        (rb'{"choices":[{"delta":{"content":"a\ud83db"}}]}', "a\ufffdb"),
        (rb'{"choices":[{"delta":{"content":"a\ude00b"}}]}', "a\ufffdb"),
        (b'{"choices":[{"delta":{"content":"a\xffb"}}]}', "a\ufffdb"),
        (b'{"choices":[{"delta":{"content":"a\xed\xa0\xbdb"}}]}', "a\ufffd\ufffd\ufffdb"),
    ],
)
def test_what_a_database_cannot_keep_becomes_harmless(event: bytes, text: str) -> None:
    assert read_text(event) == text


def test_halves_of_a_character_in_two_chunks_are_put_together() -> None:
    first, second = rb'{"choices":[{"delta":{"content":"a\ud83d"}}]}', rb'{"choices":[{"delta":{"content":"\ude00b"}}]}'
    assert read_text(first, second) == "a😀b"


def test_a_half_that_stays_alone_is_replaced() -> None:
    assert read_text(rb'{"choices":[{"delta":{"content":"a\ud83d"}}]}', b"[DONE]") == "a\ufffd"


@pytest.mark.parametrize(
    ("delta", "text"),
    [
        ({"content": None}, ""),
        ({}, ""),
        (None, ""),
        ({"content": None, "reasoning_content": "hm"}, ""),
        ({"content": "", "reasoning": "hm"}, ""),
        ({"content": [{"type": "thinking", "thinking": []}, {"type": "text", "text": "Hi"}]}, "Hi"),
        ({"refusal": "I cannot help with that."}, "I cannot help with that."),
        ({"content": "Hi", "tool_calls": [{"index": 0}], "audio": {"id": 1}}, "Hi"),
    ],
)
def test_servers_differ_in_what_a_delta_holds(delta: object, text: str) -> None:
    assert read_text(json.dumps({"choices": [{"delta": delta}]}).encode()) == text


@pytest.mark.parametrize("event", [b"", b"{", b"[]", b"null", b"Hello", b'{"choices": {}}', b"[" * 100_000, b"1e999"])
def test_what_is_no_chunk_is_refused(event: bytes) -> None:
    with pytest.raises(UnreadableBodyError):
        read_chunk(event)


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": None}, "many", {"prompt_tokens": "7"}, [7]])
def test_a_strange_usage_costs_no_answer(usage: object) -> None:
    completion = Completion()
    completion.add(json.dumps({"choices": [], "usage": usage}).encode())
    assert completion.usage is None


def test_storable_text_stays_the_same_object() -> None:
    text = "Hello 😀"
    assert make_storable(text) is text
