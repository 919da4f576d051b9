"""The event stream and the trace of DM messages, over HTTPS and through ``virmo``."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
import requests

from dom0_agent.omadm.codec import WBXML_MEDIA_TYPE, XML_MEDIA_TYPE
from tests.integration.server.conftest import POSTGRESQL, SQLITE, Virmo
from tests.integration.server.server_process import ServerProcess
from virmo_server.cli.client import Event, read_events

BACKENDS = (SQLITE, POSTGRESQL)


def follow(server: ServerProcess, last: int | None = None, /, **query: str) -> requests.Response:
    headers = {"Authorization": f"Bearer {server.token}"} | ({} if last is None else {"Last-Event-ID": str(last)})
    url = f"{server.url}/api/v1/events"
    return requests.get(url, params=query, headers=headers, verify=server.ca_file, stream=True, timeout=30)


def take(response: requests.Response, until: str) -> list[Event]:
    """Events up to the first whose data has the given text."""
    events = []
    with response:
        assert response.status_code == 200, response.text
        for event in read_events(response.iter_lines(decode_unicode=True)):
            events.append(event)
            if until in json.dumps(event.data):
                return events
    raise AssertionError(events)


def test_changes_are_told_as_they_happen(server: ServerProcess) -> None:
    with follow(server, device="followed") as response:
        board = server.add_board("followed")
        board.session()
        events = take(response, '"done"')
    assert events[0].kind == "device"
    assert events[0].data["change"] == "new"
    states = [event.data["state"] for event in events if event.kind == "order"]
    assert (states[0], states[-1]) == ("queued", "done")
    assert [event.id for event in events] == sorted(event.id for event in events)


def test_a_follower_goes_on_where_it_was(server: ServerProcess) -> None:
    board = server.add_board("resumed")
    board.session()
    first = take(follow(server, device="resumed", after="0"), '"sent"')
    rest = take(follow(server, first[-1].id, device="resumed"), '"done"')
    whole = take(follow(server, device="resumed", after="0"), '"done"')
    assert [event.id for event in first + rest] == [event.id for event in whole]


def test_a_number_of_another_database_resets(server: ServerProcess) -> None:
    with follow(server, 10**12) as response:
        event = next(read_events(response.iter_lines(decode_unicode=True)))
    assert event.kind == "reset"


@pytest.mark.parametrize("query", [{"kind": "weather"}, {"after": "x"}, {"colour": "blue"}])
def test_mistakes_are_refused(server: ServerProcess, query: dict[str, str]) -> None:
    with follow(server, **query) as response:
        assert response.status_code == 422


def test_virmo_events_prints_lines(server: ServerProcess, virmo: Virmo) -> None:
    board = server.add_board("printed")
    results: list[Any] = []
    board.session()
    thread = threading.Thread(
        target=lambda: results.append(virmo("events", "printed", "--after", 0, "--kind", "order", "--count", 2))
    )
    thread.start()
    thread.join(30)
    assert results[0].status == 0
    lines = results[0].out.splitlines()
    assert "printed: order" in lines[0]
    assert lines[0].endswith("refresh queued")
    assert "refresh sent" in lines[1]


@pytest.mark.parametrize("media_type", [XML_MEDIA_TYPE, WBXML_MEDIA_TYPE])
@pytest.mark.parametrize("auth", ["md5", "basic"])
def test_the_trace_tells_what_was_said_and_no_secret(
    server: ServerProcess, virmo: Virmo, media_type: str, auth: str
) -> None:
    name = f"traced-{auth}-{'wbxml' if media_type == WBXML_MEDIA_TYPE else 'xml'}"
    board = server.add_board(name, auth=auth)
    board.media_type = media_type
    for _ in range(7):
        board.session()
    out = virmo("device", "trace", name, "--sessions", 100).out
    assert out.count("session of") == 5
    assert "1201 CLIENT_INITIATED" in out
    server.client.post(f"/devices/{name}/orders", {"kind": "refresh"})
    board.session()
    out = virmo("device", "trace", name).out
    assert "Get      ./VirMO" in out
    assert "Results" in out
    account = board.account
    for side in (account.client.credentials, account.server.credentials):
        assert side.secret not in out
    assert board.exchanges
    sessions = json.loads(virmo("device", "trace", name, "--sessions", 2, "--json").out)
    assert [message["from_device"] for message in sessions[0]["messages"][:2]] == [True, False]
