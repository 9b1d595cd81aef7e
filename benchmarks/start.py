"""What a start costs: processor time, waiting, memory, and where the imports spend it; the help against Django's.

    uv run benchmarks/start.py          about two minutes

Every figure is the lowest of several runs, with bytecode that an earlier run has written (into a folder of its own,
so that it counts although PYTHONDONTWRITEBYTECODE may be set). The first start after an installation compiles, too;
it is shown apart. Django comes from the package index into a throw-away environment.
"""

import os
import re
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from servers import (
    ROOT,
    Server,
    ask,
    cpu_seconds,
    describe_machine,
    environment,
    laboratory,
    note,
    prepare_site,
    print_table,
    run,
    serve,
    serve_app,
    sign_in,
)

sys.path.append(str(ROOT))
from tests.hosts.groups import Group

REPEATS = 5
SECONDS = 400  # after which something is broken
SECONDS_OF_REST = 2
CHATS = 200
SHOWN_PACKAGES = 14
SLICES = ((512, 28), (256, 14.1))  # MB, and the percentage of a core that comes with them
JOIN = 'while [ "$1" != -- ]; do echo $$ > "$1"; shift; done; shift; exec "$@"'
# As runserver imports: without looking for garbage meanwhile. Nor does tidying up at the end belong to a start.
IMPORT = "import gc, os; gc.disable(); import {}; os._exit(0)"
APP = [sys.executable, "-c", IMPORT.format("app.main")]
LIBRARIES = [sys.executable, "-c", IMPORT.format("fastapi, fastapi_users, sqlmodel")]
OPPMAN = [sys.executable, "oppman.py"]
NORELOAD = "--noreload"


class Time(NamedTuple):
    """In seconds."""

    cpu: float
    wall: float


def main(folder: Path) -> None:
    print(describe_machine())
    with serve(["benchmarks/model.py"], environment(folder)) as model:
        env = environment(folder, LLM_BASE_URL=f"http://127.0.0.1:{model.port}/v1", LLM_MODEL="scripted")
        first = time_command(APP, env)
        prepare_site(env)
        with serve_app(env, "--noreload") as server:
            headers = {"Cookie": sign_in(server), "Accept": "text/html"}
        compare_starts(env, headers, first)
        show_small_hosts(env)
        show_memory(env, headers)
    compare_help(env, folder)
    show_imports(env)


def compare_starts(env: dict[str, str], headers: dict[str, str], first: Time) -> None:
    best = take_turns(
        {
            "the libraries alone: `import fastapi, fastapi_users, sqlmodel`": lambda: time_command(LIBRARIES, env),
            "`import app.main`": lambda: time_command(APP, env),
            "`runserver --noreload` to the first 200 of `/healthz`": lambda: time_start(env, "/healthz", {}, NORELOAD),
            "`runserver --noreload` to `/chat`, signed in": lambda: time_start(env, "/chat", headers, NORELOAD),
            "`runserver`, which reloads, to `/chat`": lambda: time_start(env, "/chat", headers),
            "what `uv run` adds before": lambda: time_command(["uv", "run", "true"], env),
        }
    )
    best["`import app.main`, the first time ever"] = first
    libraries = next(iter(best.values()))
    rows = [[name, *show(one), f"{one.cpu / libraries.cpu:.2f}"] for name, one in best.items()]
    print_table(["start", "CPU s", "wall s", "CPU / libraries"], rows)


def take_turns(measures: dict[str, Callable[[], Time]]) -> dict[str, Time]:
    """Measure by turns, so that a busy minute meets all; the lowest of each, for what else goes on only adds."""
    times: dict[str, list[Time]] = {name: [] for name in measures}
    for _ in range(REPEATS):
        for name, measure in measures.items():
            times[name].append(measure())
    return {name: Time(min(one.cpu for one in of), min(one.wall for one in of)) for name, of in times.items()}


def show_small_hosts(env: dict[str, str]) -> None:
    """As tests/hosts plays a free host, with its limits of memory and processor."""
    rows = []
    for memory, cpu in SLICES:
        try:
            group = Group()
        except pytest.skip.Exception as missing:
            note(f"No figures of small hosts. {missing}")
            return
        try:
            group.limit_memory(memory << 20)
            group.limit_cpu(cpu)
            launcher = ["bash", "-c", JOIN, "limited", *(f"{folder}/cgroup.procs" for folder in group.folders), "--"]
            starts = [time_start(env, "/kaithhealth", {}, NORELOAD, launcher=launcher) for _ in range(REPEATS)]
        finally:
            group.remove()
        rows.append([f"{memory} MB, {cpu} % of a core", *show(Time(*map(min, zip(*starts, strict=True))))])
    print_table(["`runserver` to the first 200 of `/kaithhealth`", "CPU s", "wall s"], rows)


