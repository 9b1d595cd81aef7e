import asyncio
from contextlib import aclosing

import pytest

from app.llm.base import Finish, LanguageModel, LLMError, Turn
from app.llm.scripted import ScriptedModel

pytestmark = pytest.mark.anyio

QUESTION = [Turn("user", "Hi")]


async def test_it_says_what_it_was_told_to() -> None:
    model: LanguageModel = ScriptedModel("Hello ", "Ada.")
    assert [item async for item in model.stream(QUESTION)] == ["Hello ", "Ada.", Finish("stop")]


async def test_it_waits_for_the_test() -> None:
    gate = asyncio.Event()
    async with aclosing(ScriptedModel("Hello ", gate, "Ada.").stream(QUESTION)) as stream:
        assert await anext(stream) == "Hello "
        rest = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        assert not rest.done()
        gate.set()
        assert await rest == "Ada."


async def test_it_fails_where_it_was_told_to() -> None:
    model = ScriptedModel("Hello ", error=LLMError("Gone.", "disconnected"))
    stream = model.stream(QUESTION)
    assert await anext(stream) == "Hello "
    with pytest.raises(LLMError, match="Gone"):
        await anext(stream)


async def test_it_remembers_what_it_was_asked_and_who_left_early() -> None:
    model = ScriptedModel("Hello ", "Ada.")
    async with aclosing(model.stream(QUESTION)) as stream:
        await anext(stream)
    assert model.asked == [tuple(QUESTION)]
    assert model.closed_early == 1
