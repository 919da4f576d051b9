"""The watchdog speaks while the loop is well, and is silent when it hangs."""

from __future__ import annotations

import socket
import time
from pathlib import Path

from dom0_agent.watchdog import Watchdog

WATCHED = {"WATCHDOG_USEC": "20000", "NOTIFY_SOCKET": "@nobody"}


def test_a_loop_that_waits_is_well_however_long() -> None:
    now = [0.0]
    watchdog = Watchdog({}, patience=10.0, clock=lambda: now[0])
    with watchdog.waiting():
        now[0] = 1e6
        assert watchdog.well()
    assert watchdog.well()
    now[0] += 9.0
    assert watchdog.well()
    now[0] += 2.0
    assert not watchdog.well()


def test_it_speaks_until_the_loop_hangs() -> None:
    said: list[str] = []
    now = [0.0]
    watchdog = Watchdog(WATCHED, patience=10.0, clock=lambda: now[0], send=lambda _to, text: said.append(text))
    time.sleep(0.1)
    assert said
    assert set(said) == {"WATCHDOG=1"}
    now[0] = 11.0
    time.sleep(0.05)
    silent = len(said)
    time.sleep(0.1)
    assert len(said) == silent
    watchdog.close()


def test_systemds_socket_gets_the_word(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(5.0)
        watchdog = Watchdog({**WATCHED, "NOTIFY_SOCKET": str(tmp_path / "notify")})
        assert systemd.recv(100) == b"WATCHDOG=1"
        watchdog.close()


def test_nobody_is_told_where_nobody_watches() -> None:
    said: list[str] = []
    for environment in ({}, {"WATCHDOG_USEC": "many", "NOTIFY_SOCKET": "@x"}, {"WATCHDOG_USEC": "1000"}):
        Watchdog(environment, send=lambda _to, text: said.append(text)).close()
    assert said == []
