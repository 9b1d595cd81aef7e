"""Jinja pages and fragments, and what every one of them may use."""

from datetime import UTC, datetime
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse

from app.settings import ROOT
from app.static import static_url

THEMES = ("light", "dark")

environment = Environment(
    loader=FileSystemLoader(ROOT / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render_page(request: Request, name: str, status_code: int = 200, **context: Any) -> HTMLResponse:
    return HTMLResponse(render(request, name, **context), status_code)


def render(request: Request, name: str, **context: Any) -> str:
    """Render a template, whole page or fragment, with the context that all of them share."""
    settings = request.app.state.settings
    theme = request.cookies.get("theme")
    shared = {
        "request": request,
        "person": getattr(request.state, "person", None),
        "theme": theme if theme in THEMES else None,
        "site_name": settings.site_name,
        "allow_signup": settings.allow_signup,
        "docs_are_shown": settings.docs_are_shown,
    }
    return environment.get_template(name).render(shared | context)


def url_for_request(request: Request, name: str, /, **params: Any) -> str:
    """Give a route's path. Never a whole address: that would repeat whatever Host the client sent."""
    return str(request.app.url_path_for(name, **params))


@pass_context
def url_for(context: Context, name: str, /, **params: Any) -> str:
    return url_for_request(context["request"], name, **params)


def icon(name: str, class_: str = "") -> Markup:
    """Draw an icon of the sprite; text beside it, or an aria-label around it, says what it means."""
    sprite = static_url("icons.svg")
    return Markup('<svg class="icon {}" aria-hidden="true"><use href="{}#{}"></use></svg>').format(class_, sprite, name)


def moment(when: datetime) -> Markup:
    """Write a time for a person, with the exact one for machines; the browser puts it into its own zone."""
    today = when.date() == datetime.now(UTC).date()
    human = f"{when:%H:%M} UTC" if today else f"{when.day} {when:%b %Y}"
    exact = f"{when.day} {when:%B %Y, %H:%M} UTC"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(when.isoformat(), exact, human)


environment.globals |= {"static": static_url, "icon": icon, "url_for": url_for}
environment.filters["moment"] = moment
