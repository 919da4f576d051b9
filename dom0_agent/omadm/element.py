"""Elements to messages: the reading half of the SyncML 1.2 content models, shared by the XML and the WBXML codec.

A codec brings an element tree of its syntax (:class:`Element`) to :func:`message_from`. Reading is tolerant: any child
order, any namespace, unknown elements, Meta with or without MetInf (digest 1.1). Knows no bytes and no session.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol
from xml.sax.saxutils import escape, quoteattr

from dom0_agent.omadm.commands import (
    Add,
    Alert,
    Atomic,
    BodyElement,
    Chal,
    Copy,
    Cred,
    Data,
    Delete,
    Exec,
    Get,
    Item,
    Message,
    Meta,
    Replace,
    Results,
    Sequence,
    Status,
    SyncHdr,
    UnknownCommand,
)
from dom0_agent.omadm.status import ProtocolError
from dom0_agent.omadm.tokens import METINF, METINF_NAMESPACE, SYNCML, SYNCML_NAMESPACE

#: Atomic and Sequence inside each other; a real server uses two levels, an attacker wants thousands
MAX_CONTAINER_DEPTH = 8
#: elements below a ``Data`` that holds markup instead of text (TNDS nests twice per tree level)
MAX_MARKUP_DEPTH = 128
#: the digits of any number in a message; Python parses long ones slowly
MAX_DIGITS = 10


class Element(Protocol):
    """What a codec's parser must offer: an lxml element does, and the WBXML decoder's nodes do.

    ``tag`` may carry a namespace as ``{namespace}name``. ``text`` is ``bytes`` only for OPAQUE content.
    """

    @property
    def tag(self) -> str: ...
    @property
    def text(self) -> Data | None: ...
    @property
    def tail(self) -> str | None: ...
    @property
    def attrib(self) -> dict[str, str]: ...
    def __iter__(self) -> Iterator[Element]: ...
    def __len__(self) -> int: ...


class _LocalNames(dict[str, str]):
    """Tag to local name, whatever the namespace (digest 1.1: be namespace-tolerant on input)."""

    def __missing__(self, tag: str) -> str:
        return tag.rpartition("}")[2]


_NAMES = _LocalNames(
    {name: name for name in (*SYNCML, *METINF)}
    | {f"{{{SYNCML_NAMESPACE}}}{name}": name for name in (*SYNCML, *METINF)}
    | {f"{{{METINF_NAMESPACE}}}{name}": name for name in METINF}
)


def message_from(root: Element) -> Message:
    """The message below ``root``; raises :class:`ProtocolError` when it is not a SyncML document we can process."""
    if _NAMES[root.tag] != "SyncML":
        raise ProtocolError(f"the document element is {_NAMES[root.tag]!r}, expected 'SyncML'")
    header: SyncHdr | None = None
    body: tuple[BodyElement, ...] | None = None
    final = False
    for child in root:
        name = _NAMES[child.tag]
        if name == "SyncHdr":
            header = _header(child)
        elif name == "SyncBody":
            body = _body(child, 0)
            final = any(_NAMES[element.tag] == "Final" for element in child)
    if header is None or body is None:
        raise ProtocolError("the message lacks its SyncHdr or its SyncBody")
    return Message(header, body, final)


def body_element_from(element: Element) -> BodyElement:
    """One command alone, as VirMO's UI/Command node holds it (A-45)."""
    parse = _COMMANDS.get(_NAMES[element.tag])
    return parse(element, 0) if parse is not None else _unknown(element)


def _text(element: Element) -> str:
    """Trimmed text content; OPAQUE octets are accepted for text as UTF-8 (wbxml digest 6)."""
    text = element.text
    if text is None:
        return ""
    if isinstance(text, bytes):
        try:
            text = text.decode()
        except UnicodeDecodeError as error:
            raise ProtocolError(f"{_NAMES[element.tag]} holds octets that are not UTF-8") from error
    return text.strip()


def _number(element: Element) -> int:
    text = _text(element)
    if not (text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS):
        raise ProtocolError(f"{_NAMES[element.tag]} is {text[:40]!r}, expected a number")
    return int(text)


def _lenient_number(element: Element) -> int | None:
    text = _text(element)
    return int(text) if text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS else None


def _location(element: Element) -> tuple[str | None, str | None]:
    uri = name = None
    for child in element:
        tag = _NAMES[child.tag]
        if tag == "LocURI":
            uri = _text(child)
        elif tag == "LocName":
            name = _text(child)
    return uri, name


def _data(element: Element) -> Data:
    """Content of Data: text as it stands, or nested markup turned into text (TNDS 9.1.3)."""
    if len(element):
        return markup(element)
    text = element.text
    return "" if text is None else text


def _text_data(element: Element) -> str:
    data = _data(element)
    return _text(element) if isinstance(data, bytes) else data.strip()


def markup(parent: Element) -> str:
    """The content of ``parent`` as XML text, its namespaces declared where they begin; refuses absurd nesting."""
    out: list[str] = []
    text = parent.text
    if isinstance(text, str) and text.strip():
        out.append(escape(text))
    for child in parent:
        _write_markup(child, "", out, 0)
    return "".join(out)


