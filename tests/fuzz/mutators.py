"""What the fuzzer does to good messages: damages their octets, or their elements.

Knows messages and no target.
"""

from __future__ import annotations

import copy
import random
from dataclasses import replace
from xml.etree import ElementTree as Tree

from dom0_agent.omadm import commands as c
from dom0_agent.omadm.codec import Codec
from dom0_agent.omadm.status import ProtocolError
from dom0_agent.omadm.xml import XmlCodec, parse_untrusted

#: pieces to be put in, separated by bars
XML_WORDS = (
    b"<Atomic>|</Atomic>|<Sequence>|</Item>|<Item>|<MoreData/>|<Final/>|<![CDATA[|]]>|<!--|-->|&lt;|&#0;|&#x10FFFF;|&x;"
    b"|<!DOCTYPE a [|<?x?>| xmlns='y'|<Data>|</Data>|1222|1223|1225|1101|213|407|401|212|4294967296|-1|?list=TNDS"
    b"|?prop=ACL|<Chal>|<Status>|<Results>|<Size xmlns='syncml:metinf'>9</Size>|\xc3\xa4|\xff|\x00"
).split(b"|")
WBXML_WORDS = (
    b"\x00\x00|\x00\x01|\x00\x02|\x01|\x02\x81\x44|\x03a\x00|\x83\x00|\xc3\x03abc|\xc3\x8f\xff|\x48|\x64|\x54|\x34|\x12"
    b"|\x4f\x03213\x00\x01|\x4f\x031222\x00\x01|\x7c|\x5a\x00\x01"
).split(b"|")


#: texts that matter somewhere: codes, numbers at their limits, properties, names, nothing
_TEXTS = (
    *("0", "1", "2", "3", "4", "200", "212", "213", "214", "215", "304", "401", "407", "500", "507", "1100", "1101"),
    *("1200", "1201", "1222", "1223", "1224", "1225", "1226", "-1", "65536", "4294967296", "99999999999", "", " ", "."),
    *(
        "./X",
        "./Y",
        "./X?prop=ACL",
        "./X?list=TNDS",
        "./X?list=Struct",
        "../X",
        "./X/",
        "1F",
        "1f",
        "DM/1.3",
        "SyncHdr",
    ),
    *("b64", "bin", "node", "syncml:auth-md5", "syncml:auth-MAC", "syncml:auth-basic", "bm9uY2U=", "MINDT=9&MAXDT=0"),
)


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


class ElementMutator:
    """Damages a message element by element: what comes out is well-formed, so that it gets past the parser."""

    def __init__(self, rng: random.Random, codec: Codec, mutate_octets: Mutator) -> None:
        self._rng = rng
        self._codec = codec
        self._mutate_octets = mutate_octets

    def __call__(self, octets: bytes, other: bytes) -> bytes:
        """A few of the mutations; mutated as octets where either input cannot be read."""
        try:
            root, donor = self._tree(octets), self._tree(other)
        except (ProtocolError, ValueError):
            return self._mutate_octets(octets, other)
        for _ in range(self._rng.randint(1, 4)):
            self._rng.choice(self._MUTATIONS)(self, root, donor)
        changed = Tree.tostring(root)
        if isinstance(self._codec, XmlCodec):
            return changed
        try:
            return self._codec.encode(XmlCodec().decode(changed))
        except (ProtocolError, ValueError):
            return self._mutate_octets(octets, other)

    def _tree(self, octets: bytes) -> Tree.Element:
        xml = octets if isinstance(self._codec, XmlCodec) else XmlCodec().encode(_in_xml(self._codec.decode(octets)))
        return parse_untrusted(xml)

    def _parent(self, root: Tree.Element) -> Tree.Element:
        return self._rng.choice([element for element in root.iter() if len(element)] or [root])

    def _drop(self, root: Tree.Element, _donor: Tree.Element) -> None:
        parent = self._parent(root)
        if len(parent):
            parent.remove(self._rng.choice(list(parent)))

    def _double(self, root: Tree.Element, _donor: Tree.Element) -> None:
        parent = self._parent(root)
        if len(parent):
            parent.insert(self._rng.randrange(len(parent) + 1), copy.deepcopy(self._rng.choice(list(parent))))

    def _graft(self, root: Tree.Element, donor: Tree.Element) -> None:
        branch = copy.deepcopy(self._rng.choice(list(donor.iter())))
        parent = self._parent(root)
        parent.insert(self._rng.randrange(len(parent) + 1), branch)

    def _retext(self, root: Tree.Element, donor: Tree.Element) -> None:
        leaf = self._rng.choice([element for element in root.iter() if not len(element)] or [root])
        texts = [element.text or "" for element in donor.iter() if not len(element)]
        leaf.text = self._rng.choice((*_TEXTS, *texts))

    def _retag(self, root: Tree.Element, donor: Tree.Element) -> None:
        self._rng.choice(list(root.iter())).tag = self._rng.choice(list(donor.iter())).tag

    _MUTATIONS = (_drop, _double, _graft, _retext, _retext, _retext, _retag)


def _in_xml(message: c.Message) -> c.Message:
    """The message with all octets as XML can carry them."""
    return replace(message, body=tuple(_carried(m) for m in message.body if not isinstance(m, c.UnknownCommand)))


def _carried(command: c.BodyElement) -> c.BodyElement:
    if isinstance(command, (c.Atomic, c.Sequence)):
        members = (member for member in command.commands if not isinstance(member, c.UnknownCommand))
        return replace(command, commands=tuple(map(_carried, members)))
    if isinstance(command, c.UnknownCommand):
        return command
    return replace(command, items=tuple(map(XmlCodec().carry, command.items)))
