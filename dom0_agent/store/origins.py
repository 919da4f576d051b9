"""How the Exec that began an operation is written down, so that its end can be reported after a restart too."""

from __future__ import annotations

import json

from dom0_agent.operation import Origin


def dump_origin(origin: Origin | None) -> str | None:
    """The column value for ``origin``."""
    return None if origin is None else json.dumps([origin.server_id, origin.uri, origin.correlator])


def load_origin(text: str | None) -> Origin | None:
    """The origin that :func:`dump_origin` wrote."""
    return None if text is None else Origin(*json.loads(text))
