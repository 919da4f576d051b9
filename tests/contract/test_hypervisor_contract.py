"""What every hypervisor backend must do, on the simulator and on real Xen alike."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest

from dom0_agent.guest.facts import NO_FACTS
from dom0_agent.hypervisor.interface import (
    DomainConfig,
    DomainState,
    HypervisorError,
    NoSuchDomain,
    NotCapable,
    OutOfMemory,
)
from tests.contract.support import MIB, Backend, domain_config, eventually


def test_the_host_describes_itself(backend: Backend) -> None:
    host = backend.hypervisor.host()
    assert host.cpus >= 1
    assert 0 < host.free_memory <= host.total_memory
    assert host.scheduler in {"credit", "credit2", "rtds", "null"}
    assert host.version[0].isdigit()


def test_a_created_domain_is_paused_and_found_by_its_uuid(backend: Backend) -> None:
    config = domain_config(backend)
    made = backend.hypervisor.create(config)
    assert made.uuid == config.uuid
    assert made.name == config.name
    assert made.state is DomainState.PAUSED
    assert abs(made.memory - config.memory) <= 4 * MIB
    assert made in backend.hypervisor.domains()
    found = backend.hypervisor.find(config.uuid)
    assert found is not None
    assert found.domid == made.domid


def test_dom0_is_not_among_the_domains(backend: Backend) -> None:
    assert all(domain.domid != 0 for domain in backend.hypervisor.domains())


def test_a_paused_domain_does_not_run_until_it_is_unpaused(backend: Backend) -> None:
    """R-017."""
    hypervisor, config = backend.hypervisor, domain_config(backend)
    before = hypervisor.create(config).cpu_seconds
    again = hypervisor.find(config.uuid)
    assert again is not None
    assert again.cpu_seconds == before
    assert hypervisor.guest_facts(config.uuid) == NO_FACTS
    hypervisor.unpause(config.uuid)
    hypervisor.unpause(config.uuid)  # level-triggered: once more is no error
    running = hypervisor.find(config.uuid)
    assert running is not None
    assert running.state is DomainState.RUNNING


def test_pause_stops_the_guest_and_unpause_lets_it_go_on(backend: Backend, guest: DomainConfig) -> None:
    hypervisor, config = backend.hypervisor, guest
    hypervisor.pause(config.uuid)
    hypervisor.pause(config.uuid)  # level-triggered: once more is no error
    stopped = hypervisor.find(config.uuid)
    assert stopped is not None
    assert stopped.state is DomainState.PAUSED
    boot_id, beats = hypervisor.guest_facts(config.uuid).boot_id, hypervisor.guest_facts(config.uuid).beats or 0
    hypervisor.unpause(config.uuid)
    eventually(lambda: (hypervisor.guest_facts(config.uuid).beats or 0) > beats, backend.patience, "it goes on")
    assert hypervisor.guest_facts(config.uuid).boot_id == boot_id


def test_a_guest_that_is_asked_powers_off_and_its_domain_stays_until_destroyed(
    backend: Backend, guest: DomainConfig
) -> None:
    hypervisor, config = backend.hypervisor, guest
    hypervisor.request_shutdown(config.uuid)

    def ended() -> bool:
        domain = hypervisor.find(config.uuid)
        return domain is not None and domain.state is DomainState.SHUTDOWN

    eventually(ended, backend.patience, "the guest powers off")
    domain = hypervisor.find(config.uuid)
    assert domain is not None
    assert domain.shutdown_reason == "poweroff"
    hypervisor.destroy(config.uuid)
    assert hypervisor.find(config.uuid) is None


@pytest.mark.parametrize("how", ["reboot", "crash"])
def test_the_reason_of_a_guests_end_is_told(backend: Backend, guest: DomainConfig, how: str) -> None:
    hypervisor, config = backend.hypervisor, guest
    told = backend.told_crash if how == "crash" else how
    state = DomainState.CRASHED if told == "crash" else DomainState.SHUTDOWN
    backend.guest_ends(config.uuid, how)

    def ended() -> bool:
        domain = hypervisor.find(config.uuid)
        return domain is not None and domain.state is state and domain.shutdown_reason == told

    eventually(ended, backend.patience, f"the domain is seen as ended by {how}")


def test_save_frees_the_memory_and_restore_continues_the_guest(
    backend: Backend, guest: DomainConfig, tmp_path: Path
) -> None:
    """R-018, R-019: the execution state is saved, resources are released and reallocated; or it says that it cannot."""
    hypervisor, config, path = backend.hypervisor, guest, tmp_path / "saved"
    if not hypervisor.host().can_save:
        with pytest.raises(NotCapable):
            hypervisor.save(config.uuid, path)
        domain = hypervisor.find(config.uuid)
        assert domain is not None
        assert domain.state is DomainState.RUNNING
        assert not path.exists()
        return
    before = hypervisor.guest_facts(config.uuid)
    free = hypervisor.host().free_memory
    hypervisor.save(config.uuid, path)
    assert hypervisor.find(config.uuid) is None
    assert hypervisor.host().free_memory >= free + config.memory - 8 * MIB
    assert path.stat().st_size > 0
    assert [file.name for file in tmp_path.glob("saved*")] == ["saved"]
    restored = hypervisor.restore(path, config)
    assert restored.state is DomainState.PAUSED
    assert path.exists()
    hypervisor.unpause(config.uuid)
    eventually(
        lambda: (hypervisor.guest_facts(config.uuid).beats or 0) > (before.beats or 0),
        backend.patience,
        "the counter goes on",
    )
    after = hypervisor.guest_facts(config.uuid)
    assert after.boot_id == before.boot_id
    assert (after.beats or 0) < (before.beats or 0) + 1000


def test_a_guest_can_be_saved_as_soon_as_its_domain_runs(backend: Backend, tmp_path: Path) -> None:
    """R-016: Suspend right after PowerOn; its kernel has not come up then. It does after the restore."""
    hypervisor, config, path = backend.hypervisor, domain_config(backend), tmp_path / "saved"
    hypervisor.create(config)
    hypervisor.unpause(config.uuid)
    if hypervisor.host().can_save:
        hypervisor.save(config.uuid, path)
        assert hypervisor.find(config.uuid) is None
        hypervisor.restore(path, config)
    else:
        hypervisor.pause(config.uuid)
    hypervisor.unpause(config.uuid)
    eventually(lambda: hypervisor.guest_facts(config.uuid) != NO_FACTS, backend.patience, "the guest comes up")


def test_a_save_that_cannot_be_written_leaves_the_guest_running(
    backend: Backend, guest: DomainConfig, tmp_path: Path
) -> None:
    """R-011, R-012."""
    hypervisor, config = backend.hypervisor, guest
    before = hypervisor.guest_facts(config.uuid)
    with pytest.raises(HypervisorError, match=str(config.uuid) if hypervisor.host().can_save else "cannot save"):
        hypervisor.save(config.uuid, tmp_path / "no such directory" / "saved")
    domain = hypervisor.find(config.uuid)
    assert domain is not None
    assert domain.state is DomainState.RUNNING
    eventually(
        lambda: (hypervisor.guest_facts(config.uuid).beats or 0) > (before.beats or 0), backend.patience, "it beats on"
    )


def test_a_restore_from_rubbish_fails_and_leaves_no_domain(backend: Backend, tmp_path: Path) -> None:
    hypervisor, config, path = backend.hypervisor, domain_config(backend), tmp_path / "saved"
    path.write_bytes(os.urandom(5000))
    free = hypervisor.host().free_memory
    with pytest.raises(HypervisorError):
        hypervisor.restore(path, config)
    assert hypervisor.find(config.uuid) is None
    eventually(lambda: hypervisor.host().free_memory >= free - 4 * MIB, 10, "the memory is free again")
    assert path.exists()


def test_a_kernel_that_is_not_there_fails_and_leaves_no_domain(backend: Backend, tmp_path: Path) -> None:
    import dataclasses

    config = dataclasses.replace(domain_config(backend), kernel=tmp_path / "nothing")
    with pytest.raises(HypervisorError, match=str(config.uuid)):
        backend.hypervisor.create(config)
    assert backend.hypervisor.find(config.uuid) is None


def test_too_large_a_domain_is_out_of_memory_and_leaves_nothing(backend: Backend) -> None:
    hypervisor = backend.hypervisor
    host = hypervisor.host()
    config = domain_config(backend, memory=host.total_memory)
    with pytest.raises(OutOfMemory, match="MiB"):
        hypervisor.create(config)
    assert hypervisor.find(config.uuid) is None
    assert hypervisor.host().free_memory >= host.free_memory - 4 * MIB


def test_the_same_uuid_twice_is_refused_and_the_first_lives_on(backend: Backend) -> None:
    config = domain_config(backend)
    first = backend.hypervisor.create(config)
    with pytest.raises(HypervisorError, match="already there"):
        backend.hypervisor.create(config)
    found = backend.hypervisor.find(config.uuid)
    assert found is not None
    assert found.domid == first.domid


def test_destroy_is_immediate_and_repeatable(backend: Backend) -> None:
    hypervisor, config = backend.hypervisor, domain_config(backend)
    free = hypervisor.host().free_memory
    hypervisor.create(config)
    hypervisor.destroy(config.uuid)
    assert hypervisor.find(config.uuid) is None
    hypervisor.destroy(config.uuid)
    eventually(lambda: hypervisor.host().free_memory >= free - 4 * MIB, 10, "the memory is free again")


def test_calls_on_no_domain_say_so(backend: Backend, tmp_path: Path) -> None:
    hypervisor, nobody = backend.hypervisor, uuid.uuid4()
    assert hypervisor.find(nobody) is None
    for call in (hypervisor.pause, hypervisor.unpause, hypervisor.request_shutdown, hypervisor.guest_facts):
        with pytest.raises(NoSuchDomain, match=str(nobody)):
            call(nobody)
    can_save = hypervisor.host().can_save
    with pytest.raises(NoSuchDomain if can_save else NotCapable):
        hypervisor.save(nobody, tmp_path / "saved")
    with pytest.raises(HypervisorError, match="no saved state" if can_save else "cannot save"):
        hypervisor.restore(tmp_path / "saved", domain_config(backend, nobody))


def test_hints_come_when_a_domain_ends_by_itself_and_stop_after_unsubscribing(
    backend: Backend, guest: DomainConfig
) -> None:
    hypervisor = backend.hypervisor
    hints: list[None] = []
    unsubscribe = hypervisor.subscribe(lambda: hints.append(None))
    built = domain_config(backend)
    before = len(hints)
    hypervisor.create(built)
    eventually(lambda: len(hints) > before, 10, "a hint comes for a new domain")
    seen = len(hints)
    backend.guest_ends(guest.uuid, "poweroff")
    eventually(lambda: len(hints) > seen, backend.patience, "a hint comes for one that ends")
    unsubscribe()
    seen = len(hints)
    backend.destroy_by_hand(built.uuid)
    eventually(lambda: hypervisor.find(built.uuid) is None, 10, "it is gone")
    assert len(hints) == seen


def test_domains_survive_the_agent_and_are_found_again(backend: Backend, guest: DomainConfig) -> None:
    """A-56."""
    made = backend.hypervisor.find(guest.uuid)
    assert made is not None
    boot_id = backend.hypervisor.guest_facts(guest.uuid).boot_id
    second = backend.reopen()
    found = second.find(guest.uuid)
    assert found is not None
    assert found.domid == made.domid
    eventually(lambda: second.guest_facts(guest.uuid).boot_id == boot_id, backend.patience, "the second hears it too")


def test_hostile_text_on_the_command_line_stays_one_argument(backend: Backend) -> None:
    """No text can break out of the configuration file: the domain has our name and our memory, not the text's."""
    import dataclasses

    plain = domain_config(backend)
    nasty = plain.cmdline + ' x="y" \'z\' \\ \\" ; name = "evil" ; memory = 9 #'
    config = dataclasses.replace(plain, cmdline=nasty)
    made = backend.hypervisor.create(config)
    assert made.name == config.name
    assert made.memory > 9 * MIB


@pytest.mark.parametrize("text", ["a\nmemory = 9", "a\0b", "\u00e4"])
def test_text_that_xen_cannot_be_told_is_refused(backend: Backend, text: str) -> None:
    import dataclasses

    config = dataclasses.replace(domain_config(backend), cmdline=text)
    with pytest.raises(HypervisorError, match="printable ASCII"):
        backend.hypervisor.create(config)
    assert backend.hypervisor.find(config.uuid) is None
