"""An answer's Markdown: safe, and the same in pieces as in one."""

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it.token import Token

from app.chat.markdown import BlockStream, Patch, join_patches, render
from app.chat.markup import parse

SAMPLE = """\
# Heading

A paragraph with **bold**, `code` and a [link](https://example.org).
Its second line.

- one
- two

  more of two
1. first
2. second

```python
def answer() -> int:
    return 42  # 🙂
```

| a | b |
| - | - |
| 1 | 2 |

> quoted

    indented

Setext
======
#hashtag
~~~
not closed"""

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))",
    "[x](java\tscript:alert(1))",
    "[x](data:text/html,<script>alert(1)</script>)",
    "[x](vbscript:x)",
    "<javascript:alert(1)>",
    "![x](https://evil.example/pixel.png)",
    "[x]: javascript:alert(1)\n\n[x]",
    '[x](https://example.org "t" onclick=alert(1))',
    "```<b>\n</code></pre><script>alert(1)</script>\n```",
    '```"onmouseover=alert(1)\nx\n```',
    "| <svg onload=alert(1)> |\n| --- |\n| <iframe src=//evil.example> |",
    "<a href=//evil.example>x</a>",
    "&#106;avascript:alert(1)",
    "[x](&#106;avascript:alert(1))",
]


def stream(text: str, cuts: list[int]) -> list[Patch]:
    blocks, patches, last = BlockStream(), [], 0
    for cut in [*sorted(cuts), len(text)]:
        patches += blocks.feed(text[last:cut])
        last = cut
    return patches + blocks.finish()


def in_divs(patches: list[Patch]) -> str:
    return "".join(f"<div>{block}</div>" for block in join_patches(patches))


@given(st.lists(st.integers(0, len(SAMPLE)), max_size=60))
@settings(max_examples=60, deadline=None)
def test_pieces_give_the_same_as_the_whole(cuts: list[int]) -> None:
    assert in_divs(stream(SAMPLE, cuts)) == render(SAMPLE)


MARKS = st.text(alphabet="ab \n`~#*-_|>[]():1.=+\\🙂\t\u2028\x85\x0b\x1c\r", max_size=120)


@given(MARKS, st.lists(st.integers(0, 120), max_size=30))
@settings(max_examples=150, deadline=None)
def test_any_text_gives_the_same_in_pieces(text: str, cuts: list[int]) -> None:
    assert in_divs(stream(text, [min(cut, len(text)) for cut in cuts])) == render(text)


def test_what_comes_after_a_block_does_not_change_it() -> None:
    text = "&gt;[x]:\n\n# h\n[x]: https://e.org\n"
    for cut in range(len(text)):
        assert in_divs(stream(text, [cut])) == render(text)


@pytest.mark.parametrize("around", ["{}", "- a\n- b\n- {}\n- c\n- d\n", "| a |\n| - |\n| b |\n{}\n| c |\n| d |\n"])
@pytest.mark.parametrize("payload", HOSTILE)
def test_a_hostile_answer_is_harmless_whole_and_at_every_cut(payload: str, around: str) -> None:
    payload = around.format(payload)
    drawn = [str(render(payload))]
    for cut in range(len(payload)):
        patches = stream(payload, [cut])
        drawn += ["".join(join_patches(patches[:count])) for count in range(1, len(patches) + 1)]
    for page in drawn:
        tags = re.findall(r"<[^>]*>", page)
        assert not [
            tag for tag in tags if re.search(r"\son\w+\s*=|<\s*(script|img|svg|iframe|object|style|base|form)", tag)
        ]
        for address in re.findall(r'href="([^"]*)"', page):
            assert address.startswith(("https://", "http://", "mailto:")), page


def test_only_markdowns_own_line_ends_count() -> None:
    for sign in "\u2028\u2029\x85\x0b\x0c\x1c\x1e":
        text = f"a{sign}b{sign}c\n\nsecond\n\nthird\n\nfourth\n\n"
        assert render(text).count("second") == 1
        assert in_divs(stream(text, [5, 12])) == render(text)


def test_a_run_without_blanks_is_not_searched_for_addresses() -> None:
    assert "<a" not in render("http://a." * 300)
    assert "<a" in render("http://a.example " * 300)


def test_files_are_not_taken_for_sites() -> None:
    assert "<a" not in render("Run main.py, see readme.md and settings.io")
    assert '<a href="https://example.org"' in render("See https://example.org")


def test_links_tell_the_other_site_nothing() -> None:
    assert 'rel="noopener noreferrer nofollow"' in render("[x](https://example.org)")


def test_code_is_coloured_once_it_is_closed_and_can_be_copied() -> None:
    blocks = BlockStream()
    (opened,) = blocks.feed("```python\nimport os\n")
    assert '<span class="kn">' not in opened.html
    closed = blocks.feed("```\n")
    page = "".join(join_patches([opened, *closed]))
    assert '<span class="kn">import</span>' in page
    assert 'data-copy=".code"' in page and "<span>python</span>" in page


def test_only_what_has_a_colour_is_marked() -> None:
    page = render('```json\n{"a": [1, 2, {"b": true}]}\n```')
    assert '<span class="mi">1</span>' in page
    assert 'class="p"' not in page and 'class="w"' not in page


