"""Authentication state of a server session as a JSON value and back; knows field names only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from dom0_agent.omadm.server_auth import ServerAuthState

_FIELDS = tuple(field.name for field in fields(ServerAuthState))
_NONCES = ("client_nonce", "server_nonce")


def auth_to_dict(state: ServerAuthState) -> dict[str, Any]:
    """A JSON value; nonces as hexadecimal digits."""
    saved = {name: getattr(state, name) for name in _FIELDS}  # for each message: ``asdict`` copies deeply
    for name in _NONCES:
        saved[name] = None if saved[name] is None else saved[name].hex()
    return saved


def auth_from_dict(saved: Mapping[str, Any]) -> ServerAuthState:
    """What :func:`auth_to_dict` gave."""
    values = dict(saved)
    for name in _NONCES:
        values[name] = None if values[name] is None else bytes.fromhex(values[name])
    return ServerAuthState(**values)
