"""Runs this external tree against a real Buildroot, and its kernel options against a real kernel's Kconfig.

Everything is Kconfig-level: nothing is downloaded or built but Buildroot's own Kconfig programs. Each check is a
function that yields complaints; a table says which there are. Knows Buildroot by its documented make targets only.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from buildroot.scripts.dotconfig import DotconfigError, granted, lost, read, wanted

TREE = Path(__file__).resolve().parent.parent
TOOL_DEADLINE = 600.0  #: seconds; reading all of Buildroot's packages takes 10-20 on a slow machine
OURS = ("python-pyxs", "virmo-agent", "virmo-guest-shim", "virmo-xen-x86")
#: Python packages that check-package imports or calls; it calls shellcheck, too
STYLE_NEEDS = ("python-magic", "flake8")
PREFIX = "$(BR2_EXTERNAL_VIRMO_PATH)"  #: how Buildroot's configuration names this tree

#: architecture option → the kernel's name of it, and the cross compiler that its Kconfig asks for features
_KERNEL_ARCH = {"BR2_x86_64": ("x86_64", ""), "BR2_aarch64": ("arm64", "aarch64-linux-gnu-")}
_KERNEL_DEFCONFIG = {"x86_64": "x86_64_defconfig", "arm64": "defconfig"}


class CheckError(Exception):
    """A tool failed, so that the check has no result. The message says which and shows the end of its output."""


@dataclass(frozen=True, slots=True)
class Subject:
    """One defconfig in one Buildroot."""

    buildroot: Path
    defconfig: Path
    output: Path
    linux: Path | None

    @property
    def name(self) -> str:
        """Without ``_defconfig``."""
        return self.defconfig.name.removesuffix("_defconfig")

    def make(self, *words: str) -> str:
        """Run Buildroot's make on this subject's output folder."""
        return tool(
            [
                "make",
                "-s",
                "--no-print-directory",
                "-C",
                self.buildroot,
                f"O={self.output}",
                f"BR2_EXTERNAL={TREE}",
                *words,
            ]
        )


def tool(argv: Sequence[str | Path], cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """Output of a program. :class:`CheckError` when it fails, is missing or takes too long."""
    shown = " ".join(str(word) for word in argv[:8])
    try:
        done = subprocess.run(
            argv, cwd=cwd, env=env, capture_output=True, text=True, timeout=TOOL_DEADLINE, check=False
        )
    except FileNotFoundError as error:
        raise CheckError(f"{argv[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise CheckError(f"{shown}: no end after {TOOL_DEADLINE:.0f} s") from error
    if done.returncode:
        raise CheckError(f"{shown}: exit status {done.returncode}\n{(done.stdout + done.stderr).strip()[-2000:]}")
    return done.stdout


def check_options(subject: Subject) -> Iterator[str]:
    """Every option of the defconfig is in the ``.config`` that Kconfig makes of it."""
    subject.make(subject.defconfig.name)
    requests = wanted([subject.defconfig])
    yield from (str(item) for item in lost(requests.values(), granted(subject.output / ".config")))
    yield f"= {len(requests)} options"


def check_round_trip(subject: Subject) -> Iterator[str]:
    """``savedefconfig`` gives the committed file back, and loading that gives the same ``.config``."""
    saved = subject.output / "saved_defconfig"
    subject.make("savedefconfig", f"BR2_DEFCONFIG={saved}")
    before = granted(subject.output / ".config")
    committed, minimal = _as_asked(subject.defconfig), _as_asked(saved)
    for line in sorted(committed - minimal):
        yield f"savedefconfig leaves out what is the default anyway: {line}"
    for line in sorted(minimal - committed):
        yield f"savedefconfig adds: {line}"
    subject.make("defconfig", f"BR2_DEFCONFIG={saved}")
    after = granted(subject.output / ".config")
    ignored = {"BR2_DEFCONFIG", "BR2_EXTERNAL_VIRMO_VERSION"}  # the file that was loaded; the commit we are at
    for symbol in sorted(before.keys() | after.keys()):
        if symbol not in ignored and before.get(symbol) != after.get(symbol):
            yield f"{symbol}: {before.get(symbol)} became {after.get(symbol)}"
    subject.make(subject.defconfig.name)
    yield f"= {len(before)} symbols"


def _as_asked(file: Path) -> set[str]:
    return {f"{request.symbol}={request.value}" for request in read(file)}


def check_info(subject: Subject) -> Iterator[str]:
    """``show-info`` can be read; each source has a hash, each of our packages a licence."""
    info: dict[str, dict[str, Any]] = json.loads(subject.make("show-info"))
    downloads = 0
    for name, package in sorted(info.items()):
        known = "".join(_text(subject.buildroot / file) for file in package.get("hashes", ()))
        for download in package.get("downloads", ()):
            if any(uri.startswith("local+") for uri in download["uris"]):
                continue
            downloads += 1
            if not re.search(rf"\s{re.escape(download['source'])}$", known, re.MULTILINE):
                yield f"{name}: no hash for {download['source']}"
        if name in OURS and (package["licenses"] in ("", "unknown") or not package["license_files"]):
            yield f"{name}: no licence"
    ours = [name for name in OURS if name in info]
    if not ours:
        yield "none of this tree's packages is in it"
    yield f"= {len(info)} packages, {downloads} downloads with hashes, ours: {', '.join(ours)}"


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8") if file.is_file() else ""


def check_graph(subject: Subject) -> Iterator[str]:
    """The dependency graph has no cycle, and every package of ours hangs in it."""
    graph = subject.output / "graph-depends.dot"
    script = subject.buildroot / "support/scripts/graph-depends"
    tool([script, "-C"], cwd=subject.output)
    tool([script, "--direct", "-o", graph], cwd=subject.output)
    text = graph.read_text(encoding="utf-8")
    edges = re.findall(r"^\s*\S+ -> \S+", text, re.MULTILINE)
    if not edges:
        yield f"{graph}: no dependency in it"
    asked = {request.symbol for request in read(subject.defconfig)}
    for name in OURS:
        if f"BR2_PACKAGE_{name.upper().replace('-', '_')}" in asked and f'"{name}"' not in text:
            yield f"{name} is asked for and not in the graph"
    yield f"= {len(edges)} dependencies"


def check_paths(subject: Subject) -> Iterator[str]:
    """Every file and folder of this tree that the ``.config`` names is there."""
    count = 0
    for symbol, value in granted(subject.output / ".config").items():
        for word in value.strip('"').split():
            if word.startswith(PREFIX):
                count += 1
                if not (TREE / word.removeprefix(PREFIX).lstrip("/")).exists():
                    yield f"{symbol}: there is no {word}"
    yield f"= {count} paths"


def check_kernel(subject: Subject) -> Iterator[str]:
    """Every option of the kernel's fragments survives in the kernel that ``--linux`` names."""
    if subject.linux is None:
        raise CheckError("no kernel source is named")
    config = {symbol: value.strip('"') for symbol, value in granted(subject.output / ".config").items()}
    arch, cross = next(value for symbol, value in _KERNEL_ARCH.items() if config.get(symbol) == "y")
    work = subject.output / "kernel-check"
    work.mkdir(exist_ok=True)
    dotconfig = work / ".config"
    dotconfig.unlink(missing_ok=True)
    env = {**os.environ, "ARCH": arch, "CROSS_COMPILE": cross}
    make: list[str | Path] = ["make", "-s", f"O={work}"]
    symbols = ("BR2_LINUX_KERNEL_CUSTOM_CONFIG_FILE", "BR2_LINUX_KERNEL_CONFIG_FRAGMENT_FILES")
    words = " ".join(config.get(symbol, "") for symbol in symbols).split()
    files = [TREE / word.removeprefix(PREFIX).lstrip("/") for word in words]
    base = []
    if config.get("BR2_LINUX_KERNEL_USE_ARCH_DEFAULT_CONFIG") == "y":
        tool([*make, _KERNEL_DEFCONFIG[arch]], cwd=subject.linux, env=env)
        base = [dotconfig]
    tool(["scripts/kconfig/merge_config.sh", "-m", "-O", work, *base, *files], cwd=subject.linux, env=env)
    tool([*make, "olddefconfig"], cwd=subject.linux, env=env)
    requests = wanted(files)
    yield from (str(item) for item in lost(requests.values(), granted(dotconfig)))
    yield f"= {len(requests)} kernel options"


