"""fastapi-users, joined to our tables: who signs in, with which cookie or token, and who is asking.

Its own database adapter holds SQLAlchemy below 2.1 and stores tokens as they are; these few lines hash them.
"""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Request, Response
from fastapi.security import HTTPBearer, OAuth2PasswordRequestForm
from fastapi_users import BaseUserManager, FastAPIUsers, UUIDIDMixin
from fastapi_users.authentication import AuthenticationBackend, CookieTransport, Transport
from fastapi_users.authentication.strategy.db import AccessTokenDatabase, DatabaseStrategy
from fastapi_users.authentication.transport.base import TransportLogoutNotSupportedError
from fastapi_users.db import BaseUserDatabase
from fastapi_users.openapi import OpenAPIResponseType
from sqlmodel.ext.asyncio.session import AsyncSession

from app.auth import service
from app.auth.models import AccessToken, TokenKind, User
from app.auth.passwords import check_password, hash_password
from app.database import SessionDep

COOKIE = "session"
SECURE_COOKIE = "__Host-session"  # browsers take a cookie of this prefix only over HTTPS, from this very host


class People(BaseUserDatabase[User, UUID]):
    def __init__(self, session: AsyncSession) -> None:
        self.session = session

    async def get(self, id: UUID) -> User | None:
        return await self.session.get(User, id)

    async def get_by_email(self, email: str) -> User | None:
        return await service.get_user_by_email(self.session, email)


class Tokens(AccessTokenDatabase[AccessToken]):
    def __init__(self, session: AsyncSession, kind: TokenKind) -> None:
        self.session = session
        self.kind = kind

    async def get_by_token(self, token: str, max_age: datetime | None = None) -> AccessToken | None:
        return await service.get_token(self.session, token, self.kind)

    async def create(self, create_dict: dict[str, Any]) -> AccessToken:
        """Give a row that is not the stored one: it carries the token itself, which goes to the browser."""
        token, stored = await service.create_token(self.session, create_dict["user_id"], self.kind)
        return AccessToken(**stored.model_dump(exclude={"token"}), token=token)

    async def update(self, access_token: AccessToken, update_dict: dict[str, Any]) -> AccessToken:
        raise NotImplementedError  # a token never changes

    async def delete(self, access_token: AccessToken) -> None:
        await self.session.delete(access_token)
        await self.session.commit()


class Strategy(DatabaseStrategy[User, UUID, AccessToken]):
    """Asks the database once for each request, where its parent asks for the token and then for the person."""

    async def read_token(self, token: str | None, user_manager: BaseUserManager[User, UUID]) -> User | None:
        assert isinstance(self.database, Tokens)
        return await service.get_token_owner(self.database.session, token, self.database.kind) if token else None


class UserManager(UUIDIDMixin, BaseUserManager[User, UUID]):
    async def authenticate(self, credentials: OAuth2PasswordRequestForm) -> User | None:
        """Check e-mail and password in a thread, taking as long for an unknown e-mail as for a known one."""
        assert isinstance(self.user_db, People)
        user = await self.user_db.get_by_email(credentials.username)
        # Hashing waits its turn, and must keep no connection, nor the writer's place.
        await self.user_db.session.commit()
        if user is None:
            await hash_password(credentials.password)
            return None
        checked = user.hashed_password
        fits, better_hash = await check_password(credentials.password, checked)
        return await service.confirm_sign_in(self.user_db.session, user, checked, better_hash) if fits else None


class BearerToken(HTTPBearer):
    """`Authorization: Bearer`, as the text that fastapi-users wants."""

    async def __call__(self, request: Request) -> str | None:  # type: ignore[override]
        credentials = await super().__call__(request)
        return credentials.credentials if credentials else None


class BearerTransport(Transport):
    """Programs bring their token in a header. They get it from `oppman.py createtoken`, not by signing in here."""

    scheme = BearerToken(auto_error=False, description="A token from `oppman.py createtoken EMAIL`")

    async def get_login_response(self, token: str) -> Response:
        raise NotImplementedError

    async def get_logout_response(self) -> Response:
        raise TransportLogoutNotSupportedError

    @staticmethod
    def get_openapi_login_responses_success() -> OpenAPIResponseType:
        return {}

    @staticmethod
    def get_openapi_logout_responses_success() -> OpenAPIResponseType:
        return {}


# What a route asks for is async even where it awaits nothing: a plain function would run in a thread each time.
async def open_people(session: SessionDep) -> UserManager:
    return UserManager(People(session))


async def open_sessions(session: SessionDep) -> DatabaseStrategy[User, UUID, AccessToken]:
    return Strategy(Tokens(session, "session"))


async def open_api_tokens(session: SessionDep) -> DatabaseStrategy[User, UUID, AccessToken]:
    return Strategy(Tokens(session, "api"))


Backend = AuthenticationBackend[User, UUID]
_lifetime = int(service.SESSION_LIFETIME.total_seconds())
plain_cookie: Backend = AuthenticationBackend(
    "cookie", CookieTransport(COOKIE, _lifetime, cookie_secure=False), open_sessions
)
secure_cookie: Backend = AuthenticationBackend(
    "secure_cookie", CookieTransport(SECURE_COOKIE, _lifetime), open_sessions
)
bearer: Backend = AuthenticationBackend("bearer", BearerTransport(), open_api_tokens)


async def pick_cookie(request: Request) -> Backend:
    """Plain HTTP on a laptop cannot carry the secure cookie; in production nothing else is taken."""
    return secure_cookie if request.app.state.settings.is_production else plain_cookie


async def pick_backends(request: Request) -> list[Backend]:
    return [await pick_cookie(request), bearer]


fastapi_users = FastAPIUsers[User, UUID](open_people, [plain_cookie, secure_cookie, bearer])
get_asker = fastapi_users.authenticator.current_user_token(
    optional=True, active=True, get_enabled_backends=pick_backends
)

PeopleDep = Annotated[UserManager, Depends(open_people)]
SessionsDep = Annotated[DatabaseStrategy[User, UUID, AccessToken], Depends(open_sessions)]
CookieBackend = Annotated[Backend, Depends(pick_cookie)]
