"""The direct look through libxenctrl: believed only when it says what ``xl`` says."""

from __future__ import annotations

import ctypes
import struct
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from dom0_agent.hypervisor.interface import DomainInfo, DomainState, HostInfo, HypervisorError
from dom0_agent.hypervisor.libxc import Buffer, Libxc, open_libxc
from dom0_agent.hypervisor.xl import Xl
from dom0_agent.hypervisor.xl_output import parse_domains, parse_info
from tests.unit.hypervisor.test_xl_calls import FakeStore, FakeXl
from tests.unit.hypervisor.test_xl_output import HEADING, INFO, line

MIB = 1 << 20
UUID_1 = UUID("11111111-2222-4333-8444-555555555555")
HOST = parse_info(INFO, can_save=True)
DOM0 = DomainInfo(UUID(int=0), 0, "Domain-0", DomainState.RUNNING, 1024 * MIB, 2, 5.0)
GUEST = DomainInfo(UUID_1, 7, "virmo-x", DomainState.PAUSED, 256 * MIB, 1, 1.5)
PAUSED, SHUTDOWN, DYING = 8, 4, 1


class FakeLibrary:
    """A libxenctrl of Xen 4.17, whose structures are longer than what is read of them."""

    def __init__(self, free: int = HOST.free_memory) -> None:
        self.records: dict[int, bytes] = {}
        self.scheduling: dict[int, bytes] = {7: struct.pack("=2H", 256, 0)}
        self.free = free
        self.opened = 0
        self.fails = False

    def add(self, domain: DomainInfo, flags: int = 0) -> None:
        """Have a domain."""
        pages = domain.memory // 4096
        head = struct.pack("=HHI", domain.domid, 0, flags)
        sizes = struct.pack("=7Q", pages, pages, 0, 0, 0, 0, int(domain.cpu_seconds * 1e9))
        tail = struct.pack("=3I16s", domain.vcpus, 3, 0, domain.uuid.bytes)
        self.records[domain.domid] = head + sizes + tail + b"\xaa" * 40

    def xc_interface_open(self, logger: None, dombuild_logger: None, flags: int) -> int | None:
        self.opened += 1
        return None if self.fails else 1

    def xc_interface_close(self, handle: int) -> int:
        self.opened -= 1
        return 0

    def xc_domain_getinfolist(self, handle: int, first: int, count: int, buffer: Buffer) -> int:
        if self.fails:
            return -1
        domid = min((domid for domid in self.records if domid >= first), default=None)
        if domid is None:
            return 0
        ctypes.memmove(buffer, self.records[domid], len(self.records[domid]))
        return 1

    def xc_domain_pause(self, handle: int, domid: int) -> int:
        return self._change(domid, PAUSED)

    def xc_domain_unpause(self, handle: int, domid: int) -> int:
        return self._change(domid, 0)

    def xc_sched_credit2_domain_get(self, handle: int, domid: int, buffer: Buffer) -> int:
        if self.fails or domid not in self.scheduling:
            return -1
        ctypes.memmove(buffer, self.scheduling[domid], 4)
        return 0

    def xc_sched_credit2_domain_set(self, handle: int, domid: int, buffer: Buffer) -> int:
        self.scheduling[domid] = buffer.raw[:4]
        return -1 if self.fails else 0

    def xc_sched_credit_domain_get(self, handle: int, domid: int, buffer: Buffer) -> int:
        return -1  # no domain is under it

    def xc_sched_credit_domain_set(self, handle: int, domid: int, buffer: Buffer) -> int:
        return -1

    def _change(self, domid: int, flags: int) -> int:
        if self.fails or domid not in self.records:
            return -1
        raw = self.records[domid]
        self.records[domid] = raw[:4] + struct.pack("=I", flags) + raw[8:]
        return 0

    def xc_physinfo(self, handle: int, buffer: Buffer) -> int:
        total, free = HOST.total_memory // 4096, self.free // 4096
        raw = struct.pack("=10I6Q", 1, 1, 2, 1, 1, 0, 0, 0, 0, 0, total, free + 10, 0, 10, 0, 0)
        ctypes.memmove(buffer, raw, len(raw))
        return -1 if self.fails else 0


@pytest.fixture
def library() -> FakeLibrary:
    made = FakeLibrary()
    made.add(DOM0)
    made.add(GUEST, PAUSED)
    return made


def test_domains_are_read_with_all_their_numbers(library: FakeLibrary) -> None:
    assert Libxc(library).domains() == (replace(DOM0, name=""), replace(GUEST, name=""))


@pytest.mark.parametrize(
    ("flags", "state", "reason"),
    [
        (0, DomainState.RUNNING, None),
        (16, DomainState.RUNNING, None),
        (32, DomainState.RUNNING, None),
        (PAUSED, DomainState.PAUSED, None),
        (SHUTDOWN, DomainState.SHUTDOWN, "poweroff"),
        (SHUTDOWN | 1 << 16, DomainState.SHUTDOWN, "reboot"),
        (SHUTDOWN | 2 << 16, DomainState.SHUTDOWN, "suspend"),
        (SHUTDOWN | 3 << 16, DomainState.CRASHED, "crash"),
        (SHUTDOWN | PAUSED | 3 << 16, DomainState.CRASHED, "crash"),
        (SHUTDOWN | 99 << 16, DomainState.CRASHED, "crash"),
        (DYING | SHUTDOWN, DomainState.DYING, None),
        (3 << 16, DomainState.RUNNING, None),  # a reason without an end means nothing
    ],
)
def test_states_and_reasons(library: FakeLibrary, flags: int, state: DomainState, reason: str | None) -> None:
    library.add(GUEST, flags)
    found = Libxc(library).domains()[1]
    assert (found.state, found.shutdown_reason) == (state, reason)


