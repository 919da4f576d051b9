"""The file of measured figures keeps what a run did not measure, and says anew what it did."""

from __future__ import annotations

from pathlib import Path

from tests.figures import Table, write


def table(heading: str, *rows: tuple[object, ...]) -> Table:
    made = Table(heading, "About it.", ("what", "how much"))
    for row in rows:
        made.add(*row)
    return made


def test_a_run_writes_its_own_sections_anew(tmp_path: Path) -> None:
    file = tmp_path / "FIGURES.md"
    write(file, [table("CPU", ("a", 1)), table("Network", ("b", 2))])
    write(file, [table("Network", ("c", 3), ("d", 4)), table("Disk")])
    lines = file.read_text().splitlines()
    assert [line for line in lines if line.startswith("#")] == ["# Resources as measured", "## CPU", "## Network"]
    assert [line for line in lines if line.startswith("| ")][1:2] == ["| --- | --- |"]
    assert {"| a | 1 |", "| c | 3 |", "| d | 4 |"} <= set(lines)
    assert "| b | 2 |" not in lines
    before = file.read_text()
    write(file, [table("CPU", ("a", 1))])
    assert file.read_text() == before
