"""The table of tests/REQUIREMENTS.md: requirement, tests, result; and what must be so of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.requirements.cited import TESTS, Citation
from tests.requirements.readings import READINGS
from tests.requirements.register import CONFORMANCE, REQUIREMENTS
from tests.requirements.results import Results

FILE = TESTS / "REQUIREMENTS.md"

#: What must have a test: the state machine, both management objects, the procedures, the alert; both sides of the
#: static conformance.
SCOPE = frozenset(
    requirement
    for requirement in (*REQUIREMENTS, *CONFORMANCE)
    if not requirement.startswith("R-")
    or any(first <= int(requirement[2:]) <= last for first, last in ((10, 68), (80, 125), (160, 164)))
)

HEADING = """# Requirements

Each requirement of OMA-ER-VirMO-V1_0 (and each static conformance item of its appendix C), the tests that cite it, and
how they ended in the run that wrote this. A test cites a requirement by naming its id in its docstring, a comment, a
mark or a message. "on Xen" are those that run on real, nested Xen; a number in parentheses counts tests of a file.

Generated: `tests/run` ends with it, or `python3 -m tests.requirements FILE…` over what `--requirement-results FILE`
wrote.
"""

READINGS_HEADING = """
## Readings

How we read the specification where it has gaps or contradicts itself.

| id | reading | tests | result |
|---|---|---|---|"""


@dataclass(frozen=True, slots=True)
class Row:
    """One requirement."""

    requirement: str
    clause: str
    level: str
    text: str
    tests: str
    result: str

    def markdown(self) -> str:
        """The line of the table."""
        cells = (self.requirement, self.clause, self.level, self.text.replace("<", "&lt;"), self.tests, self.result)
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def rows(found: Iterable[Citation], results: Results) -> Iterator[Row]:
    """A row for each requirement of the register."""
    by_requirement = _by_requirement(found)
    for requirement, (clause, level, text) in (REQUIREMENTS | CONFORMANCE).items():
        tests = by_requirement[requirement]
        yield Row(requirement, clause, level, text, _files(tests), _result(tests, results))


def markdown(found: Iterable[Citation], results: Results) -> str:
    """The whole file."""
    found = list(found)
    table = list(rows(found, results))
    tested = sum(row.result.startswith("pass") for row in table)
    lines = [
        HEADING,
        f"**{tested} of {len(table)} are proven by tests that pass.**",
        "",
        "| id | clause | level | requirement | tests | result |",
        "|---|---|---|---|---|---|",
        *(row.markdown() for row in table),
        READINGS_HEADING,
        *_readings(found, results),
    ]
    return "\n".join(lines) + "\n"


def _readings(found: Iterable[Citation], results: Results) -> Iterator[str]:
    """A line for each reading."""
    by_reading = _by_requirement(found)
    for reading, text in READINGS.items():
        tests = by_reading[reading]
        yield f"| {reading} | {text.replace('<', '&lt;')} | {_files(tests)} | {_result(tests, results)} |"


def _by_requirement(found: Iterable[Citation]) -> dict[str, list[Citation]]:
    by_requirement: dict[str, list[Citation]] = defaultdict(list)
    for citation in found:
        by_requirement[citation.requirement].append(citation)
    return by_requirement


def _files(tests: list[Citation]) -> str:
    counts: dict[str, int] = defaultdict(int)
    for citation in tests:
        counts[citation.file] += 1
    return ", ".join(f"`{file}`" + (f" ({count})" if count > 1 else "") for file, count in counts.items())


def _result(tests: list[Citation], results: Results) -> str:
    """``pass`` when all that were run passed; separately for real Xen, whose long form is not part of every run."""
    parts = []
    for nested, where in ((False, ""), (True, " on Xen")):
        verdicts = [results.of(c.file, c.test).verdict for c in tests if c.file.startswith("nested/") == nested]
        ran = [verdict for verdict in verdicts if verdict != "not run"]
        if ran:
            parts.append(("FAIL" if "FAIL" in ran else "pass") + where)
        elif verdicts:
            parts.append("not run" + where)
    return ", ".join(parts) or "no test"


def written(file: Path = FILE) -> dict[str, tuple[str, str]]:
    """Requirement → (tests, result), as the file has them."""
    cells = [line.strip("| ").split(" | ") for line in file.read_text(encoding="utf-8").splitlines()]
    return {row[0]: (row[4], row[5]) for row in cells if len(row) == len(Row.__slots__) and row[0] != "id"}
