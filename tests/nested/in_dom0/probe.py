"""Runs in the guests of the resource tests: does what a test in dom0 asks, as root, and says how it went.

Its address is on the kernel command line (``probe=7`` is 10.77.0.7 and fd77::7). One connection is one question: a line
of shell, answered with what it printed. ``burn SECONDS PROCESSES`` counts as fast as it can and answers with the count.
"""

from __future__ import annotations

import os
import re
import socket
import socketserver
import subprocess
import threading
import time
from pathlib import Path

PORT = 7777
CHUNK = 20000


def main() -> None:
    """Serve for ever; take the address on each interface that comes."""
    match = re.search(r"\bprobe=(\d+)\b", Path("/proc/cmdline").read_text(encoding="ascii"))
    assert match is not None
    threading.Thread(target=keep_addresses, args=(int(match[1]),), daemon=True).start()
    Server(("::", PORT), Question).serve_forever()


def keep_addresses(number: int) -> None:
    """The first interface is 10.77.0.N, the next 10.78.0.N, and so on."""
    while True:
        names = sorted(path.name for path in Path("/sys/class/net").iterdir() if path.name != "lo")
        for index, name in enumerate(names):
            for address in (f"10.{77 + index}.0.{number}/24", f"fd{77 + index}::{number}/64"):
                subprocess.run(["ip", "addr", "add", address, "dev", name], capture_output=True, check=False)
            subprocess.run(["ip", "link", "set", name, "up"], check=False)
        time.sleep(5 if names else 0.5)


class Server(socketserver.ThreadingTCPServer):
    """Both IP versions, a thread a question."""

    address_family = socket.AF_INET6
    allow_reuse_address = True
    daemon_threads = True


class Question(socketserver.StreamRequestHandler):
    """One line, one answer."""

    def handle(self) -> None:
        """Run it."""
        line = self.rfile.readline().decode().strip()
        if line.startswith("burn "):
            _, seconds, processes = line.split()
            answer = str(burn(float(seconds), int(processes)))
        else:
            done = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, check=False)
            answer = f"{done.returncode}\n{done.stdout}{done.stderr}"
        self.wfile.write(answer.encode())


def burn(seconds: float, processes: int) -> int:
    """Work done by so many processes at once."""
    readers = []
    for _ in range(processes):
        reading, writing = os.pipe()
        if os.fork() == 0:
            os.write(writing, b"%d\n" % count(seconds))
            os._exit(0)
        os.close(writing)
        readers.append(reading)
    total = 0
    for reading in readers:
        with os.fdopen(reading) as file:
            total += int(file.readline())
        os.wait()
    return total


def count(seconds: float) -> int:
    """Rounds of a loop until the time is over."""
    end, rounds = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        for _ in range(CHUNK):
            pass
        rounds += 1
    return rounds


if __name__ == "__main__":
    main()
