"""Where to go after a form: only ever to a page of this site."""

from urllib.parse import urlsplit

HOME = "/chat"


def read_next(raw: str, otherwise: str = HOME) -> str:
    """Give the path that a form asks to go to next, or another one where it could leave this site.

    Browsers take a backslash for a slash and drop tabs and line ends, so `/\\\\evil.example` and `/\\t/evil.example`
    leave, too: such text is refused, not mended.
    """
    if not raw.startswith("/") or raw.startswith("//") or not raw.isprintable() or "\\" in raw:
        return otherwise
    try:
        parts = urlsplit(raw)
    except ValueError:
        return otherwise
    return otherwise if parts.scheme or parts.netloc else raw
