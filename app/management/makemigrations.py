"""Writes migrations: Alembic finds what changed in the models, and a name is made from it."""

from collections.abc import Sequence
from typing import Any

import alembic.util
from alembic import command as alembic_command
from alembic.script import Script, ScriptDirectory

from app.management.changes import Change, list_changes, make_name
from app.management.commands import NOINPUT, CommandError, argument, command, flag
from app.management.console import console, how_to
from app.management.migrations import get_head, load_graph, make_config, readable_errors
from app.settings import ROOT


@command(
    argument("-n", "--name", help="what the migration is called; made from the changes if left out"),
    flag("--check", help="end with 1 where the models have changed, and write nothing"),
    flag("--dry-run", help="say what would be written"),
    flag("--empty", help="write one without operations, to fill in by hand"),
    flag("--merge", help="join two newest migrations, which come from two branches of the code"),
    NOINPUT,
)
def makemigrations(
    name: str | None = None,
    *,
    check: bool = False,
    dry_run: bool = False,
    empty: bool = False,
    merge: bool = False,
    noinput: bool = False,
) -> None:
    """Compare the models with the database, and write a migration for the difference."""
    if name and not name.isidentifier():
        raise CommandError("The migration name must be a valid Python identifier.")
    graph = load_graph()
    number = choose_number(graph)
    if merge:
        merge_heads(graph, name or "merge", number)
        return
    get_head(graph)
    changes: list[Change] = []

    def decide(context: Any, revision: Any, directives: list[Any]) -> None:
        script = directives[0]
        changes.extend(list_changes(script.upgrade_ops.ops))
        script.message = name or (make_name(changes) if changes else "custom")
        if check or dry_run or not (changes or empty):
            directives.clear()

    with readable_errors():
        try:
            written = alembic_command.revision(
                make_config(), autogenerate=not empty, rev_id=number, process_revision_directives=decide
            )
        except alembic.util.CommandError as error:
            if "not up to date" in str(error):
                raise CommandError(f"The database lacks older migrations. Type first: {how_to('migrate')}") from None
            raise
    if not (changes or empty):
        console.say("No changes detected")
        return
    show_changes(written if isinstance(written, Script) else None, changes)
    if check:
        raise SystemExit(1)


def choose_number(graph: ScriptDirectory) -> str:
    numbers = [int(script.revision) for script in graph.walk_revisions() if script.revision.isdecimal()]
    return f"{max(numbers, default=0) + 1:04d}"


def merge_heads(graph: ScriptDirectory, name: str, number: str) -> None:
    heads = graph.get_heads()
    if len(heads) < 2:
        console.say("No conflicts detected to merge.")
        return
    with readable_errors():
        written = alembic_command.merge(make_config(), heads, message=name, rev_id=number)
    show_changes(written, [])


def show_changes(written: Script | None, changes: Sequence[Change]) -> None:
    console.say(console.paint("Migrations for 'oppkit':", "bold"))
    if written:
        console.say(f"  {console.paint(str(written.path).removeprefix(f'{ROOT}/'), 'bold')}")
    for change in changes:
        console.say(f"    {change.sentence}")
