"""The files that hosts read, and what can be read out of them."""

import json
import re
import tomllib
from collections.abc import Iterator
from configparser import ConfigParser
from typing import Any, NamedTuple

import yaml

from app.settings import ROOT

SERVICE = "deploy/systemd/oppkit.service"
FILES = (
    "leapcell.yaml", "Dockerfile", "compose.yaml", "fly.toml", "railway.json", "render.yaml", ".do/app.yaml",
    "deploy/Caddyfile", "deploy/nginx.conf", "deploy/litestream.yml", SERVICE,
)  # fmt: skip


def read_text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def read_file(name: str) -> Any:
    """Parse a file by its kind. Where none fits, it is read line by line."""
    text = read_text(name)
    match name.rpartition(".")[2]:
        case "yaml" | "yml":
            return yaml.safe_load(text)
        case "toml":
            return tomllib.loads(text)
        case "json":
            return json.loads(text)
        case "service":
            return read_unit(text)
    return re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).splitlines()


def read_unit(text: str) -> dict[str, dict[str, str]]:
    parser = ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(text)
    return {section: dict(parser[section]) for section in parser.sections()}


def list_texts(found: Any) -> Iterator[str]:
    """Every text in a document; a list of words is a command, and so one text, too."""
    if isinstance(found, dict):
        for value in found.values():
            yield from list_texts(value)
    elif isinstance(found, list):
        if found and all(isinstance(word, str) and " " not in word for word in found):
            yield " ".join(found)
        for value in found:
            yield from list_texts(value)
    elif isinstance(found, str):
        yield found


class Step(NamedTuple):
    """A line of the Dockerfile."""

    name: str
    rest: str

    @property
    def words(self) -> list[str]:
        """A command in its exec form: no shell stands between it and its signals."""
        words: list[str] = json.loads(self.rest)
        return words


def read_dockerfile() -> dict[str, list[Step]]:
    """The steps of each stage. One that builds on another begins with the other's steps."""
    text = re.sub(r"^#.*\n", "", read_text("Dockerfile"), flags=re.MULTILINE).replace("\\\n", "")
    stages: dict[str, list[Step]] = {}
    for line in filter(None, text.splitlines()):
        step = Step(*line.split(None, 1))
        if step.name == "FROM":
            base, *name = step.rest.split(" AS ")
            steps = stages.setdefault(name[0] if name else "", [*stages.get(base, [step])])
        else:
            steps.append(step)
    return stages


def last(steps: list[Step], name: str) -> Step:
    return next(step for step in reversed(steps) if step.name == name)
