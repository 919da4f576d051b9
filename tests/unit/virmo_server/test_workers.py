"""Worker processes: replaced when they die, ended when they are told to, given up when they cannot start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

PROGRAM = """
import os, sys, time, logging
from virmo_server.workers import Workers
logging.basicConfig(stream=sys.stderr)
def work(number):
    {work}
    return 0
sys.exit(Workers(work, 2).run())
"""
PATIENCE_SECONDS = 20


def start(work: str) -> subprocess.Popen[str]:
    program = PROGRAM.format(work=work)
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def parent() -> Iterator[subprocess.Popen[str]]:
    process = start("time.sleep(60)")
    yield process
    process.kill()
    process.communicate()


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_for(pid: int, count: int, without: int = 0) -> list[int]:
    """The children when there are so many, ``without`` not among them."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        found = children(pid)
        if len(found) == count and without not in found:
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    path = Path(f"/proc/{pid}/stat")
    return path.exists() and ") Z " not in path.read_text()


def test_a_killed_worker_is_replaced_however_often(parent: subprocess.Popen[str]) -> None:
    for _ in range(8):
        victim = wait_for(parent.pid, 2)[0]
        os.kill(victim, signal.SIGKILL)
        wait_for(parent.pid, 2, without=victim)


def test_each_has_a_number_that_its_successor_takes() -> None:
    process = start("print(number, os.getpid(), flush=True); time.sleep(60)")
    try:
        assert process.stdout is not None
        pids = dict(process.stdout.readline().split() for _ in range(2))
        assert pids.keys() == {"0", "1"}
        os.kill(int(pids["1"]), signal.SIGKILL)
        assert process.stdout.readline().split()[0] == "1"
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE_SECONDS)


def test_a_signal_ends_all(parent: subprocess.Popen[str]) -> None:
    workers = wait_for(parent.pid, 2)
    parent.send_signal(signal.SIGTERM)
    assert parent.wait(PATIENCE_SECONDS) == 0
    assert not any(map(is_alive, workers))


def test_workers_do_not_outlive_their_parent(parent: subprocess.Popen[str]) -> None:
    workers = wait_for(parent.pid, 2)
    parent.kill()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while any(map(is_alive, workers)):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_workers_that_cannot_start_are_given_up() -> None:
    process = start("return 3")
    _, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 1
    assert "giving up: workers ended" in errors
