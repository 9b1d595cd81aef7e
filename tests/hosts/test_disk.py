"""The whole site on a disk that nobody can write to."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from starlette.routing import Route

from app.main import ROUTERS
from tests.conftest import PASSWORD
from tests.faults.conftest import begin, script
from tests.hosts.conftest import StartInstance, add_person
from tests.hosts.gateway import open_gateway
from tests.hosts.instance import COMMAND, Instance
from tests.services import miss

pytestmark = pytest.mark.anyio

CHANGES = "open,openat,openat2,creat,truncate,mkdir,mkdirat,rmdir,unlink,unlinkat,rename,renameat,renameat2,symlinkat"
OPENED_TO_READ = re.compile(r'\bopen(at)?\((AT_FDCWD, )?"[^"]*", O_RDONLY')
PATH = re.compile(r'"([^"]*)"')
ALLOWED = re.compile(r"/tmp(/|$)|/dev/(null|tty)$")
ADMIN_PAGES = ("/admin/", "/admin/user/list", "/admin/conversation/list", "/admin/message/list")


async def test_l03_every_page_works_and_nothing_is_written_outside_tmp(
    make_instance: StartInstance, database_url: str
) -> None:
    if not shutil.which("strace"):
        miss("strace is not on the path. Install it: apt-get install strace.")
    instance = make_instance(cpu=100)  # tracing takes most of it
    instance.command = f"exec strace -f -qq -s 300 -o /tmp/calls -e trace={CHANGES} {COMMAND}"
    token = await add_person(database_url, "grace", is_staff=True, is_superuser=True)
    async with (
        open_gateway(instance) as gateway,
        httpx2.AsyncClient(base_url=gateway.url, timeout=30, headers={"Accept": "text/html"}) as grace,
    ):
        grace.headers["Authorization"] = f"Bearer {token}"
        path = await begin(grace)
        answer = (await grace.post(path, json=script(count=30, rate=100))).json()
        assert answer["status"] == "done"
        ids = {"conversation_id": path.split("/")[-2], "message_id": answer["id"]}
        signed_in = await grace.post("/login", data={"email": "grace@example.org", "password": PASSWORD})
        grace.headers["Cookie"] = signed_in.headers["set-cookie"].split(";")[0]
        for page in (*list_pages(ids), *ADMIN_PAGES):
            response = await grace.get(page)
            assert response.status_code in (200, 303), f"{page}: {response.status_code}"
        calls = read_calls(instance)
    assert any("base.html" in call for call in calls), "nothing was traced"
    assert [call for call in calls if not OPENED_TO_READ.search(call) and is_outside(call)] == []


def list_pages(ids: dict[str, str]) -> Iterator[str]:
    """The app's own list, so that a new page is in it. Once there is an admin, /recover and /setup are closed, and
    without a place for files nobody has a picture.
    """
    closed = ("/recover", "/setup", "/pictures/{picture_id}")
    for router in ROUTERS:
        for route in router.routes:
            assert isinstance(route, Route)
            if "GET" in (route.methods or ()) and route.path not in closed:
                yield route.path.format_map(ids)


def read_calls(instance: Instance) -> list[str]:
    """What strace wrote into the instance's own /tmp."""
    return Path(f"/proc/{instance.pid}/root/tmp/calls").read_text(errors="replace").splitlines()


def is_outside(call: str) -> bool:
    paths = PATH.findall(call)
    return bool(paths) and not all(ALLOWED.match(path) for path in paths)
