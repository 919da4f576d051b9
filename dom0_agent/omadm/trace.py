"""DM sessions for people: a message as lines, one for each command (``virmo-agent session --trace``).

Shows command, node, status and the beginning of values; never credentials, secrets or nonces. Reads messages only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from dom0_agent.omadm import commands as c
from dom0_agent.omadm.alerts import AlertCode
from dom0_agent.omadm.auth import scheme_of
from dom0_agent.omadm.codec import Codec
from dom0_agent.omadm.status import ProtocolError, Status

#: Characters of a value or URI that are shown.
MAX_SHOWN = 60
#: leaves whose values are secrets (DMAcc)
_SECRET_LEAVES = frozenset({"AAuthSecret", "AAuthData"})


def trace_lines(codec: Codec, untrusted_body: bytes) -> list[str]:
    """The lines for the octets of a message; what cannot be decoded is said to be so."""
    try:
        return list(lines_of(codec.decode(untrusted_body)))
    except ProtocolError as error:
        return [f"{len(untrusted_body)} octets that are no message: {error}"]


def lines_of(message: c.Message) -> Iterator[str]:
    """A heading, then a line for each command; members of Atomic and Sequence are indented."""
    header = message.header
    parts = [f"session {header.session_id} message {header.msg_id}", f"{header.source} -> {header.target}"]
    if header.cred is not None:
        parts.append(f"credentials {_scheme(header.cred.meta)}")
    if header.meta is not None and header.meta.max_msg_size is not None:
        parts.append(f"max {header.meta.max_msg_size}")
    if header.resp_uri is not None:
        parts.append(f"answer to {header.resp_uri}")
    if not message.final:
        parts.append("more follows")
    yield _plain("  ".join(parts))
    yield from _commands(message.body, "  ")


def _commands(body: tuple[c.BodyElement, ...], indent: str) -> Iterator[str]:
    for command in body:
        describe = _DESCRIBE.get(type(command), _items_line)
        yield _plain(f"{indent}#{command.cmd_id or '?':<4}{command.NAME:<9}{describe(command)}".rstrip())
        if isinstance(command, c.Container):
            yield from _commands(command.commands, indent + "    ")


def _items_line(command: c.BodyElement) -> str:
    items: tuple[c.Item, ...] = getattr(command, "items", ())
    return ", ".join(map(_item, items))


def _exec_line(command: c.Exec) -> str:
    return _items_line(command) + (f"  correlator {command.correlator}" if command.correlator else "")


def _alert_line(command: c.Alert) -> str:
    name = AlertCode(command.code).name if command.code in set(AlertCode) else "?"
    correlator = f"  correlator {command.correlator}" if command.correlator else ""
    return f"{command.code} {name}  {_items_line(command)}{correlator}"


def _status_line(command: c.Status) -> str:
    name = Status(command.code).name if command.code in set(Status) else ""
    refs = " ".join(_short(ref) for ref in command.target_refs[:3])
    chal = f"  asks for {_scheme(command.chal.meta)}" if command.chal is not None and command.code > 400 else ""
    return f"{command.code} {name}  for {command.cmd} {command.msg_ref}/{command.cmd_ref}  {refs}{chal}"


def _results_line(command: c.Results) -> str:
    return f"for {command.msg_ref}/{command.cmd_ref}  {_items_line(command)}"


def _item(item: c.Item) -> str:
    uri = item.target or item.source or ""
    if item.target and item.source:
        uri = f"{item.source} -> {item.target}"
    return _short(uri) + _value(item, uri) + (" (more follows)" if item.more_data else "")


def _value(item: c.Item, uri: str) -> str:
    data = item.data
    kind = (
        f" <{item.meta.format or item.meta.type}>"
        if item.meta is not None and (item.meta.format or item.meta.type)
        else ""
    )
    if data is None:
        return kind
    if uri.partition("?")[0].rpartition("/")[2] in _SECRET_LEAVES:
        return f"{kind} = ***"
    if isinstance(data, bytes):
        return f"{kind} = {len(data)} octets"
    return f"{kind} = {_short(data)!r}" if data else f"{kind} = ''"


def _scheme(meta: c.Meta) -> str:
    scheme = scheme_of(meta)
    return scheme.value if scheme is not None else "of an unknown kind"


def _short(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."


def _plain(text: str) -> str:
    """A peer's text must not move the cursor of a terminal."""
    return "".join(char if char.isprintable() else "\ufffd" for char in text)


_DESCRIBE: dict[type, Callable[..., str]] = {
    c.Exec: _exec_line,
    c.Alert: _alert_line,
    c.Status: _status_line,
    c.Results: _results_line,
}
