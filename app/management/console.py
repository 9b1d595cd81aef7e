"""What the commands say at the terminal, and how they ask."""

import os
import sys
from typing import Literal

Style = Literal["bold", "dim", "red", "green", "yellow"]
CODES: dict[Style, int] = {"bold": 1, "dim": 2, "red": 31, "green": 32, "yellow": 33}


class Console:
    """How much is said, and whether in colours. There is one for the process."""

    def __init__(self) -> None:
        self.verbosity = 1
        self.has_colours = False

    def set_up(self, verbosity: int = 1, no_colour: bool = False, force_colour: bool = False) -> None:
        self.verbosity = verbosity
        may = not no_colour and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        self.has_colours = force_colour or (may and sys.stdout is not None and sys.stdout.isatty())

    def say(self, text: str = "", end: str = "\n") -> None:
        if self.verbosity > 0:
            print(text, end=end, flush=True)

    def warn(self, text: str) -> None:
        """Words beside the result: they must not end up in a file or a pipe that takes it."""
        if self.verbosity > 0:
            print(text, file=sys.stderr, flush=True)

    def show_progress(self, name: str, done: int, total: int) -> None:
        """Draw a bar that grows in its line, where somebody sits at a terminal; it is wiped when all is done."""
        if self.verbosity == 0 or not (sys.stderr and sys.stderr.isatty()):
            return
        share = done / total if total else 1
        line = f"  {name} {'━' * round(30 * share):·<30} {share:4.0%} {done:,} of {total:,}"
        print(f"\r\x1b[K{line if done < total else ''}", end="", file=sys.stderr, flush=True)

    def paint(self, text: str, style: Style) -> str:
        return f"\x1b[{CODES[style]}m{text}\x1b[0m" if self.has_colours else text


console = Console()


def is_interactive() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


def how_to(arguments: str) -> str:
    """Write a command line as the person has typed this one: with uv, or with an environment of their own."""
    return f"{'uv run' if os.environ.get('UV') else 'python'} oppman.py {arguments}"
