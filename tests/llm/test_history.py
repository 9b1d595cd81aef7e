import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.llm.base import LLMError, Turn
from app.llm.history import count_least_tokens, count_turn, fit_turns

SYSTEM = Turn("system", "Be brief.")
QUESTION = Turn("user", "And now?")


def talk(count: int) -> list[Turn]:
    pairs = ((Turn("user", f"question {n}"), Turn("assistant", f"answer {n}")) for n in range(count))
    return [turn for pair in pairs for turn in pair]


def cost(*turns: Turn) -> int:
    return sum(map(count_turn, turns))


def test_a_short_conversation_is_sent_whole() -> None:
    turns = [SYSTEM, *talk(3), QUESTION]
    assert fit_turns(turns, 1000) == (turns, 0)


def test_the_oldest_turns_are_left_out_first() -> None:
    earlier = talk(10)
    room = cost(SYSTEM, QUESTION, *earlier[-4:])
    assert fit_turns([SYSTEM, *earlier, QUESTION], room) == ([SYSTEM, *earlier[-4:], QUESTION], 16)


def test_an_answer_without_its_question_is_left_out() -> None:
    earlier = talk(10)
    room = cost(SYSTEM, QUESTION, *earlier[-3:])
    assert fit_turns([SYSTEM, *earlier, QUESTION], room) == ([SYSTEM, *earlier[-2:], QUESTION], 18)


def test_what_was_said_before_a_long_turn_is_left_out_with_it() -> None:
    long = Turn("user", "long " * 1000)
    assert fit_turns([*talk(1), long, *talk(1), QUESTION], 500) == ([*talk(1), QUESTION], 3)


def test_the_question_stays_even_when_nothing_else_fits() -> None:
    room = cost(SYSTEM, QUESTION)
    assert fit_turns([SYSTEM, *talk(1), QUESTION], room) == ([SYSTEM, QUESTION], 2)


def test_every_budget_is_kept() -> None:
    for room in range(cost(SYSTEM, QUESTION), 400):
        turns, left_out_count = fit_turns([SYSTEM, *talk(20), QUESTION], room)
        assert cost(*turns) <= room
        assert (turns[0], turns[-1]) == (SYSTEM, QUESTION)
        assert turns[1].role == "user"
        assert len(turns) - 2 + left_out_count == 40


def test_a_question_that_is_too_long_says_how_long() -> None:
    with pytest.raises(LLMError, match=r"too long .* Shorten it") as error:
        fit_turns([SYSTEM, *talk(1), Turn("user", "word " * 1000)], 500)
    assert error.value.code == "too_long"


def test_empty_answers_are_not_sent() -> None:
    failed = Turn("assistant", "")
    assert fit_turns([Turn("user", "Hi"), failed, QUESTION], 100) == ([Turn("user", "Hi"), QUESTION], 0)


@given(st.text(st.characters() | st.sampled_from("aaAA  \n")))
def test_no_turn_has_fewer_tokens_than_its_length_says(text: str) -> None:
    assert count_least_tokens(text) <= count_turn(Turn("user", text))
