"""The chat as JSON, for programs. An answer's events, each with an integer id:

    answer  {"id": message id}                          first
    piece   {"text": ...}                               the pieces joined are the stored text
    end     {"status": ..., "message": {...}}           last

The id of an event is the number of the answer's characters up to its end, so `?after=<id>`, or `Last-Event-ID`,
goes on exactly there. Each process can do that from the database alone.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import StreamingResponse

from app.auth.dependencies import CurrentUser
from app.chat import service
from app.chat.answers import Answers
from app.chat.dependencies import (
    AnswersDep,
    Cursor,
    EndAbandoned,
    OwnAnswer,
    OwnConversation,
    OwnMessage,
    refusing,
)
from app.chat.events import PING, encode_event, read_patience, stream_events, wants_events
from app.chat.models import CLIENT_KEY_LENGTH, LAST_SEQUENCE, TEXT_LENGTH, TITLE_LENGTH, Message, Role, Status
from app.chat.running import End
from app.chat.titles import NEW_TITLE
from app.database import SessionDep

router = APIRouter(prefix="/api/v1", tags=["chat"], dependencies=[EndAbandoned])

ERRORS: dict[int | str, dict[str, Any]] = {
    401: {"description": "Not signed in"},
    404: {"description": "Not there, or not yours"},
}
EVENTS = {
    "description": "The answer, or with `Accept: text/event-stream` its events",
    "content": {"text/event-stream": {}},
}
PAGE_SIZE = 500_000  # characters of messages after which a page ends
Limit = Annotated[int, Query(ge=1, le=100)]


class Strict(BaseModel):
    """What a client may send: a field that we do not know is an error, not a wish that is ignored."""

    model_config = ConfigDict(extra="forbid")


class TitleIn(Strict):
    title: str = Field(min_length=1, max_length=TITLE_LENGTH)


class ConversationIn(Strict):
    title: str = Field(NEW_TITLE, min_length=1, max_length=TITLE_LENGTH)


class QuestionIn(Strict):
    content: str = Field(min_length=1, max_length=TEXT_LENGTH)
    client_key: str | None = Field(
        None, min_length=1, max_length=CLIENT_KEY_LENGTH, description="Sent again, it gives the first answer again"
    )


class ConversationOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: UUID
    title: str
    created_at: datetime
    updated_at: datetime


class UsageOut(BaseModel):
    prompt_tokens: int
    completion_tokens: int | None


class MessageOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: UUID
    role: Role
    status: Status
    text: str
    model: str | None
    error: str | None
    usage: UsageOut | None
    created_at: datetime


class ConversationPage(BaseModel):
    items: list[ConversationOut]
    next_cursor: str | None = Field(description="Give it as `cursor` for the next page; null on the last one")


class MessagePage(BaseModel):
    items: list[MessageOut]
    next_cursor: str | None


@router.get("/conversations", responses={401: ERRORS[401]})
async def list_my_conversations(
    session: SessionDep, person: CurrentUser, cursor: str | None = None, limit: Limit = 30
) -> ConversationPage:
    """List conversations, the latest first."""
    with refusing():
        after = service.Place.read(cursor) if cursor is not None else None
    found, more = await service.list_conversations(session, person, after=after, limit=limit)
    items = [ConversationOut.model_validate(one) for one in found]
    return ConversationPage(items=items, next_cursor=str(more) if more else None)


@router.post("/conversations", status_code=201, responses={401: ERRORS[401]})
async def create_conversation(
    session: SessionDep, person: CurrentUser, new: ConversationIn | None = None
) -> ConversationOut:
    """Begin a conversation; without a title it takes one from its first question."""
    title = new.title if new else NEW_TITLE
    with refusing():
        return ConversationOut.model_validate(await service.create_conversation(session, person, title))


@router.get("/conversations/{conversation_id}", responses=ERRORS)
async def read_conversation(conversation: OwnConversation) -> ConversationOut:
    return ConversationOut.model_validate(conversation)


@router.patch("/conversations/{conversation_id}", responses=ERRORS)
async def change_conversation(session: SessionDep, conversation: OwnConversation, new: TitleIn) -> ConversationOut:
    with refusing():
        await service.rename_conversation(session, conversation, new.title)
    return ConversationOut.model_validate(conversation)


@router.delete("/conversations/{conversation_id}", status_code=204, responses=ERRORS)
async def remove_conversation(session: SessionDep, conversation: OwnConversation) -> Response:
    await service.delete_conversation(session, conversation)
    return Response(status_code=204)


@router.get("/conversations/{conversation_id}/messages", responses=ERRORS)
async def list_messages(
    session: SessionDep,
    conversation: OwnConversation,
    cursor: Annotated[int | None, Query(ge=0, le=LAST_SEQUENCE)] = None,
    limit: Limit = 50,
) -> MessagePage:
    """List the last messages, oldest first; the next page has the ones before them. Long ones may be fewer."""
    found = await service.list_messages(session, conversation, before=cursor, limit=limit, size=PAGE_SIZE)
    more = str(found[0].position) if found and found[0].position > 0 else None
    return MessagePage(items=[MessageOut.model_validate(one) for one in found], next_cursor=more)


@router.post(
    "/conversations/{conversation_id}/messages",
    response_model=MessageOut,
    responses={**ERRORS, 200: EVENTS, 409: {"description": "Still answering, or the key has another text"}},
)
async def ask_question(
    request: Request,
    session: SessionDep,
    person: CurrentUser,
    answers: AnswersDep,
    conversation: OwnConversation,
    new: QuestionIn,
) -> MessageOut | StreamingResponse:
    """Ask, and get the answer: its events as they come, or all of it at its end."""
    with refusing():
        asked = await service.ask(session, person, conversation, new.content, new.client_key, **answers.take_on())
    return await give_answer(request, answers, asked)


@router.get("/messages/{message_id}", responses=ERRORS)
async def read_message(message: OwnMessage) -> MessageOut:
    return MessageOut.model_validate(message)


@router.get("/messages/{message_id}/events", response_model=None, responses={**ERRORS, 200: EVENTS})
async def follow_message(request: Request, answers: AnswersDep, answer: OwnAnswer, cursor: Cursor) -> StreamingResponse:
    """Read an answer's events, from the beginning or after one that was seen; to the end, if it still runs."""
    return stream_events(request, write_events(request, answers, answer.id, cursor))


