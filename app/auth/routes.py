"""Sign in, sign up, sign out, and a person's own settings."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Form, Request
from fastapi.security import OAuth2PasswordRequestForm
from fastapi_users.authentication import CookieTransport
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, RedirectResponse, Response

from app.auth import pictures, service
from app.auth.dependencies import CurrentUser, MaybeUser
from app.auth.models import EMAIL_LENGTH, User
from app.auth.redirects import read_next
from app.auth.users import CookieBackend, PeopleDep, SessionsDep
from app.database import SessionDep
from app.files.images import ImageError
from app.files.responses import send_file
from app.files.uploads import UploadError, open_upload
from app.storage import StorageError
from app.templating import render_page, url_for_request

router = APIRouter(include_in_schema=False)

Text = Annotated[str, Form(max_length=1000)]
PICTURE_LENGTH = 10_000_000  # bytes of an upload: a phone's largest fits
NO_MATCH = "That e-mail and password do not match."


@router.get("/login", response_model=None)
async def show_login(request: Request, person: MaybeUser, next: str = "") -> Response:
    if person:
        return RedirectResponse(read_next(next), 303)
    wants_admin = await request.app.state.door.wants_admin()
    return show_form(request, "auth/login.html", next=next, wants_admin=wants_admin)


@router.post("/login", response_model=None)
async def sign_in(
    request: Request,
    session: SessionDep,
    people: PeopleDep,
    sessions: SessionsDep,
    cookie: CookieBackend,
    email: Text = "",
    password: Text = "",
    next: Text = "",
) -> Response:
    credentials = OAuth2PasswordRequestForm(username=email, password=password)
    user = await people.authenticate(credentials)
    if user is None:
        return show_form(request, "auth/login.html", {"email": email}, {"form": NO_MATCH}, next=next, wants_admin=False)
    return await start_session(request, session, cookie, sessions, user, next)


@router.get("/register", response_model=None)
async def show_register(request: Request, person: MaybeUser, next: str = "") -> Response:
    require_signup(request)
    if person:
        return RedirectResponse(read_next(next), 303)
    return show_form(request, "auth/register.html", next=next)


@router.post("/register", response_model=None)
async def sign_up(
    request: Request,
    session: SessionDep,
    sessions: SessionsDep,
    cookie: CookieBackend,
    email: Text = "",
    password: Text = "",
    name: Text = "",
    next: Text = "",
) -> Response:
    require_signup(request)
    try:
        user = await service.create_user(session, email, password, name=name)
    except service.AccountError as error:
        form = {"email": email[:EMAIL_LENGTH], "name": name}
        return show_form(request, "auth/register.html", form, {error.field: str(error)}, next=next)
    return await start_session(request, session, cookie, sessions, user, next)


@router.post("/logout")
async def sign_out(request: Request, session: SessionDep, cookie: CookieBackend, person: MaybeUser) -> Response:
    """End the session here and in the database. Who is signed out already ends up at the same page."""
    await end_session(request, session, cookie)
    response = await cookie.transport.get_logout_response()
    return redirect(response, url_for_request(request, "show_home"))


@router.get("/settings")
async def show_settings(request: Request, session: SessionDep, person: CurrentUser, saved: str = "") -> HTMLResponse:
    return await show_settings_page(request, session, person, saved=SAVED.get(saved))


SAVED = {
    "profile": "Your profile is saved.",
    "password": "Your password is changed. Everywhere else you are signed out.",
    "sessions": "Everywhere else you are signed out.",
    "picture": "Your picture is saved.",
    "no-picture": "Your picture is gone.",
}


@router.post("/settings/profile", response_model=None)
async def update_profile(
    request: Request,
    session: SessionDep,
    person: CurrentUser,
    name: Text = "",
) -> Response:
    try:
        await service.rename_user(session, person, name)
    except service.AccountError as error:
        return await show_settings_page(request, session, person, {error.field: str(error)})
    return back_to_settings(request, "profile")


@router.post("/settings/picture", response_model=None)
async def change_picture(request: Request, session: SessionDep, person: CurrentUser) -> Response:
    """Take a new picture. The form is read here, not by FastAPI, which would do it before it asks who is there."""
    storage = request.app.state.storage
    if storage.fault:
        return await show_settings_page(request, session, person, {"form": storage.fault}, status=409)
    await session.commit()  # no connection is kept while the picture arrives
    try:
        async with open_upload(request, "picture", PICTURE_LENGTH) as upload:
            await pictures.set_picture(session, storage, person, upload)
    except (UploadError, ImageError, StorageError) as error:
        return await show_settings_page(request, session, person, {"picture": str(error)}, status=error.status)
    return back_to_settings(request, "picture")


@router.post("/settings/picture/remove")
async def remove_picture(request: Request, session: SessionDep, person: CurrentUser) -> Response:
    await pictures.remove_picture(session, request.app.state.storage, person)
    return back_to_settings(request, "no-picture")


@router.get("/pictures/{picture_id}", response_model=None)
async def show_picture(request: Request, session: SessionDep, person: CurrentUser, picture_id: UUID) -> Response:
    file = await pictures.get_picture(session, person, picture_id)
    if file is None:
        raise HTTPException(404)
    return send_file(request, request.app.state.storage, file)


@router.post("/settings/password", response_model=None)
async def change_password(
    request: Request,
    session: SessionDep,
    sessions: SessionsDep,
    cookie: CookieBackend,
    person: CurrentUser,
    current_password: Text = "",
    new_password: Text = "",
) -> Response:
    """Change the password for who knows the old one; this browser gets a new session, all others are out."""
    if not await service.knows_password(session, person, current_password):
        errors = {"current_password": "That is not your current password."}
        return await show_settings_page(request, session, person, errors)
    try:
        await service.set_password(session, person, new_password)
    except service.AccountError as error:
        return await show_settings_page(request, session, person, {error.field: str(error)})
    response = await cookie.login(sessions, person)
    return redirect(response, back_to_settings(request, "password").headers["location"])


@router.post("/settings/sessions")
async def end_sessions(request: Request, session: SessionDep, person: CurrentUser) -> Response:
    await service.end_other_sessions(session, person, request.state.token)
    return back_to_settings(request, "sessions")


def require_signup(request: Request) -> None:
    if not request.app.state.settings.allow_signup:
        raise HTTPException(404, "This site takes no new accounts. Its owner can make one for you.")


def show_form(
    request: Request,
    template: str,
    form: dict[str, str] | None = None,
    errors: dict[str, str] | None = None,
    **context: Any,
) -> HTMLResponse:
    return render_page(request, template, 422 if errors else 200, form=form or {}, errors=errors or {}, **context)


async def show_settings_page(
    request: Request,
    session: AsyncSession,
    person: User,
    errors: dict[str, str] | None = None,
    saved: str | None = None,
    status: int | None = None,
) -> HTMLResponse:
    count = await service.count_sessions(session, person)
    page = show_form(
        request,
        "auth/settings.html",
        {"name": person.name},
        errors,
        saved=saved,
        session_count=count,
        storage_fault=request.app.state.storage.fault,
    )
    page.status_code = status or page.status_code
    return page


def back_to_settings(request: Request, saved: str) -> Response:
    return RedirectResponse(f"{url_for_request(request, 'show_settings')}?saved={saved}", 303)


async def end_session(request: Request, session: AsyncSession, cookie: CookieBackend) -> None:
    """End the session whose cookie came along, if any."""
    assert isinstance(cookie.transport, CookieTransport)
    if token := request.cookies.get(cookie.transport.cookie_name):
        await service.delete_session(session, token)


async def start_session(
    request: Request, session: AsyncSession, cookie: CookieBackend, sessions: SessionsDep, user: User, next: str
) -> Response:
    """Begin a session, and end the one whose cookie this browser had before."""
    response = await cookie.login(sessions, user)
    await end_session(request, session, cookie)
    return redirect(response, read_next(next))


def redirect(response: Response, url: str) -> Response:
    """Send the browser on with what fastapi-users put into its answer: the cookie."""
    onward = RedirectResponse(url, 303)
    for cookie in response.headers.getlist("set-cookie"):
        onward.headers.append("set-cookie", cookie)
    return onward
