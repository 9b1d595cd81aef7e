"""What other features ask of this one: who is signed in."""

from typing import Annotated

from fastapi import Depends, Request

from app.auth.models import User
from app.auth.users import get_asker


class NotSignedInError(Exception):
    """Somebody must sign in first: pages lead there, the API answers 401."""


async def get_person(
    request: Request, asker: Annotated[tuple[User | None, str | None], Depends(get_asker)]
) -> User | None:
    """Find who asks, and remember it for the page's corner."""
    request.state.person, request.state.token = asker
    return asker[0]


MaybeUser = Annotated[User | None, Depends(get_person)]


async def require_person(person: MaybeUser) -> User:
    if person is None:
        raise NotSignedInError
    return person


CurrentUser = Annotated[User, Depends(require_person)]
