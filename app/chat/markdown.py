"""Markdown of a language model, turned into safe HTML: a whole text at once, or block by block while it grows.

Three layers keep a hostile answer harmless: the parser takes no raw HTML, nh3 lets only listed tags through, and
the pages' content security policy runs no inline script.
"""

import html
import re
from collections.abc import Sequence
from functools import cache, lru_cache
from threading import get_ident
from typing import TYPE_CHECKING, Any, NamedTuple

from markupsafe import Markup

if TYPE_CHECKING:  # parser, highlighter and sanitiser are dear to import: the first answer does it
    import nh3
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

CACHED_TEXTS = 256
CACHED_LENGTH = 20_000  # characters of a text that is kept
UNBROKEN = re.compile(r"\S{1000}")  # looking for addresses in such a run takes time by its square
REDRAW_SHARE = 32  # an open block is drawn again once it has grown by this part of itself: the cost stays linear
HIGHLIGHT_LENGTH = 20_000  # characters of a code block; longer ones stay plain
FENCE = re.compile(r" {0,3}(`{3,}(?=[^`\n]*\n)|~{3,})([^\n]*)\n")
SCHEMES = ("https://", "http://", "mailto:")  # no link of a model leads into this site
# What Pygments marks and static/app.css leaves as it is: names, operators, brackets, blanks. JSON is mostly these.
PLAIN = re.compile(r'<span class="(?:n|o|p|w|err|g|go|ni|nn|nx|py|vc|vg|vi|pm|x)">([^<]*)</span>')
END_OF_CODE = "</code></pre></div>"


class Patch(NamedTuple):
    """Block `n` becomes its first `keep` UTF-16 units (as JavaScript counts them), followed by `html`."""

    n: int
    keep: int
    html: str


def render(text: str) -> Markup:
    """Give the safe HTML of a whole text: the same blocks, in the same wrapping, as a stream would have made."""
    return _render_and_keep(text) if len(text) <= CACHED_LENGTH else _render(text)


def _render(text: str) -> Markup:
    blocks = BlockStream()
    patches = [*blocks.feed(text), *blocks.finish()]
    return Markup("".join(f"<div>{block}</div>" for block in join_patches(patches)))  # noqa: S704 (it is clean)


_render_and_keep = lru_cache(CACHED_TEXTS)(_render)


def join_patches(patches: Sequence[Patch]) -> list[str]:
    """Do what the browser does with patches."""
    blocks: list[str] = []
    for n, keep, new in patches:
        old = blocks[n].encode("utf-16-le")[: 2 * keep].decode("utf-16-le") if n < len(blocks) else ""
        blocks[n:] = [old + new]
    return blocks


class BlockStream:
    """Turns a growing text into patches. Finished blocks are final; only the last one, still open, changes.

    A patch says what to keep of the ones before it, so a reader needs all of them from the first: who comes back
    begins anew. In the end the blocks are the same, however the text was cut into pieces.
    """

    def __init__(self) -> None:
        self.tail = ""  # the text of the open block
        self.n = 0  # its number
        self.shown = ""  # its HTML, as it was sent
        self.drawn = 0  # how much of the tail that HTML shows
        self.env: dict[str, Any] = {}  # link definitions, for the blocks after them

    def feed(self, text: str) -> list[Patch]:
        self.tail += text.replace("\r", "")
        patches: list[Patch] = []
        while self.tail and len(self.tail) - self.drawn > self.drawn // REDRAW_SHARE:
            before = self.n
            patches += self._feed_code() if FENCE.match(self.tail) else self._feed_blocks()
            if self.n == before:
                break
        return patches

    def finish(self) -> list[Patch]:
        """Draw what is still open as it stays."""
        self.drawn = 0  # a block that waited to be drawn may have ended in the meantime
        patches = self.feed("")
        for _, tokens in split_blocks(self.tail, self.env):
            patches += self._close(draw(tokens, self.env))
        self.tail = ""
        return patches

    def _feed_blocks(self) -> list[Patch]:
        """Close each block that is followed by another one with two whole lines: nothing can change it any more."""
        has_links = "]:" in self.tail  # perhaps definitions, which must not work before the text is there for good
        env = {"references": dict(self.env.get("references", {}))} if has_links else self.env
        blocks = split_blocks(self.tail, env)
        # Not splitlines(), which knows more ends of lines than Markdown does.
        lines = [line + "\n" for line in self.tail.split("\n")] if len(blocks) > 1 else []
        whole_lines, gone = self.tail.count("\n"), 0
        first, patches = self.n, []
        while len(blocks) > 1 and blocks[1][0] + 2 <= whole_lines:
            tokens, end = blocks.pop(0)[1], blocks[0][0]
            if has_links:
                tokens = parse("".join(lines[gone:end]), self.env)
            patches += self._close(draw(tokens, self.env))
            gone = end
        if self.n > first:
            self.tail = "".join(lines[gone:])[:-1]
            return patches  # the rest may be code, which has a cheaper way
        drawn = "".join(draw(tokens, {**env, "open": True}) for _, tokens in blocks)
        return self._show(drawn, len(self.tail))

    def _feed_code(self) -> list[Patch]:
        """Add lines to an open block of code without parsing it again; colour it once it closes."""
        opening = FENCE.match(self.tail)
        assert opening
        marker = opening[1]
        end = re.compile(rf"^ {{0,3}}{re.escape(marker[0])}{{{len(marker)},}}[ \t]*\n", re.MULTILINE)
        if closing := end.search(self.tail, max(opening.end(), self.drawn - 80)):
            block, self.tail = self.tail[: closing.end()], self.tail[closing.end() :]
            return [
                patch for _, tokens in split_blocks(block, self.env) for patch in self._close(draw(tokens, self.env))
            ]
        return self._show(draw_code(self.tail[opening.end() :], opening[2], colour=False), len(self.tail))

    def _show(self, drawn: str, length: int) -> list[Patch]:
        patch = Patch(self.n, *find_change(self.shown, drawn))
        is_new = drawn != self.shown
        self.shown, self.drawn = drawn, length
        return [patch] if is_new else []

    def _close(self, drawn: str) -> list[Patch]:
        patches = self._show(drawn, 0)
        self.n, self.shown = self.n + 1, ""
        return patches


