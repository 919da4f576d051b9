"""The table of rules in tests/CONFORMANCE.md is the one of today's tests."""

from __future__ import annotations

import pytest

from tests.conformance.conftest import TABLE
from tests.conformance.rules import ConformanceTable


@pytest.fixture(autouse=True)
def not_while_it_is_written(request: pytest.FixtureRequest) -> None:
    """The run that writes the table has nothing to compare yet."""
    if request.config.getoption("--conformance-table"):
        pytest.skip("the table is written at the end of this run")


def test_the_table_lists_every_rule_of_this_run(conformance_table: ConformanceTable) -> None:
    """A new rule must be in the file; run ``python -m pytest tests/conformance --conformance-table``."""
    written = TABLE.read_text()
    missing = [
        f"{clause}: {text}"
        for clause, text in conformance_table.keys
        if conformance_table.row(clause, text) not in written
    ]
    assert missing == []


def test_the_table_has_no_rule_without_a_test(
    conformance_table: ConformanceTable, request: pytest.FixtureRequest
) -> None:
    if len(request.session.items) < len(conformance_table.keys):
        return  # only a part of the suite was asked for
    rows = [
        line for line in TABLE.read_text().splitlines() if line.startswith("| ") and not line.startswith("| clause")
    ]
    assert len(rows) == len(conformance_table.keys)
    assert not [line for line in rows if not line.endswith("| pass |")]


def test_there_are_at_least_250_rules() -> None:
    assert sum(line.endswith("| pass |") for line in TABLE.read_text().splitlines()) >= 250
