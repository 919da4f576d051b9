"""Network shares by real tc in network namespaces: both ways, one budget over all interfaces, every kind of frame, and
nothing left behind (R-049 to R-051)."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import pytest

from dom0_agent.hypervisor.tool import ToolResult
from dom0_agent.resources.network import Rate, Shaper, device_names, rate_of
from dom0_agent.resources.tc import Tc, TcError
from tests.integration.resources.shaping_testing import SENDER, Lab
from tests.integration.resources.sim_network import InNamespace
from tests.integration.resources.traffic import FRAMES_OF_TCP

MEGABIT = 10**6
SHARE = 4 * MEGABIT
WITHIN = 0.05  #: of the share
TRIES = 5
ANY = "0.0.0.0"  # noqa: S104 - inside a namespace of its own


def limited(measure: Callable[[], float], share: float = SHARE, *, frames: float = 1.0, slack: float = 0.0) -> None:
    """Never more than the share; and the share, within what a busy machine's senders manage in one of some tries."""
    for _ in range(TRIES):
        measured = measure()
        assert measured <= share * (1 + WITHIN) + slack
        if measured >= share * (1 - WITHIN) / frames:
            return
    raise AssertionError(f"only {measured:.0f} bit/s of {share} in {TRIES} tries")


@pytest.fixture
def lab() -> Iterator[Lab]:
    opened = Lab()
    yield opened
    opened.close()


@pytest.fixture
def vmid() -> UUID:
    return uuid4()


@pytest.mark.parametrize("kind", ["tcp", "udp"])
@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_both_ways_are_limited_to_the_share(kind: str, family: str, lab: Lab, vmid: UUID) -> None:
    """R-050, R-051: measured at the receiver, within 5 %."""
    guest = lab.guest("g")
    lab.connect(guest, "eth0", "vif7.0", 7)
    lab.shaper.shape(vmid, ["vif7.0"], rate_of(SHARE))
    prefix = "10.7.0." if family == "ipv4" else "fd00::"
    frames, seconds, slack = 1.0, 2.0, 0.0
    if kind == "tcp":  # one segmentation-offloaded frame more or less in the window
        frames, seconds, slack = FRAMES_OF_TCP, 4.0, 65536 * 8 / 4.0
    limited(lambda: lab.measure(lab.outside, guest, prefix + "7", seconds, kind), frames=frames, slack=slack)
    limited(lambda: lab.measure(guest, lab.outside, prefix + "1", seconds, kind), frames=frames, slack=slack)
    traffic = lab.shaper.traffic(vmid)
    assert traffic is not None
    assert min(traffic.up.sent, traffic.down.sent) > SHARE * 2 / 8


def test_two_interfaces_share_one_budget(lab: Lab, vmid: UUID) -> None:
    """R-051: all connection types."""
    guest = lab.guest("g")
    lab.connect(guest, "eth0", "vif7.0", 7)
    lab.connect(guest, "eth1", "vif7.1", 8)
    for interface in ("all", "eth0", "eth1"):
        lab.inside(guest, "sysctl", "-qw", f"net.ipv4.conf.{interface}.arp_ignore=1")
    lab.shaper.shape(vmid, ["vif7.0", "vif7.1"], rate_of(SHARE))
    limited(lambda: lab.measure(lab.outside, guest, ANY, 2.0, "udp", "streams=2", "to=10.7.0.7,10.7.0.8"))
    limited(lambda: lab.measure(guest, lab.outside, "10.7.0.1", 2.0, "udp", "streams=2", "dev=eth0,eth1"))


def test_frames_with_a_vlan_tag_count_too(lab: Lab, vmid: UUID) -> None:
    """R-051: a guest that sends tagged frames has no way around its share."""
    guest = lab.guest("g")
    lab.connect(guest, "eth0", "vif7.0", 7)
    lab.shaper.shape(vmid, ["vif7.0"], rate_of(SHARE))
    sender = [sys.executable, str(SENDER), "frames", "eth0", "60"]
    with subprocess.Popen(["ip", "netns", "exec", guest, *sender]) as sending:
        limited(lambda: passed(lab, vmid, 2.0))
        sending.kill()
    traffic = lab.shaper.traffic(vmid)
    assert traffic is not None
    assert traffic.up.dropped > 0


def passed(lab: Lab, vmid: UUID, seconds: float) -> float:
    """Bits a second that htb let pass upstream."""
    counted = []
    for _ in range(2):
        traffic = lab.shaper.traffic(vmid)
        assert traffic is not None
        counted.append((time.monotonic(), traffic.up.sent))
        time.sleep(seconds)
    (began, before), (ended, after) = counted
    return (after - before) * 8 / (ended - began)


