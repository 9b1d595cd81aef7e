"""The JSON API's description, at /openapi.json and, to read and try, at /docs."""

from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.utils import get_openapi
from starlette.responses import HTMLResponse, JSONResponse, Response

from app.auth.dependencies import MaybeUser
from app.auth.users import COOKIE, SECURE_COOKIE
from app.templating import render_page

router = APIRouter(include_in_schema=False)

DESCRIPTION = """\
Everything that the chat pages do, for programs.

A program sends a token: `Authorization: Bearer TOKEN`. Its owner makes one with `oppman.py createtoken EMAIL`.
A browser that is signed in needs none: the sign-in cookie is enough.

With `Accept: text/event-stream` an answer comes in pieces while it is written. This page shows such streams at their
end only; to see one grow, type `curl -N`.

What goes wrong is told in one sentence: `{"detail": "..."}`.
"""
TAGS = [{"name": "chat", "description": "Conversations, questions, and answers that stream"}]
SCHEME_NAMES = {"APIKeyCookie": "cookie", "BearerToken": "bearer"}  # ours, for the names that FastAPI gives


def add_docs(app: FastAPI) -> None:
    app.include_router(router)


@router.get("/docs")
async def show_docs(request: Request, person: MaybeUser) -> HTMLResponse:
    return render_page(request, "pages/docs.html")


@router.get("/openapi.json")
async def show_openapi(request: Request) -> Response:
    app: FastAPI = request.app
    if app.openapi_schema is None:
        app.openapi_schema = describe_api(app)
    return JSONResponse(app.openapi_schema)


def describe_api(app: FastAPI) -> dict[str, Any]:
    """Describe the routes as FastAPI does, with names that people can read and code generators can use."""
    schema = get_openapi(
        title=f"{app.title} API", version=app.version, description=DESCRIPTION, routes=app.routes, tags=TAGS
    )
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            operation["operationId"] = shorten_operation_id(operation["operationId"], path, method)
            operation["security"] = [rename_schemes(choice) for choice in operation.get("security", [])]
    components = schema.setdefault("components", {})
    components["securitySchemes"] = rename_schemes(components.get("securitySchemes", {}))
    if cookie := components["securitySchemes"].get("cookie"):
        cookie["name"] = SECURE_COOKIE if app.state.settings.is_production else COOKIE
        cookie["description"] = "Set by signing in. No page can set it, so there is nothing to type here."
    return schema


def shorten_operation_id(long: str, path: str, method: str) -> str:
    """`read_message_api_v1_messages__message_id__get` becomes `read_message`, the name of its function."""
    ending = "".join(letter if letter.isalnum() else "_" for letter in path) + f"_{method}"
    return long.removesuffix(ending)


def rename_schemes(named: dict[str, Any]) -> dict[str, Any]:
    return {SCHEME_NAMES.get(name, name): value for name, value in named.items()}
