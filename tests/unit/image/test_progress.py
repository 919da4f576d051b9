"""Progress: percentages by weight, lines in a log, one line on a terminal."""

from __future__ import annotations

import io

from image.progress import Progress

WEIGHTS = {"fetch": 10.0, "pack": 30.0}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_gets_lines_that_grow_to_100_percent() -> None:
    out = io.StringIO()
    progress = Progress("dom0", out)
    progress.plan(WEIGHTS)
    with progress.step("fetch"):
        progress.fraction(0.5)
    with progress.step("pack"):
        progress.fraction(0.5)
    progress.finish()
    lines = out.getvalue().splitlines()
    assert lines[0] == "dom0   0% fetch"
    assert "dom0  25% pack" in lines
    assert "dom0  62% pack" in lines
    assert lines[-1].startswith("dom0 100% done in ")


def test_small_advances_do_not_fill_a_log() -> None:
    out = io.StringIO()
    progress = Progress("dom0", out)
    progress.plan({"long": 1.0})
    with progress.step("long"):
        for number in range(1000):
            progress.fraction(number / 1000)
    assert len(out.getvalue().splitlines()) <= 12


def test_cached_steps_count_as_done() -> None:
    progress = Progress("dom0", io.StringIO())
    progress.plan({**WEIGHTS, "last": 60.0})
    progress.skip(WEIGHTS, "unchanged")
    assert progress.percent() == 40


def test_a_terminal_gets_one_line_with_a_bar() -> None:
    out = Terminal()
    progress = Progress("dom0", out)
    progress.plan(WEIGHTS)
    with progress.step("fetch"):
        pass
    progress.finish()
    assert out.getvalue().count("\n") == 1
    assert "[######..................]  25% fetch" in out.getvalue()
