import subprocess
import sys
from contextlib import aclosing
from typing import Any

import pytest

from app.llm import OPENAI_MODEL, choose_model
from app.llm.base import LanguageModel, LLMError, Turn
from app.llm.openai import OpenAIModel
from app.settings import ROOT, Settings

pytestmark = pytest.mark.anyio

EVERYTHING = {
    "llm_base_url": "https://models.example.org/v1",
    "llm_model": "llama",
    "openrouter_api_key": "sk-or-1",
    "openai_api_key": "sk-2",
    "local_llm_url": "http://127.0.0.1:1/v1",
    "local_llm": "auto",
}


def choose(**values: Any) -> LanguageModel:
    return choose_model(Settings(**values))


async def read_refusal(model: LanguageModel) -> LLMError:
    with pytest.raises(LLMError) as error:
        async with aclosing(model.stream([Turn("user", "Hi")])) as stream:
            await anext(stream)
    return error.value


@pytest.mark.parametrize(
    ("without", "name"),
    [
        ([], "llama"),
        (["llm_base_url"], "llama"),
        (["llm_base_url", "llm_model"], "openrouter/auto"),
        (["llm_base_url", "llm_model", "openrouter_api_key"], OPENAI_MODEL),
        (["llm_base_url", "llm_model", "openrouter_api_key", "openai_api_key"], "SmolLM2-135M-Instruct"),
    ],
)
def test_what_is_most_particular_wins(without: list[str], name: str) -> None:
    model = choose(**{key: value for key, value in EVERYTHING.items() if key not in without})
    assert isinstance(model, OpenAIModel)
    assert model.name == name


def test_the_settings_bound_what_is_sent() -> None:
    model = choose(**EVERYTHING, llm_context_tokens=1234)
    assert model.context_tokens == 1234


def test_the_small_model_says_what_it_is_and_gets_little_to_read() -> None:
    model = choose(local_llm="auto", local_llm_url="http://127.0.0.1:1/v1")
    assert model.label == "SmolLM2 135M, small demo model"
    assert model.context_tokens == 512


def test_an_own_gguf_is_named_after_its_file() -> None:
    model = choose(local_llm="on", local_llm_url="http://127.0.0.1:1/v1", local_llm_gguf="/models/Qwen3-4B.gguf")
    assert (model.name, model.label) == ("Qwen3-4B", "Qwen3-4B, local model")


@pytest.mark.parametrize(
    ("values", "setting"),
    [
        ({}, "OPENROUTER_API_KEY"),
        ({"llm_base_url": "https://models.example.org/v1"}, "LLM_MODEL"),
        ({"llm_api_key": "sk-1"}, "LLM_BASE_URL"),
        ({"local_llm_url": "http://127.0.0.1:1/v1", "local_llm": "off"}, "OPENROUTER_API_KEY"),
    ],
)
async def test_what_is_missing_is_said_in_the_chat(values: dict[str, Any], setting: str) -> None:
    model = choose(**values)
    assert model.name == "none"
    error = await read_refusal(model)
    assert error.code == "not_configured"
    assert setting in error.message


async def test_a_small_model_that_has_died_says_so() -> None:
    error = await read_refusal(choose(local_llm="on", local_llm_url="http://127.0.0.1:1/v1"))
    assert error.message.startswith("The local model has stopped. Restart the app")


def test_choosing_loads_nothing_that_is_heavy() -> None:
    code = (
        "import sys; from app.settings import Settings; from app.llm import choose_model;"
        "choose_model(Settings(openrouter_api_key='sk-1')); choose_model(Settings(local_llm_url='http://127.0.0.1:1'));"
        "print(*{'httpx2', 'httpcore2', 'msgspec', 'xllamacpp', 'fastapi'} & set(sys.modules))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == ""
