"""The demo comes, stays as it is, and goes, and its code can go, too."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from app.chat.markdown import render
from app.demo.conversations import CONVERSATIONS
from app.settings import ROOT
from tests.management.conftest import Oppman, clean_environment

COUNT = """
for table in (User, Conversation, Message):
    print(table.__name__, (await session.exec(select(func.count()).select_from(table))).one())
print({m.model for m in await session.exec(select(Message)) if m.role == "assistant"})
"""


def test_loading_twice_is_loading_once(oppman: Oppman) -> None:
    first = oppman("demo", "load")
    assert "ada@example.com  password " in first.out
    before = oppman("shell", "-c", COUNT).out
    assert "Conversation 4\n" in before
    assert "{'Demo text, written by hand'}" in before

    assert "ada@example.com  kept" in oppman("loaddemo").out
    assert oppman("shell", "-c", COUNT).out == before


def test_t55_the_demo_people_have_no_password_that_can_be_known(oppman: Oppman) -> None:
    found = []
    for _ in range(2):
        found += re.findall(r"@example\.com  password (\S+)", oppman("demo", "load").out)
        oppman("demo", "remove", "--noinput")
    assert len(set(found)) == 4 and all(len(password) == 14 for password in found)


def test_removing_it_takes_only_its_own(oppman: Oppman) -> None:
    oppman("loaddemo")
    oppman("createsuperuser", "--noinput", "--email", "grace@example.org", OPPMAN_SUPERUSER_PASSWORD="a horse 1843")
    assert "There is no terminal to ask at" in oppman("demo", "remove").err

    assert oppman("demo", "remove", "--noinput").out == "Deleted 2 demo people and their 4 conversations.\n"
    assert oppman("shell", "-c", COUNT).out == "User 1\nConversation 0\nMessage 0\nset()\n"
    assert oppman("demo", "remove", "--noinput").out == "There is no demo here.\n"


def test_the_texts_show_what_markdown_can_do() -> None:
    html = "".join(render(answer) for example in CONVERSATIONS for _, answer in example.exchanges)
    for tag in ("<table", "<ol>", "<ul>", "<code", "<blockquote>", "<strong>", "<em>"):
        assert tag in html


def test_quickstart_loads_it_once(oppman: Oppman, at_home: Path) -> None:
    (at_home / ".env").touch()
    first = oppman("quickstart", "--no-serve").out
    assert re.search(r"  People +ada@example\.com +password \S+\n +bob@example\.com +password \S+\n", first)
    assert "4 conversations to look at\n" in first
    assert "shown only now" in first

    second = oppman("quickstart", "--no-serve").out
    assert re.search(r"  People +ada@example\.com +kept\n +bob@example\.com +kept\n  Demo +kept\n", second)
    assert "not shown again" in second


@pytest.fixture
def without_demo(project: Path) -> Path:
    """A copy of the project from which somebody has deleted what the README says."""
    for name in ("tests", "docs", "benchmarks", "deploy"):
        shutil.copytree(ROOT / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (section,) = re.findall(r"^## Remove the demo\n.*?(?=^## )", readme, re.MULTILINE | re.DOTALL)
    (project / "README.md").write_text(readme.replace(section, ""), encoding="utf-8")
    whole, lines = section.partition("delete")[2].split("every line that says «demo» in")
    for name in re.findall("`(.+?)`", whole):
        subprocess.run(["rm", "-r", name], cwd=project, check=True)
    for name in re.findall("`(.+?)`", lines):
        kept = [line for line in (project / name).read_text(encoding="utf-8").splitlines(True) if "demo" not in line]
        (project / name).write_text("".join(kept), encoding="utf-8")
    return project


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        "-m ruff check .",
        "-m mypy",
        "-c 'from importlinter.cli import lint_imports_command; lint_imports_command()'",
        "oppman.py quickstart --no-serve",
        "-m pytest tests/management",
        "-m pytest tests/test_words.py -k 'named or table'",
    ],
)
def test_the_project_is_whole_without_its_code(without_demo: Path, command: str) -> None:
    assert not (without_demo / "app" / "demo").exists()
    done = subprocess.run(
        [sys.executable, *shlex.split(command)],
        cwd=without_demo,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ada@example.com" not in done.stdout
