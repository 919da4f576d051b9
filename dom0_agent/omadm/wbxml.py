"""SyncML in WBXML: a table-driven codec of our own (``application/vnd.syncml.dm+wbxml``; wbxml digest).

The message layer is XML's: the decoder makes nodes that ``reader`` reads, the encoder is a ``writer.Writer``.
Read: numeric, textual and unknown public ids, string tables, inline texts, OPAQUE, entities, both styles of page
switch, nested DDF/TNDS documents. Written: WBXML 1.2, numeric public id, no string table. Only ProtocolError leaves
:meth:`WbxmlCodec.decode`; lengths, offsets, depth and the number of nodes are checked before memory is spent on them.
"""

from __future__ import annotations

from collections.abc import Sequence

from dom0_agent.omadm.codec import WBXML_MEDIA_TYPE, refuse_oversized
from dom0_agent.omadm.commands import BodyElement, Data, Item, Message, SyncHdr
from dom0_agent.omadm.reader import message_from
from dom0_agent.omadm.status import ProtocolError
from dom0_agent.omadm.tokens import (
    DDF,
    DDF_NAMESPACE,
    END,
    ENTITY,
    HAS_CONTENT,
    METINF,
    OPAQUE,
    STR_I,
    STR_T,
    SWITCH_PAGE,
    SYNCML,
)
from dom0_agent.omadm.wbxml_writer import OPEN, WbxmlWriter
from dom0_agent.omadm.writer import write_command, write_header

#: Elements inside each other; TNDS needs two for each level of the tree.
MAX_DEPTH = 128
#: Elements of one document; each costs about 150 octets of memory.
MAX_NODES = 150_000
#: Octets of text that string table references may add up to: one short table can be referenced endlessly.
MAX_TEXT = 4 * 1024 * 1024

_HAS_ATTRIBUTES, _TAG = 0x80, 0x3F
_TEXT_TOKENS = frozenset({STR_I, STR_T, OPAQUE, ENTITY})

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
        writer = WbxmlWriter()
        write_command(writer, command, cmd_id)
        return b"".join(writer.out)

    def frame(self, header: SyncHdr, fragments: Sequence[bytes], final: bool) -> bytes:
        """The document that consists of a header and these fragments."""
        writer = WbxmlWriter()
        write_header(writer, header)
        end = b"\x12\x01\x01" if final else b"\x01\x01"  # Final, SyncBody's and SyncML's END
        return b"".join((_PREFIX, OPEN["SyncML"], *writer.out, OPEN["SyncBody"], *fragments, end))

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
        self._looks_metas_up = True

    def document(self) -> Node:
        page = self._prefix()
        root, page = self._root_tag(page)
        return self._content(root, page)

    def part(self, tag: str) -> Node | None:
        """An element of code page 0 without its start token; ``None`` when it ends before the octets do."""
        self._looks_metas_up = False  # or Metas within Metas would be read twice at each level: 2 to the power of depth
        node = self._content(Node(tag), 0)
        return node if self._at == len(self._body) else None

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
        while self._body[self._at] == SWITCH_PAGE:
            page = self._body[self._at + 1]
            self._at += 2
        token = self._body[self._at]
        self._at += 1
        if not token & HAS_CONTENT or token & _HAS_ATTRIBUTES:
            raise ProtocolError("the WBXML document has no document element with content")
        tag = _page(page)[token & _TAG]
        if tag is None:
            raise ProtocolError(f"token {token:#04x} is not defined for SyncML")
        return Node(tag), page

    def _content(self, root: Node, page: int) -> Node:  # noqa: PLR0912 - one loop; calls would double its time
        """Everything up to the END of the document element: the one hot loop."""
        body, at = self._body, self._at
        tags = _page(page)
        stack: list[Node] = []
        node = root
        nodes = 0
        while True:
            token = body[at]
            at += 1
            if token == END:
                if node.pieces is not None:
                    node.text = _joined(node.pieces)
                if not stack:
                    self._at = at
                    return root
                node = stack.pop()
            elif token == SWITCH_PAGE:
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
                if token < HAS_CONTENT:
                    node.append(Node(tag))
                    continue
                if body[at] == STR_I:  # nearly every leaf: one inline string and END
                    end = body.find(0, at)
                    if end >= 0 and body[end + 1] == END:
                        node.append(Node(tag, body[at + 1 : end].decode()))
                        at = end + 2
                        continue
                if token == _META_TOKEN and tags is _PAGES[0] and self._looks_metas_up:
                    meta, end = _meta_at(body, at)
                    if meta is not None:
                        node.append(meta)
                        nodes, at = nodes + len(meta), end
                        continue
                child = Node(tag)
                node.append(child)
                stack.append(node)
                node = child
                if len(stack) > MAX_DEPTH:
                    raise ProtocolError(f"the WBXML document is nested deeper than {MAX_DEPTH} elements")

    def _text(self, token: int) -> Data:
        if token == STR_I:
            end = self._body.find(0, self._at)
            if end < 0:
                raise ProtocolError("an inline string of the WBXML document has no end")
            text = self._body[self._at : end].decode()
            self._at = end + 1
            return text
        if token == OPAQUE:
            return self._octets(self._number())
        if token == STR_T:
            return self._table_string(self._number())
        code = self._number()
        if not 0 < code < 0x110000 or 0xD800 <= code < 0xE000:
            raise ProtocolError(f"entity {code} is no character")
        return chr(code)


#: Meta with content on code page 0, and how ours and many others end: a text, END, page 0, END
_META_TOKEN = SYNCML["Meta"] | HAS_CONTENT
_META_END = b"\x00\x01\x00\x00\x01"
_META_LENGTH = 200  #: octets; longer ones are not looked up
#: Contents of Meta by their octets: nearly all of a session are the same few, and each costs as much as three elements.
_METAS: dict[bytes, Node] = {}
_METAS_REMEMBERED = 256


def _meta_at(body: bytes, at: int) -> tuple[Node | None, int]:
    """The Meta whose content begins at ``at`` and where it ends; ``None`` when it has to be read like the rest."""
    end = body.find(_META_END, at, at + _META_LENGTH)
    if end < 0:
        return None, at
    octets = body[at : end + len(_META_END)]
    meta = _METAS.get(octets)
    if meta is None:
        try:
            meta = _Parser(octets).part("Meta")  # fails where a string table is needed
        except (ProtocolError, IndexError, UnicodeDecodeError):
            return None, at
        if meta is not None and len(_METAS) < _METAS_REMEMBERED:
            _METAS[octets] = meta
    return meta, at + len(octets)


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
