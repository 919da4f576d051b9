"""All guests' channels in one place: which VM has which, asking them, telling what they say. One for each agent.

Implements :class:`~dom0_agent.guest.interface.Guests`. Follows the hypervisor's domains; the channels themselves come
from a :class:`~dom0_agent.guest.source.ChannelSource` and live in threads of their own. Must not know OMA DM's tree.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Hashable, Mapping
from typing import Any, NamedTuple
from uuid import UUID

from dom0_agent.guest.channel import Channel
from dom0_agent.guest.config import GuestConfig
from dom0_agent.guest.interface import (
    GuestAbsent,
    GuestAnswer,
    GuestError,
    GuestEvent,
    GuestEventKind,
    GuestHello,
    GuestRequest,
)
from dom0_agent.hypervisor.interface import DomainState, Hypervisor, HypervisorError
from guest_shim import ticks

logger = logging.getLogger(__name__)

#: Seconds after which the domains are looked at without a hint.
LOOK_AROUND = 30.0
#: Lines of a guest's trace that are kept.
TRACE_CAP = 200
#: Seconds that a guest gets to set its clock.
CLOCK_DEADLINE = 30.0
#: Domains in these states may have a channel.
_ALIVE = frozenset({DomainState.RUNNING, DomainState.PAUSED})


class TraceLine(NamedTuple):
    """One thing that happened between us and a guest. Each request makes one: a tuple takes a third of the time."""

    when: float  #: seconds since the epoch
    what: str  #: request, said, connected, lost, expelled
    verb: str = ""
    status: int | None = None
    sent: int = 0  #: bytes of payload
    received: int = 0
    seconds: float | None = None  #: from the asking to the answer, to a tick of the kernel
    reason: str = ""


class GuestHub:
    """The channels of all running VMs. Thread-safe."""

    def __init__(
        self,
        hypervisor: Hypervisor,
        config: GuestConfig,
        known: Callable[[], Collection[UUID]] | None = None,
        wall_clock: Callable[[], float] = ticks.wall,
    ) -> None:
        """``known`` are the VMs that may have a channel; without it, all domains may."""
        self._hypervisor = hypervisor
        self._config = config
        self._known = known
        self._wall_clock = wall_clock
        self._lock = threading.Lock()
        self._channels: dict[UUID, Channel] = {}
        self._heard: dict[UUID, tuple[str, int]] = {}
        self._traces: dict[UUID, list[TraceLine]] = {}
        self._listeners: list[Callable[[GuestEvent], None]] = []
        self._source = hypervisor.channels()
        self._look = threading.Event()
        self._closed = threading.Event()
        self._unsubscribe: Callable[[], None] = lambda: None
        self._thread = threading.Thread(target=self._follow, name="guest-hub", daemon=True)

    def start(self) -> None:
        """Open channels from now on."""
        self._source.attach(self, self._config)
        self._unsubscribe = self._hypervisor.subscribe(self._look.set)
        self._look.set()
        self._thread.start()

    def close(self) -> None:
        """End following and all channels; the shims come back to the next agent."""
        self._closed.set()
        self._look.set()
        self._unsubscribe()
        if self._thread.is_alive():
            self._thread.join(LOOK_AROUND)
        self._source.follow({})
        with self._lock:
            channels = list(self._channels.values())
        for channel in channels:
            channel.close("the agent ends")

    def look(self) -> None:
        """A VM was created or removed: look at the domains again, soon."""
        self._look.set()

    # -- Guests -----------------------------------------------------------------------------------------------------

    def hello(self, vmid: UUID) -> GuestHello | None:
        """See :class:`Guests`."""
        with self._lock:
            channel = self._channels.get(vmid)
        return None if channel is None else channel.hello

    def request(
        self, vmid: UUID, request: GuestRequest, *, deadline: float, cancelled: threading.Event | None = None
    ) -> GuestAnswer:
        """See :class:`Guests`."""
        channel = self._channels.get(vmid)  # without the lock, which would cost a good part of a round trip
        if channel is None:
            raise GuestAbsent(f"VM {vmid}: no shim is connected; is the guest up, and virmo-guest-shim running in it?")
        began = ticks.monotonic()
        answer: GuestAnswer | None = None
        failure = ""
        try:
            answer = channel.request(f"VM {vmid}", request, deadline, cancelled)
        except GuestError as error:
            failure = str(error)
            raise
        finally:
            self._trace(
                vmid,
                TraceLine(
                    self._wall_clock(),
                    "request",
                    request.verb,
                    None if answer is None else answer.status,
                    len(request.payload),
                    0 if answer is None else len(answer.payload),
                    round(ticks.monotonic() - began, 3),
                    failure,
                ),
            )
        return answer

    def subscribe(self, listener: Callable[[GuestEvent], None]) -> Callable[[], None]:
        """See :class:`Guests`."""
        with self._lock:
            self._listeners.append(listener)

        def unsubscribe() -> None:
            with self._lock:
                if listener in self._listeners:
                    self._listeners.remove(listener)

        return unsubscribe

    def trace(self, vmid: UUID) -> list[TraceLine]:
        """The last things that happened, oldest first."""
        return self._traces.get(vmid, [])[:]

    # -- ChannelObserver: in a channel's thread -----------------------------------------------------------------------

    def opened(self, channel: Channel) -> None:
        """This is the VM's channel now; one that was there before is replaced."""
        vmid = _vmid(channel.key)
        with self._lock:
            before = self._channels.get(vmid)
            if before is channel:
                return
            self._channels[vmid] = channel
        if before is not None:
            before.close("the shim opened another one")
        hello = channel.hello
        assert hello is not None
        reason = f"shim {hello.shim_version or '?'} over {hello.transport}"
        logger.info("guest_connected vm=%s shim=%s transport=%s", vmid, hello.shim_version, hello.transport)
        if "clock" in hello.capabilities:
            threading.Thread(target=self._set_clock, args=(channel,), name="guest-clock", daemon=True).start()
        self._tell(GuestEvent(vmid, GuestEventKind.CONNECTED, reason))

    def said(self, channel: Channel, number: int, verb: str, fields: Mapping[str, Any], payload: bytes) -> None:
        """Pass it on, once: after a reconnection a shim repeats what was not confirmed."""
        vmid = _vmid(channel.key)
        with self._lock:
            instance, last = self._heard.get(vmid, ("", 0))
            if channel.instance == instance and number <= last:
                return
            self._heard[vmid] = (channel.instance, number)
        self._tell(GuestEvent(vmid, GuestEventKind.SAID, "", verb, fields, payload))

    def cut_off(self, key: Hashable, reason: str) -> None:
        """As if it had had a channel."""
        self._tell(GuestEvent(_vmid(key), GuestEventKind.EXPELLED, reason))

    def closed(self, channel: Channel) -> None:
        """The VM has no channel now, unless this one was replaced."""
        vmid = _vmid(channel.key)
        with self._lock:
            current = self._channels.get(vmid) is channel
            if current:
                del self._channels[vmid]
        reason = channel.pump.reason
        if channel.pump.broken:
            self._tell(GuestEvent(vmid, GuestEventKind.EXPELLED, reason))
        elif current:
            logger.info("guest_lost vm=%s reason=%r", vmid, reason)
            self._tell(GuestEvent(vmid, GuestEventKind.LOST, reason))

    # -- inside -----------------------------------------------------------------------------------------------------

    def _set_clock(self, channel: Channel) -> None:
        """After a resume the guest's clock stands where it was: give it ours (also for the shim's resume hooks)."""
        vmid = _vmid(channel.key)
        fields = {"time": self._wall_clock(), "resumed": channel.resumed}
        try:
            answer = channel.request(f"VM {vmid}", GuestRequest("clock", fields), CLOCK_DEADLINE)
        except GuestError as error:
            logger.warning("guest_clock_not_set vm=%s error=%s", vmid, error)
            return
        if answer.status != 200:
            logger.warning("guest_clock_not_set vm=%s status=%d", vmid, answer.status)

    def _follow(self) -> None:
        while not self._closed.is_set():
            self._look.wait(LOOK_AROUND)
            self._look.clear()
            if self._closed.is_set():
                return
            try:
                domains = {d.uuid: d.domid for d in self._hypervisor.domains() if d.state in _ALIVE}
            except HypervisorError as error:
                logger.warning("domains_unknown error=%s", error)
                continue
            known = None if self._known is None else self._known()
            self._source.follow({vmid: domid for vmid, domid in domains.items() if known is None or vmid in known})
            with self._lock:
                for gone in self._traces.keys() - (domains.keys() if known is None else set(known)):
                    del self._traces[gone]
                    self._heard.pop(gone, None)

    def _tell(self, event: GuestEvent) -> None:
        line = TraceLine(
            self._wall_clock(), event.kind.value, event.verb, received=len(event.payload), reason=event.reason
        )
        self._trace(event.vmid, line)
        with self._lock:
            listeners = list(self._listeners)
        for listener in listeners:
            listener(event)

    def _trace(self, vmid: UUID, line: TraceLine) -> None:
        lines = self._traces.get(vmid)  # without the lock, as in `request`: each step here is one of the interpreter's
        if lines is None:
            lines = self._traces.setdefault(vmid, [])
        lines.append(line)
        del lines[:-TRACE_CAP]


def _vmid(key: Hashable) -> UUID:
    assert isinstance(key, tuple)
    vmid = key[0]
    assert isinstance(vmid, UUID)
    return vmid
