"""Database URLs as hosts print them and people paste them: understood, or refused without showing the password."""

import re
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy.dialects.postgresql.psycopg import PGDialectAsync_psycopg

from app.database import make_url
from app.database_url import KNOWN, DatabaseURLError, mask, read_database_url
from app.settings import ROOT

CANARY = "hunter2"
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")


def get_arguments(raw: str) -> dict[str, Any]:
    """Give what psycopg gets of it, by way of SQLAlchemy."""
    url = make_url(read_database_url(raw))
    arguments: dict[str, Any] = PGDialectAsync_psycopg().create_connect_args(url)[1]  # type: ignore[no-untyped-call]
    return arguments


# What the hosts' pages and command lines print, with names and passwords made up here.
OF_HOSTS: dict[str, tuple[str, dict[str, Any]]] = {
    "Leapcell": (
        "postgresql+psycopg2://kyqwvx:s3cr+t/hunter2=@9qarpn.leapcellpool.com:6438/gbldhr?sslmode=require",
        {"host": "9qarpn.leapcellpool.com", "port": 6438, "sslmode": "require", "password": "s3cr+t/hunter2="},
    ),
    "Neon": (
        "postgresql://app_owner:npg_hunter2@ep-cool-sun-a1b2c3-pooler.eu-central-1.aws.neon.tech/neondb?sslmode=require&channel_binding=require",
        {"dbname": "neondb", "sslmode": "require", "channel_binding": "require", "password": "npg_hunter2"},
    ),
    "Neon, as a command": (
        "psql 'postgresql://app_owner:npg_hunter2@ep-cool-sun-a1b2c3.eu-central-1.aws.neon.tech/neondb?sslmode=require'",
        {"user": "app_owner", "sslmode": "require", "password": "npg_hunter2"},
    ),
    "Neon, with its endpoint": (
        "postgres://app:hunter2@ep-cool-sun-a1b2c3.eu-central-1.aws.neon.tech/neondb?sslmode=require&options=endpoint%3Dep-cool-sun-a1b2c3",
        {"sslmode": "require", "password": "hunter2"},
    ),
    "Supabase, direct": (
        "postgresql://postgres:hunter2@db.abcdefghijklmnop.supabase.co:5432/postgres",
        {"host": "db.abcdefghijklmnop.supabase.co", "port": 5432, "password": "hunter2"},
    ),
    "Supabase, session pooler": (
        "postgres://postgres.abcdefghijklmnop:hun%40ter2@aws-0-eu-central-1.pooler.supabase.com:5432/postgres",
        {"user": "postgres.abcdefghijklmnop", "password": "hun@ter2"},
    ),
    "Supabase, transaction pooler for Prisma": (
        "postgres://postgres.abc:hunter2@aws-0-eu-central-1.pooler.supabase.com:6543/postgres?pgbouncer=true&connection_limit=1&supa=base-pooler.x",
        {"port": 6543, "password": "hunter2"},
    ),
    "Render, inside": (
        "postgresql://app_user:hunter2@dpg-c0ffee-a/app_db",
        {"host": "dpg-c0ffee-a", "password": "hunter2"},
    ),
    "Render, outside": (
        "postgresql://app_user:hunter2@dpg-c0ffee-a.frankfurt-postgres.render.com/app_db",
        {"dbname": "app_db", "password": "hunter2"},
    ),
    "Railway, inside": (
        "postgresql://postgres:hunter2@postgres.railway.internal:5432/railway",
        {"host": "postgres.railway.internal", "password": "hunter2"},
    ),
    "Railway, outside": (
        "postgresql://postgres:hunter2@roundhouse.proxy.rlwy.net:31415/railway",
        {"port": 31415, "password": "hunter2"},
    ),
    "Heroku": (
        "postgres://ubadger:phunter2@ec2-1-2-3-4.eu-west-1.compute.amazonaws.com:5432/d1a2b3",
        {"user": "ubadger", "password": "phunter2"},
    ),
    "Heroku, as JSON": (
        '{\n  "DATABASE_URL": "postgres://u:hunter2@ec2-1-2-3-4.compute.amazonaws.com:5432/d1",\n  "LANG": "C"\n}\n',
        {"dbname": "d1", "password": "hunter2"},
    ),
    "Fly": (
        "postgres://app:hunter2@app-db.flycast:5432/app?sslmode=disable",
        {"host": "app-db.flycast", "sslmode": "disable", "password": "hunter2"},
    ),
    "DigitalOcean": (
        "postgresql://doadmin:AVNS_hunter2@db-1-do-user-1.b.db.ondigitalocean.com:25060/defaultdb?sslmode=require",
        {"port": 25060, "sslmode": "require", "password": "AVNS_hunter2"},
    ),
    "Aiven": (
        "postgres://avnadmin:AVNS_hunter2@pg-1-app.a.aivencloud.com:12691/defaultdb?sslmode=require",
        {"port": 12691, "sslmode": "require", "password": "AVNS_hunter2"},
    ),
    "Azure, with the server in the user's name": (
        "postgres://ada@server:hunter2@server.postgres.database.azure.com/app?sslmode=require",
        {"user": "ada@server", "sslmode": "require", "password": "hunter2"},
    ),
    "a plain server": ("postgresql://ada:hunter2@localhost/app", {"host": "localhost", "password": "hunter2"}),
    "asyncpg": ("postgresql+asyncpg://ada:hunter2@h/app?ssl=require", {"sslmode": "require", "password": "hunter2"}),
    "Node": ("postgres://ada:hunter2@h/app?ssl=true&uselibpqcompat=true", {"sslmode": "require"}),
    "Node, unverified": ("postgres://ada:hunter2@h/app?sslmode=no-verify", {"sslmode": "require"}),
    "Prisma": ("postgresql://ada:hunter2@h/app?schema=public&pool_timeout=0", {"host": "h", "dbname": "app"}),
    "Symfony": ("postgresql://ada:hunter2@127.0.0.1:5432/app?serverVersion=16&charset=utf8", {"host": "127.0.0.1"}),
    "a line of .env": ('DATABASE_URL="postgres://ada:hunter2@h/app"', {"host": "h", "password": "hunter2"}),
    "a line of a shell": ("export DATABASE_URL='postgres://ada:hunter2@h/app';", {"dbname": "app"}),
    "a line of YAML": ("DATABASE_URL: postgres://ada:hunter2@h/app", {"dbname": "app"}),
    "typographic quotes": (" “postgres://ada:hunter2@h/app”\n", {"dbname": "app"}),
    "broken by a terminal": ("postgres://ada:hun\n  ter2@h/app?sslmo\r\nde=require", {"sslmode": "require"}),
    "IPv6": ("postgres://ada:hunter2@[2001:db8::7]:5433/app", {"host": "2001:db8::7", "port": 5433}),
    "a socket": ("postgresql:///app?host=/run/postgresql", {"host": "/run/postgresql", "dbname": "app"}),
    "a socket, libpq's way": ("postgresql://ada@%2Frun%2Fpostgresql/app", {"host": "/run/postgresql"}),
    "several hosts": (
        "postgres://ada:hunter2@one:5432,two:5433/app?target_session_attrs=read-write",
        {"host": "one,two", "port": "5432,5433", "target_session_attrs": "read-write"},
    ),
    "everything behind the ?": (
        "postgresql:///?host=h&port=5433&user=ada&password=hun%40ter2&dbname=app",
        {"host": "h", "port": 5433, "user": "ada", "password": "hun@ter2", "dbname": "app"},
    ),
    "an @ in a known value": ("postgres://ada:hunter2@h/app?application_name=me@x", {"application_name": "me@x"}),
}  # fmt: skip

