#!/usr/bin/env python3
"""ApplyChanges beside the bare commands that it cannot do without.

Each round changes the CPU and network shares of 1, 4 and 16 running VMs. Ours is the whole of it: check, journal on
disk, scheduler, tc, reading back, commit. The rival is a person's script: for each VM one ``xl sched-credit2`` and two
``tc class change`` (one for each direction), and nothing is checked. tc is real, in a network namespace. There is no
Xen: where ours makes a hypercall the bench keeps a table in memory, and the rival's ``xl`` is the smallest program that
there is (``true``), which is kind to the rival. With ``--xen`` it runs in dom0, on domains that it makes and leaves
paused, and nothing is left out on either side.

    python3 tests/bench/bench_resources.py [--short] [--table tests/RESOURCES.md]
    python3 tests/bench/bench_resources.py --xen GUEST     GUEST: folder with a kernel and a ramdisk
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol, cast
from uuid import UUID

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from dom0_agent.hypervisor.interface import (
    DomainConfig,
    DomainInfo,
    DomainState,
    DomainType,
    HostInfo,
    Hypervisor,
    Vif,
)
from dom0_agent.hypervisor.resources import DOM0, Scheduling
from dom0_agent.hypervisor.tool import ToolRunner, run_tool
from dom0_agent.hypervisor.xl import open_xl
from dom0_agent.resources.apply import Applied, ApplyChanges, Wish
from dom0_agent.resources.config import NetworkConfig, ResourcesConfig
from dom0_agent.resources.network import device_names
from dom0_agent.resources.sharing import open_sharing
from dom0_agent.store.database import Database
from dom0_agent.store.vms import VmTable
from dom0_agent.vm.config import VmConfig
from dom0_agent.vm.definition import Definition, Vm
from dom0_agent.vm.engine import open_engine
from dom0_agent.vm.model import Allocation, VmRecord, VmState
from tests.contract.support import FakeImages
from tests.figures import Table, write
from tests.integration.resources.shaping_testing import Lab
from tests.integration.resources.sim_network import InNamespace

TARGET = 1.2
SIZES = (1, 4, 16)
BRIDGE = "xenbr0"
BANDWIDTH = 1_000_000_000
SHARES = (3, 5)  #: percent, in turns
RAM = 128 << 20
PLUGGED = 60.0  #: seconds that an interface may take to be there after its domain
HEADING = "ApplyChanges beside the bare commands{where}"
ABOUT = (
    "CPU and network shares of so many running VMs are changed: check, journal, apply, read back, commit; beside a "
    "script of `xl` and `tc` that checks nothing. Median of {rounds} in turns; {reality}."
)
COLUMNS = ("VMs", "ApplyChanges", "bare commands", "ratio")


class MemoryResources:
    """The scheduler of a machine without Xen. Interfaces are real."""

    def __init__(self) -> None:
        self.table: dict[UUID, Scheduling] = {DOM0: Scheduling(256, 0)}

    def scheduling(self, uuid: UUID) -> Scheduling:
        return self.table[uuid]

    def set_scheduling(self, uuid: UUID, scheduling: Scheduling) -> None:
        self.table[uuid] = scheduling

    def vcpus(self, uuid: UUID) -> tuple[int, int]:
        return (1, 2)

    def set_vcpus(self, uuid: UUID, count: int) -> None:
        return

    def interfaces(self, uuid: UUID) -> tuple[str, ...]:
        return (f"vif{uuid.int >> 100}.0",)


class MemoryHypervisor:
    """Domains in a table."""

    def __init__(self, vmids: list[UUID]) -> None:
        self.resources = MemoryResources()
        self._vmids = vmids

    def host(self) -> HostInfo:
        return HostInfo("4.17", "credit2", 2, 1 << 34, 1 << 34, can_save=True)

    def domains(self) -> tuple[DomainInfo, ...]:
        return tuple(DomainInfo(v, v.int >> 100, "", DomainState.RUNNING, RAM, 1, 0.0) for v in self._vmids)


class Machine(Protocol):
    """What a board is made on."""

    hypervisor: Hypervisor
    run: ToolRunner
    prefix: Sequence[str]  #: before the rival's ``tc``
    xl: str

    def add(self, vmid: UUID) -> None: ...
    def close(self) -> None: ...


class Namespaces:
    """No Xen, real tc."""

    xl = "true"
    prefix: Sequence[str]

    def __init__(self, vmids: list[UUID]) -> None:
        self.hypervisor = cast(Hypervisor, MemoryHypervisor(vmids))
        self._lab = Lab()
        self.run: ToolRunner = InNamespace(self._lab)
        self.prefix = ("ip", "netns", "exec", self._lab.dom0)

    def add(self, vmid: UUID) -> None:
        """An interface."""
        name = f"vif{vmid.int >> 100}.0"
        self._lab.inside("dom0", "ip", "link", "add", name, "type", "veth", "peer", "name", f"p{name}")

    def close(self) -> None:
        """All goes."""
        self._lab.close()


class Xen:
    """The Xen of this dom0; domains of 128 MiB with one interface, paused."""

    xl = "xl"
    prefix: Sequence[str] = ()

    def __init__(self, root: pathlib.Path, guest: pathlib.Path) -> None:
        self.hypervisor: Hypervisor = open_xl(root / "run")
        self.run: ToolRunner = run_tool
        self._guest = guest
        self._made: list[UUID] = []

    def add(self, vmid: UUID) -> None:
        """A domain."""
        number = vmid.int >> 100
        self._made.append(vmid)
        config = DomainConfig(
            vmid,
            f"virmo-{vmid}",
            DomainType.PV,
            RAM,
            RAM,
            1,
            self.hypervisor.host().cpus,
            self._guest / "kernel",
            self._guest / "ramdisk",
            vifs=(Vif(f"00:16:3e:00:00:{number:02x}", BRIDGE),),
        )
        self.hypervisor.create(config)
        deadline = time.monotonic() + PLUGGED
        while not self.hypervisor.resources.interfaces(vmid):
            assert time.monotonic() < deadline, f"the interface of {config.name} is not there after {PLUGGED:.0f} s"
            time.sleep(0.1)

    def close(self) -> None:
        """All domains go."""
        for vmid in self._made:
            self.hypervisor.destroy(vmid)
        self.hypervisor.close()


class Board:
    """A board with running VMs that have network interfaces."""

    def __init__(self, root: pathlib.Path, vms: int, guest: pathlib.Path | None) -> None:
        self.vmids = [UUID(int=number << 100) for number in range(1, vms + 1)]
        self.machine: Machine = Namespaces(self.vmids) if guest is None else Xen(root, guest)
        hypervisor = self.machine.hypervisor
        self.scheduler = hypervisor.host().scheduler
        self.database = Database(root / "agent.db")
        config = VmConfig(storage_reserve=0)
        resources = ResourcesConfig(network=NetworkConfig(bandwidth=BANDWIDTH))
        sharing = open_sharing(self.database, hypervisor, config, resources, root, run=self.machine.run)
        for vmid in self.vmids:
            self.machine.add(vmid)
            first = Allocation(RAM, 0, SHARES[0], SHARES[0])
            vm = Vm(VmRecord(vmid, VmState.RUNNING, "img", first), Definition(DomainType.PV, 1))
            VmTable(self.database).put(vm.dump())
            sharing.enforcer.started(vm)
        self.domids = {domain.uuid: domain.domid for domain in hypervisor.domains()}
        engine = open_engine(self.database, hypervisor, FakeImages(), config, root, sharing=sharing)
        self.ended: list[Applied] = []
        self.apply = ApplyChanges(self.database, engine.holds, sharing, self.ended.append)

    def ours(self, vmids: list[UUID], share: int) -> float:
        """Seconds of one ApplyChanges."""
        wish = Wish({vmid: Allocation(RAM, 0, share, share) for vmid in vmids}, {})
        began = time.perf_counter()
        result = self.apply.submit(wish, None).wait(120)
        seconds = time.perf_counter() - began
        assert result is not None
        assert result.ok, result.message
        while not self.ended:
            time.sleep(0.001)
        self.apply.reported(self.ended.pop())
        return seconds

    def bare(self, vmids: list[UUID], share: int) -> float:
        """Seconds of the script."""
        rate = f"{BANDWIDTH * share // 100}bit"
        change = ["parent", "1:", "classid", "1:1", "htb", "rate", rate, "quantum", "60000"]
        set_share = [self.machine.xl, f"sched-{self.scheduler}", "-w", str(share * 10), "-c", str(2 * share), "-d"]
        began = time.perf_counter()
        for vmid in vmids:
            subprocess.run([*set_share, str(self.domids[vmid])], check=True)
            for device in device_names(vmid):
                subprocess.run([*self.machine.prefix, "tc", "class", "change", "dev", device, *change], check=True)
        return time.perf_counter() - began

    def close(self) -> None:
        """All goes."""
        self.database.close()
        self.machine.close()


@contextmanager
def board(vms: int, folder: str | None, guest: pathlib.Path | None) -> Iterator[Board]:
    """A board for a while."""
    with tempfile.TemporaryDirectory(prefix="virmo-bench-", dir=folder) as root:
        opened = Board(pathlib.Path(root), vms, guest)
        try:
            yield opened
        finally:
            opened.close()


def measure(machine: Board, vms: int, rounds: int) -> tuple[float, float]:
    """Median seconds, ours and the rival's, in turns on the same VMs. What the rival sets, ours sets anew."""
    some = machine.vmids[:vms]
    runs: dict[Callable[[list[UUID], int], float], list[float]] = {machine.ours: [], machine.bare: []}
    for turn in range(rounds):
        share = SHARES[(turn + 1) % 2]
        for run, seconds in runs.items():
            seconds.append(run(some, share))
    ours, bare = (statistics.median(seconds) for seconds in runs.values())
    return ours, bare


