"""Where channels on Xen begin: a guest asks for one in XenStore, we open a vchan or a mailbox and say so there.

The nodes are described in :mod:`guest_shim.xenchannel`. One watch for each guest; a thread for each channel, so that
one guest holds up nobody; one thread that looks at what guests want. A guest may write what it likes below its own
``data``: whoever makes us look too often, or breaks the protocol, loses its channel and its watch for a while.
"""

from __future__ import annotations

import contextlib
import json
import logging
import queue
import re
import secrets
import threading
import time
from collections.abc import Hashable, Iterator, Mapping
from typing import Any
from uuid import UUID

from dom0_agent.guest.budget import Budget, OverBudget, Penalties
from dom0_agent.guest.channel import Channel, ChannelObserver
from dom0_agent.guest.config import GuestConfig
from dom0_agent.guest.source import GuestKey
from dom0_agent.hypervisor.xenstore import XenStore, XenStoreError
from guest_shim import vchan
from guest_shim.link import Link
from guest_shim.mailbox import NAMES, ChangeSet, MailboxLink

logger = logging.getLogger(__name__)

#: Seconds between looks at guests that wait: for the end of their penalty, or for us to see what a watch missed.
PERIOD = 5.0
#: Seconds that a shim gets to close its end before its guest is saved.
GOODBYE = 5.0
#: Messages of its budget that a channel costs a guest: opening one is work for Xen and XenStore.
OPENING = 100
_NONCE = re.compile(r"[0-9a-f]{4,16}")
_TRANSPORTS = ("vchan", "xenstore")


class _Guest:
    """One domain that may have a channel. Only the rendezvous' thread changes it, but for :meth:`hint`."""

    def __init__(self, key: GuestKey, config: GuestConfig, looks: queue.SimpleQueue[_Guest | None]) -> None:
        self.key = key
        self.base = f"/local/domain/{key[1]}/data/virmo"
        self.budget = Budget(config.budget, time.monotonic)
        self.nonce = ""  # of the channel that there is, or was
        self.channel: Channel | None = None
        self.thread: threading.Thread | None = None
        self.changes: ChangeSet | None = None  # of a mailbox
        self.flooding = ""  # why it was, or must be, cut off
        self.held = False  # no channel while it is being saved
        self.unwatch = _nothing
        self._looks = looks

    def hint(self, untrusted_path: str) -> None:
        """In XenStore's reading thread: something below ``up`` changed."""
        if self.flooding:
            return
        try:
            self.budget.spend("messages", 1)
        except OverBudget as error:
            self.flooding = str(error)
            self._looks.put(self)
            return
        name = untrusted_path.rsplit("/", 1)[-1]
        if name in NAMES or name == "up":
            changes = self.changes
            if changes is not None:
                changes.note(NAMES if name == "up" else frozenset([name]))
        if name in {"want", "up"}:
            self._looks.put(self)

    def consumed(self) -> None:
        """A change was a mailbox's, in order: it counts as what it carried, in the channel's own budget."""
        self.budget.spend("messages", -1)


def _nothing() -> None:
    return


