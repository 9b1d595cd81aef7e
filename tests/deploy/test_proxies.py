"""The real proxies, with the files of `deploy/`, in front of the real app."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from tests.chat.reading import EVENTS, read_events
from tests.deploy.conftest import Start, find_port
from tests.deploy.files import read_text
from tests.faults.conftest import Client, StartWorker, Worker
from tests.provider import Provider
from tests.services import miss

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

StartProxy = Callable[[Worker], str]


def find_program(name: str) -> str:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin") or miss(f"{name} is not installed.")


@pytest.fixture(params=["caddy", "nginx"])
def start_proxy(request: pytest.FixtureRequest, start: Start, tmp_path: Path) -> StartProxy:
    return {"caddy": start_caddy, "nginx": start_nginx}[request.param](start, tmp_path)


def start_caddy(start: Start, folder: Path) -> StartProxy:
    program = find_program("caddy")

    def run(app: Worker) -> str:
        port = find_port()
        # A certificate of its own making, which this machine is not told to trust.
        options = "{\n\tadmin off\n\tskip_install_trust\n\tauto_https disable_redirects\n}\n"
        file = folder / "Caddyfile"
        file.write_text(options + read_text("deploy/Caddyfile"))
        home = {name: str(folder) for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME")}
        site = {"SITE": f"https://localhost:{port}", "UPSTREAM": app.url.removeprefix("http://")}
        command = [program, "run", "--config", str(file), "--adapter", "caddyfile"]
        start(command, folder, **home, **site).wait_for(f"https://localhost:{port}/healthz")
        return f"https://localhost:{port}"

    return run


def start_nginx(start: Start, folder: Path) -> StartProxy:
    program = find_program("nginx")

    def run(app: Worker) -> str:
        port = find_port()
        make_certificate(folder)
        site = read_text("deploy/nginx.conf")
        changes = {
            "listen 80": f"listen 127.0.0.1:{find_port()}",
            "listen 443": f"listen 127.0.0.1:{port}",
            "/etc/letsencrypt/live/chat.example.org": str(folder),
            "127.0.0.1:8000": app.url.removeprefix("http://"),
        }
        for old, new in changes.items():
            assert old in site
            site = site.replace(old, new)
        (folder / "site.conf").write_text(site)
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
        user = "user root;" if os.geteuid() == 0 else ""  # who may read this folder
        http = f"http {{ access_log off; {temporary} include {folder}/site.conf; }}"
        main = f"{user} daemon off; pid {folder}/pid; events {{}} {http}"
        (folder / "nginx.conf").write_text(main)
        command = [program, "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")]
        subprocess.run([*command, "-t"], check=True, capture_output=True)
        start(command, folder).wait_for(f"https://localhost:{port}/healthz")
        return f"https://localhost:{port}"

    return run


def make_certificate(folder: Path) -> None:
    names = ["-keyout", f"{folder}/privkey.pem", "-out", f"{folder}/fullchain.pem", "-subj", "/CN=localhost"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *names]
    subprocess.run(command, check=True, capture_output=True)


def visit(url: str, ada: Client | None = None) -> httpx2.AsyncClient:
    headers = {"Authorization": f"Bearer {ada.token}"} if ada else {}
    return httpx2.AsyncClient(base_url=url, headers=headers, verify=False, timeout=30)


async def test_an_answer_is_shown_while_it_is_being_written(
    start_proxy: StartProxy, start_worker: StartWorker, ada_anywhere: Client, provider: Provider
) -> None:
    url = start_proxy(start_worker())
    async with visit(url, ada_anywhere) as client:
        question = {"text": "SCRIPT: gate"}
        async with client.stream("POST", "/chat", data=question, headers=EVENTS) as response:
            assert response.status_code == 200
            shown = ""
            async for event in read_events(response):
                shown += json.dumps(event.data)
                if event.name == "patch" and "Hello" in shown:
                    provider.release()  # the model says the rest only now
            assert event.name == "done" and event.data["status"] == "done"
    assert "Ada." in shown


async def test_the_app_believes_the_proxy_and_not_its_client(
    start_proxy: StartProxy, start_worker: StartWorker, ada_anywhere: Client
) -> None:
    url = start_proxy(start_worker(ALLOWED_HOSTS="localhost", TRUSTED_PROXY_HOPS="1"))
    made_up = {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "http", "X-Forwarded-For": "192.0.2.1"}
    async with visit(url, ada_anywhere) as client:
        sent_on = await client.get("/admin", headers=made_up)
        assert sent_on.headers["location"].startswith(f"{url}/")
        assert "default-src 'none'" in sent_on.headers["content-security-policy"]
        assert "nginx/" not in sent_on.headers.get("server", "")