def empty_table(rounds: int, *, on_xen: bool) -> Table:
    """For the file of figures."""
    where, reality = (", on Xen", "on paused domains") if on_xen else ("", "tc is real, Xen is not (see the bench)")
    return Table(HEADING.format(where=where), ABOUT.format(rounds=rounds, reality=reality), COLUMNS)


def fill(table: Table, figures: Mapping[str, Mapping[str, float]]) -> Table:
    """With the figures of a run's last line."""
    for vms, seconds in figures.items():
        ours, bare = seconds["ours_seconds"], seconds["bare_seconds"]
        table.add(vms, f"{1000 * ours:.1f} ms", f"{1000 * bare:.1f} ms", f"{ours / bare:.2f}")
    return table


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="1 and 4 VMs, three rounds, no judgement")
    parser.add_argument("--rounds", type=int, default=9, help="changes by each")
    parser.add_argument("--report", action="store_true", help="exit with 0 whatever the figures are")
    parser.add_argument("--table", type=pathlib.Path, help="Markdown file whose section about this is written anew")
    parser.add_argument("--xen", type=pathlib.Path, metavar="GUEST", help="on the Xen of this dom0")
    parser.add_argument("--dir", help="where to put the files (default: the temporary folder)")
    options = parser.parse_args()
    sizes: tuple[int, ...] = SIZES
    if options.short:
        sizes, options.rounds, options.report = SIZES[:2], 3, True
    ratios: dict[str, float] = {}
    figures: dict[str, dict[str, float]] = {}
    with board(max(sizes), options.dir, options.xen) as machine:
        print(f"{'VMs':>5}{'ours s':>10}{'bare s':>10}{'ratio':>8}")
        for vms in sizes:
            ours, bare = measure(machine, vms, options.rounds)
            ratios[f"apply_{vms}_vms"] = round(ours / bare, 3)
            figures[f"{vms}"] = {"ours_seconds": round(ours, 4), "bare_seconds": round(bare, 4)}
            print(f"{vms:>5}{ours:10.4f}{bare:10.4f}{ours / bare:8.2f}")
    missed = any(ratio > TARGET for ratio in ratios.values())
    result = {
        "bench": "resources",
        "ratios": ratios,
        "targets": dict.fromkeys(ratios, TARGET),
        "figures": {"rounds": options.rounds, "cpus": os.cpu_count(), "vms": figures},
        "ok": not missed,
    }
    print(json.dumps(result))
    if options.table is not None:
        write(options.table, [fill(empty_table(options.rounds, on_xen=options.xen is not None), figures)])
    return 1 if missed and not options.report else 0


if __name__ == "__main__":
    sys.exit(main())
