"""Settings of what is done with guests: ``lawmo``, ``fumo`` and ``scomo`` in the agent's configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dom0_agent.config_schema import setting


@dataclass(frozen=True, slots=True)
class LawmoConfig:
    """Lock and wipe."""

    enforce: Literal["guest", "hypervisor"] = setting(
        "who holds a FullyLock: the guest, or the guest and then the hypervisor, which pauses the domain", "guest"
    )


@dataclass(frozen=True, slots=True)
class FumoConfig:
    """Firmware update."""

    health_timeout: float = setting(
        "seconds in which an updated guest's shim must come up; else the old system comes back", 300.0, minimum=1
    )


@dataclass(frozen=True, slots=True)
class ScomoConfig:
    """Software components."""

    max_package: int = setting("bytes of a package that is brought into a guest", 1 << 30, minimum=1024)
