#!/usr/bin/env python3
"""How many boards a VirMO Server bears: sessions in a second, their latencies and the memory of its processes.

Each board is a real DM client session (MD5 both ways); the server is ``virmo-server serve`` with one or two workers on
SQLite and on PostgreSQL, without TLS. "poll": every board opens a session, there is nothing to do; messages are made
before and judged after, and between them a client in C sends them over 128 connections as fast as they are answered, so
that latencies are those of a server under full load. "work": every board has an order, which must be done once; here
the boards are one Python process. Beside "poll" stands a bare Starlette endpoint on the same uvicorn that gets the same
requests from the same client and answers the same octets, with as many workers, in turns; the target is at least 0.2
times its requests in a second. Prints a table and ends with one line of JSON. Exit status 1 when a target is missed
(never with ``--short``).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

import yaml
from sqlalchemy import func, select

from tests.bench.server_fleet import Board, Load, poll, post_all, register_boards, together, work
from tests.integration.server.postgresql import Cluster, cluster
from tests.integration.server.server_process import free_port
from virmo_server.config import load_config
from virmo_server.devices.registry import find_device
from virmo_server.model import Order, OrderState
from virmo_server.orders.service import NodeCommand, Request
from virmo_server.services import Services, open_services

BOARDS, SHORT_BOARDS = 10_000, 1_000
#: Boards that poll before it is the bare endpoint's turn: other work on the machine shall hit both.
TURN = 500
#: Sessions with an order: fewer, each is several messages.
WORKING, SHORT_WORKING = 2_000, 50
#: Our cost per request against the bare endpoint's.
TARGET = 5.0
START_SECONDS = 60
BARE = """
import socket, sys
import uvicorn
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route
from virmo_server.workers import Workers

answer, media_type = open(sys.argv[1], "rb").read(), sys.argv[2]

async def dm(request):
    await request.body()
    return Response(answer, media_type=media_type)

async def health(request):
    return Response()

listener = socket.create_server(("127.0.0.1", int(sys.argv[3])), backlog=2048)
listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as the server does; else it answers 23 times a second
app = Starlette(routes=[Route("/dm", dm, methods=["POST"]), Route("/health", health)])

def work(_number):
    uvicorn.Server(uvicorn.Config(app, access_log=False, log_config=None)).run(sockets=[listener])
    return 0

sys.exit(Workers(work, int(sys.argv[4])).run())
"""


@dataclass
class Figures:
    """One row of the table. Rates in 1/s, latencies in ms, memory in MiB."""

    database: str
    workers: int
    values: dict[str, float] = field(default_factory=dict)

    @property
    def case(self) -> str:
        return f"poll {self.database} {self.workers} worker{'s' if self.workers > 1 else ''}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="1 000 boards, two of the four set-ups, no judgement")
    parser.add_argument("--boards", type=int, help="so many boards")
    parser.add_argument(
        "--setup",
        action="append",
        metavar="DATABASE:WORKERS",
        help="only this one, such as postgresql:2; may be repeated",
    )
    options = parser.parse_args(arguments)
    boards = options.boards or (SHORT_BOARDS if options.short else BOARDS)
    working = min(boards, SHORT_WORKING if options.short else WORKING)
    setups = [("sqlite", 1), ("postgresql", 2)]
    if options.setup:
        setups = [(name, int(workers)) for name, _, workers in (given.partition(":") for given in options.setup)]
    elif not options.short:
        setups = [(database, workers) for database in ("sqlite", "postgresql") for workers in (1, 2)]
    rows = []
    with cluster(durable=True) as postgresql:
        for database, workers in setups:
            rows.append(measure(Figures(database, workers), postgresql, boards, working))
            show(rows[-1])
    ratios = {row.case: round(row.values["bare poll/s"] / row.values["poll/s"], 3) for row in rows}
    report = {
        "bench": "server",
        "ratios": ratios,
        "targets": dict.fromkeys(ratios, TARGET),
        "figures": {
            f"{row.case.removeprefix('poll ')} {name}": round(v, 2) for row in rows for name, v in row.values.items()
        },
    }
    print(json.dumps(report))
    return 1 if not options.short and max(ratios.values()) > TARGET else 0


def measure(row: Figures, postgresql: Cluster, boards: int, working: int) -> Figures:
    """Fill a row."""
    with tempfile.TemporaryDirectory(prefix="virmo-bench-") as folder:
        port, answer = free_port(), Path(folder) / "answer"
        url = postgresql.create_database(f"bench-{row.workers}") if row.database == "postgresql" else None
        config = write_config(Path(folder), port, url)
        services = open_services(load_config(config))
        progress(row, f"registering {boards} boards")
        *fleet, spare = register_boards(services, boards + 1)
        command = ["-m", "virmo_server.main", "--config", str(config), "serve", "--workers", str(row.workers)]
        with running(command, port, Path(folder) / "log") as process:
            poll(port, fleet[:SHORT_WORKING])
            answer.write_bytes(post_all(port, [first_message(spare)])[1][0])
            poll_in_turns(row, port, process, fleet, answer)
            progress(row, f"{working} orders")
            order_something(services, working)
            progress(row, "work")
            note(row, "work", work(port, fleet[:working]))
            row.values["memory MiB"] = memory(process)
            check_orders(services, working)
        services.close()
    return row


def poll_in_turns(
    row: Figures, port: int, process: subprocess.Popen[bytes], fleet: Sequence[Board], answer: Path
) -> None:
    """All boards poll; between, as many requests go to a bare endpoint that gives always this answer."""
    bare_port = free_port()
    bare = ["-c", BARE, str(answer), "application/vnd.syncml.dm+xml", str(bare_port), str(row.workers)]
    with running(bare, bare_port, answer.with_name("bare-log")) as rival:
        post_all(bare_port, [first_message(board) for board in fleet[:SHORT_WORKING]])
        before, rival_before = cpu_seconds(process), cpu_seconds(rival)
        polled, answered = [], []
        for number in range(0, len(fleet), TURN):
            progress(row, f"poll, {100 * number // len(fleet)} %")
            part = fleet[number : number + TURN]
            polled.append(poll(port, part))
            answered.append(post_all(bare_port, [first_message(board) for board in part])[0])
        note(row, "poll", together(polled))
        note(row, "bare poll", together(answered))
        row.values["poll cpu ms"] = 1000 * (cpu_seconds(process) - before) / len(fleet)
        row.values["bare poll cpu ms"] = 1000 * (cpu_seconds(rival) - rival_before) / len(fleet)


def progress(row: Figures, what: str) -> None:
    """For who waits."""
    print(f"{time.strftime('%X')} {row.case}: {what}", file=sys.stderr)


def write_config(folder: Path, port: int, database_url: str | None) -> Path:
    """A configuration without TLS."""
    settings = {
        "public_url": f"http://127.0.0.1:{port}",
        "state_dir": str(folder / "state"),
        "listen": {"host": "127.0.0.1", "port": port},
        "log_level": "warning",
    }
    path = folder / "virmo-server.yaml"
    path.write_text(yaml.safe_dump(settings | ({"database_url": database_url} if database_url else {})))
    return path


@contextlib.contextmanager
def running(arguments: Sequence[str], port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A Python program that listens on ``port``."""
    environment = {**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).resolve().parents[2])}
    with log.open("ab") as output:
        process = subprocess.Popen([sys.executable, *arguments], stdout=output, stderr=output, env=environment)
    try:
        wait_until_up(process, port, log)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(START_SECONDS)
    text = log.read_text()
    assert "Traceback" not in text, text


