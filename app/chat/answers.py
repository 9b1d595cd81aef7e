"""The answers being written: from the model into the database, and from there to whoever reads along.

An answer belongs to the database, not to the page that asked. A task of its own listens to the model. What has gathered
is saved once a frame, for all answers of the process in one transaction, and only then the readers are woken: nothing
is shown that is not saved. A place in an answer is counted in characters: a reader says how many it has and gets the
rest, here or from another process.
"""

import asyncio
import logging
import math
import os
import secrets
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy.exc import SQLAlchemyError

from app.chat.models import Message, Status
from app.chat.running import PART_LENGTH, End, Part, RunningAnswer
from app.chat.service import LEASE_SECONDS, Asked, FullError
from app.chat.store import INTERRUPTED, AnswerStore
from app.database import UNAVAILABLE, Database
from app.llm.base import Finish, LanguageModel, LLMError, Turn, Usage
from app.llm.history import fit_turns

log = logging.getLogger(__name__)
T = TypeVar("T")

FRAME_SECONDS = 0.1  # what arrives within a frame is saved and shown together
READ_TURNS = 6  # of the loop, at a frame's beginning: so many it takes from a socket to an answer
LONGEST_PAUSE = 2.0  # between two tries, while the database does not answer
TICK_SECONDS = 0.5  # how often stops from elsewhere are looked for
RENEWAL_SECONDS = 5.0  # how often leases are renewed
POLL_SECONDS = (0.15, 0.5)  # how often a reader looks at an answer that another process writes: at first, at last
PING_SECONDS = 4.0  # a reader who hears nothing for so long gets a sign of life; pages wait for two of them
GRACE_SECONDS = 10.0  # how long the end of the process waits for the last saves
PENDING_LENGTH = 65_536  # characters that may wait to be saved before the model has to wait
ANSWERS_AT_ONCE = 1000  # of one process; more are refused before any is slowed down
OTHER_DESCRIPTORS = 200  # open files that a process needs beside its answers
ANSWER_LENGTH = 200_000  # characters; a model that never stops is cut here

GO_ON = Turn("user", "Go on exactly where you stopped, in the middle of the sentence if need be. Repeat nothing.")
CUT = {  # what is said of an answer that the model did not end by itself
    "length": "The answer was cut here: it had reached its limit of tokens (LLM_MAX_TOKENS).",
    "too_long": "The answer was cut here: it had reached the longest length there is.",
    "too_slow": "The answer was cut here: it had reached its limit of time (LLM_ANSWER_TIMEOUT).",
    "content_filter": "The answer was cut here by the model's provider, because of its rules.",
}
UNEXPECTED = "Something went wrong while this answer was being written. Try again."


