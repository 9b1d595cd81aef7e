"""What the chat does: conversations, and questions with their empty answers."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID, uuid4, uuid5

from sqlalchemy import func, or_, tuple_, update
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import SelectOfScalar

from app.auth.models import User
from app.chat.models import MODEL_LENGTH, TEXT_LENGTH, TITLE_LENGTH, UNFINISHED, Conversation, Message, Piece
from app.chat.titles import NEW_TITLE, make_title, tidy
from app.database import database_time, insert_new, now, spell

PAGE_LENGTH = 50  # messages on one page
PAGE_SIZE = 50_000  # characters of messages, with which a page ends as well: coloured code is eight times as long
LIST_LENGTH = 30  # conversations in one list
LEASE_SECONDS = 20
ROWS_AT_ONCE = 10  # that a reader who stops early gets from the database


class ChatError(Exception):
    """What cannot be done now, in a sentence for the person."""


class InvalidTextError(ChatError):
    """The text cannot be sent as it is."""


class ConflictError(ChatError):
    """It clashes with what is there already."""


class FullError(ChatError):
    """There is no room for it now, but soon."""


class Place(NamedTuple):
    """Where a list of conversations goes on: behind this one. Its text is what addresses carry."""

    updated_at: datetime
    id: UUID

    def __str__(self) -> str:
        return f"{self.updated_at.timestamp():.6f}_{self.id}"

    @classmethod
    def read(cls, text: str) -> "Place":
        try:
            seconds, _, conversation_id = text.partition("_")
            return cls(datetime.fromtimestamp(float(seconds), UTC), UUID(conversation_id))
        except (ValueError, OverflowError, OSError):
            raise InvalidTextError("This is no cursor. Take next_cursor from the page before.") from None


class Asked(NamedTuple):
    conversation: Conversation
    question: Message
    answer: Message
    is_new: bool  # False where a repeated send was recognised: the answer runs, or ran, already
    so_far: str = ""  # what the answer says already, where it goes on


async def list_conversations(
    session: AsyncSession, owner: User, *, search: str = "", after: Place | None = None, limit: int = LIST_LENGTH
) -> tuple[Sequence[Conversation], Place | None]:
    """Give the latest ones first, and where the list goes on: None at its end."""
    mine = select(Conversation).where(Conversation.owner_id == owner.id)
    if search:
        titles = (col(Conversation.title).icontains(word, autoescape=True) for word in spell(search))
        mine = mine.where(or_(*titles))
    place = tuple_(col(Conversation.updated_at), col(Conversation.id))
    if after:
        mine = mine.where(place < after)
    found = (await session.exec(mine.order_by(*(column.desc() for column in place)).limit(limit + 1))).all()
    last = found[limit - 1] if len(found) > limit else None
    return found[:limit], Place(last.updated_at, last.id) if last else None


async def get_conversation(session: AsyncSession, owner: User, conversation_id: UUID) -> Conversation | None:
    mine = select(Conversation).where(Conversation.owner_id == owner.id)
    return (await session.exec(mine.where(Conversation.id == conversation_id))).first()


async def create_conversation(session: AsyncSession, owner: User, title: str = NEW_TITLE) -> Conversation:
    conversation = Conversation(owner_id=owner.id, title=read_title(title))
    session.add(conversation)
    await session.commit()
    return conversation


async def rename_conversation(session: AsyncSession, conversation: Conversation, title: str) -> None:
    conversation.title = read_title(title)
    session.add(conversation)
    await session.commit()


async def delete_conversation(session: AsyncSession, conversation: Conversation) -> None:
    await session.delete(conversation)
    await session.commit()


async def get_message(session: AsyncSession, owner: User, message_id: UUID) -> Message | None:
    mine = select(Message).join(Conversation).where(Conversation.owner_id == owner.id)
    message = (await session.exec(mine.where(Message.id == message_id))).first()
    return message and (await fill_in_running(session, [message]))[0]


async def list_messages(
    session: AsyncSession,
    conversation: Conversation,
    *,
    before: int | None = None,
    limit: int = PAGE_LENGTH,
    size: int = PAGE_SIZE,
) -> list[Message]:
    """Give the last messages before a position, oldest first, running answers with what is saved of them.

    They end where they hold enough text, too; the last message is there in any case.
    """
    inside = select(Message).where(Message.conversation_id == conversation.id)
    if before is not None:
        inside = inside.where(Message.position < before)
    latest: list[Message] = []
    async with aclosing(read_newest_first(session, inside.limit(limit))) as messages:
        async for message in messages:
            size -= len(message.text)
            if size < 0 and latest:
                break
            latest.insert(0, message)
    return await fill_in_running(session, latest)


async def read_newest_first(session: AsyncSession, messages: SelectOfScalar[Message]) -> AsyncGenerator[Message, None]:
    """Read messages a few at a time: who has enough text does not load the ones behind, which may be long."""
    ordered = messages.order_by(col(Message.position).desc())
    found = await session.stream_scalars(ordered.execution_options(yield_per=ROWS_AT_ONCE))
    try:
        async for message in found:
            yield message
    finally:
        await found.close()


async def fill_in_running(session: AsyncSession, messages: list[Message]) -> list[Message]:
    """Show of running answers what is saved so far. The objects leave the session: this is no change to save."""
    for message in messages:
        if not message.is_finished:
            text = await read_pieces(session, message.id)
            if not text:  # it has ended, and lost its pieces, since we read the row; or it has not begun
                await session.refresh(message)
            if not message.is_finished:
                session.expunge(message)
                message.text = text
    return messages


async def read_pieces(session: AsyncSession, message_id: UUID, after: int = 0) -> str:
    """Join the saved pieces of a running answer, from a character on."""
    mine = select(Piece).where(Piece.message_id == message_id, Piece.start + func.length(Piece.text) > after)
    pieces = (await session.exec(mine.order_by(col(Piece.start)))).all()
    return "".join(piece.text for piece in pieces)[max(after - pieces[0].start, 0) :] if pieces else ""


async def ask(
    session: AsyncSession,
    owner: User,
    conversation: Conversation | None,
    text: str,
    client_key: str | None,
    *,
    model: str,
    worker: str,
) -> Asked:
    """Save a question and its empty, running answer in one transaction; the answer belongs to `worker` from now on.

    Without a conversation a new one begins. The same client key with the same text gives what the first call gave;
    with another text, or while an answer is being written, it is a ConflictError.
    """
    text = read_text(text)
    if client_key and not client_key.isprintable():
        raise InvalidTextError("A client key has only characters that can be read.")
    position = 0
    conversation_id = conversation.id if conversation else name_conversation(owner, client_key)
    target = None if conversation else await _make_conversation(session, owner, conversation_id, text)
    if target is None:
        target = await _lock_conversation(session, conversation_id)
        if client_key and (repeated := await _find_repeated(session, target, text, client_key)):
            await session.commit()  # nothing to save, but the caller may wait for the answer: let the connection go
            return repeated
        position = await _next_position(session, target)
        target.updated_at = now()
        if position == 0 and target.title == NEW_TITLE:
            target.title = make_title(text)
        session.add(target)
    question = Message(conversation_id=target.id, position=position, role="user", text=text, client_key=client_key)
    session.add(question)
    return Asked(target, question, await _begin_answer(session, question, position + 1, model, worker), True)


def name_conversation(owner: User, client_key: str | None) -> UUID:
    """Its id is made from the key, so that a double click on the first question makes one conversation."""
    return uuid5(owner.id, client_key) if client_key else uuid4()


async def _make_conversation(
    session: AsyncSession, owner: User, conversation_id: UUID, text: str
) -> Conversation | None:
    """Begin a conversation; None where the first click has made it."""
    conversation = Conversation(id=conversation_id, owner_id=owner.id, title=make_title(text))
    insert = insert_new(session, Conversation).values(conversation.model_dump())
    made = await session.exec(insert.returning(col(Conversation.id)))  # rowcount says nothing here on PostgreSQL
    return conversation if made.first() else None


async def _lock_conversation(session: AsyncSession, conversation_id: UUID) -> Conversation:
    """Find the conversation as it is now, and keep others from writing into it until we commit."""
    this = select(Conversation).where(Conversation.id == conversation_id).with_for_update()
    found = (await session.exec(this.execution_options(populate_existing=True))).first()
    if found is None:
        raise ConflictError("This conversation was deleted. Begin a new one.")
    return found


async def ask_again(session: AsyncSession, answer: Message, *, model: str, worker: str) -> Asked:
    """Begin another answer to the last question. The one before stays: nothing that was written is lost."""
    conversation = await _lock_conversation(session, answer.conversation_id)
    question = await session.get(Message, answer.question_id)
    if question is None:
        raise ConflictError("This question was deleted. Ask it once more.")
    later = select(Message.id).where(
        Message.conversation_id == conversation.id, Message.role == "user", Message.position > question.position
    )
    if (await session.exec(later)).first():
        raise ConflictError("Only the last answer can be written again. Ask the question once more instead.")
    fresh = await _begin_answer(session, question, await _next_position(session, conversation), model, worker)
    return Asked(conversation, question, fresh, True)


async def continue_answer(session: AsyncSession, answer: Message, *, model: str, worker: str) -> Asked:
    """Let an answer that broke off go on from its last word: it runs again, and its text is its first piece."""
    conversation = await _lock_conversation(session, answer.conversation_id)
    answer = await session.get_one(Message, answer.id, populate_existing=True)
    question = await session.get_one(Message, answer.question_id)
    if not answer.can_be_continued:
        raise ConflictError("This answer is whole. Ask for more in a new message.")
    if await _next_position(session, conversation) != answer.position + 1:
        raise ConflictError("Only the last answer can go on. Ask the question once more instead.")
    so_far = answer.text
    session.add(Piece(message_id=answer.id, start=0, text=so_far))
    answer.status, answer.text, answer.error, answer.ended_at = "running", "", None, None
    answer.model, answer.worker, answer.stop_requested_at = model[:MODEL_LENGTH], worker, None
    await _lease(session, answer)
    return Asked(conversation, question, answer, True, so_far)


async def list_earlier_answers(session: AsyncSession, answer: Message) -> Sequence[Message]:
    """Give the other answers to the same question, the newest first."""
    others = select(Message).where(Message.question_id == answer.question_id, Message.id != answer.id)
    found = (await session.exec(others.order_by(col(Message.position).desc()))).all()
    await session.commit()
    return found


async def _begin_answer(session: AsyncSession, question: Message, position: int, model: str, worker: str) -> Message:
    """Save the empty answer with its lease, and all that came before it in this transaction."""
    answer = Message(
        conversation_id=question.conversation_id,
        question_id=question.id,
        position=position,
        role="assistant",
        status="running",
        model=model[:MODEL_LENGTH],
        worker=worker,
    )
    session.add(answer)
    await _lease(session, answer)
    return answer


async def _lease(session: AsyncSession, answer: Message) -> None:
    """Save a running answer with its lease, and commit."""
    answer.lease_until = database_time(LEASE_SECONDS)  # type: ignore[assignment]
    await session.commit()


async def _next_position(session: AsyncSession, conversation: Conversation) -> int:
    """Give the place after the last message; nobody may ask while an answer is being written."""
    last = select(Message).where(Message.conversation_id == conversation.id).order_by(col(Message.position).desc())
    message = (await session.exec(last.limit(1))).first()
    if message and not message.is_finished:
        raise ConflictError("The last answer is still being written. Wait for its end, or stop it.")
    return message.position + 1 if message else 0


async def _find_repeated(session: AsyncSession, conversation: Conversation, text: str, client_key: str) -> Asked | None:
    known = select(Message).where(Message.conversation_id == conversation.id, Message.client_key == client_key)
    question = (await session.exec(known)).first()
    if question is None:
        return None
    if question.text != text:
        raise ConflictError("This message was sent already with another text. Reload the page and send it again.")
    answers = select(Message).where(Message.question_id == question.id).order_by(col(Message.position))
    answer = (await session.exec(answers)).first()
    return Asked(conversation, question, answer, False) if answer else None


async def request_stop(session: AsyncSession, message: Message) -> None:
    """Leave word for the worker that writes the answer, wherever it runs. Stopping twice, or too late, is no error."""
    running = update(Message).where(col(Message.id) == message.id, col(Message.status).in_(UNFINISHED))
    await session.exec(running.values(stop_requested_at=database_time()))
    await session.commit()


def newest_answers(messages: Sequence[Message]) -> tuple[list[Message], dict[UUID, list[Message]]]:
    """Of several answers to one question keep the newest in its place; give the earlier ones by the newest's id."""
    newest: dict[UUID | None, Message] = {m.question_id: m for m in messages if m.role == "assistant"}
    earlier: dict[UUID, list[Message]] = {}
    shown = []
    for message in messages:
        kept = newest.get(message.question_id) if message.role == "assistant" else None
        if kept is not None and kept is not message:
            earlier.setdefault(kept.id, []).insert(0, message)
        else:
            shown.append(message)
    return shown, earlier


def read_text(raw: str) -> str:
    """Give a question as it is kept: what no database can hold is gone."""
    text = clean_text(raw).strip()
    if not text:
        raise InvalidTextError("Write a message first.")
    if len(text) > TEXT_LENGTH:
        raise InvalidTextError(
            f"This message has {len(text):,} characters; at most {TEXT_LENGTH:,} can be sent at once."
        )
    return text


def read_title(raw: str) -> str:
    title = tidy(clean_text(raw))[:TITLE_LENGTH].strip()
    if not title:
        raise InvalidTextError("A conversation needs a title.")
    return title


def clean_text(raw: str) -> str:
    """Take out what PostgreSQL cannot store, NUL and halves of surrogate pairs, and give line ends one form."""
    text = raw.replace("\x00", "").encode("utf-8", "replace").decode()
    return text.replace("\r\n", "\n").replace("\r", "\n")
