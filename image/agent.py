"""The agent as files of a root file system: built as a wheel by Debian's pip, unpacked where dom0's Python looks.

The same files go into a dom0 image and, when only the agent has changed, over a running dom0 (see `image.qemu`).
"""

from __future__ import annotations

import configparser
import shutil
import tempfile
import zipfile
from pathlib import Path

from image.cache import Cache, hash_files
from image.errors import ImageError
from image.host import Argv, ensure_packages, run_tool

REPOSITORY = Path(__file__).parent.parent
#: Debian's own Python: the one that dom0 runs, so that compiled files fit. Another may come first on PATH.
HOST_PYTHON = Path("/usr/bin/python3")
SITE_PACKAGES = Path("usr/lib/python3/dist-packages")
STEPS = {"agent: wheel": 5.0}
_PACKAGES = ("dom0_agent", "guest_shim")
_METADATA = ("setup.cfg", "pyproject.toml", "LICENSE", "README.md")
_BUILD_TOOLS: dict[str, Path | str] = {
    "python3": HOST_PYTHON,
    "python3-pip": Path("/usr/lib/python3/dist-packages/pip"),
    "python3-setuptools": Path("/usr/lib/python3/dist-packages/setuptools"),
    "python3-wheel": Path("/usr/lib/python3/dist-packages/wheel"),
}
_WHEEL_TIMEOUT = 180.0
_COMPILE_TIMEOUT = 180.0
_LAUNCHER = """#!/usr/bin/python3
from {module} import {function}

raise SystemExit({function}())
"""


def agent_hash() -> str:
    """Changes when the agent, the shim or how they are packaged changes."""
    present = [REPOSITORY / name for name in (*_PACKAGES, *_METADATA) if (REPOSITORY / name).exists()]
    return hash_files([*present, Path(__file__)], REPOSITORY)


def agent_tree(cache: Cache) -> Path:
    """A folder to be laid over a root file system: packages with compiled files, launchers, and nothing else."""

    def build(folder: Path) -> None:
        ensure_packages(_BUILD_TOOLS)
        with tempfile.TemporaryDirectory(prefix="virmo-wheel-") as scratch:
            wheel = _build_wheel(Path(scratch))
            _install(wheel, folder / "tree")

    return cache.get_or_build("agent", {"agent": agent_hash()}, build).path / "tree"


def _build_wheel(work: Path) -> Path:
    """Builds from a copy, so that nothing is written into the repository; without the network."""
    source = work / "source"
    source.mkdir()
    for name in _PACKAGES:
        shutil.copytree(REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in _METADATA:
        if (REPOSITORY / name).exists():
            shutil.copy(REPOSITORY / name, source / name)
    argv: Argv = [
        HOST_PYTHON,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
    ]
    env = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore", "PIP_CONFIG_FILE": "/dev/null"}
    run_tool([*argv, "--wheel-dir", work, source], what="building the agent's wheel", timeout=_WHEEL_TIMEOUT, env=env)
    wheels = list(work.glob("*.whl"))
    if len(wheels) != 1:
        raise ImageError(f"building the agent's wheel: expected one wheel, found {len(wheels)}")
    return wheels[0]


def _install(wheel: Path, tree: Path) -> None:
    """What an installer does with a pure Python wheel, for a root file system that is not running."""
    site = tree / SITE_PACKAGES
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    for name, target in _console_scripts(site).items():
        module, _, function = target.partition(":")
        launcher = tree / "usr/bin" / name
        launcher.parent.mkdir(parents=True, exist_ok=True)
        launcher.write_text(_LAUNCHER.format(module=module, function=function))
        launcher.chmod(0o755)
    compile_tree(tree)


def _console_scripts(site: Path) -> dict[str, str]:
    """The wheel's programs, less those of packages that do not belong on the device."""
    (listing,) = site.glob("*.dist-info/entry_points.txt")
    parser = configparser.ConfigParser(delimiters=("=",))
    parser.read(listing)
    scripts = dict(parser["console_scripts"])
    return {name: target for name, target in scripts.items() if target.partition(".")[0] in _PACKAGES}


def compile_tree(tree: Path, *extra: str) -> None:
    """Compiles all Python files; marked "unchecked", so that dom0 never compares times or compiles again at start."""
    argv: Argv = [
        HOST_PYTHON,
        "-m",
        "compileall",
        "-q",
        "-j",
        "0",
        "-s",
        tree,
        "-p",
        "/",
        "--invalidation-mode",
        "unchecked-hash",
    ]
    run_tool([*argv, *extra, tree], what="compiling Python files", timeout=_COMPILE_TIMEOUT)
