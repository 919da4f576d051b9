"""SyncML in XML: hardened reading, writing by joining strings (``application/vnd.syncml.dm+xml``).

Read with the interpreter's own expat through ElementTree: to walk its elements costs 30 % less than lxml's, and the
agent spares the 5 MB of libxml2. Only ProtocolError leaves :meth:`XmlCodec.decode`. Refused before expat sees an octet:
messages over the size cap, other encodings than UTF-8, ASCII and Latin-1 (they could hide markup from the checks),
document type declarations with content (so there are no entities), more markup than :data:`MAX_NODES`.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import chain
from xml.etree import ElementTree as Tree

from dom0_agent.omadm.codec import XML_MEDIA_TYPE, refuse_oversized
from dom0_agent.omadm.commands import BodyElement, Data, Item, Message, Meta, SyncHdr
from dom0_agent.omadm.reader import message_from
from dom0_agent.omadm.status import ProtocolError
from dom0_agent.omadm.writer import Shape, write_command, write_header

#: Tags plus attributes of one message; expat and ElementTree need up to 200 octets for each: at most about 30 MB.
MAX_NODES = 150_000

#: Elements inside each other: Atomic and Sequence, an Item, and TNDS with two elements for each of its 32 levels.
MAX_DEPTH = 128

_ENCODINGS = {"utf-8": "utf-8", "utf8": "utf-8", "us-ascii": "ascii", "ascii": "ascii", "iso-8859-1": "latin-1"}

_UTF_8_DECLARATION = b'<?xml version="1.0" encoding="UTF-8"?>'
_HEAD = _UTF_8_DECLARATION + b'<SyncML xmlns="SYNCML:SYNCML1.2">'
_USUAL_BEGINNING = _UTF_8_DECLARATION + b"<SyncML"  #: nothing before the document element, which is what it should be
_DECLARATION = re.compile(rb"\A(?:\xef\xbb\xbf)?\s*(?:<\?xml\s[^>]{0,200}\?>)?")
_ENCODING = re.compile(rb"encoding\s*=\s*[\"']([A-Za-z0-9._-]{1,40})[\"']")
_PROLOG_GAP = re.compile(rb"\s+|<!--.*?-->|<\?.*?\?>", re.DOTALL)
#: a document type that only names itself, as libwbxml writes it: harmless, and cut off before parsing
_PLAIN_DOCTYPE = re.compile(
    rb"<!DOCTYPE\s+[\w:.-]{1,40}\s*(?:(?:PUBLIC\s+(?:\"[^\"<>]{0,200}\"|'[^'<>]{0,200}')|SYSTEM)"
    rb"\s+(?:\"[^\"<>]{0,200}\"|'[^'<>]{0,200}'))?\s*>"
)

#: the end of a C string that was taken for text: libdmclient writes it behind the children of a node (digest 15)
_CLOSING_NUL = re.compile(rb"\0(?=</|\]\]>)")

#: characters that XML 1.0 has no way to write
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_TO_ESCAPE = re.compile("[&<>\r]|[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]").search
_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "\r": "&#13;"}


class XmlCodec:
    """The XML syntax; has no state."""

    media_type = XML_MEDIA_TYPE

    def decode(self, untrusted_body: bytes) -> Message:
        """Parse a message; raises :class:`ProtocolError` only."""
        return message_from(parse_untrusted(untrusted_body))

    def encode(self, message: Message) -> bytes:
        """The whole document."""
        fragments = [self.fragment(command, command.cmd_id) for command in message.body]
        return self.frame(message.header, fragments, message.final)

    def fragment(self, command: BodyElement, cmd_id: str) -> bytes:
        """One element of SyncBody."""
        writer = _XmlWriter()
        write_command(writer, command, cmd_id)
        return "".join(writer.out).encode()

    def frame(self, header: SyncHdr, fragments: Sequence[bytes], final: bool) -> bytes:
        """The document that consists of a header and these fragments."""
        writer = _XmlWriter()
        write_header(writer, header)
        end = b"<Final/></SyncBody></SyncML>" if final else b"</SyncBody></SyncML>"
        return b"".join((_HEAD, "".join(writer.out).encode(), b"<SyncBody>", *fragments, end))

    def carry(self, item: Item) -> Item:
        """Octets, and text that XML cannot write, as base64 with Format ``b64`` (digest 7.3)."""
        return _carry(item)


def parse_untrusted(untrusted_body: bytes) -> Tree.Element:
    """The document element of foreign XML; raises :class:`ProtocolError` only. Also for TNDS and profile documents."""
    refuse_oversized(untrusted_body)
    if b"\0" in untrusted_body:
        untrusted_body = _CLOSING_NUL.sub(b"", untrusted_body)
    if untrusted_body.startswith(_USUAL_BEGINNING):
        end, encoding = len(_UTF_8_DECLARATION), "utf-8"
    else:
        end, encoding = _prolog(untrusted_body)
    if untrusted_body.count(b"<") + untrusted_body.count(b"=") > MAX_NODES:
        raise ProtocolError(f"the message holds more than {MAX_NODES} pieces of markup")
    try:
        root = Tree.fromstring(str(untrusted_body[end:], encoding))  # noqa: S314 - see above
    except (Tree.ParseError, UnicodeDecodeError) as error:
        raise ProtocolError(f"not well-formed XML: {error}") from error
    _refuse_depth(root)
    return root


def _prolog(untrusted_body: bytes) -> tuple[int, str]:
    """Where the document element begins, and the encoding; :class:`ProtocolError` for what is not accepted there."""
    declaration = _DECLARATION.match(untrusted_body)
    end = declaration.end() if declaration is not None else 0
    named = _ENCODING.search(untrusted_body, 0, end)
    encoding = _ENCODINGS.get(named.group(1).decode().lower() if named is not None else "utf-8")
    if encoding is None:
        raise ProtocolError("the message is neither UTF-8 nor US-ASCII nor ISO-8859-1")
    end = _skip_gaps(untrusted_body, end)
    doctype = _PLAIN_DOCTYPE.match(untrusted_body, end)
    if doctype is not None:
        end = _skip_gaps(untrusted_body, doctype.end())
    if untrusted_body[end : end + 2] == b"<!":
        raise ProtocolError("document type declarations with content are not accepted")
    return end, encoding


def _refuse_depth(root: Tree.Element) -> None:
    level = [root]
    for _ in range(MAX_DEPTH - 1):
        level = list(filter(len, chain.from_iterable(level)))  # leaves drop out: they have nothing inside
        if not level:
            return
    raise ProtocolError(f"the message is nested deeper than {MAX_DEPTH} elements")


def _skip_gaps(untrusted_body: bytes, at: int) -> int:
    """Past white space, comments and processing instructions."""
    while (gap := _PROLOG_GAP.match(untrusted_body, at)) is not None:
        at = gap.end()
    return at


def _escape_char(match: re.Match[str]) -> str:
    return _ESCAPES.get(match.group(), "\ufffd")


_ALL_TO_ESCAPE = re.compile("[&<>\r]|" + _NOT_XML.pattern)


def escape_text(text: str) -> str:
    """Text as XML content that a parser gives back unchanged; characters that XML lacks become U+FFFD."""
    return text if _TO_ESCAPE(text) is None else _ALL_TO_ESCAPE.sub(_escape_char, text)


def _carry(item: Item) -> Item:
    data = item.data
    if isinstance(data, str):
        if _NOT_XML.search(data) is None:
            return item
        data = data.encode("utf-8", "surrogatepass")
    elif data is None:
        return item
    meta = replace(item.meta, format="b64") if item.meta is not None else Meta(format="b64")
    return replace(item, data=b64encode(data).decode(), meta=meta)


def _meta_text(meta: Meta) -> str:
    """A whole Meta element."""
    return "".join(("<Meta>", *_meta_children(meta), "</Meta>"))


#: nearly all Metas of a session are the same few; EMI, which may be long, is not remembered
_usual_meta_text = lru_cache(maxsize=256)(_meta_text)


def _meta_children(meta: Meta) -> list[str]:
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
    return [f'<{tag} xmlns="syncml:metinf">{escape_text(str(v))}</{tag}>' for tag, v in values if v is not None]


class _XmlWriter:
    """Collects the pieces of a fragment; see :class:`~dom0_agent.omadm.writer.Writer`."""

    __slots__ = ("out",)

    def __init__(self) -> None:
        self.out: list[str] = []

    def fill(self, shape: Shape, texts: tuple[str, ...]) -> None:
        if _TO_ESCAPE("".join(texts)) is not None:
            texts = tuple(map(escape_text, texts))
        self.out.append(shape.xml % texts)

    def open(self, tag: str) -> None:
        self.out.append(f"<{tag}>")

    def close(self, tag: str) -> None:
        self.out.append(f"</{tag}>")

    def leaf(self, tag: str, text: str) -> None:
        if text:
            if _TO_ESCAPE(text) is not None:
                text = escape_text(text)
            self.out.append(f"<{tag}>{text}</{tag}>")
        else:
            self.out.append(f"<{tag}/>")

    def location(self, tag: str, uri: str, name: str | None) -> None:
        uri = escape_text(uri)
        if name is None:
            self.out.append(f"<{tag}><LocURI>{uri}</LocURI></{tag}>")
        else:
            self.out.append(f"<{tag}><LocURI>{uri}</LocURI><LocName>{escape_text(name)}</LocName></{tag}>")

    def meta(self, meta: Meta) -> None:
        self.out.append(_meta_text(meta) if meta.emi else _usual_meta_text(meta))

    def data(self, data: Data) -> None:
        if isinstance(data, bytes):
            raise TypeError("octets must pass carry() before they are written as XML")
        self.leaf("Data", data)

    def carry(self, item: Item) -> Item:
        return _carry(item)
