"""The smaller commands: settings, keys, the shell."""

import io
import os
from importlib.util import cache_from_source
from pathlib import Path

import pytest

from app.settings import ROOT, find_key_fault
from tests.management.conftest import AddPerson, Oppman, Result


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