def test_memory_leaves_out_what_is_promised(library: FakeLibrary) -> None:
    memory = Libxc(library).memory()
    assert (memory.total, memory.free) == (HOST.total_memory, HOST.free_memory)


def test_it_is_used_when_it_agrees_with_xl(library: FakeLibrary) -> None:
    libxc = open_libxc(HOST, (DOM0, GUEST), library)
    assert libxc is not None
    libxc.close()
    libxc.close()
    assert library.opened == 0
    with pytest.raises(HypervisorError, match="closed"):
        libxc.domains()


@pytest.mark.parametrize(
    "told_by_xl",
    [
        (replace(HOST, total_memory=1 << 30), (DOM0,)),
        (replace(HOST, free_memory=0), (DOM0,)),
        (HOST, (replace(DOM0, vcpus=8),)),
        (HOST, (replace(GUEST, uuid=UUID(int=1)),)),
        (HOST, (replace(GUEST, memory=1 << 40),)),
        (HOST, (replace(GUEST, domid=9),)),
    ],
)
def test_it_is_not_used_when_it_differs_from_xl(
    library: FakeLibrary, told_by_xl: tuple[HostInfo, tuple[DomainInfo, ...]], caplog: pytest.LogCaptureFixture
) -> None:
    assert open_libxc(*told_by_xl, library) is None
    assert "libxenctrl_not_used" in caplog.text
    assert library.opened == 0


def test_it_is_not_used_when_it_fails_or_is_not_there(library: FakeLibrary) -> None:
    library.fails = True
    assert open_libxc(HOST, (DOM0,), library) is None
    assert open_libxc(replace(HOST, version="0.0.1"), (DOM0,)) is None


def test_failures_are_errors(library: FakeLibrary) -> None:
    libxc = Libxc(library)
    library.fails = True
    with pytest.raises(HypervisorError):
        libxc.domains()
    with pytest.raises(HypervisorError):
        libxc.memory()
    with pytest.raises(HypervisorError, match="unpause domain 7"):
        libxc.unpause(7)


def test_xl_looks_directly_when_it_may(library: FakeLibrary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeXl()
    fake.answers["list"] = (0, HEADING + line("virmo-x", 7, "--p---"), "")
    library.add(replace(GUEST, vcpus=2), PAUSED)
    monkeypatch.setattr("dom0_agent.hypervisor.libxc.load_library", lambda version: library)
    xl = Xl(tmp_path / "run", fake, FakeStore({"/local/domain/7/name": b"virmo-x"}))
    xl.look_directly()
    calls = len(fake.calls)
    names = {domain.domid: domain.name for domain in xl.domains()}
    assert names == {0: "(null)", 7: "virmo-x"}
    library.free = 5 * MIB
    assert xl.host() == replace(HOST, free_memory=5 * MIB)
    assert len(fake.calls) == calls, "no process was started for it"
    assert parse_domains(fake.answers["list"][1])[0].uuid == UUID_1
    xl.close()
    assert library.opened == 0


@pytest.mark.parametrize("emulated", [False, True])
def test_pausing_is_a_hypercall_unless_a_device_model_must_be_told(
    emulated: bool, library: FakeLibrary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeXl()
    fake.answers["list"] = (0, HEADING, "")
    monkeypatch.setattr("dom0_agent.hypervisor.libxc.load_library", lambda version: library)
    xl = Xl(tmp_path / "run", fake, FakeStore({"/local/domain/0/device-model/7/state": b"running"} if emulated else {}))
    xl.look_directly()
    calls = len(fake.calls)
    xl.unpause(GUEST)
    assert (xl.domains()[1].state is DomainState.RUNNING) is not emulated
    xl.pause(GUEST)
    assert [call[1] for call in fake.calls[calls:]] == (["unpause", "pause"] if emulated else [])
    assert xl.domains()[1].state is DomainState.PAUSED


def test_without_it_xl_is_asked_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(version: str) -> FakeLibrary:
        raise OSError("no such library")

    fake = FakeXl()
    monkeypatch.setattr("dom0_agent.hypervisor.libxc.load_library", missing)
    xl = Xl(tmp_path / "run", fake, FakeStore({}))
    xl.look_directly()
    calls = len(fake.calls)
    assert xl.domains() == ()
    assert xl.host() == HOST
    assert len(fake.calls) == calls + 2


def test_weight_and_cap_go_through_the_domains_scheduler(library: FakeLibrary) -> None:
    libxc = Libxc(library)
    assert libxc.scheduling("credit2", 7) == (256, 0)
    libxc.set_scheduling("credit2", 7, 700, 140)
    assert libxc.scheduling("credit2", 7) == (700, 140)
    with pytest.raises(HypervisorError, match="credit parameters of domain 7"):
        libxc.scheduling("credit", 7)
    with pytest.raises(HypervisorError, match="cannot set"):
        libxc.set_scheduling("credit", 7, 1, 0)
