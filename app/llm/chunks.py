"""Reads one piece of a chat completion: only the fields that matter, and gently where servers differ."""

import json
import re
from typing import Any

import msgspec

from app.llm.base import Usage
from app.llm.sse import UnreadableBodyError

_UNSAFE = re.compile("[\0\ud800-\udfff]")


class Part(msgspec.Struct):
    text: str | None = None


class Delta(msgspec.Struct):
    content: str | list[Part] | None = None
    refusal: str | None = None
    reasoning: Any = None
    reasoning_content: Any = None

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "".join(part.text or "" for part in self.content)
        return self.content or self.refusal or ""


class Choice(msgspec.Struct):
    delta: Delta | None = None
    message: Delta | None = None  # instead of delta, where the server does not stream
    finish_reason: str | None = None


class Chunk(msgspec.Struct):
    choices: list[Choice] | None = None
    usage: Any = None
    error: Any = None

    def count_tokens(self) -> Usage | None:
        """What the server counted; None when it counted nothing, or not in whole numbers."""
        try:
            return msgspec.convert(self.usage, Counted).as_usage()
        except msgspec.ValidationError:
            return None


class Counted(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int

    def as_usage(self) -> Usage:
        return Usage(self.prompt_tokens, self.completion_tokens)


_decoder = msgspec.json.Decoder(Chunk)


def read_chunk(data: bytes) -> Chunk:
    """Decode one event. Raises UnreadableBodyError for what is no chunk at all."""
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _read_damaged_chunk(data)


def _read_damaged_chunk(data: bytes) -> Chunk:
    """Broken UTF-8, bare control characters and half surrogates are no reason to lose an answer."""
    try:
        return msgspec.convert(json.loads(data.decode("utf-8", "replace"), strict=False), Chunk)
    except (ValueError, msgspec.ValidationError, RecursionError) as error:
        raise UnreadableBodyError("not a chunk of a chat completion") from error


def make_storable(text: str) -> str:
    """PostgreSQL keeps neither NUL nor surrogates. Halves that belong together become a character again."""
    if not _UNSAFE.search(text):
        return text
    joined = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return joined.replace("\0", "\ufffd")
