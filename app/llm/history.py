"""Chooses how much of a conversation a model gets to read again."""

from collections.abc import Sequence
from itertools import dropwhile, takewhile
from typing import NamedTuple

from app.llm.base import LLMError, Turn
from app.llm.tokens import LONGEST_PIECE, count_tokens

TOKENS_AROUND_A_TURN = 6  # the marks that say who speaks, and where it ends


class FittingTurns(NamedTuple):
    turns: list[Turn]
    left_out_count: int


def fit_turns(turns: Sequence[Turn], context_tokens: int, kept_at_end: int = 1) -> FittingTurns:
    """Keep the system prompt, the question at the end, and before it as many of the newest turns as fit.

    Where an answer goes on, more than the question is kept: `kept_at_end` turns. No turn is cut in two, and what is
    kept never begins with an answer whose question is gone.
    """
    system = list(takewhile(lambda turn: turn.role == "system", turns))
    earlier, question = turns[len(system) : -kept_at_end], turns[-kept_at_end:]
    earlier = [turn for turn in earlier if turn.text]  # an answer that failed at once; providers refuse empty turns
    room = context_tokens - sum(map(count_turn, (*system, *question)))
    if room < 0:
        raise LLMError(
            f"This message is too long for the model: about {sum(map(count_turn, question)):,} tokens, and it can read "
            f"{context_tokens:,}. Shorten it, or raise LLM_CONTEXT_TOKENS if the model can read more.",
            code="too_long",
        )
    kept = list(dropwhile(lambda turn: turn.role == "assistant", take_newest(earlier, room)))
    return FittingTurns([*system, *kept, *question], len(earlier) - len(kept))


def take_newest(turns: Sequence[Turn], room: int) -> list[Turn]:
    newest: list[Turn] = []
    for turn in reversed(turns):
        room -= count_turn(turn)
        if room < 0:
            break
        newest.insert(0, turn)
    return newest


def count_turn(turn: Turn) -> int:
    return count_tokens(turn.text) + TOKENS_AROUND_A_TURN


def count_least_tokens(text: str) -> int:
    """Say how many tokens a turn has at least, without looking at its words."""
    return len(text) // LONGEST_PIECE + TOKENS_AROUND_A_TURN
