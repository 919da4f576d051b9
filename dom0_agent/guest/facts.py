"""Turns what a guest says of itself into :class:`GuestFacts`: caps first, then patterns, else ``None``.

Nothing a guest says is believed for a decision about its State; it is shown to people and to tests.
"""

from __future__ import annotations

import re

from dom0_agent.hypervisor.interface import GuestFacts

NO_FACTS = GuestFacts(boot_id=None, beats=None, shim_version=None)

_BOOT_ID = re.compile(rb"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_BEATS = re.compile(rb"[0-9]{1,15}")  # 30 million years of one beat a second
_VERSION = re.compile(rb"[0-9A-Za-z][0-9A-Za-z.+-]{0,39}")


def parse_facts(
    untrusted_boot_id: bytes | None, untrusted_beats: bytes | None, untrusted_version: bytes | None
) -> GuestFacts:
    """The facts that are well formed; the others are ``None``."""
    boot_id = _valid(_BOOT_ID, untrusted_boot_id)
    beats = _valid(_BEATS, untrusted_beats)
    return GuestFacts(
        boot_id=boot_id, beats=None if beats is None else int(beats), shim_version=_valid(_VERSION, untrusted_version)
    )


def _valid(pattern: re.Pattern[bytes], untrusted_value: bytes | None) -> str | None:
    if untrusted_value is None or not pattern.fullmatch(untrusted_value):
        return None
    return untrusted_value.decode("ascii")