def test_a_new_rate_holds_at_once_and_no_limit_leaves_nothing(lab: Lab, vmid: UUID) -> None:
    """ApplyChanges: a class is changed, nothing is torn down meanwhile."""
    guest = lab.guest("g")
    lab.connect(guest, "eth0", "vif7.0", 7)
    nothing = lab.objects()
    lab.shaper.shape(vmid, ["vif7.0"], rate_of(SHARE))
    links = lab.objects()[0]
    lab.shaper.shape(vmid, ["vif7.0"], rate_of(SHARE // 2))
    assert lab.objects()[0] == links
    assert lab.shaper.holds(vmid, ["vif7.0"], rate_of(SHARE // 2))
    assert not lab.shaper.holds(vmid, ["vif7.0"], rate_of(SHARE))
    limited(lambda: lab.measure(guest, lab.outside, "10.7.0.1", 2.0, "udp"), SHARE / 2)
    lab.shaper.shape(vmid, ["vif7.0"], None)
    assert lab.objects() == nothing
    assert lab.shaper.owned() == frozenset()
    assert lab.measure(guest, lab.outside, "10.7.0.1", 1.0, "udp") > SHARE * (1 + WITHIN)


def test_a_share_survives_a_new_interface_and_a_new_agent(lab: Lab, vmid: UUID) -> None:
    """A guest's reboot and a re-plug make a new interface; a restarted agent finds what there is by its alias."""
    guest = lab.guest("g")
    lab.connect(guest, "eth0", "vif7.0", 7)
    rate = rate_of(SHARE)
    lab.shaper.shape(vmid, ["vif7.0"], rate)
    lab.unplug("vif7.0")
    lab.connect(guest, "eth0", "vif8.0", 7)
    assert not lab.shaper.holds(vmid, ["vif8.0"], rate)
    lab.shaper.shape(vmid, ["vif8.0"], rate)
    assert lab.shaper.holds(vmid, ["vif8.0"], rate)
    restarted = Shaper(lab.tc)
    assert restarted.owned() == {vmid}
    assert restarted.knows(vmid)
    assert not restarted.knows(uuid4())
    assert restarted.holds(vmid, ["vif8.0"], rate)
    restarted.shape(vmid, ["vif8.0"], rate)
    lab.inside("dom0", "ip", "link", "set", "br0", "down")
    lab.inside("dom0", "ip", "link", "set", "br0", "name", "renamed0")
    lab.inside("dom0", "ip", "link", "set", "renamed0", "up")
    assert restarted.holds(vmid, ["vif8.0"], rate)
    limited(lambda: lab.measure(guest, lab.outside, "10.7.0.1", 2.0, "udp"))


@pytest.mark.parametrize(
    "damage",
    [
        "tc qdisc del dev vif7.0 clsact",
        "tc qdisc del dev {up} root",
        "tc class change dev {down} parent 1: classid 1:1 htb rate 1gbit",
        "ip link delete {up}",
        "tc filter del dev vif7.0 egress",
    ],
)
def test_what_somebody_took_away_is_seen_and_set_again(damage: str, lab: Lab, vmid: UUID) -> None:
    """Level-triggered: whatever there is, it becomes what it should be."""
    guest = lab.guest("g")
    lab.connect(guest, "eth0", "vif7.0", 7)
    rate = rate_of(SHARE)
    lab.shaper.shape(vmid, ["vif7.0"], rate)
    up, down = device_names(vmid)
    lab.inside("dom0", *damage.format(up=up, down=down).split())
    assert not lab.shaper.holds(vmid, ["vif7.0"], rate)
    lab.shaper.shape(vmid, ["vif7.0"], rate)
    assert lab.shaper.holds(vmid, ["vif7.0"], rate)


def test_removing_one_vm_leaves_the_others(lab: Lab) -> None:
    first, second = uuid4(), uuid4()
    for number, vmid in enumerate((first, second)):
        guest = lab.guest(f"g{number}")
        lab.connect(guest, "eth0", f"vif{number}.0", 20 + number)
        lab.shaper.shape(vmid, [f"vif{number}.0"], rate_of(SHARE))
    lab.unplug("vif0.0")  # its domain has ended
    lab.shaper.remove(first)
    assert lab.shaper.owned() == {second}
    assert lab.shaper.holds(second, ["vif1.0"], rate_of(SHARE))
    lab.shaper.remove(second, ["vif1.0"])
    assert lab.objects() == ([], [])


def test_an_ifb_of_somebody_else_is_not_taken(lab: Lab, vmid: UUID) -> None:
    guest = lab.guest("g")
    lab.connect(guest, "eth0", "vif7.0", 7)
    name = device_names(vmid)[0]
    lab.inside("dom0", "ip", "link", "add", name, "type", "ifb")
    lab.inside("dom0", "ip", "link", "set", name, "alias", "somebody's")
    with pytest.raises(TcError, match="belongs to"):
        lab.shaper.shape(vmid, ["vif7.0"], rate_of(SHARE))


@pytest.mark.parametrize("name", ["vif7.0;reboot", "a b", "", "x" * 16, "--help"])
def test_a_name_that_is_none_never_reaches_tc(name: str, lab: Lab, vmid: UUID) -> None:
    with pytest.raises(TcError, match="no interface's name"):
        lab.shaper.shape(vmid, [name], rate_of(SHARE))


@pytest.mark.parametrize("bits", [1, 8000, 999_999, 1_234_567, 999_999_999, 1_234_567_890, 12_345_678_901])
def test_every_rate_is_one_that_tc_says_back(bits: int, lab: Lab, vmid: UUID) -> None:
    guest = lab.guest("g")
    lab.connect(guest, "eth0", "vif7.0", 7)
    rate = rate_of(bits, 2 * bits)
    lab.shaper.shape(vmid, ["vif7.0"], rate)
    assert lab.shaper.holds(vmid, ["vif7.0"], rate)
    assert rate.rate <= max(bits, 8000)


@dataclass
class Counted:
    """Runs tools in dom0's namespace, and notes which; the n-th tc fails, when that is asked for."""

    lab: Lab
    calls: list[str] = field(default_factory=list)
    fails: int = 0

    def __call__(self, argv: Sequence[str], deadline: float) -> ToolResult:
        """A ``ToolRunner``."""
        self.calls.append(argv[0])
        if len(self.calls) == self.fails:
            return ToolResult(tuple(argv), 1, "", "told to fail")
        return InNamespace(self.lab)(argv, deadline)


@pytest.fixture
def three(lab: Lab) -> dict[UUID, tuple[list[str], Rate]]:
    """Interfaces of three VMs, and what they are to be limited to."""
    for number in range(3):
        lab.connect(lab.guest(f"g{number}"), "eth0", f"vif{number}.0", 20 + number)
    return {uuid4(): ([f"vif{number}.0"], rate_of(SHARE * (number + 1))) for number in range(3)}


def test_several_vms_are_changed_and_looked_at_by_one_tc(lab: Lab, three: dict[UUID, tuple[list[str], Rate]]) -> None:
    """R-060: what an ApplyChanges over many VMs costs."""
    tools = Counted(lab)
    shaper = Shaper(Tc(tools))
    for vmid, (interfaces, _) in three.items():
        shaper.shape(vmid, interfaces, rate_of(SHARE))
    tools.calls.clear()
    shaper.shape_ahead(three)
    for vmid, (interfaces, rate) in three.items():
        shaper.shape(vmid, interfaces, rate)
    assert tools.calls == ["tc"]
    assert all(lab.shaper.holds(vmid, interfaces, rate) for vmid, (interfaces, rate) in three.items())
    vmid, (interfaces, rate) = next(iter(three.items()))
    somebody = f"tc class change dev {device_names(vmid)[0]} parent 1: classid 1:1 htb rate 1mbit"
    lab.inside("dom0", *somebody.split())
    shaper.shape(vmid, interfaces, rate)
    assert lab.shaper.holds(vmid, interfaces, rate), "what was done ahead counts once"


def test_what_could_not_be_done_ahead_is_done_for_each(lab: Lab, three: dict[UUID, tuple[list[str], Rate]]) -> None:
    """VMs that are new, an interface that is, a device that somebody took away, and a tc that fails."""
    tools = Counted(lab)
    shaper = Shaper(Tc(tools))
    (first, (one, _)), (second, _), *_ = three.items()
    for vmid in (first, second):
        shaper.shape(vmid, three[vmid][0], rate_of(SHARE))
    lab.connect(lab.guest("more"), "eth0", "vif0.1", 30)
    one.append("vif0.1")
    lab.inside("dom0", "ip", "link", "delete", device_names(second)[1])
    for fails in (0, 1):
        tools.calls.clear()
        tools.fails = fails
        shaper.shape_ahead(three)
        for vmid, (interfaces, rate) in three.items():
            shaper.shape(vmid, interfaces, rate)
        assert all(lab.shaper.holds(vmid, interfaces, rate) for vmid, (interfaces, rate) in three.items())
