"""Guests whose shim runs in this process: for tests of what is above the channel. No frames, no budgets, real threads.

Fields and payloads are copied through JSON as the channel does it, so that what cannot travel fails here as well.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

from dom0_agent.guest.interface import (
    GuestAbsent,
    GuestAnswer,
    GuestEvent,
    GuestEventKind,
    GuestHello,
    GuestRequest,
    GuestTimeout,
    ServedObject,
)
from guest_shim.dispatch import Answer, Dispatcher, Request, Said

BOOT_ID = "0f0e0d0c-0b0a-4908-8706-050403020100"


class LoopbackGuests:
    """:class:`dom0_agent.guest.interface.Guests` over dispatchers that were connected with :meth:`connect`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._shims: dict[UUID, Dispatcher] = {}
        self._listeners: list[Callable[[GuestEvent], None]] = []
        self.requests: list[tuple[UUID, GuestRequest]] = []  #: all that were asked

    def connect(self, vmid: UUID, shim: Dispatcher) -> None:
        """The shim of ``vmid`` says hello."""
        with self._lock:
            self._shims[vmid] = shim
        self._tell(GuestEvent(vmid, GuestEventKind.CONNECTED, "hello"))

        def send(said: Said) -> None:
            fields, payload = _travel(said.fields), bytes(said.payload)
            shim.heard(said.number)
            self._tell(GuestEvent(vmid, GuestEventKind.SAID, verb=said.verb, fields=fields, payload=payload))

        shim.connect(send)

    def lose(self, vmid: UUID, kind: GuestEventKind = GuestEventKind.LOST) -> None:
        """The channel of ``vmid`` ends."""
        with self._lock:
            shim = self._shims.pop(vmid)
        shim.disconnect()
        self._tell(GuestEvent(vmid, kind, "the channel closed"))

    def hello(self, vmid: UUID) -> GuestHello | None:
        """What the connected dispatcher announces."""
        with self._lock:
            shim = self._shims.get(vmid)
        if shim is None:
            return None
        objects = tuple(ServedObject(o.moid, o.live, o.operations) for o in shim.objects)
        return GuestHello("0.1.0", BOOT_ID, "unix", objects, frozenset(shim.capabilities))

    def request(
        self, vmid: UUID, request: GuestRequest, *, deadline: float, cancelled: threading.Event | None = None
    ) -> GuestAnswer:
        """Run the handler in the dispatcher's worker thread."""
        with self._lock:
            shim = self._shims.get(vmid)
            self.requests.append((vmid, request))
        if shim is None:
            raise GuestAbsent(f"no shim is connected in VM {vmid}")
        answers: list[Answer] = []
        done = threading.Event()

        def answered(answer: Answer) -> None:
            answers.append(answer)
            done.set()

        asked = Request(request.verb, _travel(dict(request.fields)), bytes(request.payload))
        shim.submit(asked, answered)
        end = time.monotonic() + deadline
        while not done.wait(min(0.02, max(0.0, end - time.monotonic()))):
            if time.monotonic() >= end or (cancelled is not None and cancelled.is_set()):
                asked.cancelled.set()
                raise GuestTimeout(f"VM {vmid}: {request.verb} was not answered within {deadline:g} s")
        return GuestAnswer(answers[0].status, _travel(answers[0].fields), answers[0].payload)

    def subscribe(self, listener: Callable[[GuestEvent], None]) -> Callable[[], None]:
        """Hear of all guests."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def _tell(self, event: GuestEvent) -> None:
        for listener in list(self._listeners):
            listener(event)


def _travel(fields: dict[str, Any]) -> dict[str, Any]:
    travelled: dict[str, Any] = json.loads(json.dumps(fields))
    return travelled
