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
    """Work done by one process for each online CPU, and what the kernel says that they had."""
    began, cpus = time.monotonic(), os.sysconf("SC_NPROCESSORS_ONLN")
    readers = []
    for _ in range(cpus):
        reading, writing = os.pipe()
        if os.fork() == 0:
            turn(began + warm)
            done = turn(began + warm + seconds)
            turn(began + warm + seconds + tail)
            os.write(writing, b"%d\n" % done)
            os._exit(0)
        os.close(writing)
        readers.append(reading)
    ran = ran_meanwhile(began + warm, began + warm + seconds, cpus)
    rounds = 0
    for reading in readers:
        with os.fdopen(reading) as file:
            rounds += int(file.readline())
        os.wait()
    return {"cpus": cpus, "rounds": rounds, "ran": ran}


def ran_meanwhile(begin: float, end: float, cpus: int) -> float:
    """Percent of one CPU that the online CPUs ran between two moments: what was neither idle nor stolen by others."""
    time.sleep(max(0.0, begin - time.monotonic()))
    before, began = not_run(), time.monotonic()
    time.sleep(max(0.0, end - time.monotonic()))
    after, ended = not_run(), time.monotonic()
    return 100 * (cpus - (after - before) / (ended - began))


def not_run() -> float:
    """Seconds for which CPUs were idle, waited or were stolen, by now."""
    numbers = [int(word) for word in Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:]]
    return (numbers[IDLE] + numbers[IOWAIT] + numbers[STEAL]) / os.sysconf("SC_CLK_TCK")


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
