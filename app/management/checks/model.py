"""Whether the language model can be reached: its server is asked for the list of its models, which costs nothing."""

import asyncio
import time
from typing import NamedTuple

from app.llm import choose_model
from app.llm.base import LLMError
from app.llm.openai import OpenAIModel
from app.settings import Settings

SECONDS = 10


class ModelFacts(NamedTuple):
    name: str
    seconds: float
    fault: str = ""
    names: tuple[str, ...] = ()  # none: the server lists none

    @property
    def is_listed(self) -> bool:
        """Ollama adds a tag to the names that people use."""
        return any(name == self.name or name == f"{self.name}:latest" for name in self.names)


def inspect_model(settings: Settings) -> ModelFacts | None:
    """None where there is no model to ask: other checks say what is missing."""
    model = choose_model(settings)
    return asyncio.run(ask(model)) if isinstance(model, OpenAIModel) else None


async def ask(model: OpenAIModel) -> ModelFacts:
    begun = time.monotonic()
    fault, names = "", list[str]()
    try:
        async with asyncio.timeout(SECONDS):
            names = await model.list_models()
    except LLMError as error:
        fault = error.message
    except TimeoutError:
        fault = f"{model.label} did not answer within {SECONDS} seconds."
    finally:
        await model.aclose()
    return ModelFacts(model.name, time.monotonic() - begun, fault, tuple(names))
