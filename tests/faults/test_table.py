"""The table of faults is whole, and every test that it names is there."""

import ast
import re
from pathlib import Path

from app.settings import ROOT

ROW = re.compile(r"^\| (F\d\d) \| .+ \| (.+) \|$", re.MULTILINE)
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def read_rows() -> dict[str, str]:
    rows = ROW.findall(Path(__file__).with_name("README.md").read_text(encoding="utf-8"))
    assert len(rows) == len(dict(rows)), "A fault stands there twice"
    return dict(rows)


def list_tests(path: str) -> set[str]:
    file = ROOT / path
    nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if file.exists() else ()
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_no_fault_is_missing() -> None:
    rows = read_rows()
    assert list(rows) == [f"F{number:02}" for number in range(1, 39)]
    assert [fault for fault, tests in rows.items() if not TEST.search(tests)] == []


def test_every_promise_is_proven() -> None:
    promises = re.findall(
        r"^\| (P\d) \| .+ \| (.+) \|$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert [promise for promise, tests in promises if TEST.search(tests)] == [f"P{number}" for number in range(1, 7)]


def test_every_test_that_is_named_exists() -> None:
    tables = Path(__file__).with_name("README.md"), ROOT / "README.md"
    named = {found for table in tables for found in TEST.findall(table.read_text(encoding="utf-8"))}
    missing = [f"{path}::{name}" for path, name in sorted(named) if name not in list_tests(path)]
    assert missing == []
