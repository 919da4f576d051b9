"""Turns the procedures' commands into SyncML commands, and devices' answers into outcomes and alerts."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping

from dom0_agent.omadm import commands as c
from dom0_agent.omadm.node import Command, Format
from virmo_server.orders.alerts import DeviceAlert
from virmo_server.procedures.core import DmCommand, ReadNode

#: Meta of a result that says nothing about its format (RepPro: META defaults).
DEFAULT_FORMAT = "chr"


def to_syncml(command: DmCommand) -> c.ManagementCommand:
    """The SyncML command."""
    return _MAKERS[command.verb](command)


def read_nodes(results: Iterable[c.Item]) -> tuple[ReadNode, ...]:
    """The nodes that Results carried; an Item without Source is none."""
    return tuple(
        ReadNode(
            uri=item.source.strip(),
            value=text_of(item.data),
            format=_meta(item).format or DEFAULT_FORMAT,
            type=_meta(item).type,
        )
        for item in results
        if item.source is not None
    )


def read_alert(alert: c.Alert, item: c.Item) -> DeviceAlert:
    """One Item of a Generic Alert."""
    meta = _meta(item)
    return DeviceAlert(
        type=meta.type or "",
        source=item.source or "",
        correlator=alert.correlator,
        format=meta.format or DEFAULT_FORMAT,
        mark=meta.mark,
        data=text_of(item.data),
    )


def text_of(data: c.Data | None) -> str:
    """Data as text; octets that are none become base64."""
    if data is None:
        return ""
    if isinstance(data, str):
        return data
    try:
        return data.decode().removesuffix("\0")  # libdmclient sends the end of a C string, too
    except UnicodeDecodeError:
        return base64.b64encode(data).decode()


def _meta(item: c.Item) -> c.Meta:
    return item.meta or c.Meta()


def _valued(command: DmCommand) -> tuple[c.Item, ...]:
    # An interior node gets an empty Data, too: a client that we know crashes without it (``oma-dm`` 15).
    meta = c.Meta(format=command.format, type=command.type) if command.format or command.type else None
    return (c.Item(target=command.uri, meta=meta, data=command.data),)


def _bare(command: DmCommand) -> tuple[c.Item, ...]:
    return (c.Item(target=command.uri),)


def _exec(command: DmCommand) -> c.Exec:
    has_data = command.data != "" and command.format is not Format.NULL
    items = _valued(command) if has_data else _bare(command)
    return c.Exec(items=items, correlator=command.correlator)


_MAKERS: Mapping[Command, Callable[[DmCommand], c.ManagementCommand]] = {
    Command.GET: lambda command: c.Get(items=_bare(command)),
    Command.ADD: lambda command: c.Add(items=_valued(command)),
    Command.REPLACE: lambda command: c.Replace(items=_valued(command)),
    Command.DELETE: lambda command: c.Delete(items=_bare(command)),
    Command.EXEC: _exec,
}
