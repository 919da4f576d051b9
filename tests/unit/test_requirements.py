"""tests/REQUIREMENTS.md is complete and names only tests that exist; and the machinery that makes it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.requirements.cited import Citation, citations, cited
from tests.requirements.readings import READINGS
from tests.requirements.register import CONFORMANCE, REQUIREMENTS
from tests.requirements.results import Results, read_results
from tests.requirements.table import SCOPE, markdown, rows, written


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("R-010 and R-012.", ["R-010", "R-012"]),
        ("R-018 to R-020, A-01", ["R-018", "R-019", "R-020", "A-01"]),
        ("A-29 to A-31; SHA-256, UTF-8, A-100", ["A-29", "A-30", "A-31"]),
        ("VirMO-C-002 to C-004; VirMO-T-001-M", ["VirMO-C-002", "VirMO-C-003", "VirMO-C-004", "VirMO-T-001"]),
        ("OMA-ERDEF-VirMO-C-001-M", ["OMA-ERDEF-VirMO-C-001"]),
        ("XR-0100 R-1234 R-99", []),
    ],
)
def test_ids_and_ranges_are_found(text: str, ids: list[str]) -> None:
    assert list(cited(text)) == ids


def test_every_requirement_in_scope_is_cited_by_a_test() -> None:
    assert sorted(SCOPE - {citation.requirement for citation in citations()}) == []


def test_every_reading_is_cited_by_a_test() -> None:
    assert sorted(READINGS.keys() - {citation.requirement for citation in citations()}) == []


def test_no_test_cites_what_does_not_exist() -> None:
    strange = [found for found in citations() if found.requirement not in REQUIREMENTS | CONFORMANCE | READINGS]
    assert strange == []


def test_the_file_is_of_today() -> None:
    """It has each requirement, names no file that no longer proves it, and says of nothing in scope that it fails.

    A new test may come before the next whole run of ``tests/run`` writes the file anew.
    """
    file = written()
    assert set(file) == set(REQUIREMENTS | CONFORMANCE)
    today = {(found.requirement, found.file) for found in citations()}
    named = [
        (requirement, word.split("`")[1])
        for requirement, (tests, _) in file.items()
        for word in tests.split(", ")
        if "`" in word
    ]
    assert [pair for pair in named if pair not in today] == []
    assert [requirement for requirement in sorted(SCOPE) if not file[requirement][1].startswith("pass")] == []


def test_results_are_recorded_and_shown(tmp_path: Path) -> None:
    """A test that fails in any of its forms fails; what was not run is not said to pass."""
    results_file = tmp_path / "results"
    options = ["-q", "-p", "no:cacheprovider", "--requirement-results", str(results_file)]
    this = f"{__file__}::test_ids_and_ranges_are_found"
    subprocess.run([sys.executable, "-m", "pytest", *options, this], check=True, timeout=120, capture_output=True)
    results = read_results([results_file])
    assert results.of("unit/test_requirements.py", "test_ids_and_ranges_are_found").verdict == "pass"
    lines = [{"file": "nested/test_a.py", "test": "test_a", "passed": passed} for passed in (True, False)]
    results_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = [Citation("R-010", "nested/test_a.py", "test_a"), Citation("R-010", "unit/test_b.py", "test_b")]
    made = {row.requirement: row.result for row in rows(found, read_results([results_file]))}
    assert made["R-010"] == "not run, FAIL on Xen"
    assert made["R-011"] == "no test"


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    file = tmp_path / "table.md"
    file.write_text(markdown([Citation("R-010", "unit/test_b.py", "test_b")], Results()))
    assert written(file)["R-010"] == ("`unit/test_b.py`", "not run")
    assert len(written(file)) == len(REQUIREMENTS | CONFORMANCE)
