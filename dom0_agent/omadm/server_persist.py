"""Authentication state of a server session as a JSON value and back; knows field names only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from dom0_agent.omadm.server_auth import ServerAuthState

_NONCES = ("client_nonce", "server_nonce")


def auth_to_dict(state: ServerAuthState) -> dict[str, Any]:
    """A JSON value; nonces as hexadecimal digits."""
    saved = asdict(state)
    for name in _NONCES:
        saved[name] = None if saved[name] is None else saved[name].hex()
    return saved


def auth_from_dict(saved: Mapping[str, Any]) -> ServerAuthState:
    """What :func:`auth_to_dict` gave."""
    fields = dict(saved)
    for name in _NONCES:
        fields[name] = None if fields[name] is None else bytes.fromhex(fields[name])
    return ServerAuthState(**fields)
