#!/usr/bin/env python3
"""Fuzzer of the guests' channel, both sides: frames, hello, messages in pieces, by mutations of good streams.

Only ProtocolError may escape an endpoint or the reading of a hello, none may hold more memory than the caps allow, and
no input may take longer than a second. ``--seconds`` is the length of the campaign, ``--seed`` makes it repeatable.
Ends with one line of JSON; exit status 1 and the input as a file when something was found.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import random
import struct
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from dom0_agent.guest.budget import Budget
from dom0_agent.guest.config import BudgetConfig
from dom0_agent.guest.hello import facts_of, instance_of, parse_hello
from guest_shim.endpoint import AGENT, SHIM, Endpoint
from guest_shim.protocol import Frame, ProtocolError, encode

SLOWEST = 1.0  #: seconds of the processor for one input
_OBJECT = {"moid": "urn:oma:mo:oma-lawmo:1.0", "live": ["State", "a/*/b"], "operations": ["Operations/Lock"]}
_HELLO = {
    "versions": [1],
    "shim": "0.1.0",
    "boot_id": "0f0e0d0c-0b0a-4908-8706-050403020100",
    "beats": 7,
    "instance": "00ff",
    "resumed": False,
    "objects": [_OBJECT],
    "capabilities": ["clock", "ui"],
}
_FROM_SHIM = [
    encode(Frame("hello", _HELLO)),
    encode(Frame("answer", {"id": 1, "status": 200, "fields": {"a": [1, {"b": None}]}})),
    encode(Frame("answer", {"id": 2, "status": 404, "size": 2000}, bytes(1500))),
    encode(Frame("data", {"id": 2, "kind": "answer"}, bytes(500))),
    encode(Frame("answer", {"id": 3, "status": 200, "size": 12, "spilled": 9}, b'{"a":[1]}abc')),
    encode(Frame("say", {"id": 1, "verb": "result", "fields": {"x": "y"}, "size": 3}, b"abc")),
    encode(Frame("beat", {"beats": 8})),
    encode(Frame("pong", {})),
    encode(Frame("credit", {"bytes": 131072})),
    encode(Frame("bye", {"reason": "x"})),
]
_FROM_AGENT = [
    encode(Frame("hello", {"version": 1})),
    encode(Frame("request", {"id": 1, "verb": "read", "fields": {"moid": "urn:x"}, "deadline": 20.0})),
    encode(Frame("request", {"id": 2, "verb": "package", "size": 5000}, bytes(4000))),
    encode(Frame("data", {"id": 2, "kind": "request"}, bytes(1000))),
    encode(Frame("cancel", {"id": 1})),
    encode(Frame("heard", {"id": 4})),
    encode(Frame("ping", {})),
    encode(Frame("credit", {"bytes": 131072})),
    encode(Frame("bye", {"reason": "x"})),
]
_WORDS = (
    b'"id":|"size":|"spilled":|"payload":|"kind":|"type":|-1|0|1e999|NaN|true|null|[[[[[[[[[|{"a":{"a":|"\\ud800"|\\u0000'
    b'|18446744073709551616|65537|16777217|"hello"|"answer"|"data"|"credit"|\xff|\x00\x00\x00\x02{}|../..|urn:oma:mo:oma-virmo:'
).split(b"|")


def mutate(rng: random.Random, frames: list[bytes]) -> bytes:
    """A stream of good frames, some of them damaged, repeated, swapped or cut."""
    chosen = [frames[0]] if rng.random() < 0.9 else []
    chosen += rng.choices(frames, k=rng.randint(0, 8))
    stream = bytearray(b"".join(chosen))
    for _ in range(rng.choice([0, 0, 1, 1, 2, 4])):
        at = rng.randrange(len(stream) + 1)
        kind = rng.randrange(6)
        if kind == 0:
            stream[at:at] = rng.choice(_WORDS)
        elif kind == 1:
            del stream[at : at + rng.randint(1, 40)]
        elif kind == 2 and at < len(stream):
            stream[at] = rng.randrange(256)
        elif kind == 3:
            stream[at : at + 4] = struct.pack(">I", rng.choice([0, 1, 16384, 16385, 2**31, 2**32 - 1]))
        elif kind == 4:
            stream[at:at] = rng.choice(frames)
        else:
            stream[at : at + 8] = rng.choice(_WORDS)
    return bytes(stream)


def agent_side(stream: bytes, rng: random.Random) -> None:
    """What a guest sends, through budget, endpoint and the reading of its hello."""
    budget = Budget(BudgetConfig(), lambda: 0.0)
    endpoint = Endpoint(AGENT, budget)
    for number in (1, 2, 3):
        endpoint.send("request", number, {"verb": "x"})
    endpoint.take()
    _feed(endpoint, stream, rng, budget)


def shim_side(stream: bytes, rng: random.Random) -> None:
    """What an agent sends; a shim must not fall over a broken one."""
    _feed(Endpoint(SHIM), stream, rng, None)


def _feed(endpoint: Endpoint, stream: bytes, rng: random.Random, budget: Budget | None) -> None:
    while stream:
        size = rng.choice([1, 7, 100, len(stream)])
        for message in endpoint.receive(stream[:size]):
            if budget is not None:
                budget.fields(message.fields)
            if message.kind == "hello" and budget is not None:
                facts_of(message.header)
                instance_of(message.header)
                parse_hello(message.header, "vchan")
        stream = stream[size:]
        endpoint.take()


TARGETS: dict[str, tuple[Callable[[bytes, random.Random], None], list[bytes]]] = {
    "agent": (agent_side, _FROM_SHIM),
    "shim": (shim_side, _FROM_AGENT),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    counted: Counter[str] = Counter()
    ended: Counter[str] = Counter()
    end = time.monotonic() + options.seconds
    while time.monotonic() < end:
        name = rng.choice(list(TARGETS))
        target, frames = TARGETS[name]
        stream = mutate(rng, frames)
        counted[name] += 1
        began = time.thread_time()  # a busy machine is no finding
        found = ""
        try:
            target(stream, rng)
            ended["accepted"] += 1
        except ProtocolError:
            ended["refused"] += 1
        except BaseException:  # noqa: BLE001 - a finding is whatever else escapes
            found = traceback.format_exc()
        if not found and time.thread_time() - began > SLOWEST:
            found = f"took {time.thread_time() - began:.1f} s"
        if found:
            pathlib.Path(f"channel-{name}.bin").write_bytes(stream)
            print(f"{name}: {found}", file=sys.stderr)
            return 1
    print(json.dumps({"fuzz": "channel", "inputs": counted.total(), "by_target": counted, "ended": ended}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
