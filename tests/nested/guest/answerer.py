"""Runs in a guest whose resources are measured: does what a test in dom0 asks, as root, and says how it went.

One connection is one question, which ends where the asker sends no more:

    burn WARM SECONDS TAIL   burn on all online CPUs; what was done in SECONDS after WARM, burning on for TAIL
    anything else            for the shell: exit status, then what it printed

``burn`` answers ``{"cpus": …, "rounds": …, "ran": …}``: CPUs, rounds of work, and how much they ran, by the clock of
the guest's kernel, in percent of one. Its addresses come from ``hotplug``.
"""

from __future__ import annotations

import json
import os
import socket
import socketserver
import subprocess
import time
from pathlib import Path

PORT = 7777
ROUND = 20000  #: turns of the loop that are a round: some milliseconds
IDLE, IOWAIT, STEAL = 3, 4, 7  #: columns of /proc/stat


class Server(socketserver.ThreadingTCPServer):
    """Both IP versions, a thread a question."""

    address_family = socket.AF_INET6
    allow_reuse_address = True
    daemon_threads = True


class Question(socketserver.StreamRequestHandler):
    """One question, one answer."""

    def handle(self) -> None:
        """Do it."""
        question = self.rfile.read().decode()
        if question.startswith("burn "):
            answer = json.dumps(burn(*map(float, question.split()[1:])))
        else:
            done = subprocess.run(["/bin/sh", "-c", question], capture_output=True, text=True, check=False)
            answer = f"{done.returncode}\n{done.stdout}{done.stderr}"
        self.wfile.write(answer.encode())


def burn(warm: float, seconds: float, tail: float) -> dict[str, float]:
    """Work done by one process on each online CPU, and what the kernel says that they had."""
    began, cpus = time.monotonic(), sorted(os.sched_getaffinity(0))
    readers = []
    for cpu in cpus:
        reading, writing = os.pipe()
        if os.fork() == 0:
            os.sched_setaffinity(0, {cpu})
            turn(began + warm)
            first = not_run(cpu)
            done = turn(began + warm + seconds)
            ran = 100 * ran_between(first, not_run(cpu))
            turn(began + warm + seconds + tail)
            os.write(writing, f"{done} {ran}\n".encode())
            os._exit(0)
        os.close(writing)
        readers.append(reading)
    told = []
    for reading in readers:
        with os.fdopen(reading) as file:
            told.append([float(number) for number in file.readline().split()])
        os.wait()
    rounds, all_ran = map(sum, zip(*told, strict=True))
    return {"cpus": len(cpus), "rounds": rounds, "ran": all_ran}


def ran_between(first: tuple[float, float], last: tuple[float, float]) -> float:
    """Which part of the time between two looks a CPU ran: what was neither idle nor stolen by others."""
    return 1 - (last[1] - first[1]) / (last[0] - first[0])


def not_run(cpu: int) -> tuple[float, float]:
    """When, and the seconds for which this CPU was idle, waited or was stolen, by then.

    Asked for on the CPU itself: what was stolen is only known to it, and counted when it runs again.
    """
    (line,) = (
        line for line in Path("/proc/stat").read_text(encoding="ascii").splitlines() if line.startswith(f"cpu{cpu} ")
    )
    numbers = [int(word) for word in line.split()[1:]]
    return time.monotonic(), (numbers[IDLE] + numbers[IOWAIT] + numbers[STEAL]) / os.sysconf("SC_CLK_TCK")


def turn(end: float) -> int:
    """Rounds until a moment."""
    rounds = 0
    while time.monotonic() < end:
        for _ in range(ROUND):
            pass
        rounds += 1
    return rounds


if __name__ == "__main__":
    Server(("::", PORT), Question).serve_forever()
