"""/setup makes the first admin, /recover lets one back in. Where there is nothing to do, there is no such page."""

import logging

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from app.auth import setup
from app.auth.models import EMAIL_LENGTH
from app.auth.routes import Text, start_session
from app.auth.service import AccountError
from app.auth.users import CookieBackend, SessionsDep
from app.database import SessionDep
from app.schema import MigrationError
from app.templating import render_page, url_for_request

log = logging.getLogger(__name__)
router = APIRouter(include_in_schema=False)

NO_MIGRATION = "The database's tables could not be made, and nothing has changed. The log says why."
Refusal = setup.TriesError | AccountError | MigrationError
REFUSALS = (setup.TriesError, AccountError, MigrationError)


@router.get("/setup")
async def show_setup(request: Request) -> Response:
    return await show_setup_form(request, {})


@router.post("/setup")
async def make_first_admin(
    request: Request,
    session: SessionDep,
    sessions: SessionsDep,
    cookie: CookieBackend,
    token: Text = "",
    email: Text = "",
    password: Text = "",
    name: Text = "",
) -> Response:
    try:
        user = await setup.make_first_admin(request.app.state.door, session, token, email, password, name)
    except setup.ClosedError:
        raise HTTPException(404) from None
    except REFUSALS as refusal:
        await session.rollback()  # nobody waits for us while the page is made
        return await show_setup_form(request, {"email": email[:EMAIL_LENGTH], "name": name}, refusal)
    return await start_session(request, session, cookie, sessions, user, "")


async def show_setup_form(request: Request, form: dict[str, str], refusal: Refusal | None = None) -> Response:
    try:
        opening = await setup.open_setup(request.app.state.door)
    except setup.ClosedError:
        raise HTTPException(404) from None
    return show_form(request, "auth/setup.html", form, refusal, opening=opening)


@router.get("/recover")
async def show_recovery(request: Request) -> Response:
    return await show_recovery_form(request, {})


@router.post("/recover")
async def recover_admin(
    request: Request, session: SessionDep, token: Text = "", email: Text = "", password: Text = ""
) -> Response:
    try:
        await setup.recover_admin(request.app.state.door, session, token, email, password)
    except setup.ClosedError:
        raise HTTPException(404) from None
    except REFUSALS as refusal:
        await session.rollback()
        return await show_recovery_form(request, {"email": email[:EMAIL_LENGTH]}, refusal)
    return RedirectResponse(url_for_request(request, "show_login"), 303)


async def show_recovery_form(request: Request, form: dict[str, str], refusal: Refusal | None = None) -> Response:
    try:
        await setup.open_recovery(request.app.state.door)
    except setup.ClosedError:
        raise HTTPException(404) from None
    return show_form(request, "auth/recover.html", form, refusal)


def show_form(
    request: Request, template: str, form: dict[str, str], refusal: Refusal | None, **context: object
) -> Response:
    """Show a form again with what is wrong. Neither the token nor the password comes back in it."""
    status, errors = describe(refusal)
    response = render_page(request, template, status, form=form, errors=errors, **context)
    response.headers["Referrer-Policy"] = "no-referrer"
    if isinstance(refusal, setup.TriesError):
        response.headers["Retry-After"] = str(refusal.seconds)
    return response


def describe(refusal: Refusal | None) -> tuple[int, dict[str, str]]:
    match refusal:
        case setup.TriesError(seconds=seconds):
            minutes = -(-seconds // 60)
            wait = "a minute" if minutes == 1 else f"{minutes} minutes"
            return 429, {"form": f"There were too many wrong tokens. Try again in {wait}."}
        case AccountError(field=field):
            return 422, {field: str(refusal)}
        case MigrationError():
            log.error("%s", refusal, exc_info=refusal.__cause__)
            return 503, {"form": NO_MIGRATION}
    return 200, {}
