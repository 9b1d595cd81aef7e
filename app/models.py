"""Imports every table, so that migrations see them. A new feature's models get a line here."""

from sqlmodel import SQLModel

from app.auth.models import AccessToken, SetupAttempt, SetupToken, User
from app.chat.models import Conversation, Message, Piece

__all__ = ["AccessToken", "Conversation", "Message", "Piece", "SQLModel", "SetupAttempt", "SetupToken", "User"]
