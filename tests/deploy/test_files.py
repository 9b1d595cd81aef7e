"""What stands in the files that hosts read: commands, settings, ports and times are the ones that the app has."""

import fnmatch
import re
import shlex
from typing import Any

import pytest

from app.main import BODY_LENGTH
from app.management import COMMANDS
from app.management.server import DEFAULT_PORT, GRACE_SECONDS
from app.pages.health import HEALTH_PATHS
from app.settings import ROOT, Settings, find_key_fault
from tests.conftest import MakeSite
from tests.deploy.files import FILES, SERVICE, last, list_texts, read_dockerfile, read_file, read_text
from tests.test_words import GOOD_KEY, check_options

SECONDS_TO_END = 20  # what docs/deploy.md promises at the most, after SIGTERM
OTHER_VARIABLES = {"PORT", "PATH", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"}

each_file = pytest.mark.parametrize("name", FILES)


def list_commands(name: str) -> set[str]:
    texts = list_texts(read_file(name)) if name != "Dockerfile" else []
    steps = [step for stage in read_dockerfile().values() for step in stage if step.rest.startswith("[")]
    commands = [*texts, *(shlex.join(step.words) for step in steps if name == "Dockerfile")]
    return {found for text in commands for found in re.findall(r"oppman\.py ([^&|;]+)", text)}


@each_file
def test_every_command_is_one_of_ours(name: str) -> None:
    for command in list_commands(name):
        first, *rest = shlex.split(command)
        assert first in COMMANDS
        check_options(first, rest)


def test_commands_are_found_where_they_must_be() -> None:
    without = {"fly.toml", "render.yaml", "deploy/Caddyfile", "deploy/nginx.conf", "deploy/litestream.yml"}
    assert {name for name in FILES if list_commands(name)} == set(FILES) - without


def list_variables() -> dict[str, dict[str, str | None]]:
    """What each file puts into the app's environment; None where a person or the host gives the value."""
    render, ocean = read_file("render.yaml")["services"][0], read_file(".do/app.yaml")
    steps = [step for step in read_dockerfile()[""] if step.name == "ENV"]
    services = read_file("compose.yaml")["services"]
    return {
        "fly.toml": read_file("fly.toml")["env"],
        "render.yaml": {each["key"]: each.get("value") for each in render["envVars"]},
        ".do/app.yaml": {
            each["key"]: each.get("value") for part in (ocean, *ocean["services"]) for each in part["envs"]
        },
        "compose.yaml": services["web"]["environment"] | services["migrate"]["environment"],
        "Dockerfile": dict(word.split("=", 1) for step in steps for word in shlex.split(step.rest)),
        SERVICE: dict(word.split("=", 1) for word in read_file(SERVICE)["Service"]["Environment"].split()),
    }


@pytest.mark.parametrize("name", list_variables())
def test_every_variable_is_a_setting_whose_value_works(name: str) -> None:
    values = {key: value for key, value in list_variables()[name].items() if key not in OTHER_VARIABLES}
    assert {key for key in values if key.lower() not in Settings.model_fields} == set()
    Settings.model_validate({"secret_key": GOOD_KEY} | {key.lower(): value for key, value in values.items() if value})


@each_file
def test_no_file_holds_a_secret(name: str) -> None:
    for text in [*list_texts(read_file(name)), *re.findall(r"[^\s\"'=:]+", read_text(name))]:
        assert find_key_fault(text) or " " in text or "/" in text, text


HEALTH_KEYS = ("path", "http_path", "healthCheckPath", "healthcheckPath")


def list_health_paths(found: Any) -> set[str]:
    if isinstance(found, list):
        return {path for each in found for path in list_health_paths(each)}
    if not isinstance(found, dict):
        return set(re.findall(r"(/healthz|/readyz)\b", str(found)))
    paths = {value for key, value in found.items() if key in HEALTH_KEYS and str(value).startswith("/")}
    return paths.union(*(list_health_paths(value) for value in found.values()))


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["Dockerfile", "fly.toml", "railway.json", "render.yaml", ".do/app.yaml"])
async def test_a_host_finds_health_where_it_asks(name: str, make_site: MakeSite) -> None:
    paths = list_health_paths(read_file(name))
    assert paths and paths <= HEALTH_PATHS
    site = await make_site(environment="production", secret_key=GOOD_KEY, allowed_hosts=["chat.example.org"])
    visitor = await site.visitor(Host="healthcheck.example.com")
    for path in paths:
        assert (await visitor.get(path)).status_code == 200


def test_ports_are_the_ones_where_the_app_listens() -> None:
    leapcell, fly = read_file("leapcell.yaml"), read_file("fly.toml")
    assert leapcell["startCommand"].endswith(f" 0.0.0.0:{leapcell['port']}")
    assert str(fly["http_service"]["internal_port"]) == fly["env"]["PORT"]
    assert last(read_dockerfile()[""], "EXPOSE").rest == str(DEFAULT_PORT)
    assert [service["http_port"] for service in read_file(".do/app.yaml")["services"]] == [DEFAULT_PORT]
    assert read_file("compose.yaml")["services"]["proxy"]["environment"]["UPSTREAM"] == f"web:{DEFAULT_PORT}"
    assert f"{{$UPSTREAM:127.0.0.1:{DEFAULT_PORT}}}" in read_text("deploy/Caddyfile")
    assert f"server 127.0.0.1:{DEFAULT_PORT} " in read_text("deploy/nginx.conf")
    assert read_file(SERVICE)["Service"]["ExecStart"].endswith(f" 127.0.0.1:{DEFAULT_PORT}")


