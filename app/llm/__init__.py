"""Language models: one protocol, and the only place that picks one.

Nothing here talks to a network or loads an HTTP client before the first question.
"""

from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING

from app.llm.base import Finish, LanguageModel, LLMError, Pace, Turn, Usage

if TYPE_CHECKING:
    from pydantic import SecretStr

    from app.llm.openai import OpenAIModel
    from app.settings import Settings

OPENROUTER_URL = "https://openrouter.ai/api/v1"
OPENROUTER_MODEL = "openrouter/auto"
OPENAI_URL = "https://api.openai.com/v1"
OPENAI_MODEL = "gpt-6-luna"

NO_MODEL = (
    "No language model is set up. Put OPENROUTER_API_KEY, or LLM_BASE_URL and LLM_MODEL, into .env and restart the app"
)
LOCAL_TOO = "; in development, `uv run oppman.py runserver` also brings a small model of its own"
NO_MODEL_NAME = (
    "LLM_BASE_URL is set, but not which model to ask there. Put its name into LLM_MODEL and restart the app."
)
NO_ADDRESS = "LLM_API_KEY is set, but not where it belongs. Put the server's address into LLM_BASE_URL and restart."


def choose_model(settings: "Settings") -> LanguageModel:
    """What is most particular wins: an own server, then OpenRouter's key, then OpenAI's, then the small model here."""
    if settings.llm_base_url:
        if not settings.llm_model:
            return NotConfigured(NO_MODEL_NAME, settings.llm_context_tokens)
        return _remote(settings, settings.llm_base_url, settings.llm_model, settings.llm_api_key, "LLM_API_KEY")
    if key := settings.openrouter_api_key:
        return _remote(settings, OPENROUTER_URL, settings.llm_model or OPENROUTER_MODEL, key, "OPENROUTER_API_KEY")
    if key := settings.openai_api_key:
        return _remote(settings, OPENAI_URL, settings.llm_model or OPENAI_MODEL, key, "OPENAI_API_KEY")
    if settings.llm_api_key:
        return NotConfigured(NO_ADDRESS, settings.llm_context_tokens)
    if settings.local_llm_url and settings.local_llm != "off":
        from app.llm.local import make_local_model

        return make_local_model(settings)
    is_off = settings.local_llm == "off"  # or it could not start
    return NotConfigured(f"{NO_MODEL}{'' if is_off else LOCAL_TOO}.", settings.llm_context_tokens)


def _remote(settings: "Settings", base_url: str, name: str, key: "SecretStr", key_setting: str) -> "OpenAIModel":
    from app.llm.openai import OpenAIModel, TimeLimits
    from app.llm.problems import name_provider

    return OpenAIModel(
        base_url,
        name,
        key.get_secret_value(),
        provider=name_provider(base_url, name, key_setting),
        context_tokens=settings.llm_context_tokens,
        max_tokens=settings.llm_max_tokens,
        limits=TimeLimits.from_settings(settings),
    )


class NotConfigured:
    """Stands in for a model, so that the pages work and the chat itself says what is missing."""

    name = "none"
    label = "No language model"

    def __init__(self, sentence: str, context_tokens: int) -> None:
        self.context_tokens = context_tokens
        self.sentence = sentence

    async def stream(
        self, turns: Sequence[Turn], pace: Pace | None = None
    ) -> AsyncGenerator[str | Usage | Finish, None]:
        raise LLMError(self.sentence, code="not_configured")
        yield ""  # makes this function a generator

    async def aclose(self) -> None:
        pass
