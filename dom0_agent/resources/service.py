"""All that the agent does with resources beside VM operations, started and stopped as one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from dom0_agent.hypervisor.interface import Hypervisor
from dom0_agent.resources.apply import Applied, ApplyChanges
from dom0_agent.resources.config import MetricsConfig
from dom0_agent.resources.links import Links
from dom0_agent.resources.metrics import MetricsServer, render
from dom0_agent.resources.peripherals import Peripherals
from dom0_agent.resources.picture import Device
from dom0_agent.resources.sharing import Sharing
from dom0_agent.resources.sweep import Sweep
from dom0_agent.resources.usage import Usage
from dom0_agent.store.database import Database
from dom0_agent.store.vms import VmTable
from dom0_agent.vm.engine import VmEngine
from dom0_agent.vm.hints import Hints

if TYPE_CHECKING:
    from dom0_agent.config import AgentConfig

logger = logging.getLogger(__name__)

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
        self._metrics_config = config.metrics
        self._metrics: MetricsServer | None = None
        self.usage = Usage(VmTable(database), hypervisor, sharing)
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
        if self._metrics_config.port:
            self._metrics = self._serve_metrics(self._metrics_config)

    def _serve_metrics(self, config: MetricsConfig) -> MetricsServer | None:
        """VMs are managed also when somebody else has the port."""
        usage = self.usage
        try:
            server = MetricsServer(config, lambda: render(usage.device(), usage.vms()))
        except OSError as error:
            logger.error("metrics_not_served address=%s port=%d error=%s", config.address, config.port, error)
            return None
        logger.info("metrics_served address=%s port=%d", config.address, server.port)
        return server

    def stop(self) -> None:
        """Wait for what runs. VMs keep their shares."""
        if self._metrics is not None:
            self._metrics.close()
        self.apply.stop(STOP_DEADLINE)
        self._sweep.stop(STOP_DEADLINE)
        if self._links is not None:
            self._links.close()