def _write_markup(element: Element, namespace: str, out: list[str], depth: int) -> None:
    if depth > MAX_MARKUP_DEPTH:
        raise ProtocolError(f"markup in Data is nested deeper than {MAX_MARKUP_DEPTH} elements")
    own, _, name = element.tag.rpartition("}")
    own = own[1:]
    if own.upper().startswith("SYNCML:SYNCML"):
        own = ""  # inherited from the message by a document that declared none of its own
    out.append(f"<{name}")
    if own != namespace:
        out.append(f" xmlns={quoteattr(own)}")
    for key, value in element.attrib.items():
        out.append(f" {key.rpartition('}')[2]}={quoteattr(value)}")
    text = element.text
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    if len(element) or text:
        out.append(">")
        out.append(escape(text or ""))
        for child in element:
            _write_markup(child, own, out, depth + 1)
        out.append(f"</{name}>")
    else:
        out.append("/>")
    if element.tail:
        out.append(escape(element.tail))


def _meta(element: Element) -> Meta:
    fields: dict[str, str | int] = {}
    emi: list[str] = []
    for child in element:
        name = _NAMES[child.tag]
        if name == "Format":
            fields["format"] = _text(child)
        elif name == "Type":
            fields["type"] = " ".join(_text(child).split())
        elif name in _META_TEXTS:
            fields[_META_TEXTS[name]] = _text(child)
        elif name in _META_NUMBERS:
            fields[_META_NUMBERS[name]] = _number(child)
        elif name == "EMI":
            emi.append(_text(child))
        elif name == "MetInf":
            return _meta(child)
    if len(fields) <= 2 and not emi and fields.keys() <= _COMMON_META:  # nearly all of them
        return Meta(fields.get("format"), fields.get("type"))  # type: ignore[arg-type]
    return Meta(**fields, emi=tuple(emi))  # type: ignore[arg-type]


_COMMON_META = {"format", "type"}
_META_TEXTS = {"Mark": "mark", "NextNonce": "next_nonce"}
_META_NUMBERS = {"Size": "size", "MaxMsgSize": "max_msg_size", "MaxObjSize": "max_obj_size"}


def _cred(element: Element) -> Cred:
    meta = Meta()
    data = ""
    for child in element:
        name = _NAMES[child.tag]
        if name == "Meta":
            meta = _meta(child)
        elif name == "Data":
            data = _text_data(child)
    return Cred(meta, data)


def _chal(element: Element) -> Chal:
    meta = Meta()
    for child in element:
        if _NAMES[child.tag] == "Meta":
            meta = _meta(child)
    return Chal(meta)


def _header(element: Element) -> SyncHdr:
    texts: dict[str, str] = {}
    target = source = (None, None)  # type: tuple[str | None, str | None]
    msg_id: int | None = None
    cred: Cred | None = None
    meta: Meta | None = None
    for child in element:
        name = _NAMES[child.tag]
        if name == "Target":
            target = _location(child)
        elif name == "Source":
            source = _location(child)
        elif name == "MsgID":
            msg_id = _number(child)
        elif name == "Cred":
            cred = _cred(child)
        elif name == "Meta":
            meta = _meta(child)
        else:
            texts[name] = _text(child)
    if msg_id is None or not texts.get("SessionID") or source[0] is None or target[0] is None:
        raise ProtocolError("SyncHdr needs SessionID, MsgID, Target and Source")
    return SyncHdr(
        session_id=texts["SessionID"],
        msg_id=msg_id,
        target=target[0],
        source=source[0],
        target_name=target[1],
        source_name=source[1],
        resp_uri=texts.get("RespURI") or None,
        cred=cred,
        meta=meta,
        ver_dtd=texts.get("VerDTD", ""),
        ver_proto=texts.get("VerProto", ""),
    )


def _item(element: Element) -> Item:
    target = source = target_name = source_name = None
    meta: Meta | None = None
    data: Data | None = None
    more_data = False
    for child in element:
        name = _NAMES[child.tag]
        if name == "Target":
            target, target_name = _location(child)
        elif name == "Source":
            source, source_name = _location(child)
        elif name == "Meta":
            meta = _meta(child)
        elif name == "Data":
            data = _data(child)
        elif name == "MoreData":
            more_data = True
    return Item(target, source, meta, data, more_data, target_name, source_name)


def _body(element: Element, depth: int) -> tuple[BodyElement, ...]:
    found: list[BodyElement] = []
    for child in element:
        parse = _COMMANDS.get(_NAMES[child.tag])
        if parse is not None:
            found.append(parse(child, depth))
        elif _NAMES[child.tag] not in _NO_COMMANDS:
            found.append(_unknown(child))
    return tuple(found)


#: children of SyncBody, Atomic and Sequence that are no commands
_NO_COMMANDS = frozenset({"CmdID", "Meta", "Final", "NoResp"})


