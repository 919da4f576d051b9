"""The backend under test; see ``support``. Each test leaves no domain behind, or fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dom0_agent.hypervisor.interface import DomainConfig, DomainState
from dom0_agent.store.database import Database
from dom0_agent.vm.config import VmConfig
from tests.contract.support import Backend, Rig, domain_config, eventually, open_backend


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    """A machine for a module's tests: on real Xen each boot of a guest takes a while."""
    opened = open_backend(tmp_path_factory.mktemp("machine"))
    yield opened
    opened.close()


@pytest.fixture
def backend(machine: Backend) -> Iterator[Backend]:
    """A machine with no domains of ours but, perhaps, the one that :func:`guest` keeps running."""
    yield machine
    machine.clean()


@pytest.fixture
def guest(backend: Backend) -> DomainConfig:
    """A running guest whose shim has spoken. One that the test before left running is used again."""
    hypervisor = backend.hypervisor
    config = backend.kept or domain_config(backend)
    backend.kept = config
    domain = hypervisor.find(config.uuid)
    if domain is None or domain.state is not DomainState.RUNNING:
        hypervisor.destroy(config.uuid)
        hypervisor.create(config)
        hypervisor.unpause(config.uuid)
    eventually(lambda: bool(hypervisor.guest_facts(config.uuid).beats), backend.patience, "the guest is up")
    return config


@pytest.fixture
def make_rig(backend: Backend, tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    """Makes engines over the backend, each with the same database and files, as restarted agents have."""
    rigs: list[Rig] = []

    def make(**config: object) -> Rig:
        settings: dict[str, object] = {"shutdown_wait": backend.patience, "storage_reserve": 0, **config}
        backend.kept = None  # stories count memory
        hypervisor = backend.hypervisor if not rigs else backend.reopen()
        rig = Rig(backend, hypervisor, Database(tmp_path / "agent.db"), VmConfig(**settings), tmp_path)  # type: ignore[arg-type]
        rigs.append(rig)
        return rig

    yield make
    for rig in rigs:
        rig.stop()


@pytest.fixture
def rig(make_rig: Callable[..., Rig]) -> Rig:
    """A started engine."""
    started = make_rig()
    started.engine.start()
    return started
