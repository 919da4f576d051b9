"""Messages that are worked on ahead of their transaction: as if they had been worked on within it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import cast

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from dom0_agent.omadm import commands as c
from dom0_agent.omadm.client import ClientSession, PendingAlert
from dom0_agent.omadm.codec import XML_MEDIA_TYPE, codec_for
from tests.bench.server_fleet import Board, register_boards
from virmo_server.database import Database
from virmo_server.devices.registry import find_device
from virmo_server.dm.conversation import Answer, Question, converse
from virmo_server.model import Device, DmSession, Order, OrderState, ReceivedAlert
from virmo_server.orders.service import NodeCommand, Request
from virmo_server.services import Services

CODEC = codec_for(XML_MEDIA_TYPE)
HOME = "192.0.2.1"


class Meanwhile:
    """A database in which something happens between what is done ahead and the transaction."""

    def __init__(self, services: Services, happens: Callable[[], None]) -> None:
        self._database = services.database
        self._happens: Callable[[], None] | None = happens

    def __getattr__(self, name: str) -> object:
        return getattr(self._database, name)

    @contextmanager
    def write(self) -> Iterator[Session]:
        happens, self._happens = self._happens, None
        if happens is not None:
            happens()
        with self._database.write() as session:
            yield session


def while_it(services: Services, happens: Callable[[], None]) -> Services:
    """The same server, to which this happens."""
    return replace(services, database=cast(Database, Meanwhile(services, happens)))


@pytest.fixture
def board(services: Services) -> Board:
    (made,) = register_boards(services, 1)
    return made


def answer_to(services: Services, body: bytes, *, ahead: bool = True) -> bytes:
    (answer,) = converse(services, [Question(CODEC, body, None, HOME, CODEC.decode(body))], ahead=ahead)
    assert isinstance(answer, Answer)
    return answer.body


def talk(services: Services, client: ClientSession) -> int:
    """The whole session; its messages."""
    body: bytes | None = client.start()
    messages = 0
    while body is not None:
        body, messages = client.receive(answer_to(services, body), None), messages + 1
    assert client.outcome is not None
    assert client.outcome.ok, client.outcome
    return messages


def place_order(services: Services) -> None:
    with services.database.write() as session:
        command = NodeCommand("node-replace", "./VirMO/DeviceResources", "1")
        services.orders.node_command(session, find_device(session, "board-0"), Request("tester"), command)


def count(services: Services, table: type[ReceivedAlert | DmSession]) -> int:
    with services.database.read() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def order_state(services: Services) -> OrderState:
    with services.database.read() as session:
        return session.scalars(select(Order)).one().state


def test_a_board_that_has_nothing_to_do_is_seen_and_remembered(services: Services, board: Board) -> None:
    assert talk(services, board.begin()) == 1
    assert talk(services, board.begin()) == 1
    assert count(services, DmSession) == 2
    with services.database.read() as session:
        assert session.scalars(select(Device)).one().last_seen_at is not None


def test_an_order_that_was_there_before_is_done(services: Services, board: Board) -> None:
    place_order(services)
    assert talk(services, board.begin()) > 1
    assert order_state(services) is OrderState.DONE


def test_an_order_that_comes_meanwhile_is_done(services: Services, board: Board) -> None:
    busy = while_it(services, lambda: place_order(services))
    assert talk(busy, board.begin()) > 1
    assert order_state(services) is OrderState.DONE


def test_a_message_that_was_answered_meanwhile_is_not_taken_twice(services: Services, board: Board) -> None:
    """A device repeats itself while another process works on its message: both answer the same."""
    client = board.begin()
    body = client.start()
    assert body is not None
    first: list[bytes] = []
    busy = while_it(services, lambda: first.append(answer_to(services, body, ahead=False)))
    assert answer_to(busy, body) == first[0]
    assert client.receive(first[0], None) is None
    assert count(services, DmSession) == 1


def test_an_alert_is_recorded_once(services: Services, board: Board) -> None:
    meta = c.Meta(format="chr", type="urn:example:alert")
    alert = c.Alert(code=1226, items=(c.Item(source="./VirMO/x", meta=meta, data="hot"),))
    board.alerts = [PendingAlert("one", alert)]
    talk(services, board.begin())
    assert count(services, ReceivedAlert) == 1