def _unknown(element: Element) -> UnknownCommand:
    cmd_id = ""
    for child in element:
        if _NAMES[child.tag] == "CmdID":
            cmd_id = _text(child)
    return UnknownCommand(cmd_id, _NAMES[element.tag])


class _ItemCommandType(Protocol):
    def __call__(self, cmd_id: str, items: tuple[Item, ...], meta: Meta | None) -> BodyElement: ...


def _item_command(make: _ItemCommandType) -> Callable[[Element, int], BodyElement]:
    def parse(element: Element, _depth: int) -> BodyElement:
        cmd_id = ""
        items: list[Item] = []
        meta: Meta | None = None
        for child in element:
            name = _NAMES[child.tag]
            if name == "CmdID":
                cmd_id = _text(child)
            elif name == "Item":
                items.append(_item(child))
            elif name == "Meta":
                meta = _meta(child)
        return make(cmd_id, tuple(items), meta)

    return parse


def _exec(element: Element, _depth: int) -> Exec:
    cmd_id = ""
    items: list[Item] = []
    meta: Meta | None = None
    correlator: str | None = None
    for child in element:
        name = _NAMES[child.tag]
        if name == "CmdID":
            cmd_id = _text(child)
        elif name == "Item":
            items.append(_item(child))
        elif name == "Meta":
            meta = _meta(child)
        elif name == "Correlator":
            correlator = _text(child)
    return Exec(cmd_id, tuple(items), meta, correlator)


def _alert(element: Element, _depth: int) -> Alert:
    cmd_id = ""
    code: int | None = None
    items: list[Item] = []
    correlator: str | None = None
    for child in element:
        name = _NAMES[child.tag]
        if name == "CmdID":
            cmd_id = _text(child)
        elif name == "Data":
            code = _lenient_number(child)
        elif name == "Item":
            items.append(_item(child))
        elif name == "Correlator":
            correlator = _text(child)
    return Alert(cmd_id, code, tuple(items), correlator)


def _container(make: type[Atomic] | type[Sequence]) -> Callable[[Element, int], BodyElement]:
    def parse(element: Element, depth: int) -> BodyElement:
        if depth >= MAX_CONTAINER_DEPTH:
            raise ProtocolError(f"Atomic and Sequence are nested deeper than {MAX_CONTAINER_DEPTH}")
        cmd_id = ""
        meta: Meta | None = None
        for child in element:
            name = _NAMES[child.tag]
            if name == "CmdID":
                cmd_id = _text(child)
            elif name == "Meta":
                meta = _meta(child)
        return make(cmd_id, _body(element, depth + 1), meta)

    return parse


def _results(element: Element, _depth: int) -> Results:
    cmd_id = cmd_ref = ""
    msg_ref: int | None = None
    items: list[Item] = []
    meta: Meta | None = None
    target_ref = source_ref = None
    for child in element:
        name = _NAMES[child.tag]
        if name == "CmdID":
            cmd_id = _text(child)
        elif name == "MsgRef":
            msg_ref = _number(child)
        elif name == "CmdRef":
            cmd_ref = _text(child)
        elif name == "Item":
            items.append(_item(child))
        elif name == "Meta":
            meta = _meta(child)
        elif name == "TargetRef":
            target_ref = _text(child)
        elif name == "SourceRef":
            source_ref = _text(child)
    return Results(cmd_id, msg_ref, cmd_ref, tuple(items), meta, target_ref, source_ref)


def _status(element: Element, _depth: int) -> Status:
    cmd_id = cmd_ref = cmd = ""
    msg_ref = code = 0
    target_refs: tuple[str, ...] = ()
    source_refs: tuple[str, ...] = ()
    items: tuple[Item, ...] = ()
    cred: Cred | None = None
    chal: Chal | None = None
    for child in element:
        name = _NAMES[child.tag]
        if name == "CmdID":
            cmd_id = _text(child)
        elif name == "MsgRef":
            msg_ref = _number(child)
        elif name == "CmdRef":
            cmd_ref = _text(child)
        elif name == "Cmd":
            cmd = _text(child)
        elif name == "Data":
            code = _number(child)
        elif name == "TargetRef":
            target_refs += (_text(child),)
        elif name == "SourceRef":
            source_refs += (_text(child),)
        elif name == "Chal":
            chal = _chal(child)
        elif name == "Cred":
            cred = _cred(child)
        elif name == "Item":
            items += (_item(child),)
    if not cmd_ref and cmd == "SyncHdr":
        cmd_ref = "0"  # left out in examples of the specification (digest 2.1)
    return Status(cmd_id, msg_ref, cmd_ref, cmd, code, target_refs, source_refs, cred, chal, items)


_COMMANDS: dict[str, Callable[[Element, int], BodyElement]] = {
    "Add": _item_command(Add),
    "Alert": _alert,
    "Atomic": _container(Atomic),
    "Copy": _item_command(Copy),
    "Delete": _item_command(Delete),
    "Exec": _exec,
    "Get": _item_command(Get),
    "Replace": _item_command(Replace),
    "Results": _results,
    "Sequence": _container(Sequence),
    "Status": _status,
}
