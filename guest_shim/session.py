"""The shim's end of one open channel: says hello, hands requests to the dispatcher, sends what comes back.

Knows no transport and no verb. Must run on Python 3.9 with the standard library alone.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import Any

from guest_shim.dispatch import FAILED, Answer, Dispatcher, Request, Said, failure
from guest_shim.endpoint import SHIM, Endpoint, Message
from guest_shim.link import Link
from guest_shim.protocol import VERSIONS, ProtocolError
from guest_shim.pump import SILENCE, Pump

logger = logging.getLogger(__name__)

#: What is handled before the next message is looked at cannot be cancelled.
_NEVER = threading.Event()


@dataclass(frozen=True)
class Identity:
    """What hello says of this shim and this boot of the guest."""

    boot_id: str
    version: str
    instance: str  #: new in each life of the shim: numbers of what is said count within it
    beats: int = 0
    resumed: bool = False  #: the guest was suspended since the last hello

    def hello(self, dispatcher: Dispatcher) -> dict[str, Any]:
        """The header of hello."""
        return {
            "versions": list(VERSIONS),
            "shim": self.version,
            "boot_id": self.boot_id,
            "beats": self.beats,
            "instance": self.instance,
            "resumed": self.resumed,
            "objects": [
                {"moid": o.moid, "live": list(o.live), "operations": list(o.operations)} for o in dispatcher.objects
            ],
            "capabilities": sorted(dispatcher.capabilities),
        }


class ShimSession:
    """One channel, from hello to its end."""

    def __init__(self, link: Link, dispatcher: Dispatcher, identity: Identity, silence: float = SILENCE) -> None:
        self.greeted = threading.Event()  #: hello was answered
        self._dispatcher = dispatcher
        self._identity = identity
        self._running: dict[int, Request] = {}
        self._lock = threading.Lock()
        self.pump = Pump(link, Endpoint(SHIM, piece=link.piece), self._take, silence=silence)

    def run(self) -> str:
        """Serve until the channel closes; why it did."""
        try:
            self.pump.post("hello", 0, self._identity.hello(self._dispatcher))
            self.pump.run()
        finally:
            self._dispatcher.disconnect()
            with self._lock:
                running, self._running = list(self._running.values()), {}
            for request in running:  # nobody will get the answer
                request.cancelled.set()
        return self.pump.reason

    def beat(self, beats: int) -> bool:
        """Say that we live; ``False`` when the channel is closed."""
        return self.pump.post("beat", 0, {"beats": beats})

    def close(self, reason: str) -> None:
        """End :meth:`run` soon, and tell the agent."""
        if self.greeted.is_set():
            self.pump.post("bye", 0, {"reason": reason})
        self.pump.close(reason)

    def _take(self, message: Message) -> None:
        if message.kind == "hello":
            if message.header.get("version") not in VERSIONS:
                raise ProtocolError(f"the agent chose version {message.header.get('version')!r}")
            self.greeted.set()
            self._dispatcher.connect(self._say)
        elif message.kind == "request":
            self._request(message)
        elif message.kind == "cancel":
            with self._lock:
                cancelled = self._running.pop(message.number, None)
            if cancelled is not None:
                cancelled.cancelled.set()
        elif message.kind == "heard":
            self._dispatcher.heard(message.number)
        elif message.kind == "ping":
            self.pump.post("pong")
        elif message.kind == "bye":
            self.pump.close(f"the agent said goodbye: {str(message.header.get('reason'))[:200]}")

    def _request(self, message: Message) -> None:
        verb, number = message.header.get("verb"), message.number
        if not isinstance(verb, str):
            raise ProtocolError("a request without a verb")
        if number in self._running:  # only this thread adds to them
            raise ProtocolError(f"request {number} comes twice")
        if self._dispatcher.is_quick(verb, message.fields):
            self._answer(number, verb, self._dispatcher.handle(Request(verb, message.fields, message.payload, _NEVER)))
            return
        request = Request(verb, message.fields, message.payload)
        with self._lock:
            self._running[number] = request
        self._dispatcher.submit(request, lambda answer: self._answered(number, request, answer))

    def _answered(self, number: int, request: Request, answer: Answer) -> None:
        with self._lock:
            if self._running.get(number) is not request:
                return  # cancelled
            del self._running[number]
        self._answer(number, request.verb, answer)

    def _answer(self, number: int, verb: str, answer: Answer) -> None:
        try:
            self._post(number, answer)
        except (ProtocolError, ValueError, TypeError) as error:
            logger.error("verb=%s its answer cannot be sent: %s", verb, error)
            self._post(number, failure(FAILED, f"the answer to {verb} cannot be sent: {error}"))

    def _post(self, number: int, answer: Answer) -> None:
        self.pump.post("answer", number, {"status": answer.status}, answer.fields, answer.payload)

    def _say(self, said: Said) -> None:
        try:
            self.pump.post("say", said.number, {"verb": said.verb}, said.fields, said.payload)
        except (ProtocolError, ValueError, TypeError) as error:
            logger.error("verb=%s cannot be said: %s", said.verb, error)
            self._dispatcher.heard(said.number)
