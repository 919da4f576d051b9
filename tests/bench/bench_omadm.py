#!/usr/bin/env python3
"""Microseconds per command: a message of n Gets or Replaces decoded, executed on a tree of 10 000 nodes, and answered.

Beside each figure stands what bare lxml needs to parse and serialise the same octets (the request and our answer to it)
in the same run; the target is at most four times that. What one more command costs must not grow from 1 to 500 commands
by more than it does for lxml ("flat": the step from 100 to 500 against the step from 1 to 100; caches make it grow for
both). Prints a table and ends with one line of JSON. Exit
status 1 when a target is missed (never with ``--short``).
"""

from __future__ import annotations

import argparse
import gc
import json
import pathlib
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from lxml import etree

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from dom0_agent.omadm import commands as c
from dom0_agent.omadm.auth import Account, MemoryNonceStore
from dom0_agent.omadm.client import ClientSession
from dom0_agent.omadm.codec import Codec
from dom0_agent.omadm.mo import Change, ExecOutcome, ExecRequest, Path, Undo
from dom0_agent.omadm.node import Command, Format, NodeDef, Scope, Value
from dom0_agent.omadm.nodestore import MemoryNodeStore, StoredNode
from dom0_agent.omadm.tree import ManagementTree
from dom0_agent.omadm.wbxml import WbxmlCodec
from dom0_agent.omadm.xml import XmlCodec

COUNTS = (1, 10, 100, 500)
NODES = 10_000
TARGET = 4.0
#: How much more than lxml's the cost of one more command may grow from 100 to 500: what "flat" allows for noise.
FLATNESS = 1.2
#: Commands that one turn executes at least: small messages are repeated, or a turn would be all clock and cold caches.
COMMANDS_PER_TURN = 40
DEVICE, SERVER = "urn:uuid:4c3c5a3e-0000-4000-8000-000000000001", "https://server.example/dm"


@dataclass(frozen=True)
class Figure:
    """One row of the table; times in microseconds per command."""

    syntax: str
    command: str
    count: int
    ours: float
    bare: float

    @property
    def case(self) -> str:
        return f"{self.syntax} {self.command} {self.count}"

    @property
    def ratio(self) -> float:
        return self.ours / self.bare


_ALL = frozenset({Command.ADD, Command.DELETE, Command.GET, Command.REPLACE})


class Machines:
    """A management object with interior nodes of stored leaves, like VirMO's."""

    moid = "urn:example:mo:machines:1.0"
    mount: Path = ("Machines",)
    definition = NodeDef(
        "Machines",
        Format.NODE,
        scope=Scope.PERMANENT,
        types=(moid,),
        children=(
            NodeDef(
                "*",
                Format.NODE,
                _ALL,
                "ZeroOrMore",
                types=(),
                children=tuple(NodeDef(f"Leaf{leaf}", Format.CHR, _ALL, "ZeroOrOne") for leaf in range(99)),
            ),
        ),
    )

    def read(self, path: Path) -> Value | None:
        raise AssertionError(f"{path} is stored")

    def initial(self, path: Path) -> Value | None:
        return None

    def prepare(self, change: Change) -> Undo | None:
        return None

    def committed(self, changes: Sequence[Change]) -> None:
        pass

    def execute(self, request: ExecRequest) -> ExecOutcome:
        raise AssertionError(f"{request.uri} is no operation")


