"""SyncML in WBXML: a table-driven codec of our own (``application/vnd.syncml.dm+wbxml``; wbxml digest).

The message layer is XML's: the decoder makes nodes that ``reader`` reads, the encoder is a ``writer.Writer``.
Read: numeric, textual and unknown public ids, string tables, inline texts, OPAQUE, entities, both styles of page
switch, nested DDF/TNDS documents. Written: WBXML 1.2, numeric public id, no string table. Only ProtocolError leaves
:meth:`WbxmlCodec.decode`; lengths, offsets, depth and the number of nodes are checked before memory is spent on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from dom0_agent.omadm.codec import WBXML_MEDIA_TYPE, refuse_oversized
from dom0_agent.omadm.commands import BodyElement, Data, Item, Message, Meta, SyncHdr
from dom0_agent.omadm.reader import message_from
from dom0_agent.omadm.status import ProtocolError
from dom0_agent.omadm.tokens import DDF, DDF_NAMESPACE, METINF, SYNCML
from dom0_agent.omadm.writer import Shape, write_command, write_header

#: Elements inside each other; TNDS needs two for each level of the tree.
MAX_DEPTH = 128
#: Elements of one document; each costs about 150 octets of memory.
MAX_NODES = 150_000
#: Octets of text that string table references may add up to: one short table can be referenced endlessly.
MAX_TEXT = 4 * 1024 * 1024

_SWITCH_PAGE, _END, _ENTITY, _STR_I, _STR_T, _OPAQUE = 0x00, 0x01, 0x02, 0x03, 0x83, 0xC3
_HAS_CONTENT, _HAS_ATTRIBUTES, _TAG = 0x40, 0x80, 0x3F
_TEXT_TOKENS = frozenset({_STR_I, _STR_T, _OPAQUE, _ENTITY})

_UTF_8 = 106  #: MIBenum
#: charsets whose text is read as UTF-8: unknown, US-ASCII, UTF-8
_CHARSETS = frozenset({0, 3, _UTF_8})
#: version 1.2, public id SyncML 1.2 (0x1201), UTF-8, empty string table
_PREFIX = b"\x02\xa4\x01\x6a\x00"

_PUBLIC_IDS = {0x1201: 0, 0x0FD3: 0, 0x0FD1: 0, 0x01: 0}
_TEXTUAL_IDS = {
    "-//SYNCML//DTD SyncML 1.2//EN": 0,
    "-//SYNCML//DTD SyncML 1.1//EN": 0,
    "-//SYNCML//DTD SyncML 1.0//EN": 0,
    "-//OMA//DTD-DM-DDF 1.2//EN": 2,
}
DDF_PUBLIC_ID = "-//OMA//DTD-DM-DDF 1.2//EN"


def _names(table: dict[str, int], prefix: str = "") -> tuple[str | None, ...]:
    names: list[str | None] = [None] * 0x40
    for name, code in table.items():
        names[code] = prefix + name
    return tuple(names)


#: tag code to tag, per code page
_PAGES = (_names(SYNCML), _names(METINF), _names(DDF, f"{{{DDF_NAMESPACE}}}"))


class Node(list["Node"]):
    """One element: a list of its children, in the shape that ``reader`` reads."""

    __slots__ = ("pieces", "tag", "text")

    #: WBXML of SyncML has neither text between elements nor attributes
    tail: str | None = None
    attrib: dict[str, str] = {}  # noqa: RUF012 - empty and shared; nothing writes it

    def __init__(self, tag: str, text: Data | None = None) -> None:
        # an empty list is one before list.__init__, and there are thousands of nodes
        self.tag = tag
        self.text = text
        #: text that came in several pieces, until the element ends
        self.pieces: list[Data] | None = None


class WbxmlCodec:
    """The WBXML syntax; has no state."""

    media_type = WBXML_MEDIA_TYPE

    def decode(self, untrusted_body: bytes) -> Message:
        """Parse a message; raises :class:`ProtocolError` only."""
        return message_from(parse_untrusted(untrusted_body))

    def encode(self, message: Message) -> bytes:
        """The whole document."""
        fragments = [self.fragment(command, command.cmd_id) for command in message.body]
        return self.frame(message.header, fragments, message.final)

    def fragment(self, command: BodyElement, cmd_id: str) -> bytes:
        """One element of SyncBody; begins and ends on code page 0."""
        writer = _WbxmlWriter()
        write_command(writer, command, cmd_id)
        return b"".join(writer.out)

    def frame(self, header: SyncHdr, fragments: Sequence[bytes], final: bool) -> bytes:
        """The document that consists of a header and these fragments."""
        writer = _WbxmlWriter()
        write_header(writer, header)
        end = b"\x12\x01\x01" if final else b"\x01\x01"  # Final, SyncBody's and SyncML's END
        return b"".join((_PREFIX, _OPEN["SyncML"], *writer.out, _OPEN["SyncBody"], *fragments, end))

    def carry(self, item: Item) -> Item:
        """Everything travels as it is."""
        return item


# ---- decoding ----------------------------------------------------------------------------------------------------


def parse_untrusted(untrusted_body: bytes) -> Node:
    """The document element of foreign WBXML; raises :class:`ProtocolError` only."""
    refuse_oversized(untrusted_body)
    try:
        return _Parser(untrusted_body).document()
    except IndexError as error:
        raise ProtocolError("the WBXML document ends too early") from error
    except UnicodeDecodeError as error:
        raise ProtocolError(f"text in the WBXML document is not UTF-8: {error}") from error


class _Parser:
    """Reads one document front to back. Reading past the end raises IndexError."""

    def __init__(self, untrusted_body: bytes) -> None:
        self._body = untrusted_body
        self._at = 0
        self._strings = b""
        self._spent = 0

    def document(self) -> Node:
        page = self._prefix()
        root, page = self._root_tag(page)
        return self._content(root, page)

    def _number(self) -> int:
        """An mb_u_int32: 7 bits per octet, at most 5 octets."""
        body, at = self._body, self._at
        value = 0
        for index in range(5):
            octet = body[at + index]
            value = value << 7 | octet & 0x7F
            if not octet & 0x80:
                self._at = at + index + 1
                return value
        raise ProtocolError("a number in the WBXML document has more than 5 octets")

    def _octets(self, length: int) -> bytes:
        end = self._at + length
        if end > len(self._body):
            raise ProtocolError(f"the WBXML document names {length} octets and has {len(self._body) - self._at}")
        octets = self._body[self._at : end]
        self._at = end
        return octets

    def _prefix(self) -> int:
        """Read the header; the code page that the document begins with."""
        if self._body[0] > 0x03:
            raise ProtocolError(f"WBXML version {self._body[0]:#04x} is not 1.0 to 1.3")
        self._at = 1
        public_id = self._number()
        textual = self._number() if public_id == 0 else None
        charset = self._number()
        self._strings = self._octets(self._number())
        if charset not in _CHARSETS:
            raise ProtocolError(f"charset {charset} of the WBXML document is not UTF-8")
        page = _PUBLIC_IDS.get(public_id) if textual is None else _TEXTUAL_IDS.get(self._table_string(textual))
        if page is None:
            raise ProtocolError("the public id of the WBXML document is neither SyncML nor DM DDF")
        return page

    def _table_string(self, offset: int) -> str:
        end = self._strings.find(b"\0", offset)
        if not 0 <= offset < len(self._strings):
            raise ProtocolError(f"string table offset {offset} is outside the table")
        found = self._strings[offset : end if end >= 0 else None]
        self._spent += len(found)
        if self._spent > MAX_TEXT:
            raise ProtocolError(f"string table references add up to more than {MAX_TEXT} octets")
        return found.decode()

    def _root_tag(self, page: int) -> tuple[Node, int]:
        """The document element; some encoders switch to its page first."""
        while self._body[self._at] == _SWITCH_PAGE:
            page = self._body[self._at + 1]
            self._at += 2
        token = self._body[self._at]
        self._at += 1
        if not token & _HAS_CONTENT or token & _HAS_ATTRIBUTES:
            raise ProtocolError("the WBXML document has no document element with content")
        tag = _page(page)[token & _TAG]
        if tag is None:
            raise ProtocolError(f"token {token:#04x} is not defined for SyncML")
        return Node(tag), page

    def _content(self, root: Node, page: int) -> Node:  # noqa: PLR0912 - one loop, because calls would double its time
        """Everything up to the END of the document element: the one hot loop."""
        body, at = self._body, self._at
        tags = _page(page)
        stack: list[Node] = []
        node = root
        nodes = 0
        while True:
            token = body[at]
            at += 1
            if token == _END:
                if node.pieces is not None:
                    node.text = _joined(node.pieces)
                if not stack:
                    return root
                node = stack.pop()
            elif token == _SWITCH_PAGE:
                tags = _page(body[at])
                at += 1
            elif token in _TEXT_TOKENS:
                self._at = at
                _add_text(node, self._text(token))
                at = self._at
            else:
                tag = tags[token & _TAG] if token < _HAS_ATTRIBUTES else None
                if tag is None:
                    raise ProtocolError(f"token {token:#04x} at octet {at - 1} is not defined for SyncML")
                nodes += 1
                if nodes > MAX_NODES:
                    raise ProtocolError(f"the WBXML document has more than {MAX_NODES} elements")
                if token < _HAS_CONTENT:
                    node.append(Node(tag))
                    continue
                if body[at] == _STR_I:  # nearly every leaf: one inline string and END
                    end = body.find(0, at)
                    if end >= 0 and body[end + 1] == _END:
                        node.append(Node(tag, body[at + 1 : end].decode()))
                        at = end + 2
                        continue
                child = Node(tag)
                node.append(child)
                stack.append(node)
                node = child
                if len(stack) > MAX_DEPTH:
                    raise ProtocolError(f"the WBXML document is nested deeper than {MAX_DEPTH} elements")

    def _text(self, token: int) -> Data:
        if token == _STR_I:
            end = self._body.find(0, self._at)
            if end < 0:
                raise ProtocolError("an inline string of the WBXML document has no end")
            text = self._body[self._at : end].decode()
            self._at = end + 1
            return text
        if token == _OPAQUE:
            return self._octets(self._number())
        if token == _STR_T:
            return self._table_string(self._number())
        code = self._number()
        if not 0 < code < 0x110000 or 0xD800 <= code < 0xE000:
            raise ProtocolError(f"entity {code} is no character")
        return chr(code)


def _page(page: int) -> tuple[str | None, ...]:
    if page >= len(_PAGES):
        raise ProtocolError(f"code page {page} is not defined for SyncML")
    return _PAGES[page]


def _add_text(node: Node, text: Data) -> None:
    if node.text is None:
        node.text = text
    elif node.pieces is None:
        node.pieces = [node.text, text]
    else:
        node.pieces.append(text)


def _joined(pieces: list[Data]) -> Data:
    texts = [piece for piece in pieces if isinstance(piece, str)]
    if len(texts) == len(pieces):
        return "".join(texts)
    return b"".join(piece.encode() if isinstance(piece, str) else piece for piece in pieces)


# ---- encoding ----------------------------------------------------------------------------------------------------

#: start token with content, and the token of an empty element, per tag of code page 0
_OPEN = {name: bytes([code | _HAS_CONTENT]) for name, code in SYNCML.items()}
_EMPTY = {name: bytes([code]) for name, code in SYNCML.items()}
_LEAF = {name: bytes([code | _HAS_CONTENT, _STR_I]) for name, code in SYNCML.items()}
_META_LEAF = {name: bytes([code | _HAS_CONTENT, _STR_I]) for name, code in METINF.items()}
_META_OPEN = _OPEN["Meta"] + bytes([_SWITCH_PAGE, 1])
_META_CLOSE = bytes([_SWITCH_PAGE, 0, _END])
_TEXT_END = bytes([0, _END])


def number_octets(value: int) -> bytes:
    """An mb_u_int32."""
    octets = [value & 0x7F]
    while value := value >> 7:
        octets.append(value & 0x7F | 0x80)
    return bytes(reversed(octets))


def _text_octets(text: str) -> bytes:
    """Text for an inline string, which ends at the first NUL: there is none in any text but Data."""
    return (text.replace("\0", "\ufffd") if "\0" in text else text).encode("utf-8", "replace")


@lru_cache(maxsize=256)
def _meta_octets(meta: Meta) -> bytes:
    """A whole Meta element; nearly all of them in a session are the same few."""
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


class _WbxmlWriter:
    """Collects the octets of a fragment; see :class:`~dom0_agent.omadm.writer.Writer`."""

    __slots__ = ("out",)

    def __init__(self) -> None:
        self.out: list[bytes] = []

    def fill(self, shape: Shape, texts: tuple[str, ...]) -> None:
        self.out.append(shape.wbxml % tuple(map(_text_octets, texts)))

    def open(self, tag: str) -> None:
        self.out.append(_OPEN[tag])

    def close(self, tag: str) -> None:
        self.out.append(b"\x01")

    def leaf(self, tag: str, text: str) -> None:
        if text:
            self.out += (_LEAF[tag], _text_octets(text), _TEXT_END)
        else:
            self.out.append(_EMPTY[tag])

    def location(self, tag: str, uri: str, name: str | None) -> None:
        self.out.append(_OPEN[tag])
        self.leaf("LocURI", uri)
        if name is not None:
            self.leaf("LocName", name)
        self.out.append(b"\x01")

    def meta(self, meta: Meta) -> None:
        self.out.append(_meta_octets(meta))

    def data(self, data: Data) -> None:
        if isinstance(data, str) and "\0" not in data:
            self.leaf("Data", data)
            return
        octets = data if isinstance(data, bytes) else data.encode("utf-8", "replace")
        self.out += (_OPEN["Data"], b"\xc3", number_octets(len(octets)), octets, b"\x01")

    def carry(self, item: Item) -> Item:
        return item
