"""The state machines are tables: complete, and drawn in the README as they are."""

from __future__ import annotations

import pytest

from dom0_agent.omadm.client import _ACTIONS as CLIENT_ACTIONS
from dom0_agent.omadm.client_states import CLIENT_TABLE, ClientEvent, ClientState
from dom0_agent.omadm.drawing import README, with_drawings
from dom0_agent.omadm.server import _ACTIONS as SERVER_ACTIONS
from dom0_agent.omadm.server_states import SERVER_TABLE, ServerEvent, ServerState
from dom0_agent.omadm.session import Row, table_of


def test_the_readme_has_the_drawings_of_today() -> None:
    text = README.read_text()
    assert with_drawings(text) == text, "run python -m dom0_agent.omadm.drawing"


def test_a_waiting_client_knows_what_to_do_on_every_event() -> None:
    waiting = set(ClientState) - {ClientState.NEW, ClientState.OVER}
    missing = [(s, e) for s in waiting for e in set(ClientEvent) - {ClientEvent.START} if (s, e) not in CLIENT_TABLE]
    assert missing == []


def test_a_listening_server_knows_what_to_do_on_every_event() -> None:
    decisions = {ServerEvent.SENT_ALL, ServerEvent.SENT_PART, ServerEvent.SENT_NOTHING}
    listening = set(ServerState) - {ServerState.DECIDING, ServerState.OVER}
    heard = set(ServerEvent) - decisions - {ServerEvent.WAITING}
    assert [(s, e) for s in listening for e in heard if (s, e) not in SERVER_TABLE] == []
    assert [e for e in decisions if (ServerState.DECIDING, e) not in SERVER_TABLE] == []
    assert (ServerState.SENDING, ServerEvent.WAITING) in SERVER_TABLE


def test_every_action_of_the_tables_exists_and_is_used() -> None:
    assert {row.action for row in CLIENT_TABLE.values()} == set(CLIENT_ACTIONS)
    assert {row.action for row in SERVER_TABLE.values()} - {""} == set(SERVER_ACTIONS)


def test_nothing_leads_out_of_the_end() -> None:
    assert not [key for key in CLIENT_TABLE if key[0] is ClientState.OVER]
    assert not [key for key in SERVER_TABLE if key[0] is ServerState.OVER]


def test_two_rows_for_the_same_state_and_event_are_a_mistake() -> None:
    row = Row((ClientState.NEW,), ClientEvent.START, ClientState.OPENING, "x")
    with pytest.raises(ValueError, match="two rows"):
        table_of([row, row])
