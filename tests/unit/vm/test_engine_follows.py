"""The engine follows what happens to domains: guests' doings, people at the console, reboots of dom0."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest

from dom0_agent.hypervisor.interface import DomainState
from dom0_agent.hypervisor.sim.faults import Fault
from dom0_agent.vm import engine as engine_module
from dom0_agent.vm.model import Primitive, SuspendKind, VmState
from dom0_agent.vm.reconcile import PERSISTENCE, Finding
from dom0_agent.vm.steps import start
from tests.contract.support import Rig, SimBackend, domain_config, eventually
from tests.contract.truth import assert_truth

MakeEngine = Callable[..., Rig]


def sim(rig: Rig) -> SimBackend:
    """The simulator under an engine."""
    assert isinstance(rig.backend, SimBackend)
    return rig.backend


def is_up_again(rig: Rig, vmid: UUID, boot_id: str | None) -> bool:
    """Whether the guest speaks, in another boot than that."""
    domain = rig.hypervisor.find(vmid)
    return domain is not None and rig.hypervisor.guest_facts(vmid).boot_id not in (None, boot_id)


def reboot_and_wait(rig: Rig, vmid: UUID) -> None:
    """Let the guest reboot, and wait until it is up again, or down for good."""
    boot_id, _ = rig.beats(vmid)
    sim(rig).guest_ends(vmid, "reboot")
    eventually(
        lambda: rig.state(vmid) is VmState.POWERED_OFF or is_up_again(rig, vmid, boot_id), 10, "it is up again, or off"
    )


def test_a_guest_that_reboots_too_often_is_stopped_and_told(make_engine: MakeEngine) -> None:
    """Issue: a crash loop is stopped and reported."""
    rig = make_engine(reboot_limit=2, reboot_window=60.0)
    vmid = rig.running()
    for _ in range(2):
        reboot_and_wait(rig, vmid)
        assert rig.state(vmid) is VmState.RUNNING
    reboot_and_wait(rig, vmid)
    assert rig.state(vmid) is VmState.POWERED_OFF
    assert "too often" in (rig.record(vmid).last_error or "")
    assert rig.spontaneous() == [VmState.POWERED_OFF]
    assert_truth(rig)
    assert rig.do(vmid, Primitive.POWER_ON).ok, "the server may try again"


def test_reboots_long_ago_do_not_count(make_engine: MakeEngine) -> None:
    rig = make_engine(reboot_limit=1, reboot_window=0.001)
    vmid = rig.running()
    for _ in range(3):
        reboot_and_wait(rig, vmid)
    assert rig.state(vmid) is VmState.RUNNING


def test_a_crashed_guest_is_started_again_where_that_is_wanted(make_engine: MakeEngine) -> None:
    rig = make_engine(restart_after_crash=True, reboot_limit=1)
    vmid = rig.running()
    boot_id, _ = rig.beats(vmid)
    sim(rig).guest_ends(vmid, "crash")
    eventually(lambda: is_up_again(rig, vmid, boot_id), 10, "it boots again")
    assert rig.state(vmid) is VmState.RUNNING
    sim(rig).guest_ends(vmid, "crash")
    eventually(lambda: rig.state(vmid) is VmState.POWERED_OFF, 10, "the loop is stopped")


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What failed is tried again without much of a pause."""
    monkeypatch.setattr(start, "START_PAUSE", 0.05)


def test_a_restart_succeeds_though_the_toolstack_fails_twice(make_engine: MakeEngine, at_once: None) -> None:
    """R-012: after a boot of dom0 all VMs start at once, and a start may run into the toolstack's own time limits."""
    rig = make_engine()
    vmid = rig.running()
    boot_id, _ = rig.beats(vmid)
    sim(rig).faults.set(Fault("create", "fail", count=2))
    sim(rig).guest_ends(vmid, "reboot")
    eventually(lambda: is_up_again(rig, vmid, boot_id), 10, "it boots again")
    assert rig.state(vmid) is VmState.RUNNING
    assert rig.spontaneous() == []
    assert_truth(rig)


