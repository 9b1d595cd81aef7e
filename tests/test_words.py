"""The words beside the code: what they show works, and what they name is there.

A line such as «`app/notes/models.py`:» before a block of code says which file it is, or, for `diff`, what to change.
"""

import json
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, get_args

import httpx2
import pytest

from app.chat import api
from app.chat.models import Status
from app.headers import CONTENT_POLICY
from app.llm import OPENAI_MODEL, OPENROUTER_MODEL, choose_model
from app.llm.openai import OpenAIModel
from app.main import app
from app.management import COMMANDS
from app.management.commands import read_options
from app.management.console import console
from app.management.server import wants_local_model
from app.pages.docs import describe_api
from app.settings import ROOT, Settings
from tests.chat.reading import ask
from tests.conftest import PASSWORD, Person
from tests.management.conftest import clean_environment

DOCS = ROOT / "docs"
FOLDERS = (".", "docs", "docs/deploy", "benchmarks", "static")
PAGES = sorted(page for folder in FOLDERS for page in (ROOT / folder).glob("*.md"))
NAMED_BLOCK = re.compile(r"^`([\w./-]+)`:\n\n```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
GOOD_KEY = "k3Jx9-vLq2Zr7_Tn5WbYc8Hd4Fs6GmPa1Ue0"

# Capital words in the docs that are no settings of ours.
OTHER_NAMES = {
    "COMMANDS", "CONTENT_POLICY", "FORWARDED_ALLOW_IPS", "GET", "LICENSE", "NOTICE", "OLLAMA_CONTEXT_LENGTH",
    "OPPMAN_PASSWORD", "OPPMAN_SUPERUSER_EMAIL", "OPPMAN_SUPERUSER_PASSWORD", "PAIRS", "PORT", "SITE",
}  # fmt: skip

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def list_blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def read(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


# --- What is named is there --------------------------------------------------------------------------------------


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?:|mailto:", link):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not anchor or anchor in list_anchors(target), link


def list_anchors(page: Path) -> list[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]


@each_page
def test_files_that_are_named_exist(page: Path) -> None:
    folders = "app|benchmarks|deploy|docs|migrations|static|templates|tests"
    named = re.findall(rf"`((?:{folders})/[\w./-]*)`", page.read_text(encoding="utf-8"))
    assert [path for path in named if "/notes/" not in path and not (ROOT / path).exists()] == []


@each_page
def test_commands_that_are_named_exist_with_their_options(page: Path) -> None:
    try:
        for typed in re.findall(r"""oppman\.py ([a-z](?:"[^"\n]*"|[^`"\n)&|;])*)""", page.read_text(encoding="utf-8")):
            name, *rest = shlex.split(typed, comments=True)
            if name == "help":
                assert set(rest) <= set(COMMANDS)
                continue
            assert name in COMMANDS, typed
            if rest:
                check_options(name, rest)
    finally:
        console.set_up()


def check_options(name: str, rest: list[str]) -> None:
    try:
        read_options(name, getattr(import_module(f"app.management.{COMMANDS[name].module}"), name), rest)
    except SystemExit:
        pytest.fail(f"oppman.py {name} {' '.join(rest)}")


@each_page
def test_settings_that_are_named_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    inline = re.findall(r"`([A-Z][A-Z0-9_]+)(?:=[^`\n]*)?`", text)
    in_files = re.findall(r"^(\w+)=", "\n".join(list_blocks(text, "ini")), re.MULTILINE)
    assert {name for name in [*inline, *in_files] if name.lower() not in Settings.model_fields} <= OTHER_NAMES


@each_page
def test_nothing_belongs_to_one_machine_or_is_unfinished(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert re.findall(r"(?<![\w.:/])/(?:home|mnt|root|tmp|Users|work\w*)/\S*", text) == []
    assert re.findall(r"\S*(?:pypi\.org|pythonhosted\.org|registry\.npmjs)\S*", text) == []
    assert re.findall(r"\b(?:TODO|FIXME|XXX|TBD)\b|lorem ipsum|coming soon", text) == []


def test_the_readme_has_both_commands_of_the_set_up() -> None:
    blocks = list_blocks((ROOT / "README.md").read_text(encoding="utf-8"), "sh")
    assert "pip install uv && uv run oppman.py quickstart\n" in blocks
    assert "uv run pytest\n" in blocks


def test_the_table_of_commands_is_whole() -> None:
    named = re.findall(r"^\| [^|]*\| `oppman\.py (\w+)", read("commands.md"), re.MULTILINE)
    assert set(named) == set(COMMANDS)


def test_the_policy_is_the_one_that_is_sent() -> None:
    assert CONTENT_POLICY in {" ".join(block.split()) for block in list_blocks(read("design.md"), "text")}


# --- Language models ---------------------------------------------------------------------------------------------


def read_env(lines: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Load lines of a .env as the app would, with nothing else in the environment but a key."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("SECRET_KEY", GOOD_KEY)
    env = folder / ".env"
    env.write_text(lines)
    return Settings(_env_file=env)


@pytest.mark.parametrize("provider", ["OpenRouter", "OpenAI", "Ollama", "vLLM", "llama.cpp"])
def test_the_lines_for_a_provider_choose_its_model(
    provider: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = re.split(r"^## ", read("models.md"), flags=re.MULTILINE)
    (lines,) = list_blocks(next(part for part in section if part.startswith(f"{provider}\n")), "ini")
    settings = read_env(lines, tmp_path, monkeypatch)
    model = choose_model(settings)
    assert isinstance(model, OpenAIModel)
    assert model.name == (settings.llm_model or OPENAI_MODEL)
    assert not wants_local_model(settings)


def test_the_models_of_those_who_name_none_are_named() -> None:
    assert {OPENAI_MODEL, OPENROUTER_MODEL} <= set(re.findall(r"it is `([^`]+)`", read("models.md")))


def test_the_small_model_is_switched_as_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    off, own = (block for block in list_blocks(read("models.md"), "ini") if block.startswith("LOCAL_LLM"))
    assert wants_local_model(read_env("", tmp_path, monkeypatch))
    assert not wants_local_model(read_env(off, tmp_path, monkeypatch))
    settings = read_env(own, tmp_path, monkeypatch)
    assert wants_local_model(settings)
    assert settings.local_llm_gguf.endswith(".gguf")


def test_every_setting_of_a_model_is_explained() -> None:
    about_models = [name for name in Settings.model_fields if re.match("(local_)?llm_|local_llm|open", name)]
    assert [name for name in about_models if f"{name.upper()}" not in read("models.md")] == []


def test_the_settings_of_a_server_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (lines,) = list_blocks(read("deploy/server.md"), "ini")
    settings = read_env(lines, tmp_path, monkeypatch)
    assert settings.is_production
    assert settings.allowed_hosts == ["chat.example.org"]


# --- The JSON API ------------------------------------------------------------------------------------------------


class Call(NamedTuple):
    method: str
    path: str
    parameters: set[str]
    body: Any

    @classmethod
    def parse(cls, line: str) -> "Call":
        words = shlex.split(line)
        address, _, query = next(word for word in words if word.startswith("$API")).partition("?")
        path = address.replace("$API", "/api/v1").replace("$CONVERSATION", "{conversation_id}")
        body = json.loads(words[words.index("--json") + 1]) if "--json" in words else None
        method = words[words.index("-X") + 1] if "-X" in words else "GET" if body is None else "POST"
        parameters = {pair.partition("=")[0] for pair in query.split("&") if pair}
        return cls(method.lower(), path.replace("$MESSAGE", "{message_id}"), parameters, body)


def test_every_route_of_the_api_has_an_example_that_fits() -> None:
    paths = describe_api(app)["paths"]
    lines = [line for block in list_blocks(read("api.md"), "sh") for line in block.splitlines()]
    calls = [Call.parse(line) for line in lines if line.startswith("curl ")]
    assert {(call.method, call.path) for call in calls} == {(m, path) for path in paths for m in paths[path]}
    for call in calls:
        operation = paths[call.path][call.method]
        assert call.parameters <= {parameter["name"] for parameter in operation.get("parameters", [])}
        if call.body is not None:
            reference = re.search(r"schemas/(\w+)", json.dumps(operation["requestBody"]))
            assert reference
            getattr(api, reference[1]).model_validate(call.body)


def test_the_transcript_is_one_that_the_api_could_send() -> None:
    (transcript,) = list_blocks(read("api.md"), "text")
    events = re.findall(r"id: (\d+)\nevent: (\w+)\ndata: (.+)\n", transcript)
    ids, names = [int(number) for number, _, _ in events], [name for _, name, _ in events]
    first, *pieces, last = [json.loads(data) for _, _, data in events]
    texts = [piece["text"] for piece in pieces]
    assert names == ["answer", *("piece" for _ in pieces), "end"]
    assert ids == [0, *(len("".join(texts[: n + 1])) for n in range(len(texts))), len("".join(texts)) + 1]
    assert set(last["message"]) == set(api.MessageOut.model_fields)
    message = api.MessageOut.model_validate(last["message"])
    assert (str(message.id), message.status, message.text) == (first["id"], last["status"], "".join(texts))


# --- The chat ----------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_the_events_of_the_page_are_the_ones_that_come(ada: Person) -> None:
    rows = re.findall(r"^\| `(\w+)` \| ((?:`\w+` ?)+)\|", read("chat.md"), re.MULTILINE)
    events = {event.name: event for event in await ask(ada)}
    assert {name: set(re.findall(r"\w+", fields)) for name, fields in rows} == {
        name: set(event.data) for name, event in events.items()
    }


def test_every_status_is_explained() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", read("chat.md").partition("## What an answer can be")[2], re.MULTILINE)
    assert set(rows) == set(get_args(Status)) - {"queued"}


# --- A feature from nothing --------------------------------------------------------------------------------------


@pytest.fixture
def with_notes(project: Path) -> Path:
    """A copy of the project in which somebody has done what docs/feature.md says, up to the commands."""
    page = read("feature.md")
    subprocess.run(["sh", "-ec", list_blocks(page, "sh")[0]], cwd=project, check=True)
    for name, language, text in NAMED_BLOCK.findall(page):
        if language == "diff":
            change(project / name, text)
        else:
            (project / name).write_text(text, encoding="utf-8")
    return project


def change(file: Path, diff: str) -> None:
    """Replace what a diff shows: lines that begin with a blank or a minus by those with a blank or a plus."""
    lines = diff.splitlines(keepends=True)
    before = "".join(line[1:] or line for line in lines if line[0] != "+")
    after = "".join(line[1:] or line for line in lines if line[0] != "-")
    text = file.read_text(encoding="utf-8")
    assert text.count(before) == 1, f"{file.name} has changed: {before}"
    file.write_text(text.replace(before, after), encoding="utf-8")


def run(folder: Path, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=clean_environment(), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serve a copy of the project, and give its address."""
    command = [sys.executable, "oppman.py", "runserver", "--noreload", "127.0.0.1:0"]
    environment = clean_environment(LOCAL_LLM="off")
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            line = next(line for line in process.stdout if "Starting the server at" in line)
            yield line.split()[-1]
        finally:
            process.terminate()


def migrate(folder: Path) -> str:
    """Type the page's two commands, on a database from before, in one process because each start takes a second."""
    commands = "main(['migrate']) or main(['makemigrations']) or main(['migrate'])"
    return run(folder, "-c", f"import sys; from app.management import main; sys.exit({commands})")


@contextmanager
def sign_up(url: str, name: str) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=url, timeout=30, headers={"Accept": "text/html"}) as browser:
        form = {"email": f"{name}@example.org", "password": PASSWORD}
        assert browser.post("/register", data=form).status_code == 303
        yield browser


def make_superuser(folder: Path, name: str) -> None:
    with closing(sqlite3.connect(folder / "db.sqlite3")) as database, database:
        database.execute("UPDATE person SET is_superuser = 1 WHERE email = ?", (f"{name}@example.org",))


def test_the_feature_of_the_page_works(with_notes: Path) -> None:
    said = migrate(with_notes)
    (shown,) = list_blocks(read("feature.md"), "text")
    assert re.sub(r"\d{4}", "", shown) in re.sub(r"\d{4}", "", said)
    with serve(with_notes) as url, sign_up(url, "ada") as ada, sign_up(url, "bob") as bob:
        assert ada.post("/notes", data={"text": "Buy <milk>"}).status_code == 303
        page = ada.get("/notes").text
        assert "Buy &lt;milk&gt;" in page
        (delete,) = re.findall(r'action="(/notes/[\w-]+/delete)"', page)

        assert "milk" not in bob.get("/notes").text
        assert bob.post(delete).status_code == 404
        assert bob.get("/admin/note/list").status_code == 403
        make_superuser(with_notes, "ada")
        assert "Buy &lt;milk&gt;" in ada.get("/admin/note/list?search=milk").text

        assert ada.post(delete).status_code == 303
        assert "No notes yet" in ada.get("/notes").text
        assert "/notes" in ada.get("/").text


@pytest.mark.slow
def test_the_feature_of_the_page_keeps_our_rules_and_passes_its_own_test(with_notes: Path) -> None:
    for file in (ROOT / "tests").glob("*.py"):
        if not file.name.startswith("test_"):
            shutil.copy(file, with_notes / "tests")
    run(with_notes, "-m", "ruff", "format", "--check", "app/notes", "app/models.py", "app/main.py", "tests/notes")
    run(with_notes, "-m", "ruff", "check", "app", "tests/notes")
    run(with_notes, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()")
    run(with_notes, "-m", "mypy", "app/notes", "tests/notes")
    migrate(with_notes)
    assert "No changes" in run(with_notes, "oppman.py", "makemigrations", "--check")
    assert "5 passed" in run(with_notes, "-m", "pytest", "tests/notes")
