"""The chat's pages. A question is answered by events whose HTML is the page's own.

    open   {"id", "html", "stop", "follow", "url", "title", "item", "replaces"}   question and answer
    patch  {"n", "keep", "html"}                                                  the new HTML of block n
    done   {"html", "announce", "status"}                                         what stands under a finished answer

The id of an event is the number of the answer's characters that the page then has. A page that was cut off asks at
`follow` and gets all events again: a patch fits only the HTML that the patches before it have made. Without JavaScript
each form leads to the page, which shows what is saved.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Annotated, Any
from uuid import uuid4

from fastapi import APIRouter, Form, Query, Request
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

from app.auth.dependencies import CurrentUser
from app.auth.models import User
from app.chat import service
from app.chat.answers import Answers
from app.chat.dependencies import (
    AnswerInside,
    AnswersDep,
    EndAbandoned,
    MessageInside,
    OwnConversation,
    refusal,
    refusing,
)
from app.chat.events import PING, encode_event, read_patience, stream_events, wants_events
from app.chat.markdown import BlockStream, Patch
from app.chat.models import CLIENT_KEY_LENGTH, LAST_SEQUENCE, Conversation, Message
from app.chat.running import End
from app.chat.service import Asked
from app.database import SessionDep
from app.templating import render, render_page, url_for_request

router = APIRouter(prefix="/chat", include_in_schema=False, dependencies=[EndAbandoned])

ANNOUNCED_LENGTH = 3000  # characters of an answer that a screen reader is given at its end
GONE = "This conversation was deleted."
ENDINGS = {"done": "Answer complete. ", "stopped": "Stopped. "}

Text = Annotated[str, Form()]
ClientKey = Annotated[str, Form(max_length=CLIENT_KEY_LENGTH)]


@router.get("")
async def new_conversation(request: Request, session: SessionDep, person: CurrentUser) -> HTMLResponse:
    return await show_chat(request, session, person, None)


@router.post("", response_model=None)
async def start_conversation(
    request: Request,
    session: SessionDep,
    person: CurrentUser,
    answers: AnswersDep,
    text: Text = "",
    client_key: ClientKey = "",
) -> Response:
    return await ask(request, session, person, answers, None, text, client_key)


@router.get("/all")
async def list_conversations(
    request: Request,
    session: SessionDep,
    person: CurrentUser,
    q: Annotated[str, Query(max_length=200)] = "",
    before: str = "",
) -> HTMLResponse:
    with refusing():
        after = service.Place.read(before) if before else None
    found, next_before = await service.list_conversations(session, person, search=service.clean_text(q), after=after)
    return render_page(request, "chat/all.html", conversations=found, q=q, next_before=next_before)


@router.get("/{conversation_id}")
async def show_conversation(
    request: Request,
    session: SessionDep,
    person: CurrentUser,
    conversation: OwnConversation,
    before: Annotated[int | None, Query(ge=0, le=LAST_SEQUENCE)] = None,
) -> HTMLResponse:
    return await show_chat(request, session, person, conversation, before=before)


@router.get("/{conversation_id}/messages/{message_id}")
async def show_text(message: MessageInside) -> PlainTextResponse:
    """Give a message as it was written, whatever its length."""
    return PlainTextResponse(message.text)


@router.post("/{conversation_id}/messages", response_model=None)
async def send_message(
    request: Request,
    session: SessionDep,
    person: CurrentUser,
    answers: AnswersDep,
    conversation: OwnConversation,
    text: Text = "",
    client_key: ClientKey = "",
) -> Response:
    return await ask(request, session, person, answers, conversation, text, client_key)


@router.post("/{conversation_id}/rename")
async def rename_conversation(
    request: Request,
    session: SessionDep,
    conversation: OwnConversation,
    title: Text = "",
) -> RedirectResponse:
    with refusing():
        await service.rename_conversation(session, conversation, title)
    return go_to(request, conversation)


@router.post("/{conversation_id}/delete")
async def delete_conversation(request: Request, session: SessionDep, conversation: OwnConversation) -> RedirectResponse:
    await service.delete_conversation(session, conversation)
    return RedirectResponse(url_for_request(request, "new_conversation"), 303)


@router.post("/{conversation_id}/messages/{message_id}/regenerate", response_model=None)
async def regenerate_answer(
    request: Request,
    session: SessionDep,
    person: CurrentUser,
    answers: AnswersDep,
    conversation: OwnConversation,
    answer: AnswerInside,
) -> Response:
    try:
        asked = await service.ask_again(session, answer, **answers.take_on())
    except service.ChatError as error:
        return await refuse(request, session, person, conversation, error)
    answers.start(asked)
    earlier = await service.list_earlier_answers(session, asked.answer)
    return show_answer(request, answers, asked, earlier=earlier)


@router.post("/{conversation_id}/messages/{message_id}/continue", response_model=None)
async def continue_answer(
    request: Request,
    session: SessionDep,
    person: CurrentUser,
    answers: AnswersDep,
    conversation: OwnConversation,
    answer: AnswerInside,
) -> Response:
    try:
        asked = await service.continue_answer(session, answer, **answers.take_on())
    except service.ChatError as error:
        return await refuse(request, session, person, conversation, error)
    answers.start(asked)
    return show_answer(request, answers, asked)


@router.post("/{conversation_id}/messages/{message_id}/stop", response_model=None)
async def stop_answer(
    request: Request, session: SessionDep, answers: AnswersDep, conversation: OwnConversation, answer: AnswerInside
) -> Response:
    await service.request_stop(session, answer)
    answers.stop(answer.id)
    if "text/html" in request.headers.get("accept", ""):
        return go_to(request, conversation)
    return Response(status_code=204)


@router.get("/{conversation_id}/messages/{message_id}/events")
async def follow_answer(
    request: Request, answers: AnswersDep, conversation: OwnConversation, answer: AnswerInside
) -> Response:
    """Give an answer's events once more, running or ended: to a page that was loaded anew or cut off."""
    return stream_events(
        request, write_events(request, answers, answer, describe_answer(request, conversation, answer))
    )


