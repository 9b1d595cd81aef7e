"""Pages that belong to nobody: home, the style guide, and the choice of a theme."""

from typing import Annotated, Literal

from fastapi import APIRouter, Form, Request
from starlette.responses import HTMLResponse, RedirectResponse

from app.auth.dependencies import MaybeUser
from app.auth.redirects import read_next
from app.templating import render_page

router = APIRouter(include_in_schema=False)

EXAMPLE = """\
Wrap the call in a loop that **waits a little longer** after each failure:

```python
async def retry(call, attempts=5, delay=0.2):
    for attempt in range(attempts):
        try:
            return await call()
        except ConnectionError:
            await asyncio.sleep(delay * 2**attempt)
    raise ConnectionError("gave up")
```

| Error | Try again? |
| --- | --- |
| `429 Too Many Requests` | yes, after `Retry-After` |
| `400 Bad Request` | no, it will fail again |
"""


@router.api_route("/", methods=["GET", "HEAD"])
async def show_home(request: Request, person: MaybeUser) -> HTMLResponse:
    return render_page(request, "pages/home.html", example=EXAMPLE)


@router.get("/styleguide")
async def show_styleguide(request: Request, person: MaybeUser) -> HTMLResponse:
    return render_page(request, "pages/styleguide.html", example=EXAMPLE)


@router.post("/theme")
async def set_theme(
    request: Request, theme: Annotated[Literal["light", "dark", "auto"], Form()], next: Annotated[str, Form()] = "/"
) -> RedirectResponse:
    """Remember the theme in a cookie that the server reads, so that no page flashes in the wrong one."""
    response = RedirectResponse(read_next(next), 303)
    if theme == "auto":
        response.delete_cookie("theme")
    else:
        is_secure = request.url.scheme == "https"
        response.set_cookie("theme", theme, max_age=31_536_000, samesite="lax", httponly=True, secure=is_secure)
    return response
