"""Markdown of a language model, turned into safe HTML: a whole text at once, or block by block while it grows."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from markupsafe import Markup

from app.chat.markup import END_OF_CODE, draw, draw_code, escape, parse

if TYPE_CHECKING:  # dear to import
    from markdown_it.token import Token

    Block = tuple[int, list[Token]]  # the line on which it begins, and its tokens

CACHED_TEXTS = 256
CACHED_LENGTH = 20_000  # characters of a text that is kept
LONG_WORDS = 200  # characters; more at once are parsed
REDRAW_SHARE = 32  # what can change is drawn again once it has grown by this part of itself: the cost stays linear
WORDS = re.compile(r"""(?:[^\W_]|[ .,;:!?'"()-])+""")  # none of these means anything in the middle of a line
PLAIN_END = re.compile(r"(?:^|[\s(])[^\W\d_]+$")  # of a line that has begun: its last word
CLOSING = re.compile(r"(?:</(?:p|li|[uo]l|blockquote|h\d)>\n?)+$")
FENCE = re.compile(r" {0,3}(`{3,}(?=[^`\n]*\n)|~{3,}(?!~))([^\n]*)\n")


class Patch(NamedTuple):
    """Block `n` becomes its first `keep` UTF-16 units (as JavaScript counts them), followed by `html`."""

    n: int
    keep: int
    html: str


def render(text: str) -> Markup:
    """Give the safe HTML of a whole text: the same blocks, in the same wrapping, as a stream would have made."""
    return _render_and_keep(text) if len(text) <= CACHED_LENGTH else _render(text)


def _render(text: str) -> Markup:
    blocks = join_patches(BlockStream(text).finish())
    return Markup("".join(f"<div>{block}</div>" for block in blocks))  # noqa: S704 (it is clean)


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

    Of an open list, table or block of code only the last lines can change. What stands before them settles: it is
    neither parsed nor drawn again, so that the last line costs no more than the first. A block that closes is drawn
    anew from all of its text. In the end the blocks are the same, however the text was cut into pieces.

    A patch says what to keep of the ones before it, so a reader needs all of them from the first: who comes back
    begins anew.
    """

    def __init__(self, text: str = "") -> None:
        self.env: dict[str, Any] = {}  # link definitions, for the blocks after them
        self.n = 0  # the number of the open block
        self.tail = text.replace("\r", "")  # its text, as far as it can still change
        self._begin_block()

    def _begin_block(self) -> None:
        self.shown = ""  # the HTML of the tail, as it was sent
        self.drawn = 0  # how much of the tail that HTML shows
        self.settled_text: list[str] = []  # what stands before the tail in the same block
        self.settled: list[str] = []  # its HTML, as it was sent
        self.settled_length = 0  # of that HTML, in UTF-16 units
        self.fresh = ""  # HTML that has settled, but was not sent as such
        self.fence: re.Match[str] | None = None  # the first line of a block of code, once it has settled
        self.container: Container | None = None  # the list or table whose beginning has settled
        self.can_settle = True

    def feed(self, text: str) -> list[Patch]:
        text = text.replace("\r", "")
        if (words := self._append_words(text)) is not None:
            return words
        self.tail += text
        patches: list[Patch] = []
        while self.tail and len(self.tail) - self.drawn > self.drawn // REDRAW_SHARE:
            if not self.shown and not self.settled_text:
                self.tail = self.tail.lstrip("\n")  # so that the block begins on the first line
            before = self.n
            is_code = self.fence or (self.container is None and FENCE.match(self.tail))
            patches += self._feed_code() if is_code else self._feed_blocks()
            if self.n == before:
                break
        return patches

    def _append_words(self, text: str) -> list[Patch] | None:
        """Add plain words to a line that ends in one: that changes nothing before them, so nothing is parsed.

        None where it is not as simple as that: only what cannot be part of a link, a marker or the like is.
        """
        line = self.tail.rstrip(" ")
        is_plain = len(text) < LONG_WORDS and WORDS.fullmatch(text) and PLAIN_END.search(line[-LONG_WORDS:])
        if not is_plain or self.drawn < len(self.tail) or "[" in line or "~" in line:
            return None
        closing = CLOSING.search(self.shown, max(len(self.shown) - LONG_WORDS, 0))
        if closing is None or not self.shown.endswith(line[-1], 0, closing.start()):
            return None
        new = (self.tail[len(line) :] + text).rstrip(" ")
        keep, end = self.shown[: closing.start()], closing[0]
        self.tail += text
        self.shown, self.drawn = keep + new + end, len(self.tail)
        return [Patch(self.n, self.settled_length + count_units(keep), new + end)] if new else []

    def finish(self) -> list[Patch]:
        """Draw what is still open as it stays."""
        self._unsettle()
        patches = self._close_blocks(split_blocks(self.tail, self._copy_env()))
        for _, tokens in split_blocks(self.tail, self.env):
            patches += self._close(draw(tokens, self.env))
        self.tail = ""
        return patches + self._show("", 0)  # what was shown may have become the definition of a link

    def _feed_blocks(self) -> list[Patch]:
        env = self._copy_env()
        if self.container and "]:" in self.tail:
            self._unsettle()
        blocks = self._split(env)
        if self.container and (self._can_close(blocks) or not self.container.can_hold(blocks[0][1])):
            self.can_settle = blocks[0][1][0].type == self.container.opening[0].type
            self._unsettle()
            blocks = self._split(env)
        if self._can_close(blocks):
            return self._close_blocks(blocks)
        return self._show_open(blocks, env | {"open": True}) if blocks else self._show("", len(self.tail))

    def _copy_env(self) -> dict[str, Any]:
        """Links must not be defined by a text that is not there for good."""
        return {"references": dict(self.env.get("references", {}))}

    def _split(self, env: dict[str, Any]) -> "list[Block]":
        return split_blocks(self.container.before + self.tail if self.container else self.tail, env)

    def _can_close(self, blocks: "list[Block]") -> bool:
        """Whether two whole lines of another block follow the first one: nothing can change it any more."""
        return len(blocks) > 1 and blocks[1][0] + 2 <= self._count_lines()

    def _count_lines(self) -> int:
        return self.tail.count("\n") + (self.container.lines_before if self.container else 0)

    def _close_blocks(self, blocks: "list[Block]") -> list[Patch]:
        has_links = "]:" in self.tail  # perhaps definitions, which count from now on
        # Not splitlines(), which knows more ends of lines than Markdown does.
        lines = [line + "\n" for line in self.tail.split("\n")]
        gone, patches = 0, []
        while len(blocks) > 1 and blocks[1][0] + 2 < len(lines):
            tokens, end = blocks.pop(0)[1], blocks[0][0]
            if has_links:
                tokens = parse("".join(lines[gone:end]), self.env)
            patches += self._close(draw(tokens, self.env))
            gone = end
        self.tail = "".join(lines[gone:])[:-1]
        return patches

    def _show_open(self, blocks: "list[Block]", env: dict[str, Any]) -> list[Patch]:
        """Show what can still change; in a list or table only from the last item or row on that two lines follow."""
        tokens = blocks[0][1]
        container = self.container
        if container is None and self.can_settle and "]:" not in self.tail:
            container = find_container(tokens, self.tail)
        if container is None:
            return self._show("".join(draw(one, env) for _, one in blocks), len(self.tail))
        parts = container.take_parts(tokens)
        last = container.find_last(parts, self._count_lines() - 2)
        if last and len(blocks) == 1:
            if self.container is None:
                self.container = container
                self._settle(len(container.before), container.start)
            lines = self.tail.split("\n")[: find_line(parts[last]) - container.lines_before]
            self._settle(sum(len(line) + 1 for line in lines), container.draw(parts[:last], env))
            parts = parts[last:]
        start = "" if self.container else container.start
        others = "".join(draw(one, env) for _, one in blocks[1:])
        return self._show(start + container.draw(parts, env) + container.end + others, len(self.tail))

    def _feed_code(self) -> list[Patch]:
        """Add lines to an open block of code without parsing it; colour it once it closes."""
        opening = self.fence or FENCE.match(self.tail)
        assert opening
        if self.fence is None:
            self.fence = opening
            self._settle(opening.end(), draw_code("", opening[2], colour=False).removesuffix(END_OF_CODE))
        marker = opening[1]
        end = re.compile(rf"^ {{0,3}}{re.escape(marker[0])}{{{len(marker)},}}[ \t]*\n", re.MULTILINE)
        if closing := end.search(self.tail):
            rest = self.tail[closing.end() :]
            blocks = split_blocks("".join([*self.settled_text, self.tail[: closing.end()]]), self.env)
            patches = [patch for _, tokens in blocks for patch in self._close(draw(tokens, self.env))]
            self.tail = rest
            return patches
        whole = self.tail.rfind("\n") + 1
        self._settle(whole, escape(self.tail[:whole]))
        return self._show(escape(self.tail) + END_OF_CODE, len(self.tail))

    def _settle(self, length: int, drawn: str) -> None:
        self.settled_text.append(self.tail[:length])
        self.tail = self.tail[length:]
        self.fresh += drawn

    def _unsettle(self) -> None:
        """Take the whole block for open again: it closes, or it is not what it seemed."""
        self.tail = "".join([*self.settled_text, self.tail])
        self.shown = "".join([*self.settled, self.shown])
        self.settled_text, self.settled, self.settled_length, self.drawn = [], [], 0, 0
        self.fresh, self.fence, self.container = "", None, None

    def _show(self, drawn: str, length: int) -> list[Patch]:
        new = self.fresh + drawn
        keep, change = find_change(self.shown, new)
        patches = [Patch(self.n, self.settled_length + keep, change)] if new != self.shown else []
        self.settled.append(self.fresh)
        self.settled_length += count_units(self.fresh)
        self.fresh, self.shown, self.drawn = "", drawn, length
        return patches

    def _close(self, drawn: str) -> list[Patch]:
        self._unsettle()
        patches = self._show(drawn, 0)
        self.n += 1
        self._begin_block()
        return patches


class Container:
    """A list or table of which some items or rows are parsed and drawn alone, as they would be among the others."""

    def __init__(self, tokens: list["Token"], text: str) -> None:
        self.is_table = tokens[0].type == "table_open"
        first = self._find_parts(tokens)[0]
        self.opening, self.closing = tokens[:first], tokens[-2:] if self.is_table else tokens[-1:]
        self.is_loose = is_loose(tokens)
        self.lines_before = 2 if self.is_table else 0  # without a table's first two lines a row would be none
        self.before = "".join(line + "\n" for line in text.split("\n")[: self.lines_before])
        self.end = "</tbody>\n</table></div>" if self.is_table else f"</{tokens[0].tag}>\n"
        self.start = draw([*self.opening, *self.closing], {}).removesuffix(self.end) + "\n"

    def can_hold(self, tokens: list["Token"]) -> bool:
        """Whether these can follow the ones before. A blank line between two items changes how all are drawn."""
        return tokens[0].type == self.opening[0].type and (self.is_loose or not is_loose(tokens))

    def take_parts(self, tokens: list["Token"]) -> list["Token"]:
        parts = tokens[self._find_parts(tokens)[0] : -len(self.closing)]
        for token in parts:
            token.hidden = token.hidden and not (self.is_loose and token.level == 2)
        return parts

    def find_last(self, parts: list["Token"], line: int) -> int:
        """Give the place of the last item or row that begins on a line, at the latest; 0 for the first one."""
        return max((place for place in self._find_parts(parts) if find_line(parts[place]) <= line), default=0)

    def draw(self, parts: list["Token"], env: dict[str, Any]) -> str:
        return draw([*self.opening, *parts, *self.closing], env).removeprefix(self.start).removesuffix(self.end)

    def _find_parts(self, tokens: list["Token"]) -> list[int]:
        """Say where items begin, or rows other than the headings, which are the table's first tokens."""
        name, level = ("tr_open", 2) if self.is_table else ("list_item_open", 1)
        found = [n for n, token in enumerate(tokens) if token.level == level and token.type == name]
        return found[1:] if tokens[0].type == "table_open" else found


def find_container(tokens: list["Token"], text: str) -> Container | None:
    """Give the list, or the table with at least one row, with which a text begins."""
    is_list = tokens[0].type in ("bullet_list_open", "ordered_list_open")
    is_table = tokens[0].type == "table_open" and any(token.type == "tbody_open" for token in tokens)
    return Container(tokens, text) if (is_list or is_table) and find_line(tokens[0]) == 0 else None


def find_line(token: "Token") -> int:
    return token.map[0] if token.map else 0


def is_loose(tokens: list["Token"]) -> bool:
    return any(token.type == "paragraph_open" and token.level == 2 and not token.hidden for token in tokens)


def count_units(text: str) -> int:
    """Count as JavaScript does."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le")) // 2


def split_blocks(text: str, env: dict[str, Any]) -> "list[Block]":
    """Parse a text into its top blocks."""
    blocks: list[Block] = []
    for token in parse(text, env):
        if token.level == 0 and token.nesting >= 0 and token.map:
            blocks.append((token.map[0], []))
        blocks[-1][1].append(token)
    return blocks


def find_change(old: str, new: str) -> tuple[int, str]:
    """Say how many UTF-16 units two strings share at the beginning, and what follows in the new one."""
    low, high = 0, min(len(old), len(new))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if old[:middle] == new[:middle] else (low, middle - 1)
    return count_units(new[:low]), new[low:]
