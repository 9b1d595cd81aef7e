"""A conversation's title, made from its first question without asking a model."""

import re

from app.chat.models import TITLE_LENGTH

NEW_TITLE = "New chat"
FILLER = re.compile(r"^(hi|hello|hey|please|could you|can you|would you)\b[\s,:!]*", re.IGNORECASE)


def make_title(question: str) -> str:
    """Take the first line that says something, without Markdown and greetings, cut at a word."""
    lines = (re.sub(r"[`*_#<>\[\]]+|^\s*[-+]\s", " ", line) for line in question[:2000].splitlines())
    line = next((line for line in map(tidy, lines) if line), NEW_TITLE)
    shorter = tidy(FILLER.sub("", FILLER.sub("", line)))
    shorter = shorter if len(shorter) > 12 else line
    title = shorter[:1].upper() + shorter[1:]
    if len(title) <= TITLE_LENGTH:
        return title
    cut = title[: TITLE_LENGTH - 1]
    return (cut.rsplit(" ", 1)[0] if " " in cut[TITLE_LENGTH // 2 :] else cut).rstrip(" ,;:.") + "…"


def tidy(text: str) -> str:
    """One space between words, and nothing that cannot be seen."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())
