"""The backend under test; see ``support``. Each test leaves no domain behind, or fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dom0_agent.store.database import Database
from dom0_agent.vm.config import VmConfig
from tests.contract.support import Backend, Rig, open_backend


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Backend]:
    """A machine with no domains of ours."""
    opened = open_backend(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def make_rig(backend: Backend, tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    """Makes engines over the backend, each with the same database and files, as restarted agents have."""
    rigs: list[Rig] = []

    def make(**config: object) -> Rig:
        settings: dict[str, object] = {"shutdown_wait": backend.patience, "storage_reserve": 0, **config}
        hypervisor = backend.hypervisor if not rigs else backend.reopen()
        rig = Rig(backend, hypervisor, Database(tmp_path / "agent.db"), VmConfig(**settings), tmp_path)  # type: ignore[arg-type]
        rigs.append(rig)
        return rig

    yield make
    for rig in rigs:
        rig.stop()


@pytest.fixture
def rig(make_rig: Callable[..., Rig]) -> Rig:
    """A started engine."""
    started = make_rig()
    started.engine.start()
    return started
