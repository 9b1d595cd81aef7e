"""A model that says what a test told it to."""

import asyncio
from collections.abc import AsyncGenerator, Sequence

from app.llm.base import Finish, LLMError, Pace, Turn, Usage


class ScriptedModel:
    """Yields the pieces in order. An asyncio.Event among them holds the answer back until the test sets it."""

    def __init__(
        self,
        *pieces: str | asyncio.Event | Usage,
        delay: float = 0,
        error: LLMError | None = None,
        finish: str = "stop",
        name: str = "scripted",
        label: str = "Scripted model",
        context_tokens: int = 8000,
    ) -> None:
        self.name = name
        self.label = label
        self.context_tokens = context_tokens
        self.asked: list[tuple[Turn, ...]] = []  # the turns of every question, for the test to look at
        self.closed_early = 0  # how many answers were given up before their end
        self._pieces = pieces
        self._delay = delay
        self._error = error
        self._finish = finish

    async def stream(
        self, turns: Sequence[Turn], pace: Pace | None = None
    ) -> AsyncGenerator[str | Usage | Finish, None]:
        self.asked.append(tuple(turns))
        is_finished = False
        try:
            for piece in self._pieces:
                await asyncio.sleep(self._delay)
                if isinstance(piece, asyncio.Event):
                    await piece.wait()
                else:
                    yield piece
            is_finished = True
            if self._error:
                raise self._error
            yield Finish(self._finish)
        finally:
            self.closed_early += not is_finished

    async def aclose(self) -> None:
        pass
