"""`oppman.py check`: what it finds, what it reports, and how it ends. docs/checks.md lists all of it."""

import asyncio
import json
import os
import py_compile
import re
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy.engine import make_url

from app.management.checks import deployment, hosting, machine, site
from app.management.checks.database import People, goes_over_a_network
from app.management.checks.issues import Issue
from app.management.checks.machine import is_compiled, measure_environment
from app.management.checks.platforms import PLATFORMS
from app.management.checks.site import SiteFacts, inspect_site, read_address
from app.management.checks.subject import Subject, list_names
from app.pages import health
from app.settings import ROOT, Settings
from tests import postgres
from tests.conftest import MakeSite, Site, over_https, serve
from tests.faults.gateway import keeping_back, over_tls
from tests.management.conftest import AddPerson, Oppman, Result
from tests.provider import Provider

GOOD_KEY = "kJ2-v9Qx_4mTzR7wLpN0sYb8HcUe3DfGaVi6oXtM1qEW"
MODEL = {"LLM_BASE_URL": "http://127.0.0.1:1/v1", "LLM_MODEL": "wise"}
SOUND = "System check identified no issues (0 silenced).\n"
CAREFUL = {
    "ENVIRONMENT": "production",
    "SECRET_KEY": GOOD_KEY,
    "ALLOWED_HOSTS": "chat.example.org",
    "ALLOW_SIGNUP": "false",
    "SHOW_DOCS": "false",
    "SSL_REDIRECT": "true",
    "UPLOADS": "off",
    "HSTS_SECONDS": "31536000",
    "HSTS_INCLUDE_SUBDOMAINS": "true",
    "HSTS_PRELOAD": "true",
    "FORWARDED_ALLOW_IPS": "127.0.0.1",
}


