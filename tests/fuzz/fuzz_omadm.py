#!/usr/bin/env python3
"""Fuzzer of everything in ``omadm`` that reads foreign octets, by mutations of good messages.

Mutations are of octets and of elements. Guided by what the code says: an input with an outcome that was never seen
before (another complaint, other commands in the message, another answer or state of the session) becomes material for
further mutations. Only ProtocolError may escape a decoder, nothing may escape a session, and no input may take longer
than a second. ``--seconds`` is the length of the campaign (30 in CI, 600 by hand), ``--seed`` makes it repeatable. Ends
with one line of JSON; exit status 1 and the input as a file when something was found.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import pathlib
import random
import re
import signal
import sys
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from types import FrameType

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from dom0_agent.omadm import commands as c
from dom0_agent.omadm.auth import parse_hmac_header
from dom0_agent.omadm.bootstrap import apply_profile, profile_from
from dom0_agent.omadm.codec import Codec
from dom0_agent.omadm.notification import build_notification, parse_notification
from dom0_agent.omadm.status import ProtocolError
from dom0_agent.omadm.tnds import TndsNode, decode_tnds
from dom0_agent.omadm.trace import trace_lines
from dom0_agent.omadm.wbxml import WbxmlCodec
from dom0_agent.omadm.xml import XmlCodec
from tests.fuzz.mutators import WBXML_WORDS, XML_WORDS, ElementMutator, Mutator
from tests.unit.omadm.dm_pair import Application, LeafTree, Pair
from tests.unit.omadm.messages import MESSAGES

Mutate = Callable[[bytes, bytes], bytes]

SLOWEST = 1.0  #: seconds for one input
STUCK = 20.0  #: seconds after which an input is given up, whatever the machine does beside
KEPT = 500  #: inputs with new outcomes that a target keeps
KEPT_LENGTH = 20_000  #: octets of the longest that is kept: mutations make inputs longer, and long ones slow


class Stuck(Exception):  # noqa: N818 - it is what an input is found to be
    """Raised within a target that does not come to an end."""


class Campaign:
    """Targets with their seeds, run by turns until the time is over."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.runs: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.slowest = 0.0
        self._outcomes: dict[str, set[object]] = defaultdict(set)
        self._kept: dict[str, list[bytes]] = defaultdict(list)
        self._xml = Mutator(self.rng, XML_WORDS)
        self._wbxml = Mutator(self.rng, WBXML_WORDS)
        self._elements = {codec: ElementMutator(self.rng, codec, self._octets(codec)) for codec in _CODECS}
        self._seeds = {codec: [codec.encode(message) for message in MESSAGES.values()] for codec in _CODECS}
        self._conversations = {codec: _conversation(codec) for codec in _CODECS}
        self.targets: tuple[Callable[[], tuple[str, bytes, Callable[[bytes], object]]], ...] = (
            *(lambda codec=codec: self._decode(codec) for codec in _CODECS),
            *(lambda codec=codec: self._client(codec) for codec in _CODECS),
            *(lambda codec=codec: self._server(codec) for codec in _CODECS),
            self._notification,
            self._hmac,
            self._bootstrap,
            self._tnds,
        )

    @property
    def outcomes(self) -> dict[str, int]:
        """Different outcomes per target."""
        return {name: len(found) for name, found in sorted(self._outcomes.items())}

    def _mutated(self, name: str, mutate: Mutate, seeds: list[bytes]) -> bytes:
        kept = self._kept[name]
        pools = (seeds, kept) if kept else (seeds,)
        return mutate(self.rng.choice(self.rng.choice(pools)), self.rng.choice(self.rng.choice(pools)))

    def _octets(self, codec: Codec) -> Mutator:
        return self._xml if isinstance(codec, XmlCodec) else self._wbxml

    def _mutator(self, codec: Codec) -> Mutate:
        return self._elements[codec] if self.rng.random() < 0.5 else self._octets(codec)

    def _learn(self, name: str, octets: bytes, outcome: object) -> None:
        found = self._outcomes[name]
        if outcome in found or len(self._kept[name]) >= KEPT:
            return
        found.add(outcome)
        if len(octets) <= KEPT_LENGTH:
            self._kept[name].append(octets)

    def _decode(self, codec: Codec) -> tuple[str, bytes, Callable[[bytes], object]]:
        def run(octets: bytes) -> object:
            trace_lines(codec, octets)
            message = codec.decode(octets)
            if not any(isinstance(command, c.UnknownCommand) for command in c.walk(message.body)):
                again = codec.decode(codec.encode(message))
                assert codec.encode(again) == codec.encode(codec.decode(codec.encode(again))), "encoding is not stable"
            return _shape(message)

        name = f"decode {codec.media_type}"
        return name, self._mutated(name, self._mutator(codec), self._seeds[codec]), run

    def _client(self, codec: Codec) -> tuple[str, bytes, Callable[[bytes], object]]:
        """A client session at a random point of a good conversation; ProtocolError must not escape it either."""
        bodies = self._conversations[codec]
        step = self.rng.randrange(len(bodies) // 2)
        answers = bodies[1::2]

        def run(octets: bytes) -> object:
            client = Pair(LeafTree({"./X": "1"}), codec=codec).client("1F")
            client.start()
            for good in answers[:step]:
                client.receive(good)
            try:
                answer = client.receive(octets)
                client.receive(octets + b" ")
            except ProtocolError as error:
                raise AssertionError("ProtocolError escaped the client session") from error
            ended = None if client.outcome is None else client.outcome.reason
            return step, ended, client.state, None if answer is None else _shape(codec.decode(answer))

        name = f"client {codec.media_type}"
        return name, self._mutated(name, self._mutator(codec), answers), run

    def _server(self, codec: Codec) -> tuple[str, bytes, Callable[[bytes], object]]:
        bodies = self._conversations[codec]
        questions = bodies[0::2]
        step = self.rng.randrange(len(questions))

        def run(octets: bytes) -> object:
            server = Pair(codec=codec).server("1F")
            application = _application()
            for question in questions[:step]:
                server.receive(question, application)
            answer = server.receive(octets, application)
            server = Pair(codec=codec).server("1F", json.loads(json.dumps(server.to_dict())))
            return step, server.state, _shape(codec.decode(answer)), tuple(application.codes.items())

        name = f"server {codec.media_type}"
        return name, self._mutated(name, self._mutator(codec), questions), run

    def _notification(self) -> tuple[str, bytes, Callable[[bytes], object]]:
        seed = build_notification("server", "secret", b"nonce", 7)

        def run(octets: bytes) -> object:
            found = parse_notification(octets)
            return found.version, found.ui_mode, found.initiator, bool(found.vendor)

        return "notification", self._mutated("notification", self._wbxml, [seed]), run

    def _hmac(self) -> tuple[str, bytes, Callable[[bytes], object]]:
        seed = b'algorithm=MD5, username="Robert \\"Bob\\" Jordan", mac=urdCeS3JUmjFgi8SX3webw=='
        octets = self._mutated("hmac header", self._xml, [seed])
        return "hmac header", octets, lambda octets: bool(parse_hmac_header(octets.decode("latin-1")).username)

    def _bootstrap(self) -> tuple[str, bytes, Callable[[bytes], object]]:
        codec = _CODECS[1]

        def run(octets: bytes) -> object:
            return apply_profile(profile_from(codec.media_type, octets), LeafTree(), "server").results[:8]

        return "bootstrap", self._mutated("bootstrap", self._wbxml, self._seeds[codec]), run

    def _tnds(self) -> tuple[str, bytes, Callable[[bytes], object]]:
        seed = (
            b'<MgmtTree xmlns="syncml:dmddf1.2"><VerDTD>1.2</VerDTD><Node><NodeName>a</NodeName><RTProperties><Format>'
            b"<node/></Format><Type><DDFName/></Type></RTProperties><Node><NodeName>b</NodeName><RTProperties><Format><bin/>"
            b"</Format><Type><MIME>a/b</MIME></Type></RTProperties><Value>AAEC</Value></Node></Node></MgmtTree>"
        )
        wbxml = (
            bytes.fromhex("0200006A1B")
            + b"-//OMA//DTD-DM-DDF 1.2//EN\0"
            + bytes.fromhex(
                "0002 60 77 03312E3200 01 64 66 036100 01 6F 5C 25 01 75 51 01 01 01"
                "64 66 036200 01 6F 5C 0A 01 75 61 03612F6200 01 01 01 76 C303000102 01 01 01 01"
            )
        )
        decode_tnds(wbxml)

        def run(octets: bytes) -> object:
            return _tnds_shape(decode_tnds(octets))

        if self.rng.random() < 0.5:
            return "tnds+wbxml", self._mutated("tnds+wbxml", self._wbxml, [wbxml]), run
        return "tnds", self._mutated("tnds", self._xml, [seed]), run

    def step(self) -> tuple[str, bytes, str] | None:
        """One input; the target, the input and the report when something is wrong with it."""
        name, octets, run = self.rng.choice(self.targets)()
        self.runs[name] += 1
        began = time.thread_time()
        signal.setitimer(signal.ITIMER_REAL, STUCK)
        try:
            self._learn(name, octets, run(octets))
        except ProtocolError as error:
            self.refused[name] += 1
            self._learn(name, octets, _NUMBERS.sub("#", str(error)))
        except Exception:  # noqa: BLE001 - whatever escapes is what we are looking for
            return name, octets, traceback.format_exc()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        took = time.thread_time() - began
        self.slowest = max(self.slowest, took)
        return None if took < SLOWEST else (name, octets, f"took {took:.2f} seconds")


_CODECS: tuple[Codec, ...] = (XmlCodec(), WbxmlCodec())


#: numbers and quoted texts: what makes the same complaint look different
_NUMBERS = re.compile(r"[0-9]+|'[^']*'|\"[^\"]*\"|0x[0-9a-f]+")


def _shape(message: c.Message) -> object:
    """What kind of message it is: its commands and their codes, and how often parts of Items are there."""
    commands = []
    for command in list(c.walk(message.body))[:12]:
        items: tuple[c.Item, ...] = getattr(command, "items", ())
        parts = {
            part
            for item in items[:4]
            for part in ("target", "source", "meta", "data", "more_data")
            if getattr(item, part)
        }
        commands.append((type(command).__name__, getattr(command, "code", None), min(len(items), 3), frozenset(parts)))
    return message.final, message.header.cred is not None, message.header.meta is not None, tuple(commands)


def _tnds_shape(nodes: Sequence[TndsNode]) -> object:
    return tuple((node.format, bool(node.name), bool(node.acl), _tnds_shape(node.children)) for node in nodes[:6])


def _application() -> Application:
    item = c.Item("./X")
    alert = c.Alert(code=1101, items=(c.Item(data=""), c.Item(data="Sure?")))
    return Application(
        [c.Get(items=(item,)), c.Sequence(commands=(alert, c.Delete(items=(item,))))],
        [c.Atomic(commands=(c.Add(items=(c.Item("./Y", data="y"),)),)), c.Exec(items=(item,), correlator="abc")],
    )


def _conversation(codec: Codec) -> list[bytes]:
    """A good conversation to begin from, question and answer by turns: its nonces are counted, it can be replayed."""
    pair = Pair(LeafTree({"./X": "1"}), codec=codec)
    pair.run(_application())
    return pair.bodies


def _give_up(_number: int, _frame: FrameType | None) -> None:
    raise Stuck(f"still at it after {STUCK:g} seconds")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=None, help="default: the time")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else time.time_ns() & 0xFFFFFFFF
    print(f"seed {seed}", file=sys.stderr, flush=True)
    signal.signal(signal.SIGALRM, _give_up)
    # Code that is not Python's gets no signals: where it stands is told, and all ends.
    faulthandler.dump_traceback_later(options.seconds + 3 * STUCK, exit=True)
    campaign = Campaign(seed)
    end = time.monotonic() + options.seconds
    found = None
    while found is None and time.monotonic() < end:
        found = campaign.step()
    if found is not None:
        name, octets, report = found
        path = pathlib.Path(f"fuzz-{seed}.bin")
        path.write_bytes(octets)
        print(f"{name}: {report}\ninput kept in {path}", file=sys.stderr)
    result = {
        "fuzz": "omadm",
        "seed": seed,
        "seconds": options.seconds,
        "inputs": sum(campaign.runs.values()),
        "refused": sum(campaign.refused.values()),
        "slowest_s": round(campaign.slowest, 3),
        "outcomes": campaign.outcomes,
        "by_target": dict(sorted(campaign.runs.items())),
        "ok": found is None,
    }
    print(json.dumps(result))
    return 0 if found is None else 1


if __name__ == "__main__":
    sys.exit(main())
