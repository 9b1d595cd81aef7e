"""What a check finds, in the form of Django's: an id that can be silenced, a sentence, and what to do about it."""

from collections.abc import Iterable
from enum import IntEnum
from typing import NamedTuple


class Level(IntEnum):
    """Django's numbers."""

    DEBUG = 10
    INFO = 20
    WARNING = 30
    ERROR = 40
    CRITICAL = 50


LETTERS = {"D": Level.DEBUG, "I": Level.INFO, "W": Level.WARNING, "E": Level.ERROR, "C": Level.CRITICAL}


class Issue(NamedTuple):
    id: str  # «W011»; people see and silence «oppman.W011»
    sentence: str
    hint: str

    @property
    def name(self) -> str:
        return f"oppman.{self.id}"

    @property
    def level(self) -> Level:
        return LETTERS[self.id[0]]

    def __str__(self) -> str:
        return f"?: ({self.name}) {self.sentence}\n\tHINT: {self.hint}"


def describe(issues: Iterable[Issue], silenced: int) -> str:
    found = sorted(issues, key=lambda issue: issue.name)
    lines = ["System check identified some issues:", ""]
    for level in sorted(Level, reverse=True):
        if of_level := [str(issue) for issue in found if issue.level is level]:
            lines += [f"{level.name}S:", *of_level, ""]
    return "\n".join([*lines, summarise(len(found), silenced)])


def summarise(number: int, silenced: int) -> str:
    return f"System check identified {count(number, 'issue') if number else 'no issues'} ({silenced} silenced)."


def count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
