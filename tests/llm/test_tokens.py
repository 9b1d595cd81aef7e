import json
import time
from urllib.request import Request, urlopen

import pytest

from app.llm.local_server import LocalServer
from app.llm.tokens import count_tokens
from tests.llm.corpus import CORPUS


def test_nothing_is_no_token() -> None:
    assert count_tokens("") == 0


def test_every_character_counts_somewhere() -> None:
    for code in (*range(0xD800), *range(0xE000, 0x11000), 0x1F600, 0x10FFFF):
        assert count_tokens(chr(code)) >= 1


def test_a_sentence_is_counted_with_some_reserve() -> None:
    assert 9 <= count_tokens("The quick brown fox jumps over the lazy dog.") <= 18


@pytest.mark.parametrize("text", ["The quick brown fox. ", "敏捷的棕色狐狸", "a", " ", "1", "😀", "aB3é"])
def test_counting_takes_time_in_proportion_to_the_text(text: str) -> None:
    times = [measure(text * (size // len(text))) for size in (20_000, 200_000)]
    assert times[1] < 40 * times[0] + 0.05


def measure(text: str) -> float:
    """The best of three in seconds of this thread, which other programs do not disturb."""

    def once() -> float:
        start = time.thread_time()
        count_tokens(text)
        return time.thread_time() - start

    return min(once() for _ in range(3))


@pytest.mark.slow
@pytest.mark.parametrize("name", CORPUS)
def test_the_estimate_is_never_below_a_real_tokenizer_and_not_far_above(name: str, local_server: LocalServer) -> None:
    real = count_really(local_server, CORPUS[name])
    assert real <= count_tokens(CORPUS[name]) <= 2 * real


def count_really(server: LocalServer, text: str) -> int:
    url = server.url.removesuffix("/v1") + "/tokenize"
    headers = {"Authorization": f"Bearer {server.key}", "Content-Type": "application/json"}
    with urlopen(Request(url, json.dumps({"content": text}).encode(), headers), timeout=20) as response:
        return len(json.load(response)["tokens"])