def split_blocks(text: str, env: dict[str, Any]) -> list[tuple[int, list["Token"]]]:
    """Parse a text into its top blocks: the line on which each begins, and its tokens."""
    blocks: list[tuple[int, list[Token]]] = []
    for token in parse(text, env):
        if token.level == 0 and token.nesting >= 0 and token.map:
            blocks.append((token.map[0], []))
        blocks[-1][1].append(token)
    return blocks


def parse(text: str, env: dict[str, Any]) -> list["Token"]:
    return parser(get_ident(), linkify=not UNBROKEN.search(text)).parse(text, env)


def draw(tokens: list["Token"], env: dict[str, Any]) -> str:
    md = parser(get_ident(), linkify=True)
    return cleaner().clean(md.renderer.render(tokens, md.options, env))


def find_change(old: str, new: str) -> tuple[int, str]:
    """Say how many UTF-16 units two strings share at the beginning, and what follows in the new one."""
    low, high = 0, min(len(old), len(new))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if old[:middle] == new[:middle] else (low, middle - 1)
    return len(new[:low].encode("utf-16-le")) // 2, new[low:]


def draw_code(code: str, info: str, *, colour: bool) -> str:
    """A block of code in our own markup, with its language and a button to copy it."""
    language = re.sub(r"[^\w+#.-]", "", (info.split() or ["text"])[0])[:20] or "text"
    body = highlight(code, language) if colour and len(code) <= HIGHLIGHT_LENGTH else html.escape(code)
    return (
        f'<div class="code"><header><span>{language}</span><button type="button" class="btn btn-ghost btn-small" '
        f'data-copy=".code">Copy</button></header><pre tabindex="0"><code class="hl">{body}{END_OF_CODE}'
    )


def highlight(code: str, language: str) -> str:
    from pygments import highlight as colour
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import get_lexer_by_name
    from pygments.util import ClassNotFound

    try:
        drawn = str(colour(code, get_lexer_by_name(language, stripnl=False), HtmlFormatter(nowrap=True)))
    except ClassNotFound:
        return html.escape(code)
    return PLAIN.sub(r"\1", drawn)


@cache
def parser(thread: int, *, linkify: bool) -> "MarkdownIt":
    """Each thread has its own: the search for addresses takes notes in the parser while it works."""
    from markdown_it import MarkdownIt

    md = MarkdownIt("commonmark", {"html": False, "linkify": linkify, "maxNesting": 20})
    md.enable(["table", "strikethrough", "linkify"])
    md.disable("image")  # fetching one would tell another site who reads the answer
    assert md.linkify
    md.linkify.set({"fuzzy_link": False, "fuzzy_email": False})  # main.py is a file, not a site in Paraguay
    md.validateLink = lambda url: url.lower().startswith(SCHEMES)  # type: ignore[method-assign]
    md.add_render_rule("heading_open", render_heading)
    md.add_render_rule("heading_close", render_heading)
    md.add_render_rule("fence", render_code)
    md.add_render_rule("code_block", render_code)
    md.add_render_rule("table_open", render_table_start)
    md.add_render_rule("table_close", render_table_end)
    return md


def render_code(self: object, tokens: Sequence["Token"], idx: int, options: object, env: dict[str, Any]) -> str:
    return draw_code(tokens[idx].content, tokens[idx].info, colour="open" not in env)


def render_heading(self: object, tokens: Sequence["Token"], idx: int, options: object, env: object) -> str:
    """An answer's first heading stands below the page's h1 and the message's own h2."""
    token = tokens[idx]
    level = max(3, min(int(token.tag[1]) + 1, 6))
    return f"<h{level}>" if token.nesting == 1 else f"</h{level}>\n"


def render_table_start(*args: object) -> str:
    """Wide tables scroll on their own, by keyboard, too."""
    return '<div class="table-wrap" tabindex="0" role="group" aria-label="Table"><table>'


def render_table_end(*args: object) -> str:
    return "</table></div>"


@cache
def cleaner() -> "nh3.Cleaner":
    import nh3

    text = {"p", "br", "hr", "strong", "em", "s", "code", "pre", "blockquote", "ul", "ol", "li", "a"}
    headings = {"h3", "h4", "h5", "h6"}
    tables = {"table", "thead", "tbody", "tr", "th", "td"}
    ours = {"span", "div", "header", "button"}
    return nh3.Cleaner(
        tags=text | headings | tables | ours,
        attributes={
            "a": {"href", "title"},
            "ol": {"start"},
            "span": {"class"},
            "div": {"class", "tabindex", "role", "aria-label"},
            "code": {"class"},
            "pre": {"tabindex"},
            "button": {"type", "class", "data-copy"},
        },
        url_schemes={"http", "https", "mailto"},
        link_rel="noopener noreferrer nofollow",
    )
