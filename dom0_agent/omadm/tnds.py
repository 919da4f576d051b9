"""TNDS documents: a sub-tree of run-time nodes as one value (OMA-TS-DM-TNDS; digest 8). Document ↔ plain data.

Reading takes XML and WBXML and is tolerant about order and namespaces; writing makes either. Knows no tree and no
rights. The parsers are imported when used.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, Self

from dom0_agent.omadm.mo import Path
from dom0_agent.omadm.node import Format
from dom0_agent.omadm.status import ProtocolError
from dom0_agent.omadm.tokens import DDF, DDF_NAMESPACE

XML_TYPE = "application/vnd.syncml.dmtnds+xml"
WBXML_TYPE = "application/vnd.syncml.dmtnds+wbxml"
VERSION = "1.2"
#: Levels of one document: a tree with deeper ones could not be addressed (``UriLimits``).
MAX_DEPTH = 32
#: Nodes of one document: more than any sub-tree a server provisions, far below what would hold up the device.
MAX_NODES = 5000

#: what ``?list=TNDS`` can be asked for, in the order in which RTProperties has them; Value has its own element
SELECTABLE = frozenset({"ACL", "Format", "Title", "TStamp", "Type", "VerNo", "Value"})


@dataclass(frozen=True, slots=True)
class TndsNode:
    """One node of a document. ``None`` and "" mean that the document does not say."""

    name: str
    format: Format | None = None
    type: str = ""
    value: str | bytes | None = None
    acl: str = ""
    title: str = ""
    tstamp: str = ""
    verno: str = ""
    path: Path = ()  #: where a top-level node is, relative to the command's target
    children: tuple[TndsNode, ...] = ()

    @property
    def is_interior(self) -> bool:
        """Format says so; where it is silent, whether the node has children or lacks a value."""
        if self.format is not None:
            return self.format is Format.NODE
        return bool(self.children) or self.value is None


def is_tnds(media_type: str | None) -> bool:
    """Whether Meta/Type names a TNDS document."""
    if media_type is None or media_type == "text/plain":  # nearly always
        return False
    return media_type.partition(";")[0].strip().lower() in (XML_TYPE, WBXML_TYPE)


# ---- reading -----------------------------------------------------------------------------------------------------


def decode_tnds(untrusted_document: str | bytes) -> tuple[TndsNode, ...]:
    """The top-level nodes of an XML document or (octets that are not XML) a WBXML one.

    Raises :class:`ProtocolError` when it is not a TNDS document or over a cap.
    """
    root = _parse(untrusted_document)
    if _local(root) != "MgmtTree":
        raise ProtocolError(f"a TNDS document begins with MgmtTree, not {_local(root)!r}")
    counter = _Counter()
    nodes = tuple(_node(child, counter, 1) for child in root if _local(child) == "Node")
    if not nodes:
        raise ProtocolError("the TNDS document has no Node")
    return nodes


class _Element(Protocol):
    """What is needed of an element: lxml's have it, and the WBXML decoder's."""

    @property
    def tag(self) -> str: ...
    @property
    def text(self) -> str | bytes | None: ...
    def __iter__(self) -> Iterator[Self]: ...


class _Counter:
    """Nodes seen so far."""

    def __init__(self) -> None:
        self.nodes = 0

    def count(self, depth: int) -> None:
        self.nodes += 1
        if self.nodes > MAX_NODES or depth > MAX_DEPTH:
            raise ProtocolError(f"a TNDS document has at most {MAX_NODES} nodes and {MAX_DEPTH} levels")


def _parse(untrusted_document: str | bytes) -> _Element:
    octets = (
        untrusted_document.encode(errors="surrogatepass") if isinstance(untrusted_document, str) else untrusted_document
    )
    octets = octets.strip() if isinstance(untrusted_document, str) else octets
    if octets[:1] in (b"<", b"\xef"):
        from dom0_agent.omadm.xml import parse_untrusted

        return parse_untrusted(octets)
    from dom0_agent.omadm.wbxml import parse_untrusted as parse_untrusted_wbxml

    return parse_untrusted_wbxml(octets)


def _node(element: _Element, counter: _Counter, depth: int) -> TndsNode:
    counter.count(depth)
    name, path = "", ""
    value: str | bytes | None = None
    properties: dict[str, str] = {}
    children: list[TndsNode] = []
    for child in element:
        match _local(child):
            case "NodeName":
                name = _text(child)
            case "Path":
                path = _text(child)
            case "Value":
                value = child.text if child.text is not None else ""
            case "RTProperties":
                properties = dict(_properties(child))
            case "Node":
                children.append(_node(child, counter, depth + 1))
            case "DFProperties":
                pass  # of a description, which may be in the same document; not of a run-time node
            case other:
                raise ProtocolError(f"a TNDS Node has no {other!r}")
    format_ = _format(properties.get("Format"))
    if children and value is not None:
        raise ProtocolError(f"TNDS node {name!r} has both a Value and Nodes")
    return TndsNode(
        name=name,
        format=format_,
        type=properties.get("Type", ""),
        value=_value(value, format_, name),
        acl=properties.get("ACL", ""),
        title=properties.get("Title", ""),
        path=tuple(part for part in path.split("/") if part not in ("", ".")),
        children=tuple(children),
    )


def _properties(element: _Element) -> Iterator[tuple[str, str]]:
    for child in element:
        name = _local(child)
        if name in ("Format", "Type"):
            inner = next(iter(child), None)
            if name == "Format":
                yield name, _text(child) if inner is None else _local(inner)
            else:
                yield name, _text(child) if inner is None else _text(inner)
        else:
            yield name, _text(child)


def _format(name: str | None) -> Format | None:
    if name is None:
        return None
    try:
        return Format(name)
    except ValueError as error:
        raise ProtocolError(f"TNDS Format {name[:40]!r} does not exist") from error


def _value(value: str | bytes | None, format_: Format | None, name: str) -> str | bytes | None:
    if format_ is Format.BIN and isinstance(value, str):
        try:
            return base64.b64decode("".join(value.split()), validate=True)
        except (binascii.Error, ValueError) as error:
            raise ProtocolError(f"TNDS node {name!r}: the bin value is not base64") from error
    if isinstance(value, bytes) and format_ is not Format.BIN:
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise ProtocolError(f"TNDS node {name!r}: the value is not UTF-8") from error
    return value


def _local(element: _Element) -> str:
    return element.tag.rpartition("}")[2]


def _text(element: _Element) -> str:
    text = element.text
    if text is None:
        return ""
    if isinstance(text, bytes):
        try:
            text = text.decode()
        except UnicodeDecodeError as error:
            raise ProtocolError(f"{_local(element)} in the TNDS document is not UTF-8") from error
    return text.strip()


# ---- writing -----------------------------------------------------------------------------------------------------


def selection(attribute: str) -> frozenset[str] | None:
    """What ``?list=`` asks for: the wanted properties, or ``None`` when it is no valid TNDS attribute (6.2).

    ``TNDS`` wants all, ``TNDS+Value+ACL`` only those, ``TNDS-Format`` all but that one.
    """
    if attribute == "TNDS":
        return SELECTABLE
    sign = attribute[4:5]
    if not attribute.startswith("TNDS") or sign not in ("+", "-"):
        return None
    names = frozenset(attribute[5:].split(sign))
    if not names <= SELECTABLE:
        return None
    return names if sign == "+" else SELECTABLE - names


def encode_tnds(nodes: Iterable[TndsNode]) -> str:
    """The XML document with these top-level nodes; what a node does not say is left out."""
    out = [f'<MgmtTree xmlns="{DDF_NAMESPACE}"><VerDTD>{VERSION}</VerDTD>']
    for node in nodes:
        _write_xml(_element(node), out)
    out.append("</MgmtTree>")
    return "".join(out)


def encode_tnds_wbxml(nodes: Iterable[TndsNode]) -> bytes:
    """As :func:`encode_tnds`, in WBXML 1.2 with the textual public id (there is no numeric one), on code page 2."""
    out = [_WBXML_PREFIX, _OPEN["MgmtTree"]]
    _write_wbxml(("VerDTD", VERSION), out)
    for node in nodes:
        _write_wbxml(_element(node), out)
    out.append(_END)
    return b"".join(out)


#: an element: its tag, and its text, octets or elements
_Content = str | bytes | list["_Tagged"]
_Tagged = tuple[str, _Content]


def _element(node: TndsNode) -> _Tagged:
    """The node as the content models order it."""
    properties: list[_Tagged] = []
    if node.acl:
        properties.append(("ACL", node.acl))
    if node.format is not None:
        properties.append(("Format", [(node.format.value, "")]))
    if node.title:
        properties.append(("Title", node.title))
    if node.tstamp:
        properties.append(("TStamp", node.tstamp))
    kind = "DDFName" if node.format is Format.NODE or node.children else "MIME"
    properties.append(("Type", [(kind, node.type)]))
    if node.verno:
        properties.append(("VerNo", node.verno))
    content: list[_Tagged] = [("NodeName", node.name)]
    if node.path:
        content.append(("Path", "/".join(node.path)))
    content.append(("RTProperties", properties))
    if node.value is not None:
        content.append(("Value", node.value))
    content.extend(map(_element, node.children))
    return "Node", content


def _write_xml(element: _Tagged, out: list[str]) -> None:
    tag, content = element
    if isinstance(content, list):
        out.append(f"<{tag}>")
        for child in content:
            _write_xml(child, out)
        out.append(f"</{tag}>")
        return
    text = base64.b64encode(content).decode() if isinstance(content, bytes) else _escaped(content)
    out.append(f"<{tag}>{text}</{tag}>" if text else f"<{tag}/>")


def _write_wbxml(element: _Tagged, out: list[bytes]) -> None:
    tag, content = element
    if not content:
        out.append(bytes((DDF[tag],)))
        return
    out.append(_OPEN[tag])
    if isinstance(content, list):
        for child in content:
            _write_wbxml(child, out)
    elif isinstance(content, bytes) or "\0" in content:
        octets = content if isinstance(content, bytes) else content.encode()
        out += (_OPAQUE, _length(len(octets)), octets)
    else:
        out += (_STR_I, content.encode(), b"\0")
    out.append(_END)


def _length(value: int) -> bytes:
    """An mb_u_int32."""
    octets = [value & 0x7F]
    while value := value >> 7:
        octets.append(value & 0x7F | 0x80)
    return bytes(reversed(octets))


_PUBLIC_ID = b"-//OMA//DTD-DM-DDF 1.2//EN\0"
#: WBXML 1.2, public id at offset 0 of the string table, UTF-8, the table, switch to the page of DDF and TNDS
_WBXML_PREFIX = b"\x02\x00\x00\x6a" + _length(len(_PUBLIC_ID)) + _PUBLIC_ID + b"\x00\x02"
_OPEN = {tag: bytes((code | 0x40,)) for tag, code in DDF.items()}
_END, _STR_I, _OPAQUE = b"\x01", b"\x03", b"\xc3"


def _escaped(text: str) -> str:
    from dom0_agent.omadm.xml import escape_text

    return escape_text(text)
