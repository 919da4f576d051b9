"""Shares on real Xen, measured inside guests: processor time, network, memory, disks, and a disk that is taken away.

The whole way: the operator's command, the server, a DM session, the agent, Xen. Emulation is slow, so rates and sizes
are scaled down; shares are not. What was measured is written into ``tests/RESOURCES.md``.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

import pytest

from image.machine import SCHEDULERS
from image.story.steps import DEVICE
from tests.figures import RESOURCES, Table, write
from tests.nested.conftest import eventually
from tests.nested.measured_board import BANDWIDTH, MIB, STORAGE, Burned, MeasuredBoard, image

pytestmark = [pytest.mark.nested, pytest.mark.long]

POINTS = 2.0  #: by which a measured share of CPU may differ
WITHIN = 0.05  #: of a network share
WINDOW = 12.0  #: seconds of burning
#: Seconds of traffic: what lay in a receiver's buffer before must not count for much.
TRAFFIC = 15
#: How many times as long ``virmoctl status`` may take while guests burn as while they idle. Seconds would be the
#: emulated board's: they are written down.
RESPONSIVE = 2.0
LESS = 24 * MIB  #: what a guest can spare
NETWORK_SHARE = 20  #: percent
SHARE = BANDWIDTH * NETWORK_SHARE // 100
FLOOD = SHARE * 2  #: bits a second of UDP: more than the share, also when its sender has to wait for a CPU
#: A disk's device node of root's own: nothing in the guest has to help to open it. What was read before is not asked.
READ = (
    "rm -f /tmp/d; mknod /tmp/d b 202 16 && echo 3 >/proc/sys/vm/drop_caches && dd if=/tmp/d of=/dev/null bs=4k count=1"
)
HELD_PAUSE = 2  #: seconds between looks at a program that wants to read a disk five times a second
LOOKS = 3
#: Holds the disk open, reads from it past the guest's cache, again and again, and tells how that went in a file.
HOLD = """python3 -S -c "
import mmap, os, time
disk = os.open('/tmp/held-disk', os.O_RDONLY | os.O_DIRECT)
page = mmap.mmap(-1, 4096)
while True:
    try:
        said = 'reads' if os.preadv(disk, [page], 0) else 'finds nothing'
    except OSError as error:
        said = 'fails'
    open('/tmp/held', 'w').write(said)
    time.sleep(0.2)
" >/dev/null 2>&1 &"""


def one_image_each(count: int) -> str:
    """The VM whose image asks for so many vCPUs."""
    return f"guest-{count}"


@pytest.fixture(scope="module")
def tables() -> Iterator[dict[str, Table]]:
    """What is measured here, by section; written at the end."""
    measured: dict[str, Table] = {}
    yield measured
    write(RESOURCES, list(measured.values()))


@pytest.fixture(scope="module")
def board(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeasuredBoard]:
    """A board with the scheduler that is asked for, and three VMs whose images ask for 1, 2 and 4 vCPUs."""
    counts = (1, 2, 4)
    made = MeasuredBoard(tmp_path_factory.mktemp("resources"), request.param, counts)
    try:
        for count in counts:
            made.create(one_image_each(count), image(count))
            made.await_answer(one_image_each(count))
        yield made
    finally:
        made.close()


on_each_scheduler = pytest.mark.parametrize("board", SCHEDULERS, indirect=True)
on_credit2 = pytest.mark.parametrize("board", ["credit2"], indirect=True)


def cpu_table(tables: dict[str, Table], scheduler: str) -> Table:
    """The section of a scheduler."""
    about = (
        f"Guests that burn on all their CPUs at once, {WINDOW:.0f} s, on a board with two. Percent of what they got "
        "together; alone, of one CPU, of which the cap is twice the share. Work is loops counted, which an emulated "
        "processor does less of the more often it changes from one guest to another."
    )
    columns = ("vCPUs their images ask for", "shares", *("time in the guests", "time by Xen", "work"), "vCPUs online")
    more = ("dom0 (% of a CPU)", "`virmoctl status`: median, worst; before, idle: median; bare Python: median")
    return tables.setdefault(f"cpu {scheduler}", Table(f"CPU, {scheduler}", about, (*columns, *more)))


def written(table: Table, counts: Sequence[int], shares: Sequence[int], seen: Burned) -> None:
    """One measurement in the table."""
    alone = len(counts) == 1
    got = [seen.ran, seen.cpus, ()] if alone else [parts(seen.ran), seen.time, seen.work]
    median = statistics.median
    seconds = (median(seen.status), max(seen.status), median(seen.idle), median(seen.python))
    status = ", ".join(f"{one:.2f} s" for one in seconds)
    asked, online = "/".join(map(str, counts)), "/".join(map(str, seen.online))
    cells = [asked, "/".join(map(str, shares)), *map(slashes, got), online, f"{seen.dom0:.1f}", status]
    print(*cells, sep=" | ")
    table.add(*cells)


def parts(numbers: Sequence[float]) -> list[float]:
    """Percent of their sum."""
    return [100 * number / sum(numbers) for number in numbers]


def responsive(seen: Burned) -> bool:
    """dom0 answered as it does when nobody burns, nearly."""
    return statistics.median(seen.status) < RESPONSIVE * statistics.median(seen.idle)


def slashes(numbers: Sequence[float]) -> str:
    """For people."""
    return " / ".join(f"{number:.1f}" for number in numbers)


def close_to(measured: Sequence[float], shares: Sequence[float]) -> bool:
    """Each within the points."""
    return all(abs(m - s) <= POINTS for m, s in zip(measured, shares, strict=True))


