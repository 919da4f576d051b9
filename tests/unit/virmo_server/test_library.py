"""The image library: limits, half uploads, what may be deleted, what is swept away."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.unit.virmo_server.conftest import MovableClock
from tests.unit.virmo_server.fleet import Fleet
from virmo_server.images.library import RESERVE_BYTES, ImageLibrary, ImageSpec
from virmo_server.problem import Problem
from virmo_server.services import Services

SPEC = ImageSpec("web", "web.img", "application/octet-stream")


def library(services: Services, tmp_path: Path, *, limit: int = 1000, free: int = 1 << 40) -> ImageLibrary:
    return ImageLibrary(
        tmp_path / "lib", services.database, MovableClock(), max_bytes=limit, free_bytes=lambda _path: free
    )


def test_upload_over_the_limit_leaves_nothing(services: Services, tmp_path: Path) -> None:
    lib = library(services, tmp_path, limit=10)
    with pytest.raises(Problem, match="larger than this server takes") as caught, lib.begin(SPEC) as upload:
        upload.write(b"x" * 11)
    assert caught.value.status == 413
    assert list((tmp_path / "lib").iterdir()) == []


def test_full_disk_is_refused_before_it_is_full(services: Services, tmp_path: Path) -> None:
    """Complaint 17."""
    lib = library(services, tmp_path, free=RESERVE_BYTES + 5)
    with pytest.raises(Problem, match="does not fit") as caught:
        lib.begin(ImageSpec("web", "web.img", "application/octet-stream", size=6))
    assert caught.value.status == 507


def test_shortened_upload_is_refused(services: Services, tmp_path: Path) -> None:
    lib = library(services, tmp_path)
    spec = ImageSpec("web", "web.img", "application/octet-stream", size=5)
    with pytest.raises(Problem, match="4 bytes arrived, 5 were announced"), lib.begin(spec) as upload:
        upload.write(b"four")
        upload.finish()
    assert list((tmp_path / "lib").iterdir()) == []


def test_sweep_removes_what_no_image_owns(services: Services, tmp_path: Path) -> None:
    lib = library(services, tmp_path)
    with lib.begin(SPEC) as upload:
        upload.write(b"content")
        image = upload.finish()
    now = services.clock().timestamp()
    for name, touched_at in ((".half.part", now - 3601), ("stranger", now - 3601), (".arriving.part", now - 3599)):
        path = tmp_path / "lib" / name
        path.write_bytes(b"x")
        os.utime(path, (touched_at, touched_at))
    assert lib.sweep() == [".half.part", "stranger"]
    assert lib.path(image.id).read_bytes() == b"content"


def test_image_of_an_open_order_stays(services: Services) -> None:
    fleet = Fleet(services)
    image = fleet.upload()
    fleet.deliver(image=image)
    with pytest.raises(Problem, match=r"needed by open orders \[1\]"):
        services.library.delete(image.id)
    fleet.session()
    services.library.delete(image.id)
    assert not services.library.path(image.id).exists()
    assert fleet.images()[0]["image_id"] is None
