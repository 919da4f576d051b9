"""Read-back: a tool that says yes is believed only after a look; what a failed call left is cleared away."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast
from uuid import UUID, uuid4

import pytest

from dom0_agent.guest.facts import NO_FACTS
from dom0_agent.guest.source import ChannelSource
from dom0_agent.hypervisor.interface import (
    DomainConfig,
    DomainInfo,
    DomainState,
    DomainType,
    GuestFacts,
    HostInfo,
    HypervisorError,
    OutOfMemory,
)
from dom0_agent.hypervisor.readback import ReadBackHypervisor, adopt_saved, discard_saved, overhead
from dom0_agent.hypervisor.readback_resources import RawResources

MIB = 1 << 20


def config(memory: int = 100 * MIB) -> DomainConfig:
    """A domain."""
    uuid = uuid4()
    return DomainConfig(uuid, f"virmo-{uuid}", DomainType.PV, memory, memory, 1, 1)


class Toolstack:
    """A machine in memory. ``script`` replaces what a call does."""

    def __init__(self, free: int = 1024 * MIB) -> None:
        self.free = free
        self.table: dict[UUID, DomainInfo] = {}
        self.script: dict[str, Callable[[], None]] = {}
        self.resources = cast(RawResources, None)  # these tests share nothing out

    def host(self) -> HostInfo:
        used = sum(domain.memory for domain in self.table.values())
        return HostInfo("4.17", "credit2", 2, 4096 * MIB, self.free - used, can_save=True)

    def can_save(self) -> bool:
        return True

    def domains(self) -> tuple[DomainInfo, ...]:
        return tuple(self.table.values())

    def create(self, config: DomainConfig) -> None:
        self._run("create", lambda: self._put(config, DomainState.PAUSED))

    def restore(self, path: Path, config: DomainConfig) -> None:
        self._run("restore", lambda: self._put(config, DomainState.PAUSED))

    def unpause(self, domain: DomainInfo) -> None:
        self._run("unpause", lambda: self._set(domain, DomainState.RUNNING))

    def pause(self, domain: DomainInfo) -> None:
        self._run("pause", lambda: self._set(domain, DomainState.PAUSED))

    def request_shutdown(self, domain: DomainInfo) -> None:
        self._run("request_shutdown", lambda: None)

    def destroy(self, domain: DomainInfo) -> None:
        self._run("destroy", lambda: self._drop(domain))

    def save(self, domain: DomainInfo, path: Path) -> None:
        def effect() -> None:
            path.write_bytes(b"state")
            self._drop(domain)

        self._run("save", effect)

    def guest_facts(self, domain: DomainInfo) -> GuestFacts:
        return NO_FACTS

    def channels(self) -> ChannelSource:
        raise AssertionError("nobody asks for them here")

    def subscribe(self, hint: Callable[[], None]) -> Callable[[], None]:
        return lambda: None

    def close(self) -> None:
        self.table.clear()

    def _run(self, call: str, effect: Callable[[], None]) -> None:
        self.script.get(call, effect)()

    def _put(self, config: DomainConfig, state: DomainState) -> None:
        self.table[config.uuid] = DomainInfo(config.uuid, 1, config.name, state, config.memory, 1, 0.0)

    def _set(self, domain: DomainInfo, state: DomainState) -> None:
        self.table[domain.uuid] = replace(domain, state=state)

    def _drop(self, domain: DomainInfo) -> None:
        self.table.pop(domain.uuid, None)


@pytest.fixture
def machine() -> Toolstack:
    return Toolstack()


@pytest.fixture
def hypervisor(machine: Toolstack) -> ReadBackHypervisor:
    return ReadBackHypervisor(machine, settle=0.2, teardown=0.2)


@pytest.mark.parametrize("call", ["create", "unpause", "pause", "destroy", "save", "restore"])
def test_a_tool_that_lies_is_found_out(
    call: str, machine: Toolstack, hypervisor: ReadBackHypervisor, tmp_path: Path
) -> None:
    domain, path = config(), tmp_path / "saved"
    path.write_bytes(b"state")
    if call not in ("create", "restore"):
        hypervisor.create(domain)
    if call in ("pause", "save"):
        hypervisor.unpause(domain.uuid)
    calls: dict[str, Callable[[], object]] = {
        "create": lambda: hypervisor.create(domain),
        "restore": lambda: hypervisor.restore(path, domain),
        "unpause": lambda: hypervisor.unpause(domain.uuid),
        "pause": lambda: hypervisor.pause(domain.uuid),
        "destroy": lambda: hypervisor.destroy(domain.uuid),
        "save": lambda: hypervisor.save(domain.uuid, tmp_path / "other"),
    }
    machine.script[call] = lambda: None
    with pytest.raises(HypervisorError, match=f"{call} of domain {domain.uuid}: the tool reported success"):
        calls[call]()


def test_a_create_that_starts_the_guest_is_an_error_and_is_undone(
    machine: Toolstack, hypervisor: ReadBackHypervisor
) -> None:
    domain = config()
    machine.script["create"] = lambda: machine._put(domain, DomainState.RUNNING)
    with pytest.raises(HypervisorError, match="should be paused, but is running"):
        hypervisor.create(domain)
    assert machine.table == {}


def test_a_create_that_fails_half_way_leaves_nothing(machine: Toolstack, hypervisor: ReadBackHypervisor) -> None:
    domain = config()

    def half() -> None:
        machine._put(domain, DomainState.PAUSED)
        raise HypervisorError("disk not found")

    machine.script["create"] = half
    with pytest.raises(HypervisorError, match="disk not found"):
        hypervisor.create(domain)
    assert machine.table == {}


def test_a_save_that_ends_the_domain_without_a_file_is_an_error(
    machine: Toolstack, hypervisor: ReadBackHypervisor, tmp_path: Path
) -> None:
    domain = config()
    hypervisor.create(domain)
    hypervisor.unpause(domain.uuid)
    machine.script["save"] = machine.table.clear
    with pytest.raises(HypervisorError, match="there is no file"):
        hypervisor.save(domain.uuid, tmp_path / "saved")


def test_a_failed_save_leaves_no_file(machine: Toolstack, hypervisor: ReadBackHypervisor, tmp_path: Path) -> None:
    domain = config()
    hypervisor.create(domain)
    hypervisor.unpause(domain.uuid)

    def half() -> None:
        (tmp_path / "saved.partial").write_bytes(b"half")
        raise HypervisorError("disk full")

    machine.script["save"] = half
    with pytest.raises(HypervisorError, match="disk full"):
        hypervisor.save(domain.uuid, tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []


def test_only_a_running_domain_is_saved(hypervisor: ReadBackHypervisor, tmp_path: Path) -> None:
    domain = config()
    hypervisor.create(domain)
    with pytest.raises(HypervisorError, match="it is paused"):
        hypervisor.save(domain.uuid, tmp_path / "saved")


def test_memory_counts_what_is_being_built(machine: Toolstack, hypervisor: ReadBackHypervisor) -> None:
    """Two VMs started at once must not both count the same free memory."""
    first, second = config(600 * MIB), config(600 * MIB)
    building, go_on = threading.Event(), threading.Event()
    errors: list[str] = []

    def slow() -> None:
        building.set()
        assert go_on.wait(5)
        machine.script.pop("create")
        machine._put(first, DomainState.PAUSED)

    def second_create() -> None:
        try:
            hypervisor.create(second)
        except OutOfMemory as error:
            errors.append(str(error))

    machine.script["create"] = slow
    one = threading.Thread(target=lambda: hypervisor.create(first))
    one.start()
    assert building.wait(5)
    two = threading.Thread(target=second_create)
    two.start()
    two.join(0.1)
    assert two.is_alive(), "it waits for the first one's end before it judges"
    go_on.set()
    one.join(5)
    two.join(5)
    assert set(machine.table) == {first.uuid}
    assert len(errors) == 1
    assert "needs" in errors[0]


def test_xens_own_overhead_counts(machine: Toolstack, hypervisor: ReadBackHypervisor) -> None:
    domain = config(1024 * MIB)
    assert overhead(domain) > 0
    with pytest.raises(OutOfMemory):
        hypervisor.create(domain)


def test_a_finished_save_can_be_adopted_and_discarded(tmp_path: Path) -> None:
    path = tmp_path / "saved"
    assert not adopt_saved(path)
    (tmp_path / "saved.partial").write_bytes(b"")
    assert not adopt_saved(path), "an empty file is no saved state"
    (tmp_path / "saved.partial").write_bytes(b"state")
    assert adopt_saved(path)
    assert [file.name for file in tmp_path.iterdir()] == ["saved"]
    assert adopt_saved(path)
    discard_saved(path)
    discard_saved(path)
    assert list(tmp_path.iterdir()) == []
