"""Conversations and messages in the admin panel: to read, not to change."""

from typing import Any, ClassVar

from markupsafe import Markup
from sqladmin.pagination import Pagination
from sqlalchemy import Select, or_
from sqlmodel import col, select
from starlette.requests import Request

from app.admin_view import AdminView, speak_plainly
from app.auth.models import User
from app.chat import service
from app.chat.models import Conversation, Message
from app.database import spell

EXCERPT_LENGTH = 80


def link_owner(row: Conversation, name: str, request: Request) -> Markup:
    emails = getattr(request.state, "owners", {})
    return link(request, "user", row.owner_id, emails.get(row.owner_id, row.owner_id))


def link_conversation(row: Message, name: str, request: Request) -> Markup:
    return link(request, "conversation", row.conversation_id, "Open")


def link(request: Request, identity: str, pk: object, text: object) -> Markup:
    return Markup('<a href="{}">{}</a>').format(request.url_for("admin:details", identity=identity, pk=pk), text)


def shorten(row: Message, name: str) -> str:
    text = " ".join(row.text[: 2 * EXCERPT_LENGTH].split())
    return text if len(text) <= EXCERPT_LENGTH else text[: EXCERPT_LENGTH - 1] + "…"


class ConversationView(AdminView, model=Conversation):
    name = "conversation"
    name_plural = "Conversations"
    icon = "fa-solid fa-comments"
    can_create = False
    can_edit = False

    column_list: ClassVar = ["title", "owner_id", "created_at", "updated_at"]
    column_details_list: ClassVar = ["id", *column_list]
    column_export_list: ClassVar = column_details_list
    column_searchable_list: ClassVar = ["title"]
    column_sortable_list: ClassVar = ["title", "created_at", "updated_at"]
    column_default_sort: ClassVar = ("updated_at", True)
    column_formatters: ClassVar = {"owner_id": link_owner}
    column_formatters_detail: ClassVar = {"owner_id": link_owner}
    column_labels: ClassVar = {
        "id": "Id",
        "title": "Title",
        "owner_id": "Owner",
        "created_at": "Begun",
        "updated_at": "Last used",
    }

    def search_placeholder(self) -> str:
        return "Title, owner's e-mail"

    def search_query(self, stmt: Select[Any], term: str) -> Select[Any]:
        words = spell(term)
        owners = select(User.id).where(or_(*(col(User.email).icontains(word, autoescape=True) for word in words)))
        titles = (col(Conversation.title).icontains(word, autoescape=True) for word in words)
        return stmt.where(or_(*titles, col(Conversation.owner_id).in_(owners)))

    async def list(self, request: Request) -> Pagination:
        page = await super().list(request)
        await self.remember_owners(request, page.rows)
        return page

    async def get_object_for_details(self, request: Request) -> Any:
        conversation = await super().get_object_for_details(request)
        await self.remember_owners(request, [conversation] if conversation else [])
        return conversation

    async def remember_owners(self, request: Request, rows: Any) -> None:
        """Read all e-mails of a page at once; a relationship would read them one by one, or everything they own."""
        owners = select(User).where(col(User.id).in_({row.owner_id for row in rows}))
        request.state.owners = {user.id: user.email for user in await self._run_query(owners)}

    async def delete_model(self, request: Request, pk: str) -> None:
        conversation: Conversation = await self.get_thing(pk)
        with speak_plainly():
            async with request.app.state.database.session() as session:
                await service.delete_conversation(session, conversation)


class MessageView(AdminView, model=Message):
    name = "message"
    name_plural = "Messages"
    icon = "fa-solid fa-message"
    can_create = False
    can_edit = False
    can_delete = False
    export_max_rows = 1_000  # whole texts: these are long

    column_list: ClassVar = ["created_at", "role", "status", "model", "text", "conversation_id"]
    column_details_list: ClassVar = [
        "id",
        "conversation_id",
        "position",
        "role",
        "status",
        "text",
        "model",
        "error",
        "prompt_tokens",
        "completion_tokens",
        "left_out_count",
        "created_at",
        "ended_at",
    ]
    column_export_list: ClassVar = column_details_list
    column_searchable_list: ClassVar = ["text", "model"]
    column_sortable_list: ClassVar = ["created_at", "role", "status", "model"]
    column_default_sort: ClassVar = ("created_at", True)
    column_formatters: ClassVar = {"text": shorten, "conversation_id": link_conversation}
    column_formatters_detail: ClassVar = {"conversation_id": link_conversation}
    column_labels: ClassVar = {
        "id": "Id",
        "conversation_id": "Conversation",
        "position": "Position",
        "role": "Role",
        "status": "Status",
        "text": "Text",
        "model": "Model",
        "error": "Error",
        "prompt_tokens": "Tokens read",
        "completion_tokens": "Tokens written",
        "left_out_count": "Earlier messages not sent",
        "created_at": "Written",
        "ended_at": "Ended",
    }
