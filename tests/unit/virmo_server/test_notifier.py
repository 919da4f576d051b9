"""Notifications: a device with work is asked to come, and what fails is seen and tried again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from queue import Queue

import pytest

from dom0_agent.omadm.notification import Verification, parse_notification, verify_notification
from tests.integration.server.server_process import free_port
from tests.unit.virmo_server.conftest import MovableClock
from tests.unit.virmo_server.fleet import Fleet
from virmo_server.notify import MEDIA_TYPE
from virmo_server.services import Services


class Listener(HTTPServer):
    """Where an agent would listen; keeps what it was sent."""

    def __init__(self, status: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status = status
        self.received: Queue[tuple[str, bytes]] = Queue()
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Listener

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.put((self.headers["Content-Type"], body))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the parent calls it so
        """Quiet."""


@pytest.fixture
def listener(request: pytest.FixtureRequest) -> Iterator[Listener]:
    made = Listener(getattr(request, "param", 202))
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def listening(fleet: Fleet, url: str) -> int:
    with fleet.services.database.write() as session:
        device = fleet.device(session)
        device.notify_url = url
        return device.id


def sent(services: Services, device_id: int) -> None:
    services.notifier.start()
    services.notifier.wake(device_id)
    services.notifier.close()


def test_package_0_proves_itself(services: Services, listener: Listener) -> None:
    """OMA-TS-DM-Notification: digest with the server's secret and the nonce that the device gave last."""
    fleet = Fleet(services)
    device_id = listening(fleet, listener.url)
    sent(services, device_id)
    media_type, body = listener.received.get(timeout=10)
    assert media_type == MEDIA_TYPE
    notification = parse_notification(body)
    assert notification.server_id == services.config.server_id
    with services.database.read() as session:
        device = fleet.device(session)
    secret = services.vault.open(device.server_secret)
    assert verify_notification(notification, secret, device.server_nonce) is Verification.STORED
    assert (device.notified_at, device.notify_error) == (services.clock(), None)


@pytest.mark.parametrize("listener", [500], indirect=True)
def test_refused_notification_is_shown(services: Services, listener: Listener) -> None:
    fleet = Fleet(services)
    sent(services, listening(fleet, listener.url))
    with services.database.read() as session:
        assert fleet.device(session).notify_error == "answered 500"


def test_unreachable_device_is_shown(services: Services) -> None:
    fleet = Fleet(services)
    sent(services, listening(fleet, f"http://127.0.0.1:{free_port()}"))
    with services.database.read() as session:
        assert fleet.device(session).notify_error == "not reachable (ConnectionError)"


def test_device_with_work_is_reminded_ever_more_rarely(services: Services, clock: MovableClock) -> None:
    fleet = Fleet(services)
    device_id = listening(fleet, f"http://127.0.0.1:{free_port()}")
    assert services.notifier.remind() == 0
    fleet.refresh()
    sent(services, device_id)
    assert services.notifier.remind() == 0
    clock.forward(seconds=31)
    assert services.notifier.remind() == 1
    clock.forward(hours=1)
    sent(services, device_id)
    clock.forward(minutes=14)
    assert services.notifier.remind() == 0
    clock.forward(minutes=10)
    assert services.notifier.remind() == 1


def test_device_that_comes_is_not_reminded(services: Services, clock: MovableClock) -> None:
    fleet = Fleet(services)
    listening(fleet, "http://127.0.0.1:1")
    fleet.refresh()
    clock.forward(minutes=5)
    with services.database.write() as session:
        fleet.device(session).last_seen_at = clock.now
    assert services.notifier.remind() == 0


def test_second_order_does_not_notify_twice(services: Services, listener: Listener) -> None:
    """The device is on its way and will find both; once it came, it is notified again."""
    fleet = Fleet(services)
    device_id = listening(fleet, listener.url)
    sent(services, device_id)
    sent(services, device_id)
    assert listener.received.qsize() == 1
    with services.database.write() as session:
        fleet.device(session).last_seen_at = services.clock()
    sent(services, device_id)
    assert listener.received.qsize() == 2


def test_no_flood(services: Services, listener: Listener, clock: MovableClock) -> None:
    """An agent drops more than sixty a minute; the server stays below."""
    fleet = Fleet(services)
    device_id = listening(fleet, listener.url)
    for _ in range(40):
        clock.forward(seconds=1)
        with services.database.write() as session:
            fleet.device(session).last_seen_at = services.clock()
        sent(services, device_id)
    assert listener.received.qsize() == 30


def test_device_without_an_address_is_left_alone(services: Services) -> None:
    fleet = Fleet(services)
    with services.database.read() as session:
        device_id = fleet.device(session).id
    sent(services, device_id)
    with services.database.read() as session:
        assert fleet.device(session).notified_at is None
