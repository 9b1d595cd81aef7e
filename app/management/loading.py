"""Puts the objects of fixtures into their tables: in any order, as one transaction, and new or not."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, Table, func, select, text, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError, ProgrammingError, StatementError

from app.database import UNAVAILABLE
from app.management.commands import CommandError
from app.management.objects import Model

BATCH = 500  # rows that are sent to the database together


@dataclass(eq=False)
class Entry:
    """A row to be, and where it was read, for those who have to mend it."""

    place: str
    model: Model
    values: dict[str, Any]
    later: dict[str, Any] = field(default_factory=dict)  # references to rows that cannot be there yet

    @property
    def key(self) -> tuple[Any, ...] | None:
        values = tuple(self.values.get(column.name) for column in self.model.keys)
        return None if None in values or not values else (self.model.label, *values)


def load_entries(connection: Connection, entries: Sequence[Entry]) -> None:
    ordered = list(put_in_order(drop_repeated(entries)))
    for _, group in groupby(ordered, key=lambda entry: (entry.model.label, *sorted(entry.values))):
        rows = list(group)
        for start in range(0, len(rows), BATCH):
            save(connection, rows[start : start + BATCH])
    for entry in ordered:
        if entry.later:
            update_later(connection, entry)
    if connection.dialect.name == "postgresql":
        for table in {entry.model.table for entry in ordered}:
            set_sequence(connection, table)


def drop_repeated(entries: Iterable[Entry]) -> list[Entry]:
    """Keep the last of those with the same key, as if they had been saved one after the other."""
    return list({entry.key or id(entry): entry for entry in entries}.values())


def put_in_order(entries: Sequence[Entry]) -> Iterator[Entry]:
    """Give parents before their children, row by row. Where they go round in a ring, one reference has to wait."""
    known = index_parents(entries)
    is_given: dict[Entry, bool] = {}  # False while its parents are being given
    for first in entries:
        stack = [first]
        while stack:
            entry = stack[-1]
            if entry not in is_given:
                is_given[entry] = False
                for names, parent in list_parents(entry, known):
                    if parent not in is_given:
                        stack.append(parent)
                    elif not is_given[parent] and parent is not entry:
                        postpone(entry, names)
                continue
            stack.pop()
            if not is_given[entry]:
                is_given[entry] = True
                yield entry


Known = dict[tuple[Any, ...], Entry]


def index_parents(entries: Sequence[Entry]) -> Known:
    """Find rows by the columns that foreign keys point at."""
    targets: dict[Table, set[tuple[str, ...]]] = {}
    for table in {entry.model.table for entry in entries}:
        for constraint in table.foreign_key_constraints:
            names = tuple(element.column.name for element in constraint.elements)
            targets.setdefault(constraint.referred_table, set()).add(names)
    return {
        (entry.model.table, names, *(entry.values.get(name) for name in names)): entry
        for entry in entries
        for names in targets.get(entry.model.table, ())
    }


def list_parents(entry: Entry, known: Known) -> Iterator[tuple[list[str], Entry]]:
    for constraint in entry.model.table.foreign_key_constraints:
        names = [column.name for column in constraint.columns]
        targets = tuple(element.column.name for element in constraint.elements)
        values = [entry.values.get(name) for name in names]
        parent = known.get((constraint.referred_table, targets, *values))
        if parent and None not in values:
            yield names, parent


def postpone(entry: Entry, names: Sequence[str]) -> None:
    columns = entry.model.table.columns
    # What must never be empty is for the database to judge at the end, if it was told to.
    if entry.key and all(columns[name].nullable for name in names):
        entry.later |= {name: entry.values[name] for name in names}
        entry.values |= dict.fromkeys(names)


def save(connection: Connection, entries: Sequence[Entry]) -> None:
    """Save some rows of one table. If they are refused, try them one by one, to say which it was."""
    statement = make_upsert(connection, entries[0].model)
    try:
        with connection.begin_nested():
            connection.execute(statement, [entry.values for entry in entries])
    except (*UNAVAILABLE, ProgrammingError):
        raise
    except (StatementError, OverflowError, ValueError) as error:
        if len(entries) == 1:
            raise refuse(entries[0], error) from error
        for entry in entries:
            save(connection, [entry])
        raise


def make_upsert(connection: Connection, model: Model) -> Any:
    """Insert or update, like Django: an update sets every field, those that are left out to their defaults."""
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    statement: Any = dialect.insert(model.table)
    keys = [column.name for column in model.keys]
    new = {name: statement.excluded[name] for name in model.columns if name not in keys}
    if keys and new:
        statement = statement.on_conflict_do_update(index_elements=keys, set_=new)
    elif keys:
        statement = statement.on_conflict_do_nothing(index_elements=keys)
    return statement


def refuse(entry: Entry, error: Exception) -> CommandError:
    return CommandError(f"{entry.place}: Could not load {entry.model.label}: {say(error)}. Nothing was loaded.")


def say(error: Exception) -> str:
    """Give what the database says without its details, in which the values would stand."""
    return str(getattr(error, "orig", None) or error).strip().partition("\n")[0].rstrip(".")


def update_later(connection: Connection, entry: Entry) -> None:
    same = [column == entry.values[column.name] for column in entry.model.keys]
    try:
        connection.execute(update(entry.model.table).where(*same).values(entry.later))
    except IntegrityError as error:
        raise refuse(entry, error) from error


def set_sequence(connection: Connection, table: Table) -> None:
    """PostgreSQL counts on its own: the next number has to come after those that were loaded."""
    column = table.autoincrement_column
    if column is None:
        return
    name = connection.dialect.identifier_preparer.format_table(table)
    highest = connection.scalar(select(func.max(column)))
    if highest is None or highest < 1:  # nothing was given yet that a sequence could give
        return
    # A column without a sequence gives NULL here, and then setval does nothing.
    statement = text("SELECT setval(pg_get_serial_sequence(:table, :column), :highest)")
    connection.execute(statement, {"table": name, "column": column.name, "highest": highest})
