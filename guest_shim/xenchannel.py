"""How a guest's shim gets its channel on Xen: asks for one in XenStore, and serves it until it ends; for ever.

==================== ========= ======================================================================================
node (own domain's)  writer    value
==================== ========= ======================================================================================
data/virmo/up/want   guest     ``{"nonce": "…", "transports": ["vchan", "xenstore"]}``: open a channel for us
data/virmo/down/grant dom0     ``{"nonce": the same, "session": "…", "transport": "vchan"}``, or ``"transport": "none"``
data/virmo/vchan     dom0      where the rings are, if it is a vchan
data/virmo/up, down  both      the slots of :mod:`guest_shim.mailbox`, if it is not
==================== ========= ======================================================================================

A new nonce asks for a new channel, a new session with the same nonce is one (the agent started again).
Must run on Python 3.9 with the standard library alone.
"""

from __future__ import annotations

import json
import logging
import os
import select
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace

from guest_shim import vchan
from guest_shim.dispatch import Dispatcher
from guest_shim.link import Link, LinkClosed
from guest_shim.mailbox import NAMES, MailboxLink
from guest_shim.session import Identity, ShimSession
from guest_shim.transport import TransportError
from guest_shim.xenbus import XenBus

logger = logging.getLogger(__name__)

BASE = "data/virmo"
#: Transports that we can speak here, best first; the agent chooses.
TRANSPORTS = ("vchan", "xenstore")
#: Seconds before we ask for the next channel; doubles while none is granted or greeted.
PAUSE, PAUSE_MAX = 1.0, 30.0
_LOOK = 5.0  # seconds between looks at the grant without a change


class XenChannel:
    """The thread that keeps a channel."""

    def __init__(
        self,
        open_device: Callable[[], int],
        dispatcher: Dispatcher,
        identity: Identity,
        transports: Iterable[str] = TRANSPORTS,
        base: str = BASE,
    ) -> None:
        self._base = base
        self._open_device = open_device
        self._dispatcher = dispatcher
        self._identity = identity
        self._transports = [name for name in transports if name != "vchan" or vchan.available()]
        self._lock = threading.Lock()
        self._session: ShimSession | None = None
        self._again = threading.Event()  # ask for a new channel now
        self._ending = False
        self._wake_read, self._wake_write = os.pipe()
        self._thread = threading.Thread(target=self._run, name="shim-channel", daemon=True)
        self._thread.start()

    def restart(self, *, resumed: bool) -> None:
        """dom0 has forgotten us (``resumed``: because the guest was suspended): ask for a new channel."""
        with self._lock:
            self._identity = replace(self._identity, resumed=resumed or self._identity.resumed)
            session = self._session
        self._again.set()
        os.write(self._wake_write, b"\0")
        if session is not None:
            session.close("dom0 has forgotten this channel")

    def close(self) -> None:
        """End the channel and the thread."""
        self._ending = True
        self.restart(resumed=False)
        self._thread.join(5.0)

    def _run(self) -> None:
        pause = PAUSE
        while not self._ending:
            self._again.clear()
            try:
                greeted = self._once()
            except (TransportError, vchan.VchanError, OSError) as error:
                logger.info("no channel: %s", error)
                greeted = False
            pause = PAUSE if greeted else min(pause * 2, PAUSE_MAX)
            if self._again.wait(0 if self._ending else pause):
                pause = PAUSE

    def _once(self) -> bool:
        """Ask for a channel and serve it; whether hello was exchanged."""
        watcher = XenBus(self._open_device())
        try:
            bus = XenBus(self._open_device())
            try:
                watcher.watch(f"{self._base}/down")
                nonce = os.urandom(4).hex()
                want = {"nonce": nonce, "transports": self._transports}
                bus.write(f"{self._base}/up/want", json.dumps(want).encode("ascii"))
                grant = self._await_grant(bus, watcher, nonce)
                return grant is not None and self._serve(grant, bus, watcher)
            finally:
                bus.close()
        finally:
            watcher.close()

    def _await_grant(self, bus: XenBus, watcher: XenBus, nonce: str) -> dict[str, str] | None:
        """The agent may come much later than we. ``None``: begin again."""
        poll = select.poll()
        poll.register(watcher.fileno(), select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        while not self._again.is_set() and not self._ending:
            watcher.changes()
            grant = read_grant(bus, self._base)
            if grant is not None and grant["nonce"] == nonce:
                if grant["transport"] != "none":
                    return grant
                logger.info("the agent grants no channel now")
                return None
            for descriptor, _ in poll.poll(_LOOK * 1000):
                if descriptor == self._wake_read:
                    os.read(self._wake_read, 64)
        return None

    def _serve(self, grant: dict[str, str], bus: XenBus, watcher: XenBus) -> bool:
        link = self._link(grant, bus, watcher)
        with self._lock:
            session = ShimSession(link, self._dispatcher, self._identity)
            self._session = session
        if self._again.is_set():  # we were told before there was a session to close
            session.close("dom0 has forgotten this channel")
        reason = session.run()
        with self._lock:
            self._session = None
            if session.greeted.is_set():
                self._identity = replace(self._identity, resumed=False)
        logger.info("the channel over %s closed: %s", link.name, reason)
        return session.greeted.is_set()

    def _link(self, grant: dict[str, str], bus: XenBus, watcher: XenBus) -> Link:
        if grant["transport"] == "vchan":
            try:
                return vchan.VchanLink.connect(f"{self._base}/vchan")
            except vchan.VchanError as error:
                if "xenstore" in self._transports:
                    logger.warning("no vchan from now on: %s", error)
                    self._transports = ["xenstore"]
                raise
        changes = _BusChanges(bus, watcher, grant, self._base)
        return MailboxLink(
            bus,
            inbox=f"{self._base}/down",
            outbox=f"{self._base}/up",
            session=grant["session"],
            changes=changes,
            failures=(TransportError,),
        )


class _BusChanges:
    """Changes of mailbox slots, as the watching bus tells them. Another grant ends the link."""

    def __init__(self, bus: XenBus, watcher: XenBus, grant: dict[str, str], base: str) -> None:
        self._base = base
        self._bus = bus
        self._watcher = watcher
        self._grant = grant

    def fileno(self) -> int:
        """The watching bus'."""
        return self._watcher.fileno()

    def take(self) -> set[str]:
        """Their names; all after the watch was set, and after a restore."""
        names: set[str] = set()
        try:
            for path in self._watcher.changes():
                name = path.rsplit("/", 1)[-1]
                if name == "grant" and read_grant(self._bus, self._base) != self._grant:
                    raise LinkClosed("the agent began a new session")
                names |= {name} if name in NAMES else NAMES if name == "down" else set()
        except TransportError as error:
            raise LinkClosed(str(error)) from None
        return names

    def close(self) -> None:
        """The buses are closed by who opened them."""


def read_grant(bus: XenBus, base: str) -> dict[str, str] | None:
    """What dom0 granted last; ``None`` when there is nothing we understand."""
    raw = bus.read(f"{base}/down/grant")
    try:
        grant = json.loads(raw or b"null")
    except ValueError:
        return None
    if not isinstance(grant, dict) or not all(isinstance(grant.get(key), str) for key in ("nonce", "transport")):
        return None
    if grant["transport"] != "none" and len(str(grant.get("session"))) != 4:
        return None
    return grant