def time_start(
    env: dict[str, str], path: str, headers: dict[str, str], *flags: str, launcher: Sequence[str] = ()
) -> Time:
    """From the start of the process until a page is there; early visitors wait in line, so one is enough."""
    begin = time.monotonic()
    with serve_app(env, *flags, launcher=launcher) as server:
        assert ask(server, "GET", path, headers=headers).status == 200
        return Time(sum(map(cpu_seconds, list_family(server.process.pid))), time.monotonic() - begin)


def list_family(pid: int) -> list[int]:
    """Give a process and all that descend from it."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in children for one in list_family(int(child)))]


def time_command(command: Sequence[str], env: dict[str, str], folder: Path = ROOT) -> Time:
    begin = time.monotonic()
    process = subprocess.Popen(command, env=env, cwd=folder, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, f"{' '.join(command)} failed."
    return Time(usage.ru_utime + usage.ru_stime, time.monotonic() - begin)


def show(one: Time) -> list[str]:
    return [f"{one.cpu:.2f}", f"{one.wall:.2f}"]


def show_memory(env: dict[str, str], headers: dict[str, str]) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "text/event-stream"}
    script = b'text=SCRIPT: text {"kind": "markdown", "count": 500, "rate": 500}'
    short = b'text=SCRIPT: text {"kind": "markdown", "count": 50, "rate": 5000}'
    with serve_app(env, "--noreload") as server:
        rows = [["after the start", *read_memory(server)]]
        ask(server, "GET", "/chat", headers=headers)
        rows.append(["after a page", *read_memory(server)])
        ask(server, "POST", "/chat", script, headers | form)
        rows.append(["after an answer", *read_memory(server)])
        for _ in range(CHATS):
            ask(server, "POST", "/chat", short, headers | form)
        rows.append([f"after {CHATS} chats more", *read_memory(server)])
    print_table(["memory of one process that does nothing", "RSS MB", "PSS MB"], rows)


def read_memory(server: Server) -> list[str]:
    """Give what is resident, and the same with shared pages divided among those who share them."""
    assert ask(server, "GET", "/healthz").status == 200
    time.sleep(SECONDS_OF_REST)
    rollup = Path(f"/proc/{server.process.pid}/smaps_rollup").read_text()
    kilobytes = dict(re.findall(r"(\w+): +(\d+) kB", rollup))
    return [f"{int(kilobytes[kind]) / 1000:.0f}" for kind in ("Rss", "Pss")]


def compare_help(env: dict[str, str], folder: Path) -> None:
    project = folder / "django"
    python = str(install_django(project))
    version = run([python, "-m", "django", "--version"], env).strip()
    best = take_turns(
        {
            "`oppman.py --help`": lambda: time_command([*OPPMAN, "--help"], env),
            f"Django {version}, `manage.py help`": lambda: time_command([python, "manage.py", "help"], env, project),
        }
    )
    ours, theirs = best.values()
    rows = [[name, *show(one)] for name, one in best.items()]
    rows.append(["ours / Django's", *show(Time(ours.cpu / theirs.cpu, ours.wall / theirs.wall))])
    print_table(["help", "CPU s", "wall s"], rows)


def install_django(folder: Path) -> Path:
    """Make a fresh project of Django's, in an environment of its own."""
    note("Installing Django into a throw-away environment.")
    plain = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
    python = folder / "venv" / "bin" / "python"
    run(["uv", "venv", "--quiet", "--python", sys.executable, str(folder / "venv")], plain)
    run(["uv", "pip", "install", "--quiet", "--python", str(python), "django"], plain)
    run([str(python), "-m", "django", "startproject", "site_of_django", str(folder)], plain)
    return python


def show_imports(env: dict[str, str]) -> None:
    """Sum up what each package's own modules take while the app is imported."""
    lowest_times: dict[str, float] = {}
    for _ in range(REPEATS):
        for package, milliseconds in read_import_times(env).items():
            lowest_times[package] = min(milliseconds, lowest_times.get(package, milliseconds))
    total = sum(lowest_times.values())
    shown = sorted(lowest_times.items(), key=lambda one: -one[1])[:SHOWN_PACKAGES]
    rows = [[f"`{package}`", f"{time:.0f}", f"{100 * time / total:.0f} %"] for package, time in shown]
    print_table(["`import app.main`, own time by package", f"ms, of {total:.0f} in all", "share"], rows)


def read_import_times(env: dict[str, str]) -> dict[str, float]:
    command = [sys.executable, "-X", "importtime", *APP[1:]]
    report = subprocess.run(command, env=env, cwd=ROOT, check=True, capture_output=True, text=True).stderr
    times: defaultdict[str, float] = defaultdict(float)
    for own, name in re.findall(r"import time: +(\d+) \| +\d+ \| +([\w.]+)", report):
        package = name.split(".")[0]
        times["the standard library" if package in sys.stdlib_module_names else package] += int(own) / 1000
    return times


if __name__ == "__main__":
    with laboratory(SECONDS) as place:
        main(place)
