"""Parses Markdown of a language model, and draws it as safe HTML.

Three layers keep a hostile answer harmless: the parser takes no raw HTML, nh3 lets only listed tags through, and
the pages' content security policy runs no inline script.
"""

import html
import re
from collections.abc import Sequence
from functools import cache
from threading import get_ident
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # parser, highlighter and sanitiser are dear to import: the first answer does it
    import nh3
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

CROWDED_LENGTH = 300  # characters of a paragraph; a longer one of which a third are brackets or tildes has no links
UNBROKEN = re.compile(r"\S{1000}")  # looking for addresses in such a run takes time by its square
HIGHLIGHT_LENGTH = 20_000  # characters of a code block; longer ones stay plain
SCHEMES = ("https://", "http://", "mailto:")  # no link of a model leads into this site
# What Pygments marks and static/app.css leaves as it is: names, operators, brackets, blanks. JSON is mostly these.
PLAIN = re.compile(r'<span class="(?:n|o|p|w|err|g|go|ni|nn|nx|py|vc|vg|vi|pm|x)">([^<]*)</span>')
END_OF_CODE = "</code></pre></div>"


def parse(text: str, env: dict[str, Any]) -> list["Token"]:
    return parser(get_ident()).parse(text, env)


def draw(tokens: list["Token"], env: dict[str, Any]) -> str:
    md = parser(get_ident())
    return cleaner().clean(md.renderer.render(tokens, md.options, env))


def escape(text: str) -> str:
    """As the sanitiser writes it, so that nothing has to be sent twice."""
    return html.escape(text, quote=False)


def draw_code(code: str, info: str, *, colour: bool) -> str:
    """A block of code in our own markup, with its language and a button to copy it."""
    language = re.sub(r"[^\w+#.-]", "", (info.split() or ["text"])[0])[:20] or "text"
    body = highlight(code, language) if colour and len(code) <= HIGHLIGHT_LENGTH else escape(code)
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
        return escape(code)
    return PLAIN.sub(r"\1", drawn)


@cache
def parser(thread: int) -> "MarkdownIt":
    """Each thread has its own: the search for addresses takes notes in the parser while it works."""
    from markdown_it import MarkdownIt

    md = MarkdownIt("commonmark", {"html": False, "linkify": True, "maxNesting": 20})
    md.enable(["table", "strikethrough", "linkify"])
    md.disable("image")  # fetching one would tell another site who reads the answer
    assert md.linkify
    md.linkify.set({"fuzzy_link": False, "fuzzy_email": False})  # main.py is a file, not a site in Paraguay
    limit_inline(md)
    md.validateLink = lambda url: url.lower().startswith(SCHEMES)  # type: ignore[method-assign]
    md.add_render_rule("heading_open", render_heading)
    md.add_render_rule("heading_close", render_heading)
    md.add_render_rule("fence", render_code)
    md.add_render_rule("code_block", render_code)
    md.add_render_rule("table_open", render_table_start)
    md.add_render_rule("table_close", render_table_end)
    return md


def limit_inline(md: "MarkdownIt") -> None:
    """Leave out what would take far longer than it is worth, for each paragraph, cell or heading by itself."""
    from markdown_it.parser_inline import ParserInline

    parse, find_scheme = md.inline.parse, md.linkify.pretest  # type: ignore[union-attr]
    plain = ParserInline()
    plain.ruler.enableOnly(["text", "newline", "escape"])

    def parse_within_limits(text: str, *args: Any) -> Any:
        if len(text) > CROWDED_LENGTH and text.count("[") + text.count("~") > len(text) // 3:
            return plain.parse(text, *args)
        md.options["linkify"] = not is_unbroken(text)
        try:
            return parse(text, *args)
        finally:
            md.options["linkify"] = True

    md.inline.parse = parse_within_limits  # type: ignore[method-assign, assignment]
    md.linkify.pretest = lambda text: ":" in text and find_scheme(text) and not is_unbroken(text)  # type: ignore


def is_unbroken(text: str) -> bool:
    return len(text) >= 1000 and UNBROKEN.search(text) is not None


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
