"""Writes tests/REQUIREMENTS.md from the results of runs: ``python3 -m tests.requirements FILE…``.

With no FILE it only says which requirements in scope have no test. Exit status 1 when there are such, or one failed.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.requirements.cited import citations
from tests.requirements.results import read_results
from tests.requirements.table import FILE, SCOPE, markdown, rows


def main(files: list[str]) -> int:
    """See above."""
    found = citations()
    results = read_results(Path(name) for name in files)
    untested = sorted(SCOPE - {citation.requirement for citation in found})
    failed = sorted(row.requirement for row in rows(found, results) if "FAIL" in row.result)
    if files:
        FILE.write_text(markdown(found, results), encoding="utf-8")
        print(f"{FILE} is written")
    for problem, ids in (("no test", untested), ("a test failed", failed)):
        if ids:
            print(f"{problem}: {', '.join(ids)}")
    return 1 if untested or failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
