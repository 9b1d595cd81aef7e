"""Who may enter /admin, and which views it shows."""

from functools import cached_property
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.datastructures import URLPath
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Router
from starlette.types import Message, Receive, Scope, Send

from app.auth.dependencies import NotSignedInError
from app.auth.models import User
from app.auth.users import COOKIE, SECURE_COOKIE, open_people, open_sessions
from app.settings import ROOT

if TYPE_CHECKING:
    from sqladmin import Admin

AN_HOUR = b"public, max-age=3600"


def add_admin(app: FastAPI) -> None:
    app.mount("/admin", AdminSite(app), name="admin")


class AdminSite:
    """sqladmin behind our own door, which asks at each request. Only the package's style sheets and scripts are public.

    It is built at the first visit: importing it would add a sixth of a second of work to every start. Its router is
    called without its application, so that refusals and errors travel to the pages that the site has for them.
    """

    def __init__(self, app: FastAPI) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        if scope["path"].removeprefix(scope["root_path"]).startswith("/statics/"):
            await self.panel.admin.router(scope, receive, keep_an_hour(send))
        else:
            await require_staff(request)
            await self.panel.admin.router(Paths.only(scope), receive, send)

    @property
    def routes(self) -> list[BaseRoute]:
        """Lets `url_for("admin:list", ...)` find its way in."""
        return self.panel.admin.router.routes

    @cached_property
    def panel(self) -> "Admin":
        return build_panel(self.app)


async def require_staff(request: Request) -> None:
    person = await find_person(request)
    if person is None:
        raise NotSignedInError
    request.state.person = person
    if not (person.is_staff or person.is_superuser):
        raise HTTPException(403, "The admin panel is for the people who run this site.")


async def find_person(request: Request) -> User | None:
    """Find who is signed in, with the cookie and the tokens of every other page."""
    token = request.cookies.get(SECURE_COOKIE if request.app.state.settings.is_production else COOKIE)
    async with request.app.state.database.session(reading=True) as session:
        strategy = await open_sessions(session)
        person = await strategy.read_token(token, await open_people(session))
    return person if person and person.is_active else None


class Paths:
    """Names of routes to bare paths. sqladmin writes whole addresses, and these would begin with http: behind a proxy
    that ends TLS: browsers refuse such forms and style sheets on a page that came by https:.
    """

    def __init__(self, router: Router) -> None:
        self.router = router

    def url_path_for(self, name: str, /, **params: Any) -> URLPath:
        return URLPath(str(self.router.url_path_for(name, **params)))

    @classmethod
    def only(cls, scope: Scope) -> Scope:
        headers = [(name, value) for name, value in scope["headers"] if name != b"host"]
        return {**scope, "headers": headers, "server": None, "router": cls(scope["router"])}


def keep_an_hour(send: Send) -> Send:
    async def send_and_keep(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], (b"cache-control", AN_HOUR)]
        await send(message)

    return send_and_keep


def build_panel(app: FastAPI) -> "Admin":
    from sqladmin import Admin
    from sqladmin.authorization import Action, AuthorizationBackend

    from app.auth.admin import PersonView
    from app.chat.admin import ConversationView, MessageView
    from app.templating import environment

    class Permissions(AuthorizationBackend):
        """A superuser may do everything. Staff may look: no changes, and nothing to carry away in bulk."""

        def has_permission(self, request: Request, identity: str, action: str, obj: object = None) -> bool:
            return bool(request.state.person.is_superuser) or action in (Action.LIST, Action.DETAILS)

    class Panel(Admin):
        """There is one way to sign in and out, and it is not here."""

        async def login(self, request: Request) -> Response:
            return RedirectResponse(request.url_for("admin:index"), 303)

        logout = login

        async def _delete(self, request: Request) -> None:
            if not request.query_params.get("pks"):
                raise HTTPException(400)  # sqladmin takes it for a fault of ours
            await super()._delete(request)

    panel = Panel(
        Starlette(),
        app.state.database.engine,
        title=f"{app.state.settings.site_name} admin",
        templates_dir=str(ROOT / "templates"),
        authorization_backend=Permissions(),
    )
    for name in ("static", "icon"):
        panel.templates.env.globals[name] = environment.globals[name]
    panel.templates.env.globals["site_name"] = app.state.settings.site_name
    for view in (PersonView, ConversationView, MessageView):
        panel.add_view(view)
    return panel