class XenRendezvous:
    """The :class:`~dom0_agent.guest.source.ChannelSource` of real Xen. Does nothing before :meth:`attach`."""

    def __init__(self, store: XenStore) -> None:
        self._store = store
        self._config = GuestConfig()
        self._observer: ChannelObserver | None = None
        self._penalties = Penalties(self._config, time.monotonic)
        self._lock = threading.Lock()
        self._guests: dict[GuestKey, _Guest] = {}
        self._looks: queue.SimpleQueue[_Guest | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def attach(self, observer: ChannelObserver, config: GuestConfig) -> None:
        """See :class:`~dom0_agent.guest.source.ChannelSource`. Once."""
        self._observer, self._config = observer, config
        self._penalties = Penalties(config, time.monotonic)
        self._thread = threading.Thread(target=self._serve, name="guest-rendezvous", daemon=True)
        self._thread.start()

    def follow(self, domains: Mapping[UUID, int]) -> None:
        """See :class:`~dom0_agent.guest.source.ChannelSource`."""
        keys = set(domains.items())
        with self._lock:
            gone = [self._guests.pop(key) for key in self._guests.keys() - keys]
            new = [_Guest(key, self._config, self._looks) for key in keys - self._guests.keys()]
            self._guests.update({guest.key: guest for guest in new})
        for guest in gone:
            guest.unwatch()
            self._penalties.forget(guest.key)
            if guest.channel is not None:
                guest.channel.close("its domain is gone, or the agent ends")
        for guest in new:
            self._watch(guest)
            self._looks.put(guest)

    @contextlib.contextmanager
    def quiet(self, vmid: UUID) -> Iterator[None]:
        """Close the VM's channel, in order, and open none until the end of this."""
        with self._lock:
            guests = [guest for key, guest in self._guests.items() if key[0] == vmid]
        for guest in guests:
            guest.held = True
        end = time.monotonic() + GOODBYE
        for guest in guests:
            while guest.thread is not None and guest.thread.is_alive() and time.monotonic() < end:
                channel = guest.channel
                if channel is not None:  # else it is just being opened
                    channel.leave("the VM is being suspended", max(0.0, end - time.monotonic()))
                guest.thread.join(0.1)
        try:
            yield
        finally:
            for guest in guests:
                guest.held = False
                self._looks.put(guest)

    def close(self) -> None:
        """End all channels and the thread."""
        self.follow({})
        if self._thread is not None:
            self._looks.put(None)
            self._thread.join(GOODBYE)
            self._thread = None

    # -- the rendezvous' thread ---------------------------------------------------------------------------------------

    def _serve(self) -> None:
        while True:
            try:
                looked = self._looks.get(timeout=PERIOD)
            except queue.Empty:
                with self._lock:
                    waiting = [guest for guest in self._guests.values() if guest.channel is None]
            else:
                if looked is None:
                    return
                waiting = [looked]
            for guest in waiting:
                try:
                    self._look_at(guest)
                except XenStoreError as error:
                    logger.warning("guest_not_looked_at key=%s error=%s", guest.key, error)

    def _watch(self, guest: _Guest) -> None:
        try:
            guest.unwatch = self._store.watch(f"{guest.base}/up", guest.hint)
        except XenStoreError as error:
            logger.warning("guest_not_watched key=%s error=%s", guest.key, error)

    def _look_at(self, guest: _Guest) -> None:
        with self._lock:
            if self._guests.get(guest.key) is not guest:
                return
        if guest.flooding and guest.unwatch is not _nothing:
            self._cut_off(guest)
        if guest.held or self._penalties.left(guest.key) > 0:
            return
        if guest.unwatch is _nothing:  # its penalty is over
            guest.budget = Budget(self._config.budget, time.monotonic)
            guest.flooding = ""
            self._watch(guest)
        want = _parse_want(self._store.read(f"{guest.base}/up/want"))
        if want is None or want[0] == guest.nonce:
            return
        guest.nonce = want[0]
        try:
            guest.budget.spend("messages", OPENING)
        except OverBudget as error:
            guest.flooding = str(error)
            self._cut_off(guest)
            return
        if guest.channel is not None:
            guest.channel.close("the shim asked for another one")
        if guest.thread is not None:
            guest.thread.join(GOODBYE)
        arguments = (guest, want[0], want[1])
        guest.thread = threading.Thread(target=self._run, args=arguments, name=f"guest-{guest.key[1]}", daemon=True)
        guest.thread.start()

    def _cut_off(self, guest: _Guest) -> None:
        """It changes its nodes too often: hear no more of it for a while."""
        guest.unwatch()
        guest.unwatch = _nothing
        if guest.channel is not None:
            guest.channel.expel(f"its XenStore nodes: {guest.flooding}")
        else:
            seconds = self._penalties.add(guest.key)
            logger.warning("guest_expelled key=%s error=%s seconds=%g", guest.key, guest.flooding, seconds)
            if self._observer is not None:
                self._observer.cut_off(guest.key, f"its XenStore nodes: {guest.flooding}")

    # -- a channel's thread -------------------------------------------------------------------------------------------

    def _run(self, guest: _Guest, nonce: str, offered: tuple[str, ...]) -> None:
        session = secrets.token_hex(2)
        try:
            link = self._open(guest, session, offered)
            if link is None:
                self._grant(guest, nonce, transport="none")
                return
            channel = Channel(guest.key, link, self, self._config.budget)
            guest.channel = channel
            try:
                self._grant(guest, nonce, transport=link.name, session=session)
            except XenStoreError as error:
                channel.close(str(error))
            channel.run()
        except XenStoreError as error:
            logger.warning("guest_not_granted key=%s error=%s", guest.key, error)
        finally:
            if guest.thread is threading.current_thread():  # else another one has begun
                guest.channel = None
                guest.changes = None

    def _open(self, guest: _Guest, session: str, offered: tuple[str, ...]) -> Link | None:
        wanted = _TRANSPORTS if self._config.transport == "auto" else (self._config.transport,)
        for transport in wanted:
            if transport not in offered:
                continue
            if transport == "xenstore":
                changes = guest.changes = ChangeSet()
                return MailboxLink(
                    self._store,
                    inbox=f"{guest.base}/up",
                    outbox=f"{guest.base}/down",
                    session=session,
                    changes=changes,
                    failures=(XenStoreError,),
                    consumed=guest.consumed,
                )
            try:
                return vchan.VchanLink.serve(guest.key[1], f"{guest.base}/vchan")
            except vchan.VchanError as error:
                logger.warning("no_vchan key=%s error=%s", guest.key, error)
        return None

    def _grant(self, guest: _Guest, nonce: str, **more: str) -> None:
        self._store.write(f"{guest.base}/down/grant", json.dumps({"nonce": nonce, **more}).encode())

    # -- ChannelObserver ----------------------------------------------------------------------------------------------

    def opened(self, channel: Channel) -> None:
        """Pass it on."""
        if self._observer is not None:
            self._observer.opened(channel)

    def said(self, channel: Channel, number: int, verb: str, fields: Mapping[str, Any], payload: bytes) -> None:
        """Pass it on."""
        if self._observer is not None:
            self._observer.said(channel, number, verb, fields, payload)

    def cut_off(self, key: Hashable, reason: str) -> None:
        """Only told by ourselves."""

    def closed(self, channel: Channel) -> None:
        """Who broke the rules has to wait."""
        if channel.pump.broken:
            self._penalties.add(channel.key)
        if self._observer is not None:
            self._observer.closed(channel)


def _parse_want(untrusted: bytes | None) -> tuple[str, tuple[str, ...]] | None:
    """Nonce and transports; ``None`` when the guest wants nothing that we understand."""
    try:
        want = json.loads((untrusted or b"null").decode("ascii"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(want, dict):
        return None
    nonce, transports = want.get("nonce"), want.get("transports")
    if not isinstance(nonce, str) or not _NONCE.fullmatch(nonce) or not isinstance(transports, list):
        return None
    return nonce, tuple(name for name in _TRANSPORTS if name in transports)
