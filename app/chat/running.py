"""One answer that this process writes: what has arrived, what is on its way into the database, and what is there."""

import asyncio
from bisect import bisect_right
from typing import NamedTuple

from app.chat.models import Message, Status
from app.chat.service import Asked
from app.llm.base import Finish, Usage
from app.llm.chunks import make_storable

PART_LENGTH = 8_192  # characters; a reader who falls behind gets the rest in bites, and costs no more than one


class Part(NamedTuple):
    """Saved text, and how many characters of the answer there are up to its end."""

    sequence: int
    text: str


class End(NamedTuple):
    message: Message | None  # None where the answer has been deleted


class RunningAnswer:
    def __init__(self, asked: Asked) -> None:
        self.id = asked.answer.id
        self.question = asked.question
        self.so_far = asked.so_far
        self.left_out_count = 0
        self.arrived: list[str] = []
        self.arrived_length = 0
        self.saving = ""  # on its way into the database, and perhaps there already: it is sent as it is until we know
        self.saved = [asked.so_far] if asked.so_far else []
        self.starts = [0] * len(self.saved)
        self.length = len(asked.so_far)
        self.usage: Usage | None = None
        self.finish: Finish | None = None
        self.ending: Status | None = None  # set by who ends it before the model does
        self.changed = asyncio.Event()
        self.listener: asyncio.Task[None] | None = None

    def add(self, text: str) -> None:
        self.arrived.append(make_storable(text))
        self.arrived_length += len(text)

    def prepare_piece(self) -> bool:
        """Say whether there is something to save."""
        if not self.saving:
            self.saving = "".join(self.arrived)
            self.arrived.clear()
            self.arrived_length = 0
        return bool(self.saving)

    def keep_piece(self) -> None:
        """Remember what has been saved, and wake the readers."""
        self.starts.append(self.length)
        self.saved.append(self.saving)
        self.length += len(self.saving)
        self.saving = ""
        self.wake()

    @property
    def text(self) -> str:
        return "".join([*self.saved, self.saving, *self.arrived])

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come from the model."""
        return self.listener is not None and self.listener.done()

    def wake(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    def read(self, after: int) -> Part | None:
        """Give what is saved after a character, as much as one event may hold."""
        if after >= self.length:
            return None
        first = bisect_right(self.starts, after) - 1
        last = bisect_right(self.starts, after + PART_LENGTH)
        text = "".join(self.saved[first:last])[after - self.starts[first] :][:PART_LENGTH]
        return Part(after + len(text), text)

    def end(self, status: Status) -> None:
        """Let go of the model; the writing task saves what there is."""
        self.ending = self.ending or status
        if self.listener:
            self.listener.cancel()