@pytest.fixture(autouse=True)
def mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A disk that stays, whatever these tests run on."""
    table = tmp_path / "mounts"
    table.write_text("/dev/sda1 / ext4 rw 0 0\n")
    monkeypatch.setattr(machine, "MOUNTS", table)
    monkeypatch.setattr("tempfile.tempdir", "/temporary")
    return table


@pytest.fixture
def careful(provider: Provider) -> dict[str, str]:
    """The settings of somebody who has read everything."""
    return CAREFUL | {"LLM_BASE_URL": f"{provider.url}/v1", "LLM_MODEL": "wise"}


def find_ids(result: Result) -> set[str]:
    return set(re.findall(r"\(oppman\.([A-Z]\d+)\)", result.err))


# --- Each time ---------------------------------------------------------------------------------------------------


def test_a_sound_project_has_no_issues(oppman: Oppman) -> None:
    assert oppman("check", **MODEL) == Result(0, SOUND, "")
    assert oppman("check", "-v", "0", **MODEL) == Result(0, "", "")


def test_check_names_what_is_wrong_and_what_to_do(oppman: Oppman) -> None:
    oppman("migrate", "zero")
    found = oppman("check")
    assert re.search(r"\?: \(oppman\.W001\) \d+ migrations? not applied\.\n\tHINT: ", found.err)
    assert "(oppman.W002) There is no language model, so nobody gets an answer." in found.err
    assert found.code == 0
    assert oppman("check", "--fail-level", "WARNING").code == 1


def test_a_database_that_is_away_is_an_error(oppman: Oppman) -> None:
    for flags in ((), ("--deploy",)):
        away = oppman("check", *flags, DATABASE_URL="postgresql://ada:geheim@127.0.0.1:1/x")
        assert away.code == 1
        assert away.err.startswith("SystemCheckError: ") and "E001" in find_ids(away)
        assert "geheim" not in away.out + away.err
    assert "Database    does not answer\n" in away.out


def test_a_file_that_is_not_there_is_not_made(oppman: Oppman, tmp_path: Path) -> None:
    nothing = tmp_path / "none.sqlite3"
    oppman("check", "--deploy", "--tag", "security", DATABASE_URL=f"sqlite:///{nothing}")
    assert not nothing.exists()


def test_check_finds_a_model_that_nobody_can_be_asked_for(oppman: Oppman) -> None:
    assert find_ids(oppman("check", LLM_MODEL="wise")) == {"W002", "W004"}
    assert "not which model to ask there" in oppman("check", LLM_BASE_URL="https://models.example.org/v1").err


def test_secrets_that_others_may_read_are_found(
    oppman: Oppman, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "secrets"
    monkeypatch.setattr(machine, "ENV_FILE", file)
    for mode, found in ((0o600, set()), (0o640, {"W003"})):
        file.touch()
        file.chmod(mode)
        assert find_ids(oppman("check", **MODEL)) == found


# --- Tags, levels, silence ---------------------------------------------------------------------------------------


def test_tags_choose_and_are_listed(oppman: Oppman) -> None:
    assert oppman("check", "--list-tags").out.split() == ["database", "files", "models"]
    everything = oppman("check", "--list-tags", "--deploy").out.split()
    assert everything == ["database", "files", "models", "platform", "security", "server", "site"]
    assert find_ids(oppman("check", "-t", "models")) == {"W002"}
    assert oppman("check", "--tag", "database", "--tag", "files").err == ""
    assert find_ids(oppman("check", "--tag", "security", "--deploy", **CAREFUL)) == set()


def test_an_unknown_tag_is_refused(oppman: Oppman) -> None:
    unknown = oppman("check", "--tag", "xyzzy")
    assert unknown.code == 1
    assert unknown.err == (
        'CommandError: There is no system check with the "xyzzy" tag. There are: database, files, models.\n'
    )
    assert oppman("check", "--tag", "security").err.endswith('the "security" tag without --deploy.\n')


def test_ids_can_be_silenced_and_are_counted(oppman: Oppman) -> None:
    hushed = oppman("check", SILENCED_CHECKS="oppman.W002, oppman.W013")
    assert hushed == Result(0, "System check identified no issues (1 silenced).\n", "")
    told = oppman("check", "-v", "2", SILENCED_CHECKS="oppman.W002").out
    assert told.startswith("Silenced:\n?: (oppman.W002) ")
    some = oppman("check", "--fail-level", "WARNING", LLM_MODEL="wise", SILENCED_CHECKS="oppman.W002")
    assert (some.code, find_ids(some)) == (1, {"W004"})
    assert some.err.endswith("System check identified 1 issue (1 silenced).\n")
    away = oppman("check", DATABASE_URL="postgresql://ada@127.0.0.1:1/x", SILENCED_CHECKS="oppman.E001", **MODEL)
    assert away.code == 0


def test_an_id_that_no_check_has_is_refused(oppman: Oppman) -> None:
    refused = oppman("check", SILENCED_CHECKS="oppman.W013,security.W004")
    assert refused.code == 1
    assert refused.err == (
        "CommandError: SILENCED_CHECKS names security.W004, which is no check. docs/checks.md lists them all.\n"
    )


@pytest.mark.parametrize(
    ("level", "code"), [("info", 1), ("WARNING", 0), ("ERROR", 0), ("CRITICAL", 0), ("DEBUG", 1), ("fatal", 2)]
)
def test_the_level_decides_how_it_ends(oppman: Oppman, careful: dict[str, str], level: str, code: int) -> None:
    only_info = careful | {"HSTS_PRELOAD": "false"}
    done = oppman("check", "--deploy", "--fail-level", level, **only_info)
    assert done.code == code
    assert code == 2 or "INFOS:\n?: (oppman.I023) " in done.err


def test_every_check_is_described() -> None:
    page = (ROOT / "docs" / "checks.md").read_text(encoding="utf-8")
    described = re.findall(r"^\| `(oppman\.[A-Z]\d{3})` \|", page, re.MULTILINE)
    assert sorted(described) == sorted(list_names())
    assert sorted(re.findall(r"^\| `--platform (\w+)`", page, re.MULTILINE)) == sorted(PLATFORMS)


# --- On a public host --------------------------------------------------------------------------------------------


def test_whoever_has_read_everything_gets_a_report_and_no_warning(oppman: Oppman, careful: dict[str, str]) -> None:
    done = oppman("check", "--deploy", "--fail-level", "DEBUG", **careful)
    assert (done.code, done.err) == (0, "")
    report, _, rest = done.out.partition("\n\n")
    assert rest == SOUND
    names = [line.split("  ")[0] for line in report.splitlines() if line[0] != " "]
    assert {"Database", "Migrations", "Model", "Disk", "Open files", "Settings"} <= set(names)
    assert re.search(r"^Model +answered in \d\.\d s; wise, which it lists$", report, re.MULTILINE)
    assert GOOD_KEY not in done.out
    assert oppman("check", "--deploy", "-v", "0", **careful) == Result(0, "", "")


@pytest.mark.parametrize(
    ("found", "changes"),
    [
        ("W010", {"ENVIRONMENT": "development"}),
        ("W011 W010", {"ENVIRONMENT": "development", "SECRET_KEY": "a" * 50}),
        ("W011 W010", {"ENVIRONMENT": "development", "SECRET_KEY": ""}),
        ("W012", {"ALLOWED_HOSTS": ""}),
        ("W012", {"ALLOWED_HOSTS": "chat.example.org,*"}),
        ("W013", {"ALLOW_SIGNUP": "true"}),
        ("W014", {"SHOW_DOCS": "true"}),
        ("W015", {"LLM_BASE_URL": "", "LLM_MODEL": "", "LOCAL_LLM": "on"}),
        ("W019", {"FORWARDED_ALLOW_IPS": "*"}),
        ("W020", {"HSTS_SECONDS": "0"}),
        ("I021", {"HSTS_INCLUDE_SUBDOMAINS": "false"}),
        ("W022", {"SSL_REDIRECT": "false"}),
        ("I023", {"HSTS_PRELOAD": "false"}),
        ("I029", {"LLM_MODEL": "foolish"}),
        ("", {"LLM_MODEL": "small"}),  # Ollama lists it as small:latest
    ],
)
def test_what_strangers_could_do_is_found(
    oppman: Oppman, careful: dict[str, str], found: str, changes: dict[str, str]
) -> None:
    assert find_ids(oppman("check", "--deploy", **{**careful, **changes})) == set(found.split())


def test_people_of_the_demo_are_found(oppman: Oppman, careful: dict[str, str], add_person: AddPerson) -> None:
    add_person("ada@example.org", "Ada")
    add_person("bob@example.com", "Bob")
    done = oppman("check", "--deploy", **careful)
    assert find_ids(done) == {"W016"} and "1 account of quickstart" in done.err


@pytest.mark.parametrize(
    ("superusers", "token", "found"), [(1, GOOD_KEY, ["W024", "W025"]), (0, GOOD_KEY, []), (1, "", [])]
)
def test_doors_of_the_first_day_are_shut_afterwards(superusers: int, token: str, found: list[str]) -> None:
    tokens = {"setup_token": SecretStr(token[::-1]), "recovery_token": SecretStr(token)}
    subject = Subject(Settings(**tokens))  # type: ignore[arg-type]
    subject.people = People(superusers, 0)
    issues = list(deployment.check_people(subject))
    assert [issue.id for issue in issues] == found
    assert not token or token not in "".join(map(str, issues))


@pytest.mark.parametrize(("status", "words"), [(401, "did not accept the API key"), (200, "is no language model")])
def test_a_model_that_does_not_answer_is_found(
    oppman: Oppman, careful: dict[str, str], provider: Provider, status: int, words: str
) -> None:
    done = oppman(
        "check", "--deploy", **{**careful, "LLM_BASE_URL": f"{provider.url}/{status}/v1", "LLM_API_KEY": "sk-geheim"}
    )
    assert find_ids(done) == {"W028"}
    assert words in done.err and words in done.out
    assert "geheim" not in done.err + done.out and "sk-secret" not in done.err + done.out


def test_a_model_that_lists_nothing_is_no_fault(oppman: Oppman, careful: dict[str, str], provider: Provider) -> None:
    done = oppman("check", "--deploy", **{**careful, "LLM_BASE_URL": f"{provider.url}/404/v1"})
    assert done.err == "" and "wise, and lists none\n" in done.out


@pytest.mark.parametrize(
    ("host", "is_open"),
    [
        ("localhost", False),
        ("127.0.0.1", False),
        ("[::1]", False),
        ("", False),
        ("db", False),
        ("postgres.railway.internal", False),
        ("10.0.0.7", True),
        ("ep-x-pooler.eu.neon.example", True),
    ],
)
def test_only_some_databases_are_beyond_a_network(host: str, is_open: bool) -> None:
    assert goes_over_a_network(make_url(f"postgresql://ada@{host}/x")) is is_open


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", True),
        ("?sslmode=prefer", True),
        ("?sslmode=disable", True),
        ("?sslmode=require", False),
        ("?sslmode=verify-full", False),
    ],
)
def test_a_database_beyond_a_network_needs_encryption(query: str, found: bool) -> None:
    url = SecretStr(f"postgres://ada:geheim@db.example.org/x{query}")
    issues = [str(issue) for issue in deployment.check_encryption(Subject(Settings(database_url=url)))]
    assert ["W017" in issue for issue in issues] == [True] * found
    assert "geheim" not in "".join(issues)


@pytest.mark.parametrize(("kind", "found"), [("ext4", 0), ("tmpfs", 1), ("overlay", 1), ("xfs", 0)])
def test_sqlite_on_a_disk_that_forgets_is_found(tmp_path: Path, mounts: Path, kind: str, found: int) -> None:
    with mounts.open("a") as table:
        table.write(f"none {tmp_path} {kind} rw 0 0\n")
    subject = Subject(Settings(database_url=SecretStr(f"sqlite:///{tmp_path}/data/db.sqlite3")))
    assert [issue.id for issue in deployment.check_disk(subject)] == ["W018"] * found


def test_sqlite_in_the_temporary_folder_is_found() -> None:
    subject = Subject(Settings(database_url=SecretStr("sqlite:////temporary/db.sqlite3")))
    assert [issue.id for issue in deployment.check_disk(subject)] == ["W018"]


def test_a_low_limit_of_open_files_is_found(
    oppman: Oppman, careful: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda which: (256, 1024))
    done = oppman("check", "--deploy", **careful)
    assert find_ids(done) == {"W027"}
    assert re.search("^Open files +1024$", done.out, re.MULTILINE)


# --- The database ------------------------------------------------------------------------------------------------


def test_the_report_says_how_the_database_is_reached(
    oppman: Oppman, careful: dict[str, str], request: pytest.FixtureRequest
) -> None:
    expected = {
        "sqlite": [r"Database +SQLite 3[\d.]+, by aiosqlite, "],
        "postgresql": [
            r"Database +PostgreSQL \d+\.\d+, by psycopg 3\.\S+ \(\w+, libpq \d+\), \d+\.\d ms away",
            r"TLS +TLSv1\.[23], \w+",
            r"Pooler +none$",
            r"Connections +5 of \d+ at the most$",
        ],
        "pgbouncer": [r"TLS +TLSv1\.[23], \w+", r"Pooler +yes; it hands out connections for one transaction$"],
    }
    report = oppman("check", "--deploy", **careful).out
    for line in [*expected.get(request.config.getoption("--database"), []), "Migrations +all applied$"]:
        assert re.search(f"^{line}", report, re.MULTILINE), line


@pytest.mark.slow
def test_a_pooler_that_lends_for_a_session_is_seen(oppman: Oppman, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", None)  # where the server gets its folder
    monkeypatch.setattr(postgres, "POOLER", postgres.POOLER.replace("pool_mode = transaction", "pool_mode = session"))
    with postgres.postgres_databases("pgbouncer") as server:
        report = oppman("check", "--deploy", DATABASE_URL=server.template_url, **MODEL).out
    assert re.search("^Pooler +yes; it keeps a connection for each of ours", report, re.MULTILINE)


def test_more_connections_than_there_are_is_found(
    oppman: Oppman, careful: dict[str, str], request: pytest.FixtureRequest
) -> None:
    found = find_ids(oppman("check", "--deploy", "--workers", "4", **{**careful, "DATABASE_POOL_SIZE": "100"}))
    assert found == ({"W026"} if request.config.getoption("--database") == "postgresql" else set())


# --- What a host demands -----------------------------------------------------------------------------------------


def look_at(platform: str, workers: int = 1, **settings: Any) -> list[Issue]:
    values = {name: SecretStr(value) if name == "database_url" else value for name, value in settings.items()}
    subject = Subject(Settings(**values), PLATFORMS[platform], workers=workers)  # type: ignore[arg-type]
    looks = (hosting.check_database_fits, hosting.check_size, hosting.check_file)
    return [issue for look in looks for issue in look(subject) if issue.id not in ("W034", "W035", "W037")]


REMOTE = "postgresql://ada:geheim@db.example.org:6438/x"


@pytest.mark.parametrize(
    ("platform", "settings", "found"),
    [
        ("leapcell", {"database_url": "sqlite:////data/db.sqlite3"}, "E030"),
        ("leapcell", {"database_url": REMOTE}, "E031"),
        ("leapcell", {"database_url": f"{REMOTE}?sslmode=require"}, ""),
        ("leapcell", {"database_url": f"{REMOTE}?sslmode=require", "database_pool_size": 6}, "W032"),
        ("leapcell", {"database_url": f"{REMOTE}?sslmode=require", "llm_system_prompt": "a" * 3000}, "E033"),
        ("leapcell", {"database_url": f"{REMOTE}?sslmode=require", "workers": 2}, "W036"),
        ("fly", {"database_url": "sqlite:///db.sqlite3"}, "E030"),
        ("fly", {"database_url": "sqlite:////temporary/db.sqlite3"}, "E030"),
        ("fly", {"database_url": "sqlite:////data/db.sqlite3", "llm_system_prompt": "a" * 3000}, ""),
        ("digitalocean", {"database_url": "sqlite:////data/db.sqlite3"}, "E030"),
        ("docker", {"database_url": "sqlite:///db.sqlite3"}, "E030"),
        ("docker", {"database_url": REMOTE, "workers": 4}, ""),
        ("server", {"database_url": "sqlite:///db.sqlite3", "workers": 4}, ""),
    ],
)
def test_a_host_has_demands(platform: str, settings: dict[str, Any], found: str) -> None:
    issues = look_at(platform, **settings)
    assert [issue.id for issue in issues] == found.split()
    assert "geheim" not in "".join(map(str, issues))


def test_what_cannot_work_on_a_host_ends_with_1(oppman: Oppman) -> None:
    settings = {"DATABASE_URL": "sqlite:///tests/never.sqlite3", **MODEL}
    failed = oppman("check", "--platform", "leapcell", "--tag", "platform", **settings)
    assert failed.code == 1 and "E030" in find_ids(failed)
    assert oppman("check", "--platform", "server", "--tag", "platform", **settings).code == 0
    assert oppman("check", "--platform", "geocities").code == 2


def test_the_settings_are_measured_as_a_host_counts_them() -> None:
    settings = Settings(site_name="Über", allowed_hosts="a.example, b.example", secret_key=SecretStr("x"))
    os_environment = {name for name in settings.model_fields_set if name.upper() in os.environ}
    assert len(os_environment) > 1
    known = sum(len(f"{name}={os.environ[name.upper()]}\n") for name in os_environment)
    assert measure_environment(settings) - known == len(
        "SITE_NAME=Über\nALLOWED_HOSTS=a.example,b.example\nSECRET_KEY=x\n".encode()
    )


def test_the_number_of_proxies_is_the_hosts() -> None:
    for platform, hops, found in (("leapcell", 0, ["W035"]), ("leapcell", 1, []), ("docker", 0, []), ("docker", 2, [])):
        issues = hosting.check_proxies(PLATFORMS[platform], Settings(trusted_proxy_hops=hops))
        assert [issue.id for issue in issues] == found


@pytest.mark.parametrize("mode", list(py_compile.PycInvalidationMode))
def test_code_that_is_compiled_is_known(tmp_path: Path, mode: py_compile.PycInvalidationMode) -> None:
    source = tmp_path / "module.py"
    source.write_text("x = 1\n")
    assert not is_compiled(source)
    py_compile.compile(str(source), invalidation_mode=mode)
    assert is_compiled(source)
    os.utime(source, (1, 1))  # as images and checkouts do
    assert is_compiled(source) is (mode is not py_compile.PycInvalidationMode.TIMESTAMP)
    source.write_text("x = 22\n")
    assert is_compiled(source) is (mode is py_compile.PycInvalidationMode.UNCHECKED_HASH)


def test_code_that_nobody_compiled_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "new.py").touch()
    before = machine.count_uncompiled()
    monkeypatch.setattr(machine, "ROOT", tmp_path)
    monkeypatch.setattr(machine, "PACKAGES", ())
    assert before is not None and machine.count_uncompiled() == 1
    url = SecretStr(f"{REMOTE}?sslmode=require")
    issues = list(hosting.check_size(Subject(Settings(database_url=url), PLATFORMS["leapcell"])))
    assert "W034" in [issue.id for issue in issues]


GOOD_TOML = """
kill_signal = "SIGTERM"
kill_timeout = 30
[http_service]
force_https = true
[[mounts]]
destination = "/data"
"""
GOOD_JSON = {"deploy": {"healthcheckPath": "/readyz", "drainingSeconds": 30}}


@pytest.mark.parametrize(
    ("platform", "content", "words"),
    [
        ("fly", GOOD_TOML, []),
        ("fly", GOOD_TOML.replace("30", '"45s"'), []),
        ("fly", GOOD_TOML.replace("30", "5"), ["kill_timeout = 30"]),
        ("fly", GOOD_TOML.replace("SIGTERM", "SIGINT"), ['kill_signal = "SIGTERM"']),
        ("fly", GOOD_TOML.replace("[[mounts]]", "[mounts]"), []),
        ("fly", GOOD_TOML.replace("/data", "/elsewhere"), ["mounts no volume for /data/db.sqlite3"]),
        ("fly", "kill_timeout = 30", ["kill_signal", "http_service.force_https = true", "mounts no volume"]),
        ("fly", "= no toml", ["cannot be read"]),
        ("fly", None, ["is not there"]),
        ("railway", json.dumps(GOOD_JSON), []),
        ("railway", "[]", ["deploy.healthcheckPath", "deploy.drainingSeconds"]),
        ("server", None, []),
    ],
)
def test_the_hosts_own_file_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, platform: str, content: str | None, words: list[str]
) -> None:
    monkeypatch.setattr(hosting, "ROOT", tmp_path)
    if content is not None:
        (tmp_path / PLATFORMS[platform].file).write_text(content)
    settings = Settings(database_url=SecretStr("sqlite:////data/db.sqlite3"))
    issues = list(hosting.check_file(Subject(settings, PLATFORMS[platform])))
    assert all(issue.id == "W037" and word in issue.sentence for issue, word in zip(issues, words, strict=True))


# --- The site from outside ---------------------------------------------------------------------------------------


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a certificate for localhost that this process believes in."""
    postgres.certify(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.crt"))
    return tmp_path


Publish = Callable[..., Any]


@pytest.fixture
async def publish(make_site: MakeSite, authority: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Publish]:
    """Puts a site on the network as a host does, with plain HTTP beside it: `await publish(hsts_seconds=3600)`."""
    async with AsyncExitStack() as stack:

        async def put(*, sees_https: bool = True, holds_back: bool = False, **settings: Any) -> str:
            plain: Site = await make_site(**settings)
            monkeypatch.setattr(site, "HTTP_PORT", make_url(plain.url).port)
            inside = (await stack.enter_async_context(serve(over_https(plain.app) if sees_https else plain.app))).url
            if holds_back:
                inside = await stack.enter_async_context(keeping_back(inside))
            url: str = await stack.enter_async_context(over_tls(inside, authority))
            return url

        yield put


GOOD_SITE = {
    "environment": "production",
    "secret_key": GOOD_KEY,
    "allowed_hosts": "localhost",
    "ssl_redirect": True,
    "hsts_seconds": 31536000,
}


async def look_from_outside(url: str) -> tuple[SiteFacts, set[str]]:
    subject = Subject(Settings(), address=read_address(url))
    subject.site = await asyncio.to_thread(inspect_site, read_address(url))
    issues = [*hosting.check_site_answers(subject), *hosting.check_site_is_safe(subject)]
    return subject.site, {issue.id for issue in issues}


@pytest.mark.anyio
async def test_a_good_site_is_reported(publish: Publish, oppman: Oppman, careful: dict[str, str]) -> None:
    url = await publish(**GOOD_SITE)
    # The proxy in front sends people to HTTPS, so nobody needs SSL_REDIRECT.
    environment = careful | {"SSL_REDIRECT": "false"}
    done = await asyncio.to_thread(oppman, "check", "--url", url, **environment)
    assert (done.code, done.err) == (0, "")
    for line in (
        f"Site +{url} answers 200; /healthz 200, /readyz 200",
        r"HTTPS +TLSv1\.3, certificate valid until .+ GMT",
        "Plain HTTP +leads to HTTPS",
        "HSTS +max-age=31536000",
        r"Streams +pass: the first piece came after 0\.\d\d s",
    ):
        assert re.search(f"^{line}$", done.out, re.MULTILINE), line


@pytest.mark.anyio
async def test_a_host_that_holds_streams_back_is_found(publish: Publish) -> None:
    facts, found = await look_from_outside(await publish(holds_back=True, **GOOD_SITE))
    assert found == {"W056"}
    assert facts.stream.first >= health.STREAM_SECONDS
    assert not facts.stream.passes


@pytest.mark.anyio
async def test_a_careless_site_is_found(publish: Publish) -> None:
    facts, found = await look_from_outside(await publish(allowed_hosts="*", sees_https=False))
    assert found == {"W051", "W053", "W054", "W055"}
    assert facts.wrong_headers == ()


@pytest.mark.anyio
async def test_a_site_that_does_not_see_https_runs_in_circles(publish: Publish) -> None:
    assert (await look_from_outside(await publish(sees_https=False, **GOOD_SITE)))[1] >= {"E059"}


@pytest.mark.anyio
async def test_headers_that_a_proxy_took_away_are_found(publish: Publish, monkeypatch: pytest.MonkeyPatch) -> None:
    url = await publish(**GOOD_SITE)
    monkeypatch.setitem(site.CHECKED_HEADERS, "X-Another", "1")
    facts, found = await look_from_outside(url)
    assert (found, facts.wrong_headers) == ({"W052"}, ("X-Another",))


@pytest.mark.anyio
async def test_a_site_without_tables_is_not_healthy(publish: Publish, oppman: Oppman) -> None:
    url = await publish(**GOOD_SITE)
    await asyncio.to_thread(oppman, "migrate", "zero")
    facts, found = await look_from_outside(url)
    assert (found, facts.health, facts.ready) == ({"E057"}, 200, 503)


@pytest.mark.anyio
async def test_a_certificate_that_browsers_would_refuse_is_an_error(
    publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = await publish(**GOOD_SITE)
    monkeypatch.delenv("SSL_CERT_FILE")
    facts, found = await look_from_outside(url)
    assert found == {"E050"}
    assert facts.fault.startswith("The certificate of localhost is not valid: ")


@pytest.mark.anyio
async def test_a_version_without_the_probe_says_nothing_about_streams(
    publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = await publish(**GOOD_SITE)
    monkeypatch.setattr(site, "STREAM_PATH", "/nothing/here")
    facts, found = await look_from_outside(url)
    assert (found, facts.stream.status) == ({"W056"}, 404)


@pytest.mark.anyio
async def test_an_address_that_leads_to_https_is_not_looked_at_itself(make_site: MakeSite) -> None:
    plain: Site = await make_site(**GOOD_SITE | {"allowed_hosts": "127.0.0.1"})
    facts, found = await look_from_outside(plain.url)
    assert found == {"E050"}
    assert facts.fault.endswith(f"look there: --url {plain.url.replace('http:', 'https:')}")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("chat.example.org", "https://chat.example.org"),
        ("https://ada:geheim@chat.example.org:8443/login?x#y", "https://chat.example.org:8443"),
        ("http://[::1]:8000/", "http://[::1]:8000"),
    ],
)
def test_of_an_address_only_the_site_counts(typed: str, meant: str) -> None:
    assert str(read_address(typed)) == meant


@pytest.fixture
def silent_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_site_that_says_nothing_is_given_up(silent_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "SECONDS", 0.2)
    for port, words in ((silent_port, "timed out"), (1, "refused")):
        fault = inspect_site(read_address(f"http://127.0.0.1:{port}")).fault
        assert fault.startswith(f"http://127.0.0.1:{port} does not answer: ") and words in fault


@pytest.mark.parametrize("url", ["ftp://example.org", "https://", "http://[", "https://example.org:x"])
def test_an_address_that_is_none_is_refused(oppman: Oppman, url: str) -> None:
    refused = oppman("check", "--url", url)
    assert refused.code == 1
    assert refused.err == f"CommandError: {url!r} is no address of a site. Write it like https://chat.example.org\n"


def test_check_says_where_no_files_can_be_kept(oppman: Oppman, tmp_path: Path) -> None:
    production = {"ENVIRONMENT": "production", "SECRET_KEY": GOOD_KEY, **MODEL}
    (tmp_path / "file").touch()
    assert "(oppman.W005) This site has no place for files yet." in oppman("check", UPLOADS="", **production).err
    assert "(oppman.W005) This site cannot write" in oppman("check", UPLOADS=str(tmp_path / "file"), **production).err
    assert "no issues" in oppman("check", UPLOADS=str(tmp_path / "uploads"), **production).out
