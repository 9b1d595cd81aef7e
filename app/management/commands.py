"""What a command is: a function, the arguments that it takes, and the manners that all commands share."""

import argparse
import gc
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any, NamedTuple, TypeVar

from app.management.console import console, is_interactive

Function = TypeVar("Function", bound=Callable[..., None])


class CommandError(Exception):
    """Something that the person at the terminal can mend: one line, no traceback."""

    def __init__(self, sentence: str, returncode: int = 1) -> None:
        super().__init__(sentence)
        self.returncode = returncode


class Argument(NamedTuple):
    names: tuple[str, ...]
    options: dict[str, Any]


_arguments: dict[Callable[..., None], tuple[Argument, ...]] = {}


def argument(*names: str, **options: Any) -> Argument:
    return Argument(names, options)


def flag(*names: str, help: str) -> Argument:
    return Argument(names, {"action": "store_true", "help": help})


NOINPUT = flag("--noinput", "--no-input", help="never ask anything")
PASSED_ON = argument("arguments", nargs=argparse.REMAINDER, help="passed on as they are")


def confirm(question: str, noinput: bool) -> None:
    """Ask before something is lost; only a yes goes on. Nobody is asked with --noinput."""
    if noinput:
        return
    if not is_interactive():
        raise CommandError("There is no terminal to ask at. Use --noinput to go on without asking.")
    if input(f"{question}? [y/N] ").strip().lower() not in ("y", "yes"):
        raise CommandError("Nothing was changed.")


def command(*arguments: Argument) -> Callable[[Function], Function]:
    """Say what a command takes, in argparse's words; each arrives as the keyword of its name."""

    def remember(function: Function) -> Function:
        _arguments[function] = arguments
        return function

    return remember


def run(name: str, module: str, argv: Sequence[str]) -> int:
    """Import and run one command, and turn what goes wrong into Django's words and exit codes."""
    shows_traceback = "--traceback" in argv
    try:
        with pause_garbage_collection():
            function: Callable[..., None] = getattr(import_module(f"app.management.{module}"), name)
        function(**read_options(name, function, argv))
        if sys.stdout:  # a service may be started without
            sys.stdout.flush()
    except CommandError as error:
        if shows_traceback:
            traceback.print_exc()
        else:
            print(f"CommandError: {error}", file=sys.stderr)
        return error.returncode
    except ModuleNotFoundError as error:
        if shows_traceback or (error.name or "").startswith("app"):
            raise
        print(f"{error.name} is not installed in this Python. Type: uv run oppman.py {name}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, EOFError):  # Control-C, or Control-D where an answer was wanted
        print("\nCancelled.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # somebody looked at the first lines only, with head or less
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return 0


@contextmanager
def pause_garbage_collection() -> Iterator[None]:
    """Imports make much and drop nothing: looking for rubbish meanwhile costs a quarter of their time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def read_options(name: str, function: Callable[..., None], argv: Sequence[str]) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog=f"oppman.py {name}", description=function.__doc__, allow_abbrev=False)
    for names, options in _arguments[function]:
        parser.add_argument(*names, **options)
    if PASSED_ON in _arguments[function] and argv not in (["-h"], ["--help"]):
        return {"arguments": list(argv)}  # argparse would stumble over flags that it does not know

    shared = parser.add_argument_group("for every command")
    shared.add_argument("-v", "--verbosity", type=int, choices=range(4), default=1, help="0 says nothing, 1 the usual")
    shared.add_argument("--traceback", action="store_true", help="show where an error came from")
    shared.add_argument("--no-color", action="store_true", help="write without colours")
    shared.add_argument("--force-color", action="store_true", help="colours even where no terminal is seen")
    values = vars(parser.parse_args(argv))
    values.pop("traceback")
    console.set_up(values.pop("verbosity"), values.pop("no_color"), values.pop("force_color"))
    return values
