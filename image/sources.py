"""The Debian archives this machine's apt already uses: the image is built from the same ones.

apt itself is asked (`apt-get indextargets`), so one-line and deb822 files, options, proxies and mirrors mean what they
mean to apt, and no host name has to stand anywhere in this repository. Archives of other origins (a vendor's tools on a
developer's machine) stay out of the image.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from image.errors import ImageError
from image.host import APT_TIMEOUT, run_tool

#: The suite that everything here was measured with (Xen 4.17, Linux 6.1, Python 3.11).
CODENAME = "bookworm"
_ORIGIN = "Debian"
_FIELDS = ("ORIGIN", "CODENAME", "RELEASE", "COMPONENT", "REPO_URI")
_FORMAT = "|".join(f"$({field})" for field in _FIELDS)
_DEBIAN_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
#: Settings of the build machine's apt that say how to reach an archive, and so hold for the image's packages too.
_FETCH_SETTINGS = (
    "Acquire::http",
    "Acquire::https",
    "Acquire::Retries",
    "Acquire::Check-Valid-Until",
    "Acquire::Check-Date",
)
#: Both spellings: `deb [signed-by=/a,/b] …` and deb822's `Signed-By: /a`. Keys written out inline are not read.
_SIGNED_BY = re.compile(r"signed-by\s*[:=]\s*(/[^\s\]]+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, order=True)
class Source:
    """One suite of one archive."""

    uri: str
    release: str
    components: tuple[str, ...]

    def one_line(self, keyrings: Sequence[str] = ()) -> str:
        """The entry as sources.list has it."""
        options = f" [signed-by={','.join(keyrings)}]" if keyrings else ""
        return f"deb{options} {self.uri} {self.release} {' '.join(self.components)}"


def parse_index_targets(lines: Iterable[str], codename: str = CODENAME) -> tuple[Source, ...]:
    """The Debian archives of the wanted release among what apt lists."""
    found: dict[tuple[str, str], set[str]] = {}
    for line in lines:
        values = dict(zip(_FIELDS, line.strip().split("|"), strict=False))
        if len(values) == len(_FIELDS) and values["ORIGIN"] == _ORIGIN and values["CODENAME"].startswith(codename):
            found.setdefault((values["REPO_URI"], values["RELEASE"]), set()).add(values["COMPONENT"])
    return tuple(sorted(Source(uri, release, tuple(sorted(parts))) for (uri, release), parts in found.items()))


def parse_keyrings(texts: Iterable[str]) -> tuple[str, ...]:
    """The keyring files that apt's source files name: a mirror may be signed by its owner's key, not by Debian's."""
    named = {path for text in texts for match in _SIGNED_BY.findall(text) for path in match.split(",")}
    return tuple(sorted(named))


def keyrings() -> tuple[str, ...]:
    """Every keyring that may sign what the image is built from. Empty: apt's own trusted keys."""
    etc = Path("/etc/apt")
    files = [etc / "sources.list", *etc.glob("sources.list.d/*.list"), *etc.glob("sources.list.d/*.sources")]
    named = parse_keyrings(file.read_text() for file in files if file.is_file())
    return tuple(sorted({path for path in (*named, _DEBIAN_KEYRING) if Path(path).is_file()}))


def debian_sources() -> tuple[Source, ...]:
    """What this machine's apt uses; its package lists are fetched first if it has none yet."""
    found = parse_index_targets(_index_targets())
    if not found:
        run_tool(["apt-get", "update"], what="fetching the package lists", timeout=APT_TIMEOUT)
        found = parse_index_targets(_index_targets())
    if not any(source.release == CODENAME for source in found):
        raise ImageError(
            f"This machine's apt has no Debian {CODENAME} archive among its sources.",
            todo=f"add a Debian {CODENAME} entry to /etc/apt/sources.list.d and run apt-get update",
        )
    return found


def _index_targets() -> Sequence[str]:
    argv = ["apt-get", "indextargets", "--format", _FORMAT, "Created-By: Packages"]
    return run_tool(argv, what="reading apt's sources", timeout=60).splitlines()


def sources_list(sources: Iterable[Source], signed_by: Sequence[str] = ()) -> str:
    """The text of a sources.list."""
    return "".join(f"{source.one_line(signed_by)}\n" for source in sources)


def parse_fetch_settings(dump: Iterable[str]) -> str:
    """The lines of `apt-config dump` that say how archives are reached from this machine."""
    wanted = tuple(f"{name}{end}" for name in _FETCH_SETTINGS for end in (" ", "::"))
    return "".join(f"{line}\n" for line in (raw.strip() for raw in dump) if line.startswith(wanted))


def fetch_settings() -> str:
    """This machine's proxies and the like, in apt.conf's format."""
    dump = run_tool(["apt-config", "dump", "--no-empty"], what="reading apt's settings", timeout=60)
    return parse_fetch_settings(dump.splitlines())
