"""Asks devices to open a session: package 0 by HTTP POST to the address where a device's agent listens.

Only a hint that saves waiting for the device's next poll: an order is never lost with it, and what fails is tried again
by :meth:`Notifier.remind`. Runs in a thread of its own, so that no operator waits for a board that is off.
"""

from __future__ import annotations

import logging
import queue
import secrets
import threading
from dataclasses import dataclass
from datetime import datetime, timedelta

import requests
from sqlalchemy import func, or_, select
from sqlalchemy.exc import OperationalError

from dom0_agent.omadm.notification import build_notification
from virmo_server.clock import Clock
from virmo_server.database import Database
from virmo_server.devices.registry import lock_device
from virmo_server.model import Device, Order, OrderState
from virmo_server.vault import Vault

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/vnd.syncml.notification"
#: A board answers with an empty 2xx at once; what takes longer is off or elsewhere.
TIMEOUT_SECONDS = 5
#: Devices that may wait to be notified; the reminder finds the work of those that do not fit.
MAX_WAITING = 10_000
#: A device that was notified so recently, and has not come since, is on its way.
ON_ITS_WAY = timedelta(seconds=10)
#: Agents drop more than 60 notifications a minute as a flood; what is above this is left to the reminder.
MOST_PER_MINUTE = 30
#: A device with work that does not come is reminded, ever more rarely: after a quarter of the time that its work has
#: waited, within these bounds.
REMIND_AFTER_AT_LEAST = timedelta(seconds=30)
REMIND_AFTER_AT_MOST = timedelta(minutes=30)
#: One device off the network costs :data:`TIMEOUT_SECONDS`; so many are asked at the same time.
WORKERS = 4


@dataclass(frozen=True, slots=True)
class _Letter:
    """A package 0 and where it goes."""

    device_id: int
    name: str
    url: str
    body: bytes


class Notifier:
    """Sends in the background between :meth:`start` and :meth:`close`."""

    def __init__(self, database: Database, vault: Vault, clock: Clock, server_id: str) -> None:
        self._database = database
        self._vault = vault
        self._clock = clock
        self._server_id = server_id
        self._waiting: queue.Queue[int | None] = queue.Queue(MAX_WAITING)
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Begin to send."""
        self._threads = [
            threading.Thread(target=self._run, name=f"notifier-{number}", daemon=True) for number in range(WORKERS)
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop; what still waits is found by the reminder after the next start."""
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join(2 * TIMEOUT_SECONDS)
        self._threads = []

    def wake(self, device_id: int) -> None:
        """There is work for this device. Never blocks."""
        try:
            self._waiting.put_nowait(device_id)
        except queue.Full:
            logger.warning("notification queue is full device_id=%d", device_id)

    def remind(self) -> int:
        """Wake devices that have work and did not come for it; how many."""
        now = self._clock()
        waiting_since = func.min(Order.created_at)
        query = (
            select(Device.id, Device.notified_at, waiting_since)
            .join(Order, Order.device_id == Device.id)
            .where(Device.notify_url.is_not(None), Order.state.in_([OrderState.QUEUED, OrderState.SENT]))
            .where(or_(Device.last_seen_at.is_(None), Device.last_seen_at < now - REMIND_AFTER_AT_LEAST))
            .group_by(Device.id, Device.notified_at)
        )
        with self._database.read() as session:
            late = [
                device_id
                for device_id, notified_at, since in session.execute(query)
                if notified_at is None or now - notified_at >= _patience(now - since)
            ]
        for device_id in late:
            self.wake(device_id)
        return len(late)

    def _run(self) -> None:
        with requests.Session() as http:
            http.trust_env = False
            while (device_id := self._waiting.get()) is not None:
                try:
                    letter = self._write(device_id)
                    if letter is not None:
                        self._note(letter, _post(http, letter))
                except OperationalError as error:  # the reminder comes again when the database does
                    logger.error("notification put off device_id=%d: %s", device_id, type(error.orig).__name__)

    def _write(self, device_id: int) -> _Letter | None:
        """The letter to send now, counted in the database, where every process sees it."""
        now = self._clock()
        with self._database.read() as session:
            device = session.get(Device, device_id)
            if device is None or device.notify_url is None or _is_on_its_way(device, now):
                return None
        with self._database.write() as session:
            lock_device(session, device_id)
            device = session.get(Device, device_id)
            if device is None or device.notify_url is None or _is_on_its_way(device, now) or not _admit(device, now):
                return None
            device.notified_at, device.notify_error = now, None
            body = build_notification(
                self._server_id,
                self._vault.open(device.server_secret),
                device.server_nonce,
                secrets.randbelow(0xFFFF) + 1,
            )
            return _Letter(device_id, device.name, device.notify_url, body)

    def _note(self, letter: _Letter, error: str | None) -> None:
        with self._database.write() as session:
            device = session.get(Device, letter.device_id)
            if device is not None:
                device.notify_error = error
        if error is None:
            logger.info("notified device=%s", letter.name)
        else:
            logger.warning("notification failed device=%s: %s", letter.name, error)


def _admit(device: Device, now: datetime) -> bool:
    """Count this notification, unless the minute has had enough."""
    if device.notify_window_at is None or now - device.notify_window_at >= timedelta(minutes=1):
        device.notify_window_at, device.notify_count = now, 0
    if device.notify_count >= MOST_PER_MINUTE:
        return False
    device.notify_count += 1
    return True


def _patience(waited: timedelta) -> timedelta:
    return min(max(waited / 4, REMIND_AFTER_AT_LEAST), REMIND_AFTER_AT_MOST)


def _is_on_its_way(device: Device, now: datetime) -> bool:
    if device.notified_at is None or device.notify_error is not None or now - device.notified_at >= ON_ITS_WAY:
        return False
    return device.last_seen_at is None or device.last_seen_at < device.notified_at


def _post(http: requests.Session, letter: _Letter) -> str | None:
    """Why it failed, or ``None``."""
    try:
        response = http.post(
            letter.url,
            data=letter.body,
            headers={"Content-Type": MEDIA_TYPE},
            timeout=TIMEOUT_SECONDS,
            allow_redirects=False,
        )
    except requests.Timeout:
        return f"no answer within {TIMEOUT_SECONDS} s"
    except requests.RequestException as error:
        return f"not reachable ({type(error).__name__})"
    return None if response.ok else f"answered {response.status_code}"
