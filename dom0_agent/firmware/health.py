"""Judges a system slot that is on trial, as a program of its own: the agent must not be its own judge.

    python3 -m dom0_agent.firmware.health --config FILE --slots FILE

Healthy is: `virmo-agent doctor` finds nothing that fails, and the running agent answers. A board without
a configuration is healthy when Xen answers. At the deadline the board is restarted, and the boot loader counts.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from dom0_agent.firmware.slots import GrubSlots, SlotError, Slots

DEADLINE = 600.0  #: seconds from the start of this program
PAUSE = 5.0
TOOL_DEADLINE = 120.0


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0: the running slot is the good one."""
    parser = argparse.ArgumentParser(description="Judge the system slot that is on trial: keep it, or restart.")
    parser.add_argument("--config", type=Path, required=True, help="the agent's configuration")
    parser.add_argument("--slots", type=Path, required=True, help="the boot loader's environment block")
    parser.add_argument("--deadline", type=float, default=DEADLINE, metavar="SECONDS", help="default: %(default)s")
    options = parser.parse_args(argv)
    try:
        return judge(GrubSlots(options.slots), lambda: complaint(options.config), options.deadline)
    except SlotError as error:
        print(f"health: {error}", file=sys.stderr)
        return 1


def judge(
    slots: Slots,
    complain: Callable[[], str],
    deadline: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    wait: Callable[[float], None] = time.sleep,
    restart: Callable[[], None] | None = None,
) -> int:
    """Confirms the running slot as soon as ``complain`` has nothing to say; else restarts at the deadline."""
    trial = slots.trial()
    if trial is None or trial.slot != slots.running():
        if slots.good() == slots.running():
            print(f"health: slot {slots.running()} is the good one; nothing is on trial here")
        return 0
    end = clock() + deadline
    while reason := complain():
        print(f"health: slot {trial.slot} is not healthy yet: {reason}", flush=True)
        if clock() >= end:
            print(f"health: slot {trial.slot} did not become healthy within {deadline:.0f} s; restarting", flush=True)
            (restart or _restart)()
            return 1
        wait(PAUSE)
    slots.confirm()
    print(f"health: slot {trial.slot} is healthy, and the good one from now on")
    return 0


def complaint(config: Path) -> str:
    """What is wrong with this system, in a few words; empty when nothing is."""
    if not config.exists():
        checks: tuple[tuple[str, ...], ...] = (("xl", "info"),)
    else:
        checks = (("virmo-agent", "--config", str(config), "doctor"), ("virmoctl", "status"))
    for argv in checks:
        try:
            done = subprocess.run(argv, capture_output=True, text=True, timeout=TOOL_DEADLINE, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"{argv[0]}: {error}"
        if done.returncode != 0:
            lines = (done.stdout + done.stderr).strip().splitlines() or ["no output"]
            failed = [line for line in lines if line.startswith("FAIL")] or lines[-1:]
            return f"{' '.join(argv)}: {'; '.join(failed)[:300]}"
    return ""


def _restart() -> None:
    subprocess.run(["systemctl", "reboot"], check=False, timeout=TOOL_DEADLINE)


if __name__ == "__main__":
    sys.exit(main())
