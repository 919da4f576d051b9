"""Slots as files in place of partitions: what is written, read back, armed and confirmed."""

from __future__ import annotations

from pathlib import Path

import pytest

from dom0_agent.firmware import grubenv
from dom0_agent.firmware.health import judge
from dom0_agent.firmware.slots import GrubSlots, SlotError, Trial, slot_of


@pytest.fixture
def slots(tmp_path: Path) -> GrubSlots:
    for name in ("a", "b"):
        (tmp_path / f"virmo-root-{name}").write_bytes(b"\0" * (3 << 20))
    (tmp_path / "cmdline").write_text("console=hvc0 virmo.slot=a quiet\n")
    (tmp_path / "grubenv").write_bytes(grubenv.render({"slot": "a", "try": "", "tries": "0"}))
    return GrubSlots(tmp_path / "grubenv", tmp_path, tmp_path / "cmdline")


@pytest.mark.parametrize("line", ["", "virmo.slot=", "virmo.slot=c", "xvirmo.slot=a"])
def test_a_system_that_was_not_started_from_a_slot_is_told(line: str) -> None:
    with pytest.raises(SlotError, match=r"virmo\.slot"):
        slot_of(line)


def test_the_other_slot_is_written_and_the_running_one_never(slots: GrubSlots, tmp_path: Path) -> None:
    (tmp_path / "system").write_bytes(b"hsqs" + bytes(range(256)) * 8000)
    heard: list[int] = []
    slots.write("b", tmp_path / "system", heard.append)
    assert (tmp_path / "virmo-root-b").read_bytes().startswith((tmp_path / "system").read_bytes())
    assert heard[-1] == 100
    with pytest.raises(SlotError, match="slot a runs"):
        slots.write("a", tmp_path / "system", heard.append)


def test_a_system_that_does_not_fit_is_refused_before_anything_is_written(slots: GrubSlots, tmp_path: Path) -> None:
    (tmp_path / "system").write_bytes(b"x" * (4 << 20))
    with pytest.raises(SlotError, match="bytes, the system"):
        slots.write("b", tmp_path / "system", lambda _percent: None)
    assert (tmp_path / "virmo-root-b").read_bytes() == b"\0" * (3 << 20)


def test_armed_then_confirmed(slots: GrubSlots, tmp_path: Path) -> None:
    slots.arm("b", 3)
    assert (slots.good(), slots.trial()) == ("a", Trial("b", 3))
    (tmp_path / "cmdline").write_text("virmo.slot=b")
    assert judge(slots, lambda: "", 1.0) == 0
    assert (slots.good(), slots.trial()) == ("b", None)


def test_a_slot_that_never_gets_healthy_is_restarted_and_not_confirmed(slots: GrubSlots, tmp_path: Path) -> None:
    slots.arm("b", 3)
    (tmp_path / "cmdline").write_text("virmo.slot=b")
    now, restarted = [0.0], []

    def wait(seconds: float) -> None:
        now[0] += seconds

    complaints = iter(["the agent does not answer"] * 100)
    done = judge(
        slots, lambda: next(complaints), 30.0, clock=lambda: now[0], wait=wait, restart=lambda: restarted.append(now[0])
    )
    assert (done, restarted) == (1, [30.0])
    assert (slots.good(), slots.trial()) == ("a", Trial("b", 3)), "the boot loader counts, not the health check"


def test_the_good_slot_is_not_judged(slots: GrubSlots) -> None:
    def complain() -> str:
        raise AssertionError("nobody asks")

    assert judge(slots, complain, 1.0) == 0


def test_a_boot_partition_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "cmdline").write_text("virmo.slot=a")
    slots = GrubSlots(tmp_path / "nothing", tmp_path, tmp_path / "cmdline")
    for act in (slots.good, slots.trial, slots.disarm, slots.confirm):
        with pytest.raises(SlotError, match="boot partition"):
            act()
