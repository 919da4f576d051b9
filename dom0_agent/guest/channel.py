"""The agent's end of one guest's channel: greets, asks, and passes on what the shim says by itself.

One thread runs a channel; any thread may ask. Everything from the guest goes through its budget and is checked here;
what breaks the rules ends the channel and nothing else. Knows links, but neither Xen nor VMs: a channel has a key that
its maker chose.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import re
import threading
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Protocol

from dom0_agent.guest.budget import Budget
from dom0_agent.guest.config import BudgetConfig
from dom0_agent.guest.facts import NO_FACTS, parse_facts
from dom0_agent.guest.hello import facts_of, instance_of, parse_hello, raw
from dom0_agent.guest.interface import GuestAbsent, GuestAnswer, GuestError, GuestHello, GuestRequest, GuestTimeout
from dom0_agent.hypervisor.interface import GuestFacts
from guest_shim.endpoint import AGENT, Endpoint, Message
from guest_shim.link import Link
from guest_shim.protocol import ProtocolError, choose_version
from guest_shim.pump import KEEP_ALIVE, SILENCE, Pump
from guest_shim.ticks import monotonic

logger = logging.getLogger(__name__)

#: Requests to one guest that may wait at the same time; the shim handles eight.
REQUESTS_CAP = 64
_VERB = re.compile(r"[a-z][a-z0-9._-]{0,63}")
_STATUS = range(100, 2000)  # DM statuses and the result codes of FUMO, SCOMO and LAWMO
_LOOK = 0.05  # seconds between looks at the caller's cancellation


class ChannelObserver(Protocol):
    """Hears of channels, from their threads; must only queue or note."""

    def opened(self, channel: Channel) -> None:
        """Hello was exchanged."""

    def said(self, channel: Channel, number: int, verb: str, fields: Mapping[str, Any], payload: bytes) -> None:
        """The shim told something by itself; it is confirmed when this returns."""

    def cut_off(self, key: Hashable, reason: str) -> None:
        """A guest without a channel went past its budget, and may not open one for a while."""

    def closed(self, channel: Channel) -> None:
        """It ended; ``channel.pump`` has the reason."""


class _Pending:
    """A request that waits for its answer.

    Needs no lock, which would cost a good part of a round trip: who ends it says so first and looks for a waiter then,
    who waits makes itself known first and looks then whether it is over.
    """

    __slots__ = ("answer", "over", "waiter")

    def __init__(self) -> None:
        self.answer: GuestAnswer | None = None
        self.over = False  # answered, or the channel closed
        self.waiter: threading.Event | None = None  # of who does not receive by itself

    def end(self, answer: GuestAnswer | None) -> None:
        """Nothing more will come."""
        self.answer = answer
        self.over = True
        waiter = self.waiter
        if waiter is not None:
            waiter.set()

    def is_over(self) -> bool:
        """Whether it is."""
        return self.over


class Channel:
    """One channel. :meth:`run` is its thread."""

    def __init__(
        self,
        key: Hashable,
        link: Link,
        observer: ChannelObserver,
        config: BudgetConfig,
        *,
        silence: float = SILENCE,
        clock: Callable[[], float] = monotonic,
        on_facts: Callable[[GuestFacts], None] = lambda _facts: None,
    ) -> None:
        self.key = key
        self.hello: GuestHello | None = None  #: once it was exchanged
        self.instance = ""  #: the shim's life
        self.resumed = False  #: the shim says that the guest was suspended since its last hello
        self.facts = NO_FACTS
        self._observer = observer
        self._on_facts = on_facts
        self._budget = Budget(config, clock)
        self._numbers = itertools.count(1)
        self._pending: dict[int, _Pending] = {}  # what is put in and what is taken out is so in one step
        self._ended = False
        self._over = threading.Event()
        endpoint = Endpoint(AGENT, self._budget, link.piece)
        self.pump = Pump(link, endpoint, self._take, keep_alive=min(KEEP_ALIVE, silence / 3), silence=silence)

    def run(self) -> None:
        """Serve until it closes."""
        try:
            self.pump.run()
        finally:
            self._ended = True  # from here on who asks takes its own request back
            while self._pending:
                with contextlib.suppress(KeyError):  # it was taken back just now
                    self._pending.popitem()[1].end(None)
            self._over.set()
            if self.pump.broken:
                logger.warning("guest_expelled key=%s error=%s", self.key, self.pump.reason)
            self._observer.closed(self)

    def close(self, reason: str) -> None:
        """End it soon, and tell the shim."""
        with contextlib.suppress(ProtocolError):  # goodbye is a courtesy
            self.pump.post("bye", 0, {"reason": reason})
        self.pump.close(reason)

    def leave(self, reason: str, patience: float) -> None:
        """Say goodbye, and let the shim close first; after ``patience`` seconds close."""
        with contextlib.suppress(ProtocolError):
            self.pump.post("bye", 0, {"reason": reason})
        self._over.wait(patience)
        self.pump.close(reason)

    def expel(self, reason: str) -> None:
        """End it: the guest went past its budget outside of the channel."""
        self.pump.expel(reason)

    def request(
        self, name: str, request: GuestRequest, deadline: float, cancelled: threading.Event | None = None
    ) -> GuestAnswer:
        """Ask, and wait at most ``deadline`` seconds. ``name`` is the VM's, for errors (all of :class:`GuestError`)."""
        if len(self._pending) >= REQUESTS_CAP:
            raise GuestError(f"{name}: {REQUESTS_CAP} requests wait for its shim already; try again later")
        pending, number, end = _Pending(), next(self._numbers), monotonic() + deadline
        closed = f"{name}: the channel to its shim closed"
        self._pending[number] = pending
        try:
            if self._ended:
                raise GuestAbsent(f"{closed}: {self.pump.reason}")
            is_over = pending.is_over if cancelled is None else lambda: pending.over or cancelled.is_set()
            header = {"verb": request.verb, "deadline": round(deadline, 3)}
            try:
                asked = self.pump.ask(
                    number, header, dict(request.fields), request.payload, is_over=is_over, seconds=deadline
                )
            except (ProtocolError, ValueError, TypeError) as error:
                raise GuestError(f"{name}: {request.verb} cannot be sent to the guest: {error}") from error
            if not asked:
                raise GuestAbsent(f"{closed}: {self.pump.reason}")
            if not (pending.over or _wait(pending, end, cancelled)):
                self.pump.cancel(number)
                if cancelled is not None and cancelled.is_set():
                    raise GuestTimeout(f"{name}: {request.verb} was cancelled")
                raise GuestTimeout(f"{name}: its shim did not answer {request.verb} within {deadline:g} s")
            if pending.answer is None:
                raise GuestAbsent(f"{closed}: {self.pump.reason}")
            return pending.answer
        finally:
            self._pending.pop(number, None)

    # -- the thread -------------------------------------------------------------------------------------------------

    def _take(self, message: Message) -> None:
        if message.fields:
            self._budget.fields(message.fields)
        if message.kind == "hello":
            self._greet(message.header)
        elif message.kind == "answer":
            self._answered(message)
        elif message.kind == "say":
            self._said(message)
        elif message.kind == "beat":
            heard = parse_facts(None, raw(message.header.get("beats")), None)
            self._note(GuestFacts(self.facts.boot_id, heard.beats, self.facts.shim_version))
        elif message.kind == "bye":
            self.pump.close("the shim said goodbye")

    def _greet(self, untrusted_hello: dict[str, Any]) -> None:
        self._budget.fields(untrusted_hello)
        version = choose_version(untrusted_hello.get("versions"))
        hello = parse_hello(untrusted_hello, self.pump.link.name)
        self.instance = instance_of(untrusted_hello)
        self.resumed = untrusted_hello.get("resumed") is True
        self._note(facts_of(untrusted_hello))
        self.pump.post("hello", 0, {"version": version})
        self.hello = hello
        self._observer.opened(self)

    def _answered(self, message: Message) -> None:
        status = message.header.get("status")
        if type(status) is not int or status not in _STATUS:
            raise ProtocolError(f"an answer with the status {str(status)[:40]}")
        pending = self._pending.pop(message.number, None)
        if pending is not None:
            pending.end(GuestAnswer(status, message.fields, message.payload))

    def _said(self, message: Message) -> None:
        verb = message.header.get("verb")
        if not isinstance(verb, str) or not _VERB.fullmatch(verb):
            raise ProtocolError("it said something without a verb")
        self._observer.said(self, message.number, verb, message.fields, message.payload)
        self.pump.post("heard", message.number)

    def _note(self, facts: GuestFacts) -> None:
        self.facts = facts
        self._on_facts(facts)


def _wait(pending: _Pending, end: float, cancelled: threading.Event | None) -> bool:
    """For what another thread receives: whether it was answered, or the channel closed, before ``end``."""
    waiter = pending.waiter = threading.Event()
    if pending.over:
        return True
    if cancelled is None:
        return waiter.wait(max(0.0, end - monotonic()))
    while not waiter.wait(min(_LOOK, max(0.0, end - monotonic()))):
        if cancelled.is_set() or monotonic() >= end:
            return pending.over
    return True
