"""Access control lists of nodes (OMA-TS-DM-TND 7.7.1.1, our digest 7.4): their syntax and what they grant.

Inheritance is the tree's; here an ACL is one value of one node::

    acl   := entry ("&" entry)* | ""
    entry := command "=" sid ("+" sid)*        command := Add | Delete | Exec | Get | Replace
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from dom0_agent.omadm.node import Command

ANY = "*"
#: The order in which entries are written.
COMMANDS = (Command.ADD, Command.DELETE, Command.EXEC, Command.GET, Command.REPLACE)
#: An ACL names accounts of a device; thousands of bytes of it are an attack, not a policy.
MAX_LENGTH = 4096
ROOT_DEFAULT = "Add=*&Get=*"


class AclSyntaxError(ValueError):
    """The text is not an ACL; the message says where."""


class Acl:
    """A parsed, immutable ACL."""

    __slots__ = ("_entries",)

    def __init__(self, entries: Mapping[Command, frozenset[str]]) -> None:
        """Entries without ids are left out, ``*`` swallows the ids beside it."""
        self._entries = {
            command: frozenset({ANY}) if ANY in entries[command] else entries[command]
            for command in COMMANDS
            if entries.get(command)
        }

    def grants(self, command: Command, server_id: str) -> bool:
        """Whether this ACL lets ``server_id`` use ``command``."""
        ids = self._entries.get(command)
        return ids is not None and (ANY in ids or server_id in ids)

    def ids(self, command: Command) -> frozenset[str]:
        """The server ids (or ``*``) that may use ``command``."""
        return self._entries.get(command, frozenset())

    def without(self, server_id: str) -> Acl:
        """This ACL after the account ``server_id`` was removed; commands left without ids drop out."""
        return Acl({command: ids - {server_id} for command, ids in self._entries.items()})

    def __str__(self) -> str:
        return "&".join(f"{command.value}={'+'.join(sorted(ids))}" for command, ids in self._entries.items())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Acl) and self._entries == other._entries

    def __hash__(self) -> int:
        return hash(frozenset(self._entries.items()))

    def __repr__(self) -> str:
        return f"Acl({str(self)!r})"


@lru_cache(maxsize=256)
def parse_acl(untrusted_text: str) -> Acl:
    """The ACL that ``untrusted_text`` writes; "" is the empty one. Raises :class:`AclSyntaxError`."""
    if len(untrusted_text) > MAX_LENGTH:
        raise AclSyntaxError(f"ACL of {len(untrusted_text)} characters; {MAX_LENGTH} are allowed")
    entries: dict[Command, frozenset[str]] = {}
    for entry in untrusted_text.split("&") if untrusted_text else ():
        name, equals, ids = entry.partition("=")
        command = _COMMANDS_BY_NAME.get(name)
        if not equals or command is None:
            raise AclSyntaxError(f"ACL entry {entry!r} does not begin with one of {', '.join(COMMANDS)} and '='")
        if command in entries:
            raise AclSyntaxError(f"ACL names {name} twice")
        entries[command] = frozenset(_parse_id(server_id, entry) for server_id in ids.split("+"))
    return Acl(entries)


def is_server_id(text: str) -> bool:
    """Whether an ACL can name this server: printable, without the characters that ACLs are made of."""
    return bool(text) and text.isprintable() and _FORBIDDEN_IN_ID.isdisjoint(text)


def automatic_acl(server_id: str, parent: Acl) -> Acl:
    """What the device gives an interior node that a server without Replace on the parent added (7.4).

    The specification grants Add, Delete and Replace. Because an own value ends inheritance, what the parent grants for
    Get and Exec is copied: nothing more than inheritance would have given, but nobody is locked out.
    """
    own = frozenset({server_id})
    return Acl(
        {
            Command.ADD: own,
            Command.DELETE: own,
            Command.REPLACE: own,
            Command.GET: parent.ids(Command.GET),
            Command.EXEC: parent.ids(Command.EXEC),
        }
    )


_COMMANDS_BY_NAME = {command.value: command for command in COMMANDS}


def _parse_id(server_id: str, entry: str) -> str:
    if server_id == ANY:
        return server_id
    if not is_server_id(server_id):
        raise AclSyntaxError(f"ACL entry {entry!r} has {server_id!r} where a server id is wanted")
    return server_id


_FORBIDDEN_IN_ID = frozenset("=&*+ ")
