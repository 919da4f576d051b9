"""The HTTP API under a fuzzer that reads its OpenAPI document: nothing ends in 500, and answers are as described."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.server.server_process import ServerProcess

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "ignored_auth",
)


def fuzz(server: ServerProcess, folder: Path, examples: int, seconds: int) -> None:
    """Run the fuzzer with an admin's token; its report is shown when it finds something."""
    token = server.client.post("/tokens", {"name": f"fuzz-{examples}", "role": "admin"})["token"]
    program = [
        str(Path(sys.executable).with_name("schemathesis")), "run", f"{server.url}/api/v1/openapi.json",
        "--header", f"Authorization: Bearer {token}", "--tls-verify", server.ca_file, "--checks", ",".join(CHECKS),
        "--max-examples", str(examples), "--seed", "1", "--generation-database", "none", "--no-color",
        "--phases", "fuzzing", "--suppress-health-check", "all",
    ]  # fmt: skip
    done = subprocess.run(program, capture_output=True, text=True, cwd=folder, timeout=seconds, check=False)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    log = server.log()
    assert "Traceback" not in log, log[log.index("Traceback") :][:4000]


def test_nothing_ends_in_500(server: ServerProcess, tmp_path: Path) -> None:
    fuzz(server, tmp_path, examples=2, seconds=280)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_nothing_ends_in_500_for_long(server: ServerProcess, tmp_path: Path) -> None:
    fuzz(server, tmp_path, examples=150, seconds=1700)