class Answers:
    """The answers that this process writes, and the way to read any answer there is."""

    def __init__(self, database: Database, model: LanguageModel, system_prompt: str, time_limit: float) -> None:
        self.model = model
        self.system_turn = Turn("system", system_prompt)
        self.time_limit = time_limit
        self.worker = f"{os.getpid()}-{secrets.token_hex(8)}"
        self.store = AnswerStore(database, self.worker)
        self.room = count_room()
        self.running: dict[UUID, RunningAnswer] = {}
        self.begun: deque[UUID] = deque(maxlen=10 * ANSWERS_AT_ONCE)  # here, and not to be begun by a repeated send
        self.tasks: set[asyncio.Task[None]] = set()
        self.saver: asyncio.Task[None] | None = None
        self.ticker: asyncio.Task[None] | None = None
        self.frame = asyncio.Event()  # begins: models read what has gathered, for all answers in one waking of the loop
        self.first_words = asyncio.Event()  # of some answer have come, and are not to wait for the frame's end
        self.look_again_at = 0.0  # for abandoned answers, by the loop's clock

    def take_on(self) -> dict[str, str]:
        """Say for the row of one more answer who writes it: which model, in which process. FullError without room."""
        if len(self.running) >= self.room:
            raise FullError("Too many answers are being written at this moment. Send it again in a few seconds.")
        return {"model": self.model.label, "worker": self.worker}

    def start(self, asked: Asked) -> None:
        """Begin to write an answer in a task that no request can end. The rows are saved already.

        A repeated send begins it where the first one did not: a commit whose confirmation was lost is an error there.
        """
        before = self.running.get(asked.answer.id)
        is_being_written = before and not before.is_over
        if is_being_written or not (asked.is_new or self._is_forgotten(asked.answer)):
            return
        self.begun.append(asked.answer.id)
        running = self.running[asked.answer.id] = RunningAnswer(asked)
        self._spawn(self._write(running))
        if self.saver is None or self.saver.done():
            self.saver = self._spawn(self._keep_saving())
        if self.ticker is None or self.ticker.done():
            self.ticker = self._spawn(self._tick())

    def _is_forgotten(self, answer: Message) -> bool:
        return answer.status == "running" and answer.worker == self.worker and answer.id not in self.begun

    def stop(self, message_id: UUID) -> None:
        """Stop an answer if this process writes it. Elsewhere the worker sees the row (service.request_stop)."""
        if running := self.running.get(message_id):
            running.end("stopped")

    async def read(
        self, message_id: UUID, after: int = 0, *, patience: float | None = None
    ) -> AsyncGenerator[Part | End | None, None]:
        """Give what is saved after a character, then what comes, then the End; None now and then while all is quiet.

        Who has so many seconds of patience gets what there is by then.
        """
        loop = asyncio.get_running_loop()
        position, pause, quiet_until = max(after, 0), POLL_SECONDS[0], loop.time() + PING_SECONDS
        until = math.inf if patience is None else loop.time() + patience
        while True:
            running = self.running.get(message_id)
            changed = running.changed if running else None
            part, end = (running.read(position), None) if running else await self._look(message_id, position)
            if part:
                position, pause, quiet_until = part.sequence, POLL_SECONDS[0], loop.time() + PING_SECONDS
                yield part
            if part and len(part.text) == PART_LENGTH:
                continue  # there is more
            if end:
                yield end
            left = until - loop.time()
            if end or left <= 0:
                return
            await (happens(changed, min(PING_SECONDS, left)) if changed else asyncio.sleep(min(pause, left)))
            pause = min(pause * 1.5, POLL_SECONDS[1])
            if loop.time() >= quiet_until:
                quiet_until = loop.time() + PING_SECONDS
                yield None

    async def _look(self, message_id: UUID, position: int) -> tuple[Part | None, End | None]:
        try:
            return await self.store.look(message_id, position)
        except UNAVAILABLE:  # the stream has begun, and an error would only cut it off: wait
            return None, None

    async def end_abandoned(self) -> None:
        """End answers whose worker is gone. Whoever comes by does it: no process has to watch over the others."""
        time = asyncio.get_running_loop().time()
        if time < self.look_again_at:
            return
        self.look_again_at = time + TICK_SECONDS
        message_ids = await self.store.list_abandoned()  # who cannot read this can do nothing: let it fail
        try:
            for message_id in message_ids - set(self.running):  # ours are late, but not abandoned
                await self.store.interrupt(message_id)
        except SQLAlchemyError:  # whoever came by wanted something else, and gets it if the database allows
            log.exception("Abandoned answers could not be ended")

    async def close(self, patience: float = 0) -> None:
        """Let answers finish for so many seconds, save what there is of the others as interrupted, and end."""
        if patience and self.running:
            await asyncio.wait(
                [running.listener for running in self.running.values() if running.listener], timeout=patience
            )
        for running in list(self.running.values()):
            running.end("interrupted")
        for helper in (self.saver, self.ticker):
            if helper:
                helper.cancel()
        if self.tasks:
            await asyncio.wait(self.tasks, timeout=GRACE_SECONDS)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self.tasks.add(task)  # the loop itself holds tasks only weakly
        task.add_done_callback(self.tasks.discard)
        return task

    async def _write(self, running: RunningAnswer) -> None:
        running.listener = asyncio.create_task(self._listen(running))
        if running.ending:
            running.listener.cancel()
        try:
            await asyncio.wait({running.listener})
            await insist(partial(self.store.finish, running, *self._judge(running)))
        except Exception:
            log.exception("An answer could not be saved; its lease will run out")
        finally:
            running.listener.cancel()
            if self.running.get(running.id) is running:  # and not one that goes on already
                del self.running[running.id]
            running.wake()

    async def _listen(self, running: RunningAnswer) -> None:
        turns, unseen_count = await insist(partial(self.store.read_turns, running.question, self.model.context_tokens))
        going_on = [Turn("assistant", running.so_far), GO_ON] if running.so_far else []
        turns, left_out_count = fit_turns(
            [self.system_turn, *turns, *going_on], self.model.context_tokens, kept_at_end=1 + len(going_on)
        )
        running.left_out_count = unseen_count + left_out_count
        try:
            async with (
                asyncio.timeout(self.time_limit) as limit,
                aclosing(self.model.stream(turns, self._next_frame)) as stream,
            ):
                await self._take_in(running, stream)
        except TimeoutError:
            if not limit.expired():
                raise
            running.finish = Finish("too_slow")

    async def _take_in(self, running: RunningAnswer, stream: AsyncGenerator[str | Usage | Finish, None]) -> None:
        async for item in stream:
            if isinstance(item, str):
                running.add(item)
                if not running.length:
                    self.first_words.set()
                if running.length + running.arrived_length > ANSWER_LENGTH:
                    running.finish = Finish("too_long")
                    return
                if running.arrived_length + len(running.saving) > PENDING_LENGTH:
                    await running.changed.wait()  # for the next save
            elif isinstance(item, Usage):
                running.usage = item
            else:
                running.finish = item

    def _judge(self, running: RunningAnswer) -> tuple[Status, str | None]:
        """Say how an answer ended, and why, in a sentence for the person where it did not simply end."""
        assert running.listener
        if running.listener.cancelled():
            status = running.ending or "interrupted"
            return status, INTERRUPTED if status == "interrupted" else None
        error = running.listener.exception()
        if isinstance(error, LLMError):
            return "failed", error.message
        if error:
            log.error("The model's answer broke off", exc_info=error)
            return "failed", UNEXPECTED
        if running.finish is None:
            return "failed", UNEXPECTED
        return "done", CUT.get(running.finish.reason)

    async def _keep_saving(self) -> None:
        """Save once a frame, as long as there are answers. What could not be saved is tried again, later each time."""
        loop = asyncio.get_running_loop()
        pause = FRAME_SECONDS
        while self.running:
            end = loop.time() + FRAME_SECONDS
            self.frame.set()
            self.frame = asyncio.Event()
            for _ in range(READ_TURNS):
                await asyncio.sleep(0)
            try:
                await self._save_pieces([running for running in self.running.values() if running.prepare_piece()])
                while await happens(self.first_words, end - loop.time()):
                    self.first_words.clear()
                    new = [running for running in self.running.values() if not running.length]
                    await self._save_pieces([running for running in new if running.prepare_piece()])
                pause = FRAME_SECONDS
            except Exception as error:  # whatever it is: without this task nothing would be saved
                log.warning("Pieces of answers could not be saved (%s); trying again", type(error).__name__)
                pause = min(2 * pause, LONGEST_PAUSE)
                await asyncio.sleep(pause)

    async def _next_frame(self) -> None:
        await self.frame.wait()

    async def _save_pieces(self, batch: list[RunningAnswer]) -> None:
        ours = await self.store.save_pieces(batch) if batch else ()
        for running in batch:
            if running.id in ours:
                running.keep_piece()
            else:
                running.end("interrupted")

    async def _tick(self) -> None:
        """While answers are written: see who is to stop or is not ours, and now and then renew all leases."""
        loop = asyncio.get_running_loop()
        renewed_at = loop.time()  # they begin with a fresh one
        while self.running:
            await asyncio.sleep(TICK_SECONDS)
            try:
                if loop.time() > renewed_at + RENEWAL_SECONDS:
                    await self.store.renew_leases(self.running)
                    renewed_at = loop.time()
                await self._end_stopped()
            except UNAVAILABLE as error:
                log.warning("Leases could not be renewed (%s); trying again", type(error).__name__)
            except Exception:  # whatever it is: without this task nobody would renew or stop anything
                log.exception("Leases could not be renewed")

    async def _end_stopped(self) -> None:
        before = list(self.running)
        stops = await self.store.list_stops()
        for message_id in before:
            if message_id in self.running and (message_id not in stops or stops[message_id]):
                self.running[message_id].end("stopped")


def count_room() -> int:
    """Say how many answers this process can write: each needs a connection to the model and one to its reader."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return ANSWERS_AT_ONCE
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(ANSWERS_AT_ONCE, max((descriptors - OTHER_DESCRIPTORS) // 2, 1))


async def insist(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Do work with the database, again while it fails, for as long as a lease lasts that nobody renews."""
    loop = asyncio.get_running_loop()
    until, pause = loop.time() + LEASE_SECONDS, 0.1
    while True:
        try:
            return await work()
        except SQLAlchemyError as error:
            if loop.time() > until:
                raise
            log.warning("The database did not answer (%s); trying again", type(error).__name__)
        await asyncio.sleep(pause)
        pause = min(pause * 2, 2.0)


async def happens(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False
