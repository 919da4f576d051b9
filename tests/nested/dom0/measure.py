"""Runs in dom0: has guests with ``guest/answerer.py`` burn, send and look, and tells what they and Xen saw as JSON.

    measure.py cpu SECONDS VMID…               all burn on all their CPUs at once; virmoctl is asked while they go on
    measure.py network VMID SECONDS RATE KIND… iperf3; KIND is words with dashes, see ``traffic``
    measure.py sh VMID LINE                    run by the shell in the guest: {"status": …, "output": …}
    measure.py prepare                         dom0's own addresses on the guests' bridge

Rates are bits a second.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

from dom0_agent.hypervisor.interface import DomainInfo
from dom0_agent.hypervisor.libxc import Libxc, load_library

BRIDGE = "xenbr0"
PORT = 7777
IPERF_PORT = 5201
NETWORKS = (77, 78)  #: 10.77.0.0/16 and fd77::/64 for first interfaces, 78 for second ones
PATIENCE = 120.0
WARM, TAIL = 4.0, 14.0  #: seconds of burning before and after what counts
LOOKS, LOOK_PAUSE = 3, 1.0  #: at dom0 in the tail, when it may burn, too; seconds between them
PAYLOAD = 1400  #: bytes of a UDP datagram
#: Bytes of frames (which are what htb counts) for each byte of payload: Ethernet, IP, UDP, and TCP with timestamps.
FRAMES = {
    ("udp", "4"): (PAYLOAD + 14 + 20 + 8) / PAYLOAD,
    ("udp", "6"): (PAYLOAD + 14 + 40 + 8) / PAYLOAD,
    ("tcp", "4"): 1514 / (1500 - 20 - 32),
    ("tcp", "6"): 1514 / (1500 - 40 - 32),
}
OMIT = 4  #: seconds while queues fill and senders find their rate
#: Bytes that may wait for a receiver; a datagram counts there with the pages it lies in. With the usual 208 KiB half a
#: second without a processor loses what the share let through.
RECEIVE_BUFFER = 4 << 20
HERE = Path(__file__).parent


class Guest:
    """A VM's domain, and the way to its answerer."""

    def __init__(self, libxc: Libxc, vmid: str) -> None:
        self.uuid = UUID(vmid)
        (domain,) = [d for d in libxc.domains() if d.uuid == self.uuid]
        self.domid = domain.domid
        self.base = f"/local/domain/0/backend/vif/{self.domid}"

    def address(self, number: int = 0, version: str = "4") -> str:
        """Of an interface."""
        first, last = store(f"{self.base}/{number}/mac").split(":")[-2:]
        network = NETWORKS[number]
        return f"10.{network}.{int(first, 16)}.{int(last, 16)}" if version == "4" else f"fd{network}::{first}{last}"

    def ask(self, question: str, deadline: float = PATIENCE) -> str:
        """Its answer."""
        with socket.create_connection((self.address(), PORT), timeout=deadline) as connection:
            connection.sendall(question.encode())
            connection.shutdown(socket.SHUT_WR)
            with connection.makefile() as answer:
                return answer.read()

    def sh(self, line: str) -> tuple[int, str]:
        """Exit status and output."""
        status, _, output = self.ask(line).partition("\n")
        return int(status), output

    def await_cpus(self) -> None:
        """All CPUs that dom0 lets it have are online, and no others."""
        base = f"/local/domain/{self.domid}/cpu"
        numbers = subprocess.run(["xenstore-list", base], capture_output=True, text=True, check=True).stdout.split()
        allowed = sum(store(f"{base}/{number}/availability") == "online" for number in numbers)
        until(lambda: int(self.sh("busybox nproc")[1]) == allowed, f"{allowed} CPUs are online")

    def await_listener(self, port: int) -> None:
        """A program has begun to listen on a TCP port."""
        shown = f"grep -q ':{port:04X} .* 0A ' /proc/net/tcp /proc/net/tcp6"
        until(lambda: self.sh(shown)[0] == 0, f"the guest listens on port {port}")

    def await_ping(self, number: int, version: str) -> None:
        """It can be reached at an interface."""
        argv = ["ping", "-c", "1", "-W", "2", self.address(number, version)]
        until(lambda: subprocess.run(argv, capture_output=True, check=False).returncode == 0, " ".join(argv))


def store(path: str) -> str:
    """What XenStore has there."""
    return subprocess.run(["xenstore-read", path], capture_output=True, text=True, check=True).stdout.strip()


def until(truth: Callable[[], bool], what: str) -> None:
    """Wait for it."""
    end = time.monotonic() + PATIENCE
    while not truth():
        if time.monotonic() > end:
            raise SystemExit(f"not within {PATIENCE:.0f} s: {what}")
        time.sleep(0.3)


def prepare() -> None:
    """dom0 is 10.77.0.1 and fd77::1, 10.78.0.1 and fd78::1."""
    for network in NETWORKS:
        for address in (f"10.{network}.0.1/16", f"fd{network}::1/64"):
            subprocess.run(["ip", "address", "replace", address, "dev", BRIDGE, "nodad"], check=True)


