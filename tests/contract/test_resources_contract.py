"""What every hypervisor owes to those who share the machine out: set, and read back. On the simulator and on Xen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dom0_agent.hypervisor.interface import Disk, DomainConfig, HypervisorError, NoSuchDomain, OutOfMemory
from dom0_agent.hypervisor.resources import DOM0, Scheduling
from tests.contract.support import MIB, Backend, domain_config, eventually


def no_progress(reached: int, wanted: int) -> None:
    """Nobody is told."""


def up(backend: Backend, config: DomainConfig) -> DomainConfig:
    """A guest that runs, with its drivers."""
    backend.kept = None
    backend.hypervisor.create(config)
    backend.hypervisor.unpause(config.uuid)
    eventually(lambda: bool(backend.hypervisor.guest_facts(config.uuid).beats), backend.patience, "the guest is up")
    return config


def test_weight_and_cap_are_set_and_told(backend: Backend, guest: DomainConfig) -> None:
    """R-049: what CPU is made of."""
    resources = backend.hypervisor.resources
    most = 100 * resources.vcpus(guest.uuid)[1]
    for wanted in (Scheduling(700, 40), Scheduling(1, 0), Scheduling(65535, most)):
        resources.set_scheduling(guest.uuid, wanted)
        assert resources.scheduling(guest.uuid) == wanted
    with pytest.raises(HypervisorError, match="built with"):
        resources.set_scheduling(guest.uuid, Scheduling(700, most + 1))
    assert resources.scheduling(guest.uuid) == wanted
    resources.set_scheduling(guest.uuid, Scheduling(256, 0))


def test_dom0_has_a_weight_too(backend: Backend) -> None:
    resources = backend.hypervisor.resources
    resources.set_scheduling(DOM0, Scheduling(4000, 0))
    assert resources.scheduling(DOM0) == Scheduling(4000, 0)


def test_vcpus_go_offline_and_online(backend: Backend) -> None:
    """A domain is built with more vCPUs than are online."""
    config = up(backend, replace(domain_config(backend), vcpus=1, max_vcpus=2))
    resources, uuid = backend.hypervisor.resources, config.uuid
    assert resources.vcpus(uuid) == (1, 2)
    resources.set_vcpus(uuid, 2)
    assert resources.vcpus(uuid) == (2, 2)
    resources.set_vcpus(uuid, 1)
    assert resources.vcpus(uuid) == (1, 2)
    with pytest.raises(HypervisorError, match="built with 2"):
        resources.set_vcpus(uuid, 3)


def test_memory_goes_down_and_up(backend: Backend) -> None:
    """R-049: a balloon reaches its target, and what is freed is there for others."""
    config = up(backend, domain_config(backend))
    resources, uuid = backend.hypervisor.resources, config.uuid
    before, free = resources.memory(uuid), backend.hypervisor.host().free_memory
    smaller = config.memory - 24 * MIB
    steps: list[tuple[int, int]] = []
    resources.set_memory(uuid, smaller, backend.patience, lambda reached, wanted: steps.append((reached, wanted)))
    assert steps
    assert all(wanted == smaller for _, wanted in steps)
    eventually(lambda: backend.hypervisor.host().free_memory >= free + 20 * MIB, backend.patience, "memory is free")
    resources.set_memory(uuid, config.memory, backend.patience, no_progress)
    assert abs(resources.memory(uuid).target - before.target) <= MIB


def test_growth_needs_memory_that_is_there(backend: Backend) -> None:
    """R-012: nothing has changed when it is refused."""
    config = up(backend, domain_config(backend))
    resources, uuid = backend.hypervisor.resources, config.uuid
    before = resources.memory(uuid)
    with pytest.raises(OutOfMemory, match="MiB"):
        resources.set_memory(uuid, backend.hypervisor.host().total_memory, backend.patience, no_progress)
    assert resources.memory(uuid) == before


def test_a_disk_grows_under_its_guest(backend: Backend, tmp_path: Path) -> None:
    """R-049."""
    file = tmp_path / "data.raw"
    file.write_bytes(bytes(MIB))
    config = up(backend, replace(domain_config(backend), disks=(Disk(file, "xvdb"),)))
    resources, uuid = backend.hypervisor.resources, config.uuid
    assert resources.disk_size(uuid, "xvdb") == MIB
    with file.open("r+b") as opened:
        opened.truncate(3 * MIB)
    resources.resize_disk(uuid, "xvdb", 3 * MIB)
    assert resources.disk_size(uuid, "xvdb") == 3 * MIB
    with pytest.raises(HypervisorError, match="xvdc"):
        resources.resize_disk(uuid, "xvdc", MIB)


def test_a_disk_comes_and_goes(backend: Backend, tmp_path: Path) -> None:
    """HLF-06: a device is really gone, and comes back."""
    file = tmp_path / "data.raw"
    file.write_bytes(bytes(MIB))
    disk = Disk(file, "xvdb")
    config = up(backend, replace(domain_config(backend), disks=(disk,)))
    resources, uuid = backend.hypervisor.resources, config.uuid
    assert resources.attached(uuid) == {"xvdb"}
    resources.detach(uuid, disk)
    resources.detach(uuid, disk)
    assert resources.attached(uuid) == frozenset()
    resources.attach(uuid, disk)
    resources.attach(uuid, disk)
    assert resources.attached(uuid) == {"xvdb"}


def test_who_is_not_there_gets_nothing(backend: Backend) -> None:
    uuid = domain_config(backend).uuid
    with pytest.raises(NoSuchDomain):
        backend.hypervisor.resources.set_scheduling(uuid, Scheduling(256, 0))
    with pytest.raises(NoSuchDomain):
        backend.hypervisor.resources.set_memory(uuid, MIB, 1.0, no_progress)
