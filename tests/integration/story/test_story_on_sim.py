"""The whole story on the simulator: server, agent, shim and command lines as their users run them."""

from __future__ import annotations

from pathlib import Path

import pytest

from image.story.server import Server
from image.story.sim_board import SimBoard
from image.story.steps import Story


@pytest.mark.parametrize("can_save", [True, False], ids=["saves", "pauses as on Arm"])
def test_every_step_agrees(tmp_path: Path, can_save: bool) -> None:
    """R-100 to R-125: deliver, create, share out the CPU, power off, power on, suspend, resume, delete.

    Over OMA DM, between our client and our server: R-001 to R-005, OMA-ERDEF-VirMO-C-001-M, OMA-ERDEF-VirMO-S-001-M,
    VirMO-S-001-M.
    """
    board = SimBoard(tmp_path / "board", can_save=can_save)
    server = Server(tmp_path / "server", board.server_host)
    try:
        server.start()
        rows = list(Story(server, board, lambda _step: None).tell())
    finally:
        server.close()
        board.close()
    assert [(row.step, row.problems) for row in rows if row.problems] == []
    assert [row.status for row in rows] == ["-"] + ["200"] * 8
    assert [row.state.split()[0] for row in rows[1:]] == ["2", "2", "2", "1", "2", "3", "2", "gone"]
