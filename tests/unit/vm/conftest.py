"""Engines over the simulator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dom0_agent.hypervisor.sim.ledger import HostSettings
from dom0_agent.store.database import Database
from dom0_agent.vm.config import VmConfig
from tests.contract.support import Rig, SimBackend


@pytest.fixture
def make_engine(tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    """Makes started engines, one after the other, on one simulated machine; keywords are VmConfig's.

    ``can_save=False`` is a machine like Arm's; ``start=False`` leaves the start to the test;
    ``others_pause``: the agent pauses domains of running VMs for reasons of its own.
    """
    backends: list[SimBackend] = []
    rigs: list[Rig] = []

    def make(*, can_save: bool = True, start: bool = True, others_pause: bool = False, **config: object) -> Rig:
        for rig in rigs:
            rig.stop()
        if not backends:
            backends.append(SimBackend(tmp_path, HostSettings(beat_interval=0.05, can_save=can_save)))
        else:
            backends[0].reopen()
        settings: dict[str, object] = {"shutdown_wait": 5.0, "storage_reserve": 0, "sweep_interval": 0.5, **config}
        database = Database(tmp_path / "agent.db")
        vm_config = VmConfig(**settings)  # type: ignore[arg-type]
        rig = Rig(backends[0], backends[0].hypervisor, database, vm_config, tmp_path, others_pause=others_pause)
        rigs.append(rig)
        if start:
            rig.engine.start()
        return rig

    yield make
    for rig in rigs:
        rig.stop()
    for backend in backends:
        backend.close()