def test_power_off_ends_the_attempts_to_restart(make_engine: MakeEngine, caplog: pytest.LogCaptureFixture) -> None:
    """R-024: it does not wait for the next one."""
    rig = make_engine()
    vmid = rig.running()
    rig.beats(vmid)
    sim(rig).faults.set(Fault("create", "fail"))
    sim(rig).guest_ends(vmid, "reboot")
    eventually(lambda: "domain_not_started" in caplog.text, 10, "the first attempt fails")
    began = time.monotonic()
    assert rig.do(vmid, Primitive.POWER_OFF).ok
    assert time.monotonic() - began < start.START_PAUSE
    assert rig.state(vmid) is VmState.POWERED_OFF


def test_a_restart_that_fails_is_powered_off_and_told(make_engine: MakeEngine, at_once: None) -> None:
    rig = make_engine()
    vmid = rig.running()
    rig.beats(vmid)
    sim(rig).faults.set(Fault("create", "fail"))
    sim(rig).guest_ends(vmid, "reboot")
    eventually(lambda: rig.state(vmid) is VmState.POWERED_OFF, 5, "State follows")
    eventually(lambda: rig.spontaneous() == [VmState.POWERED_OFF], 5, "it is told")
    assert "Restart failed" in (rig.record(vmid).last_error or "")
    assert_truth(rig)


def test_foreign_domains_are_left_alone(make_engine: MakeEngine) -> None:
    rig = make_engine()
    foreign = domain_config(rig.backend)
    rig.hypervisor.create(foreign)
    rig.hypervisor.unpause(foreign.uuid)
    vmid = rig.running()
    assert rig.do(vmid, Primitive.DELETE).ok
    domain = rig.hypervisor.find(foreign.uuid)
    assert domain is not None
    assert domain.state is DomainState.RUNNING
    assert rig.engine.list() == ()


def test_a_vm_whose_domain_somebody_starts_by_hand_runs(make_engine: MakeEngine) -> None:
    rig = make_engine()
    vmid = rig.running()
    assert rig.do(vmid, Primitive.SUSPEND).ok
    rig.hypervisor.create(domain_config(rig.backend, vmid))
    rig.hypervisor.unpause(vmid)
    eventually(lambda: rig.state(vmid) is VmState.RUNNING, 5, "State follows")
    eventually(lambda: rig.spontaneous() == [VmState.RUNNING], 5, "it is told")
    assert_truth(rig)


def test_a_vm_whose_domain_somebody_pauses_is_suspended_and_can_be_resumed(make_engine: MakeEngine) -> None:
    """VirMO-C-002, R-017: a guest that does not execute is not Running; nobody else's unpausing is needed."""
    rig = make_engine()
    vmid = rig.running()
    boot_id, _ = rig.beats(vmid)
    rig.hypervisor.pause(vmid)
    eventually(lambda: rig.state(vmid) is VmState.SUSPENDED, 8, "State follows")
    eventually(lambda: rig.spontaneous() == [VmState.SUSPENDED], 5, "it is told")
    assert rig.record(vmid).suspend_kind is SuspendKind.PAUSE
    assert "paused by somebody else" in (rig.record(vmid).last_error or "")
    assert_truth(rig)
    assert rig.do(vmid, Primitive.RESUME).ok
    assert rig.beats(vmid)[0] == boot_id
    rig.hypervisor.pause(vmid)
    eventually(lambda: rig.state(vmid) is VmState.SUSPENDED, 8, "State follows")
    rig.hypervisor.unpause(vmid)
    eventually(lambda: rig.state(vmid) is VmState.RUNNING, 5, "State follows whoever unpauses, too")
    assert_truth(rig)


def test_a_vm_that_the_agent_itself_holds_stays_running(make_engine: MakeEngine) -> None:
    """LAWMO's lock pauses the domain of a VM that was not suspended."""
    rig = make_engine(others_pause=True)
    vmid = rig.running()
    rig.hypervisor.pause(vmid)
    time.sleep(PERSISTENCE[Finding.PAUSED] + 1.5)
    assert rig.state(vmid) is VmState.RUNNING
    assert rig.spontaneous() == []


