"""What an operator can set about the hypervisor: the ``hypervisor:`` section, and what is made of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dom0_agent.config_schema import setting
from dom0_agent.hypervisor.interface import Hypervisor


@dataclass(frozen=True, slots=True)
class HypervisorConfig:
    """Settings below ``hypervisor:``."""

    backend: Literal["xl", "sim"] = setting("xl: real Xen; sim: domains are processes, for development", "xl")


def open_hypervisor(config: HypervisorConfig, state_dir: Path) -> Hypervisor:
    """The hypervisor that the configuration names; its files lie below ``state_dir``."""
    if config.backend == "sim":
        from dom0_agent.hypervisor.sim.toolstack import open_sim

        return open_sim(state_dir / "sim")
    from dom0_agent.hypervisor.xl import open_xl

    return open_xl(state_dir / "run")
