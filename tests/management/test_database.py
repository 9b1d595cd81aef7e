"""Migrations, in Django's words."""

from pathlib import Path

import pytest

from app.management.pending import count_pending
from app.settings import ROOT, load_settings
from tests.management.conftest import AddPerson, Oppman

FILES = sorted(path.stem for path in (ROOT / "migrations" / "versions").glob("*.py"))
HEAD = FILES[-1][:4]
NEXT, THIRD = (f"{int(HEAD) + more:04d}" for more in (1, 2))


def test_migrating_there_and_back(oppman: Oppman) -> None:
    assert oppman("migrate").out == "No migrations to apply.\n"
    assert "Unapplying 0001_start... OK" in oppman("migrate", "zero").out
    assert " [ ] 0001_start\n" in oppman("showmigrations").out

    planned = oppman("migrate", "--plan")
    assert "0001_start" in planned.out
    assert planned.code == 0
    assert oppman("migrate", "--check").code == 1

    assert "Applying 0001_start... OK" in oppman("migrate", "0001_start", "--noinput").out
    assert " [X] 0001_start\n" in oppman("showmigrations").out
    assert oppman("migrate").code == 0
    assert oppman("migrate", "--check").code == 0


def test_faking_only_takes_notes(oppman: Oppman) -> None:
    assert "Unapplying 0001_start... FAKED" in oppman("migrate", "zero", "--fake").out
    assert "Applying 0001_start... FAKED" in oppman("migrate", "--fake").out
    assert oppman("clearsessions").code == 0, "the tables have been there all the time"


def test_sql_of_a_migration_goes_to_standard_output(oppman: Oppman) -> None:
    assert "CREATE TABLE person" in oppman("sqlmigrate", "0001").out
    assert "DROP TABLE person" in oppman("sqlmigrate", "0001", "--backwards").out


def test_models_and_migrations_are_in_step(oppman: Oppman) -> None:
    assert oppman("makemigrations", "--check") == (0, "No changes detected\n", "")


def test_going_back_takes_nothing_from_people(oppman: Oppman, add_person: AddPerson) -> None:
    """SQLite makes a table anew for some changes, and what belongs to the old one's rows would go with them."""
    add_person("ada@example.org", "Ada")
    oppman("createtoken", "ada@example.org")
    assert oppman("migrate", "0001").code == oppman("migrate").code == 0
    count = "print((await session.exec(select(func.count()).select_from(AccessToken).join(User))).one())"
    assert oppman("shell", "-c", count).out == "1\n"


def test_the_server_counts_what_waits_without_alembic(
    oppman: Oppman, database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def count(url: str) -> int | None:
        monkeypatch.setenv("DATABASE_URL", url)
        load_settings.cache_clear()
        return count_pending()

    assert count(database_url) == 0
    oppman("migrate", "zero")
    assert count(database_url) == len(FILES)
    assert count(f"sqlite:///{tmp_path}/none.sqlite3") == len(FILES)
    assert count("postgres://ada@127.0.0.1:1/x") is None


def test_a_missing_table_or_server_is_a_sentence(oppman: Oppman, tmp_path: Path) -> None:
    empty = f"sqlite:///{tmp_path}/empty.sqlite3"
    assert "has not the tables that are needed" in oppman("clearsessions", DATABASE_URL=empty).err
    away = oppman("showmigrations", DATABASE_URL="postgresql://ada:geheim@127.0.0.1:1/x")
    assert away.err.startswith("CommandError: The database does not answer: ")
    assert "geheim" not in away.err
    nowhere = oppman("migrate", DATABASE_URL=f"sqlite:///{tmp_path}/no/where.sqlite3")
    assert nowhere.err.startswith("CommandError: There is no folder ")


def test_a_file_that_is_no_database_is_a_sentence(oppman: Oppman, tmp_path: Path) -> None:
    other = tmp_path / "letter.txt"
    other.write_text("Dear Ada, " * 1000)
    for command in ("migrate", "showmigrations", "clearsessions"):
        refused = oppman(command, DATABASE_URL=f"sqlite:///{other}")
        assert (
            refused.err == "CommandError: The database does not answer: file is not a database. Check DATABASE_URL.\n"
        )


def test_a_new_database_is_for_its_owner_only(oppman: Oppman, tmp_path: Path) -> None:
    path = tmp_path / "new.sqlite3"
    assert oppman("migrate", DATABASE_URL=f"sqlite:///{path}").code == 0
    assert path.stat().st_mode & 0o077 == 0


CHANGED = f"""
import os
from app.management import main
os.environ["DATABASE_URL"] = "sqlite:///new.sqlite3"
codes = [main(["makemigrations"]), main(["migrate", "-v", "0"]), main(["makemigrations", "--dry-run"])]
codes += [main(["makemigrations"]), main(["migrate"]), main(["makemigrations"]), main(["migrate", "{HEAD}"])]
print(codes)
"""


def test_a_changed_model_becomes_a_migration_with_a_name(run_in: Oppman, project: Path) -> None:
    models = project / "app" / "auth" / "models.py"
    column = "    nickname: str | None = Field(default=None, max_length=40)\n"
    models.write_text(models.read_text().replace("    created_at:", f"{column}    created_at:", 1))

    done = run_in("-c", CHANGED)

    assert "CommandError: The database lacks older migrations" in done.err
    assert "    + Add column nickname to person\n" in done.out
    assert f"  migrations/versions/{NEXT}_person_nickname.py\n" in done.out
    assert f"Applying {NEXT}_person_nickname... OK\nNo changes detected\n" in done.out
    assert f"Unapplying {NEXT}_person_nickname... OK\n[1, 0, 0, 0, 0, 0, 0]\n" in done.out


EMPTY = """
import os
from app.management import main
main(["migrate", "-v", "0"])
main(["makemigrations", "--empty", "--dry-run"])
main(["makemigrations", "--empty", "-n", "foo"])
"""


def test_an_empty_migration_has_a_name_and_can_be_tried(run_in: Oppman, project: Path) -> None:
    done = run_in("-c", EMPTY, DATABASE_URL="sqlite:///new.sqlite3")
    assert done.err == ""
    written = [path.name for path in (project / "migrations" / "versions").glob(f"{NEXT}*.py")]
    assert written == [f"{NEXT}_foo.py"]
    assert done.out.count("migrations/versions/") == 1


MIGRATION = """
revision = "{number}"
down_revision = "{before}"

def upgrade(): pass

def downgrade(): pass
"""

MERGED = f"""
from pathlib import Path
from app.management import main
main(["migrate"])
main(["makemigrations", "--merge"])
main(["migrate"])
second = Path("migrations/versions/{THIRD}_b.py")
# Longer than before: Python takes bytecode for current by the file's size and the second of its change.
second.write_text(second.read_text().replace("{THIRD}", "{NEXT}") + "# changed")
main(["showmigrations"])
"""


def test_migrations_of_two_branches_are_noticed(run_in: Oppman, project: Path) -> None:
    for number, name in ((NEXT, "a"), (THIRD, "b")):
        path = project / "migrations" / "versions" / f"{number}_{name}.py"
        path.write_text(MIGRATION.format(number=number, before=HEAD))

    done = run_in("-c", MERGED)

    assert "Conflicting migrations detected; multiple leaf nodes in the migration graph: " in done.err
    assert f"Applying {int(HEAD) + 3:04d}_merge... OK" in done.out
    assert f"Two migrations have the number {NEXT}" in done.err
