"""Static files under names that carry their hash, so that browsers keep them for ever and never show an old one."""

import gzip
import hashlib
import mimetypes
import re
from functools import cache
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from app.settings import ROOT

FOLDER = ROOT / "static"
HASHED = re.compile(r"(?P<stem>.+)\.(?P<digest>[0-9a-f]{10})(?P<ending>\.\w+)")
ALREADY_SMALL = (".woff2", ".png", ".jpg", ".webp")
FOR_EVER = "public, max-age=31536000, immutable"

mimetypes.add_type("text/javascript", ".js")
mimetypes.add_type("font/woff2", ".woff2")


class Asset(NamedTuple):
    content: bytes
    zipped: bytes | None
    digest: str
    media_type: str
    changed_at: float


def static_url(name: str) -> str:
    """Give the address of `static/<name>`; a name that is not there is a mistake in a template."""
    stem, dot, ending = name.rpartition(".")
    return f"/static/{stem}.{read_asset(name).digest}{dot}{ending}"


def read_asset(name: str) -> Asset:
    """Read a file once, and all of them again when one changes (they name each other): an edit shows at a reload."""
    asset = _read_asset(name)
    if asset.changed_at != (FOLDER / name).stat().st_mtime:
        _read_asset.cache_clear()
        asset = _read_asset(name)
    return asset


@cache
def _read_asset(name: str) -> Asset:
    path = (FOLDER / name).resolve()
    if path != FOLDER.resolve() / name or "/." in f"/{name}" or "//" in name:
        raise FileNotFoundError(name)  # one name for each file: others would leave the folder, or fill the memory
    content = path.read_bytes()
    if path.suffix == ".css":
        # Fonts and pictures get their hashed names here, too, or a preloaded font is fetched twice.
        content = re.sub(
            rb'url\("([\w./-]+)"\)', lambda found: b'url("%s")' % static_url(found[1].decode()).encode(), content
        )
    return Asset(
        content,
        None if path.suffix in ALREADY_SMALL else gzip.compress(content, 9),
        hashlib.sha256(content).hexdigest()[:10],
        mimetypes.guess_type(name)[0] or "application/octet-stream",
        path.stat().st_mtime,
    )


async def serve_static(request: Request) -> Response:
    """Answer `/static/<name>`, with the hash in the name or without."""
    hashed = HASHED.fullmatch(request.path_params["path"])
    name = hashed["stem"] + hashed["ending"] if hashed else request.path_params["path"]
    try:
        asset = read_asset(name)
    except (OSError, ValueError):  # not there, a folder, or a name that no file can have
        return Response("Not found", 404, media_type="text/plain")
    is_current = hashed is not None and hashed["digest"] == asset.digest
    headers = {"Cache-Control": FOR_EVER if is_current else "no-cache", "ETag": f'"{asset.digest}"'}
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    if asset.zipped is not None:
        headers["Vary"] = "Accept-Encoding"
        if "gzip" in request.headers.get("accept-encoding", ""):
            headers["Content-Encoding"] = "gzip"
            return Response(asset.zipped, headers=headers, media_type=asset.media_type)
    return Response(asset.content, headers=headers, media_type=asset.media_type)