@pytest.mark.parametrize(
    ("counts", "shares"),
    [
        ((1, 4), (70, 30)),
        ((1, 2, 4), (50, 30, 20)),
        ((4, 1), (70, 30)),
        ((4, 1, 2), (50, 30, 20)),
        ((1, 2), (70, 30)),
        ((2, 1), (70, 30)),
        ((2, 4), (70, 30)),
        ((2, 4, 1), (50, 30, 20)),
    ],
)
@on_each_scheduler
def test_guests_that_burn_get_their_shares(
    counts: tuple[int, ...], shares: tuple[int, ...], board: MeasuredBoard, tables: dict[str, Table]
) -> None:
    """R-046, R-053, R-060, HLF-05, VirMO-C-010: whatever vCPU counts their images ask for; dom0 answers meanwhile."""
    names = [one_image_each(count) for count in counts]
    idle = {one_image_each(count): "cpu:0" for count in (1, 2, 4) if count not in counts}
    wanted = {name: f"cpu:{share}" for name, share in zip(names, shares, strict=True)}
    board.share({**wanted, **idle})
    seen = board.burn(WINDOW, *names)
    written(cpu_table(tables, board.scheduler), counts, shares, seen)
    assert close_to(seen.time, shares), seen
    assert close_to(parts(seen.ran), shares), seen
    assert responsive(seen), seen


@pytest.mark.parametrize("share", [20, 40])
@on_each_scheduler
def test_a_guest_alone_gets_its_cap(share: int, board: MeasuredBoard, tables: dict[str, Table]) -> None:
    """R-046, R-053: a share is a limit too, also where nobody else wants anything. Points are of the device."""
    board.share({"guest-1": f"cpu:{share}", "guest-2": "cpu:0", "guest-4": "cpu:0"})
    seen = board.burn(WINDOW, "guest-1")
    written(cpu_table(tables, board.scheduler), [1], [share], seen)
    for percent in (*seen.cpus, *seen.ran):
        assert close_to([percent / board.cpus()], [share]), seen


def live_table(tables: dict[str, Table]) -> Table:
    """The section of the rest."""
    about = "Seen by a guest that runs, as root, through ApplyChanges and DCMO."
    return tables.setdefault("live", Table("Memory, disks, peripherals", about, ("what", "before", "after")))


@on_credit2
def test_memory_and_disks_change_under_a_guest(board: MeasuredBoard, tables: dict[str, Table]) -> None:
    """R-049, R-053, HLF-05: less memory and a larger data disk, and the memory back, seen by the guest."""
    name, table = "guest-2", live_table(tables)
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


@on_credit2
def test_a_disk_that_is_disabled_cannot_be_read(board: MeasuredBoard, tables: dict[str, Table]) -> None:
    """HLF-06: not even as root; enabled, it can be read again."""
    name, table = "guest-2", live_table(tables)
    assert board.sh(name, READ)[0] == 0
    board.order("vm", "peripheral", "disable", DEVICE, name, "xvdb")
    status, output = board.sh(name, READ)
    assert status != 0, output
    assert "xvdb" not in board.sh(name, "cat /proc/partitions")[1]
    refused = output.strip().splitlines()[-1]
    table.add("root reads xvdb, disabled", "reads", refused)
    board.order("vm", "peripheral", "enable", DEVICE, name, "xvdb")
    eventually(lambda: board.sh(name, READ)[0] == 0, "it can be read again", 60)
    table.add("root reads xvdb, enabled again", refused, "reads")


@on_credit2
def test_a_disk_that_is_held_open_is_taken_away_all_the_same(board: MeasuredBoard, tables: dict[str, Table]) -> None:
    """HLF-06: a program that opened it before reads nothing more."""
    name = "guest-4"
    assert board.sh(name, "mknod /tmp/held-disk b 202 16")[0] == 0
    board.sh(name, HOLD)
    eventually(lambda: board.sh(name, "cat /tmp/held")[1] == "reads", "it is read all the time", 60)
    board.order("vm", "peripheral", "disable", DEVICE, name, "xvdb")
    # A read that was under way may have put its answer there after the disk was gone; from here on none may.
    board.sh(name, "rm -f /tmp/held")
    told = {board.sh(name, f"sleep {HELD_PAUSE}; cat /tmp/held 2>/dev/null || echo waits")[1] for _ in range(LOOKS)}
    assert "reads" not in told
    live_table(tables).add("a program that holds xvdb open, disabled", "reads", ", ".join(sorted(told)).strip())


def network_table(tables: dict[str, Table]) -> Table:
    """The section of the network."""
    about = (
        f"iperf3 between dom0 and a guest whose share is {NETWORK_SHARE} % of {BANDWIDTH / 1e6:g} Mbit/s, "
        f"{SHARE / 1e6:g} Mbit/s, over all of its interfaces. Rates are scaled down to what emulation moves. "
        "Measured by the receiver while all senders send, with the headers of full frames, which a share counts."
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


@on_credit2
def test_network_shares_hold_both_ways(board: MeasuredBoard, tables: dict[str, Table]) -> None:
    """R-046, R-053, HLF-05: TCP and UDP, IPv4 and IPv6, down and up, over one interface and over two together."""
    # Its CPU has no cap: what a guest does not send or take off its interface in time is not the share's doing.
    board.share({"guest-1": f"cpu:0,network:{NETWORK_SHARE}", "guest-2": "cpu:0", "guest-4": "cpu:0"})
    flows = [f"{p}-{v}-{d}" for p in ("tcp", "udp") for v in "46" for d in ("down", "up")]
    check_traffic(board, "guest-1", TRAFFIC, [f"{flow}-1" for flow in flows], network_table(tables))
    board.plug("guest-1")
    check_traffic(board, "guest-1", TRAFFIC, [f"{flow}-2" for flow in flows], network_table(tables))
