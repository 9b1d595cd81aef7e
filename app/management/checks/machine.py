"""What can be seen of the machine: its disks, its limits, its environment, its compiled code."""

import importlib.util
import os
import struct
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pydantic import SecretStr

from app.settings import ENV_FILE, ROOT, Settings

MOUNTS = Path("/proc/self/mounts")
FORGETFUL = {"tmpfs": "memory", "ramfs": "memory", "overlay": "a container's own layer", "aufs": "a container's layer"}
HAS_HASH, IS_CHECKED = 1, 2  # flags in a .pyc
PACKAGES = ("fastapi", "pydantic", "sqlalchemy", "starlette", "uvicorn")  # what takes longest to compile


def explain_loss(folder: Path) -> str:
    """Say why what is written here will be lost; empty where it stays, as far as can be seen."""
    if folder.is_relative_to(tempfile.gettempdir()):
        return "a temporary folder"
    return FORGETFUL.get(find_file_system(folder), "")


def find_file_system(folder: Path) -> str:
    """Give the kind of the file system that a folder lies in, such as ext4; empty where the system does not say."""
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    mounts = {Path(point.replace("\\040", " ")): kind for _, point, kind, *_ in map(str.split, lines)}
    return next((mounts[place] for place in (folder, *folder.parents) if place in mounts), "")


def is_writable(folder: Path) -> bool:
    """Nothing is written to see it. On a disk that is read-only nobody may, not even root."""
    return os.access(folder, os.W_OK)


def read_open_files() -> int | None:
    """Give how many files and connections a process may have open; None for as many as it likes."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return None
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if hard == resource.RLIM_INFINITY else hard


def measure_environment(settings: Settings) -> int:
    """Give the bytes of the settings that are set here, written as NAME=value: a host's form has to hold them."""
    return sum(len(f"{name}={write_value(getattr(settings, name))}\n".encode()) for name in settings.model_fields_set)


def write_value(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return ",".join(value) if isinstance(value, list) else str(value)


def count_uncompiled() -> int:
    """Count the modules that Python would have to compile at a start."""
    packages = Path(sysconfig.get_path("purelib"))
    folders = (ROOT / "app", ROOT / "migrations", *(packages / name for name in PACKAGES))
    return sum(not is_compiled(source) for folder in folders for source in list_modules(folder))


def list_modules(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*.py") if "tests" not in path.parts)


def is_compiled(source: Path) -> bool:
    """Whether Python would take the .pyc beside a module as it is. Source: PEP 552"""
    try:
        with Path(importlib.util.cache_from_source(source)).open("rb") as file:
            head = file.read(16)
    except OSError:
        return False
    return head[:4] == importlib.util.MAGIC_NUMBER and fits(head, source)


def fits(head: bytes, source: Path) -> bool:
    flags = int.from_bytes(head[4:8], "little")
    if flags & HAS_HASH:
        return not flags & IS_CHECKED or head[8:] == importlib.util.source_hash(source.read_bytes())
    facts = source.stat()
    return head[8:] == struct.pack("<II", int(facts.st_mtime) & 0xFFFFFFFF, facts.st_size & 0xFFFFFFFF)


def has_readable_secrets() -> bool:
    return ENV_FILE.exists() and bool(ENV_FILE.stat().st_mode & 0o077)
