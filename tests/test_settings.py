"""Settings: every one is written down, and a wrong one stops the start with one sentence."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from app.settings import ROOT, Settings, find_key_fault

GOOD_KEY = "k3Jx9-vLq2Zr7_Tn5WbYc8Hd4Fs6GmPa1Ue0"


def start(**environment: str) -> subprocess.CompletedProcess[str]:
    """Read the settings and open the database as the app does, with nothing else in the environment."""
    kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT") if name in os.environ}
    program = (
        "from app.settings import Settings, load_settings; Settings.model_config['env_file'] = None;"
        "settings = load_settings(); from app.database import Database; Database(settings)"
    )
    command = [sys.executable, "-c", program]
    return subprocess.run(command, cwd=ROOT, env=kept | environment, capture_output=True, text=True, check=False)


def test_a_server_ends_with_the_same_code() -> None:
    environment = os.environ | {"ENVIRONMENT": "prod"}
    command = [sys.executable, "-m", "uvicorn", "app.main:app", "--port", "0"]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 78
    assert "Traceback" not in ended.stderr


def test_the_example_file_names_every_setting() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    named = [match[1].lower() for line in lines if (match := re.match(r"([A-Z0-9_]+)=", line))]
    assert sorted(named) == sorted(Settings.model_fields)


def test_the_example_file_is_a_working_env_file() -> None:
    settings = Settings(_env_file=ROOT / ".env.example")
    assert settings.model_dump(exclude={"database_url", "local_llm", "uploads"}) == Settings.model_construct(
        **{name: field.get_default(call_default_factory=True) for name, field in Settings.model_fields.items()}
    ).model_dump(exclude={"database_url", "local_llm", "uploads"})


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"ENVIRONMENT": "production"}, "generate_secret_key"),
        ({"ENVIRONMENT": "production", "SECRET_KEY": "a" * 50}, "too regular"),
        ({"ENVIRONMENT": "prod"}, "ENVIRONMENT"),
        ({"ALLOW_SIGNUP": "perhaps"}, "ALLOW_SIGNUP"),
        ({"SETUP_TOKEN": "hunter2"}, "SETUP_TOKEN is too short (7 characters; at least 32 are needed)"),
        ({"SETUP_TOKEN": "change-me-change-me-hunter2-change-me"}, "SETUP_TOKEN is a placeholder"),
        ({"RECOVERY_TOKEN": "hunter2" * 8}, "RECOVERY_TOKEN is too regular"),
        ({"SECRET_KEY": GOOD_KEY, "SETUP_TOKEN": GOOD_KEY}, "SETUP_TOKEN is the same as SECRET_KEY"),
        ({"SECRET_KEY": GOOD_KEY, "RECOVERY_TOKEN": GOOD_KEY}, "RECOVERY_TOKEN is the same as SECRET_KEY"),
        ({"SETUP_TOKEN": GOOD_KEY, "RECOVERY_TOKEN": GOOD_KEY}, "RECOVERY_TOKEN is the same as SETUP_TOKEN"),
        ({"DATABASE_URL": "mysql://root:hunter2@host/db"}, "DATABASE_URL"),
        ({"LLM_BASE_URL": "localhost:11434"}, "LLM_BASE_URL"),
        ({"LLM_BASE_URL": "http://"}, "no whole address"),
        ({"LLM_BASE_URL": "http://u:hunter2@host:99999/v1"}, "no whole address"),
        ({"ALLOWED_HOSTS": "example.org, http://a.example"}, "'http://a.example' is no host name"),
        ({"LLM_MAX_TOKENS": "many"}, "LLM_MAX_TOKENS: must be a whole number."),
        ({"DATABASE_POOL_SIZE": "0"}, "must be at least 1"),
        ({"UPLOADS": "gs://bucket"}, "UPLOADS: must be a folder, a bucket such as s3://name"),
        ({"UPLOADS": "s3://"}, "UPLOADS: must be"),
        ({"UPLOADS": "s3://bucket", "S3_ACCESS_KEY": "key"}, "Set S3_ACCESS_KEY and S3_SECRET_KEY, too."),
        ({"UPLOADS": "s3://bucket", "S3_SECRET_KEY": "hunter2"}, "Set S3_ACCESS_KEY and S3_SECRET_KEY, too."),
        ({"S3_ENDPOINT": "objects.example.org"}, "S3_ENDPOINT: must begin with http:// or https://"),
        ({"S3_ENDPOINT": "https://"}, "Write it like https://s3.example.org"),
        ({"LOCAL_LLM": "perhaps"}, "must be 'auto', 'on' or 'off'"),
    ],
)
def test_a_setting_that_cannot_work_stops_the_start_with_one_sentence(environment: dict[str, str], words: str) -> None:
    ended = start(**environment)
    assert ended.returncode == 78
    assert words in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1
    assert "hunter2" not in ended.stderr and GOOD_KEY not in ended.stderr


def test_a_file_in_another_encoding_is_a_sentence(tmp_path: Path) -> None:
    """What `>` writes in Windows PowerShell."""
    env = tmp_path / ".env"
    env.write_text("SITE_NAME=Ours\n", encoding="utf-16")
    program = f"from app.settings import *; Settings.model_config['env_file'] = {str(env)!r}; load_settings()"
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 78
    assert ended.stderr == ".env cannot be read. Save it as UTF-8, not as UTF-16 or the like.\n"


def test_words_are_read_in_capitals_too() -> None:
    assert Settings(environment="Development", local_llm="OFF").local_llm == "off"


@pytest.mark.parametrize(
    "key",
    ["", "short-but-random-9xK2", "a" * 64, "abcd" * 16, "0123456789abcdefghijklmnopqrstuvwxyz", "password" * 8,
     "insecure-development-key", "please-change-me-before-production-0", "your-secret-key-goes-here-1234567890"],
)  # fmt: skip
def test_a_guessable_key_is_refused(key: str) -> None:
    assert find_key_fault(key)


@pytest.mark.parametrize("key", [GOOD_KEY, "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"])
def test_a_random_key_is_good(key: str) -> None:
    assert find_key_fault(key) is None


def test_random_keys_of_every_usual_kind_are_good() -> None:
    import secrets

    for _ in range(300):
        for key in (secrets.token_urlsafe(32), secrets.token_hex(32), secrets.token_urlsafe(64)):
            assert find_key_fault(key) is None, key