async def ask(
    request: Request,
    session: AsyncSession,
    person: User,
    answers: Answers,
    conversation: Conversation | None,
    text: str,
    client_key: str,
) -> Response:
    try:
        asked = await service.ask(session, person, conversation, text, client_key or None, **answers.take_on())
    except service.ChatError as error:
        return await refuse(request, session, person, conversation, error, draft=text)
    answers.start(asked)
    return show_answer(request, answers, asked, with_item=conversation is None)


def show_answer(
    request: Request, answers: Answers, asked: Asked, *, earlier: Sequence[Message] = (), with_item: bool = False
) -> Response:
    """Show it as it comes: as events, or on the page that the browser is sent to."""
    if not wants_events(request):
        return go_to(request, asked.conversation)
    opening = describe_answer(request, asked.conversation, asked.answer, earlier)
    if earlier:
        opening["replaces"] = f"message-{earlier[0].id}"
    elif not asked.so_far:  # a page that lets an answer go on has both already
        opening["html"] = render(request, "chat/_question.html", message=asked.question) + opening["html"]
    if with_item:
        item = {"conversation": asked.conversation, "current_id": asked.conversation.id}
        opening["item"] = render(request, "chat/_conversation_item.html", **item)
    return stream_events(request, write_events(request, answers, asked.answer, opening))


async def refuse(
    request: Request,
    session: AsyncSession,
    person: User,
    conversation: Conversation | None,
    error: service.ChatError,
    draft: str = "",
) -> Response:
    """Say why not, and keep what was typed."""
    refused = refusal(error)
    if wants_events(request):
        raise refused
    page = await show_chat(request, session, person, conversation, error=refused.detail, draft=draft)
    page.status_code = refused.status_code
    page.headers.update(refused.headers or {})
    return page


async def write_events(
    request: Request, answers: Answers, answer: Message, opening: dict[str, Any]
) -> AsyncGenerator[bytes, None]:
    """Write an answer's events for one reader, from its first word on."""
    blocks = BlockStream()
    length = 0
    yield encode_event("open", length, opening)
    async with aclosing(answers.read(answer.id, patience=read_patience(request))) as parts:
        async for part in parts:
            if part is None:
                yield PING
            elif isinstance(part, End):
                yield write_patches(blocks.finish(), length) + write_end(request, part.message, length)
            else:
                length = part.sequence
                if patches := blocks.feed(part.text):
                    yield write_patches(patches, length)


def write_patches(patches: list[Patch], length: int) -> bytes:
    return b"".join(encode_event("patch", length, patch._asdict()) for patch in patches)


def write_end(request: Request, message: Message | None, length: int) -> bytes:
    if message is None:
        done = {"html": render(request, "chat/_gone.html"), "announce": GONE, "status": "deleted"}
    else:
        tools = render(request, "chat/_tools.html", message=message, is_last=True)
        done = {"html": tools, "announce": announce(message), "status": message.status}
    return encode_event("done", length + 1, done)


def announce(message: Message) -> str:
    begin = ENDINGS.get(message.status) or f"{message.error} "
    return begin + " ".join(message.text[:ANNOUNCED_LENGTH].split())


def describe_answer(
    request: Request, conversation: Conversation, answer: Message, earlier: Sequence[Message] = ()
) -> dict[str, Any]:
    ids = {"conversation_id": conversation.id, "message_id": answer.id}
    return {
        "id": f"message-{answer.id}",
        "html": render(
            request, "chat/_answer.html", message=answer, earlier={answer.id: earlier}, is_fresh=True, is_last=True
        ),
        "stop": url_for_request(request, "stop_answer", **ids),
        "follow": url_for_request(request, "follow_answer", **ids),
        "url": url_for_request(request, "show_conversation", conversation_id=conversation.id),
        "title": conversation.title,
        "item": "",
        "replaces": None,
    }


async def show_chat(
    request: Request,
    session: AsyncSession,
    person: User,
    conversation: Conversation | None,
    *,
    before: int | None = None,
    error: str | None = None,
    draft: str = "",
) -> HTMLResponse:
    messages = await service.list_messages(session, conversation, before=before) if conversation else []
    shown, earlier = service.newest_answers(messages)
    conversations, _ = await service.list_conversations(session, person)
    return await asyncio.to_thread(  # drawing fifty long answers takes seconds, and streams must go on
        render_page,
        request,
        "chat/conversation.html",
        conversation=conversation,
        conversations=conversations,
        messages=shown,
        earlier=earlier,
        earlier_before=messages[0].position if messages and messages[0].position > 0 else None,
        is_newest_page=before is None,
        model_label=request.app.state.model.label,
        client_key=str(uuid4()),
        error=error,
        draft=draft,
    )


def go_to(request: Request, conversation: Conversation) -> RedirectResponse:
    return RedirectResponse(url_for_request(request, "show_conversation", conversation_id=conversation.id), 303)
