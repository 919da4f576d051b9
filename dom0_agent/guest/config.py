"""Settings of the channels to guests."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from dom0_agent.config_schema import setting


@dataclass(frozen=True, slots=True)
class BudgetConfig:
    """What a guest may send unasked before its channel is closed. Answers to our requests do not count."""

    window: float = setting("seconds that the other settings are for", 10.0, minimum=1)
    bytes: int = setting("bytes in a window", 4 << 20, minimum=65536)
    messages: int = setting("messages in a window, and changes of its XenStore nodes", 2000, minimum=100)
    nodes: int = setting("values in messages' fields in a window", 50_000, minimum=1000)


@dataclass(frozen=True, slots=True)
class GuestConfig:
    """Channels to the shims inside guests."""

    transport: Literal["auto", "vchan", "xenstore"] = setting(
        "how to talk to shims; auto: vchan where guest and dom0 have libxenvchan, else XenStore", "auto"
    )
    budget: BudgetConfig = field(default_factory=BudgetConfig, metadata={"doc": "what a guest may send"})
    penalty_first: float = setting(
        "seconds before a guest that broke the rules may come again; doubles", 5.0, minimum=0
    )
    penalty_max: float = setting("upper end of that, in seconds", 600.0, minimum=1)
