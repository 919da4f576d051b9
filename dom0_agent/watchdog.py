"""Tells systemd that the agent's loop turns, so that an agent that hangs is started again (sd_notify, ``WATCHDOG=1``).

A loop that waits for work is well; one that works has a limit, since a session with a slow server takes minutes. All
this only with a watchdog in the service's environment. Knows nothing of what the loop does.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

log = logging.getLogger(__name__)

#: Seconds that one turn of the loop may take: longer than the longest session with all its answers.
PATIENCE = 1800.0
#: Of systemd's limit; it recommends to speak at half of it.
_SHARE = 0.5
_MICROSECONDS = 1_000_000


def notify(address: str, message: str) -> None:
    """Sends a message to systemd's socket; ``@`` begins the name of an abstract one. :raises OSError: it failed"""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(message.encode(), "\0" + address[1:] if address.startswith("@") else address)


class Watchdog:
    """Speaks from a thread of its own as long as the loop is well. ``close`` when done."""

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        patience: float = PATIENCE,
        clock: Callable[[], float] = time.monotonic,
        send: Callable[[str, str], None] = notify,
    ) -> None:
        """``environment`` is the service's: WATCHDOG_USEC and NOTIFY_SOCKET, if systemd watches."""
        microseconds = environment.get("WATCHDOG_USEC", "")
        self._address = environment.get("NOTIFY_SOCKET", "")
        self._interval = int(microseconds) / _MICROSECONDS * _SHARE if microseconds.isdecimal() else 0.0
        self._patience = patience
        self._clock = clock
        self._send = send
        self._busy_since: float | None = clock()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        if self._address and self._interval > 0:
            self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
            self._thread.start()

    @classmethod
    def of_service(cls) -> Watchdog:
        """As this process's environment says."""
        return cls(os.environ)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """While this lasts, the loop waits for work."""
        self._busy_since = None
        try:
            yield
        finally:
            self._busy_since = self._clock()

    def well(self) -> bool:
        """Whether the loop waits, or has not worked for too long."""
        since = self._busy_since
        return since is None or self._clock() - since < self._patience

    def close(self) -> None:
        """Say no more."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(1.0)

    def _run(self) -> None:
        while True:
            if self.well():
                try:
                    self._send(self._address, "WATCHDOG=1")
                except OSError as error:
                    log.warning("event=watchdog_not_told reason=%r", str(error))
            else:
                log.error("event=loop_hangs seconds=%.0f", self._patience)
            if self._closing.wait(self._interval):
                return
