"""From exception to page or JSON: one sentence for the person, the traceback for the log only."""

import asyncio
import json
import logging
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DBAPIError, IntegrityError, ProgrammingError, SQLAlchemyError
from sqlalchemy.orm.exc import StaleDataError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, RedirectResponse, Response

from app.auth.dependencies import NotSignedInError
from app.auth.passwords import BusyError
from app.database import UNAVAILABLE, is_full, lacks_table
from app.files.images import ImageError
from app.files.uploads import UploadError
from app.headers import SECURITY_HEADERS
from app.schema import read_standing
from app.storage import StorageError
from app.templating import render_page, url_for_request

log = logging.getLogger(__name__)

LOOK_SECONDS = 2  # for a second look at a database that has refused something

WORDS = {
    400: ("That request makes no sense", "Go back and try again."),
    401: ("Sign in first", "This needs somebody who is signed in."),
    403: ("Not allowed", "You may not do this. Go back, reload the page and try again."),
    404: ("Nothing here", "There is nothing at this address, or it is not yours. Check how it is written."),
    405: ("Not allowed", "This address does not do that."),
    413: ("Too large", "That is more than this site takes. Send less."),
    422: ("Something is missing", "Go back, fill in what is missing, and send it again."),
    429: ("Too many requests", "Wait a moment, then try again."),
    500: ("Something went wrong", "It is our fault, and it has been noted. Try again in a moment."),
    503: (
        "Back in a moment",
        "The site's database does not answer as it should. Nothing is lost: try again in a moment.",
    ),
    507: (
        "No room left",
        "The disk of this site's database is full. What was saved can be read; more can be saved when there is room.",
    ),
}

MIGRATE = "Its owner adds them with: python oppman.py migrate"
NO_TABLES = f"The database lacks tables or columns that this site needs. {MIGRATE}"
EMPTY = f"The database has no tables yet. {MIGRATE}, or at /setup."
BEHIND = f"The database stands at migration {{found}}, and this site's newer code needs {{needed}}. {MIGRATE}"
AHEAD = (
    "The database stands at migration {found}, and this site's older code knows only {needed}. "
    "Its owner deploys the newer code."
)


def add_error_handlers(app: FastAPI) -> None:
    app.add_exception_handler(HTTPException, answer_http_error)
    app.add_exception_handler(RequestValidationError, answer_invalid)
    app.add_exception_handler(NotSignedInError, answer_not_signed_in)
    for kind in (*UNAVAILABLE, ProgrammingError):
        app.add_exception_handler(kind, answer_unavailable)
    app.add_exception_handler(IntegrityError, answer_clash)
    app.add_exception_handler(StaleDataError, answer_gone)
    app.add_exception_handler(BusyError, answer_busy)
    for fault in (StorageError, UploadError, ImageError):
        app.add_exception_handler(fault, answer_file_error)
    app.add_exception_handler(Exception, answer_failure)


def respond(
    request: Request, status: int, sentence: str | None = None, headers: dict[str, str] | None = None
) -> Response:
    """Answer with the error page where a person looks at it, else with JSON: {"detail": sentence}."""
    title, usual = WORDS.get(status, ("That did not work", "Go back and try again."))
    sentence = sentence or usual
    if wants_page(request):
        page = {"status": status, "title": title, "sentence": sentence, "draft": find_draft(request)}
        response: Response = render_page(request, "errors/error.html", status, **page)
    else:
        response = JSONResponse({"detail": sentence}, status)
    response.headers.update(headers or {})
    return response


def find_draft(request: Request) -> str:
    """Give the text of a form that could not be taken, so that nobody has to type it again.

    Only of a form that has been read already, which Starlette keeps here: an error is no time to read on.
    """
    form = getattr(request, "_form", None)
    text = form.get("text") if form else None
    return text if isinstance(text, str) else ""


def wants_page(request: Request) -> bool:
    return not request.url.path.startswith("/api/") and "text/html" in request.headers.get("accept", "")


async def answer_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    said = error.detail if error.detail != HTTPException(error.status_code).detail else None
    return respond(request, error.status_code, said, dict(error.headers or {}))


async def answer_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    if any(fault["loc"][0] == "path" for fault in error.errors()):
        return respond(request, 404)  # no id could look like this, so there is nothing
    if request.url.path.startswith("/api/"):
        detail = [{name: fault[name] for name in ("loc", "msg", "type")} for fault in error.errors()]
        # What was sent is not sent back. ASCII, because a field may be named with half a surrogate pair.
        return Response(json.dumps({"detail": detail}), 422, media_type="application/json")
    return respond(request, 422)


async def answer_not_signed_in(request: Request, error: Exception) -> Response:
    if not wants_page(request):
        return respond(request, 401, headers={"WWW-Authenticate": "Bearer"})
    here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    after = f"?next={quote(here)}" if request.method == "GET" else ""
    return RedirectResponse(f"{url_for_request(request, 'show_login')}{after}", 303)


async def answer_unavailable(request: Request, error: Exception) -> Response:
    log.error("The database did not answer: %s", type(error).__name__, exc_info=error)
    if isinstance(error, DBAPIError) and is_full(error):
        return respond(request, 507)
    sentence = await explain_tables(request) if isinstance(error, DBAPIError) and lacks_table(error) else None
    return respond(request, 503, sentence, {"Retry-After": "5"})


async def explain_tables(request: Request) -> str:
    """Say which side is old, the database or the code."""
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            standing = await read_standing(request.app.state.database)
    except (SQLAlchemyError, OSError):
        return NO_TABLES
    if standing.found is None:
        return EMPTY
    words = AHEAD if standing.is_ahead else BEHIND if standing.is_behind else NO_TABLES
    return words.format(found=standing.found, needed=standing.needed)


async def answer_clash(request: Request, error: Exception) -> Response:
    """A rule that the code does not know, such as a new column that wants a value, comes with newer tables."""
    sentence = await explain_tables(request)
    if sentence == NO_TABLES:
        raise error
    log.error("The database refused: %s", sentence, exc_info=error)
    return respond(request, 503, sentence, {"Retry-After": "5"})


async def answer_gone(request: Request, error: Exception) -> Response:
    """What was to be changed was deleted at the same moment."""
    return respond(request, 404)


async def answer_busy(request: Request, error: Exception) -> Response:
    sentence = "Too many people sign in at this moment. Try again in a few seconds."
    return respond(request, 503, sentence, {"Retry-After": "3"})


async def answer_file_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, StorageError | UploadError | ImageError)
    return respond(request, error.status, str(error), {"Retry-After": "5"} if error.status == 503 else None)


async def answer_failure(request: Request, error: Exception) -> Response:
    """The server logs the traceback after this. The headers are here because no middleware is around us any more."""
    return respond(request, 500, headers=SECURITY_HEADERS)
