"""The tables of the chat: conversations, their messages, and the pieces of an answer that is being written."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID, uuid4

from sqlalchemy import Index, String, Text, UniqueConstraint
from sqlmodel import Field, SQLModel

from app.database import UTCDateTime, now

TITLE_LENGTH = 80
TEXT_LENGTH = 32_000  # characters of a question
WHOLE_LENGTH = 200_000  # of a message that a page shows whole: of what came in by another way it shows the beginning
BEGINNING_LENGTH = 20_000
CLIENT_KEY_LENGTH = 64
MODEL_LENGTH = 200
ERROR_LENGTH = 500
LAST_SEQUENCE = 2**31 - 1  # what an integer column holds

Role = Literal["user", "assistant"]
Status = Literal["queued", "running", "done", "stopped", "interrupted", "failed"]
UNFINISHED: tuple[Status, ...] = ("queued", "running")


class Conversation(SQLModel, table=True):
    __table_args__ = (Index("ix_conversation_owner_id_updated_at", "owner_id", "updated_at"),)

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    owner_id: UUID = Field(foreign_key="person.id", ondelete="CASCADE")
    title: str = Field(max_length=TITLE_LENGTH)
    created_at: datetime = Field(default_factory=now, sa_type=UTCDateTime)
    updated_at: datetime = Field(default_factory=now, sa_type=UTCDateTime)

    def __str__(self) -> str:
        return self.title


class Message(SQLModel, table=True):
    """A question or an answer. A running answer belongs to the worker that writes it, as long as its lease lasts."""

    __table_args__ = (
        UniqueConstraint("conversation_id", "position"),
        UniqueConstraint("conversation_id", "client_key"),
        Index("ix_message_status_lease_until", "status", "lease_until"),
    )

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    conversation_id: UUID = Field(foreign_key="conversation.id", ondelete="CASCADE")
    position: int
    role: Role = Field(sa_type=String(16))
    status: Status = Field(default="done", sa_type=String(16))
    text: str = Field(default="", sa_type=Text)
    created_at: datetime = Field(default_factory=now, sa_type=UTCDateTime)
    # Chosen by the browser: the same key again is the same message again.
    client_key: str | None = Field(default=None, max_length=CLIENT_KEY_LENGTH)

    # Only answers have the rest.
    question_id: UUID | None = Field(default=None, foreign_key="message.id", ondelete="CASCADE", index=True)
    model: str | None = Field(default=None, max_length=MODEL_LENGTH)
    error: str | None = Field(default=None, max_length=ERROR_LENGTH)
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    left_out_count: int = 0
    sequence: int = 0  # characters of an answer that has ended; a running one has its pieces
    worker: str | None = Field(default=None, max_length=64)
    lease_until: datetime | None = Field(default=None, sa_type=UTCDateTime)
    stop_requested_at: datetime | None = Field(default=None, sa_type=UTCDateTime)
    ended_at: datetime | None = Field(default=None, sa_type=UTCDateTime)

    def __str__(self) -> str:
        return self.text if len(self.text) <= TITLE_LENGTH else self.text[: TITLE_LENGTH - 1] + "…"

    @property
    def is_finished(self) -> bool:
        return self.status not in UNFINISHED

    @property
    def shown_text(self) -> str:
        return self.text if len(self.text) <= WHOLE_LENGTH else self.text[:BEGINNING_LENGTH]

    @property
    def can_be_continued(self) -> bool:
        """Whether it broke off, or was cut, after some words."""
        return self.is_finished and bool(self.text) and (self.status != "done" or self.error is not None)

    @property
    def duration(self) -> float | None:
        """Seconds from the question to the end of the answer; None where it went on only some other time."""
        seconds = (self.ended_at - self.created_at).total_seconds() if self.ended_at else None
        return seconds if seconds is not None and seconds < 3600 else None

    @property
    def usage(self) -> dict[str, Any] | None:
        """Tokens as the provider counted them; None where it did not say."""
        if self.prompt_tokens is None:
            return None
        return {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.completion_tokens}


class Piece(SQLModel, table=True):
    """A saved part of a running answer. Pieces are only ever added, and become one text at the answer's end."""

    message_id: UUID = Field(primary_key=True, foreign_key="message.id", ondelete="CASCADE")
    start: int = Field(primary_key=True)  # characters of the answer that stand before it
    text: str = Field(sa_type=Text)
