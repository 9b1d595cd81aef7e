"""Where the database stands, and a server that brings it up to date by itself."""

import asyncio
from pathlib import Path

import pytest
from pydantic import SecretStr

from app import schema
from app.database import Database
from app.schema import CatchUp, compare
from app.settings import Settings

PARENTS = {"0001": (), "0002": ("0001",), "0003": ("0002",)}


@pytest.mark.parametrize(
    ("found", "is_behind", "is_ahead"),
    [([], True, False), (["0002"], True, False), (["0003"], False, False), (["0099"], False, True)],
)
def test_the_database_is_behind_the_code_or_ahead_of_it(found: list[str], is_behind: bool, is_ahead: bool) -> None:
    standing = compare(found, PARENTS)
    assert (standing.is_behind, standing.is_ahead) == (is_behind, is_ahead)
    assert (standing.found, standing.needed) == (", ".join(found) or None, "0003")


def test_two_branches_of_the_code_need_both() -> None:
    assert compare(["0002"], {**PARENTS, "0004": ("0002",)}).needed == "0003, 0004"


@pytest.mark.anyio
async def test_a_disk_that_comes_late_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(schema, "AGAIN_SECONDS", 0.01)
    database = Database(Settings(database_url=SecretStr(f"sqlite:///{tmp_path}/volume/db.sqlite3")))
    catch_up = CatchUp(database)
    running = asyncio.create_task(catch_up.run())
    while "There is no folder" not in caplog.text:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    assert not catch_up.is_done and not catch_up.has_failed
    (tmp_path / "volume").mkdir()
    assert await catch_up.wait()
    await running
    assert (await schema.read_standing(database)).is_current
    assert (tmp_path / "volume" / "db.sqlite3").stat().st_mode & 0o077 == 0
    await database.close()