def test_who_ends_the_app_says_so_and_waits() -> None:
    fly, unit = read_file("fly.toml"), read_file(SERVICE)["Service"]
    assert fly["kill_signal"] == unit["KillSignal"] == "SIGTERM"
    waits = [
        fly["kill_timeout"],
        int(unit["TimeoutStopSec"]),
        read_file("railway.json")["deploy"]["drainingSeconds"],
        read_file(".do/app.yaml")["services"][0]["termination"]["grace_period_seconds"],
        int(read_file("compose.yaml")["services"]["web"]["stop_grace_period"].removesuffix("s")),
    ]
    assert min(waits) > SECONDS_TO_END > GRACE_SECONDS["production"]
    assert unit["RestartPreventExitStatus"] == "78"


def test_railway_is_given_numbers() -> None:
    """It refuses the strings that its own documentation shows."""
    deploy = read_file("railway.json")["deploy"]
    assert all(isinstance(deploy[key], int) for key in deploy if key.endswith(("Seconds", "Timeout", "Retries")))


def test_a_volume_has_one_machine_and_no_release_command() -> None:
    fly = read_file("fly.toml")
    (mount,) = fly["mounts"]
    assert fly["env"]["DATABASE_URL"].startswith(f"sqlite:///{mount['destination']}/")
    assert "deploy" not in fly and "services" not in fly and fly["env"]["MIGRATE_ON_START"] == "true"
    assert fly["build"]["build-target"] in read_dockerfile()


def test_what_is_free_asks_for_nothing_that_is_paid() -> None:
    blueprint = read_file("render.yaml")
    assert {each["plan"] for each in (*blueprint["services"], *blueprint["databases"])} == {"free"}
    assert not {"preDeployCommand", "maxShutdownDelaySeconds", "disk"} & set(blueprint["services"][0])


# --- The image -----------------------------------------------------------------------------------------------------


def test_the_image_runs_as_nobody_in_particular_and_hears_its_signals() -> None:
    steps = read_dockerfile()[""]
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", last(steps, "USER").rest)
    assert last(steps, "CMD").words == ["python", "oppman.py", "runserver"]
    assert "ENTRYPOINT" not in [step.name for step in steps]
    assert last(steps, "HEALTHCHECK").rest.split("CMD ")[1].startswith('["python",')


def test_every_stage_has_the_same_python() -> None:
    bases = set(re.findall(r"^FROM (python:\S+)", read_text("Dockerfile"), re.MULTILINE))
    assert len(bases) == 1


def test_nothing_private_gets_into_the_image() -> None:
    first, *rules = [line for line in read_file(".dockerignore") if line]
    assert first == "*"
    taken = [rule.removeprefix("!") for rule in rules if rule.startswith("!")]
    assert all((ROOT / name).exists() for name in taken)
    never = [rule.removeprefix("**/") for rule in rules if rule.startswith("**/")]
    assert len(taken) + len(never) == len(rules)
    for private in (".env", ".env.production", "db.sqlite3", "db.sqlite3-wal", "__pycache__"):
        assert private not in taken and any(fnmatch.fnmatch(private, pattern) for pattern in never)
    assert not {".git", "tests", "data", "deploy"} & set(taken)


def test_what_runs_on_a_read_only_disk_is_compiled_before() -> None:
    compiling = "python oppman.py compileall"
    assert read_file("leapcell.yaml")["buildCommand"].endswith(f"&& {compiling}")
    commands = [shlex.join(step.words) for step in read_dockerfile()[""] if step.name == "RUN"]
    assert commands[-1] == compiling


# --- One machine ----------------------------------------------------------------------------------------------------


def test_compose_waits_for_the_database_and_migrates_once() -> None:
    services = read_file("compose.yaml")["services"]
    assert services["migrate"]["depends_on"] == {"db": {"condition": "service_healthy"}}
    assert services["web"]["depends_on"] == {"migrate": {"condition": "service_completed_successfully"}}
    assert services["web"]["deploy"]["replicas"] == 2
    for service in (services["web"], services["migrate"]):
        assert service["read_only"] and service["tmpfs"] == "/tmp" and service["cap_drop"] == ["ALL"]
    assert "MIGRATE_ON_START" not in services["web"]["environment"]


def test_nginx_leaves_it_to_the_app_what_is_too_much() -> None:
    (megabytes,) = re.findall(r"client_max_body_size (\d+)m;", read_text("deploy/nginx.conf"))
    assert int(megabytes) * 1_000_000 > BODY_LENGTH


def test_nginx_waits_as_long_as_an_answer_may_take() -> None:
    seconds = Settings.model_fields["llm_answer_timeout"].default
    assert f"proxy_read_timeout {seconds}s;" in read_text("deploy/nginx.conf")
