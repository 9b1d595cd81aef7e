"""The table of contents: builds the app and names every part of it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Route

from app.admin import add_admin
from app.auth.routes import router as auth_router
from app.auth.setup import Door
from app.auth.setup_routes import router as setup_router
from app.auth.watch import SessionWatch
from app.chat import markdown
from app.chat.answers import Answers
from app.chat.api import router as chat_api_router
from app.chat.routes import router as chat_router
from app.database import Database
from app.errors import add_error_handlers
from app.llm import choose_model
from app.llm.base import LanguageModel
from app.middleware import (
    BodyLimit,
    HostCheck,
    HttpsRedirect,
    MigrationGate,
    ProxyHeaders,
    SameOrigin,
    SecurityHeaders,
)
from app.pages.docs import add_docs
from app.pages.health import HEALTH_PATHS
from app.pages.health import router as health_router
from app.pages.routes import router as pages_router
from app.schema import CatchUp
from app.settings import Settings, load_settings
from app.static import serve_static
from app.storage import choose_storage
from app.templating import environment

BODY_LENGTH = 1_000_000  # bytes of a request: the longest question fits three times
PATIENCE_SECONDS = 2  # for answers that are nearly done and have no reader, when the process is asked to end
ROUTERS = (health_router, pages_router, auth_router, setup_router, chat_router, chat_api_router)


def create_app(settings: Settings, model: LanguageModel | None = None) -> FastAPI:
    """Build an app of its own, so that tests can have several; a test brings its own model, too."""
    app = FastAPI(title=settings.site_name, version="1", docs_url=None, redoc_url=None, openapi_url=None, lifespan=run)
    app.state.settings = settings
    app.state.database = Database(settings)
    app.state.catch_up = CatchUp(app.state.database)
    app.state.door = Door(app.state.database, settings.setup_token, settings.recovery_token)
    app.state.session_watch = SessionWatch(app.state.database)
    app.state.model = model or choose_model(settings)
    app.state.answers = Answers(
        app.state.database, app.state.model, settings.llm_system_prompt, settings.llm_answer_timeout
    )
    app.state.storage = choose_storage(settings)
    environment.filters["markdown"] = markdown.render

    add_error_handlers(app)
    for router in ROUTERS:
        app.include_router(router)
    app.router.routes.append(Route("/static/{path:path}", serve_static, name="static"))
    add_admin(app)
    if settings.docs_are_shown:
        add_docs(app)

    # The last one added stands outermost.
    app.add_middleware(BodyLimit, length=BODY_LENGTH)
    app.add_middleware(GZipMiddleware, minimum_size=1000, compresslevel=5)
    app.add_middleware(SameOrigin)
    if settings.migrate_on_start:
        app.add_middleware(MigrationGate, catch_up=app.state.catch_up, exempt=HEALTH_PATHS)
    if settings.ssl_redirect:
        app.add_middleware(HttpsRedirect, exempt=HEALTH_PATHS)
    app.add_middleware(
        HostCheck, allowed=settings.allowed_hosts, is_production=settings.is_production, exempt=HEALTH_PATHS
    )
    app.add_middleware(SecurityHeaders, hsts=settings.hsts_header)
    if settings.trusted_proxy_hops:
        app.add_middleware(ProxyHeaders, hops=settings.trusted_proxy_hops)
    return app


@asynccontextmanager
async def run(app: FastAPI) -> AsyncIterator[None]:
    """Nothing is waited for at the start; at the end running answers are finished or saved."""
    catching_up = asyncio.create_task(app.state.catch_up.run()) if app.state.settings.migrate_on_start else None
    yield
    if catching_up:
        catching_up.cancel()
    await app.state.answers.close(PATIENCE_SECONDS if app.state.settings.is_production else 0)
    await app.state.session_watch.close()
    await app.state.model.aclose()
    await app.state.database.close()


app = create_app(load_settings())
