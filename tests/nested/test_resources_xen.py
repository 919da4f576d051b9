"""Shares on real Xen, measured inside guests: processor time, network, memory, disks, and a disk that is taken away.

The whole way: the operator's command, the server, a DM session, the agent, Xen. Emulation is slow, so rates and sizes
are scaled down; shares are not. What was measured is written into ``tests/RESOURCES.md``.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

import pytest

from image.story.steps import DEVICE
from tests.figures import RESOURCES, Table, write
from tests.nested.conftest import eventually
from tests.nested.measured_board import BANDWIDTH, MIB, STORAGE, Burned, MeasuredBoard, image

pytestmark = [pytest.mark.nested, pytest.mark.long]

POINTS = 2.0  #: by which a measured share of CPU may differ
WITHIN = 0.05  #: of a network share
WINDOW = 12.0  #: seconds of burning
LESS = 24 * MIB  #: what a guest can spare
NETWORK_SHARE = 20  #: percent
SHARE = BANDWIDTH * NETWORK_SHARE // 100
FLOOD = SHARE * 3 // 2  #: bits a second of UDP
#: A disk's device node of root's own: nothing in the guest has to help to open it. What was read before is not asked.
READ = (
    "rm -f /tmp/d; mknod /tmp/d b 202 16 && echo 3 >/proc/sys/vm/drop_caches && dd if=/tmp/d of=/dev/null bs=4k count=1"
)


@pytest.fixture(scope="module")
def tables() -> Iterator[dict[str, Table]]:
    """What is measured here, by section; written at the end."""
    measured: dict[str, Table] = {}
    yield measured
    write(RESOURCES, list(measured.values()))


def cpu_table(tables: dict[str, Table], scheduler: str) -> Table:
    """The section of a scheduler."""
    about = f"Guests that burn on all their CPUs at once, {WINDOW:.0f} s. Percent of what they got together."
    columns = ("vCPUs their images ask for", "shares", "work counted in the guests", "time by Xen", "vCPUs online")
    more = ("dom0 (% of a CPU)", "`virmoctl status`: median, worst; bare Python: median")
    return tables.setdefault(f"cpu {scheduler}", Table(f"CPU, {scheduler}", about, (*columns, *more)))


def written(table: Table, counts: Sequence[int], shares: Sequence[int], seen: Burned, work: str, time: str) -> None:
    """One measurement in the table."""
    status = f"{statistics.median(seen.status):.2f} s, {max(seen.status):.2f} s, {statistics.median(seen.python):.2f} s"
    asked, online = "/".join(map(str, counts)), "/".join(map(str, seen.online))
    table.add(asked, "/".join(map(str, shares)), work, time, online, f"{seen.dom0:.1f}", status)


def slashes(numbers: Sequence[float]) -> str:
    """For people."""
    return " / ".join(f"{number:.1f}" for number in numbers)


def close_to(measured: Sequence[float], shares: Sequence[float]) -> bool:
    """Each within the points."""
    return all(abs(m - s) <= POINTS for m, s in zip(measured, shares, strict=True))


def network_table(tables: dict[str, Table]) -> Table:
    """The section of the network."""
    about = (
        f"iperf3 between dom0 and a guest whose share is {NETWORK_SHARE} % of {BANDWIDTH / 1e6:g} Mbit/s, "
        f"{SHARE / 1e6:g} Mbit/s, over all of its interfaces. Rates are scaled down to what emulation moves. "
        "Measured by the receiver, with the headers of full frames, which a share counts."
    )
    columns = ("protocol", "direction", "interfaces", "Mbit/s", "of the share", "by interface")
    return tables.setdefault("network", Table("Network", about, columns))


def check_traffic(board: MeasuredBoard, name: str, seconds: int, kinds: Sequence[str], table: Table) -> None:
    """Measure, note, judge."""
    seen = board.traffic(name, seconds, FLOOD, kinds)
    for kind, rates in seen.items():
        protocol, version, direction, interfaces = kind.split("-")
        each = slashes([rate / 1e6 for rate in rates]) if len(rates) > 1 else ""
        cells = (f"{protocol.upper()}, IPv{version}", direction, interfaces, f"{sum(rates) / 1e6:.2f}")
        print(kind, rates)
        table.add(*cells, f"{100 * sum(rates) / SHARE:.1f} %", each)
    wrong = {kind: rates for kind, rates in seen.items() if abs(sum(rates) / SHARE - 1) > WITHIN}
    assert not wrong, f"not {SHARE} bit/s: {wrong} of {seen}"
    assert all(min(rates) > 0 for rates in seen.values())


def live_table(tables: dict[str, Table]) -> Table:
    """The section of the rest."""
    about = "Seen by a guest that runs, as root, through ApplyChanges and DCMO."
    return tables.setdefault("live", Table("Memory, disks, peripherals", about, ("what", "before", "after")))


def check_memory_and_disk(board: MeasuredBoard, name: str, table: Table) -> None:
    """Less memory and a larger disk, and the memory back."""
    before, disk = board.memory(name), board.disk(name)
    assert disk == STORAGE
    ram = int(board.show(name)["ram"])
    board.order("resources", "apply", DEVICE, f"{name}=ram:{ram - LESS},storage:{STORAGE + 4 * MIB}")
    eventually(lambda: board.disk(name) == STORAGE + 4 * MIB, "the guest sees that its disk has grown", 60)
    shrunk = board.memory(name)
    assert before - shrunk == pytest.approx(LESS, abs=2 * MIB)
    board.order("resources", "apply", DEVICE, f"{name}=ram:{ram}")
    eventually(lambda: abs(board.memory(name) - before) <= 2 * MIB, "the guest has its memory again", 60)
    table.add("MemTotal, RAM 24 MiB less", f"{before / MIB:.1f} MiB", f"{shrunk / MIB:.1f} MiB")
    table.add("MemTotal, RAM as before", f"{shrunk / MIB:.1f} MiB", f"{board.memory(name) / MIB:.1f} MiB")
    table.add("xvdb, Storage 4 MiB more", f"{disk / MIB:g} MiB", f"{board.disk(name) / MIB:g} MiB")


def check_disk_disabled(board: MeasuredBoard, name: str, table: Table) -> None:
    """What DCMO has disabled is not there, for root neither."""
    assert board.sh(name, READ)[0] == 0
    board.order("vm", "peripheral", "disable", DEVICE, name, "xvdb")
    status, output = board.sh(name, READ)
    assert status != 0, output
    assert "xvdb" not in board.sh(name, "cat /proc/partitions")[1]
    table.add("root reads xvdb, disabled", "reads", output.strip().splitlines()[-1])


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeasuredBoard]:
    """One image, two VMs."""
    made = MeasuredBoard(tmp_path_factory.mktemp("resources"), "credit2", (1,))
    try:
        for name in ("guest-1", "guest-2"):
            made.create(name, image(1))
        for name in ("guest-1", "guest-2"):
            made.await_answer(name)
        made.share({"guest-1": f"cpu:70,network:{NETWORK_SHARE}", "guest-2": "cpu:30"})
        yield made
    finally:
        made.close()


def test_two_guests_that_burn_get_70_and_30(board: MeasuredBoard, tables: dict[str, Table]) -> None:
    """R-046, R-053, R-060, HLF-05, VirMO-C-010."""
    seen = board.burn(WINDOW, "guest-1", "guest-2")
    print(seen)
    written(cpu_table(tables, "credit2"), [1, 1], [70, 30], seen, slashes(seen.work), slashes(seen.time))
    assert close_to(seen.time, (70, 30)), seen


def test_a_network_share_holds(board: MeasuredBoard, tables: dict[str, Table]) -> None:
    """R-046, R-053, HLF-05: what arrives in the guest."""
    check_traffic(board, "guest-1", 6, ["udp-4-down-1"], network_table(tables))


def test_memory_and_disks_change_under_a_guest(board: MeasuredBoard, tables: dict[str, Table]) -> None:
    """R-049, R-053, HLF-05: the balloon and the data disk, seen by the guest."""
    check_memory_and_disk(board, "guest-2", live_table(tables))


def test_a_disk_that_is_disabled_cannot_be_read(board: MeasuredBoard, tables: dict[str, Table]) -> None:
    """HLF-06: not even as root."""
    check_disk_disabled(board, "guest-2", live_table(tables))
