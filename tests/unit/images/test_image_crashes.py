"""SIGKILL at every change of the disk: what the next start finds is right, and nothing leaks (A-33, A-56).

The short form takes every fifth place, beginning at a different one for each scenario; ``--long`` takes all.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dom0_agent.images.mediatypes import BUNDLE
from dom0_agent.images.model import ImageService, ImageState
from dom0_agent.images.service import LocalImageService
from dom0_agent.store.database import Database
from dom0_agent.store.images import ImageTable
from tests.unit.images import crashing_agent
from tests.unit.images.images_testing import PACKERS, Recorder, bundle, file_script, quick_config, serving

ROOT = Path(__file__).resolve().parents[3]
SETTLED = {ImageState.NOT_DOWNLOADED, ImageState.DOWNLOADED, ImageState.DOWNLOAD_FAILED}


def run(folder: Path, url: str, scenario: str, number: int) -> subprocess.CompletedProcess[str]:
    folder.mkdir()
    command = [sys.executable, "-m", crashing_agent.__name__, str(folder), url, scenario, str(number)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT, check=False)


def check(folder: Path, url: str) -> None:
    """Start again where an agent died, and look at everything."""
    store = folder / "images"
    database = Database(folder / "agent.db")
    table = ImageTable(database)
    ordered = [row for row in table.list() if row.record.state is not ImageState.NOT_DOWNLOADED]
    events = Recorder()
    local = LocalImageService(quick_config(store), table)
    local.subscribe(events)
    local.start()
    service: ImageService = local
    reported = (folder / "reported").read_text().split() if (folder / "reported").exists() else []
    reported += [str(event.result.status.real) for event in events.events if event.result is not None]
    assert len(reported) >= len(ordered), "an end that nobody heard of"
    expected = set()
    for record in service.list():
        assert record.state in SETTLED
        if record.state is ImageState.DOWNLOADED:
            assert record.location is not None and service.verified(record.img_id).kernel is not None
            expected.add(str(record.location.relative_to(store)))
        elif (store / "downloads" / record.img_id).exists():
            expected.add(f"downloads/{record.img_id}")
    found = {str(path.relative_to(store)) for path in store.glob("*/*")}
    assert found == expected, "something leaked, or is missing"
    for record in service.list():
        if record.state is not ImageState.DOWNLOADED:
            result = service.download(record.img_id, url, BUNDLE).wait(20)
            assert result is not None and result.ok, result
        assert service.verified(record.img_id).vcpus == 1
        service.delete(record.img_id)
    assert list(store.glob("*/*")) == [] and table.list() == ()
    local.close()
    database.close()


@pytest.mark.parametrize(("scenario", "first"), [("deliver", 1), ("delete", 2)])
def test_killed_at_any_change(tmp_path: Path, scenario: str, first: int, long_form: bool) -> None:
    data = PACKERS["gzip"](bundle(kernel=bytes(range(256)) * 2000))
    with serving(file_script(data)) as server:
        whole = run(tmp_path / "whole", server.url, scenario, 0)
        assert whole.returncode == 0, whole.stderr
        places = range(1, int(whole.stdout) + 1) if long_form else range(first, int(whole.stdout) + 1, 5)
        assert len(places) > 2, "a scenario without changes proves nothing"

        def kill(number: int) -> None:
            folder = tmp_path / str(number)
            died = run(folder, server.url, scenario, number)
            assert died.returncode == -signal.SIGKILL, f"place {number}: {died.stderr}"
            check(folder, server.url)

        with ThreadPoolExecutor(2) as pool:
            for _ in pool.map(kill, places):
                pass
