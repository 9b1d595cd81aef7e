"""The table of files: whose they are, and what they hold. Their bytes are in the storage, under the row's id."""

from datetime import datetime
from uuid import UUID, uuid4

from sqlmodel import Field, SQLModel

from app.database import UTCDateTime, now


class File(SQLModel, table=True):
    id: UUID = Field(default_factory=uuid4, primary_key=True)
    owner_id: UUID = Field(foreign_key="person.id", ondelete="CASCADE", index=True)
    content_type: str = Field(max_length=100)
    size: int
    created_at: datetime = Field(default_factory=now, sa_type=UTCDateTime)
