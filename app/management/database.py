"""Migrations, with Django's words and Alembic's work."""

import io
from collections.abc import Sequence

import alembic.util
from alembic import command as alembic_command
from alembic.script import Script, ScriptDirectory

from app.management.commands import NOINPUT, CommandError, argument, command, flag
from app.management.console import console
from app.management.migrations import (
    apply,
    get_head,
    list_applied,
    list_migrations,
    load_graph,
    make_config,
    mark,
    name_migration,
    prepare_file,
    readable_errors,
    unapply,
)


@command(
    argument("revision", nargs="?", help="0001, for example, or «zero» for before the first; the newest if left out"),
    flag("--plan", help="say what would be done"),
    flag("--check", help="end with 1 where migrations wait, and do nothing"),
    flag("--fake", help="note migrations as done without running them"),
    NOINPUT,
)
def migrate(
    revision: str | None = None, *, plan: bool = False, check: bool = False, fake: bool = False, noinput: bool = False
) -> None:
    """Bring the database to the newest migration, or forward or back to the one named."""
    graph = load_graph()
    if not (plan or check):
        prepare_file()
    applied = list_applied(graph)
    target = find_target(graph, revision)
    is_back = target is None or target in applied
    steps = list_steps(graph, target, applied)
    if plan or check:
        show_plan(graph, steps, is_back)
        if check and steps:
            raise SystemExit(1)
    elif not steps:
        console.say("No migrations to apply.")
    else:
        take_steps(graph, steps, target, is_back=is_back, is_fake=fake)


def find_target(graph: ScriptDirectory, revision: str | None) -> str | None:
    """Give the migration that is meant; None means «before the first one»."""
    if revision == "zero":
        return None
    if revision is None:
        return get_head(graph)
    number = revision.partition("_")[0]  # 0001_start is the name that is shown, 0001 the revision
    for name in (revision, number):
        try:
            found = graph.get_revision(name)
        except alembic.util.CommandError:
            continue
        if found:
            return str(found.revision)
    raise CommandError(f"Cannot find a migration matching {revision!r}.")


def list_steps(graph: ScriptDirectory, target: str | None, applied: set[str]) -> list[Script]:
    """Give the migrations to apply, or to take back, in the order of doing it."""
    wanted = {script.revision for script in graph.iterate_revisions(target, "base")} if target else set()
    everything = list_migrations(graph)
    if target and target not in applied:
        return [script for script in everything if script.revision in wanted - applied]
    return [script for script in reversed(everything) if script.revision in applied - wanted]


def show_plan(graph: ScriptDirectory, steps: Sequence[Script], is_back: bool) -> None:
    console.say("Planned operations:")
    for script in steps:
        doc = f": {script.doc}" if script.doc else ""
        console.say(f"  {'Undo ' if is_back else ''}{name_migration(graph, script.revision)}{doc}")
    if not steps:
        console.say("  No planned migration operations.")


def take_steps(
    graph: ScriptDirectory, steps: Sequence[Script], target: str | None, *, is_back: bool, is_fake: bool
) -> None:
    console.say(console.paint("Running migrations:", "bold"))
    for script in steps:
        verb = "Unapplying" if is_back else "Applying"
        console.say(f"  {verb} {name_migration(graph, script.revision)}...", end="")
        console.say(console.paint(f" {take_step(script, is_back=is_back, is_fake=is_fake)}", "green"))


def take_step(script: Script, *, is_back: bool, is_fake: bool) -> str:
    if is_fake:
        mark((script.down_revision or "base") if is_back else script.revision)  # type: ignore[arg-type]
        return "FAKED"
    is_ours = unapply(script) if is_back else apply(script)
    return "OK" if is_ours else "OK (another process did it)"


@command(flag("--list", help="the way it is shown anyway"), flag("--plan", help="the same"))
def showmigrations(*, list: bool = False, plan: bool = False) -> None:
    """List the migrations in order; [X] marks what is applied."""
    graph = load_graph()
    applied = list_applied(graph)
    console.say("oppkit")
    for script in list_migrations(graph):
        console.say(f" [{'X' if script.revision in applied else ' '}] {name_migration(graph, script.revision)}")


@command(argument("revision", help="0001, for example"), flag("--backwards", help="the way back"))
def sqlmigrate(revision: str, *, backwards: bool = False) -> None:
    """Print the SQL that a migration would run, for the engine of DATABASE_URL."""
    graph = load_graph()
    script = graph.get_revision(find_target(graph, revision) or "base")
    if script is None:
        raise CommandError("Name one migration, such as 0001.")
    before = script.down_revision or "base"
    sql = io.StringIO()
    with readable_errors():
        if backwards:
            alembic_command.downgrade(make_config(sql), f"{script.revision}:{before}", sql=True)
        else:
            alembic_command.upgrade(make_config(sql), f"{before}:{script.revision}", sql=True)
    print(sql.getvalue().strip())
