"""Accounts from the terminal."""

import pytest

from app.management import users
from app.management.users import make_password
from tests.management.conftest import AddPerson, Oppman, Result

GRACE = {"OPPMAN_SUPERUSER_EMAIL": "Grace@example.org", "OPPMAN_SUPERUSER_PASSWORD": "correct horse 1843"}
ASK = "print([(u.email, u.name, u.is_superuser) for u in (await session.exec(select(User))).all()])"


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Somebody at a terminal: put their answers into this list."""
    answers: list[str] = []
    monkeypatch.setattr(users, "is_interactive", lambda: True)
    monkeypatch.setattr("getpass.getpass", lambda prompt: answers.pop(0))
    monkeypatch.setattr("builtins.input", lambda prompt: answers.pop(0))
    return answers


def test_a_superuser_is_made_once(oppman: Oppman) -> None:
    made = oppman("createsuperuser", "--noinput", "--name", "Grace", **GRACE)
    assert made == Result(0, "Superuser created successfully.\n", "")
    assert oppman("shell", "-c", ASK).out == "[('grace@example.org', 'Grace', True)]\n"

    again = oppman("createsuperuser", "--noinput", **GRACE)
    assert (again.code, again.err) == (1, "CommandError: That e-mail is already taken.\n")
    assert oppman("createsuperuser", "--noinput", "--exist-ok", **GRACE).code == 0


def test_djangos_variables_count_too(oppman: Oppman) -> None:
    variables = {name.replace("OPPMAN", "DJANGO"): value for name, value in GRACE.items()}
    assert oppman("createsuperuser", "--no-input", **variables).code == 0


def test_nobody_becomes_a_superuser_by_having_an_account(oppman: Oppman, add_person: AddPerson) -> None:
    add_person("ada@example.org", "Ada")
    refused = oppman("createsuperuser", "--noinput", "--exist-ok", "--email", "ada@example.org", **GRACE)
    assert "is no superuser" in refused.err
    assert refused.code == 1


def test_what_is_missing_or_weak_is_said(oppman: Oppman) -> None:
    assert oppman("createsuperuser", "--noinput").err == "CommandError: You must use --email with --noinput.\n"
    without_password = oppman("createsuperuser", "--noinput", "--email", "grace@example.org")
    assert "OPPMAN_SUPERUSER_PASSWORD" in without_password.err
    weak = oppman("createsuperuser", "--noinput", **GRACE | {"OPPMAN_SUPERUSER_PASSWORD": "password123"})
    assert weak.err.startswith("CommandError: ")
    assert oppman("shell", "-c", ASK).out == "[]\n"


def test_without_a_terminal_nobody_is_asked(oppman: Oppman, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users, "is_interactive", lambda: False)
    skipped = oppman("createsuperuser")
    assert skipped.out.startswith("Superuser creation skipped due to not running in a TTY.")
    assert skipped.code == 0


def test_at_a_terminal_the_questions_are_repeated_until_they_are_answered(oppman: Oppman, answer: list[str]) -> None:
    answer += ["no e-mail", "grace@example.org", "one", "another", "12345678", "12345678"]
    answer += ["correct horse 1843"] * 2
    made = oppman("createsuperuser")
    assert made.out == "Superuser created successfully.\n"
    assert "Your passwords didn't match." in made.err
    assert answer == []


def test_the_end_of_the_input_is_no_answer(oppman: Oppman, answer: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def end(prompt: str) -> str:
        raise EOFError

    monkeypatch.setattr("builtins.input", end)
    assert oppman("createsuperuser") == Result(130, "", "\nCancelled.\n")


def test_a_changed_password_ends_tokens(oppman: Oppman, answer: list[str]) -> None:
    oppman("createsuperuser", "--noinput", **GRACE)
    token = oppman("createtoken", "grace@example.org")
    assert len(token.out.strip()) > 40
    assert "shown only now" in token.err

    answer += ["another horse 1843"] * 2
    assert "Changing password for user 'grace@example.org'" in oppman("changepassword").out
    count = "print(len((await session.exec(select(AccessToken))).all()))"
    assert oppman("shell", "-c", count).out == "0\n"

    by_host = oppman("changepassword", "grace@example.org", "--noinput", OPPMAN_PASSWORD="a third horse 1843")
    assert by_host.code == 0
    assert (
        oppman("changepassword", "nobody@example.org").err == "CommandError: user 'nobody@example.org' does not exist\n"
    )


def test_passwords_made_here_are_long_and_readable() -> None:
    made = {make_password() for _ in range(100)}
    assert len(made) == 100
    assert all(len(password) == 14 and set(password[4::5]) == {"-"} for password in made)
