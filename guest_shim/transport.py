"""How the shim reaches dom0: the interface of a transport.

Must run on Python 3.9 with the standard library alone.
"""

from __future__ import annotations

import os
from typing import Protocol


class TransportError(Exception):
    """dom0 cannot be reached at the moment; try again later."""


class Transport(Protocol):
    """What the shim needs of a way to dom0. Each call may raise :class:`TransportError`."""

    def announce(self, boot_id: str, version: str, beats: int) -> None:
        """Make ourselves known (again): at the start, and whenever :meth:`beat` asks for it."""

    def beat(self, beats: int) -> bool:
        """Say that we live. ``False``: dom0 does not know us any more (it restarted, or we were restored): announce."""

    def close(self) -> None:
        """Let go of everything."""


def new_instance() -> str:
    """A name for this life of the shim."""
    return os.urandom(8).hex()
