"""Estimates how many tokens a text is, without any model's tokenizer, and rather too many than too few."""

import re
from bisect import bisect
from collections import Counter

# Each match is about one token where the vocabulary is small (50,000 pieces, made from English); larger ones need
# fewer. A space belongs to the word after it; what follows a word's beginning, and random letters, come in crumbs.
_PIECE = re.compile(
    r"(?: |(?<![A-Za-z0-9]))[A-Z]?[a-z]{1,4}"
    r"|(?<=[a-z])[a-z]{1,2}"
    r"|[A-Z][a-z]{3,6}"
    r"|[A-Za-z0-9]"
    r"|[ \t]{1,4}"
    r"|[\r\n]{1,2}"
    r"|[!-/:-@\[-`{-~]{1,2}"
    r"|[\x00-\x7f]"
)
LONGEST_PIECE = 7  # characters
_FOREIGN = re.compile(r"[^\x00-\x7f]+")

# How many tokens a character is, from this code point on.
_STARTS = (0x80, 0x370, 0x700, 0x1000, 0x2000, 0xA000, 0x10000)
_WEIGHTS = (
    3,  # Latin letters with accents, because they break their word in two as well
    1,  # Greek, Cyrillic, Hebrew, Arabic
    2,  # India, Thailand
    3,
    2,  # typographic signs, lines of boxes, Chinese, Japanese
    3,  # Korean
    4,  # emoji
)


def count_tokens(text: str) -> int:
    pieces = len(_PIECE.findall(text))
    if text.isascii():
        return pieces
    foreign = Counter("".join(_FOREIGN.findall(text)))
    return pieces + sum(_weigh(character) * count for character, count in foreign.items())


def _weigh(character: str) -> int:
    return _WEIGHTS[bisect(_STARTS, ord(character)) - 1]
