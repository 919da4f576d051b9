"""The table of rules in tests/CONFORMANCE.md is the one of today's tests, to the letter."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.conftest import TABLE
from tests.conformance.rules import ConformanceTable

FOLDER = Path(__file__).parent


@pytest.fixture
def written(request: pytest.FixtureRequest, conformance_table: ConformanceTable) -> str:
    """The table in the file; in the run that writes it, the one that will be in the file."""
    if request.config.getoption("--conformance-table"):
        return conformance_table.markdown(verdict="pass")
    return TABLE.read_text()


def _is_whole(config: pytest.Config) -> bool:
    """Whether this run was asked for all conformance tests, and not for some files of them."""
    return any(FOLDER.is_relative_to(Path(argument.partition("::")[0]).resolve()) for argument in config.args)


def test_the_table_is_that_of_this_run(
    conformance_table: ConformanceTable, written: str, request: pytest.FixtureRequest
) -> None:
    """Each rule with its clause, its test and its result, which the tests' own success makes true; in this order.

    Otherwise run ``python -m pytest tests/conformance --conformance-table``.
    """
    today = conformance_table.markdown(verdict="pass")
    if _is_whole(request.config):
        assert written == today
    else:  # what was asked for is in the file as it is here
        rows = [line for line in today.splitlines() if line.endswith("| pass |")]
        assert [row for row in rows if row not in written] == []


def test_there_are_at_least_250_rules_and_each_names_its_clause(written: str) -> None:
    rows = [line for line in written.splitlines() if line.endswith(" |") and not line.startswith("| clause")]
    rules = [row.split(" | ") for row in rows]
    assert len(rules) >= 250
    assert [rule for rule in rules if rule[-1] != "pass |" or ": " not in rule[0]] == []
