"""The table of what hosts do is whole, and every test that it names is there."""

import re
from pathlib import Path

from tests.faults.test_table import TEST, list_tests

TABLE = Path(__file__).with_name("README.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| (L\d\d) \| .+ \| (.+) \|$", re.MULTILINE)


def test_every_row_has_its_test() -> None:
    rows = ROW.findall(TABLE)
    assert [number for number, _ in rows] == [f"L{number:02}" for number in range(1, 21)]
    assert [number for number, tests in rows if not TEST.search(tests)] == []


def test_every_test_that_is_named_exists() -> None:
    missing = [f"{path}::{name}" for path, name in TEST.findall(TABLE) if name not in list_tests(path)]
    assert missing == []
