"""Where channels to guests come from: XenStore's rendezvous on Xen, Unix sockets in the simulator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol
from uuid import UUID

from dom0_agent.guest.channel import ChannelObserver
from dom0_agent.guest.config import GuestConfig

#: Whose channel it is: the VM, and the domain id that it has in this life.
GuestKey = tuple[UUID, int]


class ChannelSource(Protocol):
    """Opens channels when guests want them. Keys of channels are :data:`GuestKey`."""

    def attach(self, observer: ChannelObserver, config: GuestConfig) -> None:
        """Tell ``observer`` of all channels from now on; those that are open already first."""

    def follow(self, domains: Mapping[UUID, int]) -> None:
        """These are the domains that may have a channel now, with their domain ids; all others lose theirs."""
