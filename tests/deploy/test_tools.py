"""What the programs that read the files say of them."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from app.settings import ROOT, find_key_fault
from tests.deploy.files import SERVICE, read_text
from tests.services import miss
from tests.test_words import list_blocks

pytestmark = pytest.mark.slow

MOST_EXPOSURE = 20  # tenths; systemd calls less than 2.0 «OK», and a unit without any of the lines has 9.6


def find_tool(name: str) -> str:
    beside = str(Path(sys.executable).parent)
    return shutil.which(name, path=beside) or shutil.which(name) or miss(f"{name} is missing: uv sync --all-groups")


def run(*words: str, folder: Path = ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), **variables}
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_the_linter_finds_nothing_in_the_dockerfile() -> None:
    found = run(find_tool("hadolint"), "--failure-threshold", "style", "Dockerfile")
    assert (found.returncode, found.stdout) == (0, "")


def read_composed(folder: Path) -> subprocess.CompletedProcess[str]:
    shutil.copy(ROOT / "compose.yaml", folder)
    return run(find_tool("docker-compose"), "config", "--format", "json", folder=folder)


@pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")
def test_compose_takes_what_the_page_writes_into_the_env_file(tmp_path: Path) -> None:
    (write_env,) = [block for block in list_blocks(read_text("docs/deploy/docker.md"), "sh") if "<<END" in block]
    assert run("sh", "-euc", write_env.replace("docker compose up", "true"), folder=tmp_path).returncode == 0
    composed = read_composed(tmp_path)
    assert (composed.returncode, composed.stderr) == (0, "")
    services = json.loads(composed.stdout)["services"]
    web, database = services["web"]["environment"], services["db"]["environment"]
    assert (
        f":{database['POSTGRES_PASSWORD']}@db/"
        in web["DATABASE_URL"]
        == services["migrate"]["environment"]["DATABASE_URL"]
    )
    assert not any(find_key_fault(web[name]) for name in ("SECRET_KEY", "SETUP_TOKEN"))
    assert web["ENVIRONMENT"] == "production" and services["proxy"]["environment"]["SITE"] == web["ALLOWED_HOSTS"]
    assert services["web"]["deploy"]["replicas"] == 2 and "ports" not in services["web"]


def test_compose_without_a_password_says_where_to_read(tmp_path: Path) -> None:
    (tmp_path / ".env").touch()
    composed = read_composed(tmp_path)
    assert composed.returncode != 0 and "docs/deploy/docker.md" in composed.stderr


def test_systemd_understands_the_unit_and_finds_it_closed(tmp_path: Path) -> None:
    analyze = find_tool("systemd-analyze")
    unit = tmp_path / "oppkit.service"
    unit.write_text(read_text(SERVICE).replace("/srv/oppkit/.venv/bin/python", sys.executable))
    verified = run(analyze, "verify", str(unit))
    assert (verified.returncode, verified.stderr) == (0, "")
    security = run(analyze, "security", "--offline=yes", f"--threshold={MOST_EXPOSURE}", str(unit))
    assert security.returncode == 0, re.findall(".*✗.*", security.stdout)


def test_caddy_finds_its_file_valid_and_well_formed() -> None:
    caddy = find_tool("caddy")
    valid = run(caddy, "validate", "--config", "deploy/Caddyfile", "--adapter", "caddyfile", SITE="chat.example.org")
    assert valid.returncode == 0 and "not formatted" not in valid.stderr, valid.stderr
