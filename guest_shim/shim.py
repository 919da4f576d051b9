"""The shim's loop: announce, then beat about once a second, and come back after whatever interrupts it.

Knows no transport and no clock of its own. A suspended guest simply finds that its sleep took longer; a restored one
finds, through the transport, that dom0 forgot it, and announces itself again with the same boot id and its counter.
Must run on Python 3.9 with the standard library alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from guest_shim.transport import Transport, TransportError

logger = logging.getLogger(__name__)

VERSION = "0.1.0"
#: Seconds between beats.
INTERVAL = 1.0


class Shim:
    """One shim in one boot of a guest."""

    def __init__(self, transport: Transport, boot_id: str, beats: int = 0) -> None:
        self.boot_id = boot_id
        self.beats = beats
        self._transport = transport
        self.announced = False  #: dom0 knows us
        self._complained = False

    def step(self) -> None:
        """One beat. Failures are logged once and end in another try at the next step."""
        self.beats += 1
        try:
            if not (self.announced and self._transport.beat(self.beats)):
                self.announced = False
                self._transport.announce(self.boot_id, VERSION, self.beats)
                self.announced = True
                logger.info("announced boot_id=%s beats=%d", self.boot_id, self.beats)
        except TransportError as error:
            self.announced = False
            if not self._complained:
                logger.warning("dom0 cannot be reached, will go on trying: %s", error)
            self._complained = True
            return
        self._complained = False

    def run(self, sleep: Callable[[float], bool]) -> None:
        """Beat until ``sleep(seconds)`` returns ``True``: the guest ends."""
        while True:
            self.step()
            if sleep(INTERVAL):
                break
        self.close()

    def close(self) -> None:
        """Let go of the way to dom0."""
        self._transport.close()
