"""What the rest of the agent asks of the shims in guests. Knows no transport, and must not know VMs or OMA DM's tree.

A guest has at most one connected shim. A request is answered, refused or cut off at its deadline; nothing here waits
longer. All that comes from a guest was validated against the caps of ``guest_shim.protocol`` and the guest's budget
before it gets here, and is still only what that guest says of itself.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol
from uuid import UUID


class GuestError(Exception):
    """A request to a guest did not end in an answer. The message names the VM and what failed."""


class GuestAbsent(GuestError):  # noqa: N818 - it is an error, and reads better so
    """No shim is connected: the guest has none, is not up yet, or its channel was closed for breaking the rules."""


class GuestTimeout(GuestError):  # noqa: N818
    """The deadline passed. The request was cancelled towards the guest; a late answer is dropped."""


@dataclass(frozen=True, slots=True)
class ServedObject:
    """A management object that a shim's hello says it serves, found by its MOID (A-42)."""

    moid: str
    #: nodes below the MO's root that are read from the guest ("Inventory/Deployed/*/State"; ``*`` is one name)
    live: tuple[str, ...] = ()
    #: nodes that Exec runs in the guest ("Operations/FullyLock")
    operations: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GuestHello:
    """Who is at the other end."""

    shim_version: str
    boot_id: str
    transport: str  #: vchan, xenstore or unix
    objects: tuple[ServedObject, ...] = ()
    capabilities: frozenset[str] = frozenset()  #: such as ui, clock, updater


@dataclass(frozen=True, slots=True)
class GuestRequest:
    """One request to a shim. ``verb`` is a row of ``guest_shim.dispatch``; ``fields`` are JSON values."""

    verb: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    payload: bytes = b""  #: at most 16 MiB; travels in chunks


@dataclass(frozen=True, slots=True)
class GuestAnswer:
    """The shim's answer. ``status`` is a DM status or an MO's result code, checked to be one."""

    status: int
    fields: Mapping[str, Any] = field(default_factory=dict)
    payload: bytes = b""


class GuestEventKind(Enum):
    """What happened to a guest's channel."""

    CONNECTED = "connected"  #: hello was exchanged (again)
    LOST = "lost"  #: closed, by whomever
    EXPELLED = "expelled"  #: closed by us: the guest went past its budget or broke the protocol
    SAID = "said"  #: the shim sent something by itself: verb, fields and payload have it


@dataclass(frozen=True, slots=True)
class GuestEvent:
    """Told to subscribers, from the channel's thread; they must only queue."""

    vmid: UUID
    kind: GuestEventKind
    reason: str = ""  #: for people
    verb: str = ""  #: of SAID
    fields: Mapping[str, Any] = field(default_factory=dict)
    payload: bytes = b""


class Guests(Protocol):
    """All guests' channels. Thread-safe."""

    def hello(self, vmid: UUID) -> GuestHello | None:
        """Who is connected now; ``None``: nobody."""

    def request(
        self, vmid: UUID, request: GuestRequest, *, deadline: float, cancelled: threading.Event | None = None
    ) -> GuestAnswer:
        """Ask, and wait at most ``deadline`` seconds. :class:`GuestAbsent` at once when nobody is connected."""

    def subscribe(self, listener: Callable[[GuestEvent], None]) -> Callable[[], None]:
        """Hear of all guests; returns the unsubscribe."""
