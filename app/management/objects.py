"""Rows as the objects of Django's fixtures, and back: {"model": "chat.piece", "pk": ..., "fields": {...}}."""

from base64 import b64decode, b64encode
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any, Literal, NamedTuple, get_args, get_origin

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python
from sqlalchemy import JSON, Column, Table, TypeDecorator
from sqlalchemy.schema import sort_tables_and_constraints
from sqlmodel.main import default_registry
from sqlmodel.sql.sqltypes import AutoString

from app.models import SQLModel


class ObjectError(Exception):
    """What is wrong with an object. Where it stands, only its reader knows."""


class Model(NamedTuple):
    """A table, and the label by which fixtures call it: auth.user is the class User of app/auth."""

    label: str
    table: Table
    columns: dict[str, Column[Any]]  # those that can be written: the database computes the others
    keys: list[Column[Any]]
    kinds: dict[str, Any]  # what Python makes of them


def list_models() -> list[Model]:
    """Give every table that app/models.py knows, parents before their children."""
    classes = {mapper.local_table: mapper.class_ for mapper in default_registry.mappers if not mapper.inherits}
    tables = sorted(SQLModel.metadata.tables.values(), key=lambda table: table.name)
    # Tables that point at each other come last, with None for one of them.
    ordered = [table for table, _ in sort_tables_and_constraints(tables) if table is not None]  # type: ignore[no-untyped-call]
    return [describe_table(table, classes.get(table)) for table in ordered]


def describe_table(table: Table, class_: type[SQLModel] | None) -> Model:
    label = f"table.{table.name}"  # a plain table, such as one between two others
    if class_ is not None:
        label = f"{class_.__module__.removeprefix('app.').partition('.')[0]}.{class_.__name__}"
    fields = class_.model_fields if class_ is not None else {}
    columns = {column.name: column for column in table.columns if column.computed is None}
    kinds = {name: find_kind(column, fields.get(name)) for name, column in columns.items()}
    return Model(label.lower(), table, columns, list(table.primary_key), kinds)


def find_kind(column: Column[Any], field: FieldInfo | None) -> Any:
    """Find the type of a column's values: a text's words if it has only a few, else what the column says."""
    annotation = field.annotation if field else Any
    for part in (annotation, *get_args(annotation)):  # also of «Role | None»
        if get_origin(part) is Literal:
            return part
    if isinstance(column.type, AutoString):
        return str
    # A type of somebody's own makes what its field is declared to be.
    return annotation if isinstance(column.type, TypeDecorator) else get_type(column)


def get_type(column: Column[Any]) -> Any:
    try:
        return column.type.python_type
    except NotImplementedError:
        return Any


def write_object(model: Model, row: Sequence[Any]) -> dict[str, Any]:
    pairs = zip(model.columns.items(), row, strict=True)
    fields = {name: write_value(column, value) for (name, column), value in pairs}
    keys = [fields.pop(column.name) for column in model.keys]
    return {"model": model.label, "pk": keys[0] if len(keys) == 1 else keys, "fields": fields}


def write_value(column: Column[Any], value: Any) -> Any:
    if value is None or isinstance(column.type, JSON):
        return value
    if isinstance(value, bytes):
        return b64encode(value).decode()
    if isinstance(value, datetime):
        value = set_zone(column, value)
    return to_jsonable_python(value)


def set_zone(column: Column[Any], value: datetime) -> datetime:
    """Give times a zone where the column has one, which SQLite forgets; those without count as UTC."""
    value = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    return value if getattr(column.type, "timezone", False) else value.replace(tzinfo=None)


def read_object(model: Model, raw: dict[str, Any], *, ignore_unknown: bool = False) -> dict[str, Any]:
    """Give a row's values by column. Fields that are left out get their defaults from the table."""
    fields = raw.get("fields")
    if not isinstance(fields, dict):
        raise ObjectError("it has no «fields» in braces")
    unknown = [name for name in fields if name not in model.columns]
    if unknown and not ignore_unknown:
        raise ObjectError(f"{model.label} has no field '{unknown[0]}'")
    known = {name: column for name, column in model.columns.items() if name in fields}
    values = {name: read_field(model, column, fields[name]) for name, column in known.items()}
    return values | read_keys(model, raw.get("pk"))


def read_keys(model: Model, raw: Any) -> dict[str, Any]:
    if raw is None:  # the table makes one
        return {}
    parts = raw if len(model.keys) > 1 else [raw]
    if not isinstance(parts, list) or len(parts) != len(model.keys):
        raise ObjectError(f"the pk of {model.label} is a list of {len(model.keys)}")
    return {key.name: read_field(model, key, part) for key, part in zip(model.keys, parts, strict=True)}


def read_field(model: Model, column: Column[Any], raw: Any) -> Any:
    if raw is None and not column.nullable and not isinstance(column.type, JSON):
        raise ObjectError(f"field '{column.name}' may not be null")
    try:
        return read_value(column, raw, model.kinds[column.name])
    except ValidationError as error:
        raise ObjectError(f"field '{column.name}': {error.errors(include_input=False)[0]['msg']}") from error
    except ValueError as error:
        raise ObjectError(f"field '{column.name}': Input should be bytes in Base64") from error


def read_value(column: Column[Any], raw: Any, kind: Any) -> Any:
    if raw is None or isinstance(column.type, JSON):
        return raw
    if kind is bytes:
        return b64decode(raw if isinstance(raw, str) else "?", validate=True)
    value = get_adapter(kind).validate_python(raw)
    return set_zone(column, value) if isinstance(value, datetime) else value


@cache
def get_adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
