"""What of a conversation a model is told: its newest turns, as far as they can fit."""

from contextlib import aclosing
from uuid import UUID

from sqlalchemy import and_, case, distinct, func
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.chat.models import Message
from app.chat.service import read_newest_first
from app.llm.base import Turn
from app.llm.history import count_least_tokens


async def list_turns(session: AsyncSession, question: Message, context_tokens: int) -> tuple[list[Turn], int]:
    """Give the conversation up to a question as a model reads it, and how many turns were not even looked at.

    Looking back ends where no more can fit. Of several answers to one question the newest counts.
    """
    inside = select(Message).where(Message.conversation_id == question.conversation_id)
    turns: list[Turn] = []
    answered: set[UUID | None] = set()
    oldest = question
    newest_first = read_newest_first(session, inside.where(Message.position <= question.position))
    async with aclosing(newest_first) as messages:
        async for message in messages:
            oldest = message
            if message.role == "assistant" and (message.question_id in answered or not message.text):
                continue
            answered.add(message.question_id)
            turns.append(Turn(message.role, message.text))
            context_tokens -= count_least_tokens(message.text)
            if context_tokens < 0:
                break
    return turns[::-1], await count_turns_before(session, oldest) if oldest.position else 0


async def count_turns_before(session: AsyncSession, message: Message) -> int:
    """Count the questions, and those of them that were answered: each is a turn, however many answers it has."""
    is_answer = and_(
        col(Message.role) == "assistant",
        col(Message.sequence) > 0,
        col(Message.question_id).is_distinct_from(message.question_id),
    )
    questions = func.count(case((col(Message.role) == "user", Message.id)))
    answers = func.count(distinct(case((is_answer, Message.question_id))))
    before = (Message.conversation_id == message.conversation_id, Message.position < message.position)
    return (await session.exec(select(questions + answers).where(*before))).one()