@pytest.mark.parametrize(
    "text",
    [
        "- an item\n" * 860,
        "- an item\n\n" * 810,
        "1. a *step*\n" * 760,
        "| a | b |\n| - | - |\n" + "| 🙂 | 2 |\n" * 860,
        "```python\n" + "x = {1: 2}\n" * 810,
    ],
    ids=["list", "loose list", "numbers", "table", "code"],
)
def test_an_endless_block_costs_no_more_by_the_line_than_a_short_one(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted, not timed: what is parsed of all that arrives ten characters at a time."""
    lengths: list[int] = []

    def note_and_parse(text: str, env: dict[str, Any]) -> list[Token]:
        lengths.append(len(text))
        return parse(text, env)

    monkeypatch.setattr("app.chat.markdown.parse", note_and_parse)

    def count(length: int) -> int:
        blocks = BlockStream()
        lengths.clear()
        for start in range(0, length, 10):
            blocks.feed(text[start : min(start + 10, length)])
        return sum(lengths)

    assert count(8_000) <= 1.2 * 4 * count(2_000)
    assert count(8_000) < 10 * 8_000


def test_a_paragraph_of_brackets_is_plain_text() -> None:
    assert render("[" * 1000) == f"<div><p>{'[' * 1000}</p>\n</div>"
    assert "<a" in render("[x](https://e.org) [" * 100)


def test_a_run_without_blanks_takes_no_address_from_other_blocks() -> None:
    text = "See https://example.org\n\nmore\n\n" + "x" * 1500 + "\n\nend\n\nend"
    assert "<a" in render(text)
    assert in_divs(stream(text, [30, 40, 100])) == render(text)


def test_the_bytes_grow_in_a_straight_line() -> None:
    """Counted, not timed: an open block is drawn the less often the longer it is."""

    def bytes_for(length: int, unit: str) -> int:
        blocks = BlockStream()
        text = unit * (length // len(unit))
        patches = [p for start in range(0, len(text), 20) for p in blocks.feed(text[start : start + 20])]
        return sum(len(patch.html) + 40 for patch in patches + blocks.finish())

    for unit in ("word ", "```\nx = 1\n" + "line of code\n" * 50, "Some paragraph of text.\n\n"):
        assert bytes_for(16_000, unit) < 4.4 * bytes_for(4_000, unit)
        assert bytes_for(16_000, unit) < 12 * 16_000


LINES = st.lists(
    st.sampled_from(
        """\
- one
- *two*
  - inner
  more

1. first
10. tenth
* star
---
| a | b |
| - | - |
| 🙂 | `|` |
text
    deep
```
# top
> said
[x]: http://e.org
""".splitlines(keepends=True)
    ),
    max_size=16,
)


@given(LINES, st.lists(st.integers(0, 200), max_size=60))
@settings(max_examples=150, deadline=None)
def test_lists_and_tables_give_the_same_in_pieces(lines: list[str], cuts: list[int]) -> None:
    text = "".join(lines)
    streamed = in_divs(stream(text, [min(cut, len(text)) for cut in cuts]))
    # The last line may have become the definition of a link, of which an empty block is left.
    assert streamed.removesuffix("<div></div>") == render(text)


WORDS_AND_MARKS = st.lists(
    st.one_of(
        st.sampled_from(
            ["word", " ", "two words", " é", ". ", " 12", "\n", "\n\n", "- ", "1. ", "  ", "und(so)", ": "]
        ),
        st.text(alphabet="ab \n`~#*-_|>[]():1.=+\\🙂&;<\t'\"!", max_size=3),
        st.sampled_from(
            [
                "**",
                "_",
                "http:",
                "//a.b",
                "&amp",
                ";",
                "\u00a0",
                "> ",
                "## ",
                "- a\n",
                "|a|b|\n|-|-|\n",
                "| c ",
                "[a]: b",
            ]
        ),
    ),
    max_size=24,
)


@given(WORDS_AND_MARKS)
@settings(max_examples=150, deadline=None)
def test_words_that_are_added_look_as_if_all_was_drawn(pieces: list[str]) -> None:
    blocks, patches, text = BlockStream(), [], ""
    for piece in pieces:
        text += piece
        patches += blocks.feed(piece)
        if blocks.drawn == len(blocks.tail):
            anew = BlockStream().feed(text)
            assert show(patches) == show(anew), text


@given(LINES)
@settings(max_examples=50, deadline=None, derandomize=True)  # a list with an empty item may look tight until it closes
def test_what_is_shown_does_not_depend_on_what_was_shown_before(lines: list[str]) -> None:
    """An open list or table, drawn from its last lines, looks as it does when all of it is drawn."""
    text = "".join(lines)
    blocks, patches = BlockStream(), []
    for end in range(1, len(text) + 1):
        patches += blocks.feed(text[end - 1 : end])
        if blocks.drawn == len(blocks.tail):
            anew = BlockStream().feed(text[:end])
            assert show(patches) == show(anew), text[:end]


def show(patches: list[Patch]) -> str:
    """What is seen: the blanks at the end of an open block of code are not."""
    return re.sub(r"\s+</code></pre>", "</code></pre>", "".join(join_patches(patches)))