def wait_until_up(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Until it answers."""
    import requests

    deadline = time.monotonic() + START_SECONDS
    while True:
        with contextlib.suppress(requests.ConnectionError):
            if requests.get(f"http://127.0.0.1:{port}/health", timeout=5).ok:
                return
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


def first_message(board: object) -> bytes:
    """What a board says first."""
    body = board.begin().start()  # type: ignore[attr-defined]
    assert isinstance(body, bytes)
    return body


def order_something(services: Services, count: int) -> None:
    """One order for each of the first boards."""
    for number in range(count):
        with services.database.write() as session:
            device = find_device(session, f"board-{number}")
            command = NodeCommand("node-replace", "./VirMO/DeviceResources", str(number))
            services.orders.node_command(session, device, Request("bench"), command)


def check_orders(services: Services, count: int) -> None:
    """None is lost, none is done twice: each went through its two steps once."""
    with services.database.read() as session:
        done = session.scalar(select(func.count()).where(Order.state == OrderState.DONE, Order.losses == 0))
        assert done == count, done


def note(row: Figures, name: str, load: Load) -> None:
    """Write a run into the row."""
    row.values |= {f"{name}/s": load.rate, f"{name} p50 ms": load.percentile(50), f"{name} p99 ms": load.percentile(99)}


def memory(process: subprocess.Popen[bytes]) -> float:
    """Proportional set size of the process and its children, MiB."""
    total = 0
    for pid in family(process):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def cpu_seconds(process: subprocess.Popen[bytes]) -> float:
    """Processor time that the process and its children have used."""
    ticks = 0
    for pid in family(process):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def family(process: subprocess.Popen[bytes]) -> list[str]:
    """Process ids."""
    return [str(process.pid), *Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def show(row: Figures) -> None:
    """A block of the table."""
    values = row.values
    print(f"{row.database}, workers: {row.workers}, memory {values['memory MiB']:.0f} MiB")
    for name in ("poll", "work", "bare poll"):
        rate, p50, p99 = (values[f"{name}{suffix}"] for suffix in ("/s", " p50 ms", " p99 ms"))
        print(f"  {name:<10} {rate:8.0f} /s   p50 {p50:7.1f} ms   p99 {p99:7.1f} ms")
    cpu, bare_cpu = values["poll cpu ms"], values["bare poll cpu ms"]
    print(f"  a poll costs {values['bare poll/s'] / values['poll/s']:.2f} times a bare request, of processor time"
          f" {cpu:.2f} ms, {cpu / bare_cpu:.2f} times the bare request's {bare_cpu:.2f} ms", flush=True)  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
