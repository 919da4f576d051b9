"""One server process for all tests of this folder; each test brings its own boards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.server.postgresql import Cluster, cluster
from tests.integration.server.server_process import ServerProcess
from virmo_server.cli.main import main

SQLITE, POSTGRESQL = "sqlite", "postgresql"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Modules whose ``BACKENDS`` names databases run on each of them; the others run on SQLite."""
    if "server" in metafunc.fixturenames:
        backends = getattr(metafunc.module, "BACKENDS", (SQLITE,))
        metafunc.parametrize("server", backends, indirect=True, scope="session")


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Cluster]:
    """A PostgreSQL cluster."""
    with cluster() as running:
        yield running


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with one process on SQLite, or with two on PostgreSQL."""
    folder = tmp_path_factory.mktemp("virmo")
    if request.param == POSTGRESQL:
        url = request.getfixturevalue("postgresql").create_database(folder.name)
        process = ServerProcess(folder, database_url=url, workers=2)
    else:
        process = ServerProcess(folder)
    process.start()
    yield process
    assert process.stop() == 0


@dataclass(frozen=True)
class Result:
    """What a command line did."""

    status: int
    out: str
    err: str


Virmo = Callable[..., Result]


@pytest.fixture
def virmo(server: ServerProcess, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Virmo:
    """``virmo`` with the settings that ``virmo-server init`` made."""
    monkeypatch.setenv("VIRMO_CONFIG", str(server.installation.client_config_file))

    def run(*arguments: object) -> Result:
        capsys.readouterr()
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as usage:
            status = int(usage.code or 0)
        captured = capsys.readouterr()
        return Result(status, captured.out, captured.err)

    return run


@pytest.fixture
def image_file(tmp_path: Path) -> Path:
    path = tmp_path / "web.tar.gz"
    path.write_bytes(bytes(range(256)) * 400)
    return path