def cpu(seconds: float, vmids: list[str]) -> dict[str, Any]:
    """Each guest's work by its own count, its CPU time by Xen's, and how long ``virmoctl status`` took right after."""
    libxc = Libxc(load_library("4.17"))
    guests = [Guest(libxc, vmid) for vmid in vmids]
    for guest in guests:
        guest.await_cpus()
    idle, _ = looks()
    answers: list[dict[str, float]] = [{}] * len(guests)

    def burn(index: int, guest: Guest) -> None:
        answers[index] = json.loads(guest.ask(f"burn {WARM} {seconds} {TAIL}", seconds + PATIENCE))

    threads = [threading.Thread(target=burn, args=pair) for pair in enumerate(guests)]
    for thread in threads:
        thread.start()
    time.sleep(WARM)
    before, began = times(libxc), time.monotonic()
    time.sleep(seconds)
    after, ended = times(libxc), time.monotonic()
    statuses, bare = looks()
    assert time.monotonic() < ended + TAIL, "the guests had stopped to burn when dom0 was looked at"
    for thread in threads:
        thread.join()
    used = {uuid: (after[uuid] - before[uuid]) / (ended - began) * 100 for uuid in after if uuid in before}
    mine, rounds = [used[guest.uuid] for guest in guests], [answer["rounds"] for answer in answers]
    return {
        "work": [100 * done / sum(rounds) for done in rounds],
        "rounds": [done / seconds for done in rounds],
        "time": [100 * one / sum(mine) for one in mine],
        "cpus": mine,
        "ran": [answer["ran"] for answer in answers],
        "online": [int(answer["cpus"]) for answer in answers],
        "dom0": used[UUID(int=0)],
        "idle": idle,
        "status": statuses,
        "python": bare,
    }


def looks() -> tuple[list[float], list[float]]:
    """Seconds that ``virmoctl status`` takes now, and Python alone."""
    statuses, bare = [], []
    for _ in range(LOOKS):
        statuses.append(taken("virmoctl", "status"))
        bare.append(taken("python3", "-c", "pass"))
        time.sleep(LOOK_PAUSE)
    return statuses, bare


def taken(*argv: str) -> float:
    """Seconds that a program took."""
    asked = time.monotonic()
    subprocess.run(argv, check=True, capture_output=True)
    return round(time.monotonic() - asked, 3)


def times(libxc: Libxc) -> dict[UUID, float]:
    """CPU seconds of all domains."""
    domains: tuple[DomainInfo, ...] = libxc.domains()
    return {domain.uuid: domain.cpu_seconds for domain in domains}


def network(vmid: str, seconds: int, rate: int, kinds: list[str]) -> dict[str, Any]:
    """Bits a second of each kind of traffic: ``tcp-4-down-1`` is TCP over IPv4 to the guest over one interface."""
    guest = Guest(Libxc(load_library("4.17")), vmid)
    set_buffer = f"echo {RECEIVE_BUFFER} >/proc/sys/net/core/rmem_default"
    guest.sh(set_buffer)
    subprocess.run(["sh", "-c", set_buffer], check=True)
    for number in range(max(int(kind.split("-")[3]) for kind in kinds)):
        for version in "46":
            guest.await_ping(number, version)
    return {kind: traffic(guest, kind, seconds, rate) for kind in kinds}


def traffic(guest: Guest, kind: str, seconds: int, rate: int) -> list[float]:
    """What the receiver of each interface saw, all sending at once, in frames."""
    protocol, version, direction, count = kind.split("-")
    running = []
    ports = [IPERF_PORT + number for number in range(int(count))]
    for port in ports:  # one that writes JSON resets the second connection that it gets
        guest.sh(f"iperf3 --server --daemon --one-off --json --port {port} >/dev/null 2>&1")
        guest.await_listener(port)
    for number, port in enumerate(ports):
        argv = ["iperf3", "--json", "--get-server-output"]
        argv += ["--client", guest.address(number, version), "--port", str(port)]
        argv += ["--time", str(seconds), "--omit", str(OMIT), f"-{version}"]
        argv += ["--udp", "--length", str(PAYLOAD), "--bitrate", str(rate // int(count))] if protocol == "udp" else []
        argv += ["--reverse"] if direction == "up" else []
        environment = {**os.environ, "LD_LIBRARY_PATH": str(HERE / "iperf")}
        argv[0] = str(HERE / "iperf" / "iperf3")
        running.append(subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environment))
    rates = []
    for process in running:
        output, _ = process.communicate(timeout=seconds + PATIENCE)
        told = json.loads(output)
        if "error" in told:
            raise SystemExit(f"iperf3, {kind}: {told['error']}")
        receiver = told if direction == "up" else told["server_output_json"]
        rates.append(received(receiver["intervals"], seconds) * FRAMES[protocol, version])
    return rates


def received(intervals: list[dict[str, Any]], seconds: int) -> float:
    """Bits a second of payload while all sent: from the second interval that counts until `seconds` are over.

    Not iperf3's own sum: its end is when the receiver is told of the end, which the other interface's flood holds up.
    """
    counted = [interval["sum"] for interval in intervals if not interval["sum"]["omitted"]][1:]
    whole = [one for one in counted if one["end"] <= seconds]
    return float(8 * sum(one["bytes"] for one in whole) / sum(one["seconds"] for one in whole))


def sh(vmid: str, line: str) -> dict[str, Any]:
    """Run it in the guest."""
    guest = Guest(Libxc(load_library("4.17")), vmid)
    status, output = guest.sh(line)
    return {"status": status, "output": output}


def main(verb: str, *words: str) -> None:
    """See the module."""
    if verb == "prepare":
        prepare()
    elif verb == "cpu":
        print(json.dumps(cpu(float(words[0]), list(words[1:]))))
    elif verb == "network":
        print(json.dumps(network(words[0], int(words[1]), int(words[2]), list(words[3:]))))
    else:
        print(json.dumps(sh(words[0], words[1])))


if __name__ == "__main__":
    main(*sys.argv[1:])
