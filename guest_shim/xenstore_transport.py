"""The shim's transport on Xen: publishes boot id and beats in XenStore, and keeps a channel beside it.

Must run on Python 3.9 with the standard library alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from guest_shim.dispatch import Dispatcher
from guest_shim.session import Identity
from guest_shim.transport import TransportError, new_instance
from guest_shim.xenbus import XenBus, open_device
from guest_shim.xenchannel import BASE, TRANSPORTS, XenChannel


class XenStoreTransport:
    """Writes what dom0 may read at any time, below the guest's own ``data/virmo``; a :class:`XenChannel` beside it."""

    def __init__(
        self,
        open_device: Callable[[], int] = open_device,
        dispatcher: Dispatcher | None = None,
        transports: Iterable[str] = TRANSPORTS,
        base: str = BASE,
    ) -> None:
        """``transports``: what the channel may be, of vchan and xenstore. ``base``: where, if not in a guest's own."""
        self._base = base
        self._open_device = open_device
        self._dispatcher = dispatcher or Dispatcher()
        self._transports = tuple(transports)
        self._instance = new_instance()
        self._bus: XenBus | None = None
        self._channel: XenChannel | None = None

    def announce(self, boot_id: str, version: str, beats: int) -> None:
        """Write all nodes, ``boot-id`` first: see :meth:`beat`."""
        if self._bus is None:
            self._bus = XenBus(self._open_device())
        self._write("boot-id", boot_id)
        self._write("version", version)
        self._write("beats", str(beats))
        forgotten = self._bus.read(f"{self._base}/hello") is None
        self._write("hello", "1")
        if self._channel is None:
            identity = Identity(boot_id, version, self._instance, beats)
            self._channel = XenChannel(self._open_device, self._dispatcher, identity, self._transports, self._base)
        elif self._channel is not None and forgotten:
            self._channel.restart(resumed=True)

    def beat(self, beats: int) -> bool:
        """Write the counter. A restored guest has a new, empty directory: then ``boot-id`` is missing.

        Also where the guest was saved in the middle of :meth:`announce`, which then wrote what was left to write into
        the new directory.
        """
        if self._bus is None:
            return False
        try:
            if self._bus.read(f"{self._base}/boot-id") is None:
                return False
        except TransportError:
            self._close_bus()
            return False
        self._write("beats", str(beats))
        return True

    def close(self) -> None:
        """End the channel and close the device."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        self._close_bus()

    def _close_bus(self) -> None:
        if self._bus is not None:
            self._bus.close()
            self._bus = None

    def _write(self, name: str, value: str) -> None:
        assert self._bus is not None
        try:
            self._bus.write(f"{self._base}/{name}", value.encode("ascii"))
        except TransportError:
            self._close_bus()
            raise
