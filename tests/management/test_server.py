"""Addresses, and what is started beside the app."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr

from app.management.commands import CommandError
from app.management.server import Address, listen, read_address, refuse_forgetful_disk, wants_local_model
from app.settings import ROOT, Settings
from tests.management.conftest import Oppman

SECRET_KEY = "kJ2-v9Qx_4mTzR7wLpN0sYb8HcUe3DfGaVi6oXtM1qEW"


@pytest.fixture(autouse=True)
def no_port_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PORT", raising=False)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (None, Address("127.0.0.1", 8000)),
        ("8001", Address("127.0.0.1", 8001)),
        ("0:8000", Address("0.0.0.0", 8000)),
        ("192.168.1.5:80", Address("192.168.1.5", 80)),
        ("localhost:8000", Address("localhost", 8000)),
        ("[::1]:8000", Address("::1", 8000)),
    ],
)
def test_addresses_are_read_as_django_does(typed: str | None, meant: Address) -> None:
    assert read_address(typed) == meant


@pytest.mark.parametrize("typed", ["", "abc", "1.2.3.4", "localhost:", ":8000", "8000:", "99999", "a b:1"])
def test_other_words_are_refused(typed: str) -> None:
    with pytest.raises(CommandError, match="is not a valid port number or address:port pair"):
        read_address(typed or "x")


def test_a_host_says_the_port_and_means_the_whole_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "10000")
    assert read_address(None) == Address("127.0.0.1", 10000)
    assert read_address(None, is_production=True) == Address("0.0.0.0", 10000)
    assert read_address("8001", is_production=True).port == 8001


def test_the_address_that_is_shown_can_be_opened() -> None:
    assert Address("0.0.0.0", 8000).url == "http://127.0.0.1:8000/"
    assert Address("::", 8000).url == "http://[::1]:8000/"
    assert Address("::1", 8000).url == "http://[::1]:8000/"
    assert Address("localhost", 8000).url == "http://localhost:8000/"


def test_a_taken_port_and_a_foreign_address_are_sentences(oppman: Oppman) -> None:
    with listen(Address("127.0.0.1", 0), "runserver 8001") as taken:
        done = oppman("runserver", str(taken.getsockname()[1]))
        assert "is already in use. Choose another: " in done.err
        assert done.code == 1
    with pytest.raises(CommandError, match="Nobody can listen at"):
        listen(Address("192.0.2.1", 8000), "runserver 8001")


def test_early_browsers_wait_in_line() -> None:
    with listen(Address("127.0.0.1", 0), "") as listener, socket.create_connection(listener.getsockname()):
        pass


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, True),
        ({"local_llm": "off"}, False),
        ({"openrouter_api_key": "sk-or-1"}, False),
        ({"llm_base_url": "http://localhost:11434/v1"}, False),
        ({"local_llm_url": "http://127.0.0.1:9/v1"}, False),
        ({"environment": "production"}, False),
        ({"environment": "production", "local_llm": "on"}, True),
    ],
)
def test_the_small_model_answers_where_nothing_else_is_set_up(settings: dict[str, str], wanted: bool) -> None:
    values = {"local_llm": "auto", "secret_key": SECRET_KEY} | settings
    assert wants_local_model(Settings(**values)) is wanted  # type: ignore[arg-type]


@pytest.mark.skipif(os.name != "posix", reason="/tmp, and folders that nobody may write to")
@pytest.mark.parametrize(
    ("folder", "words"), [("/tmp", "emptied at each start"), ("/tmp/a/b", "emptied"), ("/proc/self", "be written to")]
)
def test_sqlite_on_a_disk_that_forgets_is_refused(oppman: Oppman, folder: str, words: str) -> None:
    done = oppman("runserver", ENVIRONMENT="production", SECRET_KEY=SECRET_KEY, DATABASE_URL=f"sqlite:///{folder}/a.db")
    assert done.code == 78 and words in done.err and len(done.err.splitlines()) == 1
    assert not Path(folder, "a.db").exists()


def test_sqlite_on_a_disk_that_stays_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda folder, mode: True)
    refuse_forgetful_disk(Settings(database_url=SecretStr("sqlite:////srv/oppkit/db.sqlite3")))
    refuse_forgetful_disk(Settings(database_url=SecretStr("postgresql://a:b@host/tmp")))


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such limit")
def test_files_for_a_thousand_answers_may_be_open() -> None:
    program = """
import resource
from app.management.server import allow_open_files
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
allow_open_files()
allow_open_files()
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0] == min(4096, hard) or hard == resource.RLIM_INFINITY)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