#: title → check; in this order, since the first makes the ``.config`` that the others read
CHECKS: dict[str, Callable[[Subject], Iterator[str]]] = {
    "options survive": check_options,
    "savedefconfig": check_round_trip,
    "paths": check_paths,
    "show-info": check_info,
    "graph": check_graph,
    "kernel options": check_kernel,
}


def style_path(output: Path) -> str:
    """A PATH whose Python has what Buildroot's check-package imports; installed below the work folder when missing."""
    path = os.environ.get("PATH", os.defpath)
    programs = output / "style/bin"
    if not (programs / "flake8").exists():
        tool([sys.executable, "-m", "venv", programs.parent])
        tool([programs / "pip", "install", "--quiet", "--disable-pip-version-check", *STYLE_NEEDS])
    return f"{programs}:{path}"


def check_style(buildroot: Path, output: Path) -> Iterator[str]:
    """Buildroot's own style checker over this tree."""
    files = sorted(path for folder in ("board", "configs", "package", "patches") for path in (TREE / folder).rglob("*"))
    files = [path for path in files if path.is_file()]
    files += [TREE / name for name in ("Config.in", "external.desc", "external.mk")]
    try:
        env = {**os.environ, "PATH": style_path(output)}
        tool(["python3", buildroot / "utils/check-package", "-b", *files], env=env)
    except CheckError as error:
        yield str(error)
    yield f"= {len(files)} files"


