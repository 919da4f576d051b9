"""Components that are plain tar archives, for guests without a package manager.

An archive holds ``component.json`` ({"name", "version", "description"}) and files; executables ``hooks/install``,
``hooks/remove``, ``hooks/activate`` and ``hooks/deactivate`` are run, if they are there, in the component's directory.
It is unpacked beside the old version, which goes only when the new one is in place.
Must run on Python 3.9 with the standard library alone.
"""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

from guest_shim.backends import UNSUPPORTED, Component
from guest_shim.places import Places, Result, remove_tree, run

logger = logging.getLogger(__name__)

DESCRIPTION = "component.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,47}")
#: What an archive may unpack to, so that no package fills the guest by surprise: (bytes, members).
SIZE_CAP, MEMBERS_CAP = 1 << 30, 20_000


class Archives:
    """The back end. Components lie in ``components/<name>/`` below the shim's state directory."""

    name = "archive"

    def __init__(self, places: Places) -> None:
        self._folder = places.state / "components"

    def components(self) -> list[Component]:
        """See ``Backend``."""
        found = []
        for folder in sorted(self._folder.glob("*/files")):
            described = _described(folder)
            name = folder.parent.name
            found.append(
                Component(
                    f"archive:{name}",
                    name,
                    str(described.get("version", "")),
                    str(described.get("description", "")),
                    active=not (folder.parent / "inactive").exists(),
                )
            )
        return found

    def install(self, file: Path, name: str, parameters: str) -> Result:
        """See ``Backend``. ``name`` names the component when the archive does not."""
        import tarfile  # here, and not above: an idle shim is to be small

        building = self._folder / ".new"
        remove_tree(building, ignore_errors=True)
        building.mkdir(parents=True)
        try:
            _unpack(file, building)
            named = str(_described(building).get("name") or name)
            if not _NAME.fullmatch(named):
                return Result(1, f"{named!r} is not a name for a component")
            return self._put(named, building, parameters)
        except (tarfile.TarError, OSError, ValueError, EOFError) as error:
            return Result(1, f"the archive cannot be unpacked: {error}")
        finally:
            remove_tree(building, ignore_errors=True)

    def remove(self, component: Component) -> Result:
        """See ``Backend``."""
        folder = self._folder / component.name
        result = _hook(folder / "files", "deactivate")
        result = result if result.code else _hook(folder / "files", "remove")
        if result.code == 0:
            remove_tree(folder)
        return result

    def activate(self, component: Component) -> Result:
        """See ``Backend``."""
        return self._set(component, "activate", active=True)

    def deactivate(self, component: Component) -> Result:
        """See ``Backend``."""
        return self._set(component, "deactivate", active=False)

    def is_off(self, component: Component) -> bool:
        """See ``Backend``."""
        return not component.active

    def _put(self, name: str, building: Path, parameters: str) -> Result:
        """Put an unpacked component in the place of its old version, which comes back when its hooks fail."""
        folder = self._folder / name
        files, old = folder / "files", folder / "old"
        folder.mkdir(exist_ok=True)
        remove_tree(old, ignore_errors=True)
        if files.exists():
            _hook(files, "deactivate")
            files.rename(old)
        building.rename(files)
        result = _hook(files, "install", *parameters.split())
        result = result if result.code else _hook(files, "activate")
        if result.code:
            remove_tree(files)
            if old.exists():
                old.rename(files)
                _hook(files, "activate")
            else:
                folder.rmdir()
            return result
        remove_tree(old, ignore_errors=True)
        (folder / "inactive").unlink(missing_ok=True)
        return result

    def _set(self, component: Component, hook: str, *, active: bool) -> Result:
        folder = self._folder / component.name
        if not (folder / "files" / "hooks" / hook).is_file():
            return UNSUPPORTED
        result = _hook(folder / "files", hook)
        if result.code == 0:
            if active:
                (folder / "inactive").unlink(missing_ok=True)
            else:
                (folder / "inactive").touch()
        return result


def _described(folder: Path) -> dict[str, object]:
    try:
        described = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return described if isinstance(described, dict) else {}


def _hook(folder: Path, name: str, *arguments: str) -> Result:
    """Run a hook; one that is not there has done its work."""
    hook = folder / "hooks" / name
    if not hook.is_file():
        return Result(0, "")
    return run(["/bin/sh", "-c", 'cd "$0" && exec ./hooks/"$@"', str(folder), name, *arguments])


def _unpack(file: Path, target: Path) -> None:
    """Plain files, directories and links that stay inside. :class:`ValueError` for anything else."""
    import shutil
    import tarfile

    size = count = 0
    with tarfile.open(file) as archive:
        for member in archive:
            count += 1
            size += member.size
            if count > MEMBERS_CAP or size > SIZE_CAP:
                raise ValueError("it unpacks to too much")
            path = Path(member.name)
            if path.is_absolute() or ".." in path.parts:
                raise ValueError(f"{member.name!r} is outside of it")
            place = target / path
            if any(parent.is_symlink() for parent in place.parents if target in parent.parents):
                raise ValueError(f"{member.name!r} is behind a link")
            if member.isdir():
                place.mkdir(parents=True, exist_ok=True)
            elif member.isfile():
                place.parent.mkdir(parents=True, exist_ok=True)
                source = archive.extractfile(member)
                assert source is not None
                with place.open("wb") as out:
                    shutil.copyfileobj(source, out)
                place.chmod(0o755 if member.mode & 0o100 else 0o644)
            elif member.issym() and not Path(member.linkname).is_absolute() and ".." not in Path(member.linkname).parts:
                place.parent.mkdir(parents=True, exist_ok=True)
                place.symlink_to(member.linkname)
            else:
                raise ValueError(f"{member.name!r} is neither a file nor a directory nor a link inside")
