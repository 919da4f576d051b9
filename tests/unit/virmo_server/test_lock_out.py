"""Guessing from one address is slowed down; nobody can lock a board out from elsewhere (digest 5, Security 5)."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest

from dom0_agent.omadm import commands as c
from dom0_agent.omadm.codec import XML_MEDIA_TYPE, codec_for
from dom0_agent.omadm.status import Status
from tests.bench.server_fleet import Board, register_boards
from tests.unit.virmo_server.conftest import MovableClock
from virmo_server.devices.access import place
from virmo_server.dm.conversation import Answer, Question, converse
from virmo_server.model import Device
from virmo_server.services import Services

CODEC = codec_for(XML_MEDIA_TYPE)
HOME, ELSEWHERE = "192.0.2.1", "198.51.100.7"
FREE = 5


def say(services: Services, board: Board, address: str, *, secret: str | None = None) -> int:
    """A session from ``address``; the last Status of its header."""
    if secret is not None:
        guess = replace(board.account, client=replace(board.account.client, secret=secret))
        board.sessions += 1
        board = Board(board.device_id, guess, copy.deepcopy(board.nonces), sessions=board.sessions)
    session = board.begin()
    body: bytes | None = session.start()
    code = 0
    while body is not None:
        (answer,) = converse(services, [Question(CODEC, body, None, address, CODEC.decode(body))])
        if not isinstance(answer, Answer):
            break  # it was turned away already
        statuses = [part for part in CODEC.decode(answer.body).body if isinstance(part, c.Status)]
        code = next(status.code for status in statuses if status.cmd == "SyncHdr")
        body = session.receive(answer.body, None)
    return code


@pytest.fixture
def board(services: Services) -> Board:
    (made,) = register_boards(services, 1)
    return made


def has_failed(services: Services) -> bool:
    with services.database.read() as session:
        return session.query(Device).one().auth_failed_at is not None


def test_a_stranger_elsewhere_does_not_lock_the_board_out(services: Services, board: Board) -> None:
    for _ in range(3 * FREE):
        assert say(services, board, ELSEWHERE, secret="guessed!") != Status.AUTHENTICATED
    assert has_failed(services)
    assert say(services, board, HOME) == Status.AUTHENTICATED
    assert not has_failed(services)


def test_the_right_secret_is_not_looked_at_where_guesses_came_from(
    services: Services, board: Board, clock: MovableClock
) -> None:
    for _ in range(2 * FREE):
        say(services, board, HOME, secret="guessed!")
    assert say(services, board, HOME) == Status.UNAUTHORIZED
    clock.forward(hours=2)
    assert say(services, board, HOME) == Status.AUTHENTICATED


def test_an_ipv6_host_cannot_evade_by_its_many_addresses() -> None:
    assert place("2001:db8:1:2:3:4:5:6", "urn:x:a") == place("2001:db8:1:2:ffff::1%eth0", "urn:x:a")
    assert place("2001:db8:1:3::1", "urn:x:a") != place("2001:db8:1:2::1", "urn:x:a")
    assert place(HOME, "urn:x:a") != place(ELSEWHERE, "urn:x:a")
    assert place(HOME, "urn:x:a") != place(HOME, "urn:x:b")
    assert place("unknown", "urn:x:a") == "unknown urn:x:a"
