#!/usr/bin/env python3
"""ApplyChanges beside the bare commands that it cannot do without.

Each round changes the CPU and network shares of 1, 4 and 16 running VMs. Ours is the whole of it: check, journal on
disk, scheduler, tc, reading back, commit. The rival is a person's script: for each VM one ``xl sched-credit2`` and two
``tc class change`` (one for each direction), and nothing is checked. tc is real, in a network namespace. There is no
Xen: where ours makes a hypercall the bench keeps a table in memory, and the rival's ``xl`` is the smallest program that
there is (``true``), which is kind to the rival.

    python3 tests/bench/bench_resources.py [--short] [--table tests/RESOURCES.md]
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast
from uuid import UUID

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from dom0_agent.hypervisor.interface import DomainInfo, DomainState, DomainType, HostInfo, Hypervisor
from dom0_agent.hypervisor.resources import DOM0, Scheduling
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
BANDWIDTH = 1_000_000_000
SHARES = (3, 5)  #: percent, in turns
RAM = 256 << 20
HEADING = "ApplyChanges beside the bare commands"
ABOUT = (
    "CPU and network shares of so many running VMs are changed: check, journal, apply, read back, commit; beside a "
    "script of `xl` and `tc` that checks nothing. Median of {rounds} in turns; tc is real, Xen is not (see the bench)."
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


class Board:
    """A board with running VMs that have network interfaces."""

    def __init__(self, root: pathlib.Path, vms: int) -> None:
        self.lab = Lab()
        self.vmids = [UUID(int=number << 100) for number in range(1, vms + 1)]
        hypervisor = cast(Hypervisor, MemoryHypervisor(self.vmids))
        self.database = Database(root / "agent.db")
        config = VmConfig(storage_reserve=0)
        resources = ResourcesConfig(network=NetworkConfig(bandwidth=BANDWIDTH))
        sharing = open_sharing(self.database, hypervisor, config, resources, root, run=InNamespace(self.lab))
        for vmid in self.vmids:
            first = Allocation(RAM, 0, SHARES[0], SHARES[0])
            vm = Vm(VmRecord(vmid, VmState.RUNNING, "img", first), Definition(DomainType.PV, 1))
            VmTable(self.database).put(vm.dump())
            name = f"vif{vmid.int >> 100}.0"
            self.lab.inside("dom0", "ip", "link", "add", name, "type", "veth", "peer", "name", f"p{name}")
            sharing.enforcer.started(vm)
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
        prefix = ["ip", "netns", "exec", self.lab.dom0]
        began = time.perf_counter()
        for vmid in vmids:
            subprocess.run(["true", "sched-credit2", "-d", str(vmid), "-w", str(share * 10), "-c", "10"], check=True)
            for device in device_names(vmid):
                words = [
                    "class",
                    "change",
                    "dev",
                    device,
                    "parent",
                    "1:",
                    "classid",
                    "1:1",
                    "htb",
                    "rate",
                    rate,
                    "quantum",
                    "60000",
                ]
                subprocess.run([*prefix, "tc", *words], check=True)
        return time.perf_counter() - began

    def close(self) -> None:
        """All goes."""
        self.database.close()
        self.lab.close()


@contextmanager
def board(vms: int, folder: str | None) -> Iterator[Board]:
    """A board for a while."""
    with tempfile.TemporaryDirectory(prefix="virmo-bench-", dir=folder) as root:
        opened = Board(pathlib.Path(root), vms)
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


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="1 and 4 VMs, three rounds, no judgement")
    parser.add_argument("--rounds", type=int, default=9, help="changes by each")
    parser.add_argument("--report", action="store_true", help="exit with 0 whatever the figures are")
    parser.add_argument("--table", type=pathlib.Path, help="Markdown file whose section about this is written anew")
    parser.add_argument("--dir", help="where to put the files (default: the temporary folder)")
    options = parser.parse_args()
    sizes: tuple[int, ...] = SIZES
    if options.short:
        sizes, options.rounds, options.report = SIZES[:2], 3, True
    ratios, figures, table = {}, {}, Table(HEADING, ABOUT.format(rounds=options.rounds), COLUMNS)
    with board(max(sizes), options.dir) as machine:
        print(f"{'VMs':>5}{'ours s':>10}{'bare s':>10}{'ratio':>8}")
        for vms in sizes:
            ours, bare = measure(machine, vms, options.rounds)
            ratios[f"apply_{vms}_vms"] = round(ours / bare, 3)
            figures[f"{vms}"] = {"ours_seconds": round(ours, 4), "bare_seconds": round(bare, 4)}
            table.add(vms, f"{1000 * ours:.1f} ms", f"{1000 * bare:.1f} ms", f"{ours / bare:.2f}")
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
        write(options.table, [table])
    return 1 if missed and not options.report else 0


if __name__ == "__main__":
    sys.exit(main())
