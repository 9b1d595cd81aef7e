"""Commands about the project itself: its version, its settings, its tests."""

import re
import secrets as random
import tomllib
from pathlib import Path

from app.management.commands import NOINPUT, PASSED_ON, CommandError, command
from app.management.console import console

ROOT = Path(__file__).resolve().parent.parent.parent
MASK = "********"


@command()
def version() -> None:
    """Print the version."""
    print(read_version())


def read_version() -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return str(project["version"])


@command()
def generate_secret_key() -> None:
    """Print a new SECRET_KEY. It goes into .env, or into the environment of the host."""
    print(make_secret_key())


secrets = generate_secret_key


@command()
def compileall() -> None:
    """Write the bytecode of the app, its libraries and, where it has none, Python: a read-only disk never gets it.

    It is compared with the code by its hash. By its date, as usual, all would count as old once an image is copied.
    """
    import os
    from compileall import compile_dir
    from importlib.util import cache_from_source
    from py_compile import PycInvalidationMode
    from sysconfig import get_path

    folders = [ROOT / "app", ROOT / "migrations", Path(get_path("purelib"))]
    if not Path(cache_from_source(os.__file__)).exists():  # some containers leave it out
        folders.append(Path(get_path("stdlib")))
    mode = PycInvalidationMode.CHECKED_HASH
    for folder in folders:
        console.say(f"Compiling {folder}")
        compile_dir(folder, maxlevels=20, force=True, quiet=2, workers=0, invalidation_mode=mode)


def make_secret_key() -> str:
    return random.token_urlsafe(48)


@command()
def showsettings() -> None:
    """Print every setting as the app reads it. Secrets are masked, and so are passwords in addresses."""
    from pydantic import SecretStr

    from app.database_url import mask
    from app.settings import load_settings

    settings = load_settings()
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if name == "database_url":
            value = mask(value.get_secret_value())
        elif isinstance(value, SecretStr):
            value = MASK if value.get_secret_value() else ""
        elif isinstance(value, list):
            value = ",".join(value)
        elif isinstance(value, str):
            value = mask_address(value)
        note = "" if name in settings.model_fields_set else "  # default"
        print(f"{name.upper()}={'' if value is None else value}{note}")


def mask_address(address: str) -> str:
    """Hide the password before the host and whatever follows a question mark."""
    without_query = re.sub(r"(://.*?)\?.*", r"\1?…", address)
    return re.sub(r"(://[^:/@]*:).*@", rf"\1{MASK}@", without_query)


@command(PASSED_ON)
def test(arguments: list[str]) -> None:
    """Run the tests; all arguments go to pytest."""
    import subprocess
    import sys
    from importlib.util import find_spec

    if find_spec("pytest") is None:
        raise CommandError("pytest is not installed here. Type: uv sync")
    raise SystemExit(subprocess.call([sys.executable, "-m", "pytest", *arguments], cwd=ROOT))  # noqa: S603


@command(NOINPUT)
def collectstatic(*, noinput: bool = False) -> None:
    """Static files are served from static/ as they are, so there is nothing to do."""
    console.say("0 static files copied: they are served from static/ as they are.")
