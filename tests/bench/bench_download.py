#!/usr/bin/env python3
"""Seconds to fetch a 1 GiB image: the agent's downloader beside curl and sha256sum, in turns.

All fetch the same file from the same local server (a process of its own, sending with sendfile) and compute its
SHA-256. There are three rivals: ``curl`` piped to sha256sum with a tee to the file between them, ``curl -o FILE`` with
sha256sum after it, and ``curl | sha256sum``, which keeps nothing. The agent is judged by the faster of the two that do
what it does, keep the file: at most 1.05 times its time (at least 0.95 of its speed), by the medians of the rounds.

The agent's part runs in a fresh process each time, which also tells its memory: the peak before and after the download.
The difference must be small, whatever the size of the image. Beside it, a figure without a target: the whole way to a
verified image in State 2 (download, unpacking, SHA-256 of each member, fsync).

Prints a table and ends with one line of JSON. Exit status 1 when a target is missed (``--report`` only reports).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pathlib
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

MIB = 1024 * 1024
TARGET = 1.05
#: how much memory a download may take, whatever its size: a buffer, and what http.client and the allocator hold
MEMORY = 8 * MIB
RIVALS = {
    "curl | tee FILE | sha256sum": 'curl -sS "$1" | tee "$2" | sha256sum',
    "curl -o FILE; sha256sum": 'curl -sS -o "$2" "$1" && sha256sum < "$2"',
    "curl | sha256sum": 'curl -sS "$1" | sha256sum',
}
#: they keep the file, as the agent does; the third is only for comparison
JUDGES = tuple(RIVALS)[:2]
OURS, SERVICE = "agent: download", "agent: to State 2"


@dataclass(frozen=True)
class Run:
    """One download."""

    seconds: float
    digest: str
    memory: int = 0  #: bytes that the process grew by


class Server:
    """Sends one file, whatever is asked for; each connection in a thread, each file by sendfile."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def run(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        size = self._path.stat().st_size
        with connection, self._path.open("rb") as file:
            while b"\r\n\r\n" not in connection.recv(65536):
                pass
            head = f'HTTP/1.1 200 OK\r\nContent-Length: {size}\r\nETag: "1"\r\nConnection: close\r\n\r\n'
            connection.sendall(head.encode())
            connection.sendfile(file)


