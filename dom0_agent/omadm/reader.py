"""Elements to messages: the reading half of the SyncML 1.2 content models, shared by the XML and the WBXML codec.

A codec brings an element tree of its syntax (``element.Element``) to :func:`message_from`. Reading is tolerant: any
child order, any namespace, unknown elements, Meta with or without MetInf (digest 1.1). Knows no bytes and no session.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

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
from dom0_agent.omadm.element import NAMES, Element, lenient_number_of, markup, number_of, text_of
from dom0_agent.omadm.reader_meta import read_meta
from dom0_agent.omadm.status import ProtocolError

#: Atomic and Sequence inside each other; a real server uses two levels, an attacker wants thousands
MAX_CONTAINER_DEPTH = 8


def message_from(root: Element) -> Message:
    """The message below ``root``; raises :class:`ProtocolError` when it is not a SyncML document we can process."""
    if NAMES[root.tag] != "SyncML":
        raise ProtocolError(f"the document element is {NAMES[root.tag]!r}, expected 'SyncML'")
    header: SyncHdr | None = None
    body: tuple[BodyElement, ...] | None = None
    final = False
    for child in root:
        name = NAMES[child.tag]
        if name == "SyncHdr":
            header = _header(child)
        elif name == "SyncBody":
            body = _body(child, 0)
            final = any(NAMES[element.tag] == "Final" for element in child)
    if header is None or body is None:
        raise ProtocolError("the message lacks its SyncHdr or its SyncBody")
    return Message(header, body, final)


def body_element_from(element: Element) -> BodyElement:
    """One command alone, as VirMO's UI/Command node holds it (A-45)."""
    parse = _COMMANDS.get(NAMES[element.tag])
    return parse(element, 0) if parse is not None else _unknown(element)


def _location(element: Element) -> tuple[str | None, str | None]:
    uri = name = None
    names = NAMES
    for child in element:
        tag = names[child.tag]
        if tag == "LocURI":
            text = child.text
            uri = text.strip() if isinstance(text, str) else text_of(child)
        elif tag == "LocName":
            name = text_of(child)
    return uri, name


def _data(element: Element) -> Data:
    """Content of Data: text as it stands, or nested markup turned into text (TNDS 9.1.3)."""
    if len(element):
        return markup(element)
    text = element.text
    return "" if text is None else text


def _text_data(element: Element) -> str:
    data = _data(element)
    return text_of(element) if isinstance(data, bytes) else data.strip()


def _cred(element: Element) -> Cred:
    meta = Meta()
    data = ""
    for child in element:
        name = NAMES[child.tag]
        if name == "Meta":
            meta = read_meta(child)
        elif name == "Data":
            data = _text_data(child)
    return Cred(meta, data)


def _chal(element: Element) -> Chal:
    meta = Meta()
    for child in element:
        if NAMES[child.tag] == "Meta":
            meta = read_meta(child)
    return Chal(meta)


def _header(element: Element) -> SyncHdr:
    texts: dict[str, str] = {}
    target = source = (None, None)  # type: tuple[str | None, str | None]
    msg_id: int | None = None
    cred: Cred | None = None
    meta: Meta | None = None
    for child in element:
        name = NAMES[child.tag]
        if name == "Target":
            target = _location(child)
        elif name == "Source":
            source = _location(child)
        elif name == "MsgID":
            msg_id = number_of(child)
        elif name == "Cred":
            cred = _cred(child)
        elif name == "Meta":
            meta = read_meta(child)
        else:
            texts[name] = text_of(child)
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
    names = NAMES
    for child in element:
        name = names[child.tag]
        if name == "Target":
            target, target_name = _location(child)
        elif name == "Source":
            source, source_name = _location(child)
        elif name == "Meta":
            meta = read_meta(child)
        elif name == "Data":
            data = _data(child)
        elif name == "MoreData":
            more_data = True
    return Item(target, source, meta, data, more_data, target_name, source_name)


def _body(element: Element, depth: int) -> tuple[BodyElement, ...]:
    found: list[BodyElement] = []
    for child in element:
        name = NAMES[child.tag]
        parse = _COMMANDS.get(name)
        if parse is not None:
            found.append(parse(child, depth))
        elif name not in _NO_COMMANDS:
            found.append(_unknown(child))
    return tuple(found)


#: children of SyncBody, Atomic and Sequence that are no commands
_NO_COMMANDS = frozenset({"CmdID", "Meta", "Final", "NoResp"})


def _unknown(element: Element) -> UnknownCommand:
    cmd_id = ""
    for child in element:
        if NAMES[child.tag] == "CmdID":
            cmd_id = text_of(child)
    return UnknownCommand(cmd_id, NAMES[element.tag])


