"""The commands of oppman.py: the table of them all, and the help.

Listing them imports nothing but the standard library: a command's module is imported when the command runs.
"""

from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["COMMANDS", "Command", "main"]


class Command(NamedTuple):
    """Where a command lives: the function of its name, in `app.management.<module>`."""

    subject: str
    module: str
    summary: str


# A new command is a function that @command describes, and a line here.
COMMANDS = {
    "quickstart": Command("server", "quickstart", "Set everything up on this machine, and serve"),
    "runserver": Command("server", "server", "Serve, and start again when the code changes"),
    "migrate": Command("database", "database", "Bring the database's tables up to date, or back"),
    "makemigrations": Command("database", "makemigrations", "Write a migration for what changed in the models"),
    "showmigrations": Command("database", "database", "List the migrations, and which are applied"),
    "sqlmigrate": Command("database", "database", "Print a migration as SQL"),
    "dburl": Command("database", "dburl", "Say what a database URL means, and connect"),
    "dbshell": Command("database", "shell", "Open the database's own client"),
    "dumpdata": Command("data", "fixtures", "Write the data into a file, in Django's format"),
    "loaddata": Command("data", "fixtures", "Put such a file into the database"),
    "flush": Command("data", "fixtures", "Empty every table"),
    "backup": Command("data", "backup", "Save the whole database in a file"),
    "restore": Command("data", "backup", "Bring it back from such a file"),
    "movedb": Command("data", "move", "Copy everything into another database, SQLite or PostgreSQL"),
    "createsuperuser": Command("people", "users", "Make an account that may do everything"),
    "changepassword": Command("people", "users", "Give somebody a new password"),
    "createtoken": Command("people", "users", "Print a token for the JSON API"),
    "clearsessions": Command("people", "users", "Delete sessions and tokens that have expired"),
    # Both load the demo or remove it; the README says what else to delete to be rid of its code.
    "demo": Command("demo", "demo", "Load the demo people and conversations, or remove them"),
    "loaddemo": Command("demo", "demo", "The same as «demo load»"),
    "check": Command("project", "checks", "Look for mistakes in settings, database, host and site"),
    "showsettings": Command("project", "project", "Print every setting, secrets masked"),
    "generate_secret_key": Command("project", "project", "Print a new SECRET_KEY"),
    "secrets": Command("project", "project", "The same as «generate_secret_key»"),
    "shell": Command("project", "shell", "Python with the models, an open session and top-level await"),
    "test": Command("project", "project", "Run the tests; what follows goes to pytest"),
    "compileall": Command("project", "project", "Compile the code at build, for hosts with a read-only disk"),
    "collectstatic": Command("project", "project", "Nothing to do here; for deploy scripts that call it"),
    "version": Command("project", "project", "Print the version"),
}


def main(argv: Sequence[str]) -> int:
    """Run the command line and give the exit code."""
    name, *rest = argv or ["help"]
    match name:
        case "help" | "-h" | "--help":
            return show_help(rest)
        case "--version":
            name = "version"
    if name not in COMMANDS:
        return refuse_unknown(name)

    from app.management.commands import run

    return run(name, COMMANDS[name].module, rest)


def show_help(rest: Sequence[str]) -> int:
    name = rest[0] if rest else ""
    if name in COMMANDS:
        return main([name, "--help"])
    if name == "--commands":
        print("\n".join(sorted(COMMANDS)))
    elif name:
        return refuse_unknown(name)
    else:
        print(list_commands())
    return 0


def list_commands() -> str:
    lines = ["", "Type 'oppman.py help <command>' for help on one command.", "", "Available commands:"]
    subject = ""
    for name, command in COMMANDS.items():
        if command.subject != subject:
            subject = command.subject
            lines += ["", f"[{subject}]"]
        lines.append(f"    {name:<20} {command.summary}")
    return "\n".join(lines)


def refuse_unknown(name: str) -> int:
    import difflib
    import sys

    similar = difflib.get_close_matches(name.lower(), COMMANDS, n=1)
    hint = f". Did you mean {similar[0]}?" if similar else ""
    print(f"Unknown command: {name!r}{hint}\nType 'oppman.py help' for usage.", file=sys.stderr)
    return 1