def report(title: str, findings: Iterator[str]) -> bool:
    """Print what a check found; whether it found nothing wrong."""
    began = time.monotonic()
    complaints, figures = [], ""
    try:
        for finding in findings:
            if finding.startswith("= "):
                figures = finding[2:]
            else:
                complaints.append(finding)
    except (CheckError, DotconfigError, json.JSONDecodeError) as error:
        complaints.append(str(error))
    verdict = "FAILED" if complaints else "ok"
    print(f"  {verdict:6}  {title:16}  {figures}  ({time.monotonic() - began:.0f} s)", flush=True)
    for complaint in complaints:
        print("          " + complaint.replace("\n", "\n          "))
    return not complaints


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="check", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("buildroot", type=Path, metavar="BUILDROOT_DIR", help="a checkout or unpacked release")
    parser.add_argument("--output", type=Path, default=Path("/tmp/virmo-buildroot-check"), help="work folder")  # noqa: S108
    parser.add_argument("--linux", type=Path, metavar="LINUX_DIR", help="kernel source: check the fragments too")
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these defconfigs (virmo_…)")
    arguments = parser.parse_intermixed_args()  # names may follow options
    buildroot = arguments.buildroot.resolve()
    if not (buildroot / "support/scripts/graph-depends").is_file():
        parser.error(f"{buildroot} is no Buildroot")
    linux = arguments.linux.resolve() if arguments.linux else None
    if linux is not None and not (linux / "scripts/kconfig/merge_config.sh").is_file():
        parser.error(f"{linux} is no kernel source")
    defconfigs = sorted((TREE / "configs").glob("*_defconfig"))
    unknown = set(arguments.names) - {path.name.removesuffix("_defconfig") for path in defconfigs}
    if unknown:
        parser.error(f"no such defconfig: {', '.join(sorted(unknown))}")
    try:
        print(f"Buildroot {tool(['make', '-s', 'print-version'], cwd=buildroot).strip()}")
        if linux is not None:
            print(f"Linux {tool(['make', '-s', 'kernelversion'], cwd=linux).strip()}")
    except CheckError as error:
        print(f"check: {error}", file=sys.stderr)
        return 2
    results = []
    for defconfig in defconfigs:
        subject = Subject(buildroot, defconfig, arguments.output.resolve() / defconfig.name, linux)
        if arguments.names and subject.name not in arguments.names:
            continue
        subject.output.mkdir(parents=True, exist_ok=True)
        print(subject.name)
        checks = {title: check for title, check in CHECKS.items() if linux or check is not check_kernel}
        results += [report(title, check(subject)) for title, check in checks.items()]
    print("all files")
    results.append(report("check-package", check_style(buildroot, arguments.output.resolve())))
    print(f"{sum(results)} passed, {len(results) - sum(results)} failed")
    return 0 if all(results) else 1
