"""All that the agent does with resources beside VM operations, started and stopped as one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from dom0_agent.hypervisor.interface import Hypervisor
from dom0_agent.resources.apply import Applied, ApplyChanges
from dom0_agent.resources.links import Links
from dom0_agent.resources.peripherals import Peripherals
from dom0_agent.resources.picture import Device
from dom0_agent.resources.sharing import Sharing
from dom0_agent.resources.sweep import Sweep
from dom0_agent.store.database import Database
from dom0_agent.store.vms import VmTable
from dom0_agent.vm.engine import VmEngine
from dom0_agent.vm.hints import Hints

if TYPE_CHECKING:
    from dom0_agent.config import AgentConfig

#: Seconds that a running ApplyChanges gets to end when the agent stops; what does not is undone at the next start.
STOP_DEADLINE = 20.0


class ResourceService:
    """Construct; ``start`` before the engine; ``stop`` before it stops."""

    def __init__(
        self,
        database: Database,
        hypervisor: Hypervisor,
        engine: VmEngine,
        sharing: Sharing,
        *,
        listener: Callable[[Applied], None],
        config: AgentConfig,
    ) -> None:
        self._hypervisor = hypervisor
        self._sharing = sharing
        self._hints = Hints()
        self.apply = ApplyChanges(database, engine.holds, sharing, listener)
        self._sweep = Sweep(sharing.enforcer, engine.holds, self._hints, config.vm.sweep_interval)
        self._links: Links | None = None
        self.peripherals = Peripherals(
            VmTable(database), hypervisor, config.vm.bridge, config.resources.peripherals, engine.holds
        )

    def device(self) -> Device:
        """What of this device can be shared out (R-064)."""
        return self._sharing.admission.device()

    def start(self) -> None:
        """Undo or report what a crash interrupted, then hold the shares of all VMs."""
        self.apply.start()
        self._links = Links(self._hints.hint)
        self._sweep.start()

    def stop(self) -> None:
        """Wait for what runs. VMs keep their shares."""
        self.apply.stop(STOP_DEADLINE)
        self._sweep.stop(STOP_DEADLINE)
        if self._links is not None:
            self._links.close()
