"""What the database keeps of an answer that is being written: pieces, a lease, and in the end one row.

Every change asks «is it still ours?» in its own transaction, so that a process which slept too long changes nothing.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, delete, func, update
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.chat.models import ERROR_LENGTH, LAST_SEQUENCE, UNFINISHED, Message, Piece, Status
from app.chat.running import PART_LENGTH, End, Part, RunningAnswer
from app.chat.service import LEASE_SECONDS, read_pieces
from app.chat.turns import list_turns
from app.database import Database, database_time, insert_new, now
from app.llm.base import Turn

INTERRUPTED = "The server stopped while this answer was being written."


class AnswerStore:
    """The running answers of one worker, as the database sees them."""

    def __init__(self, database: Database, worker: str) -> None:
        self.database = database
        self.own_and_running: tuple[ColumnElement[bool], ...] = (
            col(Message.worker) == worker,
            col(Message.status) == "running",
        )

    async def read_turns(self, question: Message, context_tokens: int) -> tuple[list[Turn], int]:
        if question.position == 0:  # nothing is before it
            return [Turn(question.role, question.text)], 0
        async with self.database.session(reading=True) as session:
            return await list_turns(session, question, context_tokens)

    async def save_pieces(self, batch: Sequence[RunningAnswer]) -> set[UUID]:
        """Append to all answers in one transaction. Gives those that are ours still; the others got nothing.

        Their rows are locked, so that nobody ends an answer between our look and our commit.
        """
        these = col(Message.id).in_([running.id for running in batch])
        ours = select(Message.id).where(these, *self.own_and_running).order_by(col(Message.id))
        async with self.database.engine.begin() as connection:
            found = set((await connection.execute(ours.with_for_update(key_share=True))).scalars())
            pieces = [
                {"message_id": running.id, "start": running.length, "text": running.saving}
                for running in batch
                if running.id in found
            ]
            if pieces:
                await connection.execute(insert_new(connection, Piece), pieces)
        return found

    async def finish(self, running: RunningAnswer, status: Status, error: str | None) -> None:
        """Write the one end that an answer has: the whole text and how it came to it."""
        values: dict[str, object] = {"left_out_count": running.left_out_count}
        if running.usage:
            values |= {name: min(count, LAST_SEQUENCE) for name, count in running.usage._asdict().items()}
        mine = update(Message).where(col(Message.id) == running.id, *self.own_and_running)
        async with self.database.session() as session:
            ended = await session.exec(mine.values(**end_values(status, error, running.text), **values))
            if ended.rowcount:
                await session.exec(delete(Piece).where(col(Piece.message_id) == running.id))
                await session.commit()

    async def renew_leases(self, message_ids: Iterable[UUID]) -> None:
        """Renew what is being written; a row that only names us runs out, for of that nobody would ever see the end."""
        async with self.database.engine.begin() as connection:
            mine = update(Message).where(col(Message.id).in_(message_ids), *self.own_and_running)
            await connection.execute(mine.values(lease_until=database_time(LEASE_SECONDS)))

    async def list_stops(self) -> dict[UUID, datetime | None]:
        """Give the answers that are ours still, and when somebody wanted them to stop."""
        mine = select(Message.id, Message.stop_requested_at).where(*self.own_and_running)
        async with self.database.session(reading=True) as session:
            return dict((await session.exec(mine)).all())

    async def look(self, message_id: UUID, position: int) -> tuple[Part | None, End | None]:
        """Read an answer that nobody here writes: a part of its text behind a position, with the last one its end.

        No more is held than that part: the reader may be slow, and there may be many.
        """
        async with self.database.session(reading=True) as session:
            rest = func.substr(Message.text, min(position + 1, LAST_SEQUENCE), PART_LENGTH)
            found = (await session.exec(select(Message.status, rest).where(Message.id == message_id))).first()
            if found is None:
                return None, End(None)
            status, text = found
            end, is_late = None, False
            if status in UNFINISHED:
                text = (await read_pieces(session, message_id, position))[:PART_LENGTH]
                is_late = message_id in await find_abandoned(session, message_id)
            elif len(text) < PART_LENGTH:
                end = End(await session.get(Message, message_id))
        if is_late:
            await self.interrupt(message_id)
        return Part(position + len(text), text) if text else None, end

    async def list_abandoned(self) -> set[UUID]:
        """Give all answers whose worker is gone, or late."""
        async with self.database.session(reading=True) as session:
            return await find_abandoned(session)

    async def interrupt(self, message_id: UUID) -> None:
        """End an answer whose worker is gone, with the text that it saved."""
        async with self.database.session() as session:
            abandoned = update(Message).where(col(Message.id) == message_id, *is_abandoned())
            # The row is taken first: from then on its old worker, should it wake up, can add nothing.
            if (await session.exec(abandoned.values(worker=None))).rowcount:
                text = await read_pieces(session, message_id)
                ended = update(Message).where(col(Message.id) == message_id)
                values = end_values("interrupted", INTERRUPTED, text)
                values["ended_at"] = col(Message.lease_until)  # long ago, perhaps, and not when somebody came by
                await session.exec(ended.values(**values))
                await session.exec(delete(Piece).where(col(Piece.message_id) == message_id))
            await session.commit()


def is_abandoned() -> tuple[ColumnElement[bool], ...]:
    return col(Message.status) == "running", col(Message.lease_until) < database_time()


async def find_abandoned(session: AsyncSession, message_id: UUID | None = None) -> set[UUID]:
    abandoned = select(Message.id).where(*is_abandoned())
    if message_id:
        abandoned = abandoned.where(Message.id == message_id)
    return set(await session.exec(abandoned))


def end_values(status: Status, error: str | None, text: str) -> dict[str, object]:
    return {
        "status": status,
        "error": error[:ERROR_LENGTH] if error else None,
        "text": text,
        "sequence": len(text),
        "ended_at": now(),
        "lease_until": None,
        "worker": None,
    }
