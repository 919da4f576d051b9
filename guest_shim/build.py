"""Builds what is deployed: ``virmo-guest-shim.pyz``, one file that runs anywhere, and the Debian package.

    python3 -m guest_shim.build pyz [DIRECTORY]
    python3 -m guest_shim.build deb [DIRECTORY]

The file holds the sources, and beside them the code compiled for the Python that builds it: another Python compiles the
sources when it starts. The package needs ``dpkg-deb``. Both are the same bytes each time. Not part of either.
"""

from __future__ import annotations

import io
import os
import py_compile
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from guest_shim.shim import VERSION

HERE = Path(__file__).parent
PACKAGING = HERE / "packaging"
NAME = "virmo-guest-shim"
#: isolated from the user's environment, without the site module and without docstrings: less memory
INTERPRETER = b"#!/usr/bin/python3 -IOOS\n"
#: not needed in a guest
_LEFT_OUT = ("build.py", "README.md", "packaging", "__pycache__")
#: the earliest time that a zip can hold
_WHEN = (1980, 1, 1, 0, 0, 0)
_EPOCH = "315532800"

#: file in the package → source, mode
_DEBIAN = {
    f"lib/systemd/system/{NAME}.service": (f"{NAME}.service", 0o644),
    f"etc/init.d/{NAME}": (f"{NAME}.init", 0o755),
}
_CONTROL = ("postinst", "prerm", "postrm", "conffiles")


def build_pyz(directory: Path) -> Path:
    """Write the single file into ``directory``; its path."""
    target = directory / f"{NAME}.pyz"
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
        for source in sorted(path for path in HERE.rglob("*") if path.is_file()):
            name = source.relative_to(HERE)
            if name.parts[0] in _LEFT_OUT or "__pycache__" in name.parts:
                continue
            _add(zipped, f"guest_shim/{name}", source.read_bytes())
            if name.suffix == ".py":
                _add(zipped, f"guest_shim/{name}c", _compiled(source, f"guest_shim/{name}"))
        _add(zipped, "__main__.py", b"import sys\n\nfrom guest_shim.start import main\n\nsys.exit(main())\n")
    target.write_bytes(INTERPRETER + archive.getvalue())
    target.chmod(0o755)
    return target


def build_deb(directory: Path) -> Path:
    """Write the Debian package into ``directory``; its path. :class:`RuntimeError` with what dpkg-deb complained of."""
    target = directory / f"{NAME}_{VERSION}_all.deb"
    with tempfile.TemporaryDirectory(prefix=f"{NAME}-") as scratch:
        tree = Path(scratch) / "tree"
        for inside, (source, mode) in _DEBIAN.items():
            _install(PACKAGING / source, tree / inside, mode)
        (tree / "usr/bin").mkdir(parents=True)
        build_pyz(tree / "usr/bin").rename(tree / "usr/bin" / NAME)
        _install(HERE.parent / "LICENSE", tree / "usr/share/doc" / NAME / "copyright", 0o644)
        control = (PACKAGING / "debian" / "control").read_text(encoding="utf-8").replace("@VERSION@", VERSION)
        (tree / "DEBIAN").mkdir()
        (tree / "DEBIAN/control").write_text(control, encoding="utf-8")
        for name in _CONTROL:
            _install(PACKAGING / "debian" / name, tree / "DEBIAN" / name, 0o644 if name == "conffiles" else 0o755)
        for folder in [tree, *tree.rglob("*")]:
            if folder.is_dir():
                folder.chmod(0o755)
        result = subprocess.run(
            ["dpkg-deb", "--root-owner-group", "-Zxz", "--build", str(tree), str(target)],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            env={**os.environ, "SOURCE_DATE_EPOCH": _EPOCH},
        )
    if result.returncode:
        raise RuntimeError(f"dpkg-deb: {result.stderr.strip()}")
    return target


def _add(zipped: zipfile.ZipFile, name: str, data: bytes) -> None:
    entry = zipfile.ZipInfo(name, _WHEN)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    zipped.writestr(entry, data)


def _compiled(source: Path, shown: str) -> bytes:
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "code.pyc"
        mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
        py_compile.compile(str(source), str(target), dfile=shown, doraise=True, optimize=2, invalidation_mode=mode)
        return target.read_bytes()


def _install(source: Path, target: Path, mode: int) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(mode)


def main(argv: list[str]) -> int:
    """Returns the exit status."""
    kinds = {"pyz": build_pyz, "deb": build_deb}
    if not 1 <= len(argv) <= 2 or argv[0] not in kinds:
        print(__doc__)
        return 0 if argv in (["-h"], ["--help"]) else 2
    directory = Path(argv[1] if len(argv) == 2 else ".")
    directory.mkdir(parents=True, exist_ok=True)
    try:
        print(kinds[argv[0]](directory))
    except (OSError, RuntimeError) as error:
        print(f"guest_shim.build: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
