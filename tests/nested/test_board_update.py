"""A board with two system slots updates its own system through ./FUMO, ordered by a server, and goes back by itself.

The boot loader finds nothing to start in the new system, so that GRUB, Xen and dom0 come up once more only.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from image.arch import ARCHES
from image.board import BoardImage
from image.board_qemu import board_image
from image.cache import Cache
from image.system_bundle import Signer, make_signer
from tests.nested.board_desk import (
    Desk,
    empty_system,
    open_desk,
)

pytestmark = [pytest.mark.nested, pytest.mark.timeout(3600)]

ARCH = ARCHES["x86_64"]


@pytest.fixture(scope="module")
def cache() -> Cache:
    return Cache(say=print)


@pytest.fixture(scope="module")
def image(cache: Cache) -> BoardImage:
    return board_image(ARCH, cache)


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return make_signer(tmp_path_factory.mktemp("signer"))


@pytest.fixture
def desk(image: BoardImage, cache: Cache, signer: Signer, tmp_path: Path) -> Iterator[Desk]:
    with open_desk(image, cache, tmp_path) as opened:
        opened.register(signer)
        yield opened


def test_a_system_that_cannot_be_started_is_given_up(desk: Desk, signer: Signer, tmp_path: Path) -> None:
    """FUMO 1.0, result 410: written, tried as often as it may, and the old system is back by itself and says so."""
    assert desk.slot() == "a"
    desk.update(empty_system(tmp_path), signer)
    desk.hears("410")
    assert desk.started() == "ba", "the new system was tried once, then the old one came back"
    assert desk.slot() == "a"
    assert desk.environment()["slot"] == "a"
    assert desk.environment()["try"] == ""
