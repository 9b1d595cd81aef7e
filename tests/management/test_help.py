"""What oppman.py says about itself, and how it refuses."""

import subprocess
import sys

import pytest

from app.management import COMMANDS, main
from app.settings import ROOT
from tests.management.conftest import Oppman


def test_the_list_needs_nothing_but_the_standard_library() -> None:
    listed = subprocess.run(
        [sys.executable, "-S", "-X", "importtime", "oppman.py"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "[database]\n    migrate " in listed.stdout
    assert all(f"    {name} " in listed.stdout for name in COMMANDS)
    assert "argparse" not in listed.stderr


def test_help_on_one_command_comes_from_its_own_words(oppman: Oppman) -> None:
    done = oppman("help", "migrate")
    assert done.code == 0
    assert done.out.startswith("usage: oppman.py migrate ")
    assert "--no-input" in done.out


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        ("migrat", "Unknown command: 'migrat'. Did you mean migrate?\n"),
        ("xyzzy", "Unknown command: 'xyzzy'\n"),
    ],
)
def test_a_typo_is_refused_with_what_was_meant(typed: str, answer: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([typed]) == 1
    assert capsys.readouterr().err == answer + "Type 'oppman.py help' for usage.\n"
    assert main(["help", typed]) == 1


def test_every_command_explains_itself(oppman: Oppman) -> None:
    for name in COMMANDS:
        done = oppman(name, "--help")
        assert done.code == 0
        assert f"usage: oppman.py {name}" in done.out


def test_an_unknown_flag_ends_with_2(oppman: Oppman) -> None:
    assert oppman("migrate", "--bogus").code == 2


def test_mistakes_are_one_line_unless_the_traceback_is_asked_for(oppman: Oppman) -> None:
    assert oppman("migrate", "9999").err == "CommandError: Cannot find a migration matching '9999'.\n"
    assert "Traceback" in oppman("migrate", "9999", "--traceback").err


def test_a_wrong_setting_ends_with_78_and_one_sentence(oppman: Oppman) -> None:
    done = oppman("migrate", ENVIRONMENT="production", SECRET_KEY="short")
    assert done.code == 78
    assert "SECRET_KEY is too short" in done.err
    assert done.err.count("\n") == 1


def test_nothing_is_said_where_nothing_shall_be(oppman: Oppman) -> None:
    assert oppman("migrate", "-v", "0") == (0, "", "")


def test_the_version_is_the_projects(oppman: Oppman) -> None:
    done = oppman("version")
    assert f'version = "{done.out.strip()}"' in (ROOT / "pyproject.toml").read_text()
    assert oppman("--version") == done
