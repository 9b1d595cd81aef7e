"""Imports every table, so that migrations see them. A new feature's models get a line here."""

from sqlmodel import SQLModel

from app.auth.models import AccessToken, SetupAttempt, SetupToken, User
from app.chat.models import Conversation, Message, Piece
from app.files.models import File

__all__ = [
    "AccessToken",
    "Conversation",
    "File",
    "Message",
    "Piece",
    "SQLModel",
    "SetupAttempt",
    "SetupToken",
    "User",
]
