"""Collects the rules that tests prove, and writes the table clause - rule - test - result (``--conformance-table``)."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.rules import ConformanceTable

TABLE = Path(__file__).resolve().parents[1] / "CONFORMANCE.md"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--conformance-table", action="store_true", help=f"write {TABLE.name} from this run")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "rule(clause, text): the rule of a specification that a test proves")
    config.stash[_TABLE] = ConformanceTable()


_TABLE = pytest.StashKey[ConformanceTable]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        for marker in item.iter_markers("rule"):
            config.stash[_TABLE].collected(marker.args, item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    for marker in item.iter_markers("rule"):
        if report.when == "call" or not report.passed:
            item.config.stash[_TABLE].result(marker.args, passed=report.passed)
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.config.getoption("--conformance-table"):
        TABLE.write_text(session.config.stash[_TABLE].markdown())


@pytest.fixture(scope="session")
def conformance_table(request: pytest.FixtureRequest) -> Iterator[ConformanceTable]:
    yield request.config.stash[_TABLE]


@pytest.fixture(params=["xml", "wbxml"])
def syntax(request: pytest.FixtureRequest) -> str:
    """Each test with messages runs in both syntaxes."""
    return str(request.param)
