"""What is kept of DM sessions, and when it is dropped."""

from __future__ import annotations

from pathlib import Path

import pytest

from virmo_server.dm.trace import PRUNED_BY_ONE_OF, Trace
from virmo_server.vault import Vault


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return Vault(tmp_path / "key")


def test_one_session_of_many_drops_what_is_too_old(vault: Vault) -> None:
    trace = Trace(vault, 5)
    serials = [f"0000{number:02x}" for number in range(256)]
    pruning = [writes for serial in serials if (writes := trace.pruning(7, serial))]
    assert len(pruning) == len(serials) // PRUNED_BY_ONE_OF
    ((_statement, rows),) = pruning[0]
    assert rows == [{"device": 7, "kept": 4}]


def test_nothing_is_dropped_where_nothing_is_kept(vault: Vault) -> None:
    assert Trace(vault, 0).pruning(7, "00") == []
