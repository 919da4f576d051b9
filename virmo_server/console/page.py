"""One row of the table of pages."""

from __future__ import annotations

from dataclasses import dataclass

from virmo_server.console.visit import Handler
from virmo_server.model import Role


@dataclass(frozen=True, slots=True)
class ConsolePage:
    """``path`` is below the console's prefix, as Starlette writes paths; without ``role`` nobody gets in."""

    method: str
    path: str
    role: Role
    handler: Handler