class _ItemCommandType(Protocol):
    def __call__(self, cmd_id: str, items: tuple[Item, ...], meta: Meta | None) -> BodyElement: ...


def _item_command(make: _ItemCommandType) -> Callable[[Element, int], BodyElement]:
    def parse(element: Element, _depth: int) -> BodyElement:
        cmd_id = ""
        items: list[Item] = []
        meta: Meta | None = None
        names = NAMES
        for child in element:
            name = names[child.tag]
            if name == "Item":
                items.append(_item(child))
            elif name == "CmdID":
                text = child.text
                cmd_id = text.strip() if isinstance(text, str) else text_of(child)
            elif name == "Meta":
                meta = read_meta(child)
        return make(cmd_id, tuple(items), meta)

    return parse


def _exec(element: Element, _depth: int) -> Exec:
    cmd_id = ""
    items: list[Item] = []
    meta: Meta | None = None
    correlator: str | None = None
    for child in element:
        name = NAMES[child.tag]
        if name == "CmdID":
            cmd_id = text_of(child)
        elif name == "Item":
            items.append(_item(child))
        elif name == "Meta":
            meta = read_meta(child)
        elif name == "Correlator":
            correlator = text_of(child)
    return Exec(cmd_id, tuple(items), meta, correlator)


def _alert(element: Element, _depth: int) -> Alert:
    cmd_id = ""
    code: int | None = None
    items: list[Item] = []
    correlator: str | None = None
    for child in element:
        name = NAMES[child.tag]
        if name == "CmdID":
            cmd_id = text_of(child)
        elif name == "Data":
            code = lenient_number_of(child)
        elif name == "Item":
            items.append(_item(child))
        elif name == "Correlator":
            correlator = text_of(child)
    return Alert(cmd_id, code, tuple(items), correlator)


def _container(make: type[Atomic] | type[Sequence]) -> Callable[[Element, int], BodyElement]:
    def parse(element: Element, depth: int) -> BodyElement:
        if depth >= MAX_CONTAINER_DEPTH:
            raise ProtocolError(f"Atomic and Sequence are nested deeper than {MAX_CONTAINER_DEPTH}")
        cmd_id = ""
        meta: Meta | None = None
        for child in element:
            name = NAMES[child.tag]
            if name == "CmdID":
                cmd_id = text_of(child)
            elif name == "Meta":
                meta = read_meta(child)
        return make(cmd_id, _body(element, depth + 1), meta)

    return parse


def _results(element: Element, _depth: int) -> Results:
    cmd_id = cmd_ref = ""
    msg_ref: int | None = None
    items: list[Item] = []
    meta: Meta | None = None
    target_ref = source_ref = None
    for child in element:
        name = NAMES[child.tag]
        if name == "CmdID":
            cmd_id = text_of(child)
        elif name == "MsgRef":
            msg_ref = number_of(child)
        elif name == "CmdRef":
            cmd_ref = text_of(child)
        elif name == "Item":
            items.append(_item(child))
        elif name == "Meta":
            meta = read_meta(child)
        elif name == "TargetRef":
            target_ref = text_of(child)
        elif name == "SourceRef":
            source_ref = text_of(child)
    return Results(cmd_id, msg_ref, cmd_ref, tuple(items), meta, target_ref, source_ref)


def _status(element: Element, _depth: int) -> Status:
    cmd_id = cmd_ref = cmd = ""
    msg_ref = code = 0
    target_refs: list[str] = []
    source_refs: list[str] = []
    items: list[Item] = []
    cred: Cred | None = None
    chal: Chal | None = None
    for child in element:
        name = NAMES[child.tag]
        if name == "CmdID":
            cmd_id = text_of(child)
        elif name == "MsgRef":
            msg_ref = number_of(child)
        elif name == "CmdRef":
            cmd_ref = text_of(child)
        elif name == "Cmd":
            cmd = text_of(child)
        elif name == "Data":
            code = number_of(child)
        elif name == "TargetRef":
            target_refs.append(text_of(child))
        elif name == "SourceRef":
            source_refs.append(text_of(child))
        elif name == "Chal":
            chal = _chal(child)
        elif name == "Cred":
            cred = _cred(child)
        elif name == "Item":
            items.append(_item(child))
    if not cmd_ref and cmd == "SyncHdr":
        cmd_ref = "0"  # left out in examples of the specification (digest 2.1)
    return Status(cmd_id, msg_ref, cmd_ref, cmd, code, tuple(target_refs), tuple(source_refs), cred, chal, tuple(items))


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
