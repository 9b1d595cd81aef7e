"""Data as files, in Django's format: dump it, load it, and empty the tables."""

import gzip
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple, cast
from zlib import error as ZlibError  # noqa: N812 (a class in small letters)

from pydantic_core import PydanticSerializationError
from sqlalchemy import Connection, Table, delete, select
from sqlalchemy.exc import IntegrityError, NotSupportedError
from sqlmodel.ext.asyncio.session import AsyncSession

from app.database import read_url
from app.management.commands import NOINPUT, CommandError, argument, command, flag
from app.management.console import console, is_interactive
from app.management.loading import Entry, load_entries, say
from app.management.objects import Model, ObjectError, list_models, read_field, read_object, write_object
from app.management.session import run_with_session
from app.settings import ROOT, load_settings

FORMATS = ("json", "jsonl")
ENDINGS = ("", *(f".{name}{packed}" for name in FORMATS for packed in ("", ".gz")))
DUMP_BATCH = 100  # rows in memory at a time; a message can be long

FORMAT = argument("--format", choices=FORMATS, help="json is a list, jsonl one object a line")
EXCLUDE = argument(
    "-e", "--exclude", action="append", default=[], metavar="LABEL", help="leave out a feature or one of its models"
)


# --- dumpdata ----------------------------------------------------------------------------------------------------


@command(
    argument("labels", nargs="*", metavar="label", help="chat or chat.Message, for example; everything if left out"),
    FORMAT,
    argument("--indent", type=int, help="spaces, for people to read it (json)"),
    EXCLUDE,
    argument("--pks", help="only these primary keys of one model, with commas between"),
    argument("-o", "--output", help="a file, which only you may read; with .gz at its end it is packed"),
    flag("-a", "--all", help="the way it is done anyway"),
)
def dumpdata(
    labels: Sequence[str],
    format: str | None = None,
    indent: int | None = None,
    exclude: Sequence[str] = (),
    pks: str | None = None,
    output: str | None = None,
    *,
    all: bool = False,
) -> None:
    """Write the data as it stands at this moment, parents first. It holds password hashes: keep it to yourself."""
    models = choose_models(labels, exclude)
    keys = read_pks(models, labels, pks) if pks else None
    is_lines = (format or guess_format(output or "")) == "jsonl"
    form = make_form(is_lines=is_lines, indent=indent)

    async def dump(session: AsyncSession) -> None:
        # One view of all tables, while others go on writing.
        is_sqlite = session.get_bind().dialect.name == "sqlite"
        view = {"sqlite_begin": "BEGIN"} if is_sqlite else {"isolation_level": "REPEATABLE READ"}
        connection = await session.connection(execution_options=view)
        await connection.run_sync(write_models, models, keys, form, output)

    run_with_session(dump)


def choose_models(labels: Sequence[str], exclude: Sequence[str]) -> list[Model]:
    everything = list_models()
    left_out = match_models(everything, exclude)
    chosen = match_models(everything, labels) if labels else everything
    return [model for model in everything if model in chosen and model not in left_out]


def match_models(models: Sequence[Model], labels: Sequence[str]) -> list[Model]:
    found: list[Model] = []
    for label in labels:
        matching = [model for model in models if label.lower() in (model.label, model.label.partition(".")[0])]
        if not matching and "." in label:
            raise CommandError(f"Unknown model: {label}. There are: {', '.join(model.label for model in models)}.")
        if not matching:
            features = sorted({model.label.partition(".")[0] for model in models})
            raise CommandError(f"No feature with label '{label}' has tables. There are: {', '.join(features)}.")
        found += matching
    return found


def read_pks(models: Sequence[Model], labels: Sequence[str], pks: str) -> list[Any]:
    if len(models) != 1 or not labels or "." not in labels[0]:
        raise CommandError("You can only use --pks option with one model.")
    if len(models[0].keys) != 1:
        raise CommandError(f"{models[0].label} has a primary key of several columns, which --pks cannot name.")
    try:
        return [read_field(models[0], models[0].keys[0], part.strip()) for part in pks.split(",")]
    except ObjectError as error:
        raise CommandError(f"--pks: {error}.") from error


def guess_format(name: str) -> str | None:
    ending = name.removesuffix(".gz").rpartition(".")[2]
    return ending if ending in FORMATS else None


