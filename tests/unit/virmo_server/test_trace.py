"""What is kept of DM sessions, and when it is dropped."""

from __future__ import annotations

from pathlib import Path

import pytest

from dom0_agent.omadm.codec import XML_MEDIA_TYPE
from tests.bench.server_fleet import register_boards
from virmo_server.devices.registry import find_device
from virmo_server.dm.trace import MAX_KEPT_BYTES, PRUNED_BY_ONE_OF, Exchange, Trace
from virmo_server.services import Services
from virmo_server.statements import write_all
from virmo_server.vault import Vault

MESSAGE = (
    b"<SyncML><SyncHdr><SessionID>7</SessionID><MsgID>%d</MsgID><Target><LocURI>t</LocURI></Target>"
    b"<Source><LocURI>s</LocURI></Source></SyncHdr><SyncBody><Final/></SyncBody></SyncML>"
)
LARGE = b" " * (MAX_KEPT_BYTES + 1)


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


@pytest.mark.parametrize(
    ("question", "answer"),
    [(MESSAGE % 1, MESSAGE % 2), (LARGE, MESSAGE % 2), (MESSAGE % 1, LARGE), (LARGE, LARGE)],
    ids=["both", "answer", "question", "none"],
)
def test_what_is_shown_is_what_was_said(services: Services, question: bytes, answer: bytes) -> None:
    """A message that is too large to be kept is counted, and its neighbour is shown."""
    register_boards(services, 1)
    with services.database.write() as session:
        device = find_device(session, "board-0")
        exchange = Exchange(question, answer, services.clock())
        write_all(session.connection(), services.trace.keeping(device.id, "aa", XML_MEDIA_TYPE, exchange))
    with services.database.read() as session:
        (shown,) = services.trace.show(session, device, 1)
    assert [(m.from_device, m.size) for m in shown.messages] == [(True, len(question)), (False, len(answer))]
    for number, (message, body) in enumerate(zip(shown.messages, (question, answer), strict=True), 1):
        text = "\n".join(message.lines)
        assert ("too many to be kept" if body is LARGE else f"message {number}") in text, text