NO_POOLER = "cannot pass a pooler"
REFUSED = {
    "postgres://ada:hunter2@h/app?foo=1": "PostgreSQL knows nothing of 'foo'",
    "mysql://root:hunter2@h/app": "Oppkit does not speak 'mysql'",
    "redis://:hunter2@h:6379": "Oppkit does not speak 'redis'",
    "jdbc:postgresql://h/app?user=ada&password=hunter2": "Take «jdbc:» away",
    "cockroachdb://ada:hunter2@free.cockroachlabs.cloud:26257/defaultdb": "CockroachDB is not promised",
    "postgresql://ada:hunter2@a-1.cockroachlabs.cloud:26257/app?sslmode=verify-full": "CockroachDB is not promised",
    "prisma+postgres://accelerate.prisma-data.net/?api_key=hunter2": "only Prisma speaks",
    "https://console.neon.tech/hunter2?x=hunter2": "the address of a page",
    "postgres://ada:hunter2@h/app?options=-c%20statement_timeout%3D5s": NO_POOLER,
    "postgres://ada:hunter2@h/app?options=-csearch_path%3Dours": NO_POOLER,
    "postgres://ada:hunter2@h/app?schema=ours": "ALTER ROLE ada SET search_path TO ours",
    "postgres://ada:hunter2@h/app?sslmode=on-sunday": "sslmode can only be disable",
    "postgres://ada:hunter2@h/app?channel_binding=hunter2": "channel_binding can only be",
    "postgres://ada:hunter2@h/app?target_session_attrs=standby": "target_session_attrs can only be",
    "postgres://ada:hunter2@h/app?sslmode=verify-full&sslrootcert=/no/where.crt": "there is no file /no/where.crt",
    "postgres://ada:hunter2@h/app?sslmode=require&sslrootcert=system": "needs sslmode=verify-full",
    "postgres://ada:hunter2@h/app?sslmode=verify-ca": "the file of another authority",
    "postgres://ada:hunter2@h:99999/app": "no host and port that can be",
    "postgres://ada:hunter2@h:0/app": "no host and port that can be",
    "postgres://ada:hunter2@h:port/app": "no host and port that can be",
    "postgres://ada:hunter2@[h/app": "no host and port that can be",
    "postgres://ada:hunter2@a..b/app": "no host and port that can be",
    "postgres://ada:hunter2": "no host and port that can be",
    "postgres://ada:hunter2/app": "no host and port that can be",
    "postgres://ada:%68unter2%41@ss@h/app": "could be read in two ways",
    "postgres://ada:hunter2%zz%41@h/app": "could be read in two ways",
    "postgres://ada:hunter2%ff@h/app": "escaped that is no text",
    "postgres://ada:hunter2%00@h/app": "escaped that is no text",
    "postgresql://postgres:[YOUR-PASSWORD]@db.abc.supabase.co:5432/postgres": "a placeholder",
    "postgresql://neondb_owner:****************@ep-a.neon.tech/neondb": "a placeholder",
    "sqlite://": "names no SQLite file",
    "hunter2": "cannot be read",
    "": "cannot be read",
    "ada:hunter2@h/app": "cannot be read",
}  # fmt: skip


