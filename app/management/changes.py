"""What changed in the models, in words for the terminal and in a name for the migration."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from alembic.operations import ops

NAME_LENGTH = 40


class Change(NamedTuple):
    sentence: str
    name: str


def list_changes(operations: Sequence[ops.MigrateOperation]) -> Iterator[Change]:
    for operation in operations:
        if isinstance(operation, ops.ModifyTableOps):
            yield from list_changes(operation.ops)
        else:
            yield describe(operation)


def describe(operation: ops.MigrateOperation) -> Change:
    match operation:
        case ops.CreateTableOp(table_name=table):
            return Change(f"+ Create table {table}", table)
        case ops.DropTableOp(table_name=table):
            return Change(f"- Delete table {table}", f"delete_{table}")
        case ops.AddColumnOp(table_name=table):
            name = operation.column.name
            return Change(f"+ Add column {name} to {table}", f"{table}_{name}")
        case ops.DropColumnOp(table_name=table, column_name=name):
            return Change(f"- Remove column {name} from {table}", f"remove_{table}_{name}")
        case ops.AlterColumnOp(table_name=table, column_name=name):
            return Change(f"~ Alter column {name} on {table}", f"alter_{table}_{name}")
        case ops.CreateIndexOp(index_name=name):
            return Change(f"+ Create index {name}", str(name))
        case ops.DropIndexOp(index_name=name):
            return Change(f"- Remove index {name}", f"remove_{name}")
        case ops.AddConstraintOp():
            name = str(operation.to_constraint().name)
            return Change(f"+ Create constraint {name}", name)
        case ops.DropConstraintOp(constraint_name=name):
            return Change(f"- Remove constraint {name}", f"remove_{name}")
    words = re.sub(r"(?<!^)(?=[A-Z])", " ", type(operation).__name__.removesuffix("Op"))
    return Change(f"~ {words}", words.replace(" ", "_").lower())


def make_name(changes: Sequence[Change]) -> str:
    """Join what changed, as far as it fits into a file's name."""
    names = list(dict.fromkeys(re.sub(r"\W", "_", change.name).lower() for change in changes))
    name = names[0][:NAME_LENGTH]
    for index, following in enumerate(names[1:], start=1):
        is_last = index == len(names) - 1
        if len(name) + 1 + len(following) + (0 if is_last else len("_and_more")) > NAME_LENGTH:
            return f"{name[: NAME_LENGTH - len('_and_more')]}_and_more"
        name = f"{name}_{following}"
    return name
