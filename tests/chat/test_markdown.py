"""An answer's Markdown: safe, and the same in pieces as in one."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.chat.markdown import BlockStream, Patch, join_patches, render

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


@pytest.mark.parametrize("payload", HOSTILE)
def test_a_hostile_answer_is_harmless_whole_and_at_every_cut(payload: str) -> None:
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