@router.post(
    "/messages/{message_id}/continue",
    response_model=MessageOut,
    responses={**ERRORS, 200: EVENTS, 409: {"description": "It is whole, or not the last one"}},
)
async def continue_message(
    request: Request, session: SessionDep, answers: AnswersDep, answer: OwnAnswer
) -> MessageOut | StreamingResponse:
    """Let the last answer go on, which broke off or was cut: its events from the first on, or all of it at its end."""
    with refusing():
        asked = await service.continue_answer(session, answer, **answers.take_on())
    return await give_answer(request, answers, asked)


@router.post("/messages/{message_id}/stop", responses=ERRORS)
async def stop_message(session: SessionDep, answers: AnswersDep, answer: OwnAnswer) -> MessageOut:
    """End an answer where it is. What was written stays; an answer that has ended already is left as it is."""
    await service.request_stop(session, answer)
    answers.stop(answer.id)
    return await wait_for_end(answers, answer.id)


async def give_answer(request: Request, answers: Answers, asked: service.Asked) -> MessageOut | StreamingResponse:
    answers.start(asked)
    if wants_events(request):
        return stream_events(request, write_events(request, answers, asked.answer.id, -1))
    return await wait_for_end(answers, asked.answer.id)


async def write_events(
    request: Request, answers: Answers, message_id: UUID, cursor: int
) -> AsyncGenerator[bytes, None]:
    if cursor < 0:
        yield encode_event("answer", 0, {"id": str(message_id)})
    length = max(cursor, 0)
    async with aclosing(answers.read(message_id, cursor, patience=read_patience(request))) as parts:
        async for part in parts:
            if part is None:
                yield PING
            elif isinstance(part, End):
                length = len(part.message.text) if part.message else length
                yield encode_event("end", length + 1, describe_end(part.message))
            else:
                length = part.sequence
                yield encode_event("piece", length, {"text": part.text})


def describe_end(message: Message | None) -> dict[str, object]:
    if message is None:
        return {"status": "deleted", "message": None}
    return {"status": message.status, "message": MessageOut.model_validate(message).model_dump(mode="json")}


async def wait_for_end(answers: Answers, message_id: UUID) -> MessageOut:
    async with aclosing(answers.read(message_id, LAST_SEQUENCE)) as parts:
        async for part in parts:
            if isinstance(part, End) and part.message:
                return MessageOut.model_validate(part.message)
    raise HTTPException(404)
