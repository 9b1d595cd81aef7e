"""The tables of people: who they are, and the tokens that prove it."""

from datetime import datetime
from typing import Literal
from uuid import UUID, uuid4

from sqlalchemy import String
from sqlmodel import Field, SQLModel

from app.database import UTCDateTime, now

EMAIL_LENGTH = 254
NAME_LENGTH = 80

TokenKind = Literal["session", "api"]


class User(SQLModel, table=True):
    """Somebody with an account. The e-mail is kept in lower case, so that a plain unique index is enough."""

    __tablename__ = "person"  # "user" is a reserved word in PostgreSQL

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    email: str = Field(max_length=EMAIL_LENGTH, unique=True)
    name: str = Field(default="", max_length=NAME_LENGTH)
    hashed_password: str = Field(max_length=200, repr=False)
    is_active: bool = True
    is_staff: bool = False
    is_superuser: bool = False
    is_verified: bool = False
    # A file of theirs. No foreign key: it would close a circle, since the file's owner is one already.
    picture_id: UUID | None = None
    created_at: datetime = Field(default_factory=now, sa_type=UTCDateTime)

    def __str__(self) -> str:
        return self.email


class AccessToken(SQLModel, table=True):
    """A browser's session or a program's API token. Only the HMAC-SHA-256 of the token is stored."""

    __tablename__ = "access_token"

    token: str = Field(primary_key=True, max_length=64, repr=False)
    kind: TokenKind = Field(default="session", sa_type=String(16))
    user_id: UUID = Field(foreign_key="person.id", ondelete="CASCADE", index=True)
    created_at: datetime = Field(default_factory=now, sa_type=UTCDateTime)
    expires_at: datetime = Field(sa_type=UTCDateTime, index=True)


class SetupToken(SQLModel, table=True):
    """What opens /setup, and each RECOVERY_TOKEN that has been used up. Only the SHA-256 of a token is stored."""

    __tablename__ = "setup_token"

    token: str = Field(primary_key=True, max_length=64, repr=False)
    expires_at: datetime | None = Field(default=None, sa_type=UTCDateTime)  # None: used up


class SetupAttempt(SQLModel, table=True):
    """A wrong token at /setup or /recover."""

    __tablename__ = "setup_attempt"

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    tried_at: datetime = Field(default_factory=now, sa_type=UTCDateTime)
