"""What has come of an answer so far: one task fills it from the network, another takes the text out."""

import asyncio
from contextlib import suppress

from app.llm.base import Pace, Usage
from app.llm.chunks import make_storable, read_chunk

STEP_SECONDS = 2.0
ENOUGH = 64_000  # so many characters may lie here before the network has to wait


class ReportedError(Exception):
    """The server began an answer and then told of a failure instead of going on."""

    def __init__(self, report: object) -> None:
        super().__init__("the server reported an error")
        self.report = report


class Completion:
    def __init__(self, pace: Pace | None = None) -> None:
        self.pace = pace
        self.usage: Usage | None = None
        self.finish_reason: str | None = None
        self.has_begun = False  # the model has said or thought something, so asking again would cost twice
        self.has_text = False
        self.is_done = False  # nothing more will come, not even the usage
        self._pieces: list[str] = []
        self._size = 0
        self._news = asyncio.Event()
        self._room = asyncio.Event()

    def add(self, data: bytes) -> None:
        """Take in one event."""
        if data.startswith(b"[DONE]"):
            self.is_done = True
            self._finish("stop")
            return
        chunk = read_chunk(data)
        if chunk.error:
            raise ReportedError(chunk.error)
        if chunk.usage:
            self.usage = chunk.count_tokens() or self.usage
        if chunk.choices:
            choice = chunk.choices[0]
            if delta := choice.delta or choice.message:
                self._add_text(delta.text, is_thinking=bool(delta.reasoning or delta.reasoning_content))
            if choice.finish_reason == "error":
                raise ReportedError(None)
            if choice.finish_reason:
                self._finish(choice.finish_reason)

    def _add_text(self, text: str, is_thinking: bool) -> None:
        if text:
            self.has_text = True
            self._pieces.append(text)
            self._size += len(text)
        if text or is_thinking:
            self.has_begun = True
            self.wake()

    def _finish(self, reason: str) -> None:
        self.finish_reason = self.finish_reason or reason
        self.wake()

    def explain_silence(self) -> str:
        """The code of the error that a finished answer without a word deserves."""
        return {"length": "used_up", "content_filter": "filtered"}.get(self.finish_reason or "", "empty")

    def wake(self) -> None:
        self._news.set()

    async def wait_for_news(self, limit: float) -> None:
        """Return when the model has said, thought or ended something. That the server lives is not enough.

        Time is counted in steps: some hosts freeze the process for minutes, and the model is not to blame for that.
        """
        while not await self._has_news(step := min(limit, STEP_SECONDS)):
            limit -= step
            if limit <= 0:
                raise TimeoutError
        self._news.clear()

    async def _has_news(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()
        return self._news.is_set()

    def take_text(self) -> str:
        """Everything that has come since the last time, joined."""
        text = "".join(self._pieces)
        self._pieces = []
        if "\ud800" <= text[-1:] <= "\udbff" and self.finish_reason is None:
            self._pieces = [text[-1]]  # the other half of this character is still on its way
            text = text[:-1]
        self._size = 0
        self._room.set()
        return make_storable(text)

    async def wait_for_room(self) -> None:
        """Hold the network back while nobody takes the text."""
        while self._size > ENOUGH:
            self._room.clear()
            await self._room.wait()
