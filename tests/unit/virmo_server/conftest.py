"""A server in memory: database, services, a clock that tests move."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from virmo_server.config import ServerConfig
from virmo_server.services import Services, open_services


class MovableClock:
    """Stands still until moved."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **span: float) -> None:
        """Move on by a timedelta."""
        self.now += timedelta(**span)


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture
def services(tmp_path: Path, clock: MovableClock) -> Iterator[Services]:
    config = ServerConfig(public_url="https://virmo.example:8443", state_dir=tmp_path / "state")
    opened = open_services(config, clock)
    yield opened
    opened.close()
