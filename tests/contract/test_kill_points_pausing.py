"""SIGKILL of the agent at every journal write of Suspend and Resume where Suspend pauses, as on Arm (R-010, R-023,
A-56). Only on the simulator; on the machine under test they are ``test_kill_points``."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from dom0_agent.vm.model import Primitive
from tests.contract.support import open_backend
from tests.contract.test_kill_points import check_after_restart, perform


@pytest.mark.parametrize("primitive", [Primitive.SUSPEND, Primitive.RESUME], ids=lambda primitive: primitive.value)
def test_killed_at_every_journal_write(primitive: Primitive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIRMO_BACKEND", "pauses")
    points = perform(machine(tmp_path / "count"), primitive, None)
    assert points >= 3, "the begin with the first step's, the last step's end with the commit, and the report"
    for point in range(1, points + 1):
        for when in ("before", "after"):
            killed(machine(tmp_path / f"{when}-{point}"), primitive, point, when, points)


def machine(root: Path) -> Path:
    """A new machine's directory."""
    root.mkdir()
    return root


def killed(root: Path, primitive: Primitive, point: int, when: str, points: int) -> None:
    """One kill, and what a new agent makes of it."""
    try:
        assert perform(root, primitive, point, when) == -signal.SIGKILL, f"{when} write {point}"
        never_begun = (point, when) == (1, "before")
        already_told = (point, when) == (points, "after")
        check_after_restart(root, primitive, 0 if never_begun or already_told else 1)
    except AssertionError as error:
        raise AssertionError(f"{primitive.value}, killed {when} write {point} of {points}: {error}") from error
    finally:
        open_backend(root).close()
