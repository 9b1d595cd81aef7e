"""Loads the demo people with their conversations, and takes them away again."""

from collections.abc import Callable
from datetime import timedelta
from typing import NamedTuple

from sqlalchemy import delete, func
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.auth.models import User
from app.auth.service import create_user, get_user_by_email
from app.chat.models import Conversation, Message
from app.database import now
from app.demo.conversations import CONVERSATIONS, Example
from app.files.service import delete_bytes, list_files
from app.storage import Storage

PEOPLE = (("ada@example.com", "Ada"), ("bob@example.com", "Bob"))
LABEL = "Demo text, written by hand"


class DemoPerson(NamedTuple):
    email: str
    password: str | None  # None for somebody who was there already


class Demo(NamedTuple):
    people: list[DemoPerson]
    conversation_count: int


class Counts(NamedTuple):
    people: int
    conversations: int


async def load_demo(session: AsyncSession, make_password: Callable[[], str]) -> Demo:
    """Make who is missing, and give Ada her conversations unless she has some. Loading twice changes nothing."""
    people = []
    for email, name in PEOPLE:
        password = None
        if await get_user_by_email(session, email) is None:
            password = make_password()
            await create_user(session, email, password, name=name)
        people.append(DemoPerson(email, password))
    ada = await get_user_by_email(session, PEOPLE[0][0])
    assert ada
    return Demo(people, await add_conversations(session, ada))


async def add_conversations(session: AsyncSession, owner: User) -> int:
    mine = select(Conversation.id).where(Conversation.owner_id == owner.id).limit(1)
    if (await session.exec(mine)).first():
        return 0
    for days_ago, example in enumerate(CONVERSATIONS):
        await add_conversation(session, owner, example, days_ago)
    await session.commit()
    return len(CONVERSATIONS)


async def add_conversation(session: AsyncSession, owner: User, example: Example, days_ago: int) -> None:
    """Add one that was held some days ago, a minute from question to question."""
    begin = now() - timedelta(days=days_ago, minutes=5)
    end = begin + timedelta(minutes=len(example.exchanges) - 1)
    conversation = Conversation(owner_id=owner.id, title=example.title, created_at=begin, updated_at=end)
    session.add(conversation)
    await session.flush()
    for index, (asked, answered) in enumerate(example.exchanges):
        moment = begin + timedelta(minutes=index)
        question = Message(
            conversation_id=conversation.id, position=2 * index, role="user", text=asked, created_at=moment
        )
        session.add(question)
        await session.flush()
        answer = Message(
            conversation_id=conversation.id,
            question_id=question.id,
            position=2 * index + 1,
            role="assistant",
            text=answered,
            sequence=len(answered),
            model=LABEL,
            created_at=moment,
        )
        session.add(answer)
    await session.flush()


async def count_demo(session: AsyncSession) -> Counts:
    people = select(col(User.id)).where(col(User.email).in_([email for email, _ in PEOPLE]))
    conversations = select(func.count()).select_from(Conversation).where(col(Conversation.owner_id).in_(people))
    return Counts(len((await session.exec(people)).all()), (await session.exec(conversations)).one())


async def remove_demo(session: AsyncSession, storage: Storage) -> None:
    """Delete the demo people; the database deletes what is theirs, and the storage their files."""
    people = col(User.email).in_([email for email, _ in PEOPLE])
    files = await list_files(session, await session.exec(select(User.id).where(people)))
    await session.exec(delete(User).where(people))
    await session.commit()
    await delete_bytes(storage, files)