def make_file(path: pathlib.Path, size: int) -> str:
    """A bundle that is ``size`` bytes large: one raw disk of bytes that are neither zero nor compressible."""
    from dom0_agent.images.manifest import Disk, Manifest, render_manifest

    disk = path.with_name("disk.img")
    digest = hashlib.sha256()
    with disk.open("wb") as out:
        for _ in range(size // MIB):
            piece = os.urandom(MIB)
            digest.update(piece)
            out.write(piece)
    described = Disk("disk.img", digest.hexdigest(), disk.stat().st_size, "raw", "xvda")
    manifest = Manifest("bench", "x86_64", "hvm", 1, 512 * MIB, disks=(described,))
    path.with_name("vm.yaml").write_bytes(render_manifest(manifest))
    command = ["tar", "-C", str(path.parent), "-cf", str(path), "vm.yaml", "disk.img"]
    subprocess.run(command, check=True, timeout=600)
    disk.unlink()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def rival(script: str, url: str, folder: pathlib.Path) -> Run:
    """The rival's time, from the start of its processes to the end of the last."""
    begun = time.perf_counter()
    command = ["bash", "-o", "pipefail", "-c", script, "rival", url, str(folder / "rival")]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
    return Run(time.perf_counter() - begun, done.stdout.split()[0])


def ours(url: str, folder: pathlib.Path, *, whole: bool = False) -> Run:
    """The agent's time in a process of its own; without that process's start, for the agent is running already."""
    option = ["--child-service" if whole else "--child", url, str(folder / "ours")]
    command = [sys.executable, str(pathlib.Path(__file__).resolve()), *option]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
    told = json.loads(done.stdout)
    return Run(told["seconds"], told["digest"], told["memory"])


def peak() -> int:
    """The most bytes this process ever had in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Silent:
    """A watcher without an opinion."""

    def begins(self, content_type: str, missing: int | None) -> None:
        """Nothing to reserve."""

    def received(self, size: int, total: int | None, fresh: int) -> None:
        """Nothing to tell."""


def child(url: str, folder: pathlib.Path) -> None:
    """Download once and print the figures."""
    from dom0_agent.images.config import ImagesConfig
    from dom0_agent.images.download import Downloader, Order
    from dom0_agent.images.partial import Partial

    downloader = Downloader(ImagesConfig(dir=folder))
    before = peak()
    begun = time.perf_counter()
    done = downloader.fetch(Order(url, 1 << 40), Partial(folder), Silent(), threading.Event())
    seconds = time.perf_counter() - begun
    print(json.dumps({"seconds": seconds, "digest": done.sha256, "memory": peak() - before}))


def child_service(url: str, folder: pathlib.Path) -> None:
    """Deliver the image to State 2 and print the figures."""
    from dom0_agent.images.config import ImagesConfig
    from dom0_agent.images.mediatypes import BUNDLE
    from dom0_agent.images.service import LocalImageService
    from dom0_agent.store.database import Database
    from dom0_agent.store.images import ImageTable

    folder.mkdir()
    database = Database(folder / "agent.db")
    table = ImageTable(database)
    service = LocalImageService(ImagesConfig(dir=folder / "images", arch="x86_64"), table)
    service.start()
    image = service.add()
    before = peak()
    begun = time.perf_counter()
    result = service.download(image, url, BUNDLE).wait(600)
    seconds = time.perf_counter() - begun
    if result is None or not result.ok:
        raise SystemExit(f"the download failed: {result}")
    stored = table.get(image)
    service.close()
    database.close()
    print(json.dumps({"seconds": seconds, "digest": stored and stored.sha256, "memory": peak() - before}))


def measure(size: int, rounds: int, folder: pathlib.Path) -> dict[str, list[Run]]:
    """All runs, in turns; every digest is compared with the file's."""
    path = folder / "image.tar"
    digest = make_file(path, size)
    server = Server(path)
    process = os.fork()
    if process == 0:
        server.run()
    names = [*RIVALS, OURS, SERVICE]
    runs: dict[str, list[Run]] = {name: [] for name in names}
    try:
        url = f"http://127.0.0.1:{server.port}/image.tar"
        for number in range(rounds):
            for name in names if number % 2 else reversed(names):
                scratch = pathlib.Path(tempfile.mkdtemp(dir=folder))
                if name in RIVALS:
                    runs[name].append(rival(RIVALS[name], url, scratch))
                else:
                    runs[name].append(ours(url, scratch, whole=name == SERVICE))
                shutil.rmtree(scratch)
    finally:
        os.kill(process, 9)
        os.waitpid(process, 0)
    for name, several in runs.items():
        if any(run.digest != digest for run in several):
            raise SystemExit(f"{name}: a wrong digest")
    return runs


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1024 * MIB, help="bytes of the image (default 1 GiB)")
    parser.add_argument("--rounds", type=int, default=7, help="downloads by each")
    parser.add_argument("--short", action="store_true", help="32 MiB, three rounds, no judgement")
    parser.add_argument("--report", action="store_true", help="exit with 0 whatever the figures are")
    parser.add_argument("--dir", type=pathlib.Path, help="where to put the files (default: the temporary folder)")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--child-service", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    for arguments, run in ((options.child, child), (options.child_service, child_service)):
        if arguments:
            run(arguments[0], pathlib.Path(arguments[1]))
            return 0
    if options.short:
        options.size, options.rounds, options.report = 32 * MIB, 3, True
    with tempfile.TemporaryDirectory(prefix="virmo-bench-", dir=options.dir) as folder:
        runs = measure(options.size, options.rounds, pathlib.Path(folder))
    return judge(runs, options.size, report=options.report)


def judge(runs: dict[str, list[Run]], size: int, *, report: bool) -> int:
    """The table, the line of JSON, and the exit status."""
    medians = {name: statistics.median(run.seconds for run in several) for name, several in runs.items()}
    memory = max(run.memory for name in (OURS, SERVICE) for run in runs[name])
    print(f"{'':30}{'median s':>10}{'min s':>10}{'MB/s':>10}{'memory MiB':>12}")
    for name, several in runs.items():
        least = min(run.seconds for run in several)
        grown = max(run.memory for run in several) / MIB
        print(f"{name:30}{medians[name]:10.3f}{least:10.3f}{size / medians[name] / 1e6:10.0f}{grown:12.1f}")
    ratio = medians[OURS] / min(medians[name] for name in JUDGES)
    missed = ratio > TARGET or memory > MEMORY
    result = {
        "bench": "download",
        "ratios": {
            "download_vs_curl_sha256sum": round(ratio, 3),
            "download_vs_curl_that_keeps_nothing": round(medians[OURS] / medians["curl | sha256sum"], 3),
        },
        "targets": {"download_vs_curl_sha256sum": TARGET, "memory_bytes": MEMORY},
        "figures": {
            "size_bytes": size,
            "rounds": len(runs[OURS]),
            "memory_bytes": memory,
            "seconds": {name: round(value, 4) for name, value in medians.items()},
        },
        "ok": not missed,
    }
    print(json.dumps(result))
    return 1 if missed and not report else 0


if __name__ == "__main__":
    sys.exit(main())
