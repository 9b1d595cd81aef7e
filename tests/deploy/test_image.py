"""The Dockerfile's own lines, run in a copy of this machine's disk; then its command, on that disk made read-only."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from app.settings import ROOT
from tests.deploy.conftest import Start, copy_project, find_port
from tests.deploy.files import Step, last, read_dockerfile
from tests.services import miss
from tests.test_words import GOOD_KEY

pytestmark = pytest.mark.slow

USER = last(read_dockerfile()[""], "USER").rest
# The machine's own uv and its cache are taken: what is tried is what is done with them.
NOT_HERE = {"UV_NO_CACHE"}


class Build:
    """A script that lays a writable layer over the disk, in a mount namespace of its own, and does the steps there."""

    def __init__(self, disk: Path, context: Path) -> None:
        self.root, self.context, self.folder = disk / "merged", context, "/"
        self.variables = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
        layers = [disk / name for name in ("upper", "work")]
        for folder in (self.root, *layers):
            folder.mkdir()
        upper, work = layers
        self.lines = [
            "set -eu",
            "mount --make-rprivate /",
            f"mount -t overlay overlay -o lowerdir=/,upperdir={upper},workdir={work} {self.root}",
            f"mount --rbind /dev {self.root}/dev",
            f"mount -t proc proc {self.root}/proc",
            f"mkdir -p {self.root}/data",
        ]
        for parent in Path(os.path.realpath(sys.executable)).parents:
            self.lines.append(f"chmod a+rx {self.root}{parent}")  # so that any user may run this Python

    def do(self, step: Step) -> None:
        match step.name:
            case "ENV":
                for word in shlex.split(step.rest):
                    name, _, value = word.partition("=")
                    if name not in NOT_HERE:
                        self.variables[name] = value.replace("$PATH", self.variables["PATH"])
            case "WORKDIR":
                self.folder = step.rest
                self.lines.append(f"mkdir -p {self.root}{step.rest}")
            case "COPY":
                self.copy(*step.rest.split())
            case "RUN" if step.words[:2] != ["pip", "install"]:
                self.lines.append(self.enter(step.words))

    def copy(self, *words: str) -> None:
        *sources, target = words
        if sources[0] == "--from=build":
            assert sources[1:] == [target]  # and there it is
        else:
            paths = shlex.join(f"{self.context}/{source}" for source in sources)
            self.lines.append(f"cp --recursive {paths} {self.root}{self.folder}/{target}")

    def enter(self, words: list[str], user: str = "") -> str:
        who = ["--userspec", user] if user else []
        given = [f"{name}={value}" for name, value in self.variables.items()]
        here = ["sh", "-c", f'cd {self.folder} && exec "$@"', "sh", *words]
        return shlex.join(["chroot", *who, str(self.root), "env", *given, *here])


def make_build(disk: Path, context: Path, stage: str) -> Build:
    build, stages = Build(disk, context), read_dockerfile()
    for step in stages["build"]:
        build.do(step)
    build.variables = {name: value for name, value in build.variables.items() if name in ("PATH", "LANG")}
    for step in stages[stage]:
        build.do(step)
    return build


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: mount namespaces and overlays")
@pytest.mark.parametrize("stage", ["", "volume"], ids=["app", "volume"])
def test_the_image_serves_as_its_user_on_a_read_only_disk(stage: str, start: Start, disk: Path, tmp_path: Path) -> None:
    if os.geteuid():
        miss("Only root can mount.")
    port, steps = find_port(), read_dockerfile()[stage]
    build = make_build(disk, copy_project(tmp_path / "context"), stage)
    build.variables |= {
        "DATABASE_URL": "sqlite:////data/db.sqlite3", "SECRET_KEY": GOOD_KEY, "PORT": str(port), "HOME": "/",
    }  # fmt: skip
    owner = "uid=10001,gid=10001" if stage == "" else "uid=0,gid=0"
    entry = [word for step in steps if step.name == "ENTRYPOINT" for word in step.words]
    user = last(steps, "USER").rest
    build.lines += [
        f"mount -o remount,ro {build.root}",
        f"mount -t tmpfs tmpfs {build.root}/tmp",
        f"mount -t tmpfs -o {owner},mode=755 tmpfs {build.root}/data",
        f"! touch {build.root}/app/written {build.root}/venv/written",
        build.enter([*entry, "python", "oppman.py", "migrate"], user),
        "exec " + build.enter([*entry, *last(steps, "CMD").words], user),
    ]
    kept = {name: value for name, value in os.environ.items() if name.startswith(("UV_", "SSL_"))}
    app = start(["unshare", "--mount", "sh", "-c", "\n".join(build.lines)], ROOT, **kept)
    app.wait_for(f"http://127.0.0.1:{port}/readyz")
    status = Path(f"/proc/{app.process.pid}/status").read_text()
    assert [line.split()[1:] for line in status.splitlines() if line.startswith(("Uid:", "Gid:"))] == [
        ["10001"] * 4
    ] * 2

    check = Step("CMD", last(steps, "HEALTHCHECK").rest.split("CMD ", 1)[1]).words
    is_well = [sys.executable, *check[1:]]
    assert subprocess.run(is_well, env={"PORT": str(port)}, check=False).returncode == 0
    assert subprocess.run(is_well, env={"PORT": "1"}, check=False, capture_output=True).returncode != 0

    compiled = [*disk.glob("upper/app/app/**/*.pyc"), *disk.glob("upper/venv/lib/*/site-packages/fastapi/*.pyc")]
    compiled += disk.glob("upper/venv/lib/*/site-packages/fastapi/__pycache__/*.pyc")
    assert len(compiled) > len(list((ROOT / "app").rglob("*.py"))) > 0
    assert {path.read_bytes()[4] & 1 for path in compiled} == {1}  # by hash: dates change when an image is copied
    assert httpx2.get(f"http://127.0.0.1:{port}/login").status_code == 200
    assert app.end() == 0
