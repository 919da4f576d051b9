"""Puts the parts together that share the machine out: wiring only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dom0_agent.hypervisor.interface import Hypervisor
from dom0_agent.hypervisor.tool import ToolRunner, run_tool
from dom0_agent.resources.admission import Admission
from dom0_agent.resources.capacity import Capacity
from dom0_agent.resources.config import ResourcesConfig
from dom0_agent.resources.enforcer import Enforcer
from dom0_agent.resources.network import Shaper
from dom0_agent.resources.storage import DataDisks
from dom0_agent.resources.tc import Tc
from dom0_agent.store.database import Database
from dom0_agent.store.vms import VmTable
from dom0_agent.vm.config import VmConfig
from dom0_agent.vm.files import VmFiles


@dataclass(frozen=True, slots=True)
class Sharing:
    """What VM operations, ApplyChanges and the views work with."""

    enforcer: Enforcer
    admission: Admission
    shaper: Shaper
    files: VmFiles
    config: ResourcesConfig


def open_sharing(
    database: Database,
    hypervisor: Hypervisor,
    vm_config: VmConfig,
    config: ResourcesConfig,
    state_dir: Path,
    *,
    run: ToolRunner = run_tool,
) -> Sharing:
    """All parts over this dom0; ``run`` runs tc and ip."""
    vms = VmTable(database)
    files = VmFiles(state_dir, reserve=vm_config.storage_reserve, delete_policy=vm_config.delete_policy)
    shaper = Shaper(Tc(run))
    enforcer = Enforcer(hypervisor, shaper, DataDisks(hypervisor, files), config, vm_config.bridge)
    admission = Admission(vms, Capacity(hypervisor, vms, state_dir, vm_config.storage_reserve))
    return Sharing(enforcer, admission, shaper, files, config)