def leaves() -> list[str]:
    """URIs of the leaves: 100 interior nodes with 99 leaves each make 10 000 nodes."""
    return [f"./Machines/vm{vm}/Leaf{leaf}" for vm in range(NODES // 100) for leaf in range(99)]


def big_tree() -> ManagementTree:
    """A tree of 10 000 stored nodes that every server may read and replace."""
    store = MemoryNodeStore()
    store.put(StoredNode((), Format.NODE, acl="Add=*&Get=*&Replace=*"))
    store.put(StoredNode(("Machines",), Format.NODE))
    for vm in range(NODES // 100):
        store.put(StoredNode(("Machines", f"vm{vm}"), Format.NODE))
    for uri in leaves():
        store.put(StoredNode(tuple(uri.split("/")[1:]), Format.CHR, "text/plain", "a value of some length"))
    store.commit()
    tree = ManagementTree(store, lambda: datetime(2026, 1, 1, tzinfo=UTC))
    tree.mount(Machines())
    return tree


def request(codec: Codec, command: str, count: int) -> bytes:
    """The server's package 2 with ``count`` commands."""
    uris = leaves()
    body: list[c.BodyElement] = [c.Status("1", 1, "0", "SyncHdr", 212), c.Status("2", 1, "1", "Alert", 200)]
    for number in range(count):
        uri = uris[number * 19 % len(uris)]
        cmd_id = str(number + 3)
        if command == "Get":
            body.append(c.Get(cmd_id, (c.Item(uri),)))
        else:
            body.append(c.Replace(cmd_id, (c.Item(uri, meta=c.Meta("chr", "text/plain"), data=f"new value {number}"),)))
    return codec.encode(c.Message(c.SyncHdr("1F", 1, DEVICE, SERVER), tuple(body)))


def best(runs: Sequence[Callable[[], float]], seconds: float) -> list[float]:
    """The least of many turns of each, taken by turns: what the work costs when nothing disturbs it."""
    least = [float("inf")] * len(runs)
    spent, turns = 0.0, 0
    while spent < seconds or turns < 3:
        for index, run in enumerate(runs):
            gc.collect()  # before each turn: no turn shall pay for the garbage of another
            took = run()
            least[index] = min(least[index], took)
            spent += took
        turns += 1
    return least


def measure(codec: Codec, tree: ManagementTree, command: str, count: int, seconds: float) -> Figure:
    """Our time for one message, and bare lxml's for the XML of the same request and answer."""
    body = request(codec, command, count)
    answers: list[bytes] = []

    messages = max(1, COMMANDS_PER_TURN // count)

    def opened() -> ClientSession:
        session = ClientSession(
            account=Account("server", SERVER),
            device_id=DEVICE,
            tree=tree,
            nonces=MemoryNonceStore(),
            random_bytes=lambda size: b"n" * size,
            codec=codec,
            session_id="1F",
            device_info=dict,
            batch=tree.batch,
        )
        session.start()
        return session

    def ours() -> float:
        sessions = [opened() for _ in range(messages)]
        began = time.thread_time()
        taken = [session.receive(body) for session in sessions]
        took = time.thread_time() - began
        answers[:] = [answer for answer in taken if answer is not None]
        assert len(answers) == messages
        return took

    ours()
    failed = [answer for answer in codec.decode(answers[0]).body if isinstance(answer, c.Status) and answer.code >= 300]
    assert not failed, failed[0]
    xml = XmlCodec()
    documents = [xml.encode(codec.decode(octets)) for octets in (body, answers[0])]

    def bare() -> float:
        began = time.thread_time()
        for _ in range(messages):
            for document in documents:
                etree.tostring(etree.fromstring(document))
        return time.thread_time() - began

    least, least_bare = best((ours, bare), seconds)
    scale = 1e6 / (count * messages)
    return Figure(type(codec).__name__[:-5].upper(), command, count, least * scale, least_bare * scale)


def flatness(figures: Sequence[Figure]) -> dict[str, float]:
    """How the cost of one more command grows from 100 to 500, as a multiple of how lxml's does; per syntax, command."""
    ours = {(f.syntax, f.command, f.count): f.ours * f.count for f in figures}
    bare = {(f.syntax, f.command, f.count): f.bare * f.count for f in figures}

    def growth(whole: dict[tuple[str, str, int], float], s: str, k: str) -> float:
        one, hundred, most = (whole[s, k, count] for count in (1, 100, 500))
        return (most - hundred) / 400 / ((hundred - one) / 99)

    kinds = sorted({(syntax, command) for syntax, command, _ in ours})
    return {f"flat {s} {k}": growth(ours, s, k) / growth(bare, s, k) for s, k in kinds}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="only see that it runs; exit 0 whatever the figures are")
    options = parser.parse_args()
    seconds = 0.02 if options.short else 0.8
    tree = big_tree()
    figures = []
    gc.disable()
    gc.freeze()
    print(f"{'syntax':7}{'command':9}{'count':>6}{'us/command':>12}{'bare lxml':>11}{'ratio':>7}")
    for codec in (XmlCodec(), WbxmlCodec()):
        for command in ("Get", "Replace"):
            for count in COUNTS:
                figure = measure(codec, tree, command, count, seconds)
                figures.append(figure)
                print(f"{figure.syntax:7}{command:9}{count:6}{figure.ours:12.1f}{figure.bare:11.1f}{figure.ratio:7.2f}")
    ratios = {figure.case: figure.ratio for figure in figures} | flatness(figures)
    targets = {case: FLATNESS if case.startswith("flat") else TARGET for case in ratios}
    ok = all(ratio <= targets[case] for case, ratio in ratios.items())
    result = {
        "bench": "omadm",
        "ratios": {case: round(ratio, 2) for case, ratio in ratios.items()},
        "targets": targets,
        "figures": {f.case: {"us_per_command": round(f.ours, 1), "lxml_us": round(f.bare, 1)} for f in figures},
    }
    print(json.dumps(result))
    return 0 if ok or options.short else 1


if __name__ == "__main__":
    sys.exit(main())
