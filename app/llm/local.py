"""The small model that comes with the packages: the same questions, asked of the process that oppman.py started."""

from pathlib import Path
from typing import TYPE_CHECKING

from app.llm.openai import OpenAIModel, TimeLimits
from app.llm.problems import SENTENCES, Provider

if TYPE_CHECKING:
    from app.settings import Settings

DEMO_NAME = "SmolLM2-135M-Instruct"
DEMO_LABEL = "SmolLM2 135M, small demo model"
DEMO_CONTEXT_TOKENS = 512  # on a small machine a thousand tokens of history take ten seconds to read
DEMO_MAX_TOKENS = 400  # it seldom has more to say, and sooner or later goes round in circles

# An own GGUF may be any size; these two and the template fit into what local_server gives to one answer.
OWN_CONTEXT_TOKENS = 3000
OWN_MAX_TOKENS = 1000

OTHER_MODEL = "set OPENROUTER_API_KEY or LLM_BASE_URL for another model"
LOCAL_SENTENCES = SENTENCES | {
    "unreachable": f"{{name}} has stopped. Restart the app, or {OTHER_MODEL}.",
    "unauthorized": f"{{name}} was started for another app. Restart this one, or {OTHER_MODEL}.",
    "disconnected": f"{{name}} stopped in the middle of the answer. Restart the app, or {OTHER_MODEL}.",
    "loading": "{name} is still being loaded. Ask again in a few seconds.",
    "too_long": "This is too long for {name}. Begin a new conversation, or ask for less.",
    "timeout": "{name} is too slow on this machine at the moment. Ask again, or raise {limit_setting}.",
}


def make_local_model(settings: "Settings") -> OpenAIModel:
    gguf = settings.local_llm_gguf
    name = Path(gguf).stem or DEMO_NAME
    return OpenAIModel(
        settings.local_llm_url,
        name,
        settings.local_llm_key.get_secret_value(),
        label=f"{name}, local model" if gguf else DEMO_LABEL,
        provider=Provider("The local model", name, "LOCAL_LLM_KEY", "LOCAL_LLM_URL", LOCAL_SENTENCES),
        context_tokens=min(OWN_CONTEXT_TOKENS if gguf else DEMO_CONTEXT_TOKENS, settings.llm_context_tokens),
        max_tokens=min(OWN_MAX_TOKENS if gguf else DEMO_MAX_TOKENS, settings.llm_max_tokens),
        limits=TimeLimits.from_settings(settings),
        temperature=0.2,  # what its makers advise
        top_p=0.9,
        dry_multiplier=0.8,  # this and the rest against going round in circles
        dry_penalty_last_n=512,
        repeat_penalty=1.1,
        repeat_last_n=256,
    )
