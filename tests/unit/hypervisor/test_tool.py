"""Running tools: deadlines, kills, caps."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dom0_agent.hypervisor.interface import HypervisorError, HypervisorTimeout
from dom0_agent.hypervisor.tool import COMPLAINT_CAP, MARKER, OUTPUT_CAP, await_orphans, run_tool


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_outputs_and_exit_status_are_told() -> None:
    result = run_tool(["sh", "-c", "echo out; echo err >&2; exit 3"], 10)
    assert (result.returncode, result.untrusted_stdout, result.untrusted_stderr) == (3, "out\n", "err\n")
    assert result.untrusted_complaint == "err"


def test_a_missing_program_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(HypervisorError, match=r"cannot start /no/such/tool.*doctor"):
        run_tool(["/no/such/tool"], 10)


def test_the_deadline_kills_the_tool_and_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    began = time.monotonic()
    with pytest.raises(HypervisorTimeout, match=r"did not end within 0\.5 s"):
        run_tool(["sh", "-c", f"sleep 60 & echo $! $$ > {pids}; wait"], 0.5)
    assert time.monotonic() - began < 10
    end = time.monotonic() + 5
    while any(alive(int(pid)) for pid in pids.read_text().split()):
        assert time.monotonic() < end, "a child survived"
        time.sleep(0.02)


def test_a_daemon_that_keeps_the_output_open_is_not_waited_for_and_not_killed(tmp_path: Path) -> None:
    """libxl starts device models that inherit xl's output."""
    pid_file = tmp_path / "pid"
    began = time.monotonic()
    result = run_tool(["sh", "-c", f"setsid sleep 60 & echo $! > {pid_file}; echo done"], 30)
    assert time.monotonic() - began < 20
    assert result.untrusted_stdout == "done\n"
    pid = int(pid_file.read_text())
    assert alive(pid)
    os.kill(pid, 9)


def test_endless_output_is_cut_and_does_not_block_the_tool() -> None:
    result = run_tool([sys.executable, "-c", f"print('x' * {3 * OUTPUT_CAP})"], 30)
    assert result.returncode == 0
    assert len(result.untrusted_stdout) == OUTPUT_CAP


def test_a_complaint_is_one_printable_line_of_bounded_length() -> None:
    result = run_tool(
        [sys.executable, "-c", "import sys; sys.stderr.write('a\\x1b[2J\\n\\n' + 'b' * 5000); sys.exit(1)"], 30
    )
    complaint = result.untrusted_complaint
    assert complaint.isprintable()
    assert len(complaint) <= COMPLAINT_CAP + 2


def test_the_environment_does_not_translate_and_marks_our_tools() -> None:
    result = run_tool(["sh", "-c", f"echo $LC_ALL ${MARKER}"], 10)
    assert result.untrusted_stdout == "C 1\n"


def test_orphans_of_a_killed_agent_are_awaited_and_killed_at_the_deadline(tmp_path: Path) -> None:
    # marked processes whose parent is gone, named as no other on this machine
    program = tmp_path / "vt-sleep"
    program.symlink_to("/bin/sleep")
    for seconds in ("0.4", "60"):
        command = f"{MARKER}=1 setsid {program} {seconds} >/dev/null 2>&1 & exit 0"
        subprocess.run(["sh", "-c", command], check=True, timeout=10)
    time.sleep(0.1)
    began = time.monotonic()
    assert await_orphans("vt-sleep", 1.0) == 2
    assert 0.9 < time.monotonic() - began < 8
    assert await_orphans("vt-sleep", 1.0) == 0


def test_unmarked_processes_are_no_orphans() -> None:
    assert await_orphans("python3", 0.1) == 0
