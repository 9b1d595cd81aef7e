"""PostgreSQL behind its pooler, and how tables and the first admin come to a host without a shell."""

import asyncio
import subprocess
import sys

import httpx2
import pytest

from app.settings import ROOT
from tests.faults.conftest import begin
from tests.hosts.conftest import StartInstance
from tests.hosts.gateway import open_gateway
from tests.management.conftest import clean_environment
from tests.postgres import Server

pytestmark = pytest.mark.anyio

SETUP_TOKEN = "zT9-qLw3Xv_7RkPn5YbHc8Jd2Fs6GmAe"


async def test_l12_many_chats_share_three_connections_of_the_pooler(ada: httpx2.AsyncClient) -> None:
    async def chat(number: int) -> None:
        path = await begin(ada)
        for turn in range(3):
            answer = await ada.post(path, json={"content": f"Chat {number}, turn {turn}"})
            assert answer.json()["status"] == "done"
        texts = [message["text"] for message in (await ada.get(path)).json()["items"]]
        assert texts == [text for turn in range(3) for text in (f"Chat {number}, turn {turn}", "Hello Ada.")]

    await asyncio.gather(*(chat(number) for number in range(8)))


async def test_l16_tables_are_made_from_a_laptop(make_instance: StartInstance, pooled: Server) -> None:
    """With the address that the host shows, and nothing else."""
    instance = make_instance(DATABASE_URL=(url := pooled.make_empty()))
    async with open_gateway(instance) as gateway, httpx2.AsyncClient(base_url=gateway.url, timeout=30) as visitor:
        assert (await visitor.get("/readyz")).status_code == 503
        command = [sys.executable, "oppman.py", "migrate"]
        await asyncio.to_thread(
            subprocess.run, command, cwd=ROOT, env=clean_environment(DATABASE_URL=url), check=True, capture_output=True
        )
        assert (await visitor.get("/readyz")).status_code == 200
        assert instance.starts == 1


async def test_l16_tables_are_made_at_the_start(make_instance: StartInstance, pooled: Server) -> None:
    """The host freezes the app between requests, so the migrations go on while somebody waits for a page."""
    url = pooled.make_empty()
    instance = make_instance(memory=256, cpu=14.1, DATABASE_URL=url, MIGRATE_ON_START="true")
    async with open_gateway(instance) as gateway, httpx2.AsyncClient(base_url=gateway.url, timeout=30) as visitor:
        answers = [await visitor.get("/login")]
        while answers[-1].status_code == 503 and len(answers) < 20:
            assert answers[-1].headers["Retry-After"]
            answers.append(await visitor.get("/login"))
        assert answers[-1].status_code == 200
        assert (await visitor.get("/readyz")).status_code == 200
        assert instance.start_seconds < 10 and instance.starts == 1


async def test_l17_tables_and_the_first_admin_are_made_on_a_page(make_instance: StartInstance, pooled: Server) -> None:
    instance = make_instance(DATABASE_URL=pooled.make_empty(), SETUP_TOKEN=SETUP_TOKEN, ALLOW_SIGNUP="false")
    form = {"email": "grace@example.org", "password": "a long way from Brooklyn", "name": "Grace"}
    async with (
        open_gateway(instance) as gateway,
        httpx2.AsyncClient(base_url=gateway.url, timeout=30, headers={"Accept": "text/html"}) as grace,
    ):
        assert (await grace.get("/setup")).status_code == 200
        assert (await grace.post("/setup", data={**form, "token": "wrong"})).status_code == 422
        claimed = await grace.post("/setup", data={**form, "token": SETUP_TOKEN})
        assert claimed.status_code == 303
        grace.headers["Cookie"] = claimed.headers["set-cookie"].split(";")[0]
        assert (await grace.get("/admin/user/list")).status_code == 200
        assert (await grace.get("/readyz")).json()["status"] == "ready"
        assert (await grace.get("/setup")).status_code == 404
        assert (await grace.post("/setup", data={**form, "token": SETUP_TOKEN})).status_code == 404
