"""What became of the tests: written down while they run (``--requirement-results FILE``), read for the table.

A pytest plugin. One line of JSON for each test that was run; several runs may add to one file.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.requirements.cited import TESTS

OPTION = "--requirement-results"


@dataclass
class Tally:
    """How the forms of one test ended."""

    passed: int = 0
    failed: int = 0

    @property
    def verdict(self) -> str:
        """One word."""
        return "FAIL" if self.failed else "pass" if self.passed else "not run"


@dataclass
class Results:
    """Of all tests, by file below ``tests`` and name of the function."""

    tallies: dict[tuple[str, str], Tally] = field(default_factory=lambda: defaultdict(Tally))

    def of(self, file: str, test: str) -> Tally:
        """A test's, empty when it was not run."""
        return self.tallies.get((file, test), Tally())


class Recorder:
    """Notes each test's end. In a parallel run only the process that hears of all of them has one."""

    def __init__(self, file: Path, root: Path) -> None:
        self._file = file
        self._root = root

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test's part (setup, call, teardown) ended."""
        if report.when != "call" and report.passed:
            return
        path, _, rest = report.nodeid.partition("::")
        file = (self._root / path).resolve()
        if not file.is_relative_to(TESTS):
            return
        name = rest.rpartition("::")[2].partition("[")[0]
        line = {"file": file.relative_to(TESTS).as_posix(), "test": name, "passed": report.passed}
        with self._file.open("a", encoding="utf-8") as out:
            out.write(json.dumps(line) + "\n")


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option."""
    parser.addoption(OPTION, type=Path, default=None, metavar="FILE", help="add each test's result to FILE")


def pytest_configure(config: pytest.Config) -> None:
    """Record, if asked to."""
    file = config.getoption(OPTION)
    if file is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Recorder(file.resolve(), config.rootpath))


def read_results(files: Iterable[Path]) -> Results:
    """What recorders wrote."""
    results = Results()
    for file in files:
        for line in file.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            tally = results.tallies[entry["file"], entry["test"]]
            if entry["passed"]:
                tally.passed += 1
            else:
                tally.failed += 1
    return results
