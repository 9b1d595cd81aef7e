"""What a database URL means, and whether it leads anywhere."""

import re
import socket
from collections.abc import Iterator
from threading import Thread

import pytest
from sqlalchemy.engine import make_url

from app.management import dburl as module
from app.settings import ROOT
from tests.management.conftest import Oppman
from tests.postgres import Server, postgres_databases, show


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with postgres_databases("postgresql") as server:
        yield server


@pytest.fixture
def url(server: Server) -> str:
    return server.template_url


def test_it_is_explained_line_by_line(oppman: Oppman) -> None:
    raw = "psql 'postgres://ada:hun@ter2@db.abc.supabase.co/app?ssl=true&pgbouncer=true'"
    shown = oppman("dburl", raw)
    assert shown.code == 0
    assert "url         postgresql://ada:********@db.abc.supabase.co/app?sslmode=require\n" in shown.out
    assert "sslmode     require: TLS, whoever the server is\n" in shown.out
    assert "note        pgbouncer is left out: it is meant for another program\n" in shown.out
    assert "has an IPv6 address only" in shown.out
    assert "hun" not in shown.out


def test_without_one_it_is_that_of_the_settings(oppman: Oppman) -> None:
    assert "host        db.example.org\n" in oppman("dburl", DATABASE_URL="postgres://ada:x@db.example.org/app").out


def test_what_cannot_work_is_one_sentence(oppman: Oppman) -> None:
    refused = oppman("dburl", "mysql://root:hunter2@h/app")
    assert (refused.code, refused.out) == (1, "")
    assert refused.err.startswith("CommandError: DATABASE_URL is mysql://root:********@h/…, and Oppkit does not speak")


def test_it_connects_over_tls(oppman: Oppman, server: Server, url: str) -> None:
    assert server.control
    verified = show(
        make_url(url).update_query_dict({"sslmode": "verify-full", "sslrootcert": f"{server.control.folder}/ca.crt"})
    )
    for raw in (url, verified):
        shown = oppman("dburl", "--connect", raw)
        assert shown.err == ""
        assert re.search(r"^server      PostgreSQL \d+", shown.out, re.MULTILINE)
        assert re.search(r"^TLS         TLSv1\.[23]$", shown.out, re.MULTILINE)
        assert "pooler      none that can be told\n" in shown.out
        assert re.search(r"^a question  [\d.]+ ms", shown.out, re.MULTILINE)


def test_it_sees_a_pooler(oppman: Oppman) -> None:
    with postgres_databases("pgbouncer") as server:
        shown = oppman("dburl", "--connect", server.template_url)
    assert "pooler      one is in between\n" in shown.out
    assert "TLS         yes, as far as the pooler\n" in shown.out


def test_it_opens_a_file(oppman: Oppman, tmp_path: object) -> None:
    there = oppman("dburl", "--connect", f"sqlite:///{tmp_path}/none.sqlite3")
    assert there.err.startswith("CommandError: There is no file ")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"password": "p+/w@x"}, "The password or the user is wrong"),
        ({"username": "bob"}, "The password or the user is wrong"),
        ({"database": "elsewhere"}, "There is no database of this name"),
        ({"port": 1}, "Nothing listens there"),
        ({"host": "nowhere.invalid"}, "There is no host of this name"),
        ({"query": {"sslmode": "disable"}}, "Take sslmode=require"),
        ({"query": {"sslmode": "verify-full"}}, "No authority known here has signed"),
    ],
)  # fmt: skip
def test_whatever_keeps_us_out_is_a_sentence(oppman: Oppman, url: str, change: dict[str, object], words: str) -> None:
    raw = show(make_url(url).set(**change))  # type: ignore[arg-type]
    refused = oppman("dburl", "--connect", raw)
    assert refused.code == 1
    assert words in refused.err
    assert len(refused.err.strip().splitlines()) == 1
    assert "p+" not in refused.err and ":********@" in refused.err


def test_a_server_without_tls_is_a_sentence(oppman: Oppman) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def refuse_tls() -> None:
            with listener.accept()[0] as line:
                while line.recv(1000):
                    line.sendall(b"N")

        thread = Thread(target=refuse_tls)
        thread.start()
        place = f"127.0.0.1:{listener.getsockname()[1]}"
        refused = oppman("dburl", "--connect", f"postgres://ada:hunter2@{place}/app?sslmode=require")
        thread.join()
    assert "The server speaks no TLS" in refused.err


def test_a_server_that_never_answers_is_a_sentence(oppman: Oppman, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONNECT_SECONDS", 2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        place = f"127.0.0.1:{listener.getsockname()[1]}"
        refused = oppman("dburl", "--connect", f"postgres://ada:hunter2@{place}/app?sslmode=require")
    assert "Nothing answered in time" in refused.err


def test_migrations_take_a_password_with_everything_in_it(oppman: Oppman, url: str) -> None:
    """Alembic would take a % in it for its own."""
    assert "%25" in url
    assert "Applying 0001_start... OK" in oppman("migrate", DATABASE_URL=url).out
    assert "[X] 0001_start" in oppman("showmigrations", DATABASE_URL=url).out


def test_the_page_shows_what_is_printed(oppman: Oppman) -> None:
    page = (ROOT / "docs" / "postgresql.md").read_text(encoding="utf-8")
    typed = re.search(r'oppman\.py dburl "(.+)"\n```\n\n```\n(.+?)```', page, re.DOTALL)
    assert typed
    assert oppman("dburl", typed[1]).out == typed[2]
