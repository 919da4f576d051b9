"""Verbs find their handlers; whatever a handler does, there is one answer, and what is said is not lost."""

from __future__ import annotations

import threading
import uuid

import pytest

from dom0_agent.guest.interface import GuestAbsent, GuestEvent, GuestEventKind, GuestRequest, Guests, GuestTimeout
from guest_shim.dispatch import (
    BUSY,
    FAILED,
    MOST_SAID,
    MOST_WORKERS,
    NOT_SUPPORTED,
    Answer,
    Dispatcher,
    Request,
    Said,
    ServedObject,
    ShimError,
)
from tests.unit.guest.loopback import LoopbackGuests

VMID = uuid.UUID(int=7)


def test_ping_and_unknown() -> None:
    shim = Dispatcher()
    assert shim.handle(Request("ping", {"a": 1}, b"x")) == Answer(200, {"a": 1}, b"x")
    assert shim.handle(Request("pong")).status == NOT_SUPPORTED
    with pytest.raises(ValueError, match="two handlers"):
        shim.add("ping", lambda request: Answer())


@pytest.mark.parametrize(
    ("error", "status"),
    [(ShimError(412, "no"), 412), (OSError("disk"), FAILED), (ValueError("x"), FAILED), (KeyError("uri"), FAILED)],
)
def test_errors_of_handlers_are_answers(error: Exception, status: int) -> None:
    def handler(request: Request) -> Answer:
        raise error

    shim = Dispatcher()
    shim.add("get", handler)
    answer = shim.handle(Request("get"))
    assert answer.status == status
    assert answer.fields["error"]


def test_a_handler_that_breaks_is_answered_all_the_same_and_takes_no_worker_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken = threading.Semaphore(0)
    monkeypatch.setattr(threading, "excepthook", lambda _: broken.release())

    def handler(request: Request) -> Answer:
        raise ZeroDivisionError

    shim = Dispatcher()
    shim.add("get", handler)
    for _ in range(MOST_WORKERS + 2):
        got: list[Answer] = []
        done = threading.Event()

        def answered(answer: Answer, got: list[Answer] = got, done: threading.Event = done) -> None:
            got.append(answer)
            done.set()

        shim.submit(Request("get"), answered)
        assert done.wait(5)
        assert got[0].status == FAILED
        assert broken.acquire(timeout=5), "threading is told"


def test_long_handlers_run_side_by_side_and_one_too_many_is_told_so() -> None:
    release, running = threading.Event(), threading.Semaphore(0)

    def handler(request: Request) -> Answer:
        running.release()
        assert release.wait(10)
        return Answer()

    shim = Dispatcher()
    shim.add("long", handler)
    answers: list[int] = []
    all_done = threading.Semaphore(0)

    def answered(answer: Answer) -> None:
        answers.append(answer.status)
        all_done.release()

    for _ in range(MOST_WORKERS):
        shim.submit(Request("long"), answered)
    assert all(running.acquire(timeout=5) for _ in range(MOST_WORKERS))
    shim.submit(Request("long"), answered)
    assert answers == [BUSY]
    release.set()
    assert all(all_done.acquire(timeout=5) for _ in range(MOST_WORKERS + 1))
    shim.submit(Request("ping"), answered)
    assert all_done.acquire(timeout=5)
    assert answers[-1] == 200


def test_what_is_said_waits_for_a_listener_and_for_its_confirmation() -> None:
    shim = Dispatcher()
    shim.say("done", {"n": 1})
    heard: list[Said] = []
    shim.connect(heard.append)
    shim.say("done", {"n": 2})
    assert [said.fields["n"] for said in heard] == [1, 2]
    shim.disconnect()
    shim.heard(1)
    shim.say("done", {"n": 3})
    again: list[Said] = []
    shim.connect(again.append)
    assert [said.fields["n"] for said in again] == [2, 3], "what was not confirmed is said again"
    for n in range(MOST_SAID + 3):
        shim.say("more", {"n": n})
    last: list[Said] = []
    shim.connect(last.append)
    assert len(last) == MOST_SAID
    assert last[-1].fields["n"] == MOST_SAID + 2


def test_the_loopback_is_a_guest() -> None:
    guests = LoopbackGuests()
    typed: Guests = guests
    events: list[GuestEvent] = []
    unsubscribe = guests.subscribe(events.append)
    with pytest.raises(GuestAbsent):
        typed.request(VMID, GuestRequest("ping"), deadline=1)
    shim = Dispatcher([ServedObject("urn:x", ("State",), ("Operations/Go",))], {"ui"})
    forever = threading.Event()

    def hang(request: Request) -> Answer:
        request.cancelled.wait(10)
        forever.set()
        return Answer()

    shim.add("hang", hang)
    guests.connect(VMID, shim)
    hello = typed.hello(VMID)
    assert hello is not None
    assert hello.objects[0].operations == ("Operations/Go",)
    assert typed.request(VMID, GuestRequest("ping", {"a": [1]}, b"p"), deadline=5).payload == b"p"
    with pytest.raises(GuestTimeout):
        typed.request(VMID, GuestRequest("hang"), deadline=0.05)
    assert forever.wait(5), "the handler is told that nobody waits"
    shim.say("result", {"status": 200}, b"data")
    guests.lose(VMID)
    assert [event.kind for event in events] == [GuestEventKind.CONNECTED, GuestEventKind.SAID, GuestEventKind.LOST]
    assert events[1].payload == b"data"
    unsubscribe()