def reboot_dom0(rig: Rig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """All domains are gone, and the host's boot id is another one."""
    rig.stop()
    for domain in sim(rig).hypervisor.domains():
        sim(rig).destroy_by_hand(domain.uuid)
    boot_id = tmp_path / "boot_id"
    boot_id.write_text("another-boot\n")
    monkeypatch.setattr(engine_module, "HOST_BOOT_ID", boot_id)


def test_after_a_reboot_of_dom0_running_vms_start_again_and_suspended_ones_wait(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Issue: running VMs start again after a dom0 reboot, suspended ones stay suspended and can be resumed."""
    first = make_engine()
    running, suspended, off = first.running(), first.running(), first.running()
    old_boot, _ = first.beats(running)
    saved_boot, _ = first.beats(suspended)
    assert first.do(suspended, Primitive.SUSPEND).ok
    assert first.do(off, Primitive.POWER_OFF).ok
    reboot_dom0(first, monkeypatch, tmp_path)
    rig = make_engine()
    eventually(lambda: rig.hypervisor.find(running) is not None, 10, "it starts again")
    assert rig.beats(running)[0] != old_boot
    assert [rig.state(vmid) for vmid in (running, suspended, off)] == [
        VmState.RUNNING,
        VmState.SUSPENDED,
        VmState.POWERED_OFF,
    ]
    assert rig.spontaneous() == []
    assert rig.do(suspended, Primitive.RESUME).ok
    assert rig.beats(suspended)[0] == saved_boot
    assert_truth(rig)


def test_vms_can_be_left_off_after_a_reboot_of_dom0(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = make_engine()
    vmid = first.running()
    reboot_dom0(first, monkeypatch, tmp_path)
    rig = make_engine(start_after_reboot=False)
    eventually(lambda: rig.state(vmid) is VmState.POWERED_OFF, 10, "State follows")
    assert "dom0 was restarted" in (rig.record(vmid).last_error or "")
    assert rig.spontaneous() == [VmState.POWERED_OFF]


def test_where_nothing_can_be_saved_suspend_pauses_and_says_so(make_engine: MakeEngine) -> None:
    """A-10: Arm; pauses the domain, keeps its allocation, and says so."""
    rig = make_engine(can_save=False)
    vmid = rig.running()
    boot_id, beats = rig.beats(vmid)
    assert rig.do(vmid, Primitive.SUSPEND).ok
    assert (rig.state(vmid), rig.record(vmid).suspend_kind) == (VmState.SUSPENDED, SuspendKind.PAUSE)
    domain = rig.hypervisor.find(vmid)
    assert domain is not None
    assert domain.state is DomainState.PAUSED
    assert rig.do(vmid, Primitive.RESUME).ok
    assert rig.record(vmid).suspend_kind is None
    eventually(lambda: rig.beats(vmid)[1] > beats, 5, "it goes on")
    assert rig.beats(vmid)[0] == boot_id
    assert rig.do(vmid, Primitive.SUSPEND).ok
    again = make_engine()
    assert again.record(vmid).suspend_kind is SuspendKind.PAUSE
    assert again.do(vmid, Primitive.RESUME).ok
    assert again.beats(vmid)[0] == boot_id


def test_a_paused_vm_is_lost_with_dom0_and_says_so(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = make_engine(can_save=False)
    vmid = first.running()
    assert first.do(vmid, Primitive.SUSPEND).ok
    reboot_dom0(first, monkeypatch, tmp_path)
    rig = make_engine()
    eventually(lambda: rig.state(vmid) is VmState.POWERED_OFF, 10, "State follows")
    assert rig.spontaneous() == [VmState.POWERED_OFF]
    assert rig.do(vmid, Primitive.POWER_ON).ok


def test_files_of_no_vm_are_removed_at_the_start(make_engine: MakeEngine) -> None:
    first = make_engine()
    vmid = first.running()
    stray = first.state_dir / "vms" / "11111111-2222-4333-8444-555555555555"
    stray.mkdir()
    (first.state_dir / "trash" / "11111111-2222-4333-8444-666666666666").mkdir()
    rig = make_engine()
    eventually(lambda: not stray.exists(), 5, "it is removed")
    assert_truth(rig)
    assert rig.state(vmid) is VmState.RUNNING


def test_a_saved_state_that_a_power_cut_brought_back_is_removed_at_the_start(make_engine: MakeEngine) -> None:
    """Its removal was not on storage yet when the power went: nothing needs it, and it is as large as the VM's RAM."""
    first = make_engine()
    running, suspended = first.running(), first.running()
    assert first.do(suspended, Primitive.SUSPEND).ok
    saved = first.state_dir / "vms" / str(running) / "saved"
    for path in (saved, saved.with_name("saved.partial")):
        path.write_bytes(b"stale")
    rig = make_engine()
    assert not saved.exists()
    assert not saved.with_name("saved.partial").exists()
    assert_truth(rig)
    assert rig.do(suspended, Primitive.RESUME).ok
