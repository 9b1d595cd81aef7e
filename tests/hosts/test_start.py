"""A start from nothing, on little: how long it takes, what it needs, and what is refused."""

import asyncio
import os

import httpx2
import pytest

from app.settings import ROOT
from tests.faults.conftest import begin
from tests.faults.processes import read_memory
from tests.hosts.conftest import StartInstance
from tests.hosts.instance import ENVIRONMENT_LENGTH, Instance, StartError, measure
from tests.postgres import Server

pytestmark = pytest.mark.anyio

SLICES = [(512, 28), (256, 14.1)]  # MB, and the percentage of a core that comes with them


@pytest.mark.parametrize(("memory", "cpu"), SLICES)
async def test_l01_a_cold_start_is_ready_before_the_probe_gives_up(
    make_instance: StartInstance, memory: int, cpu: float
) -> None:
    instance = make_instance(memory=memory, cpu=cpu)
    await asyncio.to_thread(instance.start)
    assert instance.cpu_seconds < 1.2
    assert instance.start_seconds < 10


async def test_l02_a_start_asks_no_database(make_instance: StartInstance, pooled: Server) -> None:
    """One without tables, then one that is not there: the port answers, and what needs the database says so."""
    for url in (pooled.make_empty(), "postgresql://a:b@127.0.0.1:1/c"):
        instance = make_instance(DATABASE_URL=url)
        await asyncio.to_thread(instance.start)
        assert instance.start_seconds < 10
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{instance.port}") as visitor:
            assert (await visitor.get("/login")).status_code == 200
            assert (await visitor.get("/readyz")).status_code == 503
        instance.kill()


async def test_l04_little_memory_is_enough(instance: Instance, ada: httpx2.AsyncClient) -> None:
    await ada.get("/healthz")
    assert read_memory(instance.pid) <= 120

    async def chat() -> None:
        path = await begin(ada)
        for _ in range(10):
            assert (await ada.post(path, json={"content": "Who is Ada?"})).json()["text"] == "Hello Ada."

    await asyncio.gather(*(chat() for _ in range(20)))
    assert read_memory(instance.pid) <= 180
    assert instance.starts == 1


def test_l15_all_settings_together_are_small_enough(make_instance: StartInstance, production: dict[str, str]) -> None:
    """Every setting there is, at its length in the example, or 64 characters where that is empty."""
    lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    settings = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    everything = {name: value or "x" * 64 for name, value in settings.items()} | production
    assert measure(everything) <= ENVIRONMENT_LENGTH
    with pytest.raises(StartError, match="bytes"):
        make_instance(LLM_SYSTEM_PROMPT="x" * ENVIRONMENT_LENGTH)


@pytest.mark.parametrize("path", ["db.sqlite3", "/tmp/db.sqlite3"])
async def test_l18_sqlite_on_this_disk_is_refused(make_instance: StartInstance, path: str) -> None:
    instance = make_instance(DATABASE_URL=f"sqlite:///{path}")
    with pytest.raises(StartError) as refused:
        await asyncio.to_thread(instance.start)
    assert instance.process and instance.process.returncode == os.EX_CONFIG
    (sentence,) = str(refused.value).splitlines()
    assert sentence.startswith("DATABASE_URL names a SQLite file in /") and "PostgreSQL" in sentence
