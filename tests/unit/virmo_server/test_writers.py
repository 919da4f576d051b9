"""Writers of one file queue up, in one process and in several; a dead one holds up nobody."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from multiprocessing.synchronize import Event
from pathlib import Path

from virmo_server.writers import WriterQueue

PATIENCE_SECONDS = 20


def hold(path: Path, held: Event) -> None:
    with WriterQueue(path).turn():
        held.set()
        signal.pause()


def test_threads_take_turns(tmp_path: Path) -> None:
    queue = WriterQueue(tmp_path / "writers")
    inside: list[int] = []
    most = 0

    def write() -> None:
        nonlocal most
        for _ in range(50):
            with queue.turn():
                inside.append(1)
                most = max(most, len(inside))
                inside.pop()

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    assert most == 1
    queue.close()


def test_a_killed_process_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "writers"
    context = multiprocessing.get_context("spawn")
    held = context.Event()
    process = context.Process(target=hold, args=(path, held))
    process.start()
    assert held.wait(PATIENCE_SECONDS)
    queue, entered = WriterQueue(path), threading.Event()

    def write() -> None:
        with queue.turn():
            entered.set()

    thread = threading.Thread(target=write)
    thread.start()
    assert not entered.wait(0.2)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    assert entered.wait(PATIENCE_SECONDS)
    thread.join(PATIENCE_SECONDS)
    process.join(PATIENCE_SECONDS)
    process.close()
    queue.close()
