"""What routes of the chat ask for: the person's own conversation and message, and the running answers."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Header, Query, Request
from starlette.exceptions import HTTPException

from app.auth.dependencies import CurrentUser
from app.chat import service
from app.chat.answers import Answers
from app.chat.models import LAST_SEQUENCE, Conversation, Message
from app.database import SessionDep


async def get_answers(request: Request) -> Answers:
    answers: Answers = request.app.state.answers
    return answers


async def end_abandoned(request: Request) -> None:
    """Runs before a route opens its session, which on SQLite could keep this from writing, or from seeing it."""
    await (await get_answers(request)).end_abandoned()


async def require_conversation(session: SessionDep, person: CurrentUser, conversation_id: UUID) -> Conversation:
    """Another's conversation is as good as none: 404, not 403, which would tell that it exists."""
    conversation = await service.get_conversation(session, person, conversation_id)
    if conversation is None:
        raise HTTPException(404, "This conversation is not there, or it is not yours. It may have been deleted.")
    return conversation


async def require_message(session: SessionDep, person: CurrentUser, message_id: UUID) -> Message:
    message = await service.get_message(session, person, message_id)
    if message is None:
        raise HTTPException(404)
    return message


async def require_answer(message: Annotated[Message, Depends(require_message)]) -> Message:
    if message.role != "assistant":
        raise HTTPException(404)
    return message


async def require_message_inside(
    conversation: Annotated[Conversation, Depends(require_conversation)],
    message: Annotated[Message, Depends(require_message)],
) -> Message:
    if message.conversation_id != conversation.id:
        raise HTTPException(404)
    return message


async def require_answer_inside(message: Annotated[Message, Depends(require_message_inside)]) -> Message:
    return await require_answer(message)


def refusal(error: service.ChatError) -> HTTPException:
    """What the service refuses, as HTTP says it."""
    if isinstance(error, service.FullError):
        return HTTPException(503, str(error), {"Retry-After": "5"})
    return HTTPException(409 if isinstance(error, service.ConflictError) else 422, str(error))


@contextmanager
def refusing() -> Iterator[None]:
    try:
        yield
    except service.ChatError as error:
        raise refusal(error) from None


async def read_cursor(
    after: Annotated[int | None, Query(ge=-1, description="Only what comes after the event with this id")] = None,
    last_event_id: Annotated[int | None, Header(ge=-1, description="The same, as browsers send it")] = None,
) -> int:
    """Say how many characters of the answer a reader has; -1 for one who has not even seen its beginning."""
    cursor = after if after is not None else last_event_id
    return min(cursor, LAST_SEQUENCE) if cursor is not None else -1


AnswersDep = Annotated[Answers, Depends(get_answers)]
OwnConversation = Annotated[Conversation, Depends(require_conversation)]
OwnMessage = Annotated[Message, Depends(require_message)]
OwnAnswer = Annotated[Message, Depends(require_answer)]
MessageInside = Annotated[Message, Depends(require_message_inside)]  # of the conversation that the address names
AnswerInside = Annotated[Message, Depends(require_answer_inside)]
EndAbandoned = Depends(end_abandoned)
Cursor = Annotated[int, Depends(read_cursor)]
