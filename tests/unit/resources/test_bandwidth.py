"""How much a network share is: of what is configured, or of what the uplink's driver says (R-049, R-052)."""

from __future__ import annotations

from pathlib import Path

import pytest

from dom0_agent.operation import OperationRefused
from dom0_agent.resources import bandwidth as module
from dom0_agent.resources.bandwidth import bandwidth, rate_for
from dom0_agent.resources.config import NetworkConfig
from dom0_agent.resources.network import Rate

GIGABIT, MEGABIT = 10**9, 10**6


@pytest.fixture
def devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A dom0 whose bridge has a guest's interface and a card of 2.5 Gbit/s; another card's cable is not plugged in."""
    for name, speed in (("br0", None), ("vif1.0", "10000"), ("eth0", "2500"), ("eth1", "-1"), ("tun0", None)):
        (tmp_path / name).mkdir()
        if speed is not None:
            (tmp_path / name / "speed").write_text(f"{speed}\n")
    for card in ("eth0", "eth1"):
        (tmp_path / card / "device").mkdir()
    for port in ("vif1.0", "eth0"):
        (tmp_path / "br0" / "brif" / port).mkdir(parents=True)
    monkeypatch.setattr(module, "DEVICES", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("config", "bridge", "bits"),
    [
        (NetworkConfig(), "br0", 2500 * MEGABIT),
        (NetworkConfig(bandwidth=8 * MEGABIT), "br0", 8 * MEGABIT),
        (NetworkConfig(uplink="eth1"), "br0", 0),
        (NetworkConfig(uplink="tun0"), "br0", 0),
        (NetworkConfig(uplink="gone0"), "br0", 0),
        (NetworkConfig(), "br1", 0),
        (NetworkConfig(), "", 0),
    ],
)
def test_the_devices_bandwidth(config: NetworkConfig, bridge: str, bits: int, devices: Path) -> None:
    """Configured, else of the bridge's physical port; 0 where nobody knows."""
    assert bandwidth(config, bridge, devices) == bits


def test_a_cable_that_is_plugged_in_at_run_time_counts(devices: Path) -> None:
    (devices / "eth1" / "speed").write_text("1000\n")
    assert bandwidth(NetworkConfig(uplink="eth1"), "br0", devices) == GIGABIT


@pytest.mark.parametrize(
    ("percent", "vendor", "work_conserving", "rate"),
    [
        (30, {}, False, Rate(300 * MEGABIT, 300 * MEGABIT)),
        (30, {}, True, Rate(300 * MEGABIT, GIGABIT)),
        (30, {"NetworkBps": "200000000"}, False, Rate(200 * MEGABIT, 200 * MEGABIT)),
        (30, {"NetworkBps": "900000000"}, False, Rate(300 * MEGABIT, 300 * MEGABIT)),
        (30, {"NetworkBps": "900000000"}, True, Rate(300 * MEGABIT, 900 * MEGABIT)),
        (0, {}, False, None),
        (0, {"NetworkBps": "5000000"}, False, Rate(5 * MEGABIT, 5 * MEGABIT)),
        (0, {"NetworkBps": "0"}, False, None),
    ],
)
def test_a_share_in_bits_a_second(
    percent: int, vendor: dict[str, str], work_conserving: bool, rate: Rate | None
) -> None:
    """R-052: NetworkBps only ever makes a share less; without a share it is the limit. Work-conserving: a rate that is
    guaranteed, up to the whole bandwidth while others leave it idle."""
    config = NetworkConfig(bandwidth=GIGABIT, work_conserving=work_conserving)
    assert rate_for(percent, vendor, config, "br0") == rate


def test_a_share_of_what_nobody_knows_is_refused(devices: Path) -> None:
    """403, and it says what to set; a limit in bits needs no bandwidth."""
    with pytest.raises(OperationRefused, match=r"resources\.network\.bandwidth") as refused:
        rate_for(10, {}, NetworkConfig(uplink="tun0"), "br0")
    assert refused.value.status == 403
    assert rate_for(0, {"NetworkBps": "8000000"}, NetworkConfig(uplink="tun0"), "br0") is not None
