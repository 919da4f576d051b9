"""The writing half of the WBXML syntax: tokens of elements, inline strings, OPAQUE, switches of the code page.

Knows the tokens of SyncML and MetInf, and no message.
"""

from __future__ import annotations

from functools import lru_cache

from dom0_agent.omadm.commands import Data, Item, Meta
from dom0_agent.omadm.tokens import END, HAS_CONTENT, METINF, OPAQUE, STR_I, SWITCH_PAGE, SYNCML
from dom0_agent.omadm.writer import Shape

#: start token with content, and the token of an empty element, per tag of code page 0
OPEN = {name: bytes([code | HAS_CONTENT]) for name, code in SYNCML.items()}
_EMPTY = {name: bytes([code]) for name, code in SYNCML.items()}
_LEAF = {name: bytes([code | HAS_CONTENT, STR_I]) for name, code in SYNCML.items()}
_META_LEAF = {name: bytes([code | HAS_CONTENT, STR_I]) for name, code in METINF.items()}
_META_OPEN = OPEN["Meta"] + bytes([SWITCH_PAGE, 1])
_META_CLOSE = bytes([SWITCH_PAGE, 0, END])
_TEXT_END = bytes([0, END])


def number_octets(value: int) -> bytes:
    """An mb_u_int32."""
    octets = [value & 0x7F]
    while value := value >> 7:
        octets.append(value & 0x7F | 0x80)
    return bytes(reversed(octets))


def _text_octets(text: str) -> bytes:
    """Text for an inline string, which ends at the first NUL: there is none in any text but Data."""
    return (text.replace("\0", "\ufffd") if "\0" in text else text).encode("utf-8", "replace")


def _meta_octets(meta: Meta) -> bytes:
    """A whole Meta element."""
    values = (
        ("Format", meta.format),
        ("Type", meta.type),
        ("Mark", meta.mark),
        ("Size", meta.size),
        ("NextNonce", meta.next_nonce),
        ("MaxMsgSize", meta.max_msg_size),
        ("MaxObjSize", meta.max_obj_size),
        *(("EMI", text) for text in meta.emi),
    )
    children = [_META_LEAF[tag] + _text_octets(str(v)) + _TEXT_END for tag, v in values if v is not None]
    return b"".join((_META_OPEN, *children, _META_CLOSE))


#: nearly all Metas of a session are the same few; EMI, which may be long, is not remembered
_usual_meta_octets = lru_cache(maxsize=256)(_meta_octets)


class WbxmlWriter:
    """Collects the octets of a fragment in ``out``; see :class:`~dom0_agent.omadm.writer.Writer`."""

    __slots__ = ("out",)

    def __init__(self) -> None:
        self.out: list[bytes] = []

    def fill(self, shape: Shape, texts: tuple[str, ...]) -> None:
        self.out.append(shape.wbxml % tuple(map(_text_octets, texts)))

    def open(self, tag: str) -> None:
        self.out.append(OPEN[tag])

    def close(self, tag: str) -> None:
        self.out.append(b"\x01")

    def leaf(self, tag: str, text: str) -> None:
        if text:
            self.out += (_LEAF[tag], _text_octets(text), _TEXT_END)
        else:
            self.out.append(_EMPTY[tag])

    def location(self, tag: str, uri: str, name: str | None) -> None:
        self.out.append(OPEN[tag])
        self.leaf("LocURI", uri)
        if name is not None:
            self.leaf("LocName", name)
        self.out.append(b"\x01")

    def meta(self, meta: Meta) -> None:
        self.out.append(_meta_octets(meta) if meta.emi else _usual_meta_octets(meta))

    def data(self, data: Data) -> None:
        if isinstance(data, str) and "\0" not in data:
            self.leaf("Data", data)
            return
        octets = data if isinstance(data, bytes) else data.encode("utf-8", "replace")
        self.out += (OPEN["Data"], bytes([OPAQUE]), number_octets(len(octets)), octets, b"\x01")

    def carry(self, item: Item) -> Item:
        return item
