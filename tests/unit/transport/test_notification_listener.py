"""The notification listener on a real socket: what it takes, what it turns away, and that it lives on."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from dom0_agent.transport.notification_listener import MAX_CONNECTIONS, MEDIA_TYPE, NotificationListener


class Taken:
    def __init__(self) -> None:
        self.octets: list[bytes] = []
        self.room = True

    def __call__(self, untrusted_octets: bytes) -> bool:
        if self.room:
            self.octets.append(untrusted_octets)
        return self.room


@pytest.fixture
def taken() -> Taken:
    return Taken()


@pytest.fixture
def listener(taken: Taken) -> Iterator[NotificationListener]:
    made = NotificationListener("127.0.0.1", 0, taken)
    yield made
    made.close()


def post(listener: NotificationListener, body: bytes, media_type: str = MEDIA_TYPE, method: str = "POST") -> int:
    with closing(http.client.HTTPConnection("127.0.0.1", listener.port, timeout=5)) as connection:
        connection.request(method, "/", body, {"Content-Type": media_type})
        return connection.getresponse().status


def test_a_notification_is_handed_on(listener: NotificationListener, taken: Taken) -> None:
    assert post(listener, b"package 0") == 202
    assert taken.octets == [b"package 0"]


@pytest.mark.parametrize(
    ("body", "media_type", "method", "status"),
    [
        (b"x", "text/plain", "POST", 415),
        (b"x" * 1025, MEDIA_TYPE, "POST", 413),
        (b"", MEDIA_TYPE, "GET", 501),
    ],
)
def test_everything_else_is_turned_away(
    listener: NotificationListener, taken: Taken, body: bytes, media_type: str, method: str, status: int
) -> None:
    assert post(listener, body, media_type, method) == status
    assert taken.octets == []


def test_a_full_queue_says_so(listener: NotificationListener, taken: Taken) -> None:
    taken.room = False
    assert post(listener, b"x") == 503


def test_silent_connections_do_not_keep_others_out_for_long(listener: NotificationListener, taken: Taken) -> None:
    """More connections than places, none of which says a word: they time out and a server gets through."""
    silent = [socket.create_connection(("127.0.0.1", listener.port)) for _ in range(2 * MAX_CONNECTIONS)]
    deadline = time.monotonic() + 20
    while not taken.octets and time.monotonic() < deadline:
        try:
            post(listener, b"at last")
        except (OSError, http.client.HTTPException):
            time.sleep(0.2)
    for connection in silent:
        connection.close()
    assert taken.octets == [b"at last"]
