"""What each file tells its host to run starts the app, migrates its database, and ends when it is told to."""

import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx2
import pytest

from app.settings import ROOT
from tests.conftest import PASSWORD
from tests.deploy.conftest import Start, copy_project, find_port
from tests.deploy.files import SERVICE, last, read_dockerfile, read_file, read_text
from tests.postgres import Server, postgres_databases
from tests.provider import Provider
from tests.test_words import GOOD_KEY, list_blocks

pytestmark = pytest.mark.slow

IMAGE = shlex.join(last(read_dockerfile()[""], "CMD").words)


class Deployment(NamedTuple):
    start: str
    health: str
    before: tuple[str, ...] = ()
    variables: dict[str, str] = {}  # noqa: RUF012 (nobody writes into it)


def read_deployments() -> dict[str, Deployment]:
    leapcell, railway, compose = (
        read_file("leapcell.yaml"),
        read_file("railway.json")["deploy"],
        read_file("compose.yaml"),
    )
    fly, render, ocean = read_file("fly.toml"), read_file("render.yaml")["services"][0], read_file(".do/app.yaml")
    (check,), (web,), (job,) = fly["http_service"]["checks"], ocean["services"], ocean["jobs"]
    lines = list_blocks(read_text("docs/deploy/leapcell.md"), "ini")[0].splitlines()
    given = [(each["key"], each["value"]) for each in render["envVars"] if "value" in each]
    migrate = shlex.join(compose["services"]["migrate"]["command"])
    return {
        "leapcell": Deployment(
            leapcell["startCommand"], "/kaithhealth", (), dict(line.split("=", 1) for line in lines if line[0] != "#")
        ),
        "fly": Deployment(IMAGE, check["path"], (), fly["env"]),
        "railway": Deployment(IMAGE, railway["healthcheckPath"], tuple(railway["preDeployCommand"])),
        "render": Deployment(IMAGE, render["healthCheckPath"], (), dict(given)),
        "digitalocean": Deployment(IMAGE, web["health_check"]["http_path"], (job["run_command"],)),
        "compose": Deployment(IMAGE, "/healthz", (migrate,)),
        "server": Deployment(read_file(SERVICE)["Service"]["ExecStart"], "/healthz", ("python oppman.py migrate",)),
    }


@pytest.fixture(scope="module")
def postgres() -> Iterator[Server]:
    with postgres_databases() as server:
        yield server


@pytest.mark.parametrize("host", read_deployments())
def test_the_app_starts_as_the_host_starts_it(
    host: str, start: Start, postgres: Server, tmp_path: Path, disk: Path
) -> None:
    deployment = read_deployments()[host]
    folder = copy_project(tmp_path / "project")
    port = str(find_port())
    url = deployment.variables.get("DATABASE_URL", "")
    url = url.replace("/data/", f"{disk}/") if url.startswith("sqlite:") else postgres.copy_template()
    variables = {**deployment.variables, "ENVIRONMENT": "production", "SECRET_KEY": GOOD_KEY, "DATABASE_URL": url}
    for command in deployment.before:
        assert start(command, folder, **variables).process.wait(60) == 0
    command = deployment.start.replace(":8080", f":{port}").replace(":8000", f":{port}")
    app = start(command.replace("/srv/oppkit/.venv/bin/", ""), folder, **variables | {"PORT": port})
    app.wait_for(f"http://127.0.0.1:{port}{deployment.health}")
    app.wait_for(f"http://127.0.0.1:{port}/readyz")  # so the migrations have been done, in one way or the other
    assert app.end() == 0


def test_the_free_hosts_variables_fit_into_three_kilobytes() -> None:
    (lines, *_) = list_blocks(read_text("docs/deploy/leapcell.md"), "ini")
    assert len(lines) + 600 < 3072  # real keys and addresses are longer than those in the page


def test_the_free_host_leads_from_its_variables_to_the_first_chat(
    start: Start, postgres: Server, provider: Provider, tmp_path: Path
) -> None:
    """What docs/deploy/leapcell.md says in its third part, behind a proxy that speaks HTTPS."""
    deployment, port = read_deployments()["leapcell"], find_port()
    secrets = {"SECRET_KEY": GOOD_KEY, "SETUP_TOKEN": GOOD_KEY[::-1], "DATABASE_URL": postgres.copy_template()}
    model = {"OPENROUTER_API_KEY": "", "LLM_BASE_URL": f"{provider.url}/v1", "LLM_MODEL": provider.model_name}
    app = start(deployment.start.replace("8080", str(port)), ROOT, **deployment.variables | secrets | model)
    app.wait_for(f"http://127.0.0.1:{port}{deployment.health}")
    told = {"Host": "name.leapcell.dev", "X-Forwarded-Proto": "https", "X-Forwarded-For": "198.51.100.7"}
    headers = {**told, "Accept": "text/html", "Sec-Fetch-Site": "same-origin"}
    with httpx2.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, verify=False, timeout=30) as browser:
        admin = {"token": secrets["SETUP_TOKEN"], "name": "Grace", "email": "grace@example.org", "password": PASSWORD}
        made = browser.post("/setup", data=admin)
        assert (made.status_code, made.headers["location"]) == (303, "/chat")
        assert browser.get("/setup").status_code == 404
        # The cookie is for HTTPS alone, and the proxy that speaks it is played here.
        browser.headers["Cookie"] = made.headers["set-cookie"].split(";")[0]
        asked = browser.post("/chat", data={"text": "Who is Ada?"})
        assert asked.status_code == 303
        until = time.monotonic() + 20
        while "Hello Ada." not in browser.get(asked.headers["location"]).text:
            assert time.monotonic() < until
            time.sleep(0.1)
    assert app.end() == 0
