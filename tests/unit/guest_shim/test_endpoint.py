"""Both ends of a channel against each other: what is sent arrives, whatever is cut where, and a breach ends it."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guest_shim.endpoint import AGENT, PARTIAL_CAP, SHIM, Endpoint, Message
from guest_shim.protocol import (
    CREDIT_MINIMUM,
    FIELDS_CAP,
    MESSAGE_CAP,
    PAYLOAD_CAP,
    WINDOW,
    Frame,
    FrameReader,
    ProtocolError,
    encode,
)

HELLO = {"versions": [1]}


def pair() -> tuple[Endpoint, Endpoint]:
    """An agent's end and a shim's, greeted."""
    agent, shim = Endpoint(AGENT), Endpoint(SHIM)
    shim.send("hello", 0, HELLO)
    agent.send("hello", 0, {"version": 1})
    exchange(agent, shim)
    return agent, shim


def exchange(agent: Endpoint, shim: Endpoint, cut: random.Random | None = None) -> tuple[list[Message], list[Message]]:
    """Carry bytes both ways until nobody has any; what the agent and what the shim got."""
    got: tuple[list[Message], list[Message]] = ([], [])
    moved = True
    while moved:
        moved = False
        for source, target, messages in ((shim, agent, got[0]), (agent, shim, got[1])):
            data = source.take()
            while data:
                moved = True
                size = len(data) if cut is None else cut.randint(1, len(data))
                messages.extend(target.receive(data[:size]))
                data = data[size:]
    return got


def frame(type_: str, payload: bytes = b"", **fields: object) -> bytes:
    """A frame as a malicious guest may write it."""
    return encode(Frame(type_, fields, payload))


fields = st.dictionaries(st.text(max_size=8), st.one_of(st.integers(), st.text(max_size=20), st.none()), max_size=4)
payloads = st.one_of(
    st.binary(max_size=64), st.integers(0, 700_000).map(lambda size: random.Random(size).randbytes(size))
)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(fields, payloads), min_size=1, max_size=5), st.integers())
def test_requests_and_answers_arrive_whole_and_in_pieces(things: list[tuple[dict[str, Any], bytes]], seed: int) -> None:
    agent, shim = pair()
    for number, (some, payload) in enumerate(things, 1):
        agent.send("request", number, {"verb": "x"}, some, payload)
        shim.send("say", number, {"verb": "y"}, some, payload)
    said, asked = exchange(agent, shim, random.Random(seed))
    for messages in (said, asked):
        assert sorted((m.number, m.fields, m.payload) for m in messages) == [
            (number, some, payload) for number, (some, payload) in enumerate(things, 1)
        ]
    for number, (some, payload) in enumerate(things, 1):
        shim.send("answer", number, {"status": 200}, some, payload)
    answers, _ = exchange(agent, shim, random.Random(seed))
    assert {m.number: (m.fields, m.payload) for m in answers} == dict(enumerate(things, 1))


def test_a_payload_as_large_as_allowed_and_fields_that_spill() -> None:
    agent, shim = pair()
    long = {"text": "ä" * 300_000}
    agent.send("request", 1, {"verb": "x"}, long, bytes(MESSAGE_CAP))
    _, (request,) = exchange(agent, shim)
    assert request.fields == long
    assert request.payload == bytes(MESSAGE_CAP)
    with pytest.raises(ProtocolError, match="over"):
        agent.send("request", 2, {}, {}, bytes(MESSAGE_CAP + 1))
    with pytest.raises(ProtocolError, match="fields"):
        agent.send("request", 2, {}, {"text": "x" * FIELDS_CAP})
    with pytest.raises(TypeError):
        agent.send("request", 2, {}, {"text": object()})
    agent.send("request", 2, {"verb": "x"}, {"text": "\ud800"})
    assert exchange(agent, shim)[1][0].fields == {"text": "?"}, "half a character cannot travel, and harms nobody"


def test_a_small_request_does_not_wait_for_a_large_one() -> None:
    agent, shim = pair()
    agent.send("request", 1, {"verb": "large"}, {}, bytes(4 * WINDOW))
    agent.send("request", 2, {"verb": "small"}, {}, b"x")
    agent.send("request", 3, {"verb": "none"})
    taken = b"".join(agent.take() for _ in range(3))
    assert [m.number for m in shim.receive(taken)] == [3, 2]


def test_nothing_is_sent_without_credit() -> None:
    agent, shim = pair()
    agent.send("request", 1, {"verb": "x"}, {}, bytes(MESSAGE_CAP))
    sent, reader = 0, FrameReader()
    while data := agent.take():
        sent += sum(frame.size() for frame in reader.feed(data))
    assert sent == WINDOW
    agent.send("ping")
    assert FrameReader().feed(agent.take())[0].type == "ping", "what has no payload needs none"
    assert shim.take() == b""


def test_cancel_before_during_and_after() -> None:
    agent, shim = pair()
    agent.send("request", 1, {"verb": "x"}, {}, bytes(WINDOW * 3))
    agent.cancel(1)
    assert exchange(agent, shim)[1] == [], "nothing of it was out yet"
    agent.send("request", 2, {"verb": "x"}, {}, bytes(WINDOW * 3))
    shim.receive(agent.take())
    agent.cancel(2)
    assert [m.kind for m in exchange(agent, shim)[1]] == ["cancel"]
    agent.send("request", 3, {"verb": "x"})
    exchange(agent, shim)
    shim.send("answer", 3, {"status": 200}, {}, bytes(WINDOW * 3))
    agent.receive(shim.take())
    late = shim.take()
    agent.cancel(3)
    agent.cancel(3)
    agent.receive(late)
    assert exchange(agent, shim)[0] == []
    agent.send("request", 4, {"verb": "x"}, {}, bytes(WINDOW * 2))
    assert exchange(agent, shim)[1][0].number == 4, "the credit of what was given up came back"


@pytest.mark.parametrize(
    "breach",
    [
        frame("answer", id=9, status=200),
        frame("answer", id="9", status=200),
        frame("answer", id=-1, status=200),
        frame("answer", id=2**60, status=200),
        frame("answer", status=200),
        frame("hello", versions=[1]),
        frame("data", b"x", id=9, kind="answer"),
        frame("data", b"x", id=9, kind="nonsense"),
        frame("say", id=1, size=MESSAGE_CAP * 2),
        frame("say", id=1, size=-1),
        frame("say", id=1, size="1"),
        frame("say", b"xx", id=1, size=1),
        frame("say", id=1, size=10, spilled=11),
        frame("say", b"[]", id=1, size=2, spilled=2),
        frame("say", b"[" * 1500, id=1, size=1500, spilled=1500),
        frame("say", id=1, size=5) * 2,
        frame("say", id=1, size=5000) + frame("data", b"x", id=1, kind="say"),
        frame("say", id=1, size=5) + frame("data", id=1, kind="say"),
        frame("say", id=1, fields=[]),
        frame("credit", bytes=1),
        frame("credit", bytes=CREDIT_MINIMUM),
        frame("credit", bytes=True),
        b"".join(frame("say", id=number, size=5) for number in range(1, PARTIAL_CAP + 2)),
        b"".join(frame("say", id=number, size=MESSAGE_CAP) for number in range(1, 4)),
        b"".join(frame("other", bytes(PAYLOAD_CAP)) for _ in range(9)),
    ],
)
def test_breaches_by_a_guest(breach: bytes) -> None:
    """Wrong ids, answers to what nobody asked, sizes that are not kept; the last: credit is never given, so it ends."""
    agent, _ = pair()
    with pytest.raises(ProtocolError):
        agent.receive(breach)
        agent.receive(frame("say", bytes(PAYLOAD_CAP), id=99, size=PAYLOAD_CAP - 1))


def test_before_hello_nothing_is_taken() -> None:
    with pytest.raises(ProtocolError, match="before hello"):
        Endpoint(AGENT).receive(frame("say", id=1))


def test_an_unknown_type_is_a_later_versions() -> None:
    agent, shim = pair()
    assert agent.receive(frame("novelty", b"payload", id=3)) == []
    assert shim.receive(frame("request", id=1, verb="x"))[0].header == {"verb": "x"}


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([AGENT, SHIM]), st.lists(st.binary(max_size=60), max_size=8))
def test_any_bytes_end_in_messages_or_a_protocol_error(side: str, chunks: list[bytes]) -> None:
    endpoint = Endpoint(side)
    try:
        endpoint.receive(frame("hello", versions=[1]))
        for chunk in chunks:
            endpoint.receive(chunk)
    except ProtocolError:
        return
