"""Titles are made from the first question."""

import pytest

from app.chat.models import TITLE_LENGTH
from app.chat.titles import make_title


@pytest.mark.parametrize(
    ("question", "title"),
    [
        ("How do I sort a list?", "How do I sort a list?"),
        ("hello", "Hello"),
        ("Hello, could you explain dependency injection?", "Explain dependency injection?"),
        ("\n\n## Plan\nmore", "Plan"),
        ("hello <b>you</b>, how are you?", "B you /b , how are you?"),
        ("`print()` in *Python*", "Print() in Python"),
        ("```\n```", "New chat"),
        ("日本語の質問です", "日本語の質問です"),
        ("tabs\tand\u200b odd\u0007 signs", "Tabs and odd signs"),
    ],
)
def test_a_title_says_what_was_asked(question: str, title: str) -> None:
    assert make_title(question) == title


def test_a_long_question_is_cut_at_a_word() -> None:
    title = make_title("word " * 100)
    assert len(title) <= TITLE_LENGTH
    assert title.endswith("word…")
    assert len(make_title("x" * 500)) == TITLE_LENGTH