@contextmanager
def open_output(name: str | None) -> Iterator[IO[bytes]]:
    """Give standard output, or a file that takes its name only when it is whole."""
    if name is None:
        sys.stdout.flush()
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(name).resolve()
    try:
        if path.exists() and not path.is_file():  # /dev/null, or a pipe
            with path.open("wb") as file:
                yield file
            return
        with replace_file(path) as file:
            yield file
    except OSError as error:
        raise CommandError(f"{name} cannot be written: {error.strerror}.") from error


@contextmanager
def replace_file(path: Path) -> Iterator[IO[bytes]]:
    handle, unfinished = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mkstemp's files are 0600
    try:
        with os.fdopen(handle, "wb") as plain:
            if path.suffix == ".gz":
                with gzip.GzipFile("", "wb", fileobj=plain, mtime=0) as packed:
                    yield cast(IO[bytes], packed)
            else:
                yield plain
        Path(unfinished).replace(path)
    except BaseException:
        Path(unfinished).unlink(missing_ok=True)
        raise


class Form(NamedTuple):
    """What stands around the objects."""

    start: str
    between: str
    end: str
    nothing: str  # all there is where there are no objects
    indent: int | None = None


def make_form(*, is_lines: bool, indent: int | None) -> Form:
    if is_lines:
        return Form("", "\n", "\n", "")
    return Form("[", ", ", "]\n", "[]\n") if indent is None else Form("[\n", ",\n", "\n]\n", "[]\n", indent)


def write_models(
    connection: Connection, models: Sequence[Model], keys: Sequence[Any] | None, form: Form, output: str | None
) -> None:
    with open_output(output) as file:
        before = form.start
        for raw in list_objects(connection, models, keys):
            file.write((before + json.dumps(raw, indent=form.indent, ensure_ascii=False)).encode())
            before = form.between
        file.write((form.end if before == form.between else form.nothing).encode())


def list_objects(connection: Connection, models: Sequence[Model], keys: Sequence[Any] | None) -> Iterator[Any]:
    for model in models:
        query = select(*model.columns.values()).order_by(*model.keys)
        if keys is not None:
            query = query.where(model.keys[0].in_(keys))
        for row in connection.execute(query, execution_options={"yield_per": DUMP_BATCH}):
            try:
                yield write_object(model, row)
            except PydanticSerializationError as error:
                raise CommandError(f"{model.label} holds what JSON cannot say: {error}.") from error


# --- loaddata ----------------------------------------------------------------------------------------------------


@command(
    argument(
        "fixtures", nargs="+", metavar="fixture", help="a file, a name in app/*/fixtures, or - for what is piped in"
    ),
    FORMAT,
    flag("-i", "--ignorenonexistent", help="pass over models and fields that are not there any more"),
    EXCLUDE,
)
def loaddata(
    fixtures: Sequence[str], format: str | None = None, exclude: Sequence[str] = (), *, ignorenonexistent: bool = False
) -> None:
    """Put the objects of fixtures into the database, all or none. Those that are there already are replaced."""
    models = {model.label: model for model in list_models()}
    left_out = match_models(list(models.values()), exclude)
    sources = [source for name in fixtures for source in find_fixtures(name, format)]
    objects = [found for source in sources for found in read_source(source)]
    read = [read_entry(place, raw, models, ignore_unknown=ignorenonexistent) for place, raw in objects]
    order = list(models)
    entries = [entry for entry in read if entry and entry.model not in left_out]
    entries.sort(key=lambda entry: order.index(entry.model.label))

    async def load(session: AsyncSession) -> None:
        try:
            await (await session.connection()).run_sync(load_entries, entries)
            await session.commit()
        except IntegrityError as error:  # of constraints that wait for the end
            raise CommandError(f"{say(error)}. Nothing was loaded.") from error

    run_with_session(load)
    of_all = "" if len(entries) == len(objects) else f" (of {len(objects)})"
    console.say(f"Installed {len(entries)} object(s){of_all} from {len(sources)} fixture(s)")


class Source(NamedTuple):
    name: str
    path: Path | None  # None is standard input
    is_lines: bool


