"""The cache: an entry belongs to its inputs, appears whole or not at all, and stays while somebody uses it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from image.cache import Cache, default_root, hash_files, key_of


def writes(text: str) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        (folder / "result").write_text(text)

    return build


def refuses(_folder: Path) -> None:
    raise AssertionError("built again")


def test_an_entry_is_built_once(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    first = cache.get_or_build("kind", {"a": "1"}, writes("x"))
    second = cache.get_or_build("kind", {"a": "1"}, refuses)
    assert (first.fresh, second.fresh) == (True, False)
    assert (second.path / "result").read_text() == "x"


def test_other_inputs_are_another_entry(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    one = cache.get_or_build("kind", {"a": "1"}, writes("x"))
    two = cache.get_or_build("kind", {"a": "2"}, writes("y"))
    assert one.path != two.path
    assert (one.path / "result").read_text() == "x"


def test_the_key_does_not_depend_on_the_order_of_inputs() -> None:
    assert key_of({"a": "1", "b": "2"}) == key_of({"b": "2", "a": "1"})
    assert key_of({"a": "1"}) != key_of({"a": "2"})


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    cache = Cache(tmp_path)

    def fails(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError):
        cache.get_or_build("kind", {"a": "1"}, fails)
    assert list((tmp_path / "kind").iterdir()) == []
    assert cache.find("kind", {"a": "1"}) is None


def test_what_a_killed_builder_left_is_cleared(tmp_path: Path) -> None:
    (tmp_path / "kind/.building-dead").mkdir(parents=True)
    (tmp_path / "kind/.building-dead/half").touch()
    entry = Cache(tmp_path).get_or_build("kind", {"a": "1"}, writes("x"))
    assert sorted(path.name for path in (tmp_path / "kind").iterdir()) == [entry.key]


def test_two_builders_build_once(tmp_path: Path) -> None:
    built: list[str] = []
    said: list[str] = []

    def slow(folder: Path) -> None:
        time.sleep(0.3)
        built.append(folder.name)

    def work() -> None:
        Cache(tmp_path, say=said.append).get_or_build("kind", {"a": "1"}, slow)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(built) == 1
    assert said == ["waiting: another process is building kind"]


def test_old_entries_go_and_used_ones_stay(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    used = cache.get_or_build("kind", {"n": "0"}, writes("0"))
    with used.lease():
        entries = [cache.get_or_build("kind", {"n": str(n)}, writes("x"), keep=1) for n in range(1, 4)]
        assert [entry.path.exists() for entry in [used, *entries]] == [True, False, False, True]
    cache.get_or_build("kind", {"n": "9"}, writes("x"), keep=1)
    assert not used.path.exists()


def test_files_hash_by_name_content_and_mode(tmp_path: Path) -> None:
    folder = tmp_path / "src"
    (folder / "__pycache__").mkdir(parents=True)
    file = folder / "a.py"
    file.write_text("1")
    before = hash_files([folder], tmp_path)
    (folder / "__pycache__/a.pyc").write_text("compiled")
    assert hash_files([folder], tmp_path) == before
    file.chmod(0o755)
    executable = hash_files([folder], tmp_path)
    file.write_text("2")
    changed = hash_files([folder], tmp_path)
    file.rename(folder / "b.py")
    assert len({before, executable, changed, hash_files([folder], tmp_path)}) == 4


def test_the_cache_folder_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VIRMO_CACHE", str(tmp_path))
    assert default_root() == tmp_path
    monkeypatch.delenv("VIRMO_CACHE")
    assert default_root() == Path.home() / ".cache/virmo"
