"""A private PostgreSQL cluster in a temporary folder: no TCP, no user of the machine's own, gone after the tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BINARIES = Path("/usr/lib/postgresql")
#: PostgreSQL refuses to run as root.
ACCOUNT = "postgres"
START_SECONDS = 60


class Cluster:
    """A running cluster; each test makes databases of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def create_database(self, name: str) -> str:
        """A new, empty database; its URL."""
        self._run("createdb", "-h", str(self._folder), name)
        return f"postgresql://{ACCOUNT}@/{name}?host={self._folder}"

    def start(self, *, durable: bool = False) -> None:
        """Start it and wait until it answers. Unless ``durable``, its disk writes are not waited for."""
        settings = f"-c listen_addresses= -c unix_socket_directories={self._folder} -c max_connections=200"
        settings += "" if durable else " -c fsync=off"
        data, log = str(self._folder / "data"), str(self._folder / "log")
        self._run("pg_ctl", "start", "-w", "-t", str(START_SECONDS), "-D", data, "-l", log, "-o", settings)

    def stop(self) -> None:
        """Stop it at once: what sessions had not committed is rolled back."""
        self._run("pg_ctl", "stop", "-w", "-m", "fast", "-D", str(self._folder / "data"))

    def initialise(self) -> None:
        """Make the cluster's files."""
        self._run("initdb", "-D", str(self._folder / "data"), "-A", "trust", "-U", ACCOUNT, "--no-sync", "-E", "UTF8")

    def _run(self, program: str, *arguments: str) -> None:
        path = max(BINARIES.glob(f"*/bin/{program}"))
        user = f"--reuid={ACCOUNT}", f"--regid={ACCOUNT}", "--clear-groups"
        prefix = ["setpriv", *user] if os.geteuid() == 0 else []
        environment = {**os.environ, "PGUSER": ACCOUNT}
        command = [*prefix, str(path), *arguments]
        # Not a pipe: the server inherits it and would keep it open.
        with (self._folder / "commands").open("ab") as output:
            done = subprocess.run(
                command, stdout=output, stderr=output, cwd=self._folder, env=environment, check=False, timeout=120
            )
        assert done.returncode == 0, (self._folder / "commands").read_text()


@contextmanager
def cluster(*, durable: bool = False) -> Iterator[Cluster]:
    """A cluster that runs for the time of the block; ``durable`` as an operator would run it."""
    folder = Path(tempfile.mkdtemp(prefix="virmo-postgresql-"))
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, ACCOUNT, ACCOUNT)
        made = Cluster(folder)
        made.initialise()
        made.start(durable=durable)
        try:
            yield made
        finally:
            made.stop()
    finally:
        shutil.rmtree(folder)
