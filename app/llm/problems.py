"""Turns what goes wrong at a provider into an LLMError: its code, and a sentence that a person can act on.

Nothing that a provider sends is shown, for it may hold keys, addresses and other people's words.
"""

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from app.llm.base import LLMError

# Each sentence says what happened and what to do, naming the setting where that is the cure.
SENTENCES = {
    "unauthorized": "{name} did not accept the API key. Put a valid one into {key_setting} and restart the app.",
    "no_credit": "The account at {name} has no credit left. Add some there, or change {key_setting}.",
    "forbidden": "{name} does not let this account use {model}. Choose another model in LLM_MODEL.",
    "no_such_model": "{name} has no model called {model}. Put the name of one that it has into LLM_MODEL.",
    "no_such_address": "{name} is no language model. Check {address_setting}: it often ends in /v1.",
    "too_long": "This is too long for {model}. Begin a new conversation, or lower LLM_CONTEXT_TOKENS.",
    "rate_limited": "{name} gets too many requests at the moment. Try again {when}.",
    "provider_error": "{name} has a problem of its own. Try again {when}.",
    "loading": "{name} is still loading the model. Try again {when}.",
    "refused": "{name} refused the request. Check LLM_MODEL, LLM_MAX_TOKENS and {address_setting}.",
    "unreachable": "{name} cannot be reached. Check the network and {address_setting}.",
    "disconnected": "{name} ended the connection in the middle of the answer. Ask again.",
    "timeout": "{name} did not answer in time. Ask again, or raise {limit_setting}.",
    "unreadable": "{name} sent something that is not an answer. Ask again, or check {address_setting}.",
    "empty": "{name} ended without saying anything. Ask again.",
    "filtered": "{name} gives no answer to this, because of its rules. Put the question differently.",
    "used_up": "{name} spent its whole answer on thinking. Ask again, or raise LLM_MAX_TOKENS.",
}

# Where only a key was set, there is no address to check.
HOSTED_SENTENCES = SENTENCES | {
    "no_such_address": "{name} does not answer chat completions where it should. Try again in a moment.",
    "refused": "{name} refused the request. Check LLM_MODEL and LLM_MAX_TOKENS.",
    "unreachable": "{name} cannot be reached. Check the network.",
    "unreadable": "{name} sent something that is not an answer. Ask again.",
}

CODES = {
    401: "unauthorized",
    402: "no_credit",
    403: "forbidden",
    404: "no_such_address",
    405: "no_such_address",
    408: "provider_error",
    413: "too_long",
    429: "rate_limited",
}

# What providers write where the status says too little: Google answers 400 to a bad key, OpenAI 429 to an empty
# account. The first that fits counts.
TELLING_WORDS = {
    "no_credit": r"insufficient.{0,20}(quota|credit|fund|balance)|credit balance|billing_(hard|not)",
    "unauthorized": r"(invalid|incorrect).?api.?key|api.?key not valid|invalid_authentication",
    "forbidden": r"organization must be verified",
    "too_long": r"context.{0,10}(length|size|window)|too many tokens|too.long",
    "no_such_model": r"model_not_found|model\b.{0,200}(not found|not exist|unknown)|valid model|no endpoints",
    "loading": r"loading model|model is (currently )?loading",
    "rate_limited": r"rate.?limit",
}

KNOWN_NAMES = {"openrouter.ai": "OpenRouter", "api.openai.com": "OpenAI"}


class Provider(NamedTuple):
    """Who is asked, and what to call the settings that would mend something."""

    name: str
    model: str
    key_setting: str = "LLM_API_KEY"
    address_setting: str = "LLM_BASE_URL"
    sentences: Mapping[str, str] = SENTENCES

    def make_error(self, code: str, retry_after: float | None = None, limit_setting: str = "") -> LLMError:
        sentence = self.sentences[code].format_map(
            self._asdict() | {"when": describe_wait(retry_after), "limit_setting": limit_setting}
        )
        return LLMError(sentence, code, retry_after)


def name_provider(base_url: str, model: str, key_setting: str) -> Provider:
    sentences = SENTENCES if key_setting == "LLM_API_KEY" else HOSTED_SENTENCES
    return Provider(name_host(base_url), model, key_setting, sentences=sentences)


def name_host(base_url: str) -> str:
    """No more than the host, since an address may hold a password."""
    try:
        address = urlsplit(base_url)
        host, port = address.hostname or "The server", address.port
    except ValueError:
        return "The server"
    return KNOWN_NAMES.get(host) or (f"{host}:{port}" if port else host)


class Problem(NamedTuple):
    """An error as the provider reported it, for deciding and never for showing."""

    status: int
    words: str
    retry_after: float | None = None

    @property
    def code(self) -> str:
        told = next((code for code, words in TELLING_WORDS.items() if re.search(words, self.words)), None)
        if told is None or self.status in (401, 402):
            return CODES.get(self.status, "refused" if 300 <= self.status < 500 else "provider_error")
        return told


def read_problem(status: int, headers: Mapping[str, str], body: bytes) -> Problem:
    """An answer with an error status."""
    return Problem(status, _find_words(body), read_retry_after(headers))


def read_report(report: object) -> Problem:
    """An error that came in the middle of a stream, under a status that promised success."""
    code = str(report.get("code")) if isinstance(report, dict) else ""
    return Problem(int(code) if re.fullmatch("[3-5][0-9][0-9]", code) else 0, json.dumps(report).lower()[:4000])


def _find_words(body: bytes) -> str:
    """The provider's own words, without the question that some of them repeat."""
    try:
        document: Any = json.loads(body)
    except ValueError:
        return ""
    error = document.get("error", document) if isinstance(document, dict) else document
    if isinstance(error, dict):
        error = [error.get(name) for name in ("code", "type", "param", "message", "detail")]
    return json.dumps(error).lower()[:4000]


def read_retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, or a date as HTTP allows too."""
    value = headers.get("retry-after", "")
    try:
        seconds = float(value)
    except ValueError:
        seconds = _count_seconds_until(value)
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def _count_seconds_until(date: str) -> float:
    try:
        moment = parsedate_to_datetime(date)
    except ValueError:
        return math.nan
    return (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds()


def describe_wait(seconds: float | None) -> str:
    if seconds is None or seconds < 2:
        return "in a moment"
    if seconds < 100:
        return f"in {math.ceil(seconds)} seconds"
    if seconds < 5400:
        return f"in {round(seconds / 60)} minutes"
    return f"in {round(seconds / 3600)} hours" if seconds < 172_800 else "in some days"
