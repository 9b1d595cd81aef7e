"""What every view of the admin panel has in common. Yours begins with `class ThingView(AdminView, model=Thing)`."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, ClassVar

from sqladmin import ModelView
from sqladmin.formatters import BASE_FORMATTERS
from sqlalchemy import ClauseElement, Select, String, cast, or_
from sqlalchemy.exc import IntegrityError
from starlette.exceptions import HTTPException
from starlette.requests import Request

from app.database import spell
from app.templating import moment

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet would run what begins so


class RefusedError(Exception):
    """What the panel does not do, in a sentence for the person who asked."""


class AdminView(ModelView):
    """sqladmin's view with safe manners: bounded, without SQL in what it says, and exports that are only text."""

    page_size = 25
    page_size_options: ClassVar = [25, 50, 100]
    export_max_rows = 10_000
    use_pretty_export = True
    column_type_formatters: ClassVar = {**BASE_FORMATTERS, datetime: moment}

    async def insert_model(self, request: Request, data: dict[str, Any]) -> Any:
        with speak_plainly():
            return await super().insert_model(request, data)

    async def update_model(self, request: Request, pk: str, data: dict[str, Any]) -> Any:
        with speak_plainly():
            return await super().update_model(request, pk, data)

    async def delete_model(self, request: Request, pk: str) -> None:
        with speak_plainly():
            await super().delete_model(request, pk)

    async def get_thing(self, pk: str) -> Any:
        """Find what somebody wants to change, for a view that leaves the change to a service."""
        thing = await self.get_object_for_delete(pk)
        if thing is None:
            raise RefusedError("It is not there any more.")
        return thing

    def search_query(self, stmt: Select[Any], term: str) -> Select[Any]:
        columns = [cast(getattr(self.model, name), String) for name in self._search_fields]
        return stmt.where(or_(*(column.icontains(word, autoescape=True) for column in columns for word in spell(term))))

    async def get_model_objects(self, request: Request, limit: int | None = 0) -> Any:
        """Export in the order of the list, so that one that is cut holds the newest."""
        return await self._run_query(self.sort_query(self.list_query(request), request).limit(limit or None))

    async def custom_export_cell(self, row: Any, name: str, value: Any) -> str:
        text = "" if value is None else str(value)
        return f"'{text}" if text.startswith(FORMULA_STARTS) else text

    def _stmt_by_identifier(self, identifier: str) -> Select[Any]:
        """An id that cannot be one belongs to nothing, which is no fault of ours."""
        try:
            return super()._stmt_by_identifier(identifier)
        except ValueError:
            raise HTTPException(404) from None

    async def _run_query(self, stmt: ClauseElement) -> Any:
        """Who only reads must not take SQLite's one place for a writer."""
        async with self.session_maker() as session:
            await session.connection(execution_options={"sqlite_begin": "BEGIN"})
            return (await session.execute(stmt)).scalars().unique().all()


@contextmanager
def speak_plainly(*said_to_people: type[Exception]) -> Iterator[None]:
    """sqladmin shows the text of every exception, and a database's holds SQL. The log gets it all."""
    try:
        yield
    except (RefusedError, HTTPException):
        raise
    except said_to_people as error:
        raise RefusedError(str(error)) from None
    except IntegrityError as error:
        raise RefusedError("That clashes with something that is there already, or with something it needs.") from error
    except Exception as error:
        raise RefusedError("That did not work, and it has been noted. Try again in a moment.") from error


def is_worth_a_line(record: logging.LogRecord) -> bool:
    """sqladmin logs a traceback for each form that is refused. One that somebody filled in wrongly is none."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, RefusedError) or error.__cause__ is not None


logging.getLogger("sqladmin.application").addFilter(is_worth_a_line)