@pytest.mark.parametrize("name", OF_HOSTS)
def test_what_hosts_print_is_understood(name: str) -> None:
    raw, expected = OF_HOSTS[name]
    got = get_arguments(raw)
    assert got.items() >= expected.items()
    assert not got.keys() - {*expected, "user", "host", "port", "dbname", "password"}, (
        "the driver would refuse the rest"
    )
    psycopg.conninfo.make_conninfo(**got)  # which knows every name
    assert {name: str(value) for name, value in got.items()} == read_database_url(raw).keywords
    assert CANARY not in mask(raw) + mask(read_database_url(raw)) + repr(read_database_url(raw))


@pytest.mark.parametrize("raw", REFUSED)
def test_what_cannot_work_is_refused_in_one_sentence_without_the_password(raw: str) -> None:
    with pytest.raises(DatabaseURLError) as refused:
        read_database_url(raw)
    sentence = str(refused.value)
    assert REFUSED[raw] in sentence
    assert sentence.startswith("DATABASE_URL ") and sentence.endswith(".") and "\n" not in sentence
    assert CANARY not in sentence + mask(raw)


def test_a_refusal_shows_the_url_and_says_what_to_do() -> None:
    with pytest.raises(DatabaseURLError) as refused:
        read_database_url("postgres://ada:hunter2@h:5432/app?sslmode=require&schema=ours")
    assert str(refused.value) == (
        "DATABASE_URL is postgres://ada:********@h:5432/app?sslmode=require&schema=…, and schema= cannot pass a "
        "pooler. Take it away, and say once in the database: ALTER ROLE ada SET search_path TO ours."
    )


def test_a_url_that_was_understood_can_be_shown_and_read_again() -> None:
    url = read_database_url("postgres://ada@x:hunter2@one:5432,[::1]:5433/a b?sslmode=require&pgbouncer=true")
    assert mask(url) == "postgresql://ada%40x:********@one:5432,[::1]:5433/a%20b?sslmode=require"
    assert read_database_url(mask(url).replace("********", "hunter2")).keywords == url.keywords
    assert url.notes == ("pgbouncer is left out: it is meant for another program",)


