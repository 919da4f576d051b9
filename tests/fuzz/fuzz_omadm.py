#!/usr/bin/env python3
"""Fuzzer of everything in ``omadm`` that reads foreign octets, by mutations of good messages.

Only ProtocolError may escape a decoder, nothing may escape a session, and no input may take longer than a second.
``--seconds`` is the length of the campaign (30 in CI, 600 by hand), ``--seed`` makes it repeatable. Ends with one line
of JSON; exit status 1 and the input as a file when something was found.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import random
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from dom0_agent.omadm import commands as c
from dom0_agent.omadm.auth import parse_hmac_header
from dom0_agent.omadm.bootstrap import apply_profile, profile_from
from dom0_agent.omadm.codec import Codec
from dom0_agent.omadm.notification import build_notification, parse_notification
from dom0_agent.omadm.status import ProtocolError
from dom0_agent.omadm.tnds import decode_tnds
from dom0_agent.omadm.trace import trace_lines
from dom0_agent.omadm.wbxml import WbxmlCodec
from dom0_agent.omadm.xml import XmlCodec
from tests.unit.omadm.dm_pair import Application, LeafTree, Pair
from tests.unit.omadm.messages import MESSAGES

SLOWEST = 1.0  #: seconds for one input
#: pieces to be put in, separated by bars
_XML_WORDS = (
    b"<Atomic>|</Atomic>|<Sequence>|</Item>|<Item>|<MoreData/>|<Final/>|<![CDATA[|]]>|<!--|-->|&lt;|&#0;|&#x10FFFF;|&x;"
    b"|<!DOCTYPE a [|<?x?>| xmlns='y'|<Data>|</Data>|1222|1223|1225|1101|213|407|401|212|4294967296|-1|?list=TNDS"
    b"|?prop=ACL|<Chal>|<Status>|<Results>|<Size xmlns='syncml:metinf'>9</Size>|\xc3\xa4|\xff|\x00"
).split(b"|")
_WBXML_WORDS = (
    b"\x00\x00|\x00\x01|\x00\x02|\x01|\x02\x81\x44|\x03a\x00|\x83\x00|\xc3\x03abc|\xc3\x8f\xff|\x48|\x64|\x54|\x34|\x12"
    b"|\x4f\x03213\x00\x01|\x4f\x031222\x00\x01|\x7c|\x5a\x00\x01"
).split(b"|")


class Mutator:
    """Damages octets the way that both accidents and attackers do."""

    def __init__(self, rng: random.Random, words: list[bytes]) -> None:
        self._rng = rng
        self._words = words

    def __call__(self, octets: bytes, other: bytes) -> bytes:
        """A few random mutations of ``octets``; ``other`` is material to splice in."""
        for _ in range(self._rng.randint(1, 5)):
            octets = self._rng.choice(self._MUTATIONS)(self, octets, other)
        return octets

    def _at(self, octets: bytes) -> int:
        return self._rng.randrange(len(octets) + 1)

    def _flip(self, octets: bytes, _other: bytes) -> bytes:
        if not octets:
            return octets
        changed = bytearray(octets)
        changed[self._rng.randrange(len(changed))] ^= 1 << self._rng.randrange(8)
        return bytes(changed)

    def _insert_word(self, octets: bytes, _other: bytes) -> bytes:
        at = self._at(octets)
        return octets[:at] + self._rng.choice(self._words) + octets[at:]

    def _overwrite_word(self, octets: bytes, _other: bytes) -> bytes:
        at, word = self._at(octets), self._rng.choice(self._words)
        return octets[:at] + word + octets[at + len(word) :]

    def _delete(self, octets: bytes, _other: bytes) -> bytes:
        begin, end = sorted((self._at(octets), self._at(octets)))
        return octets[:begin] + octets[min(end, begin + 40) :]

    def _repeat(self, octets: bytes, _other: bytes) -> bytes:
        begin, end = sorted((self._at(octets), self._at(octets)))
        part = octets[begin : min(end, begin + 200)]
        return octets[:begin] + part * self._rng.choice((2, 3, 50)) + octets[begin:]

    def _splice(self, octets: bytes, other: bytes) -> bytes:
        return octets[: self._at(octets)] + other[self._at(other) :]

    def _truncate(self, octets: bytes, _other: bytes) -> bytes:
        return octets[: self._at(octets)]

    _MUTATIONS = (_flip, _insert_word, _overwrite_word, _delete, _repeat, _splice, _truncate)


class Campaign:
    """Targets with their seeds, run by turns until the time is over."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.runs: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.slowest = 0.0
        self._xml = Mutator(self.rng, _XML_WORDS)
        self._wbxml = Mutator(self.rng, _WBXML_WORDS)
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

    def _mutated(self, codec: Codec, seeds: list[bytes]) -> bytes:
        mutate = self._xml if isinstance(codec, XmlCodec) else self._wbxml
        return mutate(self.rng.choice(seeds), self.rng.choice(seeds))

    def _decode(self, codec: Codec) -> tuple[str, bytes, Callable[[bytes], object]]:
        def run(octets: bytes) -> object:
            trace_lines(codec, octets)
            message = codec.decode(octets)
            if not any(isinstance(command, c.UnknownCommand) for command in c.walk(message.body)):
                again = codec.decode(codec.encode(message))
                assert codec.encode(again) == codec.encode(codec.decode(codec.encode(again))), "encoding is not stable"
            return message

        return f"decode {codec.media_type}", self._mutated(codec, self._seeds[codec]), run

    def _client(self, codec: Codec) -> tuple[str, bytes, Callable[[bytes], object]]:
        """A client session at a random point of a good conversation; ProtocolError must not escape it either."""
        bodies = self._conversations[codec]
        step = self.rng.randrange(len(bodies) // 2)
        answers = bodies[1::2]

        def run(octets: bytes) -> object:
            client = Pair(LeafTree({"./X": "1"}), codec=codec).client("1F")
            client.start()
            for answer in answers[:step]:
                client.receive(answer)
            try:
                client.receive(octets)
                client.receive(octets + b" ")
            except ProtocolError as error:
                raise AssertionError("ProtocolError escaped the client session") from error
            return None

        return f"client {codec.media_type}", self._mutated(codec, answers), run

    def _server(self, codec: Codec) -> tuple[str, bytes, Callable[[bytes], object]]:
        bodies = self._conversations[codec]
        questions = bodies[0::2]
        step = self.rng.randrange(len(questions))

        def run(octets: bytes) -> object:
            server = Pair(codec=codec).server("1F")
            application = _application()
            for question in questions[:step]:
                server.receive(question, application)
            server.receive(octets, application)
            server = Pair(codec=codec).server("1F", json.loads(json.dumps(server.to_dict())))
            return server

        return f"server {codec.media_type}", self._mutated(codec, questions), run

    def _notification(self) -> tuple[str, bytes, Callable[[bytes], object]]:
        seed = build_notification("server", "secret", b"nonce", 7)
        return "notification", self._wbxml(seed, seed), parse_notification

    def _hmac(self) -> tuple[str, bytes, Callable[[bytes], object]]:
        seed = b'algorithm=MD5, username="Robert \\"Bob\\" Jordan", mac=urdCeS3JUmjFgi8SX3webw=='
        return "hmac header", self._xml(seed, seed), lambda octets: parse_hmac_header(octets.decode("latin-1"))

    def _bootstrap(self) -> tuple[str, bytes, Callable[[bytes], object]]:
        codec = _CODECS[1]

        def run(octets: bytes) -> object:
            return apply_profile(profile_from(codec.media_type, octets), LeafTree(), "server")

        return "bootstrap", self._mutated(codec, self._seeds[codec]), run

    def _tnds(self) -> tuple[str, bytes, Callable[[bytes], object]]:
        seed = (
            b'<MgmtTree xmlns="syncml:dmddf1.2"><VerDTD>1.2</VerDTD><Node><NodeName>a</NodeName><RTProperties><Format>'
            b"<node/></Format><Type><DDFName/></Type></RTProperties><Node><NodeName>b</NodeName><RTProperties><Format><bin/>"
            b"</Format><Type><MIME>a/b</MIME></Type></RTProperties><Value>AAEC</Value></Node></Node></MgmtTree>"
        )
        return "tnds", self._xml(seed, seed), decode_tnds

    def step(self) -> tuple[str, bytes, str] | None:
        """One input; the target, the input and the report when something is wrong with it."""
        name, octets, run = self.rng.choice(self.targets)()
        self.runs[name] += 1
        began = time.thread_time()
        try:
            run(octets)
        except ProtocolError:
            self.refused[name] += 1
        except Exception:  # noqa: BLE001 - whatever escapes is what we are looking for
            return name, octets, traceback.format_exc()
        took = time.thread_time() - began
        self.slowest = max(self.slowest, took)
        return None if took < SLOWEST else (name, octets, f"took {took:.2f} seconds")


_CODECS: tuple[Codec, ...] = (XmlCodec(), WbxmlCodec())


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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=None, help="default: the time")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else time.time_ns() & 0xFFFFFFFF
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
        "by_target": dict(sorted(campaign.runs.items())),
        "ok": found is None,
    }
    print(json.dumps(result))
    return 0 if found is None else 1


if __name__ == "__main__":
    sys.exit(main())
