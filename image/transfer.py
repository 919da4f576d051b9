"""Bulk data between this machine and a dom0 in QEMU, past ssh: dom0 dials back to a loopback port, once.

ssh's encryption is what an emulated processor is worst at: 15 MB take 22-32 s through it and 3.5 s this way. Nothing
leaves the machine: QEMU's user network turns 10.0.2.2 into this machine's loopback.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

from image.errors import ImageError

#: This machine, as dom0 sees it.
HOST = "10.0.2.2"
_BLOCK = 1 << 20


class Channel:
    """A port that serves the first who connects, in a thread, for as long as the `with` block runs."""

    def __init__(self, timeout: float) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(timeout)
        self._timeout = timeout
        self.port = int(self._listener.getsockname()[1])
        self.moved = 0
        self._error: OSError | None = None

    @contextmanager
    def sending(self, source: BinaryIO) -> Iterator[Channel]:
        """`source` can be fetched while the block runs; at its end all of it has been."""

        def work(peer: socket.socket) -> None:
            while block := source.read(_BLOCK):
                peer.sendall(block)
                self.moved += len(block)

        with self._serving(work):
            yield self

    @contextmanager
    def receiving(self, target: BinaryIO) -> Iterator[Channel]:
        """What is sent while the block runs is written to `target`."""

        def work(peer: socket.socket) -> None:
            while block := peer.recv(_BLOCK):
                target.write(block)
                self.moved += len(block)

        with self._serving(work):
            yield self

    @contextmanager
    def _serving(self, work: Callable[[socket.socket], None]) -> Iterator[None]:
        def serve() -> None:
            try:
                peer, _address = self._listener.accept()
                with peer:
                    peer.settimeout(self._timeout)
                    work(peer)
            except OSError as error:
                self._error = error

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield
            thread.join(self._timeout)
            if self._error is not None or thread.is_alive():
                raise ImageError(
                    f"a transfer to or from dom0 broke off after {self.moved} bytes: {self._error or 'time'}"
                )
        finally:
            self._listener.close()