@pytest.mark.skipif(not AUTHORITIES.exists(), reason="This machine keeps its authorities elsewhere")
@pytest.mark.parametrize(
    "query", ["sslmode=verify-full", "sslrootcert=system", "sslmode=verify-full&sslrootcert=system"]
)
def test_the_authorities_of_this_machine_are_found(query: str) -> None:
    """The driver's own OpenSSL would look for them in a folder that nobody has."""
    expected = {"sslmode": "verify-full", "sslrootcert": str(AUTHORITIES)}
    assert get_arguments(f"postgres://ada:hunter2@h/app?{query}").items() >= expected.items()


def test_a_certificate_is_seen_from_the_projects_folder() -> None:
    got = get_arguments("postgres://ada:hunter2@h/app?sslmode=verify-ca&sslrootcert=README.md")
    assert got["sslrootcert"] == str(ROOT / "README.md")


def test_sqlite_is_seen_from_the_projects_folder() -> None:
    assert read_database_url(" sqlite:///db.sqlite3\n").database == str(ROOT / "db.sqlite3")
    assert read_database_url("sqlite+aiosqlite:////tmp/x.db").database == "/tmp/x.db"


HARD = "%@/:#?&=+[] \"'!$*,;<>{}|^~`é漢" + "ab4f"
PASSWORDS = st.text(HARD, min_size=1, max_size=12)
ENDS = st.sampled_from(
    ("h", "h:5432", "h:5432/app", "a.example.org/app?sslmode=require", "[::1]:5433/app?pgbouncer=true")
)


def escape(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode())


def is_whole(password: str) -> bool:
    """A pasted password is no placeholder, and none of its ends would be taken for something else."""
    return not re.fullmatch(r"\*{4,}", password) and not any(f"{name}=" in password.lower() for name in KNOWN)


@settings(deadline=None)
@given(PASSWORDS.filter(is_whole), ENDS)
def test_an_escaped_password_arrives_as_it_was(password: str, end: str) -> None:
    assert get_arguments(f"postgres://ada:{escape(password)}@{end}")["password"] == password


@settings(deadline=None, max_examples=300)
@given(PASSWORDS.filter(is_whole), ENDS)
@example("p@ss/w:rd?#[%", "h/app?sslmode=require")
@example("a@b/c?", "h")
@example("a@b?c=d", "h:5432/app")
@example("100%", "h")
def test_a_bare_password_arrives_as_it_was_or_is_refused(password: str, end: str) -> None:
    is_bare = any(letter in "@/?#[]" for letter in password) or "%" in re.sub("%[0-9A-Fa-f]{2}", "", password)
    try:
        got = get_arguments(f"postgres://ada:{password}@{end}")["password"]
    except DatabaseURLError:
        assert "%" in password
    else:
        assert got == password or not is_bare, "only what looks escaped may be taken for it"


SHAPES = st.sampled_from(
    (
        "postgres://ada:{}@h:5432/app", "postgres://ada:{}@h:x/app", "postgres://ada:{}@/app", "postgres://ada:{}@",
        "postgres://:{}@h", "mysql://ada:{}@h/app?x=1", "postgres://ada:{}@h/app?foo=1&sslmode=z",
        "jdbc:postgresql://h/d?password={}",
        "postgres://ada:{}@a..b/app", "psql 'postgres://ada:{}@h/app?options=-c'",
        "postgres://h/app?password={}", "{}", "ada:{}@h",
    )
)  # fmt: skip


@settings(deadline=None, max_examples=300)
@given(PASSWORDS, PASSWORDS, SHAPES)
def test_nothing_that_is_pasted_shows_the_password_or_a_traceback(before: str, after: str, shape: str) -> None:
    raw = shape.format(before + CANARY + after)
    shown = mask(raw)
    try:
        shown += mask(read_database_url(raw)) + repr(read_database_url(raw))
    except DatabaseURLError as refused:
        shown += str(refused)
    assert CANARY not in shown


@settings(deadline=None, max_examples=300)
@given(st.text(max_size=60) | st.text(":/@?&=%[],#{}\" '\n\0\x1bpostgres\u202e", max_size=60))
def test_no_text_at_all_makes_a_traceback(text: str) -> None:
    for raw in (text, f"postgres://{text}", f"postgres://ada:x@{text}", f"sqlite://{text}"):
        assert mask(raw).isprintable()
        try:
            read = read_database_url(raw)
        except DatabaseURLError:
            continue
        assert mask(read).isprintable()
        make_url(read)
        if read.backend == "postgresql":
            psycopg.conninfo.make_conninfo(**read.keywords)
