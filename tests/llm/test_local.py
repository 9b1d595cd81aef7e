"""The real small model, and what happens when it cannot run."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from app.llm import choose_model
from app.llm.base import Finish, LanguageModel, LLMError, Turn, Usage
from app.llm.history import fit_turns
from app.llm.local_server import LocalServer, start_local_server
from app.settings import ROOT, Settings

pytestmark = pytest.mark.anyio

STORY = Turn("user", "Write a very long story about a lighthouse.")


@pytest.mark.parametrize(("content", "words"), [(None, "there is no file"), (b"no model", "is not a GGUF model")])
def test_a_file_that_is_no_model_is_one_sentence(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], content: bytes | None, words: str
) -> None:
    pytest.importorskip("xllamacpp")
    path = tmp_path / "my.gguf"
    if content:
        path.write_bytes(content)
    warnings: list[str] = []
    with start_local_server(Settings(local_llm_gguf=str(path)), warnings.append) as server:
        assert server is None
    assert len(warnings) == 1
    assert words in warnings[0]
    assert "OPENROUTER_API_KEY" in warnings[0]
    assert "".join(capfd.readouterr()) == ""


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("raise ModuleNotFoundError('No module named xllamacpp')", "the package xllamacpp is not installed"),
        ("raise ImportError('libgomp.so.1: cannot open shared object file')", "apt install libgomp1"),
        ("raise ImportError('undefined symbol')", "does not work on this machine"),
        ("import os; os.abort()", "ended before it had started"),
    ],
)
def test_a_machine_that_cannot_run_it_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str, words: str
) -> None:
    (tmp_path / "xllamacpp.py").write_text(missing)
    (tmp_path / "my.gguf").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    warnings: list[str] = []
    with start_local_server(Settings(local_llm_gguf=str(tmp_path / "my.gguf")), warnings.append) as server:
        assert server is None
    assert words in warnings[0]


@pytest.fixture
def settings(local_server: LocalServer) -> Settings:
    return Settings(local_llm="on", local_llm_url=local_server.url, local_llm_key=local_server.key)


@pytest.fixture
async def model(settings: Settings) -> AsyncIterator[LanguageModel]:
    model = choose_model(settings)
    yield model
    await model.aclose()


@pytest.mark.slow
async def test_it_answers(model: LanguageModel, settings: Settings) -> None:
    turns = [Turn("system", settings.llm_system_prompt), Turn("user", "What is the capital of France?")]
    async with aclosing(model.stream(turns)) as stream:
        items = [item async for item in stream]
    assert "".join(item for item in items if isinstance(item, str)).strip()
    assert isinstance(items[-2], Usage)
    assert isinstance(items[-1], Finish)


@pytest.mark.slow
async def test_it_stops_when_the_stream_is_closed(model: LanguageModel, local_server: LocalServer) -> None:
    async with aclosing(model.stream([STORY])) as stream:
        assert await anext(stream)
        assert await asyncio.to_thread(count_busy_slots, local_server) == 1
    deadline = time.monotonic() + 5
    while await asyncio.to_thread(count_busy_slots, local_server):
        assert time.monotonic() < deadline, "the model goes on although nobody listens"


def count_busy_slots(server: LocalServer) -> int:
    request = Request(server.url.removesuffix("/v1") + "/slots", headers={"Authorization": f"Bearer {server.key}"})
    with urlopen(request, timeout=20) as response:
        return sum(slot["is_processing"] for slot in json.load(response))


@pytest.mark.slow
async def test_a_history_of_its_full_length_is_understood(model: LanguageModel) -> None:
    talk = [Turn("user", "Tell me more about the sea."), Turn("assistant", "It is deep and blue. " * 8)] * 20
    turns, left_out_count = fit_turns([*talk, STORY], model.context_tokens)
    assert left_out_count > 0
    async with aclosing(model.stream(turns)) as stream:
        assert await anext(stream)


@pytest.mark.slow
async def test_too_long_a_history_is_a_sentence(model: LanguageModel) -> None:
    with pytest.raises(LLMError, match="too long for The local model") as error:
        async with aclosing(model.stream([Turn("user", "word " * 3000)])) as stream:
            await anext(stream)
    assert error.value.code == "too_long"


@pytest.mark.slow
def test_strangers_on_this_machine_get_nothing(local_server: LocalServer) -> None:
    request = Request(f"{local_server.url}/chat/completions", b"{}", headers={"Origin": "https://example.org"})
    with pytest.raises(HTTPError, match="401") as error:
        urlopen(request, timeout=20)
    assert not error.value.headers.get("Access-Control-Allow-Origin")
    error.value.close()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes in /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_it_ends_with_its_parent(how: signal.Signals) -> None:
    code = (
        "import signal, time; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell may have it ignored
        "from app.settings import Settings; from app.llm.local_server import start_local_server\n"
        "with start_local_server(Settings()) as server: print(server.url, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert parent.stdout
    assert parent.stdout.readline().startswith(b"http://127.0.0.1:")
    children = list(find_children(parent.pid))
    assert len(children) == 1
    os.kill(parent.pid, how)
    parent.wait(10)
    parent.stdout.close()
    deadline = time.monotonic() + 5
    while Path(f"/proc/{children[0]}").exists():
        assert time.monotonic() < deadline, "the model outlives its parent"
        time.sleep(0.02)


def find_children(pid: int) -> Iterator[int]:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent == pid:
            yield int(stat.parent.name)
