"""What the shim does with a request: a table from verb to handler, and the threads that run the handlers.

Knows no transport and no frame, and must not know what any verb but ``ping`` means. A handler may take long: it runs in
a worker thread while the channel goes on, and looks at ``Request.cancelled`` from time to time. What a handler wants to
tell dom0 later, or by itself, it hands to :meth:`Dispatcher.say`.
Must run on Python 3.9 with the standard library alone.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

logger = logging.getLogger(__name__)

#: DM statuses the shim answers with by itself (OMA-TS-DM-RepPro 10).
OK, NOT_FOUND, NOT_SUPPORTED, FAILED, BUSY = 200, 404, 406, 500, 503
#: Handlers that run at the same time; a request beyond them is answered 503 at once.
MOST_WORKERS = 8
#: Things said that dom0 has not confirmed yet; of more, the oldest are lost.
MOST_SAID = 64


class ShimError(Exception):
    """A handler cannot do what was asked: ``status`` is the DM status or result code that says why."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Request:
    """One request of the agent. ``fields`` are JSON values, not yet checked by anybody."""

    verb: str
    fields: dict[str, Any] = field(default_factory=dict)
    payload: bytes = b""
    #: set when the agent does not wait any longer: stop if that can be done cleanly; the answer goes nowhere
    cancelled: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class Answer:
    """What the agent gets. ``status`` is a DM status or a management object's result code."""

    status: int = OK
    fields: dict[str, Any] = field(default_factory=dict)
    payload: bytes = b""


@dataclass(frozen=True)
class ServedObject:
    """A management object that hello says we serve, found by its MOID."""

    moid: str
    #: nodes below the object's root that are read from here ("Inventory/Deployed/*/State"; ``*`` is one name)
    live: tuple[str, ...] = ()
    #: nodes that Exec runs here ("Operations/FullyLock")
    operations: tuple[str, ...] = ()


@dataclass(frozen=True)
class Said:
    """Something that the shim tells dom0 unasked. ``number`` grows by one each time in a shim's life."""

    number: int
    verb: str
    fields: dict[str, Any]
    payload: bytes


Handler = Callable[[Request], Answer]
Quick = Callable[[dict[str, Any]], bool]


def failure(status: int, message: str) -> Answer:
    """An answer that says in words what went wrong."""
    return Answer(status, {"error": message})


class Dispatcher:
    """The table of verbs, what hello tells of it, and what waits to be said. Thread-safe."""

    def __init__(self, objects: Iterable[ServedObject] = (), capabilities: Iterable[str] = ()) -> None:
        self.objects: list[ServedObject] = list(objects)
        self.capabilities: set[str] = set(capabilities)
        self._handlers: dict[str, Handler] = {"ping": _ping}
        self._quick: dict[str, Quick] = {"ping": lambda _fields: True}
        self._workers = _Workers()
        self._running = 0
        self._lock = threading.Lock()
        self._said: deque[Said] = deque()
        self._numbers = 0
        self._sender: Callable[[Said], None] | None = None

    def add(self, verb: str, handler: Handler, quick: Quick | None = None) -> None:
        """Have ``handler`` answer ``verb``. :class:`ValueError` when somebody does already.

        ``quick``: whether a request with these fields needs the processor and nothing else, and little of it.
        """
        if verb in self._handlers:
            raise ValueError(f"two handlers for {verb}")
        self._handlers[verb] = handler
        if quick is not None:
            self._quick[verb] = quick

    def handle(self, request: Request) -> Answer:
        """Run the handler of ``request`` here and now. Unknown verb: 406; a handler that fails: 500 and a log line."""
        handler = self._handlers.get(request.verb)
        if handler is None:
            return failure(NOT_SUPPORTED, f"this shim does not know {request.verb}")
        try:
            return handler(request)
        except ShimError as error:
            logger.info("verb=%s status=%d error=%s", request.verb, error.status, error)
            return failure(error.status, str(error))
        except (OSError, ValueError, LookupError, TypeError) as error:
            logger.exception("verb=%s failed", request.verb)
            return failure(FAILED, f"{request.verb}: {type(error).__name__}: {error}")

    def is_quick(self, verb: str, fields: dict[str, Any]) -> bool:
        """Whether to :meth:`handle` such a request takes less time than to :meth:`submit` it."""
        quick = self._quick.get(verb)
        return quick is not None and quick(fields)

    def submit(self, request: Request, answered: Callable[[Answer], None]) -> None:
        """Run the handler in a worker thread, which also calls ``answered``. Always answered, also when it breaks."""

        def work() -> None:
            answer = failure(FAILED, f"{request.verb} broke in the shim")
            try:
                answer = self.handle(request)
            finally:
                with self._lock:
                    self._running -= 1
                answered(answer)

        with self._lock:
            busy = self._running >= MOST_WORKERS
            self._running += not busy
        if busy:
            answered(failure(BUSY, f"{MOST_WORKERS} requests are being handled already"))
        else:
            self._workers.run(work)

    def say(self, verb: str, fields: dict[str, Any] | None = None, payload: bytes = b"") -> None:
        """Tell dom0 something: the result of an operation that was answered 202, or an event.

        Never blocks. Kept until dom0 has heard it, also across a reconnection; only an overflow loses the oldest.
        """
        with self._lock:
            self._numbers += 1
            said = Said(self._numbers, verb, dict(fields or {}), payload)
            if len(self._said) >= MOST_SAID:
                logger.warning("verb=%s lost: dom0 has not listened for too long", self._said.popleft().verb)
            self._said.append(said)
            sender = self._sender
        if sender is not None:
            sender(said)

    def connect(self, sender: Callable[[Said], None]) -> None:
        """Give what is said to ``sender`` from now on, what dom0 has not heard yet first. Channels call this."""
        with self._lock:
            self._sender = sender
            waiting = list(self._said)
        for said in waiting:
            sender(said)

    def disconnect(self) -> None:
        """Nobody listens: keep what is said."""
        with self._lock:
            self._sender = None

    def heard(self, number: int) -> None:
        """dom0 has confirmed what was said with this number; everything before it was heard as well."""
        with self._lock:
            while self._said and self._said[0].number <= number:
                self._said.popleft()


def _ping(request: Request) -> Answer:
    """The request comes back as it was."""
    return Answer(OK, dict(request.fields), request.payload)


class _Workers:
    """Threads that run jobs; made when they are needed, kept for the next job."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._jobs: deque[Callable[[], None]] = deque()
        self._idle = 0
        self._threads = 0

    def run(self, job: Callable[[], None]) -> None:
        """Have a thread run ``job``, at once or when one of :data:`MOST_WORKERS` has done its own."""
        with self._condition:
            self._jobs.append(job)
            if self._idle >= len(self._jobs):
                self._condition.notify()
                return
            if self._threads >= MOST_WORKERS:
                return
            self._threads += 1
        self._start()

    def _start(self) -> None:
        threading.Thread(target=self._work, name="shim-worker", daemon=True).start()

    def _work(self) -> None:
        try:
            while True:
                with self._condition:
                    self._idle += 1
                    while not self._jobs:
                        self._condition.wait()
                    self._idle -= 1
                    job = self._jobs.popleft()
                job()
        finally:  # a job broke in a way nobody foresaw: threading reports it, the next job gets a new thread
            with self._condition:
                left = bool(self._jobs)
                self._threads -= not left
            if left:
                self._start()
