"""Starts what is measured: in processes of its own, on a database of its own; whatever happens, it ends them."""

import os
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

ROOT = Path(__file__).resolve().parent.parent
SECONDS_TO_END = 5
SECONDS_OF_SILENCE = 60
EMAIL, PASSWORD = "grace@example.org", "correct horse 1843"
FORM = "application/x-www-form-urlencoded"


class Server(NamedTuple):
    process: subprocess.Popen[str]
    port: int

    @property
    def cpu(self) -> float:
        return cpu_seconds(self.process.pid)

    @property
    def memory(self) -> float:
        """Resident, in MB."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 1_000_000


class Response(NamedTuple):
    status: int
    headers: str
    body: bytes
    received: bytes  # all that came, with headers and chunk sizes, as the network carries it
    cpu: list[tuple[int, float]]  # after so many bytes the server had used so many seconds
    first_byte: float  # seconds until it came
    seconds: float  # until the last one


@contextmanager
def laboratory(seconds: int) -> Iterator[Path]:
    """Give a folder for a while. When the time is over, or somebody ends us, the `with` blocks clean up."""
    for signum in (signal.SIGALRM, signal.SIGTERM):
        signal.signal(signum, lambda signum, _: sys.exit(f"Ended by {signal.Signals(signum).name}."))
    signal.alarm(seconds)
    with tempfile.TemporaryDirectory(prefix="oppkit-benchmark-") as folder:
        yield Path(folder)


def environment(folder: Path, **settings: str) -> dict[str, str]:
    """The app as on a user's machine: nothing of a developer's .env, and bytecode that is written once and kept."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | {
        "PYTHONPYCACHEPREFIX": str(folder / "bytecode"),
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "ENVIRONMENT": "development",
        "DATABASE_URL": f"sqlite:///{folder / 'benchmark.sqlite3'}",
        "LOCAL_LLM": "off",
        **settings,
    }


def prepare_site(env: dict[str, str]) -> None:
    """Make the tables and somebody who can sign in."""
    oppman = [sys.executable, "oppman.py"]
    add = {"OPPMAN_SUPERUSER_PASSWORD": PASSWORD}
    run([*oppman, "migrate", "--verbosity", "0"], env)
    run([*oppman, "createsuperuser", "--noinput", "--email", EMAIL], env | add)


def run(command: Sequence[str], env: dict[str, str], folder: Path = ROOT) -> str:
    done = subprocess.run(command, env=env, cwd=folder, text=True, capture_output=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    return done.stdout


@contextmanager
def serve(command: Sequence[str], env: dict[str, str], launcher: Sequence[str] = ()) -> Iterator[Server]:
    """Run a server that prints its address, and end it with everything that it has started."""
    process = subprocess.Popen(
        [*launcher, sys.executable, *command],
        cwd=ROOT,
        env=env,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        assert process.stdout
        address = next((found for line in process.stdout if (found := re.search(r"http://[\w.]+:(\d+)", line))), None)
        if address is None:
            sys.exit(f"{' '.join(command)} did not start.")
        yield Server(process, int(address[1]))
    finally:
        end(process)


def end(process: subprocess.Popen[str]) -> None:
    """End a process and its children, which share its group."""
    for signum in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, signum)
            process.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            continue
        except ProcessLookupError:
            break
    process.communicate()


@contextmanager
def serve_model(folder: Path) -> Iterator[tuple[Server, dict[str, str]]]:
    """A model that says what it is asked to say, and the settings with which an app finds it."""
    with serve(["benchmarks/model.py"], environment(folder)) as model:
        yield model, {"LLM_BASE_URL": f"http://127.0.0.1:{model.port}/v1", "LLM_MODEL": "scripted"}


@contextmanager
def serve_bare(folder: Path, llm: dict[str, str]) -> Iterator[Server]:
    """The app that only passes answers on."""
    with serve(["benchmarks/bare.py", llm["LLM_BASE_URL"].removesuffix("/v1")], environment(folder)) as server:
        yield server


@contextmanager
def serve_app(env: dict[str, str], *flags: str, launcher: Sequence[str] = ()) -> Iterator[Server]:
    with serve(["oppman.py", "runserver", *flags, "127.0.0.1:0"], env, launcher) as server:
        yield server


def sign_in(server: Server) -> str:
    """Give the cookie of a session, which holds on every server of the same database."""
    form = urlencode({"email": EMAIL, "password": PASSWORD}).encode()
    response = ask(server, "POST", "/login", form, {"Content-Type": FORM})
    cookie = re.search(r"(?im)^set-cookie: ([^;]+)", response.headers)
    assert response.status == 303 and cookie, f"The sign-in answered {response.status}."
    return cookie[1]


def ask(server: Server, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Response:
    """Speak HTTP over a bare socket: this reads while the app is measured on the same cores, so it must cost little."""
    fixed = {"Host": f"127.0.0.1:{server.port}", "Connection": "close", "Content-Length": str(len(body))}
    lines = "".join(f"{name}: {value}\r\n" for name, value in (fixed | (headers or {})).items())
    received, cpu, before, begin = bytearray(), [], server.cpu, time.monotonic()
    first_byte = 0.0
    with socket.create_connection(("127.0.0.1", server.port), timeout=SECONDS_OF_SILENCE) as connection:
        connection.sendall(f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + body)
        while data := connection.recv(65536):
            first_byte = first_byte or time.monotonic() - begin
            received += data
            cpu.append((len(received), server.cpu - before))
    seconds = time.monotonic() - begin
    head, _, content = bytes(received).partition(b"\r\n\r\n")
    text = head.decode("latin1")
    is_chunked = "transfer-encoding: chunked" in text.lower()
    whole = join_chunks(content) if is_chunked else content
    return Response(int(text.split()[1]), text, whole, bytes(received), cpu, first_byte, seconds)


def join_chunks(content: bytes) -> bytes:
    pieces, position = [], 0
    while size := int(content[position : (start := content.index(b"\r\n", position) + 2) - 2], 16):
        pieces.append(content[start : start + size])
        position = start + size + 2
    return b"".join(pieces)


def cpu_seconds(pid: int) -> float:
    """Processor time of another process and all its threads; the number is as in clock_getcpuclockid(3), of Linux."""
    return time.clock_gettime((~pid << 3) | 2)


def print_table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Markdown: the first column is a name, the others are figures."""
    print(f"\n| {' | '.join(headings)} |")
    print(f"|---|{'--:|' * (len(headings) - 1)}")
    for row in rows:
        print(f"| {' | '.join(str(cell) for cell in row)} |")
    print(flush=True)


def note(words: str) -> None:
    """Tell who waits how far it is, apart from the tables."""
    print(words, file=sys.stderr, flush=True)


def describe_machine() -> str:
    load, cores = os.getloadavg()[0], os.cpu_count()
    return f"Python {sys.version.split()[0]}, {cores} cores, load {load:.1f} when it began."
