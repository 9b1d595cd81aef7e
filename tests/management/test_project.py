"""The smaller commands: checks, settings, keys, the shell."""

import io
import os
import re
from importlib.util import cache_from_source
from pathlib import Path

import pytest

from app.settings import ROOT, find_key_fault
from tests.management.conftest import AddPerson, Oppman, Result

GOOD_KEY = "kJ2-v9Qx_4mTzR7wLpN0sYb8HcUe3DfGaVi6oXtM1qEW"
MODEL = {"LLM_BASE_URL": "https://models.example.org/v1", "LLM_MODEL": "wise"}


def test_a_sound_project_has_no_issues(oppman: Oppman) -> None:
    assert oppman("check", **MODEL) == Result(0, "System check identified no issues (0 silenced).\n", "")


def test_compiled_code_counts_whatever_happens_to_its_dates(run_in: Oppman, project: Path, tmp_path: Path) -> None:
    """As in an image that was copied: the code is not read again for its date, but a change of it is seen."""
    libraries = tmp_path / "libraries"
    libraries.mkdir()
    program = (
        f"import sysconfig; sysconfig.get_path = lambda name: {str(libraries)!r}; from app.management import main;"
    )
    assert run_in("-c", f"{program} main(['compileall', '-v', '0'])") == Result(0, "", "")
    compiled = Path(cache_from_source(str(project / "app" / "settings.py")))
    before = compiled.read_bytes()
    os.utime(project / "app" / "settings.py", (0, 0))
    look = "import app.settings; print(app.settings.EX_CONFIG)"
    assert run_in("-c", look).out == "78\n" and compiled.read_bytes() == before
    changed = (project / "app" / "settings.py").read_text().replace("EX_CONFIG = 78", "EX_CONFIG = 79")
    (project / "app" / "settings.py").write_text(changed)
    assert run_in("-c", look).out == "79\n"


def test_check_names_what_is_wrong_and_what_to_do(oppman: Oppman) -> None:
    oppman("migrate", "zero")
    found = oppman("check")
    assert "?: (oppman.W001) 1 migration not applied.\n\tHINT: " in found.err
    assert "(oppman.W002) There is no language model, so nobody gets an answer." in found.err
    assert found.code == 0
    assert oppman("check", "--fail-level", "WARNING").code == 1
    assert oppman("check", DATABASE_URL="postgresql://ada@127.0.0.1:1/x").code == 1


def test_check_finds_a_model_that_nobody_can_be_asked_for(oppman: Oppman) -> None:
    assert "LLM_MODEL is not used" in oppman("check", LLM_MODEL="wise").err
    assert "not which model to ask there" in oppman("check", LLM_BASE_URL="https://models.example.org/v1").err


def test_check_deploy_looks_at_what_strangers_could_do(oppman: Oppman, add_person: AddPerson) -> None:
    production = {"ENVIRONMENT": "production", "SECRET_KEY": GOOD_KEY, "ALLOWED_HOSTS": "chat.example.org"}
    careful = oppman("check", "--deploy", ALLOW_SIGNUP="false", **production, **MODEL)
    assert careful.out == "System check identified no issues (0 silenced).\n"

    add_person("ada@example.com", "Ada")
    careless = oppman("check", "--deploy", **MODEL).err
    assert set(re.findall(r"oppman\.[WE]\d+", careless)) == {f"oppman.W01{n}" for n in (0, 1, 2, 3, 4, 6)}


def test_settings_are_shown_without_secrets(oppman: Oppman) -> None:
    address = "postgresql://ada:ge:h@eim@db.example.org/x?password=geheim"
    shown = oppman(
        "showsettings", DATABASE_URL=address, OPENAI_API_KEY="sk-geheim", LLM_BASE_URL="http://u:geheim@h/v1"
    )
    assert "geheim" not in shown.out
    assert "eim@" not in shown.out
    assert "DATABASE_URL=postgresql://ada:********@db.example.org/x?password=…\n" in shown.out
    assert "OPENAI_API_KEY=********\n" in shown.out
    assert "SITE_NAME=Oppkit  # default\n" in shown.out


def test_a_new_key_is_good_enough_for_production(oppman: Oppman) -> None:
    keys = {oppman(name).out.strip() for name in ("generate_secret_key", "secrets")}
    assert len(keys) == 2
    assert all(find_key_fault(key) is None for key in keys)


def test_the_shell_knows_the_models_and_awaits(
    oppman: Oppman, add_person: AddPerson, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_person("ada@example.org", "Ada")
    add_person("bob@example.org", "Bob")
    source = "people = await session.exec(select(User).order_by(User.email))\nprint([p.name for p in people])"
    assert oppman("shell", "-c", source).out == "['Ada', 'Bob']\n"

    monkeypatch.setattr("sys.stdin", io.StringIO("async def two():\n    return 2\n\nprint(await two())\n"))
    assert oppman("shell").out == "2\n"


def test_a_mistake_in_the_shell_is_shown_from_ones_own_line_on(oppman: Oppman) -> None:
    failed = oppman("shell", "-c", "def divide():\n    return 1 / 0\ndivide()")
    assert failed.code == 1
    assert failed.err.splitlines()[1].strip() == 'File "<shell>", line 3, in <module>'
    assert failed.err.endswith("ZeroDivisionError: division by zero\n")


def test_the_shell_shows_no_hashes(oppman: Oppman, add_person: AddPerson) -> None:
    add_person("ada@example.org", "Ada")
    shown = oppman("shell", "-c", "print(repr((await session.exec(select(User))).one()))").out
    assert "ada@example.org" in shown and "argon2" not in shown


def test_the_tests_are_started_with_pytests_own_arguments(oppman: Oppman, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []

    def call(command: list[str], cwd: Path) -> int:
        started.append([str(cwd), *command[1:]])
        return 5

    monkeypatch.setattr("subprocess.call", call)
    assert oppman("test", "-k", "chat", "-x", "--", "-h").code == 5
    assert started == [[str(ROOT), "-m", "pytest", "-k", "chat", "-x", "--", "-h"]]


def test_the_databases_own_client_gets_no_password_in_its_arguments(
    oppman: Oppman, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[list[str], str | None]] = []
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")

    def call(command: list[str], env: dict[str, str]) -> int:
        started.append((command, env.get("PGPASSWORD")))
        return 0

    monkeypatch.setattr("subprocess.call", call)
    oppman("dbshell", "--", "-c", "SELECT 1", DATABASE_URL="postgres://ada:geheim@db:6543/x")
    assert started == [(["psql", "-h", "db", "-p", "6543", "-U", "ada", "-d", "x", "-c", "SELECT 1"], "geheim")]

    monkeypatch.setattr("shutil.which", lambda name: None)
    assert "You appear not to have" in oppman("dbshell", DATABASE_URL="postgres://ada@db/x").err


def test_deploy_scripts_may_call_collectstatic(oppman: Oppman) -> None:
    assert oppman("collectstatic", "--noinput").code == 0