def find_fixtures(name: str, format: str | None) -> list[Source]:
    """Look in this folder and in those of the features, as Django does."""
    if name == "-":
        if format is None:
            raise CommandError("--format must be specified when reading from stdin.")
        return [Source("-", None, format == "jsonl")]
    folders = [Path(), *sorted(ROOT.glob("app/*/fixtures"))]
    paths = {path.resolve(): path for folder in folders for path in find_in(folder, name)}
    if not paths:
        raise CommandError(f"No fixture named '{name}' found.")
    return [Source(str(path), path, choose_format(path, format) == "jsonl") for path in paths.values()]


def find_in(folder: Path, name: str) -> list[Path]:
    paths = [folder / f"{name}{ending}" for ending in ENDINGS]
    found = [path for path in paths if path.exists() and not path.is_dir()]
    if len(found) > 1:
        raise CommandError(f"Multiple fixtures named '{name}' in {folder.resolve()}. Aborting.")
    return found


def choose_format(path: Path, format: str | None) -> str:
    known = format or guess_format(path.name)
    if known is None:
        raise CommandError(f"Problem installing fixture '{path}': name its format with --format json or jsonl.")
    return known


def read_source(source: Source) -> Iterator[tuple[str, Any]]:
    """Give what should be objects, each with its place."""
    problem = f"Problem installing fixture '{source.name}'"
    try:
        with open_source(source.path) as file:
            if source.is_lines:
                for number, line in enumerate(file, start=1):
                    problem = f"Problem installing fixture '{source.name}', line {number}"
                    if line.strip():
                        yield problem, json.loads(line)
                return
            objects = json.loads(file.read())
    except (ValueError, RecursionError) as error:
        raise CommandError(f"{problem}: it is not JSON: {error}. Nothing was loaded.") from error
    except (OSError, EOFError, ZlibError) as error:
        raise CommandError(f"{problem}: it cannot be read: {error}. Nothing was loaded.") from error
    if not isinstance(objects, list):
        raise CommandError(f"{problem}: it is not a list of objects. Nothing was loaded.")
    for number, raw in enumerate(objects, start=1):
        yield f"{problem}, object {number}", raw


def open_source(path: Path | None) -> IO[bytes]:
    if path is None:
        return sys.stdin.buffer
    return cast(IO[bytes], gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


def read_entry(place: str, raw: Any, models: dict[str, Model], *, ignore_unknown: bool) -> Entry | None:
    try:
        if not isinstance(raw, dict) or not isinstance(raw.get("model"), str):
            raise ObjectError("it names no model")
        model = models.get(raw["model"].lower())
        if model is None and not ignore_unknown:
            raise ObjectError(f"there is no model '{raw['model']}'")
        return model and Entry(place, model, read_object(model, raw, ignore_unknown=ignore_unknown))
    except ObjectError as error:
        raise CommandError(f"{place}: {error}. Nothing was loaded.") from error


# --- flush -------------------------------------------------------------------------------------------------------


@command(NOINPUT)
def flush(*, noinput: bool = False) -> None:
    """Empty every table, and keep the tables."""
    if not (noinput or confirm_flush()):
        console.say("Flush cancelled.")
        return
    tables = [model.table for model in list_models()]

    async def empty(session: AsyncSession) -> None:
        try:
            await (await session.connection()).run_sync(empty_tables, tables)
            await session.commit()
        except (IntegrityError, NotSupportedError) as error:  # a table that app/models.py does not know points here
            raise CommandError(f"{say(error)}. Nothing was deleted.") from error

    run_with_session(empty)
    console.say(f"Emptied {len(tables)} tables.")


def confirm_flush() -> bool:
    if not is_interactive():
        raise CommandError("There is no terminal to ask at. Use --noinput to go on without asking.")
    name = read_url(load_settings().database_url.get_secret_value()).database
    console.say(
        "You have requested a flush of the database.\n"
        f'This will IRREVERSIBLY DESTROY all data currently in the "{name}" database,\n'
        "and return each table to an empty state.\n"
        "Are you sure you want to do this?\n"
    )
    return input("    Type 'yes' to continue, or 'no' to cancel: ").strip() == "yes"


def empty_tables(connection: Connection, tables: Sequence[Table]) -> None:
    if connection.dialect.name == "postgresql":
        names = ", ".join(connection.dialect.identifier_preparer.format_table(table) for table in tables)
        connection.exec_driver_sql(f"TRUNCATE {names} RESTART IDENTITY")
        return
    connection.exec_driver_sql("PRAGMA defer_foreign_keys=ON")  # until the commit, for tables that point at each other
    for table in reversed(tables):
        connection.execute(delete(table))
